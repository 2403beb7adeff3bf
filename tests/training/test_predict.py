from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptcblue_dataset import load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.backends import Backend, BackendSettings, Completion, Request, load_backend
from promptcblue_training.data import Splits
from promptcblue_training.output import PredictionsFile
from promptcblue_training.predict import DEFAULT_NEW_TOKENS, answer_limits, predict

from ..conftest import Run
from .conftest import Fit, read_rows, write_rows
from .test_cli import command

Predict = Callable[..., Path]


@pytest.fixture
def run(data: Path, trained: Path, tmp_path: Path) -> Predict:
    """Predict the small dataset's test split; returns the predictions file."""

    def call(**changes: Any) -> Path:
        settings = BackendSettings(model=str(trained), **changes.pop("backend", {}))
        arguments: dict[str, Any] = {"dataset": str(data), "split": "test", "output": tmp_path / "predictions.jsonl"}
        arguments.update({"max_new_tokens": 24, **changes})
        predict(backend=settings, **arguments)
        return Path(arguments["output"])

    return call


def texts(path: Path) -> dict[tuple[str, str], str]:
    return {(row["task_dataset"], row["sample_id"]): row["prediction"] for row in read_rows(path)}


def completions(backend: Backend, requests: list[Request]) -> list[Completion]:
    results = list(backend.generate(requests))
    made = [result for result in results if isinstance(result, Completion)]
    assert made == results
    return made


def one_by_one(backend: Backend, requests: list[Request]) -> list[Completion]:
    return [completion for request in requests for completion in completions(backend, [request])]


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("limits", [(0, 0), (5, 40)])
def test_a_batch_answers_as_its_prompts_do_alone(
    trained: Path, data: Path, beams: int, limits: tuple[int, int]
) -> None:
    backend = load_backend(BackendSettings(model=str(trained), beams=beams))
    samples = load_samples(data, "test")
    requests = [Request(index, sample["input"], limits[index % 2] or 20) for index, sample in enumerate(samples)]
    batched = sorted(completions(backend, requests), key=lambda completion: completion.index)
    assert batched == one_by_one(backend, requests)
    assert len({completion.text for completion in batched}) > 3


def test_beams_find_answers_that_are_likelier(trained: Path, data: Path) -> None:
    greedy, beam = (load_backend(BackendSettings(model=str(trained), beams=beams)) for beams in (1, 4))
    requests = [Request(index, sample["input"], 20) for index, sample in enumerate(load_samples(data, "test"))]
    one, four = (
        {completion.index: completion.text for completion in completions(engine, requests)} for engine in (greedy, beam)
    )
    assert one.keys() == four.keys()
    assert one != four


@pytest.mark.parametrize(
    "settings", [{"batch_size": 3}, {"batch_tokens": 300}, {"batch_tokens": 1}, {"batch_size": 100}]
)
def test_batches_keep_to_their_size_and_each_answer_to_its_request(
    trained: Path, data: Path, settings: dict[str, int]
) -> None:
    from promptcblue_training.backends.transformers import TransformersBackend

    backend = TransformersBackend(BackendSettings(model=str(trained), **settings))  # type: ignore[arg-type]
    samples = load_samples(data, "test")
    requests = [Request(7 * index, sample["input"], 4) for index, sample in enumerate(samples)]
    sizes = []
    original = backend.model.generate

    def spy(**options: Any) -> Any:
        rows, width = options["input_ids"].shape
        if options.get("past_key_values") is None:
            sizes.append(rows)
        assert rows == 1 or rows * (width + options["max_new_tokens"]) <= backend.settings.batch_tokens
        return original(**options)

    backend.model.generate = spy
    made = {completion.index: completion for completion in completions(backend, requests)}
    assert sum(sizes) == len(samples)
    assert max(sizes) <= (backend.settings.batch_size or len(samples))
    for request in requests:
        (ids,) = backend.encoder.prompts([request.prompt])
        assert made[request.index].prompt_tokens == len(ids)


