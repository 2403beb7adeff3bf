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
from typing import NamedTuple, TypeAlias

#: A JSON value, its numbers as text.
Json: TypeAlias = str | bool | Sequence["Json"] | Mapping[str, "Json"] | None

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


_TOKENS = re.compile(r"<[|｜][^<>|｜\n]{1,30}[|｜]>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>|\[/?INST\]")
_SPEAKER = re.compile(r"\s{0,9}(?:assistant|model|ASSISTANT)\s{0,3}[:：]?\s{0,3}(?=\n|$)")


def _without_tokens(text: str) -> str:
    """The first turn that says something, without the tokens of chat templates around it."""
    if not _TOKENS.search(text):
        return text
    for piece in _TOKENS.split(text):
        said = _SPEAKER.sub("", piece, count=1) if _SPEAKER.match(piece) else piece
        if said.strip():
            return said
    return ""


def is_wrapped(text: str) -> bool:
    """Whether ``text`` holds what no dialect does but no strict parser minds."""
    return bool(_TOKENS.search(text)) or "<answer>" in text


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


_TAGGED = re.compile(r"<([^<>/\s]{1,20})>([^<>]{0,200})</\1>")
_BOXED = re.compile(r"\${0,2}\\boxed\{(?:\\text\{)?([^{}\n]{0,200})\}{1,2}\${0,2}")


def _without_markdown(text: str) -> str:
    text = _TAGGED.sub(r"\1：\2\n", text)
    text = _BOXED.sub(r"\1", text.replace("**", "").replace("`", "").replace("~~", ""))
    return "\n".join(_without_line_markdown(line) for line in text.split("\n"))


def _without_line_markdown(line: str) -> str:
    bare = line.strip()
    if len(bare) >= 3 and not bare.strip("-*_= "):
        return ""
    return bare.lstrip("#> \t") if bare[:1] in ("#", ">") else line


#: In the order they are applied.
_NORMALISERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("line endings", _line_endings),
    ("invisible characters", _visible),
    ("thinking removed", _without_thinking),
    ("chat tokens", _without_tokens),
    ("code fence", _without_fence),
    ("markdown", _without_markdown),
)


def unwrapped(text: str) -> tuple[str, list[str], bool]:
    """What ``text`` holds within its wrapping, what was taken off, and whether it ends in a thought or a fence."""
    thinking = any(text.rfind(f"<{tag}>") > text.rfind(f"</{tag}>") for tag in _THINKING)
    cut = thinking or (text.count(_FENCE) % 2 == 1 and bool(text.rpartition(_FENCE)[2].strip()))
    kinds = []
    for kind, normalise in _NORMALISERS:
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


