"""Labels of difficulty, the rows that classifiers are fitted to at every stage, and their training.

A rate measured on n samples is uncertain, so a problem is in every bin with the probability that its rate lies there,
under a Beta posterior whose prior is fitted to all problems (empirical Bayes).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from adaptive_ttc.calibration.collect.records import ProblemRecord
from adaptive_ttc.calibration.fit.classifier import DifficultyClassifier, Fitting
from adaptive_ttc.calibration.judge.held_out import CrossFitted, Folds, check_folds
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.difficulty import BINS, STAGES, DifficultyModel, Stage
from adaptive_ttc.estimate.features import Evidence, Reading

Array = NDArray[np.float64]

LEAST_PROBLEMS = 20
APART = 1e-3  # between the edges of bins, at least
_ALIKE = 0.01  # p-value above which the counts look like those of equally hard problems
_PRIOR = (0.05, 200.0)  # bounds of both parameters


@dataclass(frozen=True, slots=True)
class Counts:
    """Right and drawn samples of every problem."""

    right: Array  # shape [problems]; may be broken, where a unit hands in several solutions
    drawn: Array  # shape [problems]

    @property
    def rates(self) -> Array:
        """The measured pass@1, shape [problems]; nan where nothing was drawn."""
        rates = np.divide(self.right, self.drawn, out=np.full(len(self.drawn), np.nan), where=self.drawn > 0)
        return np.asarray(rates)


def outcomes(record: ProblemRecord, kind: str = "sample") -> Array:
    """Share of right attempts in every unit of a kind; 0 for a unit without attempts."""
    units = record.units.get(kind, ())
    return np.array([sum(one.correct) / len(one.correct) if one.correct else 0.0 for one in units])


def counts_of(records: Sequence[ProblemRecord], kind: str = "sample") -> Counts:
    """Right and drawn units of every problem."""
    results = [outcomes(record, kind) for record in records]
    return Counts(np.array([one.sum() for one in results]), np.array([float(len(one)) for one in results]))


def counts_without(record: ProblemRecord, shown: Collection[int]) -> tuple[float, float]:
    """Right and drawn samples of a problem, without those of indices ``shown`` to a classifier.

    Counting them in the label too would let a classifier on a small pool repeat what it was shown.
    """
    kept = np.delete(outcomes(record), list(shown))
    return float(kept.sum()), float(len(kept))


@dataclass(frozen=True, slots=True)
class Prior:
    """Beta(a, b) over pass rates of problems."""

    a: float
    b: float

    @classmethod
    def fit(cls, counts: Counts) -> Prior:
        """Maximum of the Beta-binomial likelihood of the counts, with a weak pull towards Beta(1, 1)."""

        def loss(logs: Array) -> float:
            a, b = np.exp(logs)
            likelihood = special.betaln(a + counts.right, b + counts.drawn - counts.right) - special.betaln(a, b)
            return float(-likelihood.sum() + (logs**2).sum() / 2)

        bounds = [tuple(np.log(_PRIOR))] * 2
        found = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=bounds)
        a, b = np.exp(found.x)
        return cls(float(a), float(b))


@dataclass(frozen=True, slots=True)
class Bins:
    """Five bins of difficulty."""

    edges: tuple[float, ...]  # four pass rates, falling; bin 0, the easiest, holds the rates from the first edge on
    prior: Prior  # over rates

    @classmethod
    def fit(cls, counts: Counts) -> Bins:
        """Quintiles of pass@1 under the posterior of the rates.

        Quintiles of the measured rates coincide as soon as a fifth of the problems is never solved.
        """
        check_counts(counts)
        prior = Prior.fit(counts)
        a, b = prior.a + counts.right, prior.b + counts.drawn - counts.right
        grid = special.expit(np.linspace(-12, 12, 241))
        below = np.array([special.betainc(a, b, rate).mean() for rate in grid])
        edges = np.interp(np.arange(BINS - 1, 0, -1) / BINS, below, grid)
        return cls(_falling(edges.tolist()), prior)

    def harder(self, right: ArrayLike, drawn: ArrayLike) -> Array:
        """P(harder than edge k | counts), shape [problems, 4], falling along k."""
        won, lost = np.asarray(right, dtype=float), np.asarray(drawn, dtype=float) - np.asarray(right, dtype=float)
        return np.stack(
            [special.betainc(self.prior.a + won, self.prior.b + lost, edge) for edge in self.edges], axis=-1
        )

    def soft(self, right: ArrayLike, drawn: ArrayLike) -> Array:
        """P(bin | counts), shape [problems, 5]."""
        harder = self.harder(right, drawn)
        ends = np.ones((*harder.shape[:-1], 1))
        return -np.diff(np.concatenate([ends, harder, 0 * ends], axis=-1), axis=-1)


def _falling(edges: Sequence[float]) -> tuple[float, ...]:
    """Edges kept apart where they coincide: more than a fifth of the problems is solved always, or never."""
    if all(high > low for high, low in pairwise(edges)):
        return tuple(edges)
    apart: list[float] = []
    for edge in edges:
        kept = min(max(edge, BINS * APART), 1 - BINS * APART)
        apart.append(min(kept, apart[-1] - APART) if apart else kept)
    return tuple(apart)


def check_enough(problems: int, folds: int) -> None:
    """Refuse problems of which too few are left beside a fold; none at all is another matter."""
    left = problems - -(-problems // max(folds, 1))
    if problems and left < LEAST_PROBLEMS:
        raise CalibrationError(
            f"{problems} problems in {folds} folds leave {left} to learn from; {LEAST_PROBLEMS} are the least: take "
            f"at least {-(-LEAST_PROBLEMS * folds // max(folds - 1, 1))} problems (--limit), or more folds"
        )


def check_counts(counts: Counts) -> None:
    """Refuse counts from which no difficulty can be learned."""
    problems = len(counts.drawn)
    if problems < LEAST_PROBLEMS:
        raise CalibrationError(f"{problems} problem(s) are too few for five bins: take at least {LEAST_PROBLEMS}")
    if (counts.drawn < 2).any():
        raise CalibrationError(
            f"{int((counts.drawn < 2).sum())} problem(s) have fewer than 2 graded samples, so that how hard they are "
            "cannot be told from chance: draw more, or leave them out"
        )
    total, drawn = counts.right.sum(), counts.drawn.sum()
    for result, advice, edge in (("wrong", "easier", 0.0), ("right", "harder", drawn)):
        if total == edge:
            raise CalibrationError(
                f"every sample of every problem is {result}, so that there is no difficulty to learn: take {advice} "
                "problems, and check how answers are graded"
            )
    mean = total / drawn
    excess = ((counts.right - mean * counts.drawn) ** 2 / (counts.drawn * mean * (1 - mean))).sum()
    if stats.chi2.sf(excess, problems - 1) > _ALIKE:
        raise CalibrationError(
            f"all problems look equally hard (each is solved at about {mean:.0%}, up to chance): take problems of "
            "mixed difficulty, or draw more samples of each"
        )


PERMUTATIONS = 2  # random orders of a problem's samples that are shown; more cost time and tell little that is new
_LEFT = 2  # samples that are not shown, at least: the label is counted on them


@dataclass(frozen=True, slots=True)
class StageRows:
    """Features and labels of a stage: a row for every problem and order of its samples."""

    features: Array  # shape [rows, features]
    problem: NDArray[np.str_]  # shape [rows], ids
    group: NDArray[np.str_]  # shape [rows], of the problems: folds keep it together
    # right, drawn: shape [rows]: samples that the row does not show
    right: Array
    drawn: Array
    weight: Array  # shape [rows]: those of a problem sum to 1

    def __len__(self) -> int:
        return len(self.weight)

    def of(self, ids: Sequence[str]) -> StageRows:
        """Rows of these problems."""
        kept = np.isin(self.problem, list(ids))
        return StageRows(**{one.name: getattr(self, one.name)[kept] for one in fields(self)})


def stage_evidence(record: ProblemRecord, stage: Stage, order: Sequence[int]) -> Evidence | None:
    """Evidence of a stage when samples come in this order; None where the record holds too few."""
    samples = record.units.get("sample", ())
    shown = [samples[index].unit for index in order[: _shown(stage)]]
    greedy = [one.unit for one in record.units.get("greedy", ())[: stage.greedy]]
    return stage.view(record.nothing().plus(*shown, *greedy))


def possible_stages(records: Sequence[ProblemRecord]) -> tuple[Stage, ...]:
    """Stages recorded for nine in ten problems, and for enough to learn from."""
    least = max(0.9 * len(records), min(LEAST_PROBLEMS, len(records)))
    return tuple(stage for stage in STAGES if sum(_holds(record, stage) for record in records) >= least)


def stage_rows(
    records: Sequence[ProblemRecord], stage: Stage, reading: Reading, permutations: int = PERMUTATIONS, seed: int = 0
) -> StageRows:
    """Rows of all problems that hold the stage; so many random orders of the samples, one where none is shown."""
    features, problem, group, right, drawn, weight = [], [], [], [], [], []
    orders = permutations if _shown(stage) else 1
    for record in records:
        if not _holds(record, stage):
            continue
        for number in range(orders):
            order = list(range(len(record.units.get("sample", ()))))
            random.Random(f"{seed}/{number}/{record.id}").shuffle(order)
            evidence = stage_evidence(record, stage, order)
            if evidence is None:
                continue
            won, rest = counts_without(record, order[: _shown(stage)])
            features.append(reading.features(evidence))
            problem.append(record.id)
            group.append(record.own_group)
            right.append(won)
            drawn.append(rest)
            weight.append(1 / orders)
    shape = (len(features), len(reading.names))
    columns = (np.array(column) for column in (problem, group, right, drawn, weight))
    return StageRows(np.array(features).reshape(shape), *columns)


def _shown(stage: Stage) -> int:
    return max(stage.steps, stage.finished)


def _holds(record: ProblemRecord, stage: Stage) -> bool:
    samples = len(record.units.get("sample", ()))
    return samples >= _shown(stage) + _LEFT and stage_evidence(record, stage, range(samples)) is not None


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Fitted bins and classifiers."""

    bins: Bins  # of pass@1, on the problems that it was learned from
    model: DifficultyModel  # what runs
    # stage -> family of models -> log-loss out of fold, in nats, of which the least was kept
    losses: Mapping[str, Mapping[str, float]]


