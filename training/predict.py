"""Predict a split of the benchmark with a model, one line a sample, going on where an earlier run stopped."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptcblue_metric.cli.common import status_line
from promptcblue_metric.compare.significance import counts_by_task, intervals
from promptcblue_metric.data.predictions import match
from promptcblue_metric.data.samples import Sample, canonical_split, resolve
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Evaluation, Parser
from promptcblue_metric.report.report import build_report, check_output, require_libraries
from promptcblue_metric.report.tables import print_scores
from promptcblue_metric.scoring import Protocol
from promptcblue_metric.version import VERSION

from .backends import Backend, BackendSettings, Completion, Failure, Request, load_backend
from .constrained import choices_of
from .data import Splits
from .output import PredictionsFile, Tally, check_unique, sample_key
from .processes import from_first, is_first
from .run import samples_fingerprint
from .shots import Demonstrations, ShotSettings

#: Longest answer where nothing says how long a task's answers are; the paper's longest are reports of a few hundred.
DEFAULT_NEW_TOKENS = 512
#: How much longer than the longest known target an answer may be.
_SLACK = 1.25


def predict(
    dataset: str | Splits,
    split: str,
    output: Path,
    backend: BackendSettings,
    configs: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    *,
    shots: ShotSettings | None = None,
    failed_as_empty: bool = False,
    overwrite: bool = False,
) -> None:
    """Predict every sample of a split that the output does not hold yet.

    In a process that is not the first of several, help the first one.

    Args:
        dataset: as for `load_samples`, or what was read of it already.
        configs: tasks to predict; every one by default.
        max_new_tokens: longest answer; by default each task's own (`answer_limits`), or what a model needs that has not
            learnt how long the targets are.
        shots: demonstrations to show before each prompt; none by default.
        failed_as_empty: write a sample that failed as an empty answer, which is then scored as one.
        overwrite: begin an empty output.

    Raises:
        PromptCBLUEError: data, model or settings cannot be used, or the output is of another run; or, at the end,
            samples failed, and were not to count as empty.
    """
    if not is_first():
        return _help(backend)
    splits, split = Splits(dataset, configs) if isinstance(dataset, str) else dataset, canonical_split(split)
    samples = splits.samples(split)
    check_unique(samples, f"{splits.source} {split}")
    shown = Demonstrations(shots, splits, split, samples) if shots else None
    engine = load_backend(backend)
    tasks = list(dict.fromkeys(sample["task_dataset"] for sample in samples))
    tight = {} if max_new_tokens else answer_limits(splits, tasks, engine)
    limits = {task: max_new_tokens or max(tight[task], engine.least_limit(task)) for task in tasks}
    settings = {
        "samples": samples_fingerprint(samples),
        "split": split,
        **engine.identity(),
        "max_new_tokens": limits,
        "demonstrations": {**shown.identity(), "style": backend.shot_style} if shown else None,
        "constrained": backend.constrained or None,
    }
    notes = {"dataset": splits.source, "promptcblue": VERSION, **engine.notes()}
    with PredictionsFile(output, settings, notes, overwrite=overwrite) as file:
        requests = _requests(samples, limits, shown, file, constrained=backend.constrained)
        tally = Tally(Counter(samples[request.index]["task_dataset"] for request in requests), limits)
        _run(engine, from_first(requests), samples, file, tally, failed_as_empty=failed_as_empty)
    for line in (*tally.lines(), *engine.summary()):
        print(line)
    _conclude(output, len(samples), tally.failed.total(), failed_as_empty=failed_as_empty)
    print(f"next: {_next_command(splits, split, output)}")
    return None


def _help(backend: BackendSettings) -> None:
    """Answer with the other processes, the first of which hands out all answers."""
    requests: Sequence[Request] = from_first(None)
    for _ in load_backend(backend).generate(requests) if requests else ():
        raise AssertionError("only the first process hands out answers")


def _requests(
    samples: Sequence[Sample],
    limits: Mapping[str, int],
    shown: Demonstrations | None,
    file: PredictionsFile,
    *,
    constrained: bool,
) -> list[Request]:
    """What is left to ask, said to the user where that is not all."""
    requests = [
        Request(
            index,
            sample["input"],
            limits[sample["task_dataset"]],
            shown.of(sample) if shown else (),
            choices_of(sample) if constrained else None,
        )
        for index, sample in enumerate(samples)
        if sample_key(sample) not in file.done
    ]
    if shown and shown.held_out:
        print(f"{shown.held_out} train samples are also held out, and were not used as demonstrations")
    if len(requests) < len(samples) or file.retried:
        again = f" ({file.retried} failed and are tried again)" if file.retried else ""
        print(f"{file.path} holds {len(file.done)} of {len(samples)} predictions: going on from there{again}")
    return requests


def _conclude(output: Path, count: int, failed: int, *, failed_as_empty: bool) -> None:
    if failed and not failed_as_empty:
        raise PromptCBLUEError(
            f"{output}: {failed} of {count} samples have no prediction yet; the same command tries them again, "
            "and --failed-as-empty lets those that fail again count as empty answers"
        )
    print(f"wrote {output}: {count} predictions" + (f", {failed} of them empty for failing" if failed else ""))


def answer_limits(dataset: Splits, tasks: Sequence[str], engine: Backend) -> dict[str, int]:
    """The longest answer to allow for each task, in tokens.

    A quarter more than the longest target of the task in the train and validation splits, rounded up to a power of
    two so that tasks share batches; `DEFAULT_NEW_TOKENS` for a task without targets there.
    """
    longest: Counter[str] = Counter()
    for known in ("train", "validation"):
        targets = [(sample["task_dataset"], sample["target"]) for sample in dataset.if_any(known) if sample["target"]]
        for (task, _), count in zip(targets, engine.count_tokens([target for _, target in targets]), strict=True):
            longest[task] = max(longest[task], count)
    return {
        task: 1 << int(longest[task] * _SLACK).bit_length() if longest[task] else DEFAULT_NEW_TOKENS for task in tasks
    }


def _run(
    engine: Backend,
    requests: Sequence[Request],
    samples: Sequence[Sample],
    file: PredictionsFile,
    tally: Tally,
    *,
    failed_as_empty: bool,
) -> None:
    """Answer the requests, each on disk before the next is looked at."""
    if not requests:
        return
    with tally.shown() as update:
        for result in engine.generate(requests):
            sample = samples[result.index]
            file.append(sample, _row(result, failed_as_empty=failed_as_empty))
            tally.add(sample["task_dataset"], result)
            update()


def _row(result: Completion | Failure, *, failed_as_empty: bool) -> dict[str, Any]:
    """What a line says beside the sample's names; without a prediction, the sample counts as not predicted."""
    if isinstance(result, Failure):
        return {**({"prediction": ""} if failed_as_empty else {}), "error": result.reason}
    more = {"thought": result.thought, "thought_tokens": result.thought_tokens, "model": result.model}
    return {
        "prediction": result.text,
        "finish_reason": result.finish_reason,
        "prompt_tokens": result.prompt_tokens,
        "new_tokens": result.new_tokens,
        **{name: value for name, value in more.items() if value},
    }


