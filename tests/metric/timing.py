"""Whether work grows in proportion to its size, on machines that are busy with other things."""

from __future__ import annotations

import gc
from collections.abc import Callable

#: How many times the proportional time is allowed; work that grows with the square takes as many times as the sizes do.
_SLACK = 4
_TRIES = 4


def assert_linear(seconds: Callable[[int], float], small: int, large: int, what: str = "") -> None:
    """Fail if work of size ``large`` takes out of all proportion longer than work of size ``small``, time after time.

    Args:
        seconds: does work of a size, and says how long it took.
        small: a size.
        large: another, at least eight times as large.
        what: names the work in the failure.
    """
    assert large >= 2 * _SLACK * small
    # A collection of garbage takes time by all that other tests have left in the process.
    gc.disable()
    try:
        for _ in range(_TRIES):
            few, many = min(seconds(small) for _ in range(2)), seconds(large)
            if many < _SLACK * large / small * few + 0.1:
                return
    finally:
        gc.enable()
    raise AssertionError(f"{what}: {small} took {few:.4f} s, {large} took {many:.4f} s")
