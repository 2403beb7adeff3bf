"""What a dataset holds: sizes and lengths beside the published ones, labels, templates, choices, repetitions, leaks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptcblue_dataset.folder import CARD, is_ours
from promptcblue_dataset.neighbours import Neighbours, essence, pieces
from promptcblue_dataset.prompts.pool import own_prompts, placeholders
from promptcblue_metric.answers import EntityLines, Label, StatusLines, TripleLines
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import SPLITS, Sample, folder_files, iter_samples, resolve
from promptcblue_metric.data.writing import replace_bytes
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, suite_of

if TYPE_CHECKING:
    from promptcblue_dataset.neighbours import Array

#: What the published figures of a suite are called: of ChineseBLUE there are only the numbers of raw records.
_PUBLISHED: Mapping[str, str] = {"promptcblue": "Table 8", "chineseblue": "documented"}

_EXPLAINED: Mapping[str, str] = {
    "promptcblue": "Table 8 is the paper's",
    "chineseblue": "documented are the raw records upstream",
}

#: Mean length of prompts and targets in characters (paper, Table 8).
TABLE_8: Mapping[str, tuple[float, float]] = {
    "CMeEE-V2": (107.88, 54.03),
    "CMeIE": (293.72, 135.51),
    "CHIP-CDEE": (142.61, 180.93),
    "CHIP-CDN": (281.79, 10.37),
    "CHIP-CTC": (214.61, 3.81),
    "CHIP-STS": (66.26, 2.0),
    "KUAKE-QIC": (81.58, 4.09),
    "KUAKE-QTR": (96.38, 7.23),
    "KUAKE-QQR": (89.38, 7.61),
    "KUAKE-IR": (203.33, 2.78),
    "CHIP-MDCFNPC": (744.99, 67.67),
    "IMCS-V2-SR": (137.13, 36.33),
    "IMCS-V2-NER": (61.66, 23.65),
    "IMCS-V2-DAC": (371.62, 8.56),
    "IMCS-V2-MRG": (821.1, 105.08),
    "MedDG": (194.75, 27.71),
}

# Pieces that this share of a task's prompts have are a template's, not a sample's.
_COMMON = 0.02
_FEWEST = 3
_HEADING, _END = "## Statistics", "<!-- end of statistics -->"
#: Where the items of a structured answer hold their label.
_LABEL_KEYS: Mapping[type[Any], str] = {EntityLines: "type", TripleLines: "predicate", StatusLines: "attr"}


def statistics(source: str | Path, on_progress: Progress = lambda doing, item, total: None) -> dict[str, Any]:
    """Everything that there is to say of the samples of a folder, by task.

    Raises:
        PromptCBLUEError: the folder cannot be read.
    """
    folder = resolve(source)
    by_task: dict[str, dict[str, list[Sample]]] = {}
    for split in folder_files(folder):
        for sample in iter_samples(folder, split):
            by_task.setdefault(sample["task_dataset"], {}).setdefault(split, []).append(sample)
    if not by_task:
        raise PromptCBLUEError(f"{source}: no samples")
    found = {}
    suite_of(by_task)
    for task in (task for task in REGISTRY if task in by_task):
        found[task] = _of_task(task, by_task[task])
        on_progress("counting", task, len(by_task))
    return found


def _of_task(task: str, splits: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    samples = [sample for of_split in splits.values() for sample in of_split]
    answered = [sample for sample in samples if sample["target"]]
    offered = [len(sample["answer_choices"]) for sample in samples if sample["answer_choices"]]
    repeated = len(samples) - len({sample["input"] for sample in samples})
    return {
        "samples": {split: len(of_split) for split, of_split in splits.items()},
        "prompt_length": _mean([len(sample["input"]) for sample in samples]),
        "target_length": _mean([len(sample["target"]) for sample in answered]),
        _key(task): {
            "samples": dict(zip(SPLITS, REGISTRY[task].sizes, strict=True)),
            **dict(zip(("prompt_length", "target_length"), TABLE_8.get(task, ()), strict=False)),
        },
        "labels": dict(_labels(task, answered).most_common()),
        "templates": dict(sorted(_templates(task, samples).items())),
        "choices": {"least": min(offered), "mean": _mean(offered), "most": max(offered)} if offered else None,
        "repeated_prompts": repeated,
        "leaks": _leaks(splits),
    }


def _key(task: str) -> str:
    """Under which key the published figures of a task stand."""
    return _PUBLISHED[REGISTRY[task].suite].lower().replace(" ", "_")


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 2) if values else 0.0


def _labels(task: str, samples: Sequence[Sample]) -> Counter[str]:
    """How often each label, type or status is an answer."""
    form = REGISTRY[task].format
    found: Counter[str] = Counter()
    for sample in samples:
        if isinstance(form, Label):
            found[sample["target"]] += 1
        elif key := _LABEL_KEYS.get(type(form)):
            answer = form.parse(sample["target"], REGISTRY[task].choices(sample["answer_choices"])).answer
            found.update(item[key] for item in answer)
    return found


def _templates(task: str, samples: Sequence[Sample]) -> Counter[str]:
    """How many prompts each template of the project's pool made, by its number; ``other`` for those of other pools."""
    prompts = own_prompts(task)
    patterns = [_pattern(template) for template in prompts.templates] if prompts else []
    found: Counter[str] = Counter()
    for sample in samples:
        fits = (str(number) for number, pattern in enumerate(patterns, 1) if pattern(sample["input"]))
        found[next(fits, "other")] += 1
    return found


