"""CBLUE's own submission, made of answers to prompts, and the check of its format.

It holds a file a task, in the form of the raw corpora. The formats are those that CBLUE's own checkers state: the
records of the raw test file, under its name, with the fields and labels that they want. A prompt does not name the raw
record that it is made of, so a record is found by its texts, which stand in the prompt. Tasks where that is not enough
say why (`CBLUETask.why_not`); their files can only be checked.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ..answers import Answer, Report
from ..data.predictions import match
from ..data.raw_labels import (
    CRITERIA,
    DIALOGUE_ACTS,
    ENTITY_TAGS,
    ENTITY_TYPES,
    FINDING_ATTRIBUTES,
    INTENTS,
    QUERY_RELATION,
    RELATIONS,
    SAME_MEANING,
    SYMPTOM_STATUSES,
    TENDENCIES,
    TITLE_MATCH,
)
from ..data.samples import LISTED, iter_samples, open_binary
from ..data.writing import replacing
from ..errors import PromptCBLUEError
from ..parsing import Parser, parse_answer
from ..tasks import NONE_OF_THESE, TASKS

#: What to do with an output whose label cannot be read.
Unreadable = Literal["stop", "first-label"]

#: What is wrong with the value of a raw field.
Check: TypeAlias = Callable[[Any], "str | None"]
#: The answers in the text of a file, each by a name of its record.
Layout: TypeAlias = Callable[[str], Iterator[tuple[str, Any]]]


class Mapped(NamedTuple):
    """A raw answer, and how many parts of the structured one it leaves out, by the reason."""

    value: Any
    left_out: Mapping[str, int]


def _one_of(allowed: Collection[str]) -> Check:
    def check(value: Any) -> str | None:
        if isinstance(value, str) and value in allowed:
            return None
        listed = [*sorted(allowed)[:12], *(["…"] if len(allowed) > 12 else [])]
        return f"expected one of {', '.join(listed)}, found {value!r:.60}"

    return check


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"expected a string, found {value!r:.60}"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) else f"expected a list, found {value!r:.60}"


def _number(value: Any) -> str | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return None if whole else f"expected a whole number, found {value!r:.60}"


def _fields(checks: Mapping[str, Check]) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"expected an object, found {value!r:.60}"
        for name, of_field in checks.items():
            if name not in value:
                return f"field '{name}' is missing"
            if problem := of_field(value[name]):
                return f"field '{name}': {problem}"
        return None

    return check


def _each(of_item: Check) -> Check:
    def check(value: Any) -> str | None:
        if problem := _list(value):
            return problem
        return next(
            (f"item {place}: {problem}" for place, item in enumerate(value, 1) if (problem := of_item(item))), None
        )

    return check


def _ten_documents(value: Any) -> str | None:
    found = len(value.split(",")) if isinstance(value, str) else 0
    return None if found == 10 else f"expected 10 document ids joined by ',', found {found}"


def _tags(value: Any) -> str | None:
    if problem := _text(value):
        return problem
    unknown = next((tag for tag in value.split() if tag not in ENTITY_TAGS), None)
    return f"unknown tag {unknown!r}" if unknown else None


def _entities(answer: Answer, text: str) -> Mapped:
    """Every place of each mention: an answer does not say which one is meant. ``end_idx`` is inclusive."""
    found: dict[tuple[int, int, str], dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for item in answer:
        mention, kind = item["entity"], ENTITY_TYPES.get(item["type"])
        starts = [place.start() for place in re.finditer(f"(?={re.escape(mention)})", text)] if mention else []
        left_out["type that CBLUE does not have"] += kind is None
        left_out["mention that is not in the text"] += kind is not None and not starts
        for start in starts if kind else ():
            end = start + len(mention) - 1
            found[start, end, str(kind)] = {"start_idx": start, "end_idx": end, "type": kind, "entity": mention}
    return Mapped([found[key] for key in sorted(found)], left_out)


def _triples(answer: Answer, text: str) -> Mapped:
    kept = [item for item in answer if item["predicate"] in RELATIONS]
    found = [
        {"predicate": item["predicate"], "subject": item["subject"], "object": {"@value": item["object"]}}
        for item in kept
    ]
    return Mapped(found, {"relation that CBLUE does not have": len(answer) - len(kept)})


def _events(answer: Answer, text: str) -> Mapped:
    kept = [item for item in answer if item["发生状态"] in TENDENCIES and any(item.values())]
    found = [
        {
            "core_name": item["主体词"],
            "tendency": item["发生状态"],
            "character": item["描述词"],
            "anatomy_list": item["解剖部位"],
        }
        for item in kept
    ]
    empty = sum(not any(item.values()) for item in answer)
    unknown = len(answer) - len(kept) - empty
    return Mapped(found, {"event of an unknown status": unknown, "event without any content": empty})


def _terms(answer: Answer, text: str) -> Mapped:
    return Mapped("##".join(dict.fromkeys(item["entity"] for item in answer)), {})


def _sections(answer: Answer, text: str) -> Mapped:
    return Mapped({section: answer.get(section, "") for section in Report().sections}, {})


def _records(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON list or of JSON Lines."""
    if text.lstrip().startswith("["):
        found = json.loads(text)
    else:
        found = [json.loads(line) for line in io.StringIO(text) if line.strip()]
    if not all(isinstance(record, dict) for record in found):
        raise ValueError("expected a list of objects, or an object a line")
    return list(found)


