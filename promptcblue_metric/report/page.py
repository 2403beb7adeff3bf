"""The report as one HTML page that needs nothing else: no network, no other file.

Everything is escaped by Jinja's autoescape; texts of the run were cut and made visible before (`report_text`). A
content security policy lets only the page's own script and style run, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ..evaluation import further_scores
from ..tasks import GROUPS, REGISTRY, suite_of
from .analysis import STATES
from .charts import PALETTE, Row, bars, confusion, stacked
from .text import CHINESE, REASONS, differences, heading

_HERE = Path(__file__).parent

#: The colour of every kind of outcome and state that is not an item that is partly wrong.
_COLOURS = {
    "correct": "good",
    "comparable length": "good",
    "spurious": "extra",
    "chose extra": "extra",
    "too long": "extra",
    "missed": "missed",
    "chose none": "missed",
    "missing section": "missed",
    "too short": "missed",
    "invalid": "void",
    "empty": "void",
    "no prediction": "none",
    "well-formed": "good",
    "repaired": "near",
    "truncated": "missed",
    "unreadable": "extra",
}
#: What the colours mean in the chart of all tasks' outcomes.
_MEANINGS = {
    "good": "correct",
    "near": "partly wrong",
    "extra": "more than the gold",
    "missed": "less than the gold",
    "void": "no label",
    "none": "no prediction",
}
#: Columns for whichever scores a task has.
_SCORES = (("precision", "rouge1"), ("recall", "rouge2"), ("f1", "rougeL"))


def page(report: Mapping[str, Any]) -> str:
    """The page for a report (`report.build_report`)."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number="{:.4f}".format, percent="{:.1%}".format, either=either, marks=_marks)
    environment.globals.update(t=t, colour=colour)
    style, script = _style(), (_HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        report=report,
        heading=heading(report),
        groups={
            group: {name: task for name, task in report["tasks"].items() if task["group"] == group}
            for group in GROUPS
            if group in report["groups"]
        },
        score_columns=_SCORES,
        all_tasks=len(suite_of(report["tasks"]).tasks),
        states=[state for state in STATES if any(state in task["states"] for task in report["tasks"].values())],
        kinds=list(
            dict.fromkeys(
                kind for task in report["tasks"].values() for row in task["examples"] for kind in row["kinds"]
            )
        ),
        repairs=_sums(report, "repairs"),
        problems=_sums(report, "problems"),
        charts=_charts(report),
        shown=Markup('<span class="shown"></span>'),
        meanings=_MEANINGS,
        further_scores=further_scores,
        reasons=REASONS,
        chinese=CHINESE,
        style=Markup(style),
        script=Markup(script),
        policy="; ".join(
            [
                "default-src 'none'",
                f"style-src {_source(style)}",
                f"script-src {_source(script)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
    )


def t(english: str, **values: object) -> Markup:
    """A text of the report in both languages, of which the page shows one."""
    both = [("en", english), ("zh-CN", CHINESE[english])]
    return Markup("").join(
        Markup('<span class="t" lang="{}">{}</span>').format(language, Markup(escape(text)).format(**values))
        for language, text in both
    )


def either(word: str) -> Markup:
    """A kind or name in both languages, or as it is where it belongs to neither."""
    return t(word) if word in CHINESE else escape(word)


def colour(kind: str) -> str:
    """The colour of a kind of outcome or of a state."""
    return _COLOURS.get(kind, "near")


def _style() -> str:
    colours = "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in PALETTE.items())
    classes = "".join(
        f".fill-{name}{{fill:var(--{name})}}.stroke-{name}{{stroke:var(--{name})}}.on-{name}{{--key:var(--{name})}}"
        for name in PALETTE
    )
    return f":root{{{colours}}}\n{classes}\n" + (_HERE / "page.css").read_text(encoding="utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _sums(report: Mapping[str, Any], what: str) -> list[tuple[str, int, dict[str, int]]]:
    """Numbers of outputs by kind: over all tasks, and by task."""
    by_kind: dict[str, dict[str, int]] = {}
    for name, task in report["tasks"].items():
        for kind, n in task[what].items():
            by_kind.setdefault(kind, {})[name] = n
    sums = [(kind, sum(tasks.values()), tasks) for kind, tasks in by_kind.items()]
    return sorted(sums, key=lambda row: -row[1])


def _marks(gold: Mapping[str, Any], prediction: Mapping[str, Any] | None, task: str) -> tuple[Markup, Markup]:
    """Gold and predicted text with their differences marked."""
    by_character = REGISTRY[task].metric == "ROUGE-L"
    texts = gold["text"], prediction["text"] if prediction else ""
    sides = differences(*texts, "character" if by_character else "part")
    marked = []
    for tag, pieces in zip(("del", "ins"), sides, strict=True):
        marked.append(
            Markup("").join(Markup("<{0}>{1}</{0}>").format(tag, text) if differs else text for text, differs in pieces)
        )
    return marked[0], marked[1]


def _charts(report: Mapping[str, Any]) -> dict[str, Any]:
    tasks = report["tasks"]
    scores: list[Row] = []
    for group in report["groups"]:
        scores.append(Row(group))
        scores += (_score_row(name, task) for name, task in tasks.items() if task["group"] == group)
    groups = [_score_row(name, group) for name, group in report["groups"].items()]
    items = {name: _shares(task["outcomes"], _MEANINGS) for name, task in tasks.items() if "lengths" not in task}
    return {
        "scores": Markup(bars(scores)),
        "groups": Markup(bars([*groups, _score_row("overall", report["overall"])])),
        "states": Markup(stacked({name: _states(task) for name, task in tasks.items()})),
        "outcomes": Markup(stacked(items)) if items else None,
        "tasks": {name: _task_charts(task) for name, task in tasks.items()},
    }


def _score_row(name: str, row: Mapping[str, Any]) -> Row:
    low_high = row["interval"]
    return Row(name, row["score"], f"{row['score']:.3f}", "accent", tuple(low_high) if low_high else None)


def _shares(outcomes: Sequence[Mapping[str, Any]], order: Mapping[str, str]) -> list[tuple[str, float]]:
    shares = dict.fromkeys(order, 0.0)
    for outcome in outcomes:
        shares[colour(outcome["kind"])] += outcome["share"]
    return list(shares.items())


def _states(task: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(colour(state), task["states"].get(state, 0) / task["samples"]) for state in STATES]


def _task_charts(task: Mapping[str, Any]) -> dict[str, Markup]:
    outcomes = [
        Row(row["kind"], row["share"], f"{row['n']} ({row['share']:.1%})", colour(row["kind"]))
        for row in task["outcomes"]
    ]
    charts = {"outcomes": Markup(bars(outcomes))} if outcomes else {}
    parts: list[Row] = []
    for name, bins in task["breakdowns"].items():
        parts.append(Row(name))
        parts += (Row(part["name"], part["score"], f"{part['score']:.3f}  (n = {part['n']})") for part in bins)
    if parts:
        charts["breakdowns"] = Markup(bars(parts))
    if "confusion" in task:
        matrix = task["confusion"]
        charts["confusion"] = Markup(confusion(*(matrix[name] for name in ("rows", "labels", "others", "matrix"))))
    return charts
