"""The ``promptcblue-metric`` command."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import PromptCBLUEError, require
from ..evaluation import Evaluation
from ..hub.client import DEFAULT_TAG, DryRunOption, PrivateOption, RepoOption, TagOption, publish_or_write
from ..tasks import SUITES
from .common import JsonOption, ParserOption, ProtocolOption, ResamplesOption, check_outputs, make_app, run, status_line

if TYPE_CHECKING:
    from ..data.samples import Sample
    from ..evaluation import ScoredSample
    from ..report.tables import Scores

app = make_app("Score answers to PromptCBLUE, and turn them into structured answers.")

PredictionsFile = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS",
        help="Rows with sample_id and prediction (JSON Lines or an array), the official test_predictions.json, or what "
        "LLaMA-Factory, lm-evaluation-harness, OpenCompass or evalscope write.",
    ),
]
SplitOption = Annotated[str, typer.Option(help="Split of the references, where they are a dataset.")]
ReferencesOption = Annotated[
    str,
    typer.Option(
        "--references",
        help="A file (JSON Lines, an array, Parquet), a folder (official files or a dataset), the word sample, or a "
        "Hub id.",
    ),
]
AllowGoldOption = Annotated[
    bool, typer.Option("--allow-gold", help="Score the references' own targets, where they are handed in.")
]

FormatOption = Annotated[
    Literal["table", "json", "csv", "latex", "markdown"], typer.Option(help="How the scores are printed.")
]
#: What to do with references that have no prediction.
Missing = Literal["stop", "count-wrong"]
MissingOption = Annotated[Missing, typer.Option(help="Samples without a prediction: stop, or count them as wrong.")]
ConfigOption = Annotated[
    list[str] | None, typer.Option(help="A task to score, the others left out; repeat it for several.")
]


def _scored_samples(
    evaluation: Evaluation,
    predictions: Path,
    references: str,
    split: str,
    missing: Missing,
    configs: Sequence[str] | None,
    *,
    allow_gold: bool,
) -> Iterator[ScoredSample]:
    """Score the samples one by one; missing predictions that have to stop the run do so at the end, all counted."""
    from ..data.predictions import match
    from ..data.samples import iter_samples

    absent: list[Sample] = []
    samples = iter_samples(references, split, configs)
    for sample, prediction in match(predictions, samples, configs=configs, allow_gold=allow_gold):
        if prediction is None:
            absent.append(sample)
        yield evaluation.add(prediction.text if prediction else None, sample)
    if absent and missing == "stop":
        named = ", ".join(f"{sample['sample_id']} of {sample['task_dataset']}" for sample in absent[:5])
        raise PromptCBLUEError(
            f"{predictions}: {len(absent)} of {evaluation.samples} references have no prediction "
            f"({named}{', …' if len(absent) > 5 else ''}); predict them, or pass --missing count-wrong"
        )


@app.command(epilog="Example: promptcblue-metric score predictions.jsonl --references promptcblue --split validation")
def score(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS...", help="JSON Lines; several runs make one table.")
    ],
    references: ReferencesOption,
    split: SplitOption = "test",
    config: ConfigOption = None,
    protocol: ProtocolOption = "official",
    parser: ParserOption = "strict",
    missing: MissingOption = "stop",
    resamples: ResamplesOption = 0,
    format: FormatOption = "table",
    allow_gold: AllowGoldOption = False,
    json: JsonOption = None,
) -> None:
    """Score predictions by task, by group and overall."""
    from ..data.predictions import provenance
    from ..data.writing import as_json, write_json
    from ..report.tables import FORMATS, print_scores, runs_table, scores_of

    names = [str(path) for path in predictions]
    if len(names) > 1:
        from ..compare.runs import run_names

        names = run_names(predictions)
    scores: dict[str, Scores] = {}
    for name, path in zip(names, predictions, strict=True):
        evaluation = Evaluation(parser=parser)
        samples = _scored_samples(evaluation, path, references, split, missing, config, allow_gold=allow_gold)
        origin = provenance(path, references, split)
        scores[name] = scores_of(evaluation, samples, protocol, origin, intervals=bool(resamples))
    written = scores if len(names) > 1 else scores[names[0]]
    # What a program reads stands alone on stdout.
    said = sys.stdout if format == "table" else sys.stderr
    if format == "table":
        print_scores(scores, chosen=bool(config))
    elif format == "json":
        print(as_json(written), end="")
    else:
        print(FORMATS[format](runs_table(scores)))
    for name, found in scores.items():
        if absent := found["missing_predictions"]:
            of_run = f"{name}: " if len(names) > 1 else ""
            print(f"{of_run}{absent} samples had no prediction and were counted as wrong", file=said)
    if json:
        write_json(json, written)
        print(f"wrote {json}", file=said)


@app.command(epilog="Example: promptcblue-metric parse test_predictions.json --output results.json")
def parse(
    predictions: PredictionsFile,
    output: Annotated[Path, typer.Option(help="The official structured form: {task: [{sample_id, answer}]}.")],
    references: Annotated[
        str | None,
        typer.Option(help="Gives task and choices where a row does not: a JSON Lines file, a folder, or a Hub id."),
    ] = None,
    split: SplitOption = "test",
    parser: ParserOption = "strict",
) -> None:
    """Turn predictions into structured answers.

    The strict parser is exactly the official post-processor.
    """
    from ..data.predictions import structured_answers
    from ..data.samples import iter_samples
    from ..data.writing import write_json

    samples = iter_samples(references, split) if references else None
    answers, well_formed = structured_answers(predictions, samples, parser)
    write_json(output, answers)
    total = sum(map(len, answers.values()))
    print(f"wrote {output}: {total} answers of {len(answers)} task(s), {well_formed} well-formed")


@app.command(
    epilog="Example: promptcblue-metric submit predictions.jsonl --test test.json --output test_predictions.zip"
)
def submit(
    predictions: PredictionsFile,
    test: Annotated[Path, typer.Option(help="The official test file, as it was downloaded.")],
    output: Annotated[Path, typer.Option(help="The archive to hand in; the leaderboard wants this name.")] = Path(
        "test_predictions.zip"
    ),
    parser: ParserOption = "strict",
) -> None:
    """Write the archive to hand in to the leaderboard.

    The predictions are checked against every rule of it first.
    """
    from ..submit.leaderboard import describe, write_submission

    describe(write_submission(predictions, test, output, parser), parser)


@app.command(
    epilog="Example: promptcblue-metric cblue predictions.jsonl --test prompts.jsonl --raw CBLUEDatasets --output cblue"
)
def cblue(
    predictions: PredictionsFile,
    test: Annotated[
        Path, typer.Option(help="The prompts, made of CBLUE's test files: JSON Lines, or a dataset folder.")
    ],
    raw: Annotated[Path, typer.Option(help="Folder of CBLUE's own test files, as they were downloaded.")],
    output: Annotated[Path, typer.Option(help="New folder for the files to hand in.")],
    parser: ParserOption = "strict",
    unreadable: Annotated[
        Literal["stop", "first-label"], typer.Option(help="Outputs without a raw label: stop, or write the first one.")
    ] = "stop",
) -> None:
    """Write the files of CBLUE's own submission.

    They are its raw test files with the answers in them: entities and their offsets, triples, events, terms, labels,
    tags, reports and replies. The ids of prompts lead to raw records, or the texts in the prompts do.
    """
    from ..submit.cblue import CBLUE_TASKS, records_said, write_cblue

    tasks = write_cblue(predictions, str(test), raw, output, parser, unreadable)
    for name, written in tasks.items():
        what = f"{records_said(written.records)} in {output / written.file}" if written.file else "nothing"
        print("; ".join([f"{name}: {what}", *written.notes]))
    made = [written.file for written in tasks.values() if written.file]
    print(f"checked as CBLUE's own checkers do: {', '.join(made)}")
    if missing := [name for name in CBLUE_TASKS if name not in tasks or not tasks[name].file]:
        print(f"missing, of CBLUE's {len(CBLUE_TASKS)} tasks: {', '.join(missing)}")
    print(f"next: zip the files in {output} and hand them in to CBLUE")
    if failed := [name for name, written in tasks.items() if written.failed]:
        raise PromptCBLUEError(f"not written, for the reasons above: {', '.join(failed)}; the other tasks are")


@app.command(epilog="Example: promptcblue-metric cblue-check cblue/CMeEE-V2_test.json --raw CBLUEDatasets")
def cblue_check(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Files of a submission to CBLUE.")],
    raw: Annotated[Path, typer.Option(help="Folder of CBLUE's own test files, as they were downloaded.")],
) -> None:
    """Check the format of files for CBLUE's own submission."""
    from ..submit.cblue import check_file, records_said

    problems = []
    for path in files:
        try:
            print(f"{path}: {records_said(check_file(path, raw))}, well-formed")
        except PromptCBLUEError as error:
            problems.append(str(error))
    if problems:
        raise PromptCBLUEError("\n".join(problems))


