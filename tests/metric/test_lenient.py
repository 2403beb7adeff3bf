"""The lenient parser: a corpus of outputs with the answers a reader would take from them, and what always holds."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptcblue_metric import TASKS, SeparatorError
from promptcblue_metric.answers import AnswerFormat, Parsed, Problem
from promptcblue_metric.lenient import parse_lenient, well_formedness
from promptcblue_metric.tasks import CHIP2023, REGISTRY

from .test_answers import HOSTILE, chosen
from .timing import assert_linear

STATES = {"well-formed", "repaired", "unreadable", "empty", "truncated"}
#: A task of each answer format, with choices.
FORMATS: dict[str, Sequence[str]] = {
    "CMeEE-V2": TASKS["CMeEE-V2"].labels,
    "CMeIE": ("病因", "药物治疗"),
    "CHIP-CDEE": (),
    "CHIP-CDN": ("肺炎", "骨折，开放性"),
    "KUAKE-QQR": TASKS["KUAKE-QQR"].labels,
    "CHIP-MDCFNPC": TASKS["CHIP-MDCFNPC"].labels,
    "IMCS-V2-MRG": (),
    "MedDG": (),
    "CMedCausal": (),
    "Text2DT": (),
}
ROWS: list[dict[str, Any]] = [
    {**json.loads(line), "place": f"{path.stem}:{number}"}
    for path in sorted((Path(__file__).parent / "lenient_corpus").glob("*.jsonl"))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
]


def read(task: str, text: str, choices: Sequence[str], prompt: str = "") -> Parsed:
    return parse_lenient(REGISTRY[task].format, text, choices, prompt)


@pytest.mark.parametrize("row", ROWS, ids=[row["place"] for row in ROWS])
def test_corpus(row: dict[str, Any]) -> None:
    parsed = read(row["task"], row["output"], row["choices"], row.get("prompt", ""))
    # What is knowingly not read says in "read" what is made of it instead.
    assert parsed.answer == row.get("read", row["answer"]), (parsed.problems, parsed.repairs)
    assert well_formedness(parsed) == row["state"], (parsed.problems, parsed.repairs)


def test_the_corpus_covers_every_task_and_what_can_become_of_an_output() -> None:
    tasks = Counter(row["task"] for row in ROWS)
    assert set(tasks) == set(REGISTRY)
    assert min(tasks[task] for task in TASKS) >= 20
    assert len(ROWS) >= 1000
    assert {row["state"] for row in ROWS} == STATES


def test_little_of_the_corpus_is_not_read_and_nothing_of_it_is_read_wrong() -> None:
    missed = [row["read"] for row in ROWS if "read" in row]
    assert len(missed) <= 0.02 * len(ROWS)
    assert not any(missed)


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_well_formed_output_gives_the_same_answer_under_both_parsers(task: str, data: st.DataObject) -> None:
    answer, choices = data.draw(chosen(task))
    text = REGISTRY[task].format.render(answer, choices)
    strict = REGISTRY[task].format.parse(text, choices)
    # Marks that no mention holds are mended even there.
    if strict.well_formed and not set(",;、“…:-/()") & set(json.dumps(answer, ensure_ascii=False).replace('"', "")):
        lenient = read(task, text, choices)
        assert once(lenient.answer) == once(strict.answer)
        assert lenient.well_formed or lenient.answer != strict.answer
        assert well_formedness(strict) == "well-formed"


def once(answer: Any) -> Any:
    """An answer without what it repeats."""
    if not isinstance(answer, list):
        return answer
    return list(dict.fromkeys(json.dumps(item, ensure_ascii=False, sort_keys=True) for item in answer))


#: Pieces that models put into outputs, in every order.
PIECES = r"""
疾病 疾病实体： 药物实体: 肺炎 哮喘 无 ， 、 ； 。 , : - 1. ** ``` ```json ` # | |---|---| |实体|类型| <think> </think>
{"疾病":["肺炎"]} {" [ ] } " “ ” （ ） ( ) 头实体为 尾实体为 具有病因关系的头尾实体对如下： 病因 主体词：
发生状态：否定 描述词： 解剖部位： 主诉： 建议：
现病史 咳嗽：患有该症状 没有患有该症状 阳性 答案： A 选项B ① 2 是的 不是 相关 不相关 完全 匹配 抱歉 没有 实体 希望有帮助
医生： 患者： 上述句子中的实体包含： 等 \boxed{A}
"""
SPACES = (" ", "\n", "\r\n", "\n\n", "\t")
OUTPUTS = HOSTILE | st.lists(st.sampled_from([*PIECES.split(), *SPACES * 3]), max_size=25).map("".join)


@pytest.mark.parametrize("task", CHIP2023.tasks)
@given(text=OUTPUTS, choices=st.lists(st.sampled_from(["疾病", "病因", "", "A", "相关", "不相关", "肺炎"]), max_size=5))
@settings(max_examples=150, deadline=None)
def test_no_string_makes_the_parser_raise_and_nothing_is_mended_in_silence(
    task: str, text: str, choices: list[str]
) -> None:
    strict, parsed = REGISTRY[task].format.parse(text, choices), read(task, text, choices)
    assert well_formedness(parsed) in STATES
    assert strict.well_formed or not parsed.well_formed
    assert parsed.well_formed == (well_formedness(parsed) == "well-formed")
    assert parsed.answer or parsed.problems or parsed.repairs or strict.well_formed
    if not text.strip():
        assert well_formedness(parsed) == "empty"
    if well_formedness(parsed) in ("unreadable", "empty"):
        assert not parsed.answer


def squeezed(text: str) -> str:
    """``text`` without what the parser may take out of the middle of a word."""
    return "".join(text.replace("*", "").replace("`", "").split())


