"""Which checkpoint becomes the model: the paper's comes some steps after the lowest validation loss.

The choice is read off the log alone, which the trainer keeps in every checkpoint, so a resumed run chooses as an
uninterrupted one does.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError

from .resume import is_model_file

if TYPE_CHECKING:
    from .trainer import Trainer

#: The ways to choose, each with what it does.
CHOICES: Mapping[str, str] = {
    "paper": "steps_after_best steps after the lowest validation loss (paper, Appendix A.3)",
    "best": "the lowest validation loss",
    "last": "the end of training",
}
#: The file in an output folder that says which checkpoint the model is, and why.
CHOICE_FILE = "checkpoint_choice.json"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")


class Evaluated(NamedTuple):
    """The validation loss at a step."""

    step: int
    loss: float


@dataclass(frozen=True)
class Rule:
    """How to choose.

    Attributes:
        choice: a key of `CHOICES`.
        steps_after_best: how long after the lowest loss the paper's choice comes.
        patience: stop once this many evaluations in a row were no new lowest, and the checkpoint to choose is
            written; None to train to the end.
    """

    choice: str
    steps_after_best: int = 200
    patience: int | None = None

    @property
    def offset(self) -> int:
        """Steps from the lowest loss to the checkpoint to choose."""
        return self.steps_after_best if self.choice == "paper" else 0

    def target(self, losses: Sequence[Evaluated]) -> int | None:
        """The step to choose as things stand, or None where nothing was evaluated or the choice does not ask."""
        best = lowest(losses)
        return None if best is None or self.choice == "last" else best.step + self.offset

    def may_stop(self, losses: Sequence[Evaluated], step: int) -> bool:
        """Whether training can end at ``step``, where its checkpoint is about to be written if it is the one."""
        best, target = lowest(losses), self.target(losses)
        if self.patience is None or best is None or target is None:
            return False
        return step >= target and sum(loss.step > best.step for loss in losses) >= self.patience


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        choice: how, a key of `CHOICES`.
        step: whose weights the model has.
        reason: why, in a sentence.
        last_step: where training ended.
        lowest: the lowest validation loss, or None without any.
    """

    choice: str
    step: int
    reason: str
    last_step: int
    lowest: Evaluated | None


def evaluated(log_history: Iterable[Mapping[str, Any]]) -> list[Evaluated]:
    """The validation losses of a trainer's log, by step; a step that was evaluated twice counts once."""
    found = {int(entry["step"]): float(entry["eval_loss"]) for entry in log_history if "eval_loss" in entry}
    return [Evaluated(step, found[step]) for step in sorted(found)]


def lowest(losses: Sequence[Evaluated]) -> Evaluated | None:
    """The first of the lowest losses; those that are no numbers do not count."""
    return min((one for one in losses if math.isfinite(one.loss)), key=lambda one: one.loss, default=None)


def choose(rule: Rule, losses: Sequence[Evaluated], last_step: int, saved: Iterable[int]) -> Choice:
    """Choose among the checkpoints that are there and the end of training.

    Args:
        saved: steps whose checkpoints can be read.
    """
    best, target = lowest(losses), rule.target(losses)

    def chosen(step: int, reason: str) -> Choice:
        return Choice(rule.choice, step, reason, last_step, best)

    if rule.choice == "last":
        return chosen(last_step, "the last step, as asked for")
    if best is None or target is None:
        return chosen(last_step, "the last step, since no validation loss was measured")
    where = f"the lowest validation loss ({best.loss:.4f} at step {best.step})"
    if rule.offset:
        where = f"{rule.offset} steps after {where}"
    if target > last_step:
        return chosen(last_step, f"the last step, since training ended before {where}")
    if target != last_step and target not in saved:
        return chosen(last_step, f"the last step, since there is no checkpoint of step {target}, {where}")
    return chosen(target, where)


