"""The task registry: one record a task. Adding a task means adding a record here (formats.md sections 1, 2, 7 and 8).

The tasks stand in suites: PromptCBLUE with the paper's 16, and ChineseBLUE (Zhang et al. 2020) with nine of its own. A
suite has one overall score; tasks of two suites are never averaged.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .answers import (
    AnswerFormat,
    EntityLines,
    EventLines,
    FreeText,
    Label,
    Report,
    StatusLines,
    TermList,
    TripleLines,
)
from .errors import PromptCBLUEError, UnknownTaskError
from .ranking import GradedRanking, RankedAnswers
from .scoring import ClassF1, LabelF1, MeanRouge, Scorer, SetF1, SpanF1, StatusF1

#: The answer of a classification sample whose true label its prompt does not offer.
NONE_OF_THESE = "非上述类型"

#: The five groups of the paper's Table 2, in its order.
GROUPS = (
    "information extraction",
    "text classification",
    "natural language inference",
    "symptom status",
    "generation",
)


@dataclass(frozen=True)
class Task:
    """One of the benchmark's tasks, which is also a config of the dataset.

    Attributes:
        name: config name, and ``task_dataset`` of its rows.
        task_type: ``task_type`` of its rows.
        group: one of `GROUPS`.
        metric: name of the primary metric as the paper prints it.
        format: how its answers are written and read.
        scorer: how its answers are scored.
        labels: every label, type or status a prompt of the task can offer, or () where that set is open.
            For label tasks the first is what the official scorer takes an empty prediction for.
        needs_choices: whether a row must carry ``answer_choices``.
        sizes: train, validation and test samples in the paper's Table 8; in ChineseBLUE, records of the raw files.
        aliases: other names found in files.
        suite: name of the suite whose overall score it counts for.
    """

    name: str
    task_type: str
    group: str
    metric: str
    format: AnswerFormat
    scorer: Scorer
    sizes: tuple[int, int, int]
    labels: tuple[str, ...] = ()
    needs_choices: bool = True
    aliases: tuple[str, ...] = ()
    suite: str = "promptcblue"

    def choices(self, row_choices: Sequence[str] | None) -> Sequence[str]:
        """The row's answer choices, or all labels of the task where the row carries none."""
        return self.labels if row_choices is None else row_choices


@dataclass(frozen=True)
class Suite:
    """Tasks with one overall score, which is the plain mean of their primary metrics.

    Attributes:
        name: as in signatures, and as ``load_dataset`` knows the suite's data.
        title: as its authors write it.
        tasks: by config name, in the suite's order.
    """

    name: str
    title: str
    tasks: Mapping[str, Task]

    @property
    def groups(self) -> tuple[str, ...]:
        """Those of `GROUPS` that its tasks are of."""
        present = {task.group for task in self.tasks.values()}
        return tuple(group for group in GROUPS if group in present)


