"""What a run did wrong: error analysis as in the paper's section 4.3.1, for every task.

Each kind of answer has an analyzer that sorts a sample's result into outcomes: pairs of a gold and a predicted item (or
one of the two alone) of exactly one kind each, so that the shares of the kinds add up to one. Items are paired
greedily in a fixed order, the closest kinds first, in time linear in the output but for a bounded number of
look-ups.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import ClassVar, Literal, NamedTuple, TypeAlias, TypedDict

from ..answers import Answer, TermList
from ..evaluation import Result, ScoredSample
from ..lenient import parse_lenient, well_formedness
from ..scoring import Counts, LabelCounts, LabelF1, MeanRouge, Protocol, SetF1, item_key, rouge_scores, sum_counts
from ..tasks import REGISTRY, Task
from .text import ShownText, short, shown

#: Two protocols differ where their scores are further apart than this.
PROTOCOL_TOLERANCE = 0.001

#: Examples of a task: its lowest-scoring samples, then the lowest of each kind of error, up to the last number.
WORST, EXAMPLES_OF_A_KIND, EXAMPLES_OF_A_TASK = 8, 2, 16

#: How many confusions, invalid outputs, templates, and errors of an example are listed; others are only counted.
LISTED = 12

#: Items of an output that are compared with gold items they are not equal to; any more are spurious.
_COMPARED_ITEMS = 500
#: Places where a mention is looked for in the prompt.
_PLACES = 8
_QUANTILE_BINS, _SAMPLES_IN_A_BIN = 4, 5

#: States of an output, the first being a sample that has none.
NO_PREDICTION = "no prediction"
STATES = ("well-formed", "repaired", "truncated", "unreadable", "empty", NO_PREDICTION)

#: The columns of a confusion matrix that are no labels.
INVALID, EMPTY = "invalid", "empty"

#: Kinds of outcome that are no error.
NOT_WRONG = ("correct", "comparable length")


class Outcome(NamedTuple):
    """What became of one item: a gold item, the predicted item it was paired with, or one of the two alone."""

    kind: str
    gold: Answer | None
    predicted: Answer | None


#: What became of a sample's items.
Outcomes: TypeAlias = list[Outcome]


class KindCount(TypedDict):
    """How often a kind of outcome occurs, and its share: of all, and of those with a predicted or with a gold item."""

    kind: str
    n: int
    share: float
    of_predicted: float | None
    of_gold: float | None


class Bin(TypedDict):
    """Samples of one template, or of one range of a measure (``name``), and the task's primary metric over them."""

    name: str
    n: int
    score: float


class LabelScores(TypedDict):
    """What a label is worth: how often it is gold and predicted, and its scores."""

    label: str
    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int


class Mistake(TypedDict):
    """Another label, or a column that is none, in place of the gold label; ``of_gold`` is its share of that label."""

    gold: str
    predicted: str
    n: int
    of_gold: float


class InvalidOutput(TypedDict):
    """An output that is no label of the task."""

    text: str
    n: int


class Confusion(TypedDict):
    """A confusion matrix: gold ``rows`` by predicted ``labels`` and ``others``, which are no labels.

    ``most_frequent`` and ``invalid_outputs`` are the first `LISTED`; there are ``invalid_classes`` different ones.
    """

    rows: list[str]
    labels: list[str]
    others: list[str]
    matrix: list[list[int]]
    per_label: list[LabelScores]
    most_frequent: list[Mistake]
    invalid_outputs: list[InvalidOutput]
    invalid_classes: int


class Length(TypedDict):
    """Lengths of texts, in characters."""

    mean: float
    median: float
    longest: int


class Section(TypedDict):
    """One section of reports, over the ``n`` samples whose gold has it: ROUGE, and mean lengths in characters."""

    section: str
    rouge1: float
    rouge2: float
    rougeL: float
    n: int
    missing: int
    predicted_characters: float
    reference_characters: float


