"""What a chat model puts around an answer, taken off: thinking, fences, Markdown, JSON, tables, bullets, widths.

Nothing here knows an answer format. Every function takes time linear in its text and raises on no string; a
regular expression is used only where each of its repeats is bounded or cannot be tried twice on one character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple, TypeAlias

#: What the lenient parser mends, by kind.
Repair: TypeAlias = Literal[
    "line endings",
    "invisible characters",
    "thinking removed",
    "code fence",
    "markdown",
    "white space",
    "bullets",
    "preamble",
    "closing remark",
    "answer marker",
    "half-width punctuation",
    "list separator",
    "paper dialect",
    "empty marker",
    "missing lead line",
    "missing line",
    "layout",
    "json",
    "table",
    "label case/quotes",
    "option letter",
    "near-miss label",
    "sentence around label",
]

_FENCE, _THINKING = "```", ("think", "thinking")
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060"))


def _line_endings(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")


def _visible(text: str) -> str:
    return text.translate(_INVISIBLE).replace("\u00a0", " ")


def _blank(removed: str) -> str:
    """Stands in for what was removed, so that the lines after it keep their numbers."""
    return "\n" * removed.count("\n")


def _without_thinking(text: str) -> str:
    for tag in _THINKING:
        # What precedes a closing tag is thinking even where the opening tag was part of the prompt.
        first, *others = text.split(f"<{tag}>")
        kept = []
        for number, piece in enumerate((first, *others)):
            thought, closed, said = piece.rpartition(f"</{tag}>")
            if number and not closed:
                thought, said = said, ""
            kept += [_blank(thought), said]
        text = "".join(kept)
    return text


def _without_fence(text: str) -> str:
    """The content of the fence where there is one, or of an answer tag; without their marks where there are more."""
    before, tag, tagged = text.rpartition("<answer>")
    if tag:
        text = _blank(before) + tagged.partition("</answer>")[0]
    before, *inside = text.split(_FENCE)
    language = re.compile(r"[A-Za-z]{0,12}[ \t]{0,4}\n")
    inside = [language.sub("\n", piece, count=1) if language.match(piece) else piece for piece in inside]
    if inside and len(inside) <= 2 and inside[0].strip():
        return _blank(before) + inside[0]
    return before + "".join(inside)


_BOXED = re.compile(r"\\boxed\{([^{}\n]{0,200})\}")


def _without_markdown(text: str) -> str:
    text = _BOXED.sub(r"\1", text.replace("**", "").replace("`", "").replace("~~", ""))
    return "\n".join(_without_line_markdown(line) for line in text.split("\n"))


def _without_line_markdown(line: str) -> str:
    bare = line.strip()
    if len(bare) >= 3 and not bare.strip("-*_= "):
        return ""
    return bare.lstrip("#> \t") if bare[:1] in ("#", ">") else line


#: In the order they are applied.
NORMALISERS: tuple[tuple[Repair, Callable[[str], str]], ...] = (
    ("line endings", _line_endings),
    ("invisible characters", _visible),
    ("thinking removed", _without_thinking),
    ("code fence", _without_fence),
    ("markdown", _without_markdown),
)


def stops_inside(text: str) -> bool:
    """Whether ``text`` ends within its thinking or within a code fence."""
    thinking = any(text.rfind(f"<{tag}>") > text.rfind(f"</{tag}>") for tag in _THINKING)
    return thinking or (text.count(_FENCE) % 2 == 1 and bool(text.rpartition(_FENCE)[2].strip()))


class Line(NamedTuple):
    """A line that is not blank: its 1-based number, its bullet or number, and what follows that."""

    number: int
    mark: str
    text: str


_ITEM = re.compile(
    r"(?:[-*+](?=[ \t]|[^\x00-\x7f])|[•·●○▪◦■□➢►]|\d{1,2}[.．](?!\d)|\d{1,2}[、)）]|[（(]\d{1,2}[)）]|[①-⑳]"
    r"|[一二三四五六七八九十]{1,2}、)"
)


def content_lines(text: str) -> list[Line]:
    """The lines of ``text`` that hold something."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if bare := line.strip():
            mark = match.group() if (match := _ITEM.match(bare)) else ""
            found.append(Line(number, mark, bare[len(mark) :].strip()))
    return found


