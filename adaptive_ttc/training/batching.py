"""Rendered samples in batches of about the same length; it imports no torch."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.prm.format import Row
from adaptive_ttc.training.graded import Graded, by_problem
from adaptive_ttc.training.settings import Balance

MOST_WEIGHT = 4.0
"""Of one label among those of its problem: a single right sample among many wrong ones is not everything."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample in the verifier's format.

    Attributes:
        graded: the sample.
        row: what the model reads, as the reader of the finished verifier renders it.
        labels: shape [ends of the row]: in [0, 1]; nan where nothing is learned.
        weights: shape [ends of the row]: what each label counts in the loss.
    """

    graded: Graded
    row: Row
    labels: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def length(self) -> int:
        """Tokens that the model reads."""
        return len(self.row.token_ids)


def examples_of(graded: Sequence[Graded], rows: Sequence[Row], *, balance: Balance) -> list[Example]:
    """Put labels and weights to rendered samples.

    Balanced, a label y of a problem with mean label p weighs y / 2p + (1 - y) / 2(1 - p), at most
    :data:`MOST_WEIGHT`, and a problem whose labels are all alike weighs nothing.
    """
    means: dict[str, float] = {}
    for key, some in by_problem(graded).items():
        known = [label for one in some for label in one.labels if not math.isnan(label)]
        means[key] = math.fsum(known) / len(known) if known else 0.0
    found = []
    for one, row in zip(graded, rows, strict=True):
        mine = one.labels
        weights = tuple(1.0 if balance == "none" else _weight(label, means[one.key]) for label in mine)
        found.append(
            Example(one, row, mine, tuple(0.0 if math.isnan(y) else w for y, w in zip(mine, weights, strict=True)))
        )
    return found


def _weight(label: float, mean: float) -> float:
    if not 0 < mean < 1:
        return 0.0
    return min(MOST_WEIGHT, label / (2 * mean) + (1 - label) / (2 * (1 - mean)))


def bucketed(lengths: Sequence[int], tokens: int, rng: random.Random | None = None) -> list[list[int]]:
    """Indices of all rows, each once, in batches of at most ``tokens`` padded tokens (a longer row is one by itself).

    Rows of about the same length come together; ``rng`` shuffles those of one length, and the batches. How many batches
    there are depends on the lengths alone.
    """
    order = list(range(len(lengths)))
    if rng is not None:
        rng.shuffle(order)
    order.sort(key=lengths.__getitem__)
    batches: list[list[int]] = []
    for index in order:
        if not batches or (len(batches[-1]) + 1) * lengths[index] > tokens:
            batches.append([])
        batches[-1].append(index)
    if rng is not None:
        rng.shuffle(batches)
    return batches


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which rows every optimiser step reads, reproducibly: step number -> batches.

    Attributes:
        lengths: of the rows, in tokens.
        tokens: padded tokens of a batch at most.
        accumulate: batches of a step; the last step of an epoch may have fewer.
        seed: of the order, which differs between epochs.
    """

    lengths: tuple[int, ...]
    tokens: int
    accumulate: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in which every row is read once."""
        return math.ceil(len(bucketed(self.lengths, self.tokens)) / self.accumulate)

    def step(self, number: int) -> list[list[int]]:
        """The batches of one optimiser step, counted from 0 over all epochs."""
        epoch, at = divmod(number, self.steps_per_epoch)
        batches = bucketed(self.lengths, self.tokens, random.Random(f"{self.seed}/{epoch}"))
        return batches[at * self.accumulate : (at + 1) * self.accumulate]
