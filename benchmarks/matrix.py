"""The tests on each Python and with each set of library versions that setup.cfg promises, in environments of their own.

    python benchmarks/matrix.py                          # every job, on the interpreters that are here
    python benchmarks/matrix.py base --python 3.13       # one job on one Python
    python benchmarks/matrix.py lowest --tests tests/metric/test_scoring.py

``base`` and ``train`` take the newest versions there are, ``lowest`` and ``lowest-train`` the lower bounds themselves
(uv's ``lowest-direct``). A job whose interpreter is not here is named and does not count. uv does the installing, and
heeds its own environment variables (``UV_CONSTRAINT``, ``UV_FIND_LINKS``, ``UV_PYTHON_DOWNLOADS``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Job(NamedTuple):
    """Extras on some Pythons, with the newest or the lowest versions of what setup.cfg names, and what is run there."""

    pythons: Sequence[str]
    extras: str
    tests: Sequence[str]
    lowest: bool = False


def _tests(folder: str, *names: str) -> list[str]:
    return [f"tests/{folder}/test_{name}.py" for name in names]


#: Without what needs torch or Gradio.
BASE = [
    *_tests("metric", "answers", "chip2023", "cli", "evaluate", "scoring", "tasks", "terminal"),
    *("tests/metric/compare", "tests/metric/data", "tests/metric/submit", "tests/dataset"),
]
TRAIN = _tests("training", "data", "methods", "predict", "recipes", "settings", "sft", "trainer")
JOBS: Mapping[str, Job] = {
    "base": Job(("3.10", "3.11", "3.12", "3.13", "3.14"), "test-base", BASE),
    "train": Job(("3.11", "3.12", "3.13"), "train,test-base", TRAIN),
    "lowest": Job(("3.10",), "test-base", BASE, lowest=True),
    "lowest-train": Job(("3.11",), "train,test-base", TRAIN, lowest=True),
}


def uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run uv as a module of this Python, which is how pip installs it."""
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def find_python(version: str) -> Path | None:
    """An interpreter of a version: one that uv finds or may fetch, or one of pyenv's."""
    found = uv("python", "find", version)
    fetches = os.environ.get("UV_PYTHON_DOWNLOADS") != "never"
    if found.returncode and fetches and not uv("python", "install", version).returncode:
        found = uv("python", "find", version)
    if not found.returncode:
        return Path(found.stdout.strip())
    pyenv = shutil.which("pyenv")
    root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip() if pyenv else ""
    return max(Path(root).glob(f"versions/{version}.*/bin/python"), default=None) if root else None


def make_environment(folder: Path, python: Path, *installed: str) -> Path:
    """An environment with something installed; its interpreter. One that is there is added to.

    Raises:
        RuntimeError: says what uv says.
    """
    made = uv("venv", "--allow-existing", "-p", python, folder)
    done = made if made.returncode else uv("pip", "install", "-p", folder, *installed)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return folder / "bin" / "python"


def _versions(python: Path) -> str:
    """What a reader wants to know of an environment's versions."""
    shown = (
        "datasets",
        "evaluate",
        "huggingface-hub",
        "numpy",
        "pyarrow",
        "typer",
        "torch",
        "transformers",
        "trl",
        "peft",
    )
    listed = dict(line.split("==") for line in uv("pip", "freeze", "-p", python).stdout.splitlines() if "==" in line)
    return ", ".join(f"{name} {listed[name]}" for name in shown if name in listed)


def _run(job: Job, python: Path, folder: Path, tests: Sequence[str]) -> Iterator[str]:
    """Install, test, and say what came of it: ``passed`` first if it is so."""
    options = ["--reinstall-package", "promptcblue", *(["--resolution", "lowest-direct"] if job.lowest else [])]
    try:
        interpreter = make_environment(folder, python, *options, f"{ROOT}[{job.extras}]")
    except RuntimeError as error:
        yield f"cannot be installed: {error}"
        return
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    command = [str(interpreter), "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env={**kept, **settings}, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    if done.returncode:
        yield "failed"
        yield from (line for line in lines if line.startswith(("FAILED", "ERROR", "E  ")))
    else:
        yield "passed"
    yield lines[-1].strip("= ")
    yield _versions(interpreter)


def main() -> None:
    """Run the jobs that are asked for; exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", choices=[*JOBS, []], metavar="JOB", help=f"one of {', '.join(JOBS)}")
    parser.add_argument("--python", action="append", metavar="X.Y", help="this version alone; repeatable")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="these tests, in place of the job's own")
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="keep the environments here, for the next time"
    )
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.jobs or JOBS:
            job = JOBS[name]
            for version in (version for version in job.pythons if version in (given.python or job.pythons)):
                python, started = find_python(version), time.monotonic()
                if python is None:
                    print(f"{name} on Python {version}: no such interpreter here", flush=True)
                    continue
                folder = (given.environments or Path(scratch)) / f"{name}-{version}"
                verdict, *lines = _run(job, python, folder, given.tests or job.tests)
                failed += verdict != "passed"
                seconds = time.monotonic() - started
                print(f"{name} on Python {version}: {verdict} after {seconds:.0f} s", *lines, sep="\n  ", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
