"""IMCS-V2 (which feeds four tasks), CHIP-MDCFNPC and MedDG: consultations of patients and doctors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache

from promptcblue_dataset.corpora.archives import RawError
from promptcblue_dataset.corpora.reading import (
    LIST,
    UNLABELLED,
    Composed,
    Content,
    Group,
    Record,
    RecordCorpus,
    labelled,
    our_label,
    read_label,
)
from promptcblue_metric.answers import Answer, Report
from promptcblue_metric.data.raw_labels import RAW_LABELS, sample_id_of

#: How many utterances before the current one are shown: by the symptom task, and by the dialogue act task.
SR_HISTORY, DAC_HISTORY = 2, 6

_PATIENT, _DOCTOR = "患者", "医生"
_SPEAKERS = {
    **dict.fromkeys(("患者", "病人", "patient", "patients"), _PATIENT),
    **dict.fromkeys(("医生", "doctor", "doctors"), _DOCTOR),
}


def utterance(turn: Record, speaker: str, sentence: str) -> str:
    """``{speaker}：{sentence}``."""
    who = turn.label(speaker)
    return f"{_SPEAKERS.get(who) or _SPEAKERS.get(who.lower(), who)}：{turn.line(sentence, empty=True)}"


# --- IMCS-V2 ---


class Consultation(Record):
    """A dialogue of IMCS-V2, whose parts are made once for its four tasks."""

    @cached_property
    def turns(self) -> list[Record]:
        """Its utterances; of the files of one task's own it can be all that there is."""
        return self.records("dialogue") if "dialogue" in self.value else self.records(LIST)

    @cached_property
    def lines(self) -> list[str]:
        """Speaker and text of each."""
        return [utterance(turn, "speaker", "sentence") for turn in self.turns]

    @cached_property
    def ids(self) -> list[object]:
        """What the file calls each."""
        return [turn.value.get("sentence_id") for turn in self.turns]

    @cached_property
    def mentions(self) -> dict[int, list[dict[str, str]]]:
        """The entities of the utterances whose tags have been read, by place."""
        return {}

    def samples(self, places: Iterable[int], text: Text, answer: AnswerOf) -> Iterable[Group]:
        """A sample for each of some utterances that has an answer; what is wrong with the others is noted."""
        good: dict[int, Answer] = {}  # each read once, so that what is noted of it is counted once
        for place in places if self.lines else ():
            try:
                if (given := answer(self, place)) is not None:
                    good[place] = given
            except RawError as error:
                self.place.bad(error)

        name, lines, ids = self.place.id, self.lines, self.ids  # and not the record, which is large

        def compose(place: int) -> Content:
            return Content({"INPUT_TEXT": text(lines, place)}, good[place], f"{name}_{ids[place]}")

        return (Group(self.place.name, Composed(list(good), compose)),)


#: What a prompt shows of a dialogue to ask about an utterance, and the answer.
Text = Callable[[Sequence[str], int], str]
AnswerOf = Callable[[Consultation, int], Answer | None]


def _asks(text: Text) -> Callable[[Consultation], Iterable[Content]]:
    """What each utterance asks."""

    def asks(record: Consultation) -> Iterable[Content]:
        for place, turn in enumerate(record.turns):
            name = f"{record.place.id}_{turn.label('sentence_id')}"
            yield Content({"INPUT_TEXT": text(record.lines, place)}, [], sample_id_of(name))

    return asks


def _of_utterances(label: str, text: Text, answer: AnswerOf) -> Callable[[Consultation], Iterable[Group]]:
    """A sample for each utterance that has the label."""

    def groups(record: Consultation) -> Iterable[Group]:
        places = [place for place, turn in enumerate(record.turns) if turn.value.get(label) is not None]
        record.place.note("left out", UNLABELLED, times=len(record.turns) - len(places))
        return record.samples(places, text, answer)

    return groups


