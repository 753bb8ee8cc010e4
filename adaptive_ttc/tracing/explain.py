"""Says in words what a solution tried, what it cost and why its answer won; it computes nothing new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptive_ttc.tracing.decided import decisions
from adaptive_ttc.tracing.outcomes import Outcome, outcomes
from adaptive_ttc.tracing.rounds import Round, rounds, slices, trees
from adaptive_ttc.types import AnswerClass, Finish
from adaptive_ttc.voting import VoteName

if TYPE_CHECKING:
    from adaptive_ttc.events import Route
    from adaptive_ttc.solution import Solution

SHOWN_ROUNDS = 12
SHOWN_CLASSES = 8

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
    found = outcomes(solution.trace)
    lines = [_tried(solution), *_course(solution, found), _ended(solution), _cost(solution)]
    lines += [*_votes(solution), _outcome(solution), _margin(solution)]
    return "\n".join(line for line in lines if line)


def _tried(solution: Solution) -> str:
    run = solution.strategy
    config = run.config
    came = _count(run.n, "candidate")
    if config.beam_width > 1:
        came += f" of {config.n} beams, {config.beam_width} children for each one kept"
    elif run.n != config.n:
        came += f" of {config.n} planned"
    return f"{run.name}: {came}, at temperature {config.temperature:g}, at most {config.max_tokens:,} tokens each."


def _course(solution: Solution, found: Mapping[Route, Outcome]) -> list[str]:
    """How the search went: its decisions, or its chains, or its trees and rounds, or its slices."""
    if decided := decisions(solution.trace):
        return decided
    side_by_side = trees(solution.trace)
    if solution.strategy.config.revises:
        return [_chains(side_by_side, found)]
    drawn = slices(solution.trace)
    depths = rounds(found)
    if solution.strategy.config.beam_width > 1 or len(depths) > 1:
        started = f"{_count(side_by_side, 'tree')} side by side, " if side_by_side else ""
        shown = [f"  {number}: {in_words(one)}" for number, one in enumerate(depths[:SHOWN_ROUNDS], start=1)]
        hidden = depths[SHOWN_ROUNDS:]
        more = f"  and {_count(len(hidden), 'further round')} with {_count(sum(one.sampled for one in hidden), 'step')}"
        return [f"{started}{_count(len(depths), 'round')} of steps:", *shown, *([more] if hidden else [])]
    return [f"Drawn in slices of {', '.join(map(str, drawn))}."] if len(drawn) > 1 else []


def in_words(one: Round) -> str:
    """What happened in a round."""
    parts = [f"{one.sampled} sampled"]
    for number, phrase in (
        (one.merged, "merged with an equal one"),
        (one.pruned, "pruned"),
        (one.cut, "cut short"),
        (one.unused, "not handed in"),
        (one.finished, "finished"),
        (one.kept, "gone on from"),
        (one.foreseen, "rolled out to look ahead"),
    ):
        if number:
            parts.append(f"{number} {phrase}")
    best = "" if one.best is None else f"; best score {one.best:.3f}"
    return f"{', '.join(parts)}{best}; {_count(one.tokens, 'token')}."


def _chains(chains: int, found: Mapping[Route, Outcome]) -> str:
    revisions = [one for one in found.values() if one.revises]
    beside = " side by side" if chains > 1 else ""
    words = f"{_count(chains, 'chain')}{beside}: {_count(len(found) - len(revisions), 'first attempt')}"
    if not revisions:
        return f"{words}, none revised."
    pairs = [(found[one.path[:-1]].answer_class, one.answer_class) for one in revisions if one.path[:-1] in found]
    compared = [pair for pair in pairs if all(pair)]
    changed = sum(before != after for before, after in compared)
    return (
        f"{words}, {_count(len(revisions), 'attempt')} shown earlier ones; {changed} of {len(compared)} changed the "
        "answer of the attempt before."
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
    return f"Of the candidates, {'; '.join(parts)}." if parts else ""


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
    shown = solution.answer_classes[:SHOWN_CLASSES]
    lines = [f"  {one.answer}: {_count(one.votes, 'vote')}, weight {one.weight:.3f}" for one in shown]
    hidden = len(solution.answer_classes) - len(shown)
    return [*lines, f"  and {_count(hidden, 'further answer')}"] if hidden else lines


def _outcome(solution: Solution) -> str:
    if solution.answer is None:
        return f"No answer: {solution.abstained}"
    asked = solution.strategy.config.vote
    fallback = "" if solution.vote == asked else f" (no candidate with an answer is scored, so not the {asked} vote)"
    return f"The answer is {solution.answer}: {_REASONS[solution.vote]}{fallback}."


def _margin(solution: Solution) -> str:
    """By how much it won, and whether another vote would have chosen otherwise."""
    if not solution.answer_classes:
        return ""
    winner, *others = solution.answer_classes
    held = f"{winner.votes} of {sum(one.votes for one in solution.answer_classes)} votes"
    if not others:
        return "No candidate holds another answer."
    line = f"It holds {held}; next comes {others[0].answer}, {_behind(winner, others[0], solution.vote)}."
    if solution.vote == "majority":
        return line
    popular = solution.select_with("majority")
    return line if popular == solution.answer else f"{line} The majority vote would have chosen {popular}."


def _behind(winner: AnswerClass, other: AnswerClass, vote: VoteName) -> str:
    if vote == "majority":
        return f"with {other.votes}" + (
            " as well: the tie broke by score, then by text" * (other.votes == winner.votes)
        )
    return f"with a weight of {other.weight:.4f} against {winner.weight:.4f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
