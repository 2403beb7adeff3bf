"""The embedded sample: what a newcomer sees first."""

from __future__ import annotations

from collections import Counter

import pytest

from promptcblue_dataset import load_samples
from promptcblue_metric import GROUPS, TASKS
from promptcblue_metric.tasks import NONE_OF_THESE


@pytest.mark.parametrize(("split", "least"), [("train", 12), ("validation", 4), ("test", 4)])
def test_every_task_has_samples_and_its_odd_cases(split: str, least: int) -> None:
    samples = load_samples("sample", split)
    counts = Counter(sample["task_dataset"] for sample in samples)
    assert min(counts[task] for task in TASKS) >= least
    targets = {task: [s["target"] for s in samples if s["task_dataset"] == task] for task in TASKS}
    for name, task in TASKS.items():
        if task.group == GROUPS[1]:
            assert NONE_OF_THESE in targets[name]
    for name in ("CMeEE-V2", "IMCS-V2-NER", "CHIP-CDN"):
        assert TASKS[name].format.render([]) in targets[name]
    assert any("关系的头尾实体对如下：\n" in target + "\n" for target in targets["CMeIE"])
    assert {"否定", "不确定"} <= {
        part for target in targets["CHIP-CDEE"] for part in target.replace("：", "；").split("；")
    }


def test_no_prompt_comes_twice() -> None:
    prompts = Counter(s["input"] for split in ("train", "validation", "test") for s in load_samples("sample", split))
    assert max(prompts.values()) == 1
