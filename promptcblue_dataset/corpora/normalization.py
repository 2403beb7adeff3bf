"""CHIP-CDN: diagnoses as doctors write them, and the sheet of ICD-10 terms that they are matched with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_dataset.corpora.reading import (
    Content,
    OnError,
    RawError,
    Reading,
    Record,
    RecordCorpus,
    labelled,
    stop,
)

_CODE = re.compile(r"[A-Z]\d{2}[\d.xX+*†A-Z/-]*")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@labelled("normalized_result")
def _terms(record: Record) -> Content:
    terms = [term for part in record.line("normalized_result").split("##") if (term := part.strip())]
    answer = [{"entity": term, "type": "normalization"} for term in dict.fromkeys(terms)]
    return Content({"INPUT_TEXT": record.line("text")}, answer)


@dataclass(frozen=True)
class NormalizationCorpus(RecordCorpus):
    """A corpus whose terms stand in a sheet (or a text table) of code and term."""

    vocabulary: str = r".*ICD.?10.*\.(xlsx|tsv|txt)"

    def read(self, files: RawFiles, tasks: Sequence[str], seed: int, on_error: OnError = stop) -> Reading | None:
        reading = super().read(files, tasks, seed, on_error)
        if reading is None:
            return None
        path = files.find(self.vocabulary)
        if path is None:
            raise RawError(
                f"{files.root}: {self.name} needs its sheet of ICD-10 terms "
                "(国际疾病分类 ICD-10北京临床版v601.xlsx); put it beside the corpus, or leave the task out with --tasks"
            )
        reading.offers[self.name] = read_terms(path)
        return reading


def read_terms(path: Path) -> list[str]:
    """The terms of a table whose rows hold an ICD-10 code and a term, in whichever columns; other rows are headings.

    Raises:
        RawError: the file cannot be read, or no row is of that kind.
    """
    rows = _sheet_rows(path) if path.suffix.lower() == ".xlsx" else _text_rows(path)
    terms: dict[str, None] = {}
    for row in rows:
        cells = [str(cell).strip() for cell in row if cell is not None]
        names = [cell for cell in cells if _CHINESE.search(cell)]
        if names and any(_CODE.fullmatch(cell) for cell in cells):
            terms[" ".join(names[0].split())] = None
    if not terms:
        raise RawError(f"{path}: expected rows of an ICD-10 code and a term, found none")
    return list(terms)


def _sheet_rows(path: Path) -> Iterator[Sequence[Any]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(path)
        for name in book.sheet_names:
            yield from book.get_sheet_by_name(name).iter_rows()
    except (CalamineError, OSError) as error:
        raise RawError(f"{path}: cannot be read as a spreadsheet: {error}") from error


def _text_rows(path: Path) -> Iterator[Sequence[str]]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for line in stream:
                yield line.rstrip("\n").split("\t")
    except (OSError, UnicodeDecodeError) as error:
        raise RawError(f"{path}: cannot be read as UTF-8 text: {error}") from error


CDN = NormalizationCorpus("CHIP-CDN", "CHIP-CDN", {"CHIP-CDN": _terms})
