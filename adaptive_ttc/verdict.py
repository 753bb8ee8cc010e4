"""From the prefixes that a search handed in to the solution: answers, classes, scores, vote; it knows no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import anyio

from adaptive_ttc.driver import Driver
from adaptive_ttc.grading import Grader, extract_answer
from adaptive_ttc.plan import Plan
from adaptive_ttc.solution import Solution, StrategyRun, voters
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.trace import VoteEvent
from adaptive_ttc.types import Candidate, Finish, Prefix
from adaptive_ttc.voting import VoteName, aggregate, tally


async def grade(prefixes: Sequence[Prefix], strategy: Strategy, grader: Grader) -> tuple[Candidate, ...]:
    """Candidates in the order of the prefixes: answers put into classes, step scores made one.

    Raises:
        GradingError: the grader cannot be started.
    """
    answers = [extract_answer(prefix.text) for prefix in prefixes]
    classes = await grader.classes(answers)
    scores = [aggregate(prefix.scores, strategy.agg_strategy) if prefix.scores else None for prefix in prefixes]
    return tuple(Candidate(*parts) for parts in zip(prefixes, answers, classes, scores, strict=True))


def conclude(plan: Plan, candidates: tuple[Candidate, ...], driver: Driver, spent: int) -> Solution:
    """Vote, and say what was found. Scores that only some candidates have count for those alone."""
    strategy, trace = plan.strategy, driver.trace
    entitled = voters(candidates, strategy.vote)
    scored = all(candidate.score is not None for candidate in entitled)
    vote: VoteName = strategy.vote if scored else "majority"
    classes = tally(entitled, vote, strategy.vote_b)
    answer = classes[0].answer if classes else None
    wall_time = anyio.current_time() - trace.started
    trace.record(VoteEvent(time=wall_time, method=vote, classes=classes, answer=answer))
    return Solution(
        problem=plan.problem,
        answer=answer,
        candidates=candidates,
        vote=vote,
        answer_classes=classes,
        usage=replace(driver.usage, wall_time=wall_time),
        strategy=StrategyRun(strategy, len(candidates)),
        budget=plan.budget,
        count=plan.count,
        spent=spent,
        abstained=None if classes else _why_no_answer(candidates),
        trace=trace,
    )


def _why_no_answer(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "sampling ended before the first token: the budget did not cover one, or it was stopped."
    ends = Counter(candidate.prefix.finish for candidate in candidates)
    remedies: dict[Finish, str] = {
        "budget": "cut by the budget (give a larger one)",
        "length": "at the length limit (give a larger max_tokens)",
        "abort": "aborted (give a later deadline)",
        "eos": "ended without \\boxed{...} (the policy's prompt should ask for it)",
    }
    causes = [f"{ends[finish]} {remedy}" for finish, remedy in remedies.items() if ends[finish]]
    return f"none of {len(candidates)} candidates holds one: {', '.join(causes)}."
