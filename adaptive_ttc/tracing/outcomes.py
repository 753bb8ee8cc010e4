"""Reads from a trace what became of every sample; it draws nothing and knows no strategy by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from adaptive_ttc.events import (
    CandidateEvent,
    ExpandedEvent,
    ExpandEvent,
    PrunedEvent,
    Route,
    SampledEvent,
    ScoredEvent,
    SearchEvent,
)
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import split_steps

Fate = Literal["candidate", "continued", "merged", "pruned", "cut", "unused"]
"""What became of a sample.

``candidate`` it was handed in; ``continued`` the search went on from it; ``merged`` an equal one stands
for it; ``pruned`` the search went on without it; ``cut`` it did not end by itself, and nothing came of
it; ``unused`` it ended and was not handed in.
"""


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """A step and the PRM's score of it in [0, 1], or None."""

    text: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A sample, and what became of it.

    Attributes:
        path: child indices from the root; the parent is one shorter.
        steps: what it added to its parent, one piece for every non-empty step. A step that its parent was
            cut in stands here whole.
        text: the whole solution so far.
        tokens: those that it generated itself.
        logprob: of the whole solution, in nats.
        finish: why it ended, see :data:`adaptive_ttc.types.Finish`.
        fate: what became of it.
        twin: where it is merged, the path of the equal solution, if the trace tells.
        answer: of a candidate, the extracted answer; ``answer_class`` its class, ``score`` its one score.
        revises: it begins anew, with the solution at its parent's path before its eyes.
        foreseen: it was rolled out to judge its parent, not sampled to be gone on from.
        branch: which search asked for it, see :mod:`adaptive_ttc.events`; () where the trace does not tell.
    """

    path: Route
    steps: tuple[ScoredStep, ...]
    text: str
    tokens: int
    logprob: float
    finish: str
    fate: Fate
    twin: Route | None = None
    answer: str | None = None
    answer_class: str | None = None
    score: float | None = None
    revises: bool = False
    foreseen: bool = False
    branch: Route = ()

    @property
    def value(self) -> float | None:
        """What it is judged by: its score as a candidate, else its last step's; None if it was not scored."""
        return self.score if self.score is not None or not self.steps else self.steps[-1].score


def outcomes(trace: Trace) -> dict[Route, Outcome]:
    """Every sample of a trace by its path, in the order in which they ended."""
    pruned = {event.path: event for event in trace.of(PrunedEvent)}
    handed_in = {event.path: event for event in trace.of(CandidateEvent)}
    scores = {event.path: event.scores for event in trace.of(ScoredEvent)}
    parents, revised, foreseen = _asked(trace)
    branches = {path: event.branch for event in trace.of(ExpandedEvent) for path in event.children}
    samples = trace.of(SampledEvent)
    texts = _texts(samples, revised)
    speaking = {texts[path]: path for path in handed_in if path in texts}
    found = {}
    for event in samples:
        path = event.path
        candidate, cut = handed_in.get(path), pruned.get(path)
        twin = cut.merged_into if cut else None
        if event.finish == "eos" and candidate is None:
            twin = speaking.get(texts[path])
        fate: Fate = "unused" if event.finish == "eos" else "cut"
        if candidate:
            fate = "candidate"
        elif twin is not None:
            fate = "merged"
        elif cut:
            fate = "pruned"
        elif path in parents:
            fate = "continued"
        revises = path[:-1] in revised
        before = "" if revises else texts.get(path[:-1], "")
        found[path] = Outcome(
            path=path,
            steps=_own_steps(texts[path], before, scores.get(path, ())),
            text=texts[path],
            tokens=event.tokens,
            logprob=event.logprob,
            finish=event.finish,
            fate=fate,
            twin=twin,
            answer=candidate.answer if candidate else None,
            answer_class=candidate.answer_class if candidate else None,
            score=candidate.score if candidate else None,
            revises=revises,
            foreseen=path in foreseen,
            branch=branches.get(path, ()),
        )
    return found


def _asked(trace: Trace) -> tuple[set[Route], set[Route], set[Route]]:
    """The solutions that were gone on from, those that were revised, and the samples that only looked ahead."""
    searches = trace.of(SearchEvent)
    options: Mapping[str, object] = searches[-1].options if searches else {}
    looks_ahead = bool(options.get("lookahead")) and options.get("temperature") != 0
    parents: set[Route] = set()
    revised: set[Route] = set()
    ahead = set()
    for event in trace.of(ExpandEvent):
        for path, attempts in zip(event.paths, event.attempts, strict=True):
            (revised if attempts and attempts[-1] == path else parents).add(path)
        if looks_ahead and event.temperature == 0:
            ahead.add((event.branch, event.number))
    replies = [event for event in trace.of(ExpandedEvent) if (event.branch, event.number) in ahead]
    return parents, revised, {path for event in replies for path in event.children}


def _texts(samples: Iterable[SampledEvent], revised: set[Route]) -> dict[Route, str]:
    """The whole solutions; a parent ends before its children begin."""
    texts: dict[Route, str] = {}
    for event in samples:
        parent = event.path[:-1]
        texts[event.path] = event.text if parent in revised else texts.get(parent, "") + event.text
    return texts


def _own_steps(text: str, before: str, scores: tuple[float, ...]) -> tuple[ScoredStep, ...]:
    steps, earlier = split_steps(text), split_steps(before)
    known = len(earlier) if steps[: len(earlier)] == earlier else max(len(earlier) - 1, 0)  # it was cut in its last
    padded = (*scores, *[None] * (len(steps) - len(scores)))
    return tuple(ScoredStep(step, score) for step, score in zip(steps[known:], padded[known:], strict=False))
