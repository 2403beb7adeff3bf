"""The raw names that CBLUE gives the labels of its tasks, by the names that PromptCBLUE gives them."""

from __future__ import annotations

from collections.abc import Mapping

from ..tasks import NONE_OF_THESE

ENTITY_TYPES: Mapping[str, str] = {
    "疾病": "dis",
    "临床表现": "sym",
    "医疗程序": "pro",
    "医疗设备": "equ",
    "药物": "dru",
    "医学检验项目": "ite",
    "身体部位": "bod",
    "医院科室": "dep",
    "微生物类": "mic",
}

#: The relations of CMeIE, whose names are the same in both.
RELATIONS = frozenset(
    {
        "预防", "阶段", "就诊科室", "同义词", "辅助治疗", "化疗", "放射治疗", "手术治疗", "实验室检查", "影像学检查",
        "辅助检查", "组织学检查", "内窥镜检查", "筛查", "多发群体", "发病率", "发病年龄", "多发地区", "发病性别倾向",
        "死亡率", "多发季节", "传播途径", "并发症", "病理分型", "相关（导致）", "鉴别诊断", "相关（转化）",
        "相关（症状）", "临床表现", "治疗后症状", "侵及周围组织转移的症状", "病因", "高危因素", "风险评估因素",
        "病史", "遗传因素", "发病机制", "病理生理", "药物治疗", "发病部位", "转移部位", "外侵部位", "预后状况",
        "预后生存率",
    }
)  # fmt: skip

TENDENCIES = frozenset({"", "否定", "不确定"})

CRITERIA: Mapping[str, str] = {
    "疾病": "Disease",
    "症状(患者感受)": "Symptom",
    "体征(医生检测）": "Sign",
    "怀孕相关": "Pregnancy-related Activity",
    "肿瘤进展": "Neoplasm Status",
    "疾病分期": "Non-Neoplasm Disease Stage",
    "过敏耐受": "Allergy Intolerance",
    "器官组织状态": "Organ or Tissue Status",
    "预期寿命": "Life Expectancy",
    "口腔相关": "Oral related",
    "药物": "Pharmaceutical Substance or Drug",
    "治疗或手术": "Therapy or Surgery",
    "设备": "Device",
    "护理": "Nursing",
    "诊断": "Diagnostic",
    "实验室检查": "Laboratory Examinations",
    "风险评估": "Risk Assessment",
    "受体状态": "Receptor Status",
    "年龄": "Age",
    "特殊病人特征": "Special Patient Characteristic",
    "读写能力": "Literacy",
    "性别": "Gender",
    "教育情况": "Education",
    "居住情况": "Address",
    "种族": "Ethnicity",
    "知情同意": "Consent",
    "参与其它试验": "Enrollment in other studies",
    "研究者决定": "Researcher Decision",
    "能力": "Capacity",
    "伦理审查": "Ethical Audit",
    "依存性": "Compliance with Protocol",
    "成瘾行为": "Addictive Behavior",
    "睡眠": "Bedtime",
    "锻炼": "Exercise",
    "饮食": "Diet",
    "酒精使用": "Alcohol Consumer",
    "性取向": "Sexual related",
    "吸烟状况": "Smoking Status",
    "献血": "Blood Donation",
    "病例来源": "Encounter",
    "残疾群体": "Disabilities",
    "健康群体": "Healthy",
    "数据可及性": "Data Accessible",
    "含有多个类别": "Multiple",
}

#: What no label of the prompt fits is 其他 in the raw corpus, if the prompt offers all the others.
INTENTS: Mapping[str, str] = {
    **{
        intent: intent
        for intent in (
            "病情诊断", "病因分析", "治疗方案", "就医建议", "指标解读", "后果表述", "注意事项", "功效作用", "医疗费用",
        )
    },
    "疾病描述": "疾病表述",
    NONE_OF_THESE: "其他",
}  # fmt: skip

SAME_MEANING: Mapping[str, str] = {"不是": "0", "是的": "1"}

TITLE_MATCH: Mapping[str, str] = {
    "完全不匹配或者没有参考价值": "0",
    "很少匹配有一些参考价值": "1",
    "部分匹配": "2",
    "完全匹配": "3",
}

#: CBLUE takes three labels, of which 0 is both the superset and no relation.
QUERY_RELATION: Mapping[str, str] = {
    "语义无直接关联": "0",
    "后者是前者的语义父集": "0",
    "后者是前者的语义子集": "1",
    "完全一致": "2",
}

FINDING_ATTRIBUTES = frozenset({"阳性", "阴性", "其他", "不标注"})
SYMPTOM_STATUSES = frozenset({"0", "1", "2"})
DIALOGUE_ACTS = frozenset(
    {
        *(
            f"{kind}-{about}"
            for kind in ("Request", "Inform")
            for about in (
                "Symptom", "Etiology", "Basic_Information", "Existing_Examination_and_Treatment", "Drug_Recommendation",
                "Medical_Advice", "Precautions",
            )
        ),
        "Diagnose",
        "Other",
    }
)  # fmt: skip
ENTITY_TAGS = frozenset(
    {
        "O",
        *(
            f"{place}-{kind}"
            for place in "BI"
            for kind in ("Symptom", "Drug", "Drug_Category", "Medical_Examination", "Operation")
        ),
    }
)
