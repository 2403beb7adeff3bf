"""The pool of prompt templates: loading it, and finding what is wrong with it (paper, section 3.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, get_task

#: Templates whose similarity is above this are near-duplicates.
NEAR = 0.9

_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_0-9]*)\]")
_OWN = Path(__file__).parent / "templates"

_TEXT, _PAIR = frozenset({"INPUT_TEXT"}), frozenset({"INPUT_TEXT_1", "INPUT_TEXT_2"})
_LABELS, _MENTIONS = frozenset({"LIST_LABELS"}), frozenset({"LIST_MENTIONS"})


class Placeholders(NamedTuple):
    """What a task's templates must hold, and what else they may."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()


#: The placeholders of each task, with the names of the official pool.
PLACEHOLDERS: Mapping[str, Placeholders] = {
    **dict.fromkeys(("CMeEE-V2", "CMeIE", "CHIP-CDN", "IMCS-V2-NER"), Placeholders(_TEXT | _LABELS)),
    **dict.fromkeys(("CHIP-CTC", "KUAKE-QIC", "IMCS-V2-DAC", "IMCS-V2-SR"), Placeholders(_TEXT | _LABELS)),
    **dict.fromkeys(("KUAKE-IR", "KUAKE-QTR", "KUAKE-QQR"), Placeholders(_PAIR | _LABELS)),
    "CHIP-STS": Placeholders(_PAIR, _LABELS),
    "CHIP-MDCFNPC": Placeholders(_TEXT | _LABELS, _MENTIONS),
    **dict.fromkeys(("CHIP-CDEE", "IMCS-V2-MRG", "MedDG"), Placeholders(_TEXT)),
    **dict.fromkeys(("cEHRNER", "cMedQANER", "cMedIC", "cMedTC", "CMDD"), Placeholders(_TEXT | _LABELS)),
    **dict.fromkeys(("cMedQNLI", "cMedQA", "cMedIR"), Placeholders(_PAIR | _LABELS)),
    "cMedQQ": Placeholders(_PAIR, _LABELS),
}


@dataclass(frozen=True)
class TaskPrompts:
    """The prompts of a task.

    Attributes:
        templates: texts with placeholders.
        topic: words of which a template that states the task holds at least one.
        labels: what each label, field or section means.
        format: how the answer has to be written, by dialect.
        steps: an instruction to work step by step.
    """

    templates: tuple[str, ...]
    topic: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    format: Mapping[str, str] = field(default_factory=dict)
    steps: str = ""


Pool = Mapping[str, TaskPrompts]

FlawKind = Literal[
    "missing placeholder", "unknown placeholder", "repeated placeholder", "duplicate", "near-duplicate", "no task"
]


class Flaw(NamedTuple):
    """Something wrong with a template; ``number`` counts the task's templates from 1."""

    task: str
    number: int
    kind: FlawKind
    detail: str

    def __str__(self) -> str:
        return f"{self.task} template {self.number}: {self.kind}: {self.detail}"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace every placeholder in one pass, so that a text that looks like one stays as it is."""
    parts = list(_pieces(template))
    parts[1::2] = [values.get(name, f"[{name}]") for name in parts[1::2]]
    return "".join(parts)


@lru_cache(maxsize=1024)
def _pieces(template: str) -> tuple[str, ...]:
    """A template's fixed parts, and between them the names of its placeholders."""
    return tuple(_PLACEHOLDER.split(template))


def placeholders(template: str) -> list[str]:
    """The names of the placeholders of a template, in its order."""
    return _PLACEHOLDER.findall(template)


def load_pool(path: str | Path | None = None, *, checked: bool = True) -> Pool:
    r"""The project's own pool, or one in the official form.

    Args:
        path: a JSON file ``{task: [template]}`` whose templates replace ours (a line end may be written as the two
            characters ``\n``); a task without templates in it has none.
        checked: refuse templates whose placeholders are wrong.

    Raises:
        PromptCBLUEError: the file cannot be read, or placeholders are wrong (all flaws are named).
    """
    own = {task: _own_prompts(task) for task in REGISTRY}
    if path is None:
        pool: Pool = own
    else:
        found = _read_official(Path(path))
        pool = {
            task: TaskPrompts(found[task], prompts.topic, prompts.labels, prompts.format, prompts.steps)
            for task, prompts in own.items()
            if task in found
        }
    flaws = [str(flaw) for task, prompts in pool.items() for flaw in placeholder_flaws(task, prompts.templates)]
    if flaws and checked:
        raise PromptCBLUEError("\n".join([f"{path or 'the template pool'}: templates cannot be filled", *flaws]))
    return pool


