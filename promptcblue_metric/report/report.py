"""The report of a run: everything that is known of it as plain JSON values.

`build_report` makes the values; `page.write_report` writes them as ``report.json``, as Markdown and as a HTML page. All
texts in them are excerpts with visible characters only (`text`), so none is long and any may be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from ..answers import Answer, TermList
from ..compare.significance import counts_by_task, intervals
from ..data.predictions import Provenance, made_with
from ..errors import PromptCBLUEError
from ..evaluation import Evaluation, Parser, Result, ScoredSample, TaskResult
from ..scoring import PROTOCOLS, Protocol
from ..tasks import suite_of
from ..version import VERSION
from .analysis import Bin, Details, Example, KindCount, Outcome, ProtocolDifference, TaskAnalysis, analyse, rightness
from .analysis import protocol_differences as differences_of
from .text import excerpt, short

#: The files of a report.
FILES = ("index.html", "report.md", "report.json")

#: Errors that an example lists, the others being counted; samples of a task and kind on which two runs differ.
_ERRORS, _OF_A_KIND = 12, 6

#: What the first or the second of two runs is on a sample.
_ONLY_RIGHT = ("only the first run is right", "only the second run is right")
_BETTER = ("the first run is better", "the second run is better")


def require_libraries() -> None:
    """Raise `PromptCBLUEError` if a library is missing that only the report needs."""
    if find_spec("jinja2") is None:
        raise PromptCBLUEError("the report needs jinja2, not installed here: pip install 'promptcblue[report]'")


class Field(TypedDict):
    """A field of an item, and whether the item it was paired with has another value there."""

    field: str
    text: str
    differs: bool


class ItemError(TypedDict):
    """An outcome that is an error."""

    kind: str
    gold: list[Field] | None
    predicted: list[Field] | None


class ShownText(TypedDict):
    """The beginning of a text, and how many characters were left out."""

    text: str
    omitted: int


class ShownSample(TypedDict):
    """A sample to look at (`analysis.Example`)."""

    sample_id: str
    score: float
    kinds: list[str]
    state: str
    prompt: ShownText
    gold: ShownText
    prediction: ShownText | None
    errors: list[ItemError]
    more_errors: int


class TaskReport(TaskResult, Details):
    """A task's scores and their error analysis (`analysis.TaskAnalysis`)."""

    group: str
    unit: str
    outcomes: Sequence[KindCount]
    states: Mapping[str, int]
    repairs: Mapping[str, int]
    problems: Mapping[str, int]
    breakdowns: Mapping[str, Sequence[Bin]]
    examples: list[ShownSample]


class ProtocolScores(TypedDict):
    """The scores under one protocol."""

    signature: str
    overall: float
    groups: dict[str, float]
    tasks: dict[str, float]


class OtherSample(TypedDict):
    """A sample on which two runs differ, with what became of it in each."""

    task: str
    sample_id: str
    kind: str
    scores: list[float]
    prompt: ShownText
    gold: ShownText
    predictions: list[ShownText | None]


class OtherTask(TypedDict):
    """How two runs stand to each other on a task: ids of the samples that only one got right, and numbers of others."""

    samples: int
    both_right: int
    only_first_right: list[str]
    only_second_right: list[str]
    first_better: int
    second_better: int


class Other(TypedDict):
    """A second run beside that of the report: both names, its scores, and the two sample by sample."""

    runs: list[str]
    scores: ProtocolScores
    tasks: dict[str, OtherTask]
    samples: list[OtherSample]


class Report(TypedDict):
    """A report: the scores as ``promptcblue-metric score --json`` writes them, and what explains them."""

    title: str
    version: str
    signature: str
    suite: str
    predictions: str
    references: str
    split: str | None
    fingerprint: str
    made_with: str
    protocol: Protocol
    parser: Parser
    resamples: int
    seed: int
    samples: int
    missing_predictions: int
    well_formed: float
    missing_tasks: list[str]
    overall: float
    groups: dict[str, float]
    tasks: dict[str, TaskReport]
    intervals: dict[str, list[float]]
    protocols: dict[str, ProtocolScores]
    protocol_differences: list[ProtocolDifference]
    other: Other | None


