"""The two tasks of the CHIP-2023 edition: causal triples and decision trees."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptcblue_dataset.build import build
from promptcblue_dataset.making import Plan
from promptcblue_metric import Evaluation
from promptcblue_metric.answers import CausalLines, TreeLines
from promptcblue_metric.data.samples import SPLITS, load_samples
from promptcblue_metric.errors import PromptCBLUEError, SeparatorError
from promptcblue_metric.evaluation import Parser, Result, parse_answer
from promptcblue_metric.report.analysis import analyse
from promptcblue_metric.scoring import SetF1, sum_counts
from promptcblue_metric.tasks import CHIP2023, PROMPTCBLUE, TASKS
from promptcblue_metric.trees import TreeEdit, build_tree, edit_distance

CAUSAL, TREE = CausalLines(), TreeLines()
FORMATS = {"CMedCausal": CAUSAL, "Text2DT": TREE}

word = st.text("头疼发热尾；：，。role= \"'[]\\", min_size=1, max_size=6)


def node(role: str, relation: str = "null", *triples: tuple[str, str, str]) -> dict[str, Any]:
    return {"role": role, "logical_rel": relation, "triples": [list(triple) for triple in triples]}


def test_answers_and_scores_equal_the_official_ones(shared: Path) -> None:
    lines = (shared / "parity" / "chip2023.jsonl").read_text(encoding="utf-8").splitlines()
    scores = json.loads((shared / "parity" / "chip2023_scores.json").read_text())
    counts: dict[str, list[Any]] = {"CMedCausal": [], "Text2DT": []}
    for row in map(json.loads, lines):
        name = row["task_dataset"]
        gold, predicted = (FORMATS[name].parse(row[field]).answer for field in ("target", "prediction"))
        assert gold == row["official_gold"]
        assert predicted == row["official_prediction"]
        assert FORMATS[name].render(gold) == row["target"]
        counts[name].append((SetF1() if name == "CMedCausal" else TreeEdit()).count(predicted, gold))
    assert {name: len(found) for name, found in counts.items()} == scores["n"]
    assert SetF1().score(sum_counts(counts["CMedCausal"])) == pytest.approx(scores["CMedCausal"], abs=1e-12)
    ours = TreeEdit().score(sum_counts(counts["Text2DT"]))
    official = ("tree_lenv_radio", "node_f1", "path_f1")
    assert list(ours.values()) == pytest.approx([scores["Text2DT"][name] for name in official], abs=1e-12)


@given(st.lists(st.tuples(st.sampled_from(["因果关系", "条件关系", "上下位关系"]), word, word, word), max_size=4))
def test_causal_triples_read_back_as_they_were(parts: list[tuple[str, str, str, str]]) -> None:
    answer: list[dict[str, Any]] = []
    for relation, head, middle, tail in sorted(parts, key=lambda part: ["因", "条", "上"].index(part[0][0])):
        if relation == "条件关系":
            inner = {"predicate": "因果关系", "subject": middle, "object": tail}
            answer.append({"predicate": relation, "subject": f"{head}；尾三元组：", "object": inner})
        else:
            answer.append({"predicate": relation, "subject": head, "object": tail})
    try:
        text = CAUSAL.render(answer)
    except SeparatorError:
        return
    assert CAUSAL.parse(text).answer == answer
    assert CAUSAL.parse(text).well_formed


@given(st.recursive(st.just("D"), lambda below: st.tuples(below, below), max_leaves=9), st.lists(word, min_size=3))
def test_trees_read_back_as_they_were(shape: Any, words: list[str]) -> None:
    nodes: list[dict[str, Any]] = []
    left = [shape]
    while left:
        part = left.pop()
        triple = (words[0].strip(), words[1].strip(), f"{len(nodes)}{words[2].strip()}")
        nodes.append(node("D" if part == "D" else "C", "and", triple))
        if part != "D":
            left += [part[1], part[0]]
    try:
        text = TREE.render(nodes)
    except SeparatorError:
        return
    assert TREE.parse(text).answer == nodes
    assert TREE.parse(text).well_formed
    tree = build_tree(nodes)
    assert len(tree.parents) == len(nodes) - 1
    assert edit_distance(tree, tree) == 0
    scores = TreeEdit().score(TreeEdit().count(nodes, nodes))
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for answer_format in FORMATS.values():
        for full in (text, f"节点0：role=C；logical_rel=and；triples={text}", f"因果关系三元组如下\n{text}"):
            assert isinstance(answer_format.parse(full).answer, list)


@pytest.mark.parametrize(
    "line", ["头实体： 甲；尾实体：乙", "头实体：甲　；尾实体：乙", "头实体：；尾实体：乙 ；尾实体：丙"]
)
@pytest.mark.parametrize("parser", ["strict", "lenient"])
def test_a_space_in_a_causal_line_ends_no_run(line: str, parser: Parser) -> None:
    parsed = parse_answer(CAUSAL, f"{CAUSAL.lead('因果关系')}\n{line}", [], parser, "甲乙")
    # A triple without a subject is one for the official code only.
    assert len(parsed.answer) == (parser == "strict" or "头实体：；" not in line)
    assert not parsed.well_formed
    nested = f"{CAUSAL.lead('条件关系')}\n头实体：甲；尾三元组：头实体： 乙；尾实体：丙 ；关系：因果关系"
    assert parse_answer(CAUSAL, nested, [], parser, "甲乙丙").answer


def test_a_number_too_long_to_write_ends_no_run() -> None:
    line = f"节点0：role=D；logical_rel=null；triples=[[0x{'f' * 9999}, 'a', 'b']]"
    assert TREE.parse(f"{TREE.lead}\n{line}").answer == [node("D", "null")]


@pytest.mark.parametrize(
    ("triples", "read"),
    [
        ('[["a", "b", "c"], ["a", "b"]]', [["a", "b", "c"]]),
        ("[('a', 'b', 'c')]", [["a", "b", "c"]]),
        ('[["a", "b", "c"], null]', []),  # JSON, and no Python literal
        ('[["a", "b", "c"], 3]', []),
        ('{"a": 1}', []),
        ('__import__("os").system("exit 3")', []),
        ('["a" * 3, "b", "c"]', []),
        ("[" * 100_000, []),
        ("[" + "-" * 100_000 + "1]", []),
    ],
    ids=lambda value: str(value)[:20],
)
def test_triples_are_read_as_literals_and_never_run(triples: str, read: list[list[str]]) -> None:
    (found,) = TREE.parse(f"节点0：role=D；logical_rel=null；triples={triples}").answer
    assert found == {"role": "D", "logical_rel": "null", "triples": read}


def test_lines_without_their_marks_are_named_and_passed_over() -> None:
    nested = "头实体：丙；尾三元组：头实体：丁；尾实体：戊；关系：因果关系"
    text = "\n".join([CAUSAL.lead("条件关系"), "头实体：甲；尾实体：乙", nested])
    parsed = CAUSAL.parse(text)
    assert [problem.line for problem in parsed.problems] == [2]
    assert [item["object"]["object"] for item in parsed.answer] == ["戊"]
    assert TREE.parse("没有决策树").answer == [node("D")]
    assert "broken tree" in {problem.kind for problem in TREE.parse(TREE.render([node("C"), node("D")])).problems}


def test_distances_of_trees_can_be_counted_by_hand() -> None:
    gold = [node("C", "null", ("a", "b", "c")), node("D", "null", ("d", "e", "f")), node("D")]
    # Another relation and a triple more in the root; nothing below it, where gold has a node with a triple and one
    # without: a role and a triple, and a role.
    predicted = [node("D", "or", ("A", "B", "C"), ("x", "y", "z"))]
    counts = TreeEdit().count(predicted, gold)
    assert counts["edit"] == 3 + 2 + 1
    assert counts["largest"] == (2 + 2 * 1) + (2 + 2 * 2)
    assert (counts["path_predicted"], counts["path_gold"], counts["path_tp"]) == (1, 2, 0)
    missing = TreeEdit().count(None, gold)
    assert missing == TreeEdit().count([node("D")], gold)


@pytest.mark.parametrize("size", [10_000])
def test_large_trees_take_no_long_time(size: int) -> None:
    chain = [node("CD"[number % 2], "or", ("a", "b", str(number))) for number in range(size)] + [node("D")]
    text = TREE.render(chain)
    start = time.process_time()
    parsed = TREE.parse(text)
    counts = TreeEdit().count(parsed.answer, chain)
    assert time.process_time() - start < 10
    assert counts["node_tp"] == size
    assert counts["edit"] == 0


def test_the_report_sorts_what_became_of_nodes_and_causes() -> None:
    gold = [node("C", "or", ("a", "b", "c")), node("D", "null", ("d", "e", "f")), node("D")]
    tree = [node("C", "and", ("a", "b", "c")), node("D", "null", ("d", "e", "g")), node("D")]
    nested = CAUSAL.lead("条件关系") + "\n头实体：丙；尾三元组：头实体：丁；尾实体：{}；关系：因果关系"
    rows = [
        ("Text2DT", TREE.render(gold), TREE.render(tree)),
        ("CMedCausal", nested.format("戊"), nested.format("己")),
    ]
    evaluation = Evaluation()
    scored = [
        evaluation.add(predicted, {"task_dataset": name, "target": target, "input": "？", "sample_id": "1"})
        for name, target, predicted in rows
    ]
    analyses = analyse(scored)
    kinds = {name: {count["kind"] for count in found["outcomes"] if count["n"]} for name, found in analyses.items()}
    assert kinds == {"Text2DT": {"correct", "wrong logical_rel", "wrong triples"}, "CMedCausal": {"wrong object"}}
    assert "丁 → 己" in str(analyses["CMedCausal"]["examples"])


def test_raw_records_become_answers_or_are_named(tmp_path: Path) -> None:
    def mention(name: str) -> dict[str, Any]:
        return {"mention": name, "start_idx": 0, "end_idx": len(name)}

    def nested(relation: int) -> dict[str, Any]:
        inner = {"type": "relation", "head": mention("乙"), "relation": relation, "tail": mention("丙")}
        return {"text": "甲乙丙", "relation_of_mention": [{"head": mention("甲"), "relation": 2, "tail": inner}]}

    tree = [node("C", "null", ("甲", "临床表现", "乙")), node("D", "null", ("甲", "治疗药物", "丙")), node("D")]
    broken = {"text": "甲@无", "tree": tree[:2]}
    raw = {"CMedCausal": [nested(1), nested(3)], "Text2DT": [{"text": "甲@若乙则用丙", "tree": tree}, broken]}
    for name, records in raw.items():
        (tmp_path / "raw" / name).mkdir(parents=True)
        for split in ("train", "dev", "test"):
            (tmp_path / "raw" / name / f"{name}_{split}.json").write_text(json.dumps(records, ensure_ascii=False))
    plan = Plan({name: dict.fromkeys(SPLITS, 1) for name in raw})
    with pytest.raises(PromptCBLUEError, match=r"(?s)tail.relation': expected 1.*'tree': expected a binary tree"):
        build(tmp_path / "raw", tmp_path / "built", plan, cache=False)
    build(tmp_path / "raw", tmp_path / "built", replace(plan, skip_bad=True), cache=False)
    for name, records in raw.items():
        (sample,) = load_samples(tmp_path / "built", "test", [name])
        (answer,) = [FORMATS[name].parse(sample["target"]).answer]
        assert records[0]["text"] in sample["input"]
        assert answer == (
            tree
            if name == "Text2DT"
            else [
                {
                    "predicate": "条件关系",
                    "subject": "甲；尾三元组：",
                    "object": {"predicate": "因果关系", "subject": "乙", "object": "丙"},
                }
            ]
        )


def test_the_edition_has_an_overall_score_of_its_own_and_the_paper_s_tasks_keep_theirs() -> None:
    def scored(source: str) -> Result:
        evaluation = Evaluation()
        for number, row in enumerate(load_samples(source, "test")):
            evaluation.add(row["target"] if number % 3 else "", row)
        return evaluation.result()

    edition, paper = scored(f"sample:{CHIP2023.name}"), scored("sample")
    for result, suite in ((edition, CHIP2023), (paper, PROMPTCBLUE)):
        assert list(result["tasks"]) == list(suite.tasks)
        assert not result["missing_tasks"]
        assert result["overall"] == pytest.approx(fmean(task["score"] for task in result["tasks"].values()))
        assert "|tasks:all|" in result["signature"]
    assert CHIP2023.name in edition["signature"]
    assert CHIP2023.name not in paper["signature"]
    assert [*edition["tasks"]][:16] == [*paper["tasks"]] == [*TASKS]
    assert len(edition["tasks"]) == 18
