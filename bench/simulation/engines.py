"""Simulated engines: replicas that batch continuously, on the event loop's clock, with step times that were measured.

A replica's decoding step takes ``base + row * b`` seconds, b being the samples that run; a prompt that its cache does
not hold stops all of them for ``prefill`` seconds a token; a request passes the replica's front end, one after the
other, for ``front`` seconds each; more than ``slots`` wait. A sample is asked for once the solver's process, which
is one server too, has spent ``solver`` seconds on it. It is not known here where any figure comes from.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from time import thread_time

from simulation.population import EOS, STEP_END, Population, decode, goodness

from adaptive_ttc.policy import Sampled, SampleFinish, SampleRequest
from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.types import Problem

_SPILL = 8  # requests more than another replica's that the one with the prompt in its cache may have
_CACHED = 4_096  # prompts in a replica's cache
_HOMES = 200_000  # problems of which it is known where their prompt is cached
_NOTED = 16  # requests between two notes of the progress
_NEARLY = 1e-4  # of a step, which is done


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What an engine takes; times in seconds."""

    base: float  # of a step
    row: float  # of a step, for every sample in it
    slots: int  # samples that run at once
    prefill: float = 0.0  # for a prompt token that is not cached
    front: float = 0.0  # for a request, one after the other
    score_base: float = 0.0  # of a batch of the PRM
    score_token: float = 0.0  # of a batch of the PRM, for every token in it
    score_rows: int = 64  # solutions in a batch of the PRM

    def step(self, running: int) -> float:
        """Seconds of a decoding step."""
        return self.base + self.row * running

    def tokens_per_s(self) -> float:
        """Most tokens a second."""
        return self.slots / self.step(self.slots)


@dataclass(slots=True, eq=False)
class Job:
    """A request at a replica; ``reply`` is the number of tokens that it got."""

    tokens: int  # that it generates, if it is let
    uncached: int  # prompt tokens to be computed
    priority: int
    reply: asyncio.Future[int]
    began: float = -1.0  # step at which it was given a slot
    ended: bool = False


@dataclass(slots=True)
class Clockwork:
    """What replicas share: the loop, the order of events, the processor time that simulating engines takes."""

    loop: asyncio.AbstractEventLoop
    order: count[int] = field(default_factory=count)
    own: float = 0.0  # seconds of real processor time that the simulation of engines took

    def at(self, when: float, call: Callable[..., None], *arguments: object) -> asyncio.TimerHandle:
        """Have something done at a time, counted as the simulation's own work."""
        return self.loop.call_at(when, self.timed, call, *arguments)

    def timed(self, call: Callable[..., None], *arguments: object) -> None:
        """Do it now."""
        started = thread_time()
        call(*arguments)
        self.own += thread_time() - started


class Replica:
    """One engine.

    Attributes:
        in_flight: requests that wait or run.
        busy: seconds in which at least one ran; ``slot_seconds``: the same, once for every sample that ran.
        tokens: generated.
    """

    def __init__(self, profile: Profile, clock: Clockwork) -> None:
        self._profile, self._clock = profile, clock
        self._waiting: list[tuple[int, int, Job]] = []
        self._ends: list[tuple[float, int, Job]] = []  # by the step at which they end
        self._running = 0
        self._steps, self._at, self._stall, self._front = 0.0, 0.0, 0.0, 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.cached: OrderedDict[int, None] = OrderedDict()  # prompts
        self.in_flight = self.tokens = 0
        self.busy = self.slot_seconds = 0.0

    def submit(self, job: Job) -> None:
        """Take a request; its reply is set when it has ended."""
        if self._profile.front:
            self._front = max(self._front, self._clock.loop.time()) + self._profile.front
            self._clock.at(self._front, self._enter, job)
        else:
            self._enter(job)

    def abort(self, job: Job) -> None:
        """End it with the tokens that it has."""
        if job.ended:
            return
        self.advance()
        running = job.began >= 0
        self._running -= running
        self._end(job, min(job.tokens, int(self._steps - job.began)) if running else 0)
        self._fill()

    def advance(self) -> None:
        """Let the time that has passed have passed."""
        now = self._clock.loop.time()
        elapsed, self._at = now - self._at, now
        if self._running:
            stalled = min(elapsed, self._stall)
            self._stall -= stalled
            self._steps += (elapsed - stalled) / self._profile.step(self._running)
            self.busy += elapsed
            self.slot_seconds += elapsed * self._running

    def _enter(self, job: Job) -> None:
        if not job.ended:
            heappush(self._waiting, (job.priority, next(self._clock.order), job))
            self.advance()
            self._fill()

    def _fill(self) -> None:
        """Give free slots to those that wait, and wake up when the next one ends."""
        while self._waiting and self._running < self._profile.slots:
            job = heappop(self._waiting)[2]
            if job.ended:
                continue
            job.began = self._steps
            self._stall += self._profile.prefill * job.uncached
            self._running += 1
            heappush(self._ends, (job.began + job.tokens, next(self._clock.order), job))
        while self._ends and self._ends[0][2].ended:
            heappop(self._ends)
        if self._ends:
            due = self._at + self._stall + (self._ends[0][0] - self._steps) * self._profile.step(self._running)
            if self._timer is None or due < self._timer.when() - 1e-9:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._clock.at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.advance()
        while self._ends and (self._ends[0][2].ended or self._ends[0][0] <= self._steps + _NEARLY):
            job = heappop(self._ends)[2]
            if not job.ended:
                self._running -= 1
                self._end(job, job.tokens)
        self._fill()

    def _end(self, job: Job, tokens: int) -> None:
        job.ended = True
        self.tokens += tokens
        if not job.reply.done():
            job.reply.set_result(tokens)


