"""CBLUE's own submission: raw files made of answers to prompts, and the check of their format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset.prompts.pool import fill, load_pool
from promptcblue_metric import TASKS, PromptCBLUEError
from promptcblue_metric.data.raw_labels import RAW_LABELS, sample_id_of
from promptcblue_metric.submit.cblue import CBLUE_TASKS, Unreadable, Written, check_file, records_said, write_cblue
from promptcblue_metric.tasks import REGISTRY, SUITES

from ...conftest import Run
from ..test_cli import COMMAND

Row = dict[str, Any]

#: Two raw test records of each task that can be written, the second holding more text than the first. Without answers.
RAW: Mapping[str, tuple[str, Sequence[Row]]] = {
    "CMeEE-V2": ("CMeEE-V2_test.json", [{"text": "肺炎可致咳嗽"}, {"text": "肺炎患者的肺炎复发时，用阿莫西林。"}]),
    "CMeIE": ("CMeIE_test.jsonl", [{"text": "哮喘@多见于儿童"}, {"text": "哮喘@首选吸入激素，忌用阿司匹林"}]),
    "CHIP-CDEE": (
        "CHIP-CDEE_test.json",
        [{"id": "e1", "text": "无发热"}, {"id": "e2", "text": "患者反复腹部胀痛三天"}],
    ),
    "CHIP-CDN": ("CHIP-CDN_test.json", [{"text": "高血压"}, {"text": "高血压3级;糖尿病"}]),
    "CHIP-CTC": ("CHIP-CTC_test.json", [{"id": "s1", "text": "年龄18岁以上"}, {"id": "s2", "text": "签署知情同意书"}]),
    "CHIP-STS": (
        "CHIP-STS_test.json",
        [
            {"id": "1", "text1": "糖尿病吃什么", "text2": "糖尿病能吃什么", "category": "diabetes"},
            {"id": "2", "text1": "糖尿病能吃什么", "text2": "糖尿病吃什么水果", "category": "diabetes"},
        ],
    ),
    "KUAKE-QIC": ("KUAKE-QIC_test.json", [{"id": "q1", "query": "感冒"}, {"id": "q2", "query": "感冒怎么引起的"}]),
    "KUAKE-QTR": (
        "KUAKE-QTR_test.json",
        [{"id": "r1", "query": "牙痛", "title": "牙痛怎么办"}, {"id": "r2", "query": "牙痛", "title": "牙疼的 原因"}],
    ),
    "CMedCausal": ("CMedCausal_test.json", [{"text": "熬夜会引起感冒"}, {"text": "花粉过敏的人接触花粉会打喷嚏"}]),
    "Text2DT": ("Text2DT_test.json", [{"text": "感冒者多喝水"}, {"text": "发热者用布洛芬，否则观察"}]),
    "KUAKE-QQR": (
        "KUAKE-QQR_test.json",
        [{"id": "k1", "query1": "胃胀", "query2": "胃胀气"}, {"id": "k2", "query1": "胃胀", "query2": "胃胀吃什么药"}],
    ),
}


#: The fields of each task's raw record that stand in its prompt, and the field of its answer.
FIELDS: Mapping[str, tuple[Sequence[str], str]] = {
    "CMeEE-V2": (["text"], "entities"),
    "CMeIE": (["text"], "spo_list"),
    "CHIP-CDEE": (["text"], "event"),
    "CHIP-CDN": (["text"], "normalized_result"),
    "CHIP-CTC": (["text"], "label"),
    "CHIP-STS": (["text1", "text2"], "label"),
    "KUAKE-QIC": (["query"], "label"),
    "KUAKE-QTR": (["query", "title"], "label"),
    "KUAKE-QQR": (["query1", "query2"], "label"),
    "CMedCausal": (["text"], "relation_of_mention"),
    "Text2DT": (["text"], "tree"),
}


def sample(task: str, prompt: str, number: int, choices: Sequence[str] | None = None) -> Row:
    offered = choices or (["预防", "药物治疗"] if task == "CMeIE" else list(REGISTRY[task].labels) or None)
    return {
        "input": prompt,
        "target": "",
        "answer_choices": ["原发性高血压", "糖尿病"] if task == "CHIP-CDN" else offered,
        "sample_id": f"{task}-{number}",
        "task_type": REGISTRY[task].task_type,
        "task_dataset": task,
    }


#: The outputs for the two records of each task, and what the raw answers have to be.
ANSWERED: Mapping[str, tuple[Sequence[str], Sequence[Any]]] = {
    "CMeEE-V2": (
        [
            "上述句子中的实体包含：\n疾病实体：肺炎，胃炎\n临床表现实体：咳嗽",
            "上述句子中的实体包含：\n疾病实体：肺炎\n药物实体：阿莫西林",
        ],
        [
            [
                {"start_idx": 0, "end_idx": 1, "type": "dis", "entity": "肺炎"},
                {"start_idx": 4, "end_idx": 5, "type": "sym", "entity": "咳嗽"},
            ],
            [
                {"start_idx": 0, "end_idx": 1, "type": "dis", "entity": "肺炎"},
                {"start_idx": 5, "end_idx": 6, "type": "dis", "entity": "肺炎"},
                {"start_idx": 12, "end_idx": 15, "type": "dru", "entity": "阿莫西林"},
            ],
        ],
    ),
    "CMeIE": (
        [
            "具有天气关系的头尾实体对如下：头实体为哮喘，尾实体为晴。",
            "具有药物治疗关系的头尾实体对如下：头实体为哮喘，尾实体为激素。",
        ],
        [[], [{"predicate": "药物治疗", "subject": "哮喘", "object": {"@value": "激素"}}]],
    ),
    "CHIP-CDEE": (
        [
            "上述句子中的临床发现事件如下：\n主体词：发热；发生状态：否定；描述词：；解剖部位：",
            "上述句子中的临床发现事件如下：\n主体词：胀痛；发生状态：；描述词：反复；解剖部位：腹部\n\n主体词：x；发生状态：也许；描述词：；解剖部位：",
        ],
        [
            [{"core_name": "发热", "tendency": "否定", "character": [], "anatomy_list": []}],
            [{"core_name": "胀痛", "tendency": "", "character": ["反复"], "anatomy_list": ["腹部"]}],
        ],
    ),
    "CHIP-CDN": (["没有对应的标准化实体", "原发性高血压，糖尿病"], ["", "原发性高血压##糖尿病"]),
    "CHIP-CTC": (["年龄", "知情同意"], ["Age", "Consent"]),
    "CHIP-STS": (["相同", "不是"], ["1", "0"]),
    "KUAKE-QIC": (["疾病描述", "非上述类型"], ["疾病表述", "其他"]),
    "KUAKE-QTR": (["部分匹配", "完全匹配"], ["2", "3"]),
    "KUAKE-QQR": (["完全一致", "语义无直接关联"], ["2", "0"]),
    "CMedCausal": (
        [
            "根据给定的文本抽取的因果关系三元组如下：\n头实体：熬夜；尾实体：感冒\n头实体：熬夜；尾实体：发烧",
            "根据给定的文本抽取的条件关系三元组如下：\n头实体：花粉过敏；尾三元组：头实体：接触花粉；尾实体：打喷嚏；关系：因果关系",
        ],
        [
            [
                {
                    "head": {"mention": "熬夜", "start_idx": 0, "end_idx": 2},
                    "relation": 1,
                    "tail": {"type": "mention", "mention": "感冒", "start_idx": 5, "end_idx": 7},
                }
            ],
            [
                {
                    "head": {"mention": "花粉过敏", "start_idx": 0, "end_idx": 4},
                    "relation": 2,
                    "tail": {
                        "type": "relation",
                        "head": {"mention": "接触花粉", "start_idx": 6, "end_idx": 10},
                        "relation": 1,
                        "tail": {"mention": "打喷嚏", "start_idx": 11, "end_idx": 14},
                    },
                }
            ],
        ],
    ),
    "Text2DT": (
        [
            '节点0：role=D；logical_rel=null；triples=[["感冒", "治疗方案", "多喝水"], ["感冒", "天气", "晴"]]',
            '节点0：role=C；logical_rel=or；triples=[["患者", "临床表现", "发热"]]\n'
            '节点1：role=D；logical_rel=null；triples=[["发热", "治疗药物", "布洛芬"]]\n'
            "节点2：role=D；logical_rel=null；triples=[]",
        ],
        [
            [{"role": "D", "triples": [["感冒", "治疗方案", "多喝水"]], "logical_rel": "null"}],
            [
                {"role": "C", "triples": [["患者", "临床表现", "发热"]], "logical_rel": "or"},
                {"role": "D", "triples": [["发热", "治疗药物", "布洛芬"]], "logical_rel": "null"},
                {"role": "D", "triples": [], "logical_rel": "null"},
            ],
        ],
    ),
}


class Case:
    """Raw files, prompts and outputs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.raw, self.output = folder, folder / "raw", folder / "out"
        self.prompts: list[Row] = []
        self.outputs: list[str] = []
        pool = load_pool()
        for task, (name, records) in RAW.items():
            self.write_raw(task, name, records)
            texts = [[record[field] for field in FIELDS[task][0]] for record in records]
            names = ("INPUT_TEXT",) if len(texts[0]) == 1 else ("INPUT_TEXT_1", "INPUT_TEXT_2")
            for number, (text, output) in enumerate(zip(texts, ANSWERED[task][0], strict=True)):
                filled = fill(pool[task].templates[0], {**dict(zip(names, text, strict=True)), "LIST_LABELS": "天，地"})
                self.prompts.append(sample(task, filled, number))
                self.outputs.append(output)

    def write_raw(self, task: str, name: str, records: Sequence[Row]) -> None:
        (self.raw / task).mkdir(parents=True, exist_ok=True)
        text = json.dumps(records, ensure_ascii=False)
        if name.endswith("l"):
            text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        (self.raw / task / name).write_text(text, encoding="utf-8")

    def files(self) -> tuple[Path, Path]:
        predictions = [
            {"sample_id": row["sample_id"], "prediction": output}
            for row, output in zip(self.prompts, self.outputs, strict=True)
        ]
        paths = self.folder / "predictions.jsonl", self.folder / "prompts.jsonl"
        for path, rows in zip(paths, (predictions, self.prompts), strict=True):
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return paths

    def submit(self, unreadable: Unreadable = "stop") -> dict[str, Written]:
        predictions, prompts = self.files()
        return write_cblue(predictions, str(prompts), self.raw, self.output, unreadable=unreadable)

    def fails(self, task: str, *words: str) -> None:
        """The task is named with what is wrong; the others are written."""
        found = self.submit()
        assert found[task].failed
        said = " ".join(found[task].notes)
        assert all(word in said for word in words), said
        assert [name for name, written in found.items() if not written.file] == [task]
        assert not (self.output / RAW[task][0]).exists()
        shutil.rmtree(self.output)

    def written(self, task: str) -> list[Row]:
        text = (self.output / RAW[task][0]).read_text(encoding="utf-8")
        found: list[Row] = (
            json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        )
        return found

    def of(self, task: str) -> int:
        """The place of the first row of a task."""
        return next(place for place, row in enumerate(self.prompts) if row["task_dataset"] == task)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_every_task_comes_back_in_its_raw_form(case: Case) -> None:
    case.prompts.reverse()
    case.outputs.reverse()
    found = case.submit()
    assert set(found) == set(RAW)
    for task, (name, records) in RAW.items():
        answers = ANSWERED[task][1]
        expected = [{**record, FIELDS[task][1]: answer} for record, answer in zip(records, answers, strict=True)]
        assert case.written(task) == expected, task
        assert found[task].records == check_file(case.output / name, case.raw) == 2
    # Nothing is left out without a count.
    assert "1 × mention that is not in the text" in " ".join(found["CMeEE-V2"].notes)
    assert "1 × relation that CBLUE does not have" in " ".join(found["CMeIE"].notes)
    assert "1 × relation with a mention that is not in the text" in " ".join(found["CMedCausal"].notes)
    assert "1 × triple of a relation that CBLUE does not have" in " ".join(found["Text2DT"].notes)
    events = " ".join(found["CHIP-CDEE"].notes)
    assert "1 × event of an unknown status" in events
    assert "1 × event without any content" in events
    assert "2 records ask for some of the types only" in " ".join(found["CMeIE"].notes)
    assert not any("some of the types" in note for note in found["CMeEE-V2"].notes)
    text = RAW["CMeEE-V2"][1][1]["text"]
    for entity in case.written("CMeEE-V2")[1]["entities"]:
        assert text[entity["start_idx"] : entity["end_idx"] + 1] == entity["entity"]