class KeepChosen(TrainerCallback):  # type: ignore[misc]
    """Has the checkpoint to choose evaluated, written and kept, and ends training where the rule allows it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called before the step is evaluated and saved."""
        losses = evaluated(state.log_history)
        control.should_evaluate |= self._keep_if_due(losses, state, control)
        # A run that goes on from the checkpoint at which another was about to end has nothing more to learn.
        control.should_training_stop |= self.rule.may_stop(losses, state.global_step)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called when the loss is in the log, before the step is saved."""
        losses = evaluated(state.log_history)
        self._keep_if_due(losses, state, control)
        control.should_training_stop |= self.rule.may_stop(losses, state.global_step)

    def _keep_if_due(self, losses: Sequence[Evaluated], state: TrainerState, control: TrainerControl) -> bool:
        if self.rule.target(losses) != state.global_step:
            return False
        control.should_save = True
        # The trainer never removes this one to keep to save_total_limit.
        state.best_global_step = state.global_step
        return True


def save_chosen(trainer: Trainer, rule: Rule) -> Choice:
    """Save the chosen checkpoint's model in the run's output folder, with the record of the choice.

    Called by every process.

    Raises:
        PromptCBLUEError: a file cannot be written, or the checkpoint holds no whole weights.
    """
    folder = Path(trainer.args.output_dir)
    losses, last_step = evaluated(trainer.state.log_history), trainer.state.global_step
    checkpoints = saved_checkpoints(folder)
    choice = choose(rule, losses, last_step, checkpoints)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        if choice.step != last_step:
            take_weights(checkpoints[choice.step], folder)
        record(folder, choice, losses)
    trainer.accelerator.wait_for_everyone()
    return choice


def saved_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in an output folder that were written to their end, by step."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_whole(path)}
    return dict(sorted(steps.items()))


def _is_whole(checkpoint: Path) -> bool:
    # The trainer's state is what it writes last.
    try:
        return isinstance(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


@contextmanager
def writing(folder: str) -> Iterator[None]:
    """Makes one message of the many ways in which a model's files fail to be written.

    Raises:
        PromptCBLUEError: instead of the libraries' errors.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # Of a full disk torch says no more than where in its own code it noticed.
        unwritten = "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
        if isinstance(error, RuntimeError) and not unwritten:
            raise
        raise PromptCBLUEError(
            f"{folder}: cannot be written, is the disk full? ({' '.join(str(error).split())}) What stands there is "
            "whole, and the same command goes on from the last checkpoint"
        ) from error


def record(folder: Path, choice: Choice, losses: Sequence[Evaluated]) -> None:
    """Write the choice with the losses it was made by.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    lowest_loss = choice.lowest._asdict() if choice.lowest else None
    write_json(
        folder / CHOICE_FILE,
        {**asdict(choice), "lowest": lowest_loss, "losses": [one._asdict() for one in losses]},
    )


def take_weights(checkpoint: Path, folder: Path) -> None:
    """Make the model that was saved in ``folder`` the checkpoint's: its weights and what describes them.

    Files are copied, and not loaded and saved again, so the same way serves every method: AdaLoRA's adapter has other
    ranks at each checkpoint, and a model spread over processes is whole in no one of them.

    Raises:
        PromptCBLUEError: the checkpoint holds no whole weights, or they cannot be copied.
    """
    if not any(path.match(pattern) for path in checkpoint.iterdir() for pattern in _WEIGHTS):
        raise PromptCBLUEError(
            f"{checkpoint} holds no whole weights: have them gathered when a checkpoint is saved "
            "(fsdp_state_dict_type: FULL_STATE_DICT, or zero3_save_16bit_model: true), or pass --checkpoint_choice last"
        )
    try:
        for path in filter(is_model_file, sorted(checkpoint.iterdir())):
            temporary = folder / f".{path.name}.tmp"
            shutil.copyfile(path, temporary)
            temporary.replace(folder / path.name)
    except OSError as error:
        raise PromptCBLUEError(f"{folder}: cannot be written: {error.strerror or error}") from error
