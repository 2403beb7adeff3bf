"""What the sub-commands of ``promptcblue-dataset`` share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from promptcblue_dataset.importer import Progress


class OnError(str, Enum):
    """What to do with rows or raw records that cannot be used."""

    stop = "stop"
    skip = "skip"


def number_table(*columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(columns):
        table.add_column(title, no_wrap=True, justify="right" if place else "left")
    return table


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars on stderr, one for each thing that is done; none when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bars:
        shown = {}

        def on_progress(doing: str, item: str, total: int | None) -> None:
            if doing not in shown:
                shown[doing] = bars.add_task(doing, total=total)
            bars.update(shown[doing], advance=1, description=f"{doing} {item}")

        yield on_progress
