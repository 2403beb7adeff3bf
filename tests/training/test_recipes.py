from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from promptcblue_training.memory import BACKBONES, Backbone, estimate, layer_bytes, trained_parameters
from promptcblue_training.recipe import RECIPES, defaults, find_recipe, read_recipe, shipped
from promptcblue_training.settings import parse_recipe

from ..conftest import Run
from .conftest import Fit
from .test_cli import command

ACCELERATE = sorted((RECIPES / "accelerate").glob("*.yaml"))
#: Small enough to count by hand.
SMALL = Backbone(layers=2, hidden=4, key_value=2, inner=8, vocabulary=10)


@cache
def meta_model(backbone: Backbone) -> Any:
    """The model of these sizes, without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    heads = backbone.hidden // 64
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=backbone.hidden,
        num_hidden_layers=backbone.layers,
        num_attention_heads=heads,
        num_key_value_heads=backbone.key_value // 64,
        intermediate_size=backbone.inner,
        vocab_size=backbone.vocabulary,
        tie_word_embeddings=backbone.tied,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_there_is_a_recipe_for_every_method_and_class_of_backbones() -> None:
    from promptcblue_training.methods import METHODS

    wanted = {f"{method}-{size}" for method in METHODS for size in ("small", "7b", "13b")}
    assert set(shipped()) == {*wanted, "demo", "qlora-7b", "qlora-13b"}
    for name in METHODS:
        assert find_recipe(name) == find_recipe(f"{name}-small")


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"demo"}))
def test_every_recipe_has_the_paper_s_settings_and_an_adapter_that_fits_its_backbone(name: str) -> None:
    from promptcblue_training.methods import METHODS, fit_to_budget, shape_of

    recipe, training = parse_recipe(name, [])
    method = name.rpartition("-")[0].replace("qlora", "lora")
    assert recipe.method == method
    assert (training.samples_a_step, training.warmup_steps, training.max_grad_norm) == (64, 100, 1)
    assert (training.lr_scheduler_type, training.weight_decay) == ("linear", 1e-4)
    assert (training.checkpoint_choice, training.steps_after_best) == ("paper", 200)
    assert recipe.model is not None
    if method == "full":
        return
    assert (training.learning_rate, training.num_train_epochs) == (3e-4, 10)
    backbone = BACKBONES[recipe.model]
    model = meta_model(backbone)
    fitted = fit_to_budget(recipe, model)
    config = METHODS[method].config(fitted, model)
    assert config.task_type == "CAUSAL_LM"
    count = METHODS[method].parameters
    assert count is not None
    shape = shape_of(recipe, model)
    assert count(fitted, shape) < 0.01 * backbone.parameters
    # What the table shows, which is made without a model, is what the model gives.
    shown = trained_parameters({**defaults(), **read_recipe(find_recipe(name))}, backbone)
    if recipe.fit_budget:
        assert 0.9 * shown < count(fitted, shape) <= shown
    else:
        assert count(recipe, shape) == shown


@pytest.mark.parametrize("name", BACKBONES)
def test_the_sizes_of_the_backbones_are_those_of_transformers(name: str) -> None:
    assert meta_model(BACKBONES[name]).num_parameters() == BACKBONES[name].parameters


# SMALL by hand. Matrices of a block: 4·4 + 4·2 + 4·2 + 4·4 + 4·8 + 4·8 + 8·4 = 144. Embeddings 10·4 twice: 80; biases
# 4 + 2 + 2 and norms 2·4 in each block: 16; last norm 4. All: 80 + 2·(144 + 16) + 4 = 404.
# A block's activations a token: 2·4 + 12·4 + 4·4 + 6·2 + 4·4 + 8·8 = 164.
@pytest.mark.parametrize(
    ("settings", "weights", "trained", "activations"),
    [
        # Rank 3: 2 blocks · 3 · (8 + 6 + 6 + 8 + 12 + 12 + 12) = 384 parameters of 16 bytes.
        ({"method": "lora", "lora_rank": 3}, 2 * 404, 16 * 384, 100 * (2 * 2 * 4 + 2 * 164)),
        # One more for each rank and matrix: 2 · 3 · 7.
        ({"method": "adalora", "lora_rank": 3}, 2 * 404, 16 * (384 + 42), 100 * (2 * 2 * 4 + 2 * 164)),
        ({"method": "full"}, 6 * 404, 12 * 404, 100 * (2 * 2 * 4 + 2 * 164)),
        # 5 tokens, 2 blocks, key and value of 2.
        (
            {"method": "p-tuning-v2", "virtual_tokens": 5, "gradient_checkpointing": False},
            2 * 404,
            16 * 40,
            100 * 2 * 164,
        ),
        # Beside 2 · 2 parts: 2·4·3 + 3 + 4 = 31 each.
        (
            {"method": "parallel-adapter", "adapter_bottleneck": 3},
            2 * 404,
            16 * 124,
            100 * (2 * 2 * 4 + 2 * 164),
        ),
        # Embeddings and norms (404 - 288) in 2 bytes, the rest in 4.127 bits.
        (
            {"method": "lora", "lora_rank": 3, "dtype": "4bit"},
            int(288 * 4.126953125 / 8 + 2 * 116),
            16 * 384,
            100 * (2 * 2 * 4 + 2 * 164),
        ),
        ({"method": "lora", "fit_budget": 0.5}, 2 * 404, 16 * 202, 100 * (2 * 2 * 4 + 2 * 164)),
    ],
)
def test_memory_by_hand(settings: dict[str, Any], weights: int, trained: int, activations: int) -> None:
    assert SMALL.parameters == 404
    assert layer_bytes(SMALL) == 164
    needs = estimate({"gradient_checkpointing": True, "batch_tokens": 100, **settings}, SMALL)
    assert (needs.weights, needs.trained, needs.activations) == (weights, trained, activations)
    assert needs.on() == weights + trained + activations + 2**30
    assert needs.on(4) == (weights + trained) // 4 + needs.layer + activations + 2**30


def test_padded_batches_take_the_longest_rows() -> None:
    settings = {"method": "full", "gradient_checkpointing": True, "per_device_train_batch_size": 3, "max_length": 50}
    assert estimate(settings, SMALL).activations == 150 * (2 * 2 * 4 + 2 * 164)


def test_the_list_of_recipes_needs_no_torch(run_python: Run) -> None:
    code = (
        "import sys\nfrom promptcblue_training.cli import main\nsys.argv = ['promptcblue-train', 'sft', '--list']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "print('imported:', [name for name in ('torch', 'transformers', 'trl', 'peft') if name in sys.modules])"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert "imported: []" in result.stdout
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()}
    assert set(shipped()) <= set(lines)
    # LoRA 24 on 7.62 billion parameters: 2 · 7.62 + 16 · 0.0606 + 8192 tokens · 0.67 MB + 1.07.
    assert lines["lora-7b"][-3:] == ["0.80%", "23", "9"]


def test_one_recipe_is_listed_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "sft", "--list", "qlora") == 1
    assert command(monkeypatch, "sft", "--list", "qlora-7b") == 0
    shown = capsys.readouterr().out
    assert "qlora-7b" in shown
    assert "lora-13b" not in shown


def test_a_recipe_of_one_s_own_starts_from_the_paper_s_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: some/model\noutput_dir: {tmp_path}\nlearning_rate: 1e-5\n")
    _, training = parse_recipe(path, ["--warmup_steps", "7"])
    assert (training.learning_rate, training.warmup_steps, training.weight_decay) == (1e-5, 7, 1e-4)
    assert training.samples_a_step == 64


# What `accelerate launch --config_file` makes of each config file, and what a process it starts makes of that.
_LAUNCH = """
import json, os, sys
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env,
)
everything, environment = {}, dict(os.environ)
for path in sys.argv[2:]:
    os.environ.clear()
    os.environ.update(environment)
    words = ["--config_file", path, "-m", "promptcblue_training.sft", "lora-7b"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, env = prepare_deepspeed_cmd_env(args)
    elif args.use_fsdp or args.multi_gpu:
        env = prepare_multi_gpu_env(args)
    else:
        _, env = prepare_simple_launcher_cmd_env(args)
    os.environ.update({key: str(value) for key, value in env.items()})
    made = {"processes": defaults.num_processes, "type": str(defaults.distributed_type), "mixed": args.mixed_precision}
    if args.use_fsdp:
        plugin = FullyShardedDataParallelPlugin()
        made |= {"version": plugin.fsdp_version, "state": str(plugin.state_dict_type),
                 "reshard": plugin.reshard_after_forward, "policy": plugin.auto_wrap_policy.__name__}
    elif args.use_deepspeed:
        plugin = DeepSpeedPlugin()
        made |= {"stage": plugin.zero_stage, "zero": plugin.deepspeed_config["zero_optimization"]}
        if sys.argv[1] == "whole":
            os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
            made["built"] = str(Accelerator().state.distributed_type)
    else:
        made["built"] = Accelerator().mixed_precision
    AcceleratorState._reset_state(True)
    everything[os.path.basename(path)] = made
print(json.dumps(everything))
"""


def test_accelerate_takes_the_configs(run_python: Run) -> None:
    # DeepSpeed's accelerator is built too where the package is there; accelerate builds FSDP's on GPUs alone.
    whole = "whole" if find_spec("deepspeed") else "plugin"
    result = run_python(_LAUNCH, whole, *ACCELERATE)
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout.splitlines()[-1])
    assert {name: each["processes"] for name, each in made.items()} == {
        "one_gpu.yaml": 1,
        "ddp.yaml": 8,
        "fsdp.yaml": 8,
        "zero3.yaml": 8,
    }
    assert {each["mixed"] for each in made.values()} == {"bf16"}
    assert made["one_gpu.yaml"]["built"] == made["ddp.yaml"]["built"] == "bf16"
    assert made["ddp.yaml"]["type"].endswith("MULTI_GPU")
    fsdp, zero3 = made["fsdp.yaml"], made["zero3.yaml"]
    assert (fsdp["version"], fsdp["reshard"], fsdp["policy"]) == (2, True, "transformer_auto_wrap_policy")
    assert fsdp["state"].endswith("SHARDED_STATE_DICT")
    assert (zero3["stage"], zero3["zero"]["stage3_gather_16bit_weights_on_model_save"]) == (3, True)
    assert zero3.get("built", "DistributedType.DEEPSPEED") == "DistributedType.DEEPSPEED"


def test_the_configs_name_only_what_accelerate_knows() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    for path in ACCELERATE:
        written = yaml.safe_load(path.read_text())
        read = load_config_from_file(str(path)).to_dict()
        assert {key: read[key] for key in written if key != "distributed_type"} == {
            key: value for key, value in written.items() if key != "distributed_type"
        }


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="weights in 4 bits need bitsandbytes")
def test_an_adapter_on_weights_in_4_bits(fit: Fit, trained: Path) -> None:
    folder = fit(model=str(trained), from_config=None, method="lora", dtype="4bit", lora_rank=2, max_steps=3)
    results = json.loads((folder / "train_results.json").read_text())
    assert 0 < results["train_loss"] < 10
    # Two weights share a byte, and still count as two.
    from transformers import AutoModelForCausalLM

    assert results["parameters"] == AutoModelForCausalLM.from_pretrained(trained).num_parameters()
    assert (folder / "adapter_model.safetensors").is_file()


def test_weights_in_4_bits_are_not_trained_themselves(fit: Fit) -> None:
    with pytest.raises(ValueError, match="4bit"):
        fit(method="full", dtype="4bit")
