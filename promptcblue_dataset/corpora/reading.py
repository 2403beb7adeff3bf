"""What the readers share: records whose errors name file, record and field, and raw samples that load when drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_metric.answers import Answer
from promptcblue_metric.data.samples import SPLITS
from promptcblue_metric.errors import PromptCBLUEError

#: The raw files' word for each split.
_SPLIT_WORDS = {split: "|".join(words) for split, words in SPLITS.items()}


class RawError(PromptCBLUEError):
    """A record of a raw file that is not what its corpus should hold."""


class Content(NamedTuple):
    """What a raw sample puts into prompts.

    Attributes:
        fields: text by placeholder, such as ``INPUT_TEXT``.
        answer: the structured answer with the benchmark's own names, before any choices are drawn.
    """

    fields: Mapping[str, str]
    answer: Answer


class RawSamples(NamedTuple):
    """Raw samples that belong together, such as those of a dialogue, and are never in two splits.

    Attributes:
        group: what they come from.
        keys: one for each sample.
        load: reads and checks the content of a sample by its key, when the sample is drawn.
    """

    group: str
    keys: Sequence[Any]
    load: Callable[[Any], Content]


class LeftOut(NamedTuple):
    """How many parts of a record give no sample, and why."""

    reason: str
    times: int = 1


@dataclass(slots=True)  # frozen ones take four times as long to make
class Record:
    """A JSON object of a raw file, or one inside it; its getters name file, record and field in their errors."""

    value: Mapping[str, Any]
    path: Path
    name: str
    prefix: str = ""

    def fail(self, field: str, expected: str, found: object) -> NoReturn:
        """Raise `RawError` for a field."""
        raise RawError(
            f"{self.path}: {self.name}: field '{self.prefix}{field}': expected {expected}, found {found!r:.80}"
        )

    def has(self, *names: str) -> bool:
        """Whether one of the fields is there and not null."""
        for name in names:  # noqa: SIM110 - many times faster than any() of a generator
            if self.value.get(name) is not None:
                return True
        return False

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
        text = (value.replace("\r\n", "\n") if "\r" in value else value).strip()
        return text if text or empty else self.fail(names[0], "text", value)

    def line(self, *names: str, empty: bool = False) -> str:
        """A string for a place that holds one line."""
        return self.text(*names, empty=empty).replace("\n", " ")

    def label(self, *names: str) -> str:
        """A label, written as a string or a number."""
        value = self.get(*names)
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(names[0], "a label", value)
        return str(value)

    def items(self, *names: str) -> list[Any]:
        """A list."""
        value = self.get(*names)
        return value if isinstance(value, list) else self.fail(names[0], "a list", value)

    def texts(self, *names: str) -> list[str]:
        """A list of strings, each stripped, without the empty ones."""
        values = self.items(*names)
        for place, value in enumerate(values):
            if not isinstance(value, str):
                self.fail(f"{names[0]}[{place}]", "a string", value)
        return [line for value in values if (line := " ".join(value.split("\n")).strip())]

    def records(self, *names: str) -> list[Record]:
        """A list of objects."""
        return [self._inner(f"{names[0]}[{place}]", value) for place, value in enumerate(self.items(*names))]

    def item(self, name: str, place: int) -> Record:
        """One object of a list of them, so that what is not drawn is not checked."""
        return self._inner(f"{name}[{place}]", self.items(name)[place])

    def record(self, *names: str) -> Record:
        """An object."""
        return self._inner(names[0], self.get(*names))

    def _inner(self, field: str, value: object) -> Record:
        if not isinstance(value, dict):
            self.fail(field, "an object", value)
        return Record(value, self.path, self.name, f"{self.prefix}{field}.")


def read_records(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a JSON file with a name for each: a list, JSON Lines, or an object of records by id.

    Raises:
        RawError: the file or a line is no JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RawError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    start = data.lstrip()[:1]
    whole = None
    # A first line that is JSON by itself means JSON Lines, unless it is all that there is.
    if start == b"[" or data.count(b"\n") < 2 or (start == b"{" and not _is_json(data.lstrip().split(b"\n", 1)[0])):
        whole = _parse(data, path, "the file") if data.strip() else []
    if isinstance(whole, list):
        yield from ((f"record {number}", value) for number, value in enumerate(whole, 1))
    elif isinstance(whole, dict) and whole and all(isinstance(value, dict) for value in whole.values()):
        yield from ((f"record '{key}'", value) for key, value in whole.items())
    elif whole is not None:
        yield "record 1", whole
    else:
        for number, line in enumerate(data.split(b"\n"), 1):
            if line.strip():
                yield f"line {number}", _parse(line, path, f"line {number}")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse(data: bytes, path: Path, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RawError(f"{path}: {where}: expected JSON in UTF-8: {error}") from error


@dataclass
class Reading:
    """What was read of a corpus.

    Attributes:
        samples: the labelled raw samples, by task and by the split that their file is named for.
        offers: labels that prompts can offer, by task, where the corpus brings its own.
        left_out: what was not used, by task and reason.
        errors: records that could not be used, where those are passed over.
    """

    samples: dict[str, dict[str, list[RawSamples]]] = field(default_factory=dict)
    offers: dict[str, Sequence[str]] = field(default_factory=dict)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)


#: The one field of a record that is no object but a list.
LIST = "turns"

#: Called with each record that cannot be used; raises it, or keeps it and lets the reading go on.
OnError = Callable[[RawError], object]


def stop(error: RawError) -> NoReturn:
    """The default for ``on_error``: the first bad record ends the reading."""
    raise error


class Corpus:
    """A raw corpus: its name, the tasks it feeds, and how to read it."""

    name: str
    tasks: tuple[str, ...]

    def read(self, files: RawFiles, tasks: Sequence[str], seed: int, on_error: OnError = stop) -> Reading | None:
        """Read what the ``tasks`` need, or None where the corpus is not among the files.

        Args:
            seed: for what a corpus draws, such as documents that do not answer a query.

        Raises:
            RawError: a record is bad and ``on_error`` raised it.
        """
        raise NotImplementedError


def split_files(files: RawFiles, stem: str, suffix: str = r"\.jsonl?") -> dict[str, Path]:
    """The files ``{stem}_{train, dev or test}{suffix}`` by split; both parts are patterns."""
    found = {split: files.find(rf"{stem}[._-]({words}){suffix}") for split, words in _SPLIT_WORDS.items()}
    return {split: path for split, path in found.items() if path}


#: What one record gives.
Samples = Callable[[Record], "Iterable[RawSamples | LeftOut]"]


@dataclass(frozen=True)
class RecordCorpus(Corpus):
    """A corpus of JSON files ``{stem}_{split}.json`` whose records are read one by one.

    Attributes:
        stem: pattern of its file names.
        readers: the samples of a record, by task.
        task_stems: patterns of files of one task's own, which come before the shared ones.
    """

    name: str
    stem: str
    readers: Mapping[str, Samples]
    task_stems: Mapping[str, str] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.readers)

    def read(self, files: RawFiles, tasks: Sequence[str], seed: int, on_error: OnError = stop) -> Reading | None:
        wanted: dict[tuple[str, Path], list[str]] = {}
        for task in self.tasks:
            if task in tasks:
                own = self.task_stems.get(task)
                for split, path in ((own and split_files(files, own)) or split_files(files, self.stem)).items():
                    wanted.setdefault((split, path), []).append(task)
        if not wanted:
            return None
        reading = Reading()
        for (split, path), names in wanted.items():
            found: dict[str, list[RawSamples]] = {task: [] for task in names}
            for record in records_of(path, on_error):
                for task in names:
                    try:
                        self._add(found[task], record, task, reading.left_out)
                    except RawError as error:
                        on_error(error)
            for task, samples in found.items():
                if samples:
                    reading.samples.setdefault(task, {})[split] = samples
        return reading

    def _add(self, samples: list[RawSamples], record: Record, task: str, left_out: Counter[tuple[str, str]]) -> None:
        for found in self.readers[task](record):
            if isinstance(found, LeftOut):
                if found.times:
                    left_out[task, found.reason] += found.times
            elif found.keys:
                samples.append(found)


def records_of(path: Path, on_error: OnError) -> Iterator[Record]:
    """The records of a file that are objects; a list counts as an object with the field `LIST`."""
    for name, value in read_records(path):
        if isinstance(value, list):
            value = {LIST: value}
        if isinstance(value, dict):
            yield Record(value, path, name)
        else:
            on_error(RawError(f"{path}: {name}: expected an object, found {value!r:.80}"))


#: Why a record of a test file gives no sample.
UNLABELLED = "no labels"


def alone(record: Record, load: Callable[[Record], Content]) -> RawSamples:
    """A record that is one sample."""
    return RawSamples(record.name, (record,), load)


def labelled(*names: str) -> Callable[[Callable[[Record], Content]], Samples]:
    """Make a function from record to content a reader of one sample a record, where one of these fields is there."""

    def reader(load: Callable[[Record], Content]) -> Samples:
        def samples(record: Record) -> Iterable[RawSamples | LeftOut]:
            return (alone(record, load) if record.has(*names) else LeftOut(UNLABELLED),)

        return samples

    return reader


def plain(spelling: str) -> str:
    """A label's letters and digits in lower case, so that spellings that differ in hyphens or blanks are equal."""
    return "".join(character for character in spelling.casefold() if character.isalnum())


def renamed(names: Mapping[str, str]) -> Callable[[Record, str, str], str]:
    """A function that turns a raw label into ours, by either spelling."""
    known = {plain(spelling): ours for raw, ours in names.items() for spelling in (raw, ours)}

    def rename(record: Record, field: str, label: str) -> str:
        name = known.get(plain(label))
        return name if name is not None else record.fail(field, f"one of {', '.join(names)}", label)

    return rename
