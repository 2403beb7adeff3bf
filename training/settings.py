"""The trainer's settings, and how recipe and command line become settings. Imports TRL."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

from transformers.trainer_utils import SaveStrategy
from trl import SFTConfig, TrlParser

from promptcblue_metric.cli.common import PLACES, check_outputs, check_place
from promptcblue_metric.data.samples import resolve
from promptcblue_metric.errors import EXTRAS, PromptCBLUEError, install_command

from .model import best_dtype
from .recipe import Recipe, SettingError, check_values, defaults, find_recipe, read_recipe, said
from .run import CHOICES, Rule, work_in

#: transformers' name for steps of a fixed number of samples, cut into passes of like cost.
BALANCED = "batch_rebalance"
_TOKENISED = "samples are tokenised here, targets whole and they alone in the loss (prompt_format, max_length)"
_CHOICE = "say checkpoint_choice: best"
_PACKING = (
    "it counts rows and not samples, so a step would no longer be batch_size samples; leave it out: batches are "
    "without padding wherever the method allows it (padding_free)"
)
_TEMPLATE = "the tokenizer of the model is used as it is (prompt_format says how prompts are written)"
#: Settings of TRL that are fixed here, each with what to do instead.
FIXED: Mapping[str, str] = {
    **dict.fromkeys(("packing", "eval_packing", "packing_strategy"), _PACKING),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _CHOICE),
    **dict.fromkeys(("chat_template_path", "eos_token", "pad_token"), _TEMPLATE),
    **dict.fromkeys(("dataset_text_field", "dataset_kwargs", "truncation_mode"), _TOKENISED),
    **dict.fromkeys(("completion_only_loss", "assistant_only_loss", "length_column_name"), _TOKENISED),
    "shuffle_dataset": "each epoch has an order of its own, by seed or data_seed",
    "model_init_kwargs": "say model, dtype or trust_remote_code",
    "auto_find_batch_size": "say batch_tokens, which leaves the samples of a step as they are",
    "parallelism_config": "it would cut samples apart, or drop the masks that keep them apart; use FSDP or ZeRO-3",
    "disable_tqdm": "the bar is shown on a terminal alone",
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "sft trains; eval_strategy says when it evaluates"),
}
#: Settings that say where, how fast and how well watched a run computes, and nothing of what. A run that goes on from
#: checkpoints may change these; every other one, and those that TRL will add, must be the same.
_INDIFFERENT = """
    output_dir run_name report_to project trackio_space_id trackio_bucket_id trackio_static_space_id debug
    logging_strategy logging_steps logging_first_step logging_nan_inf_filter log_on_each_node log_level
    log_level_replica include_num_input_tokens_seen skip_memory_metrics score_samples score_steps
    save_strategy save_steps save_total_limit save_on_each_node save_only_model enable_jit_checkpoint
    push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    resume_from_checkpoint restore_callback_states_from_checkpoint
    batch_size batch_tokens per_device_train_batch_size gradient_accumulation_steps padding_free pad_to_multiple_of
    per_device_eval_batch_size eval_accumulation_steps eval_do_concat_batches eval_use_gather_object
    prediction_loss_only include_for_metrics batch_eval_metrics
    dataset_num_proc dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers
    dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names
    use_cpu local_rank fsdp fsdp_config deepspeed accelerator_config ddp_find_unused_parameters ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
    activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs
    activation_offloading torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
    use_liger_kernel liger_kernel_config use_cache full_determinism trust_remote_code
