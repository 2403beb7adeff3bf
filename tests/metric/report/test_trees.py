"""Decision trees drawn beside their gold in the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from promptcblue_metric import Evaluation
from promptcblue_metric.answers import TreeLines
from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.report.page import write_report
from promptcblue_metric.report.report import Report, build_report
from promptcblue_metric.report.tables import CHINESE
from promptcblue_metric.tasks import SUITES

from ...browser import browser_page, find_chromium

TREE = TreeLines()


def node(role: str, relation: str = "null", *tails: str) -> dict[str, Any]:
    return {"role": role, "logical_rel": relation, "triples": [["患者", "治疗药物", tail] for tail in tails]}


GOLD = [node("C", "or", "Aspirin", "乙"), node("D", "null", "丙"), node("C", "null", "丁"), node("D"), node("D")]


def reported(*predicted: Sequence[Mapping[str, Any]] | str | None) -> Report:
    evaluation = Evaluation()
    row = {"task_dataset": "Text2DT", "target": TREE.render(GOLD), "input": "指南", "task_type": "text2dt"}
    texts = (tree if tree is None or isinstance(tree, str) else TREE.render(tree, strict=False) for tree in predicted)
    return build_report(
        [evaluation.add(text, {**row, "sample_id": f"s{number}"}) for number, text in enumerate(texts)], resamples=0
    )


def drawn(report: Report, side: Literal["gold", "predicted"]) -> list[Any]:
    (example,) = report["tasks"]["Text2DT"]["examples"]
    return [(node["depth"], node["branch"], node["kind"]) for node in example["trees"][side]["nodes"]]


def test_nodes_are_compared_with_those_at_their_place() -> None:
    # Another relation and triple in the root, a leaf in place of the second condition, and a node after the last.
    tree = [node("C", "and", "aspirin", "戊"), node("D", "null", "丙"), node("D", "null", "丁"), node("D")]
    report = reported(tree)
    assert drawn(report, "gold") == [
        (0, "", "wrong node"),
        (1, "yes", "correct"),
        (1, "no", "wrong node"),
        (2, "yes", "missed"),
        (2, "no", "missed"),
    ]
    assert drawn(report, "predicted") == [
        (0, "", "wrong node"),
        (1, "yes", "correct"),
        (1, "no", "wrong node"),
        (0, "", "in no tree"),
    ]
    trees = report["tasks"]["Text2DT"]["examples"][0]["trees"]
    roots = [[(part["text"], part["differs"]) for part in trees[side]["nodes"][0]["parts"]] for side in trees]
    # Case makes no difference, as it makes none to the score.
    assert roots[0] == [("C", False), ("or", True), ("患者，治疗药物，Aspirin", False), ("患者，治疗药物，乙", True)]
    assert roots[1] == [("C", False), ("and", True), ("患者，治疗药物，aspirin", False), ("患者，治疗药物，戊", True)]
    assert drawn(reported([*GOLD[:2], node("C"), *GOLD[2:], node("D", "or")]), "predicted")[4:] == [
        (3, "yes", "spurious"),
        (3, "no", "spurious"),
        (2, "no", "wrong node"),
    ]


def test_an_output_without_a_tree_leaves_the_gold_one_alone() -> None:
    report = reported(None)
    assert {kind for _, _, kind in drawn(report, "gold")} == {"missed"}
    assert "predicted" not in report["tasks"]["Text2DT"]["examples"][0]["trees"]
    assert "trees" not in str(reported(GOLD)["tasks"]["Text2DT"]["examples"])


def test_markdown_has_the_trees_as_indented_text(tmp_path: Path) -> None:
    write_report(reported([node("C", "or", "`x\n# y`"), *GOLD[1:]]), tmp_path / "report")
    lines = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("    s0, gold")
    assert lines[start + 1 : start + 6] == [
        "    ! C, or, [患者，治疗药物，Aspirin], [患者，治疗药物，乙]",
        "    =   yes: D, null, 患者，治疗药物，丙",
        "    =   no: C, null, 患者，治疗药物，丁",
        "    =     yes: D, null",
        "    =     no: D, null",
    ]
    assert lines[start + 6] == "    s0, predicted"
    assert all(line.startswith("    ") for line in lines[start:])


def chain(size: int) -> list[dict[str, Any]]:
    return [node("CD"[number % 2], "or", f"<img src=x>{number}") for number in range(size)] + [node("D")]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trees") / "report"
    deep = [node("C", "null", str(n)) for n in range(5_000)] + [node("D") for _ in range(5_001)]
    hostile = [node("X" * 9_999, "y" * 9_999, *["z" * 999] * 99)] * 99
    write_report(reported(chain(100), chain(10_000), deep, hostile), folder)
    return folder


def test_trees_of_ten_thousand_nodes_are_cut(large: Path) -> None:
    report = json.loads((large / "report.json").read_text(encoding="utf-8"))
    trees = [row["trees"]["predicted"] for row in report["tasks"]["Text2DT"]["examples"]]
    assert sorted(len(tree["nodes"]) + tree["more"] for tree in trees) == [99, 101, 10_001, 10_001]
    assert max(len(tree["nodes"]) for tree in trees) < 100
    page = (large / "index.html").read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert "<img" not in page
    start = time.process_time()
    reported(chain(10_000))
    assert time.process_time() - start < 10


@pytest.mark.skipif(not find_chromium(), reason="no Chromium here (Debian: apt-get install chromium fonts-noto-cjk)")
def test_the_page_shows_them_on_a_phone_in_both_languages(large: Path, tmp_path: Path) -> None:
    with browser_page(tmp_path) as page:
        page.open(large / "index.html", 390, dark=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.complaints == []
        assert page.requests == [(large / "index.html").resolve().as_uri()]
        # A node stands in the list of its parent, as deep as it is in the tree.
        nested = page.evaluate("document.querySelectorAll('.tree > ul > li > ul > li > ul > li > ul > li').length")
        assert nested > 0
        assert page.evaluate("document.querySelectorAll('.tree ul > :not(li)').length") == 0
        page.evaluate("document.querySelector('.node').scrollIntoView(); new Promise(done => setTimeout(done, 100))")
        before = page.evaluate("document.querySelector('.node').innerText")
        page.evaluate("document.getElementById('language').click()")
        after = page.evaluate("document.querySelector('.node').innerText")
        assert {before.split()[0], after.split()[0]} == {"condition", CHINESE["condition"]}


def test_every_word_of_the_edition_s_report_is_said_in_both_languages() -> None:
    rows = load_samples("sample", "train", ["CMedCausal", "Text2DT"])
    cut: Mapping[str, Callable[[str], str]] = {
        "": lambda text: "",
        "half": lambda text: text[: len(text) // 2],
        "bare": lambda text: text[20:],
    }
    evaluation = Evaluation()
    scored = [
        evaluation.add(change(row["target"]), {**row, "sample_id": f"{row['sample_id']}{name}"})
        for row in rows
        for name, change in cut.items()
    ]
    report = build_report(scored, resamples=0)
    assert report["suite"] in SUITES
    for task in report["tasks"].values():
        named = {*task["states"], *task["repairs"], *task["problems"], *task["breakdowns"]}
        assert named | {outcome["kind"] for outcome in task["outcomes"]} <= set(CHINESE)
