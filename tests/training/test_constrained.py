from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptcblue_dataset import load_samples
from promptcblue_metric.tasks import NONE_OF_THESE, TASKS
from promptcblue_training.backends import BackendSettings, Choices, Completion, Request, load_backend
from promptcblue_training.constrained import TokenChoices, choices_of

from .conftest import read_rows

END = 9


def every_answer(choices: TokenChoices, begun: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every answer that the choices let through, without its end."""
    for token in choices.allowed(begun):
        if token == END:
            yield begun
        else:
            yield from every_answer(choices, (*begun, token))


def joined(options: Sequence[tuple[int, ...]], separator: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Every list of different options."""
    lists = itertools.chain.from_iterable(
        itertools.permutations(options, count) for count in range(1, len(options) + 1)
    )
    return {tuple(itertools.chain(first, *((*separator, *ids) for ids in rest))) for first, *rest in lists}


_options = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3, unique=True)


@given(_options)
def test_one_option_is_what_comes_out(options: list[tuple[int, ...]]) -> None:
    assert set(every_answer(TokenChoices(options, END))) == set(options)


@given(_options, st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple))
def test_lists_hold_different_options(options: list[tuple[int, ...]], separator: tuple[int, ...]) -> None:
    assert set(every_answer(TokenChoices(options, END, separator))) == joined(options, separator)


def test_the_answer_for_none_stands_alone() -> None:
    found = set(every_answer(TokenChoices([(1,), (2,)], END, separator=(3,), nothing=(1, 4))))
    assert found == {(1,), (2,), (1, 3, 2), (2, 3, 1), (1, 4)}


def test_what_no_choice_begins_with_can_only_end() -> None:
    assert TokenChoices([(1, 2)], END).allowed((5, 5)) == [END]


def test_the_tasks_with_choices_are_bound_to_what_their_prompts_offer() -> None:
    bound = set()
    for sample in load_samples("sample", "test"):
        choices = choices_of(sample)
        if choices is None:
            continue
        bound.add(sample["task_dataset"])
        assert set(sample["answer_choices"] or ()) <= set(choices.options)
        parts = [sample["target"]] if choices.separator is None else sample["target"].split(choices.separator)
        assert set(parts) <= {*choices.options, choices.nothing}
        assert (NONE_OF_THESE in choices.options) == (NONE_OF_THESE in TASKS[sample["task_dataset"]].labels)
    paper = {name for name in bound if TASKS[name].group in ("text classification", "natural language inference")}
    assert len(paper) >= 7
    assert "CHIP-CDN" in bound
    assert "CMeEE-V2" not in bound


@pytest.mark.parametrize("beams", [1, 3])
def test_bound_answers_are_offered_ones(trained: Path, data: Path, beams: int) -> None:
    backend = load_backend(BackendSettings(model=str(trained), beams=beams))
    samples = [sample for sample in load_samples(data, "test") if choices_of(sample)]
    requests = [Request(index, sample["input"], 200, (), choices_of(sample)) for index, sample in enumerate(samples)]
    free = {
        each.index: each.text
        for each in backend.generate([Request(each.index, each.prompt, 30) for each in requests])
        if isinstance(each, Completion)
    }
    inside = 0
    for completion in backend.generate(requests):
        assert isinstance(completion, Completion)
        assert completion.finish_reason == "stop"
        choices = requests[completion.index].choices
        assert isinstance(choices, Choices)
        parts = [completion.text] if choices.separator is None else completion.text.split(choices.separator)
        assert len(parts) == len(set(parts))
        known = {*choices.options, choices.nothing}
        assert set(parts) <= known
        inside += free[completion.index] in known
    assert inside < len(requests)


def test_the_settings_say_that_answers_were_bound(trained: Path, data: Path, tmp_path: Path) -> None:
    import json

    from promptcblue_metric.errors import PromptCBLUEError
    from promptcblue_training.predict import predict

    output = tmp_path / "p.jsonl"
    settings = BackendSettings(model=str(trained), constrained=True)
    predict(str(data), "test", output, settings, ["CHIP-STS"], 16)
    assert json.loads(Path(f"{output}.meta.json").read_text())["settings"]["constrained"] is True
    (row,) = read_rows(output)
    (sample,) = load_samples(data, "test", ["CHIP-STS"])
    assert row["prediction"] in (sample["answer_choices"] or ())
    with pytest.raises(PromptCBLUEError, match="constrained was true"):
        predict(str(data), "test", output, BackendSettings(model=str(trained)), ["CHIP-STS"], 16)
