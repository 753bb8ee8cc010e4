"""Which answers agree, for the solver (async) and for evaluation (sync), and the classes that they form."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from adaptive_ttc.answers.extraction import MAX_CHARS, canonical, decide_plain, exact_value
from adaptive_ttc.answers.grading_process import GradingConfig, Request, Supervisor

Comparison = tuple[str, str]
"""(gold, answer), both canonical: "is ``answer`` right where ``gold`` is the right answer?"."""


def partition(answers: Sequence[str | None]) -> Generator[Comparison, bool, tuple[str | None, ...]]:
    """Map every answer to the text that stands for its equivalence class; None and empty answers to None.

    Answers with the same canonical text are one class at no cost. The remaining texts are taken from short to long
    (equals alphabetically) and each joins the first class whose representative agrees with it in *both* directions, as
    equivalence checkers are not symmetric; else it founds a class. So the shortest text stands for a class, and the
    result depends on the set of the texts alone, never on the order of the answers.
    """
    texts = tuple(canonical(answer) if answer is not None else "" for answer in answers)
    class_of: dict[str, str] = {}
    representatives: list[str] = []
    # Representatives that are exact values: different ones need no comparison.
    exact: dict[Fraction | tuple[Fraction, ...], str] = {}
    inexact: list[str] = []
    for text in sorted(set(texts) - {""}, key=lambda text: (len(text), text)):
        value = exact_value(text)
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

    plain: int  # comparisons of plain numbers, decided without the worker
    cached: int  # comparisons that were remembered
    requests: int  # readings and comparisons that the worker was asked for
    timeouts: int  # requests that were cut off by ``time_limit`` or ``wall_limit``
    crashes: int  # requests under which the worker died twice
    starts: int  # worker processes started


_T = TypeVar("_T")

_Inquiry = Generator[Request, bool, _T]  # A decision that may need the worker: yields requests, is sent their outcomes

_threads: RunVar[anyio.CapacityLimiter] = RunVar("adaptive_ttc.answers.threads")
"""Threads of an event loop that may wait for a worker, kept apart from those that others need."""


class Grader:
    """Decides equality of answers with math-verify, in a worker process that is killed when it hangs.

    Most questions need no worker: equal canonical texts, plain numbers (compared as fractions) and everything asked
    before. Texts longer than 1000 characters are compared as text. An answer that cannot be read in time, or makes the
    library fail, equals nothing but itself. The worker starts at the first question that needs it and ends with
    :meth:`aclose` or :meth:`close` (or the ``with`` block); the methods may be called from any thread and any event
    loop.

    ``equal(gold, answer)`` is math-verify's one-sided check, as used in published evaluations; ``classes`` demands
    agreement in both directions, as for a vote no side is the gold one.
    """

    def __init__(self, config: GradingConfig | None = None) -> None:
        self.config = config or GradingConfig()
        self._supervisor = Supervisor(self.config)
        self._outcomes: OrderedDict[Comparison | str, bool] = OrderedDict()
        self._mutex = threading.Lock()
        self._plain = self._cached = 0

    async def classes(self, answers: Sequence[str | None]) -> tuple[str | None, ...]:
        """Map every answer to the canonical text of its equivalence class; None and empty answers to None.

        The result depends on the set of answers alone; the shortest text stands for a class. Earlier comparisons are
        remembered. GradingError: the worker was needed and cannot be started.
        """
        return await self._run(self._classes(answers))

    def classes_sync(self, answers: Sequence[str | None]) -> tuple[str | None, ...]:
        """:meth:`classes` for code without an event loop."""
        return self._run_sync(self._classes(answers))

    async def equal(self, gold: str, answer: str | None) -> bool:
        """Whether ``answer`` is right where ``gold`` is the right answer; None never is.

        ValueError: the gold answer is empty. GradingError: the worker was needed and cannot be started.
        """
        return await self._run(self._equal(gold, answer))

    def equal_sync(self, gold: str, answer: str | None) -> bool:
        """:meth:`equal` for code without an event loop."""
        return self._run_sync(self._equal(gold, answer))

    def start(self) -> None:
        """Start the worker now, without waiting, so that its start (a second) overlaps with other work."""
        self._supervisor.start()

    @property
    def worker_pid(self) -> int | None:
        """The process id of the worker, or None while there is none."""
        return self._supervisor.pid

    def statistics(self) -> GraderStatistics:
        """What was done so far."""
        worker = self._supervisor
        counts = {name: getattr(worker, name) for name in ("requests", "timeouts", "crashes", "starts")}
        return GraderStatistics(plain=self._plain, cached=self._cached, **counts)

    async def aclose(self) -> None:
        """End the worker, also under cancellation; waiting calls get a GradingError."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    def close(self) -> None:
        """:meth:`aclose` for code without an event loop."""
        self._supervisor.close()

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _run(self, inquiry: _Inquiry[_T]) -> _T:
        try:
            request = next(inquiry)
            while True:
                request = inquiry.send(await self._ask(request))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _run_sync(self, inquiry: _Inquiry[_T]) -> _T:
        try:
            request = next(inquiry)
            while True:
                request = inquiry.send(self._supervisor.ask(request, lambda: False))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _ask(self, request: Request) -> bool:
        try:
            limiter = _threads.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(4)
            _threads.set(limiter)
        abandoned = threading.Event()
        try:
            return await anyio.to_thread.run_sync(
                self._supervisor.ask, request, abandoned.is_set, abandon_on_cancel=True, limiter=limiter
            )
        finally:
            abandoned.set()  # the thread sees it when this task was cancelled, and leaves the worker fit for use

    def _classes(self, answers: Sequence[str | None]) -> _Inquiry[tuple[str | None, ...]]:
        search = partition(answers)
        try:
            gold, answer = next(search)
            while True:
                gold, answer = search.send((yield from self._agree(gold, answer)))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _equal(self, gold: str, answer: str | None) -> _Inquiry[bool]:
        gold_text = canonical(gold)
        if not gold_text:
            raise ValueError("the gold answer is empty; give the answer that the problem's author gave")
        text = canonical(answer) if answer is not None else ""
        return bool(text) and (yield from self._agree(gold_text, text))

    def _agree(self, gold: str, answer: str) -> _Inquiry[bool]:
        if gold == answer:
            return True
        if max(len(gold), len(answer)) > MAX_CHARS:
            return False
        plain = decide_plain(gold, answer)
        if plain is not None:
            self._plain += 1
            return plain
        known = self._recall((gold, answer))
        if known is not None:
            self._cached += 1
            return known
        outcome = (yield from self._readable(gold)) and (yield from self._readable(answer))
        outcome = outcome and (yield {"gold": gold, "answer": answer})
        self._remember((gold, answer), outcome)
        return outcome

    def _readable(self, text: str) -> _Inquiry[bool]:
        """Try each text alone first: one that hangs costs one time limit, not one for every other answer."""
        known = self._recall(text)
        if known is None:
            known = yield {"read": text}
            self._remember(text, known)
        return known

    def _recall(self, key: Comparison | str) -> bool | None:
        with self._mutex:
            outcome = self._outcomes.get(key)
            if outcome is not None:
                self._outcomes.move_to_end(key)
            return outcome

    def _remember(self, key: Comparison | str, outcome: bool) -> None:
        with self._mutex:
            self._outcomes[key] = outcome
            while len(self._outcomes) > self.config.cache_size:
                self._outcomes.popitem(last=False)
