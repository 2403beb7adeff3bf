"""Answers as text and as structure, both ways, in the released dialect (standard library only).

Every format is one class with two inverse methods. ``render`` writes a structured answer the way the
official targets are written (formats.md section 2); ``parse`` reads a model's output exactly as the
official post-processor does (section 4), and also says what in the text it could not read. Parsing never
raises on any string and takes time linear in its length.

The dialect has no escape. ``parse(render(a)) == a`` therefore holds for answers whose parts hold none of
the separators, and ``render`` raises `SeparatorError` for the others.
"""

from __future__ import annotations

import ast
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from .errors import SeparatorError

#: A structured answer: a list of dicts, a dict of section to text, or a string (formats.md section 3).
Answer: TypeAlias = Any

ProblemKind = Literal[
    "empty output",
    "missing lead line",
    "unreadable line",
    "missing line",
    "repeated line",
    "unknown label",
    "unknown relation",
    "unknown status",
    "unknown term",
    "empty marker",
    "wrapping",
    "broken tree",
    # Of the lenient parser alone.
    "ambiguous label",
    "not in the prompt",
    "nothing readable",
    "truncated",
]

#: Words for "none": the paper's dialect writes the first where the released one writes nothing.
EMPTY_MARKERS = frozenset({"无", "暂无", "没有", "未提及", "未提到", "不存在"})
#: What no answer holds, and only the way an answer is presented does.
WRAPPINGS = ("**", "```", "<think>", "</think>")


class Problem(NamedTuple):
    """Something in an output that is not in the dialect, and the 1-based line where it stands."""

    kind: ProblemKind
    line: int


