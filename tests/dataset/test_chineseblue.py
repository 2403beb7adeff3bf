"""ChineseBLUE from raw files with every kind of dirt, and from the published ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from promptcblue_dataset.build import Built, build, import_files
from promptcblue_dataset.cli import app
from promptcblue_dataset.corpora.archives import RawFile, raw_files
from promptcblue_dataset.corpora.chineseblue import CHINESEBLUE
from promptcblue_dataset.corpora.reading import FileNotes, Sources, ranges
from promptcblue_dataset.folder import CARD, is_ours
from promptcblue_dataset.making import Plan
from promptcblue_dataset.statistics import statistics, write_into_card
from promptcblue_metric import REGISTRY, SUITES, Evaluation, PromptCBLUEError
from promptcblue_metric.data.samples import Sample, load_samples

from .conftest import Load, Official, row

NAMES = list(SUITES["chineseblue"].tasks)


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def entities(text: str, *found: tuple[str, str, Any], kind: str = "label", **others: Any) -> dict[str, Any]:
    mentions = [{"mention": mention, kind: label, "offset": offset, **others} for mention, label, offset in found]
    return {"text": text, "mention_data": mentions}


def pages(query: str, *documents: tuple[str, str, str]) -> dict[str, Any]:
    return {"query": query, "documents": [{"url": u, "label": grade, "title": title} for u, grade, title in documents]}


def turn(sentence: str, tags: str, *kinds: str, speaker: str = "患者") -> dict[str, Any]:
    return {"speaker": speaker, "sentence": sentence, "label": tags, "normalized": list(kinds), "type": list(kinds)}


def dialogue(*turns: Mapping[str, Any]) -> bytes:
    value = {"data-split": "train", "example-id": "1", "dialogue-content": turns}
    return json.dumps(value, ensure_ascii=False).encode()


def tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


FILES = {
    "cEHRNER/train.json": lines(
        entities("胃癌术后,体温&gt;38度,胃痛", ("胃癌", "疾病和诊断", "0"), ("胃", "解剖部位", "15")),
        entities(" 腹痛,无腹痛", ("腹痛", "症状", "1"), ("腹痛", "症状", "5")),
    )
    + b"{broken\n",
    "cMedQANER/dev.json": lines(
        entities("查了tct没事", ("TCT", "test", 2), kind="type", guid="x"),
        entities(
            "孩子感冒，老感冒", ("感冒", "disease", "3"), ("", "disease", "0"), ("肺炎", "disease", "1"), kind="type"
        ),
        entities("头晕", ("头晕", "mood", "0"), kind="type"),
        entities("", kind="type"),
    ),
    "cMedQQ/train.txt": (
        "1\t感冒怎么办\t得了感冒怎么治\n0\t感冒怎么办\t牙疼怎么办\n2\t甲\t乙\n1\t只有一句\n0\t甲\t \n"
    ).encode(),
    "cMedQA/dev.txt": (
        '1\t头痛吃什么\t"多喝水，俗称""白水""。"\n0\t头痛吃什么\t去看牙科\n'
        "0\t牙疼怎么办\t多喝水&amp;休息\n0\t头痛吃什么\t开窗通风\n"
    ).encode(),
    "cMedIR/test.json": lines(
        pages("牙结石", ("u1", "2", "怎样去除牙结石"), ("u2", "1", ":洗牙")),
        pages("牙结石", ("u1", "2", "怎样去除牙结石"), ("u2", "1", "洗牙")),
        pages("牙结石", ("u1", "2", "怎样去除牙结石"), ("u3", "0", "首页")),
        pages("感冒", ("u4", "9", "感冒"), ("u5", "0", "首页")),
        pages("感冒", ("u4", "3", "感冒")),
    ),
    "cMedIC/test.txt": "0\t今天天气\n2\t感冒吃什么药\n".encode(),
    "cMedTC/train.txt": "Age\t 1) 年龄&gt;18岁\r\nAge\t1) 年龄>18岁\r\nBlood Donation\t1) 年龄>18岁\r\n".encode(),
}
DIALOGUES = {
    "CMDD/readme.md": b"# nothing",
    "CMDD/train/train_0.json": dialogue(
        turn("有点咳嗽", "OOBI", "1"),
        turn("没有发热吧", "OOBIO", "2", speaker="医生"),
        turn("", ""),
        turn("咳嗽好了", "BIOO", "2"),
    ),
    "CMDD/train/train_2.json": dialogue(
        turn("咳了", "IO", "1"), turn("病毒性感冒", "BIIBI", "3"), turn("流涕鼻塞", "BIBI", "1"), turn("长短", "O")
    ),
    "CMDD/train/train_10.json": b'{"data-split": "train", "',
}


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chineseblue")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    tar(folder / "CMDD.tar.gz", DIALOGUES)
    return folder


def import_raw(raw: Path, output: Path, *, skip_bad: bool = True) -> Built:
    return build(raw, output, Plan(dict.fromkeys(SUITES["chineseblue"].tasks), skip_bad=skip_bad), cache=False)


@pytest.fixture(scope="session")
def imported(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return import_raw(raw, tmp_path_factory.mktemp("out") / "chineseblue")


def samples(imported: Built, split: str, task: str) -> list[Sample]:
    return load_samples(imported.output, split, [task])


def findings(imported: Built, file: str) -> dict[tuple[str, str], tuple[int, str]]:
    report = json.loads(imported.report.read_text(encoding="utf-8"))
    (found,) = (entry for entry in report["files"] if entry["file"] == file)
    return {(row["action"], row["kind"]): (row["times"], row["records"]) for row in found["findings"]}


def test_every_file_is_counted_and_the_absent_ones_are_named(imported: Built) -> None:
    report = json.loads(imported.report.read_text(encoding="utf-8"))
    counts = {row["file"]: (row["records"], row["skipped_records"], row["samples"]) for row in report["files"]}
    assert counts == {
        "cEHRNER/train.json": (3, 1, 2),
        "cMedQANER/dev.json": (4, 2, 2),
        "cMedQQ/train.txt": (5, 3, 2),
        "cMedQA/dev.txt": (4, 0, 4),
        "cMedIR/test.json": (5, 2, 3),
        "cMedIC/test.txt": (2, 0, 2),
        "cMedTC/train.txt": (3, 0, 3),
        "CMDD/train": (3, 1, 2),
    }
    assert len(counts) + len(report["absent"]) == 9 * 3
    assert {"task": "cMedQNLI", "split": "test", "file": "cMedQNLI/test", "documented_records": 9969} in report[
        "absent"
    ]


def test_entities_are_mended_and_keep_their_offsets(imported: Built) -> None:
    first, second = samples(imported, "train", "cEHRNER")
    assert "体温>38度" in first["input"]
    assert "解剖部位实体：胃\n疾病和诊断实体：胃癌" in first["target"]
    # The stomach that is meant is the last, though its name begins the text.
    number, place = map(int, first["sample_id"].removeprefix("train-1@").split("."))
    assert (number, place) == (0, first["input"].index("胃痛"))
    assert second["sample_id"] == "train-2"
    assert "症状实体：腹痛，腹痛" in second["target"]
    for sample in (first, second):
        evaluation = Evaluation()
        evaluation.add(sample["target"], sample)
        scores = evaluation.result()["tasks"]["cEHRNER"]["scores"]
        assert scores["f1"] == 1
        assert scores["offset_f1"] == (1 if sample is second else 0.5)
    found = findings(imported, "cEHRNER/train.json")
    assert found["mended", "a whole number written in another way"] == (4, "1-2")
    assert found["mended", "HTML entities"] == (1, "1")
    assert found["mended", "white space at an end of the text"] == (1, "2")
    assert found["skipped", "no JSON"] == (1, "3")


def test_mentions_that_are_misspelt_misplaced_or_missing_are_listed(imported: Built) -> None:
    first, second = samples(imported, "validation", "cMedQANER")
    assert "检查检验实体：tct" in first["target"]
    assert "疾病实体：感冒\n" in second["target"]
    found = findings(imported, "cMedQANER/dev.json")
    assert found["mended", "a mention in other letter case than the text"] == (1, "1")
    assert found["kept", "a field 'guid' that is not used"] == (1, "1")
    assert found["mended", "an offset that is not the mention's: the nearest taken"] == (1, "2")
    assert found["left out", "an empty mention"] == (1, "2")
    assert found["left out", "a mention that is not in the text"] == (1, "2")
    assert found["skipped", "a field is missing or wrong"] == (1, "3")
    assert found["skipped", "an empty text"] == (1, "4")


def test_tables_are_mended(imported: Built) -> None:
    right, *_ = samples(imported, "validation", "cMedQA")
    assert "俗称“白水" not in right["input"]
    assert '俗称"白水"。' in right["input"]
    assert [sample["sample_id"] for sample in samples(imported, "validation", "cMedQA")] == [
        "dev-1-1",
        "dev-1-2",
        "dev-2-1",
        "dev-1-3",
    ]
    assert [sample["target"] for sample in samples(imported, "train", "cMedTC")] == ["年龄", "年龄", "献血"]
    assert findings(imported, "cMedTC/train.txt") == {
        ("mended", "carriage return at the end of the line"): (3, "1-3"),
        ("mended", "white space at an end of the text"): (1, "1"),
        ("mended", "HTML entities"): (1, "1"),
        ("kept", "texts of an earlier record"): (1, "2"),
        ("kept", "texts of an earlier record, with another label"): (1, "3"),
    }
    assert {sample["target"] for sample in samples(imported, "train", "cMedQQ")} <= {"是的", "不是", "相同", "不同"}
    assert findings(imported, "cMedQQ/train.txt") == {
        ("skipped", "an unknown label"): (1, "3"),
        ("skipped", "not 3 columns"): (1, "4"),
        ("mended", "white space at an end of the text"): (1, "5"),
        ("skipped", "an empty text"): (1, "5"),
    }


def test_documents_know_their_query_and_their_pairs(imported: Built) -> None:
    found = samples(imported, "test", "cMedIR")
    assert [sample["sample_id"] for sample in found] == ["test-1-1@1.3", "test-1-2@1", "test-1-3@3"]
    assert [sample["target"] for sample in found] == ["部分匹配", "很少匹配", "完全不匹配"]
    assert ":洗牙" not in found[1]["input"]
    # One template for the documents of a query, so that their answers can be compared.
    assert (
        len({sample["input"].replace("怎样去除牙结石", "").replace("洗牙", "").replace("首页", "") for sample in found})
        == 1
    )
    notes = findings(imported, "cMedIR/test.json")
    assert notes["mended", "a colon before the title"] == (1, "1")
    assert notes["mended", "a pair of an earlier line"] == (1, "2")
    assert notes["skipped", "a field is missing or wrong"] == (1, "4")
    assert notes["skipped", "not two documents"] == (1, "5")


def test_symptoms_of_a_dialogue_have_their_last_status(imported: Built) -> None:
    first, second = samples(imported, "train", "CMDD")
    assert first["sample_id"] == "train-0"
    assert "患者：有点咳嗽\n医生：没有发热吧\n患者：咳嗽好了" in first["input"]
    assert first["target"].split("\n")[1:] == ["咳嗽：没有患有该症状", "发热：没有患有该症状"]
    assert second["target"].split("\n")[1:] == [
        "咳：患有该症状",
        "病毒性感冒：无法根据上下文确定病人是否患有该症状",
        "流涕鼻塞：患有该症状",
    ]
    assert findings(imported, "CMDD/train") == {
        ("left out", "an empty utterance"): (1, "0"),
        ("mended", "a mention with several statuses: the last taken"): (1, "0"),
        ("mended", "an I tag after no B tag: taken for a B tag"): (1, "2"),
        ("mended", "neighbouring mentions that have one status: joined"): (2, "2"),
        ("left out", "tags and characters of an utterance differ in number"): (1, "2"),
        ("skipped", "no JSON"): (1, "10"),
    }


def test_every_row_scores_one_against_itself_and_offers_all_labels(imported: Built) -> None:
    evaluation = Evaluation()
    for split in ("train", "validation", "test"):
        for sample in load_samples(imported.output, split):
            evaluation.add(sample["target"], sample)
            assert sample["input"].count("[") == 0
            if sample["task_dataset"] != "cMedQQ":
                assert sample["answer_choices"] == list(REGISTRY[sample["task_dataset"]].labels)
    result = evaluation.result()
    assert result["overall"] == 1
    assert result["missing_tasks"] == ["cMedQNLI"]


def test_the_same_files_give_the_same_bytes(raw: Path, imported: Built, tmp_path: Path) -> None:
    again = import_raw(raw, tmp_path / "again")
    for path in imported.output.rglob("*"):
        if path.is_file():
            assert (again.output / path.relative_to(imported.output)).read_bytes() == path.read_bytes()


def test_the_card_names_licence_source_sizes_and_defects(imported: Built) -> None:
    card = (imported.output / CARD).read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "pretty_name: ChineseBLUE" in card
    assert "| CMDD/train | 3 | 2 | no JSON | skipped | 1 |" in card
    assert "| cMedQNLI/train | – | – | not in the source | | |" in card
    assert "$" not in card
    assert is_ours(imported.output)


def test_statistics_stand_beside_the_documented_sizes(imported: Built) -> None:
    found = statistics(imported.output)
    assert list(found) == [name for name in NAMES if name != "cMedQNLI"]
    assert found["CMDD"]["published"]["samples"] == {"train": 1240, "validation": 412, "test": 412}
    assert found["cMedTC"]["labels"] == {"年龄": 2, "献血": 1}
    card = write_into_card(imported.output, found)
    assert card is not None
    assert "| CMDD | 2 / 0 / 0 | 1,240 / 412 / 412 |" in card.read_text(encoding="utf-8")


def test_unusable_records_can_stop_the_import(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=r"CMDD/train: record 10: no JSON: train_10\.json"):
        import_raw(raw, tmp_path / "out", skip_bad=False)
    assert not (tmp_path / "out").exists()


def test_a_dataset_holds_one_suite(imported: Built, official: Official, tmp_path: Path) -> None:
    rows = [*load_samples(imported.output, "train", ["cMedQQ"])]
    own = import_files(official(train=rows), tmp_path / "own", cache=False)
    assert list(own.checked.samples) == ["cMedQQ"]
    assert own.missing == [name for name in NAMES if name != "cMedQQ"]
    with pytest.raises(PromptCBLUEError, match="several suites"):
        import_files(official("mixed", train=[*rows, row()]), tmp_path / "mixed-out", cache=False)
    assert not (tmp_path / "mixed-out").exists()


def test_a_folder_without_the_corpora_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(PromptCBLUEError, match="no raw corpora of ChineseBLUE"):
        import_raw(tmp_path / "raw", tmp_path / "out")


def test_the_command_builds_no_task_of_it_from_cblue(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["build", str(tmp_path), "--tasks", "cMedQQ"])
    assert isinstance(done.exception, PromptCBLUEError)
    assert "--suite chineseblue" in str(done.exception)


def test_load_dataset_finds_it_by_its_own_name(raw: Path, load: Load, tmp_path: Path, run_python: Any) -> None:
    code = "import sys; from promptcblue_dataset.cli import main; sys.argv[1:] = sys.argv[1:]; main()"
    cache = str(tmp_path / "cache")
    arguments = ("import", raw, "--suite", "chineseblue", "--output", tmp_path / "out", "--prime")
    done = run_python(code, *arguments, HF_HOME=cache)
    assert done.returncode == 0, done.stderr
    assert "not in the source: cEHRNER (validation, test)" in done.stdout
    assert 'load_dataset("chineseblue", "cEHRNER")' in done.stdout
    found = load(["cMedQQ", "all", None], path="chineseblue", cwd=tmp_path, HF_HOME=cache)
    assert len(found["cMedQQ"]["train"]) == 2
    assert found["all"] == found["default"]
    assert {row["task_dataset"] for rows in found["all"].values() for row in rows} == set(NAMES) - {"cMedQNLI"}


def test_tar_archives_are_hostile_until_shown_otherwise(tmp_path: Path) -> None:
    for name, kind in (
        ("../train_1.json", tarfile.REGTYPE),
        ("/train_1.json", tarfile.REGTYPE),
        ("a", tarfile.SYMTYPE),
    ):
        with tarfile.open(tmp_path / "CMDD.tar.gz", "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        with pytest.raises(PromptCBLUEError, match="the archive is refused"), raw_files(tmp_path):
            pass
    (tmp_path / "CMDD.tar.gz").write_bytes(b"\x1f\x8bno archive")
    with pytest.raises(PromptCBLUEError, match="cannot be unpacked"), raw_files(tmp_path):
        pass


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("text", "mention_data", "mention", "label", "type", "offset", "query", "documents", "title")
            )
            | st.sampled_from(("dialogue-content", "speaker", "sentence", "url")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(_JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20), max_size=3))
@settings(max_examples=60)
def test_a_reader_skips_what_it_cannot_use(tmp_path_factory: pytest.TempPathFactory, found: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "train_1.json"
    path.write_bytes(b"\n".join(found))
    for corpus in CHINESEBLUE.values():
        read = corpus.read(Sources({corpus.name: {"train": [RawFile(path, path)]}})).splits[corpus.name]["train"]
        assert sum(len(group.samples) for group in read.groups) <= read.notes.records or corpus.name == "cMedIR"
        json.dumps(read.notes.as_json(), ensure_ascii=False).encode()


def test_numbers_are_listed_as_ranges() -> None:
    assert ranges([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"
    notes = FileNotes(Path("x"))
    notes.add("mended", "kind", 1, "x" * 1000)
    assert len(next(iter(notes.findings.values())).examples[0]) < 200


def test_the_published_files_give_the_documented_counts(shared: Path, tmp_path: Path) -> None:
    imported = import_raw(shared / "data" / "chineseblue", tmp_path / "out")
    usable = {(file.task, file.split): file.notes.records - file.notes.skipped for file in imported.files if file.notes}
    for (task, name), records in usable.items():
        documented = REGISTRY[task].sizes[("train", "validation", "test").index(name)]
        # The archive of CMDD has one dialogue more in dev and in test than its authors say.
        assert records == documented + (task == "CMDD" and name != "train"), (task, name)
    absent = [(file.task, file.split) for file in imported.files if not file.notes]
    assert absent == [
        *(("cMedQNLI", name) for name in ("train", "validation", "test")),
        ("cMedQA", "train"),
        ("cMedIR", "train"),
    ]
    (broken,) = (file for file in imported.files if file.notes and file.notes.skipped)
    assert (broken.task, broken.split) == ("CMDD", "train")
    evaluation = Evaluation()
    for sample in load_samples(imported.output, "test"):
        evaluation.add(sample["target"], sample)
    result = evaluation.result()
    assert result["overall"] == 1
    assert result["well_formed"] == 1
    assert result["tasks"]["cEHRNER"]["scores"]["offset_f1"] > 0.9
