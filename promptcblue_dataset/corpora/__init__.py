"""Reading the raw corpora of CBLUE and ChineseBLUE."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from promptcblue_dataset.corpora import cblue, dialogues
from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_dataset.corpora.chineseblue import CHINESEBLUE
from promptcblue_dataset.corpora.reading import Corpus, Sources
from promptcblue_metric.errors import PromptCBLUEError

_CORPORA: tuple[Corpus, ...] = (
    *(dialogues.IMCS, cblue.CDN, dialogues.MDCFNPC, cblue.IR, dialogues.MEDDG, cblue.CMEIE, cblue.CMEEE, cblue.CTC),
    *(cblue.QTR, cblue.CDEE, cblue.STS, cblue.QQR, cblue.QIC, cblue.CAUSAL, cblue.TREES),
    *CHINESEBLUE.values(),
)
#: Every raw corpus by name. Those that take longest come first, so that worker processes end together.
CORPORA: Mapping[str, Corpus] = {corpus.name: corpus for corpus in _CORPORA}


def find_sources(files: RawFiles, tasks: Collection[str]) -> dict[str, Sources]:
    """The files of the ``tasks`` by corpus, for those that are there; an error names all that differ and should not."""
    found: dict[str, Sources] = {}
    problems: list[str] = []
    for name, corpus in CORPORA.items():
        try:
            # Also where no task of it is wanted, so that its files are not taken for clutter.
            sources = corpus.find(files)
        except PromptCBLUEError as error:
            problems += [str(error)] if not set(tasks).isdisjoint(corpus.tasks) else []
            continue
        sources.splits = {task: splits for task, splits in sources.splits.items() if task in tasks}
        if sources.splits:
            found[name] = sources
    if problems:
        raise PromptCBLUEError("\n".join(problems))
    return found
