"""Whether the transformers policy and the vLLM policy are the same policy: equal greedy tokens, equal pass@1.

    python bench/engine_agreement.py --json FILE [--model FOLDER] [--limit PROBLEMS] [--samples N] [--seed S]

Greedy: both write one solution of each problem at temperature 0. Where the tokens part, the two engines' rounding
chose between logits that tie; the gap between the two tokens' logits there is measured with transformers, and a gap
above 1e-4, or a token that is not among the best, is counted as unexplained.

Sampled: both draw ``--samples`` solutions of each problem at temperature 0.8 (their random streams differ), and the
difference of pass@1 is given with its 95% interval, paired by problem.

Figures: ``problems``, ``samples``, ``greedy_identical`` (problems), ``greedy_ties``, ``greedy_unexplained``,
``widest_tie`` (logits), ``logprob_difference`` (largest between two equal greedy tokens, nats),
``pass1_transformers``, ``pass1_vllm``, ``pass1_difference``, ``pass1_difference_low``, ``pass1_difference_high``,
``transformers_tokens_per_s``, ``vllm_tokens_per_s`` (of the sampled part, grading included).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import run_measurement
from transformers import AutoModelForCausalLM

from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import Pool, draw_pools
from adaptive_ttc.evaluation.metrics import paired_interval
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.policies.vllm import CPU_SETTINGS, VLLMPolicy
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.prm.checkpoint import without_progress_bars
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

TIE = 1e-4


@dataclass(frozen=True)
class Greedy:
    """Where two engines' greedy solutions agree, and how narrow the choice was where they part."""

    identical: int
    gaps: tuple[float, ...]
    logprob_difference: float

    @property
    def unexplained(self) -> int:
        """Differences that no tie explains."""
        return sum(gap > TIE for gap in self.gaps)


async def greedy_solutions(policy: Policy, rows: Sequence[Row], max_tokens: int = 1024) -> list[Sampled]:
    """One solution of every problem at temperature 0."""
    requests = [
        SampleRequest(
            id=f"greedy {index}",
            prompt_ids=policy.encode(Problem.of(row["problem"])),
            max_tokens=max_tokens,
            seed=0,
            temperature=0.0,
        )
        for index, row in enumerate(rows)
    ]
    return await asyncio.gather(*map(policy.sample, requests))


@torch.inference_mode()
def gap(model: torch.nn.Module, prefix: Sequence[int], tokens: tuple[int, int]) -> float:
    """How far the lower of two tokens' logits is below the best one."""
    logits = model(input_ids=torch.tensor([list(prefix)])).logits[0, -1].float()
    return float(logits.max() - logits[list(tokens)].min())


def compare_greedy(
    model: torch.nn.Module, prompts: Sequence[Sequence[int]], ours: Sequence[Sampled], theirs: Sequence[Sampled]
) -> Greedy:
    """Find where the solutions part and ask the model how narrow the choice was there."""
    identical, gaps, furthest = 0, [], 0.0
    for prompt, one, other in zip(prompts, ours, theirs, strict=True):
        pairs = list(zip(one.token_ids, other.token_ids, strict=False))
        same = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
        for index in range(same):
            furthest = max(furthest, abs(one.logprobs[index] - other.logprobs[index]))
        if same < len(pairs):
            gaps.append(gap(model, [*prompt, *one.token_ids[:same]], pairs[same]))
        elif len(one.token_ids) != len(other.token_ids):
            gaps.append(float("inf"))  # no choice was made where one of them stopped short
        else:
            identical += 1
    return Greedy(identical, tuple(gaps), furthest)


async def draw(policy: Policy, rows: Sequence[Row], samples: int, seed: int) -> tuple[list[Pool], float]:
    """Graded samples of every problem, and tokens a second."""
    solver = Solver(policy, seed=seed)
    start = time.perf_counter()
    try:
        pools = await draw_pools(solver, rows, samples, lambda pool: None)
    finally:
        await solver.grader.aclose()
    return pools, sum(int(pool.tokens.sum()) for pool in pools) / (time.perf_counter() - start)


async def measure(
    ours: Policy, theirs: Policy, folder: Path, *, limit: int, samples: int, seed: int | None
) -> dict[str, float]:
    """All figures of two policies over one model: ``ours`` on transformers, ``theirs`` on vLLM."""
    rows = load_problems("minimath-500", limit=limit, seed=seed)
    with without_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [ours.encode(Problem.of(row["problem"])) for row in rows]
    greedy = compare_greedy(model, prompts, await greedy_solutions(ours, rows), await greedy_solutions(theirs, rows))
    our_pools, our_speed = await draw(ours, rows, samples, seed or 0)
    their_pools, their_speed = await draw(theirs, rows, samples, seed or 0)
    our_rates, their_rates = ([float(np.mean(pool.correct)) for pool in pools] for pools in (our_pools, their_pools))
    difference = paired_interval(their_rates, our_rates)
    return {
        "problems": len(rows),
        "samples": samples,
        "greedy_identical": greedy.identical,
        "greedy_ties": len(greedy.gaps) - greedy.unexplained,
        "greedy_unexplained": greedy.unexplained,
        "widest_tie": max((one for one in greedy.gaps if one <= TIE), default=0.0),
        "logprob_difference": greedy.logprob_difference,
        "pass1_transformers": float(np.mean(our_rates)),
        "pass1_vllm": float(np.mean(their_rates)),
        "pass1_difference": difference.mean,
        "pass1_difference_low": difference.low,
        "pass1_difference_high": difference.high,
        "transformers_tokens_per_s": our_speed,
        "vllm_tokens_per_s": their_speed,
    }


async def run(model: Path, *, limit: int, samples: int, seed: int | None) -> dict[str, float]:
    theirs = VLLMPolicy.from_pretrained(model, **CPU_SETTINGS)
    ours = TransformersPolicy.from_pretrained(model)
    try:
        return await measure(ours, theirs, model, limit=limit, samples=samples, seed=seed)
    finally:
        await theirs.aclose()
        await ours.aclose()


if __name__ == "__main__":
    run_measurement(
        "engine_agreement",
        __doc__,
        run,
        model=(MINI_POLICY, "a model folder (default: the embedded policy)"),
        limit=(200, "problems (%(default)s)"),
        samples=(16, "of each problem, at temperature 0.8 (%(default)s)"),
        seed=(None, "draws fresh problems"),
    )
