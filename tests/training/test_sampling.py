from __future__ import annotations

import random

import pytest

from promptcblue_training.sampling import LengthGroupedSampler

LENGTHS = random.Random(1).choices(range(10, 1000), k=1003)
BATCH = 8


def padding(order: list[int]) -> int:
    batches = [[LENGTHS[index] for index in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    sampler = LengthGroupedSampler(LENGTHS, BATCH, seed=1)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert [sorted(epoch) for epoch in epochs] == [list(range(len(LENGTHS)))] * 2
    assert epochs[0] != epochs[1]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, later = LengthGroupedSampler(LENGTHS, BATCH, seed=1), LengthGroupedSampler(LENGTHS, BATCH, seed=1)
    for epoch in range(3):
        first.set_epoch(epoch)
        order = list(first)
    later.set_epoch(2)
    assert list(later) == order
    assert list(LengthGroupedSampler(LENGTHS, BATCH, seed=2)) != list(LengthGroupedSampler(LENGTHS, BATCH, seed=1))


def test_batches_hold_like_lengths_and_come_in_no_order_of_length() -> None:
    order = list(LengthGroupedSampler(LENGTHS, BATCH, seed=1))
    shuffled = random.Random(2).sample(range(len(LENGTHS)), len(LENGTHS))
    assert padding(order) < padding(shuffled) / 4
    longest = [LENGTHS[index] for index in order[: 40 * BATCH : BATCH]]
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_small_sets(count: int) -> None:
    assert sorted(LengthGroupedSampler(LENGTHS[:count], BATCH, seed=1)) == list(range(count))
