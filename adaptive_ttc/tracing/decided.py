"""Says in words what was decided on a problem whose budget went where evidence sent it; it decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_ttc.estimate.table import BIN_NAMES
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.tracing.trace import Trace

SHOWN_DECISIONS = 12
SHOWN_ACTIONS = 3


def decisions(trace: Trace) -> list[str]:
    """A line for every decision, with what else was considered; difficulty, and why it stopped. None without any."""
    events = trace.of(AllocationEvent)
    slices = [event for event in events if event.action is not None]
    lines = [f"  {number}: {_slice(event)}" for number, event in enumerate(slices[:SHOWN_DECISIONS], start=1)]
    if hidden := slices[SHOWN_DECISIONS:]:
        lines.append(f"  and {len(hidden)} further, for at most {sum(one.units for one in hidden):,} units")
    if lines:
        lines.insert(0, f"{len(slices)} decision{'s' * (len(slices) > 1)}, each by what the evidence then was:")
    if not events:
        return lines
    last = events[-1]
    if last.difficulty is not None:
        lines.append(f"Difficulty: {_bins(last.difficulty)}.")
    return [*lines, _end(last)] if last.action is None else lines


def _slice(event: AllocationEvent) -> str:
    if event.opening:
        return f"{event.action} to begin with, at most {event.units:,} units."
    assert event.action is not None
    chosen = next((one for one in event.considered if one[0] == event.action), None)
    others = [one for one in event.considered if one[0] != event.action]
    words = f"{_right(event)}{event.action}"
    if chosen is not None:
        words += f", {_worth(chosen)}"
    words += f"; at most {event.units:,} units now"
    return f"{words} ({_best(others)})." if others else f"{words}."


def _end(event: AllocationEvent) -> str:
    """Why it got no more."""
    words = f"{_right(event)}stopped: {event.why}".capitalize()
    gaining = [one for one in event.considered if one[1] > 0]
    if not gaining:
        return f"{words}. Nothing is expected to gain more."
    price = f", at a price of {event.price:.3g} per 1,000 units" if event.price else ""
    return f"{words}{price} ({_best(gaining)})."


def _right(event: AllocationEvent) -> str:
    return "" if event.right is None else f"right with probability {event.right:.2f}, "


def _best(actions: Sequence[tuple[str, float, float]]) -> str:
    ordered = sorted(actions, key=lambda one: -one[1] / one[2])
    shown = ", ".join(f"{one[0]} {_worth(one)}" for one in ordered[:SHOWN_ACTIONS])
    return f"{len(actions)} other{'s' * (len(actions) > 1)}: {shown}"


def _worth(action: tuple[str, float, float]) -> str:
    return f"{action[1]:+.3f} for {action[2]:,.0f}"


def _bins(posterior: Sequence[float]) -> str:
    names = (
        BIN_NAMES if len(posterior) == len(BIN_NAMES) else tuple(f"bin {number}" for number in range(len(posterior)))
    )
    return ", ".join(f"{name} {share:.2f}" for name, share in zip(names, posterior, strict=True))
