"""Which answers agree, for the solver (async) and for evaluation (sync), and the classes that they form."""

from __future__ import annotations

import copy
import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from adaptive_ttc.answers.grading_process import GradingConfig, Request
from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.verdict_cache import Outcomes
from adaptive_ttc.answers.worker_pool import Allowance, WorkerPool
from adaptive_ttc.types import Finish

Comparison = tuple[str, str]
"""(gold, answer), both canonical: "is ``answer`` right where ``gold`` is the right answer?"."""


def partition(
    answers: Sequence[str | None], space: AnswerSpace = MATH
) -> Generator[Comparison, bool, tuple[str | None, ...]]:
    """Map every answer to the text that stands for its equivalence class; None and empty answers to None.

    Answers with the same canonical text are one class at no cost. The remaining texts are taken from short to long
    (equals alphabetically) and each joins the first class whose representative agrees with it in *both* directions, as
    equivalence checkers are not symmetric; else it founds a class. So the shortest text stands for a class, and the
    result depends on the set of the texts alone, never on the order of the answers.
    """
    texts = tuple(space.canonical(answer) if answer is not None else "" for answer in answers)
    class_of: dict[str, str] = {}
    representatives: list[str] = []
    # Representatives that are exact values: different ones need no comparison.
    exact: dict[Hashable, str] = {}
    inexact: list[str] = []
    for text in sorted(set(texts) - {""}, key=lambda text: (len(text), text)):
        value = space.key(text)
        found = exact.get(value) if value is not None else None
        for representative in inexact if value is not None else representatives:
            if found is not None:
                break
            if (yield representative, text) and (yield text, representative):
                found = representative
        if found is None:
            found = text
            representatives.append(text)
            if value is None:
                inexact.append(text)
            else:
                exact[value] = text
        class_of[text] = found
    return tuple(class_of.get(text) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderStatistics:
    """What a grader has done so far."""

    plain: int  # comparisons of plain numbers, decided without a worker
    cached: int  # comparisons that were remembered
    undecided: int  # readings and comparisons that time or memory did not suffice for, or that were not tried for it
    requests: int  # readings and comparisons that workers were asked for
    timeouts: int  # requests that were cut off by ``time_limit`` or ``wall_limit``
    crashes: int  # requests under which a worker died (of want of memory, mostly), and a fresh one as well
    starts: int  # worker processes started
    waiting: int  # readings and comparisons that wait for a worker, or are with one


_log = logging.getLogger(__package__)
_T = TypeVar("_T")

# A decision that may need a worker: yields requests, is sent their outcomes, where None is "undecided"
_Inquiry = Generator[Request, bool | None, _T]

_threads: RunVar[tuple[anyio.CapacityLimiter, ...]] = RunVar("adaptive_ttc.answers.threads")
"""Threads of an event loop that may wait for a worker, apart from those that others need; a second set of them is for
problems that have wasted time."""


class Grader:
    """Reads answers and decides which are equal, by an answer space; mathematics with math-verify, in worker processes
    that are killed when they hang.

    Most questions need no worker: equal canonical texts, plain numbers (compared as fractions) and everything decided
    before. Texts longer than 1000 characters are compared as text. An answer that cannot be read, or makes the library
    fail, equals nothing but itself. So does one that cannot be read in the time and memory that there is, but that is
    no verdict: it is counted as ``undecided``, and another problem with such an answer asks again. Workers start at
    questions that need them and end with :meth:`aclose` or :meth:`close` (or the ``with`` block); the methods may be
    called from any thread and any event loop.

    ``equal(gold, answer)`` is math-verify's one-sided check, as used in published evaluations; ``classes`` demands
    agreement in both directions, as for a vote no side is the gold one.
    """

    def __init__(self, config: GradingConfig | None = None, space: AnswerSpace = MATH) -> None:
        self.config = config or GradingConfig()
        self.space = space
        self._pool = WorkerPool(self.config)
        self._outcomes = Outcomes(self.config.cache_size, self.config.cache_mb << 20)
        self._counts = Counter[str]()
        self._allowance: Allowance | None = None

    def for_problem(self, space: AnswerSpace | None = None) -> Self:
        """This grader, with one allowance of grading time for all that is asked through it, and the problem's own
        answer space where it has one.

        It shares workers and memory with this one, and closing one closes both. Without it, every call of a method has
        an allowance of its own (``GradingConfig.problem_limit``).
        """
        grader = self.with_space(space or self.space)
        grader._allowance = Allowance(self.config)
        return grader

    def with_space(self, space: AnswerSpace) -> Self:
        """This grader for answers of another space; it shares workers and memory with this one, as above."""
        grader = copy.copy(self)
        grader.space = space
        return grader

    def read(self, text: str, finish: Finish | None = "eos") -> str | None:
        """The canonical answer of a solution whose text ended by ``finish``, or None. ConfigError: the space fails."""
        return answer_in(self.space, text, finish)

    async def classes(self, answers: Sequence[str | None]) -> tuple[str | None, ...]:
        """Map every answer to the canonical text of its equivalence class; None and empty answers to None.

        The result depends on the set of answers alone; the shortest text stands for a class. Earlier comparisons are
        remembered. GradingError: the worker was needed and cannot be started.
        """
        return await self._run(lambda allowance: self._classes(answers, allowance))

    def classes_sync(self, answers: Sequence[str | None]) -> tuple[str | None, ...]:
        """:meth:`classes` for code without an event loop."""
        return self._run_sync(lambda allowance: self._classes(answers, allowance))

    async def equal(self, gold: str, answer: str | None) -> bool:
        """Whether ``answer`` is right where ``gold`` is the right answer; None never is.

        ValueError: the gold answer is empty. GradingError: the worker was needed and cannot be started.
        """
        if self.space.tested:
            return await anyio.to_thread.run_sync(self._passes, gold, answer, abandon_on_cancel=True)
        return await self._run(lambda allowance: self._equal(gold, answer, allowance))

    def equal_sync(self, gold: str, answer: str | None) -> bool:
        """:meth:`equal` for code without an event loop."""
        if self.space.tested:
            return self._passes(gold, answer)
        return self._run_sync(lambda allowance: self._equal(gold, answer, allowance))

    @property
    def undecided(self) -> frozenset[Comparison | str]:
        """Of a problem's grader: texts that could not be read, and comparisons that could not be made, for want of time
        or memory.
        """
        return frozenset(self._allowance.undecided) if self._allowance else frozenset()

    def start(self) -> None:
        """Start a worker now, without waiting, so that its start (a second) overlaps with other work."""
        self._pool.start()

    @property
    def worker_pid(self) -> int | None:
        """The process id of the first worker, or None while there is none."""
        return self._pool.pid

    def statistics(self) -> GraderStatistics:
        """What was done so far."""
        mine = {name: self._counts[name] for name in ("plain", "cached", "undecided", "waiting")}
        theirs = {name: self._pool.count(name) for name in ("requests", "timeouts", "crashes", "starts")}
        return GraderStatistics(**mine, **theirs)

    async def aclose(self) -> None:
        """End the workers, also under cancellation; waiting calls get a GradingError."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """:meth:`aclose` for code without an event loop."""
        self._pool.close()

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _run(self, inquire: Callable[[Allowance], _Inquiry[_T]]) -> _T:
        allowance = self._allowance or Allowance(self.config)
        inquiry = inquire(allowance)
        try:
            request = next(inquiry)
            while True:
                request = inquiry.send(await self._ask(request, allowance))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _run_sync(self, inquire: Callable[[Allowance], _Inquiry[_T]]) -> _T:
        allowance = self._allowance or Allowance(self.config)
        inquiry = inquire(allowance)
        try:
            request = next(inquiry)
            while True:
                request = inquiry.send(self._pool.ask(request, allowance, lambda: False))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _ask(self, request: Request, allowance: Allowance) -> bool | None:
        try:
            limiters = _threads.get()
        except LookupError:
            limiters = anyio.CapacityLimiter(4), anyio.CapacityLimiter(4)
            _threads.set(limiters)
        abandoned = threading.Event()
        self._counts["waiting"] += 1
        try:
            return await anyio.to_thread.run_sync(
                self._pool.ask,
                request,
                allowance,
                abandoned.is_set,
                abandon_on_cancel=True,
                limiter=limiters[allowance.is_slow],
            )
        finally:
            self._counts["waiting"] -= 1
            abandoned.set()  # the thread sees it when this task was cancelled, and leaves the worker fit for use

    def _classes(self, answers: Sequence[str | None], allowance: Allowance) -> _Inquiry[tuple[str | None, ...]]:
        search = partition(answers, self.space)
        try:
            gold, answer = next(search)
            while True:
                gold, answer = search.send((yield from self._agree(gold, answer, allowance)))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _equal(self, gold: str, answer: str | None, allowance: Allowance) -> _Inquiry[bool]:
        gold_text = self.space.canonical(gold)
        if not gold_text:
            raise ValueError("the gold answer is empty; give the answer that the problem's author gave")
        text = self.space.canonical(answer) if answer is not None else ""
        return bool(text) and (yield from self._agree(gold_text, text, allowance))

    def _passes(self, gold: str, answer: str | None) -> bool:
        """Whether an answer passes the tests that are the gold one."""
        if not gold.strip():
            raise ValueError("there are no tests; give those that a right answer passes")
        return bool(answer) and bool(self.space.right(gold, self.space.canonical(answer or "")))

    def _agree(self, gold: str, answer: str, allowance: Allowance) -> _Inquiry[bool]:
        if gold == answer:
            return True
        plain = self.space.equal(gold, answer)
        if plain is not None:
            self._counts["plain"] += 1
            return plain
        outcome = self._outcomes.get((gold, answer))
        if outcome is not None:
            self._counts["cached"] += 1
            return outcome
        # Each text is tried alone first: one that hangs costs one time limit, not one for every other answer.
        for key in (gold, answer, (gold, answer)):
            outcome = yield from self._decide(key, allowance)
            if not outcome:
                break
        if outcome is not None:
            self._outcomes.put((gold, answer), outcome)
        return bool(outcome)

    def _decide(self, key: Comparison | str, allowance: Allowance) -> _Inquiry[bool | None]:
        """Whether a text can be read, or an answer agrees with a gold one; None where that cannot be told."""
        outcome = self._outcomes.get(key)
        if outcome is not None:
            return outcome
        if key not in allowance.undecided and allowance.limit:
            outcome = yield {"read": key} if isinstance(key, str) else {"gold": key[0], "answer": key[1]}
        if outcome is None:
            self._counts["undecided"] += 1
            _log.info("dropped undecided, as time or memory did not suffice: %.200r", key)
            allowance.undecided.add(key)
        else:
            self._outcomes.put(key, outcome)
        return outcome
