"""From the raw files of ChineseBLUE to the dataset: every record a row, every repair in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptcblue_dataset.checks import check_row
from promptcblue_dataset.corpora.archives import raw_files
from promptcblue_dataset.corpora.chineseblue import CHINESEBLUE
from promptcblue_dataset.corpora.reading import Content, FileNotes, Group
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.folder import ConfigInfo, Origin, write_card, write_config
from promptcblue_dataset.importer import check_output, fill_cache
from promptcblue_dataset.prompts.pool import TaskPrompts, fill, load_pool
from promptcblue_dataset.prompts.render import Renderer, Style
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import SPLITS, Sample
from promptcblue_metric.data.writing import replacing, write_json
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.scoring import located
from promptcblue_metric.tasks import REGISTRY

#: Seeds the choice of each row's template.
_SEED = 0


@dataclass(frozen=True)
class RawSplit:
    """What became of the raw files of a split of a corpus.

    Attributes:
        task: config name.
        split: name of the split.
        file: the file, or the folder whose files are its records, as a user sees them.
        documented: how many records the corpus's authors say it has.
        notes: what was read, mended and skipped; None where no file is there.
        samples: rows that were made.
    """

    task: str
    split: str
    file: str
    documented: int
    notes: FileNotes | None = None
    samples: int = 0


@dataclass(frozen=True)
class RawImported:
    """What an import of raw files did.

    Attributes:
        output: the folder it wrote.
        report: the JSON file beside it that lists every repair and everything that was left out.
        cached: whether the datasets cache was filled.
        splits: every split of every corpus, those without a file too.
    """

    output: Path
    report: Path
    cached: bool
    splits: Sequence[RawSplit]

    @property
    def read(self) -> list[RawSplit]:
        """The splits that have a file."""
        return [split for split in self.splits if split.notes]


def import_raw(
    source: str | Path,
    output: str | Path,
    *,
    skip_bad: bool = True,
    overwrite: bool = False,
    cache: bool = True,
    on_progress: Progress = lambda doing, item, total: None,
) -> RawImported:
    """Read the raw corpora of ChineseBLUE in ``source`` and write them to ``output``, whole or not at all.

    Every record is one row (of cMedIR, every document of a query), in the order of the files, with a template that its
    number draws. All labels are offered.

    Args:
        source: the folder with a folder or archive a corpus, as published; or an archive of it.
        output: the folder to write; one that an earlier import wrote is replaced.
        skip_bad: leave out records that cannot be used, and list them; otherwise stop if there are any.
        overwrite: replace ``output`` whatever it holds.
        cache: make the rows what ``load_dataset("chineseblue", ...)`` gives in any folder.

    Raises:
        PromptCBLUEError: there is nothing to read, or something cannot be written.
    """
    source, output = Path(source).expanduser(), Path(output).expanduser()
    check_output(output, source, overwrite)
    pool = load_pool(tasks=CHINESEBLUE)
    splits: list[RawSplit] = []
    infos: dict[str, ConfigInfo] = {}
    with raw_files(source) as files, replacing(output) as temporary:
        for task, corpus in CHINESEBLUE.items():
            written: dict[str, list[Sample]] = {}
            sources = corpus.find(files, [task])
            read = corpus.read(sources).splits.get(task, {})
            for split, documented in zip(SPLITS, REGISTRY[task].sizes, strict=True):
                found = sources.splits.get(task, {}).get(split, [])
                name = f"{task}/{found[0].name.name if len(found) == 1 else SPLITS[split][0]}"
                splits.append(RawSplit(task, split, name, documented))
                if split in read:
                    groups, notes = read[split].groups, read[split].notes
                    if rows := _rows(task, split, groups, pool[task], notes):
                        written[split] = rows
                    splits[-1] = replace(splits[-1], notes=notes, samples=len(rows))
            if written:
                infos[task] = write_config(temporary, task, written)
            on_progress("reading", task, len(CHINESEBLUE))
        _stop_where_needed(source, splits, skip_bad=skip_bad)
        write_card(temporary, infos, Origin("apache-2.0", _ORIGIN, _findings(splits)))
    report = output.absolute().with_name(f"{output.absolute().name}-import-report.json")
    imported = RawImported(output, report, cache, splits)
    write_json(report, _report(imported, source))
    if cache:
        fill_cache(output, list(infos), on_progress)
    return imported


def _rows(task: str, split: str, groups: Sequence[Group], prompts: TaskPrompts, notes: FileNotes) -> list[Sample]:
    rows = []
    for group in groups:
        for content in group.samples:
            try:
                rows.append(_row(task, split, group.name, content, prompts, notes))
            except RowError as error:
                notes.skip("a row that cannot be used", _number(content), error.message)
    return rows


def _number(content: Content) -> int:
    return int(content.place.partition("-")[0])


def _row(task: str, split: str, group: str, content: Content, prompts: TaskPrompts, notes: FileNotes) -> Sample:
    """The row of a raw sample.

    Raises:
        RowError: it cannot be used: its target cannot be read back, or a text is not Unicode.
    """
    name = SPLITS[split][0]
    draws = Draws(_SEED, task, split, group)
    template = draws.one(prompts.templates)
    row = Renderer(prompts, Style()).sample(template, content, draws, f"{name}-{content.place}")
    sample = row.sample
    if row.separators:
        notes.add("kept", "a separator in a mention, which reads as two", _number(content), sample["target"])
    numbers: Sequence[int] = content.pairs
    if content.offsets and not row.separators:
        numbers = _offsets(content, template, sample, notes)
    if numbers:
        sample["sample_id"] += "@" + ".".join(map(str, numbers))
    check_row(sample, split, notes.path, _number(content))
    return sample


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


def _stop_where_needed(source: Path, splits: Sequence[RawSplit], *, skip_bad: bool) -> None:
    read = [split for split in splits if split.notes]
    if not any(split.samples for split in read):
        raise PromptCBLUEError(
            f"{source}: no raw corpora of ChineseBLUE; expected folders such as cMedQQ with train.txt, dev.txt and "
            "test.txt (files in the official PromptCBLUE form are imported without --suite)"
        )
    bad = [split for split in read if split.notes and split.notes.skipped]
    if bad and not skip_bad:
        listed = [
            f"{split.file}: {kind}: {', '.join(finding.examples)}"
            for split in bad
            for (action, kind), finding in (split.notes.findings.items() if split.notes else ())
            if action == "skipped"
        ]
        raise PromptCBLUEError("\n".join(["records cannot be used; nothing was written; use --on-error skip", *listed]))


_ORIGIN = """\
The samples were made from the raw files of the ChineseBLUE repository, which publishes them under the Apache License
2.0 (Zhang et al. 2020, *Conceptualized Representation Learning for Chinese Biomedical Text Mining*, arXiv 2008.10813).
Each record is one sample; prompts and answers are written with the templates of the promptcblue package, and every
label is offered, so that scores can stand beside published ones."""


def _findings(splits: Sequence[RawSplit]) -> str:
    """A Markdown table of what was found in the files."""
    lines = ["| file | records | samples | flaw | what was done | times |", "|---|---:|---:|---|---|---:|"]
    for split in splits:
        if split.notes is None:
            lines.append(f"| {split.file} | – | – | not in the source | | |")
            continue
        counts = f"{split.notes.records:,} | {split.samples:,}"
        findings = split.notes.as_json() or [{"kind": "none found", "action": "", "times": 0}]
        lines += [
            f"| {split.file} | {counts} | {finding['kind']} | {finding['action']} | {finding['times'] or '–'} |"
            for finding in findings
        ]
    return "\n".join(lines)


def _report(imported: RawImported, source: Path) -> Mapping[str, Any]:
    return {
        "source": str(source),
        "suite": "chineseblue",
        "files": [
            {
                "task": split.task,
                "split": split.split,
                "file": split.file,
                "documented_records": split.documented,
                "records": split.notes.records,
                "skipped_records": split.notes.skipped,
                "samples": split.samples,
                "findings": split.notes.as_json(),
            }
            for split in imported.splits
            if split.notes
        ],
        "absent": [
            {"task": split.task, "split": split.split, "file": split.file, "documented_records": split.documented}
            for split in imported.splits
            if not split.notes
        ],
    }


def table_rows(imported: RawImported) -> Iterator[list[str]]:
    """The cells of a table with a row a file: records read, documented and skipped, samples, flaws mended and kept."""
    for split in imported.splits:
        if split.notes is None:
            yield [split.task, split.split, "absent", f"{split.documented:,}", "", "", "", ""]
            continue
        notes = split.notes
        counts = (notes.records - notes.skipped, split.documented, notes.skipped, split.samples)
        flaws = (notes.times("mended"), notes.times("kept"))
        yield [split.task, split.split, *(f"{count:,}" for count in (*counts, *flaws))]


def summary(imported: RawImported) -> Iterator[str]:
    """What else there is to know, a line each, and the call to type next."""
    for split in imported.read:
        notes = split.notes
        if notes and notes.records - notes.skipped != split.documented:
            yield f"{split.file}: {notes.records - notes.skipped:,} usable records, documented are {split.documented:,}"
        if notes and notes.skipped:
            examples = [
                found.examples[0] for (done, _), found in notes.findings.items() if done == "skipped" and found.examples
            ]
            yield f"{split.file}: skipped {notes.skipped:,}, such as {examples[-1]}"
    kinds: dict[str, int] = {}
    for split in imported.read:
        for (action, kind), finding in split.notes.findings.items() if split.notes else ():
            kinds[f"{action}: {kind}"] = kinds.get(f"{action}: {kind}", 0) + finding.times
    for kind, times in sorted(kinds.items(), key=lambda pair: -pair[1]):
        yield f"{kind} ({times:,})"
    absent: dict[str, list[str]] = {}
    for split in imported.splits:
        if not split.notes:
            absent.setdefault(split.task, []).append(split.split)
    if absent:
        listed = (f"{task} ({', '.join(found)})" for task, found in absent.items())
        yield f"not in the source: {'; '.join(listed)}"
    yield f"wrote {imported.output} and {imported.report}"
    config = imported.read[0].task
    name = "chineseblue" if imported.cached else imported.output.name
    where = "in any folder" if imported.cached else f"from {imported.output.absolute().parent}"
    yield f'load_dataset("{name}", "{config}") now works {where}'
