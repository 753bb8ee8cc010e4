"""Leases against worst-case reservation under the same tight budgets: concurrency, time, accuracy.

    python bench/leases.py --json FILE [--n N] [--max-tokens T] [--limit PROBLEMS] [--seed S]

One run, one pair of mini models, one problem at a time: what its user waits for. A problem's budget is N times the mean
length of its solutions, which N unlimited samples of another seed tell. The reference is a loop over the same policy,
PRM and seeds in which a sample sets ``max_tokens`` aside before it starts, waits until the balance covers that, and
takes what is left where nothing is in flight that could still come back, so that both spend the same. Sample i is the
same text on both sides as far as both get with it. Which side goes first alternates; both find their prompts cached.

Under leases the solver keeps 200 tokens for its last solution, as ``Solver.mini`` does.

Figures: ``wall_ratio`` (leases to reservation, of summed times), ``concurrency_ratio`` (of mean requests in flight
while there is one), ``overspent`` (problems in which either delivered more tokens than the budget);
``<figure>.leases`` and ``<figure>.reservation`` for ``accuracy``, ``seconds``, ``concurrency``, ``peak`` (mean over
problems of the most requests at once), ``finished`` (mean samples that ended by themselves), ``spent_share`` (of the
budget), ``calls``; ``accuracy.unlimited`` of the samples without a budget; ``problems``, ``n``, ``max_tokens``,
``mean_budget``.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import anyio
from measuring import LoadMeter, run_measurement, sample_of

from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.ledger import Ledger, Reservation
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.run.vote import grade, poll
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import WeightedBestOfN
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import ROOT, Prefix, Problem


@dataclass(frozen=True, slots=True)
class Try:
    """What one side made of one problem; ``right`` is 1.0 where the vote found the answer."""

    right: float
    seconds: float
    busy: float
    request_seconds: float
    peak: int
    finished: int
    tokens: int
    calls: int


class WorstCase:
    """The reference: ``n`` samples of a problem, each of which sets its longest length aside before it starts.

    Args:
        solver: whose policy and PRM are asked.
        problem: what is to be solved.
        strategy: how many samples, how long they may be, how they are drawn.
        budget: tokens.
        seed: of the run; the samples' seeds are those of the solver's.
    """

    def __init__(self, solver: Solver, problem: Problem, strategy: WeightedBestOfN, budget: int, seed: int) -> None:
        self._solver = solver
        self._problem = problem
        self._ledger = Ledger(budget)
        self._in_flight = 0
        self._came_back = anyio.Event()
        self._alike: dict[tuple[str, ...], list[Sample]] = {}
        drawn = {name: getattr(strategy, name) for name in ("max_tokens", "temperature", "top_p")}
        request = Expand(prefixes=(ROOT,), score=True, **drawn)
        prompt, policy = solver.policy.encode(problem), solver.policy
        self._samples = [
            sample_of(policy, problem, prompt, request, ROOT, (index,), seed) for index in range(strategy.n)
        ]

    async def run(self) -> tuple[Prefix, ...]:
        """Start the samples in order, as the balance allows; those that have a token."""
        async with side_by_side() as tasks:
            for sample in self._samples:
                money = await self._set_aside(sample.remaining)
                if money is None:
                    break
                self._in_flight += 1
                tasks.start_soon(self._grow, sample, money)
        for first, *others in self._alike.values():
            for other in others:
                other.scores = first.scores
        return tuple(sample.child() for sample in self._samples if sample.token_ids)

    async def _set_aside(self, worst: int) -> Reservation | None:
        while (money := self._ledger.reserve(worst)) is None and self._in_flight:
            await self._came_back.wait()
        left = self._ledger.available
        return money or (self._ledger.reserve(left) if left else None)

    async def _grow(self, sample: Sample, money: Reservation) -> None:
        sampled = await self._solver.policy.sample(sample.ask(money.amount, priority=0))
        sample.absorb(sampled, money.amount)
        sample.ended = sample.ended or "budget"
        money.settle(len(sampled.token_ids))
        self._in_flight -= 1
        self._came_back.set()
        self._came_back = anyio.Event()
        alike = self._alike.setdefault(sample.steps, [])
        alike.append(sample)
        if sample.steps and alike == [sample]:  # equal ones are scored once, as the solver does
            assert self._solver.prm is not None
            scored = await self._solver.prm.score(ScoreRequest(self._problem.question, sample.steps))
            sample.scores = scored.scores


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a problem, the samples that voted, and the calls of the policy that they took."""

    answer: str | None
    prefixes: Sequence[Prefix]
    calls: int


