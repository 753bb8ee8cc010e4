"""Balancing and hedging over replicas that differ, in virtual time: no server, no network, no waiting.

    python bench/fleet.py [--requests N] [--seeds N] [--json FILE] [--results bench/RESULTS.md]

The policy is the real one (:class:`~adaptive_ttc.policies.openai.OpenAIPolicy`), the servers are simulated: a token of
an answer takes 20 ms and 1 % more for each other one under way, the first 100 ms more; answers are of geometric lengths
(mean 200). All figures are means over the seeds.

Figures: for each fleet and way of choosing a replica ``FLEET/WAY/wall`` (s, of the batch), ``.../ratio`` (to round
robin), ``.../p99`` (s, of a request), ``.../slow_share`` (of the requests, that the first replica got); for each kind
of trouble and way of hedging ``TROUBLE/WAY/p50``, ``p99``, ``wall`` (s) and ``charged`` and ``generated`` (tokens
beside those delivered, as shares of them).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import anyio
from measuring import Figures, markdown_table, parser_of, provenance, report, write_section

from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.chat_model import ChatModel, read_chat_model
from adaptive_ttc.policies.fake import VirtualTimeLoop
from adaptive_ttc.policies.fake.servers import Server, VirtualServers
from adaptive_ttc.policies.openai import FleetConfig, OpenAIPolicy
from adaptive_ttc.policies.openai.fleet import Fleet, Replica
from adaptive_ttc.policy import SampleRequest

MEAN_TOKENS = 200
MOST_TOKENS = 512
CONTEXT = 2048


class Lengths:
    """Writes answers of geometric lengths, which are as long again wherever they are gone on from."""

    def __init__(self, eos: int, seed: int) -> None:
        self._eos, self._random = eos, Random(seed)

    def write(self, request: SampleRequest) -> Iterator[tuple[int, float]]:
        """Tokens of no meaning, and the end."""
        length = math.ceil(math.log(1.0 - self._random.random()) / math.log(1.0 - 1.0 / MEAN_TOKENS))
        yield from ((11, -0.1) for _ in range(length - 1))
        yield self._eos, -0.1

    def cut(self, request: SampleRequest, tokens: Sequence[int]) -> None:
        """Nothing to remember."""


Choose = Callable[[Fleet, Sequence[Replica]], Replica | None]


def round_robin(turns: Iterator[int]) -> Choose:
    """Every replica in its turn."""
    return lambda fleet, ready: ready[next(turns) % len(ready)] if ready else None


def least_in_flight(fleet: Fleet, ready: Sequence[Replica]) -> Replica | None:
    """The one with the fewest requests."""
    return min(ready, key=lambda one: (one.in_flight, one.served, one.index)) if ready else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a batch: its wall time, every request's own (both in seconds), tokens, requests by replica.

    ``hedged`` are the tokens that were charged for attempts that were not followed.
    """

    wall: float
    latencies: tuple[float, ...]
    delivered: int
    hedged: int
    generated: int
    served: tuple[int, ...]

    def quantile(self, share: float) -> float:
        """The latency that this share of the requests stays within."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Purse:
    """A spare with money for everything."""

    def __init__(self) -> None:
        self.tokens = 0

    def reserve(self, tokens: int) -> bool:
        """Granted."""
        self.tokens += tokens
        return True


async def batch(
    model: ChatModel, servers: Sequence[Server], requests: int, seed: int, choose: Choose | None, **settings: Any
) -> Outcome:
    """Sample so many answers, as many at once as ``max_concurrency`` lets; ``choose`` in place of the fleet's way."""
    urls = tuple(f"http://replica{index}/v1" for index in range(len(servers)))
    config = FleetConfig(base_urls=urls, affinity_block=0, **settings)
    eos = min(model.eos)
    links = VirtualServers(config, CONTEXT, servers, Lengths(eos, seed), Random(seed), eos=eos)
    policy = OpenAIPolicy(model, config, CONTEXT, links)
    if choose is not None:
        fleet = policy._fleet
        fleet._choose = lambda ready, prompt, but=None: choose(fleet, ready)  # type: ignore[method-assign]
    numbers, latencies, delivered, hedged = iter(range(requests)), [], 0, 0

    async def work() -> None:
        nonlocal delivered, hedged
        for number in numbers:
            begun = anyio.current_time()
            sampled = await policy.sample(
                SampleRequest(
                    id=str(number), prompt_ids=(1, 2, 3), max_tokens=MOST_TOKENS, seed=0, seeded=False, spare=Purse()
                )
            )
            latencies.append(anyio.current_time() - begun)
            delivered += len(sampled.token_ids)
            hedged += sampled.hedged_tokens

    async with anyio.create_task_group() as tasks:
        for _ in range(config.max_concurrency):
            tasks.start_soon(work)
    return Outcome(
        wall=anyio.current_time(), latencies=tuple(sorted(latencies)), delivered=delivered, hedged=hedged,
        generated=sum(one.generated for one in servers), served=tuple(one.served for one in policy.replicas),
    )  # fmt: skip


def fleet_of(*paces: float, slots: int, hangs: Sequence[Sequence[tuple[float, float]]] = ()) -> list[Server]:
    """Servers with these seconds a token."""
    kept = [*hangs, *[()] * (len(paces) - len(hangs))]
    return [Server(pace=pace, slots=slots, crowd=0.01, hangs=times) for pace, times in zip(paces, kept, strict=True)]


