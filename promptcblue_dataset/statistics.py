"""What a dataset holds: sizes and lengths beside the published ones, labels, templates, choices, repetitions, leaks.

The published figures stand in `figures.json`: mean lengths of the paper's Table 8, and what was counted on the released
test set A.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from promptcblue_dataset.folder import CARD, is_ours, rewrite_card
from promptcblue_dataset.neighbours import Neighbours, essence, pieces
from promptcblue_dataset.prompts.pool import own_prompts, own_text, unfill
from promptcblue_metric.answers import AnswerFormat, EntityLines, Label, StatusLines, TripleLines
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import SPLITS, Sample, folder_files, iter_samples, resolve
from promptcblue_metric.tasks import REGISTRY, SUITES, suite_of

if TYPE_CHECKING:
    from promptcblue_dataset.neighbours import Array

# Pieces that this share of a task's prompts have are a template's, not a sample's.
_COMMON = 0.02
_FEWEST = 3
_FIGURES = Path(__file__).with_name("figures.json")
_HEADING, _END = "## Statistics", "<!-- end of statistics -->"
#: Where the items of a structured answer hold their label.
_LABEL_KEYS: Mapping[type[AnswerFormat], str] = {EntityLines: "type", TripleLines: "predicate", StatusLines: "attr"}
_TURN = re.compile(r"^(患者|医生)：", re.MULTILINE)
#: What is counted of a sample, and how far a mean may be from the released one before it is marked.
_COUNTED = ("prompt", "target", "choices", "items", "turns")
_FAR = 0.15


#: How a number is spread over samples: ``mean``, and percentiles between the ends, ``least``, ``p5``, ``median``,
#: ``p95`` and ``most``. Of released samples the mean alone is sure.
Spread: TypeAlias = Mapping[str, float]


class TaskStatistics(TypedDict):
    """What there is to say of a task's samples.

    Attributes:
        samples: by split.
        figures: spread of characters of prompts and targets, of choices, items of answers and turns of dialogues.
        published: samples by split and the name of where they are published, and mean lengths in characters (``prompt``
            and ``target``) where they are known.
        released: the same figures of the released test set A, where it has the task.
        labels: how often each label is an answer, or is that of an item of one.
        templates: prompts by the number of the project's template that made them; ``other`` for those of other pools.
        leaks: by two splits, how many prompts of one stand in an earlier one, ``exact`` and ``near``.
    """

    samples: dict[str, int]
    figures: dict[str, Spread]
    published: dict[str, Any]
    released: dict[str, Spread]
    labels: dict[str, int]
    templates: dict[str, int]
    repeated_prompts: int
    leaks: dict[str, dict[str, int]]


def statistics(
    source: str | Path, on_progress: Progress = lambda doing, item, total: None
) -> dict[str, TaskStatistics]:
    """Everything that there is to say of the samples of a folder, by task.

    Raises:
        PromptCBLUEError: the folder cannot be read.
    """
    folder = resolve(source)
    by_task: dict[str, dict[str, list[Sample]]] = {}
    for split in folder_files(folder):
        for sample in iter_samples(folder, split):
            by_task.setdefault(sample["task_dataset"], {}).setdefault(split, []).append(sample)
    suite_of(by_task)
    figures, found = json.loads(_FIGURES.read_text(encoding="utf-8")), {}
    for task in (task for task in REGISTRY if task in by_task):
        found[task] = _of_task(task, by_task[task], figures.get(task, {}))
        on_progress("counting", task, len(by_task))
    return found


def _of_task(
    task: str, splits: Mapping[str, Sequence[Sample]], known: Mapping[str, Mapping[str, Any]]
) -> TaskStatistics:
    samples = list(chain(*splits.values()))
    labels, items = _labels(task, [sample for sample in samples if sample["target"]])
    templates, texts = _templates(task, samples)
    turns = [len(_TURN.findall(sample["input"])) for sample in samples]
    counted = {
        "prompt": [len(sample["input"]) for sample in samples],
        "target": [len(sample["target"]) for sample in samples if sample["target"]],
        "choices": [len(sample["answer_choices"]) for sample in samples if sample["answer_choices"]],
        "items": items,
        "turns": turns if any(turns) else [],
    }
    return {
        "samples": {split: len(of_split) for split, of_split in splits.items()},
        "figures": {name: _spread(values) for name, values in counted.items() if values},
        "published": {
            "name": SUITES[REGISTRY[task].suite].sizes,
            "samples": dict(zip(SPLITS, REGISTRY[task].sizes, strict=True)),
            **known.get("table_8", {}),
        },
        "released": dict(known.get("released", {})),
        "labels": dict(labels.most_common()),
        "templates": dict(sorted(templates.items())),
        "repeated_prompts": len(samples) - len({sample["input"] for sample in samples}),
        "leaks": _leaks(splits, texts),
    }


def _spread(values: Sequence[int]) -> Spread:
    ordered = sorted(values)
    least, p5, median, p95, most = (ordered[int(share * (len(ordered) - 1))] for share in (0, 0.05, 0.5, 0.95, 1))
    mean = round(sum(ordered) / len(ordered), 2)
    return {"mean": mean, "least": least, "p5": p5, "median": median, "p95": p95, "most": most}


def _labels(task: str, samples: Sequence[Sample]) -> tuple[Counter[str], list[int]]:
    """How often each label, type or status is an answer, and how many items each answer has."""
    form = REGISTRY[task].format
    found: Counter[str] = Counter()
    items: list[int] = []
    for sample in samples:
        if isinstance(form, Label):
            found[sample["target"]] += 1
        elif key := _LABEL_KEYS.get(type(form)):
            answer = form.parse(sample["target"], REGISTRY[task].choices(sample["answer_choices"])).answer
            found.update(item[key] for item in answer)
            items.append(len(answer))
    return found, items


def _templates(task: str, samples: Sequence[Sample]) -> tuple[Counter[str], list[str] | None]:
    """How many prompts each template of the project's pool made, and what the samples themselves say.

    Returns:
        The second is None where prompts are of other pools, which cannot be told from what they were filled with.
    """
    prompts = own_prompts(task)
    found: Counter[str] = Counter()
    texts = []
    for sample in samples:
        for number, template in enumerate(prompts.templates if prompts else (), 1):
            if prompts and (fields := unfill(prompts, template, sample["input"])) is not None:
                found[str(number)] += 1
                texts.append(own_text(fields))
                break
        else:
            found["other"] += 1
    return found, None if found["other"] else texts


def _leaks(splits: Mapping[str, Sequence[Sample]], texts: Sequence[str] | None) -> dict[str, dict[str, int]]:
    """Prompts of a split that an earlier one has too, exactly or nearly.

    What is like is told as a build tells it, by what the samples themselves say; where that is not known, by the
    prompts less what they share.
    """
    common = None
    if texts is None:
        samples = chain(*splits.values())
        texts = [s["input"].replace("，".join(s["answer_choices"] or ()) or "\0", "") for s in samples]
        common = _common_pieces(texts)
    left = iter(texts)
    own = {split: [next(left) for _ in of_split] for split, of_split in splits.items()}
    ordered = [split for split in SPLITS if split in splits]
    found: dict[str, dict[str, int]] = {}
    for number, earlier in enumerate(ordered):
        prompts = {sample["input"] for sample in splits[earlier]}
        neighbours = Neighbours(common)
        neighbours.add(own[earlier])
        for scored in ordered[number + 1 :]:
            exact = sum(sample["input"] in prompts for sample in splits[scored])
            like = sum(hit is not None for hit in neighbours.find(own[scored]))
            found[f"{scored} in {earlier}"] = {"exact": exact, "near": like - exact}
    return found


def _common_pieces(texts: Sequence[str]) -> Array:
    import numpy as np

    hashes, starts = pieces([essence(text) for text in texts])
    owners = np.repeat(np.arange(len(texts)), np.diff(starts))
    distinct = np.unique(np.stack([hashes, owners.astype(np.uint64)], axis=1), axis=0)[:, 0]
    values, counts = np.unique(distinct, return_counts=True)
    return values[counts >= max(_FEWEST, _COMMON * len(texts))]


# --- What is shown ---


def tables(found: Mapping[str, TaskStatistics]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Titles and rows of the tables to show: sizes and lengths, and what is known of the released test set A."""
    beside = [" / ".join(sorted({of_task["published"]["name"] for of_task in found.values()}))]
    lengths = beside if any("prompt" in of_task["published"] for of_task in found.values()) else []
    titles = ["config", "samples", *beside, "prompt", *lengths, "target", *lengths, "repeated", "leaks"]
    yield titles, [_sizes(task, of_task, wide=bool(lengths)) for task, of_task in found.items()]
    if released := [row for task, of_task in found.items() for row in _beside_released(task, of_task)]:
        shares = ["mean", "5% / 50% / 95%", "most"]
        yield ["config", "number of", *shares, "released", *shares[1:], "off"], released


