"""The ``promptcblue-dataset`` command."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptcblue_dataset.build_commands import add_commands
from promptcblue_dataset.terminal import OnError, number_table, progress
from promptcblue_metric.cli.common import make_app, make_console, run
from promptcblue_metric.hub.client import (
    DEFAULT_TAG,
    DryRunOption,
    PrivateOption,
    RepoOption,
    TagOption,
    check_names,
    publish_or_write,
)

if TYPE_CHECKING:
    from promptcblue_dataset.importer import Imported

app = make_app("Make the PromptCBLUE dataset from its files.")


class SuiteName(str, Enum):
    """What the source holds."""

    promptcblue = "promptcblue"
    chineseblue = "chineseblue"


@app.command("import", epilog="Example: promptcblue-dataset import downloads/PromptCBLUE --output promptcblue")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Folder with train, dev and test (.json or .jsonl, .gz or not), the word `sample` for the small data "
            "that come with the package, or with --suite chineseblue the folder of its raw corpora.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write, by default named for the suite; it can be uploaded to the Hub as it is."),
    ] = None,
    suite: Annotated[
        SuiteName, typer.Option(help="promptcblue: files in the official form. chineseblue: its raw corpora.")
    ] = SuiteName.promptcblue,
    on_error: Annotated[
        OnError | None,
        typer.Option(
            help="Bad rows: stop and write nothing (the default), or skip and list them in the report (the default for "
            "raw corpora, whose flaws are known)."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output folder even if no import wrote it.")
    ] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Make load_dataset of the suite's name work in any folder.")
    ] = True,
) -> None:
    """Check official files, or read raw ChineseBLUE, and write a dataset: Parquet by config and split, and a card."""
    output = output or Path(suite.value)
    if suite is SuiteName.chineseblue:
        _import_raw(source, output, skip_bad=on_error is not OnError.stop, overwrite=overwrite, cache=cache)
        return
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


def _import_raw(source: str, output: Path, *, skip_bad: bool, overwrite: bool, cache: bool) -> None:
    from promptcblue_dataset.raw_import import import_raw, summary, table_rows

    with progress() as on_progress:
        imported = import_raw(
            source, output, skip_bad=skip_bad, overwrite=overwrite, cache=cache, on_progress=on_progress
        )
    console = make_console()
    shown = number_table("config", "split", "records", "documented", "skipped", "samples", "mended", "kept")
    for row in table_rows(imported):
        shown.add_row(*row)
    console.print(shown)
    for line in summary(imported):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_summary(imported: Imported) -> None:
    from promptcblue_dataset.summary import notes, table

    console = make_console()
    console.print(table(imported))
    for line in notes(imported):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: promptcblue-dataset publish promptcblue --repo ORG/promptcblue --dry-run look")
def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that import or build wrote.")],
    repo: RepoOption,
    private: PrivateOption = False,
    dry_run: DryRunOption = None,
    tag: TagOption = DEFAULT_TAG,
    have_rights: Annotated[
        bool,
        typer.Option("--i-have-the-rights", help="I may publish this text, though it is under the terms of others."),
    ] = False,
) -> None:
    """Publish a dataset on the Hub, with its statistics, sources and citations in the card; safe to repeat.

    One commit holds all that has changed; where nothing has, there is none. The log-in is that of `hf auth login`.
    """
    from promptcblue_dataset.publish import next_command, publication

    check_names(repo, tag)
    with progress() as on_progress:
        dataset = publication(folder, repo, have_rights=have_rights, on_progress=on_progress)
    publish_or_write(dataset, repo, private=private, tag=tag, dry_run=dry_run, then=next_command(folder, repo))


add_commands(app)


def main() -> None:
    """Entry point of the command."""
    run(app)
