"""Building from the small raw corpora in raw/: what comes out, and what must never."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptcblue_dataset.build import Built, build, import_files, parse_sizes
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.making import Plan
from promptcblue_dataset.neighbours import Candidates, Neighbours
from promptcblue_dataset.prompts.render import PAPER, RELEASED, Style, write
from promptcblue_metric import TASKS, Evaluation
from promptcblue_metric.answers import Label
from promptcblue_metric.data.samples import Sample, load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.submit.cblue import check_file, write_cblue
from promptcblue_metric.tasks import NONE_OF_THESE, SUITES, get_task

RAW = Path(__file__).parent / "raw"
SPLITS = ("train", "validation", "test")
SYMPTOM = {"start_idx": 0, "end_idx": 1, "type": "sym"}


def plan(sizes: str = "12,4,4", tasks: Sequence[str] = tuple(TASKS), **options: Any) -> Plan:
    return Plan(parse_sizes(sizes, tasks), **options)


def make(output: Path, a_plan: Plan, raw: Path = RAW, **options: Any) -> Built:
    return build(raw, output, a_plan, **{"workers": 1, "cache": False, **options})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "promptcblue"
    make(output, plan())
    return output


def rows(folder: Path, task: str, split: str = "train") -> list[Sample]:
    return load_samples(folder, split, [task])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("split", SPLITS)
def test_every_config_has_the_rows_asked_for(built: Path, split: str) -> None:
    counts = {task: len(rows(built, task, split)) for task in TASKS}
    assert counts == dict.fromkeys(TASKS, 12 if split == "train" else 4)


def test_the_result_passes_the_checks_of_import(built: Path, tmp_path: Path) -> None:
    official = tmp_path / "official"
    official.mkdir()
    for split, name in zip(SPLITS, ("train", "dev", "test"), strict=True):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in load_samples(built, split))
        (official / f"{name}.json").write_text("".join(lines), encoding="utf-8")
    imported = import_files(official, tmp_path / "imported", cache=False)
    assert not imported.checked.bad
    assert list(imported.checked.samples) == list(TASKS)
    assert sum(sum(splits.values()) for splits in imported.counts().values()) == 16 * 20


def test_targets_scored_against_themselves_are_perfect(built: Path) -> None:
    for split in SPLITS:
        evaluation = Evaluation()
        for row in load_samples(built, split):
            evaluation.add(row["target"], row)
        scores = {name: task["score"] for name, task in evaluation.result()["tasks"].items()}
        assert scores == pytest.approx(dict.fromkeys(TASKS, 1.0))


def test_two_workers_give_the_bytes_of_one(built: Path, tmp_path: Path) -> None:
    make(tmp_path / "two", plan(), workers=2)
    assert files(tmp_path / "two") == files(built)


def test_the_seed_decides(tmp_path: Path) -> None:
    tasks = ("CHIP-STS", "IMCS-V2-SR")
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    make(one, plan(tasks=tasks, seed=7))
    make(two, plan(tasks=tasks, seed=7))
    make(three, plan(tasks=tasks, seed=8))
    assert files(one) == files(two)
    assert load_samples(one, "train") != load_samples(three, "train")


def test_a_task_does_not_depend_on_the_others(built: Path, tmp_path: Path) -> None:
    make(tmp_path / "alone", plan(tasks=("CHIP-CDN",)))
    assert rows(tmp_path / "alone", "CHIP-CDN") == rows(built, "CHIP-CDN")


def test_no_prompt_is_drawn_twice_and_no_raw_text_is_in_two_splits(built: Path) -> None:
    for task in TASKS:
        prompts = [row["input"] for split in SPLITS for row in rows(built, task, split)]
        assert len(prompts) == len(set(prompts))
    texts = {item["text"] for item in json.loads((RAW / "CMeEE-V2/CMeEE-V2_dev.json").read_text(encoding="utf-8"))}
    held = {
        split: {text for text in texts if any(text in row["input"] for row in rows(built, "CMeEE-V2", split))}
        for split in SPLITS
    }
    assert not held["train"]
    assert held["validation"]
    assert held["test"]
    assert not held["validation"] & held["test"]


def test_the_tasks_of_a_corpus_share_their_splits(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("100", [task for task in TASKS if task.startswith("IMCS")]))
    dialogues = json.loads((RAW / "IMCS-V2/IMCS-V2_dev.json").read_text(encoding="utf-8"))
    spoken = {key: {turn["sentence"] for turn in value["dialogue"]} for key, value in dialogues.items()}

    def homes(task: str, split: str) -> set[str]:
        prompts = "\n".join(row["input"] for row in rows(tmp_path / "out", task, split))
        return {key for key, said in spoken.items() if any(len(text) > 5 and text in prompts for text in said)}

    for task in ("IMCS-V2-NER", "IMCS-V2-DAC", "IMCS-V2-MRG"):
        assert not homes(task, "validation") & homes("IMCS-V2-MRG", "test")
        assert homes(task, "validation")


def test_equal_and_nearly_equal_raw_texts_stay_in_one_split(tmp_path: Path) -> None:
    sentence = "患儿入院后给予吸氧、补液、退热等对症治疗，三天后体温恢复正常，精神好转，咳嗽明显减轻。"
    near = sentence.replace("三天", "四天")
    raw = tmp_path / "raw"
    raw.mkdir()
    for split, texts in (("train", [sentence + " ", near, "全然不同的另一句话，说的是随访。"]), ("dev", [sentence])):
        records = [{"text": text, "entities": [SYMPTOM]} for text in texts]
        (raw / f"CMeEE-V2_{split}.json").write_text(json.dumps(records), encoding="utf-8")
    done = make(tmp_path / "out", plan("100,0,100", ["CMeEE-V2"]), raw)
    counts = done.tasks["CMeEE-V2"].counts["train"]
    assert counts["raw samples left out: equal to one of an earlier split"] == 1
    assert counts["raw samples left out: nearly equal to one of an earlier split"] == 1
    assert {"随访" in row["input"] for row in rows(tmp_path / "out", "CMeEE-V2")} == {True}


def test_labels_that_are_not_offered_are_answered_with_none_of_these(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("200,0,0", ["CHIP-CTC", "KUAKE-QIC", "IMCS-V2-DAC"]))
    for task in ("CHIP-CTC", "KUAKE-QIC", "IMCS-V2-DAC"):
        found = rows(tmp_path / "out", task)
        answers = {row["target"] for row in found}
        assert NONE_OF_THESE in answers
        assert len(answers) > 3
        for row in found:
            assert row["answer_choices"] is not None
            assert NONE_OF_THESE not in row["answer_choices"]
            assert (row["target"] in row["answer_choices"]) != (row["target"] == NONE_OF_THESE)
            assert "，".join(row["answer_choices"]) in row["input"]


def test_candidates_are_10_to_30_wrong_terms_and_mostly_the_right_ones(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("48,0,0", ["CHIP-CDN"]))
    raw = json.loads((RAW / "CHIP-CDN/CHIP-CDN_train.json").read_text(encoding="utf-8"))
    right = {item["text"]: item["normalized_result"].split("##") for item in raw}
    kept = 0
    found = rows(tmp_path / "out", "CHIP-CDN")
    for row in found:
        gold = next(terms for text, terms in right.items() if text in row["input"])
        choices = row["answer_choices"] or []
        assert len(choices) == len(set(choices))
        assert 10 <= len(set(choices) - set(gold)) <= 30
        assert row["target"] == ("，".join(gold) if gold[0] in choices else "没有对应的标准化实体")
        kept += gold[0] in choices
    assert 0.6 < kept / len(found) < 0.95


def test_bm25_ranks_terms_that_share_characters_first() -> None:
    candidates = Candidates(["股骨颈骨折", "急性阑尾炎", "慢性阑尾炎", "白内障"])
    assert candidates.best("阑尾炎急性发作", 2) == ["急性阑尾炎", "慢性阑尾炎"]
    assert candidates.best("zzz", 2) == []
    assert len(candidates.best("炎", 9)) == 2


def test_symptom_samples_show_history_and_current_utterance(built: Path) -> None:
    for row in rows(built, "IMCS-V2-SR"):
        history, _, rest = row["input"].partition("当前对话：\n")
        lines = history.partition("对话历史：\n")[2].splitlines()
        assert len(lines) <= 2
        assert rest.startswith(("患者：", "医生："))
        for line in row["target"].splitlines()[1:]:
            assert line.partition("：")[0] in rest.splitlines()[0]


def test_findings_are_those_of_the_prompts_prefix_with_their_last_status(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("80,0,0", ["CHIP-MDCFNPC"]))
    found = [row for row in rows(tmp_path / "out", "CHIP-MDCFNPC") if "反酸" in row["input"]]
    whole = [row for row in found if "患者：不恶心" in row["input"]]
    assert 0 < len(whole) < len(found)
    assert all("恶心：未患有症状疾病" in row["target"].splitlines() for row in whole)
    assert not any("恶心：未患有症状疾病" in row["target"] for row in found if row not in whole)
    for row in found:
        for line in row["target"].splitlines()[1:]:
            assert line.partition("：")[0] in row["input"]


def test_no_prompt_asks_for_more_than_eight_findings(tmp_path: Path) -> None:
    findings = [{"mention": f"症状{letter}", "attr": "阳性"} for letter in "甲乙丙丁戊己庚辛壬癸"]
    turns = [{"sender": "患者", "text": finding["mention"], "ner": [finding]} for finding in findings]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/CHIP-MDCFNPC_train.json").write_text(json.dumps([{"dialog_info": turns}]), encoding="utf-8")
    make(tmp_path / "out", plan("60,0,0", ["CHIP-MDCFNPC"]), tmp_path / "raw")
    sizes = set()
    for row in rows(tmp_path / "out", "CHIP-MDCFNPC"):
        asked = [line.partition("：")[0] for line in row["target"].splitlines()[1:]]
        assert asked == sorted(asked, key=row["input"].index)
        sizes.add(len(asked))
    assert sizes == set(range(1, 9))


def test_a_profile_follows_the_paper_or_the_released_samples(tmp_path: Path) -> None:
    for profile, most in ((PAPER, 32), (RELEASED, 14)):
        make(tmp_path / profile, plan("48,0,0", ["CHIP-CDN"], style=Style(profile=profile)))
        offered = [len(row["answer_choices"] or ()) for row in rows(tmp_path / profile, "CHIP-CDN")]
        assert max(offered) <= most
        assert min(offered) >= (10 if profile == PAPER else 2)
        assert f"released\nsamples were drawn{'' if profile == PAPER else ', and'}" in (
            tmp_path / profile / "README.md"
        ).read_text(encoding="utf-8")


def test_some_prompts_ask_for_no_relation_of_the_text(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("80,0,0", ["CMeIE"]))
    targets = [row["target"] for row in rows(tmp_path / "out", "CMeIE")]
    assert 0.1 < targets.count("没有指定类型的三元组") / len(targets) < 0.5


def test_similarity_answers_are_spelt_as_the_template_spells_them(built: Path) -> None:
    spellings = {tuple(row["answer_choices"] or ()) for row in rows(built, "CHIP-STS")}
    assert spellings == {("是的", "不是"), ("相同", "不同")}
    for row in rows(built, "CHIP-STS"):
        assert row["target"] in (row["answer_choices"] or ())
        assert "，".join(row["answer_choices"] or ()) in row["input"]


def test_separators_in_answers_are_written_and_counted_or_left_out(tmp_path: Path) -> None:
    tasks = ["CMeEE-V2", "CHIP-CDEE"]
    kept = make(tmp_path / "kept", plan("72,0,0", tasks))
    dropped = make(tmp_path / "dropped", plan("72,0,0", tasks, drop_separators=True))
    key = "rows with a separator in the answer"
    for task in tasks:
        count = kept.tasks[task].counts["train"][key]
        assert count > 0
        assert dropped.tasks[task].counts["train"][key] == 0
        assert dropped.tasks[task].counts["train"]["rows left out: separator in the answer"] == count
    joined = "临床表现实体：发热，体温39度，寒战"
    assert any(joined in row["target"] for row in rows(tmp_path / "kept", "CMeEE-V2"))
    assert not any(joined in row["target"] for row in rows(tmp_path / "dropped", "CMeEE-V2"))


def test_the_papers_dialect(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("40,0,0", ["CMeEE-V2", "CMeIE", "CHIP-CDEE", "KUAKE-QQR"], style=Style(PAPER)))
    for row in rows(tmp_path / "out", "CMeEE-V2"):
        assert len(row["target"].splitlines()) == 1 + len(row["answer_choices"] or ())
        assert not any(line.endswith("实体：") for line in row["target"].splitlines())
    for row in rows(tmp_path / "out", "CMeIE"):
        heads = [f"上述句子中{relation}关系的实体对如下：" for relation in row["answer_choices"] or ()]
        assert row["target"].splitlines()[::2] == heads
    events = [line for row in rows(tmp_path / "out", "CHIP-CDEE") for line in row["target"].splitlines()[1:]]
    assert "主体词：发热；发生状态：否定；描述词：无；解剖部位：无" in events
    labels = {label for row in rows(tmp_path / "out", "KUAKE-QQR") for label in row["answer_choices"] or ()}
    assert "语义毫无关联" in labels
    assert "语义无直接关联" not in labels
    assert {row["target"] for row in rows(tmp_path / "out", "KUAKE-QQR")} <= labels


def test_a_triple_in_the_papers_words() -> None:
    answer = [{"predicate": "并发症", "subject": "胃溃疡", "object": "出血"}]
    text = write(TASKS["CMeIE"], answer, ["同义词", "并发症"], PAPER)
    assert text.text == (
        "上述句子中同义词关系的实体对如下：\n无\n上述句子中并发症关系的实体对如下：\n头实体：胃溃疡，尾实体：出血；"
    )
    assert not text.separators
    answer[0]["object"] = "出血；穿孔"
    assert write(TASKS["CMeIE"], answer, ["并发症"], PAPER).separators


@pytest.mark.parametrize(
    ("style", "phrase"),
    [
        (Style(explain_labels=True), "疾病：各种病名"),
        (Style(format_spec=True), "答案的格式：第一行写“上述句子中的实体包含：”"),
        (Style(step_by_step=True), "逐个类型查找实体"),
    ],
)
def test_each_additional_content_has_its_switch(built: Path, tmp_path: Path, style: Style, phrase: str) -> None:
    make(tmp_path / "out", plan(tasks=["CMeEE-V2"], style=style))
    plain, extended = rows(built, "CMeEE-V2"), rows(tmp_path / "out", "CMeEE-V2")
    assert not any(phrase in row["input"] for row in plain)
    assert any(phrase in row["input"] for row in extended)
    for before, after in zip(plain, extended, strict=True):
        # Only the prompt grows, and what asks for the answer stays last.
        assert {**after, "input": ""} == {**before, "input": ""}
        assert set(before["input"].splitlines()) <= set(after["input"].splitlines())
        if before["input"].endswith("回答："):
            assert after["input"].endswith("\n回答：")


def test_a_pool_of_the_official_form_takes_the_place_of_ours(tmp_path: Path) -> None:
    pool = tmp_path / "templates.json"
    pool.write_text(
        json.dumps({"CHIP-STC": ["“[INPUT_TEXT_1]”和“[INPUT_TEXT_2]”一样吗？\\n选项：相同，不同\\n答："]}),
        encoding="utf-8",
    )
    done = make(tmp_path / "out", plan(tasks=["CHIP-STS", "CMeEE-V2"], templates=pool))
    found = rows(tmp_path / "out", "CHIP-STS")
    assert all(row["input"].endswith("一样吗？\n选项：相同，不同\n答：") for row in found)
    assert done.missing == ["CMeEE-V2"]


def test_the_official_pool_builds_every_task(tmp_path: Path, shared: Path) -> None:
    templates = shared / "data" / "promptcblue_toy" / "templates.json"
    done = make(tmp_path / "out", plan("6,2,2", templates=templates))
    assert list(done.tasks) == list(TASKS)
    assert not any("[" in str(row["input"]) for row in load_samples(tmp_path / "out", "train"))


def test_placeholders_in_raw_text_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    text = "病历中写着[LIST_LABELS]和[INPUT_TEXT]。"
    (tmp_path / "raw/CMeEE-V2_train.json").write_text(json.dumps([{"text": text, "entities": [SYMPTOM]}]))
    make(tmp_path / "out", plan("9,0,0", ["CMeEE-V2"]), tmp_path / "raw")
    assert all(text in row["input"] for row in rows(tmp_path / "out", "CMeEE-V2"))


def test_sizes() -> None:
    assert parse_sizes("paper", ["CHIP-CTC"]) == {"CHIP-CTC": {"train": 6600, "validation": 704, "test": 704}}
    assert parse_sizes("5", ["MedDG"]) == {"MedDG": {"train": 5, "validation": 5, "test": 5}}
    for wrong in ("1,2", "-3", "0", "no-such-file.json"):
        with pytest.raises(PromptCBLUEError):
            parse_sizes(wrong, ["MedDG"])
    for wrong in ("-5", "abc", "5,x,1", "9" * 300 + ".json"):
        with pytest.raises(PromptCBLUEError, match=rf"expected `paper`, N, .* found '{wrong:.80}', which is no file"):
            parse_sizes(wrong, ["MedDG"])


def test_sizes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    path.write_text('{"CMeIE-V2": [3, 2, 1]}', encoding="utf-8")
    sizes = parse_sizes(str(path), ["CMeIE", "MedDG"])
    assert sizes["CMeIE"] == {"train": 3, "validation": 2, "test": 1}
    assert sizes["MedDG"]["train"] == 5000


def test_a_pool_that_is_too_small_gives_all_it_has_and_says_so(tmp_path: Path) -> None:
    done = make(tmp_path / "out", plan("500", ["CHIP-STS"]))
    counts = done.tasks["CHIP-STS"].counts["train"]
    assert counts["rows"] == counts["raw samples"] * counts["templates"] == 40
    assert json.loads(done.report.read_text(encoding="utf-8"))["tasks"]["CHIP-STS"]["splits"]["train"]["rows"] == 40


def test_the_draw_is_uniform_over_templates_and_samples(tmp_path: Path) -> None:
    make(tmp_path / "out", plan("400,0,0", ["KUAKE-QTR"]), many_pairs(tmp_path))
    numbers = [int(row["sample_id"].partition("-")[2]) for row in rows(tmp_path / "out", "KUAKE-QTR")]
    for template in range(8):
        assert 30 <= sum(number % 8 == template for number in numbers) <= 70
    halves = sum(number < 8 * 300 for number in numbers)
    assert 150 <= halves <= 250


def many_pairs(folder: Path) -> Path:
    raw = folder / "pairs"
    raw.mkdir()
    records = [{"query": f"第{n}号查询", "title": f"第{n}号标题", "label": str(n % 4)} for n in range(600)]
    (raw / "KUAKE-QTR_train.json").write_text(json.dumps(records), encoding="utf-8")
    return raw


def test_splits_without_a_labelled_file_are_cut_from_train(tmp_path: Path) -> None:
    done = make(tmp_path / "out", plan("80,10,10", ["KUAKE-QTR"]), many_pairs(tmp_path))
    counts = done.tasks["KUAKE-QTR"].counts
    assert [counts[split]["raw samples"] for split in SPLITS] == [480, 60, 60]


def test_a_labelled_test_file_is_the_test_split(tmp_path: Path) -> None:
    raw = many_pairs(tmp_path)
    shutil.copy(raw / "KUAKE-QTR_train.json", raw / "KUAKE-QTR_test.json")
    text = (raw / "KUAKE-QTR_train.json").read_text(encoding="utf-8").replace("\\u53f7", "\\u4e2a")
    (raw / "KUAKE-QTR_train.json").write_text(text, encoding="utf-8")
    make(tmp_path / "out", plan("20,0,20", ["KUAKE-QTR"]), raw)
    assert all("号" in row["input"].replace("号召", "") for row in rows(tmp_path / "out", "KUAKE-QTR", "test"))


def test_missing_corpora_are_named(tmp_path: Path) -> None:
    done = make(tmp_path / "out", plan("9,0,0"), many_pairs(tmp_path))
    assert list(done.tasks) == ["KUAKE-QTR"]
    assert len(done.missing) == 15
    with pytest.raises(PromptCBLUEError, match="MedDG"):
        make(tmp_path / "other", plan("9,0,0", ["MedDG", "KUAKE-QTR"]), tmp_path / "pairs", must_have=["MedDG"])
    with pytest.raises(PromptCBLUEError):
        make(tmp_path / "other", plan("9,0,0"), tmp_path / "out")
    assert not (tmp_path / "other").exists()


def test_bad_records_stop_the_build_or_are_skipped_and_listed(tmp_path: Path) -> None:
    raw = many_pairs(tmp_path)
    records = json.loads((raw / "KUAKE-QTR_train.json").read_text(encoding="utf-8"))
    records[4]["label"] = "7"
    (raw / "KUAKE-QTR_train.json").write_text(json.dumps(records), encoding="utf-8")
    a_plan = plan("20,0,0", ["KUAKE-QTR"])
    with pytest.raises(PromptCBLUEError, match=r"KUAKE-QTR_train\.json: record 5: field 'label'"):
        make(tmp_path / "out", a_plan, raw)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]
    done = make(tmp_path / "out", replace(a_plan, skip_bad=True), raw)
    assert len(done.bad) == 1
    assert len(json.loads(done.report.read_text(encoding="utf-8"))["bad_records"]) == 1


def test_no_more_bad_records_are_skipped_than_the_user_allows(tmp_path: Path) -> None:
    raw = many_pairs(tmp_path)
    records = json.loads((raw / "KUAKE-QTR_train.json").read_text(encoding="utf-8"))
    for place in (4, 6):
        records[place]["label"] = "7"
    (raw / "KUAKE-QTR_train.json").write_text(json.dumps(records), encoding="utf-8")
    a_plan = replace(plan("20,0,0", ["KUAKE-QTR"]), skip_bad=True)
    assert len(make(tmp_path / "out", replace(a_plan, most_bad=2), raw).bad) == 2
    with pytest.raises(PromptCBLUEError, match=r"(?s)2 raw records.*--max-skipped 1.*record 5"):
        make(tmp_path / "other", replace(a_plan, most_bad=1), raw)
    assert not (tmp_path / "other").exists()


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(RAW, raw)
    with (raw / "KUAKE-IR/corpus.tsv").open("a", encoding="utf-8") as stream:
        stream.writelines(f"x{number}\t很长的文档\n" for number in range(3_000_000))
    # A shell may have started the tests with the signal ignored.
    command = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command += "; from promptcblue_dataset.cli import main; main()"
    output = tmp_path / "here" / "promptcblue"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "build", str(raw), "--output", str(output), "--workers", "1", "--no-cache"],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not output.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert list(output.parent.iterdir()) == []


def test_a_killed_build_leaves_no_worker_and_nothing_that_the_next_does_not_clean(tmp_path: Path) -> None:
    output, temporary = tmp_path / "work" / "out", tmp_path / "tmp"
    temporary.mkdir()
    code = "from promptcblue_dataset.cli import main; main()"
    given = ["build", RAW, "--output", output, "--sizes", "400,10,10", "--no-cache", "--workers", "2"]
    command = [sys.executable, "-c", code, *map(str, given)]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list(temporary.iterdir()) and killed.poll() is None:
        time.sleep(0.01)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children")
    while children.is_file() and not children.read_text() and killed.poll() is None:
        time.sleep(0.001)  # until there are workers
    killed.kill()
    killed.communicate(timeout=60)  # to its end, which is when nobody has the pipe any more
    assert list(temporary.iterdir())
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in output.parent.iterdir()) == ["out", "out-build-report.json"]


def test_load_dataset_reads_the_result(built: Path, run_python: Any) -> None:
    code = """
