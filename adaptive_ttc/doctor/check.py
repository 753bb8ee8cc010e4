"""What a check found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "fault"]
"""``warning``: it works, and costs more or answers less than it could; ``fault``: it does not do what it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a pair.

    Attributes:
        name: what was looked at.
        status: see :data:`Status`.
        found: what was found, in words.
        remedy: what to change; empty where nothing is to be.
        figures: the same in numbers, by name; shares from 0 to 1, times in seconds.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "figures": dict(self.figures)}


def judged(name: str, status: Status, found: str, remedy: str, figures: Mapping[str, float] | None = None) -> Check:
    """A check, with the remedy where there is something to be mended."""
    return Check(name=name, status=status, found=found, remedy="" if status == "ok" else remedy, figures=figures or {})


def by_share(share: float, *, well: float, badly: float) -> Status:
    """``ok`` from ``well`` on, ``fault`` below ``badly``."""
    return "ok" if share >= well else "warning" if share >= badly else "fault"
