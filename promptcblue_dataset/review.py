"""The quality check of the paper's section 3.2: people examine a random part of each task's samples.

And the spreadsheets, ``.xlsx`` or ``.csv``, in which people give a verdict on each row.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

import typer

from promptcblue_dataset.draws import Draws
from promptcblue_dataset.options import SamplesArgument, TasksOption, task_names
from promptcblue_metric.cli.common import make_table, show
from promptcblue_metric.data.samples import ALL, Sample, canonical_split, folder_files, load_samples, resolve
from promptcblue_metric.data.writing import replacing_file
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.tasks import REGISTRY

# What a cell of the format cannot hold.
_CONTROL = {code: None for code in range(32) if chr(code) not in "\t\n"}
_LIMIT = 32_000
#: Beginnings that a spreadsheet takes for a formula's, which a quotation mark before them makes text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def write_rows(
    path: Path, columns: Mapping[str, float], rows: Iterable[Sequence[str]], verdicts: Sequence[str] = ()
) -> None:
    """Write rows below a header, whole or not at all.

    Args:
        path: ``.xlsx`` or ``.csv``.
        columns: title and width of each column.
        verdicts: what the drop-down of the column ``verdict`` offers, where the format has such.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    if path.suffix.lower() not in (".xlsx", ".csv"):
        raise PromptCBLUEError(f"{path}: expected a name that ends in .xlsx or .csv")
    with replacing_file(path) as temporary:
        if path.suffix.lower() == ".xlsx":
            _write_xlsx(temporary, columns, rows, verdicts)
        else:
            # The format knows no kinds of cells.
            texts = ([("'" if _FORMULA.match(text) else "") + text for text in row] for row in rows)
            with temporary.open("w", encoding="utf-8-sig", newline="") as stream:
                csv.writer(stream).writerows([list(columns), *texts])


def _write_xlsx(
    path: Path, columns: Mapping[str, float], rows: Iterable[Sequence[str]], verdicts: Sequence[str]
) -> None:
    from openpyxl import Workbook
    from openpyxl.styles import Alignment, Font
    from openpyxl.worksheet.datavalidation import DataValidation

    book = Workbook()
    sheet = book.active
    heads = [sheet.cell(1, number, title) for number, title in enumerate(columns, 1)]
    for head, width in zip(heads, columns.values(), strict=True):
        head.font = Font(bold=True)
        sheet.column_dimensions[head.column_letter].width = width
    for number, row in enumerate(rows, 2):
        for column, value in enumerate(row, 1):
            cell = sheet.cell(number, column, value.translate(_CONTROL)[:_LIMIT])
            # Text, also where it begins like a formula and somebody edits it.
            cell.data_type, cell.number_format, cell.quotePrefix = "s", "@", bool(_FORMULA.match(value))
            cell.alignment = Alignment(wrap_text=True, vertical="top")
    sheet.freeze_panes = "A2"
    for letter in (head.column_letter for head in heads if head.value == "verdict" and sheet.max_row > 1):
        offered = DataValidation(type="list", formula1=f'"{",".join(verdicts)}"', allow_blank=True)
        offered.add(f"{letter}2:{letter}{sheet.max_row}")
        sheet.add_data_validation(offered)
    book.save(path)


