"""Which samples a run is trained on: mixed by weight, the few demonstrations, and how their prompts are written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from promptcblue_dataset.draws import draw
from promptcblue_metric.compare.published import DEMONSTRATIONS, paper_counts
from promptcblue_metric.data.samples import SAMPLE, Sample, load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.data import mix, read_messages

from .conftest import Fit


def samples(**counts: int) -> list[Sample]:
    """So many samples of each task, their ids counted up."""
    return [
        Sample(
            input="?",
            target="!",
            answer_choices=None,
            sample_id=str(index),
            task_type="",
            task_dataset=task.replace("_", "-"),
        )
        for task, count in counts.items()
        for index in range(count)
    ]


def test_rows_are_tokenised_once_for_one_content(trained: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptcblue_training.data import training_rows
    from promptcblue_training.model import load_tokenizer
    from promptcblue_training.prompts import PromptEncoder

    samples, encoder = load_samples(data, "train"), PromptEncoder(load_tokenizer(str(trained)))
    first = training_rows(samples, encoder, 101, "train", skip=True)
    prompts = encoder.prompts

    def few(texts: list[str], *more: object) -> list[list[int]]:
        return prompts(texts) if len(texts) < 5 else pytest.fail("tokenised again")

    monkeypatch.setattr(encoder, "prompts", few)
    again = training_rows(samples, encoder, 101, "train", skip=True)
    assert again.summary() == first.summary()
    assert again.dataset.to_list() == first.dataset.to_list()
    for other in (samples[1:], samples[::-1]):
        with pytest.raises(pytest.fail.Exception):
            training_rows(other, encoder, 101, "train", skip=True)
    with pytest.raises(pytest.fail.Exception):
        training_rows(samples, encoder, 90, "train", skip=True)


def test_rows_are_the_same_bytes_however_many_processes_make_them(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    from promptcblue_training.data import training_rows
    from promptcblue_training.model import load_tokenizer
    from promptcblue_training.prompts import PromptEncoder

    samples = [
        {**sample, "input": sample["input"] * (number % 3 + 1)}
        for sample in load_samples(data, "train")
        for number in range(40)
    ]
    encoder, written = PromptEncoder(load_tokenizer(str(trained))), []
    for workers in (1, 3):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / str(workers))
        rows = training_rows(samples, encoder, 60, "train", skip=True, workers=workers)  # type: ignore[arg-type]
        assert rows.cut
        assert rows.skipped
        (file,) = tmp_path.glob(f"{workers}/*/*.arrow")
        written.append((file.name, file.read_bytes(), rows.summary()))
    assert written[0] == written[1]


def test_instruction_data_of_one_s_own_is_mixed_in(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(*messages: tuple[str, object]) -> str:
        return json.dumps({"messages": [{"role": role, "content": content} for role, content in messages]}) + "\n"

    path = tmp_path / "messages.jsonl"
    path.write_text(row(("user", "a"), ("assistant", "b")) + row(("system", "s"), ("user", "c"), ("assistant", "d")))
    fit("--extra", str(path), "--mixing", '{"extra": 3}', max_steps=1)
    assert "extra 6" in capsys.readouterr().out
    read = read_messages(path)
    assert [(sample["input"], sample["target"]) for sample in read] == [("a", "b"), ("s\nc", "d")]
    good = row(("user", "a"), ("assistant", "b"))
    for bad in (
        row(("user", "a")),
        row(("user", "a"), ("assistant", None)),
        row(("assistant", "b"), ("user", "a")),
        "{}",
    ):
        path.write_text(good + bad)
        with pytest.raises(PromptCBLUEError, match=r"messages\.jsonl:2: field 'messages'"):
            read_messages(path)
    with pytest.raises(PromptCBLUEError, match="extra"):
        fit("--mixing", '{"extra": 3}', max_steps=1)


def test_a_weight_says_how_often_a_task_is_seen() -> None:
    mixed = mix(samples(CMeIE=10, CHIP_STS=10, KUAKE_QQR=4), {"CMeIE": 0.5, "CHIP-STS": 2.3}, seed=1)
    counts = Counter(sample["task_dataset"] for sample in mixed)
    assert counts == {"CMeIE": 5, "CHIP-STS": 23, "KUAKE-QQR": 4}
    each = Counter(sample["sample_id"] for sample in mixed if sample["task_dataset"] == "CHIP-STS")
    assert set(each.values()) == {2, 3}
    halves = Counter(sample["sample_id"] for sample in mixed if sample["task_dataset"] == "CMeIE")
    assert set(halves.values()) == {1}


def test_the_seed_decides_which_half_is_taken() -> None:
    rows = samples(CMeIE=40)
    one, same, other = (mix(rows, {"CMeIE": 0.5}, seed) for seed in (1, 1, 2))
    assert one == same
    assert {row["sample_id"] for row in one} != {row["sample_id"] for row in other}


def test_weights_that_mean_nothing_are_refused(fit: Fit) -> None:
    with pytest.raises(PromptCBLUEError, match="CHIP-STS"):
        mix(samples(CMeIE=2), {"CHIP-STS": 2.0}, seed=1)
    with pytest.raises(PromptCBLUEError, match="no samples"):
        mix(samples(CMeIE=2), {"CMeIE": 0.0}, seed=1)
    with pytest.raises(PromptCBLUEError, match="-1"):
        fit(mixing={"CMeIE": -1})
    with pytest.raises(PromptCBLUEError, match="mixing"):
        fit(mixing="twice")


def test_mixing_is_said_and_trained_on(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit("--mixing", '{"CMeIE": 3}', max_steps=1, configs=["CMeIE", "CHIP-STS"])
    out = capsys.readouterr().out
    assert "train: 8 samples of 2 task(s)" in out
    assert "CMeIE 6" in out


def test_few_shot_fine_tuning_sees_the_papers_demonstrations(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    """The counts of Table 1, and the very samples that few-shot prompting shows with the same seed."""
    folder = fit(dataset=SAMPLE, few_shot=True, few_shot_seed=5, max_steps=1)
    assert f"train: {sum(DEMONSTRATIONS.values())} samples of 16 task(s)" in capsys.readouterr().out
    from promptcblue_training.run import samples_fingerprint

    train = load_samples(SAMPLE, "train")
    drawn = draw(train, paper_counts(dict.fromkeys(row["task_dataset"] for row in train)), seed=5)
    recorded = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
    assert recorded["samples"] == samples_fingerprint(drawn)


@pytest.fixture(scope="module")
def chatty(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has a chat template."""
    from promptcblue_training.model import load_model, load_tokenizer

    folder = tmp_path_factory.mktemp("chatty")
    tokenizer = load_tokenizer(str(trained))
    tokenizer.chat_template = "{% for turn in messages %}{{ turn.role }}：{{ turn.content }}\n{% endfor %}assistant："
    tokenizer.save_pretrained(folder)
    import torch

    load_model(str(trained), torch.float32).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("prompt_format", "chat"), [("auto", True), ("chat", True), ("plain", False)])
def test_prediction_writes_prompts_as_training_did(fit: Fit, chatty: Path, prompt_format: str, chat: bool) -> None:
    from promptcblue_training.model import load_tokenizer
    from promptcblue_training.prompts import PromptEncoder

    folder = fit(model=str(chatty), from_config=None, prompt_format=prompt_format, max_steps=1)
    assert PromptEncoder(load_tokenizer(str(folder))).chat is chat


def test_a_chat_format_needs_a_template(fit: Fit) -> None:
    with pytest.raises(PromptCBLUEError, match="no chat template"):
        fit(prompt_format="chat")
    with pytest.raises(PromptCBLUEError, match="prompt_format"):
        fit(prompt_format="shouted")
