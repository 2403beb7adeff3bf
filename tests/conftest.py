"""Fixtures that the tests of all three pieces share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every run and machine, and no failure for being slow on a busy one.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

Run = Callable[..., subprocess.CompletedProcess[str]]
SampleRows = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Official samples and the official scorer's answers, which are not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("the official samples (../shared) are not here")
    return SHARED


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf_home")


@pytest.fixture(scope="session")
def run_python(hub_cache: Path) -> Run:
    """Run a Python program in a process of its own, with caches of its own and no way to a hub."""

    def run(code: str, *args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        settings = {"HF_HOME": str(hub_cache), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_EVALUATE_OFFLINE": "1"}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=cwd,
            env={**os.environ, **settings, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def sample_rows() -> SampleRows:
    """The rows of a split of the embedded sample."""

    def rows(split: str) -> list[dict[str, Any]]:
        path = ROOT / "promptcblue_dataset" / "sample" / f"{split}.json"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return rows