def _next_command(dataset: Splits, split: str, output: Path) -> str:
    local = resolve(dataset.source)
    references = f"--references {shlex.quote(str(local) if local.exists() else dataset.source)} --split {split}"
    command = ["promptcblue-metric", "score", shlex.quote(str(output)), references]
    if not all(sample["target"] for sample in dataset.samples(split)):
        # Official test targets are not public: the structured form is what can be handed in.
        command[1:2] = ["parse"]
        command.append(f"--output {shlex.quote(str(output.with_name('results.json')))}")
    else:
        command += [f"--config {name}" for name in dataset.tasks or ()]
    return " ".join(command)


def check_can_score(dataset: Splits, split: str, report: Path | None) -> None:
    """Refuse, before anything is predicted, what could not be scored or reported afterwards.

    Raises:
        PromptCBLUEError: samples have no target, the report's libraries are missing, or its folder is another thing's.
    """
    if report:
        require_libraries()
        check_output(report)
    samples = dataset.samples(split)
    if hidden := sum(not sample["target"] for sample in samples):
        raise PromptCBLUEError(
            f"{hidden} of {len(samples)} samples of the {split} split of {dataset.source} have no target to score "
            "against (official test targets are not public); evaluate another split, or predict this one and hand it in"
        )


def score(
    predictions: Path,
    dataset: Splits,
    split: str,
    *,
    report: Path | None,
    json: Path | None,
    protocol: Protocol,
    parser: Parser,
    resamples: int,
) -> None:
    """Print the scores of a predictions file; write them, and a report, where asked.

    Args:
        predictions: a file that `predict` completed.
        dataset: what it predicted, with ``split``.
        report: folder of the report.
        json: file of the scores.
        resamples: behind the intervals; 0 leaves them out.
    """
    evaluation = Evaluation(parser=parser)
    scored = [
        evaluation.add(prediction.text if prediction else None, sample)
        for sample, prediction in match(predictions, dataset.samples(split))
    ]
    result = evaluation.result(protocol)
    between = intervals(counts_by_task(scored), protocol) if resamples else None
    print_scores(result, between)
    if json:
        absent = sum(sample.prediction is None for sample in scored)
        write_json(json, {**result, "missing_predictions": absent, "intervals": between})
        print(f"wrote {json}")
    if report:
        from promptcblue_metric.report.page import write_report

        with status_line() as progress:
            values = build_report(
                scored,
                protocol,
                parser,
                resamples=resamples,
                predictions=str(predictions),
                references=f"{dataset.source} ({split})",
                progress=progress,
            )
            write_report(values, report)
        print(f"wrote {report / 'index.html'}, report.md and report.json")
