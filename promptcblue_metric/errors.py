"""What can go wrong for reasons a user can mend. Each message says what, where and how to mend it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

#: The extra that brings each library which only some commands need.
EXTRAS: Mapping[str, str] = {
    **dict.fromkeys(("openpyxl", "python_calamine"), "build"),
    **dict.fromkeys(("accelerate", "filelock", "matplotlib", "pandas", "peft"), "train"),
    **dict.fromkeys(("safetensors", "tokenizers", "torch", "tqdm", "transformers", "trl"), "train"),
    **dict.fromkeys(("tensorboard", "trackio"), "track"),
    "bitsandbytes": "quantize",
    "gradio": "space",
    "jinja2": "report",
    "openai": "openai",
    "ray": "ray",
    "vllm": "vllm",
}


class PromptCBLUEError(ValueError):
    """Base of every error raised on purpose; the commands print it as one line and exit with 1."""


class UnknownTaskError(PromptCBLUEError):
    """A task name that is neither a config nor an alias of one."""


class SeparatorError(PromptCBLUEError):
    """An answer part that the released dialect cannot write, since it holds one of its separators."""


class RowError(PromptCBLUEError):
    """A row of a file that cannot be used.

    Args:
        path: the file, as the user named it.
        line: 1-based line number in it.
        field: the field at fault, or None when the whole row is.
        message: what was expected and what stands there.
    """

    def __init__(self, path: str, line: int, field: str | None, message: str) -> None:
        self.path, self.line, self.field, self.message = path, line, field, message
        where = f"{path}:{line}: " + (f"field '{field}': " if field else "")
        super().__init__(where + message)


class MissingLibraryError(PromptCBLUEError):
    """A library that is not installed and that an extra of this package brings (`EXTRAS`)."""

    def __init__(self, library: str) -> None:
        super().__init__(f"this needs {library}, not installed here: {install_command(EXTRAS[library])}")


def require(library: str) -> None:
    """Raise `MissingLibraryError` where the library is not installed."""
    if find_spec(library) is None:
        raise MissingLibraryError(library)


def install_command(extra: str) -> str:
    """The command that installs an extra of this package from where it came itself: a folder, a URL or an index."""
    package = f"promptcblue[{extra}]"
    try:
        came_from = json.loads(distribution("promptcblue").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # not installed: used from a checkout, or as the metric's folder alone
        folder = Path(__file__).parents[1]
        came_from = {"url": folder.as_uri(), "dir_info": {}} if (folder / "setup.cfg").is_file() else {}
    url = came_from.get("url", "")
    if "dir_info" in came_from:
        options = ["-e"] if came_from["dir_info"].get("editable") else []
        return shlex.join(["pip", "install", *options, f"{url2pathname(urlsplit(url).path)}[{extra}]"])
    if url:
        scheme = f"{came_from['vcs_info']['vcs']}+" if "vcs_info" in came_from else ""
        package += f" @ {scheme}{url}"
    return shlex.join(["pip", "install", package])