_split = lru_cache(1 << 12)(str.split)  # most tags are nothing but O's, so the same ones come again and again


def _tags(turn: Record) -> list[str]:
    tags = turn.get("BIO_label")
    return _split(tags) if isinstance(tags, str) else turn.items("BIO_label")


def _mentions(record: Consultation, place: int) -> list[dict[str, str]]:
    """The entities that an utterance's tags (``O``, ``B-type``, ``I-type``, one a character) mark, in its order."""
    if place in record.mentions:
        return record.mentions[place]
    turn = record.turns[place]
    sentence, tags = turn.get("sentence"), _tags(turn)
    if not isinstance(sentence, str):
        turn.fail("sentence", "a string", sentence)
    if len(tags) != len(sentence):
        turn.fail("BIO_label", f"{len(sentence)} tags, one a character", tags)
    found: list[dict[str, str]] = []
    inside, last = "", -1
    for at in [at for at, tag in enumerate(tags) if tag != "O"] if tags.count("O") < len(tags) else ():
        mark, _, kind = tags[at].partition("-")
        if mark == "B" or (mark == "I" and (kind != inside or at > last + 1)):
            known = read_label(kind, "IMCS-V2-NER", turn.place)
            if known is None:
                turn.fail("BIO_label", f"one of {', '.join(RAW_LABELS['IMCS-V2-NER'].ours)}", kind)
            found.append({"entity": sentence[at], "type": known})
        elif mark == "I":
            found[-1]["entity"] += sentence[at]
        else:
            turn.fail("BIO_label", "O, B-type or I-type", tags[at])
        inside, last = kind, at
    record.mentions[place] = [{**entity, "entity": name} for entity in found if (name := entity["entity"].strip())]
    turn.place.note("left out", "an empty mention", sentence, times=len(found) - len(record.mentions[place]))
    return record.mentions[place]


def _sentence_text(lines: Sequence[str], place: int) -> str:
    """The utterance alone, which is asked for its entities."""
    return lines[place].partition("：")[2]


def _entities(record: Consultation, place: int) -> Answer:
    if not _sentence_text(record.lines, place):
        record.turns[place].fail("sentence", "text", "")
    found = _mentions(record, place)
    return list({tuple(entity.values()): entity for entity in found}.values()) if len(found) > 1 else found


def _act_text(lines: Sequence[str], place: int) -> str:
    """The utterance whose act is asked for, and those before it."""
    return "\n".join(lines[max(0, place - DAC_HISTORY) : place + 1])


def _act(record: Consultation, place: int) -> Answer:
    return our_label(record.turns[place], "dialogue_act", "IMCS-V2-DAC")


def _symptoms(record: Consultation) -> Iterable[Group]:
    places = []
    for place, turn in enumerate(record.turns):
        given = turn.value.get("symptom_type", turn.value.get("local_implicit_info"))
        if given is None:
            record.place.note("left out", UNLABELLED)
        elif given in ([], {}):
            record.place.note("left out", "no symptoms in the utterance")
        elif place < SR_HISTORY:
            record.place.note("left out", "symptoms in an utterance with fewer than two before it")
        else:
            places.append(place)
    return record.samples(places, _symptom_text, _statuses_of)


def _statuses(turn: Record) -> list[str]:
    """The status of each symptom, in the utterance's order, as the corpus writes it."""
    if turn.has("symptom_type"):
        return [str(status) for status in turn.items("symptom_type")]
    info = turn.record("local_implicit_info").value
    return [str(info[name]) for name in turn.texts("symptom_norm") if name in info]