def test_every_template_of_the_pool_gives_its_record_back(tmp_path: Path) -> None:
    pool = load_pool()
    for task, (name, records) in RAW.items():
        case = Case(tmp_path / task)
        texts = [[record[field] for field in FIELDS[task][0]] for record in records]
        names = ("INPUT_TEXT",) if len(texts[0]) == 1 else ("INPUT_TEXT_1", "INPUT_TEXT_2")
        rows = [
            sample(
                task,
                fill(template, {**dict(zip(names, text, strict=True)), "LIST_LABELS": "，".join(["其一", "其二"])}),
                n,
            )
            for n, (template, text) in enumerate(
                (template, text) for template in pool[task].templates for text in texts
            )
        ]
        case.prompts, case.outputs = rows, [*ANSWERED[task][0]] * len(pool[task].templates)
        case.submit()
        assert [row[FIELDS[task][1]] for row in case.written(task)] == list(ANSWERED[task][1]), name


def test_types_that_several_prompts_ask_for_are_put_together(case: Case) -> None:
    at = case.of("CMeEE-V2")
    first = case.prompts[at]
    case.prompts[at] = {**first, "answer_choices": ["疾病"]}
    case.prompts.append({**first, "sample_id": "again", "answer_choices": [*RAW_LABELS["CMeEE-V2"].raw][1:]})
    case.outputs.append(case.outputs[at])
    notes = case.submit()["CMeEE-V2"].notes
    assert [item["type"] for item in case.written("CMeEE-V2")[0]["entities"]] == ["dis", "sym"]
    assert not any("some of the types" in note for note in notes)