def build_report(
    scored: Sequence[ScoredSample],
    protocol: Protocol = "official",
    parser: Parser = "strict",
    *,
    resamples: int = 1000,
    seed: int = 0,
    origin: Provenance | None = None,
    progress: Callable[[str], object] = lambda step: None,
) -> Report:
    """Scores, intervals and error analysis of a run, as JSON values.

    Args:
        scored: its samples, those without a prediction too.
        protocol: of the scores that are shown; those of the other protocol are set beside them.
        parser: the parser that read the samples.
        resamples: bootstrap resamples behind the intervals; 0 leaves them out.
        seed: of the resamples.
        origin: where predictions and references come from.
        progress: told each step as it begins.

    Raises:
        PromptCBLUEError: there are no samples, or a task is of a kind that no analysis is known for.
    """
    evaluation = Evaluation(parser=parser)
    for sample in scored:
        evaluation.add_scored(sample)
    results = {name: evaluation.result(name) for name in PROTOCOLS}
    shown, counts = results[protocol], counts_by_task(scored)
    progress("intervals")
    between = intervals(counts, protocol) if resamples else {}
    analyses = analyse(scored, protocol, progress)
    return {
        "title": suite_of(shown["tasks"]).title,
        "version": VERSION,
        "signature": shown["signature"],
        "suite": shown["suite"],
        "predictions": short(origin["predictions"]) if origin else "",
        "references": short(origin["source"] + (f" ({origin['split']})" if origin["split"] else "")) if origin else "",
        "split": origin["split"] if origin else None,
        "fingerprint": shown["references"],
        "made_with": short(made_with(origin)) if origin else "",
        "protocol": protocol,
        "parser": parser,
        "resamples": resamples,
        "seed": seed,
        "samples": shown["samples"],
        "missing_predictions": sum(sample.prediction is None for sample in scored),
        "well_formed": shown["well_formed"],
        "missing_tasks": shown["missing_tasks"],
        "overall": shown["overall"],
        "groups": shown["groups"],
        "tasks": {name: _task(shown["tasks"][name], analysis) for name, analysis in analyses.items()},
        "intervals": {name: list(interval) for name, interval in between.items()},
        "protocols": {name: _scores(result) for name, result in results.items()},
        "protocol_differences": differences_of(results["official"], results["paper"], counts),
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
        PromptCBLUEError: there are no samples, or a task is of a kind that no analysis is known for.
    """
    evaluation, tasks, shown = Evaluation(parser=parser), dict[str, OtherTask](), list[OtherSample]()
    for ours, theirs in zip(first, second, strict=True):
        evaluation.add_scored(theirs)
        found = tasks.setdefault(
            ours.task.name,
            {
                "samples": 0,
                "both_right": 0,
                "only_first_right": [],
                "only_second_right": [],
                "first_better": 0,
                "second_better": 0,
            },
        )
        scores = [rightness(sample, protocol) for sample in (ours, theirs)]
        sample_id, right = short(str(ours.reference["sample_id"])), [score == 1 for score in scores]
        found["samples"] += 1
        found["both_right"] += all(right)
        if abs(scores[0] - scores[1]) < 1e-6:
            continue
        place = int(scores[1] > scores[0])
        if any(right):
            found["only_second_right" if place else "only_first_right"].append(sample_id)
        else:
            found["second_better" if place else "first_better"] += 1
        shown.append(
            {
                "task": ours.task.name,
                "sample_id": sample_id,
                "kind": (_ONLY_RIGHT if any(right) else _BETTER)[place],
                "scores": scores,
                "prompt": _shown(ours.reference["input"]),
                "gold": _shown(ours.reference["target"]),
                "predictions": [None if run.prediction is None else _shown(run.prediction) for run in (ours, theirs)],
            }
        )
    result = evaluation.result(protocol)
    return {
        "runs": [short(name) for name in names],
        "scores": _scores(result),
        "tasks": {name: tasks[name] for name in result["tasks"]},
        "samples": _most_different(shown),
    }


def _most_different(samples: Sequence[OtherSample]) -> list[OtherSample]:
    """Of each task and kind, the samples on which two runs differ most."""
    kept = dict[tuple[str, str], int]()
    chosen = []
    for sample in sorted(samples, key=lambda sample: -abs(sample["scores"][0] - sample["scores"][1])):
        kind = sample["task"], sample["kind"]
        kept[kind] = kept.get(kind, 0) + 1
        if kept[kind] <= _OF_A_KIND:
            chosen.append(sample)
    return chosen


def _scores(result: Result) -> ProtocolScores:
    tasks = {name: task["score"] for name, task in result["tasks"].items()}
    return {"signature": result["signature"], "overall": result["overall"], "groups": result["groups"], "tasks": tasks}


def _task(result: TaskResult, analysis: TaskAnalysis) -> TaskReport:
    return {
        **result,
        **analysis.details,
        "group": analysis.task.group,
        "unit": analysis.unit,
        "outcomes": analysis.outcomes,
        "states": analysis.states,
        "repairs": analysis.repairs,
        "problems": analysis.problems,
        "breakdowns": analysis.breakdowns,
        "examples": [_example(example) for example in analysis.examples],
    }


def _example(example: Example) -> ShownSample:
    sample = example.sample
    # Texts and labels are seen as they are; only answers made of items have errors of their own to list.
    listed = example.errors if isinstance(sample.gold, list) else ()
    return {
        "sample_id": short(str(sample.reference["sample_id"])),
        "score": example.score,
        "kinds": list(example.kinds),
        "state": example.state,
        "prompt": _shown(sample.reference["input"]),
        "gold": _shown(sample.reference["target"]),
        "prediction": None if sample.prediction is None else _shown(sample.prediction),
        "errors": [_error(outcome) for outcome in listed[:_ERRORS]],
        "more_errors": len(listed[_ERRORS:]),
    }


def _shown(text: str) -> ShownText:
    beginning, omitted = excerpt(text)
    return {"text": beginning, "omitted": omitted}


def _error(outcome: Outcome) -> ItemError:
    gold, predicted = outcome.gold, outcome.predicted
    return {"kind": outcome.kind, "gold": _item(gold, predicted), "predicted": _item(predicted, gold)}


def _item(item: Answer | None, other: Answer | None) -> list[Field] | None:
    if item is None:
        return None
    return [
        {
            "field": name,
            "text": short("，".join(value) if isinstance(value, list) else value),
            "differs": other is not None and other.get(name) != value,
        }
        for name, value in item.items()
        if value != TermList.type  # the one type that every term has
    ]


def check_output(folder: str | Path) -> None:
    """Raise `PromptCBLUEError` unless ``folder`` is free, empty, or holds a report and nothing else."""
    target = Path(folder)
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise PromptCBLUEError(f"{target}: expected a folder to write the report to, found something else")
    others = sorted(path.name for path in target.iterdir() if path.name not in FILES)
    if others:
        raise PromptCBLUEError(
            f"{target}: the folder holds other files ({', '.join(others[:3])}{', …' if len(others) > 3 else ''}); "
            "name a new folder, or one with an older report"
        )
