"""Draws the units of work that a calibration needs and its store lacks; it fits nothing.

    python -m adaptive_ttc.calibration.collect --limit 200 --store runs/units.sqlite --workers 2

After an interruption the same command goes on where it stopped; a command that asks for more draws the difference.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.collect.arms import WITH_BEAMS, Arm, default_arms, demand, parse_arms
from adaptive_ttc.calibration.collect.collector import Advance, Collected, Tally, collect, missing_units
from adaptive_ttc.calibration.collect.ray_workers import LOCAL, ray_actors, ray_library
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import MAX_TOKENS, TEMPERATURE, PoolKey, UnitSampler, pool_key
from adaptive_ttc.calibration.collect.workers import Job, Worker, WorkerProcess, collect_with_workers
from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.cli.options import add_pair_options, answers_of, check_beside, load_solver, second_of
from adaptive_ttc.configuration.recipe import DEFAULT_ENGINE
from adaptive_ttc.display.progress import progress
from adaptive_ttc.errors import ConfigError, RevisionWarning
from adaptive_ttc.evaluation.datasets import Row, load_problems, problem_of, spaces_of
from adaptive_ttc.loading import MINI_PRM
from adaptive_ttc.policies.cascade import weight_of
from adaptive_ttc.policy import whole_samples
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.prm.checkpoint import is_hub_name, locate
from adaptive_ttc.solver import Solver

PROBLEMS_AT_ONCE = 8  # of a worker: their samples fill an engine's batch several times over
MOST = 64  # N of the largest default arm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it: 0, 1 when an engine or the store failed, 2 when what is asked for is impossible, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    again = f"the same command goes on from {options.store}"
    return exit_code(lambda: run(options, Console()), interrupted=again)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m adaptive_ttc.calibration.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--store", type=Path, required=True, metavar="FILE", help="made where there is none")
    command.add_argument("--seed", type=int, default=0, help="of the sampling (default: %(default)s)")
    add_drawing_options(command)
    return command


def add_drawing_options(command: argparse.ArgumentParser) -> None:
    """What is drawn, of which problems, with which models, and how; not where to, and with which seed."""
    add = command.add_argument
    add("--dataset", default="minimath-calibration", help="name or file (default: %(default)s)")
    add("--limit", type=int, metavar="K", help="problems, from the first on (default: all)")
    add(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="such as greedy majority:1,4,16 dvts:16x4 beam_search:16x4 revision:16x4 "
        "(default: all strategies up to --most)",
    )
    add("--most", type=int, metavar="N", help=f"N of the largest default arm (default: {MOST}; the field goes to 256)")
    add("--repeats", type=int, metavar="R", help="of a beam search (default: 1 from N=64 on, else 2)")
    add("--workers", type=int, default=1, metavar="W", help="each with models of its own (default: %(default)s)")
    add(
        "--ray",
        nargs="?",
        const=os.environ.get("RAY_ADDRESS", LOCAL),
        metavar="ADDRESS",
        help="workers are actors of this Ray cluster, not processes of this machine (without an address: of "
        "RAY_ADDRESS, or of a Ray begun on this machine for this run); the package ray comes with the extra ray",
    )
    add("--gpus-per-worker", type=float, default=0.0, metavar="G", help="that an actor reserves (default: none)")
    add("--concurrency", type=int, default=PROBLEMS_AT_ONCE, metavar="K", help="of problems, a worker (%(default)s)")
    add("--temperature", type=float, default=TEMPERATURE, metavar="T", help="(default: %(default)s)")
    add("--max-tokens", type=int, default=MAX_TOKENS, metavar="T", help="of a solution (%(default)s)")
    add("--max-tokens-total", type=int, metavar="T", help="most tokens to be generated in this run")
    add_pair_options(command)


def run(options: argparse.Namespace, console: Console) -> None:
    """Draw what is missing, and say what there is."""
    check_workers(options)
    arms, parts = arms_of(options), policies_of(options)
    rows = load_problems(options.dataset, options.limit, answers=answers_of(options))
    for part in parts:
        if part is not parts[0] and not affords(part):
            console.print(Text("ended early: no tokens are left for the second policy", style="yellow"))
            return
        load = partial(load_solver, part, options.seed, spaces=spaces_of(rows))
        with Store(options.store) as store, load() as solver:
            settings = {name: getattr(options, name) for name in ("seed", "temperature", "max_tokens")}
            key = pool_key(solver, options.dataset, rows, **settings)
            wanted = demand(drawable(arms, solver, options), options.repeats)
            drawn = draw_missing(part, rows, wanted, store, key, solver, load, console)
        leave_over(part, drawn, parts)


_FOLDER_ENGINES = (DEFAULT_ENGINE, "vllm")
"""Engines whose models are folders or Hub names; what others take only they know."""


def policies_of(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The options for each policy alone, with the one PRM: a cascade's units are those of its policies.

    ConfigError: a weight and no second policy, or a second policy beside a recipe.
    """
    check_beside(options)
    if second_of(options) is None:
        return [options]
    weight_of(1, 1, options.second_weight)  # refuses an impossible one before hours of drawing
    if options.recipe is not None:
        return [argparse.Namespace(**vars(options), part=part) for part in ("first", "second")]
    if options.engine in _FOLDER_ENGINES and not is_hub_name(options.second):
        locate(options.second)  # before the first one's units are drawn
    alone = {**vars(options), "second": None, "second_weight": None}
    prm = options.prm or (None if options.policy else str(MINI_PRM))
    return [argparse.Namespace(**{**alone, **of}) for of in ({}, {"policy": options.second, "prm": prm})]


