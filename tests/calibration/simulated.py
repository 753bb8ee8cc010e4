"""Graded records of problems that nobody solved: a solver and a PRM of known quality, simulated; no model at all.

A problem has a rate p at which a sample is right, and so many steps. Every step keeps a right prefix right with
probability p ** (1 / steps), and nothing saves a wrong one. The PRM's logit for a prefix tells whether it is right,
with noise of its own and a bias that all prefixes of the problem share. Trees search these same steps by these same
scores, so that they gain what a search gains.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.estimate.features import Attempt, FirstStep, Unit

M = 4
N = 16


@dataclass(frozen=True)
class Path:
    """A simulated solution so far."""

    right: bool = True
    scores: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    logprob: float = 0.0

    def first(self) -> FirstStep:
        return FirstStep(self.scores[0], self.tokens[0], self.logprob if len(self.scores) == 1 else math.nan)


@dataclass
class Simulated:
    """A problem, and what the solver and the PRM make of it."""

    rate: float
    steps: int
    bias: float
    rng: random.Random
    wrong: list[float] = field(init=False)

    def __post_init__(self) -> None:
        favourite = self.rng.uniform(0.8, 2.5)  # how much wrong answers agree
        self.wrong = [1 / (rank + 1) ** favourite for rank in range(12)]

    def step(self, path: Path) -> Path:
        right = path.right and self.rng.random() < self.rate ** (1 / self.steps)
        known = (len(path.scores) + 1) / self.steps
        logit = (1 if right else -1) * (0.4 + 1.4 * known) + self.bias + self.rng.gauss(0, 1)
        tokens = self.rng.randint(8, 24)
        logprob = path.logprob - tokens * self.rng.uniform(0.02, 0.1) * (1 if right else 2)
        return Path(right, (*path.scores, 1 / (1 + math.exp(-logit))), (*path.tokens, tokens), logprob)

    def finished(self, path: Path) -> Path:
        while len(path.scores) < self.steps:
            path = self.step(path)
        return path

    def attempt(self, path: Path) -> Attempt:
        answer: str | None = "right"
        if not path.right:
            choice = self.rng.choices(range(len(self.wrong)), self.wrong)[0]
            answer = None if self.rng.random() < 0.08 else f"wrong {choice}"
        finish = "length" if answer is None else "eos"
        return Attempt(answer, path.scores, sum(path.tokens), path.logprob, finish)

    def unit(self, kind: str, first: Sequence[Path], ends: Sequence[Path], generated: int) -> UnitRecord:
        attempts = tuple(self.attempt(path) for path in ends)
        steps = tuple(path.first() for path in first)
        return UnitRecord(
            Unit(kind, attempts, steps, generated, prm=generated), tuple(path.right for path in ends), generated
        )

    def sample(self, first: Path, kind: str = "sample") -> UnitRecord:
        path = self.finished(first)
        return self.unit(kind, [first], [path], sum(path.tokens))

    def search(self, kind: str, first: Sequence[Path], kept: int) -> UnitRecord:
        live, generated = list(first), sum(path.tokens[0] for path in first)
        while len(live[0].scores) < self.steps:
            live.sort(key=lambda path: -path.scores[-1])
            live = [self.step(path) for path in live[:kept] for _ in range(M)]
            generated += sum(path.tokens[-1] for path in live)
        return self.unit(kind, first, live, generated)


def simulated_record(rate: float, samples: int, seed: int | str, trees: int = 4, beams: int = 2) -> ProblemRecord:
    """One problem that samples solve at that rate; trees and beams begin with the samples' first steps."""
    rng = random.Random(f"simulated/{seed}")
    problem = Simulated(rate, rng.randint(2, 6), rng.gauss(0, 1), rng)
    count = max(samples, M * trees, N * beams)
    first = [problem.step(Path()) for _ in range(count)]
    units = {
        "greedy": (problem.sample(problem.step(Path()), "greedy"),),
        "sample": tuple(problem.sample(path) for path in first[:samples]),
        f"dvts-{M}": tuple(problem.search(f"dvts-{M}", first[M * i : M * i + M], 1) for i in range(trees)),
        f"beam_search-{N}-{M}": tuple(
            problem.search(f"beam_search-{N}-{M}", first[N * i : N * i + N], N // M) for i in range(beams)
        ),
    }
    words = 5 + round(14 * (1 - rate) + rng.uniform(0, 14))
    question = " ".join(str(rng.randint(2, 99)) if rng.random() < 0.4 else "more" for _ in range(words)) + "?"
    return ProblemRecord(
        f"simulated-{seed}", question, "right", words + 12, {kind: drawn for kind, drawn in units.items() if drawn}
    )


def simulated_records(
    problems: int, samples: int, seed: int, trees: int = 4, beams: int = 2, spread: float = 0.8
) -> list[ProblemRecord]:
    """Problems whose rates come from Beta(spread, spread), each with one greedy solution and so many other units."""
    rng = random.Random(f"rates/{seed}")
    rates = [rng.betavariate(spread, spread) for _ in range(problems)]
    return [simulated_record(rate, samples, f"{seed}-{index}", trees, beams) for index, rate in enumerate(rates)]
