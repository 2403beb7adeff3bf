"""CHIP-STS, KUAKE-QTR and KUAKE-QQR: two texts and how they relate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_dataset.corpora.reading import (
    UNLABELLED,
    Content,
    Corpus,
    LeftOut,
    OnError,
    RawSamples,
    Reading,
    Record,
    RecordCorpus,
    Samples,
    alone,
    records_of,
    split_files,
    stop,
)

#: Our label for each raw one; None where a raw label says too little to be used.
LabelSet = Mapping[str, "str | None"]


@dataclass(frozen=True)
class PairCorpus(Corpus):
    """A corpus of text pairs whose labels differ between its versions.

    Attributes:
        first, second: names of the fields of the two texts.
        label_sets: the labels of each version. The smallest set that holds every label of the files is theirs.
    """

    name: str
    first: str
    second: str
    label_sets: Sequence[LabelSet]

    @property
    def tasks(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.name,)

    def read(self, files: RawFiles, tasks: Sequence[str], seed: int, on_error: OnError = stop) -> Reading | None:
        paths = split_files(files, self.name).values()
        seen = {
            str(record.value["label"]) for path in paths for record in records_of(path, on_error) if _has_label(record)
        }
        fitting = [labels for labels in self.label_sets if seen <= set(labels)]
        # A label that no version has is an error of its record, found when that is read.
        labels = min(fitting, key=len) if fitting else self.label_sets[0]
        return RecordCorpus(self.name, self.name, {self.name: self._reader(labels)}).read(files, tasks, seed, on_error)

    def _reader(self, labels: LabelSet) -> Samples:
        def samples(record: Record) -> Iterable[RawSamples | LeftOut]:
            if not _has_label(record):
                return (LeftOut(UNLABELLED),)
            raw = record.label("label")
            label = labels[raw] if raw in labels else record.fail("label", f"one of {', '.join(labels)}", raw)
            if label is None:
                return (LeftOut(f"label {raw} stands for several relations in this version of the corpus"),)
            return (alone(record, partial(self._content, label=label)),)

        return samples

    def _content(self, record: Record, label: str) -> Content:
        return Content({"INPUT_TEXT_1": record.line(self.first), "INPUT_TEXT_2": record.line(self.second)}, label)


def _has_label(record: Record) -> bool:
    return record.value.get("label") not in (None, "")


_SUBSET, _SUPERSET, _SAME = {"1": "后者是前者的语义子集"}, {"0": "后者是前者的语义父集"}, {"2": "完全一致"}

STS = PairCorpus("CHIP-STS", "text1", "text2", [{"0": "不是", "1": "是的"}])
QTR = PairCorpus(
    "KUAKE-QTR",
    "query",
    "title",
    [{"0": "完全不匹配或者没有参考价值", "1": "很少匹配有一些参考价值", "2": "部分匹配", "3": "完全匹配"}],
)
QQR = PairCorpus(
    "KUAKE-QQR",
    "query1",
    "query2",
    [
        {"-1": "语义无直接关联", **_SUPERSET, **_SUBSET, **_SAME},
        # Before the corpus was annotated again, 0 was the superset and no relation in one.
        {"0": None, **_SUBSET, **_SAME},
    ],
)
