"""Explains a trace in plain text: what was tried, what it cost, and why its answer won."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_ttc.events import (
    AllocationEvent,
    CandidateEvent,
    DecisionEvent,
    DoneEvent,
    ExpandedEvent,
    RequestEvent,
    Route,
    RunEvent,
    SearchEvent,
    VoteEvent,
    WrittenEvent,
)
from adaptive_ttc.prm.base import CONFIDENCE
from adaptive_ttc.tracing.outcomes import Outcome, Round, outcomes, rounds, trees
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import ROOT, Candidate, Stopped, Usage, bin_names
from adaptive_ttc.voting import select, voters

SHOWN_ROUNDS = 12
SHOWN_CLASSES = 8
SHOWN_DECISIONS = 12
SHOWN_ACTIONS = 3

ENDS: Mapping[str, str] = {
    "eos": "ended by the model",
    "stop": "ended after a step",
    "length": "cut at the length limit",
    "budget": "cut by the budget",
    "abort": "aborted",
}
"""Why a sample ended, see :data:`adaptive_ttc.types.Finish`, in words."""

UNITS: Mapping[str, str] = {
    "generated": "generated tokens",
    "generated+prm": "tokens of policy and PRM",
    "flops": "FLOPs",
}
"""What a budget bounds, see :data:`adaptive_ttc.cost.Count`, in words."""

NOT_ENDED = "the run did not end"

_REASONS: Mapping[str, str] = {
    "majority": "most candidates hold it",
    "best": "the best-scored candidate holds it",
    "weighted": "the scores of its candidates have the largest sum",
    "logit_weighted": "its candidates' scores, as log-odds, weigh most",
}


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def explain(trace: Trace) -> str:
    """Explain a run in a few lines of plain text, as far as it got.

    Names and answers stand as the trace has them: print them through :func:`adaptive_ttc.tracing.tree_text.legible`.
    """
    found = outcomes(trace)
    search, vote, done = trace.last(SearchEvent), trace.last(VoteEvent), trace.last(DoneEvent)
    lines = [*_searched(trace, search, found), _ended(trace, found), _cost(trace), _space(trace), *_votes(vote)]
    handed_in = trace.of(CandidateEvent)
    lines += [
        _early(search, done),
        _outcome(search, vote, done),
        _margin(vote, handed_in),
        _unverified(trace.last(RunEvent), done, handed_in),
    ]
    return "\n".join(line for line in lines if line)


def _space(trace: Trace) -> str:
    """What answers were read as, where that is not mathematics."""
    run = trace.last(RunEvent)
    return "" if run is None or run.answers == "math" else f"Answers were read as {run.answers}."


def describe_round(one: Round) -> str:
    """What happened in a round."""
    parts = [f"{one.sampled} sampled"]
    for number, phrase in (
        (one.merged, "merged with an equal one"),
        (one.pruned, "pruned"),
        (one.cut, "cut short"),
        (one.unused, "not handed in"),
        (one.finished, "finished"),
        (one.kept, "gone on from"),
        (one.lookahead, "rolled out to look ahead"),
    ):
        if number:
            parts.append(f"{number} {phrase}")
    best = "" if one.best is None else f"; best score {one.best:.3f}"
    return f"{', '.join(parts)}{best}; {counted(one.tokens, 'token')}."


def _searched(trace: Trace, search: SearchEvent | None, found: Mapping[Route, Outcome]) -> list[str]:
    """The strategy, then its decisions, chains, rounds or slices."""
    if search is None:
        return ["No search was begun."]
    options, number = search.options, len(trace.of(CandidateEvent))
    n, width = options["n"], options["beam_width"]
    came = counted(number, "candidate")
    if width > 1:
        came += f" of {n} beams, {width} children for each one kept"
    elif n > 1 and options["temperature"] == 0:
        came += f" of {n} planned, as all would be the same"
    elif number < n:
        came += f" of {n} planned"
    settings = f"at temperature {options['temperature']:g}, at most {options['max_tokens']:,} tokens each"
    settings += _thinking(trace, options)
    lines = [f"{search.strategy}: {came}, {settings}."]
    aborted = [event for event in trace.of(DecisionEvent) if event.what == "aborted the others"]
    if aborted and search.strategy == "short_m_at_k":
        lines.append(f"The others were aborted, and charged as far as they came: {aborted[-1].why}.")
    if decided := describe_decisions(trace.of(AllocationEvent), trace.last(DoneEvent)):
        return [*lines, *decided, *_left_out(trace)]
    if "sequential" in options or any(one.revises for one in found.values()):
        return [*lines, _chains(trees(trace), found)]
    depths = rounds(found)
    if width > 1 or len(depths) > 1:
        return [*lines, *_rounds(trees(trace), depths)]
    sizes = [str(len(event.children)) for event in trace.of(ExpandedEvent)]
    return [*lines, f"Drawn in slices of {', '.join(sizes)}."] if len(sizes) > 1 else lines


def _left_out(trace: Trace) -> list[str]:
    """Which policy of a cascade was gone, and from when on."""
    gone = [event for event in trace.of(DecisionEvent) if event.what.startswith("went on without")]
    return [f"From {event.time:.2f} s on it {event.what}: {event.why}." for event in gone]


def _thinking(trace: Trace, options: Mapping[str, Any]) -> str:
    """How long solutions were to think, and how often the driver saw to that."""
    limit, waits = options.get("think_tokens"), options.get("waits", 0)
    parts = [] if limit is None else [f"{limit:,} of them for thinking"]
    if waits:
        parts.append(f"thoughts made to go on {counted(waits, 'time')} at most")
    written = trace.of(WrittenEvent)
    if ended := sum("ends" in event.why for event in written):
        parts.append(f"{counted(ended, 'thought')} ended")
    if longer := len(written) - ended:
        parts.append(f"{longer} prolonged")
    return "".join(f", {part}" for part in parts)


def _rounds(side_by_side: int, depths: Sequence[Round]) -> list[str]:
    started = f"{counted(side_by_side, 'tree')} side by side, " if side_by_side else ""
    lines = [f"{started}{counted(len(depths), 'round')} of steps:"]
    lines += [f"  {number}: {describe_round(one)}" for number, one in enumerate(depths[:SHOWN_ROUNDS], start=1)]
    if hidden := depths[SHOWN_ROUNDS:]:
        steps = counted(sum(one.sampled for one in hidden), "step")
        lines.append(f"  and {counted(len(hidden), 'further round')} with {steps}")
    return lines


def _chains(chains: int, found: Mapping[Route, Outcome]) -> str:
    revisions = [one for one in found.values() if one.revises]
    beside = " side by side" if chains > 1 else ""
    first = f"{counted(chains, 'chain')}{beside}: {counted(len(found) - len(revisions), 'first attempt')}"
    if not revisions:
        return f"{first}, none revised."
    pairs = [(found[one.path[:-1]].answer_class, one.answer_class) for one in revisions if one.path[:-1] in found]
    compared = [pair for pair in pairs if all(pair)]
    changed = sum(before != after for before, after in compared)
    return (
        f"{first}, {counted(len(revisions), 'attempt')} shown earlier ones; {changed} of {len(compared)} changed the "
        "answer of the attempt before."
    )


def describe_decisions(events: Sequence[AllocationEvent], done: DoneEvent | None) -> list[str]:
    """A line for every decision of an adaptive run, the difficulty, and why it stopped."""
    drawn = [event for event in events if event.action is not None]
    lines = [f"{counted(len(drawn), 'decision')}, each by what the evidence then was:"] if drawn else []
    lines += [f"  {number}: {_decision(event)}" for number, event in enumerate(drawn[:SHOWN_DECISIONS], start=1)]
    if hidden := drawn[SHOWN_DECISIONS:]:
        lines.append(f"  and {len(hidden)} further, for at most {sum(one.units for one in hidden):,} units")
    if events and (posterior := events[-1].difficulty) is not None:
        bins = zip(bin_names(len(posterior)), posterior, strict=True)
        lines.append(f"Difficulty: {', '.join(f'{name} {share:.2f}' for name, share in bins)}.")
    if events and (note := events[-1].note):
        lines.append(f"Allocated {note}.")
    if done and events and events[-1].action is None:
        lines.append(_stopped(events[-1], done))
    if any(f"{action}*" in line for event in events for action in event.beyond for line in lines):
        lines.append("What is marked with * goes beyond what calibration recorded, and was extrapolated.")
    return lines


def _decision(event: AllocationEvent) -> str:
    if event.opening:
        return f"{event.action} to begin with, at most {event.units:,} units."
    worth = "".join(f", {_worth(event, one)}" for one in event.considered if one[0] == event.action)
    others = [one for one in event.considered if one[0] != event.action]
    rest = f" ({_best(event, others)})" if others else ""
    now = f"{event.at_once} at once, " if event.at_once > 1 else ""
    return f"{_right(event)}{_named(event, event.action)}{worth}; {now}at most {event.units:,} units now{rest}."


def _stopped(event: AllocationEvent, done: DoneEvent) -> str:
    sure = done.answer is not None and done.confidence is not None
    reason = f"Right with probability {done.confidence:.2f}, stopped: " if sure else "Stopped: "
    reason += done.why
    gaining = [one for one in event.considered if one[1] > 0]
    if not gaining:
        return f"{reason}."
    price = f", at a price of {event.price:.3g} per 1,000 units" if event.price and event.right is not None else ""
    return f"{reason}{price} ({_best(event, gaining)})."


def _right(event: AllocationEvent) -> str:
    if event.right is None:
        return ""
    return f"right with probability {event.right:.2f}, " if event.right else "no answer yet, "


def _best(event: AllocationEvent, actions: Sequence[tuple[str, float, float]]) -> str:
    ordered = sorted(actions, key=lambda one: -one[1] / one[2])
    shown = ", ".join(f"{_named(event, one[0])} {_worth(event, one)}" for one in ordered[:SHOWN_ACTIONS])
    return f"{counted(len(actions), 'other')}: {shown}"


def _named(event: AllocationEvent, action: str | None) -> str:
    return f"{action}*" if action in event.beyond else str(action)


def _worth(event: AllocationEvent, action: tuple[str, float, float]) -> str:
    """Its gain and cost; the gain only where it was measured."""
    return f"for {action[2]:,.0f}" if event.right is None else f"{action[1]:+.3f} for {action[2]:,.0f}"


def _ended(trace: Trace, found: Mapping[Route, Outcome]) -> str:
    candidates, search = trace.of(CandidateEvent), trace.last(SearchEvent)
    most = search.options.get("max_steps", math.inf) if search else math.inf
    known = [one.path for one in candidates if one.path in found]
    given_up = sum(found[path].finish == "stop" and len(path) >= most for path in known)
    ends = Counter(found[path].finish for path in known) - Counter(stop=given_up)
    parts = [f"{given_up} given up after max_steps={most} steps"] if given_up else []
    parts += [f"{ends[finish]} {phrase}" for finish, phrase in ENDS.items() if ends[finish]]
    if without := sum(one.answer is None for one in candidates):
        parts.append(f"{without} without an answer {'has' if without == 1 else 'have'} no vote")
    return f"Candidates: {'; '.join(parts)}." if parts else ""


def _cost(trace: Trace) -> str:
    run, done = trace.last(RunEvent), trace.last(DoneEvent)
    if done is None:
        tokens = sum(len(event.token_ids) for event in trace.of(RequestEvent))
        return f"{counted(tokens, 'token')} generated until the run broke off."
    usage = Usage(**done.usage)  # type: ignore[arg-type]
    thinking = f", {usage.thinking_tokens:,} of them thinking" if usage.thinking_tokens else ""
    parts = [f"{usage.completion_tokens:,} tokens generated{thinking}"]
    if usage.lost_tokens:
        parts.append(f"{usage.lost_tokens:,} more charged for failed calls")
    if usage.num_prm_calls:
        written = f" and {usage.prm_written_tokens:,} written" if usage.prm_written_tokens else ""
        parts.append(f"{usage.prm_tokens - usage.prm_written_tokens:,} read{written} by the PRM")
    allowed = "no limit"
    if run is not None and run.budget is not None:
        allowed = f"{run.budget:,} {UNITS.get(run.count, run.count)} allowed"
    charged = f"({allowed}, {done.spent:,} charged)"
    return f"{', '.join(parts)} {charged}, {usage.flops:.3g} FLOPs, {usage.wall_time:.2f} s."


def _votes(vote: VoteEvent | None) -> list[str]:
    classes = vote.classes if vote else ()
    lines = [
        f"  {one.answer}: {counted(one.votes, 'vote')}, weight {one.weight:.3f}" for one in classes[:SHOWN_CLASSES]
    ]
    hidden = len(classes) - len(lines)
    return [*lines, f"  and {counted(hidden, 'further answer')}"] if hidden else lines


def _early(search: SearchEvent | None, done: DoneEvent | None) -> str:
    """What ended a named strategy before it was done; an adaptive run's decisions end with the same."""
    if done is None or search is None or done.stopped == Stopped.SETTLED:
        return ""
    if search.strategy == "adaptive" and not (done.error and done.answer is not None):
        return ""
    return f"Stopped early: {done.why}{' (the vote is over what was finished)' if done.error else ''}."


