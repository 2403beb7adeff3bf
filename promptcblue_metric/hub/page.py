"""The page of the metric's Space: paste or upload predictions and references, get scores, errors and signature.

Model output is hostile: it is cut and made visible (`analysis.shown`), every text is escaped where it meets HTML, and
bytes, rows, lengths and time are bounded. Uploads are deleted after a while, and all of them when the page stops; other
files live only as long as a request.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import gradio as gr
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..data.predictions import match
from ..data.samples import Sample, iter_samples, open_binary
from ..data.writing import scratch_folder
from ..errors import PromptCBLUEError
from ..evaluation import PARSERS, Evaluation, Parser, ScoredSample
from ..report.analysis import short
from ..report.report import Report, TaskReport, build_report
from ..report.tables import CHINESE, Phrase, score_table
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
_HERE = Path(__file__).parent
_DATA = json.loads((_HERE / "space.json").read_text(encoding="utf-8"))
TEXTS: Mapping[str, Words] = {key: (english, chinese) for key, (english, chinese) in _DATA["texts"].items()}
#: Samples, each with an output: one right, one wrong, one with a mention missed, one in a sentence.
EXAMPLE: Sequence[Mapping[str, object]] = _DATA["example"]
#: What texts say of the limits.
_LIMITS = {
    "mib": MAX_BYTES >> 20,
    "rows": MAX_ROWS,
    "characters": MAX_CHARACTERS,
    "seconds": MAX_SECONDS,
    "minutes": CLEANING[1] // 60,
}


class RefusedError(PromptCBLUEError):
    """A request that is not scored, with the reason in both languages."""

    def __init__(self, key: str, what: Words = ("", "")) -> None:
        self.words: Words = _text(key, "en", what=what[0]), _text(key, "zh", what=what[1])
        super().__init__(self.words[0])


def _save(name: str, text: str, path: str | None, target: Path) -> Path:
    """Write an input, a text or an uploaded file, unpacked to ``target``; refuse what is too large before it is read.

    Raises:
        RefusedError: nothing is there, both are, or they are beyond the limits.
        PromptCBLUEError: the file cannot be read.
    """
    english, chinese = TEXTS[name]
    content = text.encode(errors="surrogatepass")
    if path:
        with open_binary(Path(path)) as stream:
            try:
                content = stream.read(MAX_BYTES + 1)
            except (OSError, EOFError) as error:
                raise PromptCBLUEError(f"the file of {english.lower()} cannot be read: {error}") from error
    for key, refused in (
        ("twice", path and text.strip()),
        ("empty", not path and not text.strip()),
        ("too_large", len(content) > MAX_BYTES),
        ("too_many", content.count(b"\n") > MAX_ROWS),
    ):
        if refused:
            raise RefusedError(key, (english.lower(), chinese))
    target.write_bytes(content)
    return target


def score(
    given: Mapping[str, tuple[str, str | None]], protocol: Protocol, parser: Parser, *, count_missing: bool
) -> Report:
    """The report (`report.build_report`) of the text or the file, by its path, of ``predictions`` and ``references``.

    Raises:
        PromptCBLUEError: it cannot be scored; a `RefusedError` says why in both languages.
    """
    deadline = time.monotonic() + MAX_SECONDS

    def in_time(step: str = "") -> None:
        if time.monotonic() > deadline:
            raise RefusedError("too_slow")

    with scratch_folder() as folder:
        try:
            rows, samples = (_save(name, *found, folder / f"{name}.jsonl") for name, found in given.items())
            scored = list(_scored(rows, iter_samples(samples, "test"), parser, in_time))
        except PromptCBLUEError as error:
            if isinstance(error, RefusedError):
                raise
            # The folder's name is ours, and tells the user nothing.
            raise PromptCBLUEError(str(error).replace(f"{folder}{os.sep}", "")) from error
    absent = sum(sample.prediction is None for sample in scored)
    if absent and not count_missing:
        raise RefusedError("no_prediction", (str(absent), str(absent)))
    return build_report(scored, protocol, parser, resamples=0, progress=in_time)


def _scored(
    predictions: Path, references: Iterable[Sample], parser: Parser, in_time: Callable[[], object]
) -> Iterator[ScoredSample]:
    """The samples, scored one by one, as long as there is time and they can be analysed in it."""
    evaluation, pairs = Evaluation(parser=parser), 0
    for sample, prediction in match(predictions, references):
        text = prediction.text if prediction else None
        if max(len(text or ""), len(sample["target"]), len(sample["input"])) > MAX_CHARACTERS:
            raise RefusedError("too_long", (short(sample["sample_id"]),) * 2)
        in_time()
        scored = evaluation.add(text, sample)
        if scored.parsed and isinstance(scored.gold, list):
            pairs += len(scored.gold) * len(scored.parsed.answer)
        if pairs > MAX_PAIRS:
            raise RefusedError("too_many_items")
        yield scored


def found_html(found: Report | Words | None, language: Language) -> str:
    """A report's scores, signature and errors, all escaped, or why there is none; nothing before anything was asked."""
    if found is None:
        return ""
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("space.html.j2").render(
        language=language,
        report=None if isinstance(found, tuple) else found,
        failure=found[language == "zh"] if isinstance(found, tuple) else "",
        say=lambda key, **values: _text(key, language, **values),
        word=lambda word: _word(word, language),
        score_table=score_table,
        lists=_lists,
        worst=lambda task: [row for row in task["examples"] if row["score"] < 1 or row["kinds"]][:EXAMPLES],
    )


