"""Tables as data: built once, and shown on a terminal, as Markdown, CSV and LaTeX here, and as HTML by the page."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..cli import common
from ..data.predictions import Provenance
from ..evaluation import Evaluation, Result, ScoredSample, TaskResult
from ..scoring import PROTOCOLS, Counts, Protocol
from ..tasks import REGISTRY, suite_of
from .analysis import GARBLED, REASONS, STATES, Listed, intervals_of

if TYPE_CHECKING:
    from .report import Other, Report, TaskReport

#: What reports and tables say, English to Chinese.
CHINESE: Mapping[str, str] = json.loads(Path(__file__).with_name("zh.json").read_text(encoding="utf-8"))

#: Columns that hold whichever of their scores a task has.
SCORE_COLUMNS = {"P / R-1": ("precision", "rouge1"), "R / R-2": ("recall", "rouge2"), "F1 / R-L": ("f1", "rougeL")}


class Scores(Result):
    """The scores of a run, as ``score --json`` writes them; intervals by task, group and ``overall``, if asked for.

    ``garbled`` are the tasks that have none, since how many classes they have is chance, and what they have instead.
    """

    provenance: Provenance
    missing_predictions: int
    intervals: dict[str, list[float]] | None
    garbled: list[Listed]


def scores_of(
    evaluation: Evaluation, samples: Iterable[ScoredSample], protocol: Protocol, origin: Provenance, *, intervals: bool
) -> Scores:
    """The scores of a run as files have them, of samples that the evaluation adds while they are gone through."""
    absent, counts = 0, dict[str, list[Counts]]()
    for scored in samples:
        absent += scored.prediction is None
        if intervals:
            counts.setdefault(scored.task.name, []).append(scored.counts)
    between, without = intervals_of(counts, protocol) if intervals else (None, [])
    return {
        **evaluation.result(protocol),
        "provenance": origin,
        "missing_predictions": absent,
        "intervals": between,
        "garbled": without,
    }


class Phrase(str):
    """A text of ours with values in it; its ``parts``, patterns with their values, can be put in another language."""

    parts: tuple[tuple[str, Mapping[str, object]], ...]

    def __new__(cls, pattern: str, **values: object) -> Phrase:
        return cls.of([(pattern, values)])

    @classmethod
    def of(cls, parts: Iterable[tuple[str, Mapping[str, object]]]) -> Phrase:
        """Several, one after the other."""
        kept = tuple(parts)
        phrase = super().__new__(cls, "; ".join(pattern.format(**values) for pattern, values in kept))
        phrase.parts = kept
        return phrase


class Column(NamedTuple):
    """A column's head, and whether it holds figures, which are never broken, and not words."""

    title: str
    number: bool = True


class Row(NamedTuple):
    """A row of a table: its cells, and its kind: ``mean`` ends a section, ``overall`` ends the table."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row] = field(default=())

    def without(self, *titles: str) -> Table:
        """The table without these columns, and without those that are empty."""
        kept = [
            place
            for place, column in enumerate(self.columns)
            if column.title not in titles and (not place or any(row.cells[place] for row in self.rows))
        ]
        rows = [Row(tuple(row.cells[place] for place in kept), row.kind) for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in kept], rows=rows)


def number(value: float) -> str:
    """A score for a table."""
    return f"{value:.4f}"


def percent(value: float | None) -> str:
    """A share for a table."""
    return "" if value is None else f"{value:.1%}"


def between(interval: Sequence[float] | None) -> str:
    """An interval for a table."""
    return f"{number(interval[0])} … {number(interval[1])}" if interval else ""


def further_scores(name: str, scores: Mapping[str, float]) -> dict[str, float]:
    """The scores of a task that are neither its primary one nor in a column of their own."""
    elsewhere = {score for names in SCORE_COLUMNS.values() for score in names}
    return {n: value for n, value in scores.items() if n not in elsewhere and n != REGISTRY[name].scorer.primary}


def score_table(result: Result | Report, intervals: Mapping[str, Sequence[float]] | None = None) -> Table:
    """Scores of every task by group, with the group means and the overall score, in 0..1.

    Args:
        intervals: 95% intervals by task, group and ``overall``; without them the table has no such column.
    """
    tasks, known = result["tasks"], intervals or {}
    columns = [Column("task", number=False), Column("metric", number=False), *map(Column, SCORE_COLUMNS)]
    columns += [Column("score"), Column("95% interval"), Column("samples"), Column("well-formed")]

    def row(key: str, title: str, metric: str, score: float, counted: Sequence[str], kind: str = "") -> Row:
        scores = {} if kind else tasks[key]["scores"]
        three = (next((number(scores[n]) for n in names if n in scores), "") for names in SCORE_COLUMNS.values())
        besides = ", ".join(f"{n} {number(value)}" for n, value in further_scores(key, scores).items())
        return Row((title, metric, *three, number(score), between(known.get(key)), *counted, besides), kind)

    rows = []
    for group, mean in result["groups"].items():
        members = ((name, task) for name, task in tasks.items() if REGISTRY[name].group == group)
        rows += [row(name, name, task["metric"], task["score"], _counted(task)) for name, task in members]
        rows.append(row(group, Phrase(group), Phrase("mean"), mean, ("", ""), "mean"))
    rows.append(row("overall", overall_title(tasks), Phrase("mean"), result["overall"], _counted(result), "overall"))
    return Table("Scores of tasks and groups", [*columns, Column("besides", number=False)], rows).without()


def overall_title(tasks: Collection[str]) -> Phrase:
    """What the mean over these tasks is called: ``overall`` only if they are all of their suite."""
    every = len(suite_of(tasks).tasks)
    return Phrase("overall") if len(tasks) == every else Phrase("mean of {n} of {all} tasks", n=len(tasks), all=every)


def headline(report: Report) -> list[tuple[str, float]]:
    """Each run's name and overall score; a run alone has no name."""
    scores = [report["overall"], *([report["other"]["scores"]["overall"]] if report["other"] else [])]
    return list(zip(report["other"]["runs"] if report["other"] else [""], scores, strict=True))


