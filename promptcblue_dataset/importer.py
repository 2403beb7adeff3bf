"""From official files to the folder that goes to the Hub, and to ``load_dataset("promptcblue", ...)``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptcblue_dataset.checks import Checked, check_files
from promptcblue_dataset.folder import EMBEDDED, OFFICIAL, is_ours, write_folder
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import SAMPLE, SPLITS, resolve, sample_path, split_files
from promptcblue_metric.data.writing import replacing, write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import suite_of


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        output: the folder it wrote.
        report: the JSON file, beside that folder, that lists bad rows and warnings.
        cached: whether the datasets cache was filled.
        missing_splits: splits for which there was no file.
        missing_tasks: tasks without a good row, which have no config.
        checked: the rows.
    """

    output: Path
    report: Path
    cached: bool
    missing_splits: list[str]
    missing_tasks: list[str]
    checked: Checked

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by config and split."""
        return {
            config: {split: len(rows) for split, rows in splits.items()}
            for config, splits in self.checked.samples.items()
        }

    def warnings(self) -> Counter[str]:
        """Flaws in targets, by kind."""
        kinds: Counter[str] = Counter()
        for (_, kind), count in self.checked.warnings.items():
            kinds[kind] += count
        return kinds


def import_files(
    source: str | Path,
    output: str | Path,
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    cache: bool = True,
    on_progress: Progress = lambda doing, item, total: None,
) -> Imported:
    """Check the official files of ``source`` and write them to ``output`` in the Hub layout, whole or not at all.

    Args:
        source: a folder with the official files, or the word ``sample``.
        output: the folder to write; one that an earlier import wrote is replaced.
        skip_bad: leave bad rows out and list them in the report, rather than stop.
        overwrite: replace ``output`` whatever it holds.
        cache: make the rows what ``load_dataset("promptcblue", ...)`` gives in any folder.

    Raises:
        PromptCBLUEError: there is nothing to read, rows are bad (all are named), or something cannot be written.
    """
    folder, output = resolve(source), Path(output).expanduser()
    files = _files(folder)
    check_output(output, folder, overwrite)
    checked = check_files(files, lambda split: on_progress("reading", split, None))
    if not skip_bad:
        checked.bad.stop_if_any("nothing was written; mend the files, or leave the rows out with --on-error skip")
    if not checked.samples:
        checked.bad.stop_if_any("no other rows are there; nothing was written")
        raise PromptCBLUEError(f"{folder}: no rows in {', '.join(path.name for path in files.values())}")
    suite_of(checked.samples)  # before anything is written: a folder holds one suite
    origin = EMBEDDED if folder == sample_path() else OFFICIAL
    configs = list(checked.samples)
    with replacing(output) as temporary:
        write_folder(temporary, checked.samples, origin, lambda config: on_progress("writing", config, len(configs)))
    imported = Imported(
        output=output,
        report=output.absolute().with_name(f"{output.absolute().name}-import-report.json"),
        cached=cache,
        missing_splits=[split for split in SPLITS if split not in files],
        missing_tasks=[task for task in suite_of(checked.samples).tasks if task not in checked.samples],
        checked=checked,
    )
    write_json(imported.report, _report(imported, folder))
    if cache:
        fill_cache(output, configs, on_progress)
    return imported


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        what = "is a file; expected the folder with" if folder.exists() else "no such folder; expected one with"
        raise PromptCBLUEError(f"{folder}: {what} the official files (the embedded sample is called '{SAMPLE}')")
    files = split_files(folder)
    if not files:
        raise PromptCBLUEError(
            f"{folder}: no official files; expected train, dev and test (.json or .jsonl, .gz or not), at least one"
        )
    return files


def check_output(output: Path, source: Path, overwrite: bool) -> None:
    """Stop before any work if the output folder must not be replaced."""
    target = output.resolve()
    for precious in (Path.cwd(), Path.home(), source.resolve()):
        if precious.is_relative_to(target):
            raise PromptCBLUEError(
                f"{output}: cannot be replaced, since it is or holds {precious}; name another --output"
            )
    if not output.exists() or overwrite:
        return
    if not output.is_dir():
        raise PromptCBLUEError(f"{output}: is a file; name another --output, or replace it with --overwrite")
    if any(output.iterdir()) and not is_ours(output):
        raise PromptCBLUEError(
            f"{output}: holds files that no import wrote; name another --output, or replace it with --overwrite"
        )


def fill_cache(output: Path, configs: list[str], on_progress: Progress) -> None:
    """Make the rows of a written folder what ``load_dataset`` gives in any folder for the name of its suite.

    Raises:
        PromptCBLUEError: the cache cannot be written.
    """
    from datasets.exceptions import DatasetsError

    from promptcblue_dataset.promptcblue_dataset import prime

    try:
        prime(output, configs, lambda config: on_progress("caching", config, len(configs) + 1))
    except (OSError, DatasetsError) as error:
        raise PromptCBLUEError(
            f"{output} is written, but the datasets cache is not: {error}; set HF_HOME to a folder that can be "
            "written, or leave the cache alone with --no-cache"
        ) from error


def _report(imported: Imported, folder: Path) -> dict[str, Any]:
    checked = imported.checked
    return {
        "source": str(folder),
        "rows": checked.rows,
        "samples": imported.counts(),
        "missing_splits": imported.missing_splits,
        "missing_tasks": imported.missing_tasks,
        "warnings": [
            {"task": task, "kind": kind, "samples": count} for (task, kind), count in sorted(checked.warnings.items())
        ],
        "bad_rows": [
            {"file": error.path, "line": error.line, "field": error.field, "message": error.message}
            for error in checked.bad.errors
        ],
    }
