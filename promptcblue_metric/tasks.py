"""The task registry: one record a task, entered by `register` (formats.md sections 1, 2, 7 and 8).

The tasks stand in suites: PromptCBLUE with the paper's 16, its CHIP-2023 edition with two more, and ChineseBLUE
(Zhang et al. 2020) with nine of its own. A suite has one overall score; tasks of two suites are never averaged. How to
add a task is in docs/add-a-task.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from .answers import (
    AnswerFormat,
    CausalLines,
    EntityLines,
    EventLines,
    FreeText,
    Label,
    Report,
    StatusLines,
    TermList,
    TreeLines,
    TripleLines,
)
from .errors import PromptCBLUEError, UnknownTaskError
from .ranking import GradedRanking, RankedAnswers
from .scoring import ClassF1, LabelF1, MeanRouge, Scorer, SetF1, SpanF1, StatusF1
from .trees import TreeEdit

#: The answer of a classification sample whose true label its prompt does not offer.
NONE_OF_THESE = "非上述类型"

#: The five groups of the paper's Table 2, in its order.
GROUPS = ("information extraction", "text classification", "natural language inference", "symptom status", "generation")


class Fields(TypedDict):
    """The six fields of every file and of the dataset."""

    input: str
    target: str
    answer_choices: list[str] | None
    sample_id: str
    task_type: str
    task_dataset: str


class Sample(Fields, total=False):
    """A row of the benchmark; ``template``, the name of the prompt's template, is no field of it but of some files."""

    template: str


@dataclass(frozen=True)
class Task:
    """A task of a suite, which is also a config of its dataset.

    Attributes:
        name: config name, and ``task_dataset`` of its rows.
        task_type: ``task_type`` of its rows.
        group: one of `GROUPS`.
        format: how its answers are written and read.
        scorer: how its answers are scored.
        sizes: train, validation and test samples, as its suite's `Suite.sizes` counts them.
        labels: every label, type or status a prompt of the task can offer, or () where that set is open.
            For label tasks the first is what the official scorer takes an empty prediction for.
        aliases: other names found in files.
        suite: name of the suite whose overall score it counts for; `register` fills it in.
    """

    name: str
    task_type: str
    group: str
    format: AnswerFormat
    scorer: Scorer
    sizes: tuple[int, int, int]
    labels: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    suite: str = ""

    def choices(self, row_choices: Sequence[str] | None) -> Sequence[str]:
        """The row's answer choices, or all labels of the task where the row carries none."""
        return self.labels if row_choices is None else row_choices


@dataclass(frozen=True)
class Suite:
    """Tasks with one overall score, which is the plain mean of their primary metrics.

    Attributes:
        name: as in signatures, and as ``load_dataset`` knows the suite's data.
        title: as its authors write it.
        sizes: where `Task.sizes` come from, as a table's title says it.
        tasks: by config name, in the suite's order; `register` fills it.
    """

    name: str
    title: str
    sizes: str = "documented"
    tasks: dict[str, Task] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """Those of `GROUPS` that its tasks are of."""
        present = {task.group for task in self.tasks.values()}
        return tuple(group for group in GROUPS if group in present)


#: The paper's tasks, those of Zhang et al. 2020, and the paper's with the two of the CHIP-2023 edition.
PROMPTCBLUE = Suite("promptcblue", "PromptCBLUE", sizes="Table 8")
CHINESEBLUE = Suite("chineseblue", "ChineseBLUE")

_SUITES: dict[str, Suite] = {}
_REGISTRY: dict[str, Task] = {}
_BY_SPELLING: dict[str, Task] = {}

#: Every suite by name.
SUITES: Mapping[str, Suite] = _SUITES
#: The tasks of all suites by config name, suite by suite.
REGISTRY: Mapping[str, Task] = _REGISTRY
#: The paper's 16 tasks by config name, in the order of formats.md section 1.
TASKS: Mapping[str, Task] = PROMPTCBLUE.tasks


def register(suite: Suite, *tasks: Task) -> None:
    """Enter tasks, of a new suite or more of one that was entered before.

    Raises:
        PromptCBLUEError: a name is taken, or a group is none of `GROUPS`.
    """
    if _SUITES.setdefault(suite.name, suite) is not suite:
        raise PromptCBLUEError(f"there is a suite '{suite.name}' already; register further tasks with that one")
    for task in tasks:
        if task.group not in GROUPS:
            raise PromptCBLUEError(f"{task.name}: unknown group '{task.group}'; the groups are {', '.join(GROUPS)}")
        spellings = [spelling.casefold() for spelling in (task.name, *task.aliases)]
        if taken := [spelling for spelling in spellings if spelling in _BY_SPELLING]:
            raise PromptCBLUEError(f"{task.name}: '{taken[0]}' names {_BY_SPELLING[taken[0]].name} already")
        entered = suite.tasks[task.name] = replace(task, suite=suite.name)
        _BY_SPELLING.update(dict.fromkeys(spellings, entered))
    _REGISTRY.clear()
    _REGISTRY.update((task.name, task) for each in _SUITES.values() for task in each.tasks.values())


