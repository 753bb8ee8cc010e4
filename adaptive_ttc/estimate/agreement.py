"""What agreement among independent samples tells: whether the leading answer is right, and what more samples gain.

A problem has three things: p, the rate at which an answer is right; how much its wrong answers differ (they follow
Pitman's sampling formula, doi:10.1007/BF01213386, a Chinese restaurant of concentration theta and discount alpha: near
0 all wrong answers are one trap, at 20 hardly two are alike); and q, the rate of samples without an answer. A prior
over a grid of these, learned from problems whose answers are known, makes every pattern of votes a posterior over
(which answer is right, p, theta, q) by Bayes' rule. From there the chance that the right answer leads after k more
samples is arithmetic: no replay, no regression, and nothing to overfit but the prior.

What else is known of samples (scores, log-probabilities, lengths) tilts the posterior toward the answers whose samples
look right; how many votes will be counted for which answer depends on the votes alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.errors import CalibrationError

Array = NDArray[np.float64]

RATES = np.array([0.01, 0.04, 0.1, 0.18, 0.28, 0.4, 0.52, 0.64, 0.75, 0.85, 0.93, 0.98])  # p
SPREADS = np.array([0.15, 0.6, 2.0, 20.0, 0.3, 1.5, 5.0])  # theta
DISCOUNTS = np.array([0.0, 0.0, 0.0, 0.1, 0.4, 0.5, 0.6])  # alpha, of each of SPREADS
SILENT = np.array([0.005, 0.05, 0.2, 0.45, 0.8])  # q
SHAPE = (len(RATES), len(SPREADS), len(SILENT))

EDGES = (0.8, 0.6, 0.4, 0.2)  # pass rates between bins of difficulty, where no calibration names its own

AHEAD = (1, 2, 3, 4, 6, 8)
"""Numbers of further samples that are looked ahead; between them gains are interpolated."""

QUANTUM = 0.5  # nats to which tilts are rounded, so that patterns that hardly differ are computed once

Answer = tuple[float, float]
"""Votes of an answer, and its tilt: by how many nats its samples look rather like right ones than like wrong ones."""

_MOST_TILT = 6.0  # larger ones count as this

_NEVER = 1e-9  # in place of 0, where something is divided by it
_LEAST = 0.1  # balls that an answer has at least, where its votes are few
_LEVELS = 3  # distinct numbers of votes that are told apart, from the most on; fewer votes hardly ever win
_MOST = AHEAD[-1]
_KEPT = 1 << 15  # patterns whose outlook is kept

_DRAWS = np.arange(_MOST + 1)
_Z = np.array([0.0, 0.5, 1.0])[:, None, None, None]  # of Simpson's rule
_SIMPSON = np.array([1, 4, 1]) / 6
_PAIRS = [(step, m, right) for step, m in enumerate(AHEAD) for right in range(m + 1)]
_RIGHT = np.array([right for _, _, right in _PAIRS])  # of m further answers so many are right
_WRONG = np.array([m - right for _, m, right in _PAIRS])
_LOG_CHOOSE = np.array(
    [[math.log(math.comb(t, i)) if i <= t else -math.inf for i in range(_MOST + 1)] for t in range(_MOST + 1)]
)
_BINOMIAL = np.zeros((len(_PAIRS), len(AHEAD), len(RATES)))
for _row, (_step, _m, _j) in enumerate(_PAIRS):
    _BINOMIAL[_row, _step] = math.comb(_m, _j) * RATES**_j * (1 - RATES) ** (_m - _j)


def _heard() -> Array:
    """Weights by which gains after so many answers become gains after so many samples, shape [q, samples, answers].

    Of k samples k (1 - q) hold an answer; between two numbers of answers lies a straight line.
    """
    found = np.zeros((len(SILENT), len(AHEAD), len(AHEAD)))
    for step in range(len(AHEAD)):
        alone = np.eye(len(AHEAD))[step]
        for q, rate in enumerate(SILENT.tolist()):
            found[q, :, step] = np.interp(np.array(AHEAD) * (1 - rate), (0, *AHEAD), (0, *alone))
    return found


_HEARD = _heard()


def _largest_tables() -> Array:
    """P(every table of a restaurant that has one already has at most i of s new guests), shape [spreads, s, i].

    By Pitman's formula it is s! / (theta)_s times the sum over k of theta (theta + alpha) ... (theta + (k - 1) alpha)
    times the coefficient of z^s in f(z)^k / k!, where f(z) = sum_{j <= i} (1 - alpha)_{j-1} z^j / j!.
    """
    found = np.zeros((len(SPREADS), _MOST + 1, _MOST + 1))
    for number, (theta, alpha) in enumerate(zip(SPREADS + DISCOUNTS, DISCOUNTS, strict=True)):
        scale = np.cumprod([1.0, *((s + 1) / (theta + s) for s in range(_MOST))])
        single = [0.0, *np.cumprod([1.0, *((j - alpha) / (j + 1) for j in range(1, _MOST))])]
        for i in range(_MOST + 1):
            series = np.array([*single[: i + 1], *[0.0] * (_MOST - i)])
            power, total, rising = np.eye(1, _MOST + 1)[0], np.eye(1, _MOST + 1)[0], 1.0
            for k in range(1, _MOST + 1):
                power = np.convolve(power, series)[: _MOST + 1] / k
                rising *= theta + (k - 1) * alpha
                total = total + rising * power
            found[number, :, i] = total * scale
    return np.clip(found, 0.0, 1.0)


_FEWER_NEW = np.concatenate([np.zeros((len(SPREADS), _MOST + 1, 1)), _largest_tables()], axis=2)  # P(all fewer than i)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a pattern of votes lets expect."""

    right: float  # probability that the leading answer is right; 0 where there is no answer
    gains: tuple[float, ...]  # rise of that after each of :data:`AHEAD` further samples, the silent ones counted
    difficulty: tuple[float, ...]  # probabilities of the bins, the easiest first


