"""Candidate terms for a diagnosis: BM25 over the terms of ICD-10 (paper, Appendix A.1, CHIP-CDN)."""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Sequence


class Candidates:
    """Ranks terms by their likeness to a text. Tokens are single characters and pairs of neighbours.

    Args:
        terms: the vocabulary; kept, so that its identity can be compared.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        import bm25s

        self.terms = terms
        ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        tokens = [[ids[token] for token in _tokens(term)] for term in terms]
        self._ids = dict(ids)
        self._index = bm25s.BM25()
        self._index.index((tokens, self._ids), show_progress=False)
        self._found: dict[tuple[str, int], list[str]] = {}

    def best(self, text: str, count: int) -> list[str]:
        """The ``count`` best terms, best first; terms with equal scores keep the order of the vocabulary.

        There are fewer where fewer share a character with the text.
        """
        key = (text, count)
        if key not in self._found:
            self._found[key] = self._rank(text, count)
        return self._found[key]

    def _rank(self, text: str, count: int) -> list[str]:
        import numpy as np

        tokens = list(dict.fromkeys(self._ids[token] for token in _tokens(text) if token in self._ids))
        if not tokens:
            return []
        # Rounded, so that the last bit of a logarithm, which machines may disagree on, decides nothing.
        scores = np.round(self._index.get_scores_from_ids(tokens), 3)
        places, least = np.empty(0, np.int64), scores.max()
        while len(places) < count and least > 1e-3:  # halving finds the best few sooner than sorting all would
            least = least / 2
            places = np.flatnonzero(scores >= max(least, 1e-3))
        return [self.terms[place] for place in places[np.argsort(-scores[places], kind="stable")][:count]]


def _tokens(text: str) -> list[str]:
    characters = "".join(text.casefold().split())
    return [*characters, *map(operator.add, characters, characters[1:])]
