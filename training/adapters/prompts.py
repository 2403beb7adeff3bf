"""Virtual prompts in padded batches: P-tuning generates for a padded prompt what it does for the prompt alone.

PEFT puts P-tuning's virtual tokens before the padding, and drops the position ids that would say so; a batch then
sees other positions than training did. Here the padding stays first: ``[padding][virtual tokens][prompt]``.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft import PeftType


def pad_before_prompt(model: Any) -> Any:
    """A model whose ``generate`` keeps padding before virtual tokens, if it is one of PEFT's with P-tuning.

    Prefix tuning (P-tuning v2) holds its virtual tokens in the cache, shifts the position ids by their number, and
    needs nothing.

    Returns:
        The model itself.
    """
    configs = getattr(model, "peft_config", {})
    if any(config.peft_type == PeftType.P_TUNING for config in configs.values()):
        model.generate = MethodType(_generate, model)
    return model


def begin_at_saved_prompt(model: Any) -> None:
    """Have P-tuning's encoder, which is not saved and begins anew, make the virtual tokens that were saved.

    PEFT has put them where the encoder's input is; what lacks is added to all that the encoder makes.
    """
    encoder = model.prompt_encoder[model.active_adapter].eval()
    saved = encoder.embedding.weight.detach().clone()
    with torch.no_grad():
        lacks = saved - encoder(torch.arange(len(saved), device=saved.device)[None])[0]
    encoder.register_buffer("lacks", lacks, persistent=False)
    encoder.register_forward_hook(lambda module, places, made: made + module.lacks[places[0]])


def virtual_tokens(model: Any) -> int:
    """How many positions the active adapter's virtual tokens take from the model's context; 0 for other models."""
    config = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0


def _generate(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """As ``PeftModel.generate``: prompts of shape (rows, width), padded on the left; gives them with what follows."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    rows, count = len(input_ids), virtual_tokens(model)
    text = model.word_embeddings(input_ids)
    embeddings = torch.cat([model.get_prompt(rows).to(text), text], dim=1)
    mask = torch.cat([mask.new_ones(rows, count), mask], dim=1)
    # Sorting is stable: what is masked comes first, all else stays in order.
    order = mask.long().argsort(dim=1, stable=True)
    embeddings = embeddings.gather(1, order[..., None].expand_as(embeddings))
    new = model.get_base_model().generate(
        inputs_embeds=embeddings,
        attention_mask=mask.gather(1, order),
        generation_config=options.pop("generation_config", model.generation_config),
        **options,
    )
    beams = len(new) // rows
    return torch.cat([input_ids.repeat_interleave(beams, dim=0), new], dim=1)


def key_value_heads(config: Any) -> tuple[int, int]:
    """How many heads a backbone's cache has, and the width of each."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        heads = 1  # GPT-BigCode and the first Falcon
    return int(heads), int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
