"""A real chat model behind a real server answers the embedded sample zero-shot, through `--backend openai`.

`transformers serve` offers the model on this machine, `promptcblue-train evaluate` asks it, and both parsers read what
it wrote. The same model then answers without a server. Prints the scores, what became of the answers, how many were the
same both ways, and the first answers as they were; exits with 1 where a command fails or an answer is missing. A model
of 135M parameters that has hardly seen Chinese gets next to nothing right: what this shows is the road, not the score.

    pretrained/bin/python benchmarks/pretrained.py smollm2 smollm2      # the environment that pretrained.py names
    pretrained/bin/python benchmarks/chat_model.py smollm2 --samples 20
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

#: Tokens that an answer may have, and seconds the server may take to load the model.
_NEW_TOKENS, _START_SECONDS = 96, 600


def run(command: str, *arguments: str | Path, allowed: tuple[int, ...] = (0,)) -> None:
    """One of the project's commands; its own exit code 3 says that many answers were cut, which is no fault here."""
    done = subprocess.run([Path(sys.executable).with_name(command), *map(str, arguments)], check=False)
    if done.returncode not in allowed:
        sys.exit(f"{command} {arguments[0]} ended with exit code {done.returncode}")


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The base URL of a server that offers the model, which is stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    server = subprocess.Popen(
        [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("transformers serve did not start; are fastapi and uvicorn installed?")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def evaluate(model: Path, output: Path, options: argparse.Namespace, *backend: str) -> list[dict[str, str]]:
    """Greedy answers to the drawn samples, read by both parsers; the second time none is asked for again."""
    drawn = ("--dataset", "sample", "--limit", str(options.samples), "--seed", str(options.seed))
    limits = ("--decoding", "greedy", "--max-new-tokens", str(_NEW_TOKENS))
    started = time.perf_counter()
    for parser in ("strict", "lenient"):
        asked = ("--model", str(model), "--output", str(output), *drawn, *limits, *backend)
        run("promptcblue-train", "evaluate", *asked, "--parser", parser, allowed=(0, 3))
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    print(f"{len(rows)} answers in {time.perf_counter() - started:.0f} s, starts and scores included", flush=True)
    if len(rows) != options.samples or any(row.get("prediction") is None for row in rows):
        sys.exit(f"{output}: {options.samples} answers were asked for")
    return rows


def main() -> None:
    """Print both scores and both sets of answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a chat model")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep the predictions here; by default a temporary folder")
    options = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with TemporaryDirectory(prefix="promptcblue-chat-") as scratch:
        folder = options.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        over_http, local = folder / "served.jsonl", folder / "local.jsonl"
        with served(options.model) as url:
            backend = ("--backend", "openai", "--base-url", url, "--concurrency", "1", "--timeout", "900")
            answers = evaluate(options.model, over_http, options, *backend)
        without = evaluate(options.model, local, options)
        others = {(row["task_dataset"], row["sample_id"]): row["prediction"] for row in without}
        same = sum(row["prediction"] == others[row["task_dataset"], row["sample_id"]] for row in answers)
        print(f"{same} of {len(answers)} answers are the same without the server")
        print(Counter(row.get("finish_reason") for row in answers))
        for row in answers[:5]:
            print(f"{row['task_dataset']}: {row['prediction'][:120]!r}")


if __name__ == "__main__":
    main()
