"""What a run did wrong: error analysis as in the paper's section 4.3.1, for every task.

A sample's result is sorted into outcomes: pairs of a gold and a predicted item (or one of the two alone) of exactly one
kind each, so that the shares of the kinds add up to one. Answers made of items are compared item by item: equal ones
are correct, then the rules of their format (`rules.json`) pair what is left, the closest kinds first, in a fixed order
and in time linear in the output but for a bounded number of look-ups. Labels and texts are one item each.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

from ..answers import Answer, TermList, TreeLines
from ..cli.common import visible
from ..evaluation import Result, ScoredSample
from ..lenient import parse_lenient, well_formedness
from ..scoring import Counts, LabelCounts, LabelF1, MeanRouge, Protocol, SetF1, item_key, rouge_scores, sum_counts
from ..tasks import REGISTRY, Task
from ..trees import Node as TreeNode
from ..trees import build_tree, lowered, places

#: Two protocols differ where their scores are further apart than this.
PROTOCOL_TOLERANCE = 0.001

#: Examples of a task: its lowest-scoring samples, then the lowest of each kind of error, up to the last number.
WORST, EXAMPLES_OF_A_KIND, EXAMPLES_OF_A_TASK = 8, 2, 16

#: How many confusions, invalid outputs, templates, and errors of an example are listed; others are only counted.
LISTED = 12
#: Nodes of a tree that are drawn, and triples of a node.
DRAWN_NODES, DRAWN_TRIPLES = 30, 8
#: Characters that are shown of a text, and of a part of an answer.
TEXT_LIMIT, PART_LIMIT = 1200, 80

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


class Rule(NamedTuple):
    """What a pair is whose fields are ``equal``, and the texts of others ``overlapping`` (`_overlap_in`)."""

    kind: str
    equal: Sequence[str] = ()
    overlapping: Sequence[str] = ()


class Rules(NamedTuple):
    """How the items of an answer are compared: the pairs, in this order, and what items are that are in none.

    ``none_given`` are the gold items of a sample without any predicted one.
    """

    pairs: tuple[Rule, ...] = ()
    extra: str = "spurious"
    missed: str = "missed"
    none_given: str = "missed"


#: By the name of a format.
_RULES: Mapping[str, Rules] = {
    name: Rules(tuple(Rule(**rule) for rule in found.pop("pairs", ())), **found)
    for name, found in json.loads(Path(__file__).with_name("rules.json").read_text(encoding="utf-8")).items()
}
#: The kinds that stand last in lists, and those before them.
_LAST = (
    *("several fields", "spurious", "chose extra", "missed", "chose none", "wrong label", "wrong answer"),
    *("missing section", "too short", "too long", INVALID, EMPTY, NO_PREDICTION),
)
_FIRST = (*NOT_WRONG, *(rule.kind for rules in _RULES.values() for rule in rules.pairs if rule.kind not in _LAST))


class ShownText(TypedDict):
    """The beginning of a text, and how many characters were left out at its end."""

    text: str
    omitted: int


def shown(text: str, limit: int = TEXT_LIMIT) -> ShownText:
    """The beginning of ``text``, made visible, in at most ``limit`` characters."""
    kept = min(len(text), limit)
    beginning = visible(text[:kept])
    while len(beginning) > limit:  # since characters were written out
        kept = kept * limit // len(beginning)
        beginning = visible(text[:kept])
    return {"text": beginning, "omitted": len(text) - kept}


def short(text: str, limit: int = PART_LIMIT) -> str:
    """At most ``limit`` characters of ``text`` on one line, made visible."""
    beginning = shown(text[: limit + 1].replace("\n", "⏎"), limit)
    return beginning["text"] + "…" * bool(beginning["omitted"])


class Outcome(NamedTuple):
    """What became of one item: a gold item, the predicted item it was paired with, or one of the two alone."""

    kind: str
    gold: Answer | None
    predicted: Answer | None


#: A row of a list of the report.
Listed: TypeAlias = dict[str, Any]


class Confusion(TypedDict):
    """A confusion matrix: gold ``rows`` by predicted ``labels`` and ``others``, which are no labels.

    ``most_frequent`` and ``invalid_outputs`` are the first `LISTED`; there are ``invalid_classes`` different ones.
    """

    rows: list[str]
    labels: list[str]
    others: list[str]
    matrix: list[list[int]]
    per_label: list[Listed]
    most_frequent: list[Listed]
    invalid_outputs: list[Listed]
    invalid_classes: int


class Example(TypedDict, total=False):
    """A sample to look at: its score, the kinds of error in it, the most frequent first, and its state.

    Errors are listed where an answer has items, each with its kind and its two items; texts and labels are seen as they
    are. ``trees`` are the gold one and the predicted one, as far as there is one, where the answer is a decision tree:
    the first ``nodes`` in preorder, and how many ``more`` there are. A node has its depth, the branch that it is of its
    parent, its kind by what is at its place in the other tree, and its parts. An item and a node are lists of parts:
    the name of the field, its text, and whether it differs on the other side.
    """

    sample_id: str
    score: float
    kinds: list[str]
    state: str
    prompt: ShownText
    gold: ShownText
    prediction: ShownText | None
    errors: list[Listed]
    more_errors: int
    trees: dict[Literal["gold", "predicted"], Listed]


class Analysis(TypedDict, total=False):
    """The error analysis of one task.

    Attributes:
        fields, confusion, lengths, sections: what only some tasks have: wrong fields in pairs of items, a confusion
            matrix, lengths of texts, or reports' sections.
        unit: what is counted in ``outcomes``, whose shares add up to one: "items" of the answers, or "samples". Each
            has a share too of those with a predicted item, and of those with a gold one.
        states, repairs, problems: numbers of outputs by state, by repair that the lenient parser made, and by problem.
        breakdowns: the primary metric over samples of one template or of one range of a measure, by ``template``,
            ``prompt length``, ``answer size`` and ``choices offered``, where known.
        examples: the lowest-scoring first.
    """

    fields: dict[str, int]
    confusion: Confusion
    lengths: dict[str, Listed]
    sections: list[Listed]
    group: str
    unit: str
    outcomes: list[Listed]
    states: dict[str, int]
    repairs: dict[str, int]
    problems: dict[str, int]
    breakdowns: dict[str, list[Listed]]
    examples: list[Example]


def _rules_of(task: Task) -> Rules | None:
    """How the items of a task's answers are compared; None where an answer is one label or text."""
    return _RULES.get(type(task.format).__name__, Rules() if isinstance(task.scorer, SetF1) else None)


