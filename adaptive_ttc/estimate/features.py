"""Evidence on a problem, and the numbers that a difficulty classifier reads off it.

Evidence is made of units: a greedy solution, an independent sample, a tree of DVTS, a beam search, a chain of
revisions. Units of one kind are exchangeable, so that what was measured on recorded ones holds for live ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.strategies.adaptive import SAMPLE, SECOND, is_second, plain
from adaptive_ttc.types import STEP_END, Aggregation, Candidate, Finish, Prefix
from adaptive_ttc.voting import aggregate

LOOKS = 16
"""Evidence is looked at again when it has grown by one part in so many: what a look costs grows with the evidence, and
a problem with hundreds of samples is not decided by the next one.
"""

NAN = math.nan


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The first step of a solution, kept or pruned."""

    score: float  # the PRM's, in [0, 1]; nan where it was not scored
    tokens: int  # generated
    logprob: float = NAN  # their sum in nats; nan where the engine does not tell it


@dataclass(frozen=True, slots=True)
class Attempt:
    """A solution that was handed in."""

    answer: str | None  # canonical text of its answer class; None where it holds no answer
    scores: tuple[float, ...]  # of its steps, each in [0, 1]; empty where it was not scored
    tokens: int  # generated, from the root
    logprob: float = NAN  # their sum in nats
    finish: Finish = "eos"  # why it ended
    answer_logprob: float = NAN  # mean of the tokens of its answer in nats; nan where it is not known

    @classmethod
    def of(cls, candidate: Candidate) -> Self:
        """A graded candidate as evidence."""
        prefix = candidate.prefix
        tokens, finish = len(prefix.token_ids), prefix.finish or "abort"
        return cls(candidate.answer_class, prefix.scores, tokens, prefix.logprob, finish, prefix.answer_logprob)


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest piece of work of one kind."""

    # ``greedy``, ``sample``, ``dvts-M`` (one tree), ``beam_search-N-M``, ``revision-S`` (one chain); ``second:KIND``
    kind: str
    attempts: tuple[Attempt, ...] = ()  # the solutions that it handed in; none while only first steps exist
    first_steps: tuple[FirstStep, ...] = ()  # all first steps that it drew
    generated: int = 0  # tokens that the policy delivered; of a second policy, weighed in tokens of the first
    prm: int = 0  # tokens that scoring takes with an ideal cache, see :class:`adaptive_ttc.cost.Price`

    def unscored(self) -> Unit:
        """The unit before a PRM saw it, without that cost."""
        attempts = tuple(replace(attempt, scores=()) for attempt in self.attempts)
        steps = tuple(replace(step, score=NAN) for step in self.first_steps)
        return replace(self, attempts=attempts, first_steps=steps, prm=0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a problem."""

    question: str  # its text
    prompt_tokens: int  # of the rendered problem
    units: tuple[Unit, ...] = ()  # what was done, in any order
    # what a budget cut, to be continued first; no feature reads it, as calibration knows no half unit
    begun: tuple[Unit, ...] = ()
    verified: str | None = None  # the answer that a check found right; refuted ones are no answers

    def counts(self) -> Counter[str]:
        """Units of every kind."""
        return Counter(unit.kind for unit in self.units)

    def plus(self, *units: Unit) -> Evidence:
        """With more units."""
        return replace(self, units=(*self.units, *units))


