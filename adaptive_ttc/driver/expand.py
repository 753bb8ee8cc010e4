"""Carries out one Expand: leases in rounds, each settled when it returns, each sample scored when it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import anyio

from adaptive_ttc.driver.engines import LOST, Engines, PolicyCalls, Reply
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.health import backoff
from adaptive_ttc.driver.leases import Member, Terms, plan_round
from adaptive_ttc.driver.race import Race
from adaptive_ttc.driver.score_calls import ExpansionScores, scoring_of
from adaptive_ttc.driver.spare import LeaseSpare
from adaptive_ttc.driver.state import SearchState
from adaptive_ttc.driver.thinking import Thoughts, tokens_to_finish
from adaptive_ttc.errors import AdaptiveTTCError, EngineError
from adaptive_ttc.events import DecisionEvent, RequestEvent, SampledEvent
from adaptive_ttc.ledger import Reservation
from adaptive_ttc.policy import Sampled, SampleRequest, whole_samples
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import Finish, Prefix


@dataclass(frozen=True, slots=True)
class Lease:
    """A sample's permission to generate ``tokens`` tokens, and the money for them and for scoring it after them."""

    sample: Sample
    tokens: int
    reservation: Reservation


class Expansion:
    """One Expand under way; ``beside`` are solutions that the search may continue: what finishes one is kept."""

    def __init__(
        self, engines: Engines, request: Expand, samples: list[Sample], beside: list[Sample], account: SearchState
    ) -> None:
        self._engines = engines
        self._recorder = engines.recorder
        self._request = request
        self._samples = samples
        self._beside = beside
        self._account = account
        self._whole = whole_samples(engines.policy)
        self._thoughts = Thoughts(engines, account)
        self._race = Race(samples, request.first, engines.recorder, whole=self._whole)
        self._pause = 0.0  # seconds before the next round, after calls that failed

    async def run(self) -> tuple[Prefix, ...]:
        """Grow every sample as far as the account allows; the children in order."""
        async with scoring_of(self._engines, self._account) as scores:
            for sample in self._samples:
                if sample.ended is not None:
                    self._end(sample, sample.ended, scores)
            halt = self._engines.halt
            while (leases := await self._next_round()) or (not halt.is_set() and await scores.settled()):
                await self._round(leases, scores)
                with halt.on_failure():
                    scores.score_late(self._samples)
            self._cut(scores)
            with halt.on_failure():
                if not halt.is_set():
                    await scores.finish(self._samples)
        scores.share()
        for sample in self._samples:
            scores.tell(sample)
        return tuple(sample.child() for sample in self._samples)

    async def _next_round(self) -> list[Lease]:
        """The leases of the next round, once calls that failed may be repeated and the policy takes calls."""
        breaker, halt = self._engines.health.policy, self._engines.halt
        if self._pause:
            with anyio.move_on_after(self._pause):
                await halt.wait()
            self._pause = 0.0
        with halt.on_failure(of_policy=True):
            while breaker.pausing and not halt.is_set():
                self._record_pause()
                await breaker.wait()
        with halt.on_failure():
            return self._reserve()
        return []

    def _reserve(self) -> list[Lease]:
        """The leases of the next round, all paid for; none when every sample has ended or no money is left."""
        live = [sample for sample in self._samples if sample.ended is None]
        if not live or self._engines.halt.is_set():
            return []
        if self._race.over:
            self._race.tell()
            return []
        terms, ledger = self._thoughts.write(live, self._terms), self._account.ledger
        live = [sample for sample in live if sample.ended is None]
        members = [Member(one.length, one.remaining, self._finish(one), self._overhead(one)) for one in live]
        leases, planned = [], plan_round(terms, members) if live else ()
        for sample, member, granted in zip(live, members, planned, strict=True):
            tokens = self._at_risk(sample, granted, terms)
            tokens = self._thoughts.within(sample, tokens, terms, first=sample is live[0])
            tokens = self._race.within(sample, tokens)
            if tokens and (money := ledger.reserve(member.overhead + terms.rate * tokens)):
                leases.append(Lease(sample, tokens, money))
        if any(granted < member.remaining for granted, member in zip(planned, members, strict=True)):
            self._record_tight_round(terms, live, leases)
        return leases

    def _at_risk(self, sample: Sample, tokens: int, terms: Terms) -> int:
        """As many of a lease's tokens as one call may lose."""
        if terms.whole:
            return tokens
        most = self._engines.health.losses.longest(self._engines.budget, terms.rate, len(sample.token_ids))
        return int(min(tokens, most))

    def _terms(self) -> Terms:
        rate = self._engines.price.decode + (self._engines.scorer.planned_rate if self._request.score else 0)
        in_hand = [*(one for one in self._samples if one.ended == "stop"), *self._beside]
        midway = [self._overhead(one) + rate * self._finish(one) for one in in_hand]
        ended, typical = self._account.ended(self._request.stop)
        return Terms(
            balance=self._account.ledger.available,
            rate=rate,
            ended=ended,
            typical=typical,
            stepwise=bool(self._request.stop),
            midway=max(midway, default=None),
            solved=self._account.solved,
            whole=self._whole,
        )

    def _finish(self, sample: Sample) -> int:
        """Tokens to keep for finishing a solution; one longer than expected gets a quarter more, repeatedly."""
        enough, least = self._engines.config.finish_tokens, tokens_to_finish(sample)
        known = sample.remaining if least is None else min(sample.remaining, least)
        if enough is None:
            return known
        return min(known, max(enough - len(sample.token_ids), -(-enough // 4)))

    def _overhead(self, sample: Sample) -> int:
        return self._engines.scorer.planned_overhead(sample) if self._request.score else 0

    async def _round(self, leases: list[Lease], scores: ExpansionScores) -> None:
        """Send every lease at once and wait for all; when cancelled, recall and settle them first."""
        if not leases:
            return
        waiting, back = len(leases), anyio.Event()
        calls = PolicyCalls(self._engines.policy, self._engines.health, self._engines.config.grace, scores.tasks)
        self._engines.in_flight[calls] = None

        async def serve(lease: Lease) -> None:
            nonlocal waiting
            await self._serve(lease, calls, scores)
            self._race.recall_others(calls)
            waiting -= 1
            if not waiting:
                back.set()
            await scores.score(lease.sample)

        try:
            for lease in leases:
                scores.tasks.start_soon(serve, lease)
            try:
                await back.wait()
            except anyio.get_cancelled_exc_class():
                calls.recall()
                raise
        finally:
            del self._engines.in_flight[calls]

    async def _serve(self, lease: Lease, calls: PolicyCalls, scores: ExpansionScores) -> None:
        """Call, settle. A sample whose call failed stays as it was, so that a later round repeats it."""
        spare = LeaseSpare(self._reserve_beside)
        asked = lease.sample.ask(lease.tokens, self._engines.config.priority, spare)
        started, reply, known = self._recorder.now(), LOST, self._engines.health.losses.incidents
        try:
            reply = await calls.sample(asked)
        finally:
            if reply.sent:
                self._record_call(lease.sample, asked, reply, started)
            spare.settle(self._engines.price.decode * reply.hedged(spare.tokens))
            self._settle(lease, reply, scores, known)

    def _reserve_beside(self, tokens: int) -> Reservation | None:
        """The money for as many tokens again, if a solution can be finished without it."""
        account, price = self._account, self._engines.price.decode * tokens
        left, rate = account.ledger.available, self._engines.price.decode + self._engines.scorer.planned_rate
        mine = (*self._samples, *self._beside)
        kept = 0 if account.solved else max(self._overhead(one) + rate * self._finish(one) for one in mine)
        if self._engines.halt.is_set() or (left is not None and left < price + kept):
            return None
        return account.ledger.reserve(price)

    def _settle(self, lease: Lease, reply: Reply, scores: ExpansionScores, known: int) -> None:
        """Charge what a call cost, sent when so many incidents were known, then see what came of it."""
        sample, used = lease.sample, self._engines.price.decode * reply.tokens(lease.tokens)
        lost, error = 0 if reply.sampled else used, reply.error
        try:
            if reply.sampled is not None:
                used += self._absorb(lease, reply, used, scores)
        except AdaptiveTTCError as failure:
            lost, error = used, failure
        finally:
            lease.reservation.settle(used)
        if error is not None:
            self._failed(sample, error, lost, known, of_policy=error is reply.error)
        elif reply.sampled is not None:
            sample.attempts = 0
            self._engines.health.losses.came_back()
        elif reply.sent:
            self._end(sample, "abort", scores)

    def _absorb(self, lease: Lease, reply: Reply, used: int, scores: ExpansionScores) -> int:
        """Add what was delivered; returns what its score costs, if that is called for and paid from the lease."""
        assert reply.sampled is not None
        sample, thought = lease.sample, lease.sample.thought.tokens
        sample.absorb(reply.sampled, lease.tokens, late=reply.error is not None)
        self._recorder.add(thinking_tokens=sample.thought.tokens - thought)
        if sample.ended is not None and self._end(sample, sample.ended, scores):
            return scores.score_within(sample, lease.reservation.amount - used)
        return 0

    def _failed(self, sample: Sample, error: AdaptiveTTCError, lost: int, known: int, *, of_policy: bool) -> None:
        """A call failed, which cost so many units: repeat it, or end the problem with what it has."""
        health, halt, most = self._engines.health, self._engines.halt, self._engines.config.attempts
        health.losses.lost(lost, error, known)
        halt.last_error = error
        sample.attempts += not health.policy.gone
        name = ".".join(map(str, sample.path))
        self._recorder.record(
            DecisionEvent(
                time=self._recorder.now(), what=f"a call of {name} failed", why=str(error), numbers={"lost": lost}
            )
        )
        with halt.on_failure(of_policy=of_policy):
            health.losses.check(self._engines.budget)
        if not isinstance(error, EngineError) or not error.retryable or sample.attempts >= most:
            halt.fail(error, of_policy=of_policy)
        else:
            self._pause = max(self._pause, backoff(max(sample.attempts, 1), sample.seed, error.retry_after))

    def _end(self, sample: Sample, finish: Finish, scores: ExpansionScores) -> bool:
        """Note that a sample has ended; whether it is to be scored. A stopped run waits for no more scores."""
        sample.end(finish)
        self._account.note(self._request.stop, sample.length, finish)
        self._recorder.record(
            SampledEvent(
                time=self._recorder.now(),
                path=sample.path,
                text=sample.new_text,
                tokens=sample.grown,
                logprob=sample.logprob,
                finish=finish,
                answer_logprob=None if math.isnan(sample.answer_logprob) else sample.answer_logprob,
                answer_at=sample.thought.answer_at,
                thought=sample.thought.tokens,
                waits=sample.waits,
            )
        )
        if not self._request.score:
            scores.tell(sample)
        return self._request.score and finish != "abort"

    def _cut(self, scores: ExpansionScores) -> None:
        """End what the budget, or a stop, did not let end by itself."""
        for sample in self._samples:
            if sample.ended is None:
                finish: Finish = "abort" if self._engines.halt.is_set() or self._race.over else "budget"
                with self._engines.halt.on_failure():
                    if self._end(sample, finish, scores):
                        scores.pay_and_score(sample)

    def _record_call(self, sample: Sample, asked: SampleRequest, reply: Reply, started: float) -> None:
        outcome = reply.sampled or Sampled(token_ids=(), finish="abort")
        lost, beside = 0 if reply.sampled else reply.tokens(asked.max_tokens), asked.spare.tokens if asked.spare else 0
        if beside:  # the same sample was asked for twice
            self._record_call(sample, replace(asked, max_tokens=reply.hedged(beside), spare=None), LOST, started)
        self._recorder.add(
            num_calls=1,
            completion_tokens=len(outcome.token_ids),
            prompt_tokens=outcome.prompt_tokens,
            cached_prompt_tokens=outcome.cached_tokens,
            discarded_tokens=outcome.discarded_tokens,
            lost_tokens=lost,
        )
        self._recorder.record(
            RequestEvent(
                time=self._recorder.now(),
                started=started,
                path=sample.path,
                position=len(sample.token_ids),
                seed=asked.seed,
                max_tokens=asked.max_tokens,
                token_ids=outcome.token_ids,
                finish=outcome.finish if reply.sampled else "lost" if lost else "refused",
                prompt_tokens=outcome.prompt_tokens,
                cached_tokens=outcome.cached_tokens,
                discarded_tokens=outcome.discarded_tokens,
            )
        )

    def _record_pause(self) -> None:
        why = f"the policy is gone: {self._engines.health.policy.last_error}"
        self._recorder.record(DecisionEvent(time=self._recorder.now(), what="paused", why=why))

    def _record_tight_round(self, terms: Terms, live: list[Sample], leases: list[Lease]) -> None:
        tokens = sum(lease.tokens for lease in leases)
        numbers = {"balance": terms.balance, "live": len(live), "leases": len(leases), "tokens": tokens}
        why = "the balance does not cover the worst case of every sample"
        self._recorder.record(DecisionEvent(time=self._recorder.now(), what="leases", why=why, numbers=numbers))
