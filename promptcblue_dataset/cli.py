"""The ``promptcblue-dataset`` command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from promptcblue_dataset.export import export
from promptcblue_dataset.options import OverwriteOption, PoolOption, SamplesArgument, TasksOption, task_names
from promptcblue_dataset.prompts.pool import check_pool, load_pool
from promptcblue_dataset.prompts.render import Style, preview
from promptcblue_dataset.prompts.rephrase import accept, read_answers, write_requests
from promptcblue_dataset.review import draw_sheet, tally
from promptcblue_dataset.statistics import notes, statistics, tables, write_into_card
from promptcblue_metric.cli.common import make_app, make_table, progress_bars, run, show, show_lines
from promptcblue_metric.data.samples import ALL, LISTED, SAMPLE, SPLITS
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError, require
from promptcblue_metric.hub.client import (
    DEFAULT_TAG,
    DryRunOption,
    PrivateOption,
    RepoOption,
    TagOption,
    check_names,
    publish_or_write,
)
from promptcblue_metric.tasks import REGISTRY, SUITES, TASKS, get_task, suite_of

if TYPE_CHECKING:
    from rich.table import Table

    from promptcblue_dataset.build import Built, Imported, Made
    from promptcblue_dataset.making import Plan

app = make_app("Make the PromptCBLUE dataset from its files.")
templates_app = make_app("Look at, check and extend the pool of prompt templates.", part=True)
review_app = make_app("Have samples examined by annotators, and count what they find.", part=True)
app.add_typer(templates_app, name="templates")
app.add_typer(review_app, name="review")


#: What to do with rows or raw records that cannot be used.
OnError: TypeAlias = Literal["stop", "skip"]
#: How targets are written, and whom samples follow where the paper and the released ones differ.
Dialect: TypeAlias = Literal["released", "paper"]
Profile: TypeAlias = Literal["paper", "released"]

ExplainLabels = Annotated[bool, typer.Option("--explain-labels", help="Say what each offered label means.")]
FormatSpec = Annotated[bool, typer.Option("--format-spec", help="Say how the answer has to be written.")]
StepByStep = Annotated[bool, typer.Option("--step-by-step", help="Ask to work step by step.")]
Cache = Annotated[
    bool | None,
    typer.Option(
        "--prime/--no-cache",
        help="Make load_dataset of the suite's name give this in any folder, or leave that alone; by default a full "
        "set does, and a part of the tasks does not.",
        show_default=False,
    ),
]
Use = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Raw file, folder or archive to take where several hold one corpus; repeatable."),
]
MaxUnpacked = Annotated[
    float, typer.Option(metavar="GIB", help="The most that raw archives may unpack to, all together, in GiB.")
]


# --- import and build ---


@app.command("import", epilog="Example: promptcblue-dataset import downloads/PromptCBLUE --output promptcblue")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Folder with train, dev and test (.json or .jsonl, .gz or not), the word `sample` for the small data "
            "that come with the package, or with --suite the folder of that suite's raw corpora.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder to write, by default named for the suite; it can be uploaded to the Hub as it is."),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            metavar="SUITE",
            help="promptcblue: files in the official form. chineseblue, promptcblue-chip2023: its raw corpora, "
            "or the word `sample` for what comes with the package.",
        ),
    ] = "promptcblue",
    on_error: Annotated[
        OnError | None,
        typer.Option(
            help="Bad rows: stop and write nothing (the default), or skip and list them in the report (the default for "
            "raw corpora, whose flaws are known)."
        ),
    ] = None,
    use: Use = None,
    max_unpacked: MaxUnpacked = 8,
    overwrite: OverwriteOption = False,
    cache: Cache = None,
) -> None:
    """Check official files, or read raw ChineseBLUE, and write a dataset: Parquet by config and split, and a card."""
    from promptcblue_dataset.build import import_files
    from promptcblue_dataset.making import Plan

    if suite not in SUITES:
        raise PromptCBLUEError(f"unknown suite '{suite}'; the suites are {', '.join(SUITES)}")
    output = output or Path(suite)
    if source == SAMPLE and suite != "promptcblue":
        source = f"{SAMPLE}:{suite}"
    elif suite != "promptcblue":
        sizes, skip = dict.fromkeys(SUITES[suite].tasks), on_error != "stop"
        plan = Plan(sizes, skip_bad=skip, use=use or (), max_bytes=int(max_unpacked * (1 << 30)))
        _build(Path(source), output, plan, overwrite=overwrite, cache=cache)
        return
    with progress_bars() as on_progress:
        skip = on_error == "skip"
        imported = import_files(
            source, output, skip_bad=skip, overwrite=overwrite, cache=cache, on_progress=on_progress
        )
    show(_imported_table(imported), _imported_notes(imported))


def _imported_table(imported: Imported) -> Table:
    """Samples of each config by split, and how many flaws their targets have."""
    columns = (*SPLITS, "warnings")
    counts = {config: Counter(splits) for config, splits in imported.counts().items()}
    for (config, _), count in imported.checked.warnings.items():
        counts[config]["warnings"] += count
    shown = make_table("config", *columns)
    for config, found in [*counts.items(), (ALL, sum(counts.values(), Counter[str]()))]:
        if config == ALL:
            shown.add_section()
        cells = (f"{found[column]:,}" if found[column] else "–" for column in columns)
        shown.add_row(config, *cells, style="bold" if config == ALL else None)
    return shown


def _imported_notes(imported: Imported) -> Iterator[str]:
    """What else there is to know, a line each, and the call to type next."""
    checked = imported.checked
    if imported.missing_splits:
        yield f"no samples, and so no split: {', '.join(imported.missing_splits)}"
    if imported.missing:
        yield f"no samples, and so no config, of: {', '.join(imported.missing)}"
    if bad := checked.bad:
        yield f"skipped {len(bad):,} bad rows of {checked.rows:,}; the report lists them, the first is {bad[0]}"
    kinds: Counter[str] = Counter()
    for (_, kind), count in checked.warnings.items():
        kinds[kind] += count
    if kinds:
        listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        yield f"targets kept though not quite in the dialect: {listed}"
    yield from _next(imported, list(checked.samples))


def _next(done: Made, configs: Sequence[str]) -> Iterator[str]:
    yield f"wrote {done.output} and {done.report}"
    suite = suite_of(configs).name
    name = suite if done.cached else done.output.name
    where = "in any folder" if done.cached else f"from {done.output.absolute().parent}"
    yield f'load_dataset("{name}", "{configs[0]}") now works {where}'
    if done.replaced:
        yield f'load_dataset("{suite}") elsewhere gave until now: {done.replaced}'
    if done.cached is None:
        yield f'load_dataset("{suite}") is elsewhere what it was: this is no full set; --prime makes it give this'


@app.command("build", epilog="Example: promptcblue-dataset build CBLUE --output promptcblue --seed 0")
def build_(
    raw: Annotated[Path, typer.Argument(metavar="RAW", help="Folder (or zip) with the raw CBLUE corpora.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it can go to the Hub as it is.")] = Path("promptcblue"),
    tasks: TasksOption = None,
    templates: PoolOption = None,
    sizes: Annotated[
        str, typer.Option(help="Rows a task: `paper` (Table 8), N, TRAIN,DEV,TEST, or a JSON file of task to these.")
    ] = "paper",
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    profile: Annotated[Profile, typer.Option(help="Whom to follow where the paper and the release differ.")] = "paper",
    dialect: Annotated[Dialect, typer.Option(help="Targets as released, or as in the paper's A.1.")] = "released",
    explain_labels: ExplainLabels = False,
    format_spec: FormatSpec = False,
    step_by_step: StepByStep = False,
    drop_separators: Annotated[bool, typer.Option("--drop-separators", help="Leave out answers with one.")] = False,
    from_test: Annotated[bool, typer.Option("--from-test", help="Prompts of CBLUE's own test files.")] = False,
    on_error: Annotated[OnError, typer.Option(help="Bad raw records: write nothing, or skip and list them.")] = "stop",
    max_skipped: Annotated[
        int | None, typer.Option(help="With --on-error skip: the most raw records to skip; more stop the build.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one a processor, up to 3. The bytes are the same.")
    ] = None,
    use: Use = None,
    max_unpacked: MaxUnpacked = 8,
    overwrite: OverwriteOption = False,
    cache: Cache = None,
) -> None:
    """Build the dataset from raw CBLUE: fill templates with raw samples, draw rows, write Parquet and a card."""
    from promptcblue_dataset.build import parse_sizes
    from promptcblue_dataset.making import Plan

    require("python_calamine")
    names = task_names(tasks) or list(TASKS)
    suite = suite_of(names)
    if suite.name == "chineseblue":
        raise PromptCBLUEError(
            f"{', '.join(names)}: not built from CBLUE; `promptcblue-dataset import RAW --suite {suite.name}` makes "
            "them from their own raw files"
        )
    plan = Plan(
        sizes=dict.fromkeys(names) if from_test else parse_sizes(sizes, names),
        from_test=from_test,
        style=Style(dialect, profile, explain_labels, format_spec, step_by_step),
        templates=templates,
        seed=seed,
        drop_separators=drop_separators,
        skip_bad=on_error == "skip",
        most_bad=max_skipped,
        use=use or (),
        max_bytes=int(max_unpacked * (1 << 30)),
    )
    must_have = names if tasks else ()
    _build(raw, output, plan, workers=workers, must_have=must_have, overwrite=overwrite, cache=cache)


def _build(raw: Path, output: Path, plan: Plan, **options: Any) -> None:
    from promptcblue_dataset.build import build

    with progress_bars() as on_progress:
        built = build(raw, output, plan, **options, on_progress=on_progress)
    table = _files_table(built, from_test=plan.from_test) if plan.whole else _built_table(built)
    show(table, _built_notes(built, plan))


def _built_table(built: Built) -> Table:
    table = make_table("config", "raw samples", "templates", *SPLITS, "separators", "left out")
    for task, done in built.tasks.items():
        splits = done.counts.values()
        total = sum(splits, Counter[str]())
        left_out = sum(count for kind, count in total.items() if "left out" in kind) + sum(done.left_out.values())
        made = [f"{counts['rows']:,}" + f" of {counts['rows asked for']:,}" * _short(counts) for counts in splits]
        separators = total["rows with a separator in the answer"]
        templates = str(max(counts["templates"] for counts in splits))
        table.add_row(task, f"{total['raw samples']:,}", templates, *made, f"{separators:,}", f"{left_out:,}")
    return table


def _short(counts: Mapping[str, int]) -> bool:
    return counts["rows"] < counts["rows asked for"]


def _files_table(built: Built, *, from_test: bool) -> Table:
    table = make_table("config", "split", "records", "documented", "skipped", "samples", "mended", "kept", texts=2)
    for file in (file for file in built.files if file.split == "test" or not from_test):
        documented = "–" if from_test else f"{file.documented:,}"
        cells = ["absent", documented]
        if notes := file.notes:
            counts = (notes.skipped, file.samples, notes.times("mended"), notes.times("kept"))
            cells = [f"{notes.records - notes.skipped:,}", documented, *(f"{count:,}" for count in counts)]
        table.add_row(file.task, file.split, *cells)
    return table


def _built_notes(built: Built, plan: Plan) -> Iterator[str]:
    """What else there is to know, a line each, and the call to type next."""
    if not plan.whole and any(_short(counts) for done in built.tasks.values() for counts in done.counts.values()):
        yield "N of M: fewer than asked for, since the pool has no more"
    if plan.whole and not plan.from_test:
        yield from _documented(built)
    elif built.missing:
        kind = "test files that say what to ask for" if plan.from_test else "labelled raw files"
        yield f"no {kind}, and so no config, of: {', '.join(built.missing)}"
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    for file in built.files:
        for (action, kind), found in file.notes.findings.items() if file.notes else ():
            kinds[f"{action}: {kind}"] += found.times
            first.setdefault(f"{action}: {kind}", f"first in {file.file}, record {min(found.records)}")
    for kind, times in kinds.most_common():
        yield f"{kind} ({times:,}; {first[kind]})"
    for path, reason in built.passed_over[:LISTED]:
        yield f"passed over {path}: {reason}"
    if (more := len(built.passed_over) - LISTED) > 0:
        yield f"passed over {more:,} more files; the report lists them"
    if built.bad:
        yield f"skipped {len(built.bad):,} raw records that cannot be used; the report lists them"
    yield from _next(built, list(built.tasks))


def _documented(built: Built) -> Iterator[str]:
    absent: dict[str, list[str]] = {}
    for file in built.files:
        if file.notes is None:
            absent.setdefault(file.task, []).append(file.split)
        elif (usable := file.notes.records - file.notes.skipped) != file.documented:
            yield f"{file.file}: {usable:,} usable records, documented are {file.documented:,}"
        if file.notes and file.notes.bad:
            yield f"{file.file}: skipped {file.notes.skipped:,}, such as {file.notes.bad[-1]}"
    if absent:
        listed = (f"{task} ({', '.join(found)})" for task, found in absent.items())
        yield f"not in the source: {'; '.join(listed)}"


# --- templates ---


@templates_app.command("check", epilog="Example: promptcblue-dataset templates check --templates templates.json")
def templates_check(templates: PoolOption = None) -> None:
    """Name every flaw: placeholders, duplicates, near-duplicates, and templates that state no task; exit 1 if any."""
    pool = load_pool(templates, checked=False)
    flaws = check_pool(pool)
    for flaw in flaws:
        print(flaw)
    count = sum(len(prompts.templates) for prompts in pool.values())
    print(f"{count} templates of {len(pool)} tasks, {len(flaws)} flaws")
    if flaws:
        raise typer.Exit(1)


@templates_app.command("list", epilog="Example: promptcblue-dataset templates list --tasks CHIP-STS")
def templates_list(templates: PoolOption = None, tasks: TasksOption = None) -> None:
    r"""Print one template a line: suite, task, number and text between tabs, line ends as \n."""
    for task, prompts in load_pool(templates, task_names(tasks), checked=False).items():
        for number, template in enumerate(prompts.templates, 1):
            print(REGISTRY[task].suite, task, number, template.replace("\n", "\\n"), sep="\t")


@templates_app.command("render", epilog="Example: promptcblue-dataset templates render CMeEE-V2 3")
def templates_render(
    task: Annotated[str, typer.Argument(help="A task.")],
    number: Annotated[int, typer.Argument(help="Number of the template, as `templates list` gives it.")] = 1,
    templates: PoolOption = None,
    explain_labels: ExplainLabels = False,
    format_spec: FormatSpec = False,
    step_by_step: StepByStep = False,
    dialect: Annotated[Dialect, typer.Option(help="Whose answer format to specify.")] = "released",
) -> None:
    """Show a template with its placeholders as they stand and the additional contents in their place."""
    name = get_task(task).name
    pool = load_pool(templates, [name])
    count = len(pool[name].templates) if name in pool else 0
    if number > count:
        raise PromptCBLUEError(f"{name} has {count} templates; there is no number {number}")
    style = Style(dialect, explain_labels=explain_labels, format_spec=format_spec, step_by_step=step_by_step)
    print(preview(pool[name], pool[name].templates[number - 1], style))


# --- commands that stand beside their work ---

for part, name, command, example in (
    (app, "export", export, "export promptcblue --for llama-factory --output lf"),
    (templates_app, "requests", write_requests, "templates requests in.jsonl --model gpt-4o"),
    (templates_app, "answers", read_answers, "templates answers out.jsonl review.xlsx"),
    (templates_app, "accept", accept, "templates accept review.xlsx pool.json"),
    (review_app, "sample", draw_sheet, "review sample promptcblue review.xlsx"),
    (review_app, "tally", tally, "review tally review.xlsx"),
):
    part.command(name, epilog=f"Example: promptcblue-dataset {example}")(command)


# --- statistics ---


@app.command("stats", epilog="Example: promptcblue-dataset stats promptcblue")
def stats_(
    source: SamplesArgument,
    json_path: Annotated[Path | None, typer.Option("--json", help="File to write everything to, as JSON.")] = None,
    card: Annotated[bool, typer.Option("--card/--no-card", help="Write them into the dataset's card, if any.")] = True,
) -> None:
    """Sizes and lengths against the published ones, labels, templates, choices, duplicates and leaks."""
    with progress_bars() as on_progress:
        found = statistics(source, on_progress)
    for titles, body in tables(found):
        table = make_table(*titles, texts=1 + ("number of" in titles))
        for row in body:
            table.add_row(*row)
        show(table)
    show_lines(notes(found))
    if json_path:
        write_json(json_path, found)
    if card and (written := write_into_card(source, found)):
        print(f"wrote the statistics into {written}")


# --- the Hub ---


@app.command(epilog="Example: promptcblue-dataset publish promptcblue --repo ORG/promptcblue --dry-run look")
def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that import or build wrote.")],
    repo: RepoOption,
    private: PrivateOption = False,
    dry_run: DryRunOption = None,
    tag: TagOption = DEFAULT_TAG,
    have_rights: Annotated[
        bool, typer.Option("--i-have-the-rights", help="I may publish this, though it is under the terms of others.")
    ] = False,
) -> None:
    """Publish a dataset on the Hub, with its statistics, sources and citations in the card; safe to repeat.

    One commit holds all that has changed; where nothing has, there is none. The log-in is that of `hf auth login`.
    """
    from promptcblue_dataset.hub import publication

    check_names(repo, tag)
    with progress_bars() as on_progress:
        dataset = publication(folder, repo, have_rights=have_rights, on_progress=on_progress)
    publish_or_write(dataset, repo, private=private, tag=tag, dry_run=dry_run)


def main() -> None:
    """Entry point of the command."""
    run(app)
