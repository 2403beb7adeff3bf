"""PromptCBLUE inside other evaluation tools: the files that one needs, and what these call.

An adapter is a file ``*.py.in`` beside this one, which is copied out as it is: it hands the samples to its tool and
the tool's outputs to `Job.scores`, so that its numbers are those of ``promptcblue-metric score``.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from string import Template
from typing import NamedTuple

from ..compare.published import paper_counts
from ..data.samples import Sample, canonical_split, iter_samples, resolve, splits_of
from ..data.writing import encoded, read_json_object, replacing, write_json
from ..errors import PromptCBLUEError
from ..evaluation import Evaluation, Parser
from ..scoring import Protocol
from ..tasks import SUITES, suite_of
from ..version import VERSION

_JOB = "job.json"
#: The tokens that an answer to any task may have: a model that was not taught the task answers in a sentence.
_LEAST = 256


@dataclass(frozen=True)
class Job:
    """What an adapter runs: some tasks of a split, read and scored as ``promptcblue-metric score`` does.

    Attributes:
        references: the dataset, as ``--references`` names it.
        split: its split.
        tasks: the longest answer of each task in tokens, by config name.
        suite: the suite they are of.
        protocol: how they are scored.
        parser: how outputs are read.
        shots: how many train samples are shown before a prompt, by task; empty for none.
    """

    references: str
    split: str
    tasks: Mapping[str, int]
    suite: str
    protocol: Protocol = "official"
    parser: Parser = "strict"
    shots: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job of a folder that `write` made."""
        return cls(**read_json_object(folder / _JOB))

    def samples(self, task: str) -> list[Sample]:
        """The samples of a task to be answered."""
        return list(_read(self.references, self.split).get(task, ()))

    def demonstrations(self, task: str) -> list[Sample]:
        """The train samples of a task that may be shown before a prompt: those with a target whose own prompt is not to
        be answered; none where the train split itself is asked.
        """
        if "train" not in splits_of(self.references) or self.split == "train":
            return []
        asked = {sample["input"] for sample in self.samples(task)}
        train = _read(self.references, "train").get(task, [])
        return [sample for sample in train if sample["input"] not in asked and sample["target"].strip()]

    def scores(self, outputs: Iterable[tuple[str, Sample]]) -> dict[str, float]:
        """The primary scores by task, and ``overall``, of outputs that are given with their samples.

        Raises:
            PromptCBLUEError: there are none, or a sample cannot be scored against.
        """
        evaluation = Evaluation(parser=self.parser)
        for output, sample in outputs:
            evaluation.add(output, sample)
        result = evaluation.result(self.protocol)
        return {**{name: task["score"] for name, task in result["tasks"].items()}, "overall": result["overall"]}


@lru_cache(maxsize=3)
def _read(references: str, split: str) -> Mapping[str, list[Sample]]:
    """The samples of a split by task, with the six fields that all of them have: read once for all tasks."""
    by_task = defaultdict[str, list[Sample]](list)
    for sample in iter_samples(references, split):
        sample.pop("template", None)
        by_task[sample["task_dataset"]].append(sample)
    return by_task


def plan(
    references: str, split: str, suite: str | None = None, protocol: Protocol = "official", parser: Parser = "strict"
) -> Job:
    """A job of every task that the split has samples of, in one suite.

    Raises:
        PromptCBLUEError: there is no such suite, dataset or split, it has no samples of the suite or of several where
            none is named, or samples without a target.
    """
    if suite is not None and suite not in SUITES:
        raise PromptCBLUEError(f"unknown suite '{suite}'; the suites are {', '.join(SUITES)}")
    path = resolve(references, SUITES[suite].tasks if suite else ())
    references, split = str(path.resolve()) if path.exists() else references, canonical_split(split)
    samples = _read(references, split)
    found = SUITES[suite] if suite else suite_of(samples)
    limits = {task: _limit(references, split, task) for task in found.tasks if task in samples}
    if not limits:
        raise PromptCBLUEError(f"the {split} split of {references} has no samples of {suite}")
    job = Job(references, split, limits, found.name, protocol, parser)
    # What cannot be scored is said now.
    job.scores((sample["target"], sample) for task in limits for sample in samples[task])
    return job


def _limit(references: str, split: str, task: str) -> int:
    """A quarter more than the task's longest target that may be looked at, in characters, rounded up to a power of two:
    no tokenizer is known here, and those that read Chinese need no more tokens than characters.
    """
    known = [name for name in ("train", "validation") if name in splits_of(references)] or [split]
    longest = max(
        (len(sample["target"]) for name in known for sample in _read(references, name).get(task, [])), default=0
    )
    return max(_LEAST, 1 << int(longest * 1.25).bit_length())


class Tool(NamedTuple):
    """An evaluation tool.

    Attributes:
        files: what is copied into the folder: the file here, by its name there.
        command: how the tool is started, with places for the folder, the suite, its tasks and the longest answer.
        shots: whether the adapter shows demonstrations.
    """

    files: Mapping[str, str]
    command: str
    shots: bool = False