def _sizes(task: str, of_task: TaskStatistics, *, wide: bool) -> list[str]:
    published, leaks = of_task["published"], of_task["leaks"].values()
    sizes = of_task["samples"], published["samples"]
    cells = [task, *(" / ".join(f"{size.get(split, 0):,}" for split in SPLITS) for size in sizes)]
    for ours, theirs in (("prompt", published.get("prompt")), ("target", published.get("target"))):
        cells.append(f"{of_task['figures'][ours]['mean']:.1f}" if ours in of_task["figures"] else "–")
        cells += [f"{theirs:.1f}" if theirs else "–"] * wide
    exact, near = sum(leak["exact"] for leak in leaks), sum(leak["near"] for leak in leaks)
    return [*cells, str(of_task["repeated_prompts"]), f"{exact} + {near}"]


def _beside_released(task: str, of_task: TaskStatistics) -> Iterator[list[str]]:
    """Our figures beside the released ones, and how far a mean is from theirs if it is far."""
    for name in _COUNTED:
        ours, theirs = of_task["figures"].get(name), of_task["released"].get(name)
        if ours and theirs:
            off = ours["mean"] / theirs["mean"] - 1
            yield [task, name, *_cells(ours), *_cells(theirs), f"{off:+.0%}" if abs(off) > _FAR else ""]


