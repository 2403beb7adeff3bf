"""How fast each method trains, beside plain padded batches of the same samples in shuffled order.

Both see the same samples at every step, so their losses are compared step by step too. The rows are random characters
whose lengths follow PromptCBLUE's own samples (`LENGTHS`); what is counted are their tokens, without padding. Times
are process times on one thread of the CPU, after a first step that is not counted.

    python benchmarks/train.py [--methods lora full]
    python benchmarks/train.py --trl
    python benchmarks/train.py --heads
    python benchmarks/train.py --gpu [--sizes 1.5b 7b]

With ``--trl``: LoRA as it is trained here beside what TRL's own trainer offers for the same samples a step, on a model
whose head is as large a part of it as Qwen2.5 0.5B's.

With ``--heads``: a pass of LoRA on small backbones with large vocabularies, the head scoring the places before target
tokens alone, as training does it, beside TRL's way on a CPU, which scores every place.

With ``--gpu``: LoRA on random-weight Qwen2.5-style models in bfloat16, with tokens a second, the share of the GPU's
peak that the model's own arithmetic reaches (MFU), and the peak of its memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from datasets import Dataset
from transformers import TrainerCallback

from promptcblue_metric.data.samples import Sample
from promptcblue_training.data import Rows, training_rows
from promptcblue_training.methods import METHODS
from promptcblue_training.processes import quiet_libraries
from promptcblue_training.prompts import PromptEncoder
from promptcblue_training.settings import parse_recipe
from promptcblue_training.tiny import build_model, build_tokenizer
from promptcblue_training.trainer import build_trainer, with_adapter

#: Characters of prompt and target together, at these shares of the official samples (toy train file).
LENGTHS = {0.0: 45, 0.1: 73, 0.25: 92, 0.5: 139, 0.75: 235, 0.9: 851, 1.0: 2038}
#: 3 million parameters, deep enough that attention is a small part, as it is in a model of use.
SMALL = {
    "model_type": "qwen2",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
#: The published sizes of Qwen2.5.
BACKBONES: dict[str, dict[str, Any]] = {
    "1.5b": {
        "model_type": "qwen2",
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
}
#: Sizes of Gemma 3 270M and Qwen2.5 0.5B: small backbones with large vocabularies.
HEADS: dict[str, dict[str, Any]] = {
    "gemma3-270m": {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
        "tie_word_embeddings": True,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}
#: Dense bfloat16 arithmetic of a GPU, in operations a second, by a part of its name (makers' data sheets).
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


@dataclass
class Run:
    """What one fine-tuning did.

    Attributes:
        losses: of each step.
        speed: tokens that are no padding, a second.
        passes: forward and backward passes a step.
    """

    losses: list[float]
    speed: float
    passes: int


class Clock(TrainerCallback):  # type: ignore[misc]
    """The process time at the end of each step."""

    def __init__(self, now: Any) -> None:
        self.now, self.ends = now, list[float]()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(self.now())


def length_mix(count: int, rng: random.Random) -> list[int]:
    """Lengths that follow `LENGTHS`, evenly spread over the shares and shuffled."""
    shares = sorted(LENGTHS)
    lengths = []
    for index in range(count):
        share = (index + 0.5) / count
        below = max(s for s in shares if s <= share)
        above = min(s for s in shares if s > share)
        part = (share - below) / (above - below)
        lengths.append(round(LENGTHS[below] + part * (LENGTHS[above] - LENGTHS[below])))
    rng.shuffle(lengths)
    return lengths


def make_samples(count: int, seed: int) -> list[Sample]:
    """Random texts of the length mix, each with a target of a tenth of it."""
    rng = random.Random(seed)
    characters = [chr(0x4E00 + index) for index in range(500)]
    samples = []
    for index, length in enumerate(length_mix(count, rng)):
        target = max(2, length // 10)
        texts = ["".join(rng.choices(characters, k=size)) for size in (length - target, target)]
        names = {"sample_id": str(index), "task_type": "ner", "task_dataset": "CMeEE-V2"}
        samples.append(Sample(input=texts[0], target=texts[1], answer_choices=None, **names))  # type: ignore[typeddict-item]
    return samples


def in_shuffled_order(rows: Rows, steps: int, batch: int, seed: int) -> Rows:
    """The rows of the first steps, in the order in which the trainer draws them in its first epoch."""
    order = torch.randperm(len(rows.dataset), generator=torch.Generator().manual_seed(seed))[: steps * batch]
    return replace(rows, dataset=rows.dataset.select(order.tolist()))


def small_trainer(method: str, rows: Rows, tokenizer: Any, folder: Path, model: Any, **settings: Any) -> Any:
    """A trainer of a method on a model, on the CPU."""
    recipe = {
        "from_config": SMALL,
        "method": method,
        "output_dir": str(folder),
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "use_cpu": True,
        "seed": 1,
        **settings,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    parsed, training = parse_recipe(path)
    torch.manual_seed(0)
    return build_trainer(parsed, training, with_adapter(parsed, training, model), tokenizer, rows, None)


def train(method: str, rows: Rows, tokenizer: Any, folder: Path, steps: int, batch: int, **settings: Any) -> Run:
    """Fine-tune the small model for some steps."""
    model = build_model(SMALL, tokenizer, seed=0)
    trainer = small_trainer(method, rows, tokenizer, folder, model, batch_size=batch, max_steps=steps, **settings)
    training = trainer.args
    clock = Clock(time.process_time)
    trainer.add_callback(clock)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    counted = in_shuffled_order(rows, steps, batch, 1) if training.train_sampling_strategy != "sequential" else rows
    tokens = sum(map(len, counted.dataset["input_ids"][batch:]))
    return Run(losses, tokens / (clock.ends[-1] - clock.ends[0]), training.gradient_accumulation_steps)


def compare(methods: Sequence[str], steps: int, batch: int) -> bool:
    """Print each method's speed beside plain padded batches; whether all reach what the README says."""
    torch.set_num_threads(1)
    samples = make_samples(steps * batch, seed=0)
    tokenizer = build_tokenizer([sample["input"] + sample["target"] for sample in samples])
    rows = training_rows(samples, PromptEncoder(tokenizer), 2048, "length mix")
    plain_rows = in_shuffled_order(rows, steps, batch, 1)
    lengths = sorted(map(len, rows.dataset["input_ids"]))
    print(
        f"{len(lengths)} samples, {batch} a step; tokens: median {statistics.median(lengths):.0f}, "
        f"mean {statistics.mean(lengths):.0f}, longest {lengths[-1]}"
    )
    print(f"{'method':18} {'plain':>9} {'grouped':>9} {'ratio':>6} {'packed':>9} {'ratio':>6}  largest loss difference")
    enough = True
    for method in methods:
        plain, grouped, packed = (
            _timed(method, chosen, tokenizer, steps, batch, settings)
            for chosen, settings in (
                (plain_rows, {**_PLAIN, "per_device_train_batch_size": 8}),
                (rows, {"batch_tokens": 2048, "padding_free": False}),
                (rows, {"batch_tokens": 512} if METHODS[method].packs else None),
            )
        )
        assert plain
        assert grouped
        gap = max(_gap(plain, run) for run in (grouped, packed) if run)
        second = f"{packed.speed:9,.0f} {packed.speed / plain.speed:6.2f}" if packed else f"{'-':>9} {'-':>6}"
        print(
            f"{method:18} {plain.speed:9,.0f} {grouped.speed:9,.0f} {grouped.speed / plain.speed:6.2f} {second}  "
            f"{gap:.5f} of {plain.losses[0]:.3f} to {plain.losses[-1]:.3f}",
            flush=True,
        )
        enough &= grouped.speed >= 1.3 * plain.speed and (packed is None or packed.speed >= 2 * plain.speed)
    print("real tokens a second of process time on one thread")
    return enough


