from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from promptcblue_dataset import load_samples
from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.backends import BackendSettings, Completion, Request, load_backend
from promptcblue_training.data import Splits
from promptcblue_training.predict import predict
from promptcblue_training.prompts import PromptEncoder, Shot, ShotStyle
from promptcblue_training.shots import Demonstrations, ShotSettings
from promptcblue_training.tiny import build_tokenizer

from .conftest import read_rows, write_rows

Selection = Literal["fixed", "similar"]

SHOTS = (Shot("问一？", "甲"), Shot("问二？", "乙"))
TEMPLATE = (
    "{% for turn in messages %}[{{ turn['role'][0] }}]{{ turn['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)


@pytest.fixture
def test_split(data: Path) -> list[Sample]:
    return load_samples(data, "test")


def shown(dataset: str | Path, samples: list[Sample], split: str = "test", **settings: Any) -> Demonstrations:
    return Demonstrations(ShotSettings(**settings), Splits(str(dataset)), split, samples)


def encoder(*, chat: bool) -> PromptEncoder:
    tokenizer = build_tokenizer([TEMPLATE, *(text for shot in SHOTS for text in shot), "问三？"])
    tokenizer.chat_template = TEMPLATE if chat else None
    return PromptEncoder(tokenizer)


@pytest.mark.parametrize(
    ("chat", "style", "text"),
    [
        (True, "chat", "[u]问一？[a]甲[u]问二？[a]乙[u]问三？[a]"),
        (True, "text", "[u]问一？甲\n\n问二？乙\n\n问三？[a]"),
        (False, "chat", "问一？甲\n\n问二？乙\n\n问三？"),
        (False, "text", "问一？甲\n\n问二？乙\n\n问三？"),
    ],
)
def test_demonstrations_are_turns_or_one_text(chat: bool, style: ShotStyle, text: str) -> None:
    own = encoder(chat=chat)
    (ids,) = own.prompts(["问三？"], [SHOTS], style)
    # A line break is no character of this tokenizer's.
    assert own.decode(ids) == text.replace("\n", "")
    assert own.prompts(["问三？"], [()], style) == own.prompts(["问三？"])


def test_demonstrations_are_dropped_whole_the_first_ones_first() -> None:
    own = encoder(chat=True)
    sizes = [len(own.prompts(["问三？"], [SHOTS[dropped:]])[0]) for dropped in range(3)]
    for room in range(sizes[2] - 1, sizes[0] + 2):
        fitted = own.fit_shots("问三？", SHOTS, "chat", room)
        expected = next((dropped for dropped, size in enumerate(sizes) if size <= room), 2)
        assert (fitted.dropped, fitted.cut) == (expected, room < sizes[2])
        assert len(fitted.ids) == min(sizes[expected], room)


def test_a_backend_counts_what_it_dropped(trained: Path, test_split: list[Sample]) -> None:
    backend = load_backend(BackendSettings(model=str(trained)))
    prompt = test_split[0]["input"]
    # The model sees 1,024 tokens, which are characters.
    shots = tuple(Shot("病" * 300, str(number)) for number in range(5))
    (completion,) = backend.generate([Request(0, prompt, 8, shots)])
    assert isinstance(completion, Completion)
    fitting = (1024 - 8 - len(prompt) - 1) // 303
    assert completion.dropped == 5 - fitting
    assert not completion.cut


@pytest.mark.parametrize("selection", ["fixed", "similar"])
def test_demonstrations_come_from_the_train_split_of_the_task(
    data: Path, test_split: list[Sample], selection: Selection
) -> None:
    train = {(row["task_dataset"], row["input"]): row["target"] for row in load_samples(data, "train")}
    demonstrations = shown(data, test_split, count=2, selection=selection)
    for sample in test_split:
        shots = demonstrations.of(sample)
        assert len(shots) == 2
        for shot in shots:
            assert train[sample["task_dataset"], shot.prompt] == shot.answer


def test_fixed_ones_are_the_same_for_a_task_and_follow_the_seed(data: Path) -> None:
    samples = load_samples("sample", "test", ["CHIP-CTC", "MedDG"])
    one = shown("sample", samples, count=2)
    by_task: dict[str, set[Any]] = {}
    for sample in samples:
        by_task.setdefault(sample["task_dataset"], set()).add(one.of(sample))
    assert {task: len(found) for task, found in by_task.items()} == {"CHIP-CTC": 1, "MedDG": 1}
    others = [shown("sample", samples, count=2, seed=seed) for seed in range(1, 5)]
    assert any(other.of(samples[0]) != one.of(samples[0]) for other in others)
    assert len({json.dumps(each.identity()) for each in (one, *others)}) == 5


def test_similar_ones_are_similar_and_the_nearest_is_last(tmp_path: Path, test_split: list[Sample]) -> None:
    base = next(sample for sample in test_split if sample["task_dataset"] == "KUAKE-QIC")
    texts = ["高血压怎么治疗", "高血压吃什么药", "小儿发烧怎么办", "颈椎病的症状有哪些"]
    rows: list[dict[str, Any]] = [
        {**base, "input": text, "target": "治疗方案", "sample_id": f"train-{number}"}
        for number, text in enumerate(texts)
    ]
    source = write_rows(tmp_path / "train.json", rows)
    asked: Sample = {**base, "input": "高血压怎么治疗好"}
    asked_file = write_rows(tmp_path / "asked.json", [dict(asked)])
    shots = shown(asked_file, [asked], count=2, selection="similar", source=str(source)).of(asked)
    assert [shot.prompt for shot in shots] == [texts[1], texts[0]]


@pytest.mark.parametrize("selection", ["fixed", "similar"])
def test_a_held_out_sample_is_never_a_demonstration(
    tmp_path: Path, data: Path, test_split: list[Sample], selection: Selection
) -> None:
    train, dev = (read_rows(data / f"{split}.json") for split in ("train", "dev"))
    folder = tmp_path / "data"
    folder.mkdir()
    # The same texts, but for white space, under ids of the train split.
    leaked = [{**row, "sample_id": f"train-{row['sample_id']}", "input": f"{row['input']} \n"} for row in dev]
    leaked += [{**row, "sample_id": f"train-{row['sample_id']}"} for row in read_rows(data / "test.json")]
    write_rows(folder / "train.json", [*leaked, *train])
    write_rows(folder / "dev.json", dev)
    write_rows(folder / "test.json", read_rows(data / "test.json"))
    demonstrations = shown(folder, test_split, count=2, selection=selection)
    assert demonstrations.held_out == len(leaked)
    allowed = {row["input"] for row in train}
    assert all(shot.prompt in allowed for sample in test_split for shot in demonstrations.of(sample))


@pytest.mark.parametrize("selection", ["fixed", "similar"])
def test_a_train_sample_is_not_its_own_demonstration(data: Path, selection: Selection) -> None:
    train = load_samples(data, "train")
    demonstrations = shown(data, train, "train", count=2, selection=selection)
    for sample in train:
        shots = demonstrations.of(sample)
        assert shots
        assert all(shot.prompt != sample["input"] for shot in shots)


def test_the_paper_s_counts_need_a_train_split_that_has_them(data: Path, test_split: list[Sample]) -> None:
    with pytest.raises(PromptCBLUEError, match="CMeIE has 2 of 12"):
        shown(data, test_split)
    single = data / "test.json"
    with pytest.raises(PromptCBLUEError, match="--demonstrations-from"):
        shown(single, test_split, count=1)
    assert shown(single, test_split, count=1, source=str(data)).of(test_split[0])


def test_few_shot_prediction_is_recorded_and_not_mixed(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.jsonl"
    settings = BackendSettings(model=str(trained))
    tasks = ["CHIP-STS", "KUAKE-QIC", "CHIP-CTC"]
    predict(str(data), "test", output, settings, tasks, 8, shots=ShotSettings(count=2))
    recorded = json.loads(Path(f"{output}.meta.json").read_text(encoding="utf-8"))["settings"]
    assert recorded["demonstrations"]["counts"] == dict.fromkeys(recorded["max_new_tokens"], 2)
    assert recorded["demonstrations"]["style"] == "chat"
    plain = tmp_path / "plain.jsonl"
    predict(str(data), "test", plain, settings, tasks, 8)
    few, none = ({row["sample_id"]: row["prompt_tokens"] for row in read_rows(path)} for path in (output, plain))
    assert all(few[name] > none[name] for name in few)
    for shots in (None, ShotSettings(count=1), ShotSettings(count=2, selection="similar")):
        with pytest.raises(PromptCBLUEError, match="demonstrations was"):
            predict(str(data), "test", output, settings, tasks, 8, shots=shots)
    assert Counter(row["task_dataset"] for row in read_rows(output)) == Counter(tasks)
