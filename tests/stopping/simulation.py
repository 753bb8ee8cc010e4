"""Draws of a known answer distribution, and runs of a rule over them."""

from collections.abc import Sequence

import numpy as np

from adaptive_ttc.stopping.base import Draw, StoppingRule


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


def false_certificate(rule: StoppingRule, draws: Sequence[Draw], modes: set[str]) -> bool:
    """Whether the rule ever, at any number of samples, certifies an answer that is no mode."""
    for n in range(1, len(draws) + 1):
        certificate = rule.certificate(draws[:n])
        if certificate is not None and certificate.answer not in modes:
            return True
    return False
