"""Where the tasks' texts come from: who made each corpus, where it is had, on what terms, and how to cite it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_TIANCHI = "https://tianchi.aliyun.com/dataset/95414"
_CBLUE_TERMS = (
    "none that is open: the terms that one accepts on Tianchi, where CBLUE is handed out, and those of the makers"
)


@dataclass(frozen=True)
class Source:
    """A corpus, or a benchmark made of several.

    Attributes:
        name: as its makers write it.
        tasks: configs that follow it.
        what: the texts, and what was annotated.
        url: where it is had.
        terms: its licence, as far as its makers state one.
        citation: BibTeX.
    """

    name: str
    tasks: tuple[str, ...]
    what: str
    url: str
    terms: str
    citation: str


_PROMPTCBLUE_TASKS = (
    "CMeEE-V2",
    "CMeIE",
    "CHIP-CDEE",
    "CHIP-CDN",
    "IMCS-V2-NER",
    "CHIP-CTC",
    "KUAKE-QIC",
    "IMCS-V2-DAC",
    "CHIP-STS",
    "KUAKE-IR",
    "KUAKE-QTR",
    "KUAKE-QQR",
    "IMCS-V2-SR",
    "CHIP-MDCFNPC",
    "IMCS-V2-MRG",
    "MedDG",
)
_CHINESEBLUE_TASKS = (
    "cEHRNER",
    "cMedQANER",
    "cMedQQ",
    "cMedQNLI",
    "cMedQA",
    "cMedIR",
    "cMedIC",
    "cMedTC",
    "CMDD",
)

#: The benchmarks first, then the corpora that have a paper of their own (paper, section 3.2 and Appendix A.1).
SOURCES: tuple[Source, ...] = (
    Source(
        "PromptCBLUE",
        _PROMPTCBLUE_TASKS,
        "CBLUE's samples put into prompts, with answers as text",
        "https://github.com/michael-wzhu/PromptCBLUE",
        "academic, non-commercial use",
        """\
@article{zhu2023promptcblue,
  title   = {PromptCBLUE: A Chinese Prompt Tuning Benchmark for the Medical Domain},
  author  = {Zhu, Wei and Wang, Xiaoling and Zheng, Huanran and Chen, Mosha and Tang, Buzhou},
  journal = {arXiv preprint arXiv:2310.14151},
  year    = {2023}
}""",
    ),
    Source(
        "CBLUE",
        _PROMPTCBLUE_TASKS,
        "the corpora below, and CHIP-CDEE, CHIP-CDN and the KUAKE tasks (queries of a search engine)",
        _TIANCHI,
        _CBLUE_TERMS,
        """\
@inproceedings{zhang2022cblue,
  title     = {{CBLUE}: A {C}hinese Biomedical Language Understanding Evaluation Benchmark},
  author    = {Zhang, Ningyu and Chen, Mosha and Bi, Zhen and Liang, Xiaozhuan and Li, Lei and Shang, Xin and
               Yin, Kangping and Tan, Chuanqi and Xu, Jian and Huang, Fei and Si, Luo and Ni, Yuan and Xie, Guotong and
               Sui, Zhifang and Chang, Baobao and Zong, Hui and Yuan, Zheng and Li, Linfeng and Yan, Jun and
               Zan, Hongying and Zhang, Kunli and Tang, Buzhou and Chen, Qingcai},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics
               (Volume 1: Long Papers)},
  pages     = {7888--7915},
  year      = {2022},
  doi       = {10.18653/v1/2022.acl-long.544}
}""",
    ),
    Source(
        "CMeEE-V2",
        ("CMeEE-V2",),
        "paediatric medical texts with entities of nine types",
        _TIANCHI,
        _CBLUE_TERMS,
        """\
@inproceedings{zan2020pediatric,
  title     = {Building a Pediatric Medical Corpus: Word Segmentation and Named Entity Annotation},
  author    = {Zan, Hongying and Li, Wenxin and Zhang, Kunli and Ye, Yajuan and Chang, Baobao and Sui, Zhifang},
  booktitle = {Chinese Lexical Semantics},
  year      = {2020}
}""",
    ),
    Source(
        "CMeIE",
        ("CMeIE",),
        "medical texts with triples of 53 relations",
        _TIANCHI,
        _CBLUE_TERMS,
        """\
@inproceedings{guan2020cmeie,
  title     = {{CMeIE}: Construction and Evaluation of Chinese Medical Information Extraction Dataset},
  author    = {Guan, Tongfeng and Zan, Hongying and Zhou, Xiabing and Xu, Hongfei and Zhang, Kunli},
  booktitle = {Natural Language Processing and Chinese Computing},
  year      = {2020}
}""",
    ),
    Source(
        "CHIP-CTC",
        ("CHIP-CTC",),
        "eligibility criteria of clinical trials in 44 classes",
        _TIANCHI,
        _CBLUE_TERMS,
        """\
