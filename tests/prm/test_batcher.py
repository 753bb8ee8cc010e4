"""The micro-batcher: how batches form, and what happens to callers when one is cancelled, fails or is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm.base import is_out_of_memory
from adaptive_ttc.prm.batcher import BatcherConfig, Failed, MicroBatcher, run_halving


class FakeTimer:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> FakeTimer:
        self.timers.append(FakeTimer(when, callback))
        return self.timers[-1]

    @property
    def armed(self) -> list[float]:
        return [timer.when for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if not timer.cancelled and timer.when <= self.now]:
            timer.cancelled = True
            timer.callback()


class Worker:
    """A batch function that says when it has begun and, if told to, waits for a sign."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()
        self._go.set()
        self.threads: set[int] = set()

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.threads.add(threading.get_ident())
        self.batches.append(list(items))
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._go.wait(60)
        return [item * 10 for item in items]


def identity(item: int) -> int:
    return item


def config(*, max_batch: int = 4, max_wait: float = 0.0, max_padded_tokens: int = 10**6) -> BatcherConfig:
    return BatcherConfig(max_batch=max_batch, max_wait=max_wait, max_padded_tokens=max_padded_tokens)


async def settle() -> None:
    """Give every task that can run a chance to."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def submit_all(batcher: MicroBatcher[int, int], items: Sequence[int]) -> list[int]:
    return list(await asyncio.gather(*(batcher.submit(item) for item in items)))


async def test_results_reach_their_callers_whatever_the_batch_order() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, length=identity, config=config(max_batch=3))
    items = [5, 1, 4, 2, 9, 3, 8]
    assert await submit_all(batcher, items) == [item * 10 for item in items]
    assert sorted(item for batch in worker.batches for item in batch) == sorted(items)
    assert all(len(batch) <= 3 for batch in worker.batches)
    await batcher.aclose()


async def test_tasks_ready_in_one_turn_share_a_batch_though_nothing_waits() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, config=config(max_batch=8, max_wait=0.0))
    await submit_all(batcher, range(6))
    assert [len(batch) for batch in worker.batches] == [6]
    await batcher.aclose()


async def test_the_loop_goes_on_and_the_next_batch_forms_while_one_runs() -> None:
    worker = Worker()
    worker.hold()
    batcher = MicroBatcher(worker, config=config(max_batch=8))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.submit, 1)
        await worker.begun.wait()
        for item in (2, 3, 4):
            tasks.start_soon(batcher.submit, item)
        await settle()
        assert (batcher.statistics().running, batcher.statistics().queued) == (1, 3)
        worker.release()
    assert worker.batches == [[1], [2, 3, 4]]
    assert len(worker.threads) == 1
    assert threading.get_ident() not in worker.threads
    await batcher.aclose()


async def test_an_item_waits_for_company_but_not_longer_than_max_wait() -> None:
    clock, worker = FakeClock(), Worker()
    batcher = MicroBatcher(worker, config=config(max_wait=0.5), clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.submit, 1)
        await settle()
        clock.advance(0.4)
        tasks.start_soon(batcher.submit, 2)
        await settle()
        assert worker.batches == []
        assert clock.armed == [100.5], "the oldest item's wait counts, and a newcomer does not prolong it"
        clock.advance(0.1)
    assert worker.batches == [[1, 2]]
    assert clock.armed == []
    await batcher.aclose()


async def test_a_full_batch_does_not_wait() -> None:
    clock, worker = FakeClock(), Worker()
    batcher = MicroBatcher(worker, config=config(max_batch=3, max_wait=0.5), clock=clock)
    assert await submit_all(batcher, [1, 2, 3]) == [10, 20, 30]
    assert clock.now == 100.0
    await batcher.aclose()


async def test_a_batch_full_of_tokens_does_not_wait() -> None:
    clock, worker = FakeClock(), Worker()
    worker.hold()
    batcher = MicroBatcher(worker, length=identity, config=config(max_wait=0.5, max_padded_tokens=20), clock=clock)
    async with anyio.create_task_group() as tasks:
        for item in (10, 9, 8):
            tasks.start_soon(batcher.submit, item)
        await settle()
        assert (batcher.statistics().running, clock.armed) == (2, [])
        clock.advance(0.5)
        worker.release()
    assert worker.batches == [[9, 10], [8]]
    await batcher.aclose()


async def test_what_waited_during_a_batch_starts_when_it_ends() -> None:
    clock, worker = FakeClock(), Worker()
    worker.hold()
    batcher = MicroBatcher(worker, config=config(max_batch=2, max_wait=0.5), clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submit_all, batcher, [1, 2])
        await worker.begun.wait()
        tasks.start_soon(batcher.submit, 3)
        await settle()
        clock.advance(0.7)
        worker.release()
    assert worker.batches == [[1, 2], [3]]
    await batcher.aclose()


async def test_where_more_are_coming_a_batch_gathers_as_long_as_the_last_one_took() -> None:
    worker, clock = Worker(), FakeClock()
    batcher = MicroBatcher(worker, config=config(max_batch=8), clock=clock)
    worker.hold()
    async with anyio.create_task_group() as tasks:
        for item in (1, 2):
            tasks.start_soon(batcher.submit, item)
        await worker.begun.wait()
        clock.advance(3.0)
        worker.release()
    worker.begun = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(batcher.submit, 3, more=True))
        await settle()
        assert clock.armed == [clock.now + 3.0]
        clock.advance(2.0)
        tasks.start_soon(partial(batcher.submit, 4, more=True))
        await settle()
        assert worker.batches == [[1, 2]]
        tasks.start_soon(batcher.submit, 5)  # none comes after it
        await worker.begun.wait()
    assert worker.batches == [[1, 2], [3, 4, 5]]


async def test_whoever_was_alone_in_the_last_batch_does_not_gather() -> None:
    worker, clock = Worker(), FakeClock()
    batcher = MicroBatcher(worker, config=config(max_batch=8), clock=clock)
    for item in (1, 2):
        assert await batcher.submit(item, more=True) == 10 * item
        clock.advance(1.0)
    assert clock.armed == []


def test_under_another_event_loop_nothing_is_gathered_by_the_clock_of_the_one_before() -> None:
    clock = FakeClock()
    batcher: MicroBatcher[int, int] = MicroBatcher(lambda items: list(items), config=config(max_batch=8), clock=clock)
    clock.advance(1000.0)
    asyncio.run(submit_all(batcher, [1, 2]))
    clock.now = 0.0
    assert asyncio.run(asyncio.wait_for(batcher.submit(3, more=True), 5.0)) == 3
    assert clock.armed == []


async def test_batches_hold_similar_lengths_and_always_the_oldest_item() -> None:
    worker = Worker()
    worker.hold()
    batcher = MicroBatcher(worker, length=identity, config=config(max_batch=3))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.submit, 1)
        await worker.begun.wait()
        for item in (50, 3, 49, 2, 52, 1000, 4, 51):
            tasks.start_soon(batcher.submit, item)
            await settle()
        worker.release()
    # 50 is the oldest; of its neighbours 49 pads one token, 51 two. Then 3 is, then 52.
    assert worker.batches == [[1], [49, 50, 51], [2, 3, 4], [52, 1000]]
    await batcher.aclose()


async def test_padded_tokens_stay_under_their_limit_and_a_longer_item_runs_alone() -> None:
    worker = Worker()
    worker.hold()
    batcher = MicroBatcher(worker, length=identity, config=config(max_batch=8, max_padded_tokens=100))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.submit, 1)
        await worker.begun.wait()
        for item in (30, 31, 32, 33, 500, 34, 99):
            tasks.start_soon(batcher.submit, item)
            await settle()
        worker.release()
    assert worker.batches == [[1], [30, 31, 32], [33, 34], [500], [99]]
    statistics = batcher.statistics()
    assert statistics.tokens == sum(map(sum, worker.batches))
    assert statistics.padded_tokens == sum(len(batch) * max(batch) for batch in worker.batches)
    assert (statistics.batches, statistics.items) == (5, 8)
    await batcher.aclose()


@pytest.mark.parametrize("kind", ["scope", "task"])
async def test_a_caller_cancelled_in_the_queue_is_not_computed(kind: str) -> None:
    worker = Worker()
    worker.hold()
    batcher = MicroBatcher(worker, config=config())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batcher.submit, 1)
        await worker.begun.wait()
        tasks.start_soon(batcher.submit, 2)
        await settle()
        if kind == "task":
            doomed = asyncio.create_task(batcher.submit(3))
            await settle()
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
        else:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await batcher.submit(3)
        assert batcher.statistics().queued == 1
        worker.release()
    assert worker.batches == [[1], [2]]
    assert batcher.statistics().withdrawn == 1
    await batcher.aclose()


@pytest.mark.parametrize("kind", ["scope", "task"])
async def test_a_caller_cancelled_while_its_batch_runs_leaves_at_once_and_the_others_get_theirs(kind: str) -> None:
    worker = Worker()
    worker.hold()
    batcher = MicroBatcher(worker, config=config())
    first = asyncio.create_task(batcher.submit(1))
    scope = anyio.CancelScope()

    async def in_scope() -> None:
        with scope:
            await batcher.submit(2)

    second = asyncio.create_task(in_scope() if kind == "scope" else batcher.submit(2))
    third = asyncio.create_task(batcher.submit(3))
    await worker.begun.wait()
    _ = scope.cancel() if kind == "scope" else second.cancel()
    await asyncio.wait([second])
    assert not first.done()
    worker.release()
    assert (await first, await third) == (10, 30)
    assert worker.batches == [[1, 2, 3]]
    assert await batcher.submit(4) == 40
    await batcher.aclose()


async def test_an_error_reaches_the_callers_of_its_batch_and_nobody_else() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise KeyError("thirteen")
        return list(items)

    batcher = MicroBatcher(run, length=identity, config=config(max_batch=2))
    results = await asyncio.gather(*(batcher.submit(item) for item in (1, 2, 12, 13, 30, 31)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["int", "int", "KeyError", "KeyError", "int", "int"]
    assert await batcher.submit(5) == 5
    await batcher.aclose()


async def test_an_error_that_no_future_can_hold_still_ends_the_call() -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise StopIteration

    batcher = MicroBatcher(run)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await batcher.submit(1)
    await batcher.aclose()


async def test_a_batch_function_that_loses_results_is_found_out() -> None:
    batcher: MicroBatcher[int, int] = MicroBatcher(lambda items: list(items)[:-1])
    with pytest.raises(RuntimeError, match="1 results for 2 items"):
        await submit_all(batcher, [1, 2])
    await batcher.aclose()


def test_halving_retries_down_to_what_fits_and_fails_only_what_never_does() -> None:
    attempts: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        attempts.append(list(items))
        if sum(items) > 10:
            raise MemoryError
        return [item + 100 for item in items]

    outcomes, splits = run_halving(run, [1, 2, 3, 4, 5, 6, 50, 7])
    assert [*outcomes[:6], outcomes[7]] == [101, 102, 103, 104, 105, 106, 107]
    assert isinstance(outcomes[6], Failed)
    assert isinstance(outcomes[6].error, MemoryError)
    assert attempts == [
        [1, 2, 3, 4, 5, 6, 50, 7], [1, 2, 3, 4], [5, 6, 50, 7], [5, 6], [5], [6], [50, 7], [50], [7],
    ]  # fmt: skip
    assert splits == 4


async def test_out_of_memory_is_halved_and_counted() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return list(items)

    batcher = MicroBatcher(run, config=config())
    assert await submit_all(batcher, [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert batcher.statistics().splits == 3
    await batcher.aclose()


def test_what_counts_as_out_of_memory() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    assert is_out_of_memory(OutOfMemoryError("?"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(KeyError("out of memory"))


async def test_closing_refuses_the_queue_and_lets_the_running_batch_end() -> None:
    worker = Worker()
    worker.hold()
    batcher = MicroBatcher(worker, config=config(max_batch=1))
    running = asyncio.create_task(batcher.submit(1))
    await worker.begun.wait()
    queued = asyncio.create_task(batcher.submit(2))
    await settle()
    closing = asyncio.create_task(batcher.aclose())
    with pytest.raises(EngineError, match="closed before"):
        await queued
    await settle()
    assert not closing.done()
    worker.release()
    await closing
    assert await running == 10
    assert worker.batches == [[1]]
    with pytest.raises(EngineError, match="is closed"):
        await batcher.submit(3)
    await batcher.aclose()


async def test_closing_disarms_the_timer() -> None:
    clock, worker = FakeClock(), Worker()
    batcher = MicroBatcher(worker, config=config(max_wait=1.0), clock=clock)
    waiting = asyncio.create_task(batcher.submit(1))
    await settle()
    assert clock.armed == [101.0]
    await batcher.aclose()
    assert clock.armed == []
    with pytest.raises(EngineError):
        await waiting


def test_one_batcher_serves_one_loop_after_another_even_if_the_first_died_in_a_batch() -> None:
    entered, go = threading.Event(), threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        entered.set()
        assert go.wait(60)
        return list(items)

    batcher = MicroBatcher(run)

    async def abandon() -> None:
        task = asyncio.create_task(batcher.submit(1))
        while not entered.is_set():
            await anyio.lowlevel.checkpoint()
        task.cancel()

    asyncio.run(abandon())
    go.set()
    assert asyncio.run(batcher.submit(2)) == 2
    assert asyncio.run(batcher.submit(3)) == 3
    asyncio.run(batcher.aclose())


async def test_two_loops_at_once_are_refused() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker, config=config())
    assert await batcher.submit(1) == 10
    with pytest.raises(ConfigError, match="another event loop"):
        await anyio.to_thread.run_sync(lambda: asyncio.run(batcher.submit(2)))
    await batcher.aclose()


def test_bad_settings_are_refused() -> None:
    for settings in (
        {"max_batch": 0},
        {"max_padded_tokens": 0},
        {"max_wait": -1.0},
        {"max_wait": float("inf")},
        {"gather": -1.0},
    ):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            BatcherConfig(**settings)  # type: ignore[arg-type]
