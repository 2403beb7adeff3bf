from __future__ import annotations

import sys
from pathlib import Path

import pytest

from promptcblue_training import cli
from promptcblue_training.backends import BACKENDS

from ..conftest import Run

HEAVY = "torch transformers datasets trl peft accelerate pyarrow evaluate"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["promptcblue-train", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


@pytest.mark.parametrize("arguments", ["--help", "sft --help", "card --help", "predict --help"])
def test_help_is_quick_and_has_an_example(run_python: Run, arguments: str) -> None:
    code = (
        "import sys\nfrom promptcblue_training.cli import main\n"
        "sys.argv = ['promptcblue-train', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        f"print('imported:', [name for name in {HEAVY.split()!r} if name in sys.modules])"
    )
    result = run_python(code, *arguments.split())
    assert result.returncode == 0, result.stderr
    assert "imported: []" in result.stdout
    if " " in arguments:
        assert "Example: promptcblue-train" in " ".join(result.stdout.split())


def test_predicting_from_the_command_line(
    data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "predictions.jsonl"
    options = ["--model", trained, "--dataset", data, "--output", output, "--config", "CHIP-STS", "--beams", 2]
    assert command(monkeypatch, "predict", *options, "--max-new-tokens", 5, "--split", "dev") in (0, 3)
    assert len(output.read_text(encoding="utf-8").splitlines()) == 1
    assert "--split validation" in capsys.readouterr().out


def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "sft", "no-such-recipe") == 1
    assert command(monkeypatch, "sft", "demo", "--output_dir", tmp_path, "--learning_rates", "1") == 1
    missing = ["--model", tmp_path / "none", "--dataset", "sample", "--output", tmp_path / "p.jsonl"]
    assert command(monkeypatch, "predict", *missing) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["error"] * 3


def test_every_backend_has_its_module() -> None:
    from importlib import import_module

    for module in BACKENDS.values():
        assert callable(import_module(module).load)
