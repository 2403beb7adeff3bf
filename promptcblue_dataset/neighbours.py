"""Texts that are like others.

Equal or nearly so: MinHash over three-character pieces, then the exact likeness of what it finds. Most like a text of
all in a list: BM25.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

#: Texts of which this share of pieces is common (Jaccard) count as nearly equal.
NEAR = 0.8

_PIECE = 3
# Two texts at NEAR share one of 8 bands of 3 hashes with probability 0.997.
_BANDS, _ROWS = 8, 3
# So many texts are hashed at once that the arrays stay in the processor's cache.
_BATCH = 256
_MARKS = re.compile(r"[\W_]+")
_PLAIN = re.compile(r"[\u4e00-\u9fffA-Za-z0-9]+")
_UNUSUAL = re.compile(r"[^\u4e00-\u9fffA-Za-z0-9\W_]")


def essence(text: str) -> str:
    """A text without what two copies of it may differ in: width and case of letters, white space and punctuation."""
    if _UNUSUAL.search(text):  # normalising is slow, and changes nothing else
        return _MARKS.sub("", unicodedata.normalize("NFKC", _MARKS.sub("", text))).casefold()
    return "".join(_PLAIN.findall(text)).casefold()


class Neighbours:
    """A set of texts that can be asked which of other texts is like one of them.

    Args:
        common: pieces (as `pieces` gives them) that do not count, such as those of prompt templates.
    """

    def __init__(self, common: Array | None = None) -> None:
        self._common = common
        self._size = 0
        self._equal: dict[str, int] = {}
        self._banded: dict[int, list[int]] = {}
        self._pieces: list[Array] = []

    def add(self, texts: Sequence[str]) -> None:
        """Add texts; they are numbered on from those that are there."""
        cores = [essence(text) for text in texts]
        for core, (found, bands) in zip(cores, self._signatures(cores), strict=True):
            self._equal.setdefault(core, self._size)
            for band in bands:
                self._banded.setdefault(band, []).append(self._size)
            self._pieces.append(found)
            self._size += 1

    def find(self, texts: Sequence[str]) -> list[tuple[int, float] | None]:
        """For each text the number of an added one that is like it, with their likeness (1 for equal), or None."""
        if not self._size:
            return [None] * len(texts)
        cores = [essence(text) for text in texts]
        return [
            (self._equal[core], 1.0) if core in self._equal else self._near(found, bands)
            for core, (found, bands) in zip(cores, self._signatures(cores), strict=True)
        ]

    def _near(self, found: Array, bands: Sequence[int]) -> tuple[int, float] | None:
        if self._banded.keys().isdisjoint(bands):
            return None
        numbers = sorted({number for band in bands for number in self._banded.get(band, ())})
        own = set(found.tolist())
        others = ((number, set(self._pieces[number].tolist())) for number in numbers)
        alike = ((number, len(own & other) / len(own | other)) for number, other in others)
        best = max(alike, key=itemgetter(1))
        return best if best[1] >= NEAR else None

    def _signatures(self, cores: Sequence[str]) -> Iterator[tuple[Array, list[int]]]:
        """The pieces of each text, and the keys under which texts with many of the same meet; short texts have none."""
        import numpy as np

        for batch in range(0, len(cores), _BATCH):
            hashes, starts = pieces(cores[batch : batch + _BATCH])
            if self._common is not None and len(hashes):
                kept = ~np.isin(hashes, self._common)
                starts = np.concatenate(([0], np.cumsum(kept)))[starts]
                hashes = hashes[kept]
            filled = np.flatnonzero(np.diff(starts))
            bands = _bands(hashes, starts[:-1][filled]) if len(filled) else np.empty((0, _BANDS), np.uint64)
            keys = dict(zip(filled.tolist(), bands.tolist(), strict=True))
            for number, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
                yield hashes[start:end], keys.get(number, [])


def pieces(cores: Sequence[str]) -> tuple[Array, Array]:
    """Hashes of every three-character piece of the texts, one text after another, and where each text's begin.

    Returns:
        ``uint64[pieces]`` and ``int64[texts + 1]``.
    """
    import numpy as np

    characters = np.frombuffer("".join(cores).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    sizes = np.array([len(core) for core in cores], np.int64)
    counts = np.maximum(sizes - _PIECE + 1, 0)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    # The place of each piece: that of its text, plus its number in the text.
    text_starts = np.cumsum(sizes) - sizes
    places = np.repeat(text_starts - starts[:-1], counts) + np.arange(starts[-1])
    hashes = np.zeros(len(places), np.uint64)
    for offset in range(_PIECE):
        hashes = (hashes ^ characters[places + offset]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes, starts


def _bands(hashes: Array, starts: Array) -> Array:
    import numpy as np

    folded = hashes ^ (hashes >> np.uint64(31))
    smallest = []
    for number in range(_BANDS * _ROWS):
        factor = np.uint64((0xD1342543DE82EF95 * (2 * number + 1)) % (1 << 64) | 1)
        mixed = folded ^ np.uint64(number * 0x5851F42D4C957F2D % (1 << 64))
        mixed *= factor
        smallest.append(np.minimum.reduceat(mixed, starts))
    bands = []
    for band in range(_BANDS):
        key = np.full(len(starts), band, np.uint64)
        for row in smallest[band * _ROWS : (band + 1) * _ROWS]:
            key = (key ^ row) * np.uint64(0x9E3779B97F4A7C15)
        bands.append(key)
    return np.stack(bands, axis=1)


class Candidates:
    """Ranks terms by their likeness to a text: BM25 (Lucene's form) over single characters and pairs of neighbours.

    Args:
        terms: the vocabulary; kept, so that its identity can be compared.
        asked: of terms that are too many to index whole, such as documents: every text that will be asked for. Only
            their pairs of neighbours are looked at then, and ``terms`` is passed over once.
    """

    _K1, _B, _BLOCK = 1.5, 0.75, 1 << 14

    def __init__(self, terms: Iterable[str], asked: Sequence[str] | None = None) -> None:
        import numpy as np

        self.terms, self._alone = terms, asked is None
        # With counts, since it sorts then, which is faster here than to hash.
        known, _ = np.unique(_tokens(list(terms) if asked is None else asked, self._alone)[0], return_counts=True)
        # Which token (its number) is how often in which term, block by block.
        lengths, held = [np.empty(0, np.int64)], [np.empty((3, 0), np.int32)]
        size, left = 0, iter(terms)
        while block := list(itertools.islice(left, self._BLOCK)):
            tokens, owners = _tokens(block, self._alone)
            lengths.append(np.bincount(owners, minlength=len(block)))
            numbers = np.searchsorted(known[:-1], tokens)
            kept = known[numbers] == tokens if len(known) else np.zeros(len(tokens), bool)
            pairs, times = np.unique(numbers[kept] * len(block) + owners[kept], return_counts=True)
            held.append(np.stack([pairs // len(block), pairs % len(block) + size, times]).astype(np.int32))
            size += len(block)
        numbers, self._owners, times = np.concatenate(held, axis=1)
        if len(held) > 2:
            order = np.argsort(numbers, kind="stable")
            numbers, self._owners, times = numbers[order], self._owners[order], times[order]
        frequencies = np.bincount(numbers, minlength=len(known))
        all_lengths = np.concatenate(lengths)
        rarity = np.log(1 + (size - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
        damped = self._K1 * (1 - self._B + self._B * all_lengths / max(all_lengths.sum() / max(size, 1), 1))
        # What a token adds to the score of a term that has it: token by token, `_starts` being where each begins.
        self._parts = (rarity[numbers] * (times / (damped[self._owners] + times))).astype(np.float32)
        self._starts = np.concatenate(([0], np.cumsum(frequencies)))
        self._tokens = np.append(known, np.uint64(0))  # no token's, for those after all
        self._scores = np.zeros(size, np.float32)
        self._found: dict[tuple[str, int], list[str]] = {}

    def best(self, text: str, count: int) -> list[str]:
        """The ``count`` best terms, best first; terms with equal scores keep the order of the vocabulary.

        There are fewer where fewer share a character with the text.
        """
        key = (text, count)
        if key not in self._found:
            assert isinstance(self.terms, Sequence)
            self._found[key] = [self.terms[place] for place in self.places(text, count)]
        return self._found[key]

    def places(self, text: str, count: int) -> list[int]:
        """The numbers of the ``count`` best terms, as `best` has them."""
        import numpy as np

        tokens, _ = _tokens([text], self._alone)
        tokens = tokens[np.sort(np.unique(tokens, return_index=True)[1])]
        at = np.searchsorted(self._tokens[:-1], tokens)
        at = at[self._tokens[at] == tokens]
        slices = [slice(*ends) for ends in zip(self._starts[at].tolist(), self._starts[at + 1].tolist(), strict=True)]
        owners = np.concatenate([self._owners[:0], *(self._owners[part] for part in slices)])
        if not len(owners):
            return []
        np.add.at(self._scores, owners, np.concatenate([self._parts[part] for part in slices]))
        least, enough = float(self._scores.max()), 0
        while enough < count and least > 1e-3:  # halving finds the best few sooner than sorting all would
            least /= 2
            enough = int(np.count_nonzero(self._scores >= least))
        places = np.flatnonzero(self._scores > max(least - 2e-3, 0))
        # Rounded, so that the last bit of a logarithm, which machines may disagree on, decides nothing.
        scores = np.round(self._scores[places], 3)
        self._scores[:] = 0
        best = np.argsort(-scores, kind="stable")[: min(count, np.count_nonzero(scores))]
        found: list[int] = places[best].tolist()
        return found


def _tokens(texts: Sequence[str], alone: bool) -> tuple[Array, Array]:
    """The characters (if ``alone``) of texts and their pairs of neighbours, as numbers, and which text each is of."""
    import numpy as np

    plain = ["".join(text.casefold().split()) for text in texts]
    # From 1, so that no pair has the number of a character.
    characters = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64) + 1
    owners = np.repeat(np.arange(len(plain)), [len(text) for text in plain])
    inside = np.flatnonzero(owners[:-1] == owners[1:])
    pairs = characters[inside] << np.uint64(32) | characters[inside + 1]
    if not alone:
        return pairs, owners[inside]
    return np.concatenate([characters, pairs]), np.concatenate([owners, owners[inside]])
