"""Scoring a benchmark run: predictions and reference rows in, scores of tasks, groups and the whole out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict, cast, get_args

from .answers import Answer, AnswerFormat, Parsed
from .errors import PromptCBLUEError
from .scoring import PROTOCOLS, Counts, Protocol, Row, add_counts
from .tasks import REGISTRY, Sample, Task, get_task, suite_of
from .version import VERSION

#: ``strict``: what the official post-processor reads. ``lenient``: what a reader of the output would understand.
Parser = Literal["strict", "lenient"]
PARSERS: tuple[Parser, ...] = get_args(Parser)


def parse_answer(
    answer_format: AnswerFormat, text: str, choices: Sequence[str], parser: Parser, prompt: str = ""
) -> Parsed:
    """Read an output with the parser called ``parser``; never raises. The lenient one looks into the ``prompt`` too."""
    if parser == "lenient":
        from .lenient import parse_lenient  # its expressions take a tenth of a second to compile

        return parse_lenient(answer_format, text, choices, prompt)
    return answer_format.parse(text, choices)


class ScoredSample(NamedTuple):
    """One sample, read and counted.

    Attributes:
        task: the sample's task.
        reference: its row of the dataset.
        prediction: the model's output, or None where there is none.
        parsed: what was read of it; None where there is none.
        gold: the structured answer of the target.
        counts: the sample's counts.
    """

    task: Task
    reference: Sample
    prediction: str | None
    parsed: Parsed | None
    gold: Answer
    counts: Counts


class TaskResult(TypedDict):
    """Scores of one task.

    ``scores`` holds precision, recall and f1, or rouge1, rouge2 and rougeL, or those of a ranking, and what there is
    besides; all are in 0..1 but a ranking's ``pair`` and ``mse``.
    """

    metric: str
    score: float
    scores: dict[str, float]
    samples: int
    well_formed: float
    counts: dict[str, float]


class Result(TypedDict):
    """Scores of a run. ``groups`` and ``overall`` are plain means over the tasks that are present, all of one suite.

    ``references`` is a fingerprint of what was scored against: ids, targets and choices, in any order.
    """

    suite: str
    protocol: Protocol
    parser: Parser
    version: str
    references: str
    overall: float
    groups: dict[str, float]
    tasks: dict[str, TaskResult]
    samples: int
    well_formed: float
    missing_tasks: list[str]
    signature: str


@dataclass
class _Totals:
    """What is kept of a task's samples."""

    counts: dict[Hashable, float] = field(default_factory=dict)
    samples: int = 0
    well_formed: int = 0


