"""Fixed strategies give the solutions that were recorded: 50 problems, six strategies, the embedded pair, one seed.

``python -m tests.test_same_solutions`` records them anew; do that only where sampling is meant to change.
"""

import asyncio
import hashlib
import json
from pathlib import Path

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


async def solve_all():
    found = {}
    async with Solver.mini(seed=5) as solver:
        for strategy, options in STRATEGIES.items():
            work = [
                solver.solve(row["problem"], id=row["id"], strategy=strategy, budget_tokens=BUDGET, **options)
                for row in problems()
            ]
            found[strategy] = [seen(solution) for solution in await asyncio.gather(*work)]
    return found


def seen(solution):
    drawn = [
        (one.prefix.path, one.prefix.token_ids, one.prefix.finish, len(one.prefix.scores))
        for one in solution.candidates
    ]
    digest = hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]
    return [solution.answer, solution.spent, solution.usage.prm_tokens > 0, digest]


def test_the_same_seed_gives_the_recorded_solutions():
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    found = asyncio.run(solve_all())
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(STRATEGIES, 50)
    different = [
        (name, number, was, now)
        for name in STRATEGIES
        for number, (was, now) in enumerate(zip(recorded[name], found[name], strict=True))
        if was != now
    ]
    assert len(different) <= OTHER_PROCESSOR, different


if __name__ == "__main__":
    RECORD.write_text(json.dumps(asyncio.run(solve_all()), indent=0) + "\n", encoding="utf-8")
