"""The two parsers by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .answers import AnswerFormat, Parsed
from .lenient import parse_lenient

#: ``strict``: what the official post-processor reads. ``lenient``: what a reader of the output would understand.
Parser = Literal["strict", "lenient"]
PARSERS: tuple[Parser, ...] = ("strict", "lenient")


def parse_answer(
    answer_format: AnswerFormat, text: str, choices: Sequence[str], parser: Parser, prompt: str = ""
) -> Parsed:
    """Read an output with the parser called ``parser``; never raises. The lenient one looks into the ``prompt`` too."""
    if parser == "lenient":
        return parse_lenient(answer_format, text, choices, prompt)
    return answer_format.parse(text, choices)