# Width, case and kind of punctuation make no difference to what a word is. One character stays one, so that places
# in a folded text are places in the text.
_FOLDED: dict[int, str] = {
    **{code: chr(code - 0xFEE0).lower() for code in range(0xFF01, 0xFF5F)},
    **{ord(letter): letter.lower() for letter in ascii_uppercase},
    **{ord(sign): plain for sign, plain in zip("　、；;。“”‘’【】", " ,,,.\"\"''[]", strict=True)},
}
_AROUND = " \t\n　\"'“”‘’「」『』《》〈〉<>【】[]`*_~$.。．,，;；:：!！"


def folded(text: str) -> str:
    """``text`` with width, case and kind of punctuation made one, character by character."""
    return text.translate(_FOLDED)


def bare(text: str) -> str:
    """``text`` without the quotes, brackets and punctuation around it."""
    text = text.strip(_AROUND)
    if text[:1] in ("(", "（") and text[-1:] in (")", "）"):
        text = text[1:-1].strip(_AROUND)
    return text


def _key(text: str) -> str:
    return "".join(folded(text).split())


class Hit(NamedTuple):
    """A word found in a text, and whether the text denies it there."""

    start: int
    end: int
    label: str
    denied: bool


_DENIALS = ("不", "非", "未", "无", "没", "否", "勿", "排除", "除了")
_NOT_DENIALS = re.compile("无疑|不仅|不难|毋庸")
_CLAUSE_END = re.compile(r"[,.!?:，。\n]")


class Words:
    """Spellings and the labels they stand for; where one spelling holds another, the longest is found."""

    def __init__(self, spellings: Mapping[str, str]) -> None:
        self.labels = {_key(spelling): label for spelling, label in reversed(list(spellings.items()))}
        self.labels.pop("", None)
        found = {folded(spelling.strip()): label for spelling, label in reversed(list(spellings.items()))}
        self._found = {spelling: label for spelling, label in found.items() if spelling}
        longest_first = sorted(self._found, key=len, reverse=True)
        self.pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._search = re.compile(self.pattern)
        # A text of twice the length is no spelling, however it is quoted.
        self._longest = 2 * max(map(len, self._found), default=0) + 40

    def exact(self, text: str) -> str | None:
        """The label that ``text`` spells, whatever the width, case, spaces and quotes."""
        if len(text) > self._longest:
            return None
        within = bare(text)
        label = self.labels.get(_key(within))
        return label if label is not None or within == text else self.labels.get(_key(text))

    def spelt(self, spelling: str) -> str:
        """The label of a spelling that `pattern` found."""
        return self._found[spelling]

    def begins_with(self, text: str) -> bool:
        """Whether some spelling begins with ``text`` and goes on."""
        start = _key(text)
        return bool(start) and any(len(key) > len(start) and key.startswith(start) for key in self.labels)

    def hits(self, text: str) -> Iterator[Hit]:
        """Every spelling in ``text``, from left to right."""
        flat = folded(text)
        for match in self._search.finditer(flat):
            before = _CLAUSE_END.split(flat[max(0, match.start() - 5) : match.start()])[-1]
            before = _NOT_DENIALS.sub("", before)
            denied = any(denial in before for denial in _DENIALS)
            yield Hit(match.start(), match.end(), self._found[match.group()], denied)


@lru_cache(maxsize=256)
def _cached_words(spellings: tuple[tuple[str, str], ...]) -> Words:
    return Words(dict(spellings))


def words(spellings: Mapping[str, str]) -> Words:
    """`Words` of ``spellings``, compiled once for as long as they are in use; the first of two that fold alike wins."""
    return _cached_words(tuple(spellings.items()))


#: What can separate a list's items, the likeliest first. A comma within a number or a name separates nothing.
_SEPARATORS = (
    re.compile(r"，|,(?=\s)|(?<![0-9A-Za-z]),|,(?![0-9A-Za-z])"),
    re.compile("、"),
    re.compile("[；;]"),
)
_END = " \t　。；;，,、"


@dataclass
class ListStyle:
    """How an output separates the items of its lists: the first separator that any of its lists holds."""

    separator: re.Pattern[str]
    repair: Repair | None

    @classmethod
    def of(cls, lists: Iterable[str]) -> ListStyle:
        """The style of the ``lists`` of one output."""
        lists = [_unbracketed(text) for text in lists]
        for number, separator in enumerate(_SEPARATORS):
            found = {match.group() for text in lists for match in separator.finditer(text)}
            if found:
                half_width: Repair | None = "half-width punctuation" if "," in found else None
                return cls(separator, "list separator" if number else half_width)
        return cls(_SEPARATORS[0], None)

    def items(self, text: str) -> list[str]:
        """The items of ``text``, each `clean`, without the 等 that ends a list."""
        pieces = self.separator.split(_unbracketed(text))
        if len(pieces) > 1:
            pieces[-1] = pieces[-1].rstrip().removesuffix("等")
        return [item for piece in pieces if (item := clean(piece))]


