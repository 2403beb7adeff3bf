"""What a run would take, tried in one step; and what is refused before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.settings import TrainingSettings, parse_recipe

from .conftest import Fit


def test_a_dry_run_says_what_the_run_would_take_and_leaves_nothing(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--dry_run", "true", output_dir=tmp_path / "run", max_steps=None, num_train_epochs=3, eval_strategy="steps")
    said = capsys.readouterr().out
    # 32 samples, 8 a step.
    assert "12 steps; disk for the model and up to 1 checkpoint(s)" in said
    assert re.search(r"dry run: one step took [\d.]+ s and [\d.]+ GB of this process; 12 such steps", said)
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_several_gpus_and_one_process_are_refused_with_the_command_to_type(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingSettings, "n_gpu", 4)
    with pytest.raises(
        PromptCBLUEError, match=r"accelerate launch --num_processes 4 -m promptcblue_training\.sft .*--x"
    ):
        fit("--run_name=--x")


def test_a_recipe_alone_runs_no_code_and_sets_no_variables(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: some/model\noutput_dir: out\ntrust_remote_code: true\n")
    with pytest.raises(PromptCBLUEError, match="add --trust_remote_code true to the command"):
        parse_recipe(path)
    assert parse_recipe(path, ["--trust_remote_code", "true"])[1].trust_remote_code
    assert not parse_recipe(path, ["--trust_remote_code", "false"])[1].trust_remote_code
    path.write_text("model: some/model\noutput_dir: out\nenv:\n  LD_PRELOAD: x.so\n")
    with pytest.raises(PromptCBLUEError, match="env: a recipe sets no variables"):
        parse_recipe(path)
