"""The expected gain and cost of more work on a problem, given its evidence.

Q(state, action) of a calibration is the probability that the pooled answer is right after an action. Its gain over the
probability p of the answer in hand is the mean of two estimates that err in different ways:

- (1 - p) found - p lost, where ``found`` is the probability that a wrong answer becomes right, and ``lost`` that a
  right one becomes wrong: sharp where little was done, but its noise may look like a reason to stop;
- rising(action) - rising(nothing), a model of the answer afterwards that never falls as units are added: blunter, but
  it still sees the gain of many more units.

Where difficulty could be learned, the posterior over its bins decides a part of every gain (`bin_gains.py`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.bin_gains import BinGains
from adaptive_ttc.estimate.difficulty import Classifier, Platt
from adaptive_ttc.estimate.features import Evidence, Reading, counted_as
from adaptive_ttc.estimate.skops_io import REMEDY, read_estimators, write_estimators
from adaptive_ttc.estimate.table import ComputeOptimalTable
from adaptive_ttc.stopping.base import Pool
from adaptive_ttc.strategies.base import Strategy

SCHEMA = 1

Array = NDArray[np.float64]
Posteriors = Callable[[Sequence[Evidence]], Sequence[Sequence[float]]]
Look = Callable[[float], Pool]
"""How a pool's budget stands, given the tokens that a sample takes on average."""


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """More work: ``count`` further units of a kind, see :class:`~adaptive_ttc.estimate.features.Unit`."""

    kind: str
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.kind}"


