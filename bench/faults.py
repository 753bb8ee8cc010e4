"""What failing engines cost: a pool of sums from the toy policy, whose calls fail in every way, in virtual time.

    python bench/faults.py --json FILE [--problems N] [--rate R] [--kinds KIND ...]

Every kind of fault of :mod:`adaptive_ttc.policies.faulty` strikes a share of the policy's calls, or of the PRM's; then
the policy is out for 1 and for 5 seconds, as a client of HTTP servers sees it: ``lost`` for 500s and dropped
connections, ``unavailable`` for 503s, ``hang`` for servers that say nothing. A row for each: ``answered`` problems and
the share of ``right`` ones, ``errors`` (problems with a named error), ``lost`` (share of the budget), and what must be
0: ``silent`` (neither answer nor reason), ``overspent`` and ``open`` reservations.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from measuring import parser_of, report

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import CalibrationWarning
from adaptive_ttc.policies.fake import FakePolicy, VirtualTimeLoop, toy_right_so_far
from adaptive_ttc.policies.faulty import POLICY_FAULTS, PRM_FAULTS, Fault, FaultyPolicy, FaultyPRM
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

EACH = 200  # units of the budget for a problem
OUTAGES = ("lost", "unavailable", "hang")


def cases(rate: float, kinds: Sequence[str]) -> Iterator[tuple[str, list[Fault], list[Fault]]]:
    """Name, faults of the policy and of the PRM."""
    yield "none", [], []
    for kind in POLICY_FAULTS:
        yield f"policy {kind}", [Fault(kind=kind, rate=rate, during=(0, 3600) if kind == "death" else None)], []
    for kind in PRM_FAULTS:
        yield f"prm {kind}", [], [Fault(kind=kind, rate=rate)]
    for seconds in (1.0, 5.0):
        for kind in OUTAGES:
            if not kinds or kind in kinds:
                yield f"outage {seconds:g} s {kind}", [Fault(kind=kind, during=(0.05, 0.05 + seconds))], []


async def solve(problems: int, of_policy: Sequence[Fault], of_prm: Sequence[Fault]) -> dict[str, Any]:
    """The figures of one pool."""
    sums = [(number % 50 + 1, number // 50 + 2) for number in range(problems)]
    slow = Fault(kind="slow", seconds=0.02)  # otherwise no time passes between calls
    policy = FaultyPolicy(FaultyPolicy(FakePolicy.generative(), slow), *of_policy)
    prm = FaultyPRM(FakePRM.truthful(toy_right_so_far), *of_prm)
    budget = EACH * problems
    solver = Solver(policy, prm, config=DriverConfig(call_timeout=5.0, score_timeout=5.0, grace=0.5))
    async with solver:
        pool = solver.solve_many([f"Add {a} + {b}." for a, b in sums], budget_tokens=budget, max_tokens=200)
        solutions = await pool
    ledger = pool._scheduler.ledger.statistics()
    right = [one.answer == str(a + b) for one, (a, b) in zip(solutions, sums, strict=True)]
    return {
        "answered": sum(one.answer is not None for one in solutions),
        "right": sum(right) / problems,
        "errors": sum(one.error is not None for one in solutions),
        "lost": pool.usage.lost_tokens / budget,
        "silent": sum(one.answer is None and not one.abstained for one in solutions),
        "overspent": max(0, ledger.spent - budget),
        "open": ledger.open_reservations + ledger.open_children,
    }


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--problems", "--limit", type=int, default=500)
    parser.add_argument("--rate", type=float, default=0.1, help="share of calls that are struck")
    parser.add_argument("--kinds", nargs="*", default=[], help="these alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore", CalibrationWarning)
    found: dict[str, dict[str, Any]] = {}
    for name, of_policy, of_prm in cases(options.rate, options.kinds):
        if options.kinds and name != "none" and name.split()[-1] not in options.kinds:
            continue
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            found[name] = runner.run(solve(options.problems, of_policy, of_prm))
        row = found[name]
        print(f"{name:32}", *(f"{key} {value:.3g}" for key, value in row.items()), flush=True)
    bad = sum(row["silent"] + row["overspent"] + row["open"] for row in found.values())
    figures = {f"{name}: {key}": value for name, row in found.items() for key, value in row.items()}
    report(options.json, "faults", {"problems": options.problems, "violations": bad, **figures})
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
