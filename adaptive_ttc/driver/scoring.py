"""Scores samples with the PRM as they end, and plans and computes what that costs."""

from __future__ import annotations

from typing import Protocol

import anyio

from adaptive_ttc.cost import Price
from adaptive_ttc.driver.boundary import CheckedPRM
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.health import Health, backoff
from adaptive_ttc.driver.recording import RunRecorder
from adaptive_ttc.errors import ConfigError, EngineError, OverdueError, see
from adaptive_ttc.events import DecisionEvent, ScoredEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, traits_of

PRM_TOKENS_PER_TOKEN = 2
"""PRM tokens to set aside for every token to be generated: tokenizers differ, and steps get separators."""

PRM_TOKENS_PER_SAMPLE = 32  # PRM tokens to set aside for the text around a step
WHOLE = ("eos", "length")  # how solutions end that nothing will be added to
SCORE_GRACE = 1.0  # seconds that scores under way have when the problem is to end


def least_score(prm: RewardModel, question: str, price: Price) -> int:
    """Units to set aside for scoring a sample of one token. Raises ConfigError: the PRM cannot read the question."""
    tokens, traits = prm.count_tokens(ScoreRequest(question, ("?",))), traits_of(prm)
    written = 0 if traits.rivals else price.written * traits.written
    return price.score * (tokens + PRM_TOKENS_PER_SAMPLE + PRM_TOKENS_PER_TOKEN) + written


class Ending(Protocol):
    """Whether a problem is to end."""

    def is_set(self) -> bool:
        """Whether it is."""

    async def wait(self) -> None:
        """Wait until it is."""


