"""A prediction run that is killed at any moment: what was written stays, and nothing comes twice."""

from __future__ import annotations

import json
from pathlib import Path

from ..conftest import Run, SampleRows
from .conftest import read_rows, write_rows

#: Runs `predict` with a quick backend in forks of one process, each of which it kills. No torch, so that a fork is
#: at work in no time.
KILLER = """
import os, random, signal, sys, time, types
import rich.progress  # so that no fork has to
from pathlib import Path
from promptcblue_training import backends
from promptcblue_training.backends import BackendSettings, Completion, Failure
from promptcblue_training.predict import predict
from promptcblue_metric.errors import PromptCBLUEError

class Quick:
    def identity(self): return {"backend": "quick"}
    def notes(self): return {}
    def summary(self): return []
    def least_limit(self, task): return 0
    def count_tokens(self, targets): return [len(target) for target in targets]
    def generate(self, requests):
        # Another seed for every attempt: with one for all of them, a request that fails first fails for ever.
        chance = random.Random(attempt)
        for request in requests:
            time.sleep(0.0004)
            if chance.random() < 0.03:
                yield Failure(request.index, "no luck")
            else:
                yield Completion(request.index, "答" * chance.randrange(3000), "stop", 1, 1)

module = types.ModuleType("quick")
module.load = lambda settings: Quick()
sys.modules["quick"] = module
backends.BACKENDS["quick"] = "quick"

def run():
    sys.stdout = open(os.devnull, "w")
    try:
        predict(sys.argv[1], "test", output, BackendSettings(model="none", name="quick"))
    except PromptCBLUEError as error:
        if "have no prediction yet" not in str(error):
            print(error, file=sys.stderr, flush=True)
            return 1
        return 2
    return 0

output, moments, safe, torn = Path(sys.argv[2]), random.Random(0), set(), 0
span = 0.2
for kill in range(50):
    attempt = kill
    child = os.fork()
    if not child:
        os._exit(run())
    if not kill:
        # How long a busy machine takes to begin.
        started = time.monotonic()
        while not (output.exists() and output.stat().st_size):
            time.sleep(0.002)
        span = max(span, 2 * (time.monotonic() - started))
    time.sleep(moments.uniform(0, span))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) != 1, kill
    content = output.read_bytes() if output.exists() else b""
    whole = content[:content.rfind(b"\\n") + 1].splitlines(keepends=True)
    torn += not content.endswith(b"\\n") and bool(content)
    assert safe <= set(whole), f"kill {kill} lost {len(safe - set(whole))} lines"
    safe = {line for line in whole if b'"error"' not in line}
assert safe
print("torn", torn, "written under fire", len(safe), flush=True)
stdout = sys.stdout
for attempt in range(50, 70):
    done = run()
    sys.stdout = stdout
    if done == 0:
        break
assert done == 0, done
assert safe <= set(output.read_bytes().splitlines(keepends=True))
"""


def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path: Path, sample_rows: SampleRows, run_python: Run) -> None:
    rows = sample_rows("test")
    many = [{**rows[number % len(rows)], "sample_id": f"test-{number}"} for number in range(4000)]
    dataset, output = write_rows(tmp_path / "many.json", many), tmp_path / "out" / "predictions.jsonl"
    result = run_python(KILLER, dataset, output)
    assert result.returncode == 0, result.stderr
    predicted = read_rows(output)
    assert len(predicted) == len(many)
    assert len({(row["task_dataset"], row["sample_id"]) for row in predicted}) == len(many)
    assert not any("error" in row for row in predicted)
    assert json.loads(Path(f"{output}.meta.json").read_text(encoding="utf-8"))["settings"]["split"] == "test"
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name, f"{output.name}.meta.json"]
