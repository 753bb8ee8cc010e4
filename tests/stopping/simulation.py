"""Draws of a known answer distribution, and runs of a rule over them."""

from collections.abc import Sequence

import numpy as np

from adaptive_ttc.stopping.base import Draw, Pool, StoppingRule


def draws_of(answers: Sequence[object], **rest: float) -> list[Draw]:
    """One draw an answer; None has none."""
    return [Draw(None if one is None else str(one), 100, **rest) for one in answers]


def sampled(shares: Sequence[float], n: int, rng: np.random.Generator) -> list[Draw]:
    """``n`` draws of answers 0, 1, ... with these shares."""
    return draws_of(rng.choice(len(shares), size=n, p=np.asarray(shares)).tolist())


def stops_after(rule: StoppingRule, draws: Sequence[Draw]) -> int:
    """How many of the draws the rule takes, in its own portions."""
    n = 0
    while n < len(draws) and rule.worth(draws[:n]) > 0:
        n = min(len(draws), n + rule.samples(draws[:n]))
    return n


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


def false_certificate(rule: StoppingRule, draws: Sequence[Draw], modes: set[str]) -> bool:
    """Whether the rule ever, at any number of samples, certifies an answer that is no mode."""
    for n in range(1, len(draws) + 1):
        certificate = rule.certificate(draws[:n])
        if certificate is not None and certificate.answer not in modes:
            return True
    return False