class AgreementModel:
    """Outlooks under a prior.

    Args:
        weights: shape :data:`SHAPE`, at least 0; probabilities once they are normalised.
        edges: pass rates between the bins of difficulty, falling.
    """

    def __init__(self, weights: Array, edges: Sequence[float] = EDGES) -> None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != SHAPE or not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
            raise CalibrationError(f"a prior over answers is of shape {SHAPE}, of numbers of at least 0: fit anew")
        self.weights = weights / weights.sum()
        passing = RATES[:, None] * (1 - SILENT)
        self._bin_of = np.sum(passing[None] < np.asarray(edges)[:, None, None], axis=0)  # shape [p, q]
        self._bins = len(edges) + 1
        self._known: dict[tuple[Answer, tuple[tuple[Answer, int], ...], int], Outlook] = {}

    def outlook(self, answers: Sequence[Answer], silent: int) -> Outlook:
        """Of these answers, the leading one first, and ``silent`` samples without an answer."""
        levels = Counter((votes, _rounded(tilt)) for votes, tilt in answers)
        first = (answers[0][0], _rounded(answers[0][1])) if answers else (0.0, 0.0)
        key = (first, tuple(sorted(levels.items(), reverse=True)), silent)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[key] = self._outlook(*key)
        return found

    def _outlook(self, leader: Answer, levels: Sequence[tuple[Answer, int]], silent: int) -> Outlook:
        # the leader's level first; those with the fewest votes win as seldom as those above them, or less
        order = sorted(levels, key=lambda level: level[0] != leader)
        held = np.array([*(votes for (votes, _), _ in order), 0.0])
        several = np.array([*(number for _, number in order), 1.0])
        tilt = np.array([*(tilted for (_, tilted), _ in order), 0.0])
        votes = [answer[0] for answer, number in order for _ in range(number)]
        log = log_likelihood(held, votes) + (tilt + np.log(several))[:, None, None]
        heard = log_silent(math.fsum(votes), silent)
        posterior = np.exp(log[..., None] + (heard - heard.max()) - log.max()) * self.weights
        posterior /= posterior.sum()
        now = posterior[0].sum(axis=(0, 1)) / several[0] if order else np.zeros(len(SILENT))  # shape [q]
        if len(order) > _LEVELS:
            rest = posterior[_LEVELS - 1 : -1].sum(axis=0, keepdims=True)
            posterior = np.concatenate([posterior[: _LEVELS - 1], rest, posterior[-1:]])
        kept = [(answer[0], number) for answer, number in order[:_LEVELS]]
        wins = _wins(tuple(kept), math.fsum(votes), len(votes))
        risen = np.tensordot(wins, posterior, axes=((0, 3, 1), (0, 1, 2))) - now  # shape [steps, q]
        bins = np.bincount(self._bin_of.ravel(), posterior.sum(axis=(0, 2)).ravel(), self._bins)
        gains = np.einsum("qks,sq->k", _HEARD, risen)
        return Outlook(float(now.sum()), tuple(gains.tolist()), tuple(bins.tolist()))


