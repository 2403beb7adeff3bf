"""Reads what a modern chat model writes, where the official parser wants its own dialect to the letter.

An output is unwrapped (`unwrap`) and then read by the reader of its format, line by line, in either dialect: the
released one or that of the paper's Appendix A.1. JSON and tables are read as the lines that would say the same.

Two principles decide what is read. A part of an answer is a span of the text that it was taken from, so of two readings
the one is taken whose parts stand in the prompt (`Source`). And what was offered is judged by what is said of it, near
or far (`Choosing`): a word that is denied, asked, weighed or quoted is no answer. Nothing is invented, but a label can
be given by its place or by another name.

What was mended is named in `Parsed.repairs`, and what could not be read in `Parsed.problems`. No string makes a reader
raise, and time is linear in the text.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar
from unicodedata import normalize

from . import answers
from .answers import EMPTY_MARKERS, Answer, AnswerFormat, Parsed, Problem, ProblemKind
from .unwrap import LINE, Json, Line, Words, bare, clean, folded, json_values, leaves, unquoted, unwrapped

#: What became of an output.
WellFormedness: TypeAlias = Literal["well-formed", "repaired", "unreadable", "empty", "truncated"]
_STATES: Mapping[WellFormedness, set[str]] = {
    "empty": {"empty output"},
    "truncated": {"truncated"},
    "unreadable": {"nothing readable", "unknown label", "ambiguous label"},
}


def _names(table: str) -> list[tuple[str, str]]:
    """Names and what they stand for, from ``MEANING: NAME NAME; …``; a low line in a name is a space as well."""
    cut = (entry.split(": ") for entry in re.split("; |\n", table.strip()))
    found = [(name, meaning) for meaning, names in cut for name in names.split()]
    return found + [(name.replace("_", " "), meaning) for name, meaning in found if "_" in name]


def _words(table: str) -> Words:
    return Words(dict(_names(table)))


#: Names of the fields of a structured answer, in JSON, in a table's head or in a line.
ROLES = _words("""
entity: entity entities 实体 实体名称 名称 mention mentions name text 症状 symptom 临床发现 临床发现实体
type: type 类型 实体类型 类别 实体类别 entity_type category label; predicate: predicate relation 关系 关系类型
attr: attr status 状态 阴阳性 判断 阴阳性判断 阴阳性判别 判别 判断结果 是否患有 是否存在 结果 结论 情况
subject: subject head 头实体 主语 主体 cause 条件 上位词; object: object tail 尾实体 宾语 客体 尾三元组 effect 下位词
""")
_ROLE_HEAD = re.compile(rf"(?:^|(?<=[\s,(|\[]))[\"']?({ROLES.pattern})[\d\"'\s]{{0,4}}(?::|(?<=[状性])[为是])")
#: Other names of types, fields and sections, English ones above all, where more than one task may use a name.
_OTHER_HEADS = _names("""
疾病: disease diseases; 疾病和诊断: disease diagnosis; 临床表现: symptom symptoms manifestation
症状: symptom symptoms; 药物: drug drugs medication medicine; 具体的药物名称: drug; 身体部位: body body_part anatomy
解剖部位: anatomy anatomy_list body_part location 部位; 医学检验项目: test lab_test; 医学检查检验: test examination
主体词: core_name subject core finding 主体; 发生状态: tendency status state 状态
描述词: character description descriptor descriptors 描述; 主诉: chief_complaint
现病史: present_illness history_of_present_illness; 辅助检查: auxiliary_exam auxiliary_examination
既往史: past_history past_medical_history 既往病史; 诊断: diagnosis 初步诊断 诊断结果 诊断意见
建议: advice suggestion suggestions recommendation 治疗建议 处理建议 诊疗建议 医生建议
""")
#: Other names of labels and statuses: the paper's spellings, those of the corpora, and what models write for them. The
#: names after the stroke say so only where nothing else is said.
_OTHER_LABELS = """
语义无直接关联: 没有直接语义关联 毫无关联 无关联 没有关联 无直接关联 没有直接关联 没有直接的语义关联 语义无关 | 无关
后者是前者的语义子集: 前者是后者的语义父集 后者是前者的子集 | 语义子集 子集
后者是前者的语义父集: 前者是后者的语义子集 后者是前者的父集 | 语义父集 父集
完全不匹配或者没有参考价值: 完全不匹配 不匹配 没有参考价值 无参考价值; 很少匹配有一些参考价值: 很少匹配 有一些参考价值
完全一致: | 一致 相同; 完全不匹配: 不匹配; 没有医疗意图: 无医疗意图; 医疗意图较弱: 意图较弱 | 较弱
是的: 相同 一样 一致 等价 同义 同样的意思 一个意思 一回事 同一件事 同一个问题 替换 互换 没有区别
是的: | 是 对 对的 yes true 正确 能 可以
不是: 不同 不一样 不一致 有区别 有差别 差异 | 否 no false 不对 不能 不可以 不是的
相关: 有关 有关联 | 是 是的 能 可以 yes true; 非上述类型: | 以上都不是 都不是 以上均不是 其他
不相关: 无关 没有关联 无关联 毫无关联 没有关系 毫不相干 | 不是 否 不能 没有 no false
患有该症状: 阳性 有该症状 | 有 是 存在 患有 yes true positive
没有患有该症状: 阴性 未患有该症状 没有该症状 无该症状 不患有该症状 | 无 没有 否 不存在 未患有 no false negative
无法根据上下文确定病人是否患有该症状: 无法确定 不确定 无法判断 不明确
已有症状疾病或者假设未来可能发生的疾病等: 阳性 已有症状疾病 已有症状疾病或者假设未来可能发生的疾病 | 有 是 存在 yes true
未患有症状疾病: 阴性 未患有的症状疾病 未患有 | 无 没有 否 不存在 no false
没有回答、不知道、回答不明确或者模棱两可不好推断: 没有回答 不知道 回答不明确 模棱两可 无法确定 不确定 | 不明确 其他
无实际意义的不标注或者和病人当前的状态独立不标注: 不标注 无实际意义的不标注 无实际意义
否定: 阴性 否认 未发生 没有发生 不存在 未出现 | 否 no false; : 肯定 确定 发生 存在 阳性 | 有 是
不确定: 疑似 可疑 可能 无法确定 不能确定 不肯定 待定 待查 不明确
"""
_VERDICTS = _words("""
yes: 是 对 正确 匹配 符合 相符 一致 选 有 yes true 高 是的 1 1.0 0.5 0.6 0.7 0.8 0.9 ✓ ✔ √ ✅ ☑ [x] [√]
no: 否 不是 不 不匹配 不符合 不符 不一致 不选 无 没有 no false 低 无关 不相关 错误 0 0.0 0.1 0.2 0.3 0.4 ✗ ✘ × ❌ [_]
""")
_NONE = _words(f"none: {' '.join(EMPTY_MARKERS)} none null n/a nil 空 未见 未发现 str string 不详 未涉及 未出现")
_REASON = _words("yes: 解释 理由 说明 原因 依据 分析 备注 reason explanation note evidence analysis 置信度 confidence")
#: What a part says that is no part: that there is none, or where one would stand.
_NO_PART = re.compile(
    r"(?:文中|原文|句中)?[暂均并都]?(?:无|没有|未|不)(?:提[及到]|涉及|发现|出现|见|包?含|存在|相关|明确|任何|指定|对应)[^,.]{0,10}$"
    r"|(?:实体|头实体|尾实体|mention|entity)\s?\d{0,2}$|\.{2,}$|x{2,}$|(?:什么|哪[些个种])?\W*$"
)
_SAYS_NOTHING = re.compile(
    r"(?s)(?!.*(?:抱歉|对不起|无法|不能)).*?"
    r"(?:没有|不包?含|不存在|未(?:提[及到]|发现|涉及|找到|出现)|无|[均都][不未])[^,.:\n]{0,14}"
    r"(?:实体|关系|三元组|事件|症状|临床发现|标准|术语|匹配|对应|符合|合适)"
)
_REMARK = re.compile(r"[(（【*]{,2}(?:[备请]?注|说明|解释|[解分]析|[理原][由因]|依据|以上|希望|祝|温馨|综上|如需|本报)")
#: What stands before an answer that comes after something else, as 其他意图: does not.
_MARK = re.compile(
    r"(?<!次要|其他|备选|第二)(?:答案?|结论|结果|意图|类[型别]|标签|判断|关系|程度|标准词|选择|输出|终判|answer|intent)[是应为]{0,2}\s{0,3}[:\]]"
)
_CORRECTS = re.compile(r"(?m)(?:^[^：:\n]{0,40}?)?(?:[更修纠改订訂][正订]|勘误|重新核对|correction)[^：:\n]{0,6}[：:]")
#: What separates parts: the dialect's comma; marks that do in other styles; and what only may.
_COMMA = re.compile(r"，|\n|,(?=\s)|(?<![0-9A-Za-z]),|,(?![0-9A-Za-z])")
_MARKS = re.compile(r"[、；;|]|\s(?:\+|以及|[和与及])\s|##|(?<=[”」』])(?=[“「『])")
_LISTED = re.compile(f"{_COMMA.pattern}|{_MARKS.pattern}")
_AND = re.compile("以及|[和与及]")
_MAYBE = re.compile(_AND.pattern + r"|/|等[^，,、；;]{0,8}$|\s{1,9}(?:\d{1,2}[.、)）]\s{0,3})?")
_LIST_END = " \t　。；;，,、|"
_PARENTHESES = re.compile(r"\s{0,3}[(（][^()（）]{1,200}[)）]\s{0,3}$")

F = TypeVar("F", bound=AnswerFormat)
_folded_prompt = lru_cache(maxsize=1)(folded)  # it is looked through for part after part


def _roles_of(record: Mapping[str, Json]) -> dict[str, Json]:
    """The values of a record by role, whatever its fields are called."""
    return {role: value for name, value in record.items() if (role := ROLES.exact(name))}


def _is_none(text: str) -> bool:
    """Whether ``text`` is a word for none, with or without the reason in parentheses."""
    return any(map(_NONE.exact, (text, re.split("[(（]", text)[0]))) or bool(_NO_PART.match(folded(text.strip())))


def _says_nothing(text: str) -> bool:
    """Whether ``text`` says that there is nothing to list, and does not refuse to look."""
    return _is_none(text) or bool(_SAYS_NOTHING.match(folded(text)))


def _headed(text: str, heads: Sequence[re.Match[str]]) -> Iterator[tuple[re.Match[str], str]]:
    """Each head in ``text``, and what stands between it and the next one."""
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return ((head, text[head.end() : end]) for head, end in zip(heads, ends, strict=False))


def _cut(text: str, separator: re.Pattern[str]) -> list[str]:
    """``text`` cut at a separator wherever it stands outside parentheses."""
    without = re.sub(r"(?<=[(（])[^()（）]+(?=[)）])", lambda match: "_" * len(match.group()), text)
    cuts = list(separator.finditer(without))
    return [text[: cuts[0].start()] if cuts else text, *(piece for _, piece in _headed(text, cuts))]


class Source(str):
    """The text that an answer's parts are spans of; one that is not known, "", holds everything."""

    def span(self, part: str) -> str | None:
        """``part`` as the text writes it, or None where it does not stand there."""
        if not self or part in self:
            return part
        # Width, case and script may differ, but not the kind of punctuation, which separates parts.
        at = -1 if re.search("[，,、；;]", part) else _folded_prompt(self).find(folded(part))
        return self[at : at + len(part)] if at >= 0 else None

    def option(self, sign: str, choices: Sequence[str]) -> str | None:
        """The choice that a letter or number stands for: a number only where the prompt numbers its choices."""
        if sign.isascii() and sign.isalpha():
            return dict(zip("abcdefghijklmnopqrstuvwxyz", choices, strict=False)).get(sign.lower())
        # Here ③ is 3.
        prompt, number = normalize("NFKC", self), normalize("NFKC", sign)
        marks = rf"(?<!\d){number}[\s.、)\]:]{{0,3}}"
        found = [choice for choice in choices if re.search(marks + re.escape(normalize("NFKC", choice)), prompt)]
        return found[0] if len(found) == 1 else None


