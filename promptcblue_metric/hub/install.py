"""Putting the metric where ``evaluate.load("promptcblue")`` finds it without a Hub."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

#: The name under which evaluate caches the Space that a bare ``promptcblue`` stands for.
_CACHE_NAME = "evaluate-metric--promptcblue"


def install() -> Path:
    """Copy the metric's modules into evaluate's module cache, its last resort for a name it cannot find.

    Returns:
        the folder that now holds the metric. Installing the same version again only marks it as the latest.
    """
    from evaluate.loading import init_dynamic_modules

    modules = sorted(Path(__file__).parents[1].glob("*.py"))
    digest = hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()
    metrics = Path(init_dynamic_modules()) / "metrics"
    target = metrics / _CACHE_NAME / digest
    staging = target.with_name(f".{digest}.{os.getpid()}")
    staging.mkdir(parents=True)
    try:
        for module in modules:
            shutil.copyfile(module, staging / module.name)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for package in (metrics, metrics / _CACHE_NAME):
        (package / "__init__.py").touch()
    return target
