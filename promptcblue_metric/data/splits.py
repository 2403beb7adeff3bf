"""Splits: their names, and the official files they are in (``train``, ``dev`` and ``test``, gzipped or not)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import PromptCBLUEError

#: Each split of the dataset, in its order, and the names its file can have (the first is the official one).
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("dev", "validation"),
    "test": ("test",),
}
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


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
