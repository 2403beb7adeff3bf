"""What the metric's command shows in terminals of several widths, and in those that know no Chinese."""

from __future__ import annotations

import configparser
import csv
import json
import os
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from ..conftest import ROOT, Run, SampleRows
from ..terminal import in_terminal
from .test_cli import COMMAND

FIGURE = re.compile(r"[+-]?\d+\.\d+%?")


@pytest.fixture
def files(sample_rows: SampleRows, tmp_path: Path) -> list[Path]:
    """References and two runs, whose names are hostile to tables."""
    rows = sample_rows("test")
    paths = [tmp_path / name for name in ("references.jsonl", "[red]base[v1].jsonl", "tuned \x1b[2J\u202e run.jsonl")]
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step, path in enumerate(paths[1:], 2):
        texts = [row["target"] if number % step else "？" for number, row in enumerate(rows)]
        lines = [{"sample_id": row["sample_id"], "prediction": text} for row, text in zip(rows, texts, strict=True)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def lines_of(shown: str) -> list[str]:
    """The lines that a terminal must not break: all but the signature, which is to be copied."""
    return [line for line in shown.splitlines() if not line.startswith("signature: ")]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["score", "intervals", "compare", "published"])
def test_every_figure_is_whole_at_any_width(command: str, columns: int, files: list[Path]) -> None:
    references, *runs = files
    arguments: dict[str, list[object]] = {
        "score": ["score", runs[0]],
        "intervals": ["score", runs[0], "--resamples", 100],
        "compare": ["compare", *runs, "--resamples", 100],
        "published": ["compare", runs[0], "--published"],
    }
    given = [*arguments[command], "--references", references]
    code, shown = in_terminal(columns, COMMAND, *given)
    assert code == 0, shown
    assert max(map(cell_len, lines_of(shown))) <= columns
    assert "…" not in shown.replace(" … ", "")
    wide = in_terminal(400, COMMAND, *given)[1]
    assert ("CHIP-CTC: " in wide and "by the paper's protocol" in wide) == (command == "intervals")
    assert sorted(FIGURE.findall("\n".join(lines_of(shown)))) == sorted(FIGURE.findall("\n".join(lines_of(wide))))


@pytest.mark.parametrize("columns", [60, 80])
def test_sentences_are_broken_between_words(columns: int, files: list[Path]) -> None:
    references, *runs = files
    given = ["compare", *runs, "--resamples", 100, "--published", "--references", references]
    wide, narrow = (in_terminal(width, COMMAND, *given)[1] for width in (1000, columns))
    sentences = [line for line in wide.splitlines() if re.match(r"Overall, |\* |No |Published ", line)]
    assert max(map(cell_len, lines_of(narrow))) <= columns
    assert all(sentence in " ".join(lines_of(narrow)) for sentence in sentences)
    assert re.findall("^signature: .*", narrow, re.M) == re.findall("^signature: .*", wide, re.M)


def test_names_of_runs_are_shown_and_not_obeyed(files: list[Path]) -> None:
    references, *runs = files
    code, shown = in_terminal(200, COMMAND, "compare", *runs, "--references", references, "--resamples", 100)
    assert code == 0
    assert "[red]base[v1]" in shown
    assert "tuned ⟨U+001B⟩[2J⟨U+202E⟩ run" in shown
    assert not re.search("[\x1b\u202e]", shown)
    code, shown = in_terminal(200, COMMAND, "score", "no such \x1b[2J file", "--references", references)
    assert code == 1
    assert "⟨U+001B⟩[2J" in shown


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_an_output_that_takes_ascii_alone_gets_it(environment: dict[str, str], files: list[Path]) -> None:
    references, *runs = files
    for given in (["score", runs[0], "--resamples", 100], ["compare", *runs, "--resamples", 100, "--published"]):
        code, shown = in_terminal(100, COMMAND, *given, "--references", references, **environment)
        assert code == 0, shown
        assert "Traceback" not in shown
        if "PYTHONIOENCODING" in environment:
            assert shown.isascii()
            assert re.search(r"\d \.\. [+-]?\d", shown)


def test_scores_are_printed_in_other_forms_alone_on_stdout(files: list[Path], run_python: Run, tmp_path: Path) -> None:
    references, *runs = files

    def printed(form: str, *given: object) -> str:
        done = run_python(COMMAND, "score", *given, "--references", references, "--format", form)
        assert done.returncode == 0, done.stderr
        return done.stdout

    scores = json.loads(printed("json", runs[0], "--json", tmp_path / "scores.json"))
    assert scores == json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    rows = list(csv.reader(printed("csv", runs[0]).splitlines()))
    assert rows[0][:2] == ["task", "metric"]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [row[rows[0].index("score")] for row in rows if row[0] == "overall"] == [f"{scores['overall']:.4f}"]
    assert f"| {scores['overall']:.4f} |" in printed("markdown", runs[0])
    latex = printed("latex", runs[0])
    assert latex.startswith("\\begin{tabular}{llrrrrrr}")
    assert not re.search(r"[^\\]%", latex)


