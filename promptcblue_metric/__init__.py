"""PromptCBLUE's tasks, answer formats and scores; on the Hub, an ``evaluate`` metric that stands alone."""

from importlib import import_module
from typing import TYPE_CHECKING

from .version import VERSION

if TYPE_CHECKING:
    from .answers import Parsed, Problem
    from .errors import PromptCBLUEError, RowError, SeparatorError, UnknownTaskError
    from .evaluation import Evaluation, Result, TaskResult
    from .tasks import GROUPS, REGISTRY, SUITES, TASKS, Suite, Task, get_task

__version__ = VERSION

__all__ = [
    "GROUPS",
    "REGISTRY",
    "SUITES",
    "TASKS",
    "Evaluation",
    "Parsed",
    "Problem",
    "PromptCBLUEError",
    "Result",
    "RowError",
    "SeparatorError",
    "Suite",
    "Task",
    "TaskResult",
    "UnknownTaskError",
    "__version__",
    "get_task",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A public name from the module that has it, which is read only now: a command can then say that it starts."""
        if name in __all__:
            for home in ("errors", "tasks", "evaluation", "answers"):
                if hasattr(module := import_module(f"{__name__}.{home}"), name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__} has no attribute {name}")
