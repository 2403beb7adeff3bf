"""Few-shot prompting: which train samples stand before a prompt (paper, Section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from promptcblue_dataset.draws import draw
from promptcblue_dataset.neighbours import Candidates, essence
from promptcblue_metric.compare.published import paper_counts
from promptcblue_metric.data.samples import Sample, resolve
from promptcblue_metric.errors import PromptCBLUEError

from .data import Splits
from .prompts import Shot
from .recipe import said as option
from .run import samples_fingerprint


@dataclass(frozen=True)
class ShotSettings:
    """Which demonstrations to show: ``count`` for each task, or None for the paper's counts (Table 1)."""

    count: int | None = None
    selection: Literal["fixed", "similar"] = option(
        "fixed", "The same demonstrations for every sample of a task, or those most similar to it (BM25)."
    )
    source: str | None = option(
        None, "Another dataset whose train split to take them from, or a file.", name="demonstrations_from"
    )
    seed: int = option(0, "Seed of the draws, of fixed ones and of --limit.")


class Demonstrations:
    """Chooses the demonstrations of each sample from a train split, and never one that is held out.

    A train sample whose prompt is also in the validation or the test split, or among the samples to predict (unless
    those are the train split, where it is only kept from its own prompt), is not used; punctuation and white space
    aside, such prompts are the same.

    Args:
        settings: which to show.
        dataset: what is predicted.
        split: the split of it.
        samples: the samples to predict.

    Attributes:
        held_out: how many train samples were left aside because they are held out.

    Raises:
        PromptCBLUEError: there is no train split, or it has too few samples of a task.
    """

    def __init__(self, settings: ShotSettings, dataset: Splits, split: str, samples: Sequence[Sample]) -> None:
        self.settings = settings
        tasks = list(dict.fromkeys(sample["task_dataset"] for sample in samples))
        self.counts = paper_counts(tasks) if settings.count is None else dict.fromkeys(tasks, settings.count)
        source = Splits(settings.source) if settings.source else dataset
        # A file has no splits: whoever names it as the source of demonstrations says that it is one to learn from.
        read = source.samples if settings.source and resolve(settings.source).is_file() else source.if_any
        train = [sample for sample in read("train") if sample["task_dataset"] in tasks]
        if not train:
            raise PromptCBLUEError(
                f"{source.source} has no train split to take demonstrations of {', '.join(tasks)} "
                "from; name a dataset that has one with --demonstrations-from"
            )
        predicted = [] if split == "train" else samples
        others = [sample for held in ("validation", "test") for sample in dataset.if_any(held)]
        held_out = {_core(sample) for sample in (*predicted, *others)}
        allowed = [sample for sample in train if _core(sample) not in held_out and sample["target"].strip()]
        self.held_out = sum(_core(sample) in held_out for sample in train)
        # Also where similar ones are chosen: it refuses tasks with too few samples.
        drawn = draw(allowed, self.counts, settings.seed)
        self.shown = drawn if settings.selection == "fixed" else allowed
        self._by_task = {task: [each for each in self.shown if each["task_dataset"] == task] for task in tasks}

    def of(self, sample: Sample) -> tuple[Shot, ...]:
        """The demonstrations before a sample's prompt; the nearest one, where they are chosen so, is the last."""
        task = sample["task_dataset"]
        if self.settings.selection == "fixed":
            found = self._by_task[task]
        else:
            by_prompt, index = self._indexes[task]
            # One more, in case the sample finds itself.
            found = [by_prompt[prompt] for prompt in index.best(sample["input"], self.counts[task] + 1)]
        others = [shot for shot in found if _core(shot) != _core(sample)][: self.counts[task]]
        shots = tuple(Shot(shot["input"], shot["target"]) for shot in others)
        return shots if self.settings.selection == "fixed" else shots[::-1]

    def identity(self) -> Mapping[str, object]:
        """What decides which demonstrations a sample gets."""
        identity = {
            "counts": self.counts,
            "selection": self.settings.selection,
            "samples": samples_fingerprint(self.shown),
        }
        return {**identity, "seed": self.settings.seed} if self.settings.selection == "fixed" else identity

    @cached_property
    def _indexes(self) -> Mapping[str, tuple[Mapping[str, Sample], Candidates]]:
        prompts = {task: {each["input"]: each for each in samples} for task, samples in self._by_task.items()}
        return {task: (by_prompt, Candidates(list(by_prompt))) for task, by_prompt in prompts.items()}


def _core(sample: Sample) -> tuple[str, str]:
    return sample["task_dataset"], essence(sample["input"])
