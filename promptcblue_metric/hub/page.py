"""The page of the metric's Space: paste or upload predictions and references, get scores, errors and signature.

Model output is hostile: it is cut and made visible (`report_text`), every text is escaped where it meets HTML, and
bytes, rows, lengths and time are bounded. Uploads are deleted after a while, and all of them when the page stops; other
files live only as long as a request.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import gradio as gr
from markupsafe import Markup

from ..data.predictions import match
from ..data.samples import Sample, iter_samples, open_binary
from ..errors import PromptCBLUEError
from ..evaluation import PARSERS, Evaluation, Parser, ScoredSample
from ..report.report import Report, TaskReport, build_report
from ..report.tables import CHINESE, Phrase, score_table
from ..report.text import short
from ..scoring import PROTOCOLS, Protocol

Language = Literal["zh", "en"]
LANGUAGES: Mapping[str, Language] = {"中文": "zh", "English": "en"}

#: What a request may bring: bytes of a file (unpacked), rows of it, characters of a text; and seconds it may take.
MAX_BYTES, MAX_ROWS, MAX_CHARACTERS, MAX_SECONDS = 32 << 20, 20_000, 20_000, 120
#: Pairs of a gold and a predicted item, summed over the samples, that the error analysis may have to compare.
MAX_PAIRS = 10_000_000
#: The server refuses an upload of this size before it is read.
MAX_UPLOAD = 4 * MAX_BYTES
#: Seconds between two looks for old uploads, and the age at which they are deleted.
CLEANING = (60, 900)
#: Examples that are shown of a task.
EXAMPLES = 5

#: English and Chinese.
Words: TypeAlias = tuple[str, str]
TEXTS: Mapping[str, Words] = {
    "title": ("PromptCBLUE metric", "PromptCBLUE 评测指标"),
    "intro": (
        "Scores answers to PromptCBLUE, 16 Chinese medical language tasks, as the benchmark's official scorer does. "
        f"At most {MAX_BYTES >> 20} MiB and {MAX_ROWS:,} rows a file. "
        f"Uploads are deleted after {CLEANING[1] // 60} minutes.",
        "为 PromptCBLUE（16 个中文医疗语言任务）的模型回答评分，结果与官方评分程序一致。"
        f"每个文件不超过 {MAX_BYTES >> 20} MiB、{MAX_ROWS:,} 行。"
        f"上传的文件在 {CLEANING[1] // 60} 分钟后删除。",
    ),
    "predictions": ("Predictions", "预测"),
    "references": ("References", "参考"),
    "predictions_info": (
        'JSON Lines: {"sample_id", "prediction"} a line, or the official test_predictions.json',
        'JSON Lines：每行 {"sample_id", "prediction"}，或官方的 test_predictions.json',
    ),
    "references_info": (
        "JSON Lines: rows of the dataset with their targets, such as dev.json",
        "JSON Lines：带 target 的数据集样本，例如 dev.json",
    ),
    "predictions_file": ("… or a file of predictions (.json, .jsonl, .gz)", "……或上传预测文件（.json、.jsonl、.gz）"),
    "references_file": ("… or a file of references (.json, .jsonl, .gz)", "……或上传参考文件（.json、.jsonl、.gz）"),
    "protocol": ("Protocol", "评分协议"),
    "protocol_info": (
        "official: equal to the official scorer; paper: the paper's definitions",
        "official：与官方评分程序一致；paper：按论文的定义",
    ),
    "parser": ("Parser", "解析器"),
    "parser_info": (
        "strict: what the official scorer reads; lenient: what a reader would understand",
        "strict：只读官方程序能读的格式；lenient：读取人能看懂的内容",
    ),
    "missing": ("Count references without a prediction as wrong", "没有预测的样本按错误计"),
    "score": ("Score", "评分"),
    "example": ("Example", "示例"),
    "failed": ("These cannot be scored", "无法评分"),
    "errors": ("Errors by task", "各任务错误分析"),
    "examples": ("Samples with the lowest scores", "得分最低的样本"),
    "nothing_wrong": ("No errors.", "没有错误。"),
    "cut": ("… {n:,} characters more", "……另有 {n:,} 个字符"),
    "empty": ("The {what} are empty: paste rows or upload a file.", "{what}为空：请粘贴内容或上传文件。"),
    "twice": (
        "The {what} are given twice, pasted and as a file: remove one of the two.",
        "{what}既粘贴了内容又上传了文件：请只保留一种。",
    ),
    "too_large": (
        f"The {{what}} are larger than {MAX_BYTES >> 20} MiB: score them in parts, or use promptcblue-metric.",
        f"{{what}}超过 {MAX_BYTES >> 20} MiB：请分批评分，或使用命令行 promptcblue-metric。",
    ),
    "too_many": (
        f"The {{what}} have more than {MAX_ROWS:,} rows: score them in parts, or use promptcblue-metric.",
        f"{{what}}超过 {MAX_ROWS:,} 行：请分批评分，或使用命令行 promptcblue-metric。",
    ),
    "too_long": (
        f"Sample {{what}} has a text of more than {MAX_CHARACTERS:,} characters: shorten it, or use the command line.",
        f"样本 {{what}} 有超过 {MAX_CHARACTERS:,} 个字符的文本：请截短，或使用命令行 promptcblue-metric。",
    ),
    "too_slow": (
        f"Scoring took more than {MAX_SECONDS} seconds: score them in parts, or use promptcblue-metric.",
        f"评分超过 {MAX_SECONDS} 秒：请分批评分，或使用命令行 promptcblue-metric。",
    ),
    "too_many_items": (
        "The answers list too many items to analyse here: score them in parts, or use promptcblue-metric.",
        "答案所列条目过多，此处无法分析：请分批评分，或使用命令行 promptcblue-metric。",
    ),
    "no_prediction": (
        "{what} of the references have no prediction: add them, or count them as wrong (above).",
        "有 {what} 个参考样本没有预测：请补全，或勾选上方的“没有预测的样本按错误计”。",
    ),
}

_STYLE = """
.promptcblue { font-variant-numeric: tabular-nums; line-height: 1.6 }
.promptcblue table { border-collapse: collapse; margin: .5em 0 1em; min-width: 14em }
.promptcblue th, .promptcblue td { padding: .25em .8em; border-bottom: 1px solid var(--border-color-primary);
  text-align: left }