def test_what_a_model_ships_for_decoding_is_not_used(trained: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "sampling"
    copy.mkdir()
    for path in trained.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    own = json.loads((copy / "generation_config.json").read_text())
    shipped = {**own, "do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "max_new_tokens": 2}
    (copy / "generation_config.json").write_text(json.dumps(shipped))
    requests = [Request(index, sample["input"], 20) for index, sample in enumerate(load_samples(data, "test"))]
    plain, other = (
        list(load_backend(BackendSettings(model=str(model))).generate(requests)) for model in (trained, copy)
    )
    assert plain == other


def test_a_predictions_file_has_a_line_a_sample(run: Predict, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_rows(run())
    samples = load_samples(data, "test")
    assert sorted((row["task_dataset"], row["sample_id"]) for row in rows) == sorted(
        (sample["task_dataset"], sample["sample_id"]) for sample in samples
    )
    for row in rows:
        # The model's characters are its tokens; an answer that ended has one token more than it has characters.
        ended = row["finish_reason"] == "stop"
        assert row["new_tokens"] == (len(row["prediction"]) + 1 if ended else 24)
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    assert "promptcblue-metric score" in capsys.readouterr().out


def test_a_run_goes_on_where_it_stopped(
    run: Predict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    # Five lines, and half of the sixth.
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    asked: list[int] = []
    from promptcblue_training.backends.transformers import TransformersBackend

    original = TransformersBackend.generate

    def spy(self: TransformersBackend, requests: list[Request]) -> Any:
        asked.append(len(requests))
        return original(self, requests)

    monkeypatch.setattr(TransformersBackend, "generate", spy)
    run()
    assert asked == [len(lines) - 5]
    assert "holds 5 of 16" in capsys.readouterr().out
    assert path.read_bytes() == whole
    # Nothing is left: the model is not even asked.
    run()
    assert asked == [len(lines) - 5]
    assert path.read_bytes() == whole


def test_each_prediction_is_on_disk_as_soon_as_it_is_made(
    run: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = PredictionsFile.append

    def stop_after_three(self: PredictionsFile, *arguments: Any) -> None:
        original(self, *arguments)
        if len(read_rows(self.path)) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PredictionsFile, "append", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert "3 of 16 predictions" in capsys.readouterr().out
    assert len(read_rows(run())) == 16


def test_predictions_may_lie_in_the_model_s_own_folder(run: Predict, trained: Path) -> None:
    first, second = (trained / f"predictions-{name}.jsonl" for name in ("test", "train"))
    try:
        run(output=first)
        run(output=second, split="train")
        before = first.read_bytes()
        run(output=first)
        assert first.read_bytes() == before
    finally:
        for path in trained.glob("predictions-*"):
            path.unlink()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backend": {"beams": 4}}, "beams was 1, is now 4"),
        ({"max_new_tokens": 3}, "max_new_tokens"),
        ({"split": "train"}, "split was"),
        ({"configs": ["CHIP-STS"]}, "samples was"),
    ],
)
def test_other_settings_do_not_go_on_with_a_file(run: Predict, changes: dict[str, Any], named: str) -> None:
    path = run()
    before = path.read_bytes()
    with pytest.raises(PromptCBLUEError, match=named):
        run(**changes)
    assert path.read_bytes() == before
    run(**changes, overwrite=True)
    assert path.read_bytes() != before


def test_another_model_does_not_go_on_with_a_file(run: Predict, trained: Path, data: Path, fit: Fit) -> None:
    path = run()
    other = fit(max_steps=1)
    with pytest.raises(PromptCBLUEError, match="model was"):
        predict(str(data), "test", path, BackendSettings(model=str(other)), max_new_tokens=24)


def test_a_file_of_unknown_origin_is_not_added_to(run: Predict, tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"sample_id": "x", "prediction": "y"}\n')
    with pytest.raises(PromptCBLUEError, match=r"meta\.json"):
        run()
    assert len(read_rows(run(overwrite=True))) == 16


def test_a_broken_line_within_a_file_is_named(run: Predict) -> None:
    path = run()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], "{broken\n", *lines[1:]]), encoding="utf-8")
    with pytest.raises(PromptCBLUEError, match=r"predictions\.jsonl:2"):
        run()


