"""PromptCBLUE's tasks, answer formats and scores; on the Hub, an ``evaluate`` metric that stands alone."""

from .answers import Parsed, Problem
from .errors import PromptCBLUEError, RowError, SeparatorError, UnknownTaskError
from .evaluation import Evaluation, Result, TaskResult
from .tasks import GROUPS, REGISTRY, SUITES, TASKS, Suite, Task, get_task
from .version import VERSION

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
