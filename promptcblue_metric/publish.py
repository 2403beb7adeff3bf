"""The files of the metric's Space: those that its entry points need, as they are in this folder.

Which ones those are is read off the code: the siblings that a module imports, and the data files that it names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import PromptCBLUEError
from .publishing import Publication

PACKAGE = Path(__file__).parent
#: What ``evaluate.load`` runs; the Hub wants it under the name of the metric.
METRIC = "promptcblue.py"
CARD = "README.md"
REQUIREMENTS = "requirements.txt"
#: What only we put into the Space; the licence or the pictures that somebody adds there are not among them.
_OWNED = ("*.py", CARD, REQUIREMENTS, "*.css", "*.j2", "*.js", "*.json")


def publication(package: Path = PACKAGE) -> Publication:
    """The Space: its card, requirements, the metric, and the page where the card names one.

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
    return Publication("space", {name: package / name for name in names}, _OWNED, card.sdk)


def needed(package: Path, entries: list[str]) -> set[str]:
    """The entry points, the siblings that they come to import, and the data files that any of those name."""
    found: set[str] = set()
    left = list(entries)
    while left:
        name = left.pop()
        if name not in found and name.endswith(".py") and (package / name).is_file():
            left += _mentioned(package, name)
        found.add(name)
    return found


def _mentioned(package: Path, name: str) -> Iterator[str]:
    """The siblings of a module that it imports, or names in a string, as ``__init__.py`` or ``package.module``."""
    for node in ast.walk(ast.parse((package / name).read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=None, names=names) | ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.-]+", text):
                if (package / text).is_file():
                    yield text
                modules = [text] if text.startswith(f"{package.name}.") else []
            case _:
                continue
        for module in modules:
            sibling = f"{module.removeprefix(f'{package.name}.').partition('.')[0]}.py"
            if (package / sibling).is_file():
                yield sibling