@pytest.mark.parametrize("task", FORMATS)
@given(text=OUTPUTS.filter(lambda text: not set(text) & set("<\\~\ufeff\u200b\u200c\u200d\u2060")))
@settings(max_examples=200, deadline=None)
def test_nothing_is_invented(task: str, text: str) -> None:
    parsed = read(task, text, FORMATS[task])
    said = squeezed(text)
    # A label or status may be given by its place or another name; an entity, a term and a text may not.
    free = {"type", "predicate", "attr", "role", "logical_rel"}

    def parts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [part for key, inner in value.items() if key not in free for part in parts(inner)]
        return (
            [part for item in value for part in parts(item)]
            if isinstance(value, list)
            else value.removesuffix("；尾三元组：").split()
        )

    if task != "KUAKE-QQR":
        assert all(squeezed(part) in said for part in parts(parsed.answer)), parsed
    elif parsed.answer and not {"option letter", "paper dialect"} & set(parsed.repairs):
        assert parsed.answer in said


WRAPS: dict[str, Callable[[str], str]] = {
    "line endings": lambda text: text.replace("\n", "\r\n") + "\r\n",
    "code fence": lambda text: f"```\n{text}\n```",
    "thinking removed": lambda text: f"<think>\n主诉：先想一想，疾病实体：肺炎？\n</think>\n\n{text}",
    "white space": lambda text: "\n\n" + "\n\n".join(f"  {line}  " for line in text.split("\n")) + "\n",
    "markdown": lambda text: "\n".join(f"**{line}**" if line else line for line in text.split("\n")),
    "invisible characters": lambda text: "\ufeff" + text,
}
RENDERED = []
for _row in ROWS:
    try:
        _text = REGISTRY[_row["task"]].format.render(_row["answer"], _row["choices"])
    except SeparatorError:
        continue
    if REGISTRY[_row["task"]].format.parse(_text, _row["choices"]) == (_row["answer"], (), ()):
        RENDERED.append((_row["task"], _text, _row["choices"], _row["answer"]))


@pytest.mark.parametrize("kind", WRAPS)
def test_what_is_put_around_an_answer_does_not_change_it(kind: str) -> None:
    assert {task for task, _, _, _ in RENDERED} == set(REGISTRY)
    for task, text, choices, answer in RENDERED:
        wrapped = WRAPS[kind](text)
        parsed = read(task, wrapped, choices)
        # White space and line endings are free text's own, and so the strict parser leaves them.
        if not (task == "MedDG" and REGISTRY[task].format.parse(wrapped).well_formed):
            assert parsed.answer == answer, (task, wrapped, parsed)
            assert parsed.well_formed or kind in parsed.repairs, (task, wrapped, parsed)


