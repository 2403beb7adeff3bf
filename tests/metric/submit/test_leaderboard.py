"""A submission to the leaderboard: the archive, the program in it, and every rule of the official format."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptcblue_metric import TASKS, Evaluation, PromptCBLUEError
from promptcblue_metric.data.predictions import structured_answers
from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.evaluation import PARSERS, Parser
from promptcblue_metric.submit.leaderboard import MAX_OUTPUT_BYTES, write_submission
from promptcblue_metric.tasks import SUITES

from ...conftest import Run, SampleRows
from ..test_cli import COMMAND
from ..test_lenient import ROWS as CORPUS

Rows = list[dict[str, Any]]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]], *, ascii_only: bool = False) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")
    return path


def damaged(text: str, number: int) -> str:
    """An output as a model might spoil it, in a way that depends on the number of its row."""
    ways: Sequence[Callable[[str], str]] = (
        lambda text: text,
        lambda text: text[: len(text) // 2],
        lambda text: f"好的，答案如下：\n\n{text}\n\n希望对您有帮助。",
        lambda text: text.replace("：", ":").replace("，", ","),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: f"```json\n{text}\n```",
        lambda text: "\n".join(f"**{line}**" for line in text.split("\n")),
        lambda text: f"{text}\n{text}",
        lambda text: "",
        lambda text: f"<script>\x00\u2028{text}\x1c\u3000" + "头实体为，尾实体为。；：" * 50,
    )
    return ways[number % len(ways)](text)


@pytest.fixture
def test_rows(sample_rows: SampleRows) -> Rows:
    """The official test file: the sample's, without targets."""
    return [{**row, "target": ""} for row in sample_rows("test")]


@pytest.fixture
def predictions(sample_rows: SampleRows) -> Rows:
    """Damaged outputs, in another order than the test file's."""
    rows = [
        {
            "sample_id": row["sample_id"],
            "task_dataset": row["task_dataset"],
            "prediction": damaged(row["target"], number),
        }
        for number, row in enumerate(sample_rows("test"))
    ]
    return rows[::-1]


def assert_program_reads_the_same(archive: Path, parser: Parser, tmp_path: Path) -> None:
    """Run what the archive holds as the leaderboard does, and compare with `promptcblue-metric parse` byte for byte."""
    handed_in = tmp_path / "handed_in"
    zipfile.ZipFile(archive).extractall(handed_in)
    assert sorted(path.name for path in handed_in.iterdir()) == ["post_generate_process.py", "test_predictions.json"]
    subprocess.run(
        [sys.executable, "-I", "-S", "post_generate_process.py", "test_predictions.json", "results.json"],
        cwd=handed_in,
        env={"LC_ALL": "C"},
        check=True,
    )
    parsed, _ = structured_answers(handed_in / "test_predictions.json", None, parser)
    write_json(tmp_path / "parsed.json", parsed)
    assert (handed_in / "results.json").read_bytes() == (tmp_path / "parsed.json").read_bytes()


@pytest.mark.parametrize("parser", PARSERS)
def test_the_program_reads_damaged_outputs_as_we_do(
    parser: Parser, predictions: Rows, test_rows: Rows, tmp_path: Path
) -> None:
    test = write_lines(tmp_path / "test.json", test_rows)
    output = tmp_path / "run" / "test_predictions.zip"
    submission = write_submission(write_lines(tmp_path / "p.jsonl", predictions), test, output, parser)
    assert_program_reads_the_same(output, parser, tmp_path)
    assert sum(submission.tasks.values()) == len(test_rows)
    assert submission.sizes["test_predictions.zip"] == output.stat().st_size
    assert submission.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert submission.empty == sum(not row["prediction"] for row in predictions)


