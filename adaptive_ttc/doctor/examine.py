"""All checks of a pair, one after the other, cheap ones first."""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, cast

from adaptive_ttc.doctor import policy_checks, prm_checks
from adaptive_ttc.doctor.check import Check, Status, judged
from adaptive_ttc.errors import AdaptiveTTCError, AnswerWarning, see
from adaptive_ttc.estimate.artefact import Calibrated, mismatch_of
from adaptive_ttc.evaluation.datasets import Row, problem_of
from adaptive_ttc.evaluation.evaluate import grader_of
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Usage

FULL = 0.03  # of a GPU's memory: where less is free, the next longer text may not fit

Look = Callable[[], Coroutine[Any, Any, Check | None]]


async def examine(
    solver: Solver,
    rows: Sequence[Row],
    *,
    samples: int = 4,
    max_tokens: int = 512,
    calibration: str | Path | None = None,
) -> AsyncIterator[Check]:
    """Check a pair; each check is told as soon as it is done.

    Args:
        solver: with the pair.
        rows: problems, with right answers where they are known.
        samples: drawn for each problem.
        max_tokens: most tokens of a sample.
        calibration: the folder that is to fit the pair; None: there is none.

    A check that the models fail altogether, such as a server that is not there, is a fault with what was said, and ends
    those that build on it.
    """
    prm = solver.prm
    template = _template(solver, rows[0])
    yield template
    if template.status == "fault":
        return
    drawn, failed = await _drawn(solver, rows, samples, max_tokens)
    if failed is not None:
        yield failed
    if drawn is None:
        return
    space = solver.grader.space
    for check in (
        policy_checks.check_steps,
        partial(policy_checks.check_answers, space=space),
        policy_checks.check_ends,
    ):
        yield check(drawn)
    if prm is not None:
        looks: dict[str, Look] = {
            "PRM cache": partial(prm_checks.check_prm_cache, prm),  # before the others read the same
            "PRM scores": partial(prm_checks.check_scores, prm),
            "PRM polarity": partial(prm_checks.check_polarity, prm, drawn),
        }
        for name, look in looks.items():
            if (one := await _told(name, look)) is not None:
                yield one
    cache = partial(policy_checks.check_prefix_cache, solver, problem_of(rows[0]))
    if (one := await _told("prefix cache", cache)) is not None:
        yield one
    yield policy_checks.check_speed(drawn)
    yield check_memory()
    yield check_calibration(solver, calibration)


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


def check_memory() -> Check:
    """What this process takes, and what is free of the GPU that it uses."""
    figures: dict[str, float] = {}
    told, status = [], "ok"
    try:
        import resource
    except ImportError:  # no Unix
        pass
    else:
        scale = 1 if sys.platform == "darwin" else 1024
        figures["process_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30
        told.append(f"this process took {figures['process_gib']:.1f} GiB at most")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
        figures |= {"gpu_free_gib": free, "gpu_gib": total}
        told.append(f"{free:.1f} of {total:.1f} GiB of the GPU are free")
        status = "warning" if free < FULL * total else "ok"
    where = see("prms.md#memory-policy-and-prm-on-one-gpu")
    remedy = f"lower max_batch, max_model_len or gpu_memory_utilization {where}"
    return judged("memory", cast(Status, status), "; ".join(told) or "not known here", remedy, figures)


def check_calibration(solver: Solver, folder: str | Path | None) -> Check:
    """Whether the calibration is there, whole, and of this pair."""
    name = "calibration"
    if folder is None:
        if solver.prm is not None and traits_of(solver.prm).free:
            what = "none: agreement among samples decides, and confidence has no part in it"
        else:
            what = "none: a budget alone is allocated by agreement among samples, under a prior of other models"
        remedy = f"fit one: adaptive-ttc calibrate, with the same models {see('calibrating.md')}"
        return Check(name=name, status="warning", found=what, remedy=remedy)
    try:
        foreign = mismatch_of(Calibrated.load(folder).meta, solver.policy, solver.prm)
    except AdaptiveTTCError as error:
        return Check(name=name, status="fault", found=str(error), remedy=f"fit it anew {see('calibrating.md')}")
    if foreign:
        remedy = f"fit one for this pair {see('calibrating.md')}"
        return Check(name=name, status="fault", found=f"{folder}: {foreign}", remedy=remedy)
    return Check(name=name, status="ok", found=f"{folder} is of this pair")
