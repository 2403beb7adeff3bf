"""What a run did wrong: error analysis as in the paper's section 4.3.1, for every task.

Each answer format has an analyzer that sorts a sample's result into outcomes: pairs of a gold and a predicted item (or
one of the two alone) of exactly one kind each, so that the shares of the kinds add up to one. Items are paired
greedily in a fixed order, the closest kinds first, in time linear in the output but for a bounded number of
look-ups.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, ClassVar, NamedTuple

from ..answers import (
    Answer,
    AnswerFormat,
    EntityLines,
    EventLines,
    FreeText,
    Label,
    Report,
    StatusLines,
    TermList,
    TripleLines,
)
from ..evaluation import Result, ScoredSample
from ..lenient import parse_lenient, well_formedness
from ..scoring import Counts, LabelF1, Protocol, Scorer, item_key, rouge_scores, sum_counts
from ..tasks import REGISTRY, Task

#: Two protocols differ where their scores are further apart than this.
PROTOCOL_TOLERANCE = 0.001

#: Examples of a task: its lowest-scoring samples, then the lowest of each kind of error, up to the last number.
WORST, EXAMPLES_OF_A_KIND, EXAMPLES_OF_A_TASK = 8, 2, 16

#: How many confusions, invalid outputs and templates are listed; the others are only counted.
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


class KindCount(NamedTuple):
    """How often a kind of outcome occurs.

    Attributes:
        kind: the kind.
        n: how many outcomes are of it.
        share: of all outcomes of the task.
        of_predicted: of those with a predicted item, or None for a kind that has none.
        of_gold: of those with a gold item, or None for a kind that has none.
    """

    kind: str
    n: int
    share: float
    of_predicted: float | None
    of_gold: float | None


class Bin(NamedTuple):
    """Samples that have something in common, and their score.

    Attributes:
        name: the template, or the range of the measure.
        n: number of samples.
        score: the task's primary metric over them.
    """

    name: str
    n: int
    score: float


@dataclass(frozen=True)
class Example:
    """A sample worth looking at.

    Attributes:
        sample: the sample.
        score: its own primary metric.
        kinds: the kinds of error it shows, most frequent first.
        state: one of `STATES`.
        errors: its outcomes that are errors.
    """

    sample: ScoredSample
    score: float
    kinds: tuple[str, ...]
    state: str
    errors: tuple[Outcome, ...]


@dataclass(frozen=True)
class TaskAnalysis:
    """The error analysis of one task.

    Attributes:
        task: the task.
        samples: how many there are.
        unit: what is counted in ``outcomes``: "items" of the answers, or "samples".
        outcomes: kinds that occur, in the order of the analyzer; their shares add up to one.
        details: what only some formats have: ``fields``, ``confusion``, ``sections``, ``lengths``.
        states: number of samples by state of the output.
        repairs: number of outputs by kind of repair that the lenient parser made.
        problems: number of outputs by kind of problem that the parser met.
        breakdowns: scores by ``template``, ``prompt length``, ``answer size`` and ``choices offered``, where known.
        examples: samples to look at, the lowest-scoring first.
    """

    task: Task
    samples: int
    unit: str
    outcomes: tuple[KindCount, ...]
    details: Mapping[str, Any]
    states: Mapping[str, int]
    repairs: Mapping[str, int]
    problems: Mapping[str, int]
    breakdowns: Mapping[str, tuple[Bin, ...]]
    examples: tuple[Example, ...] = field(repr=False)


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
    """How the results of one answer format are sorted.

    Attributes:
        unit: what an outcome is one of.
    """

    unit: ClassVar[str] = "samples"

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Every kind of outcome, the good one first."""

    @abstractmethod
    def outcomes(self, sample: ScoredSample) -> list[Outcome]:
        """The sample's outcomes; all of its items stand in them once."""

    def details(
        self, samples: Sequence[ScoredSample], outcomes: Sequence[Sequence[Outcome]], protocol: Protocol
    ) -> dict[str, Any]:
        """What this format has besides: plain JSON values."""
        return {}

    def size(self, gold: Answer) -> int | None:
        """How large a gold answer is, or None where all are one label."""
        return len(gold)


