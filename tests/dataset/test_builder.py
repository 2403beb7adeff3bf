"""The builder: the same rows as the Parquet files, in current datasets and as a loading script in datasets 3.6."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from promptcblue_dataset.build import Imported
from promptcblue_metric.data.samples import ALL
from promptcblue_metric.tasks import TASKS

from ..conftest import ROOT, Run
from .conftest import LOAD, Official, row
from .test_import import COMMAND
from .test_load_dataset import expected

SCRIPT = ROOT / "promptcblue_dataset" / "promptcblue_dataset.py"
PINS = Path(__file__).parent / "datasets36.txt"

#: Builds each of the configs in its arguments and prints the rows, and the errors, as JSON.
BUILD = """
import json, sys
from promptcblue_dataset.promptcblue_dataset import PromptCBLUE
data_dir, configs = (json.loads(argument) for argument in sys.argv[1:])
found = {}
for config in configs:
    try:
        builder = PromptCBLUE(config_name=config, data_dir=data_dir)
        builder.download_and_prepare()
        found[config or "default"] = {split: rows.to_list() for split, rows in builder.as_dataset().items()}
        found[config or "default"]["config"] = builder.config.name
    except Exception as error:
        found[config or "default"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@pytest.fixture
def build(run_python: Run, tmp_path: Path) -> Any:
    def build(data_dir: Path | None, *configs: str | None) -> dict[str, Any]:
        arguments = json.dumps(data_dir, default=str), json.dumps(configs)
        done = run_python(BUILD, *arguments, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return build


def test_the_builder_gives_the_rows_of_the_parquet_files(build: Any, sample_dataset: Imported) -> None:
    built = build(None, None, ALL, *TASKS)
    assert {name: rows.pop("config") for name, rows in built.items()} == {
        name: ALL if name == "default" else name for name in built
    }
    assert built == expected(sample_dataset)
    assert list(built["CMeEE-V2"]["train"][0]) == [
        "input",
        "target",
        "answer_choices",
        "sample_id",
        "task_type",
        "task_dataset",
    ]


def test_the_builder_reads_an_imported_folder_too(build: Any, sample_dataset: Imported) -> None:
    built = build(sample_dataset.output, "KUAKE-IR")["KUAKE-IR"]
    assert built.pop("config") == "KUAKE-IR"
    assert built == expected(sample_dataset)["KUAKE-IR"]


def test_names_aliases_and_empty_configs(build: Any, three_tasks: Path, official: Official) -> None:
    built = build(three_tasks, "CHIP-STC", "cmeee", "CMeEE-V3", "KUAKE-IR")
    assert built["CHIP-STC"]["config"] == "CHIP-STS"
    assert built["cmeee"]["config"] == "CMeEE-V2"
    assert "did you mean 'CMeEE-V2'" in built["CMeEE-V3"]
    assert "MedDG" in built["CMeEE-V3"]
    assert "no samples of KUAKE-IR" in built["KUAKE-IR"]
    some = build(official("some", train=[row()], test=[row("MedDG")]), "CHIP-STS")["CHIP-STS"]
    assert set(some) == {"train", "config"}
    assert "train, dev and test" in build(three_tasks.parent, "MedDG")["MedDG"]


def test_changed_files_are_built_anew(build: Any, official: Official) -> None:
    for text in ("旧", "新"):
        built = build(official(train=[row(input=text)]), None)
        assert [sample["input"] for sample in built["default"]["train"]] == [text]


@pytest.fixture(scope="session")
def old_python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with datasets 3.6, kept between runs as long as its pins stay the same."""
    key = hashlib.sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = Path(request.config.cache.mkdir("datasets36")) / key
    python, ready = folder / "bin" / "python", folder / "ready"
    with FileLock(f"{folder}.lock"):
        if not ready.exists():
            venv.create(folder, clear=True, with_pip=True)
            command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(PINS)]
            installed = subprocess.run(command, capture_output=True, text=True, check=False)
            if installed.returncode:
                pytest.skip(f"datasets 3.6 cannot be installed: {installed.stderr.strip().splitlines()[-1:]}")
            ready.touch()
    return python


def test_datasets_3_reads_the_folder_the_cache_and_the_script(
    old_python: Path, run_python: Run, tmp_path: Path, sample_dataset: Imported
) -> None:
    here, elsewhere, cache = tmp_path / "here", tmp_path / "elsewhere", tmp_path / "cache"
    here.mkdir()
    elsewhere.mkdir()
    imported = run_python(COMMAND, "import", "sample", cwd=here, HF_HOME=str(cache))
    assert imported.returncode == 0, imported.stderr

    def load(path: str | Path, cwd: Path, **options: Any) -> dict[str, Any]:
        done = subprocess.run(
            [old_python, "-c", LOAD, *map(json.dumps, (str(path), [None, ALL, *TASKS], options))],
            cwd=cwd,
            env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    wanted = expected(sample_dataset)
    assert load("promptcblue", elsewhere) == wanted
    assert load("promptcblue", here) == wanted
    assert load(SCRIPT, elsewhere, trust_remote_code=True) == wanted
    # From other files than its own, and again when they have changed.
    official = tmp_path / "official"
    official.mkdir()
    for text in ("旧", "新"):
        (official / "train.json").write_text(json.dumps(row(input=text)), encoding="utf-8")
        found = load(SCRIPT, elsewhere, trust_remote_code=True, data_dir=str(official))
        assert [sample["input"] for sample in found["CHIP-STS"]["train"]] == [text]
        assert "no samples of MedDG" in found["MedDG"]
