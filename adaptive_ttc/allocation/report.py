"""What an allocator decided and why, as plain data, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from adaptive_ttc.display import html
from adaptive_ttc.errors import ConfigError, install_command
from adaptive_ttc.estimate.gain import Option
from adaptive_ttc.types import Ending, Stopped

SCHEMA = 3

Standing = Literal["waiting", "running", "open", "ready", "parked", "outbid", "content", "short", "settled", "failed"]
"""Where a problem is.

- ``waiting``: it arrived; its opening is due.
- ``running``: units are promised to it.
- ``open``: what it was promised is charged; its options are due.
- ``ready``: the best of its options is worth the price.
- ``parked``: it is not, at the present price.
- ``outbid``: nor will it be at any price that may still be reached: it can be settled.
- ``content``: no option is worth anything, or not the least price that is ever paid: it can be settled.
- ``short``: something would be worth its price, but what is left, or its own maximum, does not pay for it: likewise.
- ``settled``, ``failed``: it is over.
"""

OVER: frozenset[Standing] = frozenset(("outbid", "content", "short", "settled", "failed"))
"""Standings of problems that get nothing more, by what is known of them."""

VERIFIED = Ending(Stopped.SETTLED, "its answer was verified")
NOTHING_GAINS = Ending(Stopped.SETTLED, "no further work is expected to gain anything")
NOTHING_KNOWN = Ending(Stopped.NO_OPTION_FITS, "no further work is on offer, as none was measured")
NOT_WORTH_IT = Ending(Stopped.NOT_WORTH_IT, "what more work gains is less than is worth its cost")
NOTHING_LEFT = Ending(Stopped.BUDGET, "what was left, of the budget or of its own maximum, did not pay for more")
NOTHING_FITS = Ending(Stopped.NO_OPTION_FITS, "no work that would gain anything can be done with what was left")
NO_ROUNDS = Ending(Stopped.NO_OPTION_FITS, "its rounds were used up (max_rounds)")
FAILED = Ending(Stopped.FAILED, "it failed")


_UNOPENED = Ending(Stopped.BUDGET, "what was left did not pay for its opening")


def unopened(least: int) -> Ending:
    """The ending of a problem that was not begun; ``least``: units under which it cannot be."""
    return replace(_UNOPENED, why=f"{_UNOPENED.why}, which takes at least {least:,} units")


_OUTBID = Ending(Stopped.NOT_WORTH_IT, "others gained more per unit, and took what was left")

_ENDINGS: dict[Standing, Ending] = {
    "waiting": _UNOPENED,
    "running": Ending(Stopped.STOPPED, "it was ended while it ran"),
    "open": Ending(Stopped.STOPPED, "it was ended before its options were known"),
    "ready": Ending(Stopped.STOPPED, "it was ended while more was worth its price"),
    "parked": _OUTBID,
    "outbid": _OUTBID,
    "failed": FAILED,
}


def ending_of(standing: Standing, options: Sequence[Option], left: float, begin: float) -> Ending:
    """Why a problem gets no more that stands there, with ``left`` units, where no slice begins with under ``begin``."""
    if standing == "content":
        if not options:
            return NOTHING_LEFT if left < begin else NOTHING_KNOWN
        return NOT_WORTH_IT if any(one.gain > 0 for one in options) else NOTHING_GAINS
    if standing == "short":
        return NOTHING_LEFT if left < begin else NOTHING_FITS
    return _ENDINGS[standing]


_PRICED = (Stopped.SETTLED, Stopped.BUDGET, Stopped.NO_OPTION_FITS, Stopped.NOT_WORTH_IT)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which problem gets units next, and for what."""

    number: int  # of the decision, from 0
    problem: str  # whose turn it is
    option: Option | None  # what is to be done; None for the problem's opening
    units: int  # most that may be spent on it; promised until they are charged
    price: float  # gain per 1,000 units that an option had to be worth at that time
    spent: int | None = None  # units, once it was carried out; None while it runs


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReport:
    """What happened to a problem; of one that was settled long ago, ``grants`` and ``considered`` are dropped."""

    id: str  # of the problem
    standing: Standing  # where it is now
    ending: Ending | None  # why it got no more, or gets none at the present price; None while more is due
    spent: int  # units
    slices: int  # that were granted
    opening: int  # units that the first of them spent
    grants: tuple[Decision, ...]  # in order
    considered: tuple[Option, ...]  # the options that were last offered
    # gain per 1,000 units of the best of them, 0 where none gains; ``price`` is what it would have had to be worth when
    # it stopped, or now
    slope: float
    price: float

    def explain(self) -> str:
        """One sentence on what it got, and why no more."""
        given = f"{self.id}: {self.spent:,} units in {self.slices} slices; "
        given += f"it is {self.standing}" if self.ending is None else self.ending.why
        if self.considered and (self.ending is None or self.ending.stopped in _PRICED):
            given += f" (it gains {self.slope:.3g} per 1,000 units, the price is {self.price:.3g})"
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationReport:
    """What happened to a budget.

    Attributes:
        budget: units; None without a limit.
        spent: charged.
        promised: to what still runs.
        price: per 1,000 units, now.
        prices: at every decision, in order.
        problems: in order of arrival.
    """

    budget: int | None
    spent: int
    promised: int
    price: float
    prices: tuple[float, ...]
    problems: tuple[ProblemReport, ...]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            **_fields(self),
            "prices": list(self.prices),
            "problems": [_problem(one) for one in self.problems],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: who got most, and why no more."""
        limit = "no limit" if self.budget is None else f"of {self.budget:,} units"
        spent = (
            f"{self.spent:,} {limit} spent",
            f"{self.promised:,} promised",
            f"price {self.price:.3g} per 1,000 units",
        )
        rows = [
            (one.id, one.standing if one.ending is None else one.ending.why, f"{one.spent:,}", f"{one.slices:,}")
            for one in sorted(self.problems, key=lambda one: -one.spent)
        ]
        head = ("problem", "why it got no more, or where it stands", "units", "slices")
        return html.framed(
            html.line(*spent, strong=f"{len(self.problems):,} problems"),
            html.table("Who got most", head, rows, numbers=2) if rows else "",
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.as_data(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def draw(self, path: str | Path) -> None:
        """Draw what each problem got, and the price over time, to an image; ConfigError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ConfigError(f"a picture needs matplotlib: {install_command('plot')}") from error
        figure = Figure(figsize=(9, 6), layout="constrained")
        who, price = figure.subplots(2, 1, height_ratios=(3, 2))
        ordered = sorted(self.problems, key=lambda one: -one.spent)
        opened = [one.opening for one in ordered]
        chosen = [one.spent - first for one, first in zip(ordered, opened, strict=True)]
        places = range(len(ordered))
        who.bar(places, opened, width=1.0, color="#9aa5b1", label="opening")
        who.bar(places, chosen, width=1.0, bottom=opened, color="#2b6cb0", label="chosen slices")
        limit = "no limit" if self.budget is None else f"of {self.budget:,}"
        title = f"{self.spent:,} units {limit} over {len(ordered):,} problems"
        who.set(title=title, xlabel="problems, by what they got", ylabel="units")
        who.legend(frameon=False)
        price.plot(range(len(self.prices)), self.prices, drawstyle="steps-post", color="#c05621")
        price.set(xlabel="decision", ylabel="price: gain per 1,000 units")
        for axes in (who, price):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


def _fields(record: Decision | ProblemReport | AllocationReport) -> dict[str, Any]:
    return {part.name: getattr(record, part.name) for part in fields(record)}


def _problem(one: ProblemReport) -> dict[str, Any]:
    return {
        **_fields(one),
        "ending": None if one.ending is None else {"stopped": one.ending.stopped.value, "why": one.ending.why},
        "why": one.explain(),
        "grants": [_decision(grant) for grant in one.grants],
        "considered": [_option(option) for option in one.considered],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    option = None if decision.option is None else _option(decision.option)
    return {name: value for name, value in _fields(decision).items() if name != "problem"} | {"option": option}


def _option(option: Option) -> dict[str, Any]:
    return {"key": str(option.action), "cost": option.cost, "gain": option.gain, "slice_cost": option.slice_cost}
