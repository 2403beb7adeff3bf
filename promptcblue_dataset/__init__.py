"""PromptCBLUE as a Hugging Face dataset: import the official files, build the Hub layout, load samples anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptcblue_metric.data.samples import load_samples, sample_path

__all__ = ["load_samples", "sample_path"]


def main() -> None:
    """Entry point of ``promptcblue-dataset``."""
    from promptcblue_metric.cli import start

    start("promptcblue_dataset.cli")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A public name, whose module is read only now."""
        if name in __all__:
            from promptcblue_metric.data import samples

            return getattr(samples, name)
        raise AttributeError(f"module {__name__} has no attribute {name}")
