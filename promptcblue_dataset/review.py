"""The quality check of the paper's section 3.2: people examine a random part of each task's samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from promptcblue_dataset.draws import Draws
from promptcblue_dataset.official import resolve
from promptcblue_dataset.sheets import read_sheet
from promptcblue_dataset.sheets import write_sheet as write_rows
from promptcblue_dataset.source import folder_files, load_samples
from promptcblue_metric.data.samples import Sample
from promptcblue_metric.data.splits import canonical_split
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.tasks import REGISTRY

RIGHT, WRONG, UNSURE = "right", "wrong", "unsure"
_COLUMNS = {"task": 15, "split": 10, "sample_id": 15, "input": 70, "target": 45, "verdict": 10, "comment": 30}


@dataclass(frozen=True)
class Tally:
    """What annotators found in the samples of a task (or of all).

    Attributes:
        task: the task, or ``all``.
        right, wrong, unsure, open: samples by verdict; the last have none.
        interval: Wilson interval of the rate.
    """

    task: str
    right: int
    wrong: int
    unsure: int
    open: int
    interval: tuple[float, float]

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
    for number, row in enumerate(read_sheet(sheet, ("task", "verdict")), 2):
        verdict = row["verdict"].strip().casefold()
        if verdict not in (RIGHT, WRONG, UNSURE, ""):
            expected = f"{RIGHT}, {WRONG}, {UNSURE} or nothing"
            raise RowError(str(sheet), number, "verdict", f"expected {expected}, found {verdict!r:.80}")
        verdicts.setdefault(row["task"], []).append(verdict)
    if not verdicts:
        raise PromptCBLUEError(f"{sheet}: no rows below the header")
    everything = [verdict for found in verdicts.values() for verdict in found]
    return [_count(task, found, confidence) for task, found in [*verdicts.items(), ("all", everything)]]


def _count(task: str, verdicts: Sequence[str], confidence: float) -> Tally:
    right, wrong = verdicts.count(RIGHT), verdicts.count(WRONG)
    interval = wilson(wrong, right + wrong, confidence)
    return Tally(task, right, wrong, verdicts.count(UNSURE), verdicts.count(""), interval)


def wilson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, scale = hits / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)
