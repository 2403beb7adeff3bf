"""Building the benchmark from raw CBLUE (paper, section 3.2): splits, uniform draws, rows, files.

The pool of a split holds each template filled with each of its raw samples. It is never made: a row is a number in
it, numbers are drawn without repetition, and a number alone (with the seed) decides what its row says. So the same
input and seed give the same bytes, whatever the machine and however many processes share the work.
"""

from __future__ import annotations

import bisect
import gc
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from promptcblue_dataset.checks import check_row, encodable
from promptcblue_dataset.corpora import CORPORA
from promptcblue_dataset.corpora.archives import raw_files
from promptcblue_dataset.corpora.reading import Content, Group, Reading, Sources
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.folder import OFFICIAL, ConfigInfo, Origin, write_card, write_config
from promptcblue_dataset.importer import check_output, fill_cache
from promptcblue_dataset.neighbours import Neighbours
from promptcblue_dataset.prompts.pool import TaskPrompts, load_pool
from promptcblue_dataset.prompts.render import RELEASED, Rendered, Renderer, Style
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import SPLITS, Sample
from promptcblue_metric.data.writing import replacing, write_json
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.tasks import TASKS, get_task

#: Rows by split.
Sizes = Mapping[str, int]

# What messages name in place of a file that is not written yet.
_NO_FILE = Path("built row")

# The splits that are scored come first: a raw text that two splits have goes to the earlier one.
_DRAWN = ("test", "validation", "train")
#: How many problems a message lists.
_LISTED = 20
_OFFICIAL_NAMES = {split: names[0] for split, names in SPLITS.items()}


@dataclass(frozen=True)
class Plan:
    """What to build.

    Attributes:
        sizes: rows by task and split.
        style: how prompts and targets are written.
        templates: a pool in the official form, or None for the project's own.
        seed: of all draws.
        drop_separators: leave out samples whose answer holds a separator.
        skip_bad: leave out raw records that cannot be used, rather than stop.
    """

    sizes: Mapping[str, Sizes]
    style: Style = field(default_factory=Style)
    templates: Path | None = None
    seed: int = 0
    drop_separators: bool = False
    skip_bad: bool = False


