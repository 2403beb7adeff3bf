"""Texts that others wrote, made safe to show.

Model output may hold anything. What a reader could not see, what changes the order in which text is shown, and what
tells a terminal to do something, is replaced by a visible name here; escaping for HTML or Markdown is left to those who
write them.
"""

from __future__ import annotations

import re
from typing import TypedDict

#: Characters that are shown of a text, and of a part of an answer.
TEXT_LIMIT, PART_LIMIT = 1200, 80

#: Controls (but tab and line feed), directional marks, zero-width characters, line separators, lone surrogates, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


class ShownText(TypedDict):
    """The beginning of a text, and how many characters were left out at its end."""

    text: str
    omitted: int


def visible(text: str) -> str:
    """``text`` with every character that cannot be seen written out, as ``⟨U+202E⟩``."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


def shown(text: str, limit: int = TEXT_LIMIT) -> ShownText:
    """The beginning of ``text``, made visible, in at most ``limit`` characters."""
    kept = min(len(text), limit)
    beginning = visible(text[:kept])
    while len(beginning) > limit:  # since characters were written out
        kept = kept * limit // len(beginning)
        beginning = visible(text[:kept])
    return {"text": beginning, "omitted": len(text) - kept}


def short(text: str, limit: int = PART_LIMIT) -> str:
    """At most ``limit`` characters of ``text`` on one line, made visible."""
    beginning = shown(text[: limit + 1].replace("\n", "⏎"), limit)
    return beginning["text"] + "…" * bool(beginning["omitted"])
