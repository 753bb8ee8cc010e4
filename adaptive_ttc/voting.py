"""How scored candidates become one answer: votes over answer classes.

Every function depends on the multiset of its candidates alone, never on their order: sums are exact (``math.fsum``),
and ties break by the best score of the class, then by its canonical text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.types import Aggregation, AnswerClass, Candidate

VoteName = Literal["majority", "best", "weighted", "logit_weighted"]
"""The names of the votes.

``majority`` counts the candidates of a class (self-consistency, arXiv 2203.11171); ``best`` takes its best score
(best-of-N); ``weighted`` sums its scores (weighted best-of-N, arXiv 2206.02336); ``logit_weighted`` sums logit(s) -
logit(b), which is negative for scores below ``b`` (arXiv 2510.13918).
"""

VOTES: tuple[VoteName, ...] = get_args(VoteName)


@dataclass(frozen=True, slots=True)
class VoteWeights:
    """How much a solution's vote counts under ``majority`` and ``weighted``, beside being one vote.

    Its weight is score^score * exp(logprob * mean log-probability of a token in nats + answer * the same of the
    answer's tokens) / tokens^length, where the first factor is of the weighted vote alone; what is not known of a
    solution leaves its factor out. A small ``length`` settles ties: of two answers with equal votes that with the
    shorter solutions leads.
    """

    score: float = 1.0
    logprob: float = 0.0
    length: float = 0.0
    answer: float = 0.0

    def __post_init__(self) -> None:
        for name in ("score", "logprob", "length", "answer"):
            if not -100 < getattr(self, name) < 100:
                raise ConfigError(f"{name}={getattr(self, name)}: exponents of votes are small, such as 0 to 8")

    def of(self, score: float | None, logprob: float, tokens: int, answer_logprob: float = math.nan) -> float:
        """The weight, above 0; ``logprob`` is the sum over ``tokens``, ``answer_logprob`` the mean over those of the
        answer; nan where they are not known.
        """
        log = 0.0
        if self.score and score is not None:
            log += self.score * math.log(max(score, _LEAST_SCORE))
        if tokens and (self.logprob or self.length):
            if self.logprob and not math.isnan(logprob):
                log += self.logprob * max(logprob / tokens, _LEAST_RATE)
            log -= self.length * math.log(tokens)
        if self.answer and not math.isnan(answer_logprob):
            log += self.answer * max(answer_logprob, _LEAST_RATE)
        return math.exp(log)

    @property
    def even(self) -> bool:
        """Whether neither log-probabilities nor length count, and scores as they are."""
        return self.score == 1 and not (self.logprob or self.length or self.answer)


EVEN = VoteWeights()

_LEAST_SCORE = 1e-6  # lower scores count as this
_LEAST_RATE = -10.0  # nats a token; lower ones count as this
_CLIP = 1e-6  # scores are kept this far from 0 and 1 in logits, so that no single candidate decides alone


def select(candidates: Sequence[Candidate], vote: VoteName, b: float = 0.5, weights: VoteWeights = EVEN) -> str | None:
    """The canonical text of the class that wins, or None where no candidate holds an answer; see :func:`tally`."""
    classes = tally(candidates, vote, b, weights)
    return classes[0].answer if classes else None


def voters(candidates: Iterable[Candidate], vote: VoteName) -> tuple[Candidate, ...]:
    """The candidates with an answer that was not refuted, or only the verified ones, if there are any; where scores
    count, only the scored ones, if there are any.
    """
    able = tuple(candidate for candidate in candidates if candidate.answer and candidate.verdict is not False)
    able = tuple(candidate for candidate in able if candidate.verdict) or able
    scored = tuple(candidate for candidate in able if candidate.score is not None)
    return scored if vote != "majority" and scored else able


def tally(
    candidates: Sequence[Candidate], vote: VoteName, b: float = 0.5, weights: VoteWeights = EVEN
) -> tuple[AnswerClass, ...]:
    """The answer classes under a vote, best first.

    Candidates without an answer have no vote and form no class. ``AnswerClass.weight`` is the class's total divided by
    the sum of the positive totals, so that these sum to 1 and a negative total stays negative; where no total is
    positive the totals stand as they are.

    Args:
        candidates: with ``answer_class`` set where there is an answer, and ``score`` where the vote needs it.
        vote: one of :data:`VOTES`.
        b: the score in (0, 1) at which a candidate counts neither for nor against its answer in the logit-weighted
            vote; calibrated for a pair of policy and PRM. The other votes ignore it.
        weights: how much a vote counts under ``majority`` and ``weighted``. The other votes ignore them.

    Raises:
        ConfigError: an unknown vote, ``b`` outside (0, 1), or a candidate with an answer but no score under a vote that
            needs scores.
        ValueError: an answer that was not put into a class, or a score outside [0, 1].
    """
    if vote not in VOTES:
        raise ConfigError(f"unknown vote {vote!r}; choose one of {', '.join(VOTES)}")
    if not 0 < b < 1:
        raise ConfigError(f"b is a score strictly between 0 and 1; got {b!r}")
    members: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.answer_class:
            members.setdefault(candidate.answer_class, []).append(candidate)
        elif candidate.answer:
            raise ValueError(f"the answer {candidate.answer!r} has no answer_class; grade before voting")
    scores_of = {answer: [_checked(one.score) for one in of if one.score is not None] for answer, of in members.items()}
    if vote != "majority" and any(len(scores_of[answer]) < len(of) for answer, of in members.items()):
        raise ConfigError(
            f"the {vote} vote needs a score for every candidate with an answer; "
            "give the solver a reward model, or use the majority vote"
        )
    totals = {answer: total_of([_weight(one, vote, b, weights) for one in of], vote) for answer, of in members.items()}
    scale = math.fsum(total for total in totals.values() if total > 0) or 1.0
    ranked = sorted(totals, key=lambda answer: (-totals[answer], -max(scores_of[answer], default=-1.0), answer))
    return tuple(AnswerClass(answer, len(members[answer]), totals[answer] / scale) for answer in ranked)


def aggregate(scores: Sequence[float], how: Aggregation) -> float:
    """Reduce the scores of a solution's steps to one number in [0, 1].

    ``last`` the last step's, ``min`` the worst, ``prod`` their product, ``mean`` their mean.

    Raises:
        ConfigError: an unknown name.
        ValueError: no scores, or a score outside [0, 1].
    """
    if how not in _AGGREGATIONS:
        raise ConfigError(f"unknown aggregation {how!r}; choose one of {', '.join(_AGGREGATIONS)}")
    if not scores:
        raise ValueError("there are no step scores to aggregate; an unscored solution has no score")
    return _AGGREGATIONS[how]([_checked(score) for score in scores])


def _checked(score: float) -> float:
    if not 0 <= score <= 1:  # also refuses NaN, which would make the ranking depend on the order
        raise ValueError(f"a score is a probability in [0, 1]; got {score!r}")
    return score


def _weight(candidate: Candidate, vote: VoteName, b: float, weights: VoteWeights) -> float:
    prefix = candidate.prefix
    return weight_of(candidate.score, vote, b, weights, prefix.logprob, len(prefix.token_ids), prefix.answer_logprob)


def weight_of(
    score: float | None,
    vote: VoteName,
    b: float = 0.5,
    weights: VoteWeights = EVEN,
    logprob: float = math.nan,
    tokens: int = 0,
    answer_logprob: float = math.nan,
) -> float:
    """What a candidate adds to the total of its class, or raises it to under ``best``; majority needs no score.

    ``logprob``: of its ``tokens`` in sum; ``answer_logprob``: of those of its answer in the mean; nan where not known.
    """
    if vote == "majority":
        return 1.0 if weights.even else weights.of(None, logprob, tokens, answer_logprob)
    assert score is not None
    if vote == "weighted" and not weights.even:
        return weights.of(score, logprob, tokens, answer_logprob)
    return _logit(score) - _logit(b) if vote == "logit_weighted" else score


def total_of(weights: Sequence[float], vote: VoteName) -> float:
    """The total of a class from the weights of its candidates."""
    return max(weights) if vote == "best" else math.fsum(weights)


def _logit(score: float) -> float:
    clipped = min(max(score, _CLIP), 1 - _CLIP)
    return math.log(clipped) - math.log1p(-clipped)


_AGGREGATIONS: Mapping[Aggregation, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "prod": math.prod,
    "mean": lambda scores: math.fsum(scores) / len(scores),
}
