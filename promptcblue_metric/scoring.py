"""From answers to scores by way of sufficient statistics.

A scorer turns one sample into a small sparse vector of counts, and a sum of such vectors into scores.
Corpus scores, confidence intervals, paired tests and merging over processes all come from this one shape:
a sum may hold plain numbers, or arrays with the sums of many resamples, and the same formula scores both.
Definitions: formats.md section 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from .answers import Answer
from .rouge import rouge_scores

#: One sample's counts: key of the count to its value; absent keys are 0.
Counts: TypeAlias = Mapping[Hashable, float]

#: A sum of counts; the values are numbers, or numpy arrays with one sum for each of many resamples.
Totals: TypeAlias = Mapping[Hashable, Any]

#: ``official``: equal to the official scorer, quirks included. ``paper``: the paper's definitions at their word.
Protocol = Literal["official", "paper"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "paper")


class Scorer(ABC):
    """How a task is scored."""

    #: Key of the score that counts for the benchmark.
    primary: ClassVar[str]

    @abstractmethod
    def count(self, prediction: Answer, gold: Answer) -> Counts:
        """The counts of one sample."""

    @abstractmethod
    def count_missing(self, gold: Answer) -> Counts:
        """The counts of a sample without a prediction: all of its gold is missed, and nothing is predicted."""

    @abstractmethod
    def score(self, totals: Totals, protocol: Protocol = "official") -> dict[str, Any]:
        """Scores in 0..1 from summed counts; 0 where there is nothing to divide by."""

    @abstractmethod
    def summary(self, totals: Counts) -> dict[str, float]:
        """The summed counts that a reader wants to see, by name."""


def _ratio(part: Any, whole: Any) -> Any:
    """``part / whole``, or 0 where ``whole`` is 0, for numbers and for arrays."""
    if isinstance(whole, int | float):
        return part / whole if whole else 0.0
    import numpy as np

    return np.divide(part, whole, out=np.zeros_like(whole, dtype=float), where=whole != 0)


def _f1(precision: Any, recall: Any) -> dict[str, Any]:
    f1 = _ratio(2 * precision * recall, precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def item_key(item: Mapping[str, Answer]) -> Hashable:
    """What two items of an answer have in common when all their values are equal, lists in the same order."""
    return tuple(tuple(value) if isinstance(value, list) else value for _, value in sorted(item.items()))


@dataclass(frozen=True)
class SetF1(Scorer):
    """Micro-averaged precision, recall and F1 over sets of items pooled over samples."""

    primary = "f1"

    def count(self, prediction: Answer, gold: Answer) -> Counts:
        predicted, expected = {item_key(item) for item in prediction}, {item_key(item) for item in gold}
        hits = len(predicted & expected)
        return {"tp": hits, "fp": len(predicted) - hits, "fn": len(expected) - hits}

    def count_missing(self, gold: Answer) -> Counts:
        return self.count([], gold)

    def score(self, totals: Totals, protocol: Protocol = "official") -> dict[str, Any]:
        hits = totals.get("tp", 0)
        return _f1(_ratio(hits, hits + totals.get("fp", 0)), _ratio(hits, hits + totals.get("fn", 0)))

    def summary(self, totals: Counts) -> dict[str, float]:
        return {name: totals.get(name, 0) for name in ("tp", "fp", "fn")}


@dataclass(frozen=True)
class LabelF1(Scorer):
    """Precision, recall and F1 of single labels.

    Officially they are averaged over every label seen in gold or predictions, so an output outside the label set
    is a class of its own, and an empty output counts as the first label. In the paper's definition such outputs
    are misses and nothing else; ``macro`` then averages over the labels of the task that are seen, and the
    others are pooled.

    Args:
        average: ``macro`` is the plain mean over the labels; ``weighted`` weights each by its gold count,
            which is what the official scorer publishes as micro-F1.
        labels: the task's own; the official scorer takes an empty prediction for the first.
    """

    average: Literal["macro", "weighted"]
    labels: tuple[str, ...]

    primary = "f1"

    def count(self, prediction: Answer, gold: Answer) -> Counts:
        # An empty output is counted as it is, since the two protocols read it in different ways.
        counts: dict[Hashable, float] = {("gold", gold): 1, ("predicted", prediction): 1}
        if prediction == gold:
            counts["correct", gold] = 1
        elif not prediction and gold == self.labels[0]:
            counts["correct", ""] = 1
        return counts

    def count_missing(self, gold: Answer) -> Counts:
        return {("gold", gold): 1}

    def score(self, totals: Totals, protocol: Protocol = "official") -> dict[str, Any]:
        per_label = self.per_label(totals, protocol)
        correct, gold, predicted = ([counts[column] for counts in per_label.values()] for column in range(3))
        if protocol == "paper" and self.average == "weighted":
            return _f1(_ratio(sum(correct), sum(predicted)), _ratio(sum(correct), sum(gold)))
        pairs = list(zip(gold, predicted, strict=True))
        weights = gold if self.average == "weighted" else [1.0 * (g + p > 0) for g, p in pairs]
        scores = {
            "precision": [_ratio(c, p) for c, p in zip(correct, predicted, strict=True)],
            "recall": [_ratio(c, g) for c, g in zip(correct, gold, strict=True)],
            "f1": [_ratio(2 * c, g + p) for c, (g, p) in zip(correct, pairs, strict=True)],
        }
        return {
            name: _ratio(sum(w * value for w, value in zip(weights, values, strict=True)), sum(weights))
            for name, values in scores.items()
        }

    def per_label(self, totals: Totals, protocol: Protocol) -> dict[str, tuple[Any, Any, Any]]:
        """How often each label was correct, gold and predicted, labels that no protocol counts left out."""
        first, own = self.labels[0], set(self.labels)
        seen = {key[1]: None for key in totals if isinstance(key, tuple)}
        gold = {key[1] for key in totals if isinstance(key, tuple) and key[0] == "gold"}
        if protocol == "official":
            kept = sorted({label or first for label in seen})
        else:
            kept = sorted(label for label in seen if label in own or label in gold)

        def count(kind: str, label: str) -> Any:
            number = totals.get((kind, label), 0)
            return number + totals.get((kind, ""), 0) if protocol == "official" and label == first else number

        return {label: (count("correct", label), count("gold", label), count("predicted", label)) for label in kept}

    def summary(self, totals: Counts) -> dict[str, float]:
        kinds: Counter[str] = Counter()
        for key, count in totals.items():
            if isinstance(key, tuple):
                kinds[key[0]] += int(count)
        empty = int(totals.get(("predicted", ""), 0))
        valid = sum(int(totals.get(("predicted", label), 0)) for label in self.labels)
        invalid = kinds["predicted"] - valid - empty
        wrong = kinds["gold"] - kinds["correct"]
        return {"correct": kinds["correct"], "wrong": wrong, "invalid": invalid, "empty": empty}


@dataclass(frozen=True)
class MeanRouge(Scorer):
    """Mean ROUGE F over texts. A report counts once for every section its gold has; a missing one is empty."""

    primary = "rougeL"

    def count(self, prediction: Answer, gold: Answer) -> Counts:
        totals: dict[Hashable, float] = {"texts": 0}
        for predicted, expected in self._pairs(prediction, gold):
            totals["texts"] += 1
            for name, value in rouge_scores(predicted, expected).items():
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def count_missing(self, gold: Answer) -> Counts:
        return {"texts": 1 if isinstance(gold, str) else len(gold)}

    @staticmethod
    def _pairs(prediction: Answer, gold: Answer) -> Iterable[tuple[str, str]]:
        if isinstance(gold, str):
            return [(prediction, gold)]
        return [(prediction.get(section, ""), text) for section, text in gold.items()]

    def score(self, totals: Totals, protocol: Protocol = "official") -> dict[str, Any]:
        texts = totals.get("texts", 0)
        return {name: _ratio(totals.get(name, 0.0), texts) for name in ("rouge1", "rouge2", "rougeL")}

    def summary(self, totals: Counts) -> dict[str, float]:
        return {"texts": totals.get("texts", 0)}


def add_counts(totals: dict[Hashable, float], counts: Counts) -> None:
    """Add one sample's counts to a sum."""
    for key, value in counts.items():
        totals[key] = totals.get(key, 0) + value


def sum_counts(samples: Sequence[Counts]) -> dict[Hashable, float]:
    """The sum of samples' counts."""
    totals: dict[Hashable, float] = {}
    for counts in samples:
        add_counts(totals, counts)
    return totals
