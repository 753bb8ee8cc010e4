"""Whether a run that is killed again and again loses anything: one call of ``solve_many`` with a checkpoint.

    python bench/kills.py --json FILE [--kills K] [--problems N] [--budget T] [--concurrency C] [--seed S]

A process solves sums with a fake pair and tells of every reply and every solution; it gets ``kill -9`` after a random
number of these lines, wherever it is then, and the same call is made again, until it has been killed so often; the last
one is left to its end. The tokens that the engine has delivered are counted from what the processes told.

Figures: ``kills``, ``problems``; ``settled_lost``, solutions that were told before a kill, and not the same again
(always 0); ``missing``, problems without a solution in the end (always 0); ``answered``, the share with an answer;
``overspent``, tokens that were charged, or delivered, beyond the budget (always 0); ``uncounted``, tokens delivered
and not charged (always 0); ``spent``; ``lost``, tokens charged that no process was told of: what was in flight when it
was killed, at most; ``lost_a_kill``; ``again_calls``, engine calls of the same call made once more (always 0). Exit
code 1 where one of the zeros is none.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import parser_of, report

from adaptive_ttc.cli import exit_code
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.checkpoint import Checkpoint
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

ZEROS = ("settled_lost", "missing", "overspent", "uncounted", "again_calls")


@dataclass(frozen=True, slots=True)
class Call:
    """The call that is made again and again."""

    file: str  # its checkpoint
    problems: int
    budget: int
    concurrency: int


class Telling(FakePolicy):
    """Writes a line on every reply to ``line``."""

    line: int

    async def sample(self, request: SampleRequest) -> Sampled:
        """As the fake policy."""
        sampled = await super().sample(request)
        os.write(self.line, f"[{len(sampled.token_ids)}]\n".encode())
        return sampled


async def solve(call: Call, line: int) -> None:
    """Make the call; a line for every reply and every solution."""
    policy = Telling.generative(error_rate=0.05)
    policy.line = line
    chances = random.Random(0)
    sums = [" + ".join(str(chances.randint(1, 99)) for _ in range(chances.randint(2, 4))) for _ in range(call.problems)]
    problems = [Problem.of(f"Add {one}.", str(number)) for number, one in enumerate(sums)]
    asked: dict[str, Any] = {"budget_tokens": call.budget, "max_concurrency": call.concurrency, "max_tokens": 120}
    async with Solver(policy, FakePRM.truthful(toy_right_so_far)) as solver:
        async for one in solver.solve_many(problems, checkpoint=call.file, **asked):
            told = [one.problem.id, one.answer, one.spent, [candidate.prefix.path for candidate in one.candidates]]
            os.write(line, (json.dumps(told) + "\n").encode())


def made(call: Call, lines: int | None) -> Iterator[list[Any]]:
    """Make the call in a process, and kill it after so many lines (None: never); what it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            asyncio.run(solve(call, writing))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="ascii") as told:
        for number, line in enumerate(told):
            if number == lines:
                os.kill(child, signal.SIGKILL)
            yield json.loads(line)
    _, status = os.waitpid(child, 0)
    if lines is None and status != 0:
        raise RuntimeError(f"the process failed: status {status}")


def measure(kills: int, problems: int, budget: int, concurrency: int, seed: int, folder: Path) -> dict[str, float]:
    """Kill it so often, let it end, make the call once more; the figures."""
    chances = random.Random(seed)
    call = Call(str(folder / "run.db"), problems, budget, concurrency)
    told: dict[str, list[Any]] = {}
    counts: Counter[str] = Counter()
    for left in range(kills, -2, -1):
        before = counts["calls"]
        for one in made(call, chances.randint(1, max(2, 8 * problems // max(1, kills))) if left > 0 else None):
            if len(one) == 1:
                counts["delivered"] += one[0]
                counts["calls"] += 1
            else:
                counts["settled_lost"] += told.setdefault(one[0], one) != one
                counts["kept"] += 1
    with Checkpoint(call.file) as file:
        spent = file.spent
    return {
        "kills": kills,
        "problems": problems,
        "settled_lost": counts["settled_lost"],
        "missing": problems - len(told),
        "answered": sum(one[1] is not None for one in told.values()) / problems,
        "overspent": max(0, spent - budget),
        "uncounted": max(0, counts["delivered"] - spent),
        "spent": spent,
        "lost": spent - counts["delivered"],
        "lost_a_kill": (spent - counts["delivered"]) / max(1, kills),
        "again_calls": counts["calls"] - before,
    }


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--kills", "--limit", type=int, default=50)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--budget", type=int, default=300, help="tokens for each problem, on average")
    parser.add_argument("--concurrency", type=int, default=2, help="slices in flight")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    return exit_code(lambda: run(options), interrupted="nothing is kept")


def run(options: Any) -> int:
    warnings.simplefilter("ignore")
    budget = options.budget * options.problems
    with tempfile.TemporaryDirectory() as folder:
        asked = (options.kills, options.problems, budget, options.concurrency, options.seed)
        figures = measure(*asked, Path(folder))
    report(options.json, "kills", figures)
    return int(any(figures[name] for name in ZEROS))


if __name__ == "__main__":
    sys.exit(main())