# Traditional characters of labels, names of fields and medical words, each before the simplified one.
_SCRIPTS = (
    "實实 體体 臨临 現现 藥药 類类 別别 醫医 學学 檢检 驗验 項项 設设 備备 關关 係系 頭头 為为 對对 應应 "
    "療疗 診诊 斷断 議议 輔辅 訴诉 狀状 態态 認认 確确 見见 語语 義义 無无 與与 麼么 歲岁 過过 開开 齡龄 "
    "腫肿 進进 參参 試试 護护 風风 險险 評评 習习 況况 詢询 問问 於于 給给 結结 論论 選选 擇择 標标 準准 "
    "術术 詞词 測测 費费 後后 沒没 該该 癥症 發发 熱热 嘔呕 瀉泻 痺痹 腦脑 臟脏 腎肾 壓压 長长 間间 質质 "
    "變变 種种 懷怀 親亲 飲饮 動动 執执 獻献 殘残 據据 願愿 導导 闌阑 燒烧 點点 時时 幾几 個个 這这 們们 "
    "兩两 來来 還还 會会 說说 請请 謝谢 師师 員员 陽阳 陰阴 膽胆 腸肠 脈脉 傷伤 塊块 膚肤 癢痒 濕湿 潰溃 "
    "瘍疡 濃浓 頻频 紅红 黃黄 貧贫 營营 養养 劑剂 膠胶 鹽盐 鈣钙 鐵铁 維维 產产 嬰婴 兒儿 婦妇 髮发 雙双 "
    "齒齿 聲声 視视 聽听 覺觉 滅灭 圍围 積积 難难 氣气 虛虚 緊紧 張张 憂忧 鬱郁 夢梦 遺遗 傳传 補补 復复 "
    "複复 輸输 歷历 記记 錄录 報报 書书 讀读 寫写 數数 統统 計计 達达 適适 將将 從从 經经 約约 級级 樣样 "
    "總总 單单 獨独 儀仪 機机 構构 組组 織织 細细 蟲虫 條条 較较 顯显 異异 網网 頁页 尋寻 題题 內内 徵征 "
    "證证 違违 續续 針针 規规 則则 範范 預预 處处 側侧 邊边 顆颗 鬆松 腳脚 臉脸 頸颈 礙碍 殼壳 節节 靜静 "
    "劇剧 減减 輕轻 顫颤 擴扩 壞坏 惡恶 響响 觀观 際际 謹谨 負负 責责 屬属 號号 圖图 線线 錯错 誤误 雖虽 "
    "僅仅 並并 當当 雜杂 離离 價价 瘡疮 癱瘫 癲癫 癇痫 極极 讓让 緩缓"
)
# Width, case and kind of punctuation make no difference to what a word is, nor does the script. One character stays
# one, so that places in a folded text are places in the text.
_FOLDED: dict[int, str] = {
    **{code: chr(code - 0xFEE0).lower() for code in range(0xFF01, 0xFF5F)},
    **{ord(letter): letter.lower() for letter in ascii_uppercase},
    **{ord(sign): plain for sign, plain in zip("　、；;。“”‘’【】", " ,,,.\"\"''[]", strict=True)},
    **{ord(pair[0]): pair[1] for pair in _SCRIPTS.split()},
}
_AROUND = " \t\n　\"'“”‘’「」『』《》〈〉<>【】[]`*_~$.。．,，;；:：!！"


def folded(text: str) -> str:
    """``text`` with width, case, script and kind of punctuation made one, character by character."""
    return text.translate(_FOLDED)


def bare(text: str) -> str:
    """``text`` without the quotes, brackets and punctuation around it."""
    text = text.strip(_AROUND)
    if text[:1] in ("(", "（") and text[-1:] in (")", "）"):
        text = text[1:-1].strip(_AROUND)
    return text


def key(text: str) -> str:
    """What is the same for two spellings of one word."""
    return "".join(folded(text).split())


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
        everything = dict(whole or {}) | dict(spellings)
        self.labels = {key(spelling): label for spelling, label in reversed(list(everything.items()))}
        self.labels |= {key(spelling): label for spelling, label in reversed(list(spellings.items()))}
        self.labels.pop("", None)
        self._keys = [*map(key, spellings)]
        found = {folded(spelling.strip()): label for spelling, label in reversed(list(spellings.items()))}
        self._found = {spelling: label for spelling, label in found.items() if spelling}
        longest_first = sorted(self._found, key=len, reverse=True)
        self.pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._search = re.compile(self.pattern)
        # A text of twice the length is no spelling, however it is quoted.
        self._longest = 2 * max(map(len, everything), default=0) + 40

    def exact(self, text: str) -> str | None:
        """The label that ``text`` spells, whatever the width, case, spaces and quotes."""
        if len(text) > self._longest:
            return None
        within = bare(text)
        label = self.labels.get(key(within))
        return label if label is not None or within == text else self.labels.get(key(text))

    def spelt(self, spelling: str) -> str:
        """The label of a spelling that `pattern` found."""
        return self._found[spelling]

    def begins_with(self, text: str) -> bool:
        """Whether some spelling begins with ``text`` and goes on."""
        start = key(text)
        return bool(start) and any(len(word) > len(start) and word.startswith(start) for word in self._keys)

    def hits(self, flat: str) -> Iterator[Hit]:
        """Every spelling in a folded text, from left to right."""
        for match in self._search.finditer(flat):
            yield Hit(match.start(), match.end(), self._found[match.group()])


@lru_cache(maxsize=256)
def _cached_words(spellings: tuple[tuple[str, str], ...], whole: tuple[tuple[str, str], ...]) -> Words:
    return Words(dict(spellings), dict(whole))


def words(spellings: Mapping[str, str], whole: Mapping[str, str] | None = None) -> Words:
    """`Words`, compiled once for as long as they are in use."""
    return _cached_words(tuple(spellings.items()), tuple((whole or {}).items()))


