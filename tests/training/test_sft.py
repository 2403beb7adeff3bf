from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptcblue_dataset import load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.model import find_model

from .conftest import RECIPE, Fit, read_rows, write_rows


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (path,) = folder.glob("*.safetensors")
    return dict(load_file(path))


def log(folder: Path) -> list[dict[str, float]]:
    entries: list[dict[str, float]] = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return entries


def test_full_fine_tuning_lowers_the_loss_and_saves_what_loads(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    losses = [entry["loss"] for entry in log(trained) if "loss" in entry]
    assert losses[-1] < losses[0] / 1.5
    assert AutoTokenizer.from_pretrained(trained).eos_token == "</s>"
    model = AutoModelForCausalLM.from_pretrained(trained)
    backbone = AutoModelForCausalLM.from_pretrained(trained / "backbone")
    moved = [(a != b).any().item() for a, b in zip(model.parameters(), backbone.parameters(), strict=True)]
    assert all(moved)
    assert json.loads((trained / "train_results.json").read_text())["train_samples"] == 32


def test_the_validation_loss_is_kept_where_there_is_a_validation_split(trained: Path) -> None:
    assert json.loads((trained / "eval_results.json").read_text())["eval_loss"] > 0


def test_lora_trains_its_own_matrices_alone(fit: Fit, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from peft import PeftModel

    from promptcblue_training.model import choose_dtype, load_for_prediction

    folder = fit(model=str(trained), from_config=None, method="lora", max_steps=4, lora_rank=2, lora_alpha=4)
    assert "trainable parameters:" in capsys.readouterr().out
    config = json.loads((folder / "adapter_config.json").read_text())
    adapted = {name.split(".")[-3] for name in weights(folder)}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert config["r"] == 2
    source = find_model(str(folder))
    assert source == (str(trained), str(folder))
    assert find_model(str(trained), str(folder)) == source
    import torch

    model = load_for_prediction(source, choose_dtype("auto", torch.device("cpu")))
    assert isinstance(model, PeftModel)
    scale = max(float(matrix.abs().max()) for name, matrix in weights(folder).items() if "lora_B" in name)
    assert scale > 0


def test_an_adapter_on_a_built_backbone_moves_with_its_folder(fit: Fit, tmp_path: Path) -> None:
    folder = fit(method="lora", max_steps=2, lora_rank=2, output_dir=tmp_path / "run")
    moved = folder.rename(tmp_path / "moved")
    assert find_model(str(moved)) == (str(moved / "backbone"), str(moved))


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_to_the_same_weights(
    data: Path, fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"max_steps": 60, "save_steps": 5}
    folder = tmp_path / "killed"
    recipe = tmp_path / "killed.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "dataset": str(data), "output_dir": str(folder), **changes}))
    command = [sys.executable, "-m", "promptcblue_training.sft", str(recipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not list(folder.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not (folder / "train_results.json").exists()

    fit(output_dir=folder, **changes)
    assert f"going on from {folder / 'checkpoint-'}" in capsys.readouterr().out
    whole = fit(**changes)
    steps = [entry["step"] for entry in log(folder) if "loss" in entry]
    assert steps == list(range(10, 61, 10))
    for name, tensor in weights(whole).items():
        difference = (tensor - weights(folder)[name]).abs().max()
        assert difference < 1e-4, name


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    from promptcblue_training.run import last_checkpoint

    assert last_checkpoint(tmp_path) is None
    for step, state in {9: "{}", 10: "{}", 11: '{"global_st', 12: "", 13: None}.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_finished_run_is_left_as_it_is(fit: Fit, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    fit(output_dir=trained, max_steps=80, logging_steps=20)
    assert "nothing left to train" in capsys.readouterr().out
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_other_settings_do_not_go_on_with_a_run(fit: Fit, trained: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=r"learning_rate was 0\.005, is now 0\.02"):
        fit(output_dir=trained, max_steps=80, learning_rate=0.02)


def test_overwrite_starts_anew(fit: Fit) -> None:
    folder = fit(max_steps=2, save_steps=1)
    fit("--overwrite", "true", output_dir=folder, max_steps=1, save_steps=1)
    assert log(folder)[-1]["step"] == 1
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-1"]


def test_a_subset_of_the_tasks(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fit("--configs", "CMeEE", "KUAKE-IR", max_steps=1)
    assert json.loads((folder / "train_results.json").read_text())["train_samples"] == 4
    assert "validation: 2 samples of 2 task(s)" in capsys.readouterr().out


def test_the_next_command_is_one_to_paste(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fit(output_dir=tmp_path / "my run's 模型; $HOME", max_steps=1, configs=["CHIP-STS"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    words = shlex.split(line)[1:]
    assert words[:4] == ["promptcblue-train", "predict", "--model", str(folder)]
    assert words[-2:] == ["--output", str(folder / "predictions.jsonl")]


def test_one_file_has_no_validation_split(fit: Fit, data: Path) -> None:
    folder = fit(dataset=str(data / "train.json"), max_steps=1)
    assert not (folder / "eval_results.json").exists()


def test_a_bad_validation_split_is_not_taken_for_none(fit: Fit, data: Path, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes((data / "train.json").read_bytes())
    (tmp_path / "dev.json").write_text("{}\n")
    with pytest.raises(PromptCBLUEError, match=r"dev\.json:1"):
        fit(dataset=str(tmp_path))


def test_long_samples_are_counted_by_task(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--configs", "IMCS-V2-MRG", "CHIP-STS", max_steps=1, max_length=180)
    assert "IMCS-V2-MRG: 2 of 2" in capsys.readouterr().out


def test_targets_that_are_too_long_are_skipped_and_counted(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--configs", "CMeIE", "CHIP-STS", "--max_length", "60")
    fit(*words, max_steps=1, validation_split="test")
    said = capsys.readouterr().out
    assert "samples were left out" in said
    assert re.search(r"  CMeIE: \d of 2\n", said)
    with pytest.raises(PromptCBLUEError, match="set max_length to"):
        fit(*words, "--long-targets", "refuse", max_steps=1)
    with pytest.raises(PromptCBLUEError, match="unknown long_targets"):
        fit(*words, "--long-targets", "cut")


def test_a_loss_that_is_no_number_stops_the_run(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match="loss is nan at step"):
        fit(
            learning_rate=1e30, max_grad_norm=0, warmup_steps=0, lr_scheduler_type="constant", output_dir=tmp_path / "m"
        )
    assert not (tmp_path / "m" / "train_results.json").exists()


def test_a_tokenizer_without_a_pad_token_is_given_one(fit: Fit, trained: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    bare.mkdir()
    for path in trained.glob("*.*"):
        if path.is_file():
            (bare / path.name).write_bytes(path.read_bytes())
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("pad_token")
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    assert AutoTokenizer.from_pretrained(bare).pad_token is None
    folder = fit(model=str(bare), from_config=None, max_steps=2)
    assert AutoTokenizer.from_pretrained(folder).pad_token == "</s>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "no/such/data"}, "no/such/data"),
        ({"model": "./no/such/model", "from_config": None}, "no/such/model"),
        ({"train_split": "nowhere"}, "nowhere"),
        ({"method": "lora", "lora_target_modules": ["no_such_layer"]}, "no_such_layer"),
    ],
)
def test_what_cannot_be_used_is_named(fit: Fit, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptCBLUEError, match=message):
        fit(**changes)


def test_a_folder_without_a_model_is_no_model(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=r"config\.json"):
        fit(model=str(tmp_path), from_config=None)


def test_samples_without_targets_cannot_be_learned(fit: Fit, data: Path, tmp_path: Path) -> None:
    rows = [{**row, "target": ""} for row in read_rows(data / "test.json")]
    with pytest.raises(PromptCBLUEError, match="16 of 16 samples have an empty target"):
        fit(dataset=str(write_rows(tmp_path / "test.json", rows)))


def test_the_rows_reach_the_model_untouched(fit: Fit, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trainer feeds is what the encoder wrote: no token of a target is cut, masked or left out."""
    from promptcblue_training import trainer
    from promptcblue_training.prompts import IGNORED

    seen: list[list[int]] = []
    original = trainer.Trainer.training_step

    def spy(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        starts = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
        (labels,) = inputs["labels"].tolist()
        for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
            seen.append([label for label in labels[start:end] if label != IGNORED])
        return original(self, model, inputs, *rest)

    monkeypatch.setattr(trainer.Trainer, "training_step", spy)
    folder = fit(max_steps=4, padding_free=True)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = sorted(tokenizer.decode(labels) for labels in seen)
    assert texts == sorted(sample["target"] + "</s>" for sample in load_samples(data, "train"))
