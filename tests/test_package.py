"""The wheel, installed alone, is the whole product, and the sdist all that it takes to check it."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from promptcblue_metric.errors import install_command

from .conftest import ROOT

RAW = ROOT / "tests" / "dataset" / "raw"
#: A spreadsheet.
(ICD,) = (RAW / "CHIP-CDN").glob("*.xlsx")


def tracked(*folders: str) -> list[str]:
    """The files of the repository, those not committed yet too; links left out."""
    command = ["git", "-c", "core.quotePath=false", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    files = [name for name in found if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]
    return files or pytest.skip("no git repository here")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The sdist, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)

    def build(kind: str) -> str:
        code = f"from setuptools.build_meta import build_{kind} as build; print(build({str(folder)!r}))"
        done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    sdist = folder / build("sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    return {"sdist": source, "wheel": folder / build("wheel")}


@pytest.fixture
def wheel(built: Mapping[str, Path]) -> Path:
    return built["wheel"]


def test_the_sdist_holds_the_whole_repository(built: Mapping[str, Path]) -> None:
    missing = [name for name in tracked() if not (built["sdist"] / name).is_file()]
    assert not missing, f"add to MANIFEST.in: {missing}"
    assert not list(built["sdist"].rglob("__pycache__"))


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, installed_as in {
        "promptcblue_metric": "promptcblue_metric",
        "promptcblue_dataset": "promptcblue_dataset",
        "training": "promptcblue_training",
    }.items():
        missing = {installed_as + path.removeprefix(folder) for path in tracked(folder)} - names
        assert not missing, f"add to packages or package_data in setup.cfg: {sorted(missing)}"
    assert not any(name.startswith(("tests/", "training/")) for name in names)


def test_every_library_that_is_imported_is_declared(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
    declared = {
        re.split(r"[^\w.-]", line.removeprefix("Requires-Dist: "))[0].casefold().replace("_", "-")
        for line in archive.read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist: ")
    }
    imported = set()
    for name in archive.namelist():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(archive.read(name))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(str(node.module).partition(".")[0])
    known = importlib.metadata.packages_distributions()
    of = {name: {found.casefold().replace("_", "-") for found in known.get(name, [name])} for name in imported}
    assert not {
        name: found
        for name, found in of.items()
        if name not in {*sys.stdlib_module_names, "_typeshed"}  # what type checkers alone import
        and not name.startswith("promptcblue")
        and not found & declared
    }


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


TRAIN = "from promptcblue_training.cli import main"
DATASET = "from promptcblue_dataset.cli import main"


@pytest.mark.parametrize(
    ("program", "arguments", "library", "extra"),
    [
        (TRAIN, ["sft", "demo"], "torch", "train"),
        (TRAIN, ["predict", "--model", "x", "--dataset", "sample", "--output", "y"], "torch", "train"),
        (DATASET, ["build", str(RAW)], "python_calamine", "build"),
        (DATASET, ["review", "sample", "sample", "x.xlsx"], "openpyxl", "build"),
        (DATASET, ["review", "tally", str(ICD)], "python_calamine", "build"),
    ],
)
def test_a_command_without_its_extra_says_how_to_get_it(
    program: str, arguments: list[str], library: str, extra: str, tmp_path: Path
) -> None:
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {library!r} else find(name, *rest)
sys.modules[{library!r}] = None
{program}
sys.argv[1:] = {arguments!r}
main()"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert library in done.stderr
    assert install_command(extra) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


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


def test_the_pythons_that_are_promised_are_those_that_are_tried() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    promised = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["matrix"]["strategy"]["matrix"]
    tried = [(job, python) for job in matrix["job"] for python in matrix["python"]]
    tried += [(each["job"], each["python"]) for each in matrix["include"]]
    code = "import json; from matrix import JOBS; print(json.dumps([[n, p] for n in JOBS for p in JOBS[n].pythons]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", capture_output=True, check=True)
    assert sorted(tried) == sorted(map(tuple, json.loads(done.stdout)))
    assert [python for job, python in tried if job == "base"] == promised
    assert setup["options"]["python_requires"] == f">={promised[0]}"
    assert workflow["jobs"]["checks"]["steps"][-1]["run"] == ".ci/run"
