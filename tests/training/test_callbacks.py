from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptcblue_dataset import load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.callbacks import ScoreInTraining
from promptcblue_training.data import spread

from ..conftest import SampleRows
from .conftest import RECIPE, Fit

TASKS = ["CHIP-STS", "KUAKE-IR", "IMCS-V2-MRG"]
SETTINGS: dict[str, Any] = {
    "configs": TASKS,
    "max_steps": 4,
    "logging_steps": 2,
    "score_samples": 3,
    "score_steps": 2,
}


def scores(folder: Path) -> list[dict[str, float]]:
    entries = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in entries if "eval_overall" in entry]


def test_the_drawn_samples_are_balanced_over_tasks_and_the_same_for_a_seed(sample_rows: SampleRows) -> None:
    samples: list[Any] = sample_rows("train")
    drawn = spread(samples, 50, seed=3)
    counts = Counter(sample["task_dataset"] for sample in drawn)
    assert len(drawn) == 50
    assert max(counts.values()) - min(counts.values()) <= 1
    assert drawn == spread(samples, 50, seed=3)
    assert drawn != spread(samples, 50, seed=4)
    places = [samples.index(sample) for sample in drawn]
    assert places == sorted(places)
    # More of them are the same ones and others beside them.
    assert all(sample in spread(samples, 60, seed=3) for sample in drawn)
    assert spread(samples, 10**6, seed=3) == samples
    assert spread([], 5, seed=3) == []


@pytest.mark.parametrize("method", ["full", "p-tuning", "p-tuning-v2"])
def test_the_score_is_logged_and_is_what_prediction_gives(
    fit: Fit,
    data: Path,
    trained: Path,
    tmp_path: Path,
    method: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from promptcblue_metric.evaluation import Evaluation
    from promptcblue_training.backends import BackendSettings
    from promptcblue_training.predict import predict

    made: list[dict[int, str]] = []
    original = ScoreInTraining._scores

    def spy(self: ScoreInTraining, answers: Any) -> dict[str, float]:
        made.append({answer.index: answer.text for answer in answers})
        return original(self, answers)

    monkeypatch.setattr(ScoreInTraining, "_scores", spy)
    model = {"model": str(trained), "from_config": None}
    folder = fit(**SETTINGS, **model, method=method, virtual_tokens=4, encoder_width=8)
    logged = scores(folder)
    assert [entry["step"] for entry in logged] == [2, 4]
    assert {"eval_CHIP-STS", "eval_KUAKE-IR", "eval_well_formed"} <= set(logged[-1])
    # The training loss of the same steps is logged as ever.
    steps = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in steps if "loss" in entry] == [2, 4]
    assert "validation score" in capsys.readouterr().out
    output = tmp_path / "predictions.jsonl"
    predict(str(data), "dev", output, BackendSettings(model=str(folder)), TASKS)
    evaluation = Evaluation()
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    answers = {(row["task_dataset"], row["sample_id"]): row["prediction"] for row in rows}
    for index, sample in enumerate(load_samples(data, "validation", TASKS)):
        answer = answers[sample["task_dataset"], sample["sample_id"]]
        assert made[-1][index] == answer
        evaluation.add(answer, sample)
    assert logged[-1]["eval_overall"] == pytest.approx(evaluation.result()["overall"])
    if method == "full":
        # Answering has changed neither what is trained nor how the saved model decodes.
        plain = fit(**{**SETTINGS, "score_samples": 0}, **model, method=method)
        assert [entry["loss"] for entry in steps if "loss" in entry] == pytest.approx(
            [
                entry["loss"]
                for entry in json.loads((plain / "trainer_state.json").read_text())["log_history"]
                if "loss" in entry
            ]
        )
        generation = "generation_config.json"
        assert (plain / generation).read_text() == (folder / generation).read_text()


def test_tensorboard_holds_the_score(fit: Fit) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = fit(**SETTINGS, report_to="tensorboard")
    logs = [accumulator.EventAccumulator(str(events)).Reload() for events in folder.rglob("events.out.tfevents.*")]
    (log,) = [log for log in logs if "eval/overall" in log.Tags()["scalars"]]
    assert [event.step for event in log.Scalars("eval/overall")] == [2, 4]
    assert log.Scalars("eval/overall")[-1].value == pytest.approx(scores(folder)[-1]["eval_overall"])
    assert "eval/CHIP-STS" in log.Tags()["scalars"]


def test_trackio_logs_the_score_without_a_hub(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    folder, recipe = tmp_path / "model", tmp_path / "recipe.yaml"
    settings = {**RECIPE, **SETTINGS, "dataset": str(data), "output_dir": str(folder), "report_to": "trackio"}
    recipe.write_text(yaml.safe_dump({**settings, "project": "of-a-test", "run_name": "run"}))
    # trackio reads where to write when it is imported.
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "promptcblue_training.sft", str(recipe)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    (database,) = (tmp_path / "trackio").glob("of-a-test*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("select metrics from metrics")]
    assert [row["eval/overall"] for row in rows if "eval/overall" in row] == [
        entry["eval_overall"] for entry in scores(folder)
    ]


@pytest.mark.parametrize(("tracker", "message"), [("notebook", "unknown tracker"), ("wandb", "not installed")])
def test_where_nothing_would_arrive_is_refused(
    fit: Fit, tracker: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(PromptCBLUEError, match=f"{tracker}.*{message}|{message}.*{tracker}"):
        fit(**SETTINGS, report_to=tracker)


@pytest.mark.timeout(300)
def test_two_processes_share_the_answers(fit: Fit, data: Path, trained: Path, tmp_path: Path) -> None:
    changes = {**SETTINGS, "model": str(trained), "from_config": None, "configs": None, "score_samples": 10}
    changes |= {
        "per_device_train_batch_size": 4,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "checkpoint_choice": "best",
    }
    one = fit(**changes)
    two, recipe = tmp_path / "two", tmp_path / "two.yaml"
    settings = {**RECIPE, **changes, "dataset": str(data), "output_dir": str(two)}
    recipe.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    result = subprocess.run(
        [*command, "-m", "promptcblue_training.sft", str(recipe), "--processes", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for alone, shared in zip(scores(one), scores(two), strict=True):
        assert shared["eval_overall"] == pytest.approx(alone["eval_overall"], abs=1e-6)
    # The choice is the same too, and its weights are those of its checkpoint.
    choices = [json.loads((folder / "checkpoint_choice.json").read_text()) for folder in (one, two)]
    step = choices[0]["step"]
    assert step == choices[1]["step"] < 4
    chosen = two / f"checkpoint-{step}" / "model.safetensors"
    assert (two / "model.safetensors").read_bytes() == chosen.read_bytes()
    assert (two / "README.md").is_file()