from datasets import load_dataset
rows = load_dataset("promptcblue", "CHIP-CDN")
print({split: len(rows[split]) for split in rows}, len(load_dataset("promptcblue", "all", split="test")))
"""
    done = run_python(code, cwd=built.parent)
    assert done.stdout.strip() == "{'train': 12, 'validation': 4, 'test': 4} 64", done.stderr


@given(st.integers(0, 300), st.integers())
def test_an_order_is_a_permutation(count: int, seed: int) -> None:
    assert sorted(Draws(seed).order(count)) == list(range(count))


def test_draws_are_the_same_everywhere() -> None:
    draws = Draws(0, "CMeEE-V2", "train", 1)
    assert [draws.below(1000) for _ in range(10)] == [931, 449, 991, 946, 936, 571, 0, 741, 282, 265]


@given(st.text(alphabet="咳嗽发热头痛三天", min_size=30, max_size=60))
def test_neighbours_see_through_punctuation_and_width(text: str) -> None:
    neighbours = Neighbours()
    neighbours.add(["无关的一句话", text + "ABC"])
    assert neighbours.find([" ，".join(text) + "ＡｂＣ！", "另一句毫不相干的文字，讲的是别的内容"]) == [(1, 1.0), None]


EDITION = SUITES["promptcblue-chip2023"].tasks


@pytest.fixture
def asked_raw(tmp_path: Path) -> Path:
    """The raw files with test files that ask something of every task."""
    raw = Path(shutil.copytree(RAW, tmp_path / "raw"))
    findings = [{"mention": f"症状{letter}", "range": [0, 3]} for letter in "甲乙丙丁戊己庚辛壬癸"]
    turns = [
        {"sentence_id": n, "sender": "患者", "text": "都有", "ner": [finding]} for n, finding in enumerate(findings)
    ]
    bare = [{"sentence_id": 11, "sender": "患者", "text": "谢谢"}]
    dialogues = [{"dialog_id": "9", "dialog_info": [*turns, *bare]}, {"dialog_id": "10", "dialog_info": bare}]
    (raw / "CHIP-MDCFNPC/CHIP-MDCFNPC_test.jsonl").write_text("\n".join(map(json.dumps, dialogues)), encoding="utf-8")
    (raw / "MedDG/MedDG_test.json").write_text('[{"id": "3", "history": ["患者：恶心"]}]', encoding="utf-8")
    with (raw / "KUAKE-IR/corpus.tsv").open("a", encoding="utf-8") as stream:
        stream.writelines(f"x{number}\t{number}号文档，讲的是{number}种草药。\n" for number in range(12))
    (raw / "KUAKE-IR/KUAKE-IR_test_query.txt").write_text("q8\t智齿要不要拔\nq9\t7号文档\nq10\tzz\n", encoding="utf-8")
    return raw


#: What is an answer where a word is none.
WHOLE = {"IMCS-V2-MRG": "主诉：无", "Text2DT": "节点1：role=D；logical_rel=null；triples=[]"}


def answered(asked: Sequence[Sample], path: Path) -> Path:
    """What a model might say to each prompt."""
    with path.open("w", encoding="utf-8") as stream:
        for sample in asked:
            task = get_task(sample["task_dataset"])
            says = next(iter(sample["answer_choices"] or ())) if isinstance(task.format, Label) else "无"
            says = {"IMCS-V2-MRG": "主诉：无", "Text2DT": "节点1：role=D；logical_rel=null；triples=[]"}.get(
                task.name, says
            )
            fields = {"sample_id": sample["sample_id"], "task_dataset": task.name, "prediction": says}
            stream.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return path


def by_id(path: Path) -> None:
    """Turn a file of records into one object of them, whose keys are their ids."""
    text = path.read_text(encoding="utf-8").strip()
    records = json.loads(text) if text[0] == "[" else [json.loads(line) for line in text.splitlines()]
    if isinstance(records, list):
        field = next((name for name in ("id", "dialog_id") if all(name in record for record in records)), "")
        keyed = {str(record.pop(field) if field else f"r{n}"): record for n, record in enumerate(records)}
        path.write_text(json.dumps(keyed, ensure_ascii=False, indent=1), encoding="utf-8")


@pytest.mark.parametrize("keyed", [False, True])
def test_prompts_of_cblues_test_files_lead_to_its_submission(asked_raw: Path, tmp_path: Path, keyed: bool) -> None:
    if keyed:
        for path in asked_raw.glob("*/*_test.json*"):
            if not path.parent.name.startswith("IMCS"):
                by_id(path)
    output = tmp_path / "asked"
    done = make(output, Plan(dict.fromkeys(EDITION), from_test=True), asked_raw)
    assert not done.missing
    asked = load_samples(output, "test")
    assert all(sample["target"] == "" for sample in asked)
    by_task = {name: [sample for sample in asked if sample["task_dataset"] == name] for name in done.tasks}
    assert [sample["sample_id"] for sample in by_task["CHIP-MDCFNPC"]] == ["test-9#7", "test-9#11"]
    assert len(by_task["CHIP-CTC"][0]["answer_choices"] or ()) == 44
    predictions = answered(asked, tmp_path / "predictions.jsonl")
    written = write_cblue(predictions, str(output), asked_raw, tmp_path / "submission")
    assert {task for task, became in written.items() if became.file} == set(EDITION)
    for became in written.values():
        assert check_file(tmp_path / "submission" / str(became.file), asked_raw) == became.records


def test_ten_documents_of_each_query_are_asked_about_the_likest_first(asked_raw: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", Plan({"KUAKE-IR": None}, from_test=True), asked_raw)
    found: dict[str, list[str]] = {}
    for sample in load_samples(tmp_path / "out", "test"):
        query, _, document = sample["sample_id"].partition("#")
        found.setdefault(query, []).append(document)
        assert sample["answer_choices"] == ["相关", "不相关"]
    texts = dict(line.split("\t") for line in (asked_raw / "KUAKE-IR/corpus.tsv").read_text("utf-8").splitlines())
    assert [len(set(documents)) for documents in found.values()] == [10, 10, 10]
    assert "拔牙" in texts[found["test-q8"][0]]
    assert found["test-q9"][0] == "x7"
    (asked_raw / "KUAKE-IR/corpus.tsv").write_text("d1\t只有一篇\n", encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"corpus\.tsv: holds 1 documents"):
        make(tmp_path / "other", Plan({"KUAKE-IR": None}, from_test=True), asked_raw)


def test_no_prompt_is_made_of_a_test_record_whose_answer_cannot_be_handed_in(tmp_path: Path) -> None:
    output = tmp_path / "asked"
    done = make(output, Plan(dict.fromkeys(TASKS), from_test=True), RAW)
    assert set(done.missing) == {"CHIP-MDCFNPC", "KUAKE-IR", "MedDG"}
    left_out = {file.task: file.notes.left_out() for file in done.files if file.notes}
    assert left_out["CHIP-MDCFNPC"] == {"no findings to ask about": 1}
    assert left_out["MedDG"] == {"no 'id', by which CBLUE's submission names a record": 1}
    with pytest.raises(PromptCBLUEError, match="no test files that say what to ask for of MedDG"):
        make(output, Plan({"MedDG": None}, from_test=True), RAW, must_have=["MedDG"])
