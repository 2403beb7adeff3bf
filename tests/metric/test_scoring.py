"""Scorers against independent oracles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from promptcblue_metric import TASKS, Evaluation, PromptCBLUEError
from promptcblue_metric.answers import Answer
from promptcblue_metric.evaluation import PARSERS, Parser
from promptcblue_metric.scoring import Counts, LabelF1, MeanRouge, Protocol, Scorer, SetF1, sum_counts

from ..conftest import SampleRows

LABEL = st.sampled_from("甲乙丙丁")


def total(scorer: Scorer, pairs: Sequence[tuple[Answer, Answer]]) -> Counts:
    return sum_counts([scorer.count(prediction, gold) for prediction, gold in pairs])


@pytest.mark.parametrize("average", ["macro", "weighted"])
@given(pairs=st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=30))
@settings(deadline=None)
def test_label_scores_equal_scikit_learns(average: Literal["macro", "weighted"], pairs: list[tuple[str, str]]) -> None:
    scorer = LabelF1(average, labels=("甲", "乙", "丙"))
    predicted, gold = zip(*pairs, strict=True)
    expected = precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)[:3]
    assert list(scorer.score(total(scorer, pairs)).values()) == pytest.approx(list(expected), abs=1e-12)


ITEM = st.fixed_dictionaries({"entity": LABEL, "type": LABEL})


@given(pairs=st.lists(st.tuples(st.lists(ITEM, max_size=5), st.lists(ITEM, max_size=5)), max_size=8))
@settings(deadline=None)
def test_set_f1_pools_over_samples(pairs: list[tuple[list[dict[str, str]], list[dict[str, str]]]]) -> None:
    predicted, gold = (
        {(n, item["entity"], item["type"]) for n, pair in enumerate(pairs) for item in pair[side]} for side in (0, 1)
    )
    hits = len(predicted & gold)
    scores = SetF1().score(total(SetF1(), pairs))
    assert scores["precision"] == pytest.approx(hits / len(predicted) if predicted else 0)
    assert scores["recall"] == pytest.approx(hits / len(gold) if gold else 0)
    assert scores["f1"] == pytest.approx(2 * hits / (len(predicted) + len(gold)) if hits else 0)


def test_the_order_inside_a_list_field_counts() -> None:
    first, second = ({"主体词": "痛", "描述词": words} for words in (["轻", "重"], ["重", "轻"]))
    assert SetF1().count([first], [second]) == {"tp": 0, "fp": 1, "fn": 1}
    assert SetF1().count([first, first], [first]) == {"tp": 1, "fp": 0, "fn": 0}


def test_a_report_is_scored_on_every_section_of_its_gold() -> None:
    scorer = MeanRouge()
    counts = scorer.count({"主诉": "咳嗽三天"}, {"主诉": "咳嗽三天", "诊断": "肺炎"})
    assert counts["texts"] == 2
    assert scorer.score(counts)["rougeL"] == pytest.approx(0.5)


def row(task: str, target: str, choices: list[str] | None) -> dict[str, object]:
    return {"task_dataset": task, "target": target, "answer_choices": choices, "sample_id": "1", "input": "问"}


def test_a_missing_prediction_is_wrong_and_never_the_default_label() -> None:
    reference = row("KUAKE-IR", "相关", ["相关", "不相关"])
    empty, missing = Evaluation(), Evaluation()
    empty.add("", reference)
    missing.add(None, reference)
    assert empty.result()["overall"] == 1.0
    assert missing.result()["overall"] == 0.0
    assert missing.result()["well_formed"] == 0.0


OUTPUT = st.sampled_from(["甲", "答案是甲", "乙。", "我无法回答。", "", "丙\0", "丁", "\0"])


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("task", ["KUAKE-QIC", "KUAKE-QTR"])
@given(outputs=st.lists(st.tuples(OUTPUT, st.integers(0, 3)), min_size=1, max_size=20))
def test_label_scores_equal_the_official_scorers_on_the_answers_handed_in(
    parser: Parser, task: str, outputs: list[tuple[str, int]]
) -> None:
    labels = TASKS[task].labels[:4]
    named = dict(zip("甲乙丙丁", labels, strict=True))
    evaluation = Evaluation(parser=parser)
    predicted, gold = [], []
    for text, number in outputs:
        output = "".join(named.get(character, character) for character in text)
        sample = evaluation.add(output, row(task, labels[number], list(labels)))
        assert sample.parsed
        predicted.append(sample.parsed.answer or TASKS[task].labels[0])  # as the official scorer does
        gold.append(labels[number])
    average = "macro" if task == "KUAKE-QIC" else "weighted"
    expected = precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)[:3]
    assert list(evaluation.result()["tasks"][task]["scores"].values()) == pytest.approx(list(expected), abs=1e-12)


def test_an_output_that_cannot_be_read_pays_in_no_protocol_but_the_official_one() -> None:
    choices = ["相关", "不相关"]
    garbled, wrong = Evaluation(parser="lenient"), Evaluation(parser="lenient")
    for number in range(4):
        target = choices[number % 2]
        garbled.add("这个问题我无法回答。" if number > 1 else target, row("KUAKE-IR", target, choices))
        wrong.add(choices[number % 2 - 1] if number > 1 else target, row("KUAKE-IR", target, choices))
    assert garbled.result()["overall"] > 0.7  # the leaderboard takes them for the first label
    assert garbled.result("paper")["overall"] == wrong.result("paper")["overall"] == 0.5
    assert garbled.result("paper")["tasks"]["KUAKE-IR"]["scores"]["f1_of_readable"] == pytest.approx(2 / 3)
    assert "f1_of_readable" not in wrong.result("paper")["tasks"]["KUAKE-IR"]["scores"]


def test_overall_and_groups_are_means_of_the_tasks_that_are_there() -> None:
    evaluation = Evaluation()
    evaluation.add("不相关", row("KUAKE-IR", "相关", ["相关", "不相关"]))
    evaluation.add("是的", row("CHIP-STC", "相同", ["相同", "不同"]))
    evaluation.add("多喝水。", row("MedDG", "多喝水。", None))
    result = evaluation.result()
    assert result["groups"] == pytest.approx({"natural language inference": 0.5, "generation": 1.0}, abs=1e-6)
    assert result["overall"] == pytest.approx(2 / 3, abs=1e-6)
    assert len(result["missing_tasks"]) == 13
    assert result["samples"] == 3
    # The prompt offered 相同 and 不同, so 是的 is read but is not the form asked for.
    assert result["well_formed"] == pytest.approx(2 / 3)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(PromptCBLUEError, match="nothing to score"):
        Evaluation().result()
    with pytest.raises(PromptCBLUEError, match="no target"):
        Evaluation().add("相关", row("KUAKE-IR", "", ["相关", "不相关"]))
    with pytest.raises(PromptCBLUEError, match="KUAKE-IR alone"):
        Evaluation("KUAKE-IR").add("是的", row("CHIP-STS", "是的", ["是的", "不是"]))
    with pytest.raises(PromptCBLUEError, match="CHIP-CDN needs the answer_choices"):
        Evaluation().add("肺炎", row("CHIP-CDN", "肺炎", None))


def test_every_sample_target_scores_one_against_itself(sample_rows: SampleRows) -> None:
    evaluation = Evaluation()
    for sample in sample_rows("train"):
        evaluation.add(sample["target"], sample)
    result = evaluation.result()
    assert not result["missing_tasks"]
    assert result["well_formed"] == 1.0
    assert all(task["score"] == pytest.approx(1.0, abs=1e-6) for task in result["tasks"].values())


@pytest.mark.parametrize("average", ["macro", "weighted"])
@given(pairs=st.lists(st.tuples(LABEL | st.just(""), st.sampled_from("甲乙丙")), min_size=1, max_size=30))
@settings(deadline=None)
def test_the_papers_label_scores_take_other_outputs_as_misses(
    average: Literal["macro", "weighted"], pairs: list[tuple[str, str]]
) -> None:
    labels = ("甲", "乙", "丙")
    scorer = LabelF1(average, labels)
    predicted, gold = zip(*pairs, strict=True)
    seen = sorted({label for pair in pairs for label in pair if label in labels})
    expected = precision_recall_fscore_support(
        gold, predicted, labels=seen, average={"macro": "macro", "weighted": "micro"}[average], zero_division=0
    )[:3]
    scores = scorer.score(total(scorer, pairs), "paper")
    if average == "macro":
        assert list(scores.values()) == pytest.approx(list(expected), abs=1e-12)
    else:
        assert scores.get("f1_of_readable", scores["f1"]) == pytest.approx(expected[2], abs=1e-12)
        assert scores["f1"] == pytest.approx(accuracy_score(gold, predicted), abs=1e-12)


@pytest.mark.parametrize("protocol", ["official", "paper"])
@given(
    runs=st.lists(
        st.lists(st.tuples(LABEL | st.just(""), st.sampled_from("甲乙丙")), min_size=1, max_size=9),
        min_size=1,
        max_size=5,
    )
)
@settings(deadline=None)
def test_many_sums_score_as_each_alone(protocol: Protocol, runs: list[list[tuple[str, str]]]) -> None:
    for scorer in (LabelF1("macro", ("甲", "乙", "丙")), LabelF1("weighted", ("甲", "乙", "丙"))):
        sums = [total(scorer, pairs) for pairs in runs]
        keys = {key for totals in sums for key in totals}
        together = scorer.score({key: np.array([float(s.get(key, 0)) for s in sums]) for key in keys}, protocol)
        for name, values in together.items():
            each = [scorer.score(totals, protocol) for totals in sums]
            alone = [scores.get(name, scores["f1"]) for scores in each]
            assert list(np.broadcast_to(values, len(runs))) == pytest.approx(alone, abs=1e-12)
