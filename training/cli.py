"""The ``promptcblue-train`` command."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin, get_type_hints

import typer

from promptcblue_metric.cli.common import (
    JsonOption,
    ParserOption,
    ProtocolOption,
    ResamplesOption,
    make_app,
    run,
)
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.hub.client import (
    DEFAULT_TAG,
    DryRunOption,
    PrivateOption,
    RepoOption,
    TagOption,
    publish_or_write,
)

from .backends import BackendSettings
from .shots import ShotSettings

app = make_app("Fine-tune language models on PromptCBLUE, and predict with them.")

#: Beams of each preset.
_BEAMS = {"greedy": 1, "paper": 4}
#: The word for the paper's number of demonstrations for each task.
_PAPER = "paper"
Decoding = Literal["greedy", "paper"]
SettingsT = TypeVar("SettingsT")
Command = TypeVar("Command", bound=Callable[..., None])


def _parameters(settings: type) -> Iterator[inspect.Parameter]:
    """The command's options for the fields of a settings class that are described, those of settings within too."""
    hints = get_type_hints(settings)
    for each in fields(settings):
        kind, about = hints[each.name], dict(each.metadata)
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _parameters(kind)
        elif about:
            name = about.pop("name", each.name)
            declared = [f"--{name.replace('_', '-')}"] if kind is bool else []
            kind = Annotated[list[str] if get_origin(kind) is tuple else kind, typer.Option(*declared, **about)]
            default = inspect.Parameter.empty if each.default is MISSING else each.default
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _settings(kind: type[SettingsT], options: Mapping[str, object], **own: object) -> SettingsT:
    """The settings that the command's options say, with fields of ``own`` that are no options."""
    hints = get_type_hints(kind)
    for each in fields(kind):  # type: ignore[arg-type]
        if isinstance(hint := hints[each.name], type) and is_dataclass(hint):
            own[each.name] = _settings(hint, options)
        elif each.metadata:
            value = options[each.metadata.get("name", each.name)]
            own[each.name] = tuple(value) if isinstance(value, list) else value
    return kind(**own)


def _with_options(*shared: Iterable[inspect.Parameter]) -> Callable[[Command], Command]:
    """Give a command, which takes them as ``**options``, more options than its own."""

    def add(function: Command) -> Command:
        own = inspect.signature(function, eval_str=True).parameters.values()
        every = [*(each for each in own if each.kind is not each.VAR_KEYWORD), *chain(*shared)]
        every = [each.replace(kind=each.KEYWORD_ONLY) for each in every]
        function.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        function.__annotations__ = {each.name: each.annotation for each in every}
        return function

    return add


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: promptcblue-train sft lora-7b --dataset promptcblue --output_dir runs/lora --learning_rate 1e-4",
)
def sft(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE [--key value]...", help="A YAML file, or a shipped one, such as lora-7b; --list shows them."
        ),
    ] = None,
    list_recipes: Annotated[
        bool, typer.Option("--list", help="Show the shipped recipes, or this one, with the GPU memory each needs.")
    ] = False,
) -> None:
    """Fine-tune by a recipe; --key value overrides what it says.

    Keys are dataset, configs, model (a backbone, or an adapter to go on from), from_config, method, lora_rank, dtype,
    batch_size, checkpoint_choice, patience, score_samples, overwrite, and every setting of TRL's SFTConfig:
    output_dir, learning_rate, num_train_epochs, max_length, report_to, seed and so on. A run that was cut short goes
    on from its last checkpoint when the same command is given again.
    """
    if list_recipes:
        from .memory import print_recipes

        print_recipes([recipe] if recipe else [])
    else:
        from .sft import main as fine_tune

        fine_tune([*([recipe] if recipe else []), *context.args])


@app.command(epilog="Example: promptcblue-train card --model runs/lora --scores scores.json")
def card(
    model: Annotated[Path, typer.Option(help="Output folder of a fine-tuning run.")],
    scores: Annotated[
        Path | None, typer.Option(help="What promptcblue-metric score --json wrote, to put into the card.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split that was scored, where the scores do not say it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write the card anew whatever it holds.")] = False,
) -> None:
    """Write the model card of a finished run, or put scores into the one that is there.

    Scores go into the metadata that the Hub shows (model-index) and a table; the rest of the card stays as you wrote
    it. A card that was changed, or holds scores, is written anew with --overwrite alone.
    """
    from .card import add_scores, renew_card
    from .run import CARD

    if scores:
        add_scores(model, scores, split)
    else:
        renew_card(model, overwrite=overwrite)
    print(f"wrote {model / CARD}")