class Details(TypedDict, total=False):
    """What only some analyzers find: wrong fields in pairs of items, a confusion matrix, or lengths and sections."""

    fields: dict[str, int]
    confusion: Confusion
    lengths: dict[Literal["predicted", "reference"], Length]
    sections: list[Section]


class Field(TypedDict):
    """A field of an item, and whether the item it was paired with has another value there."""

    field: str
    text: str
    differs: bool


class ItemError(TypedDict):
    """An outcome that is an error."""

    kind: str
    gold: list[Field] | None
    predicted: list[Field] | None


class Example(TypedDict):
    """A sample to look at: its score, the kinds of error in it, the most frequent first, and its state.

    Errors are listed where an answer has items; texts and labels are seen as they are.
    """

    sample_id: str
    score: float
    kinds: list[str]
    state: str
    prompt: ShownText
    gold: ShownText
    prediction: ShownText | None
    errors: list[ItemError]
    more_errors: int


class Analysis(Details):
    """The error analysis of one task.

    Attributes:
        unit: what is counted in ``outcomes``, whose shares add up to one: "items" of the answers, or "samples".
        states, repairs, problems: numbers of outputs by state, by repair that the lenient parser made, and by problem.
        breakdowns: scores by ``template``, ``prompt length``, ``answer size`` and ``choices offered``, where known.
        examples: the lowest-scoring first.
    """

    group: str
    unit: str
    outcomes: list[KindCount]
    states: dict[str, int]
    repairs: dict[str, int]
    problems: dict[str, int]
    breakdowns: dict[str, list[Bin]]
    examples: list[Example]


class _Mentions:
    """Where mentions stand in a prompt."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: dict[str, list[tuple[int, int]]] = {}

    def overlap(self, one: str, other: str) -> bool:
        """Whether one mention holds the other, or the two share characters of the prompt."""
        if not one or not other:
            return False
        if one in other or other in one:
            return True
        return any(a < d and c < b for a, b in self._places(one) for c, d in self._places(other))

    def _places(self, mention: str) -> list[tuple[int, int]]:
        if mention not in self._spans:
            spans: list[tuple[int, int]] = []
            start = self._text.find(mention)
            while start >= 0 and len(spans) < _PLACES:
                spans.append((start, start + len(mention)))
                start = self._text.find(mention, start + 1)
            self._spans[mention] = spans
        return self._spans[mention]


class Analyzer(ABC):
    """How the results of one kind of answer are sorted; ``unit`` is what an outcome is one of."""

    unit: ClassVar[str] = "samples"

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Every kind of outcome, the good one first."""

    @abstractmethod
    def outcomes(self, sample: ScoredSample) -> Outcomes:
        """The sample's outcomes; all of its items stand in them once."""

    def details(self, samples: Sequence[ScoredSample], outcomes: Sequence[Outcomes], protocol: Protocol) -> Details:
        """What it finds besides."""
        return {}

    def size(self, gold: Answer) -> int | None:
        """How large a gold answer is, or None where all are one label."""
        return len(gold)


class Rule(NamedTuple):
    """What a pair is whose fields are ``equal``, and the texts of others ``overlapping`` (`_Mentions.overlap`)."""

    kind: str
    equal: Sequence[str] = ()
    overlapping: Sequence[str] = ()


