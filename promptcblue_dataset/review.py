"""The quality check of the paper's section 3.2: people examine a random part of each task's samples."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from promptcblue_dataset.draws import Draws
from promptcblue_metric.data.samples import Sample, canonical_split, folder_files, load_samples, resolve
from promptcblue_metric.data.writing import replacing_file
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.tasks import REGISTRY

# What a cell of the format cannot hold.
_CONTROL = {code: None for code in range(32) if chr(code) not in "\t\n"}
_LIMIT = 32_000
#: Beginnings that a spreadsheet takes for a formula's, which a quotation mark before them makes text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def write_rows(
    path: Path, columns: Mapping[str, float], rows: Iterable[Sequence[str]], choices: Mapping[str, Sequence[str]]
) -> None:
    """Write rows below a header, whole or not at all.

    Args:
        path: ``.xlsx``, or ``.csv`` where no drop-downs are needed.
        columns: title and width of each column.
        choices: the values of the columns that have a drop-down, by title.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    if path.suffix.lower() not in (".xlsx", ".csv"):
        raise PromptCBLUEError(f"{path}: expected a name that ends in .xlsx or .csv")
    writer = _write_xlsx if path.suffix.lower() == ".xlsx" else _write_csv
    with replacing_file(path) as temporary:
        writer(temporary, columns, rows, choices)


def _write_csv(path: Path, columns: Mapping[str, float], rows: Iterable[Sequence[str]], _: Any) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        # The format knows no kinds of cells.
        texts = ([("'" if _FORMULA.match(text) else "") + text for text in row] for row in rows)
        csv.writer(stream).writerows([list(columns), *texts])


