"""Continuous batching: which requests run, the steps that all of them take together, and the thread that steps.

Running samples are numbered: sample ``i`` is row ``i`` of the model's batch, and the rows stay contiguous.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.requests import StopRule
from adaptive_ttc.policies.transformers.attention import GROUP_ROWS
from adaptive_ttc.policies.transformers.batched_model import ModelRunner
from adaptive_ttc.policy import Sampled, SampleRequest

Outcome = Sampled | Exception


@dataclass(slots=True, eq=False)
class Job:
    """A request and its tokens so far; ``reply`` is called once, with the result or an error."""

    request: SampleRequest
    limit: int  # new tokens at most: the request's own limit or what the context leaves
    stop: StopRule
    reply: Callable[[Outcome], None]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[float] = field(default_factory=list)
    cached: int = 0  # prompt tokens whose keys and values were there already
    started: bool = False  # whether it has or had a row
    prompt_key: int = field(init=False)  # the same for equal prompts, and hardly ever for others

    def __post_init__(self) -> None:
        self.prompt_key = hash(self.request.prompt_ids)

    @property
    def length(self) -> int:
        """Tokens of the prompt and generated."""
        return len(self.request.prompt_ids) + len(self.tokens)

    @property
    def prompt_computed(self) -> bool:
        """Whether this request's row holds keys and values of all prompt tokens but the last."""
        return bool(self.tokens) or self.cached == len(self.request.prompt_ids) - 1

    def accept(
        self, token: int, logprob: float, eos: frozenset[int], top_logprob: float = math.nan
    ) -> Literal["eos", "stop", "length"] | None:
        """Add the next token; return why the sample ends with it, or None."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        self.top_logprobs.append(top_logprob)
        if token in eos:
            return "eos"
        if token in self.request.stop_ids:
            return "stop"
        if self.stop.met(self.request.stop_context, self.tokens):
            return "stop"
        return "length" if len(self.tokens) >= self.limit else None

    def sampled(self, finish: Literal["eos", "stop", "length", "abort"]) -> Sampled:
        """The sample as it stands."""
        return Sampled(
            token_ids=tuple(self.tokens),
            finish=finish,
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.top_logprobs) if self.request.top_logprobs else (),
            prompt_tokens=len(self.request.prompt_ids) - self.cached if self.started else 0,
            cached_tokens=self.cached,
        )


class Start(NamedTuple):
    """A request that got the last row."""

    job: Job
    source: int | None  # a row that has computed the same prompt


class Move(NamedTuple):
    """The sample of row ``source`` now has row ``target``."""

    source: int
    target: int


class Scheduler:
    """The queue, by priority and arrival, and the ``max_batch`` rows; it holds no tensor."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch, self._arrivals = max_batch, 0
        self._known: dict[str, tuple[int, int, Job]] = {}
        self._waiting: list[Job] = []
        self._leaders: dict[int, Job] = {}
        self.running: list[Job] = []

    @property
    def idle(self) -> bool:
        """Nothing runs or waits."""
        return not self.running and not self._waiting

    def add(self, job: Job) -> None:
        """Queue a request behind those of its priority."""
        self._arrivals += 1
        self._known[job.request.id] = (job.request.priority, self._arrivals, job)
        insort(self._waiting, job, key=self._rank)

    def start_next(self) -> Start | None:
        """Give the next request the next row; None if no row is free or no request may start.

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
        """Free a row; return how other samples change rows, in order, so that the rows stay contiguous.

        The gap goes to the longest sample of the next group, that one's gap likewise, and the last gap to the last row:
        long samples gather in front, and the groups behind stay narrow.
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
        """Take a waiting request out of the queue; None if it does not wait."""
        if request_id not in self._known:
            return None
        job = self._known[request_id][2]
        index = bisect_left(self._waiting, self._rank(job), key=self._rank)
        if index == len(self._waiting) or self._waiting[index] is not job:
            return None
        del self._known[request_id]
        return self._waiting.pop(index)

    def clear(self) -> list[Job]:
        """Forget everything; return what ran or waited."""
        jobs = [job for _, _, job in self._known.values()]
        self.running, self._waiting, self._known, self._leaders = [], [], {}, {}
        return jobs

    def _rank(self, job: Job) -> tuple[int, int]:
        return self._known[job.request.id][:2]


