from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from promptcblue_metric.errors import install_command
from promptcblue_training.run import CURVE_CSV, CURVE_PNG, curve, write_curve

from .conftest import Fit

LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 3.0, "learning_rate": 1e-3},
    {"step": 10, "eval_loss": 2.5, "eval_runtime": 1.0},
    {"step": 20, "loss": 2.0},
    {"step": 15, "eval_overall": 0.25, "eval_CMeEE-V2": 0.1},
    {"step": 20, "train_runtime": 3.0},
]


def test_the_table_has_a_row_a_step_with_the_chosen_one_marked(tmp_path: Path) -> None:
    write_curve(tmp_path, LOG, chosen=20)
    with (tmp_path / CURVE_CSV).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {"step": "10", "loss": "3.0", "eval_loss": "2.5", "eval_overall": "", "chosen": "0"},
        {"step": "15", "loss": "", "eval_loss": "", "eval_overall": "0.25", "chosen": "0"},
        {"step": "20", "loss": "2.0", "eval_loss": "", "eval_overall": "", "chosen": "1"},
    ]


def test_a_chosen_step_without_a_measurement_has_a_row_too() -> None:
    assert [*curve(LOG, chosen=12)["chosen"].items()] == [(10, 0), (12, 1), (15, 0), (20, 0)]


def test_the_picture_marks_the_chosen_step(tmp_path: Path) -> None:
    from matplotlib.image import imread

    sizes = []
    for chosen in (None, 15):
        assert write_curve(tmp_path, LOG, chosen)
        picture = imread(tmp_path / CURVE_PNG)
        # The mark is drawn in a red that nothing else has.
        sizes.append(int(((picture[..., 0] > 0.8) & (picture[..., 1] < 0.3) & (picture[..., 2] < 0.3)).sum()))
        assert picture.shape[0] > 300
    assert sizes[0] == 0
    assert sizes[1] > 100


def test_a_single_loss_is_seen_and_steps_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn, save = list[Figure](), Figure.savefig

    def saved(self: Figure, *args: Any, **named: Any) -> None:
        drawn.append(self)
        save(self, *args, **named)

    monkeypatch.setattr(Figure, "savefig", saved)
    assert write_curve(tmp_path, [{"step": 20, "loss": 2.0}, {"step": 20, "eval_loss": 2.5}], chosen=20)
    (axes,) = drawn[0].axes
    assert all(line.get_marker() == "o" for line in axes.lines if line.get_label() != "chosen: step 20")
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    many = [{"step": step, "loss": 1 / step} for step in range(1, 100)]
    assert write_curve(tmp_path, many)
    assert drawn[1].axes[0].lines[0].get_marker() == "None"


def test_no_picture_of_nothing_fails(tmp_path: Path) -> None:
    assert write_curve(tmp_path, [])
    assert (tmp_path / CURVE_CSV).read_text() == "step,loss,eval_loss,eval_overall,chosen\n"


def test_without_matplotlib_there_is_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not write_curve(tmp_path, LOG)
    assert [path.name for path in tmp_path.iterdir()] == [CURVE_CSV]


def test_a_run_without_its_picture_says_so_and_how_to_have_it(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = fit(max_steps=1, save_steps=1, logging_steps=1)
    assert not (run / CURVE_PNG).exists()
    assert install_command("train") in capsys.readouterr().out