def _write_xlsx(
    path: Path, columns: Mapping[str, float], rows: Iterable[Sequence[str]], choices: Mapping[str, Sequence[str]]
) -> None:
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = Workbook()
    sheet = book.active
    sheet.append(list(columns))
    for row in rows:
        sheet.append([""] * len(row))
        for cell, value in zip(sheet[sheet.max_row], row, strict=True):
            cell.value = value.translate(_CONTROL)[:_LIMIT]
            # Text, also where it begins like a formula and somebody edits it.
            cell.data_type, cell.number_format, cell.quotePrefix = "s", "@", bool(_FORMULA.match(value))
            cell.alignment = Alignment(wrap_text=True, vertical="top")
    sheet.freeze_panes = "A2"
    for number, (title, width) in enumerate(columns.items(), 1):
        letter = get_column_letter(number)
        sheet.column_dimensions[letter].width = width
        sheet[f"{letter}1"].font = Font(bold=True)
        if title in choices and sheet.max_row > 1:
            values = DataValidation(type="list", formula1=f'"{",".join(choices[title])}"', allow_blank=True)
            values.add(f"{letter}2:{letter}{sheet.max_row}")
            sheet.add_data_validation(values)
    book.save(path)


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a spreadsheet (``.xlsx`` or ``.csv``) by column title.

    Raises:
        PromptCBLUEError: it cannot be read, or a needed column is not there.
    """
    try:
        table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_xlsx(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PromptCBLUEError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    titles = [str(title).strip() for title in table[0]] if table else []
    if missing := [title for title in needed if title not in titles]:
        raise PromptCBLUEError(f"{path}: expected the columns {', '.join(needed)}; there is no {', '.join(missing)}")
    return [dict(zip(titles, map(str, row), strict=False)) for row in table[1:] if any(row)]


def _read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [[text[text[:1] == "'" and bool(_FORMULA.match(text)) :] for text in row] for row in csv.reader(stream)]


def _read_xlsx(path: Path) -> list[list[Any]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        return CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    except CalamineError as error:
        raise PromptCBLUEError(f"{path}: cannot be read as a spreadsheet: {error}") from error


RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"
_COLUMNS = {"task": 15, "split": 10, "sample_id": 15, "input": 70, "target": 45, "verdict": 10, "comment": 30}


@dataclass(frozen=True)
class Tally:
    """What annotators found in the samples of a task (or of ``all``): samples by verdict, ``open`` without one."""

    task: str
    right: int
    wrong: int
    unsure: int
    open: int
    interval: tuple[float, float]  # Wilson's, of the rate

    @property
    def examined(self) -> int:
        """Samples that are right or wrong."""
        return self.right + self.wrong

    @property
    def rate(self) -> float:
        """Share of the examined samples that are wrong."""
        return self.wrong / self.examined if self.examined else math.nan


def write_sheet(
    source: str, output: Path, number: str, split: str | None, tasks: Sequence[str], seed: int
) -> dict[str, int]:
    """Draw samples of each task that have a target and write them for review; how many there are, by task.

    Args:
        number: a share such as ``5%``, or how many of each task (all where there are fewer).

    Raises:
        PromptCBLUEError: the number is neither, there are no samples, or the file cannot be written.
    """
    if output.suffix.lower() != ".xlsx":
        raise PromptCBLUEError(f"{output}: expected a name that ends in .xlsx")
    by_task: dict[str, list[tuple[str, Sample]]] = {}
    for name in [canonical_split(split)] if split else folder_files(resolve(source)):
        for sample in load_samples(source, name):
            if sample["target"] and sample["task_dataset"] in tasks:
                by_task.setdefault(sample["task_dataset"], []).append((name, sample))
    rows, counts = [], {}
    for task in (task for task in REGISTRY if task in by_task):
        samples = by_task[task]
        drawn = Draws(seed, "review", task).some(samples, _number(number, len(samples)))
        counts[task] = len(drawn)
        rows += [(task, name, sample["sample_id"], sample["input"], sample["target"], "", "") for name, sample in drawn]
    if not rows:
        raise PromptCBLUEError(f"{source}: no samples with targets of {', '.join(tasks)}")
    write_rows(output, _COLUMNS, rows, {"verdict": (RIGHT, WRONG, UNSURE)})
    return counts


def _number(text: str, available: int) -> int:
    share = text.endswith("%")
    try:
        number = float(text[:-1]) / 100 if share else int(text)
    except ValueError:
        number = -1
    if not (0 < number <= 1 if share else number > 0):
        raise PromptCBLUEError(f"--number {text}: expected a share such as 5%, or a number of samples")
    return min(available, math.ceil(number * available) if share else int(number))


def tally(sheet: Path, confidence: float = 0.95) -> list[Tally]:
    """Count the verdicts of a filled sheet by task, and of all tasks together in the last row.

    Raises:
        PromptCBLUEError: the sheet cannot be read or a verdict is none of ours.
    """
    verdicts: dict[str, list[str]] = {}
    for number, row in enumerate(read_rows(sheet, ("task", "verdict")), 2):
        verdicts.setdefault(row["task"], []).append(verdict_of(row, (RIGHT, WRONG, UNSURE), sheet, number))
    if not verdicts:
        raise PromptCBLUEError(f"{sheet}: no rows below the header")
    everything = [verdict for found in verdicts.values() for verdict in found]
    return [_count(task, found, confidence) for task, found in [*verdicts.items(), ("all", everything)]]


def verdict_of(row: Mapping[str, str], allowed: Sequence[str], sheet: Path, number: int) -> str:
    """The verdict in a row of a sheet, or nothing.

    Raises:
        RowError: it is none of those allowed.
    """
    verdict = row["verdict"].strip().casefold()
    if verdict and verdict not in allowed:
        expected = f"expected {', '.join(allowed)} or nothing"
        raise RowError(str(sheet), number, "verdict", f"{expected}, found {verdict!r:.80}")
    return verdict


def _count(task: str, verdicts: Sequence[str], confidence: float) -> Tally:
    right, wrong, unsure, left = (verdicts.count(verdict) for verdict in (RIGHT, WRONG, UNSURE, ""))
    return Tally(task, right, wrong, unsure, left, wilson(wrong, right + wrong, confidence))


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, scale = hits / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)
