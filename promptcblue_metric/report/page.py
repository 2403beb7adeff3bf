"""The report as files: Markdown, JSON, and one HTML page that needs nothing else: no network, no other file.

Everything is escaped by Jinja's autoescape; texts of the run were cut and made visible before (`text`). A content
security policy lets only the page's own script and style run, by their hashes. So charts are SVG with colours by class.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from rapidfuzz.distance import Indel

from ..data.writing import replacing
from ..tasks import REGISTRY, suite_of
from . import tables
from .analysis import STATES, KindCount
from .markdown import markdown
from .report import FILES, Report, TaskReport, check_output
from .tables import CHINESE, Phrase
from .text import ShownText

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
#: Name of a colour: its value in the light and in the dark theme.
PALETTE: Mapping[str, tuple[str, str]] = {
    "ink": ("#1d2733", "#e6eaef"),
    "muted": ("#5d6977", "#9aa7b5"),
    "grid": ("#dfe4ea", "#313b47"),
    "accent": ("#2f6690", "#6fa8d6"),
    "good": ("#2f7f6b", "#55b39c"),
    "near": ("#b5781e", "#dfb25c"),
    "extra": ("#b84a34", "#e08a75"),
    "missed": ("#6b7889", "#8f9cab"),
    "void": ("#6d597a", "#b09cc0"),
    "none": ("#39424d", "#5d6875"),
    # Text on any of the six before.
    "on": ("#ffffff", "#11161c"),
}

#: A text in more pieces than these is as good as wholly different.
_MOST_PIECES = 120
_SEPARATORS = re.compile(r"([，,；;：:。、\n])")

#: A text in pieces, each with whether the other text lacks it.
Pieces: TypeAlias = list[tuple[str, bool]]


class Bar(NamedTuple):
    """A row of a bar chart: a value in 0..1 with an interval, or a heading where there is none."""

    label: str
    value: float | None = None
    note: str = ""
    colour: str = "accent"
    between: Sequence[float] | None = None


class Part(NamedTuple):
    """A part of a bar that stands for all of something."""

    kind: str
    colour: str
    start: float
    share: float


def write_report(report: Report, folder: str | Path) -> None:
    """Write a report into ``folder``, all its files (`report.FILES`) or none; an older report there is replaced.

    Raises:
        PromptCBLUEError: the folder cannot be written, or holds something other than a report.
    """
    target = Path(folder)
    check_output(target)
    values = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    with replacing(target) as staging:
        for name, text in zip(FILES, (page(report), markdown(report), values), strict=True):
            (staging / name).write_text(text, encoding="utf-8")


def page(report: Report) -> str:
    """The page for a report (`report.build_report`)."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=tables.number,
        percent=tables.percent,
        part="{:.2%}".format,
        either=either,
        words=words,
        told=_told,
        marks=_marks,
    )
    environment.globals.update(
        {name: value for name, value in vars(tables).items() if name.endswith("_table")}, t=t, colour=colour
    )
    style, script = _style(), (_HERE / "page.js").read_text(encoding="utf-8")
    tasks = report["tasks"]
    examples = (example for task in tasks.values() for example in task["examples"])
    others = report["other"]["samples"] if report["other"] else []
    return environment.get_template("page.html.j2").render(
        report=report,
        heading=t("{suite} report", suite=report["title"]),
        all_tasks=len(suite_of(tasks).tasks),
        states=[state for state in STATES if any(state in task["states"] for task in tasks.values())],
        kinds=list(
            dict.fromkeys([*(row["kind"] for row in others), *(kind for row in examples for kind in row["kinds"])])
        ),
        others=others,
        tables={
            "scores": tables.score_table(report, report["intervals"]),
            "protocols": tables.protocol_table(report),
            "states": tables.state_table(report),
            "kinds": [tables.kind_table(report, "repairs"), tables.kind_table(report, "problems")],
        },
        charts=_charts(report),
        shown=Markup('<span class="shown"></span>'),
        meanings=_MEANINGS,
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
    both = [("en", english), ("zh-CN", CHINESE.get(english, english))]
    return Markup("").join(
        Markup('<span class="t" lang="{}">{}</span>').format(language, Markup(escape(text)).format(**values))
        for language, text in both
    )


def either(word: str) -> Markup:
    """A kind or name in both languages, or as it is where it belongs to neither."""
    return t(word) if word in CHINESE else words(word)


def words(text: str) -> Markup:
    """A cell of a table: what is ours in both languages, line by line, and what others wrote as it is."""
    if not isinstance(text, Phrase):
        return escape(text)
    return Markup("<br>").join(t(pattern, **values) for pattern, values in text.parts)


def colour(kind: str) -> str:
    """The colour of a kind of outcome or of a state."""
    return _COLOURS.get(kind, "near")


def _style() -> str:
    colours = "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in PALETTE.items())
    classes = "".join(
        f".fill-{name}{{fill:var(--{name})}}.stroke-{name}{{stroke:var(--{name})}}.on-{name}{{--key:var(--{name})}}"
        for name in PALETTE
    )
    shades = "".join(
        f".matrix .s{tenth}{{--share:{12 + 8.8 * tenth:.0f}%{';color:var(--on)' * (tenth > 5)}}}" for tenth in range(11)
    )
    return f":root{{{colours}}}\n{classes}\n{shades}\n" + (_HERE / "page.css").read_text(encoding="utf-8")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _marks(gold: ShownText, prediction: ShownText | None, task: str) -> tuple[Markup, Markup]:
    """Gold and predicted text with their differences marked."""
    by_character = REGISTRY[task].metric == "ROUGE-L"
    texts = gold["text"], prediction["text"] if prediction else ""
    ours, theirs = (
        Markup("").join(Markup("<{0}>{1}</{0}>").format(tag, text) if differs else text for text, differs in pieces)
        for tag, pieces in zip(
            ("del", "ins"), differences(*texts, "character" if by_character else "part"), strict=True
        )
    )
    return ours, theirs


def differences(gold: str, predicted: str, by: Literal["character", "part"]) -> tuple[Pieces, Pieces]:
    """The two texts in pieces, each marked where the other lacks it.

    Args:
        gold, predicted: texts of at most a few thousand characters.
        by: compare single characters, as suits prose, or what stands between separators, as suits lists of items.

    Returns:
        the pieces of each text; one marked piece where the texts share no more than scraps.
    """
    ours, theirs = (list(text) if by == "character" else _SEPARATORS.split(text) for text in (gold, predicted))
    marked: tuple[list[bool], list[bool]] = ([True] * len(ours), [True] * len(theirs))
    # A lone equal character between two changes is chance.
    least = 2 if by == "character" else 1
    for block in Indel.opcodes(ours, theirs).as_matching_blocks():
        if block.size >= least:
            marked[0][block.a : block.a + block.size] = [False] * block.size
            marked[1][block.b : block.b + block.size] = [False] * block.size
    sides = _pieces(ours, marked[0]), _pieces(theirs, marked[1])
    if max(map(len, sides)) > _MOST_PIECES:
        return _pieces(ours, [True] * len(ours)), _pieces(theirs, [True] * len(theirs))
    return sides


def _pieces(tokens: Sequence[str], marked: Sequence[bool]) -> Pieces:
    pieces: Pieces = []
    for token, different in zip(tokens, marked, strict=True):
        if pieces and pieces[-1][1] == different:
            pieces[-1] = (pieces[-1][0] + token, different)
        elif token:
            pieces.append((token, different))
    return pieces


def _charts(report: Report) -> dict[str, object]:
    tasks, known = report["tasks"], report["intervals"]

    def scored(name: str, score: float) -> Bar:
        return Bar(name, score, f"{score:.3f}", between=known.get(name))

    scores: list[Bar] = []
    for group in report["groups"]:
        scores.append(Bar(group))
        scores += (scored(name, task["score"]) for name, task in tasks.items() if task["group"] == group)
    overall = {**report["groups"], "overall": report["overall"]}
    return {
        "scores": scores,
        "groups": [scored(name, score) for name, score in overall.items()],
        "states": {name: _states(task) for name, task in tasks.items()},
        "outcomes": {name: _outcomes(task["outcomes"]) for name, task in tasks.items() if "lengths" not in task},
        "tasks": {name: _task_charts(task) for name, task in tasks.items()},
    }


def _stacked(parts: Sequence[tuple[str, str, float]]) -> list[Part]:
    starts = [sum(share for *_, share in parts[:place]) for place in range(len(parts))]
    return [Part(kind, shade, start, share) for (kind, shade, share), start in zip(parts, starts, strict=True)]


def _states(task: TaskReport) -> list[Part]:
    return _stacked([(state, colour(state), task["states"].get(state, 0) / task["samples"]) for state in STATES])


def _outcomes(outcomes: Sequence[KindCount]) -> list[Part]:
    shares = dict.fromkeys(_MEANINGS, 0.0)
    for outcome in outcomes:
        shares[colour(outcome["kind"])] += outcome["share"]
    return _stacked([(_MEANINGS[shade], shade, share) for shade, share in shares.items()])


def _told(parts: Sequence[Part], language: Literal["en", "zh"]) -> str:
    """What a bar of parts shows, for those who cannot see it."""
    names = ((CHINESE.get(part.kind, part.kind) if language == "zh" else part.kind, part.share) for part in parts)
    return ", ".join(f"{name} {share:.1%}" for name, share in names if share)


def _task_charts(task: TaskReport) -> dict[str, list[Bar]]:
    parts: list[Bar] = []
    for name, bins in task["breakdowns"].items():
        parts.append(Bar(name))
        parts += (Bar(part["name"], part["score"], f"{part['score']:.3f}  (n = {part['n']})") for part in bins)
    outcomes = [
        Bar(row["kind"], row["share"], f"{row['n']} ({row['share']:.1%})", colour(row["kind"]))
        for row in task["outcomes"]
    ]
    return {"outcomes": outcomes, "breakdowns": parts}
