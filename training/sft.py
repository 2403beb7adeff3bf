"""Supervised fine-tuning on PromptCBLUE: parse, load, tokenise, train, save.

promptcblue-train sft lora --dataset promptcblue --model Qwen/Qwen2.5-7B-Instruct
accelerate launch -m promptcblue_training.sft recipe.yaml --learning_rate 1e-4
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, set_seed

from promptcblue_dataset.demonstrations import draw as draw_demonstrations
from promptcblue_dataset.demonstrations import paper_counts
from promptcblue_metric.cli.common import run
from promptcblue_metric.data.samples import Sample, canonical_split, load_samples
from promptcblue_metric.errors import PromptCBLUEError

from .adapters.budget import count_trainable
from .card import versions, write_card
from .data import Rows, Splits, mix, to_measure, training_rows
from .methods import METHODS, describe_trainable, fit_to_budget
from .model import (
    FOUR_BIT,
    check_exists,
    choose_dtype,
    four_bit,
    identify,
    load_model,
    load_tokenizer,
    spare_threads,
)
from .processes import disconnect_at_exit
from .progress import ProgressLines, quiet_libraries
from .prompts import PromptEncoder
from .recipe import Recipe
from .run import (
    BACKBONE,
    CURVE_CSV,
    FINISHED,
    RECORD,
    Choice,
    check_settings,
    samples_fingerprint,
    saved_checkpoints,
    write_curve,
    write_settings,
    writing,
)
from .scoring_callback import ScoreInTraining, draw
from .settings import TrainingSettings, parse_recipe
from .tiny import build_backbone
from .trainer import KeepChosen, Trainer, keeps_documents_apart, passes_a_step, save_chosen, token_counts

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
    "eval_strategy",
    "eval_steps",
    "checkpoint_choice",
    "steps_after_best",
    "patience",
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
    disconnect_at_exit()
    recipe, training = parse_recipe(arguments[0], arguments[1:])
    _check_processes(recipe.processes, training.world_size)
    set_seed(training.seed)
    say = print if training.process_index == 0 else _silent

    # Data
    train_samples = _train_samples(recipe, training.seed)
    if recipe.few_shot or recipe.mixing:
        counts = Counter(sample["task_dataset"] for sample in train_samples)
        say("samples of each task in an epoch: " + ", ".join(f"{task} {count}" for task, count in counts.items()))
    validation_samples = _validation_samples(recipe)
    if not validation_samples:
        say(f"no {recipe.validation_split} samples in {recipe.dataset}: no validation loss")
        training.eval_strategy, training.score_samples = IntervalStrategy.NO, 0

    # What stands in the output folder already
    _claim_output(recipe, training, train_samples, arguments)
    output = Path(str(training.output_dir))
    if (output / FINISHED).is_file():
        say(f"{output} holds the finished model of this very run: nothing left to train (--overwrite true starts anew)")
        return
    checkpoint = training.resume_from_checkpoint or last_checkpoint(output)
    if checkpoint is not None:
        say(f"going on from {checkpoint}")

    # Model and tokenizer
    backbone = recipe.model or str(_own_backbone(recipe, training, train_samples))
    tokenizer = _tokenizer(backbone, recipe, training)
    model = _load_backbone(backbone, recipe, training)
    spare_threads(model, training.device)
    recipe = fit_to_budget(recipe, model)
    encoder = PromptEncoder(tokenizer)

    # Rows: prompt masked, target and end in the loss
    train = training_rows(train_samples, encoder, training.max_length, f"{recipe.dataset} {recipe.train_split}")
    say(f"train: {train.summary()}")
    validation = None
    if validation_samples:
        name = f"{recipe.dataset} {recipe.validation_split}"
        validation = training_rows(validation_samples, encoder, training.max_length, name)
        say(f"validation: {validation.summary()}")

    if training.gradient_checkpointing and not METHODS[recipe.method].recomputes:
        say(f"gradient_checkpointing is off: {recipe.method} keeps its prompt in the cache, which it does without")
    trainer = build_trainer(recipe, training, model, tokenizer, train, validation)
    if training.score_samples:
        drawn = draw(validation_samples, training.score_samples, training.seed)
        trainer.add_callback(ScoreInTraining(trainer, recipe, encoder, drawn, training.score_steps))
    say(describe_trainable(recipe, trainer.model))
    say(
        f"steps of {training.samples_a_step} samples, {training.gradient_accumulation_steps} pass(es) each on "
        f"{training.world_size} process(es), {'without' if training.padding_free else 'with'} padding, "
        f"{training.device.type}, {_precision(training)}"
    )

    # Train and save
    result = _train(trainer, checkpoint)
    say(f"trained {trainer.state.global_step} steps in {result.metrics['train_runtime']:.0f} s")
    with writing(str(output)):
        choice = save_chosen(trainer, training.rule)
        trainer.save_state()
    validation_metrics = None
    if validation is not None:
        validation_metrics = _validation_metrics(trainer, choice.step)
        trainer.save_metrics("eval", validation_metrics)
    parameters = count_trainable(trainer.model)
    results = {
        **result.metrics,
        "train_samples": len(train_samples),
        "parameters": parameters.backbone,
        "trainable_parameters": parameters.trained,
    }
    if size := METHODS[recipe.method].size:
        results[size] = getattr(recipe, size)
    if training.process_index == 0:
        _write_about(output, trainer, choice, results, validation_metrics)
    trainer.save_metrics("train", results)
    say(f"saved the {'model' if recipe.method == 'full' else 'adapter'} in {output}")
    say(f"its weights are those of step {choice.step}: {choice.reason}")
    say(
        f"next: promptcblue-train predict --model {output} --dataset {recipe.dataset} --split test "
        f"--output {output / 'predictions.jsonl'}"
    )


def _check_processes(wanted: int | None, there: int) -> None:
    """Refuse to train with another number of processes than was asked for.

    Raises:
        PromptCBLUEError: names both numbers and the command that starts as many as wanted.
    """
    if wanted is not None and wanted != there:
        raise PromptCBLUEError(
            f"the recipe asks for {wanted} processes and there are {there}: start them with 'torchrun "
            f"--nproc_per_node {wanted} -m promptcblue_training.sft ...', or 'accelerate launch --num_processes "
            f"{wanted} -m ...' on GPUs; on CPUs 'accelerate launch --cpu' starts one process, whatever it is told"
        )


def _silent(*_: object) -> None:
    """What every process but the first says."""


def _train_samples(recipe: Recipe, seed: int) -> list[Sample]:
    samples = load_samples(recipe.dataset, recipe.train_split, recipe.configs)
    if recipe.few_shot:
        counts = paper_counts(dict.fromkeys(sample["task_dataset"] for sample in samples))
        samples = draw_demonstrations(samples, counts, recipe.few_shot_seed)
    if recipe.mixing:
        assert isinstance(recipe.mixing, dict)
        samples = mix(samples, recipe.mixing, seed)
    return samples


def _tokenizer(name: str, recipe: Recipe, training: TrainingSettings) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer, which keeps its chat template only where the prompts are written with it."""
    tokenizer = load_tokenizer(name, trust_remote_code=training.trust_remote_code)
    if recipe.prompt_format == "plain":
        tokenizer.chat_template = None
    if recipe.prompt_format == "chat" and tokenizer.chat_template is None:
        raise PromptCBLUEError(f"prompt_format chat: the tokenizer of {name} has no chat template; take plain")
    return tokenizer


