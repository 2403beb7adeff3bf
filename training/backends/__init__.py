"""What generates: one module a backend, each with ``load(settings)`` that returns a `Backend`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, Protocol

from promptcblue_metric.errors import PromptCBLUEError

from ..processes import process_count
from ..prompts import Shot, ShotStyle

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class ServerSettings:
    """How the ``openai`` backend talks to its endpoint.

    Attributes:
        base_url: address of the API, ending in ``/v1`` as a rule; None for the ``openai`` client's own default.
        endpoint: ``chat`` or ``completions``.
        concurrency: requests under way at a time.
        timeout: seconds that one request may take in all.
        retries: times that a failed request is sent again.
        context: tokens that the model can see, which no endpoint tells; None leaves prompts as they are.
        price_in: price of a million prompt tokens, in any currency; None if unknown.
        price_out: price of a million generated tokens.
    """

    base_url: str | None = None
    endpoint: Literal["chat", "completions"] = "chat"
    concurrency: int = 8
    timeout: float = 300.0
    retries: int = 6
    context: int | None = None
    price_in: float | None = None
    price_out: float | None = None


@dataclass(frozen=True)
class ClusterSettings:
    """How the ``ray`` backend spreads over a cluster.

    Attributes:
        backend: what runs in each worker: ``transformers`` or ``vllm``.
        address: of a running cluster; None starts one in this machine, unless ``RAY_ADDRESS`` names one.
        workers: how many models are loaded.
        cpus: CPUs that a worker claims, which may be a part of one.
        gpus: GPUs that a worker claims; None for ``tensor_parallel`` of them where the cluster has any.
    """

    backend: str = "transformers"
    address: str | None = None
    workers: int = 1
    cpus: float = 0.5
    gpus: float | None = None


@dataclass(frozen=True)
class BackendSettings:
    """Which model to run, and how.

    Attributes:
        name: key of `BACKENDS`.
        model: folder or Hub id of a model or adapter; for ``openai`` the endpoint's name for it.
        adapter: folder or Hub id of an adapter on it, or None.
        beams: 1 for greedy search, else the width of the beam.
        dtype: number format of the weights, ``auto`` for the hardware's, ``4bit`` for quantised ones.
        batch_size: most requests at a time; None for any number.
        batch_tokens: most tokens at a time, padding, answers and beams counted.
        stop: texts that end an answer, which does not hold them.
        shot_style: how demonstrations are shown.
        constrained: whether answers that are choices are bound to what their prompts offer.
        trust_remote_code: whether to run code that comes with the model.
        tensor_parallel: GPUs that ``vllm`` spreads the model over.
        server: of the ``openai`` backend.
        cluster: of the ``ray`` backend.
    """

    model: str
    name: str = "transformers"
    adapter: str | None = None
    beams: int = 1
    dtype: str = "auto"
    batch_size: int | None = None
    batch_tokens: int = 32768
    stop: tuple[str, ...] = ()
    shot_style: ShotStyle = "chat"
    constrained: bool = False
    trust_remote_code: bool = False
    tensor_parallel: int = 1
    server: ServerSettings = field(default_factory=ServerSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)


@dataclass(frozen=True)
class Choices:
    """What an answer is allowed to be.

    Attributes:
        options: the answer is one of these;
        separator: or, where this is not None, several different ones with it between them;
        nothing: or, where this is not None, this text.
    """

    options: tuple[str, ...]
    separator: str | None = None
    nothing: str | None = None


@dataclass(frozen=True)
class Request:
    """A prompt to answer.

    ``index`` is the caller's name for it; the answer has at most ``max_new_tokens`` tokens, its end included. The
    demonstrations in ``shots`` stand before it, those that can best be spared first; ``choices`` bind the answer.
    """

    index: int
    prompt: str
    max_new_tokens: int
    shots: tuple[Shot, ...] = ()
    choices: Choices | None = None


@dataclass(frozen=True)
class Completion:
    """An answer, named as its request was.

    ``finish_reason`` is ``stop`` where the model ended it and ``length`` where the limit did; ``prompt_tokens`` are
    counted as the model saw them. To fit the model's context, ``dropped`` demonstrations were left out, and, where
    ``cut`` says so, the middle of the prompt.
    """

    index: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    cut: bool = False
    dropped: int = 0


@dataclass(frozen=True)
class Failure:
    """A request that got no answer, and why."""

    index: int
    reason: str


class Backend(Protocol):
    """A model that is ready to answer."""

    def identity(self) -> Mapping[str, Any]:
        """What decides its answers: the model and its state, and how it decodes."""

    def notes(self) -> Mapping[str, Any]:
        """What is worth recording and decides nothing, or not on purpose: device, versions."""

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request once, in any order, each as soon as it is complete."""

    def summary(self) -> list[str]:
        """Lines for the user about what `generate` did beside answering, such as what it cost."""


#: Module of each backend; imported only when it is used.
BACKENDS: Mapping[str, str] = {
    name: f"promptcblue_training.backends.{name}" for name in ("transformers", "openai", "vllm", "ray")
}


def load_backend(settings: BackendSettings) -> Backend:
    """The backend that the settings name, its model not loaded before the first request.

    Raises:
        PromptCBLUEError: there is no such backend or model, or the backend cannot do what the settings ask.
    """
    if settings.name not in BACKENDS:
        raise PromptCBLUEError(f"unknown backend '{settings.name}'; expected one of {', '.join(BACKENDS)}")
    if settings.name != "transformers" and process_count() > 1:
        raise PromptCBLUEError(
            f"the {settings.name} backend spreads its own work: start it once, without accelerate launch or torchrun"
        )
    backend: Backend = import_module(BACKENDS[settings.name]).load(settings)
    return backend


def refuse(settings: BackendSettings, **unsupported: bool) -> None:
    """Refuse settings that a backend has no way to follow.

    Args:
        unsupported: name of each setting, and whether it is asked for.

    Raises:
        PromptCBLUEError: names those that are.
    """
    if asked := [name.replace("_", "-") for name, is_asked in unsupported.items() if is_asked]:
        raise PromptCBLUEError(
            f"the {settings.name} backend has no {', '.join(asked)}; leave it out, or use --backend transformers"
        )
