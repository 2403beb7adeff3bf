"""What the intervals and the tests of differences are worth, by simulation.

Test sets are drawn from systems whose answers are known in distribution, scored, and given intervals as
`promptcblue-metric score` gives them. Printed for each kind of score: how often its 95% interval holds the expected
score at that test size, how often it lies wholly above or below it, and the ratio of its standard error to the
true one. Then pairs of equal systems are compared: how often does the interval of the difference miss zero, and how
often does approximate randomisation find a difference at 5%? Rows with a * are of scores whose interval is not given
where outputs are garbled: how many classes there are is then chance, and may be none.

    python benchmarks/intervals.py --sets 2000
    python benchmarks/intervals.py --sets 400 --only "group|overall"
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptcblue_metric import TASKS
from promptcblue_metric.compare.significance import compare, intervals
from promptcblue_metric.scoring import Counts, Protocol

Rng = np.random.Generator
#: Draws the counts of one test set, by task.
Draw = Callable[[Rng], dict[str, list[Counts]]]


@dataclass(frozen=True)
class Labels:
    """Answers with one label.

    Attributes:
        task: one that is answered so.
        samples: of a test set.
        accuracy: how often an answer is right, garbled ones apart.
        garbled: how often an answer is none of the labels, and like no other answer.
        rarity: the k-th label is as frequent as 1 / k to this power.
    """

    task: str
    samples: int
    accuracy: float
    garbled: float = 0.0
    rarity: float = 0.5

    def draw(self, rng: Rng) -> dict[str, list[Counts]]:
        """One system's counts."""
        return {self.task: self.runs(rng, 1)[0]}

    def runs(self, rng: Rng, number: int, shared: float = 0.5) -> list[list[Counts]]:
        """The counts of equally good systems, which fail on the same samples in a ``shared`` part of them."""
        labels, scorer = TASKS[self.task].labels, TASKS[self.task].scorer
        frequency = 1 / np.arange(1, len(labels) + 1) ** self.rarity
        gold = rng.choice(len(labels), size=self.samples, p=frequency / frequency.sum())
        together, luck = rng.random(self.samples) < shared, rng.random(self.samples)
        runs = []
        for _ in range(number):
            right = np.where(together, luck, rng.random(self.samples)) < self.accuracy
            other = (gold + rng.integers(1, len(labels), size=self.samples)) % len(labels)
            answers, broken = np.where(right, gold, other), rng.random(self.samples) < self.garbled
            runs.append(
                [
                    scorer.count(f"garbled {place}" if broken[place] else labels[answers[place]], labels[gold[place]])
                    for place in range(self.samples)
                ]
            )
        return runs


def entities(samples: int, rate: float, task: str = "CMeEE-V2") -> Draw:
    """Extraction: samples with one entity and more, some samples harder than others."""

    def draw(rng: Rng) -> dict[str, list[Counts]]:
        gold = rng.poisson(4, size=samples) + 1
        hits = rng.binomial(gold, rng.beta(rate * 3, (1 - rate) * 3, size=samples))
        extra = rng.poisson((gold - hits) * 0.8)
        return {
            task: [
                {"tp": int(tp), "fp": int(fp), "fn": int(fn)}
                for tp, fp, fn in zip(hits, extra, gold - hits, strict=True)
            ]
        }

    return draw


def texts(samples: int) -> Draw:
    """Generation: a ROUGE-L for each text."""
    return lambda rng: {"MedDG": [{"texts": 1, "rougeL": float(f)} for f in rng.beta(1.5, 3.5, size=samples)]}


def together(*draws: Draw) -> Draw:
    """Several tasks of one run."""
    return lambda rng: {task: counts for draw in draws for task, counts in draw(rng).items()}


@dataclass(frozen=True)
class Case:
    """A kind of score: how its test sets are drawn, and which score of theirs is looked at."""

    title: str
    draw: Draw
    protocol: Protocol = "official"
    name: str = ""


def _whole(garbled: float) -> Draw:
    """Six tasks, of which three are in one group."""
    return together(
        entities(400, 0.6),
        Labels("KUAKE-QIC", 440, 0.8, garbled).draw,
        Labels("CHIP-CTC", 704, 0.85, garbled, 1.5).draw,
        Labels("IMCS-V2-DAC", 512, 0.8, garbled).draw,
        Labels("KUAKE-QTR", 400, 0.7).draw,
        texts(400),
    )


def _near_one(samples: int, rate: float = 0.99) -> Draw:
    """Eight tasks that are answered nearly without fault, of which three are in each of two groups."""
    extraction = ("CMeEE-V2", "CMeIE", "CHIP-CDEE")
    inference = ("CHIP-STS", "KUAKE-IR", "KUAKE-QTR")
    return together(
        *(entities(samples, rate, task) for task in extraction),
        *(Labels(task, samples, rate).draw for task in (*inference, "KUAKE-QIC", "IMCS-V2-DAC")),
    )


