"""The ``promptcblue-train`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptcblue_metric.cli.common import make_app, run
from promptcblue_metric.hub.client import (
    DEFAULT_TAG,
    DryRunOption,
    PrivateOption,
    RepoOption,
    TagOption,
    publish_or_write,
)

from .predict_commands import add_commands

app = make_app("Fine-tune language models on PromptCBLUE, and predict with them.")


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

    Keys are dataset, configs, model, from_config, method, lora_rank, dtype, batch_size, checkpoint_choice, patience,
    score_samples, overwrite, and every setting of TRL's SFTConfig: output_dir, learning_rate, num_train_epochs,
    max_length, report_to, seed and so on. A run that was cut short goes on from its last checkpoint when the same
    command is given again.
    """
    if list_recipes:
        from .memory import print_recipes

        return print_recipes([recipe] if recipe else [])
    from .sft import main as fine_tune

    fine_tune([*([recipe] if recipe else []), *context.args])
    return None


@app.command(epilog="Example: promptcblue-train card --model runs/lora --scores scores.json --split test")
def card(
    model: Annotated[Path, typer.Option(help="Output folder of a fine-tuning run.")],
    scores: Annotated[
        Path | None, typer.Option(help="What promptcblue-metric score --json wrote, to put into the card.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split that was scored.")] = "test",
) -> None:
    """Write the model card of a run anew, or put scores into the one that is there.

    Scores go into the metadata that the Hub shows (model-index) and a table; the rest of the card stays as you wrote
    it.
    """
    from promptcblue_metric.data.splits import canonical_split

    from .card import add_scores, write_card
    from .run import CARD

    if scores:
        add_scores(model, scores, canonical_split(split))
    else:
        write_card(model)
    typer.echo(f"wrote {model / CARD}")


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
    from .hub import next_command, notes, publication

    trained = publication(model, repo)
    for note in notes(model):
        typer.echo(f"note: {note}")
    publish_or_write(trained, repo, private=private, tag=tag, dry_run=dry_run, then=next_command(model, repo))


add_commands(app)


def main() -> None:
    """Entry point of the command."""
    run(app)


if __name__ == "__main__":
    main()