def outcomes_of(sample: ScoredSample) -> list[Outcome]:
    """The sample's outcomes; each of its items stands in them once."""
    if rules := _rules_of(sample.task):
        return _compared(rules, sample)
    predicted = None if sample.parsed is None else sample.parsed.answer
    kind = _kind_of_text if isinstance(sample.task.scorer, MeanRouge) else _kind_of_label
    return [Outcome(NO_PREDICTION if predicted is None else kind(predicted, sample), sample.gold, predicted)]


def _kind_of_label(predicted: Answer, sample: ScoredSample) -> str:
    if predicted == sample.gold:
        return "correct"
    if not (sample.prediction or "").strip():
        return EMPTY
    if not isinstance(sample.task.scorer, LabelF1):
        return "wrong answer"
    return "wrong label" if predicted in sample.task.labels else INVALID


def _kind_of_text(predicted: Answer, sample: ScoredSample) -> str:
    """What can be said of a text without reading it: its sections and its length."""
    ours, theirs = _sections(predicted), _sections(sample.gold)
    length, expected = _characters(ours), _characters(theirs)
    if not (sample.prediction or "").strip():
        return EMPTY
    if any(text and not ours.get(name) for name, text in theirs.items()):
        return "missing section"
    if 2 * length < expected:
        return "too short"
    return "too long" if length > 2 * expected else "comparable length"


def _sections(answer: Answer) -> Mapping[str, str]:
    """The text by section; a text without sections is one without a name."""
    return {"": answer} if isinstance(answer, str) else answer


def _characters(sections: Mapping[str, str]) -> int:
    return sum(map(len, sections.values()))