def _outcome(search: SearchEvent | None, vote: VoteEvent | None, done: DoneEvent | None) -> str:
    if done is None or vote is None or done.answer is None:
        return f"No answer: {done.abstained if done else NOT_ENDED}"
    asked = search.options["vote"] if search else vote.method
    fallback = "" if vote.method == asked else f" (no candidate with an answer is scored, so not the {asked} vote)"
    return f"The answer is {done.answer}: {_REASONS[vote.method]}{fallback}."


def _margin(vote: VoteEvent | None, handed_in: Sequence[CandidateEvent]) -> str:
    """The runner-up, and whether the majority vote would have chosen another answer."""
    if vote is None or not vote.classes:
        return ""
    winner, *others = vote.classes
    if not others:
        return "No candidate holds another answer."
    held = f"It holds {winner.votes} of {sum(one.votes for one in vote.classes)} votes; next comes {others[0].answer}"
    if vote.method == "majority":
        tied = " as well: the tie broke by score, then by text" if others[0].votes == winner.votes else ""
        return f"{held}, with {others[0].votes}{tied}."
    line = f"{held}, with a weight of {others[0].weight:.4f} against {winner.weight:.4f}."
    voted = [Candidate(ROOT, one.answer, one.answer_class, one.score, one.verdict) for one in handed_in]
    popular = select(voters(voted, "majority"), "majority")
    return line if popular == vote.answer else f"{line} The majority vote would have chosen {popular}."


def _unverified(run: RunEvent | None, done: DoneEvent | None, handed_in: Sequence[CandidateEvent]) -> str:
    """Where votes alone settled it: neither a PRM, other than the policy's confidence, nor a check has looked at an
    answer.
    """
    voting = [one for one in handed_in if one.answer is not None]
    own = run is not None and run.prm is not None and run.prm.startswith(CONFIDENCE)
    looked_at = any((one.score is not None and not own) or one.verdict is not None for one in voting)
    if done is None or done.answer is None or done.stopped != Stopped.SETTLED or looked_at or len(voting) < 2:
        return ""
    return "Settled, not verified: neither a PRM nor a check has looked at the answers."
