"""How long the allocator's decisions take, and the forecasts before them; `allocator.py` prints the figures."""

from __future__ import annotations

import math
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.report import Decision
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.answer_prior import shipped_prior
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.blended_gain import BlendedGainModel, BlendWeights
from adaptive_ttc.estimate.features import Attempt, Evidence, FirstStep, Unit
from adaptive_ttc.estimate.gain import GainModel, LearnedGainModel, Option
from adaptive_ttc.loading import mini_calibration
from adaptive_ttc.strategies.adaptive import SAMPLE

OPENING = 90

AT_ONCE = 32
"""Problems that run at once."""

TOGETHER = 32
"""States that are forecast at once, where several are."""


def drawn_options(rng: random.Random) -> tuple[Option, ...]:
    """Eight options of random cost and gain."""
    scale, rate = rng.uniform(30, 120), rng.uniform(0.001, 0.2)
    return tuple(
        Option((kind, size), scale * size, rate * rng.uniform(0.5, 1) * math.log2(1 + size), int(1.5 * scale))
        for kind in range(2)
        for size in (1, 2, 4, 8)
    )


def opened_allocator(live: int, rng: random.Random, more: int = 0) -> Allocator:
    """An allocator whose problems have all had their opening, and that has a part of what they want and ``more``."""
    allocator = Allocator(live * (OPENING + 200) + more)
    for index in range(live):
        allocator.arrive(str(index), OPENING)
    for index in range(live):
        allocator.next()
        allocator.charged(str(index), OPENING)
        allocator.offer(str(index), drawn_options(rng))
    return allocator


def decisions(allocator: Allocator, number: int, rng: random.Random) -> Iterator[float]:
    """Seconds of each of so many decisions, of which each is charged when 32 more were made."""
    options = [drawn_options(rng) for _ in range(512)]  # made beforehand: they are the caller's work
    running: list[Decision] = []
    for index in range(number):
        start = time.thread_time()
        decision = allocator.next()
        if decision:
            running.append(decision)
        if running and (decision is None or len(running) > AT_ONCE):
            first = running.pop(0)
            allocator.charged(first.problem, first.units // 2)
            allocator.offer(first.problem, options[index % 512])
        yield time.thread_time() - start


def timings(live: Sequence[int], number: int, rounds: int, seed: int) -> dict[str, float]:
    """Microseconds a decision, whatever it does, at every number of live problems, in turn."""
    taken: dict[int, list[float]] = {n: [] for n in live}
    for turn in range(rounds):
        for n in live if turn % 2 else live[::-1]:
            rng = random.Random(seed + turn)
            taken[n].append(1e6 * fmean(decisions(opened_allocator(n, rng, more=number * OPENING), number, rng)))
    middle = {n: median(values) for n, values in taken.items()}
    growth = middle[live[-1]] / middle[live[0]]
    return {f"us_per_decision.{n}": middle[n] for n in live} | {
        "growth": growth,
        "growth_over_log": growth / (math.log(live[-1]) / math.log(live[0])),
    }


def memory(live: int, seed: int) -> float:
    """Bytes a problem, its options and its part of the log included."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    allocator = opened_allocator(live, random.Random(seed))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocator.spent
    return (after - before) / live


def drawn_state(rng: random.Random) -> Evidence:
    """1 to 12 scored samples of up to five answers."""
    kinds = rng.randrange(1, 6)

    def sample() -> Unit:
        tokens = rng.randrange(50, 200)
        score, sure = rng.random(), rng.uniform(-1, 0)
        attempt = Attempt(str(rng.randrange(kinds)), (score, score), tokens, sure * tokens)
        return Unit(SAMPLE, (attempt,), (FirstStep(score, 20, 20 * sure),), tokens, tokens)

    return Evidence("What is 3 + 4 * 5?", 20, tuple(sample() for _ in range(rng.randrange(1, 13))))


def microseconds(forecasts: Callable[[Sequence[Evidence]], object], states: Sequence[Evidence], at_once: int) -> float:
    """Of processor time a state."""
    started = time.thread_time()
    for first in range(0, len(states), at_once):
        forecasts(states[first : first + at_once])
    return 1e6 * (time.thread_time() - started) / len(states)


def forecast_times(number: int, seed: int) -> dict[str, float]:
    """Microseconds a state: of agreement and of the embedded pair's learned model blended with it."""
    rng = random.Random(seed)
    learned = Calibrated.load(mini_calibration()).gain
    learned = learned.learned if isinstance(learned, BlendedGainModel) else learned
    assert isinstance(learned, LearnedGainModel)  # what the embedded pair ships
    found: dict[str, list[float]] = {}
    for _ in range(3):
        states = [drawn_state(rng) for _ in range(number)]
        agreement = AgreementGainModel(shipped_prior(), tokens=100.0)
        blend = BlendedGainModel(learned, agreement, BlendWeights((0.5, 0.5, 0.0), 0.5))
        models: dict[str, tuple[GainModel, int]] = {
            "agreement_new": (agreement, 1),
            "agreement": (agreement, 1),
            "blend": (blend, 1),
            "blend_together": (blend, TOGETHER),
        }
        for name, (model, at_once) in models.items():
            found.setdefault(name, []).append(microseconds(model.forecasts, states, at_once))
    return {f"us_per_forecast.{name}": fmean(values) for name, values in found.items()}
