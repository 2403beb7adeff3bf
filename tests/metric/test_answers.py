"""Answer formats: both ways, on any string, in linear time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptcblue_metric import TASKS, SeparatorError, get_task
from promptcblue_metric.answers import Answer

from .timing import assert_linear

PART = st.text(st.sampled_from("高血压头痛ab1 .-()、,:;/\t…“"), min_size=1, max_size=8).filter(lambda s: s == s.strip())
CHOICES = st.lists(PART, min_size=1, max_size=6, unique=True)


def chosen(task: str) -> st.SearchStrategy[tuple[Answer, Sequence[str]]]:
    """Answers of a task with no separator in their parts, and the choices they were made for."""
    labels = get_task(task).labels
    some = st.lists(st.sampled_from(labels), min_size=1, unique=True) if labels else CHOICES

    def entities(choices: list[str]) -> st.SearchStrategy[Answer]:
        found = st.lists(st.tuples(st.sampled_from(choices), PART), max_size=6)
        in_order = found.map(lambda pairs: sorted(pairs, key=lambda pair: choices.index(pair[0])))
        return in_order.map(lambda pairs: [{"entity": mention, "type": kind} for kind, mention in pairs])

    def triples(choices: list[str]) -> st.SearchStrategy[Answer]:
        found = st.lists(st.tuples(st.sampled_from(choices), PART, PART), max_size=6)
        in_order = found.map(lambda rows: sorted(rows, key=lambda row: choices.index(row[0])))
        return in_order.map(lambda rows: [dict(zip(("predicate", "subject", "object"), r, strict=True)) for r in rows])

    def events(_: list[str]) -> st.SearchStrategy[Answer]:
        values = st.lists(PART, max_size=3)
        status = st.sampled_from(["", "否定", "不确定"])
        event = {"主体词": PART | st.just(""), "发生状态": status, "描述词": values, "解剖部位": values}
        return st.lists(st.fixed_dictionaries(event), max_size=4)

    def terms(choices: list[str]) -> st.SearchStrategy[Answer]:
        found = st.lists(st.sampled_from(choices), unique=True).map(sorted)
        return found.map(lambda names: [{"entity": name, "type": "normalization"} for name in names])

    def statuses(choices: list[str]) -> st.SearchStrategy[Answer]:
        found = st.lists(st.tuples(PART, st.sampled_from(choices)), max_size=5)
        return found.map(lambda pairs: [{"entity": name, "attr": status} for name, status in pairs])

    def report(_: list[str]) -> st.SearchStrategy[Answer]:
        sections = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")
        return st.dictionaries(st.sampled_from(sections), PART | st.just(""))

    of_type = {
        "ner": entities,
        "spo_generation": triples,
        "event_extraction": events,
        "normalization": terms,
        "attr_cls": statuses,
        "report_generation": report,
        "response_generation": lambda _: PART,
    }
    answers = of_type.get(get_task(task).task_type, st.sampled_from)
    return some.flatmap(lambda choices: st.tuples(answers(choices), st.just(choices)))


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_parsing_a_rendered_answer_gives_it_back(task: str, data: st.DataObject) -> None:
    answer, choices = data.draw(chosen(task))
    answer_format = TASKS[task].format
    text = answer_format.render(answer, choices)
    parsed = answer_format.parse(text, choices)
    assert parsed.answer == answer
    whole = set(answer) == set(getattr(answer_format, "sections", answer)) if isinstance(answer, dict) else True
    assert parsed.well_formed == whole, (text, parsed.problems)


HOSTILE = st.text() | st.text(
    st.sampled_from("实体：，\n\r 。；关系的头尾具有尾为主诉描述词无上述句子中疾病"), max_size=60
)


@pytest.mark.parametrize("task", TASKS)
@given(text=HOSTILE, choices=st.lists(st.text(max_size=6), max_size=5))
@settings(max_examples=80, deadline=None)
def test_no_string_makes_a_parser_raise(task: str, text: str, choices: list[str]) -> None:
    parsed = TASKS[task].format.parse(text, choices)
    if not text.strip():
        assert not parsed.well_formed


LONG_INPUTS = [
    "\n",
    "，",
    "疾病实体：，",
    "具有关系的头尾实体对如下：",
    "，尾实体为",
    "主体词：；",
    "主诉：",
    "：",
    "甲",
]


@pytest.mark.parametrize("task", TASKS)
def test_parsing_takes_linear_time(task: str) -> None:
    answer_format, choices = TASKS[task].format, TASKS[task].labels or ("疾病", "药物")

    def seconds(size: int) -> float:
        texts = [unit * (size // len(unit)) for unit in LONG_INPUTS]
        start = time.process_time()
        for text in texts:
            answer_format.parse(text, choices)
        return time.process_time() - start

    assert_linear(seconds, 20_000, 200_000)


UNWRITABLE: list[tuple[str, Any, Sequence[str]]] = [
    ("CMeEE-V2", [{"entity": "心，肺", "type": "疾病"}], ["疾病"]),
    ("CMeEE-V2", [{"entity": "心\n肺", "type": "疾病"}], ["疾病"]),
    ("CMeEE-V2", [{"entity": " 心", "type": "疾病"}], ["疾病"]),
    ("CMeEE-V2", [{"entity": "心", "type": "药物"}], ["疾病"]),
    ("CMeIE", [{"predicate": "病因", "subject": "甲。乙", "object": "丙"}], ["病因"]),
    ("CMeIE", [{"predicate": "病因", "subject": "甲", "object": "尾实体为丙"}], ["病因"]),
    ("CMeIE", [{"predicate": "预后", "subject": "甲", "object": "丙"}], ["病因"]),
    ("CHIP-CDEE", [{"主体词": "痛；", "发生状态": "", "描述词": [], "解剖部位": []}], []),
    ("CHIP-CDEE", [{"主体词": "痛", "发生状态": "", "描述词": ["轻，重"], "解剖部位": []}], []),
    ("CHIP-CDEE", [{"主体词": "痛", "发生状态": "", "描述词": [""], "解剖部位": []}], []),
    ("CHIP-CDN", [{"entity": "骨折，开放性", "type": "normalization"}], ["骨折，开放性"]),
    ("CHIP-CDN", [{"entity": "骨折", "type": "normalization"}], ["脱位"]),
    ("CHIP-CTC", "年龄", ["性别"]),
    ("IMCS-V2-SR", [{"entity": "咳：嗽", "attr": "患有该症状"}], ["患有该症状"]),
    ("IMCS-V2-SR", [{"entity": "咳嗽", "attr": "别的"}], ["患有该症状"]),
    ("IMCS-V2-MRG", {"主诉": "咳嗽\n发热"}, []),
    ("IMCS-V2-MRG", {"处方": "无"}, []),
    ("MedDG", " 多喝水", []),
]


@pytest.mark.parametrize(("task", "answer", "choices"), UNWRITABLE)
def test_render_refuses_what_would_not_read_back(task: str, answer: Answer, choices: Sequence[str]) -> None:
    with pytest.raises(SeparatorError):
        TASKS[task].format.render(answer, choices)


def entity(mention: str, kind: str) -> dict[str, str]:
    return {"entity": mention, "type": kind}


#: Outputs on which the official post-processor does something a reader would not expect.
QUIRKS: list[tuple[str, str, Sequence[str], Answer]] = [
    ("CMeEE-V2", "疾病实体:肺炎，哮喘", ["疾病"], [entity("疾病实体:肺炎", "疾病"), entity("哮喘", "疾病")]),
    ("CMeEE-V2", "疾病实体：甲，疾病实体：乙", ["疾病"], [entity("甲", "疾病"), entity("乙", "疾病")]),
    ("CMeEE-V2", "疾病实体：甲\n疾病实体：甲", ["疾病"], [entity("甲", "疾病")] * 2),
    ("CMeEE-V2", " 疾病实体：甲", ["疾病"], []),
    (
        "CMeIE",
        "具有病因关系的头尾实体对如下：头实体为甲，尾实体为乙，尾实体为丙。头实体为丁。",
        ["预后"],
        [{"predicate": "病因", "subject": "甲", "object": "乙"}],
    ),
    (
        "CHIP-CDN",
        "答案：\n高血压， 糖尿病，肺炎，高血压",
        ["高血压", "糖尿病"],
        [entity("糖尿病", "normalization"), entity("高血压", "normalization")],
    ),
    ("CHIP-STS", " 相同\n", ["相同", "不同"], "是的"),
    # The first line is never read, and a status is compared with its trailing space, so the fallback stands.
    (
        "IMCS-V2-SR",
        "咳嗽：患有该症状\n发热：患有该症状 \nA：b：c",
        ["患有该症状"],
        [{"entity": "发热", "attr": "无法根据上下文确定病人是否患有该症状"}],
    ),
    ("IMCS-V2-MRG", "甲\n主诉：主诉：咳嗽\n主诉：发热 \n诊断:无", [], {"主诉": "发热"}),
    ("MedDG", " 多喝水。\r\n", [], "多喝水。"),
]


@pytest.mark.parametrize(("task", "text", "choices", "answer"), QUIRKS)
def test_strict_parser_keeps_the_official_quirks(task: str, text: str, choices: Sequence[str], answer: Answer) -> None:
    parsed = TASKS[task].format.parse(text, choices)
    assert parsed.answer == answer
    assert parsed.well_formed == (task in ("CHIP-STS", "MedDG"))


def test_a_blank_line_is_an_empty_event_as_in_the_official_parser() -> None:
    text = "上述句子中的临床发现事件如下：\n主体词：咳嗽；发生状态：否定；描述词：轻，重；解剖部位：\n"
    empty: dict[str, Any] = {"主体词": "", "发生状态": "", "描述词": [], "解剖部位": []}
    first = {"主体词": "咳嗽", "发生状态": "否定", "描述词": ["轻", "重"], "解剖部位": []}
    assert TASKS["CHIP-CDEE"].format.parse(text).answer == [first, empty]


@pytest.mark.parametrize(
    ("task", "text", "choices", "kind"),
    [
        ("CMeEE-V2", "疾病实体：", ["疾病"], "missing lead line"),
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：", ["疾病", "药物"], "missing line"),
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：\n疾病实体：", ["疾病"], "repeated line"),
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：\n以上。", ["疾病"], "unreadable line"),
        ("CMeIE", "具有预后关系的头尾实体对如下：", ["病因"], "unknown relation"),
        ("CHIP-CDN", "肺炎", ["哮喘"], "unknown term"),
        ("CHIP-CTC", "其他", ["年龄"], "unknown label"),
        ("IMCS-V2-SR", "当前对话中的症状及其阴阳性判断为：\n咳嗽：有", ["患有该症状"], "unknown status"),
        ("MedDG", "  ", [], "empty output"),
    ],
)
def test_what_is_wrong_with_an_output_is_named(task: str, text: str, choices: Sequence[str], kind: str) -> None:
    assert kind in [problem.kind for problem in TASKS[task].format.parse(text, choices).problems]


def _official_event(line: str) -> Answer:
    """The official loop over a line of CHIP-CDEE: a key's value is what the next keys are tried on."""
    event: Answer = {"主体词": "", "发生状态": "", "描述词": [], "解剖部位": []}
    for piece in line.split("；"):
        rest = piece
        for key in ("主体词", "发生状态", "描述词", "解剖部位"):
            if rest.startswith(key + "："):
                rest = "".join(rest.split(key + "：")).strip()
                parts = [word.strip() for word in rest.split("，") if word.strip()]
                event[key] = parts if isinstance(event[key], list) else rest
    return event


PIECES = ["主体词：", "发生状态：", "描述词：", "解剖部位：", "；", "，", " ", "腹", "痛", "否定", "："]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_events_are_read_as_by_the_official_loop(line: str) -> None:
    task = get_task("CHIP-CDEE")
    assert task.format.parse(f"x\n{line}").answer == [_official_event(line)]


def test_a_dropped_separator_in_an_event_reads_as_officially() -> None:
    (event,) = get_task("CHIP-CDEE").format.parse("x\n主体词：痛；发生状态：；描述词：解剖部位：腹").answer
    assert event["描述词"] == ["解剖部位：腹"]
    assert event["解剖部位"] == ["腹"]
