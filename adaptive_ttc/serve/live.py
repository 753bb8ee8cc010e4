"""What the page of a server shows: the problems at work and those lately settled, each to its account alone.

Nothing is recorded for it: a run keeps its trace anyhow. What stays of settled problems is bounded, and a problem is
only looked into while somebody watches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import RunEvent
from adaptive_ttc.run.stream import SolutionStream
from adaptive_ttc.serve.accounts import Account, Accounts
from adaptive_ttc.serve.asked import RefusedError
from adaptive_ttc.serve.reply import as_json
from adaptive_ttc.tracing.explain import UNITS
from adaptive_ttc.tracing.page.board import tree_of
from adaptive_ttc.tracing.page.summary import Read, Summary, provisional
from adaptive_ttc.tracing.trace import Trace

KEPT = 50  # settled problems of each account
KEPT_BYTES = 50_000_000  # of them, all accounts together, about
MOST_WATCHERS = 32
EVERY = 0.5  # seconds between two looks
_EVENT, _TOKEN = 400, 100  # bytes of an event of a trace, and of a generated token in several of them
QUIET = 15.0  # seconds after which a sign of life is sent


@dataclass(slots=True, eq=False, kw_only=True)
class _Watched:
    """A problem at work; once it has settled, ``stream`` is None."""

    id: str
    account: Account
    budget: int
    stream: SolutionStream | None
    trace: Trace | None = None  # of a settled one, as ``spent`` and ``size``, the bytes that it takes, about
    spent: int = 0
    size: int = 0
    summary: Summary | None = None  # made when somebody first looks
    row: Mapping[str, Any] | None = None  # likewise, of a settled one


class Live:
    """The problems of a server, whose answers ``grader`` reads before the vote; ``count``: what budgets bound."""

    def __init__(self, accounts: Accounts, count: str, grader: Grader) -> None:
        self._accounts, self._unit, self._grader = accounts, UNITS.get(count, count), grader
        self._at_work: dict[str, _Watched] = {}
        self._settled: dict[str, deque[_Watched]] = {}  # by the account's name, the latest last
        self._kept: deque[_Watched] = deque()  # all of them
        self._size = 0
        self._watchers = 0
        self._drawing = anyio.CapacityLimiter(1)
        self.ended = False  # whether those who watch are to leave

    def began(self, id: str, account: Account, budget: int, stream: SolutionStream) -> None:
        """A problem is being solved."""
        self._at_work[id] = _Watched(id=id, account=account, budget=budget, stream=stream)

    def left(self, id: str) -> None:
        """Its stream is closed: what is worth seeing of it stays for a while."""
        one = self._at_work.pop(id)
        if one.stream is None:
            return
        one.trace = None if one.stream.trace is None else one.stream.trace.detached()
        one.spent = one.stream.spent
        one.size = _EVENT * len(one.trace or ()) + _TOKEN * one.stream.usage.completion_tokens + _asked(one.trace)
        one.stream = one.summary = None
        mine = self._settled.setdefault(one.account.name, deque())
        mine.append(one)
        self._kept.append(one)
        self._size += one.size
        if len(mine) > KEPT:
            self._drop(mine[0])
        while self._size > KEPT_BYTES:
            self._drop(self._kept[0])

    def _drop(self, one: _Watched) -> None:
        self._settled[one.account.name].remove(one)
        self._kept.remove(one)
        self._size -= one.size

    async def tree(self, id: str, account: Account) -> str:
        """The search tree of a problem, to stand in the page. RefusedError: there is none that this account may see."""
        one = next((one for one in self._of(account) if one.id == id), None)
        if one is None:
            raise RefusedError("there is no such problem of yours, or it settled long ago", status=404)
        trace = _trace_of(one)
        if one.stream is None or trace is None:
            return await anyio.to_thread.run_sync(tree_of, trace, limiter=self._drawing)
        events, read = tuple(trace), self._reader(trace)
        return await anyio.to_thread.run_sync(
            lambda: tree_of(provisional(events, read), at_work=True), limiter=self._drawing
        )

    def check_room(self) -> None:
        """RefusedError: too many watch."""
        if self._watchers >= MOST_WATCHERS:
            raise RefusedError("too many watch already", status=429, code="overloaded", retry_after=10)

    async def messages(self, account: Account) -> AsyncIterator[bytes]:
        """What this account may see, as server-sent events: all of it first, then what has changed."""
        seen: dict[str, int] = {}
        before: object = None
        quiet = 0.0
        self._watchers += 1
        try:
            while not self.ended:
                mine = self._of(account)
                versions = {one.id: _version(one) for one in mine}
                changed = [self._row(one) for one in mine if seen.get(one.id) != versions[one.id]]
                head = self._head(account)
                if changed or before != (head, list(versions)):
                    seen, before, quiet = versions, (head, list(versions)), 0.0
                    yield b"data: " + as_json({"head": head, "order": list(versions), "problems": changed}) + b"\n\n"
                elif quiet >= QUIET:
                    quiet = 0.0
                    yield b": nothing new\n\n"
                await anyio.sleep(EVERY)
                quiet += EVERY
        finally:
            self._watchers -= 1

    def _of(self, account: Account) -> list[_Watched]:
        """In order of arrival."""
        at_work = [one for one in self._at_work.values() if one.account is account]
        return [*self._settled.get(account.name, ()), *at_work]

    def _head(self, account: Account) -> dict[str, Any]:
        own = account.ledger.statistics()
        limit = own.limit if self._accounts.named else self._accounts.all.statistics().limit
        left = self._accounts.left(account)
        return {"budget": limit, "spent": own.spent, "left": left, "unit": self._unit}

    def _row(self, one: _Watched) -> Mapping[str, Any]:
        if one.row is not None:
            return one.row
        trace = _trace_of(one)
        if one.summary is None and trace is not None:
            one.summary = Summary(trace, self._reader(trace))
        known = (one.summary or Summary(Trace())).data()
        spent = one.spent if one.stream is None else one.stream.spent
        known |= {"id": one.id, "name": one.id, "budget": one.budget, "spent": spent, "version": _version(one)}
        if one.stream is None:
            if known["state"] == "at work":
                known |= {"state": "left", "why": "its client left, or it failed before the vote"}
            one.row, one.summary = known, None
        return known

    def _reader(self, trace: Trace) -> Read | None:
        """Reads the answers of a problem; None where its space is not known by name."""
        run, grader = trace.last(RunEvent), self._grader
        try:
            space = grader.space if run is None or run.answers == grader.space.name else space_of(run.answers)
        except ConfigError:
            return None
        own = grader.for_problem(space)

        def read(text: str) -> str | None:
            try:
                return own.read(text)
            except ConfigError:
                return None

        return read


def _trace_of(one: _Watched) -> Trace | None:
    return one.trace if one.stream is None else one.stream.trace


def _asked(trace: Trace | None) -> int:
    """Bytes of what its client wrote, about."""
    run = next((event for event in trace or () if isinstance(event, RunEvent)), None)  # which is the first
    return 0 if run is None else sum(len(text.encode("utf-8", "replace")) for _, text in run.messages)


def _version(one: _Watched) -> int:
    """Changes whenever something has happened."""
    return -1 if one.stream is None else len(one.stream.trace or ())