@dataclass(frozen=True)
class ItemAnalyzer(Analyzer):
    """Pairs the predicted items of a sample with the gold ones.

    Equal items are correct. Then each rule in turn pairs what is left, in the order of the answers. Items that are
    left at the end are ``extra`` and ``missed``; missed items of a sample without any predicted item are
    ``none_given``.
    """

    rules: tuple[Rule, ...] = ()
    extra: str = "spurious"
    missed: str = "missed"
    none_given: str = "missed"

    unit = "items"

    @property
    def kinds(self) -> tuple[str, ...]:
        ordered = ("correct", *(rule.kind for rule in self.rules), self.extra, self.missed, self.none_given)
        return tuple(dict.fromkeys(ordered))

    def outcomes(self, sample: ScoredSample) -> Outcomes:
        predicted = {item_key(item): item for item in (sample.parsed.answer if sample.parsed else ())}
        gold = {item_key(item): item for item in sample.gold}
        missed = self.missed if predicted else self.none_given
        found = [Outcome("correct", item, predicted[key]) for key, item in gold.items() if key in predicted]
        wrong = [item for key, item in predicted.items() if key not in gold]
        left = [item for key, item in gold.items() if key not in predicted]
        mentions = _Mentions(sample.reference.get("input", ""))
        compared, beyond = wrong[:_COMPARED_ITEMS], wrong[_COMPARED_ITEMS:]
        for rule in self.rules:
            found += self._paired(rule, left, compared, mentions)
        found += (Outcome(self.extra, None, item) for item in (*compared, *beyond))
        return found + [Outcome(missed, item, None) for item in left]

    @staticmethod
    def _paired(rule: Rule, gold: list[Answer], predicted: list[Answer], mentions: _Mentions) -> Outcomes:
        """Take the pairs of a rule out of the two lists."""

        def key(item: Mapping[str, Answer]) -> Hashable:
            return item_key({name: item[name] for name in rule.equal})

        buckets: dict[Hashable, list[Answer]] = {}
        for item in predicted:
            buckets.setdefault(key(item), []).append(item)
        pairs: list[Outcome] = []
        for item in list(gold):
            bucket = buckets.get(key(item), [])
            for candidate in bucket:
                if all(mentions.overlap(item[name], candidate[name]) for name in rule.overlapping):
                    pairs.append(Outcome(rule.kind, item, candidate))
                    bucket.remove(candidate)
                    break
        paired_gold, paired = {id(pair.gold) for pair in pairs}, {id(pair.predicted) for pair in pairs}
        gold[:] = (item for item in gold if id(item) not in paired_gold)
        predicted[:] = (item for item in predicted if id(item) not in paired)
        return pairs

    def details(self, samples: Sequence[ScoredSample], outcomes: Sequence[Outcomes], protocol: Protocol) -> Details:
        """``fields``: for each, in how many pairs it is wrong."""
        wrong: Counter[str] = Counter()
        for outcome in (outcome for found in outcomes for outcome in found):
            if outcome.gold is not None and outcome.predicted is not None:
                wrong.update(name for name, value in outcome.gold.items() if outcome.predicted.get(name) != value)
        return {"fields": dict(wrong.most_common())} if wrong else {}


class SampleAnalyzer(Analyzer):
    """One outcome a sample: the right answer, another, an empty output, or none."""

    kinds: tuple[str, ...] = ("correct", "wrong answer", EMPTY, NO_PREDICTION)

    def outcomes(self, sample: ScoredSample) -> Outcomes:
        predicted = None if sample.parsed is None else sample.parsed.answer
        if predicted is None:
            kind = NO_PREDICTION
        elif predicted == sample.gold:
            kind = "correct"
        else:
            kind = self.wrong(predicted, sample) if (sample.prediction or "").strip() else EMPTY
        return [Outcome(kind, sample.gold, predicted)]

    def wrong(self, predicted: Answer, sample: ScoredSample) -> str:
        """What an answer is that is not the right one."""
        return "wrong answer"

    def size(self, gold: Answer) -> int | None:
        return None


