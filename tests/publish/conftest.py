"""A Hub, and the commands run against it in a process that has it for its endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..hub import Hub, serve

TOKEN = "hf_" + "ThisMustNeverBeSeen"

# Runs commands one after another, so that libraries are imported once. Waiting can be left out: the client tries
# again after seconds that a test has no use for.
_WORKER = """
import contextlib, importlib, io, json, sys, time
answers, wait = sys.stdout, time.sleep
for line in sys.stdin:
    order = json.loads(line)
    slept = []
    time.sleep = (lambda seconds: slept.append(seconds)) if order["hurry"] else wait
    out, err = io.StringIO(), io.StringIO()
    sys.argv = order["words"]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(order["module"]).main()
        except SystemExit as stop:
            code = stop.code
    answer = {"code": code or 0, "out": out.getvalue(), "err": err.getvalue(), "slept": slept}
    print(json.dumps(answer), file=answers, flush=True)
"""
_MODULES = {
    "promptcblue-dataset": "promptcblue_dataset.cli",
    "promptcblue-metric": "promptcblue_metric.cli.main",
    "promptcblue-train": "promptcblue_training.cli",
}


class Done(NamedTuple):
    """What a command did: exit code, both outputs, and the seconds of each wait that was left out."""

    code: int
    out: str
    err: str
    slept: list[float]


class Client:
    """A user's machine: commands, and a home with a log-in in it."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home
        self._log = (home / "log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def environment(self) -> dict[str, str]:
        """What a process needs to be at home here: the endpoint, and no log-in but the one in the home."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        ours = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "HF_HUB_DISABLE_XET": "1"}
        return {**kept, **ours, "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def log_in(self, token: str | None = TOKEN) -> None:
        """As `hf auth login` leaves it."""
        path = self.home / "token"
        if token is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(token)

    def run(self, *words: object, hurry: bool = False) -> Done:
        """Run a command; it must not show the token."""
        assert self._process.stdin
        assert self._process.stdout
        order = {"words": list(map(str, words)), "module": _MODULES[str(words[0])], "hurry": hurry}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        assert answer, self.log()
        done = Done(**answer)
        assert TOKEN not in done.out + done.err + self.log()
        assert "Traceback" not in done.err
        return done

    def python(self, code: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=cwd,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def log(self) -> str:
        """What went to the process's own stderr, past the commands'."""
        return (self.home / "log").read_text(encoding="utf-8")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._log.close()


@pytest.fixture(scope="session")
def served() -> Iterator[Hub]:
    with serve(TOKEN) as hub:
        yield hub


@pytest.fixture(scope="session")
def machine(served: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(served, tmp_path_factory.mktemp("home"))
    yield client
    client.close()


@pytest.fixture
def hub(served: Hub) -> Hub:
    """An empty Hub."""
    served.reset()
    return served


@pytest.fixture
def client(machine: Client) -> Client:
    """A machine with a log-in."""
    machine.log_in()
    return machine


@pytest.fixture(scope="session")
def sample_folder(machine: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded sample, imported."""
    folder = tmp_path_factory.mktemp("imported") / "promptcblue"
    done = machine.run("promptcblue-dataset", "import", "sample", "--output", folder, "--no-cache")
    assert done.code == 0, done.err
    return folder
