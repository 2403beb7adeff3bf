"""A step is a fixed number of samples, however it is cut, and samples that share a row do not see each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from promptcblue_metric.errors import PromptCBLUEError

from .conftest import CONFIG, Fit, read_rows, write_rows

#: Decoders of other kinds than Llama: their attention gets its positions and masks in other ways.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": CONFIG,
    "qwen2": {**CONFIG, "model_type": "qwen2"},
    "qwen3": {**CONFIG, "model_type": "qwen3", "head_dim": 32},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256},
}
#: Those that tell documents apart by nothing: one has no positions, the other's state runs on from text to text.
MIXING: dict[str, dict[str, Any]] = {
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2},
    "mamba": {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1, "state_size": 4},
}


def losses(folder: Path) -> list[float]:
    """The training losses that a finished run logged."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def validation_loss(folder: Path) -> float:
    return float(json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))["eval_loss"])


@pytest.fixture(scope="module")
def one_pass(fit: Fit) -> Path:
    """Steps of eight samples in one pass, without padding."""
    return fit(max_steps=6, logging_steps=1)


@pytest.mark.parametrize(
    "cut",
    [
        {"padding_free": False},
        {"per_device_train_batch_size": 2},
        {"per_device_train_batch_size": 2, "padding_free": False},
        {"per_device_train_batch_size": None, "batch_tokens": 600},
    ],
    ids=["padded", "four passes", "four padded passes", "by tokens"],
)
def test_a_step_is_the_same_however_it_is_cut(fit: Fit, one_pass: Path, cut: dict[str, Any]) -> None:
    other = fit(max_steps=6, logging_steps=1, **cut)
    assert losses(other) == pytest.approx(losses(one_pass), abs=2e-4)
    assert validation_loss(other) == pytest.approx(validation_loss(one_pass), abs=2e-4)