class LabelAnalyzer(SampleAnalyzer):
    """One outcome a sample: the right label, another label of the task, no label of it, an empty output, or none."""

    kinds = ("correct", "wrong label", INVALID, EMPTY, NO_PREDICTION)

    def wrong(self, predicted: Answer, sample: ScoredSample) -> str:
        return "wrong label" if predicted in sample.task.labels else INVALID

    def details(self, samples: Sequence[ScoredSample], outcomes: Sequence[Outcomes], protocol: Protocol) -> Details:
        """``confusion``: the matrix, the labels' scores, the most frequent confusions and invalid outputs."""
        task = samples[0].task
        pairs, invalid = Counter[tuple[str, str]](), Counter[str]()
        for sample, (outcome,) in zip(samples, outcomes, strict=True):
            own = outcome.kind in ("correct", "wrong label")
            pairs[str(outcome.gold), str(outcome.predicted) if own else outcome.kind] += 1
            if outcome.kind == INVALID:
                # An output that the lenient parser could not read has no label to show, only its text.
                invalid[str(outcome.predicted or str(sample.prediction).strip())] += 1
        seen = {label for pair in pairs for label in pair}
        others = [column for column in (INVALID, EMPTY, NO_PREDICTION) if column in seen and column not in task.labels]
        labels = [label for label in task.labels if label in seen]
        labels += sorted(seen - {*labels, *others})
        per_gold = Counter(str(sample.gold) for sample in samples)
        rows = [label for label in labels if label in per_gold]
        mistakes = Counter({pair: n for pair, n in pairs.items() if pair[0] != pair[1]}).most_common(LISTED)
        confusion: Confusion = {
            "rows": [short(label) for label in rows],
            "labels": [short(label) for label in labels],
            "others": others,
            "matrix": [[pairs[row, column] for column in (*labels, *others)] for row in rows],
            "per_label": self._per_label(task, samples, labels, protocol),
            "most_frequent": [
                {"gold": short(gold), "predicted": short(predicted), "n": n, "of_gold": n / per_gold[gold]}
                for (gold, predicted), n in mistakes
            ],
            "invalid_outputs": [{"text": short(text), "n": n} for text, n in invalid.most_common(LISTED)],
            "invalid_classes": len(invalid),
        }
        return {"confusion": confusion}

    @staticmethod
    def _per_label(
        task: Task, samples: Sequence[ScoredSample], labels: Sequence[str], protocol: Protocol
    ) -> list[LabelScores]:
        assert isinstance(task.scorer, LabelF1)
        counted = task.scorer.per_label(sum_counts([sample.counts for sample in samples]), protocol)
        return [
            {"label": short(label), **counts.scores(), "gold": int(counts.gold), "predicted": int(counts.predicted)}  # type: ignore[typeddict-item]
            for label in labels
            for counts in [counted.get(label, LabelCounts(0, 0, 0))]
        ]


class TextAnalyzer(Analyzer):
    """One outcome a sample, by what can be said of a text without reading it: its sections and its length."""

    kinds = ("comparable length", "missing section", "too short", "too long", EMPTY, NO_PREDICTION)

    def outcomes(self, sample: ScoredSample) -> Outcomes:
        predicted = None if sample.parsed is None else sample.parsed.answer
        return [Outcome(self._kind(predicted, sample.gold), sample.gold, predicted)]

    def _kind(self, predicted: Answer, gold: Answer) -> str:
        if predicted is None:
            return NO_PREDICTION
        ours, theirs = self.sections(predicted), self.sections(gold)
        length, expected = _characters(ours), _characters(theirs)
        if not length:
            return EMPTY
        if any(text and not ours.get(name) for name, text in theirs.items()):
            return "missing section"
        if 2 * length < expected:
            return "too short"
        return "too long" if length > 2 * expected else "comparable length"

    @staticmethod
    def sections(answer: Answer) -> Mapping[str, str]:
        """The text by section; a text without sections is one without a name."""
        return {"": answer} if isinstance(answer, str) else answer

    def details(self, samples: Sequence[ScoredSample], outcomes: Sequence[Outcomes], protocol: Protocol) -> Details:
        """``lengths`` in characters over the whole texts, and ``sections`` with their ROUGE and mean lengths."""
        ours = [self.sections(sample.parsed.answer if sample.parsed else "") for sample in samples]
        theirs = [self.sections(sample.gold) for sample in samples]
        found: Details = {"lengths": {"predicted": _length(ours), "reference": _length(theirs)}}
        names = dict.fromkeys(name for sections in theirs for name in sections)
        if len(names) > 1:
            found["sections"] = [_section(name, list(zip(samples, ours, theirs, strict=True))) for name in names]
        return found

    def size(self, gold: Answer) -> int | None:
        return _characters(self.sections(gold))


