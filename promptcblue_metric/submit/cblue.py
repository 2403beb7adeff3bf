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
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ..answers import Answer, CausalLines, Report, TreeLines
from ..data.predictions import match
from ..data.raw_labels import RAW_LABELS, RECORD_IDS, record_of
from ..data.samples import LISTED, Sample, iter_samples, open_binary
from ..data.writing import replacing
from ..errors import PromptCBLUEError
from ..evaluation import Parser, parse_answer
from ..tasks import NONE_OF_THESE, REGISTRY

#: What to do with an output whose label cannot be read.
Unreadable = Literal["stop", "first-label"]
#: A JSON object of a file.
Object: TypeAlias = dict[str, Any]

_BOM, _NOT_ANNOTATED, _RELEVANT, _DOCUMENTS, _WHOLE = "\ufeff", "不标注", "相关", 10, "global"
_NO_TYPE, _NO_RELATION = "type that CBLUE does not have", "relation that CBLUE does not have"
_NO_TASK = "it is no task of CBLUE's submission"
_FIRST_LABEL = "output without a raw label, written as the first label"
#: Of several statuses of a symptom in a dialogue, IMCS-V2's own code takes the last of these.
_SUREST_LAST = "201"


def records_said(n: int) -> str:
    """How many records, in words."""
    return f"{n} record{'s' * (n != 1)}"


def _raw(task: str) -> Mapping[str, str]:
    return RAW_LABELS[task].raw


def _labels(task: str) -> frozenset[str]:
    return frozenset(_raw(task).values())


# --- What CBLUE's checkers want of an answer ---

#: A type; a set of strings, of which it is one; a list or, under ``...``, an object of such values; an object with
#: these fields; or what says what is wrong.
Shape: TypeAlias = "type | frozenset[str] | list[Shape] | dict[Any, Shape] | Callable[[Any], str | None]"
_TYPES: Mapping[type, str] = {str: "string", int: "number", float: "number", list: "list", dict: "object"}


def _problem(value: Any, shape: Shape) -> str | None:
    """What is wrong with the value of a raw field."""
    if isinstance(shape, frozenset):
        names = [*(f'"{name}"' for name in sorted(shape)[:12]), *(['"…"'] if len(shape) > 12 else [])]
        known = isinstance(value, str) and value in shape
        return None if known else _expected(f"one of the strings {', '.join(names)}", value)
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


def _tags(value: object) -> str | None:
    if not isinstance(value, str):
        return _expected("a string", value)
    unknown = next((tag for tag in value.split() if tag not in _TAGS), None)
    return f"unknown tag {unknown!r}" if unknown else None


_MENTION: dict[Any, Shape] = {"mention": str, "start_idx": int, "end_idx": int}


def _inner_relation(value: Any) -> str | None:
    return None if type(value) is int and value in (1, 3) else _expected("a relation of 1 or 3", value)


def _relation(value: Any) -> str | None:
    if problem := _problem(value, {"head": _MENTION, "relation": int, "tail": dict}):
        return problem
    if str(value["relation"]) not in _labels("CMedCausal"):
        return _expected("a relation of 1, 2 or 3", value["relation"])
    tail: Shape = {"type": frozenset({"mention"}), **_MENTION}
    if str(value["relation"]) == _raw("CMedCausal")[CausalLines.nested]:
        tail = {"type": frozenset({"relation"}), "head": _MENTION, "relation": _inner_relation, "tail": _MENTION}
    return _problem(value, {"tail": tail})


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


#: What is written once every record has its answer, and the records of a file's text.
Read: TypeAlias = "tuple[list[Object] | Object, list[RawRecord]]"


def _keyed(text: str) -> Object | None:
    """The records of a file that is one object of them by id."""
    if text[:1] != "{" or "\n{" in text:
        return None
    found = json.loads(text)
    return found if found and all(isinstance(record, (dict, list)) for record in found.values()) else None


def _is_lines(text: str) -> bool:
    return not text.lstrip().startswith("[") and _keyed(text.lstrip()) is None


