"""Hooks of mkdocs: the reference of the three command lines, written from the commands themselves, and what a block of
commands needs, shown to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any

from typer.main import get_command

#: Where each command line is.
APPS = {
    "promptcblue-dataset": "promptcblue_dataset.cli",
    "promptcblue-metric": "promptcblue_metric.cli.main",
    "promptcblue-train": "promptcblue_training.cli",
}
#: What stands in a page for the reference.
MARK = "<!-- the commands -->"
#: A line's end between Chinese characters, which would be shown as a blank; list items and tables begin with others.
_JOINED = re.compile(r"(?<=[\u3001-\u9fff\uff00-\uffef])\n *(?=[\u3001-\u9fff\uff00-\uffef])")
_WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "needs": "Needs: ",
        "given": "This page takes it that you have: ",
        "option": "argument or option",
        "key": "key",
        "meaning": "what it is",
        "usual": "default",
        "example": "Example:",
        "recipe": "Keys of a recipe, beside those of TRL's `SFTConfig`; each is an option too (`--lora_rank 8`):",
    },
    "zh": {
        "needs": "需要：",
        "given": "本页假定已有：",
        "option": "参数或选项",
        "key": "键",
        "meaning": "说明",
        "usual": "默认值",
        "example": "例：",
        "recipe": "配方的键，另有 TRL 的 `SFTConfig` 的全部设置；每个键也是选项（`--lora_rank 8`）：",
    },
}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text with its marks made visible, and with the reference where it belongs."""
    words = _WORDS["zh" if page.file.locale == "zh" else "en"]
    markdown = re.sub(
        r"<!-- (needs|given): (.*?) -->\n",
        lambda found: f'<p class="{found[1]}">{words[found[1]]}{_shown(*found.groups())}</p>\n\n',
        markdown,
    )
    markdown = _JOINED.sub("", markdown)
    return markdown.replace(MARK, "\n\n".join(reference(words))) if MARK in markdown else markdown


def _shown(kind: str, said: str) -> str:
    return ", ".join(f"<code>{name}</code>" for name in said.split()) if kind == "given" else said


def reference(words: Mapping[str, str]) -> Iterator[str]:
    """Markdown of every command: what it does, its arguments and options with defaults and ranges, an example."""
    for name, module in APPS.items():
        yield from _command(get_command(import_module(module).app), name, 2, words)


def _command(command: Any, path: str, level: int, words: Mapping[str, str]) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    yield f"{'#' * level} {path}"
    yield re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "").replace("<", "&lt;")
    if subcommands := getattr(command, "commands", None):
        for name, each in subcommands.items():
            yield from _command(each, f"{path} {name}", 3, words)
        return
    yield _code(f"{path} {' '.join(command.collect_usage_pieces(context))}")
    records = [each.get_help_record(context) for each in command.get_params(context)]
    yield _table((words["option"], words["meaning"]), filter(None, records))
    if path.endswith(" sft"):
        yield words["recipe"]
        yield _table((words["key"], words["usual"], words["meaning"]), _keys())
    if command.epilog:
        yield words["example"]
        yield _code(command.epilog.removeprefix("Example: "))


def _keys() -> Iterator[tuple[str, str, str]]:
    from promptcblue_training.recipe import Recipe, defaults

    usual = defaults()
    for each in fields(Recipe):
        made = each.default if each.default_factory is MISSING else each.default_factory()
        value = usual.get(each.name, made)
        yield each.name, "" if value is None else f"`{value}`", each.metadata["help"]


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["|".join(["", *head, ""]), "|".join(["", *["---"] * len(head), ""])]
    for name, *rest in rows:  # a bar in code is no end of a cell
        lines.append("|".join(["", f"`{name}`", *(" ".join(cell.replace("|", "\\|").split()) for cell in rest), ""]))
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"```text\n{text}\n```"
