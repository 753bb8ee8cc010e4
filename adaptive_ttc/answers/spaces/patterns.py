"""Answers as texts: what a regular expression of the caller's names, or what a solution says in the end."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from adaptive_ttc.answers.spaces import phrases
from adaptive_ttc.answers.spaces.base import ExactSpace, GuessingSpace, Span
from adaptive_ttc.errors import ConfigError

_SEARCHED = 5_000  # characters at the end of a solution that a caller's expression is searched in
_QUOTES = " \t*_`\"'\u2018\u2019\u201c\u201d"


@dataclass(frozen=True, repr=False)
class RegexSpace(ExactSpace):
    """The last match of a regular expression: its group ``answer``, its only group, or all of it.

    The pattern is the caller's own word: one that backtracks without end holds up the run. Searched are the last
    5,000 characters. Answers are equal where their texts are, blanks aside.

    Raises:
        ConfigError: the pattern is no regular expression, or has several groups and none named ``answer``.
    """

    pattern: str
    name: str = field(default="", init=False)
    form: str = field(default="", init=False)

    def __post_init__(self) -> None:
        try:
            compiled = re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"answers='regex:{self.pattern}' is no regular expression: {error}") from error
        if not self.pattern or (compiled.groups > 1 and "answer" not in compiled.groupindex):
            raise ConfigError(
                f"answers='regex:{self.pattern}': name the group that holds the answer, as in "
                r"regex:Result = (?P<answer>\d+)"
            )
        object.__setattr__(self, "name", f"regex:{self.pattern}")
        object.__setattr__(self, "form", f"a match of {self.pattern}")

    def span(self, text: str) -> Span | None:
        """Where the last match's group stands."""
        compiled = re.compile(self.pattern)
        group: str | int = "answer" if "answer" in compiled.groupindex else min(1, compiled.groups)
        found = None
        for match in compiled.finditer(text, max(0, len(text) - _SEARCHED)):
            found = match.span(group) if (match[group] or "").strip() else found
        return found


@dataclass(frozen=True, repr=False)
class TextSpace(GuessingSpace):
    r"""A text: the content of the last ``\boxed{...}``, else what follows "the answer is", else the last line.

    Equal are texts that are the same but for case, blanks, marks and quotes around them, a full stop, and the Unicode
    spelling of their characters.

    Args:
        last: whether the last line counts.
    """

    name: str = field(default="text", init=False)
    form: str = field(default="a text", init=False)
    asks: str = field(default='End with a line "Answer: ...", which holds the answer and nothing else.', init=False)

    def span(self, text: str) -> Span | None:
        """In a box, after "the answer is", or the last line."""
        guesses = (phrases.last_line,) if self.last else ()
        return phrases.first_of((phrases.boxed, phrases.answer_is, *guesses), text)

    def canonical(self, answer: str) -> str:
        """In small letters, with single blanks, without marks, quotes and a full stop around it."""
        text, before = " ".join(unicodedata.normalize("NFKC", answer).casefold().split()), None
        while text != before:
            before = text
            text = unicodedata.normalize("NFKC", text.strip(_QUOTES).removesuffix(".")).casefold()
        return text
