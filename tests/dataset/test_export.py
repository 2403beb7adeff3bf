"""What other tools are given to train on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from promptcblue_dataset.build import import_files
from promptcblue_dataset.cli import app
from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.errors import PromptCBLUEError

from .conftest import Official, row

TOOLS = ("llama-factory", "ms-swift", "axolotl", "openai")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pairs(folder: Path, tool: str, split: str) -> list[tuple[str, str]]:
    """Prompts and answers as the tool finds them: by its registration, in the columns that this names."""
    if tool == "llama-factory":
        entry = json.loads((folder / "dataset_info.json").read_text())[f"promptcblue_{split}"]
        columns = entry["columns"]
        assert "query" not in columns
        return [(each[columns["prompt"]], each[columns["response"]]) for each in rows(folder / entry["file_name"])]
    path = folder / f"{split}.jsonl"
    if tool == "ms-swift":
        entries = {each["dataset_name"]: each for each in json.loads((folder / "dataset_info.json").read_text())}
        path = folder / entries[f"promptcblue_{split}"]["dataset_path"]
    elif tool == "axolotl":
        settings = yaml.safe_load((folder / "datasets.yaml").read_text(encoding="utf-8"))
        (entry,) = settings["datasets" if split == "train" else "test_datasets"]
        assert (entry["type"], entry["field_messages"]) == ("chat_template", "messages")
        assert Path(entry["path"]).is_absolute()
        path = Path(entry["path"])
    found = []
    for each in rows(path):
        user, assistant = each["messages"]
        assert (set(user), set(assistant)) == ({"role", "content"}, {"role", "content"})
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        found.append((user["content"], assistant["content"]))
    return found


@pytest.mark.parametrize("tool", TOOLS)
def test_every_sample_is_where_the_tool_looks_for_it(tool: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = run("sample", "--for", tool, "--output", folder)
    assert done.exit_code == 0, done.output
    for split in ("train", "validation"):
        samples = load_samples("sample", split)
        assert pairs(folder, tool, split) == [(sample["input"], sample["target"]) for sample in samples]
    assert not (folder / "test.jsonl").exists()


def test_the_files_keep_the_rules_of_the_fine_tuning_endpoint(tmp_path: Path) -> None:
    """Ten rows or more of `messages` alone, with known roles, texts that are not empty, and the assistant last."""
    openai, pydantic = pytest.importorskip("openai.types.chat"), pytest.importorskip("pydantic")
    message_of_openai = pydantic.TypeAdapter(openai.ChatCompletionMessageParam)
    folder = tmp_path / "out"
    assert run("sample", "--for", "openai", "--output", folder).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["train.jsonl", "validation.jsonl"]
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not content.startswith(b"\xef\xbb\xbf")
        assert b"\r" not in content
        found = rows(path)
        assert len(found) >= 10
        for each in found:
            assert list(each) == ["messages"]
            assert all(set(message) == {"role", "content"} for message in each["messages"])
            assert all(isinstance(message["content"], str) and message["content"] for message in each["messages"])
            assert {message["role"] for message in each["messages"]} <= {"system", "user", "assistant"}
            assert each["messages"][-1]["role"] == "assistant"
            for message in each["messages"]:
                message_of_openai.validate_python(message, strict=True, extra="forbid")
    done = run("sample", "--for", "openai", "--output", tmp_path / "few", "--tasks", "CHIP-STS", "--split", "dev")
    assert done.exit_code != 0
    assert not (tmp_path / "few").exists()


def test_splits_and_tasks_can_be_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "my out"
    given = ("--split", "test", "--split", "dev", "--tasks", "CMeEE,MedDG")
    done = run("sample", "--for", "ms-swift", "--output", folder, *given)
    assert sorted(path.name for path in folder.iterdir()) == ["dataset_info.json", "test.jsonl", "validation.jsonl"]
    assert {each["task_dataset"] for each in rows(folder / "test.jsonl")} == {"CMeEE-V2", "MedDG"}
    (line,) = (line for line in done.output.splitlines() if line.startswith("next: "))
    words = shlex.split(line.removeprefix("next: "))
    assert str(folder / "dataset_info.json") in words
    assert words[words.index("--dataset") + 1 :][:3] == ["promptcblue_test", "--val_dataset", "promptcblue_validation"]


def test_what_cannot_be_learned_from_is_refused(official: Official, tmp_path: Path) -> None:
    source = official(train=[row(target=""), row(sample_id="s-2")])
    done = run(source, "--for", "axolotl", "--output", tmp_path / "out")
    assert "1 of 2 samples of the train split have no target" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(official: Official, tmp_path: Path) -> None:
    source = official(train=[row()])
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").touch()
    assert run(source, "--for", "axolotl", "--output", folder).exit_code != 0
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert run(source, "--for", "axolotl", "--output", folder, "--overwrite").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["datasets.yaml", "train.jsonl"]
    assert run(source, "--for", "axolotl", "--output", source, "--overwrite").exit_code != 0


def test_nothing_in_the_source_is_replaced(official: Official, tmp_path: Path) -> None:
    source = official(train=[row()])
    before = (source / "train.json").read_bytes()
    for overwrite in ([], ["--overwrite"]):
        done = run(source, "--for", "axolotl", "--output", source / "train.json", *overwrite)
        assert isinstance(done.exception, PromptCBLUEError)
        assert "--overwrite" not in str(done.exception)
        with pytest.raises(PromptCBLUEError):
            import_files(source, source / "train.json", overwrite=bool(overwrite), cache=False)
    assert (source / "train.json").read_bytes() == before


def test_no_tasks_are_not_all_tasks(official: Official, tmp_path: Path) -> None:
    done = run(official(train=[row()]), "--for", "axolotl", "--output", tmp_path / "out", "--tasks", "")
    assert isinstance(done.exception, PromptCBLUEError)
    assert not (tmp_path / "out").exists()


def test_a_single_file_is_what_is_learned(official: Official, tmp_path: Path) -> None:
    source = official(some=[row()]) / "some.json"
    assert run(source, "--for", "llama-factory", "--output", tmp_path / "out").exit_code == 0
    assert pairs(tmp_path / "out", "llama-factory", "train") == [(row()["input"], row()["target"])]
