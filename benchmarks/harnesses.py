"""Whether other evaluation tools give the scores of ``promptcblue-metric score``, each in an environment of its own.

    python benchmarks/harnesses.py --tool inspect --folder /tmp/harnesses

makes a virtual environment in the folder, has the tool answer some embedded samples of every task with a tiny model
that has learnt them, scores what the tool has logged, and prints both numbers of every task and their difference. It
ends with 1 where one is over 1e-12. The tools and torch come from the package index; nothing is asked of a hub.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptcblue_metric.data.predictions import match
from promptcblue_metric.data.samples import Sample, load_samples
from promptcblue_metric.harness import plan, with_shots, write

ROOT = Path(__file__).parents[1]
#: What is asked for with every tool, so that all of them run the same model.
COMMON = ("torch==2.13.0", "accelerate", "uv")
#: The difference that two sums of the same numbers may have.
SAME = 1e-12

#: An answer of a tool: the task, the sample's id and the text.
Answers = Iterator[tuple[str, str, str]]


@dataclass(frozen=True)
class Case:
    """How a tool is installed, run and read.

    Attributes:
        packages: what is installed, with the bounds under which this version of the tool works.
        model: what stands for MODEL in its command.
        options: what its command needs beside, on a CPU.
        scores: its scores by task, and ``overall``, in the folder of its results.
        answers: the answers it has logged there.
        digits: how many digits of the overall score it keeps; None for all.
    """

    packages: tuple[str, ...]
    options: str
    scores: Callable[[Path], dict[str, float]]
    answers: Callable[[Path, list[Sample]], Answers]
    model: str = "{model}"
    digits: int | None = None


def only(folder: Path, pattern: str) -> Path:
    """The one file of that name."""
    (found,) = folder.rglob(pattern)
    return found


def read(path: Path) -> Any:
    """The JSON of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def matched(pattern: str) -> Callable[[Path, list[Sample]], Answers]:
    """Answers from a file a task in a form that ``promptcblue-metric`` reads."""

    def answers(results: Path, samples: list[Sample]) -> Answers:
        for task in dict.fromkeys(sample["task_dataset"] for sample in samples):
            asked = [sample for sample in samples if sample["task_dataset"] == task]
            for sample, prediction in match(only(results, pattern.format(task=task)), asked, allow_gold=True):
                assert prediction is not None, sample
                yield task, sample["sample_id"], prediction.text

    return answers


def lm_eval_scores(results: Path) -> dict[str, float]:
    """From its results file."""
    found = read(only(results, "results_*.json"))
    tasks = {name: values["score,none"] for name, values in found["results"].items()}
    return _by_task(tasks, "promptcblue_") | {"overall": found["groups"]["promptcblue"]["score,none"]}


def opencompass_scores(results: Path) -> dict[str, float]:
    """The tasks' from their results files, the mean from its summary."""
    tasks = {path.stem: read(path)["exact"] for path in results.glob("*/results/*/promptcblue_*.json")}
    lines = [line.split(",") for line in only(results, "summary_*.csv").read_text(encoding="utf-8").splitlines()]
    (overall,) = [float(line[-1]) / 100 for line in lines if line[0] == "promptcblue"]
    return _by_task(tasks, "promptcblue_") | {"overall": overall}


def evalscope_scores(results: Path) -> dict[str, float]:
    """From its report, which rounds all but what the adapter adds."""
    (metric,) = read(only(results, "promptcblue.json"))["metrics"]
    subsets = metric["categories"][0]["subsets"]
    return {each["name"]: each["metadata"]["exact"] for each in subsets} | {"overall": metric["macro_score"]}


def inspect_scores(results: Path) -> dict[str, float]:
    """From its log."""
    (scorer,) = read(only(results, "*.json"))["results"]["scores"]
    return {name: metric["value"] for name, metric in scorer["metrics"].items()}


