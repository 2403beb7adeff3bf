"""The files of the metric: those of its Space on the Hub, and those that ``evaluate`` finds here without a Hub.

Which ones the Space's entry points need is read off the code: the modules that a module imports, and the data files
that it names.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..data.writing import replacing
from ..errors import PromptCBLUEError
from .client import Publication

PACKAGE = Path(__file__).parents[1]
#: What ``evaluate.load`` runs; the Hub wants it under the name of the metric.
METRIC = "promptcblue.py"
CARD = "README.md"
REQUIREMENTS = "requirements.txt"
#: The name under which evaluate caches the Space that a bare ``promptcblue`` stands for.
_CACHE_NAME = "evaluate-metric--promptcblue"
#: What only we put into the Space; the licence or the pictures that somebody adds there are not among them.
_OWNED = ("*.py", CARD, REQUIREMENTS, "*.css", "*.j2", "*.js", "*.json")


def publication(repo: str, package: Path = PACKAGE) -> Publication:
    """The Space: its card, requirements, the metric, and the page where the card names one.

    Args:
        repo: where it will stand.

    Raises:
        PromptCBLUEError: a file that it needs is not there, or the card does not say what runs the Space.
    """
    from huggingface_hub import SpaceCard

    card = SpaceCard((package / CARD).read_text(encoding="utf-8")).data
    if not card.sdk:
        raise PromptCBLUEError(f"{package / CARD}: expected `sdk` in its front matter, such as gradio")
    pages = [card.app_file or "app.py"] if card.sdk == "gradio" else []
    names = sorted({CARD, REQUIREMENTS, *needed(package, [METRIC, *pages])})
    if missing := [name for name in names if not (package / name).is_file()]:
        raise PromptCBLUEError(f"{package}: the Space needs {', '.join(missing)}")
    then = f"python -c 'import evaluate; print(evaluate.load(\"{repo}\"))'"
    return Publication("space", {name: package / name for name in names}, _OWNED, then, space_sdk=card.sdk)


def needed(package: Path, entries: list[str]) -> set[str]:
    """The entry points, the modules of ours that they come to import, and the data files that any of those name."""
    found: set[str] = set()
    left = list(entries)
    while left:
        name = left.pop()
        if name not in found and name.endswith(".py") and (package / name).is_file():
            left += _mentioned(package, name)
        found.add(name)
    return found


def _mentioned(package: Path, name: str) -> Iterator[str]:
    """What a module imports of the package, or names in a string: a file beside it, or ``package.module``."""
    folder = PurePosixPath(name).parent
    for node in ast.walk(ast.parse((package / name).read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=module, names=names, level=level) if level:
                base = folder.joinpath(*[".."] * (level - 1), *(module or "").split("."))
                modules = [base, *(base / alias.name for alias in names)]
            case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.-]{1,99}", text, re.ASCII):
                modules = [PurePosixPath(*text.split(".")[1:])] if text.startswith(f"{package.name}.") else []
                if (package / folder / text).is_file():
                    yield (folder / text).as_posix()
            case _:
                continue
        for path in modules:
            yield from _module_files(package, path)


def _module_files(package: Path, path: PurePosixPath) -> Iterator[str]:
    """The file of a module, and the ``__init__`` of each folder on the way to it; nothing where it is no module."""
    module = (package / path).resolve().relative_to(package.resolve())
    files = [file for file in (module.with_suffix(".py"), module / "__init__.py") if (package / file).is_file()]
    if files:
        folders = [folder / "__init__.py" for folder in module.parents]
        yield from (file.as_posix() for file in (*files[:1], *folders))


def install() -> Path:
    """Copy the metric's modules into evaluate's module cache, its last resort for a name it cannot find.

    Returns:
        the folder that now holds the metric. Installing the same version again only marks it as the latest.

    Raises:
        PromptCBLUEError: the cache cannot be written.
    """
    from evaluate.loading import init_dynamic_modules

    try:
        metrics = Path(init_dynamic_modules()) / "metrics"
    except OSError as error:
        raise PromptCBLUEError(f"the cache of evaluate cannot be written: {error}; HF_HOME names its place") from error
    modules = sorted(PACKAGE.glob("*.py"))
    digest = hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()
    target = metrics / _CACHE_NAME / digest
    with replacing(target) as staging:
        for module in modules:
            shutil.copyfile(module, staging / module.name)
    for package in (metrics, metrics / _CACHE_NAME):
        (package / "__init__.py").touch()
    return target
