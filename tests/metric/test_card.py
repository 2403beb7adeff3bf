"""The metric's card: what it says to the Hub, and that every number in it is true."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptcblue_metric.hub import page as space
from promptcblue_metric.version import VERSION

from ..conftest import ROOT, Run

METRIC = ROOT / "promptcblue_metric"
CARD = (METRIC / "README.md").read_text(encoding="utf-8")
PINNED = dict(
    re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8").lower(), re.MULTILINE)
)


def test_the_front_matter_starts_the_page() -> None:
    front: dict[str, Any] = yaml.safe_load(CARD.split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == PINNED["gradio"]
    assert 'if __name__ == "__main__":' in (METRIC / front["app_file"]).read_text(encoding="utf-8")
    assert {"evaluate", "metric"} <= set(front["tags"])


def test_the_requirements_are_pinned_to_what_is_tested() -> None:
    required = (METRIC / "requirements.txt").read_text(encoding="utf-8").split()
    assert {line.partition("==")[0] for line in required} >= {"datasets", "evaluate", "rapidfuzz", "rouge-chinese"}
    assert all(line == f"{name}=={PINNED[name]}" for line in required for name in [line.partition("==")[0]])


def test_the_limits_are_the_page_s_own() -> None:
    said = " ".join(CARD.split())
    for limit in (
        f"at most {space.MAX_BYTES >> 20} MiB and {space.MAX_ROWS:,} rows",
        f"at most {space.MAX_CHARACTERS:,} characters",
        f"at most {space.MAX_SECONDS} seconds",
        f"deleted after {space.CLEANING[1] // 60} minutes",
    ):
        assert limit in said


def examples() -> Iterator[tuple[str, str]]:
    """Each expression of the card with the value that the comment behind it gives."""
    for code in re.findall(r"```python\n(.*?)```", CARD, re.DOTALL):
        lines = code.splitlines()
        for statement in ast.parse(code).body:
            comment = lines[(statement.end_lineno or 0) - 1].partition("  # ")[2]
            if isinstance(statement, ast.Expr):
                assert comment, ast.unparse(statement)
                yield ast.unparse(statement), comment


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def test_every_number_in_the_examples_is_true(run_python: Run, tmp_path: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", CARD, re.DOTALL))
    program = f"""
import ast, functools, json, sys
import evaluate
load = functools.cache(evaluate.load)
evaluate.load = lambda name, *args: load(sys.argv[1] if name == "promptcblue" else name, *args)
names, found = {{}}, []
for statement in ast.parse({code!r}).body:
    if isinstance(statement, ast.Expr):
        found.append(eval(compile(ast.Expression(statement.value), "card", "eval"), names))
    else:
        exec(compile(ast.Module([statement], []), "card", "exec"), names)
print(json.dumps(found))
"""
    done = run_python(program, METRIC, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    said = list(examples())
    assert len(said) >= 9
    for (expression, comment), value in zip(said, found, strict=True):
        expected = comment if isinstance(value, str) else ast.literal_eval(comment)
        assert rounded(value) == expected, expression


@pytest.mark.parametrize("version", re.findall(r"version:([\d.]+)", CARD))
def test_signatures_name_this_version(version: str) -> None:
    assert version == VERSION
