"""Fine-tune causal language models on PromptCBLUE, and predict with them."""

import logging

# Said when it is imported, about kernels that only few processors have a use for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def main() -> None:
    """Entry point of ``promptcblue-train``."""
    from promptcblue_metric.cli import start

    start("promptcblue_training.cli")
