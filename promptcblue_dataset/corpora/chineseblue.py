"""The corpora of ChineseBLUE, as they are published: each record gives a sample, with its repairs noted.

But for cMedIR, whose records are pairs of documents and whose samples are the documents of a query.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from promptcblue_dataset.corpora.archives import RawError, RawFile, RawFiles
from promptcblue_dataset.corpora.dialogues import utterance
from promptcblue_dataset.corpora.reading import (
    Content,
    Corpus,
    FileNotes,
    Group,
    Place,
    RawSplit,
    Reading,
    Record,
    Sources,
    lines_of,
    our_label,
    read_label,
    records_of,
    unquoted,
)
from promptcblue_metric.data.raw_labels import RAW_LABELS
from promptcblue_metric.data.samples import SPLITS
from promptcblue_metric.tasks import REGISTRY


@dataclass(frozen=True)
class FolderCorpus(Corpus):
    """A corpus that stands in a folder named for its task, a file a split.

    Attributes:
        name: config name of its task.
        files: pattern of the names of a split's files, ``{split}`` being the split's raw name.
        samples: those of a split's files (one, but for CMDD).
        by_split: whether the files of a split stand in a folder named for the split.
    """

    name: str
    files: str
    samples: Callable[[Sequence[RawFile], FileNotes], Iterable[Group]]
    by_split: bool = False

    def find(self, files: RawFiles) -> Sources:
        """The files of each split, in the order of their numbers."""
        sources = Sources()
        for split, (name, *_) in SPLITS.items():
            pattern = self.files.format(split=name)
            if self.by_split:
                found = files.find_each(pattern, name)
            else:
                file = files.find(pattern, [self.name], nowhere_else=True)
                found = [file] if file else []
            if found:
                found.sort(key=lambda file: (*map(int, re.findall(r"\d+", file.name.stem)), str(file.name)))
                sources.splits.setdefault(self.name, {})[split] = found
        return sources

    def read(self, sources: Sources, seed: int = 0) -> Reading:
        """The samples of each split, in the order of its records."""
        reading = Reading()
        for split, files in sources.splits.get(self.name, {}).items():
            found = RawSplit(FileNotes(files[0].name))
            try:
                found.groups = list(self.samples(files, found.notes))
            except RawError as error:
                Place(found.notes, "the file", 1, "").bad(error)
            reading.splits.setdefault(self.name, {})[split] = found
        return reading


def _each(files: Sequence[RawFile], notes: FileNotes, read: Callable[[Record], Content | None]) -> Iterator[Group]:
    """What the records of a file of JSON Lines give."""
    for record in records_of(files[0], notes, Record):
        record.place.id = str(record.place.number)
        try:
            content = read(record)
        except RawError as error:
            record.place.bad(error)
        else:
            if content:
                yield Group(record.place.id, (content._replace(place=record.place.id),))


def _clean(text: str, place: Place) -> str:
    """A text without white space at its ends and with the characters that HTML entities stand for."""
    if text != text.strip():
        place.note("mended", "white space at an end of the text")
        text = text.strip()
    plain_text = html.unescape(text)
    if plain_text != text:
        place.note("mended", "HTML entities", text)
    return plain_text.strip()


# --- Tables: label, then one text or two ---


def _rows(
    task: str, placeholders: Sequence[str], grouped: bool, files: Sequence[RawFile], notes: FileNotes
) -> Iterator[Group]:
    """Lines of label and texts between tabs; where they are grouped, those with one first text belong together."""
    seen: dict[tuple[str, ...], str] = {}
    groups: dict[str, list[int]] = {}
    for number, line in lines_of(files[0].read(), notes):
        place = Place(notes, f"line {number}", number, str(number))
        raw, *parts = line.split("\t")
        if (bare := raw.strip()) != raw:
            place.note("mended", "white space around a label", repr(raw))
        label = read_label(bare, task, place)
        if len(parts) != len(placeholders):
            place.note("skipped", f"not {len(placeholders) + 1} columns", line)
            continue
        texts = tuple(_clean(unquoted(part, place), place) for part in parts)
        if label is None or not all(texts):
            place.note("skipped", "an empty text" if label else "an unknown label", line)
            continue
        if texts in seen:
            kind = "texts of an earlier record" + (", with another label" if seen[texts] != label else "")
            place.note("kept", kind, " | ".join(texts))
        seen[texts] = label
        group = place.id
        if grouped:
            of_group = groups.setdefault(texts[0], [len(groups) + 1, 0])
            of_group[1] += 1
            group, place.id = str(of_group[0]), f"{of_group[0]}-{of_group[1]}"
        content = Content(dict(zip(placeholders, texts, strict=True)), label, place.id)
        yield Group(group, (content,))


def _table(task: str, *placeholders: str, grouped: bool = False) -> FolderCorpus:
    return FolderCorpus(task, r"{split}\.(txt|tsv)", partial(_rows, task, placeholders, grouped))


# --- Entities ---

_ENTITY = re.compile(r"(&(?:#\d+|#[xX][0-9a-fA-F]+|[a-zA-Z]+);)")
#: Fields beside that of an entity's type.
_USED = ("text", "mention_data", "mention", "offset")


class _Text(NamedTuple):
    """A text without what was wrong with it, and where each place of the raw one is in it."""

    text: str
    places: Sequence[int]


def _mended_text(raw: str, place: Place) -> _Text:
    """As `_clean`, but keeping track of places. A line end becomes a blank."""
    text, places = "", list[int]()
    for number, part in enumerate(_ENTITY.split(raw)):
        if number % 2:
            character = html.unescape(part)
            if character != part:
                place.note("mended", "HTML entities", part)
            places += [len(text)] * len(part)
            text += character
        else:
            places += range(len(text), len(text) + len(part))
            text += part
    if "\n" in text or "\r" in text:
        place.note("mended", "line ends in the text")
        text = text.replace("\n", " ").replace("\r", " ")
    if text != text.strip():
        place.note("mended", "white space at an end of the text")
    shift = len(text) - len(text.lstrip())
    return _Text(text.strip(), [number - shift for number in [*places, len(text)]])


def _mentions(task: str, kind: str, files: Sequence[RawFile], notes: FileNotes) -> Iterator[Group]:
    """JSON Lines of a text and its entities with their offsets, their types in the field ``kind``."""
    seen: set[str] = set()
    order = {label: place for place, label in enumerate(REGISTRY[task].labels)}

    def read(record: Record) -> Content | None:
        place = record.place
        raw = record.get("text")
        text = _mended_text(raw if isinstance(raw, str) else record.fail("text", "a string", raw), place)
        entities = [_entity(entity, text, task, kind) for entity in record.records("mention_data")]
        if not text.text:
            place.note("skipped", "an empty text")
            return None
        for name in sorted(set(record.value).union(*record.items("mention_data")) - {*_USED, kind}):
            place.note("kept", f"a field '{name}' that is not used")
        if text.text in seen:
            place.note("kept", "text of an earlier record", text.text)
        seen.add(text.text)
        found = sorted(set(filter(None, entities)), key=lambda entity: (order[entity[1]], entity[0], entity[2]))
        if len(found) < len(list(filter(None, entities))):
            place.note("mended", "an entity is listed twice")
        answer = [{"entity": mention, "type": kind} for _, kind, mention in found]
        return Content({"INPUT_TEXT": text.text}, answer, offsets=tuple(start for start, _, _ in found))

    return _each(files, notes, read)


def _entity(entity: Record, text: _Text, task: str, field: str) -> tuple[int, str, str] | None:
    """Where an entity begins, its type and the mention as the text spells it; None if it cannot be used."""
    place = entity.place
    mention, kind = html.unescape(entity.text("mention", empty=True)), our_label(entity, field, task)
    if not mention:
        place.note("left out", "an empty mention")
        return None
    offset = entity.number("offset")
    start = text.places[offset] if 0 <= offset < len(text.places) else -1  # which fits nowhere
    if text.text.startswith(mention, start):
        return start, kind, mention
    folded, sought = text.text.lower(), mention.lower()
    places = [found.start() for found in re.finditer(re.escape(sought), folded)]
    if not places or len(folded) != len(text.text):
        place.note("left out", "a mention that is not in the text", mention)
        return None
    nearest = min(places, key=lambda found: abs(found - start))
    if nearest != start:
        example = f"{mention}: {start} -> {nearest}"
        place.note("mended", "an offset that is not the mention's: the nearest taken", example)
    spelt = text.text[nearest : nearest + len(mention)]
    if spelt != mention:
        place.note("mended", "a mention in other letter case than the text", f"{mention} -> {spelt}")
    return nearest, kind, spelt


# --- Documents of queries, in pairs ---


def _documents(files: Sequence[RawFile], notes: FileNotes) -> Iterator[Group]:
    """Lines of a query and two documents; a document of several lines is one sample, which knows its lines.

    Most pairs stand in the file a second time with a colon before one title, which is taken off.
    """
    queries: dict[str, dict[tuple[str, str], tuple[str, list[int]]]] = {}
    pairs: set[tuple[str, frozenset[tuple[str, str]]]] = set()

    def read(record: Record) -> None:
        place, query = record.place, _clean(record.text("query"), record.place)
        found = [_document(document) for document in record.records("documents")]
        if len(found) != 2 or found[0][0] == found[1][0]:
            place.note("skipped", "not two documents", query)
            return
        of_query = queries.setdefault(query, {})
        pair = (query, frozenset(key for key, _ in found))
        for key, grade in found:
            first, numbers = of_query.setdefault(key, (grade, []))
            if first != grade:
                place.note("left out", "another grade for a document of the query", f"{query} | {key[1]}")
            if pair not in pairs:
                numbers.append(place.number)
        if pair in pairs:
            place.note("mended", "a pair of an earlier line")
        pairs.add(pair)

    list(_each(files, notes, read))
    for number, (query, documents) in enumerate(queries.items(), 1):
        samples = []
        for rank, ((_, title), (grade, numbers)) in enumerate(documents.items(), 1):
            fields = {"INPUT_TEXT_1": query, "INPUT_TEXT_2": title}
            samples.append(Content(fields, grade, f"{number}-{rank}", pairs=tuple(numbers)))
        yield Group(str(number), samples)


def _document(document: Record) -> tuple[tuple[str, str], str]:
    """Address and title of a document, and its grade."""
    place, title = document.place, _clean(document.text("title"), document.place)
    if title.startswith(":"):
        place.note("mended", "a colon before the title", title)
        title = title.lstrip(":").strip()
    grade = our_label(document, "label", "cMedIR")
    return (document.text("url", empty=True), title or document.fail("title", "a title", title)), grade


# --- Symptoms in dialogues ---

_SPAN, _STRAY = re.compile("BI*"), re.compile("(?<![BI])I+")
#: Other readings of tags, of which the annotators can have meant one.
_OTHER_SPANS = {
    "an I tag after no B tag: taken for a B tag": re.compile("(?:B|(?<![BI])I)I*"),
    "neighbouring mentions that have one status: joined": re.compile("[BI]+"),
}


def _dialogues(files: Sequence[RawFile], notes: FileNotes) -> Iterator[Group]:
    """Files of one dialogue each; the numbers of the records are those in the files' names."""
    notes.path = files[0].name.parent if len(files) > 1 else notes.path
    for file in files:
        number = int(re.findall(r"\d+", file.name.stem)[-1])
        place = Place(notes, file.name.name, number, str(number))
        notes.records += 1
        try:
            value = json.loads(file.read())
            content = _dialogue(Record(value if isinstance(value, dict) else {}, place))
        except RawError as error:
            place.bad(error)
        except (ValueError, RecursionError) as error:
            place.note("skipped", "no JSON", f"{file.name.name}: {error}")
        else:
            yield Group(place.id, (content,))


