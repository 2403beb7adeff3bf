"""CHIP-CTC and KUAKE-QIC: a text and its label (that of IMCS-V2-DAC is read with its dialogue)."""

from __future__ import annotations

from collections.abc import Mapping

from promptcblue_dataset.corpora.reading import Content, Record, RecordCorpus, labelled, renamed
from promptcblue_metric.tasks import NONE_OF_THESE, TASKS

# In the order of the task's labels.
_CRITERIA = """\
Disease, Symptom, Sign, Pregnancy-related Activity, Neoplasm Status, Non-Neoplasm Disease Stage, Allergy Intolerance,
Organ or Tissue Status, Life Expectancy, Oral related, Pharmaceutical Substance or Drug, Therapy or Surgery, Device,
Nursing, Diagnostic, Laboratory Examinations, Risk Assessment, Receptor Status, Age, Special Patient Characteristic,
Literacy, Gender, Education, Address, Ethnicity, Consent, Enrollment in other studies, Researcher Decision, Capacity,
Ethical Audit, Compliance with Protocol, Addictive Behavior, Bedtime, Exercise, Diet, Alcohol Consumer, Sexual related,
Smoking Status, Blood Donation, Encounter, Disabilities, Healthy, Data Accessible, Multiple"""


def _offered(task: str) -> list[str]:
    return [label for label in TASKS[task].labels if label != NONE_OF_THESE]


#: Our name of each category of eligibility criteria, by the raw one.
CRITERIA: Mapping[str, str] = dict(zip(" ".join(_CRITERIA.split("\n")).split(", "), _offered("CHIP-CTC"), strict=True))


def _labels(task: str, field: str, names: Mapping[str, str]) -> RecordCorpus:
    rename = renamed(names)

    @labelled("label")
    def content(record: Record) -> Content:
        return Content({"INPUT_TEXT": record.line(field)}, rename(record, "label", record.label("label")))

    return RecordCorpus(task, task, {task: content})


CTC = _labels(
    "CHIP-CTC",
    "text",
    {**CRITERIA, "Other": NONE_OF_THESE},
)
QIC = _labels(
    "KUAKE-QIC",
    "query",
    {**{label: label for label in _offered("KUAKE-QIC")}, "疾病表述": "疾病描述", "其他": NONE_OF_THESE},
)