def stops(seed: int, every: float, lasts: float) -> list[tuple[float, float]]:
    """Times at which a server stands still, at random."""
    random, begins = Random(seed), 0.0
    times = []
    for _ in range(100):
        begins += random.expovariate(1.0 / every)
        times.append((begins, begins + lasts))
        begins += lasts
    return times


SLOW = (0.06, 0.02, 0.02, 0.02)
EQUAL = (0.02,) * 4
FLEETS: Mapping[str, Callable[[], list[Server]]] = {
    "one three times slower, 16 answers at once": lambda: fleet_of(*SLOW, slots=16),
    "one three times slower, room for all": lambda: fleet_of(*SLOW, slots=64),
    "all equal, 16 answers at once": lambda: fleet_of(*EQUAL, slots=16),
}
WAYS: Mapping[str, Callable[[], Choose | None]] = {
    "round robin": lambda: round_robin(count()),
    "fewest in flight": lambda: least_in_flight,
    "expected wait": lambda: None,
}
TROUBLES: Mapping[str, Callable[[int], list[Server]]] = {
    "one hangs for a minute": lambda seed: fleet_of(*EQUAL, slots=32, hangs=[[(10.0, 70.0)]]),
    "each stops for 10 s about once a minute": lambda seed: fleet_of(
        *EQUAL, slots=32, hangs=[stops(10 * seed + index, 60.0, 10.0) for index in range(4)]
    ),
}
HEDGES: Mapping[str, Mapping[str, float]] = {
    "no hedging": {},
    "hedge=0.95": {"hedge": 0.95},
    "hedge=0.95, hedge_share=0.2": {"hedge": 0.95, "hedge_share": 0.2},
}


def run(
    servers: list[Server], model: ChatModel, requests: int, seed: int, choose: Choose | None, **own: Any
) -> Outcome:
    """One batch in a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(batch(model, servers, requests, seed, choose, **own))


def balancing(model: ChatModel, requests: int, seeds: int) -> Figures:
    """The ways of choosing a replica."""
    figures: dict[str, float] = {}
    for fleet, made in FLEETS.items():
        for way, choose in WAYS.items():
            outcomes = [run(made(), model, requests, seed, choose(), max_concurrency=64) for seed in range(seeds)]
            key = f"{fleet}/{way}"
            figures[f"{key}/wall"] = fmean(one.wall for one in outcomes)
            figures[f"{key}/ratio"] = figures[f"{key}/wall"] / figures[f"{fleet}/round robin/wall"]
            figures[f"{key}/p99"] = fmean(one.quantile(0.99) for one in outcomes)
            figures[f"{key}/slow_share"] = fmean(one.served[0] / sum(one.served) for one in outcomes)
    return figures


def hedging(model: ChatModel, requests: int, seeds: int) -> Figures:
    """The ways of hedging."""
    figures: dict[str, float] = {}
    for trouble, made in TROUBLES.items():
        for way, own in HEDGES.items():
            outcomes = [
                run(made(seed), model, requests, seed, None, max_concurrency=48, **own) for seed in range(seeds)
            ]
            key = f"{trouble}/{way}"
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                figures[f"{key}/{name}"] = fmean(one.quantile(share) for one in outcomes)
            figures[f"{key}/wall"] = fmean(one.wall for one in outcomes)
            figures[f"{key}/charged"] = fmean(one.hedged / one.delivered for one in outcomes)
            figures[f"{key}/generated"] = fmean(one.generated / one.delivered - 1 for one in outcomes)
    return figures


def tables(figures: Figures) -> str:
    """The figures in Markdown."""
    chosen = [
        (fleet, way, *(f"{figures[f'{fleet}/{way}/{name}']:.2f}" for name in ("wall", "ratio", "p99", "slow_share")))
        for fleet in FLEETS
        for way in WAYS
    ]
    hedged = [
        (
            *(trouble, way),
            *(f"{figures[f'{trouble}/{way}/{name}']:.1f}" for name in ("p50", "p99", "wall")),
            *(f"{figures[f'{trouble}/{way}/{name}']:.3f}" for name in ("charged", "generated")),
        )
        for trouble in TROUBLES
        for way in HEDGES
    ]
    first = ("four replicas", "choice by", "wall, s", "to round robin", "p99, s", "share of the first")
    second = ("four equal replicas", "hedging", "p50, s", "p99, s", "wall, s", "more charged", "more generated")
    return f"{markdown_table(first, chosen)}\n\n{markdown_table(second, hedged)}"


def main() -> None:
    """Measure, print and write."""
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=400, help="answers in a batch")
    parser.add_argument("--seeds", type=int, default=2, help="batches for each figure")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write a section into this file")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # replicas are meant to hang
    model = read_chat_model(MINI_POLICY, system_prompt=None, revision=None)
    figures = {
        **balancing(model, options.requests, options.seeds),
        **hedging(model, options.requests, options.seeds),
    }
    report(options.json, "fleet", figures)
    if options.results:
        write_section(options.results, "fleet", f"{provenance()}\n\n{tables(figures)}")


if __name__ == "__main__":
    main()
