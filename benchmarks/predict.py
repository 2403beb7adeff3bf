"""Samples a second: this project's prediction, and a plain loop that calls generate on batches of 8 in file order.

Both run in one process on the same model and give greedy answers, which must be identical. The model is small and was
fine-tuned first, so that its answers end, on the train split of what is then predicted: the official toy samples where
they lie in ../shared, else the embedded sample. Seconds on a CPU are those of the process, on one thread.

    python benchmarks/predict.py [--model FOLDER_OR_ID] [--samples N]

On a GPU it prints the tokens a second of the transformers backend, and of the vLLM backend where that is installed;
give a model of real size with --model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promptcblue_dataset import load_samples
from promptcblue_metric.data.samples import Sample
from promptcblue_training.backends import Backend, BackendSettings, Completion, Request, load_backend
from promptcblue_training.backends.transformers import TransformersBackend
from promptcblue_training.data import Splits
from promptcblue_training.predict import answer_limits

TOY = Path(__file__).parents[2] / "shared" / "data" / "promptcblue_toy"
#: One limit for every task, which the plain loop has to have.
LIMIT = 512
_BATCH = 8


def train(dataset: Path | str, folder: Path, steps: int) -> None:
    """Fine-tune a small model until its answers end."""
    from promptcblue_training.sft import main as fine_tune

    recipe = folder.with_suffix(".yaml")
    settings = {
        "dataset": str(dataset),
        "from_config": {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.1,
            "tie_word_embeddings": True,
        },
        "method": "full",
        "learning_rate": 5e-3,
        "batch_size": 16,
        "per_device_train_batch_size": 16,
        "max_steps": steps,
        "save_steps": steps,
        "save_total_limit": 1,
        "logging_steps": steps,
        "gradient_checkpointing": False,
        "eval_strategy": "no",
        "output_dir": str(folder),
    }
    recipe.write_text(json.dumps(settings), encoding="utf-8")
    fine_tune([str(recipe)])


def plain_loop(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each answer, by what a first script would do."""
    tokenizer.padding_side = "left"
    answers = []
    for start in range(0, len(prompts), _BATCH):
        batch = tokenizer(list(prompts[start : start + _BATCH]), return_tensors="pt", padding=True).to(model.device)
        batch.pop("token_type_ids", None)
        output = model.generate(**batch, max_new_tokens=LIMIT)
        answers += [row[batch["input_ids"].shape[1] :].tolist() for row in output]
    return answers


def timed(run: Callable[[], Any], device: str) -> tuple[Any, float]:
    """What a call returns, and its seconds: on a CPU those of this process, so that what else runs does not count."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    result = run()
    return result, clock() - started


def collect(backend: Backend, requests: Sequence[Request]) -> dict[int, Completion]:
    """Completions by request; a failure ends the benchmark."""
    made = {}
    for result in backend.generate(requests):
        assert isinstance(result, Completion), result
        made[result.index] = result
    return made


def compare(settings: BackendSettings, samples: Sequence[Sample], dataset: Path | str, rounds: int) -> None:
    """Print the samples a second of both, and how they compare."""
    import torch

    backend = TransformersBackend(settings)
    if backend.device.type == "cpu":
        torch.set_num_threads(1)
    model, tokenizer = backend.model, backend.encoder.tokenizer
    prompts = [sample["input"] for sample in samples]
    requests = [Request(index, prompt, LIMIT) for index, prompt in enumerate(prompts)]
    tasks = list(dict.fromkeys(sample["task_dataset"] for sample in samples))
    limits = answer_limits(Splits(str(dataset)), tasks, backend)
    own = [replace(each, max_new_tokens=limits[samples[each.index]["task_dataset"]]) for each in requests]
    device = backend.device.type
    slow, fast, faster = [], [], []
    for _ in range(rounds):
        with torch.inference_mode():
            rows, seconds = timed(lambda: plain_loop(model, tokenizer, prompts), device)
        slow.append(seconds)
        made, seconds = timed(lambda: collect(backend, requests), device)
        fast.append(seconds)
        limited, seconds = timed(lambda: collect(backend, own), device)
        faster.append(seconds)

    def text(ids: list[int]) -> str:
        end = next((place for place, token in enumerate(ids) if token in backend.ends), len(ids))
        return backend.encoder.decode(ids[:end])

    texts = [text(ids) for ids in rows]
    same = sum(made[index].text == text for index, text in enumerate(texts))
    # A task's own limit may be the shorter one or the longer one.
    begun = sum(
        text.startswith(limited[index].text) or limited[index].text.startswith(text) for index, text in enumerate(texts)
    )
    ended = sum(each.finish_reason == "stop" for each in made.values())
    count = len(samples)
    print(
        f"{count} samples, {sum(each.new_tokens for each in made.values())} tokens, {ended} answers ended by themselves"
    )
    print(f"best of {rounds} rounds each:")
    base = min(slow)
    print(f"  plain loop, batches of {_BATCH}: {count / base:6.1f} samples/s")
    print(
        f"  one limit for all tasks:   {count / min(fast):6.1f} samples/s, {base / min(fast):.1f} times; "
        f"{same} of {count} answers identical"
    )
    print(
        f"  a limit for each task:     {count / min(faster):6.1f} samples/s, {base / min(faster):.1f} times; "
        f"{begun} of {count} identical up to the shorter limit"
    )


def tokens_a_second(settings: BackendSettings, samples: Sequence[Sample]) -> None:
    """Print the generated tokens a second of each backend that is here."""
    requests = [Request(index, sample["input"], 128) for index, sample in enumerate(samples)]
    every = [settings, *([replace(settings, name="vllm")] if find_spec("vllm") else [])]
    for each in every:
        backend = load_backend(each)
        collect(backend, requests[:1])  # loads the model
        made, seconds = timed(lambda backend=backend: collect(backend, requests), "gpu")  # type: ignore[misc]
        tokens = sum(each.new_tokens for each in made.values())
        print(f"{each.name}: {tokens / seconds:.0f} tokens/s, {len(made) / seconds:.1f} samples/s")


def main() -> None:
    """Train, compare, and on a GPU measure tokens."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or Hub id in place of the small model")
    parser.add_argument("--samples", type=int, default=160, help="how many to predict (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=200, help="of the small model's fine-tuning (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of which the best counts (default: %(default)s)")
    arguments = parser.parse_args()
    dataset = TOY if TOY.is_dir() else "sample"
    samples = [sample for split in ("train", "validation") for sample in load_samples(dataset, split)]
    samples = samples[: arguments.samples]
    with TemporaryDirectory() as scratch:
        model = arguments.model or str(Path(scratch) / "model")
        if not arguments.model:
            train(dataset, Path(model), arguments.steps)
        settings = BackendSettings(model=model)
        compare(settings, samples, dataset, arguments.rounds)
        if torch.cuda.is_available():
            tokens_a_second(settings, samples)


if __name__ == "__main__":
    main()
