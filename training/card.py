"""What is published of a model: its card (what it was trained from, how, how well it does, and what it must not be used
for) and its repository on the Hub.

Everything is read from the files that a run leaves in its output folder, so that it can be written again. Checkpoints,
optimizer states, predictions and the backbone of an adapter stay where they are, and no file names a folder of the
machine that it was made on.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, cast

from promptcblue_metric.data.predictions import made_with, read_scores
from promptcblue_metric.data.samples import canonical_split
from promptcblue_metric.data.writing import as_json, read_json_object, replace_bytes
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.evaluation import Result
from promptcblue_metric.hub.client import Content, Publication
from promptcblue_metric.report.tables import SCORE_COLUMNS, as_markdown, markdown_table, score_table
from promptcblue_metric.tasks import PROMPTCBLUE, SUITES, Suite, suite_of
from promptcblue_metric.version import VERSION

from . import run
from .methods import METHODS, Method

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

_SAID_ELSEWHERE = ("samples", "model", "adapter", "from_config", "train_split", "validation_split")
#: Libraries whose version can change a result.
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes", "deepspeed")
_CARD, _USAGE = (
    Template(Path(__file__).with_name(name).read_text(encoding="utf-8")) for name in ("card.md", "usage.md")
)
_START, _END = "<!-- scores: start -->", "<!-- scores: end -->"
_NO_SCORES = "Not scored yet: `promptcblue-train card --model DIR --scores scores.json` puts scores here."
_LOSSES_SHOWN = 12
#: What a Hub id looks like; a folder's name is nobody's business but its owner's.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
RECIPE = "recipe.yaml"
#: What a run leaves about a model.
_ABOUT = (run.RECORD, run.FINISHED, run.EVALUATED, run.CHOICE_FILE, run.CURVE_CSV, run.CURVE_PNG)
#: Files that can name folders of this machine.
_NAMING = {run.RECORD, run.ADAPTER_CONFIG, "config.json", "generation_config.json", "tokenizer_config.json"}
#: Stands for a backbone that is not on the Hub.
_NOT_THERE = "BACKBONE"
#: Which of several files holds which weights.
_INDEX = "*.index.json"
#: Paths that are ours where the run has them no longer: a model saved in fewer files, an adapter in place of a model.
_OWNED = (*run.WEIGHTS, *_ABOUT, run.CARD, RECIPE, run.ADAPTER_CONFIG, _INDEX, "chat_template.jinja")
#: In a run's settings, and no settings of a recipe.
_COMPUTED = ("samples", "model", "batch")
_RECIPE_HEAD = """\
# The settings that decide what this model is, as its run recorded them.
#   promptcblue-train sft recipe.yaml --output_dir DIR
# batch_tokens only says how much a device takes at once: a step sees batch_size samples, whatever it is.
"""
_BATCH_TOKENS = 16384


def versions() -> dict[str, str]:
    """The versions that are installed of what a result depends on."""
    found = {"promptcblue": VERSION, "python": sys.version.split()[0]}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def write_card(folder: Path, **results: Mapping[str, float]) -> None:
    """Write a run's card, without scores.

    Args:
        folder: the run's output folder.
        results: what is not in a file there yet, as for `read_run`.

    Raises:
        PromptCBLUEError: the folder is not that of a run, or cannot be written.
    """
    replace_bytes(folder / run.CARD, _written(folder, run.read_run(folder, **results)))


def renew_card(folder: Path, *, overwrite: bool = False) -> None:
    """Write the card of a finished run anew, where nothing is lost by that.

    Args:
        folder: the run's output folder.
        overwrite: whether a card may be lost that was changed, or that scores were put into.

    Raises:
        PromptCBLUEError: the folder is not that of a finished run, or its card holds what would be lost.
    """
    path, content = folder / run.CARD, _written(folder, _finished(folder))
    if path.is_file() and path.read_bytes() != content and not overwrite:
        raise PromptCBLUEError(
            f"{path}: holds scores or what somebody wrote, which would be lost; --scores FILE puts scores into it as "
            "it is, and --overwrite writes it anew"
        )
    replace_bytes(path, content)


def _written(folder: Path, facts: run.RunFacts) -> bytes:
    return _content(_card_data(folder, facts), _body(folder, facts))


#: A command of a card that predicts or scores, up to the split it names.
_SPLIT_COMMAND = re.compile(r"^(promptcblue-(?:train predict|metric score) .*--split )\w+", re.MULTILINE)


def add_scores(folder: Path, scores: Path, split: str | None = None) -> None:
    """Put scores into a card: a table, and ``model-index`` metadata that the Hub shows. The rest stays as it is.

    Args:
        scores: what ``promptcblue-metric score --json`` wrote.
        split: the split that was scored, where the references were a single file and the scores do not say it.

    Raises:
        PromptCBLUEError: there is no card and no run to write one of, or the file does not say what was scored.
    """
    from huggingface_hub import ModelCard

    result = read_scores(scores)
    known = result["provenance"]["split"]
    if split and known and canonical_split(split) != known:
        raise PromptCBLUEError(f"{scores}: has the scores of the {known} split, not of {split}")
    if not (split := known or (split and canonical_split(split))):
        raise PromptCBLUEError(f"{scores}: scored against a single file; say which split that was with --split")
    path = folder / run.CARD
    if not path.is_file() or _START not in path.read_text(encoding="utf-8"):
        renew_card(folder)
    card = ModelCard.load(path)
    card.data.model_name = card.data.model_name or folder.resolve().name
    card.data.eval_results = eval_results(result, split)
    before, _, rest = card.text.partition(_START)
    for suite in SUITES.values():  # the run may not have named it
        before = before.replace(_benchmark(suite), _benchmark(SUITES[result["suite"]]))
    text = before + _score_section(result, split) + rest.partition(_END)[2]
    text = _SPLIT_COMMAND.sub(rf"\g<1>{split}", text)  # the commands lead to these scores
    replace_bytes(path, _content(card.data, text.lstrip("\n")))


def eval_results(result: Mapping[str, Any], split: str) -> list[EvalResult]:
    """Scores as the Hub's metadata has them: the overall score, then each task's, in 0..1 with its 95% interval."""
    from huggingface_hub import EvalResult

    suite, tasks = SUITES[result["suite"]], result["tasks"]
    overall = {"metric": f"{suite.title} score", "score": result["overall"], "samples": result["samples"]}
    whole = "all" if len(tasks) > 1 else next(iter(tasks))
    intervals = result.get("intervals") or {}
    return [
        EvalResult(
            task_type="text-generation",
            task_name=config,
            dataset_type=suite.name,
            dataset_name=f"{suite.title} {config}",
            dataset_config=config,
            dataset_split=split,
            metric_type=scored["metric"].lower().replace(" ", "_"),
            metric_name=scored["metric"],
            metric_value=round(float(scored["score"]), 6),
            metric_args={
                **{name: result[name] for name in ("protocol", "parser", "references")},
                "samples": scored["samples"],
                "signature": str(result["signature"]),
                **({"interval_95": [round(float(bound), 6) for bound in between]} if between else {}),
            },
        )
        for config, scored, between in [
            (whole, overall, intervals.get("overall")),
            *((name, scored, intervals.get(name)) for name, scored in tasks.items()),
        ]
    ]


def _card_data(folder: Path, facts: run.RunFacts) -> ModelCardData:
    from huggingface_hub import ModelCardData

    adapter = (folder / run.ADAPTER_CONFIG).is_file()
    backbone, dataset = _hub_id(facts.recipe.get("model")), _hub_id(facts.recipe.get("dataset"))
    return ModelCardData(
        model_name=folder.resolve().name,
        language="zh",
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=backbone,
        base_model_relation=("adapter" if adapter else "finetune") if backbone else None,
        datasets=[dataset] if dataset else None,
        tags=["promptcblue", "medical", "chinese", "sft", "trl", str(facts.recipe.get("method"))],
    )


def _benchmark(suite: Suite) -> str:
    return f"{suite.title}, a Chinese medical benchmark of {len(suite.tasks)} tasks"


def _suite(recipe: Mapping[str, Any]) -> Suite:
    """The suite that a run's settings name, by tasks or data; the paper's by default."""
    if isinstance(configs := recipe.get("configs"), list) and configs:
        return suite_of(configs)
    return SUITES.get(re.split("[:/]", str(recipe.get("dataset")))[-1], PROMPTCBLUE)


def _hub_id(name: object) -> str | None:
    """The name if it is one on the Hub."""
    return name if isinstance(name, str) and _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _body(folder: Path, facts: run.RunFacts) -> str:
    recipe, settings = facts.recipe, facts.settings
    backbone = _hub_id(recipe.get("model"))
    base = f"[{backbone}](https://huggingface.co/{backbone})" if backbone else f"`{settings.get('model')}`"
    if isinstance(config := recipe.get("from_config"), dict):
        base = f"a {config.get('model_type', 'model')} with random weights"
    trainable, total = facts.train.get("trainable_parameters"), facts.train.get("parameters")
    share = ""
    if trainable and total:
        share = f": {trainable:,} trained parameters, {trainable / total:.2%} of the backbone's {total:,}"
    words = [str(public(word)) for word in facts.command]
    given = words.index("--output_dir") + 1 if "--output_dir" in words[:-1] else None
    return _CARD.substitute(
        title=folder.resolve().name,
        what="An adapter for" if (folder / run.ADAPTER_CONFIG).is_file() else "All weights of",
        base=base,
        benchmark=_benchmark(_suite(recipe)),
        method=recipe.get("method", "unknown"),
        share=share,
        scores=f"{_START}\n{_NO_SCORES}\n{_END}",
        training=_training(facts),
        settings=markdown_table(("setting", "value"), _settings(facts)),
        loss=_loss(folder, facts),
        command=shlex.join(words),
        model=shlex.quote(words[given] if given else folder.resolve().name),
        dataset=shlex.quote(str(public(str(recipe.get("dataset", "promptcblue"))))),
        signature=settings.get("samples", "unknown"),
        versions=markdown_table(("library", "version"), list(facts.versions.items())),
    )


def _training(facts: run.RunFacts) -> str:
    train, validation, lines = facts.train, facts.validation, []
    if adapter := facts.settings.get("adapter"):
        lines.append(f"went on from the adapter `{_hub_id(facts.recipe.get('adapter')) or adapter}`")
    if "train_samples" in train:
        configs = facts.recipe.get("configs")
        tasks = ", ".join(configs) if isinstance(configs, list) else "all tasks"
        lines.append(f"{train['train_samples']:,} samples in all, of {tasks}")
    if choice := facts.choice:
        lines.append(
            f"weights of step {choice.step:,}, chosen as {choice.reason}; training ended at step {choice.last_step:,}"
        )
    if "eval_loss" in validation:
        lines.append(f"validation loss of these weights: {validation['eval_loss']:.4f}")
    if "eval_overall" in validation:
        lines.append(f"score on validation samples in training: {validation['eval_overall']:.4f}")
    if "train_runtime" in train:
        seconds = train["train_runtime"]
        lines.append(f"{seconds / 3600:.2f} hours" if seconds >= 360 else f"{seconds:.0f} seconds")
    return "\n".join(f"- {line}" for line in lines)


def _settings(facts: run.RunFacts) -> list[tuple[str, str]]:
    """What decides the result, without what nobody set, and the settings of other methods; with sizes as they were
    fitted to a budget.
    """
    method = METHODS.get(str(facts.recipe.get("method")), Method())
    others = tuple({prefix for each in METHODS.values() for prefix in each.prefixes} - method.prefixes)
    left = (*_SAID_ELSEWHERE, *facts.left_alone)
    return [
        (f"`{key}`", f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value, ensure_ascii=False)}`")
        for key, value in {
            **facts.settings,
            **{key: facts.train[key] for key in facts.settings if key in facts.train},
        }.items()
        if key not in left and not key.startswith(others) and value not in (None, [], {})
    ]


def _loss(folder: Path, facts: run.RunFacts) -> str:
    drawn = (folder / run.CURVE_PNG).is_file()
    parts = [f"![Loss over the steps, with the chosen step marked]({run.CURVE_PNG})"] * drawn
    if (choice := facts.choice) and (losses := choice.losses):
        # A long run's table shows steps at equal distances; the CSV file has them all.
        every = -(-len(losses) // _LOSSES_SHOWN)
        kept = {choice.step, losses[-1].step, choice.lowest.step if choice.lowest else None}
        shown = [
            (str(one.step), f"{one.loss:.4f}")
            for place, one in enumerate(losses)
            if place % every == 0 or one.step in kept
        ]
        parts.append(markdown_table(("step", "validation loss"), shown))
    elif "train_loss" in facts.train:
        parts.append(f"Mean training loss {facts.train['train_loss']:.4f}; there were no validation samples.")
    return "\n\n".join(parts)


def public(value: object) -> object:
    """A JSON value in which folders of this machine are called by their last name alone."""
    if isinstance(value, dict):
        return {key: public(each) for key, each in value.items()}
    if isinstance(value, list):
        return [public(each) for each in value]
    if not isinstance(value, str) or "/" not in value or "\n" in value or len(value) > 1000:
        return value
    key, equals, path = value.partition("=") if value.startswith("--") else ("", "", value)
    here = Path(path).expanduser()
    return f"{key}{equals}{here.name}" if here.is_absolute() or here.exists() else value


def _score_section(result: Mapping[str, Any], split: str) -> str:
    table = score_table(cast(Result, result), result.get("intervals")).without(*SCORE_COLUMNS)
    head = f"On the {split} split of {SUITES[result['suite']].title}, {result['samples']:,} samples"
    if made := made_with(result["provenance"]):
        head += f" (predicted with {made})"
    return f"{_START}\n{head}:\n\n{as_markdown(table)}\n\nSignature: `{result['signature']}`\n{_END}"


def _content(data: ModelCardData, text: str) -> bytes:
    return f"---\n{data.to_yaml()}\n---\n\n{text}".encode()


def _finished(folder: Path) -> run.RunFacts:
    """The facts of a run that is finished."""
    facts = run.read_run(folder)
    if not (folder / run.FINISHED).is_file():
        raise PromptCBLUEError(
            f"{folder}: the run is not finished (no {run.FINISHED}); give its `promptcblue-train sft` command again"
        )
    return facts


def publication(folder: Path, repo: str) -> Publication:
    """What goes to the Hub of the output folder of a finished run.

    Args:
        repo: where it will stand, for the examples in the card.

    Raises:
        PromptCBLUEError: the folder is not that of a run, or the run is not finished.
    """
    from huggingface_hub import ModelCard

    facts = _finished(folder)
    if not any(path for pattern in run.WEIGHTS for path in folder.glob(pattern)):
        raise PromptCBLUEError(f"{folder}: holds no weights ({', '.join(run.WEIGHTS)})")
    if not (folder / run.CARD).is_file():
        write_card(folder)
    files: dict[str, Content] = {
        path.name: path
        for path in sorted(folder.iterdir())
        if run.is_model_file(path) or (path.name in _ABOUT and path.is_file())
    }
    for name in files.keys() & _NAMING:
        value = read_json_object(folder / name)
        if (shown := public(value)) != value:
            files[name] = as_json(shown).encode()
    base = _backbone(folder)
    model = f"--model {base} --adapter {repo}" if base else f"--model {repo}"
    predict = f"promptcblue-train predict {model} --dataset promptcblue --split test --output predictions.jsonl"
    files[RECIPE] = _recipe(facts)
    files[run.CARD] = _card(folder, base, repo, predict)
    notes = []
    if base == _NOT_THERE:
        notes.append("the adapter's backbone is not on the Hub: who uses the adapter needs it too")
    if not ModelCard.load(folder / run.CARD).data.eval_results:
        notes.append(f"its card has no scores: promptcblue-train card --model {folder} --scores scores.json adds them")
    return Publication("model", dict(sorted(files.items())), _OWNED, predict, notes)


def _backbone(folder: Path) -> str | None:
    """The Hub id of an adapter's backbone, `_NOT_THERE` where it is none, or None for a model of its own."""
    if not (folder / run.ADAPTER_CONFIG).is_file():
        return None
    return _hub_id(read_json_object(folder / run.ADAPTER_CONFIG).get("base_model_name_or_path")) or _NOT_THERE


def _recipe(facts: run.RunFacts) -> bytes:
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


def _card(folder: Path, base: str | None, repo: str, predict: str) -> bytes:
    """The card with how the model is used: on its backbone, where it is an adapter."""
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")',
        f'model = AutoModelForCausalLM.from_pretrained("{base or repo}")',
    ]
    if base:
        known = read_json_object(folder / run.ADAPTER_CONFIG).get("peft_type") != "PARALLEL_ADAPTER"
        imports = ["from peft import PeftModel"] + ["import promptcblue_training.adapters  # its kind"] * (not known)
        lines = [*imports, *lines, f'model = PeftModel.from_pretrained(model, "{repo}")']
    text = _USAGE.substitute(code="\n".join(lines), predict=predict, repo=repo, recipe=RECIPE)
    return f"{(folder / run.CARD).read_text(encoding='utf-8').rstrip()}\n\n{text}".encode()
