"""The ``openai`` backend against a server that goes wrong in every way, and against a real one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset import load_samples
from promptcblue_metric.data.predictions import match
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.backends import (
    Backend,
    BackendSettings,
    Completion,
    Failure,
    Request,
    ServerSettings,
    load_backend,
)
from promptcblue_training.predict import predict
from promptcblue_training.prompts import Shot

from ..conftest import read_rows

KEY = "sk-this-is-the-secret-key"


def answer_to(prompt: str) -> str:
    return f"答{hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


class FaultyServer(ThreadingHTTPServer):
    """An endpoint that answers with a digest of the prompt, after the faults that are planned for it.

    ``plan`` lists faults by prompt, ``always`` one for all; ``seen`` has the time, path, headers and body of each
    request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: dict[str, list[str]] = {}
        self.always: str | None = None
        self.seen: list[tuple[float, str, dict[str, str], dict[str, Any]]] = []
        self.at_once = self.most_at_once = 0
        #: Answers a request's body in place of the digest: status, and what is sent as JSON or as it is.
        self.reply: Callable[[dict[str, Any]], tuple[int, Any]] | None = None
        self.usage: dict[str, int] | None = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        server = self.server
        with server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.seen.append((time.monotonic(), self.path, headers, body))
            planned = server.plan.get(prompt)
            fault = planned.pop(0) if planned else server.always
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            time.sleep(0.01)
            if server.reply is None:
                self.answer(fault, prompt, chat="messages" in body)
            else:
                status, content = server.reply(body)
                page = isinstance(content, str)
                raw = (content if page else json.dumps(content)).encode()
                self.reply(status, raw, kind="text/html" if page else "application/json")
        except OSError:
            pass
        finally:
            with server.lock:
                server.at_once -= 1

    def answer(self, fault: str | None, prompt: str, *, chat: bool) -> None:
        if fault == "hang":
            time.sleep(1.0)
        elif fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "half":
            self.close_connection = True
            self.reply(200, b'{"choices": [{"mess', length=500)
        elif fault == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.03)
        elif fault == "malformed":
            self.reply(200, b'{"choices": [{"message": {"content": "half an an')
        elif fault == "html":
            self.reply(200, b"<html>please log in</html>", kind="text/html")
        elif fault == "empty":
            self.reply(200, b'{"choices": []}')
        elif fault == "null":
            self.reply(200, b'{"choices": [{"index": 0, "message": {"content": null}, "finish_reason": "stop"}]}')
        elif fault and fault.startswith("429"):
            self.reply(429, b'{"error": {"message": "slow down"}}', retry_after=fault.partition(" ")[2])
        elif fault and fault.isdigit():
            message = f"status {fault}, said to the owner of {self.headers['Authorization']}"
            self.reply(int(fault), json.dumps({"error": {"message": message}}).encode())
        elif fault == "rename":
            self.reply(400, b'{"error": {"message": "Unsupported parameter: use max_completion_tokens instead"}}')
        else:
            text = answer_to(prompt)
            choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices = [{"index": 0, "finish_reason": "length" if fault == "long" else "stop", **choice}]
            self.reply(200, json.dumps({"id": "x", "choices": choices, "usage": self.server.usage}).encode())

    def reply(
        self,
        status: int,
        content: bytes,
        kind: str = "application/json",
        length: int | None = None,
        retry_after: str | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with FaultyServer() as faulty:
        thread = threading.Thread(target=faulty.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield faulty
        faulty.shutdown()
        thread.join()


def settings(server: FaultyServer, **changes: Any) -> BackendSettings:
    names = {field.name for field in fields(BackendSettings)}
    own = {key: changes.pop(key) for key in list(changes) if key in names}
    return BackendSettings(
        model="m", name="openai", server=ServerSettings(**{"base_url": server.url, "timeout": 0.5, **changes}), **own
    )


def ask(backend: Backend, prompts: list[str], **fields: Any) -> dict[str, Completion | Failure]:
    requests = [Request(index, prompt, 16, **fields) for index, prompt in enumerate(prompts)]
    return {prompts[result.index]: result for result in backend.generate(requests)}


FAULTS = ["429 0", "500", "503", "408", "409", "hang", "drop", "half", "drip", "malformed", "html", "empty", "null"]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_every_prompt_gets_its_own_answer_whatever_goes_wrong_in_passing(server: FaultyServer, endpoint: str) -> None:
    prompts = [f"题{number}" for number in range(2 * len(FAULTS))]
    server.plan = {f"题{number}": [fault, FAULTS[number - 1]] for number, fault in enumerate(FAULTS)}
    backend = load_backend(settings(server, endpoint=endpoint, concurrency=8))
    for prompt, result in ask(backend, prompts).items():
        assert isinstance(result, Completion), result
        assert (result.text, result.finish_reason) == (answer_to(prompt), "stop")
        assert (result.prompt_tokens, result.new_tokens) == (10, 3)
    assert not any(server.plan.values())
    assert any("times a request had to be sent again" in line for line in backend.summary())
    assert {path for _, path, _, _ in server.seen} == {f"/v1/{'chat/' if endpoint == 'chat' else ''}completions"}


def test_requests_go_out_side_by_side_up_to_the_limit(server: FaultyServer) -> None:
    def patient(body: dict[str, Any]) -> tuple[int, Any]:
        # A busy machine may be slow to send the others.
        time.sleep(0.2 if server.most_at_once < 3 else 0.01)
        return 200, said(content="答")

    server.reply = patient
    ask(load_backend(settings(server, concurrency=3)), [f"题{number}" for number in range(30)])
    assert server.most_at_once == 3


@pytest.mark.parametrize("form", ["0.4", "date"])
def test_the_server_says_how_long_to_wait(server: FaultyServer, form: str) -> None:
    from email.utils import formatdate

    wait = form if form != "date" else formatdate(time.time() + 2, usegmt=True)
    server.plan = {"题0": [f"429 {wait}"]}
    started = time.time()
    ask(load_backend(settings(server, concurrency=4)), ["题0", "题1", "题2"])
    times = [when for when, _, _, _ in server.seen]
    # A date has no parts of a second: the wait is what was left until it.
    assert times[1] - times[0] >= (0.4 if form != "date" else 0.9)
    assert time.time() - started < 4
    assert len(times) == 4


def test_a_wait_beyond_reason_is_a_failure_and_not_a_sleep(server: FaultyServer) -> None:
    server.plan = {"题1": ["429 86400"]}
    results = ask(load_backend(settings(server)), ["题0", "题1", "题2"])
    assert [type(results[f"题{number}"]) for number in range(3)] == [Completion, Failure, Completion]


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_what_would_fail_for_every_request_stops_the_run_at_once(server: FaultyServer, status: str) -> None:
    server.always = status
    with pytest.raises(PromptCBLUEError, match=status) as error:
        ask(load_backend(settings(server)), ["题0", "题1", "题2"])
    assert len(server.seen) == 1
    assert KEY not in str(error.value)


def test_an_endpoint_that_is_not_there_is_one_error_and_loses_nothing(data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = BackendSettings(model="m", name="openai", server=ServerSettings(base_url=f"http://127.0.0.1:{port}/v1"))
    started = time.monotonic()
    with pytest.raises(PromptCBLUEError, match=f"127.0.0.1:{port}/v1 cannot be reached"):
        predict(str(data), "test", tmp_path / "p.jsonl", away)
    assert time.monotonic() - started < 10


def test_an_endpoint_that_goes_away_stops_the_run_and_keeps_what_is_there(server: FaultyServer, tmp_path: Path) -> None:
    samples = load_samples("sample", "test")
    output = tmp_path / "p.jsonl"
    served = 10
    for sample in samples[served:]:
        server.plan[sample["input"]] = ["503"] * 99
    with pytest.raises(PromptCBLUEError, match=r"requests failed.*503.*goes on from there"):
        predict("sample", "test", output, settings(server, concurrency=2, retries=0))
    rows = read_rows(output)
    assert sum("prediction" in row for row in rows) == served
    server.plan.clear()
    predict("sample", "test", output, settings(server))
    assert len(read_rows(output)) == len(samples)


def test_failed_samples_are_kept_as_failed_tried_again_and_empty_only_on_request(
    server: FaultyServer, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = load_samples(data, "test")
    bad = samples[3]
    output = tmp_path / "p.jsonl"
    server.plan = {bad["input"]: ["400", "400", "400"]}
    with pytest.raises(PromptCBLUEError, match="1 of 16 samples have no prediction"):
        predict(str(data), "test", output, settings(server))
    (failed,) = [row for row in read_rows(output) if "error" in row]
    assert failed["sample_id"] == bad["sample_id"]
    assert "prediction" not in failed
    assert "status 400" in failed["error"]
    # Scoring takes it for a sample without a prediction.
    paired = {sample["sample_id"]: prediction for sample, prediction in match(output, samples)}
    assert [sample_id for sample_id, prediction in paired.items() if prediction is None] == [bad["sample_id"]]

    asked = len(server.seen)
    predict(str(data), "test", output, settings(server), failed_as_empty=True)
    assert len(server.seen) == asked + 1
    rows = read_rows(output)
    assert len(rows) == 16
    (empty,) = [row for row in rows if "error" in row]
    assert empty["prediction"] == ""
    assert all(prediction is not None for _, prediction in match(output, samples))
    assert "1 of them empty" in capsys.readouterr().out

    server.plan.clear()
    predict(str(data), "test", output, settings(server))
    rows = read_rows(output)
    assert {row["prediction"] for row in rows} == {answer_to(sample["input"]) for sample in samples}
    assert not any("error" in row for row in rows)


def test_the_key_is_used_and_never_written(
    server: FaultyServer, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    first = load_samples(data, "test")[2]
    server.plan = {first["input"]: ["400"]}  # which repeats the key
    with pytest.raises(PromptCBLUEError):
        predict(str(data), "test", tmp_path / "p.jsonl", settings(server))
    assert {headers["authorization"] for _, _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    said = capsys.readouterr()
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert "$OPENAI_API_KEY" in written
    for text in (written, said.out, said.err, caplog.text):
        assert KEY not in text


def test_totals_and_cost(server: FaultyServer) -> None:
    backend = load_backend(settings(server, price_in=2.0, price_out=8.0))
    ask(backend, ["题0", "题1"])
    assert any("20 prompt tokens and 6 generated" in line and "0.0001" in line for line in backend.summary())
    server.usage = None
    unreported = load_backend(settings(server))
    result = ask(unreported, ["甲乙丙 abcd"])["甲乙丙 abcd"]
    assert isinstance(result, Completion)
    assert result.prompt_tokens >= 4
    assert any("estimated" in line for line in unreported.summary())


def test_what_is_asked_for(server: FaultyServer) -> None:
    shots = (Shot("问一", "答一"), Shot("问二", "答二"))
    ask(load_backend(settings(server, stop=("\n\n",))), ["问三"], shots=shots)
    _, _, _, body = server.seen[-1]
    assert body.keys() == {"model", "messages", "max_tokens", "stop"}
    assert (body["model"], body["max_tokens"], body["stop"]) == ("m", 16, ["\n\n"])
    assert [(turn["role"], turn["content"]) for turn in body["messages"]] == [
        ("user", "问一"),
        ("assistant", "答一"),
        ("user", "问二"),
        ("assistant", "答二"),
        ("user", "问三"),
    ]
    ask(load_backend(settings(server, shot_style="text")), ["问一答一\n\n问二答二\n\n问三"])
    as_text = server.seen[-1][3]["messages"]
    ask(load_backend(settings(server, shot_style="text")), ["问三"], shots=shots)
    assert server.seen[-1][3]["messages"] == as_text
    # About nine tokens a demonstration: with sixteen for the answer, one of the two fits into 24.
    result = ask(load_backend(settings(server, context=24)), ["问三"], shots=shots)["问三"]
    assert isinstance(result, Completion)
    assert result.dropped == 1
    assert len(server.seen[-1][3]["messages"]) == 3


def test_servers_that_rename_the_limit_are_obeyed(server: FaultyServer) -> None:
    server.plan = {"题0": ["rename"]}
    ask(load_backend(settings(server)), ["题0", "题1"])
    assert [("max_completion_tokens" in body, "max_tokens" in body) for _, _, _, body in server.seen] == [
        (False, True),
        (True, False),
        (True, False),
    ]


def test_an_answer_that_met_its_limit_says_so(server: FaultyServer) -> None:
    server.always = "long"
    result = ask(load_backend(settings(server)), ["题0"])["题0"]
    assert isinstance(result, Completion)
    assert result.finish_reason == "length"


def said(**message: Any) -> dict[str, Any]:
    """A response that holds a message, or other fields of its choice."""
    own: dict[str, Any] = {key: message.pop(key) for key in ("finish_reason", "text") if key in message}
    usage = message.pop("usage", {"prompt_tokens": 10, "completion_tokens": 9})
    choice: dict[str, Any] = {"finish_reason": "stop", "message": message, **own}
    return {"model": "m-2026-01-01", "usage": usage, "choices": [choice]}


def refused(name: str, words: str = "Unsupported parameter: '{}' is not supported with this model.") -> dict[str, Any]:
    return {"error": {"message": words.format(name), "type": "invalid_request_error", "param": name, "code": "x"}}


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "想"}]}, {"type": "text", "text": "答"}]
ALL_THOUGHT = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}}
SHAPES: list[tuple[dict[str, Any], tuple[str, str, str]]] = [
    (said(content="答", reasoning_content="想"), ("答", "想", "stop")),
    (said(content="答", reasoning="想"), ("答", "想", "stop")),
    (said(content="<think>\n想</think>\n\n答"), ("答", "\n想", "stop")),
    (said(content="想</think>答"), ("答", "想", "stop")),
    (said(content=[{"type": "text", "text": "答"}]), ("答", "", "stop")),
    (said(content=PARTS), ("答", "想", "stop")),
    (said(content=None, reasoning_content="想", finish_reason="length"), ("", "想", "thought")),
    (said(content="<think>想", finish_reason="length"), ("", "想", "thought")),
    (said(content="", finish_reason="length", usage=ALL_THOUGHT), ("", "", "thought")),
    (said(content="答", finish_reason="length"), ("答", "", "length")),
    (said(content=None, refusal="我不能回答"), ("我不能回答", "", "refusal")),
    (said(content=None, finish_reason="content_filter"), ("", "", "refusal")),
]


