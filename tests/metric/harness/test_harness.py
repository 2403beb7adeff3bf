"""What other evaluation tools are handed: lm-evaluation-harness runs here, the others in benchmarks/harnesses.py."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from promptcblue_metric import Evaluation
from promptcblue_metric.cli.main import app
from promptcblue_metric.compare.published import DEMONSTRATIONS
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.harness import TOOLS, Job, plan, with_shots, write
from promptcblue_metric.tasks import CHINESEBLUE, CHIP2023, TASKS, Suite

from ...conftest import ROOT, Run, SampleRows
from ..test_chineseblue import one_of_each
from ..test_cli import COMMAND

#: How many samples are asked of tasks of four kinds of answers: unequal, so that the mean is seen to be plain.
ASKED = {"CHIP-STS": 4, "KUAKE-QIC": 3, "CMeEE-V2": 2, "MedDG": 1}
SAMPLE = ROOT / "promptcblue_dataset" / "sample"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, sample_rows: SampleRows) -> Path:
    """Samples to ask, and others of the same tasks to show."""
    folder, parts = tmp_path_factory.mktemp("dataset"), defaultdict[str, list[dict[str, Any]]](list)
    counts = dict.fromkeys(ASKED, 0)
    for row in sample_rows("train"):
        if (task := row["task_dataset"]) in counts:
            counts[task] += 1
            parts["test" if counts[task] <= ASKED[task] else "train"].append(row)
    for split, rows in parts.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.json").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one layer that has half learnt the answers, so that it has scores between none and all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from promptcblue_training.recipe import find_recipe, read_recipe
    from promptcblue_training.tiny import build_backbone

    samples = [sample for task in ASKED for sample in plan(str(dataset), "test").samples(task)]
    texts = [sample["input"][-60:] + sample["target"] for sample in samples]
    demo = read_recipe(find_recipe("demo"))["from_config"]
    config = {
        **demo,
        "max_position_embeddings": 4096,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
    }
    whole = [sample["input"] + sample["target"] for sample in samples]
    folder = build_backbone(config, whole, tmp_path_factory.mktemp("model"), seed=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    batch = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(folder)
    return folder


def evaluate(folder: Path, model: Path, group: str, **options: Any) -> Mapping[str, Any]:
    """What `lm_eval --include_path folder --tasks group --log_samples` does, without a process of its own."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    found: dict[str, Any] = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        device="cpu",
        batch_size=4,
        tasks=[group],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        gen_kwargs={"max_gen_toks": 24},
        log_samples=True,
        bootstrap_iters=0,
        **options,
    )
    tracker = EvaluationTracker(output_path=str(folder / "results"))
    tracker.save_results_aggregated({name: part for name, part in found.items() if name != "samples"}, found["samples"])
    for task, rows in found["samples"].items():
        tracker.save_results_samples(task_name=task, samples=rows)
    return found


def rescored(run_python: Run, folder: Path, dataset: Path, *options: str) -> dict[str, Any]:
    """The scores of the samples that the harness has logged."""
    logged = folder / "logged.jsonl"
    logged.write_bytes(b"".join(path.read_bytes() for path in sorted(folder.rglob("samples_*.jsonl"))))
    output = folder / "scores.json"
    done = run_python(COMMAND, "score", logged, "--references", dataset, "--json", output, *options)
    assert done.returncode == 0, done.stderr
    scores: dict[str, Any] = json.loads(output.read_text())
    return scores


