"""What an answer is: where it stands in a solution, its one spelling, and which answers are equal."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import Finish, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable

Span = tuple[int, int]
"""Where an answer begins and ends in a text, in characters."""

ASKS_FOR_BOX = "End with the final answer as \\boxed{answer}."


class AnswerSpace:
    """The answers that problems of one kind have. A space of your own subclasses it and overrides :meth:`extract`.

    Every method is a function of its arguments alone: spaces hold settings, never results.

    Attributes:
        name: how it is spelled, settings included; two spaces of one name read and compare alike. It stands in
            checkpoints, traces and calibrations.
        form: what a solution is to hold, for messages, such as ``\\boxed{...}``.
        asks: a sentence for a system prompt that asks a model for it; empty where there is none.
        tested: whether right answers are told by tests in place of a gold answer, see :meth:`right`.
    """

    name: str = ""
    form: str = "an answer"
    asks: str = ""
    tested: bool = False

    def span(self, text: str) -> Span | None:
        """Where the final answer stands in a solution; None where there is none, or it stands nowhere literally."""
        return None

    def extract(self, text: str) -> str | None:
        """The final answer of a solution, in any spelling; None where it holds none."""
        span = self.span(text)
        return None if span is None else text[span[0] : span[1]]

    @property
    def of_cut_text(self) -> AnswerSpace:
        """The space for solutions that were cut off, where what would be read off a whole one may not be believed."""
        return self

    def after(self, finish: Finish | None) -> AnswerSpace:
        """The space for solutions whose text ended by ``finish``."""
        return self if finish == "eos" else self.of_cut_text

    def canonical(self, answer: str) -> str:
        """One spelling for answers that are surely the same; applied twice it changes nothing. Empty: no answer."""
        return " ".join(answer.split())

    def key(self, answer: str) -> Hashable | None:
        """A value of a canonical answer such that answers with values are equal where these are; None: ask
        :meth:`equal`.
        """
        return None

    def equal(self, gold: str, answer: str) -> bool | None:
        """Whether two different canonical answers are equal; None where only the workers of math-verify can tell."""
        mine, other = self.key(gold), self.key(answer)
        return mine is not None and mine == other

    def right(self, gold: str, answer: str) -> bool:
        """Whether a canonical answer passes tests; asked of a ``tested`` space alone. It may take a while."""
        raise NotImplementedError

    def read_gold(self, text: str) -> str:
        """The right answer from the text that a data set gives; ValueError: it is none."""
        gold = self.canonical(text)
        if not gold:
            raise ValueError(f"{text!r:.80} is no answer that {self.name} reads")
        return gold

    def write(self, answer: str) -> str:
        """A sentence off which the answer is read."""
        return f"\\boxed{{{answer}}}"

    def verify(self, answer: str, problem: Problem) -> bool | Awaitable[bool | None] | None:
        """Whether an answer is right, by what may be used while solving; None: not known."""
        return None

    def __repr__(self) -> str:
        return f"<answers={self.name}>"


@dataclass(frozen=True, repr=False)
class ExactSpace(AnswerSpace):
    """Answers that are equal where their canonical texts are the same."""

    def key(self, answer: str) -> Hashable | None:
        """The canonical text."""
        return answer


@dataclass(frozen=True, repr=False)
class GuessingSpace(ExactSpace):
    """Exact answers that are guessed from the end of a solution which says none.

    Args:
        last: whether they are.
    """

    last: bool = True

    @property
    def of_cut_text(self) -> Self:
        """Without a guess: the end of a solution that was cut off is not its answer."""
        return replace(self, last=False)


def answer_in(space: AnswerSpace, text: str, finish: Finish | None = "eos") -> str | None:
    """The canonical answer of a solution, or None; ``finish``: why its text ended.

    ConfigError: the space fails, or gives something else than a text.
    """
    try:
        found = space.after(finish).extract(text)
        return None if found is None else space.canonical(_printable(found)) or None
    except Exception as error:  # a caller's space may raise anything
        raise ConfigError(
            f"the answer space {space.name!r} failed on a solution ({type(error).__name__}: {error}): extract gives a "
            "text or None, and canonical a text"
        ) from error


def _printable(answer: str) -> str:
    """With blanks in place of control characters and lone surrogates, which cannot be printed or encoded."""
    if answer.isprintable():
        return answer
    return "".join(char if char.isprintable() or char == "\n" else " " for char in answer)
