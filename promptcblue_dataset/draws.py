"""Seeded draws that give the same results on every machine, Python version and number of processes.

The numbers are the bytes of BLAKE2b over a counter, keyed by what is drawn. Two draws share nothing unless they share
their key.

Demonstrations are drawn here too: the few train samples a task that few-shot prompting shows and few-shot fine-tuning
learns from.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import get_task

T = TypeVar("T")

_EIGHT = struct.Struct("<8Q").unpack


class Draws:
    """A stream of random choices.

    Args:
        key: what names the stream, such as seed, task, split and number of a row.
    """

    def __init__(self, *key: object) -> None:
        self._numbers = _numbers(key)

    def below(self, bound: int) -> int:
        """An integer in ``[0, bound)``; the bias is below ``bound / 2**64``."""
        return next(self._numbers) * bound >> 64

    def between(self, low: int, high: int) -> int:
        """An integer in ``[low, high]``."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.below(1 << 32) < probability * (1 << 32)

    def weighted(self, weights: Mapping[int, int]) -> int:
        """One of the numbers, each as often as its weight says."""
        place = self.below(sum(weights.values()))
        for number, weight in weights.items():
            place -= weight
            if place < 0:
                return number
        raise ValueError(f"no weights: {weights}")

    def one(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` of the items at different places, in the order they are drawn."""
        left, size = list(items), len(items)
        # As in `order`, on a list; one number more than is needed is taken, as ever, which decides what follows.
        for place, number in zip(range(min(count + 1, size)), self._numbers, strict=False):
            drawn = place + (number * (size - place) >> 64)
            left[place], left[drawn] = left[drawn], left[place]
        return left[:count]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order."""
        return self.some(items, len(items))

    def order(self, count: int) -> Iterator[int]:
        """The integers in ``[0, count)`` in random order, each when it is asked for.

        Memory grows with how many were taken, not with ``count`` (Fisher-Yates on an array that is never built).
        """
        moved: dict[int, int] = {}
        for place, number in zip(range(count), self._numbers, strict=False):
            drawn = place + (number * (count - place) >> 64)  # as `below`, a million times a build
            yield moved.get(drawn, drawn)
            moved[drawn] = moved.pop(place, place)


def _numbers(key: tuple[object, ...]) -> Iterator[int]:
    """Integers in ``[0, 2**64)`` without end; nothing is hashed before the first is asked for."""
    name = hashlib.blake2b("\x1f".join(map(str, key)).encode()).digest()
    for block in itertools.count():
        yield from _EIGHT(hashlib.blake2b(block.to_bytes(8, "little"), key=name).digest())[::-1]


# --- Demonstrations ---


def draw(samples: Iterable[Sample], counts: Mapping[str, int], seed: int = 0) -> list[Sample]:
    """Draw samples of each task that together show its labels as evenly as they can.

    The draw depends on the set of samples, the count and the seed: not on the order of the samples, nor on which
    other tasks are drawn. Where a task has labels, each sample drawn brings labels that were shown least: ten of
    CHIP-CTC have ten different labels, ten of CHIP-STS five of each.

    Args:
        samples: train samples; those of tasks that ``counts`` does not name are left alone.
        counts: how many to draw, by task name or alias.

    Returns:
        The drawn samples, in the order of ``counts`` and, within a task, in random order.

    Raises:
        PromptCBLUEError: a task has fewer samples with a target than its count.
    """
    wanted = {get_task(name).name: count for name, count in counts.items()}
    by_task: dict[str, list[Sample]] = {name: [] for name in wanted}
    without_target: Counter[str] = Counter()
    for sample in samples:
        if (name := sample["task_dataset"]) in by_task:
            by_task[name] += [sample] if sample["target"].strip() else []
            without_target[name] += not sample["target"].strip()
    lacking = [
        f"{name} has {len(found)} of {wanted[name]}"
        + f" ({without_target[name]} more have no target)" * bool(without_target[name])
        for name, found in by_task.items()
        if len(found) < wanted[name]
    ]
    if lacking:
        raise PromptCBLUEError(
            f"too few train samples to draw demonstrations from: {', '.join(lacking)}; ask for fewer, or give a "
            "train split that has more"
        )
    return [sample for name, count in wanted.items() for sample in _draw(name, by_task[name], count, seed)]


def _draw(task: str, samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    ordered = sorted(samples, key=lambda sample: (sample["sample_id"], sample["input"], sample["target"]))
    left = [(sample, shown_labels(sample)) for sample in Draws("demonstrations", seed, task).shuffled(ordered)]
    every = frozenset[str]().union(*(labels for _, labels in left))
    drawn: list[Sample] = []
    missing = every
    for still in range(count, 0, -1):
        # As many new labels as each of the draws left must bring, if a sample has them; not the most that one could
        # bring, which would favour the longest samples.
        best = max(len(labels & missing) for _, labels in left)
        share = min(-(-len(missing) // still), best)
        place = next(place for place, (_, labels) in enumerate(left) if len(labels & missing) >= share)
        sample, labels = left.pop(place)
        drawn.append(sample)
        missing -= labels
        if not any(labels & missing for _, labels in left):
            missing = every
    return drawn


def shown_labels(sample: Sample) -> frozenset[str]:
    """The labels, types or statuses of the task that stand in the sample's target; none for a task without labels."""
    task = get_task(sample["task_dataset"])
    if not task.labels:
        return frozenset()
    answer = task.format.parse(sample["target"], task.choices(sample["answer_choices"])).answer
    if isinstance(answer, str):
        return frozenset([answer])
    return frozenset(value for item in answer for value in item.values() if value in task.labels)
