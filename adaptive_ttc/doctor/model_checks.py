"""Checks of the models together: what a cascade's second policy is worth, memory, the calibration's fit."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from adaptive_ttc.doctor.check import Check, Status, judged
from adaptive_ttc.errors import AdaptiveTTCError, CalibrationWarning, see
from adaptive_ttc.estimate.pair_calibration import SelectedCalibration
from adaptive_ttc.policy import Policy, default_weight, second_policy, second_weight
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.base import StoppingRule
from adaptive_ttc.strategies.base import Strategy

FULL = 0.03  # of a GPU's memory: where less is free, the next longer text may not fit


def check_cascade(policy: Policy, first: Mapping[str, Check], second: Mapping[str, Check]) -> Check:
    """Whether the second policy of a cascade can be worth its price, from the checks of both policies by name."""
    other = second_policy(policy)
    assert other is not None
    weight, usual = second_weight(policy), default_weight(policy.parameters, other.parameters)
    slower = first["speed"].figures["tokens_per_second"] / max(second["speed"].figures["tokens_per_second"], 1e-9)
    figures = {"weight": weight, "times_as_slow": slower}
    found = f"a token of {other.name} counts {weight:.3g} of the first policy's"
    if usual not in (None, weight):
        found += f", where the ratio of the parameters is {usual:.3g}"
    found += f"; its samples came {slower:.1f} times as slowly"
    mine, its = (checks["answers"].figures.get("right") for checks in (first, second))
    if mine is not None and its is not None:
        figures |= {"right": mine, "second_right": its}
        found += f"; {its:.0%} of them are right, {mine:.0%} of the first policy's"
    status: Status = "warning"
    if usual is not None and policy.parameters >= other.parameters:
        remedy = "the second policy is no larger than the first: name the smaller one as --policy"
    elif mine is not None and its is not None and its < mine:
        remedy = (
            "the second policy was right less often than the first: check both on problems of your own (--dataset FILE "
            "--samples 16), mend what its own checks say, or leave --second out"
        )
    else:
        status, remedy = "ok", ""
    return judged("cascade", status, found, f"{remedy} {see('cascades.md')}", figures)


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


def check_calibration(
    solver: Solver,
    folder: str | Path | None,
    rule: StoppingRule | None,
    answers: Iterable[str],
    *,
    allow_mismatch: bool = False,
) -> Check:
    """Whether the calibration is there, whole, and of these models; ``answers`` names the problems' answer spaces.

    One of other models is a fault, or where it is allowed a warning.
    """
    name, where = "calibration", see("calibrating.md")
    refit = f"fit one for these models {where}"
    try:
        selected = SelectedCalibration(folder, solver.policy, solver.prm, rule=rule, allow_mismatch=allow_mismatch)
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always", CalibrationWarning)
            if folder is not None:
                selected.calibrated(Strategy.max_tokens, answers)
    except AdaptiveTTCError as error:
        found = str(error) if folder is None else f"{folder}: {error}"
        return Check(name=name, status="fault", found=found, remedy=refit)
    if doubts:
        found = f"{folder}: {doubts[0].message}"
        return Check(name=name, status="warning", found=found, remedy=refit)
    if rule is not None:
        return Check(name=name, status="ok", found=f"none, as the rule {rule.name} allocates budgets")
    if folder is not None:
        return Check(name=name, status="ok", found=f"{folder} is of these models")
    if solver.prm is not None and traits_of(solver.prm).free:
        found = "none: agreement among samples decides, and confidence has no part in it"
    else:
        found = "none: a budget alone is allocated by agreement among samples, under a prior of other models"
    remedy = f"fit one: adaptive-ttc calibrate, with the same models {where}"
    return Check(name=name, status="warning", found=found, remedy=remedy)
