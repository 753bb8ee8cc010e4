"""What is in hand on a problem that is solved slice by slice, and the evidence that it is; it asks no engine.

A solution that a budget cut is in hand, and may be handed in, but it is not evidence until it is gone on with and
ends: calibration knows no half unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from adaptive_ttc.answers import Grader, extract_answer
from adaptive_ttc.estimate.features import Attempt, Evidence, FirstStep, Unit, first_step_of
from adaptive_ttc.strategies.adaptive import Drawn, Slice
from adaptive_ttc.strategies.units import GREEDY, SAMPLE
from adaptive_ttc.types import Prefix

Route = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    """A unit by the paths of its solutions and first steps; ``generated`` and ``prm`` tokens as :class:`Unit`."""

    kind: str
    attempts: tuple[Route, ...]
    first_steps: tuple[Route, ...]
    generated: int
    prm: int


class Holdings:
    """Candidates and evidence of one problem.

    Args:
        question: its text.
        prompt_tokens: of the rendered problem.
    """

    def __init__(self, question: str, prompt_tokens: int) -> None:
        self._nothing = Evidence(question, prompt_tokens)
        self._candidates: dict[Route, Prefix] = {}
        self._first_steps: dict[Route, Prefix] = {}
        self._cut: dict[Route, str] = {}
        self._units: list[_Held] = []
        self._answers: dict[Route, str | None] = {}
        self._class_of: dict[str, str | None] = {}

    @property
    def candidates(self) -> tuple[Prefix, ...]:
        """What there is to hand in, in the order in which it was first drawn."""
        return tuple(self._candidates.values())

    @property
    def evidence(self) -> Evidence:
        """What is known; :meth:`read` has to have read the answers."""
        begun = tuple(self._half(path, kind) for path, kind in self._cut.items())
        return replace(self._nothing, units=tuple(self._unit(one) for one in self._units), begun=begun)

    def unscored(self) -> tuple[Prefix, ...]:
        """Solutions that have ended and that no PRM has seen."""
        return tuple(one for one in self._candidates.values() if one.finish in ("eos", "length") and not one.scores)

    def cut(self, kind: str, most: int) -> tuple[Prefix, ...]:
        """Solutions of a kind that a budget cut, the first ones."""
        return tuple(self._candidates[path] for path, of in self._cut.items() if of == kind)[:most]

    def take(self, part: Slice, begun: Iterable[Prefix], drawn: Drawn, generated: int, prm: int) -> None:
        """Put in what a slice brought.

        Args:
            part: the slice.
            begun: the cut solutions that it went on with.
            drawn: what it brought.
            generated, prm: tokens that it took; independent samples share them.
        """
        self._candidates.update((one.path, one) for one in drawn.scored)
        self._first_steps.update((one.path, one) for one in drawn.first_steps)
        found = {one.path: one for one in drawn.found if one.token_ids}
        for parent in begun:
            if any(path[: len(parent.path)] == parent.path for path in found):
                self._candidates.pop(parent.path, None)
                self._cut.pop(parent.path, None)
        self._candidates.update(found)
        whole = part.kind in (GREEDY, SAMPLE)
        cut = [path for path, one in found.items() if whole and one.finish in ("budget", "abort")]
        self._cut.update((path, part.kind) for path in cut)
        ended = [path for path in found if path not in self._cut]
        if ended and whole:
            self._units += [
                _Held(part.kind, (path,), self._first_of(path), generated // len(ended), prm // len(ended))
                for path in ended
            ]
        elif not whole and (ended or drawn.first_steps):
            firsts = tuple(one.path for one in drawn.first_steps if one.token_ids)
            self._units.append(_Held(part.kind, tuple(ended), firsts, generated, prm))

    async def read(self, grader: Grader) -> None:
        """Extract the answers of new solutions and put them into classes, over all answers of the problem."""
        for path, one in self._candidates.items():
            if path not in self._answers:
                self._answers[path] = extract_answer(one.text)
        texts = sorted({answer for answer in self._answers.values() if answer is not None})
        if any(text not in self._class_of for text in texts):
            self._class_of = dict(zip(texts, await grader.classes(texts), strict=True))

    def _first_of(self, path: Route) -> tuple[Route, ...]:
        """The first step of a sample, if it was drawn by itself and not cut."""
        first = self._first_steps.get(path[:1])
        return (first.path,) if first is not None and first.finish in ("eos", "stop", "length") else ()

    def _unit(self, held: _Held) -> Unit:
        attempts = tuple(self._attempt(self._candidates[path]) for path in held.attempts)
        steps = tuple(self._step(path, held.attempts) for path in held.first_steps)
        return Unit(held.kind, attempts, steps, held.generated, held.prm)

    def _half(self, path: Route, kind: str) -> Unit:
        """A solution that a budget cut; what its PRM tokens were, for the steps that have a score."""
        one = self._candidates[path]
        tokens = len(one.token_ids)
        return Unit(kind, generated=tokens, prm=tokens if one.scores else 0)

    def _attempt(self, one: Prefix) -> Attempt:
        answer = self._class_of.get(self._answers[one.path] or "")
        return Attempt(answer, one.scores, len(one.token_ids), one.logprob, one.finish or "abort")

    def _step(self, path: Route, attempts: tuple[Route, ...]) -> FirstStep:
        """A first step; one that was not scored by itself has the score that its solution's first step got later."""
        step = first_step_of(self._first_steps[path])
        if not math.isnan(step.score):
            return step
        later = (self._candidates[one].scores for one in attempts if one[: len(path)] == path)
        return replace(step, score=next((scores[0] for scores in later if scores), step.score))
