"""Collects with several workers, each with its own models; those defined here are processes of this machine.

Problems are handed out in small shards. Processes write every unit to the store as soon as it is done. The shard of a
worker that died is drawn again by a new one, which finds in the store what was done.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from adaptive_ttc.calibration.collect.collector import Advance, Collected, collect, missing_units
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import PoolKey
from adaptive_ttc.errors import AdaptiveTTCError, CalibrationError, ConfigError
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.solver import Solver

_log = logging.getLogger(__package__)

TRIES = 3  # workers in a row that may die over the same problems before one gets anything done
_POLL = 1.0  # seconds between looks into the store for progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What workers draw; it can be pickled."""

    load: Callable[[], Solver]  # makes the solver of a worker
    # demand, key, concurrency: see :func:`adaptive_ttc.calibration.collect.collector.collect`
    demand: Mapping[str, int]
    key: PoolKey
    concurrency: int


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Result of a shard."""

    problems: list[Advance]  # reports on its problems
    collected: Collected  # their sum
    store: bytes | None  # serialized, with what was drawn; None where it is in the store's file already


class ShardCollector:
    """Collects shards inside a worker, with one solver that is loaded for the first shard."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner = asyncio.Runner()
        self._solver: Solver | None = None

    def collect(
        self, rows: Sequence[Row], max_tokens_total: int | None, stored: Path | bytes
    ) -> ShardResult | AdaptiveTTCError:
        """Draw what a shard lacks; an error is returned, so that an exception always means that the worker died.

        ``stored``: the store's file, or a serialized store.
        """
        try:
            self._solver = self._solver or self._job.load()
            with Store.deserialized(stored) if isinstance(stored, bytes) else Store(stored) as store:
                work = _collect_shard(self._solver, self._job, rows, max_tokens_total, store)
                problems, collected = self._runner.run(work)
                return ShardResult(problems, collected, store.serialized() if isinstance(stored, bytes) else None)
        except AdaptiveTTCError as error:
            return error
        except Exception:
            return CalibrationError(f"a worker failed:\n{traceback.format_exc()}")

    def close(self) -> None:
        """Close the solver."""
        if self._solver is not None:
            self._runner.run(self._solver.aclose())


# Not a method: Ray would run all methods of a class with a coroutine among them in an event loop of its own.
async def _collect_shard(
    solver: Solver, job: Job, rows: Sequence[Row], max_tokens_total: int | None, store: Store
) -> tuple[list[Advance], Collected]:
    reports: list[Advance] = []
    collected = await collect(
        solver,
        rows,
        job.demand,
        store,
        job.key,
        concurrency=job.concurrency,
        max_tokens_total=max_tokens_total,
        report=reports.append,
    )
    tokens = Advance(tokens=sum(one.tokens for one in reports))
    return [tokens, *(one for one in reports if one.problem is not None)], collected


class Worker(Protocol):
    """A worker, as the scheduler of shards sees it."""

    def collect(
        self, rows: Sequence[Row], max_tokens_total: int | None, store: Store, /
    ) -> Future[ShardResult | AdaptiveTTCError]:
        """Begin a shard; an exception of the future means that the worker died."""

    def close(self) -> None:
        """Close its models and end it."""

    def kill(self) -> str | None:
        """End it now; returns how it had ended before, where its future does not tell."""


@dataclass(slots=True)
class _Shard:
    """Problems, units missing at the last look, and workers that died since without progress; if empty, models load."""

    rows: Sequence[Row] = ()
    missing: int = 0
    deaths: int = 0


@dataclass(slots=True, eq=False)
class _Slot:
    """A worker and the tokens that it may still generate."""

    worker: Worker
    tokens: int | None


