"""The benchmark's score while a model is being trained: answers to some validation samples, made as prediction makes
them, and logged like any metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Evaluation

from .backends import BackendSettings, Completion, Failure, Request
from .backends.transformers import TransformersBackend, decoders
from .data import Splits
from .predict import answer_limits
from .prompts import PromptEncoder

if TYPE_CHECKING:
    from .trainer import Trainer


class ScoreInTraining(TrainerCallback):  # type: ignore[misc]
    """Answers and scores samples every so many steps, with greedy search, on as many processes as train.

    Logged are ``eval_overall`` and ``eval_TASK`` in 0..1, by the official protocol, and ``eval_well_formed``.

    Args:
        splits: of the dataset, whose targets say how long answers are.
        samples: with targets.
        steps: from one scoring to the next.

    Raises:
        PromptCBLUEError: the model's weights are spread over processes, where none of them can answer.
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

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Score, where it is time to."""
        if state.global_step % self.steps:
            return
        log_too = control.should_log
        with _answering(self.backend):
            with self.trainer.accelerator.autocast():
                answers = list(self.backend.generate(self.requests))
            # In evaluation mode the trainer keeps what it has gathered of the training loss.
            self.trainer.log(self._scores(answers))
        # Logging now must not be taken for the log that is due at the end of the step.
        control.should_log = log_too

    def _scores(self, answers: Sequence[Completion | Failure]) -> dict[str, float]:
        """The scores, which the first process computes of all answers and hands to the others."""
        scores: list[Mapping[str, float]] = [{}]
        if self.trainer.args.process_index == 0:
            texts = {answer.index: answer.text for answer in answers if isinstance(answer, Completion)}
            evaluation = Evaluation()
            for index, sample in enumerate(self.samples):
                evaluation.add(texts.get(index), sample)
            result = evaluation.result()
            scores[0] = {
                "eval_overall": result["overall"],
                "eval_well_formed": result["well_formed"],
                **{f"eval_{task}": scored["score"] for task, scored in result["tasks"].items()},
            }
        if self.trainer.args.world_size > 1:
            broadcast_object_list(scores)
        return dict(scores[0])


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
