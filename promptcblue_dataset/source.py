"""Loading samples from wherever they are: a file, a folder of official files, an imported folder, or the Hub."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptcblue_dataset.folder import ALL, parquet_files
from promptcblue_dataset.official import SAMPLE, read_samples, resolve
from promptcblue_metric.data.predictions import load_split
from promptcblue_metric.data.samples import Sample, sample_from_row
from promptcblue_metric.data.splits import SPLITS, canonical_split, split_files
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, get_task

_HUB_ID = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")
_FILE_ENDINGS = (".json", ".jsonl", ".gz", ".parquet")


def load_samples(source: str | Path, split: str, tasks: Sequence[str] | None = None) -> list[Sample]:
    """The samples of one split, in the order of the source.

    Args:
        source: a JSON Lines file (``split`` is then not looked at), a folder with the official train, dev and test
            files, a folder that ``promptcblue-dataset import`` wrote, the word ``sample`` for the embedded sample, or
            a dataset's id on the Hub.
        split: ``train``, ``validation`` (or ``dev``) or ``test``.
        tasks: names or aliases of the tasks wanted; all that the source has by default.

    Raises:
        PromptCBLUEError: the source, the split or a task is not there (the message names what is), or a row is bad.
    """
    split = canonical_split(split)
    wanted = None if tasks is None else {get_task(name).name for name in tasks}
    path = resolve(source)
    if path.is_dir():
        return _checked(read_split(path, split, wanted), wanted, f"the {split} split of {path}")
    if path.exists():
        return _checked(_only(read_samples(path), wanted), wanted, str(path))
    return _checked(_from_hub(str(source), split, wanted), wanted, f"the {split} split of {source}")


def folder_files(folder: Path) -> Mapping[str, Sequence[Path]]:
    """The files that `read_split` reads, by split; a split without a file is left out.

    Raises:
        PromptCBLUEError: there is no such folder, or it holds neither the official files nor an imported dataset.
    """
    if not folder.is_dir():
        raise PromptCBLUEError(f"{folder}: no such folder (the embedded sample is called '{SAMPLE}')")
    if configs := parquet_files(folder):
        by_split = {split: [path for files in configs.values() for path in files.get(split, ())] for split in SPLITS}
        return {split: paths for split, paths in by_split.items() if paths}
    if files := split_files(folder):
        return {split: [path] for split, path in files.items()}
    raise PromptCBLUEError(
        f"{folder}: expected the official train, dev and test files (.json or .jsonl, .gz or not), "
        "or a folder that `promptcblue-dataset import` wrote; found neither"
    )


def read_split(folder: Path, split: str, wanted: Collection[str] | None = None) -> Iterator[Sample]:
    """The samples of a split of a folder, of the ``wanted`` tasks (config names) or all; maybe none.

    Raises:
        PromptCBLUEError: the folder or the split is not there, or a row is bad.
    """
    files = folder_files(folder)
    if split not in files:
        raise PromptCBLUEError(f"{folder} has no {split} split; it has {', '.join(files)}")
    for path in files[split]:
        if path.suffix != ".parquet":
            yield from _only(read_samples(path), wanted)
        elif wanted is None or path.parent.name in wanted:
            yield from _from_parquet(path)


def _only(samples: Iterable[Sample], wanted: Collection[str] | None) -> Iterator[Sample]:
    return (sample for sample in samples if wanted is None or sample["task_dataset"] in wanted)


def _checked(samples: Iterable[Sample], wanted: Collection[str] | None, where: str) -> list[Sample]:
    """The samples as a list, which must hold some of every wanted task."""
    found = list(samples)
    present = {sample["task_dataset"] for sample in found}
    if missing := [name for name in REGISTRY if name in (wanted or ()) and name not in present]:
        others = ", ".join(name for name in REGISTRY if name in present)
        raise PromptCBLUEError(
            f"{where} has no samples of {', '.join(missing)}"
            + (f"; of those asked for it has {others}" if others else "")
        )
    if not found:
        raise PromptCBLUEError(f"{where} has no samples")
    return found


def _from_parquet(path: Path) -> Iterator[Sample]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        yield from _from_rows(rows, path)


def _from_rows(rows: Iterable[Mapping[str, Any]], where: str | Path) -> Iterator[Sample]:
    return (sample_from_row(row, where, number) for number, row in enumerate(rows, 1))


def _from_hub(source: str, split: str, wanted: Collection[str] | None) -> Iterator[Sample]:
    if not _HUB_ID.fullmatch(source) or source.endswith(_FILE_ENDINGS):
        raise PromptCBLUEError(f"{source}: no such file or folder (the embedded sample is called '{SAMPLE}')")
    for config in [ALL] if wanted is None else [name for name in REGISTRY if name in wanted]:
        yield from load_split(source, split, config)