def _by(key: str, answer: str) -> Layout:
    """Records with a key and an answer."""
    return lambda text: ((str(record[key]), record.get(answer)) for record in _records(text))


def _dialogues(text: str) -> Iterator[tuple[str, Any]]:
    for dialogue, sentences in json.loads(text).items():
        for sentence, value in sentences.items():
            yield f"{dialogue}_{sentence}", value


def _findings(text: str) -> Iterator[tuple[str, Any]]:
    for dialogue in _records(text):
        for sentence in dialogue["dialog_info"]:
            for finding in sentence["ner"]:
                start, end = finding["range"]
                yield f"{dialogue['dialog_id']}_{sentence['sentence_id']}_{start}_{end}", finding.get("attr")


def _table(text: str) -> Iterator[tuple[str, Any]]:
    for line in io.StringIO(text):
        name, _, documents = line.strip().partition("\t")
        yield name, documents


@dataclass(frozen=True)
class Labels:
    """A task answered with one label.

    Attributes:
        raw: the raw label of each of ours.
    """

    raw: Mapping[str, str]


@dataclass(frozen=True)
class CBLUETask:
    """A task as CBLUE takes it.

    Attributes:
        name: our config name.
        file: pattern of the names of its test file, which its submission has too.
        layout: the answers of a file.
        check: what an answer has to be.
        texts: fields of a raw record that stand in a prompt made of it; empty where none is made.
        answer: the field that holds the answer.
        mapping: how a structured answer becomes a raw one.
        types: what the prompts of a task can ask for, where each asks for some of it.
        why_not: why structured answers do not become raw ones.
        tagged: pattern of the file of dialogues whose sentences need a tag a character.
    """

    name: str
    file: str
    layout: Layout
    check: Check
    texts: tuple[str, ...] = ()
    answer: str = ""
    mapping: Labels | Callable[[Answer, str], Mapped] | None = None
    types: Collection[str] = ()
    why_not: str = ""
    tagged: str = ""


def _classified(name: str, labels: Mapping[str, str], *texts: str) -> CBLUETask:
    return CBLUETask(
        name,
        rf"{name}_test\.json",
        _by("id", "label"),
        _one_of(sorted(set(labels.values()))),
        texts,
        "label",
        Labels(labels),
    )


_ENTITY = _fields({"start_idx": _number, "end_idx": _number, "type": _one_of(sorted(ENTITY_TYPES.values()))})
_TRIPLE = _fields({"subject": _text, "predicate": _one_of(RELATIONS), "object": _fields({"@value": _text})})
_EVENT = _fields({"core_name": _text, "tendency": _one_of(TENDENCIES), "character": _list, "anatomy_list": _list})
_STATUSES = _one_of(SYMPTOM_STATUSES)
_PLACE = "its file wants an answer for each sentence of a dialogue, and a prompt does not say which one it is made of"