_ENTITY_TYPES = (
    "疾病",
    "临床表现",
    "医疗程序",
    "医疗设备",
    "药物",
    "医学检验项目",
    "身体部位",
    "医院科室",
    "微生物类",
)
_DIALOGUE_ENTITY_TYPES = ("症状", "具体的药物名称", "药物类别", "医学检查检验", "医疗操作")
_CRITERIA = (
    "疾病",
    "症状(患者感受)",
    "体征(医生检测）",
    "怀孕相关",
    "肿瘤进展",
    "疾病分期",
    "过敏耐受",
    "器官组织状态",
    "预期寿命",
    "口腔相关",
    "药物",
    "治疗或手术",
    "设备",
    "护理",
    "诊断",
    "实验室检查",
    "风险评估",
    "受体状态",
    "年龄",
    "特殊病人特征",
    "读写能力",
    "性别",
    "教育情况",
    "居住情况",
    "种族",
    "知情同意",
    "参与其它试验",
    "研究者决定",
    "能力",
    "伦理审查",
    "依存性",
    "成瘾行为",
    "睡眠",
    "锻炼",
    "饮食",
    "酒精使用",
    "性取向",
    "吸烟状况",
    "献血",
    "病例来源",
    "残疾群体",
    "健康群体",
    "数据可及性",
    "含有多个类别",
)
_INTENTS = (
    "病情诊断",
    "病因分析",
    "治疗方案",
    "就医建议",
    "指标解读",
    "疾病描述",
    "后果表述",
    "注意事项",
    "功效作用",
    "医疗费用",
)
_DIALOGUE_ACTS = (
    "关于症状的询问",
    "关于症状的回答",
    "关于病因的询问",
    "关于病因的回答",
    "关于个人基本信息的询问",
    "关于个人基本信息的回答",
    "关于已有检查和治疗的提问",
    "关于已有检查和治疗的回答",
    "关于用药建议的提问",
    "关于用药建议的解答",
    "关于就医建议的提问",
    "关于就医建议的解答",
    "关于注意事项的提问",
    "关于注意事项的解答",
    "给出诊断",
)
_SYMPTOM_STATUSES = ("没有患有该症状", "患有该症状", "无法根据上下文确定病人是否患有该症状")
_FINDING_STATUSES = (
    "已有症状疾病或者假设未来可能发生的疾病等",
    "未患有症状疾病",
    "没有回答、不知道、回答不明确或者模棱两可不好推断",
    "无实际意义的不标注或者和病人当前的状态独立不标注",
)


def _label_task(
    name: str,
    task_type: str,
    group: str,
    labels: tuple[str, ...],
    sizes: tuple[int, int, int],
    *,
    synonyms: Mapping[str, str] | None = None,
    aliases: tuple[str, ...] = (),
) -> Task:
    """A task answered with one label: macro-averaged in text classification, gold-weighted in inference."""
    macro = group == "text classification"
    return Task(
        name,
        task_type,
        group,
        metric="macro-F1" if macro else "micro-F1",
        format=Label(NONE_OF_THESE if NONE_OF_THESE in labels else None, synonyms or {}),
        scorer=LabelF1("macro" if macro else "weighted", labels),
        labels=labels,
        sizes=sizes,
        aliases=aliases,
    )


