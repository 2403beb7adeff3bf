"""The ``promptcblue-metric`` command."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import run
from .errors import PromptCBLUEError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Score answers to PromptCBLUE, and turn them into structured answers.",
)

PredictionsFile = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS",
        help="JSON Lines: rows with sample_id and prediction, or the official test_predictions.json.",
    ),
]
SplitOption = Annotated[str, typer.Option(help="Split of the references, where they are a dataset.")]


class Missing(str, Enum):
    """What to do with references that have no prediction."""

    stop = "stop"
    count_wrong = "count-wrong"


@app.command(epilog="Example: promptcblue-metric score predictions.jsonl --references promptcblue --split validation")
def score(
    predictions: PredictionsFile,
    references: Annotated[str, typer.Option(help="A JSON Lines file, a dataset folder, or a Hub id.")],
    split: SplitOption = "test",
    missing: Annotated[
        Missing, typer.Option(help="Samples without a prediction: stop, or count them as wrong.")
    ] = Missing.stop,
    json: Annotated[Path | None, typer.Option(help="Write the scores, all digits, to this file.")] = None,
) -> None:
    """Score predictions against references and print the table of tasks, groups and the overall score."""
    from .evaluation import Evaluation
    from .files import write_json
    from .predictions import match, read_predictions, read_references
    from .table import print_scores

    rows = read_predictions(predictions)
    pairs = list(match(rows, read_references(references, split), predictions))
    absent = [sample for sample, prediction in pairs if prediction is None]
    if absent and missing is Missing.stop:
        raise PromptCBLUEError(_missing_message(predictions, absent, len(pairs)))
    evaluation = Evaluation()
    for sample, prediction in pairs:
        evaluation.add(prediction.text if prediction else None, sample)
    result = evaluation.result()
    print_scores(result)
    if absent:
        typer.echo(f"{len(absent)} samples had no prediction and were counted as wrong")
    if json:
        write_json(json, {**result, "missing_predictions": len(absent)})
        typer.echo(f"wrote {json}")


def _missing_message(path: Path, absent: list[Any], total: int) -> str:
    named = ", ".join(f"{sample['sample_id']} of {sample['task_dataset']}" for sample in absent[:5])
    more = ", …" if len(absent) > 5 else ""
    return (
        f"{path}: {len(absent)} of {total} references have no prediction ({named}{more}); "
        "predict them, or pass --missing count-wrong"
    )


@app.command(epilog="Example: promptcblue-metric parse test_predictions.json --output results.json")
def parse(
    predictions: PredictionsFile,
    output: Annotated[Path, typer.Option(help="The official structured form: {task: [{sample_id, answer}]}.")],
    references: Annotated[
        str | None,
        typer.Option(help="Gives task and choices where a row does not: a JSON Lines file, dataset folder or Hub id."),
    ] = None,
    split: SplitOption = "test",
) -> None:
    """Parse predictions into structured answers, exactly as the official post-processor does."""
    from .files import write_json
    from .predictions import read_predictions, read_references
    from .structure import structured_answers

    rows = read_predictions(predictions)
    samples = read_references(references, split) if references else None
    answers, well_formed = structured_answers(rows, samples, predictions)
    write_json(output, answers)
    typer.echo(f"wrote {output}: {len(rows)} answers of {len(answers)} task(s), {well_formed} well-formed")


@app.command(
    epilog="Example: promptcblue-metric install && python -c 'import evaluate; evaluate.load(\"promptcblue\")'"
)
def install() -> None:
    """Put the metric into evaluate's cache, so that evaluate.load("promptcblue") finds it from any folder."""
    from .install import install as install_metric

    typer.echo(f'installed in {install_metric()}; evaluate.load("promptcblue") now works from any folder')


def main() -> None:
    """Entry point of the command."""
    run(app)