def _objects(text: str, id_field: str | None) -> list[tuple[str, Object]]:
    """The objects of a JSON list, of JSON Lines, or of an object of them by id; each with its id, or else its place.

    What stands by id is written as a list, which CBLUE takes: the id then becomes a field.
    """
    keyed = _keyed(text.lstrip())
    if keyed is not None:
        found = [{id_field: name, **record} if id_field else dict(record) for name, record in keyed.items()]
    elif _is_lines(text):
        found = [json.loads(line) for line in io.StringIO(text) if line.strip()]
    else:
        found = json.loads(text)
    if not all(isinstance(record, dict) for record in found):
        raise ValueError("expected a list of objects, or an object a line")
    names = (record[id_field] for record in found) if id_field else keyed or range(len(found))
    return list(zip(map(str, names), found, strict=True))


def _records(answer: str, texts: Sequence[str], id_field: str | None, text: str) -> Read:
    """A list of objects with an answer each; ``id_field`` holds their id, if they have one."""
    objects, records = _objects(text, id_field), []
    for name, found in objects:
        values = [found.get(name) or "" for name in texts]
        said = tuple(str(value[-1] if isinstance(value, list) else value) for value in values)
        answers = {name if id_field else str(found[texts[0]]): found.get(answer)}
        records.append(RawRecord(name, said, answers, partial(found.__setitem__, answer)))
    return [found for _, found in objects], records


def _findings(text: str) -> Read:
    """Dialogues of CHIP-MDCFNPC; the answer is a status for each finding in them, in their order."""

    def put(turns: Sequence[Object], statuses: Iterable[str]) -> None:
        left = iter(statuses)
        for turn in turns:
            turn["ner"] = [{**finding, "attr": next(left)} for finding in turn.get("ner") or ()]

    objects, records = _objects(text, RECORD_IDS["CHIP-MDCFNPC"]), []
    for name, dialogue in objects:
        turns = dialogue["dialog_info"]
        answers = {
            "_".join(map(str, (name, turn["sentence_id"], *finding["range"]))): finding.get("attr")
            for turn in turns
            for finding in turn.get("ner") or ()
        }
        said = tuple(str(turn.get("text", "")) for turn in turns[:1])
        records.append(RawRecord(name, said, answers, partial(put, turns), turns))
    return [found for _, found in objects], records


def _dialogues(text: str) -> Iterator[tuple[str, Any, Any]]:
    """Each dialogue's id, what stands under it, and its turns, which may stand there without an object around them."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("expected an object of dialogues by their ids")
    for name, value in found.items():
        yield name, value, value.get("dialogue", value) if isinstance(value, dict) else value


def _sentences(text: str) -> Read:
    """IMCS-V2: an answer for each sentence, by dialogue; where they are objects, ``global`` sums up a dialogue's."""
    written: dict[str, Object] = {}
    records = []

    def put(dialogue: str, sentence: str, answer: Any) -> None:
        answers = written.setdefault(dialogue, {})
        answers[sentence] = answer
        if isinstance(answer, dict):
            whole = [*answers.pop(_WHOLE, {}).items(), *answer.items()]
            answers[_WHOLE] = dict(sorted(whole, key=lambda item: _SUREST_LAST.index(item[1])))

    for dialogue, _, turns in _dialogues(text):
        if isinstance(turns, dict):
            found = [(name, "", answer) for name, answer in turns.items()]
        else:
            found = [(turn["sentence_id"], turn["sentence"], None) for turn in turns]
        whole = {f"{dialogue}_{name}": answer for name, _, answer in found if name == _WHOLE}
        for sentence, said, answer in found:
            if sentence != _WHOLE:
                name = f"{dialogue}_{sentence}"
                taken = partial(put, dialogue, str(sentence))
                records.append(RawRecord(name, (said,), {name: answer, **whole}, taken))
    return written, records


def _reports(text: str) -> Read:
    written, records = Object(), []
    for dialogue, value, turns in _dialogues(text):
        said = [turn["sentence"] for turn in turns[-1:]] if isinstance(turns, list) else []
        records.append(RawRecord(dialogue, tuple(said), {dialogue: value}, partial(written.__setitem__, dialogue)))
    return written, records


def _queries(text: str) -> Read:
    """KUAKE-IR: a line for each query, with its id and, after a tab, its text or what was found for it."""
    written, lines = Object(), (line.strip().partition("\t") for line in io.StringIO(text))
    # The last line may be blank.
    found = [RawRecord(name, (value,), {name: value}, partial(written.__setitem__, name)) for name, _, value in lines]
    return written, found


# --- From answers to prompts to a raw answer ---