def _characters(sections: Mapping[str, str]) -> int:
    return sum(map(len, sections.values()))


def _length(texts: Sequence[Mapping[str, str]]) -> Length:
    lengths = list(map(_characters, texts))
    return {"mean": fmean(lengths), "median": median(lengths), "longest": max(lengths)}


def _section(name: str, texts: Sequence[tuple[ScoredSample, Mapping[str, str], Mapping[str, str]]]) -> Section:
    """ROUGE and lengths of one section over the samples whose gold has it."""
    pairs = [(sample, ours.get(name, ""), theirs[name]) for sample, ours, theirs in texts if name in theirs]
    scores = [rouge_scores(ours, theirs) if sample.parsed else {} for sample, ours, theirs in pairs]
    rouge1, rouge2, rouge_l = (fmean(score.get(key, 0.0) for score in scores) for key in ("rouge1", "rouge2", "rougeL"))
    return {
        "section": name,
        "rouge1": rouge1,
        "rouge2": rouge2,
        "rougeL": rouge_l,
        "n": len(pairs),
        "missing": sum(bool(theirs) and not ours for _, ours, theirs in pairs),
        "predicted_characters": fmean(len(ours) for _, ours, _ in pairs),
        "reference_characters": fmean(len(theirs) for _, _, theirs in pairs),
    }


#: How items are analysed, by the name of their format; those of any other format are right, spurious or missed.
_ITEMS: Mapping[str, ItemAnalyzer] = {
    name: ItemAnalyzer(tuple(Rule(**rule) for rule in found.pop("rules", ())), **found)
    for name, found in json.loads(Path(__file__).with_name("rules.json").read_text(encoding="utf-8")).items()
}


def analyzer_of(task: Task) -> Analyzer:
    """How a task's results are sorted: by what its scorer counts, and items by their format."""
    if isinstance(task.scorer, SetF1) or type(task.format).__name__ in _ITEMS:
        return _ITEMS.get(type(task.format).__name__, ItemAnalyzer())
    known = {LabelF1: LabelAnalyzer, MeanRouge: TextAnalyzer}
    return next((analyzer() for scorer, analyzer in known.items() if isinstance(task.scorer, scorer)), SampleAnalyzer())


def analyse(
    scored: Iterable[ScoredSample],
    protocol: Protocol = "official",
    progress: Callable[[str], object] = lambda task: None,
) -> dict[str, Analysis]:
    """The error analysis of every task that has samples, in the order of the benchmark; ``progress`` is told each."""
    by_task: dict[str, list[ScoredSample]] = {name: [] for name in REGISTRY}
    for sample in scored:
        by_task[sample.task.name].append(sample)
    analyses = {}
    for name, samples in by_task.items():
        if samples:
            progress(name)
            analyses[name] = analyse_task(samples, protocol)
    return analyses


def analyse_task(samples: Sequence[ScoredSample], protocol: Protocol = "official") -> Analysis:
    """The error analysis of samples of one task."""
    task = samples[0].task
    analyzer = analyzer_of(task)
    outcomes = [analyzer.outcomes(sample) for sample in samples]
    states, repairs, problems = [], Counter[str](), Counter[str]()
    for sample in samples:
        state, mended = _state(sample)
        states.append(state)
        repairs.update(mended)
        problems.update({problem.kind for problem in sample.parsed.problems} if sample.parsed else ())
    counted = Counter(states)
    return {
        **analyzer.details(samples, outcomes, protocol),
        "group": task.group,
        "unit": analyzer.unit,
        "outcomes": _kind_counts(analyzer.kinds, [outcome for found in outcomes for outcome in found]),
        "states": {state: counted[state] for state in STATES if counted[state]},
        "repairs": dict(sorted(repairs.items(), key=lambda entry: (-entry[1], entry[0]))),
        "problems": dict(sorted(problems.items(), key=lambda entry: (-entry[1], entry[0]))),
        "breakdowns": _breakdowns(samples, analyzer, protocol),
        "examples": _examples(samples, outcomes, states, protocol),
    }


