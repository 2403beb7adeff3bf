"""Comparisons for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from ..cli.common import make_console
from ..evaluation import Result
from ..report.tables import number
from ..tasks import Suite, suite_of
from .published import NOTES, PUBLISHED, Published
from .runs import LEVEL, Comparison, as_published


def difference_table(comparison: Comparison) -> Table:
    """Scores of both runs, their difference with its interval, and p-values, by task and overall."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for title in (comparison.baseline, comparison.run):
        table.add_column(title, justify="right", overflow="fold")
    for title in ("difference", "95% interval", "p (random.)", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("established", no_wrap=True)
    for name, d in comparison.differences.items():
        overall = name == "overall"
        if overall:
            table.add_section()
        table.add_row(
            name,
            number(d.first),
            number(d.second),
            f"{d.difference:+.4f}",
            f"{d.low:+.4f} … {d.high:+.4f}",
            f"{d.randomization_p:.3f}",
            "" if overall else f"{d.adjusted_p:.3f}",
            _verdict(d.adjusted_p, d.difference),
            style="bold" if overall else "",
        )
    return table


def _verdict(p: float, difference: float) -> str:
    if p >= LEVEL:
        return "no"
    return "better" if difference > 0 else "worse"


def print_comparisons(comparisons: Sequence[Comparison], results: Mapping[str, Result], references: int) -> None:
    """Print each comparison as a table and in words, with what it rests on."""
    console = make_console()
    for comparison in comparisons:
        console.print(difference_table(comparison))
        console.print(comparison.conclusion(), markup=False, highlight=False)
    result = next(iter(results.values()))
    if result["samples"] < references:
        console.print(f"{result['samples']} of {references} references are in the runs", highlight=False)
    console.print(f"signature: {result['signature']}", markup=False, soft_wrap=True, highlight=False)


def print_published(results: Mapping[str, Result]) -> None:
    """Print runs beside the published results, and what has to be known about these."""
    console = make_console()
    suite = suite_of(task for result in results.values() for task in result["tasks"])
    systems = [*(as_published(name, result) for name, result in results.items()), *PUBLISHED[suite.name]]
    for table in published_tables(systems, suite):
        console.print(table)
    for system in systems:
        if system.note:
            console.print(f"* {system.system}: {system.note} ({system.source})", markup=False, highlight=False)
    console.print(NOTES[suite.name], highlight=False)


def published_tables(systems: Sequence[Published], suite: Suite) -> list[Table]:
    """Runs beside published systems: by task, by group, and by overall score, those that were published so."""
    by_task = [system for system in systems if any(task in system.scores for task in suite.tasks)]
    by_group = [system for system in systems if any(group in system.scores for group in suite.groups)]
    return [
        _published_table("by task", [*suite.tasks, "overall"], by_task),
        _published_table("by group", [*suite.groups, "overall"], by_group),
        _published_table("overall", ["overall"], sorted(systems, key=lambda system: -system.scores["overall"])),
    ]


def _published_table(title: str, rows: Sequence[str], systems: Sequence[Published]) -> Table:
    """Systems down and scores across where there are more systems than scores, else the other way round."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    if len(systems) > len(rows):
        table.add_column("system", no_wrap=True)
        for row in rows:
            table.add_column(row, justify="right")
        table.add_column("source", overflow="fold")
        for system in systems:
            table.add_row(_marked(system), *(_cell(system.scores, row) for row in rows), system.source)
        return table
    table.add_column("", no_wrap=True)
    for system in systems:
        table.add_column(_marked(system), justify="right", overflow="fold")
    for row in rows:
        table.add_row(row, *(_cell(system.scores, row) for system in systems))
    return table


def _marked(system: Published) -> str:
    return f"{system.system} *" if system.note else system.system


def _cell(scores: Mapping[str, float], name: str) -> str:
    return number(scores[name]) if name in scores else ""