@dataclass(frozen=True, slots=True)
class Reading:
    """How attempts become numbers: what calibration chose for a pair of models."""

    agg_strategy: Aggregation = "last"  # how the scores of steps become one
    # kinds whose units are counted one by one as features
    families: tuple[str, ...] = ("greedy", "sample", "dvts", "beam_search", "revision")
    sureness: bool = True  # whether the log-probabilities of answers are read; calibrations of before know none
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        counts = tuple(f"units.{family}" for family in self.families)
        names = (*PROMPT_FEATURES, *counts, *STEP_FEATURES, *ATTEMPT_FEATURES)
        object.__setattr__(self, "names", (*names, *SURENESS_FEATURES) if self.sureness else names)

    def features(self, evidence: Evidence) -> NDArray[np.float64]:
        """Shape [len(names)]; nan for what is not known yet."""
        done = Counter(counted_as(unit.kind) for unit in evidence.units)
        counts = [done[family] for family in self.families]
        attempts = [attempt for unit in evidence.units for attempt in unit.attempts]
        greedy = next((one for unit in evidence.units if unit.kind == "greedy" for one in unit.attempts), None)
        steps = [step for unit in evidence.units for step in unit.first_steps]
        row = [*_prompt(evidence), *counts, *_first_steps(steps), *self._attempts(attempts, greedy)]
        return np.array(row, dtype=np.float64)

    def as_data(self) -> dict[str, Any]:
        """For a file."""
        return {"agg_strategy": self.agg_strategy, "families": list(self.families), "sureness": self.sureness}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Self:
        """From :meth:`as_data`."""
        return cls(data["agg_strategy"], tuple(data["families"]), data.get("sureness", False))

    def score(self, attempt: Attempt) -> float:
        """Its aggregated step scores; nan where it was not scored."""
        return score_of(attempt, self.agg_strategy)

    def _attempts(self, attempts: Sequence[Attempt], greedy: Attempt | None) -> list[float]:
        if not attempts:
            return [NAN] * (len(ATTEMPT_FEATURES) + self.sureness * len(SURENESS_FEATURES))
        scores = [self.score(attempt) for attempt in attempts]
        known = sorted(score for score in scores if not math.isnan(score))
        # no vote of voting.py: what has no score counts here too, by 0, and equal weights go by votes; what classifiers
        # were fitted on stays as it was
        votes: dict[str, int] = {}
        weights: dict[str, float] = {}
        best: dict[str, float] = {}
        for attempt, score in zip(attempts, scores, strict=True):
            if attempt.answer is None:
                continue
            votes[attempt.answer] = votes.get(attempt.answer, 0) + 1
            weight = 0.0 if math.isnan(score) else score
            weights[attempt.answer] = weights.get(attempt.answer, 0.0) + weight
            best[attempt.answer] = max(best.get(attempt.answer, 0.0), weight)
        totals = weights if known else votes  # ranked as by the solver's vote
        order = sorted(votes, key=lambda answer: (-totals[answer], -best[answer], answer))
        lead = order[0] if order else None
        lengths = [float(attempt.tokens) for attempt in attempts]
        return [
            *_spread(known),
            *_shares(list(votes.values())),
            *_shares(list(weights.values())),
            float(len(votes)),
            float(votes[lead]) if lead else 0.0,
            best[lead] if lead and known else NAN,
            max((best[answer] for answer in order[1:]), default=0.0) if known else NAN,
            sum(one.answer is None for one in attempts) / len(attempts),
            sum(one.finish != "eos" for one in attempts) / len(attempts),
            _mean(lengths),
            _deviation(lengths),
            *_rates(attempts),
            *self._greedy(greedy, lead, votes, len(attempts)),
            *(_sureness(attempts, lead) if self.sureness else ()),
        ]

    def _greedy(self, greedy: Attempt | None, lead: str | None, votes: Mapping[str, int], n: int) -> list[float]:
        if greedy is None:
            return [NAN] * 5
        agreeing = votes.get(greedy.answer, 1) - 1 if greedy.answer else 0
        return [
            self.score(greedy),
            greedy.logprob,
            float(greedy.tokens),
            agreeing / (n - 1) if n > 1 else NAN,
            float(greedy.answer is not None and greedy.answer == lead),
        ]


def score_of(attempt: Attempt, how: Aggregation) -> float:
    """The aggregated step scores of an attempt; nan where it was not scored."""
    return aggregate(attempt.scores, how) if attempt.scores else NAN


def family_of(kind: str) -> str:
    """A kind without its policy and numbers: ``dvts`` of ``dvts-4`` and of ``second:dvts-4``."""
    return plain(kind).partition("-")[0]


def counted_as(kind: str) -> str:
    """The family whose units these count among as features, each policy's apart: what draws samples counts as them."""
    family = family_of(kind)
    family = SAMPLE if family in ("think", "short_m_at_k") else family
    return f"{SECOND}{family}" if is_second(kind) else family


def first_step_length(solution: Prefix, decode: Callable[[Sequence[int]], str]) -> int:
    """Tokens of a whole solution's first step, its separator included; all of them where it has one step."""
    ids = solution.token_ids
    if STEP_END not in solution.text:
        return len(ids)
    return bisect_left(range(len(ids)), True, key=lambda length: STEP_END in decode(ids[:length]))


