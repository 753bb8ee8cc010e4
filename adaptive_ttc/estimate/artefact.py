"""A calibration as it is used: table, difficulty classifiers, gain model and their origin; nothing in it is executed.

A calibration is a directory::

    table.json          the compute-optimal table
    classifier.skops    difficulty classifiers of all stages of evidence
    outlook.skops       gains of more work; missing where the table's own forecasts were as good
    blend.json          what agreement among samples adds to the outlook, and how far either is believed
    agreement.json      gains of more samples by their agreement, where these won the contest of rules; no outlook then
    meta.json           schema, fingerprints of the pair, opening, checksums of the files above, how it was made
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptive_ttc.driver.scoring import PRM_TOKENS_PER_TOKEN
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.blended_gain import BlendedGainModel
from adaptive_ttc.estimate.difficulty import DifficultyModel
from adaptive_ttc.estimate.gain import GainModel, LearnedGainModel, TableGainModel
from adaptive_ttc.estimate.model_names import models_of_traces, same_model
from adaptive_ttc.estimate.rule_gain import RuleGainModel
from adaptive_ttc.estimate.skops_io import REMEDY
from adaptive_ttc.estimate.table import ComputeOptimalTable
from adaptive_ttc.files.bounded import CALIBRATION, read_whole
from adaptive_ttc.files.typed import checked, damage_told
from adaptive_ttc.policy import Policy, second_policy, second_weight
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.stopping.registry import parse_rule
from adaptive_ttc.strategies.adaptive import SECOND

SCHEMA = 1
TABLE, CLASSIFIER, GAIN, META = "table.json", "classifier.skops", "outlook.skops", "meta.json"
AGREEMENT, BLEND = "agreement.json", "blend.json"

SCORED_OPENINGS = 1.25
"""Scored openings that the budget of a problem has to pay for before its opening is scored at once.

