"""What an allocator decided and why, as plain data; it decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adaptive_ttc.estimate.gain import Option

Standing = Literal["waiting", "running", "open", "ready", "parked", "content", "short", "settled", "failed"]
"""Where a problem is.

- ``waiting``: it arrived; its opening is due.
- ``running``: units are promised to it.
- ``open``: what it was promised is charged; its options are due.
- ``ready``: the best of its options is worth the price.
- ``parked``: it is not, at the present price.
- ``content``: no option is worth anything, or not the least price that is ever paid: it can be settled.
- ``short``: something would be worth its price, but what is left, or its own maximum, does not pay for it: likewise.
- ``settled``, ``failed``: it is over.
"""

OVER: frozenset[Standing] = frozenset(("content", "short", "settled", "failed"))
"""Standings of problems that will be given nothing more on what is known of them."""

WHY: dict[Standing, str] = {
    "waiting": "what was left did not pay for its opening",
    "running": "it was ended while it ran",
    "open": "it was ended before its options were known",
    "ready": "it was ended while more was worth its price",
    "parked": "others gained more per unit, and took what was left",
    "content": "nothing more was worth its cost",
    "short": "what was left, or its own maximum, did not pay for more",
    "settled": "it was settled",
    "failed": "it failed",
}
"""Why a problem got no more, by where it stood when it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who gets what next.

    Attributes:
        number: of the decision, from 0.
        problem: whose turn it is.
        option: what is to be done; None for the problem's opening.
        units: most that may be spent on it; promised until they are charged.
        price: gain per 1,000 units that an option had to be worth at that time.
    """

    number: int
    problem: str
    option: Option | None
    units: int
    price: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A decision that was carried out; ``spent`` is None while it runs."""

    decision: Decision
    spent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReport:
    """What happened to a problem.

    Attributes:
        id: of the problem.
        standing: where it is now.
        stopped: where it was before it was settled or failed; the same as ``standing`` while it is neither.
        spent: units.
        grants: in order.
        considered: the options that were last offered.
        slope: gain per 1,000 units of the best of them, 0 where none gains; ``price`` is what it would have had to be
            worth when it stopped, or now.
    """

    id: str
    standing: Standing
    stopped: Standing
    spent: int
    grants: tuple[Grant, ...]
    considered: tuple[Option, ...]
    slope: float
    price: float

    def explain(self) -> str:
        """One sentence on why it got no more."""
        given = f"{self.id}: {self.spent:,} units in {len(self.grants)} slices; {WHY[self.stopped]}"
        if self.stopped in ("parked", "content", "short") and self.considered:
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

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        from adaptive_ttc.allocation.report_files import save

        save(self, path)

    def draw(self, path: str | Path) -> None:
        """Draw who got what, and the price over time, in the format that the file's ending names, such as PNG.

        Raises:
            ConfigError: matplotlib is not installed (the extra ``plot``).
        """
        from adaptive_ttc.allocation.report_files import draw

        draw(self, path)
