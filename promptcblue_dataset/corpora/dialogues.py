"""IMCS-V2 (which feeds four tasks), CHIP-MDCFNPC and MedDG: consultations of patients and doctors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

from promptcblue_dataset.corpora.reading import (
    LIST,
    UNLABELLED,
    Content,
    LeftOut,
    RawSamples,
    Record,
    RecordCorpus,
    Samples,
    alone,
    labelled,
    renamed,
)
from promptcblue_metric.tasks import NONE_OF_THESE, TASKS

#: How many utterances before the current one are shown: by the symptom task, and by the dialogue act task.
SR_HISTORY, DAC_HISTORY = 2, 6

_PATIENT, _DOCTOR = "患者", "医生"
_SPEAKERS = {
    **dict.fromkeys(("患者", "病人", "patient", "patients"), _PATIENT),
    **dict.fromkeys(("医生", "doctor", "doctors"), _DOCTOR),
}
_entity_type = renamed(
    {
        "Symptom": "症状",
        "Drug": "具体的药物名称",
        "Drug_Category": "药物类别",
        "Medical_Examination": "医学检查检验",
        "Operation": "医疗操作",
    }
)
_TOPICS = {
    "Symptom": ("关于症状的询问", "关于症状的回答"),
    "Etiology": ("关于病因的询问", "关于病因的回答"),
    "Basic_Information": ("关于个人基本信息的询问", "关于个人基本信息的回答"),
    "Existing_Examination_and_Treatment": ("关于已有检查和治疗的提问", "关于已有检查和治疗的回答"),
    "Drug_Recommendation": ("关于用药建议的提问", "关于用药建议的解答"),
    "Medical_Advice": ("关于就医建议的提问", "关于就医建议的解答"),
    "Precautions": ("关于注意事项的提问", "关于注意事项的解答"),
}
_act = renamed(
    {
        **{f"Request-{topic}": names[0] for topic, names in _TOPICS.items()},
        **{f"Inform-{topic}": names[1] for topic, names in _TOPICS.items()},
        "Diagnose": "给出诊断",
        "Other": NONE_OF_THESE,
    }
)
_SYMPTOM_STATUSES = dict(zip("012", TASKS["IMCS-V2-SR"].labels, strict=True))
_FINDING_STATUSES = dict(zip(("阳性", "阴性", "其他", "不标注"), TASKS["CHIP-MDCFNPC"].labels, strict=True))
_SECTIONS = ("主诉", "现病史", "辅助检查", "既往史", "诊断", "建议")


def utterance(turn: Record, speaker: str, sentence: str) -> str:
    """``{speaker}：{sentence}``."""
    who = turn.label(speaker)
    return f"{_SPEAKERS.get(who.lower(), who)}：{turn.line(sentence, empty=True)}"


# --- IMCS-V2 ---


def _utterances(label: str, load: Callable[[Record, int], Content]) -> Samples:
    """A sample for each utterance that has the label."""

    def samples(record: Record) -> Iterator[RawSamples | LeftOut]:
        turns = record.items("dialogue")
        # What is no object is an error of its own when it is drawn.
        places = [
            place for place, turn in enumerate(turns) if not isinstance(turn, dict) or turn.get(label) is not None
        ]
        yield RawSamples(record.name, places, partial(load, record))
        yield LeftOut(UNLABELLED, len(turns) - len(places))

    return samples


def _imcs(turn: Record) -> str:
    return utterance(turn, "speaker", "sentence")


def _said_until(record: Record, place: int, history: int) -> list[str]:
    """The utterance at a place and those before it, as far as they are shown."""
    return [_imcs(record.item("dialogue", number)) for number in range(max(0, place - history), place + 1)]


def _mentions(turn: Record) -> list[dict[str, str]]:
    """The entities that an utterance's tags (``O``, ``B-type``, ``I-type``, one a character) mark, in its order."""
    sentence, tags = turn.get("sentence"), _tags(turn)
    if not isinstance(sentence, str):
        turn.fail("sentence", "a string", sentence)
    if len(tags) != len(sentence):
        turn.fail("BIO_label", f"{len(sentence)} tags, one a character", tags)
    found: list[dict[str, str]] = []
    inside = ""
    for character, tag in zip(sentence, tags, strict=True):
        mark, _, kind = tag.partition("-")
        if mark == "B" or (mark == "I" and kind != inside):
            found.append({"entity": character, "type": _entity_type(turn, "BIO_label", kind)})
        elif mark == "I":
            found[-1]["entity"] += character
        elif mark != "O":
            turn.fail("BIO_label", "O, B-type or I-type", tag)
        inside = kind
    return [{**entity, "entity": mention} for entity in found if (mention := entity["entity"].strip())]


