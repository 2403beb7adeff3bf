"""The Space holds the metric's own files."""

from __future__ import annotations

import shutil
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.hub.space import PACKAGE, publication

from ..hub import Hub
from .conftest import Client


def test_the_space_holds_the_files_as_they_are_here(client: Client, hub: Hub) -> None:
    done = client.run("promptcblue-metric", "publish", "--repo", "org/promptcblue")
    assert done.code == 0, done.err
    repo = hub.repos["space", "org/promptcblue"]
    assert {path: (PACKAGE / path).read_bytes() for path in repo.files} == repo.files
    assert {"promptcblue.py", "README.md", "requirements.txt"} <= set(repo.files)
    assert repo.sdk == SpaceCard((PACKAGE / "README.md").read_text(encoding="utf-8")).data.sdk
    assert "evaluate.load" in done.out
    assert client.run("promptcblue-metric", "publish", "--repo", "org/promptcblue").code == 0
    assert len(repo.commits) == 2


def test_the_space_is_all_that_the_package_runs_on(tmp_path: Path) -> None:
    files = publication("org/promptcblue").files
    shipped = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    # What is left out: caches, and the mark for type checkers.
    assert {Path(name).suffix for name in shipped - set(files)} <= {".pyc", ".typed"}
    package = tmp_path / PACKAGE.name
    for name in files:
        (package / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copyfile(PACKAGE / name, package / name)
    finder = ModuleFinder(path=[str(tmp_path)])
    for entry in ("promptcblue", "hub.page"):
        finder.import_hook(f"{PACKAGE.name}.{entry}")
    assert not [name for name in finder.badmodules if name.startswith(PACKAGE.name)]


@pytest.mark.parametrize("name", ["promptcblue.py", "requirements.txt", "app.py"])
def test_a_file_that_the_space_begins_with_is_missed(name: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns(name, "__pycache__"))
    with pytest.raises(PromptCBLUEError, match=name):
        publication("org/promptcblue", package)