#: Every tool by name.
TOOLS: Mapping[str, Tool] = {
    "lm-eval": Tool(
        {"promptcblue_lm_eval.py": "lm_eval.py.in"},
        "lm_eval --model hf --model_args pretrained=MODEL --include_path {folder} --tasks {suite} "
        "--log_samples --output_path {folder}/results",
        shots=True,
    ),
    "opencompass": Tool(
        {
            "promptcblue_opencompass.py": "opencompass.py.in",
            "datasets/promptcblue.py": "opencompass_config.py.in",
            "summarizers/promptcblue.py": "opencompass_config.py.in",
        },
        "PYTHONPATH={folder} opencompass --config-dir {folder} --datasets promptcblue --summarizer promptcblue "
        "--hf-type chat --hf-path MODEL --work-dir {folder}/results",
    ),
    "evalscope": Tool(
        {"promptcblue_evalscope.py": "evalscope.py.in"},
        "python {folder}/promptcblue_evalscope.py --model MODEL --eval-type llm_ckpt "
        "--generation-config do_sample=false,max_tokens={longest} --work-dir {folder}/results",
    ),
    "inspect": Tool(
        {"promptcblue_inspect.py": "inspect.py.in"},
        "cd {folder} && inspect eval promptcblue_inspect.py --model hf/MODEL -M do_sample=false "
        "--max-tokens {longest} --log-dir results",
    ),
    "lighteval": Tool(
        {"promptcblue_lighteval.py": "lighteval.py.in"},
        "lighteval accelerate model_name=MODEL {tasks} --custom-tasks {folder}/promptcblue_lighteval.py "
        "--output-dir {folder}/results --save-details",
    ),
}


def with_shots(job: Job, tool: str, shots: str) -> Job:
    """The job with demonstrations of each of its tasks: so many, or ``paper`` for the counts of the paper's Table 1.

    Raises:
        PromptCBLUEError: the tool's adapter shows none, or a task has fewer train samples to show.
    """
    if shots != "paper" and not (shots.isascii() and shots.isdigit()):
        raise PromptCBLUEError(f"--shots {shots}: expected a number, or the word paper")
    counts = paper_counts(job.tasks) if shots == "paper" else dict.fromkeys(job.tasks, int(shots))
    if not any(counts.values()):
        return job
    if not TOOLS[tool].shots:
        able = ", ".join(name for name, each in TOOLS.items() if each.shots)
        raise PromptCBLUEError(f"--shots: no demonstrations are shown under {tool}; the tools that show them: {able}")
    there = {task: len(job.demonstrations(task)) for task in counts}
    if lacking := [f"{task} has {there[task]} of {count}" for task, count in counts.items() if there[task] < count]:
        raise PromptCBLUEError(f"{job.references}: too few train samples to show before prompts: {', '.join(lacking)}")
    return replace(job, shots=counts)


def write(tool: str, job: Job, output: Path) -> str:
    """Write what a tool needs into a new folder.

    Returns:
        the command that starts the tool, in which MODEL stands for the model.

    Raises:
        PromptCBLUEError: the folder holds something, or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PromptCBLUEError(f"{output}: is there already and not empty; name a new folder")
    here = Path(__file__).parent
    with replacing(output) as folder:
        write_json(folder / _JOB, asdict(job))
        for name, source in TOOLS[tool].files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes((here / source).read_bytes())
        if tool == "lm-eval":
            _write_lm_eval_tasks(job, here, folder)
        if tool == "lighteval":
            _write_samples(job, folder / "samples")
    # lighteval knows a name for several tasks, but not for one.
    tasks = job.suite if len(job.tasks) > 1 else f"{job.suite}:{next(iter(job.tasks))}"
    place, longest = shlex.quote(str(output.resolve())), max(job.tasks.values())
    return TOOLS[tool].command.format(folder=place, suite=job.suite, tasks=tasks, longest=longest)


def _write_lm_eval_tasks(job: Job, here: Path, folder: Path) -> None:
    """A file a task, and one of their group, whose score is the plain mean of theirs."""
    scored = {"version": VERSION, "protocol": job.protocol, "parser": job.parser}
    task_file = Template((here / "lm_eval_task.yaml").read_text(encoding="utf-8"))
    for task, limit in job.tasks.items():
        shots, can_show = job.shots.get(task, 0), bool(job.demonstrations(task))
        values = {
            "suite": job.suite,
            "task": task,
            "limit": limit,
            "shown": "shown" if can_show else "null",
            # A 0 is what no option of the harness changes: it would show the samples that are asked.
            "shots": shots or ("null" if can_show else 0),
            # A plain model that was shown demonstrations goes on with the next one.
            "until": json.dumps(["\n\n"] if shots else []),
            "metadata": json.dumps(scored),
        }
        (folder / f"{job.suite}_{task}.yaml").write_text(task_file.substitute(values), encoding="utf-8")
    mean = {"metric": "score", "aggregation": "mean", "weight_by_size": False}
    group = {
        "group": job.suite,
        "task": [f"{job.suite}_{task}" for task in job.tasks],
        "aggregate_metric_list": [mean],
        "metadata": scored,
    }
    write_json(folder / f"{job.suite}.yaml", group)  # YAML holds JSON


def _write_samples(job: Job, folder: Path) -> None:
    """A folder a task, as `datasets` loads it."""
    for task in job.tasks:
        (folder / task).mkdir(parents=True)
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in job.samples(task)]
        (folder / task / "test.jsonl").write_bytes(encoded("".join(lines)))
