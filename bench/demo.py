"""The demonstration: three problems with their votes, then accuracy against generated tokens, with the mini models.

Everything is measured here and now: one pool of 64 samples of each of 100 test problems, which the
policy writes and the PRM scores; the accuracy at N is the expectation over draws of N samples from the pool.
Figures: ``accuracy.<strategy>.<n>``, ``low.<strategy>.<n>``, ``high.<strategy>.<n>`` (95 % bootstrap
interval over problems), ``generated_tokens.<n>`` (a problem), ``problems``, ``samples``, ``wall_time``;
strategies ``majority`` and ``weighted_best_of_n``, N = 1, 4, 16, 64.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import parser_of, progress_bar, write_report
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptive_ttc.calibration.pareto.plots import Curve, draw_curves, save, styled
from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.cli.solve import classes_table
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import Pool, draw_pools
from adaptive_ttc.evaluation.metrics import interval
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.tree_text import printable

STRATEGIES = ("majority", "weighted_best_of_n")
SIZES = (1, 4, 16, 64)
SHOWN_LEVELS = (1, 3, 5)
SHOWN_SAMPLES = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 130 after Ctrl-C."""
    parser = parser_of("Solve held-out problems with the mini models, within a budget.")
    parser.add_argument("--limit", type=int, default=100, metavar="K", help="problems of the curve (%(default)s)")
    parser.add_argument("--seed", type=int, help="draw fresh problems and other samples")
    parser.add_argument("--picture", type=Path, default=Path("demo_output/accuracy.png"), metavar="FILE")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of reading two small files are noise here
    return exit_code(lambda: run(options, Console()), interrupted="nothing is kept", impossible=())


def run(options: argparse.Namespace, console: Console) -> None:
    """Measure, then print, draw and write."""
    started = time.perf_counter()
    rows = load_problems("minimath-500", limit=None, seed=options.seed)
    pools = interruption.run(measure, Solver.mini(seed=options.seed or 0), rows, options.limit, console)
    curves = [curve_of(pools, strategy) for strategy in STRATEGIES]
    console.print(table_of(curves, len(pools)))
    picture = draw(curves, len(pools), options.picture)
    seconds = time.perf_counter() - started
    console.print(Text(f"{picture} is drawn. {seconds:.0f} s in all."))
    write_report(options.json, "demo", figures_of(curves, len(pools), seconds))


async def measure(solver: Solver, rows: Sequence[Row], limit: int, console: Console) -> list[Pool]:
    """Show three problems, then draw the pools of the first ``limit``; closes the solver."""
    async with solver:
        for row in shown_rows(rows):
            await show_votes(solver, row, console)
        with progress_bar(console) as progress:
            task = progress.add_task(f"{max(SIZES)} samples of each problem", total=len(rows[:limit]))
            return await draw_pools(solver, rows[:limit], max(SIZES), lambda _: progress.advance(task))


def shown_rows(rows: Sequence[Row]) -> list[Row]:
    """One problem of each shown level, of different subjects."""
    chosen: list[Row] = []
    for level in SHOWN_LEVELS:
        subjects = {row["subject"] for row in chosen}
        chosen.append(next(row for row in rows if row["level"] == level and row["subject"] not in subjects))
    return chosen


async def show_votes(solver: Solver, row: Row, console: Console) -> None:
    """Solve one problem and print its answer classes."""
    solution = await solver.solve(
        row["problem"], id=row["unique_id"], strategy="weighted_best_of_n", n=SHOWN_SAMPLES, budget_tokens=4000
    )
    right = await solver.grader.equal(row["answer"], solution.answer)
    console.rule(f"level {row['level']}, {row['subject']}", align="left")
    console.print(Text(row["problem"]))
    verdict = ("right", "green") if right else (f"wrong: it is {row['answer']}", "red")
    answer = printable(solution.answer or "none")
    tokens = f"   {solution.strategy.n} samples, {solution.usage.completion_tokens:,} tokens"
    console.print(Text.assemble("Answer: ", (answer, "bold"), "   ", verdict, (tokens, "dim")))
    console.print(classes_table(solution))


def curve_of(pools: Sequence[Pool], strategy: str) -> Curve:
    """Accuracy and cost at every N."""
    intervals = [interval([pool.accuracy(strategy, n, seed=i) for i, pool in enumerate(pools)]) for n in SIZES]
    tokens = sum(float(pool.tokens.mean()) for pool in pools) / len(pools)
    return Curve.of(strategy, [n * tokens for n in SIZES], intervals, [f"N={n}" for n in SIZES])


def table_of(curves: Sequence[Curve], problems: int) -> Table:
    """What the picture shows, in numbers."""
    table = Table("strategy", title=f"{problems} MiniMath test problems", title_justify="left")
    for name in ("N", "accuracy [95 % interval]", "tokens a problem"):
        table.add_column(name, justify="right")
    for curve in curves:
        for n, cost, mean, low, high in zip(SIZES, curve.cost, curve.accuracy, curve.low, curve.high, strict=True):
            accuracy = Text(f"{mean:.3f} [{low:.3f}, {high:.3f}]")
            table.add_row(curve.strategy, str(n), accuracy, f"{cost:,.0f}", end_section=n == SIZES[-1])
    return table


def draw(curves: Sequence[Curve], problems: int, path: Path) -> Path:
    """Write the picture."""
    with styled() as (figure, axes):
        draw_curves(axes, curves)
        axes.set_title(f"Accuracy against generated tokens, {problems} MiniMath test problems")
        save(figure, path)
    return path


def figures_of(curves: Sequence[Curve], problems: int, seconds: float) -> dict[str, float]:
    """The figures that the module describes."""
    figures: dict[str, float] = {"problems": problems, "samples": max(SIZES), "wall_time": seconds}
    for index, n in enumerate(SIZES):
        figures[f"generated_tokens.{n}"] = curves[0].cost[index]
        for curve in curves:
            figures[f"accuracy.{curve.strategy}.{n}"] = curve.accuracy[index]
            figures[f"low.{curve.strategy}.{n}"] = curve.low[index]
            figures[f"high.{curve.strategy}.{n}"] = curve.high[index]
    return figures


if __name__ == "__main__":
    sys.exit(main())