_EXTRACTION, _CLASSIFICATION, _INFERENCE, _STATUS, _GENERATION = GROUPS
_ALL = (
    Task(
        "CMeEE-V2",
        "ner",
        _EXTRACTION,
        "micro-F1",
        EntityLines(),
        SetF1(),
        (5000, 400, 400),
        _ENTITY_TYPES,
        aliases=("CMeEE",),
    ),
    Task(
        "CMeIE",
        "spo_generation",
        _EXTRACTION,
        "micro-F1",
        TripleLines(),
        SetF1(),
        (5000, 400, 400),
        aliases=("CMeIE-V2",),
    ),
    Task(
        "CHIP-CDEE",
        "event_extraction",
        _EXTRACTION,
        "micro-F1",
        EventLines(),
        SetF1(),
        (3000, 400, 400),
        needs_choices=False,
    ),
    Task("CHIP-CDN", "normalization", _EXTRACTION, "micro-F1", TermList(), SetF1(), (5000, 400, 400)),
    Task(
        "IMCS-V2-NER",
        "ner",
        _EXTRACTION,
        "micro-F1",
        EntityLines(),
        SetF1(),
        (5000, 400, 400),
        _DIALOGUE_ENTITY_TYPES,
    ),
    _label_task("CHIP-CTC", "cls", _CLASSIFICATION, (NONE_OF_THESE, *_CRITERIA), (6600, 704, 704)),
    _label_task("KUAKE-QIC", "cls", _CLASSIFICATION, (NONE_OF_THESE, *_INTENTS), (5500, 440, 440)),
    _label_task("IMCS-V2-DAC", "cls", _CLASSIFICATION, (NONE_OF_THESE, *_DIALOGUE_ACTS), (5000, 512, 512)),
    _label_task(
        "CHIP-STS",
        "cls",
        _INFERENCE,
        ("是的", "不是"),
        (5000, 400, 400),
        synonyms={"相同": "是的", "不同": "不是"},
        aliases=("CHIP-STC",),
    ),
    _label_task("KUAKE-IR", "matching", _INFERENCE, ("相关", "不相关"), (5000, 400, 400)),
    _label_task(
        "KUAKE-QTR",
        "matching",
        _INFERENCE,
        ("完全不匹配或者没有参考价值", "很少匹配有一些参考价值", "部分匹配", "完全匹配"),
        (5000, 400, 400),
    ),
    _label_task(
        "KUAKE-QQR",
        "matching",
        _INFERENCE,
        ("完全一致", "后者是前者的语义子集", "后者是前者的语义父集", "语义无直接关联"),
        (5000, 400, 400),
    ),
    Task(
        "IMCS-V2-SR",
        "attr_cls",
        _STATUS,
        "micro-F1",
        StatusLines("当前对话中的症状及其阴阳性判断为：", fallback=_SYMPTOM_STATUSES[2]),
        SetF1(),
        (5000, 400, 400),
        _SYMPTOM_STATUSES,
    ),
    Task(
        "CHIP-MDCFNPC",
        "attr_cls",
        _STATUS,
        "micro-F1",
        StatusLines("上述对话中临床发现实体以及其阴阳性判别如下：", fallback="不标注"),
        SetF1(),
        (5000, 400, 400),
        _FINDING_STATUSES,
    ),
    Task(
        "IMCS-V2-MRG",
        "report_generation",
        _GENERATION,
        "ROUGE-L",
        Report(),
        MeanRouge(),
        (3000, 400, 400),
        needs_choices=False,
    ),
    Task(
        "MedDG",
        "response_generation",
        _GENERATION,
        "ROUGE-L",
        FreeText(),
        MeanRouge(),
        (5000, 400, 400),
        needs_choices=False,
    ),
)

_RECORD_TYPES = ("解剖部位", "疾病和诊断", "症状", "药物", "实验室检验", "手术", "影像检查")
_COMMUNITY_TYPES = (
    "疾病",
    "身体部位",
    "症状",
    "治疗方法",
    "人群",
    "药物",
    "检查检验",
    "生理现象",
    "特征描述",
    "时间",
    "医院科室",
)
_RELEVANT = ("相关", "不相关")
_GRADES = ("完全不匹配", "很少匹配", "部分匹配", "基本匹配", "完全匹配")
_MEDICAL_INTENTS = ("没有医疗意图", "医疗意图较弱", "医疗意图明确")


def _chineseblue(
    name: str,
    task_type: str,
    group: str,
    metric: str,
    answer_format: AnswerFormat,
    scorer: Scorer,
    sizes: tuple[int, int, int],
    labels: tuple[str, ...],
    aliases: tuple[str, ...] = (),
) -> Task:
    """A task of ChineseBLUE, which offers all its labels, so that scores can stand beside published ones."""
    return Task(name, task_type, group, metric, answer_format, scorer, sizes, labels, True, aliases, "chineseblue")


