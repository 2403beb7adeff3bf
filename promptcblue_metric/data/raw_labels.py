"""The labels of the raw corpora, a table a task, read both ways: by raw readers and by CBLUE's submission.

Our labels stand in the registry; here is what the raw files of CBLUE and ChineseBLUE write for each (formats.md, 6-8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..answers import CausalLines, EventLines
from ..tasks import NONE_OF_THESE, REGISTRY


def plain(spelling: str) -> str:
    """A label's letters and digits in lower case, so that spellings that differ in hyphens or blanks are equal."""
    return "".join(character for character in spelling.casefold() if character.isalnum())


@dataclass(frozen=True)
class RawLabels:
    """The labels of a raw corpus.

    Attributes:
        ours: our label of each raw one.
        raw: the raw label of each of ours, as CBLUE takes it in a submission; its values are all that CBLUE takes.
        odd: raw labels that are taken for others.
    """

    ours: Mapping[str, str]
    raw: Mapping[str, str]
    odd: Mapping[str, str] = field(default_factory=dict)
    _plain: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for raw, label in self.ours.items():
            for spelling in map(plain, (raw, label)):
                if spelling and not spelling.isdigit():
                    self._plain[spelling] = label

    def read(self, label: str) -> str | None:
        """Our label for a raw one, which may be spelt as ours, or differ in case, hyphens and blanks; None if unknown.

        Numbers have to be spelt as they are: ``-1`` is not ``1``.
        """
        found = self.ours.get(label)
        return found if found is not None else self._plain.get(plain(label))


def _labels(task: str, raw: Iterable[str], ours: Iterable[str] = (), **more: str) -> tuple[str, RawLabels]:
    """The labels of a task, in the order of ours; what is read besides is in ``more``, the raw ones being its names."""
    names = dict(zip(raw, ours or REGISTRY[task].labels, strict=True))
    odd = {name.replace("其他", "其它"): name for name in names if "其他" in name}
    return task, RawLabels({**names, **more}, {label: name for name, label in names.items()}, odd)


_CRITERIA = (
    "Disease", "Symptom", "Sign", "Pregnancy-related Activity", "Neoplasm Status", "Non-Neoplasm Disease Stage",
    "Allergy Intolerance", "Organ or Tissue Status", "Life Expectancy", "Oral related",
    "Pharmaceutical Substance or Drug", "Therapy or Surgery", "Device", "Nursing", "Diagnostic",
    "Laboratory Examinations", "Risk Assessment", "Receptor Status", "Age", "Special Patient Characteristic",
    "Literacy", "Gender", "Education", "Address", "Ethnicity", "Consent", "Enrollment in other studies",
    "Researcher Decision", "Capacity", "Ethical Audit", "Compliance with Protocol", "Addictive Behavior", "Bedtime",
    "Exercise", "Diet", "Alcohol Consumer", "Sexual related", "Smoking Status", "Blood Donation", "Encounter",
    "Disabilities", "Healthy", "Data Accessible", "Multiple",
)  # fmt: skip
_RELATIONS = (
    "预防", "阶段", "就诊科室", "同义词", "辅助治疗", "化疗", "放射治疗", "手术治疗", "实验室检查", "影像学检查",
    "辅助检查", "组织学检查", "内窥镜检查", "筛查", "多发群体", "发病率", "发病年龄", "多发地区", "发病性别倾向",
    "死亡率", "多发季节", "传播途径", "并发症", "病理分型", "相关（导致）", "鉴别诊断", "相关（转化）",
    "相关（症状）", "临床表现", "治疗后症状", "侵及周围组织转移的症状", "病因", "高危因素", "风险评估因素",
    "病史", "遗传因素", "发病机制", "病理生理", "药物治疗", "发病部位", "转移部位", "外侵部位", "预后状况",
    "预后生存率",
)  # fmt: skip
_DECISIONS = ("临床表现", "治疗药物", "用法用量", "治疗方案", "禁用药物", "基本情况")
_TOPICS = (
    "Symptom", "Etiology", "Basic_Information", "Existing_Examination_and_Treatment", "Drug_Recommendation",
    "Medical_Advice", "Precautions",
)  # fmt: skip
_ACTS = ("Other", *(f"{kind}-{topic}" for topic in _TOPICS for kind in ("Request", "Inform")), "Diagnose")
_COMMUNITY = "disease body symptom treatment crowd drug test physiology feature time department"
_INTENTS = [label for label in REGISTRY["KUAKE-QIC"].labels if label != NONE_OF_THESE]
_QUERY_RELATIONS = dict(zip(("-1", "0", "1", "2"), reversed(REGISTRY["KUAKE-QQR"].labels), strict=True))