.promptcblue .n { text-align: right }
.promptcblue .n, .promptcblue .scores td { white-space: nowrap }
.promptcblue .mean td { font-style: italic; background: var(--background-fill-secondary) }
.promptcblue th, .promptcblue .overall td, .promptcblue h3, .promptcblue h4 { font-weight: 600 }
.promptcblue h3 { font-size: 1.2em; margin: 1em 0 .4em }
.promptcblue .scroll { overflow-x: auto }
.promptcblue .tables { display: flex; flex-wrap: wrap; gap: 0 2em; align-items: flex-start }
.promptcblue code, .promptcblue pre { font-family: monospace, monospace; font-size: .9em; white-space: pre-wrap;
  overflow-wrap: anywhere }
.promptcblue pre { margin: .2em 0 .6em; padding: .4em .7em; background: var(--background-fill-secondary);
  max-height: 16em; overflow-y: auto }
.promptcblue details { border-bottom: 1px solid var(--border-color-primary) }
.promptcblue summary { cursor: pointer; padding: .4em 0 }
.promptcblue .failed { border-left: 4px solid var(--error-icon-color); padding: .4em 1em; white-space: pre-wrap;
  overflow-wrap: anywhere }
"""

#: Four samples and their outputs: one right, one wrong, one with a mention missed, one in a sentence.
EXAMPLE_REFERENCES: Sequence[Sample] = (
    {
        "input": "头痛和头疼是同一个意思吗？\n选项：是的，不是\n答：",
        "target": "是的",
        "answer_choices": ["是的", "不是"],
        "sample_id": "1",
        "task_type": "cls",
        "task_dataset": "CHIP-STS",
    },
    {
        "input": "“感冒吃什么药”和“感冒怎么预防”的意思相同吗？\n选项：是的，不是\n答：",
        "target": "不是",
        "answer_choices": ["是的", "不是"],
        "sample_id": "2",
        "task_type": "cls",
        "task_dataset": "CHIP-STS",
    },
    {
        "input": "找出句子中的疾病和药物：\n肺炎患者应遵医嘱服用阿莫西林。\n答：",
        "target": "上述句子中的实体包含：\n疾病实体：肺炎\n药物实体：阿莫西林",
        "answer_choices": ["疾病", "药物"],
        "sample_id": "3",
        "task_type": "ner",
        "task_dataset": "CMeEE-V2",
    },
    {
        "input": "搜索：小儿推拿要多少钱\n意图是什么？\n选项：医疗费用，治疗方案\n答：",
        "target": "医疗费用",
        "answer_choices": ["医疗费用", "治疗方案"],
        "sample_id": "4",
        "task_type": "cls",
        "task_dataset": "KUAKE-QIC",
    },
)
EXAMPLE_OUTPUTS = ("是的", "是的", "上述句子中的实体包含：\n疾病实体：肺炎\n药物实体：", "答案是“医疗费用”。")


class RefusedError(PromptCBLUEError):
    """A request that is not scored, with the reason in both languages."""

    def __init__(self, key: str, what: Words | str = "") -> None:
        english, chinese = (what, what) if isinstance(what, str) else what
        self.words: Words = TEXTS[key][0].format(what=english), TEXTS[key][1].format(what=chinese)
        super().__init__(self.words[0])


@dataclass(frozen=True)
class Given:
    """What the user gave for one of the two inputs: a text, or the path of an uploaded file."""

    what: Words
    text: str
    path: str | None

    def save(self, target: Path) -> Path:
        """Write it, unpacked, to ``target``; refuse what is too large before it is read to its end.

        Raises:
            RefusedError: nothing is there, both are, or they are beyond the limits.
            PromptCBLUEError: the file cannot be read.
        """
        english, chinese = self.what
        what = english.lower(), chinese
        if bool(self.text.strip()) == bool(self.path):
            raise RefusedError("twice" if self.path else "empty", what)
        if self.path:
            with open_binary(Path(self.path)) as stream:
                try:
                    content = stream.read(MAX_BYTES + 1)
                except (OSError, EOFError) as error:
                    raise PromptCBLUEError(f"the file of {english.lower()} cannot be read: {error}") from error
        else:
            content = self.text.encode(errors="surrogatepass")
        if len(content) > MAX_BYTES:
            raise RefusedError("too_large", what)
        if content.count(b"\n") > MAX_ROWS:
            raise RefusedError("too_many", what)
        target.write_bytes(content)
        return target


def score(predictions: Given, references: Given, protocol: Protocol, parser: Parser, *, count_missing: bool) -> Report:
    """The report (`report.build_report`) of what was given.

    Raises:
        PromptCBLUEError: it cannot be scored; a `RefusedError` says why in both languages.
    """
    deadline = time.monotonic() + MAX_SECONDS

    def in_time(step: str = "") -> None:
        if time.monotonic() > deadline:
            raise RefusedError("too_slow")

    with tempfile.TemporaryDirectory(prefix="promptcblue-space-") as scratch:
        folder = Path(scratch)
        try:
            rows = predictions.save(folder / "predictions.jsonl")
            samples = iter_samples(str(references.save(folder / "references.jsonl")), "test")
            scored = list(_scored(rows, samples, parser, in_time))
        except PromptCBLUEError as error:
            if isinstance(error, RefusedError):
                raise
            # The folder's name is ours, and tells the user nothing.
            raise PromptCBLUEError(str(error).replace(f"{folder}{os.sep}", "")) from error
    absent = sum(sample.prediction is None for sample in scored)
    if absent and not count_missing:
        raise RefusedError("no_prediction", str(absent))
    return build_report(scored, protocol, parser, resamples=0, progress=in_time)


def _scored(
    predictions: Path, references: Iterable[Sample], parser: Parser, in_time: Callable[[], object]
) -> Iterator[ScoredSample]:
    """The samples, scored one by one, as long as there is time and they can be analysed in it."""
    evaluation, pairs = Evaluation(parser=parser), 0
    for sample, prediction in match(predictions, references):
        text = prediction.text if prediction else None
        if max(len(text or ""), len(sample["target"]), len(sample["input"])) > MAX_CHARACTERS:
            raise RefusedError("too_long", short(sample["sample_id"]))
        in_time()
        scored = evaluation.add(text, sample)
        if scored.parsed and isinstance(scored.gold, list):
            pairs += len(scored.gold) * len(scored.parsed.answer)
        if pairs > MAX_PAIRS:
            raise RefusedError("too_many_items")
        yield scored


def result_html(report: Report, language: Language) -> str:
    """The scores, the signature and every task's errors, all escaped."""
    parts = Markup("").join([_scores(report, language), _analysis(report, language)])
    name = "zh-CN" if language == "zh" else "en"
    return str(Markup('<div class="promptcblue" lang="{}">{}</div>').format(name, parts))


