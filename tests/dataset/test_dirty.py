"""Raw CBLUE as people have it: copies, archives, clutter, other forms, odd records. Each kind made of the fixtures."""

from __future__ import annotations

import csv
import gzip
import io
import json
import runpy
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook

from promptcblue_dataset.build import build, parse_sizes
from promptcblue_dataset.corpora import CORPORA, find_sources
from promptcblue_dataset.corpora.archives import raw_files
from promptcblue_dataset.corpora.reading import Content
from promptcblue_dataset.making import Plan
from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import TASKS

RAW = Path(__file__).parent / "raw"


@dataclass
class Survey:
    """What all readers of CBLUE's corpora make of a raw folder."""

    samples: dict[str, list[Content]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    flaws: Counter[tuple[str, str]] = field(default_factory=Counter)
    passed_over: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, use: tuple[Path, ...] = ()) -> Survey:
        found = cls()
        with raw_files(root, use) as files:
            for name, sources in find_sources(files, TASKS).items():
                found._add(CORPORA[name].read(sources))
            found.passed_over = {path.as_posix(): why for path, why in files.passed_over()}
        return found

    def _add(self, reading: Any) -> None:
        self.refused |= reading.refused
        for task, of_split in reading.splits.items():
            for split in of_split.values():
                contents = [content for group in split.groups for content in group.samples]
                self.samples.setdefault(task, []).extend(contents)
                self.bad += split.notes.bad
                for (action, kind), finding in split.notes.findings.items():
                    self.flaws[action, kind] += finding.times

    def same_as(self, other: Survey) -> bool:
        return {task: Counter(map(repr, found)) for task, found in self.samples.items() if found} == {
            task: Counter(map(repr, found)) for task, found in other.samples.items() if found
        }


@pytest.fixture(scope="module")
def clean() -> Survey:
    found = Survey.of(RAW)
    assert set(found.samples) == set(TASKS)
    assert not found.bad
    assert not found.passed_over
    return found


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RAW, tmp_path / "raw"))


def load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in value] if path.suffix == ".jsonl" else [json.dumps(value)]
    path.write_text("\n".join(lines), encoding="utf-8")


def change(path: Path, how: Callable[[Any], Any]) -> None:
    value = load(path)
    save(path, how(value) or value)


def test_a_sheet_in_two_folders_counts_once(raw: Path, clean: Survey) -> None:
    (sheet,) = (raw / "CHIP-CDN").glob("*.xlsx")
    shutil.copy(sheet, raw / "CHIP-CDEE" / sheet.name.replace("类 ICD", "类ICD"))
    found = Survey.of(raw)
    assert found.same_as(clean)
    (why,) = found.passed_over.values()
    assert why.startswith("identical to ")


def test_a_corpus_of_four_tasks_in_four_folders(raw: Path, clean: Survey) -> None:
    for task in ("NER", "DAC", "SR", "MRG"):
        for split in ("train", "dev"):
            target = raw / f"IMCS-V2-{task}" / f"IMCS-V2_{split}.json"
            save(target, load(raw / "IMCS-V2" / f"IMCS-V2_{split}.json"))
        shutil.copy(raw / "IMCS-V2/IMCS-V2_test.json", raw / f"IMCS-V2-{task}/IMCS-V2-{task}_test.json")
    shutil.rmtree(raw / "IMCS-V2")
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert len(found.passed_over) == 3 * 2


def test_utterances_by_dialogue(raw: Path, clean: Survey) -> None:
    for split in ("train", "dev"):
        dialogues = load(raw / "IMCS-V2" / f"IMCS-V2_{split}.json")
        plain = {name: dialogue["dialogue"] for name, dialogue in dialogues.items()}
        for task in ("DAC", "SR"):
            save(raw / f"IMCS-V2-{task}" / f"IMCS-V2-{task}_{split}.json", plain)
    shutil.rmtree(raw / "IMCS-V2")
    found = Survey.of(raw)
    for task in ("IMCS-V2-DAC", "IMCS-V2-SR"):
        assert sorted(map(repr, found.samples[task])) == sorted(map(repr, clean.samples[task]))
    assert not {"IMCS-V2-NER", "IMCS-V2-MRG"} & set(found.samples)


