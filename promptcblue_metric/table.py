"""The score table for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from .evaluation import Result
from .tasks import GROUPS, TASKS

#: Three columns hold whichever scores a task has.
_SCORE_COLUMNS = (("precision", "rouge1"), ("recall", "rouge2"), ("f1", "rougeL"))


def score_table(result: Result) -> Table:
    """Scores of every task by group, with the group means and the overall score, in 0..1."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("task", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("P / R-1", "R / R-2", "F1 / R-L", "score", "samples", "well-formed"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in GROUPS:
        if group in result["groups"]:
            _add_group(table, result, group)
    scored = len(result["tasks"])
    title = "overall" if scored == len(TASKS) else f"mean of {scored} of {len(TASKS)} tasks"
    table.add_row(
        title, "", "", "", "", _number(result["overall"]), str(result["samples"]), _share(result), style="bold"
    )
    return table


def _add_group(table: Table, result: Result, group: str) -> None:
    names = [name for name in result["tasks"] if TASKS[name].group == group]
    for name in names:
        task = result["tasks"][name]
        scores = [_number(task["scores"][f1 if f1 in task["scores"] else rouge]) for f1, rouge in _SCORE_COLUMNS]
        row = [name, task["metric"], *scores, _number(task["score"]), str(task["samples"]), _share(task)]
        table.add_row(*row)
    table.add_row(group, "mean", "", "", "", _number(result["groups"][group]), "", "", style="dim", end_section=True)


def _number(value: float) -> str:
    return f"{value:.4f}"


def _share(counted: Result | object) -> str:
    return f"{counted['well_formed']:.1%}"  # type: ignore[index]


def print_scores(result: Result, console: Console | None = None) -> None:
    """Print the table, what is missing, and the signature."""
    console = console or Console()
    if not console.is_terminal:
        # A pipe or a file has no width to fit into.
        console = Console(width=120, file=console.file)
    console.print(score_table(result))
    if result["missing_tasks"]:
        console.print(f"not in the references: {', '.join(result['missing_tasks'])}", markup=False)
    console.print(f"signature: {result['signature']}", markup=False, soft_wrap=True, highlight=False)
