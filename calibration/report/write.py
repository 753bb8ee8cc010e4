"""Writes what a calibration found, as Markdown and as one page of HTML that needs no network; it learns nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptive_ttc.calibration.fit.pipeline import Calibration
from adaptive_ttc.calibration.report.html import page
from adaptive_ttc.calibration.report.tables import Grid, choices, gains, origin, sentences, shown_budgets, stages
from adaptive_ttc.errors import CalibrationError

MARKDOWN, PAGE = "report.md", "report.html"


def write_reports(calibration: Calibration, meta: Mapping[str, Any], folder: str | Path) -> None:
    """Write both.

    Args:
        calibration: what was found.
        meta: how it was made, as it lies in the same folder.
        folder: where to.

    Raises:
        CalibrationError: they cannot be written.
    """
    grids = findings(calibration, meta)
    told = sentences(calibration)
    texts = {
        MARKDOWN: as_markdown(title(meta), meta["command"], told, grids),
        PAGE: page(title(meta), meta["command"], told, grids, calibration),
    }
    try:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CalibrationError(f"cannot write the reports to {folder}: {error.strerror or error}") from error


def findings(calibration: Calibration, meta: Mapping[str, Any]) -> dict[str, Grid]:
    """The tables of both reports."""
    budgets = shown_budgets(calibration.gain.budgets)
    return {
        "choices": choices(calibration.table, calibration.settings.weights, budgets),
        "gains": gains(calibration),
        "stages": stages(calibration.stages),
        "origin": origin(meta),
    }


def as_markdown(heading: str, command: str, told: Sequence[str], grids: Mapping[str, Grid]) -> str:
    """The findings as Markdown."""
    parts = [f"# {heading}", f"`{command}`", "\n".join(f"- {sentence}" for sentence in told)]
    for grid in grids.values():
        parts += [f"## {grid.title}", markdown_table(grid)]
    return "\n\n".join(parts) + "\n"


def title(meta: Mapping[str, Any]) -> str:
    """Of the reports."""
    models = " with ".join(name for name in meta["models"].values() if name)
    return f"Calibration of {models} on {meta['dataset']['name']}"


def markdown_table(grid: Grid) -> str:
    """The table, figures to the right."""
    align = ["---:" if index >= grid.numbers else "---" for index in range(len(grid.head))]
    rows: list[Sequence[str]] = [grid.head, align, *grid.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
