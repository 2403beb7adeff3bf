"""The template pool: what is in it, what its tools find, and how it grows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from typer.testing import CliRunner

from promptcblue_dataset.build import build, parse_sizes
from promptcblue_dataset.cli import app
from promptcblue_dataset.making import Plan
from promptcblue_dataset.prompts.pool import TaskPrompts, check_pool, fill, load_pool, similarity
from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import NONE_OF_THESE, REGISTRY, TASKS

POOL = load_pool()


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["templates", *map(str, arguments)])


def official(folder: Path, **templates: list[str]) -> Path:
    path = folder / "templates.json"
    path.write_text(json.dumps({name.replace("_", "-"): found for name, found in templates.items()}), encoding="utf-8")
    return path


def test_every_task_has_eight_templates_without_flaws() -> None:
    assert list(POOL) == list(REGISTRY)
    assert all(len(POOL[task].templates) >= (8 if task in TASKS else 4) for task in POOL)
    assert check_pool(POOL) == []


def test_templates_differ_in_layout() -> None:
    for task, prompts in POOL.items():
        endings = {template.splitlines()[-1] for template in prompts.templates}
        assert len(endings) >= 4, task


def test_every_label_is_explained_and_every_answer_format_specified() -> None:
    for task, prompts in POOL.items():
        if task not in ("CHIP-CDN", "MedDG"):
            assert set(REGISTRY[task].labels) - {NONE_OF_THESE} <= set(prompts.labels)
            assert prompts.labels
        assert set(prompts.format) == {"released", "paper"}
        assert prompts.steps


def test_our_templates_are_not_the_official_ones(shared: Path) -> None:
    others = load_pool(shared / "data" / "promptcblue_toy" / "templates.json")
    assert list(others) == [task for task in TASKS if task in others]
    for task, prompts in others.items():
        for template in prompts.templates:
            assert "\\n" not in template
            assert max(similarity(template, own) for own in POOL[task].templates) < 0.9


def test_filling_is_one_pass() -> None:
    assert fill("[A]与[B]", {"A": "[B]", "B": "乙"}) == "[B]与乙"


def test_check_names_every_kind_of_flaw(tmp_path: Path) -> None:
    good = "请判断两句话的意思：[INPUT_TEXT_1]，[INPUT_TEXT_2]"
    path = official(
        tmp_path,
        CHIP_STS=[
            good,
            good + "！",
            good.replace("判断两句话", "判断下两句话"),
            "意思：[INPUT_TEXT_1]",
            "意思：[INPUT_TEXT_1][INPUT_TEXT_2][LIST_MENTIONS]",
            "[INPUT_TEXT_1]？[INPUT_TEXT_2]",
            "意思：[INPUT_TEXT_1][INPUT_TEXT_2][INPUT_TEXT_2]",
        ],
    )
    result = run("check", "--templates", path)
    assert result.exit_code == 1
    found = [line.split(": ")[:2] for line in result.stdout.splitlines()[:-1]]
    assert found[:2] == [["CHIP-STS template 2", "duplicate"], ["CHIP-STS template 3", "near-duplicate"]]
    for number, kind in ((4, "missing"), (5, "unknown"), (7, "repeated")):
        assert [f"CHIP-STS template {number}", f"{kind} placeholder"] in found
    assert ["CHIP-STS template 6", "no task"] in found
    with pytest.raises(PromptCBLUEError, match="template 4"):
        load_pool(path)


def test_our_pool_passes_the_check() -> None:
    result = run("check")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{sum(len(prompts.templates) for prompts in POOL.values())} templates")


def test_list_prints_one_template_a_line() -> None:
    lines = run("list", "--tasks", "MedDG,CHIP-STC").stdout.splitlines()
    assert len(lines) == len(POOL["MedDG"].templates) + len(POOL["CHIP-STS"].templates)
    assert [line.split("\t")[:3] for line in lines[:2]] == [["promptcblue", "CHIP-STS", n] for n in ("1", "2")]
    assert lines[0].split("\t")[3].replace("\\n", "\n") == POOL["CHIP-STS"].templates[0]


def test_list_prints_what_the_page_on_building_says() -> None:
    listed = [line.split("\t") for line in run("list").stdout.splitlines()]
    every, own, tasks = len(listed), sum(row[0] == "promptcblue" for row in listed), len({row[1] for row in listed})
    pages = Path(__file__).parents[2] / "docs"
    said = f"{every} templates of {tasks} tasks, {own} of them PromptCBLUE's"
    assert said in (pages / "build.md").read_text(encoding="utf-8")
    said = f"{tasks} 个任务的 {every} 个模板，其中 PromptCBLUE {own} 个"
    assert said in (pages / "build.zh.md").read_text(encoding="utf-8")


def test_render_shows_additional_contents() -> None:
    plain = run("render", "KUAKE-IR", 1).stdout.strip()
    assert plain == POOL["KUAKE-IR"].templates[0]
    full = run("render", "KUAKE-IR", 1, "--explain-labels", "--format-spec", "--step-by-step").stdout.strip()
    assert "不相关：" in full
    assert full.splitlines()[-1] == plain.splitlines()[-1]
    assert run("render", "KUAKE-IR", 99).exit_code != 0


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"NoTask": ["x"]}', '{"MedDG": []}', '{"MedDG": "x"}', '{"MedDG": [1]}']
)
def test_a_bad_pool_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pool.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PromptCBLUEError):
        load_pool(path)


def test_a_template_that_cannot_be_filled_is_named_with_line_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "pool.json"
    wrong = ["甲[INPUT_TEXT]", "乙\\n[INPUT_TEXT][LIST_LABELS][INPUT_TEXT]", "丙[LIST_LABELS]\n[NOTHING][INPUT_TEXT]"]
    for ascii_only in (False, True):
        path.write_text(json.dumps({"CMeIE": wrong}, ensure_ascii=ascii_only, indent=1), encoding="utf-8")
        with pytest.raises(PromptCBLUEError) as caught:
            load_pool(path)
        _, *flaws = str(caught.value).splitlines()
        assert [flaw.partition(f"{path}:")[2].partition(":")[0] for flaw in flaws] == ["3", "4", "5"]
        for flaw, what in zip(flaws, ("[LIST_LABELS]", "[INPUT_TEXT]", "[NOTHING]"), strict=True):
            assert "field 'CMeIE'" in flaw
            assert what in flaw.partition(";")[0]
            assert "holds [INPUT_TEXT] [LIST_LABELS] once" in flaw.partition(";")[2]


def test_a_pool_of_five_hundred_prompts_builds_every_task(tmp_path: Path) -> None:
    each = 32
    pool = {
        task: [f"第{n}种问法。\\n" + "\\n".join(f"[{name}]" for name in order(POOL[task], n)) for n in range(each)]
        for task in TASKS
    }
    path = tmp_path / "pool.json"
    path.write_text(json.dumps(pool, ensure_ascii=False), encoding="utf-8")
    assert sum(len(prompts.templates) for prompts in load_pool(path).values()) == 16 * each
    plan = Plan(parse_sizes("160,0,0", list(TASKS)), templates=path)
    done = build(Path(__file__).parent / "raw", tmp_path / "out", plan, workers=1, cache=False)
    assert list(done.tasks) == list(TASKS)
    for task, built in done.tasks.items():
        assert built.counts["train"]["templates"] == each
        prompts = [sample["input"] for sample in load_samples(tmp_path / "out", "train", [task])]
        asked = {prompt.partition("。")[0] for prompt in prompts}
        assert len(prompts) > 70
        assert len(asked) > each * 0.9
        assert not any("[INPUT" in prompt or "[LIST" in prompt for prompt in prompts)


def order(prompts: TaskPrompts, number: int) -> list[str]:
    """The placeholders of a task, in one order or the other."""
    return sorted(prompts.placeholders, reverse=number % 2 == 0)


def answer(custom_id: str, text: str | None) -> str:
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]} if text is not None else {"error": "busy"}
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": body}}, ensure_ascii=False)


@pytest.mark.parametrize("name", ["review.xlsx", "review.csv"])
def test_a_model_extends_the_pool_after_review(tmp_path: Path, name: str) -> None:
    requests, answers, review, pool = (tmp_path / part for part in ("in.jsonl", "out.jsonl", name, "pool.json"))
    assert run("requests", requests, "--model", "m", "--tasks", "MedDG", "--times", 10).exit_code == 0
    asked = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    assert [item["custom_id"] for item in asked] == [f"MedDG/{n}" for n in range(1, len(POOL["MedDG"].templates) + 1)]
    assert {(item["method"], item["url"], item["body"]["model"]) for item in asked} == {
        ("POST", "/v1/chat/completions", "m")
    }
    assert POOL["MedDG"].templates[0] in asked[0]["body"]["messages"][0]["content"]

    original = POOL["MedDG"].templates[0]
    kept = ["看完这些聊天记录，作为大夫你要怎样答复病人？\n[INPUT_TEXT]", "=2+2，再写医生的回复：[INPUT_TEXT]"]
    text = "\n-----\n".join([*kept, "没有占位符的改写", "[INPUT_TEXT][LIST_LABELS]", original, "", kept[0] + "？"])
    answers.write_text(answer("MedDG/1", text) + "\n" + answer("MedDG/2", None) + "\n", encoding="utf-8")
    result = run("answers", answers, review)
    assert result.exit_code == 0, result.output
    assert "to be reviewed: 2" in result.stdout
    assert "placeholders differ from the original's: 2" in result.stdout
    assert "near-duplicate of another template: 2" in result.stdout
    assert "failed or came back empty: 1" in result.stdout

    assert run("accept", review, pool).exit_code == 0
    assert load_pool(pool)["MedDG"].templates == POOL["MedDG"].templates  # nothing is accepted yet
    set_verdicts(review, ["accept", "reject"])
    result = run("accept", review, pool)
    assert "accepted: 1" in result.stdout
    assert load_pool(pool)["MedDG"].templates == (*POOL["MedDG"].templates, kept[0])
    set_verdicts(review, ["yes", ""])
    assert run("accept", review, pool).exit_code != 0


def set_verdicts(path: Path, verdicts: list[str]) -> None:
    if path.suffix == ".xlsx":
        book = load_workbook(path)
        for number, verdict in enumerate(verdicts, 2):
            book.active.cell(number, 5).value = verdict
        book.save(path)
        return
    rows = list(csv.reader(path.open(encoding="utf-8-sig", newline="")))
    for row, verdict in zip(rows[1:], verdicts, strict=True):
        row[-1] = verdict
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows(rows)


def test_answers_to_unknown_requests_are_refused(tmp_path: Path) -> None:
    answers = tmp_path / "out.jsonl"
    answers.write_text(answer("MedDG/99", "x"), encoding="utf-8")
    assert run("answers", answers, tmp_path / "review.csv").exit_code != 0
    assert not (tmp_path / "review.csv").exists()
