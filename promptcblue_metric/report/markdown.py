"""The report as Markdown: the figures, without the texts of the run."""

from __future__ import annotations

from collections.abc import Iterator

from .analysis import LISTED, Example
from .report import Report, TaskReport
from .tables import (
    SCORE_COLUMNS,
    as_markdown,
    garbled_notes,
    markdown_text,
    other_table,
    protocol_table,
    score_table,
    state_table,
    task_tables,
)


def markdown(report: Report) -> str:
    """The document for a report (`report.build_report`)."""
    blocks = [f"# {report['title']} report", *_summary(report), "## Error analysis"]
    for name, task in report["tasks"].items():
        blocks += _task(name, task)
    return "\n\n".join(blocks) + "\n"


def _summary(report: Report) -> Iterator[str]:
    missing = report["missing_predictions"]
    facts = {
        "predictions": report["predictions"],
        "references": report["references"],
        **({"made with": report["made_with"]} if report["made_with"] else {}),
        "signature": report["signature"],
        "samples": f"{report['samples']}" + (f", {missing} without a prediction, counted as wrong" if missing else ""),
        "outputs well-formed": f"{report['well_formed']:.1%}",
        "tasks not in the references": ", ".join(report["missing_tasks"]) or "none",
    }
    yield "\n".join(f"- {name}: {markdown_text(value)}" for name, value in facts.items())
    yield "## Scores"
    yield as_markdown(score_table(report, report["intervals"]).without(*SCORE_COLUMNS))
    yield from (f"{note}." for note in garbled_notes(report))
    if other := report["other"]:
        yield "## Two runs beside each other"
        yield "The first run is the one of this report."
        yield as_markdown(other_table(report, other))
        for name, kinds in other["tasks"].items():
            for kind, ids in kinds.items():
                if ids and kind.startswith("only"):
                    more = f" and {len(ids) - LISTED} more" if len(ids) > LISTED else ""
                    yield f"{name}, {kind}: {markdown_text(', '.join(ids[:LISTED]))}{more}."
    yield "## Where the two protocols differ"
    differences = protocol_table(report)
    yield as_markdown(differences) if differences.rows else "On no task by more than 0.001."
    yield "## What became of the outputs"
    yield as_markdown(state_table(report, repairs=True))


def _task(name: str, task: TaskReport) -> Iterator[str]:
    yield f"### {name}"
    for table in task_tables(task):
        if table.title != "Most frequent invalid outputs":
            yield f"{table.title}:"
            yield as_markdown(table)
    lowest = [f"{row['sample_id']} ({row['score']:.3f})" for row in task["examples"][:5]]
    if lowest:
        yield f"Lowest-scoring samples: {markdown_text(', '.join(lowest))}."
    trees = [row for row in task["examples"][:5] if "trees" in row]
    if trees:
        yield (
            "Their trees, each node compared with the one at its place in the other tree: = equal, ! wrong, - missed, "
            "+ spurious, ? in no tree; in brackets what the other one does not say."
        )
        yield "\n".join(line for row in trees for line in _drawn(row))


#: The kinds of a tree's node.
_MARKS = {"correct": "=", "wrong node": "!", "missed": "-", "spurious": "+", "in no tree": "?"}


def _drawn(example: Example) -> Iterator[str]:
    """The trees of a sample as indented lines of a code block."""
    for side, drawing in example["trees"].items():
        yield f"    {example['sample_id']}, {side}"
        for node in drawing["nodes"]:
            said = ", ".join(f"[{part['text']}]" if part["differs"] else part["text"] for part in node["parts"])
            branch = node["branch"] and f"{node['branch']}: "
            yield f"    {_MARKS[node['kind']]} {'  ' * node['depth']}{branch}{said}"
        if drawing["more"]:
            yield f"      … and {drawing['more']} more"
