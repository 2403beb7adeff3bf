"""The ``evaluate`` metric of PromptCBLUE.

The Hub copies to the user's cache only the modules that this file imports itself, in the first column, so
every sibling that the metric needs is imported here, those too that only other siblings use.
"""

import re
from typing import Any

import datasets
import evaluate

from .answers import Answer
from .errors import PromptCBLUEError
from .evaluation import Evaluation, Parser
from .lenient import parse_lenient
from .ranking import GradedRanking
from .scoring import Protocol
from .scripts import TO_SIMPLIFIED
from .tasks import TASKS
from .trees import TreeEdit
from .unwrap import Words
from .version import VERSION

_REPOSITORY = "https://github.com/promptcblue/promptcblue"

_DESCRIPTION = """\
Scores answers to PromptCBLUE, 16 Chinese medical language tasks written as prompt and response. The free text
of a model is parsed into structured answers and scored exactly as the benchmark's official scorer does:
micro-F1 for extraction, symptom status and inference, macro-F1 for classification, ROUGE-L for generation.
Answers to the nine corpora of ChineseBLUE, in the same form, have an overall score of their own.
"""

_INPUTS = """\
Args:
    predictions: list of str, the model's outputs as they are.
    references: list of dicts, the rows of the dataset as they are, in the same order, with the fields input,
        target, answer_choices, sample_id, task_type and task_dataset. `references=dataset` works too.
    protocol: "official" (the default) equals the official scorer; "paper" is the paper's definitions at their word.
    parser: "strict" (the default) reads what the official scorer reads; "lenient" what a reader would understand.
Returns:
    With a config name, that task's precision, recall and f1 (or rouge1, rouge2 and rougeL), samples,
    well_formed (the share of outputs in the expected form) and signature. Without one, `overall`, `groups`
    and `tasks` for all the tasks that the references hold, all of one suite, and `missing_tasks`.
Example:
    >>> metric = evaluate.load("promptcblue", "CHIP-STS")
    >>> row = {"input": "头痛和头疼是同一个意思吗？", "target": "是的", "answer_choices": ["是的", "不是"],
    ...        "sample_id": "1", "task_type": "cls", "task_dataset": "CHIP-STS"}
    >>> metric.compute(predictions=["是的"], references=[row])["f1"]
    1.0
"""

_CITATION = """\
@article{zhu2023promptcblue,
  title   = {PromptCBLUE: A Chinese Prompt Tuning Benchmark for the Medical Domain},
  author  = {Zhu, Wei and Wang, Xiaoling and Zheng, Huanran and Chen, Mosha and Tang, Buzhou},
  journal = {arXiv preprint arXiv:2310.14151},
  year    = {2023}
}
"""

#: Config names that mean "every task": evaluate's own default, and the dataset's.
_EVERY_TASK = ("default", "all")


#: Halves of surrogate pairs.
_SURROGATE = re.compile("[\ud800-\udfff]")


def _encodable(predictions: Any) -> Any:
    if not isinstance(predictions, list):
        return predictions
    return [_SURROGATE.sub("\ufffd", text) if isinstance(text, str) else text for text in predictions]


class PromptCBLUE(evaluate.Metric):  # type: ignore[misc]
    """``evaluate.load("promptcblue")`` for every task, ``evaluate.load("promptcblue", "CMeEE-V2")`` for one."""

    def _info(self) -> evaluate.MetricInfo:
        # Refuses an unknown config name here, when the metric is loaded, and not after hours of prediction.
        self._evaluation()
        text = datasets.Value("string")
        reference = {
            "input": text,
            "target": text,
            "answer_choices": datasets.Sequence(text),
            "sample_id": text,
            "task_type": text,
            "task_dataset": text,
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": reference}),
            homepage=_REPOSITORY,
            license="Apache-2.0",
            codebase_urls=[_REPOSITORY],
            reference_urls=["https://arxiv.org/abs/2310.14151"],
        )

    def _evaluation(self, parser: Parser = "strict") -> Evaluation:
        return Evaluation(None if self.config_name in _EVERY_TASK else self.config_name, parser)

    def add(self, *, prediction: Any = None, reference: Any = None, **more: Any) -> None:
        """As `evaluate.Metric.add`, and as `add_batch`."""
        super().add(prediction=_encodable([prediction])[0], reference=reference, **more)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **more: Any) -> None:
        """As `evaluate.Metric.add_batch`; half a surrogate pair, which Arrow cannot hold, scores as U+FFFD does."""
        super().add_batch(predictions=_encodable(predictions), references=references, **more)

    def _compute(
        self,
        predictions: list[str],
        references: list[dict[str, object]],
        protocol: Protocol = "official",
        parser: Parser = "strict",
    ) -> dict[str, object]:
        evaluation = self._evaluation(parser)
        for prediction, reference in zip(predictions, references, strict=True):
            evaluation.add(prediction, reference)
        result = evaluation.result(protocol)
        if self.config_name in _EVERY_TASK:
            return {**result}
        (task,) = result["tasks"].values()
        kept = {"samples": task["samples"], "well_formed": task["well_formed"], "counts": task["counts"]}
        return {**task["scores"], **kept, "signature": result["signature"]}