#: The raw labels of every task that has some, by config name. Where a task's answers are sets of parts, they are of the
#: types, relations or statuses of these.
RAW_LABELS: Mapping[str, RawLabels] = dict(
    (
        _labels("CMeEE-V2", ["dis", "sym", "pro", "equ", "dru", "ite", "bod", "dep", "mic"]),
        _labels("CMeIE", _RELATIONS, _RELATIONS),
        _labels("CHIP-CDEE", EventLines.statuses, EventLines.statuses),
        _labels("IMCS-V2-NER", ["Symptom", "Drug", "Drug_Category", "Medical_Examination", "Operation"]),
        _labels("CHIP-CTC", _CRITERIA, REGISTRY["CHIP-CTC"].labels[1:], Other=NONE_OF_THESE),
        # What no label of the prompt fits is 其他 in the raw corpus, if the prompt offers all the others.
        _labels(
            "KUAKE-QIC",
            [*("疾病表述" if label == "疾病描述" else label for label in _INTENTS), "其他"],
            [*_INTENTS, NONE_OF_THESE],
        ),
        _labels("IMCS-V2-DAC", _ACTS),
        _labels("CHIP-STS", "01", ("不是", "是的")),
        _labels("KUAKE-QTR", "0123"),
        # CBLUE takes three labels, of which 0 is both the superset and no relation.
        (
            "KUAKE-QQR",
            RawLabels(
                _QUERY_RELATIONS,
                {ours: "0" if raw == "-1" else raw for raw, ours in _QUERY_RELATIONS.items()},
                {"NA": "0"},  # as CBLUE's own baseline reads it
            ),
        ),
        _labels("IMCS-V2-SR", "012"),
        _labels("CHIP-MDCFNPC", ("阳性", "阴性", "其他", "不标注")),
        _labels("CMedCausal", "123", [relation for _, relation in CausalLines.openings]),
        _labels("Text2DT", _DECISIONS, _DECISIONS),
        _labels("cEHRNER", REGISTRY["cEHRNER"].labels),
        _labels("cMedQANER", _COMMUNITY.split()),
        *(_labels(task, "10") for task in ("cMedQQ", "cMedQNLI", "cMedQA")),
        _labels("cMedIR", "01234"),
        _labels("cMedIC", "012"),
        _labels("cMedTC", _CRITERIA),
        _labels("CMDD", "213"),
    )
)

#: The field with the id of a raw record, for the tasks whose records have one; those of the others count from 0.
RECORD_IDS: Mapping[str, str] = {
    **dict.fromkeys(("CHIP-CDEE", "CHIP-CTC", "CHIP-STS", "KUAKE-QIC", "KUAKE-QTR", "KUAKE-QQR", "MedDG"), "id"),
    "CHIP-MDCFNPC": "dialog_id",
}


def sample_id_of(record: str | int, part: str | int | None = None) -> str:
    """The id of a prompt that is made of a record of one of CBLUE's own test files: ``test-RECORD``.

    Args:
        record: its id (`RECORD_IDS`), or its place in the file, from 0. Of IMCS-V2 it is ``DIALOGUE_SENTENCE``, both
            ids, and ``DIALOGUE`` for the report; of KUAKE-IR the query's id.
        part: where several prompts are made of a record (``test-RECORD#PART``), the one this is: for KUAKE-IR the id of
            the document, for CHIP-MDCFNPC the ``sentence_id`` at which the dialogue is cut, else a number.
    """
    name = str(record).replace("%", "%25").replace("#", "%23")
    return f"test-{name}" if part is None else f"test-{name}#{part}"


def record_of(sample_id: str) -> tuple[str, str | None] | None:
    """The record and the part that an id of `sample_id_of` names; None for an id of another form."""
    if not sample_id.startswith("test-"):
        return None
    name, mark, part = sample_id.removeprefix("test-").partition("#")
    return name.replace("%23", "#").replace("%25", "%"), part if mark else None
