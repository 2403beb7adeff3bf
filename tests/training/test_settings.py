from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from promptcblue_metric.cli.common import NUMBERS
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.model import best_dtype, choose_dtype
from promptcblue_training.recipe import Recipe, shipped
from promptcblue_training.run import differences
from promptcblue_training.settings import FIXED, INDIFFERENT, TrainingSettings, parse_recipe

SHIPPED = sorted(shipped())


def write(path: Path, text: str) -> Path:
    path.write_text(f"output_dir: {path.parent / 'out'}\nmodel: some/model\n{text}", encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write(tmp_path / "recipe.yaml", "dataset: here\nlearning_rate: 3e-4\nmax_length: 512\nbatch_size: 64\n")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_found_by_name_and_valid(name: str, tmp_path: Path) -> None:
    run, training = parse_recipe(name, ["--output_dir", str(tmp_path), "--dataset", "mine"])
    assert run.dataset == "mine"
    assert training.seed == 42
    assert not training.report_to


def test_the_lora_recipe_is_the_paper_s() -> None:
    run, training = parse_recipe("lora-7b", ["--output_dir", "unused"])
    assert (run.method, run.lora_rank, run.lora_target_modules) == ("lora", 24, ["all-linear"])
    assert (training.learning_rate, training.warmup_steps, training.num_train_epochs) == (3e-4, 100, 10)
    assert training.samples_a_step == 64
    assert (training.checkpoint_choice, training.steps_after_best) == ("paper", 200)
    assert (training.lr_scheduler_type, training.max_grad_norm, training.weight_decay) == ("linear", 1.0, 1e-4)
    assert training.optim.startswith("adamw")


def test_the_command_line_overrides_the_recipe(recipe: Path) -> None:
    run, training = parse_recipe(
        recipe, ["--learning_rate", "1e-5", "--configs", "CMeEE", "CHIP-STC", "--max-length=9"]
    )
    assert (training.learning_rate, training.max_length) == (1e-5, 9)
    assert run.configs == ["CMeEE-V2", "CHIP-STS"]
    assert parse_recipe(recipe)[1].learning_rate == 3e-4


def test_the_batch_size_is_filled_by_accumulation(recipe: Path) -> None:
    _, training = parse_recipe(recipe, ["--per_device_train_batch_size", "4"])
    assert training.gradient_accumulation_steps * 4 * training.world_size == 64
    with pytest.raises(PromptCBLUEError, match="batch_size 64"):
        parse_recipe(recipe, ["--per_device_train_batch_size", "5"])


def test_a_cpu_gets_float32(recipe: Path) -> None:
    _, training = parse_recipe(recipe, ["--use_cpu", "true"])
    assert (training.bf16, training.fp16) == (False, False)
    assert best_dtype(torch.device("cpu")) is torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("learning_rat: 1", [], "learning_rate"),
        ("", ["--learning_rat", "1"], "learning_rate"),
        ("", ["--learning_rate", "fast"], "learning_rate"),
        ("", ["stray"], "stray"),
        ("", ["--config", "other.yaml"], "config"),
        ("method: magic", [], "lora, adalora"),
        ("dtype: int4", [], "bfloat16"),
        ("configs: [NoSuchTask]", [], "NoSuchTask"),
        ("from_config: {model_type: llama}", [], "from_config"),
        ("from_config: nonsense", [], "JSON object"),
        ("[", [], "YAML"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(PromptCBLUEError, match=message):
        parse_recipe(write(tmp_path / "recipe.yaml", text), overrides)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", "-1", "from 0"),
        ("seed", f"1{400 * '0'}", "from 0"),
        ("learning_rate", "-1", "above 0"),
        ("learning_rate", ".nan", "above 0"),
        ("learning_rate", ".inf", "above 0"),
        ("num_train_epochs", ".nan", "a number"),
        ("batch_size", "0", "1 or more"),
        ("batch_size", "8.5", "(whole|invalid)"),
        ("batch_tokens", "0", "1 or more"),
        ("max_length", "0", "1 or more"),
        ("pad_to_multiple_of", "0", "1 or more"),
        ("weight_decay", "-1", "0 or more"),
        ("max_steps", "0", "or -1"),
        ("max_steps", "-2", "or -1"),
        ("num_train_epochs", "0", "or max_steps"),
        ("num_train_epochs", "-1", "or max_steps"),
        ("lora_dropout", "1", "below 1"),
        ("logging_steps", "true", "(above 0|invalid)"),
        ("learning_rate", "fast", "invalid"),
        ("output_dir", "recipe.yaml", "a folder"),
        ("output_dir", "recipe.yaml/below", "a folder"),
    ],
)
def test_a_setting_out_of_its_range_is_blamed_on_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(Path("recipe.yaml"), "")
    with pytest.raises(PromptCBLUEError, match=rf"^command line: (argument --)?{name}\b.*{expected}"):
        parse_recipe(path, [f"--{name}={value.removeprefix('.')}"])
    path.write_text(f"model: a/b\n{'' if name == 'output_dir' else 'output_dir: out'}\n{name}: {value}\n")
    with pytest.raises(PromptCBLUEError, match=rf"^recipe.yaml: (argument --)?{name}\b.*{expected}"):
        parse_recipe(path)


def test_steps_make_epochs_needless(recipe: Path) -> None:
    assert parse_recipe(recipe, ["--max_steps", "1", "--num_train_epochs", "0"])[1].max_steps == 1


def test_every_number_has_its_range() -> None:
    numeric = {each.name for kind in (Recipe, TrainingSettings) for each in fields(kind) if _is_number(str(each.type))}
    assert numeric - {"local_rank"} <= set(NUMBERS)


