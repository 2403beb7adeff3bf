"""The ways to fine-tune: each method says which PEFT adapter it trains, or None for the model's own weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel, TrainerCallback

    from .recipe import Recipe

#: The share of the backbone's parameters that the paper lets an adapter have (section 4.2).
SHARE_LIMIT = 0.01
_ALL_LINEAR = "all-linear"
_LOW_RANK = ("lora", "adalora")


def _nothing(recipe: Recipe) -> Sequence[TrainerCallback]:
    return ()


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        adapter: the PEFT adapter to train on a model, or None to train the model's own weights.
        packs: whether several samples may share a row: not where virtual tokens stand before each sample.
        recomputes: whether gradient checkpointing works with it: not where the prompt is in the cache.
        size: the field of a recipe that decides how many parameters there are; None where nothing does.
        parameters: how many parameters a recipe trains on a model.
        callbacks: what must run beside the training loop.
    """

    adapter: Callable[[Recipe, PreTrainedModel], PeftConfig | None]
    packs: bool = True
    recomputes: bool = True
    size: str | None = None
    parameters: Callable[[Recipe, PreTrainedModel], int] | None = None
    callbacks: Callable[[Recipe], Sequence[TrainerCallback]] = _nothing


def _lora_layers(recipe: Recipe, model: PreTrainedModel) -> dict[str, nn.Module]:
    """The layers that get low-rank matrices, by full name.

    ``all-linear`` means every matrix of attention and feed-forward, whatever the architecture calls them: query, key,
    value, output, and those of the feed-forward, as in the paper (Appendix A.3).

    Raises:
        PromptCBLUEError: a name that the recipe gives is no layer's.
    """
    from .adapters.blocks import linear_layers, named_layers

    if recipe.lora_target_modules == [_ALL_LINEAR]:
        return linear_layers(model)
    return named_layers(model, recipe.lora_target_modules)


def _low_rank(recipe: Recipe, model: PreTrainedModel) -> dict[str, Any]:
    from transformers.pytorch_utils import Conv1D

    layers = _lora_layers(recipe, model)
    return {
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": sorted(layers),
        "fan_in_fan_out": any(isinstance(layer, Conv1D) for layer in layers.values()),
        "task_type": "CAUSAL_LM",
    }


