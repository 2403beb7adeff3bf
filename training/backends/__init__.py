"""What generates: one module a backend, each with ``load(settings)`` that returns a `Backend`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

from promptcblue_metric.errors import PromptCBLUEError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class BackendSettings:
    """Which model to run, and how.

    Attributes:
        name: key of `BACKENDS`.
        model: folder or Hub id of a model or adapter.
        adapter: folder or Hub id of an adapter on it, or None.
        beams: 1 for greedy search, else the width of the beam.
        dtype: number format of the weights, ``auto`` for the hardware's.
        batch_size: most requests at a time; None for any number.
        batch_tokens: most tokens at a time, padding, answers and beams counted.
        trust_remote_code: whether to run code that comes with the model.
    """

    model: str
    name: str = "transformers"
    adapter: str | None = None
    beams: int = 1
    dtype: str = "auto"
    batch_size: int | None = None
    batch_tokens: int = 16384
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Request:
    """A prompt to answer.

    ``index`` is the caller's name for it; the answer has at most ``max_new_tokens`` tokens, its end included.
    """

    index: int
    prompt: str
    max_new_tokens: int


@dataclass(frozen=True)
class Completion:
    """An answer, named as its request was.

    ``finish_reason`` is ``stop`` where the model ended it and ``length`` where the limit did; ``prompt_tokens`` are
    counted as the model saw them, and ``cut`` says whether the middle of the prompt was left out to fit its context.
    """

    index: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    cut: bool = False


class Backend(Protocol):
    """A model that is ready to answer."""

    def identity(self) -> Mapping[str, Any]:
        """What decides its answers: the model and its state, and how it decodes."""

    def notes(self) -> Mapping[str, Any]:
        """What is worth recording and decides nothing, or not on purpose: device, versions."""

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer every request once, in any order, each as soon as it is complete."""


#: Module of each backend; imported only when it is used.
BACKENDS: Mapping[str, str] = {"transformers": "promptcblue_training.backends.transformers"}


def load_backend(settings: BackendSettings) -> Backend:
    """The backend that the settings name, its model not loaded before the first request.

    Raises:
        PromptCBLUEError: there is no such backend or model.
    """
    if settings.name not in BACKENDS:
        raise PromptCBLUEError(f"unknown backend '{settings.name}'; expected one of {', '.join(BACKENDS)}")
    backend: Backend = import_module(BACKENDS[settings.name]).load(settings)
    return backend
