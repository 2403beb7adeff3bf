"""The page of the metric's Space, started as the Hub starts it and driven in a browser."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Evaluation
from promptcblue_metric.report.report import Report

from ...browser import Page, browser_page, find_chromium
from ...conftest import ROOT, SampleRows
from ..report.test_page import HOSTILE

pytest.importorskip("gradio")
from promptcblue_metric.hub import page as space

Rows = Sequence[Mapping[str, Any]]


def lines(rows: Rows) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


#: A text, or the path of a file.
Given: TypeAlias = tuple[str, "str | None"]


def given(text: str = "", path: Path | None = None) -> Given:
    return text, str(path) if path else None


def scored(predictions: Given, references: Given, **options: Any) -> Report:
    return space.score(
        {"predictions": predictions, "references": references},
        "official",
        "strict",
        **{"count_missing": False, **options},
    )


def refusal(predictions: Given, references: Given) -> tuple[str, str]:
    with pytest.raises(space.RefusedError) as caught:
        scored(predictions, references)
    return caught.value.words


def example() -> tuple[Given, Given]:
    predictions, references = space.example_inputs()
    return given(predictions), given(references)


def test_texts_stand_in_both_languages_with_the_same_places_to_fill() -> None:
    for english, chinese in space.TEXTS.values():
        assert english != chinese
        assert english.count("{") == chinese.count("{")
        assert any("\u4e00" <= character <= "\u9fff" for character in chinese)


def test_a_file_and_a_text_give_the_same_report_as_the_library(sample_rows: SampleRows, tmp_path: Path) -> None:
    rows = sample_rows("test")
    answers = [{"sample_id": row["sample_id"], "prediction": row["target"][:-1]} for row in rows]
    evaluation = Evaluation()
    for row, answer in zip(rows, answers, strict=True):
        evaluation.add(answer["prediction"], row)
    result = evaluation.result()
    file = tmp_path / "predictions.jsonl.gz"
    file.write_bytes(gzip.compress(lines(answers).encode()))
    references = given(lines(rows))
    for predictions in (given(lines(answers)), given(path=file)):
        report = scored(predictions, references)
        assert report["overall"] == result["overall"]
        assert {name: task["scores"] for name, task in report["tasks"].items()} == {
            name: task["scores"] for name, task in result["tasks"].items()
        }


def test_what_is_too_large_or_unclear_is_refused_in_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, references = example()
    assert "empty" in refusal(given(" \n"), references)[0]
    file = tmp_path / "file.json"
    file.write_text(predictions[0], encoding="utf-8")
    english, chinese = refusal(given("x", file), references)
    assert "twice" in english
    assert "预测" in chinese
    long = json.loads(predictions[0].splitlines()[0])
    long["prediction"] = "长" * (space.MAX_CHARACTERS + 1)
    assert "20,000" in refusal(given(lines([long])), references)[1]
    assert "3" in refusal(given(predictions[0].splitlines()[0]), references)[0]
    # A small file may unpack to a large one.
    bomb = tmp_path / "bomb.json"
    bomb.write_bytes(gzip.compress(b" " * (space.MAX_BYTES + 1)))
    assert bomb.stat().st_size < 100_000
    assert "32 MiB" in refusal(given(path=bomb), references)[0]
    assert "20,000" in refusal(given("{}\n" * (space.MAX_ROWS + 2)), references)[0]
    # Comparing each of many items with each of many others takes more time than any text of the benchmark.
    items = [f"{number}痛" for number in range(1800)]
    target = "上述句子中的实体包含：\n疾病实体：" + "，".join(items)
    crowded = {**space.EXAMPLE[2], "answer_choices": ["疾病"], "target": target}
    rows = [{**crowded, "sample_id": str(number)} for number in range(4)]
    answers = [{"sample_id": row["sample_id"], "prediction": target.replace("痛", "疼")} for row in rows]
    assert "too many items" in refusal(given(lines(answers)), given(lines(rows)))[0]
    monkeypatch.setattr(space, "MAX_SECONDS", -1)
    assert "seconds" in refusal(predictions, references)[0]


def test_a_bad_row_is_named_without_the_folder_it_was_copied_to() -> None:
    predictions, references = example()
    with pytest.raises(PromptCBLUEError, match=r"^1 bad row") as caught:
        scored(given('{"sample_id": 1}\n' + predictions[0]), references)
    assert "\npredictions.jsonl:1: field 'sample_id'" in str(caught.value)


def test_missing_predictions_count_as_wrong_where_asked() -> None:
    predictions, references = example()
    fewer = given(predictions[0].splitlines()[0])
    report = scored(fewer, references, count_missing=True)
    assert report["missing_predictions"] == 3
    assert "3" in space.found_html(report, "en")


class Tags(HTMLParser):
    """The tags of a text, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", space.LANGUAGES.values())
