"""Stands between a run and its engines and writes down what passes, and which ledgers were opened; it decides nothing.

What it saw is evidence of its own: none of it comes from the meter, the trace or the ledger that it is held against.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM


@dataclass(slots=True)
class Call:
    """A request to the policy; ``sampled`` stays None while it is under way and when it told nothing."""

    asked: SampleRequest
    sampled: Sampled | None = None


@dataclass(slots=True)
class Scoring:
    """A request to the PRM, after ``calls`` calls of the policy; ``scored`` is None where it failed."""

    asked: ScoreRequest
    scored: Scored | None = None


class Witness:
    """What one run asked for and got.

    Attributes:
        log: calls of both engines in the order in which they came back, failed ones included.
        ledgers: every account that was opened, the run's own first.
        open: calls of either engine that have not come back.
        overdrawn: times at which an account had promised more than it holds.
    """

    def __init__(self) -> None:
        self.log: list[Call | Scoring] = []
        self.ledgers: list[Ledger] = []
        self.open = 0
        self.overdrawn = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of the accounts that are opened meanwhile."""
        original, ledgers = Ledger.__init__, self.ledgers

        def noted(ledger: Ledger, limit: int | None) -> None:
            original(ledger, limit)
            ledgers.append(ledger)

        with mock.patch.object(Ledger, "__init__", noted):
            yield

    @property
    def calls(self) -> list[Call]:
        """Those of the policy."""
        return [entry for entry in self.log if isinstance(entry, Call)]

    @property
    def scorings(self) -> list[Scoring]:
        """Those of the PRM."""
        return [entry for entry in self.log if isinstance(entry, Scoring)]

    @contextmanager
    def noting(self, entry: Call | Scoring) -> Iterator[None]:
        """A call is under way; the accounts are looked at before it and after it."""
        self.open += 1
        self._look()
        try:
            yield
        finally:
            self.open -= 1
            self.log.append(entry)
            self._look()

    def _look(self) -> None:
        self.overdrawn += sum(ledger.limit is not None and ledger.available < 0 for ledger in self.ledgers)


class WitnessedPolicy(WrappedPolicy):
    """A policy whose calls are written down."""

    def __init__(self, policy: Policy, witness: Witness) -> None:
        super().__init__(policy)
        self._witness = witness

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's."""
        call = Call(request)
        with self._witness.noting(call):
            call.sampled = await super().sample(request)
        return call.sampled


class WitnessedPRM(WrappedPRM):
    """A reward model whose calls are written down."""

    def __init__(self, prm: RewardModel, witness: Witness) -> None:
        super().__init__(prm)
        self._witness = witness

    async def score(self, request: ScoreRequest) -> Scored:
        """The model's."""
        scoring = Scoring(request)
        with self._witness.noting(scoring):
            scoring.scored = await super().score(request)
        return scoring.scored


def delivered(calls: Sequence[Call]) -> int:
    """Tokens that the policy handed over."""
    return sum(len(call.sampled.token_ids) for call in calls if call.sampled is not None)


def lost(calls: Sequence[Call]) -> int:
    """Most tokens of the calls that told nothing."""
    return sum(call.asked.max_tokens for call in calls if call.sampled is None)