class SimulatedPolicy:
    """Replicas of one engine, as a policy; made where the event loop runs.

    A request goes to the replica that has its prompt in its cache, unless the idler one of two others has much less to
    do. ``solver`` is the processor time, in seconds, that the solver's one process spends on a sample (a step, in
    a search over steps), all of it before its first request is sent: the loop's clock does not see it otherwise.

    Attributes:
        requests: sent; ``samples``: those that did not renew the lease of one that was cut.
        progress: the time and the tokens generated so far, at every so many requests' ends.
    """

    name, fingerprint, parameters, max_context, revision_prompt = "simulated", "simulated", 1_000, 1 << 16, None

    def __init__(
        self, population: Population, profile: Profile, replicas: int, *, solver: float = 0.0, seed: int = 0
    ) -> None:
        self.clock = Clockwork(asyncio.get_running_loop())
        self.replicas = [Replica(profile, self.clock) for _ in range(replicas)]
        self._population, self._solver = population, solver
        self._sent = 0.0  # when the solver's process is done with what it was asked
        self._chances = random.Random(seed)
        self._home: OrderedDict[int, int] = OrderedDict()
        self._jobs: dict[str, tuple[Replica, Job]] = {}
        self.requests = self.samples = self._delivered = self._ended = 0
        self.progress: list[tuple[float, int]] = []

    @property
    def tokens(self) -> int:
        """Generated by all replicas."""
        return sum(one.tokens for one in self.replicas)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The problem's prompt."""
        return self._population.prompt(problem)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens."""
        started = thread_time()
        text = decode(token_ids)
        self.clock.own += thread_time() - started
        return text

    async def sample(self, request: SampleRequest) -> Sampled:
        """The population's sample, when a replica has generated it."""
        started = thread_time()
        renewed = len(request.prompt_ids) > self._population.prompt_tokens and request.prompt_ids[-1] != STEP_END
        self.requests += 1
        self.samples += not renewed
        stepwise = "\n\n" in request.stop
        wanted = self._population.solution(request.prompt_ids, request.seed, request.max_tokens, stepwise)
        replica, uncached = self._place(request)
        job = Job(len(wanted), uncached, request.priority, self.clock.loop.create_future())
        self._jobs[request.id] = replica, job
        replica.in_flight += 1
        if self._solver and not renewed:
            self._sent = max(self._sent, self.clock.loop.time()) + self._solver
            self.clock.at(self._sent, replica.submit, job)
        else:
            replica.submit(job)
        self.clock.own += thread_time() - started
        try:
            tokens = await job.reply
        finally:
            self.clock.timed(replica.abort, job)
            replica.in_flight -= 1
            del self._jobs[request.id]
        got = wanted[:tokens]
        self._ended, self._delivered = self._ended + 1, self._delivered + tokens
        if self._ended % _NOTED == 0:
            self.progress.append((self.clock.loop.time(), self._delivered))
        ends: Mapping[int, SampleFinish] = {EOS: "eos", STEP_END: "stop"} if stepwise else {EOS: "eos"}
        return Sampled(
            token_ids=got,
            finish="abort" if tokens < len(wanted) else ends.get(got[-1], "length"),
            logprobs=(-0.1,) * tokens if request.logprobs else (),
            prompt_tokens=uncached,
            cached_tokens=len(request.prompt_ids) - uncached,
        )

    async def abort(self, request_id: str) -> None:
        """End a request with the tokens so far."""
        if request_id in self._jobs:
            replica, job = self._jobs[request_id]
            self.clock.timed(replica.abort, job)
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _place(self, request: SampleRequest) -> tuple[Replica, int]:
        """Where a request goes, and the tokens of its prompt that are not cached there."""
        number = self._population.number(request.prompt_ids)
        draw = self._chances.randrange
        index = min((draw(len(self.replicas)) for _ in range(2)), key=lambda one: self.replicas[one].in_flight)
        home = self._home.get(number)
        if home is not None and self.replicas[home].in_flight <= self.replicas[index].in_flight + _SPILL:
            index = home
        self._home[number] = index
        if len(self._home) > _HOMES:
            self._home.popitem(last=False)
        replica = self.replicas[index]
        held = number in replica.cached
        replica.cached[number] = None
        replica.cached.move_to_end(number)
        if len(replica.cached) > _CACHED:
            replica.cached.popitem(last=False)
        return replica, 0 if held else len(request.prompt_ids)


