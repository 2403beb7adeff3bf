"""Samples as the files that other tools train on, and what tells each tool of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from promptcblue_dataset.folder import check_output
from promptcblue_metric.data.samples import Sample, canonical_split, load_samples, resolve, splits_of
from promptcblue_metric.data.writing import as_json, encoded, replacing
from promptcblue_metric.errors import PromptCBLUEError

ToolName: TypeAlias = Literal["llama-factory", "ms-swift", "axolotl", "openai"]
Row: TypeAlias = Mapping[str, object]
#: The splits that a model learns from, or has its loss measured on, in this order.
_LEARNED = ("train", "validation")


class Exported(NamedTuple):
    """What was written: samples of each split, and what to do next."""

    counts: Mapping[str, int]
    then: str


class _Registration(NamedTuple):
    """The files beside the rows, by name, and what a user does next."""

    files: Mapping[str, str]
    then: str


class _Tool(NamedTuple):
    """What a tool reads: a sample as a line of its files, and what registers those of the splits in a folder.

    ``least`` is how many rows it wants in a file.
    """

    row: Callable[[Sample], Row]
    register: Callable[[Path, Sequence[str]], _Registration]
    least: int = 1


def _pair(sample: Sample) -> Row:
    return {name: sample[name] for name in ("input", "target", "task_dataset", "sample_id")}


def _messages(sample: Sample) -> Row:
    said = {"user": sample["input"], "assistant": sample["target"]}
    return {"messages": [{"role": role, "content": text} for role, text in said.items()]}


def _named_messages(sample: Sample) -> Row:
    return {**_messages(sample), "task_dataset": sample["task_dataset"], "sample_id": sample["sample_id"]}


def _llama_factory(folder: Path, splits: Sequence[str]) -> _Registration:
    # Whatever it calls `query` is the column `input` unless columns are named, and would come a second time.
    columns = {"prompt": "input", "response": "target"}
    info = {f"promptcblue_{split}": {"file_name": f"{split}.jsonl", "columns": columns} for split in splits}
    learned, *measured = info
    options = ["--dataset", learned, *(["--eval_dataset", ",".join(measured)] if measured else [])]
    command = shlex.join(["llamafactory-cli", "train", "--dataset_dir", str(folder), *options])
    return _Registration({"dataset_info.json": as_json(info)}, f"{command} …")


def _ms_swift(folder: Path, splits: Sequence[str]) -> _Registration:
    info = {f"promptcblue_{split}": f"{split}.jsonl" for split in splits}
    text = as_json([{"dataset_name": name, "dataset_path": path} for name, path in info.items()])
    learned, *measured = info
    options = ["--dataset", learned, *(["--val_dataset", *measured] if measured else [])]
    command = shlex.join(["swift", "sft", "--custom_dataset_info", str(folder / "dataset_info.json"), *options])
    return _Registration({"dataset_info.json": text}, f"{command} …")


def _axolotl(folder: Path, splits: Sequence[str]) -> _Registration:
    import yaml

    form = {"ds_type": "json", "split": "train", "type": "chat_template", "field_messages": "messages"}
    files = [{"path": str(folder.absolute() / f"{split}.jsonl"), **form} for split in splits]
    settings = {"datasets": files[:1]} | ({"test_datasets": files[1:]} if files[1:] else {})
    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
    return _Registration(
        {"datasets.yaml": text}, f"put the lines of {folder / 'datasets.yaml'} into your configuration"
    )


def _openai(folder: Path, splits: Sequence[str]) -> _Registration:
    files = " and ".join(str(folder / f"{split}.jsonl") for split in splits)
    return _Registration({}, f"upload {files} for the purpose `fine-tune`, and start a job with them")


_TOOLS: Mapping[ToolName, _Tool] = {
    "llama-factory": _Tool(_pair, _llama_factory),
    "ms-swift": _Tool(_named_messages, _ms_swift),
    "axolotl": _Tool(_named_messages, _axolotl),
    "openai": _Tool(_messages, _openai, least=10),
}


def export(
    source: str | Path,
    tool: ToolName,
    output: Path,
    splits: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
) -> Exported:
    """Write a folder that a tool trains from: ``{split}.jsonl`` and what registers them.

    Args:
        source: as for `load_samples`.
        splits: the first is what is learned, on others the loss is measured; train and, if there is one, validation by
            default (of a single file, train).
        tasks: names or aliases; every task by default.
        overwrite: replace the folder whatever it holds.

    Raises:
        PromptCBLUEError: the samples cannot be read, have no target, or are fewer than the tool takes, or the folder
            holds something else or cannot be written.
    """
    chosen = [canonical_split(split) for split in splits or ()]
    chosen = list(dict.fromkeys(chosen)) or [
        split for split in _LEARNED if split in (splits_of(source) or _LEARNED[:1])
    ]
    if not chosen:
        raise PromptCBLUEError(f"{source} has no train and no validation split; name one with --split")
    check_output(output, resolve(source), overwrite)
    row, register, least = _TOOLS[tool]
    registration, counts = register(output, chosen), {}
    with replacing(output) as folder:
        for split in chosen:
            samples = load_samples(source, split, tasks)
            if empty := sum(not sample["target"].strip() for sample in samples):
                raise PromptCBLUEError(
                    f"{source}: {empty} of {len(samples)} samples of the {split} split have no target, so there is "
                    "nothing to learn from them (official test targets are not public)"
                )
            if len(samples) < least:
                raise PromptCBLUEError(f"{source}: {len(samples)} {split} samples; {tool} takes {least} or more")
            lines = "".join(json.dumps(row(sample), ensure_ascii=False) + "\n" for sample in samples)
            (folder / f"{split}.jsonl").write_bytes(encoded(lines))
            counts[split] = len(samples)
        for name, text in registration.files.items():
            (folder / name).write_text(text, encoding="utf-8")
    return Exported(counts, registration.then)
