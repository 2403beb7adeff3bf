"""Error analysis, against small cases counted by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from promptcblue_metric import answers
from promptcblue_metric.compare.significance import counts_by_task, intervals
from promptcblue_metric.evaluation import PARSERS, Evaluation, ScoredSample
from promptcblue_metric.report.analysis import (
    EXAMPLES_OF_A_TASK,
    Analysis,
    analyse,
    analyse_task,
    intervals_of,
    protocol_differences,
)
from promptcblue_metric.tasks import TASKS

from ...conftest import ROOT, SampleRows


def scored(task: str, *samples: tuple[Any, Any], choices: Sequence[str] = (), prompt: str = "") -> list[ScoredSample]:
    """Samples of a task from pairs of gold and predicted answer, structured or, as a string, as text; None is none."""
    evaluation = Evaluation()
    answer_format = TASKS[task].format

    def text(answer: Any) -> str:
        return answer if isinstance(answer, str) else answer_format.render(answer, choices)

    return [
        evaluation.add(
            None if predicted is None else text(predicted),
            {
                "input": prompt or f"prompt {number}",
                "target": text(gold),
                "answer_choices": list(choices) or None,
                "sample_id": f"s{number}",
                "task_type": "",
                "task_dataset": task,
            },
        )
        for number, (gold, predicted) in enumerate(samples)
    ]


def counts(analysis: Analysis) -> dict[str, int]:
    return {outcome["kind"]: outcome["n"] for outcome in analysis["outcomes"]}


def entities(**mentions: str) -> list[dict[str, str]]:
    return [{"entity": mention, "type": kind} for kind, found in mentions.items() for mention in found.split()]


def test_entities_are_correct_wrong_in_type_or_boundary_spurious_or_missed() -> None:
    gold = entities(疾病="肺炎 哮喘 支气管扩张", 药物="青霉素 阿莫西林")
    # Correct; a disease called a drug; cut short; overlapping in the prompt only; never there; 阿莫西林 is not found.
    predicted = entities(疾病="肺炎 扩张症 感冒", 药物="哮喘 青霉")
    samples = scored("CMeEE-V2", (gold, predicted), choices=("疾病", "药物"), prompt="肺炎、哮喘、支气管扩张症")
    analysis = analyse_task(samples)
    assert counts(analysis) == {"correct": 1, "wrong type": 1, "boundary": 2, "spurious": 1, "missed": 1}
    assert analysis["fields"] == {"entity": 2, "type": 1}
    shares = {outcome["kind"]: outcome for outcome in analysis["outcomes"]}
    assert shares["boundary"]["of_predicted"] == pytest.approx(2 / 5)
    assert shares["spurious"]["of_gold"] is None
    assert shares["missed"]["of_predicted"] is None


@pytest.mark.parametrize(
    ("task", "gold", "output", "state", "kind"),
    [
        # A whole label of another task was not cut, and a text without sections was written.
        (
            "CHIP-MDCFNPC",
            "上述对话中临床发现实体以及其阴阳性判别如下：\n腹痛：不标注",
            "部分匹配",
            "unreadable",
            "missed",
        ),
        ("IMCS-V2-MRG", {"诊断": "溃疡"}, "要考虑十二指肠溃疡。做过胃镜吗？", "unreadable", "missing section"),
        # A finding whose status is about to come is where an output broke off.
        ("CHIP-MDCFNPC", "上述对话中临床发现实体以及其阴阳性判别如下：\n腹痛：不标注", "腹痛：", "truncated", "missed"),
        ("IMCS-V2-MRG", {"诊断": "溃疡"}, " \n", "empty", "empty"),
    ],
)
def test_an_output_is_called_truncated_or_empty_only_where_it_is(
    task: str, gold: Any, output: str, state: str, kind: str
) -> None:
    analysis = analyse_task(scored(task, (gold, output), prompt="患者说腹痛。"))
    assert list(analysis["states"]) == [state]
    assert list(counts(analysis)) == [kind]


def test_rules_are_of_formats_that_there_are() -> None:
    rules = json.loads((ROOT / "promptcblue_metric" / "report" / "rules.json").read_text(encoding="utf-8"))
    assert all(issubclass(getattr(answers, name), answers.AnswerFormat) for name in rules)


def test_an_item_is_paired_once_and_the_closest_kind_goes_first() -> None:
    gold = entities(疾病="急性肺炎 肺炎")
    predicted = entities(疾病="肺炎 急性肺炎症")
    analysis = analyse_task(scored("CMeEE-V2", (gold, predicted), choices=("疾病",)))
    assert counts(analysis) == {"correct": 1, "boundary": 1}


def triple(predicate: str, subject: str, target: str) -> dict[str, str]:
    return {"predicate": predicate, "subject": subject, "object": target}


@pytest.mark.parametrize(
    ("predicted", "kind"),
    [
        (triple("病因", "肺炎", "青霉素"), "wrong predicate"),
        (triple("药物治疗", "肺结核", "青霉素"), "wrong subject"),
        (triple("药物治疗", "肺炎", "青霉素片"), "wrong object"),
        (triple("药物治疗", "肺炎", "红霉素"), "wrong object"),
        (triple("病因", "重症肺炎", "青霉素片"), "several fields"),
    ],
)
def test_triples_say_which_field_is_wrong(predicted: dict[str, str], kind: str) -> None:
    gold = [triple("药物治疗", "肺炎", "青霉素")]
    analysis = analyse_task(scored("CMeIE", (gold, [predicted]), choices=("药物治疗", "病因")))
    assert counts(analysis) == {kind: 1}


def test_an_overlapping_object_is_taken_before_another_one() -> None:
    gold = [triple("药物治疗", "肺炎", "青霉素")]
    predicted = [triple("药物治疗", "肺炎", "红霉素"), triple("药物治疗", "肺炎", "青霉素片")]
    (example,) = analyse_task(scored("CMeIE", (gold, predicted), choices=("药物治疗",)))["examples"]
    found = {
        error["kind"]: {item["field"]: item["text"] for item in error["predicted"] or ()} for error in example["errors"]
    }
    wrong = {kind: fields["object"] for kind, fields in found.items() if fields}
    assert wrong == {"wrong object": "青霉素片", "spurious": "红霉素"}


def event(subject: str, status: str = "", words: str = "", places: str = "") -> dict[str, Any]:
    return {"主体词": subject, "发生状态": status, "描述词": words.split(), "解剖部位": places.split()}


@pytest.mark.parametrize(
    ("predicted", "kind"),
    [
        (event("疼痛", "否定", "阵发", "腹"), "wrong 发生状态"),
        (event("疼痛", "", "持续", "腹"), "wrong 描述词"),
        (event("疼痛", "", "阵发", ""), "wrong 解剖部位"),
        (event("剧烈疼痛", "", "阵发", "腹"), "wrong 主体词"),
        (event("疼痛", "否定", "", "腹"), "several fields"),
    ],
)
def test_events_say_which_field_is_wrong(predicted: dict[str, Any], kind: str) -> None:
    assert counts(analyse_task(scored("CHIP-CDEE", ([event("疼痛", "", "阵发", "腹")], [predicted])))) == {kind: 1}


def test_events_about_other_things_are_spurious_and_missed() -> None:
    analysis = analyse_task(scored("CHIP-CDEE", ([event("疼痛")], [event("发热")])))
    assert counts(analysis) == {"spurious": 1, "missed": 1}


def test_terms_are_chosen_too_many_too_few_or_not_at_all() -> None:
    terms = [{"entity": term, "type": "normalization"} for term in ("甲", "乙", "丙")]
    one, two, three = terms
    samples = scored(
        "CHIP-CDN", ([one], [one, two]), ([one, two], [one]), ([one, three], []), ([], []), choices=("甲", "乙", "丙")
    )
    analysis = analyse_task(samples)
    assert counts(analysis) == {"correct": 2, "chose extra": 1, "missed": 1, "chose none": 2}
    assert [example["kinds"] for example in analysis["examples"]] == [["chose none"], ["chose extra"], ["missed"]]


def test_statuses_are_told_from_findings() -> None:
    has, has_not, unknown = TASKS["IMCS-V2-SR"].labels[1], *TASKS["IMCS-V2-SR"].labels[::2]
    gold = [{"entity": "咳嗽", "attr": has}, {"entity": "发热", "attr": has_not}, {"entity": "腹泻", "attr": has}]
    predicted = [{"entity": "咳嗽", "attr": has}, {"entity": "发热", "attr": unknown}, {"entity": "呕吐", "attr": has}]
    analysis = analyse_task(scored("IMCS-V2-SR", (gold, predicted), choices=(has, has_not, unknown)))
    assert counts(analysis) == {"correct": 1, "wrong status": 1, "spurious": 1, "missed": 1}
    assert analysis["fields"] == {"attr": 1}


def test_labels_make_a_confusion_matrix() -> None:
    choices = ("病情诊断", "治疗方案", "就医建议")
    first, second, third = choices
    samples = scored(
        "KUAKE-QIC",
        (first, first),
        (first, second),
        (first, second),
        (second, second),
        (second, "不知道"),
        (second, "不知道"),
        (second, ""),
        (third, None),
        choices=choices,
    )
    analysis = analyse_task(samples)
    assert counts(analysis) == {"correct": 2, "wrong label": 2, "invalid": 2, "empty": 1, "no prediction": 1}
    confusion = analysis["confusion"]
    assert confusion["rows"] == confusion["labels"] == [first, second, third]
    assert confusion["others"] == ["invalid", "empty", "no prediction"]
    assert confusion["matrix"] == [[1, 2, 0, 0, 0, 0], [0, 1, 0, 2, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert confusion["most_frequent"][0] == {"gold": first, "predicted": second, "n": 2, "of_gold": 2 / 3}
    assert confusion["invalid_outputs"] == [{"text": "不知道", "n": 2}]
    by_label = {row["label"]: row for row in confusion["per_label"]}
    assert by_label[second]["precision"] == pytest.approx(1 / 3)
    assert by_label[second]["recall"] == pytest.approx(1 / 4)
    assert by_label[second]["f1"] == pytest.approx(2 / 7)


def test_an_output_without_a_readable_label_is_invalid_and_not_empty() -> None:
    evaluation = Evaluation(parser="lenient")
    reference = {"input": "问", "target": "相关", "answer_choices": ["相关", "不相关"], "sample_id": "1"}
    outputs = ["这个问题我无法回答。", ""]
    samples = [evaluation.add(output, {**reference, "task_dataset": "KUAKE-IR"}) for output in outputs]
    analysis = analyse_task(samples)
    assert counts(analysis) == {"invalid": 1, "empty": 1}
    assert analysis["confusion"]["invalid_outputs"] == [{"text": outputs[0], "n": 1}]


def test_reports_are_seen_by_section_and_length() -> None:
    full = {"主诉": "咳嗽三天。", "现病史": "患儿咳嗽三天，无发热。", "诊断": "支气管炎"}
    samples = scored(
        "IMCS-V2-MRG",
        (full, full),
        (full, {"主诉": "咳嗽三天。", "现病史": "患儿咳嗽三天，无发热。"}),
        (full, {"主诉": "咳", "现病史": "咳", "诊断": "炎"}),
        (full, {**full, "诊断": "支气管炎" * 20}),
        (full, ""),
    )
    analysis = analyse_task(samples)
    kinds = {"comparable length": 1, "missing section": 1, "too short": 1, "too long": 1, "empty": 1}
    assert counts(analysis) == kinds
    sections = {row["section"]: row for row in analysis["sections"]}
    assert list(sections) == ["主诉", "现病史", "诊断"]
    assert sections["诊断"]["missing"] == 2
    assert sections["诊断"]["predicted_characters"] == pytest.approx((4 + 0 + 1 + 80 + 0) / 5)
    assert analysis["lengths"]["reference"]["mean"] == 5 + 11 + 4
    # The mean over the sections is the task's score.
    mean = sum(float(row["rougeL"]) for row in sections.values()) / 3
    evaluation = Evaluation()
    for sample in samples:
        evaluation.add_scored(sample)
    assert mean == pytest.approx(evaluation.result()["overall"])
    assert analysis["examples"][0]["score"] <= analysis["examples"][-1]["score"] < 1


def test_dialogue_has_lengths_and_no_sections() -> None:
    analysis = analyse_task(scored("MedDG", ("您好，请问发热吗？", "发热吗？"), ("多喝水。", None)))
    assert counts(analysis) == {"too short": 1, "no prediction": 1}
    assert analysis["lengths"]["predicted"]["mean"] == 2
    assert "sections" not in analysis


def test_every_item_of_every_task_counts_once(sample_rows: SampleRows) -> None:
    evaluation = Evaluation()
    rows = [row for row in sample_rows("train") if row["target"]]
    samples = [
        evaluation.add(row["target"][: len(row["target"]) - number % 9] if number % 5 else None, row)
        for number, row in enumerate(rows)
    ]
    result = evaluation.result()
    for name, analysis in analyse(samples).items():
        of_task = [sample for sample in samples if sample.task.name == name]
        assert sum(outcome["share"] for outcome in analysis["outcomes"]) == pytest.approx(1)
        for shares in (
            [outcome["of_predicted"] for outcome in analysis["outcomes"]],
            [outcome["of_gold"] for outcome in analysis["outcomes"]],
        ):
            assert sum(share for share in shares if share is not None) == pytest.approx(1)
        assert sum(analysis["states"].values()) == len(of_task)
        assert len(analysis["examples"]) <= EXAMPLES_OF_A_TASK
        for bins in analysis["breakdowns"].values():
            assert sum(part["n"] for part in bins) == len(of_task)
        totals = result["tasks"][name]["counts"]
        if analysis["unit"] == "items":
            kinds = counts(analysis)
            paired = sum(n for kind, n in kinds.items() if kind.startswith(("wrong", "boundary", "several")))
            assert kinds.get("correct", 0) == totals["tp"]
            assert paired + kinds.get("spurious", 0) + kinds.get("chose extra", 0) == totals["fp"]
            assert paired + kinds.get("missed", 0) + kinds.get("chose none", 0) == totals["fn"]


def test_samples_are_broken_down_by_template_length_and_size() -> None:
    evaluation = Evaluation()
    samples = []
    for number in range(40):
        gold = [{"entity": f"病{place}", "type": "疾病"} for place in range(number % 4)]
        target = TASKS["CMeEE-V2"].format.render(gold, ["疾病"])
        row = {
            "input": "长" * (10 + number),
            "target": target,
            "answer_choices": ["疾病"],
            "sample_id": str(number),
            "task_type": "ner",
            "task_dataset": "CMeEE-V2",
            "template": "first" if number < 30 else "second",
        }
        samples.append(evaluation.add(target if number < 30 else "", row))
    breakdowns = analyse_task(samples)["breakdowns"]
    assert [tuple(part.values()) for part in breakdowns["template"]] == [("first", 30, 1.0), ("second", 10, 0.0)]
    lengths = breakdowns["prompt length"]
    assert [(part["name"], part["n"]) for part in lengths] == [
        ("10–19", 10),
        ("20–29", 10),
        ("30–39", 10),
        ("40–49", 10),
    ]
    assert [part["score"] for part in lengths] == [1, 1, 1, 0]
    assert [(part["name"], part["n"]) for part in breakdowns["answer size"]] == [
        ("0", 10),
        ("1", 10),
        ("2", 10),
        ("3", 10),
    ]
    assert "choices offered" not in breakdowns


def test_the_form_of_outputs_is_told_whatever_parser_read_them() -> None:
    row = {
        "input": "问",
        "target": "是的",
        "answer_choices": ["是的", "不是"],
        "sample_id": "1",
        "task_type": "cls",
        "task_dataset": "CHIP-STS",
    }
    for parser in PARSERS:
        evaluation = Evaluation(parser=parser)
        samples = [evaluation.add(text, row) for text in ("是的", "“是的”", "", "什么", None)]
        analysis = analyse_task(samples)
        assert analysis["states"] == {"well-formed": 1, "repaired": 1, "unreadable": 1, "empty": 1, "no prediction": 1}
        assert sum(analysis["repairs"].values()) == 1


def test_it_says_why_the_protocols_differ() -> None:
    choices = ("病情诊断", "治疗方案")
    samples = scored(
        "KUAKE-QIC",
        *[(choice, choice) for choice in choices for _ in range(5)],
        (choices[0], "甲"),
        (choices[0], "乙"),
        (choices[0], "乙"),
        (choices[1], ""),
        choices=choices,
    ) + scored("MedDG", ("多喝水。", "多休息。"))
    evaluation = Evaluation()
    for sample in samples:
        evaluation.add_scored(sample)
    results = evaluation.result("official"), evaluation.result("paper")
    (difference,) = protocol_differences(*results, counts_by_task(samples))
    assert difference["task"] == "KUAKE-QIC"
    assert difference["official"] < difference["paper"]
    invalid, empty = difference["reasons"]
    assert (invalid["kind"], invalid["n"], invalid["classes"]) == ("invalid classes", 3, 2)
    assert (empty["kind"], empty["n"], empty["label"]) == ("empty as label", 1, "非上述类型")
    between, (found,) = intervals_of(counts_by_task(samples), "official")
    assert {"MedDG", "generation", "overall"} == between.keys()
    alone = [sample for sample in samples if sample.task.name == "KUAKE-QIC"]
    assert intervals_of(counts_by_task(alone), "official")[0] == {}
    assert (found["task"], found["n"], found["classes"]) == ("KUAKE-QIC", 3, 2)
    assert found["paper"] == difference["paper"]
    assert found["paper_interval"] == list(intervals(counts_by_task(samples), "paper")["KUAKE-QIC"])
    assert intervals_of(counts_by_task(samples), "paper")[1] == []


def test_a_huge_output_takes_linear_time() -> None:
    gold = entities(疾病="肺炎 哮喘 支气管扩张")
    text = "上述句子中的实体包含：\n疾病实体：" + "，".join(f"病{number}" for number in range(150_000))
    samples = scored("CMeEE-V2", (gold, text), choices=("疾病",))
    start = time.process_time()
    analysis = analyse_task(samples)
    assert time.process_time() - start < 20
    assert counts(analysis) == {"spurious": 150_000, "missed": 3}
