"""The Space holds the metric's own files, those that its entry points need and no others."""

from __future__ import annotations

import shutil
from modulefinder import ModuleFinder
from pathlib import Path

from huggingface_hub import SpaceCard

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


def test_the_modules_are_those_that_python_would_import(tmp_path: Path) -> None:
    files = publication("org/promptcblue").files
    package = tmp_path / PACKAGE.name
    package.mkdir()
    for name in files:
        (package / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(PACKAGE / name, package / name)
    modules = {
        ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__") for name in files if name.endswith(".py")
    }
    entries = ["promptcblue", *(["hub.page"] if "app" in modules else [])]
    (package / "__init__.py").touch()
    finder = ModuleFinder(path=[str(tmp_path)])
    for entry in entries:
        finder.import_hook(f"{PACKAGE.name}.{entry}")
    found = {name.partition(".")[2] for name in finder.modules if "." in name}
    assert found == modules - {"app", "__init__"}
    # And nothing of ours was looked for in vain.
    assert not [name for name in finder.badmodules if name.startswith(PACKAGE.name)]


def test_the_data_files_that_modules_read_are_there() -> None:
    files = publication("org/promptcblue").files
    text = "".join((PACKAGE / name).read_text(encoding="utf-8") for name in files if name.endswith(".py"))
    data = {path for path in PACKAGE.rglob("*") if path.suffix in (".css", ".js", ".json", ".j2")}
    named = {path.relative_to(PACKAGE).as_posix() for path in data if f'"{path.name}"' in text}
    assert named
    assert named == {name for name in files if Path(name).suffix in (".css", ".js", ".json", ".j2")}
