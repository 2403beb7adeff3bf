"""Supervised fine-tuning on PromptCBLUE, as in the paper's section 4: prompts in, targets learned, few weights trained.

promptcblue-train sft lora --dataset promptcblue --model Qwen/Qwen2.5-7B-Instruct
accelerate launch -m promptcblue_training.sft recipe.yaml --learning_rate 1e-4
"""

from __future__ import annotations

import atexit
import math
import os
import resource
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, set_seed

from promptcblue_metric.cli.common import run as run_command
from promptcblue_metric.data.samples import Sample, canonical_split
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import EXTRAS, PromptCBLUEError, install_command

from . import run
from .callbacks import ScoreInTraining
from .card import versions, write_card
from .data import Splits, read_groups, spread, training_rows, training_samples
from .methods import (
    DEEPSPEED,
    FSDP,
    METHODS,
    check_sharding,
    count_trainable,
    describe_trainable,
    fit_to_budget,
    take_over,
)
from .model import convert, identify, load_backbone
from .processes import disconnect_at_exit, quiet_libraries, say
from .prompts import PromptEncoder
from .recipe import Recipe
from .settings import TrainingSettings, parse_recipe
from .trainer import Trainer, build_trainer, save_chosen, with_adapter

#: Settings of a recipe that are recorded otherwise, or decide nothing.
_OTHERS = "dataset configs groups model adapter overwrite processes dry_run attn_implementation"
#: Ends the name of the folder that a trial writes to and removes.
_DRY = ".dry-run"


def main(arguments: Sequence[str]) -> None:
    """Fine-tune by a recipe.

    Args:
        arguments: the recipe, then ``--key value`` pairs that override it.

    Raises:
        PromptCBLUEError: a setting, path or sample that cannot be used, or a loss that is no number.
    """
    recipe, training = _begin(arguments)
    if not recipe.groups:
        _fine_tune(recipe, training, arguments)
        return
    folder = Path(str(training.output_dir).removesuffix(_DRY))
    samples = Splits(recipe.dataset, recipe.configs).samples(recipe.train_split)
    groups = read_groups(recipe.groups, list(dict.fromkeys(sample["task_dataset"] for sample in samples)))
    for name, tasks in groups.items():
        own = [*arguments, "--groups", "", "--configs", *tasks, "--output_dir", str(folder / name)]
        say(f"{name}: {', '.join(tasks)}")
        _fine_tune(*_begin(own), own)
    if training.process_index == 0 and not recipe.dry_run:
        write_json(folder / run.GROUPS, groups)
        say(f"next: promptcblue-train predict --model {folder} answers each sample by its group's adapter")


def _fine_tune(recipe: Recipe, training: TrainingSettings, arguments: Sequence[str]) -> None:
    """Fine-tune once, by what is to be read from top to bottom."""
    folder = Path(str(training.output_dir))

    # Samples of the tasks, each a prompt and a target
    splits = Splits(recipe.dataset, recipe.configs)
    train_samples, validation_samples = _samples(recipe, training, splits)

    # The run, which goes on where it stopped
    if _is_finished(recipe, training, train_samples, arguments):
        say(f"{folder} holds the finished model of this very run: nothing left to train (--overwrite true starts anew)")
        return
    checkpoint = training.resume_from_checkpoint or run.last_checkpoint(folder)
    if checkpoint is not None:
        say(f"going on from {checkpoint}")

    # The backbone, and an adapter as large as the budget allows
    backbone, tokenizer = load_backbone(recipe, training, train_samples, whole=not _sharding(training))
    recipe = fit_to_budget(recipe, backbone)
    model = with_adapter(recipe, training, backbone)

    # Rows of tokens: the target and its end are in the loss, the prompt is not
    encoder = PromptEncoder(tokenizer)
    say(f"prompts: {encoder.describe()}; answers are trained without a thought before them")
    rows = partial(
        training_rows,
        encoder=encoder,
        max_length=training.max_length,
        skip=recipe.long_targets == "skip",
        workers=training.dataset_num_proc,
    )
    with training.main_process_first(desc="tokenising"):
        train = rows(train_samples, name=f"{recipe.dataset} {recipe.train_split}")
        name = f"{recipe.dataset} {recipe.validation_split}"
        validation = rows(validation_samples, name=name) if validation_samples else None
    say(f"train: {train.summary()}")
    if validation:
        say(f"validation: {validation.summary()}")

    # AdamW over some epochs, with a validation loss every so many steps
    trainer = build_trainer(recipe, training, model, tokenizer, train, validation)
    if training.score_samples:
        drawn = spread(validation_samples, training.score_samples, training.seed)
        trainer.add_callback(ScoreInTraining(trainer, splits, encoder, drawn, training.score_steps))
    say(_plan(recipe, trainer))
    if recipe.dry_run:
        say(_dry_run(trainer, folder))
        return
    metrics = _train(trainer, checkpoint)
    say(f"trained {trainer.state.global_step} steps in {metrics['train_runtime']:.0f} s")

    # The model: the weights some steps after the lowest validation loss
    say(_save(recipe, trainer, {**metrics, "train_samples": len(train_samples)}))


