"""The ``promptcblue-dataset`` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptcblue_dataset.build_commands import add_commands
from promptcblue_dataset.terminal import OnError, progress
from promptcblue_metric.console import make_app, make_console, run

if TYPE_CHECKING:
    from promptcblue_dataset.importer import Imported

app = make_app("Make the PromptCBLUE dataset from its files.")


@app.command("import", epilog="Example: promptcblue-dataset import downloads/PromptCBLUE --output promptcblue")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Folder with train, dev and test (.json or .jsonl, .gz or not), or the word `sample` for the small "
            "data that come with the package.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; it can be uploaded to the Hub as it is.")] = Path(
        "promptcblue"
    ),
    on_error: Annotated[
        OnError, typer.Option(help="Bad rows: stop and write nothing, or skip and list them in the report.")
    ] = OnError.stop,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output folder even if no import wrote it.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help='Make load_dataset("promptcblue") work in any folder.')
    ] = True,
) -> None:
    """Check official files and write them as a dataset: Parquet by config and split, and a card."""
    from promptcblue_dataset.importer import import_files

    with progress() as on_progress:
        imported = import_files(
            source,
            output,
            skip_bad=on_error is OnError.skip,
            overwrite=overwrite,
            cache=cache,
            on_progress=on_progress,
        )
    _print_summary(imported)


def _print_summary(imported: Imported) -> None:
    from promptcblue_dataset.summary import notes, table

    console = make_console()
    console.print(table(imported))
    for line in notes(imported):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


add_commands(app)


def main() -> None:
    """Entry point of the command."""
    run(app)
