"""What the entries of a journal say about strategies: accuracy, cost, differences, by difficulty; it samples nothing.

Every measure is one number a problem, so that all intervals are bootstraps over the same problems, and differences
are paired. What a pool of samples says about k of them is an expectation over its subsets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from arms import POOL, POOLED, SAMPLES, Arm
from journal import Entry, Journal
from numpy.typing import NDArray

from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.evaluation.evaluate import Pool
from adaptive_ttc.evaluation.metrics import NO_ANSWER, Interval, interval, paired_interval, pass_at_k, quintiles
from adaptive_ttc.types import split_steps

BASELINE = "weighted_best_of_n"
QUINTILES = range(5)
MIDDLE = (1, 2, 3)
MEANS = ("coverage", "generated_tokens", "prm_tokens", "flops", "candidates", "effective_n")

Column = NDArray[np.float64]
Figure = float | int | list[float] | list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an arm did, one number a problem in every column of shape [problems].

    Attributes:
        accuracy: probability that its answer is right.
        coverage: probability that a right answer is among its candidates.
        generated_tokens: of the policy; ``prm_tokens`` of the PRM; ``flops`` of both.
        candidates: solutions that were handed in; ``effective_n`` those of them that voted.
    """

    accuracy: Column
    coverage: Column
    generated_tokens: Column
    prm_tokens: Column
    flops: Column
    candidates: Column
    effective_n: Column


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All arms on the same problems.

    Attributes:
        arms: what was measured; the baseline at every N among it.
        asked: the arms that are to be reported, in their order.
        pass_at_1: share of right samples of every problem, shape [problems].
        quintile: difficulty of every problem by that share, 0 the easiest.
    """

    arms: Mapping[Arm, Measured]
    asked: tuple[Arm, ...]
    pass_at_1: Column
    quintile: NDArray[np.int64]

    def accuracy(self, arm: Arm, quintiles: Sequence[int] = QUINTILES) -> Interval | None:
        """Mean over the problems of some quintiles, with its interval; None where there is no problem."""
        chosen = np.isin(self.quintile, quintiles)
        return interval(self.arms[arm].accuracy[chosen]) if chosen.any() else None

    def difference(self, arm: Arm, other: Arm, quintiles: Sequence[int] = QUINTILES) -> Interval | None:
        """Mean of the first's accuracy less the other's, paired by problem."""
        chosen = np.isin(self.quintile, quintiles)
        if not chosen.any():
            return None
        return paired_interval(self.arms[arm].accuracy[chosen], self.arms[other].accuracy[chosen])

    def mean(self, arm: Arm, name: str) -> float:
        """Mean of a column of :class:`Measured` over the problems."""
        return float(getattr(self.arms[arm], name).mean())

    def against_baseline(self, arm: Arm, quintiles: Sequence[int] = QUINTILES) -> Interval | None:
        """:meth:`difference` from weighted best-of-N at the same N; None for itself and for greedy."""
        if arm.strategy in (BASELINE, "greedy"):
            return None
        return self.difference(arm, Arm(BASELINE, arm.n), quintiles)


def compare(journal: Journal, rows: Sequence[Row], asked: Sequence[Arm]) -> Comparison:
    """Read the arms' entries of these problems, all of which must be there.

    Args:
        journal: of a run that is done.
        rows: the problems.
        asked: the arms.
    """
    pools = [journal[POOL, SAMPLES, row["unique_id"]] for row in rows]
    needed = dict.fromkeys([*asked, *(Arm(BASELINE, arm.n) for arm in asked)])
    arms = {}
    for arm in needed:
        if arm.strategy in POOLED:
            found = [_of_pool(entry, row, arm, seed) for seed, (entry, row) in enumerate(zip(pools, rows, strict=True))]
        else:
            found = [_of_search(journal[arm.strategy, arm.n, row["unique_id"]]) for row in rows]
        arms[arm] = Measured(**{name: np.array([one[name] for one in found], dtype=float) for name in found[0]})
    rates = np.array([np.mean(entry["correct"]) for entry in pools])
    return Comparison(arms=arms, asked=tuple(asked), pass_at_1=rates, quintile=quintiles(rates))


def figures_of(comparison: Comparison) -> dict[str, Figure]:
    """The figures that ``strategies.py`` describes; nan, which is written as null, for an empty quintile."""
    by_quintile = [comparison.quintile == one for one in QUINTILES]
    figures: dict[str, Figure] = {
        "problems": len(comparison.pass_at_1),
        "problems_by_quintile": [int(chosen.sum()) for chosen in by_quintile],
        "pass_at_1": float(comparison.pass_at_1.mean()),
        "pass_at_1_by_quintile": [
            float(comparison.pass_at_1[chosen].mean()) if chosen.any() else math.nan for chosen in by_quintile
        ],
    }
    for arm in comparison.asked:
        name = f"{arm.strategy}.{arm.n}"
        figures |= _spread("accuracy", name, comparison.accuracy(arm))
        figures |= _spread_by_quintile("accuracy", name, [comparison.accuracy(arm, [one]) for one in QUINTILES])
        figures |= {f"{measure}.{name}": comparison.mean(arm, measure) for measure in MEANS}
        if difference := comparison.against_baseline(arm):
            figures |= _spread("difference", name, difference)
            parts = [comparison.against_baseline(arm, [one]) for one in QUINTILES]
            figures |= _spread_by_quintile("difference", name, parts)
            figures |= _spread("middle_difference", name, comparison.against_baseline(arm, MIDDLE))
        if arm.strategy == "dvts" and (beam := Arm("beam_search", arm.n)) in comparison.arms:
            figures |= _spread("dvts_minus_beam_search", str(arm.n), comparison.difference(arm, beam))
    return figures


def _spread(measure: str, name: str, found: Interval | None) -> dict[str, Figure]:
    if found is None:
        return {}
    return {
        f"{measure}.{name}": found.mean,
        f"{measure}_low.{name}": found.low,
        f"{measure}_high.{name}": found.high,
    }


def _spread_by_quintile(measure: str, name: str, found: Sequence[Interval | None]) -> dict[str, Figure]:
    return {
        f"{measure}.{name}_by_quintile": [one.mean if one else math.nan for one in found],
        f"{measure}_low.{name}_by_quintile": [one.low if one else math.nan for one in found],
        f"{measure}_high.{name}_by_quintile": [one.high if one else math.nan for one in found],
    }


def _of_search(entry: Entry) -> dict[str, float]:
    same = ("generated_tokens", "prm_tokens", "flops", "candidates", "effective_n")
    return {"accuracy": entry["correct"], "coverage": entry["covered"], **{name: entry[name] for name in same}}


def _of_pool(entry: Entry, row: Row, arm: Arm, seed: int) -> dict[str, float]:
    """Expectations for ``arm.n`` samples of a pool; the prompt is computed once however many there are."""
    pool, share = _pool(entry, row), arm.n / SAMPLES
    scored = 0.0 if arm.strategy == "majority" else _scored_share(entry, arm.n)
    return {
        "accuracy": pool.accuracy(arm.strategy, arm.n, seed=seed),
        "coverage": pool.pass_at(arm.n),
        "generated_tokens": float(pool.tokens.sum()) * share,
        "prm_tokens": entry["prm_tokens"] * scored,
        "flops": entry["prompt_flops"] + entry["decode_flops"] * share + entry["score_flops"] * scored,
        "candidates": float(arm.n),
        "effective_n": float((pool.classes != NO_ANSWER).sum()) * share,
    }


def _scored_share(entry: Entry, k: int) -> float:
    """Share of a pool's PRM tokens that k of its samples take.

    What several samples have in common is read once: equal solutions by the solver, equal beginnings too by a PRM
    with a prefix cache. What m samples of the pool have in common is among k of them with the probability that
    pass@k states for m right ones, so the share falls less than k does.
    """
    holders: dict[tuple[str, ...], set[int]] = {}
    tokens: dict[tuple[str, ...], int] = {}
    pieces = _pieces_with_cache if entry["prm_cached_tokens"] else _pieces
    for index, (text, counts) in enumerate(zip(entry["texts"], entry["score_tokens"], strict=True)):
        if counts:
            for steps, number in pieces(split_steps(text), counts, entry["question_tokens"]):
                holders.setdefault(steps, set()).add(index)
                tokens[steps] = number
    samples = np.arange(len(entry["texts"]))
    read = math.fsum(tokens[one] * pass_at_k(np.isin(samples, list(holders[one])), k) for one in tokens)
    return read / sum(tokens.values()) if tokens else 0.0


_Pieces = list[tuple[tuple[str, ...], int]]


def _pieces(steps: tuple[str, ...], counts: Sequence[int], question: int) -> _Pieces:
    """The whole solution, with its tokens."""
    return [(steps, counts[-1])]


def _pieces_with_cache(steps: tuple[str, ...], counts: Sequence[int], question: int) -> _Pieces:
    """The question, and every step after those before it, each with its own tokens."""
    own = [question, *(max(0, after - before) for before, after in pairwise([question, *counts]))]
    return [(steps[:number], tokens) for number, tokens in enumerate(own)]


def _pool(entry: Entry, row: Row) -> Pool:
    return Pool(
        row=row,
        correct=np.array(entry["correct"], dtype=bool),
        classes=np.array(entry["classes"], dtype=np.int64),
        scores=np.array([np.nan if score is None else score for score in entry["scores"]]),
        tokens=np.array(entry["tokens"], dtype=np.int64),
        texts=tuple(entry["texts"]),
    )
