from __future__ import annotations

import json
import shutil
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset import load_samples
from promptcblue_metric.errors import EXTRAS, PromptCBLUEError, install_command
from promptcblue_training import cli
from promptcblue_training.backends import BACKENDS, BackendSettings, Completion, Failure, Request, load_backend
from promptcblue_training.backends.encoding import Encoded, until
from promptcblue_training.backends.transformers import TransformersBackend
from promptcblue_training.output import PredictionsFile
from promptcblue_training.predict import predict

from ..conftest import read_rows, write_rows


@pytest.fixture
def requests(data: Path) -> list[Request]:
    return [Request(index, sample["input"], 20) for index, sample in enumerate(load_samples(data, "test"))]


def answers(backend: Any, requests: Sequence[Request]) -> list[Completion | Failure]:
    return sorted(backend.generate(requests), key=lambda result: result.index)


def watched(settings: BackendSettings, watch: Callable[[dict[str, Any]], None]) -> TransformersBackend:
    """A backend that shows what it hands to ``generate`` before it does."""
    backend = TransformersBackend(settings)
    original = backend.model.generate

    def generate(**options: Any) -> Any:
        watch(options)
        return original(**options)

    backend.model.generate = generate
    return backend


def begins(options: dict[str, Any]) -> bool:
    """Whether a batch is handed over for the first time."""
    return options.get("past_key_values") is None


