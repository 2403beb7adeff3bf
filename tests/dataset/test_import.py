"""Importing official files: what is checked, what is written, and what is left alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptcblue_dataset.build import Imported, import_files
from promptcblue_dataset.making import check_files
from promptcblue_dataset.statistics import statistics, write_into_card
from promptcblue_metric.data.samples import parquet_files
from promptcblue_metric.errors import PromptCBLUEError, RowError
from promptcblue_metric.tasks import TASKS

from ..conftest import Run
from .conftest import Official, row

COMMAND = "import sys; from promptcblue_dataset.cli import main; sys.argv[0] = 'promptcblue-dataset'; main()"


def bad_rows(folder: Path, **files: str) -> list[tuple[str, int, str | None]]:
    checked = check_files((split, folder / name) for split, name in files.items())
    return [(Path(error.path).name, error.line, error.field) for error in checked.bad]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ('{"input": ', None),
        ("[1, 2]", None),
        (row(input=...), "input"),
        (row(input="  "), "input"),
        (row(target=...), "target"),
        (row(target=None), "target"),
        (row(target=""), "target"),
        (row(target=" \n"), "target"),
        (row(target="也许吧"), "target"),
        (row("CMeEE-V2", target="没有按格式写的回答"), "target"),
        (row(answer_choices="是的，不是"), "answer_choices"),
        (row(answer_choices=["是的", 1]), "answer_choices"),
        (row(answer_choices=None), "answer_choices"),
        (row(answer_choices=...), "answer_choices"),
        (row(sample_id=7), "sample_id"),
        (row(sample_id=...), "sample_id"),
        (row(task_type=...), "task_type"),
        (row(task_dataset="CHIP-STX"), "task_dataset"),
        (row(task_dataset=None), "task_dataset"),
        (json.dumps(row("MedDG", target="好\ud83d的")), "target"),
        (json.dumps(row(answer_choices=["是的", "\udc00"])), "answer_choices"),
    ],
)
@pytest.mark.parametrize("split", ["train", "dev"])
def test_each_kind_of_bad_row_is_named(official: Official, bad: dict[str, Any] | str, field: str, split: str) -> None:
    folder = official(**{split: [row(sample_id="first"), bad, row(sample_id="last")]})
    assert bad_rows(folder, **{split: f"{split}.json"}) == [(f"{split}.json", 2, field)]


def test_a_sample_id_may_repeat_over_tasks_and_splits_but_not_within(official: Official) -> None:
    rows = [row(sample_id="a"), row("MedDG", "a"), row(sample_id="a"), row(sample_id="b")]
    folder = official(train=rows, dev=[row(sample_id="a")])
    assert bad_rows(folder, train="train.json", validation="dev.json") == [("train.json", 3, "sample_id")]


def test_a_bad_row_does_not_claim_its_sample_id(official: Official) -> None:
    folder = official(train=[row(sample_id="a", target="也许吧"), row(sample_id="a")])
    assert bad_rows(folder, train="train.json") == [("train.json", 1, "target")]


def test_the_test_split_alone_may_have_no_targets(official: Official) -> None:
    folder = official(test=[row(target=""), row("MedDG", target="没事"), row(sample_id="x", target="也许吧")])
    assert bad_rows(folder, test="test.json") == [("test.json", 3, "target")]


def test_a_readable_target_with_flaws_is_kept_and_counted(official: Official) -> None:
    target = "以下是实体：\n疾病实体：肺炎"
    checked = check_files([("train", official(train=[row("CMeEE-V2", target=target)]) / "train.json")])
    assert checked.samples["CMeEE-V2"]["train"][0]["target"] == target
    assert checked.warnings == {("CMeEE-V2", "missing lead line"): 1, ("CMeEE-V2", "missing line"): 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(sorted(row())), json_values).map(lambda part: row() | part)),
    # The first two bytes of a gzip file would make it one.
    junk=st.lists(
        st.binary(max_size=30).filter(
            lambda line: b"\n" not in line and line.strip() and not line.startswith(b"\x1f\x8b")
        )
    ),
)
def test_whatever_a_file_holds_every_row_is_good_or_named(tmp_path: Path, rows: list[Any], junk: list[bytes]) -> None:
    path = tmp_path / "train.json"
    path.write_bytes(b"".join(line + b"\n" for line in [*(json.dumps(line).encode() for line in rows), *junk]))
    try:
        checked = check_files([("train", path)])
    except PromptCBLUEError:  # most of it is in another encoding
        assert len(junk) >= len(rows)
        return
    good = sum(len(samples) for splits in checked.samples.values() for samples in splits.values())
    assert good + len(checked.bad) == checked.rows == len(rows) + len(junk)
    assert all(isinstance(error, RowError) and error.line <= checked.rows for error in checked.bad)


def test_old_field_names_aliases_endings_and_gzip_give_the_same_files(official: Official, tmp_path: Path) -> None:
    rows = [row(sample_id="a"), row("CMeEE-V2", "b")]
    old = [{("type" if name == "task_type" else name): value for name, value in line.items()} for line in rows]
    old = [line | {"task_dataset": {"CHIP-STS": "CHIP-STC"}.get(line["task_dataset"], "CMeEE")} for line in old]
    folders = [
        official("new", train=rows, dev=rows),
        official("old", train=old, dev=old),
        official("lines", train_jsonl=rows, validation_jsonl=rows),
        official("packed", train_json_gz=rows, dev_jsonl_gz=rows),
    ]
    first, *others = (
        tree(import_files(folder, tmp_path / f"out-{folder.name}", cache=False).output) for folder in folders
    )
    assert all(other == first for other in others)
    assert len(first) == 5


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, sample_dataset: Imported) -> None:
    again = import_files("sample", tmp_path / "elsewhere" / "promptcblue", cache=False)
    assert tree(again.output) == tree(sample_dataset.output)


def test_bad_rows_stop_the_import_with_nothing_written(official: Official, tmp_path: Path) -> None:
    folder = official(train=[row(sample_id=str(number), target="也许吧") for number in range(30)], dev=[row(), row()])
    with pytest.raises(PromptCBLUEError) as caught:
        import_files(folder, tmp_path / "out" / "promptcblue", cache=False)
    first, *listed = str(caught.value).split("\n")
    assert "31 bad row" in first
    assert len(listed) == 21
    assert f"{folder}/train.json:1: field 'target'" in listed[0]
    assert not (tmp_path / "out").exists()


def test_skipped_rows_are_counted_and_listed_beside_the_output(official: Official, tmp_path: Path) -> None:
    folder = official(train=[row(), "{", row(sample_id="x", target="也许吧")], test=[row("MedDG", target="")])
    imported = import_files(folder, tmp_path / "out" / "promptcblue", skip_bad=True, cache=False)
    report = json.loads(imported.report.read_text(encoding="utf-8"))
    assert imported.report.parent == imported.output.parent
    assert [(bad["file"], bad["line"], bad["field"]) for bad in report["bad_rows"]] == [
        (str(folder / "train.json"), 2, None),
        (str(folder / "train.json"), 3, "target"),
    ]
    assert report["rows"] == 4
    assert report["samples"] == {"CHIP-STS": {"train": 1}, "MedDG": {"test": 1}}
    assert report["missing_splits"] == ["validation"]
    assert set(report["missing_tasks"]) == set(TASKS) - {"CHIP-STS", "MedDG"}


def test_files_with_no_good_row_are_not_imported(official: Official, tmp_path: Path) -> None:
    for name, rows in (("empty", []), ("bad", ["{"])):
        with pytest.raises(PromptCBLUEError, match=r"no rows in train\.json|1 bad row"):
            import_files(official(name, train=rows), tmp_path / "promptcblue", skip_bad=True, cache=False)
    assert not (tmp_path / "promptcblue").exists()


def test_sources_that_cannot_be_read_say_what_was_expected(official: Official, tmp_path: Path) -> None:
    folder = official(train=[row()], train_jsonl=[row()])
    (tmp_path / "empty").mkdir()
    cut = official("cut", train_json_gz=[row()]) / "train.json.gz"
    cut.write_bytes(cut.read_bytes()[:-12])
    for source, expected in (
        (tmp_path / "nowhere", "no such folder"),
        (folder / "train.json", "is a file"),
        (tmp_path / "empty", "train, dev and test"),
        (folder, "several files for the train split"),
        (cut.parent, "cannot be read to its end"),
    ):
        with pytest.raises(PromptCBLUEError, match=expected):
            import_files(source, tmp_path / "promptcblue", cache=False)
    assert not (tmp_path / "promptcblue").exists()


def test_only_an_earlier_import_is_replaced(official: Official, tmp_path: Path) -> None:
    output = tmp_path / "out" / "promptcblue"
    output.mkdir(parents=True)  # an empty folder holds nothing to lose
    import_files(official(train=[row(), row("MedDG")]), output, cache=False)
    assert sorted(parquet_files(output)) == ["CHIP-STS", "MedDG"]
    source = official(train=[row("MedDG")])
    import_files(source, output, cache=False)
    assert sorted(parquet_files(output)) == ["MedDG"]
    (output / "notes.txt").write_text("mine")
    with pytest.raises(PromptCBLUEError, match=r"changed .*: notes\.txt; .*--overwrite"):
        import_files(source, output, cache=False)
    assert (output / "notes.txt").read_text() == "mine"
    import_files(source, output, overwrite=True, cache=False)
    assert sorted(tree(output)) == ["MedDG/train-00000-of-00001.parquet", "README.md"]
    assert sorted(path.name for path in output.parent.iterdir()) == ["promptcblue", "promptcblue-import-report.json"]


def test_a_folder_changed_by_hand_is_replaced_only_when_told(official: Official, tmp_path: Path) -> None:
    source, output = official(train=[row(), row("MedDG")]), tmp_path / "out" / "promptcblue"
    parquet, card = output / "MedDG" / "train-00000-of-00001.parquet", output / "README.md"
    import_files(source, output, cache=False)
    assert write_into_card(output, statistics(output))  # a change of our own
    import_files(source, output, cache=False)
    card.write_text(card.read_text(encoding="utf-8") + "Mine.\n", encoding="utf-8")
    parquet.unlink()
    write_into_card(output, statistics(output))  # does not hide theirs
    before = tree(output)
    with pytest.raises(PromptCBLUEError, match=r"MedDG/train-00000-of-00001\.parquet, README\.md; .*--overwrite"):
        import_files(tmp_path / "official", output, cache=False)
    assert tree(output) == before
    import_files(source, output, overwrite=True, cache=False)
    (output.parent / "promptcblue-import-report.json").unlink()
    with pytest.raises(PromptCBLUEError, match=r"on record.*--overwrite"):
        import_files(source, output, cache=False)


def test_a_folder_that_holds_the_source_or_the_user_is_never_replaced(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = official("work/official", train=[row()])
    monkeypatch.chdir(tmp_path)
    for output in (source, source.parent, Path(), tmp_path.parent, Path.home()):
        with pytest.raises(PromptCBLUEError, match="cannot be replaced"):
            import_files(source, output, overwrite=True, cache=False)
    assert (source / "train.json").exists()


def test_a_failure_while_writing_leaves_the_earlier_import(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out" / "promptcblue"
    import_files(official(train=[row()]), output, cache=False)
    before = tree(output.parent)

    def interrupted(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("promptcblue_dataset.folder._card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_files(official(train=[row("MedDG")]), output, cache=False)
    assert tree(output.parent) == before


def test_an_output_that_cannot_be_written_is_one_clear_error(official: Official, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PromptCBLUEError, match="cannot be written"):
        import_files(official(train=[row()]), tmp_path / "file" / "promptcblue", cache=False)
    with pytest.raises(PromptCBLUEError, match="is a file"):
        import_files(official(train=[row()]), tmp_path / "file", cache=False)


def test_the_official_samples_are_all_good(shared: Path, tmp_path: Path) -> None:
    imported = import_files(shared / "data" / "promptcblue_toy", tmp_path / "promptcblue", cache=False)
    assert imported.counts() == {task: {"train": 5, "validation": 5, "test": 5} for task in TASKS}
    assert not imported.checked.warnings


def test_the_embedded_sample_is_all_good_and_whole(sample_dataset: Imported) -> None:
    assert not sample_dataset.checked.warnings
    assert not sample_dataset.missing
    for counts in sample_dataset.counts().values():
        assert counts["train"] >= 12
        assert counts["validation"] >= 4
        assert counts["test"] >= 4
    assert all(sample["target"] for splits in sample_dataset.checked.samples.values() for sample in splits["test"])


def run_command(run_python: Run, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_python(COMMAND, *arguments, cwd=cwd, HF_HOME=str(cwd / "cache"))


def test_the_command_prints_counts_and_what_was_left_out(run_python: Run, official: Official, tmp_path: Path) -> None:
    flawed = row("CMeEE-V2", "e", target="疾病实体：肺炎\n药物实体：青霉素")
    folder = official(train=[row(), flawed, "{"], test=[row(target="")])
    done = run_command(run_python, tmp_path, "import", folder, "--on-error", "skip", "--no-cache")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    cells = {line.split()[0]: line.split()[-4:] for line in done.stdout.splitlines() if line.strip()}
    assert cells["CHIP-STS"] == ["1", "–", "1", "–"]
    assert cells["CMeEE-V2"] == ["1", "–", "–", "1"]
    assert cells["all"] == ["2", "–", "1", "1"]
    for expected in ("validation", "MedDG", "skipped 1 bad rows of 4", "train.json:3", "missing lead line 1"):
        assert expected in done.stdout
    assert not (tmp_path / "cache").exists()


def test_the_command_fails_in_one_message(run_python: Run, official: Official, tmp_path: Path) -> None:
    done = run_command(run_python, tmp_path, "import", official(train=[row(), "{"]))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "1 bad row" in done.stderr
    assert "train.json:2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "promptcblue").exists()


def test_a_cache_that_cannot_be_written_is_one_clear_error(run_python: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    done = run_command(run_python, tmp_path, "import", "sample")
    assert done.returncode == 1
    assert "--no-cache" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "promptcblue" / "README.md").exists()


def test_help_starts_fast(run_python: Run, tmp_path: Path) -> None:
    heavy = "datasets", "evaluate", "pyarrow", "torch", "transformers", "pandas", "huggingface_hub"
    code = f"import atexit; atexit.register(lambda: print({heavy!r}, [m for m in {heavy!r} if m in sys.modules])); "
    done = run_python(code + COMMAND, "import", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Example: promptcblue-dataset import" in done.stdout
    assert done.stdout.rstrip().endswith("[]")
