"""Writes an allocation report as JSON, and as a picture; it decides nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptive_ttc.allocation.report import AllocationReport, Grant, ProblemReport
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.gain import Option

SCHEMA = 1


def as_data(report: AllocationReport) -> dict[str, Any]:
    """For JSON."""
    return {
        "schema": SCHEMA,
        "budget": report.budget,
        "spent": report.spent,
        "promised": report.promised,
        "price": report.price,
        "prices": list(report.prices),
        "problems": [_problem(one) for one in report.problems],
    }


def save(report: AllocationReport, path: str | Path) -> None:
    """Write it as JSON."""
    Path(path).write_text(json.dumps(as_data(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(report: AllocationReport, path: str | Path) -> None:
    """Draw who got what, and the price over time, in the format that the file's ending names, such as PNG.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a picture needs matplotlib: pip install 'adaptive-ttc[plot]'") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    who, price = figure.subplots(2, 1, height_ratios=(3, 2))
    ordered = sorted(report.problems, key=lambda one: -one.spent)
    opened = [sum(_spent(grant) for grant in one.grants if grant.decision.option is None) for one in ordered]
    places = range(len(ordered))
    who.bar(places, opened, width=1.0, color="#9aa5b1", label="opening")
    who.bar(
        places,
        [one.spent - first for one, first in zip(ordered, opened, strict=True)],
        width=1.0,
        bottom=opened,
        color="#2b6cb0",
        label="chosen slices",
    )
    limit = "no limit" if report.budget is None else f"of {report.budget:,}"
    who.set(
        title=f"{report.spent:,} units {limit} over {len(ordered):,} problems",
        xlabel="problems, by what they got",
        ylabel="units",
    )
    who.legend(frameon=False)
    price.plot(range(len(report.prices)), report.prices, drawstyle="steps-post", color="#c05621")
    price.set(xlabel="decision", ylabel="price: gain per 1,000 units")
    for axes in (who, price):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _problem(one: ProblemReport) -> dict[str, Any]:
    return {
        "id": one.id,
        "standing": one.standing,
        "stopped": one.stopped,
        "spent": one.spent,
        "slope": one.slope,
        "price": one.price,
        "why": one.explain(),
        "grants": [_grant(grant) for grant in one.grants],
        "considered": [_option(option) for option in one.considered],
    }


def _grant(grant: Grant) -> dict[str, Any]:
    decision = grant.decision
    return {
        "number": decision.number,
        "option": None if decision.option is None else _option(decision.option),
        "units": decision.units,
        "price": decision.price,
        "spent": grant.spent,
    }


def _option(option: Option) -> dict[str, Any]:
    return {"key": str(option.action), "cost": option.cost, "gain": option.gain, "slice_cost": option.slice_cost}


def _spent(grant: Grant) -> int:
    return grant.spent or 0
