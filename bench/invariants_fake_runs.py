"""Random runs of the solver over fake engines: drawn, carried out on a clock of its own, every call written down.

A run's clock counts turns of the event loop, so that a deadline falls in the same turn every time. What the wrapped
engines write down is evidence of its own: none of it comes from the trace or the ledger that it is held against.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from unittest import mock

import anyio
import anyio.lowlevel

from adaptive_ttc.answers import Grader
from adaptive_ttc.cost import COUNTS, price_of
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.scoring import least_score
from adaptive_ttc.errors import EngineError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy, Trouble, toy_right_so_far
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Strategy, make_strategy, strategy_names
from adaptive_ttc.strategies.requests import Expand, Search
from adaptive_ttc.types import ROOT, STEP_END, Prefix, Problem
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM

LONGEST = 150
"""Tokens that hardly a solution of the drawn problems exceeds."""

TURN = 0.002
"""Seconds of a turn of the event loop, about, on the clock of :class:`_TurnCountingLoop`."""

TICK = 0.001
"""Seconds by which the clock goes on whenever it is read."""

STUCK = 1000.0
"""Seconds on that clock after which a run is given up."""


@dataclass(frozen=True, kw_only=True)
class AfterEvidence(Strategy):
    """Another strategy that goes on from ``finished`` whole solutions and ``begun`` first steps, drawn before."""

    name: ClassVar[str] = "after_evidence"

    inner: Strategy
    finished: int = 0
    begun: int = 0

    @property
    def scored(self) -> bool:
        """As the other one."""
        return self.inner.scored

    @property
    def revises(self) -> bool:
        """As the other one."""
        return self.inner.revises

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Draw the evidence, then search."""
        evidence = tuple(start)
        for number, stop in ((self.finished, ()), (self.begun, (STEP_END,))):
            if number:
                evidence += yield from Expand(
                    prefixes=(ROOT,), n=number, stop=stop, max_tokens=self.max_tokens, score=self.scored
                )
        return (yield from self.inner.search(tuple(prefix for prefix in evidence if prefix.token_ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One random run.

    Attributes:
        question: what is asked; the toy model adds its numbers.
        request: arguments of :meth:`~adaptive_ttc.solver.Solver.solve`.
        config: how requests are sent.
        prm: whether there is one; ``prm_context`` is what it can read.
        policy: settings of the fake policy.
        troubles: of policy and PRM.
        stopped_after, cancelled_after: turns of the event loop after which that happens.
        natively: whether the task is cancelled, in place of its scope.
    """

    question: str
    request: dict[str, Any]
    config: DriverConfig
    prm: bool
    prm_context: int | None
    policy: dict[str, Any]
    troubles: tuple[Trouble, Trouble]
    stopped_after: int | None = None
    cancelled_after: int | None = None
    natively: bool = False

    @property
    def calm(self) -> bool:
        """Whether nothing fails and nothing ends the run early."""
        failing = any(trouble.lost or trouble.fatal for trouble in self.troubles)
        early = (self.request.get("deadline"), self.stopped_after, self.cancelled_after)
        return not failing and early == (None, None, None)

    def in_other_order(self, seed: int) -> Case:
        """The same run with other delays."""
        return replace(self, troubles=(Trouble(seed=seed, turns=5), Trouble(seed=seed + 1, turns=9)))


def draw(seed: int, index: int) -> Case:
    """The run of that number."""
    rng = random.Random(f"{seed},{index}")
    numbers = [rng.choice((rng.randint(1, 9), rng.randint(1, 60))) for _ in range(rng.choice((2, 2, 3, 3, 4, 5)))]
    prm = rng.random() < 0.9
    request = _draw_strategy(rng, prm) | {"seed": rng.getrandbits(32), "count": rng.choice((COUNTS[0], *COUNTS))}
    case = Case(
        question=f"Add {' + '.join(map(str, numbers))}.",
        request=request,
        config=DriverConfig(
            attempts=rng.randint(1, 4),
            grace=rng.choice((0.0, 0.2, 10.0)),
            finish_tokens=rng.choice((None, None, None, 40, 90)),
        ),
        prm=prm,
        prm_context=rng.choice((None, None, None, None, 60)),
        policy={
            "error_rate": rng.choice((0.0, 0.05, 0.2)),
            "max_batch": rng.choice((1, 4, 64)),
            "turn_tokens": rng.choice((4, 16, 64)),
            "overrun": rng.choice((0, 3)),
            "max_context": rng.choice((4096, 4096, 4096, 120)),
        },
        troubles=(Trouble(seed=rng.getrandbits(32), turns=3), Trouble(seed=rng.getrandbits(32), turns=3)),
    )
    if request.get("strategy") is None or rng.random() < 0.8:
        request["budget_tokens"] = _draw_budget(case, rng)
    return case if rng.random() < 0.5 else _disturbed(case, rng)


def _draw_budget(case: Case, rng: random.Random) -> int:
    """Anything from a token's worth on, or little more than what finishes one solution, where starving is likeliest."""
    if rng.random() < 0.6:
        return least_budget(case) + round(token_price(case) * 2 ** rng.uniform(0, 11))
    return enough(case) + token_price(case) * rng.randint(0, 100)


def _draw_strategy(rng: random.Random, prm: bool) -> dict[str, Any]:
    """Strategy and options as :meth:`~adaptive_ttc.solver.Solver.solve` takes them."""
    unscored = ("greedy", "majority", "short_m_at_k", "revision")
    name = rng.choice((None, *(strategy_names() if prm else unscored)))
    options: dict[str, Any] = {"max_tokens": rng.choice((20, 60, LONGEST, LONGEST, 400))}
    if name is None:
        return options
    if name in ("beam_search", "dvts"):
        options["beam_width"] = rng.choice((1, 2, 4))
        options["n"] = options["beam_width"] * rng.randint(1, 4)
        options |= {"max_steps": rng.choice((1, 3, 40, 40, 40)), "lookahead": rng.choice((0, 0, 1, 2))}
        options["agg_strategy"] = rng.choice(("last", "min", "prod", "mean"))
    elif name != "greedy":
        options |= {"n": rng.choice((1, 2, 3, 5, 8, 12)), "temperature": rng.choice((0.8, 0.8, 1.5, 0.0))}
        if name == "revision":
            options["sequential"] = rng.choice([one for one in (1, 2, 3, 4, 5, 6) if options["n"] % one == 0])
            options["vote"] = "weighted" if prm else "majority"
        elif name == "short_m_at_k":
            options["m"] = rng.randint(1, min(3, options["n"]))
        else:
            options["slice_size"] = rng.choice((None, None, 1, 4))
    if rng.random() < 0.2:
        inner = make_strategy(name, **options)
        shared = {"n": inner.n, "max_tokens": inner.max_tokens, "vote": inner.vote}
        few = {"finished": rng.randint(0, 2), "begun": rng.randint(0, 3) if inner.scored else 0}
        return {"strategy": AfterEvidence(inner=inner, **shared, **few)}
    return {"strategy": name, **options}


def _disturbed(case: Case, rng: random.Random) -> Case:
    """The same, with failures, a deadline, a stop or a cancellation."""
    if rng.random() < 0.5:
        sizes = {"lost": rng.choice((0.0, 0.02, 0.2)), "fatal": rng.choice((0.0, 0.0, 0.01))}
        policy = Trouble(seed=rng.getrandbits(32), turns=3, deaf=rng.random() < 0.1, **sizes)
        prm = Trouble(seed=rng.getrandbits(32), turns=6, lost=rng.choice((0.0, 0.1)), fatal=rng.choice((0.0, 0.02)))
        case = replace(case, troubles=(policy, prm))
    early = rng.choice(("deadline", "stop", "cancel", "cancel", None))
    turns = round(2 ** rng.uniform(0, 8)) - 1
    if early == "deadline":
        case.request["deadline"] = TURN * turns
    elif early == "stop":
        case = replace(case, stopped_after=turns)
    elif early == "cancel":
        case = replace(case, cancelled_after=turns, natively=rng.random() < 0.5)
    return case


def token_price(case: Case) -> int:
    """Ledger units that a generated token takes, its scoring included, about."""
    price = price_of(case.request["count"], *engines(case))
    return price.decode + 2 * price.score


def least_budget(case: Case) -> int:
    """The smallest budget that the solver takes."""
    policy, prm = engines(case)
    price = price_of(case.request["count"], policy, prm if case.prm else None)
    prompt = price.prompt * len(policy.encode(Problem.of(case.question)))
    return prompt + price.decode + (least_score(prm, case.question, price) if case.prm else 0)


def enough(case: Case) -> int:
    """A budget that finishes one solution whatever its length: for generated tokens, ``max_tokens``.

    Where scoring is charged too, every step is framed and set aside for anew.
    """
    strategy = case.request.get("strategy")
    tokens = strategy.max_tokens if isinstance(strategy, Strategy) else case.request.get("max_tokens", 2048)
    if case.request["count"] == "generated":
        return int(tokens)
    return 16 * least_budget(case) + token_price(case) * int(tokens)


def engines(case: Case) -> tuple[FakePolicy, FakePRM]:
    """The fakes of a run, each with its troubles begun anew."""
    ours, theirs = (replace(trouble) for trouble in case.troubles)
    policy = FakePolicy.generative(trouble=ours, **case.policy)
    return policy, FakePRM.truthful(toy_right_so_far, trouble=theirs, max_context=case.prm_context, parameters=700)


@dataclass(slots=True)
class Call:
    """A request to the policy; ``sampled`` stays None while it is under way and when it told nothing."""

    asked: SampleRequest
    sampled: Sampled | None = None


@dataclass(slots=True)
class Scoring:
    """A request to the PRM; ``scored`` stays None while it is under way and where it failed."""

    asked: ScoreRequest
    scored: Scored | None = None


@dataclass(slots=True)
class Recorder:
    """What one run asked for and got.

    Attributes:
        log: calls of both engines in the order in which they came back, failed ones included.
        ledgers: every account that was opened, the run's own first.
        open: calls of either engine that have not come back.
        overdrawn: times at which an account had promised more than it holds.
    """

    log: list[Call | Scoring] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)
    open: int = 0
    overdrawn: int = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of the accounts that are opened meanwhile."""
        original, ledgers = Ledger.__init__, self.ledgers

        def noted(ledger: Ledger, limit: int | None) -> None:
            original(ledger, limit)
            ledgers.append(ledger)

        with mock.patch.object(Ledger, "__init__", noted):
            yield

    @property
    def calls(self) -> list[Call]:
        """Those of the policy."""
        return [entry for entry in self.log if isinstance(entry, Call)]

    @property
    def scorings(self) -> list[Scoring]:
        """Those of the PRM."""
        return [entry for entry in self.log if isinstance(entry, Scoring)]

    @contextmanager
    def noting(self, entry: Call | Scoring) -> Iterator[None]:
        """A call is under way; the accounts are looked at before it and after it."""
        self.open += 1
        self._look()
        try:
            yield
        finally:
            self.open -= 1
            self.log.append(entry)
            self._look()

    def _look(self) -> None:
        self.overdrawn += sum(ledger.limit is not None and ledger.available < 0 for ledger in self.ledgers)


class RecordedPolicy(WrappedPolicy):
    """A policy whose calls are written down."""

    def __init__(self, policy: Policy, recorder: Recorder) -> None:
        super().__init__(policy)
        self._recorder = recorder

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's."""
        call = Call(request)
        with self._recorder.noting(call):
            call.sampled = await super().sample(request)
        return call.sampled


class RecordedPRM(WrappedPRM):
    """A reward model whose calls are written down."""

    def __init__(self, prm: RewardModel, recorder: Recorder) -> None:
        super().__init__(prm)
        self._recorder = recorder

    async def score(self, request: ScoreRequest) -> Scored:
        """The model's."""
        scoring = Scoring(request)
        with self._recorder.noting(scoring):
            scoring.scored = await super().score(request)
        return scoring.scored


@dataclass(slots=True)
class Outcome:
    """What came of a run: a solution, an engine's error, nothing after a cancellation, or a crash."""

    recorder: Recorder
    policy: FakePolicy
    prm: FakePRM
    solution: Solution | None = None
    error: EngineError | None = None
    crash: str | None = None


def carry_out(case: Case, grader: Grader) -> Outcome:
    """Run it, with the engines' calls and the accounts watched."""
    policy, prm = engines(case)
    outcome = Outcome(Recorder(), policy, prm)
    with outcome.recorder.watching(), turn_counting() as runner:
        runner.run(_main(case, grader, outcome))
    return outcome


async def _main(case: Case, grader: Grader, outcome: Outcome) -> None:
    recorder = outcome.recorder
    prm = RecordedPRM(outcome.prm, recorder) if case.prm else None
    solver = Solver(RecordedPolicy(outcome.policy, recorder), prm, grader=grader, config=case.config)
    stop = anyio.Event()

    async def guarded() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as clock:
                if case.cancelled_after is not None and not case.natively:
                    clock.start_soon(after, case.cancelled_after, scope.cancel)
                if case.stopped_after is not None:
                    clock.start_soon(after, case.stopped_after, stop.set)
                try:
                    outcome.solution = await solver.solve(case.question, stop=stop, **case.request)
                except EngineError as error:
                    outcome.error = error
                clock.cancel_scope.cancel()

    task = asyncio.ensure_future(guarded())
    if case.natively and case.cancelled_after is not None:
        await after(case.cancelled_after, task.cancel)
    _, unfinished = await asyncio.wait([task], timeout=STUCK)
    if unfinished:
        outcome.crash = "it never ended"
    elif not task.cancelled() and (error := task.exception()) is not None:
        outcome.crash = repr(error)


async def after(turns: int, action: Any) -> None:
    """Do something after so many turns of the event loop."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    action()


def turn_counting() -> asyncio.Runner:
    """What runs coroutines on a clock that counts turns."""
    return asyncio.Runner(loop_factory=_TurnCountingLoop)


class _Impatient(selectors.DefaultSelector):
    """Never waits: what waits for a time reads the clock until it has come."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0)


class _TurnCountingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on when it is read, so that a deadline falls in the same turn every time."""

    def __init__(self) -> None:
        self._readings = 0
        super().__init__(_Impatient())

    def time(self) -> float:
        """Seconds since the start."""
        self._readings += 1
        return TICK * self._readings