"""
INDIFFERENT = frozenset(_INDIFFERENT.split())


@dataclass
class TrainingSettings(SFTConfig):  # type: ignore[misc]
    """TRL's settings, with defaults for this benchmark and a batch size that holds on any number of devices."""

    batch_size: int | None = said(
        None,
        "Samples a step over all devices; sets gradient_accumulation_steps. 64 in the paper. By default "
        "per_device_train_batch_size times gradient_accumulation_steps on each device.",
    )
    batch_tokens: int | None = said(
        None,
        "Most tokens a device takes at once, about; sets gradient_accumulation_steps, and "
        "per_device_train_batch_size is not looked at. A step still sees batch_size samples.",
    )
    padding_free: bool | None = said(
        None,
        "Write the samples of a pass one after another instead of padding them; they do not see each "
        "other. By default wherever the method allows it.",
    )
    train_sampling_strategy: str = said(
        BALANCED, "The order of samples: by default random steps, each cut into passes of like lengths."
    )
    checkpoint_choice: str = said(
        "paper",
        "Which checkpoint becomes the model: "
        + "; ".join(f"{name}: {what}" for name, what in CHOICES.items())
        + ". Without validation samples the last.",
    )
    steps_after_best: int = said(200, "How long after the lowest validation loss the paper's choice comes.")
    patience: int | None = said(
        None,
        "Stop early, once this many evaluations in a row brought no new lowest validation loss and the "
        "checkpoint to choose is written. By default training goes on to its end.",
    )
    score_samples: int = said(
        0,
        "Validation samples, about as many of each task, to answer and score in training; 0 for none. "
        "Logged as eval_overall and eval_TASK.",
    )
    score_steps: int = said(200, "Steps from one such scoring to the next.")
    dataset_num_proc: int | None = said(
        None, "Processes that tokenise; by default as many as the samples are worth and half the cores."
    )
    report_to: str | None = said("none", "Where to log: none, tensorboard, trackio, wandb …")
    bf16: bool | None = said(None, "bfloat16 mixed precision; where the hardware has it.")
    fp16: bool = said(False, "float16 mixed precision; on GPUs without bfloat16.")
    # A loss that is not a number must be seen, not filtered from the log.
    logging_nan_inf_filter: bool = said(False, "Hide losses that are not numbers.")

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise PromptCBLUEError("a recipe needs 'output_dir', the folder for checkpoints and the model")
        if self.bf16 is None and not self.fp16:
            self.bf16, self.fp16 = _mixed_precision(cpu_only=self.use_cpu)
        self._check()
        super().__post_init__()
        if self.batch_tokens is not None and self.batch_size is None:
            raise PromptCBLUEError("batch_tokens cuts a step into passes: it needs batch_size, the samples of a step")
        if self.batch_size is None or self.batch_tokens is not None:
            return
        at_once = self.per_device_train_batch_size * self.world_size
        if self.batch_size % at_once:
            raise PromptCBLUEError(
                f"batch_size {self.batch_size} is no multiple of the {at_once} samples that per_device_train_"
                f"batch_size {self.per_device_train_batch_size} on {self.world_size} process(es) takes at once; "
                "change one of them, or give batch_tokens instead of per_device_train_batch_size"
            )
        self.gradient_accumulation_steps = self.batch_size // at_once

    def _check(self) -> None:
        for name, usual in _defaults(type(self)).items():
            if name in FIXED and getattr(self, name) != usual:
                raise PromptCBLUEError(f"{name}: {FIXED[name]}")
        if self.save_strategy == SaveStrategy.BEST:
            raise PromptCBLUEError(f"save_strategy best: {_CHOICE}")
        check_values(self)
        if self.max_steps < 0 and self.num_train_epochs <= 0:
            raise SettingError("num_train_epochs", self.num_train_epochs, "a number above 0, or max_steps")
        try:
            check_place(Path(str(self.output_dir)), PLACES["output_dir"])
        except PromptCBLUEError as error:
            raise SettingError("output_dir", self.output_dir, f"a folder, new or not: {error}") from error
        check_trackers(self.report_to)

    def deciding(self) -> dict[str, object]:
        """The settings that decide what is learned, in the form that JSON gives them."""
        values: dict[str, object] = json.loads(json.dumps(self.to_dict(), default=str))
        kept = {name: value for name, value in values.items() if name not in FIXED and name not in INDIFFERENT}
        return {**kept, "batch": self.samples_a_step}

    def left_alone(self) -> list[str]:
        """Those of the settings that decide which neither our defaults nor anyone else has set."""
        usual, ours = _defaults(type(self)), defaults()
        return [name for name, value in self.deciding().items() if name not in ours and value == usual.get(name, ...)]

    @property
    def rule(self) -> Rule:
        """Which checkpoint becomes the model."""
        return Rule(self.checkpoint_choice, self.steps_after_best, self.patience)

    @property
    def samples_a_step(self) -> int:
        """Samples that one optimizer step sees, over all devices and accumulated passes."""
        at_once = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        return int(self.batch_size or at_once)


def _defaults(settings: type) -> dict[str, object]:
    return {each.name: each.default for each in fields(settings)}


