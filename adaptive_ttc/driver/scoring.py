"""Scores samples with the PRM as they end, and plans and computes what that costs."""

from __future__ import annotations

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.recording import RunRecorder
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.events import DecisionEvent, ScoredEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest

PRM_TOKENS_PER_TOKEN = 2
"""PRM tokens to set aside for every token to be generated: tokenizers differ, and steps get separators."""

PRM_TOKENS_PER_SAMPLE = 32  # PRM tokens to set aside for the text around a step


def least_score(prm: RewardModel, question: str, price: Price) -> int:
    """Units to set aside for scoring a sample of one token. Raises ConfigError: the PRM cannot read the question."""
    tokens = prm.count_tokens(ScoreRequest(question, ("?",)))
    return price.score * (tokens + PRM_TOKENS_PER_SAMPLE + PRM_TOKENS_PER_TOKEN)


class Scorer:
    """Scores the samples of one problem; without a PRM, searches that ask for no scores still run.

    What is set aside for scoring beforehand is an estimate. What is charged is exact: the PRM counts its tokens before
    it is called, and is not called when the account cannot cover them.
    """

    def __init__(
        self, prm: RewardModel | None, question: str, price: Price, recorder: RunRecorder, attempts: int
    ) -> None:
        self._prm = prm
        self._question = question
        self._price = price
        self._recorder = recorder
        self._attempts = attempts

    @property
    def planned_rate(self) -> int:
        """Units to set aside for scoring with every token to be generated."""
        return self._price.score * PRM_TOKENS_PER_TOKEN

    def planned_overhead(self, sample: Sample) -> int:
        """Units to set aside for scoring what a sample holds already."""
        if self._prm is None or not self._price.score:
            return 0
        try:
            return self._price.score * (self._tokens(sample, sample.steps or ("?",)) + PRM_TOKENS_PER_SAMPLE)
        except ConfigError:
            return 0  # too long to be scored at all

    def bill(self, sample: Sample) -> int | None:
        """Units that scoring it now is charged; None when there is nothing to score, or the PRM cannot read it."""
        if self._prm is None:
            raise ConfigError("this search asks for step scores: give the solver a PRM, or take majority voting")
        steps = sample.steps
        if not steps or not sample.grown:
            return None
        try:
            return self._price.score * self._tokens(sample, steps) if self._price.score else 0
        except ConfigError as error:
            self._leave_unscored(sample, error)
            return None

    async def score(self, sample: Sample, ledger: Ledger) -> None:
        """Score a sample whose first call is paid for; a call that fails is paid for again before it is repeated."""
        assert self._prm is not None
        request = ScoreRequest(self._question, sample.steps)
        for attempt in range(1, self._attempts + 1):
            started = self._recorder.now()
            self._recorder.add(num_prm_calls=1)
            try:
                scored = await self._prm.score(request)
            except ConfigError as error:
                return self._leave_unscored(sample, error)
            except EngineError as error:
                if not error.retryable or attempt == self._attempts:
                    raise
            else:
                return self.take(sample, scored, started)
            again = ledger.reserve(self.bill(sample) or 0)
            if again is None:
                return None
            again.settle(again.amount)
        return None

    def take(self, sample: Sample, scored: Scored, started: float) -> None:
        """Set a sample's scores, and record what they took."""
        if len(scored.scores) != len(sample.steps):
            raise EngineError(f"the PRM gave {len(scored.scores)} scores for {len(sample.steps)} steps")
        sample.scores = scored.scores
        self._recorder.add(prm_tokens=scored.prm_tokens, prm_cached_tokens=scored.cached_tokens)
        self._recorder.record(
            ScoredEvent(
                time=self._recorder.now(),
                started=started,
                path=sample.path,
                scores=scored.scores,
                prm_tokens=scored.prm_tokens,
                cached_tokens=scored.cached_tokens,
            )
        )

    def _tokens(self, sample: Sample, steps: tuple[str, ...]) -> int:
        """PRM tokens beyond those of the parent's scored steps."""
        assert self._prm is not None
        before = sample.parent.steps if sample.parent.scores else ()
        known = self._prm.count_tokens(ScoreRequest(self._question, before)) if before else 0
        return max(0, self._prm.count_tokens(ScoreRequest(self._question, steps)) - known)

    def _leave_unscored(self, sample: Sample, error: ConfigError) -> None:
        name = ".".join(map(str, sample.path))
        self._recorder.record(DecisionEvent(time=self._recorder.now(), what=f"left {name} unscored", why=str(error)))
