"""The report as Markdown: the figures, without the texts of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluation import further_scores
from ..tasks import GROUPS
from .text import REASONS, heading


def markdown(report: Mapping[str, Any]) -> str:
    """The document for a report (`report.build_report`)."""
    blocks = [f"# {heading(report)}", *_summary(report), *_protocols(report), *_form(report), "## Error analysis"]
    for name, task in report["tasks"].items():
        blocks += _task(name, task)
    return "\n\n".join(blocks) + "\n"


def _summary(report: Mapping[str, Any]) -> Iterable[str]:
    missing = report["missing_predictions"]
    facts = {
        "predictions": report["predictions"],
        "references": report["references"],
        "signature": report["signature"],
        "samples": f"{report['samples']}" + (f", {missing} without a prediction, counted as wrong" if missing else ""),
        "outputs well-formed": f"{report['well_formed']:.1%}",
        "tasks not in the references": ", ".join(report["missing_tasks"]) or "none",
    }
    yield "\n".join(f"- {name}: {_text(value)}" for name, value in facts.items())
    yield "## Scores"
    rows = []
    for group in GROUPS:
        tasks = {name: task for name, task in report["tasks"].items() if task["group"] == group}
        rows += [
            [name, task["metric"], *_score(task), str(task["samples"]), f"{task['well_formed']:.1%}"]
            for name, task in tasks.items()
        ]
        if tasks:
            rows.append([f"*{group}*", "mean", *_score(report["groups"][group]), "", ""])
    well_formed = f"{report['well_formed']:.1%}"
    rows.append(["**overall**", "mean", *_score(report["overall"]), str(report["samples"]), well_formed])
    yield _table(["task", "metric", "score", "95% interval", "samples", "well-formed"], rows)
    beside = {name: further_scores(name, task["scores"]) for name, task in report["tasks"].items()}
    yield from (
        f"Besides, on {name}: {', '.join(f'{_text(score)} {value:.4f}' for score, value in scores.items())}."
        for name, scores in beside.items()
        if scores
    )


def _score(row: Mapping[str, Any]) -> list[str]:
    between = row["interval"]
    return [f"{row['score']:.4f}", f"{between[0]:.4f}–{between[1]:.4f}" if between else ""]


def _protocols(report: Mapping[str, Any]) -> Iterable[str]:
    yield "## Where the two protocols differ"
    rows = [
        [
            row["task"],
            f"{row['official']:.4f}",
            f"{row['paper']:.4f}",
            "; ".join(_text(REASONS[reason["kind"]].format(**reason)) for reason in row["reasons"]),
        ]
        for row in report["protocol_differences"]
    ]
    yield _table(["task", "official", "paper", "why"], rows) if rows else "On no task by more than 0.001."


def _form(report: Mapping[str, Any]) -> Iterable[str]:
    yield "## What became of the outputs"
    states = list(dict.fromkeys(state for task in report["tasks"].values() for state in task["states"]))
    rows = [
        [name, *(str(task["states"].get(state, 0)) for state in states), _listed(task["repairs"])]
        for name, task in report["tasks"].items()
    ]
    yield _table(["task", *states, "repairs"], rows)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in counts.items())


def _task(name: str, task: Mapping[str, Any]) -> Iterable[str]:
    yield f"### {name}"
    if task["outcomes"]:
        shares = ("share", "of_predicted", "of_gold")
        rows = [
            [row["kind"], str(row["n"]), *("" if row[key] is None else f"{row[key]:.1%}" for key in shares)]
            for row in task["outcomes"]
        ]
        yield _table([f"outcome ({task['unit']})", "number", "share", "of predicted", "of gold"], rows)
    if "fields" in task:
        yield f"Wrong fields in pairs of a predicted and a gold item: {_listed(task['fields'])}."
    if "lengths" in task:
        ours, theirs = task["lengths"]["predicted"], task["lengths"]["reference"]
        yield f"Mean length in characters: {ours['mean']:.1f} predicted, {theirs['mean']:.1f} in the references."
    if "sections" in task:
        columns = ["section", "ROUGE-1", "ROUGE-2", "ROUGE-L", "missing", "characters predicted", "in the reference"]
        yield _table(columns, [_section(row) for row in task["sections"]])
    if "confusion" in task:
        yield from _confusion(task["confusion"])
    for measure, bins in task["breakdowns"].items():
        yield _table([measure, "samples", "score"], [[b["name"], str(b["n"]), f"{b['score']:.4f}"] for b in bins])
    lowest = [f"{row['sample_id']} ({row['score']:.3f})" for row in task["examples"][:5]]
    if lowest:
        yield f"Lowest-scoring samples: {_text(', '.join(lowest))}."


def _section(row: Mapping[str, Any]) -> list[str]:
    scores = [f"{row[key]:.4f}" for key in ("rouge1", "rouge2", "rougeL")]
    lengths = [f"{row[key]:.1f}" for key in ("predicted_characters", "reference_characters")]
    return [row["section"], *scores, f"{row['missing']} of {row['n']}", *lengths]


def _confusion(confusion: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        [row["label"], *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")), str(row["gold"])]
        for row in confusion["per_label"]
    ]
    yield _table(["label", "precision", "recall", "F1", "gold"], rows)
    if confusion["most_frequent"]:
        mistakes = [[row["gold"], row["predicted"], str(row["n"])] for row in confusion["most_frequent"]]
        yield _table(["gold label", "prediction", "number"], mistakes)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """Text that no reader of Markdown takes for markup of HTML, or for a link."""
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("`", "\\`"), ("[", "\\["), ("\n", " ")):
        text = text.replace(character, escaped)
    return text