class Scorer:
    """Scores the samples of one problem; without a PRM, searches that ask for no scores still run.

    What is set aside for scoring beforehand is an estimate. What is charged is exact: the PRM counts its tokens before
    it is called, and is not called when the account cannot cover them. Where it writes, its most is charged, and what
    it did not write is given back.
    """

    def __init__(
        self,
        prm: CheckedPRM | None,
        question: str,
        price: Price,
        recorder: RunRecorder,
        attempts: int,
        health: Health,
        halt: Ending,
    ) -> None:
        self._prm = prm
        self._traits = traits_of(prm)
        self._question = question
        self._price = price
        self._recorder = recorder
        self._attempts = attempts
        self._health = health
        self._halt = halt
        self._calls: set[anyio.CancelScope] = set()

    @property
    def writes(self) -> bool:
        """Whether what scores cost is known only afterwards, as the PRM writes."""
        return bool(self._traits.written and self._price.written)

    @property
    def compares(self) -> int:
        """With how many other solutions the PRM compares one; 0: it reads each by itself."""
        return self._traits.rivals

    @property
    def planned_rate(self) -> int:
        """Units to set aside for scoring with every token to be generated."""
        return self._price.score * PRM_TOKENS_PER_TOKEN

    def planned_overhead(self, sample: Sample) -> int:
        """Units to set aside for scoring what a sample holds already."""
        if self._prm is None or not (self._price.score or self.writes):
            return 0
        try:
            read = self._tokens(sample, sample.steps or ("?",)) + PRM_TOKENS_PER_SAMPLE if self._price.score else 0
            return self._price.score * read + self._price.written * self._written(sample)
        except ConfigError:
            return 0  # too long to be scored at all

    def bill(self, sample: Sample) -> int | None:
        """Units that scoring it now costs at most; None when there is nothing to score, or the PRM cannot read it."""
        if self._prm is None:
            raise ConfigError("this search asks for step scores: give the solver a PRM, or take majority voting")
        steps = sample.steps
        if not steps or not sample.grown or (self._traits.finished_only and sample.ended not in WHOLE):
            return None
        try:
            read = self._price.score * self._tokens(sample, steps) if self._price.score else 0
            return read + self._price.written * self._written(sample)
        except ConfigError as error:
            self._leave_unscored(sample, error)
            return None

    async def score(self, sample: Sample, ledger: Ledger) -> int:
        """Score a sample whose first call is paid for; a call that fails is paid for again before it is repeated, if
        it may have computed anything. Returns how many of the units paid were not used, where the PRM writes.
        """
        request, paid, failures = self._request(sample), True, 0
        while await self._admitted():
            if not paid and not self._pay_again(sample, ledger):
                self._health.prm.withdrawn()
                return 0
            started, known = self._recorder.now(), self._health.losses.incidents
            try:
                scored = await self._call(request)
            except ConfigError as error:
                self._leave_unscored(sample, error)
                return 0 if error.generated else self._price.written * self._written(sample)
            except EngineError as error:
                paid, failures = not error.generated, failures + (not self._health.prm.gone)
                self._record_failure(sample, error)
                if error.generated:
                    self._health.losses.lost(self.bill(sample) or 0, error, known)
                if not error.retryable or failures >= self._attempts:
                    raise
                with anyio.move_on_after(backoff(max(failures, 1), sample.seed, error.retry_after)):
                    await self._halt.wait()
                if self._halt.is_set():
                    return 0
            else:
                return 0 if scored is None else self._took(sample, scored, started)
        return 0

    def take(self, sample: Sample, scored: Scored, started: float) -> None:
        """Set a sample's scores, and record what they took."""
        sample.scores = scored.scores
        self._recorder.add(
            prm_tokens=scored.prm_tokens,
            prm_cached_tokens=scored.cached_tokens,
            prm_written_tokens=scored.written_tokens,
        )
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

    def _took(self, sample: Sample, scored: Scored, started: float) -> int:
        """Set what came of a call; the units that it did not use."""
        self.take(sample, scored, started)
        if not scored.scores:
            why = f"no verdict could be read off what was written {see('verifiers.md')}"
            self._leave_unscored(sample, why)
        return self._price.written * max(0, self._written(sample) - scored.written_tokens)

    def recall(self) -> None:
        """Give scores under way a moment; those that are not in by then are not waited for."""
        limit = anyio.current_time() + SCORE_GRACE
        for call in self._calls:
            call.deadline = min(call.deadline, limit)

    async def _admitted(self) -> bool:
        """Wait while the PRM is gone; False where the problem is to end meanwhile. OutageError: gone for too long."""
        while not self._health.prm.admits():
            if self._halt.is_set():
                return False
            await self._health.prm.wait()
        return True

    async def _call(self, request: ScoreRequest) -> Scored | None:
        """Call the PRM; None where the problem is to end first."""
        assert self._prm is not None
        breaker, speed, scored = self._health.prm, self._health.scores, None
        now = anyio.current_time()
        due = now + speed.limit(0)
        self._recorder.add(num_prm_calls=1)
        with anyio.CancelScope(deadline=min(due, now + SCORE_GRACE) if self._halt.is_set() else due) as call:
            self._calls.add(call)
            try:
                scored = await self._prm.score(request)
                breaker.succeeded()
                speed.took(anyio.current_time() - now, 0)
            except EngineError as error:
                breaker.failed(error)
                raise
            finally:
                self._calls.discard(call)
                breaker.withdrawn()
        if scored is None and not self._halt.is_set():
            overdue = OverdueError(
                f"a score of {self._prm.name} did not come back in {speed.limit(0):,.0f} s and was given up "
                "(DriverConfig.score_timeout says how long one may take)",
                retryable=True,
            )
            breaker.failed(overdue)
            raise overdue
        return scored

    def _pay_again(self, sample: Sample, ledger: Ledger) -> bool:
        again = ledger.reserve(self.bill(sample) or 0)
        if again is not None:
            again.settle(again.amount)
        return again is not None

    def _record_failure(self, sample: Sample, error: EngineError) -> None:
        name = ".".join(map(str, sample.path))
        event = DecisionEvent(time=self._recorder.now(), what=f"a score of {name} failed", why=str(error))
        self._recorder.record(event)

    def _request(self, sample: Sample) -> ScoreRequest:
        tokens = sample.token_logprobs() if self._traits.logprobs else None
        return ScoreRequest(self._question, sample.steps, tokens, sample.rivals)

    def _written(self, sample: Sample) -> int:
        """Tokens that the PRM writes about it at most."""
        return self._traits.written * (len(sample.rivals) if self._traits.rivals else 1)

    def _tokens(self, sample: Sample, steps: tuple[str, ...]) -> int:
        """PRM tokens beyond those of the parent's scored steps."""
        assert self._prm is not None
        before = sample.parent.steps if sample.parent.scores else ()
        known = self._prm.count_tokens(ScoreRequest(self._question, before)) if before else 0
        request = ScoreRequest(self._question, steps, rivals=sample.rivals)
        return max(0, self._prm.count_tokens(request) - known)

    def _leave_unscored(self, sample: Sample, error: ConfigError | str) -> None:
        name = ".".join(map(str, sample.path))
        self._recorder.record(DecisionEvent(time=self._recorder.now(), what=f"left {name} unscored", why=str(error)))
