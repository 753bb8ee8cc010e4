"""Decides which requests run and when one is over; it touches no tensor and knows no model.

Running samples are numbered: sample ``i`` is row ``i`` of the model's batch, and the rows stay contiguous.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from adaptive_ttc.policies.requests import StopRule
from adaptive_ttc.policy import Sampled, SampleRequest

Outcome = Sampled | Exception

GROUP_ROWS = 32
"""Rows whose attention is computed together, as wide as the longest of them."""


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way.

    Attributes:
        request: what is asked.
        limit: new tokens at most: the request's own limit or what the context leaves.
        stop: its stop strings.
        reply: called once, with what came of it.
        tokens: generated so far.
        logprobs: of these tokens, in nats.
        cached: prompt tokens whose keys and values were there already.
        started: whether it has or had a row.
        prompt_key: the same for equal prompts, and hardly ever for others.
    """

    request: SampleRequest
    limit: int
    stop: StopRule
    reply: Callable[[Outcome], None]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    cached: int = 0
    started: bool = False
    prompt_key: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_key = hash(self.request.prompt_ids)

    @property
    def length(self) -> int:
        """Tokens of the prompt and generated."""
        return len(self.request.prompt_ids) + len(self.tokens)

    @property
    def prompt_computed(self) -> bool:
        """Whether all of the prompt but the last token has keys and values in this request's row."""
        return bool(self.tokens) or self.cached == len(self.request.prompt_ids) - 1

    def accept(self, token: int, logprob: float, eos: frozenset[int]) -> Literal["eos", "stop", "length"] | None:
        """Take the next token; tell how the sample ended, if it did."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in eos:
            return "eos"
        if self.stop.met(self.request.stop_context, self.tokens):
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None

    def sampled(self, finish: Literal["eos", "stop", "length", "abort"]) -> Sampled:
        """What came of it."""
        return Sampled(
            token_ids=tuple(self.tokens),
            finish=finish,
            logprobs=tuple(self.logprobs),
            prompt_tokens=len(self.request.prompt_ids) - self.cached if self.started else 0,
            cached_tokens=self.cached,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """A request has got the last row.

    Attributes:
        job: the request.
        source: a row that has computed the same prompt, or None.
    """

    job: Job
    source: int | None


@dataclass(frozen=True, slots=True)
class Move:
    """The sample of row ``source`` now has row ``target``."""

    source: int
    target: int


class Scheduler:
    """Queue and rows.

    Args:
        max_batch: rows.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._arrivals = 0
        self._known: dict[str, tuple[int, int, Job]] = {}
        self._waiting: list[Job] = []
        self._leaders: dict[int, Job] = {}
        self.running: list[Job] = []

    @property
    def idle(self) -> bool:
        """Nothing runs or waits."""
        return not self.running and not self._waiting

    @property
    def waiting(self) -> int:
        """Requests without a row."""
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Queue a request behind those of its priority."""
        self._arrivals += 1
        self._known[job.request.id] = (job.request.priority, self._arrivals, job)
        insort(self._waiting, job, key=self._rank)

    def start_next(self) -> Start | None:
        """Give the next request the next row, or None if no row is free or none may start.

        A request whose prompt another one is computing waits until that is done, and then copies it.
        """
        if len(self.running) == self._max_batch:
            return None
        for index, job in enumerate(self._waiting):
            leader = self._leaders.setdefault(job.prompt_key, job)
            if leader is job or leader.prompt_computed:
                del self._waiting[index]
                self.running.append(job)
                job.started = True
                # two prompts may have one key
                same = leader is not job and leader.request.prompt_ids == job.request.prompt_ids
                return Start(job, self.running.index(leader) if same else None)
        return None

    def leads(self, job: Job) -> bool:
        """Whether others may copy this running request's prompt."""
        return self._leaders.get(job.prompt_key) is job

    def leave(self, row: int) -> list[Move]:
        """Free a row; returns how other samples change rows, in order, so that no gap is computed.

        The gap goes to the longest sample of the next group, that one's gap likewise, and the last gap to the last
        row: long samples gather in front, and the groups behind stay narrow.
        """
        del self._known[self.running[row].request.id]
        if self.leads(self.running[row]):
            del self._leaders[self.running[row].prompt_key]
        moves = []
        gap, last = row, len(self.running) - 1
        while (group := (gap // GROUP_ROWS + 1) * GROUP_ROWS) <= last:
            source = max(range(group, min(group + GROUP_ROWS, last + 1)), key=lambda row: self.running[row].length)
            moves.append(Move(source, gap))
            self.running[gap] = self.running[source]
            gap = source
        if gap != last:
            moves.append(Move(last, gap))
            self.running[gap] = self.running[last]
        self.running.pop()
        return moves

    def withdraw(self, request_id: str) -> Job | None:
        """Take a request out of the queue, if it waits there."""
        if request_id not in self._known:
            return None
        job = self._known[request_id][2]
        index = bisect_left(self._waiting, self._rank(job), key=self._rank)
        if index == len(self._waiting) or self._waiting[index] is not job:
            return None
        del self._known[request_id]
        return self._waiting.pop(index)

    def row_of(self, request_id: str) -> int | None:
        """The row of a running request."""
        return next((row for row, job in enumerate(self.running) if job.request.id == request_id), None)

    def clear(self) -> list[Job]:
        """Forget everything; returns what ran or waited."""
        jobs = [job for _, _, job in self._known.values()]
        self.running, self._waiting, self._known, self._leaders = [], [], {}, {}
        return jobs

    def _rank(self, job: Job) -> tuple[int, int]:
        return self._known[job.request.id][:2]