def test_what_cannot_be_written_is_named_with_its_reason(case: Case) -> None:
    case.prompts += [{**sample("MedDG", "患者：你好", 0), "answer_choices": None}, sample("cMedQQ", "甲与乙", 0)]
    case.outputs += ["您好", "是的"]
    (case.raw / "CHIP-CTC" / "CHIP-CTC_test.json").unlink()
    found = case.submit()
    assert {name for name, written in found.items() if not written.file} == {"MedDG", "cMedQQ", "CHIP-CTC"}
    assert "no test file" in found["MedDG"].notes[0]
    assert "no task of CBLUE" in found["cMedQQ"].notes[0]
    assert "no test file" in found["CHIP-CTC"].notes[0]
    assert not (case.output / "CHIP-CTC_test.json").exists()
    for name in set(RAW) - {"CHIP-CTC"}:
        shutil.rmtree(case.raw / name)
    shutil.rmtree(case.output)
    with pytest.raises(PromptCBLUEError, match="no task can be written"):
        case.submit()
    assert not case.output.exists()


def test_a_label_without_a_raw_one_stops_or_is_counted(case: Case) -> None:
    at, other = case.of("KUAKE-QTR"), case.of("CHIP-CTC")
    case.outputs[at] = "我觉得部分匹配"
    case.fails("KUAKE-QTR", "KUAKE-QTR-0", "我觉得部分匹配", "--parser lenient")
    case.outputs[other] = "非上述类型"
    found = case.submit("first-label")
    assert case.written("KUAKE-QTR")[0]["label"] == "0"
    for task in ("KUAKE-QTR", "CHIP-CTC"):
        assert found[task].notes == ["1 × output without a raw label, written as the first label"]