@article{zong2021criteria,
  title   = {Semantic Categorization of Chinese Eligibility Criteria in Clinical Trials Using Machine Learning Methods},
  author  = {Zong, Hui and Yang, Jinxuan and Zhang, Zeyu and Li, Zuofeng and Zhang, Xiaoyan},
  journal = {BMC Medical Informatics and Decision Making},
  volume  = {21},
  year    = {2021}
}""",
    ),
    Source(
        "CHIP-STS",
        ("CHIP-STS",),
        "pairs of questions about diseases, the same in meaning or not",
        _TIANCHI,
        _CBLUE_TERMS,
        """\
@article{luo2021matching,
  title   = {Discussion on the Application of Text Semantic Matching Technology in the Field of Chinese Medical Text
             from the Perspective of Competition},
  author  = {Luo, Xun and Ni, Yuan and Tang, Buzhou},
  journal = {China Digital Medicine},
  volume  = {11},
  year    = {2021}
}""",
    ),
    Source(
        "IMCS-V2",
        ("IMCS-V2-NER", "IMCS-V2-DAC", "IMCS-V2-SR", "IMCS-V2-MRG"),
        "consultations on paediatric diseases with entities, acts, symptoms and reports",
        "https://github.com/lemuria-wchen/imcs21-cblue",
        _CBLUE_TERMS,
        """\
@article{chen2022consultation,
  title   = {A Benchmark for Automatic Medical Consultation System: Frameworks, Tasks and Datasets},
  author  = {Chen, Wei and Li, Zhiwei and Fang, Hongyi and Yao, Qianyuan and Zhong, Cheng and Hao, Jianye and
             Zhang, Qi and Huang, Xuanjing and Peng, Jiajie and Wei, Zhongyu},
  journal = {Bioinformatics},
  volume  = {39},
  year    = {2022}
}""",
    ),
    Source(
        "CHIP-MDCFNPC",
        ("CHIP-MDCFNPC",),
        "dialogues of patients and doctors with clinical findings and their status",
        _TIANCHI,
        _CBLUE_TERMS,
        """\
@inproceedings{xiong2021findings,
  title     = {Overview of the {CHIP2021} Shared Task 1: Classifying Positive and Negative Clinical Findings in
               Medical Dialog},
  author    = {Xiong, Ying and Chen, Mosha and Chen, Qingcai and Tang, Buzhou},
  booktitle = {China Health Information Processing Conference},
  year      = {2021}
}""",
    ),
    Source(
        "MedDG",
        ("MedDG",),
        "online consultations on digestive diseases",
        "https://github.com/lwgkzl/MedDG",
        "none stated by its makers",
        """\
@article{liu2020meddg,
  title   = {{MedDG}: A Large-Scale Medical Consultation Dataset for Building Medical Dialogue System},
  author  = {Liu, Wenge and Tang, Jianheng and Qin, Jinghui and Xu, Lin and Li, Zhuguo and Liang, Xiaodan},
  journal = {arXiv preprint arXiv:2010.07497},
  year    = {2020}
}""",
    ),
    Source(
        "ChineseBLUE",
        _CHINESEBLUE_TASKS,
        "health records, search queries, questions and answers, trial criteria and dialogues",
        "https://github.com/alibaba-research/ChineseBLUE",
        "Apache-2.0",
        """\
@article{zhang2020conceptualized,
  title   = {Conceptualized Representation Learning for Chinese Biomedical Text Mining},
  author  = {Zhang, Ningyu and Jia, Qianghuai and Yin, Kangping and Dong, Liang and Gao, Feng and Hua, Nengwei},
  journal = {arXiv preprint arXiv:2008.10813},
  year    = {2020}
}""",
    ),
    Source(
        "cMedQA2",
        ("cMedQA",),
        "questions of patients and answers to them",
        "https://github.com/zhangsheng93/cMedQA2",
        "Apache-2.0 as part of ChineseBLUE; for the original ask its makers",
        """\
@article{zhang2018multiscale,
  title   = {Multi-Scale Attentive Interaction Networks for Chinese Medical Question Answer Selection},
  author  = {Zhang, Sheng and Zhang, Xin and Wang, Hui and Guo, Lixiang and Liu, Shanshan},
  journal = {IEEE Access},
  volume  = {6},
  pages   = {74061--74071},
  year    = {2018}
}""",
    ),
    Source(
        "CMDD",
        ("CMDD",),
        "dialogues on paediatric diseases with symptoms and their status",
        "http://www.sdspeople.fudan.edu.cn/zywei/data/emnlp2019-cmdd.zip",
        "Apache-2.0 as part of ChineseBLUE; for the original ask its makers",
        """\
@inproceedings{lin2019symptom,
  title     = {Enhancing Dialogue Symptom Diagnosis with Global Attention and Symptom Graph},
  author    = {Lin, Xinzhu and He, Xiahui and Chen, Qin and Tou, Huaixiao and Wei, Zhongyu and Chen, Ting},
  booktitle = {Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing and the 9th
               International Joint Conference on Natural Language Processing},
  pages     = {5033--5042},
  year      = {2019},
  doi       = {10.18653/v1/D19-1508}
}""",
    ),
)


def sources_of(tasks: Iterable[str]) -> list[Source]:
    """The sources that the tasks follow, benchmarks first."""
    wanted = set(tasks)
    return [source for source in SOURCES if wanted & set(source.tasks)]
