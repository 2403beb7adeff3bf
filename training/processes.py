"""One run in several processes, as ``accelerate launch`` and ``torchrun`` start them."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def process_count() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this process is the only one, or the one that reads, writes and speaks to the user."""
    return int(os.environ.get("RANK", 0)) == 0


def say(text: str) -> None:
    """Print, once for all processes."""
    if is_first():
        print(text)


@cache
def disconnect_at_exit() -> None:
    """Take leave of the other processes when this one ends.

    Threads of a gloo connection that is still open can abort a process that has done its work.
    """

    def disconnect() -> None:
        import torch.distributed as connection

        # With NCCL, which has no such threads, leaving after an error could wait for those that are stuck.
        if connection.is_available() and connection.is_initialized() and connection.get_backend() == "gloo":
            connection.destroy_process_group()

    if process_count() > 1:
        atexit.register(disconnect)


def process_state() -> PartialState:
    """Accelerate's view of the processes, connected also where they have but CPUs, which it would leave alone.

    Raises:
        PromptCBLUEError: they did not find one another, so that each would do the whole work.
    """
    import torch
    from accelerate import PartialState

    disconnect_at_exit()
    state = PartialState(cpu=process_count() > 1 and not torch.accelerator.is_available())
    if state.num_processes != process_count():
        raise PromptCBLUEError(
            f"the launcher started {process_count()} processes, and {state.num_processes} work together; start them "
            "with torchrun"
        )
    return state


def from_first(value: T | None) -> T:
    """What the first process passes, in every process; the others wait for it.

    Should the first process fail before it gets here, its launcher ends the others.
    """
    if process_count() > 1:
        from accelerate.utils import broadcast_object_list

        process_state()
        (value,) = broadcast_object_list([value])
    assert value is not None
    return value


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
