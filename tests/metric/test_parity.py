"""The official scorer's own answers, to the last digit, through the commands a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptcblue_metric import get_task
from promptcblue_metric.cli.main import app


def test_scores_and_structured_answers_equal_the_official_ones(shared: Path, tmp_path: Path) -> None:
    parity = shared / "parity"
    predictions, gold = parity / "predictions.jsonl", parity / "gold.jsonl"
    scores, structured = tmp_path / "scores.json", tmp_path / "results.json"
    scored = CliRunner().invoke(app, ["score", str(predictions), "--references", str(gold), "--json", str(scores)])
    assert scored.exit_code == 0, scored.output
    parsed = CliRunner().invoke(app, ["parse", str(predictions), "--output", str(structured)])
    assert parsed.exit_code == 0, parsed.output

    official, ours = json.loads((parity / "scores.json").read_text()), json.loads(scores.read_text())
    assert ours["overall"] == pytest.approx(official["overall"], abs=1e-12)
    for name, expected in official["scores"].items():
        task = ours["tasks"][get_task(name).name]
        assert task["scores"] == pytest.approx(
            {key.removeprefix("macro-"): value for key, value in expected.items()}, abs=1e-12
        )
        assert task["samples"] == official["n"][name]
    assert json.loads(structured.read_text()) == json.loads((parity / "structured.json").read_text())


def test_official_targets_are_well_formed_and_structure_as_published(shared: Path) -> None:
    toy = shared / "data" / "promptcblue_toy"
    rows = [json.loads(line) for line in (toy / "dev.json").read_text().splitlines()]
    published = json.loads((toy / "dev_structured.json").read_text())
    for row in rows:
        task = get_task(row["task_dataset"])
        parsed = task.format.parse(row["target"], task.choices(row["answer_choices"]))
        assert parsed.well_formed, (row["target"], parsed.problems)
        answers = {item["sample_id"]: item["answer"] for item in published[row["task_dataset"]]}
        expected = answers[row["sample_id"]]
        if row["task_dataset"] == "CHIP-CDN":
            # A set: the published file has it in no particular order.
            expected = sorted(expected, key=lambda item: item["entity"])
        assert parsed.answer == expected
