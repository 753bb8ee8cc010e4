"""What every strategy must do. A strategy joins with ``register(StrategyCase(name, options))``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import EngineError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.strategies import Strategy, make_strategy
from adaptive_ttc.strategies.requests import Expand, Fork, Search
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import ROOT, Finish, Prefix, Problem
from tests.doubles import TinyPolicy

PROBLEM = Problem.of("how much is that?", id="conformance")
LIMIT = 120


@dataclass(frozen=True)
class StrategyCase:
    """A strategy under test.

    Attributes:
        name: as registered.
        options: a small configuration.
        one: the options with which ``n=1`` works.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    one: Mapping[str, Any] = field(default_factory=dict)

    def make(self, **options: Any) -> Strategy:
        return make_strategy(self.name, **{"max_tokens": LIMIT, **self.options, **options})


Check = Callable[[StrategyCase], None]

CASES: dict[str, StrategyCase] = {}
CHECKS: dict[str, Check] = {}


def register(case: StrategyCase) -> None:
    assert case.name not in CASES, f"there is a case {case.name} already"
    CASES[case.name] = case


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def fake_prm() -> FakePRM:
    return FakePRM(lambda question, steps: (len("".join(steps)) * 7 % 11) / 11)


@dataclass(frozen=True)
class Outcome:
    """What came of a run, with the assertions that always hold made already."""

    candidates: tuple[Prefix, ...]
    driver: Driver
    spent: int
    policy: TinyPolicy


def run(search: Search, budget: int | None = None, policy: TinyPolicy | None = None, seed: int = 0) -> Outcome:
    policy, ledger = policy or TinyPolicy(), Ledger(budget)
    driver = Driver(PROBLEM, policy, ledger, prm=fake_prm(), seed=seed)
    try:
        candidates = anyio.run(driver.run, search)
    finally:
        settled(ledger, policy, driver)
    return Outcome(candidates, driver, ledger.spent, policy)


def settled(ledger: Ledger, policy: TinyPolicy, driver: Driver) -> None:
    statistics = ledger.statistics()
    assert statistics.limit is None or statistics.spent <= statistics.limit, "overspent"
    assert statistics.reserved == statistics.open_reservations == statistics.open_children == 0, "leaked reservations"
    assert not policy.in_flight, "leaked requests"
    assert driver.usage.completion_tokens == policy.delivered
    assert statistics.spent == policy.delivered + driver.usage.lost_tokens


def well_formed(candidates: tuple[Prefix, ...]) -> None:
    paths = [candidate.path for candidate in candidates]
    assert len(paths) == len(set(paths)), "copies of one solution were handed in"
    assert all(candidate.token_ids for candidate in candidates), "an empty solution was handed in"


@check
def runs_with_next_and_send_alone(case: StrategyCase) -> None:
    """Every child is answered at once by a finished solution; no event loop runs."""

    def answer(request: object) -> tuple[Any, ...]:
        if isinstance(request, Fork):
            return tuple(drive(search) for search in request.searches)
        assert isinstance(request, Expand)
        parents = [parent for parent in request.prefixes for _ in range(request.n)]
        assert parents, "an Expand of nothing"
        return tuple(child(parent, f"{len(parent.path)}{index}") for index, parent in enumerate(parents))

    def child(parent: Prefix, name: str) -> Prefix:
        finish: Finish = "eos"
        return Prefix(
            (*parent.token_ids, 1, 0), f"{name} \\boxed{{1}}", (0.5,), -1.0, finish, (*parent.path, int(name))
        )

    def drive(search: Search) -> tuple[Prefix, ...]:
        request = next(search)
        while True:
            try:
                request = search.send(answer(request))
            except StopIteration as returned:
                return tuple(returned.value)

    assert drive(case.make().search())


@check
def returns_whatever_the_budget(case: StrategyCase) -> None:
    for budget in (0, 1, 2, 7, 30, 100, 300, 1000):
        outcome = run(case.make().search(), budget)
        well_formed(outcome.candidates)
        assert bool(outcome.candidates) == (budget > 0)


