"""What an answer is read as, and when two readings are equal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from adaptive_ttc.answers.forms.scalar import Scalar, same

_MOST_ORDERS = 6  # entries of a set that are tried in every order where some comparisons cannot be told

_NO_MATHEMATICS = ("words", "choice", "labelled", "statement", "base", "clock", "text")

Verdicts = Iterable["bool | None"]


@dataclass(frozen=True, slots=True)
class Form:
    """Something that is no single value: a list, an interval, a matrix, an equation, a word, a number with a unit.

    Attributes:
        kind: forms of different kinds are never equal.
        parts: what it consists of.
        tag: what else it says; forms with different tags are never equal.
        ordered: whether the order of the parts counts.
    """

    kind: str
    parts: tuple[Form | Scalar, ...] = ()
    tag: Hashable = None
    ordered: bool = True


@dataclass(frozen=True)
class Reading:
    """What an answer says, and what it may stand for besides.

    ``5\\text{ cm}`` says a length and may stand for 5. Two answers are equal where one says what the other says or may
    stand for: ``5\\text{ cm}`` and ``5`` are, ``5\\text{ cm}`` and ``5\\text{ kg}`` are not.
    """

    form: Form | Scalar
    also: tuple[Form | Scalar, ...] = ()

    @cached_property
    def keys(self) -> tuple[Hashable, ...] | None:
        """Keys of what it says and of all that it may stand for besides; None where one of them has no key."""
        keys = tuple(key_of(form) for form in (self.form, *self.also))
        return None if None in keys else keys


Reader = Callable[[str], Reading | None]
"""Reads an answer, or a part of one."""


def equal(first: Reading, second: Reading) -> bool | None:
    """Whether two answers are equal; None where that cannot be told here. Symmetric."""
    mine, others = first.keys, second.keys
    if mine is not None and others is not None:
        return mine[0] == others[0] or mine[0] in others[1:] or others[0] in mine[1:]
    return _any(
        alike(mine, other)
        for mine, other in (
            (first.form, second.form),
            *((first.form, other) for other in second.also),
            *((mine, second.form) for mine in first.also),
        )
    )


def alike(first: Form | Scalar, second: Form | Scalar) -> bool | None:
    """Whether two forms say the same; None where that cannot be told here."""
    if isinstance(first, Scalar) or isinstance(second, Scalar):
        return same(first, second) if isinstance(first, Scalar) and isinstance(second, Scalar) else False
    if (first.kind, first.tag, len(first.parts)) != (second.kind, second.tag, len(second.parts)):
        return False
    if first.ordered or len(first.parts) < 2:
        return _all(alike(mine, other) for mine, other in zip(first.parts, second.parts, strict=True))
    return _in_some_order(first.parts, second.parts)


def is_mathematics(form: Form | Scalar) -> bool:
    """Whether a form may be equal to something that is not read here."""
    return isinstance(form, Scalar) or form.kind not in _NO_MATHEMATICS


def key_of(form: Form | Scalar) -> Hashable | None:
    """The same for forms that are alike, different for those that are not; None where there is no such key."""
    if isinstance(form, Scalar):
        return form.key
    keys = [key_of(part) for part in form.parts]
    if None in keys:
        return None
    return form.kind, form.tag, tuple(keys) if form.ordered else tuple(sorted(keys, key=repr))


def listed(parts: Sequence[Form | Scalar]) -> Form:
    """A set of parts, in which no two are surely the same; a list with repetitions is no set."""
    keys = [key_of(part) for part in parts]
    repeated = any(key is not None and key in keys[:place] for place, key in enumerate(keys))
    return Form("repetitions" if repeated else "set", tuple(parts), ordered=False)


def set_of(parts: Sequence[Form | Scalar]) -> Form:
    """A set, in which repetitions do not count."""
    kept: list[Form | Scalar] = []
    for part in parts:
        if not any(alike(part, other) for other in kept):
            kept.append(part)
    return Form("set", tuple(kept), ordered=False)


def _in_some_order(first: tuple[Form | Scalar, ...], second: tuple[Form | Scalar, ...]) -> bool | None:
    verdicts = [[alike(mine, other) for other in second] for mine in first]
    if any(all(one is False for one in row) for row in verdicts):
        return False
    if len(first) <= _MOST_ORDERS:
        orders = permutations(range(len(first)))
        return _any(_all(verdicts[row][column] for row, column in enumerate(order)) for order in orders)
    free = list(range(len(second)))
    for row in verdicts:
        found = next((column for column in free if row[column]), None)
        if found is None:
            return None if any(row[column] is None for column in free) else False
        free.remove(found)
    return True


def _all(verdicts: Verdicts) -> bool | None:
    told: bool | None = True
    for one in verdicts:
        if one is False:
            return False
        if one is None:
            told = None
    return told


def _any(verdicts: Verdicts) -> bool | None:
    told: bool | None = False
    for one in verdicts:
        if one:
            return True
        if one is None:
            told = None
    return told