@app.command(epilog="Example: promptcblue-metric compare base.jsonl tuned.jsonl --references promptcblue --split test")
def compare(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS...", help="Two or more runs; the first is the baseline.")
    ],
    references: ReferencesOption,
    split: SplitOption = "test",
    protocol: ProtocolOption = "official",
    parser: ParserOption = "strict",
    common_only: Annotated[
        bool, typer.Option("--common-only", help="Compare the samples all runs have, where they differ.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Set the runs beside the published results; one run is enough.")
    ] = False,
    resamples: Annotated[int, typer.Option(metavar="N", help="Resamples of each test.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    allow_gold: AllowGoldOption = False,
    json: JsonOption = None,
) -> None:
    """Say which differences between runs are established.

    By paired intervals and approximate randomisation.
    """
    from ..compare import runs
    from ..data.predictions import provenance
    from ..data.samples import load_samples
    from ..data.writing import write_json
    from ..report.report import evaluated

    if len(predictions) < 2 and not published:
        raise PromptCBLUEError("expected two or more runs to compare, or --published")
    rows = load_samples(references, split)
    scored = {
        name: runs.scored_run(path, rows, parser, allow_gold=allow_gold)
        for name, path in zip(runs.run_names(predictions), predictions, strict=True)
    }
    samples = runs.common_samples(scored, common_only=common_only)
    results = {name: evaluated(found, parser).result(protocol) for name, found in samples.items()}
    comparisons = runs.compare_runs(samples, protocol, resamples, seed)
    runs.print_comparisons(comparisons, results, len(rows))
    origins = [provenance(path, references, split) for path in predictions]
    if published:
        runs.print_published(results, origins[0]["split"])
    if json:
        compared = [comparison.as_json() for comparison in comparisons]
        write_json(json, {"results": results, "provenance": origins, "comparisons": compared})
        print(f"wrote {json}")


@app.command(
    epilog="Example: promptcblue-metric report predictions.jsonl --references promptcblue --split validation "
    "--output report/"
)
def report(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS...", help="JSON Lines; a second run is set beside the first.")
    ],
    references: ReferencesOption,
    output: Annotated[Path, typer.Option(help="Folder for index.html, report.md and report.json.")],
    split: SplitOption = "test",
    config: ConfigOption = None,
    protocol: ProtocolOption = "official",
    parser: ParserOption = "strict",
    missing: MissingOption = "stop",
    resamples: ResamplesOption = 1000,
    allow_gold: AllowGoldOption = False,
) -> None:
    """Write a report of scores, errors and samples.

    Scores have intervals; errors are counted by kind in every task; samples are there to look at.
    """
    from ..compare.runs import run_names
    from ..data.predictions import provenance
    from ..report.report import FILES, beside, build_report, check_output
    from ..report.tables import headline, number, overall_title

    require("jinja2")
    check_outputs(*(output / name for name in FILES), inputs=[*predictions, references])
    from ..report.page import write_report

    if len(predictions) > 2:
        raise PromptCBLUEError(f"expected one run, or two to set beside each other, found {len(predictions)}")
    names = run_names(predictions)
    check_output(output)
    with status_line() as progress:
        progress("scores")
        runs = []
        for path in predictions:
            evaluation = Evaluation(parser=parser)
            samples = _scored_samples(evaluation, path, references, split, missing, config, allow_gold=allow_gold)
            runs.append(list(samples))
        values = build_report(
            runs[0],
            protocol,
            parser,
            resamples=resamples,
            origin=provenance(predictions[0], references, split),
            progress=progress,
        )
        if len(runs) > 1:
            values["other"] = beside(names, runs[0], runs[1], protocol, parser)
        write_report(values, output)
    title = overall_title(values["tasks"])
    scores = ", ".join(f"{run + ': ' * bool(run)}{title} {number(score)}" for run, score in headline(values))
    print(f"wrote {output / 'index.html'}, report.md and report.json: {scores}")


