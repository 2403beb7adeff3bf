"""What the readers of both suites share: a corpus, its raw records, the samples of tasks they give, and notes on files.

A corpus is found among the raw files (`Corpus.find`) and read (`Corpus.read`): whole, checked and mended, so that the
samples of a `Reading` can be used as they are. What was wrong stands in the notes on each file, and ends no reading.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeVar

from promptcblue_dataset.corpora.archives import RawError, RawFile, RawFiles, encodable
from promptcblue_metric.answers import Answer
from promptcblue_metric.data.raw_labels import RAW_LABELS, RECORD_IDS, sample_id_of
from promptcblue_metric.data.samples import SPLITS

T = TypeVar("T")

#: What became of a flaw. ``mended``: put right. ``kept``: seen and left as it is. ``left out``: a record or part of one
#: gives no sample, for no fault that would stop a build. ``skipped``: a whole record cannot be used.
Action = Literal["mended", "kept", "left out", "skipped"]

_EXAMPLES, _EXAMPLE_LENGTH = 5, 160
#: Why a record of a test file gives no sample.
UNLABELLED = "no labels"


class Content(NamedTuple):
    """A raw sample: what goes into its prompt, and the answer.

    Attributes:
        fields: text by placeholder, such as ``INPUT_TEXT``.
        answer: the structured answer with the benchmark's own names, before any choices are drawn.
        place: which raw record it is of, as its id says it: that one's own id or its number in the file.
        offsets: where the answer's entities begin in the text, in their order, where the corpus says so.
        pairs: numbers of the records in which it is compared with another.
    """

    fields: Mapping[str, str]
    answer: Answer
    place: str = ""
    offsets: tuple[int, ...] = ()
    pairs: tuple[int, ...] = ()


class Group(NamedTuple):
    """Raw samples of one origin, such as a dialogue: never in two splits. Several groups of one name count as one."""

    name: str
    samples: Sequence[Content]


class Composed(Sequence[Content]):
    """Samples that are composed of their parts when they are asked for, what has been checked already."""

    def __init__(self, parts: Sequence[T], compose: Callable[[T], Content]) -> None:
        self._parts, self._compose = parts, compose

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, place: Any) -> Any:
        return self._compose(self._parts[place])


# --- Notes: nothing is mended or left out silently ---


@dataclass
class Finding:
    """One kind of flaw in a file: how often, in which records (by number), and what some of them look like."""

    times: int = 0
    records: dict[int, None] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)


@dataclass
class FileNotes:
    """What was read of one raw file, or of one folder whose files are records.

    Attributes:
        path: the file or folder, as messages name it.
        skipped: how many of the records cannot be used, which ``bad`` says why.
        findings: its flaws by what became of them and kind.
        labels: of the texts that were read so far, while the file is.
    """

    path: Path
    records: int = 0
    skipped: int = 0
    bad: list[str] = field(default_factory=list)
    findings: dict[tuple[Action, str], Finding] = field(default_factory=dict)
    labels: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False)

    def add(self, action: Action, kind: str, record: int, example: str = "", times: int = 1, message: str = "") -> None:
        """Count a flaw of a record; the message names file, record and field of one that cannot be used."""
        if action == "skipped":
            self.skipped += 1
            self.bad.append(message or f"{self.path}: record {record}: {kind}{': ' if example else ''}{example:.80}")
        finding = self.findings.get((action, kind)) or self.findings.setdefault((action, kind), Finding())
        finding.times += times
        finding.records[record] = None
        if example and len(finding.examples) < _EXAMPLES:
            # JSON can escape half of a surrogate pair, which no file in UTF-8 can hold.
            readable = example[:_EXAMPLE_LENGTH].encode("utf-8", "replace").decode()
            finding.examples.append(f"record {record}: {readable}")

    def include(self, other: FileNotes) -> None:
        """Take over what was noted of the file apart from any task."""
        self.records += other.records
        self.skipped += other.skipped
        self.bad = [*other.bad, *self.bad]
        self.findings = {**other.findings, **self.findings}

    def left_out(self) -> Counter[str]:
        """How many parts of records, or records without labels, gave no sample, by kind."""
        found = self.findings.items()
        return Counter({kind: finding.times for (action, kind), finding in found if action == "left out"})

    def times(self, action: Action) -> int:
        """How many flaws something became of."""
        return sum(finding.times for (done, _), finding in self.findings.items() if done == action)

    def as_json(self) -> list[dict[str, object]]:
        """Every finding, with the numbers of its records as ranges."""
        return [
            {"action": action, "kind": kind, **vars(found), "records": ranges(found.records)}
            for (action, kind), found in self.findings.items()
        ]


def reason(error: RawError) -> str:
    """What an error says without the name of the file."""
    return str(error).partition(": ")[2]


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in a short form, as ``1-3,7``."""
    runs = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        runs.append(str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}")
    return ",".join(runs)