def test_an_adapter_predicts_with_its_backbone(
    run: Predict, fit: Fit, trained: Path, data: Path, tmp_path: Path
) -> None:
    adapter = fit(model=str(trained), from_config=None, method="lora", max_steps=6, lora_rank=2)
    outputs = []
    for name, settings in {
        "one": BackendSettings(model=str(adapter)),
        "two": BackendSettings(model=str(trained), adapter=str(adapter)),
    }.items():
        predict(str(data), "test", tmp_path / name, settings, max_new_tokens=24)
        outputs.append(texts(tmp_path / name))
    assert outputs[0] == outputs[1]
    assert outputs[0] != texts(run())


def test_limits_come_from_the_known_targets(trained: Path, data: Path, tmp_path: Path) -> None:
    backend = load_backend(BackendSettings(model=str(trained)))
    limits = answer_limits(Splits(str(data)), ["CHIP-STS", "IMCS-V2-MRG"], backend)
    longest = {
        task: max(
            len(sample["target"]) + 1 for split in ("train", "dev") for sample in load_samples(data, split, [task])
        )
        for task in limits
    }
    for task, limit in limits.items():
        assert longest[task] <= limit <= 4 * longest[task]
        assert limit & (limit - 1) == 0
    alone = write_rows(tmp_path / "alone.json", read_rows(data / "test.json"))
    assert answer_limits(Splits(str(alone)), ["CHIP-STS"], backend) == {"CHIP-STS": DEFAULT_NEW_TOKENS}


def test_a_prompt_beyond_the_context_is_cut_and_counted(
    run: Predict, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = read_rows(data / "test.json")[0]
    path = write_rows(tmp_path / "long.json", [{**row, "input": row["input"] * 30}])
    (prediction,) = read_rows(run(dataset=str(path), output=tmp_path / "long.jsonl"))
    assert prediction["prompt_tokens"] == 1024 - 24
    assert "1 prompts were cut" in capsys.readouterr().out
    with pytest.raises(PromptCBLUEError, match="--max-new-tokens"):
        run(dataset=str(path), output=tmp_path / "none.jsonl", max_new_tokens=1023)


def test_without_targets_the_next_step_is_the_structured_form(
    run: Predict, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "target": ""} for row in read_rows(data / "test.json")]
    run(dataset=str(write_rows(tmp_path / "hidden.json", rows)), output=tmp_path / "hidden.jsonl")
    assert "promptcblue-metric parse" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "nowhere"}, "train, validation"),
        ({"configs": ["NoSuchTask"]}, "NoSuchTask"),
        ({"dataset": "no/such/data"}, "no/such/data"),
        ({"backend": {"name": "magic"}}, "transformers"),
        ({"backend": {"dtype": "int3"}}, "bfloat16"),
        ({"backend": {"adapter": "./no/such/adapter"}}, "no/such/adapter"),
    ],
)
def test_what_cannot_be_used_is_named(run: Predict, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=message):
        run(**changes)
    assert not (tmp_path / "predictions.jsonl").exists()


def test_a_missing_model_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match="no-model"):
        predict(str(data), "test", tmp_path / "p.jsonl", BackendSettings(model=str(tmp_path / "no-model")))


def test_a_sample_that_comes_twice_is_an_error(run: Predict, data: Path, tmp_path: Path) -> None:
    rows = read_rows(data / "test.json")
    path = write_rows(tmp_path / "twice.json", [*rows, rows[0]])
    with pytest.raises(PromptCBLUEError, match="comes twice"):
        run(dataset=str(path))


