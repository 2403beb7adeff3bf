"""Words of the report in English and Chinese, and model output made safe to show.

Model output may hold anything. What a reader could not see, or what changes the order in which text is shown, is
replaced by a visible name here; escaping for HTML or Markdown is left to what writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from rapidfuzz.distance import Indel

from ..tasks import suite_of

#: Characters that are shown of a text, of a part of an answer, and of a label in a chart.
TEXT_LIMIT, PART_LIMIT, LABEL_LIMIT = 1200, 80, 24

#: A text in more pieces than these is as good as wholly different.
_MOST_PIECES = 120

#: Controls (but tab and line feed), directional marks, zero-width characters, line separators, lone surrogates, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_SEPARATORS = re.compile(r"([，,；;：:。、\n])")

#: What the report says, English to Chinese.
CHINESE: Mapping[str, str] = json.loads(Path(__file__).with_name("zh.json").read_text(encoding="utf-8"))

#: Why the protocols differ (`analysis.Reason`), by its kind.
REASONS: Mapping[str, str] = {
    "invalid classes": "{n} invalid label(s) made {classes} class(es) of their own, officially",
    "empty as label": "{n} empty output(s) counted as {label}, officially",
    "weighted": "officially an average over labels weighted by gold counts; in the paper pooled over samples",
}

#: A text in pieces, each with whether the other text lacks it.
Pieces: TypeAlias = list[tuple[str, bool]]


class Excerpt(NamedTuple):
    """The beginning of a text, and how many characters were left out at its end."""

    text: str
    omitted: int


def visible(text: str) -> str:
    """``text`` with every character that cannot be seen written out, as ``⟨U+202E⟩``."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


def excerpt(text: str, limit: int = TEXT_LIMIT) -> Excerpt:
    """The beginning of ``text``, made visible, in at most ``limit`` characters."""
    kept = min(len(text), limit)
    shown = visible(text[:kept])
    while len(shown) > limit:  # since characters were written out
        kept = kept * limit // len(shown)
        shown = visible(text[:kept])
    return Excerpt(shown, len(text) - kept)


def short(text: str, limit: int = PART_LIMIT) -> str:
    """At most ``limit`` characters of ``text`` on one line, made visible."""
    beginning, omitted = excerpt(text[: limit + 1].replace("\n", "⏎"), limit)
    return f"{beginning}…" if omitted else beginning


def differences(gold: str, predicted: str, by: Literal["character", "part"]) -> tuple[Pieces, Pieces]:
    """The two texts in pieces, each marked where the other lacks it.

    Args:
        gold, predicted: texts of at most a few thousand characters.
        by: compare single characters, as suits prose, or what stands between separators, as suits lists of items.

    Returns:
        the pieces of each text; one marked piece where the texts share no more than scraps.
    """
    ours, theirs = (list(text) if by == "character" else _SEPARATORS.split(text) for text in (gold, predicted))
    marked: tuple[list[bool], list[bool]] = ([True] * len(ours), [True] * len(theirs))
    # A lone equal character between two changes is chance.
    least = 2 if by == "character" else 1
    for block in Indel.opcodes(ours, theirs).as_matching_blocks():
        if block.size >= least:
            marked[0][block.a : block.a + block.size] = [False] * block.size
            marked[1][block.b : block.b + block.size] = [False] * block.size
    sides = _pieces(ours, marked[0]), _pieces(theirs, marked[1])
    if max(map(len, sides)) > _MOST_PIECES:
        return _pieces(ours, [True] * len(ours)), _pieces(theirs, [True] * len(theirs))
    return sides


def _pieces(tokens: Sequence[str], marked: Sequence[bool]) -> Pieces:
    pieces: Pieces = []
    for token, different in zip(tokens, marked, strict=True):
        if pieces and pieces[-1][1] == different:
            pieces[-1] = (pieces[-1][0] + token, different)
        elif token:
            pieces.append((token, different))
    return pieces


def heading(report: Mapping[str, Any]) -> str:
    """What a report (`report.build_report`) is called, by its suite; one of the texts of `CHINESE`."""
    return f"{suite_of(report['tasks']).title} report"
