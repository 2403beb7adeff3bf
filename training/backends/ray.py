"""Generation over a cluster with Ray: workers that each hold a model, and answers that come back as they end."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from promptcblue_metric.errors import PromptCBLUEError

from . import Backend, BackendSettings, Completion, Failure, Request, load_backend

#: A worker is given at least so many requests at a time, and else a share of them: few shares keep its engine filled,
#: several keep the others from waiting for the last one.
_LEAST, _SHARES = 32, 4
#: So many workers may be lost before the cluster is given up, by the number of workers.
_LOST = 5


class RayBackend:
    """Runs another backend in the workers of a cluster.

    Answers arrive one by one. What a lost worker had not answered is given to a new one.
    """

    def __init__(self, settings: BackendSettings) -> None:
        import ray  # noqa: F401 - its absence is said now, and not after the data was read

        self.settings, self.cluster = settings, settings.cluster
        self.inner_settings = replace(settings, name=self.cluster.backend)
        self.inner = load_backend(self.inner_settings)
        inner = self.inner
        self.count_tokens, self.least_limit, self.summary = inner.count_tokens, inner.least_limit, inner.summary

    def identity(self) -> Mapping[str, object]:
        """That of the backend in the workers."""
        return {**self.inner.identity(), "backend": f"ray {self.cluster.backend}"}

    def notes(self) -> Mapping[str, object]:
        """Those of the backend in the workers, as this machine has them, and Ray's."""
        return {**self.inner.notes(), "ray": version("ray"), "workers": self.cluster.workers}

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, those of like limits and lengths together."""
        import ray
        from ray.exceptions import RayError

        self._connect()
        order = sorted(requests, key=lambda each: (-each.max_new_tokens, each.choices is None, -len(each.prompt)))
        size = max(_LEAST, -(-len(order) // (_SHARES * self.cluster.workers)))
        left = deque([order[start : start + size] for start in range(0, len(order), size)])
        settings = self._settings_for(requests)
        make = ray.remote(_Worker).options(num_cpus=self.cluster.cpus, num_gpus=self._gpus()).remote
        running: dict[Any, tuple[Any, dict[int, Request]]] = {}

        def give(worker: Any) -> None:
            if left:
                share = left.popleft()
                answers = worker.answer.options(num_returns="streaming").remote(share)
                running[answers] = (worker, {request.index: request for request in share})

        for _ in range(min(self.cluster.workers, len(left))):
            give(make(settings))
        lost = 0
        while running:
            (answers,), _ = ray.wait(list(running), num_returns=1, fetch_local=False)
            worker, waiting = running[answers]
            try:
                result: Completion | Failure = ray.get(next(answers))
            except StopIteration:
                del running[answers]
                give(worker)
            except RayError as error:
                del running[answers]
                lost += 1
                if lost > _LOST * self.cluster.workers or isinstance(error, ray.exceptions.RayTaskError):
                    reason = " ".join(str(error).split())[-300:]
                    raise PromptCBLUEError(
                        f"the cluster gave up: {reason}; what was predicted so far is kept, and the same command goes "
                        "on from there"
                    ) from error
                left.appendleft(list(waiting.values()))
                give(make(settings))
            else:
                del waiting[result.index]
                yield result

    def _settings_for(self, requests: Sequence[Request]) -> BackendSettings:
        """The workers' settings, with what all requests need of an engine that sees but some of them first."""
        needed = getattr(self.inner, "engine_arguments", None)
        return replace(self.inner_settings, engine=needed(requests)) if needed else self.inner_settings

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        options: dict[str, Any] = {"include_dashboard": False}
        if self.cluster.address or "RAY_ADDRESS" in os.environ:
            options = {"address": self.cluster.address or "auto"}
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PromptCBLUEError(f"no Ray cluster at {self.cluster.address or 'RAY_ADDRESS'}: {error}") from error

    def _gpus(self) -> float:
        import ray

        if self.cluster.gpus is not None:
            return self.cluster.gpus
        return self.settings.tensor_parallel if ray.cluster_resources().get("GPU") else 0


class _Worker:
    """A backend in a worker's process."""

    def __init__(self, settings: BackendSettings) -> None:
        # Whatever launched the driver, a worker is a process of its own.
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            os.environ.pop(name, None)
        self.backend: Backend = load_backend(settings)

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answers as they end."""
        for result in self.backend.generate(requests):  # noqa: UP028 - Ray calls `send`, which inner iterators may lack
            yield result


load = RayBackend
