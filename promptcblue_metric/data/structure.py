"""The official structured form of a run, ``{task: [{"sample_id", "answer"}]}`` (formats.md section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import RowError
from ..parsing import Parser, parse_answer
from ..tasks import get_task
from .predictions import BadRows, match, read_predictions
from .samples import Sample


def structured_answers(
    path: str | Path, references: Iterable[Sample] | None, parser: Parser = "strict"
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Parse a predictions file, in its own order, under the task names that it writes.

    Args:
        path: the predictions file.
        references: give task and answer choices where a prediction does not carry them, or None.
        parser: how the predictions are read.

    Returns:
        the structured form, and how many predictions were well-formed.

    Raises:
        PromptCBLUEError: lists every prediction whose task or choices are known from neither side.
    """
    samples = {} if references is None else {p.line: s for s, p in match(path, references) if p is not None}
    bad, answers, well_formed = BadRows(), dict[str, list[dict[str, Any]]](), 0
    for prediction in read_predictions(path):
        sample = samples.get(prediction.line)
        name = prediction.task or (sample and sample["task_dataset"])
        choices = prediction.choices if prediction.choices is not None else (sample and sample["answer_choices"])
        if name is None or (choices is None and get_task(name).needs_choices):
            field = "task_dataset" if name is None else "answer_choices"
            bad.add(RowError(str(path), prediction.line, field, "missing; add it to the row or pass --references"))
            continue
        task = get_task(name)
        prompt = prediction.prompt or (sample["input"] if sample else "")
        parsed = parse_answer(task.format, prediction.text, task.choices(choices), parser, prompt)
        row = {"sample_id": prediction.sample_id, "answer": parsed.answer}
        answers.setdefault(prediction.written_task or name, []).append(row)
        well_formed += parsed.well_formed
    bad.stop_if_any("these predictions cannot be parsed")
    return answers, well_formed