@dataclass(frozen=True, slots=True)
class Option:
    """Something that may be done next: from a gain model in tokens, priced then in units (`allocation/options.py`)."""

    action: Action  # what would be done; the allocator never looks into it
    cost: float  # units that all of it is expected to take, above 0
    # rise of the probability that the final answer is right, over stopping now; may be negative. Who weighs problems
    # differently multiplies it.
    gain: float
    slice_cost: int  # units to set aside for its next slice, after which evidence is looked at again; at least 1
    # units with which it may turn out to be done; where fewer are left than it is expected to take, but not fewer than
    # these, it is still tried. By default what it is expected to take.
    least: float = math.inf
    generated: float = 0.0  # tokens that the policy is expected to deliver
    prm: float = 0.0  # tokens that the PRM is expected to score, those of solutions that it has not seen yet included
    at_once: int = 1  # units of its next slice
    look: int | None = None  # units after which evidence is looked at, at the earliest; None: as usual for its kind
    beyond: bool = False  # whether its forecast goes beyond what calibration recorded
    prompt: int = 0  # units among ``cost`` and ``slice_cost`` that its next slice takes whatever its size

    def __post_init__(self) -> None:
        # written so that nan fails too
        if not 0 < self.cost < math.inf:
            raise ConfigError(f"option {self.action!r} costs {self.cost}: the expected cost is a finite number above 0")
        if not -math.inf < self.gain < math.inf:
            raise ConfigError(f"option {self.action!r} gains {self.gain}: a gain is a finite number")
        if self.slice_cost < 1:
            raise ConfigError(f"option {self.action!r} sets {self.slice_cost} aside: a slice takes at least 1 unit")

    @classmethod
    def in_tokens(cls, action: Action, gain: float, generated: float, prm: float) -> Self:
        """Before prices are known: every token, of the policy or of the PRM, counts as one unit."""
        return cls(action, generated + prm, gain, 1, generated=generated, prm=prm)

    def within(self, units: float) -> bool:
        """Whether it may be done with so many units."""
        return self.cost <= units or self.least <= units

    def shrunk(self, units: float) -> Option:
        """With no more units of work in its next slice than ``units`` may be set aside for, but at least one."""
        if self.slice_cost <= units or self.at_once == 1:
            return self
        work = self.slice_cost - self.prompt
        at_once = max(1, int(self.at_once * (units - self.prompt) / max(work, 1)))
        return replace(self, at_once=at_once, slice_cost=self.prompt + math.ceil(work * at_once / self.at_once))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a problem in some state."""

    # probability that the answer in hand is right, 0 while there is none; None where nothing was measured to tell it by
    right: float | None
    options: tuple[Option, ...]  # what may be done next
    # probabilities of the bins, the easiest first; None where the calibration knows no features
    difficulty: tuple[float, ...] | None = None
    note: str = ""  # what else decides, in words; empty where the options do


class Regressor(Protocol):
    """A fitted regressor, read from a file or of scikit-learn."""

    def predict(self, X: Array) -> Array:  # noqa: N803
        """Shape [rows]."""


@dataclass(frozen=True, slots=True)
class Estimators:
    """The fitted models."""

    right: Classifier  # state -> the answer in hand is right, as the estimator has it
    curve: Platt  # calibrates that; fitted to problems that the estimator had not seen
    found: Classifier  # state and action -> a wrong answer becomes right
    lost: Classifier  # state and action -> a right answer becomes wrong
    rising: Classifier  # state and action -> the answer is right afterwards; no action is one of no units
    generated: Regressor  # state and kind -> tokens of one unit
    prm: Regressor  # state and kind -> PRM tokens of one unit


class GainModel(ABC):
    """Anything that forecasts: a learned model, the table, agreement among samples."""

    learns: ClassVar[bool] = False  # whether :meth:`learn` changes its forecasts
    probable: ClassVar[bool] = True  # whether gains are rises of a probability, and no worth on a scale of their own

    @abstractmethod
    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""

    def pool(self, vote: Strategy | None = None, look: Look | None = None) -> GainModel:
        """The model for one run over problems that share a budget; another one where it learns from them.

        ``vote`` is the one that will be taken, and ``look`` tells how the budget stands; None where neither is known.
        """
        return self

    def learn(self, states: Sequence[Evidence]) -> None:  # noqa: B027
        """Take in how the problems of a pool stand, in place of what was learned before; by default nothing."""


TREND = 4
"""Units of a kind that calibration must have recorded, at least, for forecasts to go on beyond them."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """Actions tried from states, one an entry of every array."""

    owner: NDArray[np.int64]  # the state
    action: NDArray[np.int64]
    seen: NDArray[np.int64]  # row of the features that are read: the state's own, or those of one that holds fewer
    share: Array  # of its units that is read; 1 within what was recorded


class LearnedGainModel(GainModel):
    """Learned forecasts for any state of any problem.

    ``most`` units of a kind were recorded. Where a state with d of them and c more goes beyond, the forecast is that
    of the same evidence with so many fewer of both, c : d as they are, that it does not: gains go by the ratio of what
    is added to what is there, and so decline as d grows. Such options are marked; what they cost is not scaled.

    ``bins``: gains by difficulty, None where there was none to learn; ``posteriors`` stand in for their posterior, to
    measure what it is worth.
    """

    def __init__(
        self,
        estimators: Estimators,
        actions: Sequence[Action],
        reading: Reading,
        most: Mapping[str, int],
        bins: BinGains | None = None,
        posteriors: Posteriors | None = None,
    ) -> None:
        self.estimators = estimators
        self.actions = tuple(actions)
        self.reading = reading
        self.most = dict(most)
        self.bins = bins
        self._posteriors = posteriors
        self._columns = action_columns(self.actions)

    def possible(self, evidence: Evidence) -> list[tuple[int, float]]:
        """Indices of the actions that may be forecast from here, each with the share of all units that was recorded."""
        done, found = evidence.counts(), []
        for index, action in enumerate(self.actions):
            most, units = self.most.get(action.kind, 0), done.get(action.kind, 0) + action.count
            if units <= most or (most >= TREND and action.kind != "greedy"):  # a second greedy one is the first again
                found.append((index, min(1.0, most / units)))
        return found

    def forecasts(self, states: Sequence[Evidence], revised: Callable[[Array], Array] | None = None) -> list[Forecast]:
        """One for each state; many at once cost little more than one. ``revised``: what else is known of the
        probabilities that the answers in hand are right, from those read off the evidence; both of shape [states].
        """
        if not states:
            return []
        features = np.stack([self.reading.features(state) for state in states])
        right = self.right(features) if revised is None else revised(self.right(features))
        right[[bool(state.units) and not answered(state) for state in states]] = 0.0
        now = [in_hand(state, p) for state, p in zip(states, right.tolist(), strict=True)]
        tried, seen = self._tried(states, features)
        if not len(tried.owner):
            return [Forecast(p, ()) for p in now]
        belief = self._belief(states, features)
        rows = self._rows(seen, tried.seen, tried.action, tried.share)
        counts = np.array([action.count for action in self.actions])[tried.action]
        generated = np.maximum(self.estimators.generated.predict(rows), 1.0) * counts
        prm = np.maximum(self.estimators.prm.predict(rows), 0.0) * counts
        prm += np.array([unseen(state) for state in states])[tried.owner]
        of_seen = np.empty(len(seen))
        of_seen[: len(states)], of_seen[tried.seen] = right, right[tried.owner]
        gain = self.boosted_gains(seen, tried.seen, tried.action, of_seen, tried.share)
        if self.bins is not None and belief is not None:
            by_bin = tried.share * self.bins.gains(belief[tried.owner], tried.action, right[tried.owner])
            gain += self.bins.weight * (by_bin - gain)
        after = np.clip(right[tried.owner] + gain, 0.0, 1.0)
        options: list[list[Option]] = [[] for _ in states]
        columns = (tried.owner, tried.action, tried.share < 1, after, generated, prm)
        for place, index, beyond, then, tokens, scored in zip(*(part.tolist() for part in columns), strict=True):
            option = Option.in_tokens(self.actions[index], then - now[place], tokens, scored)
            options[place].append(replace(option, beyond=beyond))
        told: list[tuple[float, ...] | None] = [None] * len(states)
        if belief is not None:  # of evidence, which a problem without any has none of
            told = [tuple(row) if state.units else None for state, row in zip(states, belief.tolist(), strict=True)]
        return [Forecast(p, tuple(some), bins) for p, some, bins in zip(now, options, told, strict=True)]

    def _belief(self, states: Sequence[Evidence], features: Array) -> Array | None:
        """Posterior over the bins, shape [states, bins]; None where difficulty was not learned."""
        if self.bins is None:
            return None
        if self._posteriors is not None:
            return np.array(self._posteriors(states))
        return self.bins.posterior.predict_proba(features)

    def right(self, features: Array) -> Array:
        """Probability that the answer in hand is right, shape [states]; ``features``: shape [states, features]."""
        return self.estimators.curve(self.estimators.right.predict_proba(features)[:, 1])

    def _tried(self, states: Sequence[Evidence], features: Array) -> tuple[_Tried, Array]:
        """What is tried from the states, and the rows of features that it is read from, those of the states first."""
        rows, entries = list(features), []
        for place, state in enumerate(states):
            for index, share in self.possible(state):
                entries.append((place, index, len(rows) if share < 1 else place, share))
                if share < 1:
                    rows.append(features[place].copy())
                    column = f"units.{counted_as(self.actions[index].kind)}"
                    if column in self.reading.names:
                        rows[-1][self.reading.names.index(column)] *= share
        parts = np.array(entries, dtype=np.float64).reshape(-1, 4).T
        owner, action, seen = (part.astype(np.int64) for part in parts[:3])
        return _Tried(owner, action, seen, parts[3]), np.stack(rows)

    def _rows(self, features: Array, owner: NDArray[np.int64], which: NDArray[np.int64], share: Array) -> Array:
        """States ``owner`` with ``share`` of the actions ``which``, shape [actions tried, features and kinds]."""
        counts = np.array([action.count for action in self.actions])[which]
        columns = np.where(self._columns[which] > 0, np.log2(1 + counts * share)[:, None], 0.0)
        return np.hstack([features[owner], columns])

    def boosted_gains(
        self,
        features: Array,
        owner: NDArray[np.int64],
        which: NDArray[np.int64],
        right: Array,
        share: Array | None = None,
    ) -> Array:
        """Rise of the probability of being right by actions ``which`` tried in states ``owner``, by the trees alone.

        ``features``: shape [states, features]; ``right``: shape [states], of the answers in hand; ``share`` of the
        units of every action, by default all. Returns shape [actions tried].
        """
        now = right[owner]
        rows = self._rows(features, owner, which, np.ones(len(which)) if share is None else share)
        told = np.hstack([rows, now[:, None]])
        found = self.estimators.found.predict_proba(told)[:, 1]
        lost = self.estimators.lost.predict_proba(told)[:, 1]
        still = np.hstack([features, np.zeros((len(features), self._columns.shape[1]))])
        rising = self.estimators.rising.predict_proba(np.vstack([still, rows]))[:, 1]
        risen = rising[len(still) :] - rising[: len(still)][owner]
        return np.asarray(((1 - now) * found - now * lost + risen) / 2)

    def save(self, path: str | Path) -> str:
        """Write it to one file; returns its SHA-256. CalibrationError: it holds a type that would not be read again."""
        content = {
            "schema": SCHEMA,
            "reading": self.reading.as_data(),
            "features": list(self.reading.names),
            "actions": [[action.kind, action.count] for action in self.actions],
            "most": dict(self.most),
            "estimators": {name: getattr(self.estimators, name) for name in Estimators.__slots__ if name != "curve"},
            "curve": asdict(self.estimators.curve),
            "bins": None if self.bins is None else self.bins.as_data(),
        }
        return write_estimators(path, content)

    @classmethod
    def load(cls, path: str | Path, sha256: str) -> Self:
        """Read what :meth:`save` wrote, executing nothing. CalibrationError: missing, changed or foreign."""
        content = read_estimators(path, sha256)
        try:
            if content["schema"] != SCHEMA:
                raise CalibrationError(f"{path} is of schema {content['schema']!r}, not {SCHEMA}: {REMEDY}")
            reading = Reading.of_data(content["reading"])
            if list(reading.names) != content["features"]:
                raise CalibrationError(f"{path} reads other features than this version has: {REMEDY}")
            actions = [Action(kind, int(count)) for kind, count in content["actions"]]
            curve = Platt(**{name: float(value) for name, value in content["curve"].items()})
            bins = BinGains.of_data(content["bins"]) if content.get("bins") else None
            model = cls(Estimators(**content["estimators"], curve=curve), actions, reading, content["most"], bins)
            model.forecasts([Evidence("1 + 1", 8)])  # whatever does not fit together says so here
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise CalibrationError(f"{path} holds no gain model that runs here ({error!r}): {REMEDY}") from error
        return model


def answered(state: Evidence) -> bool:
    """Whether there is an answer."""
    return any(attempt.answer is not None for unit in state.units for attempt in unit.attempts)


def in_hand(state: Evidence, right: float) -> float:
    """``right``, or 0 while there is no answer."""
    return right if answered(state) else 0.0


def unseen(evidence: Evidence) -> int:
    """PRM tokens, about, for scoring the solutions in hand that it has not seen yet."""
    return sum(
        evidence.prompt_tokens + attempt.tokens
        for unit in evidence.units
        for attempt in unit.attempts
        if not attempt.scores
    )


def action_columns(actions: Sequence[Action]) -> Array:
    """Shape [actions, kinds]: log2(1 + units) of every kind that an action adds; no units are all zeros."""
    kinds = sorted({action.kind for action in actions})
    columns = np.zeros((len(actions), len(kinds)))
    for row, action in enumerate(actions):
        columns[row, kinds.index(action.kind)] = np.log2(1 + action.count)
    return columns


class TableGainModel(GainModel):
    """Forecasts from the table alone, where no better model was learned.

    A state is worth as much as the best arm that it has carried out, averaged over the posterior of the difficulty
    (``posteriors``, or None for the bins' shares). So the table is a plan that evidence may change.
    """

    def __init__(self, table: ComputeOptimalTable, posteriors: Posteriors | None = None) -> None:
        self.table = table
        self._posteriors = posteriors
        self._best = _best_arms(table)

    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        beliefs = self._posteriors(states) if self._posteriors and states else [self.table.share] * len(states)
        return [self._forecast(state, belief) for state, belief in zip(states, beliefs, strict=True)]

    def _forecast(self, evidence: Evidence, belief: Sequence[float]) -> Forecast:
        reached, generated, prm = self.table.expected(belief)
        done, scoring = evidence.counts(), unseen(evidence)
        now = max((reached[arm] for (kind, n), arm in self._best.items() if n <= done[kind]), default=0.0)
        known = in_hand(evidence, now)
        options = []
        for (kind, n), arm in self._best.items():
            more = n - done[kind]
            if more > 0:
                gain, share = max(now, reached[arm]) - known, more / n
                tokens, scored = generated[arm] * share, prm[arm] * share + scoring
                options.append(Option.in_tokens(Action(kind, more), gain, tokens, scored))
        return Forecast(known, tuple(options))


def _best_arms(table: ComputeOptimalTable) -> Mapping[tuple[str, int], int]:
    """(kind, units) -> column of the arm with the best vote over them, over all bins."""
    value, _, _ = table.expected(table.share)
    best: dict[tuple[str, int], int] = {}
    for column, arm in enumerate(table.arms):
        before = best.setdefault((arm.kind, arm.units), column)
        if value[column] > value[before]:
            best[arm.kind, arm.units] = column
    return best
