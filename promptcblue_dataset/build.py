"""From files to a dataset folder, by one road: read, check or build, split, write, report.

Official files hold samples, which are checked. Raw corpora hold raw records, of which samples are built as the paper
builds them (section 3.2): the pool of a split holds each template filled with each of its raw samples. It is never
made: a sample is a number in it, numbers are drawn without repetition, and a number alone (with the seed) decides what
its sample says. So the same input and seed give the same bytes, whatever the machine and however many processes share
the work. A corpus can also be written whole: each raw sample once, with a template that its group draws.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import TypeAlias

from promptcblue_dataset.corpora import CORPORA, find_sources
from promptcblue_dataset.corpora.archives import raw_files
from promptcblue_dataset.corpora.reading import FileNotes, Group, Reading, Sources
from promptcblue_dataset.folder import (
    ConfigInfo,
    Origin,
    check_output,
    digests,
    origin,
    report_path,
    write_card,
    write_config,
)
from promptcblue_dataset.making import DRAWN, OFFICIAL_NAMES, Checked, Drawing, Every, Plan, check_files
from promptcblue_dataset.prompts.pool import load_pool
from promptcblue_dataset.prompts.render import PAPER
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import LISTED, SAMPLE, SPLITS, official_files, resolve, sample_path
from promptcblue_metric.data.writing import read_json_object, replacing, write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, SUITES, get_task, suite_of


@dataclass
class Made:
    """A folder that was written.

    Attributes:
        report: stands beside it.
        cached: whether the datasets cache has it; None where only a full set would have gone there unasked.
        missing: tasks without samples.
        replaced: what the cache had in its place.
    """

    output: Path
    report: Path
    cached: bool | None
    missing: list[str]
    replaced: str = field(default="", init=False)

    def finish(self, report: Mapping[str, object], configs: Sequence[str], on_progress: Progress) -> None:
        """Write the report and fill the cache."""
        write_json(self.report, {**report, "written": digests(self.output)})
        if self.cached:
            from promptcblue_dataset.promptcblue_dataset import prime

            self.replaced = prime(self.output, configs, on_progress)


# --- Official files ---


@dataclass
class Imported(Made):
    """What an import of official files did: splits without a sample; the samples, and what was wrong."""

    missing_splits: list[str]
    checked: Checked

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by config and split."""
        found = self.checked.samples
        return {config: {split: len(splits[split]) for split in splits} for config, splits in found.items()}


def import_files(
    source: str | Path,
    output: str | Path,
    *,
    skip_bad: bool = False,
    overwrite: bool = False,
    cache: bool | None = None,
    on_progress: Progress = lambda doing, item, total: None,
) -> Imported:
    """Check the official files of ``source`` and write them to ``output`` in the Hub layout, whole or not at all.

    Args:
        source: a folder with the official files, or the word ``sample``, or ``sample:SUITE``.
        skip_bad: leave bad rows out and list them in the report, rather than stop.
        overwrite: replace ``output`` whatever it holds; without it, only what was written before and not changed since.
        cache: make the samples what ``load_dataset("promptcblue", ...)`` gives in any folder; by default where they
            are a full set: all tasks and splits of their suite, and of a build in the documented sizes.

    Raises:
        PromptCBLUEError: there is nothing to read, rows are bad (all are named), or something cannot be written.
    """
    folder, output = resolve(source), Path(output).expanduser()
    files = official_files(folder) if folder.is_dir() else {}
    if not files:
        what = "no official files" if folder.is_dir() else "is a file" if folder.exists() else "no such folder"
        raise PromptCBLUEError(
            f"{folder}: {what}; expected a folder with train, dev and test (.json or .jsonl, .gz or not), at least one "
            f"(the embedded sample is called '{SAMPLE}')"
        )
    check_output(output, folder, overwrite)
    pairs = [(split, path) for split, paths in files.items() for path in paths]
    checked = check_files(pairs, lambda split: on_progress("reading", split, None))
    if not skip_bad:
        checked.bad.stop_if_any("nothing was written; mend the files, or leave the rows out with --on-error skip")
    if not checked.samples:
        checked.bad.stop_if_any("no other rows are there; nothing was written")
        raise PromptCBLUEError(f"{folder}: no rows in {', '.join(path.name for _, path in pairs)}")
    suite = suite_of(checked.samples)  # before anything is written: a folder holds one suite
    with replacing(output) as temporary:
        infos = {}
        for task, splits in checked.samples.items():
            infos[task] = write_config(temporary, task, splits)
            on_progress("writing", task, len(checked.samples))
        write_card(temporary, infos, origin("embedded" if folder.is_relative_to(sample_path()) else "official"))
    missing = [task for task in suite.tasks if task not in infos]
    missing_splits = [split for split in SPLITS if not any(split in splits for splits in checked.samples.values())]
    cached = cache if cache is not None or missing or missing_splits else True
    imported = Imported(output, report_path(output, "import"), cached, missing, missing_splits, checked)
    imported.finish(_import_report(imported, folder), list(infos), on_progress)
    return imported


