"""A model from nothing: a config, random weights, and a tokenizer of the characters in some texts.

Small ones learn the embedded sample in about a minute on a CPU; they stand in for a real backbone in the demo, the
tests and the benchmarks, with everything else unchanged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PAD, _BOS, _EOS, _UNK = _SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def build_tokenizer(texts: Iterable[str], max_size: int | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer with a token a character, for the characters of ``texts`` by frequency; others are ``<unk>``.

    Args:
        max_size: most tokens in the vocabulary, the four special ones included.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    # Ties by code point, so that the vocabulary does not depend on the order of the texts.
    by_frequency = sorted(counts, key=lambda character: (-counts[character], character))
    words = [*_SPECIAL, *by_frequency][:max_size]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=_UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A $B", special_tokens=[(_BOS, words.index(_BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, bos_token=_BOS, eos_token=_EOS, unk_token=_UNK
    )


def build_model(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A causal language model with random weights in float32.

    Args:
        config: ``model_type`` and any field of that type's config; vocabulary and special tokens come from the
            tokenizer.

    Raises:
        PromptCBLUEError: transformers knows no such type, or a field has a value it cannot have.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, set_seed

    fields = dict(config)
    model_type = fields.pop("model_type", None)
    try:
        full = AutoConfig.for_model(
            model_type,
            **fields,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        set_seed(seed)
        # Not by from_config, which under ZeRO-3 waits for processes that do not build.
        model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(full)](full)
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise PromptCBLUEError(f"from_config: no model can be built from {dict(config)}: {reason}") from error
    return model


def build_backbone(config: Mapping[str, Any], texts: Iterable[str], folder: str | Path, seed: int) -> Path:
    """Build tokenizer and model and save them, so that they load as any other model does.

    Returns:
        The folder.
    """
    tokenizer = build_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    build_model(config, tokenizer, seed).save_pretrained(folder)
    return Path(folder)