def _state(sample: ScoredSample) -> tuple[str, set[str]]:
    """What became of a sample's output, and the kinds of repair that the lenient parser makes to it."""
    if sample.parsed is None or sample.prediction is None:
        return NO_PREDICTION, set()
    parsed = sample.parsed
    if not parsed.well_formed and not parsed.repairs:
        choices = sample.task.choices(sample.reference.get("answer_choices"))
        parsed = parse_lenient(sample.task.format, sample.prediction, choices, sample.reference.get("input") or "")
    return well_formedness(parsed), set(parsed.repairs)


def _kind_counts(kinds: Sequence[str], outcomes: Sequence[Outcome]) -> list[KindCount]:
    every = Counter(outcome.kind for outcome in outcomes)
    predicted = Counter(outcome.kind for outcome in outcomes if outcome.predicted is not None)
    gold = Counter(outcome.kind for outcome in outcomes if outcome.gold is not None)

    def part(counts: Counter[str], kind: str) -> float | None:
        return counts[kind] / counts.total() if counts[kind] else None

    return [
        {
            "kind": kind,
            "n": every[kind],
            "share": every[kind] / every.total(),
            "of_predicted": part(predicted, kind),
            "of_gold": part(gold, kind),
        }
        for kind in kinds
        if every[kind]
    ]


def _score(samples: Sequence[ScoredSample], protocol: Protocol) -> float:
    """The primary metric over samples of one task."""
    scorer = samples[0].task.scorer
    return float(scorer.score(sum_counts([sample.counts for sample in samples]), protocol)[scorer.primary])


def _breakdowns(samples: Sequence[ScoredSample], analyzer: Analyzer, protocol: Protocol) -> dict[str, list[Bin]]:
    measures: dict[str, Callable[[ScoredSample], int | None]] = {
        "prompt length": lambda sample: len(sample.reference.get("input", "")),
        "answer size": lambda sample: analyzer.size(sample.gold),
        "choices offered": lambda sample: len(sample.reference.get("answer_choices") or ()) or None,
    }
    found = {name: _by_quantile(samples, measure, protocol) for name, measure in measures.items()}
    found = {"template": _by_template(samples, protocol), **found}
    return {name: bins for name, bins in found.items() if len(bins) > 1}


def _bin(name: str, samples: Sequence[ScoredSample], protocol: Protocol) -> Bin:
    return {"name": short(name), "n": len(samples), "score": _score(samples, protocol)}


def _by_template(samples: Sequence[ScoredSample], protocol: Protocol) -> list[Bin]:
    """Scores by the ``template`` field of the references, the most frequent first, the rarest left out."""
    groups: dict[str, list[ScoredSample]] = {}
    for sample in samples:
        if (template := sample.reference.get("template")) is not None:
            groups.setdefault(str(template), []).append(sample)
    frequent = sorted(groups.items(), key=lambda group: -len(group[1]))[:LISTED]
    return [_bin(name, group, protocol) for name, group in frequent]