@pytest.mark.parametrize(("shape", "read"), SHAPES)
def test_answers_in_every_shape(server: FaultyServer, shape: dict[str, Any], read: tuple[str, str, str]) -> None:
    server.reply = lambda body: (200, shape)
    result = ask(load_backend(settings(server)), ["题"])["题"]
    assert isinstance(result, Completion)
    assert (result.text, result.thought, result.finish_reason) == read
    assert result.model == "m-2026-01-01"
    assert result.new_tokens + result.thought_tokens == 9
    assert bool(result.thought_tokens) == (bool(read[1]) or read[2] == "thought")


FILTERED: list[tuple[int, dict[str, Any]]] = [
    (400, {"message": "The response was filtered", "code": "content_filter", "param": "prompt"}),
    (400, {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}),
    (403, {"message": "Your input was flagged", "metadata": {"reasons": ["medical"]}}),
]


@pytest.mark.parametrize(("status", "error"), FILTERED)
def test_a_filtered_prompt_is_a_refusal_and_not_tried_again(
    server: FaultyServer, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, error: Any
) -> None:
    server.reply = lambda body: (status, {"error": error})
    predict(str(data), "test", tmp_path / "p.jsonl", settings(server), ["CHIP-STS"])
    (row,) = read_rows(tmp_path / "p.jsonl")
    assert (row["prediction"], row["finish_reason"]) == ("", "refusal")
    assert "error" not in row
    assert "1 are refusals" in capsys.readouterr().out
    predict(str(data), "test", tmp_path / "p.jsonl", settings(server), ["CHIP-STS"])
    assert len(server.seen) == 1