def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(trained: Path, requests: list[Request]) -> None:
    sizes: list[int] = []

    def hold_three_rows(options: dict[str, Any]) -> None:
        import torch

        if begins(options):
            sizes.append(len(options["input_ids"]))
        if len(options["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    settings = BackendSettings(model=str(trained), batch_size=8)
    small = watched(settings, hold_three_rows)
    assert answers(small, requests) == answers(TransformersBackend(settings), requests)
    # Later batches are not tried at a size that was too much.
    assert sizes.count(8) == 1
    assert any("halved" in line for line in small.summary())


def test_a_sample_too_long_for_the_memory_fails_alone(trained: Path, requests: list[Request]) -> None:
    settings = BackendSettings(model=str(trained))
    encoder = TransformersBackend(settings).encoder
    lengths = sorted(len(ids) for ids in encoder.prompts([request.prompt for request in requests]))

    def hold_all_but_the_longest(options: dict[str, Any]) -> None:
        if begins(options) and options["input_ids"].shape[1] > lengths[-2]:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried")

    made = answers(watched(settings, hold_all_but_the_longest), requests)
    failures = [result for result in made if isinstance(result, Failure)]
    assert len(failures) == 1
    assert "not enough memory" in failures[0].reason


def test_an_error_that_is_not_about_memory_is_not_taken_for_one(trained: Path, requests: list[Request]) -> None:
    def fail(options: dict[str, Any]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        answers(watched(BackendSettings(model=str(trained)), fail), requests)


@pytest.mark.parametrize("beams", [1, 2])
def test_stop_texts_end_an_answer(trained: Path, requests: list[Request], beams: int) -> None:
    plain = answers(load_backend(BackendSettings(model=str(trained), beams=beams)), requests)
    texts = [result.text for result in plain if isinstance(result, Completion)]
    mark = max(texts, key=len)[2:4]
    stopped = answers(load_backend(BackendSettings(model=str(trained), beams=beams, stop=(mark,))), requests)
    met = 0
    for before, after in zip(plain, stopped, strict=True):
        assert isinstance(before, Completion)
        assert isinstance(after, Completion)
        assert mark not in after.text
        assert after.text == until(before.text, [mark])
        if mark in before.text:
            met += 1
            assert after.finish_reason == "stop"
            assert after.new_tokens == before.text.index(mark) + len(mark)
    assert met


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        ("甲乙丙", ["乙"], "甲"),
        ("甲乙丙", ["丙", "乙丙"], "甲"),
        ("甲", ["乙"], "甲"),
        ("", ["乙"], ""),
        ("甲", [], "甲"),
    ],
)
def test_text_before_the_first_stop(text: str, stop: list[str], kept: str) -> None:
    assert until(text, stop) == kept


def test_limits_hold_wherever_rows_drop_out(trained: Path, requests: list[Request]) -> None:
    backend = load_backend(BackendSettings(model=str(trained)))
    longest = {result.index: result for result in answers(backend, requests) if isinstance(result, Completion)}
    for limit in (1, 7, 8, 9, 16, 17):
        limited = [Request(request.index, request.prompt, limit) for request in requests]
        for result in answers(backend, limited):
            assert isinstance(result, Completion)
            whole = longest[result.index]
            assert whole.text.startswith(result.text)
            assert result.new_tokens == min(whole.new_tokens, limit)
            assert result.finish_reason == (
                "stop" if whole.new_tokens <= limit < 20 and whole.finish_reason == "stop" else "length"
            )


def test_four_bits(trained: Path, requests: list[Request]) -> None:
    pytest.importorskip("bitsandbytes")
    backend = load_backend(BackendSettings(model=str(trained), dtype="4bit"))
    made = answers(backend, requests[:4])
    assert all(isinstance(result, Completion) and result.new_tokens for result in made)
    kinds = {type(module).__name__ for module in backend.model.modules()}  # type: ignore[attr-defined]
    assert "Linear4bit" in kinds
    assert str(backend.identity()["dtype"]).startswith("4bit")


@pytest.mark.parametrize(
    ("library", "backend", "extra"),
    [("openai", "openai", "openai"), ("vllm", "vllm", "vllm"), ("ray", "ray", "ray")],
)
def test_a_backend_whose_library_is_missing_names_its_extra(
    trained: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    library: str,
    backend: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    options = ["--model", trained, "--dataset", data, "--output", tmp_path / "p.jsonl", "--backend", backend]
    monkeypatch.setattr(sys, "argv", ["promptcblue-train", "predict", *map(str, options), "--base-url", "http://x/v1"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 1
    assert install_command(extra) in capsys.readouterr().err
    assert not (tmp_path / "p.jsonl").exists()
    assert EXTRAS[library] == extra
    assert backend in BACKENDS


def test_other_backends_are_not_to_be_launched_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PromptCBLUEError, match="start it once"):
        load_backend(BackendSettings(model="m", name="openai"))


def test_a_file_with_a_sample_twice_is_refused(trained: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    settings = BackendSettings(model=str(trained))
    predict(str(data), "test", output, settings, ["CHIP-STS"], 4)
    output.write_bytes(output.read_bytes() * 2)
    with pytest.raises(PromptCBLUEError, match=r"p\.jsonl:2.*there twice"):
        predict(str(data), "test", output, settings, ["CHIP-STS"], 4)


def test_opening_a_file_takes_failed_lines_out_and_keeps_the_others(data: Path, tmp_path: Path) -> None:
    samples = load_samples(data, "test")
    path = tmp_path / "p.jsonl"
    with PredictionsFile(path, {}, {}) as file:
        for number, sample in enumerate(samples):
            file.append(sample, {"error": "no luck"} if number % 3 == 1 else {"prediction": f"答{number}"})
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if b"error" not in line]
    with PredictionsFile(path, {}, {}) as file:
        assert file.retried == len(samples) - len(kept)
        assert len(file.done) == len(kept)
    assert path.read_bytes() == b"".join(kept)


def test_a_failed_line_is_scored_as_no_prediction_and_cannot_be_handed_in(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from promptcblue_metric.cli import main as metric

    rows: list[dict[str, Any]] = [
        {"sample_id": row["sample_id"], "task_dataset": row["task_dataset"], "prediction": row["target"]}
        for row in read_rows(data / "test.json")
    ]
    rows[0]["error"] = rows[0].pop("prediction") and "no luck"
    path = write_rows(tmp_path / "p.jsonl", rows)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["promptcblue-metric", *map(str, arguments)])
        try:
            metric.main()
        except SystemExit as done:
            return int(done.code or 0)
        return 0

    score = ["score", path, "--references", data]
    assert run(*score) == 1
    assert "1 of 16 references have no prediction" in capsys.readouterr().err
    assert run(*score, "--missing", "count-wrong", "--json", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["missing_predictions"] == 1
    capsys.readouterr()
    assert run("parse", path, "--references", data, "--output", tmp_path / "r.json") == 1
    assert "no luck" in capsys.readouterr().err


@pytest.fixture
def longer(requests: list[Request]) -> list[Request]:
    """Answers long enough that those of several batches go on together, with limits of their own."""
    return [Request(each.index, each.prompt, 90 + 5 * (each.index % 3)) for each in requests]


class Joined:
    """Tells the batches whose rows are handed over together."""

    def __init__(self) -> None:
        self.first: dict[tuple[int, ...], int] = {}
        self.batches = 0
        self.most = 0

    def __call__(self, options: dict[str, Any]) -> None:
        rows = [
            tuple(row[keep].tolist())
            for row, keep in zip(options["input_ids"], options["attention_mask"] > 0, strict=True)
        ]
        if begins(options):
            self.batches += 1
            self.first |= dict.fromkeys(rows, self.batches)
        own = {number for row in rows for prompt, number in self.first.items() if row[: len(prompt)] == prompt}
        self.most = max(self.most, len(own))


def test_rows_of_several_batches_go_on_together_as_they_would_have(trained: Path, longer: list[Request]) -> None:
    """Joined with rows of other widths, other limits and other numbers of tokens, and joined again."""
    alone = answers(load_backend(BackendSettings(model=str(trained), batch_size=1)), longer)
    joined = Joined()
    assert answers(watched(BackendSettings(model=str(trained), batch_size=4), joined), longer) == alone
    assert joined.most > 1


def test_rows_that_do_not_fit_together_are_answered_in_halves(trained: Path, longer: list[Request]) -> None:
    import torch

    settings = BackendSettings(model=str(trained), batch_size=4)
    straight = answers(load_backend(settings), longer)
    joined = Joined()

    def refuse_several_batches(options: dict[str, Any]) -> None:
        joined.most = 0
        joined(options)
        if joined.most > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    small = watched(settings, refuse_several_batches)
    assert answers(small, longer) == straight
    assert any("halved" in line for line in small.summary())


@pytest.mark.parametrize("budget", [800, 2400])
def test_what_goes_on_together_keeps_to_the_size_of_a_batch(trained: Path, longer: list[Request], budget: int) -> None:
    settings = BackendSettings(model=str(trained), batch_tokens=budget, batch_size=4)
    straight = answers(load_backend(settings), longer)

    def keep_to_it(options: dict[str, Any]) -> None:
        rows, width = options["input_ids"].shape
        assert rows == 1 or (rows <= 4 and rows * (width + options["max_new_tokens"]) <= budget)

    assert answers(watched(settings, keep_to_it), longer) == straight


@pytest.mark.parametrize(
    ("opening", "ids", "read", "counts"),
    [
        (False, "<think>想</think>答。E", ("想", "答。", "stop"), (16, 3)),
        (False, "<think>想想", ("想想", "", "thought"), (9, 0)),
        (True, "想</think>答", ("想", "答", "length"), (9, 1)),
        (True, "想想E", ("想想", "", "thought"), (2, 1)),
        (False, "<think>。想</think>答。答", ("。想", "答", "stop"), (17, 3)),
    ],
)
def test_thoughts_are_kept_apart_from_answers(
    tmp_path: Path, opening: bool, ids: str, read: tuple[str, str, str], counts: tuple[int, int]
) -> None:
    from promptcblue_training.tiny import build_tokenizer

    tokenizer = build_tokenizer(["<think></think>想答。E"])
    tokenizer.chat_template = "{{ messages[0].content }}" + ("<think>" if opening else "")
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    stop = ("。答", "。想") if "。答" in ids else ()
    backend = TransformersBackend(BackendSettings(model=str(tmp_path), thinking="on", stop=stop))
    item = Encoded(Request(0, "", 99), array("i", [1]), 0, cut=False)
    end = backend.encoder.end
    tokens = [end if letter == "E" else tokenizer.convert_tokens_to_ids(letter) for letter in ids]
    completion, over = backend.answered(item, tokens, [end])
    assert (completion.thought, completion.text, completion.finish_reason) == read
    assert (completion.thought_tokens, completion.new_tokens) == counts
    assert over is (ids.endswith("E") or bool(stop))


def test_a_bound_answer_has_no_thought_before_it(trained: Path) -> None:
    with pytest.raises(PromptCBLUEError, match="thoughts-before-constrained-answers"):
        load_backend(BackendSettings(model=str(trained), constrained=True, thinking="on"))


def test_a_model_that_was_not_fine_tuned_here_is_not_starved(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other, ignore=shutil.ignore_patterns("checkpoint-*", "run.json"))
    limits = [
        load_backend(BackendSettings(model=str(model), thinking=thinking)).least_limit("CHIP-CTC")  # type: ignore[arg-type]
        for model, thinking in ((trained, "auto"), (trained, "on"), (other, "off"))
    ]
    # The context of this model is 1,024 tokens, of which half are for the prompt.
    assert limits == [0, 512, 512]
