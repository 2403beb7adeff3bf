"""Reading raw corpora: what records become, what their errors name, and what archives may not do."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import signal
import stat
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from promptcblue_dataset.build import build, parse_sizes
from promptcblue_dataset.corpora import CORPORA, archives
from promptcblue_dataset.corpora.archives import RawError, RawFile, raw_files
from promptcblue_dataset.corpora.cblue import read_terms
from promptcblue_dataset.corpora.reading import LIST, Content, FileNotes, Place, Reading, Record, records_of
from promptcblue_dataset.making import Plan
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import NONE_OF_THESE, REGISTRY, TASKS

from ..conftest import Run

RAW = Path(__file__).parent / "raw"
HELLO = {"speaker": "医生", "sentence": "您好", "BIO_label": "O O"}


def read(corpus: str, root: Path) -> Reading:
    with raw_files(root) as files:
        return CORPORA[corpus].read(CORPORA[corpus].find(files))


def contents(reading: Reading, task: str, split: str = "train") -> list[Content]:
    return [content for group in reading.splits[task][split].groups for content in group.samples]


def bad(reading: Reading) -> list[str]:
    return [
        message for of_split in reading.splits.values() for split in of_split.values() for message in split.notes.bad
    ]


def left_out(reading: Reading, task: str) -> Counter[str]:
    return reading.splits[task]["train"].notes.left_out()


def raw_file(path: Path) -> RawFile:
    return RawFile(path, path)


def records(path: Path) -> list[Record]:
    return list(records_of(raw_file(path), FileNotes(path), Record))


def put(folder: Path, name: str, value: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def test_every_task_has_one_corpus() -> None:
    assert Counter(task for corpus in CORPORA.values() for task in corpus.tasks) == Counter(list(REGISTRY))


@pytest.mark.parametrize("corpus", [name for name, corpus in CORPORA.items() if set(corpus.tasks) <= set(TASKS)])
def test_every_fixture_is_read(corpus: str) -> None:
    reading = read(corpus, RAW)
    for task in CORPORA[corpus].tasks:
        labelled = {split for split, found in reading.splits[task].items() if found.groups}
        assert labelled == {"train", "validation"}
        assert all(content.answer is not None for content in contents(reading, task))
    assert not bad(reading)
    assert not reading.refused


def test_a_corpus_that_is_not_there_has_no_sources(tmp_path: Path) -> None:
    with raw_files(tmp_path) as files:
        assert not any(corpus.find(files).splits for corpus in CORPORA.values())


def test_mentions_can_come_from_inclusive_offsets(tmp_path: Path) -> None:
    entity = {"start_idx": 2, "end_idx": 3, "type": "sym"}
    put(tmp_path, "CMeEE_train.json", [{"text": "患儿发热三天", "entities": [entity]}])
    assert contents(read("CMeEE-V2", tmp_path), "CMeEE-V2")[0].answer == [{"entity": "发热", "type": "临床表现"}]


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (3, None),
        (4, "end_idx is behind the entity's last character"),
        (2, "an entity that is not at its offsets"),
    ],
)
def test_offsets_that_are_not_the_mentions_own_are_counted(tmp_path: Path, end: int, kind: str | None) -> None:
    entity = {"start_idx": 2, "end_idx": end, "type": "sym", "entity": "发热"}
    put(tmp_path, "CMeEE_train.json", [{"text": "患儿发热三天", "entities": [entity]}, {"text": "无", "entities": []}])
    reading = read("CMeEE-V2", tmp_path)
    assert contents(reading, "CMeEE-V2")[0].answer == [{"entity": "发热", "type": "临床表现"}]
    findings = reading.splits["CMeEE-V2"]["train"].notes.findings
    assert {kind: found.times for kind, found in findings.items()} == ({("kept", kind): 1} if kind else {})


def test_a_mention_that_is_nowhere_in_the_text_is_a_bad_record(tmp_path: Path) -> None:
    entity = {"start_idx": 2, "end_idx": 3, "type": "sym", "entity": "咳嗽"}
    put(tmp_path, "CMeEE_train.json", [{"text": "患儿发热三天", "entities": [entity]}])
    notes = read("CMeEE-V2", tmp_path).splits["CMeEE-V2"]["train"].notes
    assert notes.skipped == 1
    assert "record 1" in notes.bad[0]
    assert "咳嗽" in notes.bad[0]


@pytest.mark.parametrize(
    ("task", "field", "raw", "own", "ours"),
    [
        ("CHIP-CTC", "label", "年龄", "Age", "年龄"),
        ("CHIP-CTC", "label", "disease", "Disease", "疾病"),
        ("KUAKE-QIC", "label", "疾病描述", "疾病表述", "疾病描述"),
        ("KUAKE-QIC", "label", "其它", "其他", NONE_OF_THESE),
    ],
)
def test_labels_in_another_spelling_are_read_and_counted(
    tmp_path: Path, task: str, field: str, raw: str, own: str, ours: str
) -> None:
    text = "query" if task == "KUAKE-QIC" else "text"
    rows = [{"id": str(place), text: f"甲{place}", field: label} for place, label in enumerate((raw, own, raw))]
    put(tmp_path, f"{task}_train.json", rows)
    reading = read(task, tmp_path)
    assert [content.answer for content in contents(reading, task)] == [ours] * 3
    notes = reading.splits[task]["train"].notes
    assert {kind: found.times for kind, found in notes.findings.items()} == {
        ("mended", f"label {raw}: read as {own}"): 2
    }


def test_types_of_tags_in_another_case_are_counted(tmp_path: Path) -> None:
    turn = {"sentence_id": "1", "speaker": "患者", "sentence": "发热", "BIO_label": "B-symptom I-symptom"}
    put(tmp_path, "IMCS-V2_train.json", {"1": {"dialogue": [turn]}})
    reading = read("IMCS-V2", tmp_path)
    assert contents(reading, "IMCS-V2-NER")[0].answer == [{"entity": "发热", "type": "症状"}]
    notes = reading.splits["IMCS-V2-NER"]["train"].notes
    assert ("mended", "label symptom: read as Symptom") in notes.findings


def test_offsets_beyond_the_text_of_a_mention_that_is_spelled_out_are_counted(tmp_path: Path) -> None:
    offsets = ((2, 3), (9999, 10000), (-1, 1), (3, 2), (4, 6))
    entities = [{"start_idx": start, "end_idx": end, "type": "sym", "entity": "发热"} for start, end in offsets]
    put(tmp_path, "CMeEE_train.json", [{"text": "患儿发热三天", "entities": entities}])
    reading = read("CMeEE-V2", tmp_path)
    assert contents(reading, "CMeEE-V2")[0].answer == [{"entity": "发热", "type": "临床表现"}]
    findings = reading.splits["CMeEE-V2"]["train"].notes.findings
    assert {kind: found.times for kind, found in findings.items()} == {
        ("kept", "an entity whose offsets are not within the text"): 4
    }


def test_lists_lines_and_objects_of_records_are_told_apart(tmp_path: Path) -> None:
    one, two = {"a": 1}, {"a": {"b": 2}}
    for name, text in {
        "list.json": json.dumps([one, two], indent=1),
        "lines.json": f"{json.dumps(one)}\n\n{json.dumps(two)}\n",
        "object.json": json.dumps({"x": one, "y": two}, indent=1),
        "bom.json": "\ufeff" + json.dumps([one, two]),
    }.items():
        assert [record.value for record in records(put(tmp_path, name, text))] == [one, two], name
    assert [record.place.name for record in records(tmp_path / "lines.json")] == ["line 1", "line 3"]
    assert [record.place.name for record in records(tmp_path / "object.json")] == ["record 'x'", "record 'y'"]
    assert [record.value for record in records(put(tmp_path, "one.jsonl", json.dumps(one) + "\n"))] == [one]


@pytest.mark.parametrize("text", ["[{", "\xff", '[{"a": 1}', "nonsense", "3", '{"query": "a"}\n{"a": \n'])
def test_what_is_no_json_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "KUAKE-QIC_train.json"
    path.write_bytes(text.encode("latin-1"))
    messages = bad(read("KUAKE-QIC", tmp_path))
    assert len(messages) == 1
    assert all(message.startswith(f"{path}: ") for message in messages)


RECORDS = st.lists(
    st.dictionaries(st.text('甲ab"\\', min_size=1), st.text('乙]},{: \n"') | st.lists(st.integers()), min_size=1)
)


@settings(max_examples=25, deadline=None)
@given(values=RECORDS, by_id=st.booleans(), indent=st.sampled_from([None, 0, 2]), data=st.data())
def test_records_are_read_one_by_one_as_the_whole_file_is(values: Any, by_id: bool, indent: Any, data: Any) -> None:
    text = json.dumps({f"{n}": value for n, value in enumerate(values)} if by_id else values, indent=indent)
    with TemporaryDirectory() as folder:
        path = put(Path(folder), "a.json", text)
        if values or not by_id:
            assert [record.value for record in records(path)] == values
        put(Path(folder), "KUAKE-QIC_train.json", text[: data.draw(st.integers(1, len(text) - 1))])
        reading = read("KUAKE-QIC", Path(folder))
        assert bad(reading)
        assert not reading.splits["KUAKE-QIC"]["train"].groups


def test_what_breaks_off_gives_no_record_at_all(tmp_path: Path) -> None:
    good = json.dumps([{"query": "甲", "label": "其他"}, {"query": "乙", "label": "其他"}], ensure_ascii=False)
    for text in (good[:-1], good[:-3], good + "]", good.replace("}, {", "} {")):
        put(tmp_path, "KUAKE-QIC_train.json", text)
        reading = read("KUAKE-QIC", tmp_path)
        assert len(bad(reading)) == 1
        assert contents(reading, "KUAKE-QIC") == []
        assert reading.splits["KUAKE-QIC"]["train"].notes.records == 0
    record = {"text": "胃癌", "mention_data": [{"mention": "胃癌", "label": "疾病和诊断", "offset": "0"}]}
    for text, samples in ((json.dumps([record, record]), 2), (json.dumps([record, record])[:-1], 0)):
        put(tmp_path, "cEHRNER/train.json", text)
        reading = read("cEHRNER", tmp_path)
        assert len(contents(reading, "cEHRNER")) == samples
        assert len(bad(reading)) == (not samples)


def test_no_record_of_an_object_is_lost(tmp_path: Path) -> None:
    text = '{"1": {"dialogue": []}, "2": {"dialogue": []}, "1": {"dialogue": [3]}}'
    with pytest.raises(RawError, match=r"a\.json: the file: .*the key '1' stands there more than once"):
        records(put(tmp_path, "a.json", text))
    # Within a record, the reader of the record has its say.
    assert len(records(put(tmp_path, "c.json", text.replace(']}, "1": {', "], ").replace("3", "")))) == 2
    with pytest.raises(RawError, match=r"b\.json: the file: expected one list of records, found data and rows"):
        records(put(tmp_path, "b.json", {"rows": [{"text": "甲"}], "data": [{"text": "乙"}]}))


def event(**fields: Any) -> dict[str, Any]:
    return {"text": "热", "event": [{"core_name": "热", "tendency": "", "character": [], "anatomy_list": [], **fields}]}


def dialogue(**fields: Any) -> dict[str, Any]:
    return {"dialogue": [{"speaker": "医生", "sentence": "热吗", **fields}]}


#: A bad record of each corpus, and the field that the error has to name.
BAD: dict[str, tuple[Any, str]] = {
    "CMeEE-V2": (
        {"text": "发热", "entities": [{"start_idx": 0, "end_idx": 5, "type": "sym"}]},
        "entities[0].end_idx",
    ),
    "CMeIE": ({"text": "发热", "spo_list": [{"predicate": "病因", "subject": "热"}]}, "spo_list[0].object"),
    "CHIP-CDEE": (event(tendency="也许"), "event[0].tendency"),
    "CHIP-CTC": ({"text": "热", "label": "Weather"}, "label"),
    "KUAKE-QIC": ({"query": 3, "label": "其他"}, "query"),
    "CHIP-STS": ({"text1": "甲", "text2": "乙", "label": "9"}, "label"),
    "KUAKE-QTR": ({"query": "甲", "label": "1"}, "title"),
    "CHIP-MDCFNPC": (
        {"dialog_info": [{"sender": "医生", "text": "热", "ner": [{"mention": "热", "attr": "无"}]}]},
        "dialog_info[0].ner[0].attr",
    ),
    "IMCS-V2": (dialogue(BIO_label="O"), "dialogue[0].BIO_label"),
    "MedDG": ([{"id": "Nurse", "Sentence": "你好"}], "turns[0].id"),
}


@pytest.mark.parametrize("corpus", BAD)
def test_an_error_names_file_record_and_field(tmp_path: Path, corpus: str) -> None:
    record, field = BAD[corpus]
    name = f"{corpus}_train.json"
    put(tmp_path, name, {"7": record} if corpus == "IMCS-V2" else [record])
    message = bad(read(corpus, tmp_path))[0]
    assert name in message
    assert "record" in message
    assert f"'{field}'" in message


def test_bad_records_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "KUAKE-QTR_train.json", [{"query": "甲", "title": "乙", "label": label} for label in ("1", "8", "3")])
    reading = read("KUAKE-QTR", tmp_path)
    assert [content.answer for content in contents(reading, "KUAKE-QTR")] == ["很少匹配有一些参考价值", "完全匹配"]
    assert len(bad(reading)) == 1


def test_the_version_of_a_label_set_is_found_out(tmp_path: Path) -> None:
    def labels(*raw: str) -> Reading:
        put(tmp_path, "KUAKE-QQR_train.json", [{"query1": "甲", "query2": "乙", "label": label} for label in raw])
        return read("KUAKE-QQR", tmp_path)

    answers = [content.answer for content in contents(labels("-1", "0", "1", "2", "NA"), "KUAKE-QQR")]
    superset = "后者是前者的语义父集"
    assert answers == ["语义无直接关联", superset, "后者是前者的语义子集", "完全一致", superset]
    older = labels("0", "1", "2", "0")
    assert "three labels" in older.refused["KUAKE-QQR"]
    assert not older.splits


def test_labels_are_read_in_either_language_and_spelling(tmp_path: Path) -> None:
    records = [
        {"text": "甲", "label": label}
        for label in ("Non-Neoplasm Disease Stage", "non neoplasm disease stage", "疾病分期")
    ]
    put(tmp_path, "CHIP-CTC_train.json", records)
    assert {content.answer for content in contents(read("CHIP-CTC", tmp_path), "CHIP-CTC")} == {"疾病分期"}
    put(tmp_path, "KUAKE-QIC_train.json", [{"query": "甲", "label": label} for label in ("疾病表述", "其他")])
    answers = [content.answer for content in contents(read("KUAKE-QIC", tmp_path), "KUAKE-QIC")]
    assert answers == ["疾病描述", NONE_OF_THESE]


def test_relations_come_from_the_schemas_or_else_from_the_triples(tmp_path: Path) -> None:
    assert "预防" in read("CMeIE", RAW).offers["CMeIE"]
    assert len(set(read("CMeIE", RAW).offers["CMeIE"])) == len(read("CMeIE", RAW).offers["CMeIE"])
    shutil.copy(RAW / "CMeIE/CMeIE_train.jsonl", tmp_path)
    assert set(read("CMeIE", tmp_path).offers["CMeIE"]) == {
        *("临床表现", "药物治疗", "并发症", "同义词", "实验室检查", "多发群体", "传播途径")
    }


def test_relations_are_spelt_as_the_schema_file_spells_them(tmp_path: Path) -> None:
    names = ("相关(导致)", "相关（导致）", "导致")
    triples = [{"predicate": name, "subject": "甲", "object": {"@value": "乙"}} for name in names]
    put(tmp_path, "CMeIE_train.json", [{"text": "甲乙", "spo_list": triples}])
    (content,) = contents(reading := read("CMeIE", tmp_path), "CMeIE")
    assert [triple["predicate"] for triple in content.answer] == ["相关（导致）", "导致"]
    assert set(reading.offers["CMeIE"]) == {"相关（导致）", "导致"}
    put(tmp_path, "53_schemas.json", [{"predicate": "相关（导致）"}, {"predicate": "病因"}])
    (content,) = contents(reading := read("CMeIE", tmp_path), "CMeIE")
    assert [triple["predicate"] for triple in content.answer] == ["相关（导致）", "导致"]
    assert reading.offers["CMeIE"] == ["相关（导致）", "病因"]
    notes = reading.splits["CMeIE"]["train"].notes
    assert {key: found.times for key, found in notes.findings.items()} == {
        ("mended", "label 相关(导致): read as 相关（导致）"): 1,
        ("kept", "a relation that the schema file does not have"): 1,
    }


def test_terms_are_found_in_whichever_columns_they_stand(tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(["序号", "诊断编码", "诊断名称", "备注"])
    book.active.append([1, "A01.000", "伤寒", None])
    book.active.append([2, "M80000/0", "良性肿瘤", "形态学"])
    book.save(tmp_path / "国际疾病分类 ICD-10北京临床版v601.xlsx")
    assert read_terms(raw_file(tmp_path / "国际疾病分类 ICD-10北京临床版v601.xlsx")) == ["伤寒", "良性肿瘤"]
    table = put(tmp_path, "ICD10.txt", "编码\t名称\nA01.000\t伤寒\n")
    assert read_terms(raw_file(table)) == ["伤寒"]
    (tmp_path / "broken.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(RawError, match=r"broken\.xlsx"):
        read_terms(raw_file(tmp_path / "broken.xlsx"))


def test_terms_are_those_of_one_column(tmp_path: Path) -> None:
    chapters = "第一章\tA01.000\t伤寒\t肠道\n第一章\tK50.900\tCrohn\t肠道\n第一章\tA02.000\t沙门菌病\t肠道\n"
    for heading in ("章节\t编码\t名称\t备注\n", "章节名称\t编码\t诊断名称\t上级名称\n", ""):
        table = put(tmp_path, "ICD10.txt", heading + chapters)
        assert read_terms(raw_file(table), {"伤寒"}) == read_terms(raw_file(table)) == ["伤寒", "Crohn", "沙门菌病"]


def test_a_sheet_of_other_terms_is_refused(tmp_path: Path) -> None:
    shutil.copytree(RAW / "CHIP-CDN", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.xlsx"))
    table = put(tmp_path, "ICD10.txt", "".join(f"A{number}\t第{number}章\n" for number in range(10, 60)))
    refused = read("CHIP-CDN", tmp_path).refused["CHIP-CDN"]
    assert f"{table}: holds 0 of the" in refused
    assert "--use FILE" in refused


def test_normalization_asks_for_its_sheet(tmp_path: Path) -> None:
    shutil.copy(RAW / "CHIP-CDN/CHIP-CDN_train.json", tmp_path)
    assert "ICD-10" in read("CHIP-CDN", tmp_path).refused["CHIP-CDN"]


def test_retrieval_pairs_each_query_with_one_that_answers_and_one_that_does_not(tmp_path: Path) -> None:
    reading = read("KUAKE-IR", RAW)
    found = contents(reading, "KUAKE-IR")
    right = {"发烧": "擦身", "智齿": "拔牙", "骨折": "骨痂", "花粉": "口罩"}
    for content in found:
        word = next(word for query, word in right.items() if query in content.fields["INPUT_TEXT_1"])
        assert (word in content.fields["INPUT_TEXT_2"]) == (content.answer == "相关")
        assert "没有人问到" not in content.fields["INPUT_TEXT_2"]
    assert Counter(content.answer for content in found) == {"相关": 4, "不相关": 4}
    shutil.copytree(RAW / "KUAKE-IR", tmp_path / "raw")
    with (tmp_path / "raw/KUAKE-IR_train.tsv").open("a", encoding="utf-8") as stream:
        stream.write("q1\td99\n")
    (message,) = bad(read("KUAKE-IR", tmp_path / "raw"))
    assert "KUAKE-IR_train.tsv: line 5: field 'document id'" in message
    assert "d99" in message


def test_grades_are_numbers_and_ids_have_one_text(tmp_path: Path) -> None:
    names = ("corpus.tsv", "KUAKE-IR_train_query.txt")
    put(tmp_path, names[0], "d1\t甲文\nd2\t乙文\nd3\t丙文\nd2\t丁文\nd1\t甲文\n")
    put(tmp_path, names[1], "q1\t甲\nq2\t乙\nq1\t丙\nq2\t乙\n")
    grades = ("1", "0.0", "2.0", "-1", "高", "nan")
    lines = [f"q2\td1\t{grade}" for grade in grades] + ["q1\t0\td3\t1", "q2\td2\t1"]
    put(tmp_path, "KUAKE-IR_train.tsv", "\n".join(lines))
    reading = read("KUAKE-IR", tmp_path)
    assert left_out(reading, "KUAKE-IR")["a document marked as not relevant"] == 1
    right = [content.fields for content in contents(reading, "KUAKE-IR") if content.answer == "相关"]
    assert right == [
        {"INPUT_TEXT_1": "乙", "INPUT_TEXT_2": "甲文"},
        {"INPUT_TEXT_1": "乙", "INPUT_TEXT_2": "甲文"},
        {"INPUT_TEXT_1": "甲", "INPUT_TEXT_2": "丙文"},
    ]
    query, *of_grades, document = bad(reading)
    assert "KUAKE-IR_train_query.txt: record 3: an id of an earlier line, with another text: q1" in query
    assert [message.partition(": a grade that is no number from 0: ")[2] for message in of_grades] == [
        "-1",
        "高",
        "nan",
    ]
    assert "line 8: field 'document id': expected the id of one text, found 'd2'" in document


def test_symptoms_pair_with_their_statuses_in_order() -> None:
    answers = [content.answer for content in contents(read("IMCS-V2", RAW), "IMCS-V2-SR")]
    doubtful = "无法根据上下文确定病人是否患有该症状"
    assert [{"entity": "喘", "attr": doubtful}, {"entity": "痰", "attr": doubtful}] in answers


def test_status_lists_that_do_not_fit_the_tags_are_counted(tmp_path: Path) -> None:
    turn = {"speaker": "患者", "sentence": "咳", "BIO_label": "B-Symptom", "symptom_type": ["1", "0"]}
    put(tmp_path, "IMCS-V2_train.json", {"1": {"dialogue": [HELLO, HELLO, turn, {**turn, "symptom_type": ["1"]}]}})
    reading = read("IMCS-V2", tmp_path)
    assert len(contents(reading, "IMCS-V2-SR")) == 1
    assert left_out(reading, "IMCS-V2-SR")["tagged symptoms and statuses differ in number"] == 1


def test_statuses_are_never_those_of_other_mentions(tmp_path: Path) -> None:
    def turn(sentence: str, tags: str, statuses: list[str]) -> dict[str, Any]:
        names = {"B": "B-Symptom", "I": "I-Symptom", "O": "O"}
        written = " ".join(names[tag] for tag in tags)
        return {"speaker": "患者", "sentence": sentence, "BIO_label": written, "symptom_type": statuses}

    begins_inside = turn("咳嗽没有发热", "IIOOBI", ["0"])
    blank = turn(" 有咳嗽", "BOBI", ["1", "0"])
    twice = turn("以前咳嗽现在不咳嗽", "OOBIOOOBI", ["1", "0"])
    put(tmp_path, "IMCS-V2_train.json", {"1": {"dialogue": [HELLO, HELLO, begins_inside, blank, twice]}})
    (content,) = contents(reading := read("IMCS-V2", tmp_path), "IMCS-V2-SR")
    assert content.answer == [{"entity": "咳嗽", "attr": "没有患有该症状"}]
    found = reading.splits["IMCS-V2-SR"]["train"].notes.findings
    assert found["left out", "tagged symptoms and statuses differ in number"].times == 2
    assert found["mended", "a mention with several statuses: the last taken"].times == 1


def test_statuses_by_name_are_read_too(tmp_path: Path) -> None:
    turn = {"speaker": "患者", "sentence": "咳嗽", "BIO_label": "B-Symptom I-Symptom"}
    turn |= {"symptom_norm": ["咳嗽"], "local_implicit_info": {"咳嗽": "1"}}  # type: ignore[dict-item]
    put(tmp_path, "IMCS21_train.json", {"1": {"dialogue": [turn, HELLO, turn]}})
    assert (
        left_out(read("IMCS-V2", tmp_path), "IMCS-V2-SR")["symptoms in an utterance with fewer than two before it"] == 1
    )
    assert contents(read("IMCS-V2", tmp_path), "IMCS-V2-SR")[0].answer == [{"entity": "咳嗽", "attr": "患有该症状"}]


def test_a_tasks_own_file_comes_before_the_shared_one(tmp_path: Path) -> None:
    shutil.copy(RAW / "IMCS-V2/IMCS-V2_train.json", tmp_path)
    turn = {"speaker": "患者", "sentence": "咳", "BIO_label": "B-Symptom"}
    put(tmp_path, "IMCS-V2-NER_train.json", {"1": {"dialogue": [turn]}})
    reading = read("IMCS-V2", tmp_path)
    assert len(contents(reading, "IMCS-V2-NER")) == 1
    assert len(contents(reading, "IMCS-V2-MRG")) == 3


def test_records_of_a_file_that_is_not_taken_are_counted(tmp_path: Path) -> None:
    def consultation(text: str) -> dict[str, Any]:
        return {"dialogue": [{"speaker": "医生", "sentence": text}], "report": {"主诉": text}}

    put(tmp_path, "IMCS-V2_train.json", {name: consultation(name) for name in ("1", "2", "3")})
    put(tmp_path, "IMCS-V2-MRG_train.json", {name: consultation(name) for name in ("1", "4")})
    reading = read("IMCS-V2", tmp_path)
    assert len(contents(reading, "IMCS-V2-MRG")) == 2
    assert left_out(reading, "IMCS-V2-MRG") == {"a record of IMCS-V2_train.json, in whose place this file is read": 2}


def test_texts_with_several_labels_are_counted(tmp_path: Path) -> None:
    pairs = [{"id": f"s{label}", "text1": "甲", "text2": "乙", "label": label} for label in ("0", "1", "0")]
    put(tmp_path, "CHIP-STS_train.json", pairs)
    put(tmp_path, "CHIP-STS_dev.json", pairs[1:2])
    reading = read("CHIP-STS", tmp_path)
    found = {split: read.notes.findings for split, read in reading.splits["CHIP-STS"].items()}
    assert found["train"].pop(("kept", "texts of an earlier record, with another label")).records == {2: None}
    assert found == {"train": {}, "validation": {}}


def test_each_thing_that_the_doctor_says_is_an_answer_and_what_was_said_in_a_row_one_turn() -> None:
    found = contents(read("MedDG", RAW), "MedDG")
    answers = [content.answer for content in found]
    assert "考虑胃炎。" in answers
    (second,) = (content for content in found if content.answer == "可以先吃奥美拉唑两周。")
    assert second.fields["INPUT_TEXT"].endswith("\n医生：考虑胃炎。")
    assert "您好" not in answers  # nothing was asked yet


@given(st.lists(st.tuples(st.sampled_from(["Patients", "Doctor"]), st.text("好吗", max_size=2)), max_size=8))
def test_every_dialogue_is_read(turns: list[tuple[str, str]]) -> None:
    corpus: Any = CORPORA["MedDG"]
    place = Place(FileNotes(Path("x.json")), "record 1", 1, "0")
    record = Record({LIST: [{"id": who, "Sentence": text} for who, text in turns]}, place)
    for group in corpus.readers["MedDG"](record):
        assert all(content.answer.strip() for content in group.samples)


# --- archives ---


def zipped(path: Path, members: dict[str, bytes | str], **attributes: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def test_archives_are_read_as_folders_are(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for corpus in sorted(RAW.iterdir()):
        members = {f"{corpus.name}/{path.name}": path.read_bytes() for path in corpus.iterdir()}
        zipped(downloads / f"{corpus.name}.zip", {**members, "__MACOSX/._x.json": "junk", ".DS_Store": "junk"})
    everything = zipped(tmp_path / "all.zip", {path.name: path.read_bytes() for path in downloads.iterdir()})
    plan = Plan(parse_sizes("6,2,2", list(TASKS)))
    for number, raw in enumerate((RAW, downloads, everything)):
        build(raw, tmp_path / f"out{number}", plan, workers=1, cache=False)
    for path in sorted((tmp_path / "out0").rglob("*.parquet")):
        name = path.relative_to(tmp_path / "out0")
        assert (tmp_path / "out1" / name).read_bytes() == path.read_bytes()
        assert (tmp_path / "out2" / name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json", "..\\evil.json", "C:\\evil.json", "C:evil.json"]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    zipped(tmp_path / "in/x.zip", {"CMeEE-V2_train.json": "[]", name: "[]"})
    with pytest.raises(PromptCBLUEError, match=r"x\.zip"), raw_files(tmp_path / "in"):
        pass
    assert {path.name for path in tmp_path.rglob("*")} == {"in", "x.zip"}


def test_links_are_refused(tmp_path: Path) -> None:
    zipped(tmp_path / "x.zip", {"a.json": "/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16, create_system=3)
    with pytest.raises(PromptCBLUEError, match="link"), raw_files(tmp_path):
        pass


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped(tmp_path / "x.zip", {"a.json": b"0" * (8 << 20)})
    with pytest.raises(PromptCBLUEError, match="times its size"), raw_files(bomb):
        pass
    many = zipped(tmp_path / "y.zip", {f"{number}.json": "[]" for number in range(30)})
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    with pytest.raises(PromptCBLUEError, match="members"), raw_files(many):
        pass
    monkeypatch.setattr(archives, "MAX_MEMBERS", 100)
    with pytest.raises(PromptCBLUEError, match="GiB"), raw_files(many, max_bytes=50):
        pass


def test_many_small_members_and_streams_are_bounded_too(tmp_path: Path) -> None:
    many = zipped(tmp_path / "x.zip", {f"{number}.json": b"0" * 1_000_000 for number in range(10)})
    with pytest.raises(PromptCBLUEError, match=r"x\.zip: unpacks to more than"), raw_files(many):
        pass
    for name, mode in (("x.tar.gz", "w:gz"), ("x.tar.xz", "w:xz"), ("x.tar.bz2", "w:bz2")):
        path = tmp_path / name
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            info = tarfile.TarInfo("not data")
            info.size = 50_000_000
            archive.addfile(info, io.BytesIO(b"0" * info.size))
        with pytest.raises(PromptCBLUEError, match=rf"{name}: unpacks to more than"), raw_files(path):
            pass


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.xz", "x.tar.bz2"])
def test_damaged_archives_end_in_one_line(tmp_path: Path, name: str) -> None:
    for seed in range(60):
        random = Random(seed)
        content = bytes(random.choices(range(256), k=3000))
        path = tmp_path / name
        if name == "x.zip":
            zipped(path, {"a.json": content, "b.xlsx": content[::-1]})
        else:
            with tarfile.open(path, f"w:{path.suffix[1:]}") as archive:  # type: ignore[call-overload]
                info = tarfile.TarInfo("a.json")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        data = bytearray(path.read_bytes())
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        path.write_bytes(data[: random.randint(1, 2 * len(data))])
        with contextlib.suppress(PromptCBLUEError), raw_files(path) as files:
            assert len(files.files) <= 2


def test_unpacked_copies_are_removed_also_after_a_kill(tmp_path: Path, run_python: Run) -> None:
    archive = zipped(tmp_path / "x.zip", {"a.json": "[]"})
    code = """