def _samples(recipe: Recipe, training: TrainingSettings, splits: Splits) -> tuple[list[Sample], list[Sample]]:
    """The samples to train on, and those to measure the validation loss on, without which nothing is measured."""
    train = training_samples(recipe, splits, training.seed)
    validation = splits.if_any(canonical_split(recipe.validation_split))
    if recipe.few_shot or recipe.mixing:
        counts = Counter(sample["task_dataset"] for sample in train)
        say("samples of each task in an epoch: " + ", ".join(f"{task} {count}" for task, count in counts.items()))
    if not validation:
        say(f"no {recipe.validation_split} samples in {recipe.dataset}: no validation loss")
        training.eval_strategy, training.score_samples = IntervalStrategy.NO, 0
    return train, validation


def _sharding(training: TrainingSettings) -> list[str]:
    """What cuts the weights up, by the settings or accelerate's launcher."""
    asked = {FSDP: training.fsdp, DEEPSPEED: training.deepspeed}
    said = {kind: os.environ.get(f"ACCELERATE_USE_{kind.upper()}", "false").lower() != "false" for kind in asked}
    return [kind for kind, given in asked.items() if given or said[kind]]


def _begin(arguments: Sequence[str]) -> tuple[Recipe, TrainingSettings]:
    if not arguments or arguments[0].startswith("-"):
        raise PromptCBLUEError("expected a recipe first: a YAML file or the name of a shipped recipe")
    quiet_libraries()
    disconnect_at_exit()
    recipe, training = parse_recipe(arguments[0], arguments[1:])
    check_sharding(recipe.method, _sharding(training))
    wanted, there = recipe.processes, training.world_size
    if wanted is not None and wanted != there:
        raise PromptCBLUEError(
            f"the recipe asks for {wanted} processes and there are {there}: start them with 'torchrun "
            f"--nproc_per_node {wanted} -m promptcblue_training.sft ...', or 'accelerate launch --num_processes "
            f"{wanted} -m ...' on GPUs; on CPUs 'accelerate launch --cpu' starts one process, whatever it is told"
        )
    if training.gradient_checkpointing and not METHODS[recipe.method].recomputes:
        # Two names of one setting: transformers reads the new one and TRL the old one.
        training.activation_checkpointing = training.gradient_checkpointing = False
        say(f"gradient_checkpointing is off: {recipe.method} keeps its prompt in the cache, which it does without")
    recipe, given_up = take_over(recipe)
    if recipe.adapter:
        own = ", ".join(given_up) or "none that differ"
        say(f"going on from the adapter {recipe.adapter}, with settings of its own (and the recipe's): {own}")
    if training.n_gpu > 1:
        raise PromptCBLUEError(
            f"{training.n_gpu} GPUs are visible and one process is to train: start 'accelerate launch --num_processes "
            f"{training.n_gpu} -m promptcblue_training.sft {shlex.join(arguments)}', or set CUDA_VISIBLE_DEVICES=0 to "
            "train on one of them"
        )
    if recipe.dry_run:
        training.output_dir = f"{training.output_dir}{_DRY}"
        atexit.register(shutil.rmtree, training.output_dir, ignore_errors=True)
    set_seed(training.seed)
    return recipe, training


def _is_finished(
    recipe: Recipe, training: TrainingSettings, samples: Sequence[Sample], arguments: Sequence[str]
) -> bool:
    """Whether the output folder holds this very run, finished; what it is made with is recorded where it is new."""
    folder = Path(str(training.output_dir))
    settings = {
        "samples": run.samples_fingerprint(samples),
        **{name: value and identify(value) for name, value in (("model", recipe.model), ("adapter", recipe.adapter))},
        **{key: value for key, value in asdict(recipe).items() if key not in _OTHERS.split()},
        **training.deciding(),
    }
    notes = {
        "recipe": asdict(recipe),
        "command": list(arguments),
        "left_alone": training.left_alone(),
        "versions": versions(),
    }
    with training.main_process_first(desc="looking for checkpoints"):
        if training.process_index == 0:
            run.claim(folder, settings, notes, overwrite=recipe.overwrite)
        return (folder / run.FINISHED).is_file()


