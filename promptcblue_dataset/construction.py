"""From a raw sample and a template to a row of the benchmark (paper, section 3.2 and Appendix A.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from promptcblue_dataset.candidates import Candidates
from promptcblue_dataset.corpora.reading import Content
from promptcblue_dataset.dialect import RELEASED, labels_in, write
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.pool import TaskPrompts, fill
from promptcblue_metric.answers import Answer
from promptcblue_metric.data.samples import Sample
from promptcblue_metric.tasks import NONE_OF_THESE, REGISTRY, SUITES, Task

#: A last line that asks for the answer, such as ``回答：`` or ``【答案】``.
_CUE = re.compile(r"[^\n]{1,40}：|【[^\n]{1,40}】")


@dataclass(frozen=True)
class Style:
    """How prompts and targets are written.

    Attributes:
        dialect: ``released`` or ``paper``.
        explain_labels: whether prompts say what each label they offer means.
        format_spec: whether prompts say how the answer has to be written.
        step_by_step: whether prompts ask to work step by step.
    """

    dialect: str = RELEASED
    explain_labels: bool = False
    format_spec: bool = False
    step_by_step: bool = False


class Offer(NamedTuple):
    """What a prompt offers, and the answer under that offer.

    Attributes:
        choices: the answer choices, or None where the task has none.
        answer: the structured answer.
    """

    choices: list[str] | None
    answer: Answer


class Offering(Protocol):
    """A way to choose what a prompt offers."""

    def __call__(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        """Choose from the ``labels`` of the task or the corpus."""


class Row(NamedTuple):
    """A built row, and whether a part of its answer holds a separator."""

    sample: Sample
    separators: bool


def nothing(content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
    """No choices: the answer is free."""
    return Offer(None, content.answer)


@dataclass(frozen=True)
class AllLabels:
    """Every label of the task, in one order.

    Attributes:
        spellings: other ways to write all of them. A template that writes one of them out gets that one.
    """

    spellings: tuple[tuple[str, ...], ...] = ()

    def __call__(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        written = [spelling for spelling in (labels, *self.spellings) if "，".join(spelling) in template]
        return Offer(list(written[0] if written else labels), content.answer)


@dataclass(frozen=True)
class SomeTypes:
    """Some of the types (or relations); the answer keeps what is of these types.

    Attributes:
        key: where an item of the answer holds its type.
        low: the fewest types asked for.
        high: the most; None for all of them.
        at_least_one: whether one of the types asked for has to be in the answer, where that has any.
    """

    key: str
    low: int = 1
    high: int | None = None
    at_least_one: bool = False

    def __call__(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        high = min(self.high or len(labels), len(labels))
        count = draws.between(min(self.low, high), high)
        held = {item[self.key] for item in content.answer}
        present = [label for label in labels if label in held]
        if self.at_least_one and present:
            sure = draws.some(present, draws.between(1, min(count, len(present))))
            rest = [label for label in labels if label not in sure]
            chosen = draws.shuffled([*sure, *draws.some(rest, count - len(sure))])
        else:
            chosen = draws.some(labels, count)
        # Grouped by type in the order of the choices, as the targets are written and read.
        kept = held.intersection(chosen)
        answer = [item for label in chosen if label in kept for item in content.answer if item[self.key] == label]
        return Offer(chosen, answer)


@dataclass(frozen=True)
class SomeLabels:
    """Some of the labels; the answer is ``非上述类型`` where the true one is not among them."""

    low: int = 1

    def __call__(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        real = [label for label in labels if label != NONE_OF_THESE]
        chosen = draws.some(real, draws.between(self.low, len(real)))
        return Offer(chosen, content.answer if content.answer in chosen else NONE_OF_THESE)


@dataclass
class SomeCandidates:
    """10 to 30 terms that BM25 finds and that are wrong, with the right ones in 80% of the prompts, shuffled."""

    low: int = 10
    high: int = 30
    kept: float = 0.8

    def __post_init__(self) -> None:
        self._candidates: Candidates | None = None

    def __call__(self, content: Content, labels: Sequence[str], template: str, draws: Draws) -> Offer:
        if self._candidates is None or self._candidates.terms is not labels:
            self._candidates = Candidates(labels)
        right = [item["entity"] for item in content.answer]
        found = self._candidates.best(content.fields["INPUT_TEXT"], self.high + len(right))
        count = draws.between(self.low, self.high)
        wrong = [term for term in found if term not in right][:count]
        if len(wrong) < count:  # so few terms share a character with the diagnosis
            others = draws.some(labels, count + len(wrong) + len(right))
            wrong += [term for term in others if term not in wrong and term not in right][: count - len(wrong)]
        keep = draws.chance(self.kept)
        chosen = draws.shuffled([*wrong, *(right if keep else [])])
        return Offer(chosen, content.answer if keep else [])


#: How each task offers its labels.
OFFERINGS: Mapping[str, Offering] = {
    "CMeEE-V2": SomeTypes("type", low=2),
    "CMeIE": SomeTypes("predicate", low=2, high=5, at_least_one=True),
    "CHIP-CDEE": nothing,
    "CHIP-CDN": SomeCandidates(),
    "IMCS-V2-NER": SomeTypes("type"),
    "CHIP-CTC": SomeLabels(),
    "KUAKE-QIC": SomeLabels(low=6),
    "IMCS-V2-DAC": SomeLabels(),
    "CHIP-STS": AllLabels((("相同", "不同"),)),
    "KUAKE-IR": AllLabels(),
    "KUAKE-QTR": AllLabels(),
    "KUAKE-QQR": AllLabels(),
    "IMCS-V2-SR": AllLabels(),
    "CHIP-MDCFNPC": AllLabels(),
    "IMCS-V2-MRG": nothing,
    "MedDG": nothing,
    # ChineseBLUE was published with all labels open to choose from.
    **dict.fromkeys(SUITES["chineseblue"].tasks, AllLabels()),
    "cMedQQ": AllLabels((("相同", "不同"),)),
}


def build_row(
    task: Task,
    prompts: TaskPrompts,
    template: str,
    content: Content,
    labels: Sequence[str],
    draws: Draws,
    style: Style,
    sample_id: str,
) -> Row:
    """Fill a template with a raw sample.

    Args:
        labels: what a prompt of the task can offer.
        draws: the row's own random choices.
    """
    choices, answer = OFFERINGS[task.name](content, labels, template, draws)
    offered = None if choices is None else labels_in(style.dialect, choices)
    spelt = labels_in(style.dialect, [answer])[0] if isinstance(answer, str) and choices is not None else answer
    target = write(task, spelt, offered or (), style.dialect)
    values = {**content.fields, "LIST_LABELS": "，".join(offered or ())}
    sample: Sample = {
        "input": _with_extras(fill(template, values), _extras(prompts, offered, style)),
        "target": target.text,
        "answer_choices": offered,
        "sample_id": sample_id,
        "task_type": task.task_type,
        "task_dataset": task.name,
    }
    return Row(sample, target.separators)


def preview(task: Task, prompts: TaskPrompts, template: str, style: Style) -> str:
    """A template with its placeholders as they stand and the additional contents, for all labels of the task."""
    choices = labels_in(style.dialect, [label for label in task.labels if label != NONE_OF_THESE]) or None
    return _with_extras(template, _extras(prompts, choices, style))


def _extras(prompts: TaskPrompts, choices: Sequence[str] | None, style: Style) -> list[str]:
    """The additional contents of the paper's section 3.2 that are switched on and that the task has."""
    extras = []
    if style.explain_labels:
        asked = prompts.labels if choices is None else choices
        extras += [f"{label}：{prompts.labels[label]}" for label in asked if label in prompts.labels]
        if extras:
            extras.insert(0, "各项的含义：")
    if style.format_spec:
        extras.append(f"答案的格式：{prompts.format[style.dialect]}")
    if style.step_by_step:
        extras.append(prompts.steps)
    return extras


def _with_extras(prompt: str, extras: Sequence[str]) -> str:
    """Put lines before the one that asks for the answer, or at the end where no such line is there."""
    if not extras:
        return prompt
    body, _, last = prompt.rpartition("\n")
    return "\n".join([body, *extras, last] if body and _CUE.fullmatch(last) else [prompt, *extras])


def labels_of(task: str, offers: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """What prompts of a task can offer: what its corpus brings, or else the task's own labels."""
    return offers.get(task, REGISTRY[task].labels)
