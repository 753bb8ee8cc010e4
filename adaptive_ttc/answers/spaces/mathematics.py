r"""Mathematics as the field writes it: the content of ``\boxed{...}``, compared by math-verify."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from adaptive_ttc.answers import extraction
from adaptive_ttc.answers.forms import form
from adaptive_ttc.answers.forms import reading as forms
from adaptive_ttc.answers.spaces import phrases
from adaptive_ttc.answers.spaces.base import ASKS_FOR_BOX, AnswerSpace, Span
from adaptive_ttc.errors import ConfigError

READERS: dict[str, phrases.Reader] = {
    "the_answer_is": phrases.answer_is,
    "hashes": phrases.hashes,
    "last_number": phrases.last_number,
}
"""What is read where there is no box, by name."""


@dataclass(frozen=True, repr=False)
class MathSpace(AnswerSpace):
    """Expressions in LaTeX, equal where math-verify says so.

    Args:
        also: names of :data:`READERS` that are tried, in this order, where there is no ``\\boxed{...}``.

    Raises:
        ConfigError: an unknown reader.
    """

    also: tuple[str, ...] = ()
    form: str = field(default="\\boxed{...}", init=False)
    asks: str = field(default=ASKS_FOR_BOX, init=False)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.also if name not in READERS]:
            raise ConfigError(
                f"answers='math:{','.join(self.also)}': unknown {', '.join(unknown)}; known: {', '.join(READERS)}"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """``math``, or ``math:the_answer_is,hashes``."""
        return "math" + (":" + ",".join(self.also) if self.also else "")

    @property
    def of_cut_text(self) -> AnswerSpace:
        """The last number of a solution that was cut off is not its answer."""
        kept = tuple(name for name in self.also if name != "last_number")
        return self if kept == self.also else MathSpace(kept)

    def span(self, text: str) -> Span | None:
        """What the first reader finds, the box before all."""
        return phrases.first_of((phrases.boxed, *(READERS[name] for name in self.also)), text)

    def canonical(self, answer: str) -> str:
        """See :func:`adaptive_ttc.answers.canonical`."""
        return extraction.canonical(answer)

    def key(self, answer: str) -> Hashable | None:
        """What an answer says, where it may stand for nothing else and nothing else is equal by rounding."""
        reading = forms.read(answer)
        return None if reading is None or reading.also or reading.keys is None else reading.keys[0]

    def equal(self, gold: str, answer: str) -> bool | None:
        """Whether two answers that are read here are; texts that are too long for anything else are not."""
        if max(len(gold), len(answer)) > extraction.MAX_CHARS:
            return False
        mine, other = forms.read(gold), forms.read(answer)
        if mine is not None and other is not None:
            return form.equal(mine, other)
        known = mine or other
        return None if known is None or form.is_mathematics(known.form) else False

    def read_gold(self, text: str) -> str:
        """As written; of ``... #### 72`` what follows, without thousands commas. ValueError: it is no answer."""
        span = phrases.hashes(text)
        gold = text if span is None else text[span[0] : span[1]].replace(",", "")
        if not extraction.canonical(gold):
            raise ValueError(f"{text!r:.80} is no answer")
        return gold


MATH = MathSpace()