class Rule(NamedTuple):
    """When a predicted item is a failed attempt at a gold item.

    Attributes:
        kind: what the pair is then.
        equal: fields that have to be equal.
        overlapping: fields whose texts have to overlap (`_Mentions.overlap`).
    """

    kind: str
    equal: tuple[str, ...] = ()
    overlapping: tuple[str, ...] = ()


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

    def outcomes(self, sample: ScoredSample) -> list[Outcome]:
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
    def _paired(rule: Rule, gold: list[Any], predicted: list[Any], mentions: _Mentions) -> list[Outcome]:
        """Take the pairs of a rule out of the two lists."""

        def key(item: Mapping[str, Answer]) -> Hashable:
            return item_key({name: item[name] for name in rule.equal})

        buckets: dict[Hashable, list[Any]] = {}
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

    def details(
        self, samples: Sequence[ScoredSample], outcomes: Sequence[Sequence[Outcome]], protocol: Protocol
    ) -> dict[str, Any]:
        """``fields``: for each field, in how many pairs it is wrong."""
        wrong: Counter[str] = Counter()
        for outcome in (outcome for found in outcomes for outcome in found):
            if outcome.gold is not None and outcome.predicted is not None:
                wrong.update(name for name, value in outcome.gold.items() if outcome.predicted.get(name) != value)
        return {"fields": dict(wrong.most_common())} if wrong else {}


@dataclass(frozen=True)
class LabelAnalyzer(Analyzer):
    """One outcome a sample: the right label, another label of the task, no label of it, an empty output, or none."""

    kinds = ("correct", "wrong label", INVALID, EMPTY, NO_PREDICTION)

    def outcomes(self, sample: ScoredSample) -> list[Outcome]:
        predicted = None if sample.parsed is None else sample.parsed.answer
        return [Outcome(self._kind(sample, predicted), sample.gold, predicted)]

    @staticmethod
    def _kind(sample: ScoredSample, predicted: str | None) -> str:
        if predicted is None:
            return NO_PREDICTION
        if predicted == sample.gold:
            return "correct"
        if not (sample.prediction or "").strip():
            return EMPTY
        return "wrong label" if predicted in sample.task.labels else INVALID

    def details(
        self, samples: Sequence[ScoredSample], outcomes: Sequence[Sequence[Outcome]], protocol: Protocol
    ) -> dict[str, Any]:
        """``confusion``: the matrix, the labels' scores, the most frequent confusions and invalid outputs."""
        task = samples[0].task
        pairs: Counter[tuple[str, str]] = Counter()
        invalid: Counter[str] = Counter()
        for sample, (outcome,) in zip(samples, outcomes, strict=True):
            own = outcome.kind in ("correct", "wrong label")
            pairs[outcome.gold, outcome.predicted if own else outcome.kind] += 1  # type: ignore[index]
            if outcome.kind == INVALID:
                # An output that the lenient parser could not read has no label to show, only its text.
                invalid[outcome.predicted or str(sample.prediction).strip()] += 1
        seen = {label for pair in pairs for label in pair}
        others = [column for column in (INVALID, EMPTY, NO_PREDICTION) if column in seen and column not in task.labels]
        labels = [label for label in task.labels if label in seen]
        labels += sorted(seen - {*labels, *others})
        mistakes = Counter({pair: n for pair, n in pairs.items() if pair[0] != pair[1]})
        per_gold = Counter(sample.gold for sample in samples)
        rows = [label for label in labels if label in per_gold]
        confusion = {
            "rows": rows,
            "labels": labels,
            "others": others,
            "matrix": [[pairs[row, column] for column in (*labels, *others)] for row in rows],
            "per_label": self._per_label(task.scorer, samples, labels, protocol),
            "most_frequent": [
                {"gold": gold, "predicted": predicted, "n": n, "of_gold": n / per_gold[gold]}
                for (gold, predicted), n in mistakes.most_common(LISTED)
            ],
            "invalid_outputs": [{"text": text, "n": n} for text, n in invalid.most_common(LISTED)],
            "invalid_classes": len(invalid),
        }
        return {"confusion": confusion}

    @staticmethod
    def _per_label(
        scorer: Scorer, samples: Sequence[ScoredSample], labels: Sequence[str], protocol: Protocol
    ) -> list[dict[str, Any]]:
        assert isinstance(scorer, LabelF1)
        counted = scorer.per_label(sum_counts([sample.counts for sample in samples]), protocol)
        rows = []
        for label in labels:
            correct, gold, predicted = counted.get(label, (0, 0, 0))
            rows.append(
                {
                    "label": label,
                    "precision": correct / predicted if predicted else 0.0,
                    "recall": correct / gold if gold else 0.0,
                    "f1": 2 * correct / (gold + predicted) if gold + predicted else 0.0,
                    "gold": int(gold),
                    "predicted": int(predicted),
                }
            )
        return rows

    def size(self, gold: Answer) -> int | None:
        return None


