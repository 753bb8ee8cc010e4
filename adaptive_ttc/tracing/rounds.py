"""Counts, round by round, what a search sampled, kept, pruned and merged; it knows no strategy by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_ttc.events import ExpandedEvent, ForkEvent, Route
from adaptive_ttc.tracing.outcomes import Outcome
from adaptive_ttc.tracing.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The samples of one depth: as many steps, or attempts, from the root.

    Attributes:
        sampled: samples, those that only looked ahead left out; these are ``foreseen``.
        kept: gone on from; ``pruned``, ``merged``, ``cut`` and ``unused`` as in ``Fate``.
        finished: ended by the policy and handed in.
        tokens: generated.
        best: the highest value among those sampled, in [0, 1]; None if none was scored.
    """

    sampled: int
    kept: int
    pruned: int
    merged: int
    cut: int
    unused: int
    finished: int
    foreseen: int
    tokens: int
    best: float | None


def rounds(found: Mapping[Route, Outcome]) -> tuple[Round, ...]:
    """The rounds of a search over steps, in order. Searches side by side count together."""
    by_depth: dict[int, list[Outcome]] = {}
    for path, one in found.items():
        by_depth.setdefault(len(path) - one.foreseen, []).append(one)
    return tuple(_round(by_depth[depth]) for depth in sorted(by_depth))


def trees(trace: Trace) -> int:
    """Searches that the first fork of a trace began side by side; 0 without a fork."""
    forks = [event for event in trace.of(ForkEvent) if event.branch == ()]
    return len({number for event in forks if event.number == forks[0].number for number in event.searches})


def slices(trace: Trace) -> tuple[int, ...]:
    """How many samples each request of a trace brought, in order."""
    return tuple(len(event.children) for event in trace.of(ExpandedEvent))


def _round(samples: list[Outcome]) -> Round:
    judged = [one for one in samples if not one.foreseen]
    fates = Counter(one.fate for one in judged)
    return Round(
        sampled=len(judged),
        kept=fates["continued"],
        pruned=fates["pruned"],
        merged=fates["merged"],
        cut=fates["cut"] + sum(one.fate == "candidate" and one.finish != "eos" for one in judged),
        unused=fates["unused"],
        finished=sum(one.fate == "candidate" and one.finish == "eos" for one in judged),
        foreseen=len(samples) - len(judged),
        tokens=sum(one.tokens for one in samples),
        best=max((one.value for one in judged if one.value is not None), default=None),
    )