# --- Corpora ---


@dataclass
class RawSplit:
    """The raw samples of a split of a task, and the notes on the file they are from."""

    notes: FileNotes
    groups: list[Group] = field(default_factory=list)

    def leave_unlabelled(self) -> None:
        """Take the samples out if every answer is empty: so test files may carry them in place of none."""
        if self.groups and not any(content.answer for group in self.groups for content in group.samples):
            self.notes.add("left out", UNLABELLED, 1, times=len(self.groups))
            self.groups.clear()


@dataclass
class Reading:
    """What was read of a corpus, by task.

    Attributes:
        splits: by the split that the file is named for; those without a file are not there.
        offers: labels that prompts can offer, where the corpus brings its own.
        refused: why a task cannot be made of the files.
    """

    splits: dict[str, dict[str, RawSplit]] = field(default_factory=dict)
    offers: dict[str, Sequence[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, task: str, why: str) -> None:
        """Give nothing of a task."""
        self.splits.pop(task, None)
        self.refused[task] = why


@dataclass
class Sources:
    """The files of a corpus by task and split (several are alternatives or parts), and others that it needs by kind."""

    splits: dict[str, dict[str, list[RawFile]]] = field(default_factory=dict)
    others: dict[str, RawFile] = field(default_factory=dict)


class Corpus:
    """A raw corpus: its name, the tasks it feeds, and how it is found and read.

    ``with raw_files(root) as files: reading = corpus.read(corpus.find(files), seed)``
    """

    name: str

    @property
    def tasks(self) -> Sequence[str]:
        """The config names of its tasks."""
        return (self.name,)

    def find(self, files: RawFiles) -> Sources:
        """Its files, without splits where there are none; an error where several differ and one is expected."""
        raise NotImplementedError

    def read(self, sources: Sources, seed: int = 0) -> Reading:
        """Read, check and mend its files. The seed is for what it draws, such as documents that answer no query."""
        raise NotImplementedError

    def ask(self, sources: Sources) -> Reading:
        """What its test files ask, without answers; the place of each sample is its id.

        Where several are made of a record, their ids say so: `promptcblue-metric cblue` hands in what is answered.
        """
        return Reading()


# --- Raw records ---


@dataclass(slots=True)
class Place:
    """Where a raw record stands, and what is noted of it.

    Attributes:
        number: its number in the file, from 1, or what its file's name says.
        id: what the ids of its samples say of it.
        named: whether that is an id that the file gives it.
    """

    notes: FileNotes
    name: str
    number: int
    id: str
    named: bool = False

    def note(self, action: Action, kind: str, example: str = "", times: int = 1) -> tuple[Group, ...]:
        """Count a flaw of the record; no samples."""
        if times:
            self.notes.add(action, kind, self.number, example, times)
        return ()

    def bad(self, error: RawError) -> None:
        """Count the record, or a part of it, as one that cannot be used since a field is not as it should be."""
        self.notes.add("skipped", "a field is missing or wrong", self.number, reason(error), message=str(error))


@dataclass(slots=True)  # frozen ones take four times as long to make
class Record:
    """A JSON object of a raw file, or one inside it; its getters name file, record and field in their errors.

    Attributes:
        within: for an object inside it, the ``within`` of the one that holds it, the field, and the place in its list.
    """

    value: Mapping[str, Any]
    place: Place
    within: tuple[Any, str, int | None] | None = None

    def fail(self, field: str, expected: str, found: object) -> NoReturn:
        """Raise `RawError` for a field."""
        path, within = field, self.within
        while within:
            within, name, place = within
            path = f"{name}.{path}" if place is None else f"{name}[{place}].{path}"
        where = f"{self.place.notes.path}: {self.place.name}"
        raise RawError(f"{where}: field '{path}': expected {expected}, found {found!r:.80}")

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self.value.get(name) is not None

    def get(self, *names: str) -> Any:
        """The first of these spellings of a field that is there."""
        for name in names:
            if name in self.value:
                return self.value[name]
        return self.fail(names[0], "a value", f"no such field among {', '.join(map(str, self.value)) or 'none'}")

    def text(self, *names: str, empty: bool = False) -> str:
        r"""A string, stripped; line ends become ``\n``."""
        value = self.get(*names)
        if not isinstance(value, str):
            self.fail(names[0], "a string", value)
        if value and value.strip() is value and "\r" not in value:
            return value  # as most are
        text = value.strip()
        if len(text) < len(value):
            self.place.note("mended", "white space at an end of the text")
        if not text and not empty:
            self.fail(names[0], "text", value)
        return text.replace("\r\n", "\n") if "\r" in text else text

    def line(self, name: str, *others: str, empty: bool = False) -> str:
        """A string for a place that holds one line; null is an empty one."""
        value = self.value.get(name)
        if value is None and empty and name in self.value:
            return ""
        # Millions are of this kind.
        if type(value) is str and value and "\n" not in value and value.strip() is value:
            return value
        text = self.text(name, *others, empty=empty)
        if "\n" in text:
            self.place.note("mended", "line ends in the text")
        return text.replace("\n", " ")

    def label(self, name: str) -> str:
        """A label, written as a string or a number."""
        value = self.value.get(name)
        if type(value) is str:
            if (label := value.strip()) is not value:
                self.place.note("mended", "white space around a label", repr(value))
            return label
        return str(self.number(name, "a label"))

    def number(self, name: str, expected: str = "an integer") -> int:
        """A whole number, which may also be written as a fraction or as text."""
        value = self.value.get(name)
        if type(value) is int:
            return value
        written = value if isinstance(value, str) else repr(value) if isinstance(value, float) else ""
        found = re.fullmatch(r"\s*(-?\d{1,18})(\.0*)?\s*", unicodedata.normalize("NFKC", written))
        if not found:
            self.fail(name, expected, self.get(name))
        self.place.note("mended", "a whole number written in another way", written)
        return int(found[1])

    def items(self, *names: str) -> list[Any]:
        """A list."""
        value = self.get(*names)
        return value if isinstance(value, list) else self.fail(names[0], "a list", value)

    def texts(self, *names: str) -> list[str]:
        """A list of strings, each stripped, without the empty ones; null is an empty one."""
        values = [] if self.get(*names) is None else self.items(*names)
        for place, value in enumerate(values):
            if not isinstance(value, str):
                self.fail(f"{names[0]}[{place}]", "a string", value)
        lines = [" ".join(value.split("\n")).strip() for value in values]
        if lines != values:
            self.place.note("mended", "white space at an end of the text, or line ends in it")
        return [line for line in lines if line]

    def records(self, name: str) -> list[Record]:
        """A list of objects."""
        return [
            Record(value, self.place, (self.within, name, place))
            if type(value) is dict
            else self.fail(f"{name}[{place}]", "an object", value)
            for place, value in enumerate(self.items(name))
        ]

    def record(self, name: str) -> Record:
        """An object."""
        value = self.get(name)
        if type(value) is not dict:
            self.fail(name, "an object", value)
        return Record(value, self.place, (self.within, name, None))

    def alone(self, content: Content) -> tuple[Group, ...]:
        """The record as one sample."""
        return (Group(self.place.name, (Content(content.fields, content.answer, self.place.id),)),)


R = TypeVar("R", bound=Record)

#: The one field of a record that is no object but a list.
LIST = "turns"
#: Under which name the list of records may stand in an object, with what is said of them beside it.
_AROUND = ("data", "records", "examples", "rows")
#: What JSON can escape though no text in UTF-8 can hold it, or else the two halves of a character.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_BLANKS = " \t\n\r"
_OPEN, _COMMA, _COLON = (re.compile(rf"[{_BLANKS}]*{mark}[{_BLANKS}]*") for mark in (r"[\[{]", ",", ":"))


def records_of(file: RawFile, notes: FileNotes, of_type: type[R], id_field: str = "") -> Iterator[R]:
    """The records of a JSON file: a list, JSON Lines, or an object of records by id.

    What is no record is skipped; a list counts as an object with the field `LIST`. The id of a record is in the
    ``id_field``, or else its key, or its number in the file, from 0.
    """
    data = file.read()
    halves = b"\\u" in data and _HALF.search(data)
    for number, name, key, value in _values(data, file, notes):
        given = value.get(id_field) if id_field and isinstance(value, dict) else None
        place = Place(notes, name, number, str(key if given is None else given), given is not None or type(key) is str)
        record = of_type({LIST: value} if isinstance(value, list) else value, place)
        message = ""
        if not isinstance(record.value, dict):
            message = f"expected an object, found {value!r:.80}"
        elif halves and not encodable(json.dumps(value, ensure_ascii=False)):
            message = "holds half of a surrogate pair"
        else:
            yield record
        if message:
            notes.add("skipped", "no usable record", number, message=f"{file.name}: {name}: {message}")


def _values(data: bytes, file: RawFile, notes: FileNotes) -> Iterator[tuple[int, str, str | int, Any]]:
    """The values of a JSON file, each with its number, its name and an id."""
    text, number = data.strip(), 0
    lines = text[:1] == b"{" and b"\n{" in text
    try:
        for number, (key, value) in enumerate(_named(text, file) if text and not lines else (), 1):
            notes.records += 1
            yield number, f"record '{key}'" if type(key) is str else f"record {number}", key, value
    except (ValueError, RecursionError) as error:
        # More after a first value: lines of something else than objects, or with blanks before them.
        lines = not number and isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and b"\n" in text
        if not lines:
            raise RawError(f"{file.name}: the file: expected JSON in UTF-8: {error}") from error
    if lines:
        for place, (number, line) in enumerate(lines_of(data, notes)):
            try:
                if (bare := line.rstrip()).endswith(","):
                    notes.add("mended", "comma at the end of the line", number)
                yield number, f"line {number}", place, json.loads(bare.removesuffix(","))
            except (ValueError, RecursionError) as error:
                message = f"{file.name}: line {number}: expected JSON in UTF-8: {error}"
                notes.add("skipped", "no JSON", number, str(error), message=message)
    elif not text:
        notes.add("left out", "the file is empty", 1)


def _named(data: bytes, file: RawFile) -> Iterable[tuple[str | int, Any]]:
    """The records of a file that is one JSON value, by id or number from 0.

    Those of a list, and objects by id, are decoded one by one: files are large, and records soon done with.
    """
    text = data.decode(json.detect_encoding(data), "surrogatepass")
    end = text.find("\n")
    if text[0] not in "[{" or (end > 0 and text[:end].rstrip().endswith(("]", "}"))):
        return enumerate([json.loads(text)])
    members = _members(text)
    first = next(members, None)
    if first is None:
        return enumerate([{}] if text[0] == "{" else [])
    members = chain([first], members)
    if text[0] == "[" or (isinstance(first[1], dict) and first[0] not in _AROUND):
        return members
    whole = dict(members)
    if len(around := [name for name in _AROUND if isinstance(whole.get(name), list)]) > 1:
        raise RawError(f"{file.name}: the file: expected one list of records, found {' and '.join(around)}")
    if around:
        return enumerate(whole[around[0]])
    by_id = all(isinstance(value, (dict, list)) for value in whole.values())
    return whole.items() if by_id else enumerate([whole])


def _members(text: str) -> Iterator[tuple[str | int, Any]]:
    """The members of a JSON list or object; no key may come up again, of whose values only the last would be read.

    A hook that sees the keys of every object in it would take twice the time.
    """
    decode, seen, number = json.JSONDecoder().raw_decode, set[str](), 0
    is_object, close = text[0] == "{", "}" if text[0] == "{" else "]"
    before = _OPEN.match(text)
    place = before.end() if before else 0
    while before and not (number == 0 and text.startswith(close, place)):
        key: str | int = number
        if is_object:
            if not text.startswith('"', place):
                break
            key, place = decode(text, place)
            if key in seen:
                raise ValueError(f"the key '{key}' stands there more than once")
            seen.add(str(key))
            if not (colon := _COLON.match(text, place)):
                break
            place = colon.end()
        value, place = decode(text, place)
        yield key, value
        if before := _COMMA.match(text, place):
            place, number = before.end(), number + 1
    if text[place:].strip(_BLANKS) != close:
        json.loads(text)  # says what is wrong


def lines_of(data: bytes, notes: FileNotes) -> Iterator[tuple[int, str]]:
    """The lines that are not blank and in UTF-8, with their numbers; the others and line ends of two are noted."""
    text = data.decode(errors="surrogateescape")
    lines = text.split("\n")
    broken = set() if encodable(text) else {number for number, line in enumerate(lines, 1) if not encodable(line)}
    if len(broken) > len(lines) / 2:
        raise RawError(f"{notes.path}: expected text in UTF-8, found another encoding")
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        notes.records += 1
        if number in broken:
            notes.add("skipped", "not in UTF-8", number, ascii(line))
            continue
        if line[-1] == "\r":
            notes.add("mended", "carriage return at the end of the line", number)
            line = line.rstrip("\r")
        yield number, line


@dataclass(frozen=True)
class RecordCorpus(Corpus, Generic[R]):
    """A corpus of JSON files ``{stem}_{split}.json`` whose records are read one by one.

    Attributes:
        stems: patterns of its file names, one a version of the corpus; the first that is there is read.
        readers: what a record gives, by task.
        asks: what a record without answers asks, by task; by default its ``text``.
        own_stems: patterns of the names of one task's own files, which come before the shared ones.
        others: patterns of the names of further files that it needs, by what they are.
        finish: completes what was read; the corpus is refused where it raises `RawError`.
    """

    name: str
    stems: Sequence[str]
    readers: Mapping[str, Callable[[R], Iterable[Group]]]
    asks: Mapping[str, Callable[[R], Iterable[Content]]] = field(default_factory=dict)
    own_stems: Mapping[str, str] = field(default_factory=dict)
    record_type: type[R] = Record  # type: ignore[assignment]
    others: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Reading, Sources], None] | None = None

    @property
    def tasks(self) -> Sequence[str]:
        """The config names of its tasks."""
        return tuple(self.readers)

    def find(self, files: RawFiles) -> Sources:
        """Its files, a task's own before the shared ones."""
        sources = Sources()
        labelled = [split for split in SPLITS if split != "test"]
        there = [stem for stem in self.stems if any(files.matching(split_name(stem, split)) for split in labelled)]
        version = (there or self.stems)[0]
        for task in self.tasks:
            stems = [*([self.own_stems[task]] if task in self.own_stems else []), version]
            folders = [loose(stem) for stem in (*stems, *self.stems)]
            for split in SPLITS:
                found = [
                    files.find(split_name(stem, split), folders)
                    or files.find(split_name("", split), [loose(stem)], nowhere_else=True)
                    for stem in stems
                ]
                if any(found):
                    sources.splits.setdefault(task, {})[split] = [file for file in found if file]
        for kind, pattern in self.others.items() if sources.splits else ():
            if file := files.find(pattern, [loose(stem) for stem in self.stems]):
                sources.others[kind] = file
        for stem in self.stems:
            files.leave(split_name(stem), f"another version of {self.name} is read")
        return sources

    def read(self, sources: Sources, seed: int = 0) -> Reading:
        """Read each file once, for all the tasks that it is for; of several the first with samples counts."""
        return self._reading(sources, self.readers)

    def ask(self, sources: Sources) -> Reading:
        """What the records of its test files ask; of several files the shared one of IMCS-V2 has the texts."""
        tests = {task: {"test": of_task["test"][-1:]} for task, of_task in sources.splits.items() if "test" in of_task}
        ask_text = asked_for(INPUT_TEXT="text")
        readers = {task: partial(_ask, self.asks.get(task, ask_text), RECORD_IDS.get(task)) for task in tests}
        return self._reading(Sources(tests, sources.others), readers, labelled=False)

    def _reading(
        self, sources: Sources, readers: Mapping[str, Callable[[R], Iterable[Group]]], *, labelled: bool = True
    ) -> Reading:
        reading = Reading()
        tasks_of: dict[RawFile, dict[str, None]] = {}
        for task, of_task in sources.splits.items():
            for file in (file for files in of_task.values() for file in files):
                tasks_of.setdefault(file, {})[task] = None
        found = {file: self._read(file, {task: readers[task] for task in tasks}) for file, tasks in tasks_of.items()}
        for file, task in ((file, task) for file, tasks in tasks_of.items() if labelled for task in tasks):
            found[file][task].leave_unlabelled()
        for task, of_task in sources.splits.items():
            results = {split: [found[file][task] for file in files] for split, files in of_task.items()}
            reading.splits[task] = {split: _first(of_split) for split, of_split in results.items()}
        try:
            if self.finish:
                self.finish(reading, sources)
        except RawError as error:
            reading.refuse(self.name, str(error))
        return reading

    def _read(self, file: RawFile, readers: Mapping[str, Callable[[R], Iterable[Group]]]) -> dict[str, RawSplit]:
        """What a file holds for each task."""
        found = {task: RawSplit(FileNotes(file.name)) for task in readers}
        of_file = FileNotes(file.name)
        try:
            for record in records_of(file, of_file, self.record_type, RECORD_IDS.get(next(iter(readers)), "")):
                for task, split in found.items():
                    record.place.notes = split.notes
                    try:
                        split.groups += [group for group in readers[task](record) if len(group.samples)]
                    except RawError as error:
                        record.place.bad(error)
        except RawError as error:
            found, of_file = {task: RawSplit(FileNotes(file.name)) for task in readers}, FileNotes(file.name)
            of_file.add("skipped", "the file cannot be read", 1, reason(error), message=str(error))
        for split in found.values():
            split.notes.include(of_file)
            split.notes.labels.clear()
        return found