def test_what_an_endpoint_does_not_know_is_learnt_once(server: FaultyServer) -> None:
    known = {"model", "messages", "max_completion_tokens", "thinking"}

    def strict(body: dict[str, Any]) -> tuple[int, Any]:
        unknown = sorted(body.keys() - known)
        return (400, refused(unknown[0])) if unknown else (200, said(content="答"))

    server.reply = strict
    backend = load_backend(settings(server, stop=("终",), thinking="off"))
    results = ask(backend, [f"题{number}" for number in range(10)])
    assert all(isinstance(result, Completion) for result in results.values())
    # Four refusals: max_tokens, stop, and two of three ways to switch thinking off.
    assert len(server.seen) == 10 + 4
    assert server.seen[-1][3]["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    "words", ["Unrecognized request argument supplied: {}", "Unsupported value: '{}' does not support 0"]
)
def test_what_was_asked_for_and_is_refused_ends_the_run(server: FaultyServer, words: str) -> None:
    answer = said(content="答")
    server.reply = lambda body: (400, refused("temperature", words)) if "temperature" in body else (200, answer)
    with pytest.raises(PromptCBLUEError, match=r"refuses temperature.*leave it out"):
        ask(load_backend(settings(server, temperature=0.0)), ["题"])
    assert isinstance(ask(load_backend(settings(server)), ["题"])["题"], Completion)


