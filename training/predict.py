"""Predict a split of the benchmark with a model, one line a sample, going on where an earlier run stopped."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from promptcblue_dataset.official import resolve
from promptcblue_dataset.source import load_samples
from promptcblue_metric.records import Sample
from promptcblue_metric.splits import canonical_split
from promptcblue_metric.version import VERSION

from .backends import Backend, BackendSettings, Completion, Request, load_backend
from .data import load_split_if_any
from .predictions import PredictionsFile, check_unique, sample_key
from .resume import samples_fingerprint

#: Longest answer where nothing says how long a task's answers are; the paper's longest are reports of a few hundred.
DEFAULT_NEW_TOKENS = 512
#: How much longer than the longest known target an answer may be.
_SLACK = 1.25


def predict(
    dataset: str,
    split: str,
    output: Path,
    backend: BackendSettings,
    configs: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Predict every sample of a split that the output does not hold yet.

    Args:
        dataset: as for `load_samples`.
        configs: tasks to predict; every one by default.
        max_new_tokens: longest answer; by default each task's own (`answer_limits`).
        overwrite: begin an empty output.

    Raises:
        PromptCBLUEError: data, model or settings cannot be used, or the output is of another run.
    """
    split = canonical_split(split)
    samples = load_samples(dataset, split, configs)
    check_unique(samples, f"{dataset} {split}")
    engine = load_backend(backend)
    tasks = list(dict.fromkeys(sample["task_dataset"] for sample in samples))
    limits = dict.fromkeys(tasks, max_new_tokens) if max_new_tokens else answer_limits(dataset, split, tasks, engine)
    settings = {
        "samples": samples_fingerprint(samples),
        "split": split,
        **engine.identity(),
        "max_new_tokens": limits,
    }
    notes = {"dataset": dataset, "promptcblue": VERSION, **engine.notes()}
    with PredictionsFile(output, settings, notes, overwrite=overwrite) as file:
        requests = [
            Request(index, sample["input"], limits[sample["task_dataset"]])
            for index, sample in enumerate(samples)
            if sample_key(sample) not in file.done
        ]
        if len(requests) < len(samples):
            print(f"{output} holds {len(samples) - len(requests)} of {len(samples)} predictions: going on from there")
        started = time.monotonic()
        made = _run(engine, requests, samples, file)
    _summarise(made, limits, time.monotonic() - started)
    print(f"wrote {output}: {len(samples)} predictions")
    print(f"next: {_next_command(dataset, split, output, samples, configs)}")


def answer_limits(dataset: str, split: str, tasks: Sequence[str], engine: Backend) -> dict[str, int]:
    """The longest answer to allow for each task, in tokens.

    A quarter more than the longest target of the task in the train and validation splits, rounded up to a power of
    two so that tasks share batches; `DEFAULT_NEW_TOKENS` for a task without targets there. The split that is
    predicted is not looked at unless it is one of these.
    """
    longest: Counter[str] = Counter()
    for known in ("train", "validation"):
        targets = [
            (sample["task_dataset"], sample["target"])
            for sample in load_split_if_any(dataset, known, tasks)
            if sample["target"]
        ]
        for (task, _), count in zip(targets, engine.count_tokens([target for _, target in targets]), strict=True):
            longest[task] = max(longest[task], count)
    return {
        task: 1 << int(longest[task] * _SLACK).bit_length() if longest[task] else DEFAULT_NEW_TOKENS for task in tasks
    }


def _run(
    engine: Backend, requests: Sequence[Request], samples: Sequence[Sample], file: PredictionsFile
) -> list[tuple[Sample, Completion]]:
    """Answer the requests, each on disk before the next is looked at."""
    if not requests:
        return []
    made = []
    with tqdm(total=len(requests), unit="sample", disable=not sys.stderr.isatty()) as bar:
        for completion in engine.generate(requests):
            sample = samples[completion.index]
            file.append(
                sample,
                {
                    "prediction": completion.text,
                    "finish_reason": completion.finish_reason,
                    "prompt_tokens": completion.prompt_tokens,
                    "new_tokens": completion.new_tokens,
                },
            )
            made.append((sample, completion))
            bar.update()
    return made


def _summarise(made: Sequence[tuple[Sample, Completion]], limits: Mapping[str, int], seconds: float) -> None:
    tokens = sum(completion.new_tokens for _, completion in made)
    print(
        f"predicted {len(made)} samples, {tokens} tokens in {seconds:.1f} s "
        f"({len(made) / max(seconds, 1e-9):.1f} samples/s)"
    )
    _count("answers did not end within their limit", (s for s, c in made if c.finish_reason == "length"), limits)
    _count("prompts were cut in the middle to fit the model's context", (s for s, c in made if c.cut))


def _count(what: str, samples: Iterable[Sample], limits: Mapping[str, int] | None = None) -> None:
    counts = Counter(sample["task_dataset"] for sample in samples)
    if counts:
        listed = (f"{task} {count}" + (f" (limit {limits[task]})" if limits else "") for task, count in counts.items())
        print(f"{counts.total()} {what}: {', '.join(listed)}")


def _next_command(
    dataset: str, split: str, output: Path, samples: Sequence[Sample], configs: Sequence[str] | None
) -> str:
    local = resolve(dataset)
    references = f"--references {shlex.quote(str(local) if local.exists() else dataset)} --split {split}"
    command = ["promptcblue-metric", "score", shlex.quote(str(output)), references]
    if not all(sample["target"] for sample in samples):
        # Official test targets are not public: the structured form is what can be handed in.
        command[1:2] = ["parse"]
        command.append(f"--output {shlex.quote(str(output.with_name('results.json')))}")
    elif configs:
        command.append("--missing count-wrong")
    return " ".join(command)
