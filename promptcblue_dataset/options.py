"""Options that several commands of ``promptcblue-dataset`` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptcblue_metric.tasks import REGISTRY, get_task

SamplesArgument = Annotated[
    str, typer.Argument(metavar="SRC", help="Folder that build or import wrote, or official files.")
]
PoolOption = Annotated[
    Path | None, typer.Option(help="A pool in the official templates.json form, in place of the project's own.")
]
TasksOption = Annotated[str | None, typer.Option(help="Tasks, separated by commas; by default all.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output folder whatever it holds, changes by hand too.")
]


def task_names(tasks: str | None) -> list[str] | None:
    """The tasks of an option in the registry's order; None without it."""
    if tasks is None:
        return None
    names = {get_task(name.strip()).name for name in tasks.split(",")}
    return [name for name in REGISTRY if name in names]
