"""What the backends that load a model share: requests as token ids, fitted into the model's context."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from promptcblue_metric.errors import PromptCBLUEError

from ..constrained import TokenChoices
from ..prompts import PromptEncoder, ShotStyle
from . import Choices, Request

#: Requests tokenised at a time.
_CHUNK = 1000


class Encoded(NamedTuple):
    """A request's token ids, and what was done to make them fit."""

    request: Request
    ids: array[int]
    dropped: int
    cut: bool


def encode(
    encoder: PromptEncoder, requests: Sequence[Request], style: ShotStyle, context: int | None
) -> Iterator[Encoded]:
    """Tokenise requests, each fitted into the model's context beside its answer.

    Args:
        style: how demonstrations are shown.
        context: tokens that the model can see; None for any number.

    Raises:
        PromptCBLUEError: an answer's limit leaves no room for a prompt.
    """
    for start in range(0, len(requests), _CHUNK):
        chunk = requests[start : start + _CHUNK]
        rows = encoder.prompts([each.prompt for each in chunk], [each.shots for each in chunk], style)
        for request, ids in zip(chunk, rows, strict=True):
            room = len(ids) if context is None else context - request.max_new_tokens
            if len(ids) <= room:
                yield Encoded(request, array("i", ids), 0, cut=False)
                continue
            try:
                fitted = encoder.fit_shots(request.prompt, request.shots, style, room)
            except ValueError as error:
                raise PromptCBLUEError(
                    f"the model sees {context} tokens, of which {request.max_new_tokens} new ones leave {room} for "
                    "the prompt; lower --max-new-tokens"
                ) from error
            yield Encoded(request, array("i", fitted.ids), fitted.dropped, fitted.cut)


def token_choices(encoder: PromptEncoder, choices: Choices) -> TokenChoices:
    """Choices as a tokenizer writes them."""
    separator, nothing, *options = (
        ids[:-1] for ids in encoder.targets([choices.separator or "", choices.nothing or "", *choices.options])
    )
    return TokenChoices(options, encoder.end, separator or None, nothing or None)


def until(text: str, stop: Sequence[str]) -> str:
    """The text up to where the first of the stop texts begins."""
    return text[: min((place for mark in stop if (place := text.find(mark)) >= 0), default=len(text))]
