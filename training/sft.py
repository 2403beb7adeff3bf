"""Supervised fine-tuning on PromptCBLUE: parse, load, tokenise, train, save.

promptcblue-train sft lora --dataset promptcblue --model Qwen/Qwen2.5-7B-Instruct
accelerate launch -m promptcblue_training.sft recipe.yaml --learning_rate 1e-4
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, set_seed

from promptcblue_dataset.source import load_samples
from promptcblue_metric.console import run
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.records import Sample
from promptcblue_metric.splits import canonical_split

from .data import Rows, load_split_if_any, to_measure, training_rows
from .hardware import choose_dtype, spare_threads
from .methods import METHODS
from .models import BACKBONE, check_exists, identify, load_model, load_tokenizer
from .progress import ProgressLines, quiet_libraries
from .prompts import PromptEncoder
from .resume import check_settings, samples_fingerprint, write_settings
from .settings import Recipe, TrainingSettings, parse_recipe
from .tiny import build_backbone
from .trainer import Trainer, keeps_documents_apart, passes_a_step, token_counts

#: The file in an output folder that says which run its checkpoints are of.
RECORD = "run.json"
#: The file that is written last, when the model is saved.
_FINISHED = "train_results.json"
#: Settings that change what is computed; a run goes on from checkpoints only where these are the same.
_DECISIVE = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "max_length",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "train_sampling_strategy",
    "seed",
)


def main(arguments: Sequence[str]) -> None:
    """Fine-tune by a recipe.

    Args:
        arguments: the recipe, then ``--key value`` pairs that override it.

    Raises:
        PromptCBLUEError: a setting, path or sample that cannot be used, or a loss that is no number.
    """
    if not arguments or arguments[0].startswith("-"):
        raise PromptCBLUEError("expected a recipe first: a YAML file or the name of a shipped recipe")
    quiet_libraries()
    recipe, training = parse_recipe(arguments[0], arguments[1:])
    set_seed(training.seed)
    say = print if training.process_index == 0 else _silent

    # Data
    train_samples = load_samples(recipe.dataset, recipe.train_split, recipe.configs)
    validation_samples = _validation_samples(recipe)
    if not validation_samples:
        say(f"no {recipe.validation_split} samples in {recipe.dataset}: no validation loss")
        training.eval_strategy = IntervalStrategy.NO

    # What stands in the output folder already
    _claim_output(recipe, training, train_samples)
    output = Path(str(training.output_dir))
    if (output / _FINISHED).is_file():
        say(f"{output} holds the finished model of this very run: nothing left to train (--overwrite true starts anew)")
        return
    checkpoint = training.resume_from_checkpoint or last_checkpoint(output)
    if checkpoint is not None:
        say(f"going on from {checkpoint}")

    # Model and tokenizer
    backbone = recipe.model or str(_own_backbone(recipe, training, train_samples))
    tokenizer = load_tokenizer(backbone, trust_remote_code=training.trust_remote_code)
    model = _load_backbone(backbone, recipe, training)
    spare_threads(model, training.device)
    encoder = PromptEncoder(tokenizer)

    # Rows: prompt masked, target and end in the loss
    train = training_rows(train_samples, encoder, training.max_length, f"{recipe.dataset} {recipe.train_split}")
    say(f"train: {train.summary()}")
    validation = None
    if validation_samples:
        name = f"{recipe.dataset} {recipe.validation_split}"
        validation = training_rows(validation_samples, encoder, training.max_length, name)
        say(f"validation: {validation.summary()}")

    trainer = _build_trainer(recipe, training, model, tokenizer, train, validation)
    say(trainable_share(trainer.model))
    say(
        f"steps of {training.samples_a_step} samples, {training.gradient_accumulation_steps} pass(es) each on "
        f"{training.world_size} process(es), {'without' if training.padding_free else 'with'} padding, "
        f"{training.device.type}, {_precision(training)}"
    )

    # Train and save
    result = _train(trainer, checkpoint)
    trainer.save_model(str(output))
    trainer.save_state()
    if validation is not None:
        trainer.save_metrics("eval", _validation_metrics(trainer))
    trainer.save_metrics("train", {**result.metrics, "train_samples": len(train_samples)})
    say(f"trained {trainer.state.global_step} steps in {result.metrics['train_runtime']:.0f} s")
    say(f"saved the {'model' if recipe.method == 'full' else 'adapter'} in {output}")
    say(
        f"next: promptcblue-train predict --model {output} --dataset {recipe.dataset} --split test "
        f"--output {output / 'predictions.jsonl'}"
    )


def _silent(*_: object) -> None:
    """What every process but the first says."""


def _validation_samples(recipe: Recipe) -> list[Sample]:
    split = canonical_split(recipe.validation_split)
    return load_split_if_any(recipe.dataset, split, recipe.configs)


def _own_backbone(recipe: Recipe, training: TrainingSettings, samples: Sequence[Sample]) -> Path:
    """The folder of the backbone that the recipe's ``from_config`` describes, built if it is not there yet."""
    folder = Path(str(training.output_dir)) / BACKBONE
    with training.main_process_first(desc="building the backbone"):
        if not (folder / "config.json").is_file():
            assert isinstance(recipe.from_config, dict)
            texts = (text for sample in samples for text in (sample["input"], sample["target"]))
            build_backbone(recipe.from_config, texts, folder, training.seed)
    return folder