def test_what_is_no_tree_stops_or_is_the_empty_one(case: Case) -> None:
    case.outputs[case.of("Text2DT")] = "节点0：role=C；logical_rel=null；triples=[]"
    case.fails("Text2DT", "no tree", "no binary tree", "--unreadable first-label")
    case.submit("first-label")
    assert case.written("Text2DT")[0]["tree"] == [{"role": "D", "triples": [], "logical_rel": "null"}]


def test_none_of_these_means_other_only_where_all_labels_were_offered(case: Case) -> None:
    at = case.of("KUAKE-QIC") + 1
    case.prompts[at]["answer_choices"] = ["病情诊断", "医疗费用"]
    case.fails("KUAKE-QIC", "KUAKE-QIC-1", "非上述类型", "offer every label")


def test_a_record_without_a_prompt_and_a_prompt_without_a_record(case: Case) -> None:
    at = case.of("CHIP-STS")
    case.prompts[at]["input"] = "别的提示"
    case.fails("CHIP-STS", "2 problem(s)", "sample 'CHIP-STS-0'", "record 1, '糖尿病吃什么', has no prompt")


def test_a_prompt_of_either_of_two_records_is_not_guessed(case: Case) -> None:
    name, records = RAW["CHIP-STS"]
    turned = {**records[0], "id": "3", "text1": records[0]["text2"], "text2": records[0]["text1"]}
    case.write_raw("CHIP-STS", name, [*records, turned])
    case.fails("CHIP-STS", "sample 'CHIP-STS-0'", "no single record")


def test_equal_records_have_one_answer(case: Case) -> None:
    name, records = RAW["CHIP-CTC"]
    case.write_raw("CHIP-CTC", name, [*records, {**records[0], "id": "s3"}])
    case.submit()
    assert [row["label"] for row in case.written("CHIP-CTC")] == ["Age", "Consent", "Age"]


def test_two_answers_to_one_record_must_agree(case: Case) -> None:
    at = case.of("CHIP-CTC")
    case.prompts.append({**case.prompts[at], "sample_id": "again"})
    case.outputs.append("性别")
    case.fails("CHIP-CTC", "'CHIP-CTC-0' and 'again' answer one record differently")


def test_of_several_test_files_the_one_in_its_own_folder_and_of_the_later_version_counts(case: Case) -> None:
    (case.raw / "results").mkdir()
    (case.raw / "results" / "KUAKE-QIC_test.json").write_text("[]", encoding="utf-8")
    case.write_raw("CMeEE-V2", "CMeEE_test.json", [{"text": "旧"}])
    assert all(task.file for task in case.submit().values())
    shutil.rmtree(case.output)
    case.write_raw("results", "CHIP-CTC_test.json", [{"id": 1, "text": "甲"}])
    case.write_raw("others", "CHIP-STS_test.json", [{"id": 1, "text1": "甲", "text2": "乙"}])
    (case.raw / "CHIP-STS").rename(case.raw / "moved")
    case.fails("CHIP-STS", "several test files of one task", "others")


def test_an_output_folder_is_not_written_into(case: Case) -> None:
    case.output.mkdir()
    (case.output / "mine").touch()
    with pytest.raises(PromptCBLUEError, match="not empty"):
        case.submit()
    case.output = case.raw / "out"
    with pytest.raises(PromptCBLUEError, match="raw files"):
        case.submit()


# --- Prompts whose ids lead to the raw records -----------------------------------------------------------------------


