from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.recipe import find_recipe, read_recipe
from promptcblue_training.tiny import build_backbone, build_model, build_tokenizer

from ..conftest import SampleRows

DEMO = read_recipe(find_recipe("demo"))["from_config"]
ALPHABET = "患者高血压，\n 无：ab<>"
TOKENIZER = build_tokenizer([ALPHABET])


@settings(max_examples=50, deadline=None)
@given(st.text(ALPHABET, max_size=30))
def test_characters_come_back_as_they_were(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text


def test_unknown_characters_are_one_token_each() -> None:
    assert TOKENIZER("癌𠀀", add_special_tokens=False)["input_ids"] == [TOKENIZER.unk_token_id] * 2


def test_the_vocabulary_does_not_depend_on_the_order_of_texts() -> None:
    assert build_tokenizer(["甲乙", "乙丙"]).get_vocab() == build_tokenizer(["丙乙", "甲乙"]).get_vocab()
    assert set(build_tokenizer(["甲乙乙"], max_size=5).get_vocab()) == {"<pad>", "<s>", "</s>", "<unk>", "乙"}


def test_a_backbone_loads_as_any_other_model(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_backbone(DEMO, [ALPHABET], tmp_path, seed=1)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer("患者")["input_ids"] == TOKENIZER("患者")["input_ids"]
    assert model.config.vocab_size == len(tokenizer)
    again = build_model(DEMO, tokenizer, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_demo_model_has_about_a_million_parameters(sample_rows: SampleRows) -> None:
    texts = [row["input"] + row["target"] for row in sample_rows("train")]
    size = build_model(DEMO, build_tokenizer(texts), seed=1).num_parameters()
    assert 0.7e6 <= size <= 2e6


@pytest.mark.parametrize("config", [{"model_type": "no-such-model"}, {}, {"model_type": "llama", "hidden_size": "x"}])
def test_a_config_that_is_no_model_is_an_error(config: dict[str, str]) -> None:
    with pytest.raises(PromptCBLUEError, match="from_config"):
        build_model(config, TOKENIZER, seed=1)
