"""From answers to scores by way of sufficient statistics.

A scorer turns one sample into a small sparse vector of counts, and a sum of such vectors into scores.
Corpus scores, confidence intervals, paired tests and merging over processes all come from this one shape.
Definitions: formats.md section 5 (the ``official`` protocol).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from .answers import Answer
from .rouge import rouge_scores

#: One sample's counts, or a sum of them: key of the count to its value; absent keys are 0.
Counts: TypeAlias = Mapping[Hashable, float]


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
    def score(self, totals: Counts) -> dict[str, float]:
        """Scores in 0..1 from summed counts; 0 where there is nothing to divide by."""

    @abstractmethod
    def summary(self, totals: Counts) -> dict[str, float]:
        """The summed counts that a reader wants to see, by name."""


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _hashable(item: Mapping[str, Answer]) -> Hashable:
    """Two items are the same when all their values are, lists in the same order."""
    return tuple(tuple(value) if isinstance(value, list) else value for _, value in sorted(item.items()))


@dataclass(frozen=True)
class SetF1(Scorer):
    """Micro-averaged precision, recall and F1 over sets of items pooled over samples."""

    primary = "f1"

    def count(self, prediction: Answer, gold: Answer) -> Counts:
        predicted, expected = {_hashable(item) for item in prediction}, {_hashable(item) for item in gold}
        hits = len(predicted & expected)
        return {"tp": hits, "fp": len(predicted) - hits, "fn": len(expected) - hits}

    def count_missing(self, gold: Answer) -> Counts:
        return self.count([], gold)

    def score(self, totals: Counts) -> dict[str, float]:
        hits = totals.get("tp", 0)
        precision = _ratio(hits, hits + totals.get("fp", 0))
        recall = _ratio(hits, hits + totals.get("fn", 0))
        return {"precision": precision, "recall": recall, "f1": _ratio(2 * precision * recall, precision + recall)}

    def summary(self, totals: Counts) -> dict[str, float]:
        return {name: totals.get(name, 0) for name in ("tp", "fp", "fn")}


@dataclass(frozen=True)
class LabelF1(Scorer):
    """Precision, recall and F1 averaged over every label seen in gold or predictions.

    Args:
        average: ``macro`` is the plain mean over the labels; ``weighted`` weights each by its gold count,
            which is what the official scorer publishes as micro-F1.
        default: the label that an empty prediction counts as.
    """

    average: Literal["macro", "weighted"]
    default: str

    primary = "f1"

    def count(self, prediction: Answer, gold: Answer) -> Counts:
        predicted = prediction or self.default
        counts: dict[Hashable, float] = {("gold", gold): 1, ("predicted", predicted): 1}
        if predicted == gold:
            counts["correct", gold] = 1
        return counts

    def count_missing(self, gold: Answer) -> Counts:
        return {("gold", gold): 1}

    def score(self, totals: Counts) -> dict[str, float]:
        labels = sorted({key[1] for key, count in totals.items() if count and isinstance(key, tuple)})
        support = [totals.get(("gold", label), 0) for label in labels]
        weights = support if self.average == "weighted" else [1.0] * len(labels)
        scores = [self._label_scores(totals, label) for label in labels]
        return {
            name: _ratio(sum(w * score[name] for w, score in zip(weights, scores, strict=True)), sum(weights))
            for name in ("precision", "recall", "f1")
        }

    def summary(self, totals: Counts) -> dict[str, float]:
        kinds: Counter[str] = Counter()
        for key, count in totals.items():
            if isinstance(key, tuple):
                kinds[key[0]] += int(count)
        return {"correct": kinds["correct"], "wrong": kinds["gold"] - kinds["correct"]}

    @staticmethod
    def _label_scores(totals: Counts, label: str) -> dict[str, float]:
        correct, gold, predicted = (totals.get((kind, label), 0) for kind in ("correct", "gold", "predicted"))
        return {
            "precision": _ratio(correct, predicted),
            "recall": _ratio(correct, gold),
            "f1": _ratio(2 * correct, gold + predicted),
        }


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

    def score(self, totals: Counts) -> dict[str, float]:
        texts = totals.get("texts", 0)
        return {name: _ratio(totals.get(name, 0.0), texts) for name in ("rouge1", "rouge2", "rougeL")}

    def summary(self, totals: Counts) -> dict[str, float]:
        return {"texts": totals.get("texts", 0)}
