"""What lets a run that was cut short be started again: what it was made with, recorded and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError

#: The file in an output folder that says which run its checkpoints are of.
RECORD = "run.json"
#: The file that is written last, when the model is saved.
FINISHED = "train_results.json"
#: How much of each end of a file is read to recognise it; weights differ everywhere after any training.
_END = 1 << 20
#: The files that make a model or adapter; others in its folder (metrics, predictions) are about it.
_MODEL_FILES = (
    "*.safetensors",
    "*.index.json",
    "*.model",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
)


def samples_fingerprint(samples: Iterable[Sample]) -> str:
    """A digest of samples and their order: the same wherever they were read from."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(json.dumps(sample, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def is_model_file(path: Path) -> bool:
    """Whether a file in a model's or adapter's folder is part of it, and not about it."""
    return path.is_file() and any(path.match(pattern) for pattern in _MODEL_FILES)


def folder_fingerprint(folder: Path) -> str:
    """A digest of a model's or adapter's folder: names, sizes, and both ends of every file that makes the model."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if is_model_file(path):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with path.open("rb") as stream:
                digest.update(stream.read(_END))
                if size > _END:
                    stream.seek(max(_END, size - _END))
                    digest.update(stream.read())
    return digest.hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that are not the same, each as ``name: before, now now``."""
    return [
        f"{name} was {_shown(before, name)}, is now {_shown(now, name)}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not recorded"


def write_settings(record: Path, settings: Mapping[str, Any], notes: Mapping[str, Any] | None = None) -> None:
    """Write the settings that a run must share to go on with another's work, and notes that may differ."""
    write_json(record, {"settings": dict(settings), "notes": dict(notes or {})})


def check_settings(record: Path, settings: Mapping[str, Any], remedy: str) -> None:
    """Refuse to go on with work that was begun with other settings.

    Raises:
        PromptCBLUEError: the record cannot be read, or it says what differs; ``remedy`` ends the message.
    """
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptCBLUEError(
            f"{record}: expected the settings of an earlier run, found {error!r}; {remedy}"
        ) from error
    # Through JSON, so that a tuple and the list it was saved as are the same.
    if changed := differences(before, json.loads(json.dumps(settings))):
        raise PromptCBLUEError(f"{record} is of a run with other settings: {'; '.join(changed)}. To go on, {remedy}")
