"""Solves a problem again from its trace, with no model: the same searches are sent the recorded replies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.cost import Price
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.events import (
    AllocationEvent,
    CandidateEvent,
    DoneEvent,
    Event,
    ExpandedEvent,
    ExpandEvent,
    RequestEvent,
    Route,
    RunEvent,
    SampledEvent,
    ScoredEvent,
    SearchEvent,
    VoteEvent,
    WrittenEvent,
)
from adaptive_ttc.run.request import SolveRequest
from adaptive_ttc.run.vote import candidates_of, conclude, grade
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy, make_strategy
from adaptive_ttc.strategies.adaptive import UNLISTED
from adaptive_ttc.strategies.requests import Expand, Fork, Score, Search
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Candidate, Ending, Finish, Message, Prefix, Problem, Stopped, Usage


async def retrace(trace: Trace, grader: Grader) -> Solution:
    """The solution that a trace of a whole run is of; its own trace ends like the recorded one.

    Timing (a deadline, a stop) is in the replies. Answers are of the space that the trace names, or the grader's own
    where that has the name. ConfigError: the trace is not complete, or its strategy asks for something else now.
    """
    strategy, prefixes = Record(trace).search_again()
    space = _space(trace, grader.space)
    return _concluded(trace, strategy, await grade(prefixes, strategy, grader.for_problem(space)), space)


def as_recorded(trace: Trace, space: AnswerSpace) -> Solution:
    """The same with answers in the classes that were recorded, which asks no grader."""
    strategy, prefixes = Record(trace).search_again()
    read = trace.of(CandidateEvent)
    if [event.path for event in read] != [prefix.path for prefix in prefixes]:
        raise ConfigError("the trace names other candidates than its last search hands in: solve the problem anew")
    answers, classes = [event.answer for event in read], [event.answer_class for event in read]
    return _concluded(trace, strategy, candidates_of(prefixes, answers, classes, strategy), _space(trace, space))


def _space(trace: Trace, own: AnswerSpace) -> AnswerSpace:
    named = _one(trace, RunEvent).answers
    return own if own.name == named else space_of(named)


def _concluded(trace: Trace, strategy: Strategy, graded: Sequence[Candidate], space: AnswerSpace) -> Solution:
    opening, done = _one(trace, RunEvent), _one(trace, DoneEvent)
    again = Trace(trace.started)
    for event in trace:
        if not isinstance(event, (CandidateEvent, VoteEvent, DoneEvent)):
            again.record(event)
    request = SolveRequest(
        problem=Problem(tuple(Message(*turn) for turn in opening.messages), opening.problem),  # type: ignore[arg-type]
        strategy=strategy,
        vote=strategy,
        price=Price(),
        count=opening.count,
        budget=opening.budget,
        seed=opening.seed,
        answers=space,
    )
    verdicts = {event.path: event.verdict for event in trace.of(CandidateEvent)}
    candidates = tuple(replace(one, verdict=verdicts.get(one.prefix.path)) for one in graded)
    told = [event.difficulty for event in trace.of(AllocationEvent)]
    usage = Usage(**done.usage)  # type: ignore[arg-type]
    ending, difficulty = Ending(Stopped(done.stopped), done.why), told[-1] if told else None
    error = None if done.error is None else AdaptiveTTCError(done.error)
    said: dict[str, Any] = {"right": done.confidence, "difficulty": difficulty, "error": error}
    return conclude(request, candidates, usage, done.spent, again, ending, **said)


E = TypeVar("E", bound=Event)


class Record:
    """The replies recorded in a trace, for searches that are run again."""

    def __init__(self, trace: Trace) -> None:
        self._searches = trace.of(SearchEvent)
        self._asked = {(event.branch, event.number): event for event in trace.of(ExpandEvent)}
        self._children = {(event.branch, event.number): event.children for event in trace.of(ExpandedEvent)}
        self._ends = {event.path: event for event in trace.of(SampledEvent)}
        self._scores = {event.path: event.scores for event in trace.of(ScoredEvent)}
        self._tokens: dict[Route, tuple[int, ...]] = {}
        begun: dict[Route, int] = {}  # tokens that the solution at a path had from its parent
        for event in trace:
            if isinstance(event, RequestEvent | WrittenEvent):
                kept = event.position - begun.setdefault(event.path, event.position)
                self._tokens[event.path] = self._tokens.get(event.path, ())[:kept] + event.token_ids
        self._prefixes: dict[Route, Prefix] = {}

    @property
    def drawn(self) -> Mapping[Route, Prefix]:
        """All samples of the searches that were run again, by path."""
        return self._prefixes

    def search_again(self) -> tuple[Strategy, tuple[Prefix, ...]]:
        """Run every search of the trace in turn; the last one's strategy, and what it handed in."""
        if not self._searches:
            raise ConfigError("the trace holds no search")
        for again in self.searches_again():
            last = again
        return last

    def searches_again(self) -> Iterator[tuple[Strategy, tuple[Prefix, ...]]]:
        """Run the searches of the trace one by one; the strategy of each, and what it handed in."""
        number = -1
        for event in self._searches:
            strategy = _strategy(event)
            start = [self._prefixes[path] for path in event.start]
            number, handed_in = self._drive(strategy.search(start), (), number)
            yield strategy, handed_in

    def _drive(self, search: Search, branch: Route, number: int) -> tuple[int, tuple[Prefix, ...]]:
        """Answer a search's requests, numbered after ``number``; the last number, and the search's result."""
        reply: object = None
        try:
            while True:
                request = search.send(reply)
                number += 1
                if isinstance(request, Score):
                    reply, number = self._score(request), number - 1
                elif isinstance(request, Fork):
                    reply = self._fork(request, (*branch, number))
                else:
                    reply = self._expand(request, branch, number)
        except StopIteration as returned:
            return number, tuple(returned.value)

    def _score(self, request: Score) -> tuple[Prefix, ...]:
        scored = tuple(replace(one, scores=self._scores.get(one.path, one.scores)) for one in request.prefixes)
        self._prefixes.update((one.path, one) for one in scored)
        return scored

    def _fork(self, fork: Fork, route: Route) -> tuple[tuple[Prefix, ...], ...]:
        return tuple(self._drive(search, (*route, index), -1)[1] for index, search in enumerate(fork.searches))

    def _expand(self, request: Expand, branch: Route, number: int) -> tuple[Prefix, ...]:
        asked = self._asked.get((branch, number))
        paths = tuple(prefix.path for prefix in request.prefixes)
        if asked is None or (asked.paths, asked.n, asked.stop) != (paths, request.n, request.stop):
            raise ConfigError(
                "the strategy asks for something else than when the trace was written: use the version that wrote it, "
                "or solve the problem anew"
            )
        parents = (prefix for prefix in request.prefixes for _ in range(request.n))
        children = zip(self._children.get((branch, number), ()), parents, strict=False)
        reply = tuple(self._child(path, parent, request) for path, parent in children)
        if len(reply) != len(paths) * request.n:
            raise ConfigError("the trace ends before its run did: it cannot be followed to a solution")
        return reply

    def _child(self, path: Route, parent: Prefix, request: Expand) -> Prefix:
        if path not in self._ends:
            raise ConfigError(f"the trace does not tell how the sample at {path} ended: it is not complete")
        end, tokens = self._ends[path], self._tokens.get(path, ())
        kept = parent.scores if request.score and not tokens else ()
        child = replace(
            parent,
            token_ids=parent.token_ids + tokens,
            text=parent.text + end.text,
            scores=self._scores.get(path, kept) if request.score else (),
            logprob=end.logprob,
            answer_logprob=math.nan if end.answer_logprob is None else end.answer_logprob,
            answer_at=end.answer_at,
            thought=end.thought,
            waits=end.waits,
            finish=cast(Finish, end.finish),
            path=path,
        )
        self._prefixes[path] = child
        return child


def _strategy(event: SearchEvent) -> Strategy:
    unlisted = UNLISTED.get(event.strategy)
    return make_strategy(event.strategy, **event.options) if unlisted is None else unlisted(**event.options)


def _one(trace: Trace, kind: type[E]) -> E:
    events = trace.of(kind)
    if len(events) != 1:
        raise ConfigError(f"a trace of one whole run has one {kind.kind!r} event; this has {len(events)}")
    return events[0]
