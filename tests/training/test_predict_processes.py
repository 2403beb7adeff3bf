"""One prediction run in two processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from promptcblue_training.backends import BackendSettings
from promptcblue_training.predict import predict

from .conftest import read_rows


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    return subprocess.run(
        [sys.executable, *launcher, "-m", "promptcblue_training.cli", *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_two_processes_predict_what_one_does_and_go_on_where_they_stopped(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    alone, together = tmp_path / "alone.jsonl", tmp_path / "together.jsonl"
    predict(str(data), "test", alone, BackendSettings(model=str(trained), batch_size=3), max_new_tokens=24)
    options = ["--model", trained, "--dataset", data, "--output", together, "--max-new-tokens", 24, "--batch-size", 3]
    # An earlier run, of one process, left five answers.
    predict(str(data), "test", together, BackendSettings(model=str(trained), batch_size=3), max_new_tokens=24)
    lines = together.read_bytes().splitlines(keepends=True)
    together.write_bytes(b"".join(lines[:5]))
    result = launch("predict", *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("holds 5 of 16") == 1
    assert together.read_bytes().startswith(b"".join(lines[:5]))
    one, two = ({row["sample_id"]: row for row in read_rows(path)} for path in (alone, together))
    assert one == two
    assert len(read_rows(together)) == 16

    refused = launch("predict", *options, "--beams", 2)
    assert refused.returncode != 0
    assert refused.stderr.count("error: ") == 1
    assert "beams was 1, is now 2" in refused.stderr
