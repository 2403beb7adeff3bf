"""The samples of official files, and the embedded ones, which have the same form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from promptcblue_metric.data.samples import Sample, read_json_lines, sample_from_row

#: The word that names the embedded sample where a folder is asked for.
SAMPLE = "sample"


def sample_path() -> Path:
    """The folder of the embedded sample, in the official form, test targets included."""
    return Path(__file__).parent / SAMPLE


def resolve(source: str | Path) -> Path:
    """The path that ``source`` names: the embedded sample for the word ``sample``, unless such a path exists."""
    path = Path(source).expanduser()
    return sample_path() if str(source) == SAMPLE and not path.exists() else path


def read_samples(path: Path) -> Iterator[Sample]:
    """The checked samples of one file; the first row that cannot be used raises a `RowError`."""
    for line, row in read_json_lines(path):
        yield sample_from_row(row, path, line)