def test_an_older_version_beside_the_newer_one_is_left(raw: Path, clean: Survey) -> None:
    for split in ("train", "dev", "test"):
        records = load(raw / "CMeEE-V2" / f"CMeEE-V2_{split}.json")
        save(raw / "CMeEE" / f"CMeEE_{split}.json", [*records, {"text": "多一句", "entities": []}])
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert found.passed_over["CMeEE/CMeEE_train.json"] == "another version of CMeEE-V2 is read"


def test_an_archive_beside_its_folder(raw: Path, clean: Survey) -> None:
    with zipfile.ZipFile(raw / "KUAKE-QIC.zip", "w") as archive:
        for path in (raw / "KUAKE-QIC").iterdir():
            archive.write(path, f"KUAKE-QIC/{path.name}")
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert found.passed_over["KUAKE-QIC.zip/KUAKE-QIC/KUAKE-QIC_dev.json"].startswith("identical to ")


def test_clutter_is_passed_over_and_named(raw: Path, clean: Survey) -> None:
    shutil.copytree(raw / "CHIP-CTC", raw / "CHIP-CTC/CHIP-CTC")
    (raw / "CHIP-CTC/README.txt").write_text("说明", encoding="utf-8")
    save(raw / "CHIP-CTC/example_gold.json", [])
    save(raw / "results/KUAKE-QIC_test.json", [{"id": "s1", "query": "甲", "label": "治疗方案"}])
    save(raw / "my submission/CHIP-STS_test.json", [{"id": "1", "text1": "甲", "text2": "乙", "label": "1"}])
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert found.passed_over["results/KUAKE-QIC_test.json"] == "in a folder of results"
    assert "is taken in its place" in found.passed_over["my submission/CHIP-STS_test.json"]
    assert set(found.passed_over) >= {"CHIP-CTC/README.txt", "CHIP-CTC/example_gold.json"}
    assert len(found.passed_over) == 4 + 3


def test_files_that_differ_are_named_with_the_option_that_chooses(raw: Path, clean: Survey) -> None:
    records = load(raw / "KUAKE-QIC/KUAKE-QIC_dev.json")
    with zipfile.ZipFile(raw / "new.zip", "w") as archive:
        archive.writestr("KUAKE-QIC/KUAKE-QIC_dev.json", json.dumps(records[:1]))
    with pytest.raises(PromptCBLUEError) as caught:
        Survey.of(raw)
    for word in ("--use", f"{raw}/KUAKE-QIC/KUAKE-QIC_dev.json", f"{raw}/new.zip/KUAKE-QIC/KUAKE-QIC_dev.json"):
        assert word in str(caught.value)
    assert Survey.of(raw, (raw / "KUAKE-QIC",)).same_as(clean)
    assert len(Survey.of(raw, (raw / "new.zip",)).samples["KUAKE-QIC"]) == len(clean.samples["KUAKE-QIC"]) - (
        len(records) - 1
    )


def test_quotes_and_no_term_of_normalization(raw: Path, tmp_path: Path) -> None:
    def quoted(records: Any) -> None:
        term = records[0]["normalized_result"].split("##")[0]
        records[0] = {"text": '"甲病,乙病"', "normalized_result": f'"{term}##某某恶性肿瘤,不可归类在他处者"'}
        records[1] = {"text": "丙病", "normalized_result": f'{term}##O##"丁,""戊"""'}
        records[2] = {"text": "己病", "normalized_result": "O"}

    change(raw / "CHIP-CDN/CHIP-CDN_train.json", quoted)
    found = Survey.of(raw)
    first, second, third = found.samples["CHIP-CDN"][:3]
    assert first.fields["INPUT_TEXT"] == "甲病,乙病"
    assert [item["entity"] for item in first.answer][1:] == ["某某恶性肿瘤,不可归类在他处者"]
    assert [item["entity"] for item in second.answer] == [first.answer[0]["entity"], '丁,"戊"']
    assert third.answer == []
    assert found.flaws["mended", "CSV quotes"] == 3
    assert found.flaws["mended", "the term O: no term"] == 2
    assert found.flaws["kept", "a term that the sheet does not have"] == 2
    build(raw, tmp_path / "out", Plan(parse_sizes("30,0,0", ["CHIP-CDN"])), workers=1, cache=False)
    for row in load_samples(tmp_path / "out", "train"):
        assert "O" not in row["target"].split("，")
        assert '甲病,乙病"' not in row["input"]
        right = [item["entity"] for content in found.samples["CHIP-CDN"][:1] for item in content.answer]
        if "甲病,乙病" in row["input"]:
            offered = set(row["answer_choices"] or ()).intersection(right)
            assert row["target"] == "没有对应的标准化实体" if not offered else offered == set(right)


