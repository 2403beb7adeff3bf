"""Reading JSON Lines files row by row, with errors that name file, line and field (formats.md section 1)."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NoReturn, TypedDict, cast

from ..errors import PromptCBLUEError, RowError, UnknownTaskError
from ..tasks import get_task


class Sample(TypedDict):
    """A row of the benchmark: the six fields of every file and of the dataset."""

    input: str
    target: str
    answer_choices: list[str] | None
    sample_id: str
    task_type: str
    task_dataset: str


def stop(error: RowError) -> NoReturn:
    """The default for ``on_error``: the first bad row ends the reading."""
    raise error


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, unpacking gzip by its first bytes.

    Raises:
        PromptCBLUEError: there is no such file, or it cannot be opened.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        raise PromptCBLUEError(f"{path}: {error.strerror or error}") from error
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(stream))
    return stream


class seekable_lines:  # noqa: N801 - used as a function
    """Iterate over the lines of a file (gzipped or not) that are not blank, as ``(line number, offset, bytes)``.

    `line_at` reads one of them again. Line numbers start at 1.

    Raises:
        PromptCBLUEError: the file cannot be opened or read to its end.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        stream = open_binary(Path(path))
        if isinstance(stream, gzip.GzipFile):
            # A compressed file cannot be read at any place in reasonable time.
            with stream, _readable(path):
                unpacked = cast(BinaryIO, TemporaryFile())  # noqa: SIM115 - lives as long as this object
                shutil.copyfileobj(stream, unpacked)
            stream = unpacked
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        self._stream.seek(0)
        offset = 0
        with _readable(self._path):
            for number, line in enumerate(self._stream, 1):
                if line.strip():
                    yield number, offset, line
                offset += len(line)

    def line_at(self, offset: int) -> bytes:
        """The line that starts at ``offset``."""
        self._stream.seek(offset)
        return self._stream.readline()


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn a failure to read into an error that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise PromptCBLUEError(f"{path}: cannot be read to its end: {error}") from error


def parse_json_line(content: bytes, path: str | Path, line: int) -> dict[str, Any]:
    """The object on a line of a JSON Lines file.

    Raises:
        RowError: the line holds no JSON object in UTF-8.
    """
    try:
        row = json.loads(content.decode("utf-8-sig" if line == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        raise RowError(str(path), line, None, f"expected one JSON object in UTF-8 a line: {error}") from error
    if not isinstance(row, dict):
        raise RowError(str(path), line, None, f"expected one JSON object a line, found a {type(row).__name__}")
    return row


def read_json_lines(
    path: str | Path, on_error: Callable[[RowError], object] = stop
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON Lines file (gzipped or not) with their 1-based line numbers; blank lines are passed over.

    Args:
        on_error: called with each line that holds no JSON object; reading goes on if it returns.
    """
    with open_binary(Path(path)) as stream, _readable(path):
        for number, content in enumerate(stream, 1):
            if not content.strip():
                continue
            try:
                row = parse_json_line(content, path, number)
            except RowError as error:
                on_error(error)
                continue
            yield number, row


def sample_from_row(row: Mapping[str, Any], path: str | Path, line: int) -> Sample:
    """Check a row and return it in the current spelling (``type`` is v0.1's ``task_type``; aliases become configs).

    Raises:
        RowError: a field is missing, of the wrong type, or not what the task needs.
    """

    def fail(field: str, message: str) -> NoReturn:
        raise RowError(str(path), line, field, message)

    def text(field: str, *old_names: str) -> str:
        for name in (field, *old_names):
            if name in row:
                value = row[name]
                return value if isinstance(value, str) else fail(name, f"expected a string, found {value!r:.80}")
        return fail(field, f"missing; the row has {', '.join(sorted(map(str, row))) or 'no fields'}")

    try:
        task = get_task(text("task_dataset"))
    except UnknownTaskError as error:
        fail("task_dataset", str(error))
    prompt, target = text("input"), text("target")
    if not prompt.strip():
        fail("input", "expected a prompt, found an empty string")
    choices = row.get("answer_choices")
    if choices is not None and not (isinstance(choices, list) and all(isinstance(item, str) for item in choices)):
        fail("answer_choices", f"expected a list of strings or null, found {choices!r:.80}")
    if task.needs_choices and not choices:
        fail("answer_choices", f"{task.name} needs the choices its prompt offers, found {choices!r}")
    return {
        "input": prompt,
        "target": target,
        "answer_choices": choices,
        "sample_id": text("sample_id"),
        "task_type": text("task_type", "type"),
        "task_dataset": task.name,
    }
