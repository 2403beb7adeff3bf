"""From a raw sample and a template to a sample of the benchmark (paper, section 3.2 and Appendix A.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from promptcblue_dataset.draws import Draws
from promptcblue_dataset.neighbours import Candidates
from promptcblue_dataset.prompts.pool import FORMAT_HEADING, LABELS_HEADING, TaskPrompts, fill
from promptcblue_metric.answers import Answer, AnswerFormat, EntityLines, EventLines, TripleLines
from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError, SeparatorError
from promptcblue_metric.tasks import NONE_OF_THESE, REGISTRY, Task

if TYPE_CHECKING:
    from promptcblue_dataset.corpora.reading import Content

#: Dialects of targets; and profiles, which say whether to follow the paper or the released samples where they differ.
RELEASED, PAPER = "released", "paper"

_NONE = "无"


class Written(NamedTuple):
    """A target, and whether a part of its answer holds a separator, so that it reads back as something else."""

    text: str
    separators: bool


def write(task: Task, answer: Answer, choices: Sequence[str], dialect: str) -> Written:
    """Write an answer whose labels are spelt as the ``choices`` are."""
    paper = _PAPER.get(type(task.format))
    if dialect == PAPER and paper:
        return paper(task.format, answer, choices)
    try:
        return Written(task.format.render(answer, choices), separators=False)
    except SeparatorError:
        return Written(task.format.render(answer, choices, strict=False), separators=True)


def _holds(parts: Iterable[str], *separators: str) -> bool:
    return any(separator in part for part in parts for separator in separators)


def _entities(style: Any, answer: Answer, choices: Sequence[str]) -> Written:
    mentions = {choice: [item["entity"] for item in answer if item["type"] == choice] for choice in choices}
    lines = [f"{choice}实体：" + ("，".join(found) or _NONE) for choice, found in mentions.items()]
    return Written("\n".join([style.lead, *lines]), _holds((item["entity"] for item in answer), "，"))


def _triples(style: Any, answer: Answer, choices: Sequence[str]) -> Written:
    lines = []
    for choice in choices:
        pairs = [
            f"头实体：{item['subject']}，尾实体：{item['object']}；" for item in answer if item["predicate"] == choice
        ]
        lines += [f"上述句子中{choice}关系的实体对如下：", "".join(pairs) or _NONE]
    parts = [item[part] for item in answer for part in ("subject", "object")]
    return Written("\n".join(lines), _holds(parts, "；", "，尾实体："))


def _events(style: Any, answer: Answer, choices: Sequence[str]) -> Written:
    lines, separators = [style.lead], False
    for event in answer:
        values = {key: event[key] if is_list else [event[key]] for key, is_list in style.fields.items()}
        lines.append("；".join(f"{key}：" + ("，".join(found) or _NONE) for key, found in values.items()))
        separators |= any(_holds(found, "；", *("，" * style.fields[key])) for key, found in values.items())
    return Written("\n".join(lines), separators)


_PAPER: Mapping[type[AnswerFormat], Callable[[Any, Answer, Sequence[str]], Written]] = {
    EntityLines: _entities,
    TripleLines: _triples,
    EventLines: _events,
}


#: A last line that asks for the answer, such as ``回答：`` or ``【答案】``.
_CUE = re.compile(r"[^\n]{1,40}：|【[^\n]{1,40}】")


@dataclass(frozen=True)
class Style:
    """How prompts and targets are written.

    Attributes:
        dialect: ``released`` or ``paper``.
        profile: ``paper``, or ``released`` to offer as the released samples do also where the paper says otherwise.
        explain_labels: whether prompts say what each label they offer means.
        format_spec: whether prompts say how the answer has to be written.
        step_by_step: whether prompts ask to work step by step.
    """

    dialect: str = RELEASED
    profile: str = PAPER
    explain_labels: bool = False
    format_spec: bool = False
    step_by_step: bool = False


class Offer(NamedTuple):
    """The answer choices of a prompt, None where its task has none, and the structured answer under them."""

    choices: list[str] | None
    answer: Answer


@dataclass
class Offering:
    """How prompts of a task offer choices, by a ``kind`` with settings, as a task's YAML file has them.

    Attributes:
        spellings: of all labels: other ways to write them. A template that writes one of them out gets that one.
        key: of types: where an item of the answer holds its type.
        present: of types: in how many of the prompts at least one of those asked for is in the answer, where that has
            any; in the others none is. None leaves it to chance.
        low, high: the fewest and the most to offer, all there are where ``high`` is None; of candidates, wrong ones.
        weights: how often each number is taken, in place of any from ``low`` to ``high``; of candidates, of all.
        kept: of candidates: in how many prompts the right ones are among them.
        most: of items: how many of the answer's a prompt asks for at most.
        everything: whether to offer all that there is.
    """

    kind: str
    spellings: Sequence[Sequence[str]] = ()
    key: str = "type"
    present: float | None = None
    low: int = 1
    high: int | None = None
    weights: Mapping[int, int] = field(default_factory=dict)
    kept: float = 0.8
    most: int = 8
    everything: bool = False

    def __post_init__(self) -> None:
        self._candidates: Candidates | None = None
        self._choose = _KINDS[self.kind]

    def __call__(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Choose from the ``labels`` of the task or the corpus."""
        return self._choose(self, content, labels, template, draws)

    def _count(self, draws: Draws, available: int) -> int:
        if self.everything:
            return available
        if self.weights:
            return min(draws.weighted(self.weights), available)
        high = min(self.high or available, available)
        return draws.between(min(self.low, high), high)

    def nothing(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """No choices: the answer is free."""
        return Offer(None, content.answer)

    def all_labels(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Every label of the task, in one order."""
        written = [spelling for spelling in (labels, *self.spellings) if "，".join(spelling) in template]
        return Offer(list(written[0] if written else labels), content.answer)

    def some_labels(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Some of the labels; the answer is ``非上述类型`` where the true one is not among them."""
        real = [label for label in labels if label != NONE_OF_THESE]
        chosen = draws.some(real, self._count(draws, len(real)))
        return Offer(chosen, content.answer if content.answer in chosen else NONE_OF_THESE)

    def some_types(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Some of the types (or relations); the answer keeps what is of these types."""
        count = self._count(draws, len(labels))
        held = {item[self.key] for item in content.answer}
        present = [label for label in labels if label in held]
        absent = [label for label in labels if label not in held]
        if self.present is None or not present:
            chosen = draws.some(labels, count)
        elif not absent or draws.chance(self.present):
            sure = draws.some(present, draws.between(1, min(count, len(present))))
            rest = [label for label in labels if label not in sure]
            chosen = draws.shuffled([*sure, *draws.some(rest, count - len(sure))])
        else:
            chosen = draws.some(absent, count)
        # Grouped by type in the order of the choices, as the targets are written and read.
        kept = held.intersection(chosen)
        answer = [item for label in chosen if label in kept for item in content.answer if item[self.key] == label]
        return Offer(chosen, answer)

    def some_items(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Every label, and some items of the answer, in their order, which the prompt names."""
        answer: list[Answer] = content.answer
        if len(answer) > self.most:
            answer = [answer[place] for place in sorted(draws.some(range(len(answer)), self.most))]
        return Offer(list(labels), answer)

    def candidates(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Wrong terms that BM25 finds, with the right ones in some of the prompts, shuffled."""
        if self._candidates is None or self._candidates.terms is not labels:
            self._candidates = Candidates(labels)
        right = [item["entity"] for item in content.answer]
        most = max(self.weights, default=self.high or len(labels))
        found = self._candidates.best(content.fields["INPUT_TEXT"], most + len(right))
        count, keep = self._count(draws, most if self.everything else len(labels)), draws.chance(self.kept)
        if self.weights and keep:
            count = max(1, count - len(right))
        wrong = [term for term in found if term not in right][:count]
        if len(wrong) < count:  # so few terms share a character with the diagnosis
            others = draws.some(labels, count + len(wrong) + len(right))
            wrong += [term for term in others if term not in wrong and term not in right][: count - len(wrong)]
        return Offer(draws.shuffled([*wrong, *(right if keep else [])]), content.answer if keep else [])


_KINDS: Mapping[str, Callable[[Offering, Content, Sequence[str], str, Draws], Offer]] = {
    "nothing": Offering.nothing,
    "all labels": Offering.all_labels,
    "some labels": Offering.some_labels,
    "some types": Offering.some_types,
    "some items": Offering.some_items,
    "candidates": Offering.candidates,
}


class Rendered(NamedTuple):
    """A built sample, and whether a part of its answer holds a separator."""

    sample: Sample
    separators: bool


class Renderer:
    """Makes samples of a task from raw ones.

    Args:
        labels: what a prompt of the task can offer; by default the labels of the task.
        asked: make prompts that offer everything, of raw samples without answers.

    Raises:
        PromptCBLUEError: the task's file has settings that its way to offer choices does not know.
    """

    def __init__(
        self, prompts: TaskPrompts, style: Style, labels: Sequence[str] | None = None, *, asked: bool = False
    ) -> None:
        self._task, self._prompts, self._style = REGISTRY[prompts.task], prompts, style
        self._labels = self._task.labels if labels is None else labels
        settings = prompts.offers if "kind" in prompts.offers else prompts.offers.get(style.profile) or {}
        try:
            self._offer = Offering(**settings, everything=asked)
        except (KeyError, TypeError) as error:
            raise PromptCBLUEError(
                f"{prompts.task}: offers {prompts.offers}: expected a kind ({', '.join(_KINDS)}): {error}"
            ) from error
        self._asked = asked

    def sample(self, template: str, content: Content, draws: Draws, sample_id: str) -> Rendered:
        """Fill a template with a raw sample.

        Args:
            draws: the sample's own random choices.
        """
        task, dialect = self._task, self._style.dialect
        choices, answer = self._offer(content, self._labels, template, draws)
        offered = None if choices is None else _spelt(self._prompts, dialect, choices)
        if isinstance(answer, str) and choices is not None:
            (answer,) = _spelt(self._prompts, dialect, [answer])
        target = Written("", separators=False) if self._asked else write(task, answer, offered or (), dialect)
        values = {**content.fields, "LIST_LABELS": "，".join(offered or ())}
        if "LIST_MENTIONS" in values and not self._asked:
            values["LIST_MENTIONS"] = "，".join(item["entity"] for item in answer)
        sample: Sample = {
            "input": _with_extras(fill(template, values), _extras(self._prompts, offered, self._style)),
            "target": target.text,
            "answer_choices": offered,
            "sample_id": sample_id,
            "task_type": task.task_type,
            "task_dataset": task.name,
        }
        return Rendered(sample, target.separators)


def preview(prompts: TaskPrompts, template: str, style: Style) -> str:
    """A template with its placeholders as they stand and the additional contents, for all labels of the task."""
    labels = [label for label in REGISTRY[prompts.task].labels if label != NONE_OF_THESE]
    return _with_extras(template, _extras(prompts, _spelt(prompts, style.dialect, labels) or None, style))


def _spelt(prompts: TaskPrompts, dialect: str, labels: Sequence[str]) -> list[str]:
    """Labels or answer choices as a dialect spells them."""
    return [prompts.paper_spelling.get(label, label) for label in labels] if dialect == PAPER else list(labels)


def _extras(prompts: TaskPrompts, choices: Sequence[str] | None, style: Style) -> list[str]:
    """The additional contents of the paper's section 3.2 that are switched on and that the task has."""
    extras = []
    if style.explain_labels:
        asked = prompts.labels if choices is None else choices
        extras += [f"{label}：{prompts.labels[label]}" for label in asked if label in prompts.labels]
        if extras:
            extras.insert(0, LABELS_HEADING)
    if style.format_spec:
        extras.append(f"{FORMAT_HEADING}{prompts.format[style.dialect]}")
    if style.step_by_step:
        extras.append(prompts.steps)
    return extras


def _with_extras(prompt: str, extras: Sequence[str]) -> str:
    """Put lines before the one that asks for the answer, or at the end where no such line is there."""
    if not extras:
        return prompt
    body, _, last = prompt.rpartition("\n")
    return "\n".join([body, *extras, last] if body and _CUE.fullmatch(last) else [prompt, *extras])
