import asyncio

import anyio
import anyio.lowlevel

from adaptive_ttc.tasks import Signal


async def test_it_wakes_those_who_wait_and_calls_those_who_asked_once():
    signal, called = Signal(), []

    async def waiter():
        await signal.wait()
        called.append("woken")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiter)
        with signal.calling(lambda: called.append("first")), signal.calling(lambda: called.append("second")):
            await anyio.lowlevel.checkpoint()
            assert called == []
            signal.set()
            signal.set()
            assert called == ["first", "second"]
    assert called == ["first", "second", "woken"]
    assert signal.is_set()


async def test_one_that_was_set_calls_at_once_and_one_who_left_is_not_called():
    signal, called = Signal(), []
    with signal.calling(lambda: called.append("left")):
        pass
    signal.set()
    assert called == []
    with signal.calling(lambda: called.append("late")):
        assert called == ["late"]


async def test_set_in_a_callback_of_the_loop_it_calls_in_a_task():
    signal, called = Signal(), []
    with signal.calling(lambda: called.append(asyncio.current_task())):
        asyncio.get_running_loop().call_soon(signal.set)
        await signal.wait()
        await anyio.lowlevel.checkpoint()
        assert len(called) == 1
        assert called[0] is not None