_END = " \t　。；;，,、"
_QUOTES = {"“": "”", "‘": "’", '"': '"', "'": "'", "「": "」", "『": "』", "《": "》", "【": "】", "<": ">"}


def clean(part: str) -> str:
    """``part`` without white space, closing punctuation and a pair of quotes around it."""
    part = part.strip().rstrip(_END)
    if part.endswith(".") and not part[-2:].isascii():
        part = part[:-1]
    return unquoted(part)


def unquoted(text: str) -> str:
    """``text`` without a pair of quotes around it."""
    return text[1:-1].strip() if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] else text


def unparenthesised(text: str) -> str:
    """``text`` without a pair of parentheses around it, or one at an end that lost its other half."""
    opens, closes = text.startswith(("(", "（")), text.endswith((")", "）"))
    inner = sum(text.count(sign) for sign in "(（") - sum(text.count(sign) for sign in ")）")
    if opens and closes:
        return text[1:-1].strip()
    return text[:-1].strip() if closes and inner < 0 else text[1:].strip() if opens and inner > 0 else text


_BREAK = re.compile(r"\s{0,9}<br\s{0,3}/?>\s{0,9}")


def table_rows(lines: Sequence[Line]) -> list[tuple[int, list[str]]]:
    """The rows of a Markdown table, each with its line number, or none; its rule is the row of empty lists."""
    rows = []
    for line in lines:
        if line.text.startswith("|") and line.text.count("|") > 1:
            cells = [_BREAK.sub("、", cell).strip() for cell in line.text.strip("|").split("|")]
            rule = all(cell and not cell.strip("-: ") for cell in cells)
            rows.append((line.number, [] if rule else cells))
    return rows


# Numbers stay text: a long one is no reason to fail, and an answer's parts are text.
_DECODER = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str)
_OPENING = re.compile(r"\{|\[(?=\s{0,20}[\"'“{\[\]])")
_JSON_LIKE = re.compile(r"[{\[]\s{0,20}[\"'“{\[]")
_TRAILING_COMMA = re.compile(r",(?=\s{0,200}[}\]])")
_PYTHON_WORDS = re.compile(r"(?<=[\s:,\[])(?:True|False|None)(?=\s{0,9}[,\]}])")
_TOKEN = re.compile(r"\\.|[\"{}\[\],]", re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}
_ATTEMPTS = 4


def json_values(text: str) -> tuple[list[Json], bool]:
    """The JSON values in ``text``, and whether it ends within the last; a loosely written one is mended."""
    values: list[Json] = []
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


def _decode_loose(text: str) -> tuple[list[Json], bool]:
    """The JSON value that ``text`` starts with, if other quotes, spare commas or a broken end are all that is wrong."""
    text = _TRAILING_COMMA.sub("", text)
    if '"' not in text:
        text = text.replace("'", '"').translate(str.maketrans("“”：，", '"":,'))
        text = _PYTHON_WORDS.sub(lambda word: {"N": "null"}.get(word.group()[0], word.group().lower()), text)
    value, end = _decode(text, 0)
    if end:
        return [value], False
    closed, cut = _closed(text)
    value, end = _decode(closed, 0)
    return ([value] if end else []), cut


def _decode(text: str, start: int) -> tuple[Json, int]:
    """The JSON value that starts at ``start`` and where it ends, or 0."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0
    return value, end


class _Open(NamedTuple):
    """The open brackets are a linked list, which a place can remember without copying it."""

    closing: str
    outer: _Open | None


def _closed(text: str) -> tuple[str, bool]:
    """JSON that breaks off, cut after its last whole member and closed; and whether it did break off."""
    opened: _Open | None = None
    end, rest = 0, opened
    in_string = False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == '"':
            in_string = not in_string
        elif in_string or token[0] == "\\":
            continue
        elif token in _CLOSING:
            opened = _Open(_CLOSING[token], opened)
        elif token == ",":
            end, rest = match.start(), opened
        elif opened is None or opened.closing != token:
            break
        else:
            opened = opened.outer
            end, rest = match.end(), opened
            if opened is None:
                break
    closers = []
    while rest is not None:
        closers.append(rest.closing)
        rest = rest.outer
    return text[:end] + "".join(closers), opened is not None or in_string


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
