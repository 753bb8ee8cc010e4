"""Which calibration a pair of models is used with: its own, another's where that is allowed, or the prior."""

from __future__ import annotations

import warnings
from pathlib import Path

from adaptive_ttc.errors import CalibrationError, CalibrationWarning
from adaptive_ttc.estimate.artefact import Calibrated, mismatch_of, read_meta
from adaptive_ttc.estimate.prior import prior_of
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel


class Pairing:
    """A pair's calibration; files are read when it is first used, and checked for the pair at once.

    Args:
        calibration: one, the directory of one, or None for the prior.
        policy, prm: the pair.
        allow_mismatch: warn where it was made for another pair, in place of refusing it.

    Raises:
        CalibrationError: it is no calibration, or one of another pair.
    """

    def __init__(
        self,
        calibration: Calibrated | str | Path | None,
        policy: Policy,
        prm: RewardModel | None,
        *,
        allow_mismatch: bool = False,
    ) -> None:
        self._given = calibration
        models = f"--policy {policy.name}" + (f" --prm {prm.name}" if prm else "")
        self._remedy = f"python -m adaptive_ttc.calibration.fit {models}"
        self._prm = prm is not None
        self._told = False
        self._foreign: str | None = None
        if calibration is None:
            return
        meta = calibration.meta if isinstance(calibration, Calibrated) else read_meta(Path(calibration))
        self._foreign = mismatch_of(meta, policy, prm) if meta else None
        if self._foreign and not allow_mismatch:
            raise CalibrationError(
                f"the calibration is of no use here: {self._foreign}. Make one for this pair ({self._remedy}), or take "
                "this one nevertheless with allow_mismatch=True (--allow-mismatch)"
            )

    def calibrated(self, max_tokens: int) -> Calibrated:
        """What is used, warned about once where it was not made for the pair.

        Args:
            max_tokens: most tokens of one solution; only the prior depends on it.

        Raises:
            CalibrationError: the files are damaged.
        """
        if self._given is None:
            self._warn(
                "this pair has no calibration: budgets are allocated by a rough prior from published findings on other "
                f"models. Calibrate it: {self._remedy}"
            )
            return prior_of(max_tokens, prm=self._prm)
        if self._foreign:
            self._warn(f"the calibration may not hold here: {self._foreign}. Make one for this pair: {self._remedy}")
        if not isinstance(self._given, Calibrated):
            self._given = Calibrated.load(self._given)
        return self._given

    def _warn(self, message: str) -> None:
        if not self._told:
            self._told = True
            warnings.warn(message, CalibrationWarning, stacklevel=5)
