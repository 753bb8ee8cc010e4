"""From a problem to its solution: loading the models, solving one or many problems, closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.configuration.defaults import check_defaults, of_pools, split, with_defaults
from adaptive_ttc.configuration.loads import LoadsModels, check_models
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.pair_calibration import SelectedCalibration
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.adaptive_run import AdaptiveRun
from adaptive_ttc.run.pool import SolutionPool
from adaptive_ttc.run.request import (
    Priority,
    Question,
    Resources,
    check_several,
    make_pool_request,
    make_request,
    with_vote_of,
)
from adaptive_ttc.run.run import Run
from adaptive_ttc.run.statistics import CallMeter, MeteredPolicy, MeteredPRM, SolverStatistics
from adaptive_ttc.run.stream import Begin, SolutionStream
from adaptive_ttc.run.unread import Unread
from adaptive_ttc.run.verify import Verify
from adaptive_ttc.solution import Solution
from adaptive_ttc.stopping.base import StoppingRule
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.tasks import LoopAffinity, Signal, refuse_running_loop
from adaptive_ttc.types import Problem

Result = TypeVar("Result")


class Solver(LoadsModels):
    """Solves verifiable problems with a policy and, optionally, a process reward model.

    Any number of ``solve`` calls may run at once in one event loop: the engines batch across them. From a second loop
    that runs, or after a fork, they are refused (ConfigError): make a solver for each. A solver closes its models and
    grader at :meth:`aclose`; use it as an async context manager, or as a plain one with :meth:`solve_sync`.

    Args:
        policy: writes solutions.
        prm: scores them; needed by every strategy but greedy and majority.
        seed: of all randomness, so that a run can be repeated; each ``solve`` may have its own. None sends engines no
            seeds that would cost them speed (vLLM, servers); all others draw as with seed 0.
        grader: decides which answers are equal; by default that of recorded answers, else one with a worker process of
            its own.
        config: how requests are sent.
        calibration: of this pair, or its directory, by which budgets are allocated; None for a rough prior.
        allow_mismatch: use a calibration that was fitted for another pair, with a warning.
        rule: in place of a calibration, a published rule of :mod:`adaptive_ttc.stopping` that says when to stop, and
            which problem is sampled next: a name such as ``adaptive_consistency`` or ``cite:level=0.99``.
        verify: a check of answers that may be used while solving, such as tests of a program: called with the problem
            and an answer, it says True, False or None (not known), and may be async. A verified answer settles its
            problem with confidence 1, a refuted one has no vote, and pools learn from both; a check that raises, or
            takes more than 10 seconds, says None.
        answers: what answers are, where a problem does not say: a space's name such as ``number``, ``choice`` or
            ``json:result`` (docs/answers.md), or an :class:`~adaptive_ttc.answers.AnswerSpace`; the grader's own, which
            is ``math``, by default.
        defaults: arguments of :meth:`solve` for calls that do not give them, and for those of :meth:`solve_many` all
            that say how samples are drawn and voted on.

    Raises:
        ConfigError: no such rule, or one beside a calibration; no such answer space; models that are not loaded;
            impossible defaults.
        CalibrationError: it is no calibration, or one of another pair.
    """

    def __init__(
        self,
        policy: Policy,
        prm: RewardModel | None = None,
        *,
        seed: int | None = None,
        grader: Grader | None = None,
        config: DriverConfig | None = None,
        calibration: Calibrated | str | Path | None = None,
        allow_mismatch: bool = False,
        rule: StoppingRule | str | None = None,
        verify: Verify | None = None,
        answers: str | AnswerSpace | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        check_models(policy, prm)
        self._calibration = SelectedCalibration(calibration, policy, prm, allow_mismatch=allow_mismatch, rule=rule)
        self.policy, self.prm = policy, prm
        self.seed, self.verify = seed, verify
        self.defaults = dict(defaults or {})
        check_defaults(self.defaults, prm=prm is not None)
        self.grader: Grader = grader or getattr(policy, "grader", None) or Grader()
        if answers is not None:
            self.grader = self.grader.with_space(space_of(answers))
        self._config, self._unread = config or DriverConfig(), Unread()
        self._policy_meter, self._prm_meter = CallMeter("policy"), CallMeter("PRM")
        self._affinity = LoopAffinity("this solver")
        self._runner: asyncio.Runner | None = None
        self._turn = threading.Lock()

    async def solve(
        self,
        problem: str | Sequence[Mapping[str, str]] | Problem,
        *,
        budget_tokens: int | None = None,
        strategy: str | Strategy | None = None,
        n: int | None = None,
        beam_width: int | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        count: str | None = None,
        seed: int | None = None,
        id: str | None = None,
        deadline: float | None = None,
        stop: anyio.Event | None = None,
        min_gain: float | None = None,
        max_rounds: int | None = None,
        **options: Any,
    ) -> Solution:
        """Solve one problem within a budget.

        With neither a strategy nor ``n``, evidence decides what the budget is spent on, slice by slice, by the
        calibration's estimate of what more work gains; it ends where nothing is worth its cost. With ``n`` alone it is
        weighted best-of-N (majority without a PRM).

        Args:
            problem: a question, or chat messages that end with the user's.
            budget_tokens: most that may be spent, in the unit of ``count``; None (no limit) needs a strategy or ``n``.
            strategy: its name, or a configured one.
            n: samples or beams.
            beam_width: children per kept beam; ``n`` is a multiple of it.
            temperature: 0.8 by default; 0 is greedy.
            max_tokens: most tokens of one solution, 2048 by default.
            count: what the budget bounds: ``generated`` tokens (the default), ``generated+prm`` tokens, or ``flops``.
            seed: in place of the solver's.
            id: names the problem in seeds and traces; by default a hash of its text.
            deadline: seconds after which sampling stops; the best answer so far comes when scores under way are in.
            stop: the same when the caller sets it; several calls may share one.
            min_gain: where evidence decides, least gain in the probability of a right answer per 1,000 units that buys
                work; 0 buys whatever is expected to gain. By default 0.001 for what a first solution costs.
            max_rounds: where evidence decides, most slices one after the other, the opening included: the fewer are
                left, the more is drawn at once. A deadline does the same, by how long slices take.
            **options: further fields of the strategy, such as ``top_p``, ``agg_strategy``, ``vote``.

        Raises:
            ConfigError: at once, before any engine is called, when the request is impossible.
            EngineError: an engine failed for good; everything sampled was counted.
        """
        given = {"budget_tokens": budget_tokens, "count": count, "strategy": strategy, "deadline": deadline}
        given |= {"n": n, "beam_width": beam_width, "temperature": temperature, "max_tokens": max_tokens}
        given |= {"min_gain": min_gain, "max_rounds": max_rounds, "seed": seed, **options}
        return await self._checked(problem, id, given)(Signal(), None).solve(until=stop)

    def stream(
        self,
        problem: str | Sequence[Mapping[str, str]] | Problem,
        *,
        budget_tokens: int | None = None,
        strategy: str | Strategy | None = None,
        count: str | None = None,
        seed: int | None = None,
        id: str | None = None,
        deadline: float | None = None,
        min_gain: float | None = None,
        max_rounds: int | None = None,
        **options: Any,
    ) -> SolutionStream:
        """Solve one problem and stream its events; takes the arguments of :meth:`solve`, refuses at once as well.

        ::

            async for event in solver.stream(problem, budget_tokens=2000):
                ...
        """
        given = {"budget_tokens": budget_tokens, "count": count, "strategy": strategy, "deadline": deadline}
        given |= {"min_gain": min_gain, "max_rounds": max_rounds, "seed": seed, **options}
        return SolutionStream(self._checked(problem, id, given), self.grader)

    def solve_many(
        self,
        problems: Iterable[Question] | AsyncIterable[Question],
        *,
        budget_tokens: int,
        max_concurrency: int = 32,
        priority: Priority | None = None,
        per_problem_max: int | None = None,
        expected: int = 0,
        deadline: float | None = None,
        min_gain: float | None = None,
        max_rounds: int | None = None,
        count: str | None = None,
        seed: int | None = None,
        checkpoint: str | Path | None = None,
        keep_traces: bool = True,
        progress: bool = False,
        **options: Any,
    ) -> SolutionPool:
        """Solve many problems from one budget, which is spent where it is expected to gain most.

        Loop over the pool for solutions as they settle, or await it for all of them, see :class:`SolutionPool`. Every
        problem that has arrived gets its first solution before any gets more. One whose engine calls fail, or that
        these models cannot be asked, comes back with :attr:`~adaptive_ttc.solution.Solution.error`; what it did not
        spend goes to the others. A sample depends on the seed and its problem alone; which samples are drawn depends on
        the order in which slices come back, so that two runs of one seed may differ.

        Args:
            problems: questions, chats or problems; a list, or an async source that may still be producing, of which
                ``max_concurrency`` at most are open at once.
            budget_tokens: most that may be spent on all of them together, in the unit of ``count``.
            max_concurrency: slices at work at once.
            priority: problem -> how much a right answer to it counts, above 0; all alike by default.
            per_problem_max: most that may be spent on one of them.
            expected: problems that an async source will bring, so that some of the budget is kept for late ones; not
                for a source that waits for a solution before it brings the next problem.
            deadline, min_gain, max_rounds, count, seed: as for :meth:`solve`; every problem settles at the deadline.
            checkpoint: a file from which the same call goes on within the one budget; slices that a crash cut are
                charged with all that they may have spent.
            keep_traces: False empties the trace of every solution, which is most of its memory.
            progress: a bar in a terminal or notebook, elsewhere a line every 30 seconds.
            **options: how samples are drawn and voted on: ``temperature``, ``max_tokens``, ``top_p``, ``vote``, ...

        Raises:
            ConfigError: at once, when the request is impossible; where ``problems`` is a list, also when one is empty.
            CheckpointError: at once, when the checkpoint is of another call, damaged, in use, or cannot be written.
        """
        options |= {"count": count, "seed": seed, "min_gain": min_gain, "max_rounds": max_rounds}
        given, asked = split(with_defaults(of_pools(self.defaults), options))
        asked = {"seed": self.seed, **asked, "budget": budget_tokens, "deadline": deadline, "expected": expected}
        asked |= {"max_concurrency": max_concurrency, "priority": priority, "per_problem_max": per_problem_max}
        request = make_pool_request(self.resources, options=given, **asked)
        problems = check_several(problems)
        listed = problems if isinstance(problems, Sequence) else ()
        spaces = {space_of(Problem.of(one).answers, request.answers).name for one in listed} or {request.answers.name}
        calibrated = self._calibration.calibrated(request.strategy.max_tokens, spaces)
        request = with_vote_of(request, calibrated, given, prm=self.prm is not None)
        kept: dict[str, Any] = {"checkpoint": checkpoint, "keep_traces": keep_traces}
        kept["tokens"] = (lambda: self._policy_meter.statistics().tokens) if progress else None
        return SolutionPool(problems, request, self.resources, calibrated, **kept)

    @property
    def resources(self) -> Resources:
        """The models, the grader, how requests are sent and the check of answers, as they are now."""
        policy = MeteredPolicy(self.policy, self._policy_meter)
        prm = None if self.prm is None else MeteredPRM(self.prm, self._prm_meter, self._policy_meter)
        own: dict[str, Any] = {"config": self._config, "verify": self.verify, "unread": self._unread}
        own["affinity"] = self._affinity
        return Resources(policy=policy, prm=prm, grader=self.grader, **own)

    def statistics(self) -> SolverStatistics:
        """Calls in flight, how many failed, and what the grader does; :func:`adaptive_ttc.prometheus` renders them."""
        return SolverStatistics(
            policy=self._policy_meter.statistics(),
            prm=None if self.prm is None else self._prm_meter.statistics(),
            grader=self.grader.statistics(),
        )

    def _checked(self, problem: Question, id: str | None, given: Mapping[str, Any]) -> Begin:
        """Check a request; returns a function that makes its run, given a stop event and a listener."""
        resources = self.resources
        options, asked = split(with_defaults(self.defaults, given))
        budget = asked.pop("budget_tokens", None)
        request = make_request(
            Problem.of(problem, id), resources, options=options, **{"seed": self.seed, "budget": budget, **asked}
        )
        if not isinstance(request.strategy, Adaptive):
            return partial(Run, request, resources)
        calibrated = self._calibration.calibrated(request.strategy.max_tokens, {request.answers.name})
        request = with_vote_of(request, calibrated, options, prm=self.prm is not None)
        return partial(AdaptiveRun, request, resources, calibrated)

    def solve_sync(self, problem: str | Sequence[Mapping[str, str]] | Problem, **arguments: Any) -> Solution:
        """:meth:`solve` for code without an event loop (ConfigError where one runs); takes the same arguments."""
        refuse_running_loop("solve_sync", "await solver.solve(...)")
        return self._here(self.solve(problem, **arguments))

    def solve_many_sync(self, problems: Iterable[Question], **arguments: Any) -> list[Solution]:
        """:meth:`solve_many` for code without an event loop (ConfigError where one runs): all solutions, in the order
        of the problems; takes the same arguments.
        """
        refuse_running_loop("solve_many_sync", "await solver.solve_many(...)")

        async def every_one() -> list[Solution]:
            return await self.solve_many(problems, **arguments)

        return self._here(every_one())

    def _here(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run it in the event loop that the calls of this kind share."""
        with closing(work):
            self._affinity.check_process()
            with self._turn:
                self._runner = self._runner or asyncio.Runner()
                return self._runner.run(work)

    async def aclose(self) -> None:
        """Close policy, PRM and grader; in a fork of the process that made the solver there is nothing to close."""
        if self._affinity.forked:
            return
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.grader.aclose)
            if self.prm is not None:
                stack.push_async_callback(self.prm.aclose)
            stack.push_async_callback(self.policy.aclose)

    def close(self) -> None:
        """:meth:`aclose` for code without an event loop (ConfigError where one runs)."""
        refuse_running_loop("close", "await solver.aclose()")
        if self._affinity.forked:
            return
        with self._turn, self._runner or asyncio.Runner() as runner:
            self._runner = None
            runner.run(self.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