def test_reading_an_answer_again_once_it_is_written_in_the_dialect_changes_nothing() -> None:
    for task, text, choices, answer in RENDERED:
        assert read(task, text, choices) == (answer, (), ())


@pytest.mark.parametrize(
    ("task", "text", "choices"),
    [
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：无", ["疾病"]),
        (
            "CHIP-CDEE",
            "上述句子中的临床发现事件如下：\n主体词：咳嗽；发生状态：否定；描述词：无；解剖部位：",
            [],
        ),
    ],
)
def test_the_strict_parser_keeps_an_empty_marker_as_the_official_one_does_but_says_so(
    task: str, text: str, choices: list[str]
) -> None:
    strict = REGISTRY[task].format.parse(text, choices)
    assert "无" in json.dumps(strict.answer, ensure_ascii=False)
    assert [problem.kind for problem in strict.problems] == ["empty marker"]
    lenient = read(task, text, choices)
    assert "无" not in json.dumps(lenient.answer, ensure_ascii=False)
    assert "empty marker" in lenient.repairs


@pytest.mark.parametrize(
    ("task", "text", "choices", "kind"),
    [
        ("CMeEE-V2", "疾病实体：肺炎\n手术实体：切除", ["疾病"], "unreadable line"),
        ("CMeEE-V2", "今天天气不错", ["疾病"], "nothing readable"),
        ("CMeIE", "具有预后关系的头尾实体对如下：头实体为甲，尾实体为乙。", ["病因"], "unknown relation"),
        ("CHIP-CDEE", "主体词：咳嗽；发生状态：常有；描述词：；解剖部位：", [], "unknown status"),
        ("CHIP-CDN", "肺炎，自造的词", ["肺炎"], "unknown term"),
        ("KUAKE-IR", "相关还是不相关", ["相关", "不相关"], "ambiguous label"),
        ("IMCS-V2-SR", "发热：也许\n咳嗽：患有该症状", ["患有该症状"], "unknown status"),
        ("MedDG", "<think>想", [], "truncated"),
    ],
)
def test_what_could_not_be_read_is_named(task: str, text: str, choices: Sequence[str], kind: str) -> None:
    assert kind in [problem.kind for problem in read(task, text, choices).problems]


HOSTILE_UNITS = [
    *('{"a":', "[[[", '{"[[[`', '{"a":"b",', '\\"', "{'", ",  ", "|", "| a | b |\n", "|---|\n"),
    *(
        "<think>",
        "</think>",
        "<think>x</think>",
        "**",
        "`",
        "```",
        "```\n",
        "#",
        ">",
        "- ",
        "1. ",
        "\\boxed{",
        "<answer>",
    ),
    *("A", "1", " ", "\n", "\r", "，", "、", "：", ":", "(", "（", "“", "不", "是", "无\n", "等", "\u0301"),
    *(
        "疾病实体：，",
        "疾病：疾病（疾病），",
        "实体：疾病，类型：",
        "头实体",
        "头实体为甲，尾实体为乙。",
        "((甲，病因，乙)",
        "具有",
        "句子中",
    ),
    *(
        "具有病因关系的头尾实体对如下：",
        "主体词：甲；",
        "主诉：",
        "阳性",
        "咳嗽：阳性\n",
        "答案：\n",
        "肺炎和",
        "完全一致",
        "没有实体",
    ),
]