def _cells(spread: Spread) -> list[str]:
    known = spread.get("p5"), spread.get("median"), spread.get("p95")
    shares = " / ".join("–" if value is None else f"{value:,}" for value in known)
    return [f"{spread['mean']:,.1f}", shares, f"{spread.get('most', 0):,}"]


def notes(found: Mapping[str, TaskStatistics]) -> Iterator[str]:
    """Labels, templates and choices, a line a task."""
    yield "leaks: prompts of a split that stand in an earlier one, exactly + nearly"
    for task, of_task in found.items():
        parts = []
        if choices := of_task["figures"].get("choices"):
            parts.append(f"{choices['least']}–{choices['most']} choices (mean {choices['mean']:.1f})")
        if labels := of_task["labels"]:
            total = sum(labels.values())
            most = ", ".join(f"{label} {count / total:.0%}" for label, count in list(labels.items())[:4])
            parts.append(f"{len(labels)} labels: {most}" + (", …" if len(labels) > 4 else ""))
        templates = of_task["templates"]
        parts.append("templates: " + ", ".join(f"{number}: {count:,}" for number, count in templates.items()))
        yield f"{task}: " + "; ".join(parts)


def write_into_card(source: str | Path, found: Mapping[str, TaskStatistics]) -> Path | None:
    """Write the statistics into the card of a folder, in place of earlier ones; None where there is no card of ours."""
    folder = resolve(source)
    if not is_ours(folder):
        return None
    card = folder / CARD
    rewrite_card(folder, in_card(card.read_text(encoding="utf-8"), found))
    return card


def in_card(text: str, found: Mapping[str, TaskStatistics]) -> str:
    """A card's text with the statistics, in place of earlier ones."""
    before, _, rest = text.partition(f"{_HEADING}\n")
    after = rest.partition(f"{_END}\n")[2] if rest else ""
    return f"{before.rstrip()}\n\n{_section(found)}{after}"


def _section(found: Mapping[str, TaskStatistics]) -> str:
    texts = (
        "Samples are train / validation / test, lengths are means in characters, Table 8 is the paper's, documented\n"
        "are the raw records upstream. Repeated prompts and leaks are counted within and across splits; leaks are\n"
        "exact + near.",
        "Beside the released test set A (off: how far a mean is from it, if by more than 15%):",
    )
    parts = [_HEADING]
    for text, (titles, body) in zip(texts, tables(found), strict=False):
        lines = ["| " + " | ".join(cells) + " |" for cells in [titles, *body]]
        parts += ["", text, "", lines[0], "|---" + "|---:" * (len(titles) - 1) + "|", *lines[1:]]
    details = [f"- {line}" for line in list(notes(found))[1:]]
    return "\n".join([*parts, "", *details, "", _END, ""])
