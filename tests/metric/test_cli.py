"""The ``promptcblue-metric`` command, with right and wrong input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset.build import import_files
from promptcblue_metric.version import VERSION

from ..conftest import Run, SampleRows

Files = Callable[..., Path]
#: Runs the command as the console script does, errors included.
COMMAND = "import sys; from promptcblue_metric.cli.main import main; sys.argv[0] = 'promptcblue-metric'; main()"


@pytest.fixture
def write(tmp_path: Path) -> Files:
    def write(name: str, rows: Sequence[Mapping[str, Any] | str]) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def references(write: Files, sample_rows: SampleRows) -> Path:
    return write("references.jsonl", sample_rows("test"))


def predicted(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"sample_id": row["sample_id"], "prediction": row["target"]} for row in rows]


def test_score_matches_in_any_order_and_writes_every_digit(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    predictions = write("predictions.jsonl", predicted(sample_rows("test"))[::-1])
    output = tmp_path / "out" / "scores.json"
    done = run_python(COMMAND, "score", predictions, "--references", references, "--json", output)
    assert done.returncode == 0, done.stderr
    assert "overall" in done.stdout
    scores = json.loads(output.read_text())
    assert scores["overall"] == pytest.approx(1.0, abs=1e-6)
    assert scores["signature"] in done.stdout


def test_score_reads_the_official_form_and_gzip(
    references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    predictions = tmp_path / "test_predictions.json"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in sample_rows("test"))
    predictions.write_bytes(gzip.compress(lines.encode()))
    done = run_python(COMMAND, "score", predictions, "--references", references)
    assert done.returncode == 1
    assert "--allow-gold" in done.stderr
    done = run_python(COMMAND, "score", predictions, "--references", references, "--allow-gold")
    assert done.returncode == 0, done.stderr


def test_references_can_be_a_folder_of_official_files(write: Files, sample_rows: SampleRows, run_python: Run) -> None:
    folder = write("dev.json", sample_rows("dev")).parent
    predictions = write("predictions.jsonl", predicted(sample_rows("dev")))
    done = run_python(COMMAND, "score", predictions, "--references", folder, "--split", "validation")
    assert done.returncode == 0, done.stderr
    assert "overall" in done.stdout
    done = run_python(COMMAND, "score", predictions, "--references", folder, "--split", "train")
    assert done.returncode == 1
    assert "it has validation" in done.stderr


@pytest.mark.parametrize("predicted_tasks", [{"CMeIE"}, {"CMeIE", "CHIP-STS"}], ids=["alone", "among others"])
def test_one_task_can_be_scored_with_the_others_left_out(
    predicted_tasks: set[str], write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    rows = [row for row in sample_rows("test") if row["task_dataset"] in predicted_tasks]
    named = [{**row, "task_dataset": whole["task_dataset"]} for row, whole in zip(predicted(rows), rows, strict=True)]
    output = tmp_path / "scores.json"
    options = ("--references", references, "--config", "cmeie", "--json", output)
    done = run_python(COMMAND, "score", write("predictions.jsonl", named), *options)
    assert done.returncode == 0, done.stderr
    scores = json.loads(output.read_text())
    assert list(scores["tasks"]) == ["CMeIE"]
    assert scores["overall"] == 1.0


def test_missing_predictions_stop_the_run_unless_counted_wrong(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    predictions = write("predictions.jsonl", predicted(sample_rows("test"))[3:])
    done = run_python(COMMAND, "score", predictions, "--references", references)
    assert done.returncode == 1
    assert f"3 of {len(sample_rows('test'))}" in done.stderr
    assert "--missing count-wrong" in done.stderr
    output = tmp_path / "scores.json"
    arguments = ("--missing", "count-wrong", "--json", output)
    done = run_python(COMMAND, "score", predictions, "--references", references, *arguments)
    assert done.returncode == 0, done.stderr
    scores = json.loads(output.read_text())
    assert scores["missing_predictions"] == 3
    assert scores["overall"] < 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"sample_id": "no-such", "prediction": "x"}, "not among the references"),
        ({"sample_id": "test-1", "prediction": "x"}, "already predicted on line 1"),
        ({"sample_id": "test-1", "task_dataset": "MedDG", "prediction": "x"}, "of MedDG is not among"),
        ({"sample_id": "test-1", "task_dataset": "MedGD", "prediction": "x"}, "did you mean 'MedDG'"),
        ({"sample_id": 7, "prediction": "x"}, "field 'sample_id'"),
        ({"sample_id": "test-1", "prediction": None}, "field 'prediction'"),
        ({"sample_id": "test-1"}, "field 'prediction'"),
        ({"sample_id": "test-1", "target": "x"}, "field 'prediction'"),
        ("[1]", "found a list"),
        ('{"sample_id": "test-1", "predi', "JSON"),
    ],
)
def test_a_bad_prediction_row_is_named_with_its_line(
    bad: dict[str, Any] | str, said: str, write: Files, references: Path, sample_rows: SampleRows, run_python: Run
) -> None:
    rows = sorted(predicted(sample_rows("test")), key=lambda row: row["sample_id"] != "test-1")
    predictions = write("predictions.jsonl", [*rows, bad])
    done = run_python(COMMAND, "score", predictions, "--references", references)
    assert done.returncode == 1
    assert f"{predictions}:{len(rows) + 1}: " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("source", ["sample", "folder", "file"])
def test_references_are_read_from_wherever_samples_are_without_datasets(
    source: str, write: Files, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    if source != "sample":
        imported = import_files("sample", tmp_path / "imported", cache=False).output
        (path,) = (imported / "MedDG").glob("validation-*.parquet")
        source = str(imported if source == "folder" else path)
    rows = sample_rows("dev")
    if source.endswith(".parquet"):
        rows = [row for row in rows if row["task_dataset"] == "MedDG"]
    predictions = write("predictions.jsonl", predicted(rows))
    code = COMMAND.replace("main()", "\ntry: main()\nfinally: print('datasets' in sys.modules)")
    done = run_python(code, "score", predictions, "--references", source, "--split", "dev", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"samples:{len(rows)}|" in done.stdout
    assert done.stdout.endswith("False\n")


def test_an_id_of_several_tasks_needs_its_task(write: Files, sample_rows: SampleRows, run_python: Run) -> None:
    by_task = {row["task_dataset"]: {**row, "sample_id": "same"} for row in sample_rows("test")}
    references = write("references.jsonl", [by_task["MedDG"], by_task["KUAKE-IR"]])
    without = write("without.jsonl", [{"sample_id": "same", "prediction": "相关"}])
    done = run_python(COMMAND, "score", without, "--references", references)
    assert done.returncode == 1
    assert "task_dataset" in done.stderr
    rows = [{"sample_id": "same", "task_dataset": task, "prediction": "相关"} for task in ("KUAKE-IR", "MedDG")]
    done = run_python(COMMAND, "score", write("with.jsonl", rows), "--references", references)
    assert done.returncode == 0, done.stderr
    assert "mean of 2 of 16 tasks" in done.stdout


@pytest.mark.parametrize("source", ["no-such-file.jsonl", "no/such/folder/at/all"])
def test_references_that_are_not_there(source: str, write: Files, run_python: Run, tmp_path: Path) -> None:
    predictions = write("predictions.jsonl", [{"sample_id": "1", "prediction": "x"}])
    done = run_python(COMMAND, "score", predictions, "--references", source, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert source in done.stderr
    assert "Traceback" not in done.stderr


def test_parse_takes_task_and_choices_from_the_references(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    predictions = write("predictions.jsonl", predicted(sample_rows("test")))
    output = tmp_path / "results.json"
    done = run_python(COMMAND, "parse", predictions, "--output", output)
    assert done.returncode == 1
    assert "field 'task_dataset'" in done.stderr
    assert not output.exists()
    done = run_python(COMMAND, "parse", predictions, "--references", references, "--output", output)
    assert done.returncode == 0, done.stderr
    answers = json.loads(output.read_text())
    assert len(answers) == 16
    assert {row["sample_id"] for rows in answers.values() for row in rows} == {
        row["sample_id"] for row in sample_rows("test")
    }
    output.unlink()
    done = run_python(COMMAND, "parse", write("nothing.jsonl", []), "--output", output)
    assert done.returncode == 1
    assert "holds no predictions" in done.stderr
    assert not output.exists()


def test_half_a_surrogate_pair_ends_no_command(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    rows = [{**row, "prediction": row["prediction"] + "\ud83d"} for row in predicted(sample_rows("test"))]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = write("other.jsonl", predicted(sample_rows("test")))
    for arguments in (
        ["score", path, "--json", tmp_path / "scores.json"],
        ["parse", path, "--output", tmp_path / "results.json"],
        ["report", path, "--output", tmp_path / "report", "--resamples", "0"],
        ["compare", path, other, "--resamples", "100"],
    ):
        done = run_python(COMMAND, *arguments, "--references", references)
        assert done.returncode == 0, done.stderr
    answers = json.loads((tmp_path / "results.json").read_text())["MedDG"]
    assert any("\ud83d" in row["answer"] for row in answers)


def test_the_command_starts_without_the_heavy_libraries(references: Path, write: Files, run_python: Run) -> None:
    heavy = ("torch", "transformers", "datasets", "evaluate", "pandas", "sklearn")
    code = f"""