def failure_html(words: Words, language: Language) -> str:
    """Why nothing was scored."""
    html = Markup('<div class="promptcblue"><div class="failed" role="alert"><b>{}</b>\n{}</div></div>')
    return str(html.format(_text("failed", language), words[language == "zh"]))


def _text(key: str, language: Language, **values: object) -> str:
    return TEXTS[key][language == "zh"].format(**values)


def _word(word: str, language: Language) -> str:
    """A word of the report in the language; what belongs to neither stays."""
    if language == "zh" and isinstance(word, Phrase):
        return "；".join(CHINESE.get(pattern, pattern).format(**values) for pattern, values in word.parts)
    return CHINESE.get(word, word) if language == "zh" else word


def _row(cells: Iterable[str], numbers_from: int, kind: str = "", tag: str = "td") -> Markup:
    written = (
        Markup("<{0}{1}>{2}</{0}>").format(tag, Markup(' class="n"' if place >= numbers_from else ""), cell)
        for place, cell in enumerate(cells)
    )
    return Markup('<tr class="{}">{}</tr>').format(kind, Markup("").join(written))


def _table(heads: Iterable[str], rows: Iterable[Markup], numbers_from: int, name: str) -> Markup:
    return Markup('<div class="scroll"><table class="{}"><thead>{}</thead><tbody>{}</tbody></table></div>').format(
        name, _row(heads, numbers_from, tag="th"), Markup("").join(rows)
    )