def test_a_finding_without_a_status_is_left_out(raw: Path, clean: Survey) -> None:
    def change_findings(records: Any) -> None:
        turns = [turn for turn in records[0]["dialog_info"] if turn.get("ner")]
        turns[0]["ner"][0]["attr"] = ""
        again = dict(turns[-1]["ner"][-1])
        again["attr"] = "阴性" if again["attr"] != "阴性" else "阳性"
        turns[-1]["ner"].append(again)

    change(raw / "CHIP-MDCFNPC/CHIP-MDCFNPC_train.jsonl", change_findings)
    found = Survey.of(raw)
    assert not found.bad
    assert found.flaws["left out", "a finding without a status"] == 1
    several = "mended", "a mention with several statuses: the last taken"
    assert found.flaws[several] == clean.flaws[several] + 1
    assert len(found.samples["CHIP-MDCFNPC"]) == len(clean.samples["CHIP-MDCFNPC"])


def test_other_labels_of_query_pairs(raw: Path) -> None:
    def unknown(records: Any) -> None:
        records[0]["label"] = "NA"

    change(raw / "KUAKE-QQR/KUAKE-QQR_dev.json", unknown)
    found = Survey.of(raw)
    assert found.flaws["mended", "label NA: read as 0"] == 1
    for split in ("train", "dev"):
        path = raw / f"KUAKE-QQR/KUAKE-QQR_{split}.json"
        change(path, lambda records: [record for record in records if record["label"] != "-1"])
    found = Survey.of(raw)
    assert "three labels" in found.refused["KUAKE-QQR"]
    assert "KUAKE-QQR" not in found.samples
    assert len(found.samples) == 15


def test_a_pointer_is_named_with_what_to_do(raw: Path, clean: Survey) -> None:
    path = raw / "CHIP-STS/CHIP-STS_train.json"
    data = path.read_bytes()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", encoding="utf-8")
    found = Survey.of(raw)
    (message,) = found.bad
    assert str(path) in message
    assert "git lfs pull" in message
    # The data elsewhere are read in its place.
    (raw / "download").mkdir()
    (raw / "download/CHIP-STS_train.json").write_bytes(data)
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert found.passed_over == {"CHIP-STS/CHIP-STS_train.json": "a git-lfs pointer"}


def test_other_forms_of_files(raw: Path, clean: Survey) -> None:
    for split in ("train", "dev", "test"):
        old = raw / f"CMeIE/CMeIE_{split}.jsonl"
        records = load(old)
        for record in records:
            for triple in record.get("spo_list", ()):
                triple["object"] = triple["object"]["@value"]
        old.unlink()
        (raw / f"CMeIE/CMeIE_{split}.json").write_text(
            "".join(json.dumps(record) + "\r\n" for record in records), encoding="utf-8"
        )
        path = raw / f"KUAKE-QTR/KUAKE-QTR_{split}.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    save(raw / "CHIP-CTC/CHIP-CTC_test.json", [{"id": "s1", "text": "年龄18岁以上", "label": ""}])
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert not found.bad
    assert found.flaws["mended", "carriage return at the end of the line"] > 0


def test_white_space_and_line_ends_are_mended_and_counted(raw: Path, clean: Survey) -> None:
    def spread(records: Any) -> None:
        records[0]["query"] = f" {records[0]['query']}\n"

    change(raw / "KUAKE-QIC/KUAKE-QIC_train.json", spread)
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert found.flaws["mended", "white space at an end of the text"] == 1


#: The field of an answer that a test file may carry empty in every record.
EMPTY = {
    "CMeEE-V2": "entities",
    "CMeIE": "spo_list",
    "CHIP-CDEE": "event",
    "CMedCausal": "relation_of_mention",
    "Text2DT": "tree",
}