@dataclass(frozen=True)
class TextAnalyzer(Analyzer):
    """One outcome a sample, by what can be said of a text without reading it: its sections and its length."""

    kinds = ("comparable length", "missing section", "too short", "too long", EMPTY, NO_PREDICTION)

    def outcomes(self, sample: ScoredSample) -> list[Outcome]:
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

    def details(
        self, samples: Sequence[ScoredSample], outcomes: Sequence[Sequence[Outcome]], protocol: Protocol
    ) -> dict[str, Any]:
        """``lengths`` in characters over the whole texts, and ``sections`` with their ROUGE and mean lengths."""
        ours = [self.sections(sample.parsed.answer if sample.parsed else "") for sample in samples]
        theirs = [self.sections(sample.gold) for sample in samples]
        predicted, expected = list(map(_characters, ours)), list(map(_characters, theirs))
        lengths = {
            "predicted": {"mean": fmean(predicted), "median": median(predicted), "longest": max(predicted)},
            "reference": {"mean": fmean(expected), "median": median(expected), "longest": max(expected)},
        }
        names = dict.fromkeys(name for sections in theirs for name in sections)
        if len(names) == 1:
            return {"lengths": lengths}
        rows = [_section(name, list(zip(samples, ours, theirs, strict=True))) for name in names]
        return {"lengths": lengths, "sections": rows}

    def size(self, gold: Answer) -> int | None:
        return _characters(self.sections(gold))


def _characters(sections: Mapping[str, str]) -> int:
    return sum(map(len, sections.values()))


def _section(name: str, texts: Sequence[tuple[ScoredSample, Mapping[str, str], Mapping[str, str]]]) -> dict[str, Any]:
    """ROUGE and lengths of one section over the samples whose gold has it."""
    pairs = [(sample, ours.get(name, ""), theirs[name]) for sample, ours, theirs in texts if name in theirs]
    scores = [rouge_scores(ours, theirs) if sample.parsed else {} for sample, ours, theirs in pairs]
    means = {key: fmean(score.get(key, 0.0) for score in scores) for key in ("rouge1", "rouge2", "rougeL")}
    return {
        "section": name,
        **means,
        "n": len(pairs),
        "missing": sum(bool(theirs) and not ours for _, ours, theirs in pairs),
        "predicted_characters": fmean(len(ours) for _, ours, _ in pairs),
        "reference_characters": fmean(len(theirs) for _, _, theirs in pairs),
    }


_EVENT = ("主体词", "发生状态", "描述词", "解剖部位")
ANALYZERS: Mapping[type[AnswerFormat], Analyzer] = {
    EntityLines: ItemAnalyzer(
        (
            Rule("wrong type", equal=("entity",)),
            Rule("boundary", equal=("type",), overlapping=("entity",)),
            Rule("boundary", overlapping=("entity",)),
        )
    ),
    TripleLines: ItemAnalyzer(
        (
            Rule("wrong predicate", equal=("subject", "object")),
            Rule("wrong subject", equal=("predicate", "object"), overlapping=("subject",)),
            Rule("wrong object", equal=("predicate", "subject"), overlapping=("object",)),
            Rule("wrong subject", equal=("predicate", "object")),
            Rule("wrong object", equal=("predicate", "subject")),
            Rule("several fields", overlapping=("subject", "object")),
        )
    ),
    EventLines: ItemAnalyzer(
        (
            *(Rule(f"wrong {name}", equal=tuple(other for other in _EVENT if other != name)) for name in _EVENT[1:]),
            Rule("wrong 主体词", equal=_EVENT[1:], overlapping=("主体词",)),
            Rule("several fields", equal=("主体词",)),
            Rule("several fields", overlapping=("主体词",)),
        )
    ),
    StatusLines: ItemAnalyzer((Rule("wrong status", equal=("entity",)),)),
    TermList: ItemAnalyzer(extra="chose extra", none_given="chose none"),
    Label: LabelAnalyzer(),
    Report: TextAnalyzer(),
    FreeText: TextAnalyzer(),
}


def analyse(
    scored: Iterable[ScoredSample],
    protocol: Protocol = "official",
    progress: Callable[[str], object] = lambda task: None,
) -> dict[str, TaskAnalysis]:
    """The error analysis of every task that has samples, in the order of the benchmark.

    Args:
        scored: samples in any order, read by either parser.
        protocol: of the scores in the breakdowns and of the labels.
        progress: told each task as its turn comes.
    """
    by_task: dict[str, list[ScoredSample]] = {name: [] for name in REGISTRY}
    for sample in scored:
        by_task[sample.task.name].append(sample)
    analyses = {}
    for name, samples in by_task.items():
        if samples:
            progress(name)
            analyses[name] = analyse_task(samples, protocol)
    return analyses