class Answered(NamedTuple):
    """A prompt made of a raw record, which part of it (`raw_labels.sample_id_of`), and the answer."""

    sample: Sample
    part: str | None
    answer: Answer


class NoLabelError(ValueError):
    """An output is nothing that CBLUE takes; ``first`` is what may be written in its place."""

    def __init__(self, what: str, answered: Sequence[Answered], first: object) -> None:
        super().__init__(f"sample '{answered[0].sample['sample_id']}': {what}, or pass --unreadable first-label")
        self.first = first


#: The raw answer; what is left out of it is counted, by the reason.
Mapper: TypeAlias = Callable[[Sequence[Answered], RawRecord, "Counter[str]"], Any]


def _one(answered: Sequence[Answered]) -> Answer:
    """The answer that all prompts agree on; ``非上述类型`` says nothing where another offered other labels."""
    answers = [prompt.answer for prompt in answered]
    others = [answer for answer in answers if answer != NONE_OF_THESE] or answers
    for prompt in answered:
        if prompt.answer not in (others[0], NONE_OF_THESE):
            first = next(other for other in answered if other.answer == others[0])
            ids = f"samples '{first.sample['sample_id']}' and '{prompt.sample['sample_id']}'"
            raise ValueError(f"{ids} answer one record differently")
    return others[0]


def _all(answered: Sequence[Answered]) -> list[Answer]:
    """The items of all answers, each once, in their order."""
    found: list[Answer] = []
    for prompt in answered:
        found += (item for item in prompt.answer if item not in found)
    return found