def test_an_endpoint_without_a_switch_for_thinking_says_so(server: FaultyServer) -> None:
    def strict(body: dict[str, Any]) -> tuple[int, Any]:
        unknown = sorted(body.keys() - {"model", "messages", "max_tokens"})
        detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"} for name in unknown]
        return (422, {"detail": detail}) if unknown else (200, said(content="答"))

    server.reply = strict
    with pytest.raises(PromptCBLUEError, match="no switch for thinking"):
        ask(load_backend(settings(server, thinking="on")), ["题"])
    server.reply = lambda body: (200, said(content="答", reasoning_content="想"))
    backend = load_backend(settings(server, thinking="off"))
    ask(backend, ["题"])
    assert any("came with a thought" in line for line in backend.summary())


def test_an_answer_too_long_for_the_context_is_not_taken_for_a_parameter_not_known(server: FaultyServer) -> None:
    words = "'max_tokens' or 'max_completion_tokens' is too large: 16. This model's maximum context length is 8 tokens."
    answer = said(content="答")
    server.reply = lambda body: (400, refused("max_tokens", words)) if "长" in str(body) else (200, answer)
    results = ask(load_backend(settings(server)), ["题", "长"])
    assert isinstance(results["题"], Completion)
    failed = results["长"]
    assert isinstance(failed, Failure)
    assert "too large" in failed.reason