@pytest.mark.parametrize("task", FORMATS)
def test_time_is_linear(task: str) -> None:
    def seconds(unit: str, size: int) -> float:
        start = time.process_time()
        read(task, unit * (size // len(unit)), FORMATS[task])
        return time.process_time() - start

    for unit in HOSTILE_UNITS:
        assert_linear(partial(seconds, unit), 4_000, 32_000, unit)


@pytest.mark.parametrize("task", FORMATS)
@pytest.mark.parametrize(
    "unit", ['{"[[[`', "|", "<think>", "**", "A", "7", "无\n", "头实体为甲，尾实体为乙。", '\\"', "疾病"]
)
def test_a_megabyte_takes_a_moment(task: str, unit: str) -> None:
    start = time.process_time()
    read(task, unit * (1_000_000 // len(unit)), FORMATS[task])
    # About two seconds for the worst, half of it the strict parser; quadratic reading would take minutes.
    assert time.process_time() - start < 15


@pytest.mark.parametrize("task", FORMATS)
@pytest.mark.parametrize("text", ["|实体|类型|\n|---|---|", "||\n||", "|\n|", "|实体|\n|---|\n|", "{}", "[]", "更正："])
def test_what_has_a_form_and_no_content_says_nothing(task: str, text: str) -> None:
    parsed = read(task, text, FORMATS[task])
    assert not parsed.answer or task == "MedDG"


def test_deep_json_is_read_as_far_as_it_goes() -> None:
    for text in (
        "[" * 100_000,
        '{"疾病":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"疾病":["肺炎",' + "[" * 100_000,
    ):
        assert well_formedness(read("CMeEE-V2", text, ["疾病"])) in STATES


@pytest.mark.parametrize("task", FORMATS)
@given(text=OUTPUTS, prompt=OUTPUTS)
@settings(max_examples=100, deadline=None)
def test_with_a_prompt_too_nothing_raises_and_no_part_is_invented(task: str, text: str, prompt: str) -> None:
    parsed = read(task, text, FORMATS[task], prompt)
    assert well_formedness(parsed) in STATES
    well_formed = REGISTRY[task].format.parse(text, FORMATS[task]).well_formed
    assert parsed.answer or parsed.problems or parsed.repairs or well_formed
    if task == "CMeEE-V2" and prompt and not well_formed:
        said = "".join(prompt.split())
        dialect = "上述句子中的实体包含" in text
        assert dialect or all("".join(item["entity"].split()) in said for item in parsed.answer), parsed


@pytest.mark.parametrize("task", ["CMeEE-V2", "CMeIE", "CHIP-CDEE", "CHIP-CDN", "KUAKE-QQR", "CHIP-MDCFNPC"])
@pytest.mark.parametrize(
    "unit", ["肺炎、", "肺炎和咳嗽，", "疾病：肺炎（重）\n", "不是肺炎，", "完全一致？\n", "1. ", "更正：", "答：\n"]
)
def test_time_is_linear_with_a_prompt(task: str, unit: str) -> None:
    prompt = "患者肺炎，咳嗽。" * 100

    def seconds(size: int) -> float:
        start = time.process_time()
        read(task, unit * (size // len(unit)), FORMATS[task], prompt)
        return time.process_time() - start

    assert_linear(seconds, 4_000, 32_000, unit)


@pytest.mark.parametrize(
    ("task", "output", "prompt", "answer"),
    [
        ("CMeEE-V2", "疾病：肺炎和胸膜炎", "肺炎和胸膜炎常见", ["肺炎和胸膜炎"]),
        ("CMeEE-V2", "疾病：肺炎和胸膜炎", "肺炎常见，胸膜炎少见", ["肺炎", "胸膜炎"]),
        ("CMeEE-V2", "疾病：肺炎（肺部感染）", "肺炎常见", ["肺炎"]),
        ("CMeEE-V2", "疾病：肝脾大（重度）", "肝脾大（重度）", ["肝脾大（重度）"]),
        ("CMeEE-V2", "疾病：肺炎，肺癌", "肺炎常见", ["肺炎"]),
        ("CMeEE-V2", "疾病：Copd", "COPD常见", ["COPD"]),
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：肺炎，肺癌", "肺炎常见", ["肺炎", "肺癌"]),
        ("CMeEE-V2", "上述句子中的实体包含：\n疾病实体：肺炎。", "肺炎常见", ["肺炎"]),
        ("CHIP-CDEE", "主体词：体重变化；发生状态：；描述词：；解剖部位：", "体重无明显变化", ["体重变化"]),
    ],
)
def test_of_two_readings_the_one_is_taken_whose_parts_stand_in_the_prompt(
    task: str, output: str, prompt: str, answer: list[str]
) -> None:
    parsed = read(task, output, ["疾病"], prompt)
    assert [item.get("entity", item.get("主体词")) for item in parsed.answer] == answer
    lost = [problem for problem in parsed.problems if problem.kind == "not in the prompt"]
    assert bool(lost) == ("肺癌" in output)


@pytest.mark.parametrize("output", ["2", "（2）", "答案：2", "②", "2. 不相关"])
def test_a_number_is_an_option_only_where_the_prompt_numbers_its_options(output: str) -> None:
    labels = ["相关", "不相关"]
    numbered = "选项：\n② 不相关\n① 相关" if "②" in output else "选项：\n1. 相关\n2. 不相关"
    assert read("KUAKE-IR", output, labels, numbered).answer == "不相关"
    bare = read("KUAKE-IR", output, labels, "选项：相关，不相关")
    assert bare.answer == ("不相关" if "相关" in output else "")


@pytest.mark.parametrize("output", ["药物、治疗", "药物和治疗", "药物、治疗或手术", "年龄/性别", "答案：药物、治疗"])
def test_of_a_list_of_labels_none_is_the_answer(output: str) -> None:
    labels = ["疾病", "药物", "治疗或手术", "年龄"]
    parsed = read("CHIP-CTC", output, labels)
    assert (parsed.answer, well_formedness(parsed)) == ("", "unreadable")
    assert read("CHIP-CTC", "治疗或手术", labels).answer == "治疗或手术"


@pytest.mark.parametrize(
    ("output", "kind", "answer"),
    [
        ("头、颈部肿瘤、胸膜炎", "疾病", ["头、颈部肿瘤", "胸膜炎"]),
        ("头、颈部肿瘤，胸膜炎", "疾病", ["头、颈部肿瘤", "胸膜炎"]),
        ("心、肝、肾", "身体部位", ["心", "肝", "肾"]),
    ],
)
def test_an_organ_that_shares_what_follows_is_no_part_of_its_own(output: str, kind: str, answer: list[str]) -> None:
    prompt = "头、颈部肿瘤、胸膜炎可累及心、肝、肾。"
    parsed = read("CMeEE-V2", f"{kind}：{output}", ["疾病", "身体部位"], prompt)
    assert [item["entity"] for item in parsed.answer] == answer


def test_prose_is_a_tree_only_where_all_of_it_is_triples() -> None:
    rule = "如果（患者，症状，发热）{}，则（患者，药物，布洛芬），否则（患者，方案，观察）。"
    roles = [node["role"] for node in read("Text2DT", rule.format(""), ()).answer]
    assert roles == ["C", "D", "D"]
    others = (
        "如果发热，则吃药，否则观察。",
        rule.format("而且很难受"),
        rule.format("").partition("，否则")[0] + "，否则观察。",
    )
    for other in others:
        parsed = read("Text2DT", other, ())
        assert not parsed.answer
        assert well_formedness(parsed) == "unreadable"


@dataclass(frozen=True)
class Shouted(AnswerFormat):
    """A format that the parser has no reader of: a word and a full-width colon."""

    def render(self, answer: Any, choices: Sequence[str] = (), *, strict: bool = True) -> str:
        return f"喊：{answer}"

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:
        head, _, answer = text.partition("：")
        return Parsed(answer, () if head == "喊" else (Problem("unreadable line", 1),))


def test_a_format_without_a_reader_of_its_own_is_unwrapped() -> None:
    assert parse_lenient(Shouted(), "喊：来") == ("来", (), ())
    for text in ("<think>想</think>\n```\n喊：来\n```<|im_end|>", "**喊:来**"):
        parsed = parse_lenient(Shouted(), text)
        assert (parsed.answer, well_formedness(parsed)) == ("来", "repaired")
    assert well_formedness(parse_lenient(Shouted(), "来")) == "unreadable"
