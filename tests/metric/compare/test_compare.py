"""Intervals and paired tests."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from promptcblue_metric import TASKS, Evaluation
from promptcblue_metric.cli.main import app
from promptcblue_metric.compare.significance import compare, holm, intervals
from promptcblue_metric.scoring import Counts, Protocol, sum_counts

from ...conftest import SampleRows


def label_counts(task: str, correct: Sequence[bool]) -> list[Counts]:
    scorer, labels = TASKS[task].scorer, TASKS[task].labels
    return [scorer.count(labels[0] if right else labels[1], labels[0]) for right in correct]


def test_an_interval_of_a_share_is_the_binomial_one() -> None:
    # Recall of one gold label is a plain share, whose interval is known; F1 of it is a smooth function of the share.
    correct = [True] * 320 + [False] * 80
    low, high = intervals({"KUAKE-IR": label_counts("KUAKE-IR", correct)})["overall"]
    share, spread = 0.8, 1.96 * (0.8 * 0.2 / 400) ** 0.5
    expected = [2 * s / (1 + s) for s in (share - spread, share + spread)]
    assert [low, high] == pytest.approx(expected, abs=0.004)


def test_intervals_hold_their_score_even_with_many_invalid_labels() -> None:
    task = TASKS["CHIP-CTC"]
    rng = random.Random(1)
    counts = []
    for number in range(300):
        gold = rng.choice(task.labels)
        # Every garbled output is a class of its own for the official scorer, and most resamples lose a third of them.
        counts.append(task.scorer.count(gold if rng.random() < 0.7 else f"乱{number}", gold))
    score = task.scorer.score(sum_counts(counts))["f1"]
    low, high = intervals({"CHIP-CTC": counts})["CHIP-CTC"]
    assert low < score < high
    assert 0.01 < high - low < 0.2


def test_a_task_has_the_same_interval_whatever_stands_beside_it() -> None:
    counts = label_counts("KUAKE-IR", [True, False] * 40)
    alone = intervals({"KUAKE-IR": counts})
    beside = intervals({"CHIP-STS": label_counts("CHIP-STS", [True] * 9), "KUAKE-IR": counts})
    assert alone["KUAKE-IR"] == beside["KUAKE-IR"]
    assert beside["natural language inference"] == beside["overall"]


@pytest.mark.parametrize(("right", "low", "high"), [(12, 0.7575, 1.0), (0, 0.0, 0.2425), (1, 0.0, 1.0)])
def test_all_right_and_all_wrong_are_no_certainty(right: int, low: float, high: float) -> None:
    # Wilson's interval of 12 of 12 and of 0 of 12; a single sample says next to nothing.
    counts = label_counts("KUAKE-IR", [True] * right if right else [False] * 12)
    between = intervals({"KUAKE-IR": counts})["KUAKE-IR"]
    if right == 1:
        low, high = 1 - 3.8415 / 4.8415, 1.0
    assert between == pytest.approx((low, high), abs=1e-3)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.lists(st.booleans(), min_size=1, max_size=60))
def test_intervals_hold_their_estimate_and_stay_in_range(first: list[bool], second: list[bool]) -> None:
    size = min(len(first), len(second))
    runs = [{"KUAKE-IR": label_counts("KUAKE-IR", run[:size])} for run in (first, second)]
    for run in runs:
        score = TASKS["KUAKE-IR"].scorer.score(sum_counts(run["KUAKE-IR"]))["f1"]
        for low, high in intervals(run).values():
            assert 0 <= low <= score + 1e-12
            assert score - 1e-12 <= high <= 1
            assert high - low > 0.01
    for found in compare(runs[0], runs[1], resamples=10).values():
        assert -1 <= found.low <= found.difference <= found.high <= 1
        assert found.high > found.low


def near_one(rows: Sequence[dict[str, Any]], times: int, emptied: int) -> dict[str, list[Counts]]:
    """Counts of gold answers, so many times, of which the first ``emptied`` of CHIP-CDEE are empty."""
    evaluation, counts = Evaluation(), dict[str, list[Counts]]()
    for number in range(times):
        for row in rows:
            empty = row["task_dataset"] == "CHIP-CDEE" and emptied > 0
            emptied -= empty
            scored = evaluation.add(
                "" if empty else row["target"], {**row, "sample_id": f"{row['sample_id']}-{number}"}
            )
            counts.setdefault(scored.task.name, []).append(scored.counts)
    return counts


@pytest.mark.parametrize(("times", "emptied"), [(1, 1), (25, 5), (25, 0), (100, 20)])
def test_a_mean_near_one_is_no_less_sure_than_its_parts(sample_rows: SampleRows, times: int, emptied: int) -> None:
    counts = near_one(sample_rows("test"), times, emptied)
    between = intervals(counts)
    for name in ("overall", *{TASKS[task].group for task in counts}):
        parts = [task for task in counts if name in ("overall", TASKS[task].group)]
        scorers = {task: TASKS[task].scorer for task in parts}
        score = sum(float(scorers[task].score(sum_counts(counts[task]))[scorers[task].primary]) for task in parts)
        score /= len(parts)
        low, high = between[name]
        assert np.mean([between[task].low for task in parts]) - 1e-12 <= low <= score + 1e-12
        assert score - 1e-12 <= high <= np.mean([between[task].high for task in parts]) + 1e-12
        # Errors of independent tasks do not all fall on one side.
        assert len(parts) == 1 or high - low < np.mean([between[task].high - between[task].low for task in parts])
    if emptied:
        assert between["information extraction"].low < between["information extraction"].high < 1


@pytest.mark.parametrize("times", [1, 25])
def test_a_difference_of_means_near_one_is_no_less_sure_than_its_parts(sample_rows: SampleRows, times: int) -> None:
    rows = sample_rows("test")
    found = compare(near_one(rows, times, times), near_one(rows, times, 0), resamples=10)
    overall = found.pop("overall")
    assert np.mean([part.low for part in found.values()]) < overall.low <= overall.difference
    assert overall.difference <= overall.high < np.mean([part.high for part in found.values()])


def test_intervals_cover_the_expected_score_as_often_as_they_say() -> None:
    # 150 test sets of each kind; fewer than 134 or all of them held would be most unlikely at 95% (p < 0.002).
    cases: list[tuple[float, Protocol]] = [(0.0, "official"), (0.05, "official"), (0.05, "paper")]
    for garbled, protocol in cases:
        rng = np.random.default_rng(7)
        task = TASKS["KUAKE-QIC"]
        scores, between = [], []
        for _ in range(150):
            gold, right, broken = rng.integers(11, size=200), rng.random(200) < 0.9, rng.random(200) < garbled
            counts = [
                task.scorer.count(f"乱{n}" if b else task.labels[g if r else (g + 1) % 11], task.labels[g])
                for n, (g, r, b) in enumerate(zip(gold, right, broken, strict=True))
            ]
            scores.append(float(task.scorer.score(sum_counts(counts), protocol)["f1"]))
            between.append(intervals({"KUAKE-QIC": counts}, protocol)["KUAKE-QIC"])
        held = sum(low <= np.mean(scores) <= high for low, high in between)
        assert 134 <= held < 150


def test_means_near_one_cover_their_expected_score() -> None:
    # 150 test sets of three tasks that are right in 99% of 60 samples; fewer than 134 would be most unlikely at 95%.
    rng, tasks = np.random.default_rng(3), ("CHIP-STS", "KUAKE-IR", "KUAKE-QTR")
    scores, between = [], []
    for _ in range(150):
        counts = {task: label_counts(task, list(rng.random(60) < 0.99)) for task in tasks}
        scores.append(
            np.mean(
                [
                    TASKS[task].scorer.score(sum_counts(counts[task]), "paper")[TASKS[task].scorer.primary]
                    for task in tasks
                ]
            )
        )
        between.append(intervals(counts, "paper")["overall"])
    held = sum(low <= np.mean(scores) <= high for low, high in between)
    assert held >= 134


def test_the_width_is_that_of_efron_and_steins_bounds() -> None:
    task = TASKS["KUAKE-QIC"]
    labels = task.labels
    pairs = [(0, 0)] * 9 + [(1, 1)] * 4 + [(1, 0), (0, 1), (2, 2), (2, 2), (3, 3), (4, 0), (5, 5), (0, 6)]
    counts = [task.scorer.count(labels[answer], labels[gold]) for gold, answer in pairs]
    n = len(counts)

    def score(*left_out: int) -> float:
        return float(
            task.scorer.score(sum_counts([c for place, c in enumerate(counts) if place not in left_out]))["f1"]
        )

    whole, each = score(), [score(place) for place in range(n)]
    first = (n - 1) ** 2 / n * np.var(each, ddof=1)
    effects = [
        n * whole - (n - 1) * (each[i] + each[j]) + (n - 2) * score(i, j)
        for i, j in itertools.combinations(range(n), 2)
    ]
    second = np.var(effects) * len(effects) / (n * (n - 1))
    low = max(first - second, first**2 / (first + 2 * second))
    assert 0 < low < 0.9 * first
    half = 2.0860 * np.sqrt((low + first) / 2) / (whole * (1 - whole))  # Student's t with 20 degrees of freedom
    middle = np.log(whole / (1 - whole))
    expected = [1 / (1 + np.exp(-(middle + step))) for step in (-half, half)]
    assert n == 21
    assert intervals({"KUAKE-QIC": counts})["KUAKE-QIC"] == pytest.approx(expected, abs=1e-4)


def test_compare_finds_a_real_difference_and_no_other() -> None:
    rng = random.Random(0)
    weak = [rng.random() < 0.6 for _ in range(400)]
    strong = [right or rng.random() < 0.4 for right in weak]
    other = [rng.random() < 0.6 for _ in range(400)]
    first = {task: label_counts(task, weak) for task in ("CHIP-STS", "KUAKE-IR")}
    second = {"CHIP-STS": label_counts("CHIP-STS", strong), "KUAKE-IR": label_counts("KUAKE-IR", other)}
    differences = compare(first, second)
    assert differences["CHIP-STS"].adjusted_p < 0.01
    assert differences["CHIP-STS"].low > 0
    assert differences["KUAKE-IR"].adjusted_p > 0.05
    assert differences["KUAKE-IR"].low < 0 < differences["KUAKE-IR"].high
    mean = np.mean([differences[task].difference for task in first])
    assert differences["overall"].difference == pytest.approx(mean)
    assert compare(first, first)["overall"].randomization_p == 1.0


def test_randomisation_is_exact_on_a_case_that_can_be_counted() -> None:
    # Five samples, all gained: of the 32 exchanges only the two one-sided ones make as large a difference.
    first, second = (label_counts("KUAKE-IR", [right] * 5) for right in (False, True))
    p = compare({"KUAKE-IR": first}, {"KUAKE-IR": second}, resamples=20_000)["KUAKE-IR"].randomization_p
    assert p == pytest.approx(2 / 32, abs=0.006)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=16))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    for name, p in p_values.items():
        assert p <= adjusted[name] <= 1
        assert all(adjusted[name] <= adjusted[other] for other in p_values if p < p_values[other])
    if p_values:
        smallest = min(p_values.values())
        assert min(adjusted.values()) == min(1.0, smallest * len(p_values))


def predictions(path: Path, rows: Sequence[dict[str, Any]], wrong: float, seed: int) -> Path:
    rng = random.Random(seed)
    lines = [
        {"sample_id": row["sample_id"], "prediction": "？" if rng.random() < wrong else row["target"]} for row in rows
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def rows(sample_rows: SampleRows) -> list[dict[str, Any]]:
    return sample_rows("train")


@pytest.fixture
def references(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "references.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_compare_says_in_words_what_is_established(
    tmp_path: Path, references: Path, rows: list[dict[str, Any]]
) -> None:
    base = predictions(tmp_path / "base.jsonl", rows, 0.6, 0)
    tuned = predictions(tmp_path / "tuned.jsonl", rows, 0.1, 1)
    again = predictions(tmp_path / "again.jsonl", rows, 0.6, 0)
    output = tmp_path / "comparison.json"
    said = invoke("compare", base, tuned, again, "--references", references, "--json", output)
    assert "Overall, " in said
    assert said.count("Conclusions rest on the randomisation test") == 1
    written = json.loads(output.read_text())
    better, same = written["comparisons"]
    assert better["differences"]["overall"]["low"] > 0
    assert "better" in better["conclusion"]
    assert same["differences"]["overall"]["difference"] == 0
    assert "no difference" in same["conclusion"].lower()


def test_runs_with_other_samples_are_refused_unless_told(
    tmp_path: Path, references: Path, rows: list[dict[str, Any]]
) -> None:
    base = predictions(tmp_path / "base.jsonl", rows[2:], 0.5, 0)
    tuned = predictions(tmp_path / "tuned.jsonl", rows[:-1], 0.5, 1)
    arguments = ["compare", str(base), str(tuned), "--references", str(references)]
    with pytest.raises(ValueError, match="--common-only") as error:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    for row in (rows[0], rows[1], rows[-1]):
        assert row["sample_id"] in str(error.value)
    assert f"{len(rows) - 3} of {len(rows)}" in invoke(*arguments, "--common-only")


def test_a_run_beside_the_published_results(tmp_path: Path, references: Path, rows: list[dict[str, Any]]) -> None:
    run = predictions(tmp_path / "run.jsonl", rows, 0.5, 0)
    said = invoke("compare", run, "--published", "--references", references)
    assert "randomisation test" not in said
    for system in ("GPT-4", "AdaLoRA", "Baichuan-13B", "ChatGLM-6B + LoRA"):
        assert system in said
    # The misprint in Table 1: the printed overall score is not the mean of its rows.
    assert "0.436" in said
    assert "0.3625" in said
    # The sample is not the official test set: the runs come first, whatever their scores.
    assert said.count("runs on other samples than the official test") == 3
    below = said.split("overall (runs on other samples")[1]
    assert below.count("No ranking: the published scores are of the official test set") == 1
    assert "the runs' scores are not comparable with them." in below
    overall = said.split("overall (runs on other samples")[1]
    assert overall.index("run") < overall.index("GPT-4")


def test_score_prints_intervals(tmp_path: Path, references: Path, rows: list[dict[str, Any]]) -> None:
    run = predictions(tmp_path / "run.jsonl", rows, 0.3, 0)
    output = tmp_path / "scores.json"
    invoke("score", run, "--references", references, "--resamples", 200, "--json", output)
    scores = json.loads(output.read_text())
    low, high = scores["intervals"]["overall"]
    assert low < scores["overall"] < high


def test_both_protocols_come_from_one_pass(rows: list[dict[str, Any]]) -> None:
    evaluation = Evaluation()
    for number, row in enumerate(rows):
        evaluation.add(f"？{number}" if number % 3 == 0 else row["target"], row)
    official, paper = evaluation.result("official"), evaluation.result("paper")
    for name, task in official["tasks"].items():
        changed = paper["tasks"][name]["score"] != pytest.approx(task["score"], abs=1e-9)
        invalid = task["counts"].get("invalid", 0)
        # Here every output is right or no label at all, so only invalid labels can make a difference.
        assert not changed or invalid
        if name == "CHIP-CTC":
            assert paper["tasks"][name]["score"] > task["score"]
    assert "protocol:paper" in paper["signature"]
