"""What the tests of collecting share: sums for the toy model, its solver, and collections of them."""

import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio

from adaptive_ttc.calibration.collect.collector import collect
from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import pool_key, with_starts
from adaptive_ttc.calibration.collect.workers import Job, WorkerProcess, collect_with_workers
from adaptive_ttc.cli import exit_code
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23} + {i}." for i in range(6)]
ROWS = [
    {"problem": question, "answer": toy_answer(question), "unique_id": f"sum/{i}"}
    for i, question in enumerate(QUESTIONS)
]
DEMAND = {"greedy": 1, "sample": 8, "dvts-4": 2, "beam_search-4-2": 2, "revision-2": 2}
UNITS = sum(DEMAND.values())


def toy_solver(prm=True, **settings):
    return Solver(
        FakePolicy.generative(error_rate=0.15, **settings), FakePRM.truthful(toy_right_so_far) if prm else None
    )


async def collected(store, rows=ROWS, demand=DEMAND, solver=None, seed=0, **options):
    """Collect, and close the solver; its key, and what came of it."""
    async with solver or toy_solver() as one:
        key = pool_key(one, "sums", seed=seed)
        return key, await collect(one, rows, demand, store, key, **options)


async def fresh_records(demand=DEMAND, rows=ROWS, **options):
    """What one undisturbed collection finds."""
    with Store(":memory:") as store:
        key, _ = await collected(store, rows, demand, **options)
        return load_records(store, key, rows, demand)


def toy_job(load=toy_solver, demand=DEMAND):
    return Job(load=load, demand=with_starts(demand), key=pool_key(toy_solver(), "sums"), concurrency=2)


def die_once(marker, make=toy_solver, replies=40):
    """A solver whose process is killed when its policy has replied so often, unless that happened to another."""
    solver = make()
    reply, replied = solver.policy.sample, 0

    async def sample(request):
        nonlocal replied
        replied += 1
        if replied == replies:
            mark_and_die(marker)
        return await reply(request)

    solver.policy.sample = sample
    return solver


def mark_and_die(marker):
    """Whoever comes first dies."""
    with suppress(FileExistsError):
        Path(marker).touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)


def die_at_once():
    os._exit(3)


def killed_after(path, units):
    """Collect until so many units are reported, then be killed; a script's whole life."""
    done = 0

    def report(advance):
        nonlocal done
        done += advance.units
        if done == units:
            print(done, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        with Store(path) as store:
            await collected(store, report=report, concurrency=2)

    anyio.run(main)
    print(done, flush=True)


def marked_by_pid(folder):
    """A solver whose process leaves its number in a folder."""
    Path(folder, str(os.getpid())).touch()
    return toy_solver()


def stopped_with_workers(path, folder, number):
    """Collect with two workers until something is drawn, then send oneself a signal; a script's whole life."""

    def report(advance):
        if advance.units:
            os.kill(os.getpid(), number)

    def run():
        job = toy_job(partial(marked_by_pid, folder))
        with Store(path) as store:
            collect_with_workers(job, ROWS, store, 2, partial(WorkerProcess, job), report=report)

    sys.exit(exit_code(run, interrupted="what is stored stays"))
