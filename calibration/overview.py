"""Prints what a calibration found on a terminal of 80 columns; it learns and writes nothing."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptive_ttc.calibration.calibrate import Calibration
from adaptive_ttc.calibration.findings import Grid, choices, gains, sentences, shown_budgets, stages


def show_calibration(calibration: Calibration, console: Console) -> None:
    """What was learned, and how good it is on problems that were not seen."""
    weights = calibration.settings.weights
    show_grid(choices(calibration.table, weights, shown_budgets(calibration.gain.budgets)), console)
    show_grid(stages(calibration.stages), console)
    show_grid(gains(calibration), console)
    for sentence in sentences(calibration):
        console.print(Text(sentence))


def show_grid(grid: Grid, console: Console) -> None:
    """Print a table; its title stands above it, unfolded."""
    console.print(Text(grid.title, style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, name in enumerate(grid.head):
        table.add_column(name, justify="right" if index >= grid.numbers else "left", overflow="fold", no_wrap=not index)
    for number, row in enumerate(grid.rows):
        table.add_row(*map(Text, row), end_section=number in grid.sections)
    console.print(table)
