"""Spreadsheets that people fill: written with a frozen header and drop-downs, read back as rows of text."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptcblue_metric.errors import PromptCBLUEError

# What a cell of the format cannot hold, and what would be run as a formula.
_CONTROL = {code: None for code in range(32) if chr(code) not in "\t\n"}
_LIMIT = 32_000


def write_sheet(
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = _write_xlsx if path.suffix.lower() == ".xlsx" else _write_csv
        writer(temporary, columns, rows, choices)
        temporary.replace(path)
    except OSError as error:
        raise PromptCBLUEError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(path: Path, columns: Mapping[str, float], rows: Iterable[Sequence[str]], _: Any) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows([list(columns), *rows])


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
            cell.data_type = "s"  # text, also where it begins like a formula
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


def read_sheet(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
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
        return list(csv.reader(stream))


def _read_xlsx(path: Path) -> list[list[Any]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        return CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    except CalamineError as error:
        raise PromptCBLUEError(f"{path}: cannot be read as a spreadsheet: {error}") from error
