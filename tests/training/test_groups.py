"""An adapter for each group of tasks, and prediction by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.backends import BackendSettings
from promptcblue_training.predict import predict

from .conftest import Fit, read_rows

GROUPS = {"reading": ["CMeEE-V2", "CHIP-CDN"], "judging": ["CHIP-STS", "KUAKE-QIC"]}
TASKS = [task for members in GROUPS.values() for task in members]


@pytest.fixture(scope="module")
def grouped(fit: Fit, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("groups") / "groups.yaml"
    path.write_text(yaml.safe_dump(GROUPS))
    return fit("--groups", str(path), **settings(trained, output_dir=path.parent / "run"))


def settings(trained: Path, **changes: Any) -> dict[str, Any]:
    common = {"method": "lora", "model": str(trained), "from_config": None, "lora_rank": 2, "max_steps": 6}
    return {**common, "configs": TASKS, "save_steps": 6, "learning_rate": 3e-2, **changes}


def test_each_sample_is_answered_by_the_adapter_of_its_group(grouped: Path, data: Path, tmp_path: Path) -> None:
    assert {path.name for path in grouped.iterdir() if path.is_dir()} == set(GROUPS)
    for name, tasks in GROUPS.items():
        record = json.loads((grouped / name / "run.json").read_text())
        assert record["notes"]["recipe"]["configs"] == tasks

    def answers(model: Path, tasks: list[str]) -> dict[tuple[str, str], str]:
        output = tmp_path / f"{model.name}-{len(tasks)}.jsonl"
        predict(str(data), "test", output, BackendSettings(model=str(model)), tasks, max_new_tokens=24)
        return {(row["task_dataset"], row["sample_id"]): row["prediction"] for row in read_rows(output)}

    together = answers(grouped, TASKS)
    apart = {key: text for name, tasks in GROUPS.items() for key, text in answers(grouped / name, tasks).items()}
    assert together == apart
    # The other group's adapter says something else, so that it matters which one answers.
    assert answers(grouped / "judging", TASKS) != together
    adapters = json.loads((tmp_path / "run-4.jsonl.meta.json").read_text())["settings"]["adapter"]
    assert {name: adapter.partition("@")[0] for name, adapter in adapters.items()} == {name: name for name in GROUPS}
    with pytest.raises(PromptCBLUEError, match="no group's adapter is for CHIP-CTC"):
        answers(grouped, [*TASKS, "CHIP-CTC"])
    with pytest.raises(PromptCBLUEError, match="groups-of-adapters"):
        predict(str(data), "test", tmp_path / "v", BackendSettings(model=str(grouped), name="vllm"), TASKS)


def test_a_group_for_each_type_of_task(fit: Fit, trained: Path, tmp_path: Path) -> None:
    folder = fit("--groups", "task_type", **settings(trained, max_steps=1, output_dir=tmp_path / "run"))
    written = json.loads((folder / "groups.json").read_text())
    assert sorted(task for members in written.values() for task in members) == sorted(TASKS)
    assert set(written) == {path.name for path in folder.iterdir() if path.is_dir()}


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("a: [CHIP-STS]", {}, "one group.*KUAKE-QIC"),
        ("{a: [CHIP-STS, CMeEE-V2, CHIP-CDN, KUAKE-QIC], b: [CHIP-STS]}", {}, "one group; not so CHIP-STS"),
        ("../a: [CHIP-STS]", {}, "name of a folder"),
        ("a: CHIP-STS", {}, "list of tasks"),
        ("a: [CHIP-STS]", {"method": "full"}, "another method than full"),
    ],
)
def test_groups_that_cannot_be_trained(
    fit: Fit, trained: Path, tmp_path: Path, text: str, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "groups.yaml").write_text(text)
    with pytest.raises(PromptCBLUEError, match=message):
        fit("--groups", str(tmp_path / "groups.yaml"), **settings(trained, **changes))
