"""What the solver costs on top of the real vLLM engine, and what its concurrency gains.

    python bench/engine_overhead.py --json FILE [--model FOLDER] [--limit PROBLEMS] [--n N] [--rounds R] [--seed S]

One run, one engine, one machine; the rounds of all measurements alternate, and each keeps its best.

- ``fast_ratio``: tokens a second of ``Solver`` at weighted best-of-N without a seed, all problems at once, over those
  of the bare engine's fastest way to as many samples: one request of ``n`` a problem, without seeds and
  log-probabilities, on the engine's own event loop. Both begin with an empty prefix cache. Scores come from a fake PRM
  that computes nothing, so that the ratio is what the solver costs: rendering, slices, ledger, trace, voting, grading,
  log-probabilities and requests of their own.
- ``throughput_ratio``: the same with a seed, over the bare engine given the very same requests at once.
- ``seedless_requests_ratio``, ``logprobs_ratio``: tokens a second of the bare engine given one request a sample without
  seeds, with log-probabilities over without them; and without both, over its fastest way.
- ``beam_speedup_over_serial``: time of a beam search of half the problems, one problem after another, over the time of
  all at once: one problem at a time is what a search without a shared driver does.
- ``prefix_cache_hit_share``: prompt tokens of that beam search, all at once, that the engine's cache answered.
- ``fanout_ratio``: tokens a second of one request a sample over those of one request with ``n`` samples a problem, on
  the bare engine with its prefix cache on: what the repeated prefill of the prompt costs.

Further figures: ``solver_tokens_per_s``, ``bare_tokens_per_s``, ``unseeded_tokens_per_s``, ``fastest_tokens_per_s``,
``requests_tokens_per_s``, ``fanout_tokens_per_s``, ``beam_seconds``, ``beam_serial_seconds``, ``problems``, ``n``,
``rounds``.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Timed, run_measurement
from vllm import SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind

from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.vllm import CPU_SETTINGS, VLLMPolicy
from adaptive_ttc.policies.vllm.engine import EngineHost
from adaptive_ttc.policies.vllm.policy import sampling_params
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

SLOTS = 256
BEAMS = {"strategy": "beam_search", "n": 8, "beam_width": 4, "seed": 0}
STAGES = ("throughput", "fastest", "beams", "fanout")


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for: ``n`` samples of each problem, none longer than ``max_tokens``."""

    questions: Sequence[str]
    n: int
    rounds: int
    seed: int
    max_tokens: int = 512

    @property
    def weighted(self) -> dict[str, Any]:
        """As a request to the solver, without a seed."""
        return {"strategy": "weighted_best_of_n", "n": self.n, "max_tokens": self.max_tokens}

    def requests(self, policy: VLLMPolicy, *, seeded: bool) -> list[SampleRequest]:
        """One for each problem; seeds are numbers from 0 on."""
        return [
            SampleRequest(
                id="", prompt_ids=policy.encode(Problem.of(one)), max_tokens=self.max_tokens, seed=index, seeded=seeded
            )
            for index, one in enumerate(self.questions)
        ]


class Listening(VLLMPolicy):
    """Remembers what it was asked for."""

    heard: list[SampleRequest]
    eos: frozenset[int]

    async def sample(self, request: SampleRequest) -> Sampled:
        """Note the request, and pass it on."""
        self.heard.append(request)
        return await super().sample(request)


def noise(question: str, steps: tuple[str, ...]) -> float:
    """A score that depends on nothing but the texts."""
    return zlib.crc32("".join([question, *steps]).encode()) / 2**32


async def timed(host: EngineHost, work: Callable[[], Awaitable[int]]) -> Timed:
    """Run something that tells how many tokens it sampled, with an empty prefix cache."""
    await host.call(lambda engine: engine.reset_prefix_cache())
    start = time.perf_counter()
    tokens = await work()
    return Timed(tokens, time.perf_counter() - start)


async def solve(solver: Solver, questions: Sequence[str], **request: Any) -> list[Solution]:
    """All problems at once."""
    return await asyncio.gather(*(solver.solve(question, **request) for question in questions))


async def bare(host: EngineHost, work: Sequence[tuple[Sequence[int], SamplingParams]]) -> int:
    """Give the engine all requests at once, on its own event loop; the tokens that it generated."""

    async def together(engine: Any) -> int:
        async def one(index: int) -> int:
            prompt, params = work[index]
            outputs = engine.generate(TokensPrompt(prompt_token_ids=list(prompt)), params, f"bare {index}")
            *_, last = [output async for output in outputs]
            return sum(len(output.token_ids) for output in last.outputs)

        return sum(await asyncio.gather(*map(one, range(len(work)))))

    return await host.call(together)


def generated(solutions: Sequence[Solution]) -> int:
    return sum(solution.usage.completion_tokens for solution in solutions)


def best(rounds: Sequence[Timed]) -> Timed:
    return max(rounds, key=lambda one: one.rate)


async def throughput(solver: Solver, policy: Listening, host: EngineHost, load: Load) -> dict[str, float]:
    """The solver against the bare engine with the same requests."""
    ours, theirs = [], []
    for _ in range(load.rounds):
        policy.heard = []

        async def weighted() -> int:
            return generated(await solve(solver, load.questions, **load.weighted, seed=load.seed))

        ours.append(await timed(host, weighted))
        work = [(one.prompt_ids, _params(one, policy)) for one in policy.heard]
        theirs.append(await timed(host, lambda work=work: bare(host, work)))
        assert theirs[-1].tokens == ours[-1].tokens, "the same requests give the same tokens"
    return {
        "throughput_ratio": best(ours).rate / best(theirs).rate,
        "solver_tokens_per_s": best(ours).rate,
        "bare_tokens_per_s": best(theirs).rate,
    }


