"""The sub-commands of ``promptcblue-train`` that predict, and that predict and score."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.parsing import Parser
from promptcblue_metric.scoring import Protocol


class BackendName(str, Enum):
    """What generates."""

    transformers = "transformers"
    openai = "openai"
    vllm = "vllm"
    ray = "ray"


class Decoding(str, Enum):
    """Presets of the search for an answer."""

    greedy = "greedy"
    paper = "paper"


class Selection(str, Enum):
    """How demonstrations are chosen."""

    fixed = "fixed"
    similar = "similar"


class ShotStyle(str, Enum):
    """How demonstrations are shown."""

    chat = "chat"
    text = "text"


class Endpoint(str, Enum):
    """Which part of the API is asked."""

    chat = "chat"
    completions = "completions"


#: Beams of each preset.
_BEAMS = {Decoding.greedy: 1, Decoding.paper: 4}
#: The word for the paper's number of demonstrations for each task.
_PAPER = "paper"


def add_commands(app: typer.Typer) -> None:
    """Add the sub-commands of this module to the command."""
    app.command(
        epilog="Example: promptcblue-train predict --model runs/lora --dataset promptcblue --split test "
        "--output predictions.jsonl --decoding paper"
    )(predict)
    app.command(
        epilog="Example: promptcblue-train evaluate --model runs/lora --dataset promptcblue --split validation "
        "--output predictions.jsonl --report report/"
    )(evaluate)


def predict(
    model: Annotated[
        str, typer.Option(help="Folder or Hub id of a model, or of an adapter; the endpoint's name for it.")
    ],
    dataset: Annotated[str, typer.Option(help="Dataset folder, Hub id, or JSON Lines file.")],
    output: Annotated[Path, typer.Option(help="JSON Lines file for the predictions, one line a sample.")],
    adapter: Annotated[str | None, typer.Option(help="Folder or Hub id of an adapter for the model.")] = None,
    split: Annotated[str, typer.Option(help="Split to predict.")] = "test",
    config: Annotated[list[str] | None, typer.Option(help="A task to predict; repeat it for several.")] = None,
    backend: Annotated[BackendName, typer.Option(help="What generates.")] = BackendName.transformers,
    decoding: Annotated[Decoding, typer.Option(help="greedy, or the paper's search with four beams.")] = (
        Decoding.greedy
    ),
    beams: Annotated[int | None, typer.Option(min=1, help="Another number of beams than the preset's.")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer in tokens. By default from the task's targets in the other splits."),
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends an answer; repeat it for several.")] = None,
    constrained: Annotated[
        bool,
        typer.Option(
            "--constrained",
            help="Bind labels and terms to those that the prompt offers. Other rules may not allow this: the settings "
            "beside the predictions say that it was done.",
        ),
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most samples at a time.")] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Most tokens at a time: samples times beams times (prompt and answer).")
    ] = 32768,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or 4bit.")] = "auto",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="GPUs that vllm spreads a model over.")] = 1,
    failed_as_empty: Annotated[
        bool, typer.Option("--failed-as-empty", help="Let samples that fail count as empty answers.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew although the output exists.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
    demonstrations: Annotated[
        str | None,
        typer.Option(metavar="N|paper", help="Train samples to show before each prompt."),
    ] = None,
    demonstration_style: Annotated[
        ShotStyle, typer.Option(help="As turns of a chat, or as one text.")
    ] = ShotStyle.chat,
    selection: Annotated[
        Selection,
        typer.Option(help="The same for every sample of a task, or those most similar to it (BM25)."),
    ] = Selection.fixed,
    demonstrations_from: Annotated[
        str | None,
        typer.Option(help="Another dataset whose train split to take them from, or a file."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw of fixed ones.")] = 0,
    base_url: Annotated[
        str | None,
        typer.Option(help="openai: address of the API; its key is read from OPENAI_API_KEY."),
    ] = None,
    endpoint: Annotated[Endpoint, typer.Option(help="openai: what to ask.")] = Endpoint.chat,
    concurrency: Annotated[int, typer.Option(min=1, help="openai: requests at a time.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="openai: seconds for a request.")] = 300.0,
    retries: Annotated[int, typer.Option(min=0, help="openai: times to send it again.")] = 6,
    context: Annotated[int | None, typer.Option(min=1, help="openai: tokens the served model can see.")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="openai: price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="openai: price of a million generated tokens.")] = None,
    worker_backend: Annotated[
        str, typer.Option(help="ray: what generates in the workers: transformers or vllm.")
    ] = "transformers",
    workers: Annotated[int, typer.Option(min=1, help="ray: models to load.")] = 1,
    worker_cpus: Annotated[float, typer.Option(min=0, help="ray: CPUs of a worker.")] = 0.5,
    worker_gpus: Annotated[float | None, typer.Option(min=0, help="ray: GPUs of a worker.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="ray: a cluster that runs; else one in this machine.")] = None,
) -> None:
    """Predict a split. A run that was cut short goes on where it stopped when the same command is given again."""
    from .backends import BackendSettings, ClusterSettings, ServerSettings
    from .predict import predict as run_prediction
    from .shots import ShotSettings

    run_prediction(
        dataset=dataset,
        split=split,
        configs=config,
        output=output,
        backend=BackendSettings(
            name=backend.value,
            model=model,
            adapter=adapter,
            beams=beams or _BEAMS[decoding],
            dtype=dtype,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            stop=tuple(stop or ()),
            shot_style=demonstration_style.value,
            constrained=constrained,
            trust_remote_code=trust_remote_code,
            tensor_parallel=tensor_parallel,
            server=ServerSettings(
                base_url=base_url,
                endpoint=endpoint.value,
                concurrency=concurrency,
                timeout=timeout,
                retries=retries,
                context=context,
                price_in=price_in,
                price_out=price_out,
            ),
            cluster=ClusterSettings(
                backend=worker_backend, address=ray_address, workers=workers, cpus=worker_cpus, gpus=worker_gpus
            ),
        ),
        max_new_tokens=max_new_tokens,
        shots=None
        if demonstrations is None
        else ShotSettings(_count(demonstrations), selection.value, demonstrations_from, seed),
        failed_as_empty=failed_as_empty,
        overwrite=overwrite,
    )


def _count(demonstrations: str) -> int | None:
    if demonstrations == _PAPER:
        return None
    if not (demonstrations.isascii() and demonstrations.isdigit() and int(demonstrations)):
        raise PromptCBLUEError(f"--demonstrations {demonstrations}: expected a number from 1, or '{_PAPER}'")
    return int(demonstrations)


def _with_options_of(command: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command all options of another one, which it takes as ``**options``, before its own."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        shared = inspect.signature(command, eval_str=True).parameters
        own = inspect.signature(function, eval_str=True).parameters
        both = [*shared.values(), *(each for each in own.values() if each.kind is not each.VAR_KEYWORD)]
        parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in both]
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {each.name: each.annotation for each in parameters}
        return function

    return add


@_with_options_of(predict)
def evaluate(
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report as well: index.html, report.md and report.json.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the scores, all digits, to this file.")] = None,
    protocol: Annotated[Protocol, typer.Option(help="official: equal to the official scorer, or the paper's.")] = (
        "official"
    ),
    parser: Annotated[Parser, typer.Option(help="strict: what the official scorer reads, or lenient.")] = "strict",
    resamples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Bootstrap resamples behind the 95% intervals; 0 leaves them out.")
    ] = 1000,
    **options: Any,
) -> None:
    """Predict a split and score the predictions: the scores of what the output holds, if it is complete already."""
    from .predict import check_can_score, score
    from .processes import is_first

    if is_first():
        check_can_score(options["dataset"], options["split"], options["config"], report)
    predict(**options)
    if is_first():
        score(
            options["output"],
            options["dataset"],
            options["split"],
            options["config"],
            report=report,
            json=json,
            protocol=protocol,
            parser=parser,
            resamples=resamples,
        )
