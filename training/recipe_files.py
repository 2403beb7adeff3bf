"""The recipes that are shipped, and recipes as files. Imports no TRL, so that they can be listed at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from promptcblue_metric.errors import PromptCBLUEError

RECIPES = Path(__file__).parent / "recipes"
#: What every recipe says unless it says otherwise.
DEFAULTS = Path(__file__).parent / "defaults.yaml"
#: The class of backbones that a method's name alone stands for.
_USUAL = "small"


def shipped() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def find_recipe(name: str | Path) -> Path:
    """The recipe file: a path, or the bare name of one that is shipped; ``lora`` is short for ``lora-small``.

    Raises:
        PromptCBLUEError: neither; lists those that are shipped.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = shipped()
    for each in (str(name), f"{name}-{_USUAL}"):
        if each in known:
            return known[each]
    raise PromptCBLUEError(f"recipe {name}: no such file, and no shipped recipe; those are {', '.join(known)}")


def read_recipe(path: Path) -> dict[str, Any]:
    """What a recipe says, without the defaults.

    Raises:
        PromptCBLUEError: it cannot be read, or is no YAML mapping.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptCBLUEError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise PromptCBLUEError(f"{path}: expected YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise PromptCBLUEError(f"{path}: expected settings, one 'key: value' a line")
    return recipe


def defaults() -> dict[str, Any]:
    """The settings of the paper (Appendix A.3), and what they leave open."""
    return read_recipe(DEFAULTS)
