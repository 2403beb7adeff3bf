"""Writing files that a user would hate to lose, and reading what was written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import PromptCBLUEError


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as readable UTF-8 JSON, whole or not at all.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    replace_bytes(Path(path), (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PromptCBLUEError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """An empty folder beside ``output`` that takes its place when the block ends well, and else vanishes."""
    output = output.absolute()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
            new, old = Path(scratch, "new"), Path(scratch, "old")
            new.mkdir()
            yield new
            if os.path.lexists(output):
                output.rename(old)
            try:
                new.rename(output)
            except BaseException:
                if os.path.lexists(old):
                    old.rename(output)
                raise
    except OSError as error:
        raise PromptCBLUEError(f"{output}: cannot be written: {error.strerror or error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        PromptCBLUEError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromptCBLUEError(f"{path}: expected a JSON file: {error}") from error
    if not isinstance(value, dict):
        raise PromptCBLUEError(f"{path}: expected a JSON object")
    return value
