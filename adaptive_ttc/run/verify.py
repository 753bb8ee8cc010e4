"""A caller's own check of answers: every answer of a problem is asked about once, and no failure costs more than that.

A verdict is True (the answer is right), False (it is not) or None (not known). It is for checks that a solver may use:
tests of a program, a proof checker, a substitution; never for right answers that are to be measured against.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import anyio

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.errors import Line, VerifyWarning, warn
from adaptive_ttc.tasks import Signal, side_by_side
from adaptive_ttc.types import Candidate, Problem

Verdict = bool | None
Verify = Callable[[Problem, str], Verdict | Awaitable[Verdict]]
"""(problem, answer in canonical form) -> verdict; a plain function runs in a thread of its own."""

PATIENCE = 10.0  # seconds after which a verdict is None


def verify_of(space: AnswerSpace) -> Verify | None:
    """The check of answers that a space brings; None for a space without one."""
    if type(space).verify is AnswerSpace.verify:
        return None
    return lambda problem, answer: space.verify(answer, problem)


class Verifier:
    """The verdicts on the answers of one problem.

    Args:
        verify: the caller's check; None: no answer is checked.
        problem: whose answers they are.
        stop: ends the wait for verdicts; those that are missing then are None.
        patience: seconds that a verdict may take.
        line: of the caller, which a warning names.

    Attributes:
        on_verdict: called with every answer that was checked and its verdict; not where the check failed.
    """

    def __init__(
        self,
        verify: Verify | None,
        problem: Problem,
        stop: Signal,
        *,
        patience: float = PATIENCE,
        line: Line | None = None,
    ) -> None:
        self._verify = verify
        self._problem = problem
        self._stop = stop
        self._patience, self._line = patience, line
        self._verdicts: dict[str, Verdict] = {}
        self.on_verdict: Callable[[str, Verdict], None] | None = None

    @property
    def right(self) -> str | None:
        """An answer that was verified, by its class's latest name."""
        return next((answer for answer, verdict in reversed(self._verdicts.items()) if verdict), None)

    def refuted(self, answer: str | None) -> bool:
        """Whether it was found to be wrong."""
        return answer is not None and self._verdicts.get(answer) is False

    def go_on_from(self, verdicts: Mapping[str, Verdict]) -> None:
        """Take up those of an earlier run: none of these answers is asked about again."""
        self._verdicts |= verdicts

    async def ask(self, classes: Mapping[str, str | None]) -> None:
        """Ask about classes of answers, side by side; none once one is verified, or the stop came.

        ``classes``: the class of every answer, which is called after its shortest one; a class gets a new name when a
        shorter answer comes, and is not asked about again.
        """
        self._rename(classes)
        new = {one for one in classes.values() if one is not None and one not in self._verdicts}
        if self._verify is None or not new or self.right is not None or self._stop.is_set():
            return
        self._verdicts |= dict.fromkeys(sorted(new))
        with anyio.CancelScope() as scope:
            with self._stop.calling(scope.cancel):
                async with side_by_side() as asking:
                    for answer in sorted(new):
                        asking.start_soon(self._ask, self._verify, answer)

    def _rename(self, classes: Mapping[str, str | None]) -> None:
        """Give classes the verdicts on those of their answers that they were called after before."""
        known: dict[str, set[Verdict]] = {}
        for answer, name in classes.items():
            if name is not None and name not in self._verdicts and answer in self._verdicts:
                known.setdefault(name, set()).add(self._verdicts[answer])
        self._verdicts |= {
            name: next(one for one in (True, False, None) if one in found) for name, found in sorted(known.items())
        }

    async def checked(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The candidates with the verdicts on their answers."""
        await self.ask({one.answer: one.answer_class for one in candidates if one.answer is not None})
        return tuple(replace(one, verdict=self._verdicts.get(one.answer_class or "")) for one in candidates)

    async def _ask(self, verify: Verify, answer: str) -> None:
        try:
            with anyio.fail_after(self._patience):
                here = inspect.iscoroutinefunction(verify) or inspect.iscoroutinefunction(type(verify).__call__)
                ask = partial(verify, self._problem, answer)
                found = ask() if here else await _in_thread(ask)
                verdict = await found if inspect.isawaitable(found) else found
            if verdict is not None and not isinstance(verdict, bool):
                raise TypeError(f"a verdict is True, False or None; got {verdict!r}")
            self._verdicts[answer] = verdict
        except Exception as error:  # whatever the caller's check does, the problem goes on without its verdict
            said = f"took {self._patience:g} seconds" if isinstance(error, TimeoutError) else f"failed: {error!r}"
            message = f"verify of {answer!r} for problem {self._problem.id!r} {said}: its verdict is None"
            warn(message, VerifyWarning, self._line)
            return
        if self.on_verdict is not None:
            self.on_verdict(answer, verdict)


async def _in_thread(work: Callable[[], object]) -> object:
    """Its result; a thread that never ends is left behind, and keeps no process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()

    def run() -> None:
        found, failed = None, None
        try:
            found = work()
        except BaseException as error:
            failed = error if isinstance(error, Exception) else RuntimeError(repr(error))
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, found, failed)

    def tell(found: object, failed: Exception | None) -> None:
        if done.cancelled():
            return
        if failed is None:
            done.set_result(found)
        else:
            done.set_exception(failed)

    threading.Thread(target=run, name="verify", daemon=True).start()
    return await done