@dataclass
class BuiltTask:
    """What was built of a task.

    Attributes:
        info: paths and sizes of its files, by split.
        counts: by split, how many raw samples and templates there were, how many rows were asked for, written, and
            drawn and left out, by reason.
        left_out: raw records that gave no sample, by reason.
    """

    info: ConfigInfo
    counts: dict[str, Counter[str]]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        output: the folder it wrote.
        report: the JSON file beside it that lists everything that was left out.
        cached: whether the datasets cache was filled.
        tasks: what was built, by task.
        missing: tasks whose raw files were not there, or could not be used.
        bad: raw records and files that could not be used, and why.
    """

    output: Path
    report: Path
    cached: bool
    tasks: dict[str, BuiltTask]
    missing: list[str]
    bad: list[str]


def parse_sizes(text: str, tasks: Sequence[str]) -> dict[str, dict[str, int]]:
    """Rows by task and split, from ``paper``, from ``N`` or ``TRAIN,DEV,TEST``, or from a JSON file.

    Args:
        text: ``paper`` is Table 8; a file holds an object of task to a number or to three.

    Raises:
        PromptCBLUEError: it is none of these.
    """
    if text == "paper":
        return {task: _three(TASKS[task].sizes, text) for task in tasks}
    numbers = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() for part in numbers):
        return {task: _three([int(part) for part in numbers], text) for task in tasks}
    try:
        content = json.loads(Path(text).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PromptCBLUEError(
            f"--sizes {text}: expected `paper`, N, TRAIN,DEV,TEST, or a JSON file of task to such numbers: {error}"
        ) from error
    if not isinstance(content, dict):
        raise PromptCBLUEError(f"{text}: expected an object of task to [train, dev, test], found {content!r:.80}")
    given = {get_task(name).name: value for name, value in content.items()}
    return {task: _three(given.get(task, TASKS[task].sizes), f"{text}: {task}") for task in tasks}


def _three(value: Any, where: str) -> dict[str, int]:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(isinstance(number, int) and number >= 0 for number in numbers) or not any(numbers):
        raise PromptCBLUEError(f"{where}: expected one size or three (train, dev, test), found {value!r:.80}")
    return dict(zip(SPLITS, numbers, strict=True))


def build(
    raw: str | Path,
    output: str | Path,
    plan: Plan,
    *,
    workers: int | None = None,
    must_have: Sequence[str] = (),
    overwrite: bool = False,
    cache: bool = True,
    on_progress: Progress = lambda doing, item, total: None,
) -> Built:
    """Build the tasks of ``plan`` from the raw corpora in ``raw`` and write them to ``output``, whole or not at all.

    Args:
        raw: a folder with the unpacked corpora or their zip archives, or one such archive.
        workers: processes; by default as many as there are processors, up to 3, which stay under 1.5 GB.
        must_have: tasks without which to stop; the others are left out where their files are not there.
        overwrite: replace ``output`` whatever it holds.
        cache: make the rows what ``load_dataset("promptcblue", ...)`` gives in any folder.

    Raises:
        PromptCBLUEError: files are missing or bad, or something cannot be written.
    """
    raw, output = Path(raw).expanduser(), Path(output).expanduser()
    check_output(output, raw, overwrite)
    load_pool(plan.templates, plan.sizes)  # so that flaws are found before any work
    with raw_files(raw) as files, replacing(output) as temporary:
        found = {name: corpus.find(files, list(plan.sizes)) for name, corpus in CORPORA.items()}
        jobs = [_Job(name, sources, plan, temporary) for name, sources in found.items() if sources.splits]
        tasks: dict[str, BuiltTask] = {}
        bad: list[str] = []
        for done in _results(jobs, workers or min(3, os.cpu_count() or 1)):
            bad += done.bad
            for task, built in done.tasks.items():
                on_progress("building", task, len(plan.sizes))
                tasks[task] = built
        if bad and not plan.skip_bad:
            raise PromptCBLUEError("\n".join([*_listed(bad), "nothing was written; --on-error skip leaves them out"]))
        tasks = {task: tasks[task] for task in TASKS if task in tasks}
        missing = [task for task in plan.sizes if task not in tasks]
        _stop_where_missing(raw, missing, tasks, must_have)
        write_card(temporary, {task: built.info for task, built in tasks.items()}, _origin(plan))
    report = output.absolute().with_name(f"{output.absolute().name}-build-report.json")
    result = Built(output, report, cache, tasks, missing, bad)
    write_json(report, _report(result, raw, plan))
    if cache:
        fill_cache(output, list(tasks), on_progress)
    return result


def _stop_where_missing(raw: Path, missing: Sequence[str], tasks: Mapping[str, Any], must_have: Sequence[str]) -> None:
    if wanted := [task for task in missing if task in must_have]:
        raise PromptCBLUEError(f"{raw}: no labelled raw files of {', '.join(wanted)}; nothing was written")
    if not tasks:
        raise PromptCBLUEError(
            f"{raw}: no raw CBLUE corpora; expected files such as CMeEE-V2_train.json in folders or zip archives"
        )


def _listed(problems: Sequence[str]) -> list[str]:
    more = [f"… and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    return [f"{len(problems)} raw records or files cannot be used:", *problems[:_LISTED], *more]


class _Done(NamedTuple):
    """What was built of a corpus, and which of its records and files could not be used."""

    tasks: dict[str, BuiltTask]
    bad: list[str]


@dataclass(frozen=True)
class _Job:
    """The tasks of one corpus, to be built in one process."""

    corpus: str
    sources: Sources
    plan: Plan
    folder: Path

    def run(self) -> _Done:
        """Read the corpus, build its tasks and write their files; nothing is built where the bad records stop it."""
        reading = CORPORA[self.corpus].read(self.sources, self.plan.seed)
        notes = [split.notes for of_split in reading.splits.values() for split in of_split.values()]
        bad = [f"{task}: {why}" for task, why in reading.refused.items()]
        bad += dict.fromkeys(message for of_file in notes for message in of_file.bad)
        if bad and not self.plan.skip_bad:
            return _Done({}, bad)
        pool = load_pool(self.plan.templates, list(reading.splits))
        splits = _assigned(reading, self.plan)
        tasks = [task for task in reading.splits if task in pool and any(splits.get(task, {}).values())]
        built = {}
        for task in tasks:
            drawing = _Drawing(task, pool[task], splits[task], reading.offers.get(task), self.plan, bad)
            rows = {split: drawing.rows(split) for split in _DRAWN}
            written = {split: rows[split] for split in SPLITS if rows[split]}
            if written:
                left_out: Counter[str] = Counter()
                for of_split in reading.splits[task].values():
                    left_out += of_split.notes.left_out()
                info = write_config(self.folder, task, written)
                built[task] = BuiltTask(info, {split: drawing.counts[split] for split in SPLITS}, dict(left_out))
        return _Done(built, bad)


def _run(job: _Job) -> _Done:
    with _no_garbage_collection():
        return job.run()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A corpus is millions of objects and no cycles; looking for those again and again takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _results(jobs: Sequence[_Job], workers: int) -> Iterator[_Done]:
    if workers == 1 or len(jobs) == 1:
        yield from map(_run, jobs)
        return
    # A fork starts in no time, and is safe here: the only other thread is the progress bar's, whose locks no worker
    # takes.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as executor:
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
    gives, are divided among its splits in proportion to their sizes, alike for all tasks of the corpus.
    """
    samples = {
        task: {file: found.groups for file, found in files.items() if found.groups}
        for task, files in reading.splits.items()
    }
    present = {split for files in samples.values() for split in files}
    wanted = {split for task in samples for split, size in plan.sizes[task].items() if size}
    source = {
        split: next((file for file in (split, "validation", "train") if file in present), None) for split in wanted
    }
    assigned: dict[str, dict[str, list[Group]]] = {task: {} for task in samples}
    for file in present:
        weights = {
            split: sum(plan.sizes[task][split] for task in samples) for split in SPLITS if source.get(split) == file
        }
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


