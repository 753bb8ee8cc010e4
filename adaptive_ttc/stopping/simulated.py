"""What a rule does with draws that are known beforehand: for simulations, without an engine."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_ttc.stopping.base import Draw, Pool, StoppingRule


def shared(rule: StoppingRule, problems: Sequence[Sequence[Draw]], budget: int) -> list[list[Draw]]:
    """What each problem gets of a budget in samples, given to the problem of the largest worth one slice at a time."""
    given: list[list[Draw]] = [[] for _ in problems]
    spent, pool = 0, Pool(1.0, len(problems), budget)
    worths = [rule.worth(one, pool) for one in given]  # a problem is looked at again when it got something
    while spent < budget:
        best = max(range(len(problems)), key=worths.__getitem__)
        if worths[best] <= 0:
            break
        have = len(given[best])
        more = min(rule.samples(given[best]), budget - spent, len(problems[best]) - have)
        given[best] += problems[best][have : have + more]
        spent += more
        pool = Pool(1 - spent / budget, len(problems), budget - spent)
        worths[best] = rule.worth(given[best], pool) if len(given[best]) < len(problems[best]) else 0.0
    return given


def leader(draws: Sequence[Draw]) -> str | None:
    """The most frequent answer, the one seen first of equal ones."""
    votes: dict[str, int] = {}
    for draw in draws:
        if draw.answer is not None:
            votes[draw.answer] = votes.get(draw.answer, 0) + 1
    return max(votes, key=votes.__getitem__) if votes else None