def _rounded(tilt: float) -> float:
    return round(min(max(tilt, -_MOST_TILT), _MOST_TILT) / QUANTUM) * QUANTUM


def log_likelihood(held: Array, votes: Sequence[float]) -> Array:
    """Log-probability of the answers' ``votes`` where one with the votes ``held`` is right, or none for 0.

    Shape [held, p, theta]; a constant is left out.
    """
    wrong = math.fsum(votes) - held
    tables = np.sum([_table(vote) for vote in votes], axis=0) if votes else np.zeros(len(SPREADS))
    own = np.array([_table(vote) if vote else (0.0,) * len(SPREADS) for vote in held.tolist()])
    opened = np.array([_opened(len(votes) - bool(vote)) for vote in held.tolist()])
    spread = opened + np.array([_seated(each) for each in wrong.tolist()]) + tables - own
    right = held[:, None] * np.log(RATES) + wrong[:, None] * np.log1p(-RATES)
    return np.asarray(right[:, :, None] + spread[:, None, :])


@lru_cache(maxsize=4096)
def _seated(guests: float) -> tuple[float, ...]:
    """log of Gamma(theta) / Gamma(theta + guests) for each of :data:`SPREADS`."""
    return tuple(math.lgamma(theta) - math.lgamma(theta + guests) for theta in SPREADS.tolist())


@lru_cache(maxsize=4096)
def _opened(tables: int) -> tuple[float, ...]:
    """log of theta (theta + alpha) ... (theta + (tables - 1) alpha)."""
    pairs = zip(SPREADS.tolist(), DISCOUNTS.tolist(), strict=True)
    return tuple(math.fsum(math.log(theta + number * alpha) for number in range(tables)) for theta, alpha in pairs)


@lru_cache(maxsize=4096)
def _table(guests: float) -> tuple[float, ...]:
    """log of Gamma(guests - alpha) / Gamma(1 - alpha)."""
    return tuple(
        math.lgamma(max(guests, alpha + _LEAST) - alpha) - math.lgamma(1 - alpha) for alpha in DISCOUNTS.tolist()
    )


def log_silent(answered: float, silent: int) -> Array:
    """Log-probability of so many samples with and without an answer, shape [q]."""
    return np.asarray(silent * np.log(SILENT) + answered * np.log1p(-SILENT))


