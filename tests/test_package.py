"""The wheel, installed alone, is the whole product."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from promptcblue_metric.errors import install_command

from .conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("promptcblue-*.whl")
    return built


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, installed_as in {
        "promptcblue_metric": "promptcblue_metric",
        "promptcblue_dataset": "promptcblue_dataset",
        "training": "promptcblue_training",
    }.items():
        tracked = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert tracked
        missing = {installed_as + path.removeprefix(folder) for path in tracked} - names
        assert not missing, f"add to packages or package_data in setup.cfg: {sorted(missing)}"
    assert not any(name.startswith(("tests/", "training/")) for name in names)


def test_the_wheel_works_installed_alone(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    # The dependencies come from the surrounding environment; the project itself only from the wheel.
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    code = f"""
import sys
sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.path.insert(0, {str(packages)!r})
import promptcblue_dataset, promptcblue_metric, promptcblue_training
for module in (promptcblue_dataset, promptcblue_metric, promptcblue_training):
    assert module.__file__.startswith({str(packages)!r}), module.__file__
from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.evaluation import Evaluation
evaluation = Evaluation()
for sample in load_samples("sample", "test"):
    evaluation.add(sample["target"], sample)
print(len(evaluation.result()["tasks"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "16"
    scripts = (next(packages.glob("promptcblue-*.dist-info")) / "entry_points.txt").read_text()
    for command in ("promptcblue-dataset", "promptcblue-metric", "promptcblue-train"):
        assert command in scripts


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        ("from promptcblue_training.cli import main; sys.argv[1:] = ['sft', 'demo']", "torch", "train"),
        ("from promptcblue_training.cli import main; sys.argv[1:] = ['predict', '--model', 'x', '--dataset', 'sample',"
         " '--output', 'x']", "torch", "train"),
    ],
)  # fmt: skip
def test_a_command_without_its_extra_says_which_one_it_needs(
    command: str, library: str, extra: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; {command}; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert install_command(extra) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("came_from", "arguments"),
    [
        ({"url": "file:///home/me/a%20b", "dir_info": {"editable": True}}, ["-e", "/home/me/a b[report]"]),
        ({"url": "file:///home/me/a%20b", "dir_info": {}}, ["/home/me/a b[report]"]),
        (
            {"url": "https://host/repo", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            ["promptcblue[report] @ git+https://host/repo"],
        ),
        (
            {"url": "file:///tmp/promptcblue.whl", "archive_info": {}},
            ["promptcblue[report] @ file:///tmp/promptcblue.whl"],
        ),
        (None, ["promptcblue[report]"]),
    ],
    ids=["editable", "folder", "repository", "wheel", "index"],
)
def test_an_extra_is_installed_from_where_the_package_came(
    came_from: dict[str, object] | None, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "promptcblue-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: promptcblue\nVersion: 0.1.0\n")
    if came_from is not None:
        (info / "direct_url.json").write_text(json.dumps(came_from))
    found = importlib.metadata.PathDistribution(info)
    monkeypatch.setattr("promptcblue_metric.errors.distribution", lambda name: found)
    assert shlex.split(install_command("report")) == ["pip", "install", *arguments]


def test_an_extra_is_installed_from_the_checkout_that_is_used_without_installing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("promptcblue_metric.errors.distribution", nothing)
    assert shlex.split(install_command("train")) == ["pip", "install", f"{ROOT}[train]"]
