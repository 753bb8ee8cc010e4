"""Prints the table of a calibration, and explains what it says of a difficulty and a budget; it fits nothing.

python -m adaptive_ttc.calibration.show DIR
python -m adaptive_ttc.calibration.show DIR --difficulty 3 --budget 4000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.report.tables import Grid, bin_name, choices, origin, reached, show_grid, shown_budgets
from adaptive_ttc.cli import exit_code
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.table import Choice, ComputeOptimalTable

RIVALS = 6  # arms that a lookup lists


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it: 0, or 2 where there is no calibration that can be read or what is asked for is impossible."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: run(options, Console()), impossible=(ConfigError, CalibrationError))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m adaptive_ttc.calibration.show",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("folder", type=Path, metavar="DIR", help="that adaptive-ttc calibrate has written")
    add("--difficulty", type=int, metavar="BIN", help="0 is the easiest fifth of the problems")
    add("--budget", type=float, metavar="UNITS", help="of one problem")
    return command


def run(options: argparse.Namespace, console: Console) -> None:
    """Show everything, or one lookup."""
    if options.budget is not None and options.budget <= 0:
        raise ConfigError(f"--budget {options.budget:g} must be above 0")
    calibrated = Calibrated.load(options.folder)
    weights = Weights(**calibrated.meta["weights"])
    table = calibrated.table
    if options.difficulty is None and options.budget is None:
        show_grid(choices(table, weights, shown_budgets(grid_of(table, weights))), console)
        show_grid(origin(calibrated.meta), console)
        console.print(Text(units_in_words(weights)))
        return
    budget = options.budget or max(choice.cost for choice in _choices(table, options.difficulty, weights))
    console.print(Text(difficulty_in_words(table, options.difficulty)))
    prices = {"generated": weights.generated, "prm": weights.prm}
    console.print(Text(table.explain(budget, options.difficulty, **prices)))
    show_grid(rivals(table, options.difficulty, budget, weights), console)
    console.print(Text(units_in_words(weights)))


def rivals(table: ComputeOptimalTable, difficulty: int | None, budget: float, weights: Weights) -> Grid:
    """The best arms within a budget, and the best of those beyond it."""
    within = table.lookup(budget, difficulty, generated=weights.generated, prm=weights.prm)
    names = {choice.arm.name for choice in within}
    beyond = [choice for choice in _choices(table, difficulty, weights) if choice.arm.name not in names]
    shown = [*within[:RIVALS], *beyond[:1]]
    rows = [
        (
            choice.arm.name,
            reached(table, difficulty, choice),
            f"{choice.cost:,.0f}" + ("" if choice.cost <= budget else " (beyond)"),
            f"{choice.generated:,.0f}",
            f"{choice.prm:,.0f}",
        )
        for choice in shown
    ]
    head = ("arm", "% right; measured [95 %]", "units", "generated", "PRM")
    return Grid(f"Arms within {budget:,.0f} units, the best first, and the best beyond", head, tuple(rows))


def difficulty_in_words(table: ComputeOptimalTable, difficulty: int | None) -> str:
    """Description of a bin."""
    if difficulty is None:
        return "The difficulty is not known: the bins count by how common they are."
    if not 0 <= difficulty < len(table.share):
        raise ConfigError(f"--difficulty {difficulty}: take a bin from 0 (the easiest) to {len(table.share) - 1}")
    edges = (1.0, *table.edges, 0.0)
    return (
        f"Bin {bin_name(table, difficulty)}: a single sample is right on {100 * edges[difficulty + 1]:.0f} to "
        f"{100 * edges[difficulty]:.0f} % of tries; {table.share[difficulty]:.0%} of the {table.problems} problems."
    )


def units_in_words(weights: Weights) -> str:
    """Description of a unit."""
    if not weights.prm:
        return "A unit is a generated token."
    return f"A unit is a generated token; a token that the PRM scores costs {weights.prm:g} of them."


def grid_of(table: ComputeOptimalTable, weights: Weights, points: int = 10) -> list[float]:
    """Budgets in equal ratios from the cheapest arm to the dearest."""
    costs = [choice.cost for choice in _choices(table, None, weights)]
    low, high = max(1.0, min(costs)), max(costs)
    return [low * (high / low) ** (place / (points - 1)) for place in range(points)]


def _choices(table: ComputeOptimalTable, difficulty: int | None, weights: Weights) -> list[Choice]:
    return table.choices(difficulty, generated=weights.generated, prm=weights.prm)


if __name__ == "__main__":
    sys.exit(main())
