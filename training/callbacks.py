"""What happens beside the training loop: progress for people, checkpoints to keep, and the benchmark's score."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Evaluation

from .backends import BackendSettings, Completion, Failure, Request
from .backends.transformers import TransformersBackend, decoders
from .data import Splits
from .predict import answer_limits
from .processes import from_first, is_first
from .prompts import PromptEncoder
from .run import Rule, evaluated

if TYPE_CHECKING:
    from transformers.trainer_pt_utils import BatchRebalanceSampler

#: Seconds after which something is said where there is no terminal for a bar.
_SILENCE = 30.0


class ProgressLines(TrainerCallback):  # type: ignore[misc]
    """A bar on stderr if it is a terminal, and a line for each log either way."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._said = monotonic()

    def on_train_begin(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the bar where a resumed run stands."""
        if state.is_world_process_zero:
            quiet = not sys.stderr.isatty()
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=quiet)

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
            if self._bar.disable and not control.should_log and monotonic() - self._said >= _SILENCE:
                self._said = monotonic()
                print(f"step {state.global_step}/{state.max_steps}", flush=True)

    def on_log(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say where the losses stand."""
        if state.is_world_process_zero and (line := log_line(kwargs["logs"])):
            tqdm.write(f"step {state.global_step}/{state.max_steps}  {line}", file=sys.stdout)
            sys.stdout.flush()
            self._said = monotonic()

    def on_train_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def log_line(logs: dict[str, float]) -> str:
    """The numbers of a log entry that tell how training goes."""
    shown = {
        "loss": ("loss", ".4f"),
        "mean_token_accuracy": ("token accuracy", ".3f"),
        "learning_rate": ("lr", ".2e"),
        "eval_loss": ("validation loss", ".4f"),
        "eval_mean_token_accuracy": ("validation token accuracy", ".3f"),
        "eval_overall": ("validation score", ".4f"),
    }
    return "  ".join(f"{title} {float(logs[key]):{form}}" for key, (title, form) in shown.items() if key in logs)


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler the epoch; the trainer does not reach it in a run resumed on several processes."""

    def __init__(self, sampler: BatchRebalanceSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called before the order of the epoch is asked for."""
        self.sampler.set_epoch(int(state.epoch))


class KeepChosen(TrainerCallback):  # type: ignore[misc]
    """Has the checkpoint to choose evaluated, written and kept, and ends training where the rule allows it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called before the step is evaluated and saved."""
        # A run that goes on from the checkpoint at which another was about to end has nothing more to learn.
        control.should_evaluate |= self._keep_or_stop(state, control)

    def on_evaluate(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Called when the loss is in the log, before the step is saved."""
        self._keep_or_stop(state, control)

    def _keep_or_stop(self, state: TrainerState, control: TrainerControl) -> bool:
        """Whether this is the step to keep, as things stand."""
        losses = evaluated(state.log_history)
        control.should_training_stop |= self.rule.may_stop(losses, state.global_step)
        due = bool(self.rule.target(losses) == state.global_step)
        if due:
            control.should_save = True
            # The trainer never removes this one to keep to save_total_limit.
            state.best_global_step = state.global_step
        return due


class ScoreInTraining(TrainerCallback):  # type: ignore[misc]
    """Answers and scores samples every so many steps, with greedy search, on as many processes as train.

    Logged are ``eval_overall`` and ``eval_TASK`` in 0..1, by the official protocol, and ``eval_well_formed``.

    Args:
        splits: of the dataset, whose targets say how long answers are.
        samples: with targets.
        steps: from one scoring to the next.
    """

    def __init__(
        self, trainer: Trainer, splits: Splits, encoder: PromptEncoder, samples: Sequence[Sample], steps: int
    ) -> None:
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise PromptCBLUEError(
                "score_samples: with FSDP or DeepSpeed no process has the whole model to answer with; leave it out and "
                "score the checkpoints afterwards"
            )
        self.trainer, self.samples, self.steps = trainer, samples, steps
        model = trainer.accelerator.unwrap_model(trainer.model)
        self.backend = TransformersBackend.around(model, encoder, BackendSettings(model="", beams=1))
        tasks = list(dict.fromkeys(sample["task_dataset"] for sample in samples))
        limits = answer_limits(splits, tasks, self.backend)
        self.requests = [
            Request(index, sample["input"], limits[sample["task_dataset"]]) for index, sample in enumerate(samples)
        ]

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Score, where it is time to."""
        if state.global_step % self.steps:
            return
        log_too = control.should_log
        with _answering(self.backend):
            with self.trainer.accelerator.autocast():
                answers = list(self.backend.generate(self.requests))
            # In evaluation mode the trainer keeps what it has gathered of the training loss.
            self.trainer.log(from_first(self._scores(answers) if is_first() else None))
        # Logging now must not be taken for the log that is due at the end of the step.
        control.should_log = log_too

    def _scores(self, answers: Sequence[Completion | Failure]) -> dict[str, float]:
        texts = {answer.index: answer.text for answer in answers if isinstance(answer, Completion)}
        evaluation = Evaluation()
        for index, sample in enumerate(self.samples):
            evaluation.add(texts.get(index), sample)
        result = evaluation.result()
        by_task = {f"eval_{task}": scored["score"] for task, scored in result["tasks"].items()}
        return {"eval_overall": result["overall"], "eval_well_formed": result["well_formed"], **by_task}


@contextmanager
def _answering(backend: TransformersBackend) -> Iterator[None]:
    """The model as prediction has it, and afterwards as it was."""
    model = backend.model
    owners = decoders(model)
    training, configs = model.training, [owner.generation_config for owner in owners]
    model.eval()
    try:
        backend.decide_decoding(model)
        yield
    finally:
        model.train(training)
        for owner, config in zip(owners, configs, strict=True):
            owner.generation_config = config
