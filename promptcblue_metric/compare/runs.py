"""Runs beside each other: paired tests of two or more, the published results, and the tables of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..cli.common import show_lines
from ..data.predictions import match
from ..data.samples import Sample
from ..errors import PromptCBLUEError
from ..evaluation import Evaluation, Parser, Result, ScoredSample
from ..report.tables import Column, Row, Table, number, show
from ..scoring import Protocol
from ..tasks import PROMPTCBLUE, Suite, suite_of
from .published import Published, published, published_note
from .significance import Difference, compare, counts_by_task

#: A difference counts as established when its adjusted p-value is below this.
LEVEL = 0.05

#: What a table whose intervals and verdicts disagree is to be read by.
_RESTS_ON = "Conclusions rest on the randomisation test, not on the intervals: with few samples the two can differ."

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

    def as_json(self) -> dict[str, object]:
        """What `--json` writes: `Difference` by task, with the difference itself, and the conclusion."""
        rows = {name: {**d._asdict(), "difference": d.difference} for name, d in self.differences.items()}
        return {"baseline": self.baseline, "run": self.run, "differences": rows, "conclusion": self.conclusion()}

    def conclusion(self) -> str:
        """In words: what is established, and what is not."""
        found: dict[str, list[str]] = {"better": [], "worse": [], "no": []}
        for name, d in self.differences.items():
            if name != "overall":
                found[_verdict(d)].append(name)
        open_questions = found.pop("no")
        sentences = [self._overall_sentence(self.differences["overall"])]
        sentences += [f"It is {word} on {', '.join(names)}." for word, names in found.items() if names]
        if open_questions:
            sentences.append(f"No difference is established on {', '.join(open_questions)}.")
        return " ".join(sentences)

    def table(self) -> Table:
        """Scores of both runs, their difference with its interval, and p-values, by task and overall."""
        columns = [Column("task", number=False), Column(self.baseline), Column(self.run)]
        columns += [Column("difference"), Column("95% interval")]
        columns += [Column("p (random.)"), Column("p (Holm)"), Column("established", number=False)]
        rows = []
        for name, d in self.differences.items():
            kind = "overall" if name == "overall" else ""
            cells = [name, number(d.first), number(d.second), f"{d.difference:+.4f}", f"{d.low:+.4f} … {d.high:+.4f}"]
            cells += [f"{d.randomization_p:.3f}", "" if kind else f"{d.adjusted_p:.3f}"]
            rows.append(Row((*cells, _verdict(d)), kind))
        return Table(f"{self.run} against {self.baseline}", columns, rows)

    def _overall_sentence(self, overall: Difference) -> str:
        size = f"{overall.difference:+.4f}, 95% interval {overall.low:+.4f} to {overall.high:+.4f}"
        if _verdict(overall) == "no":
            return f"Overall, no difference between {self.run} and {self.baseline} is established ({size})."
        return f"Overall, {self.run} is {_verdict(overall)} than {self.baseline} ({size})."


def _verdict(difference: Difference) -> str:
    """What is established of a difference: that the run is ``better`` or ``worse``, or ``no`` difference."""
    if difference.adjusted_p >= LEVEL:
        return "no"
    return "better" if difference.difference > 0 else "worse"


def run_names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell the files apart: their stems, or their paths where stems are shared.

    Raises:
        PromptCBLUEError: a file is named twice.
    """
    if len(set(paths)) < len(paths):
        raise PromptCBLUEError(f"a run cannot be compared with itself: {', '.join(map(str, paths))}")
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def scored_run(
    path: Path, references: Sequence[Sample], parser: Parser, *, allow_gold: bool = False
) -> dict[Key, ScoredSample]:
    """The samples of a predictions file that have a prediction, by task and id, in the order of the references."""
    evaluation = Evaluation(parser=parser)
    return {
        (sample["task_dataset"], sample["sample_id"]): evaluation.add(prediction.text, sample)
        for sample, prediction in match(path, references, allow_gold=allow_gold)
        if prediction is not None
    }


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


def _refuse_different(baseline: str, first: Mapping[Key, object], name: str, run: Mapping[Key, object]) -> None:
    only = {baseline: [key for key in first if key not in run], name: [key for key in run if key not in first]}
    said = [
        f"{len(keys)} only in {owner} ({', '.join(f'{i} of {t}' for t, i in keys[:_LISTED])}"
        f"{', …' if len(keys) > _LISTED else ''})"
        for owner, keys in only.items()
        if keys
    ]
    if said:
        raise PromptCBLUEError(
            f"the runs do not have the same samples: {'; '.join(said)}; predict what is missing, "
            "or pass --common-only to compare the samples they share"
        )


