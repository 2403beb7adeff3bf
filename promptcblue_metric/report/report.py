"""The report of a run: everything that is known of it as plain JSON values.

`build_report` makes the values; `page.write_report` writes them as ``report.json``, as Markdown and as a HTML page. All
texts in them are excerpts with visible characters only (`text`), so none is long and any may be shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from ..compare.significance import counts_by_task
from ..data.predictions import Provenance, made_with
from ..errors import PromptCBLUEError
from ..evaluation import Evaluation, Parser, Result, ScoredSample, TaskResult
from ..scoring import PROTOCOLS, Protocol
from ..tasks import suite_of
from .analysis import (
    Analysis,
    Listed,
    analyse,
    intervals_of,
    protocol_differences,
    rightness,
    short,
    shown,
)

#: The files of a report.
FILES = ("index.html", "report.md", "report.json")

#: How two runs stand to each other on a sample, and the kinds that are no difference.
KINDS = (
    "both runs are right",
    "only the first run is right",
    "only the second run is right",
    "the first run is better",
    "the second run is better",
    "neither run is better",
)
_ALIKE = KINDS[0], KINDS[-1]
#: Samples of a task and kind on which two runs differ.
_OF_A_KIND = 6


class TaskReport(TaskResult, Analysis):
    """A task's scores and their error analysis."""


class ProtocolScores(TypedDict):
    """The scores under one protocol."""

    signature: str
    overall: float
    groups: dict[str, float]
    tasks: dict[str, float]


class Other(TypedDict):
    """A second run beside that of the report: both names, its scores, and the ids of samples by task and `KINDS`.

    ``samples`` are some on which they differ, each with its score and its output in both.
    """

    runs: list[str]
    scores: ProtocolScores
    tasks: dict[str, dict[str, list[str]]]
    samples: list[Listed]


class Report(Result):
    """A report: the scores as ``promptcblue-metric score --json`` writes them, and what explains them.

    ``references`` and ``predictions`` say where these come from; ``fingerprint`` is what the scores call references.
    """

    title: str
    predictions: str
    split: str | None
    fingerprint: str
    made_with: str
    resamples: int
    missing_predictions: int
    tasks: dict[str, TaskReport]  # type: ignore[misc]
    intervals: dict[str, list[float]]
    garbled: list[Listed]
    protocols: dict[str, ProtocolScores]
    protocol_differences: list[Listed]
    other: Other | None


def evaluated(scored: Iterable[ScoredSample], parser: Parser) -> Evaluation:
    """The evaluation of samples that one with the same parser has scored before."""
    evaluation = Evaluation(parser=parser)
    for sample in scored:
        evaluation.add_scored(sample)
    return evaluation


def build_report(
    scored: Sequence[ScoredSample],
    protocol: Protocol = "official",
    parser: Parser = "strict",
    *,
    resamples: int = 1000,
    origin: Provenance | None = None,
    progress: Callable[[str], object] = lambda step: None,
) -> Report:
    """Scores, intervals and error analysis of a run, as JSON values.

    Args:
        scored: its samples, those without a prediction too.
        protocol: of the scores that are shown; those of the other protocol are set beside them.
        parser: the parser that read the samples.
        resamples: 0 leaves the intervals out.
        origin: where predictions and references come from.
        progress: told each step as it begins.

    Raises:
        PromptCBLUEError: there are no samples.
    """
    evaluation = evaluated(scored, parser)
    results = {name: evaluation.result(name) for name in PROTOCOLS}
    scores, counts = results[protocol], counts_by_task(scored)
    progress("intervals")
    between, without = intervals_of(counts, protocol) if resamples else ({}, [])
    analyses = analyse(scored, protocol, progress)
    return {
        **scores,
        "title": suite_of(scores["tasks"]).title,
        "predictions": short(origin["predictions"]) if origin else "",
        "references": short(origin["source"] + (f" ({origin['split']})" if origin["split"] else "")) if origin else "",
        "split": origin["split"] if origin else None,
        "fingerprint": scores["references"],
        "made_with": short(made_with(origin)) if origin else "",
        "resamples": resamples,
        "missing_predictions": sum(sample.prediction is None for sample in scored),
        "tasks": {name: {**scores["tasks"][name], **analysis} for name, analysis in analyses.items()},
        "intervals": between,
        "garbled": without,
        "protocols": {name: _scores(result) for name, result in results.items()},
        "protocol_differences": protocol_differences(results["official"], results["paper"], counts),
        "other": None,
    }


def beside(
    names: Sequence[str],
    first: Sequence[ScoredSample],
    second: Sequence[ScoredSample],
    protocol: Protocol = "official",
    parser: Parser = "strict",
) -> Other:
    """A second run beside a first one, over the same samples in the same order.

    Raises:
        PromptCBLUEError: there are no samples.
    """
    tasks, differing = dict[str, dict[str, list[str]]](), list[Listed]()
    for ours, theirs in zip(first, second, strict=True):
        scores = [rightness(sample, protocol) for sample in (ours, theirs)]
        sample_id, kind = short(str(ours.reference["sample_id"])), _kind(*scores)
        tasks.setdefault(ours.task.name, {kind: [] for kind in KINDS})[kind].append(sample_id)
        if kind not in _ALIKE:
            outputs = [None if run.prediction is None else shown(run.prediction) for run in (ours, theirs)]
            named = {"task": ours.task.name, "sample_id": sample_id, "kind": kind, "scores": scores}
            texts = {"prompt": shown(ours.reference["input"]), "gold": shown(ours.reference["target"])}
            differing.append({**named, **texts, "predictions": outputs})
    differing.sort(key=lambda sample: -abs(sample["scores"][0] - sample["scores"][1]))
    kept, chosen = Counter[tuple[str, str]](), []
    for sample in differing:
        kept[sample["task"], sample["kind"]] += 1
        if kept[sample["task"], sample["kind"]] <= _OF_A_KIND:
            chosen.append(sample)
    result = evaluated(second, parser).result(protocol)
    return {
        "runs": [short(name) for name in names],
        "scores": _scores(result),
        "tasks": {name: tasks[name] for name in result["tasks"]},
        "samples": chosen,
    }


def _kind(first: float, second: float) -> str:
    if abs(first - second) < 1e-6:
        return _ALIKE[first < 1]
    return KINDS[(1 if max(first, second) == 1 else 3) + (second > first)]


def _scores(result: Result) -> ProtocolScores:
    tasks = {name: task["score"] for name, task in result["tasks"].items()}
    return {"signature": result["signature"], "overall": result["overall"], "groups": result["groups"], "tasks": tasks}


def check_output(folder: str | Path) -> None:
    """Raise `PromptCBLUEError` unless ``folder`` is free, empty, or holds a report and nothing else."""
    target = Path(folder)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PromptCBLUEError(f"{target}: expected a folder to write the report to, found something else")
    others = sorted(path.name for path in target.glob("*") if path.name not in FILES)
    if others:
        raise PromptCBLUEError(
            f"{target}: the folder holds other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}); "
            "name a new folder, or one with an older report"
        )
