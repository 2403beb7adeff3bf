"""Score the predictions of a run, as ``promptcblue-metric score`` and ``report`` do, over the samples it predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from promptcblue_dataset.source import load_samples
from promptcblue_metric.compare.significance import counts_by_task, intervals
from promptcblue_metric.data.predictions import match
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Evaluation
from promptcblue_metric.parsing import Parser
from promptcblue_metric.report.report import build_report, check_output, require_libraries, show_progress, write_report
from promptcblue_metric.report.tables import print_scores
from promptcblue_metric.scoring import Protocol


def check_can_score(dataset: str, split: str, configs: Sequence[str] | None, report: Path | None) -> None:
    """Refuse, before anything is predicted, what could not be scored or reported afterwards.

    Raises:
        PromptCBLUEError: samples have no target, the report's libraries are missing, or its folder is another thing's.
    """
    if report:
        require_libraries()
        check_output(report)
    samples = load_samples(dataset, split, configs)
    if hidden := sum(not sample["target"] for sample in samples):
        raise PromptCBLUEError(
            f"{hidden} of {len(samples)} samples of the {split} split of {dataset} have no target to score against "
            "(official test targets are not public); evaluate another split, or predict this one and hand it in"
        )


def score(
    predictions: Path,
    dataset: str,
    split: str,
    configs: Sequence[str] | None,
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
        dataset: what it predicted, with ``split`` and ``configs``.
        report: folder of the report.
        json: file of the scores.
        resamples: behind the intervals; 0 leaves them out.
    """
    evaluation = Evaluation(parser=parser)
    scored = [
        evaluation.add(prediction.text if prediction else None, sample)
        for sample, prediction in match(predictions, load_samples(dataset, split, configs))
    ]
    result = evaluation.result(protocol)
    between = intervals(counts_by_task(scored), protocol, resamples, 0) if resamples else None
    print_scores(result, between)
    if json:
        absent = sum(sample.prediction is None for sample in scored)
        write_json(json, {**result, "missing_predictions": absent, "intervals": between})
        print(f"wrote {json}")
    if report:
        with show_progress() as progress:
            values = build_report(
                scored,
                protocol,
                parser,
                resamples=resamples,
                predictions=str(predictions),
                references=f"{dataset} ({split})",
                progress=progress,
            )
            write_report(values, report, progress)
        print(f"wrote {report / 'index.html'}, report.md and report.json")
