"""Predict a split of the benchmark with a model, one line a sample, going on where an earlier run stopped."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from promptcblue_metric.cli.common import make_console, status_line
from promptcblue_metric.data.predictions import match, provenance
from promptcblue_metric.data.samples import Sample, canonical_split, resolve
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError, require
from promptcblue_metric.evaluation import Evaluation, Parser
from promptcblue_metric.report.report import build_report, check_output
from promptcblue_metric.report.tables import Scores, print_scores, scores_of
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
    times: int = 1,
    say_next: bool = True,
) -> bool:
    """Predict every sample of a split that the output does not hold yet; in a further process, help the first one.

    Args:
        dataset: as for `load_samples`, with some of its tasks in ``configs``; or what was read of it already.
        max_new_tokens: longest answer; by default each task's own (`answer_limits`), or what an untaught model needs.
        shots: demonstrations to show before each prompt; none by default.
        failed_as_empty: write a sample that failed as an empty answer, which is then scored as one.
        times: how often to answer each prompt, into as many files (`outputs`).
        say_next: print the command that scores the predictions.

    Returns:
        Whether at least nine in ten answers are whole: neither empty nor cut at their limit.

    Raises:
        PromptCBLUEError: data, model or settings cannot be used; or, at the end, samples failed.
    """
    if not is_first():
        return _help(backend, times)
    files = outputs(output, times)
    splits = Splits(dataset, configs) if isinstance(dataset, str) else dataset
    samples = splits.chosen(split := canonical_split(split))
    check_unique(samples, f"{splits.source} {split}")
    shown = Demonstrations(shots, splits, split, samples) if shots else None
    engine = load_backend(backend)
    limits = _limits(splits, samples, engine, max_new_tokens)
    settings = {
        "samples": samples_fingerprint(samples),
        "split": split,
        **engine.identity(),
        "max_new_tokens": limits,
        "demonstrations": {**shown.identity(), "style": backend.shot_style} if shown else None,
        "constrained": backend.constrained or None,
        "limit": {"samples": splits.limit, "seed": splits.seed} if splits.limit else None,
    }
    notes = {"dataset": splits.source, "promptcblue": VERSION, **engine.notes()}
    whole = True
    for number, path in enumerate(files, 1):
        numbered = {**settings, "answer": number} if times > 1 else settings
        with PredictionsFile(path, numbered, notes, overwrite=overwrite) as file:
            requests = _requests(samples, limits, shown, file, constrained=backend.constrained)
            tally = _run(engine, requests, samples, limits, file, failed_as_empty=failed_as_empty)
        print(*tally.lines(), *engine.summary(), sep="\n")
        whole &= _conclude(file, len(samples), tally.failed.total(), failed_as_empty=failed_as_empty)
    if say_next:
        print(f"next: {_next_command(splits, split, files[0])}")
    return whole


def _limits(splits: Splits, samples: Sequence[Sample], engine: Backend, asked: int | None) -> dict[str, int]:
    """The longest answer of each task of the samples: the one that was asked for, or the task's own."""
    tasks = dict.fromkeys(sample["task_dataset"] for sample in samples)
    tight = {} if asked else answer_limits(splits, list(tasks), engine)
    return {task: asked or max(tight[task], engine.least_limit(task)) for task in tasks}


def outputs(output: Path, times: int) -> list[Path]:
    """The file of each answer to a prompt: the output itself for one, else ``NAME-1.jsonl`` and so on.

    Raises:
        PromptCBLUEError: one of them is a folder.
    """
    several = [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, times + 1)]
    for path in (paths := [output] if times == 1 else several):
        if path.is_dir():
            raise PromptCBLUEError(f"--output {path} is a folder; name a file, such as {path / 'predictions.jsonl'}")
    return paths


def _help(backend: BackendSettings, times: int) -> bool:
    """Answer with the other processes, the first of which hands out all answers."""
    engine = load_backend(backend)
    for _ in range(times):
        requests: Sequence[Request] = from_first(None)
        for _ in engine.generate(requests) if requests else ():
            raise AssertionError("only the first process hands out answers")
    return True


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
            sample["task_dataset"],
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


