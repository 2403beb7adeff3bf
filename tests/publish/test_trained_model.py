"""A trained model on the Hub, and all three pieces taken from there and used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.evaluation import Evaluation

from ..hub import Hub
from .conftest import Client, Done

REPO = "org/adapter"
_TRAIN = """
import json, sys
from pathlib import Path
from promptcblue_metric.data.samples import load_samples
from promptcblue_training.cli import main
from promptcblue_training.tiny import build_backbone
config, data = json.loads(sys.argv[1]), sys.argv[2]
samples = load_samples(data, "train")
build_backbone(config, [sample[field] for sample in samples for field in ("input", "target")], Path("backbone"), 0)
sys.argv = ["promptcblue-train", "sft", "recipe.yaml"]
try:
    main()
except SystemExit as stop:
    assert not stop.code

# What the published recipe says, read as the command reads it.
from dataclasses import asdict
from promptcblue_training.card import publication
from promptcblue_training.settings import parse_recipe
Path("published.yaml").write_bytes(publication(Path("lora"), "org/adapter").files["recipe.yaml"])
run, training = parse_recipe("published.yaml", ["--output_dir", "new", "--use_cpu", "true"])
read = {**training.to_dict(), **asdict(run), "batch": training.samples_a_step}
Path("read.json").write_text(json.dumps(read, default=str))
"""
_CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_RECIPE = {
    "method": "lora",
    "configs": ["CHIP-STS", "MedDG"],
    "lora_rank": 4,
    "lora_alpha": 8,
    "learning_rate": 0.05,
    "warmup_steps": 0,
    "batch_size": 4,
    "batch_tokens": 4096,
    "max_steps": 6,
    "max_length": 512,
    "eval_strategy": "no",
    "save_steps": 3,
    "logging_steps": 2,
    "gradient_checkpointing": False,
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def run_folder(machine: Client, sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished run that trained an adapter."""
    folder = tmp_path_factory.mktemp("train")
    recipe = {**_RECIPE, "dataset": str(sample_folder), "model": str(folder / "backbone")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "output_dir": str(folder / "lora")}))
    done = machine.python(_TRAIN, json.dumps(_CONFIG), sample_folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "lora"


@pytest.fixture
def scored(run_folder: Path, client: Client, sample_folder: Path, tmp_path: Path) -> Path:
    """The run's folder with scores in its card."""
    rows = [
        {"sample_id": sample["sample_id"], "prediction": sample["target"], "task_dataset": sample["task_dataset"]}
        for sample in load_samples(sample_folder, "test")
    ]
    predictions, scores = tmp_path / "predictions.jsonl", tmp_path / "scores.json"
    predictions.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    words = ("--references", sample_folder, "--split", "test", "--json", scores)
    assert client.run("promptcblue-metric", "score", predictions, *words).code == 0
    done = client.run("promptcblue-train", "card", "--model", run_folder, "--scores", scores, "--split", "test")
    assert done.code == 0, done.err
    return run_folder


def publish(client: Client, folder: Path, *words: object) -> Done:
    return client.run("promptcblue-train", "publish", "--model", folder, "--repo", REPO, *words)


def test_the_adapter_goes_with_what_is_needed_to_use_and_to_repeat_it(
    scored: Path, client: Client, hub: Hub, tmp_path: Path
) -> None:
    (scored / "predictions.jsonl").write_text("{}\n")
    (scored / "optimizer.pt").write_bytes(b"state")
    assert publish(client, scored, "--dry-run", tmp_path / "look").code == 0
    done = publish(client, scored)
    assert done.code == 0, done.err
    assert "backbone" in done.out
    files = hub.repos["model", REPO].files
    written = tmp_path / "look"
    assert {path.name: path.read_bytes() for path in written.iterdir()} == files
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    assert {"run.json", "recipe.yaml", "loss_curve.csv", "README.md"} <= set(files)
    assert not [path for path in files if path.endswith((".pt", ".bin", ".jsonl")) or "checkpoint-" in path]
    assert not [path for path in files if "/" in path]
    here = str(scored.parent.parent).encode()
    assert not [path for path, content in files.items() if here in content]
    assert publish(client, scored).code == 0
    assert len(hub.repos["model", REPO].commits) == 2


def test_the_card_has_scores_that_the_hub_reads(scored: Path, client: Client, hub: Hub) -> None:
    assert publish(client, scored).code == 0
    card = ModelCard(hub.repos["model", REPO].files["README.md"].decode())
    results = {result.dataset_config: result for result in card.data.eval_results or []}
    assert results["all"].metric_value == 1
    assert len(results) == 17
    assert card.data.library_name == "peft"
    index = card.data.to_dict()["model-index"]
    assert index[0]["results"][0]["dataset"]["split"] == "test"
    assert f'PeftModel.from_pretrained(model, "{REPO}")' in card.text
    assert "promptcblue-train sft" in card.text


def test_the_recipe_gives_the_same_run(run_folder: Path) -> None:
    settings = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["settings"]
    read = json.loads(run_folder.with_name("read.json").read_text())
    decisive = settings.keys() - {"samples", "model"}
    assert len(decisive) > 20
    assert {key: read[key] for key in decisive} == {key: settings[key] for key in decisive}


def test_an_unfinished_run_is_refused(run_folder: Path, client: Client, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(run_folder, folder)
    (folder / "train_results.json").unlink()
    refused = publish(client, folder)
    assert refused.code == 1
    assert "not finished" in refused.err
    (folder / "run.json").unlink()
    assert "run.json" in publish(client, folder).err
    shutil.copyfile(run_folder / "run.json", folder / "run.json")
    shutil.copyfile(run_folder / "train_results.json", folder / "train_results.json")
    (folder / "adapter_model.safetensors").unlink()
    assert "weights" in publish(client, folder).err
    assert not hub.requests


def test_a_card_without_scores_is_named(run_folder: Path, client: Client, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(run_folder, folder)
    (folder / "README.md").unlink()
    done = publish(client, folder)
    assert done.code == 0, done.err
    assert "promptcblue-train card" in done.out
    assert ModelCard(hub.repos["model", REPO].files["README.md"].decode()).data.library_name == "peft"


def test_a_model_of_its_own_goes_whole_and_takes_the_place_of_an_adapter(
    run_folder: Path, client: Client, hub: Hub, tmp_path: Path
) -> None:
    assert publish(client, run_folder).code == 0
    folder = tmp_path / "full"
    shutil.copytree(run_folder.with_name("backbone"), folder)
    for name in ("run.json", "train_results.json"):
        shutil.copyfile(run_folder / name, folder / name)
    # As a large model is saved.
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "backbone").mkdir()
    (folder / "backbone" / "model.safetensors").write_bytes(b"random weights")
    assert publish(client, folder).code == 1  # the tag is the adapter's
    done = publish(client, folder, "--tag", "v2")
    assert done.code == 0, done.err
    assert f"--model {REPO} " in done.out
    files = hub.repos["model", REPO].files
    assert {"config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"} <= set(files)
    assert not [path for path in files if path.startswith(("adapter", "backbone", "loss_curve"))]
    text = files["README.md"].decode()
    assert f'AutoModelForCausalLM.from_pretrained("{REPO}")' in text
    assert "PeftModel" not in text.partition("## How to use it")[2]


_USE = """
import contextlib, io, json, re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from datasets import load_dataset
from huggingface_hub import snapshot_download

found = {}
rows = load_dataset("org/promptcblue", "CMeEE-V2", split="test").to_list()
found["rows"] = rows
everything = load_dataset("org/promptcblue", split="test").to_list()
found["all"] = len(everything)
from promptcblue_metric.data.samples import load_samples
found["samples"] = load_samples("org/promptcblue", "test", ["CMeEE-V2"])
found["splits"] = {split: len(part) for split, part in load_dataset("org/promptcblue", "CMeEE-V2").items()}

# The bare name: of a folder here that was taken from the Hub.
snapshot_download("org/promptcblue", repo_type="dataset", local_dir="promptcblue")
found["bare"] = load_dataset("promptcblue", "CMeEE-V2", split="test").to_list()

card = Path("promptcblue", "README.md").read_text(encoding="utf-8")
example = "## Example\\n\\n```python\\n(.*?)```\\n\\nprints\\n\\n```text\\n(.*?)```"
code, printed = re.search(example, card, re.S).groups()
with contextlib.redirect_stdout(io.StringIO()) as out:
    exec(code, {})
found["example"] = out.getvalue() == printed

import evaluate
predictions = json.loads(Path("predictions.json").read_text(encoding="utf-8"))
for name in ("org/promptcblue", "promptcblue"):
    metric = evaluate.load(name)
    found[name] = metric.compute(predictions=predictions, references=everything)["overall"]
    found["file " + name] = sys.modules[type(metric).__module__].__file__
found["one"] = evaluate.load("org/promptcblue", "CMeEE-V2").compute(
    predictions=[row["target"] for row in rows], references=rows)["f1"]

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
backbone, local = sys.argv[1:]
texts, logits = [], []
for adapter in ("org/adapter", local):
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(backbone), adapter).eval()
    prompt = tokenizer(everything[0]["input"][:40], return_tensors="pt")
    with torch.no_grad():
        logits.append(model(**prompt).logits)
        texts.append(tokenizer.decode(model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]))
        with model.disable_adapter():
            found["adapts"] = not torch.allclose(model(**prompt).logits, logits[-1])
found["generated"] = texts
found["same"] = torch.equal(*logits)

# What `publish` names as the next command.
from promptcblue_training.cli import main
answers = []
for number, adapter in enumerate(("org/adapter", local)):
    output = f"answers-{number}.jsonl"
    sys.argv = ["promptcblue-train", "predict", "--model", backbone, "--adapter", adapter, "--output", output]
    sys.argv += ["--dataset", "org/promptcblue", "--split", "test", "--config", "CHIP-STS", "--max-new-tokens", "4"]
    try:
        main()
    except SystemExit as stop:
        assert stop.code in (None, 0, 3)  # most answers are cut, as four tokens cut them
    rows = [json.loads(line) for line in Path(output).read_text(encoding="utf-8").splitlines()]
    answers.append([row["prediction"] for row in rows])
found["answers"] = answers
Path("found.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
"""


@pytest.fixture
def everything(scored: Path, client: Client, hub: Hub, sample_folder: Path) -> Hub:
    """A Hub with all three."""
    for words in (
        ("promptcblue-dataset", "publish", sample_folder, "--repo", "org/promptcblue"),
        ("promptcblue-metric", "publish", "--repo", "org/promptcblue"),
        ("promptcblue-train", "publish", "--model", scored, "--repo", REPO),
        ("promptcblue-metric", "install"),
    ):
        done = client.run(*words)
        assert done.code == 0, done.err
    return hub


def test_all_three_are_published_and_used(
    everything: Hub, client: Client, scored: Path, sample_folder: Path, tmp_path: Path
) -> None:
    references: list[Any] = load_samples(sample_folder, "test")
    predictions = [sample["target"][: len(sample["target"]) // 2 + 1] for sample in references]
    expected = Evaluation()
    for prediction, sample in zip(predictions, references, strict=True):
        expected.add(prediction, sample)
    (tmp_path / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")
    done = client.python(_USE, scored.parent / "backbone", scored, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    wanted = [sample for sample in references if sample["task_dataset"] == "CMeEE-V2"]
    assert found["rows"] == found["samples"] == found["bare"] == wanted
    assert found["all"] == len(references)
    assert found["splits"]["test"] == len(wanted)
    assert found["example"]
    overall = expected.result()["overall"]
    assert 0 < overall < 1
    assert found["org/promptcblue"] == found["promptcblue"] == overall
    assert found["file org/promptcblue"] != found["file promptcblue"]
    assert found["one"] == 1
    assert found["adapts"]
    assert found["same"]
    assert found["generated"][0] == found["generated"][1]
    assert found["answers"][0] == found["answers"][1]
    assert len(found["answers"][0]) == sum(sample["task_dataset"] == "CHIP-STS" for sample in references)
    # The Hub was really asked for all of it.
    read = {request.path for request in everything.requests if request.status in (200, 206)}
    for path in ("/api/datasets/org/promptcblue", "/spaces/org/promptcblue/resolve", f"/{REPO}/resolve"):
        assert [one for one in read if one.startswith(path)], path


def test_the_dataset_card_says_what_the_hub_wants_to_know(everything: Hub, sample_folder: Path) -> None:
    content = everything.repos["dataset", "org/promptcblue"].files["README.md"].decode()
    card = DatasetCard(content)
    data = card.data.to_dict()
    assert {"language", "license", "pretty_name", "size_categories", "task_categories", "configs"} <= set(data)
    assert {config["config_name"] for config in data["configs"]} == {
        info["config_name"] for info in data["dataset_info"]
    }
    for heading in ("Statistics", "Example", "Corpora", "Citation", "Limits", "Source and licence"):
        assert f"\n## {heading}\n" in card.text
    named = set(re.findall(r'load_dataset\("([^"]+)"', card.text))
    assert named == {"org/promptcblue"}
    assert "put ORG" not in card.text
