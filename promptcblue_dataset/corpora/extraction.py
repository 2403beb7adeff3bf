"""CMeEE-V2 (entities), CMeIE (triples) and CHIP-CDEE (events): a sentence and what stands in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptcblue_dataset.corpora.archives import RawFiles
from promptcblue_dataset.corpora.reading import (
    Content,
    OnError,
    RawError,
    RawSamples,
    Reading,
    Record,
    RecordCorpus,
    labelled,
    records_of,
    renamed,
    stop,
)

_entity_type = renamed(
    {
        "dis": "疾病",
        "sym": "临床表现",
        "pro": "医疗程序",
        "equ": "医疗设备",
        "dru": "药物",
        "ite": "医学检验项目",
        "bod": "身体部位",
        "dep": "医院科室",
        "mic": "微生物类",
    }
)
_TENDENCIES = ("", "否定", "不确定")


@labelled("entities")
def _entities(record: Record) -> Content:
    """Mentions come from the offsets (``end_idx`` is the last character) where the record does not spell them out."""
    text = record.get("text")
    found = []
    for entity in sorted(record.records("entities"), key=_start):
        mention = entity.line("entity") if entity.has("entity") else _span(entity, text)
        found.append({"entity": mention, "type": _entity_type(entity, "type", entity.label("type"))})
    return Content({"INPUT_TEXT": record.line("text")}, _unique(found))


def _start(entity: Record) -> tuple[int, int]:
    return (_offset(entity, "start_idx"), _offset(entity, "end_idx"))


def _offset(entity: Record, name: str) -> int:
    value = entity.get(name)
    return value if isinstance(value, int) else entity.fail(name, "an integer", value)


def _span(entity: Record, text: str) -> str:
    start, end = _start(entity)
    mention = text[start : end + 1].strip() if 0 <= start <= end < len(text) else ""
    return mention or entity.fail("end_idx", f"a span within {len(text)} characters", [start, end])


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
        if tendency not in _TENDENCIES:
            event.fail("tendency", f"one of {_TENDENCIES}", tendency)
        found.append(
            {
                "主体词": event.line("core_name", empty=True),
                "发生状态": tendency,
                "描述词": event.texts("character"),
                "解剖部位": event.texts("anatomy_list"),
            }
        )
    return Content({"INPUT_TEXT": record.line("text")}, found)


def _unique(items: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The items without repetitions: an answer is a set."""
    return list({tuple(item.values()): item for item in items}.values())


@dataclass(frozen=True)
class RelationCorpus(RecordCorpus):
    """A corpus of triples, whose relations stand in a schema file, or else in the triples themselves."""

    schemas: str = r".*schemas?\.jsonl?"

    def read(self, files: RawFiles, tasks: Sequence[str], seed: int, on_error: OnError = stop) -> Reading | None:
        reading = super().read(files, tasks, seed, on_error)
        if reading is None:
            return None
        path = files.find(self.schemas)
        if path:
            relations = [record.line("predicate") for record in records_of(path, on_error)]
        else:
            groups = [group for of_split in reading.samples[self.name].values() for group in of_split]
            relations = sorted(relation for group in groups for relation in _relations(group))
        reading.offers[self.name] = list(dict.fromkeys(relations))
        return reading


def _relations(group: RawSamples) -> list[str]:
    try:
        return [triple["predicate"] for key in group.keys for triple in group.load(key).answer]
    except RawError:
        return []  # named when the sample is drawn


CMEEE = RecordCorpus("CMeEE-V2", r"CMeEE(-V2)?", {"CMeEE-V2": _entities})
CMEIE = RelationCorpus("CMeIE", r"CMeIE(-V2)?", {"CMeIE": _triples})
CDEE = RecordCorpus("CHIP-CDEE", "CHIP-CDEE", {"CHIP-CDEE": _events})
