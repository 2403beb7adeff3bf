"""``load_dataset("promptcblue", ...)``: in the folder's parent, and anywhere else from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset.build import Imported
from promptcblue_metric.data.samples import ALL
from promptcblue_metric.tasks import TASKS

from ..conftest import Run
from .conftest import Load, Official, Rows, row
from .test_import import COMMAND


def expected(imported: Imported) -> Rows:
    """The rows of each config, ``all`` and no name included."""
    rows: Rows = {task: {s: list(map(dict, part)) for s, part in splits.items()} for task, splits in samples(imported)}
    splits = list(dict.fromkeys(split for parts in rows.values() for split in parts))
    everything = {split: [sample for task in rows for sample in rows[task].get(split, [])] for split in splits}
    return rows | {ALL: everything, "default": everything}


def samples(imported: Imported) -> Any:
    return imported.checked.samples.items()


@pytest.fixture
def run_import(run_python: Run, tmp_path: Path) -> Any:
    """Import into ``here/promptcblue`` with a cache of the test's own."""

    def run(source: str | Path, *options: str) -> str:
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        settings = {"cwd": tmp_path / "here", "HF_HOME": str(tmp_path / "cache")}
        done = run_python(COMMAND, "import", source, *options, **settings)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


def test_every_config_loads_from_the_parent_and_from_elsewhere(
    run_import: Any, load: Load, tmp_path: Path, sample_dataset: Imported
) -> None:
    run_import("sample")
    for folder in ("elsewhere", "here", "elsewhere"):
        found = load([None, ALL, *TASKS, "CMeEE-V3"], cwd=tmp_path / folder, HF_HOME=str(tmp_path / "cache"))
        message = found.pop("CMeEE-V3")
        assert all(f"'{task}'" in message for task in TASKS)
        assert found == expected(sample_dataset)


def test_no_cache_leaves_the_cache_alone(run_import: Any, load: Load, tmp_path: Path, three_tasks: Path) -> None:
    run_import(three_tasks, "--no-cache")
    assert not (tmp_path / "cache").exists()
    cache = {"HF_HOME": str(tmp_path / "cache")}
    assert isinstance(load(["MedDG"], cwd=tmp_path / "elsewhere", **cache)["MedDG"], str)
    assert [sample["sample_id"] for sample in load(["MedDG"], cwd=tmp_path / "here", **cache)["MedDG"]["train"]] == [
        "train-0",
        "train-1",
    ]


def test_changed_files_give_new_rows_everywhere(
    run_import: Any, load: Load, tmp_path: Path, official: Official
) -> None:
    cache = tmp_path / "cache"

    def inputs(folder: str) -> dict[str, Any]:
        found = load([None, ALL, "CHIP-STS", "MedDG"], cwd=tmp_path / folder, HF_HOME=str(cache))
        return {
            name: {sample["input"] for part in rows.values() for sample in part}
            for name, rows in found.items()
            if isinstance(rows, dict)
        }

    old = {name: {"旧"} for name in ("default", ALL, "CHIP-STS", "MedDG")}
    # A config that is no more is an error, not the rows of the earlier import.
    new = {name: {"新"} for name in ("default", ALL, "CHIP-STS")}
    run_import(official(train=[row(input="旧"), row("MedDG", input="旧")]), "--prime")
    assert inputs("here") == inputs("elsewhere") == old
    run_import(official(train=[row(input="新")]), "--prime")
    assert inputs("elsewhere") == inputs("here") == inputs("elsewhere") == new
    run_import(official(train=[row(input="旧"), row("MedDG", input="旧")]), "--prime")
    assert inputs("elsewhere") == old
    entries = (cache / "datasets" / "promptcblue").glob("*/*/promptcblue-*")
    assert sorted(path.parts[-3] for path in entries if path.is_dir()) == ["CHIP-STS", "MedDG", ALL]
    run_import(official(train=[row(input="新")]), "--no-cache")
    assert inputs("elsewhere") == old
    assert inputs("here") == new
    # Loading that folder made entries of the same name, which are newer than what was primed.
    assert inputs("elsewhere") == old


def test_only_a_full_set_takes_the_name_unasked(
    run_import: Any, load: Load, tmp_path: Path, three_tasks: Path, sample_dataset: Imported
) -> None:
    def said(text: str) -> str:
        return "".join(text.split())

    assert "until now" not in run_import("sample")
    assert "--prime makes" in run_import(three_tasks, "--output", "part")
    name = "MedDG"
    found = load([name], cwd=tmp_path / "elsewhere", HF_HOME=str(tmp_path / "cache"))
    assert found[name] == expected(sample_dataset)[name]
    replaced = run_import(three_tasks, "--output", "part", "--prime")
    assert said(f"all {len(TASKS)} tasks, from {tmp_path / 'here' / 'promptcblue'}") in said(replaced)
    assert "until now" not in run_import(three_tasks, "--output", "part", "--prime")
    assert said(f"CMeEE-V2, CHIP-STS, MedDG, from {tmp_path / 'here' / 'part'}") in said(run_import("sample"))
    assert load([name], cwd=tmp_path / "elsewhere", HF_HOME=str(tmp_path / "cache")) == found
