"""How fast predictions are scored, beside the parts of the official scorer that can be run anywhere.

The official scorer computes ROUGE with rouge-chinese and label averages with scikit-learn. Both are timed here on
the same rows in the same run, after tokenising and parsing, so the official scorer's own time is longer than
theirs: the printed ratio is a lower bound. The rows are the embedded sample's, repeated and damaged (cut, garbled,
with lines dropped) to the size asked for.

    python benchmarks/score.py [--rows 7656]
    python benchmarks/score.py --rows 1000000 --command-only
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rouge_chinese import Rouge
from sklearn.metrics import classification_report

from promptcblue_metric import TASKS, Evaluation
from promptcblue_metric.answers import Label
from promptcblue_metric.data.samples import Sample, load_samples
from promptcblue_metric.scoring import PROTOCOLS, Protocol, basic_tokens

#: Runs the command and then prints the peak memory of its own process, in KiB.
COMMAND = """
import atexit, pathlib, sys
from promptcblue_metric.cli.main import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(*filter(lambda line: "VmHWM" in line, status.open()), file=sys.stderr))
main()
"""


def damaged(text: str, rng: random.Random) -> str:
    """An output a model might have written instead of ``text``."""
    lines = text.split("\n")
    return rng.choice(
        [
            text,
            text,
            text[: rng.randrange(len(text) + 1)],
            "\n".join(line for line in lines if rng.random() < 0.8),
            "".join(character for character in text if rng.random() < 0.95),
        ]
    )


def make_rows(count: int, seed: int = 0) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """``count`` references with a prediction each, the sixteen tasks in turn."""
    rng = random.Random(seed)
    by_task = defaultdict[str, list[Sample]](list)
    for row in load_samples("sample", "train"):
        by_task[row["task_dataset"]].append(row)
    for number in range(count):
        samples = by_task[list(TASKS)[number % len(TASKS)]]
        sample: dict[str, Any] = {**samples[number // len(TASKS) % len(samples)], "sample_id": f"sample-{number}"}
        yield sample, {"sample_id": sample["sample_id"], "prediction": damaged(str(sample["target"]), rng)}


def write_rows(count: int, predictions: Path, references: Path) -> None:
    """Write the rows that are scored."""
    with predictions.open("w", encoding="utf-8") as ours, references.open("w", encoding="utf-8") as theirs:
        for reference, prediction in make_rows(count):
            ours.write(json.dumps(prediction, ensure_ascii=False) + "\n")
            theirs.write(json.dumps(reference, ensure_ascii=False) + "\n")


def library_seconds(count: int) -> float:
    """Process time of rouge-chinese and scikit-learn on the generation and label tasks."""
    rouge, labels, texts = Rouge(), defaultdict[str, list[tuple[str, str]]](list), []
    for reference, prediction in make_rows(count):
        task = TASKS[reference["task_dataset"]]
        gold, predicted = reference["target"], prediction["prediction"]
        if task.scorer.metric == "ROUGE-L":
            texts.append(tuple(" ".join(basic_tokens(text)) or "无 。" for text in (predicted, gold)))
        elif isinstance(task.format, Label):
            labels[task.name].append((predicted.strip() or task.labels[0], gold))
    start = time.process_time()
    for predicted_tokens, gold_tokens in texts:
        rouge.get_scores(predicted_tokens, gold_tokens)
    for pairs in labels.values():
        predicted_labels, gold_labels = zip(*pairs, strict=True)
        classification_report(gold_labels, predicted_labels, output_dict=True, zero_division=0)
    return time.process_time() - start


def protocol_seconds(count: int, protocols: Sequence[Protocol]) -> float:
    """Process time of parsing and scoring in memory, with the scores of each of the protocols."""
    rows = list(make_rows(count))
    start = time.process_time()
    evaluation = Evaluation()
    for reference, prediction in rows:
        evaluation.add(prediction["prediction"], reference)
    for protocol in protocols:
        evaluation.result(protocol)
    return time.process_time() - start


def main() -> None:
    """Print seconds, rows a second, peak memory and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=7656, help="predictions to score (default: %(default)s)")
    parser.add_argument("--command-only", action="store_true", help="time the command and nothing beside it")
    arguments = parser.parse_args()
    rows = arguments.rows
    with TemporaryDirectory() as folder:
        predictions, references = (Path(folder, name) for name in ("predictions.jsonl", "references.jsonl"))
        write_rows(rows, predictions, references)
        command = [sys.executable, "-c", COMMAND, "score", str(predictions), "--references", str(references)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    peak = int(done.stderr.split("VmHWM:")[1].split()[0]) / 1024
    print(f"promptcblue-metric score, {rows} predictions, start and reading included:")
    print(f"  {wall:.2f} s, {rows / wall:,.0f} rows/s, {ours:.2f} s process time, {peak:.0f} MiB peak")
    if arguments.command_only:
        return
    libraries = library_seconds(rows)
    print("rouge-chinese and scikit-learn as the official scorer calls them, on the same rows, nothing else:")
    print(f"  {libraries:.2f} s process time: at least {libraries / ours:.1f} times ours")
    one, both = (protocol_seconds(rows, protocols) for protocols in (("official",), PROTOCOLS))
    print(f"both protocols: {both / one:.2f} times the time of the official one alone")


if __name__ == "__main__":
    main()
