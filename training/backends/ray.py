"""Generation over a cluster with Ray Data: workers that each hold a model, and answers that come back as they end."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from promptcblue_metric.errors import PromptCBLUEError

from . import Backend, BackendSettings, Completion, Failure, Request, load_backend

#: Requests that go to a worker at a time; what a worker loses when it is killed is at most this.
_PORTION = 32
#: Backends that can run inside a worker.
INNER = ("transformers", "vllm")


class RayBackend:
    """Runs another backend in the workers of a cluster.

    Ray starts a killed worker again, and hands what it had not given back to another one; should an answer come
    twice for that, the second is dropped.
    """

    def __init__(self, settings: BackendSettings) -> None:
        import ray  # noqa: F401 - its absence is said now, and not after the data was read

        cluster = settings.cluster
        if cluster.backend not in INNER:
            raise PromptCBLUEError(f"the ray backend runs {' or '.join(INNER)} in its workers, not '{cluster.backend}'")
        self.settings, self.cluster = settings, cluster
        self.inner_settings = replace(settings, name=cluster.backend)
        self.inner = load_backend(self.inner_settings)

    def identity(self) -> Mapping[str, Any]:
        """That of the backend in the workers."""
        return {**self.inner.identity(), "backend": f"ray {self.cluster.backend}"}

    def notes(self) -> Mapping[str, Any]:
        """Those of the backend in the workers, as this machine has them, and Ray's."""
        return {**self.inner.notes(), "ray": version("ray"), "workers": self.cluster.workers}

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""
        return self.inner.count_tokens(targets)

    def least_limit(self, task: str) -> int:
        """That of the backend in the workers."""
        return self.inner.least_limit(task)

    def summary(self) -> list[str]:
        """Nothing more."""
        return []

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, those of like limits and lengths together."""
        import ray
        from ray.exceptions import RayError

        self._connect()
        order = sorted(requests, key=lambda each: (-each.max_new_tokens, each.choices is None, -len(each.prompt)))
        # As bytes, so that no column type comes between what is sent and what arrives.
        rows = [{"request": pickle.dumps(request)} for request in order]
        data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // _PORTION)).map_batches(
            _Worker,
            fn_constructor_args=(self.inner_settings,),
            batch_size=_PORTION,
            concurrency=self.cluster.workers,
            num_cpus=self.cluster.cpus,
            num_gpus=self._gpus(),
        )
        seen: set[int] = set()
        try:
            for row in data.iter_rows():
                result: Completion | Failure = pickle.loads(row["result"])
                if result.index not in seen:
                    seen.add(result.index)
                    yield result
        except RayError as error:
            reason = " ".join(str(error).split())[-300:]
            raise PromptCBLUEError(
                f"the cluster gave up: {reason}; what was predicted so far is kept, and the same command goes on"
            ) from error

    def _connect(self) -> None:
        import ray
        import ray.data

        if ray.is_initialized():
            return
        options: dict[str, Any] = {"include_dashboard": False}
        if self.cluster.address or "RAY_ADDRESS" in os.environ:
            options = {"address": self.cluster.address or "auto"}
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PromptCBLUEError(f"no Ray cluster at {self.cluster.address or 'RAY_ADDRESS'}: {error}") from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False

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

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Answers to a batch of requests, in columns."""
        results = self.backend.generate([pickle.loads(request) for request in batch["request"]])
        return {"result": [pickle.dumps(result) for result in results]}


def load(settings: BackendSettings) -> RayBackend:
    """The backend; the cluster is first asked with the first request."""
    return RayBackend(settings)
