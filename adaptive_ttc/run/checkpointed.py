"""A problem whose slices are entered in a checkpoint, and the same problem taken up again in a later run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.errors import AdaptiveTTCError, CheckpointError, ConfigError, GradingError
from adaptive_ttc.estimate.gain import Action
from adaptive_ttc.events import RequestEvent, SampledEvent, SearchEvent
from adaptive_ttc.files.typed import damage_told
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.checkpoint import REMEDY, Checkpoint, Drawn, Stored
from adaptive_ttc.run.retrace import Record, as_recorded
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies.adaptive import Slice
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Ending, Stopped, Usage

FINAL = (Stopped.SETTLED, Stopped.BUDGET, Stopped.NO_OPTION_FITS, Stopped.NOT_WORTH_IT)
"""Why a problem got no more, where a later run gives it no more either: not by a deadline, a stop or a failure."""


class CheckpointedProblem(AdaptiveProblem):
    """A problem of a pool, with its ``number`` there; all arguments but the first two as for its base class."""

    def __init__(self, file: Checkpoint, number: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._file = file
        self._number = number
        self._written = 0  # events of the trace that the file holds
        self._lost = 0
        self._verifier.on_verdict = partial(file.judge, number)

    @property
    def spent(self) -> int:
        """Units charged so far, by earlier runs too, with all that they may have spent when they were killed."""
        return super().spent + self._lost

    @property
    def _lost_tokens(self) -> int:
        """Most tokens that earlier runs have lost."""
        return self._lost // max(1, self.request.price.decode)

    async def go_on_from(self, stored: Stored, *, evidence: bool = True) -> None:
        """Take up what earlier runs did: the searches are sent the recorded replies; or, without ``evidence``, only
        what it has cost. Where its answers cannot be compared, ``error`` says so. CheckpointError: the file is of
        another version of the strategies, or damaged.
        """
        self._lost, self.spent_before = stored.lost, stored.spent
        self._verifier.go_on_from(stored.verdicts)
        usage = stored.drawn[-1].usage if stored.drawn else Usage()
        usage = replace(usage, lost_tokens=usage.lost_tokens + self._lost_tokens)
        if not evidence or not stored.drawn:
            return self._driver.go_on_from((), usage)
        with damage_told(self._file.path, CheckpointError, REMEDY):
            self._run_again(stored, usage)
        try:
            await self._in_time(self._read_answers if stored.closing is None else self._compare_answers)
        except GradingError as failure:
            self.error = failure
        return None

    def _run_again(self, stored: Stored, usage: Usage) -> None:
        self.trace.go_on_from([event for one in stored.drawn for event in one.events], anyio.current_time())
        self._written = len(self.trace)
        record = Record(self.trace)
        try:
            again = list(record.searches_again())
        except ConfigError as error:
            raise CheckpointError(f"{self._file.path} cannot be gone on with: {error}") from error
        self._driver.go_on_from(tuple(self.trace), usage)
        for drawn, units, (part, handed_in) in zip(stored.drawn, stored.units, again, strict=True):
            if not isinstance(part, Slice):
                raise ValueError(f"a slice is of {part.name}")
            known = {path: one.logprobs for path, one in self._candidates.items()} | dict(drawn.logprobs)
            top = {path: one.top_logprobs for path, one in self._candidates.items()} | dict(drawn.top_logprobs)
            found = [
                replace(one, logprobs=known.get(one.path, ()), top_logprobs=top.get(one.path, ())) for one in handed_in
            ]
            (search,) = (event for event in drawn.events if isinstance(event, SearchEvent))
            if not self._accounts:
                self.opening = replace(self.opening, kind=part.kind, scored=part.vote != "majority")
            writer = self._writers.of(part.kind)  # under its prompt, only solutions in hand were scored
            writer.driver.take_up(drawn.events, record.drawn, paid=units >= max(1, writer.prompt_units))
            cut = [self._candidates[path] for path in search.start if path in self._cut]
            self._take(part, cut, found, drawn.events)
            self._accounts.append(_spent(units))

    async def advance(self, todo: Action, account: Ledger, *, opening: bool = False) -> bool:
        """Run a slice, which is entered before it begins and when it has ended."""
        assert account.limit is not None  # the budget of a pool is one
        entry, drawn = self._file.begin(self._number, account.limit), None
        try:
            moved = await super().advance(todo, account, opening=opening)
            drawn = self._drawn()
        except AdaptiveTTCError:
            drawn = self._drawn() if self._can_be_run_again() else None
            raise
        finally:
            self._file.end(entry, account.spent, drawn)
        return moved

    def _can_be_run_again(self) -> bool:
        """Whether a slice that failed has drawn something, and its search ended, so that it can be run again."""
        events = self.trace.since(self._written)
        if not any(isinstance(event, RequestEvent) and event.token_ids for event in events):
            return False
        try:
            return bool(list(Record(self.trace).searches_again()))
        except ConfigError:
            return False

    def _drawn(self) -> Drawn:
        """What was added since the last slice."""
        events = self.trace.since(self._written)
        self._written += len(events)
        sampled = {event.path for event in events if isinstance(event, SampledEvent)}
        candidates = {path: one for path, one in self._candidates.items() if path in sampled}
        logprobs = {path: one.logprobs for path, one in candidates.items()}
        top_logprobs = {path: one.top_logprobs for path, one in candidates.items()}
        usage = replace(self.usage, lost_tokens=self.usage.lost_tokens - self._lost_tokens)
        return Drawn(events, logprobs, top_logprobs, usage)

    async def conclude(self, ending: Ending, price: float) -> Solution:
        """Vote; where nothing more will be done, that is entered."""
        solution = await super().conclude(ending, price)
        if solution.stopped in FINAL:
            self._file.settle(self._number, self.trace.since(self._written))
        return solution


def settled_before(stored: Stored, space: AnswerSpace, path: Path) -> Solution:
    """The solution of a problem that an earlier run has settled. CheckpointError: as for a problem that goes on."""
    trace = Trace()
    trace.go_on_from(stored.events, anyio.current_time())
    with damage_told(path, CheckpointError, REMEDY):
        return as_recorded(trace, space)


def _spent(units: int) -> Ledger:
    """The account of a slice that has spent so much."""
    account = Ledger(units)
    if units and (money := account.reserve(units)):
        money.settle(units)
    return account
