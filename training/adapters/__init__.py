"""What PEFT does not bring: the parallel adapter, padding around virtual prompts, AdaLoRA's schedule, exact resuming.

Importing this package makes the parallel adapter known to PEFT, so that ``PeftModel.from_pretrained`` loads one.
"""

from __future__ import annotations

from .parallel import ParallelAdapterConfig, ParallelAdapterModel
from .prompts import pad_before_prompt

__all__ = ["ParallelAdapterConfig", "ParallelAdapterModel", "pad_before_prompt"]
