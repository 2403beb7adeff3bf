"""How sure a score is: jackknife intervals, and paired tests of the difference between two runs.

An interval is for the score that the system is expected to get on a test set of this size, drawn as this one was. Its
width comes from the jackknife: the score is taken again without each sample (Quenouille 1956, Tukey 1958), and without
each two. Efron and Stein (1981, Annals of Statistics 9) show what that gives for any score that does not depend on the
order of the samples: the jackknife counts the variance of order k of its ANOVA decomposition k times, too much where
the score is far from a sum over samples, as macro-F1 with rare labels is; what they take away for the pairs counts it
k (k - 1) / 2 times, and leaves too little. So the true variance lies between two bounds, the lower being the better of
Bonferroni's (the corrected jackknife) and that of the first two moments (of k); the middle is taken. Ends are taken on
the logit scale, so that they stay between 0 and 1, with Student's t on samples less one. Where leaving a sample out
changes nothing (all right, or all wrong), the interval is Wilson's (1927) for a kind of sample that was never seen.
The mean of several tasks is put together by MOVER, the method of variance estimates recovery (Zou and Donner 2008,
Statistics in Medicine 27; Newcombe 1998 for two shares): each end is as far from the mean as the squares of its parts'
distances on that side add up to. The tasks that vary are one part, with the sum of their variances (Satterthwaite
1946); of the others each is one, with Wilson's interval: near 1 their variance would drown the rest on the logit scale.
And no mean has a wider interval than the mean of its tasks' ends. `benchmarks/intervals.py` simulates what all this is
worth.

Everything here works on the samples' count vectors (`scoring`), so the scores of all parts of a test set, or of all
random exchanges, come out of one formula at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..scoring import Counts, Protocol, Totals
from ..tasks import REGISTRY, suite_of

if TYPE_CHECKING:
    from ..evaluation import ScoredSample

Floats: TypeAlias = NDArray[np.float64]

#: The counts of every sample, by task; the tasks are of one suite.
CountsByTask: TypeAlias = Mapping[str, Sequence[Counts]]

#: The 97.5% point of the normal distribution.
_Z = 1.959963984540054
#: Numbers held at a time; more samples are worked on in more rounds.
_CELLS = 8_000_000
#: Pairs times counts that are worked on; beyond, in thousands of samples of all kinds, the jackknife alone is close.
_PAIR_CELLS = 50_000_000
#: A spread below this is rounding.
_NOTHING = 1e-12


class Interval(NamedTuple):
    """A 95% interval, in the unit of the score."""

    low: float
    high: float


class Difference(NamedTuple):
    """Second run minus first, for a task or for the overall score.

    Attributes:
        first, second: the two scores.
        low, high: 95% interval of the difference (paired jackknife).
        randomization_p: two-sided, the share of random exchanges of the two runs' outputs that make as large a
            difference.
        adjusted_p: ``randomization_p`` after Holm's correction over the tasks; for the overall score, which is a
            test of its own, the same as ``randomization_p``.
    """

    first: float
    second: float
    low: float
    high: float
    randomization_p: float
    adjusted_p: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


class _Estimate(NamedTuple):
    """A score, or a mean of scores, or a difference of such, with what its interval is made of.

    Attributes:
        value: the score.
        variance: 0 where no sample makes a difference.
        freedom: degrees of freedom of the variance.
        unseen: the largest share of samples of a kind that a test set of this size can well lack.
    """

    value: float
    variance: float
    freedom: float
    unseen: float

    @property
    def spread(self) -> float:
        """Half of the width of the interval, in the unit of the score; 0 where no sample makes a difference."""
        return _student(self.freedom) * math.sqrt(self.variance) if self.variance > _NOTHING else 0.0

    def interval(self) -> Interval:
        """Of a score in 0..1."""
        if not self.spread or not 0 < self.value < 1:
            return Interval(self.value * (1 - self.unseen), self.value * (1 - self.unseen) + self.unseen)
        middle, half = math.log(self.value / (1 - self.value)), self.spread / (self.value * (1 - self.value))
        return Interval(*((1 + math.tanh((middle + step) / 2)) / 2 for step in (-half, half)))

    def interval_of_difference(self) -> Interval:
        """Of a difference in -1..1."""
        half = self.spread or self.unseen
        return Interval(max(-1.0, self.value - half), min(1.0, self.value + half))


def _joint(estimates: Sequence[_Estimate]) -> _Estimate:
    """The plain mean of independent scores that all vary; degrees of freedom by Satterthwaite (1946)."""
    number, variance = len(estimates), sum(estimate.variance for estimate in estimates)
    freedom = variance**2 / sum(estimate.variance**2 / estimate.freedom for estimate in estimates)
    return _Estimate(sum(estimate.value for estimate in estimates) / number, variance / number**2, freedom, 0.0)


def _of_mean(estimates: Sequence[_Estimate], interval: Callable[[_Estimate], Interval]) -> Interval:
    """Interval of the plain mean of independent scores or differences, from the parts' (MOVER)."""
    number = len(estimates)
    varying = [estimate for estimate in estimates if estimate.variance > _NOTHING]
    parts = [(1, estimate) for estimate in estimates if estimate.variance <= _NOTHING]
    if varying:
        parts.append((len(varying), _joint(varying)))
    value = sum(times * part.value for times, part in parts) / number
    below, above = (
        math.hypot(*(times * (interval(part)[end] - part.value) for times, part in parts)) / number for end in (0, 1)
    )
    low, high = (sum(ends) / number for ends in zip(*map(interval, estimates), strict=True))
    return Interval(max(low, value - below), min(high, value + above))


