"""From answers to scores by way of sufficient statistics.

A scorer turns one sample into a small sparse vector of counts, and a sum of such vectors into scores.
Corpus scores, confidence intervals, paired tests and merging over processes all come from this one shape:
a sum may hold plain numbers, or arrays with the sums of many resamples, and the same formula scores both.
Definitions: formats.md section 5.
"""

from __future__ import annotations

import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Container, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias, cast, get_args

from rapidfuzz.distance import LCSseq

from .answers import Answer

with warnings.catch_warnings():
    # Python 3.12 and later say of the library's own patterns, once, that they are badly written.
    warnings.simplefilter("ignore", SyntaxWarning)
    from rouge_chinese.rouge_score import f_r_p_rouge_n

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: One sample's counts: key of the count to its value; absent keys are 0.
Counts: TypeAlias = Mapping[Hashable, float]

#: A sum of counts; the values are numbers, or numpy arrays with one sum for each of many resamples.
Number: TypeAlias = "float | NDArray[np.float64]"
Totals: TypeAlias = Mapping[Hashable, Number]
Scores: TypeAlias = dict[str, Number]

#: ``official``: equal to the official scorer, quirks included. ``paper``: the paper's definitions at their word.
Protocol = Literal["official", "paper"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

#: A row of the dataset, for scorers that need more than its answer.
Row: TypeAlias = Mapping[str, object]
NO_ROW: Row = MappingProxyType({})


class Scorer(ABC):
    """How a task is scored."""

    #: Key of the score that counts for the benchmark, and its name as the paper prints it.
    primary: ClassVar[str]
    metric: ClassVar[str]
    #: The summed counts that a reader wants to see.
    shown: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        """The counts of one sample; its ``row`` says where it belongs, where that matters.

        Where the prediction is None, there is none: all of the gold is missed, and nothing is predicted.
        """

    def units(self, samples: Sequence[Counts]) -> Sequence[Counts]:
        """The counts of what is drawn to resample a score: the samples, or what they are parts of, in their order."""
        return samples

    @abstractmethod
    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        """Scores in 0..1 from summed counts; 0 where there is nothing to divide by."""

    def summary(self, totals: Counts) -> dict[str, float]:
        """The summed counts that a reader wants to see, by name."""
        return {name: totals.get(name, 0) for name in self.shown}


def ratio(part: Number, whole: Number) -> Number:
    """``part / whole``, or 0 where ``whole`` is 0, for numbers and for arrays."""
    if isinstance(whole, int | float):
        return part / whole if whole else 0.0
    import numpy as np

    quotient: NDArray[np.float64] = np.divide(part, whole, out=np.zeros_like(whole, dtype=float), where=whole != 0)
    return quotient


def _f1(precision: Number, recall: Number) -> Scores:
    f1 = ratio(2 * precision * recall, precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def item_key(item: Mapping[str, Answer]) -> Hashable:
    """What two items of an answer have in common when all their values are equal, lists in the same order."""
    return tuple(_key(value) for _, value in sorted(item.items()))


def _key(value: Answer) -> Hashable:
    if isinstance(value, list):
        return tuple(map(_key, value))
    return item_key(value) if isinstance(value, Mapping) else value


def _set_counts(predicted: Set[Hashable], gold: Set[Hashable], kind: str = "") -> Counts:
    """What two sets share, and what only one of them has; the names of the counts begin with their kind."""
    hits = len(predicted & gold)
    return {f"{kind}tp": hits, f"{kind}fp": len(predicted) - hits, f"{kind}fn": len(gold) - hits}


def _set_scores(totals: Totals, kind: str = "") -> Scores:
    hits, wrong, missed = (totals.get(f"{kind}{name}", 0) for name in ("tp", "fp", "fn"))
    return _f1(ratio(hits, hits + wrong), ratio(hits, hits + missed))


@dataclass(frozen=True)
class SetF1(Scorer):
    """Micro-averaged precision, recall and F1 over sets of items pooled over samples."""

    primary = "f1"
    metric = "micro-F1"
    shown = ("tp", "fp", "fn")

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        return _set_counts({item_key(item) for item in prediction or ()}, {item_key(item) for item in gold})

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        return _set_scores(totals)


@dataclass(frozen=True)
class StatusF1(SetF1):
    """`SetF1` over mentions with their status; besides, F1 of the mentions alone, and how often a status is right.

    ``status_accuracy`` is the share of the gold mentions found whose status is right too.
    """

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        prediction = prediction or ()
        found, expected = ({item["entity"] for item in answer} for answer in (prediction, gold))
        given = {item_key(item) for item in prediction}
        right = {item["entity"] for item in gold if item_key(item) in given}
        both = super().count(prediction, gold, row)
        return {**both, **_set_counts(found, expected, "mention_"), "status_right": len(right)}

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        return {
            **super().score(totals, protocol),
            "mention_f1": _set_scores(totals, "mention_")["f1"],
            "status_accuracy": ratio(totals.get("status_right", 0), totals.get("mention_tp", 0)),
        }


@dataclass(frozen=True)
class SpanF1(SetF1):
    """`SetF1` over entities; besides, F1 over entities at their offsets (``offset_f1``).

    An answer has no offsets. It names the entities of a type in the order of the text, one as often as it is
    annotated, so each is put at the next place in the prompt that holds it (`located`). The gold ones stand where the
    corpus says: where the same rule puts them, but for those that the sample's id names after its ``@``, each by its
    number in the answer, from 0, and its offset in the prompt. A mention that is not in the prompt is wrong.
    """

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        prompt = str(row.get("input", ""))
        choices = cast("Sequence[str]", row.get("answer_choices") or ())
        found, expected = located(prediction or (), prompt, choices), located(gold, prompt, choices)
        elsewhere = numbers_of(str(row.get("sample_id", "")))[1]
        for number, start in zip(elsewhere[::2], elsewhere[1::2], strict=False):
            if number < len(gold):
                expected[number] = (gold[number]["type"], start, start + len(gold[number]["entity"]))
        # What has no place is like nothing else: it gets a number of its own.
        predicted = {span or number for number, span in enumerate(found, 1)}
        annotated = {span or -number for number, span in enumerate(expected, 1)}
        return {**super().count(prediction, gold, row), **_set_counts(predicted, annotated, "offset_")}

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        at_offsets = _set_scores(totals, "offset_")
        return {**super().score(totals, protocol), **{f"offset_{name}": value for name, value in at_offsets.items()}}


#: Where an entity stands: its type, and where it begins and ends.
Span: TypeAlias = tuple[str, int, int]


def located(entities: Sequence[Mapping[str, str]], prompt: str, choices: Sequence[str] = ()) -> list[Span | None]:
    """Where in the prompt each entity stands, or None for one that has no place left in it.

    An entity's place is the first after that of the one before it of its type, or else the first of all that no
    entity of its type has taken. The list of choices in the prompt is no place.
    """
    offered = "，".join(choices)
    text = prompt.replace(offered, "\0" * len(offered)) if offered else prompt
    after: dict[str, int] = {}
    taken: set[Span | None] = set()
    used_up: set[tuple[str, str]] = set()
    spans: list[Span | None] = []
    for entity in entities:
        kind, mention = entity["type"], entity["entity"]
        span = None
        if mention and (kind, mention) not in used_up:
            span = _free(text, kind, mention, after.get(kind, 0), taken) or _free(text, kind, mention, 0, taken)
        if span:
            taken.add(span)
            after[kind] = span[2]
        else:
            used_up.add((kind, mention))
        spans.append(span)
    return spans


def _free(text: str, kind: str, mention: str, start: int, taken: Container[Span | None]) -> Span | None:
    """The first place from ``start`` on that holds the mention and is not taken."""
    while (start := text.find(mention, start)) >= 0:
        span = (kind, start, start + len(mention))
        if span not in taken:
            return span
        start += 1
    return None


def numbers_of(sample_id: str) -> tuple[str, tuple[int, ...]]:
    """A sample's id without what stands after its ``@``, and the numbers there, as in ``dev-17@45.58``."""
    name, _, numbers = sample_id.partition("@")
    parts = numbers.split(".") if numbers else []
    # Longer ones are no place in any text, and would take long to read.
    return name, tuple(map(int, parts)) if all(part.isdecimal() and len(part) < 10 for part in parts) else ()


class LabelCounts(NamedTuple):
    """How often a label was correct, gold and predicted: numbers, or arrays as in `Totals`."""

    correct: Number
    gold: Number
    predicted: Number

    def scores(self) -> Scores:
        """Precision, recall and F1."""
        correct, gold, predicted = self
        f1 = ratio(2 * correct, gold + predicted)
        return {"precision": ratio(correct, predicted), "recall": ratio(correct, gold), "f1": f1}


@dataclass(frozen=True)
class LabelF1(Scorer):
    """Precision, recall and F1 of single labels.

    Officially they are averaged over every label seen in gold or predictions, so an output outside the label set
    is a class of its own, an empty output counts as the first label, and NULs at a label's end are not seen (numpy
    strips them). In the paper's definition such outputs are misses; ``macro`` then averages over the labels of the task
    that are seen. ``weighted`` becomes micro-F1 pooled over samples, in which every output is a prediction: where all
    samples have one it is accuracy. ``f1_of_readable``, where it differs, is micro-F1 pooled over the task's labels
    alone, as scikit-learn gives it with ``labels``: an output without a label is then no false positive, and pays.

    Args:
        average: ``macro`` is the plain mean over the labels; ``weighted`` weights each by its gold count,
            which is what the official scorer publishes as micro-F1 (``positive`` is `ClassF1`'s alone).
        labels: the task's own; the official scorer takes an empty prediction for the first.
    """

    average: Literal["macro", "weighted", "positive"]
    labels: tuple[str, ...]

    primary = "f1"

    @property
    def metric(self) -> str:  # type: ignore[override]
        """The paper's name of the average."""
        return {"macro": "macro-F1", "weighted": "micro-F1", "positive": "F1"}[self.average]

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        gold = gold.rstrip("\0")
        if prediction is None:
            return {("gold", gold): 1}
        prediction = prediction.rstrip("\0") or prediction
        # An empty output is counted as it is, since the two protocols read it in different ways.
        counts: dict[Hashable, float] = {("gold", gold): 1, ("predicted", prediction): 1}
        if prediction == gold:
            counts["correct", gold] = 1
        elif not prediction and gold == self.labels[0]:
            counts["correct", ""] = 1
        return counts

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        labels = list(self.per_label(totals, protocol).values())
        if protocol == "official" or self.average != "weighted":
            return self._average(labels)
        correct, gold, predicted = (sum(label[column] for label in labels) for column in range(3))
        outputs = sum(count for key, count in totals.items() if isinstance(key, tuple) and key[0] == "predicted")
        scores, readable = (LabelCounts(correct, gold, given).scores() for given in (outputs, predicted))
        same = isinstance(outputs, int | float) and outputs == predicted
        return scores if same else {**scores, "f1_of_readable": readable["f1"]}

    def _average(self, labels: Sequence[LabelCounts]) -> Scores:
        weighted = self.average == "weighted"
        # A label that a resample does not draw weighs nothing in it.
        weights = [label.gold if weighted else ratio(seen := label.gold + label.predicted, seen) for label in labels]
        scores = [label.scores() for label in labels]
        return {
            name: ratio(sum(w * score[name] for w, score in zip(weights, scores, strict=True)), sum(weights))
            for name in ("precision", "recall", "f1")
        }

    def per_label(self, totals: Totals, protocol: Protocol) -> dict[str, LabelCounts]:
        """The counts of each label, labels that the protocol does not count left out."""
        first, own = self.labels[0], set(self.labels)
        seen = {key[1]: None for key in totals if isinstance(key, tuple)}
        gold = {key[1] for key in totals if isinstance(key, tuple) and key[0] == "gold"}
        if protocol == "official":
            kept = sorted({label or first for label in seen})
        else:
            kept = sorted(label for label in seen if label in own or label in gold)

        def count(kind: str, label: str) -> Number:
            number = totals.get((kind, label), 0)
            return number + totals.get((kind, ""), 0) if protocol == "official" and label == first else number

        return {label: LabelCounts(*(count(kind, label) for kind in LabelCounts._fields)) for label in kept}

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
class ClassF1(LabelF1):
    """F1 of single labels of a closed set, as scikit-learn gives it over these labels, under either protocol.

    An output that is no label is a miss for its gold label and nothing else, and so is an empty one.

    Args:
        average: ``positive`` is the F1 of the first label, with ``macro_f1`` beside it; ``macro`` is the mean over the
            labels that are seen, with ``micro_f1`` beside it.
        labels: the task's own.
    """

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        counts: dict[Hashable, float] = {("gold", gold): 1}
        if prediction is not None:
            counts["predicted", prediction] = 1
        if prediction == gold:
            counts["correct", gold] = 1
        return counts

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        per_label = self.per_label(totals, protocol)
        macro = self._average(list(per_label.values()))
        correct, gold, predicted = (sum(counts[column] for counts in per_label.values()) for column in range(3))
        if self.average == "positive":
            hits, expected, found = per_label.get(self.labels[0], (0, 0, 0))
            scores = _f1(ratio(hits, found), ratio(hits, expected))
            return {**scores, "macro_f1": macro["f1"], "accuracy": ratio(correct, gold)}
        return {**macro, "micro_f1": ratio(2 * correct, gold + predicted), "accuracy": ratio(correct, gold)}

    def per_label(self, totals: Totals, protocol: Protocol) -> dict[str, LabelCounts]:
        return super().per_label(totals, "paper")


#: What an empty text counts as.
EMPTY_TOKENS = ["无", "。"]

#: The CJK ideograph blocks that BERT's tokenizer sets apart.
_CJK_BLOCKS = (
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
)


class _Characters(dict[int, str]):
    """A translation table for `str.translate` that is filled as characters turn up."""

    def __init__(self, replacement: Callable[[str], str]) -> None:
        self._replacement = replacement

    def __missing__(self, code: int) -> str:
        self[code] = replacement = self._replacement(chr(code))
        return replacement


@_Characters
def _CLEANED(character: str) -> str:  # noqa: N802 - a table
    """Characters that end no word, with ideographs apart."""
    category = unicodedata.category(character)
    if character in " \t\n\r" or category == "Zs":
        return " "
    if category.startswith("C") or character == "\ufffd":
        return ""
    return f" {character} " if any(ord(character) in block for block in _CJK_BLOCKS) else character


@_Characters
def _SPLIT(character: str) -> str:  # noqa: N802 - a table
    """Characters without accents, with punctuation apart."""
    category = unicodedata.category(character)
    if category == "Mn":
        return ""
    # BERT counts every ASCII character that is no letter, digit or space as punctuation.
    ascii_mark = character.isascii() and not character.isalnum() and character != " "
    return f" {character} " if ascii_mark or category.startswith("P") else character


def basic_tokens(text: str) -> list[str]:
    """Split as BERT's basic tokenizer does: lower case, no accents, ideographs and punctuation apart."""
    lowered = text.translate(_CLEANED).lower()
    return unicodedata.normalize("NFD", lowered).translate(_SPLIT).split()


def _shared_ngrams(predicted: list[str], expected: list[str], n: int) -> tuple[int, int, int]:
    """Sizes of the two sets of n-grams and of what they share."""
    ours, theirs = (set(zip(*(tokens[start:] for start in range(n)), strict=False)) for tokens in (predicted, expected))
    return len(ours), len(theirs), len(ours & theirs)


def rouge_scores(prediction: str, reference: str) -> dict[str, float]:
    """F of ROUGE-1, ROUGE-2 (sets of n-grams) and ROUGE-L, each in 0..1, for one pair of texts.

    As the official scorer computes it (formats.md section 5), with rouge-chinese over BERT's basic tokens, but that
    fills an n by m dict for the longest common subsequence, so its length comes from rapidfuzz's bit-parallel search:
    time is n·m/64 in the numbers of tokens and memory is linear.
    """
    predicted, expected = basic_tokens(prediction) or EMPTY_TOKENS, basic_tokens(reference) or EMPTY_TOKENS
    common = LCSseq.similarity(predicted, expected)
    return {
        "rouge1": f_r_p_rouge_n(*_shared_ngrams(predicted, expected, 1))["f"],
        "rouge2": f_r_p_rouge_n(*_shared_ngrams(predicted, expected, 2))["f"],
        "rougeL": f_r_p_rouge_n(len(predicted), len(expected), common)["f"],
    }


@dataclass(frozen=True)
class MeanRouge(Scorer):
    """Mean ROUGE F over texts. A report counts once for every section its gold has; a missing one is empty."""

    primary = "rougeL"
    metric = "ROUGE-L"
    shown = ("texts",)

    def count(self, prediction: Answer, gold: Answer, row: Row = NO_ROW) -> Counts:
        golds = {"": gold} if isinstance(gold, str) else gold
        totals: dict[Hashable, float] = {"texts": len(golds)}
        for section, expected in golds.items() if prediction is not None else ():
            predicted = prediction if isinstance(gold, str) else prediction.get(section, "")
            for name, value in rouge_scores(predicted, expected).items():
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def score(self, totals: Totals, protocol: Protocol = "official") -> Scores:
        texts = totals.get("texts", 0)
        return {name: ratio(totals.get(name, 0.0), texts) for name in ("rouge1", "rouge2", "rougeL")}


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