def _by_quantile(
    samples: Sequence[ScoredSample], measure: Callable[[ScoredSample], int | None], protocol: Protocol
) -> list[Bin]:
    """Scores by a whole number, in bins of about equal numbers of samples; samples of one value share a bin."""
    measured = sorted(
        ((value, place) for place, sample in enumerate(samples) if (value := measure(sample)) is not None)
    )
    wanted = min(_QUANTILE_BINS, len(measured) // _SAMPLES_IN_A_BIN)
    if wanted < 2:
        return []
    # A value belongs to the bin in which its first sample falls.
    bin_of: dict[int, int] = {}
    groups: dict[int, list[tuple[int, int]]] = {}
    for rank, (value, place) in enumerate(measured):
        bin_of.setdefault(value, rank * wanted // len(measured))
        groups.setdefault(bin_of[value], []).append((value, place))
    return [
        _bin(
            f"{group[0][0]}–{group[-1][0]}" if group[0][0] < group[-1][0] else str(group[0][0]),
            [samples[place] for _, place in group],
            protocol,
        )
        for group in groups.values()
    ]


class _Candidate(NamedTuple):
    sample: ScoredSample
    score: float
    state: str
    errors: list[Outcome]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in Counter(outcome.kind for outcome in self.errors).most_common()]


def _examples(
    samples: Sequence[ScoredSample], outcomes: Sequence[Outcomes], states: Sequence[str], protocol: Protocol
) -> list[Example]:
    """The lowest-scoring samples, and some of every kind of error and state."""
    candidates = []
    for sample, found, state in zip(samples, outcomes, states, strict=True):
        score, errors = _score([sample], protocol), _errors(found)
        if not _is_right(sample, errors, score):
            candidates.append(_Candidate(sample, score, state, errors))
    # The sort is stable: equals stay in the order of the references.
    candidates.sort(key=lambda example: (example.score, -len(example.errors)))
    chosen = {id(example) for example in candidates[:WORST]}
    having: dict[str, list[_Candidate]] = {}
    for example in candidates:
        for name in (*example.kinds(), example.state):
            having.setdefault(name, []).append(example)
    # One round gives every kind its first example before any gets its second.
    for place in range(EXAMPLES_OF_A_KIND):
        for examples in having.values():
            if place < len(examples) and len(chosen) < EXAMPLES_OF_A_TASK:
                chosen.add(id(examples[place]))
    return [_example(example) for example in candidates if id(example) in chosen]


def _example(example: _Candidate) -> Example:
    sample = example.sample
    listed = example.errors if analyzer_of(sample.task).unit == "items" else []
    return {
        "sample_id": short(str(sample.reference["sample_id"])),
        "score": example.score,
        "kinds": example.kinds(),
        "state": example.state,
        "prompt": shown(sample.reference["input"]),
        "gold": shown(sample.reference["target"]),
        "prediction": None if sample.prediction is None else shown(sample.prediction),
        "errors": [
            {
                "kind": error.kind,
                "gold": _item(error.gold, error.predicted),
                "predicted": _item(error.predicted, error.gold),
            }
            for error in listed[:LISTED]
        ],
        "more_errors": len(listed[LISTED:]),
    }


def _item(item: Answer | None, other: Answer | None) -> list[Field] | None:
    if item is None:
        return None
    return [
        {
            "field": name,
            "text": short(_as_text(value)),
            "differs": other is not None and other.get(name) != value,
        }
        for name, value in item.items()
        if value != TermList.type  # the one type that every term has
    ]


def _as_text(value: Answer) -> str:
    """A part of an answer, which may be made of further parts."""
    if isinstance(value, dict):
        return " → ".join(map(_as_text, value.values()))
    if isinstance(value, list):
        return ("；" if value and isinstance(value[0], list) else "，").join(map(_as_text, value))
    return str(value)


def _errors(outcomes: Outcomes) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.kind not in NOT_WRONG]


def _is_right(sample: ScoredSample, errors: Sequence[Outcome], score: float) -> bool:
    """Whether nothing is wrong with a sample; a text is right if its score says so."""
    return score > 1 - 1e-6 if isinstance(sample.task.scorer, MeanRouge) else not errors


def rightness(sample: ScoredSample, protocol: Protocol = "official") -> float:
    """1 where nothing is wrong with a sample, and else its score, which is lower."""
    score, outcomes = _score([sample], protocol), analyzer_of(sample.task).outcomes(sample)
    # A ranking has no score of a single sample.
    return 1.0 if _is_right(sample, _errors(outcomes), score) else min(score, 1 - 1e-6)


