"""Whether a long run grows or slows down: many problems from one budget, some thousand of them open at a time.

    python bench/soak.py --json FILE [--problems N] [--live K] [--budget T] [--checkpoint FILE]
    python bench/soak.py --json FILE --samples N [--problems N] [--live K]

A fake pair solves sums of a source that brings one whenever another one is settled; solutions are taken in a loop and
dropped. The first quarter of the problems, in which the pool fills up, is compared with the last one in which it is as
full. With ``--samples`` the embedded pair draws so many solutions of each of MiniMath's training problems and votes by
score, as ``adaptive-ttc export`` and ``eval`` do, which is mostly about its stored keys and values.

Figures: ``memory_first_mb`` and ``memory_last_mb``, means of the process's resident memory over the second half of the
first quarter, and over the last quarter up to where the source ends; ``memory_growth``, the share by which the second
is above the first; ``memory_peak_mb``, the most at any look; ``rate_first`` and ``rate_last`` (tokens charged per
second of processor time over the same: late problems get more samples, and others may work on the machine);
``slowdown``, the share by which the second is under the first; ``problems``, ``answered``, ``right`` (shares),
``spent``, ``overspent`` (tokens beyond the budget: always 0), ``live`` (problems open at most). Exit code 1 where
memory grew, or the rate fell, by more than a tenth.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from measuring import parser_of, report

from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.evaluation.evaluate import Outcome, solve_rows
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

MOST = 0.1
"""Share by which memory may grow, and the rate may fall."""


@dataclass(frozen=True, slots=True)
class Look:
    """After so many settled problems."""

    settled: int
    seconds: float  # of processor time since the run began
    memory: int  # bytes
    spent: int  # tokens charged


class Forgetful(FakePolicy):
    """Keeps no list of its requests."""

    async def sample(self, request: SampleRequest) -> Sampled:
        """As the fake policy."""
        self.requests.clear()
        return await super().sample(request)


class ForgetfulPRM(FakePRM):
    """Keeps no list of its requests."""

    async def score(self, request: ScoreRequest) -> Scored:
        """As the fake PRM."""
        self.requests.clear()
        return await super().score(request)


def question(number: int) -> str:
    """A sum, hard or easy."""
    chances = random.Random(number)
    return "Add " + " + ".join(str(chances.randint(1, 999)) for _ in range(chances.randint(2, 4))) + "."


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def soak(problems: int, live: int, budget: int, checkpoint: str | None) -> tuple[dict[str, Any], list[Look]]:
    """Solve them all; figures, and looks along the way."""
    begun = settled = most = right = answered = 0

    async def source() -> AsyncIterator[Problem]:
        nonlocal begun, most
        for number in range(problems):
            begun += 1
            most = max(most, begun - settled)
            yield Problem.of(question(number), str(number))

    looks: list[Look] = []
    started = time.process_time()
    policy = Forgetful.generative(error_rate=0.05, turn_tokens=4096, max_batch=live)
    async with Solver(policy, ForgetfulPRM.truthful(toy_right_so_far)) as solver:
        asked: dict[str, Any] = {"budget_tokens": budget * problems, "max_concurrency": live, "expected": problems}
        async with solver.solve_many(source(), checkpoint=checkpoint, **asked) as pool:
            async for solution in pool:
                settled += 1
                answered += solution.answer is not None
                right += solution.answer == toy_answer(solution.problem.question)
                if settled % max(1, problems // 400) == 0:
                    looks.append(Look(settled, time.process_time() - started, resident(), pool.spent))
        figures = {"problems": settled, "answered": answered / settled, "right": right / settled, "live": most}
        return figures | {"spent": pool.spent, "overspent": max(0, pool.spent - budget * problems)}, looks


async def soak_pair(problems: int, live: int, samples: int) -> tuple[dict[str, Any], list[Look]]:
    """Draw so many solutions of them all with the embedded pair; the same figures, but for those of a budget."""
    rows = load_problems("minimath-train", problems)
    right = answered = spent = 0
    looks: list[Look] = []
    started = time.process_time()

    def report(outcome: Outcome) -> None:
        nonlocal right, answered, spent
        if outcome.error is not None:
            raise outcome.error
        assert outcome.solution is not None
        right, answered = right + bool(outcome.correct), answered + (outcome.solution.answer is not None)
        spent += outcome.solution.spent
        looks.append(Look(len(looks) + 1, time.process_time() - started, resident(), spent))

    async with Solver.mini(seed=1) as solver:
        request = {"strategy": "weighted_best_of_n", "n": samples}
        await solve_rows(solver, rows, request, report, concurrency=live)
    figures = {"problems": len(looks), "answered": answered / len(looks), "right": right / len(looks), "live": live}
    return figures | {"spent": spent, "overspent": 0}, looks


def compared(looks: list[Look], problems: int, live: int) -> dict[str, float]:
    """The first quarter beside the last."""
    first = [one for one in looks if problems / 8 <= one.settled <= problems / 4]
    last = [one for one in looks if 3 * problems / 4 <= one.settled <= problems - live]
    memory = [fmean(one.memory for one in part) / 1e6 for part in (first, last)]
    rate = [(part[-1].spent - part[0].spent) / (part[-1].seconds - part[0].seconds) for part in (first, last)]
    return {
        "memory_first_mb": memory[0],
        "memory_last_mb": memory[1],
        "memory_peak_mb": max(one.memory for one in looks) / 1e6,
        "memory_growth": memory[1] / memory[0] - 1,
        "rate_first": rate[0],
        "rate_last": rate[1],
        "slowdown": 1 - rate[1] / rate[0],
    }


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--problems", "--limit", type=int, help="default: 20000, of the embedded pair 600")
    parser.add_argument("--live", type=int, help="problems open at once (default: 2000, of the embedded pair 64)")
    parser.add_argument("--samples", type=int, metavar="N", help="of the embedded pair, of each problem")
    parser.add_argument("--budget", type=int, default=200, help="tokens for each problem, on average")
    parser.add_argument("--checkpoint", metavar="FILE", help="keep one meanwhile")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    gc.collect()
    return exit_code(lambda: run(options), interrupted="nothing is kept")


def run(options: argparse.Namespace) -> int:
    pair = options.samples is not None
    problems, live = options.problems or (600 if pair else 20_000), options.live or (64 if pair else 2_000)
    if pair:
        figures, looks = interruption.run(soak_pair, problems, live, options.samples)
    else:
        figures, looks = interruption.run(soak, problems, live, options.budget, options.checkpoint)
    figures |= compared(looks, problems, live)
    report(options.json, "soak", figures)
    return int(figures["memory_growth"] > MOST or figures["slowdown"] > MOST or figures["overspent"] > 0)


if __name__ == "__main__":
    sys.exit(main())
