"""The library's majority as a filter of lm-eval, ``adaptive_ttc_majority``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from adaptive_ttc.adapters.shared import missing
from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.types import Candidate, Prefix
from adaptive_ttc.voting import select

try:
    from lm_eval.api.filter import Filter
    from lm_eval.api.registry import register_filter
except ImportError:
    Filter = missing("lm_eval", "lm-eval")

    def register_filter(name: str) -> Callable[[type], type]:  # noqa: D103
        return lambda known: known


@register_filter("adaptive_ttc_majority")
class MajorityFilter(Filter):
    """The library's majority over the first ``k`` texts (all by default): equal answers are one answer, whatever their
    spelling, and ties go to the answer that comes first in the alphabet. ``answers``: what answers are, see
    docs/answers.md. Where no text has an answer it is the empty text.
    """

    def __init__(self, k: int | None = None, answers: str = "math", **settings: Any) -> None:
        super().__init__(**settings)
        self._k, self._grader = k, Grader(space=space_of(answers))

    def apply(self, resps: Iterable[Sequence[str]], docs: object = None) -> list[list[str]]:
        """For each document its samples -> the winning answer alone."""
        with self._grader as grader:
            return [[self._winner(texts[: self._k], grader)] for texts in resps]

    @staticmethod
    def _winner(texts: Sequence[str], grader: Grader) -> str:
        answers = [grader.read(text) for text in texts]
        classes = grader.classes_sync(answers)
        votes = [
            Candidate(Prefix(text=text), answer, held, None)
            for text, answer, held in zip(texts, answers, classes, strict=True)
        ]
        return select(votes, "majority") or ""