class Reader(ABC, Generic[F]):
    """Reads one output: `member`, `record` and `free` gather what is said, and `answer` makes the answer of it."""

    #: The roles that make a record of this format.
    roles: ClassVar[frozenset[str]] = frozenset()
    #: What can stand between a name and what is said under it.
    joint = r"包?[括含有为是如]?下?\s{,3}[:=]|(?<=\])|->|[→\t|]|(?<=\s)[-–](?=\s)|(?<=实体)(?:有\d个,)?包?[是为有括含]"
    #: No answer has a tenth as many characters; what an output holds beyond these is not read.
    longest: ClassVar[int] = 50_000
    #: Whether parts are spans of the prompt's text, and not put together from its words.
    spans: ClassVar[bool] = True
    #: What stands between the pieces of the format.
    between: str = "[\n；;]"

    def __init__(self, answer_format: F, choices: Sequence[str], source: Source) -> None:
        self.format, self.choices, self.source = answer_format, choices, source
        #: The answer that says nothing.
        self.nothing = type(answer_format.parse("").answer)()
        self.repairs, self.problems = list[str](), list[Problem]()
        #: What is wrong with an output in which nothing can be read.
        self.unread: ProblemKind = "nothing readable"
        self.fields: dict[str, Json] = {}
        #: The name that the lines to come stand under.
        self.understood, self.open, self.last = False, "", ""
        #: What the next piece could begin with.
        self.coming: list[Words] = []
        self.name({})
        self.set_up()

    def set_up(self) -> None:
        """Set what is known of the format, and nothing said yet."""

    def name(self, names: Mapping[str, str]) -> None:
        """Set the names that head what is said under them."""
        self.names = Words({**names, **{name: one for name, one in _OTHER_HEADS if one in names.values()}})
        self.coming.append(self.names)
        self.heads = re.compile(
            rf"(?:^|(?<=[\s,.:;(\[\"'|中的]))(?P<name>{self.names.pattern})"
            rf"[\]\"'）)]{{0,2}}\s{{0,3}}(?:\([^()\n]{{1,30}}\))?\s{{0,3}}(?:{self.joint})"
        )

    def read(self, text: str) -> Parsed:
        """Read ``text`` as its writer meant it."""
        strict = self.format.parse(text, self.choices)
        cut, (inner, kinds, broken) = False, unwrapped(text)
        # No strict parser minds thoughts and the tokens of a chat.
        if not strict.well_formed or {"thinking removed", "chat tokens"}.intersection(kinds):
            text, self.repairs, cut = inner[: self.longest], kinds, broken or len(inner) > self.longest
            if not text.strip():
                return Parsed(self.nothing, (Problem("truncated" if cut else "empty output", 1),), tuple(kinds))
            strict = self.format.parse(text, self.choices)
        if strict.well_formed:
            # What was around the answer is all that was wrong.
            answer = self.polished(strict.answer)
        else:
            answer = self.nothing
            for number, piece in enumerate(_CORRECTS.split(text, 3)):
                if number:
                    self.set_up()
                cut |= self._understand(piece)
                answer = self._corrected(answer) if self.understood else answer
            self.problems += [Problem(self.unread, 1)] * (not self.understood and not answer)
        mended = not strict.well_formed or answer != strict.answer
        self.note("layout", mended and not (self.repairs or self.problems or cut))
        self.problems += [Problem("truncated", text.count("\n") + 1)] * cut
        return Parsed(answer, tuple(self.problems), tuple(self.repairs))

    def _corrected(self, draft: Answer) -> Answer:
        """What was read last, and what a draft before it says of others; of events, one said again means all anew."""
        later = self.answer()
        if not isinstance(later, list):
            return {**draft, **later} if isinstance(later, dict) else later
        heard = {name for name, _ in getattr(self, "found", ())}.union(*map(leaves, later))
        again = any(item in later and "主体词" in item for item in draft)
        names = ("type", "entity", "predicate", "主体词", "role")
        return [item for item in draft if not (again or heard.intersection(map(item.get, names)))] + later

    def polished(self, answer: Answer) -> Answer:
        """A well-formed answer as a careful person reads it."""
        return answer

    def note(self, kind: str, when: bool = True) -> None:
        """Name a repair, once for each output."""
        if when and kind not in self.repairs:
            self.repairs.append(kind)

    def _understand(self, text: str) -> bool:
        """Read ``text`` as JSON, as a table or line by line; whether it breaks off."""
        values, cut = json_values(text)
        if any(values) and self.structure(values):
            self.note("json")
            return cut
        # A last piece that begins a word which can come there and does not end it is cut off, as is a status to come.
        last = re.split(rf"{self.between}(?:\s{{0,9}}(?:\d{{1,2}}[.、]|[-*•])\s{{0,3}})?", text)[-1]
        begun = any(known.begun(last) for known in self.coming) or (not last and text.endswith(("：", ":")))
        kept = (text.removesuffix(last) if begun else text).rstrip()
        lines = [Line(number, mark, said) for number, (mark, said) in enumerate(LINE.findall(kept), 1)]
        rows = [line.cells for line in lines if line.cells]
        self.note("table" if rows else "bullets", any(line.mark or line.cells for line in lines))
        if len(rows) > 1 and not "".join(rows[1]).strip("-: "):
            head, _, *rows = rows
            if rows and self.structure([dict(zip(head, cells, strict=False)) for cells in rows]):
                return len(rows[-1]) < len(head)
        # Without a head that is understood, each row speaks for itself.
        for cells in rows:
            self._row(cells)
        lines = [line for line in lines if not line.cells]
        # What the prompt says too is an echo of it.
        own = [line for line in lines if len(line.text) < 8 or f"\n{line.text}\n" not in f"\n{self.source}"]
        self.open = self.last = ""
        self.lines(own or lines)
        return cut or begun

    def structure(self, value: Json) -> bool:
        """Read a JSON value or the rows of a table as the lines that would say the same; whether it was understood."""
        stack: list[tuple[str, Json]] = [("", value)]
        while stack:
            name, node = stack.pop()
            plain = isinstance(node, list) and all(isinstance(item, str) for item in node)
            head = f"{name}：" * bool(name)
            if not isinstance(node, (dict, list)) or (plain and name):
                self._read_line(Line(1, "-" * (not name), head + "，".join(leaves(node))))
                continue
            self._read_line(Line(1, "", head))
            if isinstance(node, dict):
                stack += reversed(node.items()) if not self.record(node, _roles_of(node)) else []
            elif not plain or not self._row(leaves(node)):
                stack += [("", item) for item in reversed(node)]
        self.understood |= self.nothing == [] and all(map(_is_none, leaves(value)))
        return self.understood

    def record(self, record: Mapping[str, Json], roles: Mapping[str, Json]) -> bool:
        """Read an object with named fields, some of them roles; whether it is one of this format."""
        return False

    def member(self, name: str, value: Json) -> None:
        """Read what stands under a name of this format."""

    def free(self, line: Line) -> bool:
        """Read a line that no name heads; whether it belongs to the answer."""
        return False

    def lines(self, lines: Sequence[Line]) -> None:
        """Read an output line by line, and set aside what is said before and after the answer."""
        for line in lines:
            if self._read_line(line):
                continue
            # What a short name heads could have been an answer.
            if re.match("[^:：]{1,12}[:：].", line.text) and not _REMARK.match(line.text):
                self.problems.append(Problem("unreadable line", line.number))
            else:
                self.note("closing remark" if self.understood else "preamble")
        if not self.understood and not self.problems and any(_says_nothing(line.text) for line in lines):
            self.understood = True
            self.note("empty marker")

    def _row(self, cells: Sequence[str]) -> bool:
        text = ("：" if len(cells) == 2 else " → ").join(cells)
        return len(cells) in (2, 3) and self._read_line(Line(1, "-", text))

    def _read_line(self, line: Line) -> bool:
        return self._fields_in(line.text) or self.line(line)

    def line(self, line: Line) -> bool:
        """Read a line; whether it belongs to the answer."""
        heads = list(self.heads.finditer(folded(line.text)))
        name = self.names.exact(re.sub(r"[(（]\d{1,3}.?[)）]$", "", line.text))
        if not heads and name is None:
            return self.free(line)
        said = [(self.names.found[head["name"]], value) for head, value in _headed(line.text, heads)]
        for found, value in said or [(str(name), "")]:
            self.open = "" if value.strip() else found
            self.member(found, value)
        return True

    def _fields_in(self, text: str) -> bool:
        """Read a line that names the fields of records itself, or one of them."""
        heads = [head for head in _ROLE_HEAD.finditer(folded(text)) if self.names.exact(head[1]) is None]
        said = {head[1]: clean(said.rstrip(" |(（[")) for head, said in _headed(text, heads)}
        roles = {role: value for role, value in _roles_of(said).items() if role in self.roles}
        if not roles or len(said) < len(heads) or heads[0].start():
            return False
        self.fields = roles if roles.keys() & self.fields.keys() else {**self.fields, **roles}
        return self.record(self.fields, self.fields) or len(heads) == 1

    def parts(self, value: Json, *, dialect: bool = False) -> list[str]:
        """The parts that a list names, as the prompt writes them; others are counted, and kept in the ``dialect``."""
        if not isinstance(value, str):
            known = (self.parts(text) if self.source else [self.part(text)] for text in leaves(value))
            return list(dict.fromkeys(part for parts in known for part in parts if part))
        text = unquoted(value.lstrip(" \t　|").rstrip(_LIST_END))
        # A part of a known text may end so.
        found, listed = list[str](), _cut(text if self.source else text.removesuffix("等"), _COMMA)
        for one in listed:
            # The dialect's own comma leaves the other marks to the parts.
            sure = dialect or len(listed) > 1 or not _MARKS.search(one)
            for piece in [one] if sure and self.part(one) is not None else self._marked(one):
                whole = self.part(piece)
                inner = [whole] if whole is not None else list(map(self.part, _cut(piece, _MAYBE)))
                if whole is None and not any(inner):
                    self.problems.append(Problem("not in the prompt", 1))
                    inner = [clean(piece)] * (dialect or not self.spans)
                found += filter(None, inner)
        return list(dict.fromkeys(found))

    def _marked(self, text: str) -> list[str]:
        """The pieces of a list with other marks than commas."""
        pieces = list[str]()
        for piece in map(str.strip, _cut(text, _MARKS)):
            joined, two = "、".join([*pieces[-1:], piece]), _AND.split(piece)
            if pieces and len(pieces[-1]) == 1 and len(piece) > 2 and self.source and self.source.span(joined):
                # An organ or a side shares what follows the next one: 头、颈部肿瘤.
                pieces[-1] = joined
            else:
                # What joins two parts within a list joins two of its own.
                pieces += two if self.source and all(map(self.part, two)) else [piece]
        return pieces

    def part(self, text: str) -> str | None:
        """What ``text`` names, or "" where it says that there is none, or None where it names nothing of the prompt."""
        word = clean(text)
        if not word or _is_none(word):
            self.note("empty marker", bool(word))
            return ""
        spans = map(self.source.span, (word, clean(_PARENTHESES.sub("", word)), bare(word)))
        denied = "" if re.match("无|未|没有", word) else None
        return next(filter(None, spans), denied) if self.source else word

    @abstractmethod
    def answer(self) -> Answer:
        """The answer, when something was understood."""


