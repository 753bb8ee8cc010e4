"""Shares grading workers among problems, so that one problem's hostile answers hold up no other for long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adaptive_ttc.answers.grading_process import GradingConfig, Request, Supervisor, Verdict
from adaptive_ttc.answers.worker_process import WaitAbandonedError
from adaptive_ttc.errors import GradingError

_POLL = 0.05  # seconds after which a wait looks whether it was abandoned
_PATIENCE = 1.0  # seconds of wall time that a question waits before another worker is started for it
_QUICK = 0.25  # seconds of processor time in which nearly every honest question is decided


class Allowance:
    """What may be spent on grading one problem.

    ``left`` is processor time for everything; of it, at most ``to_waste`` is what questions take beyond a quarter of a
    second, in which nearly every honest one is decided. Then each is cut off after that quarter, so that a problem's
    hostile answers do not use up what its honest ones need.
    """

    def __init__(self, config: GradingConfig) -> None:
        self.left = config.problem_limit
        self.to_waste = self._wasteful = 8 * config.time_limit
        self._time_limit = config.time_limit
        self.undecided: set[tuple[str, str] | str] = set()  # questions of this problem that are not asked again

    @property
    def limit(self) -> float:
        """Seconds of processor time for the next question; 0: there is to be none."""
        return 0.0 if self.left <= 0 else min(self._time_limit, max(self.to_waste, _QUICK))

    @property
    def is_slow(self) -> bool:
        """Whether this problem has wasted so much time that others go before it."""
        return self.to_waste < self._wasteful - self._time_limit / 2

    def charge(self, verdict: Verdict) -> None:
        """Take off what a question has cost."""
        self.left -= verdict.seconds
        self.to_waste -= max(0.0, verdict.seconds - _QUICK)


class WorkerPool:
    """At most ``config.workers`` worker processes; thread-safe.

    One is started for the first question, another when all are busy and a question has waited for a second. Problems
    that have wasted time share half of them, so that the others find a worker.
    """

    def __init__(self, config: GradingConfig) -> None:
        self._config = config
        self._begin()

    def _begin(self, closed: bool = False) -> None:
        self._owner = os.getpid()
        self._closing = threading.Event()
        if closed:
            self._closing.set()
        self._change = threading.Condition()
        self._all = [Supervisor(self._config, self._closing)]
        self._free = list(self._all)
        self._slow = 0

    @property
    def pid(self) -> int | None:
        """The process id of the first worker, or None while there is none."""
        return self._all[0].pid

    def count(self, name: str) -> int:
        """The sum of one of the workers' counts."""
        return sum(getattr(worker, name) for worker in self._all)

    def start(self) -> None:
        """Start the first worker without waiting for it."""
        self._renew_in_fork()
        self._refuse_if_closed()
        self._all[0].start()

    def ask(self, request: Request, allowance: Allowance, abandoned: Callable[[], bool]) -> bool | None:
        """The answer to a question, or None where time or memory did not suffice to tell.

        Raises:
            GradingError: no worker can be started, or the pool is closed.
            WaitAbandonedError: soon after ``abandoned()`` is true.
        """
        with self._worker(allowance.is_slow, abandoned) as worker:
            verdict = worker.ask(request, allowance.limit, abandoned)
        allowance.charge(verdict)
        return verdict.value

    def close(self) -> None:
        """End all workers, and waiting questions with GradingError; may be called again."""
        self._renew_in_fork()
        self._closing.set()
        for worker in self._all:
            worker.close()

    @contextmanager
    def _worker(self, slow: bool, abandoned: Callable[[], bool]) -> Iterator[Supervisor]:
        self._renew_in_fork()
        worker = self._take(slow, abandoned)
        try:
            yield worker
        finally:
            with self._change:
                self._slow -= slow
                self._free.append(worker)
                self._change.notify_all()

    def _take(self, slow: bool, abandoned: Callable[[], bool]) -> Supervisor:
        began = time.monotonic()
        with self._change:
            while True:
                self._refuse_if_closed()
                if abandoned():
                    raise WaitAbandonedError
                if not slow or self._slow < max(1, self._config.workers // 2):
                    if not self._free and len(self._all) < self._config.workers and self._waited(began) > _PATIENCE:
                        another = Supervisor(self._config, self._closing)
                        self._all.append(another)
                        self._free.append(another)
                    if self._free:
                        self._slow += slow
                        return self._free.pop()
                self._change.wait(_POLL)

    def _waited(self, began: float) -> float:
        return time.monotonic() - max(began, self._all[-1].ready_at)  # one that still starts may soon be free

    def _renew_in_fork(self) -> None:
        """Begin anew in a fork: the workers, the locks and those that wait for them are its parent's."""
        if self._owner != os.getpid():
            self._begin(self._closing.is_set())

    def _refuse_if_closed(self) -> None:
        if self._closing.is_set():
            raise GradingError("this grader is closed; make a new one")
