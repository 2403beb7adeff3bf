"""Published results, to set a run beside (scores in 0..1).

Sources for PromptCBLUE: the paper (Zhu et al. 2023, arXiv 2310.14151), Tables 1, 2, 3 and 7, and the official
repository's baselines on the dev split. For ChineseBLUE: Zhang et al. 2020, arXiv 2008.10813, Table 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..tasks import GROUPS


class Published(NamedTuple):
    """One published system.

    Attributes:
        system: what it is.
        source: where it stands, and on which split it was scored.
        scores: by task, by group or ``overall``; what was not published is absent.
        note: what a reader has to know about the figures.
    """

    system: str
    source: str
    scores: Mapping[str, float]
    note: str = ""


def _by_task(system: str, source: str, scores: Mapping[str, float], printed: float | None = None) -> Published:
    """A system with a score for each of the 16 tasks; its overall score is their mean, whatever was printed."""
    mean = sum(scores.values()) / len(scores)
    wrong = printed is not None and abs(mean - printed) > 0.001
    note = f"printed overall {printed:.3f}; its 16 rows have the mean {mean:.4f}" if wrong else ""
    return Published(system, source, {**scores, "overall": mean}, note)


def _by_group(system: str, source: str, scores: tuple[float, ...]) -> Published:
    """A system with a score for each of the five groups, and the overall score."""
    return Published(system, source, dict(zip((*GROUPS, "overall"), scores, strict=True)))


_TABLE_1 = "paper, Table 1: few-shot prompting, test"
_TABLE_2 = "paper, Table 2: fine-tuned Baichuan-13B, test"
_TABLE_3 = "paper, Table 3: fine-tuned with LoRA, test"
_TABLE_7 = "paper, Table 7: few-shot fine-tuning, test"
_README = "official repository, dev"

_PROMPTCBLUE: tuple[Published, ...] = (
    _by_task(
        "ChatGPT",
        _TABLE_1,
        {
            "CMeEE-V2": 0.469,
            "CMeIE": 0.305,
            "CHIP-CDEE": 0.283,
            "CHIP-CDN": 0.606,
            "IMCS-V2-NER": 0.568,
            "CHIP-CTC": 0.525,
            "KUAKE-QIC": 0.485,
            "IMCS-V2-DAC": 0.345,
            "CHIP-STS": 0.71,
            "KUAKE-IR": 0.518,
            "KUAKE-QTR": 0.231,
            "KUAKE-QQR": 0.304,
            "IMCS-V2-SR": 0.33,
            "CHIP-MDCFNPC": 0.585,
            "IMCS-V2-MRG": 0.325,
            "MedDG": 0.136,
        },
        printed=0.421,
    ),
    _by_task(
        "GPT-4",
        _TABLE_1,
        {
            "CMeEE-V2": 0.572,
            "CMeIE": 0.457,
            "CHIP-CDEE": 0.375,
            "CHIP-CDN": 0.856,
            "IMCS-V2-NER": 0.695,
            "CHIP-CTC": 0.614,
            "KUAKE-QIC": 0.563,
            "IMCS-V2-DAC": 0.435,
            "CHIP-STS": 0.728,
            "KUAKE-IR": 0.573,
            "KUAKE-QTR": 0.364,
            "KUAKE-QQR": 0.417,
            "IMCS-V2-SR": 0.395,
            "CHIP-MDCFNPC": 0.673,
            "IMCS-V2-MRG": 0.373,
            "MedDG": 0.193,
        },
        printed=0.518,
    ),
    _by_task(
        "ChatGLM",
        _TABLE_1,
        {
            "CMeEE-V2": 0.38,
            "CMeIE": 0.266,
            "CHIP-CDEE": 0.182,
            "CHIP-CDN": 0.477,
            "IMCS-V2-NER": 0.549,
            "CHIP-CTC": 0.431,
            "KUAKE-QIC": 0.43,
            "IMCS-V2-DAC": 0.318,
            "CHIP-STS": 0.631,
            "KUAKE-IR": 0.453,
            "KUAKE-QTR": 0.218,
            "KUAKE-QQR": 0.259,
            "IMCS-V2-SR": 0.283,
            "CHIP-MDCFNPC": 0.512,
            "IMCS-V2-MRG": 0.303,
            "MedDG": 0.108,
        },
        printed=0.436,
    ),
    _by_task(
        "ChatGLM-6B + P-tuning",
        _README,
        {
            "CMeEE-V2": 0.6359,
            "CMeIE": 0.3765,
            "CHIP-CDEE": 0.4914,
            "CHIP-CDN": 0.7805,
            "IMCS-V2-NER": 0.8508,
            "CHIP-CTC": 0.8046,
            "KUAKE-QIC": 0.8113,
            "IMCS-V2-DAC": 0.7147,
            "CHIP-STS": 0.7696,
            "KUAKE-IR": 0.6154,
            "KUAKE-QTR": 0.4701,
            "KUAKE-QQR": 0.5537,
            "IMCS-V2-SR": 0.6168,
            "CHIP-MDCFNPC": 0.6865,
            "IMCS-V2-MRG": 0.4707,
            "MedDG": 0.1035,
        },
    ),
    _by_task(
        "ChatGLM-6B + LoRA",
        _README,
        {
            "CMeEE-V2": 0.6725,
            "CMeIE": 0.4555,
            "CHIP-CDEE": 0.5456,
            "CHIP-CDN": 0.8461,
            "IMCS-V2-NER": 0.8709,
            "CHIP-CTC": 0.8086,
            "KUAKE-QIC": 0.739,
            "IMCS-V2-DAC": 0.7639,
            "CHIP-STS": 0.8081,
            "KUAKE-IR": 0.6835,
            "KUAKE-QTR": 0.5428,
            "KUAKE-QQR": 0.6348,
            "IMCS-V2-SR": 0.633,
            "CHIP-MDCFNPC": 0.7366,
            "IMCS-V2-MRG": 0.4663,
            "MedDG": 0.1117,
        },
    ),
    _by_task(
        "ChatGLM-6B + AdaLoRA",
        _README,
        {
            "CMeEE-V2": 0.6634,
            "CMeIE": 0.429,
            "CHIP-CDEE": 0.5131,
            "CHIP-CDN": 0.8465,
            "IMCS-V2-NER": 0.8779,
            "CHIP-CTC": 0.7398,
            "KUAKE-QIC": 0.84,
            "IMCS-V2-DAC": 0.7168,
            "CHIP-STS": 0.7618,
            "KUAKE-IR": 0.7657,
            "KUAKE-QTR": 0.5076,
            "KUAKE-QQR": 0.6738,
            "IMCS-V2-SR": 0.6458,
            "CHIP-MDCFNPC": 0.7531,
            "IMCS-V2-MRG": 0.4811,
            "MedDG": 0.1298,
        },
    ),
    _by_task(
        "ChatGPT + ICL",
        _README,
        {
            "CMeEE-V2": 0.4698,
            "CMeIE": 0.3058,
            "CHIP-CDEE": 0.2838,
            "CHIP-CDN": 0.6069,
            "IMCS-V2-NER": 0.5684,
            "CHIP-CTC": 0.5253,
            "KUAKE-QIC": 0.4851,
            "IMCS-V2-DAC": 0.3455,
            "CHIP-STS": 0.7108,
            "KUAKE-IR": 0.5183,
            "KUAKE-QTR": 0.2318,
            "KUAKE-QQR": 0.304,
            "IMCS-V2-SR": 0.3305,
            "CHIP-MDCFNPC": 0.5854,
            "IMCS-V2-MRG": 0.3253,
            "MedDG": 0.1361,
        },
    ),
    _by_group("P-tuning", _TABLE_2, (0.732, 0.814, 0.742, 0.705, 0.236, 0.685)),
    _by_group("P-tuning-v2", _TABLE_2, (0.728, 0.811, 0.759, 0.713, 0.255, 0.69)),
    _by_group("Adapter", _TABLE_2, (0.742, 0.834, 0.768, 0.739, 0.261, 0.705)),
    _by_group("LoRA", _TABLE_2, (0.749, 0.832, 0.775, 0.736, 0.277, 0.71)),
    _by_group("AdaLoRA", _TABLE_2, (0.751, 0.826, 0.769, 0.738, 0.273, 0.708)),
    _by_group("Chinese-LLaMA-2 7B + P-tuning-v2", _TABLE_7, (0.238, 0.263, 0.314, 0.331, 0.135, 0.26)),
    _by_group("Chinese-LLaMA-2 7B + Adapter", _TABLE_7, (0.219, 0.226, 0.295, 0.316, 0.142, 0.242)),
    _by_group("Chinese-LLaMA-2 7B + LoRA", _TABLE_7, (0.224, 0.251, 0.309, 0.308, 0.127, 0.249)),
    _by_group("Chinese-LLaMA-2 13B + P-tuning-v2", _TABLE_7, (0.287, 0.336, 0.352, 0.364, 0.153, 0.305)),
    _by_group("Chinese-LLaMA-2 13B + Adapter", _TABLE_7, (0.264, 0.338, 0.328, 0.359, 0.145, 0.291)),
    _by_group("Chinese-LLaMA-2 13B + LoRA", _TABLE_7, (0.278, 0.327, 0.351, 0.357, 0.142, 0.298)),
    Published("GPT-2 Chinese", _TABLE_3, {"overall": 0.213}),
    Published("Randeng-T5-784M", _TABLE_3, {"overall": 0.294}),
    Published("BLOOMZ-7.1B-mt", _TABLE_3, {"overall": 0.596}),
    Published("ChatGLM-6B-2", _TABLE_3, {"overall": 0.681}),
    Published("ChatMed", _TABLE_3, {"overall": 0.688}),
    Published("Chinese-LLaMA-2 7B", _TABLE_3, {"overall": 0.683}),
    Published("Chinese-LLaMA-2 13B", _TABLE_3, {"overall": 0.704}),
    Published("Ziya-13B-medical", _TABLE_3, {"overall": 0.705}),
    Published("Baichuan-13B", _TABLE_3, {"overall": 0.71}),
)


def _chineseblue(system: str, pair: float, scores: Mapping[str, float]) -> Published:
    """A system of the ChineseBLUE paper, whose PAIR is set beside ours as the share of right pairs."""
    by_task = {**scores, "cMedIR": pair / (1 + pair)}
    note = (
        f"cMedIR was published as PAIR {pair}, which is {pair / (1 + pair):.4f} of the pairs; the overall score is the "
        f"mean of {len(by_task)} tasks, without CMDD; which average of F1 was published is not said"
    )
    return Published(
        system,
        "Zhang et al. 2020, Table 3: fine-tuned, test",
        {**by_task, "overall": sum(by_task.values()) / len(by_task)},
        note,
    )


_CHINESEBLUE: tuple[Published, ...] = (
    _chineseblue(
        "BERT-base",
        1.77,
        {
            "cEHRNER": 0.882,
            "cMedQANER": 0.863,
            "cMedQQ": 0.865,
            "cMedQNLI": 0.933,
            "cMedQA": 0.81,
            "cMedIC": 0.86,
            "cMedTC": 0.79,
        },
    ),
    _chineseblue(
        "MC-BERT",
        2.04,
        {
            "cEHRNER": 0.9,
            "cMedQANER": 0.881,
            "cMedQQ": 0.875,
            "cMedQNLI": 0.955,
            "cMedQA": 0.823,
            "cMedIC": 0.875,
            "cMedTC": 0.821,
        },
    ),
)

#: Published systems by suite.
PUBLISHED: Mapping[str, tuple[Published, ...]] = {"promptcblue": _PROMPTCBLUE, "chineseblue": _CHINESEBLUE}

#: What has to be said of a suite's published scores.
NOTES: Mapping[str, str] = {
    "promptcblue": "Published test scores are of the official test split, which is not public.",
    "chineseblue": "Published scores are of taggers and classifiers fine-tuned on each corpus, on its test file.",
}

#: Demonstrations a task in the paper's few-shot setting (Table 1); together they are its few-shot training set.
DEMONSTRATIONS: Mapping[str, int] = {
    "CMeEE-V2": 7,
    "CMeIE": 12,
    "CHIP-CDEE": 5,
    "CHIP-CDN": 10,
    "IMCS-V2-NER": 10,
    "CHIP-CTC": 10,
    "KUAKE-QIC": 10,
    "IMCS-V2-DAC": 8,
    "CHIP-STS": 10,
    "KUAKE-IR": 5,
    "KUAKE-QTR": 10,
    "KUAKE-QQR": 10,
    "IMCS-V2-SR": 5,
    "CHIP-MDCFNPC": 3,
    "IMCS-V2-MRG": 2,
    "MedDG": 5,
}