def _validation_samples(recipe: Recipe) -> list[Sample]:
    split = canonical_split(recipe.validation_split)
    return Splits(recipe.dataset, recipe.configs).if_any(split)


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
    wanted = "float32" if recipe.dtype == "auto" and recipe.method == "full" else recipe.dtype
    dtype, options = choose_dtype("auto" if wanted == FOUR_BIT else wanted, training.device), {}
    if wanted == FOUR_BIT:
        options = {"quantization_config": four_bit(dtype), "device_map": {"": training.device}}
    return load_model(name, dtype, trust_remote_code=training.trust_remote_code, **options)


def build_trainer(
    recipe: Recipe,
    training: TrainingSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Rows,
    validation: Rows | None,
) -> Trainer:
    """The trainer of a recipe, its batches cut to ``batch_tokens`` and without padding where that is possible.

    Raises:
        PromptCBLUEError: the method does not work on this model.
    """
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
    method = METHODS[recipe.method]
    if not method.recomputes:
        # Two names of one setting: transformers reads the new one and TRL the old one.
        training.activation_checkpointing = training.gradient_checkpointing = False
    try:
        trainer = Trainer(
            model=model,
            args=training,
            train_dataset=train.dataset,
            eval_dataset=to_measure(validation.dataset, at_once) if validation else None,
            processing_class=tokenizer,
            peft_config=method.adapter(recipe, model),
        )
    except PromptCBLUEError:
        raise
    except ValueError as error:
        raise PromptCBLUEError(f"method {recipe.method} does not work on {model.name_or_path}: {error}") from error
    for shipped in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(shipped)
    for callback in (*method.callbacks(recipe), ProgressLines()):
        trainer.add_callback(callback)
    trainer.add_callback(KeepChosen(training.rule))
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
    # The first process answers for all: under FSDP the others may hold no weights yet.
    apart: bool = broadcast_object_list([METHODS[recipe.method].packs and keeps_documents_apart(model)])[0]
    if training.padding_free and not apart:
        raise PromptCBLUEError(
            f"padding_free: samples in one row would see each other in {model.name_or_path}, or it cannot be tried "
            "with its weights spread over devices; leave it out"
        )
    return apart