class Reason(TypedDict):
    """Why two protocols score a task differently: a kind of `REASONS`, and what that one is filled in with."""

    kind: str
    n: int
    classes: int
    label: str


#: What the kinds of `Reason` say.
REASONS: Mapping[str, str] = {
    "invalid classes": "{n} invalid label(s) made {classes} class(es) of their own, officially",
    "empty as label": "{n} empty output(s) counted as {label}, officially",
    "weighted": "officially an average over labels weighted by gold counts; in the paper pooled over samples",
}


class ProtocolDifference(TypedDict):
    """A task whose score depends on the protocol, and why."""

    task: str
    official: float
    paper: float
    reasons: list[Reason]


def protocol_differences(
    official: Result, paper: Result, counts: Mapping[str, Sequence[Counts]]
) -> list[ProtocolDifference]:
    """The tasks whose two scores, of the same samples with these counts, are more than `PROTOCOL_TOLERANCE` apart."""
    return [
        {"task": name, "official": row["score"], "paper": other, "reasons": _reasons(name, sum_counts(counts[name]))}
        for name, row in official["tasks"].items()
        for other in [paper["tasks"][name]["score"]]
        if abs(row["score"] - other) > PROTOCOL_TOLERANCE
    ]


#: What is said of a `Garbled` task.
GARBLED = (
    "{task}: {n} output(s) that are no label count as {classes} class(es) of their own officially, so its score and "
    "interval are those of a run with this many garbled outputs; by the paper's protocol {score}, "
    "95% interval {low} to {high}"
)


class Garbled(TypedDict):
    """A task whose official macro-F1 has classes of outputs that are no label: how many, and its scores without."""

    task: str
    n: int
    classes: int
    paper: float
    paper_interval: list[float]


def garbled(counts: Mapping[str, Sequence[Counts]], protocol: Protocol) -> list[Garbled]:
    """The tasks, of samples with these counts, whose interval is that of so many garbled outputs."""
    from ..compare.significance import intervals  # numpy, which nothing else here needs

    found = list[Garbled]()
    for name, samples in counts.items():
        scorer, totals = REGISTRY[name].scorer, sum_counts(samples)
        # `ClassF1`, a kind of it, makes no class of an output.
        if protocol != "official" or type(scorer) is not LabelF1 or scorer.average != "macro":
            continue
        for reason in _reasons(name, totals):
            if reason["kind"] == "invalid classes":
                paper = float(scorer.score(totals, "paper")[scorer.primary])
                between = list(intervals({name: samples}, "paper")[name])
                n, classes = reason["n"], reason["classes"]
                found.append({"task": name, "n": n, "classes": classes, "paper": paper, "paper_interval": between})
    return found


def _reasons(task: str, totals: Counts) -> list[Reason]:
    scorer = REGISTRY[task].scorer
    if not isinstance(scorer, LabelF1):
        return []
    by_kind: dict[str, dict[str, int]] = {"gold": {}, "predicted": {}}
    for key, n in totals.items():
        if isinstance(key, tuple) and key[0] in by_kind:
            by_kind[key[0]][key[1]] = int(n)
    known = {*scorer.labels, *by_kind["gold"], ""}
    invalid = {label: n for label, n in by_kind["predicted"].items() if label not in known}
    empty = by_kind["predicted"].get("", 0)
    reasons: list[tuple[str, int, int, str]] = []
    if invalid:
        reasons.append(("invalid classes", sum(invalid.values()), len(invalid), ""))
    if empty:
        reasons.append(("empty as label", empty, 0, scorer.labels[0]))
    if scorer.average == "weighted":
        reasons.append(("weighted", 0, 0, ""))
    return [{"kind": kind, "n": n, "classes": classes, "label": label} for kind, n, classes, label in reasons]
