"""Runs beside each other: paired tests of two or more, and the published results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.predictions import match
from ..data.samples import Sample
from ..errors import PromptCBLUEError
from ..evaluation import Evaluation, Parser, Result, ScoredSample
from ..scoring import Protocol
from ..tasks import suite_of
from .published import Published
from .significance import Difference, compare, counts_by_task

#: A difference counts as established when its adjusted p-value is below this.
LEVEL = 0.05

#: How many sample ids a message lists.
_LISTED = 5

Key = tuple[str, str]


class Comparison(NamedTuple):
    """A run against the first one.

    Attributes:
        baseline: name of the first run.
        run: name of the run.
        differences: run minus baseline, by task and for ``overall``.
    """

    baseline: str
    run: str
    differences: Mapping[str, Difference]

    def as_json(self) -> dict[str, Any]:
        """What `--json` writes."""
        rows = {name: {**d._asdict(), "difference": d.difference} for name, d in self.differences.items()}
        return {"baseline": self.baseline, "run": self.run, "differences": rows, "conclusion": self.conclusion()}

    def conclusion(self) -> str:
        """In words: what is established, and what is not."""
        overall = self.differences["overall"]
        tasks = {name: d for name, d in self.differences.items() if name != "overall"}
        established = {name: d for name, d in tasks.items() if d.adjusted_p < LEVEL}
        better = [name for name, d in established.items() if d.difference > 0]
        worse = [name for name, d in established.items() if d.difference < 0]
        open_questions = [name for name in tasks if name not in established]
        sentences = [self._overall_sentence(overall)]
        for word, names in (("better", better), ("worse", worse)):
            if names:
                sentences.append(f"It is {word} on {', '.join(names)}.")
        if open_questions:
            sentences.append(f"No difference is established on {', '.join(open_questions)}.")
        return " ".join(sentences)

    def _overall_sentence(self, overall: Difference) -> str:
        size = f"{overall.difference:+.4f}, 95% interval {overall.low:+.4f} to {overall.high:+.4f}"
        if overall.adjusted_p >= LEVEL:
            return f"Overall, no difference between {self.run} and {self.baseline} is established ({size})."
        word = "better" if overall.difference > 0 else "worse"
        return f"Overall, {self.run} is {word} than {self.baseline} ({size})."


def run_names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the files apart: their stems, or their paths where stems are shared.

    Raises:
        PromptCBLUEError: a file is named twice.
    """
    if len(set(paths)) < len(paths):
        raise PromptCBLUEError(f"a run cannot be compared with itself: {', '.join(map(str, paths))}")
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def scored_run(path: Path, references: Sequence[Sample], parser: Parser) -> dict[Key, ScoredSample]:
    """The samples of a predictions file that have a prediction, by task and id, in the order of the references."""
    evaluation = Evaluation(parser=parser)
    return {
        (sample["task_dataset"], sample["sample_id"]): evaluation.add(prediction.text, sample)
        for sample, prediction in match(path, references)
        if prediction is not None
    }


def result_of(scored: Sequence[ScoredSample], protocol: Protocol, parser: Parser) -> Result:
    """The scores of samples that are scored already."""
    evaluation = Evaluation(parser=parser)
    for sample in scored:
        evaluation.add_scored(sample)
    return evaluation.result(protocol)


def common_samples(
    runs: Mapping[str, Mapping[Key, ScoredSample]], *, common_only: bool
) -> dict[str, list[ScoredSample]]:
    """Each run's samples in one order: the samples of all runs, which have to be the same unless ``common_only``.

    Raises:
        PromptCBLUEError: the runs have different samples (which, is said), or none in common.
    """
    (baseline, first), *others = runs.items()
    shared = [key for key in first if all(key in run for _, run in others)]
    if not common_only:
        for name, run in others:
            _refuse_different(baseline, first, name, run)
    if not shared:
        raise PromptCBLUEError(f"{', '.join(runs)}: the runs have no sample in common")
    return {name: [run[key] for key in shared] for name, run in runs.items()}


def _refuse_different(baseline: str, first: Mapping[Key, Any], name: str, run: Mapping[Key, Any]) -> None:
    only = {baseline: [key for key in first if key not in run], name: [key for key in run if key not in first]}
    if any(only.values()):
        said = [
            f"{len(keys)} only in {owner} ({', '.join(f'{i} of {t}' for t, i in keys[:_LISTED])}"
            f"{', …' if len(keys) > _LISTED else ''})"
            for owner, keys in only.items()
            if keys
        ]
        raise PromptCBLUEError(
            f"the runs do not have the same samples: {'; '.join(said)}; predict what is missing, "
            "or pass --common-only to compare the samples they share"
        )


def compare_runs(
    samples: Mapping[str, Sequence[ScoredSample]],
    protocol: Protocol,
    resamples: int,
    seed: int,
    progress: Callable[[str], object] = lambda task: None,
) -> list[Comparison]:
    """Every run against the first."""
    (baseline, first), *others = samples.items()
    counts = counts_by_task(first)
    return [
        Comparison(baseline, name, compare(counts, counts_by_task(run), protocol, resamples, seed, progress))
        for name, run in others
    ]


def as_published(name: str, result: Result) -> Published:
    """A run in the form of a published system, to set it beside them."""
    scores = {task: row["score"] for task, row in result["tasks"].items()}
    scored = len(result["tasks"])
    all_tasks = len(suite_of(result["tasks"]).tasks)
    note = f"the overall score is the mean of {scored} of {all_tasks} tasks" if scored < all_tasks else ""
    return Published(name, "this run", {**scores, **result["groups"], "overall": result["overall"]}, note)
