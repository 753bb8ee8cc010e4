"""Answers that are Python programs: the last code block of a solution, right where it passes tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from adaptive_ttc.answers.sandbox import Limits, check_available, run_tests
from adaptive_ttc.answers.spaces.base import ExactSpace, Span
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import Problem

_FENCE = re.compile(r"^[ \t]{0,8}```[ \t]{0,8}(\w{0,20})[^\n`]{0,80}$", re.MULTILINE)
_PYTHON = ("python", "python3", "py", "")


@dataclass(frozen=True, repr=False)
class CodeSpace(ExactSpace):
    """Python programs, run by :mod:`adaptive_ttc.answers.sandbox`.

    Two are equal where their texts are, so that votes seldom agree: give problems tests (``Problem.tests``), by which
    answers are verified while solving. In a data set the right answer is tests too, which the solver never sees.

    Args:
        limits: of every run.

    Raises:
        ConfigError: programs cannot be confined on this system.
    """

    limits: Limits = field(default_factory=Limits)
    form: str = field(default="a Python code block", init=False)
    asks: str = field(default="End with the whole program in one ```python code block.", init=False)
    tested: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_available()

    @property
    def name(self) -> str:  # type: ignore[override]
        """``code``, or ``code:seconds=9`` with the limits that differ from the common ones."""
        common = Limits()
        told = [
            f"{name}={value}"
            for name in Limits.__dataclass_fields__
            if (value := getattr(self.limits, name)) != getattr(common, name)
        ]
        return "code" + (":" + ",".join(told) if told else "")

    @classmethod
    def of(cls, settings: str) -> CodeSpace:
        """From ``seconds=9,memory_mb=1024``. ConfigError: there are no such settings."""
        values = {}
        for part in settings.split(","):
            name, _, value = (text.strip() for text in part.partition("="))
            if name not in Limits.__dataclass_fields__ or not value.isdecimal():
                raise ConfigError(f"answers='code:{settings}': settings are such as code:seconds=9,memory_mb=1024")
            values[name] = int(value)
        return cls(Limits(**values))

    def span(self, text: str) -> Span | None:
        """The content of the last closed code block that is Python's, or of no named language."""
        fences = list(_FENCE.finditer(text))
        blocks, opened = [], None
        for fence in fences:
            if opened is None:
                opened = fence
            elif not fence[1]:
                if opened[1].lower() in _PYTHON and text[opened.end() : fence.start()].strip():
                    blocks.append((opened.end() + 1, fence.start()))
                opened = None
        return blocks[-1] if blocks else None

    def extract(self, text: str) -> str | None:
        """The program, with blanks for tabs."""
        span = self.span(text)
        return None if span is None else text[span[0] : span[1]].expandtabs()

    def canonical(self, answer: str) -> str:
        """Without blank lines around it and blanks at line ends."""
        return "\n".join(line.rstrip() for line in answer.expandtabs().splitlines()).strip("\n")

    def write(self, answer: str) -> str:
        """A code block."""
        return f"\n```python\n{answer}\n```"

    def read_gold(self, text: str) -> str:
        """Tests, as they stand. ValueError: there are none, or they are no Python."""
        try:
            compile(text, "tests", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"these tests are no Python ({error})") from error
        return super().read_gold(text)

    def right(self, gold: str, answer: str) -> bool:
        """Whether an answer passes the ``gold`` tests."""
        return run_tests(answer, gold, self.limits).passed

    def verify(self, answer: str, problem: Problem) -> bool | None:
        """Whether it passes the problem's own tests; None where there are none."""
        return run_tests(answer, problem.tests, self.limits).passed if problem.tests.strip() else None
