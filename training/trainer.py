"""The trainer: TRL's, with batches of the same samples a step however they are cut, and exact validation losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import BatchRebalanceSampler
from transformers.trainer_utils import EvalLoopOutput
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from .adapters.trainer import AdapterTrainer
from .progress import check_finite
from .run import Choice, Evaluated, Rule, choose, evaluated, record, saved_checkpoints, take_weights
from .settings import BALANCED, TrainingSettings


class Trainer(AdapterTrainer):
    """SFTTrainer whose step is a fixed number of samples, cut into passes of like cost.

    Each step sees ``batch_size`` samples drawn at random, the same ones on any number of devices and accumulated
    passes. Within the step they are sorted by length and cut into passes of about equally many tokens, so that little
    is padding, or none where the method lets samples share a row (``padding_free``). The order depends on seed and
    epoch alone, so a resumed run goes on with exactly the samples that the interrupted one had not seen.

    Raises:
        FloatingPointError: from ``train``, at the first loss that is not a number.
    """

    args: TrainingSettings

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[Any] | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != BALANCED:
            sampler: Sampler[int] | None = super()._get_train_sampler(rows)
            return sampler
        batches: Sampler[list[int]] = BatchRebalanceSampler(
            token_counts(rows),
            effective_batch_size=self.args.samples_a_step,
            dp_size=self.args.world_size,
            grad_accum=self.args.gradient_accumulation_steps,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            rank=self.args.process_index,
            drop_last=self.args.dataloader_drop_last,
        )
        self.add_callback(_Epochs(batches))
        return batches

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int] | None:
        return SequentialSampler(eval_dataset)

    def get_total_train_batch_size(self, args: TrainingSettings) -> int:
        """Samples a step, which is what the training speed is reported in."""
        return args.samples_a_step

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        check_finite(loss.item(), self.state.global_step + 1)
        return loss

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """One pass over validation rows, whose loss is noted with the number of tokens that it is the mean of."""
        outcome = super().prediction_step(model, inputs, *args, **kwargs)
        tokens = (inputs["labels"][..., 1:] != -100).sum()
        self._measured += torch.stack([outcome[0].double().cpu() * tokens.cpu(), tokens.double().cpu()])
        return outcome

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate; ``eval_loss`` is the mean over all target tokens, not the mean of the batches' means."""
        self._measured = torch.zeros(2, dtype=torch.float64)
        output: EvalLoopOutput = super().evaluation_loop(*args, **kwargs)
        if self.args.world_size > 1:
            self._measured = self.accelerator.reduce(self._measured.to(self.args.device))
        total, tokens = self._measured.tolist()
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics[f"{prefix}_loss"] = total / max(tokens, 1)
        return output


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the sampler the epoch; the trainer does not reach it in a run resumed on several processes."""

    def __init__(self, sampler: BatchRebalanceSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called before the order of the epoch is asked for."""
        self.sampler.set_epoch(int(state.epoch))


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


def token_counts(rows: Dataset) -> list[int]:
    """Tokens of each row, in their order."""
    counts: list[int] = pc.list_value_length(rows.data.column("input_ids")).to_pylist()
    return counts


def passes_a_step(lengths: Sequence[int], samples: int, devices: int, tokens: int, seed: int) -> int:
    """How many passes to cut a step into so that each has about ``tokens`` tokens on each device at most.

    Args:
        lengths: tokens of each row to train on.
        samples: samples a step.
        devices: processes that share a step.
        tokens: most tokens at a time on one of them; a row that is longer has a pass of its own.
        seed: of the run, whose first epoch is looked at.
    """
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    counts = torch.tensor(lengths)[order]
    steps = torch.split(counts, samples)
    largest = max(int(step.sum()) for step in steps)
    return max(1, min(-(-largest // (tokens * devices)), samples // devices))


@torch.no_grad()
def keeps_documents_apart(model: Any) -> bool:
    """Whether samples written one after another, told apart by their positions alone, do not see each other.

    Tried on the model itself, since it is a matter of architecture and attention kernel.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled() or any(parameter.is_meta for parameter in model.parameters()):
        return False  # the weights are not all here, so it cannot be tried
    first, second = [5, 6, 7, 8], [9, 8, 7]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)

    def logits(*texts: list[int]) -> torch.Tensor:
        inputs = collate([{"input_ids": text} for text in texts])
        del inputs["labels"]
        there = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in inputs.items()}
        answer: torch.Tensor = model(**there, use_cache=False).logits
        return answer[0, -len(second) :]

    training = model.training
    model.eval()
    try:
        # In the same shapes each row is computed alike to the last bit, unless it depends on another.
        return torch.equal(logits(first, second), logits(first[::-1], second))
    except (TypeError, ValueError, RuntimeError):
        return False  # it takes no positions
    finally:
        model.train(training)
