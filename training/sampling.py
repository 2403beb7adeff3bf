"""The order in which samples are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

#: How many batches are drawn at a time and sorted by length: as many as leave chance its part.
_POOL = 50


class LengthGroupedSampler(Sampler[int]):
    """Random batches of like lengths, so that little is padding, in an order that a resumed run repeats.

    Each epoch shuffles the samples, sorts them by length within pools of many batches, and shuffles the batches. The
    order depends on seed and epoch alone: unlike transformers' sampler of that kind, which draws from the process's
    random state, it goes on in mid-epoch with exactly the samples that an interrupted run had not seen, and the
    batches of a pool do not come longest first.

    Args:
        lengths: of each sample, in tokens.
        batch: samples a step, over all devices and accumulated passes.
        seed: of the whole run.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch, 0-based."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=random).tolist()
        # A few pools at least, also for small sets, or every epoch would have the same batches.
        pool = max(1, min(_POOL, len(order) // (4 * self.batch))) * self.batch
        for start in range(0, len(order), pool):
            order[start : start + pool] = sorted(
                order[start : start + pool], key=self.lengths.__getitem__, reverse=True
            )
        whole = len(order) // self.batch
        for index in torch.randperm(whole, generator=random).tolist():
            yield from order[index * self.batch : (index + 1) * self.batch]
        yield from order[whole * self.batch :]
