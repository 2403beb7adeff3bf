"""The trainer: TRL's, with batches of the same samples a step however they are cut, a head that scores the targets
alone, exact validation losses, and what the methods need beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import torch
from accelerate.utils import load_fsdp_model
from datasets import Dataset
from peft import PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from torch.utils.data import Sampler, SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from promptcblue_metric.errors import PromptCBLUEError

from .adapters import TRAINING_STATE, go_on_from, is_incomplete, load_training_state, training_state
from .adapters.adalora import adalora_tuner, orthogonality
from .adapters.prompts import pad_before_prompt
from .callbacks import Epochs, KeepChosen, ProgressLines
from .data import Rows, to_measure, with_empty_rows
from .methods import METHODS
from .model import has_variable_lengths
from .processes import from_first
from .prompts import IGNORED
from .recipe import FOUR_BIT, Recipe
from .run import Choice, Rule, choose, evaluated, saved_checkpoints, take_weights
from .settings import BALANCED, TrainingSettings

if TYPE_CHECKING:
    from transformers.modeling_outputs import ModelOutput
    from transformers.trainer_utils import EvalLoopOutput

#: Tokens of a pass over which rows without padding are slower than grouped ones, unless the attention kernel takes
#: samples of any length: the mask of all tokens by all grows with their square. Measured on a CPU with sdpa.
_MASKED_TOKENS = 1024
#: What is summed over the passes between two log entries.
_SUMS = ("losses", "tokens", "right", "entropy", "orthogonality", "passes")


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose step is a fixed number of samples, cut into passes of like cost.

    Each step sees ``batch_size`` samples drawn at random, the same ones on any number of devices and accumulated
    passes. Within the step they are sorted by length and cut into passes of about equally many tokens, so that little
    is padding, or none where the method lets samples share a row (``padding_free``). The order depends on seed and
    epoch alone, so a resumed run goes on with exactly the samples that the interrupted one had not seen.

    Losses stay on the device until they are logged, so that no pass waits for the one before it.

    Raises:
        FloatingPointError: from ``train``, when a loss was no number, before it is logged, measured or saved.
    """

    args: TrainingSettings

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        pad_before_prompt(self.model)
        if getattr(self.model, "is_loaded_in_4bit", False):
            # TRL has put the adapters in bfloat16; see `with_adapter`.
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        self._head = _TargetHead(self.accelerator.unwrap_model(self.model))
        self._sums = {mode: self._zeros(len(_SUMS)) for mode in ("train", "eval")}
        self._first_bad = self._zeros(2)
        #: For LoRA+: the learning rate of LoRA's matrices B by that of A.
        self.loraplus_ratio: float | None = None
        #: Rows to learn from; one more may stand after them, which has nothing in the loss.
        self.samples = len(self.train_dataset)

    def _zeros(self, count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.float64, device=self.args.device)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[Any] | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != BALANCED:
            sampler: Sampler[int] | None = super()._get_train_sampler(rows)
            return sampler
        batches: Sampler[list[int]] = _Steps(
            token_counts(rows)[: self.samples],
            effective_batch_size=self.args.samples_a_step,
            dp_size=self.args.world_size,
            grad_accum=self.args.gradient_accumulation_steps,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            rank=self.args.process_index,
            drop_last=self.args.dataloader_drop_last,
        )
        self.add_callback(Epochs(batches))
        return batches

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler[int] | None:
        return SequentialSampler(eval_dataset)

    def get_total_train_batch_size(self, args: TrainingSettings) -> int:
        """Samples a step, which is what the training speed is reported in."""
        return args.samples_a_step

    def compute_loss(
        self,
        model: PreTrainedModel | PeftModel,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        """The mean loss of the target tokens, or their sum by those of the step; in training with AdaLoRA's term."""
        # Where the loss is a share of the whole step's, so are the terms beside it; the passes are summed.
        share = 1 if num_items_in_batch is None else 1 / self.current_gradient_accumulation_steps
        tuner, term = adalora_tuner(self.model), torch.zeros((), device=self.args.device)
        if tuner is not None and self.model.training:
            term = orthogonality(tuner)
        if self.label_smoother is not None and not return_outputs:
            # Smoothing asks for the probability of every token of the vocabulary, which TRL computes at every place.
            smoothed: torch.Tensor = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            return smoothed + share * term
        outputs = self._head(model, inputs, output_router_logits=self.aux_loss_enabled)
        losses = -outputs.log_probs
        if self.args.loss_type == "dft":  # arXiv:2508.05629
            losses = losses * outputs.log_probs.exp().detach()
        tokens, total = outputs.label_mask.sum(), losses.sum()
        loss = total / torch.as_tensor(tokens if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if self.aux_loss_enabled:
            loss = loss + share * self.router_aux_loss_coef * outputs.aux_loss
        loss = loss + share * term
        sums = (total, tokens, outputs.is_top1.sum(), outputs.entropy.sum(), term, torch.ones(()))
        mode = "train" if self.model.training else "eval"
        self._sums[mode] += torch.stack([one.detach().to(self._first_bad) for one in sums])
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: PreTrainedModel | None = None) -> Any:
        """The optimizer of the settings; for LoRA+ with groups of parameters of two learning rates."""
        if self.loraplus_ratio is None:
            return super().create_optimizer(model)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        options |= {"loraplus_lr_ratio": self.loraplus_ratio, "loraplus_weight_decay": self.args.weight_decay}
        self.optimizer = create_loraplus_optimizer(self.model, kind, **options)
        return self.optimizer

    def training_step(self, *args: object, **kwargs: object) -> torch.Tensor:
        """One forward and backward pass."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        bad = torch.stack([self._zeros(1)[0] + self.state.global_step + 1, loss.to(self._first_bad)])
        self._first_bad = torch.where(torch.isfinite(loss) | (self._first_bad[0] > 0), self._first_bad, bad)
        return loss

    def _maybe_log_save_evaluate(self, *args: object, **kwargs: object) -> None:
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            step, loss = self._first_bad.tolist()
            if step:
                raise FloatingPointError(f"the loss is {loss} at step {step:.0f}")
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with what was summed since the last entry of its kind."""
        mode, prefix = ("train", "") if self.model.training else ("eval", "eval_")
        sums = self._summed(mode)
        self._sums[mode].zero_()
        if sums["tokens"]:
            logs[f"{prefix}mean_token_accuracy"] = sums["right"] / sums["tokens"]
            logs[f"{prefix}entropy"] = sums["entropy"] / sums["tokens"]
        if sums["orthogonality"]:
            logs["orthogonality"] = sums["orthogonality"] / sums["passes"]
        super().log(logs, start_time)

    def _summed(self, mode: str) -> dict[str, float]:
        sums = self._sums[mode]
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums.clone())
        return dict(zip(_SUMS, sums.tolist(), strict=True))

    def evaluation_loop(self, *args: object, **kwargs: object) -> EvalLoopOutput:
        """Evaluate; ``eval_loss`` is the mean over all target tokens, not the mean of the batches' means."""
        self._sums["eval"].zero_()
        output: EvalLoopOutput = super().evaluation_loop(*args, **kwargs)
        sums = self._summed("eval")
        if sums["passes"]:
            output.metrics[f"{kwargs.get('metric_key_prefix', 'eval')}_loss"] = sums["losses"] / max(sums["tokens"], 1)
        return output

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and (state := training_state(self.model)):
            torch.save(state, Path(output_dir) / TRAINING_STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        if not is_incomplete(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        path = Path(resume_from_checkpoint) / TRAINING_STATE
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
            raise PromptCBLUEError(
                f"{path}: cannot be read ({error}), and training cannot go on without it; remove this checkpoint to go "
                "on from an earlier one"
            ) from error
        load_training_state(self.model, state)


class _TargetHead:
    """Has a model's head score the places before target tokens, and no other.

    TRL's fused head does so on GPUs with Triton; elsewhere it scores every place, most of them of prompts, which
    costs more than the backbone where that is small and the vocabulary large. Here the backbone's output is cut to
    those places before the head sees it, and TRL is told that the labels beside it are shifted already.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.base_model.register_forward_hook(self._cut)
        self._places: torch.Tensor | None = None

    def _cut(self, module: torch.nn.Module, inputs: object, output: ModelOutput) -> ModelOutput:
        if self._places is not None:
            # Virtual tokens may stand before the text.
            text = output.last_hidden_state[:, -self._places.shape[1] :]
            output.last_hidden_state = text[self._places.to(text.device)][None]
        return output

    def __call__(
        self, model: PreTrainedModel | PeftModel, inputs: Mapping[str, Any], *, output_router_logits: bool
    ) -> ModelOutput:
        """Per-token results of shape ``(1, targets)``, in the order of the rows."""
        labels = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)
        places = labels != IGNORED
        options = {name: value for name, value in inputs.items() if name != "labels"}
        if output_router_logits:
            options["output_router_logits"] = True
        self._places = places
        try:
            return model(**options, shift_labels=labels[places][None], use_cache=False, fused_lm_head=True)
        finally:
            self._places = None


class _Steps(BatchRebalanceSampler):  # type: ignore[misc]
    """Steps cut into passes; an epoch's last step, too short for a sample in every pass, is filled up with the row
    after the last one, which has nothing in the loss, and not with samples that were seen already.
    """

    def __iter__(self) -> Iterator[list[int]]:
        samples, step, passes = len(self.lengths), self.effective_batch_size, self.dp_size * self.grad_accum
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(samples, generator=generator).tolist()
        for start in range(0, self.num_global_batches * step, step):
            chosen = order[start : start + step]
            chosen += [samples] * (passes - len(chosen))
            # The balancing looks lengths up, the empty row's too.
            lengths = [self.lengths[index] if index < samples else 1 for index in chosen]
            for groups in self._assign(chosen, lengths)[self.rank : self.rank + 1]:
                yield from groups


def with_adapter(recipe: Recipe, training: TrainingSettings, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
    """A model with the recipe's adapter on it, tried on a few tokens, so that what does not work is known at once.

    Adapters are in float32, on weights of 4 bits too: small steps vanish in bfloat16, and float16 has no room for them.

    Raises:
        PromptCBLUEError: the method does not work on this model.
    """
    zero3, kind = is_deepspeed_zero3_enabled(), model.config.model_type
    here = not zero3 and not any(parameter.is_meta for parameter in model.parameters())
    here &= model.device.type != "cpu" or not has_variable_lengths(model)  # such kernels are of GPUs
    routers = hasattr(model.config.get_text_config(), "output_router_logits") and training.router_aux_loss_coef != 0
    try:
        if METHODS[recipe.method].kind:
            config = METHODS[recipe.method].config(recipe, model)
            # ZeRO-3 gathers parameters of one format at a time.
            model = get_peft_model(model, config, autocast_adapter_dtype=not zero3 or recipe.dtype == FOUR_BIT)
            if recipe.adapter:
                go_on_from(model, recipe.adapter)
        if here:
            ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 0]], device=model.device)
            with torch.no_grad():
                options = {"output_router_logits": True} if routers else {}
                model(input_ids=ids, attention_mask=(ids > 0).long(), use_cache=False, **options)
    except PromptCBLUEError:
        raise
    except Exception as error:  # the architectures fail in as many ways as there are
        raise PromptCBLUEError(
            f"method {recipe.method} does not work on this {kind} model"
            f"{' (--router_aux_loss_coef 0 may help: its routers have a loss of their own)' * routers}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    return model


def build_trainer(
    recipe: Recipe,
    training: TrainingSettings,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Rows,
    validation: Rows | None,
) -> Trainer:
    """The trainer of a recipe, its batches cut to ``batch_tokens`` and without padding where that is possible.

    Args:
        model: with the recipe's adapter on it.

    Raises:
        PromptCBLUEError: TRL cannot train it.
    """
    # The rows fit already; the trainer would cut them at the end, where the target is.
    training.max_length = None
    training.disable_tqdm = True
    training.padding_free = _is_padding_free(recipe, training, model, train)
    if training.batch_tokens is not None:
        training.gradient_accumulation_steps = passes_a_step(
            token_counts(train.dataset),
            training.samples_a_step,
            training.world_size,
            training.batch_tokens,
            training.seed,
        )
    at_once = training.eval_batch_size * training.world_size
    # The last step of an epoch may have no sample for some of its passes.
    last = len(train.dataset) % training.samples_a_step
    lacks = 0 < last < training.gradient_accumulation_steps * training.world_size
    try:
        trainer = Trainer(
            model=model,
            args=training,
            train_dataset=with_empty_rows(train.dataset, int(lacks)),
            eval_dataset=to_measure(validation.dataset, at_once) if validation else None,
            processing_class=tokenizer,
        )
    except PromptCBLUEError:
        raise
    except ValueError as error:
        raise PromptCBLUEError(f"method {recipe.method} does not work on {model.name_or_path}: {error}") from error
    trainer.samples, trainer.loraplus_ratio = len(train.dataset), recipe.lora_plus_ratio
    for shipped in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shipped)
    for callback in (*METHODS[recipe.method].callbacks(recipe), ProgressLines(), KeepChosen(training.rule)):
        trainer.add_callback(callback)
    return trainer


def _is_padding_free(
    recipe: Recipe, training: TrainingSettings, model: PreTrainedModel | PeftModel, rows: Rows
) -> bool:
    """Whether the samples of a pass are written one after another."""
    if training.padding_free is False:
        return False
    if training.padding_free is None and not has_variable_lengths(model):
        lengths = token_counts(rows.dataset)
        usual = training.per_device_train_batch_size * sum(lengths) / len(lengths)
        if (training.batch_tokens or usual) > _MASKED_TOKENS:
            return False
    if training.padding_free and not METHODS[recipe.method].packs:
        raise PromptCBLUEError(
            f"padding_free: with {recipe.method} virtual tokens stand before each sample, so samples cannot share a "
            "row; leave it out"
        )
    # The first process answers for all: under FSDP the others may hold no weights yet.
    apart = from_first(METHODS[recipe.method].packs and keeps_documents_apart(model))
    if training.padding_free and not apart:
        raise PromptCBLUEError(
            f"padding_free: samples in one row would see each other in {model.name_or_path}, or it cannot be tried "
            "with its weights spread over devices; leave it out"
        )
    return apart


def save_chosen(trainer: Trainer, rule: Rule) -> Choice:
    """Save the chosen checkpoint's model in the run's output folder, with the record of the choice.

    Called by every process. Checkpoints of FSDP hold weights in parts, one a process: the chosen ones are loaded, and
    gathered for the model alone.

    Raises:
        PromptCBLUEError: a file cannot be written, or the checkpoint holds no whole weights.
    """
    folder = Path(trainer.args.output_dir)
    last_step, checkpoints = trainer.state.global_step, saved_checkpoints(folder)
    choice = choose(rule, evaluated(trainer.state.log_history), last_step, checkpoints)
    checkpoint = checkpoints[choice.step] if choice.step != last_step else None
    plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if plugin is not None:
        kind = plugin.state_dict_type
        if checkpoint and "SHARDED" in str(kind):
            load_fsdp_model(plugin, trainer.accelerator, trainer.model, str(checkpoint), adapter_only=True)
            checkpoint = None
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(folder))
    if plugin is not None:
        plugin.set_state_dict_type(kind)
    if trainer.is_world_process_zero():
        if checkpoint:
            take_weights(checkpoint, folder)
        choice.write(folder)
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
def keeps_documents_apart(model: PreTrainedModel | PeftModel) -> bool:
    """Whether samples written one after another, told apart by their positions alone, do not see each other.

    Tried on the model itself, since it is a matter of architecture and attention kernel.
    """
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