class Evaluation:
    """Scores predictions one by one, keeping sums only, so a run of any length takes constant memory (but for the tasks
    of ChineseBLUE that rank documents, of which each one's grades are kept).

    The sums serve both protocols: they are read at the end, by `result`.

    Args:
        task: score this task alone and refuse rows of others; by default every task.
        parser: how predictions are read; targets are always read as the official post-processor does.

    Raises:
        PromptCBLUEError: there is no such task or parser.
    """

    def __init__(self, task: str | None = None, parser: Parser = "strict") -> None:
        self._only = get_task(task) if task else None
        _check(parser, PARSERS, "parser")
        self._parser = parser
        self._totals: dict[str, _Totals] = {}
        self._references = 0

    def add(self, prediction: str | None, reference: Row) -> ScoredSample:
        """Score one output against its dataset row (its input, target, task_dataset and
        answer_choices).

        A prediction of None was never made: it counts as wrong, and not as the label that the official
        scorer takes an empty output for.

        Raises:
            PromptCBLUEError: the row is of another task, or of another suite than the ones before it, or has no target.
        """
        task = get_task(str(reference["task_dataset"]))
        name = f"sample '{reference.get('sample_id')}' of {task.name}"
        if self._only and task is not self._only:
            raise PromptCBLUEError(f"{name}: this metric was loaded for {self._only.name} alone")
        row = cast("Sample", reference)
        choices = task.choices(row.get("answer_choices"))
        if task.format.needs_choices and not choices:
            raise PromptCBLUEError(f"{name} needs the answer_choices that its prompt offers, and has none")
        if not row["target"]:
            raise PromptCBLUEError(
                f"{name} has no target to score against (official test targets are not public); "
                "score on the validation split or hand the predictions in to the leaderboard"
            )
        gold = task.format.parse(row["target"], choices).answer
        parsed: Parsed | None = None
        if prediction is not None:
            parsed = parse_answer(task.format, prediction, choices, self._parser, row.get("input") or "")
        counts = task.scorer.count(parsed and parsed.answer, gold, reference)
        sample = ScoredSample(task, row, prediction, parsed, gold, counts)
        self.add_scored(sample)
        return sample

    def add_scored(self, sample: ScoredSample) -> None:
        """Add a sample that an evaluation with the same parser has scored before."""
        if sample.task.name not in self._totals:
            suite_of([*self._totals, sample.task.name])
            self._totals[sample.task.name] = _Totals()
        totals = self._totals[sample.task.name]
        add_counts(totals.counts, sample.counts)
        totals.samples += 1
        totals.well_formed += sample.parsed is not None and sample.parsed.well_formed
        self._references += _fingerprint(sample)

    @property
    def samples(self) -> int:
        """How many samples were added."""
        return sum(totals.samples for totals in self._totals.values())

    def result(self, protocol: Protocol = "official") -> Result:
        """The scores of everything added so far.

        Raises:
            PromptCBLUEError: nothing was added, or there is no such protocol.
        """
        _check(protocol, PROTOCOLS, "protocol")
        if not self._totals:
            raise PromptCBLUEError("there is nothing to score: no predictions were given")
        suite = suite_of(self._totals)
        tasks = {name: self._task_result(name, protocol) for name in suite.tasks if name in self._totals}
        groups = {
            group: _mean([tasks[name]["score"] for name in tasks if suite.tasks[name].group == group])
            for group in suite.groups
            if any(suite.tasks[name].group == group for name in tasks)
        }
        samples, references = self.samples, f"{self._references % (1 << 64):016x}"[:8]
        return {
            "suite": suite.name,
            "protocol": protocol,
            "parser": self._parser,
            "version": VERSION,
            "references": references,
            "overall": _mean([task["score"] for task in tasks.values()]),
            "groups": groups,
            "tasks": tasks,
            "samples": samples,
            "well_formed": sum(totals.well_formed for totals in self._totals.values()) / samples,
            "missing_tasks": [name for name in suite.tasks if name not in tasks],
            "signature": "promptcblue|"
            + (f"suite:{suite.name}|" if suite.name != "promptcblue" else "")
            + f"tasks:{'all' if len(tasks) == len(suite.tasks) else '+'.join(tasks)}|samples:{samples}"
            + f"|refs:{references}|protocol:{protocol}|parser:{self._parser}|version:{VERSION}",
        }

    def _task_result(self, name: str, protocol: Protocol) -> TaskResult:
        task, totals = REGISTRY[name], self._totals[name]
        scores = {name: float(value) for name, value in task.scorer.score(totals.counts, protocol).items()}
        return {
            "metric": task.scorer.metric,
            "score": scores[task.scorer.primary],
            "scores": scores,
            "samples": totals.samples,
            "well_formed": totals.well_formed / totals.samples,
            "counts": task.scorer.summary(totals.counts),
        }


def _fingerprint(sample: ScoredSample) -> int:
    """A number for a sample as scored against; the sum over samples is the same in any order."""
    row = sample.reference
    fields = [sample.task.name, row.get("sample_id"), row["target"], row.get("answer_choices") or None]
    return int.from_bytes(hashlib.blake2b(json.dumps(fields).encode(), digest_size=8).digest(), "big")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise PromptCBLUEError(f"unknown {what} '{value}'; expected one of {', '.join(known)}")
