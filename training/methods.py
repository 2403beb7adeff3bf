"""The ways to fine-tune: which PEFT adapter each trains, how many parameters that is, and what else it needs.

Imports torch, transformers and PEFT only to make an adapter, so that recipes can be listed at once.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from promptcblue_metric.errors import PromptCBLUEError

from .recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, TrainerCallback

#: The share of the backbone's parameters that the paper lets an adapter have (section 4.2).
SHARE_LIMIT = 0.01
FSDP, DEEPSPEED = "FSDP", "DeepSpeed"
_LOW_RANK = ("lora", "adalora")


class Shape(NamedTuple):
    """The sizes of a backbone that say how large an adapter of it is."""

    matrices: Sequence[tuple[int, int]] = ()  #: Columns and rows of each matrix that LoRA adapts, in all blocks.
    parts: int = 0  #: Places for a parallel adapter: self-attention and feed-forward of every block.
    hidden: int = 0  #: Width of the hidden states.
    embedding: int = 0  #: Width of the token embeddings.
    layers: int = 0  #: Number of blocks.
    key_value: int = 0  #: Width of all key heads together, which is that of the value heads.
    whole: int = 0  #: Parameters of modules that are trained whole beside LoRA's matrices.


def _low_rank_size(recipe: Recipe, shape: Shape) -> int:
    magnitudes = sum(high for _, high in shape.matrices) if recipe.lora_dora else 0
    return shape.whole + magnitudes + recipe.lora_rank * sum(wide + high for wide, high in shape.matrices)


def _adalora_size(recipe: Recipe, shape: Shape) -> int:
    # A singular value for each rank beside the two matrices.
    return _low_rank_size(recipe, shape) + recipe.lora_rank * len(shape.matrices)


def _parallel_size(recipe: Recipe, shape: Shape) -> int:
    # Down and up, each with its bias.
    width = recipe.adapter_bottleneck
    return shape.parts * (2 * shape.hidden * width + width + shape.hidden)


def _encoder_size(recipe: Recipe, shape: Shape) -> int:
    # Embeddings, an LSTM of two layers both ways, and a perceptron on it.
    width, hidden = shape.embedding, recipe.encoder_width
    lstm = sum(2 * 4 * hidden * (taken + hidden + 2) for taken in (width, 2 * hidden))
    return recipe.virtual_tokens * width + lstm + 2 * hidden * (2 * hidden + 1) + (2 * hidden + 1) * width


def _prefix_size(recipe: Recipe, shape: Shape) -> int:
    # A key and a value for each virtual token, key-value head and layer.
    return recipe.virtual_tokens * shape.layers * 2 * shape.key_value


def shape_of(recipe: Recipe, model: PreTrainedModel) -> Shape:
    """Those of a model's sizes that the recipe's method asks for."""
    from .adapters.blocks import full_shape, named_layers, sublayers, widths
    from .adapters.prompts import key_value_heads

    text = model.config.get_text_config()
    if recipe.method in _LOW_RANK:
        names = tuple(f".{name}" for name in recipe.lora_modules_to_save or ())
        saved = [module for name, module in model.named_modules() if names and f".{name}".endswith(names)]
        whole = sum(math.prod(full_shape(parameter)) for module in saved for parameter in module.parameters())
        layers = named_layers(model, recipe.lora_target_modules)
        return Shape([widths(layer) for layer in layers.values()], whole=whole)
    if recipe.method == "parallel-adapter":
        return Shape(parts=len(sublayers(model)), hidden=text.hidden_size)
    if recipe.method == "p-tuning-v2":
        heads, size = key_value_heads(model.config)
        return Shape(layers=text.num_hidden_layers, key_value=heads * size)
    return Shape(embedding=_embedding_width(model))


def _embedding_width(model: PreTrainedModel | PeftModel) -> int:
    from .adapters.blocks import full_shape

    return full_shape(model.get_input_embeddings().weight)[1]


def _low_rank(recipe: Recipe, model: PreTrainedModel) -> dict[str, object]:
    from transformers.pytorch_utils import Conv1D

    from .adapters.blocks import named_layers

    if "lm_head" in (recipe.lora_modules_to_save or ()):
        raise PromptCBLUEError(
            "lora_modules_to_save: lm_head is scored by its own weights, which an adapter cannot stand for"
        )
    layers = named_layers(model, recipe.lora_target_modules)
    turned = any(isinstance(layer, Conv1D) for layer in layers.values())
    return {"target_modules": sorted(layers), "fan_in_fan_out": turned}


def _adalora(recipe: Recipe, model: PreTrainedModel) -> dict[str, object]:
    target = recipe.lora_rank // 2 if recipe.adalora_target_rank is None else recipe.adalora_target_rank
    if not 0 < target < recipe.lora_rank:
        raise PromptCBLUEError(
            f"adalora_target_rank {target} is not below lora_rank {recipe.lora_rank}, from which AdaLoRA lowers it; "
            "set another, or train by lora"
        )
    # RankSchedule puts the run's own number of steps here, which the trainer knows first.
    return {"target_r": target, "total_step": 1, **_low_rank(recipe, model)}


def _rank_schedule(recipe: Recipe) -> Sequence[TrainerCallback]:
    from .adapters.adalora import RankSchedule

    # Ranks that an adapter has kept stay.
    return [] if recipe.adapter else [RankSchedule(recipe.adalora_start, recipe.adalora_end, recipe.adalora_interval)]


def _p_tuning(recipe: Recipe, model: PreTrainedModel) -> dict[str, object]:
    return {"encoder_reparameterization_type": "LSTM", "token_dim": _embedding_width(model)}


def _p_tuning_v2(recipe: Recipe, model: PreTrainedModel) -> dict[str, object]:
    from .adapters.prompts import key_value_heads

    heads, size = key_value_heads(model.config)
    return {"num_attention_heads": heads, "token_dim": heads * size, "prefix_projection": False}


@dataclass(frozen=True)
class Method:
    """One way to fine-tune."""

    #: PEFT's name of the adapter to train on a model, or None to train the model's own weights.
    kind: str | None = None
    #: What PEFT's config calls the recipe's settings, by their names here.
    fields: Mapping[str, str] = field(default_factory=dict)
    #: What else the config says of an adapter of a model.
    derived: Callable[[Recipe, PreTrainedModel], dict[str, object]] = lambda recipe, model: {}
    #: The field of a recipe that decides how many parameters there are; None where nothing does.
    size: str | None = None
    #: How many parameters a recipe trains on a backbone of a shape.
    parameters: Callable[[Recipe, Shape], int] | None = None
    packs: bool = True  #: Whether several samples may share a row: not where virtual tokens stand before each sample.
    recomputes: bool = True  #: Whether gradient checkpointing works with it: not where the prompt is in the cache.
    shards: bool = True  #: Whether FSDP or DeepSpeed may cut its weights up, in training and where they are saved.
    #: What must run beside the training loop.
    callbacks: Callable[[Recipe], Sequence[TrainerCallback]] = lambda recipe: ()

    @property
    def prefixes(self) -> set[str]:
        """How the names of the settings begin that belong to it."""
        return {name.partition("_")[0] + "_" for name in self.fields}

    def config(self, recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
        """PEFT's config of a new adapter, or of the one that the recipe goes on from.

        Raises:
            PromptCBLUEError: there is no such adapter of this model.
        """
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

        from . import adapters  # noqa: F401 - makes the parallel adapter known to PEFT
        from .model import adapter_config

        if recipe.adapter:
            config = adapter_config(recipe.adapter)
            config.inference_mode = False
            return config
        said = {theirs: getattr(recipe, ours) for ours, theirs in self.fields.items()}
        options = {"task_type": "CAUSAL_LM", **said, **self.derived(recipe, model)}
        return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self.kind)](**options)


_SCALE = {"lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
_KINDS = {"lora_dora": "use_dora", "lora_rslora": "use_rslora", "lora_modules_to_save": "modules_to_save"}
_RANKS = {"adalora_target_rank": "target_r", "adalora_orthogonality": "orth_reg_weight"}
_TOKENS = {"virtual_tokens": "num_virtual_tokens"}
_ENCODER = {**_TOKENS, "encoder_width": "encoder_hidden_size"}
_BESIDE = {"adapter_bottleneck": "bottleneck", "adapter_scale": "scale"}
METHODS: Mapping[str, Method] = {
    # Hu et al. 2021
    "lora": Method("LORA", {"lora_rank": "r", **_SCALE, **_KINDS}, _low_rank, "lora_rank", _low_rank_size),
    # Zhang et al. 2023
    "adalora": Method(
        "ADALORA",
        {"lora_rank": "init_r", **_SCALE, **_RANKS},
        _adalora,
        "lora_rank",
        _adalora_size,
        shards=False,
        callbacks=_rank_schedule,
    ),
    # Liu et al. 2021, "GPT understands, too"
    "p-tuning": Method("P_TUNING", _ENCODER, _p_tuning, "encoder_width", _encoder_size, packs=False, shards=False),
    # Liu et al. 2022
    "p-tuning-v2": Method(
        "PREFIX_TUNING",
        _TOKENS,
        _p_tuning_v2,
        "virtual_tokens",
        _prefix_size,
        packs=False,
        recomputes=False,
        shards=False,
    ),
    # He et al. 2021
    "parallel-adapter": Method("PARALLEL_ADAPTER", _BESIDE, size="adapter_bottleneck", parameters=_parallel_size),
    "full": Method(),
}


def take_over(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """A recipe whose model may be an adapter, with backbone and adapter told apart, and the adapter's own settings.

    Returns:
        The recipe, and the settings of its own that it gives up for the adapter's, each with both values.

    Raises:
        PromptCBLUEError: the adapter is none of the recipe's method, or the recipe asks for another size.
    """
    from .model import adapter_config, find_model

    if recipe.model is None:
        return recipe, []
    source = find_model(recipe.model, recipe.adapter)
    recipe = replace(recipe, model=source.backbone, adapter=source.adapter)
    if recipe.adapter is None:
        return recipe, []
    config = adapter_config(recipe.adapter)
    kind = config.peft_type.value
    method = next((name for name, each in METHODS.items() if each.kind == kind), None)
    if method != recipe.method:
        remedy = f"say --method {method}" if method else "none of the methods here goes on with it"
        raise PromptCBLUEError(
            f"method {recipe.method}: {recipe.adapter}, to go on from, is a {kind} adapter: {remedy}"
        )
    if recipe.fit_budget is not None:
        raise PromptCBLUEError(f"fit_budget: {recipe.adapter}, to go on from, has its size already; leave it out")
    kept = {ours: getattr(config, theirs) for ours, theirs in METHODS[recipe.method].fields.items()}
    if recipe.method in _LOW_RANK:
        names = config.target_modules
        kept["lora_target_modules"] = [names] if isinstance(names, str) else sorted(names)
    given_up = [
        f"{name} {value} ({getattr(recipe, name)})" for name, value in kept.items() if value != getattr(recipe, name)
    ]
    return replace(recipe, **kept), given_up


def check_sharding(name: str, by: Collection[str]) -> None:
    """Refuse what cuts up what a method needs whole.

    Raises:
        PromptCBLUEError: names the method and what does.
    """
    if by and not METHODS[name].shards:
        raise PromptCBLUEError(
            f"{name} needs whole weights and gradients in each process, which {next(iter(by))} cuts up; train it on "
            "one device or by DDP"
        )


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


def count_trainable(model: PreTrainedModel | PeftModel) -> Trainable:
    """Count the parameters of a model that is ready to be trained."""
    if hasattr(model, "get_nb_trainable_parameters"):
        # PEFT's count knows of weights in 4 bits, two to a byte, and of those that lie on other processes.
        trained, total = model.get_nb_trainable_parameters()
        # AdaLoRA writes the rank it started with beside each of its matrices.
        ranks = sum(".ranknum." in name for name, _ in model.named_parameters())
        return Trainable(trained, total - trained - ranks)
    from .adapters.blocks import full_shape

    counts = [(math.prod(full_shape(one)), one.requires_grad) for one in model.parameters()]
    return Trainable(sum(count for count, trained in counts if trained), sum(count for count, _ in counts))


def fit_to_budget(recipe: Recipe, model: PreTrainedModel) -> Recipe:
    """The recipe with the largest adapter that keeps to its ``fit_budget``, or as it is where it has none.

    LoRA's scale, alpha by rank, stays what it was.

    Raises:
        PromptCBLUEError: the method has no size to choose, or not even the smallest fits.
    """
    if recipe.fit_budget is None:
        return recipe
    method = METHODS[recipe.method]
    size, parameters = method.size, method.parameters
    if size is None or parameters is None:
        raise PromptCBLUEError(f"fit_budget: method {recipe.method} trains every weight; leave one of them out")
    # Of weights in 4 bits transformers knows the number, and of those on other processes our count does.
    shape, backbone = shape_of(recipe, model), max(model.num_parameters(), count_trainable(model).backbone)
    most = int(recipe.fit_budget * backbone)

    def sized(value: int) -> Recipe:
        if size == "lora_rank":
            alpha = max(1, round(recipe.lora_alpha * value / recipe.lora_rank))
            return replace(recipe, lora_rank=value, lora_alpha=alpha)
        return replace(recipe, **{size: value})  # type: ignore[arg-type]

    def needed(value: int) -> int:
        return parameters(sized(value), shape)

    if needed(1) > most:
        raise PromptCBLUEError(
            f"fit_budget {recipe.fit_budget:g} allows {most:,} parameters on this backbone of {backbone:,}, and {size} "
            f"1 needs {needed(1):,}; allow more"
        )
    return sized(bisect_right(range(most + 1), most, lo=1, key=needed) - 1)


def describe_trainable(recipe: Recipe, model: PreTrainedModel | PeftModel) -> str:
    """How many parameters of a wrapped model are trained, in a line or more, with a warning where the paper's limit is
    passed.
    """
    from .adapters.blocks import count_experts

    count, size = count_trainable(model), METHODS[recipe.method].size
    lines = [f"trainable parameters: {count}"]
    if recipe.method == "p-tuning":
        kept = recipe.virtual_tokens * _embedding_width(model)
        lines.append(f"  {kept:,} numbers are kept, the virtual tokens; their encoder only serves to train them")
    if recipe.method in _LOW_RANK and (experts := count_experts(model)):
        lines.append(f"  {experts} matrices of experts are left as they are: they are no linear layers of their own")
    if recipe.fit_budget is not None:
        lines.append(f"  fit_budget {recipe.fit_budget:g} gives {size} {getattr(recipe, str(size))}")
    elif recipe.method != "full" and count.share > SHARE_LIMIT:
        lines.append(
            f"warning: {count.share:.2%} is over the {SHARE_LIMIT:.0%} that the paper's adapters keep to; "
            f"--fit_budget {SHARE_LIMIT:g} chooses the largest {size} that fits"
        )
    return "\n".join(lines)
