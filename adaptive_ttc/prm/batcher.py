"""An async micro-batcher: many callers share one blocking batch function in one worker thread.

It is driven by callbacks of the event loop rather than by a task of its own: it can live inside an object that has only
``aclose``, and no cancellation (of a scope, or of a task) can lose a batch that other callers wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar

import anyio

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm.base import is_out_of_memory
from adaptive_ttc.tasks import LoopAffinity

T = TypeVar("T")
R = TypeVar("R")


class Failed(NamedTuple):
    """An error, to be raised in the caller's task: a future that nobody awaits would report one as lost."""

    error: BaseException


def run_halving(run: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> tuple[list[R | Failed], int]:
    """Run a batch, halved where memory runs out, down to single items; one outcome an item, and the splits."""
    try:
        results = run(items)
        if len(results) != len(items):
            raise RuntimeError(f"the batch function returned {len(results)} results for {len(items)} items")
        return list(results), 0
    except BaseException as error:
        if not is_out_of_memory(error):
            return [Failed(error) for _ in items], 0
        if len(items) == 1:
            # Its traceback would keep the frames, and with them the tensors, of the failed attempt alive.
            return [Failed(error.with_traceback(None))], 0
    # Outside the handler, for the same reason: the failed attempt is freed before its halves run.
    half = len(items) // 2
    first, first_splits = run_halving(run, items[:half])
    second, second_splits = run_halving(run, items[half:])
    return first + second, 1 + first_splits + second_splits


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Do not call back."""


class Clock(Protocol):
    """Where the batcher gets its time; the running event loop is one."""

    def time(self) -> float:
        """Now, in seconds from an arbitrary start."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call back once, at ``when``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherConfig:
    """How a batch is formed."""

    max_batch: int = 32  # items in one batch
    max_wait: float = 0.002  # seconds that an item may wait for company while the worker is idle
    gather: float = 1.0  # how long it may wait where more are coming and the last batch had several: times that took
    max_padded_tokens: int = 16384  # items times the longest item's length; an item that is longer by itself runs alone

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.max_padded_tokens < 1:
            raise ConfigError(
                f"max_batch={self.max_batch} and max_padded_tokens={self.max_padded_tokens} must be at least 1"
            )
        if not 0 <= self.max_wait < float("inf"):
            raise ConfigError(f"max_wait={self.max_wait} must be a finite number of seconds, 0 or more")
        if not 0 <= self.gather < float("inf"):
            raise ConfigError(f"gather={self.gather} must be a finite number of times, 0 or more")


@dataclass(slots=True, kw_only=True)
class BatcherStatistics:
    """What a batcher has done and holds."""

    queued: int = 0  # items that wait; ``running`` are in the worker
    running: int = 0
    # started, with ``items`` in them, ``tokens`` their lengths, ``padded_tokens`` the same after padding
    batches: int = 0
    items: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    splits: int = 0  # batches that were halved because memory ran out
    withdrawn: int = 0  # items whose caller was cancelled before they ran


@dataclass(slots=True, eq=False)
class _Entry(Generic[T, R]):
    item: T
    length: int
    arrived: float
    more: bool  # whether others are about to come
    future: asyncio.Future[R | Failed]


class MicroBatcher(Generic[T, R]):
    """Collects items of many callers into batches of similar length and runs them one batch at a time.

    A batch starts when the worker is idle and either no further item fits or the oldest item has waited ``max_wait``;
    where more are about to come, as long as the last batch took: its fixed cost is then shared by more of them.
    It always holds the oldest item, and of the others those nearest to it in length, so nothing starves. The next batch
    forms while one runs. One batcher serves one event loop at a time; it may be used again under a later one.

    ``run`` is the blocking batch function, called in the worker thread: one result an item, in order. ``length`` is the
    size of an item in the unit of ``max_padded_tokens``. ``clock`` is the event loop's unless a test injects its own.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        length: Callable[[T], int] = lambda _: 1,
        config: BatcherConfig | None = None,
        clock: Clock | None = None,
        name: str = "batcher",
    ) -> None:
        self._run, self._length, self._name = run, length, name
        self._config = config or BatcherConfig()
        self._injected_clock = clock
        self._executor: ThreadPoolExecutor | None = None
        self._affinity = LoopAffinity(name)
        self._queue: list[_Entry[T, R]] = []
        self._running: list[_Entry[T, R]] = []
        self._idle = anyio.Event()
        self._timer: Timer | None = None
        self._pump_is_due = False
        self._closed = False
        self._done = BatcherStatistics()
        self._began = self._ended = self._took = 0.0  # of the last batch: its times, and how long the worker had it
        self._company = False  # whether it held several items

    async def submit(self, item: T, *, more: bool = False) -> R:
        """Run an item in some batch; returns its result, or raises its error, or EngineError once closed.

        ``more``: others are about to come, so that gathering a larger batch is worth a while.
        """
        loop = self._bind()
        if self._closed:
            raise EngineError(f"{self._name} is closed; make a new one")
        entry: _Entry[T, R] = _Entry(item, self._length(item), self._clock.time(), more, loop.create_future())
        self._queue.append(entry)
        # Not at once: the tasks that are ready in this turn of the loop shall get into the same batch.
        if not self._pump_is_due:
            self._pump_is_due = True
            loop.call_soon(self._pump)
        try:
            outcome = await entry.future
            if isinstance(outcome, Failed):
                raise outcome.error
            return outcome
        finally:
            if entry in self._queue:
                self._queue.remove(entry)
                self._done.withdrawn += 1

    async def aclose(self) -> None:
        """Refuse what is queued, wait for the running batch, end the worker; a second call does nothing."""
        self._bind()
        self._closed = True
        queue, self._queue = self._queue, []
        error = f"{self._name} was closed before this item ran"
        self._settle(queue, [Failed(EngineError(error)) for _ in queue], 0)
        self._disarm()
        while self._running:
            await self._idle.wait()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def statistics(self) -> BatcherStatistics:
        """Its counts, now."""
        return replace(self._done, queued=len(self._queue), running=len(self._running))

    @property
    def _clock(self) -> Clock:
        return self._injected_clock or asyncio.get_running_loop()

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Attach to the running loop; items of a dead loop have no caller any more."""
        if self._affinity.enter():
            self._queue, self._running, self._timer = [], [], None
            self._pump_is_due = self._company = False  # the times of the last batch are of another loop's clock
        return asyncio.get_running_loop()

    def _pump(self) -> None:
        """Start a batch, if one may start; else arrange to be called again."""
        self._pump_is_due = False
        self._disarm()
        if self._running or not self._queue or self._closed:
            return
        batch = self._choose()
        full = len(batch) == self._config.max_batch or len(batch) < len(self._queue)
        due = self._queue[0].arrived + self._config.max_wait
        if self._queue[-1].more and self._company:
            due = max(due, max(self._queue[0].arrived, self._ended) + self._config.gather * self._took)
        if full or self._clock.time() >= due:
            self._start(batch)
        else:
            self._timer = self._clock.call_at(due, self._pump)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _choose(self) -> list[_Entry[T, R]]:
        """The oldest item and its neighbours in length, least padding first; returned in rising length."""
        ranked = sorted(self._queue, key=lambda entry: entry.length)
        low = high = ranked.index(self._queue[0])
        while (count := high - low + 1) < self._config.max_batch:
            width = ranked[high].length
            waste: dict[int, int] = {}
            if low > 0 and (count + 1) * width <= self._config.max_padded_tokens:
                waste[low - 1] = width - ranked[low - 1].length
            if high + 1 < len(ranked):
                longer = ranked[high + 1].length
                if (count + 1) * longer <= self._config.max_padded_tokens:
                    waste[high + 1] = count * (longer - width)
            if not waste:
                break
            chosen = min(waste, key=waste.__getitem__)
            low, high = min(low, chosen), max(high, chosen)
        return ranked[low : high + 1]

    def _start(self, batch: list[_Entry[T, R]]) -> None:
        taken = set(map(id, batch))
        self._queue = [entry for entry in self._queue if id(entry) not in taken]
        self._running, self._company, self._began = batch, len(batch) > 1, self._clock.time()
        self._idle = anyio.Event()
        self._done.batches += 1
        self._done.items += len(batch)
        self._done.tokens += sum(entry.length for entry in batch)
        self._done.padded_tokens += len(batch) * batch[-1].length
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        try:
            self._executor.submit(self._work, asyncio.get_running_loop(), batch)
        except RuntimeError as error:  # no thread to be had, or the interpreter is ending
            failure = EngineError(f"{self._name} could not start its worker: {error}", retryable=True)
            self._settle(batch, [Failed(failure) for _ in batch], 0)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Entry[T, R]]) -> None:
        """In the worker thread: run the batch and hand the outcomes back to the loop."""
        outcomes, splits = run_halving(self._run, [entry.item for entry in batch])
        # A loop that closed meanwhile has no caller left to tell.
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._settle, batch, outcomes, splits)

    def _settle(self, batch: list[_Entry[T, R]], outcomes: list[R | Failed], splits: int) -> None:
        self._done.splits += splits
        for entry, outcome in zip(batch, outcomes, strict=True):
            if not entry.future.done():
                entry.future.set_result(outcome)
        if self._running is batch:
            self._running, self._ended = [], self._clock.time()
            self._took = self._ended - self._began
            self._idle.set()
            self._pump()