class Entities(Reader[answers.EntityLines]):
    """Mentions under their types, or followed by them."""

    roles = frozenset({"entity", "type"})

    def set_up(self) -> None:
        self.name({choice + end: choice for end in ("", "实体", "类", "类型") for choice in self.choices})
        #: Mentions, or lists of them not yet cut up, by type.
        self.found: list[tuple[str, Json]] = []
        self._typed = re.compile(
            r"(?:^|(?<=[\s,.:]))\s{0,3}(?P<open>\()?(?P<said>[^\n:]{1,300}?)\s{0,3}"
            r"(?:[:(→=/\t]|->|[-—]{1,2}|(?<![不非])(?:属于|[是为](?:一[种个])?)|(?(open),|(?!)))\s{0,3}"
            rf"(?:属于)?[\"']?(?P<name>{self.names.pattern})[\"']?\)?(?=[\s,.]|$)"
        )

    def polished(self, answer: Answer) -> Answer:
        self.found = [(item["type"], item["entity"]) for item in answer]
        return self.answer(dialect=True)

    def member(self, name: str, value: Json) -> None:
        self.found.append((name, value))
        self.understood = True

    def line(self, line: Line) -> bool:
        # A sentence behind others that denies something names nothing.
        line = line._replace(text=re.sub("(?<=。)[^。]*[没不](?:有|是|构成|属于|算)[^。]*", "，", line.text))
        # Mentions can be followed by their types, after a mark or in parentheses, one by one or together.
        typed = list(self._typed.finditer(folded(line.text)))
        listed = any(_LISTED.search(match["said"]) for match in typed)
        if self.heads.search(folded(line.text)) or not typed or (listed and not self.source):
            return super().line(line)
        for match in typed:
            self.member(self.names.found[match["name"]], line.text[slice(*match.span("said"))])
        return True

    def free(self, line: Line) -> bool:
        if not self.open or not (line.mark or not line.text.endswith("。")) or _REMARK.match(line.text):
            return False
        # An item can be a mention and a remark on it.
        item = re.split("[：:]|—|\\s-\\s", line.text, maxsplit=1)[0]
        remarked = self.source and line.mark and not self.source.span(line.text) and self.part(item)
        self.member(self.open, item if remarked else line.text)
        return True

    def record(self, record: Mapping[str, Json], roles: Mapping[str, Json]) -> bool:
        if self.roles <= roles.keys() and (kind := self.names.exact(str(roles["type"]))):
            self.member(kind, roles["entity"])
        return self.roles <= roles.keys()

    def answer(self, *, dialect: bool = False) -> Answer:
        said = [item for choice in self.choices for item in self.found if item[0] == choice]
        found = dict.fromkeys((kind, part) for kind, text in said for part in self.parts(text, dialect=dialect))
        kept = [(kind, one) for kind, one in found if dialect or self.names.exact(one) in (None, kind)]
        return [{"entity": one, "type": kind} for kind, one in kept]


