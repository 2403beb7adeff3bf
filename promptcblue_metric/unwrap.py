"""What a chat model puts around an answer, taken off: thoughts, chat tokens, fences, Markdown, JSON, tables, bullets.

Nothing here knows an answer format. Every function takes time linear in its text and raises on no string; a
regular expression is used only where each of its repeats is bounded or cannot be tried twice on one character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeAlias

#: A JSON value, its numbers as text.
Json: TypeAlias = str | bool | Sequence["Json"] | Mapping[str, "Json"] | None

_FENCE, _THINKING = "```", ("think", "thinking")
_ENDINGS = re.compile("\r\n|[\r\u2028\u2029]")
_VISIBLE = {**dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060")), 0xA0: " "}
_TOKENS = re.compile(r"<[|｜][^<>|｜\n]{1,30}[|｜]>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>|\[/?INST\]")
_SPEAKER = re.compile(r"\s{0,9}(?:assistant|model|ASSISTANT)\s{0,3}[:：]?\s{0,3}(?=\n|$)")
_RESPONSE = re.compile(r"^#{1,4} {0,3}(?:Final Response|Final Answer|最终回答|最终回复)[*:： ]{0,4}$", re.MULTILINE)
_LANGUAGE = re.compile(r"[A-Za-z]{0,12}[ \t]{0,4}\n")
_TAGGED = re.compile(r"<([^<>/\s]{1,20})>([^<>]{0,200})</\1>")
_BOXED = re.compile(r"\${0,2}\\boxed\{(?:\\text\{)?([^{}\n]{0,200})\}{1,2}\${0,2}")
_BREAK = re.compile(r"\s{0,9}<br\s{0,3}/?>\s{0,9}")


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
    ends = [match.end() for match in _RESPONSE.finditer(text)]
    return _blank(text[: ends[-1]]) + text[ends[-1] :] if ends and text[ends[-1] :].strip() else text


def _without_tokens(text: str) -> str:
    """The first turn that says something, without the tokens of chat templates around it."""
    turns = _TOKENS.split(text)
    said = (_SPEAKER.sub("", turn, count=1) if _SPEAKER.match(turn) else turn for turn in turns)
    return next((turn for turn in said if turn.strip()), "") if len(turns) > 1 else text


def is_wrapped(text: str) -> bool:
    """Whether ``text`` holds what no dialect does but no strict parser minds."""
    return bool(_TOKENS.search(text)) or "<answer>" in text or "Final Response" in text


def _without_fence(text: str) -> str:
    """The content of the fence where there is one, or of an answer tag; without their marks where there are more."""
    before, tag, tagged = text.rpartition("<answer>")
    if tag:
        text = _blank(before) + tagged.partition("</answer>")[0]
    before, *inside = text.split(_FENCE)
    inside = [_LANGUAGE.sub("\n", piece, count=1) if _LANGUAGE.match(piece) else piece for piece in inside]
    if inside and len(inside) <= 2 and inside[0].strip():
        return _blank(before) + inside[0]
    return before + "".join(inside)


def _without_markdown(text: str) -> str:
    text = _TAGGED.sub(r"\1：\2\n", text)
    lines = _BOXED.sub(r"\1", text.replace("**", "").replace("`", "").replace("~~", "")).split("\n")
    for at, line in enumerate(lines):
        bare = line.strip()
        if len(bare) >= 3 and not bare.strip("-*_= "):
            lines[at] = ""
        elif bare[:1] in ("#", ">"):
            lines[at] = bare.lstrip("#> \t")
        elif not bare.startswith("|"):
            lines[at] = _BREAK.sub("\n", line)
    return "\n".join(lines)


#: In the order they are applied.
_NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "line endings": lambda text: _ENDINGS.sub("\n", text),
    "invisible characters": lambda text: text.translate(_VISIBLE),
    "thinking removed": _without_thinking,
    "chat tokens": _without_tokens,
    "code fence": _without_fence,
    "markdown": _without_markdown,
}


def unwrapped(text: str) -> tuple[str, list[str], bool]:
    """What ``text`` holds within its wrapping, what was taken off, and whether it ends in a thought or a fence."""
    thinking = any(text.rfind(f"<{tag}>") > text.rfind(f"</{tag}>") for tag in _THINKING)
    cut = thinking or (text.count(_FENCE) % 2 == 1 and bool(text.rpartition(_FENCE)[2].strip()))
    kinds = []
    for kind, normalise in _NORMALISERS.items():
        before, text = text, normalise(text)
        kinds += [kind] * (text != before)
    return text, kinds, cut


class Line(NamedTuple):
    """A line that is not blank: its 1-based number, its bullet or number, and what follows that."""

    number: int
    mark: str
    text: str


_ITEM = re.compile(
    r"(?:[-*+](?=[ \t]|[^\x00-\x7f])|[•·●○▪◦■□➢►]|\d{1,2}[.．](?!\d)|\d{1,2}[、)）]"
    r"|[（(](?:\d{1,2}|[一二三四五六七八九十]{1,2})[)）]|[①-⑳]|[一二三四五六七八九十]{1,2}、)"
)


def content_lines(text: str) -> list[Line]:
    """The lines of ``text`` that hold something."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if bare := line.strip():
            mark = match.group() if (match := _ITEM.match(bare)) else ""
            found.append(Line(number, mark, bare[len(mark) :].strip()))
    return found