def garbled_notes(scores: Scores | Report) -> list[Phrase]:
    """Why tasks with garbled outputs have no interval, and what they have instead, a line each."""
    return [Phrase(GARBLED, **row) for row in scores["garbled"]]


def runs_table(runs: Mapping[str, Scores]) -> Table:
    """The scores of a run (`score_table`), or of several beside each other."""
    first, *others = tables = [score_table(scores, scores["intervals"]) for scores in runs.values()]
    if not others:
        return first
    # Runs over the same references have the same rows.
    beside = [
        (Column(run if column.title == "score" else f"{run} {column.title}"), [row.cells[place] for row in table.rows])
        for run, table in zip(runs, tables, strict=True)
        for place, column in enumerate(table.columns)
        if column.title in ("score", "95% interval")
    ]
    cells = zip(*(found for _, found in beside), strict=True)
    rows = [Row((*row.cells[:2], *found), row.kind) for row, found in zip(first.rows, cells, strict=True)]
    return Table(first.title, [*first.columns[:2], *(column for column, _ in beside)], rows)


def _counted(row: Result | TaskResult | Report | TaskReport) -> tuple[str, str]:
    return str(row["samples"]), percent(row["well_formed"])


def as_markdown(table: Table) -> str:
    """The table for a Markdown document; means are set in italics, the overall row in bold."""
    rows = []
    for row in table.rows:
        mark = {"mean": "*", "overall": "**"}.get(row.kind, "")
        first, *others = map(markdown_text, row.cells)
        rows.append([f"{mark}{first}{mark}", *others])
    return markdown_table([markdown_text(column.title) for column in table.columns], rows)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def markdown_text(text: str) -> str:
    """Text that no reader of Markdown takes for markup of HTML, or for a link."""
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("`", "\\`"), ("[", "\\["), ("\n", " ")):
        text = text.replace(character, escaped)
    return text


def as_csv(table: Table) -> str:
    """The table as comma-separated values."""
    stream = io.StringIO()
    heads = [column.title for column in table.columns]
    csv.writer(stream, lineterminator="\n").writerows([heads, *(row.cells for row in table.rows)])
    return stream.getvalue().rstrip("\n")


#: What LaTeX would not print as it is.
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "…": "--",
    }
)


