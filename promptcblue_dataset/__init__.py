"""PromptCBLUE as a Hugging Face dataset: import the official files, build the Hub layout, load samples anywhere."""

from __future__ import annotations

from promptcblue_metric.data.samples import load_samples, sample_path

__all__ = ["load_samples", "sample_path"]
