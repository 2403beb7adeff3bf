"""The ways to fine-tune: each method says which PEFT adapter it trains, or None for the model's own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

    from .settings import Recipe


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        adapter: the PEFT adapter to train on a model, or None to train the model's own weights.
        packs: whether several samples may share a row: not where virtual tokens stand before each sample.
    """

    adapter: Callable[[Recipe, PreTrainedModel], PeftConfig | None]
    packs: bool = True


def lora(recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
    """Hu et al. 2021, on every matrix of attention and feed-forward; rank 24 in the paper (Appendix A.3).

    ``all-linear`` is PEFT's name for every linear layer but the output embedding, whatever the architecture calls
    them: query, key, value, output, and the feed-forward matrices.
    """
    from peft import LoraConfig

    targets = recipe.lora_target_modules
    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets[0] if len(targets) == 1 and targets[0] == "all-linear" else targets,
        task_type="CAUSAL_LM",
    )


METHODS: Mapping[str, Method] = {"lora": Method(lora), "full": Method(lambda recipe, model: None)}


def check_method(name: str) -> None:
    """Refuse a method that is not there.

    Raises:
        PromptCBLUEError: names the methods.
    """
    if name not in METHODS:
        raise PromptCBLUEError(f"unknown method '{name}'; expected one of {', '.join(METHODS)}")
