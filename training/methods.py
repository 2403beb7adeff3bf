"""The ways to fine-tune: each method says which PEFT adapter it trains, or None for the model's own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from peft import PeftConfig

    from .settings import Recipe


def lora(recipe: Recipe) -> PeftConfig:
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


METHODS: Mapping[str, Callable[[Recipe], PeftConfig | None]] = {"lora": lora, "full": lambda recipe: None}


def check_method(name: str) -> None:
    """Refuse a method that is not there.

    Raises:
        PromptCBLUEError: names the methods.
    """
    if name not in METHODS:
        raise PromptCBLUEError(f"unknown method '{name}'; expected one of {', '.join(METHODS)}")
