"""Loading samples from files, folders and the Hub; and the embedded sample, what a newcomer sees first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from promptcblue_dataset import load_samples, sample_path
from promptcblue_dataset.build import Imported, import_files
from promptcblue_metric import GROUPS
from promptcblue_metric.errors import PromptCBLUEError, UnknownTaskError
from promptcblue_metric.tasks import NONE_OF_THESE, SUITES, TASKS

from ..conftest import Run
from .conftest import Official, row


def ids(source: str | Path, split: str, tasks: list[str] | None = None) -> list[str]:
    return [f"{sample['task_dataset']} {sample['sample_id']}" for sample in load_samples(source, split, tasks)]


def test_a_folder_of_official_files_gives_its_splits(three_tasks: Path) -> None:
    assert ids(three_tasks, "train")[:2] == ["MedDG train-0", "CHIP-STS train-0"]
    assert ids(three_tasks, "dev") == ids(three_tasks, "validation")
    assert len(load_samples(three_tasks, "test")) == 6


def test_tasks_are_picked_by_name_or_alias(three_tasks: Path) -> None:
    assert ids(three_tasks, "train", ["chip-stc"]) == ["CHIP-STS train-0", "CHIP-STS train-1"]
    assert {name.split()[0] for name in ids(three_tasks, "test", ["CMeEE", "MedDG"])} == {"CMeEE-V2", "MedDG"}


def test_a_file_is_read_whatever_the_split(three_tasks: Path) -> None:
    assert ids(three_tasks / "dev.json", "test", ["MedDG"]) == ["MedDG dev-0", "MedDG dev-1"]


def test_an_imported_folder_gives_the_same_samples(three_tasks: Path, tmp_path: Path) -> None:
    output = import_files(three_tasks, tmp_path / "promptcblue", cache=False).output
    for split in ("train", "dev", "test"):
        assert sorted(map(str, load_samples(output, split))) == sorted(map(str, load_samples(three_tasks, split)))
        assert load_samples(output, split, ["MedDG"]) == load_samples(three_tasks, split, ["MedDG"])


def test_the_word_sample_names_the_embedded_sample() -> None:
    samples = load_samples("sample", "train")
    assert samples == load_samples(sample_path(), "train")
    assert {sample["task_dataset"] for sample in samples} == set(TASKS)


def test_a_later_edition_s_sample_is_named_by_its_suite_or_its_tasks(tmp_path: Path) -> None:
    edition, further = SUITES["promptcblue-chip2023"], ["CMedCausal", "Text2DT"]
    for split in ("train", "validation", "test"):
        samples = load_samples(f"sample:{edition.name}", split)
        assert samples == [*load_samples("sample", split), *load_samples("sample", split, further)]
        assert {sample["task_dataset"] for sample in samples} == set(edition.tasks) == {*TASKS, *further}
    assert load_samples("sample", "test", ["MedDG", "Text2DT"]) == load_samples(
        f"sample:{edition.name}", "test", ["MedDG", "Text2DT"]
    )
    imported = import_files(f"sample:{edition.name}", tmp_path / "edition", cache=False)
    assert list(imported.counts()) == list(edition.tasks)
    assert not imported.missing
    with pytest.raises(PromptCBLUEError, match="only of promptcblue, promptcblue-chip2023"):
        load_samples("sample:chineseblue", "test")


@pytest.mark.parametrize(
    ("source", "split", "tasks", "named"),
    [
        ("nowhere.json", "train", None, "no such file"),
        ("./no/such/folder", "train", None, "no such file"),
        ("", "training", None, "train, validation (or dev) and test"),
        ("", "train", ["KUAKE-QTR"], "KUAKE-QTR"),
    ],
)
def test_what_is_not_there_is_named(
    three_tasks: Path, source: str, split: str, tasks: list[str] | None, named: str
) -> None:
    with pytest.raises(PromptCBLUEError, match=named.replace("(", r"\(").replace(")", r"\)")):
        load_samples(source or three_tasks, split, tasks)


def test_an_unknown_task_gets_the_closest_match(three_tasks: Path) -> None:
    with pytest.raises(UnknownTaskError, match="did you mean 'CMeEE-V2'"):
        load_samples(three_tasks, "train", ["CMeEE-V3"])


def test_a_missing_split_names_those_that_exist(official: Official, tmp_path: Path) -> None:
    folder = official(train=[row()])
    imported = import_files(folder, tmp_path / "promptcblue", cache=False).output
    for source in (folder, imported):
        with pytest.raises(PromptCBLUEError, match="no test split; it has train"):
            load_samples(source, "test")


def test_a_folder_without_files_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match="train, dev and test"):
        load_samples(tmp_path, "train")


def test_every_bad_row_is_named(official: Official) -> None:
    folder = official(train=[row(), row(input=3), row("MedDG", target=...)])
    with pytest.raises(PromptCBLUEError) as caught:
        load_samples(folder, "train")
    assert f"{folder / 'train.json'}:2: field 'input'" in str(caught.value)
    assert f"{folder / 'train.json'}:3: field 'target'" in str(caught.value)


def test_a_dataset_that_no_hub_has_is_one_clear_error(run_python: Run, tmp_path: Path) -> None:
    code = (
        "from promptcblue_dataset import load_samples\n"
        "try: load_samples('nobody/nothing', 'train')\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    done = run_python(code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.stdout.startswith("PromptCBLUEError nobody/nothing: no such file")
    assert done.stdout.count("\n") == 1


def test_the_name_of_the_cached_dataset_is_a_source(run_python: Run, tmp_path: Path, three_tasks: Path) -> None:
    code = (
        "import sys; from promptcblue_dataset import load_samples\n"
        "from promptcblue_dataset.build import import_files\n"
        "folder = sys.argv[1]; import_files(folder, 'made/promptcblue', cache=True)\n"
        "key = lambda sample: (sample['task_dataset'], sample['sample_id'])\n"
        "for tasks in (None, ['CHIP-STC', 'MedDG']):\n"
        "    loaded, written = (load_samples(source, 'dev', tasks) for source in ('promptcblue', folder))\n"
        "    print(len(loaded), sorted(loaded, key=key) == sorted(written, key=key))"
    )
    done = run_python(code, three_tasks, cwd=tmp_path, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    assert done.stdout.split("\n")[:2] == ["6 True", "4 True"], done.stderr


def test_an_imported_sample_is_whole(sample_dataset: Imported) -> None:
    for split in ("train", "validation", "test"):
        assert sorted(map(str, load_samples(sample_dataset.output, split))) == sorted(
            map(str, load_samples("sample", split))
        )


@pytest.mark.parametrize(("split", "least"), [("train", 12), ("validation", 4), ("test", 4)])
def test_every_task_has_samples_and_its_odd_cases(split: str, least: int) -> None:
    samples = load_samples("sample", split)
    counts = Counter(sample["task_dataset"] for sample in samples)
    assert min(counts[task] for task in TASKS) >= least
    targets = {task: [s["target"] for s in samples if s["task_dataset"] == task] for task in TASKS}
    for name, task in TASKS.items():
        if task.group == GROUPS[1]:
            assert NONE_OF_THESE in targets[name]
    for name in ("CMeEE-V2", "IMCS-V2-NER", "CHIP-CDN"):
        assert TASKS[name].format.render([]) in targets[name]
    assert any("关系的头尾实体对如下：\n" in target + "\n" for target in targets["CMeIE"])
    assert {"否定", "不确定"} <= {
        part for target in targets["CHIP-CDEE"] for part in target.replace("：", "；").split("；")
    }


def test_no_prompt_comes_twice() -> None:
    prompts = Counter(s["input"] for split in ("train", "validation", "test") for s in load_samples("sample", split))
    assert max(prompts.values()) == 1
