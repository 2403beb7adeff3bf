"""The report: its files, its page in a browser, and hostile predictions in it."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptcblue_metric.data.predictions import Provenance
from promptcblue_metric.errors import PromptCBLUEError, install_command
from promptcblue_metric.evaluation import Evaluation, ScoredSample
from promptcblue_metric.report.analysis import short, shown
from promptcblue_metric.report.page import differences, write_report
from promptcblue_metric.report.report import FILES, KINDS, Report, build_report, check_output
from promptcblue_metric.report.tables import CHINESE, garbled_notes
from promptcblue_metric.tasks import TASKS

from ...browser import Page, browser_page, find_chromium
from ...conftest import Run, SampleRows
from ..test_cli import COMMAND

HOSTILE = (
    "<script>document.title='owned'</script></textarea></pre><img src=x onerror=alert(1)>"
    "<a href='javascript:alert(1)'>x</a>{{ 7 * 7 }}]]>--></script>\u202edesrever\x00\ud800\u2028$x^2$ 第一行\n第二行"
)


def run_of(rows: list[dict[str, Any]]) -> list[ScoredSample]:
    """A run that is right on half of the samples, and wrong in many ways on the others."""
    rng, evaluation, samples = random.Random(0), Evaluation(), []
    for number, row in enumerate(rows):
        target = row["target"]
        other = rng.choice(row["answer_choices"] or ["无"])
        outputs = [target, target, target, target[: len(target) // 2], f"好的：\n{target}", other, "", None, HOSTILE]
        samples.append(evaluation.add(outputs[number % len(outputs)], row))
    return samples


@pytest.fixture(scope="session")
def samples(sample_rows: SampleRows) -> list[ScoredSample]:
    rows = sample_rows("train")
    rows[0] = {**rows[0], "sample_id": HOSTILE}
    long = dict(next(row for row in rows if row["task_dataset"] == "MedDG"), sample_id="long")
    return [*run_of(rows), Evaluation().add("好" * 1_000_000, long)]


@pytest.fixture(scope="session")
def report(samples: list[ScoredSample]) -> Report:
    origin: Provenance = {
        "source": "sample",
        "split": "validation",
        "predictions": "<b>run</b>.jsonl",
        "made_with": {"model": "org/<i>model</i>", "adapter": None, "beams": 4},
    }
    return build_report(samples, resamples=100, origin=origin)


@pytest.fixture(scope="session")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    write_report(report, folder)
    return folder


def test_the_folder_holds_three_files_that_agree(folder: Path, report: Report) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    values = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert values == json.loads(json.dumps(report))
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    for name, task in values["tasks"].items():
        assert f"{task['score']:.4f}" in page
        assert f"| {name} | {task['metric']} | {task['score']:.4f} |" in text
    assert values["signature"] in page
    assert values["signature"] in text


def test_the_same_run_gives_the_same_bytes(report: Report, folder: Path, tmp_path: Path) -> None:
    write_report(report, tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_part_of_a_suite_is_called_so_everywhere_and_sentences_stand_apart(
    sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    rows = [row for row in sample_rows("test") if row["task_dataset"] != "MedDG"]
    references, output = tmp_path / "refs.jsonl", tmp_path / "report"
    references.write_text("".join(json.dumps({**row, "prediction": row["target"]}) + "\n" for row in rows))
    done = run_python(COMMAND, "report", references, "--references", references, "--output", output, "--allow-gold")
    assert done.returncode == 0, done.stderr
    assert "mean of 15 of 16 tasks 1.0000" in done.stdout
    page, markdown = ((output / name).read_text("utf-8") for name in ("index.html", "report.md"))
    assert "- mean of 15 of 16 tasks 1.0000" in markdown.partition("##")[0]
    assert "Not in the references: MedDG." in page
    # Two sentences in one language never follow each other without a blank.
    assert not re.search(r'[.。]</span><span class="t" lang="en">', page)


def test_model_text_is_escaped_and_bounded(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "&lt;script&gt;document.title" in page
    assert "<b>run" not in page
    for name in FILES:
        text = (folder / name).read_text(encoding="utf-8")
        assert not re.search("[\x00\u202e\u2028]", text)
        assert "好" * 5000 not in text
    assert "⟨U+202E⟩" in page
    assert "⟨U+0000⟩" in page
    assert "⟨U+D800⟩" in page
    assert (folder / "index.html").stat().st_size < 5_000_000
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown


def test_an_older_report_is_replaced_and_other_files_are_not(report: Report, tmp_path: Path) -> None:
    target = tmp_path / "report"
    target.mkdir()
    (target / "index.html").write_text("old")
    write_report(report, target)
    assert (target / "index.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (target / "notes.txt").write_text("mine")
    with pytest.raises(PromptCBLUEError, match=r"notes\.txt"):
        write_report(report, target)
    assert (target / "notes.txt").read_text() == "mine"
    with pytest.raises(PromptCBLUEError, match="folder"):
        check_output(target / "notes.txt")


def test_a_report_of_one_task_without_intervals(sample_rows: SampleRows, tmp_path: Path) -> None:
    for task in TASKS:
        rows = [row for row in sample_rows("test") if row["task_dataset"] == task]
        evaluation = Evaluation()
        perfect = [evaluation.add(row["target"], row) for row in rows]
        values = build_report(perfect, "paper", resamples=0)
        assert values["overall"] == pytest.approx(1, abs=1e-6)
        assert values["intervals"] == {}
        assert values["tasks"][task]["examples"] == []
        write_report(values, tmp_path / task)


def test_every_word_of_the_report_is_said_in_both_languages(report: Report) -> None:
    for task in report["tasks"].values():
        named = {*task["states"], *task["repairs"], *task["problems"], *task["breakdowns"]}
        assert named | {outcome["kind"] for outcome in task["outcomes"]} <= set(CHINESE)
    for english, chinese in CHINESE.items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", chinese))


def test_intervals_of_tasks_with_garbled_outputs_are_explained(report: Report, folder: Path) -> None:
    tasks = [row["task"] for row in report["garbled"]]
    assert tasks
    page, markdown = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    for task, note in zip(tasks, garbled_notes(report), strict=True):
        assert note.startswith(f"{task}: ")
        assert f"\n{note}.\n" in markdown
        assert f"{task}：按 official 协议" in page


def test_differences_mark_what_the_other_text_lacks() -> None:
    gold, predicted = differences("疾病实体：肺炎，哮喘", "疾病实体：肺炎，感冒", "part")
    assert gold == [("疾病实体：肺炎，", False), ("哮喘", True)]
    assert predicted == [("疾病实体：肺炎，", False), ("感冒", True)]
    gold, predicted = differences("多喝水，多休息", "多饮水，请休息", "character")
    assert "".join(text for text, _ in gold) == "多喝水，多休息"
    assert ("休息", False) in gold
    assert ("休息", False) in predicted


def test_texts_that_share_only_scraps_are_wholly_different() -> None:
    ours, theirs = ("，".join(f"{sign}{number}" for number in range(100)) for sign in "甲乙")
    gold, predicted = differences(ours, theirs, "part")
    assert [different for _, different in gold] == [True]
    assert [different for _, different in predicted] == [True]


def test_differences_of_degenerate_texts_take_no_time() -> None:
    start = time.process_time()
    differences("a" * 3000, "ab" * 1500, "character")
    differences("，" * 3000, "，a" * 1500, "part")
    assert time.process_time() - start < 5


def test_what_cannot_be_seen_is_written_out() -> None:
    assert shown("a\x00b\u202ec\td\ne\ud800") == {"text": "a⟨U+0000⟩b⟨U+202E⟩c\td\ne⟨U+D800⟩", "omitted": 0}
    assert shown("好" * 50, 10) == {"text": "好" * 10, "omitted": 40}
    text, omitted = shown("\x00" * 5000, 100).values()
    assert len(str(text)) <= 100
    assert text == "⟨U+0000⟩" * (5000 - int(str(omitted)))
    assert short("一\n二" * 100, 3) == "一⏎二…"


def test_the_command_writes_a_report(sample_rows: SampleRows, run_python: Run, tmp_path: Path) -> None:
    rows = [{**row, "template": f"t{number % 2}"} for number, row in enumerate(sample_rows("train"))]
    references, predictions, output = (tmp_path / name for name in ("refs.jsonl", "run.jsonl", "report"))
    references.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [json.dumps({"sample_id": row["sample_id"], "prediction": row["target"][:-1]}) + "\n" for row in rows]
    predictions.write_text("".join(lines[1:]))
    arguments = ("report", predictions, "--references", references, "--output", output, "--resamples", 100)
    done = run_python(COMMAND, *arguments)
    assert done.returncode == 1
    assert "--missing count-wrong" in done.stderr
    assert not output.exists()
    done = run_python(COMMAND, *arguments, "--missing", "count-wrong", "--parser", "lenient", "--protocol", "paper")
    assert done.returncode == 0, done.stderr
    assert str(output / "index.html") in done.stdout
    values = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert values["missing_predictions"] == 1
    assert "protocol:paper|parser:lenient" in values["signature"]
    assert {part["name"] for part in values["tasks"]["MedDG"]["breakdowns"]["template"]} == {"t0", "t1"}


def test_two_runs_stand_beside_each_other_sample_by_sample(
    sample_rows: SampleRows, run_python: Run, tmp_path: Path
) -> None:
    rows = sample_rows("test")
    references, output = tmp_path / "refs.jsonl", tmp_path / "report"
    references.write_text("".join(json.dumps(row) + "\n" for row in rows))
    right: dict[str, set[tuple[str, str]]] = {}
    for name, step in (("one", 2), ("two", 3)):
        lines = [{**row, "prediction": row["target"] if n % step else "？"} for n, row in enumerate(rows)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        right[name] = {(row["task_dataset"], row["sample_id"]) for n, row in enumerate(rows) if n % step}
    runs = [tmp_path / f"{name}.jsonl" for name in right]
    done = run_python(COMMAND, "report", *runs, "--references", references, "--output", output)
    assert done.returncode == 0, done.stderr
    values = json.loads((output / "report.json").read_text(encoding="utf-8"))
    other = values["other"]
    assert other["runs"] == ["one", "two"]
    only_right = dict(zip(KINDS[1:3], (right["one"] - right["two"], right["two"] - right["one"]), strict=True))
    for key, only in only_right.items():
        found = {(task, sample) for task, of_task in other["tasks"].items() for sample in of_task[key]}
        # An answer that is to be empty is right without having been given.
        assert found <= only
        assert {task for task, _ in only - found} <= {"CMeEE-V2", "CMeIE", "CHIP-CDN", "CHIP-CDEE", "IMCS-V2-NER"}
    assert sum(len(of_task[KINDS[0]]) for of_task in other["tasks"].values()) >= len(right["one"] & right["two"])
    assert {sample["kind"] for sample in other["samples"]} <= set(CHINESE)
    page = (output / "index.html").read_text(encoding="utf-8")
    assert page.count('data-kinds="only the first run is right"') > 0
    head, markdown = page[page.index('"headline"') :].partition("</dl>")[0], (output / "report.md").read_text("utf-8")
    for name, score in zip(right, (values["overall"], other["scores"]["overall"]), strict=True):
        assert f"<b>{score:.4f}</b><span><code>{name}</code>" in head
        assert f"- {name}: overall {score:.4f}" in markdown.partition("##")[0]
        assert f"{name}: overall {score:.4f}" in done.stdout
    assert f"{other['scores']['overall']:.4f}" in (output / "report.md").read_text(encoding="utf-8")
    done = run_python(COMMAND, "report", *runs, runs[0], "--references", references, "--output", tmp_path / "three")
    assert done.returncode == 1
    assert "two" in done.stderr


def test_help_shows_an_example(run_python: Run) -> None:
    assert "promptcblue-metric report" in run_python(COMMAND, "report", "--help").stdout


def test_a_missing_library_is_named_before_any_work(run_python: Run, tmp_path: Path) -> None:
    code = f"""
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "jinja2" else find(name, *rest)
{COMMAND}"""
    (tmp_path / "run.jsonl").write_text("no row")
    done = run_python(code, "report", tmp_path / "run.jsonl", "--references", "none", "--output", tmp_path / "report")
    assert done.returncode == 1
    assert "jinja2" in done.stderr
    assert install_command("report") in done.stderr


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not find_chromium():
        pytest.skip("no Chromium here (Debian: apt-get install chromium fonts-noto-cjk)")
    with browser_page(tmp_path_factory.mktemp("browser")) as page:
        page.open(folder / "index.html")
        yield page


SHOWN = "[...document.querySelectorAll('article')].filter(a => !a.hidden)"


def set_filter(page: Page, name: str, value: str) -> None:
    page.evaluate(
        f"""(() => {{ const form = document.getElementById("filters"); form.reset();
        form.elements[{json.dumps(name)}].value = {json.dumps(value)};
        form.dispatchEvent(new Event("input", {{bubbles: true}})); }})()"""
    )


def test_the_page_opens_without_complaint_or_request(page: Page, folder: Path) -> None:
    assert page.evaluate("document.title") == "PromptCBLUE report"
    assert page.evaluate("document.querySelectorAll('svg').length") > 20
    assert page.complaints == []
    assert page.requests == [(folder / "index.html").resolve().as_uri()]


def test_only_the_pages_own_script_may_run(page: Page) -> None:
    found = page.evaluate(
        """new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.violatedDirective));
            const script = document.createElement("script");
            script.textContent = "window.intruder = 1";
            document.body.append(script);
        })"""
    )
    assert found.startswith("script-src")
    assert page.evaluate("typeof window.intruder") == "undefined"
    page.complaints.clear()


def test_hostile_predictions_stay_text(page: Page) -> None:
    assert (
        page.evaluate("document.querySelectorAll('main img, main textarea, main script, a[href^=javascript]').length")
        == 0
    )
    texts = page.evaluate("[...document.querySelectorAll('pre')].map(pre => pre.textContent)")
    assert any("<script>document.title='owned'</script></textarea></pre><img src=x" in text for text in texts)
    assert any("{{ 7 * 7 }}" in text for text in texts)


def test_filters_filter(page: Page, report: Report) -> None:
    examples = [(name, row) for name, task in report["tasks"].items() for row in task["examples"]]
    assert page.evaluate(f"{SHOWN}.length") == len(examples)
    for name, value, expected in (
        ("task", "CMeEE-V2", sum(task == "CMeEE-V2" for task, _ in examples)),
        ("kind", "missed", sum("missed" in row["kinds"] for _, row in examples)),
        ("state", "empty", sum(row["state"] == "empty" for _, row in examples)),
        ("text", "SCRIPT>", sum("script>" in (row["prediction"] or {"text": ""})["text"] for _, row in examples)),
        ("text", "no such text", 0),
    ):
        set_filter(page, name, value)
        assert page.evaluate(f"{SHOWN}.length") == expected
        assert page.evaluate("document.querySelector('#shown .shown').textContent") == str(expected)
        assert page.evaluate("document.getElementById('none').hidden") == (expected > 0)
    page.evaluate("document.querySelector('#filters button').click(); new Promise(done => setTimeout(done, 50))")
    assert page.evaluate(f"{SHOWN}.length") == len(examples)
    page.evaluate("document.querySelector('a[data-task=\"MedDG\"]').click()")
    assert page.evaluate(f"[...new Set({SHOWN}.map(a => a.dataset.task))]") == ["MedDG"]
    set_filter(page, "task", "")


def test_language_and_theme_change(page: Page) -> None:
    heading, paper = "document.querySelector('h1').innerText", "getComputedStyle(document.body).backgroundColor"
    before, light = page.evaluate(heading), page.evaluate(paper)
    page.evaluate("document.getElementById('language').click()")
    after = page.evaluate(heading)
    assert {before, after} == {"PromptCBLUE report", CHINESE["{suite} report"].format(suite="PromptCBLUE")}
    shown = ".filter(found => found.getClientRects().length).map(found => found.textContent)"
    assert "信息抽取" in page.evaluate("[...document.querySelectorAll('#scores .bars .t')]" + shown)
    assert page.evaluate("[...document.querySelectorAll('option')].some(option => option.textContent === '遗漏')")
    page.evaluate("document.getElementById('language').click()")
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(paper) != light
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(paper) == light


def test_links_to_a_task_open_it(page: Page) -> None:
    page.evaluate(
        "document.querySelector('a[href=\"#task-CHIP-CTC\"]').click(); new Promise(done => setTimeout(done, 100))"
    )
    assert page.evaluate("document.getElementById('task-CHIP-CTC').open")


def test_charts_are_plain_shapes_with_their_text(page: Page) -> None:
    assert page.evaluate("document.querySelectorAll('svg [style], svg [id], svg [href], .matrix [style]').length") == 0
    page.evaluate("document.getElementById('open-all').click()")
    lengths = page.evaluate(
        """[...document.querySelectorAll("#scores .bars svg:not(.axis)")].map((svg) =>
            svg.querySelector("rect").getBoundingClientRect().width / svg.getBoundingClientRect().width)"""
    )
    scores = page.evaluate("[...document.querySelectorAll('#scores .bars .value')].map((value) => value.textContent)")
    assert len(lengths) == len(scores) > 16
    assert all(abs(length - float(score)) < 0.01 for length, score in zip(lengths, scores, strict=True))
    told = page.evaluate("document.querySelector('#form svg[role=img]').getAttribute('aria-label')")
    assert "well-formed" in told
    assert "%" in told


def test_a_confusion_matrix_is_a_table_with_heads(page: Page, report: Report) -> None:
    confusion = report["tasks"]["CHIP-STS"]["confusion"]
    page.evaluate("document.getElementById('open-all').click()")
    rows = page.evaluate(
        """[...document.querySelectorAll("#task-CHIP-STS .matrix tbody tr")].map((row) =>
            [...row.children].map((cell) => cell.textContent))"""
    )
    assert rows == [
        [label, *(str(n or "") for n in counts)]
        for label, counts in zip(confusion["rows"], confusion["matrix"], strict=True)
    ]
    heads = page.evaluate(
        "[...document.querySelectorAll('#task-CHIP-STS .matrix thead th')].map(th => th.innerText.trim())"
    )
    assert heads == [*confusion["labels"], *confusion["others"]]


def test_labels_of_charts_have_their_room(page: Page) -> None:
    page.evaluate("document.getElementById('open-all').click()")
    cut = page.evaluate(
        """[...document.querySelectorAll(".bars")].flatMap((chart) => [...chart.querySelectorAll("span, text")].filter(
        (text) => {
            const box = text.getBoundingClientRect(), room = chart.getBoundingClientRect();
            return box.width && (box.left < room.left - 1 || box.right > room.right + 1 || box.top < room.top - 1);
        }).map((text) => text.textContent))"""
    )
    assert cut == []


def test_a_narrow_window_says_that_tables_go_on(page: Page, folder: Path) -> None:
    wider = "[...document.querySelectorAll('section > div .scroll')].filter(x => x.scrollWidth > x.clientWidth + 2)"
    told = "found.classList.contains('more') && getComputedStyle(found.nextElementSibling).display !== 'none'"
    page.open(folder / "index.html", 390)
    page.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert page.evaluate(f"{wider}.length") > 3
    assert page.evaluate(f"{wider}.every(found => {told})")
    page.evaluate(f"{wider}.forEach(x => {{ x.scrollLeft = 9999 }}); new Promise(done => setTimeout(done, 200))")
    assert page.evaluate("document.querySelectorAll('section > div .scroll.more').length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Page, folder: Path, width: int, tmp_path: Path) -> None:
    page.open(folder / "index.html", width)
    page.evaluate("document.getElementById('open-all').click()")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert page.complaints == []
