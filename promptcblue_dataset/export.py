"""Samples as the files that other tools train on, and what tells each tool of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

import typer

from promptcblue_dataset.folder import check_output
from promptcblue_dataset.options import OverwriteOption, TasksOption, task_names
from promptcblue_metric.data.samples import Sample, canonical_split, load_samples, resolve, splits_of
from promptcblue_metric.data.writing import as_json, encoded, replacing
from promptcblue_metric.errors import PromptCBLUEError

ToolName: TypeAlias = Literal["llama-factory", "ms-swift", "axolotl", "openai"]
#: The splits that a model learns from, or has its loss measured on, in this order.
_LEARNED = ("train", "validation")
#: The files that tell a tool of those with the samples, by name, and what a user does next.
_Registration: TypeAlias = tuple[Mapping[str, str], str]


class _Tool(NamedTuple):
    """What a tool reads.

    Attributes:
        fields: those of a line of its files: of a sample, or the ``messages`` of its chat.
        register: what registers the files of the splits in a folder.
        least: how many samples it wants in a file.
    """

    fields: Sequence[str]
    register: Callable[[Path, Sequence[str]], _Registration]
    least: int = 1


def _llama_factory(folder: Path, splits: Sequence[str]) -> _Registration:
    # Whatever it calls `query` is the column `input` unless columns are named, and would come a second time.
    columns = {"prompt": "input", "response": "target"}
    info = {f"promptcblue_{split}": {"file_name": f"{split}.jsonl", "columns": columns} for split in splits}
    learned, *measured = info
    options = ["--dataset", learned, *(["--eval_dataset", ",".join(measured)] if measured else [])]
    command = shlex.join(["llamafactory-cli", "train", "--dataset_dir", str(folder), *options])
    return {"dataset_info.json": as_json(info)}, f"{command} …"


def _ms_swift(folder: Path, splits: Sequence[str]) -> _Registration:
    info = [{"dataset_name": f"promptcblue_{split}", "dataset_path": f"{split}.jsonl"} for split in splits]
    learned, *measured = [entry["dataset_name"] for entry in info]
    options = ["--dataset", learned, *(["--val_dataset", *measured] if measured else [])]
    command = shlex.join(["swift", "sft", "--custom_dataset_info", str(folder / "dataset_info.json"), *options])
    return {"dataset_info.json": as_json(info)}, f"{command} …"


def _axolotl(folder: Path, splits: Sequence[str]) -> _Registration:
    import yaml

    form = {"ds_type": "json", "split": "train", "type": "chat_template", "field_messages": "messages"}
    files = [{"path": str(folder.absolute() / f"{split}.jsonl"), **form} for split in splits]
    settings = {"datasets": files[:1]} | ({"test_datasets": files[1:]} if files[1:] else {})
    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
    return {"datasets.yaml": text}, f"put the lines of {folder / 'datasets.yaml'} into your configuration"


def _openai(folder: Path, splits: Sequence[str]) -> _Registration:
    files = " and ".join(str(folder / f"{split}.jsonl") for split in splits)
    return {}, f"upload {files} for the purpose `fine-tune`, and start a job with them"


_NAMES = ("task_dataset", "sample_id")
_TOOLS: Mapping[ToolName, _Tool] = {
    "llama-factory": _Tool(("input", "target", *_NAMES), _llama_factory),
    "ms-swift": _Tool(("messages", *_NAMES), _ms_swift),
    "axolotl": _Tool(("messages", *_NAMES), _axolotl),
    "openai": _Tool(("messages",), _openai, least=10),
}


def export(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder, file, `sample`, or a dataset of the Hub.")],
    tool: Annotated[ToolName, typer.Option("--for", help="The tool that is to train on it.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    split: Annotated[
        list[str] | None, typer.Option(help="What is learned, then what the loss is measured on; repeatable.")
    ] = None,
    tasks: TasksOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write samples in the form that another tool trains on, and what tells the tool of them."""
    chosen = list(dict.fromkeys(map(canonical_split, split or ()))) or [
        name for name in _LEARNED if name in (splits_of(source) or _LEARNED[:1])
    ]
    if not chosen:
        raise PromptCBLUEError(f"{source} has no train and no validation split; name one with --split")
    check_output(output, resolve(source), overwrite)
    fields, register, least = _TOOLS[tool]
    (files, then), names = register(output, chosen), task_names(tasks)
    counts = []
    with replacing(output) as folder:
        for name in chosen:
            samples = load_samples(source, name, names)
            if empty := sum(not sample["target"].strip() for sample in samples):
                raise PromptCBLUEError(
                    f"{source}: {empty} of {len(samples)} samples of the {name} split have no target, so there is "
                    "nothing to learn from them (official test targets are not public)"
                )
            if len(samples) < least:
                raise PromptCBLUEError(f"{source}: {len(samples)} {name} samples; {tool} takes {least} or more")
            (folder / f"{name}.jsonl").write_bytes(encoded("".join(_line(sample, fields) for sample in samples)))
            counts.append(f"{len(samples):,} {name} samples")
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    print(f"wrote {output}: {', '.join(counts)}\nnext: {then}")


def _line(sample: Sample, fields: Sequence[str]) -> str:
    """A sample as a line of JSON with these fields."""
    said = {"user": sample["input"], "assistant": sample["target"]}
    known = {**sample, "messages": [{"role": role, "content": text} for role, text in said.items()]}
    return json.dumps({field: known[field] for field in fields}, ensure_ascii=False) + "\n"
