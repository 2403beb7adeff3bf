"""Statistics of a dataset, and its examination by people."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook
from typer.testing import CliRunner

from promptcblue_dataset.build import build, parse_sizes
from promptcblue_dataset.cli import app
from promptcblue_dataset.folder import is_ours
from promptcblue_dataset.making import Plan
from promptcblue_dataset.prompts.render import PAPER, RELEASED, Style
from promptcblue_dataset.review import read_rows, wilson, write_rows
from promptcblue_dataset.statistics import statistics
from promptcblue_metric.tasks import TASKS

from ..terminal import in_terminal
from .conftest import Official, Row, row

RAW = Path(__file__).parent / "raw"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "promptcblue"
    build(RAW, output, Plan(parse_sizes("30,8,8", list(TASKS))), workers=1, cache=False)
    return output


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def pair(number: int, prompt: str) -> Row:
    return row(sample_id=f"s-{number}", input=prompt)


def test_lengths_labels_choices_and_templates(built: Path) -> None:
    found = statistics(built)
    assert list(found) == list(TASKS)
    for task, of_task in found.items():
        assert of_task["samples"]["train"] <= 30
        assert of_task["published"]["samples"]["train"] == TASKS[task].sizes[0]
        assert of_task["repeated_prompts"] == 0
        assert "other" not in of_task["templates"], task
        assert sum(of_task["templates"].values()) == sum(of_task["samples"].values())
        assert all(leak["exact"] == 0 for leak in of_task["leaks"].values())
    assert {name: found["CHIP-STS"]["figures"]["choices"].get(name) for name in ("least", "mean", "most")} == {
        "least": 2,
        "mean": 2.0,
        "most": 2,
    }
    assert "choices" not in found["MedDG"]["figures"]
    assert set(found["CHIP-STS"]["labels"]) == {"是的", "不是", "相同", "不同"}
    assert found["CMeEE-V2"]["labels"]["疾病"] > 0


def test_lengths_are_means_in_characters(official: Official) -> None:
    folder = official(train=[pair(1, "四个字的"), pair(2, "这里有六个字")])
    found = statistics(folder)["CHIP-STS"]
    assert found["figures"]["prompt"]["mean"] == 5.0
    assert found["figures"]["target"]["mean"] == 2.0


def test_repetitions_and_leaks_are_found(official: Official) -> None:
    def prompt(text: str) -> str:
        return f"请判断下面两句话的意思是不是一样，然后从给出的两个答案中选择一个。{text}选项：是的，不是"

    def text(number: int) -> str:
        return "".join(map(chr, random.Random(number).choices(range(0x4E00, 0x5E00), k=40)))

    texts = [text(number) for number in range(60)]
    train = [pair(n, prompt(text)) for n, text in enumerate(texts)]
    train.append(pair(60, train[0]["input"]))
    near = prompt(texts[1] + "吗")
    fresh = [pair(number, prompt(text(number))) for number in range(200, 220)]
    dev = [pair(100, train[2]["input"]), pair(101, near), *fresh]
    found = statistics(official(train=train, dev=dev))["CHIP-STS"]
    assert found["repeated_prompts"] == 2
    assert found["leaks"] == {"validation in train": {"exact": 1, "near": 1}}


def test_statistics_stand_in_the_card_once(built: Path, tmp_path: Path) -> None:
    before = (built / "README.md").read_text(encoding="utf-8")
    report = tmp_path / "stats.json"
    for _ in range(2):
        result = run("stats", built, "--json", report)
        assert result.exit_code == 0, result.output
    card = (built / "README.md").read_text(encoding="utf-8")
    assert card.startswith(before.rstrip())
    assert card.count("## Statistics") == 1
    assert all(f"| {task} |" in card.partition("## Statistics")[2] for task in TASKS)
    assert is_ours(built)
    assert set(json.loads(report.read_text(encoding="utf-8"))) == set(TASKS)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw CBLUE as the benchmark generates it, with dialogues as long as real ones, in small."""
    path = Path(__file__).parents[2] / "benchmarks" / "build.py"
    spec = importlib.util.spec_from_file_location("build_benchmark", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Of the dialogues whose lengths differ most so many that a mean is sure to a few per cent, whatever the seeds.
    many = {"MedDG": 2_000, "CHIP-MDCFNPC": 1_000, "IMCS-V2": 60}
    few: dict[str, Any] = {
        "RECORDS": {corpus: (many.get(corpus, 500), 20) for corpus in module.RECORDS},
        "DOCUMENTS": 2_000,
        "QUERIES": (400, 20),
        "TERMS": 2_000,
    }
    vars(module).update(few)
    folder = tmp_path_factory.mktemp("generated")
    module.generate(folder)
    return folder


@pytest.mark.parametrize(("profile", "seed"), [(PAPER, 0), (RELEASED, 1)])
def test_a_build_is_like_the_released_samples(generated: Path, tmp_path: Path, profile: str, seed: int) -> None:
    plan = Plan(parse_sizes("1000,0,0", list(TASKS)), seed=seed, style=Style(profile=profile))
    build(generated, tmp_path / "out", plan, workers=1, cache=False)
    far = {
        (task, name): round(of_task["figures"][name]["mean"] / released["mean"], 2)
        for task, of_task in statistics(tmp_path / "out").items()
        for name, released in of_task["released"].items()
        if name in ("choices", "items", "turns") and abs(of_task["figures"][name]["mean"] / released["mean"] - 1) > 0.15
    }
    assert list(far) == ([("CHIP-CDN", "choices")] if profile == PAPER else []), far


def test_a_build_leaves_no_leak(generated: Path, tmp_path: Path) -> None:
    tasks = ["KUAKE-QQR", "CHIP-STS", "CMeEE-V2"]
    build(generated, tmp_path / "out", Plan(parse_sizes("300,100,100", tasks)), workers=1, cache=False)
    for of_task in statistics(tmp_path / "out").values():
        assert all(leak == {"exact": 0, "near": 0} for leak in of_task["leaks"].values())


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_what_every_row_counts(columns: int, built: Path) -> None:
    code, shown = in_terminal(columns, "from promptcblue_dataset.cli import main; main()", "stats", built, "--no-card")
    assert code == 0, shown
    # Each part of the second table, folded heads and all: rows of the task and of what is counted.
    rows = [line.split()[:2] for line in shown.splitlines() if line.startswith("CHIP-STS ")]
    counted = [row[1] for row in rows if row[1].isalpha()]
    assert len(counted) > len(set(counted)) > 1
    assert len(counted) % len(set(counted)) == 0


def test_official_files_have_no_card(official: Official) -> None:
    folder = official(train=[pair(1, "甲")])
    assert run("stats", folder).exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["train.json"]


def test_a_review_sheet_can_be_filled_and_tallied(built: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "review.xlsx"
    assert run("review", "sample", built, sheet, "--number", 5, "--split", "train").exit_code == 0
    book = load_workbook(sheet)
    page = book.active
    assert page.freeze_panes == "A2"
    assert page.max_row == 1 + 5 * 16
    (choices,) = page.data_validations.dataValidation
    assert (choices.formula1, str(choices.sqref)) == ('"right,wrong,unsure"', f"F2:F{page.max_row}")
    titles = [cell.value for cell in page[1]]
    ids = [(row[0].value, row[titles.index("sample_id")].value) for row in page.iter_rows(min_row=2)]
    assert len(ids) == len(set(ids))

    for number, verdict in enumerate(["right", "wrong", "right", "unsure", None], 2):
        page.cell(number, titles.index("verdict") + 1).value = verdict
    book.save(sheet)
    lines = run("review", "tally", sheet).stdout.splitlines()
    first = next(line for line in lines if line.strip().startswith("CMeEE-V2")).split()
    assert first[1:6] == ["3", "1", "1", "1", "33.3%"]
    total = next(line for line in lines if line.strip().startswith("all ")).split()
    assert total[1:5] == ["3", "1", "1", "76"]
    page.cell(2, titles.index("verdict") + 1).value = "maybe"
    book.save(sheet)
    assert run("review", "tally", sheet).exit_code != 0


def test_the_sample_is_seeded_and_can_be_a_share(built: Path, tmp_path: Path) -> None:
    def drawn(*options: object) -> list[list[Any]]:
        assert run("review", "sample", built, tmp_path / "x.xlsx", *options).exit_code == 0
        return [
            [cell.value for cell in row[:3]] for row in load_workbook(tmp_path / "x.xlsx").active.iter_rows(min_row=2)
        ]

    assert drawn("--seed", 1) == drawn("--seed", 1)
    few = drawn("--number", "5%", "--tasks", "MedDG")
    assert len(few) == math.ceil(0.05 * sum(statistics(built)["MedDG"]["samples"].values()))
    assert drawn("--number", 3, "--seed", 1) != drawn("--number", 3, "--seed", 2)
    for wrong in ("0", "150%", "some"):
        assert run("review", "sample", built, tmp_path / "y.xlsx", "--number", wrong).exit_code != 0
    assert not (tmp_path / "y.xlsx").exists()


def test_text_that_looks_like_a_formula_stays_text(official: Official, tmp_path: Path) -> None:
    folder = official(train=[pair(1, '=HYPERLINK("http://x")'), pair(2, "第\x07二")])
    assert run("review", "sample", folder, tmp_path / "x.xlsx").exit_code == 0
    cells = [row[3] for row in load_workbook(tmp_path / "x.xlsx").active.iter_rows(min_row=2)]
    kinds = {(cell.value, cell.data_type, cell.number_format, bool(cell.quotePrefix)) for cell in cells}
    assert kinds == {('=HYPERLINK("http://x")', "s", "@", True), ("第二", "s", "@", False)}


@given(st.lists(st.text(st.sampled_from("=+-@'\t甲,\" "), min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_cell_of_a_csv_file_is_a_formula_and_each_is_read_back(texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path, titles = Path(folder, "x.csv"), [f"title {number}" for number in range(len(texts))]
        write_rows(path, dict.fromkeys(titles, 10), [texts])
        (cells,) = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))[1:]
        assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)
        assert read_rows(path, titles) == [dict(zip(titles, texts, strict=True))]


def test_wilson_intervals_known_from_tables() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(2, 200) == pytest.approx((0.0027, 0.0357), abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_rate(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1
