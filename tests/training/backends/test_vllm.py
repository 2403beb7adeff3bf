"""The ``vllm`` backend around a stand-in for the engine, which takes what the real one takes and echoes tokens.

What the real one answers is checked by benchmarks/vllm_check.py, where it can be installed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.backends import BackendSettings, Completion, Request, load_backend


class Engine:
    """Answers each request with the same tokens, the last request first."""

    def __init__(self, answer: list[int], **options: Any) -> None:
        self.answer, self.options = answer, options
        self.asked: list[tuple[str, Any, Any]] = []

    def add_request(self, name: str, prompt: Any, sampling: Any, lora_request: Any) -> None:
        assert len(prompt["prompt_token_ids"]) + sampling.max_tokens <= self.options["max_model_len"]
        self.asked.append((name, prompt, sampling))

    def has_unfinished_requests(self) -> bool:
        return bool(self.asked)

    def step(self) -> list[Any]:
        name, _, sampling = self.asked.pop()
        ids = self.answer[: sampling.max_tokens]
        reason = "length" if len(ids) < len(self.answer) else "stop"
        return [
            SimpleNamespace(
                finished=True, request_id=name, outputs=[SimpleNamespace(token_ids=ids, finish_reason=reason)]
            )
        ]


@pytest.fixture
def engines(trained: Path, monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines that are loaded."""
    from promptcblue_training.model import load_tokenizer

    tokenizer = load_tokenizer(str(trained))
    answer = [*tokenizer("高血压", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    made: list[Engine] = []

    def load(model: str, tokenizer: str, **options: Any) -> Any:
        made.append(Engine(answer, **options))
        return SimpleNamespace(llm_engine=made[-1])

    module, sampling = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    module.__dict__.update(LLM=load, SamplingParams=SimpleNamespace, __version__="0")
    sampling.__dict__.update(RequestOutputKind=SimpleNamespace(FINAL_ONLY=2), StructuredOutputsParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)
    return made


def test_the_engine_is_as_long_as_the_prompts_need_and_is_told_what_was_said(
    trained: Path, engines: list[Engine]
) -> None:
    told = ("gpu_memory_utilization=0.5", "quantization=fp8", "enforce_eager=true")
    backend = load_backend(BackendSettings(model=str(trained), name="vllm", engine=told, batch_size=7))
    requests = [Request(number, "患" * (10 + number), 5) for number in range(3)]
    results = {result.index: result for result in backend.generate(requests)}
    assert all(isinstance(result, Completion) and result.text == "高血压" for result in results.values())
    (engine,) = engines
    assert engine.options["max_model_len"] == 1 + 12 + 5
    expected = {"gpu_memory_utilization": 0.5, "quantization": "fp8", "enforce_eager": True, "max_num_seqs": 7}
    assert expected.items() <= engine.options.items()
    # Longer prompts get a longer engine, and shorter ones the same.
    list(backend.generate([Request(0, "患" * 50, 5)]))
    list(backend.generate(requests))
    assert [each.options["max_model_len"] for each in engines] == [18, 56]


def test_a_length_that_was_said_is_kept_and_prompts_cut_to_it(trained: Path, engines: list[Engine]) -> None:
    backend = load_backend(BackendSettings(model=str(trained), name="vllm", engine=("max_model_len=40",)))
    (result,) = backend.generate([Request(0, "患" * 100, 2)])
    assert isinstance(result, Completion)
    assert (result.prompt_tokens, result.cut, result.text, result.finish_reason) == (38, True, "高血", "length")
    assert engines[0].options["max_model_len"] == 40
    with pytest.raises(PromptCBLUEError, match="KEY=VALUE"):
        load_backend(BackendSettings(model=str(trained), name="vllm", engine=("max_model_len",)))