def _is_number(kind: str) -> bool:
    return not {"dict", "str", "list"} & set(re.findall(r"\w+", kind)) and bool(re.search(r"\b(int|float)\b", kind))


def test_a_recipe_must_be_there_and_hold_settings(tmp_path: Path) -> None:
    with pytest.raises(PromptCBLUEError, match="demo, full-13b"):
        parse_recipe("no-such-recipe")
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    with pytest.raises(PromptCBLUEError, match=r"empty\.yaml"):
        parse_recipe(empty)
    empty.write_text("model: a/b\n")
    with pytest.raises(PromptCBLUEError, match="output_dir"):
        parse_recipe(empty)
    empty.write_text("output_dir: out\n")
    with pytest.raises(PromptCBLUEError, match="model"):
        parse_recipe(empty)


def test_a_tiny_model_on_the_cpu_gets_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptcblue_training.model import spare_threads

    class Model:
        def __init__(self, size: int) -> None:
            self.num_parameters = lambda: size

    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    spare_threads(Model(1000), torch.device("cpu"))
    monkeypatch.delenv("OMP_NUM_THREADS")
    spare_threads(Model(10**9), torch.device("cpu"))
    spare_threads(Model(1000), torch.device("cuda"))
    assert asked == []
    spare_threads(Model(1000), torch.device("cpu"))
    assert asked == [1]


#: The settings that decide what is learned, as of TRL 1.16. One that TRL adds decides too until someone has looked at
#: it: it belongs here, or in one of the two lists in `promptcblue_training.settings`.
DECIDING = {
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "num_train_epochs", "max_steps"),
    *("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay"),
    *("max_grad_norm", "average_tokens_across_devices", "label_smoothing_factor", "loss_type", "router_aux_loss_coef"),
    *("neftune_noise_alpha", "bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval", "max_length"),
    *("seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last", "ignore_data_skip"),
    *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"),
    *("checkpoint_choice", "steps_after_best", "patience"),
}


def test_every_setting_decides_or_does_not_or_is_fixed() -> None:
    names = {each.name for each in fields(TrainingSettings)}
    lists = (DECIDING, INDIFFERENT, set(FIXED))
    listed = set.union(*map(set, lists))
    assert names <= listed
    # Other versions than the pinned one may lack those of this one alone.
    assert listed - names in (set(), {"activation_checkpointing", "activation_checkpointing_kwargs"})
    assert sum(map(len, lists)) == len(listed), "a setting is in two lists"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("loss_type", "dft"),
        ("label_smoothing_factor", "0.1"),
        ("neftune_noise_alpha", "5"),
        ("data_seed", "7"),
        ("bf16", "true"),
        ("optim", "adafactor"),
        ("batch_size", "8"),
    ],
)
def test_a_setting_that_decides_makes_another_run(recipe: Path, option: str, value: str) -> None:
    before = parse_recipe(recipe, ["--use_cpu", "true"])[1].deciding()
    changed = parse_recipe(recipe, ["--use_cpu", "true", f"--{option}", value])[1].deciding()
    assert [line.split()[0] for line in differences(before, changed)] == [option.removesuffix("_size")]


def test_what_does_not_decide_makes_no_other_run(recipe: Path, tmp_path: Path) -> None:
    before = parse_recipe(recipe, ["--use_cpu", "true"])[1].deciding()
    words = ["--output_dir", str(tmp_path / "elsewhere"), "--logging_steps", "3", "--save_steps", "7"]
    words += ["--dataloader_num_workers", "2", "--per_device_train_batch_size", "4", "--hub_model_id", "a/b"]
    assert parse_recipe(recipe, ["--use_cpu", "true", *words])[1].deciding() == before


# accelerate builds parallelism_config, and no command line gives it.
@pytest.mark.parametrize("name", sorted(FIXED.keys() - {"parallelism_config"}))
def test_a_setting_that_would_do_nothing_is_refused_with_what_to_do_instead(recipe: Path, name: str) -> None:
    values = {"truncation_mode": "keep_end", "packing_strategy": "wrapped", "dataset_kwargs": '{"a": 1}'}
    values |= {"model_init_kwargs": '{"a": 1}'}
    with pytest.raises(PromptCBLUEError, match=name):
        parse_recipe(recipe, [f"--{name}", values.get(name, "true")])


def test_the_attention_kernel_is_what_was_asked_for_or_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils

    from promptcblue_training.model import attention_kernel

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention_kernel("eager", torch.float32, cpu) == "eager"
    for there in (False, True):
        monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda there=there: there)
        assert attention_kernel("auto", torch.float32, gpu) is None
        assert attention_kernel("auto", torch.bfloat16, cpu) is None
        assert (attention_kernel("auto", torch.bfloat16, gpu) == "flash_attention_2") is there


@pytest.mark.parametrize("work", ["checkpoint-4", "backbone"])
@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_what_a_run_is_to_go_on_from_does_not_lie_where_it_is_removed(
    work: str, overwrite: str, tmp_path: Path
) -> None:
    source = tmp_path / "out" / work
    source.mkdir(parents=True)
    words = ["--output_dir", str(tmp_path / "out"), "--overwrite", overwrite]
    for options in (["--model", str(source)], ["--model", "a/b", "--adapter", str(source)]):
        with pytest.raises(PromptCBLUEError, match=work):
            parse_recipe("lora", [*words, *options])
    assert parse_recipe("lora", ["--output_dir", str(tmp_path / "other"), "--model", str(source)])
