"""Real results on ChineseBLUE: a fine-tuned model beside baselines, with intervals, and the published figures.

The raw corpora are imported, a model is fine-tuned on the train file of each task and predicts its test file. Without
--model it is a character Llama of about a million parameters with random weights, which fits a CPU and a few minutes;
with --model it is that backbone, on every corpus that has a train file. Baselines see the same files: the most frequent
label, and a logistic regression over character n-grams (of a pair: what its texts share and what they do not), its
strength chosen on the dev file. Intervals are 95% intervals over the test samples.

    python benchmarks/chineseblue.py RAW [--tasks cMedQQ,cMedIC] [--json results.json]
    python benchmarks/chineseblue.py RAW --model Qwen/Qwen2.5-0.5B --method full --epochs 3
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from rich import box
from rich.table import Table
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from promptcblue_dataset.build import build
from promptcblue_dataset.corpora.archives import raw_files
from promptcblue_dataset.corpora.chineseblue import CHINESEBLUE
from promptcblue_dataset.corpora.reading import Content
from promptcblue_dataset.making import Plan
from promptcblue_metric import REGISTRY, SUITES, Evaluation
from promptcblue_metric.answers import Label
from promptcblue_metric.cli.common import make_console, run
from promptcblue_metric.compare.published import published
from promptcblue_metric.compare.significance import counts_by_task, intervals
from promptcblue_metric.data.predictions import match
from promptcblue_metric.data.samples import Sample, load_samples
from promptcblue_metric.data.writing import write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.report.tables import further_scores, number
from promptcblue_metric.version import VERSION

#: What a few minutes on a CPU are spent on, and how often its train file is seen.
SMALL = {"cMedQQ": 1, "cMedIC": 4}
#: The model without --model.
SCRATCH: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
}
#: Inverse strengths of the regression's regularisation that are tried on the dev file.
STRENGTHS = (0.3, 1.0, 3.0, 10.0)

#: Raw contents by split, in the order of the dataset's rows.
Contents = Mapping[str, Sequence[Content]]


def score(predictions: Iterable[str], samples: Sequence[Sample]) -> dict[str, Any]:
    """Scores of one task with their interval."""
    evaluation = Evaluation()
    scored = [evaluation.add(text, sample) for text, sample in zip(predictions, samples, strict=True)]
    ((task, result),) = evaluation.result()["tasks"].items()
    return {**result, "interval": list(intervals(counts_by_task(scored))[task])}


def contents(raw: Path, task: str) -> Contents:
    """What the raw files of a task hold."""
    corpus = CHINESEBLUE[task]
    with raw_files(raw) as files:
        found = corpus.read(corpus.find(files)).splits.get(task, {})
        return {split: [sample for group in read.groups for sample in group.samples] for split, read in found.items()}


def written(task: str, labels: Iterable[str], samples: Sequence[Sample]) -> list[str]:
    """Labels as the prompts offer them."""
    form = REGISTRY[task].format
    return [form.render(label, row["answer_choices"] or ()) for label, row in zip(labels, samples, strict=True)]


def majority(task: str, raw: Contents, samples: Sequence[Sample]) -> dict[str, Any]:
    """The most frequent label of the train file, whatever the text."""
    ((label, _),) = Counter(content.answer for content in raw["train"]).most_common(1)
    return score(written(task, [label] * len(samples), samples), samples)


class Features:
    """Character n-grams of one text; of two, those that only one has, those that both have, and their cosine."""

    def __init__(self, train: Sequence[Content]) -> None:
        self._vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
        self._vectorizer.fit([text for content in train for text in content.fields.values()])

    def __call__(self, found: Sequence[Content]) -> Any:
        columns = list(zip(*(content.fields.values() for content in found), strict=True))
        first, *others = (self._vectorizer.transform(column) for column in columns)
        if not others:
            return first
        shared = first.multiply(others[0])
        return hstack([abs(first - others[0]), shared, csr_matrix(shared.sum(axis=1))]).tocsr()


def regression(
    task: str, raw: Contents, validation: Sequence[Sample], samples: Sequence[Sample], seed: int
) -> dict[str, Any]:
    """A logistic regression over character n-grams."""
    features = Features(raw["train"])
    train, answers = features(raw["train"]), [content.answer for content in raw["train"]]
    models = [
        LogisticRegression(C=strength, max_iter=300, random_state=seed).fit(train, answers) for strength in STRENGTHS
    ]
    dev, test = features(raw["validation"]), features(raw["test"])
    scores = [score(written(task, model.predict(dev), validation), validation)["score"] for model in models]
    best = models[int(np.argmax(scores))]
    return {**score(written(task, best.predict(test), samples), samples), "strength": best.C}


def fine_tuned(task: str, dataset: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune on the train file of a task and predict its test file, by the project's own commands."""
    model: dict[str, Any] = {"from_config": dict(SCRATCH)}
    learning: dict[str, Any] = {"method": "full", "learning_rate": 3e-3, "batch_size": 32}
    if options.model:
        model = {"model": options.model}
        learning = {
            "method": options.method,
            "batch_size": 32,
            "learning_rate": 2e-5 if options.method == "full" else 3e-4,
        }
    recipe = {
        **model,
        **learning,
        "dataset": str(dataset),
        "configs": [task],
        "output_dir": str(folder / task),
        "num_train_epochs": options.epochs or SMALL.get(task, 3),
        "per_device_train_batch_size": 32 if not options.model else 8,
        "max_length": 1024,
        "warmup_steps": 50,
        "gradient_checkpointing": options.checkpointing,
        "dtype": options.dtype,
        "eval_strategy": "no",
        "checkpoint_choice": "last",
        "logging_steps": 50,
        "seed": options.seed,
    }
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    output = folder / f"{task}.jsonl"
    started = time.perf_counter()
    command(["-m", "promptcblue_training.sft", str(path)])
    trained = time.perf_counter() - started
    program = "import sys; from promptcblue_training.cli import main; main()"
    where = ["--model", str(folder / task), "--dataset", str(dataset), "--config", task, "--output", str(output)]
    command(["-c", program, "predict", *where])
    seconds = {"train_seconds": trained, "predict_seconds": time.perf_counter() - started - trained}
    pairs = match(output, load_samples(dataset, "test", [task]))
    found = [(prediction.text if prediction else "", sample) for sample, prediction in pairs]
    return {**score(*zip(*found, strict=True)), **seconds}


