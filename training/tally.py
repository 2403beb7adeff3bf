"""How far a prediction run is, by task: a live table on a terminal, and a few lines at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from .backends import Completion, Failure

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
