"""What adapters have in common: solvers by the name of their pair, and an event loop for callers without one."""

from __future__ import annotations

import atexit
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

from anyio.from_thread import start_blocking_portal

from adaptive_ttc.configuration.defaults import ARGUMENTS
from adaptive_ttc.configuration.recipe import recipe_names
from adaptive_ttc.errors import ConfigError, install_command
from adaptive_ttc.files.names import unknown
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.registry import option_names
from adaptive_ttc.types import Problem

T = TypeVar("T")


def missing(package: str, extra: str) -> type:
    """A stand-in for a class of a package that is not there; ConfigError, with the remedy, where it is made."""

    class Missing:
        def __init__(self, *given: object, **named: object) -> None:
            raise ConfigError(f"this needs {package}, which is not installed: {install_command(extra)}")

    return Missing


class NamedSolver:
    """The solver of a pair, which all of the same name and settings have in common.

    ``mini`` is the embedded pair, a name of a recipe or what ends in ``.toml`` that recipe, anything else a policy, by
    folder or Hub name, with ``prm``, ``engine`` and what else ``Solver.load`` takes among the settings. All other
    settings are ``options``, for ``Solver.solve``; without a budget, strategy or n there, in the recipe or the call, an
    answer is one sample. It is closed at the process's end, or by :meth:`aclose`, after which it is loaded anew if it
    is needed again.

    Errors are those of ``Solver.load``.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        if name == "mini":
            self._load: Callable[..., Solver] = Solver.mini
        elif name.endswith(".toml") or name in recipe_names():
            self._load = partial(Solver.recipe, name)
        else:
            self._load = partial(Solver.load, name)
        known = {*inspect.signature(self._load).parameters}
        if name != "mini":
            known |= {*inspect.signature(Solver.load).parameters} - {"policy"}
        self._settings = {key: value for key, value in settings.items() if key in known}
        self._key = f"{name} {sorted(self._settings.items())}"
        self.options = {key: value for key, value in settings.items() if key not in known}
        if foreign := unknown(self.options, {*ARGUMENTS, *option_names(), *(known - {"settings"})}):
            raise ConfigError(f"{name} takes no {foreign}: it takes arguments of Solver.load and of Solver.solve")
        self._repeated = Counter[str]()
        _ = self.solver  # what cannot be loaded is told at once

    @property
    def solver(self) -> Solver:
        """The solver, loaded if it is not."""
        if self._key not in _LOADED:
            _LOADED[self._key] = self._load(**self._settings)
            atexit.register(_LOADED[self._key].close)
        return _LOADED[self._key]

    def single(self, given: Mapping[str, Any]) -> bool:
        """Whether a call that gives these arguments gets one sample."""
        return not {"budget_tokens", "strategy", "n"} & {*self.solver.defaults, *self.options, *given}

    async def solve(self, asked: str | list[dict[str, str]], given: Mapping[str, Any]) -> Solution:
        """Solve what is asked; ``given`` goes before ``options``. Errors are those of ``Solver.solve``."""
        sample = {"strategy": "majority", "n": 1} if self.single(given) else {}
        return await self.solver.solve(self.problem(asked), **{**sample, **self.options, **given})

    def problem(self, asked: str | list[dict[str, str]]) -> Problem:
        """A problem, whose name says how often it was asked before, so that its samples are drawn anew."""
        problem = Problem.of(asked)
        copy = self._repeated[problem.id]
        self._repeated[problem.id] += 1
        return Problem.of(problem, f"{problem.id}-{copy}") if copy else problem

    async def aclose(self) -> None:
        """Close the solver."""
        if (solver := _LOADED.pop(self._key, None)) is not None:
            atexit.unregister(solver.close)
            await solver.aclose()


_LOADED: dict[str, Solver] = {}


class LoopThread:
    """An event loop in a thread of its own, for code that has none; it ends with the process, or at :meth:`close`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        atexit.register(self.close)

    def run(self, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """What an async call returns; the caller waits for it."""
        return self._portal.call(call, *arguments)

    def at_end(self, call: Callable[[], Awaitable[object]]) -> None:
        """Call this before the loop ends."""
        self._stack.callback(self.run, call)

    def close(self) -> None:
        """End the loop; a second time does nothing."""
        atexit.unregister(self.close)
        self._stack.close()
