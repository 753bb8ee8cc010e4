"""Records in the trace what one search asks for, gets, and drops; counts usage."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from adaptive_ttc.events import Event, ExpandedEvent, ExpandEvent, ForkEvent, PrunedEvent, Route
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Prefix, Usage

_COMPUTED = ("prompt_tokens", "completion_tokens", "discarded_tokens", "lost_tokens")  # of the policy


class RunRecorder:
    """Usage and trace of one problem; what its ``second`` one adds, a second policy computed."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._counts: Counter[str] = Counter()
        self._of_second = False

    def second(self) -> RunRecorder:
        """One for the second policy, with the same trace and counts."""
        other = RunRecorder(self.trace)
        other._counts, other._of_second = self._counts, True
        return other

    @property
    def usage(self) -> Usage:
        """What was computed so far, without FLOPs and wall time."""
        return Usage(**self._counts)

    def now(self) -> float:
        """Seconds since the trace began; needs a running event loop."""
        return asyncio.get_running_loop().time() - self.trace.started

    def add(self, **counts: int) -> None:
        """Add to the fields of the usage."""
        for field, number in counts.items():
            self._counts[field] += number
            self._counts["second_tokens"] += number * (self._of_second and field in _COMPUTED)

    def record(self, event: Event) -> None:
        """Append to the trace."""
        self.trace.record(event)


class SearchRecorder:
    """Records one search, which ``route`` names among nested forks (see :mod:`adaptive_ttc.events`)."""

    def __init__(self, recorder: RunRecorder, route: Route = ()) -> None:
        self._recorder = recorder
        self._route = route
        self._number = -1
        self._open: dict[Route, Prefix] = {}

    def go_on_after(self, asked: int) -> None:
        """So many requests were recorded by an earlier run."""
        self._number = asked - 1

    def expand(self, request: Expand) -> None:
        """The search asks for children; unfinished solutions that it asks none of, nor keeps beside, are pruned."""
        self._number += 1
        self._prune((*request.prefixes, *request.beside))
        for path in {prefix.path for prefix in request.prefixes} - {prefix.path for prefix in request.beside}:
            self._open.pop(path, None)  # it is continued: its children show its fate
        self._recorder.record(
            ExpandEvent(
                time=self._recorder.now(),
                branch=self._route,
                number=self._number,
                paths=tuple(prefix.path for prefix in request.prefixes),
                attempts=tuple(tuple(one.path for one in prefix.attempts) for prefix in request.prefixes),
                n=request.n,
                stop=request.stop,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                score=request.score,
                think_tokens=request.think_tokens,
                first=request.first,
            )
        )

    def expanded(self, children: Sequence[Prefix]) -> None:
        """The search gets its children."""
        paths = tuple(child.path for child in children)
        self._recorder.record(
            ExpandedEvent(time=self._recorder.now(), branch=self._route, number=self._number, children=paths)
        )
        self._open.update((child.path, child) for child in children if child.finish == "stop")

    def fork(self) -> None:
        """The search asks for searches side by side."""
        self._number += 1

    def forked(self, searches: range, ledgers: Sequence[Ledger]) -> tuple[SearchRecorder, ...]:
        """Some of the fork's searches begin, on these accounts; a branch for each."""
        numbers = tuple(searches)[: len(ledgers)]
        self._recorder.record(
            ForkEvent(
                time=self._recorder.now(),
                branch=self._route,
                number=self._number,
                searches=numbers,
                limits=tuple(ledger.limit for ledger in ledgers),
            )
        )
        return tuple(SearchRecorder(self._recorder, (*self._route, self._number, number)) for number in numbers)

    def returned(self, candidates: Sequence[Prefix]) -> None:
        """The search is over; unfinished solutions that it does not hand in are pruned."""
        self._prune(candidates)

    def _prune(self, kept: Iterable[Prefix]) -> None:
        """Record which open solutions are not ``kept``; of equal ones, a kept one, or the first, stands for all."""
        alive = {one.path[:depth] for one in kept for depth in range(len(one.path) + 1)}
        standing: dict[str, Route] = {}
        for one in sorted(self._open.values(), key=lambda one: one.path not in alive):
            standing.setdefault(one.text, one.path)
        for path, one in tuple(self._open.items()):
            if path in alive:
                continue
            del self._open[path]
            score = one.scores[-1] if one.scores else None
            twin = standing[one.text] if standing[one.text] != path else None
            self._recorder.record(PrunedEvent(time=self._recorder.now(), path=path, score=score, merged_into=twin))


def asked_of(events: Iterable[Event]) -> int:
    """Requests of the outermost search that a trace holds."""
    numbers = [one.number for one in events if isinstance(one, ExpandEvent | ForkEvent) and one.branch == ()]
    return max(numbers, default=-1) + 1