def compare_runs(
    samples: Mapping[str, Sequence[ScoredSample]], protocol: Protocol, resamples: int, seed: int
) -> list[Comparison]:
    """Every run against the first."""
    (baseline, first), *others = ((name, counts_by_task(scored)) for name, scored in samples.items())
    return [Comparison(baseline, name, compare(first, run, protocol, resamples, seed)) for name, run in others]


def print_comparisons(comparisons: Sequence[Comparison], results: Mapping[str, Result], references: int) -> None:
    """Print each comparison as a table and in words, with what it rests on."""
    result = next(iter(results.values()))
    some = [f"{result['samples']} of {references} references are in the runs"] if result["samples"] < references else []
    for comparison in comparisons:
        show(comparison.table(), [comparison.conclusion()])
    show_lines([*[_RESTS_ON][: len(comparisons)], *some, f"signature: {result['signature']}"])


def print_published(results: Mapping[str, Result], split: str | None) -> None:
    """Print runs beside the published results, and what has to be known about these.

    Args:
        split: of the references; None where they are a single file.
    """
    suite = suite_of(task for result in results.values() for task in result["tasks"])
    systems = [*(_as_published(name, result) for name, result in results.items()), *published(suite)]
    notes = [f"* {system.system}: {system.note} ({system.source})" for system in systems if system.note]
    result = next(iter(results.values()))
    if other := _not_official(result, suite, split):
        first = (
            "No ranking: the published scores are of the official test set, or of the split that their source names; "
            f"these references are not that test set ({other}), and the runs' scores are not comparable with them."
        )
    else:
        rests = ["their split"] * (split is not None) + ["their numbers of samples"] * (suite is PROMPTCBLUE)
        first = (
            f"Taken for the official test set by {' and '.join(rests) or 'your word'} alone: its targets, and so its "
            f"fingerprint, are not public; that of these references is refs:{result['references']}."
        )
    for table in _published_tables(systems, suite, ranked=not other):
        title = f"{table.title} (runs on other samples than the official test)" if other else table.title
        show(replace(table, title=title), titled=True)
    show_lines([first, *notes, published_note(suite)])


def _not_official(result: Result, suite: Suite, split: str | None) -> str:
    """Why what was scored cannot be the official test set; "" where nothing speaks against it."""
    if split not in (None, "test"):
        return f"they are a {split} split"
    if suite is not PROMPTCBLUE:  # only Table 8 counts samples; elsewhere a record can be several
        return ""
    sizes = ((name, row["samples"], suite.tasks[name].sizes[2]) for name, row in result["tasks"].items())
    wrong = (f"they have {ours} samples of {name}, not {theirs}" for name, ours, theirs in sizes if ours != theirs)
    return next(wrong, "")


def _as_published(name: str, result: Result) -> Published:
    """A run in the form of a published system, to set it beside them."""
    scores = {task: row["score"] for task, row in result["tasks"].items()}
    scored, all_tasks = len(result["tasks"]), len(suite_of(result["tasks"]).tasks)
    note = f"the overall score is the mean of {scored} of {all_tasks} tasks" if scored < all_tasks else ""
    return Published(name, "this run", {**scores, **result["groups"], "overall": result["overall"]}, note)


def _published_tables(systems: Sequence[Published], suite: Suite, *, ranked: bool) -> list[Table]:
    """Runs beside published systems: by task, by group, and by overall score, those that were published so."""
    by_task = [system for system in systems if any(task in system.scores for task in suite.tasks)]
    by_group = [system for system in systems if any(group in system.scores for group in suite.groups)]
    overall = sorted(systems, key=lambda system: -system.scores["overall"]) if ranked else systems
    return [
        _published_table("by task", [*suite.tasks, "overall"], by_task),
        _published_table("by group", [*suite.groups, "overall"], by_group),
        _published_table("overall", ["overall"], overall),
    ]


def _published_table(title: str, scores: Sequence[str], systems: Sequence[Published]) -> Table:
    """Systems down and scores across where there are more systems than scores, else the other way round."""
    down = len(systems) > len(scores)
    grid = [("system" if down else "", *scores)]
    for system in systems:
        cells = (number(system.scores[name]) if name in system.scores else "" for name in scores)
        grid.append((f"{system.system} *" if system.note else system.system, *cells))
    heads, *rows = grid if down else zip(*grid, strict=True)
    table = Table(title, [Column(heads[0], number=False), *map(Column, heads[1:])], [Row(row) for row in rows])
    if not down:
        return table
    sources = [Row((*row, system.source)) for row, system in zip(rows, systems, strict=True)]
    return replace(table, columns=[*table.columns, Column("source", number=False)], rows=sources)
