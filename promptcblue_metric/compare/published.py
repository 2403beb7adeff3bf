"""Published results, to set a run beside (scores in 0..1), as they stand in ``published.tsv``.

Sources for PromptCBLUE: the paper (Zhu et al. 2023, arXiv 2310.14151), Tables 1, 2, 3 and 7, and the official
repository's baselines on the dev split. For ChineseBLUE: Zhang et al. 2020, arXiv 2008.10813, Table 3.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..tasks import SUITES, Suite, get_task


class Published(NamedTuple):
    """One published system.

    Attributes:
        system: what it is.
        source: where it stands, and on which split it was scored.
        scores: by task, by group or ``overall``; what was not published is absent.
        note: what a reader has to know about the figures.
    """

    system: str
    source: str
    scores: Mapping[str, float]
    note: str = ""


#: The figures by suite, then by system and source, each under the name of its score. A suite's own note is the one
#: of no system. ``TASK as PAIR`` is a ratio of right to wrong; ``printed overall`` is not relied on.
_FIGURES: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
with Path(__file__).with_name("published.tsv").open(encoding="utf-8", newline="") as _stream:
    for _row in csv.DictReader(_stream, delimiter="\t", quoting=csv.QUOTE_NONE):
        _of_system = _FIGURES.setdefault(_row["suite"], {}).setdefault((_row["system"], _row["source"]), {})
        _of_system[_row["score"]] = _row["value"]

#: Demonstrations a task in the paper's few-shot setting (Table 1); together they are its few-shot training set.
DEMONSTRATIONS: Mapping[str, int] = {
    task: int(n) for task, n in _FIGURES["promptcblue"].pop(("demonstrations", "paper, Table 1")).items()
}
#: Demonstrations for a task that the table does not have: its mean, rounded.
OTHER_TASKS = 8


def paper_counts(tasks: Iterable[str]) -> dict[str, int]:
    """How many demonstrations the paper gives each task (Table 1), and `OTHER_TASKS` for a task it does not have."""
    names = [get_task(name).name for name in tasks]
    return {name: DEMONSTRATIONS.get(name, OTHER_TASKS) for name in names}


def published(suite: Suite) -> list[Published]:
    """The published systems of a suite; none where nothing of it is known."""
    found = _FIGURES.get(suite.name, {}).items()
    return [_published(suite, *name, figures) for name, figures in found if name != ("", "")]


def published_note(suite: Suite) -> str:
    """What has to be said of a suite's published scores, the lack of them too."""
    known = _FIGURES.get(suite.name, {})
    if not known:
        titles = (SUITES[name].title for name in _FIGURES)
        return f"No results of {suite.title} are known here, only those of {' and '.join(titles)}."
    tasks = [name for name in suite.tasks if not any(name in system.scores for system in published(suite))]
    lacking = f" None are known of {', '.join(tasks)}." if tasks else ""
    return known["", ""]["note"] + lacking


def _published(suite: Suite, system: str, source: str, figures: Mapping[str, str]) -> Published:
    """A system; where its tasks were published, its overall score is their mean, whatever was printed."""
    scores, notes = dict[str, float](), list[str]()
    for name, value in figures.items():
        if name.endswith(" as PAIR"):
            task, pair = name.removesuffix(" as PAIR"), float(value)
            scores[task] = pair / (1 + pair)
            notes.append(f"{task} was published as PAIR {value}, which is {scores[task]:.4f} of the pairs")
        elif name not in ("note", "printed overall"):
            scores[name] = float(value)
    if "overall" not in scores:
        mean = sum(scores.values()) / len(scores)
        if lacking := [task for task in suite.tasks if task not in scores]:
            notes.append(f"the overall score is the mean of {len(scores)} tasks, without {', '.join(lacking)}")
        printed = float(figures.get("printed overall", mean))
        if abs(mean - printed) > 0.001:
            notes.append(f"printed overall {printed:.3f}; its {len(scores)} rows have the mean {mean:.4f}")
        scores["overall"] = mean
    return Published(system, source, scores, "; ".join([*notes, *filter(None, [figures.get("note")])]))
