"""The result of solving a problem: candidates, the vote over them, and what it cost."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field

from adaptive_ttc.display import html
from adaptive_ttc.errors import AdaptiveTTCError
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.tracing.explain import counted, explain
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import AnswerClass, Candidate, Problem, Stopped, Usage
from adaptive_ttc.voting import VoteName, select, voters

_SHORT = reprlib.Repr()
_SHORT.maxstring = 40


@dataclass(frozen=True, slots=True)
class StrategyRun:
    """A strategy as it was run."""

    config: Strategy  # what was asked for
    n: int  # candidates that came of it; less than ``config.n`` where the budget ended first

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.config.name


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Solution:
    """The answer to a problem and how it came about.

    Attributes:
        problem: what was asked.
        answer: canonical text of the winning answer class, or None where no candidate has an answer.
        candidates: the solutions that were handed in, in the order of their search.
        vote: the vote that was taken: the strategy's, or ``majority`` where no candidate with an answer is scored.
        answer_classes: the classes under that vote, best first.
        usage: what was computed.
        strategy: what was run.
        budget: what the ledger allowed, in the unit of ``count``; None without a limit.
        count: what the budget bounded, see :data:`adaptive_ttc.cost.Count`.
        spent: what the ledger was charged; never more than ``budget``.
        difficulty: probabilities of the difficulty bins, easiest first; None without a calibration.
        abstained: why there is no answer, or None where there is one.
        stopped: why it got no more work; ``explain()`` says the same in words.
        confidence: probability that the answer is right, as calibrated; 0 where there is no answer, None where it is
            not known: under a named strategy, without a calibration of the pair, or where only half-written solutions
            hold an answer.
        error: what ended it early: an engine, the grader or a source of problems failed; the vote is then over what was
            finished before. None where nothing ended it, though single calls may have failed, which the trace tells.
        trace: what happened.
    """

    problem: Problem
    answer: str | None
    candidates: tuple[Candidate, ...]
    vote: VoteName
    answer_classes: tuple[AnswerClass, ...]
    usage: Usage
    strategy: StrategyRun
    budget: int | None
    count: str
    spent: int
    difficulty: tuple[float, ...] | None = None
    abstained: str | None = None
    stopped: Stopped
    confidence: float | None = None
    error: AdaptiveTTCError | None = None
    trace: Trace = field(compare=False)

    def __repr__(self) -> str:
        budget = "" if self.budget is None else f" of {self.budget}"
        parts = [
            f"problem={_SHORT.repr(self.problem.id)}",
            f"answer={_SHORT.repr(self.answer)}",
            f"strategy={_SHORT.repr(self.strategy.name)}",
            f"spent={self.spent}{budget}",
        ]
        if self.confidence is not None and self.answer is not None:
            parts.append(f"confidence={self.confidence:.2f}")
        if self.stopped is not Stopped.SETTLED:
            parts.append(f"stopped={self.stopped.value!r}")
        if self.error is not None:
            parts.append(f"error={_SHORT.repr(str(self.error))}")
        elif self.abstained is not None:
            parts.append(f"abstained={_SHORT.repr(self.abstained)}")
        return f"Solution({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, the votes, the cost, and on demand why."""
        words = [
            f"stopped: {self.stopped.value}",
            f"{self.strategy.name}, {counted(len(self.candidates), 'candidate')}",
        ]
        if self.confidence is not None and self.answer is not None:
            words.insert(0, f"confidence {self.confidence:.2f}")
        if self.error is not None:
            words.append(f"error: {self.error}")
        of = "" if self.budget is None else f" of {self.budget:,}"
        cost = f"{self.spent:,}{of} charged ({self.count})", f"{self.usage.completion_tokens:,} tokens generated"
        votes = [(one.answer, f"{one.votes:,}", f"{one.weight:.3f}") for one in self.answer_classes]
        return html.framed(
            html.line(*words, strong="no answer" if self.answer is None else self.answer),
            html.table(f"Votes ({self.vote})", ("answer", "votes", "weight"), votes) if votes else "",
            html.line(*cost, f"{self.usage.prm_tokens:,} PRM tokens", f"{self.usage.wall_time:.2f} s"),
            html.details("Why", self.explain()),
        )

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The candidates' scores, in their order; None for one that was not scored."""
        return tuple(candidate.score for candidate in self.candidates)

    @property
    def effective_n(self) -> int:
        """Distinct samples (by path) that voted: candidates with an answer, copies of a sample counted once."""
        return len({candidate.prefix.path for candidate in self.candidates if candidate.answer})

    def select_with(self, vote: VoteName, b: float | None = None) -> str | None:
        """The answer that another vote would have chosen from the same candidates, at no further cost.

        Args:
            vote: ``majority``, ``best``, ``weighted`` or ``logit_weighted``.
            b: for the logit-weighted vote, the score at which a candidate speaks neither for nor against its answer;
                the strategy's ``vote_b`` by default.

        Raises:
            ConfigError: an unknown vote, or one that needs scores where no candidate is scored.
        """
        config = self.strategy.config
        return select(voters(self.candidates, vote), vote, config.vote_b if b is None else b, config.vote_weights)

    def explain(self) -> str:
        """In words: what was tried, what it cost and why the answer won, from the trace."""
        return explain(self.trace) if len(self.trace) else "Its trace was not kept (keep_traces=False)."
