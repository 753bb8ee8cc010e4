"""Says in words what a solution tried, what it cost and why its answer won; it computes nothing new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptive_ttc.types import Finish
from adaptive_ttc.voting import VoteName

if TYPE_CHECKING:
    from adaptive_ttc.solution import Solution

_ENDS: Mapping[Finish, str] = {
    "eos": "ended by {self}",
    "stop": "stopped between two steps",
    "length": "ran into {their} length limit",
    "budget": "{was} cut by the budget",
    "abort": "{was} aborted",
}

_REASONS: Mapping[VoteName, str] = {
    "majority": "most candidates hold it",
    "best": "the best-scored candidate holds it",
    "weighted": "the scores of its candidates have the largest sum",
    "logit_weighted": "its candidates' scores, as log-odds, weigh most",
}

_UNITS: Mapping[str, str] = {
    "generated": "generated tokens",
    "generated+prm": "tokens of policy and PRM",
    "flops": "FLOPs",
}


def explain(solution: Solution) -> str:
    """A few lines of plain text."""
    lines = [_tried(solution), _ended(solution), _cost(solution), *_votes(solution), _outcome(solution)]
    return "\n".join(line for line in lines if line)


def _tried(solution: Solution) -> str:
    run = solution.strategy
    config = run.config
    asked = "" if run.n == config.n else f" of {config.n} planned"
    return (
        f"{run.name}: {_count(run.n, 'candidate')}{asked}, at temperature {config.temperature:g}, "
        f"at most {config.max_tokens:,} tokens each."
    )


def _ended(solution: Solution) -> str:
    ends = Counter(candidate.prefix.finish for candidate in solution.candidates)
    parts = []
    for finish, phrase in _ENDS.items():
        if number := ends[finish]:
            words = {"self": "itself", "their": "its", "was": "was"}
            if number > 1:
                words = {"self": "themselves", "their": "their", "was": "were"}
            parts.append(f"{number} {phrase.format(**words)}")
    without = sum(candidate.answer is None for candidate in solution.candidates)
    if without:
        parts.append(f"{without} without an answer {'has' if without == 1 else 'have'} no vote")
    return f"{'; '.join(parts)}." if parts else ""


def _cost(solution: Solution) -> str:
    usage = solution.usage
    allowed = "no limit" if solution.budget is None else f"{solution.budget:,} {_UNITS[solution.count]} allowed"
    parts = [f"{usage.completion_tokens:,} tokens generated"]
    if usage.lost_tokens:
        parts.append(f"{usage.lost_tokens:,} more charged for failed calls")
    if usage.num_prm_calls:
        parts.append(f"{usage.prm_tokens:,} read by the PRM")
    return (
        f"{', '.join(parts)} ({allowed}, {solution.spent:,} charged), {usage.flops:.3g} FLOPs, {usage.wall_time:.2f} s."
    )


def _votes(solution: Solution) -> list[str]:
    shown = solution.answer_classes[:8]
    lines = [f"  {one.answer}: {_count(one.votes, 'vote')}, weight {one.weight:.3f}" for one in shown]
    hidden = len(solution.answer_classes) - len(shown)
    return [*lines, f"  and {_count(hidden, 'further answer')}"] if hidden else lines


def _outcome(solution: Solution) -> str:
    if solution.answer is None:
        return f"No answer: {solution.abstained}"
    asked = solution.strategy.config.vote
    fallback = "" if solution.vote == asked else f" (no candidate with an answer is scored, so not the {asked} vote)"
    return f"The answer is {solution.answer}: {_REASONS[solution.vote]}{fallback}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
