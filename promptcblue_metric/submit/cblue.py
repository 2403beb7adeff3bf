"""CBLUE's own submission, made of answers to prompts, and the check of its format.

It holds a file a task, in the form of the raw corpora: the records of the raw test file, under its name, with the
fields and labels that CBLUE's own checkers want (github.com/CBLUEbenchmark/CBLUE, format_checker). `CBLUE_TASKS` is the
table of them: how records stand in a file, what an answer looks like, and what makes it of the answers to prompts; a
file is checked by the same table. The id of a prompt leads to its raw record (`raw_labels.sample_id_of`); prompts with
other ids are traced by the texts in them, where the texts of a task are enough for that.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ..answers import Answer, CausalLines, Report, TreeLines
from ..data.predictions import match
from ..data.raw_labels import RAW_LABELS, RECORD_IDS, record_of
from ..data.samples import LISTED, Sample, iter_samples, open_binary
from ..data.writing import as_json, replacing
from ..errors import PromptCBLUEError
from ..evaluation import Parser, parse_answer
from ..tasks import NONE_OF_THESE, REGISTRY

#: What to do with an output whose label cannot be read.
Unreadable = Literal["stop", "first-label"]
#: A JSON object of a file.
Object: TypeAlias = dict[str, Any]

_BOM, _NOT_ANNOTATED, _RELEVANT, _DOCUMENTS, _WHOLE = "\ufeff", "不标注", "相关", 10, "global"
_NO_TYPE, _NO_RELATION = "type that CBLUE does not have", "relation that CBLUE does not have"


def records_said(n: int) -> str:
    """How many records, in words."""
    return f"{n} record{'s' * (n != 1)}"


def _labels(task: str) -> frozenset[str]:
    return frozenset(RAW_LABELS[task].raw.values())


# --- What CBLUE's checkers want of an answer ---

#: A type; a set of strings or of numbers, of which it is one; a list or, under ``...``, an object of such values; an
#: object with these fields; or what says what is wrong.
Shape: TypeAlias = "type | frozenset[Any] | list[Shape] | dict[Any, Shape] | Callable[[Any], str | None]"
_TYPES: Mapping[type, str] = {str: "string", int: "number", float: "number", list: "list", dict: "object"}


def _problem(value: Any, shape: Shape) -> str | None:
    """What is wrong with the value of a raw field."""
    if isinstance(shape, frozenset):
        of, names = type(min(shape)), [json.dumps(name, ensure_ascii=False) for name in sorted(shape)]
        shown = ", ".join([*names[:12], *['"…"'] * (len(names) > 12)]) if of is str else " or ".join(names)
        known = isinstance(value, of) and not isinstance(value, bool) and value in shape
        return None if known else _expected(f"one of the {_TYPES[of]}s {shown}", value)
    if not isinstance(shape, (type, list, dict)):
        return shape(value)
    wanted, kind = shape if isinstance(shape, type) else type(shape), type(value)
    if kind is not wanted:
        return _expected(f"{'an' if wanted is dict else 'a'} {_TYPES[wanted]}", value)
    parts: Iterable[tuple[str, Any, Shape]] = ()
    if isinstance(shape, list):
        parts = ((f"item {place}", item, shape[0]) for place, item in enumerate(value, 1))
    elif isinstance(shape, dict) and ... in shape:
        parts = ((f"'{name}'", item, shape[...]) for name, item in value.items())
    elif isinstance(shape, dict):
        if missing := [name for name in shape if name not in value]:
            return f"field '{missing[0]}' is missing"
        parts = ((f"field '{name}'", value[name], inner) for name, inner in shape.items())
    return next((f"{name}: {problem}" for name, item, inner in parts if (problem := _problem(item, inner))), None)


def _expected(wanted: str, value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return f"expected {wanted}, found {f'the {kind} ' if (kind := _TYPES.get(type(value))) else ''}{shown:.60}"


def _ten_documents(value: str) -> str | None:
    found = len(value.split(","))
    return None if found == _DOCUMENTS else f"expected {_DOCUMENTS} document ids joined by ',', found {found}"


_TAGS = frozenset({"O", *(f"{mark}-{kind}" for mark in "BI" for kind in _labels("IMCS-V2-NER"))})


def _tags(value: Any) -> str | None:
    unknown = [] if (problem := _problem(value, str)) else [tag for tag in value.split() if tag not in _TAGS]
    return f"unknown tag {unknown[0]!r}" if unknown else problem


_MENTION: dict[Any, Shape] = {"mention": str, "start_idx": int, "end_idx": int}
#: The tail of a relation of CMedCausal, and what it is under 条件关系.
_EFFECT: Shape = {"type": frozenset({"mention"}), **_MENTION}
_CAUSE: Shape = {"type": frozenset({"relation"}), "head": _MENTION, "relation": frozenset({1, 3}), "tail": _MENTION}


def _relation(value: Any) -> str | None:
    numbers, nested = frozenset(map(int, _labels("CMedCausal"))), int(RAW_LABELS["CMedCausal"].raw[CausalLines.nested])
    problem = _problem(value, {"head": _MENTION, "relation": numbers, "tail": dict})
    return problem or _problem(value, {"tail": _CAUSE if value["relation"] == nested else _EFFECT})


def _decision_tree(value: Any) -> str | None:
    roles, relations, known = frozenset(TreeLines.roles), frozenset(TreeLines.relations), _labels("Text2DT")
    if problem := _problem(value, [{"role": roles, "triples": [[str]], "logical_rel": relations}]):
        return problem
    if unknown := next((t for node in value for t in node["triples"] if len(t) != 3 or t[1] not in known), None):
        return _expected("triples of the relations " + ", ".join(sorted(known)), unknown)
    # In preorder a condition opens two places, and each node fills one.
    left = itertools.accumulate((1 if node["role"] == "C" else -1 for node in value), initial=1)
    return None if 0 in left else "its nodes in preorder are no binary tree"


# --- How records stand in a file ---


class RawRecord(NamedTuple):
    """What a file has one answer for (CHIP-MDCFNPC: one for each finding of a dialogue).

    Attributes:
        name: by which the id of a prompt names it.
        texts: which stand in a prompt made of it.
        answers: by the names that CBLUE's checker gives them.
        put: takes the raw answer into what is to be written.
        turns: of a dialogue.
    """

    name: str
    texts: tuple[str, ...]
    answers: Mapping[str, object]
    put: Callable[[Any], None]
    turns: Sequence[Object] = ()


@dataclass
class RawFile:
    """What was read of a file.

    Attributes:
        form: of what it holds.
        records: those it has answers for.
        written: what is written in its place once every record has its answer.
        marked: whether it starts with a byte order mark.
    """

    form: Literal["a JSON list", "JSON Lines", "a JSON object", "a table"]
    records: list[RawRecord] = field(default_factory=list)
    written: Any = None
    marked: bool = False

    def text(self) -> str:
        """What is written."""
        if self.form == "JSON Lines":
            return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self.written)
        if self.form == "a table":
            return "".join(f"{name}\t{answer}\n" for name, answer in self.written.items())
        return as_json(self.written)


def _objects(make: Callable[[str, Object], RawRecord], id_field: str | None, text: str) -> RawFile:
    """The objects of a JSON list, of JSON Lines, or of an object of them by id; each is named by its id or its place.

    What stands by id is written as a list, which CBLUE takes: the id then becomes a field.
    """
    start = text.lstrip()
    keyed = json.loads(text) if start.startswith("{") and "\n{" not in start else {}
    file = RawFile("a JSON list")
    if keyed and all(isinstance(record, (dict, list)) for record in keyed.values()):
        file.written = [{id_field: name, **record} if id_field else dict(record) for name, record in keyed.items()]
    elif start.startswith("["):
        keyed, file.written = {}, json.loads(text)
    else:
        keyed, file.form = {}, "JSON Lines"
        file.written = [json.loads(line) for line in io.StringIO(text) if line.strip()]
    if not all(isinstance(record, dict) for record in file.written):
        raise ValueError("expected a list of objects, or an object a line")
    names = (record[id_field] for record in file.written) if id_field else keyed or itertools.count()
    file.records = [make(str(name), record) for name, record in zip(names, file.written, strict=False)]
    return file


def _records(answer: str, texts: Sequence[str], id_field: str | None, text: str) -> RawFile:
    """A list of objects with an answer each; ``id_field`` holds their id, if they have one."""

    def record(name: str, found: Object) -> RawRecord:
        values = [found.get(field) or "" for field in texts]
        said = tuple(str(value[-1] if isinstance(value, list) else value) for value in values)
        answers = {name if id_field else str(found[texts[0]]): found.get(answer)}
        return RawRecord(name, said, answers, partial(found.__setitem__, answer))

    return _objects(record, id_field, text)


def _findings(text: str) -> RawFile:
    """Dialogues of CHIP-MDCFNPC; the answer is a status for each finding in them, in their order."""

    def put(turns: Sequence[Object], statuses: Iterable[str]) -> None:
        left = iter(statuses)
        for turn in turns:
            turn["ner"] = [{**finding, "attr": next(left)} for finding in turn.get("ner") or ()]

    def record(name: str, dialogue: Object) -> RawRecord:
        turns = dialogue["dialog_info"]
        answers = {
            "_".join(map(str, (name, turn["sentence_id"], *finding["range"]))): finding.get("attr")
            for turn in turns
            for finding in turn.get("ner") or ()
        }
        said = tuple(str(turn.get("text", "")) for turn in turns[:1])
        return RawRecord(name, said, answers, partial(put, turns), turns)

    return _objects(record, RECORD_IDS["CHIP-MDCFNPC"], text)


def _dialogues(text: str) -> Iterator[tuple[str, Any, Any]]:
    """Each dialogue's id, what stands under it, and its turns, which may stand there without an object around them."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("expected an object of dialogues by their ids")
    for name, value in found.items():
        yield name, value, value.get("dialogue", value) if isinstance(value, dict) else value


