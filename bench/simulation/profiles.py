"""Step times of engines: of the embedded pair, measured on this machine now; of one H200, from measured figures."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import numpy as np
from simulation.engines import Profile

from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM
from adaptive_ttc.policy import Policy, SampleRequest
from adaptive_ttc.prm import load_prm
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.types import Problem

H200 = Profile(base=1.0e-3, row=0.0, slots=256, front=1.6e-3)
"""The embedded policy in vLLM 0.26 on one H200, without seeds.

1,024 samples of 54.6 tokens came at 29,590 tokens a second from 256 slots, and the front end took 1.6 ms of processor
time a request, one after the other: 1.64 of the 1.89 s. The rest, over the 220 steps and more that four turns of all
slots take, is at most a millisecond a step. These are two measured figures for two unknowns, not measured step times.
"""

SLOTS = 64
_BATCHES = (1, 8, 32, 64)
_SHORT, _LONG = 16, 64  # tokens
_ROUNDS = 3


async def embedded() -> Profile:
    """The embedded pair on one thread of this machine: least squares over batches of 1 to 64.

    In processor time, which on one thread is what an idle machine takes, and which others at work do not make longer.
    """
    from adaptive_ttc.policies.transformers import TransformersPolicy

    policy = TransformersPolicy.from_pretrained(MINI_POLICY, max_batch=SLOTS, eos_token_ids=(), num_threads=1)
    try:
        rows = load_problems("minimath-train", limit=_ROUNDS * SLOTS)
        prompts = [policy.encode(Problem.of(row["problem"])) for row in rows]

        steps = []
        for number in _BATCHES:
            await _sampled(policy, prompts[:number], 2)  # prompts are cached from here on
            taken = [await _seconds(policy, prompts[:number], tokens) for tokens in (_SHORT, _LONG)]
            steps.append((taken[1] - taken[0]) / (_LONG - _SHORT))
        row, base = np.polyfit(_BATCHES, steps, 1).tolist()
        fresh = [(*prompt, prompt[-1]) for prompt in prompts[-SLOTS:]]
        started = time.process_time()
        await _sampled(policy, fresh, 1)
        prefill = max(0.0, time.process_time() - started - steps[-1]) / sum(map(len, fresh))
    finally:
        await policy.aclose()
    score_base, score_token = await _scoring()
    return Profile(
        base=max(base, 1e-6),
        row=max(row, 0.0),
        slots=SLOTS,
        prefill=prefill,
        score_base=score_base,
        score_token=score_token,
    )


async def _scoring() -> tuple[float, float]:
    """Seconds of a batch of the embedded PRM, and of a token in it."""
    prm = load_prm(MINI_PRM)
    questions = [row["problem"] for row in load_problems("minimath-train", limit=SLOTS)]
    drawn = random.Random(0)
    tokens, seconds = [], []
    try:
        for number in _BATCHES:
            best = []
            for _ in range(_ROUNDS):  # steps of their own each time: no cache holds them
                asked = [
                    ScoreRequest(one, tuple(f"{drawn.randrange(100)} + {k} = {drawn.randrange(100)}" for k in range(4)))
                    for one in questions[:number]
                ]
                started = time.process_time()
                scored = await asyncio.gather(*map(prm.score, asked))
                best.append((time.process_time() - started, sum(one.prm_tokens for one in scored)))
            least = min(best)
            seconds.append(least[0])
            tokens.append(least[1])
    finally:
        await prm.aclose()
    token, base = np.polyfit(tokens, seconds, 1).tolist()
    return max(base, 0.0), max(token, 0.0)


async def _sampled(policy: Policy, prompts: Sequence[tuple[int, ...]], tokens: int) -> None:
    """A sample of each prompt, side by side."""
    await asyncio.gather(
        *(
            policy.sample(SampleRequest(id=str(index), prompt_ids=prompt, max_tokens=tokens, seed=index))
            for index, prompt in enumerate(prompts)
        )
    )


async def _seconds(policy: Policy, prompts: Sequence[tuple[int, ...]], tokens: int) -> float:
    """Of processor time that this takes, at the least of some tries."""
    taken = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        await _sampled(policy, prompts, tokens)
        taken.append(time.process_time() - started)
    return min(taken)
