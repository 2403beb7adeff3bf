"""The corpora of CBLUE whose records are texts with an answer, and KUAKE-IR; those of dialogues are in `dialogues`."""

from __future__ import annotations

import codecs
import csv
import re
import zipfile
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from operator import itemgetter
from typing import Any, BinaryIO

from promptcblue_dataset.corpora.archives import RawError, RawFile, RawFiles
from promptcblue_dataset.corpora.reading import (
    UNLABELLED,
    Composed,
    Content,
    Corpus,
    FileNotes,
    Group,
    RawSplit,
    Reading,
    Record,
    RecordCorpus,
    Sources,
    asked_for,
    labelled,
    lines_of,
    our_label,
    records_of,
    split_name,
    unquoted,
)
from promptcblue_dataset.draws import Draws
from promptcblue_dataset.neighbours import Candidates
from promptcblue_metric.answers import CausalLines, TreeLines
from promptcblue_metric.data.raw_labels import RAW_LABELS, plain, sample_id_of
from promptcblue_metric.data.samples import SPLITS

# --- A sentence and what stands in it ---


@labelled("entities")
def _entities(record: Record) -> Content:
    """Mentions come from the offsets (``end_idx`` is the last character) where the record does not spell them out."""
    line, text = record.line("text"), record.get("text")
    spans = [(entity.number("start_idx"), entity.number("end_idx"), entity) for entity in record.records("entities")]
    found = []
    for start, end, entity in sorted(spans, key=itemgetter(0, 1)):
        within = 0 <= start <= end < len(text)
        spelt = text[start : end + 1].strip() if within else ""
        mention = entity.line("entity") if entity.has("entity") else spelt
        if not mention:
            entity.fail("end_idx", f"a span within {len(text)} characters", [start, end])
        if mention != spelt:
            _offsets_differ(entity, text, mention, (start, end))
        found.append({"entity": mention, "type": our_label(entity, "type", "CMeEE-V2")})
    return Content({"INPUT_TEXT": line}, _unique(found))


def _offsets_differ(entity: Record, text: str, mention: str, span: tuple[int, int]) -> None:
    """Note that a mention that is spelled out is not what stands at its offsets; it has to be somewhere in the text."""
    start, end = span
    if "".join(mention.split()) not in "".join(text.split()):
        entity.fail("entity", "a mention that stands in the text", mention)
    if 0 <= start < end and text[start:end].strip() == mention:
        kind = "end_idx is behind the entity's last character"
    elif 0 <= start <= end < len(text):
        kind = "an entity that is not at its offsets"
    else:
        kind = "an entity whose offsets are not within the text"
    entity.place.note("kept", kind, f"{mention} {start} {end}")


@labelled("spo_list")
def _triples(record: Record) -> Content:
    found = [
        {"predicate": triple.line("predicate"), "subject": triple.line("subject"), "object": _object(triple)}
        for triple in record.records("spo_list")
    ]
    return Content({"INPUT_TEXT": record.line("text")}, _unique(found))


def _object(triple: Record) -> str:
    return triple.line("object") if isinstance(triple.get("object"), str) else triple.record("object").line("@value")


@labelled("event")
def _events(record: Record) -> Content:
    found = []
    for event in record.records("event"):
        tendency = event.line("tendency", empty=True)
        if tendency not in RAW_LABELS["CHIP-CDEE"].ours:
            event.fail("tendency", f"one of {list(RAW_LABELS['CHIP-CDEE'].ours)}", tendency)
        found.append(
            {
                "主体词": event.line("core_name", empty=True),
                "发生状态": tendency,
                "描述词": event.texts("character"),
                "解剖部位": event.texts("anatomy_list"),
            }
        )
    return Content({"INPUT_TEXT": record.line("text")}, found)


#: The relations of CMedCausal by the numbers that its records have for them.
_CAUSAL = {int(number): relation for number, relation in RAW_LABELS["CMedCausal"].ours.items()}


