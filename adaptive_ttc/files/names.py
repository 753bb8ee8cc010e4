"""Says of a name that is not known which it may have been meant for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(names: Iterable[str], known: Iterable[str]) -> str:
    """The names that are not known, each with the nearest that is, as in ``stategy (strategy?)``; empty if all are."""
    choices = sorted(known)
    told = []
    for name in sorted(set(names) - set(choices)):
        near = get_close_matches(name, choices, n=1)
        told.append(f"{name} ({near[0]}?)" if near else name)
    return ", ".join(told)
