"""The metric under the file name that ``evaluate.load("promptcblue")`` looks for.

As in `promptcblue_metric`, every sibling has to be imported here for the Hub to copy it.
"""

from .answers import Answer
from .errors import PromptCBLUEError
from .evaluation import Evaluation
from .promptcblue_metric import PromptCBLUE
from .rouge import rouge_scores
from .scoring import Scorer
from .tasks import TASKS
from .version import VERSION
