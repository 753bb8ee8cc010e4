"""Carries out one Expand: leases in rounds, each settled when it returns, each sample scored when it ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from adaptive_ttc.driver.engines import Engines, PolicyCalls
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.leases import Member, Terms, plan_round
from adaptive_ttc.driver.state import SearchState
from adaptive_ttc.errors import EngineError
from adaptive_ttc.events import DecisionEvent, FinishedEvent, RequestEvent, SampledEvent
from adaptive_ttc.ledger import Reservation
from adaptive_ttc.policy import Sampled, SampleRequest, whole_samples
from adaptive_ttc.prm.base import Scored
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Finish, Prefix

Key = tuple[tuple[str, ...], tuple[str, ...]]  # the steps of a sample, and those of its parent


class ExpansionScores:
    """The scores of one Expand, paid for by ``account``; the PRM is called in ``tasks``.

    Samples with the same steps are scored once, whichever ends first, and so are those that the account has had scored
    before: what is charged does not depend on the order in which samples end. Two with different parents are charged
    differently, and so do not share a score.
    """

    def __init__(self, engines: Engines, account: SearchState, tasks: TaskGroup) -> None:
        self._engines = engines
        self._account = account
        self._tasks = tasks
        self._unpaid: set[Sample] = set()
        self._called: dict[Key, Sample] = {}
        self._equal: list[Sample] = []
        self._told: set[Sample] = set()

    def score_within(self, sample: Sample, units: int) -> int:
        """Score a sample if that costs at most ``units``, else keep it for later; returns the cost."""
        if self._known(sample):
            return 0
        bill = self._engines.scorer.bill(sample)
        if bill is not None and bill <= units:
            self._call(sample)
            return bill
        if bill is not None:
            self._unpaid.add(sample)
        return 0

    def score_late(self, samples: Iterable[Sample]) -> None:
        """Score, in this order, those that were kept for later, as far as the account can pay."""
        for sample in samples:
            if sample in self._unpaid:
                self._unpaid.discard(sample)
                self.pay_and_score(sample)

    def pay_and_score(self, sample: Sample) -> None:
        """Score a sample if the account can pay."""
        bill = None if self._known(sample) else self._engines.scorer.bill(sample)
        if bill is not None and (money := self._account.ledger.reserve(bill)):
            money.settle(bill)
            self._call(sample)

    def share(self) -> None:
        """After the calls: give equal samples the one score that was computed for them."""
        known = self._account.scores
        known.update((sample.steps, sample.scores) for sample in self._called.values() if sample.scores)
        for sample in self._equal:
            if scores := known.get(sample.steps):
                now = self._engines.recorder.now()
                self._engines.scorer.take(sample, Scored(scores=scores, prm_tokens=0), now)

    def tell(self, sample: Sample) -> None:
        """Record, once, that the policy ended a solution whose score, if any, is there."""
        if sample.ended != "eos" or sample in self._told:
            return
        self._told.add(sample)
        self._engines.recorder.record(
            FinishedEvent(
                time=self._engines.recorder.now(),
                path=sample.path,
                text=sample.text,
                tokens=len(sample.token_ids),
                scores=sample.scores,
            )
        )

    def _known(self, sample: Sample) -> bool:
        """Whether an equal solution has, or gets, the score already."""
        if _key(sample) not in self._called and sample.steps not in self._account.scores:
            return False
        self._equal.append(sample)
        return True

    def _call(self, sample: Sample) -> None:
        self._called[_key(sample)] = sample
        self._tasks.start_soon(self._score, sample)

    async def _score(self, sample: Sample) -> None:
        await self._engines.scorer.score(sample, self._account.ledger)
        self.tell(sample)


async def score_held(engines: Engines, account: SearchState, samples: Iterable[Sample]) -> None:
    """Score solutions that ended before, in this order, as far as the account can pay; a stopped run scores none."""
    if engines.stop.is_set():
        return
    async with side_by_side() as tasks:
        scores = ExpansionScores(engines, account, tasks)
        for sample in samples:
            if not sample.scores:
                scores.pay_and_score(sample)
    scores.share()


def _key(sample: Sample) -> Key:
    return sample.steps, sample.parent.steps


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

    async def run(self) -> tuple[Prefix, ...]:
        """Grow every sample as far as the account allows; the children in order."""
        async with side_by_side() as scoring:
            scores = ExpansionScores(self._engines, self._account, scoring)
            for sample in self._samples:
                if sample.ended is not None:
                    self._end(sample, sample.ended, scores)
            while leases := self._reserve():
                await self._round(leases, scores)
                scores.score_late(self._samples)
            self._cut(scores)
        scores.share()
        for sample in self._samples:
            scores.tell(sample)
        return tuple(sample.child() for sample in self._samples)

    def _reserve(self) -> list[Lease]:
        """The leases of the next round, all paid for; none when every sample has ended or no money is left."""
        live = [sample for sample in self._samples if sample.ended is None]
        if not live or self._engines.stop.is_set():
            return []
        terms, ledger = self._terms(), self._account.ledger
        plan = plan_round(
            terms, [Member(one.length, one.remaining, self._finish(one), self._overhead(one)) for one in live]
        )
        leases = []
        for sample, tokens in zip(live, plan, strict=True):
            if tokens and (money := ledger.reserve(self._overhead(sample) + terms.rate * tokens)):
                leases.append(Lease(sample, tokens, money))
        if any(lease.tokens < lease.sample.remaining for lease in leases) or len(leases) < len(live):
            self._record_tight_round(terms, live, leases)
        return leases

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
            whole=whole_samples(self._engines.policy),
        )

    def _finish(self, sample: Sample) -> int:
        """Tokens to keep for finishing a solution; one longer than expected gets a quarter more, repeatedly."""
        enough = self._engines.config.finish_tokens
        if enough is None:
            return sample.remaining
        return min(sample.remaining, max(enough - len(sample.token_ids), -(-enough // 4)))

    def _overhead(self, sample: Sample) -> int:
        return self._engines.scorer.planned_overhead(sample) if self._request.score else 0

    async def _round(self, leases: list[Lease], scores: ExpansionScores) -> None:
        """Send every lease at once and wait for all; when cancelled, recall and settle them first."""
        calls = PolicyCalls(self._engines.policy, self._engines.config.grace)
        self._engines.in_flight.add(calls)
        waiting, back = len(leases), anyio.Event()

        async def serve(lease: Lease) -> None:
            nonlocal waiting
            await self._serve(lease, calls, scores)
            waiting -= 1
            if not waiting:
                back.set()

        try:
            async with side_by_side() as sampling:
                for lease in leases:
                    sampling.start_soon(serve, lease)
                try:
                    await back.wait()
                except anyio.get_cancelled_exc_class():
                    await calls.recall()
                    raise
        finally:
            self._engines.in_flight.discard(calls)

    async def _serve(self, lease: Lease, calls: PolicyCalls, scores: ExpansionScores) -> None:
        """Call, settle. A sample whose call failed stays as it was, so that a later round repeats it."""
        sample = lease.sample
        asked = sample.ask(lease.tokens, self._engines.config.priority)
        started = self._recorder.now()
        sampled: Sampled | None = None
        try:
            sampled = _checked(await calls.sample(asked), asked)
            if sampled is None:
                self._end(sample, "abort", scores)
        except EngineError as error:
            sample.attempts += 1
            if not error.retryable or sample.attempts >= self._engines.config.attempts:
                raise
        finally:
            self._record_call(sample, asked, sampled, started)
            if sampled is None:
                lease.reservation.settle(self._engines.price.decode * lease.tokens)
            else:
                self._settle(lease, sampled, scores)

    def _settle(self, lease: Lease, sampled: Sampled, scores: ExpansionScores) -> None:
        sample, used = lease.sample, self._engines.price.decode * len(sampled.token_ids)
        sample.absorb(sampled, lease.tokens)
        if sample.ended is not None and self._end(sample, sample.ended, scores):
            used += scores.score_within(sample, lease.reservation.amount - used)
        lease.reservation.settle(used)

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
            )
        )
        if not self._request.score:
            scores.tell(sample)
        return self._request.score and finish != "abort"

    def _cut(self, scores: ExpansionScores) -> None:
        """End what the budget, or a stop, did not let end by itself."""
        for sample in self._samples:
            if sample.ended is None:
                finish: Finish = "abort" if self._engines.stop.is_set() else "budget"
                if self._end(sample, finish, scores):
                    scores.pay_and_score(sample)

    def _record_call(self, sample: Sample, asked: SampleRequest, sampled: Sampled | None, started: float) -> None:
        outcome = sampled or Sampled(token_ids=(), finish="abort")
        self._recorder.add(
            num_calls=1,
            completion_tokens=len(outcome.token_ids),
            prompt_tokens=outcome.prompt_tokens,
            cached_prompt_tokens=outcome.cached_tokens,
            discarded_tokens=outcome.discarded_tokens,
            lost_tokens=0 if sampled else asked.max_tokens,
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
                finish=outcome.finish if sampled else "lost",
                prompt_tokens=outcome.prompt_tokens,
                cached_tokens=outcome.cached_tokens,
                discarded_tokens=outcome.discarded_tokens,
            )
        )

    def _record_tight_round(self, terms: Terms, live: list[Sample], leases: list[Lease]) -> None:
        tokens = sum(lease.tokens for lease in leases)
        numbers = {"balance": terms.balance, "live": len(live), "leases": len(leases), "tokens": tokens}
        why = "the balance does not cover the worst case of every sample"
        self._recorder.record(DecisionEvent(time=self._recorder.now(), what="leases", why=why, numbers=numbers))


def _checked(sampled: Sampled | None, asked: SampleRequest) -> Sampled | None:
    if sampled is not None and len(sampled.token_ids) > asked.max_tokens:
        raise EngineError(
            f"the policy delivered {len(sampled.token_ids)} tokens to a request for at most {asked.max_tokens}: "
            "its max_tokens must be obeyed, or no budget can hold"
        )
    return sampled
