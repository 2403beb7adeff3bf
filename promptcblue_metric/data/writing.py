"""Writing what a user would hate to lose, whole or not at all; and reading what was written.

The new thing is made under a hidden name beside its place, which ends in ``.promptcblue-tmp``, and renamed. What a
killed run left under such a name is taken away by the next that writes into the same folder.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import PromptCBLUEError

#: Names of what is not there to stay: a process's number, and a mark of its machine.
_LEFT = re.compile(r"\.[0-9a-f]{32}\.(\d{1,9})-([0-9a-f]{8})\.promptcblue-tmp")
_HERE = f"{zlib.crc32(platform.node().encode()):08x}"
#: Seconds after which what a process of another machine has not touched is left over.
_STALE = 86_400
#: Those of this process that are in use.
_in_use: set[Path] = set()


def write_json(path: str | Path, value: object) -> None:
    """Write ``value`` as readable UTF-8 JSON, whole or not at all.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    replace_bytes(Path(path), encoded(as_json(value)))


def as_json(value: object) -> str:
    """``value`` as readable JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def encoded(json_text: str) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which a model can write and UTF-8 cannot hold, becomes an escape."""
    return json_text.encode("utf-8", "backslashreplace")


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of ``path`` when the block ends well, and else vanishes.

    A pipe or a device, such as ``/dev/stdout``, gets the content and stays what it is.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    with _scratch(path) as (target, temporary):
        yield temporary
        if is_stream(path):
            path.write_bytes(temporary.read_bytes())
        else:
            temporary.replace(target)


def is_stream(path: Path) -> bool:
    """Whether a path is that of a pipe or a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``output`` when the block ends well, and else vanishes.

    Raises:
        PromptCBLUEError: the folder cannot be written.
    """
    with _scratch(output) as (target, temporary):
        new, old = temporary / "new", temporary / "old"
        new.mkdir(parents=True)
        yield new
        if os.path.lexists(target):
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if os.path.lexists(old):
                old.rename(target)
            raise


@contextmanager
def _scratch(path: Path) -> Iterator[tuple[Path, Path]]:
    """The place of ``path``, links followed, and a path beside it where nothing is, nor will be after the block."""
    target = Path(tempfile.gettempdir(), path.name) if is_stream(path) else path.resolve()
    temporary = target.parent
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _passing(target.parent) as temporary:
            yield target, temporary
    except OSError as error:
        # What could not be read for the writing is named too.
        other = f" ({error.filename})" if str(error.filename) not in (str(temporary), str(target), "None") else ""
        raise PromptCBLUEError(f"{path}: cannot be written: {error.strerror or error}{other}") from error


@contextmanager
def scratch_folder(around: str | None = None) -> Iterator[Path]:
    """An empty folder for what is only needed in the block, in the system's temporary folder or in ``around``."""
    with _passing(Path(around or tempfile.gettempdir())) as folder:
        folder.mkdir(0o700)
        yield folder


@contextmanager
def _passing(folder: Path) -> Iterator[Path]:
    """A path in a folder where nothing is, nor will be after the block; what killed processes have left there goes."""
    for left in folder.iterdir():
        if (found := _LEFT.fullmatch(left.name)) and left not in _in_use and _is_left(left, int(found[1]), found[2]):
            _remove(left)
    path = folder / f".{uuid4().hex}.{os.getpid()}-{_HERE}.promptcblue-tmp"
    _in_use.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _in_use.discard(path)


def _is_left(path: Path, process: int, machine: str) -> bool:
    """Whether what is not in use by this process is in use by no other.

    The numbers of processes start anew in each container, so that one may meet what another of its own number has left.
    """
    if machine != _HERE:
        with suppress(OSError):
            return path.lstat().st_mtime < time.time() - _STALE
        return False
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, PermissionError)
    return False


def _remove(path: Path) -> None:
    """Take away a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        PromptCBLUEError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PromptCBLUEError(f"{path}: expected a JSON file: {error}") from error
    if not isinstance(value, dict):
        raise PromptCBLUEError(f"{path}: expected a JSON object")
    return value