async def fastest(solver: Solver, policy: Listening, host: EngineHost, load: Load) -> dict[str, float]:
    """A solver without a seed against the bare engine's fastest way."""
    asked, n = load.requests(policy, seeded=False), load.n
    ways = {
        "fastest": [(one.prompt_ids, _params(one, policy, n=n, logprobs=None)) for one in asked],
        "single": [(one.prompt_ids, _params(one, policy, logprobs=None)) for one in asked for _ in range(n)],
        "told": [(one.prompt_ids, _params(one, policy)) for one in asked for _ in range(n)],
    }
    taken: dict[str, list[Timed]] = {}

    async def weighted() -> int:
        return generated(await solve(solver, load.questions, **load.weighted))

    for _ in range(load.rounds):
        taken.setdefault("ours", []).append(await timed(host, weighted))
        for name, work in ways.items():
            taken.setdefault(name, []).append(await timed(host, lambda work=work: bare(host, work)))
    rates = {name: best(times).rate for name, times in taken.items()}
    return {
        "fast_ratio": rates["ours"] / rates["fastest"],
        "unseeded_tokens_per_s": rates["ours"],
        "fastest_tokens_per_s": rates["fastest"],
        "seedless_requests_ratio": rates["single"] / rates["fastest"],
        "logprobs_ratio": rates["told"] / rates["single"],
    }


async def fanout(policy: Listening, host: EngineHost, load: Load) -> dict[str, float]:
    """One request a sample against one request a problem."""
    singles, fans = [], []
    asked = load.requests(policy, seeded=True)
    apart = [(one.prompt_ids, _params(one, policy, seed=seed)) for one in asked for seed in range(load.n)]
    fanned = [(one.prompt_ids, _params(one, policy, n=load.n)) for one in asked]
    for _ in range(load.rounds):
        singles.append(await timed(host, lambda: bare(host, apart)))
        fans.append(await timed(host, lambda: bare(host, fanned)))
    return {
        "fanout_ratio": best(singles).rate / best(fans).rate,
        "requests_tokens_per_s": best(singles).rate,
        "fanout_tokens_per_s": best(fans).rate,
    }


async def beams(solver: Solver, host: EngineHost, load: Load) -> dict[str, float]:
    """Beam search of half the problems at once and one after another."""
    questions = load.questions[: max(1, len(load.questions) // 2)]
    together, serial, share = [], [], 0.0
    for _ in range(load.rounds):
        done: list[Solution] = []

        async def at_once(done: list[Solution] = done) -> int:
            done += await solve(solver, questions, **BEAMS)
            return generated(done)

        async def in_turn() -> int:
            return generated([await solver.solve(question, **BEAMS) for question in questions])

        together.append(await timed(host, at_once))
        cached = sum(solution.usage.cached_prompt_tokens for solution in done)
        share = cached / (cached + sum(solution.usage.prompt_tokens for solution in done))
        serial.append(await timed(host, in_turn))
    return {
        "beam_speedup_over_serial": best(serial).seconds / best(together).seconds,
        "prefix_cache_hit_share": share,
        "beam_seconds": best(together).seconds,
        "beam_serial_seconds": best(serial).seconds,
    }


def _params(request: SampleRequest, policy: Listening, **changes: Any) -> SamplingParams:
    params = sampling_params(request, limit=request.max_tokens, eos=policy.eos, kind=RequestOutputKind.FINAL_ONLY)
    for name, value in changes.items():
        setattr(params, name, value)
    return params


async def measure(
    host: EngineHost,
    folder: Path,
    *,
    limit: int,
    n: int,
    rounds: int,
    seed: int,
    max_tokens: int = 512,
    stages: Sequence[str] = STAGES,
    told: Callable[[dict[str, float]], None] = lambda figures: None,
) -> dict[str, float]:
    """The figures of these stages, on an engine that runs that model; ``told`` hears those of each when it ends."""
    questions = [row["problem"] for row in load_problems("minimath-calibration", limit=limit, seed=seed or None)]
    load = Load(questions, n, rounds, seed, max_tokens)
    policy = Listening.over(host, folder)
    policy.heard, policy.eos = [], policy.model.eos
    figures: dict[str, float] = {"problems": limit, "n": n, "rounds": rounds}
    async with Solver(policy, FakePRM(noise)) as solver:
        await solve(solver, questions[:8], strategy="weighted_best_of_n", n=4, max_tokens=max_tokens)
        work = {
            "throughput": lambda: throughput(solver, policy, host, load),
            "fastest": lambda: fastest(solver, policy, host, load),
            "beams": lambda: beams(solver, host, load),
            "fanout": lambda: fanout(policy, host, load),
        }
        for stage in stages:
            found = await work[stage]()
            told(found)
            figures |= found
    return figures


async def run(model: Path, *, limit: int, n: int, rounds: int, seed: int) -> dict[str, float]:
    """:func:`measure` on an engine of its own."""
    host = EngineHost(model.name, VLLMPolicy.engine_settings(model, max_num_seqs=SLOTS, **CPU_SETTINGS))
    try:
        return await measure(host, model, limit=limit, n=n, rounds=rounds, seed=seed)
    finally:
        await host.aclose()


if __name__ == "__main__":
    run_measurement(
        "engine_overhead",
        __doc__,
        run,
        model=(MINI_POLICY, "a model folder (default: the embedded policy)"),
        limit=(64, "problems; beam search takes half of them (%(default)s)"),
        n=(16, "samples of each problem (%(default)s)"),
        rounds=(3, "%(default)s"),
        seed=(0, "%(default)s"),
    )
