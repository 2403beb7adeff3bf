"""Where adapters go in a decoder, read off its structure and not off the names that an architecture gives its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn
from transformers.pytorch_utils import Conv1D

from promptcblue_metric.errors import PromptCBLUEError

_ATTENTION = ("attn", "attention")


class Sublayer(NamedTuple):
    """A part of a decoder block, by the full names of the modules where it begins and ends: mostly one and the same."""

    entry: str
    exit: str


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name of the list of repeated blocks that holds most of a model's parameters, and the list.

    Raises:
        PromptCBLUEError: no list of modules holds a linear layer.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(map(is_linear, module.modules()))
    ]
    # A list inside another's blocks (experts, for one) never holds more than that other.
    if not lists:
        raise PromptCBLUEError(f"no repeated blocks with linear layers in a {type(model).__name__}: no adapter fits it")
    return max(lists, key=lambda item: sum(math.prod(full_shape(each)) for each in item[1].parameters()))


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape of a parameter, also where ZeRO-3 has put it on other processes and left it empty here."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def is_linear(module: nn.Module) -> bool:
    """Whether it multiplies by one matrix, quantised or not."""
    return isinstance(module, (nn.Linear, Conv1D)) or all(hasattr(module, name) for name in _WIDTHS)


def widths(module: nn.Module) -> tuple[int, int]:
    """Columns and rows of a layer's matrix: what it takes and what it gives; in either order for a Conv1D."""
    if all(hasattr(module, name) for name in _WIDTHS):
        return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]
    rows, columns = full_shape(module.weight)  # type: ignore[arg-type]
    return int(rows), int(columns)


_WIDTHS = ("in_features", "out_features")


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The matrices of attention and feed-forward in every decoder block, by full name.

    The routers of a mixture of experts are left out: they choose, and their outputs are as many as experts.

    Raises:
        PromptCBLUEError: as of `decoder_blocks`.
    """
    name, blocks = decoder_blocks(model)
    choices = _choices(model)
    return {
        f"{name}.{path}": module
        for path, module in blocks.named_modules()
        if is_linear(module) and widths(module)[1] not in choices
    }


def _choices(model: nn.Module) -> set[int]:
    """Widths of what chooses among experts: one a gate, and as many as there are experts."""
    config: Any = getattr(model, "config", None)
    fields = config.get_text_config().to_dict() if hasattr(config, "get_text_config") else {}
    numbers = {name: value for name, value in fields.items() if type(value) is int}
    return {1, *(value for name, value in numbers.items() if "expert" in name and "size" not in name)}


def sublayers(model: nn.Module) -> list[Sublayer]:
    """Self-attention and feed-forward of every decoder block, in the model's order.

    Attention is what is called so. The feed-forward is the other part with matrices: a module of its own, or the
    first and last of several linear layers that stand in the block itself (OPT).

    Raises:
        PromptCBLUEError: a block without the two; names what it has.
    """
    name, blocks = decoder_blocks(model)
    return [
        part for index, block in enumerate(blocks) for part in _parts(f"{name}.{index}", block, type(model).__name__)
    ]


def _parts(name: str, block: nn.Module, model: str) -> list[Sublayer]:
    parts = [child for child, module in block.named_children() if _has_matrix(module)]
    attention = [child for child in parts if any(word in child.lower() for word in _ATTENTION)]
    feed_forward = [child for child in parts if child not in attention]
    modules = [child for child in feed_forward if not is_linear(block.get_submodule(child))]
    ends = modules if len(modules) == 1 else [] if modules else feed_forward
    if len(attention) != 1 or not ends:
        raise PromptCBLUEError(
            "the parallel adapter needs one self-attention and one feed-forward in each block; "
            f"{name} of this {model} has {', '.join(dict(block.named_children())) or 'no parts'}"
        )
    return [
        Sublayer(f"{name}.{attention[0]}", f"{name}.{attention[0]}"),
        Sublayer(f"{name}.{ends[0]}", f"{name}.{ends[-1]}"),
    ]


def _has_matrix(module: nn.Module) -> bool:
    """Unlike a norm; a mixture's experts may be one parameter of three dimensions, and no linear layers."""
    return any(len(full_shape(parameter)) > 1 for parameter in module.parameters())


def count_experts(model: nn.Module) -> int:
    """How many matrices of a mixture's experts stand together in parameters of three dimensions."""
    shapes = (full_shape(one) for name, one in model.named_parameters() if "expert" in name)
    return sum(shape[0] for shape in shapes if len(shape) == 3)


def named_layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The layers that end in one of the names the user gave, by full name.

    ``all-linear`` alone means every matrix of attention and feed-forward, whatever the architecture calls them: query,
    key, value, output, and those of the feed-forward, as in the paper (Appendix A.3).

    Raises:
        PromptCBLUEError: a name that no layer has; lists the names there are.
    """
    if [*names] == ["all-linear"]:
        return linear_layers(model)
    layers = {
        path: module for path, module in model.named_modules() if is_linear(module) or isinstance(module, nn.Embedding)
    }
    found: dict[str, nn.Module] = {}
    for name in names:
        matches = {path: module for path, module in layers.items() if path == name or path.endswith(f".{name}")}
        if not matches:
            there = dict.fromkeys(path.rpartition(".")[2] for path in linear_layers(model))
            raise PromptCBLUEError(
                f"lora_target_modules: no layer of this {type(model).__name__} is called '{name}'; "
                f"there are {', '.join(there)}, and all-linear for all of them"
            )
        found |= matches
    return found
