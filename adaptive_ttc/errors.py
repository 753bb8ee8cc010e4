"""The errors that this library raises on purpose; it knows nothing of any engine.

Programming mistakes stay ``ValueError`` and ``TypeError``::

    AdaptiveTTCError
    ├── ConfigError        wrong arguments: strategy, n, budget, an empty problem (also a ValueError)
    ├── CalibrationError   an artefact that is missing, foreign, edited or not fit for use
    ├── CheckpointError    the file to go on from is of another call, damaged, in use, or cannot be written
    ├── EngineError        a policy or PRM failed; ``retryable`` says whether the same call may succeed later
    └── GradingError       the grading worker itself failed (a wrong or unreadable answer is not an error)
"""

from __future__ import annotations


class AdaptiveTTCError(Exception):
    """Root of everything that this library raises on purpose."""


class ConfigError(AdaptiveTTCError, ValueError):
    """The caller asked for something impossible; the message names the remedy."""


class CalibrationError(AdaptiveTTCError):
    """A calibration artefact cannot be made, read or trusted."""


class CheckpointError(AdaptiveTTCError):
    """The file that a call goes on from cannot be used."""


class EngineError(AdaptiveTTCError):
    """A policy or PRM could not answer.

    Args:
        message: what failed and what to do.
        retryable: True when the same request may succeed later (overload, lost connection).
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class GradingError(AdaptiveTTCError):
    """The grading worker could not be started or kept alive."""


class RevisionWarning(UserWarning):
    """A policy is asked to revise its solutions without having been trained for it."""


class CalibrationWarning(UserWarning):
    """A pair of models is used without a calibration of its own."""


class VerifyWarning(UserWarning):
    """A caller's check of answers failed, or took too long."""
