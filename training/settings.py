"""The trainer's settings, and how recipe and command line become settings. Imports TRL."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from transformers.trainer_utils import SaveStrategy
from trl import SFTConfig, TrlParser

from promptcblue_metric.errors import PromptCBLUEError

from .model import best_dtype
from .recipe import Recipe, defaults, find_recipe, read_recipe
from .run import CHOICES, Rule

#: transformers' name for steps of a fixed number of samples, cut into passes of like cost.
BALANCED = "batch_rebalance"


@dataclass
class TrainingSettings(SFTConfig):  # type: ignore[misc]
    """TRL's settings, with defaults for this benchmark and a batch size that holds on any number of devices."""

    batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Samples a step over all devices; sets gradient_accumulation_steps. 64 in the paper. By default "
            "per_device_train_batch_size times gradient_accumulation_steps on each device."
        },
    )
    batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens a device takes at once, about; sets gradient_accumulation_steps, and "
            "per_device_train_batch_size is not looked at. A step still sees batch_size samples."
        },
    )
    padding_free: bool | None = field(
        default=None,
        metadata={
            "help": "Write the samples of a pass one after another instead of padding them; they do not see each "
            "other. By default wherever the method allows it."
        },
    )
    train_sampling_strategy: str = field(
        default=BALANCED,
        metadata={"help": "The order of samples: by default random steps, each cut into passes of like lengths."},
    )
    checkpoint_choice: str = field(
        default="paper",
        metadata={
            "help": "Which checkpoint becomes the model: "
            + "; ".join(f"{name}: {what}" for name, what in CHOICES.items())
            + ". Without validation samples the last."
        },
    )
    steps_after_best: int = field(
        default=200, metadata={"help": "How long after the lowest validation loss the paper's choice comes."}
    )
    patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop early, once this many evaluations in a row brought no new lowest validation loss and the "
            "checkpoint to choose is written. By default training goes on to its end."
        },
    )
    score_samples: int = field(
        default=0,
        metadata={
            "help": "Validation samples, about as many of each task, to answer and score in training; 0 for none. "
            "Logged as eval_overall and eval_TASK."
        },
    )
    score_steps: int = field(default=200, metadata={"help": "Steps from one such scoring to the next."})
    report_to: str | None = field(
        default="none", metadata={"help": "Where to log: none, tensorboard, trackio, wandb …"}
    )
    bf16: bool | None = field(default=None, metadata={"help": "bfloat16 mixed precision; where the hardware has it."})
    fp16: bool = field(default=False, metadata={"help": "float16 mixed precision; on GPUs without bfloat16."})
    # A loss that is not a number must be seen, not filtered from the log.
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not numbers."})

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise PromptCBLUEError("a recipe needs 'output_dir', the folder for checkpoints and the model")
        if self.bf16 is None and not self.fp16:
            self.bf16, self.fp16 = _mixed_precision(cpu_only=self.use_cpu)
        self._check()
        if self.packing:
            raise PromptCBLUEError(
                "packing counts rows and not samples, so a step would no longer be batch_size samples; leave it out: "
                "batches are without padding wherever the method allows it (padding_free)"
            )
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
        if self.checkpoint_choice not in CHOICES:
            raise PromptCBLUEError(
                f"unknown checkpoint_choice '{self.checkpoint_choice}'; expected one of {', '.join(CHOICES)}"
            )
        # These would have the trainer keep another checkpoint than the one to choose.
        rivals = (self.load_best_model_at_end, self.metric_for_best_model, self.save_strategy == SaveStrategy.BEST)
        if any(rivals):
            raise PromptCBLUEError(
                "load_best_model_at_end, metric_for_best_model, save_strategy best: say checkpoint_choice: best"
            )
        for name, least in (("steps_after_best", 0), ("patience", 1), ("score_samples", 0), ("score_steps", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise PromptCBLUEError(f"{name} {value}: expected {least} or more")
        check_trackers(self.report_to)

    @property
    def rule(self) -> Rule:
        """Which checkpoint becomes the model."""
        return Rule(self.checkpoint_choice, self.steps_after_best, self.patience)

    @property
    def samples_a_step(self) -> int:
        """Samples that one optimizer step sees, over all devices and accumulated passes."""
        at_once = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        return int(self.batch_size or at_once)


def check_trackers(names: str | list[str] | None) -> None:
    """Refuse to log where nothing would arrive.

    Raises:
        PromptCBLUEError: no tracker is called so, or its package is not installed.
    """
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    wanted = {names} if isinstance(names, str) else set(names or ())
    for name in sorted(wanted - {"none", "all"}):
        if name not in INTEGRATION_TO_CALLBACK:
            raise PromptCBLUEError(
                f"report_to: unknown tracker '{name}'; expected one of none, tensorboard, trackio, "
                f"wandb, {', '.join(sorted(set(INTEGRATION_TO_CALLBACK) - {'tensorboard', 'trackio', 'wandb'}))}"
            )
        if name not in get_available_reporting_integrations():
            package = "'promptcblue[track]'" if name in ("tensorboard", "trackio") else name
            raise PromptCBLUEError(f"report_to {name}: the package is not installed: pip install {package}")


def _mixed_precision(*, cpu_only: bool) -> tuple[bool, bool]:
    """Whether to train in bfloat16, and in float16."""
    import torch

    device = "cuda" if torch.cuda.is_available() and not cpu_only else "cpu"
    if device == "cpu" and torch.xpu.is_available() and not cpu_only:
        device = "xpu"
    dtype = best_dtype(torch.device(device))
    return dtype is torch.bfloat16, dtype is torch.float16


class RecipeParser(TrlParser):  # type: ignore[misc]
    """TrlParser whose complaints are this project's errors: one line, with the closest known name."""

    def __init__(self) -> None:
        super().__init__((Recipe, TrainingSettings), prog="promptcblue-train sft", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a value that cannot be read."""
        raise PromptCBLUEError(f"command line: {message}")

    def check_keys(self, keys: Sequence[str], where: str) -> None:
        """Refuse settings that nothing reads.

        Raises:
            PromptCBLUEError: names the first of them and the closest that is known.
        """
        known = {action.dest for action in self._actions} | {"env"}
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
    parser.check_keys(list(read_recipe(path)), str(path))
    parser.set_defaults_with_config(**defaults())
    parser.check_keys([_key(word) for word in overrides if word.startswith("--")], "command line")
    try:
        run, training = parser.parse_args_and_config(["--config", str(path), *overrides])
    except PromptCBLUEError:
        raise
    except (TypeError, ValueError) as error:
        raise PromptCBLUEError(f"{path}: {error}") from error
    return run, training


def _key(option: str) -> str:
    return option.removeprefix("--").partition("=")[0].removeprefix("no_").replace("-", "_")
