"""Reading the raw corpora of ChineseBLUE as they are: one reader a family, all in `CHINESEBLUE`.

A reader mends what has one right reading, leaves out what has none, and writes both down (`notes`). Each record gives a
sample, but for cMedIR, whose records are pairs of documents and whose samples are the documents of a query.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_dataset.corpora.classification import CRITERIA
from promptcblue_dataset.corpora.dialogues import utterance
from promptcblue_dataset.corpora.notes import FileNotes
from promptcblue_dataset.corpora.reading import Content, RawError, Record, plain, renamed
from promptcblue_metric.data.samples import SPLITS
from promptcblue_metric.tasks import REGISTRY


class RawSample(NamedTuple):
    """A sample as its corpus has it.

    Attributes:
        place: what its id says of it: the number of its record, or of its query and which of that one's it is.
        group: samples of one group, such as the documents of a query, get the same template.
        content: what goes into the prompt, and the answer.
        numbers: offsets of the answer's entities in the text, in their order, or the lines of the pairs it stands in.
        located: whether the numbers are offsets.
    """

    place: str
    group: str
    content: Content
    numbers: tuple[int, ...] = ()
    located: bool = False


#: Reads the files of a split (one, but for CMDD).
Reader = Callable[[Sequence[Path], FileNotes], Iterable[RawSample]]


@dataclass(frozen=True)
class RawCorpus:
    """A corpus, which stands in a folder that is named for its task.

    Attributes:
        task: config name.
        files: pattern of the names of a split's files, ``{split}`` being the split's raw name.
        read: gives the samples of a split.
        by_split: whether the files of a split stand in a folder named for the split.
    """

    task: str
    files: str
    read: Reader
    by_split: bool = False

    def find(self, files: RawFiles, split: str) -> list[Path]:
        """The files of a split, in the order of their numbers."""
        name = SPLITS[split][0]
        found = files.within(name if self.by_split else self.task, self.files.format(split=name))
        return sorted(found, key=lambda path: (*map(int, re.findall(r"\d+", path.stem)), str(path)))


def _lines(paths: Sequence[Path], notes: FileNotes) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers."""
    (path,) = paths
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RawError(f"{path}: cannot be read: {error.strerror or error}") from error
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        notes.records += 1
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            notes.skip("not in UTF-8", number, str(error))
            continue
        if text.endswith("\r"):
            notes.add("mended", "carriage return at the end of the line", number)
        yield number, text.rstrip("\r")


def _objects(paths: Sequence[Path], notes: FileNotes) -> Iterator[tuple[int, Record]]:
    """The objects of a file of JSON Lines; a record that raises `RawError` while it is read is skipped by `_each`."""
    for number, line in _lines(paths, notes):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            notes.skip("no JSON", number, str(error))
            continue
        if isinstance(value, dict):
            yield number, Record(value, notes.path, f"line {number}")
        else:
            notes.skip("no object", number, repr(value))


def _reason(error: RawError) -> str:
    return str(error).partition(": ")[2]


def _clean(text: str, notes: FileNotes, number: int) -> str:
    """A text without white space at its ends and with the characters that HTML entities stand for."""
    if text != text.strip():
        notes.add("mended", "white space at an end of the text", number)
        text = text.strip()
    plain_text = html.unescape(text)
    if plain_text != text:
        notes.add("mended", "HTML entities", number, text)
    return plain_text.strip()


# --- Tables: label, then one text or two ---


@dataclass(frozen=True)
class Table:
    """Lines of label and texts between tabs.

    Attributes:
        labels: our label for each raw one.
        placeholders: what each text fills.
        grouped: whether the samples with one first text belong together.
    """

    labels: Mapping[str, str]
    placeholders: tuple[str, ...]
    grouped: bool = False

    def __call__(self, paths: Sequence[Path], notes: FileNotes) -> Iterator[RawSample]:
        seen: dict[tuple[str, ...], str] = {}
        groups: dict[str, list[int]] = {}
        for number, line in _lines(paths, notes):
            raw, *parts = line.split("\t")
            label = self.labels.get(plain(raw))
            if len(parts) != len(self.placeholders):
                notes.skip(f"not {len(self.placeholders) + 1} columns", number, line)
                continue
            texts = tuple(_clean(self._unquoted(part, notes, number), notes, number) for part in parts)
            if label is None or not all(texts):
                notes.skip("an empty text" if label else "an unknown label", number, line)
                continue
            if texts in seen:
                kind = "texts of an earlier record" + (", with another label" if seen[texts] != label else "")
                notes.add("kept", kind, number, " | ".join(texts))
            seen[texts] = label
            place = group = str(number)
            if self.grouped:
                of_group = groups.setdefault(texts[0], [len(groups) + 1, 0])
                of_group[1] += 1
                group, place = str(of_group[0]), f"{of_group[0]}-{of_group[1]}"
            yield RawSample(place, group, self._content(texts, label))

    def _content(self, texts: Sequence[str], label: str) -> Content:
        return Content(dict(zip(self.placeholders, texts, strict=True)), label)

    @staticmethod
    def _unquoted(text: str, notes: FileNotes, number: int) -> str:
        """A field that was written as CSV writes one with quotes in it."""
        if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', ""):
            notes.add("mended", "CSV quotes", number, text)
            return text[1:-1].replace('""', '"')
        return text