@check
def finishes_a_solution_where_the_budget_covers_one(case: StrategyCase) -> None:
    for seed in range(20):
        outcome = run(case.make().search(), LIMIT, TinyPolicy(mean=50), seed)
        assert any(candidate.finish in ("eos", "length") for candidate in outcome.candidates)


@check
def order_of_replies_is_irrelevant(case: StrategyCase) -> None:
    for budget in (None, 60, 200):
        calm = run(case.make().search(), budget)
        for chaos in range(5):
            wild = run(case.make().search(), budget, TinyPolicy(chaos=chaos))
            assert (wild.candidates, wild.spent) == (calm.candidates, calm.spent)


@check
def same_seed_same_candidates_and_another_seed_others(case: StrategyCase) -> None:
    first, again, other = (run(case.make().search(), seed=seed) for seed in (1, 1, 2))
    assert first.candidates == again.candidates
    assert [one.token_ids for one in first.candidates] != [one.token_ids for one in other.candidates]


@check
def n_of_one_works(case: StrategyCase) -> None:
    outcome = run(case.make(**{"n": 1, **case.one}).search())
    well_formed(outcome.candidates)
    assert any(candidate.finished for candidate in outcome.candidates)


@check
def goes_on_from_evidence(case: StrategyCase) -> None:
    """Finished evidence stays a candidate, first steps are continued, and nothing is drawn twice."""

    def evidence() -> Search:
        finished = yield from Expand(prefixes=(ROOT,), n=2, score=True)
        steps = yield from Expand(prefixes=(ROOT,), n=2, stop=("\n\n",), score=True, max_tokens=LIMIT)
        return finished + steps

    def both() -> Search:
        start.extend((yield from evidence()))
        return (yield from case.make(**more).search(start))

    more = {} if case.make().n == 1 else {"n": 4}
    start: list[Prefix] = []
    outcome = run(both(), policy=TinyPolicy(mean=30))
    finished = [prefix for prefix in start if prefix.finished]
    assert [prefix for prefix in finished if prefix not in outcome.candidates] == []
    well_formed(outcome.candidates)
    drawn_before = {prefix.path for prefix in start}
    if more:
        assert all(candidate.path[:1] in drawn_before for candidate in outcome.candidates)


@check
def a_stopped_run_hands_in_what_it_has(case: StrategyCase) -> None:
    async def stopped_after(requests: int) -> None:
        policy, ledger, stop = TinyPolicy(chaos=requests, mean=200), Ledger(None), Signal()
        driver = Driver(PROBLEM, policy, ledger, prm=fake_prm(), stop=stop)
        candidates: list[tuple[Prefix, ...]] = []

        async def task() -> None:
            candidates.append(await driver.run(case.make().search()))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            for _ in range(requests * 20):
                await anyio.lowlevel.checkpoint()
            stop.set()
        settled(ledger, policy, driver)
        well_formed(candidates[0])

    for requests in range(8):
        anyio.run(stopped_after, requests)


@check
def random_failures_leak_nothing(case: StrategyCase) -> None:
    @settings(max_examples=40)
    @given(
        chaos=st.integers(0, 2**20),
        budget=st.none() | st.integers(0, 600),
        failure=st.sampled_from([0.0, 0.05, 0.4]),
        fatal=st.sampled_from([0.0, 0.02]),
        cancelled_at=st.none() | st.integers(0, 150),
    )
    def examples(chaos: int, budget: int | None, failure: float, fatal: float, cancelled_at: int | None) -> None:
        policy, ledger = TinyPolicy(chaos=chaos, failure=failure, fatal=fatal), Ledger(budget)
        driver = Driver(PROBLEM, policy, ledger, prm=fake_prm())

        async def main() -> None:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(search)
                    for _ in range(cancelled_at or 0):
                        await anyio.lowlevel.checkpoint()
                    if cancelled_at is not None:
                        scope.cancel()

        async def search() -> None:
            try:
                well_formed(await driver.run(case.make().search()))
            except EngineError:
                assert failure or fatal

        anyio.run(main)
        settled(ledger, policy, driver)

    examples()
