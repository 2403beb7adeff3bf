"""The official files: ``train``, ``dev`` and ``test``, ``.json`` or ``.jsonl``, plain or gzipped, in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.records import Sample, read_json_lines, sample_from_row

#: Each split of the dataset, in its order, and the names its file can have (the first is the official one).
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("dev", "validation"),
    "test": ("test",),
}
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")

#: The word that names the embedded sample where a folder is asked for.
SAMPLE = "sample"


def sample_path() -> Path:
    """The folder of the embedded sample, in the official form, test targets included."""
    return Path(__file__).parent / SAMPLE


def resolve(source: str | Path) -> Path:
    """The path that ``source`` names: the embedded sample for the word ``sample``, unless such a path exists."""
    path = Path(source).expanduser()
    return sample_path() if str(source) == SAMPLE and not path.exists() else path


def canonical_split(split: str) -> str:
    """``train``, ``validation`` or ``test``; ``dev`` is the official spelling of ``validation``.

    Raises:
        PromptCBLUEError: no split is called so.
    """
    for name, spellings in SPLITS.items():
        if split in (name, *spellings):
            return name
    raise PromptCBLUEError(f"unknown split '{split}'; the splits are train, validation (or dev) and test")


def split_files(folder: Path) -> dict[str, Path]:
    """The split files of an official folder, by split; a split without a file is left out.

    Raises:
        PromptCBLUEError: a split has several files, so that it is not clear which one is meant.
    """
    found: dict[str, Path] = {}
    for split, stems in SPLITS.items():
        paths = [path for stem in stems for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise PromptCBLUEError(f"{folder}: several files for the {split} split ({names}); keep one of them")
        if paths:
            found[split] = paths[0]
    return found


def read_samples(path: Path) -> Iterator[Sample]:
    """The checked samples of one file; the first row that cannot be used raises a `RowError`."""
    for line, row in read_json_lines(path):
        yield sample_from_row(row, path, line)
