"""What PEFT does not bring: the parallel adapter, padding around virtual prompts, AdaLoRA's schedule, exact resuming.

Importing this package makes the parallel adapter known to PEFT, so that ``PeftModel.from_pretrained`` loads one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from peft import PeftType, load_peft_weights, set_peft_model_state_dict

from promptcblue_metric.errors import PromptCBLUEError

from .adalora import adalora_tuner
from .parallel import ParallelAdapterConfig, ParallelAdapterModel
from .prompts import begin_at_saved_prompt, pad_before_prompt

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["ParallelAdapterConfig", "ParallelAdapterModel", "pad_before_prompt"]

#: The file in a checkpoint that holds what PEFT's own file leaves out, which is less than training needs to go on for
#: two methods: P-tuning's encoder, and AdaLoRA's masked ranks and its record of what mattered.
TRAINING_STATE = "adapter_training_state.pt"
_INCOMPLETE = (PeftType.P_TUNING, PeftType.ADALORA)
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def go_on_from(model: PeftModel, adapter: str) -> None:
    """Put a saved adapter's weights into a new one of its config, to be trained on.

    Raises:
        PromptCBLUEError: they do not fit the model.
    """
    try:
        result = set_peft_model_state_dict(model, load_peft_weights(adapter, device="cpu"))
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise PromptCBLUEError(f"adapter {adapter} does not fit {model.name_or_path}: {error}") from error
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    strange = [*result.unexpected_keys, *trained.intersection(result.missing_keys)]
    if strange and not model.active_peft_config.is_prompt_learning:
        raise PromptCBLUEError(f"adapter {adapter} does not fit {model.name_or_path}: {strange[0]}")
    if model.active_peft_config.peft_type == PeftType.P_TUNING:
        begin_at_saved_prompt(model)


def is_incomplete(model: PreTrainedModel | PeftModel) -> bool:
    """Whether PEFT saves less of a model than training needs to go on."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and config.peft_type in _INCOMPLETE


def training_state(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
    """What training needs to go on and PEFT does not save, by name; empty where PEFT saves all."""
    if not is_incomplete(model):
        return {}
    state = {f"parameter/{name}": value for name, value in model.named_parameters() if value.requires_grad}
    if tuner := adalora_tuner(model):
        for kind in _IMPORTANCE:
            state |= {f"{kind}/{name}": value for name, value in getattr(tuner.rankallocator, kind).items()}
        for name, kept in (model.active_peft_config.rank_pattern or {}).items():
            state[f"rank/{name}"] = torch.tensor(kept)
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def load_training_state(model: PreTrainedModel | PeftModel, state: Mapping[str, torch.Tensor]) -> None:
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