def check_trackers(names: str | list[str] | None) -> None:
    """Refuse to log where nothing would arrive.

    Raises:
        PromptCBLUEError: no tracker is called so, or its package is not installed.
    """
    from transformers.integrations import integration_utils as trackers

    for name in sorted(({names} if isinstance(names, str) else set(names or ())) - {"none", "all"}):
        if name not in trackers.INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(trackers.INTEGRATION_TO_CALLBACK))
            raise PromptCBLUEError(f"report_to: unknown tracker '{name}'; expected one of none, {known}")
        if name not in trackers.get_available_reporting_integrations():
            remedy = install_command(EXTRAS[name]) if name in EXTRAS else f"pip install {name}"
            raise PromptCBLUEError(f"report_to {name}: the package is not installed: {remedy}")


def _mixed_precision(*, cpu_only: bool) -> tuple[bool, bool]:
    """Whether to train in bfloat16, and in float16."""
    import torch

    kinds = {"cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available(), "cpu": True}
    dtype = best_dtype(torch.device("cpu" if cpu_only else next(kind for kind, there in kinds.items() if there)))
    return dtype is torch.bfloat16, dtype is torch.float16


class RecipeParser(TrlParser):  # type: ignore[misc]
    """TrlParser whose complaints are this project's errors: one line, with the closest known name."""

    def __init__(self) -> None:
        super().__init__((Recipe, TrainingSettings), prog="promptcblue-train sft", allow_abbrev=False)
        #: Where each setting that is not the default was said.
        self.origins: dict[str, str] = {}

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a value that cannot be read."""
        option = re.match(r"argument --(\w+)", message)
        raise PromptCBLUEError(f"{self.origins.get(option[1] if option else '', 'command line')}: {message}")

    def check_keys(self, keys: Sequence[str], where: str) -> None:
        """Refuse settings that nothing reads.

        Raises:
            PromptCBLUEError: names the first of them and the closest that is known.
        """
        known = {action.dest for action in self._actions}
        for key in keys:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise PromptCBLUEError(f"{where}: unknown setting '{key}'{hint}")


def parse_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe, TrainingSettings]:
    """Read a recipe, over the defaults of the paper, and what the command line sets over it.

    Args:
        recipe: a path or the bare name of a shipped recipe.
        overrides: ``--key value`` pairs.

    Raises:
        PromptCBLUEError: the recipe cannot be read, or a key or value is not known.
    """
    path = find_recipe(recipe)
    parser = RecipeParser()
    written = read_recipe(path)
    if "env" in written:
        raise PromptCBLUEError(f"{path}: env: a recipe sets no variables of the environment; set them in the shell")
    parser.check_keys(list(written), str(path))
    parser.set_defaults_with_config(**defaults())
    options = [_key(word) for word in overrides if word.startswith("--")]
    parser.check_keys(options, "command line")
    parser.origins = {**dict.fromkeys(written, str(path)), **dict.fromkeys(options, "command line")}
    try:
        run, training = parser.parse_args_and_config(["--config", str(path), *overrides])
    except SettingError as error:
        raise PromptCBLUEError(f"{parser.origins.get(error.name, path)}: {error}") from error
    except PromptCBLUEError:
        raise
    except (TypeError, ValueError) as error:
        raise PromptCBLUEError(f"{path}: {error}") from error
    if written.get("trust_remote_code") and not any(_key(word) == "trust_remote_code" for word in overrides):
        raise PromptCBLUEError(
            f"{path}: trust_remote_code runs code that comes with the model; a recipe alone cannot ask for it: add "
            "--trust_remote_code true to the command, if you trust whoever wrote the model"
        )
    _check_places(Path(str(training.output_dir)), [run.dataset, run.model, run.adapter, run.extra])
    return run, training


def _check_places(folder: Path, sources: Sequence[str | None]) -> None:
    """Refuse an output folder that is read, or whose old work, which may be removed, is."""
    check_outputs(folder, inputs=sources)
    for source in filter(None, sources):
        if any(resolve(source).resolve().is_relative_to(old.resolve()) for old in work_in(folder)):
            raise PromptCBLUEError(
                f"{source}: is read by this command and is of the run in {folder}, whose checkpoints are removed when "
                "another starts there; choose another output_dir"
            )


def _key(option: str) -> str:
    return option.removeprefix("--").partition("=")[0].removeprefix("no_").replace("-", "_")