class Triples(Reader[answers.TripleLines | answers.CausalLines]):
    """Entity pairs under their relations, and triples that name their own; under one, a triple's object is a pair."""

    roles = frozenset({"subject", "predicate", "object"})
    joint = ":"
    _endings = ("", "关系的头尾实体对如下", "关系的实体对如下", "三元组如下", "三元组", "关系如下", "关系")
    #: Heads of either dialect, whose relation may be one that was not asked for.
    _dialect = re.compile(r"(?:具有|句子中)(?P<relation>[^:\n]{1,40}?)关系的(?:头尾)?实体对如下:")
    _pair_end = re.compile(r"[。；\n]|;(?=\s|$)|(?<=[)）>])[\s,，、]{0,4}(?=[(（<])")
    _arrow = re.compile(r"[→|：,，;；\t=]|-{1,2}>|={1,2}>|—{1,2}>?| [-–] ")
    _edges = " \t　-–—→=>|()（）[]【】<>《》:：,，。；;"

    def set_up(self) -> None:
        self.nested = getattr(self.format, "nested", "")
        self.choices = [relation for _, relation in getattr(self.format, "openings", ())] or self.choices
        self.name({"".join(head): head[1] for head in itertools.product(("", "具有"), self.choices, self._endings)})
        #: Relation, head and tail, or relation, head, and the head and tail of the pair that is the object.
        self.triples: dict[tuple[str, ...], None] = {}
        self.relation = ""

    def polished(self, answer: Answer) -> Answer:
        if not isinstance(self.format, answers.TripleLines):
            return answer
        for item in answer:
            self._add(item["predicate"], item["subject"], item["object"], dialect=True)
        return self.answer()

    def free(self, line: Line) -> bool:
        if match := self._dialect.search(folded(line.text)):
            self.problems.append(Problem("unknown relation", line.number))
            self.member(match["relation"].strip(), line.text[match.end() :])
        return bool(match) or self._pairs(line.text)

    def _pairs(self, text: str) -> bool:
        """Read entity pairs of the current relation, or triples; whether there were any."""
        heads = list(re.finditer("头实体[为是:]?", folded(text)))
        if not self.relation or not heads:
            return sum(self._triple(item) for item in _cut(text, self._pair_end) if item.strip()) > 0
        outer: list[str] = []
        for _, said in _headed(text, heads):
            subject, both, tail = re.split("(尾实体|尾實體|$)[为為是:：]?", said, maxsplit=1)
            ends = [*outer, subject.partition("尾三元组")[0]]
            if both:
                self._add(self.relation, *ends, self._pair_end.split(tail, maxsplit=1)[0])
            outer = ends if not both and "尾三元组" in subject else []
        return True

    def _triple(self, text: str) -> bool:
        """Read a triple or pair in whatever order its parts stand."""
        hits = [] if _REMARK.match(text) or "之间" in text else list(self.names.hits(folded(text)))
        labels = [self.names.found[hit[0]] for hit in hits]
        between = [text[: hits[0].start()] if hits else text, *(said for _, said in _headed(text, hits))]
        first, *others = map(self._stripped, between)
        if len(hits) > 1 or (hits and first and others[0]):
            if labels[0] == self.nested:
                return self._add(self.nested, first, *others[:2])
            return sum(self._add(label, first, tail) for label, tail in zip(labels, others, strict=True)) > 0
        # The relation stands before both, or after both, or is the current one.
        head, *tails = map(self._stripped, self._arrow.split(first or "".join(others)))
        known = labels[0] if labels else self.relation if len(tails) == 1 or self.source else ""
        return bool(known) and self._add(known, head, *(tails if known == self.nested else [tails]))

    def _stripped(self, text: str) -> str:
        """``text`` without what joins it to a relation."""
        return re.sub(r"^(?:包括|包含|主要|是|为|有|用)\s?[:：]?|的$", "", text.strip(self._edges)).strip(self._edges)

    def _add(self, relation: str, *ends: Json, dialect: bool = False) -> bool:
        """Enter the triples of all that each end names; whether each names something."""
        # A comma can be part of an entity.
        known = (self.part(end) if isinstance(end, str) and (dialect or not self.source) else None for end in ends)
        found = [[part] if part else self.parts(end, dialect=dialect) for part, end in zip(known, ends, strict=True)]
        all_ = all(found) and len(found) == 2 + (relation == self.nested)
        self.triples |= dict.fromkeys((relation, *parts) for parts in itertools.product(*found) if all_)
        self.understood |= all_
        return all_

    def record(self, record: Mapping[str, Json], roles: Mapping[str, Json]) -> bool:
        if not {"subject", "object"} <= roles.keys():
            # Relations and tails can stand under their head.
            under = [(head, tails) for head, tails in record.items() if isinstance(tails, dict) and not roles]
            stated = [(self.names.exact(name), head, tail) for head, tails in under for name, tail in tails.items()]
            return sum(self._add(name, head, tail) for name, head, tail in stated if name) > 0
        named = roles.get("predicate", roles.get("type"))
        predicate = self.relation if named is None else self.names.exact(clean(" ".join(leaves(named))))
        if predicate:
            # The object can be a pair of its own; what else a record says of an entity is no entity.
            inner = roles["object"]
            pair = _roles_of(inner) if isinstance(inner, dict) and predicate == self.nested else {"object": inner}
            ends = [roles["subject"], *(pair[role] for role in ("subject", "object") if role in pair)]
            self._add(predicate, *(leaves(end)[:1] if isinstance(end, dict) else end for end in ends))
        return bool(predicate) or named is not None

    def member(self, name: str, value: Json) -> None:
        self.relation, self.understood = name, True
        text = str(value or "")
        if text and not _is_none(text) and not self._pairs(text):
            self.problems.append(Problem("unreadable line", 1))

    def answer(self) -> Answer:
        found: list[dict[str, Any]] = []
        for relation, head, *tail in sorted(self.triples, key=lambda item: [item[0] != one for one in self.choices]):
            found.append({"predicate": relation, "subject": head, "object": tail[0]})
            if isinstance(self.format, answers.CausalLines) and len(tail) > 1:
                inner = {"predicate": self.format.inner, "subject": tail[0], "object": tail[1]}
                found[-1] |= {"subject": head + self.format.marker, "object": inner}
        return found