def collect_with_workers(
    job: Job,
    rows: Sequence[Row],
    store: Store,
    workers: int,
    start: Callable[[], Worker],
    *,
    max_tokens_total: int | None = None,
    report: Callable[[Advance], None] | None = None,
) -> Collected:
    """Draw, score and grade what is missing in the store's file, with several workers that ``start`` starts.

    ``max_tokens_total`` is divided equally among the workers. ``report`` is called for units as they appear in the
    store, and for the complete problems of every shard.

    Raises:
        CalibrationError: workers died without progress, or the store cannot be written.
        AdaptiveTTCError: what a worker raised.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers} must be at least 1")
    if max_tokens_total is not None and max_tokens_total < workers:
        raise ConfigError(f"max_tokens_total={max_tokens_total} is less than a token for each of {workers}")
    tokens = None if max_tokens_total is None else max_tokens_total // workers
    shards = deque(_Shard(part) for part in _sharded(rows, workers, job.concurrency))
    collection = _Collection(job, store, start, shards, report or (lambda advance: None))
    with ExitStack() as stack:
        stack.callback(collection.kill)
        for _ in range(min(workers, len(shards))):
            collection.hire(tokens)
        collection.run()
        collection.close()
    return collection.collected


@dataclass(slots=True)
class _Collection:
    """Shards to hand out, and workers that are idle, busy, or have spent their tokens."""

    job: Job
    store: Store
    start: Callable[[], Worker]
    shards: deque[_Shard]
    report: Callable[[Advance], None]
    idle: list[_Slot] = field(default_factory=list)
    busy: dict[Future[ShardResult | AdaptiveTTCError], tuple[_Slot, _Shard]] = field(default_factory=dict)
    spent: list[_Slot] = field(default_factory=list)
    collected: Collected = field(default_factory=Collected)

    def hire(self, tokens: int | None, shard: _Shard | None = None) -> None:
        """Start a worker and let it load its models."""
        self._hand(_Slot(self.start(), tokens), shard or _Shard())

    def run(self) -> None:
        """Hand out shards until all are done or no worker may go on, without waiting for workers that still load."""
        for shard in self.shards:
            shard.missing = self._missing(shard)
        while self.shards or any(shard.rows for _, shard in self.busy.values()):
            while self.shards and self.idle:
                self._hand(self.idle.pop(), self.shards.popleft())
            if not self.busy:
                self.collected.ended_early = self.collected.ended_early or "all tokens are generated: allow more"
                return
            ready, _ = wait(self.busy, timeout=_POLL, return_when=FIRST_COMPLETED)
            for _, shard in self.busy.values():
                self._look(shard)
            for future in ready:
                self._finish(*self.busy.pop(future), future)

    def close(self) -> None:
        """Let the workers that are not busy close their models."""
        while self.idle or self.spent:
            (self.idle or self.spent).pop().worker.close()

    def kill(self) -> None:
        """End all workers."""
        for slot in (*self.idle, *self.spent, *(slot for slot, _ in self.busy.values())):
            slot.worker.kill()

    def _hand(self, slot: _Slot, shard: _Shard) -> None:
        self.busy[slot.worker.collect(shard.rows, slot.tokens, self.store)] = slot, shard

    def _finish(self, slot: _Slot, shard: _Shard, future: Future[ShardResult | AdaptiveTTCError]) -> None:
        if (death := future.exception()) is not None:
            self._replace(slot, shard, death)
            return
        self.spent.append(slot)
        result = future.result()
        if isinstance(result, AdaptiveTTCError):
            raise result
        if result.store is not None:
            with Store.deserialized(result.store) as drawn:
                self.store.copy_from(drawn, self.job.key, shard.rows)
        self._look(shard)
        for advance in result.problems:
            self.collected.note(advance)
            self.report(advance)
        if slot.tokens is not None:
            slot.tokens -= result.collected.generated
            self.collected.generated += result.collected.generated
        if result.collected.ended_early is not None:
            self.collected.ended_early = (
                "the rest of a worker's part of the tokens does not cover the next request: allow more"
            )
        elif slot.tokens != 0:
            self.idle.append(self.spent.pop())

    def _replace(self, slot: _Slot, shard: _Shard, death: BaseException) -> None:
        """After the death of a worker, let another one draw its shard again; much of it may be stored."""
        how = slot.worker.kill() or str(death).strip().splitlines()[0].rstrip(".")
        _log.warning("a worker ended (%s): another one draws what its %d problems lack", how, len(shard.rows))
        self._look(shard)
        shard.deaths += 1
        if shard.deaths == TRIES:
            raise CalibrationError(
                f"a worker ended ({how}) before it got anything done, and so did {TRIES - 1} before it: is there "
                "memory for so many copies of the models? take fewer workers; what is stored stays"
            )
        if shard.rows:
            self.shards.appendleft(shard)
        if slot.tokens is None:
            self.hire(None, None if shard.rows else shard)
        else:  # how much of its part it had generated is unknown, so the part counts as used up
            self.collected.generated += slot.tokens
            self.collected.ended_early = "a worker died, and its part of the tokens with it; the same command goes on"

    def _look(self, shard: _Shard) -> None:
        """Report new units in the store; a unit counts once, even where the worker that drew it died."""
        missing = self._missing(shard)
        if missing < shard.missing:
            self.report(Advance(units=shard.missing - missing))
            shard.missing, shard.deaths = missing, 0

    def _missing(self, shard: _Shard) -> int:
        return sum(missing_units(self.store, shard.rows, self.job.demand, self.job.key).values())


def _sharded(rows: Sequence[Row], workers: int, concurrency: int) -> Iterator[Sequence[Row]]:
    """Several shards for each worker, so that none waits long for the last; few problems beyond those drawn at once."""
    size = max(1, min(2 * concurrency, len(rows) // (4 * workers)))
    return (rows[first : first + size] for first in range(0, len(rows), size))


class WorkerProcess:
    """A process of this machine: a pool of one, so that its death breaks no other."""

    def __init__(self, job: Job) -> None:
        # A fork of a process with running threads may hang.
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_enter_process, initargs=(job,))
        self._process: BaseProcess | None = None

    def collect(
        self, rows: Sequence[Row], max_tokens_total: int | None, store: Store
    ) -> Future[ShardResult | AdaptiveTTCError]:
        """Begin a shard; the first call starts the process."""
        before = set(multiprocessing.active_children())
        future = self._pool.submit(_collect_here, rows, max_tokens_total, store.path)
        if self._process is None:
            (self._process,) = set(multiprocessing.active_children()) - before
        return future

    def close(self) -> None:
        """Close its models and wait for its end."""
        self._pool.submit(_close_here)
        self._pool.shutdown()

    def kill(self) -> str | None:
        """End it now; returns the exit code that it had before."""
        assert self._process is not None
        self._process.terminate()
        self._pool.shutdown(cancel_futures=True)
        return f"code {self._process.exitcode}"


_collector: ShardCollector
"""Of this worker process."""


def _enter_process(job: Job) -> None:
    global _collector
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command, which ends the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _collector = ShardCollector(job)


def _end_with_parent() -> None:
    """End this process when the command is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _collect_here(rows: Sequence[Row], max_tokens_total: int | None, path: Path) -> ShardResult | AdaptiveTTCError:
    return _collector.collect(rows, max_tokens_total, path)


def _close_here() -> None:
    _collector.close()