def _statuses_of(record: Consultation, place: int) -> Answer | None:
    """The tagged symptoms with their statuses, None where they differ in number; of several statuses the last."""
    turn, names = record.turns[place], RAW_LABELS["IMCS-V2-SR"].ours
    mentions = [entity["entity"] for entity in _mentions(record, place) if entity["type"] == "症状"]
    statuses = _statuses(turn)
    if len(mentions) != len(statuses):
        turn.place.note("left out", "tagged symptoms and statuses differ in number", turn.value["sentence"])
        return None
    last, answer = dict(zip(mentions, statuses, strict=True)), []
    for mention, status in zip(mentions, statuses, strict=True):
        if status not in names:
            turn.fail("symptom_type", f"one of {', '.join(names)}", status)
        if status == last[mention]:
            answer.append({"entity": mention, "attr": names[status]})
        else:
            turn.place.note("mended", "a mention with several statuses: the last taken", mention)
    return answer


def _symptom_text(lines: Sequence[str], place: int) -> str:
    """The utterance that is asked for its symptoms, and those before it."""
    *history, current = lines[max(0, place - SR_HISTORY) : place + 1]
    return "\n".join(["对话历史：", *history, "当前对话：", current])


@labelled("report", "dialogue")
def _report(record: Consultation) -> Content:
    """Two doctors wrote a report each; the first is taken."""
    reports = record.records("report") if isinstance(record.get("report"), list) else [record.record("report")]
    if not reports:
        record.fail("report", "a report", [])
    sections = Report().sections
    report = {section: reports[0].line(section, empty=True) for section in sections if reports[0].has(section)}
    if not any(report.values()):
        record.fail("report[0]", f"the sections {', '.join(sections)}", dict(reports[0].value))
    return Content({"INPUT_TEXT": _report_text(record)}, {s: report.get(s, "") for s in sections})


def _asks_report(record: Consultation) -> Iterable[Content]:
    yield Content({"INPUT_TEXT": _report_text(record)}, [], sample_id_of(record.place.id))


def _report_text(record: Consultation) -> str:
    """What a prompt shows of a dialogue to ask for its report."""
    lines = record.lines
    if record.has("self-report") or record.has("self_report"):
        opening = f"{_PATIENT}：{record.line('self-report', 'self_report')}"
        lines = lines if lines and lines[0] == opening else [opening, *lines]
    return "\n".join(["问诊对话历史：", *lines])


IMCS = RecordCorpus(
    "IMCS-V2",
    ["IMCS-V2", "IMCS21", "IMCS"],
    {
        "IMCS-V2-NER": _of_utterances("BIO_label", _sentence_text, _entities),
        "IMCS-V2-DAC": _of_utterances("dialogue_act", _act_text, _act),
        "IMCS-V2-SR": _symptoms,
        "IMCS-V2-MRG": _report,
    },
    {
        "IMCS-V2-NER": _asks(_sentence_text),
        "IMCS-V2-DAC": _asks(_act_text),
        "IMCS-V2-SR": _asks(_symptom_text),
        "IMCS-V2-MRG": _asks_report,
    },
    own_stems={f"IMCS-V2-{task}": rf"IMCS(-V2)?-{task}" for task in ("NER", "DAC", "SR", "MRG")},
    record_type=Consultation,
)


# --- CHIP-MDCFNPC ---


def _findings(record: Record) -> Iterable[Group]:
    """A sample for each utterance at which a dialogue with findings can be cut; the last status of a finding counts."""
    turns = record.records("dialog_info")
    found = [turn.value.get("ner") for turn in turns]
    if not any(found):
        unlabelled = found.count(None) == len(found)
        return record.place.note("left out", UNLABELLED if unlabelled else "no findings in the dialogue")
    statuses: dict[str, str] = {}
    said: list[tuple[int, str, str]] = []
    for place, turn in enumerate(turns):
        for finding in turn.records("ner") if turn.value.get("ner") else ():
            mention = finding.line("mention", "name")
            if finding.value.get("attr") in (None, ""):
                record.place.note("left out", "a finding without a status", example=mention)
                continue
            status = our_label(finding, "attr", "CHIP-MDCFNPC")
            if statuses.get(mention, status) != status:
                record.place.note("mended", "a mention with several statuses: the last taken", mention)
            statuses[mention] = status
            said.append((place, mention, status))
    lines = [utterance(turn, "sender", "text") for turn in turns]
    name, ids = record.place.id, [turn.value.get("sentence_id") for turn in turns]

    def compose(place: int) -> Content:
        last = {mention: status for at, mention, status in said if at <= place}
        answer = [{"entity": mention, "attr": status} for mention, status in last.items()]
        fields = {"INPUT_TEXT": "\n".join(lines[: place + 1]), "LIST_MENTIONS": "，".join(last)}
        return Content(fields, answer, f"{name}#{ids[place]}")

    first = said[0][0] if said else len(lines)
    return (Group(record.place.name, Composed(range(first, len(lines)), compose)),)


