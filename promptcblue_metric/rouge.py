"""ROUGE as the official scorer computes it (formats.md section 5): rouge-chinese over BERT's basic tokens.

rouge-chinese fills an n by m dict for its longest common subsequence, so ROUGE-L takes the length of that
subsequence from rapidfuzz's bit-parallel search instead; the definition and the figures are the same.
"""

from __future__ import annotations

import unicodedata

from rapidfuzz.distance import LCSseq
from rouge_chinese.rouge_score import f_r_p_rouge_n

#: What an empty text counts as.
EMPTY_TOKENS = ["无", "。"]

#: The CJK ideograph blocks that BERT's tokenizer sets apart, first and last code point.
_CJK_BLOCKS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class _CharacterMap(dict[int, str]):
    """A translation table for `str.translate` that is filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        self[code] = replacement = self.replacement(chr(code))
        return replacement

    def replacement(self, character: str) -> str:
        raise NotImplementedError


class _CleanAndSpaceIdeographs(_CharacterMap):
    def replacement(self, character: str) -> str:
        category = unicodedata.category(character)
        if character in " \t\n\r" or category == "Zs":
            return " "
        if category.startswith("C") or character == "\ufffd":
            return ""
        code = ord(character)
        return f" {character} " if any(first <= code <= last for first, last in _CJK_BLOCKS) else character


class _DropAccentsAndSpacePunctuation(_CharacterMap):
    def replacement(self, character: str) -> str:
        category = unicodedata.category(character)
        if category == "Mn":
            return ""
        # BERT counts every ASCII character that is no letter, digit or space as punctuation.
        ascii_mark = character.isascii() and not character.isalnum() and character != " "
        return f" {character} " if ascii_mark or category.startswith("P") else character


_CLEAN, _SPLIT = _CleanAndSpaceIdeographs(), _DropAccentsAndSpacePunctuation()


def basic_tokens(text: str) -> list[str]:
    """Split as BERT's basic tokenizer does: lower case, no accents, ideographs and punctuation apart."""
    lowered = text.translate(_CLEAN).lower()
    return unicodedata.normalize("NFD", lowered).translate(_SPLIT).split()


def _shared_ngrams(predicted: list[str], expected: list[str], n: int) -> tuple[int, int, int]:
    """Sizes of the two sets of n-grams and of what they share."""
    ours, theirs = (set(zip(*(tokens[start:] for start in range(n)), strict=False)) for tokens in (predicted, expected))
    return len(ours), len(theirs), len(ours & theirs)


def rouge_scores(prediction: str, reference: str) -> dict[str, float]:
    """F of ROUGE-1, ROUGE-2 (sets of n-grams) and ROUGE-L, each in 0..1, for one pair of texts.

    Time is n·m/64 in the numbers of tokens; memory is linear.
    """
    predicted, expected = basic_tokens(prediction) or EMPTY_TOKENS, basic_tokens(reference) or EMPTY_TOKENS
    common = LCSseq.similarity(predicted, expected)
    return {
        "rouge1": f_r_p_rouge_n(*_shared_ngrams(predicted, expected, 1))["f"],
        "rouge2": f_r_p_rouge_n(*_shared_ngrams(predicted, expected, 2))["f"],
        "rougeL": f_r_p_rouge_n(len(predicted), len(expected), common)["f"],
    }
