"""The numbers and paths of every command are looked at before it does anything."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import promptcblue_dataset.cli as dataset
import promptcblue_metric.cli.main as metric
import promptcblue_training.cli as training
from promptcblue_metric.cli.common import NUMBERS, PLACES, Place, check_outputs
from promptcblue_metric.errors import PromptCBLUEError

Command = Callable[..., object]


def commands(app: typer.Typer) -> Iterator[Command]:
    for command in app.registered_commands:
        assert command.callback
        yield command.callback
    for group in app.registered_groups:
        assert group.typer_instance
        yield from commands(group.typer_instance)


COMMANDS = [command for package in (metric, dataset, training) for command in commands(package.app)]


def holds(annotation: object, *kinds: object) -> bool:
    return annotation in kinds or any(holds(part, *kinds) for part in get_args(annotation))


def parameters(*kinds: type) -> list[Any]:
    """Of every command, those that take such values, alone or several."""
    return [
        pytest.param(command, each.name, id=f"{command.__module__.split('.')[0]} {command.__name__} {each.name}")
        for command in COMMANDS
        for each in inspect.signature(command).parameters.values()
        if holds(each.annotation, *kinds)
    ]


def refused(command: Command, name: str, value: object) -> str:
    """What a command says of an option when that is all it is given."""
    parameters = inspect.signature(command).parameters
    several = holds(parameters[name].annotation, list[Path], list[Path] | None)
    with pytest.raises(PromptCBLUEError) as found:
        command(**{**dict.fromkeys(parameters), name: [value] if several else value})
    return str(found.value)


@pytest.mark.parametrize(("command", "name"), parameters(int, float))
def test_a_number_out_of_its_range_is_refused(command: Command, name: str) -> None:
    numbers = NUMBERS.get(f"{command.__name__}.{name}", NUMBERS.get(name))
    assert numbers
    step = 1 if numbers.whole else 1e-3
    for value in (numbers.least - step, numbers.most + step, math.nan, math.inf, -math.inf, numbers.least + 0.5):
        if not numbers.hold(value):
            assert refused(command, name, value).startswith(f"--{name.replace('_', '-')} {value}: expected ")
    assert numbers.hold(numbers.least)
    assert numbers.hold(min(numbers.most, 2**40)) or numbers.most < 1


@pytest.mark.parametrize(("command", "name"), parameters(Path))
def test_a_path_that_cannot_be_is_refused(
    command: Command, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = PLACES.get(f"{command.__name__}.{name}", PLACES.get(name))
    assert place
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    folder.mkdir()
    if place.folder is not None:
        assert "expected a" in refused(command, name, file if place.folder else folder)
    if not place.written:
        assert "no such" in refused(command, name, tmp_path / "absent")
        return
    assert f"{file} is no folder" in refused(command, name, file / "below" / "it")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"you may not write to {folder}" in refused(command, name, folder / "missing" / "new")


@pytest.mark.parametrize(("command", "name"), parameters(Path))
def test_no_output_takes_the_place_of_what_is_read(command: Command, name: str, tmp_path: Path) -> None:
    def place(name: str) -> Place | None:
        return PLACES.get(f"{command.__name__}.{name}", PLACES.get(name))

    parameters = inspect.signature(command).parameters
    places = {
        each: found for each in parameters if (found := place(each)) and holds(parameters[each].annotation, Path, str)
    }
    if not places[name].written:
        return
    file = tmp_path / "file"
    file.write_text("x")
    for other in places.keys() - {name}:
        several = holds(parameters[other].annotation, list[Path], list[Path] | None)
        path = tmp_path / "folder" / ".." / "file"
        options = {**dict.fromkeys(parameters), name: file, other: [path] if several else path}
        with pytest.raises(PromptCBLUEError, match=r"would be overwritten|two outputs"):
            command(**options)


def test_no_output_takes_the_place_of_what_lies_in_an_input(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    corpus = raw / "CMeIE"
    corpus.mkdir(parents=True)
    for kept in (corpus / "CMeIE_dev.jsonl", raw / "train.json"):
        kept.write_text("{}")
    for output in (corpus, corpus / "CMeIE_dev.jsonl", raw / "train.json"):
        with pytest.raises(PromptCBLUEError, match=r"would be overwritten; name another output$"):
            check_outputs(output, inputs=[raw])
    report, scores, answers = raw / "report", raw / "scores.json", raw / "answers.jsonl"
    report.mkdir()
    for name in ("report.json", "report.md", "index.html"):
        (report / name).touch()
    scores.write_text('{"overall": 1}')
    for name in ("answers.jsonl", "answers.jsonl.meta.json"):
        (raw / name).touch()
    check_outputs(raw / "new", report, scores, answers, inputs=[raw])