# Traditional characters of labels, names of fields and medical words, and the simplified ones in the same order.
_TRADITIONAL = (
    "實體臨現藥類別醫學檢驗項設備關係頭為對應療診斷議輔訴狀態認確見語義無與麼歲過開齡腫進參試護風險評習況詢問於給"
    "結論選擇標準術詞測費後沒該癥發熱嘔瀉痺腦臟腎壓長間質變種懷親飲動執獻殘據願導闌燒點時幾個這們兩來還會說請謝師"
    "員陽陰膽腸脈傷塊膚癢濕潰瘍濃頻紅黃貧營養劑膠鹽鈣鐵維產嬰兒婦髮雙齒聲視聽覺滅圍積難氣虛緊張憂鬱夢遺傳補復複輸"
    "歷記錄報書讀寫數統計達適將從經約級樣總單獨儀機構組織細蟲條較顯異網頁尋題內徵證違續針規則範預處側邊顆鬆腳臉頸"
    "礙殼節靜劇減輕顫擴壞惡響觀際謹負責屬號圖線錯誤雖僅並當雜離價瘡癱癲癇極讓緩"
)
_SIMPLIFIED = (
    "实体临现药类别医学检验项设备关系头为对应疗诊断议辅诉状态认确见语义无与么岁过开龄肿进参试护风险评习况询问于给"
    "结论选择标准术词测费后没该症发热呕泻痹脑脏肾压长间质变种怀亲饮动执献残据愿导阑烧点时几个这们两来还会说请谢师"
    "员阳阴胆肠脉伤块肤痒湿溃疡浓频红黄贫营养剂胶盐钙铁维产婴儿妇发双齿声视听觉灭围积难气虚紧张忧郁梦遗传补复复输"
    "历记录报书读写数统计达适将从经约级样总单独仪机构组织细虫条较显异网页寻题内征证违续针规则范预处侧边颗松脚脸颈"
    "碍壳节静剧减轻颤扩坏恶响观际谨负责属号图线错误虽仅并当杂离价疮瘫癫痫极让缓"
)
# Width, case and kind of punctuation make no difference to what a word is, nor does the script. One character stays
# one, so that places in a folded text are places in the text.
_FOLDED: dict[int, str] = {
    **{code: chr(code - 0xFEE0).lower() for code in range(0xFF01, 0xFF5F)},
    **{ord(letter): letter.lower() for letter in ascii_uppercase},
    **{ord(sign): plain for sign, plain in zip("　、；;。“”‘’【】", " ,,,.\"\"''[]", strict=True)},
    **{ord(sign): plain for sign, plain in zip(_TRADITIONAL, _SIMPLIFIED, strict=True)},
}
_AROUND = " \t\n　\"'“”‘’「」『』《》〈〉<>【】[]`*_~$.。．,，;；:：!！"
_END = " \t　。；;，,、"
_QUOTES = {"“": "”", "‘": "’", '"': '"', "'": "'", "「": "」", "『": "』", "《": "》", "【": "】", "<": ">"}


def folded(text: str) -> str:
    """``text`` with width, case, script and kind of punctuation made one, character by character."""
    return text.translate(_FOLDED)


def key(text: str) -> str:
    """What is the same for two spellings of one word."""
    return "".join(folded(text).split())


def bare(text: str) -> str:
    """``text`` without the quotes, brackets and punctuation around it."""
    text = text.strip(_AROUND)
    paired = text[:1] in ("(", "（") and text[-1:] in (")", "）")
    return text[1:-1].strip(_AROUND) if paired else text


def unquoted(text: str) -> str:
    """``text`` without a pair of quotes around it."""
    return text[1:-1].strip() if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] else text


def clean(part: str) -> str:
    """``part`` without white space, closing punctuation and a pair of quotes around it."""
    part = part.strip().rstrip(_END)
    return unquoted(part[:-1] if part.endswith(".") and not part[-2:].isascii() else part)


def unparenthesised(text: str) -> str:
    """``text`` without a pair of parentheses around it."""
    return text[1:-1].strip() if text.startswith(("(", "（")) and text.endswith((")", "）")) else text


class Hit(NamedTuple):
    """A word found in a text: where, and what it stands for."""

    start: int
    end: int
    label: str


