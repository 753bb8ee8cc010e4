"""What whoever asked is told of a solution, as plain data: its text, its cost, the decision."""

from __future__ import annotations

from typing import Any

from adaptive_ttc.answers.thinking import KNOWN
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.solution import Solution
from adaptive_ttc.types import Candidate


def told(solution: Solution) -> dict[str, Any]:
    """The solution that speaks for the answer, and the thinking before it."""
    best = speaker(solution)
    return {"content": solution.answer or "", "reasoning": None} if best is None else said(best)


def said(candidate: Candidate) -> dict[str, Any]:
    """The text of one solution, and the thinking before it."""
    prefix = candidate.prefix
    begin = len(prefix.text) if prefix.answer_at is None else prefix.answer_at
    return {"content": prefix.answer_text.lstrip("\n"), "reasoning": _without_tags(prefix.text[:begin]) or None}


def _without_tags(thought: str) -> str:
    thought = thought.strip()
    for opening, closing in KNOWN:
        thought = thought.removeprefix(opening).removesuffix(closing)
    return thought.strip()


def speaker(solution: Solution) -> Candidate | None:
    """Of those with the answer the one with the best score; without an answer the longest."""
    having = [one for one in solution.candidates if solution.answer and one.answer_class == solution.answer]
    if having:
        return max(having, key=lambda one: -1.0 if one.score is None else one.score)
    return max(solution.candidates, key=lambda one: len(one.prefix.token_ids), default=None)


def finish_of(solution: Solution) -> str:
    """``stop``; ``length`` where there is no answer."""
    return "length" if solution.answer is None else "stop"


def usage_of(solution: Solution) -> dict[str, Any]:
    """All that was computed for a solution."""
    usage = solution.usage
    prompt = usage.prompt_tokens + usage.cached_prompt_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": prompt + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "prm_tokens": usage.prm_tokens,
        "num_calls": usage.num_calls,
        "num_prm_calls": usage.num_prm_calls,
        "flops": usage.flops,
        "spent": solution.spent,
        "budget": solution.budget,
    }


def decision_of(solution: Solution) -> dict[str, Any]:
    """The answer, how sure it is, how it was found and why it got no more."""
    leader = solution.answer_classes[0] if solution.answer_classes else None
    decided = solution.trace.last(AllocationEvent)
    return {
        "answer": solution.answer,
        "confidence": solution.confidence,
        "agreement": None if leader is None else leader.votes / max(1, solution.effective_n),
        "answers": [
            {"answer": one.answer, "votes": one.votes, "weight": one.weight} for one in solution.answer_classes
        ],
        "strategy": solution.strategy.name,
        "n": solution.strategy.n,
        "vote": solution.vote,
        "difficulty": solution.difficulty,
        "stopped": solution.stopped.value,
        "arms": [one.action for one in solution.trace.of(AllocationEvent) if one.action is not None],
        "note": decided.note if decided is not None else "",  # the rule and its certificate, where one decides
        "abstained": solution.abstained,
        "error": None if solution.error is None else str(solution.error),
    }
