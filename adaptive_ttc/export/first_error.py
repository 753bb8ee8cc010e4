"""Which beginnings of a solution have to be tried to label its steps: pure arithmetic over what roll-outs say.

A search yields how many leading steps are to be tried and is sent the share of roll-outs from there that reach the
right answer; it returns a label for each step. The whole solution is never tried: its own answer tells.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Literal, get_args

Labels = Literal["hard", "soft", "every", "outcome"]
LABELS: tuple[str, ...] = get_args(Labels)
"""``hard``: up to the first error, by binary search. ``every``: hard too, but every step is tried. ``soft``: the shares
themselves. ``outcome``: that of the whole solution; no roll-outs.
"""

Trial = Generator[int, float, list[float]]


def first_error(steps: int, correct: bool) -> Trial:
    """Hard labels by binary search for the first error (OmegaPRM, arXiv 2406.06592).

    It takes that a problem can be solved at all, and that from a beginning with an error in it no longer beginning of
    the same solution reaches the right answer. Of a wrong solution at most ceil(log2(steps)) beginnings are tried; of
    a right one none, as it is itself a roll-out from each of them that reached the answer.

    Args:
        steps: of the solution, at least 1.
        correct: whether its answer is right.
    """
    if correct:
        return [1.0] * steps
    alive, dead = 0, steps  # so many leading steps can, and cannot, be completed
    while dead - alive > 1:
        middle = (alive + dead) // 2
        if (yield middle) > 0:
            alive = middle
        else:
            dead = middle
    return [1.0] * alive + [0.0] * (steps - alive)


def every_step(steps: int, correct: bool) -> Trial:
    """Hard labels with every beginning tried (the hard estimation of Math-Shepherd, arXiv 2312.08935, equation 3)."""
    shares = yield from shares_of_steps(steps, correct)
    return [float(share > 0) for share in shares]


def shares_of_steps(steps: int, correct: bool) -> Trial:
    """Soft labels: the share of roll-outs that reach the right answer (arXiv 2312.08935, equation 4); the last step has
    that of the solution itself.
    """
    shares = []
    for number in range(1, steps):
        shares.append((yield number))
    return [*shares, float(correct)]


TRIALS: dict[str, Callable[[int, bool], Trial]] = {"hard": first_error, "every": every_step, "soft": shares_of_steps}