def read_rows(path: Path, needed: Sequence[str], verdicts: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a spreadsheet by column title.

    Args:
        needed: columns that have to be there.
        verdicts: what the column ``verdict`` may hold, in any letter case, or nothing; by default it is not looked at.

    Raises:
        PromptCBLUEError: it cannot be read, a needed column is not there, or a verdict is none of those.
    """
    try:
        table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_xlsx(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PromptCBLUEError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    titles = [str(title).strip() for title in table[0]] if table else []
    if missing := [title for title in needed if title not in titles]:
        raise PromptCBLUEError(f"{path}: expected the columns {', '.join(needed)}; there is no {', '.join(missing)}")
    rows = [dict(zip(titles, map(str, row), strict=False)) for row in table[1:] if any(row)]
    for number, row in enumerate(rows if verdicts else (), 2):
        row["verdict"] = verdict = row["verdict"].strip().casefold()
        if verdict not in ("", *verdicts):
            expected = f"expected {', '.join(verdicts)} or nothing, found {verdict!r:.80}"
            raise RowError(str(path), number, "verdict", expected)
    return rows


def _read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [[text[text[:1] == "'" and bool(_FORMULA.match(text)) :] for text in row] for row in csv.reader(stream)]


def _read_xlsx(path: Path) -> list[list[Any]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        return CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()
    except CalamineError as error:
        raise PromptCBLUEError(f"{path}: cannot be read as a spreadsheet: {error}") from error


_VERDICTS = RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"
_COLUMNS = {"task": 15, "split": 10, "sample_id": 15, "input": 70, "target": 45, "verdict": 10, "comment": 30}


def draw_sheet(
    source: SamplesArgument,
    output: Annotated[Path, typer.Argument(help="Spreadsheet to write (.xlsx).")],
    number: Annotated[str, typer.Option("--number", help="Samples a task: a share such as 5%, or a number.")] = "200",
    split: Annotated[str | None, typer.Option(help="Draw from this split alone.")] = None,
    tasks: TasksOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Draw samples of each task into a spreadsheet with a drop-down for the verdict (the paper took 5% or 200)."""
    if output.suffix.lower() != ".xlsx":
        raise PromptCBLUEError(f"{output}: expected a name that ends in .xlsx")
    names = task_names(tasks) or list(REGISTRY)
    by_task: dict[str, list[tuple[str, Sample]]] = {name: [] for name in names}
    for name in [canonical_split(split)] if split else folder_files(resolve(source)):
        for sample in load_samples(source, name):
            if sample["target"] and sample["task_dataset"] in by_task:
                by_task[sample["task_dataset"]].append((name, sample))
    rows, counts = [], {}
    for task, samples in by_task.items():
        if samples:
            drawn = Draws(seed, "review", task).some(samples, _number(number, len(samples)))
            counts[task] = len(drawn)
            rows += [(task, name, row["sample_id"], row["input"], row["target"], "", "") for name, row in drawn]
    if not rows:
        raise PromptCBLUEError(f"{source}: no samples with targets of {', '.join(names)}")
    write_rows(output, _COLUMNS, rows, _VERDICTS)
    for task, count in counts.items():
        print(f"{task}\t{count}")
    print(f"wrote {output}")


def _number(text: str, available: int) -> int:
    """How many samples a share such as ``5%``, or a number, is (all where there are fewer)."""
    share = text.endswith("%")
    try:
        number = float(text[:-1]) / 100 if share else int(text)
    except ValueError:
        number = -1
    if not (0 < number <= 1 if share else number > 0):
        raise PromptCBLUEError(f"--number {text}: expected a share such as 5%, or a number of samples")
    return min(available, math.ceil(number * available) if share else int(number))


def tally(
    sheet: Annotated[Path, typer.Argument(help="The filled spreadsheet.")],
    confidence: Annotated[float, typer.Option(help="Confidence of the intervals.")] = 0.95,
) -> None:
    """Print the rate of mislabelled samples by task with Wilson intervals."""
    verdicts: dict[str, Counter[str]] = {}
    for row in read_rows(sheet, ("task", "verdict"), _VERDICTS):
        verdicts.setdefault(row["task"], Counter())[row["verdict"]] += 1
    if not verdicts:
        raise PromptCBLUEError(f"{sheet}: no rows below the header")
    table = make_table("config", "examined", "mislabelled", "unsure", "open", "rate", f"{confidence:.0%} interval")
    for task, found in [*verdicts.items(), (ALL, sum(verdicts.values(), Counter[str]()))]:
        examined, rate, interval = found[RIGHT] + found[WRONG], "–", "–"
        if examined:
            low, high = wilson(found[WRONG], examined, confidence)
            rate, interval = f"{found[WRONG] / examined:.1%}", f"{low:.1%} – {high:.1%}"
        table.add_row(task, *map(str, (examined, found[WRONG], found[UNSURE], found[""])), rate, interval)
    show(table)


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, scale = hits / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)
