"""The program that ends the ``post_generate_process.py`` of a submission: predictions in, structured answers out.

Standard library only, as everything that it imports.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..answers import AnswerFormat, Parsed

Parse: TypeAlias = Callable[[AnswerFormat, str, Sequence[str], str], Parsed]


def parse_strict(answer_format: AnswerFormat, text: str, choices: Sequence[str], prompt: str) -> Parsed:
    """Read an output exactly as the official post-processor does, whatever was asked; never raises."""
    return answer_format.parse(text, choices)


def structured_results(
    predictions: Path, formats: Mapping[str, AnswerFormat], parse: Parse
) -> dict[str, list[dict[str, Any]]]:
    """The structured form, ``{task: [{"sample_id", "answer"}]}``, of an official ``test_predictions.json``.

    Args:
        predictions: JSON Lines; the outputs stand in ``target``.
        formats: how the answers of each task are written, by the name that the file gives it.
        parse: the parser.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    with predictions.open("rb") as stream:
        for row in map(json.loads, filter(bytes.strip, stream)):
            task = row["task_dataset"]
            answer = parse(formats[task], row["target"], row.get("answer_choices") or (), row.get("input") or "").answer
            results.setdefault(task, []).append({"sample_id": row["sample_id"], "answer": answer})
    return results


def main(arguments: Sequence[str], formats: Mapping[str, AnswerFormat], parse: Parse) -> None:
    """Run as the leaderboard does: ``python post_generate_process.py test_predictions.json results.json``."""
    if len(arguments) != 2:
        sys.exit("usage: python post_generate_process.py test_predictions.json results.json")
    predictions, results = map(Path, arguments)
    answers = structured_results(predictions, formats, parse)
    results.write_bytes((json.dumps(answers, ensure_ascii=False, indent=2) + "\n").encode())
