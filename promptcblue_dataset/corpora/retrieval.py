"""KUAKE-IR: queries, a million documents, and which of them answer which query.

The documents are passed over once and never kept: of those that the relevance files name, the place in the file is
noted, and a text is read from there when its sample is drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_dataset.corpora.reading import (
    Content,
    Corpus,
    OnError,
    RawError,
    RawSamples,
    Reading,
    split_files,
    stop,
)
from promptcblue_dataset.draws import Draws

_TABLE = r"\.(tsv|txt)"


@dataclass(frozen=True)
class RetrievalCorpus(Corpus):
    """Tables of ``id<TAB>text`` for documents and queries, and of ``query id<TAB>document id`` for relevance.

    Each relevant pair gives a sample, and so does its query with a document drawn from those that are relevant to
    other queries of the split, which makes the labels even.
    """

    name: str

    @property
    def tasks(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.name,)

    def read(self, files: RawFiles, tasks: Sequence[str], seed: int, on_error: OnError = stop) -> Reading | None:
        relevance = split_files(files, rf"({self.name}|qrels?)", _TABLE)
        relevance |= split_files(files, rf"({self.name}|qrels?)", rf"[._-](qrels?|relevance){_TABLE}")
        if not relevance:
            return None
        documents = files.find(rf"({self.name}[_-])?corpus{_TABLE}")
        if documents is None:
            raise RawError(f"{files.root}: {self.name} needs its documents (corpus.tsv); put them beside the corpus")
        queries = split_files(files, rf"({self.name})", rf"[._-]quer(y|ies){_TABLE}")
        queries |= split_files(files, rf"({self.name}[_-])?quer(y|ies)", _TABLE)
        reading = Reading()
        pairs = {split: list(_pairs(path, on_error)) for split, path in relevance.items()}
        offsets = _offsets(documents, {document for of_split in pairs.values() for _, _, document in of_split})
        for split, of_split in pairs.items():
            if split not in queries:
                raise RawError(f"{files.root}: {self.name} has no queries for {relevance[split].name}")
            texts = dict(_rows(queries[split]))
            relevant: dict[str, list[str]] = {}
            for line, query, document in of_split:
                if query in texts and document in offsets:
                    relevant.setdefault(query, []).append(document)
                    continue
                for field, kind, known in (("query id", query, texts), ("document id", document, offsets)):
                    if kind not in known:
                        path = relevance[split]
                        on_error(RawError(f"{path}: line {line}: field '{field}': expected a known id, found {kind!r}"))
            table = _Split(relevance[split], texts, documents, offsets, relevant, seed)
            reading.samples.setdefault(self.name, {})[split] = [
                RawSamples(
                    query, [(query, document, related) for document in found for related in table.labels], table.load
                )
                for query, found in relevant.items()
            ]
        return reading


@dataclass(frozen=True)
class _Split:
    """The tables of a split: where it stands, query texts, documents and their places, and what answers what."""

    path: Path
    queries: Mapping[str, str]
    documents: Path
    offsets: Mapping[str, int]
    relevant: Mapping[str, Sequence[str]]
    seed: int

    @cached_property
    def ids(self) -> list[str]:
        """The documents that are relevant to some query."""
        return sorted({document for of_query in self.relevant.values() for document in of_query})

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels that each relevant document gives a sample of."""
        return ("相关", "不相关") if len(self.ids) > 1 else ("相关",)

    def load(self, key: tuple[str, str, str]) -> Content:
        """The query with its document, or with one that answers others and is drawn for this pair."""
        query, document, label = key
        if label == "不相关":
            draws = Draws(self.seed, self.path.name, query, document)
            others = (self.ids[place] for place in draws.order(len(self.ids)))
            document = next((other for other in others if other not in self.relevant[query]), "")
        return Content({"INPUT_TEXT_1": self.queries[query], "INPUT_TEXT_2": self._text(query, document)}, label)

    def _text(self, query: str, document: str) -> str:
        if document not in self.offsets:
            raise RawError(f"{self.path}: query {query}: expected a document that does not answer it, found none")
        with self.documents.open("rb") as stream:
            stream.seek(self.offsets[document])
            line = stream.readline()
        try:
            text = line.decode().partition("\t")[2].strip()
        except UnicodeDecodeError as error:
            raise RawError(f"{self.documents}: document {document}: expected UTF-8: {error}") from error
        if not text or not self.queries[query]:
            raise RawError(f"{self.path}: query {query}, document {document}: expected two texts, found an empty one")
        return text


def _pairs(path: Path, on_error: OnError) -> Iterator[tuple[int, str, str]]:
    for line, (query, document) in enumerate(_rows(path), 1):
        if query and document:
            yield line, query, document
        else:
            on_error(RawError(f"{path}: line {line}: expected query id, tab, document id"))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """What stands before and after the first tab of each line."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            for line in stream:
                first, _, rest = line.partition("\t")
                yield first.strip(), rest.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RawError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _offsets(path: Path, wanted: Collection[str]) -> dict[str, int]:
    """Where in the file the lines of the wanted documents begin."""
    sought = {document.encode() for document in wanted}
    found: dict[str, int] = {}
    place = 0
    try:
        with path.open("rb", buffering=1 << 20) as stream:
            for line in stream:
                document = line.partition(b"\t")[0]
                if document in sought:
                    found[document.decode()] = place
                place += len(line)
    except OSError as error:
        raise RawError(f"{path}: cannot be read: {error.strerror or error}") from error
    return found


IR = RetrievalCorpus("KUAKE-IR")