class Events(Reader[answers.EventLines]):
    """Events whose fields stand on one line or on several."""

    # 主体词 does not stand in the text in a fifth of the gold events: 体重变化 of 体重无明显变化.
    spans = False

    def set_up(self) -> None:
        self.name({name: name for name in self.format.fields})
        self.events: list[dict[str, Json]] = []
        self.judge = Choosing(self.format, self.format.statuses, self.source)

    def polished(self, answer: Answer) -> Answer:
        self.events = list(answer)
        return self.answer(dialect=True)

    def line(self, line: Line) -> bool:
        if head := self.heads.search(folded(line.text)):
            self.free(line._replace(text=line.text[: head.start()].rstrip("（(")))
        return super().line(line)

    def free(self, line: Line) -> bool:
        # An event can be headed by its 主体词 itself.
        heading = _PARENTHESES.sub("", re.split("[：:]", bare(line.text))[-1])
        known = bool(self.source and self.source.span(heading))
        self.events += [{"": heading}] * known
        return known

    def member(self, name: str, value: Json) -> None:
        if not self.events or name in self.events[-1]:
            self.events.append({})
        self.events[-1][name] = value
        self.understood = True

    def answer(self, *, dialect: bool = False) -> Answer:
        events = list[dict[str, Answer]]()
        # An output breaks off in an event that says its name alone after one that says all.
        broken = [*map(len, self.events)][-2:] == [len(self.format.fields), 1]
        for said in self.events[: len(self.events) - broken]:
            event: dict[str, Answer] = {}
            for name, is_list in self.format.fields.items():
                value = said.get(name, said.get("" if name == "主体词" else name, ""))
                text = clean(" ".join(leaves(value)))
                whole = self._status(text) if name == "发生状态" else self.part(text)
                outer = _PARENTHESES.sub("", text) if whole is None else whole
                event[name] = self.parts(value, dialect=dialect) if is_list else outer
            if event not in events and event["主体词"] and said.keys() != {""}:
                events.append(event)
        return events

    def _status(self, text: str) -> str:
        labels = self.judge.said(_PARENTHESES.sub("", text))
        none = not labels and (not text or _is_none(text))
        self.problems += [Problem("unknown status", 1)] * (len(labels) != 1 and not none)
        return "" if none else labels.pop() if len(labels) == 1 else text


class ReportSections(Reader[answers.Report]):
    """Sections headed by their names."""

    def set_up(self) -> None:
        self.name({section: section for section in self.format.sections})
        self.sections: dict[str, list[str]] = {}

    def member(self, name: str, value: Json) -> None:
        self.sections[name] = [text.rstrip("；;，,")] if (text := str(value).strip()) else []
        self.last, self.understood = name, True

    def free(self, line: Line) -> bool:
        # A line with a head that is none belongs to no section.
        headlike = not (line.mark or self.open) and re.match("[^,.:]{1,6}:", folded(line.text))
        if not self.last or _REMARK.match(line.text) or headlike:
            return False
        self.sections[self.last].append(line.mark * (len(line.mark) > 1) + line.text)
        return True

    def answer(self) -> Answer:
        return {name: " ".join(self.sections[name]) for name in self.format.sections if name in self.sections}


ASKED, DENIED, WEAK, PLAIN, SAID = range(-2, 3)
_SUITS = "[更最][合贴符恰接准]"
_CONCLUDES = re.compile(f"因此|所以|最终|综上|严格来|[.,]不对|故|答案[是为]|不应选|改[选为]|{_SUITS}[^,.\n]{{1,6}}是")
#: That none of what is offered fits.
_NONE_FITS = re.compile(
    "(?:选项|类[型别]|以上|上述|[所可]选|[所给][给列定])[^,.\n]{0,12}(?:没有|[均都](?:与[之此])?[不无未没])(?!能?确|完全|更|其)"
    "|(?:不属于|没有|无)(?!完全|更|其)[^,.\n]{0,4}(?:合适|对应|匹配|任何|可选|[以上][上述])[^,.\n]{0,6}(?:选项|类|意图)"
)
#: A verdict on a choice, and what ticks or crosses it, before it too.
_SIGN = r"[✓✔√✅☑✗✘×❌]|\[[x√\s]\]"
_VERDICT = re.compile(
    rf"[\"'\s\]]{{0,3}}(?:性|与否|吗)?(?:[(:—?]{{1,2}}(?:[^.\n]{{0,40}},)??[\s\"']{{0,3}}"
    rf"(?:([01]\.\d)\d{{0,9}}|({_VERDICTS.pattern}))|:?\s{{0,3}}({_SIGN}))(?=[\s\"']{{0,3}}(?:[,.()}}\n]|$))"
)
_CLAUSE_END = re.compile(r"[,!?\n()]|\.(?!\d)|而(?!非|不)|但|其实|因此|所以")
_LISTED_WITH = r"[\"'」』\]\s]{0,3}(?:[,/+\"\s]|##|[和与及]|以及)[\"'「『\[\s]{0,3}"
_DENIES_BEFORE = re.compile(r"[不非未无没否勿难]|与其|排除|除了|(?:[候备]选|原(?!因)|输入|query|input|unmatch)\w{0,6}:")
_DENIES_AFTER = re.compile("[不没未无非]|(?<!是)否|难以|排除|剔除|除外|错误|[性较很][低弱小]|[为是]0")
_ASKS = re.compile("(?<!终)(?:还是|是否)$|虽|尽管|(?:不是|非|没有|能说)不|难[^说]|(?:无法|不[能好]?)(?:确定|判断|好说)")
_HEDGES = re.compile(
    "看起来|看似|表面|乍|似乎|一开始|[起最]初|也许|或许|可能|其次|次[要选]|第二选|容易|误|介于"
    "|(?:仅|只[是有]|标点|措辞|[说问写叫]法|表述|表达|用词|字面|句式|文字|语序)[^含意语,]{0,8}$"
)
_LEADS = re.compile(r"(?:属于|归[为入类]|属|判定?为|应[该为]|对应|选择?|取|答案|是|为|即|:|\[)[\W_]{0,3}$")
_MAY_FOLLOW = "匹符的类这那等吗呢吧么哦啊呀和与或及是为而并还也就更比都均不无较一最因所但之故以用有即到两性度"