def _first(files: Sequence[RawSplit]) -> RawSplit:
    """The first of alternative files that has samples; what others have of other records is counted."""
    taken = next((file for file in files if file.groups), files[0])
    names = {group.name for group in taken.groups}
    for other in (file for file in files if file is not taken):
        if left := {group.name for group in other.groups} - names:
            kind = f"a record of {other.notes.path.name}, in whose place this file is read"
            taken.notes.add("left out", kind, 1, min(left), times=len(left))
    return taken


def _ask(asks: Callable[[R], Iterable[Content]], id_field: str | None, record: R) -> Iterable[Group]:
    if id_field and not record.place.named:
        return record.place.note("left out", f"no '{id_field}', by which CBLUE's submission names a record")
    return (Group(record.place.id, list(asks(record))),)


_WORDS = {
    "train": (*SPLITS["train"], "训练集?"),
    "validation": (*SPLITS["validation"], "val", "valid", "验证集?", "开发集?"),
    "test": (*SPLITS["test"], "测试集?"),
}


def loose(name: str) -> str:
    """The pattern of a name whose hyphens may be others, or blanks, or left out."""
    return re.sub(r"(?<![\[_])-(?!\])", "[-_ ]?", name)


def split_name(stem: str, split: str = "", suffix: str = r"\.jsonl?") -> str:
    """The pattern of the names of a split's file (or of every split's); so are what comes before (if any) and after."""
    words = "|".join(word for name, found in _WORDS.items() if split in (name, "") for word in found)
    return (rf"({loose(stem)})[._-]" if stem else "") + rf"({words})( ?\(\d+\))?{suffix}"


