"""Draws the units that a store lacks, writes each when it is done, and grades the answers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.calibration.collect.records import record_of
from adaptive_ttc.calibration.collect.store import Grade, Store, StoredProblem
from adaptive_ttc.calibration.collect.units import PoolKey, UnitSampler, starts_of, with_starts
from adaptive_ttc.errors import CalibrationError, ConfigError, RevisionWarning
from adaptive_ttc.evaluation.datasets import Row, problem_of
from adaptive_ttc.evaluation.evaluate import CONCURRENCY
from adaptive_ttc.ledger import Ledger, Reservation
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy

_log = logging.getLogger(__package__)

UnitName = tuple[str, int]
"""Kind and index."""


@dataclass(frozen=True, slots=True)
class Advance:
    """A progress report: what was done since the last one."""

    # drawn; ``tokens`` that they took the policy to generate, without those of the samples they start from
    units: int = 0
    tokens: int = 0
    problem: str | None = None  # that is complete now, or was before; None where a unit is told of
    pass_at_1: float = 0.0  # the share of its samples that are right
    left_out: str | None = None  # why it cannot be drawn


@dataclass(slots=True)
class Tally:
    """The sum of reports: ``total`` units to be drawn, those drawn, their tokens, and the complete problems."""

    total: int
    units: int = 0
    tokens: int = 0
    problems: int = 0
    pass_at_1: float = 0.0

    def add(self, advance: Advance) -> None:
        """Add a report."""
        self.units += advance.units
        self.tokens += advance.tokens
        if advance.problem is not None and advance.left_out is None:
            self.problems += 1
            self.pass_at_1 += advance.pass_at_1

    @property
    def accuracy(self) -> float | None:
        """Mean pass@1 of the complete problems."""
        return self.pass_at_1 / self.problems if self.problems else None


@dataclass(slots=True)
class Collected:
    """Result of a collection."""

    complete: int = 0  # problems of which all that was asked for exists
    left_out: dict[str, str] = field(default_factory=dict)  # names of problems that cannot be drawn, and why
    ended_early: str | None = None  # why not all was drawn; None when all was
    generated: int = 0  # tokens, where they are limited; those that a failed call has lost count

    def note(self, advance: Advance) -> None:
        """Count a problem that is complete, or that cannot be drawn."""
        if advance.problem is not None and advance.left_out is not None:
            self.left_out[advance.problem] = advance.left_out
        elif advance.problem is not None:
            self.complete += 1


async def collect(
    solver: Solver,
    rows: Iterable[Row],
    demand: Mapping[str, int],
    store: Store,
    key: PoolKey,
    *,
    concurrency: int = CONCURRENCY,
    max_tokens_total: int | None = None,
    report: Callable[[Advance], None] | None = None,
) -> Collected:
    """Draw, score and grade what is missing in the store.

    Every unit is written when it is done, so that a kill, an error or a cancellation loses only units in progress.
    Samples come before the trees and chains that start from them. ``demand``: kind -> number of units of a problem, see
    :func:`adaptive_ttc.calibration.collect.arms.demand`; ``concurrency`` problems are drawn at once; at most
    ``max_tokens_total`` tokens are generated. ``report`` is called for every unit and every complete problem.
    """
    if concurrency < 1:
        raise ConfigError(f"concurrency={concurrency} must be at least 1")
    if max_tokens_total is not None and max_tokens_total < 1:
        raise ConfigError(f"max_tokens_total={max_tokens_total} must be at least 1")
    limited = None if max_tokens_total is None else TokenLimit(solver.policy, max_tokens_total)
    policy: Policy = limited or solver.policy
    crew = _Crew(policy, solver.prm, solver.grader, with_starts(demand), store, key, report or (lambda advance: None))
    source = iter(rows)

    async def work() -> None:
        for row in source:
            await crew.take(row)

    try:
        async with side_by_side() as tasks:
            for _ in range(concurrency):
                tasks.start_soon(work)
    except TokenLimitReachedError as error:
        crew.collected.ended_early = str(error)
    crew.collected.generated = 0 if limited is None else limited.spent
    return crew.collected


def missing_units(store: Store, rows: Sequence[Row], demand: Mapping[str, int], key: PoolKey) -> dict[str, int]:
    """How many units each problem lacks, by its name; 0 for those that lack none."""
    wanted = with_starts(demand)
    missing = {}
    for row in rows:
        number = store.find(key, row)
        have = {} if number is None else store.indices(number)
        missing[row["unique_id"]] = sum(len(set(range(most)) - have.get(kind, set())) for kind, most in wanted.items())
    return missing


@dataclass(slots=True)
class _Crew:
    """State shared by all problems of one collection."""

    policy: Policy
    prm: RewardModel | None
    grader: Grader
    demand: Mapping[str, int]
    store: Store
    key: PoolKey
    report: Callable[[Advance], None]
    collected: Collected = field(default_factory=Collected)

    async def take(self, row: Row) -> None:
        """Complete one problem."""
        problem = problem_of(row)
        try:
            prompt_tokens = len(self.policy.encode(problem))
        except ConfigError as error:  # longer than the context: no reason to give up the others
            self._note(Advance(problem=row["unique_id"], left_out=str(error)))
            return
        number = self.store.problem(self.key, row, prompt_tokens)
        have = self.store.indices(number)
        missing = [
            (kind, index)
            for kind, wanted in self.demand.items()
            for index in range(wanted)
            if index not in have.get(kind, ())
        ]
        drawing = self._drawing(problem)
        independent = [one for one in missing if one[0] in (GREEDY, SAMPLE)]
        await self._draw(drawing, number, independent)
        await self._draw(drawing, number, [one for one in missing if one not in independent])
        await self._finish(row, number)

    def _drawing(self, problem: Problem) -> UnitSampler:
        drawing = UnitSampler(problem, self.policy, self.prm, self.key, self.grader.space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RevisionWarning)  # shown once for the command, not for each problem
            for kind in self.demand:
                drawing.strategy(kind)
        return drawing

    async def _draw(self, drawing: UnitSampler, number: int, units: Sequence[UnitName]) -> None:
        async def one(kind: str, index: int) -> None:
            starts = self.store.starts(number, starts_of(kind, index))
            drawn = await drawing.draw(kind, index, starts)
            self.store.add(number, drawn)
            self.report(Advance(units=1, tokens=drawn.new_tokens))

        async with side_by_side() as tasks:
            for unit in units:
                tasks.start_soon(one, *unit)

    async def _finish(self, row: Row, number: int) -> None:
        """Grade what is not graded yet, or was not decided."""
        held = self.store.holding(number)
        if held.ungraded:
            grader = self.grader.for_problem(space_of(row.get("answers"), self.grader.space))
            self.store.judge(number, await grades_of(held, row["answer"], grader))
            held = self.store.holding(number)
        if held.ungraded:
            count, name = len(held.ungraded), row["unique_id"]
            _log.warning(
                "%d answers of problem %s were not decided: wrong for now, graded again next time", count, name
            )
        record = record_of(row, held, self.demand)
        assert record is not None
        right = [correct for unit in record.units.get(SAMPLE, ()) for correct in unit.correct]
        self._note(Advance(problem=record.id, pass_at_1=sum(right) / len(right) if right else 0.0))

    def _note(self, advance: Advance) -> None:
        self.collected.note(advance)
        self.report(advance)


async def grades_of(held: StoredProblem, gold: str, grader: Grader) -> dict[str, Grade]:
    """Grades of all answers of a problem, by the problem's grader: answers form classes, each is graded once."""
    answers = sorted(held.answers)
    classes = await grader.classes(answers)
    right = {name: await grader.equal(gold, name) for name in sorted({one for one in classes if one is not None})}
    unsettled = _unsettled(grader, grader.space.canonical(gold))
    grades = {}
    for answer, name in zip(answers, classes, strict=True):
        correct = name is not None and right[name]
        decided = correct or not ("" in unsettled or unsettled & {grader.space.canonical(answer), name})
        grades[answer] = Grade(answer if name is None else name, correct, decided)
    return grades