def _table(task: str, raw: Sequence[str], *placeholders: str, grouped: bool = False) -> RawCorpus:
    labels = dict(zip(map(plain, raw), REGISTRY[task].labels, strict=True))
    return RawCorpus(task, r"{split}\.(txt|tsv)", Table(labels, placeholders, grouped))


# --- Entities ---

_ENTITY = re.compile(r"&(#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z]+);")
_COMMUNITY = (
    "disease",
    "body",
    "symptom",
    "treatment",
    "crowd",
    "drug",
    "test",
    "physiology",
    "feature",
    "time",
    "department",
)


class _Text(NamedTuple):
    """A text without what was wrong with it, and where each place of the raw one is in it."""

    text: str
    places: Sequence[int]


def _mended_text(raw: str, notes: FileNotes, number: int) -> _Text:
    """As `_clean`, but keeping track of places. A line end becomes a blank."""
    pieces: list[str] = []
    places: list[int] = []
    last = 0

    def keep(part: str) -> None:
        start = sum(map(len, pieces))
        places.extend(range(start, start + len(part)))
        pieces.append(part)

    for entity in _ENTITY.finditer(raw):
        keep(raw[last : entity.start()])
        character = html.unescape(entity.group())
        places.extend([sum(map(len, pieces))] * len(entity.group()))
        pieces.append(character)
        last = entity.end()
        if character != entity.group():
            notes.add("mended", "HTML entities", number, entity.group())
    keep(raw[last:])
    text = "".join(pieces)
    if "\n" in text or "\r" in text:
        notes.add("mended", "line ends in the text", number)
        text = text.replace("\n", " ").replace("\r", " ")
    if text != text.strip():
        notes.add("mended", "white space at an end of the text", number)
    shift = len(text) - len(text.lstrip())
    return _Text(text.strip(), [place - shift for place in [*places, len(text)]])


@dataclass(frozen=True)
class Mentions:
    """JSON Lines of a text and its entities with their offsets.

    Attributes:
        task: config name.
        kind: field of an entity's type.
        types: our type for each raw one.
    """

    task: str
    kind: str
    types: Mapping[str, str]

    def __call__(self, paths: Sequence[Path], notes: FileNotes) -> Iterator[RawSample]:
        seen: set[str] = set()
        for number, record in _objects(paths, notes):
            try:
                record.text("text", empty=True)  # that it is one
                text = _mended_text(record.get("text"), notes, number)
                entities = [self._entity(entity, text, notes, number) for entity in record.records("mention_data")]
            except RawError as error:
                notes.skip("a field is missing or wrong", number, _reason(error))
                continue
            if not text.text:
                notes.skip("an empty text", number)
                continue
            self._note_others(record, notes, number)
            if text.text in seen:
                notes.add("kept", "text of an earlier record", number, text.text)
            seen.add(text.text)
            order = {label: place for place, label in enumerate(REGISTRY[self.task].labels)}
            found = sorted(set(filter(None, entities)), key=lambda entity: (order[entity[1]], entity[0], entity[2]))
            if len(found) < len(list(filter(None, entities))):
                notes.add("mended", "an entity is listed twice", number)
            answer = [{"entity": mention, "type": kind} for _, kind, mention in found]
            content = Content({"INPUT_TEXT": text.text}, answer)
            yield RawSample(str(number), str(number), content, tuple(start for start, _, _ in found), located=True)

    def _entity(self, entity: Record, text: _Text, notes: FileNotes, number: int) -> tuple[int, str, str] | None:
        """Where an entity begins, its type and the mention as the text spells it; None if it cannot be used."""
        mention, kind = html.unescape(entity.text("mention", empty=True)), entity.label(self.kind)
        if kind not in self.types:
            entity.fail(self.kind, f"one of {', '.join(self.types)}", kind)
        if not mention:
            notes.add("skipped", "an empty mention", number)
            return None
        start = self._offset(entity, text, notes, number)
        if text.text.startswith(mention, start):
            return start, self.types[kind], mention
        folded, sought = text.text.lower(), mention.lower()
        places = [found.start() for found in re.finditer(re.escape(sought), folded)]
        if not places or len(folded) != len(text.text):
            notes.add("skipped", "a mention that is not in the text", number, mention)
            return None
        nearest = min(places, key=lambda place: abs(place - start))
        if nearest != start:
            example = f"{mention}: {start} -> {nearest}"
            notes.add("mended", "an offset that is not the mention's: the nearest taken", number, example)
        spelt = text.text[nearest : nearest + len(mention)]
        if spelt != mention:
            notes.add("mended", "a mention in other letter case than the text", number, f"{mention} -> {spelt}")
        return nearest, self.types[kind], spelt

    @staticmethod
    def _offset(entity: Record, text: _Text, notes: FileNotes, number: int) -> int:
        """An offset in the mended text; -1, which fits nowhere, if it lies outside the raw one."""
        value = entity.get("offset")
        if isinstance(value, str):
            notes.add("mended", "an offset written as a string", number)
            value = int(value) if value.strip().isdecimal() else -1
        elif isinstance(value, bool) or not isinstance(value, int):
            entity.fail("offset", "a number", value)
        return text.places[value] if 0 <= value < len(text.places) else -1

    def _note_others(self, record: Record, notes: FileNotes, number: int) -> None:
        others = {name for name in record.value if name not in ("text", "mention_data")}
        others |= {
            name
            for entity in record.items("mention_data")
            for name in entity
            if name not in ("mention", "offset", self.kind)
        }
        for name in sorted(others):
            notes.add("kept", f"a field '{name}' that is not used", number)