With less, the PRM's tokens are worth more as solutions: replayed in folds of the calibration problems of the embedded
pair, the two meet between 1 and 1.5.
"""


LEAST_GAIN = 0.001
"""Rise of the probability of a right answer, for what a problem's opening costs, under which nothing is bought unless
the caller asks for it: less than a forecast errs by. Measured by ``bench/min_gain.py``, see ``bench/LOG.md``.
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """A problem's first unit."""

    kind: str = "greedy"  # of its unit: ``greedy`` or ``sample``, or one of these by the second policy of a cascade
    scored: bool = True  # whether the PRM sees it at once
    generated: int = 512
    prm: int = 1024
    # votes_generated, votes_prm: tokens of the cheapest search beside the greedy solution, under which a problem begins
    # with votes: a greedy solution and a remainder that pays for no search were worse; 0 where they were not
    votes_generated: int = 0
    votes_prm: int = 0
    # second_generated, second_prm: of the same by the second policy of a cascade; second_from, second_scored_from: the
    # shares of second_generated that a problem's budget has to pay for, so that it is opened by that, and that this is
    # scored at once; 0: it never is
    second_generated: int = 0
    second_prm: int = 0
    second_from: float = 0.0
    second_scored_from: float = 0.0

    def within(
        self, each: float, generated: float, prm: float, prompt: float = 0.0, second_prompt: float = 0.0
    ) -> Opening:
        """The opening for ``each`` units a problem, of which its prompt takes ``prompt``, or ``second_prompt`` by the
        second policy: by that where it was better at this budget; scored only where enough is left to act on the
        scores, and a sample where that is no search and votes were better.
        """
        shares = (each - second_prompt) / max(generated * self.second_generated, 1.0)
        if self.second_from and shares >= self.second_from:
            scored = not prm or 0 < self.second_scored_from <= shares
            return replace(self.of_second(), scored=self.scored and scored)
        each -= prompt
        votes = each < generated * self.votes_generated + prm * self.votes_prm
        scored = self.scored and (not prm or each >= SCORED_OPENINGS * self.units(generated, prm))
        return replace(self, kind="sample" if votes else self.kind, scored=scored)

    def always_by_second(self, generated: int = 0, prm: int = 0) -> Opening:
        """With the second policy opening at any budget; one of so many tokens where none was measured."""
        always = replace(self, second_from=-math.inf)
        if self.second_generated:
            return always
        return replace(always, second_generated=generated, second_prm=prm, second_scored_from=SCORED_OPENINGS)

    def of_second(self) -> Opening:
        """The same by the second policy, at any budget."""
        return Opening(SECOND + self.kind, self.scored, self.second_generated, self.second_prm)

    def units(self, generated: float, prm: float) -> int:
        """Units that nine of ten cost at most, at these prices of a policy and a PRM token."""
        return max(1, math.ceil(generated * self.generated + (prm * self.prm if self.scored else 0.0)))

    def least_gain(self, generated: float, prm: float) -> float:
        """:data:`LEAST_GAIN` per 1,000 units."""
        return 1_000 * LEAST_GAIN / self.units(generated, prm)

    def promise(self, generated: float, prm: float) -> int:
        """Units to set aside for it; for its scores more than they cost, see :mod:`adaptive_ttc.driver.scoring`."""
        return self.units(generated, PRM_TOKENS_PER_TOKEN * prm)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was learned of a pair of models.

    Attributes:
        table: accuracy and cost of every arm.
        difficulty: evidence -> posterior over bins; None for a prior that knows no features.
        gain: expected gains of more work; the table's own forecasts where none was learned.
        opening: a problem's first unit.
        meta: how it was made; empty for a prior.
    """

    table: ComputeOptimalTable
    difficulty: DifficultyModel | None
    gain: GainModel
    opening: Opening
    meta: Mapping[str, Any]

    def _repr_html_(self) -> str:
        """What a notebook shows: its table."""
        return self.table._repr_html_()

    def least_gain(self, generated: float, prm: float, *, alone: bool = False) -> float:
        """:data:`LEAST_GAIN` per 1,000 units at these prices; 0 where gains are no measured probabilities.

        A problem ``alone`` has no others to leave units to: even a prior buys no more than forecasts tell apart.
        """
        told = self.gain.probable and (alone or bool(self.meta))
        return self.opening.least_gain(generated, prm) if told else 0.0

    @classmethod
    def load(cls, path: str | Path) -> Calibrated:
        """Read a directory and check every file against its checksum. CalibrationError: one is missing, cut off or
        edited.
        """
        folder = Path(path)
        with damage_told(folder, CalibrationError, REMEDY):
            return cls._load(folder)

    @classmethod
    def _load(cls, folder: Path) -> Calibrated:
        meta = read_meta(folder)
        sums = meta["files"]
        for name in (TABLE, CLASSIFIER, *(name for name in (GAIN, AGREEMENT, BLEND) if name in sums)):
            if name not in sums:
                raise CalibrationError(f"{folder / META} names no checksum of {name}: {REMEDY}")
            if _sha256(folder / name) != sums[name]:
                raise CalibrationError(f"{folder / name} was changed since it was made: {REMEDY}")
        table = ComputeOptimalTable.read(folder / TABLE)
        difficulty = DifficultyModel.load(folder / CLASSIFIER, sums[CLASSIFIER])
        learned = LearnedGainModel.load(folder / GAIN, sums[GAIN]) if GAIN in sums else None
        try:
            opening = checked(Opening(**meta["opening"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(
                f"{folder / META} does not say how a problem is opened ({error}): {REMEDY}"
            ) from error
        gain: GainModel = learned or TableGainModel(table, difficulty.posteriors)
        if learned is not None and BLEND in sums:
            gain = BlendedGainModel.of_data(learned, _json(folder / BLEND))
        elif AGREEMENT in sums:
            gain = AgreementGainModel.of_data(_json(folder / AGREEMENT))
        elif rule := meta.get("rule"):
            gain = RuleGainModel(parse_rule(rule), opening.generated, scored=opening.scored)
        return cls(table, difficulty, gain, opening, meta)


def _json(path: Path) -> Any:
    try:
        return json.loads(read_whole(path, CALIBRATION, CalibrationError, REMEDY))
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path} is cut off or damaged ({error}): {REMEDY}") from error


def mismatch_of(meta: Mapping[str, Any], policy: Policy, prm: RewardModel | None) -> str | None:
    """The difference between a calibration's pair and this one, in words; None where there is none.

    Fingerprints are compared; where either side is recorded samples, the models' names (``estimate/model_names.py``).
    """
    fingerprints, models = meta.get("fingerprints", {}), meta.get("models", {})
    pair: dict[str, Policy | RewardModel | None] = {"policy": policy, "prm": prm}
    names = [
        name
        for name, model in pair.items()
        if not _fits(fingerprints.get(name), models.get(name), model, unnamed=name == "prm")
    ]
    if not names:
        return _mismatch_of_weights(fingerprints.get("second_weight"), policy)
    made = " and ".join(str(models.get(name) or "none") for name in ("policy", "prm"))
    return f"it was made for another {' and another '.join(names)} ({made})"


def _mismatch_of_weights(made: str | None, policy: Policy) -> str | None:
    here = second_weight(policy)
    if made is None or second_policy(policy) is None or float(made) == here:
        return None
    return f"it was made with second_weight={float(made):g}, and here it is {here:g}"


def _fits(made: str | None, name: str | None, model: Policy | RewardModel | None, *, unnamed: bool) -> bool:
    """Whether a model is the one of this fingerprint and name; ``unnamed``: or any, where traces do not name it."""
    now = "" if model is None else model.fingerprint
    if made == now or not made or model is None:
        return made == now
    before, here = models_of_traces(made), models_of_traces(now)
    if before is None and here is None:
        return False
    if before == () and unnamed:  # traces do not tell who gave the scores
        return True
    mine, theirs = (name or "",) if before is None else before, (model.name,) if here is None else here
    return any(same_model(one, other) for one in mine for other in theirs)


def read_meta(folder: Path) -> dict[str, Any]:
    """The metadata of a calibration. CalibrationError: there are none, or they are of another version."""
    try:
        meta = json.loads(read_whole(folder / META, CALIBRATION, CalibrationError, REMEDY))
    except OSError as error:
        raise CalibrationError(f"{folder} is no calibration: {META}: {error.strerror or error}; {REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"{folder / META} is cut off or damaged ({error}): {REMEDY}") from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else None
        raise CalibrationError(f"{folder / META} is of schema {found!r}, not {SCHEMA}: {REMEDY}")
    for name in ("files", "fingerprints", "models"):
        if not isinstance(meta.get(name, {}), dict) or (name not in meta and name == "files"):
            raise CalibrationError(f"{folder / META} holds no object {name!r}: {REMEDY}")
    if meta.get("digest") != meta_digest(meta):
        raise CalibrationError(f"{folder / META} was edited since it was made: {REMEDY}")
    return meta


def meta_digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of all metadata but the digest itself; it shows accidental edits, not deliberate ones."""
    text = json.dumps({key: value for key, value in meta.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_whole(path, CALIBRATION, CalibrationError, REMEDY)).hexdigest()
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from error


__all__ = ["Calibrated", "Opening", "meta_digest", "mismatch_of", "read_meta"]
