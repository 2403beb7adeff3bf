"""What every task and suite in the registry needs: nothing of it is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import promptcblue_dataset
from promptcblue_dataset.hub import sources_of
from promptcblue_dataset.prompts.pool import check_pool, load_pool
from promptcblue_metric import GROUPS, REGISTRY, SUITES, TASKS, PromptCBLUEError, Suite, Task, get_task
from promptcblue_metric.compare.published import paper_counts
from promptcblue_metric.evaluation import PARSERS, parse_answer
from promptcblue_metric.scoring import PROTOCOLS, LabelF1
from promptcblue_metric.tasks import PROMPTCBLUE, register, suite_of

_DATASET = Path(promptcblue_dataset.__file__).parent


@pytest.fixture(params=list(REGISTRY))
def task(request: pytest.FixtureRequest) -> Task:
    return REGISTRY[request.param]


def test_a_task_is_found_by_its_names_in_its_suite(task: Task) -> None:
    assert all(get_task(name) is task for name in (task.name, *task.aliases, task.name.upper()))
    # Editions that hold the tasks of an earlier one come after it.
    assert next(suite.name for suite in SUITES.values() if task.name in suite.tasks) == task.suite
    assert suite_of([task.name]).tasks[task.name] is task
    assert task.group in GROUPS
    assert len(task.sizes) == 3


def test_its_answers_are_read_and_scored(task: Task) -> None:
    for text in ("", "？", *task.labels[:1]):
        for parser in PARSERS:
            answer = parse_answer(task.format, text, task.labels, parser).answer
            for protocol in PROTOCOLS:
                for counts in (task.scorer.count(answer, answer), task.scorer.count(None, answer)):
                    assert task.scorer.score(counts, protocol)[task.scorer.primary] >= 0
                    assert task.scorer.summary(counts)
    if isinstance(task.scorer, LabelF1):
        assert task.scorer.labels == task.labels


def test_its_prompts_can_be_filled_and_its_source_is_cited(task: Task) -> None:
    pool = load_pool(tasks=[task.name])
    assert not check_pool(pool)
    assert len(pool[task.name].templates) > 1
    assert sources_of([task.name])
    assert paper_counts([task.name])[task.name] > 0


def test_the_report_has_its_words_in_both_languages(task: Task) -> None:
    from promptcblue_metric.report.tables import CHINESE

    assert task.group in CHINESE


@pytest.mark.parametrize("suite", list(SUITES.values()), ids=list(SUITES))
def test_a_suite_has_tasks_and_a_card(suite: Suite) -> None:
    assert suite.tasks
    assert any((_DATASET / "cards" / f"{name}.md").is_file() for name in (suite.name, "other"))
    assert all(REGISTRY[name] is task for name, task in suite.tasks.items())


def test_the_embedded_sample_has_every_task_of_the_paper() -> None:
    lines = (_DATASET / "sample" / "train.json").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["task_dataset"] for line in lines} == set(TASKS)


def test_no_name_enters_twice() -> None:
    again = TASKS["CHIP-STS"]
    with pytest.raises(PromptCBLUEError, match="chip-sts' names CHIP-STS already"):
        register(PROMPTCBLUE, again)
    with pytest.raises(PromptCBLUEError, match="suite 'promptcblue' already"):
        register(Suite("promptcblue", "Another"), again)
