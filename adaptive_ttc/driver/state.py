"""What one search of a problem owns: money, child numbers, and the lengths it has seen; it knows no engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from adaptive_ttc.driver.lineage import Numbering
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.types import Finish, Prefix

Kind = tuple[str, ...]
"""Samples of one kind end alike: the stop strings of their request."""


@dataclass(slots=True)
class Account:
    """The state on which leases depend, and nothing else: not the clock, not other problems.

    Attributes:
        ledger: its money.
        numbering: its child numbers.
        lengths: by kind, the number of samples that ended by themselves and the sum of their lengths.
        solved: whether it holds a finished solution.
        scores: of the solutions that it had scored, by their steps; equal ones are not scored again.
        shown: earlier attempts, by their paths, whose place in a prompt is paid for.
    """

    ledger: Ledger
    numbering: Numbering = field(default_factory=Numbering)
    lengths: dict[Kind, tuple[int, int]] = field(default_factory=dict)
    solved: bool = False
    scores: dict[tuple[str, ...], tuple[float, ...]] = field(default_factory=dict)
    shown: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)

    def note(self, kind: Kind, length: int, finish: Finish | None) -> None:
        """A sample ended."""
        if finish in ("eos", "stop"):
            number, total = self.lengths.get(kind, (0, 0))
            self.lengths[kind] = (number + 1, total + length)
        self.solved = self.solved or finish == "eos"

    def observe(self, evidence: Iterable[Prefix]) -> None:
        """Take over samples that were drawn elsewhere: their numbers are given, their lengths and scores known."""
        for prefix in evidence:
            self.numbering.observe(prefix.path)
            if prefix.finished:
                self.note((), len(prefix.token_ids), "eos")
            if prefix.scores:
                self.scores[prefix.steps] = prefix.scores

    def ended(self, kind: Kind) -> tuple[int, float]:
        """How many samples of a kind ended by themselves, and their mean length (0 when none has)."""
        number, total = self.lengths.get(kind, (0, 0))
        return number, total / max(number, 1)

    def fork(self, ledgers: tuple[Ledger, ...]) -> tuple[Account, ...]:
        """Accounts for searches on child ledgers of this one's, with the same knowledge."""
        numberings = self.numbering.fork(len(ledgers))
        return tuple(
            Account(ledger, numbering, dict(self.lengths), self.solved, dict(self.scores), set(self.shown))
            for ledger, numbering in zip(ledgers, numberings, strict=True)
        )

    def join(self, parts: Iterable[Account]) -> None:
        """Close a fork's accounts: what they left, learned and numbered comes back."""
        accounts = tuple(parts)
        self.numbering.join(account.numbering for account in accounts)
        before = dict(self.lengths)
        for account in accounts:
            account.ledger.close()
            self.solved = self.solved or account.solved
            self.scores.update(account.scores)
            self.shown |= account.shown
            for kind, (number, total) in account.lengths.items():
                was_number, was_total = before.get(kind, (0, 0))
                now_number, now_total = self.lengths.get(kind, (0, 0))
                self.lengths[kind] = (now_number + number - was_number, now_total + total - was_total)
