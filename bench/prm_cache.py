"""What the PRM's prefix cache is worth: the requests of beam searches, answered with it and from scratch.

    python bench/prm_cache.py --json FILE [--limit PROBLEMS] [--rounds R] [--seed S] [--model FOLDER]

One run. Two PRMs with the same weights, one without a cache, get the same requests in turn. The first load is that of
beam searches with 16 beams, 4 kept by their last score, 20 steps deep, of some problems at once; the steps are drawn
from MiniMath's solutions. The second is one whole solution of each of 16 times as many problems, where hardly anything
is shared and the cache can only cost. Wall time is that of the calls; each figure is the median over the rounds, every
one of which begins with an empty cache.

Figures: ``computed_share`` (of the tokens that rescoring from scratch computes, in the search), ``wall_ratio`` (cache
to scratch, search), ``cpu_ratio`` (the same in CPU seconds, which other programs disturb less), ``seconds`` and
``scratch_seconds``, ``single_computed_share``, ``single_wall_ratio``, ``single_cpu_ratio``,
``worst_difference`` (between two scores of the same step), ``tokens`` (from scratch, search), ``problems``, ``steps``,
``rounds``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from measuring import run_measurement

from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.loading import MINI_PRM
from adaptive_ttc.prm import RewardModel, Scored, ScoreRequest, load_prm
from adaptive_ttc.types import split_steps

BEAMS, KEPT, DEPTH = 16, 4, 20


@dataclass(slots=True)
class Tally:
    """What one PRM has done so far."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    computed: int = 0
    cached: int = 0

    async def ask(self, prm: RewardModel, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score all at once."""
        wall, cpu = time.perf_counter(), time.process_time()
        scored = list(await asyncio.gather(*map(prm.score, requests)))
        self.seconds += time.perf_counter() - wall
        self.cpu_seconds += time.process_time() - cpu
        self.computed += sum(one.prm_tokens for one in scored)
        self.cached += sum(one.cached_tokens for one in scored)
        return scored


@dataclass(slots=True)
class Load:
    """The same requests to both PRMs."""

    cached: Tally = field(default_factory=Tally)
    scratch: Tally = field(default_factory=Tally)
    worst: float = 0.0

    async def ask(self, prms: tuple[RewardModel, RewardModel], requests: Sequence[ScoreRequest]) -> list[float]:
        """Last scores of all requests."""
        got = await self.cached.ask(prms[0], requests)
        expected = await self.scratch.ask(prms[1], requests)
        for one, other in zip(got, expected, strict=True):
            self.worst = max(self.worst, *(abs(a - b) for a, b in zip(one.scores, other.scores, strict=True)))
        return [one.scores[-1] for one in expected]


async def search(prms: tuple[RewardModel, RewardModel], rows: Sequence[Row], rng: random.Random) -> Load:
    """Beam searches over all problems side by side."""
    pool = sorted({step for row in rows for step in split_steps(row["solution"]) if "boxed" not in step})
    load = Load()
    beams: dict[str, list[tuple[str, ...]]] = {row["problem"]: [()] * KEPT for row in rows}
    for _ in range(DEPTH):
        children = {
            question: [(*steps, rng.choice(pool)) for steps in kept for _ in range(BEAMS // KEPT)]
            for question, kept in beams.items()
        }
        requests = [ScoreRequest(question, steps) for question, some in children.items() for steps in some]
        scores = iter(await load.ask(prms, requests))
        for question, some in children.items():
            ranked = sorted(zip([next(scores) for _ in some], some, strict=True), reverse=True)
            beams[question] = [steps for _, steps in ranked[:KEPT]]
    return load


async def single(prms: tuple[RewardModel, RewardModel], rows: Sequence[Row]) -> Load:
    """Whole solutions of different problems, each scored once."""
    load = Load()
    await load.ask(prms, [ScoreRequest(row["problem"], split_steps(row["solution"])) for row in rows])
    return load


async def measure(model: Path, *, limit: int, rounds: int, seed: int) -> dict[str, float]:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    loads: dict[str, list[Load]] = {"": [], "single_": []}
    for _ in range(rounds):
        prms = (load_prm(model), load_prm(model, prefix_cache_bytes=0))
        more = load_problems("minimath-train", limit=limit * 16, seed=rng.getrandbits(32))
        rows = sorted(more, key=lambda row: len(row["solution"]))[-limit:]
        try:
            await Load().ask(prms, [ScoreRequest("1 + 1", ("1 + 1 = 2.",))])
            loads[""].append(await search(prms, rows, rng))
            loads["single_"].append(await single(prms, more))
        finally:
            for prm in prms:
                await prm.aclose()
    figures: dict[str, float] = {}
    for name, some in loads.items():
        figures[f"{name}computed_share"] = median(one.cached.computed / one.scratch.computed for one in some)
        figures[f"{name}wall_ratio"] = median(one.cached.seconds / one.scratch.seconds for one in some)
        figures[f"{name}cpu_ratio"] = median(one.cached.cpu_seconds / one.scratch.cpu_seconds for one in some)
    return figures | {
        "seconds": median(one.cached.seconds for one in loads[""]),
        "scratch_seconds": median(one.scratch.seconds for one in loads[""]),
        "worst_difference": max(one.worst for some in loads.values() for one in some),
        "tokens": median(one.scratch.computed for one in loads[""]),
        "problems": limit,
        "steps": DEPTH,
        "rounds": rounds,
    }


if __name__ == "__main__":
    run_measurement(
        "prm_cache",
        __doc__,
        measure,
        model=(MINI_PRM, "a PRM's folder (default: the embedded one)"),
        limit=(4, "problems searched side by side (%(default)s)"),
        rounds=(3, "%(default)s"),
        seed=(0, "%(default)s"),
    )
