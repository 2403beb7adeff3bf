"""Two processes train as one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=500, check=False)
