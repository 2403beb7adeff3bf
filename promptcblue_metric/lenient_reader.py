"""What the lenient readers of every answer format share.

A reader gathers what one output says, from JSON, from a table or line by line, and makes an answer of it. Names are
looked up without regard to width, case and quotes; whatever is mended is named, and so is whatever is left unread.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from .answers import EMPTY_MARKERS, Answer, AnswerFormat, Parsed, Problem, ProblemKind
from .unwrap import (
    NORMALISERS,
    Line,
    Repair,
    bare,
    clean,
    content_lines,
    folded,
    json_values,
    leaves,
    stops_inside,
    table_rows,
    words,
)

#: Names of the fields of a structured answer, in JSON, in a table's head or in a line.
ROLES = words(
    {
        name: role
        for role, names in {
            "entity": "entity 实体 实体名称 名称 mention name text 症状 临床发现 临床发现实体",
            "type": "type 类型 实体类型 类别 实体类别 entity_type label",
            "attr": "attr status 状态 阴阳性 判断 阴阳性判断 阴阳性判别 判别",
            "predicate": "predicate relation 关系 关系类型",
            "subject": "subject head 头实体 主语 主体",
            "object": "object tail 尾实体 宾语 客体",
        }.items()
        for name in names.split()
    }
)
_ROLE_HEAD = re.compile(rf"(?:^|(?<=[\s,(|\[]))[\"']?({ROLES.pattern})[\"']?\s{{0,3}}:")
#: Words for none, the sentences that say it, those that only refuse to look, and talk about an answer.
_NONE = EMPTY_MARKERS | {"-", "--", "—", "——", "/", "none", "null", "n/a", "空", "未见", "未发现"}
_SAYS_NOTHING = re.compile(
    r"(?:没有|不包含|不含|不存在|未提及|未提到|未发现|未涉及|未找到|未出现|无(?!法))[^,.:\n]{0,14}"
    r"(?:实体|关系|三元组|事件|症状|临床发现|标准词|标准化|术语|匹配|对应|符合|合适)"
    r"|(?:均|都)(?:不|未|无法)[^,.:\n]{0,6}(?:匹配|对应|符合|合适)"
)
_REFUSAL = re.compile("抱歉|对不起|无法|不能")
REMARK = re.compile(r"[(（【*]?(?:注|说明|备注|提示|温馨提示|解释|解析|分析|理由|依据|以上|希望|总之|综上|如需|如果您)")
SENTENCE_END = ("。", "！", "？", "!", "?", "；", ";", ".", "…", "”", "）")

F = TypeVar("F", bound=AnswerFormat)


def roles_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record by role, whatever its fields are called."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if role := ROLES.exact(key):
            found.setdefault(role, value)
    return found


def listed(value: Any) -> list[Any]:
    """``value`` if it is a list, else a list of it alone."""
    return value if isinstance(value, list) else [value]


def is_none(text: str) -> bool:
    """Whether ``text`` is a word for none, with or without the reason in parentheses."""
    word = re.split("[(（]", text, maxsplit=1)[0].strip()
    return word in _NONE or bare(word).lower() in _NONE or (text.endswith("实体") and bool(_SAYS_NOTHING.match(text)))


def says_nothing(text: str) -> bool:
    """Whether ``text`` says that there is nothing to list, and does not refuse to look."""
    flat = folded(text)
    return is_none(text) or (bool(_SAYS_NOTHING.search(flat)) and not _REFUSAL.search(flat))


def unparenthesised(text: str) -> str:
    """``text`` without a pair of parentheses around it, or one at an end that lost its other half."""
    opens, closes = text.startswith(("(", "（")), text.endswith((")", "）"))
    inner = sum(text.count(sign) for sign in "(（") - sum(text.count(sign) for sign in ")）")
    if opens and closes:
        return text[1:-1].strip()
    return text[:-1].strip() if closes and inner < 0 else text[1:].strip() if opens and inner > 0 else text


class Reader(ABC, Generic[F]):
    """Reads one output. `structure` and `line` gather what is said, and `answer` makes the answer of it."""

    #: What makes the answer that says nothing, and what is wrong with an output in which nothing can be read.
    nothing: ClassVar[type[Answer]] = list
    unread: ProblemKind = "nothing readable"
    #: The roles that make a record of this format.
    record_roles: ClassVar[tuple[str, ...]] = ()
    #: The paper's lead line where it differs from the released one.
    paper_lead: str = ""
    #: No answer has a tenth as many characters; what an output holds beyond these is not read.
    longest: ClassVar[int] = 50_000
    #: Whether a number before a line is its place in a list, and no answer.
    bulleted: ClassVar[bool] = True

    def __init__(self, answer_format: F, choices: Sequence[str]) -> None:
        self.format = answer_format
        self.choices = choices
        self.repairs: list[Repair] = []
        self.problems: list[Problem] = []
        self.understood = False
        self.tabular = False
        self.fields: dict[str, str] = {}
        leads = (getattr(answer_format, "lead", ""), self.paper_lead)
        self.leads = words({bare(lead): lead for lead in leads if lead})
        self.lead_seen = False

    def read(self, text: str) -> Parsed:
        """Read ``text``, in which the strict parser finds problems."""
        cut = stops_inside(text)
        for kind, normalise in NORMALISERS:
            before, text = text, normalise(text)
            if text != before:
                self.repairs.append(kind)
        if not text.strip():
            self.problem("truncated" if cut else "empty output", 1)
            return self._parsed(self.nothing())
        if len(text) > self.longest:
            text = text[: self.longest]
            self.problem("unreadable line", text.count("\n") + 1)
        tidy = self.tidy(text)
        unwrapped = self.format.parse(tidy, self.choices)
        if unwrapped.well_formed:
            # What was around the answer is all that was wrong.
            if tidy != text:
                self.note("white space")
            if cut:
                self.problem("truncated", text.count("\n") + 1)
            return self._parsed(unwrapped.answer)
        values, cut_json = json_values(text)
        if values and self.structure(values):
            self.repairs.append("json")
        else:
            cut |= self._read_text(text)
        if not self.understood:
            self.problem(self.unread, 1)
        answer = self.answer() if self.understood else self.nothing()
        if cut or cut_json:
            self.problem("truncated", text.count("\n") + 1)
        return self._parsed(answer)

    @staticmethod
    def tidy(text: str) -> str:
        """``text`` without the white space that says nothing: around lines, and blank lines."""
        return "\n".join(within for line in text.split("\n") if (within := line.strip()))

    def _parsed(self, answer: Answer) -> Parsed:
        repairs = self.repairs if self.repairs or self.problems else ["layout"]
        return Parsed(answer, tuple(self.problems), tuple(repairs))

    def _read_text(self, text: str) -> bool:
        """Read ``text`` as a table or line by line; whether it breaks off."""
        lines = content_lines(text)
        if text != self.tidy(text):
            self.note("white space")
        rows = table_rows(lines)
        if rows and self._read_table([cells for _, cells in rows]):
            return len(rows[-1][1]) < len(rows[0][1])
        if rows:
            # Without a head that is understood, each row speaks for itself.
            head = {rows[0][0]} if len(rows) > 1 and not rows[1][1] else set()
            alone = {line for line, cells in rows if self.row(cells) or (len(cells) == 2 and self.pair(*cells))}
            lines = [line for line in lines if line.number not in head | alone]
            self.note("table")
        if self.bulleted and any(line.mark for line in lines):
            self.note("bullets")
        lines = [line for line in lines if line.text or not self.bulleted]
        self.lines(lines)
        return bool(lines) and self.stops_short(lines)

    def _read_table(self, rows: Sequence[Sequence[str]]) -> bool:
        head, *body = rows
        if not body or body[0]:
            return False
        self.tabular = True
        understood = self.structure([dict(zip(head, cells, strict=False)) for cells in body[1:]])
        if understood:
            self.note("table")
        return understood

    def note(self, kind: Repair) -> None:
        """Name a repair, once for each output."""
        if kind not in self.repairs:
            self.repairs.append(kind)

    def problem(self, kind: ProblemKind, line: int) -> None:
        """Count a problem."""
        self.problems.append(Problem(kind, line))

    def structure(self, value: Any) -> bool:
        """Read a JSON value or the rows of a table; whether anything in it was understood."""
        stack = [value]
        while stack:
            node = stack.pop()
            if isinstance(node, dict) and not self.record(node):
                unnamed = [inner for key, inner in node.items() if not self.pair(key, inner)]
                stack += reversed(unnamed)
            elif isinstance(node, list) and not self.row(node):
                stack += reversed(node)
            elif isinstance(node, str):
                self.leaf(node)
        if not self.understood and self.nothing is list and all(map(is_none, leaves(value))):
            self.understood = True
        return self.understood

    def record(self, record: Mapping[str, Any]) -> bool:
        """Read an object with named fields; whether it is one of this format."""
        return False

    def pair(self, key: str, value: Any) -> bool:
        """Read a name and what stands under it; whether it is a name of this format."""
        return False

    def row(self, parts: list[Any]) -> bool:
        """Read a list without names; whether it is one of this format."""
        return False

    def leaf(self, text: str) -> None:
        """Read a string that stands under no known name."""

    def lines(self, lines: Sequence[Line]) -> None:
        """Read an output line by line, and set aside what is said before and after the answer."""
        unread: list[Line] = []
        read: list[int] = []
        for line in lines:
            if self._is_lead(line.text) or self._record_in(line.text) or self.line(line):
                read.append(line.number)
            else:
                unread.append(line)
        if not self.understood and any(says_nothing(line.text) for line in lines):
            self.understood = True
            self.note("empty marker")
        elif self.understood:
            if self.leads.labels and not self.lead_seen:
                self.note("missing lead line")
            for line in unread:
                within = bool(read) and read[0] < line.number < read[-1]
                if within or not self._is_remark(line.text):
                    self.problem("unreadable line", line.number)
                else:
                    self.note("closing remark" if read and line.number > read[-1] else "preamble")

    def line(self, line: Line) -> bool:
        """Read a line; whether it belongs to the answer."""
        return False

    def stops_short(self, lines: Sequence[Line]) -> bool:
        """Whether the last of ``lines`` is an unfinished piece of the format."""
        return self.leads.begins_with(lines[-1].text)

    def _is_lead(self, text: str) -> bool:
        lead = self.leads.exact(text)
        if lead is None:
            return False
        self.lead_seen = True
        if lead == self.paper_lead:
            self.note("paper dialect")
        elif ":" in text:
            self.note("half-width punctuation")
        return True

    def _is_remark(self, text: str) -> bool:
        """Whether a line that was not read is talk, rather than a piece of an answer."""
        name, colon, value = folded(text).partition(":")
        return not (colon and value.strip()) or bool(REMARK.match(text)) or len(name) > 12 or "," in name

    def _record_in(self, text: str) -> bool:
        """Read a line that names the fields of a record itself."""
        if not self.record_roles or not (":" in text or "：" in text):
            return False
        heads = list(_ROLE_HEAD.finditer(folded(text)))
        if len(heads) == 1 and not heads[0].start():
            return self._field(heads[0].group(1), clean(text[heads[0].end() :]))
        ends = [head.start() for head in heads[1:]] + [len(text)]
        record = {
            head.group(1): unparenthesised(clean(text[head.end() : end].rstrip(" |(（[")))
            for head, end in zip(heads, ends, strict=False)
        }
        whole = len(record) == len(heads) and set(self.record_roles) <= roles_of(record).keys()
        return bool(record) and whole and self.record(record)

    def _field(self, name: str, value: str) -> bool:
        """Read one field of a record that has a line for each; whether it is one of this format's."""
        role = ROLES.spelt(name)
        if role not in self.record_roles or self.is_own(name, value):
            return False
        self.fields = {role: value} if role in self.fields else {**self.fields, role: value}
        if self.is_whole(self.fields):
            self.note("layout")
            self.record(self.fields)
            self.fields = {}
        return True

    def is_own(self, name: str, value: str) -> bool:
        """Whether a line that could be a field of a record says something else in this format."""
        return False

    def is_whole(self, roles: Mapping[str, Any]) -> bool:
        """Whether these roles make a record."""
        return set(self.record_roles) <= roles.keys()

    @abstractmethod
    def answer(self) -> Answer:
        """The answer, when something was understood."""


