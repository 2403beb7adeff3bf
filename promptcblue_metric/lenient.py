"""Reads what a modern chat model writes, where the official parser wants its own dialect to the letter.

An output that the strict parser finds well-formed is read by it alone. Any other is first unwrapped (`unwrap`) and
then read by the reader of its format: as JSON, as a table, or line by line. Both dialects are read, the released one
and that of the paper's Appendix A.1. Nothing is invented: every part of an answer stands in the output, but for a
label that is given by its place among the choices or by another of its names. What was mended is named in
`Parsed.repairs`, and what could not be read in `Parsed.problems`.

No string makes a reader raise, and time is linear in the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from .answers import (
    AnswerFormat,
    EntityLines,
    EventLines,
    FreeText,
    Label,
    Parsed,
    Report,
    StatusLines,
    TermList,
    TripleLines,
)
from .lenient_choices import OneLabel, Reply, Statuses, Terms
from .lenient_lists import Entities, Events, ReportSections, Triples
from .lenient_reader import Reader
from .unwrap import Repair

__all__ = ["Repair", "WellFormedness", "parse_lenient", "well_formedness"]

#: What became of an output.
WellFormedness: TypeAlias = Literal["well-formed", "repaired", "unreadable", "empty", "truncated"]

_READERS: Mapping[type[AnswerFormat], type[Reader[Any]]] = {
    EntityLines: Entities,
    TripleLines: Triples,
    EventLines: Events,
    TermList: Terms,
    Label: OneLabel,
    StatusLines: Statuses,
    Report: ReportSections,
    FreeText: Reply,
}


def parse_lenient(answer_format: AnswerFormat, text: str, choices: Sequence[str] = (), prompt: str = "") -> Parsed:
    """Read ``text`` as its writer meant it; never raises.

    Args:
        answer_format: how the task's answers are written.
        text: the model's output.
        choices: the row's answer choices, in the order of the prompt.
        prompt: what was asked, or "" where that is not known.

    Returns:
        the strict parser's result where that finds the text well-formed. Else what could be read, the repairs it
        took and problems for the rest; the empty answer of the format where nothing could be read.
    """
    strict = answer_format.parse(text, choices)
    return strict if strict.well_formed else _READERS[type(answer_format)](answer_format, choices).read(text)


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
