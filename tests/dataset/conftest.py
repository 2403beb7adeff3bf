"""Official files made of a few rows, and what ``load_dataset`` gives in a process of its own."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset.build import Imported, import_files

from ..conftest import Run

Row = dict[str, Any]
#: Writes official files into a folder: rows (or raw lines) by file name.
Official = Callable[..., Path]
#: Rows by config and split, as ``load_dataset`` gives them.
Rows = dict[str, dict[str, list[Row]]]
#: ``load(configs, cwd=..., HF_HOME=...)``; a config that cannot be loaded gives its error's text.
Load = Callable[..., dict[str, Any]]

#: Loads configs of a dataset, named as JSON in the arguments, and prints their rows as JSON.
LOAD = """
import json, sys
from datasets import load_dataset
path, configs, options = (json.loads(argument) for argument in sys.argv[1:])
found = {}
for config in configs:
    try:
        dataset = load_dataset(path, *([config] if config else []), **options)
        found[config or "default"] = {split: rows.to_list() for split, rows in dataset.items()}
    except Exception as error:
        found[config or "default"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def row(task: str = "CHIP-STS", sample_id: Any = "s-1", **fields: Any) -> Row:
    """A good row of one of three tasks, with ``fields`` changed; one given as ``...`` is taken out."""
    made = {**_GOOD[task], "sample_id": sample_id, **fields}
    return {name: value for name, value in made.items() if value is not ...}


_GOOD: Mapping[str, Row] = {
    "CHIP-STS": {
        "input": "下面两句问的是同一件事吗？\n感冒要吃药吗\n得了感冒需不需要用药\n选项：是的，不是\n答：",
        "target": "是的",
        "answer_choices": ["是的", "不是"],
        "task_type": "cls",
        "task_dataset": "CHIP-STS",
    },
    "CMeEE-V2": {
        "input": "找出句中的实体。\n肺炎患者使用青霉素。\n类型：疾病，药物\n答：",
        "target": "上述句子中的实体包含：\n疾病实体：肺炎\n药物实体：青霉素",
        "answer_choices": ["疾病", "药物"],
        "task_type": "ner",
        "task_dataset": "CMeEE-V2",
    },
    "MedDG": {
        "input": "患者：医生，我胃疼两天了。\n请写出医生的下一句话：",
        "target": "疼痛和吃饭有关系吗？",
        "answer_choices": None,
        "task_type": "response_generation",
        "task_dataset": "MedDG",
    },
}


@pytest.fixture
def official(tmp_path: Path) -> Official:
    def write(name: str = "official", **files: Sequence[Row | str | bytes]) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, rows in files.items():
            stem, _, suffix = file.partition("_")
            suffix = (suffix or "json").replace("_", ".")
            lines = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows)
            content = "".join(line + "\n" for line in lines).encode()
            (folder / f"{stem}.{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
        return folder

    return write


@pytest.fixture
def three_tasks(official: Official) -> Path:
    """Two samples of each of three tasks in each split; the test split has no targets, as official files do."""
    tasks = ("MedDG", "CHIP-STS", "CMeEE-V2")
    train, dev = ([row(task, f"{split}-{n}") for n in range(2) for task in tasks] for split in ("train", "dev"))
    return official(train=train, dev=dev, test=[row(task, f"test-{n}", target="") for n in range(2) for task in tasks])


@pytest.fixture
def load(run_python: Run) -> Load:
    def load(configs: Sequence[str | None], path: str | Path = "promptcblue", **settings: Any) -> dict[str, Any]:
        options = settings.pop("options", {})
        arguments = (json.dumps(value, default=str) for value in (path, configs, options))
        done = run_python(LOAD, *arguments, HF_HUB_OFFLINE="1", **settings)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return load


@pytest.fixture(scope="session")
def sample_dataset(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """The embedded sample, imported without touching a cache."""
    return import_files("sample", tmp_path_factory.mktemp("hub") / "promptcblue", cache=False)
