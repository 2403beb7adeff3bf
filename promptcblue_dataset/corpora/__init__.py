"""Reading the raw corpora of CBLUE and ChineseBLUE: all of each suite by name."""

from __future__ import annotations

from collections.abc import Mapping

from promptcblue_dataset.corpora import cblue, dialogues
from promptcblue_dataset.corpora.reading import Corpus

#: Every raw corpus of CBLUE by name. Those that take longest come first, so that worker processes end together.
CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
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
    )
}