def _weight(before: str, after: str, rest: str) -> int:
    """How firmly a word between two others is said to be it; ``rest`` goes on beyond the next one."""
    verdict = _VERDICT.match(rest) or re.search(rf"({_SIGN})\s{{0,3}}$", before[-6:])
    if verdict and (word := _VERDICTS.exact(verdict[verdict.lastindex or 0])):
        return SAID if word == "yes" else DENIED
    left = re.sub("无疑|不如|不仅|不难|毋庸|不过|无论|非常|不得不|不妨", "", _CLAUSE_END.split(before)[-1])
    right = _CLAUSE_END.split(after.lstrip("\"'] "))[0]
    if _ASKS.search(left) or re.match(r"[\"'\s]{0,3}(?:吗|呢|么|还是)|[^.!?\n]*\?", rest):
        return ASKED
    if _DENIES_BEFORE.search(left) or _DENIES_AFTER.search(re.split("[:而—]", right)[0]):
        return DENIED
    # What is said in parentheses, or of another case, is an aside.
    if _HEDGES.search(left) or re.search(r"\([^()]+$|(?:如果|若)(?![必只干])[^.\n]*$", before):
        return WEAK
    firm = _LEADS.search(before[-8:]) or re.match(_SUITS, right)
    return SAID if firm or not (left + right).strip("\"'[] ") else PLAIN


def label_words(answer_format: AnswerFormat, choices: Sequence[str]) -> Words:
    """The spellings of the labels or statuses that ``choices`` offer."""
    synonyms: Mapping[str, str] = getattr(answer_format, "synonyms", {})
    known = [*choices, *filter(None, [getattr(answer_format, "none_of_these", None)])]
    spellings = {name: synonyms.get(name, name) for name in known}
    # What stands before the parentheses of a label is its name; the two below are other words within a sentence.
    short = {re.split("[(（]", name)[0]: label for name, label in spellings.items()}
    for label, often, seldom in re.findall(r"([^:;\s]*):([^|;\n]*)\|?([^;\n]*)", _OTHER_LABELS):
        if label in spellings.values():
            spellings = dict.fromkeys(often.split(), label) | spellings
            short |= dict.fromkeys(seldom.split(), label)
    return Words({name: label for name, label in spellings.items() if name not in ("是的", "不是")}, short)


_OPTION = re.compile(
    r"(?s)(?:[^\W\da-z不非排]{0,8}(?:选项|选择|选|答案|答)[是为]?|option|answer|the answer is)?[\s:\"'(\[]{0,4}第?"
    r"(?P<sign>[a-z]|\d{1,2}|[①-⑳])[项个]?(?P<rest>[\s)\].,:\"'](?P<label>.*))?$"
)


class Choosing(Reader[answers.Label | answers.TermList | answers.StatusLines | answers.EventLines]):
    """Reads which of the choices an output says it is: a label or status, or any number of terms.

    Each choice is said to be it, named in passing, or denied. Terms stand apart from other words.
    """

    def set_up(self) -> None:
        self.apart = isinstance(self.format, answers.TermList)
        self.known = Words({one: one for one in self.choices}) if self.apart else label_words(self.format, self.choices)
        self.coming.append(self.known)
        self.between = "[\n，,、；;]" if self.apart else "(?!)"
        self.labels: set[str] = set()
        labels = list(dict.fromkeys(label for choice in self.choices if (label := self.known.exact(choice))))
        #: Of two labels, the other one: to deny one is to say the other.
        self.opposite = dict(zip(labels, reversed(labels), strict=True)) if len(labels) == 2 and not self.apart else {}
        two = r"[，,]|[(（](?![01否不无没])|因此|所以|回答|" * bool(self.opposite)
        self._clause = re.compile(two + "[。！!；;]|(?<=[？?])|(?<!不)属于|(?:[，,]|所以|而)(?:是|选(?!项))")
        self._word = re.compile(self.known.pattern)
        self._lists = re.compile(f"(?:{self.known.pattern})(?:{_LISTED_WITH}(?:{self.known.pattern}))*")

    def said(self, text: str) -> set[str]:
        """The choices between which a text leaves it; `repair` says how."""
        self.repair = "sentence around label"
        if (label := self._whole(text)) is not None:
            return {label}
        weights: dict[str, int] = {}
        # What is concluded outweighs what was said before, which of terms can be a part.
        start = 0 if self.apart else max((match.start() for match in _CONCLUDES.finditer(folded(text))), default=0)
        for outweighs, part in enumerate((text[:start], text[start:]) if start else (text,)):
            for label, weight in self._statements(part):
                if weight == DENIED and label in self.opposite:
                    # What takes back a verdict is as firm.
                    label, weight = self.opposite[label], max(PLAIN, weights.get(label, PLAIN))
                weights[label] = max(weights.get(label, weight), weight + outweighs * (weight >= PLAIN))
        # The most firmly said is meant.
        best = max(weights.values(), default=DENIED)
        return {label for label, weight in weights.items() if weight == best > DENIED}

    def _whole(self, text: str) -> str | None:
        """The label that ``text`` is, by name or by its place among the choices."""
        if (label := self.known.exact(text)) is not None:
            self.repair = "label case/quotes" if bare(text) == label else "near-miss label"
            return label
        match = _OPTION.match(folded(text.strip())) if len(text) < 200 and not self.apart else None
        if match and (label := self.known.exact(self.source.option(match["sign"], self.choices) or "")):
            said = match["label"] or ""
            if {self.known.exact(said), *(self.known.found[hit[0]] for hit in self.known.hits(said))} <= {label, None}:
                self.repair = "option letter"
                return label
        return None

    def _statements(self, text: str) -> Iterator[tuple[str, int]]:
        """What ``text`` says of the labels it names, each with its weight; pieces of longer words are left out."""
        # A verdict of its own stands; what follows a turn may take back a yes, but to a no it concedes.
        turns = self.opposite and re.search("但|其实|不过|然而|应该", folded(text))
        for line in re.split("[\n；;]" if self.apart else "\n", text):
            for clause in () if self.apart or re.search(_SIGN, line) else self._clause.split(line):
                if (label := self._whole(clause)) is not None:
                    yield label, PLAIN if turns and label[:1] != "不" else SAID
                elif (none := self.known.exact("都不是")) and _NONE_FITS.search(folded(clause)):
                    yield none, PLAIN
            flat, end = folded(line), 0
            # Words that are listed share what is said of them.
            for listed in self._lists.finditer(flat):
                before, end = flat[max(end, listed.start() - 40) : listed.start()], listed.end()
                rest = flat[end : end + 60]
                weight = _weight(before, self._word.split(rest, maxsplit=1)[0][:40], rest)
                # Of two labels, what is no clause of its own is said in passing.
                weight = min(weight, PLAIN if self.opposite else SAID)
                for word in self._word.finditer(flat, listed.start(), end):
                    if self._stands_apart(line, *word.span()):
                        yield self.known.found[word.group()], weight

    def _stands_apart(self, text: str, start: int, end: int) -> bool:
        """Whether a word is no piece of a longer one, and not quoted with more than itself."""
        before, after = text[max(0, start - 30) : start], text[end : end + 8]
        opened, closed = (max(map(before.rfind, signs)) for signs in ("“「『‘", "”」』’"))
        quoted = opened > closed and (opened < len(before) - 1 or (after and after[0] not in "”」』’"))
        if quoted or (after[:1].isalnum() and after[0] not in _MAY_FOLLOW):
            return False
        within = re.match(r"[-+/·%]\w", after) or re.search(r"[\w+/·%-]$", before)
        return not self.apart or not within or before[-1:] in tuple("是为选即应到和与及或择有的括含")

    def structure(self, value: Json) -> bool:
        # What a value says is what its fields would say as lines, those last that are named as the answer.
        fields, known = list(self._fields("", value)), self.known
        marked = [text for name, text in fields if _MARK.match(folded(f"{name}:"))]
        named = dict.fromkeys(marked or (text for _, text in fields if known.exact(text) and not self.apart))
        others = [f"{name}：{text}".lstrip("：") for name, text in fields if text not in named]
        text = "\n".join([*others, "答案：" * bool(named), *named])
        return self._decide(text) or (self.apart and super().structure(value))

    def _fields(self, name: str, value: Json) -> Iterator[tuple[str, str]]:
        """What a JSON value says, each text with its name, a choice and the verdict on it as one."""
        if isinstance(value, dict):
            fields = {word: inner for word, inner in value.items() if not _REASON.exact(word)}
            texts = leaves(fields)
            found = [text for text in texts if self.known.exact(text) is not None]
            rest = [text for text in texts if text not in found and _VERDICTS.exact(text.lstrip("01."))]
            judged = len(found) == len(rest) == 1
            inner = [(found[0], rest[0])] if judged else list(fields.items())
        else:
            inner = [(name, item) for item in value] if isinstance(value, list) else []
            yield from ((name, text) for text in leaves(value) if text and not inner)
        for name, item in inner:
            yield from self._fields(name, item)

    def lines(self, lines: Sequence[Line]) -> None:
        # A number can be an option's.
        numbered = [line.mark * any(map(str.isalnum, line.mark)) + line.text for line in lines]
        text = "\n".join(numbered)
        # A line that begins as one of the prompt does asks another question, after the answer.
        heads = (head for head in re.finditer("\n[^：:\n]{2,10}[：:]", text) if head[0] in f"\n{self.source}")
        text = text[: next((head.start() for head in heads if not _MARK.match(folded(head[0][1:]))), None)]
        # What is concluded outweighs what was said before.
        last = _CONCLUDES.split(text)[-1]
        others = re.search("其[他余它]|别的", last) or any(self.known.hits(folded(last)))
        nothing = self.apart and not others and _says_nothing(last)
        self.understood = nothing or self._decide(text) or (self.apart and any(map(_says_nothing, numbered)))
        self.note("empty marker", self.understood and not self.labels)

    def _decide(self, text: str) -> bool:
        """Read an answer from the last place where one begins; whether there is one."""
        marks = [match.end() for match in _MARK.finditer(folded(text))]
        marked = bool(marks) and self._hear(text[marks[-1] :].strip())
        self.note("answer marker", marked)
        return marked or self._hear(text)

    def _hear(self, text: str) -> bool:
        """Read what ``text`` says; whether that is an answer."""
        self.labels = self.said(text)
        # Of a list of labels none is the answer, though not all of them were offered; of a list of terms, any may be.
        between = "[，,、；;\n]" if self.apart else "[、/和及]"
        pieces = list(filter(bare, re.split(between, bare(re.split("[:：]", text)[-1]))))
        mixed = len(set(map(bool, map(self.known.exact, pieces)))) == 2 and max(map(len, pieces)) < 8
        self.understood = bool(self.labels) if self.apart else len(self.labels) == 1 and not mixed
        self.problems += [Problem("unknown term", 1)] * (mixed and self.apart and self.understood)
        self.note(self.repair, self.understood)
        if not self.understood and any(self.known.hits(folded(text))):
            self.unread = "ambiguous label"
        return self.understood

    def answer(self) -> Answer:
        kind = getattr(self.format, "type", "")
        return [{"entity": term, "type": kind} for term in sorted(self.labels)] if self.apart else self.labels.pop()