@pytest.mark.parametrize("parser", PARSERS)
def test_the_program_reads_what_chat_models_write_as_we_do(parser: Parser, tmp_path: Path) -> None:
    rows = [
        {
            "input": "提示",
            "target": row["output"],
            "answer_choices": row["choices"] or None,
            "sample_id": row["place"],
            "task_type": "x",
            "task_dataset": row["task"],
        }
        for row in CORPUS
        if row["task"] in SUITES["promptcblue-chip2023"].tasks
    ]
    test = write_lines(tmp_path / "test.json", [{**row, "target": ""} for row in rows])
    output = tmp_path / "test_predictions.zip"
    write_submission(write_lines(tmp_path / "p.jsonl", rows), test, output, parser)
    assert_program_reads_the_same(output, parser, tmp_path)


@pytest.mark.parametrize("parser", PARSERS)
def test_the_program_reads_the_parity_outputs_as_the_official_one(parser: Parser, shared: Path, tmp_path: Path) -> None:
    official = shared / "parity" / "predictions.jsonl"
    rows = [json.loads(line) for line in official.read_text(encoding="utf-8").splitlines()]
    test = write_lines(tmp_path / "test.json", [{**row, "target": ""} for row in rows])
    output = tmp_path / "test_predictions.zip"
    write_submission(official, test, output, parser)
    assert_program_reads_the_same(output, parser, tmp_path)
    # The official form comes back byte for byte.
    assert (tmp_path / "handed_in" / "test_predictions.json").read_bytes() == official.read_bytes()
    if parser == "strict":
        results = json.loads((tmp_path / "handed_in" / "results.json").read_bytes())
        structured = json.loads((shared / "parity" / "structured.json").read_bytes())
        assert {name: results[name] for name in structured} == structured


def test_rows_stand_in_the_official_order_and_only_the_target_differs(
    predictions: Rows, test_rows: Rows, tmp_path: Path
) -> None:
    rows = [{"extra": number, **row} for number, row in enumerate(test_rows)]
    output = tmp_path / "test_predictions.zip"
    write_submission(write_lines(tmp_path / "p.jsonl", predictions), write_lines(tmp_path / "t", rows), output)
    with zipfile.ZipFile(output) as archive:
        written = [json.loads(line) for line in archive.read("test_predictions.json").splitlines()]
    assert [{**row, "target": ""} for row in written] == rows
    assert [list(row) for row in written] == [list(row) for row in rows]
    assert [row["target"] for row in written] == [row["prediction"] for row in predictions[::-1]]


def test_the_program_holds_only_the_parser_that_was_asked_for_and_the_standard_library(
    predictions: Rows, test_rows: Rows, tmp_path: Path
) -> None:
    test, rows = write_lines(tmp_path / "test.json", test_rows), write_lines(tmp_path / "p.jsonl", predictions)
    programs = {}
    for parser in PARSERS:
        write_submission(rows, test, tmp_path / parser / "test_predictions.zip", parser)
        with zipfile.ZipFile(tmp_path / parser / "test_predictions.zip") as archive:
            programs[parser] = archive.read("post_generate_process.py").decode()
    assert "def parse_lenient" in programs["lenient"]
    assert "def parse_lenient" not in programs["strict"]
    for program in programs.values():
        imported = [line.split()[1] for line in program.splitlines() if line.startswith(("import ", "from "))]
        assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_edition_of_eighteen_tasks_is_handed_in_in_the_same_way(tmp_path: Path) -> None:
    rows = load_samples("sample:promptcblue-chip2023", "test")
    rows = [{**row, "sample_id": str(n), "target": damaged(row["target"], n)} for n, row in enumerate(rows)]
    test = write_lines(tmp_path / "test.json", [{**row, "target": ""} for row in rows])
    output = tmp_path / "test_predictions.zip"
    submission = write_submission(write_lines(tmp_path / "p.jsonl", rows), test, output)
    assert set(submission.tasks) == set(SUITES["promptcblue-chip2023"].tasks)
    assert_program_reads_the_same(output, "strict", tmp_path)