@app.command(
    epilog="Example: promptcblue-metric harness lm-eval --dataset promptcblue --split validation --output lm-eval"
)
def harness(
    tool: Annotated[
        Literal["lm-eval", "opencompass", "evalscope", "inspect", "lighteval"], typer.Argument(help="The tool.")
    ],
    dataset: Annotated[str, typer.Option(help="A folder, a file, the word sample, or a Hub id.")],
    output: Annotated[Path, typer.Option(help="New folder for the files that the tool reads.")],
    split: SplitOption = "test",
    suite: Annotated[str | None, typer.Option(help="Of which suite, where the dataset holds several.")] = None,
    shots: Annotated[
        str, typer.Option(metavar="N|paper", help="Demonstrations before each prompt (lm-eval), or the paper's counts.")
    ] = "0",
    protocol: ProtocolOption = "official",
    parser: ParserOption = "strict",
) -> None:
    """Write what another evaluation tool needs to run the benchmark.

    Its numbers are those of `promptcblue-metric score`.
    """
    from ..harness import plan, with_shots, write

    job = with_shots(plan(dataset, split, suite, protocol, parser), tool, shots)
    command = write(tool, job, output)
    print(f"wrote {output}: {len(job.tasks)} tasks of {job.suite}, split {job.split}")
    if absent := [name for name in SUITES[job.suite].tasks if name not in job.tasks]:
        print(f"left out, for want of samples: {', '.join(absent)}")
    print("MODEL stands for a model's name or folder in the command of the tool")
    print(f"next: {command}")


@app.command(
    epilog="Example: promptcblue-metric install && python -c 'import evaluate; evaluate.load(\"promptcblue\")'"
)
def install() -> None:
    """Make evaluate.load("promptcblue") work from any folder.

    The metric is put into evaluate's cache.
    """
    from ..hub.space import install as install_metric

    print(f'installed in {install_metric()}; evaluate.load("promptcblue") now works from any folder')


@app.command(epilog="Example: promptcblue-metric publish --repo ORG/promptcblue")
def publish(
    repo: RepoOption,
    private: PrivateOption = False,
    dry_run: DryRunOption = None,
    tag: TagOption = DEFAULT_TAG,
) -> None:
    """Publish the metric as a Space on the Hub.

    Its modules go there as they are here, and it is safe to repeat.

    One commit holds all that has changed; where nothing has, there is none. The log-in is that of `hf auth login`.
    """
    from ..hub.space import publication

    publish_or_write(publication(repo), repo, private=private, tag=tag, dry_run=dry_run)


def main() -> None:
    """Entry point of the command."""
    run(app)