import os, signal, sys
from pathlib import Path
from promptcblue_dataset.corpora.archives import raw_files
with raw_files(Path(sys.argv[1])) as files:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    place = tmp_path / "temporary"
    place.mkdir()
    assert run_python(code, archive, TMPDIR=str(place)).returncode == -signal.SIGKILL
    assert len(list(place.iterdir())) == 1
    code = code.replace("os.kill(os.getpid(), signal.SIGKILL)", f"print(len(os.listdir({str(place)!r})))")
    assert run_python(code, archive, TMPDIR=str(place)).stdout == "1\n"
    assert list(place.iterdir()) == []


def test_a_sheet_with_a_far_cell_is_refused(tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(["A01.000", "伤寒"])
    book.active["XFD1048576"] = 1
    path = tmp_path / "ICD10.xlsx"
    book.save(path)
    with pytest.raises(RawError, match=r"ICD10\.xlsx: has a cell in row 1,048,576 and one in column 16,384"):
        read_terms(raw_file(path))


def test_archives_within_archives_end(tmp_path: Path) -> None:
    path = zipped(tmp_path / "0.zip", {"a.json": "[]"})
    for depth in range(1, 5):
        path = zipped(tmp_path / f"{depth}.zip", {f"{depth - 1}.zip": path.read_bytes()})
    with raw_files(tmp_path / "1.zip") as files:
        assert [file.path.name for file in files.files] == ["a.json"]
    with pytest.raises(PromptCBLUEError, match="archives in archives"), raw_files(tmp_path / "4.zip"):
        pass


def test_chinese_names_without_a_flag_are_understood(tmp_path: Path) -> None:
    name = "国际疾病分类 ICD-10北京临床版v601.txt"
    path = zipped(tmp_path / "x.zip", {"PLACEHOLDER" + "x" * (len(name.encode("gbk")) - 11): "A01.000\t伤寒\n"})
    data = path.read_bytes().replace(b"PLACEHOLDER" + b"x" * (len(name.encode("gbk")) - 11), name.encode("gbk"))
    path.write_bytes(data)
    with raw_files(path) as files:
        assert [file.path.name for file in files.files] == [name]


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(PromptCBLUEError, match=r"x\.zip"), raw_files(tmp_path):
        pass


def test_two_files_of_one_corpus_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        put(tmp_path, f"{folder}/CMeEE-V2_train.json", [{"text": folder, "entities": []}])
    with pytest.raises(PromptCBLUEError, match=r"(?s)--use.*a/CMeEE-V2_train.*b/CMeEE-V2_train"):
        read("CMeEE-V2", tmp_path)


@pytest.mark.parametrize("says", [True, False])
def test_a_single_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, says: bool) -> None:
    packed = bytearray(gzip.compress(b" " * (20 << 20)))
    if not says:
        packed[-4:] = (100).to_bytes(4, "little")
    (tmp_path / "KUAKE-QIC_train.json.gz").write_bytes(packed)
    with pytest.raises(PromptCBLUEError, match="times its size"), raw_files(tmp_path):
        pass


def test_white_space_and_odd_spellings_of_labels_are_counted_once(tmp_path: Path) -> None:
    turn = {"sentence_id": "1", "speaker": "医生", "sentence": "发热吗", "dialogue_act": " request_symptom "}
    put(tmp_path, "IMCS-V2_train.json", {"1": {"dialogue": [turn]}})
    split = read("IMCS-V2", tmp_path).splits["IMCS-V2-DAC"]["train"]
    for _ in range(2):  # however often a sample is looked at
        assert len([content.answer for group in split.groups for content in group.samples]) == 1
    times = {kind: found.times for (action, kind), found in split.notes.findings.items() if action == "mended"}
    assert times == {"white space around a label": 1, "label request_symptom: read as Request-Symptom": 1}


def test_white_space_in_lists_of_texts_is_counted(tmp_path: Path) -> None:
    event = {"core_name": "发热", "tendency": "", "character": [" 反复"], "anatomy_list": ["全身"]}
    put(tmp_path, "CHIP-CDEE_train.json", [{"id": "1", "text": "反复全身发热", "event": [event]}])
    notes = read("CHIP-CDEE", tmp_path).splits["CHIP-CDEE"]["train"].notes
    assert notes.times("mended") == 1
