"""Scores of rankings: samples are the documents of a query, or the answers to a question, and are judged together.

A sample's id says where it belongs: in ``dev-17-2@20.24`` the query is ``dev-17``, the document is its second, and it
stands in the corpus's pairs 20 and 24. A sample's counts keep its grades under a key of its own, `Ranked`; `units`
turns those of a query into counts that can be added up, so that a resample draws whole queries.

A model that writes a label gives many documents the same grade. Documents of one predicted grade are ranked in no
order: every score is the mean over all their orders, so ties are worth what chance would make of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import comb, log2
from typing import cast

from .answers import Answer
from .scoring import NO_ROW, ClassF1, Counts, Protocol, Row, Scores, Totals, add_counts, numbers_of, ratio, sum_counts

#: The predicted grade of a document whose answer is missing or no grade; it is ranked last.
UNREAD = -1


@dataclass(frozen=True)
class Ranked:
    """A document of a query: the key under which the counts of its sample keep it.

    Attributes:
        query: what it was found for.
        document: which of the query's it is.
        pairs: numbers of the corpus's pairs that it stands in.
        gold: its grade, from 0 for the worst.
        predicted: its predicted grade, or `UNREAD`.
    """

    query: str
    document: str
    pairs: tuple[int, ...]
    gold: int
    predicted: int


@dataclass(frozen=True)
class RankedLabels(ClassF1):
    """`ClassF1` of samples that also form rankings."""

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        name, pairs = numbers_of(str(row.get("sample_id", "")))
        query, _, document = name.rpartition("-")
        ranked = Ranked(query or name, document, pairs, self.grade(gold), self.grade(prediction))
        return {**super().count(prediction, gold, row), ranked: 1}

    @abstractmethod
    def grade(self, label: str | None) -> int:
        """The grade that a label stands for, or `UNREAD`."""

    @abstractmethod
    def of_query(self, documents: Sequence[Ranked]) -> Counts:
        """What the documents of one query add to the sums that the ranking's scores come from."""

    def units(self, samples: Sequence[Counts]) -> Sequence[Counts]:
        documents: dict[str, list[Ranked]] = {}
        units: dict[str, dict[Hashable, float]] = {}
        for counts in samples:
            ranked = [key for key in counts if isinstance(key, Ranked)]
            # The sum of many samples has documents of many queries; its other counts can go with any of them.
            for key in ranked:
                documents.setdefault(key.query, []).append(key)
                units.setdefault(key.query, {})
            others = {key: count for key, count in counts.items() if not isinstance(key, Ranked)}
            add_counts(units.setdefault(ranked[0].query if ranked else "", {}), others)
        for query, found in documents.items():
            add_counts(units[query], self.of_query(found))
        return list(units.values())

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        if any(isinstance(key, Ranked) for key in totals):
            totals = sum_counts(self.units([cast("Counts", totals)]))
        return {**super().score(totals, protocol), **self.rank_scores(totals)}

    @abstractmethod
    def rank_scores(self, totals: Totals) -> Scores:
        """The ranking's scores from sums over queries."""


@dataclass(frozen=True)
class RankedAnswers(RankedLabels):
    """F1 of whether an answer fits its question, and precision at 1 over the answers to a question (cMedQA).

    ``precision_at_1`` is the share of questions whose first answer is right, over the questions that have a right
    answer and a wrong one.
    """

    def grade(self, label: str | None) -> int:
        return int(label == self.labels[0]) if label in self.labels else UNREAD

    def of_query(self, documents: Sequence[Ranked]) -> Counts:
        if len({document.gold for document in documents}) < 2:
            return {}
        first = _tied(documents)[0]
        return {"questions": 1, "first_right": sum(document.gold for document in first) / len(first)}

    def rank_scores(self, totals: Totals) -> Scores:
        return {"precision_at_1": ratio(totals.get("first_right", 0), totals.get("questions", 0))}