def _lists(task: TaskReport) -> dict[str, dict[str, int]]:
    """What is counted of a task, by what it is."""
    outcomes, states = {row["kind"]: row["n"] for row in task["outcomes"]}, task["states"]
    return {"outcome": outcomes, "Output form": states, "Repairs": task["repairs"], "Problems": task["problems"]}


def _text(key: str, language: Language, **values: object) -> str:
    return TEXTS[key][language == "zh"].format(**_LIMITS, **values)


def _word(word: str, language: Language) -> str:
    """A word of the report in the language; what belongs to neither stays."""
    if language == "zh" and isinstance(word, Phrase):
        return "；".join(CHINESE.get(pattern, pattern).format(**values) for pattern, values in word.parts)
    return CHINESE.get(word, word) if language == "zh" else word


def _words(chosen: str) -> list[object]:
    """Updates of all that has words on it, in a language and in the order of `build_page`."""

    def say(key: str) -> str:
        return _text(key, LANGUAGES[chosen])

    inputs, settings = ("predictions", "references"), ("protocol", "parser")
    return [
        gr.Markdown(f"# {say('title')}\n\n{say('intro')}"),
        *(gr.Textbox(label=say(name), info=say(f"{name}_info")) for name in inputs),
        *(gr.File(label=say(f"{name}_file")) for name in inputs),
        *(gr.Radio(label=say(name), info=say(f"{name}_info")) for name in settings),
        gr.Checkbox(label=say("missing")),
        gr.Button(say("score")),
        gr.Button(say("example")),
    ]


def _first(request: gr.Request) -> list[object]:
    """The browser's language."""
    chosen = "中文" if request.headers.get("accept-language", "zh").lower().startswith("zh") else "English"
    return [chosen, *_words(chosen)]


def _switched(chosen: str, found: Report | Words | None) -> list[object]:
    return [*_words(chosen), found_html(found, LANGUAGES[chosen])]


def _pressed(chosen: str, *given: Any) -> tuple[Report | Words, str]:
    """Score what the boxes, the files and the settings hold."""
    predictions, references, *files, protocol, parser, count_missing = given
    texts = {"predictions": (predictions or "", files[0]), "references": (references or "", files[1])}
    found: Report | Words
    try:
        found = score(texts, protocol, parser, count_missing=count_missing)
    except RefusedError as error:
        found = error.words
    except PromptCBLUEError as error:
        found = (str(error), str(error))
    return found, found_html(found, LANGUAGES[chosen])


def build_page() -> gr.Blocks:
    """The page; `serve` launches it."""
    boxes, files = list[gr.Textbox](), list[gr.File]()
    page = gr.Blocks(title="PromptCBLUE", analytics_enabled=False, delete_cache=CLEANING)
    with page:
        languages = list(LANGUAGES)
        switch = gr.Radio(languages, value=languages[0], show_label=False, container=False, elem_id="language")
        intro, outcome = gr.Markdown(elem_id="intro"), gr.State(None, time_to_live=CLEANING[1])
        with gr.Row():
            for name in ("predictions", "references"):
                with gr.Column():
                    boxes.append(gr.Textbox(lines=10, max_lines=10, elem_id=name, buttons=[]))
                    files.append(gr.File(file_types=[".json", ".jsonl", ".gz"], height=140, elem_id=f"{name}_file"))
        with gr.Row():
            named = (("protocol", PROTOCOLS), ("parser", PARSERS))
            radios = [gr.Radio(list(values), value=values[0], elem_id=name) for name, values in named]
        settings = [*radios, gr.Checkbox(value=False, elem_id="missing")]
        with gr.Row():
            button, example = gr.Button(variant="primary", elem_id="score"), gr.Button(elem_id="example")
        result = gr.HTML(elem_id="result", js_on_load=None, apply_default_css=False)
        given = [*boxes, *files]
        labelled = [intro, *given, *settings, button, example]
        page.load(_first, None, [switch, *labelled], api_visibility="private")
        switch.input(_switched, [switch, outcome], [*labelled, result], api_visibility="private")
        inputs = [switch, *given, *settings]
        button.click(_pressed, inputs, [outcome, result], api_visibility="private", concurrency_limit=2)
        example.click(lambda: (*example_inputs(), None, None), None, given, api_visibility="private")
    return page


def example_inputs() -> tuple[str, str]:
    """The example's predictions and references as JSON Lines."""

    def lines(*fields: str) -> str:
        return "\n".join(json.dumps({field: row[field] for field in fields}, ensure_ascii=False) for row in EXAMPLE)

    return lines("sample_id", "prediction"), lines(*(field for field in EXAMPLE[0] if field != "prediction"))


def serve() -> None:
    """Serve the page until the process is told to stop; Gradio's environment variables give address and port."""
    around = os.environ.get("GRADIO_TEMP_DIR")
    if around:
        Path(around).mkdir(parents=True, exist_ok=True)
    with scratch_folder(around) as uploads:
        os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False")
        # So that the uploads are deleted, too, when a container is stopped.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        page = build_page().queue(max_size=16, default_concurrency_limit=4)
        try:
            page.launch(
                max_file_size=MAX_UPLOAD,
                footer_links=[],
                css=(_HERE / "space.css").read_text(encoding="utf-8"),
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                ssr_mode=False,
            )
        finally:
            page.close(verbose=False)  # else it could go on writing uploads while they are deleted