def _conclude(file: PredictionsFile, count: int, failed: int, *, failed_as_empty: bool) -> bool:
    """Say what the file holds now; whether most of its answers are whole."""
    if failed and not failed_as_empty:
        raise PromptCBLUEError(
            f"{file.path}: {failed} of {count} samples have no prediction yet; the same command tries them again, "
            "and --failed-as-empty lets those that fail again count as empty answers"
        )
    print(f"wrote {file.path}: {count} predictions" + (f", {failed} of them empty for failing" if failed else ""))
    if file.spoilt <= len(file.done) / 10:
        return True
    warning = (
        f"{file.spoilt} of {len(file.done)} answers are empty or were cut at their limit, and are no fair picture of "
        "the model: raise --max-new-tokens, or try another --thinking or --decoding"
    )
    make_console().print(warning, style="bold red", highlight=False, soft_wrap=True)
    return False


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
    limits: Mapping[str, int],
    file: PredictionsFile,
    *,
    failed_as_empty: bool,
) -> Tally:
    """Answer the requests, each on disk before the next is looked at; what was made."""
    tally = Tally(Counter(samples[request.index]["task_dataset"] for request in requests), limits)
    from_first(requests)
    try:
        with tally.shown() as update:
            for result in engine.generate(requests) if requests else ():
                sample = samples[result.index]
                file.append(sample, _row(result, failed_as_empty=failed_as_empty))
                tally.add(sample["task_dataset"], result)
                update()
    except KeyboardInterrupt:
        print(f"{file.path} holds {len(file.done)} of {len(samples)} predictions: the same command goes on from there")
        raise
    return tally


def _row(result: Completion | Failure, *, failed_as_empty: bool) -> dict[str, object]:
    """What a line says beside the sample's names; without a prediction, the sample counts as not predicted."""
    if isinstance(result, Failure):
        return {**({"prediction": ""} if failed_as_empty else {}), "error": result.reason}
    said = ("finish_reason", "prompt_tokens", "new_tokens", "thought", "thought_tokens", "model")
    values = {name: getattr(result, name) for name in said}
    return {"prediction": result.text, **{name: value for name, value in values.items() if value or name in said[:3]}}


def _next_command(dataset: Splits, split: str, output: Path) -> str:
    if dataset.limit is not None:
        return f"promptcblue-train evaluate, with the same options, scores these {dataset.limit} samples"
    local = resolve(dataset.source)
    references = f"--references {shlex.quote(str(local) if local.exists() else dataset.source)} --split {split}"
    command = ["promptcblue-metric", "score", shlex.quote(str(output)), references]
    if not all(sample["target"] for sample in dataset.chosen(split)):
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
        require("jinja2")
        check_output(report)
    samples = dataset.chosen(split)
    if hidden := sum(not sample["target"] for sample in samples):
        raise PromptCBLUEError(
            f"{hidden} of {len(samples)} samples of the {split} split of {dataset.source} have no target to score "
            "against (official test targets are not public); evaluate another split, or predict this one and hand it in"
        )


def score(
    predictions: Sequence[Path],
    dataset: Splits,
    split: str,
    *,
    report: Path | None,
    json: Path | None,
    protocol: Protocol,
    parser: Parser,
    resamples: int,
) -> None:
    """Print the scores of predictions files; write them, and a report of the first, where asked.

    Args:
        predictions: files that `predict` completed, each with one answer to every prompt.
        dataset: what they predicted, with ``split``.
        report: folder of the report.
        json: file of the scores: those of one file, or their mean and spread.
        resamples: behind the intervals; 0 leaves them out.
    """
    results: list[Scores] = []
    for path in predictions:
        evaluation = Evaluation(parser=parser)
        scored = [
            evaluation.add(prediction.text if prediction else None, sample)
            for sample, prediction in match(path, dataset.chosen(split))
        ]
        scores = scores_of(
            evaluation, scored, protocol, provenance(path, dataset.source, split), intervals=bool(resamples)
        )
        results.append(scores)
        print_scores({str(path): scores})
        if report and len(results) == 1:
            from promptcblue_metric.report.page import write_report

            origin = scores["provenance"]
            with status_line() as progress:
                values = build_report(scored, protocol, parser, resamples=resamples, origin=origin, progress=progress)
                write_report(values, report)
            print(f"wrote {report / 'index.html'}, report.md and report.json")
    spread = _spread(results)
    if len(results) > 1:
        print(f"mean and standard deviation over {len(results)} answers to each prompt:")
        for name, (mean, deviation) in spread.items():
            print(f"  {name}: {100 * mean:.2f} ± {100 * deviation:.2f}")
    if json:
        write_json(json, results[0] if len(results) == 1 else {"answers": results, "mean_and_deviation": spread})
        print(f"wrote {json}")


def _spread(results: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each task's score, and of the overall one."""
    values = {"overall": [result["overall"] for result in results]}
    values |= {task: [result["tasks"][task]["score"] for result in results] for task in results[0]["tasks"]}
    return {name: (fmean(each), stdev(each) if len(each) > 1 else 0.0) for name, each in values.items()}