def _pattern(template: str) -> Any:
    """A test whether a prompt has a template's fixed parts in order (additional contents may stand between them)."""
    parts = [
        part.strip("\n") for part in re.split("|".join(rf"\[{name}\]" for name in placeholders(template)), template)
    ]
    fixed = [line for part in parts for line in part.split("\n") if line.strip()]

    def fits(prompt: str) -> bool:
        place = 0
        for part in fixed:
            place = prompt.find(part, place)
            if place < 0:
                return False
            place += len(part)
        return True

    return fits


def _leaks(splits: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, int]]:
    """Prompts of a split that an earlier one has too, exactly or nearly, leaving aside what all prompts share."""
    texts = {split: [_own_text(sample) for sample in splits[split]] for split in SPLITS if split in splits}
    common = _common_pieces([text for of_split in texts.values() for text in of_split])
    found = {}
    for number, earlier in enumerate(texts):
        prompts = {sample["input"] for sample in splits[earlier]}
        neighbours = Neighbours(common)
        neighbours.add(texts[earlier])
        for scored in list(texts)[number + 1 :]:
            exact = sum(sample["input"] in prompts for sample in splits[scored])
            like = sum(hit is not None for hit in neighbours.find(texts[scored]))
            found[f"{scored} in {earlier}"] = {"exact": exact, "near": like - exact}
    return found


def _own_text(sample: Sample) -> str:
    return sample["input"].replace("，".join(sample["answer_choices"] or ()) or "\0", "")


def _common_pieces(texts: Sequence[str]) -> Array:
    import numpy as np

    hashes, starts = pieces([essence(text) for text in texts])
    owners = np.repeat(np.arange(len(texts)), np.diff(starts))
    distinct = np.unique(np.stack([hashes, owners.astype(np.uint64)], axis=1), axis=0)[:, 0]
    values, counts = np.unique(distinct, return_counts=True)
    return values[counts >= max(_FEWEST, _COMMON * len(texts))]


def rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The cells of a table with a row a task, as `titles` names them."""
    for task, of_task in found.items():
        published = of_task[_key(task)]
        leaks = of_task["leaks"].values()
        yield [
            task,
            " / ".join(f"{of_task['samples'].get(split, 0):,}" for split in SPLITS),
            " / ".join(f"{size:,}" for size in published["samples"].values()),
            *_lengths("prompt_length", of_task, published),
            *_lengths("target_length", of_task, published),
            str(of_task["repeated_prompts"]),
            f"{sum(leak['exact'] for leak in leaks)} + {sum(leak['near'] for leak in leaks)}",
        ]


def _lengths(name: str, ours: Mapping[str, Any], published: Mapping[str, Any]) -> list[str]:
    return [f"{figures[name]:.1f}" for figures in (ours, published) if name in figures]


def titles(found: Mapping[str, Any]) -> list[str]:
    """What the cells of `rows` are."""
    suite = suite_of(found).name
    beside = [_PUBLISHED[suite]]
    lengths = beside if suite == "promptcblue" else []
    return ["config", "samples", *beside, "prompt", *lengths, "target", *lengths, "repeated", "leaks"]


def notes(found: Mapping[str, Any]) -> Iterator[str]:
    """Labels, templates and choices, a line a task."""
    yield "leaks: prompts of a split that stand in an earlier one, exactly + nearly"
    for task, of_task in found.items():
        parts = []
        if choices := of_task["choices"]:
            parts.append(f"{choices['least']}–{choices['most']} choices (mean {choices['mean']:.1f})")
        if labels := of_task["labels"]:
            total = sum(labels.values())
            most = ", ".join(f"{label} {count / total:.0%}" for label, count in list(labels.items())[:4])
            parts.append(f"{len(labels)} labels: {most}" + (", …" if len(labels) > 4 else ""))
        templates = of_task["templates"]
        parts.append("templates: " + ", ".join(f"{number}: {count:,}" for number, count in templates.items()))
        yield f"{task}: " + "; ".join(parts)


def write_into_card(source: str | Path, found: Mapping[str, Any]) -> Path | None:
    """Write the statistics into the card of a folder in the Hub layout, in place of earlier ones; None without a card.

    Raises:
        PromptCBLUEError: the card cannot be written.
    """
    card = resolve(source) / CARD
    if not card.is_file() or not is_ours(card.parent):
        return None
    replace_bytes(card, in_card(card.read_text(encoding="utf-8"), found).encode())
    return card


def in_card(text: str, found: Mapping[str, Any]) -> str:
    """A card's text with the statistics, in place of earlier ones."""
    before, _, rest = text.partition(f"{_HEADING}\n")
    after = rest.partition(f"{_END}\n")[2] if rest else ""
    return f"{before.rstrip()}\n\n{_section(found)}{after}"


def _section(found: Mapping[str, Any]) -> str:
    header = titles(found)
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, *rows(found)]]
    lines.insert(1, "|---" + "|---:" * (len(header) - 1) + "|")
    published = _EXPLAINED[suite_of(found).name]
    explained = (
        f"Samples are train / validation / test, lengths are means in characters, and {published}. Repeated\n"
        "prompts and leaks are counted within and across splits; leaks are exact + near."
    )
    details = [f"- {line}" for line in list(notes(found))[1:]]
    return "\n".join([_HEADING, "", explained, "", *lines, "", *details, "", _END, ""])
