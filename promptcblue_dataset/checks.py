"""Checking official files row by row: what is good is kept, what is not is listed with file, line and field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptcblue_metric.data.samples import BadRows, Sample, read_json_lines, sample_from_row
from promptcblue_metric.errors import RowError
from promptcblue_metric.tasks import REGISTRY


@dataclass
class Checked:
    """What the checks found in a set of split files.

    Attributes:
        samples: the good samples in the order of their files, by config and split, configs in the registry's order.
        bad: the rows that were left out, and why.
        rows: rows read, good and bad.
        warnings: how often each kind of flaw was seen in a target that can be read nevertheless, by config and kind.
    """

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    bad: BadRows = field(default_factory=BadRows)
    rows: int = 0
    warnings: Counter[tuple[str, str]] = field(default_factory=Counter)


def check_files(files: Iterable[tuple[str, Path]], on_row: Callable[[str], object] = lambda split: None) -> Checked:
    """Read and check files, each of a split; ``on_row`` is called with the split of every row that is JSON."""
    checked = Checked()
    for split, path in files:
        _check_file(path, split, checked, on_row)
    checked.rows += len(checked.bad.errors)
    checked.samples = {name: checked.samples[name] for name in REGISTRY if name in checked.samples}
    return checked


def _check_file(path: Path, split: str, checked: Checked, on_row: Callable[[str], object]) -> None:
    first_line: dict[tuple[str, str], int] = {}
    for line, row in read_json_lines(path, checked.bad.add):
        on_row(split)
        try:
            sample, flaws = check_row(row, split, path, line)
            task, key = sample["task_dataset"], (sample["task_dataset"], sample["sample_id"])
            if key in first_line:
                message = f"'{key[1]}' of {task} stands in line {first_line[key]} already"
                raise RowError(str(path), line, "sample_id", message)
        except RowError as error:
            checked.bad.add(error)
            continue
        first_line[key] = line
        checked.rows += 1
        checked.warnings.update((task, kind) for kind in flaws)
        checked.samples.setdefault(task, {}).setdefault(split, []).append(sample)


def check_row(row: Mapping[str, Any], split: str, path: Path, line: int) -> tuple[Sample, set[str]]:
    """The sample of a row, and the kinds of flaws in its target that can be read nevertheless.

    Raises:
        RowError: a field is missing or wrong, or the target cannot be used.
    """
    sample = sample_from_row(row, path, line)
    # JSON can escape half of a surrogate pair, which no file in UTF-8 can hold.
    for name, text in {**sample, "answer_choices": "".join(sample["answer_choices"] or ())}.items():
        if not encodable(str(text)):
            raise RowError(str(path), line, name, "expected Unicode text, found an unpaired surrogate escape")
    target, task = sample["target"], REGISTRY[sample["task_dataset"]]
    if not target and split == "test":
        return sample, set()
    if not target.strip():
        raise RowError(str(path), line, "target", f"expected an answer, found none; the {split} split needs targets")
    parsed = task.format.parse(target, task.choices(sample["answer_choices"]))
    kinds = {problem.kind for problem in parsed.problems}
    if not parsed.readable:
        message = f"expected an answer as {task.name} writes it, found {target!r:.80} ({', '.join(sorted(kinds))})"
        raise RowError(str(path), line, "target", message)
    return sample, set(kinds)


def encodable(text: str) -> bool:
    """Whether a text can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