def _precision(training: TrainingSettings) -> str:
    return "bfloat16 mixed precision" if training.bf16 else "float16 mixed precision" if training.fp16 else "float32"


def _claim_output(
    recipe: Recipe, training: TrainingSettings, samples: Sequence[Sample], arguments: Sequence[str]
) -> None:
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
            if list(folder.glob("checkpoint-*")) or (folder / FINISHED).is_file():
                remedy = "choose another output_dir, or pass --overwrite true to start anew"
                check_settings(folder / RECORD, settings, remedy)
            else:
                _remove_work(folder)
                notes = {"recipe": asdict(recipe), "command": list(arguments), "versions": versions()}
                write_settings(folder / RECORD, settings, notes)


def _remove_work(folder: Path) -> None:
    for old in (*folder.glob("checkpoint-*"), folder / BACKBONE):
        if old.is_dir():
            shutil.rmtree(old)
    for name in (RECORD, FINISHED):
        (folder / name).unlink(missing_ok=True)


def _decisive_settings(recipe: Recipe, training: TrainingSettings, samples: Sequence[Sample]) -> dict[str, Any]:
    if recipe.model:
        check_exists(recipe.model)
    elsewhere = ("dataset", "configs", "model", "overwrite", "processes")
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
    """The newest checkpoint that was written to its end."""
    steps = saved_checkpoints(folder)
    return str(steps[max(steps)]) if steps else None


def _train(trainer: Trainer, checkpoint: str | None) -> Any:
    try:
        with writing(str(trainer.args.output_dir)):
            return trainer.train(resume_from_checkpoint=checkpoint)
    except FloatingPointError as error:
        raise PromptCBLUEError(
            f"{error}, so training stopped; the checkpoints before it are whole. Lower learning_rate, or train in "
            "float32 (--bf16 false --fp16 false)"
        ) from error


def _validation_metrics(trainer: Trainer, step: int) -> dict[str, float]:
    """Those of the chosen step, computed now if it is the last one and training did not end on an evaluation."""
    log = [entry for entry in trainer.state.log_history if entry.get("step") == step]
    metrics = {key: value for entry in log for key, value in entry.items() if key.startswith("eval_")}
    return metrics if "eval_loss" in metrics else {**metrics, **trainer.evaluate()}


def _write_about(
    folder: Path, trainer: Trainer, choice: Choice, results: dict[str, Any], validation: dict[str, float] | None
) -> None:
    """What tells people about the model: the loss curve and the card."""
    if not write_curve(folder, trainer.state.log_history, choice.step):
        print(f"{folder / CURVE_CSV}: to have it drawn too, pip install 'promptcblue[report]'")
    write_card(folder, {"train": results, "eval": validation or {}})


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