def _import_report(imported: Imported, folder: Path) -> dict[str, object]:
    checked = imported.checked
    return {
        "source": str(folder),
        "rows": checked.rows,
        "samples": imported.counts(),
        "missing_splits": imported.missing_splits,
        "missing_tasks": imported.missing,
        "warnings": [
            {"task": task, "kind": kind, "samples": count} for (task, kind), count in sorted(checked.warnings.items())
        ],
        "bad_rows": [
            {"file": error.path, "line": error.line, "field": error.field, "message": error.message}
            for error in checked.bad
        ],
    }


# --- Raw corpora ---


@dataclass
class BuiltTask:
    """What was built of a task.

    Attributes:
        counts: by split, how many raw samples and templates there were, how many rows were asked for, written, and
            drawn and left out, by reason.
        left_out: raw records that gave no sample, by reason.
    """

    info: ConfigInfo
    counts: dict[str, Counter[str]]
    left_out: dict[str, int]


@dataclass
class ReadFile:
    """What became of the raw file of a split, or of the folder whose files are its records."""

    task: str
    split: str
    file: str  # as a user sees it
    notes: FileNotes | None = None  # where it is there
    samples: int = 0  # that were made of its split

    @property
    def documented(self) -> int:
        """How many records the corpus's authors say it has."""
        return REGISTRY[self.task].sizes[list(SPLITS).index(self.split)]


@dataclass
class Built(Made):
    """What a build did.

    Attributes:
        tasks: what was built, by task.
        bad: raw records and files that could not be used, and why.
        files: the raw files of every task and split, those that are not there too.
        passed_over: the data files of the raw folder that were not read, each with the reason.
    """

    tasks: dict[str, BuiltTask]
    bad: list[str]
    files: list[ReadFile]
    passed_over: list[tuple[Path, str]]


def parse_sizes(text: str, tasks: Sequence[str]) -> dict[str, dict[str, int]]:
    """Samples by task and split, from ``paper``, from ``N`` or ``TRAIN,DEV,TEST``, or from a JSON file.

    Args:
        text: ``paper`` is Table 8; a file holds an object of task to a number or to three.

    Raises:
        PromptCBLUEError: it is none of these.
    """
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    given: dict[str, object] = {}
    if text != "paper" and -1 in numbers:
        try:
            given = {get_task(name).name: value for name, value in read_json_object(Path(text)).items()}
        except PromptCBLUEError as error:
            expected = "`paper`, N, TRAIN,DEV,TEST (whole numbers from 0), or a JSON file of task to such numbers"
            no_file = isinstance(error.__cause__, OSError)
            found = f"found '{text:.80}', which is no file that can be read" if no_file else error
            raise PromptCBLUEError(f"--sizes: expected {expected}; {found}") from error
    same = None if -1 in numbers else numbers
    return {task: _three(same or given.get(task, REGISTRY[task].sizes), f"--sizes {text}: {task}") for task in tasks}