def inspect_answers(results: Path, samples: list[Sample]) -> Answers:
    """From its log."""
    for logged in read(only(results, "*.json"))["samples"]:
        task, _, sample_id = logged["id"].partition("/")
        yield task, sample_id, logged["output"]["choices"][0]["message"]["content"]


def lighteval_scores(results: Path) -> dict[str, float]:
    """From its results file."""
    found = read(only(results / "results", "results_*.json"))["results"]
    tasks = {name.split("|")[0]: values["score"] for name, values in found.items() if name.startswith("promptcblue:")}
    overall = tasks.pop("promptcblue:_average")
    return _by_task(tasks, "promptcblue:") | {"overall": overall}


def lighteval_answers(results: Path, samples: list[Sample]) -> Answers:
    """From its details."""
    import pyarrow.parquet as pq

    for path in sorted((results / "details").rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            sample = row["doc"]["specific"]
            yield sample["task_dataset"], sample["sample_id"], row["model_response"]["text"][0]


def _by_task(scores: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in scores.items() if name.startswith(prefix)}


CASES: Mapping[str, Case] = {
    "lm-eval": Case(
        ("lm-eval[hf]==0.4.13",),
        "--device cpu --batch_size 8",
        lm_eval_scores,
        matched("samples_promptcblue_{task}_*.jsonl"),
    ),
    "opencompass": Case(
        # It pins numpy below 2, which newer releases of pyarrow refuse, and calls what transformers 5 has not.
        ("opencompass==0.5.4", "transformers<5", "pyarrow<22"),
        "--hf-type base --hf-num-gpus 0 --batch-size 8 --max-seq-len 2048 --model-kwargs device_map=cpu --debug",
        opencompass_scores,
        matched("predictions/**/promptcblue_{task}.json"),
        digits=4,
    ),
    "evalscope": Case(
        ("evalscope==1.14.1", "transformers"),
        "--model-args device_map=cpu,precision=float32",
        evalscope_scores,
        matched("predictions/**/promptcblue_{task}.jsonl"),
        digits=4,
    ),
    "inspect": Case(
        ("inspect-ai==0.3.285", "transformers"),
        "-M device=cpu --log-format json --display plain",
        inspect_scores,
        inspect_answers,
    ),
    "lighteval": Case(
        # It calls the Hub's client as it was before 1.0, and hashes texts as xxhash did before 4.
        ("lighteval==0.13.0", "transformers<5", "huggingface_hub<1", "datasets<4.5", "xxhash<4"),
        "",
        lighteval_scores,
        lighteval_answers,
        model="{model},dtype=float32,batch_size=8",
    ),
}


def environment(tool: str, folder: Path) -> Path:
    """A virtual environment with the tool and this project in it; its folder of programs."""
    programs = folder / "bin"
    links = [part for link in os.environ.get("PIP_FIND_LINKS", "").split() for part in ("--find-links", link)]
    install = [str(programs / "uv"), "pip", "install", "--quiet", "--python", str(programs / "python"), *links]
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        subprocess.run([*install, *COMMON, *CASES[tool].packages, str(ROOT)], check=True)
        if tool == "lighteval":
            # At every start it fetches this file of one of its own tasks from GitHub, unless it is there.
            only(folder, "tiny_benchmarks.py").with_name("tinyBenchmarks.pkl").touch()
        (folder / "ready").touch()
    subprocess.run([*install, "--no-deps", "--reinstall-package", "promptcblue", str(ROOT)], check=True)
    return programs


def learnt_model(folder: Path) -> Path:
    """The demo's model, which has learnt the embedded train split, in a form that any release of transformers reads."""
    if not (folder / "ready").exists():
        trained = folder.with_name("training")
        command = [sys.executable, "-m", "promptcblue_training.sft", "demo"]
        subprocess.run([*command, "--dataset", "sample", "--output_dir", trained], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("*config.json", "*.safetensors", "tokenizer*"):
            for path in trained.glob(pattern):
                shutil.copy(path, folder)
        fields = read(folder / "tokenizer_config.json")
        fields |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
        # The prompt alone, for the tools that speak to every model in turns.
        fields["chat_template"] = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
        (folder / "tokenizer_config.json").write_text(json.dumps(fields), encoding="utf-8")
        (folder / "ready").touch()
    return folder


def dataset(folder: Path, count: int) -> Path:
    """A folder with so many samples of every task that the model has learnt, and as many that it has not, to ask, and
    others to show.
    """
    parts: dict[str, list[Sample]] = {"test": [], "train": []}
    for split in ("train", "test"):
        asked: Counter[str] = Counter()
        for sample in load_samples("sample", split):
            asked[sample["task_dataset"]] += 1
            parts["test" if asked[sample["task_dataset"]] <= count else "train"].append(sample)
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples in parts.items():
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
        (folder / f"{split}.json").write_text("".join(lines), encoding="utf-8")
    return folder


def rescored(answers: Answers, references: Path, folder: Path, options: list[str]) -> dict[str, float]:
    """What ``promptcblue-metric score`` says of the answers."""
    names = ("task_dataset", "sample_id", "prediction")
    rows = [json.dumps(dict(zip(names, answer, strict=True)), ensure_ascii=False) + "\n" for answer in answers]
    predictions, output = folder / "predictions.jsonl", folder / "scores.json"
    predictions.write_text("".join(rows), encoding="utf-8")
    program = "from promptcblue_metric.cli.main import main; main()"
    command: list[str | Path] = [sys.executable, "-c", program, "score", predictions]
    command += ["--references", references, "--split", "test", "--json", output, *options]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    found = read(output)
    return {task: values["score"] for task, values in found["tasks"].items()} | {"overall": found["overall"]}


def main() -> int:
    """Run one tool; 1 where a number differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", required=True, choices=CASES)
    parser.add_argument("--folder", type=Path, default=Path("harnesses"), help="for environments, model and results")
    parser.add_argument("--samples", type=int, default=2, metavar="N", help="of every task, learnt and not")
    parser.add_argument("--shots", default="0", metavar="N|paper", help="demonstrations before each prompt (lm-eval)")
    parser.add_argument("--protocol", default="official")
    parser.add_argument("--parser", default="strict")
    given = parser.parse_args()
    case, folder = CASES[given.tool], given.folder.resolve()
    model = learnt_model(folder / "model")
    programs = environment(given.tool, folder / f"{given.tool}-environment")
    data, tasks = dataset(folder / "data", given.samples), folder / given.tool
    shutil.rmtree(tasks, ignore_errors=True)
    job = with_shots(plan(str(data), "test", None, given.protocol, given.parser), given.tool, given.shots)
    command = f"{write(given.tool, job, tasks)} {case.options}".replace("MODEL", case.model.format(model=model))
    settings = {"HF_HUB_OFFLINE": "1", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    print(command, flush=True)
    start = time.perf_counter()
    with (folder / f"{given.tool}.log").open("w", encoding="utf-8") as log:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, shell=True, cwd=tasks, env=inherited | settings, stdout=log, stderr=log)
    if done.returncode:
        print(f"the tool ended with {done.returncode}; see {log.name}")
        return 1
    found = case.scores(tasks / "results")
    options = ["--protocol", given.protocol, "--parser", given.parser]
    ours = rescored(case.answers(tasks / "results", load_samples(data, "test")), data, tasks, options)
    differs = found.keys() != ours.keys()
    print(f"{'':<14}{given.tool:>22}{'promptcblue-metric':>22}{'difference':>12}")
    for name, score in ours.items():
        exact = name != "overall" or case.digits is None
        difference = abs(found[name] - score)
        differs |= difference > (SAME if exact else 0.5001 * 10.0 ** -(case.digits or 0))
        rounded = "" if exact else f"  (the tool keeps {case.digits} digits)"
        print(f"{name:<14}{found[name]!r:>22}{score!r:>22}{difference:>12.1e}{rounded}")
    print(f"{len(ours)} numbers {'DIFFER' if differs else 'are equal'}; {time.perf_counter() - start:.0f} s")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
