"""The ``ray`` backend on workers of this machine, with one killed, and a whole run killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from promptcblue_training.backends import BackendSettings
from promptcblue_training.predict import predict

from ...conftest import SampleRows
from ..conftest import read_rows, write_rows

#: Predicts on two workers. With a third argument it kills a worker once some answers are there.
DRIVER = """
import os, signal, sys, threading, time
from pathlib import Path
from promptcblue_training.backends import BackendSettings, ClusterSettings
from promptcblue_training.predict import predict

dataset, model, output, *kill = sys.argv[1:]

def workers():
    own = b"PROMPTCBLUE_TEST=" + os.environ["PROMPTCBLUE_TEST"].encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes()
            if name.startswith(b"ray::") and b"_Worker" in name and own in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return sorted(found)

def kill_one():
    while not (Path(output).exists() and Path(output).read_bytes().count(b"\\n") >= 8):
        time.sleep(0.02)
    victims = workers()
    print("killing", victims, flush=True)
    os.kill(victims[-1], signal.SIGKILL)

if kill:
    threading.Thread(target=kill_one, daemon=True).start()
settings = BackendSettings(model=model, name="ray", cluster=ClusterSettings(workers=2, cpus=0.5))
predict(dataset, "test", Path(output), settings, max_new_tokens=64)
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the workers in /proc")
def test_killed_workers_and_killed_runs_lose_and_double_nothing(
    trained: Path, tmp_path: Path, sample_rows: SampleRows
) -> None:
    pytest.importorskip("ray")
    rows = [row for row in sample_rows("test") if len(row["input"]) < 400]
    many = [{**rows[number % len(rows)], "sample_id": f"test-{number}"} for number in range(96)]
    dataset, output = write_rows(tmp_path / "many.json", many), tmp_path / "predictions.jsonl"
    environment = {
        **os.environ,
        "PROMPTCBLUE_TEST": str(os.getpid()),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": "/tmp",  # its sockets need a short path
    }
    options: dict[str, Any] = {"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-c", DRIVER, str(dataset), str(trained), str(output)]

    first = subprocess.Popen(command, start_new_session=True, **options)
    until = time.monotonic() + 120
    while not (output.exists() and output.read_bytes().count(b"\n") >= 12):
        assert time.monotonic() < until
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = read_rows(output) if output.read_bytes().endswith(b"\n") else None

    second = subprocess.run([*command, "kill"], timeout=200, check=False, **options)
    assert second.returncode == 0, second.stdout
    assert "killing" in second.stdout
    after = read_rows(output)
    assert len(after) == len({row["sample_id"] for row in after}) == len(many)
    assert before is None or after[: len(before)] == before

    alone = tmp_path / "alone.jsonl"
    predict(str(dataset), "test", alone, BackendSettings(model=str(trained)), max_new_tokens=64)
    texts = ({row["sample_id"]: row["prediction"] for row in read_rows(path)} for path in (output, alone))
    assert next(texts) == next(texts)
    recorded = json.loads(Path(f"{output}.meta.json").read_text(encoding="utf-8"))
    assert recorded["settings"]["backend"] == "ray transformers"
    assert recorded["notes"]["workers"] == 2