class DifficultyTrainer:
    """Trains on any subset of the problems, whose rows are made once."""

    def __init__(self, records: Sequence[ProblemRecord], reading: Reading, fitting: Fitting | None = None) -> None:
        self.reading, self.fitting = reading, fitting or Fitting()
        self.stages = possible_stages(records)
        self.rows = {stage.name: stage_rows(records, stage, reading, seed=self.fitting.seed) for stage in self.stages}

    def train(self, records: Sequence[ProblemRecord]) -> Difficulty:
        """Fit bins and classifiers on these problems only."""
        bins = Bins.fit(counts_of(records))
        ids = [record.id for record in records]
        models, losses = {}, {}
        for name, all_rows in self.rows.items():
            rows = all_rows.of(ids)
            soft = bins.soft(rows.right, rows.drawn)
            classifier = DifficultyClassifier(self.reading.names, self.fitting)
            models[name] = classifier.fit(rows.features, soft, rows.weight, rows.group).model_
            losses[name] = dict(classifier.losses_)
        return Difficulty(bins, DifficultyModel(bins.edges, self.reading, models), losses)


def crossfitted_difficulty(
    records: Sequence[ProblemRecord], folds: Folds, trainer: DifficultyTrainer
) -> CrossFitted[Difficulty]:
    """One :class:`Difficulty` for each fold, fitted on the others."""
    check_folds(len(records), folds.count)
    return folds.fit(records, trainer.train)
