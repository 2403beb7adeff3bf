"""Making samples: of raw ones, drawn from the pool of a split or each once; and of the rows of official files."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptcblue_dataset.corpora.archives import MAX_BYTES, encodable
from promptcblue_dataset.corpora.reading import Content, FileNotes, Group, Reading
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.neighbours import Neighbours
from promptcblue_dataset.prompts.pool import TaskPrompts, fill, own_text
from promptcblue_dataset.prompts.render import RELEASED, Rendered, Renderer, Style
from promptcblue_metric.data.samples import SPLITS, BadRows, Sample, read_json_lines, sample_from_row
from promptcblue_metric.errors import RowError
from promptcblue_metric.scoring import located
from promptcblue_metric.tasks import REGISTRY

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
        most_bad: with it, stop where more than this many raw records or files cannot be used; None for no limit.
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
    most_bad: int | None = None
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
        if self.plan.style.dialect == RELEASED and not _sure(rendered, template):
            try:
                check_row(rendered.sample, split, Path("built row"), place)
            except RowError as error:
                counts["rows left out: target cannot be read back"] += 1
                if not rendered.separators:
                    self.bad.append(f"{self.task}: {error}")
                return None
        self._prompts.add(rendered.sample["input"])
        return rendered.sample


def _sure(rendered: Rendered, template: str) -> bool:
    """Whether a sample needs no check: a target without separators is written so that it reads back as it was.

    What corpora say is Unicode, or their readers skip it; a pool of templates may be anything.
    """
    sample = rendered.sample
    complete = bool(sample["target"].strip()) and sample["answer_choices"] != []
    return complete and not rendered.separators and encodable(template)


# --- Rows of official files ---


@dataclass
class Checked:
    """What the checks found in a set of split files.

    Attributes:
        samples: the good samples in the order of their files, by config and split, configs in the registry's order.
        bad: the rows that were left out, and why.
        rows: rows read, good and bad.
        warnings: how often each kind of flaw was seen in a target that can be read nevertheless, by config and kind.
    """

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    bad: BadRows = field(default_factory=BadRows)
    rows: int = 0
    warnings: Counter[tuple[str, str]] = field(default_factory=Counter)


def check_files(files: Iterable[tuple[str, Path]], on_row: Callable[[str], object] = lambda split: None) -> Checked:
    """Read and check files, each of a split; ``on_row`` is called with the split of every row that is JSON."""
    checked = Checked()
    for split, path in files:
        _check_file(path, split, checked, on_row)
    checked.rows += len(checked.bad)
    checked.samples = {name: checked.samples[name] for name in REGISTRY if name in checked.samples}
    return checked


def _check_file(path: Path, split: str, checked: Checked, on_row: Callable[[str], object]) -> None:
    first_line: dict[tuple[str, str], int] = {}
    for line, row in read_json_lines(path, checked.bad):
        on_row(split)
        try:
            sample, flaws = check_row(row, split, path, line)
            task, key = sample["task_dataset"], (sample["task_dataset"], sample["sample_id"])
            if key in first_line:
                message = f"'{key[1]}' of {task} stands in line {first_line[key]} already"
                raise RowError(str(path), line, "sample_id", message)
        except RowError as error:
            checked.bad.append(error)
            continue
        first_line[key] = line
        checked.rows += 1
        checked.warnings.update((task, kind) for kind in flaws)
        checked.samples.setdefault(task, {}).setdefault(split, []).append(sample)


def check_row(row: Mapping[str, Any], split: str, path: Path, line: int) -> tuple[Sample, set[str]]:
    """The sample of a row, and the kinds of flaws in its target that can be read nevertheless.

    Raises:
        RowError: a field is missing or wrong, or the target cannot be used.
    """
    sample = sample_from_row(row, path, line)
    # JSON can escape half of a surrogate pair, which no file in UTF-8 can hold.
    for name, text in {**sample, "answer_choices": "".join(sample["answer_choices"] or ())}.items():
        if not encodable(str(text)):
            raise RowError(str(path), line, name, "expected Unicode text, found an unpaired surrogate escape")
    target, task = sample["target"], REGISTRY[sample["task_dataset"]]
    if not target and split == "test":
        return sample, set()
    if not target.strip():
        raise RowError(str(path), line, "target", f"expected an answer, found none; the {split} split needs targets")
    parsed = task.format.parse(target, task.choices(sample["answer_choices"]))
    kinds = {problem.kind for problem in parsed.problems}
    if not parsed.readable:
        message = f"expected an answer as {task.name} writes it, found {target!r:.80} ({', '.join(sorted(kinds))})"
        raise RowError(str(path), line, "target", message)
    return sample, set(kinds)