def test_a_second_run_does_not_write_the_same_file(run: Predict, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    with PredictionsFile(path, {}, {}), pytest.raises(PromptCBLUEError, match="another run"):
        PredictionsFile(path, {}, {})
    with PredictionsFile(path, {}, {}) as file:
        file.append(load_samples("sample", "test")[0], {"prediction": "?"})
    with pytest.raises(PromptCBLUEError, match="other settings"):
        PredictionsFile(path, {"model": "another"}, {})
    # A run that was refused keeps nobody out.
    with PredictionsFile(path, {}, {}):
        pass


def test_a_line_without_a_prediction_is_tried_again(run: Predict) -> None:
    path = run()
    rows = read_rows(path)
    write_rows(path, [{**rows[0], "prediction": None}, {**rows[1], "prediction": 3}, *rows[2:]])
    assert texts(run()) == {(row["task_dataset"], row["sample_id"]): row["prediction"] for row in rows}
    with pytest.raises(PromptCBLUEError, match="beside predictions"):
        run(output=path.with_name("predictions.jsonl.meta.json"), overwrite=True)


def test_a_file_of_two_names_is_written_by_one_run(run: Predict, tmp_path: Path) -> None:
    path, other = tmp_path / "predictions.jsonl", tmp_path / "elsewhere" / "latest.jsonl"
    other.parent.mkdir()
    other.symlink_to(path)
    with PredictionsFile(path, {}, {}), pytest.raises(PromptCBLUEError, match="another run"):
        PredictionsFile(other, {}, {})
    run(output=other)
    assert other.is_symlink()
    assert len(read_rows(path)) == 16
    run()


def test_a_disk_that_fills_up_ends_in_one_message(tmp_path: Path, run_python: Run) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from promptcblue_dataset import load_samples\n"
        "from promptcblue_metric.errors import PromptCBLUEError\n"
        "from promptcblue_training.output import PredictionsFile\n"
        "sample = load_samples('sample', 'test')[0]\n"
        "try:\n"
        "    with PredictionsFile(Path(sys.argv[1]), {}, {}) as file:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "        for _ in range(100):\n"
        "            file.append(sample, {'prediction': '高血压' * 10})\n"
        "except PromptCBLUEError as error:\n"
        "    print(error)\n"
    )
    result = run_python(code, tmp_path / "p.jsonl")
    assert "what was predicted so far is kept" in result.stdout, result.stderr
    assert (tmp_path / "p.jsonl").stat().st_size <= 1000


def test_answers_that_are_cut_are_said_and_told_by_the_exit_code(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", trained, "--dataset", data, "--output", tmp_path / "p.jsonl"]
    for _ in range(2):  # also where nothing is left to predict
        assert command(monkeypatch, "predict", *options, "--max-new-tokens", 2) == 3
        said = capsys.readouterr().out
        assert "empty or were cut" in said
        assert "--max-new-tokens" in said
    assert command(monkeypatch, "evaluate", *options, "--max-new-tokens", 2) == 3
    assert "overall" in capsys.readouterr().out


def test_a_part_of_the_samples_is_the_same_for_a_seed_and_recorded(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(name: str, *more: object) -> set[str]:
        options = ["--model", trained, "--dataset", data, "--output", tmp_path / name, "--split", "train"]
        assert command(monkeypatch, "evaluate", *options, "--max-new-tokens", 64, *more) in (0, 3)
        return {row["sample_id"] for row in read_rows(tmp_path / name)}

    few = part("few.jsonl", "--limit", 5)
    assert len(few) == 5
    assert "5 samples" in capsys.readouterr().out
    assert few == part("again.jsonl", "--limit", 5)
    assert few != part("other.jsonl", "--limit", 5, "--seed", 1)
    tasks = {row["task_dataset"] for row in read_rows(tmp_path / "few.jsonl")}
    assert len(tasks) == 5
    recorded = json.loads((tmp_path / "few.jsonl.meta.json").read_text(encoding="utf-8"))["settings"]
    assert recorded["limit"] == {"samples": 5, "seed": 0}


def test_several_answers_to_a_prompt_are_scored_with_their_spread(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", trained, "--dataset", data, "--output", tmp_path / "p.jsonl", "--json", tmp_path / "s.json"]
    more = ["--samples-per-prompt", 3, "--temperature", 2, "--max-new-tokens", 24]
    assert command(monkeypatch, "evaluate", *options, *more) in (0, 3)
    assert "standard deviation over 3 answers" in capsys.readouterr().out
    files = [tmp_path / f"p-{number}.jsonl" for number in (1, 2, 3)]
    assert len({json.dumps(sorted(texts(path).items())) for path in files}) == 3
    scores = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    each = [answer["overall"] for answer in scores["answers"]]
    assert scores["mean_and_deviation"]["overall"][0] == pytest.approx(sum(each) / 3)


def test_a_folder_is_no_output_and_nothing_is_loaded_first(tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=r"is a folder; name a file, such as .*predictions\.jsonl"):
        predict("no-such-data", "test", tmp_path, BackendSettings(model="no-such-model"))


def test_a_file_of_something_else_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("{}\n")
    with pytest.raises(PromptCBLUEError, match="not the output of an earlier run"):
        PredictionsFile(path, {}, {})
    assert path.read_text() == "{}\n"
