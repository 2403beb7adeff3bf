"""Generation with vLLM's offline engine: continuous batching, cached prefixes, several GPUs, LoRA adapters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import yaml

from promptcblue_metric.errors import PromptCBLUEError

from ..model import adapter_config, best_dtype, first_line
from . import BackendSettings, Choices, Completion, Failure, Request, refuse
from .encoding import Encoded, LocalBackend, encode

#: The ranks that vLLM makes room for; an adapter takes the next one up.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class VllmBackend(LocalBackend):
    """Hands all requests to the engine at once, which fills its batches itself, and yields answers as they end."""

    def __init__(self, settings: BackendSettings) -> None:
        import vllm  # noqa: F401 - said now, and not after the data was read

        refuse(settings, beams_above_1=settings.beams > 1)
        super().__init__(settings)
        self.engine: Any = None
        self._length = 0
        self.engine_options: dict[str, Any] = {}
        for told in settings.engine:
            name, found, value = told.partition("=")
            if not found or not name.isidentifier():
                raise PromptCBLUEError(f"--engine {told}: expected KEY=VALUE, such as gpu_memory_utilization=0.8")
            self.engine_options[name] = yaml.safe_load(value)
        self.rank = _lora_rank(self.source.adapter) if self.source.adapter else None

    def notes(self) -> Mapping[str, object]:
        """Where the model was, GPUs and versions."""
        import vllm

        return {**super().notes(), "tensor_parallel": self.settings.tensor_parallel, "vllm": str(vllm.__version__)}

    @cached_property
    def number_format(self) -> str:
        """Number format of the weights, as vLLM calls it; ``4bit`` for quantised ones."""
        if self.settings.dtype != "auto":
            return self.settings.dtype
        import torch

        return str(best_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu"))).removeprefix("torch.")

    def _encode(self, requests: Sequence[Request]) -> list[Encoded]:
        told = self.engine_options.get("max_model_len")
        return list(encode(self.encoder, requests, self.settings.shot_style, told or self.context))

    def engine_arguments(self, requests: Sequence[Request]) -> tuple[str, ...]:
        """What ``--engine`` says, with the length that the requests need where it says none.

        The engine sets memory aside for its longest sequence, and a model's context can be far longer than that.
        """
        if "max_model_len" in self.engine_options:
            return self.settings.engine
        return (*self.settings.engine, f"max_model_len={_needed(self._encode(requests))}")

    def _load_engine(self, length: int) -> Any:
        """The engine with the model loaded, for sequences of this length."""
        from vllm import LLM

        settings = self.settings
        options: dict[str, Any] = {
            "trust_remote_code": settings.trust_remote_code,
            "tensor_parallel_size": settings.tensor_parallel,
            "enable_prefix_caching": True,
            "max_model_len": length,
            **({"quantization": "bitsandbytes"} if settings.dtype == "4bit" else {"dtype": self.number_format}),
            **({"max_num_seqs": settings.batch_size} if settings.batch_size else {}),
            **({"enable_lora": True, "max_lora_rank": self.rank} if self.rank else {}),
            **self.engine_options,
        }
        try:
            llm = LLM(model=self.source.backbone, tokenizer=self.source.tokenizer, **options)
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise PromptCBLUEError(
                f"model {self.source.backbone} does not load in vLLM: {first_line(error)}"
            ) from error
        return llm.llm_engine

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, each as soon as the engine is done with it."""
        items = self._encode(requests)
        if self.engine is None or _needed(items) > self._length:
            self._length = max(_needed(items), self.engine_options.get("max_model_len", 0))
            self.engine = self._load_engine(self._length)
        left = {str(item.request.index): item for item in items}
        adapter = None
        if self.source.adapter:
            from vllm.lora.request import LoRARequest

            adapter = LoRARequest("adapter", 1, self.source.adapter)
        for name, item in left.items():
            prompt = {"prompt_token_ids": item.ids.tolist()}
            self.engine.add_request(name, prompt, self._sampling(item.request), lora_request=adapter)
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                if output.finished:
                    yield self._completion(left.pop(output.request_id), output.outputs[0])

    def _sampling(self, request: Request) -> Any:
        """Decoding with the request's limit and choices."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        settings = self.settings
        guided = StructuredOutputsParams(**_guide(request.choices)) if request.choices else None
        return SamplingParams(
            temperature=(1.0 if settings.temperature is None else settings.temperature) if settings.samples else 0.0,
            top_p=1.0 if settings.top_p is None else settings.top_p,
            max_tokens=request.max_new_tokens,
            # A stop text in a thought is none.
            stop=list(settings.stop) if self.encoder.thinking == "off" else [],
            stop_token_ids=self._ends,
            structured_outputs=guided,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, item: Encoded, output: Any) -> Completion:
        completion, over = self.answered(item, output.token_ids, self._ends)
        if not over and output.finish_reason != "length" and completion.finish_reason == "length":
            return replace(completion, finish_reason="stop")  # at a stop text, which vLLM has cut off
        return completion

    @property
    def _ends(self) -> list[int]:
        return sorted({self.encoder.end, self.encoder.tokenizer.eos_token_id})


def _needed(items: Sequence[Encoded]) -> int:
    """The longest that a prompt and its answer can be together."""
    return max(len(item.ids) + item.request.max_new_tokens for item in items)


def _guide(choices: Choices) -> dict[str, Any]:
    """Choices as vLLM is told of them: a list of terms is a regular expression, which cannot say "each once"."""
    if choices.separator is None:
        return {"choice": list(choices.options)}
    option = "(" + "|".join(map(re.escape, choices.options)) + ")"
    several = f"{option}({re.escape(choices.separator)}{option}){{0,{len(choices.options) - 1}}}"
    return {"regex": f"({several}|{re.escape(choices.nothing)})" if choices.nothing else several}


def _lora_rank(adapter: str) -> int:
    """The rank to make room for."""
    config = adapter_config(adapter)
    rank = next((rank for rank in _RANKS if rank >= getattr(config, "r", 0)), None)
    if config.peft_type.value != "LORA" or rank is None:
        raise PromptCBLUEError(
            f"adapter {adapter}: vLLM runs LoRA up to rank {_RANKS[-1]}, and this is {config.peft_type.value}; use "
            "--backend transformers, or merge it into its backbone"
        )
    return rank


load = VllmBackend
