"""Reading raw CBLUE corpora: one reader a family, all in `CORPORA`."""

from __future__ import annotations

from collections.abc import Mapping

from promptcblue_dataset.corpora import classification, dialogues, extraction, normalization, pairs, retrieval
from promptcblue_dataset.corpora.reading import Corpus

#: Every raw corpus by name. Those that take longest come first, so that worker processes end together.
CORPORA: Mapping[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        dialogues.IMCS,
        normalization.CDN,
        dialogues.MDCFNPC,
        retrieval.IR,
        dialogues.MEDDG,
        extraction.CMEIE,
        extraction.CMEEE,
        classification.CTC,
        pairs.QTR,
        extraction.CDEE,
        pairs.STS,
        pairs.QQR,
        classification.QIC,
    )
}