def _student(freedom: float) -> float:
    """The 97.5% point of Student's t, by its expansion around the normal one (Abramowitz and Stegun 26.7.5)."""
    if freedom < 3:
        return {1: 12.706, 2: 4.303}[max(1, math.floor(freedom))]
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _matrix(counts: Sequence[Counts], keys: Sequence[Hashable]) -> Floats:
    """Counts as a matrix of samples by keys."""
    column = {key: number for number, key in enumerate(keys)}
    matrix = np.zeros((len(counts), len(keys)))
    for row, sample in zip(matrix, counts, strict=True):
        for key, value in sample.items():
            row[column[key]] = value
    return matrix


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of as many rows as are worked on at a time."""
    block = max(1, _CELLS // max(1, columns))
    return (slice(start, min(start + block, rows)) for start in range(0, rows, block))


def _squares(values: Floats, times: NDArray[np.int64]) -> float:
    """The sum of squared deviations from the mean of values that occur so many times."""
    return float(times @ (values - np.average(values, weights=times)) ** 2)


class _Runs:
    """The counts of a task's samples in one run, or in two over the same samples."""

    def __init__(self, task: str, protocol: Protocol, *runs: Sequence[Counts]) -> None:
        self.task, self.protocol = task, protocol
        units = [REGISTRY[task].scorer.units(run) for run in runs]
        self.keys = list(dict.fromkeys(key for run in units for sample in run for key in sample))
        self.counts = [_matrix(run, self.keys) for run in units]
        self.scores = self._scores(np.hstack(self.counts).sum(axis=0))

    def _scores(self, totals: Floats) -> list[Floats]:
        """The scores of each run, from sums of the runs' counts beside each other on the last axis."""
        scorer, scores = REGISTRY[self.task].scorer, list[Floats]()
        for part in np.split(totals, len(self.counts), axis=-1):
            by_key: Totals = {key: part[..., number] for number, key in enumerate(self.keys)}
            score = np.asarray(scorer.score(by_key, self.protocol)[scorer.primary], dtype=float)
            # A score that no count bears on is the plain number 0.
            scores.append(np.broadcast_to(score, part.shape[:-1]))
        return scores

    def _value(self, totals: Floats) -> Floats:
        """The score of one run, or the second's less the first's."""
        first, *second = self._scores(totals)
        return second[0] - first if second else first

    def estimate(self) -> _Estimate:
        """Of the score of one run, or of the second's less the first's."""
        # Samples with the same counts are one, so many times.
        samples, times = np.unique(np.hstack(self.counts), axis=0, return_counts=True)
        number, total = int(times.sum()), times @ samples
        value = float(self._value(total))
        without = np.concatenate([self._value(total - samples[rows]) for rows in _blocks(*samples.shape)])
        low = high = (number - 1) / number * _squares(without, times)
        if number > 2 and len(samples) * samples.size <= _PAIR_CELLS:
            second = self._of_pairs(samples, times, value, without) / (number * (number - 1))
            low = max(high - second, high**2 / (high + 2 * second)) if second > _NOTHING else high
        return _Estimate(value, (low + high) / 2, max(1, number - 1), _Z**2 / (number + _Z**2))

    def _of_pairs(self, samples: Floats, times: NDArray[np.int64], value: float, without: Floats) -> float:
        """Sum of squares, over all pairs of samples, of what leaving out both does beside leaving out each."""
        number, total = int(times.sum()), times @ samples
        effects, pairs = [], []
        for rows in _blocks(len(samples), samples.size):
            kept = slice(rows.start, None)
            neither = self._value(total - samples[rows, None] - samples[kept])
            of_each = without[rows, None] + without[kept]
            effects.append((number * value - (number - 1) * of_each + (number - 2) * neither).ravel())
            weights = np.triu(np.outer(times[rows], times[kept]))
            np.fill_diagonal(weights, times[rows] * (times[rows] - 1) // 2)
            pairs.append(weights.ravel())
        return _squares(np.concatenate(effects), np.concatenate(pairs))

    def exchanged(self, exchanges: int, seed: int) -> Floats:
        """Differences of the two scores after random exchanges of the two runs' outputs."""
        first, second = self.counts
        # A stream of its own for each task, whichever others are scored beside it.
        rng = np.random.default_rng([seed, 2, list(suite_of([self.task]).tasks).index(self.task)])
        moved = second - first
        found = []
        for rows in _blocks(exchanges, len(moved)):
            moves = rng.integers(2, size=(rows.stop - rows.start, len(moved))).astype(float) @ moved
            found.append(self._value(np.hstack([first.sum(axis=0) + moves, second.sum(axis=0) - moves])))
        return np.concatenate(found)


def intervals(counts: CountsByTask, protocol: Protocol = "official") -> dict[str, Interval]:
    """95% intervals by task name, by group, and for ``overall``, of the expected score on as many samples.

    Samples are taken as independent; of rankings, queries are.
    """
    estimates = {task: _Runs(task, protocol, samples).estimate() for task, samples in counts.items()}
    groups = {group: [task for task in counts if REGISTRY[task].group == group] for group in suite_of(counts).groups}
    means = {
        name: _of_mean([estimates[task] for task in tasks], _Estimate.interval)
        for name, tasks in {**groups, "overall": list(counts)}.items()
        if tasks
    }
    return {task: estimate.interval() for task, estimate in estimates.items()} | means


def compare(
    first: CountsByTask,
    second: CountsByTask,
    protocol: Protocol = "official",
    resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[str], object] = lambda task: None,
) -> dict[str, Difference]:
    """Second minus first with paired intervals, and approximate randomisation, by task and for ``overall``.

    Args:
        first: counts of every sample by task.
        second: the same samples in the same order.
        resamples: random exchanges of the two runs' outputs.
        seed: of the exchanges.
        progress: told each task as its turn comes.
    """
    scores: dict[str, tuple[float, ...]] = {}
    estimates, exchanged = dict[str, _Estimate](), dict[str, Floats]()
    for task in first:
        progress(task)
        runs = _Runs(task, protocol, first[task], second[task])
        scores[task], estimates[task] = tuple(map(float, runs.scores)), runs.estimate()
        exchanged[task] = runs.exchanged(resamples, seed)
    between = {task: estimate.interval_of_difference() for task, estimate in estimates.items()}
    between["overall"] = _of_mean(list(estimates.values()), _Estimate.interval_of_difference)
    scores["overall"] = tuple(float(np.mean(column)) for column in zip(*scores.values(), strict=True))
    exchanged["overall"] = np.mean(list(exchanged.values()), axis=0)
    p_values = {name: _at_least_as_large(exchanged[name], after - before) for name, (before, after) in scores.items()}
    adjusted = {**p_values, **holm({task: p_values[task] for task in first})}
    return {
        name: Difference(before, after, *between[name], p_values[name], adjusted[name])
        for name, (before, after) in scores.items()
    }


def _at_least_as_large(differences: Floats, observed: float) -> float:
    # The tolerance keeps exchanges that only add up in another order from counting as smaller.
    as_large = (np.abs(differences) >= abs(observed) - _NOTHING).sum()
    return float((as_large + 1) / (len(differences) + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for how many hypotheses are tested (Holm 1979), in the order given."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def counts_by_task(scored: Iterable[ScoredSample]) -> dict[str, list[Counts]]:
    """The counts of scored samples by task, in the benchmark's order."""
    by_task: dict[str, list[Counts]] = {task: [] for task in REGISTRY}
    for sample in scored:
        by_task[sample.task.name].append(sample.counts)
    return {task: counts for task, counts in by_task.items() if counts}
