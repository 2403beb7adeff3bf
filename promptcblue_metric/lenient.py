"""Reads what a modern chat model writes, where the official parser wants its own dialect to the letter.

An output is unwrapped (`unwrap`) and then read by the reader of its format (`lenient_formats`): in either dialect, the
released one or that of the paper's Appendix A.1, as JSON, as a table, or line by line. Nothing is invented: every part
of an answer stands in the output, but for a label that is given by its place among the choices or by another of its
names. What was mended is named in `Parsed.repairs`, and what could not be read in `Parsed.problems`.

No string makes a reader raise, and time is linear in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from .answers import AnswerFormat, Parsed
from .lenient_formats import READERS, Dialect, Source

__all__ = ["WellFormedness", "parse_lenient", "well_formedness"]

#: What became of an output.
WellFormedness: TypeAlias = Literal["well-formed", "repaired", "unreadable", "empty", "truncated"]


def parse_lenient(answer_format: AnswerFormat, text: str, choices: Sequence[str] = (), prompt: str = "") -> Parsed:
    """Read ``text`` as its writer meant it; never raises.

    Args:
        answer_format: how the task's answers are written.
        text: the model's output.
        choices: the row's answer choices, in the order of the prompt.
        prompt: what was asked, or "" where that is not known.

    Returns:
        what could be read, the repairs it took and problems for the rest; the empty answer of the format where nothing
        could be read. An output that the strict parser finds well-formed is read as it does, but for what no text
        holds as part of a mention.
    """
    return READERS.get(type(answer_format), Dialect)(answer_format, choices, Source(prompt)).read(text)


def well_formedness(parsed: Parsed) -> WellFormedness:
    """What became of an output that `parse_lenient` read."""
    kinds = {problem.kind for problem in parsed.problems}
    if "empty output" in kinds:
        return "empty"
    if "truncated" in kinds:
        return "truncated"
    if kinds & {"nothing readable", "unknown label", "ambiguous label"}:
        return "unreadable"
    return "well-formed" if parsed.well_formed else "repaired"
