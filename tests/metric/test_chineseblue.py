"""The scores of ChineseBLUE, beside scikit-learn's and worked by hand, and the suite as a whole."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, ndcg_score, precision_score, recall_score
from typer.testing import CliRunner

from promptcblue_metric import REGISTRY, SUITES, TASKS, Evaluation, PromptCBLUEError, get_task
from promptcblue_metric.answers import Label
from promptcblue_metric.cli.main import app
from promptcblue_metric.compare.significance import compare, counts_by_task, intervals
from promptcblue_metric.lenient import parse_lenient
from promptcblue_metric.scoring import located, numbers_of

from ..conftest import ROOT, Run

NAMES = list(SUITES["chineseblue"].tasks)
GRADES = REGISTRY["cMedIR"].labels


def row(task: str, target: str, sample_id: str = "test-1", **fields: Any) -> dict[str, Any]:
    made = {"input": "……", "target": target, "answer_choices": list(REGISTRY[task].labels), "sample_id": sample_id}
    return {**made, "task_type": REGISTRY[task].task_type, "task_dataset": task, **fields}


def scores(task: str, pairs: Sequence[tuple[str | None, dict[str, Any]]], **options: Any) -> dict[str, float]:
    evaluation = Evaluation()
    for prediction, reference in pairs:
        evaluation.add(prediction, reference)
    return evaluation.result(**options)["tasks"][task]["scores"]


def answers(task: str) -> list[str]:
    """Targets of a task: every label, or some items and none."""
    labels = REGISTRY[task].labels
    written = {
        "cEHRNER": ["上述句子中的实体包含：\n" + "\n".join(f"{label}实体：胃，胃" for label in labels)],
        "CMDD": ["当前对话中的症状及其阴阳性判断为：\n咳嗽：患有该症状\n发热：没有患有该症状"],
    }
    return written.get("cEHRNER" if "NER" in task else task, list(labels))


def one_of_each() -> list[dict[str, Any]]:
    return [
        row(task, target, f"test-{number // 2}-{number}@1", input="胃，胃")
        for task in NAMES
        for number, target in enumerate(answers(task))
    ]


def test_nine_tasks_in_a_suite_of_their_own() -> None:
    assert NAMES == ["cEHRNER", "cMedQANER", "cMedQQ", "cMedQNLI", "cMedQA", "cMedIR", "cMedIC", "cMedTC", "CMDD"]
    assert not set(NAMES) & set(TASKS)
    assert list(REGISTRY) == list(dict.fromkeys(name for suite in SUITES.values() for name in suite.tasks))
    assert list(REGISTRY)[-9:] == NAMES
    assert get_task("CEMRNER").name == "cEHRNER"
    assert len(REGISTRY["cMedTC"].labels) == 44


def test_references_against_themselves_score_one() -> None:
    evaluation = Evaluation()
    for reference in one_of_each():
        evaluation.add(reference["target"], reference)
    result = evaluation.result()
    assert result["overall"] == 1
    assert [task["score"] for task in result["tasks"].values()] == [1] * 9
    assert result["missing_tasks"] == []
    assert result["signature"].startswith("promptcblue|suite:chineseblue|tasks:all|")


def test_two_suites_are_never_averaged() -> None:
    evaluation = Evaluation()
    evaluation.add("是的", row("cMedQQ", "是的"))
    with pytest.raises(PromptCBLUEError, match="cMedQQ of ChineseBLUE and CHIP-STS of PromptCBLUE"):
        evaluation.add("是的", row("CHIP-STS", "是的"))


def test_an_output_may_hold_either_pair_of_answers_of_the_paraphrase_task() -> None:
    reference = row("cMedQQ", "相同", answer_choices=["相同", "不同"])
    assert scores("cMedQQ", [("相同", reference)])["f1"] == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=30), st.booleans())
def test_pairs_are_scored_as_by_scikit_learn(labels: list[tuple[int, int]], paper: bool) -> None:
    choices = REGISTRY["cMedQNLI"].labels
    outputs = [*choices, "不知道"]
    found = scores(
        "cMedQNLI",
        [(outputs[predicted], row("cMedQNLI", choices[gold], f"t-{n}")) for n, (gold, predicted) in enumerate(labels)],
        protocol="paper" if paper else "official",
    )
    gold, predicted = ([pair[side] for pair in labels] for side in (0, 1))
    options: dict[str, Any] = {"labels": [0], "average": "macro", "zero_division": 0}
    seen = sorted({*gold, *predicted} & {0, 1})
    expected = {
        "precision": precision_score(gold, predicted, **options),
        "recall": recall_score(gold, predicted, **options),
        "f1": f1_score(gold, predicted, **options),
        "macro_f1": f1_score(gold, predicted, labels=seen, average="macro", zero_division=0),
        "accuracy": accuracy_score(gold, predicted),
    }
    assert found == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30))
def test_intents_are_scored_as_by_scikit_learn(labels: list[tuple[int, int]]) -> None:
    choices = REGISTRY["cMedIC"].labels
    outputs = [*choices, ""]
    found = scores(
        "cMedIC",
        [(outputs[predicted], row("cMedIC", choices[gold], f"t-{n}")) for n, (gold, predicted) in enumerate(labels)],
    )
    gold, predicted = ([pair[side] for pair in labels] for side in (0, 1))
    seen = sorted({*gold, *predicted} - {3})
    assert found["f1"] == pytest.approx(f1_score(gold, predicted, labels=seen, average="macro", zero_division=0))
    assert found["micro_f1"] == pytest.approx(f1_score(gold, predicted, labels=seen, average="micro", zero_division=0))
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, predicted))


_QUERY = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=6)


@given(st.lists(_QUERY, min_size=1, max_size=5))
def test_rankings_are_scored_as_by_scikit_learn_and_by_counting(queries: list[list[tuple[int, int]]]) -> None:
    pairs, right, total, number = [], 0.0, 0, 0
    for query, documents in enumerate(queries):
        places: list[list[str]] = [[] for _ in documents]
        for first in range(len(documents)):  # every pair of neighbours is one of the corpus's
            second = (first + 1) % len(documents)
            (gold, ours), (other, theirs) = documents[first], documents[second]
            number += 1
            for place in (first, second):
                places[place].append(str(number))
            if gold != other:
                total += 1
                right += 0.5 if ours == theirs else float((ours > theirs) == (gold > other))
        pairs += [
            (GRADES[predicted], row("cMedIR", GRADES[gold], f"t-{query}-{place}@{'.'.join(places[place])}"))
            for place, (gold, predicted) in enumerate(documents)
        ]
    found = scores("cMedIR", pairs)
    ordered = [documents for documents in queries if len({gold for gold, _ in documents}) > 1]
    ndcg = [ndcg_score([[g for g, _ in documents]], [[p for _, p in documents]]) for documents in ordered]
    flat = [pair for documents in queries for pair in documents]
    assert found["ndcg"] == pytest.approx(np.mean(ndcg) if ordered else 0)
    assert found["mse"] == pytest.approx(mean_squared_error([g for g, _ in flat], [p for _, p in flat]))
    assert found["pair_accuracy"] == pytest.approx(right / total if total else 0)
    assert found["pair"] == pytest.approx(right / (total - right or 0.5) if total else 0)
    assert found["mrr"] == pytest.approx(np.mean([shuffled_mrr(documents) for documents in ordered]) if ordered else 0)


def shuffled_mrr(documents: Sequence[tuple[int, int]]) -> float:
    """The mean over every order that the predicted grades allow, by trying them."""
    best = max(gold for gold, _ in documents)
    found = []
    for order in permutations(documents):
        grades = [predicted for _, predicted in order]
        if grades == sorted(grades, reverse=True):
            found.append(1 / (1 + next(place for place, (gold, _) in enumerate(order) if gold == best)))
    return sum(found) / len(found)


def test_a_ranking_worked_by_hand() -> None:
    def of(gold: int, predicted: str | None, place: str) -> tuple[str | None, dict[str, Any]]:
        return predicted, row("cMedIR", GRADES[gold], place)

    found = scores(
        "cMedIR",
        [
            of(3, GRADES[2], "t-1-1@1"),  # right
            of(1, GRADES[1], "t-1-2@1"),
            of(0, GRADES[2], "t-2-1@2"),  # wrong
            of(2, GRADES[1], "t-2-2@2"),
            of(4, GRADES[1], "t-3-1@3"),  # tied
            of(0, GRADES[1], "t-3-2@3"),
            of(4, "看不清", "t-4-1@4"),  # unreadable: wrong, last, and as far off as can be
            of(0, GRADES[0], "t-4-2@4"),
        ],
    )
    assert found["pair_accuracy"] == pytest.approx(1.5 / 4)
    assert found["pair"] == pytest.approx(1.5 / 2.5)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + (1 + 1 / 2) / 2 + 1 / 2) / 4)
    assert found["mse"] == pytest.approx((1 + 0 + 4 + 1 + 9 + 1 + 16 + 0) / 8)


def test_precision_at_one_asks_for_the_first_answer_of_each_question_that_has_a_right_and_a_wrong_one() -> None:
    fits, not_ = REGISTRY["cMedQA"].labels
    found = scores(
        "cMedQA",
        [
            (fits, row("cMedQA", fits, "t-1-1")),
            (not_, row("cMedQA", not_, "t-1-2")),  # question 1: right
            (fits, row("cMedQA", not_, "t-2-1")),
            (not_, row("cMedQA", fits, "t-2-2")),  # question 2: wrong
            (fits, row("cMedQA", fits, "t-3-1")),
            (fits, row("cMedQA", not_, "t-3-2")),
            (not_, row("cMedQA", not_, "t-3-3")),  # question 3: one of two that share the first place
            (not_, row("cMedQA", not_, "t-4-1")),  # question 4 has no right answer
        ],
    )
    assert found["precision_at_1"] == pytest.approx((1 + 0 + 1 / 2) / 3)


def test_statuses_are_scored_with_their_mentions_and_alone() -> None:
    lead = REGISTRY["CMDD"].format.render([])
    target = f"{lead}\n咳嗽：患有该症状\n发热：没有患有该症状\n吐：患有该症状"
    output = f"{lead}\n咳嗽：患有该症状\n发热：患有该症状\n腹泻：患有该症状"
    found = scores("CMDD", [(output, row("CMDD", target))])
    assert found["f1"] == pytest.approx(1 / 3)
    assert found["mention_f1"] == pytest.approx(2 / 3)
    assert found["status_accuracy"] == pytest.approx(1 / 2)


def test_entities_are_put_at_the_next_place_that_holds_them() -> None:
    prompt = "类型：症状，疾病\n咳嗽三天，无发热，昨起咳嗽加重，疑为肺炎，症状同前"
    found = located(
        [
            {"entity": "咳嗽", "type": "症状"},
            {"entity": "咳嗽", "type": "症状"},
            {"entity": "发热", "type": "症状"},  # stands before the one before it
            {"entity": "咳嗽", "type": "症状"},  # has no third place
            {"entity": "肺炎", "type": "疾病"},
            {"entity": "症状", "type": "症状"},  # not in the list of choices
        ],
        prompt,
        ["症状", "疾病"],
    )
    places = [None if span is None else span[1] for span in found]
    first, second = prompt.index("咳嗽"), prompt.rindex("咳嗽")
    assert places == [first, second, prompt.index("发热"), None, prompt.index("肺炎"), prompt.rindex("症状")]


def test_offsets_that_the_answer_does_not_tell_stand_in_the_id() -> None:
    prompt, target = "腹痛，后又腹痛", "上述句子中的实体包含：\n症状实体：腹痛"
    options = {"input": prompt, "answer_choices": ["症状"]}
    at_first, at_second = (row("cEHRNER", target, i, **options) for i in ("t-1", f"t-1@0.{prompt.rindex('腹痛')}"))
    assert scores("cEHRNER", [(target, at_first)])["offset_f1"] == 1
    found = scores("cEHRNER", [(target, at_second)])
    assert (found["f1"], found["offset_f1"]) == (1, 0)
    assert scores("cEHRNER", [(f"{target}，腹痛", at_second)])["offset_f1"] == pytest.approx(2 / 3)
    assert scores("cEHRNER", [(target.replace("腹", "胸"), at_first)])["offset_f1"] == 0


@given(st.text(max_size=30))
def test_any_id_can_be_read(sample_id: str) -> None:
    name, numbers = numbers_of(sample_id)
    assert sample_id.startswith(name)
    assert all(number >= 0 for number in numbers)
    assert numbers_of("dev-17-2@20.24") == ("dev-17-2", (20, 24))


@pytest.mark.parametrize("task", [name for name in NAMES if isinstance(REGISTRY[name].format, Label)])
def test_the_lenient_parser_reads_every_label_in_a_sentence(task: str) -> None:
    labels = REGISTRY[task].labels
    for label in labels:
        assert parse_lenient(REGISTRY[task].format, f"答案：{label}。", labels).answer == label


def ranked(seed: int, accuracy: float, queries: int = 40) -> list[tuple[str, dict[str, Any]]]:
    rng = random.Random(seed)
    pairs = []
    for query in range(queries):
        golds = (query % 4 + 1, 0)
        right = rng.random() < accuracy
        for place, gold in enumerate(golds):
            predicted = golds[place] if right else golds[1 - place]
            pairs.append((GRADES[predicted], row("cMedIR", GRADES[gold], f"t-{query}-{place}@{query}")))
    return pairs


def test_resamples_draw_whole_queries() -> None:
    scored = [Evaluation().add(*pair) for pair in ranked(0, 0.7, queries=400)]
    between = intervals(counts_by_task(scored))["cMedIR"]
    accuracy = scores("cMedIR", ranked(0, 0.7, queries=400))["pair_accuracy"]
    half = 1.96 * (accuracy * (1 - accuracy) / 400) ** 0.5
    assert (between.low, between.high) == pytest.approx((accuracy - half, accuracy + half), abs=0.01)


def test_runs_are_compared_by_query() -> None:
    worse, better = (counts_by_task([Evaluation().add(*pair) for pair in ranked(1, share)]) for share in (0.5, 0.95))
    found = compare(worse, better, resamples=300)["cMedIR"]
    assert found.difference > 0.2
    assert found.low > 0
    assert found.adjusted_p < 0.05
    same = compare(worse, worse, resamples=300)["cMedIR"]
    assert (same.difference, same.adjusted_p) == (0, 1)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    references = one_of_each()
    predictions = [{**reference, "prediction": reference["target"]} for reference in references]
    predictions[2]["prediction"] = "不是" if predictions[2]["target"] == "是的" else "是的"
    paths = tmp_path / "references.jsonl", tmp_path / "predictions.jsonl"
    for path, rows in zip(paths, (references, predictions), strict=True):
        path.write_text("".join(json.dumps(found, ensure_ascii=False) + "\n" for found in rows), encoding="utf-8")
    return paths


def test_the_commands_know_the_suite(files: tuple[Path, Path], tmp_path: Path) -> None:
    references, predictions = map(str, files)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--references", references], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    written = tmp_path / "scores.json"
    printed = run("score", predictions, "--resamples", "50", "--json", str(written))
    assert "suite:chineseblue" in printed
    assert "precision_at_1" in printed
    result = json.loads(written.read_text(encoding="utf-8"))
    assert list(result["tasks"]) == NAMES
    assert set(result["tasks"]["cMedIR"]["scores"]) >= {"pair", "pair_accuracy", "mrr", "ndcg", "mse"}
    published = run("compare", predictions, "--published")
    assert "MC-BERT" in published
    assert "ChatGPT" not in published
    assert f"that of these references is refs:{result['references']}" in published
    run("report", predictions, "--output", str(tmp_path / "report"), "--resamples", "50")
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert list(report["tasks"]) == NAMES
    assert report["protocol_differences"] == []
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "mrr" in page
    assert "<title>ChineseBLUE report</title>" in page


def test_published_figures_are_those_of_the_paper(shared: Path) -> None:
    from promptcblue_metric.compare.published import published

    figures = json.loads((shared / "published_results.json").read_text(encoding="utf-8"))["chineseblue_test"]
    for system in published(SUITES["chineseblue"]):
        for name, figure in figures[system.system].items():
            ours = system.scores[name.removesuffix(" (PAIR)")]
            expected = figure / (1 + figure) if name.endswith("(PAIR)") else figure / 100
            assert ours == pytest.approx(expected, abs=1e-9)


def test_the_evaluate_metric_scores_the_suite(files: tuple[Path, Path], run_python: Run, tmp_path: Path) -> None:
    code = """
import json, sys
import evaluate
rows = [json.loads(line) for line in open(sys.argv[2])]
targets = [row["target"] for row in rows]
out = {"all": evaluate.load(sys.argv[1]).compute(predictions=targets, references=rows)}
kept = [row for row in rows if row["task_dataset"] == "cMedIR"]
out["one"] = evaluate.load(sys.argv[1], "cMedIR").compute(predictions=[row["target"] for row in kept], references=kept)
print(json.dumps(out))
"""
    done = run_python(code, ROOT / "promptcblue_metric", files[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["all"]["overall"] == 1
    assert found["one"]["pair_accuracy"] == 1