def _scores(report: Report, language: Language) -> Markup:
    table = score_table(report)
    heads = [_word(column.title, language) for column in table.columns]
    rows = (_row([_word(cell, language) for cell in row.cells], 2, row.kind) for row in table.rows)
    absent = report["missing_predictions"]
    return Markup("{}{}<p>{}: <code>{}</code></p>").format(
        _table(heads, rows, 2, "scores"),
        Markup("<p>{}: {}</p>").format(_word("without a prediction, counted as wrong", language), absent)
        if absent
        else "",
        _word("signature", language),
        report["signature"],
    )


def _analysis(report: Report, language: Language) -> Markup:
    tasks = Markup("").join(_task(name, task, language) for name, task in report["tasks"].items())
    return Markup("<h3>{}</h3>{}").format(_text("errors", language), tasks)


def _task(name: str, task: TaskReport, language: Language) -> Markup:
    counts = [(row["kind"], row["n"]) for row in task["outcomes"]]
    others = {"Output form": task["states"], "Repairs": task["repairs"], "Problems": task["problems"]}
    lists = (("outcome", counts), *((title, list(found.items())) for title, found in others.items()))
    tables = [
        _table(
            (_word(title, language), _word("number", language)),
            (_row((_word(kind, language), str(n)), 1) for kind, n in rows),
            1,
            title.lower().replace(" ", "-"),
        )
        for title, rows in lists
        if rows
    ]
    worst = [example for example in task["examples"] if example["score"] < 1 or example["kinds"]][:EXAMPLES]
    shown = Markup("").join(_example(example, language) for example in worst)
    body = Markup("<h4>{}</h4>{}").format(_text("examples", language), shown) if worst else _nothing_wrong(language)
    return Markup(
        '<details data-task="{0}"><summary>{0}: {1}</summary><div class="tables">{2}</div>{3}</details>'
    ).format(name, f"{task['score']:.4f}", Markup("").join(tables), body)


def _nothing_wrong(language: Language) -> Markup:
    return Markup("<p>{}</p>").format(_text("nothing_wrong", language))


def _example(example: Mapping[str, Any], language: Language) -> Markup:
    kinds = ", ".join(_word(kind, language) for kind in (*example["kinds"], example["state"]))
    head = Markup("<p><code>{}</code> {} ({})</p>").format(example["sample_id"], f"{example['score']:.4f}", kinds)
    texts = [
        Markup("<div>{}</div><pre>{}{}</pre>").format(
            _word(title, language).capitalize(),
            text["text"],
            _text("cut", language, n=text["omitted"]) if text["omitted"] else "",
        )
        for title, key in (("Prompt", "prompt"), ("gold", "gold"), ("prediction", "prediction"))
        if (text := example[key]) is not None
    ]
    return head + Markup("").join(texts)


