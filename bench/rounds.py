"""Wall time and tokens of adaptive runs beside weighted best-of-N of the same tokens, live, on the embedded pair.

    python bench/rounds.py [--limit PROBLEMS] [--budget TOKENS] [--each 1] [--rounds R] [--seed S] [--json FILE]

All problems are there from the start, and the engine is idle and new. Three ways are measured in turn, on other
problems every round: ``adaptive`` (units side by side where a problem is far from stopping and places are idle),
``one_at_a_time`` (one tree after another) and ``best_of_n``, weighted, of about as many tokens as ``adaptive`` took.
The adaptive ways have one budget over all problems, or with ``--each 1`` one for each.

Figures: ``tokens_ratio`` (adaptive to one at a time), ``wall_ratio`` (seconds a token, adaptive to best-of-N),
``wall_ratio_one_at_a_time`` (the same of one at a time), ``cpu_ratio`` and ``cpu_ratio_one_at_a_time`` (the same in
CPU seconds of this process, which other processes disturb less), each from the sums over all rounds; and of every way
``tokens.<way>``, ``seconds.<way>``, ``cpu.<way>``, ``accuracy.<way>``, ``slices.<way>`` (the most of a problem, mean
over the rounds), and ``cpu_us.<way>.<thread>``, microseconds of CPU a token in the threads of the ``policy``, of the
``prm`` and of the event ``loop`` (decisions and most forecasts are made there).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from unittest.mock import patch

from measuring import run_measurement

from adaptive_ttc.allocation import options
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.events import SearchEvent
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

WAYS = ("adaptive", "one_at_a_time", "best_of_n")
THREADS = {"policy": "policy ", "prm": "PRM ", "loop": "MainThread"}
"""What a thread of such a name does."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One round of one way."""

    solutions: list[Solution]
    seconds: float
    cpu: float  # seconds
    accuracy: float
    threads: Mapping[str, float] = field(default_factory=dict)  # CPU seconds of each of THREADS

    @property
    def tokens(self) -> int:
        """Generated."""
        return sum(one.usage.completion_tokens for one in self.solutions)

    @property
    def slices(self) -> int:
        """The most of a problem."""
        return max(sum(event.strategy == "slice" for event in one.trace.of(SearchEvent)) for one in self.solutions)


async def timed(rows: Sequence[Row], solve: Callable[[Solver, list[Problem]], Awaitable[list[Solution]]]) -> Ran:
    """Run one way with models of its own, whose caches know none of the problems, then grade it."""
    async with Solver.mini() as solver:
        others = load_problems("minimath-train", 4, 0)  # code and models are warm, and no cache knows the problems
        await solver.solve_many([row["problem"] for row in others], budget_tokens=2_000)
        problems = [Problem.of(row["problem"], row["unique_id"]) for row in rows]
        wall, cpu, threads = time.perf_counter(), time.process_time(), thread_seconds()
        solutions = await solve(solver, problems)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        threads = {name: seconds - threads[name] for name, seconds in thread_seconds().items()}
        pairs = zip(rows, solutions, strict=True)
        right = [one.answer is not None and await solver.grader.equal(row["answer"], one.answer) for row, one in pairs]
    return Ran(solutions, wall, cpu, fmean(right), threads)


def thread_seconds() -> dict[str, float]:
    """CPU seconds of each of :data:`THREADS` so far."""
    found = dict.fromkeys(THREADS, 0.0)
    for thread in threading.enumerate():
        for name, begins in THREADS.items():
            if thread.ident is not None and thread.name.startswith(begins):
                found[name] += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found


async def adaptive(solver: Solver, problems: Sequence[Problem], budget: int, each: int, seed: int) -> list[Solution]:
    """One budget over all problems, or one for each."""
    if each:
        return list(await asyncio.gather(*(solver.solve(one, budget_tokens=budget, seed=seed) for one in problems)))
    return await solver.solve_many(problems, budget_tokens=budget * len(problems), seed=seed)


async def best_of(solver: Solver, problems: Sequence[Problem], n: int, seed: int) -> list[Solution]:
    """Weighted best-of-N, all problems at once."""
    return list(await asyncio.gather(*(solver.solve(one, n=n, seed=seed) for one in problems)))


async def one_round(rows: Sequence[Row], budget: int, each: int, seed: int) -> dict[str, Ran]:
    """All ways on the same problems."""
    run = await timed(rows, lambda solver, problems: adaptive(solver, problems, budget, each, seed))
    with patch.multiple(options, FAR=-1.0, GROWTH=0.0):
        single = await timed(rows, lambda solver, problems: adaptive(solver, problems, budget, each, seed))
    lengths = [len(one.prefix.token_ids) for solution in run.solutions for one in solution.candidates]
    n = max(1, round(run.tokens / len(rows) / fmean(lengths)))
    wide = await timed(rows, lambda solver, problems: best_of(solver, problems, n, seed))
    return dict(zip(WAYS, (run, single, wide), strict=True))


async def measure(*, limit: int, budget: int, each: int, rounds: int, seed: int) -> dict[str, float]:
    """All rounds."""
    found: dict[str, list[Ran]] = {way: [] for way in WAYS}
    for number in range(rounds):
        rows = load_problems("minimath-500", limit, seed + number)
        for way, ran in (await one_round(rows, budget, each, seed + number)).items():
            found[way].append(ran)
    return figures(found)


def figures(found: dict[str, list[Ran]]) -> dict[str, float]:
    """Ratios, then sums and means of every way."""
    tokens, seconds, cpu = (
        {way: sum(getattr(one, name) for one in runs) for way, runs in found.items()}
        for name in ("tokens", "seconds", "cpu")
    )

    def ratio(of: dict[str, float], way: str) -> float:
        return of[way] / tokens[way] / (of["best_of_n"] / tokens["best_of_n"])

    shown = {
        "tokens_ratio": tokens["adaptive"] / tokens["one_at_a_time"],
        "wall_ratio": ratio(seconds, "adaptive"),
        "wall_ratio_one_at_a_time": ratio(seconds, "one_at_a_time"),
        "cpu_ratio": ratio(cpu, "adaptive"),
        "cpu_ratio_one_at_a_time": ratio(cpu, "one_at_a_time"),
    }
    for way, runs in found.items():
        shown |= {f"tokens.{way}": tokens[way], f"seconds.{way}": seconds[way], f"cpu.{way}": cpu[way]}
        for name in runs[0].threads:
            shown[f"cpu_us.{way}.{name}"] = 1e6 * sum(one.threads[name] for one in runs) / tokens[way]
        shown |= {f"accuracy.{way}": fmean(one.accuracy for one in runs)}
        shown |= {f"slices.{way}": fmean(one.slices for one in runs)}
    return shown


if __name__ == "__main__":
    run_measurement(
        "rounds",
        __doc__,
        measure,
        limit=(32, "problems (%(default)s)"),
        budget=(600, "generated tokens a problem (%(default)s)"),
        each=(0, "1: a budget for each problem, not one over all (%(default)s)"),
        rounds=(2, "%(default)s"),
        seed=(50, "of problems and samples (%(default)s)"),
    )
