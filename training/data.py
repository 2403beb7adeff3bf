"""Samples as rows to train on, with nothing cut or dropped in silence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from promptcblue_dataset.draws import Draws, draw
from promptcblue_metric.compare.published import paper_counts
from promptcblue_metric.data.samples import (
    Sample,
    canonical_split,
    iter_samples,
    load_samples,
    read_json_lines,
    splits_of,
)
from promptcblue_metric.data.writing import replacing_file
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.tasks import get_task
from promptcblue_metric.version import VERSION

from .prompts import IGNORED, PromptEncoder
from .recipe import EXTRA, Recipe, read_recipe
from .run import samples_fingerprint

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

#: Samples that are worth a process of their own to tokenise, which takes a while to start.
_WORTH_A_WORKER = 4000
#: Rows of the cache that are read at once.
_CHUNK = 1000
#: Marks a row whose prompt was cut.
_CUT = -1


@dataclass(frozen=True)
class Rows:
    """Rows and what was done to make them fit."""

    #: Columns ``input_ids`` (prompt, target and end) and ``labels`` (which leave the prompt out of the loss), in the
    #: order of the samples.
    dataset: Dataset
    samples: Counter[str]  #: By task, how many samples there are.
    cut: Counter[str]  #: By task, how many prompts were cut in the middle.
    skipped: Counter[str]  #: By task, how many samples were left out because their targets are too long.
    longest: int  #: Tokens of the longest row.

    def summary(self) -> str:
        """One line for the user, and one more a task with cut prompts or samples left out."""
        lines = [f"{self.samples.total()} samples of {len(self.samples)} task(s), longest {self.longest} tokens"]
        for counts, what in (
            (self.cut, "prompts longer than max_length were cut in the middle"),
            (self.skipped, "samples were left out, whose targets leave no room for a prompt in max_length"),
        ):
            if counts:
                lines.append(f"{counts.total()} {what}:")
                lines += [f"  {task}: {count} of {self.samples[task]}" for task, count in counts.most_common()]
        return "\n".join(lines)


def training_rows(
    samples: Sequence[Sample],
    encoder: PromptEncoder,
    max_length: int | None,
    name: str,
    *,
    skip: bool = False,
    workers: int | None = None,
) -> Rows:
    """Tokenise samples, each in at most ``max_length`` tokens; what is too long loses the middle of its prompt.

    Rows are made once: they stand in the cache of the ``datasets`` library, in a file named by all that decides what is
    in it, and are mapped into memory, so that the processes of a machine share them.

    Args:
        name: what the samples are, for error messages.
        skip: leave out samples whose targets are so long that no prompt fits beside them.
        workers: processes to share the work, which makes no difference to the rows; as many as the samples are worth
            and there are cores by default.

    Raises:
        PromptCBLUEError: a target is empty, or too long where those are not skipped, or no sample is left.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import Dataset, config

    if empty := [sample for sample in samples if not sample["target"].strip()]:
        raise PromptCBLUEError(
            f"{name}: {len(empty)} of {len(samples)} samples have an empty target, the first is {_named(empty[0])}; "
            "there is nothing to learn from them (official test targets are not public): take another split or "
            "leave them out"
        )
    path = Path(config.HF_DATASETS_CACHE) / "promptcblue_rows" / f"{_content(samples, encoder, max_length)}.arrow"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _table(samples, encoder, max_length, workers)
        with replacing_file(path) as temporary, pa.ipc.new_file(str(temporary), made.schema) as writer:
            writer.write_table(made.combine_chunks(), max_chunksize=_CHUNK)
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    tasks, needed = [sample["task_dataset"] for sample in samples], table["needed"].to_pylist()
    cut = Counter(task for task, tokens in zip(tasks, needed, strict=True) if tokens == _CUT)
    skipped = Counter(task for task, tokens in zip(tasks, needed, strict=True) if tokens > 0)
    if skipped and (not skip or skipped.total() == len(samples)):
        worst = max(range(len(samples)), key=needed.__getitem__)
        raise PromptCBLUEError(
            f"{name}: the targets of {skipped.total()} sample(s) leave no room for a prompt in max_length "
            f"{max_length}; the longest is {_named(samples[worst])}: set max_length to {needed[worst]} or more"
        )
    if skipped:
        table = table.filter(pc.less_equal(table["needed"], 0))
    longest = pc.max(pc.list_value_length(table["input_ids"])).as_py()
    return Rows(Dataset(table.drop_columns("needed")), Counter(tasks), cut, skipped, longest)