def _dialogue(record: Record) -> Content:
    """The dialogue, and the symptoms mentioned in it with their status; of several the last is taken."""
    place = record.place
    lines: list[str] = []
    statuses: dict[str, str] = {}
    for turn in record.records("dialogue-content"):
        if not turn.text("sentence", empty=True):
            place.note("left out", "an empty utterance")
            continue
        lines.append(utterance(turn, "speaker", "sentence"))
        for mention, status in _symptoms(turn):
            if not mention:
                place.note("left out", "an empty mention")
                continue
            if statuses.get(mention, status) != status:
                place.note("mended", "a mention with several statuses: the last taken", mention)
            statuses[mention] = status
    if not lines:
        record.fail("dialogue-content", "utterances", [])
    answer = [{"entity": mention, "attr": status} for mention, status in statuses.items()]
    return Content({"INPUT_TEXT": "\n".join(lines)}, answer, place.id)


def _symptoms(turn: Record) -> Iterator[tuple[str, str]]:
    """The mentions that an utterance's tags (one a character) mark, each with its status."""
    place = turn.place
    sentence, tags = turn.get("sentence"), turn.text("label", empty=True)
    kinds = [str(kind) for kind in turn.items("type")]
    if not isinstance(sentence, str) or len(tags) != len(sentence):
        place.note("left out", "tags and characters of an utterance differ in number", str(sentence))
        return
    spans = [found.span() for found in _SPAN.finditer(tags)]
    if len(spans) != len(kinds):
        for kind, pattern in _OTHER_SPANS.items():
            spans = [found.span() for found in pattern.finditer(tags)]
            if len(spans) == len(kinds):
                place.note("mended", kind, f"{sentence} {tags}")
                break
        else:
            place.note("left out", "symptoms of an utterance whose tags and statuses differ in number", sentence)
            return
    elif _STRAY.search(tags):
        place.note("mended", "an I tag after no B tag: left out", f"{sentence} {tags}")
    for (start, end), kind in zip(spans, kinds, strict=True):
        known = read_label(kind, "CMDD", place)
        if known is None:
            turn.fail("type", f"one of {', '.join(RAW_LABELS['CMDD'].ours)}", kind)
        yield " ".join(sentence[start:end].split()), known


_PAIR = ("INPUT_TEXT_1", "INPUT_TEXT_2")

#: Every corpus by the name of its task.
CHINESEBLUE: Mapping[str, FolderCorpus] = {
    corpus.name: corpus
    for corpus in (
        FolderCorpus("cEHRNER", r"{split}\.jsonl?", partial(_mentions, "cEHRNER", "label")),
        FolderCorpus("cMedQANER", r"{split}\.jsonl?", partial(_mentions, "cMedQANER", "type")),
        _table("cMedQQ", *_PAIR),
        _table("cMedQNLI", *_PAIR),
        _table("cMedQA", *_PAIR, grouped=True),
        FolderCorpus("cMedIR", r"{split}\.jsonl?", _documents),
        _table("cMedIC", "INPUT_TEXT"),
        _table("cMedTC", "INPUT_TEXT"),
        FolderCorpus("CMDD", r"{split}_\d+\.json", _dialogues, by_split=True),
    )
}