def _plan(recipe: Recipe, trainer: Trainer) -> str:
    """What is about to be trained, and how."""
    training = trainer.args
    precision = "bfloat16 mixed precision" if training.bf16 else "float32"
    steps, count = _steps(trainer), count_trainable(trainer.model)
    weights = 4 * (count.backbone if recipe.method == "full" else count.trained)
    # The optimizer has two numbers for each weight; the one to choose is kept beside those of save_total_limit.
    # DeepSpeed writes its weights beside the model's files, and so does FSDP where it does not keep them in parts.
    plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    twice = trainer.is_deepspeed_enabled or (plugin is not None and "FULL" in str(plugin.state_dict_type))
    checkpoints = 0 if training.save_strategy == SaveStrategy.NO else max(1, steps // max(1, int(training.save_steps)))
    kept = min(checkpoints, (training.save_total_limit or checkpoints) + 1)
    needed = weights + kept * ((1 + twice) * weights + 8 * count.trained)
    there = Path(str(training.output_dir)).absolute()
    free = shutil.disk_usage(next(folder for folder in (there, *there.parents) if folder.is_dir())).free
    return (
        f"{describe_trainable(recipe, trainer.model)}\n"
        f"{steps} steps; disk for the model and up to {kept} checkpoint(s): about {needed / 1e9:.2f} GB, "
        f"{'of ' if needed < free else 'MORE THAN the '}{free / 1e9:.1f} GB that are free\n"
        f"steps of {training.samples_a_step} samples, {training.gradient_accumulation_steps} pass(es) each on "
        f"{training.world_size} process(es), {'without' if training.padding_free else 'with'} padding, "
        f"{training.device.type}, {'float16 mixed precision' if training.fp16 else precision}"
    )


def _dry_run(trainer: Trainer, folder: Path) -> str:
    """Train one step, and say what the run would take; the folder of the trial goes."""
    training, planned = trainer.args, _steps(trainer)
    training.max_steps, training.save_strategy, training.eval_strategy = 1, SaveStrategy.NO, IntervalStrategy.NO
    seconds = _train(trainer, None)["train_runtime"]
    if training.device.type == "cuda":
        memory, where = torch.cuda.max_memory_allocated(), "the GPU"
    else:
        # macOS counts bytes, Linux kibibytes.
        unit = 1 if sys.platform == "darwin" else 1024
        memory, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "this process"
    if training.process_index == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return (
        f"dry run: one step took {seconds:.1f} s and {memory / 1e9:.2f} GB of {where}; {planned} such steps would take "
        f"about {planned * seconds / 3600:.1f} hours, evaluation and checkpoints not counted"
    )


def _steps(trainer: Trainer) -> int:
    """The optimizer steps of the whole run."""
    training: TrainingSettings = trainer.args
    an_epoch = -(-trainer.samples // training.samples_a_step)
    return int(training.max_steps) if training.max_steps > 0 else math.ceil(training.num_train_epochs * an_epoch)


def _train(trainer: Trainer, checkpoint: str | None) -> dict[str, float]:
    try:
        with run.writing(str(trainer.args.output_dir)):
            return dict(trainer.train(resume_from_checkpoint=checkpoint).metrics)
    except FloatingPointError as error:
        raise PromptCBLUEError(
            f"{error}, so training stopped; the checkpoints before it are whole. Lower learning_rate, or train in "
            "float32 (--bf16 false --fp16 false)"
        ) from error
    except KeyboardInterrupt:
        last = run.last_checkpoint(Path(str(trainer.args.output_dir))) or "the start, since there is no checkpoint yet"
        say(f"stopped at step {trainer.state.global_step}; the same command goes on from {last}")
        raise


def _save(recipe: Recipe, trainer: Trainer, results: dict[str, float]) -> str:
    """Save the chosen weights, and then all that tells people about them; returns what there is to say."""
    folder = Path(str(trainer.args.output_dir))
    with run.writing(str(folder)):
        choice = save_chosen(trainer, trainer.args.rule)
        trainer.save_state()
    validation: dict[str, float] = {}
    if trainer.eval_dataset is not None:
        validation = _validation_metrics(trainer, choice.step)
        trainer.save_metrics("eval", validation)
    count, size = count_trainable(trainer.model), METHODS[recipe.method].size
    results |= {"parameters": count.backbone, "trainable_parameters": count.trained}
    if size:
        results[size] = getattr(recipe, size)
    output = folder / "predictions.jsonl"
    options = ["--model", str(folder), "--dataset", recipe.dataset, "--split", "test", "--output", str(output)]
    lines = [
        f"saved the {'model' if recipe.method == 'full' else 'adapter'} in {folder}",
        f"its weights are those of step {choice.step}: {choice.reason}",
        f"next: promptcblue-train predict {shlex.join(options)}",
    ]
    if trainer.args.process_index == 0:
        if recipe.save_dtype != "auto":
            convert(folder, recipe.save_dtype, trust_remote_code=trainer.args.trust_remote_code)
        if not run.write_curve(folder, trainer.state.log_history, choice.step):
            lines.insert(0, f"{folder / run.CURVE_CSV}: to have it drawn too, {install_command(EXTRAS['matplotlib'])}")
        write_card(folder, train=results, validation=validation)
    trainer.save_metrics("train", results)
    return "\n".join(lines)


def _validation_metrics(trainer: Trainer, step: int) -> dict[str, float]:
    """Those of the chosen step, computed now if it is the last one and training did not end on an evaluation."""
    log = [entry for entry in trainer.state.log_history if entry.get("step") == step]
    metrics = {key: value for entry in log for key, value in entry.items() if key.startswith("eval_")}
    return metrics if "eval_loss" in metrics else {**metrics, **trainer.evaluate()}


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
