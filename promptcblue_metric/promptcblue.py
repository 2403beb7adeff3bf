"""The metric under the file name that ``evaluate.load("promptcblue")`` looks for.

As in `promptcblue_metric`, every sibling has to be imported here for the Hub to copy it.
"""

from .answers import Answer
from .errors import PromptCBLUEError
from .evaluation import Evaluation
from .lenient import parse_lenient
from .promptcblue_metric import PromptCBLUE
from .ranking import GradedRanking
from .scoring import Protocol
from .scripts import TO_SIMPLIFIED
from .tasks import TASKS
from .trees import TreeEdit
from .unwrap import Words
from .version import VERSION