@lru_cache
def _own_prompts(task: str) -> TaskPrompts:
    import yaml

    content = yaml.load((_OWN / f"{task}.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    form, labels = content["format"], content.get("labels", {})
    return TaskPrompts(
        templates=tuple(content["templates"]),
        topic=tuple(content["topic"]),
        # A name is that of the task whose labels these are too.
        labels=_own_prompts(labels).labels if isinstance(labels, str) else labels,
        format=form if isinstance(form, dict) else {"released": form, "paper": form},
        steps=content["steps"],
    )


def _read_official(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PromptCBLUEError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise PromptCBLUEError(f"{path}: expected a JSON object of task to templates: {error}") from error
    if not isinstance(content, dict) or not content:
        raise PromptCBLUEError(f"{path}: expected a JSON object of task to templates, found a {type(content).__name__}")
    pool: dict[str, tuple[str, ...]] = {}
    for name, templates in content.items():
        if not (isinstance(templates, list) and templates and all(isinstance(text, str) for text in templates)):
            raise PromptCBLUEError(f"{path}: task '{name}': expected a list of templates, found {templates!r:.80}")
        pool[get_task(name).name] = tuple(text.replace("\\n", "\n") for text in templates)
    return pool


def check_pool(pool: Pool) -> list[Flaw]:
    """Everything that is wrong with the templates of a pool, in its order."""
    flaws: list[Flaw] = []
    for task, prompts in pool.items():
        flaws += placeholder_flaws(task, prompts.templates)
        flaws += _repetitions(task, prompts.templates)
        flaws += _taskless(task, prompts)
    return sorted(flaws, key=lambda flaw: (list(pool).index(flaw.task), flaw.number))


def placeholder_flaws(task: str, templates: Sequence[str]) -> Iterator[Flaw]:
    """The flaws that keep templates from being filled."""
    required, optional = PLACEHOLDERS[task]
    for number, template in enumerate(templates, 1):
        found = placeholders(template)
        for kind, names in (
            ("missing placeholder", required - set(found)),
            ("unknown placeholder", set(found) - required - optional),
            ("repeated placeholder", {name for name in found if found.count(name) > 1}),
        ):
            for name in sorted(names):
                yield Flaw(task, number, kind, f"[{name}]")  # type: ignore[arg-type]


def similarity(first: str, second: str) -> float:
    """How alike the wordings of two templates are, in 0..1: twice the common subsequence over both lengths."""
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(wording(first), wording(second)))


def wording(template: str) -> str:
    """A template without white space and punctuation; placeholders keep their names."""
    return "".join(character for character in template if character.isalnum() or character == "_")


def _repetitions(task: str, templates: Sequence[str]) -> Iterator[Flaw]:
    for number, template in enumerate(templates, 1):
        for earlier, other in enumerate(templates[: number - 1], 1):
            alike = similarity(template, other)
            if alike == 1:
                yield Flaw(task, number, "duplicate", f"of template {earlier}")
                break
            if alike > NEAR:
                yield Flaw(task, number, "near-duplicate", f"of template {earlier} (similarity {alike:.2f})")
                break


def _taskless(task: str, prompts: TaskPrompts) -> Iterator[Flaw]:
    for number, template in enumerate(prompts.templates, 1):
        if not any(word in template for word in prompts.topic):
            yield Flaw(task, number, "no task", f"expected one of {'，'.join(prompts.topic)}")


def lines(pool: Pool, tasks: Iterable[str] | None = None) -> Iterator[str]:
    r"""A line a template: task, number and the template with its line ends written as ``\n``, between tabs."""
    for task, prompts in pool.items():
        if tasks is None or task in tasks:
            for number, template in enumerate(prompts.templates, 1):
                yield f"{task}\t{number}\t" + template.replace("\n", "\\n")
