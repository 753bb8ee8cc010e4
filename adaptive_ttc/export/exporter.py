"""Makes the lines of problem after problem and writes them: from sources, or as a solver draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.evaluation.datasets import Row, problem_of
from adaptive_ttc.evaluation.evaluate import CONCURRENCY, Outcome, grader_of, solve_rows_together
from adaptive_ttc.export.file import ExportFile
from adaptive_ttc.export.formats import MOST, Line, maker, prm, to_label
from adaptive_ttc.export.labels import RolloutSettings, RolloutTally, StepLabeller
from adaptive_ttc.export.samples import GradedProblem, graded
from adaptive_ttc.export.sources import Excluded, Source
from adaptive_ttc.run.request import Resources
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import BIN_NAMES

ROLLOUT_SHARE = 0.5
"""The part of a shared budget that is kept for roll-outs, where solutions are drawn from it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is made of a problem.

    Attributes:
        format: see :data:`~adaptive_ttc.export.formats.FORMATS`.
        most: lines of one problem; None for the format's own.
        per_bin: lines of each of the five bins of difficulty by pass rate; None for no limit.
        least_shared: steps that both solutions of a pair begin with.
        system: put before every chat; empty for none.
        origin: columns that every line has, such as who wrote it.
        rollouts: how steps are labelled; None where the format needs no roll-outs.
        problem_budget: units for a problem, its solutions and roll-outs together; None for no limit.
        rollout_budget: units for the roll-outs of all problems together; None for no limit.

    Raises:
        ConfigError: a number is out of range.
    """

    format: str
    most: int | None = None
    per_bin: int | None = None
    least_shared: int = 0
    system: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    rollouts: RolloutSettings | None = None
    problem_budget: int | None = None
    rollout_budget: int | None = None

    def __post_init__(self) -> None:
        for name in ("most", "per_bin"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        if self.least_shared < 0:
            raise ConfigError(f"least_shared={self.least_shared} must be at least 0")


@dataclass(slots=True)
class Exporter:
    """Writes the lines of problems to a file, each problem once.

    Args:
        file: where to.
        plan: what is made of each problem.
        excluded: problems that are left out.
        size: how many problems will come.
        resources: what roll-outs are drawn with; None where there are none.
        report: called when a problem is done or has failed.

    Attributes:
        failed: why problems could not be done in this run, and how many; another run does them.
    """

    file: ExportFile
    plan: Plan
    excluded: Excluded
    size: int
    resources: Resources | None = None
    report: Callable[[], None] = lambda: None
    failed: Counter[str] = field(default_factory=Counter)
    _begun: int = field(init=False)

    def __post_init__(self) -> None:
        self._begun = len(self.file.done)

    def left_out(self, row: Row) -> str | None:
        """Why a problem is not to be exported; None where it is."""
        if "answer" not in row:
            return "without_right_answer"
        if not row["problem"].strip():
            return "without_text"
        return "excluded" if self.excluded.holds(row) else None

    def passes(self, row: Row) -> bool:
        """Whether a problem is to be exported and was not yet; one that is left out is counted."""
        if row["unique_id"] in self.file.done:
            return False
        why = self.left_out(row)
        if why is not None:
            self.leave_out(row, why)
        return why is None

    def leave_out(self, row: Row, why: str) -> None:
        """Count a problem that is left out, by a key of :data:`adaptive_ttc.export.card.LEFT_OUT`."""
        self._begun += 1
        self.file.add(row["unique_id"], (), {why: 1})
        self.report()

    async def take(self, problem: GradedProblem) -> None:
        """Write the lines of a problem that :meth:`passes`. A failure of an engine is counted."""
        self._begun += 1
        id, samples = problem.row["unique_id"], problem.samples
        bin = BIN_NAMES[problem.difficulty]
        counts = Counter(problems=1, samples=len(samples), right=sum(one.correct for one in samples))
        counts += Counter({f"problems_{bin}": 1, "units_of_solutions": problem.spent})
        spent = 0
        if problem.error:
            self._failed(problem.error)
            return
        try:
            if self.plan.rollouts is None:
                lines = maker(self.plan.format, self.plan.most, self.plan.system, self.plan.least_shared)(problem)
            else:
                lines, spent = await self._labelled(problem, counts)
        except ConfigError:
            raise
        except AdaptiveTTCError as error:
            self._failed(f"{type(error).__name__}: {error}")
            return
        lines = self._within_bin(lines, bin)
        counts += Counter({"lines": len(lines), f"lines_{bin}": len(lines), "units_of_rollouts": spent})
        if self.plan.format == "prm":
            counts["steps"] += sum(len(line["labels"]) for line in lines)
        self.file.add(id, [{**line, **self.plan.origin} for line in lines], counts, spent)
        self.report()

    def _failed(self, why: str) -> None:
        self.failed[why] += 1
        self.report()

    def _within_bin(self, lines: list[Line], bin: str) -> list[Line]:
        if self.plan.per_bin is None:
            return lines
        return lines[: max(0, self.plan.per_bin - self.file.counts[f"lines_{bin}"])]

    async def _labelled(self, problem: GradedProblem, counts: Counter[str]) -> tuple[list[Line], int]:
        """Solutions with labels by roll-outs, and the units that these took."""
        settings = self.plan.rollouts
        assert settings is not None
        assert self.resources is not None
        if not any(one.correct for one in problem.samples):
            counts["unsolved"] += 1
            return [], 0
        chosen = to_label(problem, self.plan.most or MOST["prm"] or 1)
        labeller = StepLabeller(problem, self.resources, settings, self._budget(problem))
        lines = []
        try:
            for number, sample in enumerate(chosen):
                labels = await labeller.labels(sample, number)
                if labels is not None:
                    hard = [one > 0 for one in labels]
                    lines.append(prm(problem, sample, labels if settings.labels == "soft" else hard))
        except BaseException:
            if self.plan.rollout_budget is not None:
                self.file.keep(problem.row["unique_id"], labeller.spent)
            raise
        counts.update({f"labels_{name}": getattr(labeller.tally, name) for name in RolloutTally.__dataclass_fields__})
        return lines, labeller.spent

    def _budget(self, problem: GradedProblem) -> int | None:
        """Units for the roll-outs of a problem: of a shared budget its equal part of what is left."""
        own = self.plan.problem_budget
        own = None if own is None else max(0, own - problem.spent)
        if self.plan.rollout_budget is None:
            return own
        left = max(0, self.plan.rollout_budget - self.file.charged)
        units = left // max(1, self.size - self._begun + 1)
        self.file.lease(problem.row["unique_id"], units)
        return units if own is None else min(units, own)


async def export_source(source: Source, exporter: Exporter, grader: Any, concurrency: int = CONCURRENCY) -> None:
    """Export what a source holds, problems side by side; no more of them are in memory."""
    await _in_turn(_passing(source, exporter, grader), exporter.take, concurrency)


async def _passing(source: Source, exporter: Exporter, grader: Any) -> AsyncIterator[GradedProblem]:
    async for problem in source.problems(grader):
        if exporter.passes(problem.row):
            yield problem


async def export_run(
    solver: Solver, rows: Sequence[Row], request: Mapping[str, Any], exporter: Exporter, concurrency: int = CONCURRENCY
) -> None:
    """Draw solutions of every problem, each within its own budget, and export them as they come.

    ``request``: keyword arguments of :meth:`~adaptive_ttc.solver.Solver.solve`.
    """

    async def one(row: Row) -> None:
        try:
            solution = await solver.solve(problem_of(row), **request)
        except AdaptiveTTCError as error:
            await _not_drawn(exporter, row, error)
        else:
            await exporter.take(await graded_problem(solver, row, solution))

    async def wanted() -> AsyncIterator[Row]:
        for row in rows:
            if exporter.passes(row):
                yield row

    await _in_turn(wanted(), one, concurrency)


async def export_pool(
    solver: Solver,
    rows: Sequence[Row],
    request: Mapping[str, Any],
    exporter: Exporter,
    *,
    budget: int,
    checkpoint: str | Path,
    concurrency: int = CONCURRENCY,
) -> None:
    """Draw solutions of all problems from one budget, which is spent where it gains most, and export them as they
    settle; the checkpoint knows what of the budget is spent.
    """
    for row in rows:
        exporter.passes(row)  # counts those that are left out
    rows = [row for row in rows if exporter.left_out(row) is None]
    send, receive = anyio.create_memory_object_stream[Outcome](math.inf)

    async def draw() -> None:
        with send:
            kept: dict[str, Any] = {"budget": budget, "checkpoint": checkpoint, "concurrency": concurrency}
            await solve_rows_together(solver, rows, request, send.send_nowait, **kept)

    async def one(outcome: Outcome) -> None:
        if outcome.row["unique_id"] in exporter.file.done:
            return
        if outcome.error is not None:
            await _not_drawn(exporter, outcome.row, outcome.error)
        elif outcome.solution is not None:
            await exporter.take(await graded_problem(solver, outcome.row, outcome.solution))

    async with receive, side_by_side() as group:
        group.start_soon(draw)
        await _in_turn(receive, one, concurrency)


async def _not_drawn(exporter: Exporter, row: Row, error: AdaptiveTTCError) -> None:
    """A problem that these models cannot be asked is left out; one whose engine failed is for another run."""
    if isinstance(error, ConfigError):
        exporter.leave_out(row, "impossible")
    else:
        await exporter.take(GradedProblem(row=row, samples=(), error=f"{type(error).__name__}: {error}"))


async def graded_problem(solver: Solver, row: Row, solution: Solution) -> GradedProblem:
    """The candidates of a solution, graded."""
    prefixes = [candidate.prefix for candidate in solution.candidates]
    samples = await graded(prefixes, row["answer"], grader_of(solver, row))
    return GradedProblem(row=row, samples=samples, spent=solution.spent)


async def _in_turn(things: AsyncIterator[Any], work: Callable[[Any], Awaitable[None]], concurrency: int) -> None:
    """Work on so many things at once; the next is asked for when there is a place for it."""
    if concurrency < 1:
        raise ConfigError(f"concurrency={concurrency} must be at least 1")
    places = anyio.Semaphore(concurrency)

    async def one(thing: Any) -> None:
        try:
            await work(thing)
        finally:
            places.release()

    async with side_by_side() as group:
        async for thing in things:
            await places.acquire()
            group.start_soon(one, thing)
