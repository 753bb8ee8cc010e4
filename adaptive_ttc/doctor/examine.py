"""All checks of a pair or a cascade, one after the other."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.doctor import model_checks, policy_checks, prm_checks
from adaptive_ttc.doctor.check import Check
from adaptive_ttc.errors import AdaptiveTTCError, AnswerWarning, see
from adaptive_ttc.evaluation.datasets import Row, problem_of
from adaptive_ttc.evaluation.evaluate import grader_of
from adaptive_ttc.policy import second_policy
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.base import StoppingRule
from adaptive_ttc.types import Usage

Look = Callable[[], Coroutine[Any, Any, Check | None]]


async def examine(
    solver: Solver,
    rows: Sequence[Row],
    *,
    samples: int = 4,
    max_tokens: int = 512,
    calibration: str | Path | None = None,
    rule: StoppingRule | None = None,
    allow_mismatch: bool = False,
) -> AsyncIterator[Check]:
    """Check a pair, or a cascade, whose second policy's checks are named ``second: ...``; each is told as soon as it is
    done.

    Args:
        solver: with the models.
        rows: problems, with right answers where they are known.
        samples: drawn for each problem by each policy.
        max_tokens: most tokens of a sample.
        calibration: the folder that is to fit the models; None: there is none.
        rule: what allocates budgets in its place.
        allow_mismatch: whether a calibration of other models is a warning and no fault.

    A check that the models fail altogether, such as a server that is not there, is a fault with what was said, and ends
    those that build on it.
    """
    if solver.prm is not None:
        for name, look in (("PRM cache", prm_checks.check_prm_cache), ("PRM scores", prm_checks.check_scores)):
            if (one := await _told(name, partial(look, solver.prm))) is not None:  # before samples are read
                yield one
    parts = {"": solver}
    if (second := second_policy(solver.policy)) is not None:
        own: dict[str, Any] = {"grader": solver.grader, "config": solver.resources.config, "seed": solver.seed}
        parts["second: "] = Solver(second, solver.prm, **own)
    found: list[dict[str, Check]] = []
    for whose, part in parts.items():
        found.append({})
        async for check in _of_policy(part, rows, samples, max_tokens):
            found[-1][check.name] = check
            yield replace(check, name=whose + check.name)
    if not all("speed" in checks for checks in found):
        return
    if second is not None:
        yield model_checks.check_cascade(solver.policy, *found)
    yield model_checks.check_memory()
    spaces = {space_of(row.get("answers"), solver.grader.space).name for row in rows}
    yield model_checks.check_calibration(solver, calibration, rule, spaces, allow_mismatch=allow_mismatch)


async def _of_policy(solver: Solver, rows: Sequence[Row], samples: int, max_tokens: int) -> AsyncIterator[Check]:
    """The checks of one policy, cheap ones first; ``speed`` is the last, and there where it drew samples."""
    template = _template(solver, rows[0])
    yield template
    if template.status == "fault":
        return
    drawn, failed = await _drawn(solver, rows, samples, max_tokens)
    if failed is not None:
        yield failed
    if drawn is None:
        return
    yield policy_checks.check_steps(drawn)
    yield policy_checks.check_answers(drawn, solver.grader.space)
    yield policy_checks.check_ends(drawn)
    looks: dict[str, Look] = {}
    if solver.prm is not None:
        looks["PRM polarity"] = partial(prm_checks.check_polarity, solver.prm, drawn)
    looks["prefix cache"] = partial(policy_checks.check_prefix_cache, solver, problem_of(rows[0]))
    for name, look in looks.items():
        if (one := await _told(name, look)) is not None:
            yield one
    yield policy_checks.check_speed(drawn)


async def _drawn(
    solver: Solver, rows: Sequence[Row], samples: int, max_tokens: int
) -> tuple[policy_checks.Samples | None, Check | None]:
    """Samples, without scores where the PRM alone fails; and the fault of what fails."""
    asked = {"samples": samples, "max_tokens": max_tokens}
    try:
        return await draw(solver, rows, scored=solver.prm is not None, **asked), None
    except AdaptiveTTCError as error:
        first = error
    if solver.prm is not None:
        with suppress(AdaptiveTTCError):
            drawn = await draw(solver, rows, scored=False, **asked)
            return drawn, Check(name="PRM", status="fault", found=str(first), remedy=f"see {see('prms.md')}")
    return None, Check(name="samples", status="fault", found=str(first), remedy=f"see {see('models.md#servers')}")


async def draw(
    solver: Solver, rows: Sequence[Row], *, samples: int, max_tokens: int, scored: bool
) -> policy_checks.Samples:
    """Draw samples of all problems side by side. Raises what the engines raise."""
    strategy = "weighted_best_of_n" if scored else "majority"
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnswerWarning)  # a check says the same
        asked = (solver.solve(problem_of(row), strategy=strategy, n=samples, max_tokens=max_tokens) for row in rows)
        solutions = await asyncio.gather(*asked)
    seconds = time.monotonic() - begun
    right: list[list[bool | None]] = []
    for row, solution in zip(rows, solutions, strict=True):
        grader, gold = grader_of(solver, row), row.get("answer")
        known = [None if gold is None else await grader.equal(gold, one.answer) for one in solution.candidates]
        right.append(known)
    return policy_checks.Samples(
        candidates=[solution.candidates for solution in solutions],
        right=right,
        usage=reduce(add, (solution.usage for solution in solutions), Usage()),
        seconds=seconds,
        max_tokens=max_tokens,
    )


def _template(solver: Solver, row: Row) -> Check:
    try:
        return policy_checks.check_template(solver.policy, problem_of(row))
    except AdaptiveTTCError as error:
        return Check(name="chat template", status="fault", found=str(error))


async def _told(name: str, look: Look) -> Check | None:
    """What a check finds; a fault where the models fail it altogether."""
    try:
        return await look()
    except AdaptiveTTCError as error:
        return Check(name=name, status="fault", found=str(error), remedy=f"see {see('models.md')}")