Solve = Callable[[], Coroutine[None, None, Reply]]


async def by_leases(solver: Solver, row: Row, budget: int | None, seed: int, strategy: WeightedBestOfN) -> Reply:
    """The solver, as it is."""
    solution = await solver.solve(
        row["problem"], id=row["unique_id"], strategy=strategy, budget_tokens=budget, seed=seed
    )
    prefixes = [one.prefix for one in solution.candidates]
    return Reply(solution.answer, prefixes, solution.usage.num_calls)


async def by_reservation(solver: Solver, row: Row, budget: int, seed: int, strategy: WeightedBestOfN) -> Reply:
    """The reference, graded and voted on in the same way."""
    problem = Problem.of(row["problem"], row["unique_id"])
    prefixes = await WorstCase(solver, problem, strategy, budget, seed).run()
    _, classes = poll(await grade(prefixes, strategy, solver.grader), strategy)
    return Reply(classes[0].answer if classes else None, prefixes, calls=len(prefixes))


async def attempt(solver: Solver, meter: LoadMeter, row: Row, solve: Solve) -> Try:
    """Time one side on one problem."""
    meter.reset()
    start = time.perf_counter()
    reply = await solve()
    seconds = time.perf_counter() - start
    return Try(
        right=float(await solver.grader.equal(row["answer"], reply.answer)),
        seconds=seconds,
        busy=meter.busy,
        request_seconds=meter.request_seconds,
        peak=meter.peak,
        finished=sum(prefix.finished for prefix in reply.prefixes),
        tokens=meter.tokens,
        calls=reply.calls,
    )


async def measure(n: int, max_tokens: int, limit: int, seed: int | None) -> dict[str, float]:
    """Both sides on every problem, in turn; the figures that the module describes."""
    rows = load_problems("minimath-500", limit=limit, seed=seed)
    strategy, seed = WeightedBestOfN(n=n, max_tokens=max_tokens), seed or 0
    tries: dict[str, list[Try]] = defaultdict(list)
    budgets: list[int] = []
    async with Solver.mini() as solver:
        solver.policy = meter = LoadMeter(solver.policy)
        solver.grader.start()
        for index, row in enumerate(rows):
            unlimited = await attempt(
                solver, meter, row, partial(by_leases, solver, row, None, seed + 1_000_003, strategy)
            )
            tries["unlimited"].append(unlimited)
            budgets.append(unlimited.tokens)
            sides = {"leases": by_leases, "reservation": by_reservation}
            for name in sorted(sides, reverse=bool(index % 2)):
                solve = partial(sides[name], solver, row, budgets[-1], seed, strategy)
                tries[name].append(await attempt(solver, meter, row, solve))
    return figures_of(tries, budgets) | {"problems": len(rows), "n": n, "max_tokens": max_tokens}


def figures_of(tries: dict[str, list[Try]], budgets: Sequence[int]) -> dict[str, float]:
    """Sums and means over problems."""
    figures: dict[str, float] = {"accuracy.unlimited": fmean(one.right for one in tries["unlimited"])}
    overspent: set[int] = set()
    for name in ("leases", "reservation"):
        side = tries[name]
        figures |= {
            f"accuracy.{name}": fmean(one.right for one in side),
            f"seconds.{name}": sum(one.seconds for one in side),
            f"concurrency.{name}": sum(one.request_seconds for one in side) / sum(one.busy for one in side),
            f"peak.{name}": fmean(one.peak for one in side),
            f"finished.{name}": fmean(one.finished for one in side),
            f"spent_share.{name}": sum(one.tokens for one in side) / sum(budgets),
            f"calls.{name}": fmean(one.calls for one in side),
        }
        overspent |= {index for index, one in enumerate(side) if one.tokens > budgets[index]}
    return {
        "wall_ratio": figures["seconds.leases"] / figures["seconds.reservation"],
        "concurrency_ratio": figures["concurrency.leases"] / figures["concurrency.reservation"],
        "overspent": len(overspent),
        "mean_budget": fmean(budgets),
        **figures,
    }


if __name__ == "__main__":
    run_measurement(
        "leases",
        __doc__,
        measure,
        n=(16, "samples that the budget is for (%(default)s)"),
        max_tokens=(256, "of one solution (%(default)s)"),
        limit=(60, "problems (%(default)s)"),
        seed=(None, "draw fresh problems and other samples"),
    )