@labelled("relation_of_mention")
def _causal(record: Record) -> Content:
    """Under 条件关系 the tail is itself a causal triple.

    Fields and relation numbers are those of CBLUE's format checker and of the example in the corpus's description. Not
    verified, since no file of the corpus is public: the names of the train and dev files, and that a mention is spelt
    as at its offsets. The checker lets an inner relation be 上下位关系 too, which the benchmark's answers cannot say.
    """
    found = [_causal_triple(triple) for triple in record.records("relation_of_mention")]
    found.sort(key=lambda item: list(_CAUSAL.values()).index(item["predicate"]))
    return Content({"INPUT_TEXT": record.line("text")}, list({repr(item): item for item in found}.values()))


def _causal_triple(triple: Record) -> dict[str, Any]:
    number, tail = triple.number("relation"), triple.record("tail")
    if number not in _CAUSAL:
        triple.fail("relation", f"one of {list(_CAUSAL)}", number)
    head = triple.record("head").line("mention")
    if number == 2:
        if tail.has("relation") and tail.get("relation") != 1:
            tail.fail("relation", "1, the one inner relation that answers can say", tail.get("relation"))
        inner = {"predicate": _CAUSAL[1], "subject": tail.record("head").line("mention")}
        inner["object"] = tail.record("tail").line("mention")
        return {"predicate": _CAUSAL[number], "subject": head + CausalLines.marker, "object": inner}
    return {"predicate": _CAUSAL[number], "subject": head, "object": tail.line("mention")}


def _tree(record: Record) -> Iterable[Group]:
    """Nodes in preorder; the text's ``@`` stands behind the patients that it is about. No tree is without nodes.

    Fields, roles, relations and the preorder are those of CBLUE's format checker and of published examples. Not
    verified, since no file of the corpus is public: the names of the train and dev files, and whether all its trees
    pass that check.
    """
    if not record.has("tree") or not record.items("tree"):
        record.get("text")
        return record.place.note("left out", UNLABELLED)
    nodes = []
    for node in record.records("tree"):
        triples = node.items("triples")
        if not all(isinstance(t, list) and len(t) == 3 and all(isinstance(part, str) for part in t) for t in triples):
            node.fail("triples", "lists of three strings", triples)
        role, relation = node.line("role"), node.line("logical_rel")
        stripped = [[" ".join(part.split()) for part in triple] for triple in triples]
        nodes.append({"role": role, "logical_rel": relation, "triples": stripped})
    if any(problem.kind == "broken tree" for problem in _TREE.parse(_TREE.render(nodes, strict=False)).problems):
        record.fail("tree", "a binary tree in preorder", [node["role"] for node in nodes])
    return record.alone(Content({"INPUT_TEXT": record.line("text")}, nodes))


_TREE = TreeLines()


