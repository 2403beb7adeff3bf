"""The demo's commands, with fewer training steps: from the embedded sample to scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptcblue_metric.tasks import TASKS


def run(folder: Path, command: str, *arguments: str) -> str:
    """Run one of our commands as a user does; returns what it printed."""
    script = Path(sys.executable).with_name(command)
    if not script.exists():
        pytest.skip(f"{command} is not installed beside {sys.executable}")
    result = subprocess.run(
        [str(script), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    # 3: many answers of so small a model are cut.
    assert result.returncode in (0, 3), result.stderr
    return result.stdout


@pytest.mark.timeout(400)
def test_from_the_sample_to_the_scores(tmp_path: Path) -> None:
    run(tmp_path, "promptcblue-dataset", "import", "sample", "--output", "demo/promptcblue", "--no-cache")
    fewer = ["--max_steps", "12", "--warmup_steps", "2", "--save_steps", "12", "--eval_steps", "12"]
    data = ["--dataset", "demo/promptcblue"]
    trained = run(tmp_path, "promptcblue-train", "sft", "demo", *data, "--output_dir", "demo/model", *fewer)
    assert "trainable parameters" in trained

    output = ["--split", "test", "--output", "demo/test.jsonl", "--max-new-tokens", "16"]
    predicted = run(tmp_path, "promptcblue-train", "predict", "--model", "demo/model", *data, *output)
    # The command it names as the next one is the next one.
    line = predicted.splitlines()[-1]
    assert line.startswith("next: promptcblue-metric score ")
    run(tmp_path, *line.removeprefix("next: ").split(), "--json", "demo/scores.json")

    scores = json.loads((tmp_path / "demo" / "scores.json").read_text(encoding="utf-8"))
    assert list(scores["tasks"]) == list(TASKS)
    assert 0 <= scores["overall"] < 0.5