_PLAIN = {"train_sampling_strategy": "sequential", "padding_free": False}


def _timed(
    method: str, rows: Rows, tokenizer: Any, steps: int, batch: int, settings: dict[str, Any] | None
) -> Run | None:
    if settings is None:
        return None
    with TemporaryDirectory() as folder:
        return train(method, rows, tokenizer, Path(folder), steps, batch, **settings)


def _gap(one: Run, other: Run) -> float:
    return max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))


def compare_trl(steps: int, batch: int) -> bool:
    """Print the speed of TRL's settings and of ours in one run; whether ours is as fast as the best of TRL's."""
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    samples = make_samples(steps * batch, seed=0)
    tokenizer = build_tokenizer([sample["input"] + sample["target"] for sample in samples])
    rows = training_rows(samples, PromptEncoder(tokenizer), 2048, "length mix")
    fields = {**SMALL, "vocab_size": 4096, "pad_token_id": tokenizer.pad_token_id}
    kind = fields.pop("model_type")

    def model() -> Any:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields))

    def plain(**settings: Any) -> Any:
        common = {"max_length": None, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "seed": 1}
        quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
        config = SFTConfig(**{**common, **quiet, "num_train_epochs": 1, "output_dir": folder, **settings})
        adapter = LoraConfig(r=24, lora_alpha=48, target_modules="all-linear", task_type="CAUSAL_LM")
        return SFTTrainer(model(), config, train_dataset=rows.dataset, processing_class=tokenizer, peft_config=adapter)

    def ours(**settings: Any) -> Any:
        whole = {"batch_size": batch, "max_steps": steps, "logging_steps": steps, **settings}
        return small_trainer("lora", rows, tokenizer, Path(folder), model(), **whole)

    eights = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": batch // 8}
    ways: dict[str, Any] = {
        "TRL, batches of 8, padded": lambda: plain(**eights),
        "TRL, batches of 8, by length": lambda: plain(**eights, train_sampling_strategy="group_by_length"),
        "TRL, batches of 8, padding-free": lambda: plain(**eights, padding_free=True),
        "TRL, packed to 2,048": lambda: plain(
            packing=True, max_length=2048, per_device_train_batch_size=1, gradient_accumulation_steps=4
        ),
        "TRL, one sample at a time": lambda: plain(per_device_train_batch_size=1, gradient_accumulation_steps=batch),
        "here, grouped": lambda: ours(batch_tokens=2048, padding_free=False),
        "here, without padding": lambda: ours(batch_tokens=512),
    }
    speeds = {}
    for name, make in ways.items():
        with TemporaryDirectory() as folder:
            speeds[name] = speed_of(make())
        print(f"{name:32} {speeds[name]:8,.0f}", flush=True)
    best = max(speed for name, speed in speeds.items() if name.startswith("TRL"))
    own = max(speed for name, speed in speeds.items() if name.startswith("here"))
    print(f"real tokens a second of process time on one thread; here against the best of TRL's: {own / best:.2f}")
    return own >= best