def _load_backbone(name: str, recipe: Recipe, training: TrainingSettings) -> PreTrainedModel:
    # Weights that are trained themselves stay in float32: steps of 1e-5 vanish in bfloat16's 8 bits.
    dtype = "float32" if recipe.dtype == "auto" and recipe.method == "full" else recipe.dtype
    return load_model(name, choose_dtype(dtype, training.device), trust_remote_code=training.trust_remote_code)


def _build_trainer(
    recipe: Recipe,
    training: TrainingSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Rows,
    validation: Rows | None,
) -> Trainer:
    # The rows fit already; the trainer would cut them at the end, where the target is.
    training.max_length = None
    training.padding_free = _is_padding_free(recipe, training, model)
    if training.batch_tokens is not None:
        training.gradient_accumulation_steps = passes_a_step(
            token_counts(train.dataset),
            training.samples_a_step,
            training.world_size,
            training.batch_tokens,
            training.seed,
        )
    at_once = training.eval_batch_size * training.world_size
    training.disable_tqdm = True
    try:
        trainer = Trainer(
            model=model,
            args=training,
            train_dataset=train.dataset,
            eval_dataset=to_measure(validation.dataset, at_once) if validation else None,
            processing_class=tokenizer,
            peft_config=METHODS[recipe.method].adapter(recipe, model),
        )
    except ValueError as error:
        raise PromptCBLUEError(f"method {recipe.method} does not work on {model.name_or_path}: {error}") from error
    for shipped in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shipped)
    trainer.add_callback(ProgressLines())
    return trainer


def _is_padding_free(recipe: Recipe, training: TrainingSettings, model: PreTrainedModel) -> bool:
    """Whether the samples of a pass are written one after another.

    Raises:
        PromptCBLUEError: it was asked for and would let them see each other.
    """
    if training.padding_free is False:
        return False
    if training.padding_free and not METHODS[recipe.method].packs:
        raise PromptCBLUEError(
            f"padding_free: with {recipe.method} virtual tokens stand before each sample, so samples cannot share a "
            "row; leave it out"
        )
    apart = METHODS[recipe.method].packs and keeps_documents_apart(model)
    if training.padding_free and not apart:
        raise PromptCBLUEError(
            f"padding_free: samples in one row would see each other in {model.name_or_path}, or it cannot be tried "
            "with its weights spread over devices; leave it out"
        )
    return apart


def trainable_share(model: Any) -> str:
    """How many parameters are trained, and their share of all, in one line."""
    total = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"trainable parameters: {trainable:,} of {total:,} ({trainable / total:.2%})"


def _precision(training: TrainingSettings) -> str:
    return "bfloat16 mixed precision" if training.bf16 else "float16 mixed precision" if training.fp16 else "float32"


def _claim_output(recipe: Recipe, training: TrainingSettings, samples: Sequence[Sample]) -> None:
    """Make sure that what the output folder holds, if anything, is of this run, and record what this run is.

    Raises:
        PromptCBLUEError: the folder is of a run with other settings.
    """
    folder = Path(str(training.output_dir))
    settings = _decisive_settings(recipe, training, samples)
    with training.main_process_first(desc="looking for checkpoints"):
        if training.process_index == 0:
            if recipe.overwrite:
                _remove_work(folder)
            if list(folder.glob("checkpoint-*")) or (folder / _FINISHED).is_file():
                remedy = "choose another output_dir, or pass --overwrite true to start anew"
                check_settings(folder / RECORD, settings, remedy)
            else:
                _remove_work(folder)
                write_settings(folder / RECORD, settings, {"recipe": asdict(recipe)})


def _remove_work(folder: Path) -> None:
    for old in (*folder.glob("checkpoint-*"), folder / BACKBONE):
        if old.is_dir():
            shutil.rmtree(old)
    for name in (RECORD, _FINISHED):
        (folder / name).unlink(missing_ok=True)


def _decisive_settings(recipe: Recipe, training: TrainingSettings, samples: Sequence[Sample]) -> dict[str, Any]:
    if recipe.model:
        check_exists(recipe.model)
    elsewhere = ("dataset", "configs", "model", "overwrite")
    run = {key: value for key, value in asdict(recipe).items() if key not in elsewhere}
    values = training.to_dict()
    return {
        "samples": samples_fingerprint(samples),
        "model": identify(recipe.model) if recipe.model else None,
        **run,
        **{key: values[key] for key in _DECISIVE},
        "batch": training.samples_a_step,
    }


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; the trainer's state is what it writes last."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_whole(path)}
    return str(steps[max(steps)]) if steps else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        return isinstance(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _train(trainer: Trainer, checkpoint: str | None) -> Any:
    try:
        return trainer.train(resume_from_checkpoint=checkpoint)
    except FloatingPointError as error:
        raise PromptCBLUEError(
            f"{error}, so training stopped; the checkpoints before it are whole. Lower learning_rate, or train in "
            "float32 (--bf16 false --fp16 false)"
        ) from error


def _validation_metrics(trainer: Trainer) -> dict[str, float]:
    """Those of the last step, computed now unless training ended on an evaluation."""
    step = trainer.state.global_step
    for entry in trainer.state.log_history:
        if entry.get("step") == step and "eval_loss" in entry:
            return {key: value for key, value in entry.items() if key.startswith("eval_")}
    metrics: dict[str, float] = trainer.evaluate()
    return metrics


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
