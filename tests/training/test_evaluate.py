from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from promptcblue_metric.cli import main as metric_cli
from promptcblue_metric.errors import install_command
from promptcblue_training import cli

from .conftest import read_rows, write_rows


def call(monkeypatch: pytest.MonkeyPatch, main: object, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    assert callable(main)
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_evaluate_gives_the_scores_that_predict_and_score_give(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, scores = tmp_path / "p.jsonl", tmp_path / "scores.json"
    options = ["--model", trained, "--dataset", data, "--output", output, "--max-new-tokens", 12]
    extra = ["--report", tmp_path / "report", "--json", scores, "--resamples", 100]
    assert call(monkeypatch, cli.main, "evaluate", *options, *extra) in (0, 3)
    assert "overall" in capsys.readouterr().out
    assert len(read_rows(output)) == 16
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "CHIP-CDEE" in page
    other = tmp_path / "other.json"
    assert call(monkeypatch, metric_cli.main, "score", output, "--references", data, "--json", other) == 0
    one, two = (json.loads(path.read_text(encoding="utf-8")) for path in (scores, other))
    assert one["overall"] == two["overall"]
    assert one["tasks"] == two["tasks"]
    # What is complete is only scored, here of two tasks... which is another run, and says so.
    before = output.read_bytes()
    capsys.readouterr()
    assert call(monkeypatch, cli.main, "evaluate", *options, "--resamples", 0) in (0, 3)
    assert output.read_bytes() == before


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_evaluate_overwrites_neither_its_samples_nor_its_predictions(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output, data = tmp_path / "p.jsonl", tmp_path / "data.jsonl"
    data.write_text("{}\n", encoding="utf-8")
    options = ["--model", "x", "--dataset", data, "--output", output]
    for taken in (output, data):
        assert call(monkeypatch, cli.main, "evaluate", *options, option, taken) == 1
        assert str(taken) in capsys.readouterr().err
    assert data.read_text(encoding="utf-8") == "{}\n"


def test_evaluate_scores_the_tasks_it_predicted_and_no_others(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model", trained, "--dataset", data, "--output", tmp_path / "p.jsonl", "--max-new-tokens", 8]
    scores = tmp_path / "scores.json"
    assert call(
        monkeypatch, cli.main, "evaluate", *options, "--config", "CHIP-STS", "--config", "MedDG", "--json", scores
    ) in (0, 3)
    result = json.loads(scores.read_text(encoding="utf-8"))
    assert set(result["tasks"]) == {"CHIP-STS", "MedDG"}
    assert result["missing_predictions"] == 0


def test_what_could_not_be_scored_is_refused_before_anything_is_predicted(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = write_rows(tmp_path / "hidden.json", [{**row, "target": ""} for row in read_rows(data / "test.json")])
    output = tmp_path / "p.jsonl"
    options = ["--model", trained, "--dataset", hidden, "--output", output]
    assert call(monkeypatch, cli.main, "evaluate", *options) == 1
    assert "no target to score against" in capsys.readouterr().err
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    options = ["--model", trained, "--dataset", data, "--output", output]
    assert call(monkeypatch, cli.main, "evaluate", *options, "--report", theirs) == 1
    capsys.readouterr()
    monkeypatch.setattr("promptcblue_metric.errors.find_spec", lambda name: None)
    assert call(monkeypatch, cli.main, "evaluate", *options, "--report", tmp_path / "report") == 1
    said = capsys.readouterr().err
    assert "jinja2" in said
    assert install_command("report") in said
    assert not output.exists()


def test_each_split_is_read_once(trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Path.open

    def spy(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self.name)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", spy)
    options = ["--model", trained, "--dataset", data, "--output", tmp_path / "p.jsonl", "--split", "validation"]
    assert call(monkeypatch, cli.main, "evaluate", *options, "--demonstrations", 1, "--config", "CHIP-STS") in (0, 3)
    # A file is opened once to see what it is, and once to be read.
    assert [opened.count(f"{split}.json") for split in ("train", "dev", "test")] == [2, 2, 2]