@lru_cache(maxsize=4096)
def _wins(levels: tuple[tuple[float, int], ...], n: float, answers: int) -> Array:
    """P(the right answer leads), where it has the votes of a level or none yet (the last), after each of :data:`AHEAD`
    further answers; shape [levels + 1, spreads, steps, p]. It holds under every prior, so that it is kept.

    Of t further wrong answers some are new, in Polya's urn with theta + alpha * tables balls for a new one; they share
    among themselves as in a Chinese restaurant. The others go to the rivals there are, one after the other by a
    beta-binomial of what is left. Answers that tie share the lead: P(it leads) is E[1 / (1 + T)] with T that tie, the
    integral of E[z^T] over z from 0 to 1, taken by Simpson's rule.
    """
    theta, alpha = SPREADS, DISCOUNTS
    held = np.array([*(votes for votes, _ in levels), 0.0])
    tables = np.array([*([answers - 1] * len(levels)), answers])  # of wrong answers
    seated = np.maximum((n - held)[:, None] - tables[:, None] * alpha, _NEVER)  # balls of all rivals
    fresh = _urn(theta + tables[:, None] * alpha, seated)  # [cases, spreads, t, new ones]
    # votes of the right answer after so many more, [cases, j]
    reached = np.asarray(held[:, None] + _DRAWS, dtype=np.float64)
    first = np.cumsum([0, *(number for _, number in levels)])  # place of each case's own answer among all
    rivals = [votes for votes, number in levels for _ in range(number)][: _LEVELS + 1]
    behind = _behind(rivals, first, seated, reached, alpha)  # [z, cases, spreads, j, u]
    one = _index(np.ceil(reached))[:, None, :, None]
    spreads = np.arange(len(SPREADS))[:, None, None]
    below = _FEWER_NEW[spreads, _DRAWS, one]  # [cases, spreads, j, new ones]
    level = _FEWER_NEW[spreads, _DRAWS, _index(np.floor(reached) + 1)[:, None, :, None]]
    # where one vote is the most there is, each new answer ties; else those that tie count as one
    ties = np.where((reached <= 1)[:, None, :, None], _Z[..., None] ** _DRAWS, _Z[..., None])
    new = below + ties * (level - below)
    left = _WRONG[:, None] - _DRAWS  # for rivals, [pairs, new ones]
    able = np.where(left >= 0, fresh[:, :, _WRONG], 0.0)  # [cases, spreads, pairs, new ones]
    lead = behind[..., _RIGHT[:, None], np.maximum(left, 0)] * new[..., _RIGHT, :] * able
    shared = np.tensordot(_SIMPSON, lead.sum(axis=-1), axes=1)  # [cases, spreads, pairs]
    return np.asarray(np.tensordot(shared, _BINOMIAL, axes=1))


def _behind(rivals: Sequence[float], first: NDArray[np.int64], seated: Array, reached: Array, alpha: Array) -> Array:
    """E[z^ties; no rival is ahead], where u more wrong answers go to the rivals there are.

    Shape [z, cases, spreads, j, u]. ``rivals`` are those with the most votes; the others hardly ever win; ``first`` is
    the place among them of each case's own answer, which is no rival.
    """
    found = np.ones((len(_Z), *seated.shape, len(_DRAWS), len(_DRAWS)))
    own = [np.maximum(votes - alpha, _LEAST) for votes in rivals]
    for place in reversed(range(len(rivals))):
        before = sum((own[other] * (first != other)[:, None] for other in range(place)), np.zeros((len(first), 1)))
        balls = _urn(own[place][None], np.maximum(seated - before - own[place], _NEVER))  # [cases, spreads, u, i]
        votes = rivals[place] + _DRAWS
        ahead, tied = votes[None, None] > reached[..., None], votes[None, None] == reached[..., None]  # [cases, j, i]
        kept = np.where(ahead, 0.0, np.where(tied, _Z, 1.0))  # [z, cases, j, i]
        passed = np.zeros_like(found)
        for i in _DRAWS[kept.any(axis=(0, 1, 2))].tolist():  # that many of u go to this one, the others to those after
            share = balls[:, :, None, i:, i] * found[..., : len(_DRAWS) - i]
            passed[..., i:] += share * kept[:, :, None, :, None, i]
        found = np.where((first == place)[:, None, None, None], found, passed)
    return found


def _index(votes: Array) -> NDArray[np.int64]:
    return np.clip(votes, 0, _MOST + 1).astype(np.int64)


def _urn(own: Array, rest: Array) -> Array:
    """Beta-binomial probabilities of i of t draws, where ``own`` balls stand against ``rest``, both of at least one
    dimension; shape [*broadcast, t, i].
    """
    rising_own, rising_rest, rising_both = _rising(own), _rising(rest), _rising(own + rest)
    left = np.maximum(_DRAWS[:, None] - _DRAWS, 0)  # t - i
    return np.asarray(np.exp(_LOG_CHOOSE + rising_own[..., None, :] + rising_rest[..., left] - rising_both[..., None]))


def _rising(x: Array) -> Array:
    """Logarithms of x (x + 1) ... (x + i - 1), shape [*x, i]."""
    found = np.zeros((*x.shape, _MOST + 1))
    np.cumsum(np.log(x[..., None] + _DRAWS[:-1]), axis=-1, out=found[..., 1:])
    return found
