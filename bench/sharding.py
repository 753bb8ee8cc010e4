"""What it costs to solve problems in parts, each with a share of the budget, in place of one pool: accuracy, by parts.

    python bench/sharding.py --json FILE [--limit PROBLEMS] [--parts 4,16,64] [--samples 4] [--seeds 1]

The real solver with simulated problems (``simulation/population.py``: pass rates and wrong answers from the shipped
prior over real models) and one simulated replica; no calibration: agreement decides. All sides are given the same
problems, seeds and budget, and a problem's samples are the same on all of them, as far as each draws them.

- ``pool``: one ``solve_many`` for all problems; ``uniform``: the same by the rule ``uniform``.
- ``split``: parts of random problems, each with an equal share of the budget; what a part does not spend is lost.
- ``leased``: the same parts from one ``SharedBudget``, four at a time: each leases its share of what is left.
- ``sorted_split``, ``sorted_leased``: parts of problems of like pass rates, the hardest first, of the middle number of
  parts: what happens to a set that is cut as it lies.

Figures: ``accuracy.pool``, ``spent_share.pool``; ``accuracy.<side>.<parts>``, ``spent_share.<side>.<parts>``,
``less_pool.<side>.<parts>`` (points of accuracy, with ``.error``, the standard error over problems, which are paired);
``overspent`` units on any side; ``problems``, ``budget``.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean, pstdev

from measuring import run_measurement
from simulation.engines import Profile, SimulatedPolicy
from simulation.population import Population
from simulation.run import in_a_thread, on_virtual_clock

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import CalibrationWarning
from adaptive_ttc.run.shared_budget import SharedBudget
from adaptive_ttc.solver import Solver

_ENGINE = Profile(base=0.005, row=0.0001, slots=64)
_AT_ONCE = 4  # parts that run side by side


@dataclass(frozen=True, slots=True)
class Solved:
    """1 for every problem that was solved rightly, 0 for others, by number, and the units that it took together."""

    right: dict[int, int]
    spent: int


def pool(population: Population, seed: int, numbers: Sequence[int], budget: int, *, rule: str | None = None) -> Solved:
    """One pool of these problems, by a published rule or, without one, by agreement."""

    async def work() -> Solved:
        policy = SimulatedPolicy(population, _ENGINE, 1)
        config = DriverConfig(finish_tokens=round(4 * population.tokens))
        async with Solver(policy, seed=seed, config=config, rule=rule) as solver:
            problems = [population.problem(number) for number in numbers]
            running = solver.solve_many(
                problems, budget_tokens=budget, max_concurrency=_ENGINE.slots, keep_traces=False
            )
            solutions = await running
        answers = zip(numbers, solutions, strict=True)
        assert policy.tokens == running.spent
        return Solved({one: int(found.answer == population.answer(one)) for one, found in answers}, running.spent)

    return on_virtual_clock(work)


def in_parts(parts: Sequence[Sequence[int]], budget: int, solve: Callable[[Sequence[int], int], Solved]) -> Solved:
    """Parts with equal shares of the budget."""
    each = budget // len(parts)
    return _together([solve(part, each) for part in parts])


def leased(parts: Sequence[Sequence[int]], budget: int, solve: Callable[[Sequence[int], int], Solved]) -> Solved:
    """Parts from one shared budget; as if so many were at work at once, each begins when an earlier one has settled."""
    found: list[Solved] = []
    with SharedBudget(":memory:", budget, [len(part) for part in parts]) as shared:
        units: list[int] = []
        for number in range(len(parts)):
            while len(units) < min(len(parts), number + _AT_ONCE):
                units.append(shared.lease(len(units)))
            found.append(solve(parts[number], units[number]))
            shared.settle(number, found[-1].spent)
    return _together(found)


def cut(numbers: Sequence[int], parts: int) -> list[Sequence[int]]:
    """So many parts, of neighbours, as equal as can be."""
    edges = [len(numbers) * one // parts for one in range(parts + 1)]
    return [numbers[begin:end] for begin, end in pairwise(edges)]


def sides(population: Population, limit: int, parts: Sequence[int], budget: int, seed: int) -> dict[str, Solved]:
    """All sides, on the problems of one seed."""
    shuffled = random.Random(seed).sample(range(limit), limit)
    ordered = sorted(range(limit), key=lambda one: population.nature(one).right)
    middle = sorted(parts)[len(parts) // 2]
    solve = partial(pool, population, seed)
    found = {"pool": solve(shuffled, budget), "uniform": solve(shuffled, budget, rule="uniform")}
    for name, numbers, count in (*(("", shuffled, one) for one in parts), ("sorted_", ordered, middle)):
        found[f"{name}split.{count}"] = in_parts(cut(numbers, count), budget, solve)
        found[f"{name}leased.{count}"] = leased(cut(numbers, count), budget, solve)
    return found


def compared(limit: int, parts: Sequence[int], samples: float, tokens: float, seeds: int) -> dict[str, float]:
    """The figures, over problems of so many seeds."""
    budget = round(limit * samples * tokens)
    found = [sides(Population(tokens=tokens, seed=seed), limit, parts, budget, seed) for seed in range(seeds)]
    figures: dict[str, float] = {"problems": limit * seeds, "budget": budget * seeds}
    for side in found[0]:
        runs = [one[side] for one in found]
        figures[f"accuracy.{side}"] = fmean(value for run in runs for value in run.right.values())
        figures[f"spent_share.{side}"] = sum(run.spent for run in runs) / (budget * seeds)
        if side != "pool":
            less = [100 * (one[side].right[key] - one["pool"].right[key]) for one in found for key in one[side].right]
            figures[f"less_pool.{side}"] = fmean(less)
            figures[f"less_pool.{side}.error"] = pstdev(less) / math.sqrt(len(less))
    return figures | {"overspent": sum(max(0, run.spent - budget) for one in found for run in one.values())}


def _together(parts: Sequence[Solved]) -> Solved:
    right = {number: value for part in parts for number, value in part.right.items()}
    return Solved(right, sum(part.spent for part in parts))


async def measure(*, limit: int, parts: str, samples: float, tokens: float, seeds: int) -> dict[str, float]:
    """All figures."""
    numbers = [int(one) for one in parts.split(",")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # that there is none
        return await in_a_thread(lambda: compared(limit, numbers, samples, tokens, seeds))


if __name__ == "__main__":
    run_measurement(
        "sharding",
        __doc__,
        measure,
        limit=(1024, "problems of a seed (%(default)s)"),
        parts=("4,16,64", "numbers of parts (%(default)s)"),
        samples=(4.0, "mean solutions of a problem that the budget pays for (%(default)s)"),
        tokens=(55.0, "mean of a solution (%(default)s)"),
        seeds=(1, "sets of problems (%(default)s)"),
    )