def test_answers_that_are_empty_in_every_record_are_no_labels(raw: Path, clean: Survey) -> None:
    for corpus, name in EMPTY.items():
        (path,) = (raw / corpus).glob("*_test.json*")
        save(path, [{**record, name: []} for record in load(path)])

    def no_findings(dialogues: Any) -> None:
        for turn in (turn for dialogue in dialogues for turn in dialogue["dialog_info"]):
            turn["ner"] = []

    def no_entities(dialogues: Any) -> None:
        for turn in (turn for dialogue in dialogues.values() for turn in dialogue["dialogue"]):
            turn["BIO_label"] = " ".join("O" * len(turn["sentence"]))

    change(raw / "CHIP-MDCFNPC/CHIP-MDCFNPC_test.jsonl", no_findings)
    change(raw / "IMCS-V2/IMCS-V2_test.json", no_entities)
    (raw / "KUAKE-IR/KUAKE-IR_test.tsv").write_text("q1\t\nq2\t\n", encoding="utf-8")
    (raw / "KUAKE-IR/KUAKE-IR_test_query.txt").write_text("q1\t咳嗽\nq2\t发热\n", encoding="utf-8")
    found = Survey.of(raw)
    assert found.same_as(clean)
    assert not found.bad
    assert found.flaws["left out", "no labels"] >= clean.flaws["left out", "no labels"]
    # In a file with answers, a record without one says that there is nothing to find.
    change(raw / "CMeEE-V2/CMeEE-V2_train.json", lambda records: [*records, {"text": "没有实体。", "entities": []}])
    assert len(Survey.of(raw).samples["CMeEE-V2"]) == len(clean.samples["CMeEE-V2"]) + 1


def test_odd_records_are_all_listed_and_the_rest_is_read(raw: Path, clean: Survey) -> None:
    odd = [None, 3, {}, {"query": "甲"}, {"query": None, "label": "其他"}, {"query": "甲", "label": ["其他"]}]
    change(raw / "KUAKE-QIC/KUAKE-QIC_train.json", lambda records: [*odd, *records])

    def untagged(dialogues: Any) -> None:
        first = next(iter(dialogues.values()))["dialogue"][0]
        first["BIO_label"] = "O"
        first["dialogue_act"] = "Weather"

    change(raw / "IMCS-V2/IMCS-V2_train.json", untagged)
    found = Survey.of(raw)
    assert len(found.samples["KUAKE-QIC"]) == len(clean.samples["KUAKE-QIC"])
    assert [message for message in found.bad if "QIC" in message and "record" in message] == [
        message for message in found.bad if "QIC" in message
    ]
    # What has no label is no fault; what is no object, has no text or no known label is one.
    assert len([message for message in found.bad if "QIC" in message]) == 5
    assert len(found.samples["IMCS-V2-NER"]) == len(clean.samples["IMCS-V2-NER"]) - 1
    assert len(found.samples["IMCS-V2-DAC"]) == len(clean.samples["IMCS-V2-DAC"]) - 1
    assert len(found.samples["IMCS-V2-MRG"]) == len(clean.samples["IMCS-V2-MRG"])


def test_links_to_folders_are_followed_and_end(tmp_path: Path, clean: Survey) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for corpus in RAW.iterdir():
        (raw / corpus.name).symlink_to(corpus)
    (raw / "loop").symlink_to(raw)
    assert Survey.of(raw).same_as(clean)


def test_other_encodings_and_halves_of_characters_are_named(raw: Path, clean: Survey) -> None:
    for name in ("CHIP-CTC/CHIP-CTC_train.json", "KUAKE-IR/KUAKE-IR_train_query.txt"):
        (raw / name).write_bytes((raw / name).read_text(encoding="utf-8").encode("gb18030"))
    (raw / "CHIP-STS/CHIP-STS_train.json").write_text("", encoding="utf-8")

    def half(records: Any) -> None:
        records[0]["query"] = "\ud83d甲"
        records[1]["query"] += "\U0001f600"

    change(raw / "KUAKE-QIC/KUAKE-QIC_train.json", half)
    found = Survey.of(raw)
    assert "UTF-8" in found.refused["KUAKE-IR"]
    assert [message for message in found.bad if "CHIP-CTC_train.json" in message and "UTF-8" in message]
    assert [message for message in found.bad if "KUAKE-QIC_train.json: record 1: " in message]
    assert len(found.bad) == 2
    assert len(found.samples["KUAKE-QIC"]) == len(clean.samples["KUAKE-QIC"]) - 1
    assert found.flaws["left out", "the file is empty"] == 1


def rename(old: str, new: str) -> Callable[[Path], None]:
    def renamed(raw: Path) -> None:
        for path in list(raw.rglob(f"{old}*.*")):
            path.rename(path.with_name(path.name.replace(old, new)))

    return renamed


def rewrite(name: str, how: Callable[[str], str]) -> Callable[[Path], None]:
    def written(raw: Path) -> None:
        text = (raw / name).read_text(encoding="utf-8")
        (raw / name).write_text(how(text), encoding="utf-8")

    return written


