from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Evaluation
from promptcblue_metric.tasks import SUITES, get_task
from promptcblue_training.card import add_scores, renew_card, write_card

from .conftest import Fit, read_rows
from .test_cli import command


@pytest.fixture(scope="module")
def run(fit: Fit, trained: Path) -> Path:
    """A finished run of an adapter, with a validation loss and fitted size."""
    return fit(
        "--weight_decay=1e-3",
        model=str(trained),
        from_config=None,
        method="lora",
        fit_budget=0.05,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
    )


@pytest.fixture
def scores(data: Path, tmp_path: Path) -> Path:
    """A score file as ``promptcblue-metric score --json`` writes it, of perfect predictions but for one task."""
    evaluation = Evaluation()
    for row in read_rows(data / "dev.json"):
        evaluation.add("" if row["task_dataset"] == "CMeEE-V2" else row["target"], row)
    origin = {"source": str(data), "split": "validation", "predictions": "p.jsonl", "made_with": {"model": "org/model"}}
    result: dict[str, Any] = {
        **evaluation.result(),
        "provenance": origin,
        "intervals": {"overall": [0.5, 1.0], "CMeEE-V2": [0.0, 0.125]},
    }
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_run_writes_its_card_over_those_of_the_libraries(run: Path, trained: Path) -> None:
    card = ModelCard.load(run / "README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["language"], data["pipeline_tag"]) == ("peft", "zh", "text-generation")
    assert {"promptcblue", "medical", "lora"} <= set(data["tags"])
    # A folder on this machine is no id on the Hub.
    assert "base_model" not in data
    assert str(trained.parent) not in card.content
    settings = json.loads((run / "run.json").read_text())["settings"]
    results = json.loads((run / "train_results.json").read_text())
    rank = json.loads((run / "adapter_config.json").read_text())["r"]
    losses = json.loads((run / "checkpoint_choice.json").read_text())["losses"]
    for said in (
        settings["samples"],
        f"{results['trainable_parameters']:,} trained parameters",
        f"`lora_rank` | `{rank}`",
        "`learning_rate` | `0.005`",
        "(loss_curve.png)",
        f"| {losses[-1]['step']} | {losses[-1]['loss']:.4f} |",
        "Not for clinical decisions",
        "promptcblue-train sft",
        "--weight_decay=1e-3",
        "| transformers |",
    ):
        assert said in card.text, said
    assert "adapter_bottleneck" not in card.text, "a setting of another method"
    assert (run / "loss_curve.png").is_file()


def test_a_backbone_from_the_hub_is_named(run: Path, tmp_path: Path) -> None:
    for path in run.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    record = json.loads((tmp_path / "run.json").read_text())
    record["notes"]["recipe"] |= {"model": "Qwen/Qwen2.5-7B-Instruct", "dataset": "someone/promptcblue"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    write_card(tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen2.5-7B-Instruct", "adapter")
    assert data.datasets == ["someone/promptcblue"]


def test_scores_go_into_the_metadata_and_the_rest_stays(
    run: Path, scores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "README.md"
    path.write_text(path.read_text() + "\nWritten by hand.\n")
    before = ModelCard.load(path).text
    for _ in range(2):  # the second time they replace the first
        assert command(monkeypatch, "card", "--model", run, "--scores", scores) == 0
    card = ModelCard.load(path)
    assert card.text.rstrip().endswith("Written by hand.")
    # The commands now lead to the scores that stand there.
    assert before.split("## Training")[1].replace("--split test", "--split validation") in card.text
    assert "OUTPUT_DIR" not in card.text
    results = {result.dataset_config: result for result in card.data.eval_results or []}
    assert len(results) == 17
    entity = results["CMeEE-V2"]
    assert (entity.metric_value, entity.dataset_split, entity.metric_name) == (0.0, "validation", "micro-F1")
    assert entity.metric_args["interval_95"] == [0.0, 0.125]
    assert entity.metric_args["protocol"] == "official"
    overall = json.loads(scores.read_text(encoding="utf-8"))["overall"]
    assert results["all"].metric_value == pytest.approx(overall, abs=1e-6)
    assert results["CHIP-STS"].metric_value == 1.0
    assert f"| **overall** | mean | {overall:.4f} | 0.5000 … 1.0000 |" in card.text
    assert card.text.count("Signature: `promptcblue|") == 1
    assert "On the validation split of PromptCBLUE, 16 samples (predicted with model org/model):" in card.text
    assert entity.metric_args["references"] in card.text


def test_a_card_that_someone_removed_is_written_again(run: Path, scores: Path) -> None:
    (run / "README.md").unlink()
    add_scores(run, scores)
    assert len(ModelCard.load(run / "README.md").data.eval_results or []) == 17


def test_a_card_is_written_anew_only_where_nothing_is_lost(
    run: Path, scores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "README.md"
    renew_card(run, overwrite=True)  # others share the run
    made = path.read_bytes()
    assert command(monkeypatch, "card", "--model", run) == 0
    assert path.read_bytes() == made
    add_scores(run, scores)
    scored = path.read_bytes()
    for content in (scored, made + b"\nWritten by hand.\n", b"A card without a place for scores."):
        path.write_bytes(content)
        assert command(monkeypatch, "card", "--model", run) == 1
        assert "--overwrite" in capsys.readouterr().err
        assert path.read_bytes() == content
    with pytest.raises(PromptCBLUEError, match="--overwrite"):
        add_scores(run, scores)
    assert path.read_bytes() == b"A card without a place for scores."
    assert command(monkeypatch, "card", "--model", run, "--overwrite") == 0
    assert path.read_bytes() == made


def test_a_run_that_is_not_finished_gets_no_card(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(PromptCBLUEError, match="not finished"):
        renew_card(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_what_cannot_be_used_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=r"run\.json"):
        write_card(tmp_path)
    for content in ("{", "[]", '{"overall": 1}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(PromptCBLUEError, match=r"bad\.json"):
            add_scores(run, tmp_path / "bad.json")


def test_scores_that_do_not_say_what_was_scored_are_refused(run: Path, scores: Path) -> None:
    result = json.loads(scores.read_text())
    with pytest.raises(PromptCBLUEError, match="of the validation split, not of test"):
        add_scores(run, scores, "test")
    scores.write_text(json.dumps({**result, "provenance": {**result["provenance"], "split": None}}))
    with pytest.raises(PromptCBLUEError, match="which split"):
        add_scores(run, scores)
    add_scores(run, scores, "dev")
    for held in ("provenance", "tasks"):
        part = result[held] if held == "provenance" else result[held][next(iter(result[held]))]
        taken = part.popitem()
        scores.write_text(json.dumps(result))
        with pytest.raises(PromptCBLUEError, match=rf"{held}\.(\S+\.)?{taken[0]} missing"):
            add_scores(run, scores, "validation")
        part.update([taken])
    scores.write_text(json.dumps({name: value for name, value in result.items() if name != "provenance"}))
    with pytest.raises(PromptCBLUEError, match="does not say what was scored"):
        add_scores(run, scores, "validation")


@pytest.mark.parametrize("config", ["CHIP-STS", "Text2DT", "cMedQQ"])
@pytest.mark.parametrize("named", [True, False])
def test_a_card_speaks_of_its_own_suite_and_samples(config: str, named: bool, tmp_path: Path) -> None:
    notes = {"recipe": {"configs": [config]} if named else {}}
    (tmp_path / "run.json").write_text(json.dumps({"notes": notes}), encoding="utf-8")
    evaluation = Evaluation()
    suite = SUITES[get_task(config).suite]
    tasks = [config, next(name for name in suite.tasks if name != config)]
    for task, rows in zip(tasks, (1, 2), strict=True):
        for number in range(rows):
            row = {
                "sample_id": str(number),
                "task_dataset": task,
                "input": "问",
                "target": "是",
                "answer_choices": ["是"],
            }
            evaluation.add("", row)
    origin = {"source": "x", "split": "test", "predictions": "p.jsonl", "made_with": None}
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({**evaluation.result(), "provenance": origin}), encoding="utf-8")
    write_card(tmp_path)
    if named:
        assert f"benchmark of {len(suite.tasks)} tasks" in ModelCard.load(tmp_path / "README.md").text
    add_scores(tmp_path, path)
    card = ModelCard.load(tmp_path / "README.md")
    assert f"{suite.title}, a Chinese medical benchmark of {len(suite.tasks)} tasks" in card.text
    counted = {result.dataset_config: result.metric_args["samples"] for result in card.data.eval_results or []}
    assert counted == {"all": 3, tasks[0]: 1, tasks[1]: 2}