# --- Documents of queries, in pairs ---


@dataclass
class _Document:
    """A document of a query: its grade, and the pairs in which it stands."""

    grade: str
    pairs: list[int] = field(default_factory=list)


def _documents(labels: Sequence[str], paths: Sequence[Path], notes: FileNotes) -> Iterator[RawSample]:
    """Lines of a query and two documents; a document of several lines is one sample, which knows its pairs.

    Most pairs stand in the file a second time with a colon before one title, which is taken off.
    """
    queries: dict[str, dict[tuple[str, str], _Document]] = {}
    pairs: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for number, record in _objects(paths, notes):
        try:
            query = _clean(record.text("query"), notes, number)
            found = [_document(document, labels, notes, number) for document in record.records("documents")]
        except RawError as error:
            notes.skip("a field is missing or wrong", number, _reason(error))
            continue
        if len(found) != 2 or found[0][0] == found[1][0]:
            notes.skip("not two documents", number, query)
            continue
        of_query = queries.setdefault(query, {})
        pair = (query, frozenset(key for key, _ in found))
        for key, grade in found:
            document = of_query.setdefault(key, _Document(grade))
            if document.grade != grade:
                notes.add("skipped", "another grade for a document of the query", number, f"{query} | {key[1]}")
            if pair not in pairs:
                document.pairs.append(number)
        if pair in pairs:
            notes.add("mended", "a pair of an earlier line", number)
        pairs.add(pair)
    for place, (query, documents) in enumerate(queries.items(), 1):
        for rank, ((_, title), document) in enumerate(documents.items(), 1):
            content = Content({"INPUT_TEXT_1": query, "INPUT_TEXT_2": title}, document.grade)
            yield RawSample(f"{place}-{rank}", str(place), content, tuple(document.pairs))


def _document(document: Record, labels: Sequence[str], notes: FileNotes, number: int) -> tuple[tuple[str, str], str]:
    """Address and title of a document, and its grade."""
    title, grade = _clean(document.text("title"), notes, number), document.label("label")
    if title.startswith(":"):
        notes.add("mended", "a colon before the title", number, title)
        title = title.lstrip(":").strip()
    if not grade.isdecimal() or int(grade) >= len(labels):
        document.fail("label", f"a grade from 0 to {len(labels) - 1}", grade)
    return (document.text("url", empty=True), title or document.fail("title", "a title", title)), labels[int(grade)]


# --- Symptoms in dialogues ---

_status = renamed(dict(zip("213", REGISTRY["CMDD"].labels, strict=True)))
_SPAN, _STRAY = re.compile("BI*"), re.compile("(?<![BI])I+")