class Words:
    """Spellings and the labels they stand for; where one spelling holds another, the longest is found.

    Args:
        spellings: to labels; of two that fold alike the first wins.
        whole: more of them, too short to mean anything but alone.
    """

    def __init__(self, spellings: Mapping[str, str], whole: Mapping[str, str] | None = None) -> None:
        everything = [*spellings.items(), *(whole or {}).items()]
        self.labels = {word: label for spelling, label in reversed(everything) if (word := key(spelling))}
        self._keys = [*map(key, spellings)]
        found = {folded(spelling.strip()): label for spelling, label in reversed(list(spellings.items()))}
        #: The label of each spelling that `pattern` finds.
        self.found = {spelling: label for spelling, label in found.items() if spelling}
        self.pattern = "|".join(map(re.escape, sorted(self.found, key=len, reverse=True))) or r"(?!)"
        self._search = re.compile(self.pattern)
        # A text of twice the length is no spelling, however it is quoted.
        self._longest = 2 * max((len(spelling) for spelling, _ in everything), default=0) + 40

    def exact(self, text: str) -> str | None:
        """The label that ``text`` spells, whatever the width, case, spaces and quotes."""
        if len(text) > self._longest:
            return None
        label = self.labels.get(key(within := bare(text)))
        return label if label is not None or within == text else self.labels.get(key(text))

    def begins_with(self, text: str) -> bool:
        """Whether some spelling begins with ``text`` and goes on."""
        start = key(text)
        return bool(start) and any(len(word) > len(start) and word.startswith(start) for word in self._keys)

    def hits(self, flat: str) -> Iterator[Hit]:
        """Every spelling in a folded text, from left to right."""
        for match in self._search.finditer(flat):
            yield Hit(match.start(), match.end(), self.found[match.group()])


@lru_cache(maxsize=256)
def _cached_words(spellings: tuple[tuple[str, str], ...], whole: tuple[tuple[str, str], ...]) -> Words:
    return Words(dict(spellings), dict(whole))


def words(spellings: Mapping[str, str], whole: Mapping[str, str] | None = None) -> Words:
    """`Words`, compiled once for as long as they are in use."""
    return _cached_words(tuple(spellings.items()), tuple((whole or {}).items()))


def table_rows(lines: Sequence[Line]) -> list[tuple[int, list[str]]]:
    """The rows of a Markdown table, each with its line number, or none; its rule is the row of empty lists."""
    rows = []
    for line in lines:
        if line.text.startswith("|") and line.text.count("|") > 1:
            cells = [_BREAK.sub("、", cell).strip() for cell in line.text.strip("|").split("|")]
            rule = all(cell and not cell.strip("-: ") for cell in cells)
            rows.append((line.number, [] if rule else cells))
    return rows


_OPENING = re.compile(r"[{\[](?=\s{0,20}[\"'“{}\[\]])")
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|“[^”]*”)|(?P<open>[{\[])|(?P<close>[}\]])|(?P<colon>[:：])"""
    r"""|(?P<comma>[,，])|(?P<word>-?\d[\d.eE+-]*|[A-Za-z]+)|(?P<cut>["'“])|\S""",
    re.DOTALL,
)
#: No answer nests as deep; without a limit, time would grow with depth times length.
_DEEPEST = 50
_CONSTANTS: Mapping[str, Json] = {"true": True, "false": False, "null": None, "none": None}


def json_values(text: str) -> tuple[list[Json], bool]:
    """The JSON values in ``text``, and whether it ends within the last.

    Other quotes, spare commas, Python's constants and a broken end are read over. Numbers stay text: a long one is no
    reason to fail, and an answer's parts are text.
    """
    values, cut, at = list[Json](), False, 0
    while match := _OPENING.search(text, at):
        found, at, cut = _json_value(text, match.start())
        values += found
    return values, cut


def _json_value(text: str, start: int) -> tuple[list[Json], int, bool]:
    """The value that starts at ``start`` or none, where it ends, and whether the text ends within it."""
    root: list[Any] = []
    # What is open, each with the name that waits for its value.
    stack: list[tuple[Any, list[str]]] = [(root, [])]
    for token in _TOKEN.finditer(text, start):
        kind, said = token.lastgroup, token.group()
        inside, name = stack[-1]
        if kind == "cut":
            break
        if kind == "close":
            while len(stack) > 1 and isinstance(stack.pop()[0], dict) != (said == "}"):
                pass
            if len(stack) == 1:
                return root, token.end(), False
        elif kind is None or (kind == "comma" and name) or len(stack) > _DEEPEST:
            return [], token.end(), False
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
    return root, len(text), True


def _literal(token: str) -> Json:
    if token[0] not in "\"'“":
        return _CONSTANTS.get(token.lower(), token)
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token[1:-1]


def leaves(value: Json) -> list[str]:
    """Every string in a JSON value, in order; true and false are such."""
    found: list[str] = []
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, (str, bool)):
            found.append(str(node).lower() if isinstance(node, bool) else node)
        elif isinstance(node, (list, dict)):
            stack += reversed(list(node.values() if isinstance(node, dict) else node))
    return found
