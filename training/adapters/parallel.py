"""The parallel adapter of He et al. 2021 (arXiv:2110.04366) as a PEFT method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn

from .blocks import sublayers

_NAME = "parallel_adapter"
_PREFIX = "parallel_"


def _peft_type() -> PeftType:
    """The member of PEFT's enumeration that names this method, added if it is not there."""
    name = _NAME.upper()
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        setattr(PeftType, name, member)
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
    return PeftType(name)


PARALLEL_ADAPTER = _peft_type()


@dataclass
class ParallelAdapterConfig(PeftConfig):  # type: ignore[misc]
    """A bottleneck beside the self-attention and the feed-forward of every decoder block."""

    bottleneck: int = 128  #: Width of the adapters.
    scale: float = 1.0  #: What their outputs are multiplied by before they are added.
    #: Full names of the modules whose outputs are added to; found in the model by default.
    target_modules: list[str] | set[str] | None = None
    #: For those that are not the whole part, the name of the module whose input the adapter takes.
    entries: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PARALLEL_ADAPTER


class _Bottleneck(nn.Module):
    """Down, ReLU, up; zero at the start, as the up-projection is."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Shape ``(..., width)`` in and out, computed in the adapter's own number format."""
        output: torch.Tensor = self.up(torch.relu(self.down(hidden.to(self.down.weight.dtype))))
        return output


class ParallelAdapterLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A part of a block with adapters beside it: output plus scale times adapter of the part's input."""

    adapter_layer_names = ("parallel_adapters",)
    other_param_names = ("parallel_scale",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.parallel_adapters = nn.ModuleDict()
        self.parallel_scale: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        # The input of an earlier module of the block, where the part begins there (OPT's feed-forward).
        self._waits, self._entered = False, None

    def update_layer(self, adapter_name: str, config: ParallelAdapterConfig, width: int) -> None:
        """Add an adapter of its own name."""
        self.parallel_adapters[adapter_name] = _Bottleneck(width, config.bottleneck)
        self.parallel_scale[adapter_name] = config.scale
        place = next(self.base_layer.parameters(), None)
        if place is not None and not any(parameter.is_meta for parameter in self.parallel_adapters.parameters()):
            self.parallel_adapters[adapter_name].to(place.device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def begin_at(self, entry: nn.Module) -> None:
        """Take the adapters' input from a module that the block calls earlier."""
        self._waits = True
        entry.register_forward_pre_hook(self._enter, with_kwargs=True)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._entered = _hidden(args, kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the part itself, whatever it takes and gives besides the hidden states."""
        hidden = self._entered if self._waits else _hidden(args, kwargs)
        self._entered = None
        output = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return output
        result = output[0] if isinstance(output, tuple) else output
        for name in self.active_adapters:
            if name in self.parallel_adapters:
                beside = self.parallel_adapters[name](hidden) * self.parallel_scale[name]
                result = result + beside.to(result.dtype)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    def __getattr__(self, name: str) -> Any:
        """What other modules ask of the part, the part answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]


class ParallelAdapterModel(BaseTuner):  # type: ignore[misc]
    """A model with parallel adapters in it.

    Raises:
        PromptCBLUEError: a block that has no self-attention or no feed-forward to stand beside.
    """

    prefix = _PREFIX
    tuner_layer_cls = ParallelAdapterLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _prepare_adapter_config(self, peft_config: ParallelAdapterConfig, _: object) -> ParallelAdapterConfig:
        if peft_config.target_modules is None:
            parts = sublayers(self.model)
            peft_config.target_modules = {part.exit for part in parts}
            peft_config.entries = {part.exit: part.entry for part in parts if part.entry != part.exit}
        return peft_config

    def _create_and_replace(
        self,
        peft_config: ParallelAdapterConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target
        if not isinstance(target, ParallelAdapterLayer):
            layer = ParallelAdapterLayer(target)
            if entry := peft_config.entries.get(current_key):
                layer.begin_at(self.model.get_submodule(entry))
            self._replace_module(parent, target_name, layer, target)
        layer.update_layer(adapter_name, peft_config, self.model.config.get_text_config().hidden_size)
        if adapter_name not in self.active_adapters:
            layer.parallel_adapters[adapter_name].requires_grad_(False)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise TypeError(
            "a parallel adapter has a ReLU inside and cannot be merged into the backbone's matrices; keep it as it is"
        )


register_peft_method(name=_NAME, config_cls=ParallelAdapterConfig, model_cls=ParallelAdapterModel, prefix=_PREFIX)
