"""What the metric's command shows in terminals of several widths, and in those that know no Chinese."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from ..conftest import SampleRows
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


def tables(shown: str) -> list[str]:
    """The lines of tables, which a terminal must not break: no signature, and no sentences."""
    return [line for line in shown.splitlines() if not re.match(r"signature: |Overall, |\* |No |Published ", line)]


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
    assert max(map(cell_len, tables(shown))) <= columns
    assert "…" not in shown.replace(" … ", "")
    wide = in_terminal(400, COMMAND, *given)[1]
    assert sorted(FIGURE.findall("\n".join(tables(shown)))) == sorted(FIGURE.findall("\n".join(tables(wide))))


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