_QUOTES = {"“": "”", "‘": "’", '"': '"', "'": "'", "「": "」", "『": "』", "《": "》"}


def clean(part: str) -> str:
    """``part`` without white space, closing punctuation and a pair of quotes around it."""
    part = part.strip().rstrip(_END)
    if part.endswith(".") and not part[-2:].isascii():
        part = part[:-1]
    return unquoted(part)


def unquoted(text: str) -> str:
    """``text`` without a pair of quotes around it."""
    return text[1:-1].strip() if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] else text


def _unbracketed(text: str) -> str:
    """A list without the brackets around it and the punctuation after it."""
    text = text.strip().rstrip(_END)
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def table_rows(lines: Sequence[Line]) -> list[tuple[int, list[str]]]:
    """The rows of a Markdown table, each with its line number, or none; its rule is the row of empty lists."""
    rows = []
    for line in lines:
        if line.text.startswith("|") and line.text.count("|") > 1:
            cells = [cell.strip() for cell in line.text.strip("|").split("|")]
            rule = all(cell and not cell.strip("-: ") for cell in cells)
            rows.append((line.number, [] if rule else cells))
    return rows


# Numbers stay text: a long one is no reason to fail, and an answer's parts are text.
_DECODER = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str)
_OPENING = re.compile(r"\{|\[(?=\s{0,20}[\"'“{\[\]])")
_JSON_LIKE = re.compile(r"[{\[]\s{0,20}[\"'“{\[]")
_TRAILING_COMMA = re.compile(r",(?=\s{0,200}[}\]])")
_TOKEN = re.compile(r"\\.|[\"{}\[\],]", re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}
_ATTEMPTS = 4


def json_values(text: str) -> tuple[list[Any], bool]:
    """The JSON values in ``text``, and whether it ends within the last; a loosely written one is mended."""
    values: list[Any] = []
    attempts = _ATTEMPTS
    match = _OPENING.search(text)
    while match and attempts:
        value, end = _decode(text, match.start())
        if end:
            values.append(value)
        elif _JSON_LIKE.match(text, match.start()):
            value, cut = _decode_loose(text[match.start() :])
            return values + value, cut
        else:
            attempts -= 1
        match = _OPENING.search(text, end or match.end())
    return values, False


def _decode_loose(text: str) -> tuple[list[Any], bool]:
    """The JSON value that ``text`` starts with, if other quotes, spare commas or a broken end are all that is wrong."""
    text = _TRAILING_COMMA.sub("", text)
    if '"' not in text:
        text = text.replace("'", '"').translate(str.maketrans("“”：，", '"":,'))
    value, end = _decode(text, 0)
    if end:
        return [value], False
    closed, cut = _closed(text)
    value, end = _decode(closed, 0)
    return ([value] if end else []), cut


def _decode(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that starts at ``start`` and where it ends, or 0."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0
    return value, end


def _closed(text: str) -> tuple[str, bool]:
    """JSON that breaks off, cut after its last whole member and closed; and whether it did break off."""
    # The open brackets are a linked list, which a place can remember without copying it.
    opened: tuple[str, Any] | None = None
    whole: tuple[int, Any] = (0, None)
    in_string = False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == '"':
            in_string = not in_string
        elif in_string or token[0] == "\\":
            continue
        elif token in _CLOSING:
            opened = (_CLOSING[token], opened)
        elif token == ",":
            whole = (match.start(), opened)
        elif opened is None or opened[0] != token:
            break
        else:
            opened = opened[1]
            whole = (match.end(), opened)
            if opened is None:
                break
    end, rest = whole
    closers = []
    while rest is not None:
        closers.append(rest[0])
        rest = rest[1]
    return text[:end] + "".join(closers), opened is not None or in_string


def leaves(value: Any) -> list[str]:
    """Every string in a JSON value, in order."""
    found: list[str] = []
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, (list, dict)):
            stack += reversed(list(node.values() if isinstance(node, dict) else node))
    return found
