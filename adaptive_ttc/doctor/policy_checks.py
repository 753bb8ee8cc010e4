"""Checks of what writes solutions: by its prompt, by samples, and by a prompt that comes a second time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.doctor.check import Check, by_share, judged
from adaptive_ttc.errors import see
from adaptive_ttc.policy import Policy
from adaptive_ttc.run.unread import last_line, to_be_read
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.types import Candidate, Problem, Usage

COMMON_PROMPT = 40  # times that a problem is repeated where a second reading of a prompt is timed
FASTER = 0.6  # of the time of the first reading, from which on the second is taken for one of a cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What was drawn for all problems.

    Attributes:
        candidates: of each problem.
        right: whether each candidate's answer is right; None where no right answer is known.
        usage: what all of it computed.
        seconds: that it took.
        max_tokens: most tokens of one solution.
    """

    candidates: Sequence[Sequence[Candidate]]
    right: Sequence[Sequence[bool | None]]
    usage: Usage
    seconds: float
    max_tokens: int

    @property
    def every(self) -> list[Candidate]:
        """The candidates of all problems."""
        return [one for several in self.candidates for one in several]


def check_template(policy: Policy, problem: Problem) -> Check:
    """Whether the chat template renders the problem, and leaves room for a solution."""
    ids = policy.encode(problem)
    text = policy.decode(ids)
    figures = {"prompt_tokens": len(ids), "max_context": policy.max_context}
    if "".join(problem.question.split()) not in "".join(text.split()):
        found = f"the rendered prompt does not hold the problem; it reads {text[:200]!r}"
        remedy = (
            f"give the model's folder the chat template of its maker {see('models.md#policies-what-writes-solutions')}"
        )
        return Check(name="chat template", status="fault", found=found, remedy=remedy, figures=figures)
    room = policy.max_context - len(ids)
    if room < Strategy.max_tokens:
        found = (
            f"{len(ids):,} tokens of prompt leave {room:,} for a solution, and {Strategy.max_tokens:,} are asked for"
        )
        remedy = f"ask for max_tokens={room} at most, or raise max_model_len"
        return Check(name="chat template", status="warning", found=found, remedy=remedy, figures=figures)
    found = f"renders a problem as {len(ids):,} tokens; {room:,} are left for the solution"
    return Check(name="chat template", status="ok", found=found, figures=figures)


def check_steps(samples: Samples) -> Check:
    """Whether samples have steps, which a PRM scores one by one and searches go on from."""
    steps = [len(one.prefix.steps) for one in samples.every]
    share = sum(count > 1 for count in steps) / max(len(steps), 1)
    each = sum(steps) / max(len(steps), 1)
    found = f"{share:.0%} of {len(steps)} samples have blank lines between steps, {each:.1f} steps each"
    remedy = (
        "ask for a blank line between steps in the system prompt; without steps beam_search and dvts are best-of-N, "
        f"and a PRM gives one score {see('engines.md')}"
    )
    status = by_share(share, well=0.8, badly=0.0)
    return judged("steps", status, found, remedy, {"share": share})


def check_answers(samples: Samples, space: AnswerSpace) -> Check:
    """Whether samples hold answers of the form that is looked for, and how many of these are right."""
    every = samples.every
    share = sum(one.answer is not None for one in every) / max(len(every), 1)
    graded = [one for several in samples.right for one in several if one is not None]
    found = f"{share:.0%} of {len(every)} samples hold {space.form}"
    figures = {"share": share}
    if graded:
        figures["right"] = sum(graded) / len(graded)
        found += f"; {figures['right']:.0%} are right"
    status = by_share(share, well=0.8, badly=0.3)
    if status == "ok" and graded and not any(graded):
        remedy = "take a better policy, or easier problems: votes and scores choose among what it writes"
        return Check(name="answers", status="warning", found=found, remedy=remedy, figures=figures)
    unread = [one.prefix.answer_text for one in every if one.answer is None and one.prefix.answer_text.strip()]
    remedy = f"the model answers nothing {see('models.md#policies-what-writes-solutions')}"
    if unread:
        remedy = f"one ends in {last_line(unread[0])!r}. {to_be_read(unread, space)}"
    return judged("answers", status, found, remedy, figures)


def check_ends(samples: Samples) -> Check:
    """Whether samples end by themselves."""
    every = samples.every
    share = sum(one.prefix.finish == "eos" for one in every) / max(len(every), 1)
    longest = max((len(one.prefix.token_ids) for one in every), default=0)
    found = f"{share:.0%} of {len(every)} samples end by themselves, the longest has {longest:,} tokens"
    remedy = (
        f"the others were cut at {samples.max_tokens:,} tokens: raise max_tokens, or give eos_token_ids if the model "
        f"does not know its end {see('models.md')}"
    )
    status = by_share(share, well=0.9, badly=0.3)
    figures = {"share": share, "longest": longest}
    return judged("ends", status, found, remedy, figures)


def check_speed(samples: Samples) -> Check:
    """How fast samples came, drawn side by side."""
    tokens = samples.usage.completion_tokens / max(samples.seconds, 1e-9)
    found = f"{tokens:,.0f} tokens/s, {len(samples.every)} samples side by side"
    figures = {"tokens_per_second": tokens, "seconds": samples.seconds}
    if samples.usage.prm_tokens:
        figures["prm_tokens_per_second"] = samples.usage.prm_tokens / max(samples.seconds, 1e-9)
        found += f"; the PRM read {figures['prm_tokens_per_second']:,.0f} tokens/s meanwhile"
    return Check(name="speed", status="ok", found=found, figures=figures)


async def check_prefix_cache(solver: Solver, problem: Problem) -> Check:
    """Whether a prompt that comes a second time is found in the engine's cache, or read faster."""
    long = Problem.of(" ".join([problem.question] * COMMON_PROMPT))
    if len(solver.policy.encode(long)) + 2 > solver.policy.max_context:
        long = problem
    times, cached = [], 0
    for seed in (1, 2):
        begun = time.monotonic()
        solution = await solver.solve(long, strategy="majority", n=1, max_tokens=1, seed=seed)
        times.append(time.monotonic() - begun)
        cached = solution.usage.cached_prompt_tokens
    figures = {"first_seconds": times[0], "second_seconds": times[1], "cached_tokens": cached}
    told = f"a prompt that comes again took {times[1]:.3f} s after {times[0]:.3f} s"
    if cached:
        return Check(
            name="prefix cache", status="ok", found=f"{told}, {cached:,} of its tokens cached", figures=figures
        )
    if times[1] < FASTER * times[0]:
        return Check(name="prefix cache", status="ok", found=f"{told}; no cached tokens are reported", figures=figures)
    remedy = (
        "the samples of a problem share its prompt, which is computed anew for each: leave prefix_cache_bytes above 0, "
        f"or start vLLM with --enable-prefix-caching --enable-prompt-tokens-details {see('models.md#servers')}"
    )
    found = f"{told}; no cached tokens are reported"
    return Check(name="prefix cache", status="warning", found=found, remedy=remedy, figures=figures)