NO_MONEY: list[tuple[int, dict[str, Any]]] = [
    (429, {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": None}),
    (402, {"message": "Insufficient Balance"}),
    (400, {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}),
]


@pytest.mark.parametrize(("status", "error"), NO_MONEY)
def test_no_more_quota_ends_the_run_at_once(server: FaultyServer, status: int, error: Any) -> None:
    server.reply = lambda body: (status, {"error": error})
    with pytest.raises(PromptCBLUEError, match="no more quota"):
        ask(load_backend(settings(server)), ["题0", "题1"])
    assert len(server.seen) == 1


def test_a_page_in_place_of_an_answer_is_one_line(server: FaultyServer) -> None:
    page = "<html>\n<style>p {color: red}</style>\n<body><h1>Bad\nGateway</h1></body></html>"
    server.reply = lambda body: (200, page)
    with pytest.raises(PromptCBLUEError, match="does not answer as OpenAI's API does") as error:
        ask(load_backend(settings(server, retries=0)), ["题"])
    assert "Bad Gateway" in str(error.value)
    assert "\n" not in str(error.value)
    assert "color" not in str(error.value)
    server.reply = lambda body: (200, page) if "坏" in str(body) else (200, said(content="答"))
    result = ask(load_backend(settings(server, retries=0)), ["题", "坏"])["坏"]
    assert isinstance(result, Failure)
    assert "<" not in result.reason


def test_sampling_and_more_is_sent_where_asked(server: FaultyServer) -> None:
    asked = {"temperature": 0.7, "top_p": 0.9, "reasoning_effort": "low", "system": "你是医生", "thinking": "on"}
    backend = load_backend(settings(server, extra_body='{"seed": 3, "max_tokens": 99}', **asked))
    ask(backend, ["题"])
    body = server.seen[-1][3]
    names = ("temperature", "top_p", "reasoning_effort", "seed", "max_tokens")
    assert [body[name] for name in names] == [0.7, 0.9, "low", 3, 99]
    assert body["messages"][0] == {"role": "system", "content": "你是医生"}
    assert body["chat_template_kwargs"]["enable_thinking"] is True
    assert {"temperature": 0.7, "system": "你是医生", "thinking": "on"}.items() <= backend.identity().items()
    with pytest.raises(PromptCBLUEError, match="JSON object"):
        load_backend(settings(server, extra_body="[1]"))


ECHOES: dict[str, Callable[[str], str]] = {
    "raw": lambda key: f"Incorrect API key provided: {key}",
    "header": lambda key: f"Authorization: Bearer {key}\n",
    "repr": lambda key: f"Illegal header value {f'Bearer {key}'.encode()!r}",
    "json in json": lambda key: json.dumps({"key": json.dumps(key)}),
    "url": lambda key: f"?key={urllib.parse.quote(key, safe='')}",
    "url twice": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "html": lambda key: f"<p title='{html.escape(key)}'>{html.escape(key)}</p>",
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "capitals": lambda key: key.upper(),
    "lines": lambda key: "\n ".join(key[start : start + 7] for start in range(0, len(key), 7)),
    "cut off": lambda key: f"key {key[:-4]}",
    "unicode": lambda key: "".join(f"\\u{ord(each):04x}" for each in key),
}


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("where", ["error", "page", "answer"])
def test_the_key_is_masked_however_it_is_repeated(
    server: FaultyServer,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    echo: str,
    where: str,
) -> None:
    key = "sk-a+b/c&d=e'f\"g-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", f" {key}\n")
    words = ECHOES[echo](key)
    server.reply = lambda body: {
        "error": (400, {"error": {"message": words}}),
        "page": (500, words),
        "answer": (200, said(content=words, reasoning_content=words)),
    }[where]
    with contextlib.suppress(PromptCBLUEError):
        predict(str(data), "test", tmp_path / "p.jsonl", settings(server, retries=0), ["CHIP-STS"])
    assert {headers["authorization"] for _, _, headers, _ in server.seen} == {f"Bearer {key}"}
    printed = capsys.readouterr()
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert where == "page" or "$OPENAI_API_KEY" in written
    for text in (written, printed.out, printed.err):
        for form in (key, key[:-4], key.upper(), words, json.dumps(words, ensure_ascii=False)[1:-1], "0123456789"):
            assert form not in text


@pytest.mark.parametrize("key", ["sk-中文", "sk-a\nb", "sk-a b"])
def test_a_key_that_is_none_is_refused_unseen(server: FaultyServer, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(PromptCBLUEError, match="OPENAI_API_KEY") as error:
        load_backend(settings(server))
    assert key not in str(error.value)


def test_a_short_stand_in_for_a_key_does_not_spoil_answers(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    server.reply = lambda body: (200, said(content="EMPTY"))
    result = ask(load_backend(settings(server)), ["题"])["题"]
    assert isinstance(result, Completion)
    assert result.text == "EMPTY"


def test_a_password_in_the_address_is_masked(server: FaultyServer, data: Path, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    pair = base64.b64encode(b"doctor:pass-word-0123").decode()
    server.reply = lambda body: (400, {"error": {"message": f"doctor:pass-word-0123, Basic {pair}"}})
    url = server.url.replace("http://", "http://doctor:pass-word-0123@")
    with pytest.raises(PromptCBLUEError):
        predict(str(data), "test", tmp_path / "p.jsonl", settings(server, base_url=url), ["CHIP-STS"])
    assert server.seen[0][2]["authorization"] == f"Basic {pair}"
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    for text in (written, caplog.text):
        assert "pass-word" not in text
        assert pair not in text


@pytest.mark.parametrize("changes", [{"beams": 4}, {"adapter": "a/b"}, {"constrained": True}, {"dtype": "bfloat16"}])
def test_what_no_endpoint_can_do_is_refused(server: FaultyServer, changes: dict[str, Any]) -> None:
    with pytest.raises(PromptCBLUEError, match="--backend transformers"):
        load_backend(BackendSettings(model="m", name="openai", **changes))


def test_a_hosted_endpoint_wants_a_key(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(PromptCBLUEError, match="OPENAI_API_KEY"):
        load_backend(BackendSettings(model="m", name="openai"))
    ask(load_backend(settings(server)), ["题0"])


def test_secrets_in_an_address_are_not_recorded(server: FaultyServer) -> None:
    url = server.url.replace("http://", "http://user:password@")
    backend = load_backend(settings(server, base_url=f"{url}?token=secret"))
    assert backend.identity()["endpoint"] == server.url


def test_leaving_early_leaves_nothing_running(server: FaultyServer) -> None:
    backend = load_backend(settings(server, concurrency=2))
    results = backend.generate([Request(index, f"题{index}", 16) for index in range(100)])
    next(results)
    results.close()  # type: ignore[attr-defined]
    time.sleep(0.05)
    seen = len(server.seen)
    assert seen < 20
    time.sleep(0.1)
    assert len(server.seen) == seen


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A model with a chat template, and the address of a real server that serves it."""
    model = tmp_path_factory.mktemp("served") / "model"
    shutil.copytree(trained, model, ignore=shutil.ignore_patterns("checkpoint-*"))
    template = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("log") / "log").open("wb")
    program = "from transformers.cli.transformers import main; main()"
    options = ["serve", str(model), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *options],
        stdout=log,
        stderr=log,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break  # it answers, if only that it has no list of models
            except OSError:
                assert process.poll() is None, Path(log.name).read_text(encoding="utf-8")
                time.sleep(0.3)
        yield model, f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def test_a_real_server_answers_as_the_model_does_here(
    served: tuple[Path, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model, url = served
    tasks = ["CHIP-STS", "KUAKE-QIC", "MedDG", "CHIP-CDN"]
    predict(str(data), "test", tmp_path / "here.jsonl", BackendSettings(model=str(model)), tasks, 12)
    here = {row["sample_id"]: row["prediction"] for row in read_rows(tmp_path / "here.jsonl")}
    for endpoint in ("chat", "completions"):
        server = ServerSettings(base_url=url, endpoint=endpoint, concurrency=2, timeout=60)
        output = tmp_path / f"{endpoint}.jsonl"
        predict(str(data), "test", output, BackendSettings(str(model), "openai", server=server), tasks, 12)
        rows = read_rows(output)
        assert all(row["prompt_tokens"] > 10 and 0 < row["new_tokens"] <= 12 for row in rows)
        assert {row["sample_id"]: row["prediction"] for row in rows} == here