@dataclass(frozen=True)
class GradedRanking(RankedLabels):
    """How well documents are graded and ordered (cMedIR); the labels are the grades, the worst first.

    - ``pair_accuracy``: share of the corpus's pairs that are ordered as the gold grades order them. A pair of equal
      predicted grades is half right; one with a grade that cannot be read is wrong.
    - ``pair``: the corpus's PAIR, right pairs divided by wrong ones, which is ``a / (1 - a)`` of that accuracy; where
      no pair is wrong, half a pair counts as wrong.
    - ``mrr``: mean reciprocal rank of a query's best document (or the first of those that are equally good).
    - ``ndcg``: mean normalised discounted cumulative gain, the grade being the gain.
    - ``mse``: mean squared error of the grade; one that cannot be read is as wrong as can be.

    Queries whose documents all have one grade have no order and do not count for ``mrr`` and ``ndcg``.
    """

    primary = "pair_accuracy"
    metric = "pair accuracy"

    def grade(self, label: str | None) -> int:
        return self.labels.index(label) if label in self.labels else UNREAD

    def of_query(self, documents: Sequence[Ranked]) -> Counts:
        top = len(self.labels) - 1
        errors = (
            max(document.gold, top - document.gold)
            if document.predicted == UNREAD
            else document.predicted - document.gold
            for document in documents
        )
        counts: dict[Hashable, float] = {
            "squared_error": sum(error**2 for error in errors),
            "graded": len(documents),
            "pairs_right": 0.0,
            "pairs_wrong": 0.0,
        }
        for better, worse in _pairs(documents):
            right = _right(better.predicted, worse.predicted)
            counts["pairs_right"] += right
            counts["pairs_wrong"] += 1 - right
        if len({document.gold for document in documents}) > 1:
            counts |= {"queries": 1, "reciprocal_rank": _reciprocal_rank(documents), "ndcg": _ndcg(documents)}
        return counts

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        scores = super().score(totals, protocol)
        # Grades are no classes: what counts is their order and how far they are off.
        return {name: scores[name] for name in ("pair_accuracy", "pair", "mrr", "ndcg", "mse", "accuracy")}

    def rank_scores(self, totals: Totals) -> Scores:
        right, wrong, queries = (totals.get(name, 0) for name in ("pairs_right", "pairs_wrong", "queries"))
        return {
            "pair_accuracy": ratio(right, right + wrong),
            "pair": ratio(right, wrong + 0.5 * (wrong == 0)),
            "mrr": ratio(totals.get("reciprocal_rank", 0), queries),
            "ndcg": ratio(totals.get("ndcg", 0), queries),
            "mse": ratio(totals.get("squared_error", 0), totals.get("graded", 0)),
        }


def _pairs(documents: Iterable[Ranked]) -> Iterable[tuple[Ranked, Ranked]]:
    """The corpus's pairs of which both documents are here and differ in grade, the better one first."""
    by_pair: dict[int, list[Ranked]] = {}
    for document in documents:
        for pair in document.pairs:
            by_pair.setdefault(pair, []).append(document)
    for found in by_pair.values():
        if len(found) == 2 and found[0].gold != found[1].gold:
            better, worse = sorted(found, key=lambda document: -document.gold)
            yield better, worse


def _right(better: int, worse: int) -> float:
    if UNREAD in (better, worse):
        return 0.0
    return 0.5 if better == worse else float(better > worse)


def _tied(documents: Sequence[Ranked]) -> list[list[Ranked]]:
    """The documents in the order of their predicted grades, those of one grade together."""
    ranked = sorted(documents, key=lambda document: -document.predicted)
    return [list(tied) for _, tied in groupby(ranked, key=lambda document: document.predicted)]


def _reciprocal_rank(documents: Sequence[Ranked]) -> float:
    """The mean, over the orders of tied documents, of one over the rank of the first that has the best gold grade."""
    best = max(document.gold for document in documents)
    before = 0
    for tied in _tied(documents):
        size, good = len(tied), sum(document.gold == best for document in tied)
        if good:
            orders = comb(size, good)
            ranks = range(1, size - good + 2)
            return sum(comb(size - rank, good - 1) / orders / (before + rank) for rank in ranks)
        before += size
    return 0.0


def _ndcg(documents: Sequence[Ranked]) -> float:
    """NDCG with the mean gain of tied documents at each of their ranks (McSherry and Najork 2008)."""
    gain, rank = 0.0, 0
    for tied in _tied(documents):
        mean = sum(document.gold for document in tied) / len(tied)
        gain += mean * sum(_discount(rank + place) for place in range(len(tied)))
        rank += len(tied)
    golds = sorted((document.gold for document in documents), reverse=True)
    return gain / sum(gold * _discount(place) for place, gold in enumerate(golds))


def _discount(place: int) -> float:
    return 1 / log2(place + 2)
