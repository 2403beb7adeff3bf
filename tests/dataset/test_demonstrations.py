from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from promptcblue_dataset import load_samples
from promptcblue_dataset.draws import draw, shown_labels
from promptcblue_metric.compare.published import DEMONSTRATIONS, OTHER_TASKS, paper_counts
from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError, UnknownTaskError
from promptcblue_metric.tasks import TASKS


@pytest.fixture(scope="module")
def train() -> list[Sample]:
    return load_samples("sample", "train")


def label_samples(task: str, each: int) -> list[Sample]:
    """Samples of a label task: many of its first label, ``each`` of every other."""
    labels = TASKS[task].labels
    rows: list[Sample] = []
    for place, label in enumerate(labels):
        for number in range(each if place else 20 * each):
            rows.append(
                {
                    "input": f"句子{place}-{number}",
                    "target": label,
                    "answer_choices": list(labels),
                    "sample_id": f"train-{len(rows)}",
                    "task_type": "cls",
                    "task_dataset": task,
                }
            )
    return rows


def test_the_paper_s_counts_are_table_1() -> None:
    counts = paper_counts(DEMONSTRATIONS)
    assert sum(counts.values()) == 122
    assert paper_counts(["CHIP-STC", "cmeie-v2"]) == {"CHIP-STS": 10, "CMeIE": 12}
    others = [name for name in TASKS if name not in DEMONSTRATIONS]
    assert set(paper_counts(others).values()) <= {OTHER_TASKS}
    with pytest.raises(UnknownTaskError):
        paper_counts(["NoSuchTask"])


def test_a_draw_has_the_counts_and_no_sample_twice(train: list[Sample]) -> None:
    counts = {name: min(count, 5) for name, count in paper_counts(DEMONSTRATIONS).items()}
    drawn = draw(train, counts)
    assert Counter(sample["task_dataset"] for sample in drawn) == Counter(counts)
    assert list(dict.fromkeys(sample["task_dataset"] for sample in drawn)) == list(counts)
    assert len({(sample["task_dataset"], sample["sample_id"]) for sample in drawn}) == len(drawn)
    assert all(sample in train for sample in drawn)


def test_a_draw_depends_on_the_seed_and_not_on_the_order_or_the_other_tasks(train: list[Sample]) -> None:
    counts = dict.fromkeys(["CMeEE-V2", "CHIP-CTC", "MedDG"], 3)
    drawn = draw(train, counts)
    assert draw(train[::-1], counts) == drawn
    assert draw(train, {"CHIP-CTC": 3}) == [sample for sample in drawn if sample["task_dataset"] == "CHIP-CTC"]
    assert any(draw(train, counts, seed) != drawn for seed in range(1, 4))


@pytest.mark.parametrize("seed", range(5))
def test_ten_of_chip_ctc_have_ten_labels(seed: int) -> None:
    drawn = draw(label_samples("CHIP-CTC", 2), {"CHIP-CTC": 10}, seed)
    assert len({sample["target"] for sample in drawn}) == 10


@pytest.mark.parametrize(("task", "count"), [("CHIP-STS", 10), ("KUAKE-QTR", 10), ("KUAKE-QIC", 11)])
def test_labels_are_shown_evenly(task: str, count: int) -> None:
    shown = Counter(sample["target"] for sample in draw(label_samples(task, 5), {task: count}))
    assert set(shown) == set(TASKS[task].labels[:count])
    assert max(shown.values()) - min(shown.values()) <= 1


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.labels and name in DEMONSTRATIONS])
def test_as_many_labels_are_shown_as_the_train_split_has(train: list[Sample], task: str) -> None:
    own = [sample for sample in train if sample["task_dataset"] == task]
    every = frozenset[str]().union(*map(shown_labels, own))
    count = min(len(own), max(len(every), 5))
    assert frozenset[str]().union(*map(shown_labels, draw(own, {task: count}))) == every


def test_official_samples_give_the_paper_s_122(shared: Path) -> None:
    samples = load_samples(shared / "parity" / "gold.jsonl", "train")
    assert len(draw(samples, paper_counts(DEMONSTRATIONS))) == 122


def test_too_few_samples_are_one_error_with_every_task(train: list[Sample]) -> None:
    own = [sample for sample in train if sample["task_dataset"] in ("MedDG", "CHIP-STS")]
    hidden: list[Sample] = [{**sample, "target": ""} for sample in own if sample["task_dataset"] == "MedDG"]
    with pytest.raises(PromptCBLUEError, match=r"CHIP-STS has \d+ of 50, MedDG has 0 of 2 \(\d+ more have no target\)"):
        draw([*hidden, *(s for s in own if s["task_dataset"] != "MedDG")], {"CHIP-STS": 50, "MedDG": 2})
