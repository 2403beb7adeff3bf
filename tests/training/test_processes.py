"""Two processes train as one does, each with the whole model or a part of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptcblue_training.methods import DEEPSPEED, FSDP
from promptcblue_training.methods import METHODS as REGISTRY

from .conftest import RECIPE, Fit
from .test_methods import METHODS, settings
from .test_sft import log, weights

#: Trains by every recipe in one pair of processes, since most of a short run's time goes into imports.
DRIVER = """
import sys
import promptcblue_training.sft as sft
for recipe in sys.argv[1:]:
    sft.main([recipe])
"""


#: As above with each run once more, cut short. Accelerate takes FSDP for one of accelerators, and CPUs for none.
SHARDED_DRIVER = """
import os, shutil, sys
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
import promptcblue_training.sft as sft
if os.environ.get("ACCELERATE_USE_FSDP"):
    PartialState(cpu=True).distributed_type = DistributedType.MULTI_XPU
for recipe in sys.argv[1:]:
    sft.main([recipe])
    whole = recipe.removesuffix(".yaml")
    if os.environ["RANK"] == "0":
        shutil.copytree(whole + "/checkpoint-4", whole + "-cut/checkpoint-4")
        shutil.copy(whole + "/run.json", whole + "-cut")
    torch.distributed.barrier()
    sft.main([recipe, "--output_dir", whole + "-cut"])
"""


#: What accelerate's launcher sets for FSDP2 with checkpoints in parts, and for ZeRO-3.
SHARDED = {
    FSDP: {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    },
    DEEPSPEED: {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        "DS_ACCELERATOR": "cpu",
    },
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SHARDED)
def test_two_processes_with_a_part_of_the_weights_each_train_choose_and_go_on_as_one_does(
    kind: str, fit: Fit, trained: Path, data: Path, tmp_path: Path
) -> None:
    """The chosen one of the checkpoints becomes the model. DeepSpeed is tried where it is installed."""
    if kind == DEEPSPEED:
        pytest.importorskip("deepspeed")
    driver = tmp_path / "driver.py"
    driver.write_text(SHARDED_DRIVER)
    methods = [name for name, method in REGISTRY.items() if method.shards]
    changes = {"save_steps": 2, "eval_strategy": "steps", "eval_steps": 4, "checkpoint_choice": "best"}
    recipes = []
    for method in methods:
        recipe = {**RECIPE, "dataset": str(data), **changed(method, trained), **changes}
        recipe |= {"output_dir": str(tmp_path / method), "per_device_train_batch_size": 4}
        recipe |= {"accelerator_config": {"use_configured_state": kind == FSDP}}
        path = tmp_path / f"{method}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
        recipes.append(str(path))
    result = torchrun(2, str(driver), *recipes, **SHARDED[kind])
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.count("going on from") == len(methods)
    for method in methods:
        assert kind != FSDP or (tmp_path / method / "checkpoint-4" / "pytorch_model_fsdp_0").is_dir()
        alone = fit(**{**changed(method, trained), **changes})
        for together in (tmp_path / method, tmp_path / f"{method}-cut"):
            assert losses(together) == pytest.approx(losses(alone), abs=1e-4), method
            assert json.loads((together / "checkpoint_choice.json").read_text())["step"] == 4
            expected, found = weights(alone), weights(together)
            # Gathered weights are no longer known to be the same ones, and both are written.
            assert found.keys() - expected.keys() <= {"lm_head.weight"}
            for name, tensor in expected.items():
                assert tensor.sub(found[name]).abs().sum() <= 1e-5 * max(1, tensor.numel()), (method, name)


@pytest.mark.timeout(600)
def test_two_processes_train_every_method_as_one_does(fit: Fit, trained: Path, data: Path, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    recipes = []
    for method in METHODS:
        recipe = {**RECIPE, "dataset": str(data), **changed(method, trained), "processes": 2}
        recipe |= {"output_dir": str(tmp_path / method), "per_device_train_batch_size": 4}
        path = tmp_path / f"{method}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
        recipes.append(str(path))
    result = torchrun(2, str(driver), *recipes)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.count("on 2 process(es)") == len(METHODS)  # once each, and by one process only
    for method in METHODS:
        alone = fit(**changed(method, trained))
        together = tmp_path / method
        assert losses(together) == pytest.approx(losses(alone), abs=1e-4), method
        expected, found = weights(alone), weights(together)
        assert {name: tensor.shape for name, tensor in found.items()} == {
            name: tensor.shape for name, tensor in expected.items()
        }
        for name, tensor in expected.items():
            assert tensor.sub(found[name]).abs().sum() <= 1e-5 * max(1, tensor.numel()), (method, name)


def changed(method: str, trained: Path) -> dict[str, Any]:
    return settings(method, trained, max_steps=6, save_steps=100)


def losses(folder: Path) -> list[float]:
    return [entry[key] for entry in log(folder) for key in ("loss", "orthogonality", "eval_loss") if key in entry]


def torchrun(processes: int, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run(
        [*launcher, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