def _entities(record: Record, place: int) -> Content:
    turn = record.item("dialogue", place)
    mentions = {tuple(entity.values()): entity for entity in _mentions(turn)}
    return Content({"INPUT_TEXT": turn.line("sentence")}, list(mentions.values()))


def _dialogue_act(record: Record, place: int) -> Content:
    turn = record.item("dialogue", place)
    text = "\n".join(_said_until(record, place, DAC_HISTORY))
    return Content({"INPUT_TEXT": text}, _act(turn, "dialogue_act", turn.label("dialogue_act")))


def _symptoms(record: Record) -> Iterator[RawSamples | LeftOut]:
    places = []
    for place, value in enumerate(record.items("dialogue")):
        given = value.get("symptom_type", value.get("local_implicit_info")) if isinstance(value, dict) else value
        if given is None:
            yield LeftOut(UNLABELLED)
        elif given in ([], {}):
            yield LeftOut("no symptoms in the utterance")
        elif len(_statuses(turn := record.item("dialogue", place))) != _tags(turn).count("B-Symptom"):
            yield LeftOut("tagged symptoms and statuses differ in number")
        else:
            places.append(place)
    yield RawSamples(record.name, places, partial(_symptom_statuses, record))


def _tags(turn: Record) -> list[str]:
    tags = turn.get("BIO_label")
    return tags.split() if isinstance(tags, str) else turn.items("BIO_label")


def _statuses(turn: Record) -> list[str]:
    """The status of each symptom, in the utterance's order, as the corpus writes it."""
    if turn.has("symptom_type"):
        return [str(status) for status in turn.items("symptom_type")]
    info = turn.record("local_implicit_info").value
    return [str(info[name]) for name in turn.texts("symptom_norm") if name in info]


def _symptom_statuses(record: Record, place: int) -> Content:
    turn = record.item("dialogue", place)
    mentions = [entity["entity"] for entity in _mentions(turn) if entity["type"] == "症状"]
    answer = []
    for mention, status in zip(mentions, _statuses(turn), strict=False):
        if status not in _SYMPTOM_STATUSES:
            turn.fail("symptom_type", f"one of {', '.join(_SYMPTOM_STATUSES)}", status)
        answer.append({"entity": mention, "attr": _SYMPTOM_STATUSES[status]})
    *history, current = _said_until(record, place, SR_HISTORY)
    return Content({"INPUT_TEXT": "\n".join(["对话历史：", *history, "当前对话：", current])}, answer)


@labelled("report")
def _report(record: Record) -> Content:
    """Two doctors wrote a report each; the first is taken."""
    reports = record.records("report") if isinstance(record.get("report"), list) else [record.record("report")]
    if not reports:
        record.fail("report", "a report", [])
    report = {section: reports[0].line(section, empty=True) for section in _SECTIONS if reports[0].has(section)}
    if not any(report.values()):
        record.fail("report[0]", f"the sections {', '.join(_SECTIONS)}", dict(reports[0].value))
    lines = [_imcs(turn) for turn in record.records("dialogue")]
    if record.has("self-report", "self_report"):
        opening = f"{_PATIENT}：{record.line('self-report', 'self_report')}"
        lines = lines if lines and lines[0] == opening else [opening, *lines]
    return Content({"INPUT_TEXT": "\n".join(["问诊对话历史：", *lines])}, {s: report.get(s, "") for s in _SECTIONS})


