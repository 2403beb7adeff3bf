"""What a recipe can say, and recipes as files. Imports no TRL, so that they can be listed at once."""

# ruff: noqa: RUF009 - `said` makes fields

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from promptcblue_metric.cli.common import NUMBERS
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import get_task

from .run import CHOICES

RECIPES = Path(__file__).parent / "recipes"
#: What every recipe says unless it says otherwise.
DEFAULTS = Path(__file__).parent / "defaults.yaml"
#: The class of backbones that a method's name alone stands for.
_USUAL = "small"
#: Number formats of a backbone's weights; the last one quantises them.
DTYPES = ("auto", "float32", "bfloat16", "float16")
FOUR_BIT = "4bit"
#: The ways to fine-tune; `promptcblue_training.methods` has what each is.
METHODS = ("lora", "adalora", "p-tuning", "p-tuning-v2", "parallel-adapter", "full")
#: What samples of one's own stand for where others have their task.
EXTRA = "extra"


#: What each setting may be that is a word.
WORDS: Mapping[str, Collection[str]] = {
    "method": METHODS,
    "dtype": (*DTYPES, FOUR_BIT),
    "save_dtype": DTYPES,
    "prompt_format": ("auto", "chat", "plain"),
    "long_targets": ("skip", "refuse"),
    "checkpoint_choice": CHOICES,
}


class SettingError(PromptCBLUEError):
    """A value that a setting cannot have."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name} {value}: expected {expected}")
        self.name = name


def check_values(settings: object) -> None:
    """Refuse a number that no run can work with, and a word that is none of its setting's.

    Raises:
        SettingError: names the first of them.
    """
    for each in fields(settings):  # type: ignore[arg-type]
        value: object = getattr(settings, each.name)
        numbers, words = NUMBERS.get(each.name), WORDS.get(each.name)
        if numbers and not ((value is None and each.default is None) or numbers.hold(value)):
            raise SettingError(each.name, value, numbers.expected)
        if words and value not in words:
            raise PromptCBLUEError(f"unknown {each.name} '{value}'; expected one of {', '.join(words)}")


T = TypeVar("T")


def said(default: T, meaning: str, **more: object) -> T:
    """A setting's default, what its help says, and what else an option of a command line says of it."""
    made: T = field(default=default, metadata={"help": meaning, **more})
    return made