def _dialogues(paths: Sequence[Path], notes: FileNotes) -> Iterator[RawSample]:
    """Files of one dialogue each; the numbers of the records are those in the files' names."""
    for path in paths:
        number = int(re.findall(r"\d+", path.stem)[-1])
        notes.records += 1
        try:
            value = json.loads(path.read_bytes())
            record = Record(value if isinstance(value, dict) else {}, path, path.name)
            content = _dialogue(record, notes, number)
        except RawError as error:
            notes.skip("a field is missing or wrong", number, _reason(error))
        except (OSError, ValueError, RecursionError) as error:
            notes.skip("no JSON", number, f"{path.name}: {error}")
        else:
            yield RawSample(str(number), str(number), content)


def _dialogue(record: Record, notes: FileNotes, number: int) -> Content:
    """The dialogue, and the symptoms mentioned in it with their status; of several the last is taken."""
    lines: list[str] = []
    statuses: dict[str, str] = {}
    for turn in record.records("dialogue-content"):
        if not turn.text("sentence", empty=True):
            notes.add("skipped", "an empty utterance", number)
            continue
        lines.append(utterance(turn, "speaker", "sentence"))
        for mention, status in _symptoms(turn, notes, number):
            if not mention:
                notes.add("skipped", "an empty mention", number)
                continue
            if statuses.get(mention, status) != status:
                notes.add("mended", "a mention with several statuses: the last taken", number, mention)
            statuses[mention] = status
    if not lines:
        record.fail("dialogue-content", "utterances", [])
    answer = [{"entity": mention, "attr": status} for mention, status in statuses.items()]
    return Content({"INPUT_TEXT": "\n".join(lines)}, answer)


def _symptoms(turn: Record, notes: FileNotes, number: int) -> Iterator[tuple[str, str]]:
    """The mentions that an utterance's tags (one a character) mark, each with its status."""
    sentence, tags = turn.get("sentence"), turn.text("label", empty=True)
    kinds = [str(kind) for kind in turn.items("type")]
    if not isinstance(sentence, str) or len(tags) != len(sentence):
        notes.add("skipped", "tags and characters of an utterance differ in number", number, str(sentence))
        return
    spans = [found.span() for found in _SPAN.finditer(tags)]
    if len(spans) != len(kinds):
        for kind, other in _other_spans(tags):
            if len(other) == len(kinds):
                spans = other
                notes.add("mended", kind, number, f"{sentence} {tags}")
                break
        else:
            notes.add("skipped", "symptoms of an utterance whose tags and statuses differ in number", number, sentence)
            return
    elif _STRAY.search(tags):
        notes.add("mended", "an I tag after no B tag: left out", number, f"{sentence} {tags}")
    for (start, end), kind in zip(spans, kinds, strict=True):
        yield " ".join(sentence[start:end].split()), _status(turn, "type", kind)


def _other_spans(tags: str) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Other readings of tags, of which the annotators can have meant one."""
    strays = [found.span() for found in _STRAY.finditer(tags)]
    if strays:
        yield (
            "an I tag after no B tag: taken for a B tag",
            sorted([*strays, *(found.span() for found in _SPAN.finditer(tags))]),
        )
    yield "neighbouring mentions that have one status: joined", [found.span() for found in re.finditer("[BI]+", tags)]


_PAIR = ("INPUT_TEXT_1", "INPUT_TEXT_2")
_RECORD_TYPES = REGISTRY["cEHRNER"].labels

#: Every corpus by the name of its task.
CHINESEBLUE: Mapping[str, RawCorpus] = {
    corpus.task: corpus
    for corpus in (
        RawCorpus(
            "cEHRNER",
            r"{split}\.jsonl?",
            Mentions("cEHRNER", "label", dict(zip(_RECORD_TYPES, _RECORD_TYPES, strict=True))),
        ),
        RawCorpus(
            "cMedQANER",
            r"{split}\.jsonl?",
            Mentions("cMedQANER", "type", dict(zip(_COMMUNITY, REGISTRY["cMedQANER"].labels, strict=True))),
        ),
        _table("cMedQQ", "10", *_PAIR),
        _table("cMedQNLI", "10", *_PAIR),
        _table("cMedQA", "10", *_PAIR, grouped=True),
        RawCorpus("cMedIR", r"{split}\.jsonl?", partial(_documents, REGISTRY["cMedIR"].labels)),
        _table("cMedIC", "012", "INPUT_TEXT"),
        _table("cMedTC", list(CRITERIA), "INPUT_TEXT"),
        RawCorpus("CMDD", r"{split}_\d+\.json", _dialogues, by_split=True),
    )
}