def _three(value: object, where: str) -> dict[str, int]:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    numbers *= 3 if len(numbers) == 1 else 1
    sizes = [number for number in numbers if isinstance(number, int) and number >= 0]
    if len(numbers) != 3 or len(sizes) != 3 or not any(sizes):
        raise PromptCBLUEError(f"{where}: expected one size or three (train, dev, test), found {value!r:.80}")
    return dict(zip(SPLITS, sizes, strict=True))


def build(
    raw: str | Path,
    output: str | Path,
    plan: Plan,
    *,
    workers: int | None = None,
    must_have: Sequence[str] = (),
    overwrite: bool = False,
    cache: bool | None = None,
    on_progress: Progress = lambda doing, item, total: None,
) -> Built:
    """Build the tasks of ``plan``, which are of one suite, from raw corpora into ``output``, whole or not at all.

    Args:
        raw: a folder with the unpacked corpora or their archives, or one archive.
        workers: processes; by default as many as there are processors, up to 3, which stay under 1.5 GB.
        must_have: tasks without which to stop; the others are left out where their files are not there.
        overwrite, cache: as `import_files` has them.

    Raises:
        PromptCBLUEError: files are missing or bad, or something cannot be written.
    """
    raw, output = Path(raw).expanduser(), Path(output).expanduser()
    suite = suite_of(plan.sizes)
    check_output(output, raw, overwrite)
    if unread := set(must_have).difference(*(corpus.tasks for corpus in CORPORA.values())):
        raise PromptCBLUEError(
            f"{', '.join(sorted(unread))}: no reader of raw files; import samples in the official form instead"
        )
    load_pool(plan.templates, plan.sizes)  # so that flaws are found before any work
    all_done = _Done()
    with raw_files(raw, plan.use, plan.max_bytes) as files, replacing(output) as temporary:
        jobs = [(name, sources, plan, temporary) for name, sources in find_sources(files, plan.sizes).items()]
        passed_over = files.passed_over()
        for done in _results(jobs, workers or min(3, os.cpu_count() or 1)):
            all_done.bad += done.bad
            all_done.files |= done.files
            for task, built in done.tasks.items():
                on_progress("building", task, len(plan.sizes))
                all_done.tasks[task] = built
        # In the order of the registry, however the work was shared.
        tasks = {task: all_done.tasks[task] for task in REGISTRY if task in all_done.tasks}
        expected = [(task, split) for task in REGISTRY if task in plan.sizes for split in SPLITS]
        read = [
            all_done.files.get((task, split)) or ReadFile(task, split, f"{task}/{OFFICIAL_NAMES[split]}")
            for task, split in expected
        ]
        report = report_path(output, "import" if plan.whole and not plan.from_test else "build")
        missing = [task for task in REGISTRY if task in plan.sizes and task not in tasks]
        documented = plan.whole or plan.sizes == parse_sizes("paper", list(plan.sizes))
        full = documented and len(tasks) == len(suite.tasks) and not plan.from_test
        cached = cache if cache is not None or not full else True
        result = Built(output, report, cached, missing, tasks, sorted(all_done.bad), read, passed_over)
        _stop_where_needed(raw, result, plan, must_have)
        write_card(temporary, {task: built.info for task, built in tasks.items()}, _origin(suite.name, plan, read))
    result.finish(_build_report(result, raw, plan), list(tasks), on_progress)
    return result


def _stop_where_needed(raw: Path, result: Built, plan: Plan, must_have: Sequence[str]) -> None:
    if result.bad and not plan.skip_bad:
        more = [f"… and {len(result.bad) - LISTED} more"] if len(result.bad) > LISTED else []
        head = f"{len(result.bad)} raw records or files cannot be used; nothing was written"
        raise PromptCBLUEError(
            "\n".join([f"{head}; --on-error skip leaves them out and lists them", *result.bad[:LISTED], *more])
        )
    if plan.most_bad is not None and len(result.bad) > plan.most_bad:
        head = f"{len(result.bad)} raw records or files cannot be used, more than --max-skipped {plan.most_bad}"
        raise PromptCBLUEError("\n".join([f"{head}; nothing was written", *result.bad[:LISTED]]))
    if wanted := [task for task in result.missing if task in must_have]:
        kind = "test files that say what to ask for" if plan.from_test else "labelled raw files"
        raise PromptCBLUEError(f"{raw}: no {kind} of {', '.join(wanted)}; nothing was written")
    if not result.tasks:
        raise PromptCBLUEError(
            f"{raw}: no raw corpora of {suite_of(plan.sizes).title}; expected their folders or archives as published "
            "(files in the official PromptCBLUE form are imported, without --suite)"
        )