def first_step_of(prefix: Prefix) -> FirstStep:
    """A sampled first step as evidence."""
    return FirstStep(prefix.scores[0] if prefix.scores else NAN, len(prefix.token_ids), prefix.logprob)


PROMPT_FEATURES = ("prompt.tokens", "prompt.words", "prompt.digits", "prompt.symbols", "prompt.longest_number")
_SPREAD = ("min", "q25", "median", "q75", "max", "mean", "std")
STEP_FEATURES = (
    "first_steps.n",
    *(f"first_steps.score_{name}" for name in _SPREAD),
    *(f"first_steps.{name}" for name in ("tokens", "logprob", "logprob_min")),
)
ATTEMPT_FEATURES = (
    *(f"attempts.score_{name}" for name in _SPREAD),
    *(f"votes.{name}" for name in ("top", "margin", "entropy")),
    *(f"weights.{name}" for name in ("top", "margin", "entropy")),
    *(f"answers.{name}" for name in ("distinct", "lead_votes", "lead_best_score", "other_best_score")),
    *(f"attempts.{name}" for name in ("no_answer", "unfinished", "tokens_mean", "tokens_std")),
    *(f"attempts.{name}" for name in ("logprob_mean", "logprob_min")),
    *(f"greedy.{name}" for name in ("score", "logprob", "tokens", "agreement", "leads")),
)

SURENESS_FEATURES = ("answers.logprob_mean", "answers.lead_logprob", "answers.other_logprob")


def _prompt(evidence: Evidence) -> list[float]:
    text = evidence.question
    symbols = sum(not (char.isalnum() or char.isspace()) for char in text)
    longest, run = 0, 0
    for char in text:
        run = run + 1 if char.isdigit() else 0
        longest = max(longest, run)
    digits = sum(char.isdigit() for char in text)
    return [float(evidence.prompt_tokens), float(len(text.split())), float(digits), float(symbols), float(longest)]


def _first_steps(steps: Sequence[FirstStep]) -> list[float]:
    if not steps:
        return [0.0, *[NAN] * (len(STEP_FEATURES) - 1)]
    scores = sorted(step.score for step in steps if not math.isnan(step.score))
    return [float(len(steps)), *_spread(scores), _mean([float(step.tokens) for step in steps]), *_rates(steps)]


def _spread(ordered: Sequence[float]) -> list[float]:
    """Quantiles (linear between neighbours), mean and standard deviation of sorted values."""
    if not ordered:
        return [NAN] * len(_SPREAD)
    last = len(ordered) - 1

    def quantile(share: float) -> float:
        place = share * last
        low = int(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, last)] - ordered[low])

    return [ordered[0], quantile(0.25), quantile(0.5), quantile(0.75), ordered[-1], _mean(ordered), _deviation(ordered)]


def _shares(totals: Iterable[float]) -> list[float]:
    """The largest share, its lead over the next, and the entropy in nats; nan where there is no answer."""
    ordered = sorted((total for total in totals if total > 0), reverse=True)
    whole = math.fsum(ordered)
    if not whole:
        return [NAN] * 3
    shares = [total / whole for total in ordered]
    runner_up = shares[1] if len(shares) > 1 else 0.0
    return [shares[0], shares[0] - runner_up, -math.fsum(share * math.log(share) for share in shares)]


def _rates(drawn: Sequence[Attempt | FirstStep]) -> list[float]:
    """Mean and minimum of the log-probability per token; nan where the engine does not give any."""
    rates = [one.logprob / one.tokens for one in drawn if one.tokens and not math.isnan(one.logprob)]
    return [_mean(rates), min(rates)] if rates else [NAN, NAN]


def _sureness(attempts: Sequence[Attempt], lead: str | None) -> list[float]:
    """Mean log-probability of the tokens of all answers, of the leading one, and of the others; nan where unknown."""
    known = [one for one in attempts if not math.isnan(one.answer_logprob)]
    groups = known, [one for one in known if one.answer == lead], [one for one in known if one.answer != lead]
    return [_mean([one.answer_logprob for one in group]) if group else NAN for group in groups]


def _mean(values: Sequence[float]) -> float:
    """Mean of at least one value."""
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation of all there are; the exact one of ``statistics`` takes fractions, and fifty times as long."""
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
