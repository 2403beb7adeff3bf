"""Every way to fine-tune: trains, saves, reloads, generates and goes on as it should."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from promptcblue_dataset import load_samples
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.methods import METHODS as REGISTRY

from .conftest import Fit
from .test_sft import log, weights

if TYPE_CHECKING:
    from torch import nn

METHODS = ("lora", "adalora", "p-tuning", "p-tuning-v2", "parallel-adapter", "full")
#: Sizes that fit a model this small, and rates at which each method learns in a few steps.
SMALL: dict[str, dict[str, Any]] = {
    "lora": {"lora_rank": 4, "lora_alpha": 8},
    "adalora": {"lora_rank": 4, "lora_alpha": 32, "adalora_interval": 2, "learning_rate": 2e-2},
    "p-tuning": {"virtual_tokens": 6, "encoder_width": 16, "learning_rate": 2e-2},
    "p-tuning-v2": {"virtual_tokens": 6, "learning_rate": 5e-2},
    "parallel-adapter": {"adapter_bottleneck": 8},
    "full": {},
}
#: Sixteen samples, eight a step.
TASKS = ["CMeEE-V2", "CHIP-STS", "CHIP-CTC", "KUAKE-QIC", "KUAKE-IR", "KUAKE-QQR", "KUAKE-QTR", "CHIP-CDN"]
STEPS, HALF, EPOCH = 10, 5, 2
#: Rates at which methods learn in a few steps, where the usual one does not.
RATES = {name: changes["learning_rate"] for name, changes in SMALL.items() if "learning_rate" in changes}

Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def run_of(fit: Fit, trained: Path) -> Trained:
    """The folder of a short run by a method, made once."""
    made: dict[str, Path] = {}

    def of(method: str) -> Path:
        if method not in made:
            made[method] = fit(**settings(method, trained))
        return made[method]

    return of


def settings(method: str, backbone: Path, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "configs": TASKS,
        "model": str(backbone),
        "from_config": None,
        "max_steps": STEPS,
        "save_steps": HALF,
        "save_total_limit": None,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
        **SMALL[method],
        **changes,
    }


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_and_a_fresh_load_has_the_loss_it_ended_with(method: str, run_of: Trained, data: Path) -> None:
    folder = run_of(method)
    losses = [entry["loss"] - entry.get("orthogonality", 0) for entry in log(folder) if "loss" in entry]
    assert sum(losses[-EPOCH:]) < sum(losses[:EPOCH])
    expected = json.loads((folder / "eval_results.json").read_text())["eval_loss"]
    assert loss_of(folder, data) == pytest.approx(expected, abs=2e-4)


def loss_of(folder: Path, data: Path) -> float:
    """Mean loss a target token of the validation samples, each by itself and without padding."""
    import torch

    from promptcblue_training.model import find_model, load_for_prediction, load_tokenizer
    from promptcblue_training.prompts import PromptEncoder

    source = find_model(str(folder))
    model = load_for_prediction(source, torch.float32)
    encoder = PromptEncoder(load_tokenizer(source.tokenizer))
    samples = load_samples(data, "validation", TASKS)
    total = count = 0.0
    for prompt, target in zip(
        encoder.prompts([sample["input"] for sample in samples]),
        encoder.targets([sample["target"] for sample in samples]),
        strict=True,
    ):
        ids = torch.tensor([prompt + target])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(target) - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum"))
        count += len(target)
    return total / count


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_unequal_prompts_is_answered_as_each_by_itself(method: str, run_of: Trained, data: Path) -> None:
    folder = run_of(method)
    for beams in (1, 4):
        together, alone = answers(folder, data, beams, None), answers(folder, data, beams, 1)
        assert together == alone
        assert len(set(together)) > 1


def answers(folder: Path, data: Path, beams: int, batch_size: int | None) -> list[str]:
    from promptcblue_training.backends import BackendSettings, Completion, Request, load_backend

    backend = load_backend(BackendSettings(model=str(folder), beams=beams, batch_size=batch_size, dtype="float32"))
    prompts = [sample["input"] for sample in load_samples(data, "test")]
    made = list(backend.generate([Request(index, prompt, 8) for index, prompt in enumerate(prompts)]))
    texts = {one.index: one.text for one in made if isinstance(one, Completion)}
    return [texts[index] for index in range(len(prompts))]


def direct(folder: Path, data: Path, ends: list[int], beams: int) -> list[str]:
    """What plain ``generate`` answers to each test prompt by itself."""
    import torch
    from transformers import GenerationConfig

    from promptcblue_training.backends.transformers import decoders
    from promptcblue_training.model import find_model, load_for_prediction, load_tokenizer

    source = find_model(str(folder))
    model, tokenizer = load_for_prediction(source, torch.float32), load_tokenizer(source.tokenizer)
    config = GenerationConfig(
        max_new_tokens=16, num_beams=beams, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    for owner in decoders(model):
        owner.generation_config = config
    texts = []
    for sample in load_samples(data, "test", TASKS):
        ids = tokenizer(sample["input"], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            (row,) = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        new = row[ids.shape[1] :].tolist()
        texts.append(tokenizer.decode([*itertools.takewhile(lambda token: token not in ends, new)]))
    return texts


@pytest.mark.parametrize("method", METHODS)
def test_decoding_is_what_was_asked_for_whatever_the_model_ships(
    method: str, run_of: Trained, data: Path, tmp_path: Path
) -> None:
    from promptcblue_training.backends import BackendSettings, Completion, Request, load_backend

    folder, backbone = tmp_path / "adapter", tmp_path / "backbone"
    shutil.copytree(run_of(method), folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    shipper = folder
    if (folder / "adapter_config.json").is_file():
        adapter = json.loads((folder / "adapter_config.json").read_text())
        shutil.copytree(adapter["base_model_name_or_path"], backbone, ignore=shutil.ignore_patterns("checkpoint-*"))
        (folder / "adapter_config.json").write_text(json.dumps({**adapter, "base_model_name_or_path": str(backbone)}))
        shipper = backbone
    shipped = shipper / "generation_config.json"
    own = json.loads(shipped.read_text())

    def answers(beams: int, **ships: Any) -> list[str]:
        shipped.write_text(json.dumps({**own, **ships}))
        backend = load_backend(BackendSettings(model=str(folder), beams=beams))
        samples = load_samples(data, "test", TASKS)
        made = list(backend.generate([Request(index, sample["input"], 16) for index, sample in enumerate(samples)]))
        assert all(isinstance(each, Completion) for each in made)
        return [each.text for each in sorted(made, key=lambda each: each.index)]  # type: ignore[union-attr]

    sampling = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "top_k": 3, "max_new_tokens": 2}
    end = own["eos_token_id"]
    plain = {beams: answers(beams) for beams in (1, 4)}
    for beams, texts in plain.items():
        assert texts == direct(folder, data, [end], beams)
        assert texts == answers(beams, **sampling)
    assert plain[1] != plain[4]
    # Another token that ends an answer: the first one of an answer's middle.
    from promptcblue_training.model import load_tokenizer

    tokenizer = load_tokenizer(str(shipper))
    longest = max(plain[1], key=len)
    token = tokenizer.encode(longest[len(longest) // 2], add_special_tokens=False)[0]
    assert answers(1, eos_token_id=[end, token]) == direct(folder, data, [end, token], 1)
    assert answers(1, eos_token_id=[end, token]) != plain[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_model_answers_as_the_adapter_does(method: str, run_of: Trained, data: Path, tmp_path: Path) -> None:
    from promptcblue_training.backends import BackendSettings
    from promptcblue_training.model import find_model, merge
    from promptcblue_training.predict import predict

    output = tmp_path / "merged"
    if method not in ("lora", "adalora"):
        kind = "is a whole model" if method == "full" else f"{REGISTRY[method].kind} stands beside the weights"
        with pytest.raises(PromptCBLUEError, match=kind):
            merge(find_model(str(run_of(method))), output)
        assert not output.exists()
        return
    merge(find_model(str(run_of(method))), output)
    assert not (output / "adapter_config.json").exists()
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    with pytest.raises(PromptCBLUEError, match="there already"):
        merge(find_model(str(run_of(method))), output)
    rows = []
    for model in (run_of(method), output):
        path = tmp_path / f"{model.name}.jsonl"
        # Limits too are the same: the record of the run has come along.
        predict(str(data), "test", path, BackendSettings(model=str(model)), TASKS)
        rows.append([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    assert rows[0] == rows[1]
    halved = tmp_path / "halved"
    merge(find_model(str(run_of(method))), halved, "bfloat16")
    assert (halved / "model.safetensors").stat().st_size < 0.6 * (output / "model.safetensors").stat().st_size


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_cut_short_goes_on_to_the_same_weights(
    method: str, run_of: Trained, fit: Fit, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = run_of(method), tmp_path / "cut"
    cut.mkdir()
    shutil.copy(whole / "run.json", cut)
    shutil.copytree(whole / f"checkpoint-{HALF}", cut / f"checkpoint-{HALF}")
    fit(output_dir=cut, **settings(method, trained))
    assert "going on from" in capsys.readouterr().out
    expected, found = weights(whole), weights(cut)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.shape == found[name].shape
        assert tensor.sub(found[name]).abs().sum() < 1e-5 * max(1, tensor.numel()), name
    if method == "adalora":
        assert ranks(whole) == ranks(cut)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
def test_training_goes_on_from_an_adapter(
    method: str,
    run_of: Trained,
    fit: Fit,
    trained: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch

    start = run_of(method)
    sizes = dict.fromkeys(SMALL[method], None) | {"learning_rate": RATES.get(method, 5e-3)}
    changes = {**settings(method, start), **sizes, "steps_after_best": 0}

    # A step too small to see gives the adapter as it was, whichever settings the recipe has.
    same = fit(**{**changes, "max_steps": 1, "learning_rate": 1e-9})
    said = capsys.readouterr().out
    assert f"going on from the adapter {start}" in said
    for name in SMALL[method].keys() - {"learning_rate", "adalora_interval"}:
        assert name in said
    expected, found = weights(start), weights(same)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(tensor, found[name], atol=1e-5), name
    assert loss_of(same, data) == pytest.approx(loss_of(start, data), abs=1e-4)

    # It learns more, says what it came from, and predicts.
    whole = fit(**changes)
    losses = [entry["loss"] for entry in log(whole) if "loss" in entry]
    assert sum(losses[:EPOCH]) < sum([entry["loss"] for entry in log(start) if "loss" in entry][:EPOCH])
    assert sum(losses[-EPOCH:]) < sum(losses[:EPOCH])
    record = json.loads((whole / "run.json").read_text())
    assert record["settings"]["adapter"].startswith(start.name)
    assert record["notes"]["recipe"]["model"] == str(trained)
    assert start.name in (whole / "README.md").read_text(encoding="utf-8")
    assert answers(whole, data, 1, None) != answers(start, data, 1, None)

    # Killed in the middle, it ends alike.
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(whole / "run.json", cut)
    shutil.copytree(whole / f"checkpoint-{HALF}", cut / f"checkpoint-{HALF}")
    fit(output_dir=cut, **changes)
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(cut)[name], atol=1e-4), name


def test_an_adapter_of_another_method_is_not_gone_on_from(
    run_of: Trained, fit: Fit, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(PromptCBLUEError, match=r"method lora: .* is a P_TUNING adapter: say --method p-tuning"):
        fit(**settings("lora", run_of("p-tuning")))
    with pytest.raises(PromptCBLUEError, match="method full"):
        fit(**settings("full", run_of("lora")))
    with pytest.raises(PromptCBLUEError, match="fit_budget"):
        fit(**settings("lora", run_of("lora"), fit_budget=0.1))
    with pytest.raises(PromptCBLUEError, match="name the model"):
        fit(**settings("lora", trained, model=None, from_config={"model_type": "llama"}, adapter=str(run_of("lora"))))
    with pytest.raises(PromptCBLUEError, match="config cannot be read"):
        fit(**settings("lora", trained, adapter=str(trained)))
    other = tmp_path / "other"
    shutil.copytree(run_of("lora"), other, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    with pytest.raises(PromptCBLUEError, match="does not fit"):
        fit(**settings("lora", other))


def ranks(folder: Path) -> dict[str, list[bool]]:
    pattern: dict[str, list[bool]] = json.loads((folder / "adapter_config.json").read_text())["rank_pattern"]
    return pattern


def test_adalora_lowers_its_ranks_to_the_target_and_saves_those_that_stay(run_of: Trained) -> None:
    folder = run_of("adalora")
    kept = {name: sum(pattern) for name, pattern in ranks(folder).items()}
    assert len(kept) == 7
    assert sum(kept.values()) == 2 * len(kept)
    assert len(set(kept.values())) > 1  # by importance, and not the same for all
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["total_step"], config["tinit"], config["tfinal"]) == (STEPS, 1, 3)  # a tenth before, three after
    saved = {name: len(tensor) for name, tensor in weights(folder).items() if name.endswith("lora_A")}
    assert sorted(saved.values()) == sorted(kept.values())


def test_adaloras_orthogonality_is_in_the_loss_and_falls(run_of: Trained) -> None:
    terms = [entry["orthogonality"] for entry in log(run_of("adalora")) if "orthogonality" in entry]
    assert len(terms) == STEPS
    assert terms[-1] < terms[0]


def test_adaloras_loss_does_not_depend_on_how_a_step_is_cut_into_passes(fit: Fit, trained: Path) -> None:
    logs = [log(fit(**settings("adalora", trained, max_steps=3), per_device_train_batch_size=size)) for size in (4, 8)]
    cut, whole = ([entry["loss"] for entry in entries if "loss" in entry] for entries in logs)
    assert cut == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("method", ["adalora", "p-tuning", "p-tuning-v2"])
def test_sharded_training_is_refused_where_it_would_go_wrong(
    fit: Fit, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(PromptCBLUEError, match=f"{method} needs whole weights.* which FSDP cuts up"):
        # Before anything is loaded.
        fit(**settings(method, Path("no/such"), dataset="no/such"))
    from promptcblue_training.methods import check_sharding

    with pytest.raises(PromptCBLUEError, match="which DeepSpeed cuts up"):
        check_sharding("adalora", ["DeepSpeed"])
    check_sharding("lora", ["FSDP", "DeepSpeed"])


def test_the_pages_on_fine_tuning_say_what_is_refused() -> None:
    from promptcblue_metric.report.tables import markdown_table
    from promptcblue_training.memory import support

    head, *rows = support()
    docs = Path(__file__).parents[2] / "docs"
    assert markdown_table(head, rows) in (docs / "finetune.md").read_text(encoding="utf-8")
    words = {"yes": "可以", "refused": "拒绝"}
    chinese = [[words.get(cell, cell) for cell in row] for row in rows]
    page = (docs / "finetune.zh.md").read_text(encoding="utf-8")
    assert markdown_table(("方法", "单卡", *head[2:]), chinese) in page


def test_sizes_are_read_where_the_weights_lie_on_other_processes() -> None:
    """As ZeRO-3 leaves a model: empty parameters that remember their shapes."""
    import torch

    from promptcblue_training.methods import count_trainable, fit_to_budget, shape_of
    from promptcblue_training.recipe import Recipe

    for architecture in ("llama", "gpt2", "qwen2_moe"):
        whole, empty = tiny(architecture), tiny(architecture)
        for parameter in empty.parameters():
            parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()
            parameter.data = torch.empty(0)
        assert count_trainable(empty) == count_trainable(whole)
        for name, method in REGISTRY.items():
            if method.parameters:
                recipe = Recipe(model="x", method=name, fit_budget=0.5, virtual_tokens=5)
                assert shape_of(recipe, empty) == shape_of(recipe, whole)
                assert fit_to_budget(recipe, empty) == fit_to_budget(recipe, whole)


def test_a_checkpoint_that_training_cannot_go_on_from_is_named(
    run_of: Trained, fit: Fit, trained: Path, tmp_path: Path
) -> None:
    shutil.copy(run_of("p-tuning") / "run.json", tmp_path)
    shutil.copytree(run_of("p-tuning") / f"checkpoint-{HALF}", tmp_path / f"checkpoint-{HALF}")
    (tmp_path / f"checkpoint-{HALF}" / "adapter_training_state.pt").write_bytes(b"")
    with pytest.raises(PromptCBLUEError, match=r"adapter_training_state\.pt"):
        fit(output_dir=tmp_path, **settings("p-tuning", trained))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_target_modules": ["q_proj", "no_such"]}, r"no_such.*q_proj, k_proj.*down_proj"),
        ({"method": "adalora", "adalora_target_rank": 4}, "not below lora_rank 4"),
        ({"method": "adalora", "adalora_start": 0.5, "adalora_end": 0.5}, "below 1"),
        ({"fit_budget": 1e-9}, "allow more"),
        ({"fit_budget": 3}, "between 0 and 1"),
        ({"fit_budget": 0.1, "method": "full"}, "every weight"),
        ({"lora_rank": 0}, "1 or more"),
        ({"processes": 2}, "torchrun"),
        ({"method": "no-such"}, "p-tuning-v2"),
    ],
)
def test_what_no_method_can_work_with_is_refused(
    fit: Fit, trained: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptCBLUEError, match=message):
        fit(**{**settings("lora", trained), **changes})


def test_a_schedule_without_a_step_to_learn_from_is_refused(fit: Fit, trained: Path) -> None:
    with pytest.raises(PromptCBLUEError, match=r"of 1 step\(s\)"):
        fit(**settings("adalora", trained, max_steps=1))


def test_the_share_is_said_and_a_large_one_warned_of(
    fit: Fit, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(**settings("p-tuning", trained, max_steps=1))
    said = capsys.readouterr().out
    assert "trainable parameters: 14,"
    assert "warning:" in said
    assert "--fit_budget 0.01" in said
    assert "384 numbers are kept" in said
    fit(**settings("full", trained, max_steps=1))
    assert "warning:" not in capsys.readouterr().out


def test_a_budget_chooses_the_largest_adapter_that_keeps_to_it(
    fit: Fit, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fit("--fit-budget", "0.04", **settings("lora", trained, max_steps=1))
    said = capsys.readouterr().out
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 6)
    assert "lora_rank 3" in said
    assert "warning:" not in said


def test_prefixes_are_trained_without_gradient_checkpointing(
    fit: Fit, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method, off in (("p-tuning-v2", True), ("parallel-adapter", False)):
        fit(**settings(method, trained, max_steps=1, gradient_checkpointing=True))
        assert ("gradient_checkpointing is off" in capsys.readouterr().out) is off


_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
_PLAIN = {name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}
_FUSED = {"self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}
_SPLIT = {f"self_attn.{letter}_proj" for letter in "qkvo"}
#: Config of a tiny model of each architecture, and the matrices of its blocks.
ARCHITECTURES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "llama": (_LLAMA, _SPLIT | {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
    "qwen2": (_LLAMA, _SPLIT | {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
    "qwen3": ({**_LLAMA, "head_dim": 16}, _SPLIT | {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
    "qwen2_moe": (
        {**_LLAMA, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24, "num_experts": 4},
        _SPLIT | {f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")},
    ),
    "gpt2": (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3},
        {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
    ),
    "gpt_neox": (
        _PLAIN,
        {name.replace("self_attention", "attention") for name in _FUSED},
    ),
    "opt": (
        {**_PLAIN, "ffn_dim": 64, "word_embed_proj_dim": 16, "max_position_embeddings": 64, "init_std": 0.3},
        {f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")} | {"fc1", "fc2"},
    ),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}, _FUSED),
    "falcon": (_PLAIN, _FUSED),
}


def tiny(architecture: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, vocab_size=50, **ARCHITECTURES[architecture][0])
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_method_fits_every_architecture(architecture: str, tmp_path: Path) -> None:
    """Its layers are found, its parameters counted, it starts from the backbone, and padding changes nothing."""
    import torch
    from peft import PeftModel, get_peft_model

    from promptcblue_training.adapters import pad_before_prompt
    from promptcblue_training.adapters.blocks import linear_layers
    from promptcblue_training.methods import count_trainable, shape_of
    from promptcblue_training.recipe import Recipe

    found = {path.split(".0.", 1)[1] for path in linear_layers(tiny(architecture)) if ".0." in path}
    assert found == ARCHITECTURES[architecture][1]
    ids = torch.arange(3, 9)[None]
    reference = tiny(architecture)(ids).logits
    for name, method in REGISTRY.items():
        if method.parameters is None:
            continue
        backbone = tiny(architecture)
        size = backbone.num_parameters()
        recipe = Recipe(model="x", method=name, lora_rank=4, adapter_bottleneck=8, virtual_tokens=5, encoder_width=6)
        expected = method.parameters(recipe, shape_of(recipe, backbone))
        model = get_peft_model(backbone, method.config(recipe, backbone)).eval()
        assert count_trainable(model) == (expected, size), name
        if method.packs:
            assert torch.allclose(model(ids).logits, reference, atol=1e-5), name
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.5)
        changed = model(ids).logits
        assert not torch.allclose(changed[:, -ids.shape[1] :], reference, atol=1e-3), name
        model.save_pretrained(tmp_path / name)
        loaded = pad_before_prompt(PeftModel.from_pretrained(tiny(architecture), tmp_path / name)).eval()
        assert torch.allclose(loaded(ids).logits, changed, atol=1e-4), name
        check_padding(loaded, name)


def check_padding(model: Any, name: str) -> None:
    """Greedy answers to a padded batch are those to its prompts, and what a forward pass as in training says."""
    import torch

    prompts = [torch.arange(3, 3 + length) for length in (2, 7, 4)]
    new, width = 6, 7
    batch = torch.stack([torch.cat([ids.new_zeros(width - len(ids)), ids]) for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    together = model.generate(input_ids=batch, attention_mask=mask, **options)[:, width:]
    for ids, answer in zip(prompts, together, strict=True):
        alone = model.generate(input_ids=ids[None], attention_mask=torch.ones_like(ids[None]), **options)[0]
        assert alone[len(ids) :].tolist() == answer.tolist(), name
        logits = model(input_ids=alone[None]).logits[0, -new - 1 : -1]
        chosen = logits.gather(1, answer[:, None])[:, 0]
        banned = torch.tensor([model.generation_config.eos_token_id or 0])
        logits[:, banned[banned < logits.shape[1]]] = -torch.inf
        assert (logits.max(dim=1).values - chosen).max() < 1e-3, name


_HYBRID = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2, "head_dim": 8}
_LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}


@pytest.mark.parametrize(
    ("model_type", "config", "coefficient", "works"),
    [
        ("qwen3_moe", {**_EXPERTS, "num_experts": 4}, None, False),
        ("qwen3_moe", {**_EXPERTS, "num_experts": 4}, 0.0, True),
        (
            "deepseek_v3",
            {**_EXPERTS, **_LATENT, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
            None,
            False,
        ),
        ("qwen3_next", {**_EXPERTS, **_HYBRID, "num_hidden_layers": 4, "num_experts": 4}, None, False),
        ("gemma3_text", {"head_dim": 8}, None, True),
    ],
    ids=["experts", "experts without balancing", "latent attention", "hybrid", "plain"],
)
def test_a_backbone_that_p_tuning_v2_does_not_fit_is_refused_before_tokenising(
    fit: Fit, model_type: str, config: dict[str, Any], coefficient: float | None, works: bool
) -> None:
    sizes = {name: value for name, value in _LLAMA.items() if name != "pad_token_id"}
    changes = {
        "from_config": {**sizes, "max_position_embeddings": 512, **config, "model_type": model_type},
        "method": "p-tuning-v2",
        "virtual_tokens": 4,
        "max_steps": 1,
        "router_aux_loss_coef": coefficient,
    }
    if works:
        fit(**changes)
        return
    with pytest.raises(PromptCBLUEError, match=f"p-tuning-v2 does not work on this {model_type} model"):
        fit(**changes)


def test_experts_that_get_no_low_rank_matrices_are_counted() -> None:
    from promptcblue_training.adapters.blocks import count_experts

    assert count_experts(tiny("qwen2_moe")) == 2 * 4 * 2  # layers, experts, matrices of each
    assert count_experts(tiny("llama")) == 0


def chatglm_like() -> nn.Module:
    """Blocks deep inside, fused projections, and a head that is linear and no part of them."""
    from torch import nn

    def module(**children: nn.Module) -> nn.Module:
        whole = nn.Module()
        for name, child in children.items():
            whole.add_module(name, child)
        return whole

    def block() -> nn.Module:
        return module(
            input_layernorm=nn.LayerNorm(8),
            self_attention=module(query_key_value=nn.Linear(8, 12), dense=nn.Linear(8, 8)),
            mlp=module(dense_h_to_4h=nn.Linear(8, 64), dense_4h_to_h=nn.Linear(32, 8)),
        )

    encoder = module(layers=nn.ModuleList([block(), block()]), final_layernorm=nn.LayerNorm(8))
    return module(transformer=module(encoder=encoder, output_layer=nn.Linear(8, 99)))


def test_blocks_are_found_by_structure() -> None:
    from promptcblue_training.adapters.blocks import linear_layers, sublayers

    names = ("self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    blocks = [f"transformer.encoder.layers.{index}" for index in range(2)]
    assert list(linear_layers(chatglm_like())) == [f"{block}.{name}" for block in blocks for name in names]
    parts = [f"{block}.{part}" for block in blocks for part in ("self_attention", "mlp")]
    assert [part.exit for part in sublayers(chatglm_like())] == [part.entry for part in sublayers(chatglm_like())]
    assert [part.exit for part in sublayers(chatglm_like())] == parts


def test_a_model_without_attention_gets_no_parallel_adapter() -> None:
    from torch import nn

    from promptcblue_training.adapters.blocks import sublayers

    model = nn.Module()
    model.layers = nn.ModuleList([nn.ModuleDict({"mixer": nn.Linear(4, 4)})])
    with pytest.raises(PromptCBLUEError, match=r"layers\.0 .* has mixer"):
        sublayers(model)


def test_a_parallel_adapter_can_be_switched_off_and_taken_out_but_not_merged() -> None:
    import torch
    from peft import get_peft_model

    from promptcblue_training.adapters import ParallelAdapterConfig

    ids = torch.arange(3, 9)[None]
    reference = tiny("llama")(ids).logits
    model = get_peft_model(tiny("llama"), ParallelAdapterConfig(bottleneck=4, scale=2.0, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "parallel_" in name:
                parameter.fill_(0.05)
    assert not torch.allclose(model(ids).logits, reference, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, reference)
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(TypeError, match="cannot be merged"):
            merge()
    assert torch.equal(model.unload()(ids).logits, reference)


def test_a_parallel_adapter_is_what_the_paper_of_it_says() -> None:
    """Output + scale * up(relu(down(input))), beside attention and feed-forward."""
    import torch
    from peft import get_peft_model

    from promptcblue_training.adapters import ParallelAdapterConfig

    backbone = tiny("llama")
    part = backbone.model.layers[1].mlp
    model = get_peft_model(backbone, ParallelAdapterConfig(bottleneck=4, scale=2.0, task_type="CAUSAL_LM"))
    hidden = torch.randn(2, 3, 32)
    layer = model.base_model.model.model.layers[1].mlp
    adapter = layer.parallel_adapters["default"]
    torch.nn.init.normal_(adapter.up.weight)
    expected = part(hidden) + 2 * (torch.relu(hidden @ adapter.down.weight.T) @ adapter.up.weight.T)
    assert torch.allclose(layer(hidden), expected, atol=1e-5)


def test_a_parallel_adapter_on_a_bfloat16_backbone_is_trained_in_float32() -> None:
    import torch
    from peft import get_peft_model

    from promptcblue_training.adapters import ParallelAdapterConfig

    model = get_peft_model(tiny("opt").bfloat16(), ParallelAdapterConfig(bottleneck=4, task_type="CAUSAL_LM"))
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    model.train()
    ids = torch.arange(3, 9)[None]
    output = model(ids, labels=ids, use_cache=False)
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    moved = [bool(one.grad.abs().sum() > 0) for name, one in model.named_parameters() if name.endswith("up.weight")]
    assert moved == [True] * 4
    model.zero_grad()
    assert {str(one.device) for one in model.to("meta").parameters()} == {"meta"}


def test_sizes_that_the_paper_gives_keep_to_a_hundredth_of_a_7b_backbone() -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from promptcblue_training.methods import fit_to_budget, shape_of
    from promptcblue_training.recipe import Recipe

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama"))
    for name, method in REGISTRY.items():
        if method.parameters is None or method.size is None:
            continue
        recipe = Recipe(model="x", method=name)
        shape = shape_of(recipe, model)
        assert 0 < method.parameters(recipe, shape) <= 0.01 * model.num_parameters(), name
        fitted = fit_to_budget(Recipe(model="x", method=name, fit_budget=0.01), model)
        size = getattr(fitted, method.size)
        assert size >= getattr(recipe, method.size)
        larger = Recipe(model="x", method=name, **{method.size: size + 1})
        assert method.parameters(fitted, shape) <= 0.01 * model.num_parameters() < method.parameters(larger, shape)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_dora": True},
        {"lora_rslora": True},
        {"lora_plus_ratio": 16},
        {"lora_modules_to_save": ["embed_tokens"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_kinds_of_lora_train_count_their_parameters_and_go_on(
    fit: Fit, trained: Path, changes: dict[str, Any], tmp_path: Path, run_of: Trained
) -> None:
    from promptcblue_training.methods import shape_of
    from promptcblue_training.model import find_model, load_for_prediction
    from promptcblue_training.recipe import Recipe

    whole = fit(**settings("lora", trained, **changes))
    results = json.loads((whole / "train_results.json").read_text())
    recipe = Recipe(model=str(trained), method="lora", lora_rank=SMALL["lora"]["lora_rank"], **changes)
    import torch
    from transformers import AutoModelForCausalLM

    count = REGISTRY["lora"].parameters
    assert count
    shape = shape_of(recipe, AutoModelForCausalLM.from_pretrained(trained))
    assert results["trainable_parameters"] == count(recipe, shape)
    plain = weights(run_of("lora"))
    found = weights(whole)
    assert any(name not in plain or not torch.equal(tensor, plain[name]) for name, tensor in found.items())
    load_for_prediction(find_model(str(whole)), torch.float32)
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(whole / "run.json", cut)
    shutil.copytree(whole / f"checkpoint-{HALF}", cut / f"checkpoint-{HALF}")
    fit(output_dir=cut, **settings("lora", trained, **changes))
    for name, tensor in weights(cut).items():
        assert torch.allclose(tensor, found[name], atol=1e-5), name


def test_what_is_of_lora_alone_is_refused_elsewhere(fit: Fit, trained: Path) -> None:
    with pytest.raises(PromptCBLUEError, match="lora_dora is of method lora"):
        fit(**settings("adalora", trained, lora_dora=True))
    with pytest.raises(PromptCBLUEError, match="lm_head"):
        fit(**settings("lora", trained, lora_modules_to_save=["lm_head"]))