import atexit, sys
sys.argv[0] = "promptcblue-metric"
atexit.register(lambda: print("loaded:", [name for name in {heavy} if name in sys.modules]))
from promptcblue_metric.cli.main import main
main()
"""
    assert "loaded: []" in run_python(code, "--help").stdout
    rows = write("predictions.jsonl", [json.loads(line) for line in references.read_text().splitlines()])
    done = run_python(code, "score", rows, "--references", references, "--allow-gold")
    assert "overall" in done.stdout
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize("command", ["score", "compare", "report", "parse", "install"])
def test_help_shows_an_example(command: str, run_python: Run) -> None:
    assert f"promptcblue-metric {command}" in run_python(COMMAND, command, "--help").stdout


@pytest.mark.parametrize(
    "module", ["promptcblue_metric.cli.main", "promptcblue_dataset.cli", "promptcblue_training.cli"]
)
def test_every_command_says_its_version(module: str, run_python: Run) -> None:
    done = run_python(f"import sys; from {module} import main; sys.argv[1:] = ['--version']; main()")
    assert done.stdout == f"promptcblue {VERSION}\n", done.stderr


def test_a_terminal_without_chinese_is_no_error(run_python: Run) -> None:
    code = "import sys; from promptcblue_dataset.cli import main; sys.argv[1:] = ['templates', 'list']; main()"
    done = run_python(code, PYTHONIOENCODING="ascii", LANG="C")
    assert done.returncode == 0, done.stderr
    assert "\\u" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a device that is always full")
def test_a_full_disk_is_said_in_one_line(write: Files, sample_rows: SampleRows, references: Path) -> None:
    rows = [{**row, "prediction": "x"} for row in predicted(sample_rows("test"))]
    predictions = write("predictions.jsonl", rows)
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", COMMAND, "score", str(predictions), "--references", str(references)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_scores_say_what_they_were_measured_on(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    def scores(rows: Sequence[Mapping[str, Any]], source: object, *options: object) -> dict[str, Any]:
        done = run_python(COMMAND, "score", write("p.jsonl", predicted(rows)), "--references", source, *options)
        assert done.returncode == 0, done.stderr
        return dict(json.loads((tmp_path / "scores.json").read_text()))

    write_to = ("--json", tmp_path / "scores.json")
    write("p.jsonl.meta.json", ['{"settings": {"model": "org/model", "adapter": "a", "beams": 4}}'])
    test, dev = (scores(sample_rows(split), "sample", "--split", split, *write_to) for split in ("test", "dev"))
    assert dev["provenance"] == {
        "source": "sample",
        "split": "validation",
        "predictions": str(tmp_path / "p.jsonl"),
        "made_with": {"model": "org/model", "adapter": "a", "beams": 4},
    }
    assert (dev["suite"], dev["protocol"], dev["parser"]) == ("promptcblue", "official", "strict")
    assert f"|refs:{dev['references']}|" in dev["signature"]
    assert dev["references"] != test["references"]
    shuffled = write("references.jsonl", sample_rows("test")[::-1])
    from_file = scores(sample_rows("test"), shuffled, *write_to)
    assert from_file["signature"] == test["signature"]
    assert from_file["provenance"]["split"] is None


def test_no_output_takes_the_place_of_what_is_read(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    predictions = write("predictions.jsonl", predicted(sample_rows("test")))
    (tmp_path / "link.jsonl").symlink_to(predictions)
    before = predictions.read_bytes(), references.read_bytes()
    for command, option, output in (
        ("score", "--json", "predictions.jsonl"),
        ("score", "--json", tmp_path / "link.jsonl"),
        ("score", "--json", references),
        ("compare", "--json", references),
        ("parse", "--output", predictions),
        ("report", "--output", tmp_path / ".." / tmp_path.name / references.name),
        ("submit", "--output", predictions),
        ("cblue", "--output", predictions),
    ):
        source = "--test" if command in ("submit", "cblue") else "--references"
        more = ("--raw", tmp_path) if command == "cblue" else ()
        done = run_python(COMMAND, command, predictions, source, references, option, output, *more, cwd=tmp_path)
        assert done.returncode == 1, command
        assert "would be overwritten" in done.stderr, done.stderr
        assert (predictions.read_bytes(), references.read_bytes()) == before


def test_gold_answers_in_the_field_of_predictions_are_remarked_on(
    write: Files, references: Path, sample_rows: SampleRows, run_python: Run
) -> None:
    rows = predicted(sample_rows("test"))
    done = run_python(COMMAND, "score", write("predictions.jsonl", rows), "--references", references)
    assert done.returncode == 0, done.stderr
    assert f"all {len(rows)} predictions equal their targets letter for letter" in done.stderr
    rows[0]["prediction"] += "。"
    done = run_python(COMMAND, "score", write("predictions.jsonl", rows), "--references", references)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["score", "report"])
def test_help_names_no_bootstrap(command: str, run_python: Run) -> None:
    said = run_python(COMMAND, command, "--help").stdout
    assert "95% intervals" in said
    assert "ootstrap" not in said
    assert "--seed" not in said


def test_tasks_that_were_left_out_are_not_called_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from promptcblue_metric.cli.main import score
    from promptcblue_metric.data.samples import load_samples

    path = tmp_path / "run.jsonl"
    rows = [{**row, "prediction": row["target"]} for row in load_samples("sample", "validation", ["CMeEE-V2"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    score([path], "sample", "validation", ["CMeEE-V2"])
    assert "CMeIE" not in capsys.readouterr().out