def get_task(name: str) -> Task:
    """The task called ``name``, of whichever suite, by config name or alias, whatever the case.

    Raises:
        UnknownTaskError: names the closest match and all tasks.
    """
    task = _BY_SPELLING.get(name.casefold())
    if task is None:
        close = difflib.get_close_matches(name.casefold(), _BY_SPELLING, n=1, cutoff=0.5)
        hint = f"; did you mean '{_BY_SPELLING[close[0]].name}'?" if close else "."
        raise UnknownTaskError(f"unknown task '{name}'{hint} The tasks are: {', '.join(REGISTRY)}")
    return task


def suite_of(tasks: Iterable[str]) -> Suite:
    """The suite of tasks, which has to be one: scores of two suites have no mean.

    Args:
        tasks: config names, at least one.

    Raises:
        PromptCBLUEError: they are of several suites (which ones, is said).
    """
    names = list(tasks)
    # An edition holds the tasks of the one before it; the first that holds all of these is meant.
    for suite in SUITES.values():
        if suite.tasks.keys() >= set(names):
            return suite
    by_suite: dict[str, list[str]] = {}
    for name in names:
        by_suite.setdefault(REGISTRY[name].suite, []).append(name)
    listed = " and ".join(f"{', '.join(names)} of {SUITES[suite].title}" for suite, names in by_suite.items())
    raise PromptCBLUEError(
        f"the samples are of several suites: {listed}; each has an overall score of its own, so keep the suites in "
        "files of their own"
    )


_EXTRACTION, _CLASSIFICATION, _INFERENCE, _STATUS, _GENERATION = GROUPS
_SAME = {"相同": "是的", "不同": "不是"}


def _label_task(
    name: str,
    task_type: str,
    group: str,
    scorer: LabelF1,
    sizes: tuple[int, int, int],
    aliases: tuple[str, ...] = (),
    synonyms: Mapping[str, str] | None = None,
) -> Task:
    """A task answered with one of the scorer's labels."""
    answers = Label(NONE_OF_THESE if NONE_OF_THESE in scorer.labels else None, synonyms or {})
    return Task(name, task_type, group, answers, scorer, sizes, scorer.labels, aliases)


def _names(listed: str) -> tuple[str, ...]:
    return tuple(listed.split())


def _macro(labels: str) -> LabelF1:
    return LabelF1("macro", (NONE_OF_THESE, *_names(labels)))


def _weighted(labels: str) -> LabelF1:
    return LabelF1("weighted", _names(labels))


_CRITERIA = """
    疾病 症状(患者感受) 体征(医生检测） 怀孕相关 肿瘤进展 疾病分期 过敏耐受 器官组织状态 预期寿命 口腔相关 药物
    治疗或手术 设备 护理 诊断 实验室检查 风险评估 受体状态 年龄 特殊病人特征 读写能力 性别 教育情况 居住情况 种族
    知情同意 参与其它试验 研究者决定 能力 伦理审查 依存性 成瘾行为 睡眠 锻炼 饮食 酒精使用 性取向 吸烟状况 献血
    病例来源 残疾群体 健康群体 数据可及性 含有多个类别
"""
_INTENTS = "病情诊断 病因分析 治疗方案 就医建议 指标解读 疾病描述 后果表述 注意事项 功效作用 医疗费用"
_ACTS = """
    关于症状的询问 关于症状的回答 关于病因的询问 关于病因的回答 关于个人基本信息的询问 关于个人基本信息的回答
    关于已有检查和治疗的提问 关于已有检查和治疗的回答 关于用药建议的提问 关于用药建议的解答 关于就医建议的提问
    关于就医建议的解答 关于注意事项的提问 关于注意事项的解答 给出诊断
"""
_TEXTBOOK = _names("疾病 临床表现 医疗程序 医疗设备 药物 医学检验项目 身体部位 医院科室 微生物类")
_DIALOGUES = _names("症状 具体的药物名称 药物类别 医学检查检验 医疗操作")
_RECORDS = _names("解剖部位 疾病和诊断 症状 药物 实验室检验 手术 影像检查")
_COMMUNITY = _names("疾病 身体部位 症状 治疗方法 人群 药物 检查检验 生理现象 特征描述 时间 医院科室")
_MATCHES = "完全不匹配或者没有参考价值 很少匹配有一些参考价值 部分匹配 完全匹配"
_MEANINGS = "完全一致 后者是前者的语义子集 后者是前者的语义父集 语义无直接关联"
_SYMPTOM_STATUSES = ("没有患有该症状", "患有该症状", "无法根据上下文确定病人是否患有该症状")
_SYMPTOM_LINES = StatusLines("当前对话中的症状及其阴阳性判断为：", fallback=_SYMPTOM_STATUSES[2])
_FINDING_STATUSES = (
    "已有症状疾病或者假设未来可能发生的疾病等",
    "未患有症状疾病",
    "没有回答、不知道、回答不明确或者模棱两可不好推断",
    "无实际意义的不标注或者和病人当前的状态独立不标注",
)
_FINDING_LINES = StatusLines("上述对话中临床发现实体以及其阴阳性判别如下：", fallback="不标注")

