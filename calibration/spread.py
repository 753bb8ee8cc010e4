"""Spreads a collection over workers, each with models of its own, and writes what they tell; it draws nothing itself.

Workers take problems one by one. The problems of one that dies are given to others, with all that it had told of
them: nothing told is lost, and nothing is written or counted twice. What workers are, processes of this machine or
actors of a Ray cluster, is for a :class:`Transport`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from adaptive_ttc.calibration.collect import Advance, Collected
from adaptive_ttc.calibration.mirror import stock_of
from adaptive_ttc.calibration.store import Store
from adaptive_ttc.calibration.worker import Job, Message, Next, Progress, Task
from adaptive_ttc.errors import AdaptiveTTCError, CalibrationError, ConfigError
from adaptive_ttc.evaluation.datasets import Row


class Hand(Protocol):
    """A worker, as seen by who hands out problems."""

    def give(self, task: Task | None, /) -> None:
        """Answer it; what it can no longer hear is not missed."""

    def leave(self) -> None:
        """Let it end by itself: it has said its last word."""

    def end(self) -> None:
        """End it now."""


@dataclass(frozen=True, slots=True)
class Died:
    """A worker has ended without a last word: how."""

    how: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What one worker said, or that it died."""

    hand: Hand
    message: Message | Died


class Transport(Protocol):
    """Starts workers and listens to them."""

    def hire(self, job: Job, /) -> Hand:
        """Start a worker."""

    def hear(self, hands: Collection[Hand], /) -> list[Heard]:
        """Wait until one of these workers says something or dies; in the order in which each has said it."""


def spread(
    job: Job,
    rows: Sequence[Row],
    store: Store,
    workers: int,
    transport: Transport,
    report: Callable[[Advance], None] | None = None,
) -> Collected:
    """Do a job with several workers.

    Args:
        job: what is to be done; what may be generated is divided equally among the workers.
        rows: the problems.
        store: where units are looked for and written, by this process alone.
        workers: how many.
        transport: what they are.
        report: told of every unit and every complete problem.

    Raises:
        ConfigError: no worker, or a ceiling too low to be divided.
        CalibrationError: a worker died before it got anything done, or the store cannot be written.
        AdaptiveTTCError: what a worker raised.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} must be at least 1")
    if job.max_tokens_total is not None:
        if job.max_tokens_total < workers:
            raise ConfigError(f"max_tokens_total={job.max_tokens_total} is less than a token for each of {workers}")
        job = replace(job, max_tokens_total=job.max_tokens_total // workers)
    foreman = _Foreman(job, deque(rows), store, transport, report or (lambda advance: None))
    try:
        foreman.employ(min(workers, len(rows)))
        return foreman.oversee()
    finally:
        foreman.dismiss()


@dataclass(slots=True)
class _Record:
    """Of a worker: the problems that it has not completed, whether it has come to work, and got anything done."""

    at_work: dict[str, Row] = field(default_factory=dict)
    present: bool = False
    useful: bool = False


@dataclass(slots=True)
class _Foreman:
    """Hands out problems, listens and writes."""

    job: Job
    pending: deque[Row]
    store: Store
    transport: Transport
    report: Callable[[Advance], None]
    workers: dict[Hand, _Record] = field(default_factory=dict)
    collected: Collected = field(default_factory=Collected)

    def employ(self, number: int) -> None:
        """Start workers."""
        for _ in range(number):
            self.workers[self.transport.hire(self.job)] = _Record()

    def oversee(self) -> Collected:
        """Serve the workers until all have ended; for one that never came, nobody waits when all is done."""
        while any(record.present or self.pending for record in self.workers.values()):
            for heard in self.transport.hear(self.workers):
                self._answer(heard.hand, heard.message)
        return self.collected

    def dismiss(self) -> None:
        """End all that still run; what they have told stays."""
        for hand in self.workers:
            hand.end()

    def _answer(self, hand: Hand, message: Message | Died) -> None:
        record = self.workers[hand]
        record.present = True
        match message:
            case Next():
                hand.give(self._task(record))
            case Progress():
                self._write(record, message)
            case Collected():
                self.collected.ended_early = self.collected.ended_early or message.ended_early
                del self.workers[hand]
                hand.leave()
            case Died():
                del self.workers[hand]
                hand.end()
                self._replace(record, message)
            case AdaptiveTTCError():
                raise message

    def _task(self, record: _Record) -> Task | None:
        if not self.pending:
            return None
        row = self.pending.popleft()
        record.at_work[row["unique_id"]] = row
        return Task(row, stock_of(self.store, self.job.key, row))

    def _write(self, record: _Record, progress: Progress) -> None:
        record.useful = True
        for addition in progress.additions:
            addition.enter(self.store, self.job.key, record.at_work[addition.name])
        record.at_work.pop(progress.advance.problem or "", None)
        self.collected.note(progress.advance)
        self.report(progress.advance)

    def _replace(self, record: _Record, death: Died) -> None:
        """The problems of a dead worker are others' now."""
        if not record.useful:
            raise CalibrationError(
                f"a worker ended ({death.how}) before it got anything done: is there memory for so many copies of the "
                "models? take fewer workers; what is stored stays"
            )
        self.pending.extendleft(reversed(record.at_work.values()))
        if self.job.max_tokens_total is None and self.pending:
            self.employ(1)
        elif self.pending:  # nobody knows what it had generated of its part, so its part is taken as used up
            self.collected.ended_early = "a worker died, and its part of the tokens with it; the same command goes on"
