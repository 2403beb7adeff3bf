"""What the machine can do: device and number format."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    import torch

#: Parameters below which one CPU thread is as fast as several, and far faster where other programs want the cores.
_TINY = 4_000_000
DTYPES = ("auto", "float32", "bfloat16", "float16")


def best_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, float16 on older GPUs, float32 elsewhere.

    A CPU can emulate bfloat16, many times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "xpu" else torch.float32


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called ``name``, or the best one for the device if it is ``auto``.

    Raises:
        PromptCBLUEError: no dtype of ours is called so.
    """
    import torch

    if name not in DTYPES:
        raise PromptCBLUEError(f"unknown dtype '{name}'; expected one of {', '.join(DTYPES)}")
    dtype: torch.dtype = best_dtype(device) if name == "auto" else getattr(torch, name)
    return dtype


def spare_threads(model: Any, device: torch.device) -> None:
    """Give a tiny model on the CPU one thread, unless ``OMP_NUM_THREADS`` asks for a number.

    The threads of each small operation wait for one another; measured with 0.8 million parameters on two cores that
    were in use, one thread trained in half the time of two and generated in a tenth.
    """
    import torch

    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ and model.num_parameters() < _TINY:
        torch.set_num_threads(1)