class Parsed(NamedTuple):
    """What could be read of an output, what was wrong with the rest, and what the lenient parser mended.

    ``repairs`` names the kind of each repair, in the order they were made; the strict parser makes none.
    """

    answer: Answer
    problems: tuple[Problem, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def well_formed(self) -> bool:
        """Whether the whole output is in the dialect as it stands."""
        return not self.problems and not self.repairs

    @property
    def readable(self) -> bool:
        """Whether the output says anything: nothing is wrong, or some of it was read and no label is unknown."""
        return not self.problems or (
            bool(self.answer) and not any(problem.kind == "unknown label" for problem in self.problems)
        )


class AnswerFormat(ABC):
    """One way to write an answer.

    ``choices`` are the row's answer choices (entity types, relations, candidate terms, labels or statuses).
    """

    #: Whether a row must carry ``answer_choices``.
    needs_choices: ClassVar[bool] = True

    @abstractmethod
    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        """Write ``answer`` in the released dialect.

        Args:
            strict: refuse parts that hold a separator. Without it they are simply written, as in the official
                targets, and read back as something else.

        Raises:
            SeparatorError: when a part of the answer cannot be written so that it reads back the same.
        """

    @abstractmethod
    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        """Read ``text`` as the official post-processor does; never raises."""


def _checked(part: str, what: str, separators: Iterable[str] = (), *, empty: bool = False, strict: bool = True) -> str:
    """Return ``part`` if it survives writing and reading; ``separators`` are the strings it must not hold."""
    for separator in ("\n", *separators) if strict else ("\n",):
        if separator in part:
            raise SeparatorError(
                f"{what} {part!r} holds {separator!r}, which the released dialect uses as a separator "
                "and cannot escape; leave the sample out or change the text"
            )
    if part != part.strip() or not (part or empty):
        raise SeparatorError(f"{what} {part!r} is empty or has white space at an end; strip it first")
    return part


def _offered(part: str, what: str, choices: Sequence[str]) -> str:
    """Return ``part`` if it is one of the choices."""
    if part not in choices:
        raise SeparatorError(f"{what} {part!r} is not among the choices {list(choices)}")
    return part


def _parts(text: str) -> list[str]:
    """The stripped, non-empty parts of ``text``."""
    return [part for piece in text.split("，") if (part := piece.strip())]


def _wrapping_problems(text: str) -> list[Problem]:
    """Problems of an answer whose parts are free text and could hold the marks of its presentation."""
    found = [at for mark in WRAPPINGS if (at := text.find(mark)) >= 0]
    return [Problem("wrapping", text.count("\n", 0, min(found)) + 1)] if found else []


def _line_problems(
    text: str, lines: Sequence[str], lead: str, problem_of: Callable[[str], ProblemKind | None]
) -> list[Problem]:
    """Problems of an answer that is a lead line followed by lines of one kind."""
    if not text.strip():
        return [Problem("empty output", 1)]
    problems = [] if lines[0] == lead else [Problem("missing lead line", 1)]
    problems += [Problem(kind, number) for number, line in enumerate(lines[1:], 2) if (kind := problem_of(line))]
    return problems + _wrapping_problems(text)


def _coverage_problems(found: Sequence[str], asked: Sequence[str], last_line: int) -> list[Problem]:
    """Problems of an answer that should have one line for each of ``asked``, given the lines' own keys."""
    kinds: list[ProblemKind] = ["repeated line"] * (len(found) - len(set(found)))
    kinds += ["missing line"] * len(set(asked) - set(found))
    return [Problem(kind, last_line) for kind in kinds]


@dataclass(frozen=True)
class EntityLines(AnswerFormat):
    """A line per asked type, ``{type}实体：{mention}，{mention}``: CMeEE-V2 and IMCS-V2-NER.

    The answer is a list of ``{"entity", "type"}``, grouped by type in the order of the choices.
    """

    lead = "上述句子中的实体包含："
    nothing = "上述句子没有指定类型实体"

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        mentions: dict[str, list[str]] = {choice: [] for choice in choices}
        separators = ("，", *(f"{choice}实体：" for choice in choices))
        for item in answer:
            mention = _checked(item["entity"], "entity", separators, strict=strict)
            mentions[_offered(item["type"], "entity type", choices)].append(mention)
        if not answer:
            return self.nothing
        return "\n".join([self.lead, *(f"{choice}实体：" + "，".join(found) for choice, found in mentions.items())])

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        lines = text.split("\n")
        entities: list[dict[str, str]] = []
        found: list[str] = []
        for choice in choices:
            start, head = f"{choice}实体", f"{choice}实体："
            for line in lines:
                if line.startswith(start):
                    entities += ({"entity": mention, "type": choice} for mention in _parts(line.replace(head, "")))
                    if line.startswith(head):
                        found.append(choice)
        if text == self.nothing:
            return Parsed(entities)
        heads = tuple(f"{choice}实体：" for choice in choices)

        def problem_of(line: str) -> ProblemKind | None:
            if not line.startswith(heads):
                return "unreadable line"
            return "empty marker" if line.rpartition("：")[2].strip() in EMPTY_MARKERS else None

        problems = _line_problems(text, lines, self.lead, problem_of)
        return Parsed(entities, (*problems, *_coverage_problems(found, choices, len(lines))))


@dataclass(frozen=True)
class TripleLines(AnswerFormat):
    """A line per asked relation, its entity pairs each ended by ``。``: CMeIE.

    The answer is a list of ``{"predicate", "subject", "object"}``, grouped by relation in the order of the
    choices. As in the official post-processor, a predicate outside the choices is kept.
    """

    nothing = "没有指定类型的三元组"

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        pairs: dict[str, list[str]] = {choice: [] for choice in choices}
        for choice in choices:
            _checked(choice, "relation", ("关系的头尾实体对", "。"))
        for item in answer:
            separators = ("。", "头实体为", "尾实体为", "关系的头尾实体对")
            head = _checked(item["subject"], "subject", separators, strict=strict)
            tail = _checked(item["object"], "object", separators, strict=strict)
            pair = f"头实体为{head}，尾实体为{tail}。"
            # A part that ends in a piece of the marker could complete it together with the text around it.
            if strict and self._pair(pair[:-1]) != (head, tail):
                raise SeparatorError(f"the pair {head!r}, {tail!r} forms a separator where its parts are joined")
            pairs[_offered(item["predicate"], "relation", choices)].append(pair)
        if not answer:
            return self.nothing
        return "\n".join(f"具有{choice}关系的头尾实体对如下：" + "".join(found) for choice, found in pairs.items())

    @staticmethod
    def _pair(piece: str) -> tuple[str, str]:
        head, tail = piece.split("，尾实体为")[:2]
        return head.replace("头实体为", "").strip(), tail.replace("尾实体为", "").strip()

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        if text == self.nothing:
            return Parsed([])
        triples: list[dict[str, str]] = []
        problems: list[Problem] = []
        found: list[str] = []
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            predicate = line.split("关系的头尾实体对", 1)[0][2:].strip()
            lead = f"具有{predicate}关系的头尾实体对如下："
            pieces = line.replace(lead, "").split("。")
            for piece in pieces:
                if "，尾实体为" in piece:
                    head, tail = self._pair(piece)
                    triples.append({"predicate": predicate, "subject": head, "object": tail})
            found.append(predicate)
            if kind := self._problem(line, lead, pieces, predicate, choices):
                problems.append(Problem(kind, number))
        if not text.strip():
            return Parsed(triples, (Problem("empty output", 1),))
        problems += _wrapping_problems(text)
        return Parsed(triples, (*problems, *_coverage_problems(found, choices, len(lines))))

    @staticmethod
    def _problem(
        line: str, lead: str, pieces: Sequence[str], predicate: str, choices: Sequence[str]
    ) -> ProblemKind | None:
        if not line.startswith(lead) or pieces[-1].strip():
            return "unreadable line"
        if any(not piece.startswith("头实体为") or "，尾实体为" not in piece for piece in pieces[:-1]):
            return "unreadable line"
        return "unknown relation" if choices and predicate not in choices else None


@dataclass(frozen=True)
class EventLines(AnswerFormat):
    """A line per event, its fields joined by ``；``: CHIP-CDEE.

    The answer is a list of ``{"主体词": str, "发生状态": str, "描述词": [str], "解剖部位": [str]}``.
    """

    needs_choices = False
    lead = "上述句子中的临床发现事件如下："
    #: Each field, and whether it holds a list.
    fields: ClassVar[Mapping[str, bool]] = {"主体词": False, "发生状态": False, "描述词": True, "解剖部位": True}
    statuses = ("", "否定", "不确定")

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        return "\n".join([self.lead, *("；".join(self._render_fields(event, strict)) for event in answer)])

    def _render_fields(self, event: Mapping[str, Answer], strict: bool) -> Iterable[str]:
        for key, is_list in self.fields.items():
            values = event[key] if is_list else [event[key]]
            separators = ("；", "，") if is_list else ("；",)
            checked = [
                _checked(value, key, (*separators, f"{key}："), empty=not is_list, strict=strict) for value in values
            ]
            yield f"{key}：" + "，".join(checked)

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        lines = text.split("\n")
        events = [self._event(line) for line in lines[1:]]
        return Parsed(events, tuple(_line_problems(text, lines, self.lead, self._problem)))

    def _event(self, line: str) -> dict[str, Answer]:
        event: dict[str, Answer] = {key: [] if is_list else "" for key, is_list in self.fields.items()}
        for part in line.split("；") if "：" in line else ():
            for key, is_list in self.fields.items():
                if part.startswith(f"{key}："):
                    # The next keys are tried on what is left, as in the official loop.
                    part = part.replace(f"{key}：", "").strip()
                    event[key] = _parts(part) if is_list else part
        return event

    def _problem(self, line: str) -> ProblemKind | None:
        if line.count("；") != len(self.fields) - 1:
            return "unreadable line"
        parts = [part.partition("：") for part in line.split("；")]
        if [key for key, _, _ in parts] != list(self.fields):
            return "unreadable line"
        if any(value.strip() in EMPTY_MARKERS for _, _, value in parts):
            return "empty marker"
        return None if self._event(line)["发生状态"] in self.statuses else "unknown status"


@dataclass(frozen=True)
class TermList(AnswerFormat):
    """Candidate terms joined by ``，`` on one line: CHIP-CDN.

    The answer is a list of ``{"entity", "type": "normalization"}``: a set, so the terms are sorted.
    """

    nothing = "没有对应的标准化实体"
    type = "normalization"

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        terms = [_offered(item["entity"], "term", choices) for item in answer]
        return "，".join(_checked(term, "term", ("，",), strict=strict) for term in terms) or self.nothing

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        lines = text.split("\n")
        written, offered = set(_parts(lines[-1])), set(choices)
        problems: list[Problem] = []
        if not text.strip():
            problems.append(Problem("empty output", 1))
        problems += (Problem("unreadable line", number) for number in range(1, len(lines)))
        if written - offered and lines[-1].strip() != self.nothing:
            problems.append(Problem("unknown term", len(lines)))
        terms = sorted(written & offered)
        return Parsed([{"entity": term, "type": self.type} for term in terms], tuple(problems))


@dataclass(frozen=True)
class Label(AnswerFormat):
    """The label alone: the classification and inference tasks. The answer is a string.

    Args:
        none_of_these: the label that may answer without being offered, or None.
        synonyms: other spellings of a label, to the label (CHIP-STS asks in two ways).
    """

    none_of_these: str | None = None
    synonyms: Mapping[str, str] = field(default_factory=dict)

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        spellings = [answer, *(spelling for spelling, label in self.synonyms.items() if label == answer)]
        offered = [spelling for spelling in spellings if spelling in choices or spelling == self.none_of_these]
        return offered[0] if offered else _offered(answer, "label", choices)

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        label = text.strip()
        if not label:
            return Parsed(label, (Problem("empty output", 1),))
        known = label in choices or label == self.none_of_these
        return Parsed(self.synonyms.get(label, label), () if known else (Problem("unknown label", 1),))


@dataclass(frozen=True)
class StatusLines(AnswerFormat):
    """A line per finding, ``{finding}：{status}``: CHIP-MDCFNPC and IMCS-V2-SR.

    The answer is a list of ``{"entity", "attr"}``. A status that is not offered becomes ``fallback``.
    """

    lead: str
    fallback: str

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        for item in answer:
            _checked(item["entity"], "finding", ("：",), empty=True, strict=strict)
            _checked(_offered(item["attr"], "status", choices), "status", ("：",))
        return "\n".join([self.lead, *(f"{item['entity']}：{item['attr']}" for item in answer)])

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        lines, offered = text.split("\n"), set(choices)
        findings = [
            {"entity": finding.strip(), "attr": status if status in offered else self.fallback}
            for finding, status in (line.split("：") for line in lines[1:] if line.count("：") == 1)
        ]

        def problem_of(line: str) -> ProblemKind | None:
            if line.count("：") != 1:
                return "unreadable line"
            return None if line.split("：")[1] in offered else "unknown status"

        return Parsed(findings, tuple(_line_problems(text, lines, self.lead, problem_of)))


@dataclass(frozen=True)
class Report(AnswerFormat):
    """A line per section, ``{section}：{text}``: IMCS-V2-MRG. The answer is a dict of section to text."""

    needs_choices = False
    lead = "上述问诊对话的诊疗报告如下："
    sections = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        if unknown := set(answer) - set(self.sections):
            raise SeparatorError(f"unknown report sections {sorted(unknown)}; the sections are {list(self.sections)}")
        written = [
            f"{section}：" + _checked(answer[section], section, (f"{section}：",), empty=True, strict=strict)
            for section in self.sections
            if section in answer
        ]
        return "\n".join([self.lead, *written])

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        lines = text.strip().split("\n")
        report: dict[str, str] = {}
        found: list[str] = []
        for line in lines[1:]:
            section, colon, _ = line.partition("：")
            if colon and section in self.sections:
                report[section] = line.rsplit(f"{section}：", 1)[1].strip()
                found.append(section)
        heads = tuple(f"{section}：" for section in self.sections)
        problems = _line_problems(
            text, lines, self.lead, lambda line: None if line.startswith(heads) else "unreadable line"
        )
        return Parsed(report, (*problems, *_coverage_problems(found, self.sections, len(lines))))


@dataclass(frozen=True)
class FreeText(AnswerFormat):
    """The text itself: MedDG. The answer is a string."""

    needs_choices = False
    #: Words before the text that say what it is, each followed by a colon.
    captions = ("医生", "医生回复", "回复", "答复", "回答", "答", "答案")

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        text = str(answer)
        if text != text.strip():
            raise SeparatorError(f"the text {text!r} has white space at an end; strip it first")
        return text

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        answer = text.strip()
        if not answer:
            return Parsed(answer, (Problem("empty output", 1),))
        captions = tuple(caption + colon for caption in self.captions for colon in "：:")
        first, _, rest = answer.partition("\n")
        announced = bool(rest) and "回复" in first and first.endswith(("：", ":"))
        wrapped = announced or answer.startswith((*captions, "{", '["'))
        return Parsed(answer, tuple(_wrapping_problems(text) or [Problem("wrapping", 1)] * wrapped))


@dataclass(frozen=True)
class CausalLines(AnswerFormat):
    """A lead a relation, and a line a pair, ``头实体：{head}；尾实体：{tail}``: CMedCausal (formats.md section 10).

    The answer is a list of ``{"predicate", "subject", "object"}``. Under 条件关系 the object is itself such a
    triple, and the subject ends in the marker that follows it, as the official post-processor leaves it there.
    """

    needs_choices = False
    #: What a lead holds that opens a relation, tested in this order.
    openings = (("因果关系三元组如下", "因果关系"), ("条件关系三元组", "条件关系"), ("上下位关系", "上下位关系"))
    nested = "条件关系"
    inner = "因果关系"
    nothing = "给定的文本没有指定关系的三元组"

    #: Between the head of a nested triple and the triple.
    marker = "；尾三元组："

    def lead(self, relation: str) -> str:
        """The line that stands before the pairs of a relation."""
        return f"根据给定的文本抽取的{relation}三元组如下："

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        lines: dict[str, list[str]] = {relation: [] for _, relation in self.openings}
        for item in answer:
            if item["predicate"] not in lines:
                raise SeparatorError(f"relation {item['predicate']!r} is none of {list(lines)}")
            line = self._line(item, strict)
            if strict and self._triple(line, item["predicate"]) != item:
                raise SeparatorError(f"the triple {item} forms a separator where its parts are joined")
            lines[item["predicate"]].append(line)
        found = [line for relation, pairs in lines.items() if pairs for line in (self.lead(relation), *pairs)]
        return "\n".join(found) or self.nothing

    def _line(self, item: Mapping[str, Any], strict: bool) -> str:
        separators = ("头实体：", "；尾实体：", self.nothing, *(opening for opening, _ in self.openings))
        inner = item["object"] if item["predicate"] == self.nested else {"subject": "", "object": item["object"]}
        parts = (item["subject"].removesuffix(self.marker), inner["subject"], inner["object"])
        # 因果关系 is also what a nested triple ends in.
        head, inner_head, tail = (
            _checked(part, what, (*separators, self.marker, "；关系："), empty=not part, strict=strict)
            for what, part in zip(("subject", "inner subject", "object"), parts, strict=True)
        )
        if item["predicate"] == self.nested:
            return f"头实体：{head}{self.marker}头实体：{inner_head}；尾实体：{tail}；关系：{self.inner}"
        return f"头实体：{head}；尾实体：{tail}"

    def _is_written(self, item: Mapping[str, Any], line: str) -> bool:
        """Whether the line is how the triple is written; one with white space at the end of a part is not written."""
        try:
            return self._line(item, strict=False) == line
        except SeparatorError:
            return False

    def _triple(self, line: str, relation: str | None) -> dict[str, Any]:
        """The triple on a line; raises `IndexError` where a marker is missing."""
        subject = line.split("头实体：")[1].split("；尾实体：")[0]
        if relation != self.nested:
            return {"predicate": relation, "subject": subject, "object": line.split("；尾实体：")[1]}
        rest = line.split(self.marker)[1]
        inner_subject = rest.split("头实体：")[1].split("；尾实体：")[0]
        tail = rest.split("；尾实体：")[1].split("；关系：")[0]
        inner = {"predicate": self.inner, "subject": inner_subject, "object": tail}
        return {"predicate": relation, "subject": subject, "object": inner}

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        triples: list[dict[str, Any]] = []
        problems = [] if text.strip() else [Problem("empty output", 1)]
        relation: str | None = None
        leads: list[tuple[int, int]] = []
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()
            opened = next((name for opening, name in self.openings if opening in stripped), None)
            if opened:
                relation = opened
                leads.append((number, len(triples)))
                problems += [] if line == self.lead(relation) else [Problem("unreadable line", number)]
            elif self.nothing in stripped:
                problems += [] if text == self.nothing else [Problem("unreadable line", number)]
                break
            elif stripped:
                try:
                    triple = self._triple(stripped, relation)
                except IndexError:
                    problems.append(Problem("unreadable line", number))
                    continue
                triples.append(triple)
                if relation is None:
                    problems.append(Problem("missing lead line", number))
                elif not self._is_written(triple, line):
                    problems.append(Problem("unreadable line", number))
        ends = [*(before for _, before in leads[1:]), len(triples)]
        problems += [Problem("missing line", n) for (n, start), end in zip(leads, ends, strict=False) if start == end]
        return Parsed(triples, (*problems, *_wrapping_problems(text)))


@dataclass(frozen=True)
class TreeLines(AnswerFormat):
    """A line a node of a binary decision tree, in preorder: Text2DT (formats.md section 10).

    The answer is a list of ``{"role", "logical_rel", "triples": [[head, relation, tail]]}``. A node whose role is ``C``
    (condition) has two children; one with ``D`` (decision) is a leaf.
    """

    needs_choices = False
    lead = "根据给定的指南文本抽取的诊疗决策树如下："
    roles = ("C", "D")
    relations = ("and", "or", "null")
    #: What a line holds that is no node.
    opening = "根据给定的指南文本抽取的诊疗决策树"
    #: The tree of a text in which no node can be read.
    empty = MappingProxyType({"role": "D", "logical_rel": "null", "triples": []})

    def render(self, answer: Answer, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        return "\n".join([self.lead, *(self._line(number, node, strict) for number, node in enumerate(answer))])

    def _line(self, number: int, node: Mapping[str, Any], strict: bool) -> str:
        for triple in node["triples"] if strict else ():
            for part in triple:
                _checked(part, "part of a triple", ("；triples=", self.opening))
        triples = json.dumps(node["triples"], ensure_ascii=False)
        return f"节点{number}：role={node['role']}；logical_rel={node['logical_rel']}；triples={triples}"

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        nodes: list[dict[str, Any]] = []
        lines = text.split("\n")
        problems = [] if lines[0] == self.lead else [Problem("missing lead line", 1)]
        if not text.strip():
            problems = [Problem("empty output", 1)]
        for number, line in enumerate(lines, 1):
            if self.opening in line:
                problems += [Problem("repeated line", number)] * (number > 1)
            elif line:
                node = self._node(line)
                if node is not None:
                    nodes.append(node)
                if node is None or self._line(len(nodes) - 1, node, strict=False) != line or not self._known(node):
                    problems.append(Problem("unreadable line", number))
        # In preorder, leaves outnumber inner nodes at the end and nowhere before it.
        surplus = list(itertools.accumulate(-1 if node["role"] == "C" else 1 for node in nodes))
        if not surplus or surplus.index(max(surplus)) != len(surplus) - 1 or surplus[-1] != 1:
            problems.append(Problem("broken tree", len(lines)))
        return Parsed(nodes or [{**self.empty, "triples": []}], (*problems, *_wrapping_problems(text)))

    def _known(self, node: Mapping[str, Any]) -> bool:
        return node["role"] in self.roles and node["logical_rel"] in self.relations

    def _node(self, line: str) -> dict[str, Any] | None:
        _, _, rest = line.partition("：role=")
        if not rest:
            return None
        role, _, _ = rest.partition("：role=")[0].partition("；logical_rel=")
        relation = line.split("；logical_rel=")[1].split("；triples=")[0] if "；logical_rel=" in line else "null"
        triples = line.split("；triples=")[1] if "；triples=" in line else "[]"
        return {"role": role, "logical_rel": relation, "triples": self._triples(triples)}

    @staticmethod
    def _triples(text: str) -> list[list[str]]:
        """The members of a Python literal that are of length three; none of any text that is no list."""
        try:
            members = ast.literal_eval(text)
            found = [member for member in members if len(member) == 3] if isinstance(members, list) else []
            return [[str(part) for part in member] for member in found]
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return []
