"""Notices that no solution gives an answer, and says so once, with what stands in its place and what to set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.answers.spaces.registry import parse_space
from adaptive_ttc.errors import AnswerWarning, ConfigError, Line, warn
from adaptive_ttc.events import Event, FinishedEvent

FEW = 4  # finished solutions without an answer, and none with one, after which it is said
_SHOWN = 2  # solutions whose last lines are shown
_LONGEST = 100  # characters of a line that are shown
_OTHERS = ("choice", "number", "math:the_answer_is,hashes")  # spaces that are tried on what was seen


class Unread:
    """What the problems of one solver share: it looks at finished solutions until one holds an answer."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._over = False

    def listening(
        self, space: AnswerSpace, other: Callable[[Event], None] | None, line: Line | None = None
    ) -> Callable[[Event], None]:
        """A listener of a trace that looks at finished solutions, and tells the ``other`` of everything;
        ``line``: of the caller, which a warning names.
        """

        def hear(event: Event) -> None:
            if isinstance(event, FinishedEvent):
                self.look("" if event.answer_at is None else event.text[event.answer_at :], space, line)
            if other is not None:
                other(event)

        return hear

    def look(self, text: str, space: AnswerSpace, line: Line | None = None) -> None:
        """Take in a finished solution; AnswerWarning once the first few of all hold no answer."""
        if self._over or not text.strip():
            return
        try:
            self._over = answer_in(space, text) is not None
        except ConfigError:  # the vote will say that the space fails
            self._over = True
        self._texts.append(text)
        if self._over or len(self._texts) < FEW:
            return
        self._over = True
        warn(_told(self._texts, space), AnswerWarning, line)


def _told(texts: list[str], space: AnswerSpace) -> str:
    lines = " and in ".join(repr(last_line(text)) for text in texts[:_SHOWN])
    return (
        f"none of the first {len(texts)} solutions holds {space.form}, which answers={space.name!r} looks for; they "
        f"end in {lines}. {to_be_read(texts, space)}"
    )


def to_be_read(texts: Sequence[str], space: AnswerSpace) -> str:
    """What to set, where these solutions hold no answer of a space."""
    other = next((name for name in _OTHERS if name != space.name and _reads_all(parse_space(name), texts)), None)
    fits = f"answers={other!r} would read them all" if other else "see docs/answers.md for what there is"
    asks = f', or ask for it in a system prompt: "{space.asks}"' if space.asks else ""
    return f"Say what answers are ({fits}){asks}"


def last_line(text: str) -> str:
    """The last line of a solution, or its end."""
    line = text.strip().rpartition("\n")[2]
    return line if len(line) <= _LONGEST else f"...{line[-_LONGEST:]}"


def _reads_all(space: AnswerSpace, texts: Sequence[str]) -> bool:
    """Whether every text says its answer, so that nothing is guessed from its end."""
    return all(answer_in(space, text, "length") is not None for text in texts)
