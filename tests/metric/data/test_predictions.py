"""Predictions in the forms of other tools, matched with the samples they answer."""

from __future__ import annotations

import gzip
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptcblue_metric.data.predictions import match, structured_answers
from promptcblue_metric.data.samples import Sample, iter_samples, load_samples, splits_of
from promptcblue_metric.errors import PromptCBLUEError


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return load_samples("sample", "validation")


def _llama_factory(sample: Sample, number: int) -> dict[str, Any]:
    return {"prompt": f"system\n\nuser\n{sample['input']}\nassistant\n", "predict": f"答{number}", "label": "?"}


def _lm_eval(sample: Sample, number: int) -> dict[str, Any]:
    prompt = {"gen_args_0": {"arg_0": sample["input"], "arg_1": {"until": ["\n\n"]}}}
    answer = f"答{number}"
    more = {"resps": [[answer + " "]], "filtered_resps": [answer], "filter": "none", "target": sample["target"]}
    return {"doc_id": number, "doc": dict(sample), "arguments": prompt, **more}


def _evalscope(sample: Sample, number: int) -> dict[str, Any]:
    thought = {"type": "reasoning", "reasoning": "想"}
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": f"答{number}"}]}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "医生"},
        {"role": "user", "content": sample["input"]},
    ]
    messages += [answer] * (number % 2)  # some versions write the answer here too
    return {"index": number, "messages": messages, "model_output": {"choices": [{"message": answer}]}}


def _evalscope_before(sample: Sample, number: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"答{number}"}
    return {"choices": [{"index": 0, "message": message}], "raw_input": dict(sample), "index": number}


def _own(sample: Sample, number: int) -> dict[str, Any]:
    key = {"sample_id": sample["sample_id"], "task_dataset": sample["task_dataset"]}
    return {**key, "prediction": f"答{number}"}


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _opencompass(samples: Sequence[Sample]) -> str:
    rows = {
        str(number): {
            "origin_prompt": [{"role": "HUMAN", "prompt": sample["input"]}],
            "prediction": f"答{number}",
            "gold": sample["target"],
        }
        for number, sample in enumerate(samples)
    }
    return json.dumps(rows, ensure_ascii=False, indent=4)


FILES: Mapping[str, Callable[[Sequence[Sample]], str]] = {
    "an array": lambda samples: json.dumps([_own(*pair[::-1]) for pair in enumerate(samples)]),
    "a pretty array": lambda samples: json.dumps([_own(*pair[::-1]) for pair in enumerate(samples)], indent=2),
    "objects one after another": lambda samples: "".join(json.dumps(_own(*pair[::-1])) for pair in enumerate(samples)),
    "pretty objects": lambda samples: "\n".join(json.dumps(_own(*pair[::-1]), indent=1) for pair in enumerate(samples)),
    "LLaMA-Factory": lambda samples: _lines([_llama_factory(*pair[::-1]) for pair in enumerate(samples)]),
    "lm-evaluation-harness": lambda samples: _lines([_lm_eval(*pair[::-1]) for pair in enumerate(samples)]),
    "OpenCompass": _opencompass,
    "evalscope": lambda samples: _lines([_evalscope(*pair[::-1]) for pair in enumerate(samples)]),
    "evalscope's older form": lambda samples: _lines([_evalscope_before(*pair[::-1]) for pair in enumerate(samples)]),
}