def assert_equal(found: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    for task, result in scores["tasks"].items():
        assert found["results"][f"promptcblue_{task}"]["score,none"] == pytest.approx(result["score"], abs=1e-12)
    assert found["groups"]["promptcblue"]["score,none"] == pytest.approx(scores["overall"], abs=1e-12)


@pytest.mark.parametrize(("protocol", "parser"), [("official", "strict"), ("paper", "lenient")])
def test_lm_eval_gives_the_scores_of_the_command(
    protocol: Any, parser: Any, dataset: Path, model: Path, run_python: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    write("lm-eval", plan(str(dataset), "test", protocol=protocol, parser=parser), folder)
    found = evaluate(folder, model, "promptcblue")
    scores = rescored(run_python, folder, dataset, "--protocol", protocol, "--parser", parser)
    assert scores["tasks"].keys() == ASKED.keys()
    made_with = found["configs"]["promptcblue_MedDG"]["metadata"]
    assert (made_with["protocol"], made_with["parser"]) == (protocol, parser)
    assert 0 < scores["overall"] < 1
    assert_equal(found, scores)
    by_size = sum(row["score"] * row["samples"] for row in scores["tasks"].values()) / scores["samples"]
    assert scores["overall"] != pytest.approx(by_size, abs=1e-6)


def test_lm_eval_shows_demonstrations_of_the_train_split(
    dataset: Path, model: Path, run_python: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    job = with_shots(plan(str(dataset), "test"), "lm-eval", "2")
    write("lm-eval", job, folder)
    found = evaluate(folder, model, "promptcblue")
    assert_equal(found, rescored(run_python, folder, dataset))
    for task in ASKED:
        known = {row["input"] + row["target"] + "\n\n" for row in job.demonstrations(task)}
        for logged in found["samples"][f"promptcblue_{task}"]:
            before, asked, after = logged["arguments"]["gen_args_0"]["arg_0"].rpartition(logged["doc"]["input"])
            assert (bool(asked), after) == (True, "")
            shown = [text for text in known if text in before]
            assert len(shown) == 2
            assert len(before) == sum(map(len, shown))
    one = evaluate(folder, model, "promptcblue", num_fewshot=1)
    (first, *_) = one["samples"]["promptcblue_MedDG"]
    assert sum(row["input"] in first["arguments"]["gen_args_0"]["arg_0"] for row in job.demonstrations("MedDG")) == 1


def command(*arguments: object) -> Result:
    """What the command does, in this process."""
    return CliRunner().invoke(app, ["harness", *map(str, arguments)])


def test_the_paper_s_counts_stand_in_the_task_files(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    options = ["--dataset", "sample", "--split", "dev", "--shots", "paper", "--output", folder]
    done = command("lm-eval", *options)
    assert done.exit_code == 0, done.exception
    for task in TASKS:
        values = yaml.load((folder / f"promptcblue_{task}.yaml").read_text(encoding="utf-8"), Loader=_Plain)
        assert values["num_fewshot"] == DEMONSTRATIONS[task]
        assert values["generation_kwargs"]["until"] == ["\n\n"]


class _Plain(yaml.SafeLoader):
    """Reads `!function` as its name."""


_Plain.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


@pytest.mark.parametrize("suite", [CHINESEBLUE, CHIP2023])
def test_other_suites_are_groups_of_their_own(suite: Suite, sample_rows: SampleRows, tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    rows = one_of_each() if suite is CHINESEBLUE else sample_rows("test") + sample_rows(f"{suite.name}/test")
    path, folder = tmp_path / "samples.jsonl", tmp_path / "tasks"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    write("lm-eval", plan(str(path), "test", suite.name), folder)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    assert list(manager.all_groups) == [suite.name]
    tasks = manager.load(suite.name)["tasks"]
    assert tasks.keys() == {f"{suite.name}_{task}" for task in suite.tasks}
    for name, task in tasks.items():
        assert task.config.num_fewshot == 0  # there is no train split, and nothing that is asked may be shown
        docs = list(task.test_docs())
        pairs = [task.process_results(doc, [docs[0]["target"]])["score"] for doc in docs]
        evaluation = Evaluation()
        for doc in docs:
            evaluation.add(docs[0]["target"], doc)
        assert task.aggregation()["score"](pairs) == evaluation.result()["overall"], name


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_is_handed_files_that_fit(tool: str, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    done = command(tool, "--dataset", "sample", "--split", "dev", "--output", folder)
    assert done.exit_code == 0, done.exception
    assert f"'{folder}" in done.stdout.split("next: ")[1]
    job = Job.read(folder)
    assert job.tasks.keys() == TASKS.keys()
    assert Path(job.references).is_absolute()
    for name in TOOLS[tool].files:
        text = (folder / name).read_text(encoding="utf-8")
        compile(text, name, "exec")
        assert len(text.splitlines()) <= 60
    done = command(tool, "--dataset", "sample", "--split", "dev", "--output", folder)
    assert isinstance(done.exception, PromptCBLUEError)
    assert "not empty" in str(done.exception)


def test_tasks_without_samples_are_named(dataset: Path, tmp_path: Path) -> None:
    done = command("lighteval", "--dataset", dataset, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.exception
    (line,) = [line for line in done.stdout.splitlines() if "left out" in line]
    assert [task in line for task in TASKS] == [task not in ASKED for task in TASKS]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dataset", "nowhere/at/all"], "nowhere/at/all"),
        (["--dataset", "sample", "--split", "exam"], "unknown split 'exam'"),
        (["--dataset", "sample", "--suite", "blue"], "the suites are promptcblue"),
        (["--dataset", SAMPLE, "--suite", "chineseblue"], "has no samples of chineseblue"),
        (["--dataset", "sample", "--shots", "many"], "--shots many"),
        (["--dataset", "sample", "--shots", "40"], "CMeEE-V2 has"),
        (["--dataset", SAMPLE / "dev.json", "--shots", "1"], "has 0 of 1"),
        (["--dataset", "sample", "--split", "train", "--shots", "1"], "has 0 of 1"),
        (["--dataset", "untold.jsonl"], "has no target"),
        (["--dataset", "untold"], "has no validation split; it has test"),
    ],
)
def test_what_cannot_be_run_is_said(
    options: list[Any],
    said: str,
    sample_rows: SampleRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({**row, "target": ""}) + "\n" for row in sample_rows("test")]
    (tmp_path / "untold.jsonl").write_text("".join(lines))
    (tmp_path / "untold").mkdir()
    (tmp_path / "untold" / "test.json").write_text("".join(lines))
    split = [] if "--split" in options else ["--split", "dev"]
    done = command("lm-eval", *options, *split, "--output", "out")
    assert isinstance(done.exception, PromptCBLUEError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_demonstrations_are_refused_where_they_would_not_be_shown(tmp_path: Path) -> None:
    options = ["--dataset", "sample", "--split", "dev", "--shots", "2", "--output", tmp_path / "out"]
    done = command("inspect", *options)
    assert isinstance(done.exception, PromptCBLUEError)
    assert "lm-eval" in str(done.exception)