def leave_over(part: argparse.Namespace, drawn: int, parts: Sequence[argparse.Namespace]) -> None:
    """Leave the next policies what a part's ``drawn`` tokens left of the limit."""
    for other in parts[parts.index(part) + 1 :]:
        if other.max_tokens_total is not None:
            other.max_tokens_total = max(0, other.max_tokens_total - drawn)


def affords(part: argparse.Namespace) -> bool:
    """Whether the limit leaves it a token for each of its workers."""
    return part.max_tokens_total is None or part.max_tokens_total >= part.workers


def arms_of(options: argparse.Namespace) -> list[Arm]:
    """The arms asked for: those of --arms, or the default ones up to --most; ConfigError where both are given."""
    if not options.arms:
        return default_arms(MOST if options.most is None else options.most)
    if options.most is not None:
        raise ConfigError("--most is the size of the default arms: leave it out, or --arms")
    return parse_arms(options.arms)


def drawable(arms: Sequence[Arm], solver: Solver, options: argparse.Namespace) -> Sequence[Arm]:
    """The default arms that these models can run: with whole solutions alone no trees; those asked for as they are."""
    whole = whole_samples(solver.policy) or traits_of(solver.prm).finished_only
    return [arm for arm in arms if arm.strategy not in WITH_BEAMS] if whole and not options.arms else arms


def check_workers(options: argparse.Namespace) -> None:
    """Check that workers can be started, before models are loaded."""
    if options.ray is not None:
        ray_library()
    elif options.gpus_per_worker:
        raise ConfigError("--gpus-per-worker is for actors: add --ray, or leave it out")


def draw_missing(
    options: argparse.Namespace,
    rows: Sequence[Row],
    wanted: Mapping[str, int],
    store: Store,
    key: PoolKey,
    solver: Solver,
    load: Callable[[], Solver],
    console: Console,
) -> int:
    """Draw the units that a store lacks, with progress and a summary; the solver is closed at the end. Returns how many
    tokens were generated.

    ``wanted``: kind -> number of units of a problem; ``load`` makes the solvers of workers.
    """
    for note in _notes_on(solver, rows[0], wanted, key):
        console.print(Text(f"warning: {note}", style="yellow"))
    missing = sum(missing_units(store, rows, wanted, key).values())
    each = ", ".join(f"{number} {kind}" for kind, number in wanted.items())
    console.print(Text(f"{len(rows)} problems, each with {each}: {missing:,} units are missing"))
    tally, began, limit = Tally(missing), time.perf_counter(), options.max_tokens_total
    with ExitStack() as stack:
        if options.workers == 1 and options.ray is None:
            report = stack.enter_context(_progress(tally))

            async def here() -> Collected:
                async with solver:
                    each = options.concurrency
                    return await collect(
                        solver, rows, wanted, store, key, concurrency=each, max_tokens_total=limit, report=report
                    )

            collected = interruption.run(here)
        else:
            solver.close()
            job = Job(load=load, demand=wanted, key=key, concurrency=options.concurrency)
            start = stack.enter_context(_workers_of(options, job))
            report = stack.enter_context(_progress(tally))
            collected = collect_with_workers(
                job, rows, store, options.workers, start, max_tokens_total=limit, report=report
            )
    console.print(Text(_summary(collected, tally, len(rows), time.perf_counter() - began)))
    return max(tally.tokens, collected.generated)


def _workers_of(options: argparse.Namespace, job: Job) -> AbstractContextManager[Callable[[], Worker]]:
    """A context whose value starts a worker."""
    if options.ray is None:
        return nullcontext(lambda: WorkerProcess(job))
    return ray_actors(job, options.ray, options.workers, options.gpus_per_worker)


@contextmanager
def _progress(tally: Tally) -> Iterator[Callable[[Advance], None]]:
    """Progress while units are drawn; what moves it."""
    with progress("drawn", tally.total, tokens=lambda: tally.tokens) as meter:

        def report(advance: Advance) -> None:
            tally.add(advance)
            right = "" if tally.accuracy is None else f"{tally.accuracy:.1%} of samples right, "
            meter.update(tally.units, f"{right}{tally.problems} problems")

        yield report


def _notes_on(solver: Solver, row: Row, wanted: Mapping[str, int], key: PoolKey) -> list[str]:
    """Warnings to show before drawing; ConfigError where these models cannot draw what is asked for."""
    drawing = UnitSampler(problem_of(row), solver.policy, solver.prm, key, solver.grader.space)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", RevisionWarning)
        for kind in wanted:
            drawing.strategy(kind)
    return [str(note.message) for note in notes]


def _summary(collected: Collected, tally: Tally, asked: int, seconds: float) -> str:
    """Result of the collection, in a few lines."""
    pace = f"{tally.units:,} units, {tally.tokens:,} tokens in {seconds:,.0f} s ({tally.units / seconds:.1f} units/s)"
    lines = [f"drawn: {pace}", f"{collected.complete} of {asked} problems are complete"]
    lines += [f"left out: {name}: {why}" for name, why in collected.left_out.items()]
    if collected.ended_early is not None:
        lines.append(f"ended early: {collected.ended_early}")
    if tally.accuracy is not None:
        lines.append(f"{tally.accuracy:.1%} of their samples are right")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
