"""The compute-optimal table: what every arm reaches and costs at every difficulty; it knows no model and no evidence.

An arm is a strategy with its N and M. The best arm for a problem is the one of largest accuracy within the budget,
averaged over what is believed of the problem's difficulty (arXiv 2408.03314, eq. 1, with tokens in place of
generations).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from adaptive_ttc.display import html
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.features import Attempt, Reading, score_of
from adaptive_ttc.estimate.skops_io import REMEDY
from adaptive_ttc.files.bounded import CALIBRATION, read_whole
from adaptive_ttc.strategies.base import AGGREGATIONS, Strategy
from adaptive_ttc.strategies.registry import make_strategy
from adaptive_ttc.types import Aggregation, bin_names
from adaptive_ttc.voting import VOTES, VoteName, VoteWeights, weight_of

SCHEMA = 1

_SHOWN = 5  # budgets in a notebook

Row = tuple[float, ...]
Difficulty = int | Sequence[float] | None


@dataclass(frozen=True, slots=True)
class TableArm:
    """A strategy at one size."""

    name: str  # ``dvts-16-4``
    strategy: str  # its name
    options: Mapping[str, Any]  # fields of the strategy
    kind: str  # of the units that it is made of, see :class:`adaptive_ttc.estimate.features.Unit`
    units: int  # how many of them

    def configured(self, vote: Vote) -> Strategy:
        """The strategy, with the pair's own vote where it votes by scores."""
        strategy = make_strategy(self.strategy, **self.options)
        if self.strategy in ("greedy", "majority", "short_m_at_k"):
            return strategy
        own = {} if self.strategy in ("best_of_n", "weighted_best_of_n") else {"vote": vote.name, "vote_b": vote.b}
        return make_strategy(self.strategy, **self.options, **own, agg_strategy=vote.agg_strategy)


@dataclass(frozen=True, slots=True)
class Vote:
    """How solutions of this pair are voted on."""

    name: VoteName = "weighted"  # of the vote
    b: float = 0.5  # of the logit-weighted vote
    agg_strategy: Aggregation = "last"  # how the scores of steps become one
    # of the weight of a vote, see :class:`adaptive_ttc.voting.VoteWeights`
    power: float = 1.0
    logprob: float = 0.0
    length: float = 0.0
    answer: float = 0.0

    @property
    def weights(self) -> VoteWeights:
        """How much a solution's vote counts."""
        return VoteWeights(self.power, self.logprob, self.length, self.answer)

    def weighing(self, weights: VoteWeights) -> Vote:
        """The same with these weights."""
        power, logprob, length, answer = astuple(weights)
        return replace(self, power=power, logprob=logprob, length=length, answer=answer)

    @property
    def options(self) -> dict[str, Any]:
        """As options of a strategy."""
        weights = {f"vote_{name}": getattr(self, name) for name in ("power", "logprob", "length", "answer")}
        return {"vote": self.name, "vote_b": self.b, "agg_strategy": self.agg_strategy, **weights}

    @property
    def reading(self) -> Reading:
        """How solutions become features under this vote."""
        return Reading(agg_strategy=self.agg_strategy)

    @property
    def unscored(self) -> Vote:
        """The vote while none of the solutions that hold an answer is scored."""
        return replace(self, name="majority")

    def score(self, attempt: Attempt) -> float:
        """Its aggregated step scores; nan where it was not scored."""
        return score_of(attempt, self.agg_strategy)

    def weight(self, attempt: Attempt) -> float:
        """What a solution adds to its answer's total; nan where it has no score and this vote needs one."""
        score = self.score(attempt)
        if self.name != "majority" and math.isnan(score):
            return score
        known = (attempt.logprob, attempt.tokens, attempt.answer_logprob)
        return weight_of(score, self.name, self.b, self.weights, *known)


@dataclass(frozen=True, slots=True)
class Choice:
    """An arm for a problem."""

    arm: TableArm  # what to run
    accuracy: float  # probability that its answer is right, as far as the difficulty is known
    generated: float
    prm: float
    cost: float  # of them, in units of the budget


