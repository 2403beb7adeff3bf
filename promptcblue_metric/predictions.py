"""Prediction files: reading them, and matching them with the references by task and sample id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PromptCBLUEError, RowError, UnknownTaskError
from .records import Sample, read_json_lines, sample_from_row
from .tasks import get_task

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
    """

    sample_id: str
    text: str
    task: str | None
    written_task: str | None
    choices: Sequence[str] | None
    line: int


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
            listed = [str(error) for error in self.errors[:LISTED]]
            if len(self.errors) > LISTED:
                listed.append(f"… and {len(self.errors) - LISTED} more")
            raise PromptCBLUEError("\n".join([f"{len(self.errors)} bad row(s); {remedy}", *listed]))


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a predictions file: rows with ``sample_id`` and ``prediction``, or the official form, whose output
    stands in ``target``. ``task_dataset`` and ``answer_choices`` are read where a row has them.

    Raises:
        PromptCBLUEError: lists every row that cannot be used.
    """
    bad, predictions = BadRows(), []
    for line, row in read_json_lines(path, bad.add):
        try:
            predictions.append(_prediction_from_row(row, path, line))
        except RowError as error:
            bad.add(error)
    bad.stop_if_any("mend the predictions file, or predict again")
    return predictions


def _prediction_from_row(row: dict[str, Any], path: str | Path, line: int) -> Prediction:
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
    return Prediction(row["sample_id"], row[text_field], task, written_task, choices, line)


def read_references(source: str, split: str) -> list[Sample]:
    """The reference rows of a JSON Lines file, or of one split of a dataset folder or Hub dataset.

    Raises:
        PromptCBLUEError: the source or split does not exist, or rows are bad (all are listed).
    """
    if not Path(source).is_file():
        return _load_dataset(source, split)
    bad, samples = BadRows(), []
    for line, row in read_json_lines(source, bad.add):
        try:
            samples.append(sample_from_row(row, source, line))
        except RowError as error:
            bad.add(error)
    bad.stop_if_any("mend the references file")
    return samples


def _load_dataset(source: str, split: str) -> list[Sample]:
    try:
        from datasets import load_dataset

        rows = load_dataset(source, "all", split={"dev": "validation"}.get(split, split))
    except Exception as error:
        # datasets raises many types here, from ValueError for a split to client errors of the Hub.
        raise PromptCBLUEError(
            f"references '{source}' (split '{split}') cannot be loaded; expected a JSON Lines file, a dataset "
            f"folder as `promptcblue-dataset import` writes it, or a Hub id: {type(error).__name__}: {error}"
        ) from error
    return [sample_from_row(row, f"{source}[{split}]", line) for line, row in enumerate(rows, 1)]


def match(
    predictions: Iterable[Prediction], references: Sequence[Sample], path: str | Path
) -> Iterator[tuple[Sample, Prediction | None]]:
    """Pair every reference, in order, with its prediction, or with None where there is none.

    Raises:
        PromptCBLUEError: lists every prediction that is doubled, unknown to the references, or that fits
            several of them, and every reference that is doubled.
    """
    bad = BadRows()
    tasks_by_id: dict[str, list[str]] = {}
    for number, sample in enumerate(references, 1):
        tasks = tasks_by_id.setdefault(sample["sample_id"], [])
        if sample["task_dataset"] in tasks:
            message = f"reference {number} repeats '{sample['sample_id']}' of {sample['task_dataset']}"
            raise PromptCBLUEError(f"{message}; every sample id must be unique within its task")
        tasks.append(sample["task_dataset"])
    found: dict[tuple[str, str], Prediction] = {}
    for prediction in predictions:
        tasks = [task for task in tasks_by_id.get(prediction.sample_id, []) if prediction.task in (None, task)]
        if len(tasks) != 1:
            of_task = f" of {prediction.task}" if prediction.task else ""
            message = (
                f"'{prediction.sample_id}' is an id in {', '.join(tasks)}; say which in 'task_dataset'"
                if tasks
                else f"'{prediction.sample_id}'{of_task} is not among the references"
            )
            bad.add(RowError(str(path), prediction.line, "sample_id", message))
            continue
        first = found.setdefault((tasks[0], prediction.sample_id), prediction)
        if first is not prediction:
            message = f"'{prediction.sample_id}' of {tasks[0]} was already predicted on line {first.line}"
            bad.add(RowError(str(path), prediction.line, "sample_id", message))
    bad.stop_if_any("the predictions do not fit the references")
    for sample in references:
        yield sample, found.get((sample["task_dataset"], sample["sample_id"]))