class HeadedReader(Reader[F]):
    """Reads lines in which names head what is said under them; a head can stand anywhere in a line, or alone."""

    def __init__(self, answer_format: F, choices: Sequence[str], names: Mapping[str, str]) -> None:
        super().__init__(answer_format, choices)
        self.names = words(names)
        self.heads = self.head_pattern(self.names.pattern)

    @staticmethod
    def head_pattern(names: str) -> re.Pattern[str]:
        """What finds a head in a folded line: a name, as group ``name``, up to its colon."""
        return re.compile(
            rf"(?:^|(?<=[\s,.:;(\[\"'|中的]))(?P<name>{names})[\]\"'）)]{{0,2}}\s{{0,3}}(?:包括|包含|有|为|是|如下)?\s{{0,3}}:"
        )

    def line(self, line: Line) -> bool:
        heads = list(self.heads.finditer(folded(line.text)))
        if not heads:
            name = self.names.exact(line.text)
            if name is None:
                return self.item(line)
            self.note("layout")
            self.head(name, "", line)
            return True
        self._is_lead(line.text[: heads[0].start()])
        ends = [head.start() for head in heads[1:]] + [len(line.text)]
        for head, end in zip(heads, ends, strict=True):
            if line.text[head.end() - 1] == ":":
                self.note("half-width punctuation")
            self.head(self.names.spelt(head["name"]), line.text[head.end() : end].strip(), line)
        return True

    def is_own(self, name: str, value: str) -> bool:
        return self.names.exact(name) is not None

    @abstractmethod
    def head(self, name: str, value: str, line: Line) -> None:
        """Read a head and what follows it on its line."""

    def item(self, line: Line) -> bool:
        """Read a line without a head; whether it belongs to the answer."""
        return False

    def pair(self, key: str, value: Any) -> bool:
        name = self.names.exact(key)
        if name is None:
            return False
        self.member(name, value)
        return True

    @abstractmethod
    def member(self, name: str, value: Any) -> None:
        """Read what a JSON object holds under a name of this format."""
