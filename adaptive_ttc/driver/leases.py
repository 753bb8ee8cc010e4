"""How many tokens each sample may generate next, when not all can have their worst case: arithmetic over a balance.

Samples are granted leases in rounds. What a lease does not use comes back before the next round, so a budget of N mean
lengths lets close to N samples run side by side, where reserving the worst case would let ``budget / max_tokens`` run.
Two rules keep samples from starving:

- Until the account holds a finished solution, what it takes to finish one is not shared out.
- Once lengths are known, only so many samples go on as the balance is expected to finish, earliest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST_LEASE = 16  # tokens under which a lease is not worth a request, unless a sample needs fewer


@dataclass(frozen=True, slots=True)
class Member:
    """A sample that has not ended."""

    length: int  # tokens that it has
    remaining: int  # most tokens that it may still get, at least 1
    finish: int  # tokens to keep for finishing the solution that it belongs to; between 1 and ``remaining``
    overhead: int = 0  # units that its scoring costs before any further token


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a round is planned with."""

    balance: int | None  # units that the account can reserve; None without a limit
    rate: int = 1  # units a token costs, its scoring included
    ended: int = 0  # how many samples of this kind ended by themselves; ``typical`` is their mean length
    typical: float = 0.0
    stepwise: bool = False  # whether samples end with a step rather than with the solution
    midway: int | None = None  # units to keep for finishing an unfinished solution besides these; None without one
    solved: bool = False  # whether the account holds a finished solution
    whole: bool = False  # whether no lease can be renewed: a sample gets all that it may still get at once, or waits


def plan_round(terms: Terms, members: Sequence[Member]) -> tuple[int, ...]:
    """The next lease of every member, in tokens, 0 for one that waits; together they cost at most ``terms.balance``."""
    if terms.whole:
        return _plan_whole(terms, members)
    balance = terms.balance
    kept = 0 if terms.solved else terms.midway or 0
    if balance is None or sum(_cost(terms, one, one.remaining) for one in members) + kept <= balance:
        return tuple(one.remaining for one in members)
    if terms.solved:
        return _share(terms, members, balance)
    return (_plan_steps if terms.stepwise else _plan_solutions)(terms, members, balance)


def _plan_whole(terms: Terms, members: Sequence[Member]) -> tuple[int, ...]:
    """Leases of all tokens or none, earliest first; begun samples get no more.

    Where not one fits, the first gets what there is, unless a solution is there and that is less than most take.
    """
    left, leases = terms.balance, []
    for one in members:
        cost = _cost(terms, one, one.remaining)
        granted = not one.length and (left is None or cost <= left)
        left = left - cost if granted and left is not None else left
        leases.append(one.remaining if granted else 0)
    first = next((index for index, one in enumerate(members) if not one.length), None)
    if first is not None and left is not None and not any(leases):
        rest = _affordable(terms, members[first], left)
        leases[first] = rest if rest >= terms.typical or not terms.solved else 0
    return tuple(leases)


def _plan_steps(terms: Terms, members: Sequence[Member], balance: int) -> tuple[int, ...]:
    """Enough is kept to finish any one of the samples, whichever the strategy continues after this step."""
    kept = max(terms.midway or 0, max(_cost(terms, one, one.finish) for one in members))
    leases = _share(terms, members, balance - kept)
    if any(leases) or terms.midway is not None:
        return leases
    return (_first(terms, members, balance), *[0] * (len(members) - 1))


def _plan_solutions(terms: Terms, members: Sequence[Member], balance: int) -> tuple[int, ...]:
    """The first sample gets what finishes it, the others share the rest."""
    first = _first(terms, members, balance)
    return (first, *_share(terms, members[1:], balance - _cost(terms, members[0], first) if first else 0))


def _first(terms: Terms, members: Sequence[Member], balance: int) -> int:
    return min(members[0].finish, _affordable(terms, members[0], balance))


def _share(terms: Terms, members: Sequence[Member], pot: int) -> tuple[int, ...]:
    """The expected need, and equal parts of the rest, for as many members, earliest first, as ``pot`` should finish."""
    costs: list[int] = []
    for one in members:
        cost = _cost(terms, one, min(_expected(terms, one), one.remaining))
        if sum(costs) + cost > pot:
            break
        costs.append(cost)
    if not costs:
        return tuple(_affordable(terms, one, pot) if index == 0 else 0 for index, one in enumerate(members))
    spare = (pot - sum(costs)) // len(costs)
    leases = [_affordable(terms, one, cost + spare) for one, cost in zip(members, costs, strict=False)]
    if not terms.ended:
        # Nothing is known of the lengths: half finds out more without betting everything on it.
        leases = [min(lease, max(lease // 2, SHORTEST_LEASE)) for lease in leases]
    return (*leases, *[0] * (len(members) - len(leases)))


def _expected(terms: Terms, one: Member) -> int:
    # Few lengths say little, and a front too small costs time for sure: the fewer, the shorter the guess.
    guess = terms.typical * terms.ended / (terms.ended + 1)
    # A sample that has outlived the mean is not about to end: a quarter of the mean is its next try.
    return max(round(guess) - one.length, round(guess / 4), SHORTEST_LEASE)


def _cost(terms: Terms, one: Member, tokens: int) -> int:
    return one.overhead + terms.rate * tokens


def _affordable(terms: Terms, one: Member, units: int) -> int:
    return max(0, min(one.remaining, (units - one.overhead) // terms.rate))
