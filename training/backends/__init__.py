"""What generates: one module a backend, each with ``load(settings)`` that returns a `Backend`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_type_hints

from promptcblue_metric.data.writing import read_json_object
from promptcblue_metric.errors import PromptCBLUEError

from ..processes import process_count
from ..prompts import Shot
from ..recipe import said as option
from ..run import GROUPS

#: Tokens that an answer of a model which was not fine-tuned may have, and with a thought before it.
LOOSE, THINKING = 1024, 2048
#: Who ended an answer: the model; the limit, or the limit while it still thought; or it is none, but a refusal.
FinishReason = Literal["stop", "length", "thought", "refusal"]


@dataclass(frozen=True)
class ServerSettings:
    """How the ``openai`` backend talks to its endpoint."""

    base_url: str | None = option(None, "openai: address of the API; its key is read from OPENAI_API_KEY.")
    endpoint: Literal["chat", "completions"] = option("chat", "openai: what to ask.")
    concurrency: int = option(8, "openai: requests at a time.")
    timeout: float = option(300.0, "openai: seconds for a request.")
    retries: int = option(6, "openai: times to send it again.")
    context: int | None = option(None, "openai: tokens the served model can see, which no endpoint tells.")
    reasoning_effort: str | None = option(None, "openai: how much to think, such as low, medium or high.")
    extra_body: str | None = option(None, "openai: more of what a request says.", metavar="JSON")
    price_in: float | None = option(None, "openai: price of a million prompt tokens.")
    price_out: float | None = option(None, "openai: price of a million generated tokens.")


@dataclass(frozen=True)
class ClusterSettings:
    """How the ``ray`` backend spreads over a cluster; without an address and ``RAY_ADDRESS`` it starts one here.

    A worker claims ``tensor_parallel`` GPUs where it is not said how many, and the cluster has any.
    """

    backend: Literal["transformers", "vllm"] = option(
        "transformers", "ray: what generates in the workers.", name="worker_backend"
    )
    address: str | None = option(None, "ray: a cluster that runs; else one in this machine.", name="ray_address")
    workers: int = option(1, "ray: models to load.")
    cpus: float = option(0.5, "ray: CPUs of a worker, which may be a part of one.", name="worker_cpus")
    gpus: float | None = option(None, "ray: GPUs of a worker.", name="worker_gpus")


@dataclass(frozen=True)
class BackendSettings:
    """Which model to run, and how.

    ``beams`` are 1 for greedy search. Padding, answers and beams count in ``batch_tokens``; where ``batch_size`` is
    None, they alone say how many requests are answered at a time. ``dtype`` is ``auto`` for what suits the hardware,
    or the name of a number format, ``4bit`` for quantised weights.
    """

    model: str = field(metadata={"help": "Folder or Hub id of a model, or of an adapter; the endpoint's name for it."})
    name: Literal["transformers", "openai", "vllm", "ray"] = option("transformers", "What generates.", name="backend")
    adapter: str | None = option(None, "Folder or Hub id of an adapter for the model.")
    beams: int = 1
    dtype: str = option("auto", "auto, float32, bfloat16, float16 or 4bit.")
    batch_size: int | None = option(None, "Most samples at a time.")
    batch_tokens: int = option(32768, "Most tokens at a time: samples times beams times (prompt and answer).")
    stop: tuple[str, ...] = option((), "A text that ends an answer; repeat it for several.")
    temperature: float | None = option(None, "Sample the answer at this temperature; 0 is greedy.")
    top_p: float | None = option(None, "Sample from the likeliest tokens with this probability in all.")
    thinking: Literal["off", "on", "auto"] = option(
        "auto", "Whether the model thinks before it answers; auto leaves it to the model, or to how it was fine-tuned."
    )
    system: str | None = option(None, "What the model is told before everything else.")
    shot_style: Literal["chat", "text"] = option(
        "chat", "Demonstrations as turns of a chat, or as one text.", name="demonstration_style"
    )
    constrained: bool = option(
        False,
        "Bind labels and terms to those that the prompt offers. Other rules may not allow this: the settings beside "
        "the predictions say that it was done.",
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model.")
    tensor_parallel: int = option(1, "GPUs that vllm spreads a model over.")
    engine: tuple[str, ...] = option(
        (),
        "vllm: an argument of its engine, such as gpu_memory_utilization=0.8; repeat it for several.",
        metavar="KEY=VALUE",
    )
    server: ServerSettings = field(default_factory=ServerSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    @property
    def samples(self) -> bool:
        """Whether answers are drawn by chance."""
        return bool(self.temperature) or self.top_p is not None

    def decoding(self) -> dict[str, object]:
        """What of these settings decides answers on every backend beside its own."""
        # Everywhere but at an endpoint, what is not said is greedy.
        temperature = self.temperature if self.name == "openai" else self.temperature or None
        return {"temperature": temperature, "top_p": self.top_p, "thinking": self.thinking, "system": self.system}


@dataclass(frozen=True)
class Choices:
    """What an answer may be: an option, or several with a separator between them if there is one, or ``nothing``."""

    options: tuple[str, ...]
    separator: str | None = None
    nothing: str | None = None


@dataclass(frozen=True)
class Request:
    """A prompt to answer.

    ``index`` is the caller's name for it, and ``task`` what it is of, where that matters; the answer has at most
    ``max_new_tokens`` tokens, its end included. The demonstrations in ``shots`` stand before it, those that can best be
    spared first; ``choices`` bind the answer.
    """

    index: int
    prompt: str
    max_new_tokens: int
    shots: tuple[Shot, ...] = ()
    choices: Choices | None = None
    task: str = ""


@dataclass(frozen=True)
class Completion:
    """An answer, named as its request was.

    ``prompt_tokens`` are counted as the model saw them, and those of the ``thought`` before the answer are not among
    its ``new_tokens``. An endpoint says which ``model`` answered. To fit the model's context, ``dropped``
    demonstrations were left out, and, where ``cut`` says so, the middle of the prompt.
    """

    index: int
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int
    cut: bool = False
    dropped: int = 0
    thought: str = ""
    thought_tokens: int = 0
    model: str = ""


@dataclass(frozen=True)
class Failure:
    """A request that got no answer, and why."""

    index: int
    reason: str


class Backend(Protocol):
    """A model that is ready to answer."""

    def identity(self) -> Mapping[str, object]:
        """What decides its answers: the model and its state, and how it decodes."""

    def notes(self) -> Mapping[str, object]:
        """What is worth recording and decides nothing, or not on purpose: device, versions."""

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""

    def least_limit(self, task: str) -> int:
        """The tokens that answers to a task may have, however short its targets are."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request once, in any order, each as soon as it is complete."""

    def summary(self) -> list[str]:
        """Lines for the user about what `generate` did beside answering, such as what it cost."""
        return []


