"""Sets of real numbers: intervals, unions of them, and all numbers but some."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key
from itertools import pairwise

from adaptive_ttc.answers.forms import scalar
from adaptive_ttc.answers.forms.form import Form, set_of
from adaptive_ttc.answers.forms.scalar import Scalar, of_constant


def reals() -> Form:
    """All real numbers, as an interval."""
    infinity = of_constant("$oo")
    return Form("tuple", (scalar.minus(infinity), infinity))


def all_but(holes: Form | Scalar) -> Form | None:
    """All real numbers but some; None where their order is not known."""
    points = [holes] if isinstance(holes, Scalar) else list(holes.parts) if holes.kind == "set" else []
    scalars = [point for point in points if isinstance(point, Scalar)]
    if not points or len(scalars) < len(points) or not all(map(_has_place, scalars)):
        return None
    infinity = of_constant("$oo")
    edges = [scalar.minus(infinity), *sorted(scalars, key=_place), infinity]
    return union_of([Form("tuple", (a, b)) for a, b in pairwise(edges)])


def union_of(pieces: Sequence[Form | Scalar]) -> Form | None:
    """A union of sets; intervals that touch or overlap are joined. None: a piece is no set."""
    flat: list[Form] = []
    for piece in pieces:
        if not isinstance(piece, Form) or piece.kind not in ("tuple", "interval", "set", "union", "numbers"):
            return None
        if piece.kind == "tuple" and len(piece.parts) != 2:
            return None
        flat += [part for part in piece.parts if isinstance(part, Form)] if piece.kind == "union" else [piece]
    intervals = [piece for piece in flat if _is_interval(piece)]
    others = [piece for piece in flat if not _is_interval(piece)]
    points = [part for piece in others if piece.kind == "set" for part in piece.parts]
    others = [piece for piece in others if piece.kind != "set"] + ([set_of(points)] if points else [])
    joined = [*_joined(intervals), *others]
    return joined[0] if len(joined) == 1 else Form("union", tuple(joined), ordered=False)


def all_of(regions: Sequence[Form | Scalar]) -> Form | None:
    """What intervals, or unions of them, have in common; None where that is nothing, or they are something else."""
    common = [reals()]
    for region in regions:
        pieces = _intervals(region)
        common = [both for one in common for other in pieces if (both := _overlap(one, other)) is not None]
    return union_of(common) if common else None


def _intervals(region: Form | Scalar) -> list[Form]:
    """The intervals that a region consists of; none where it is something else."""
    parts = region.parts if isinstance(region, Form) and region.kind == "union" else (region,)
    found = [part for part in parts if isinstance(part, Form) and len(part.parts) == 2 and _is_interval(part)]
    return found if len(found) == len(parts) else []


def _overlap(first: Form, second: Form) -> Form | None:
    """What two intervals have in common; None where that is nothing or one point."""
    starts, ends = zip(_ends(first), _ends(second), strict=True)
    (left, right), (left_too, right_too) = _closed(first), _closed(second)
    later = first if (starts[0], not left) >= (starts[1], not left_too) else second
    sooner = first if (ends[0], right) <= (ends[1], right_too) else second
    if max(starts) >= min(ends):
        return None
    closed = _closed(later)[0], _closed(sooner)[1]
    parts = later.parts[0], sooner.parts[1]
    return Form("interval", parts, closed) if any(closed) else Form("tuple", parts)


def _is_interval(piece: Form) -> bool:
    return piece.kind in ("tuple", "interval") and all(
        isinstance(part, Scalar) and _has_place(part) for part in piece.parts
    )


def _joined(intervals: list[Form]) -> list[Form]:
    kept: list[Form] = []
    for one in sorted(intervals, key=cmp_to_key(_by_beginning)):
        if kept and (together := _together(kept[-1], one)) is not None:
            kept[-1] = together
        else:
            kept.append(one)
    return kept


def _by_beginning(first: Form, second: Form) -> int:
    a, b = _ends(first)[0], _ends(second)[0]
    return (a > b) - (a < b) or _closed(second)[0] - _closed(first)[0]


def _together(first: Form, second: Form) -> Form | None:
    """One interval in place of two, of which the first begins before the second; None where there is a gap."""
    (_, end), (beginning, last) = _ends(first), _ends(second)
    if beginning > end or (beginning == end and not (_closed(first)[1] or _closed(second)[0])):
        return None
    later = second if last > end or (last == end and _closed(second)[1]) else first
    closed = _closed(first)[0], _closed(later)[1]
    parts = first.parts[0], later.parts[1]
    return Form("interval", parts, closed) if any(closed) else Form("tuple", parts)


def _ends(interval: Form) -> tuple[float, float]:
    first, second = (_place(part) for part in interval.parts if isinstance(part, Scalar))
    return first, second


def _closed(interval: Form) -> tuple[bool, bool]:
    return interval.tag if isinstance(interval.tag, tuple) else (False, False)


def _has_place(value: Scalar) -> bool:
    worth = value.values[0]
    return not value.has_variables and not worth.imag and worth.real == worth.real


def _place(value: Scalar) -> float:
    return value.values[0].real
