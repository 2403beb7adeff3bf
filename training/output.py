"""The predictions file: appended line by line, resumed where it stopped, never mixed from two kinds of run."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from filelock import FileLock, Timeout

from promptcblue_metric.cli.common import make_console
from promptcblue_metric.data.samples import Sample, parse_json_line
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
    for (task, sample_id), count in Counter(map(sample_key, samples)).items():
        if count > 1:
            raise PromptCBLUEError(f"{name}: sample '{sample_id}' of {task} comes twice; ids must be unique in a task")


class PredictionsFile:
    """A predictions file that is open for appending, with its settings in ``{name}.meta.json`` beside it.

    A sample that failed has a line that says why in ``error``. Opening the file takes out such lines, those without a
    prediction, and a last one that was not written to its end, since their samples are to be tried again.

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
        self, path: Path, settings: Mapping[str, object], notes: Mapping[str, object], *, overwrite: bool = False
    ) -> None:
        if path.name.endswith(_META):
            raise PromptCBLUEError(f"{path}: names like this are of files that stand beside predictions; {_REMEDY}")
        path = path.resolve()
        self.path, self.meta = path, path.with_name(path.name + _META)
        self.done: set[Key] = set()
        self.retried = self.spoilt = 0
        # The system takes it back from a run that dies.
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            try:
                self._stream = self._open(settings, notes, overwrite=overwrite)
            except BaseException:
                self._unlock()
                raise
        except Timeout as error:
            raise PromptCBLUEError(
                f"{path}: another run is writing it; wait until that one is done, or give another --output"
            ) from error
        except OSError as error:
            raise PromptCBLUEError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _open(self, settings: Mapping[str, object], notes: Mapping[str, object], *, overwrite: bool) -> FileIO:
        if overwrite:
            self.path.unlink(missing_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            if not self.meta.is_file():
                raise PromptCBLUEError(
                    f"{self.path}: is there, and not the output of an earlier run, which {self.meta.name} would be "
                    f"beside; {_REMEDY}"
                )
            check_settings(self.meta, settings, _REMEDY)
            content = self.path.read_bytes()
            kept = b"".join(self._finished(content.split(b"\n")[:-1]))
            if kept != content:
                replace_bytes(self.path, kept)
        else:
            write_settings(self.meta, settings, notes)
        # Unbuffered: what a full disk does not take must not be tried once more on closing.
        return self.path.open("ab", buffering=0)

    def _finished(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that stay, their samples counted as done."""
        for number, line in enumerate(lines, 1):
            row = parse_json_line(line, self.path, number)
            task, sample = row.get("task_dataset"), row.get("sample_id")
            if not (isinstance(task, str) and isinstance(sample, str)):
                raise RowError(str(self.path), number, "sample_id", f"expected task_dataset and sample_id; {_REMEDY}")
            if "error" in row or not isinstance(row.get("prediction"), str):
                self.retried += 1
                continue
            if (task, sample) in self.done:
                raise RowError(str(self.path), number, "sample_id", f"'{sample}' of {task} is there twice; {_REMEDY}")
            self._count((task, sample), row)
            yield line + b"\n"

    def _count(self, key: Key, row: Mapping[str, object]) -> None:
        self.done.add(key)
        ended = row.get("finish_reason")
        self.spoilt += ended in ("length", "thought") or (ended == "stop" and not str(row["prediction"]).strip())

    def append(self, sample: Sample, row: Mapping[str, object]) -> None:
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
        self._count(sample_key(sample), row)

    def __enter__(self) -> PredictionsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        self._unlock()

    def _unlock(self) -> None:
        # Before the lock is given back: who has opened the file meanwhile sees that it is no more.
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


class Tally:
    """Counts what a run makes.

    Args:
        left: by task, how many samples there are to predict.
        limits: by task, the most tokens of an answer.
    """

    def __init__(self, left: Mapping[str, int], limits: Mapping[str, int]) -> None:
        self.left, self.limits = dict(left), limits
        self.done, self.failed, self.new_tokens = Counter[str](), Counter[str](), Counter[str]()
        self._noted, self._reasons = defaultdict[str, Counter[str]](Counter), Counter[str]()
        self._dropped, self._started = 0, time.monotonic()

    def add(self, task: str, result: Completion | Failure) -> None:
        """Count an answer, or the lack of one."""
        self.done[task] += 1
        if isinstance(result, Failure):
            self.failed[task] += 1
            self._reasons[result.reason] += 1
            return
        self.new_tokens[task] += result.new_tokens + result.thought_tokens
        self._dropped += result.dropped
        for what, happened in {
            "answers did not end within their limit": result.finish_reason == "length",
            "were cut in thought, before any answer, at their limit": result.finish_reason == "thought",
            "are refusals": result.finish_reason == "refusal",
            "prompts were cut in the middle to fit the model's context": result.cut,
            "prompts lost demonstrations to fit the model's context": result.dropped > 0,
        }.items():
            if happened:
                self._noted[what][task] += 1

    def lines(self) -> Iterator[str]:
        """What was done, how fast, and what a reader of the answers should know."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        answered = self.done.total() - self.failed.total()
        yield (
            f"predicted {answered} samples, {self.new_tokens.total()} tokens in {seconds:.1f} s "
            f"({answered / seconds:.1f} samples/s, {self.new_tokens.total() / seconds:.0f} tokens/s)"
        )
        if self._dropped:
            yield f"{self._dropped} demonstrations were left out in all"
        for what, counts in [*self._noted.items(), *([("samples failed", self.failed)] if self.failed else [])]:
            limits = {task: f" (limit {self.limits[task]})" if "limit" in what else "" for task in counts}
            by_task = ", ".join(f"{task} {count}{limits[task]}" for task, count in counts.items())
            yield f"{counts.total()} {what}: {by_task}"
        for reason, count in self._reasons.most_common(3):
            yield f"  {count} times: {reason}"

    @contextmanager
    def shown(self) -> Iterator[Callable[[], None]]:
        """A table on stderr if it is a terminal, with a row a task and one for all; yields what redraws it."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = make_console(stderr=True)
        note = TextColumn("{task.fields[tokens]} tokens {task.fields[failed]} failed")
        columns = (BarColumn(bar_width=20), MofNCompleteColumn(), note, TimeRemainingColumn(elapsed_when_finished=True))
        table = Progress(TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal)
        counts = (self.done, self.new_tokens, self.failed)
        rows = {
            table.add_task(name or "all", total=total, tokens=0, failed=0): name
            for name, total in [*self.left.items(), (None, sum(self.left.values()))]
        }

        def update() -> None:
            for row, task in rows.items():
                done, tokens, failed = (each[task] if task else each.total() for each in counts)
                table.update(row, completed=done, tokens=tokens, failed=failed)

        with table:
            yield update
