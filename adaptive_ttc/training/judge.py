"""What a verifier is worth on held-out problems; it imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from adaptive_ttc.evaluation.metrics import NO_ANSWER, auc, vote_at_k, within_auc
from adaptive_ttc.training.graded import Graded, by_problem


@dataclass(frozen=True, slots=True)
class Figures:
    """Of held-out samples; nan where there is nothing to measure on.

    Attributes:
        auc: a right solution's last score is above a wrong one's, over all samples.
        auc_within: the same within a problem, the mean over those with right and wrong ones.
        auc_steps: the same of steps within a problem, by their labels; nan where only last steps have one.
        majority: share of the problems with an answer whose majority vote over all samples is right.
        weighted: the same of the vote weighed by last scores.
        loss: mean cross-entropy in nats over the labels.
        mixed: problems that ``auc_within`` is over.
    """

    auc: float
    auc_within: float
    auc_steps: float
    majority: float
    weighted: float
    loss: float
    mixed: int

    @property
    def gain(self) -> float:
        """Of the weighted vote over the majority, in shares of the problems."""
        return self.weighted - self.majority

    @property
    def better_by(self) -> float:
        """What decides which weights are kept, more being better: the mean of the AUCs within problems of whole
        solutions and of steps, as far as there are any; without either the loss.
        """
        known = [value for value in (self.auc_within, self.auc_steps) if not math.isnan(value)]
        return math.fsum(known) / len(known) if known else -self.loss

    def entries(self) -> dict[str, float | None]:
        """For a file; None where there is nothing to measure on."""
        values = {**asdict(self), "gain": self.gain}
        return {key: None if math.isnan(value) else round(value, 5) for key, value in values.items()}


def figures(rows: Sequence[Graded], scores: Sequence[Sequence[float]]) -> Figures:
    """Measure; ``scores`` holds one in [0, 1] for each step of every row."""
    outcomes, steps, votes = [], [], []
    place = {id(row): index for index, row in enumerate(rows)}
    for some in by_problem(rows).values():
        mine = [(row, scores[place[id(row)]]) for row in some]
        known = [(row, values) for row, values in mine if not math.isnan(row.outcome)]
        if known:
            last = np.array([values[-1] for _, values in known])
            right = np.array([row.outcome > 0.5 for row, _ in known])
            outcomes.append((last, right))
            votes += _votes([row for row, _ in known], last, right)
        pairs = [pair for row, values in mine for pair in _judged(row, values)]
        steps.append((np.array([score for _, score in pairs]), np.array([label > 0.5 for label, _ in pairs])))
    stepwise = any(not math.isnan(label) for row in rows for label in row.labels[:-1])
    scored, graded = (np.concatenate(part) for part in zip(*outcomes, strict=True)) if outcomes else ((), ())
    return Figures(
        auc=auc(scored, graded) if len(graded) else math.nan,
        auc_within=within_auc(outcomes),
        auc_steps=within_auc([one for one in steps if len(one[1])]) if stepwise else math.nan,
        majority=_mean([even for even, _ in votes]),
        weighted=_mean([weighted for _, weighted in votes]),
        loss=_loss([one for pair in zip(rows, scores, strict=True) for one in _judged(*pair)]),
        mixed=sum(len(set(right.tolist())) == 2 for _, right in outcomes),
    )


def _votes(rows: Sequence[Graded], last: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """Whether the even and the weighted vote of a problem are right; an answer is as right as most of its samples."""
    names = sorted({row.answer for row in rows if row.answer is not None})
    if not names:
        return []
    classes = np.array([NO_ANSWER if row.answer is None else names.index(row.answer) for row in rows])
    share = [float(right[classes == number].mean()) for number in range(len(names))]
    correct = np.array([number != NO_ANSWER and share[number] > 0.5 for number in classes])
    n = len(rows)
    return [(vote_at_k(classes, correct, n), vote_at_k(classes, correct, n, weights=last))]


def _judged(row: Graded, scores: Sequence[float]) -> list[tuple[float, float]]:
    """The labels that are known, with their scores."""
    return [pair for pair in zip(row.labels, scores, strict=True) if not math.isnan(pair[0])]


def _loss(pairs: Sequence[tuple[float, float]]) -> float:
    found = []
    for label, score in pairs:
        p = min(max(score, 1e-7), 1 - 1e-7)
        found.append(-label * math.log(p) - (1 - label) * math.log(1 - p))
    return _mean(found)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
