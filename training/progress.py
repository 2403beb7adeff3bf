"""Progress for people: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from time import monotonic
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

#: Seconds after which something is said where there is no terminal for a bar.
_SILENCE = 30.0


class ProgressLines(TrainerCallback):  # type: ignore[misc]
    """A bar on stderr if it is a terminal, and a line for each log either way."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._said = monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar where a resumed run stands."""
        if state.is_world_process_zero:
            quiet = not sys.stderr.isatty()
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=quiet)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
            if self._bar.disable and not control.should_log and monotonic() - self._said >= _SILENCE:
                self._said = monotonic()
                print(f"step {state.global_step}/{state.max_steps}", flush=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Say where the losses stand."""
        if state.is_world_process_zero and logs and (line := log_line(logs)):
            tqdm.write(f"step {state.global_step}/{state.max_steps}  {line}", file=sys.stdout)
            sys.stdout.flush()
            self._said = monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def log_line(logs: dict[str, float]) -> str:
    """The numbers of a log entry that tell how training goes."""
    shown = {
        "loss": ("loss", ".4f"),
        "mean_token_accuracy": ("token accuracy", ".3f"),
        "learning_rate": ("lr", ".2e"),
        "eval_loss": ("validation loss", ".4f"),
        "eval_mean_token_accuracy": ("validation token accuracy", ".3f"),
        "eval_overall": ("validation score", ".4f"),
    }
    return "  ".join(f"{title} {float(logs[key]):{form}}" for key, (title, form) in shown.items() if key in logs)


def quiet_libraries() -> None:
    """Silence what the libraries say that is not about this run; their errors still come through."""
    import datasets
    import transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    for category, module in ((UserWarning, r"torch\..*"), (FutureWarning, r"transformers\..*")):
        warnings.filterwarnings("ignore", category=category, module=module)
    # PEFT takes AdaLoRA's ranks for LoRA's, and a matrix that lost all of them for a broken one.
    for message in (r"The following rank_pattern keys did not match", r"Adapter '\w+': \d+ LoRA tensor\(s\) have"):
        warnings.filterwarnings("ignore", message=message)