class Engine:
    """Scheduler and model together. Not thread-safe: one thread calls it."""

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, eos: frozenset[int]) -> None:
        self._runner, self._scheduler, self._eos = runner, scheduler, eos
        self.submit = scheduler.add

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        return self._scheduler.idle

    def abort(self, request_id: str) -> None:
        """End a request with the tokens so far; an unknown one is ignored."""
        job = self.drop(request_id)
        if job is not None:
            job.reply(job.sampled("abort"))

    def drop(self, request_id: str) -> Job | None:
        """Forget a request without a reply, and free its row."""
        for row, job in enumerate(self._scheduler.running):
            if job.request.id == request_id:
                self._leave(row, may_go_on=False)
                return job
        return self._scheduler.withdraw(request_id)

    def step(self) -> None:
        """Start waiting requests on free rows, then give every running sample its next token."""
        while (start := self._scheduler.start_next()) is not None:
            self._begin(start)
        running = self._scheduler.running
        if not running:
            return
        result = self._runner.step(len(running))
        ends = []
        for row, token, logprob, top in zip(*result, strict=True):
            finish = running[row].accept(token, logprob, self._eos, top)
            if finish is not None:
                ends.append((row, finish))
        # from the last row on, so that a row that moves into a gap is one that goes on
        for row, finish in reversed(ends):
            job = running[row]
            self._leave(row, may_go_on=finish != "eos")
            job.reply(job.sampled(finish))

    def close(self) -> None:
        """End everything with the tokens so far."""
        for job in self._scheduler.clear():
            job.reply(job.sampled("abort"))

    def fail(self, error: Exception) -> None:
        """Reply to every request that the model failed; later ones start afresh."""
        for job in self._scheduler.clear():
            job.reply(EngineError(f"the model failed: {type(error).__name__}: {error}"))

    def release(self) -> None:
        """Free the model and its memory; only after the last step."""
        del self._runner

    def _leave(self, row: int, *, may_go_on: bool) -> None:
        """Free a row; store its keys and values for a continuation, or for others with its prompt."""
        job = self._scheduler.running[row]
        if may_go_on:
            self._runner.store(row, (*job.request.prompt_ids, *job.tokens))
        elif self._scheduler.leads(job):
            self._runner.store(row, job.request.prompt_ids)
        for move in self._scheduler.leave(row):
            self._runner.move(move.source, move.target)

    def _begin(self, start: Start) -> None:
        """Start a row from the longest computed prefix of its prompt: another row's, or a stored one."""
        row, source = len(self._scheduler.running) - 1, start.source
        self._runner.begin(row, start.job.request)
        start.job.cached = self._runner.load(row) if source is None else self._runner.copy_prompt(source, row)


class EngineThread:
    """Steps an engine while there is work, and runs posted commands between steps; nobody else may call the engine."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._engine = engine
        self._posted: deque[Callable[[], object]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        # a daemon, so that a process whose user forgot aclose can end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, command: Callable[[], object]) -> bool:
        """Run a command between two steps; False if the thread is closed, or is another process's (after a fork)."""
        if not self._thread.is_alive():
            return False
        with self._wake:
            if self._closed:
                return False
            self._posted.append(command)
            self._wake.notify()
            return True

    def end(self) -> None:
        """Run what was posted before, end the thread, and wait for that."""
        if not self._thread.is_alive():
            return
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._posted or self._closed or not self._engine.idle):
                    self._wake.wait()
                closed, commands = self._closed, self._posted
                self._posted = deque()
            for command in commands:
                self._guarded(command)
            if closed:
                self._engine.close()
                return
            self._guarded(self._engine.step)

    def _guarded(self, action: Callable[[], object]) -> None:
        """Run an action; an error goes to every caller, who would wait forever if this thread died."""
        try:
            action()
        except Exception as error:
            self._engine.fail(error)