def as_latex(table: Table) -> str:
    """The table as a ``tabular`` of LaTeX's ``booktabs``."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(common.visible(cell).translate(_LATEX) for cell in cells) + r" \\"

    heads = line(column.title for column in table.columns)
    lines = [r"\begin{tabular}{" + "".join("lr"[column.number] for column in table.columns) + "}", r"\toprule"]
    lines += [heads, r"\midrule"]
    for row in table.rows:
        lines += [line(row.cells), *[r"\midrule"] * (row.kind == "mean" and row is not table.rows[-1])]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


#: How a table is written other than for people at a terminal.
FORMATS: Mapping[str, Callable[[Table], str]] = {"csv": as_csv, "latex": as_latex, "markdown": as_markdown}


def show(table: Table, lines: Iterable[str] = (), *, titled: bool = False) -> None:
    """Print a table, and lines below it (`common.show`)."""
    shown = common.make_table(*(column.title for column in table.columns))
    if titled:
        shown.title, shown.title_justify = table.title, "left"
    for column, ours in zip(shown.columns, table.columns, strict=True):
        column.justify = "right" if ours.number else "left"
    styles = {"mean": "dim", "overall": "bold"}
    for row in table.rows:
        if row.kind == "overall":
            shown.add_section()
        shown.add_row(*row.cells, style=styles.get(row.kind), end_section=row.kind == "mean")
    common.show(shown, lines)


def print_scores(runs: Mapping[str, Scores], *, chosen: bool = False) -> None:
    """Print the scores of runs in one table, what is missing unless tasks were ``chosen``, and the signatures."""
    results = list(runs.values())
    missing = ", ".join(results[0]["missing_tasks"])
    lines = [f"not in the references: {missing}"] if missing and not chosen else []
    for run, scores in runs.items():
        lines += [f"{run}: {note}" if len(runs) > 1 else note for note in garbled_notes(scores)]
    signatures = dict.fromkeys(result["signature"] for result in results)
    show(runs_table(runs), [*lines, *(f"signature: {signature}" for signature in signatures)])


def protocol_table(report: Report) -> Table:
    """Where the two protocols differ, and why."""
    rows = [
        {**row, "why": Phrase.of((REASONS[reason["kind"]], reason) for reason in row["reasons"])}
        for row in report["protocol_differences"]
    ]
    if rows:
        last: Listed = {"task": overall_title(report["tasks"]), "why": "", "row": "overall"}
        rows.append(last | {name: report["protocols"][name]["overall"] for name in PROTOCOLS})
    return _listed("The two protocols", [{**row, "difference": row["paper"] - row["official"]} for row in rows])


def _both(first: float, second: float) -> tuple[str, str, str]:
    return number(first), number(second), f"{second - first:+.4f}"


def other_table(report: Report, other: Other) -> Table:
    """The scores of two runs, and on how many samples of each task which is right or better."""
    rows = []
    for name, task in report["tasks"].items():
        numbers = (str(len(ids)) for ids in other["tasks"][name].values())
        rows.append(Row((name, *_both(task["score"], other["scores"]["tasks"][name]), *numbers)))
    kinds = list(next(iter(other["tasks"].values())))
    for group, score in report["groups"].items():
        rows.append(Row((Phrase(group), *_both(score, other["scores"]["groups"][group]), *[""] * len(kinds)), "mean"))
    overall = _both(report["overall"], other["scores"]["overall"])
    rows.append(Row((overall_title(report["tasks"]), *overall, *[""] * len(kinds)), "overall"))
    columns = [Column("task", number=False), *map(Column, [*other["runs"], "difference", *kinds])]
    return Table("Two runs beside each other", columns, rows)


def state_table(report: Report, *, repairs: bool = False) -> Table:
    """What became of the outputs of each task, and how many outputs were repaired in which way."""
    tasks = report["tasks"]
    states = [state for state in STATES if any(state in task["states"] for task in tasks.values())]
    columns = [Column("task", number=False), *map(Column, states)]
    rows = []
    for name, task in tasks.items():
        mended = ", ".join(f"{kind} {n}" for kind, n in task["repairs"].items())
        rows.append(Row((name, *(str(task["states"].get(state, 0)) for state in states), *[mended] * repairs)))
    return Table("What became of the outputs", [*columns, *[Column("repairs", number=False)] * repairs], rows)


def kind_table(report: Report, what: Literal["repairs", "problems"]) -> Table:
    """How many outputs there were of each kind of repair or problem, over all tasks and by task."""
    sums, tasks = Counter[str](), dict[str, list[str]]()
    for name, task in report["tasks"].items():
        for kind, n in task[what].items():
            sums[kind] += n
            tasks.setdefault(kind, []).append(f"{name} {n}")
    captions = {
        "repairs": "Repairs that the lenient parser made, by number of outputs",
        "problems": "What the parser could not read, by number of outputs",
    }
    rows = [{"kind": kind, "n": n, "tasks": " · ".join(tasks[kind])} for kind, n in sums.most_common()]
    return _listed(captions[what], rows)


#: What the report lists: by title, each column's key, head and format.
_LISTS: Mapping[str, Sequence[tuple[str, str, str]]] = json.loads(
    Path(__file__).with_name("lists.json").read_text(encoding="utf-8")
)


def task_tables(task: TaskReport) -> list[Table]:
    """Everything that is listed of a task."""
    confusion = task.get("confusion")
    found: dict[str, Sequence[Mapping[str, object]]] = {
        "Outcomes": task["outcomes"],
        "Fields that are wrong in pairs of a predicted and a gold item": [
            {"field": name, "n": n} for name, n in task.get("fields", {}).items()
        ],
        "Lengths in characters": [{"side": side, **length} for side, length in task.get("lengths", {}).items()],
        "Sections": task.get("sections", []),
        "Scores of the labels": confusion["per_label"] if confusion else [],
        "Most frequent confusions": confusion["most_frequent"] if confusion else [],
        "Most frequent invalid outputs": confusion["invalid_outputs"] if confusion else [],
        "Scores by kind of sample": [
            {"measure": name, **part} for name, bins in task["breakdowns"].items() for part in bins
        ],
    }
    return [_listed(title, rows) for title, rows in found.items() if rows]


def _listed(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """The table of `_LISTS` with this title; a row may say of which kind it is (`Row`)."""

    def cell(key: str, value: object, form: str) -> str:
        if value is None or form:
            return "" if value is None else format(value, form)
        # Kinds and the like are words of ours; labels and texts are not.
        ours = key in ("kind", "measure", "predicted", "side") and value in CHINESE
        return Phrase(str(value)) if ours else value if isinstance(value, Phrase) else str(value)

    columns = [Column(head, number=bool(form)) for _, head, form in _LISTS[title]]
    cells = (tuple(cell(key, row[key], form) for key, _, form in _LISTS[title]) for row in rows)
    return Table(title, columns, [Row(found, str(row.get("row", ""))) for found, row in zip(cells, rows, strict=True)])
