"""What a chat model puts around an answer, taken off: thoughts, chat tokens, fences, Markdown, JSON, tables, bullets.

Nothing here knows an answer format. Every function takes time linear in its text and raises on no string; a
regular expression is used only where each of its repeats is bounded or cannot be tried twice on one character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeAlias

from .scripts import TO_SIMPLIFIED

#: A JSON value, its numbers as text.
Json: TypeAlias = str | Sequence["Json"] | Mapping[str, "Json"] | None

_VISIBLE = {**dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060")), 0xA0: " "}
#: What stands between thoughts, or a draft, and what is said in the end, and between the turns of a chat.
_SAID = re.compile(
    r"(?m)</think(?:ing)?>|<answer>|<\|begin_of_box\|>|final<\|message\|>|assistant\s?final(?![a-z])"
    r"|^#{1,4} {0,3}Final (?:Response|Answer)[*: ]{0,4}$|最终的?回[复答][:：]|\n[^\n：:，。]{0,4}[回答]复[:：]"
    r"|(?:最终|完整|正确)的?(?:结果|答案|输出)(?:如下)?\*{0,2}[:：](?=\**[ \t]*\n\s*\S)"
)
_THOUGHT = re.compile(r"<think(?:ing)?>|</answer>")
_TOKENS = re.compile(r"(?:<[|｜][^<>|｜\n]{1,30}[|｜]>|</?s>|<(?:start|end)_of_turn>)(?:(?:assistant|model)\s)?")
_FENCE = re.compile(r"```(?:[A-Za-z]{0,12}[ \t]{0,4}\n)?")
#: The text where one fence is all that is marked so; what stands around the fence says nothing.
_FENCED = re.compile(r"[^`]*```(?:[A-Za-z]{0,12}[ \t]{0,4}\n)?(?![A-Za-z]{0,12}\s*(?:```|$))([^`]*)(?:```[^`]*)?")
_MARKDOWN = re.compile(r"^[ \t]{0,9}(?:[#>][#> \t]{0,9}|[-*_=]{3,}[ \t]*$)|\*\*|`|~~[^~\n]{1,200}~~|~~", re.MULTILINE)
_BOXED = re.compile(r"\${0,2}\\boxed\{(?:\\text\{)?([^{}\n]{0,200})\}{1,2}\${0,2}")
#: In the order they are applied.
_NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "line endings": lambda text: re.sub("\r\n|[\r\u2028\u2029]", "\n", text),
    "invisible characters": lambda text: text.translate(_VISIBLE),
    # What precedes a closing tag is thinking even where the opening tag was part of the prompt.
    "thinking removed": lambda text: _THOUGHT.split(_SAID.split(text)[-1])[0],
    "chat tokens": lambda text: next(filter(str.strip, _TOKENS.split(text)), _TOKENS.sub("", text)),
    "code fence": lambda text: match[1] if (match := _FENCED.fullmatch(text)) else _FENCE.sub("\n", text),
    "markdown": lambda text: _BOXED.sub(r"\1", _MARKDOWN.sub("", text).replace("<br>", "、")),
    "white space": lambda text: "\n".join(filter(None, map(str.strip, text.split("\n")))),
}


def unwrapped(text: str) -> tuple[str, list[str], bool]:
    """What ``text`` holds within its wrapping, what was taken off, and whether it ends in a thought."""
    cut = "<think" in _SAID.split(text)[-1]
    kinds = []
    for kind, normalise in _NORMALISERS.items():
        before, text = text, normalise(text)
        kinds += [kind] * (text != before)
    return text, kinds, cut


class Line(NamedTuple):
    """A line: its 1-based number, its bullet or number, and what follows that."""

    number: int
    mark: str
    text: str

    @property
    def cells(self) -> list[str]:
        """The cells of a row of a Markdown table, none of any other line."""
        return [cell.strip() for cell in self.text.strip("|").split("|")] if self.text.startswith("|") else []


#: A line's bullet or number, and what follows that.
LINE = re.compile(
    r"(?m)^((?:[-*+](?=[ \t]|[^\x00-\x7f])|[•·●○▪◦■□➢►]|\d{1,2}[.．](?!\d)|\d{1,2}[、)）]"
    r"|[（(](?:\d{1,2}|[一二三四五六七八九十]{1,2})[)）]|[①-⑳]|[一二三四五六七八九十]{1,2}、|[问答][:：])?)[ \t]*(.*)$"
)


# Width, case and kind of punctuation make no difference to what a word is, nor does the script. One character stays
# one, so that places in a folded text are places in the text.
_FOLDED: dict[int, str] = {
    **{code: chr(code - 0xFEE0).lower() for code in range(0xFF01, 0xFF5F)},
    **{ord(letter): letter.lower() for letter in ascii_uppercase},
    **{ord(sign): plain for sign, plain in zip("　、；;。“”‘’【】", " ,,,.\"\"''[]", strict=True)},
    **TO_SIMPLIFIED,
}
_AROUND = " \t\n　\"'“”‘’「」『』《》〈〉<>【】[]`*_~$.。．,，;；:：!！"
_END = " \t　。；;，,、"
_PAIRS = dict(zip("“‘\"'「《【<[", "”’\"'」》】>]", strict=True))


def folded(text: str) -> str:
    """``text`` with width, case, script and kind of punctuation made one, character by character."""
    return text.translate(_FOLDED)


def key(text: str) -> str:
    """What is the same for two spellings of one word."""
    return "".join(folded(text).split())


def unquoted(text: str) -> str:
    """``text`` without a pair of quotes or brackets around it."""
    ends = _PAIRS.get(text[:1])
    return text[1:-1].strip() if ends and text.find(ends, 1) == len(text) - 1 else text


def bare(text: str) -> str:
    """``text`` without the quotes, brackets and punctuation around it."""
    text = text.strip(_AROUND)
    return text[1:-1].strip(_AROUND) if text.startswith(("(", "（")) and text.endswith((")", "）")) else text


def clean(part: str) -> str:
    """``part`` without white space, closing punctuation and a pair of quotes around it."""
    part = part.strip().rstrip(_END)
    return unquoted(part[:-1] if part.endswith(".") and not part[-2:].isascii() else part)


class Words:
    """Spellings and the labels they stand for; where one spelling holds another, the longest is found.

    Args:
        spellings: to labels; of two that fold alike the last wins.
        whole: more of them, too short to mean anything but alone.
    """

    def __init__(self, spellings: Mapping[str, str], whole: Mapping[str, str] | None = None) -> None:
        self.labels = {key(word): label for word, label in {**(whole or {}), **spellings}.items() if key(word)}
        #: The label of each spelling that `pattern` finds.
        self.found = {folded(word.strip()): label for word, label in spellings.items() if word.strip()}
        self.pattern = "|".join(map(re.escape, sorted(self.found, key=len, reverse=True))) or r"(?!)"

    def exact(self, text: str) -> str | None:
        """The label that ``text`` spells, whatever the width, case, spaces and quotes."""
        return self.labels.get(key(bare(text)), self.labels.get(key(text)))

    def begun(self, text: str) -> bool:
        """Whether ``text`` is no spelling yet, but some begin with it."""
        start = key(text) or "\n"
        return self.exact(text) is None and any(word.startswith(start) for word in self.labels)

    def hits(self, flat: str) -> Iterator[re.Match[str]]:
        """Every spelling in a folded text, from left to right."""
        return re.finditer(self.pattern, flat)


_OPENING = re.compile(r"[{\[](?=\s{0,20}[\"'“{}\[\]])")
_TOKEN = re.compile(
    r"""(?s)(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|“[^”]*”)|(?P<open>[{\[])|(?P<close>[}\]])|(?P<colon>[:：])"""
    r"""|(?P<comma>[,，])|(?P<word>-?\d[\d.eE+-]*|[A-Za-z]+)|(?P<cut>["'“])|\S"""
)


def json_values(text: str) -> tuple[list[Json], bool]:
    """The JSON values in ``text``, and whether it ends within the last.

    Other quotes, spare commas, Python's constants and a broken end are read over. Numbers stay text: a long one is no
    reason to fail, and an answer's parts are text.
    """
    values, cut, at = list[Any](), False, 0
    while match := _OPENING.search(text, at):
        found, at, cut = list[Any](), len(text), True
        # What is open, each with the name that waits for its value.
        stack: list[tuple[Any, list[str]]] = [(found, [])]
        for token in _TOKEN.finditer(text, match.start()):
            kind, said = token.lastgroup, token.group()
            inside, name = stack[-1]
            if kind == "cut":
                break
            if kind == "close":
                while len(stack) > 1 and isinstance(stack.pop()[0], dict) != (said == "}"):
                    pass
            elif kind is None or (kind == "comma" and name) or len(stack) > 50:
                # No answer nests as deep; without a limit, time would grow with depth times length.
                found, stack = [], stack[:1]
            elif kind in ("text", "word", "open"):
                value: Any = ({} if said == "{" else []) if kind == "open" else _literal(said)
                if isinstance(inside, list):
                    inside.append(value)
                elif name:
                    inside[name.pop()] = value
                else:
                    name.append(str(value))
                if kind == "open":
                    stack.append((value, []))
            if len(stack) == 1:
                at, cut = token.end(), False
                break
        values += found
    return values, cut


def _literal(token: str) -> Json:
    try:
        return str(json.loads(token, strict=False)) if token[0] == '"' else token.strip("'“”")
    except ValueError:
        return token[1:-1]


def leaves(value: Json) -> list[str]:
    """Every string in a JSON value, in order."""
    if isinstance(value, str):
        return [value]
    return [leaf for inner in (value.values() if isinstance(value, Mapping) else value or ()) for leaf in leaves(inner)]