class Statuses(Reader[answers.StatusLines]):
    """A line per finding, in any order of finding and status."""

    roles = frozenset({"entity", "attr"})
    between = "[\n；;：:]"
    _head = re.compile(
        r"(?:^|(?<=[，,、；;。\s]))(?P<name>[^，,；;。：:\n]{1,40}?)\s{0,3}"
        r"(?:[：:]|\s[-–]\s|[—→=\t|]|[（(](?![^()（）]{0,40}[)）]\s{0,3}[：:])|-{1,2}>|\s(?=\S{1,60}$)"
        r"|应该?[改判]?[为是]|(?<!应)改为|的只?有)[—>\s：:]{0,3}"
    )
    #: A remark in parentheses on a status, or its other name.
    _aside = re.compile(r"([：:为是|→][^（(：:，,；;。]{1,40}|[阴阳]性(?=.{1,30}[)）]的))[（(][^()（）]{1,200}[)）]")

    def set_up(self) -> None:
        self.judge = Choosing(self.format, self.choices, self.source)
        self.coming.append(self.judge.known)
        self.findings: dict[str, str] = {}
        #: The findings that the prompt lists.
        self.asked = list(filter(None, _LISTED.split("".join(re.findall("临床发现(?:实体)?[：:](.+)", self.source)))))

    def polished(self, answer: Answer) -> Answer:
        mark = "^(?:[-*•·]" + r"|\d{1,2}[.、)）](?!\d)" * bool(self.source) + r")\s{0,3}(?=\w)"
        return [{**item, "entity": re.sub(mark, "", item["entity"])} for item in answer]

    def status(self, text: str) -> str | None:
        """The only status that ``text`` gives."""
        labels = self.judge.said(text.rstrip(_LIST_END + "吗?？"))
        self.note(self.judge.repair, len(labels) == 1 and text not in labels)
        return labels.pop() if len(labels) == 1 else None

    def add(self, status: str, said: str) -> bool:
        """Enter the findings of a list; whether it names any."""
        text = clean(re.split(f"{_CONCLUDES.pattern}|(?:患者|病人)(?:没?有|无)?", said)[-1]).strip("\"'“‘")
        # Tasks have their own names of findings, such as 发热 of 发烧.
        found = [part for piece in re.split("[、，,；;和]", text) for part in self.parts(piece, dialect=True)]
        known = [part for part in found if part in (self.asked or (self.source.span(part), part[:8]))]
        self.findings |= dict.fromkeys(known, status)
        self.understood |= bool(known)
        return bool(text)

    def line(self, line: Line) -> bool:
        text = self._aside.sub(r"\1", re.sub(r"^【([^】]{1,40})】[：:]?", r"\1：", line.text.rstrip("。")))
        heads = [] if self.understood and _REMARK.match(text) else list(self._head.finditer(text))
        said = [(head["name"], said.strip(" ）)、")) for head, said in _headed(text, heads)]
        if self.open and line.mark and not (said or _REMARK.match(text) or self.judge.known.exact(text)):
            return self.add(self.open, text)
        return sum(itertools.starmap(self._finding, said or [(text, "")])) > 0

    def _finding(self, name: str, text: str) -> bool:
        """Read a finding and what is said of it, or a status and the findings that have it; whether it is one."""
        head = re.sub("的(?:症状|疾病|临床发现)?只?(?:有|包括|是)?$", "", name)
        status = self.judge.known.exact(head) or self.judge.known.exact(f"{head}该症状")
        if status and (self.judge.known.exact(text) is None or _is_none(text)):
            self.open, self.understood = status, True
            return self.add(status, text) or not text
        # A name can end in what it says of the findings: 两者的状态均为 judges those that were listed before.
        ends = re.sub("(?:应该?|[改均都全]){0,3}(?:[为是有]|属于)?$", "", folded(name))
        known = self.source and self.source.span(name)
        name = name if known else name[: len(ends)]
        hits = [hit for hit in ROLES.hits(ends) if hit.end() == len(ends) and not (known and hit.start())]
        role = ROLES.found[hits[0][0]] if hits else None
        if role == "entity" or not text:
            self.fields = {"entity": text or known}
            return False
        if role == "attr":
            return self.record({}, {**self.fields, "attr": text})
        label = self.status(text)
        self.problems += [Problem("unknown status", 1)] * (label is None and len(name) <= 12)
        return label is not None and not any(choice in name for choice in self.choices) and self.add(label, name)

    def record(self, record: Mapping[str, Json], roles: Mapping[str, Json]) -> bool:
        label = self.status(" ".join(leaves(roles["attr"]))) if self.roles <= roles.keys() else None
        return label is not None and self.add(label, "、".join(leaves(roles["entity"])))

    def answer(self) -> Answer:
        return [{"entity": finding, "attr": status} for finding, status in self.findings.items()]


class Dialect(Reader[F]):
    """Reads a format that has no reader of its own as the strict parser does, with its marks made full width."""

    def _understand(self, text: str) -> bool:
        self.parsed = self.format.parse(text.translate(str.maketrans(":;", "：；")), self.choices)
        self.understood = self.parsed.well_formed
        return False

    def answer(self) -> Answer:
        return self.parsed.answer


