"""How many parameters a run trains, and the size of an adapter that keeps to a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from promptcblue_metric.errors import PromptCBLUEError


class Trainable(NamedTuple):
    """Parameters that are trained, and those of the backbone, which are the same ones in full fine-tuning."""

    trained: int
    backbone: int

    @property
    def share(self) -> float:
        """Trained parameters for each of the backbone."""
        return self.trained / self.backbone

    def __str__(self) -> str:
        return f"{self.trained:,}, {self.share:.2%} of the backbone's {self.backbone:,}"


def count_trainable(model: Any) -> Trainable:
    """Count the parameters of a model that is ready to be trained."""
    if hasattr(model, "get_nb_trainable_parameters"):
        # PEFT's count knows of weights in 4 bits, two to a byte, and of those that lie on other processes.
        trained, total = model.get_nb_trainable_parameters()
        # AdaLoRA writes the rank it started with beside each of its matrices.
        ranks = sum(".ranknum." in name for name, _ in model.named_parameters())
        return Trainable(trained, total - trained - ranks)
    counts = [(getattr(one, "ds_numel", one.numel()), one.requires_grad) for one in model.parameters()]
    return Trainable(sum(count for count, trained in counts if trained), sum(count for count, _ in counts))


def largest_that_fits(count: Callable[[int], int], budget: float, backbone: int, what: str) -> int:
    """The largest size of an adapter whose parameters are at most a share of the backbone's.

    Args:
        count: parameters by size, which grow with it.
        budget: the share, 0.01 for 1%.
        backbone: parameters of the backbone.
        what: what the size is, for the message.

    Raises:
        PromptCBLUEError: not even size 1 fits.
    """
    most = int(budget * backbone)
    if count(1) > most:
        raise PromptCBLUEError(
            f"fit_budget {budget:g} allows {most:,} parameters on this backbone of {backbone:,}, and {what} 1 needs "
            f"{count(1):,}; allow more"
        )
    low, high = 1, 2
    while count(high) <= most:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= most else (low, middle)
    return low
