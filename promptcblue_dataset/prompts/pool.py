"""The pool of prompt templates: loading it, and finding what is wrong with it (paper, section 3.2)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from promptcblue_metric.data.writing import read_json_object
from promptcblue_metric.errors import PromptCBLUEError, RowError, UnknownTaskError
from promptcblue_metric.tasks import REGISTRY, get_task

#: Templates whose similarity is above this are near-duplicates.
NEAR = 0.9

#: The folders with a file ``{task}.yaml`` for each task; add one that has the files of further tasks.
TEMPLATE_FOLDERS: list[Path] = [Path(__file__).parent / "templates"]

#: What the additional contents begin with.
LABELS_HEADING, FORMAT_HEADING = "各项的含义：", "答案的格式："

_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_0-9]*)\]")


@dataclass(frozen=True)
class TaskPrompts:
    """The prompts of a task, as its YAML file has them.

    Attributes:
        task: config name.
        templates: texts with placeholders.
        placeholders: what each template must hold, with the names of the official pool.
        offers: how a prompt offers its choices: a ``kind`` that `render` knows, and that kind's settings; or such, by
            profile.
        optional: what else a template may hold.
        topic: words of which a template that states the task holds at least one.
        labels: what each label, field or section means.
        format: how the answer has to be written, by dialect.
        steps: an instruction to work step by step.
        paper_spelling: labels that the paper's dialect spells in another way.
    """

    task: str
    templates: tuple[str, ...]
    placeholders: frozenset[str]
    offers: Mapping[str, Any]
    optional: frozenset[str] = frozenset()
    topic: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    format: Mapping[str, str] = field(default_factory=dict)
    steps: str = ""
    paper_spelling: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def added_lines(self) -> frozenset[str]:
        """Every line that the additional contents can add to a prompt."""
        labels = [f"{label}：{meaning}" for label, meaning in self.labels.items()]
        formats = [f"{FORMAT_HEADING}{form}" for form in self.format.values()]
        return frozenset("\n".join([LABELS_HEADING, *labels, *formats, self.steps]).split("\n"))


class Flaw(NamedTuple):
    """Something wrong with a template; ``number`` counts the task's templates from 1."""

    task: str
    number: int
    kind: str
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


def unfill(prompts: TaskPrompts, template: str, prompt: str) -> dict[str, str] | None:
    """What a prompt's template was filled with, the additional contents left out; None for a prompt of another one."""
    pattern, fixed = _pattern(template)
    if not all(part in prompt for part in fixed):
        return None
    lines = prompt.split("\n")
    if not prompts.added_lines.isdisjoint(lines):
        prompt = "\n".join(line for line in lines if line not in prompts.added_lines)
    found = pattern.fullmatch(prompt)
    return found.groupdict() if found else None


def own_text(fields: Mapping[str, str]) -> str:
    """What a sample itself says in a prompt, by which it is told whether two are alike."""
    return "\n".join(fields[name] for name in sorted(fields) if name.startswith("INPUT_"))