@dataclass
class _Done:
    """What was built of a corpus, which of its records could not be used, and its files."""

    tasks: dict[str, BuiltTask] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    files: dict[tuple[str, str], ReadFile] = field(default_factory=dict)


#: The tasks of one corpus, to be built in one process: its name and files, and the folder to write to.
_Job: TypeAlias = tuple[str, Sources, Plan, Path]


def _run(job: _Job) -> _Done:
    """Build a corpus: millions of objects and no cycles, and looking for those again and again takes half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return _done(*job)
    finally:
        if enabled:
            gc.enable()


def _done(corpus: str, sources: Sources, plan: Plan, folder: Path) -> _Done:
    """Read a corpus, build its tasks and write their files; nothing is built where bad records stop it."""
    reading = CORPORA[corpus].ask(sources) if plan.from_test else CORPORA[corpus].read(sources, plan.seed)
    files = {
        (task, split): ReadFile(task, split, f"{task}/{found.notes.path.name}", found.notes)
        for task, of_task in reading.splits.items()
        for split, found in of_task.items()
    }
    done = _Done({}, [f"{task}: {why}" for task, why in reading.refused.items()], files)
    if plan.skip_bad or not (done.bad or any(file.notes.bad for file in files.values() if file.notes)):
        _build_tasks(reading, plan, folder, done)
    # Files are shared by tasks.
    bad = [message for file in files.values() if file.notes for message in file.notes.bad]
    done.bad[:] = dict.fromkeys([*done.bad, *bad])
    return done


def _build_tasks(reading: Reading, plan: Plan, folder: Path, done: _Done) -> None:
    pool, groups = load_pool(plan.templates, list(reading.splits)), _assigned(reading, plan)
    for task in (task for task in reading.splits if task in pool and any(groups[task].values())):
        maker = Every if plan.sizes[task] is None else Drawing
        making = maker(task, pool[task], groups[task], reading, plan)
        samples = {split: making.samples(split) for split in DRAWN}
        done.bad += making.bad
        for split, found in samples.items():
            if (task, split) in done.files:
                done.files[task, split].samples = len(found)
        if written := {split: samples[split] for split in SPLITS if samples[split]}:
            left_out = sum((of_split.notes.left_out() for of_split in reading.splits[task].values()), Counter[str]())
            counts = {split: making.counts[split] for split in SPLITS}
            done.tasks[task] = BuiltTask(write_config(folder, task, written), counts, dict(left_out))


def _end_with_parent() -> None:
    """Have a worker end when the process that it works for is killed, which can no longer tell it to."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def _results(jobs: Sequence[_Job], workers: int) -> Iterator[_Done]:
    if workers == 1 or len(jobs) == 1:
        yield from map(_run, jobs)
        return
    # A fork starts in no time, and is safe here: the only other thread is the progress bar's, whose locks no worker
    # takes.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    workers = max(1, min(workers, len(jobs)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as executor:
        try:
            for future in as_completed([executor.submit(_run, job) for job in jobs]):
                yield future.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _assigned(reading: Reading, plan: Plan) -> dict[str, dict[str, list[Group]]]:
    """The raw samples of each task and split.

    A split has the labelled samples of its own file. One whose file is missing or has no labels (as CBLUE's test
    files) is cut from the validation file, or else from the train file: the file's groups, in an order that the seed
    gives, are divided among its splits in proportion to their sizes, alike for all tasks of the corpus. Corpora that
    are written whole are not cut.
    """
    samples = {
        task: {file: found.groups for file, found in files.items() if found.groups}
        for task, files in reading.splits.items()
    }
    sizes = {task: size for task in samples if (size := plan.sizes[task]) is not None}
    if not sizes:
        return samples
    present = {split for files in samples.values() for split in files}
    wanted = {split for size in sizes.values() for split, count in size.items() if count}
    source = {
        split: next((file for file in (split, "validation", "train") if file in present), None) for split in wanted
    }
    assigned: dict[str, dict[str, list[Group]]] = {task: {} for task in samples}
    for file in present:
        weights = {split: sum(size[split] for size in sizes.values()) for split in SPLITS if source.get(split) == file}
        if len(weights) == 1:
            for task, files in samples.items():
                assigned[task].update({split: files[file] for split in weights if file in files})
            continue
        names = {group.name for files in samples.values() for group in files.get(file, ())}
        homes = _cut(names, weights, f"{plan.seed}\x1f{file}")
        for task, files in samples.items():
            for group in files.get(file, ()) if homes else ():
                assigned[task].setdefault(homes[group.name], []).append(group)
    return assigned


