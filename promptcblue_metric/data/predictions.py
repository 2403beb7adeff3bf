"""Prediction files: reading them, and matching them with the references by task and sample id."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from ..errors import PromptCBLUEError, RowError, UnknownTaskError
from ..tasks import get_task
from .samples import Sample, parse_json_line, read_json_lines, sample_from_row, seekable_lines
from .splits import canonical_split, split_files

Row = TypeVar("Row")

#: How many bad rows a message lists before it only counts them.
LISTED = 20


@dataclass(frozen=True)
class Prediction:
    """One row of a predictions file.

    Attributes:
        sample_id: id of the sample it answers.
        text: the model's output.
        task: config name, or None where the row does not say.
        written_task: the task as the row spells it.
        choices: the row's own answer choices; None where it has none.
        line: 1-based line in the file.
        prompt: the row's own ``input``, or "".
    """

    sample_id: str
    text: str
    task: str | None
    written_task: str | None
    choices: Sequence[str] | None
    line: int
    prompt: str = ""


class BadRows:
    """Collects the bad rows of a file, so that one run reports them all."""

    def __init__(self) -> None:
        self.errors: list[RowError] = []

    def add(self, error: RowError) -> None:
        """Keep one; a callback for `read_json_lines`."""
        self.errors.append(error)

    def stop_if_any(self, remedy: str) -> None:
        """Raise `PromptCBLUEError` that lists what was collected and says how to go on."""
        if self.errors:
            listed = [str(error) for error in sorted(self.errors, key=lambda error: error.line)[:LISTED]]
            if len(self.errors) > LISTED:
                listed.append(f"… and {len(self.errors) - LISTED} more")
            raise PromptCBLUEError("\n".join([f"{len(self.errors)} bad row(s); {remedy}", *listed]))


def read_predictions(path: str | Path) -> Iterator[Prediction]:
    """The rows of a predictions file: ``sample_id`` and ``prediction``, or the official form, whose output stands in
    ``target``. ``task_dataset`` and ``answer_choices`` are read where a row has them.

    Raises:
        PromptCBLUEError: at the end, lists every row that cannot be used.
    """
    return _read_all(path, _prediction_from_row, "mend the predictions file, or predict again")


def _read_all(path: str | Path, read: Callable[[dict[str, Any], str | Path, int], Row], remedy: str) -> Iterator[Row]:
    """What ``read`` makes of each row, and at the end an error that lists the rows it refused."""
    bad = BadRows()
    for line, row in read_json_lines(path, bad.add):
        try:
            yield read(row, path, line)
        except RowError as error:
            bad.add(error)
    bad.stop_if_any(remedy)


def _failed(row: Mapping[str, Any]) -> bool:
    """Whether the row says why its sample has no prediction, in place of one."""
    return "error" in row and "prediction" not in row


def _prediction_from_row(row: dict[str, Any], path: str | Path, line: int) -> Prediction:
    if _failed(row):
        message = f"this sample has no prediction, for {row['error']!r:.120}; predict again, or with --failed-as-empty"
        raise RowError(str(path), line, "error", message)
    text_field = "prediction" if "prediction" in row else "target"
    for field in ("sample_id", text_field):
        if not isinstance(row.get(field), str):
            found = repr(row[field])[:80] if field in row else "no such field"
            wanted = "'prediction' (or 'target', the official form)" if field == text_field else "'sample_id'"
            raise RowError(str(path), line, field, f"expected a string in {wanted}, found {found}")
    written_task, choices = row.get("task_dataset"), row.get("answer_choices")
    try:
        task = get_task(written_task).name if isinstance(written_task, str) else None
    except UnknownTaskError as error:
        raise RowError(str(path), line, "task_dataset", str(error)) from error
    if choices is not None and not (isinstance(choices, list) and all(isinstance(item, str) for item in choices)):
        raise RowError(str(path), line, "answer_choices", f"expected a list of strings or null, found {choices!r:.80}")
    prompt = row["input"] if isinstance(row.get("input"), str) else ""
    return Prediction(row["sample_id"], row[text_field], task, written_task, choices, line, prompt)


def read_references(source: str, split: str, configs: Sequence[str] | None = None) -> Iterator[Sample]:
    """The reference rows of a JSON Lines file, or of one split of a folder of official files, a dataset folder or a
    dataset of the Hub, one by one.

    Args:
        configs: tasks, by name or alias, to leave the others out; every task by default.

    Raises:
        PromptCBLUEError: the source or split does not exist, or rows are bad (all are listed, at the end).
    """
    rows = _read_split(source, canonical_split(split))
    if configs is None:
        return rows
    names = {get_task(name).name for name in configs}
    return (row for row in rows if row["task_dataset"] in names)


def _read_split(source: str, split: str) -> Iterator[Sample]:
    path = Path(source).expanduser()
    if path.is_dir() and (official := split_files(path)):
        if split not in official:
            raise PromptCBLUEError(f"{source} has no {split} split; it has {', '.join(official)}")
        path = official[split]
    if path.is_file():
        return _read_all(path, _reference, "mend the references file")
    return load_split(source, split)


def _reference(row: dict[str, Any], source: str | Path, line: int) -> Sample:
    """A reference row, with the name of its prompt template (no field of the benchmark) where the file has it."""
    sample = sample_from_row(row, source, line)
    template = row.get("template")
    return cast(Sample, {**sample, "template": template}) if isinstance(template, str) else sample


def load_split(source: str, split: str, config: str = "all") -> Iterator[Sample]:
    """The rows of one split of a dataset folder or of a dataset of the Hub.

    Raises:
        PromptCBLUEError: it cannot be loaded.
    """
    from datasets import disable_progress_bars, load_dataset

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        rows = load_dataset(source, config, split=canonical_split(split))
    except Exception as error:
        # datasets raises many types here, from ValueError for a split to client errors of the Hub.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PromptCBLUEError(
            f"{source}: no such file, and its config '{config}', split '{split}', cannot be loaded as a dataset "
            f"folder (as `promptcblue-dataset import` writes it) or a dataset of the Hub: {reason}"
        ) from error
    for line, row in enumerate(rows, 1):
        yield _reference(row, f"{source}/{config}/{split}", line)


class _Index:
    """Where each prediction of a file stands, so that a file of any length is matched in any order in little memory."""

    def __init__(self, path: str | Path, bad: BadRows) -> None:
        self._path = path
        self._lines, self._offsets = array("L"), array("Q")
        #: Row number by sample id, for each task, and for the rows that do not name theirs (None).
        self._rows: dict[str | None, dict[str, int]] = {}
        self._stream = seekable_lines(path)
        for line, offset, content in self._stream:
            try:
                row = parse_json_line(content, path, line)
                if not _failed(row):  # the same as no row: its sample counts as not predicted
                    self._add(_prediction_from_row(row, path, line), offset, bad)
            except RowError as error:
                bad.add(error)
        #: The task whose reference has taken each row.
        self._taken_by: list[str | None] = [None] * len(self._lines)

    def _add(self, prediction: Prediction, offset: int, bad: BadRows) -> None:
        rows = self._rows.setdefault(prediction.task, {})
        first = rows.setdefault(prediction.sample_id, len(self._lines))
        if first < len(self._lines):
            of_task = f" of {prediction.task}" if prediction.task else ""
            message = f"'{prediction.sample_id}'{of_task} was already predicted on line {self._lines[first]}"
            bad.add(RowError(str(self._path), prediction.line, "sample_id", message))
            return
        self._lines.append(prediction.line)
        self._offsets.append(offset)

    def take(self, sample: Sample, bad: BadRows) -> Prediction | None:
        """The prediction for a reference, or None; says what is wrong if another reference has taken it."""
        task, sample_id = sample["task_dataset"], sample["sample_id"]
        found = [rows[sample_id] for rows in map(self._rows.get, (task, None)) if rows and sample_id in rows]
        if not found:
            return None
        number, *doubled = found
        line = self._lines[number]
        if doubled:
            message = f"'{sample_id}' of {task} was already predicted on line {line}"
            bad.add(RowError(str(self._path), self._lines[doubled[0]], "sample_id", message))
            self._taken_by[doubled[0]] = task
        if (other := self._taken_by[number]) == task:
            raise PromptCBLUEError(f"the references hold '{sample_id}' of {task} twice; ids must be unique in a task")
        if other is not None:
            message = f"'{sample_id}' is an id in {other} and {task}; say which in 'task_dataset'"
            bad.add(RowError(str(self._path), line, "sample_id", message))
        self._taken_by[number] = task
        row = parse_json_line(self._stream.line_at(self._offsets[number]), self._path, line)
        return _prediction_from_row(row, self._path, line)

    def untaken(self, tasks: Collection[str] | None) -> Iterable[RowError]:
        """The predictions that answer no reference, of these tasks or none."""
        for task, rows in self._rows.items():
            if task and tasks is not None and task not in tasks:
                continue
            for sample_id, number in rows.items():
                if self._taken_by[number] is None:
                    of_task = f" of {task}" if task else ""
                    message = f"'{sample_id}'{of_task} is not among the references"
                    yield RowError(str(self._path), self._lines[number], "sample_id", message)


def match(
    path: str | Path,
    references: Iterable[Sample],
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = lambda samples: samples,
    configs: Sequence[str] | None = None,
) -> Iterator[tuple[Sample, Prediction | None]]:
    """Pair every reference, in order, with its prediction, or with None where there is none.

    Args:
        path: the predictions file. It is read twice, and its texts are not kept.
        references: the rows to pair, read once.
        progress: wraps the references, to show how far the work is.
        configs: tasks that the references are of, whose predictions alone must fit; every task by default.

    Raises:
        PromptCBLUEError: a reference is doubled; or, at the end, lists every prediction that cannot be read, is
            doubled, is unknown to the references, or fits several of them.
    """
    bad = BadRows()
    index = _Index(path, bad)
    bad.stop_if_any("mend the predictions file, or predict again")
    for sample in progress(references):
        yield sample, index.take(sample, bad)
    bad.errors.extend(index.untaken(None if configs is None else {get_task(name).name for name in configs}))
    bad.stop_if_any("the predictions do not fit the references")
