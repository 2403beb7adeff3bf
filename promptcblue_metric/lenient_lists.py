"""Lenient readers of the formats that list what a text holds: entities, triples, events, and a report's sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .answers import Answer, EntityLines, EventLines, Report, TripleLines
from .lenient_reader import REMARK, ROLES, SENTENCE_END, HeadedReader, is_none, listed, roles_of, unparenthesised
from .unwrap import Line, ListStyle, bare, clean, folded, leaves, words


class Entities(HeadedReader[EntityLines]):
    """Mentions under their types, or followed by them."""

    record_roles = ("entity", "type")

    def __init__(self, answer_format: EntityLines, choices: Sequence[str]) -> None:
        endings = ("", "实体", "实体名称", "类实体", "类", "类型")
        super().__init__(answer_format, choices, {choice + end: choice for end in endings for choice in choices})
        #: Mentions, or lists of them not yet cut up, by type.
        self.found: list[tuple[str, str | list[str]]] = []
        self.open = ""
        self.headed: set[str] = set()

    @staticmethod
    def head_pattern(names: str) -> re.Pattern[str]:
        pattern = HeadedReader.head_pattern(names).pattern
        # A sentence names the type as such: 疾病实体是….
        return re.compile(pattern.removesuffix(":") + "(?::|(?<=实体[是为有])|(?<=实体包[括含]))")

    def add(self, kind: str, mentions: str | list[str]) -> None:
        self.found.append((kind, mentions))
        self.headed.add(kind)
        self.understood = True

    def head(self, name: str, value: str, line: Line) -> None:
        self.open = "" if value else name
        if name in self.headed:
            self.note("layout")
        self.add(name, value)

    def item(self, line: Line) -> bool:
        parts = unparenthesised(clean(line.text))
        if self._typed(line.text) or (
            parts != line.text and self.row([clean(part) for part in re.split("[，,]", parts)])
        ):
            return True
        alone = len(line.text) <= 60 and ":" not in folded(line.text) and not line.text.endswith("。")
        alone = alone and not self.names.begins_with(line.text) and not self.leads.begins_with(line.text)
        if not self.open or not (line.mark or alone) or REMARK.match(line.text):
            return False
        self.note("layout")
        self.add(self.open, line.text)
        return True

    def _typed(self, text: str) -> bool:
        """Read mentions each followed by its type, after a colon or in parentheses."""
        typed = []
        for item in ListStyle.of([text]).items(text):
            at = folded(item.rstrip(")）")).rfind("(" if item.endswith((")", "）")) else ":")
            kind = self.names.exact(item[at + 1 :].rstrip(")）")) if at > 0 else None
            if kind is None:
                return False
            typed.append((kind, [item[:at]]))
        for kind, mention in typed:
            self.note("layout")
            self.add(kind, mention)
        return bool(typed)

    def row(self, parts: list[Any]) -> bool:
        if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            return False
        kinds = [self.names.exact(part) for part in parts]
        if (kinds[0] is None) == (kinds[1] is None):
            return False
        self.add(kinds[0] or kinds[1] or "", [parts[kinds[0] is not None]])
        return True

    def record(self, record: Mapping[str, Any]) -> bool:
        roles = roles_of(record)
        if "entity" not in roles or "type" not in roles:
            return False
        kind = self.names.exact(str(roles["type"]))
        if kind is None:
            self.problem("unreadable line", 1)
        else:
            self.add(kind, str(roles["entity"]) if self.tabular else leaves(roles["entity"]))
        return True

    def pair(self, key: str, value: Any) -> bool:
        if super().pair(key, value):
            return True
        kind = self.names.exact(value) if isinstance(value, str) and not ROLES.exact(key) else None
        if kind is not None:
            self.add(kind, [key])
        return kind is not None

    def member(self, name: str, value: Any) -> None:
        mentions = [roles_of(item).get("entity", item) if isinstance(item, dict) else item for item in listed(value)]
        self.add(name, value if isinstance(value, str) else leaves(mentions))

    def answer(self) -> Answer:
        style = ListStyle.of(mentions for _, mentions in self.found if isinstance(mentions, str))
        if style.repair:
            self.note(style.repair)
        entities: dict[tuple[str, str], None] = {}
        for kind, mentions in self.found:
            for mention in style.items(mentions) if isinstance(mentions, str) else map(clean, mentions):
                if is_none(mention):
                    self.note("empty marker")
                elif mention:
                    entities[kind, mention] = None
        if set(self.choices) - self.headed:
            self.note("missing line")
        order = {choice: place for place, choice in enumerate(self.choices)}
        return [
            {"entity": mention, "type": kind} for kind, mention in sorted(entities, key=lambda found: order[found[0]])
        ]

    def stops_short(self, lines: Sequence[Line]) -> bool:
        last = lines[-1].text
        heads = words({f"{choice}实体：": choice for choice in self.choices})
        return super().stops_short(lines) or heads.begins_with(last) or last.endswith(("，", "、", "(", "（"))


class Triples(HeadedReader[TripleLines]):
    """Entity pairs under their relations, and triples that name their own."""

    record_roles = ("subject", "predicate", "object")
    _endings = ("关系的头尾实体对如下", "关系的头尾实体对", "关系的实体对如下", "关系的实体对", "关系如下", "关系")
    #: Heads of either dialect, whose relation may be one that was not asked for.
    _dialect = re.compile(
        r"(?:具有(?P<released>[^:\n]{1,40}?)关系的头尾实体对如下|句子中(?P<paper>[^:\n]{1,40}?)关系的实体对如下):"
    )
    _pair_end = re.compile(r"[。；\n]|;(?=\s|$)")
    _tuple = re.compile(r"(?<=[)）])[\s,，、;；。]{0,4}(?=[(（])")
    _arrow = re.compile(r"→|->|——| [-–—|] ")

    def __init__(self, answer_format: TripleLines, choices: Sequence[str]) -> None:
        super().__init__(
            answer_format, choices, {choice + end: choice for end in ("", *self._endings) for choice in choices}
        )
        self.triples: dict[tuple[str, str, str], None] = {}
        self.relation = ""
        self.headed: set[str] = set()
        self.unfinished = False

    @staticmethod
    def head_pattern(names: str) -> re.Pattern[str]:
        return re.compile(rf"(?:^|(?<=[\s,.:\[\"'|中])|(?<=具有))(?P<name>{names})[\]\"']{{0,2}}\s{{0,3}}:")

    def line(self, line: Line) -> bool:
        flat = folded(line.text)
        match = self._dialect.search(flat)
        if match is None or self.heads.search(flat):
            return super().line(line)
        group = match.lastgroup or ""
        self.problem("unknown relation", line.number)
        self.head(line.text[match.start(group) : match.end(group)].strip(), line.text[match.end() :], line)
        return True

    def is_whole(self, roles: Mapping[str, Any]) -> bool:
        return super().is_whole(roles) or (bool(self.relation) and {"subject", "object"} <= roles.keys())

    def head(self, name: str, value: str, line: Line) -> None:
        self.relation, self.understood, self.unfinished = name, True, False
        self.headed.add(name)
        if "句子中" in line.text and "关系的实体对如下" in line.text:
            self.note("paper dialect")
        if value and not self._pairs(value):
            self.problem("unreadable line", line.number)

    def item(self, line: Line) -> bool:
        return self._pairs(line.text)

    def _pairs(self, text: str) -> bool:
        """Read entity pairs of the current relation, or triples; whether there were any."""
        before, *pieces = text.split("头实体")
        if self.relation and pieces:
            for piece in pieces:
                head, both, tail = piece.partition("尾实体")
                if both:
                    self._add(self.relation, self._named(head), self._named(self._pair_end.split(tail, maxsplit=1)[0]))
            # The released dialect ends every pair; the paper's puts a mark between pairs only.
            unended = len(pieces) > 1 and pieces[-1].startswith("为") and not text.endswith(SENTENCE_END)
            self.unfinished = not both or not bare(tail) or unended
            return True
        if self.relation and is_none(before):
            self.note("empty marker")
            return True
        parts = [self._parts(piece) for item in self._tuple.split(text) for piece in self._pair_end.split(item)]
        return sum(self.row(part) for part in parts if part) > 0

    def _named(self, text: str) -> str:
        """An entity without the 为 or colon that joined it to its name."""
        text = text.strip()
        if text[:1] in (":", "："):
            self.note("paper dialect")
        text = text[1:] if text[:1] in ("为", "是", ":", "：") else text
        return unparenthesised(clean(text))

    def _parts(self, text: str) -> list[str]:
        text = clean(text)
        inner = unparenthesised(text.strip("<>《》[]【】"))
        return [clean(part) for part in (re.split("[，,]", inner) if inner != text else self._arrow.split(text))]

    def _add(self, relation: str, head: str, tail: str) -> None:
        if head and tail and not is_none(head) and not is_none(tail):
            self.triples[relation, head, tail] = None
            self.headed.add(relation)
            self.understood = True

    def row(self, parts: list[Any]) -> bool:
        if not all(isinstance(part, str) and part for part in parts) or len(parts) not in (2, 3):
            return False
        # The relation most often stands between the two entities, then after or before them.
        places = [place for place in (1, 2, 0) if len(parts) == 3 and self.names.exact(parts[place])]
        if places:
            relation = self.names.exact(parts[places[0]]) or ""
            head, tail = (part for place, part in enumerate(parts) if place != places[0])
        elif len(parts) == 2 and self.relation:
            relation, (head, tail) = self.relation, parts
        else:
            return False
        self.note("layout")
        self._add(relation, head, tail)
        return True

    def record(self, record: Mapping[str, Any]) -> bool:
        roles = roles_of(record)
        texts = {role: clean(" ".join(leaves(roles.get(role)))) for role in self.record_roles}
        predicate = self.names.exact(texts["predicate"]) or ("" if self.choices else texts["predicate"])
        if not {"subject", "object"} <= roles.keys():
            return False
        if "predicate" not in roles:
            predicate = self.relation
        elif not predicate:
            self.problem("unknown relation", 1)
        if predicate:
            self._add(predicate, texts["subject"], texts["object"])
        return bool(predicate) or "predicate" in roles

    def member(self, name: str, value: Any) -> None:
        self.relation, self.understood = name, True
        self.headed.add(name)
        for item in listed(value):
            if isinstance(item, str):
                self._pairs(item)
            elif not (isinstance(item, dict) and self.record(item)) and not (isinstance(item, list) and self.row(item)):
                self.problem("unreadable line", 1)

    def answer(self) -> Answer:
        if set(self.choices) - self.headed:
            self.note("missing line")
        order = {choice: place for place, choice in enumerate(self.choices)}
        found = sorted(self.triples, key=lambda triple: order.get(triple[0], len(order)))
        return [{"predicate": relation, "subject": head, "object": tail} for relation, head, tail in found]

    def stops_short(self, lines: Sequence[Line]) -> bool:
        last = lines[-1].text
        heads = words({f"具有{choice}{self._endings[0]}：": choice for choice in self.choices})
        return self.unfinished or heads.begins_with(last) or last.endswith(("，", "、", "(", "（"))


class Events(HeadedReader[EventLines]):
    """Events whose fields stand on one line or on several."""

    _other_names: ClassVar[Mapping[str, str]] = {
        "主体": "主体词",
        "状态": "发生状态",
        "描述": "描述词",
        "部位": "解剖部位",
        "core_name": "主体词",
        "tendency": "发生状态",
        "character": "描述词",
        "anatomy_list": "解剖部位",
    }
    _caption = re.compile(r"(?:临床发现)?事件\s?[\d一二三四五六七八九十]{0,3}[：:]?$")

    def __init__(self, answer_format: EventLines, choices: Sequence[str]) -> None:
        super().__init__(answer_format, choices, {key: key for key in answer_format.fields} | dict(self._other_names))
        self.events: list[dict[str, Any]] = []
        self.places: set[int] = set()

    def head(self, name: str, value: str, line: Line) -> None:
        if self.events and name not in self.events[-1] and line.number not in self.places:
            self.note("layout")
        self.places.add(line.number)
        # What follows the last semicolon can be the beginning of the next field's name.
        whole, _, rest = value.replace(";", "；").rpartition("；")
        self.member(name, value[: len(whole)] if self.names.begins_with(rest) else value)

    def item(self, line: Line) -> bool:
        return bool(self._caption.match(line.text))

    def record(self, record: Mapping[str, Any]) -> bool:
        event = {name: value for key, value in record.items() if (name := self.names.exact(key))}
        if "主体词" not in event:
            return False
        self.events.append(event)
        self.understood = True
        return True

    def member(self, name: str, value: Any) -> None:
        if not self.events or name in self.events[-1]:
            self.events.append({})
        self.events[-1][name] = value
        self.understood = True

    def answer(self) -> Answer:
        lists = [key for key, is_list in self.format.fields.items() if is_list]
        style = ListStyle.of(text for event in self.events for key in lists if isinstance(text := event.get(key), str))
        if style.repair:
            self.note(style.repair)
        if any(set(self.format.fields) - event.keys() for event in self.events):
            self.note("missing line")
        answer = [
            {
                key: self._values(event.get(key), style) if is_list else self._word(key, event.get(key))
                for key, is_list in self.format.fields.items()
            }
            for event in self.events
        ]
        return [event for event in answer if any(event.values())]

    def _values(self, value: Any, style: ListStyle | None) -> list[str]:
        found = style.items(value) if style and isinstance(value, str) else list(map(clean, leaves(value)))
        if any(map(is_none, found)):
            self.note("empty marker")
        return [item for item in found if item and not is_none(item)]

    def _word(self, key: str, value: Any) -> str:
        text = "".join(self._values(value, None)[:1])
        return self._status(text) if key == "发生状态" else text

    def _status(self, text: str) -> str:
        known = words({status: status for status in self.format.statuses if status})
        found = {hit.label for hit in known.hits(text) if not hit.denied}
        if len(found) == 1:
            return found.pop()
        if text:
            self.problem("unknown status", 1)
        return text

    def stops_short(self, lines: Sequence[Line]) -> bool:
        last = re.split("[；;]", lines[-1].text)[-1]
        if super().stops_short(lines) or self.names.begins_with(last):
            return True
        *others, event = self.events or [{}]
        fields = list(self.format.fields)
        whole = all(len(other) == len(fields) for other in others)
        return (
            whole
            and bool(others or self.lead_seen)
            and 0 < len(event) < len(fields)
            and list(event) == fields[: len(event)]
        )


class ReportSections(HeadedReader[Report]):
    """Sections headed by their names."""

    nothing: ClassVar[type[Answer]] = dict
    _other_names: ClassVar[Mapping[str, str]] = {
        "既往病史": "既往史",
        "初步诊断": "诊断",
        "诊断结果": "诊断",
        "诊断意见": "诊断",
        "治疗建议": "建议",
        "处理建议": "建议",
        "诊疗建议": "建议",
        "医生建议": "建议",
    }
    _after = re.compile(r"[(（【]?(?:注[：:]|备注|说明[：:]|温馨提示|以上|希望|免责|本报告|此报告)|[^\n]{0,40}仅供参考")

    def __init__(self, answer_format: Report, choices: Sequence[str]) -> None:
        names = {section: section for section in answer_format.sections} | dict(self._other_names)
        super().__init__(answer_format, choices, names)
        self.sections: dict[str, list[str]] = {}
        self.open = False
        #: A line with a head that is none, as garbled ones are.
        self._headlike = re.compile(rf"[^,.:]{{1,6}}:|{self.names.pattern}")
        self.last = ""

    def lines(self, lines: Sequence[Line]) -> None:
        # A section's text can hold another's name; only a report on one line has all its heads within that line.
        at_start = re.compile(rf"(?:{self.names.pattern})[\]\"'）)]{{0,2}}\s{{0,3}}(?::|$)")
        if sum(bool(at_start.match(folded(line.text).lstrip("[ "))) for line in lines) > 1:
            self.heads = re.compile(rf"^\[?(?P<name>{self.names.pattern})[\]\"'）)]{{0,2}}\s{{0,3}}:")
        super().lines(lines)

    def head(self, name: str, value: str, line: Line) -> None:
        if name in self.sections:
            self.note("layout")
        self.sections[name] = [value] if value else []
        self.open = not value
        self.last, self.understood = name, True

    def item(self, line: Line) -> bool:
        bracketed = re.match(r"【([^】]{1,8})】", line.text)
        if bracketed and (name := self.names.exact(bracketed.group(1))):
            self.head(name, line.text[bracketed.end() :].lstrip(" ：:"), line)
            self.note("layout")
            return True
        if not self.last or self._after.match(line.text) or self.names.begins_with(line.text):
            return False
        if self._headlike.match(folded(line.text)) and not line.mark and not self.open:
            return False
        self.note("layout")
        self.sections[self.last].append((line.mark if len(line.mark) > 1 else "") + line.text)
        return True

    def member(self, name: str, value: Any) -> None:
        self.sections[name] = [text.strip() for text in leaves(value)]
        self.understood = True

    def answer(self) -> Answer:
        if set(self.format.sections) - self.sections.keys():
            self.note("missing line")
        return {name: " ".join(self.sections[name]) for name in self.format.sections if name in self.sections}

    def stops_short(self, lines: Sequence[Line]) -> bool:
        if super().stops_short(lines) or self.names.begins_with(lines[-1].text):
            return True
        found, asked = list(self.sections), list(self.format.sections)
        text = " ".join(self.sections.get(self.last, []))
        return 0 < len(found) < len(asked) and found == asked[: len(found)] and not text.endswith(SENTENCE_END)
