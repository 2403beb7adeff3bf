"""A small dataset, a smaller model, and recipes that train in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..conftest import SampleRows

Fit = Callable[..., Path]

#: One layer, sixty-four wide: learns little, and quickly.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
RECIPE: dict[str, Any] = {
    "from_config": CONFIG,
    "method": "full",
    "learning_rate": 5e-3,
    "warmup_steps": 0,
    "weight_decay": 0,
    "num_train_epochs": 3,
    "max_length": 1024,
    "eval_strategy": "no",
    "batch_size": 8,
    "per_device_train_batch_size": 8,
    "max_steps": 30,
    "save_steps": 10,
    "save_total_limit": 1,
    "logging_steps": 10,
    "gradient_checkpointing": False,
    "use_cpu": True,
}


@pytest.fixture(autouse=True, scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No hub, which a test could only wait for, and one thread: models this small are no faster with more, and test
    processes side by side far slower.
    """
    import datasets
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, sample_rows: SampleRows) -> Path:
    """Two train samples a task, and one each to validate and to test, in the official form."""
    folder = tmp_path_factory.mktemp("data")
    for split, each in (("train", 2), ("dev", 1), ("test", 1)):
        kept: dict[str, list[dict[str, Any]]] = {}
        for row in sample_rows(split):
            kept.setdefault(row["task_dataset"], []).append(row)
        rows = [row for task in kept.values() for row in task[:each]]
        write_rows(folder / f"{split}.json", rows)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def fit(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Fine-tune by the small recipe with some settings changed; returns the output folder."""

    def run(*arguments: str, **changes: Any) -> Path:
        from promptcblue_training.sft import main

        folder = Path(changes.pop("output_dir", None) or tmp_path_factory.mktemp("model"))
        recipe = {**RECIPE, "dataset": str(data), "output_dir": str(folder), **changes}
        path = folder.with_name(f"{folder.name}.yaml")
        path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
        main([str(path), *arguments])
        return folder

    return run


@pytest.fixture(scope="session")
def trained(fit: Fit) -> Path:
    """A model that was trained in full until it says different things to different prompts."""
    return fit(max_steps=80, logging_steps=20)
