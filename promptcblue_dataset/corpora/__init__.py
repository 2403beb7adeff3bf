"""Reading the raw corpora of CBLUE and ChineseBLUE."""

from __future__ import annotations

from collections.abc import Mapping

from promptcblue_dataset.corpora import cblue, dialogues
from promptcblue_dataset.corpora.chineseblue import CHINESEBLUE
from promptcblue_dataset.corpora.reading import Corpus

_CORPORA: tuple[Corpus, ...] = (
    dialogues.IMCS,
    cblue.CDN,
    dialogues.MDCFNPC,
    cblue.IR,
    dialogues.MEDDG,
    cblue.CMEIE,
    cblue.CMEEE,
    cblue.CTC,
    cblue.QTR,
    cblue.CDEE,
    cblue.STS,
    cblue.QQR,
    cblue.QIC,
    cblue.CAUSAL,
    cblue.TREES,
    *CHINESEBLUE.values(),
)
#: Every raw corpus by name. Those that take longest come first, so that worker processes end together.
CORPORA: Mapping[str, Corpus] = {corpus.name: corpus for corpus in _CORPORA}