@dataclass(frozen=True, slots=True)
class Cells:
    """All of shape [bins, arms], the easiest bin first; ``shrunk`` is what choices are made by."""

    accuracy: tuple[Row, ...]
    shrunk: tuple[Row, ...]
    low: tuple[Row, ...]
    high: tuple[Row, ...]
    generated: tuple[Row, ...]
    prm: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ComputeOptimalTable:
    """What calibration measured of a pair of models."""

    arms: tuple[TableArm, ...]  # the columns
    cells: Cells  # what they reach and cost
    share: Row  # how common every bin is, the easiest first
    edges: Row  # pass rates between the bins, falling
    ballot: Vote = field(default_factory=Vote)  # how the pair's solutions are voted on
    problems: int = 0  # on how many it was measured; 0 for a prior that was not measured on this pair
    source: str = ""  # where it comes from, in words

    def __post_init__(self) -> None:
        bins = len(self.share)
        if not self.arms or not bins or len(self.edges) != bins - 1:
            raise CalibrationError("the table has no arms or bins, or not one edge between two bins: fit anew")
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in (*self.share, *self.edges)):
            raise CalibrationError("the table's shares of bins, or their edges, are no numbers: fit anew")
        for name, rows in asdict(self.cells).items():
            if len(rows) != bins or any(len(row) != len(self.arms) for row in rows):
                raise CalibrationError(f"the table's {name} is not of {bins} bins x {len(self.arms)} arms: fit anew")
            if not all(isinstance(cell, int | float) and math.isfinite(cell) and cell >= 0 for r in rows for cell in r):
                raise CalibrationError(f"the table's {name} holds what is no number of at least 0: fit anew")

    def choices(self, difficulty: Difficulty = None, *, generated: float = 1.0, prm: float = 0.0) -> list[Choice]:
        """All arms, the best first, where a token of the policy costs ``generated`` units and one of the PRM ``prm``.

        ``difficulty`` is a bin from 0, the easiest, or a probability for each bin; None for the bins' shares.
        ConfigError: no such bin, or not one probability a bin.
        """
        expected, found = self.expected(self._belief(difficulty)), []
        for arm, accuracy, tokens, scored in zip(self.arms, *expected, strict=True):
            found.append(Choice(arm, accuracy, tokens, scored, generated * tokens + prm * scored))
        return sorted(found, key=lambda choice: (-choice.accuracy, choice.cost, choice.arm.name))

    def expected(self, belief: Sequence[float]) -> tuple[Row, Row, Row]:
        """Accuracy, generated and PRM tokens of every arm, averaged over the bins with these probabilities."""
        accuracy, generated, prm = (
            tuple(
                math.fsum(p * cell for p, cell in zip(belief, column, strict=True))
                for column in zip(*rows, strict=True)
            )
            for rows in (self.cells.shrunk, self.cells.generated, self.cells.prm)
        )
        return accuracy, generated, prm

    def lookup(
        self, budget: float, difficulty: Difficulty = None, *, generated: float = 1.0, prm: float = 0.0
    ) -> list[Choice]:
        """The arms whose expected cost is within the budget, the best first; the cheapest of all where none is."""
        choices = self.choices(difficulty, generated=generated, prm=prm)
        within = [choice for choice in choices if choice.cost <= budget]
        return within or [min(choices, key=lambda choice: choice.cost)]

    def explain(self, budget: float, difficulty: Difficulty = None, *, generated: float = 1.0, prm: float = 0.0) -> str:
        """A lookup in words."""
        best, *others = self.lookup(budget, difficulty, generated=generated, prm=prm)
        words = [
            f"With {budget:,.0f} units, {best.arm.name} is expected to be right on {best.accuracy:.1%} of such "
            f"problems for {best.cost:,.0f} units ({best.generated:,.0f} generated tokens, {best.prm:,.0f} PRM tokens)."
        ]
        if best.cost > budget:
            words.append("No arm is expected to stay within this budget; that one is the cheapest.")
        if others:
            second = others[0]
            words.append(f"Next comes {second.arm.name}: {second.accuracy:.1%} for {second.cost:,.0f}.")
        if isinstance(difficulty, int):
            words.append(f"Bin {difficulty} of {len(self.share)} is the {bin_names(len(self.share))[difficulty]}.")
        if not self.problems:
            words.append(f"These figures were not measured on this pair: {self.source}")
        return " ".join(words)

    def _repr_html_(self) -> str:
        """What a notebook shows: the best arm of every difficulty within some numbers of generated tokens."""
        names = bin_names(len(self.share))
        costs = [choice.cost for choice in self.choices()]
        low, high = max(1.0, min(costs)), max(costs)
        budgets = sorted({float(f"{low * (high / low) ** (place / (_SHOWN - 1)):.2g}") for place in range(_SHOWN)})
        rows = []
        for number, name in (*enumerate(names), (None, "any")):
            best = [self.lookup(budget, number)[0] for budget in budgets]
            told = (one.arm.name + f" {100 * one.accuracy:.0f} %" for one in best)
            rows.append((name, *told))
        head = ("difficulty", *(f"{budget:,.0f} tokens" for budget in budgets))
        measured = f"{self.problems:,} problems" if self.problems else "a prior, not measured on this pair"
        caption = "The best arm within so many generated tokens, and how often it is expected to be right"
        return html.framed(html.line(self.source, strong=measured), html.table(caption, head, rows))

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read the JSON of :meth:`as_data`. CalibrationError: missing, cut off, no table, or of another version."""
        try:
            data = json.loads(read_whole(path, CALIBRATION, CalibrationError, REMEDY))
        except OSError as error:
            raise CalibrationError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise CalibrationError(f"{path} is cut off or damaged ({error}): make it anew") from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise CalibrationError(f"{path} is no table of schema {SCHEMA} (it says {schema!r}): {REMEDY}")
        try:
            ballot = Vote(**data["ballot"])
            if ballot.name not in VOTES or ballot.agg_strategy not in AGGREGATIONS or not 0 < ballot.b < 1:
                raise ValueError(f"no vote is {ballot}")
            arms = tuple(TableArm(**arm) for arm in data["arms"])
            for arm in arms:
                arm.configured(ballot)
            cells = Cells(**{name: tuple(tuple(row) for row in rows) for name, rows in data["cells"].items()})
            share, edges = tuple(data["share"]), tuple(data["edges"])
            return cls(arms, cells, share, edges, ballot, int(data["problems"]), str(data["source"]))
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise CalibrationError(f"{path} is damaged ({error}): {REMEDY}") from error

    def _belief(self, difficulty: Difficulty) -> Sequence[float]:
        bins = len(self.share)
        if difficulty is None:
            return self.share
        if isinstance(difficulty, int):
            if not 0 <= difficulty < bins:
                raise ConfigError(f"difficulty={difficulty}: take a bin from 0 (the easiest) to {bins - 1}")
            return [float(number == difficulty) for number in range(bins)]
        if len(difficulty) != bins or abs(math.fsum(difficulty) - 1) > 1e-6 or min(difficulty) < 0:
            raise ConfigError(f"difficulty is one probability for each of {bins} bins, in sum 1; got {difficulty}")
        return difficulty
