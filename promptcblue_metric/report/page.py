"""The report as files: Markdown, JSON, and one HTML page that needs nothing else: no network, no other file.

Everything is escaped by Jinja's autoescape; texts of the run were cut and made visible before (`shown`). A content
security policy lets only the page's own script and style run, by their hashes. So charts are SVG with colours by class.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeAlias

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from rapidfuzz.distance import Indel

from ..data.writing import replacing
from ..tasks import REGISTRY
from . import tables
from .analysis import LISTED, STATES, ShownText
from .report import FILES, Report, TaskReport, check_output
from .tables import CHINESE, Phrase

_HERE = Path(__file__).parent

#: By colour: what it means in the chart of all tasks' outcomes, then the kinds and states that have it. Any other kind
#: is an item that is partly wrong.
_COLOURS = {
    "good": ("correct", "comparable length", "well-formed"),
    "near": ("partly wrong", "repaired"),
    "extra": ("more than the gold", "spurious", "chose extra", "too long", "unreadable"),
    "missed": ("less than the gold", "missed", "chose none", "missing section", "too short", "truncated"),
    "void": ("no label", "invalid", "empty", "in no tree"),
    "none": ("no prediction",),
}

#: What stands before a tree's node in Markdown, by its kind.
_NODE_MARKS = {"correct": "=", "wrong node": "!", "missed": "-", "spurious": "+", "in no tree": "?"}

#: A text in more pieces than these is as good as wholly different.
_MOST_PIECES = 120
_SEPARATORS = re.compile(r"([，,；;：:。、\n])")

#: A text in pieces, each with whether the other text lacks it.
Pieces: TypeAlias = list[tuple[str, bool]]


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


def _environment(*, autoescape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def markdown(report: Report) -> str:
    """The document for a report (`report.build_report`): the figures, without the texts of the run but for trees."""
    environment = _environment(autoescape=False)
    environment.filters.update(table=tables.as_markdown, text=tables.markdown_text)
    return environment.get_template("page.md.j2").render(
        report=report, tables=tables, columns=tables.SCORE_COLUMNS, listed=LISTED, marks=_NODE_MARKS
    )


def page(report: Report) -> str:
    """The page for a report (`report.build_report`)."""
    environment = _environment(autoescape=True)
    filters = {"number": tables.number, "percent": tables.percent, "part": "{:.2%}".format}
    environment.filters.update(filters, either=either, words=words, told=_told, marks=_marks)
    functions = {"other_table": tables.other_table, "task_tables": tables.task_tables, "t": t, "colour": colour}
    environment.globals.update(functions, state_shares=_state_shares, outcome_shares=_outcome_shares)
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    tasks, others = report["tasks"], report["other"]["samples"] if report["other"] else []
    kinds = [
        *(row["kind"] for row in others),
        *(kind for task in tasks.values() for row in task["examples"] for kind in row["kinds"]),
    ]
    return environment.get_template("page.html.j2").render(
        report=report,
        heading=t("{suite} report", suite=report["title"]),
        headline=tables.headline(report),
        overall=tables.overall_title(tasks),
        states=[state for state in STATES if any(state in task["states"] for task in tasks.values())],
        kinds=list(dict.fromkeys(kinds)),
        others=others,
        garbled=tables.garbled_notes(report),
        tables={
            "scores": tables.score_table(report, report["intervals"]),
            "protocols": tables.protocol_table(report),
            "states": tables.state_table(report),
            "kinds": [tables.kind_table(report, "repairs"), tables.kind_table(report, "problems")],
        },
        shown=Markup('<span class="shown"></span>'),
        meanings=[meaning for meaning, *_ in _COLOURS.values()],
        chinese=CHINESE,
        style=Markup(style),
        script=Markup(script),
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_source(style)}; script-src {_source(script)}",
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
    return next((shade for shade, kinds in _COLOURS.items() if kind in kinds), "near")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _marks(gold: ShownText, prediction: ShownText | None, task: str) -> tuple[Markup, Markup]:
    """Gold and predicted text with their differences marked."""
    by: Literal["character", "part"] = "character" if REGISTRY[task].scorer.metric == "ROUGE-L" else "part"
    sides = differences(gold["text"], prediction["text"] if prediction else "", by)
    ours, theirs = (
        Markup("").join(Markup("<{0}>{1}</{0}>").format(tag, text) if differs else text for text, differs in pieces)
        for tag, pieces in zip(("del", "ins"), sides, strict=True)
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
    # A lone equal character between two changes is chance.
    least = 2 if by == "character" else 1
    sides: tuple[Pieces, Pieces] = ([], [])
    for step in Indel.opcodes(ours, theirs):
        differs = step.tag != "equal" or step.src_end - step.src_start < least
        sides[0].append(("".join(ours[step.src_start : step.src_end]), differs))
        sides[1].append(("".join(theirs[step.dest_start : step.dest_end]), differs))
    first, second = map(_joined, sides)
    if max(len(first), len(second)) > _MOST_PIECES:
        return _joined([(gold, True)]), _joined([(predicted, True)])
    return first, second


def _joined(pieces: Pieces) -> Pieces:
    """With what is marked alike in one, and without empty ones."""
    runs = groupby((piece for piece in pieces if piece[0]), key=itemgetter(1))
    return [("".join(text for text, _ in run), differs) for differs, run in runs]


def _state_shares(task: TaskReport) -> list[tuple[str, float]]:
    return [(state, n / task["samples"]) for state, n in task["states"].items()]


def _outcome_shares(task: TaskReport) -> list[tuple[str, float]]:
    shares = dict.fromkeys(_COLOURS, 0.0)
    for outcome in task["outcomes"]:
        shares[colour(outcome["kind"])] += outcome["share"]
    return [(_COLOURS[shade][0], share) for shade, share in shares.items() if share]


def _told(shares: Sequence[tuple[str, float]], language: Literal["en", "zh"]) -> str:
    """What a bar of shares shows, for those who cannot see it."""
    words = CHINESE if language == "zh" else {}
    return ", ".join(f"{words.get(kind, kind)} {share:.1%}" for kind, share in shares)