def _unsettled(grader: Grader, gold: str) -> set[str]:
    """Canonical answers of which something could not be told; the empty text where the gold answer cannot be read."""
    found = set()
    for question in grader.undecided:
        found |= {question} if isinstance(question, str) else set(question) - {gold}
    return found - {gold} | ({""} if gold in grader.undecided else set())


class TokenLimitReachedError(CalibrationError):
    """The token limit does not cover the next request, and no request in progress can return tokens."""


class TokenLimit(WrappedPolicy):
    """A policy that generates at most ``limit`` tokens in all; tokens lost by a failed call count.

    The worst case of every request is reserved before it is sent. A request that is not covered waits, in order of
    arrival, for tokens that others return; when none is in progress it fails.
    """

    def __init__(self, policy: Policy, limit: int) -> None:
        super().__init__(policy)
        self._ledger = Ledger(limit)
        self._waiting: set[str] = set()
        self._changed = anyio.Event()

    @property
    def spent(self) -> int:
        """Tokens generated so far."""
        return self._ledger.spent

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's reply; TokenLimitReachedError where the limit does not cover the request."""
        reservation = await self._reserve(request)
        if reservation is None:
            return Sampled(token_ids=(), finish="abort")
        used = reservation.amount
        try:
            sampled = await self._policy.sample(request)
            used = min(used, len(sampled.token_ids))
            return sampled
        finally:
            reservation.settle(used)
            self._wake()

    async def abort(self, request_id: str) -> None:
        """End a request early, whether it waits or runs."""
        if request_id not in self._waiting:
            return await self._policy.abort(request_id)
        self._waiting.remove(request_id)
        self._wake()
        return None

    async def _reserve(self, request: SampleRequest) -> Reservation | None:
        """The reservation for a request; None where it was aborted while it waited."""
        self._waiting.add(request.id)
        try:
            while request.id in self._waiting:
                reservation = self._ledger.reserve(request.max_tokens)
                if reservation is not None:
                    return reservation
                if not self._ledger.statistics().open_reservations:
                    raise TokenLimitReachedError(
                        f"{self._ledger.spent:,} of at most {self._ledger.limit:,} tokens are generated, and the rest "
                        "does not cover the next request: allow more"
                    )
                await self._changed.wait()
            return None
        finally:
            self._waiting.discard(request.id)

    def _wake(self) -> None:
        """Let waiting requests try again, in their order."""
        self._changed.set()
        self._changed = anyio.Event()