class Reply(Dialect[answers.FreeText]):
    """The doctor's words, without what announces them or goes on after them."""

    _names = _words("yes: 回复 回答 答复 医生 医生回复 答案 response reply answer content text doctor")
    _turn = re.compile(
        r"^[^\n]{0,30}(?:回复|回答|答复|如下|会说)[^\n]{0,10}:\s{0,5}(?=\n)"
        r"|^[^\n,.!?:]{0,15}(?:回复|回答|下一句话?|[会生]说)(?:[是为]|如下)?:\s{0,5}"
        r"|(?:^|\n)\s{0,5}\[?(?:(?P<asker>患者|病人|用户|patient|user)|doctor|assistant|医生的回复|回复内容|"
        rf"{'|'.join(answers.FreeText.captions)})(?:\([^()\n]{{1,8}}\))?[是为]?\s{{0,3}}[:\]]{{1,2}}\s{{0,5}}"
    )
    _after = re.compile(
        r"(?:\n\s{0,9}[-*_]{3,})?\n\s{0,9}[(*]{0,2}(?:备?注:|注意:|备注|说明:|[解理][释由]:|note:"
        r"|以上(?:为|建议|内容)|希望(?:对|以上)|免责|温馨提示|仅供参考"
        r"|[^\n]{0,12}(?:以上|[本此该]|这[样个条])回[复答])[^\n]{0,200}\s{0,9}$"
    )

    def polished(self, answer: Answer) -> Answer:
        text = str(answer)
        # The prompt may be said again first.
        own = list(itertools.dropwhile(set(f"\n{self.source}".split("\n")).__contains__, text.split("\n")))
        text = "\n".join(own) if 0 < len(own) < text.count("\n") else text
        turns = list(self._turn.finditer(folded(text)))
        # What the doctor says first is the reply.
        spoken = [text[: turns[0].start()] if turns else text]
        for turn, said in _headed(text, turns):
            if turn["asker"] and any(map(str.strip, spoken)):
                break
            spoken += [said] * (not turn["asker"])
        text = "\n".join(filter(None, map(str.strip, spoken)))
        self.note("answer marker", text != answer)
        kept = text[: next((match.start() for match in self._after.finditer(folded(text))), None)].strip()
        self.note("closing remark", kept != text)
        quoted = re.sub("(?m)^> ?", "", kept) if all(line[:1] in ("", ">") for line in kept.split("\n")) else kept
        return unquoted(quoted)

    def _understand(self, text: str) -> bool:
        values, cut = json_values(text)
        fields = (field for node in values if isinstance(node, dict) for field in node.items())
        texts = leaves([said for name, said in fields if self._names.exact(name)])
        self.note("json", len(texts) == 1)
        said = texts[0].strip() if len(texts) == 1 else self.polished(text.strip())
        self.parsed, self.understood = Parsed(said, (), ()), True
        return cut and len(texts) == 1


#: Names of what a tree's nodes hold and of the branches below them.
_NODE_NAMES = _words("""
C: c condition conditions 条件 判断条件 判断 if 如果 若; D: d decision decisions action 决策 决定 处理 治疗 结果 结论
left: left left_child yes true then 是 是的 满足 符合 则 那么 左 左子树 左子节点 true_branch yes_branch
right: right right_child no false else 否 不是 不满足 不符合 否则 右 右子树 右子节点 false_branch no_branch
and: and 且 与 并且; or: or 或 或者; null: null none
-: role 角色 node_type logical_rel logical_relation logic 逻辑关系 逻辑 triples triple 三元组 relation
-: children child nodes node tree root 子节点 节点 决策树 诊疗决策树 根节点 branches id
""")
_PART = rf"""\s{{0,40}}(?:["']?(?:{ROLES.pattern})["']?\s{{0,3}}:\s{{0,3}})?"""
_PART += r"""(?:"([^"\n]{1,80})"|([^\s()（）\[\]{},，、;；|:"][^()（）\[\]{},，、;；|\n"]{0,60}))\s{0,40}"""


class Trees(Dialect[answers.TreeLines]):
    """Decision trees in which every node is said by triples: in the dialect, JSON, a table, an outline or rules.

    All of these say the nodes in preorder, so that one scan reads them: a node begins at its role, or at the branch
    that it stands on, and holds the triples up to the next one.
    """

    _triple = re.compile(rf"[(（\[{{]{_PART}[，,、;；|]{_PART}[，,、;；|]{_PART}[)）\]}}]")
    _token = re.compile(
        rf"(?i)(?P<triple>{_triple.pattern})"
        # A branch can be said to hold nothing.
        rf"|[\"']?(?:{_NODE_NAMES.pattern})[\"']?\s{{0,3}}:\s{{0,3}}(?:null|None|\{{\s{{0,9}}\}}|\"\")"
        rf"|(?P<name>(?<![a-z])(?:{_NODE_NAMES.pattern})(?![a-z]))|(?P<words>[^\W\d])|\W|[\d_]"
    )

    def _understand(self, text: str) -> bool:
        nodes = self._nodes("".join(re.findall(r"(?ms)^[^\n(（\[{|]*[(（\[{|].*", text)))
        self.parsed = self.format.parse(self.format.render(nodes, strict=False))
        # A tree whose nodes name their roles may be broken; of any other that is a sign of a misreading.
        self.understood = any(node["triples"] for node in nodes) and ("role" in text or not self.parsed.problems)
        self.problems += self.parsed.problems * self.understood
        return text.count("[") > text.count("]")

    def _nodes(self, text: str) -> list[dict[str, Any]]:
        """The nodes that a text says in preorder, none where it says anything else."""
        nodes, branch = list[dict[str, Any]](), ""
        for token in self._token.finditer(text):
            name = _NODE_NAMES.found[folded(token["name"])] if token["name"] else ""
            if token["words"] or (token["triple"] and not nodes):
                # What comes after the last triple is a remark, or where the output breaks off.
                if self._triple.search(text, token.start()):
                    return []
                break
            if name in ("left", "right"):
                # In preorder a left branch follows a condition, and a right one a decision.
                if not nodes or (nodes[-1]["role"] == "C") != (name == "left"):
                    return []
                branch = name
            elif name in ("C", "D") or (token["triple"] and branch):
                nodes.append({"role": name or "D", "logical_rel": "", "triples": []})
                branch = ""
            if name in ("and", "or", "null") and nodes:
                nodes[-1]["logical_rel"] = name
            elif token["triple"]:
                nodes[-1]["triples"].append([clean(part) for part in token.groups()[1:7] if part])
        for node in nodes:
            node["logical_rel"] = node["logical_rel"] or ("null" if len(node["triples"]) < 2 else "and")
        return nodes


READERS: Mapping[type[AnswerFormat], type[Reader[Any]]] = {
    answers.EntityLines: Entities,
    answers.TripleLines: Triples,
    answers.CausalLines: Triples,
    answers.EventLines: Events,
    answers.TermList: Choosing,
    answers.Label: Choosing,
    answers.StatusLines: Statuses,
    answers.Report: ReportSections,
    answers.FreeText: Reply,
    answers.TreeLines: Trees,
}


def parse_lenient(answer_format: AnswerFormat, text: str, choices: Sequence[str] = (), prompt: str = "") -> Parsed:
    """Read ``text`` as its writer meant it; never raises.

    Args:
        answer_format: how the task's answers are written.
        text: the model's output.
        choices: the row's answer choices, in the order of the prompt.
        prompt: what was asked, or "" where that is not known.

    Returns:
        what could be read or else the empty answer, the repairs it took, and problems for the rest. What the strict
        parser finds well-formed is read as it does, but for what no text holds as part of a mention.
    """
    return READERS.get(type(answer_format), Dialect)(answer_format, choices, Source(prompt)).read(text)


def well_formedness(parsed: Parsed) -> WellFormedness:
    """What became of an output that `parse_lenient` read."""
    found = {problem.kind for problem in parsed.problems}
    states = (state for state, kinds in _STATES.items() if found & kinds)
    return next(states, "well-formed" if parsed.well_formed else "repaired")