def labelled(name: str, text: str = "text") -> Callable[[Callable[[R], Content]], Callable[[R], Iterable[Group]]]:
    """Make a function from record to content a reader of one sample a record, where its field of answers is there.

    Of a record without answers the field with the ``text`` has to be there, else it is something else.
    """

    def reader(content: Callable[[R], Content]) -> Callable[[R], Iterable[Group]]:
        def groups(record: R) -> Iterable[Group]:
            if record.value.get(name) in (None, ""):
                record.get(text)
                return record.place.note("left out", UNLABELLED)
            return record.alone(content(record))

        return groups

    return reader


def asked_for(**fields: str) -> Callable[[Record], Iterator[Content]]:
    """What a record of one sample asks: its texts, by placeholder."""

    def asks(record: Record) -> Iterator[Content]:
        texts = {placeholder: record.line(field, empty=True) for placeholder, field in fields.items()}
        yield Content(texts, [], sample_id_of(record.place.id))

    return asks


def our_label(record: Record, field: str, task: str) -> str:
    """Our label for the raw one in a field."""
    raw = record.label(field)
    label = read_label(raw, task, record.place)
    return label if label is not None else record.fail(field, f"one of {', '.join(RAW_LABELS[task].ours)}", raw)


def read_label(raw: str, task: str, place: Place) -> str | None:
    """Our label for a raw one, None if unknown; a spelling that is not the corpus's own is noted."""
    labels = RAW_LABELS[task]
    if raw in labels.ours:
        return labels.ours[raw]
    for spelling in (labels.odd.get(raw, raw), unicodedata.normalize("NFKC", raw).removesuffix(".0")):
        if (label := labels.read(spelling)) is not None:
            own = next(name for name, ours in labels.ours.items() if ours == label)
            place.note("mended", f"label {raw}: read as {own}")
            return label
    return None


def unquoted(text: str, place: Place) -> str:
    """A text that may have been written as CSV writes one with quotes or separators in it."""
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
        place.note("mended", "CSV quotes", text)
        return text[1:-1].replace('""', '"')
    return text
