"""PromptCBLUE as a Hugging Face dataset: import the official files, build the Hub layout, load samples anywhere."""

from __future__ import annotations

from promptcblue_dataset.official import sample_path
from promptcblue_dataset.source import load_samples

__all__ = ["load_samples", "sample_path"]
