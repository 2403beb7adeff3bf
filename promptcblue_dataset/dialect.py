"""Writing answers: in the released dialect, or in that of the paper's Appendix A.1 where it differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from promptcblue_metric.answers import Answer, AnswerFormat, EntityLines, EventLines, TripleLines
from promptcblue_metric.errors import SeparatorError
from promptcblue_metric.tasks import Task

RELEASED, PAPER = "released", "paper"
DIALECTS = (RELEASED, PAPER)

#: Labels that the paper spells in another way.
_PAPER_LABELS = {"语义无直接关联": "语义毫无关联"}

_NONE = "无"


class Written(NamedTuple):
    """A target.

    Attributes:
        text: the target.
        separators: whether a part of the answer holds a separator, so that the text reads back as something else.
    """

    text: str
    separators: bool


def labels_in(dialect: str, labels: Sequence[str]) -> list[str]:
    """Labels or answer choices as a dialect spells them."""
    return [_PAPER_LABELS.get(label, label) for label in labels] if dialect == PAPER else list(labels)


def write(task: Task, answer: Answer, choices: Sequence[str], dialect: str) -> Written:
    """Write an answer whose labels are those of the ``choices`` (of which the paper spells some in another way)."""
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
