from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.run import Evaluated, Rule, choose, evaluated, lowest, take_weights

from .conftest import Fit

PAPER = Rule("paper", 200)
LOSSES = [Evaluated(100, 3.0), Evaluated(200, 2.0), Evaluated(300, 2.5), Evaluated(400, 2.2), Evaluated(500, 2.1)]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (path,) = folder.glob("*.safetensors")
    return dict(load_file(path))


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape and bool((first[name] == second[name]).all()) for name in first
    )


def test_the_paper_s_choice_comes_200_steps_after_the_lowest_loss() -> None:
    choice = choose(PAPER, LOSSES, last_step=500, saved=[200, 400])
    assert (choice.step, choice.lowest, choice.last_step) == (400, Evaluated(200, 2.0), 500)


@pytest.mark.parametrize(
    ("rule", "losses", "last_step", "saved", "step"),
    [
        (Rule("best"), LOSSES, 500, [200], 200),
        (Rule("last"), LOSSES, 500, [200, 400], 500),
        (PAPER, LOSSES[:3], 300, [200], 300),  # ended before 200 more steps
        (PAPER, LOSSES[:4], 400, [], 400),  # ended just there: the model in memory is the one
        (PAPER, LOSSES, 500, [200], 500),  # its checkpoint is gone
        (PAPER, [], 500, [200, 400], 500),  # no validation samples
        (PAPER, [Evaluated(100, float("nan"))], 500, [300], 500),
    ],
)
def test_what_else_is_chosen_and_why(
    rule: Rule, losses: list[Evaluated], last_step: int, saved: list[int], step: int
) -> None:
    choice = choose(rule, losses, last_step, saved)
    assert choice.step == step
    assert choice.reason


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.integers(0, 500), st.integers(1, 4))
def test_training_never_stops_before_the_checkpoint_to_choose(losses: list[float], after: int, patience: int) -> None:
    rule = Rule("paper", after, patience)
    seen = [Evaluated(100 * (place + 1), loss) for place, loss in enumerate(losses)]
    stops = [step for count in range(1, len(seen) + 1) if rule.may_stop(seen[:count], step := 100 * count)]
    if stops:
        known = seen[: stops[0] // 100]
        best = lowest(known)
        assert best is not None
        assert best.step + after <= stops[0]
        assert len([one for one in known if one.step > best.step]) >= patience
        assert choose(rule, known, stops[0], [best.step + after]).step == best.step + after


def test_losses_are_read_off_the_log() -> None:
    log: list[dict[str, Any]] = [
        {"step": 10, "loss": 1.0},
        {"step": 20, "eval_loss": 2},
        {"step": 10, "eval_loss": 3.0},
        {"step": 20},
    ]
    assert evaluated(log) == [(10, 3.0), (20, 2.0)]


@pytest.fixture
def rises_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Validation losses that fall until a step and rise from there, whatever the model does."""
    from promptcblue_training import trainer

    original = trainer.Trainer.evaluation_loop

    def start(turn: int) -> None:
        def loop(self: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(self, *args, **kwargs)
            output.metrics["eval_loss"] = abs(self.state.global_step - turn) + 1.0
            return output

        monkeypatch.setattr(trainer.Trainer, "evaluation_loop", loop)

    return start


SETTINGS: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 2, "lora_rank": 4}


@pytest.mark.parametrize("method", ["full", "lora", "adalora"])
def test_the_model_is_the_chosen_checkpoint_s(
    fit: Fit, trained: Path, rises_after: Any, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rises_after(4)
    # AdaLoRA lowers its ranks until shortly before the end, so that they differ between checkpoints.
    ranks = {"adalora_interval": 1, "adalora_end": 0.05, "adalora_target_rank": 1}
    changes = {**SETTINGS, **ranks, "method": method, "steps_after_best": 5, "save_steps": 2}
    if method != "full":
        changes |= {"model": str(trained), "from_config": None}
    folder = fit(**changes, max_steps=16)
    record = json.loads((folder / "checkpoint_choice.json").read_text())
    # Step 9 is neither one at which the recipe evaluates nor one at which it saves.
    assert (record["step"], record["lowest"]["step"], record["last_step"]) == (9, 4, 16)
    assert [row["step"] for row in record["losses"]] == [2, 4, 6, 8, 9, 10, 12, 14, 16]
    assert "step 9: 5 steps after the lowest validation loss" in capsys.readouterr().out
    # Not rotated away, and beside it only the last one.
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-16", "checkpoint-9"]
    assert same(folder, folder / "checkpoint-9")
    assert not same(folder, folder / "checkpoint-16")
    assert json.loads((folder / "eval_results.json").read_text())["eval_loss"] == 6
    if method == "adalora":
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config == json.loads((folder / "checkpoint-9" / "adapter_config.json").read_text())
        last = json.loads((folder / "checkpoint-16" / "adapter_config.json").read_text())
        assert config["rank_pattern"] != last["rank_pattern"]
    if method != "full":
        import torch

        from promptcblue_training.model import find_model, load_for_prediction

        loaded = load_for_prediction(find_model(str(folder)), torch.float32)
        assert any(bool(value.any()) for name, value in loaded.named_parameters() if "lora_B" in name)


def test_training_may_stop_early_and_goes_on_where_it_was_cut_short(fit: Fit, rises_after: Any, tmp_path: Path) -> None:
    rises_after(4)
    changes = {**SETTINGS, "steps_after_best": 3, "patience": 2, "save_steps": 2, "max_steps": 40}
    whole = fit(**changes)
    record = json.loads((whole / "checkpoint_choice.json").read_text())
    assert (record["step"], record["last_step"]) == (7, 7), "two evaluations, at 6 and 7, were no new lowest"

    cut = tmp_path / "cut"
    from promptcblue_training import trainer

    original = trainer.Trainer.training_step

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(output_dir=cut, **changes)
    fit(output_dir=cut, **changes)
    assert json.loads((cut / "checkpoint_choice.json").read_text()) == record
    for name, tensor in weights(whole).items():
        assert (tensor - weights(cut)[name]).abs().max() < 1e-4, name


def test_the_best_checkpoint_is_kept_too(fit: Fit, rises_after: Any) -> None:
    rises_after(4)
    folder = fit(**SETTINGS, checkpoint_choice="best", max_steps=8, save_steps=100)
    assert json.loads((folder / "checkpoint_choice.json").read_text())["step"] == 4
    assert same(folder, folder / "checkpoint-4")


def test_a_checkpoint_without_whole_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-9" / "pytorch_model_fsdp_0").mkdir(parents=True)
    with pytest.raises(PromptCBLUEError, match="zero3_save_16bit_model"):
        take_weights(tmp_path / "checkpoint-9", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_choice": "luck"}, "paper, best, last"),
        ({"patience": 0}, "patience"),
        ({"steps_after_best": -1}, "steps_after_best"),
        ({"load_best_model_at_end": True}, "checkpoint_choice"),
        ({"save_strategy": "best"}, "checkpoint_choice"),
        ({"metric_for_best_model": "loss"}, "checkpoint_choice"),
    ],
)
def test_settings_that_mean_nothing_are_refused(fit: Fit, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptCBLUEError, match=message):
        fit(**changes)


def test_a_model_trained_in_full_is_saved_in_the_format_asked_for(fit: Fit, trained: Path) -> None:
    whole, half = (fit(max_steps=1, save_dtype=name) for name in ("auto", "bfloat16"))
    expected, found = weights(whole), weights(half)
    assert {str(tensor.dtype) for tensor in found.values()} == {"torch.bfloat16"}
    assert json.loads((half / "config.json").read_text())["dtype"] == "bfloat16"
    for name, tensor in expected.items():
        assert (tensor.bfloat16() == found[name]).all(), name
    assert [path.name for path in half.glob("*.safetensors")] == ["model.safetensors"]
    with pytest.raises(PromptCBLUEError, match="save_dtype is of method full"):
        fit(model=str(trained), from_config=None, method="lora", save_dtype="bfloat16")