@lru_cache(maxsize=1024)
def _pattern(template: str) -> tuple[re.Pattern[str], list[str]]:
    parts = _pieces(template)
    groups = [f"(?P<{part}>.*?)" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
    return re.compile("".join(groups), re.DOTALL), [line for part in parts[::2] for line in part.split("\n") if line]


def placeholders(template: str) -> list[str]:
    """The names of the placeholders of a template, in its order."""
    return _PLACEHOLDER.findall(template)


def load_pool(
    path: str | Path | None = None, tasks: Iterable[str] | None = None, *, checked: bool = True
) -> dict[str, TaskPrompts]:
    r"""The project's own pool, or one in the official form.

    Args:
        path: a JSON file ``{task: [template]}`` whose templates replace ours (a line end may be written as the two
            characters ``\n``); a task without templates in it has none.
        tasks: config names; by default every task that has templates.
        checked: refuse templates whose placeholders are wrong.

    Raises:
        PromptCBLUEError: a file cannot be read, one of the ``tasks`` has no templates of ours, or placeholders are
            wrong (all flaws are named).
    """
    wanted = [task for task in REGISTRY if task in (REGISTRY if tasks is None else set(tasks))]
    pool = {task: prompts for task in wanted if (prompts := own_prompts(task))}
    if tasks is not None and (without := [task for task in wanted if task not in pool]):
        folders = ", ".join(map(str, TEMPLATE_FOLDERS))
        raise PromptCBLUEError(f"no prompt templates of {', '.join(without)}: no such .yaml file in {folders}")
    if path is not None:
        found = _read_official(Path(path))
        pool = {task: replace(prompts, templates=found[task]) for task, prompts in pool.items() if task in found}
    flaws = [flaw for prompts in pool.values() for flaw in placeholder_flaws(prompts)] if checked else []
    if flaws:
        lines = [_with_remedy(flaw, pool[flaw.task], Path(path)) if path else str(flaw) for flaw in flaws]
        raise PromptCBLUEError("\n".join([f"{path or 'the template pool'}: templates cannot be filled", *lines]))
    return pool


def _with_remedy(flaw: Flaw, prompts: TaskPrompts, path: Path) -> str:
    """A flaw with file, line and field, and what to do about it."""
    content, template = path.read_text(encoding="utf-8-sig"), prompts.templates[flaw.number - 1]
    written = (
        json.dumps(text, ensure_ascii=a) for text in (template, template.replace("\n", "\\n")) for a in (False, True)
    )
    line = next((content.count("\n", 0, at) + 1 for text in written if (at := content.find(text)) >= 0), None)
    needed, allowed = (
        " ".join(f"[{name}]" for name in sorted(names)) for names in (prompts.placeholders, prompts.optional)
    )
    remedy = f"a template of {flaw.task} holds {needed} once" + f", and maybe {allowed}" * bool(allowed)
    return str(
        RowError(str(path), line or 1, flaw.task, f"template {flaw.number}: {flaw.kind} {flaw.detail}; {remedy}")
    )


def own_prompts(task: str) -> TaskPrompts | None:
    """What the file of a task in `TEMPLATE_FOLDERS` holds; None without one.

    Raises:
        PromptCBLUEError: the file lacks what it must have.
    """
    paths = (path for folder in TEMPLATE_FOLDERS if (path := folder / f"{task}.yaml").is_file())
    return next(map(_read_prompts, paths), None)


@lru_cache(maxsize=256)
def _read_prompts(path: Path) -> TaskPrompts:
    import yaml

    content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    if missing := {"templates", "placeholders", "offers"}.difference(content):
        raise PromptCBLUEError(f"{path}: lacks {', '.join(sorted(missing))}")
    if isinstance(content.get("labels"), str):  # the name of the task whose labels these are too
        same = own_prompts(content["labels"])
        content["labels"] = same.labels if same else {}
    form = content.get("format", "")
    content["format"] = form if isinstance(form, dict) else {"released": form, "paper": form}
    kinds = {"templates": tuple, "placeholders": frozenset, "optional": frozenset, "topic": tuple}
    content |= {name: kind(content[name]) for name, kind in kinds.items() if name in content}
    try:
        return TaskPrompts(path.stem, **content)
    except TypeError as error:  # a key that no file has
        raise PromptCBLUEError(f"{path}: {error}") from error


def _read_official(path: Path) -> dict[str, tuple[str, ...]]:
    pool: dict[str, tuple[str, ...]] = {}
    for name, templates in read_json_object(path).items():
        if not (isinstance(templates, list) and templates and all(isinstance(text, str) for text in templates)):
            raise PromptCBLUEError(f"{path}: task '{name}': expected a list of templates, found {templates!r:.80}")
        try:
            task = get_task(name).name
        except UnknownTaskError as error:
            raise PromptCBLUEError(f"{path}: {error}") from error
        pool[task] = tuple(dict.fromkeys(text.replace("\\n", "\n") for text in templates))
    if not pool:
        raise PromptCBLUEError(f"{path}: expected a JSON object of task to templates, found an empty one")
    return pool


def check_pool(pool: Mapping[str, TaskPrompts]) -> list[Flaw]:
    """Everything that is wrong with the templates of a pool, in its order."""
    of_tasks = ([*placeholder_flaws(prompts), *_wording_flaws(prompts)] for prompts in pool.values())
    return [flaw for of_task in of_tasks for flaw in sorted(of_task, key=attrgetter("number"))]


def placeholder_flaws(prompts: TaskPrompts, templates: Sequence[str] | None = None) -> Iterator[Flaw]:
    """The flaws that keep templates (by default the task's own) from being filled."""
    required, allowed = prompts.placeholders, prompts.placeholders | prompts.optional
    for number, template in enumerate(prompts.templates if templates is None else templates, 1):
        found = placeholders(template)
        kinds = {
            "missing placeholder": set(required.difference(found)),
            "unknown placeholder": set(found) - allowed,
            "repeated placeholder": {name for name in found if found.count(name) > 1},
        }
        for kind, names in kinds.items():
            for name in sorted(names):
                yield Flaw(prompts.task, number, kind, f"[{name}]")


def similarity(first: str, second: str) -> float:
    """How alike the wordings of two templates are, in 0..1: twice the common subsequence over both lengths.

    White space and punctuation do not count; placeholders keep their names.
    """
    from rapidfuzz.distance import Indel

    return float(Indel.normalized_similarity(first, second, processor=lambda text: re.sub(r"\W", "", text)))


def _wording_flaws(prompts: TaskPrompts) -> Iterator[Flaw]:
    """Templates that repeat an earlier one, and those that state no task."""
    for number, template in enumerate(prompts.templates, 1):
        for earlier, other in enumerate(prompts.templates[: number - 1], 1):
            if (alike := similarity(template, other)) > NEAR:
                kind, how = ("duplicate", "") if alike == 1 else ("near-duplicate", f" (similarity {alike:.2f})")
                yield Flaw(prompts.task, number, kind, f"of template {earlier}{how}")
                break
        if prompts.topic and not any(word in template for word in prompts.topic):
            yield Flaw(prompts.task, number, "no task", f"expected one of {'，'.join(prompts.topic)}")
