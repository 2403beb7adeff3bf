"""The files of the metric: those of its Space on the Hub, and those that ``evaluate`` finds here without a Hub."""

from __future__ import annotations

import hashlib
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

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
#: What of the package goes into the Space, and is ours to take away; a licence or pictures that somebody adds are not.
_OURS = ("*.py", CARD, REQUIREMENTS, "*.css", "*.j2", "*.js", "*.json", "*.tsv", "*.in", "*.yaml")


def publication(repo: str, package: Path = PACKAGE) -> Publication:
    """The Space, which is the package: its card, requirements, modules and data.

    Args:
        repo: where it will stand.

    Raises:
        PromptCBLUEError: a file that it begins with is not there, or the card does not say what runs the Space.
    """
    from huggingface_hub import SpaceCard

    card = SpaceCard((package / CARD).read_text(encoding="utf-8")).data
    if not card.sdk:
        raise PromptCBLUEError(f"{package / CARD}: expected `sdk` in its front matter, such as gradio")
    paths = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*")) if path.is_file()}
    files = {name: path for name, path in paths.items() if any(fnmatchcase(name, pattern) for pattern in _OURS)}
    pages = [card.app_file or "app.py"] if card.sdk == "gradio" else []
    if missing := [name for name in (METRIC, REQUIREMENTS, *pages) if name not in files]:
        raise PromptCBLUEError(f"{package}: the Space needs {', '.join(missing)}")
    then = f"python -c 'import evaluate; print(evaluate.load(\"{repo}\"))'"
    return Publication("space", files, _OURS, then, space_sdk=card.sdk)


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