@dataclass
class Recipe:
    """What to fine-tune, on what, and by which method.

    Raises:
        PromptCBLUEError: a value that no run can work with.
    """

    dataset: str = said("promptcblue", "Dataset folder, Hub id or JSON Lines file.")
    configs: list[str] | None = said(None, "Tasks to train on; all by default.")
    train_split: str = said("train", "Split to train on.")
    validation_split: str = said("validation", "Split of the validation loss, where the dataset has it.")
    mixing: dict[str, float] | str | None = said(
        None,
        "How often a task's samples are seen in an epoch, as a JSON object such as "
        '{"CMeEE-V2": 0.5, "CMeIE": 2}; once where it does not say. 0.5 takes half of them, drawn with the seed.',
    )
    extra: str | None = said(
        None,
        "Instruction data of one's own to mix in: JSON Lines of messages, a user's (after a system's, if any) and an "
        "assistant's. Its weight in mixing is that of 'extra'.",
    )
    groups: str | None = said(
        None,
        "Train an adapter for each group of tasks, in a folder of output_dir each: a YAML file of 'group: [tasks]', or "
        "task_type. Prediction with output_dir as the model answers each sample by its group's.",
    )
    few_shot: bool = said(
        False, "Train on the paper's demonstrations alone: 122 samples that cover the labels (Table 7)."
    )
    few_shot_seed: int = said(0, "Seed of the demonstrations; the same as few-shot prompting draws with it.")
    prompt_format: str = said(
        "auto",
        "chat: prompts in the tokenizer's chat template; plain: as they are; auto: chat where there is a "
        "template. It is saved with the model, so that prediction does the same.",
    )
    model: str | None = said(None, "The backbone, or an adapter to go on from: a folder or a Hub id.")
    adapter: str | None = said(None, "The adapter to go on from, where the model is its backbone.")
    from_config: dict[str, Any] | str | None = said(
        None,
        "Instead of a model: build one from this config (model_type and its sizes), with random weights "
        "and a character tokenizer made from the train split.",
    )
    method: str = said("lora", f"One of {', '.join(METHODS)}.")
    fit_budget: float | None = said(
        None,
        "The share of the backbone's parameters that may be trained, 0.01 for 1%; instead of the sizes "
        "below, the largest rank, bottleneck, encoder or prompt that fits.",
    )
    lora_rank: int = said(24, "Rank of LoRA's matrices; for AdaLoRA the one at the start.")
    lora_alpha: int = said(48, "LoRA's scale, times its rank.")
    lora_dropout: float = said(0.0, "Dropout before LoRA's matrices.")
    lora_dora: bool = said(False, "LoRA with the weights' magnitudes trained apart from their directions (DoRA).")
    lora_rslora: bool = said(False, "LoRA's scale by the root of its rank (rsLoRA).")
    lora_plus_ratio: float | None = said(
        None, "Learning rate of LoRA's matrices B, times that of A (LoRA+), such as 16."
    )
    lora_modules_to_save: list[str] | None = said(
        None, "Modules to train whole beside LoRA's matrices, such as embed_tokens."
    )
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"],
        metadata={
            "help": "Names of the layers LoRA and AdaLoRA adapt; by default every matrix of attention and feed-forward."
        },
    )
    adalora_target_rank: int | None = said(None, "Mean rank that AdaLoRA ends with; half of lora_rank by default.")
    adalora_start: float = said(0.1, "Share of the steps before AdaLoRA lowers ranks.")
    adalora_end: float = said(0.3, "Share of the steps after AdaLoRA has lowered ranks.")
    adalora_interval: int = said(10, "Steps from one change of AdaLoRA's ranks to the next.")
    adalora_orthogonality: float = said(
        0.5, "Weight in the loss of how far AdaLoRA's singular vectors are from orthogonal."
    )
    adapter_bottleneck: int = said(128, "Width of the parallel adapter.")
    adapter_scale: float = said(1.0, "Factor on the parallel adapter's output.")
    virtual_tokens: int = said(128, "Virtual tokens of P-tuning; of P-tuning v2, as many in each layer.")
    encoder_width: int = said(512, "Width of the LSTM that P-tuning makes its virtual tokens with.")
    processes: int | None = said(None, "How many processes there must be; a run with another number stops at once.")
    dtype: str = said(
        "auto",
        f"Number format of the backbone's weights: {', '.join((*DTYPES, FOUR_BIT))}. auto is what the "
        "hardware computes in for an adapter's frozen backbone, and float32 where the weights themselves are "
        "trained; 4bit is QLoRA's.",
    )
    save_dtype: str = said(
        "auto", "Number format of the saved model of method full: auto for the trained one, or bfloat16 …"
    )
    attn_implementation: str = said(
        "auto",
        "Attention kernel: sdpa, eager, flash_attention_2 or one of the Hub's (owner/name); auto is "
        "flash_attention_2 where it is installed and the weights are of 16 bits on a GPU, else the model's own.",
    )
    long_targets: str = said(
        "skip", "A target that fills max_length alone: skip its sample, and count it, or refuse to train."
    )
    dry_run: bool = said(False, "Load, tokenise and train one step, say what the run would take, and leave nothing.")
    overwrite: bool = said(False, "Start anew although output_dir holds another run's checkpoints.")

    def __post_init__(self) -> None:
        if isinstance(self.configs, str):
            self.configs = self.configs.replace(",", " ").split()
        if self.configs is not None:
            self.configs = [get_task(name).name for name in self.configs]
        if isinstance(self.from_config, str):
            self.from_config = _mapping(self.from_config, "from_config")
        if isinstance(self.mixing, str):
            self.mixing = _mapping(self.mixing, "mixing")
        if self.mixing is not None:
            self.mixing = {
                name if name == EXTRA and self.extra else get_task(name).name: _weight(name, value)
                for name, value in self.mixing.items()
            }
        check_values(self)
        if (self.model is None) == (self.from_config is None):
            raise PromptCBLUEError("a recipe needs either 'model' or 'from_config', and not both")
        if self.adapter and not self.model:
            raise PromptCBLUEError("adapter: name the model that it is of, too")
        if self.adalora_start + self.adalora_end >= 1:
            raise PromptCBLUEError("adalora_start and adalora_end: expected shares of the run whose sum is below 1")
        extras = ("lora_dora", "lora_rslora", "lora_plus_ratio", "lora_modules_to_save")
        if self.method != "lora" and (given := [name for name in extras if getattr(self, name)]):
            raise PromptCBLUEError(f"{given[0]} is of method lora, and not of {self.method}")
        if self.save_dtype != "auto" and self.method != "full":
            raise PromptCBLUEError("save_dtype is of method full: an adapter is saved as it is trained, in float32")
        if self.groups and (self.method == "full" or not self.model):
            raise PromptCBLUEError("groups: adapters share a backbone: name one by model, and another method than full")
        if self.dtype == FOUR_BIT and self.method == "full":
            raise PromptCBLUEError("dtype 4bit: weights in 4 bits cannot be trained themselves; choose another method")


def _weight(task: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise PromptCBLUEError(f"mixing: expected a number of 0 or more for {task}, found {value!r}")
    return float(value)


def _mapping(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise PromptCBLUEError(f"{name}: expected a JSON object, found {text!r}")
    return value


def shipped() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def find_recipe(name: str | Path) -> Path:
    """The recipe file: a path, or the bare name of one that is shipped; ``lora`` is short for ``lora-small``.

    Raises:
        PromptCBLUEError: neither; lists those that are shipped.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = shipped()
    for each in (str(name), f"{name}-{_USUAL}"):
        if each in known:
            return known[each]
    raise PromptCBLUEError(f"recipe {name}: no such file, and no shipped recipe; those are {', '.join(known)}")


def read_recipe(path: Path) -> dict[str, Any]:
    """What a recipe says, without the defaults.

    Raises:
        PromptCBLUEError: it cannot be read, or is no YAML mapping.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptCBLUEError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise PromptCBLUEError(f"{path}: expected YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise PromptCBLUEError(f"{path}: expected settings, one 'key: value' a line")
    return recipe


def defaults() -> dict[str, Any]:
    """The settings of the paper (Appendix A.3), and what they leave open."""
    return read_recipe(DEFAULTS)
