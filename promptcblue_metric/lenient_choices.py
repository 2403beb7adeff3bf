"""Lenient readers of the formats that choose: a status for each finding, offered terms, one label; and of free text."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .answers import Answer, FreeText, Label, StatusLines, TermList
from .lenient_reader import REMARK, ROLES, SENTENCE_END, Reader, is_none, listed, roles_of, says_nothing
from .unwrap import Line, ListStyle, Repair, bare, clean, folded, leaves, unquoted, words

#: Other names of labels: the paper's spellings, and what the corpus of CHIP-MDCFNPC calls its statuses.
PAPER_LABELS = {
    "语义毫无关联": "语义无直接关联",
    "完全不匹配": "完全不匹配或者没有参考价值",
    "是": "是的",
    "已有症状疾病或者假设未来可能发生的疾病": "已有症状疾病或者假设未来可能发生的疾病等",
    "未患有的症状疾病": "未患有症状疾病",
}
CORPUS_LABELS = {
    "阳性": "已有症状疾病或者假设未来可能发生的疾病等",
    "阴性": "未患有症状疾病",
    "其他": "没有回答、不知道、回答不明确或者模棱两可不好推断",
    "不标注": "无实际意义的不标注或者和病人当前的状态独立不标注",
}
#: Names under which JSON holds a label, and those under which it holds a reply.
_ANSWER_KEYS = ("答案", "标签", "类型", "类别", "意图", "结果", "关系", "结论", "选项", "answer", "label", "type")
_REPLY_KEYS = ("回复", "回答", "答复", "医生", "医生回复", "答案", "response", "reply", "answer", "content", "text")
#: Marks of a list that say nothing, where a number could be an answer.
_BULLETS = ("-", "*", "+", *"•·●○▪◦■□➢►")
#: What stands before an answer that comes after something else.
_ANSWER_MARK = re.compile(
    r"(?:答案|答|结论|结果|意图|类型|类别|标签|判断|关系|程度|分类|标准词|术语|选择|输出|answer|label)(?:是|为|应为)?\s{0,3}:"
)


class Statuses(Reader[StatusLines]):
    """A line per finding, in any order of finding and status."""

    record_roles = ("entity", "attr")
    _joints = " \t　：:-—–→>=＝是为有，,、（([【|\"'“‘"

    def __init__(self, answer_format: StatusLines, choices: Sequence[str]) -> None:
        self.paper_lead = answer_format.lead.replace("以及其", "及其") if "以及其" in answer_format.lead else ""
        super().__init__(answer_format, choices)
        others = {name: label for name, label in (PAPER_LABELS | CORPUS_LABELS).items() if label in choices}
        self.statuses = words({choice: choice for choice in choices} | others)
        self.findings: dict[tuple[str, str], None] = {}
        self.current = ""
        self.cut = False

    def status(self, text: str) -> str | None:
        """The status that ``text`` gives, or the only one that it holds and does not deny."""
        label = self.statuses.exact(text)
        if label is None:
            found = {hit.label for hit in self.statuses.hits(text) if not hit.denied}
            label = found.pop() if len(found) == 1 else None
        if label is not None and label not in text:
            self.note("paper dialect" if bare(text) in PAPER_LABELS else "near-miss label")
        elif label is not None and label != text.strip():
            self.note("label case/quotes" if label == bare(text) else "near-miss label")
        return label

    def add(self, status: str, *findings: str) -> bool:
        for finding in map(clean, findings):
            if finding and not is_none(finding):
                self.findings[finding, status] = None
        self.understood = True
        return True

    def line(self, line: Line) -> bool:
        self.cut = False
        pieces = [piece.strip() for piece in re.split("[；;。]", line.text) if piece.strip()]
        by_comma = [piece.strip() for piece in re.split("[，,]", line.text)]
        if len(by_comma) > 1 and all(":" in folded(piece) for piece in by_comma):
            pieces = by_comma
        return sum(self._finding(piece, line) for piece in pieces) > 0

    def _finding(self, text: str, line: Line) -> bool:
        at = folded(text).rfind(":")
        finding, status = (text[:at].strip(), text[at + 1 :].strip()) if at > 0 else ("", "")
        grouped = self.statuses.exact(finding) if finding else self.statuses.exact(text)
        if grouped is not None and self.statuses.exact(status) is None:
            self.note("layout")
            self.current = grouped
            return self.add(grouped, *ListStyle.of([status]).items(status))
        if finding and (label := self.status(status)):
            if text[at] == ":":
                self.note("half-width punctuation")
            return self.add(label, finding)
        if finding:
            self.cut = not status or self.statuses.begins_with(status)
            if status and (self.cut or not self._is_remark(text)):
                self.problem("unknown status", line.number)
                return True
            return False
        return self._joined(text) or self._under_current(text, line)

    def _joined(self, text: str) -> bool:
        """Read a finding and the status that ends the text, joined by anything but a colon."""
        hits = [hit for hit in self.statuses.hits(text) if not hit.denied]
        if len(hits) != 1 or bare(text[hits[0].end :]).strip(")）"):
            return False
        finding = text[: hits[0].start]
        if not finding or finding[-1] not in self._joints:
            return False
        self.note("layout")
        return self.add(hits[0].label, finding.rstrip(self._joints))

    def _under_current(self, text: str, line: Line) -> bool:
        if not self.current or not line.mark or REMARK.match(text):
            return False
        return self.add(self.current, text)

    def is_own(self, name: str, value: str) -> bool:
        return ROLES.spelt(name) == "entity" and self.status(value) is not None

    def record(self, record: Mapping[str, Any]) -> bool:
        roles = roles_of(record)
        if "entity" not in roles or "attr" not in roles:
            return False
        label = self.status(" ".join(leaves(roles["attr"])))
        if label is None:
            self.problem("unknown status", 1)
            return True
        return self.add(label, *leaves(roles["entity"]))

    def pair(self, key: str, value: Any) -> bool:
        grouped = self.statuses.exact(key)
        if grouped is not None:
            return self.add(grouped, *leaves(value))
        found = {label for text in leaves(value) if (label := self.statuses.exact(text))}
        return len(found) == 1 and not ROLES.exact(key) and self.add(found.pop(), key)

    def answer(self) -> Answer:
        return [{"entity": finding, "attr": status} for finding, status in self.findings]

    def stops_short(self, lines: Sequence[Line]) -> bool:
        last = lines[-1].text
        bare_word = len(last) <= 12 and self.understood and ":" not in folded(last) and not self._joined(last)
        unended = bare_word and not REMARK.match(last) and not last.endswith(SENTENCE_END) and not self.current
        unended = unended and not self._is_lead(last) and not says_nothing(last)
        return super().stops_short(lines) or self.cut or unended


class Terms(Reader[TermList]):
    """Offered terms, listed or named in a sentence."""

    _leads_in = ("是", "为", "选择", "选", "即", "应", "：", ":")
    _joins = ("和", "与", "及", "或", "以及")
    _denied_key = re.compile("候选|选项|排除|未选|不")

    def __init__(self, answer_format: TermList, choices: Sequence[str]) -> None:
        super().__init__(answer_format, choices)
        self.offered = words({choice: choice for choice in choices})
        self.terms: set[str] = set()

    def leaf(self, text: str) -> None:
        term = self.offered.exact(text)
        if term is not None:
            self.terms.add(term)
            self.understood = True

    def pair(self, key: str, value: Any) -> bool:
        return bool(self._denied_key.search(key))

    def lines(self, lines: Sequence[Line]) -> None:
        marked = [place for place, line in enumerate(lines) if _ANSWER_MARK.search(folded(line.text))]
        if marked and any(self._terms_in(line.text) for line in lines[marked[-1] :]):
            self.note("answer marker")
            lines = lines[marked[-1] :]
        lines_of_terms = [line for line in lines if not REMARK.match(line.text)]
        said = [(line, terms) for line in lines_of_terms if (terms := self._terms_in(line.text))]
        if not said or any(bare(line.text) == self.format.nothing for line in lines):
            if any(says_nothing(line.text) for line in lines):
                self.understood = True
                self.note("empty marker")
            return
        for line, terms in said:
            self.understood = True
            self.terms.update(terms)
            self._check_rest(line)
        if len(said) > 1 or len(said) < len(lines):
            read = [line.number for line, _ in said]
            self.note("layout" if len(said) > 1 else "preamble" if lines[0].number < read[0] else "closing remark")

    def _terms_in(self, text: str) -> list[str]:
        """The offered terms that stand apart in ``text``: in a list, or led in by a word that names a choice."""
        hits = [hit for hit in self.offered.hits(text) if not hit.denied]
        starts = {hit.start for hit in hits}
        terms: list[str] = []
        end = -1
        for hit in hits:
            before, after = text[max(0, hit.start - 2) : hit.start], text[hit.end : hit.end + 2]
            joined = end >= 0 and before.endswith(self._joins) and hit.start - end <= 2
            joins = any(after.startswith(word) and hit.end + len(word) in starts for word in self._joins)
            apart_before = not before or not _in_word(before[-1]) or before.endswith(self._leads_in) or joined
            apart_after = not after or not _in_word(after[0]) or joins or after.startswith(("等", "这", "两"))
            if apart_before and apart_after:
                terms.append(hit.label)
                end = hit.end
        return terms

    def _check_rest(self, line: Line) -> None:
        """Name what stands in a list among offered terms and is none."""
        flat = list(line.text)
        for hit in self.offered.hits(line.text):
            flat[hit.start : hit.end] = "\0" * (hit.end - hit.start)
        pieces = [bare(piece) for piece in re.split("[，,、；;]", "".join(flat))]
        if "。" not in line.text.rstrip("。") and any(piece and "\0" not in piece for piece in pieces):
            self.problem("unknown term", line.number)
        if any(piece.strip("\0") for piece in pieces if "\0" in piece):
            self.note("sentence around label")
        if re.search("[,、；;]", line.text):
            self.note("list separator")

    def answer(self) -> Answer:
        return [{"entity": term, "type": self.format.type} for term in sorted(self.terms)]

    def stops_short(self, lines: Sequence[Line]) -> bool:
        last = re.split("[，,、；;]", lines[-1].text)[-1]
        partial = self.offered.begins_with(bare(last)) and self.offered.exact(last) is None
        return partial or lines[-1].text.endswith(("，", "、", "（", "("))


def _in_word(character: str) -> bool:
    return character.isalnum() or character in "-+/·%"


class OneLabel(Reader[Label]):
    """A label, alone, in a sentence, or by its place among the choices."""

    nothing: ClassVar[type[Answer]] = str
    bulleted = False
    _option = re.compile(
        r"(?:[\u4e00-\u9fff]{0,8}(?:选项|选择|选|答案|答)[是为]?|option|answer|the answer is)?[\s:\"'(\[]{0,4}"
        r"(?P<sign>[a-z]|\d{1,2}|[①-⑳])(?P<rest>[\s)\].,:\"'](?P<label>.*))?$",
        re.DOTALL,
    )
    _sentence = re.compile("[\n。！？!?；;]")
    _answer_keys = words({key: key for key in _ANSWER_KEYS})

    def __init__(self, answer_format: Label, choices: Sequence[str]) -> None:
        super().__init__(answer_format, choices)
        synonyms, none_of_these = answer_format.synonyms, answer_format.none_of_these
        known = [*choices, none_of_these] if none_of_these else list(choices)
        spellings = {label: synonyms.get(label, label) for label in known}
        if set(spellings.values()) & set(synonyms.values()):
            spellings |= {label: label for label in synonyms.values()} | dict(synonyms)
        spellings |= {name: label for name, label in PAPER_LABELS.items() if label in spellings.values()}
        self.labels = words(spellings)
        # A single character says too little within a sentence.
        self.contained = words({spelling: label for spelling, label in spellings.items() if len(spelling) > 1})
        self.label = ""

    def _accept(self, label: str, *repairs: Repair) -> None:
        self.label, self.understood = label, True
        for repair in repairs:
            self.note(repair)

    def lines(self, lines: Sequence[Line]) -> None:
        texts = [line.text if line.mark in _BULLETS else line.mark + line.text for line in lines]
        text = "\n".join(texts)
        marked = [found for place in range(len(texts)) if (found := self._marked(texts, place))]
        if marked:
            self._accept(marked[-1][0], "answer marker", marked[-1][1])
        elif whole := self._clause(text):
            self._accept(*whole)
        else:
            self._in_sentences(text)

    def _in_sentences(self, text: str) -> None:
        """Take the label that sentences of their own say, or else the only one that the text holds."""
        sentences = [sentence for sentence in self._sentence.split(text) if bare(sentence)]
        said = {found: place for place, sentence in enumerate(sentences) if (found := self._clause(sentence))}
        if len({label for label, _ in said}) == 1:
            (label, repair), place = next(iter(said.items()))
            self._accept(label, "preamble" if place else "closing remark")
            if repair == "option letter":
                self.note(repair)
        elif said:
            self.unread = "ambiguous label"
        elif found := self._contained(text):
            self._accept(*found)

    def _marked(self, texts: Sequence[str], place: int) -> tuple[str, Repair] | None:
        """The label after the last answer mark of a line, on that line or the next."""
        marks = list(_ANSWER_MARK.finditer(folded(texts[place])))
        if not marks:
            return None
        said = texts[place][marks[-1].end() :].strip() or (texts[place + 1] if place + 1 < len(texts) else "")
        return self._clause(said) or self._clause(self._sentence.split(said, maxsplit=1)[0]) or self._contained(said)

    def _clause(self, text: str) -> tuple[str, Repair] | None:
        """The label that ``text`` is, by name or by its place among the choices."""
        label = self.labels.exact(text)
        if label is not None:
            return label, "paper dialect" if bare(text) in PAPER_LABELS else "label case/quotes"
        match = self._option.match(folded(text.strip()))
        if match is None or any(denial in match.string[: match.start("sign")] for denial in ("不", "非", "排除")):
            return None
        if said := (match["label"] or "").strip(" .()[]\"'"):
            label = self.labels.exact(said) or self.labels.exact(match["label"])
        else:
            sign = match["sign"]
            place = int(sign) - 1 if sign.isdecimal() else ord(sign) - ord("a" if sign.isascii() else "①")
            label = self.labels.exact(self.choices[place]) if 0 <= place < len(self.choices) else None
        return (label, "option letter") if label is not None else None

    def _contained(self, text: str) -> tuple[str, Repair] | None:
        """The only label that ``text`` holds and does not deny; a short one must stand apart in a sentence."""
        whole = bare(text)
        hits = [hit for hit in self.contained.hits(text) if not hit.denied]
        labels = {hit.label for hit in hits}
        if len(labels) > 1:
            self.unread = "ambiguous label"
        if len(labels) != 1 or self.labels.begins_with(whole):
            return None
        near = len(whole) <= hits[0].end - hits[0].start + 4 and not self._sentence.search(whole)
        for hit in hits:
            after = text[hit.end : hit.end + 1]
            apart = hit.end - hit.start >= 4 or not after.isalnum() or after in "的类这"
            if after not in ("性", "度") and (near or apart):
                return hit.label, "near-miss label" if near else "sentence around label"
        return None

    def structure(self, value: Any) -> bool:
        said: dict[bool, dict[str, Repair]] = {True: {}, False: {}}
        stack: list[tuple[bool, Any]] = [(False, value)]
        while stack:
            named, node = stack.pop()
            if isinstance(node, dict):
                stack += [(self._answer_keys.exact(key) is not None, inner) for key, inner in node.items()]
            elif isinstance(node, list):
                stack += [(named, inner) for inner in node]
            elif isinstance(node, str) and (found := self._clause(node) or (self._contained(node) if named else None)):
                said[named][found[0]] = found[1]
        labels = said[True] or said[False]
        if len(labels) == 1:
            self._accept(*labels.popitem())
        return self.understood

    def answer(self) -> Answer:
        return self.label

    def stops_short(self, lines: Sequence[Line]) -> bool:
        text = lines[0].text
        alone = len(lines) == 1 and not self.understood and not text.endswith(SENTENCE_END)
        return alone and self.labels.begins_with(bare(text))


class Reply(Reader[FreeText]):
    """The doctor's words, without what announces them or goes on after them."""

    nothing: ClassVar[type[Answer]] = str
    longest = sys.maxsize
    _introduction = re.compile(r"[^\n]{0,30}(?:回复|回答|答复|如下)[^\n]{0,10}[：:]\s{0,5}\n")
    _same_speaker = re.compile(r"\n(?:医生|医生回复)\s{0,3}[：:]\s{0,5}")
    _other_speaker = re.compile(r"\n\s{0,5}(?:患者|病人|用户)\s{0,3}[：:]")
    _keys = words({key: key for key in _REPLY_KEYS})

    def __init__(self, answer_format: FreeText, choices: Sequence[str]) -> None:
        super().__init__(answer_format, choices)
        self.text = ""
        names = "|".join(sorted(map(re.escape, answer_format.captions), key=len, reverse=True))
        self.caption = re.compile(rf"(?:{names})\s{{0,3}}[：:]\s{{0,5}}")

    @staticmethod
    def tidy(text: str) -> str:
        return text.strip()

    def _read_text(self, text: str) -> bool:
        self.text, self.understood = text.strip(), True
        starts: tuple[tuple[Repair, re.Pattern[str]], ...] = (
            ("preamble", self._introduction),
            ("answer marker", self.caption),
        )
        for kind, pattern in starts:
            if match := pattern.match(self.text):
                self.note(kind)
                self.text = self.text[match.end() :].strip()
        if match := self._other_speaker.search(self.text):
            self.note("closing remark")
            self.text = self.text[: match.start()].strip()
        self.text = unquoted(self._same_speaker.sub("\n", self.text))
        if not self.repairs:
            self.problem("wrapping", 1)
        return False

    def structure(self, value: Any) -> bool:
        said = [
            inner
            for node in listed(value)
            if isinstance(node, dict)
            for key, inner in node.items()
            if isinstance(inner, str) and self._keys.exact(key)
        ]
        texts = said or leaves(value)
        if len(texts) == 1:
            self.text, self.understood = texts[0].strip(), True
        return self.understood

    def answer(self) -> Answer:
        return self.text
