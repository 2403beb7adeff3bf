"""The loss curve of a run: a table for programs, and a picture where matplotlib is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptcblue_metric.data.writing import replace_bytes

CURVE_CSV = "loss_curve.csv"
CURVE_PNG = "loss_curve.png"
#: Columns of the table: the trainer's names for the losses on both splits and for the benchmark score.
LOSSES = ("loss", "eval_loss", "eval_overall")
_TITLES = {"loss": "training loss", "eval_loss": "validation loss", "eval_overall": "score on validation samples"}


def curve_rows(log_history: Iterable[Mapping[str, Any]], chosen: int | None = None) -> list[dict[str, Any]]:
    """What was measured at each step that measured anything, in order.

    Args:
        log_history: of the trainer.
        chosen: the step whose weights were kept; it has a row in any case.

    Returns:
        Rows with ``step``, `LOSSES` (None where not measured), and ``chosen`` (0 or 1).
    """
    steps: dict[int, dict[str, Any]] = {} if chosen is None else {chosen: {}}
    for entry in log_history:
        values = {name: entry[name] for name in LOSSES if name in entry}
        if values:
            steps.setdefault(int(entry["step"]), {}).update(values)
    empty = dict.fromkeys(LOSSES)
    return [{"step": step, **empty, **steps[step], "chosen": int(step == chosen)} for step in sorted(steps)]


def write_curve(folder: Path, log_history: Iterable[Mapping[str, Any]], chosen: int | None = None) -> bool:
    """Write `CURVE_CSV`, and `CURVE_PNG` where matplotlib is installed.

    Returns:
        Whether the picture was written.

    Raises:
        PromptCBLUEError: a file cannot be written.
    """
    rows = curve_rows(log_history, chosen)
    text = io.StringIO()
    table = csv.DictWriter(text, ["step", *LOSSES, "chosen"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    replace_bytes(folder / CURVE_CSV, text.getvalue().encode())
    try:
        picture = _draw(rows)
    except ImportError:
        return False
    replace_bytes(folder / CURVE_PNG, picture)
    return True


def _draw(rows: list[dict[str, Any]]) -> bytes:
    """The curve as PNG: losses on the left axis, the score on one of its own at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot(xlabel="step", ylabel="loss")
    left.grid(alpha=0.3)
    colours = dict(zip(LOSSES, ("tab:gray", "tab:blue", "tab:green"), strict=True))
    lines = []
    for name in LOSSES:
        points = [(row["step"], row[name]) for row in rows if row[name] is not None]
        if not points:
            continue
        axes = left
        if name == "eval_overall":
            axes = left.twinx()
            axes.set(ylabel="score", ylim=(0, 1))
        marker = None if name == "loss" else "o"
        lines += axes.plot(*zip(*points, strict=True), color=colours[name], label=_TITLES[name], marker=marker, ms=3)
    for row in rows:
        if row["chosen"]:
            at = row["step"]
            lines.append(left.axvline(at, color="tab:red", linestyle="--", label=f"chosen: step {at}"))
    if lines:
        left.legend(handles=lines, loc="upper right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
