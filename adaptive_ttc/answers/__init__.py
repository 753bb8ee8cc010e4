"""Final answers: extraction, canonical text and equivalence; libraries parse model text in a worker process only."""

from adaptive_ttc.answers.equivalence import Grader, GraderStatistics
from adaptive_ttc.answers.extraction import canonical, extract_answer
from adaptive_ttc.answers.grading_process import GradingConfig
from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.registry import parse_space

GRADER_VERSION = 2
"""Of the rules by which answers are read and compared. Stored grades say which one gave them; those of another one are
given anew before they are used.
"""

__all__ = [
    "GRADER_VERSION",
    "AnswerSpace",
    "Grader",
    "GraderStatistics",
    "GradingConfig",
    "canonical",
    "extract_answer",
    "parse_space",
]
