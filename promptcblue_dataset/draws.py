"""Seeded draws that give the same results on every machine, Python version and number of processes.

The numbers are the bytes of BLAKE2b over a counter, keyed by what is drawn. Two draws share nothing unless they share
their key.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

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
        return [items[place] for place, _ in zip(self.order(len(items)), range(count), strict=False)]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order."""
        return self.some(items, len(items))

    def order(self, count: int) -> Iterator[int]:
        """The integers in ``[0, count)`` in random order, each when it is asked for.

        Memory grows with how many were taken, not with ``count`` (Fisher-Yates on an array that is never built).
        """
        moved: dict[int, int] = {}
        for place in range(count):
            drawn = place + self.below(count - place)
            yield moved.get(drawn, drawn)
            moved[drawn] = moved.pop(place, place)


def _numbers(key: tuple[object, ...]) -> Iterator[int]:
    """Integers in ``[0, 2**64)`` without end; nothing is hashed before the first is asked for."""
    name = hashlib.blake2b("\x1f".join(map(str, key)).encode()).digest()
    for block in itertools.count():
        yield from _EIGHT(hashlib.blake2b(block.to_bytes(8, "little"), key=name).digest())[::-1]
