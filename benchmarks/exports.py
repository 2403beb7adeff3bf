"""What ``promptcblue-dataset export`` writes, read by the tools themselves, each in an environment of its own.

    python benchmarks/exports.py                       # every tool
    python benchmarks/exports.py axolotl --environments kept

The embedded sample is exported, loaded by the tool's own loader as its registration says, and tokenised by it where
that takes no model (LLaMA-Factory, axolotl). Each prompt has to be there once and whole, and what is learned has to be
the target and nothing else. uv installs the tools, which are large, as in `matrix.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from matrix import find_python, make_environment

from promptcblue_dataset.export import ToolName, export
from promptcblue_metric.data.samples import load_samples


class Tool(NamedTuple):
    """What to install, and a program that prints what it reads: by split, pairs of a prompt and what is learned."""

    requirement: str
    program: str


#: A tokenizer of characters with a chat template, for programs that tokenise; and how they part rows.
_TOKENIZER = """
import json, sys
from pathlib import Path
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

folder = Path(sys.argv[1])
rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
marks = ["<unk>", "<pad>", "<bos>", "<eos>", "<user>", "<assistant>"]
characters = sorted({*json.dumps(rows, ensure_ascii=False), *map(chr, range(32, 127)), *"\\n\\t\\r"})
made = Tokenizer(models.WordLevel({token: place for place, token in enumerate([*marks, *characters])}, "<unk>"))
made.pre_tokenizer = pre_tokenizers.Split(Regex("[\\\\s\\\\S]"), "isolated")
made.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=made, unk_token=marks[0], pad_token=marks[1], bos_token=marks[2], eos_token=marks[3],
    additional_special_tokens=marks[4:],
)
tokenizer.chat_template = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<eos>{% endfor %}"
)

def parted(row):
    ids, learned = row["input_ids"], [label for label in row["labels"] if label != -100]
    start = next(place for place, label in enumerate(row["labels"]) if label != -100)
    return [tokenizer.decode(ids[:start]), tokenizer.decode(learned)]
"""

TOOLS: Mapping[ToolName, Tool] = {
    "llama-factory": Tool(
        "llamafactory==0.9.5",
        _TOKENIZER
        + """
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import DataArguments, ModelArguments
from transformers import Seq2SeqTrainingArguments

names = {"dataset": "promptcblue_train", "eval_dataset": "promptcblue_validation"}
data = DataArguments(template="default", dataset_dir=str(folder), cutoff_len=100_000, overwrite_cache=True, **names)
training = Seq2SeqTrainingArguments(output_dir=str(folder / "out"), report_to="none", use_cpu=True)
template = get_template_and_fix_tokenizer(tokenizer, data)
model = ModelArguments(model_name_or_path="none")
read = get_dataset(template, model, data, training, "sft", tokenizer=tokenizer)
found = {"train": read["train_dataset"], "validation": read["eval_dataset"]}
print("\\n" + json.dumps({split: [parted(row) for row in rows] for split, rows in found.items()}))
""",
    ),
    "ms-swift": Tool(
        "ms-swift==4.6.0",
        """
import json, sys
from swift.dataset import load_dataset, register_dataset_info

register_dataset_info(f"{sys.argv[1]}/dataset_info.json")
found = {split: load_dataset([f"promptcblue_{split}"])[0] for split in ("train", "validation")}
roles = {tuple(each["role"] for each in row["messages"]) for rows in found.values() for row in rows}
assert roles == {("user", "assistant")}, roles
texts = {split: [[each["content"] for each in row["messages"]] for row in rows] for split, rows in found.items()}
print("\\n" + json.dumps(texts))
""",
    ),
    "axolotl": Tool(
        "axolotl==0.19.0",
        _TOKENIZER
        + """
import yaml
from axolotl.utils.data.sft import _load_and_process_single_dataset as load
from axolotl.utils.dict import DictDefault

settings = yaml.safe_load((folder / "datasets.yaml").read_text(encoding="utf-8"))
config = {"sequence_len": 100_000, "train_on_inputs": False, "chat_template": "tokenizer_default"}
found = {}
for split, key in (("train", "datasets"), ("validation", "test_datasets")):
    (entry,) = settings[key]
    rows, _ = load(DictDefault(entry), DictDefault({**config, "dataset_num_proc": 1}), tokenizer, "train", 42)
    found[split] = [parted(row) for row in rows]
print("\\n" + json.dumps(found))
""",
    ),
}


def check(name: ToolName, python: Path, folder: Path) -> str:
    """What came of one tool.

    Raises:
        RuntimeError: it cannot read what was exported, or reads something else.
    """
    export("sample", name, folder / "exported", overwrite=True)
    settings = {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [python, "-c", TOOLS[name].program, folder / "exported"]
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **settings}, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    counts = []
    for split, pairs in json.loads(done.stdout.splitlines()[-1]).items():
        samples = load_samples("sample", split)
        for sample, (prompt, learned) in zip(samples, pairs, strict=True):
            if prompt.count(sample["input"]) != 1 or learned.strip().removesuffix("<eos>") != sample["target"].strip():
                raise RuntimeError(f"{split}: sample {sample['sample_id']} is read as {prompt!r} and {learned!r}")
        counts.append(f"{len(samples)} {split}")
    return f"{' and '.join(counts)} samples read, each prompt once, each target as what is learned"


def main() -> None:
    """Check the tools that are asked for; exit with 1 if one of them reads something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--python", default="3.11", metavar="X.Y", help="the Python of their environments")
    parser.add_argument(
        "--environments", type=Path, metavar="DIR", help="keep the environments here, for the next time"
    )
    given = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for name, tool in TOOLS.items():
            if given.tools and name not in given.tools:
                continue
            try:
                python = find_python(given.python)
                if python is None:
                    raise RuntimeError(f"no Python {given.python} here")
                folder = Path(scratch) / name
                folder.mkdir()
                kept = given.environments or Path(scratch)
                interpreter = make_environment(kept / f"{name}-environment", python, tool.requirement)
                print(f"{tool.requirement}: {check(name, interpreter, folder)}", flush=True)
            except RuntimeError as error:
                failed = True
                print(f"{tool.requirement}: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
