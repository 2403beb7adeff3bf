"""The task registry."""

from __future__ import annotations

from collections import Counter

import pytest

from promptcblue_metric import GROUPS, TASKS, UnknownTaskError, get_task


def test_the_sixteen_tasks_of_the_paper() -> None:
    assert len(TASKS) == 16
    assert Counter(task.group for task in TASKS.values()) == dict(zip(GROUPS, (5, 3, 4, 2, 2), strict=True))
    assert sum(task.sizes[0] for task in TASKS.values()) == 3000 * 2 + 5000 * 12 + 6600 + 5500


@pytest.mark.parametrize(
    ("alias", "name"), [("CMeIE-V2", "CMeIE"), ("CHIP-STC", "CHIP-STS"), ("cmeee-v2", "CMeEE-V2"), ("MedDG", "MedDG")]
)
def test_aliases_are_accepted(alias: str, name: str) -> None:
    assert get_task(alias).name == name


def test_an_unknown_name_lists_the_known_ones_and_the_closest() -> None:
    with pytest.raises(UnknownTaskError) as error:
        get_task("CMeEE-V3")
    assert "did you mean 'CMeEE-V2'" in str(error.value)
    assert all(name in str(error.value) for name in TASKS)


def test_labels_of_the_criteria_task() -> None:
    # The paper's 44 categories and the answer for prompts that do not offer the true one.
    assert len(TASKS["CHIP-CTC"].labels) == 45


def test_an_empty_output_counts_as_the_first_label_of_the_task() -> None:
    predicted = {
        name: next(label for label in task.labels if task.scorer.score(task.scorer.count("", label))["f1"] == 1)
        for name, task in TASKS.items()
        if task.group in GROUPS[1:3]
    }
    assert predicted == {
        "CHIP-CTC": "非上述类型",
        "KUAKE-QIC": "非上述类型",
        "IMCS-V2-DAC": "非上述类型",
        "CHIP-STS": "是的",
        "KUAKE-IR": "相关",
        "KUAKE-QTR": "完全不匹配或者没有参考价值",
        "KUAKE-QQR": "完全一致",
    }