def _unique(items: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The items without repetitions: an answer is a set."""
    return list({tuple(item.values()): item for item in items}.values())


def _offer_relations(reading: Reading, sources: Sources) -> None:
    """The relations of the schema file, or else of the triples themselves; where there are none, all that there are.

    The triples' own are spelt as that file does, or else as CMeIE; those that it lacks are counted and not asked for.
    """
    relations: list[str] = []
    if file := sources.others.get("schemas"):
        relations = [record.line("predicate") for record in records_of(file, FileNotes(file.name), Record)]
    spelt = {plain(name): name for name in relations or RAW_LABELS["CMeIE"].ours}
    for notes, content in _contents(reading):
        for triple in content.answer:
            given, number = triple["predicate"], int(content.place) + 1
            triple["predicate"] = name = given if given in relations else spelt.get(plain(given), given)
            if name != given:
                notes.add("mended", f"label {given}: read as {name}", number)
            elif relations and name not in relations:
                notes.add("kept", "a relation that the schema file does not have", number, name)
        content.answer[:] = _unique(content.answer)
    found = sorted({item["predicate"] for _, content in _contents(reading) for item in content.answer})
    offered = relations if found and relations else found or RAW_LABELS["CMeIE"].ours
    reading.offers["CMeIE"] = list(dict.fromkeys(offered))


def _contents(reading: Reading) -> Iterator[tuple[FileNotes, Content]]:
    """All samples of a reading, each with the notes on its file."""
    for of_task in reading.splits.values():
        for split in of_task.values():
            for group in split.groups:
                yield from ((split.notes, content) for content in group.samples)


# --- Diagnoses as doctors write them, and the sheet of ICD-10 terms that they are matched with ---

_CODE = re.compile(r"[A-Z]\d{2}[\d.xX+*†A-Z/-]*")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_TERM_HEADING = re.compile(r".*(名称|术语|标准词)|(诊断|疾病)名|(term|name)s?", re.IGNORECASE)
#: Which part of the terms of the answers a sheet holds at least.
_FEWEST_TERMS = 0.1
#: What is written where no term of the sheet fits.
_NO_TERM = "O"
#: Places of cells and rows in the XML of a sheet, and how many cells, empty ones included, one may have.
_CELL = re.compile(rb'\sr="([A-Z]*)(\d+)"')
_MAX_CELLS, _MAX_SHEET = 50_000_000, 512 << 20


@labelled("normalized_result")
def _terms(record: Record) -> Content:
    listed = isinstance(record.get("normalized_result"), list)
    parts = record.texts("normalized_result") if listed else [record.line("normalized_result")]
    parts = [part for written in parts for part in unquoted(written, record.place).split("##")]
    terms = [unquoted(part.strip(), record.place).strip() for part in parts]
    if _NO_TERM in terms:
        record.place.note("mended", f"the term {_NO_TERM}: no term")
    kept = [term for term in dict.fromkeys(terms) if term not in ("", _NO_TERM)]
    answer = [{"entity": term, "type": "normalization"} for term in kept]
    return Content({"INPUT_TEXT": unquoted(record.line("text"), record.place)}, answer)


def _offer_terms(reading: Reading, sources: Sources) -> None:
    """The terms of the sheet, without which there is no task; terms of answers that it lacks are counted."""
    if "terms" not in sources.others:
        raise RawError(
            "its sheet of ICD-10 terms (国际疾病分类 ICD-10北京临床版v601.xlsx) is not there; put it beside the corpus "
            "or leave the task out with --tasks"
        )
    file = sources.others["terms"]
    answers = {item["entity"] for _, content in _contents(reading) for item in content.answer}
    reading.offers["CHIP-CDN"] = terms = read_terms(file, answers)
    known = set(terms)
    if (held := len(answers & known)) < _FEWEST_TERMS * len(answers):
        counts = f"{held} of the {len(answers)} terms of the answers"
        raise RawError(
            f"{file.name}: holds {counts}; put the corpus's own sheet in its place, or choose it with --use FILE"
        )
    for notes, content in _contents(reading):
        for item in content.answer:
            if item["entity"] not in known:
                notes.add("kept", "a term that the sheet does not have", int(content.place) + 1, item["entity"])


def read_terms(file: RawFile, answers: Collection[str] = ()) -> list[str]:
    """The terms of a table whose rows hold an ICD-10 code and a term; other rows are headings.

    They stand in the column with the most of the ``answers``; of several, in the one whose heading says so.

    Raises:
        RawError: the file cannot be read, or no row is of that kind.
    """
    headed: set[int] = set()
    rows: list[list[str]] = []
    for row in _sheet_rows(file) if file.path.suffix.lower() == ".xlsx" else _text_rows(file):
        cells = [" ".join(str(cell).split()) if cell is not None else "" for cell in row]
        if any(map(_CODE.fullmatch, cells)):
            rows.append(cells)
        else:
            headed.update(place for place, cell in enumerate(cells) if _TERM_HEADING.fullmatch(cell))
    columns = [dict.fromkeys(column) for column in zip_longest(*rows, fillvalue="")]

    def fits(place: int) -> tuple[int, bool, int]:
        names = [cell for cell in columns[place] if _CHINESE.search(cell)]
        return len(set(names).intersection(answers)), bool(names) and place in headed, len(names)

    best = max(range(len(columns)), key=fits, default=0)
    if not columns or not fits(best)[-1]:
        raise RawError(f"{file.name}: expected rows of an ICD-10 code and a term, found none")
    return [cell for cell in columns[best] if cell and not _CODE.fullmatch(cell)]


def _sheet_rows(file: RawFile) -> Iterator[Sequence[object]]:
    from python_calamine import CalamineError, CalamineWorkbook

    file.check()
    try:
        _check_size(file)
        book = CalamineWorkbook.from_path(file.path)
        for name in book.sheet_names:
            yield from book.get_sheet_by_name(name).iter_rows()
    except (CalamineError, OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise RawError(f"{file.name}: cannot be read as a spreadsheet: {error}") from error


def _check_size(file: RawFile) -> None:
    """Refuse a spreadsheet that would need memory without end: its cells are laid out with all the empty ones."""
    with zipfile.ZipFile(file.path) as book:
        if sum(part.file_size for part in book.infolist()) > _MAX_SHEET:
            raise RawError(f"{file.name}: unpacks to more than {_MAX_SHEET >> 20} MiB; no sheet of terms does")
        for part in book.namelist():
            if part.startswith("xl/worksheets/") and part.endswith(".xml"):
                cells = _CELL.findall(book.read(part))
                rows = max((int(row) for _, row in cells), default=0)
                columns = max((_column(column) for column in {column for column, _ in cells}), default=0)
                if rows * columns > _MAX_CELLS:
                    raise RawError(
                        f"{file.name}: has a cell in row {rows:,} and one in column {columns:,}; no sheet of terms does"
                    )


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _text_rows(file: RawFile) -> Iterator[Sequence[str]]:
    lines = (line for _, line in lines_of(file.read(), FileNotes(file.name)))
    return csv.reader(lines) if file.path.suffix.lower() == ".csv" else (line.split("\t") for line in lines)


# --- A text or two, and a label ---


def _labels(task: str, *fields: str, finish: Callable[[Reading, Sources], None] | None = None) -> RecordCorpus[Record]:
    placeholders = ("INPUT_TEXT",) if len(fields) == 1 else ("INPUT_TEXT_1", "INPUT_TEXT_2")
    names = tuple(zip(placeholders, fields, strict=True))

    @labelled("label", fields[0])
    def content(record: Record) -> Content:
        label = our_label(record, "label", task)
        texts = {placeholder: record.line(field) for placeholder, field in names}
        if record.place.notes.labels.setdefault(tuple(texts.values()), label) != label:
            record.place.note("kept", "texts of an earlier record, with another label", " | ".join(texts.values()))
        return Content(texts, label)

    return RecordCorpus(task, [task], {task: content}, {task: asked_for(**dict(names))}, finish=finish)


# --- Queries, a million documents, and which of them answer which query ---

_TABLE = r"\.(tsv|txt)"


@dataclass(frozen=True)
class RetrievalCorpus(Corpus):
    """Tables of ``id<TAB>text`` for documents and queries, and of ``query id<TAB>document id`` for relevance.

    Each relevant pair gives a sample, and so does its query with a document drawn from those that are relevant to
    other queries of the split, which makes the labels even. The documents are passed over once, and only those that the
    relevance files name are kept.
    """

    name: str

    def find(self, files: RawFiles) -> Sources:
        """The files of queries, each with the relevance file if there is one, which only the test split can lack."""
        sources = Sources()
        relevance = rf"{self.name}|qrels?"
        for split in SPLITS:
            found = files.find(split_name(relevance, split, rf"([._-](qrels?|relevance))?{_TABLE}"), [self.name])
            after = split_name(self.name, split, rf"[._-]quer(y|ies){_TABLE}")
            before = split_name(rf"({self.name}[_-])?quer(y|ies)", split, _TABLE)
            queries = files.find(f"{after}|{before}", [self.name])
            if found or (queries and split == "test"):
                sources.splits.setdefault(self.name, {})[split] = [file for file in (queries, found) if file]
        if documents := files.find(rf"({self.name}[_-])?corpus{_TABLE}", [self.name]):
            sources.others["documents"] = documents
        return sources

    def read(self, sources: Sources, seed: int = 0) -> Reading:
        """Which documents answer which query; the texts are read when they are asked for."""
        reading = Reading()
        try:
            documents = self._documents(sources)
            tables = {
                split: _Tables(files)
                for split, files in sources.splits[self.name].items()
                if split != "test" or len(files) == 2
            }
            texts = _wanted(documents, {document for split in tables.values() for _, _, document in split.pairs})
            reading.splits[self.name] = {
                split: RawSplit(found.notes, list(found.groups(texts, seed))) for split, found in tables.items()
            }
        except RawError as error:
            reading.refuse(self.name, str(error))
        return reading

    def ask(self, sources: Sources) -> Reading:
        """Ten documents of each query of the test file, those that BM25 finds; CBLUE takes ten."""
        reading, files = Reading(), sources.splits[self.name].get("test")
        if not files:
            return reading
        try:
            documents, split = self._documents(sources), RawSplit(FileNotes(files[0].name))
            queries = _texts(files[0], split.notes)
            for query, found in zip(queries, _nearest(documents, list(queries.values())), strict=True):
                fields = {"INPUT_TEXT_1": queries[query]}
                samples = [Content({**fields, "INPUT_TEXT_2": text}, [], sample_id_of(query, i)) for i, text in found]
                split.groups.append(Group(query, samples))
            reading.splits[self.name] = {"test": split}
        except RawError as error:
            reading.refuse(self.name, str(error))
        return reading

    @staticmethod
    def _documents(sources: Sources) -> RawFile:
        if "documents" not in sources.others:
            raise RawError("its documents (corpus.tsv) are not there; put them beside the corpus")
        sources.others["documents"].check_text()
        return sources.others["documents"]


class _Tables:
    """The tables of a split; its pairs are line, query and document of each line of the relevance file."""

    def __init__(self, files: Sequence[RawFile]) -> None:
        *queries, self._file = files
        if not queries:
            raise RawError(f"{self._file.name}: its file of queries is not there; put it beside it")
        self.notes, of_queries = FileNotes(self._file.name), FileNotes(queries[0].name)
        self._queries = _texts(queries[0], of_queries)
        self.notes.bad += of_queries.bad
        self.pairs = list(_relevant(self._file, self.notes))

    def groups(self, texts: Mapping[str, str], seed: int) -> Iterator[Group]:
        """A group a query, of the texts of the documents ("" where one has none, or several)."""
        relevant: dict[str, list[str]] = {}
        for line, query, document in self.pairs:
            if not document:
                self.notes.add("left out", UNLABELLED, line)
                continue
            known = self._queries.get(query)
            if known and texts.get(document):
                relevant.setdefault(query, []).append(document)
                continue
            field, name = ("document id", document) if known else ("query id", query)
            message = f"{self.notes.path}: line {line}: field '{field}': expected the id of one text, found {name!r}"
            self.notes.add("skipped", "an id of no text, or of several", line, name, message=message)
        ids = sorted({document for found in relevant.values() for document in found})

        def compose(pair: tuple[str, str, str]) -> Content:
            """The query with its document, or with one that answers others and is drawn for this pair."""
            query, document, label = pair
            if label != _RELEVANCE[0]:
                order = Draws(seed, self._file.name.name, query, document).order(len(ids))
                document = next(ids[place] for place in order if ids[place] not in relevant[query])
            return Content({"INPUT_TEXT_1": self._queries[query], "INPUT_TEXT_2": texts[document]}, label, query)

        for query, found in relevant.items():
            labels = _RELEVANCE if len(ids) > len(set(found)) else _RELEVANCE[:1]  # if there are others
            parts = [(query, document, label) for document in found for label in labels]
            yield Group(query, Composed(parts, compose))


_RELEVANCE = ("相关", "不相关")
#: How many documents of a query CBLUE takes.
_HANDED_IN = 10
_ID = re.compile(r"([a-z]+[-_ ]?)?id", re.IGNORECASE)


def _rows(file: RawFile, notes: FileNotes) -> Iterator[tuple[int, str, str]]:
    """Number of each line but for a header, and what stands before and after its first tab."""
    for number, line in lines_of(file.read(), notes):
        first, _, rest = line.partition("\t")
        if number == 1 and _ID.fullmatch(first.strip()):
            notes.add("left out", "a header", number, line)
            notes.records -= 1
        else:
            yield number, first.strip(), rest.strip()


def _texts(file: RawFile, notes: FileNotes) -> dict[str, str]:
    """The texts of a file by id."""
    texts: dict[str, str] = {}
    for number, name, text in _rows(file, notes):
        if texts.setdefault(name, text) != text:
            notes.add("skipped", "an id of an earlier line, with another text", number, name)
    return texts


def _relevant(file: RawFile, notes: FileNotes) -> Iterator[tuple[int, str, str]]:
    """Number, query and document of each line; with a grade behind them, or also a column between, as TREC has it."""
    for number, query, rest in _rows(file, notes):
        cells = [cell.strip() for cell in rest.split("\t")] if "\t" in rest else [rest]
        if len(cells) > 1 and not re.fullmatch(r"\+?\d+(\.\d*)?", cells[-1]):
            notes.add("skipped", "a grade that is no number from 0", number, cells[-1])
        elif len(cells) > 1 and float(cells[-1]) == 0:
            notes.add("left out", "a document marked as not relevant", number)
        else:
            yield number, query, cells[len(cells) // 3]


@contextmanager
def _lines(file: RawFile) -> Iterator[BinaryIO]:
    """The lines of the documents, of which there may be a million, behind a byte order mark if there is one."""
    try:
        with file.path.open("rb", buffering=1 << 20) as stream:
            if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                stream.seek(0)
            yield stream
    except OSError as error:
        raise RawError(f"{file.name}: cannot be read: {error.strerror or error}") from error


def _document(line: bytes) -> tuple[str, str]:
    """The id and the text of a document, "" where they are not in UTF-8."""
    with suppress(UnicodeDecodeError):
        name, _, text = line.decode().partition("\t")
        return name.strip(), text.strip()
    return line.partition(b"\t")[0].strip().decode(errors="replace"), ""


def _wanted(file: RawFile, documents: Collection[str]) -> dict[str, str]:
    """The texts of the wanted documents, "" of those with none in UTF-8, or with several."""
    sought = {document.encode() for document in documents}
    texts: dict[str, str] = {}
    with _lines(file) as lines:
        for line in lines:
            if line.partition(b"\t")[0].strip() in sought:
                name, text = _document(line)
                if texts.setdefault(name, text) != text:
                    texts[name] = ""
    return texts


def _nearest(file: RawFile, queries: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """The ids and texts of the ten documents that are most like each query; the first ones where too few are."""
    places = array("q")

    def texts() -> Iterator[str]:
        with _lines(file) as lines:
            place = lines.tell()
            for line in lines:
                name, text = _document(line)
                if name and text:
                    places.append(place)
                    yield text
                place += len(line)

    documents = Candidates(texts(), queries)
    with file.path.open("rb") as stream:
        if len(places) < _HANDED_IN:
            raise RawError(f"{file.name}: holds {len(places)} documents; {_HANDED_IN} are handed in for each query")
        for query in queries:
            found = dict.fromkeys([*documents.places(query, _HANDED_IN), *range(_HANDED_IN)])
            rows = []
            for number in list(found)[:_HANDED_IN]:
                stream.seek(places[number])
                rows.append(_document(stream.readline()))
            yield rows


def _refuse_three_labels(reading: Reading, sources: Sources) -> None:
    """The older files of KUAKE-QQR, where 0 is the superset and no relation in one, cannot give the four labels."""
    answers = {content.answer for _, content in _contents(reading) if content.answer}
    if answers and RAW_LABELS["KUAKE-QQR"].ours["-1"] not in answers:
        raise RawError(
            "its files are of the older task with three labels (0, 1 and 2, but no -1), which cannot give the "
            "benchmark's four; get the newer files, or leave the task out with --tasks"
        )


CMEEE = RecordCorpus("CMeEE-V2", ["CMeEE-V2", "CMeEE"], {"CMeEE-V2": _entities})
CMEIE = RecordCorpus(
    "CMeIE",
    ["CMeIE-V2", "CMeIE"],
    {"CMeIE": _triples},
    others={"schemas": r".*schemas?\.jsonl?"},
    finish=_offer_relations,
)
CDEE = RecordCorpus("CHIP-CDEE", ["CHIP-CDEE"], {"CHIP-CDEE": _events})
CAUSAL = RecordCorpus("CMedCausal", ["CMedCausal"], {"CMedCausal": _causal})
TREES = RecordCorpus("Text2DT", ["Text2DT"], {"Text2DT": _tree})
CDN = RecordCorpus(
    "CHIP-CDN",
    ["CHIP-CDN"],
    {"CHIP-CDN": _terms},
    others={"terms": r".*ICD.?10.*\.(xlsx|tsv|txt|csv)"},
    finish=_offer_terms,
)
CTC, QIC = _labels("CHIP-CTC", "text"), _labels("KUAKE-QIC", "query")
STS, QTR = _labels("CHIP-STS", "text1", "text2"), _labels("KUAKE-QTR", "query", "title")
QQR = _labels("KUAKE-QQR", "query1", "query2", finish=_refuse_three_labels)
IR = RetrievalCorpus("KUAKE-IR")