@pytest.mark.parametrize("form", list(FILES))
@pytest.mark.parametrize("order", ["in order", "reversed"])
def test_the_forms_of_other_tools_are_read(
    form: str, order: str, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(FILES[form](samples), encoding="utf-8")
    references = samples if order == "in order" else samples[::-1]
    outputs = {sample["sample_id"]: prediction for sample, prediction in match(path, references)}
    texts = [prediction.text if (prediction := outputs[sample["sample_id"]]) else None for sample in samples]
    assert texts == [f"答{number}" for number in range(len(samples))]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert (form in said) or "a JSON array or stream" in said
    answers, _ = structured_answers(path, samples)
    assert sum(map(len, answers.values())) == len(samples)


def test_a_pipe_is_read(samples: list[Sample]) -> None:
    reading, writing = os.pipe()
    os.write(writing, _lines([_own(*pair[::-1]) for pair in enumerate(samples[:9])]).encode())
    os.close(writing)
    path = Path(f"/dev/fd/{reading}")
    for _ in range(2):
        assert [found.text for _, found in match(path, samples[:9]) if found] == [f"答{n}" for n in range(9)]
    answers, _ = structured_answers(path, samples[:9])
    assert sum(map(len, answers.values())) == 9


def test_a_bare_name_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *address: pytest.fail("asked"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for read in (lambda: list(iter_samples("promptcblu", "test")), lambda: splits_of("promptcblu")):
        with pytest.raises(PromptCBLUEError, match=r"promptcblu: no such file or folder.*ORG/NAME"):
            read()
    (tmp_path / "promptcblu").mkdir()  # something is called so, and is no dataset
    with pytest.raises(PromptCBLUEError, match="promptcblu"):
        splits_of("promptcblu")
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_parquet_file_is_read(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    pq.write_table(pa.Table.from_pylist([_own(*pair[::-1]) for pair in enumerate(samples)]), path)
    assert [found.text for _, found in match(path, samples) if found] == [f"答{n}" for n in range(len(samples))]


def test_rows_that_answer_no_sample_are_named(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "generated_predictions.jsonl"
    rows = [_llama_factory(sample, number) for number, sample in enumerate(samples[:3])]
    path.write_text(_lines([*rows, {**rows[0], "prompt": "你好"}]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"1 bad row.*\n.*jsonl:4: has no sample_id"):
        list(match(path, samples))


def test_prompts_that_repeat_are_answered_in_their_order(samples: list[Sample], tmp_path: Path) -> None:
    twice: list[Sample] = [samples[0], {**samples[0], "sample_id": "again"}, samples[1]]
    path = tmp_path / "predictions.jsonl"
    rows = [_llama_factory(sample, number) for number, sample in enumerate([samples[1], samples[0], samples[0]])]
    path.write_text(_lines(rows), encoding="utf-8")
    found = {sample["sample_id"]: prediction.text for sample, prediction in match(path, twice) if prediction}
    assert found == {samples[1]["sample_id"]: "答0", samples[0]["sample_id"]: "答1", "again": "答2"}


def test_what_is_of_no_known_form_gets_the_errors_of_ours(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"answer": "是的"}\n{"answer": "不是"}\n', encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"2 bad row.*\n.*jsonl:1: field 'sample_id'"):
        list(match(path, samples))


@pytest.mark.parametrize(
    "content", [b"PAR1 and no more", gzip.compress(b"{}" * 9999, mtime=0)[:-9], b"\xff\xfe", b"[[[[", b""]
)
def test_a_broken_file_is_named(content: bytes, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    matched = match(path, samples)
    if content:
        with pytest.raises(PromptCBLUEError, match=r"predictions\.json"):
            list(matched)
    else:
        assert all(prediction is None for _, prediction in matched)


def test_two_filters_in_one_file_are_named(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "samples_task.jsonl"
    rows = [_lm_eval(sample, number) for number, sample in enumerate(samples)]
    path.write_text(_lines([*rows, *({**row, "filter": "strip"} for row in rows)]), encoding="utf-8")
    with pytest.raises(
        PromptCBLUEError, match=r"several filters \(field 'filter': none, strip\); keep the rows of one"
    ):
        list(match(path, samples))


@pytest.mark.parametrize("content", ["[]", " [\n]\n"])
def test_an_empty_array_holds_no_predictions(content: str, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"predictions\.json: holds no predictions"):
        list(match(path, samples))


@pytest.mark.parametrize("indent", [None, 2])
def test_references_can_be_a_json_array(indent: int | None, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "references.json"
    path.write_text(json.dumps(samples, ensure_ascii=False, indent=indent), encoding="utf-8-sig")
    assert load_samples(path, "validation") == samples
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match="has no samples"):
        load_samples(path, "validation")
    path.write_text('["x"]', encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match="found a list"):
        load_samples(path, "validation")


def test_a_run_on_another_split_is_told_of_the_option(samples: list[Sample], tmp_path: Path) -> None:
    path, other = tmp_path / "predictions.jsonl", load_samples("sample", "test")
    path.write_text(_lines([_own(sample, number) for number, sample in enumerate(samples)]), encoding="utf-8")
    for read in (lambda: list(match(path, other)), lambda: structured_answers(path, other)):
        with pytest.raises(PromptCBLUEError, match=r"no sample id is theirs; are they of another split \(--split\)"):
            read()
    with pytest.raises(PromptCBLUEError) as error:
        list(match(path, samples[1:]))
    assert "--split" not in str(error.value)
    path.write_text(_lines([_llama_factory(sample, 0) for sample in samples]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"no prompt is theirs; .*--split"):
        list(match(path, other))


def _batch(name: str, number: int) -> dict[str, Any]:
    body = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": f"答{number}"}}]}
    return {"id": "b", "custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


def _texts(path: Path, samples: Sequence[Sample]) -> list[str | None]:
    return [found.text if found else None for _, found in match(path, samples)]


@pytest.mark.parametrize("named", ["{sample_id}", "{task_dataset}/{sample_id}"])
def test_openai_batches_are_read_by_their_names(named: str, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    rows = [_batch(named.format(**sample), number) for number, sample in enumerate(samples)]
    rows[0] |= {"response": None, "error": {"code": "batch_expired"}}
    path.write_text(_lines(rows[::-1]), encoding="utf-8")
    assert _texts(path, samples) == [None, *(f"答{number}" for number in range(1, len(samples)))]
    path.write_text(_lines([_batch("request-1", 0)]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match="'request-1' is not among the references"):
        _texts(path, samples)


@pytest.mark.parametrize("error", [None, ""])
def test_an_error_that_is_empty_excuses_no_row(error: str | None, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    key = {"sample_id": samples[0]["sample_id"], "task_dataset": samples[0]["task_dataset"]}
    path.write_text(_lines([{**key, "note": "是", "error": error}]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match="'prediction'"):
        _texts(path, samples)
    path.write_text(_lines([{**key, "error": "timed out"}]), encoding="utf-8")
    assert _texts(path, samples[:1]) == [None]


def test_order_alone_has_to_agree_with_the_labels(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "generated_predictions.jsonl"
    rows = [{"predict": f"答{number}", "label": f"{sample['target']}\n"} for number, sample in enumerate(samples)]
    path.write_text(_lines(rows), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]
    path.write_text(_lines([rows[0], *rows[:0:-1]]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"jsonl:2: .*not in the order"):
        _texts(path, samples)
    path.write_text(_lines(rows[:-1]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=f"{len(rows) - 1} rows .* {len(rows)} samples"):
        _texts(path, samples)


@pytest.mark.parametrize("wrapped", ["text", "list", "tokens"])
def test_chats_of_lm_eval_are_decoded(wrapped: str, samples: list[Sample], tmp_path: Path) -> None:
    rows = []
    for number, sample in enumerate(samples):
        chat = [{"role": "system", "content": "医生"}, {"role": "user", "content": f"{sample['input']}\n"}]
        said = json.dumps(chat, ensure_ascii=False)
        arguments: object = {"text": said, "list": [said], "tokens": [1, 2, 3]}[wrapped]
        doc = {"input": sample["input"]} if wrapped == "tokens" else {}
        rows.append({**_lm_eval(sample, number), "doc": doc, "arguments": {"gen_args_0": {"arg_0": arguments}}})
    path = tmp_path / "samples_task.jsonl"
    path.write_text(_lines(rows[::-1]), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("gb18030", "GB18030")],
)
def test_another_encoding_is_named_in_one_line(
    encoding: str, named: str, samples: list[Sample], tmp_path: Path
) -> None:
    path, references = tmp_path / "predictions.jsonl", tmp_path / "references.jsonl"
    path.write_text(_lines([_own(sample, 0) for sample in samples]), encoding=encoding)
    references.write_text(_lines([dict(sample) for sample in samples]), encoding=encoding)
    for read in (
        lambda: _texts(path, samples),
        lambda: structured_answers(path, None),
        lambda: load_samples(references, "test"),
    ):
        with pytest.raises(PromptCBLUEError, match=rf"^\S*: .*iconv -f {named} -t UTF-8[^\n]*$"):
            read()


def test_an_array_a_line_is_read(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [_own(sample, number) for number, sample in enumerate(samples)]
    path.write_text("\n".join(json.dumps(part) for part in (rows[:5], [], rows[5:])), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]


def test_a_perfect_model_is_scored_with_a_note(
    samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(_lines([{**_own(row, 0), "prediction": row["target"]} for row in samples]), encoding="utf-8")
    assert _texts(path, samples) == [sample["target"] for sample in samples]
    assert f"all {len(samples)} predictions equal their targets" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["prediction", "output", "response"])
@pytest.mark.parametrize("form", ["lines", "an array"])
def test_a_target_beside_an_output_is_never_the_output(
    field: str, form: str, samples: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / "predictions.json"
    rows = [{**sample, field: f"答{number}"} for number, sample in enumerate(samples)]
    path.write_text(_lines(rows) if form == "lines" else json.dumps(rows), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]
    del rows[1][field]
    path.write_text(_lines(rows) if form == "lines" else json.dumps(rows), encoding="utf-8")
    for read in (lambda: _texts(path, samples), lambda: structured_answers(path, None)):
        with pytest.raises(PromptCBLUEError, match=rf"1 bad row.*\n.*:2: field '{field}'"):
            read()


@pytest.mark.parametrize("end", ["", " ", "\r\n"])
def test_gold_is_told_although_white_space_or_a_row_differs(end: str, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    rows = [{**sample, "target": sample["target"].replace("\n", "\r\n") + end} for sample in samples]
    path.write_text(_lines([{**rows[0], "target": "不知道"}, *rows[1:]]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match="--allow-gold"):
        _texts(path, samples)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"message": "rate limit"}),
        (500, {"error": {"message": "overloaded"}}),
        (400, {"object": "error", "message": "too long", "code": 400}),
        (200, {"object": "error", "message": "too long"}),
        (503, {"choices": [{"message": {"content": "请稍后再试"}}]}),
    ],
)
def test_an_error_of_a_server_is_no_output(
    status: int, body: dict[str, Any], samples: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / "batch.jsonl"
    rows = [_batch(sample["sample_id"], number) for number, sample in enumerate(samples)]
    rows[1]["response"] = {"status_code": status, "body": body}
    path.write_text(_lines(rows), encoding="utf-8")
    assert _texts(path, samples) == ["答0", None, *(f"答{number}" for number in range(2, len(samples)))]


@pytest.mark.parametrize("name", ["id", "sampleId", "Sample_ID", "sample-id", "uid"])
@pytest.mark.parametrize("form", ["lines", "Parquet", "lm-evaluation-harness"])
def test_ids_under_other_names_are_ids(name: str, form: str, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [{name: sample["sample_id"], "prediction": f"答{number}"} for number, sample in enumerate(samples)][::-1]
    if form == "Parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "lines":
        path.write_text(_lines(rows), encoding="utf-8")
    else:
        path.write_text(_lines([{"doc": row, "resps": [[row["prediction"]]]} for row in rows]), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]
    other: list[Sample] = [{**sample, "sample_id": f"x{sample['sample_id']}"} for sample in samples]
    with pytest.raises(PromptCBLUEError, match="--split"):
        _texts(path, other)


@pytest.mark.parametrize("at", [0, 4])
def test_a_row_without_the_id_that_others_have_is_named(at: int, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    rows = [_own(sample, number) for number, sample in enumerate(samples)]
    del rows[at]["sample_id"]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=rf"1 bad row.*\n.*json:{at + 1}: field 'sample_id'"):
        _texts(path, samples)


def test_order_has_to_agree_with_the_tasks(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [{"task_dataset": sample["task_dataset"], "prediction": f"答{n}"} for n, sample in enumerate(samples)]
    path.write_text(_lines(rows), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]
    number = next(n for n, row in enumerate(rows) if row["task_dataset"] != rows[0]["task_dataset"])
    rows[0], rows[number] = rows[number], rows[0]
    path.write_text(_lines(rows), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=rf"2 bad row.*\n.*:1: field 'task_dataset'.*\n.*:{number + 1}: "):
        _texts(path, samples)


@pytest.mark.parametrize("order", [1, -1])
def test_the_question_is_the_last_input_of_a_prompt(order: int, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "generated_predictions.jsonl"
    longest = max(samples, key=lambda sample: len(sample["input"]))
    rows = []
    for number, sample in enumerate(samples):
        shots = f"{samples[number - 1]['input']}甲\n\n{longest['input']}乙\n\n"
        label = sample["target"]
        rows.append({"prompt": f"{shots}{sample['input']}\nassistant\n", "predict": f"答{number}", "label": label})
    path.write_text(_lines(rows[::order]), encoding="utf-8")
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]
    rows[0]["label"] = samples[1]["target"]
    path.write_text(_lines(rows), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"1 bad row.*\n.*jsonl:1: field 'label'"):
        _texts(path, samples)


@pytest.mark.parametrize("form", ["OpenCompass", "evalscope", "lm-evaluation-harness"])
def test_numbers_give_the_order(form: str, samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"

    def write(numbers: Sequence[int]) -> None:
        if form == "OpenCompass":
            named = {str(number): {"origin_prompt": "", "prediction": f"答{number}"} for number in numbers}
            path.write_text(json.dumps(named), encoding="utf-8")
        elif form == "evalscope":
            path.write_text(_lines([{"index": n, "model_output": f"答{n}"} for n in numbers]), encoding="utf-8")
        else:
            path.write_text(_lines([{"doc_id": n, "resps": [[f"答{n}"]]} for n in numbers]), encoding="utf-8")

    write(sorted(range(len(samples)), key=str))
    assert _texts(path, samples) == [f"答{number}" for number in range(len(samples))]
    for numbers in ([*range(len(samples) - 1), len(samples)], [*range(len(samples) - 1), 0]):
        write(numbers)
        with pytest.raises(PromptCBLUEError, match=r"\d: .* a gap|rows with neither"):
            _texts(path, samples)


def test_of_several_outputs_none_is_taken_in_silence(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [_lm_eval(sample, number) for number, sample in enumerate(samples)]
    rows[1] |= {"resps": [["甲"], ["乙"]], "filtered_resps": ["甲", "乙"]}
    path.write_text(_lines(rows), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"jsonl:2: holds 2 outputs"):
        _texts(path, samples)


def test_outputs_may_be_empty_where_there_is_no_gold(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "test_predictions.json"
    unlabelled: list[Sample] = [{**sample, "target": ""} for sample in samples]
    path.write_text(_lines([{**unlabelled[0], "target": "答"}, *map(dict, unlabelled[1:])]), encoding="utf-8")
    assert _texts(path, unlabelled) == ["答"] + [""] * (len(samples) - 1)