def test_the_validation_loss_is_the_mean_over_tokens(fit: Fit, one_pass: Path) -> None:
    """Not the mean of the batches' means: it does not change with the size of the batches."""
    other = fit(max_steps=6, logging_steps=1, per_device_eval_batch_size=3)
    assert validation_loss(other) == pytest.approx(validation_loss(one_pass), abs=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_documents_in_one_row_do_not_see_each_other(name: str) -> None:
    import torch

    from promptcblue_training.tiny import build_model, build_tokenizer
    from promptcblue_training.trainer import keeps_documents_apart

    model = build_model(ARCHITECTURES[name], build_tokenizer(["abcdefghijklm"]), seed=1).eval()
    assert keeps_documents_apart(model)
    # The same by hand: what stands before a document changes nothing in it, and what is in it does.
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with torch.no_grad():
        one = model(torch.tensor([[4, 5, 6, 7, 8, 9]]), position_ids=positions, use_cache=False).logits[0, 3:]
        other = model(torch.tensor([[9, 4, 8, 7, 8, 9]]), position_ids=positions, use_cache=False).logits[0, 3:]
        changed = model(torch.tensor([[4, 5, 6, 8, 7, 9]]), position_ids=positions, use_cache=False).logits[0, 3:]
    assert (one - other).abs().max() < 1e-5
    assert (one - changed).abs().max() > 1e-3


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_would_mix_documents_is_found_out(name: str) -> None:
    from promptcblue_training.tiny import build_model, build_tokenizer
    from promptcblue_training.trainer import keeps_documents_apart

    assert not keeps_documents_apart(build_model(MIXING[name], build_tokenizer(["abcdefghijklm"]), seed=1))


def test_a_model_that_would_mix_documents_is_trained_with_padding(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit(max_steps=1, from_config=MIXING["bloom"], validation_split="test")
    assert "with padding" in capsys.readouterr().out
    with pytest.raises(PromptCBLUEError, match="see each other"):
        fit(max_steps=1, from_config=MIXING["bloom"], padding_free=True)


def test_packing_of_rows_is_refused(fit: Fit) -> None:
    with pytest.raises(PromptCBLUEError, match="padding_free"):
        fit(packing=True)


def test_passes_keep_to_the_tokens_asked_for() -> None:
    from promptcblue_training.trainer import passes_a_step

    lengths = [100] * 64
    assert passes_a_step(lengths, samples=64, devices=1, tokens=6400, seed=1) == 1
    assert passes_a_step(lengths, samples=64, devices=1, tokens=3200, seed=1) == 2
    assert passes_a_step(lengths, samples=64, devices=2, tokens=1600, seed=1) == 2
    assert passes_a_step(lengths, samples=64, devices=2, tokens=1, seed=1) == 32
    assert passes_a_step(lengths * 2, samples=64, devices=1, tokens=10**6, seed=1) == 1


@pytest.mark.parametrize("method", ["full", "lora", "p-tuning", "p-tuning-v2"])
@pytest.mark.parametrize("padding_free", [None, False])
def test_the_head_scores_the_targets_alone_and_the_loss_is_the_model_s_own(
    fit: Fit, trained: Path, method: str, padding_free: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from promptcblue_training import trainer

    seen: list[tuple[int, int]] = []
    gaps: list[float] = []
    original: Any = trainer.Trainer.compute_loss

    def spy(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        labels = inputs["labels"]
        with torch.no_grad():
            ours, outputs = original(self, model, dict(inputs), return_outputs=True)
            logits = model(**{key: value for key, value in inputs.items() if key != "labels"}, use_cache=False).logits
        logits = logits[:, -labels.shape[1] :][:, :-1].flatten(0, 1).float()
        plain = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100)
        seen.append((outputs.log_probs.numel(), int((labels[:, 1:] != -100).sum())))
        gaps.append(abs(float(plain - ours)))
        return original(self, model, inputs, *rest, **named)

    monkeypatch.setattr(trainer.Trainer, "compute_loss", spy)
    fit(
        model=str(trained),
        from_config=None,
        method=method,
        virtual_tokens=5,
        padding_free=padding_free,
        max_steps=2,
    )
    assert seen
    assert all(scored == targets for scored, targets in seen)
    assert max(gaps) < 1e-5


def test_no_pass_waits_for_the_device(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass reads a number off the device, which would wait for all that it has to do; log entries do."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from promptcblue_training import trainer

    class Readings(TorchDispatchMode):  # type: ignore[no-untyped-call]
        count = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += "_local_scalar_dense" in str(function)
            return function(*args, **(kwargs or {}))

    original: Any = trainer.Trainer.training_step
    counts: list[int] = []

    def watched(self: Any, *rest: Any, **named: Any) -> Any:
        with Readings() as readings:  # type: ignore[no-untyped-call]
            loss = original(self, *rest, **named)
        counts.append(readings.count)
        return loss

    monkeypatch.setattr(trainer.Trainer, "training_step", watched)
    fit(method="adalora", max_steps=4, per_device_train_batch_size=4, save_strategy="no", eval_strategy="no")
    # The one is with which transformers itself finds the ends of the samples in a row.
    assert counts == [1] * 8


def test_the_first_bad_step_is_named_though_losses_are_read_later(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptcblue_training import trainer

    original: Any = trainer.Trainer.compute_loss

    def spoiled(self: Any, *rest: Any, **named: Any) -> Any:
        return original(self, *rest, **named) * (float("nan") if self.state.global_step == 2 else 1)

    monkeypatch.setattr(trainer.Trainer, "compute_loss", spoiled)
    with pytest.raises(PromptCBLUEError, match="nan at step 3"):
        fit(max_steps=8, logging_steps=6, save_strategy="no")


@pytest.mark.parametrize("cut", [{"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 1}])
def test_the_last_step_of_an_epoch_repeats_no_sample_and_has_one_loss(
    fit: Fit, data: Path, tmp_path: Path, cut: dict[str, Any]
) -> None:
    """Nine samples, eight a step: the ninth is a step of its own, whatever passes a step is cut into."""
    rows = write_rows(tmp_path / "train.json", read_rows(data / "train.json")[:9])
    settings = {"dataset": str(rows), "max_steps": None, "num_train_epochs": 2, "logging_steps": 1}
    whole = losses(fit(**settings))
    assert len(whole) == 4
    assert losses(fit(**settings, **cut)) == pytest.approx(whole, abs=1e-4)


def test_long_passes_are_padded_unless_the_kernel_takes_any_length(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a mask of all tokens by all, rows without padding are slower than grouped ones from about 1,000 tokens."""
    for tokens, words in ((1000, "without padding"), (4000, "with padding")):
        fit(max_steps=1, per_device_train_batch_size=None, batch_tokens=tokens)
        assert words in capsys.readouterr().out
    fit(max_steps=1, per_device_train_batch_size=None, batch_tokens=4000, padding_free=True)
    assert "without padding" in capsys.readouterr().out
    fit(max_steps=1, attn_implementation="eager")
    with pytest.raises(PromptCBLUEError, match="no_such_kernel"):
        fit(max_steps=1, attn_implementation="no_such_kernel")
