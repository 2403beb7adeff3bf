"""The report of a run: everything that is known of it as plain JSON values, and the folder it is written to.

`build_report` makes the values; `write_report` writes them as ``report.json``, as Markdown and as one HTML page. All
texts in them are excerpts with visible characters only (`report_text`), so none is long and any may be shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..answers import TermList
from ..compare.significance import Interval, counts_by_task, intervals
from ..data.writing import replacing
from ..errors import PromptCBLUEError
from ..evaluation import Evaluation, Parser, ScoredSample
from ..scoring import PROTOCOLS, Protocol
from ..version import VERSION
from .analysis import Example, Outcome, TaskAnalysis, analyse, protocol_differences
from .text import excerpt, short

#: The files of a report.
FILES = ("index.html", "report.md", "report.json")

#: Errors that an example lists; the others are counted.
_ERRORS = 12


def require_libraries() -> None:
    """Raise `PromptCBLUEError` if a library is missing that only the report needs."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise PromptCBLUEError(
            f"the report needs {' and '.join(missing)}, not installed here: pip install 'promptcblue[report]'"
        )


def build_report(
    scored: Sequence[ScoredSample],
    protocol: Protocol = "official",
    parser: Parser = "strict",
    *,
    resamples: int = 1000,
    seed: int = 0,
    predictions: str = "",
    references: str = "",
    progress: Callable[[str], object] = lambda step: None,
) -> dict[str, Any]:
    """Scores, intervals and error analysis of a run, as JSON values.

    Args:
        scored: its samples, those without a prediction too.
        protocol: of the scores that are shown; those of the other protocol are set beside them.
        parser: the parser that read the samples.
        resamples: bootstrap resamples behind the intervals; 0 leaves them out.
        seed: of the resamples.
        predictions, references: what the user called the two files.
        progress: told each step as it begins.

    Raises:
        PromptCBLUEError: there are no samples.
    """
    evaluation = Evaluation(parser=parser)
    for sample in scored:
        evaluation.add_scored(sample)
    results = {name: evaluation.result(name) for name in PROTOCOLS}
    shown, counts = results[protocol], counts_by_task(scored)
    progress("intervals")
    between = intervals(counts, protocol) if resamples else {}
    analyses = analyse(scored, protocol, progress)
    differences = protocol_differences(results["official"], results["paper"], counts)
    return {
        "version": VERSION,
        "signature": shown["signature"],
        "predictions": short(predictions),
        "references": short(references),
        "protocol": protocol,
        "parser": parser,
        "resamples": resamples,
        "seed": seed,
        "samples": shown["samples"],
        "missing_predictions": sum(sample.prediction is None for sample in scored),
        "well_formed": shown["well_formed"],
        "missing_tasks": shown["missing_tasks"],
        "overall": {"score": shown["overall"], "interval": _interval(between, "overall")},
        "groups": {
            group: {"score": score, "interval": _interval(between, group)} for group, score in shown["groups"].items()
        },
        "tasks": {
            name: {**shown["tasks"][name], "interval": _interval(between, name), **_task(analysis)}
            for name, analysis in analyses.items()
        },
        "protocols": {name: _scores(result) for name, result in results.items()},
        "protocol_differences": [
            {**difference._asdict(), "reasons": [reason._asdict() for reason in difference.reasons]}
            for difference in differences
        ],
    }


def _interval(between: Mapping[str, Interval], name: str) -> list[float] | None:
    return list(between[name]) if name in between else None


def _scores(result: Mapping[str, Any]) -> dict[str, Any]:
    tasks = {name: task["score"] for name, task in result["tasks"].items()}
    return {"signature": result["signature"], "overall": result["overall"], "groups": result["groups"], "tasks": tasks}


def _task(analysis: TaskAnalysis) -> dict[str, Any]:
    details = dict(analysis.details)
    if "confusion" in details:
        details["confusion"] = _readable(details["confusion"])
    return {
        "group": analysis.task.group,
        "unit": analysis.unit,
        "outcomes": [outcome._asdict() for outcome in analysis.outcomes],
        **details,
        "states": dict(analysis.states),
        "repairs": dict(analysis.repairs),
        "problems": dict(analysis.problems),
        "breakdowns": {
            name: [{**part._asdict(), "name": short(part.name)} for part in bins]
            for name, bins in analysis.breakdowns.items()
        },
        "examples": [_example(example) for example in analysis.examples],
    }


def _readable(value: Any) -> Any:
    """JSON values with every text in them cut and made visible."""
    if isinstance(value, str):
        return short(value)
    if isinstance(value, Mapping):
        return {key: _readable(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [_readable(part) for part in value]
    return value


def _example(example: Example) -> dict[str, Any]:
    sample = example.sample
    # Texts and labels are seen as they are; only answers made of items have errors of their own to list.
    listed = example.errors if isinstance(sample.gold, list) else ()
    texts = {"prompt": sample.reference["input"], "gold": sample.reference["target"], "prediction": sample.prediction}
    return {
        "sample_id": short(str(sample.reference["sample_id"])),
        "score": example.score,
        "kinds": list(example.kinds),
        "state": example.state,
        **{name: None if text is None else excerpt(text)._asdict() for name, text in texts.items()},
        "errors": [_error(outcome) for outcome in listed[:_ERRORS]],
        "more_errors": len(listed[_ERRORS:]),
    }


def _error(outcome: Outcome) -> dict[str, Any]:
    gold, predicted = outcome.gold, outcome.predicted
    return {"kind": outcome.kind, "gold": _item(gold, predicted), "predicted": _item(predicted, gold)}


def _item(item: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """The fields of an item, each with whether the item it was paired with has another value there."""
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


def write_report(
    report: Mapping[str, Any], folder: str | Path, progress: Callable[[str], object] = lambda step: None
) -> None:
    """Write a report (`build_report`) into ``folder``, all its files or none; an older report there is replaced.

    Raises:
        PromptCBLUEError: the folder cannot be written, or holds something other than a report.
    """
    from .markdown import markdown
    from .page import page

    target = Path(folder)
    check_output(target)
    progress("charts")
    files = {
        "index.html": page(report),
        "report.md": markdown(report),
        "report.json": json.dumps(report, ensure_ascii=False, indent=1) + "\n",
    }
    with replacing(target) as staging:
        for name, text in files.items():
            (staging / name).write_text(text, encoding="utf-8")


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
