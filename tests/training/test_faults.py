"""What goes wrong outside of us ends in one message that says what to do, and loses no work."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.run import saved_checkpoints

from .conftest import Fit, read_rows, write_rows


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a disk full from the checkpoint of some step on: no file can grow beyond a size."""
    from promptcblue_training import trainer

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    original: Callable[..., None] = trainer.Trainer._save_checkpoint

    def start(step: int, size: int = 0) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

        def save(self: Any, *args: Any, **kwargs: Any) -> None:
            if self.state.global_step >= step:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            original(self, *args, **kwargs)

        monkeypatch.setattr(trainer.Trainer, "_save_checkpoint", save)

    yield start
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


# The weights (328 kB) are written by safetensors, the optimizer's states (twice that) by torch, and the first small
# files by Python: each says in its own way that the disk is full.
@pytest.mark.parametrize("size", [200, 100_000, 400_000])
def test_a_full_disk_is_named_and_the_run_can_go_on(
    fit: Fit, full_disk: Any, tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    full_disk(4, size)
    folder, changes = tmp_path / "model", {"max_steps": 6, "save_steps": 2, "logging_steps": 2, "save_total_limit": 3}
    with pytest.raises(PromptCBLUEError, match="is the disk full") as error:
        fit(output_dir=folder, **changes)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert list(saved_checkpoints(folder)) == [2]
    assert not (folder / "train_results.json").exists()

    full_disk(10**9)  # a step that never comes
    fit(output_dir=folder, **changes)
    assert f"going on from {folder / 'checkpoint-2'}" in capsys.readouterr().out
    assert (folder / "train_results.json").exists()


@pytest.mark.parametrize("column", ["input", "target", "task_dataset"])
def test_a_missing_column_is_named_with_its_file_and_line(fit: Fit, data: Path, tmp_path: Path, column: str) -> None:
    rows = read_rows(data / "train.json")
    rows[3] = {key: value for key, value in rows[3].items() if key != column}
    write_rows(tmp_path / "train.json", rows)
    with pytest.raises(PromptCBLUEError, match=rf"train\.json:4.*{column}"):
        fit(dataset=str(tmp_path))


def test_a_missing_column_of_a_parquet_dataset_is_named(fit: Fit, data: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "set" / "CMeEE-V2"
    folder.mkdir(parents=True)
    rows = [row for row in read_rows(data / "train.json") if row["task_dataset"] == "CMeEE-V2"]
    table = pa.Table.from_pylist([{key: row[key] for key in row if key != "target"} for row in rows])
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    with pytest.raises(PromptCBLUEError, match="target"):
        fit(dataset=str(tmp_path / "set"))


def test_one_sample_with_an_empty_target_is_named(fit: Fit, data: Path, tmp_path: Path) -> None:
    rows = read_rows(data / "train.json")
    rows[5]["target"] = " "
    write_rows(tmp_path / "train.json", rows)
    with pytest.raises(PromptCBLUEError, match=f"1 of 32 samples.*{rows[5]['sample_id']}"):
        fit(dataset=str(tmp_path))


def test_a_validation_loss_that_is_no_number_is_not_the_lowest(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptcblue_training import trainer

    original = trainer.Trainer.evaluation_loop

    def loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        if self.state.global_step == 2:
            output.metrics["eval_loss"] = float("nan")
        return output

    monkeypatch.setattr(trainer.Trainer, "evaluation_loop", loop)
    folder = fit(max_steps=4, eval_strategy="steps", eval_steps=2, checkpoint_choice="best")
    assert json.loads((folder / "checkpoint_choice.json").read_text())["lowest"]["step"] == 4