#: Module of each backend; imported only when it is used.
BACKENDS: Mapping[str, str] = {
    name: f"promptcblue_training.backends.{name}" for name in get_args(get_type_hints(BackendSettings)["name"])
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
    load = import_module(BACKENDS[settings.name]).load
    groups = Path(settings.model).expanduser() / GROUPS
    if settings.name in ("openai", "ray") or not groups.is_file():
        backend: Backend = load(settings)
        return backend
    refuse(settings, groups_of_adapters=settings.name != "transformers", adapter=settings.adapter is not None)
    tasks = read_json_object(groups)
    return _Grouped({name: load(replace(settings, model=str(groups.parent / name))) for name in tasks}, tasks)


class _Grouped:
    """Adapters for groups of tasks (`sft --groups`): each request is answered by its task's, a group after another."""

    def __init__(self, engines: Mapping[str, Any], tasks: Mapping[str, Sequence[str]]) -> None:
        self.engines, self.first = engines, next(iter(engines.values()))
        self.of = {task: name for name, members in tasks.items() for task in members}
        self.notes, self.count_tokens = self.first.notes, self.first.count_tokens

    def identity(self) -> Mapping[str, object]:
        """That of all the groups: they differ in their adapters."""
        each = {name: engine.identity() for name, engine in self.engines.items()}
        return {**self.first.identity(), "adapter": {name: identity["adapter"] for name, identity in each.items()}}

    def least_limit(self, task: str) -> int:
        """That of the task's group."""
        return int(self.engines[self._group(task)].least_limit(task))

    def summary(self) -> list[str]:
        """Those of all groups."""
        return [line for engine in self.engines.values() for line in engine.summary()]

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request; raises `PromptCBLUEError` where a task is in no group."""
        for name, engine in self.engines.items():
            if own := [request for request in requests if self._group(request.task) == name]:
                yield from engine.generate(own)
                del engine.model  # the next group's takes its place in memory

    def _group(self, task: str) -> str:
        if task not in self.of:
            raise PromptCBLUEError(f"no group's adapter is for {task}; name the tasks to predict by --config")
        return self.of[task]


def refuse(settings: BackendSettings, **unsupported: bool) -> None:
    """Refuse settings that a backend has no way to follow, each given by name with whether it is asked for."""
    if asked := [name.replace("_", "-") for name, is_asked in unsupported.items() if is_asked]:
        raise PromptCBLUEError(
            f"the {settings.name} backend has no {', '.join(asked)}; leave it out, or use --backend transformers"
        )