CASES = (
    Case("micro-F1, 400 samples", entities(400, 0.6)),
    Case("micro-F1, 50 samples", entities(50, 0.6)),
    Case("micro-F1, low score, 100 samples", entities(100, 0.1)),
    Case("weighted F1 of inference, 400 samples", Labels("KUAKE-QTR", 400, 0.8).draw),
    Case("pooled F1 of inference, 3% garbled, paper", Labels("KUAKE-QTR", 400, 0.8, 0.03).draw, "paper"),
    Case("ROUGE-L, 400 samples", texts(400)),
    Case("macro-F1, 11 labels, 440 samples", Labels("KUAKE-QIC", 440, 0.8).draw),
    Case("macro-F1, accuracy .97", Labels("KUAKE-QIC", 440, 0.97).draw),
    Case("macro-F1, 45 labels, many rare, 704 samples", Labels("CHIP-CTC", 704, 0.85, 0, 1.5).draw),
    Case("macro-F1, 5% garbled, paper", Labels("KUAKE-QIC", 440, 0.8, 0.05).draw, "paper"),
    Case("macro-F1, 45 labels, 5% garbled, paper", Labels("CHIP-CTC", 704, 0.85, 0.05, 1.5).draw, "paper"),
    Case("macro-F1, 5% garbled, official *", Labels("KUAKE-QIC", 440, 0.8, 0.05).draw),
    Case("macro-F1, 1% garbled, official *", Labels("KUAKE-QIC", 440, 0.8, 0.01).draw),
    Case("macro-F1, 0.5% garbled, official *", Labels("KUAKE-QIC", 440, 0.8, 0.005).draw),
    Case("group of three, 2% garbled, official", _whole(0.02), name="text classification"),
    Case("group of three, 0.5% garbled, official", _whole(0.005), name="text classification"),
    Case("overall of six tasks, 2% garbled, official", _whole(0.02), name="overall"),
    Case("overall of six tasks, 0.5% garbled, official", _whole(0.005), name="overall"),
    Case("group of three, inference at .99, 60 samples", _near_one(60), name="natural language inference"),
    Case("group of three, inference at .99, 400 samples", _near_one(400), name="natural language inference"),
    Case("group of three, extraction at .99, 60 samples", _near_one(60), name="information extraction"),
    Case("group of three, extraction at .99, 400 samples", _near_one(400), name="information extraction"),
    Case("overall of eight tasks at .99, 60 samples", _near_one(60), name="overall"),
    Case("overall of eight tasks at .99, 400 samples", _near_one(400), name="overall"),
)
PAIRS: Mapping[str, Labels] = {
    "weighted F1, 400 samples": Labels("KUAKE-QTR", 400, 0.8),
    "macro-F1, 11 labels": Labels("KUAKE-QIC", 440, 0.8),
    "macro-F1, 3% garbled, official": Labels("KUAKE-QIC", 440, 0.8, 0.03),
    "macro-F1, 0.5% garbled, official": Labels("KUAKE-QIC", 440, 0.8, 0.005),
    "macro-F1, 45 labels, many rare": Labels("CHIP-CTC", 704, 0.85, 0, 1.5),
}


def coverage(case: Case, sets: int, rng: Rng) -> str:
    """A row of the first table."""
    found = []
    for _ in range(sets):
        counts = case.draw(rng)
        name = case.name or next(iter(counts))
        found.append((score_of(counts, case.protocol, name), *intervals(counts, case.protocol)[name]))
    scores, low, high = np.array(found).T
    expected = scores.mean()
    inside = (low <= expected) & (expected <= high)
    return (
        f"{case.title:46} {expected:.3f}  {inside.mean():.3f}  {(low > expected).mean():.3f}  "
        f"{(high < expected).mean():.3f}  {(high - low).mean() / 3.92 / scores.std():.2f}"
    )


def score_of(counts: Mapping[str, Sequence[Counts]], protocol: Protocol, name: str) -> float:
    """The mean of the primary scores that ``name`` stands for: a task, a group or ``overall``."""
    scores = []
    for task, samples in counts.items():
        if name in (task, TASKS[task].group, "overall"):
            totals: dict[object, float] = {}
            for sample in samples:
                for key, value in sample.items():
                    totals[key] = totals.get(key, 0) + value
            scorer = TASKS[task].scorer
            scores.append(float(scorer.score(totals, protocol)[scorer.primary]))
    return float(np.mean(scores))


def rejections(title: str, labels: Labels, sets: int, rng: Rng) -> str:
    """A row of the second table."""
    missed = rejected = 0
    for _ in range(sets):
        first, second = labels.runs(rng, 2)
        found = compare({labels.task: first}, {labels.task: second}, resamples=400)[labels.task]
        missed += not found.low <= 0 <= found.high
        rejected += found.randomization_p < 0.05
    return f"{title:46} {missed / sets:.3f}  {rejected / sets:.3f}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals, and false positives of the tests.")
    parser.add_argument("--sets", type=int, default=1000, help="simulated test sets of each kind")
    parser.add_argument("--only", default="", help="only rows whose title this pattern is found in")
    arguments = parser.parse_args()
    sets, wanted = arguments.sets, re.compile(arguments.only).search
    print(f"{sets} test sets of each kind; nominal coverage 0.950\n")
    print(f"{'95% interval of':46} score  covers above  below  width/true")
    for number, case in enumerate(CASES):
        if wanted(case.title):
            print(coverage(case, sets, np.random.default_rng([1, number])), flush=True)
    print(f"\n{'two equal systems, 5% level':46} interval misses 0, randomisation rejects")
    for number, (title, labels) in enumerate(PAIRS.items()):
        if wanted(title):
            print(rejections(title, labels, sets, np.random.default_rng([2, number])), flush=True)


if __name__ == "__main__":
    main()
