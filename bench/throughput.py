"""Tokens a second of the transformers policy on a ragged load, as a ratio to ``generate`` on a uniform batch.

    python bench/throughput.py --json FILE [--model FOLDER] [--limit REQUESTS] [--seed S]

One run, one model, one thread. The baseline is ``model.generate`` on a batch of 64 prompts, all of the load's mean
length, 100 new tokens each. The ragged load is 512 requests of 10 to 100 tokens through 64 slots that are refilled as
they free; its prompts are MiniMath problems. End tokens end nothing on either side, so that both sample exactly the
lengths that are asked for; prefill is inside both times. The two are measured in turn, and each keeps its best round.

Figures: ``ratio`` (distinct prompts; the one to look at), ``ragged_tokens_per_s``, ``generate_tokens_per_s``;
``shared_ratio`` and ``shared_tokens_per_s`` (16 samples of each prompt, prefilled once); ``ragged_tokens``,
``cached_share`` and ``shared_cached_share`` (prompt tokens that the prefix cache answered), ``rounds``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import Timed, run_measurement
from transformers import AutoModelForCausalLM

from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm.checkpoint import without_progress_bars
from adaptive_ttc.types import Problem

SLOTS = 64
SAMPLES_PER_PROBLEM = 16


def generate_round(model: Any, prompts: Sequence[Sequence[int]]) -> Timed:
    """One uniform batch: prompts of the load's mean length, 100 new tokens each."""
    width = round(sum(map(len, prompts)) / len(prompts))
    # repeating a short prompt's tokens makes it as long; what they say does not change the time
    ids = torch.tensor([list((prompt * width)[:width]) for prompt in prompts[:SLOTS]])
    start = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.8, top_k=0, max_new_tokens=100
        )
    seconds = time.perf_counter() - start
    return Timed(out.shape[0] * (out.shape[1] - width), seconds)


async def ragged_round(policy: TransformersPolicy, prompts: Sequence[tuple[int, ...]], rng: random.Random) -> Timed:
    """All requests at once, 10 to 100 tokens each, through the policy's slots."""
    requests = [
        SampleRequest(id=str(index), prompt_ids=prompt, max_tokens=rng.randint(10, 100), seed=rng.getrandbits(64))
        for index, prompt in enumerate(prompts)
    ]
    start = time.perf_counter()
    samples = await asyncio.gather(*map(policy.sample, requests))
    seconds = time.perf_counter() - start
    assert [len(sample.token_ids) for sample in samples] == [request.max_tokens for request in requests]
    cached = sum(sample.cached_tokens for sample in samples)
    return Timed(sum(request.max_tokens for request in requests), seconds, cached / sum(map(len, prompts)))


async def measure(model: Path, *, limit: int, rounds: int, seed: int) -> dict[str, float]:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    with without_progress_bars():
        reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    reference.generation_config.eos_token_id = None
    reference.generation_config.pad_token_id = 0
    policy = TransformersPolicy.from_pretrained(model, max_batch=SLOTS, eos_token_ids=(), num_threads=1)

    def prompts(count: int) -> list[tuple[int, ...]]:
        rows = load_problems("minimath-train", limit=count, seed=rng.getrandbits(32))
        return [policy.encode(Problem.of(row["problem"])) for row in rows]

    uniform, ragged, shared = [], [], []
    try:
        generate_round(reference, prompts(SLOTS))
        await ragged_round(policy, prompts(SLOTS), rng)
        for _ in range(rounds):
            distinct = prompts(limit)
            uniform.append(generate_round(reference, distinct))
            ragged.append(await ragged_round(policy, distinct, rng))
            few = prompts(max(1, limit // SAMPLES_PER_PROBLEM))
            shared.append(await ragged_round(policy, [one for one in few for _ in range(SAMPLES_PER_PROBLEM)], rng))
    finally:
        await policy.aclose()
    best_uniform, best_ragged, best_shared = (max(kind, key=lambda one: one.rate) for kind in (uniform, ragged, shared))
    return {
        "ratio": best_ragged.rate / best_uniform.rate,
        "ragged_tokens_per_s": best_ragged.rate,
        "generate_tokens_per_s": best_uniform.rate,
        "shared_ratio": best_shared.rate / best_uniform.rate,
        "shared_tokens_per_s": best_shared.rate,
        "ragged_tokens": best_ragged.tokens,
        "cached_share": best_ragged.cached_share,
        "shared_cached_share": best_shared.cached_share,
        "rounds": rounds,
    }


if __name__ == "__main__":
    run_measurement(
        "throughput",
        __doc__,
        measure,
        model=(MINI_POLICY, "a model folder (default: the embedded policy)"),
        limit=(512, "requests in the ragged load, at most 2000 (%(default)s)"),
        rounds=(3, "%(default)s"),
        seed=(0, "%(default)s"),
    )