def as_lines(text: str, before: str = "", after: str = "\n") -> str:
    return "\n".join(before + json.dumps(record, ensure_ascii=False) + after for record in json.loads(text))


def packed(raw: Path) -> None:
    """A tar in a zip, a zip in a tar, and a file that is packed alone."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        tar.add(raw / "KUAKE-QIC", "KUAKE-QIC")
    with zipfile.ZipFile(raw / "all.zip", "w") as archive:
        archive.writestr("in/KUAKE-QIC.tar.gz", inner.getvalue())
        archive.writestr("__MACOSX/in/._KUAKE-QIC.tar.gz", b"junk")
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for path in (raw / "KUAKE-QTR").iterdir():
            archive.write(path, path.name)
    with tarfile.open(raw / "more.tar", "w") as tar:
        member = tarfile.TarInfo("in/KUAKE-QTR.zip")
        member.size = len(inner.getvalue())
        tar.addfile(member, io.BytesIO(inner.getvalue()))
    path = raw / "CHIP-CTC/CHIP-CTC_train.json"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    shutil.rmtree(raw / "KUAKE-QIC")
    shutil.rmtree(raw / "KUAKE-QTR")


def documents(raw: Path) -> None:
    """Byte order marks, headers, grades and blanks in tables."""
    folder = raw / "KUAKE-IR"
    rewrite("KUAKE-IR/corpus.tsv", lambda text: "\ufeff" + text.replace("\t", " \t"))(raw)
    rewrite("KUAKE-IR/KUAKE-IR_train_query.txt", lambda text: "\ufeffqid\tquery\n" + text)(raw)
    lines = (folder / "KUAKE-IR_train.tsv").read_text(encoding="utf-8").split()
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    rows = ["qid\t0\tdocid\tgrade", *(f"{query}\t0\t{document}\t1" for query, document in pairs), "q1\t0\td4\t0"]
    (folder / "KUAKE-IR_train.tsv").write_text("\r\n".join(rows), encoding="utf-8")


def sheet(raw: Path) -> None:
    """The sheet as a table of text, with the lock of a program that has it open."""
    (path,) = (raw / "CHIP-CDN").glob("*.xlsx")
    rows = list(load_workbook(path).active.iter_rows(values_only=True))
    path.with_name(f"~${path.name}").write_bytes(b"\5user")
    path.unlink()
    with (raw / "CHIP-CDN/ICD-10.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows(rows)


def entities(kind: Callable[[int], object]) -> Callable[[Path], None]:
    def changed(raw: Path) -> None:
        records = load(raw / "CMeEE-V2/CMeEE-V2_train.json")
        for entity in (entity for record in records for entity in record.get("entities", ())):
            entity |= {name: kind(entity[name]) for name in ("start_idx", "end_idx")}
        save(raw / "CMeEE-V2/CMeEE-V2_train.json", records)

    return changed


def wide(text: str) -> str:
    """Digits and hyphens as wide as Chinese characters."""
    return text.translate({**{48 + n: 0xFF10 + n for n in range(10)}, ord("-"): "－"})


def labels(task: str, kind: Callable[[str], object]) -> Callable[[Path], None]:
    def changed(raw: Path) -> None:
        path = raw / task / f"{task}_train.json"
        save(path, [{**record, "label": kind(record["label"])} for record in load(path)])

    return changed


def lists_of_terms(raw: Path) -> None:
    path = raw / "CHIP-CDN/CHIP-CDN_train.json"
    save(path, [{**r, "normalized_result": r["normalized_result"].split("##")} for r in load(path)])


def nulls(raw: Path) -> None:
    records = load(raw / "CHIP-CDEE/CHIP-CDEE_train.json")
    for event in (event for record in records for event in record["event"]):
        event |= {name: value or None for name, value in event.items()}
    save(raw / "CHIP-CDEE/CHIP-CDEE_train.json", records)


QIC = "KUAKE-QIC/KUAKE-QIC_train.json"
NUMBERS = "a whole number written in another way"
#: Ways in which raw files are otherwise than they should be and say the same, each with the flaw that is counted.
SAME: dict[str, tuple[Callable[[Path], Any], str]] = {
    "archives in archives": (packed, ""),
    "a split in Chinese": (rename("KUAKE-QIC_train", "KUAKE-QIC_训练集"), ""),
    "another name of a split": (rename("KUAKE-QIC_dev", "kuake-qic_Val"), ""),
    "other hyphens": (rename("KUAKE-QIC", "KUAKE_QIC"), ""),
    "a split's name alone": (rename("KUAKE-QIC_", ""), ""),
    "downloaded twice": (rename("KUAKE-QIC_train", "KUAKE-QIC_train (1)"), ""),
    "tables": (documents, "a document marked as not relevant"),
    "a sheet of text": (sheet, ""),
    "lines with blanks": (rewrite(QIC, lambda text: "\n \n" + as_lines(text, " ")), ""),
    "lines with commas": (rewrite(QIC, lambda text: as_lines(text, after=",")), "comma at the end of the line"),
    "lines of lists": (rewrite("MedDG/MedDG_train.json", as_lines), ""),
    "a list in an object": (rewrite(QIC, lambda text: f'{{"version": "1", "data": {text}}}'), ""),
    "UTF-16": (lambda raw: (raw / QIC).write_bytes((raw / QIC).read_text("utf-8").encode("utf-16")), ""),
    "numbers as text": (entities(str), NUMBERS),
    "numbers as fractions": (entities(float), NUMBERS),
    "wide numbers": (entities(lambda number: wide(str(number))), NUMBERS),
    "labels as numbers": (labels("KUAKE-QTR", int), ""),
    "labels as fractions": (labels("KUAKE-QTR", float), NUMBERS),
    "wide labels": (labels("KUAKE-QQR", wide), "label －１: read as -1"),
    "lists of terms": (lists_of_terms, ""),
    "nulls": (nulls, ""),
}


@pytest.mark.parametrize("way", SAME)
def test_what_says_the_same_in_another_way_gives_the_same(raw: Path, clean: Survey, way: str) -> None:
    make, flaw = SAME[way]
    make(raw)
    found = Survey.of(raw)
    assert not found.bad
    assert not found.refused
    assert found.same_as(clean), way
    assert not flaw or flaw in {kind for _, kind in found.flaws}


@pytest.mark.parametrize("name", ["KUAKE-QIC/KUAKE-QIC_train.json", "KUAKE-IR/corpus.tsv"])
def test_another_encoding_is_named_with_what_to_do(raw: Path, name: str) -> None:
    (raw / name).write_bytes((raw / name).read_text(encoding="utf-8").encode("gb18030"))
    found = Survey.of(raw)
    (message,) = [*found.bad, *found.refused.values()]
    assert name in message
    assert "iconv" in message


def test_nothing_is_passed_over_in_silence(raw: Path) -> None:
    shutil.rmtree(raw / "KUAKE-QIC")
    (raw / "KUAKE-QIC.rar").write_bytes(b"Rar!")
    records = load(raw / "KUAKE-QTR/KUAKE-QTR_train.json")
    save(
        raw / "KUAKE-QTR/KUAKE-QTR_train.json",
        {name: {str(n): r[name] for n, r in enumerate(records)} for name in records[0]},
    )
    found = Survey.of(raw)
    assert "unpack" in found.passed_over["KUAKE-QIC.rar"]
    assert all("field 'query'" in message for message in found.bad)
    assert len(found.bad) == len(records[0])


@pytest.fixture(scope="module")
def cases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the shared script makes."""
    script = shared / "tools" / "make_dirty_cblue.py"
    if not script.is_file():
        pytest.skip("the script that makes dirty folders is not there")
    output = tmp_path_factory.mktemp("cases")
    runpy.run_path(str(script))["main"](RAW, output)
    return output


#: Tasks that a dirty folder does not give, by its name.
WITHOUT = {
    "dac-as-lists": {"IMCS-V2-NER", "IMCS-V2-SR", "IMCS-V2-MRG"},
    "qqr-old": {"KUAKE-QQR"},
}


def test_the_shared_dirty_folders(cases: Path, tmp_path: Path) -> None:
    names = json.loads((cases / "cases.json").read_text(encoding="utf-8"))
    assert len(names) >= 13
    plan = Plan(parse_sizes("1,1,1", list(TASKS)), skip_bad=True)
    for name in names:
        found = Survey.of(cases / name)
        assert set(TASKS) - set(found.samples) == WITHOUT.get(name, set()), name
        assert len(found.bad) == (name == "lfs-pointer"), name
        built = build(cases / name, tmp_path / name, plan, workers=1, cache=False)
        assert set(built.missing) == WITHOUT.get(name, set()), name
        assert len(built.bad) == (name in ("lfs-pointer", "qqr-old")), name
