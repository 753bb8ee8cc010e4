"""Refuses to judge a calibration on problems that it was fitted on, unless that is asked for; it solves nothing."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row


@dataclass(frozen=True, slots=True)
class Overlap:
    """Problems that a calibration was fitted on and that it is to be judged on.

    Attributes:
        shared: how many.
        judged: of so many that it is judged on.
    """

    shared: int
    judged: int

    @property
    def label(self) -> str:
        """What every output that rests on it says; empty where nothing is shared."""
        if not self.shared:
            return ""
        return f"NOT HELD OUT: the calibration was fitted on {self.shared} of these {self.judged} problems"


def add_overlap_option(parser: argparse.ArgumentParser) -> None:
    """``--allow-overlap``."""
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="judge a calibration also on problems that it was fitted on; all outputs then say so",
    )


def check_overlap(meta: Mapping[str, Any], rows: Sequence[Row], allow: bool) -> Overlap:
    """Compare the problems of a calibration with those that it is to be judged on, by their texts.

    Args:
        meta: of the calibration; a prior's, which is empty, shares nothing.
        rows: that it is to be judged on.
        allow: whether an overlap is only told.

    Raises:
        ConfigError: some are the same and that is not allowed.
    """
    known = set(meta.get("digests", ()))
    shared = [row for row in rows if text_digest(row["problem"]) in known]
    if shared and not allow:
        fitted_on = meta.get("dataset", {}).get("name", "an unknown data set")
        raise ConfigError(
            f"{len(shared)} of {len(rows)} problems, {shared[0]['unique_id']} among them, are ones that this "
            f"calibration was fitted on ({fitted_on}), so that its figures would flatter it: take other problems or "
            "another calibration, or give --allow-overlap, and the outputs will say so"
        )
    return Overlap(len(shared), len(rows))


def text_digest(question: str) -> str:
    """Of a problem's text, however its white space is set."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]