def build_page() -> gr.Blocks:
    """The page; `serve` launches it."""
    language = next(iter(LANGUAGES))
    page = gr.Blocks(title="PromptCBLUE", analytics_enabled=False, delete_cache=CLEANING)
    with page:
        switch = gr.Radio(list(LANGUAGES), value=language, show_label=False, container=False, elem_id="language")
        intro = gr.Markdown(elem_id="intro")
        outcome = gr.State(None, time_to_live=CLEANING[1])
        boxes, files = {}, {}
        with gr.Row():
            for name in ("predictions", "references"):
                with gr.Column():
                    boxes[name] = gr.Textbox(lines=10, max_lines=10, elem_id=name, buttons=[])
                    files[name] = gr.File(file_types=[".json", ".jsonl", ".gz"], height=140, elem_id=f"{name}_file")
        with gr.Row():
            protocol = gr.Radio(list(PROTOCOLS), value=PROTOCOLS[0], elem_id="protocol")
            parser = gr.Radio(list(PARSERS), value=PARSERS[0], elem_id="parser")
        missing = gr.Checkbox(value=False, elem_id="missing")
        with gr.Row():
            button = gr.Button(variant="primary", elem_id="score")
            example = gr.Button(elem_id="example")
        result = gr.HTML(elem_id="result", js_on_load=None, apply_default_css=False)
        named = {"protocol": protocol, "parser": parser}
        labelled = [intro, *boxes.values(), *files.values(), *named.values(), missing, button, example]

        def words(chosen: str) -> list[Any]:
            """Updates of all `labelled` in a language."""
            chosen_language = LANGUAGES[chosen]

            def say(key: str) -> str:
                return _text(key, chosen_language)

            return [
                gr.Markdown(f"# {say('title')}\n\n{say('intro')}"),
                *(gr.Textbox(label=say(name), info=TEXTS[f"{name}_info"][chosen_language == "zh"]) for name in boxes),
                *(gr.File(label=say(f"{name}_file")) for name in files),
                *(gr.Radio(label=say(name), info=say(f"{name}_info")) for name in named),
                gr.Checkbox(label=say("missing")),
                gr.Button(say("score")),
                gr.Button(say("example")),
            ]

        def shown(found: Report | Words | None, chosen: str) -> str:
            if found is None:
                return ""
            in_language = LANGUAGES[chosen]
            return failure_html(found, in_language) if isinstance(found, tuple) else result_html(found, in_language)

        def first(request: gr.Request) -> list[Any]:
            """The browser's language."""
            header = request.headers.get("accept-language", "zh")
            chosen = "中文" if header.lower().startswith("zh") else "English"
            return [chosen, *words(chosen)]

        def switched(chosen: str, found: Any) -> list[Any]:
            return [*words(chosen), shown(found, chosen)]

        def pressed(chosen: str, *given: Any) -> tuple[Any, str]:
            texts, paths, (chosen_protocol, chosen_parser, count_missing) = given[:2], given[2:4], given[4:]
            predictions, references = (
                Given(TEXTS[name], text or "", path) for name, text, path in zip(boxes, texts, paths, strict=True)
            )
            found: Report | Words
            try:
                found = score(predictions, references, chosen_protocol, chosen_parser, count_missing=count_missing)
            except RefusedError as error:
                found = error.words
            except PromptCBLUEError as error:
                found = (str(error), str(error))
            return found, shown(found, chosen)

        def filled() -> tuple[str, str, None, None]:
            return (*example_inputs(), None, None)

        inputs = [switch, *boxes.values(), *files.values(), protocol, parser, missing]
        page.load(first, None, [switch, *labelled], api_visibility="private")
        switch.input(switched, [switch, outcome], [*labelled, result], api_visibility="private")
        button.click(pressed, inputs, [outcome, result], api_visibility="private", concurrency_limit=2)
        example.click(filled, None, [*boxes.values(), *files.values()], api_visibility="private")
    return page


def example_inputs() -> tuple[str, str]:
    """The example's predictions and references as JSON Lines."""
    predictions = [
        {"sample_id": row["sample_id"], "prediction": output}
        for row, output in zip(EXAMPLE_REFERENCES, EXAMPLE_OUTPUTS, strict=True)
    ]
    written = (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) for rows in (predictions, EXAMPLE_REFERENCES)
    )
    first, second = written
    return first, second


def serve() -> None:
    """Serve the page until the process is told to stop; Gradio's environment variables give address and port."""
    around = os.environ.get("GRADIO_TEMP_DIR")
    if around:
        Path(around).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="promptcblue-space-", dir=around) as uploads:
        os.environ.update(GRADIO_TEMP_DIR=uploads, GRADIO_ANALYTICS_ENABLED="False")
        # So that the uploads are deleted, too, when a container is stopped.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        page = build_page().queue(max_size=16, default_concurrency_limit=4)
        page.launch(
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            css=_STYLE,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            ssr_mode=False,
        )
