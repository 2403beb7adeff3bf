"""How sure a score is: bootstrap intervals, and paired tests of the difference between two runs.

Everything here works on the samples' count vectors (`scoring`): a resample is a weight for each sample, so the
counts of all resamples are one matrix product, and the scorers score them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..scoring import Counts, Protocol, Totals, sum_counts
from ..tasks import REGISTRY, suite_of

Floats: TypeAlias = NDArray[np.float64]

#: The counts of every sample, by task; the tasks are of one suite.
CountsByTask: TypeAlias = Mapping[str, Sequence[Counts]]

#: Cells of a weight matrix held at a time; more samples are resampled in more rounds.
_CELLS = 8_000_000


class Interval(NamedTuple):
    """A 95% interval, in the unit of the score."""

    low: float
    high: float


class Difference(NamedTuple):
    """Second run minus first, for a task or for the overall score.

    Attributes:
        first, second: the two scores.
        low, high: 95% interval of the difference (paired bootstrap).
        bootstrap_p: two-sided, the share of resamples on the other side of zero, doubled.
        randomization_p: two-sided, the share of random exchanges of the two runs' outputs that make as large a
            difference.
        adjusted_p: ``randomization_p`` after Holm's correction over the tasks; for the overall score, which is a
            test of its own, the same as ``randomization_p``.
    """

    first: float
    second: float
    low: float
    high: float
    bootstrap_p: float
    randomization_p: float
    adjusted_p: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def _matrix(counts: Sequence[Counts], keys: Sequence[Hashable]) -> Floats:
    """Counts as a matrix of samples by keys."""
    column = {key: number for number, key in enumerate(keys)}
    matrix = np.zeros((len(counts), len(keys)))
    for row, sample in zip(matrix, counts, strict=True):
        for key, value in sample.items():
            row[column[key]] = value
    return matrix


def _keys(*runs: Sequence[Counts]) -> list[Hashable]:
    return list(dict.fromkeys(key for counts in runs for sample in counts for key in sample))


def _bootstrap_weights(rng: np.random.Generator, samples: int, resamples: int) -> Iterator[Floats]:
    """How often each sample is drawn in each resample, in blocks of resamples by samples."""
    block = max(1, _CELLS // samples)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(samples, size=(rows, samples)) + samples * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * samples).reshape(rows, samples).astype(float)


def _exchanges(rng: np.random.Generator, samples: int, resamples: int) -> Iterator[Floats]:
    """Which samples exchange their outputs, 0 or 1, in blocks of resamples by samples."""
    block = max(1, _CELLS // samples)
    for start in range(0, resamples, block):
        yield rng.integers(2, size=(min(block, resamples - start), samples)).astype(float)


def _units(counts: CountsByTask) -> CountsByTask:
    """What is resampled of each task, as its scorer has it."""
    return {task: REGISTRY[task].scorer.units(samples) for task, samples in counts.items()}


def _primary(task: str, keys: Sequence[Hashable], totals: Floats, protocol: Protocol) -> Floats:
    """The primary metric of every row of ``totals`` (resamples by keys)."""
    by_key: Totals = {key: totals[:, number] for number, key in enumerate(keys)}
    scorer = REGISTRY[task].scorer
    score = np.asarray(scorer.score(by_key, protocol)[scorer.primary], dtype=float)
    # A score that no count bears on is the plain number 0.
    return np.broadcast_to(score, (len(totals),))


def _task_rng(seed: int, task: str, use: int) -> np.random.Generator:
    """A stream of its own for each task, whichever others are scored beside it."""
    return np.random.default_rng([seed, use, list(suite_of([task]).tasks).index(task)])


def resampled_scores(
    counts: CountsByTask, protocol: Protocol = "official", resamples: int = 1000, seed: int = 0
) -> dict[str, Floats]:
    """Primary metric of every task on each of ``resamples`` bootstrap resamples of its samples, or their queries."""
    scores = {}
    for task, samples in _units(counts).items():
        keys = _keys(samples)
        matrix = _matrix(samples, keys)
        weights = _bootstrap_weights(_task_rng(seed, task, 0), len(samples), resamples)
        scores[task] = np.concatenate([_primary(task, keys, block @ matrix, protocol) for block in weights])
    return scores


def intervals(
    counts: CountsByTask, protocol: Protocol = "official", resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """95% percentile intervals by task name, by group, and for ``overall``."""
    resampled = resampled_scores(counts, protocol, resamples, seed)
    observed = {
        task: np.array([REGISTRY[task].scorer.score(sum_counts(samples), protocol)[REGISTRY[task].scorer.primary]])
        for task, samples in counts.items()
    }
    for scores in (resampled, observed):
        for group in suite_of(counts).groups:
            members = [scores[task] for task in counts if REGISTRY[task].group == group]
            if members:
                scores[group] = np.mean(members, axis=0)
        scores["overall"] = np.mean([scores[task] for task in counts], axis=0)
    return {
        name: Interval(*np.clip(_interval(_centred(values, observed[name][0])), 0, 1).tolist())
        for name, values in resampled.items()
    }


def _centred(values: Floats, observed: float) -> Floats:
    """Resampled values less their bias.

    A resample loses some rare labels, and outputs outside the label set, each a class of its own officially. So a
    macro average over a resample is off in one direction, at times by more than the whole interval.
    """
    centred: Floats = values + (observed - values.mean())
    return centred


def _interval(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def compare(
    first: CountsByTask,
    second: CountsByTask,
    protocol: Protocol = "official",
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[str], object] = lambda task: None,
) -> dict[str, Difference]:
    """Paired bootstrap and approximate randomisation of second minus first, by task and for ``overall``.

    Args:
        first: counts of every sample by task.
        second: the same samples in the same order.
        progress: told each task as its turn comes.
    """
    first, second = _units(first), _units(second)
    observed: dict[str, tuple[float, float]] = {}
    bootstrapped, exchanged = dict[str, Floats](), dict[str, Floats]()
    for task in first:
        progress(task)
        keys = _keys(first[task], second[task])
        ours, theirs = _matrix(first[task], keys), _matrix(second[task], keys)

        def difference(low: Floats, high: Floats, task: str = task, keys: list[Hashable] = keys) -> Floats:
            return _primary(task, keys, high, protocol) - _primary(task, keys, low, protocol)

        sums = ours.sum(axis=0), theirs.sum(axis=0)
        observed[task] = tuple(float(_primary(task, keys, total[None], protocol)[0]) for total in sums)  # type: ignore[assignment]
        weights = _bootstrap_weights(_task_rng(seed, task, 1), len(ours), resamples)
        bootstrapped[task] = np.concatenate([difference(block @ ours, block @ theirs) for block in weights])
        moves = (block @ (theirs - ours) for block in _exchanges(_task_rng(seed, task, 2), len(ours), resamples))
        exchanged[task] = np.concatenate([difference(sums[0] + move, sums[1] - move) for move in moves])

    everything = list(zip(*observed.values(), strict=True))
    observed["overall"] = tuple(float(np.mean(scores)) for scores in everything)  # type: ignore[assignment]
    for scores in (bootstrapped, exchanged):
        scores["overall"] = np.mean(list(scores.values()), axis=0)
    for name, (before, after) in observed.items():
        bootstrapped[name] = _centred(bootstrapped[name], after - before)

    randomization = {
        name: _at_least_as_large(exchanged[name], after - before) for name, (before, after) in observed.items()
    }
    adjusted = holm({task: randomization[task] for task in first})
    return {
        name: Difference(
            *scores,
            *_interval(bootstrapped[name]),
            _across_zero(bootstrapped[name]),
            randomization[name],
            adjusted.get(name, randomization[name]),
        )
        for name, scores in observed.items()
    }


def _across_zero(differences: Floats) -> float:
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, float(2 * (smaller + 1) / (len(differences) + 1)))


def _at_least_as_large(differences: Floats, observed: float) -> float:
    # The tolerance keeps exchanges that only add up in another order from counting as smaller.
    as_large = (np.abs(differences) >= abs(observed) - 1e-12).sum()
    return float((as_large + 1) / (len(differences) + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for how many hypotheses are tested (Holm 1979), in the order given."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def counts_by_task(scored: Sequence[Any]) -> dict[str, list[Counts]]:
    """The counts of scored samples (`evaluation.ScoredSample`) by task, in the benchmark's order."""
    by_task: dict[str, list[Counts]] = {task: [] for task in REGISTRY}
    for sample in scored:
        by_task[sample.task.name].append(sample.counts)
    return {task: counts for task, counts in by_task.items() if counts}
