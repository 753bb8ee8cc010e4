"""Fixed strategies give the solutions that were recorded: 50 problems, six strategies, the embedded pair, one seed.

``python -m tests.test_same_solutions`` records them anew; do that only where sampling is meant to change.
"""

import asyncio
import hashlib
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from adaptive_ttc import Solver

RECORD = Path(__file__).parent / "recorded_solutions.json"
BUDGET = 500
STRATEGIES = {
    "greedy": {},
    "majority": {"n": 4},
    "best_of_n": {"n": 4},
    "weighted_best_of_n": {"n": 4},
    "beam_search": {"n": 4, "beam_width": 2},
    "dvts": {"n": 4, "beam_width": 2},
}
OTHER_PROCESSOR = 6
"""Most solutions, of 300, in which another processor's rounding may turn a token."""


def problems():
    return [json.loads(line) for line in (Path(__file__).parent / "recorded_problems.jsonl").read_text().splitlines()]


async def solve_all(strategies):
    found = {}
    async with Solver.mini(seed=5) as solver:
        for strategy in strategies:
            work = [
                solver.solve(
                    row["problem"], id=row["id"], strategy=strategy, budget_tokens=BUDGET, **STRATEGIES[strategy]
                )
                for row in problems()
            ]
            found[strategy] = [seen(solution) for solution in await asyncio.gather(*work)]
    return found


def solved(strategies):
    return asyncio.run(solve_all(strategies))


def solved_on_two_cores():
    names = list(STRATEGIES)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        half = other.submit(solved, names[1::2])
        return {**solved(names[::2]), **half.result()}


def seen(solution):
    drawn = [
        (one.prefix.path, one.prefix.token_ids, one.prefix.finish, len(one.prefix.scores))
        for one in solution.candidates
    ]
    digest = hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]
    return [solution.answer, solution.spent, digest]


@pytest.mark.timeout(600)  # half a minute on idle cores
def test_the_same_seed_gives_the_recorded_solutions():
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    found = solved_on_two_cores()
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(STRATEGIES, 50)
    different = [
        (name, number, was, now)
        for name in STRATEGIES
        for number, (was, now) in enumerate(zip(recorded[name], found[name], strict=True))
        if was != now
    ]
    assert len(different) <= OTHER_PROCESSOR, different


if __name__ == "__main__":
    text = json.dumps(dict(sorted(solved(list(STRATEGIES)).items())), indent=0)
    RECORD.write_text(text + "\n", encoding="utf-8")