def analyse_task(samples: Sequence[ScoredSample], protocol: Protocol = "official") -> TaskAnalysis:
    """The error analysis of samples of one task."""
    task = samples[0].task
    analyzer = ANALYZERS[type(task.format)]
    outcomes = [analyzer.outcomes(sample) for sample in samples]
    states, repairs = [], Counter[str]()
    for sample in samples:
        state, mended = _state(sample)
        states.append(state)
        repairs.update(mended)
    problems = Counter(
        kind for sample in samples if sample.parsed for kind in {problem.kind for problem in sample.parsed.problems}
    )
    counted = Counter(states)
    return TaskAnalysis(
        task=task,
        samples=len(samples),
        unit=analyzer.unit,
        outcomes=_kind_counts(analyzer.kinds, [outcome for found in outcomes for outcome in found]),
        details=analyzer.details(samples, outcomes, protocol),
        states={state: counted[state] for state in STATES if counted[state]},
        repairs=dict(sorted(repairs.items(), key=_by_count)),
        problems=dict(sorted(problems.items(), key=_by_count)),
        breakdowns=_breakdowns(samples, analyzer, protocol),
        examples=_examples(samples, outcomes, states, protocol),
    )


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


def _state(sample: ScoredSample) -> tuple[str, set[str]]:
    """What became of a sample's output, and the kinds of repair that the lenient parser makes to it."""
    if sample.parsed is None or sample.prediction is None:
        return NO_PREDICTION, set()
    parsed = sample.parsed
    if not parsed.well_formed and not parsed.repairs:
        choices = sample.task.choices(sample.reference.get("answer_choices"))
        parsed = parse_lenient(sample.task.format, sample.prediction, choices, sample.reference.get("input") or "")
    return well_formedness(parsed), set(parsed.repairs)


def _kind_counts(kinds: Sequence[str], outcomes: Sequence[Outcome]) -> tuple[KindCount, ...]:
    predicted, gold = (Counter(outcome.kind for outcome in outcomes if outcome[side] is not None) for side in (2, 1))
    counted = Counter(outcome.kind for outcome in outcomes)

    def part(counts: Counter[str], kind: str) -> float | None:
        return counts[kind] / counts.total() if counts[kind] else None

    return tuple(
        KindCount(kind, counted[kind], counted[kind] / len(outcomes), part(predicted, kind), part(gold, kind))
        for kind in kinds
        if counted[kind]
    )


def _score(samples: Iterable[ScoredSample], protocol: Protocol) -> float:
    """The primary metric over samples of one task."""
    kept = list(samples)
    scorer = kept[0].task.scorer
    return float(scorer.score(sum_counts([sample.counts for sample in kept]), protocol)[scorer.primary])


def _breakdowns(samples: Sequence[ScoredSample], analyzer: Analyzer, protocol: Protocol) -> dict[str, tuple[Bin, ...]]:
    measures: dict[str, Callable[[ScoredSample], int | None]] = {
        "prompt length": lambda sample: len(sample.reference.get("input", "")),
        "answer size": lambda sample: analyzer.size(sample.gold),
        "choices offered": lambda sample: len(sample.reference.get("answer_choices") or ()) or None,
    }
    found = {"template": _by_template(samples, protocol)}
    found.update({name: _by_quantile(samples, measure, protocol) for name, measure in measures.items()})
    return {name: bins for name, bins in found.items() if len(bins) > 1}


def _by_template(samples: Sequence[ScoredSample], protocol: Protocol) -> tuple[Bin, ...]:
    """Scores by the ``template`` field of the references, the most frequent first, the rarest left out."""
    groups: dict[str, list[ScoredSample]] = {}
    for sample in samples:
        if (template := sample.reference.get("template")) is not None:
            groups.setdefault(str(template), []).append(sample)
    frequent = sorted(groups.items(), key=lambda group: -len(group[1]))[:LISTED]
    return tuple(Bin(name, len(group), _score(group, protocol)) for name, group in frequent)


