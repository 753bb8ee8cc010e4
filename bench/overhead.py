"""What the solver itself costs: its processor time on an engine that answers at once, against bare tasks.

    python bench/overhead.py --json FILE [--limit PROBLEMS] [--n N] [--rounds R]

One run, one thread. Policy and PRM are canned: a request is answered in the next turn of the event loop with a step or
a solution that was prepared before, so that all that is measured is the solver: prompts, seeds, leases, the ledger,
checks at the boundary, decoding, scores, the trace, grading and the vote. The reference are bare tasks: as many calls
of the same policy and PRM, each pair of them in a task of its own, all at once. The two are measured in turn, and each
keeps its best round. Answers are small numbers, which are compared without the grading worker.

Figures, for ``weighted`` (weighted best-of-N: a sample is one request and one score), ``beam`` (beam search of width 4:
a sample is one step) and ``adaptive`` (one budget over all problems, by the rule ``uniform``): ``us_per_sample.*`` of
processor time, ``bare_us_per_sample.*``, ``ratio.*``, ``samples.*``. For ``adaptive`` with as many samples of a
sixteenth of the problems (``deep``) and of 16 times as many problems (``wide``) also ``growth.*``, what a sample costs
there over what it costs in ``adaptive``: far above 1 where work is quadratic. ``problems``, ``n``, ``rounds``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from measuring import run_measurement

from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.prm.base import Scored, ScoreRequest
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

_STEPS = 4
_EOS = 0


@lru_cache(maxsize=4096)
def _answer(draw: int, done: int, stepwise: bool) -> tuple[int, ...]:
    """The rest of a solution of which so many steps are there, or its next step."""
    steps = [f"Step {index}: {draw} + {index} = {draw + index}.\n\n" for index in range(1, _STEPS)]
    last = f"The answer is \\boxed{{{draw}}}."
    rest = [*steps, last][done:]
    text = rest[0] if stepwise else "".join(rest)
    return (*text.encode(), *((_EOS,) if text.endswith(last) else ()))


class Canned:
    """A policy that has all its answers ready."""

    name, fingerprint, parameters, max_context, revision_prompt = "canned", "canned", 1, 4096, None

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The question's bytes."""
        return tuple(problem.question.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        """The bytes as text."""
        return bytes(token_ids).rstrip(b"\0").decode()

    async def sample(self, request: SampleRequest) -> Sampled:
        """One of ten solutions, by the seed's last digit; the next step where steps are asked for."""
        self.calls += 1
        await asyncio.sleep(0)
        done = bytes(request.prompt_ids).count(b"\n\n")
        tokens = _answer(request.seed % 10, done, bool(request.stop))[: request.max_tokens]
        finish = "eos" if tokens[-1] == _EOS else "stop" if request.stop else "length"
        told = (-0.1,) * len(tokens) if request.logprobs else ()
        return Sampled(token_ids=tokens, finish=finish, logprobs=told)

    async def abort(self, request_id: str) -> None:
        """Nothing is ever pending."""

    async def aclose(self) -> None:
        """Nothing to close."""


class CannedPRM:
    """A PRM that has all its scores ready."""

    name, fingerprint, parameters = "canned", "canned", 1

    def __init__(self) -> None:
        self.calls = 0

    def count_tokens(self, request: ScoreRequest) -> int:
        """One a step."""
        return len(request.steps)

    async def score(self, request: ScoreRequest) -> Scored:
        """Scores by the steps' lengths."""
        self.calls += 1
        await asyncio.sleep(0)
        return Scored(scores=tuple(len(step) % 7 / 7 for step in request.steps), prm_tokens=len(request.steps))

    async def aclose(self) -> None:
        """Nothing to close."""


async def bare(samples: int, scores: int, stepwise: bool) -> None:
    """As many calls, each pair of them in a task of its own."""
    policy, prm = Canned(), CannedPRM()
    prompt, steps = tuple(b"What is 1 + 2?"), ("Step 1: 1 + 1 = 2.",)

    async def one(index: int) -> None:
        stop = ("\n\n",) if stepwise else ()
        await policy.sample(SampleRequest(id=str(index), prompt_ids=prompt, max_tokens=512, seed=index, stop=stop))
        if index < scores:
            await prm.score(ScoreRequest("What is 1 + 2?", steps))

    async with asyncio.TaskGroup() as tasks:
        for index in range(samples):
            tasks.create_task(one(index))


Work = Callable[[Solver, list[str], int], Awaitable[list[Solution]]]


async def weighted(solver: Solver, questions: list[str], n: int) -> list[Solution]:
    """All problems at once."""
    return list(await asyncio.gather(*(solver.solve(one, strategy="weighted_best_of_n", n=n) for one in questions)))


async def beam(solver: Solver, questions: list[str], n: int) -> list[Solution]:
    """All problems at once."""
    return list(await asyncio.gather(*(solver.solve(one, strategy="beam_search", n=n) for one in questions)))


async def adaptive(solver: Solver, questions: list[str], n: int) -> list[Solution]:
    """One budget over all problems."""
    return list(await solver.solve_many(questions, budget_tokens=len(questions) * n * 90))


WORK: dict[str, Work] = {
    "weighted": weighted,
    "beam": beam,
    "adaptive": adaptive,
    "deep": adaptive,
    "wide": adaptive,
}
GROWTH = 16


async def _round(name: str, questions: list[str], n: int) -> tuple[float, float, int]:
    """Seconds of the solver and of bare tasks, and how many samples there were."""
    policy, prm = Canned(), CannedPRM()
    rule = "uniform" if WORK[name] is adaptive else None
    async with Solver(policy, None if rule else prm, rule=rule) as solver:
        start = time.process_time()
        solutions = await WORK[name](solver, questions, n)
        ours = time.process_time() - start
    assert all(one.answer is not None for one in solutions)
    start = time.process_time()
    await bare(policy.calls, prm.calls, name == "beam")
    return ours, time.process_time() - start, policy.calls


async def measure(*, limit: int, n: int, rounds: int) -> dict[str, float]:
    """All figures."""
    sizes = {"deep": (max(1, limit // GROWTH), n * GROWTH), "wide": (limit * GROWTH, max(1, n // GROWTH))}
    figures: dict[str, float] = {}
    for name in WORK:
        problems, each = sizes.get(name, (limit, n))
        questions = [f"What is {index} + {index % 7}?" for index in range(problems)]
        await _round(name, questions[:4], 4)
        taken = [await _round(name, questions, each) for _ in range(rounds)]
        samples = taken[0][2]
        ours, theirs = (1e6 * min(one[side] / one[2] for one in taken) for side in (0, 1))
        figures |= {f"us_per_sample.{name}": ours, f"bare_us_per_sample.{name}": theirs}
        figures |= {f"ratio.{name}": ours / theirs, f"samples.{name}": samples}
    for name in sizes:
        figures[f"growth.{name}"] = figures[f"us_per_sample.{name}"] / figures["us_per_sample.adaptive"]
    return {**figures, "problems": limit, "n": n, "rounds": rounds}


if __name__ == "__main__":
    run_measurement(
        "overhead",
        __doc__,
        measure,
        limit=(64, "problems (%(default)s)"),
        n=(16, "samples of each problem (%(default)s)"),
        rounds=(3, "%(default)s"),
    )
