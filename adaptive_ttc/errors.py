"""The errors that this library raises on purpose; it knows nothing of any engine.

Programming mistakes stay ``ValueError`` and ``TypeError``::

    AdaptiveTTCError
    ├── ConfigError        wrong arguments: strategy, n, budget, an empty problem (also a ValueError)
    ├── CalibrationError   an artefact that is missing, foreign, edited or not fit for use
    ├── CheckpointError    the file to go on from is of another call, damaged, in use, or cannot be written
    ├── EngineError        a policy or PRM failed; ``retryable`` says whether the same call may succeed later
    │   ├── ReplyError     it answered something that cannot be: NaN, too few scores, foreign tokens
    │   ├── OverdueError   a call did not come back in time
    │   └── OutageError    it is gone, or lost too much of the budget: the whole run ends with what it has, or goes on
    │                      with the other policy of a cascade
    ├── SourceError        a source of problems failed
    └── GradingError       the grading worker itself failed (a wrong or unreadable answer is not an error)
"""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from importlib import metadata
from types import FrameType
from typing import Any, NamedTuple


class AdaptiveTTCError(Exception):
    """Root of everything that this library raises on purpose.

    Attributes:
        generated: whether the call that failed may have generated something, and so has to be paid for.
        solution: the :class:`~adaptive_ttc.solution.Solution` made of what was finished before, where a solver raised
            this; None elsewhere.
    """

    generated = False
    solution: Any = None


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
        generated: False when it surely generated nothing, so that the call costs nothing.
        retry_after: seconds after which the engine asks to be tried again; None where it does not say.
    """

    def __init__(
        self, message: str, *, retryable: bool = False, generated: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.generated = generated
        self.retry_after = retry_after


class ReplyError(EngineError):
    """An engine answered something that cannot be; the call is paid for, and may be repeated."""


class ScriptError(EngineError, LookupError):
    """A fake engine was asked for what its script does not hold: final, and it costs nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, generated=False)


class OverdueError(EngineError):
    """A call did not come back in time and was given up; it is paid for, and may be repeated."""


class OutageError(EngineError):
    """An engine is gone, or its failures took more than their share of the budget: the run ends with what it has, or
    goes on with the other policy of a cascade.
    """


class SourceError(AdaptiveTTCError):
    """A source of problems failed; those that it had brought are solved."""


class GradingError(AdaptiveTTCError):
    """The grading worker could not be started or kept alive."""


class RevisionWarning(UserWarning):
    """A policy is asked to revise its solutions without having been trained for it."""


class CalibrationWarning(UserWarning):
    """A pair of models is used without a calibration of its own."""


class OutageWarning(UserWarning):
    """A policy of a cascade is gone, and the run goes on without it."""


class AnswerWarning(UserWarning):
    """No solution gives an answer of the kind that is looked for."""


class VerifyWarning(UserWarning):
    """A caller's check of answers failed, or took too long."""


class PromptWarning(UserWarning):
    """A general instruct model is asked, by a system prompt of the library's, for the form that is read."""


class Line(NamedTuple):
    """A place in a caller's code."""

    file: str
    number: int
    module: str


_BETWEEN = ("adaptive_ttc", "asyncio", "anyio", "concurrent", "threading", "contextlib", "runpy")
"""Packages whose frames may lie between a caller and a warning."""


def calling_line() -> Line:
    """The line outside this package, and outside event loops and threads, from which it was called."""
    frame: FrameType | None = sys._getframe(1)
    line = Line("", 0, "")
    while frame is not None:
        line = Line(frame.f_code.co_filename, frame.f_lineno, str(frame.f_globals.get("__name__", "")))
        if line.module.partition(".")[0] not in _BETWEEN:
            break
        frame = frame.f_back
    return line


def warn(message: str, category: type[Warning], line: Line | None = None) -> None:
    """Warn at a line of the caller's code, by default that which runs."""
    file, number, module = line or calling_line()
    warnings.warn_explicit(message, category, file, number, module=module)


def see(page: str) -> str:
    """Where a message sends its reader: a page of the documentation, with the anchor, such as ``models.md#servers``."""
    return f"(docs/{page})"


def install_command(extra: str) -> str:
    """The command that installs what an extra of this package needs, by the names of the packages themselves."""
    try:
        wanted = [Requirement.of(line) for line in metadata.requires("adaptive-ttc") or ()]
    except metadata.PackageNotFoundError:
        wanted = []
    found = [one.package for one in wanted if one.extra == extra]
    return f"pip install {shlex.join(found)}" if found else f"pip install '.[{extra}]' (in a clone)"


class Requirement(NamedTuple):
    """A package that an installed one needs."""

    package: str
    extra: str

    @classmethod
    def of(cls, line: str) -> Requirement:
        """Read a line of a package's metadata, such as ``ray>=2.40; extra == 'ray'``."""
        package, _, condition = line.partition(";")
        found = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", condition)
        return cls(package.strip(), found[1] if found else "")
