"""Making samples of raw ones: drawn from the pool of a split, or each once; and asking CBLUE's own test files."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promptcblue_dataset.checks import check_row, encodable
from promptcblue_dataset.corpora import dialogues
from promptcblue_dataset.corpora import reading as raw
from promptcblue_dataset.corpora.archives import MAX_BYTES, RawError
from promptcblue_dataset.corpora.cblue import read_terms
from promptcblue_dataset.corpora.reading import Content, FileNotes, Group, Reading, Record
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.neighbours import Neighbours
from promptcblue_dataset.prompts.pool import TaskPrompts, fill, own_text
from promptcblue_dataset.prompts.render import RELEASED, Rendered, Renderer, Style
from promptcblue_metric.data.raw_labels import RAW_LABELS, RECORD_IDS, sample_id_of
from promptcblue_metric.data.samples import SPLITS, Sample
from promptcblue_metric.errors import RowError
from promptcblue_metric.scoring import located
from promptcblue_metric.submit.cblue import CBLUE_TASKS

#: The splits that are scored come first: a raw text that two splits have goes to the earlier one.
DRAWN = ("test", "validation", "train")
OFFICIAL_NAMES = {split: names[0] for split, names in SPLITS.items()}


@dataclass(frozen=True)
class Plan:
    """What to build.

    Attributes:
        sizes: samples by task and split; None in place of a task's sizes for each raw sample once.
        templates: a pool in the official form, or None for the project's own.
        drop_separators: leave out samples whose answer holds a separator.
        skip_bad: leave out raw records that cannot be used, rather than stop.
        from_test: make prompts of CBLUE's own test files, which have no answers, of each record once.
        use: raw files, folders or archives to take where several hold one corpus.
        max_bytes: the most that archives may unpack to, all together.
    """

    sizes: Mapping[str, Mapping[str, int] | None]
    style: Style = field(default_factory=Style)
    templates: Path | None = None
    seed: int = 0
    drop_separators: bool = False
    skip_bad: bool = False
    from_test: bool = False
    use: Sequence[Path] = ()
    max_bytes: int = MAX_BYTES

    @property
    def whole(self) -> bool:
        """Whether corpora are written whole."""
        return None in self.sizes.values()


class Making:
    """Makes the samples of a task, split by split."""

    def __init__(
        self, task: str, prompts: TaskPrompts, groups: Mapping[str, Sequence[Group]], reading: Reading, plan: Plan
    ) -> None:
        self.task, self.templates, self.groups, self.plan = task, prompts.templates, groups, plan
        self.notes = {split: found.notes for split, found in reading.splits[task].items()}
        self.counts: dict[str, Counter[str]] = {}
        self.bad: list[str] = []
        self._renderer = Renderer(prompts, plan.style, reading.offers.get(task), asked=plan.from_test)
        self._taken = Neighbours()
        self._prompts: set[str] = set()

    def samples(self, split: str) -> list[Sample]:
        """The samples of a split."""
        raise NotImplementedError


class Every(Making):
    """Each raw sample once, in the order of the files; the samples of a group get the template that it draws."""

    def samples(self, split: str) -> list[Sample]:
        made = []
        for group in self.groups.get(split, ()):
            for content in group.samples:
                try:
                    made.append(self._sample(split, group.name, content))
                except RowError as error:
                    self.notes[split].add("skipped", "a row that cannot be used", _number(content), error.message)
        contents = sum(len(group.samples) for group in self.groups.get(split, ()))
        counts = {"raw samples": contents, "templates": len(self.templates), "rows": len(made)}
        self.counts[split] = Counter(counts | {"rows asked for": len(made)})
        return made

    def _sample(self, split: str, group: str, content: Content) -> Sample:
        """The sample of a raw one.

        Raises:
            RowError: its target cannot be read back, or a text is not Unicode.
        """
        draws = Draws(self.plan.seed, self.task, split, group)
        template = draws.one(self.templates)
        sample_id = content.place if self.plan.from_test else f"{OFFICIAL_NAMES[split]}-{content.place}"
        rendered = self._renderer.sample(template, content, draws, sample_id)
        sample, notes = rendered.sample, self.notes[split]
        if rendered.separators:
            notes.add("kept", "a separator in a mention, which reads as two", _number(content), sample["target"])
        numbers: Sequence[int] = content.pairs
        if content.offsets and not rendered.separators:
            numbers = _offsets(content, template, sample, notes)
        if numbers:
            sample["sample_id"] += "@" + ".".join(map(str, numbers))
        check_row(sample, split, notes.path, _number(content))
        return sample


def _number(content: Content) -> int:
    number = content.place.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _offsets(content: Content, template: str, sample: Sample, notes: FileNotes) -> Sequence[int]:
    """Number and offset in the prompt of each entity that stands elsewhere than its place in the answer tells."""
    before = template.partition("[INPUT_TEXT]")[0]
    start = len(fill(before, {"LIST_LABELS": "，".join(sample["answer_choices"] or ())}))
    found = located(content.answer, sample["input"], sample["answer_choices"] or ())
    elsewhere: list[int] = []
    for number, (span, offset) in enumerate(zip(found, content.offsets, strict=True)):
        if span is None or span[1] != start + offset:
            elsewhere += (number, start + offset)
            kind = "an entity that its place in the answer does not locate: its offset is in the id"
            notes.add("kept", kind, _number(content))
    return elsewhere


class Drawing(Making):
    """Pairs of raw sample and template, in the order in which they are drawn."""

    def samples(self, split: str) -> list[Sample]:
        size = (self.plan.sizes[self.task] or {})[split]
        groups, templates = self.groups.get(split, ()), self.templates
        ends = list(itertools.accumulate((len(group.samples) for group in groups), initial=0))

        def raw_sample(number: int) -> Content:  # composed when it is drawn
            group = bisect_right(ends, number) - 1
            return groups[group].samples[number - ends[group]]

        self.counts[split] = Counter({"raw samples": ends[-1], "templates": len(templates), "rows asked for": size})
        order = Draws(self.plan.seed, self.task, split, "order").order(ends[-1] * len(templates))
        contents: dict[int, Content | None] = {}
        made: list[Sample] = []
        # Samples are left out for many reasons, so what is missing is drawn again.
        while len(made) < size and (drawn := list(itertools.islice(order, size - len(made)))):
            numbers = dict.fromkeys(place // len(templates) for place in drawn)
            fresh = {number: raw_sample(number) for number in numbers if number not in contents}
            contents |= self._apart(split, fresh)
            for place in drawn:
                number, template = divmod(place, len(templates))
                sample = (content := contents[number]) and self._sample(split, place, templates[template], content)
                if sample:
                    made.append(sample)
        if split != DRAWN[-1]:
            self._taken.add([own_text(content.fields) for content in contents.values() if content])
        self.counts[split]["rows"] = len(made)
        return made

    def _apart(self, split: str, fresh: Mapping[int, Content]) -> Iterator[tuple[int, Content | None]]:
        """Raw samples; None stands for those that an earlier split has."""
        texts = [own_text(content.fields) for content in fresh.values()]
        for (number, content), found in zip(fresh.items(), self._taken.find(texts), strict=True):
            if found is not None:
                kind = "equal" if found[1] == 1 else "nearly equal"
                self.counts[split][f"raw samples left out: {kind} to one of an earlier split"] += 1
            yield number, content if found is None else None

    def _sample(self, split: str, place: int, template: str, content: Content) -> Sample | None:
        counts = self.counts[split]
        draws = Draws(self.plan.seed, self.task, split, place)
        rendered = self._renderer.sample(template, content, draws, f"{OFFICIAL_NAMES[split]}-{place}")
        if rendered.sample["input"] in self._prompts:
            counts["rows left out: prompt drawn before"] += 1
            return None
        if rendered.separators:
            if self.plan.drop_separators:
                counts["rows left out: separator in the answer"] += 1
                return None
            counts["rows with a separator in the answer"] += 1
        if self.plan.style.dialect == RELEASED and not _sure(rendered):
            try:
                check_row(rendered.sample, split, Path("built row"), place)
            except RowError as error:
                counts["rows left out: target cannot be read back"] += 1
                if not rendered.separators:
                    self.bad.append(f"{self.task}: {error}")
                return None
        self._prompts.add(rendered.sample["input"])
        return rendered.sample


def _sure(rendered: Rendered) -> bool:
    """Whether a sample needs no check: a target without separators is written so that it reads back as it was."""
    sample = rendered.sample
    texts = (sample["input"], sample["target"], *(sample["answer_choices"] or ()))
    complete = bool(sample["target"].strip()) and sample["answer_choices"] != []
    return complete and not rendered.separators and encodable("".join(texts))


# --- CBLUE's test files, which have no answers ---

#: The most findings of a dialogue that one prompt asks for.
_MOST_FINDINGS = 8
#: What a record is asked, without answers; the place of each is the id of its sample.
_Parts = Callable[[Record], Iterator[Content]]


def unanswered(sources: raw.Sources) -> Reading:
    """The raw samples of the test files of a corpus; `promptcblue-metric cblue` hands in what is answered.

    A record is one, of IMCS-V2 each utterance, and of CHIP-MDCFNPC a dialogue with at most eight findings.
    """
    reading = Reading()
    for task, splits in sources.splits.items():
        parts = _parts(task)
        if parts and "test" in splits:
            file = splits["test"][-1]  # the shared file of IMCS-V2, which has the texts
            notes = FileNotes(file.name)
            groups = reading.splits.setdefault(task, {}).setdefault("test", raw.RawSplit(notes)).groups
            kind = dialogues.Consultation if task in dialogues.IMCS.tasks else Record
            for record in raw.records_of(file, notes, kind, RECORD_IDS.get(task, "")):
                if (field := RECORD_IDS.get(task)) and not record.has(field):
                    record.place.note("left out", f"no '{field}', by which CBLUE's submission names a record")
                    continue
                try:
                    groups.append(Group(record.place.id, list(parts(record))))
                except RawError as error:
                    record.place.bad(error)
    if "terms" in sources.others:
        reading.offers.update(dict.fromkeys(reading.splits, read_terms(sources.others["terms"])))
    if "CMeIE" in reading.splits:
        reading.offers["CMeIE"] = list(RAW_LABELS["CMeIE"].ours)
    return reading


def _parts(task: str) -> _Parts | None:
    texts = CBLUE_TASKS[task].fields if task in CBLUE_TASKS else ()
    if task in _DIALOGUES or not texts:
        return _DIALOGUES.get(task)
    placeholders = ("INPUT_TEXT",) if len(texts) == 1 else ("INPUT_TEXT_1", "INPUT_TEXT_2")
    fields = dict(zip(placeholders, texts, strict=True))

    def parts(record: Record) -> Iterator[Content]:
        texts = {placeholder: record.line(field, empty=True) for placeholder, field in fields.items()}
        yield Content(texts, [], sample_id_of(record.place.id))

    return parts


def _asked(record: Record, text: str, name: str = "", part: str | None = None, **fields: str) -> Content:
    return Content({"INPUT_TEXT": text, **fields}, [], sample_id_of(name or record.place.id, part))


def _utterances(text: Callable[[dialogues.Consultation, int], str]) -> _Parts:
    def parts(record: Record) -> Iterator[Content]:
        assert isinstance(record, dialogues.Consultation)
        for place, turn in enumerate(record.turns):
            yield _asked(record, text(record, place), f"{record.place.id}_{turn.label('sentence_id')}")

    return parts


def _report(record: Record) -> Iterator[Content]:
    assert isinstance(record, dialogues.Consultation)
    yield _asked(record, dialogues.report_text(record))


def _history(record: Record) -> Iterator[Content]:
    said = record.texts("history") if isinstance(record.get("history"), list) else [record.text("history")]
    yield _asked(record, "\n".join(said))


def _findings(record: Record) -> Iterator[Content]:
    """The dialogue, cut where eight findings were named, and so on; one that comes up again is asked again."""
    turns = record.records("dialog_info")
    lines = [dialogues.utterance(turn, "sender", "text") for turn in turns]
    named = [
        [finding.line("mention", "name") for finding in (turn.records("ner") if turn.has("ner") else ())]
        for turn in turns
    ]
    if not any(named):
        record.place.note("left out", "no findings to ask about")
    asked: dict[str, None] = {}
    for place, names in enumerate(named):
        asked.update(dict.fromkeys(names))
        following = named[place + 1] if place + 1 < len(turns) else None
        if asked and (following is None or len({*asked, *following}) > _MOST_FINDINGS):
            text, part = "\n".join(lines[: place + 1]), turns[place].label("sentence_id")
            yield _asked(record, text, part=part, LIST_MENTIONS="，".join(asked))
            asked = {}


_DIALOGUES: Mapping[str, _Parts] = {
    "IMCS-V2-NER": _utterances(lambda record, place: record.turns[place].line("sentence", empty=True)),
    "IMCS-V2-DAC": _utterances(dialogues.act_text),
    "IMCS-V2-SR": _utterances(dialogues.symptom_text),
    "IMCS-V2-MRG": _report,
    "CHIP-MDCFNPC": _findings,
    "MedDG": _history,
}