@app.command(epilog="Example: promptcblue-train merge runs/lora --output merged --dtype bfloat16")
def merge(
    model: Annotated[str, typer.Argument(metavar="RUN", help="Output folder of a run, or the Hub id of an adapter.")],
    output: Annotated[Path, typer.Option(help="New folder for the model.")],
    adapter: Annotated[str | None, typer.Option(help="The adapter, where RUN is the backbone alone.")] = None,
    dtype: Annotated[str, typer.Option(help="auto for the backbone's, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Merge an adapter into its backbone, for vLLM, Ollama and others that take whole models."""
    from .model import find_model
    from .model import merge as merge_adapter

    merge_adapter(find_model(model, adapter), output, dtype)
    command = shlex.join(["promptcblue-train", "predict", "--model", str(output)])
    print(f"wrote {output}; next: {command} answers as the adapter does")


@app.command(epilog="Example: promptcblue-train publish --model runs/lora --repo ORG/promptcblue-lora")
def publish(
    model: Annotated[Path, typer.Option(help="Output folder of a finished fine-tuning run.")],
    repo: RepoOption,
    private: PrivateOption = False,
    dry_run: DryRunOption = None,
    tag: TagOption = DEFAULT_TAG,
) -> None:
    """Publish a model or an adapter on the Hub, with its tokenizer, recipe, loss curve and card; safe to repeat.

    One commit holds all that has changed; where nothing has, there is none. The log-in is that of `hf auth login`.
    """
    from .card import publication

    publish_or_write(publication(model, repo), repo, private=private, tag=tag, dry_run=dry_run)


@app.command(
    epilog="Example: promptcblue-train predict --model runs/lora --dataset promptcblue --split test "
    "--output predictions.jsonl --decoding paper"
)
@_with_options(_parameters(BackendSettings), _parameters(ShotSettings))
def predict(
    dataset: Annotated[str, typer.Option(help="Dataset folder, Hub id, or JSON Lines file.")],
    output: Annotated[Path, typer.Option(help="JSON Lines file for the predictions, one line a sample.")],
    split: Annotated[str, typer.Option(help="Split to predict.")] = "test",
    config: Annotated[list[str] | None, typer.Option(help="A task to predict; repeat it for several.")] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="So many samples only, drawn from all tasks alike.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer in tokens, thoughts included. By default, for a task that the model was fine-tuned "
            "on here, from its targets in the other splits; else more.",
        ),
    ] = None,
    samples_per_prompt: Annotated[
        int, typer.Option(metavar="N", help="Answers to each prompt, each time into a file of its own.")
    ] = 1,
    decoding: Annotated[
        Decoding | None,
        typer.Option(help="greedy, or the paper's search with four beams; an endpoint is not told by default."),
    ] = None,
    beams: Annotated[int | None, typer.Option(help="Another number of beams than the preset's.")] = None,
    demonstrations: Annotated[
        str | None, typer.Option(metavar=f"N|{_PAPER}", help="Train samples to show before each prompt.")
    ] = None,
    failed_as_empty: Annotated[
        bool, typer.Option("--failed-as-empty", help="Let samples that fail count as empty answers.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew although the output exists.")] = False,
    **options: object,
) -> None:
    """Predict a split. A run that was cut short goes on where it stopped when the same command is given again.

    The exit code is 3 where more than a tenth of the answers are empty or were cut at their limit.
    """
    from .data import Splits
    from .predict import predict as run_prediction
    from .processes import process_count

    if decoding == "greedy" and options["temperature"] is None:
        options["temperature"] = 0.0
    whole = run_prediction(
        dataset if isinstance(dataset, Splits) else Splits(dataset, config, limit, int(str(options["seed"]))),
        split,
        output,
        _settings(BackendSettings, options, beams=beams or _BEAMS[decoding or "greedy"]),
        max_new_tokens=max_new_tokens,
        shots=_settings(ShotSettings, options, count=_count(demonstrations)) if demonstrations else None,
        failed_as_empty=failed_as_empty,
        overwrite=overwrite,
        times=samples_per_prompt,
        say_next=not isinstance(dataset, Splits),  # `evaluate` scores by itself
    )
    # A launcher would take it for a crash of one of its processes, and end with a report of that.
    if not whole and process_count() == 1:
        raise typer.Exit(3)


def _count(demonstrations: str) -> int | None:
    if demonstrations == _PAPER:
        return None
    if not (demonstrations.isascii() and demonstrations.isdigit() and int(demonstrations)):
        raise PromptCBLUEError(f"--demonstrations {demonstrations}: expected a number from 1, or '{_PAPER}'")
    return int(demonstrations)


@app.command(
    epilog="Example: promptcblue-train evaluate --model runs/lora --dataset promptcblue --split validation "
    "--output predictions.jsonl --report report/"
)
@_with_options(inspect.signature(predict).parameters.values())
def evaluate(
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report as well: index.html, report.md and report.json.")
    ] = None,
    json: JsonOption = None,
    protocol: ProtocolOption = "official",
    parser: ParserOption = "strict",
    resamples: ResamplesOption = 1000,
    **options: Any,
) -> None:
    """Predict a split and score the predictions: the scores of what the output holds, if it is complete already."""
    from .data import Splits
    from .predict import check_can_score, outputs, score
    from .processes import is_first

    dataset, split = Splits(options["dataset"], options["config"], options["limit"], options["seed"]), options["split"]
    if is_first():
        check_can_score(dataset, split, report)
    code = 0
    try:
        predict(**{**options, "dataset": dataset})
    except typer.Exit as done:
        code = done.exit_code
    if is_first():
        score(
            outputs(options["output"], options["samples_per_prompt"]),
            dataset,
            split,
            report=report,
            json=json,
            protocol=protocol,
            parser=parser,
            resamples=resamples,
        )
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the command."""
    run(app)


if __name__ == "__main__":
    main()
