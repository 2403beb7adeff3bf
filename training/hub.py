"""A trained model's repository on the Hub: what a run's output folder holds of the model, and of how it was made.

Checkpoints, optimizer states, predictions and the backbone of an adapter stay where they are, and no file names a
folder of the machine that it was made on.
"""

from __future__ import annotations

import json
from pathlib import Path

from promptcblue_metric.data.writing import read_json_object
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.hub.client import Content, Publication

from .card import public, write_card
from .run import (
    ADAPTER_CONFIG,
    CARD,
    CHOICE_FILE,
    CURVE_CSV,
    CURVE_PNG,
    EVALUATED,
    FINISHED,
    RECORD,
    WEIGHTS,
    RunFacts,
    is_model_file,
    read_run,
)

RECIPE = "recipe.yaml"
#: What a run leaves about a model.
_ABOUT = (RECORD, FINISHED, EVALUATED, CHOICE_FILE, CURVE_CSV, CURVE_PNG)
#: Files that can name folders of this machine.
_NAMING = (RECORD, ADAPTER_CONFIG, "config.json", "generation_config.json", "tokenizer_config.json")
#: Which of several files holds which weights.
_INDEX = "*.index.json"
#: Paths that are ours where the run has them no longer: a model saved in fewer files, an adapter in place of a model.
_OWNED = (*WEIGHTS, *_ABOUT, CARD, RECIPE, ADAPTER_CONFIG, _INDEX, "chat_template.jinja")
#: In a run's settings, and no settings of a recipe.
_COMPUTED = ("samples", "model", "batch")
#: Adapters that PEFT knows by itself.
_IN_PEFT = ("LORA", "ADALORA", "P_TUNING", "PREFIX_TUNING")
_RECIPE_HEAD = """\
# The settings that decide what this model is, as its run recorded them.
#   promptcblue-train sft recipe.yaml --output_dir DIR
# batch_tokens only says how much a device takes at once: a step sees batch_size samples, whatever it is.
"""
_BATCH_TOKENS = 16384


def publication(folder: Path, repo: str) -> Publication:
    """What goes to the Hub of the output folder of a finished run.

    Args:
        repo: where it will stand, for the examples in the card.

    Raises:
        PromptCBLUEError: the folder is not that of a run, or the run is not finished.
    """
    facts = _read_finished(folder)
    if not (folder / CARD).is_file():
        write_card(folder)
    files: dict[str, Content] = {
        path.name: path
        for path in sorted(folder.iterdir())
        if is_model_file(path) or (path.name in _ABOUT and path.is_file())
    }
    for name in _NAMING:
        if name in files:
            files[name] = _without_folders(folder / name)
    files[RECIPE] = _recipe(facts)
    files[CARD] = _card(folder, repo)
    return Publication("model", dict(sorted(files.items())), _OWNED, _prediction(folder, repo), _notes(folder))


def backbone(folder: Path) -> str | None:
    """The Hub id of an adapter's backbone, ``BACKBONE`` where it is none, or None for a model of its own."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    name = str(read_json_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))
    return name if public(name) == name and name.count("/") == 1 else "BACKBONE"


def _prediction(folder: Path, repo: str) -> str:
    """How to predict with the published model."""
    base = backbone(folder)
    model = f"--model {base} --adapter {repo}" if base else f"--model {repo}"
    return f"promptcblue-train predict {model} --dataset promptcblue --split test --output predictions.jsonl"


def _notes(folder: Path) -> list[str]:
    """What the published model lacks."""
    from huggingface_hub import ModelCard

    found = []
    if backbone(folder) == "BACKBONE":
        found.append("the adapter's backbone is not on the Hub: who uses the adapter needs it too")
    if not ModelCard.load(folder / CARD).data.eval_results:
        found.append(f"its card has no scores: promptcblue-train card --model {folder} --scores scores.json adds them")
    return found


def _read_finished(folder: Path) -> RunFacts:
    """What a run says of itself.

    Raises:
        PromptCBLUEError: there is no run, or it is not finished.
    """
    facts = read_run(folder)
    if not (folder / FINISHED).is_file():
        raise PromptCBLUEError(
            f"{folder}: the run is not finished (no {FINISHED}); give its `promptcblue-train sft` command again"
        )
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        raise PromptCBLUEError(f"{folder}: holds no weights ({', '.join(WEIGHTS)})")
    return facts


def _without_folders(path: Path) -> Content:
    """A JSON file as it is, unless it names folders of this machine."""
    value = read_json_object(path)
    shown = public(value)
    return path if shown == value else (json.dumps(shown, ensure_ascii=False, indent=2) + "\n").encode()


def _recipe(facts: RunFacts) -> bytes:
    """A recipe for the same run, from what it recorded."""
    import yaml

    left = (*facts.recipe, *_COMPUTED, *facts.left_alone)
    wanted = {
        **facts.recipe,
        **{key: value for key, value in facts.settings.items() if key not in left},
        "batch_size": facts.settings.get("batch"),
        "batch_tokens": _BATCH_TOKENS,
    }
    kept = {key: public(value) for key, value in wanted.items() if value is not None and key != "overwrite"}
    return (_RECIPE_HEAD + yaml.safe_dump(kept, allow_unicode=True, sort_keys=False)).encode()


def _card(folder: Path, repo: str) -> bytes:
    text = (folder / CARD).read_text(encoding="utf-8").rstrip()
    return f"{text}\n\n## How to use it\n\n{_usage(folder, repo)}".encode()


def _usage(folder: Path, repo: str) -> str:
    base = backbone(folder)
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")',
        f'model = AutoModelForCausalLM.from_pretrained("{base or repo}")',
    ]
    if base:
        known = read_json_object(folder / ADAPTER_CONFIG).get("peft_type") in _IN_PEFT
        imports = ["from peft import PeftModel"] + ["import promptcblue_training.adapters  # its kind"] * (not known)
        lines = [*imports, *lines, f'model = PeftModel.from_pretrained(model, "{repo}")']
    code = "\n".join(lines)
    return f"""\
```python
{code}
```

or, for a whole split, with the prompts written as in training:

```sh
{_prediction(folder, repo)}
```

`{RECIPE}` holds the settings of the run, for one like it:

```sh
hf download {repo} {RECIPE} --local-dir .
promptcblue-train sft {RECIPE} --output_dir DIR
```
"""