def _surest(statuses: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The status of each symptom: of several in a dialogue, IMCS-V2's own code takes the last of these."""
    return dict(sorted(statuses, key=lambda status: "201".index(status[1])))


def _sentences(text: str) -> RawFile:
    """IMCS-V2: an answer for each sentence, by dialogue; where they are objects, ``global`` sums up a dialogue's."""
    file = RawFile("a JSON object", written={})

    def put(dialogue: str, sentence: str, answer: Any) -> None:
        answers = file.written.setdefault(dialogue, {})
        answers[sentence] = answer
        if isinstance(answer, dict):
            answers[_WHOLE] = _surest([*answers.pop(_WHOLE, {}).items(), *answer.items()])

    for dialogue, _, turns in _dialogues(text):
        if isinstance(turns, dict):
            found = [(name, "", answer) for name, answer in turns.items()]
        else:
            found = [(turn["sentence_id"], turn["sentence"], None) for turn in turns]
        whole = {f"{dialogue}_{name}": answer for name, _, answer in found if name == _WHOLE}
        for sentence, said, answer in found:
            if sentence != _WHOLE:
                name, taken = f"{dialogue}_{sentence}", partial(put, dialogue, str(sentence))
                file.records.append(RawRecord(name, (said,), {name: answer, **whole}, taken))
    return file


def _reports(text: str) -> RawFile:
    file = RawFile("a JSON object", written={})
    for name, value, turns in _dialogues(text):
        said = tuple(turn["sentence"] for turn in turns[-1:]) if isinstance(turns, list) else ()
        file.records.append(RawRecord(name, said, {name: value}, partial(file.written.__setitem__, name)))
    return file


def _queries(text: str) -> RawFile:
    """KUAKE-IR: a line for each query, with its id and, after a tab, its text or what was found for it."""
    file = RawFile("a table", written={})
    for line in io.StringIO(text):
        name, _, value = line.strip().partition("\t")
        file.records.append(RawRecord(name, (value,), {name: value}, partial(file.written.__setitem__, name)))
    return file


# --- From answers to prompts to a raw answer ---


class Answered(NamedTuple):
    """A prompt made of a raw record, which part of it (`raw_labels.sample_id_of`), and the answer."""

    sample: Sample
    part: str | None
    answer: Answer


@dataclass
class Answers:
    """The answers to the prompts that are made of a raw record.

    Attributes:
        task: the config name.
        unreadable: what to do where they are nothing that CBLUE takes.
        left_out: what of them is not in the raw answer, counted by the reason.
    """

    task: str
    record: RawRecord
    unreadable: Unreadable = "stop"
    prompts: list[Answered] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def raw(self) -> Mapping[str, str]:
        """The raw labels by ours."""
        return RAW_LABELS[self.task].raw

    @property
    def offered(self) -> set[str]:
        """The choices of all prompts."""
        return {choice for prompt in self.prompts for choice in prompt.sample["answer_choices"] or ()}

    def one(self) -> Answer:
        """The answer that all prompts agree on; ``非上述类型`` says nothing where another offered other labels."""
        answers = [prompt.answer for prompt in self.prompts]
        chosen = next((answer for answer in answers if answer != NONE_OF_THESE), NONE_OF_THESE)
        for prompt in self.prompts:
            if prompt.answer not in (chosen, NONE_OF_THESE):
                ids = [self.prompts[answers.index(chosen)].sample["sample_id"], prompt.sample["sample_id"]]
                raise ValueError(f"samples '{ids[0]}' and '{ids[1]}' answer one record differently")
        return chosen

    def all(self) -> list[Answer]:
        """The items of all answers, each once, in their order."""
        found: list[Answer] = []
        for prompt in self.prompts:
            found += (item for item in prompt.answer if item not in found)
        return found

    def known(self, field: str, what: str) -> Iterator[tuple[Answer, str]]:
        """The items whose type, relation or status has a raw label, and that label; ``what`` counts the others."""
        for item in self.all():
            label = self.raw.get(item[field])
            self.left_out[what] += label is None
            if label is not None:
                yield item, label

    def in_place_of(self, what: str, first: object) -> Any:
        """What may be written for an output that is nothing that CBLUE takes: ``first``, if it is to be."""
        if self.unreadable == "stop":
            name = self.prompts[0].sample["sample_id"]
            raise ValueError(f"sample '{name}': {what}, or pass --unreadable first-label")
        self.left_out = Counter(["output without a raw label, written as the first label"])
        return first


def _label(of: Answers) -> Any:
    answer, others = of.one(), set(of.raw) - {NONE_OF_THESE}
    if answer in of.raw and (answer != NONE_OF_THESE or others <= of.offered):
        return of.raw[answer]
    what = f"'{NONE_OF_THESE}' has no raw label here; offer every label"
    if answer != NONE_OF_THESE:
        what = f"{answer!r:.40} is no label; read it with --parser lenient"
    return of.in_place_of(what, next(iter(of.raw.values())))


def _places(mention: str, text: str) -> list[int]:
    return [found.start() for found in re.finditer(f"(?={re.escape(mention)})", text)] if mention else []


def _entities(of: Answers) -> list[Object]:
    """Every place of each mention: an answer does not say which one is meant. ``end_idx`` is inclusive."""
    found: dict[tuple[int, int, str], Object] = {}
    for item, kind in of.known("type", _NO_TYPE):
        mention, starts = item["entity"], _places(item["entity"], of.record.texts[0])
        of.left_out["mention that is not in the text"] += not starts
        for start in starts:
            end = start + len(mention) - 1
            found[start, end, kind] = {"start_idx": start, "end_idx": end, "type": kind, "entity": mention}
    return [found[key] for key in sorted(found)]


def _tagged(of: Answers) -> str:
    """A tag for each character, longer mentions first: tags do not nest."""
    text = of.record.texts[0]
    if not text:
        raise ValueError(f"record '{of.record.name}': the raw files do not say the sentence; add IMCS-V2_test.json")
    tags = ["O"] * len(text)
    mentions = [(item["entity"], kind) for item, kind in of.known("type", _NO_TYPE)]
    for mention, kind in sorted(mentions, key=lambda item: -len(item[0])):
        before = tags.copy()
        for start in _places(mention, text):
            if set(tags[start : start + len(mention)]) == {"O"}:
                tags[start : start + len(mention)] = [f"B-{kind}", *[f"I-{kind}"] * (len(mention) - 1)]
        of.left_out["mention that is not in the text, or within another"] += tags == before
    return " ".join(tags)


def _triples(of: Answers) -> list[Object]:
    return [{**item, "object": {"@value": item["object"]}} for item, _ in of.known("predicate", _NO_RELATION)]


def _causal(of: Answers) -> list[Object]:
    """The first place of each mention; ``end_idx`` is not inclusive. Under 条件关系 the tail is a triple of its own."""

    def mention(name: str) -> Object:
        start = of.record.texts[0].find(name)
        return {"mention": name, "start_idx": start, "end_idx": start + len(name)} if name and start >= 0 else {}

    found = list[Object]()
    for item, number in of.known("predicate", _NO_RELATION):
        tail, head = item["object"], mention(item["subject"].removesuffix(CausalLines.marker))
        parts = [tail["subject"], tail["object"]] if isinstance(tail, dict) else [tail]
        first, *second = ends = list(map(mention, parts))
        raw_tail = {"type": "mention", **first}
        if second:
            inner = int(of.raw[CausalLines.inner])
            raw_tail = {"type": "relation", "head": first, "relation": inner, "tail": second[0]}
        if all((head, *ends)):
            found.append({"head": head, "relation": int(number), "tail": raw_tail})
        else:
            of.left_out["relation with a mention that is not in the text"] += 1
    return found


def _tree(of: Answers) -> Any:
    nodes = list[Object]()
    for node in of.one():
        kept = [triple for triple in node["triples"] if triple[1] in of.raw]
        of.left_out["triple of a relation that CBLUE does not have"] += len(node["triples"]) - len(kept)
        nodes.append({"role": node["role"], "triples": kept, "logical_rel": node["logical_rel"]})
    what = _decision_tree(nodes)
    return of.in_place_of(f"no tree: {what}", [{"role": "D", "triples": [], "logical_rel": "null"}]) if what else nodes


_EVENT_FIELDS = {"core_name": "主体词", "tendency": "发生状态", "character": "描述词", "anatomy_list": "解剖部位"}


def _events(of: Answers) -> list[Object]:
    empty = [item for item in of.all() if not any(item.values())]
    of.left_out["event without any content"] += len(empty)
    items = of.known("发生状态", "event of an unknown status")
    return [{raw: item[ours] for raw, ours in _EVENT_FIELDS.items()} for item, _ in items if item not in empty]


def _symptoms(of: Answers) -> Object:
    return _surest((item["entity"], of.raw[item["attr"]]) for item in of.all() if item["entity"])


def _statuses(of: Answers) -> list[str]:
    """The status of each finding by the first prompt that names it and that reaches its sentence.

    A prompt without a part, or with one that is no sentence's, reaches to the end of the dialogue.
    """
    turns, statuses = of.record.turns, list[str]()
    order = {str(turn["sentence_id"]): place for place, turn in enumerate(turns)}
    said = [
        (order.get(str(prompt.part), len(turns)), {item["entity"]: of.raw[item["attr"]] for item in prompt.answer})
        for prompt in of.prompts
    ]
    said.sort(key=itemgetter(0))
    for place, turn in enumerate(turns):
        for finding in turn.get("ner") or ():
            names = {finding.get("mention"), finding.get("name")}
            given = [status for end, by in said if end >= place for name, status in by.items() if name in names]
            statuses += given[:1] or [_NOT_ANNOTATED]
            of.left_out[f"finding that no answer names, written as {_NOT_ANNOTATED}"] += not given
    return statuses


def _report(of: Answers) -> Object:
    return {section: of.one().get(section, "") for section in Report.sections}


def _terms(of: Answers) -> str:
    return "##".join(dict.fromkeys(item["entity"] for item in of.all()))


def _documents(of: Answers) -> str:
    """Ten documents: those found relevant, and then the others, each in the order of the prompts."""
    found = [prompt.part for prompt in of.prompts if prompt.answer == _RELEVANT]
    ranked = list(dict.fromkeys([*found, *(prompt.part for prompt in of.prompts)]))[:_DOCUMENTS]
    if len(ranked) < _DOCUMENTS or None in ranked:
        raise ValueError(f"query '{of.record.name}': expected prompts for {_DOCUMENTS} documents, found {len(ranked)}")
    unread = sum(prompt.answer not in REGISTRY[of.task].labels for prompt in of.prompts)
    of.left_out["output without a label, taken as not relevant"] += unread
    return ",".join(map(str, ranked))


# --- The tasks ---


@dataclass(frozen=True)
class CBLUETask:
    """A task as CBLUE takes it.

    Attributes:
        name: our config name.
        read: how its records stand in its files; raises ValueError, KeyError, TypeError or AttributeError where a text
            has another layout.
        shape: of a raw answer.
        mapper: how the answers to the prompts of a record become its raw answer.
        file: pattern of the names of its test file, which its submission has too; it ends in ``_test.json`` by default.
        beside: pattern of the file with the texts of the records, where its test file does not hold them.
        fields: those with the texts, where they tell a record from all others: prompts are then traced without an id.
        types: what the prompts of a task can ask for, where each asks for some of it.
    """

    name: str
    read: Callable[[str], RawFile]
    shape: Shape
    mapper: Callable[[Answers], Any]
    file: str = ""
    beside: str = ""
    fields: tuple[str, ...] = ()
    types: Collection[str] = ()

    @property
    def pattern(self) -> str:
        """Of the names of the test file."""
        return self.file or rf"{self.name}_test\.jsonl?"


def _listed(
    name: str, answer: str, fields: str, shape: Shape, mapper: Callable[[Answers], Any], file: str = ""
) -> CBLUETask:
    """A task whose file is a list of records that their texts tell apart; with a name of its own it asks for types."""
    texts, types = tuple(fields.split()), RAW_LABELS[name].raw if file else ()
    read = partial(_records, answer, texts, RECORD_IDS.get(name))
    return CBLUETask(name, read, shape, mapper, file, fields=texts, types=types)


def _classified(name: str, fields: str) -> CBLUETask:
    return _listed(name, "label", fields, _labels(name), _label)


_ENTITY: Shape = {"start_idx": int, "end_idx": int, "type": _labels("CMeEE-V2")}
_TRIPLE: Shape = {"subject": str, "predicate": _labels("CMeIE"), "object": {"@value": str}}
_EVENT: Shape = {"core_name": str, "tendency": _labels("CHIP-CDEE"), "character": list, "anatomy_list": list}
_QUERY_FILES, _IMCS = (r"KUAKE-IR_test\.tsv", r"KUAKE-IR_test[._]query\.(txt|tsv)"), r"IMCS-V2_test\.json"
_REPLIES = partial(_records, "output", ("history",), RECORD_IDS["MedDG"])

#: Every task that CBLUE takes and that PromptCBLUE is made of, by its name.
CBLUE_TASKS: Mapping[str, CBLUETask] = {
    task.name: task
    for task in (
        _listed("CMeEE-V2", "entities", "text", [_ENTITY], _entities, r"CMeEE(-V2)?_test\.jsonl?"),
        _listed("CMeIE", "spo_list", "text", [_TRIPLE], _triples, r"CMeIE(-V2)?_test\.jsonl?"),
        _listed("CHIP-CDEE", "event", "text", [_EVENT], _events),
        _listed("CHIP-CDN", "normalized_result", "text", str, _terms),
        _classified("CHIP-CTC", "text"),
        _classified("CHIP-STS", "text1 text2"),
        _classified("KUAKE-QIC", "query"),
        _classified("KUAKE-QTR", "query title"),
        _classified("KUAKE-QQR", "query1 query2"),
        CBLUETask("KUAKE-IR", _queries, _ten_documents, _documents, *_QUERY_FILES),
        CBLUETask("IMCS-V2-NER", _sentences, _tags, _tagged, beside=_IMCS, types=RAW_LABELS["IMCS-V2-NER"].raw),
        CBLUETask("IMCS-V2-DAC", _sentences, _labels("IMCS-V2-DAC"), _label, beside=_IMCS),
        CBLUETask("IMCS-V2-SR", _sentences, {...: _labels("IMCS-V2-SR")}, _symptoms, beside=_IMCS),
        CBLUETask("IMCS-V2-MRG", _reports, dict.fromkeys(Report.sections, str), _report, beside=_IMCS),
        CBLUETask("CHIP-MDCFNPC", _findings, _labels("CHIP-MDCFNPC"), _statuses),
        _listed("CMedCausal", "relation_of_mention", "text", [_relation], _causal),
        _listed("Text2DT", "tree", "text", _decision_tree, _tree),
        CBLUETask("MedDG", _REPLIES, str, Answers.one),
    )
}


# --- Reading and checking ---


def _read(task: CBLUETask, path: Path) -> RawFile:
    with open_binary(path) as stream:
        try:
            text = stream.read().decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise PromptCBLUEError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if text.startswith("version https://git-lfs"):
        raise PromptCBLUEError(f"{path}: stands for a file that is not here; `git lfs pull` fetches it")
    try:
        return replace(task.read(text.removeprefix(_BOM)), marked=text.startswith(_BOM))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise PromptCBLUEError(f"{path}: has not the layout of {task.name} in CBLUE: {reason}") from error


def _raw_file(pattern: str, raw: Path) -> Path | None:
    """The one file of a name that fits, the later version's before the first's, in its own folder before others."""
    found = sorted(path for path in raw.rglob("*") if re.fullmatch(pattern, path.name) and path.is_file())
    newest = [path for path in found if len(path.stem) == max(len(path.stem) for path in found)]
    at_home = [path for path in newest if path.name.startswith(path.parent.name)] or newest
    different = list({path.read_bytes(): path for path in reversed(at_home)}.values())
    if len(different) > 1:
        raise PromptCBLUEError(
            f"{raw}: several test files of one task ({', '.join(map(str, different))}); keep one, or name its folder"
        )
    return different[0] if different else None


def _source(task: CBLUETask, raw: Path) -> tuple[str, RawFile] | None:
    """The test file of a task, or what its records can be read from in its place, and the name of what is written."""
    path, beside = _raw_file(task.pattern, raw), task.beside and _raw_file(task.beside, raw)
    texts = _read(task, beside) if beside else None
    if not path:
        return (f"{task.name}_test.{'tsv' if texts.form == 'a table' else 'json'}", texts) if texts else None
    file, known = _read(task, path), {record.name: record.texts for record in (texts.records if texts else ())}
    # The last line of a table may be blank.
    records = [record._replace(texts=known.get(record.name, record.texts)) for record in file.records if record.name]
    return path.name, replace(file, records=records)


def check_file(path: Path, raw: Path) -> int:
    """Check a file of a submission against the rules of CBLUE's own checkers, and against its raw test file.

    Args:
        path: the file, named as the raw one.
        raw: a folder with the raw test file.

    Returns:
        how many records it has.

    Raises:
        PromptCBLUEError: lists what is wrong.
    """
    task = next((task for task in CBLUE_TASKS.values() if re.fullmatch(task.pattern, path.name)), None)
    if task is None:
        raise PromptCBLUEError(f"{path}: expected the name of one of CBLUE's test files, such as CMeEE-V2_test.json")
    source = _source(task, raw)
    if source is None:
        raise PromptCBLUEError(f"{raw}: holds no raw test file of {task.name} to compare {path} with")
    file, expected = _read(task, path), source[1]
    answers = {name: answer for record in file.records for name, answer in record.answers.items()}
    wrong = [(name, problem) for name, answer in answers.items() if (problem := _problem(answer, task.shape))]
    # Of a raw file, a turn may leave it out.
    lacking = [record for record in file.records if any(turn.get("ner") is None for turn in record.turns)]
    wrong += ((record.name, "field 'ner' of a turn is missing") for record in lacking)
    problems = [f"record '{name:.40}': {problem}" for name, problem in wrong]
    if file.marked:
        problems.append("starts with a byte order mark, at which CBLUE's checkers stop; write it without")
    if file.form != expected.form:
        problems.append(f"expected {expected.form}, as the raw file is, found {file.form}")
    names = [name for record in expected.records for name in record.answers]
    if missing := [name for name in names if name not in answers]:
        problems.append(f"{len(missing)} of {len(names)} answers are missing, first that of '{missing[0]:.40}'")
    if task.shape is _tags:
        problems += _wrong_lengths(answers, expected.records, raw)
    _stop_if_any(f"{path}: ", problems)
    return len(file.records)


def _wrong_lengths(answers: Mapping[str, object], records: Iterable[RawRecord], raw: Path) -> Iterator[str]:
    """Sentences that have not one tag a character."""
    for record in records:
        tags, (sentence,) = answers.get(record.name), record.texts
        if not sentence:
            raise PromptCBLUEError(f"{raw}: holds no IMCS-V2_test.json, whose sentences need one tag a character")
        if isinstance(tags, str) and len(tags.split()) != len(sentence):
            yield f"record '{record.name}': expected {len(sentence)} tags, one a character, found {len(tags.split())}"


def _stop_if_any(head: str, problems: Sequence[str]) -> None:
    if problems:
        more = [f"… and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise PromptCBLUEError("\n".join([f"{head}{len(problems)} problem(s)", *problems[:LISTED], *more]))


# --- Which record a prompt is made of ---


def _squeezed(text: str) -> str:
    """A text without white space and quotes, which the building of prompts may change."""
    return "".join(text.replace('"', "").split())


def _by_id(samples: Sequence[Sample], records: Sequence[RawRecord]) -> list[list[int]] | None:
    """The record of each prompt by its id, or None where ids lead elsewhere: other files have ids of this form, too."""
    places = {record.name: place for place, record in enumerate(records)}
    named = [record_of(sample["sample_id"]) for sample in samples]
    here = [places[name[0]] for name in named if name and name[0] in places]
    if len(here) < len(samples):
        return None
    stand = sum(
        all(_squeezed(text) in _squeezed(sample["input"]) for text in records[place].texts)
        for sample, place in zip(samples, here, strict=True)
    )
    # Not of all: a builder may mend a text.
    return [[place] for place in here] if stand * 2 > len(samples) else None


#: How many characters a text is looked up by.
_START = 4


def _by_text(samples: Sequence[Sample], records: Sequence[RawRecord]) -> list[list[int]]:
    """The records of each prompt by the texts in it, whatever stands around and between them.

    They are those of the one record whose texts are the longest, and of its equals; as many prompts as there are
    equals have one each.
    """
    by_texts: dict[tuple[str, ...], list[int]] = {}
    for place, record in enumerate(records):
        by_texts.setdefault(tuple(map(_squeezed, record.texts)), []).append(place)
    by_start: dict[str, list[tuple[str, ...]]] = {}
    for key in by_texts:
        by_start.setdefault(key[0][:_START], []).append(key)

    def find(prompt: str, choices: Sequence[str]) -> Sequence[int]:
        squeezed = _squeezed(prompt).replace(_squeezed("，".join(choices)) or "\0", "\0")
        starts = {squeezed[at : at + n] for at in range(len(squeezed)) for n in range(1, _START + 1)}
        found = {key for start in starts for key in by_start.get(start, ()) if _stand_in(squeezed, key)}
        lengths = {key: sum(map(len, key)) for key in found}
        longest = [key for key, length in lengths.items() if length == max(lengths.values())]
        return by_texts[longest[0]] if len(longest) == 1 else ()

    found = [tuple(find(sample["input"], sample["answer_choices"] or ())) for sample in samples]
    left = {places: iter(places) for places, n in Counter(found).items() if n == len(places)}
    return [[next(left[places])] if places in left else [*places] for places in found]


def _stand_in(prompt: str, texts: Sequence[str]) -> bool:
    """Whether the texts stand in the prompt one after another, in any order: templates differ in it."""
    orders = itertools.permutations(map(re.escape, texts))
    return any(re.search(".*?".join(order), prompt) for order in orders)


# --- Writing ---


@dataclass(frozen=True)
class Written:
    """What became of a task.

    Attributes:
        file: the name of the file that was written, or None.
        records: how many records it has.
        notes: what its reader should know, counted; why nothing was written.
        failed: whether it is the answers or the prompts that stood in the way.
    """

    file: str | None
    records: int = 0
    notes: Sequence[str] = ()
    failed: bool = False


#: A prompt and its output, or None where there is none.
Output: TypeAlias = tuple[Sample, "str | None"]


def write_cblue(
    predictions: str | Path,
    test: str,
    raw: Path,
    output: Path,
    parser: Parser = "strict",
    unreadable: Unreadable = "stop",
) -> dict[str, Written]:
    """Write CBLUE's submission files for the answers to prompts that were made of CBLUE's test files.

    Args:
        predictions: the outputs.
        test: the rows whose prompts they answer.
        raw: a folder with CBLUE's test files.
        output: the folder to write, whole or not at all.
        parser: how outputs are read.
        unreadable: ``first-label`` writes the first label of the task for an output that is none of its labels, and the
            empty tree for one that is no tree.

    Returns:
        what became of each task, also of those that cannot be written.

    Raises:
        PromptCBLUEError: lists what is wrong; no task can be written, so nothing is.
    """
    if raw.resolve() in output.resolve().parents:
        raise PromptCBLUEError(f"{output}: stands in the folder of the raw files, whose names it has; name another")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PromptCBLUEError(f"{output}: is there already and not empty; name a new folder")
    outputs: dict[str, list[Output]] = {}
    for sample, prediction in match(predictions, iter_samples(test, "test")):
        outputs.setdefault(sample["task_dataset"], []).append((sample, prediction.text if prediction else None))
    written: dict[str, Written] = {}
    with replacing(output) as folder:
        for name, pairs in outputs.items():
            try:
                written[name] = _write_task(name, pairs, raw, folder, parser, unreadable)
            except PromptCBLUEError as error:
                written[name] = Written(None, notes=[f"not written: {error}"], failed=True)
        if not any(task.file for task in written.values()):
            reasons = [f"{name}: {'; '.join(task.notes)}" for name, task in written.items()]
            raise PromptCBLUEError("\n".join(["no task can be written", *reasons]))
    return written


def _write_task(
    name: str, outputs: Sequence[Output], raw: Path, folder: Path, parser: Parser, unreadable: Unreadable
) -> Written:
    """Write the file of a task, and check it; the error lists what in the answers or the prompts stands in the way."""
    task = CBLUE_TASKS.get(name)
    source = _source(task, raw) if task else None
    if task is None or source is None:
        why = f"{raw} holds no test file of it" if task else "it is no task of CBLUE's submission"
        return Written(None, notes=[f"not written: {why}"])
    file_name, file = source
    answered = [Answers(name, record, unreadable) for record in file.records]
    _answer(task, outputs, answered, file_name, parser)
    problems, left_out = list[str](), Counter[str]()
    for answers in answered:
        try:
            answers.record.put(task.mapper(answers))
            left_out += answers.left_out
        except ValueError as error:
            problems.append(str(error))
    _stop_if_any("", problems)
    try:
        (folder / file_name).write_bytes(file.text().encode())
    except UnicodeEncodeError as error:
        raise PromptCBLUEError("an answer holds half of a surrogate pair; decode the outputs again") from error
    check_file(folder / file_name, raw)
    # A reason that says what was done in place of it says so alone.
    notes = [
        f"{'' if ', written as ' in reason or ', taken as ' in reason else 'left out '}{n} × {reason}"
        for reason, n in sorted(left_out.items())
    ]
    if partly := sum(not set(task.types) <= answers.offered for answers in answered):
        notes.append(
            f"the prompts of {records_said(partly)} ask for some of the types only; the others stay empty there"
        )
    return Written(file_name, len(file.records), notes)


def _answer(
    task: CBLUETask, outputs: Sequence[Output], answered: Sequence[Answers], file_name: str, parser: Parser
) -> None:
    """Give the answers to their records; the error lists prompts without an output or a record, and records without."""
    records, samples = [answers.record for answers in answered], [sample for sample, _ in outputs]
    if doubled := [name for name, n in Counter(record.name for record in records).items() if n > 1]:
        raise PromptCBLUEError(f"{file_name} holds several records of the id '{doubled[0]}'")
    traced = _by_id(samples, records) or (_by_text(samples, records) if task.fields else None)
    if traced is None:
        raise PromptCBLUEError(
            "the ids of its prompts lead to no raw records; make them with `promptcblue-dataset build --from-test`"
        )
    problems: list[str] = []
    for (sample, text), places in zip(outputs, traced, strict=True):
        name = sample["sample_id"]
        if text is None:
            problems.append(f"sample '{name}': has no prediction")
            continue
        if not places:
            problems.append(f"sample '{name}': its prompt holds the text of no single record of {file_name}")
        choices = sample["answer_choices"] or ()
        answer = parse_answer(REGISTRY[task.name].format, text, choices, parser, sample["input"]).answer
        for place in places:
            answered[place].prompts.append(Answered(sample, (record_of(name) or (None, None))[1], answer))
    problems += (
        f"record {place}, '{next(iter(record.texts), '') or record.name:.30}', has no prompt"
        for place, (record, answers) in enumerate(zip(records, answered, strict=True), 1)
        if not answers.prompts and record.answers  # a dialogue without findings is asked nothing
    )
    _stop_if_any("", problems)
