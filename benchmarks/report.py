"""How long the whole report takes, and how large its page is.

The rows are those of `score.py`. The time is that of the command as a user types it: start, reading, scores under both
protocols, intervals, both parsers, error analysis, charts and writing.

    python benchmarks/report.py [--rows 7656]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from score import write_rows

COMMAND = "from promptcblue_metric.cli.main import main; main()"


def main() -> None:
    """Print seconds and sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=7656, help="predictions in the report (default: %(default)s)")
    rows = parser.parse_args().rows
    with TemporaryDirectory() as folder:
        predictions, references, output = (Path(folder, name) for name in ("run.jsonl", "references.jsonl", "report"))
        write_rows(rows, predictions, references)
        arguments = ["report", str(predictions), "--references", str(references), "--output", str(output)]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, capture_output=True)
        wall = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = {path.name: path.stat().st_size for path in sorted(output.iterdir())}
    print(f"promptcblue-metric report, {rows} predictions, start and reading included:")
    print(f"  {wall:.1f} s, {used.ru_utime + used.ru_stime:.1f} s process time, {used.ru_maxrss / 1024:.0f} MiB peak")
    print("  " + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
