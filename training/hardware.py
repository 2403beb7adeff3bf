"""What the machine can do: device and number format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    import torch

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
