"""What it costs to settle a problem before the others: the price that a pool may still reach, at several shares of it.

    python bench/settling.py --traces FILE... --json FILE [--budgets MEANS] [--seeds S] [--reach SHARES]

Problems with recorded samples share one budget of so many mean samples each. A problem that waits is settled when it is
not worth ``reach`` times the price at which all that is not spent would be wanted; with 0 it waits to the end.

Figures, a list over ``reach`` each, means over files, budgets and seeds: ``accuracy``; ``spent``, the share of the
budget; ``settled_at``, the share of what is spent in the end that was spent when a problem was settled, on average.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Sequence
from statistics import fmean

from measuring import parser_of, report

from adaptive_ttc.allocation import allocator
from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.traces import read_trace_files
from adaptive_ttc.loading import REPLAY
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem


async def settle(file: str, rows: Sequence[Row], budget: int, seed: int) -> dict[str, float]:
    """One pool."""
    async with Solver.load(file, engine=REPLAY, policy_settings={"seed": seed}) as solver:
        problems = [Problem.of(row["problem"], row["unique_id"]) for row in rows]
        gold = {row["unique_id"]: row["answer"] for row in rows}
        right, when = 0, []
        async with solver.solve_many(problems, budget_tokens=budget, seed=seed) as pool:
            async for solution in pool:
                when.append(pool.spent)
                right += await solver.grader.equal(gold[solution.problem.id], solution.answer)
    return {
        "accuracy": right / len(rows),
        "spent": pool.spent / budget,
        "settled_at": fmean(when) / pool.spent,
    }


def mean_sample(file: str) -> float:
    """Tokens of a mean sample."""
    problems = read_trace_files(file).problems
    return fmean(one.tokens for problem in problems for one in problem.samples)


async def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {name: [] for name in ("reach", "accuracy", "spent", "settled_at")}
    for share in options.reach:
        allocator.REACH = share
        runs = []
        for file in options.traces:
            rows, mean = load_problems(file, None, None), mean_sample(file)
            for budget, seed in itertools.product(options.budgets, range(options.seeds)):
                runs.append(await settle(file, rows, int(budget * mean * len(rows)), seed))
        figures["reach"].append(share)
        for name in runs[0]:
            figures[name].append(fmean(one[name] for one in runs))
    return figures


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--traces", nargs="+", required=True, metavar="FILE", help="recorded samples")
    parser.add_argument("--budgets", nargs="+", type=float, default=[2.0, 4.0, 8.0], help="mean samples a problem")
    parser.add_argument("--seeds", type=int, default=2, help="orders of the samples")
    parser.add_argument(
        "--reach", nargs="+", type=float, default=[0.0, 0.25, 0.5, 0.75, 1.0], help="shares of the price"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    return exit_code(
        lambda: report(options.json, "settling", interruption.run(measure, options)), interrupted="nothing is kept"
    )


if __name__ == "__main__":
    sys.exit(main())