#: The most findings of a dialogue that one prompt asks for.
_MOST_FINDINGS = 8


def _asks_findings(record: Record) -> Iterable[Content]:
    """The dialogue, cut where eight findings were named, and so on; one that comes up again is asked again."""
    turns = record.records("dialog_info")
    lines = [utterance(turn, "sender", "text") for turn in turns]
    named = [
        [finding.line("mention", "name") for finding in (turn.records("ner") if turn.has("ner") else ())]
        for turn in turns
    ]
    if not any(named):
        record.place.note("left out", "no findings to ask about")
    asked: dict[str, None] = {}
    for place, (names, following) in enumerate(zip(named, [*named[1:], None], strict=True)):
        asked.update(dict.fromkeys(names))
        if asked and (following is None or len({*asked, *following}) > _MOST_FINDINGS):
            sample_id = sample_id_of(record.place.id, turns[place].label("sentence_id"))
            fields = {"INPUT_TEXT": "\n".join(lines[: place + 1]), "LIST_MENTIONS": "，".join(asked)}
            yield Content(fields, [], sample_id)
            asked = {}


MDCFNPC = RecordCorpus("CHIP-MDCFNPC", ["CHIP-MDCFNPC"], {"CHIP-MDCFNPC": _findings}, {"CHIP-MDCFNPC": _asks_findings})


# --- MedDG ---


def _responses(record: Record) -> Iterable[Group]:
    """A sample for each thing that the doctor says once the patient has spoken; what one says in a row is one turn."""
    turns = record.records(LIST)
    speakers = [_SPEAKERS.get(turn.label("id" if "id" in turn.value else "speaker").lower(), "") for turn in turns]
    if "" in speakers:
        unknown = turns[speakers.index("")]
        unknown.fail("id", "Patients or Doctor", unknown.value.get("id"))
    said = [turn.text("Sentence", "sentence", empty=True) for turn in turns]
    first = speakers.index(_PATIENT) if _PATIENT in speakers else len(turns)
    spoken = [place for place in range(first, len(turns)) if speakers[place] == _DOCTOR]
    answers = [place for place in spoken if said[place] and any(said[:place])]
    if not spoken:
        record.place.note("left out", "no doctor answers in the dialogue")
    unused = len(spoken) - len(answers)
    record.place.note("left out", "the doctor says nothing, or nothing was said before", times=unused)
    name = record.place.id

    def compose(answer: int) -> Content:
        history = [
            f"{who}：" + "\n".join(filter(None, (said[place] for place in places)))
            for who, places in itertools.groupby(range(answer), key=speakers.__getitem__)
        ]
        return Content({"INPUT_TEXT": "\n".join(history)}, said[answer], name)

    return (Group(record.place.name, Composed(answers, compose)),)


def _asks_response(record: Record) -> Iterable[Content]:
    said = record.texts("history") if isinstance(record.get("history"), list) else [record.text("history")]
    yield Content({"INPUT_TEXT": "\n".join(said)}, [], sample_id_of(record.place.id))


MEDDG = RecordCorpus("MedDG", ["MedDG"], {"MedDG": _responses}, {"MedDG": _asks_response})