def lines(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_by_id(
    folder: Path, files: Mapping[str, Any], task: str, prompts: Sequence[tuple[str, str, str]], **fields: Any
) -> tuple[dict[str, Written], Path]:
    """Submit prompts, each an id, a text and an output, with these raw files."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    for name, value in files.items():
        (raw / name).write_text(content(name, value), encoding="utf-8")
    rows = [{**sample(task, f"请看：{text}\n回答：", 0), "sample_id": name, **fields} for name, text, _ in prompts]
    test = lines(folder / "prompts.jsonl", rows)
    predictions = lines(folder / "p.jsonl", [{"sample_id": name, "prediction": output} for name, _, output in prompts])
    return write_cblue(predictions, str(test), raw, folder / "out"), folder / "out"


def test_records_are_answered_by_id_whatever_their_texts(tmp_path: Path) -> None:
    records: Sequence[Row] = [
        {"id": "s1", "query": "甲药", "title": ""},
        {"id": "s2", "query": "甲药", "title": "乙药"},
        {"id": "s#3", "query": "甲药", "title": "乙药"},
        {"id": 4, "query": "甲 药", "title": "乙药"},
    ]
    labels = ["部分匹配", "完全匹配", "很少匹配有一些参考价值", "完全不匹配或者没有参考价值"]
    prompts = [
        (sample_id_of(record["id"]), f"{record['query']}，{record['title']}", label)
        for record, label in zip(records, labels, strict=True)
    ]
    found, output = write_by_id(tmp_path, {"KUAKE-QTR_test.json": records}, "KUAKE-QTR", prompts)
    assert found["KUAKE-QTR"] == Written("KUAKE-QTR_test.json", 4, [])
    written = json.loads((output / "KUAKE-QTR_test.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in written] == ["2", "3", "1", "0"]
    assert check_file(output / "KUAKE-QTR_test.json", tmp_path / "raw") == 4


def test_equal_texts_without_ids_are_answered_in_their_order(case: Case) -> None:
    name, records = RAW["CHIP-CTC"]
    case.write_raw("CHIP-CTC", name, [*records, {**records[0], "id": "s3"}])
    case.prompts.append({**case.prompts[case.of("CHIP-CTC")], "sample_id": "again"})
    case.outputs.append("性别")
    case.submit()
    assert [row["label"] for row in case.written("CHIP-CTC")] == ["Age", "Consent", "Gender"]


def test_ids_of_other_files_that_look_the_same_are_not_followed(tmp_path: Path) -> None:
    records = [{"text": "肺炎可致咳嗽"}, {"text": "感冒"}]
    prompts = [("test-1", "肺炎可致咳嗽", "疾病实体：肺炎"), ("test-0", "感冒", "疾病实体：感冒")]
    found, output = write_by_id(tmp_path, {"CMeEE-V2_test.json": records}, "CMeEE-V2", prompts)
    written = json.loads((output / str(found["CMeEE-V2"].file)).read_text(encoding="utf-8"))
    assert [[entity["entity"] for entity in row["entities"]] for row in written] == [["肺炎"], ["感冒"]]


def test_json_lines_stay_json_lines_whatever_the_suffix(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    lines(raw / "CMeIE_test.json", [{"text": "哮喘"}, {"text": "感冒"}])
    prompts = [(sample_id_of(place), text, "没有") for place, text in enumerate(("哮喘", "感冒"))]
    _, output = write_by_id(tmp_path, {}, "CMeIE", prompts)
    path = output / "CMeIE_test.json"
    assert [json.loads(line)["spo_list"] for line in path.read_text(encoding="utf-8").splitlines()] == [[], []]
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match="expected JSON Lines, as the raw file is, found a JSON list"):
        check_file(path, raw)
    lines(path, records)
    path.write_bytes("\ufeff".encode() + path.read_bytes())
    with pytest.raises(PromptCBLUEError, match="byte order mark"):
        check_file(path, raw)


SENTENCES = {
    "10": {
        "self-report": "宝宝咳嗽",
        "dialogue": [
            {"sentence_id": "1", "speaker": "医生", "sentence": "有没有 咳嗽？"},
            {"sentence_id": "2", "speaker": "患者", "sentence": "咳嗽，吃过小儿咳嗽糖浆"},
        ],
    }
}
#: A task, its raw files, its prompts, and what is written.
BY_ID: Mapping[str, tuple[Mapping[str, Any], Sequence[tuple[str, str, str]], Any]] = {
    "IMCS-V2-NER": (
        {"IMCS-V2_test.json": SENTENCES, "IMCS-V2-NER_test.json": {"10": {"1": "", "2": ""}}},
        [
            (sample_id_of("10_1"), "有没有咳嗽？", "上述句子中的实体包含：\n症状实体：咳嗽"),
            (
                sample_id_of("10_2"),
                "咳嗽，吃过小儿咳嗽糖浆",
                "上述句子中的实体包含：\n症状实体：咳嗽\n具体的药物名称实体：小儿咳嗽糖浆，感冒灵",
            ),
        ],
        {
            "10": {
                "1": "O O O O B-Symptom I-Symptom O",
                "2": "B-Symptom I-Symptom O O O B-Drug I-Drug I-Drug I-Drug I-Drug I-Drug",
            }
        },
    ),
    "IMCS-V2-DAC": (
        {"IMCS-V2_test.json": SENTENCES},
        [
            (sample_id_of("10_1"), "医生：有没有 咳嗽？", "关于症状的询问"),
            (sample_id_of("10_2"), "患者：咳嗽，吃过小儿咳嗽糖浆", "非上述类型"),
        ],
        {"10": {"1": "Request-Symptom", "2": "Other"}},
    ),
    "IMCS-V2-SR": (
        {"IMCS-V2-SR_test.json": {"10": SENTENCES["10"]["dialogue"]}},
        [
            (sample_id_of("10_1"), "有没有 咳嗽？", "判断为：\n咳嗽：无法根据上下文确定病人是否患有该症状"),
            (sample_id_of("10_2"), "咳嗽，吃过小儿咳嗽糖浆", "判断为：\n咳嗽：患有该症状\n发热：没有患有该症状"),
        ],
        {"10": {"1": {"咳嗽": "2"}, "global": {"发热": "0", "咳嗽": "1"}, "2": {"发热": "0", "咳嗽": "1"}}},
    ),
    "IMCS-V2-MRG": (
        {"IMCS-V2_test.json": SENTENCES},
        [(sample_id_of("10"), "患者：咳嗽，吃过小儿咳嗽糖浆", "报告如下：\n主诉：咳嗽\n诊断：感冒")],
        {"10": {"主诉": "咳嗽", "现病史": "", "辅助检查": "", "既往史": "", "诊断": "感冒", "建议": ""}},
    ),
    "KUAKE-IR": (
        {"KUAKE-IR_test_query.txt": "7\t智齿要不要拔\n"},
        [(sample_id_of(7, f"d{n}"), "智齿要不要拔", "相关" if n in (4, 11) else "不相关") for n in range(12)],
        "7\td4,d11,d0,d1,d2,d3,d5,d6,d7,d8\n",
    ),
    "MedDG": (
        {"MedDG_test.json": [{"id": 3, "history": ["患者：胃痛", "医生：多久了", "患者：两天"]}]},
        [(sample_id_of(3), "患者：两天", "有没有反酸？")],
        [{"id": 3, "history": ["患者：胃痛", "医生：多久了", "患者：两天"], "output": "有没有反酸？"}],
    ),
}


@pytest.mark.parametrize("task", BY_ID)
def test_dialogues_and_documents_are_answered_by_id(task: str, tmp_path: Path) -> None:
    files, prompts, expected = BY_ID[task]
    found, output = write_by_id(tmp_path, files, task, prompts)
    path = output / str(found[task].file)
    text = path.read_text(encoding="utf-8")
    assert (text if path.suffix == ".tsv" else json.loads(text)) == expected
    assert check_file(path, tmp_path / "raw") == found[task].records
    if task == "IMCS-V2-NER":
        assert found[task].notes == ["left out 1 × mention that is not in the text, or within another"]
    # Without the ids there is no telling which record a prompt is made of.
    others = [(f"other-{n}", text, said) for n, (_, text, said) in enumerate(prompts)]
    shutil.rmtree(output)
    with pytest.raises(PromptCBLUEError, match=rf"{task}: .*build --from-test"):
        write_by_id(tmp_path, files, task, others)


@pytest.mark.parametrize(
    ("task", "files"),
    [
        ("IMCS-V2-MRG", {"IMCS-V2-MRG_test.json": {"10": {}, "11": ""}}),
        ("IMCS-V2-DAC", {"IMCS-V2-DAC_test.json": {"10": {"1": "", "2": ""}}}),
        ("CHIP-MDCFNPC", {"CHIP-MDCFNPC_test.jsonl": [{"dialog_id": 9, "dialog_info": []}]}),
        ("KUAKE-IR", {"KUAKE-IR_test.tsv": "7\n8\n\n"}),
        ("MedDG", {"MedDG_test.json": [{"id": 1, "history": []}, {"id": 2}]}),
        ("CHIP-CTC", {"CHIP-CTC_test.json": [{"id": 1, "text": 7}, {"id": 2, "text": None}]}),
        ("CHIP-CTC", {"CHIP-CTC_test.json": [{"id": 1, "text": "a"}, {"id": 1, "text": "b"}]}),
        ("MedDG", {"MedDG_test.json": [[{"id": "Patients", "Sentence": "恶心"}]]}),
        ("CMeEE-V2", {"CMeEE-V2_test.json": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}),
    ],
)
def test_raw_files_that_hold_little_or_something_else_end_in_a_reason(
    task: str, files: Mapping[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(PromptCBLUEError, match=rf"{task}: not written: "):
        write_by_id(tmp_path, files, task, [("other", "别的", "是")])


def test_each_finding_has_the_status_that_the_first_prompt_up_to_its_sentence_gives(tmp_path: Path) -> None:
    def turn(number: int, *mentions: str) -> Row:
        found = [{"range": [n, n + 2], "mention": mention, "name": "x"} for n, mention in enumerate(mentions)]
        return {"sentence_id": str(number), "sender": "患者", "text": "".join(mentions), "ner": found}

    dialogue = {"dialog_id": 9, "dialog_info": [turn(1, "咳嗽", "发热"), turn(2, "咳嗽"), turn(3, "腹泻")]}
    yes, no = RAW_LABELS["CHIP-MDCFNPC"].ours["阳性"], RAW_LABELS["CHIP-MDCFNPC"].ours["阴性"]
    prompts = [
        (sample_id_of(9, 2), "咳嗽发热", f"判别如下：\n咳嗽：{no}"),
        (sample_id_of(9, 1), "咳嗽发热", f"判别如下：\n咳嗽：{yes}\n发热：{no}"),
    ]
    found, output = write_by_id(tmp_path, {"CHIP-MDCFNPC_test.jsonl": [dialogue]}, "CHIP-MDCFNPC", prompts)
    written = json.loads((output / "CHIP-MDCFNPC_test.jsonl").read_text(encoding="utf-8"))
    statuses = [[finding["attr"] for finding in turn["ner"]] for turn in written["dialog_info"]]
    assert statuses == [["阳性", "阴性"], ["阴性"], ["不标注"]]
    assert found["CHIP-MDCFNPC"].notes == ["1 × finding that no answer names, written as 不标注"]


def test_a_turn_without_findings_may_leave_the_field_out_in_the_raw_file_alone(tmp_path: Path) -> None:
    finding = {"range": [0, 2], "mention": "咳嗽", "name": "咳嗽"}
    first, second = ({"sentence_id": n, "sender": "患者", "text": "咳嗽"} for n in "12")
    dialogues = [
        {"dialog_id": 9, "dialog_info": [{**first, "ner": [finding]}, second]},
        {"dialog_id": 10, "dialog_info": [first]},
    ]
    prompts = [(sample_id_of(9, 2), "咳嗽", "判别如下：\n咳嗽：" + RAW_LABELS["CHIP-MDCFNPC"].ours["阳性"])]
    found, output = write_by_id(tmp_path, {"CHIP-MDCFNPC_test.jsonl": dialogues}, "CHIP-MDCFNPC", prompts)
    assert (found["CHIP-MDCFNPC"].records, found["CHIP-MDCFNPC"].notes) == (2, [])
    path = output / "CHIP-MDCFNPC_test.jsonl"
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answered = [[turn["ner"] for turn in dialogue["dialog_info"]] for dialogue in written]
    assert answered == [[[{**finding, "attr": "阳性"}], []], [[]]]
    del written[0]["dialog_info"][1]["ner"]
    lines(path, written)
    with pytest.raises(PromptCBLUEError, match="record '9': field 'ner' of a turn is missing"):
        check_file(path, tmp_path / "raw")


# --- The check alone -------------------------------------------------------------------------------------------------

SECTIONS = {"主诉": "咳嗽", "现病史": "", "辅助检查": "", "既往史": "", "诊断": "感冒", "建议": "休息"}
TURNS = {"d1": {"dialogue": [{"sentence_id": "1", "sentence": "头痛吗"}]}}
ENTITY = {"start_idx": 0, "end_idx": 1, "type": "dis"}
EVENT = {"core_name": "发热", "tendency": "", "character": [], "anatomy_list": []}


CAUSAL = {
    "head": {"mention": "a", "start_idx": 0, "end_idx": 1},
    "relation": 1,
    "tail": {"type": "mention", "mention": "b", "start_idx": 2, "end_idx": 3},
}
NODE = {"role": "D", "triples": [["a", "治疗药物", "b"]], "logical_rel": "null"}


def finding(attribute: str) -> Row:
    return {"dialog_id": 1, "dialog_info": [{"sentence_id": "2", "ner": [{"range": [0, 2], "attr": attribute}]}]}


#: A file, well-formed content, content that is not, and what is said of it.
FILES: Mapping[str, tuple[Any, Any, str]] = {
    "CMeEE_test.json": (
        [{"text": "a", "entities": [ENTITY]}],
        [{"text": "a", "entities": [{**ENTITY, "type": "疾病"}]}],
        "type",
    ),
    "CMeEE-V2_test.json": (
        [{"text": "a", "entities": []}],
        [{"text": "a", "entities": [{**ENTITY, "end_idx": "1"}]}],
        "end_idx",
    ),
    "CMeIE-V2_test.jsonl": (
        [{"text": "a", "spo_list": [{"subject": "b", "predicate": "预防", "object": {"@value": "c"}}]}],
        [{"text": "a", "spo_list": [{"subject": "b", "predicate": "预防", "object": "c"}]}],
        "object",
    ),
    "CHIP-CDEE_test.json": (
        [{"id": 1, "event": [EVENT]}],
        [{"id": 1, "event": [{**EVENT, "character": ""}]}],
        "character",
    ),
    "CHIP-CDN_test.json": (
        [{"text": "a", "normalized_result": "b##c"}],
        [{"text": "a", "normalized_result": ["b"]}],
        "string",
    ),
    "CHIP-CTC_test.json": ([{"id": "1", "label": "Age"}], [{"id": "1", "label": "年龄"}], "年龄"),
    "CHIP-STS_test.json": ([{"id": "1", "label": "1"}], [{"id": "1", "label": 1}], "strings.*found the number 1"),
    "KUAKE-QIC_test.json": ([{"id": "1", "label": "疾病表述"}], [{"id": "1", "label": "疾病描述"}], "疾病描述"),
    "KUAKE-QTR_test.json": ([{"id": "1", "label": "3"}], [{"id": "1", "label": "4"}], 'the string "4"'),
    "KUAKE-QQR_test.json": ([{"id": "1", "label": "2"}], [{"id": "1", "label": "-1"}], 'the string "-1"'),
    "KUAKE-IR_test.tsv": ("7\t" + ",".join("123456789a") + "\n", "7\t1,2\n", "ten|10"),
    "IMCS-V2-NER_test.json": ({"d1": {"1": "B-Symptom I-Symptom O"}}, {"d1": {"1": "B-Symptom O"}}, "3 tags"),
    "IMCS-V2-DAC_test.json": ({"d1": {"1": "Diagnose"}}, {"d1": {"1": "Other-Symptom"}}, "Other-Symptom"),
    "IMCS-V2-SR_test.json": ({"d1": {"1": {"头痛": "2"}}}, {"d1": {"1": {"头痛": "3"}}}, 'the string "3"'),
    "IMCS-V2-MRG_test.json": ({"d1": SECTIONS}, {"d1": {"主诉": "咳嗽"}}, "现病史"),
    "CHIP-MDCFNPC_test.jsonl": ([finding("不标注")], [finding("未知")], "未知"),
    "MedDG_test.json": ([{"id": 1, "output": "好"}], [{"id": 1, "output": None}], "string"),
    "CMedCausal_test.json": (
        [{"text": "a", "relation_of_mention": [CAUSAL]}],
        [{"text": "a", "relation_of_mention": [{**CAUSAL, "relation": 2}]}],
        "tail|type",
    ),
    "Text2DT_test.json": (
        [{"text": "a", "tree": [{**NODE, "role": "C"}, NODE, NODE]}],
        [{"text": "a", "tree": [{**NODE, "role": "C"}, NODE]}],
        "no binary tree",
    ),
}


def content(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if name.endswith("l"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in value)
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("name", FILES)
def test_the_check_knows_every_task_s_format(name: str, tmp_path: Path) -> None:
    right, wrong, says = FILES[name]
    raw, path = tmp_path / "raw", tmp_path / name
    raw.mkdir()
    (raw / name).write_text(content(name, right), encoding="utf-8")
    (raw / "IMCS-V2_test.json").write_text(json.dumps(TURNS), encoding="utf-8")
    path.write_text(content(name, right), encoding="utf-8")
    assert check_file(path, raw) == 1
    path.write_text(content(name, wrong), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=rf"1 problem(?s:.)*(?:{says})"):
        check_file(path, raw)
    # A record of the raw file that is not there, and another layout.
    broken: Sequence[tuple[Any, str]] = (
        ([] if isinstance(right, list) else {} if isinstance(right, dict) else "", "missing"),
    )
    for value, said in broken:
        path.write_text(content(name, value), encoding="utf-8")
        with pytest.raises(PromptCBLUEError, match=said):
            check_file(path, raw)


def test_a_relation_within_a_relation_is_checked_as_one(tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "CMedCausal_test.json"
    raw.mkdir()
    inner = {"type": "relation", "head": CAUSAL["head"], "relation": 1, "tail": CAUSAL["head"]}
    for relation, says in ((1, None), (3, None), (2, "1 or 3"), ("1", "1 or 3"), (True, "1 or 3")):
        nested = {**CAUSAL, "relation": 2, "tail": {**inner, "relation": relation}}
        text = json.dumps([{"text": "a", "relation_of_mention": [nested]}])
        for file in (raw / path.name, path):
            file.write_text(text, encoding="utf-8")
        if says is None:
            assert check_file(path, raw) == 1
        else:
            with pytest.raises(PromptCBLUEError, match=says):
                check_file(path, raw)


def test_the_check_covers_the_tasks_of_every_edition() -> None:
    assert set(CBLUE_TASKS) == set(SUITES["promptcblue-chip2023"].tasks) > set(TASKS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_text("{", encoding="utf-8"), "layout"),
        (lambda path: path.write_text("[[1]]", encoding="utf-8"), "layout"),
        (lambda path: path.write_bytes("[]".encode("utf-16")), "UTF-8"),
        (lambda path: path.write_text('[{"id": "s1"}]', encoding="utf-8"), "'text' is missing"),
    ],
)
def test_a_file_that_is_no_such_file_is_named(case: Case, change: Callable[[Path], object], says: str) -> None:
    path = case.folder / "CMeEE-V2_test.json"
    change(path)
    with pytest.raises(PromptCBLUEError, match=says) as caught:
        check_file(path, case.raw)
    assert str(path) in str(caught.value)
    with pytest.raises(PromptCBLUEError, match="name of one of CBLUE's test files"):
        check_file(case.folder / "predictions.json", case.raw)


def test_the_commands_write_and_check(case: Case, run_python: Run) -> None:
    predictions, prompts = case.files()
    done = run_python(COMMAND, "cblue", predictions, "--test", prompts, "--raw", case.raw, "--output", case.output)
    assert done.returncode == 0, done.stderr
    assert "CMeEE-V2: 2 records" in done.stdout
    path = case.output / "CHIP-CTC_test.json"
    done = run_python(COMMAND, "cblue-check", path, "--raw", case.raw)
    assert done.returncode == 0, done.stderr
    assert "2 records" in done.stdout
    path.write_text(path.read_text(encoding="utf-8").replace("Consent", "知情同意"), encoding="utf-8")
    done = run_python(COMMAND, "cblue-check", path, "--raw", case.raw)
    assert done.returncode == 1
    assert "record 's2'" in done.stderr
    other = case.output / "CMeEE-V2_test.json"
    (case.output / "unknown.json").write_text("[]", encoding="utf-8")
    done = run_python(COMMAND, "cblue-check", path, case.output / "unknown.json", other, "--raw", case.raw)
    assert done.returncode == 1
    assert "record 's2'" in done.stderr
    assert "unknown.json" in done.stderr
    assert f"{other}: 2 records" in done.stdout


def test_one_record_is_said_in_the_singular() -> None:
    assert [records_said(n) for n in (0, 1, 2)] == ["0 records", "1 record", "2 records"]


def test_the_command_names_the_task_that_it_did_not_write(case: Case, run_python: Run) -> None:
    case.outputs[case.of("KUAKE-QTR")] = "不知道"
    predictions, prompts = case.files()
    done = run_python(COMMAND, "cblue", predictions, "--test", prompts, "--raw", case.raw, "--output", case.output)
    assert done.returncode == 1
    assert "not written, for the reasons above: KUAKE-QTR" in done.stderr
    assert "sample 'KUAKE-QTR-0': '不知道' is no label" in done.stdout
    (checked,) = (line for line in done.stdout.splitlines() if line.startswith("checked as CBLUE's own checkers do: "))
    assert "CHIP-CTC_test.json" in checked
    assert "KUAKE-QTR" not in checked
    (missing,) = (line for line in done.stdout.splitlines() if line.startswith("missing, of CBLUE's 18 tasks: "))
    assert {"KUAKE-QTR", "MedDG"} < set(missing.partition(": ")[2].split(", "))
    assert "CHIP-CTC" not in missing
    assert (case.output / "CHIP-CTC_test.json").exists()
