"""Constrained decoding: an answer that can only be what its prompt offers, token by token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from promptcblue_metric.answers import Label, TermList
from promptcblue_metric.data.samples import Sample
from promptcblue_metric.tasks import get_task

from .backends import Choices

#: Between the terms of a list, in the released dialect.
_SEPARATOR = "，"


def choices_of(sample: Sample) -> Choices | None:
    """What the answer to a sample can be; None where that is an open set.

    A label is one of those offered, or the one that may always answer (``非上述类型``) where the task has it. A list
    of terms holds any of those offered, each once.
    """
    task = get_task(sample["task_dataset"])
    offered = tuple(task.choices(sample["answer_choices"]))
    if isinstance(task.format, Label):
        always = (task.format.none_of_these,) if task.format.none_of_these else ()
        return Choices(tuple(dict.fromkeys((*offered, *always))))
    if isinstance(task.format, TermList):
        return Choices(tuple(dict.fromkeys(offered)), separator=_SEPARATOR, nothing=task.format.nothing)
    return None


#: What of an answer is still to come: the tokens up to the end of an option, and the options that it has with that one.
_State = tuple[tuple[int, ...], frozenset[int]]


class TokenChoices:
    """The tokens that may come next in an answer that is bound to choices.

    Args:
        options: token ids of each option.
        end: the token that ends an answer.
        separator: token ids of what stands between several options; None where there is only one.
        nothing: token ids of the answer that is no option; None where there is none.
    """

    def __init__(
        self,
        options: Iterable[Sequence[int]],
        end: int,
        separator: Sequence[int] | None = None,
        nothing: Sequence[int] | None = None,
    ) -> None:
        self.end, self.separator = end, separator
        self._options = dict(enumerate(dict.fromkeys(map(tuple, options))))
        alone = [(tuple(nothing), frozenset(self._options))] if nothing else []
        self._states: dict[tuple[int, ...], list[_State]] = {(): [*self._further(frozenset()), *alone]}

    def _further(self, used: frozenset[int]) -> list[_State]:
        """What may come after the options of an answer: any other one."""
        between = tuple(self.separator or ()) if used else ()
        return [((*between, *ids), used | {number}) for number, ids in self._options.items() if number not in used]

    def allowed(self, generated: Sequence[int]) -> list[int]:
        """The tokens that may follow; the end alone after what no choice begins with.

        Args:
            generated: token ids of the answer so far.
        """
        return sorted({rest[0] if rest else self.end for rest, _ in self._after(tuple(generated))}) or [self.end]

    def _after(self, generated: tuple[int, ...]) -> list[_State]:
        if generated not in self._states:
            found = [(rest[1:], used) for rest, used in self._after(generated[:-1]) if rest[:1] == generated[-1:]]
            done = {used for rest, used in found if not rest} if self.separator else ()
            self._states[generated] = [*found, *(state for used in done for state in self._further(used))]
        return self._states[generated]
