"""A suite that somebody else registers, in reports and comparisons: nothing is known of it but its records."""

from __future__ import annotations

import json
from pathlib import Path

from ...conftest import Run

CODE = """
from dataclasses import dataclass
from promptcblue_metric.answers import EntityLines, FreeText
from promptcblue_metric.scoring import MeanRouge, Scorer, SetF1
from promptcblue_metric.tasks import PROMPTCBLUE, GROUPS, Suite, Task, register
class OtherLines(EntityLines):
    "A format of its own, which no analyzer was made for."
class Exact(Scorer):
    "A score that nothing here knows."
    primary = metric = "accuracy"
    def count(self, prediction, gold, row=None): return {"n": 1, "right": prediction == gold}
    def score(self, totals, protocol="official"): return {"accuracy": totals.get("right", 0) / totals["n"]}
    def summary(self, totals): return dict(totals)
def task(name, form, scorer, group):
    return Task(name, "made-up", group, form, scorer, (0, 0, 0), labels=("甲", "乙"))
register(Suite("other", "Other"), task("Things", OtherLines(), SetF1(), GROUPS[0]),
         task("Words", FreeText(), MeanRouge(), GROUPS[4]),
         task("Whole", FreeText(), Exact(), GROUPS[1]))
register(PROMPTCBLUE, task("CHIP-NEW", EntityLines(), SetF1(), GROUPS[0]))
from promptcblue_metric.cli.main import main
main()
"""


def written(path: Path, tasks: list[str], *, wrong: bool) -> Path:
    target = "上述句子中的实体包含：\n甲实体：肺炎，哮喘\n乙实体："
    rows = [
        {
            "input": "问",
            "target": target,
            "answer_choices": ["甲", "乙"],
            "sample_id": f"{number}",
            "task_type": "made-up",
            "task_dataset": task,
            **({"prediction": target.replace("哮喘", "感冒") if number % 2 else target} if wrong else {}),
        }
        for task in tasks
        for number in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_unknown_suite_is_reported_and_compared(run_python: Run, tmp_path: Path) -> None:
    tasks = ["Things", "Words", "Whole"]
    references = written(tmp_path / "refs.jsonl", tasks, wrong=False)
    run, again = (written(tmp_path / name, tasks, wrong=True) for name in ("run.jsonl", "again.jsonl"))
    done = run_python(CODE, "report", run, again, "--references", references, "--output", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert list(values["tasks"]) == tasks
    kinds = {row["kind"]: row["n"] for row in values["tasks"]["Things"]["outcomes"]}
    assert kinds == {"correct": 9, "spurious": 3, "missed": 3}
    whole = {row["kind"]: row["n"] for row in values["tasks"]["Whole"]["outcomes"]}
    assert whole == {"correct": 3, "wrong answer": 3}
    assert len(values["tasks"]["Whole"]["examples"]) == 3
    assert "<title>Other report</title>" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    done = run_python(CODE, "compare", run, again, "--published", "--references", references)
    assert done.returncode == 0, done.stderr
    assert "No results of Other are known here, only those of PromptCBLUE and ChineseBLUE." in done.stdout


def test_a_task_without_published_scores_is_named(run_python: Run, tmp_path: Path) -> None:
    references = written(tmp_path / "refs.jsonl", ["CHIP-NEW"], wrong=False)
    run = written(tmp_path / "run.jsonl", ["CHIP-NEW"], wrong=True)
    done = run_python(CODE, "compare", run, "--published", "--references", references)
    assert done.returncode == 0, done.stderr
    assert "None are known of CHIP-NEW." in done.stdout
    assert "GPT-4" in done.stdout
