"""From a problem to its solution: the models, the ways to ask, the way to close; the work is :mod:`adaptive_ttc.run`'s.

It knows no model and no gold answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from adaptive_ttc.engines import DriverConfig
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.grading import Grader
from adaptive_ttc.loading import MINI_FINISH_TOKENS, MINI_POLICY, MINI_PRM, load_policy
from adaptive_ttc.plan import Wish, make_plan
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run import Run
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import Strategy
from adaptive_ttc.stream import SolutionStream
from adaptive_ttc.types import Problem


class Solver:
    """Solves verifiable problems with a policy and, optionally, a process reward model.

    Any number of ``solve`` calls may run at once: the engines batch across them. A solver closes what
    it was given at :meth:`aclose`; use it as an async context manager, or as a plain one with
    :meth:`solve_sync`.

    Args:
        policy: writes solutions.
        prm: scores them; needed by every strategy but greedy and majority.
        seed: of all randomness; each ``solve`` may have its own.
        grader: decides which answers are equal; by default one with a worker process of its own.
        config: how requests are sent.
    """

    def __init__(
        self,
        policy: Policy,
        prm: RewardModel | None = None,
        *,
        seed: int = 0,
        grader: Grader | None = None,
        config: DriverConfig | None = None,
    ) -> None:
        self.policy = policy
        self.prm = prm
        self.seed = seed
        self.grader = grader or Grader()
        self._config = config or DriverConfig()
        self._runner: asyncio.Runner | None = None
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls,
        policy: str | Path,
        prm: str | Path | None = None,
        *,
        engine: str = "transformers",
        policy_settings: Mapping[str, Any] | None = None,
        prm_settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        config: DriverConfig | None = None,
    ) -> Self:
        """Load a pair of models by folder or Hub name.

        Args:
            policy: the policy's folder or name.
            prm: the PRM's folder or name.
            engine: what runs the policy, an entry point of the group ``adaptive_ttc.policies``.
            policy_settings: passed to the engine: ``device``, ``dtype``, ``max_batch``, ...
            prm_settings: passed to :func:`adaptive_ttc.prm.load_prm`.
            seed: of all randomness.
            config: how requests are sent.

        Raises:
            ConfigError: no such engine or reader, or a model cannot be loaded.
        """
        from adaptive_ttc.prm import load_prm

        reward_model = None if prm is None else load_prm(prm, **(prm_settings or {}))
        loaded = load_policy(policy, engine=engine, **(policy_settings or {}))
        return cls(loaded, reward_model, seed=seed, config=config)

    @classmethod
    def mini(cls, *, seed: int = 0) -> Self:
        """The embedded default: the tiny policy and PRM that come with the package."""
        # Nearly all of its solutions are shorter, so a tight budget need not keep the worst case for the last one.
        return cls.load(MINI_POLICY, MINI_PRM, seed=seed, config=DriverConfig(finish_tokens=MINI_FINISH_TOKENS))

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
        count: str = "generated",
        seed: int | None = None,
        id: str | None = None,
        deadline: float | None = None,
        stop: anyio.Event | None = None,
        **options: Any,
    ) -> Solution:
        """Solve one problem within a budget.

        With no strategy named it is weighted best-of-N (majority without a PRM), and with no ``n``
        either, as many samples as the budget is expected to finish.

        Args:
            problem: a question, or chat messages that end with the user's.
            budget_tokens: most that may be spent, in the unit of ``count``; None for no limit, which
                needs a strategy or ``n``.
            strategy: its name, or a configured one.
            n: samples or beams.
            beam_width: children per kept beam; ``n`` is a multiple of it.
            temperature: 0.8 by default; 0 is greedy.
            max_tokens: most tokens of one solution, 2048 by default.
            count: what the budget bounds: ``generated`` tokens, ``generated+prm`` tokens, or ``flops``.
            seed: in place of the solver's.
            id: names the problem in seeds and traces; by default a hash of its text.
            deadline: seconds after which sampling is stopped and the best answer so far returned;
                scores under way and the vote are still waited for.
            stop: the same when the caller sets it; several calls may share one.
            **options: further fields of the strategy, such as ``top_p``, ``agg_strategy``, ``vote``.

        Raises:
            ConfigError: at once, before any engine is called, when the request is impossible.
            EngineError: an engine failed for good; everything sampled was counted.
        """
        given = {"n": n, "beam_width": beam_width, "temperature": temperature, "max_tokens": max_tokens, **options}
        begin = self._ready(problem, given, budget_tokens, count, strategy, seed, id, deadline)
        return await begin(stop=anyio.Event()).solve(self.grader, deadline, until=stop)

    def stream(
        self,
        problem: str | Sequence[Mapping[str, str]] | Problem,
        *,
        budget_tokens: int | None = None,
        strategy: str | Strategy | None = None,
        count: str = "generated",
        seed: int | None = None,
        id: str | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> SolutionStream:
        """Solve one problem and tell what happens meanwhile; takes the arguments of :meth:`solve`.

        ::

            async for event in solver.stream(problem, budget_tokens=2000):
                ...

        Raises:
            ConfigError: at once, when the request is impossible.
        """
        begin = self._ready(problem, options, budget_tokens, count, strategy, seed, id, deadline)
        return SolutionStream(begin, self.grader, deadline)

    def _ready(
        self,
        problem: str | Sequence[Mapping[str, str]] | Problem,
        options: Mapping[str, Any],
        budget: int | None,
        count: str,
        strategy: str | Strategy | None,
        seed: int | None,
        id: str | None,
        deadline: float | None,
    ) -> Callable[..., Run]:
        """Check a request; what begins it."""
        if deadline is not None and not deadline >= 0:
            raise ConfigError(f"deadline is a number of seconds of at least 0; got {deadline}")
        given = {key: value for key, value in options.items() if value is not None}
        wish = Wish(budget=budget, count=count, strategy=strategy, options=given)
        plan = make_plan(Problem.of(problem, id), self.policy, self.prm, wish)
        seed = self.seed if seed is None else seed
        return partial(Run, plan, self.policy, self.prm, seed=seed, config=self._config)

    def solve_sync(self, problem: str | Sequence[Mapping[str, str]] | Problem, **arguments: Any) -> Solution:
        """:meth:`solve` for code without an event loop; takes the same arguments.

        Raises:
            ConfigError: an event loop runs in this thread already.
        """
        _refuse_running_loop("solve_sync", "await solver.solve(...)")
        with self._turn:
            self._runner = self._runner or asyncio.Runner()
            return self._runner.run(self.solve(problem, **arguments))

    async def aclose(self) -> None:
        """Close policy, PRM and grader."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.grader.aclose)
            if self.prm is not None:
                stack.push_async_callback(self.prm.aclose)
            stack.push_async_callback(self.policy.aclose)

    def close(self) -> None:
        """:meth:`aclose` for code without an event loop.

        Raises:
            ConfigError: an event loop runs in this thread already.
        """
        _refuse_running_loop("close", "await solver.aclose()")
        with self._turn, self._runner or asyncio.Runner() as runner:
            self._runner = None
            runner.run(self.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_running_loop(name: str, remedy: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(f"{name} cannot be called where an event loop runs: {remedy}")