def _content(samples: Sequence[Sample], encoder: PromptEncoder, max_length: int | None) -> str:
    """A digest of all that decides what the rows of samples are."""
    tokenizer = encoder.tokenizer
    fast = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    told = [tokenizer.chat_template, encoder.system, encoder.thinking, encoder.prompts(["?"]), encoder.end]
    content = json.dumps([VERSION, samples_fingerprint(samples), max_length, told, fast], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _table(samples: Sequence[Sample], encoder: PromptEncoder, max_length: int | None, workers: int | None) -> pa.Table:
    from datasets import Dataset, Features, Value
    from datasets import List as ListOf

    if workers is None:
        # Half the cores: a fast tokenizer in one process has threads on all of them.
        most = len(os.sched_getaffinity(0)) // 2 if sys.platform == "linux" else 1
        workers = min(len(samples) // _WORTH_A_WORKER, most)
    ids = ListOf(Value("int32"))
    texts = Dataset.from_dict({field: [sample[field] for sample in samples] for field in ("input", "target")})
    made = texts.map(
        partial(_tokenised, encoder=encoder, max_length=max_length),
        batched=True,
        num_proc=workers if workers > 1 else None,
        remove_columns=["input", "target"],
        features=Features({"input_ids": ids, "labels": ids, "needed": Value("int32")}),
        new_fingerprint="rows",
    )
    return made.data.table.replace_schema_metadata(None)


def _tokenised(
    samples: Mapping[str, list[str]], encoder: PromptEncoder, max_length: int | None
) -> dict[str, list[Any]]:
    """Columns of rows; ``needed`` is 0, or `_CUT`, or the tokens that a sample needs which has no row for it."""
    rows: list[tuple[list[int], list[int], int]] = []
    for prompt, target in zip(encoder.prompts(samples["input"]), encoder.targets(samples["target"]), strict=True):
        room = len(prompt) if max_length is None else max_length - len(target)
        try:
            kept = encoder.fit(prompt, room)
        except ValueError:
            rows.append(([], [], len(target) + sum(encoder.frame) + 2))
        else:
            rows.append((kept + target, [IGNORED] * len(kept) + target, _CUT if len(kept) < len(prompt) else 0))
    return {name: [row[place] for row in rows] for place, name in enumerate(("input_ids", "labels", "needed"))}


def to_measure(rows: Dataset, at_once: int) -> Dataset:
    """Rows ordered to measure the loss on: the longest first, so that little is padding and memory fails at once.

    Args:
        at_once: rows that all devices take together. Rows without a target fill up the last pass; the trainer would
            fill it with rows that it has measured already.
    """
    lengths = [len(ids) for ids in rows["input_ids"]]
    rows = rows.select(sorted(range(len(rows)), key=lengths.__getitem__, reverse=True))
    return with_empty_rows(rows, -len(rows) % at_once)


def with_empty_rows(rows: Dataset, count: int) -> Dataset:
    """Rows followed by others that have nothing in the loss."""
    from datasets import Dataset, concatenate_datasets

    if not count:
        return rows
    empty = {"input_ids": [rows[0]["input_ids"][:2]] * count, "labels": [[IGNORED] * 2] * count}
    return concatenate_datasets([rows, Dataset.from_dict(empty, features=rows.features)])


def _named(sample: Sample) -> str:
    return f"'{sample['sample_id']}' of {sample['task_dataset']}"


def mix(samples: Sequence[Sample], weights: Mapping[str, float], seed: int) -> list[Sample]:
    """The samples of an epoch in which each task's come as often as its weight says.

    Args:
        weights: by task; 1 where it does not say. 2.5 takes each sample twice and half of them, drawn with the seed,
            once more.

    Raises:
        PromptCBLUEError: a weight is for a task without samples, or nothing is left.
    """
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample["task_dataset"], []).append(sample)
    if strangers := sorted(set(weights) - set(by_task)):
        raise PromptCBLUEError(f"mixing: there are no train samples of {', '.join(strangers)}")
    mixed: list[Sample] = []
    for task, own in by_task.items():
        whole, part = divmod(weights.get(task, 1.0), 1)
        mixed += own * int(whole)
        mixed += Draws("mixing", seed, task).shuffled(own)[: round(part * len(own))]
    if not mixed:
        raise PromptCBLUEError("mixing: no samples are left to train on; give a task a weight above 0")
    return mixed


def training_samples(recipe: Recipe, splits: Splits, seed: int) -> list[Sample]:
    """The samples of an epoch: the recipe's split and tasks, or the paper's demonstrations of them, mixed as it says.

    Args:
        splits: of the recipe's dataset and tasks.
        seed: of the run, which draws the samples of weights that are no whole numbers.

    Raises:
        PromptCBLUEError: there are none, or they cannot be read.
    """
    samples = splits.samples(recipe.train_split)
    if recipe.few_shot:
        counts = paper_counts(dict.fromkeys(sample["task_dataset"] for sample in samples))
        samples = draw(samples, counts, recipe.few_shot_seed)
    if recipe.extra:
        samples = [*samples, *read_messages(Path(recipe.extra).expanduser())]
    return mix(samples, recipe.mixing, seed) if isinstance(recipe.mixing, dict) else samples


def read_groups(groups: str, tasks: Sequence[str]) -> dict[str, list[str]]:
    """The groups of tasks to train adapters for: those of a YAML file, or one for each ``task_type``.

    Args:
        tasks: those that there are samples of; others are left out of the groups.

    Raises:
        PromptCBLUEError: the file cannot be read, a group's name is none of a folder, or a task is in none or several.
    """
    found: dict[str, list[str]] = {}
    if groups == "task_type":
        for task in tasks:
            found.setdefault(get_task(task).task_type, []).append(task)
        return found
    path = Path(groups).expanduser()
    for name, members in read_recipe(path).items():
        if not re.fullmatch(r"\w[\w.-]*", str(name)) or not isinstance(members, list):
            raise PromptCBLUEError(f"{path}: {name}: expected the name of a folder, and a list of tasks")
        found[str(name)] = [task for task in (get_task(str(each)).name for each in members) if task in tasks]
    count = Counter(task for members in found.values() for task in members)
    if odd := [task for task in tasks if count[task] != 1]:
        raise PromptCBLUEError(f"{path}: expected each task in one group; not so {', '.join(odd)} (see configs)")
    return {name: members for name, members in found.items() if members}


def read_messages(path: Path) -> list[Sample]:
    """Instruction data as samples: rows of ``messages``, each with ``role`` and ``content``.

    Raises:
        PromptCBLUEError: names the file and line of a row that is not a user's message and the assistant's answer,
            after a system's if there is one, which is put before the user's.
    """
    samples = []
    for line, row in read_json_lines(path):
        messages = row.get("messages")
        try:
            roles, texts = zip(*((each["role"], each["content"]) for each in messages), strict=True)  # type: ignore[attr-defined]
            fits = roles in (("user", "assistant"), ("system", "user", "assistant"))
            if not fits or not all(isinstance(text, str) and text.strip() for text in texts):
                raise ValueError
        except (TypeError, KeyError, ValueError) as error:
            wanted = "expected role and content of a user's message and an assistant's, after a system's or none"
            raise RowError(str(path), line, "messages", wanted) from error
        names = {"sample_id": f"{path.name}:{line}", "task_type": EXTRA, "task_dataset": EXTRA}
        samples.append(Sample(input="\n".join(texts[:-1]), target=texts[-1], answer_choices=None, **names))  # type: ignore[typeddict-item]
    if not samples:
        raise PromptCBLUEError(f"extra: {path} holds no messages")
    return samples


def spread(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """About as many samples of each task, ``count`` in all, in the order they have.

    A task's samples are drawn at random, the same ones for the same seed; more samples of a task are the fewer ones
    and others beside them. Where a task has too few, the other tasks give more.
    """
    by_task: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        by_task.setdefault(sample["task_dataset"], []).append(place)
    for task, places in by_task.items():
        Random(f"{seed} {task}").shuffle(places)
    # The first of every task, then the second of every task, and so on.
    order = [place for turn in zip_longest(*by_task.values()) for place in turn if place is not None]
    return [samples[place] for place in sorted(order[:count])]


class Splits:
    """The splits of a dataset, each read when it is first asked for, and once.

    Args:
        source: as for `load_samples`; a single file is any split that is asked for, and has none of its own.
        tasks: names or aliases; every task by default.
        limit: how many of the samples `chosen` are; all by default.
        seed: of their choice.
    """

    def __init__(
        self, source: str, tasks: Sequence[str] | None = None, limit: int | None = None, seed: int = 0
    ) -> None:
        self.source, self.tasks, self.limit, self.seed = source, tasks, limit, seed
        self._read: dict[str, list[Sample]] = {}

    def samples(self, split: str) -> list[Sample]:
        """The samples of a split that has to be there; raises as `load_samples` does."""
        split = canonical_split(split)
        if split not in self._read:
            self._read[split] = load_samples(self.source, split, self.tasks)
        return self._read[split]

    def chosen(self, split: str) -> list[Sample]:
        """As many samples of a split as the limit says, spread over its tasks (`spread`)."""
        samples = self.samples(split)
        return samples if self.limit is None else spread(samples, self.limit, self.seed)

    def if_any(self, split: str) -> list[Sample]:
        """The samples of a split, or [] where the source has no such split or none of the tasks in it.

        Raises:
            PromptCBLUEError: the split is there and cannot be read.
        """
        if split not in splits_of(self.source):
            return []
        if split not in self._read:
            self._read[split] = list(iter_samples(self.source, split, self.tasks))
        return self._read[split]