def _symptoms(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"expected an object of symptom and status, found {value!r:.60}"
    return next((f"'{name}': {problem}" for name, status in value.items() if (problem := _STATUSES(status))), None)


#: Every task of CBLUE that PromptCBLUE is made of.
CHECKED: Mapping[str, CBLUETask] = {
    task.name: task
    for task in (
        CBLUETask(
            "CMeEE-V2",
            r"CMeEE(-V2)?_test\.json",
            _by("text", "entities"),
            _each(_ENTITY),
            ("text",),
            "entities",
            _entities,
            types=ENTITY_TYPES,
        ),
        CBLUETask(
            "CMeIE",
            r"CMeIE(-V2)?_test\.jsonl?",
            _by("text", "spo_list"),
            _each(_TRIPLE),
            ("text",),
            "spo_list",
            _triples,
            types=RELATIONS,
        ),
        CBLUETask("CHIP-CDEE", r"CHIP-CDEE_test\.json", _by("id", "event"), _each(_EVENT), ("text",), "event", _events),
        CBLUETask(
            "CHIP-CDN",
            r"CHIP-CDN_test\.json",
            _by("text", "normalized_result"),
            _text,
            ("text",),
            "normalized_result",
            _terms,
        ),
        _classified("CHIP-CTC", CRITERIA, "text"),
        _classified("CHIP-STS", SAME_MEANING, "text1", "text2"),
        _classified("KUAKE-QIC", INTENTS, "query"),
        _classified("KUAKE-QTR", TITLE_MATCH, "query", "title"),
        _classified("KUAKE-QQR", QUERY_RELATION, "query1", "query2"),
        CBLUETask(
            "KUAKE-IR",
            r"KUAKE-IR_test\.tsv",
            _table,
            _ten_documents,
            why_not="its file wants the ten best documents of each query, and an answer judges one pair",
        ),
        CBLUETask(
            "IMCS-V2-NER",
            r"IMCS-V2-NER_test\.json",
            _dialogues,
            _tags,
            why_not=_PLACE,
            tagged=r"IMCS-V2_test\.json",
        ),
        CBLUETask("IMCS-V2-DAC", r"IMCS-V2-DAC_test\.json", _dialogues, _one_of(DIALOGUE_ACTS), why_not=_PLACE),
        CBLUETask("IMCS-V2-SR", r"IMCS-V2-SR_test\.json", _dialogues, _symptoms, why_not=_PLACE),
        CBLUETask(
            "IMCS-V2-MRG",
            r"IMCS-V2-MRG_test\.json",
            lambda text: iter(json.loads(text).items()),
            _fields(dict.fromkeys(Report().sections, _text)),
            why_not="its file names dialogues by an id that prompts do not hold",
        ),
        CBLUETask(
            "CHIP-MDCFNPC",
            r"CHIP-MDCFNPC_test\.jsonl",
            _findings,
            _one_of(FINDING_ATTRIBUTES),
            why_not="its file wants a status for each place of a finding, and an answer names a finding once",
        ),
        CBLUETask(
            "MedDG",
            r"MedDG_test\.json",
            _by("id", "output"),
            _text,
            why_not="it is not stated which fields of its raw test file stand in a prompt",
        ),
    )
}
#: The tasks whose structured answers map back.
MAPPED: Mapping[str, CBLUETask] = {name: task for name, task in CHECKED.items() if task.mapping}


def _read(path: Path) -> str:
    with open_binary(path) as stream:
        try:
            return stream.read().decode("utf-8-sig")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise PromptCBLUEError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _values(task: CBLUETask, path: Path) -> dict[str, Any]:
    """The answers of a file by record.

    Raises:
        PromptCBLUEError: it has not the layout of the task.
    """
    try:
        return dict(task.layout(_read(path)))
    except PromptCBLUEError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise PromptCBLUEError(f"{path}: has not the layout of {task.name} in CBLUE: {reason}") from error


def find_task(path: Path) -> CBLUETask:
    """The task that a file is named for.

    Raises:
        PromptCBLUEError: no task is.
    """
    for task in CHECKED.values():
        if re.fullmatch(task.file, path.name):
            return task
    raise PromptCBLUEError(f"{path}: expected the name of one of CBLUE's test files, such as CMeEE-V2_test.json")


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
    task = find_task(path)
    source = _raw_file(task.file, raw)
    if source is None:
        raise PromptCBLUEError(f"{raw}: holds no raw test file of {task.name} to compare {path} with")
    values, expected = _values(task, path), _values(task, source)
    problems = [f"record '{name:.40}': {problem}" for name, value in values.items() if (problem := task.check(value))]
    missing = [name for name in expected if name not in values]
    if missing:
        problems.append(
            f"{len(missing)} of {len(expected)} records of {source.name} are missing, first '{missing[0]:.40}'"
        )
    if task.tagged:
        problems += _wrong_lengths(values, task.tagged, raw)
    if problems:
        more = [f"… and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise PromptCBLUEError("\n".join([f"{path}: {len(problems)} problem(s)", *problems[:LISTED], *more]))
    return len(values)


def _wrong_lengths(values: Mapping[str, Any], dialogues: str, raw: Path) -> Iterator[str]:
    """Sentences that have not one tag a character."""
    path = _raw_file(dialogues, raw)
    if path is None:
        raise PromptCBLUEError(f"{raw}: holds no IMCS-V2_test.json, whose sentences need one tag a character")
    for dialogue, content in json.loads(_read(path)).items():
        for turn in content["dialogue"]:
            name, length = f"{dialogue}_{turn['sentence_id']}", len(turn["sentence"])
            tags = values.get(name)
            if isinstance(tags, str) and len(tags.split()) != length:
                yield f"record '{name}': expected {length} tags, one a character, found {len(tags.split())}"


def _raw_file(pattern: str, raw: Path) -> Path | None:
    if not raw.is_dir():
        raise PromptCBLUEError(f"{raw}: no such folder; expected CBLUE's test files")
    found = sorted(path for path in raw.rglob("*") if re.fullmatch(pattern, path.name) and path.is_file())
    if len(found) > 1:
        raise PromptCBLUEError(f"{raw}: several test files of one task ({', '.join(map(str, found))}); keep one")
    return found[0] if found else None


class _Finder:
    """Finds the raw records that a prompt is made of, whatever stands around and between their texts."""

    _START = 4

    def __init__(self, records: Sequence[Mapping[str, Any]], fields: Sequence[str], path: Path) -> None:
        self._texts: dict[tuple[str, ...], list[int]] = {}
        for place, record in enumerate(records):
            texts = [record.get(name) for name in fields]
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise PromptCBLUEError(f"{path}: record {place + 1}: expected text in {' and '.join(fields)}")
            self._texts.setdefault(tuple(map(_squeezed, map(str, texts))), []).append(place)
        self._by_start: dict[str, list[tuple[str, ...]]] = {}
        for key in self._texts:
            self._by_start.setdefault(key[0][: self._START], []).append(key)

    def find(self, prompt: str, choices: Sequence[str]) -> Sequence[int]:
        """The places of the one record whose texts are the longest that stand in the prompt, and of its equals."""
        squeezed = _squeezed(prompt).replace(_squeezed("，".join(choices)) or "\0", "\0")
        starts = {squeezed[at : at + n] for at in range(len(squeezed)) for n in range(1, self._START + 1)}
        found = {key for start in starts for key in self._by_start.get(start, ()) if _stand_in(squeezed, key)}
        lengths = {key: sum(map(len, key)) for key in found}
        longest = [key for key, length in lengths.items() if length == max(lengths.values())]
        return self._texts[longest[0]] if len(longest) == 1 else ()


def _squeezed(text: str) -> str:
    """A text without white space, which the building of prompts may change."""
    return "".join(text.split())


def _stand_in(prompt: str, texts: Sequence[str]) -> bool:
    """Whether the texts stand in the prompt one after another, in any order: templates differ in it."""

    def in_order(ordered: Iterable[str]) -> bool:
        at = 0
        for text in ordered:
            at = prompt.find(text, at)
            if at < 0:
                return False
            at += len(text)
        return True

    return any(map(in_order, permutations(texts)))


@dataclass
class _Record:
    """What is known of the answer to a raw record."""

    answer: Answer = None
    of: str = ""
    offered: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Written:
    """What became of a task.

    Attributes:
        file: the name of the file that was written, or None.
        records: how many records it has.
        notes: what its reader should know, counted.
    """

    file: str | None
    records: int
    notes: Sequence[str]


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
        unreadable: ``first-label`` writes the first label of the task for an output that is none of its labels.

    Returns:
        what became of each task, also of those that cannot be written.

    Raises:
        PromptCBLUEError: lists what is wrong; nothing is written.
    """
    if raw.resolve() in output.resolve().parents:
        raise PromptCBLUEError(f"{output}: stands in the folder of the raw files, whose names it has; name another")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PromptCBLUEError(f"{output}: is there already and not empty; name a new folder")
    rows: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
    for sample, prediction in match(predictions, iter_samples(test, "test")):
        if prediction is None:
            raise PromptCBLUEError(
                f"{predictions}: no prediction for '{sample['sample_id']}' of {sample['task_dataset']}"
            )
        rows.setdefault(sample["task_dataset"], []).append((sample, prediction.text))
    sources = {name: _raw_file(MAPPED[name].file, raw) for name in rows if name in MAPPED}
    if not any(sources.values()):
        raise PromptCBLUEError(f"{raw}: holds no test file of a task that can be written ({', '.join(MAPPED)})")
    written: dict[str, Written] = {}
    for name in rows:
        if name not in MAPPED:
            reason = CHECKED[name].why_not if name in CHECKED else "it is no task of CBLUE"
            written[name] = Written(None, 0, [f"not written: {reason}"])
    with replacing(output) as folder:
        for name, source in sources.items():
            if source is None:
                written[name] = Written(None, 0, [f"not written: {raw} holds no test file of it"])
                continue
            content, written[name] = _task_file(MAPPED[name], rows[name], source, parser, unreadable)
            (folder / source.name).write_text(content, encoding="utf-8")
            check_file(folder / source.name, raw)
    return written


def _task_file(
    task: CBLUETask,
    rows: Iterable[tuple[Mapping[str, Any], str]],
    source: Path,
    parser: Parser,
    unreadable: Unreadable,
) -> tuple[str, Written]:
    """The text of a task's file."""
    try:
        records = _records(_read(source))
    except ValueError as error:
        raise PromptCBLUEError(f"{source}: has not the layout of {task.name} in CBLUE: {error}") from error
    finder, known = _Finder(records, task.texts, source), [_Record() for _ in records]
    problems: list[str] = []
    left_out: Counter[str] = Counter()
    for sample, text in rows:
        places = finder.find(sample["input"], sample["answer_choices"] or ())
        if not places:
            problems.append(
                f"sample '{sample['sample_id']}': its prompt holds the text of no single record of {source.name}"
            )
            continue
        choices, prompt = sample["answer_choices"] or (), sample["input"]
        answer = parse_answer(TASKS[task.name].format, text, choices, parser, prompt).answer
        for place in places:
            if not _add(known[place], answer, sample):
                problems.append(
                    f"samples '{known[place].of}' and '{sample['sample_id']}' answer one record differently"
                )
    filled: list[dict[str, Any]] = []
    for place, (record, of_record) in enumerate(zip(records, known, strict=True), 1):
        if not of_record.of:
            problems.append(f"record {place}, '{record[task.texts[0]]:.30}', has no prompt")
            continue
        try:
            mapped = _mapped(task, of_record, record[task.texts[0]], unreadable)
        except ValueError as error:
            problems.append(f"sample '{of_record.of}': {error}")
            continue
        left_out.update(mapped.left_out)
        filled.append({**record, task.answer: mapped.value})
    if problems:
        more = [f"… and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise PromptCBLUEError("\n".join([f"{task.name}: {len(problems)} problem(s)", *problems[:LISTED], *more]))
    notes = [f"left out {n} × {reason}" for reason, n in sorted(left_out.items()) if n]
    partly = sum(not set(task.types) <= of_record.offered for of_record in known)
    if partly:
        notes.append(f"the prompts of {partly} records ask for some of the types only; the others stay empty there")
    return _written(filled, source), Written(source.name, len(filled), notes)


def _add(record: _Record, answer: Answer, sample: Mapping[str, Any]) -> bool:
    """Add an answer to what is known of a record; whether it fits."""
    record.offered.update(sample["answer_choices"] or ())
    if not record.of or record.answer == NONE_OF_THESE:
        record.answer, record.of = answer, sample["sample_id"]
        return True
    if isinstance(answer, list):
        record.answer = [*record.answer, *(item for item in answer if item not in record.answer)]
        return True
    return answer in (record.answer, NONE_OF_THESE)


def _mapped(task: CBLUETask, record: _Record, text: str, unreadable: Unreadable) -> Mapped:
    """The raw answer.

    Raises:
        ValueError: there is none.
    """
    if callable(task.mapping):
        return task.mapping(record.answer, text)
    assert task.mapping
    labels = task.mapping.raw
    others = set(labels) - {NONE_OF_THESE}
    if record.answer in labels and (record.answer != NONE_OF_THESE or others <= record.offered):
        return Mapped(labels[record.answer], {})
    if unreadable == "first-label":
        return Mapped(next(iter(labels.values())), {"output without a raw label, written as the first label": 1})
    if record.answer == NONE_OF_THESE:
        raise ValueError(
            f"'{NONE_OF_THESE}' has no raw label here; offer every label, or pass --unreadable first-label"
        )
    raise ValueError(
        f"{record.answer!r:.40} is no label; read it with --parser lenient, or pass --unreadable first-label"
    )


def _written(records: Sequence[Mapping[str, Any]], source: Path) -> str:
    if source.suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return json.dumps(records, ensure_ascii=False, indent=2) + "\n"
