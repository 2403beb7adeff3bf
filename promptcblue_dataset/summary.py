"""What an import tells its user."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from promptcblue_dataset.importer import Imported
from promptcblue_dataset.layout import ALL
from promptcblue_metric.data.splits import SPLITS
from promptcblue_metric.tasks import suite_of


def table(imported: Imported) -> Table:
    """Samples of each config by split, and how many flaws their targets have."""
    counts, warnings = imported.counts(), imported.checked.warnings
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("config", no_wrap=True)
    for title in (*SPLITS, "warnings"):
        shown.add_column(title, justify="right", no_wrap=True)
    for config, splits in counts.items():
        flaws = sum(count for (task, _), count in warnings.items() if task == config)
        cells = [_number(splits.get(split, 0)) for split in SPLITS]
        shown.add_row(config, *cells, _number(flaws), end_section=config == list(counts)[-1])
    totals = [_number(sum(splits.get(split, 0) for splits in counts.values())) for split in SPLITS]
    shown.add_row(ALL, *totals, _number(warnings.total()), style="bold")
    return shown


def _number(count: int) -> str:
    return f"{count:,}" if count else "–"


def notes(imported: Imported) -> Iterator[str]:
    """What else there is to know, a line each, and the call to type next."""
    checked = imported.checked
    if imported.missing_splits:
        yield f"no file for the split(s): {', '.join(imported.missing_splits)}"
    if imported.missing_tasks:
        yield f"no samples, and so no config, of: {', '.join(imported.missing_tasks)}"
    if bad := checked.bad.errors:
        yield f"skipped {len(bad):,} bad rows of {checked.rows:,}; the report lists them, the first is {bad[0]}"
    if kinds := imported.warnings():
        listed = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        yield f"targets kept though not quite in the dialect: {listed}"
    yield f"wrote {imported.output} and {imported.report}"
    config = next(iter(imported.checked.samples))
    where = "in any folder" if imported.cached else f"from {imported.output.absolute().parent}"
    name = suite_of([config]).name if imported.cached else imported.output.name
    yield f'load_dataset("{name}", "{config}") now works {where}'
