"""Final answers: extraction, canonical text and equivalence; model text is parsed in a worker process only."""

from adaptive_ttc.answers.config import GraderStatistics, GradingConfig
from adaptive_ttc.answers.extraction import canonical, extract_answer
from adaptive_ttc.answers.grader import Grader

__all__ = ["Grader", "GraderStatistics", "GradingConfig", "canonical", "extract_answer"]
