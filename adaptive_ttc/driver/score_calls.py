"""Has the samples of one Expand scored as they end, pays for it, and settles what was paid too much."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from adaptive_ttc.driver.engines import Engines
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.scoring import WHOLE
from adaptive_ttc.driver.state import SearchState
from adaptive_ttc.events import FinishedEvent
from adaptive_ttc.ledger import Reservation
from adaptive_ttc.prm.base import Scored
from adaptive_ttc.tasks import side_by_side

Key = tuple[tuple[str, ...], tuple[str, ...]]  # the steps of a sample, and those of its parent


class ExpansionScores:
    """The scores of one Expand, paid for by ``account``; the PRM is called in ``tasks``, or in the task that drew.

    Samples with the same steps are scored once, whichever ends first, and so are those that the account has had scored
    before: what is charged does not depend on the order in which samples end. Two with different parents are charged
    differently, and so do not share a score.

    What a PRM writes is paid for by its most, and settled when all that was asked for has come, so that how much others
    may have meanwhile does not depend on which verdict comes first.
    """

    def __init__(self, engines: Engines, account: SearchState, tasks: TaskGroup) -> None:
        self._engines = engines
        self._account = account
        self.tasks = tasks
        self._unpaid: set[Sample] = set()
        self._called: dict[Key, Sample] = {}
        self._equal: list[Sample] = []
        self._told: set[Sample] = set()
        self._held: dict[Sample, Reservation] = {}  # of scores that may cost less
        self._unused: dict[Sample, int] = {}  # units of these
        self._due: set[Sample] = set()  # of :meth:`score_within`, to be called by :meth:`score`
        self._waiting = 0  # calls due or under way
        self._all_in = anyio.Event()  # set when none is

    def score_within(self, sample: Sample, units: int) -> int:
        """Have a sample scored, by :meth:`score`, if that costs at most ``units``, else keep it for later; the cost."""
        if self._engines.scorer.compares or self._engines.scorer.writes:
            self._unpaid.add(sample)
            return 0
        if self._known(sample):
            return 0
        bill = self._engines.scorer.bill(sample)
        if bill is not None and bill <= units:
            self._begin(sample)
            self._due.add(sample)
            return bill
        if bill is not None:
            self._unpaid.add(sample)
        return 0

    async def score(self, sample: Sample) -> None:
        """Score a sample that is due; nothing for others."""
        if sample in self._due:
            self._due.discard(sample)
            await self._score(sample)

    def score_late(self, samples: Sequence[Sample], *, last: bool = False) -> None:
        """Score, in this order, those that were kept for later, as far as the account can pay; a PRM that compares
        solutions waits for the ``last`` time.
        """
        if self._engines.scorer.compares and not last:
            return
        self.find_rivals(samples)
        for sample in samples:
            if sample in self._unpaid and (self.pay_and_score(sample) or not self._engines.scorer.writes):
                self._unpaid.discard(sample)

    def pay_and_score(self, sample: Sample) -> bool:
        """Score a sample if the account can pay; False where it cannot."""
        bill = None if self._known(sample) else self._engines.scorer.bill(sample)
        if bill is not None and (money := self._account.ledger.reserve(bill)):
            if self._engines.scorer.writes:
                self._held[sample] = money
            else:
                money.settle(bill)
            self._begin(sample)
            self.tasks.start_soon(self._score, sample)
            return True
        return bill is None

    def find_rivals(self, samples: Sequence[Sample]) -> None:
        """Give each solution those that it is compared with: the next ones in a ring of all different ones."""
        most = self._engines.scorer.compares
        if not most:
            return
        ended = (sample.steps for sample in samples if sample.ended in WHOLE and sample.steps)
        ring = list(dict.fromkeys([*self._account.scores, *ended]))
        place = {steps: number for number, steps in enumerate(ring)}
        for sample in samples:
            if (begin := place.get(sample.steps)) is not None:
                sample.rivals = tuple((ring[begin + 1 :] + ring[:begin])[:most])

    def settle(self) -> int:
        """After the calls, or where they were cancelled: give back what was not used of what was paid; its units."""
        unused = 0
        for sample, money in self._held.items():
            rest = min(money.amount, self._unused.get(sample, 0))
            money.settle(money.amount - rest)
            unused += rest
        self._held.clear()
        return unused

    async def settled(self) -> bool:
        """Whether, once all verdicts are in that are still to be settled, something was given back."""
        if not self._held:
            return False
        while self._waiting:
            await self._all_in.wait()
        return self.settle() > 0

    async def finish(self, samples: Sequence[Sample]) -> None:
        """Score what is left, as far as the account can pay, with what verdicts give back."""
        self.score_late(samples, last=True)
        while await self.settled():
            self.score_late(samples, last=True)

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
                answer_at=sample.thought.answer_at,
            )
        )

    def _known(self, sample: Sample) -> bool:
        """Whether an equal solution has, or gets, the score already."""
        if _key(sample) not in self._called and sample.steps not in self._account.scores:
            return False
        self._equal.append(sample)
        return True

    def _begin(self, sample: Sample) -> None:
        self._called[_key(sample)] = sample
        self._waiting += 1
        self._all_in = anyio.Event() if self._all_in.is_set() else self._all_in

    async def _score(self, sample: Sample) -> None:
        try:
            with self._engines.halt.on_failure():
                self._unused[sample] = await self._engines.scorer.score(sample, self._account.ledger)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._all_in.set()
        self.tell(sample)


async def score_held(engines: Engines, account: SearchState, samples: Sequence[Sample]) -> None:
    """Score solutions that ended before, in this order, as far as the account can pay; a stopped run scores none."""
    if engines.halt.is_set():
        return
    async with scoring_of(engines, account) as scores:
        with engines.halt.on_failure():
            scores.find_rivals(samples)
            waiting = [sample for sample in samples if not sample.scores]
            while waiting := [sample for sample in waiting if not scores.pay_and_score(sample)]:
                if not await scores.settled():
                    break
    scores.share()


@asynccontextmanager
async def scoring_of(engines: Engines, account: SearchState) -> AsyncIterator[ExpansionScores]:
    """Scores that are in, or given up, and settled when it is left."""
    scores: ExpansionScores | None = None
    try:
        async with side_by_side() as tasks:
            scores = ExpansionScores(engines, account, tasks)
            yield scores
    finally:
        if scores is not None:
            scores.settle()


def _key(sample: Sample) -> Key:
    return sample.steps, sample.parent.steps