def _label(task: str) -> Mapper:
    raw = _raw(task)
    others = set(raw) - {NONE_OF_THESE}

    def mapped(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> str:
        answer = _one(answered)
        if answer in raw and (answer != NONE_OF_THESE or others <= _offered(answered)):
            return raw[answer]
        what = f"'{NONE_OF_THESE}' has no raw label here; offer every label"
        if answer != NONE_OF_THESE:
            what = f"{answer!r:.40} is no label; read it with --parser lenient"
        raise NoLabelError(what, answered, next(iter(raw.values())))

    return mapped


def _places(mention: str, text: str) -> list[int]:
    return [found.start() for found in re.finditer(f"(?={re.escape(mention)})", text)] if mention else []


def _known(
    answered: Sequence[Answered], task: str, field: str, left_out: Counter[str], what: str
) -> Iterator[tuple[Answer, str]]:
    """The items whose type, relation or status has a raw label, and that label; ``what`` counts the others."""
    for item in _all(answered):
        label = _raw(task).get(item[field])
        left_out[what] += label is None
        if label is not None:
            yield item, label


def _entities(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> list[Object]:
    """Every place of each mention: an answer does not say which one is meant. ``end_idx`` is inclusive."""
    found: dict[tuple[int, int, str], Object] = {}
    for item, kind in _known(answered, "CMeEE-V2", "type", left_out, _NO_TYPE):
        mention, starts = item["entity"], _places(item["entity"], record.texts[0])
        left_out["mention that is not in the text"] += not starts
        for start in starts:
            end = start + len(mention) - 1
            found[start, end, kind] = {"start_idx": start, "end_idx": end, "type": kind, "entity": mention}
    return [found[key] for key in sorted(found)]


def _tagged(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> str:
    """A tag for each character, longer mentions first: tags do not nest."""
    text = record.texts[0]
    if not text:
        raise ValueError(f"record '{record.name}': the raw files do not say the sentence; add IMCS-V2_test.json")
    tags = ["O"] * len(text)
    items = _known(answered, "IMCS-V2-NER", "type", left_out, _NO_TYPE)
    for mention, kind in sorted(((item["entity"], kind) for item, kind in items), key=lambda item: -len(item[0])):
        free = [at for at in _places(mention, text) if set(tags[at : at + len(mention)]) == {"O"}]
        left_out["mention that is not in the text, or within another"] += not free
        for start in free:
            if set(tags[start : start + len(mention)]) == {"O"}:
                tags[start : start + len(mention)] = [f"B-{kind}", *[f"I-{kind}"] * (len(mention) - 1)]
    return " ".join(tags)


def _triples(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> list[Object]:
    items = _known(answered, "CMeIE", "predicate", left_out, _NO_RELATION)
    return [{**item, "object": {"@value": item["object"]}} for item, _ in items]


def _causal(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> list[Object]:
    """The first place of each mention; ``end_idx`` is not inclusive. Under 条件关系 the tail is a triple of its own."""

    def mention(name: str) -> Object:
        start = record.texts[0].find(name)
        return {"mention": name, "start_idx": start, "end_idx": start + len(name)} if name and start >= 0 else {}

    found = list[Object]()
    for item, number in _known(answered, "CMedCausal", "predicate", left_out, _NO_RELATION):
        tail, head = item["object"], mention(item["subject"].removesuffix(CausalLines.marker))
        ends = [mention(tail["subject"]), mention(tail["object"])] if isinstance(tail, dict) else [mention(tail)]
        left_out["relation with a mention that is not in the text"] += not all((head, *ends))
        raw_tail = {"type": "mention", **ends[0]}
        if len(ends) > 1:
            inner = int(_raw("CMedCausal")[CausalLines.inner])
            raw_tail = {"type": "relation", "head": ends[0], "relation": inner, "tail": ends[1]}
        if all((head, *ends)):
            found.append({"head": head, "relation": int(number), "tail": raw_tail})
    return found


def _tree(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> list[Object]:
    nodes = list[Object]()
    for node in _one(answered):
        kept = [triple for triple in node["triples"] if triple[1] in _raw("Text2DT")]
        left_out["triple of a relation that CBLUE does not have"] += len(node["triples"]) - len(kept)
        nodes.append({"role": node["role"], "triples": kept, "logical_rel": node["logical_rel"]})
    if what := _decision_tree(nodes):
        raise NoLabelError(f"no tree: {what}", answered, [{"role": "D", "triples": [], "logical_rel": "null"}])
    return nodes


_EVENT_FIELDS = {"core_name": "主体词", "tendency": "发生状态", "character": "描述词", "anatomy_list": "解剖部位"}


def _events(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> list[Object]:
    empty = [item for item in _all(answered) if not any(item.values())]
    left_out["event without any content"] += len(empty)
    items = _known(answered, "CHIP-CDEE", "发生状态", left_out, "event of an unknown status")
    return [{raw: item[ours] for raw, ours in _EVENT_FIELDS.items()} for item, _ in items if item not in empty]


def _symptoms(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> Object:
    found = [(item["entity"], _raw("IMCS-V2-SR")[item["attr"]]) for item in _all(answered) if item["entity"]]
    return dict(sorted(found, key=lambda item: _SUREST_LAST.index(item[1])))


def _statuses(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> list[str]:
    """The status of each finding by the first prompt that names it and that reaches its sentence.

    A prompt without a part, or with one that is no sentence's, reaches to the end of the dialogue.
    """
    raw, turns, statuses = _raw("CHIP-MDCFNPC"), record.turns, list[str]()
    order = {str(turn["sentence_id"]): place for place, turn in enumerate(turns)}
    said = [
        (order.get(str(prompt.part), len(turns)), {item["entity"]: raw[item["attr"]] for item in prompt.answer})
        for prompt in answered
    ]
    said.sort(key=itemgetter(0))
    for place, turn in enumerate(turns):
        for finding in turn.get("ner") or ():
            names = {finding.get("mention"), finding.get("name")}
            given = [status for end, by in said if end >= place for name, status in by.items() if name in names]
            statuses += given[:1] or [_NOT_ANNOTATED]
            left_out[f"finding that no answer names, written as {_NOT_ANNOTATED}"] += not given
    return statuses


def _report(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> Object:
    return {section: _one(answered).get(section, "") for section in Report.sections}


def _terms(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> str:
    return "##".join(dict.fromkeys(item["entity"] for item in _all(answered)))


def _documents(answered: Sequence[Answered], record: RawRecord, left_out: Counter[str]) -> str:
    """Ten documents: those found relevant, and then the others, each in the order of the prompts."""
    found = [prompt.part for prompt in answered if prompt.answer == _RELEVANT]
    ranked = list(dict.fromkeys([*found, *(prompt.part for prompt in answered)]))[:_DOCUMENTS]
    if len(ranked) < _DOCUMENTS or None in ranked:
        raise ValueError(f"query '{record.name}': expected prompts for {_DOCUMENTS} documents, found {len(ranked)}")
    unread = sum(prompt.answer not in REGISTRY["KUAKE-IR"].labels for prompt in answered)
    left_out["output without a label, taken as not relevant"] += unread
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
    read: Callable[[str], Read]
    shape: Shape
    mapper: Mapper
    file: str = ""
    beside: str = ""
    fields: tuple[str, ...] = ()
    types: Collection[str] = ()

    @property
    def pattern(self) -> str:
        """Of the names of the test file."""
        return self.file or rf"{self.name}_test\.jsonl?"


def _listed(name: str, answer: str, fields: str, shape: Shape, mapper: Mapper, file: str = "") -> CBLUETask:
    """A task whose file is a list of records that their texts tell apart; with a name of its own it asks for types."""
    texts = tuple(fields.split())
    return CBLUETask(
        name,
        partial(_records, answer, texts, RECORD_IDS.get(name)),
        shape,
        mapper,
        file,
        fields=texts,
        types=_raw(name) if file else (),
    )


def _classified(name: str, fields: str) -> CBLUETask:
    return _listed(name, "label", fields, _labels(name), _label(name))


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
        CBLUETask("IMCS-V2-NER", _sentences, _tags, _tagged, beside=_IMCS, types=_raw("IMCS-V2-NER")),
        CBLUETask("IMCS-V2-DAC", _sentences, _labels("IMCS-V2-DAC"), _label("IMCS-V2-DAC"), beside=_IMCS),
        CBLUETask("IMCS-V2-SR", _sentences, {...: _labels("IMCS-V2-SR")}, _symptoms, beside=_IMCS),
        CBLUETask("IMCS-V2-MRG", _reports, dict.fromkeys(Report.sections, str), _report, beside=_IMCS),
        CBLUETask("CHIP-MDCFNPC", _findings, _labels("CHIP-MDCFNPC"), _statuses),
        _listed("CMedCausal", "relation_of_mention", "text", [_relation], _causal),
        _listed("Text2DT", "tree", "text", _decision_tree, _tree),
        CBLUETask("MedDG", _REPLIES, str, lambda answered, record, left_out: _one(answered)),
    )
}


# --- Reading and checking ---


def _read(task: CBLUETask, path: Path) -> tuple[str, Read]:
    """The text of a file, and what was read of it."""
    with open_binary(path) as stream:
        try:
            text = stream.read().decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise PromptCBLUEError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if text.startswith("version https://git-lfs"):
        raise PromptCBLUEError(f"{path}: stands for a file that is not here; `git lfs pull` fetches it")
    try:
        return text, task.read(text.removeprefix(_BOM))
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


class _Source(NamedTuple):
    """The raw test file of a task, and what will be written in its place."""

    name: str
    records: list[RawRecord]
    written: list[Object] | Object
    lines: bool


def _source(task: CBLUETask, raw: Path) -> _Source | None:
    """The test file of a task, or what its records can be read from in its place; their texts are filled in."""
    path, beside = _raw_file(task.pattern, raw), task.beside and _raw_file(task.beside, raw)
    if not path and not beside:
        return None
    text, (written, records) = _read(task, beside) if beside else ("", ([], []))
    name = f"{task.name}_test.{'tsv' if task.read is _queries else 'json'}"
    if path:
        texts, name = {record.name: record.texts for record in records}, path.name
        text, (written, records) = _read(task, path)
        # The last line of a table may be blank.
        records = [one._replace(texts=texts.get(one.name, one.texts)) for one in records if one.name]
    return _Source(name, records, written, _is_lines(text.removeprefix(_BOM)))


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
    text, (_, records) = _read(task, path)
    answers = {name: answer for record in records for name, answer in record.answers.items()}
    wrong = [(name, problem) for name, answer in answers.items() if (problem := _problem(answer, task.shape))]
    if task.read is _findings:  # of a raw file, a turn may leave it out
        lacking = [record for record in records if any(turn.get("ner") is None for turn in record.turns)]
        wrong += ((record.name, "field 'ner' of a turn is missing") for record in lacking)
    problems = [f"record '{name:.40}': {problem}" for name, problem in wrong]
    if text.startswith(_BOM):
        problems.append("starts with a byte order mark, at which CBLUE's checkers stop; write it without")
    if _is_lines(text) != source.lines and task.read is not _queries:
        kinds = ("a JSON list", "JSON Lines")
        problems.append(f"expected {kinds[source.lines]}, as the raw file is, found {kinds[not source.lines]}")
    expected = [name for record in source.records for name in record.answers]
    if missing := [name for name in expected if name not in answers]:
        problems.append(f"{len(missing)} of {len(expected)} answers are missing, first that of '{missing[0]:.40}'")
    if task.shape is _tags:
        problems += _wrong_lengths(answers, source.records, raw)
    _stop_if_any(f"{path}: ", problems)
    return len(records)


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
    stand = (
        all(_squeezed(text) in _squeezed(sample["input"]) for text in records[place].texts)
        for sample, place in zip(samples, here, strict=True)
    )
    # Not of all: a builder may mend a text.
    return [[place] for place in here] if sum(stand) * 2 > len(samples) else None


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
    for path, what in ((raw, "CBLUE's test files"), (Path(test), "the prompts")):
        if not path.exists():
            raise PromptCBLUEError(f"{path}: no such file or folder; expected {what}")
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
        return Written(None, notes=[f"not written: {f'{raw} holds no test file of it' if task else _NO_TASK}"])
    answered = _answered(task, outputs, source, parser)
    problems, left_out = list[str](), Counter[str]()
    for record, prompts in zip(source.records, answered, strict=True):
        left = Counter[str]()
        try:
            value = task.mapper(prompts, record, left)
        except ValueError as error:
            if unreadable == "stop" or not isinstance(error, NoLabelError):
                problems.append(str(error))
                continue
            value, left = error.first, Counter([_FIRST_LABEL])
        left_out.update(left)
        record.put(value)
    _stop_if_any("", problems)
    if isinstance(source.written, list) and source.lines:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in source.written)
    elif isinstance(source.written, dict) and task.read is _queries:
        text = "".join(f"{name}\t{answer}\n" for name, answer in source.written.items())
    else:
        text = json.dumps(source.written, ensure_ascii=False, indent=2) + "\n"
    try:
        (folder / source.name).write_bytes(text.encode())
    except UnicodeEncodeError as error:
        raise PromptCBLUEError("an answer holds half of a surrogate pair; decode the outputs again") from error
    check_file(folder / source.name, raw)
    # A reason that says what was done in place of it says so alone.
    notes = [
        f"{'' if ', written as ' in reason or ', taken as ' in reason else 'left out '}{n} × {reason}"
        for reason, n in sorted(left_out.items())
        if n
    ]
    if partly := sum(not set(task.types) <= _offered(prompts) for prompts in answered):
        notes.append(
            f"the prompts of {records_said(partly)} ask for some of the types only; the others stay empty there"
        )
    return Written(source.name, len(source.records), notes)


def _answered(task: CBLUETask, outputs: Sequence[Output], source: _Source, parser: Parser) -> list[list[Answered]]:
    """The answers to each record; the error lists prompts without an output or a record, and records without one."""
    records, samples = source.records, [sample for sample, _ in outputs]
    if doubled := [name for name, n in Counter(record.name for record in records).items() if n > 1]:
        raise PromptCBLUEError(f"{source.name} holds several records of the id '{doubled[0]}'")
    traced = _by_id(samples, records) or (_by_text(samples, records) if task.fields else None)
    if traced is None:
        raise PromptCBLUEError(
            "the ids of its prompts lead to no raw records; make them with `promptcblue-dataset build --from-test`"
        )
    answered: list[list[Answered]] = [[] for _ in records]
    problems: list[str] = []
    for (sample, text), places in zip(outputs, traced, strict=True):
        name = sample["sample_id"]
        if text is None:
            problems.append(f"sample '{name}': has no prediction")
            continue
        if not places:
            problems.append(f"sample '{name}': its prompt holds the text of no single record of {source.name}")
        choices = sample["answer_choices"] or ()
        answer = parse_answer(REGISTRY[task.name].format, text, choices, parser, sample["input"]).answer
        for place in places:
            answered[place].append(Answered(sample, (record_of(name) or (None, None))[1], answer))
    problems += (
        f"record {place}, '{next(iter(record.texts), '') or record.name:.30}', has no prompt"
        for place, (record, prompts) in enumerate(zip(records, answered, strict=True), 1)
        if not prompts and record.answers  # a dialogue without findings is asked nothing
    )
    _stop_if_any("", problems)
    return answered


def _offered(answered: Iterable[Answered]) -> set[str]:
    return {choice for prompt in answered for choice in prompt.sample["answer_choices"] or ()}