def _compared(rules: Rules, sample: ScoredSample) -> list[Outcome]:
    predicted = {item_key(item): item for item in (sample.parsed.answer if sample.parsed else ())}
    gold = {item_key(item): item for item in sample.gold}
    found = [Outcome("correct", item, predicted[key]) for key, item in gold.items() if key in predicted]
    wrong = [item for key, item in predicted.items() if key not in gold]
    left = [item for key, item in gold.items() if key not in predicted]
    overlap = _overlap_in(sample.reference.get("input", ""))
    compared, beyond = wrong[:_COMPARED_ITEMS], wrong[_COMPARED_ITEMS:]
    for rule in rules.pairs:
        found += _paired(rule, left, compared, overlap)
    found += (Outcome(rules.extra, None, item) for item in (*compared, *beyond))
    return found + [Outcome(rules.missed if predicted else rules.none_given, item, None) for item in left]


def _overlap_in(text: str) -> Callable[[str, str], bool]:
    """Whether one mention holds another, or the two share characters of the text."""

    @cache
    def spans(mention: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        start = text.find(mention)
        while start >= 0 and len(found) < _PLACES:
            found.append((start, start + len(mention)))
            start = text.find(mention, start + 1)
        return found

    def overlap(one: str, other: str) -> bool:
        if not one or not other:
            return False
        return one in other or other in one or any(a < d and c < b for a, b in spans(one) for c, d in spans(other))

    return overlap


def _paired(
    rule: Rule, gold: list[Answer], predicted: list[Answer], overlap: Callable[[str, str], bool]
) -> list[Outcome]:
    """Take the pairs of a rule out of the two lists."""

    def key(item: Mapping[str, Answer]) -> Hashable:
        return item_key({name: item[name] for name in rule.equal})

    buckets: dict[Hashable, list[Answer]] = {}
    for item in predicted:
        buckets.setdefault(key(item), []).append(item)
    pairs: list[Outcome] = []
    for item in gold:
        bucket = buckets.get(key(item), [])
        fitting = (one for one in bucket if all(overlap(item[name], one[name]) for name in rule.overlapping))
        if (candidate := next(fitting, None)) is not None:
            pairs.append(Outcome(rule.kind, item, candidate))
            bucket.remove(candidate)
    taken = {id(item) for pair in pairs for item in (pair.gold, pair.predicted)}
    for items in (gold, predicted):
        items[:] = (item for item in items if id(item) not in taken)
    return pairs


def analyse(
    scored: Iterable[ScoredSample],
    protocol: Protocol = "official",
    progress: Callable[[str], object] = lambda task: None,
) -> dict[str, Analysis]:
    """The error analysis of every task that has samples, in the order of the benchmark; ``progress`` is told each."""
    by_task: dict[str, list[ScoredSample]] = {}
    for sample in scored:
        by_task.setdefault(sample.task.name, []).append(sample)
    analyses = {}
    for name in sorted(by_task, key=list(REGISTRY).index):
        progress(name)
        analyses[name] = analyse_task(by_task[name], protocol)
    return analyses


def analyse_task(samples: Sequence[ScoredSample], protocol: Protocol = "official") -> Analysis:
    """The error analysis of samples of one task."""
    task = samples[0].task
    outcomes = [outcomes_of(sample) for sample in samples]
    states, repairs = zip(*map(_state, samples), strict=True)
    problems = ({problem.kind for problem in sample.parsed.problems} for sample in samples if sample.parsed)
    return {
        **_details(task, samples, outcomes, protocol),
        "group": task.group,
        "unit": "items" if _rules_of(task) else "samples",
        "outcomes": _kind_counts([*chain.from_iterable(outcomes)]),
        "states": {state: n for state in STATES if (n := states.count(state))},
        "repairs": _most_frequent(repairs),
        "problems": _most_frequent(problems),
        "breakdowns": _breakdowns(samples, protocol),
        "examples": _examples(samples, outcomes, states, protocol),
    }


def _most_frequent(kinds: Iterable[Iterable[str]]) -> dict[str, int]:
    """How many outputs have each kind."""
    return dict(sorted(Counter(chain.from_iterable(kinds)).items(), key=lambda entry: (-entry[1], entry[0])))


def _state(sample: ScoredSample) -> tuple[str, set[str]]:
    """What became of a sample's output, and the kinds of repair that the lenient parser makes to it."""
    if sample.parsed is None or sample.prediction is None:
        return NO_PREDICTION, set()
    parsed = sample.parsed
    if not parsed.well_formed and not parsed.repairs:
        choices = sample.task.choices(sample.reference.get("answer_choices"))
        parsed = parse_lenient(sample.task.format, sample.prediction, choices, sample.reference.get("input") or "")
    return well_formedness(parsed), set(parsed.repairs)


def _kind_counts(outcomes: Sequence[Outcome]) -> list[Listed]:
    every = Counter(outcome.kind for outcome in outcomes)
    sides = {"of_predicted": Counter(outcome.kind for outcome in outcomes if outcome.predicted is not None)}
    sides["of_gold"] = Counter(outcome.kind for outcome in outcomes if outcome.gold is not None)
    return [
        {"kind": kind, "n": every[kind], "share": every[kind] / every.total()}
        | {side: counts[kind] / counts.total() if counts[kind] else None for side, counts in sides.items()}
        for kind in dict.fromkeys((*_FIRST, *_LAST))
        if every[kind]
    ]


def _details(
    task: Task, samples: Sequence[ScoredSample], outcomes: Sequence[Sequence[Outcome]], protocol: Protocol
) -> Analysis:
    if _rules_of(task):
        wrong = Counter(
            name
            for _, gold, ours in chain.from_iterable(outcomes)
            if gold is not None and ours is not None
            for name, value in gold.items()
            if ours.get(name) != value
        )
        return {"fields": dict(wrong.most_common())} if wrong else {}
    if isinstance(task.scorer, LabelF1):
        return {"confusion": _confusion(task, task.scorer, samples, [found[0] for found in outcomes], protocol)}
    return _lengths(samples) if isinstance(task.scorer, MeanRouge) else {}


def _confusion(
    task: Task, scorer: LabelF1, samples: Sequence[ScoredSample], outcomes: Sequence[Outcome], protocol: Protocol
) -> Confusion:
    pairs, invalid = Counter[tuple[str, str]](), Counter[str]()
    for sample, outcome in zip(samples, outcomes, strict=True):
        own = outcome.kind in ("correct", "wrong label")
        pairs[str(outcome.gold), str(outcome.predicted) if own else outcome.kind] += 1
        if outcome.kind == INVALID:
            # An output that the lenient parser could not read has no label to show, only its text.
            invalid[str(outcome.predicted or str(sample.prediction).strip())] += 1
    seen = set(chain.from_iterable(pairs))
    others = [column for column in (INVALID, EMPTY, NO_PREDICTION) if column in seen and column not in task.labels]
    labels = [label for label in task.labels if label in seen]
    labels += sorted(seen - {*labels, *others})
    per_gold = Counter(str(sample.gold) for sample in samples)
    rows = [label for label in labels if label in per_gold]
    mistakes = Counter({pair: n for pair, n in pairs.items() if pair[0] != pair[1]}).most_common(LISTED)
    counted = scorer.per_label(sum_counts([sample.counts for sample in samples]), protocol)
    counts = {label: counted.get(label, LabelCounts(0, 0, 0)) for label in labels}
    return {
        "rows": [short(label) for label in rows],
        "labels": [short(label) for label in labels],
        "others": others,
        "matrix": [[pairs[row, column] for column in (*labels, *others)] for row in rows],
        "per_label": [
            {"label": short(label), **n.scores(), "gold": int(n.gold), "predicted": int(n.predicted)}
            for label, n in counts.items()
        ],
        "most_frequent": [
            {"gold": short(gold), "predicted": short(predicted), "n": n, "of_gold": n / per_gold[gold]}
            for (gold, predicted), n in mistakes
        ],
        "invalid_outputs": [{"text": short(text), "n": n} for text, n in invalid.most_common(LISTED)],
        "invalid_classes": len(invalid),
    }


def _lengths(samples: Sequence[ScoredSample]) -> Analysis:
    """Lengths in characters of the texts, and ROUGE and mean lengths of each section over the gold that has it."""

    def section(name: str) -> Listed:
        pairs = [(s, ours.get(name, ""), theirs[name]) for s, ours, theirs in texts if name in theirs]
        scores = [rouge_scores(ours, theirs) if sample.parsed else {} for sample, ours, theirs in pairs]
        return {
            "section": name,
            **{key: fmean(score.get(key, 0.0) for score in scores) for key in ("rouge1", "rouge2", "rougeL")},
            "n": len(pairs),
            "missing": sum(bool(theirs) and not ours for _, ours, theirs in pairs),
            "predicted_characters": fmean(len(ours) for _, ours, _ in pairs),
            "reference_characters": fmean(len(theirs) for _, _, theirs in pairs),
        }

    texts = [(s, _sections(s.parsed.answer if s.parsed else ""), _sections(s.gold)) for s in samples]
    characters = {"predicted": [_characters(ours) for _, ours, _ in texts]}
    characters["reference"] = [_characters(theirs) for _, _, theirs in texts]
    lengths = {side: {"mean": fmean(n), "median": median(n), "longest": max(n)} for side, n in characters.items()}
    names = dict.fromkeys(name for _, _, theirs in texts for name in theirs)
    return {"lengths": lengths, **({"sections": [*map(section, names)]} if len(names) > 1 else {})}


def _score(samples: Sequence[ScoredSample], protocol: Protocol) -> float:
    """The primary metric over samples of one task."""
    scorer = samples[0].task.scorer
    return float(scorer.score(sum_counts([sample.counts for sample in samples]), protocol)[scorer.primary])


def _breakdowns(samples: Sequence[ScoredSample], protocol: Protocol) -> dict[str, list[Listed]]:
    """Scores by template, the most frequent first, the rarest left out, and by ranges of what can be measured."""

    def size(sample: ScoredSample) -> int | None:
        text = isinstance(sample.task.scorer, MeanRouge)
        return _characters(_sections(sample.gold)) if text else len(sample.gold) if _rules_of(sample.task) else None

    measures: dict[str, Callable[[ScoredSample], int | None]] = {
        "prompt length": lambda sample: len(sample.reference.get("input", "")),
        "answer size": size,
        "choices offered": lambda sample: len(sample.reference.get("answer_choices") or ()) or None,
    }
    templates: dict[str, list[ScoredSample]] = {}
    for sample in samples:
        if (template := sample.reference.get("template")) is not None:
            templates.setdefault(str(template), []).append(sample)
    found = {"template": sorted(templates.items(), key=lambda group: -len(group[1]))[:LISTED]}
    found |= {name: _quantiles(samples, measure) for name, measure in measures.items()}
    return {
        name: [{"name": short(title), "n": len(part), "score": _score(part, protocol)} for title, part in groups]
        for name, groups in found.items()
        if len(groups) > 1
    }


def _quantiles(
    samples: Sequence[ScoredSample], measure: Callable[[ScoredSample], int | None]
) -> list[tuple[str, list[ScoredSample]]]:
    """Samples by ranges of a whole number, about equally many in each; those of one value share a range."""
    measured = [(value, sample) for sample in samples if (value := measure(sample)) is not None]
    values, wanted = sorted(value for value, _ in measured), min(_QUANTILE_BINS, len(measured) // _SAMPLES_IN_A_BIN)
    groups: dict[int, list[tuple[int, ScoredSample]]] = {}
    for value, sample in sorted(measured, key=itemgetter(0)) if wanted > 1 else ():
        # A value belongs to the range in which its first sample falls.
        groups.setdefault(bisect_left(values, value) * wanted // len(values), []).append((value, sample))
    return [
        ("–".join(map(str, dict.fromkeys((group[0][0], group[-1][0])))), [sample for _, sample in group])
        for group in groups.values()
    ]


class _Candidate(NamedTuple):
    sample: ScoredSample
    score: float
    state: str
    errors: list[Outcome]
    kinds: list[str]


def _examples(
    samples: Sequence[ScoredSample], outcomes: Sequence[list[Outcome]], states: Sequence[str], protocol: Protocol
) -> list[Example]:
    """The lowest-scoring samples, and some of every kind of error and state."""
    candidates = list[_Candidate]()
    for sample, found, state in zip(samples, outcomes, states, strict=True):
        score, errors = _score([sample], protocol), _errors(found)
        if not _is_right(sample, errors, score):
            kinds = [kind for kind, _ in Counter(error.kind for error in errors).most_common()]
            candidates.append(_Candidate(sample, score, state, errors, kinds))
    # The sort is stable: equals stay in the order of the references.
    candidates.sort(key=lambda example: (example.score, -len(example.errors)))
    chosen = {id(example) for example in candidates[:WORST]}
    having: dict[str, list[_Candidate]] = {}
    for example in candidates:
        for name in (*example.kinds, example.state):
            having.setdefault(name, []).append(example)
    # One round gives every kind its first example before any gets its second.
    for place in range(EXAMPLES_OF_A_KIND):
        for examples in having.values():
            if place < len(examples) and len(chosen) < EXAMPLES_OF_A_TASK:
                chosen.add(id(examples[place]))
    return [_example(example) for example in candidates if id(example) in chosen]


def _example(example: _Candidate) -> Example:
    sample = example.sample
    listed = example.errors if _rules_of(sample.task) else []
    found: Example = {
        "sample_id": short(str(sample.reference["sample_id"])),
        "score": example.score,
        "kinds": example.kinds,
        "state": example.state,
        "prompt": shown(sample.reference["input"]),
        "gold": shown(sample.reference["target"]),
        "prediction": None if sample.prediction is None else shown(sample.prediction),
        "errors": [
            {"kind": kind, "gold": _item(gold, predicted), "predicted": _item(predicted, gold)}
            for kind, gold, predicted in listed[:LISTED]
        ],
        "more_errors": len(listed[LISTED:]),
    }
    if isinstance(sample.task.format, TreeLines):
        predicted = sample.parsed.answer if sample.parsed else []
        found["trees"] = {"gold": _drawn(sample.gold, predicted, "missed")}
        if predicted:
            found["trees"]["predicted"] = _drawn(predicted, sample.gold, "spurious")
    return found


def _item(item: Answer | None, other: Answer | None) -> list[Listed] | None:
    if item is None:
        return None
    return [
        {"field": name, "text": short(_as_text(value)), "differs": other is not None and other.get(name) != value}
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


def _drawn(answer: Sequence[Answer], other: Sequence[Answer], alone: str) -> Listed:
    """A tree, each node compared with that at its place in the other one, as the edit distance does it.

    Args:
        alone: the kind of a node that has none there.
    """
    ours, theirs = build_tree(answer), build_tree(other)
    partners = dict(places(ours, theirs)) if other else {}
    depths = {0: 0} if answer else {}
    for number, (parent, _) in sorted(ours.parents.items()):  # a parent stands before its children
        if parent in depths:
            depths[number] = depths[parent] + 1
    order = [*depths, *(number for number in range(len(answer)) if number not in depths)]
    nodes = list[Listed]()
    for number in order[:DRAWN_NODES]:
        partner = partners.get(number)
        across = None if partner is None else theirs.nodes[partner]
        kind = alone if across is None else "correct" if across == ours.nodes[number] else "wrong node"
        nodes.append(
            {
                "depth": depths.get(number, 0),
                "branch": {"L": "yes", "R": "no", "": ""}[ours.parents.get(number, (0, ""))[1]],
                "kind": kind if number in depths else "in no tree",
                "parts": _parts_of_node(answer[number], across),
            }
        )
    return {"nodes": nodes, "more": len(order[DRAWN_NODES:])}


def _parts_of_node(said: Mapping[str, Answer], across: TreeNode | None) -> list[Listed]:
    """Role, logical relation and triples of a node, with what the node at its place in the other tree does not say."""
    role, relation, triples = across or (said["role"], said["logical_rel"], set(map(lowered, said["triples"])))
    parts = [("role", said["role"], said["role"] != role)]
    parts.append(("logical_rel", said["logical_rel"], said["logical_rel"] != relation))
    parts += (
        ("triple", _as_text(triple), lowered(triple) not in triples) for triple in said["triples"][:DRAWN_TRIPLES]
    )
    if more := said["triples"][DRAWN_TRIPLES:]:
        parts.append(("more", f"+{len(more)}", False))
    return [{"field": name, "text": short(text), "differs": differs} for name, text, differs in parts]


def _errors(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.kind not in NOT_WRONG]


def _is_right(sample: ScoredSample, errors: Sequence[Outcome], score: float) -> bool:
    """Whether nothing is wrong with a sample; a text is right if its score says so."""
    return score > 1 - 1e-6 if isinstance(sample.task.scorer, MeanRouge) else not errors


def rightness(sample: ScoredSample, protocol: Protocol = "official") -> float:
    """1 where nothing is wrong with a sample, and else its score, which is lower."""
    score = _score([sample], protocol)
    # A ranking has no score of a single sample.
    return 1.0 if _is_right(sample, _errors(outcomes_of(sample)), score) else min(score, 1 - 1e-6)


#: Why two protocols score a task differently, by kind; each is filled in with ``n``, ``classes`` and ``label``.
REASONS: Mapping[str, str] = {
    "invalid classes": "{n} invalid label(s) made {classes} class(es) of their own, officially",
    "empty as label": "{n} empty output(s) counted as {label}, officially",
    "weighted": "officially an average over labels weighted by gold counts; in the paper pooled over samples",
}


def protocol_differences(official: Result, paper: Result, counts: Mapping[str, Sequence[Counts]]) -> list[Listed]:
    """The tasks whose two scores, of the same samples with these counts, are more than `PROTOCOL_TOLERANCE` apart."""
    return [
        {"task": name, "official": row["score"], "paper": other, "reasons": _reasons(name, sum_counts(counts[name]))}
        for name, row in official["tasks"].items()
        for other in [paper["tasks"][name]["score"]]
        if abs(row["score"] - other) > PROTOCOL_TOLERANCE
    ]


#: What is said of a task whose official macro-F1 has classes of outputs that are no label (`intervals_of`).
GARBLED = (
    "{task}: {n} output(s) that are no label count as {classes} class(es) of their own officially; how many there are "
    "is chance, so no interval of its official score can be trusted; by the paper's protocol {paper:.4f}, "
    "95% interval {paper_interval[0]:.4f} to {paper_interval[1]:.4f}"
)


def intervals_of(
    counts: Mapping[str, Sequence[Counts]], protocol: Protocol
) -> tuple[dict[str, list[float]], list[Listed]]:
    """95% intervals by task, group and ``overall``, of samples with these counts, and the tasks that have none.

    The mean of such a task alone has none either; in means of several their share in the width is sound.
    """
    from ..compare.significance import intervals  # numpy, which nothing else here needs

    without, parts = list[Listed](), {"overall": list(counts)}
    for name, samples in counts.items():
        scorer, totals = REGISTRY[name].scorer, sum_counts(samples)
        parts[name] = [name]
        parts.setdefault(REGISTRY[name].group, []).append(name)
        found = [reason for reason in _reasons(name, totals) if reason["kind"] == "invalid classes"]
        # `ClassF1`, a kind of it, makes no class of an output.
        if found and protocol == "official" and type(scorer) is LabelF1 and scorer.average == "macro":
            paper = float(scorer.score(totals, "paper")[scorer.primary])
            between = list(intervals({name: samples}, "paper")[name])
            n, classes = found[0]["n"], found[0]["classes"]
            without.append({"task": name, "n": n, "classes": classes, "paper": paper, "paper_interval": between})
    unsure = [[row["task"]] for row in without]
    return {n: list(ends) for n, ends in intervals(counts, protocol).items() if parts[n] not in unsure}, without


def _reasons(task: str, totals: Counts) -> list[Listed]:
    """The kinds of `REASONS` that hold for a task, with what they are filled in with."""
    scorer, found = REGISTRY[task].scorer, list[Listed]()
    if not isinstance(scorer, LabelF1):
        return found
    keys = [key for key in totals if isinstance(key, tuple)]
    known = {*scorer.labels, "", *(label for kind, label in keys if kind == "gold")}
    invalid = [int(totals[key]) for key in keys if key[0] == "predicted" and key[1] not in known]
    if invalid:
        found.append({"kind": "invalid classes", "n": sum(invalid), "classes": len(invalid), "label": ""})
    if empty := int(totals.get(("predicted", ""), 0)):
        found.append({"kind": "empty as label", "n": empty, "classes": 0, "label": scorer.labels[0]})
    if scorer.average == "weighted":
        found.append({"kind": "weighted", "n": 0, "classes": 0, "label": ""})
    return found
