"""ROUGE against rouge-chinese, tokens against BERT's tokenizer, and hostile lengths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_chinese import Rouge
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from promptcblue_metric.scoring import basic_tokens, rouge_scores

from ..conftest import Run

TEXT = st.text(st.sampled_from("患者咳嗽三天，。！？? …aBé1.5℃；\n“”"), max_size=40)


@given(prediction=TEXT, reference=TEXT)
@settings(deadline=None)
def test_scores_equal_rouge_chinese(prediction: str, reference: str) -> None:
    texts = [" ".join(basic_tokens(text)) or "无 。" for text in (prediction, reference)]
    (expected,) = Rouge().get_scores(*texts)
    scores = rouge_scores(prediction, reference)
    names = {"rouge1": "rouge-1", "rouge2": "rouge-2", "rougeL": "rouge-l"}
    assert scores == {name: expected[theirs]["f"] for name, theirs in names.items()}


@given(text=st.text(st.sampled_from("头痛ABÉçñ①Ⅱ　 \t\u200b\ufffd,.。；’`$^1½ﬁ가丽😀")))
@settings(deadline=None)
def test_tokens_equal_berts(text: str) -> None:
    cleaned = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True)
    expected = [token for token, _ in BertPreTokenizer().pre_tokenize_str(cleaned.normalize_str(text))]
    assert basic_tokens(text) == expected


def test_scores_equal_the_official_ones(shared: Path) -> None:
    lines = (shared / "parity" / "rouge.jsonl").read_text(encoding="utf-8").splitlines()
    for pair in map(json.loads, lines):
        scores = rouge_scores(pair["prediction"], pair["reference"])
        assert scores == pytest.approx({name: pair[name] for name in scores}, abs=1e-12)


def test_two_texts_of_100_000_characters_stay_cheap(run_python: Run) -> None:
    code = """
import random, resource, time
from promptcblue_metric.scoring import rouge_scores
random.seed(0)
texts = ["".join(random.choices("高血压患者头痛发热，。", k=100_000)) for _ in range(2)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
rouge_scores(*texts)
print(time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    seconds, megabytes = map(float, run_python(code).stdout.split())
    assert seconds < 10
    assert megabytes < 200