def _lora(recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
    from peft import LoraConfig

    return LoraConfig(r=recipe.lora_rank, **_low_rank(recipe, model))


def _lora_parameters(recipe: Recipe, model: PreTrainedModel) -> int:
    from .adapters.blocks import widths

    return recipe.lora_rank * sum(sum(widths(layer)) for layer in _lora_layers(recipe, model).values())


def _adalora(recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
    from peft import AdaLoraConfig

    target = recipe.lora_rank // 2 if recipe.adalora_target_rank is None else recipe.adalora_target_rank
    if not 0 < target < recipe.lora_rank:
        raise PromptCBLUEError(
            f"adalora_target_rank {target} is not below lora_rank {recipe.lora_rank}, from which AdaLoRA lowers it; "
            "set another, or train by lora"
        )
    return AdaLoraConfig(
        init_r=recipe.lora_rank,
        target_r=target,
        orth_reg_weight=recipe.adalora_orthogonality,
        total_step=1,  # RankSchedule puts the run's own here, which the trainer knows first
        **_low_rank(recipe, model),
    )


def _adalora_parameters(recipe: Recipe, model: PreTrainedModel) -> int:
    return _lora_parameters(recipe, model) + recipe.lora_rank * len(_lora_layers(recipe, model))


def _rank_schedule(recipe: Recipe) -> Sequence[TrainerCallback]:
    from .adapters.adalora import Phases, RankSchedule

    return [RankSchedule(Phases(recipe.adalora_start, recipe.adalora_end, recipe.adalora_interval))]


def _parallel(recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
    from .adapters import ParallelAdapterConfig
    from .adapters.blocks import sublayers

    sublayers(model)  # refuses a model that has nothing to stand beside
    return ParallelAdapterConfig(
        bottleneck=recipe.adapter_bottleneck, scale=recipe.adapter_scale, task_type="CAUSAL_LM"
    )


def _parallel_parameters(recipe: Recipe, model: PreTrainedModel) -> int:
    from .adapters.parallel import count_parallel

    return count_parallel(model, recipe.adapter_bottleneck)


def _p_tuning(recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        num_virtual_tokens=recipe.virtual_tokens,
        encoder_reparameterization_type="LSTM",
        encoder_hidden_size=recipe.encoder_width,
        token_dim=_embedding_width(model),
        task_type="CAUSAL_LM",
    )


def _embedding_width(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[1])


def _p_tuning_parameters(recipe: Recipe, model: PreTrainedModel) -> int:
    from .adapters.prompts import count_encoder

    return count_encoder(_embedding_width(model), recipe.virtual_tokens, recipe.encoder_width)


def _p_tuning_v2(recipe: Recipe, model: PreTrainedModel) -> PeftConfig:
    from peft import PrefixTuningConfig

    from .adapters.prompts import key_value_heads

    heads, size = key_value_heads(model.config)
    return PrefixTuningConfig(
        num_virtual_tokens=recipe.virtual_tokens,
        num_attention_heads=heads,
        token_dim=heads * size,
        prefix_projection=False,
        task_type="CAUSAL_LM",
    )


def _p_tuning_v2_parameters(recipe: Recipe, model: PreTrainedModel) -> int:
    from .adapters.prompts import count_prefix

    return count_prefix(model.config, recipe.virtual_tokens)


METHODS: Mapping[str, Method] = {
    # Hu et al. 2021
    "lora": Method(_lora, size="lora_rank", parameters=_lora_parameters),
    # Zhang et al. 2023
    "adalora": Method(_adalora, size="lora_rank", parameters=_adalora_parameters, callbacks=_rank_schedule),
    # Liu et al. 2021, "GPT understands, too"
    "p-tuning": Method(_p_tuning, packs=False, size="encoder_width", parameters=_p_tuning_parameters),
    # Liu et al. 2022
    "p-tuning-v2": Method(
        _p_tuning_v2, packs=False, recomputes=False, size="virtual_tokens", parameters=_p_tuning_v2_parameters
    ),
    # He et al. 2021
    "parallel-adapter": Method(_parallel, size="adapter_bottleneck", parameters=_parallel_parameters),
    "full": Method(lambda recipe, model: None),
}


def fit_to_budget(recipe: Recipe, model: PreTrainedModel) -> Recipe:
    """The recipe with the largest adapter that keeps to its ``fit_budget``, or as it is where it has none.

    LoRA's scale, alpha by rank, stays what it was.

    Raises:
        PromptCBLUEError: the method has no size to choose, or not even the smallest fits.
    """
    if recipe.fit_budget is None:
        return recipe
    from .adapters.budget import largest_that_fits

    method = METHODS[recipe.method]
    size, parameters = method.size, method.parameters
    if size is None or parameters is None:
        raise PromptCBLUEError(f"fit_budget: method {recipe.method} trains every weight; leave one of them out")

    def sized(value: int) -> Recipe:
        if size != "lora_rank":
            changed: dict[str, Any] = {size: value}
            return replace(recipe, **changed)
        return replace(recipe, lora_rank=value, lora_alpha=max(1, round(recipe.lora_alpha * value / recipe.lora_rank)))

    value = largest_that_fits(
        lambda value: parameters(sized(value), model), recipe.fit_budget, model.num_parameters(), size
    )
    return sized(value)


def describe_trainable(recipe: Recipe, model: Any) -> str:
    """How many parameters of a wrapped model are trained, in a line or more, with a warning where the paper's limit is
    passed.
    """
    from .adapters.blocks import count_experts
    from .adapters.budget import count_trainable

    count = count_trainable(model)
    lines = [f"trainable parameters: {count}"]
    if recipe.method == "p-tuning":
        kept = recipe.virtual_tokens * _embedding_width(model)
        lines.append(f"  {kept:,} numbers are kept, the virtual tokens; their encoder only serves to train them")
    if recipe.method in _LOW_RANK and (experts := count_experts(model)):
        lines.append(f"  {experts} matrices of experts are left as they are: they are no linear layers of their own")
    if recipe.fit_budget is not None:
        size = METHODS[recipe.method].size
        lines.append(f"  fit_budget {recipe.fit_budget:g} gives {size} {getattr(recipe, str(size))}")
    elif recipe.method != "full" and count.share > SHARE_LIMIT:
        lines.append(
            f"warning: {count.share:.2%} is over the {SHARE_LIMIT:.0%} that the paper's adapters keep to; "
            f"--fit_budget {SHARE_LIMIT:g} chooses the largest {METHODS[recipe.method].size} that fits"
        )
    return "\n".join(lines)