def test_hostile_text_stays_text(language: space.Language, sample_rows: SampleRows) -> None:
    rows = [{**row, "sample_id": f"{row['sample_id']}{HOSTILE}", "input": HOSTILE} for row in sample_rows("train")]
    answers = [
        {"sample_id": row["sample_id"], "task_dataset": row["task_dataset"], "prediction": HOSTILE} for row in rows
    ]
    # Lone surrogates can only come escaped.
    predictions, references = (given("\n".join(map(json.dumps, some))) for some in (answers, rows))
    html = space.found_html(scored(predictions, references), language)
    html += space.found_html((HOSTILE, HOSTILE), language)
    found = Tags(html)
    assert found.tags.isdisjoint({"script", "img", "a", "iframe", "textarea"})
    assert found.attributes <= {"class", "lang", "role", "data-task"}
    assert "<img src=x onerror=alert(1)>" in found.text
    assert "\u202e" not in space.found_html(scored(predictions, references), language)


# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    url: str
    uploads: Path
    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Space: a folder of another name with the metric's files alone, where the project is not installed."""
    folder = tmp_path_factory.mktemp("space")
    shutil.copytree(ROOT / "promptcblue_metric", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}/", folder / "log"
    environment = {
        **os.environ,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
        # No way out but loopback.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    code = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]"
    code += "\nimport runpy; runpy.run_path('app.py', run_name='__main__')"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], cwd=folder / "app", env=environment, stdout=sink, stderr=sink
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield Server(url, folder / "uploads", process, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def page(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if find_chromium() is None:
        pytest.skip("needs Chromium")
    with browser_page(tmp_path_factory.mktemp("chromium")) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setUserAgentOverride", userAgent="test", acceptLanguage="zh-CN")
        page.call("Page.navigate", url=server.url)
        wait(page, "document.querySelector('#score')?.innerText === '评分'")
        yield page


def wait(page: Page, condition: str) -> None:
    """Until a condition of the page holds."""
    met = page.evaluate(
        f"""new Promise(done => {{
            const end = Date.now() + 20000;
            const look = () => {{
                let met = false;
                try {{ met = !!({condition}); }} catch (error) {{}}
                met ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 30);
            }};
            look();
        }})"""
    )
    assert met, (condition, page.evaluate("document.body.innerText"), page.complaints)


def fill(page: Page, name: str, text: str) -> None:
    page.evaluate(
        f"""(() => {{
            const area = document.querySelector('#{name} textarea');
            const value = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value');
            value.set.call(area, {json.dumps(text)});
            area.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()"""
    )


def press(page: Page, name: str) -> None:
    page.evaluate(f"document.querySelector('#{name}').click()")


def choose(page: Page, language: str) -> None:
    page.evaluate(f"document.querySelector('#language input[value=\"{language}\"]').click()")


def table(page: Page) -> dict[str, list[str]]:
    """The cells of the score table, by the first of each row."""
    rows = page.evaluate(
        "[...document.querySelectorAll('#result .scores tbody tr')].map(row => [...row.cells].map(x => x.innerText))"
    )
    return {row[0]: row[1:] for row in rows}


def upload(page: Page, name: str, path: Path) -> None:
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector=f"#{name}_file input[type=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])
    wait(page, f"document.querySelector('#{name}_file').innerText.includes('{path.name.partition('.')[0]}')")


def remove(page: Page, name: str) -> None:
    page.evaluate(f"document.querySelector('#{name}_file .icon-button-wrapper button').click()")
    wait(page, f"document.querySelector('#{name}_file input[type=file]')")


def test_pasted_rows_give_the_numbers_of_the_library_in_both_languages(
    page: Page, server: Server, sample_rows: SampleRows, tmp_path: Path
) -> None:
    rows, evaluation = sample_rows("test"), Evaluation()
    answers = []
    for number, row in enumerate(rows):
        output = [row["target"], row["target"][:-2], f"好的：{row['target']}", HOSTILE.replace("\ud800", "${7*7}")][
            number % 4
        ]
        answers.append({"sample_id": row["sample_id"], "prediction": output})
        evaluation.add(output, row)
    result = evaluation.result()
    fill(page, "predictions", lines(answers))
    fill(page, "references", lines(rows))
    press(page, "score")
    wait(page, "document.querySelector('#result table.scores')")
    shown = table(page)
    for name, task in result["tasks"].items():
        cells = shown[name]
        assert cells[0] == task["metric"]
        assert [float(cell) for cell in cells[1:4]] == pytest.approx(list(task["scores"].values())[:3], abs=5e-5)
        assert cells[4:] == [f"{task['score']:.4f}", str(task["samples"]), f"{task['well_formed']:.1%}"]
    assert shown["总分"][4] == f"{result['overall']:.4f}"
    assert page.evaluate("document.querySelector('#result code').innerText") == result["signature"]
    page.screenshot(tmp_path / "chinese.png", whole=True)

    # What the model wrote stays text.
    page.evaluate("document.querySelectorAll('#result details').forEach(task => task.open = true)")
    assert "<img src=x onerror=alert(1)>" in page.evaluate("document.querySelector('#result').innerText")
    assert "${7*7}" in page.evaluate("document.querySelector('#result').innerText")
    assert page.evaluate("document.querySelectorAll('#result script, #result img, #result a').length") == 0
    assert page.evaluate("document.title") != "owned"
    assert page.evaluate("document.querySelectorAll('#result details').length") == 16
    page.screenshot(tmp_path / "errors.png", whole=True)

    choose(page, "English")
    wait(page, "[...document.querySelectorAll('#result tr.overall td')].some(cell => cell.innerText === 'overall')")
    wait(page, "document.querySelector('#score').innerText === 'Score'")
    assert {name: cells for name, cells in table(page).items() if name in result["tasks"]} == {
        name: cells for name, cells in shown.items() if name in result["tasks"]
    }
    page.screenshot(tmp_path / "english.png", whole=True)
    choose(page, "中文")
    wait(page, "document.querySelector('#score').innerText === '评分'")
    # Numbers are aligned at their right end, and nothing is wider than the window.
    assert page.evaluate("getComputedStyle(document.querySelector('#result td.n')).textAlign") == "right"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_uploads_are_scored_and_too_large_ones_refused(
    page: Page, server: Server, sample_rows: SampleRows, tmp_path: Path
) -> None:
    rows = sample_rows("dev")
    files = {"predictions": tmp_path / "answers.jsonl", "references": tmp_path / "dev.json"}
    files["predictions"].write_text(
        lines([{"sample_id": row["sample_id"], "prediction": row["target"]} for row in rows]), encoding="utf-8"
    )
    files["references"].write_text(lines(rows), encoding="utf-8")
    for name, path in files.items():
        fill(page, name, "")
        upload(page, name, path)
    press(page, "score")
    wait(page, "document.querySelector('#result code')?.innerText.includes('samples:67|')")
    assert table(page)["总分"][4] == "1.0000"

    remove(page, "predictions")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (space.MAX_BYTES + 1))
    upload(page, "predictions", large)
    press(page, "score")
    wait(page, "document.querySelector('#result .failed')?.innerText.includes('超过 32 MiB')")
    assert page.evaluate("document.querySelectorAll('#result table').length") == 0
    for name in files:
        remove(page, name)


def test_the_example_shows_what_the_card_says(page: Page) -> None:
    press(page, "example")
    wait(page, "document.querySelector('#references textarea').value.includes('小儿推拿')")
    press(page, "score")
    wait(page, "document.querySelector('#result code')?.innerText.includes('samples:4|')")
    shown = table(page)
    assert [shown[name][4] for name in ("CMeEE-V2", "KUAKE-QIC", "CHIP-STS")] == ["0.6667", "0.0000", "0.3333"]


def test_the_page_asks_nothing_of_other_machines(page: Page, server: Server) -> None:
    asked = {url for url in page.requests if url.startswith(("http:", "https:", "ws:", "wss:"))}
    assert asked
    assert {url for url in asked if not url.startswith(server.url)} == set()


def test_uploads_are_gone_when_the_page_stops(page: Page, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "left.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    upload(page, "predictions", path)
    deadline = time.monotonic() + 30
    while not any(path.is_file() for path in server.uploads.rglob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0, server.log.read_text()
    assert not [path for path in server.uploads.rglob("*") if path.is_file()]
    assert "Traceback" not in server.log.read_text()