class _SamplePool:
    """The raw samples of a split, by number."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._ends = list(itertools.accumulate(len(group.samples) for group in groups))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Content:
        place = bisect.bisect_right(self._ends, number)
        return self._groups[place].samples[number - self._ends[place]]


@dataclass
class _Drawing:
    """Draws the rows of a task, split by split."""

    task: str
    prompts: TaskPrompts
    samples: Mapping[str, Sequence[Group]]
    labels: Sequence[str] | None
    plan: Plan
    bad: list[str]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    _taken: Neighbours = field(default_factory=Neighbours)
    _prompts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._renderer = Renderer(self.prompts, self.plan.style, self.labels)

    def rows(self, split: str) -> list[Sample]:
        """The rows of a split, in the order in which they were drawn."""
        pool, size = _SamplePool(self.samples.get(split, ())), self.plan.sizes[self.task][split]
        templates = self.prompts.templates
        self.counts[split] = Counter({"raw samples": len(pool), "templates": len(templates), "rows asked for": size})
        order = Draws(self.plan.seed, self.task, split, "order").order(len(pool) * len(templates))
        contents: dict[int, Content | None] = {}
        rows: list[Sample] = []
        # Rows are left out for many reasons, so what is missing is drawn again.
        while len(rows) < size and (drawn := [place for place, _ in zip(order, range(size - len(rows)), strict=False)]):
            self._load(split, pool, [place // len(templates) for place in drawn], contents)
            for place in drawn:
                number, template = divmod(place, len(templates))
                row = (content := contents[number]) and self._row(split, place, templates[template], content)
                if row:
                    rows.append(row)
        if split != _DRAWN[-1]:
            self._taken.add([_text(content) for content in contents.values() if content])
        self.counts[split]["rows"] = len(rows)
        return rows

    def _load(self, split: str, pool: _SamplePool, numbers: Sequence[int], contents: dict[int, Content | None]) -> None:
        """Read raw samples; None stands for those that cannot be used."""
        fresh: dict[int, Content] = {}
        for number in dict.fromkeys(numbers):
            if number not in contents:
                contents[number] = None
                fresh[number] = pool[number]
        texts = [_text(content) for content in fresh.values()]
        for (number, content), found in zip(fresh.items(), self._taken.find(texts), strict=True):
            if found is None:
                contents[number] = content
            else:
                kind = "equal" if found[1] == 1 else "nearly equal"
                self.counts[split][f"raw samples left out: {kind} to one of an earlier split"] += 1

    def _row(self, split: str, place: int, template: str, content: Content) -> Sample | None:
        counts = self.counts[split]
        draws = Draws(self.plan.seed, self.task, split, place)
        sample_id = f"{_OFFICIAL_NAMES[split]}-{place}"
        row = self._renderer.sample(template, content, draws, sample_id)
        if row.sample["input"] in self._prompts:
            counts["rows left out: prompt drawn before"] += 1
            return None
        if row.separators:
            if self.plan.drop_separators:
                counts["rows left out: separator in the answer"] += 1
                return None
            counts["rows with a separator in the answer"] += 1
        if self.plan.style.dialect == RELEASED and not _sure(row):
            try:
                check_row(row.sample, split, _NO_FILE, place)
            except RowError as error:
                counts["rows left out: target cannot be read back"] += 1
                if not row.separators:
                    self.bad.append(f"{self.task}: {error}")
                return None
        self._prompts.add(row.sample["input"])
        return row.sample


def _sure(row: Rendered) -> bool:
    """Whether a row needs no check: a target without separators is written so that it reads back as it was."""
    sample = row.sample
    texts = (sample["input"], sample["target"], *(sample["answer_choices"] or ()))
    complete = bool(sample["target"].strip()) and sample["answer_choices"] != []
    return complete and not row.separators and encodable("".join(texts))


def _text(content: Content) -> str:
    return "\n".join(content.fields.values())


def _origin(plan: Plan) -> Origin:
    style = plan.style
    contents = [name for name in ("explain_labels", "format_spec", "step_by_step") if getattr(style, name)]
    extras = f"the additional prompt contents {', '.join(contents)}" if contents else "no additional prompt contents"
    pool = "templates of the official form" if plan.templates else "the templates of the promptcblue package"
    return Origin(
        OFFICIAL.license,
        f"""\
The samples were built from the raw corpora of CBLUE as the paper describes (Zhu et al., *PromptCBLUE: A Chinese Prompt
Tuning Benchmark for the Medical Domain*, section 3.2), with {pool}, seed {plan.seed},
the {style.dialect} dialect of the targets, and {extras}.
Scores on them cannot be compared with scores on the official files. Each corpus keeps the terms of those who made it,
in general for research only. Before you publish this folder make sure that you may.""",
    )


def _report(built: Built, raw: Path, plan: Plan) -> dict[str, Any]:
    return {
        "source": str(raw),
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
        "bad_records": built.bad,
    }
