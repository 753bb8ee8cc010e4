"""Sees that every sample of an Expand is scored once it ends, paid for first, and equal ones together.

It knows no lease and no strategy.
"""

from __future__ import annotations

from collections.abc import Iterable

from anyio.abc import TaskGroup

from adaptive_ttc.driver.engines import Engines
from adaptive_ttc.driver.flights import side_by_side
from adaptive_ttc.driver.sample import Sample
from adaptive_ttc.driver.state import Account
from adaptive_ttc.events import FinishedEvent
from adaptive_ttc.prm.base import Scored

Key = tuple[tuple[str, ...], tuple[str, ...]]
"""The steps of a sample, and those of its parent."""


class Scorekeeper:
    """The scores of one Expand.

    Samples with the same steps are scored once, whichever ends first, and so are those that the account
    has had scored before: what is charged does not depend on the order in which samples end. Two that go on
    from different solutions are charged differently, and so are not taken for the same.

    Args:
        engines: whom to ask, and what it costs.
        account: who pays.
        tasks: where the PRM is called.
    """

    def __init__(self, engines: Engines, account: Account, tasks: TaskGroup) -> None:
        self._engines = engines
        self._account = account
        self._tasks = tasks
        self._unpaid: set[Sample] = set()
        self._called: dict[Key, Sample] = {}
        self._equal: list[Sample] = []
        self._told: set[Sample] = set()

    def score_within(self, sample: Sample, units: int) -> int:
        """Score a sample if that costs no more than ``units``, else keep it for later; what it costs."""
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
                now = self._engines.meter.now()
                self._engines.scorer.take(sample, Scored(scores=scores, prm_tokens=0), now)

    def tell(self, sample: Sample) -> None:
        """Note, once, that the policy ended a solution and that no score of it is to come."""
        if sample.ended != "eos" or sample in self._told:
            return
        self._told.add(sample)
        self._engines.meter.record(
            FinishedEvent(
                time=self._engines.meter.now(),
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


async def score_held(engines: Engines, account: Account, samples: Iterable[Sample]) -> None:
    """Score solutions that ended before, in this order, as far as the account can pay; a stopped run scores none."""
    held = tuple(sample for sample in samples if not sample.scores)
    if engines.stop.is_set():
        return
    async with side_by_side() as tasks:
        scores = Scorekeeper(engines, account, tasks)
        for sample in held:
            scores.pay_and_score(sample)
    scores.share()


def _key(sample: Sample) -> Key:
    return sample.steps, sample.parent.steps