def test_equal_submissions_are_equal_files(predictions: Rows, test_rows: Rows, tmp_path: Path) -> None:
    test = write_lines(tmp_path / "test.json", test_rows)
    made = []
    for name, rows in (("a", predictions), ("b", predictions[::-1])):
        output = tmp_path / name / "test_predictions.zip"
        write_submission(write_lines(tmp_path / "p.jsonl", rows), test, output)
        made.append(output.read_bytes())
    assert made[0] == made[1]


def changed(rows: Rows, place: int, **fields: Any) -> Rows:
    return [{**row, **(fields if number == place else {})} for number, row in enumerate(rows)]


#: A broken rule: what it does to the predictions and to the test rows, and what the message says.
BROKEN: Mapping[str, tuple[Callable[[Rows, Rows], tuple[Rows, Rows]], Sequence[str]]] = {
    "count": (lambda p, t: (p[:-2], t), ("test.json:1: field 'sample_id'", "has no prediction", "test.json:2:")),
    "unknown id": (lambda p, t: ([*p, {**p[0], "sample_id": "x-9"}], t), ("p.jsonl:69:", "'x-9'", "not among")),
    "doubled id": (lambda p, t: ([*p, p[3]], t), ("p.jsonl:69:", "already predicted on line 4")),
    "doubled test id": (lambda p, t: (p, [*t, t[0]]), ("test.json:69:", "stands on line 1 too")),
    "prompt touched": (lambda p, t: (changed(p, 4, input="别的提示"), t), ("p.jsonl:5: field 'input'", "test.json:64")),
    "choices touched": (lambda p, t: (changed(p, 4, answer_choices=["x"]), t), ("p.jsonl:5: field 'answer_choices'",)),
    "no such encoding": (
        lambda p, t: (changed(p, 6, prediction="肺\ud800炎"), t),
        ("p.jsonl:7: field 'prediction'", "character 1", "surrogate"),
    ),
    "size": (
        lambda p, t: (changed(p, 0, prediction="痛" * MAX_OUTPUT_BYTES), t),
        ("p.jsonl:1: field 'prediction'", "bytes, more than"),
    ),
    "no output at all": (lambda p, t: ([{**row, "prediction": " "} for row in p], t), ("every output is empty",)),
    "no test rows": (lambda p, t: (p, []), ("test.json", "holds no rows")),
    "another suite": (
        lambda p, t: (p, changed(t, 0, task_dataset="cMedQQ", answer_choices=["是的", "不是"])),
        ("test.json:1: field 'task_dataset'", "is no task of the leaderboard"),
    ),
    "no prompt": (lambda p, t: (p, changed(t, 2, input="")), ("test.json:3: field 'input'",)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named_and_nothing_is_written(
    name: str, predictions: Rows, test_rows: Rows, tmp_path: Path
) -> None:
    breaking, says = BROKEN[name]
    handed_in, test = breaking(predictions, test_rows)
    output = tmp_path / "out" / "test_predictions.zip"
    with pytest.raises(PromptCBLUEError) as caught:
        write_submission(
            write_lines(tmp_path / "p.jsonl", handed_in, ascii_only=True),
            write_lines(tmp_path / "test.json", test),
            output,
        )
    assert all(words in str(caught.value) for words in says), caught.value
    assert not output.parent.exists()


def test_a_test_file_that_is_not_utf8_and_another_name_of_the_archive(
    predictions: Rows, test_rows: Rows, tmp_path: Path
) -> None:
    rows = write_lines(tmp_path / "p.jsonl", predictions)
    test = write_lines(tmp_path / "test.json", test_rows)
    with pytest.raises(PromptCBLUEError, match=r"submission\.zip.*test_predictions\.zip"):
        write_submission(rows, test, tmp_path / "submission.zip")
    test.write_bytes(test.read_text(encoding="utf-8").encode("gb18030"))
    with pytest.raises(PromptCBLUEError, match=r"test\.json: .*UTF-8"):
        write_submission(rows, test, tmp_path / "test_predictions.zip")
    assert not list(tmp_path.glob("*.zip"))


def test_the_command_says_what_it_wrote(predictions: Rows, test_rows: Rows, tmp_path: Path, run_python: Run) -> None:
    rows, test = write_lines(tmp_path / "p.jsonl", predictions), write_lines(tmp_path / "test.json", test_rows)
    output = tmp_path / "test_predictions.zip"
    done = run_python(COMMAND, "submit", rows, "--test", test, "--output", output, "--parser", "lenient")
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    for words in (f"{len(test_rows)} outputs of 16 task(s)", "lenient parser", digest, "next: upload"):
        assert words in done.stdout
    done = run_python(COMMAND, "submit", rows, "--test", tmp_path / "none.json", "--output", output)
    assert done.returncode == 1
    assert "none.json" in done.stderr
    assert hashlib.sha256(output.read_bytes()).hexdigest() == digest


# --- The leaderboard's scores are the local ones ---------------------------------------------------------------------


def official_score(task: str, given: Sequence[Any], gold: Sequence[Any]) -> float:
    """A task's score by the official scorer's rules (formats.md section 5), for answers that are items or labels."""
    if isinstance(gold[0], list):

        def items(answer: Any) -> set[str]:
            return {json.dumps([item[key] for key in sorted(item)], sort_keys=True) for item in answer}

        pairs = [(items(one), items(other)) for one, other in zip(given, gold, strict=True)]
        right, said, wanted = (
            sum(len(one & other) for one, other in pairs),
            *(sum(map(len, side)) for side in zip(*pairs, strict=True)),
        )
        return 2 * right / (said + wanted) if right else 0.0
    given = [label or TASKS[task].labels[0] for label in given]
    scores, supports = [], []
    for label in sorted({*given, *gold}):
        right = sum(one == other == label for one, other in zip(given, gold, strict=True))
        scores.append(2 * right / (given.count(label) + gold.count(label)))
        supports.append(gold.count(label))
    if TASKS[task].scorer.metric == "macro-F1":
        return sum(scores) / len(scores)
    return sum(score * support for score, support in zip(scores, supports, strict=True)) / sum(supports)


@pytest.mark.parametrize("parser", PARSERS)
def test_the_local_score_is_what_the_official_scorer_makes_of_what_is_handed_in(
    parser: Parser, sample_rows: SampleRows, test_rows: Rows, tmp_path: Path
) -> None:
    gold = [row for number in range(8) for row in _renamed(sample_rows("test"), number)]
    outputs = [
        "看不懂。" if number % 4 == 0 else damaged(row["target"], number // 2) for number, row in enumerate(gold)
    ]
    rows = [{**row, "target": output} for row, output in zip(gold, outputs, strict=True)]
    test = write_lines(tmp_path / "test.json", [{**row, "target": ""} for row in gold])
    write_submission(write_lines(tmp_path / "p.jsonl", rows), test, tmp_path / "test_predictions.zip", parser)
    assert_program_reads_the_same(tmp_path / "test_predictions.zip", parser, tmp_path)
    handed_in = json.loads((tmp_path / "handed_in" / "results.json").read_bytes())
    wanted, _ = structured_answers(write_lines(tmp_path / "gold.json", gold), None, "strict")
    evaluation = Evaluation(parser=parser)
    for row, output in zip(gold, outputs, strict=True):
        evaluation.add(output, row)
    local = evaluation.result("official")["tasks"]
    compared = [name for name in local if TASKS[name].scorer.metric != "ROUGE-L"]
    assert len(compared) == 14
    for name in compared:
        answers = ([row["answer"] for row in side[name]] for side in (handed_in, wanted))
        assert local[name]["score"] == pytest.approx(official_score(name, *answers), abs=1e-12), name


def _renamed(rows: Rows, number: int) -> Rows:
    return [{**row, "sample_id": f"{row['sample_id']}-{number}"} for row in rows]
