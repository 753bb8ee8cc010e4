"""Which calibration a pair of models is used with: its own, another's where that is allowed, or the prior."""

from __future__ import annotations

import warnings
from pathlib import Path

from adaptive_ttc.errors import CalibrationError, CalibrationWarning
from adaptive_ttc.estimate.artefact import Calibrated, mismatch_of
from adaptive_ttc.estimate.prior import prior_of
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel


class SelectedCalibration:
    """The calibration that a pair of models is used with, or a rough prior.

    A calibration of another pair is refused, or with ``allow_mismatch`` warned about. CalibrationError: it is no
    calibration, its files are damaged, or it is one of another pair.
    """

    def __init__(
        self,
        calibration: Calibrated | str | Path | None,
        policy: Policy,
        prm: RewardModel | None,
        *,
        allow_mismatch: bool = False,
    ) -> None:
        models = f"--policy {policy.name}" + (f" --prm {prm.name}" if prm else "")
        remedy = f"python -m adaptive_ttc.calibration.fit {models}"
        self._prm = prm is not None
        self._warning = (
            "this pair has no calibration: budgets are allocated by a rough prior from published findings on other "
            f"models. Calibrate it: {remedy}"
        )
        self._calibrated: Calibrated | None = None
        if calibration is None:
            return
        self._calibrated = calibration if isinstance(calibration, Calibrated) else Calibrated.load(calibration)
        meta = self._calibrated.meta
        foreign = mismatch_of(meta, policy, prm) if meta else None
        self._warning = (
            f"the calibration may not hold here: {foreign}. Make one for this pair: {remedy}" if foreign else ""
        )
        if foreign and not allow_mismatch:
            raise CalibrationError(
                f"the calibration is of no use here: {foreign}. Make one for this pair ({remedy}), or use this one "
                "nevertheless with allow_mismatch=True (--allow-mismatch)"
            )

    def calibrated(self, max_tokens: int) -> Calibrated:
        """The calibration, or a prior for this ``max_tokens``; warns once where it is not the pair's own."""
        if self._warning:
            message, self._warning = self._warning, ""
            warnings.warn(message, CalibrationWarning, stacklevel=4)
        return self._calibrated or prior_of(max_tokens, prm=self._prm)
