"""The predictions file: appended line by line, resumed where it stopped, never mixed from two kinds of run."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from promptcblue_metric.data.samples import Sample, read_json_lines
from promptcblue_metric.data.writing import replace_bytes
from promptcblue_metric.errors import PromptCBLUEError, RowError

from .backends import Completion, Failure
from .run import check_settings, write_settings

#: What names a sample: ids are unique within a task.
Key = tuple[str, str]

_META = ".meta.json"
_REMEDY = "give another --output, or pass --overwrite to start anew"


def sample_key(sample: Sample) -> Key:
    """What names a sample."""
    return sample["task_dataset"], sample["sample_id"]


def check_unique(samples: Sequence[Sample], name: str) -> None:
    """Refuse samples that a predictions file could not tell apart.

    Raises:
        PromptCBLUEError: names the first that comes twice.
    """
    seen: set[Key] = set()
    for sample in samples:
        key = sample_key(sample)
        if key in seen:
            raise PromptCBLUEError(f"{name}: sample '{key[1]}' of {key[0]} comes twice; ids must be unique in a task")
        seen.add(key)


class PredictionsFile:
    """A predictions file that is open for appending, with its settings in ``{name}.meta.json`` beside it.

    A sample that failed has a line that says why in ``error``. Opening the file takes out such lines, and those without
    a prediction, since their samples are to be tried again.

    Args:
        path: the file; made if it is not there.
        settings: what every prediction in it is made with.
        notes: recorded beside them, not compared.
        overwrite: begin an empty file.

    Attributes:
        done: the samples that it holds a prediction of.
        retried: how many had failed.
        spoilt: how many answers are empty, or cut at their limit; refusals aside.

    Raises:
        PromptCBLUEError: the file is of a run with other settings, is being written by another run, or cannot be read
            or written.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], notes: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        if path.name.endswith(_META):
            raise PromptCBLUEError(f"{path}: names like this are of files that stand beside predictions; {_REMEDY}")
        path = path.resolve()
        self.path, self.meta = path, path.with_name(path.name + _META)
        self.done: set[Key] = set()
        self.retried = self.spoilt = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
            try:
                self._stream = self._open(settings, notes, overwrite=overwrite)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise PromptCBLUEError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _open(self, settings: Mapping[str, Any], notes: Mapping[str, Any], *, overwrite: bool) -> FileIO:
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            check_settings(self.meta, settings, _REMEDY)
            _repair(self.path)
            self._read_done()
        else:
            write_settings(self.meta, settings, notes)
        # Unbuffered: what a full disk does not take must not be tried once more on closing.
        return self.path.open("ab", buffering=0)

    def _read_done(self) -> None:
        failed = set()
        for line, row in read_json_lines(self.path):
            key = row.get("task_dataset"), row.get("sample_id")
            if not (isinstance(key[0], str) and isinstance(key[1], str)):
                raise RowError(str(self.path), line, "sample_id", f"expected task_dataset and sample_id; {_REMEDY}")
            if "error" in row or not isinstance(row.get("prediction"), str):
                failed.add(line)
            elif key in self.done:
                raise RowError(str(self.path), line, "sample_id", f"'{key[1]}' of {key[0]} is there twice; {_REMEDY}")
            else:
                self.done.add((key[0], key[1]))
                self.spoilt += _is_spoilt(row)
        if failed:
            self.retried = len(failed)
            _leave_out(self.path, failed)

    def append(self, sample: Sample, row: Mapping[str, Any]) -> None:
        """Write the prediction of a sample, or why there is none, so that it outlives this process.

        Raises:
            PromptCBLUEError: the disk is full, or the file cannot be written for another reason.
        """
        names = {"sample_id": sample["sample_id"], "task_dataset": sample["task_dataset"]}
        line = (json.dumps({**names, **row}, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        try:
            while line:
                line = line[self._stream.write(line) :]
        except OSError as error:
            raise PromptCBLUEError(
                f"{self.path}: cannot be written: {error.strerror or error}; what was predicted so far is kept, and "
                "the same command goes on from there"
            ) from error
        self.done.add(sample_key(sample))
        self.spoilt += _is_spoilt(row)

    def __enter__(self) -> PredictionsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._lock.release()


def _is_spoilt(row: Mapping[str, object]) -> bool:
    ended = row.get("finish_reason")
    return ended in ("length", "thought") or (ended == "stop" and not str(row.get("prediction", "")).strip())


def _lock(path: Path) -> BaseFileLock:
    """What keeps a second run out of the file; the system takes it back from a run that dies.

    Raises:
        PromptCBLUEError: another run has it.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise PromptCBLUEError(
            f"{path}: another run is writing it; wait until that one is done, or give another --output"
        ) from error
    return lock


def _repair(path: Path) -> None:
    """Cut off a last line that was not written to its end."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def _leave_out(path: Path, lines: set[int]) -> None:
    """Write the file anew without some lines (1-based)."""
    with path.open("rb") as old:
        kept = [content for line, content in enumerate(old, 1) if line not in lines]
    replace_bytes(path, b"".join(kept))


#: Seconds between two looks at a table that a reader cannot follow faster.
_REFRESH = 4


class Tally:
    """Counts what a run makes.

    Args:
        left: by task, how many samples there are to predict.
        limits: by task, the most tokens of an answer.
    """

    def __init__(self, left: Mapping[str, int], limits: Mapping[str, int]) -> None:
        self.left, self.limits = dict(left), limits
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.prompt_tokens: Counter[str] = Counter()
        self.new_tokens: Counter[str] = Counter()
        self._noted: dict[str, Counter[str]] = {}
        self._reasons: Counter[str] = Counter()
        self._dropped = 0
        self._started = time.monotonic()

    def add(self, task: str, result: Completion | Failure) -> None:
        """Count an answer, or the lack of one."""
        self.done[task] += 1
        if isinstance(result, Failure):
            self.failed[task] += 1
            self._reasons[result.reason] += 1
            return
        self.prompt_tokens[task] += result.prompt_tokens
        self.new_tokens[task] += result.new_tokens
        self._dropped += result.dropped
        for what, happened in {
            "answers did not end within their limit": result.finish_reason == "length",
            "were cut in thought, before any answer, at their limit": result.finish_reason == "thought",
            "are refusals": result.finish_reason == "refusal",
            "prompts were cut in the middle to fit the model's context": result.cut,
            "prompts lost demonstrations to fit the model's context": result.dropped > 0,
        }.items():
            if happened:
                self._noted.setdefault(what, Counter())[task] += 1

    def lines(self) -> Iterator[str]:
        """What was done, how fast, and what a reader of the answers should know."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        answered = self.done.total() - self.failed.total()
        yield (
            f"predicted {answered} samples, {self.new_tokens.total()} tokens in {seconds:.1f} s "
            f"({answered / seconds:.1f} samples/s, {self.new_tokens.total() / seconds:.0f} tokens/s)"
        )
        for what, counts in self._noted.items():
            yield f"{counts.total()} {what}: {', '.join(self._by_task(what, counts))}"
        if self._dropped:
            yield f"{self._dropped} demonstrations were left out in all"
        if self.failed:
            yield f"{self.failed.total()} samples failed: {', '.join(self._by_task('', self.failed))}"
            for reason, count in self._reasons.most_common(3):
                yield f"  {count} times: {reason}"

    def _by_task(self, what: str, counts: Counter[str]) -> Iterable[str]:
        for task, count in counts.items():
            yield f"{task} {count}" + (f" (limit {self.limits[task]})" if "limit" in what else "")

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """A table on stderr if it is a terminal, with a row a task and one for all; yields what redraws it."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=_REFRESH,
        )
        rows = {task: progress.add_task(task, total=count, note="") for task, count in self.left.items()}
        every = progress.add_task("all", total=sum(self.left.values()), note="")

        def update() -> None:
            for task, row in rows.items():
                progress.update(row, completed=self.done[task], note=self._note(task))
            progress.update(every, completed=self.done.total(), note=self._note(None))

        with progress:
            yield update

    def _note(self, task: str | None) -> str:
        done, failed, tokens = (
            counts.total() if task is None else counts[task] for counts in (self.done, self.failed, self.new_tokens)
        )
        rate = done / max(time.monotonic() - self._started, 1e-9)
        return f"{rate:.1f}/s {tokens} tokens" + (f" {failed} failed" if failed else "")