def speed_of(trainer: Any) -> float:
    """Real tokens a second of process time, the first step not counted."""
    clock, step, counts = Clock(time.process_time), trainer.training_step, [0]

    def counted(model: Any, inputs: Any, *rest: Any) -> Any:
        kept = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
        counts[-1] += int(kept)
        return step(model, inputs, *rest)

    class Next(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            counts.append(0)

    trainer.training_step = counted
    trainer.add_callback(clock)
    trainer.add_callback(Next())
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    return sum(counts[1:]) / (clock.ends[-1] - clock.ends[0])


def compare_heads(passes: int) -> bool:
    """Print the time of a pass with every place scored and with the targets alone; whether the second is faster."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl import SFTTrainer

    torch.set_num_threads(1)
    samples = make_samples(1, seed=0)
    tokenizer = build_tokenizer([sample["input"] + sample["target"] for sample in samples])
    ids = torch.randint(10, 500, (1, 400), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(400) < 368, -100, ids)
    print(f"{'backbone':14} {'vocabulary':>10} {'every place':>12} {'targets':>9} {'ratio':>6}  losses")
    enough = True
    for name, config in HEADS.items():
        fields = {key: value for key, value in config.items() if key != "model_type"}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
        rows = training_rows(samples, PromptEncoder(tokenizer), 2048, "one sample")
        with TemporaryDirectory() as folder:
            trainer = small_trainer("lora", rows, tokenizer, Path(folder), model, max_steps=1, padding_free=False)
        times: dict[str, list[float]] = {"every": [], "targets": []}
        losses = {}
        for _ in range(passes + 1):
            for way, kind in (("every", SFTTrainer), ("targets", type(trainer))):
                start = time.process_time()
                inputs = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
                loss = kind.compute_loss(trainer, trainer.model, inputs)
                loss.backward()
                times[way].append(time.process_time() - start)
                losses[way] = float(loss.detach())
        every, targets = (statistics.median(times[way][1:]) for way in ("every", "targets"))
        print(
            f"{name:14} {config['vocab_size']:10,} {every:10.2f} s {targets:7.2f} s {every / targets:6.2f}  "
            f"{losses['every']:.6f} {losses['targets']:.6f}",
            flush=True,
        )
        enough &= every > 1.3 * targets
    print("process time of a pass forward and backward on one thread: 400 tokens, 32 of them targets, LoRA of rank 24")
    return enough


def measure_backbone(name: str, config: dict[str, Any], device: torch.device, steps: int, batch_tokens: int) -> None:
    """Print speed, MFU and memory of LoRA on a random-weight model in bfloat16, packed to ``batch_tokens``."""
    from transformers import AutoConfig, AutoModelForCausalLM

    samples = make_samples(steps * 64, seed=0)
    tokenizer = build_tokenizer([sample["input"] + sample["target"] for sample in samples])
    rows = training_rows(samples, PromptEncoder(tokenizer), 2048, "length mix")
    fields = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(config["model_type"], **fields), dtype=torch.bfloat16
        )
    with TemporaryDirectory() as folder:
        recipe = Path(folder, "recipe.yaml")
        recipe.write_text(
            yaml.safe_dump(
                {
                    "from_config": config,
                    "method": "lora",
                    "output_dir": folder,
                    "batch_size": 64,
                    "batch_tokens": batch_tokens,
                    "max_steps": steps,
                    "gradient_checkpointing": False,
                    "logging_steps": steps,
                    "save_strategy": "no",
                    "eval_strategy": "no",
                    "use_cpu": device.type == "cpu",
                }
            ),
            encoding="utf-8",
        )
        parsed, training = parse_recipe(recipe)
        trainer = build_trainer(parsed, training, with_adapter(parsed, training, model), tokenizer, rows, None)
        clock = Clock(lambda: _synchronised(device))
        trainer.add_callback(clock)
        trainer.train()
    counted: Dataset = in_shuffled_order(rows, steps, 64, training.seed).dataset
    lengths = torch.tensor([len(ids) for ids in counted["input_ids"][64:]], dtype=torch.float64)
    seconds = clock.ends[-1] - clock.ends[0]
    speed = float(lengths.sum()) / seconds
    peak = next((value for part, value in PEAKS.items() if part in _device_name(device)), None)
    mfu = f"{operations(model, config, lengths) / seconds / peak:.1%}" if peak else "unknown device"
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    print(
        f"{name}: {speed:,.0f} tokens/s, MFU {mfu}, peak memory {memory:.1f} GiB ({_device_name(device)})", flush=True
    )


def operations(model: Any, config: dict[str, Any], lengths: torch.Tensor) -> float:
    """Arithmetic that LoRA on the model needs for rows of these lengths: nothing recomputed, no padding.

    Two operations a weight and token forward, two backward to the inputs (the frozen weights have no gradient of
    their own), and causal attention within each row.
    """
    weights = sum(
        parameter.numel() for name, parameter in model.named_parameters() if parameter.ndim == 2 and "embed" not in name
    )
    if config["tie_word_embeddings"]:
        weights += config["vocab_size"] * config["hidden_size"]
    attention = 3 * 2 * config["num_hidden_layers"] * config["hidden_size"] * (lengths**2).sum()
    return float(4 * weights * lengths.sum() + attention)


def _synchronised(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def main() -> int:
    """The exit code: 1 where a method is slower than the README says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--steps", type=int, default=4, help="the first is not counted")
    parser.add_argument("--batch", type=int, default=32, help="samples a step")
    parser.add_argument("--trl", action="store_true", help="beside the settings of TRL's own trainer")
    parser.add_argument("--heads", action="store_true", help="every place scored, or the targets alone")
    parser.add_argument("--gpu", action="store_true", help="LoRA on models of real sizes")
    parser.add_argument("--sizes", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--batch-tokens", type=int, default=16384, help="with --gpu: tokens a pass")
    arguments = parser.parse_args()
    quiet_libraries()
    if arguments.trl:
        return 0 if compare_trl(arguments.steps, arguments.batch) else 1
    if arguments.heads:
        return 0 if compare_heads(arguments.steps) else 1
    if not arguments.gpu:
        return 0 if compare(arguments.methods, arguments.steps, arguments.batch) else 1
    if not torch.cuda.is_available():
        print("--gpu: there is no CUDA device here", file=sys.stderr)
        return 1
    for name in arguments.sizes:
        measure_backbone(name, BACKBONES[name], torch.device("cuda"), arguments.steps, arguments.batch_tokens)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return 0


if __name__ == "__main__":
    sys.exit(main())