class SimulatedPRM:
    """Replicas of a PRM: each scores all that waits, up to so many solutions, in one batch after the other.

    Of a solution whose first steps were scored before, only the new step is computed.
    """

    name, fingerprint, parameters = "simulated", "simulated", 1_000

    def __init__(self, profile: Profile, replicas: int, clock: Clockwork) -> None:
        self._profile, self._clock = profile, clock
        self._waiting: list[list[tuple[int, asyncio.Future[None]]]] = [[] for _ in range(replicas)]
        self._at_work = [False] * replicas
        self._turn = 0
        self._known: OrderedDict[int, None] = OrderedDict()
        self.busy = [0.0] * replicas
        self.tokens = self.requests = 0

    def count_tokens(self, request: ScoreRequest) -> int:
        """One a word."""
        return sum(len(step.split()) for step in (request.question, *request.steps))

    async def score(self, request: ScoreRequest) -> Scored:
        """A score for every step, when a replica has computed them."""
        started = thread_time()
        steps, tokens = request.steps, self.count_tokens(request)
        if hash((request.question, *steps[:-1])) in self._known:
            tokens = len(steps[-1].split())
        self._known[hash((request.question, *steps))] = None
        if len(self._known) > _HOMES:
            self._known.popitem(last=False)
        self.requests += 1
        self.tokens += tokens
        self._turn = (self._turn + 1) % len(self.busy)
        done: asyncio.Future[None] = self._clock.loop.create_future()
        self._waiting[self._turn].append((tokens, done))
        self._begin(self._turn)
        scores = tuple(goodness(request.question, steps[: n + 1]) for n in range(len(steps)))
        self._clock.own += thread_time() - started
        await done
        return Scored(scores=scores, prm_tokens=self.count_tokens(request))

    async def aclose(self) -> None:
        """Nothing to close."""

    def _begin(self, index: int) -> None:
        """Begin a batch, where none is being computed and something waits."""
        if self._at_work[index] or not self._waiting[index]:
            return
        most = self._profile.score_rows
        batch, self._waiting[index] = self._waiting[index][:most], self._waiting[index][most:]
        seconds = self._profile.score_base + self._profile.score_token * sum(tokens for tokens, _ in batch)
        self.busy[index] += seconds
        self._at_work[index] = True
        self._clock.at(self._clock.loop.time() + seconds, self._finish, index, batch)

    def _finish(self, index: int, batch: Sequence[tuple[int, asyncio.Future[None]]]) -> None:
        self._at_work[index] = False
        for _, done in batch:
            if not done.done():
                done.set_result(None)
        self._begin(index)