def _cut(groups: set[str], weights: Mapping[str, int], key: str) -> dict[str, str]:
    """The split of each group of a file."""
    ranked = sorted(groups, key=lambda group: hashlib.sha256(f"{key}\x1f{group}".encode()).digest())
    homes, start, sum_so_far = {}, 0, 0
    for split, weight in weights.items():
        sum_so_far += weight
        end = round(len(ranked) * sum_so_far / sum(weights.values()))
        homes.update(dict.fromkeys(ranked[start:end], split))
        start = end
    return homes


# --- What is said of it ---


def _origin(suite: str, plan: Plan, files: Sequence[ReadFile]) -> Origin:
    title = "CBLUE" if suite == "promptcblue" else SUITES[suite].title
    if plan.whole:
        name = "asked" if plan.from_test else suite if suite == "chineseblue" else "whole"
        return origin(name, _findings(files), title=title)
    style = plan.style
    contents = [name for name in ("explain_labels", "format_spec", "step_by_step") if getattr(style, name)]
    return origin(
        "built",
        _findings(files),
        corpora=title,
        pool="templates of the official form" if plan.templates else "the templates of the promptcblue package",
        seed=plan.seed,
        dialect=style.dialect,
        differences="" if style.profile == PAPER else ", and so is what they do otherwise than the paper",
        extras=f"the additional prompt contents {', '.join(contents)}" if contents else "no additional prompt contents",
    )


def _findings(files: Sequence[ReadFile]) -> str:
    """A Markdown table of what was found in the files."""
    lines = ["| file | records | samples | flaw | what was done | times |", "|---|---:|---:|---|---|---:|"]
    for file in files:
        if file.notes is None:
            lines.append(f"| {file.file} | – | – | not in the source | | |")
            continue
        counts = f"{file.notes.records:,} | {file.samples:,}"
        findings = [f"{kind} | {action} | {found.times}" for (action, kind), found in file.notes.findings.items()]
        lines += [f"| {file.file} | {counts} | {finding} |" for finding in findings or ["none found |  | –"]]
    return "\n".join(lines)


def _build_report(built: Built, raw: Path, plan: Plan) -> dict[str, object]:
    return {
        "source": str(raw),
        "suite": suite_of(plan.sizes).name,
        "seed": plan.seed,
        "style": asdict(plan.style),
        "templates": str(plan.templates) if plan.templates else None,
        "drop_separators": plan.drop_separators,
        "missing_tasks": built.missing,
        "tasks": {
            task: {
                "splits": {split: dict(counts) for split, counts in done.counts.items()},
                "raw_records_left_out": done.left_out,
            }
            for task, done in built.tasks.items()
        },
        "files": [
            {
                "task": file.task,
                "split": file.split,
                "file": file.file,
                "records": file.notes.records,
                "skipped_records": file.notes.skipped,
                "samples": file.samples,
                "findings": file.notes.as_json(),
            }
            for file in built.files
            if file.notes
        ],
        "absent": [
            {"task": file.task, "split": file.split, "file": file.file, "documented_records": file.documented}
            for file in built.files
            if not file.notes
        ],
        "bad_records": built.bad,
        "passed_over": [{"file": str(path), "reason": reason} for path, reason in built.passed_over],
    }
