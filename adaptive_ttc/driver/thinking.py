"""Ends thoughts at their limit, and prolongs those that end too early: what the driver itself writes into solutions.

What is written is read by the engine as a part of the prompt, and charged as such. A thought is closed so early that an
answer fits behind it (``think_tokens``); the closing tag of one that is too short is replaced by ``Wait`` (budget
forcing, arXiv 2501.19393). It knows no engine: what the policy's tags say is all that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adaptive_ttc.driver.engines import Engines
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.leases import Terms
from adaptive_ttc.driver.state import SearchState
from adaptive_ttc.events import WrittenEvent


@dataclass(frozen=True, slots=True)
class Insertion:
    """``ids`` that stand after the first ``kept`` tokens of a solution, and why."""

    kept: int
    ids: tuple[int, ...]
    why: str


def think_left(sample: Sample, affordable: int | None = None) -> int | None:
    """Tokens that its thought may still get, of those ``affordable`` for it; None where nothing limits it."""
    limit, kept = sample.asked.think_tokens, sample.answer_room
    if sample.tags is None or not sample.thinks or (limit is None and affordable is None):
        return None
    rooms = []
    if limit is not None:
        rooms += [limit - sample.thought.tokens, sample.remaining - len(_closing(sample)) - kept]
    if affordable is not None:
        rooms.append(affordable - min(kept, (affordable + len(sample.token_ids)) // 2))
    return max(0, min(rooms))


def insertion(sample: Sample, affordable: int | None = None) -> Insertion | None:
    """What is to be written into a solution now; None for nothing."""
    asked, tags, thought = sample.asked, sample.tags, sample.thought
    if tags is None:
        return None
    if sample.may_wait and thought.close is not None and thought.close >= len(sample.parent.token_ids):
        return Insertion(thought.close, tags.wait, f"a thought of {thought.tokens} tokens is too short")
    if think_left(sample, affordable) != 0 or sample.remaining <= len(_closing(sample)):
        return None
    reached = asked.think_tokens is not None and thought.tokens >= asked.think_tokens
    short = "" if reached else ", for an answer to fit"
    return Insertion(len(sample.token_ids), _closing(sample), f"a thought ends after {thought.tokens} tokens{short}")


def tokens_to_finish(sample: Sample) -> int | None:
    """Tokens that finish a solution whose thought is limited; None where it is not."""
    if sample.asked.think_tokens is None or sample.tags is None:
        return None
    left, room = think_left(sample), sample.answer_room
    if left is not None:
        return left + room
    return max(room - (len(sample.token_ids) - sample.thought.tokens), -(-room // 4))


def _closing(sample: Sample) -> tuple[int, ...]:
    assert sample.tags is not None
    opening = () if sample.thought.answer_at is None else sample.tags.opening  # no thought at all is an empty one
    return opening + sample.tags.forced


class Thoughts:
    """The thoughts of one Expand's samples, on an account that pays for what is written into them."""

    def __init__(self, engines: Engines, account: SearchState) -> None:
        self._engines = engines
        self._account = account

    def write(self, live: Sequence[Sample], terms_now: Callable[[], Terms]) -> Terms:
        """Write what is due into solutions that have not ended, as far as the account can pay; the terms after that.

        Until the account holds a solution, the first one's thought ends, limited or not, while an answer can still be
        paid for from what the run has left.
        """
        terms = terms_now()
        for sample in (*live, *live[:1]):  # what is written into the others leaves less for the first
            while due := self._due(sample, terms, first=sample is live[0]):
                money = self._account.ledger.reserve(self._engines.price.prompt * len(due.ids))
                if money is None:
                    break
                money.settle(money.amount)
                sample.write(due.kept, due.ids)
                self._record(sample, due)
                terms = terms_now()
        return terms

    def _due(self, sample: Sample, terms: Terms, *, first: bool) -> Insertion | None:
        return None if terms.whole else insertion(sample, self._affordable(terms) if first else None)

    def _record(self, sample: Sample, due: Insertion) -> None:
        recorder = self._engines.recorder
        recorder.record(
            WrittenEvent(time=recorder.now(), path=sample.path, position=due.kept, token_ids=due.ids, why=due.why)
        )

    def within(self, sample: Sample, tokens: int, terms: Terms, *, first: bool) -> int:
        """As many of a lease's tokens as do not take a thought beyond its limit."""
        if terms.whole:
            return tokens
        left = think_left(sample, self._affordable(terms) if first else None)
        return tokens if left is None else min(tokens, left)

    def _affordable(self, terms: Terms) -> int | None:
        """Tokens that the run can still pay for, what it has left beside this account included; None where no limit
        ends a thought.
        """
        budget = self._engines.budget
        beside = 0 if self._account.ledger is budget else budget.available
        if terms.solved or terms.whole or terms.balance is None or beside is None:
            return None
        return (terms.balance + beside) // terms.rate
