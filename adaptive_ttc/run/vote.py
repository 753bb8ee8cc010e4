"""From the prefixes that a search handed in to the solution: answers, classes, scores, vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from adaptive_ttc.answers import Grader
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.events import CandidateEvent, DoneEvent, VoteEvent
from adaptive_ttc.run.request import SolveRequest
from adaptive_ttc.solution import Solution, StrategyRun
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.strategies.steps import StepSearch
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import AnswerClass, Candidate, Ending, Finish, Prefix, Stopped, Usage
from adaptive_ttc.voting import VoteName, aggregate, tally, voters


async def grade(prefixes: Sequence[Prefix], strategy: Strategy, grader: Grader) -> tuple[Candidate, ...]:
    """Candidates in the order of the prefixes, with classes and aggregated scores. GradingError: no grader starts."""
    answers = [grader.read(prefix.answer_text, prefix.finish) for prefix in prefixes]
    return candidates_of(prefixes, answers, await grader.classes(answers), strategy)


def grade_by_text(prefixes: Sequence[Prefix], strategy: Strategy, grader: Grader) -> tuple[Candidate, ...]:
    """The same where nothing compares answers: those of one canonical text are a class."""
    answers = [grader.read(prefix.answer_text, prefix.finish) for prefix in prefixes]
    return candidates_of(prefixes, answers, answers, strategy)


def candidates_of(
    prefixes: Sequence[Prefix],
    answers: Sequence[str | None],
    classes: Sequence[str | None],
    strategy: Strategy,
) -> tuple[Candidate, ...]:
    """Candidates in the order of the prefixes, with aggregated scores."""
    scores = [aggregate(prefix.scores, strategy.agg_strategy) if prefix.scores else None for prefix in prefixes]
    return tuple(Candidate(*parts) for parts in zip(prefixes, answers, classes, scores, strict=True))


def poll(candidates: Sequence[Candidate], strategy: Strategy) -> tuple[VoteName, tuple[AnswerClass, ...]]:
    """The strategy's vote over scored candidates, else majority over all, and the answer classes, best first."""
    entitled = voters(candidates, strategy.vote)
    vote: VoteName = strategy.vote if all(one.score is not None for one in entitled) else "majority"
    return vote, tally(entitled, vote, strategy.vote_b, strategy.vote_weights)


def conclude(
    request: SolveRequest,
    candidates: tuple[Candidate, ...],
    usage: Usage,
    spent: int,
    trace: Trace,
    ending: Ending,
    *,
    right: float | None = None,
    difficulty: tuple[float, ...] | None = None,
    error: AdaptiveTTCError | None = None,
) -> Solution:
    """Vote and record the result, after an ``error`` over what was finished; ``right``: how probably the answer is, if
    known.
    """
    strategy = request.vote
    vote, classes = poll(candidates, strategy)
    failed = f"it failed: {error}" if error else ""
    solution = Solution(
        problem=request.problem,
        answer=classes[0].answer if classes else None,
        candidates=candidates,
        vote=vote,
        answer_classes=classes,
        usage=usage,
        strategy=StrategyRun(strategy, len(candidates)),
        budget=request.budget,
        count=request.count,
        spent=spent,
        difficulty=difficulty,
        abstained=None if classes else failed or _why_no_answer(candidates, ending, request),
        stopped=Stopped.FAILED if error else ending.stopped,
        confidence=(1.0 if any(one.verdict for one in candidates) else right) if classes else 0.0,
        error=error,
        trace=trace,
    )
    _record(solution, failed or ending.why)
    return solution


def _record(solution: Solution, why: str) -> None:
    time, trace = solution.usage.wall_time, solution.trace
    for one in solution.candidates:
        trace.record(
            CandidateEvent(
                time=time,
                path=one.prefix.path,
                answer=one.answer,
                answer_class=one.answer_class,
                score=one.score,
                verdict=one.verdict,
            )
        )
    trace.record(VoteEvent(time=time, method=solution.vote, classes=solution.answer_classes, answer=solution.answer))
    trace.record(
        DoneEvent(
            time=time,
            answer=solution.answer,
            abstained=solution.abstained,
            stopped=solution.stopped.value,
            why=why,
            confidence=solution.confidence,
            error=None if solution.error is None else str(solution.error),
            spent=solution.spent,
            usage=asdict(solution.usage),
        )
    )


def _why_no_answer(candidates: Sequence[Candidate], ending: Ending, request: SolveRequest) -> str:
    if not candidates:
        return f"sampling ended before the first token: {ending.why}."
    late = ending.stopped == Stopped.DEADLINE
    open_thoughts = [one for one in candidates if one.prefix.answer_at is None]
    ends = Counter(one.prefix.finish for one in candidates if one.verdict is None and one not in open_thoughts)
    remedies: dict[Finish, str] = {
        "budget": "cut by the budget (give a larger one)",
        "length": "at the length limit (give a larger max_tokens)",
        "abort": "aborted (give a later deadline)" if late else "aborted when it was stopped",
        "stop": f"left after a step ({_further(request.vote)})",
        "eos": f"ended without {request.answers.form} (the policy's prompt should ask for it)",
    }
    causes = [f"{ends[finish]} {remedy}" for finish, remedy in remedies.items() if ends[finish]]
    if open_thoughts:
        remedy = "end thoughts with think_tokens, or give a larger max_tokens or budget"
        causes.append(f"{len(open_thoughts)} still thinking ({remedy})")
    if refuted := sum(candidate.verdict is False for candidate in candidates):
        causes.append(f"{refuted} with an answer that was refuted")
    return f"none of {len(candidates)} candidates holds one: {', '.join(causes)}."


def _further(strategy: Strategy) -> str:
    """What lets a search go on that ended in the midst of its solutions."""
    more = f"max_steps above {strategy.max_steps}, or " if isinstance(strategy, StepSearch) else ""
    return f"give {more}a larger budget"
