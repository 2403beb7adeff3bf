"""The ``promptcblue-train`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptcblue_metric.console import make_app, run

app = make_app("Fine-tune language models on PromptCBLUE, and predict with them.")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: promptcblue-train sft lora --dataset promptcblue --model Qwen/Qwen2.5-7B-Instruct "
    "--output_dir runs/lora --learning_rate 1e-4",
)
def sft(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE [--key value]...", help="A YAML file, or a shipped one: lora, full, demo.")
    ],
) -> None:
    """Fine-tune by a recipe; --key value overrides what it says.

    Keys are dataset, configs, model, from_config, method, lora_rank, dtype, batch_size, overwrite, and every setting
    of TRL's SFTConfig: output_dir, learning_rate, num_train_epochs, max_length, seed and so on. A run that was cut
    short goes on from its last checkpoint when the same command is given again.
    """
    from .sft import main as fine_tune

    fine_tune([recipe, *context.args])


@app.command(
    epilog="Example: promptcblue-train predict --model runs/lora --dataset promptcblue --split test "
    "--output predictions.jsonl --beams 4"
)
def predict(
    model: Annotated[str, typer.Option(help="Folder or Hub id of a model, or of an adapter.")],
    dataset: Annotated[str, typer.Option(help="Dataset folder, Hub id, or JSON Lines file.")],
    output: Annotated[Path, typer.Option(help="JSON Lines file for the predictions, one line a sample.")],
    adapter: Annotated[str | None, typer.Option(help="Folder or Hub id of an adapter for the model.")] = None,
    split: Annotated[str, typer.Option(help="Split to predict.")] = "test",
    config: Annotated[list[str] | None, typer.Option(help="A task to predict; repeat it for several.")] = None,
    beams: Annotated[int, typer.Option(min=1, help="1 is greedy; the paper uses 4.")] = 1,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer in tokens. By default from the task's targets in the other splits."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most samples at a time.")] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens at a time: samples times beams times (prompt and answer).")
    ] = 16384,
    backend: Annotated[str, typer.Option(help="What generates: transformers.")] = "transformers",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew although the output exists.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
) -> None:
    """Predict a split. A run that was cut short goes on where it stopped when the same command is given again."""
    from .backends import BackendSettings
    from .predict import predict as run_prediction

    run_prediction(
        dataset=dataset,
        split=split,
        configs=config,
        output=output,
        backend=BackendSettings(
            name=backend,
            model=model,
            adapter=adapter,
            beams=beams,
            dtype=dtype,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            trust_remote_code=trust_remote_code,
        ),
        max_new_tokens=max_new_tokens,
        overwrite=overwrite,
    )


def main() -> None:
    """Entry point of the command."""
    run(app)
