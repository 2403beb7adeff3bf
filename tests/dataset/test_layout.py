"""The folder for the Hub: its card, read with the Hub's own classes, and its Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from promptcblue_dataset.build import Imported, import_files
from promptcblue_metric.data.samples import ALL
from promptcblue_metric.tasks import TASKS

from .conftest import Official, row

SPLITS = ["train", "validation", "test"]


@pytest.fixture(scope="module")
def card(sample_dataset: Imported) -> dict[str, Any]:
    data: dict[str, Any] = DatasetCard.load(sample_dataset.output / "README.md").data.to_dict()
    return data


def test_the_folder_holds_the_card_and_parquet_alone(sample_dataset: Imported) -> None:
    files = {str(path.relative_to(sample_dataset.output)) for path in sample_dataset.output.rglob("*.*")}
    assert files == {"README.md"} | {f"{task}/{split}-00000-of-00001.parquet" for task in TASKS for split in SPLITS}


def test_each_config_lists_its_files_and_all_lists_every_one(card: dict[str, Any], sample_dataset: Imported) -> None:
    files = {
        config["config_name"]: {part["split"]: part["path"] for part in config["data_files"]}
        for config in card["configs"]
    }
    assert list(files) == [ALL, *TASKS]
    assert [config["config_name"] for config in card["configs"] if config.get("default")] == [ALL]
    for split in SPLITS:
        assert files[ALL][split] == [path for task in TASKS for path in files[task][split]]
        assert all((sample_dataset.output / path).is_file() for path in files[ALL][split])


def test_the_card_counts_what_the_files_hold(card: dict[str, Any], sample_dataset: Imported) -> None:
    infos = {info["config_name"]: info for info in card["dataset_info"]}
    assert list(infos) == [ALL, *TASKS]
    totals = dict.fromkeys(SPLITS, 0)
    for task in TASKS:
        for split in infos[task]["splits"]:
            path = sample_dataset.output / task / f"{split['name']}-00000-of-00001.parquet"
            assert split["num_examples"] == pq.read_metadata(path).num_rows
            totals[split["name"]] += split["num_examples"]
        folder = sample_dataset.output / task
        assert infos[task]["download_size"] == sum(path.stat().st_size for path in folder.iterdir())
    assert {split["name"]: split["num_examples"] for split in infos[ALL]["splits"]} == totals
    assert infos[ALL]["download_size"] == sum(infos[task]["download_size"] for task in TASKS)


def test_the_features_are_the_six_fields_in_the_form_that_every_version_reads(card: dict[str, Any]) -> None:
    for info in card["dataset_info"]:
        kinds = {feature["name"]: feature.get("dtype") or feature["sequence"] for feature in info["features"]}
        assert list(kinds) == ["input", "target", "answer_choices", "sample_id", "task_type", "task_dataset"]
        assert [feature["name"] for feature in info["features"] if "sequence" in feature] == ["answer_choices"]


def test_the_card_has_what_the_hub_lists_datasets_by(card: dict[str, Any], sample_dataset: Imported) -> None:
    assert card["language"] == "zh"
    assert card["license"] == "apache-2.0"
    assert card["size_categories"] == "n<1K"
    assert "text-generation" in card["task_categories"]
    text = (sample_dataset.output / "README.md").read_text(encoding="utf-8")
    assert "$" not in text
    assert "&id" not in text


def test_official_data_are_not_called_free(official: Official, tmp_path: Path) -> None:
    output = import_files(official(train=[row()]), tmp_path / "promptcblue", cache=False).output
    assert DatasetCard.load(output / "README.md").data.to_dict()["license"] == "other"


def test_parquet_files_carry_no_metadata_of_one_datasets_version(sample_dataset: Imported) -> None:
    for path in sample_dataset.output.rglob("*.parquet"):
        assert b"huggingface" not in (pq.read_metadata(path).metadata or {})
