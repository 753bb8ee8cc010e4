"""What is known of answers before any is seen: a mixture of what was measured on several pairs, sharpened as one goes.

Every component is a distribution over (p, theta, q), see :mod:`adaptive_ttc.estimate.agreement`, fitted to graded
samples of one model on one data set; none of them looks at a prompt. Which components a pool of problems is like
follows from the agreement among its own samples, without any right answer: their shares are fitted by expectation
maximisation under a Dirichlet prior.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement import SHAPE, Array, log_likelihood, log_silent
from adaptive_ttc.files.bounded import CALIBRATION, read_whole

SCHEMA = 1
SHIPPED = "answer_priors.json"
_SCALE = 10_000  # weights are stored as whole numbers of this


@dataclass(frozen=True, slots=True)
class Component:
    """What was measured of one model on one data set."""

    name: str  # of the set
    model: str
    dataset: str
    problems: int  # how many it was fitted to
    weights: Array  # shape SHAPE, in sum 1
    tokens: float = 0.0  # mean of a sample; 0 where it is not known


@dataclass(frozen=True, slots=True)
class AnswerPrior:
    """A mixture of components."""

    components: tuple[Component, ...]
    shares: tuple[float, ...]  # in sum 1
    strength: float = 4.0  # problems that ``shares`` count for against what a pool shows

    @classmethod
    def of(cls, components: Sequence[Component]) -> Self:
        """All alike. CalibrationError: there is none."""
        if not components:
            raise CalibrationError("a prior over answers is made of at least one measured set")
        return cls(tuple(components), (1 / len(components),) * len(components))

    @property
    def weights(self) -> Array:
        """Of the mixture, shape SHAPE."""
        stacked = np.stack([one.weights for one in self.components])
        return np.asarray(np.tensordot(np.array(self.shares), stacked, axes=1))

    def without(self, models: Collection[str], datasets: Collection[str] = ()) -> AnswerPrior:
        """Without what was measured of these models, or on these data sets: for a fair test on them."""
        kept = [one for one in self.components if one.model not in models and one.dataset not in datasets]
        return AnswerPrior.of(kept)

    def sharpened(self, seen: Sequence[Array], rounds: int = 20) -> AnswerPrior:
        """After problems with these likelihoods (of :func:`likelihood`, each of shape SHAPE)."""
        if not seen or len(self.components) == 1:
            return self
        stacked = np.stack([one.weights.ravel() for one in self.components])
        evidence = np.stack([one.ravel() for one in seen]) @ stacked.T  # shape [problems, components]
        evidence /= np.maximum(evidence.max(axis=1, keepdims=True), 1e-300)
        start = np.array(self.shares)
        shares = start
        for _ in range(rounds):
            responsible = evidence * shares
            responsible /= np.maximum(responsible.sum(axis=1, keepdims=True), 1e-300)
            shares = responsible.sum(axis=0) + self.strength * start
            shares = shares / shares.sum()
        return replace(self, shares=tuple(shares.tolist()))

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "shape": list(SHAPE),
            "strength": self.strength,
            "components": [_stored(one, share) for one, share in zip(self.components, self.shares, strict=True)],
        }

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Self:
        """From :meth:`as_data`. CalibrationError: damaged, or of another version."""
        try:
            if data["schema"] != SCHEMA or tuple(data["shape"]) != SHAPE:
                raise CalibrationError(f"a prior over answers of schema {SCHEMA} and shape {SHAPE} is needed: fit anew")
            components = tuple(_component(one) for one in data["components"])
            shares = np.array([float(one["share"]) for one in data["components"]])
            if not len(shares) or not (shares >= 0).all() or not 0 < shares.sum() < math.inf:
                raise ValueError("shares are probabilities")
            return cls(components, tuple((shares / shares.sum()).tolist()), float(data["strength"]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CalibrationError(f"a prior over answers is damaged ({error!r}): fit anew") from error

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the JSON of :meth:`as_data`. CalibrationError: missing, cut off or damaged."""
        try:
            return cls.of_data(json.loads(read_whole(path, CALIBRATION, CalibrationError, "fit anew")))
        except OSError as error:
            raise CalibrationError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise CalibrationError(f"{path} is cut off or damaged ({error}): fit anew") from error


def likelihood(votes: Sequence[float], silent: int, right: float | None = None) -> Array:
    """P(these votes | p, theta, q) up to a factor; shape SHAPE, at most 1.

    ``right``: votes of the right answer, 0 for none; None where any may be right, or none.
    """
    levels = Counter({right: 1} if right is not None else {**Counter(votes), 0.0: 1})
    held, several = np.array([*levels]), np.log([*levels.values()])
    log = (log_likelihood(held, votes) + several[:, None, None])[..., None] + log_silent(math.fsum(votes), silent)
    return np.asarray(np.exp(log - log.max()).sum(axis=0) / len(log))


@cache
def shipped_prior() -> AnswerPrior:
    """The prior that comes with the library."""
    text = files("adaptive_ttc.estimate").joinpath(SHIPPED).read_text(encoding="utf-8")
    return AnswerPrior.of_data(json.loads(text))


def _stored(one: Component, share: float) -> dict[str, Any]:
    whole = np.round(one.weights.ravel() * _SCALE).astype(int)
    return {
        "name": one.name,
        "model": one.model,
        "dataset": one.dataset,
        "problems": one.problems,
        "tokens": round(one.tokens, 1),
        "share": round(share, 6),
        "cells": {str(cell): int(whole[cell]) for cell in np.flatnonzero(whole)},
    }


def _component(data: Mapping[str, Any]) -> Component:
    weights = np.zeros(SHAPE).ravel()
    for cell, whole in data["cells"].items():
        weights[int(cell)] = whole
    if not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
        raise ValueError(f"the weights of {data['name']} are no probabilities")
    # no cell is impossible: what is stored is rounded, and what was not seen may still be met
    weights = 0.99 * weights / weights.sum() + 0.01 / weights.size
    return Component(
        name=str(data["name"]),
        model=str(data["model"]),
        dataset=str(data["dataset"]),
        problems=int(data["problems"]),
        weights=weights.reshape(SHAPE),
        tokens=float(data["tokens"]),
    )