IMCS = RecordCorpus(
    "IMCS-V2",
    r"IMCS(-V2|21)?",
    {
        "IMCS-V2-NER": _utterances("BIO_label", _entities),
        "IMCS-V2-DAC": _utterances("dialogue_act", _dialogue_act),
        "IMCS-V2-SR": _symptoms,
        "IMCS-V2-MRG": _report,
    },
    task_stems={f"IMCS-V2-{task}": rf"IMCS(-V2)?-{task}" for task in ("NER", "DAC", "SR", "MRG")},
)


# --- CHIP-MDCFNPC ---


def _findings(record: Record) -> Iterable[RawSamples | LeftOut]:
    found = [turn.get("ner") for turn in record.items("dialog_info") if isinstance(turn, dict)]
    if all(findings is None for findings in found):
        return (LeftOut(UNLABELLED),)
    return (alone(record, _finding_statuses) if any(found) else LeftOut("no findings in the dialogue"),)


def _finding_statuses(record: Record) -> Content:
    """A finding that comes up several times has the status that it has last."""
    statuses: dict[str, str] = {}
    turns = record.records("dialog_info")
    for turn in turns:
        for finding in turn.records("ner") if turn.has("ner") else ():
            status = finding.label("attr") if finding.has("attr") else ""
            if status not in _FINDING_STATUSES:
                finding.fail("attr", f"one of {', '.join(_FINDING_STATUSES)}", status)
            statuses[finding.line("mention", "name")] = _FINDING_STATUSES[status]
    lines = [utterance(turn, "sender", "text") for turn in turns]
    answer = [{"entity": mention, "attr": status} for mention, status in statuses.items()]
    return Content({"INPUT_TEXT": "\n".join(lines), "LIST_MENTIONS": "，".join(statuses)}, answer)


MDCFNPC = RecordCorpus("CHIP-MDCFNPC", "CHIP-MDCFNPC", {"CHIP-MDCFNPC": _findings})


# --- MedDG ---


def _responses(record: Record) -> Iterator[RawSamples | LeftOut]:
    """A sample for each time that the doctor speaks after the patient; what one says in a row is one turn."""
    turns = record.items(LIST)
    speakers = [_SPEAKERS.get(_name(turn)) or _unknown_speaker(record, place) for place, turn in enumerate(turns)]
    runs = [list(run) for _, run in itertools.groupby(range(len(turns)), key=speakers.__getitem__)]
    spoken = [run for run in runs[1:] if speakers[run[0]] == _DOCTOR]
    keys = [run for run in spoken if any(turns[place].get("Sentence", turns[place].get("sentence")) for place in run)]
    yield RawSamples(record.name, keys, partial(_response, record, speakers))
    if not spoken:
        yield LeftOut("no doctor answers in the dialogue")
    yield LeftOut("the doctor says nothing", len(spoken) - len(keys))


def _name(turn: Any) -> str:
    return str(turn.get("id", turn.get("speaker"))).lower() if isinstance(turn, dict) else ""


def _unknown_speaker(record: Record, place: int) -> NoReturn:
    turn = record.item(LIST, place)
    turn.fail("id", "Patients or Doctor", turn.value.get("id"))


def _response(record: Record, speakers: Sequence[str], run: Sequence[int]) -> Content:
    said = [record.item(LIST, place).text("Sentence", "sentence", empty=True) for place in range(run[-1] + 1)]
    history = [
        f"{who}：" + "\n".join(filter(None, (said[place] for place in places)))
        for who, places in itertools.groupby(range(run[0]), key=speakers.__getitem__)
    ]
    return Content({"INPUT_TEXT": "\n".join(history)}, "\n".join(filter(None, said[run[0] :])))


MEDDG = RecordCorpus("MedDG", "MedDG", {"MedDG": _responses})