register(
    PROMPTCBLUE,
    Task("CMeEE-V2", "ner", _EXTRACTION, EntityLines(), SetF1(), (5000, 400, 400), _TEXTBOOK, ("CMeEE",)),
    Task("CMeIE", "spo_generation", _EXTRACTION, TripleLines(), SetF1(), (5000, 400, 400), aliases=("CMeIE-V2",)),
    Task("CHIP-CDEE", "event_extraction", _EXTRACTION, EventLines(), SetF1(), (3000, 400, 400)),
    Task("CHIP-CDN", "normalization", _EXTRACTION, TermList(), SetF1(), (5000, 400, 400)),
    Task("IMCS-V2-NER", "ner", _EXTRACTION, EntityLines(), SetF1(), (5000, 400, 400), _DIALOGUES),
    _label_task("CHIP-CTC", "cls", _CLASSIFICATION, _macro(_CRITERIA), (6600, 704, 704)),
    _label_task("KUAKE-QIC", "cls", _CLASSIFICATION, _macro(_INTENTS), (5500, 440, 440)),
    _label_task("IMCS-V2-DAC", "cls", _CLASSIFICATION, _macro(_ACTS), (5000, 512, 512)),
    _label_task("CHIP-STS", "cls", _INFERENCE, _weighted("是的 不是"), (5000, 400, 400), ("CHIP-STC",), _SAME),
    _label_task("KUAKE-IR", "matching", _INFERENCE, _weighted("相关 不相关"), (5000, 400, 400)),
    _label_task("KUAKE-QTR", "matching", _INFERENCE, _weighted(_MATCHES), (5000, 400, 400)),
    _label_task("KUAKE-QQR", "matching", _INFERENCE, _weighted(_MEANINGS), (5000, 400, 400)),
    Task("IMCS-V2-SR", "attr_cls", _STATUS, _SYMPTOM_LINES, SetF1(), (5000, 400, 400), _SYMPTOM_STATUSES),
    Task("CHIP-MDCFNPC", "attr_cls", _STATUS, _FINDING_LINES, SetF1(), (5000, 400, 400), _FINDING_STATUSES),
    Task("IMCS-V2-MRG", "report_generation", _GENERATION, Report(), MeanRouge(), (3000, 400, 400)),
    Task("MedDG", "response_generation", _GENERATION, FreeText(), MeanRouge(), (5000, 400, 400)),
)

# What the official repository has scored since August 2023. How many samples it has of the two is not documented.
CHIP2023 = Suite("promptcblue-chip2023", "PromptCBLUE CHIP-2023", sizes="our default", tasks=dict(PROMPTCBLUE.tasks))
register(
    CHIP2023,
    Task("CMedCausal", "spo_generation", _EXTRACTION, CausalLines(), SetF1(), (3000, 400, 400)),
    Task("Text2DT", "text2dt", _EXTRACTION, TreeLines(), TreeEdit(), (3000, 400, 400)),
)

_RELEVANT = ("相关", "不相关")
_SIMILAR = ClassF1("positive", ("是的", "不是"))
_ANSWERS = RankedAnswers("positive", _RELEVANT)
_DOCUMENTS = GradedRanking("macro", ("完全不匹配", "很少匹配", "部分匹配", "基本匹配", "完全匹配"))
_MEDICAL = ClassF1("macro", ("没有医疗意图", "医疗意图较弱", "医疗意图明确"))
# All labels are offered, so that scores can stand beside published ones.
register(
    CHINESEBLUE,
    Task("cEHRNER", "ner", _EXTRACTION, EntityLines(), SpanF1(), (914, 44, 41), _RECORDS, ("CEMRNER",)),
    Task("cMedQANER", "ner", _EXTRACTION, EntityLines(), SpanF1(), (1673, 175, 215), _COMMUNITY),
    _label_task("cMedQQ", "cls", _INFERENCE, _SIMILAR, (16071, 1793, 1935), ("CMedQQMatch",), _SAME),
    _label_task("cMedQNLI", "matching", _INFERENCE, ClassF1("positive", _RELEVANT), (80950, 9065, 9969)),
    _label_task("cMedQA", "matching", _INFERENCE, _ANSWERS, (49719, 5475, 6149), ("CMedQAMatch",)),
    _label_task("cMedIR", "matching", _INFERENCE, _DOCUMENTS, (80000, 10000, 10000), ("CMedQR",)),
    _label_task("cMedIC", "cls", _CLASSIFICATION, _MEDICAL, (1683, 123, 84), ("CMedQC",)),
    _label_task("cMedTC", "cls", _CLASSIFICATION, ClassF1("macro", _names(_CRITERIA)), (14610, 1550, 1800)),
    Task("CMDD", "attr_cls", _STATUS, _SYMPTOM_LINES, StatusF1(), (1240, 412, 412), _SYMPTOM_STATUSES),
)
