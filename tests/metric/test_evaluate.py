"""The ``evaluate`` metric, loaded as users load it: from the folder, from a lone copy, and once installed."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT, Run, SampleRows

METRIC = ROOT / "promptcblue_metric"
#: Stands for a machine on which the project is not installed.
NOT_INSTALLED = "import sys; sys.modules['promptcblue_metric'] = None\n"


def printed(code: str, run_python: Run, *args: object, **options: Any) -> Any:
    """The JSON that a program prints last."""
    done = run_python(code, *args, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory, sample_rows: SampleRows) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(sample_rows("test"), ensure_ascii=False))
    return path


def test_the_folder_serves_every_use_of_a_metric(rows_file: Path, run_python: Run, tmp_path: Path) -> None:
    code = """
import json, sys
import datasets, evaluate
folder, rows = sys.argv[1], json.load(open(sys.argv[2]))
targets = [row["target"] for row in rows]
everything = evaluate.load(folder)
about = everything.info
out = {"about": [about.license, about.homepage, *about.codebase_urls, about.citation, about.inputs_description]}
out["lists"] = everything.compute(predictions=targets, references=rows)
out["lenient"] = everything.compute(predictions=targets, references=rows, protocol="paper", parser="lenient")
out["dataset"] = everything.compute(predictions=targets, references=datasets.Dataset.from_list(rows))
for start in range(0, len(rows), 20):
    everything.add_batch(predictions=targets[start:start + 20], references=rows[start:start + 20])
out["batches"] = everything.compute()
one = evaluate.load(folder, "CMeIE-V2")
of_one = [row for row in rows if row["task_dataset"] == "CMeIE"]
out["one"] = one.compute(predictions=["不知道"] * len(of_one), references=of_one)
for name, call in {
    "other task": lambda: one.compute(predictions=targets, references=rows),
    "unknown task": lambda: evaluate.load(folder, "CMeEE-V9"),
    "unknown option": lambda: everything.compute(predictions=targets, references=rows, protocols="paper"),
}.items():
    try:
        call()
    except Exception as error:
        out[name] = str(error)
print(json.dumps(out))
"""
    out = printed(code, run_python, METRIC, rows_file, cwd=tmp_path)
    repository = "https://github.com/promptcblue/promptcblue"
    assert out["about"][:3] == ["Apache-2.0", repository, repository]
    assert "arXiv:2310.14151" in out["about"][3]
    assert "predictions" in out["about"][4]
    assert out["lists"]["overall"] == pytest.approx(1.0, abs=1e-6)
    assert out["lists"] == out["dataset"] == out["batches"]
    assert len(out["lists"]["groups"]) == 5
    assert out["lenient"]["overall"] == pytest.approx(1.0, abs=1e-6)
    assert "|protocol:paper|parser:lenient|" in out["lenient"]["signature"]
    assert out["one"]["f1"] == 0
    assert out["one"]["well_formed"] == 0
    assert "tasks:CMeIE|" in out["one"]["signature"]
    assert "CMeIE alone" in out["other task"]
    assert "did you mean 'CMeEE-V2'" in out["unknown task"]
    assert "protocols" in out["unknown option"]


def test_two_processes_score_as_one(rows_file: Path, run_python: Run, tmp_path: Path) -> None:
    code = """
import json, multiprocessing, sys
folder, rows_file, cache = sys.argv[1:]

def work(rank, queue):
    import evaluate
    rows = json.load(open(rows_file))
    metric = evaluate.load(folder, num_process=2, process_id=rank, experiment_id="pair", cache_dir=cache)
    mine = rows[rank::2]
    metric.add_batch(predictions=[row["target"][:-1] for row in mine], references=mine)
    queue.put((rank, metric.compute()))

if __name__ == "__main__":
    import evaluate
    queue = multiprocessing.Queue()
    workers = [multiprocessing.Process(target=work, args=(rank, queue)) for rank in (0, 1)]
    [worker.start() for worker in workers]
    results = dict(queue.get(timeout=120) for _ in workers)
    [worker.join() for worker in workers]
    rows = json.load(open(rows_file))
    alone = evaluate.load(folder, cache_dir=cache)
    whole = alone.compute(predictions=[row["target"][:-1] for row in rows], references=rows)
    print(json.dumps([results[0], results[1], whole]))
"""
    first, second, whole = printed(code, run_python, METRIC, rows_file, tmp_path / "cache", cwd=tmp_path)
    assert second is None
    assert first["samples"] == whole["samples"]
    assert first["overall"] == pytest.approx(whole["overall"], abs=1e-12)


LOAD_AS_TYPED = """
import json, sys
import evaluate
metric = evaluate.load("promptcblue")
rows = json.load(open(sys.argv[1]))
print(json.dumps(metric.compute(predictions=[row["target"] for row in rows], references=rows)["overall"]))
"""


@pytest.mark.parametrize("rename", [False, True])
def test_the_folder_works_alone(rename: bool, rows_file: Path, run_python: Run, tmp_path: Path) -> None:
    copy = tmp_path / "promptcblue"
    shutil.copytree(METRIC, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if rename:
        # The metric's own file under the Hub's name, in place of the one that stands in for it.
        (copy / "promptcblue_metric.py").rename(copy / "promptcblue.py")
    score = printed(NOT_INSTALLED + LOAD_AS_TYPED, run_python, rows_file, cwd=tmp_path, HF_HOME=str(tmp_path / "home"))
    assert score == pytest.approx(1.0, abs=1e-6)


@pytest.fixture
def empty_hub() -> Iterator[str]:
    """A Hub on loopback that has nothing."""

    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_once_installed_it_loads_as_typed_from_any_folder(
    rows_file: Path, run_python: Run, tmp_path: Path, empty_hub: str
) -> None:
    home = {"HF_HOME": str(tmp_path / "home")}
    before = run_python(LOAD_AS_TYPED, rows_file, cwd=tmp_path, **home)
    assert before.returncode != 0
    command = "import sys; from promptcblue_metric.cli.main import main; main()"
    for _ in range(2):
        installed = run_python(command, "install", **home)
        assert installed.returncode == 0, installed.stderr
    online = {"HF_ENDPOINT": empty_hub, "HF_EVALUATE_OFFLINE": "0"}
    for options in ({}, online):
        score = printed(NOT_INSTALLED + LOAD_AS_TYPED, run_python, rows_file, cwd=tmp_path, **home, **options)
        assert score == pytest.approx(1.0, abs=1e-6)


def test_half_a_surrogate_pair_is_an_answer_like_any_other(rows_file: Path, run_python: Run) -> None:
    code = """
import json, sys
import evaluate
rows = [row for row in json.load(open(sys.argv[2])) if row["task_dataset"] in ("CHIP-STS", "MedDG")]
metric = evaluate.load(sys.argv[1])
texts = ("是\\ud83d的", "是\\ufffd的")
scores = [metric.compute(predictions=[text] * len(rows), references=rows)["tasks"] for text in texts]
metric.add(prediction="\\ud83d", reference=rows[0])
metric.compute()
print(json.dumps(scores))
"""
    one, two = printed(code, run_python, METRIC, rows_file)
    assert one == two