_CHINESEBLUE = (
    _chineseblue(
        "cEHRNER",
        "ner",
        _EXTRACTION,
        "micro-F1",
        EntityLines(),
        SpanF1(),
        (914, 44, 41),
        _RECORD_TYPES,
        ("CEMRNER",),
    ),
    _chineseblue(
        "cMedQANER", "ner", _EXTRACTION, "micro-F1", EntityLines(), SpanF1(), (1673, 175, 215), _COMMUNITY_TYPES
    ),
    _chineseblue(
        "cMedQQ",
        "cls",
        _INFERENCE,
        "F1",
        Label(synonyms={"相同": "是的", "不同": "不是"}),
        ClassF1("positive", ("是的", "不是")),
        (16071, 1793, 1935),
        ("是的", "不是"),
        ("CMedQQMatch",),
    ),
    _chineseblue(
        "cMedQNLI",
        "matching",
        _INFERENCE,
        "F1",
        Label(),
        ClassF1("positive", _RELEVANT),
        (80950, 9065, 9969),
        _RELEVANT,
    ),
    _chineseblue(
        "cMedQA",
        "matching",
        _INFERENCE,
        "F1",
        Label(),
        RankedAnswers("positive", _RELEVANT),
        (49719, 5475, 6149),
        _RELEVANT,
        ("CMedQAMatch",),
    ),
    _chineseblue(
        "cMedIR",
        "matching",
        _INFERENCE,
        "pair accuracy",
        Label(),
        GradedRanking("macro", _GRADES),
        (80000, 10000, 10000),
        _GRADES,
        ("CMedQR",),
    ),
    _chineseblue(
        "cMedIC",
        "cls",
        _CLASSIFICATION,
        "macro-F1",
        Label(),
        ClassF1("macro", _MEDICAL_INTENTS),
        (1683, 123, 84),
        _MEDICAL_INTENTS,
        ("CMedQC",),
    ),
    _chineseblue(
        "cMedTC",
        "cls",
        _CLASSIFICATION,
        "macro-F1",
        Label(),
        ClassF1("macro", _CRITERIA),
        (14610, 1550, 1800),
        _CRITERIA,
    ),
    _chineseblue(
        "CMDD",
        "attr_cls",
        _STATUS,
        "micro-F1",
        StatusLines("当前对话中的症状及其阴阳性判断为：", fallback=_SYMPTOM_STATUSES[2]),
        StatusF1(),
        (1240, 412, 412),
        _SYMPTOM_STATUSES,
    ),
)

#: Every suite by name.
SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("promptcblue", "PromptCBLUE", {task.name: task for task in _ALL}),
        Suite("chineseblue", "ChineseBLUE", {task.name: task for task in _CHINESEBLUE}),
    )
}
#: The paper's 16 tasks by config name, in the order of formats.md section 1.
TASKS: Mapping[str, Task] = SUITES["promptcblue"].tasks
#: The tasks of all suites by config name, suite by suite.
REGISTRY: Mapping[str, Task] = {name: task for suite in SUITES.values() for name, task in suite.tasks.items()}

_BY_SPELLING = {spelling.casefold(): task for task in REGISTRY.values() for spelling in (task.name, *task.aliases)}


def get_task(name: str) -> Task:
    """The task called ``name``, of whichever suite, by config name or alias, whatever the case.

    Raises:
        UnknownTaskError: names the closest match and all tasks.
    """
    task = _BY_SPELLING.get(name.casefold())
    if task is None:
        close = difflib.get_close_matches(name.casefold(), _BY_SPELLING, n=1, cutoff=0.5)
        hint = f"; did you mean '{_BY_SPELLING[close[0]].name}'?" if close else ""
        raise UnknownTaskError(f"unknown task '{name}'{hint} The tasks are: {', '.join(REGISTRY)}")
    return task


def suite_of(tasks: Iterable[str]) -> Suite:
    """The suite of tasks, which has to be one: scores of two suites have no mean.

    Args:
        tasks: config names, at least one.

    Raises:
        PromptCBLUEError: they are of several suites (which ones, is said).
    """
    by_suite: dict[str, list[str]] = {}
    for name in tasks:
        by_suite.setdefault(REGISTRY[name].suite, []).append(name)
    if len(by_suite) > 1:
        listed = " and ".join(f"{', '.join(names)} of {SUITES[suite].title}" for suite, names in by_suite.items())
        raise PromptCBLUEError(
            f"the samples are of several suites: {listed}; each has an overall score of its own, so keep the suites in "
            "files of their own"
        )
    return SUITES[next(iter(by_suite))]