def _by_quantile(
    samples: Sequence[ScoredSample], measure: Callable[[ScoredSample], int | None], protocol: Protocol
) -> tuple[Bin, ...]:
    """Scores by a whole number, in bins of about equal numbers of samples; samples of one value share a bin."""
    measured = sorted(
        ((value, place) for place, sample in enumerate(samples) if (value := measure(sample)) is not None)
    )
    wanted = min(_QUANTILE_BINS, len(measured) // _SAMPLES_IN_A_BIN)
    if wanted < 2:
        return ()
    # A value belongs to the bin in which its first sample falls.
    bin_of: dict[int, int] = {}
    for rank, (value, _) in enumerate(measured):
        bin_of.setdefault(value, rank * wanted // len(measured))
    groups: dict[int, list[tuple[int, int]]] = {}
    for value, place in measured:
        groups.setdefault(bin_of[value], []).append((value, place))
    return tuple(
        Bin(
            f"{group[0][0]}–{group[-1][0]}" if group[0][0] < group[-1][0] else str(group[0][0]),
            len(group),
            _score((samples[place] for _, place in group), protocol),
        )
        for group in groups.values()
    )


def _examples(
    samples: Sequence[ScoredSample],
    outcomes: Sequence[Sequence[Outcome]],
    states: Sequence[str],
    protocol: Protocol,
) -> tuple[Example, ...]:
    """The lowest-scoring samples, and some of every kind of error and state."""
    candidates = []
    for sample, found, state in zip(samples, outcomes, states, strict=True):
        errors = tuple(outcome for outcome in found if outcome.kind not in NOT_WRONG)
        score = _score([sample], protocol)
        imperfect = score < 1 - 1e-6 if sample.task.metric == "ROUGE-L" else bool(errors)
        if imperfect:
            kinds = Counter(outcome.kind for outcome in errors)
            candidates.append(Example(sample, score, tuple(kind for kind, _ in kinds.most_common()), state, errors))
    # The sort is stable: equals stay in the order of the references.
    candidates.sort(key=lambda example: (example.score, -len(example.errors)))
    chosen = {id(example): example for example in candidates[:WORST]}
    having: dict[str, list[Example]] = {}
    for example in candidates:
        for name in (*example.kinds, example.state):
            having.setdefault(name, []).append(example)
    # One round gives every kind its first example before any gets its second.
    for place in range(EXAMPLES_OF_A_KIND):
        for examples in having.values():
            if place < len(examples) and len(chosen) < EXAMPLES_OF_A_TASK:
                chosen[id(examples[place])] = examples[place]
    return tuple(example for example in candidates if id(example) in chosen)


class Reason(NamedTuple):
    """Why two protocols score a task differently.

    Attributes:
        kind: ``invalid classes`` (n outputs outside the labels are classes of their own, officially), ``empty as
            label`` (n empty outputs count as a label, officially) or ``weighted`` (the official micro-F1 is an
            average over the labels by their gold counts; the paper's pools the samples).
        n: number of outputs, 0 where it is not about outputs.
        classes: number of classes.
        label: the label.
    """

    kind: str
    n: int = 0
    classes: int = 0
    label: str = ""


class ProtocolDifference(NamedTuple):
    """A task whose score depends on the protocol, and why."""

    task: str
    official: float
    paper: float
    reasons: tuple[Reason, ...]


def protocol_differences(
    official: Result, paper: Result, counts: Mapping[str, Sequence[Counts]]
) -> list[ProtocolDifference]:
    """The tasks whose two scores are more than `PROTOCOL_TOLERANCE` apart.

    Args:
        official: scores under the official protocol.
        paper: scores of the same samples under the paper's.
        counts: their counts by task.
    """
    differences = []
    for name, row in official["tasks"].items():
        other = paper["tasks"][name]["score"]
        if abs(row["score"] - other) > PROTOCOL_TOLERANCE:
            scorer = REGISTRY[name].scorer
            assert isinstance(scorer, LabelF1), f"the protocols agree on {name}"
            differences.append(ProtocolDifference(name, row["score"], other, _reasons(scorer, counts[name])))
    return differences


def _reasons(scorer: LabelF1, counts: Sequence[Counts]) -> tuple[Reason, ...]:
    totals = sum_counts(counts)
    by_kind: dict[str, dict[str, int]] = {"gold": {}, "predicted": {}}
    for key, n in totals.items():
        if isinstance(key, tuple) and key[0] in by_kind:
            by_kind[key[0]][key[1]] = int(n)
    known = {*scorer.labels, *by_kind["gold"], ""}
    invalid = {label: n for label, n in by_kind["predicted"].items() if label not in known}
    empty = by_kind["predicted"].get("", 0)
    reasons = []
    if invalid:
        reasons.append(Reason("invalid classes", sum(invalid.values()), len(invalid)))
    if empty:
        reasons.append(Reason("empty as label", empty, label=scorer.labels[0]))
    if scorer.average == "weighted":
        reasons.append(Reason("weighted"))
    return tuple(reasons)
