"""How long a full build takes, beside writing the same rows with `datasets` from JSON to Parquet.

Raw corpora are generated to the real sizes (random characters, no meaning), the benchmark of Table 8 is built from
them in a process of its own, and then `datasets` loads the very rows from JSON Lines and writes them to Parquet, a
config at a time, also in a process of its own. Both times include the start of Python.

    python benchmarks/build.py [--workers 2] [--raw FOLDER]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openpyxl import Workbook

from promptcblue_metric.data.samples import load_samples
from promptcblue_metric.tasks import TASKS

#: Records of train and dev files.
RECORDS = {
    "CMeEE-V2": (15000, 5000),
    "CMeIE": (14339, 3585),
    "CHIP-CDEE": (1587, 384),
    "CHIP-CDN": (6000, 2000),
    "CHIP-CTC": (22962, 7682),
    "CHIP-STS": (16000, 4000),
    "KUAKE-QIC": (6931, 1955),
    "KUAKE-QTR": (24174, 2913),
    "KUAKE-QQR": (15000, 1600),
    "CHIP-MDCFNPC": (6000, 2000),
    "IMCS-V2": (2472, 833),
    "MedDG": (14864, 2000),
}
DOCUMENTS, QUERIES, TERMS = 1_000_000, (100_000, 1_000), 40_000

#: Runs the command and then prints the peak memory of its own process and of its largest child, in KiB.
COMMAND = """
import atexit, pathlib, resource, sys
from promptcblue_dataset.cli import main
if __name__ == "__main__":
    def report():
        peak = next(line for line in pathlib.Path("/proc/self/status").open() if line.startswith("VmHWM")).split()[1]
        print("PEAK", peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
    atexit.register(report)
    main()
"""
DATASETS = """
import os, pathlib, sys
from datasets import load_dataset
source, target = map(pathlib.Path, sys.argv[1:])
for config in sorted(source.iterdir()):
    files = {path.stem: str(path) for path in config.iterdir()}
    for split, rows in load_dataset("json", data_files=files, cache_dir=str(target / "cache")).items():
        rows.to_parquet(target / f"{config.name}-{split}.parquet")
"""

# Frequent first, as in any language.
CHARACTERS = [chr(0x4E00 + number) for number in range(3000)]
WEIGHTS = [1 / (rank + 10) for rank in range(3000)]


class Text:
    """Random text, cut from one long string."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = "".join(self.random.choices(CHARACTERS, WEIGHTS, k=2_000_000))

    def __call__(self, low: int, high: int) -> str:
        size = self.random.randint(low, high)
        start = self.random.randrange(len(self.store) - size)
        return self.store[start : start + size]


def entities(text: Text) -> dict[str, Any]:
    """A record of CMeEE-V2."""
    sentence = text(20, 90)
    starts = [text.random.randrange(len(sentence) - 8) for _ in range(5)]
    types = ("dis", "sym", "pro", "equ", "dru", "ite", "bod", "dep", "mic")
    spans = [(start, start + text.random.randint(1, 6)) for start in starts]
    return {
        "text": sentence,
        "entities": [
            {"start_idx": a, "end_idx": b, "type": text.random.choice(types), "entity": sentence[a : b + 1]}
            for a, b in spans
        ],
    }


def triples(text: Text) -> dict[str, Any]:
    """A record of CMeIE."""
    relations = [f"关系{number}" for number in range(44)]
    spo = [
        {"predicate": text.random.choice(relations), "subject": text(3, 8), "object": {"@value": text(3, 10)}}
        for _ in range(4)
    ]
    return {"text": text(60, 300), "spo_list": spo}


def events(text: Text) -> dict[str, Any]:
    """A record of CHIP-CDEE."""
    event = [
        {
            "core_name": text(2, 5),
            "tendency": text.random.choice(["", "否定"]),
            "character": [text(2, 6)],
            "anatomy_list": [],
        }
        for _ in range(6)
    ]
    return {"text": text(60, 200), "event": event}


def labelled(fields: dict[str, tuple[int, int]], labels: list[str]) -> Callable[[Text], dict[str, Any]]:
    """Make records: texts of some sizes and one of the labels."""
    return lambda text: {**{name: text(*size) for name, size in fields.items()}, "label": text.random.choice(labels)}


def findings(text: Text) -> dict[str, Any]:
    """A record of CHIP-MDCFNPC: dialogues of very different lengths with a finding in every third utterance or so."""
    turns: list[dict[str, Any]] = []
    mentions: list[str] = []
    for number in range(max(3, int(text.random.lognormvariate(3.38, 0.55)))):
        said, ner = text(8, 40), []
        if text.random.random() < 0.365:
            known = bool(mentions) and text.random.random() < 0.05
            mention = text.random.choice(mentions) if known else said[: text.random.randint(2, 6)]
            mentions.append(mention)
            attr = text.random.choices(("阳性", "阴性", "其他", "不标注"), (6, 2, 1, 3))[0]
            ner = [{"range": [0, len(mention)], "mention": mention, "name": mention, "attr": attr}]
        turns.append({"sentence_id": number + 1, "sender": ("患者", "医生")[number % 2], "text": said, "ner": ner})
    return {"dialog_info": turns}


def consultation(text: Text) -> dict[str, Any]:
    """A record of IMCS-V2."""
    acts = ["Request-Symptom", "Inform-Symptom", "Inform-Drug_Recommendation", "Diagnose", "Other"]
    turns = []
    for number in range(40):
        said = text(5, 40)
        symptom = number % 3 == 0
        tags = ["B-Symptom", "I-Symptom", *["O"] * (len(said) - 2)] if symptom else ["O"] * len(said)
        turns.append(
            {
                "sentence_id": str(number),
                "speaker": ("患者", "医生")[number % 2],
                "sentence": said,
                "dialogue_act": text.random.choice(acts),
                "BIO_label": " ".join(tags),
                "symptom_norm": [said[:2]] if symptom else [],
                "symptom_type": [text.random.choice("012")] if symptom else [],
            }
        )
    report = {section: text(5, 40) for section in ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")}
    return {"self-report": text(20, 60), "dialogue": turns, "report": [report, report]}


def doctor(text: Text) -> list[dict[str, Any]]:
    """A record of MedDG, in which either says several things in a row."""
    turns: list[dict[str, Any]] = []
    for run in range(max(2, int(text.random.lognormvariate(2.25, 0.6)))):
        said = 1 + sum(text.random.random() < 0.42 for _ in range(2))
        turns += [{"id": ("Patients", "Doctor")[run % 2], "Sentence": text(6, 30), "Symptom": []} for _ in range(said)]
    return turns


def generate(folder: Path) -> None:
    """Write raw corpora of the real sizes."""
    text = Text(0)
    terms = sorted({text(4, 14) for _ in range(TERMS)})
    makers: dict[str, Callable[[Text], Any]] = {
        "CMeEE-V2": entities,
        "CMeIE": triples,
        "CHIP-CDEE": events,
        "CHIP-CDN": lambda text: {"text": text(4, 20), "normalized_result": text.random.choice(terms)},
        "CHIP-CTC": labelled({"text": (10, 60)}, ["Disease", "Age", "Consent", "Multiple", "Therapy or Surgery"]),
        "CHIP-STS": labelled({"text1": (8, 30), "text2": (8, 30)}, ["0", "1"]),
        "KUAKE-QIC": labelled({"query": (6, 30)}, ["病情诊断", "治疗方案", "其他", "疾病表述"]),
        "KUAKE-QTR": labelled({"query": (6, 20), "title": (8, 30)}, ["0", "1", "2", "3"]),
        "KUAKE-QQR": labelled({"query1": (6, 20), "query2": (6, 20)}, ["-1", "0", "1", "2"]),
        "CHIP-MDCFNPC": findings,
        "IMCS-V2": consultation,
        "MedDG": doctor,
    }
    for corpus, make in makers.items():
        for split, count in zip(("train", "dev"), RECORDS[corpus], strict=True):
            records: Any = [make(text) for _ in range(count)]
            if corpus == "IMCS-V2":
                records = {str(number): record for number, record in enumerate(records)}
            (folder / f"{corpus}_{split}.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    schemas = "".join(json.dumps({"predicate": f"关系{number}"}, ensure_ascii=False) + "\n" for number in range(44))
    (folder / "53_schemas.json").write_text(schemas, encoding="utf-8")
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    for number, term in enumerate(terms):
        sheet.append([f"A{number % 100:02d}.{number // 100}", term])
    book.save(folder / "ICD-10.xlsx")
    with (folder / "corpus.tsv").open("w", encoding="utf-8") as stream:
        stream.writelines(f"{number}\t{text(40, 160)}\n" for number in range(DOCUMENTS))
    for split, count in zip(("train", "dev"), QUERIES, strict=True):
        lines = [f"{split}{number}\t{text(6, 25)}\n" for number in range(count)]
        (folder / f"KUAKE-IR_{split}_query.txt").write_text("".join(lines), encoding="utf-8")
        pairs = [f"{split}{number}\t{text.random.randrange(DOCUMENTS)}\n" for number in range(count)]
        (folder / f"KUAKE-IR_{split}.tsv").write_text("".join(pairs), encoding="utf-8")


def export(built: Path, folder: Path) -> int:
    """Write the built rows as JSON Lines, a folder a config and a file a split; how many there are."""
    rows = 0
    for config in TASKS:
        (folder / config).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            samples = load_samples(built, split, [config])
            lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            (folder / config / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
            rows += len(samples)
    return rows


def process_seconds() -> float:
    """Seconds that finished child processes have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print seconds, their ratio, and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="processes of the build (default: %(default)s)")
    parser.add_argument("--raw", type=Path, help="keep the generated corpora here, and use them if they are there")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        raw = arguments.raw or Path(scratch, "raw")
        if not raw.is_dir():
            raw.mkdir(parents=True)
            generate(raw)
        built = Path(scratch, "promptcblue")
        program = Path(scratch, "command.py")  # a file, since worker processes import the main module
        program.write_text(COMMAND, encoding="utf-8")
        command = [sys.executable, str(program), "build", str(raw), "--output", str(built), "--no-cache"]
        start, busy = time.perf_counter(), process_seconds()
        done = subprocess.run(
            [*command, "--workers", str(arguments.workers)], check=True, stderr=subprocess.PIPE, text=True
        )
        ours, our_work = time.perf_counter() - start, process_seconds() - busy
        own, child = map(int, done.stderr.split("PEAK")[1].split()[:2])
        rows = export(built, Path(scratch, "json"))
        Path(scratch, "parquet").mkdir()
        start, busy = time.perf_counter(), process_seconds()
        subprocess.run(
            [sys.executable, "-c", DATASETS, str(Path(scratch, "json")), str(Path(scratch, "parquet"))],
            check=True,
            capture_output=True,
        )
        theirs, their_work = time.perf_counter() - start, process_seconds() - busy
    workers = arguments.workers if arguments.workers > 1 else 0
    print(f"promptcblue-dataset build, {rows:,} rows, {arguments.workers} worker(s), start included:")
    peak = (own + workers * child) / 1024
    print(f"  {ours:.1f} s, {our_work:.1f} s process time, at most {peak:,.0f} MiB in all processes together")
    print("datasets, the same rows from JSON to Parquet, a config at a time, start included:")
    print(f"  {theirs:.1f} s, {their_work:.1f} s process time")
    print(f"the build takes {ours / theirs:.2f} times that, {our_work / their_work:.2f} times in process time")


if __name__ == "__main__":
    main()