def command(arguments: Sequence[str]) -> None:
    """Run Python with its output on stderr, so that standard output holds the table alone."""
    done = subprocess.run([sys.executable, *arguments], stdout=sys.stderr, check=False)
    if done.returncode:
        raise PromptCBLUEError(f"python {' '.join(arguments[:3])} … failed with exit code {done.returncode}")


def results(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Scores by system and task."""
    name = options.model or "character Llama, 1M, from scratch"
    systems: dict[str, dict[str, Any]] = {"most frequent label": {}, "character n-gram regression": {}, name: {}}
    with TemporaryDirectory(prefix="promptcblue-benchmark-") as scratch:
        folder = Path(options.work or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        plan = Plan(dict.fromkeys(SUITES["chineseblue"].tasks), skip_bad=True)
        imported = build(options.raw, folder / "dataset", plan, cache=False)
        trainable = {file.task for file in imported.files if file.notes and file.split == "train"}
        default = [task for task in SUITES["chineseblue"].tasks if task in (trainable if options.model else SMALL)]
        tasks = options.tasks.split(",") if options.tasks else default
        if unknown := [task for task in tasks if task not in trainable]:
            raise PromptCBLUEError(f"{', '.join(unknown)}: no train file in {options.raw}")
        for task in tasks:
            rows = {split: load_samples(imported.output, split, [task]) for split in ("validation", "test")}
            if isinstance(REGISTRY[task].format, Label):
                raw = contents(options.raw, task)
                systems["most frequent label"][task] = majority(task, raw, rows["test"])
                found = regression(task, raw, rows["validation"], rows["test"], options.seed)
                systems["character n-gram regression"][task] = found
            systems[name][task] = fine_tuned(task, imported.output, folder, options)
    return systems


def table(systems: Mapping[str, Mapping[str, Any]]) -> Table:
    """Systems down, tasks across; published ones at the end."""
    tasks = list(dict.fromkeys(task for found in systems.values() for task in found))
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("system")
    for task in tasks:
        shown.add_column(f"{task} ({REGISTRY[task].scorer.metric})", justify="right", no_wrap=True)
    for place, (name, found) in enumerate(systems.items(), 1):
        cells = [cell(found[task]) if task in found else "" for task in tasks]
        shown.add_row(name, *cells, end_section=place == len(systems))
    for system in published(SUITES["chineseblue"]):
        shown.add_row(f"{system.system} (published)", *(number(system.scores[task]) for task in tasks))
    return shown


def cell(result: Mapping[str, Any]) -> str:
    """A score and its interval."""
    low, high = result["interval"]
    return f"{number(result['score'])} [{number(low)} … {number(high)}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="folder with the raw corpora of ChineseBLUE")
    parser.add_argument("--tasks", help="tasks with a train file, separated by commas")
    parser.add_argument("--model", help="backbone to fine-tune: a folder or a Hub id")
    parser.add_argument("--method", default="full", help="how to fine-tune the backbone: full, lora …")
    parser.add_argument("--checkpointing", action="store_true", help="less memory, a third more time")
    parser.add_argument("--dtype", default="auto", help="number format of the backbone: auto, float32, bfloat16 …")
    parser.add_argument("--epochs", type=float, help="times the train file is seen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help="folder for dataset, models and predictions; by default a temporary one")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args()
    started = time.perf_counter()
    systems = results(options)
    console = make_console()
    console.print(table(systems))
    for name, found in systems.items():
        for task, result in found.items():
            scores = ", ".join(
                f"{key} {number(value)}" for key, value in further_scores(task, result["scores"]).items()
            )
            counted = f"{result['samples']} samples, {result['well_formed']:.1%} well-formed"
            console.print(f"{name}, {task}: {scores}; {counted}", markup=False, highlight=False)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
    if options.json:
        others = {system.system: dict(system.scores) for system in published(SUITES["chineseblue"])}
        write_json(options.json, {"version": VERSION, "systems": systems, "published": others})


if __name__ == "__main__":
    run(main)
