"""Constrained decoding: an answer that can only be what its prompt offers, token by token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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


@dataclass
class _Node:
    """A place in the trie of tokenised options: ``below`` are the options that go through it."""

    next: dict[int, _Node] = field(default_factory=dict)
    below: set[int] = field(default_factory=set)
    ends: int | None = None


#: Where an answer can stand: a node, and the options before it. In the middle of a separator: how much of it is
#: written, in place of the node.
_State = tuple["_Node | int", frozenset[int]]


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
        self._root = _Node()
        rows = [*options, *([nothing] if nothing else [])]
        self._nothing = len(rows) - 1 if nothing else None
        self._count = len(rows)
        for number, ids in enumerate(rows):
            node = self._root
            for token in ids:
                node = node.next.setdefault(token, _Node())
                node.below.add(number)
            node.ends = number if node.ends is None else node.ends
        self._states: dict[tuple[int, ...], tuple[_State, ...]] = {(): ((self._root, frozenset()),)}

    def allowed(self, generated: Sequence[int]) -> list[int]:
        """The tokens that may follow; the end alone after what no choice begins with.

        Args:
            generated: token ids of the answer so far.
        """
        tokens = {
            token for state in self._after(tuple(generated)) for token in (*self._steps(state), *self._ends(state))
        }
        return sorted(tokens) or [self.end]

    def _after(self, generated: tuple[int, ...]) -> tuple[_State, ...]:
        if generated not in self._states:
            before = self._after(generated[:-1])
            found = (self._steps(state).get(generated[-1], ()) for state in before)
            self._states[generated] = tuple(state for states in found for state in states)
        return self._states[generated]

    def _steps(self, state: _State) -> dict[int, list[_State]]:
        """The states after each token that can follow."""
        place, used = state
        if isinstance(place, int):
            return {self._token(place): [self._between(place + 1, used)]}
        steps: dict[int, list[_State]] = {
            token: [(node, used)] for token, node in place.next.items() if self._open(node, used)
        }
        if self.separator and place.ends is not None and place.ends not in {self._nothing, *used}:
            taken = used | {place.ends}
            if self._open(self._root, taken):
                steps.setdefault(self._token(0), []).append(self._between(1, taken))
        return steps

    def _ends(self, state: _State) -> tuple[int, ...]:
        place, used = state
        done = isinstance(place, _Node) and place.ends is not None and place.ends not in used
        return (self.end,) if done else ()

    def _open(self, node: _Node, used: frozenset[int]) -> bool:
        """Whether an option that is not used goes through the node; the answer for none stands alone."""
        below = set(range(self._count)) if node is self._root else node.below
        return bool(below - used - ({self._nothing} if used else set()))

    def _token(self, place: int) -> int:
        assert self.separator is not None
        return self.separator[place]

    def _between(self, written: int, used: frozenset[int]) -> _State:
        assert self.separator is not None
        return (written if written < len(self.separator) else self._root, used)
