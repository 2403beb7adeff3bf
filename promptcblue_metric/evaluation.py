"""Scoring a benchmark run: predictions and reference rows in, scores of tasks, groups and the whole out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypedDict

from .errors import PromptCBLUEError
from .scoring import Counts
from .tasks import GROUPS, TASKS, get_task
from .version import VERSION

PROTOCOL, PARSER = "official", "strict"


class TaskResult(TypedDict):
    """Scores of one task in 0..1; ``scores`` holds precision, recall and f1, or rouge1, rouge2 and rougeL."""

    metric: str
    score: float
    scores: dict[str, float]
    samples: int
    well_formed: float
    counts: dict[str, float]


class Result(TypedDict):
    """Scores of a run. ``groups`` and ``overall`` are plain means over the tasks that are present."""

    overall: float
    groups: dict[str, float]
    tasks: dict[str, TaskResult]
    samples: int
    well_formed: float
    missing_tasks: list[str]
    signature: str


class _Totals:
    """What is kept of a task's samples."""

    def __init__(self) -> None:
        self.counts: dict[Hashable, float] = {}
        self.samples = 0
        self.well_formed = 0

    def add(self, counts: Counts) -> None:
        for key, value in counts.items():
            self.counts[key] = self.counts.get(key, 0) + value


class Evaluation:
    """Scores predictions one by one, keeping sums only, so a run of any length takes constant memory.

    Args:
        task: score this task alone and refuse rows of others; by default every task.
    """

    def __init__(self, task: str | None = None) -> None:
        self._only = get_task(task) if task else None
        self._totals: dict[str, _Totals] = {}

    def add(self, prediction: str | None, reference: Mapping[str, Any]) -> None:
        """Score one output against its dataset row (its target, task_dataset and answer_choices).

        A prediction of None was never made: it counts as wrong, and not as the label that the official
        scorer takes an empty output for.

        Raises:
            PromptCBLUEError: the row is of another task or has no target.
        """
        task = get_task(reference["task_dataset"])
        sample = f"sample '{reference.get('sample_id')}' of {task.name}"
        if self._only and task is not self._only:
            raise PromptCBLUEError(f"{sample}: this metric was loaded for {self._only.name} alone")
        target = reference["target"]
        if not target:
            raise PromptCBLUEError(
                f"{sample} has no target to score against (official test targets are not public); "
                "score on the validation split or hand the predictions in to the leaderboard"
            )
        choices = task.choices(reference.get("answer_choices"))
        gold = task.format.parse(target, choices).answer
        totals = self._totals.setdefault(task.name, _Totals())
        totals.samples += 1
        if prediction is None:
            totals.add(task.scorer.count_missing(gold))
        else:
            parsed = task.format.parse(prediction, choices)
            totals.add(task.scorer.count(parsed.answer, gold))
            totals.well_formed += parsed.well_formed

    def result(self) -> Result:
        """The scores of everything added so far.

        Raises:
            PromptCBLUEError: nothing was added.
        """
        if not self._totals:
            raise PromptCBLUEError("there is nothing to score: no predictions were given")
        tasks = {name: self._task_result(name) for name in TASKS if name in self._totals}
        groups = {
            group: _mean([tasks[name]["score"] for name in tasks if TASKS[name].group == group])
            for group in GROUPS
            if any(TASKS[name].group == group for name in tasks)
        }
        samples = sum(totals.samples for totals in self._totals.values())
        return {
            "overall": _mean([task["score"] for task in tasks.values()]),
            "groups": groups,
            "tasks": tasks,
            "samples": samples,
            "well_formed": sum(totals.well_formed for totals in self._totals.values()) / samples,
            "missing_tasks": [name for name in TASKS if name not in tasks],
            "signature": signature(list(tasks), samples),
        }

    def _task_result(self, name: str) -> TaskResult:
        task, totals = TASKS[name], self._totals[name]
        scores = task.scorer.score(totals.counts)
        return {
            "metric": task.metric,
            "score": scores[task.scorer.primary],
            "scores": scores,
            "samples": totals.samples,
            "well_formed": totals.well_formed / totals.samples,
            "counts": task.scorer.summary(totals.counts),
        }


def signature(tasks: Sequence[str], samples: int) -> str:
    """What has to be the same for two scores to be comparable, in one line."""
    scored = "all" if len(tasks) == len(TASKS) else "+".join(tasks)
    return f"promptcblue|tasks:{scored}|samples:{samples}|protocol:{PROTOCOL}|parser:{PARSER}|version:{VERSION}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