def test_several_runs_make_one_table(files: list[Path], run_python: Run, tmp_path: Path) -> None:
    references, *runs = files
    output = tmp_path / "scores.json"
    done = run_python(
        COMMAND, "score", *runs, "--references", references, "--format", "csv", "--json", output, "--resamples", 1
    )
    assert done.returncode == 0, done.stderr
    heads, *rows = csv.reader(done.stdout.splitlines())
    written = json.loads(output.read_text(encoding="utf-8"))
    assert list(written) == [path.stem for path in runs]
    assert heads[2] == "[red]base[v1]"
    assert heads[3].endswith("95% interval")
    (overall,) = (row for row in rows if row[0] == "overall")
    assert overall[2::2] == [f"{scores['overall']:.4f}" for scores in written.values()]
    task = rows[0][0]
    assert rows[0][2::2] == [f"{scores['tasks'][task]['score']:.4f}" for scores in written.values()]


HOSTILE = "no \x1b[2J\x1b]0;title\x07\x9b31m\x1b[31m\r\u202e[red] such"


def obeyed(shown: str) -> list[str]:
    """What a terminal takes for more than text, but for what moves and clears our bars."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", re.sub(r"\x1b\[(?:\?25[lh]|2K|1A)|\r", "", shown))


COMMANDS = {
    "metric": COMMAND,
    "dataset": "from promptcblue_dataset.cli import main; main()",
    "train": "from promptcblue_training.cli import main; main()",
}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("metric", ["score", HOSTILE, "--references", "sample"]),
        ("metric", [HOSTILE]),
        ("metric", ["score", HOSTILE]),
        ("metric", ["score", "x", "--references", "sample", "--protocol", HOSTILE]),
        ("metric", ["score", "x", "--json", HOSTILE + "/", "--" + HOSTILE]),
        ("metric", ["cblue-check", HOSTILE, "--raw", HOSTILE]),
        ("dataset", ["import", HOSTILE]),
        ("dataset", ["import", "sample", "--suite", HOSTILE]),
        ("dataset", ["build", HOSTILE]),
        ("dataset", ["stats", "sample", HOSTILE]),
        ("dataset", ["templates", "render", HOSTILE]),
        ("train", ["sft", "--list", HOSTILE]),
        ("train", ["card", "--model", HOSTILE]),
        ("train", ["predict", "--model", "x", "--dataset", "sample", "--output", "x", "--decoding", HOSTILE]),
    ],
)
def test_no_command_sends_a_terminal_what_it_was_given(command: str, arguments: list[str]) -> None:
    code, shown = in_terminal(120, COMMANDS[command], *arguments)
    assert code in (1, 2), shown
    assert "Traceback" not in shown
    assert not obeyed(shown)
    assert "[31m" not in shown or re.search(r"⟨U\+001B⟩\[31m|\\x1b\[31m", shown)


@pytest.mark.parametrize("shows", ["progress_bars", "status_line"])
def test_what_is_said_beside_a_bar_is_shown_and_not_obeyed(shows: str) -> None:
    say = {"progress_bars": "said('reading', text, 3)", "status_line": "said(text)"}[shows]
    code = f"""
import sys, time
from promptcblue_metric.cli import common
def work():
    text = {HOSTILE!r}
    with common.{shows}() as said:
        {say}
        print(text)
        print(text, file=sys.stderr)
        time.sleep(0.3)
common.run(work)
"""
    returned, shown = in_terminal(200, code)
    assert returned == 0, shown
    assert shown.count("no ⟨U+001B⟩[2J⟨U+001B⟩]0;title⟨U+0007⟩⟨U+009B⟩31m⟨U+001B⟩[31m⟨U+000D⟩⟨U+202E⟩[red] such") >= 3
    assert not obeyed(shown)


def test_ctrl_c_is_one_line_from_the_first_import_on(run_python: Run, tmp_path: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = settings["options.entry_points"]["console_scripts"].split("\n")[1:]
    assert len(scripts) == 3
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt")
    for script in scripts:
        module, _, function = script.partition(" = ")[2].partition(":")
        # What is read before the entry point runs is next to nothing, and what it reads then is looked after.
        code = f"""
import sys, {module}
assert not {{"typer", "yaml", "rapidfuzz"}} & set(sys.modules)
import promptcblue_metric.cli
start = promptcblue_metric.cli.start
promptcblue_metric.cli.start = lambda module: start("slow")
{module}.{function}()
"""
        done = run_python(code, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
        assert (done.returncode, done.stderr) == (130, "interrupted\n"), script


def test_ctrl_c_within_a_command_is_said(run_python: Run) -> None:
    code = """
import typer
from promptcblue_metric.cli.common import run
app = typer.Typer()
@app.command()
def stopped():
    raise KeyboardInterrupt
run(app)
"""
    done = run_python(code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
