"""AdaLoRA's rank schedule and orthogonality term (Zhang et al. 2023, arXiv:2303.10512), as the trainer runs them."""

from __future__ import annotations

import torch
from peft.tuners.adalora import AdaLoraModel
from peft.tuners.adalora.layer import AdaLoraLayer
from transformers import TrainerCallback, TrainerControl, TrainerState

from promptcblue_metric.errors import PromptCBLUEError


def adalora_tuner(model: object) -> AdaLoraModel | None:
    """The AdaLoRA tuner of a model that has one."""
    tuner = getattr(model, "base_model", None)
    return tuner if isinstance(tuner, AdaLoraModel) else None


class RankSchedule(TrainerCallback):  # type: ignore[misc]
    """Allocates ranks after each optimizer step, while the step's gradients are still there.

    Args:
        start: share of the steps before ranks fall.
        end: share of the steps after they have fallen.
        interval: steps between two allocations of ranks.
    """

    def __init__(self, start: float, end: float, interval: int) -> None:
        self.start, self.end, self.interval = start, end, interval

    def on_train_begin(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Scale the schedule to the run, whose length is known now.

        Raises:
            PromptCBLUEError: the run is too short to learn which ranks matter before they are lowered.
        """
        self.tuner: AdaLoraModel = kwargs["model"].base_model  # type: ignore[attr-defined]
        config = self.tuner.peft_config[self.tuner.trainable_adapter_name]
        start, end = (int(state.max_steps * share) for share in (self.start, self.end))
        if state.max_steps - end < 2:
            raise PromptCBLUEError(
                f"AdaLoRA has no step to learn from before it lowers ranks: of {state.max_steps} step(s) {end} come "
                "after; train longer, or lower adalora_end"
            )
        config.total_step, config.tinit, config.tfinal = state.max_steps, start, end
        config.deltaT = self.interval

    def on_optimizer_step(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Weigh the step's gradients, and mask what matters least."""
        # Where float16 overflowed the gradients are no numbers.
        if not getattr(kwargs.get("optimizer"), "step_was_skipped", False):
            self.tuner.update_and_allocate(state.global_step + 1)


def orthogonality(tuner: AdaLoraModel) -> torch.Tensor:
    """How far the singular vectors are from orthonormal, times the weight of the term; a scalar with gradients.

    The mean over matrices P of ``|P'P - I|`` and over matrices Q of ``|QQ' - I|``, in the Frobenius norm.
    """
    name = tuner.trainable_adapter_name
    norms = []
    for layer in tuner.modules():
        if isinstance(layer, AdaLoraLayer) and name in layer.lora_A:
            for matrix in (layer.lora_A[name], layer.lora_B[name].T):
                rows = matrix.float()
                norms.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows), device=rows.device)))
    return float(tuner.peft_config[name].orth_reg_weight) * torch.stack(norms).mean()
