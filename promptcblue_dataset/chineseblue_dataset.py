"""The builder of ChineseBLUE: 9 configs, one a corpus, and ``all``, from a folder that was imported."""

from __future__ import annotations

import datasets

from promptcblue_dataset.promptcblue_dataset import PromptCBLUE
from promptcblue_metric.data.samples import ALL
from promptcblue_metric.tasks import SUITES

_TASKS = SUITES["chineseblue"].tasks


class ChineseBLUE(PromptCBLUE):
    """ChineseBLUE's samples as a dataset; its arguments are those of `PromptCBLUE`."""

    BUILDER_CONFIGS = [  # noqa: RUF012 (the name and the type are the library's)
        datasets.BuilderConfig(name=ALL, description=f"all {len(_TASKS)} corpora of ChineseBLUE"),
        *(datasets.BuilderConfig(name=task.name, description=task.group) for task in _TASKS.values()),
    ]
