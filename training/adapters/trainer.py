"""What the trainer does for adapters: AdaLoRA's orthogonality term, and checkpoints from which training can go on.

PEFT saves what generation needs, which is less than training needs for two methods: P-tuning's encoder is left out,
and AdaLoRA's masked ranks and its record of what mattered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from peft import PeftType
from trl import SFTTrainer

from promptcblue_metric.errors import PromptCBLUEError

from .adalora import adalora_tuner, orthogonality
from .prompts import pad_before_prompt

#: The file in a checkpoint that holds what PEFT's own file leaves out.
TRAINING_STATE = "adapter_training_state.pt"
_INCOMPLETE = (PeftType.P_TUNING, PeftType.ADALORA)
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class AdapterTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that trains every method of this project as it was meant, and goes on with it from a checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pad_before_prompt(self.model)
        if _is_incomplete(self.model) and (self.is_fsdp_enabled or self._steps_inside()):
            raise PromptCBLUEError(
                f"{self.model.active_peft_config.peft_type.value} needs whole weights and gradients in each process, "
                "which FSDP and DeepSpeed cut up; train it on one device or by DDP"
            )

    def _steps_inside(self) -> bool:
        """Whether DeepSpeed steps within the backward pass, and so takes gradients away before ranks are allocated."""
        return bool(self.is_deepspeed_enabled) and adalora_tuner(self.model) is not None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """The loss, in training with AdaLoRA's term; the log shows that one also by itself."""
        result = super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        tuner = adalora_tuner(self.model)
        if tuner is None or not self.model.training:
            return result
        term = orthogonality(tuner)
        self._metrics["train"]["orthogonality"].append(term.item())
        # Where the loss is a share of the whole step's, so is the term; the passes are summed.
        share = (
            term / self.current_gradient_accumulation_steps if kwargs.get("num_items_in_batch") is not None else term
        )
        return (result[0] + share, result[1]) if return_outputs else result + share

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and (state := training_state(self.model)):
            torch.save(state, Path(output_dir) / TRAINING_STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not _is_incomplete(self.model):
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


def _is_incomplete(model: Any) -> bool:
    config = getattr(model, "active_peft_config", None)
    return config is not None and config.peft_type in _INCOMPLETE


def training_state(model: Any) -> dict[str, torch.Tensor]:
    """What training needs to go on and PEFT does not save, by name; empty where PEFT saves all."""
    if not _is_incomplete(model):
        return {}
    state = {f"parameter/{name}": value for name, value in model.named_parameters() if value.requires_grad}
    if tuner := adalora_tuner(model):
        for kind in _IMPORTANCE:
            state |= {f"{kind}/{name}": value for name, value in getattr(tuner.rankallocator, kind).items()}
        for name, kept in (model.active_peft_config.rank_pattern or {}).items():
            state[f"rank/{name}"] = torch.tensor(kept)
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def load_training_state(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Put a model back where `training_state` found it."""
    parameters = dict(model.named_parameters())
    tuner = adalora_tuner(model)
    ranks: dict[str, list[bool]] = {}
    for key, value in state.items():
        kind, _, name = key.partition("/")
        if kind == "parameter":
            with torch.no_grad():
                parameters[name].copy_(value)
        elif kind == "rank":
            ranks[name] = value.tolist()
        elif tuner is not None:
            like = tuner.model.get_parameter(name)
            getattr(tuner.rankallocator, kind)[name] = value.to(like.device, like.dtype)
    if ranks:
        model.active_peft_config.rank_pattern = ranks
