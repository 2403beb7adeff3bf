"""The score table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ..cli.common import make_console
from ..evaluation import Result, further_scores
from ..tasks import REGISTRY, suite_of

if TYPE_CHECKING:
    from ..compare.significance import Interval

#: Three columns hold whichever scores a task has.
_SCORE_COLUMNS = (("precision", "rouge1"), ("recall", "rouge2"), ("f1", "rougeL"))


def score_table(result: Result, intervals: Mapping[str, Interval] | None = None) -> Table:
    """Scores of every task by group, with the group means and the overall score, in 0..1.

    Args:
        intervals: 95% intervals by task, group and ``overall``; without them the table has no such column.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("task", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("P / R-1", "R / R-2", "F1 / R-L", "score"):
        table.add_column(title, justify="right", no_wrap=True)
    if intervals:
        table.add_column("95% interval", justify="right", no_wrap=True)
    for title in ("samples", "well-formed"):
        table.add_column(title, justify="right", no_wrap=True)
    beside = {name: further_scores(name, task["scores"]) for name, task in result["tasks"].items()}
    if any(beside.values()):
        table.add_column("besides")

    def score(name: str, value: float) -> list[str]:
        between = intervals[name] if intervals else None
        return [number(value)] + ([f"{number(between.low)} … {number(between.high)}"] if between else [])

    for group, mean in result["groups"].items():
        for name, task in result["tasks"].items():
            if REGISTRY[name].group == group:
                cells = [*_three(task["scores"]), *score(name, task["score"])]
                cells += [str(task["samples"]), _share(task["well_formed"]), *_shown(beside[name])]
                table.add_row(name, task["metric"], *cells)
        table.add_row(group, "mean", "", "", "", *score(group, mean), "", "", style="dim", end_section=True)
    scored, all_tasks = len(result["tasks"]), len(suite_of(result["tasks"]).tasks)
    title = "overall" if scored == all_tasks else f"mean of {scored} of {all_tasks} tasks"
    counted = [str(result["samples"]), _share(result["well_formed"])]
    table.add_row(title, "", "", "", "", *score("overall", result["overall"]), *counted, style="bold")
    return table


def _three(scores: Mapping[str, float]) -> list[str]:
    """The scores of the three columns; a ranking has none of them."""
    found = (next((scores[name] for name in names if name in scores), None) for names in _SCORE_COLUMNS)
    return ["" if value is None else number(value) for value in found]


def _shown(scores: Mapping[str, float]) -> list[str]:
    return [", ".join(f"{name} {number(value)}" for name, value in scores.items())] if scores else []


def number(value: float) -> str:
    """A score for a table."""
    return f"{value:.4f}"


def _share(value: float) -> str:
    return f"{value:.1%}"


def print_scores(result: Result, intervals: Mapping[str, Interval] | None = None) -> None:
    """Print the table, what is missing, and the signature."""
    console = make_console()
    console.print(score_table(result, intervals))
    if result["missing_tasks"]:
        console.print(f"not in the references: {', '.join(result['missing_tasks'])}", markup=False)
    console.print(f"signature: {result['signature']}", markup=False, soft_wrap=True, highlight=False)
