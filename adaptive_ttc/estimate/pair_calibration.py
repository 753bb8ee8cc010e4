"""Which calibration a pair of models is used with: its own, another's where that is allowed, or a rough prior.

The prior is what is published of other pairs. Its figures are anchored on published means and ordered as the papers
order the strategies; they are not measurements:

- Five bins of equal share, the easiest first, and their order of strategies: arXiv 2408.03314, sections 5 and 6 (beam
  search wins on middle bins at small budgets and hurts the easiest; nothing helps the hardest), confirmed for open
  models by "Scaling test-time compute with open models" (Hugging Face, 2024), which adds DVTS (best at large N).
- Means over the bins: a single sample .35 and majority .50, between the 1B and 3B models of arXiv 2502.06703 on
  MATH-500 (26.0 and 41.4, 39.0 and 58.4); searches under a PRM above both, short of its compute-optimal 66.2.
- Costs are in mean solutions of the policy: N samples cost N, and the PRM reads about 1.3 tokens for each generated.

The length of a mean solution is that of the problem's own solutions, and before there are any, a part of
``max_tokens``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from adaptive_ttc.errors import CalibrationError, CalibrationWarning, ConfigError, see, warn
from adaptive_ttc.estimate.agreement_gain import UNFITTED, AgreementGainModel
from adaptive_ttc.estimate.answer_prior import shipped_prior
from adaptive_ttc.estimate.artefact import Calibrated, Opening, mismatch_of
from adaptive_ttc.estimate.features import Evidence, family_of
from adaptive_ttc.estimate.gain import Action, Forecast, GainModel, Look, Option, answered, unseen
from adaptive_ttc.estimate.model_names import models_of_traces
from adaptive_ttc.estimate.rule_gain import RuleGainModel
from adaptive_ttc.estimate.table import Cells, ComputeOptimalTable, Row, TableArm, Vote
from adaptive_ttc.policy import Policy, own_weight, second_policy
from adaptive_ttc.prm.base import RewardModel, traits_of
from adaptive_ttc.stopping.base import Draw, StoppingRule
from adaptive_ttc.stopping.registry import make_rule, parse_rule
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.voting import VoteName

SOURCE = (
    "a rough prior from published findings on other pairs (the order of strategies by difficulty from arXiv 2408.03314 "
    "and the Hugging Face reproduction with open models, means between those of the 1B and 3B models in arXiv "
    "2502.06703); costs in mean solutions."
)
SHARE: Row = (0.2, 0.2, 0.2, 0.2, 0.2)
EDGES: Row = (0.7, 0.4, 0.17, 0.05)
PASS: Row = (0.86, 0.55, 0.25, 0.09, 0.02)  # rate at which one sample is right, by bin

PRM_PER_TOKEN = 1.3
LONGEST_OPENING = 512  # tokens set aside for a first solution at most; a longer one is continued

Anchors = Mapping[int, Row]

_UNSCORED: Mapping[tuple[str, str, int], Anchors] = {
    ("greedy", "greedy", 1): {1: (0.88, 0.58, 0.27, 0.09, 0.02)},
    ("majority", "sample", 1): {
        1: PASS,
        4: (0.95, 0.68, 0.32, 0.10, 0.02),
        16: (0.98, 0.80, 0.42, 0.12, 0.02),
        64: (0.99, 0.85, 0.48, 0.14, 0.02),
    },
}
"""(strategy, kind of its units, solutions in a unit) -> N -> accuracy by bin; those that need no PRM."""

_SCORED: Mapping[tuple[str, str, int], Anchors] = {
    ("weighted_best_of_n", "sample", 1): {
        1: PASS,
        4: (0.95, 0.73, 0.38, 0.13, 0.03),
        16: (0.98, 0.85, 0.50, 0.18, 0.03),
        64: (0.99, 0.90, 0.58, 0.22, 0.03),
    },
    ("beam_search", "beam_search-16-4", 16): {16: (0.94, 0.82, 0.56, 0.22, 0.03)},
    ("dvts", "dvts-4", 4): {
        4: (0.93, 0.70, 0.38, 0.14, 0.02),
        16: (0.97, 0.86, 0.54, 0.20, 0.03),
        64: (0.99, 0.94, 0.66, 0.26, 0.04),
    },
}


def prior_table(*, prm: bool) -> ComputeOptimalTable:
    """The table for pairs with or without a PRM; costs in mean solutions."""
    arms: list[TableArm] = []
    columns: list[Row] = []
    solutions: list[float] = []
    scored: list[float] = []
    for curves in (_UNSCORED, _SCORED) if prm else (_UNSCORED,):
        for (strategy, kind, each), anchors in curves.items():
            for n, reached in _doubling(anchors):
                arms.append(_arm(strategy, n, kind, n // each))
                columns.append(reached)
                solutions.append(float(n))
                scored.append(PRM_PER_TOKEN * n * (curves is _SCORED))
    accuracy = tuple(zip(*columns, strict=True))
    generated, prm_tokens = (tuple(tuple(row) for _ in SHARE) for row in (solutions, scored))
    cells = Cells(accuracy, accuracy, accuracy, accuracy, generated, prm_tokens)
    return ComputeOptimalTable(tuple(arms), cells, SHARE, EDGES, Vote(), problems=0, source=SOURCE)


def _doubling(anchors: Anchors) -> Iterator[tuple[int, Row]]:
    """The accuracy at every doubling of N; those between two anchors lie half way, as curves go by log N."""
    for low, high in pairwise(sorted(anchors)):
        yield low, anchors[low]
        yield 2 * low, tuple((a + b) / 2 for a, b in zip(anchors[low], anchors[high], strict=True))
    yield max(anchors), anchors[max(anchors)]


def _arm(strategy: str, n: int, kind: str, units: int) -> TableArm:
    options = {} if strategy == "greedy" else {"n": n}
    if strategy in ("beam_search", "dvts"):
        options["beam_width"] = 4
    return TableArm("-".join([strategy, *map(str, options.values())]), strategy, options, kind, units)


def prior_of(max_tokens: int, *, prm: bool) -> Calibrated:
    """The prior in the shape of a calibration, for solutions of at most ``max_tokens``, with or without a PRM.

    Independent samples are judged by their agreement, which needs no calibration; searches under a PRM by the table.
    """
    name: VoteName = "weighted" if prm else "majority"
    table = replace(prior_table(prm=prm), ballot=Vote(name).weighing(UNFITTED))
    longest = min(max_tokens, LONGEST_OPENING)
    votes = AgreementGainModel(shipped_prior(), UNFITTED, tokens=max_tokens / 4, scored=prm, edges=table.edges)
    return Calibrated(table, None, PriorGainModel(table, votes), Opening(SAMPLE, prm, longest, 2 * longest), {})


class PriorGainModel(GainModel):
    """Agreement for samples; for searches what the table reaches at the difficulty that agreement tells.

    Both order what may be done next. As probabilities they mean nothing for a pair that was never measured, so that
    none is told.
    """

    learns = True

    def __init__(self, table: ComputeOptimalTable, votes: AgreementGainModel) -> None:
        self._table = table
        self._votes = votes
        self._certifies = make_rule("martingale")
        self._searches = [
            (column, arm.kind, arm.units)
            for column, arm in enumerate(table.arms)
            if family_of(arm.kind) not in (GREEDY, SAMPLE)
        ]

    def pool(self, vote: Strategy | None = None, look: Look | None = None) -> PriorGainModel:
        """With forecasts of agreement that learn from a pool."""
        return PriorGainModel(self._table, self._votes.pool())

    def learn(self, states: Sequence[Evidence]) -> None:
        """Take in how the problems of a pool stand."""
        self._votes.learn(states)

    def forecasts(self, states: Sequence[Evidence]) -> list[Forecast]:
        """One for each state."""
        return [
            Forecast(
                None if answered(state) else 0.0,
                (*known.options, *self._of_searches(state, known)),
                note=self._note(state),
            )
            for state, known in zip(states, self._votes.forecasts(states), strict=True)
        ]

    def _note(self, state: Evidence) -> str:
        """How it was allocated, and what is certified of the leading answer."""
        samples = [one for unit in state.units if unit.kind == SAMPLE for one in unit.attempts]
        certificate = self._certifies.certificate([Draw(one.answer, one.tokens) for one in samples])
        said = "by agreement among the samples, under a prior measured on other models"
        return said if certificate is None else f"{said}; {certificate.answer}: {certificate}"

    def _of_searches(self, state: Evidence, known: Forecast) -> Iterator[Option]:
        if not self._searches:
            return
        assert known.difficulty is not None
        assert known.right is not None
        reached, generated, prm = self._table.expected(known.difficulty)
        length, done, first = self._votes.length(state), state.counts(), unseen(state)
        for column, kind, units in self._searches:
            more = units - done[kind]
            if more > 0:
                gain, share = max(0.0, reached[column] - known.right), length * more / units
                tokens, scored = generated[column] * share, prm[column] * share + first
                yield Option.in_tokens(Action(kind, more), gain, tokens, scored)


def calibrated_by(rule: StoppingRule, table: ComputeOptimalTable, max_tokens: int, *, prm: bool) -> Calibrated:
    """A rule in the shape of a calibration, for solutions of at most ``max_tokens``; the ``table`` tells the vote."""
    longest = min(max_tokens, LONGEST_OPENING)
    opening = Opening(SAMPLE, prm, longest, 2 * longest)
    table = table if prm else replace(table, ballot=replace(table.ballot, name="majority"))
    return Calibrated(table, None, RuleGainModel(rule, max_tokens / 4, scored=prm), opening, {})


def selected_rule(rule: StoppingRule | str | None, calibration: object) -> StoppingRule | None:
    """The rule, by its name or itself. ConfigError: no such rule, or one beside a calibration."""
    if rule is not None and calibration is not None:
        raise ConfigError("a rule allocates budgets without a calibration: give the rule or the calibration")
    return parse_rule(rule) if isinstance(rule, str) else rule


def _named(policy: Policy, prm: RewardModel | None) -> str:
    """The options that name these models on a command line."""
    models: dict[str, Policy | RewardModel | None] = {"policy": policy, "second": second_policy(policy), "prm": prm}
    words = [f"--{name} {shlex.quote(getattr(one, 'source', one.name))}" for name, one in models.items() if one]
    if (weight := own_weight(policy)) is not None:
        words.append(f"--second-weight {weight:g}")
    return " ".join(words)


class SelectedCalibration:
    """The calibration that a pair of models is used with, or a rough prior.

    A calibration of another pair is refused, or with ``allow_mismatch`` warned about. With a ``rule`` budgets are
    allocated by it, and nothing is read. CalibrationError: it is no calibration, its files are damaged, or it is one of
    another pair. ConfigError: no such rule, or one beside a calibration, or a second policy without one.
    """

    def __init__(
        self,
        calibration: Calibrated | str | Path | None,
        policy: Policy,
        prm: RewardModel | None,
        *,
        allow_mismatch: bool = False,
        rule: StoppingRule | str | None = None,
    ) -> None:
        self._rule = selected_rule(rule, calibration)
        models, second = _named(policy, prm), second_policy(policy)
        if models_of_traces(policy.fingerprint) is not None:
            models = "--replay FILE, with recorded samples of other problems"
        remedy = f"adaptive-ttc calibrate {models}"
        # that a policy's own confidence beats the majority is never assumed
        self._prm = prm is not None and not traits_of(prm).free
        self._warning = (
            "this pair has no calibration: budgets are allocated by agreement among samples, under a rough prior from "
            f"other models. Calibrate it {see('calibrating.md')}: {remedy}"
        )
        self._remedy, self._allowed = remedy, allow_mismatch
        self._told = set[str]()
        self._calibrated: Calibrated | None = None
        if calibration is None and second is not None:
            raise ConfigError(
                f"what {second.name} is worth as a second policy, only a calibration of both tells "
                f"{see('calibrating.md')}: make it ({remedy}) and give it, or leave the second policy out"
            )
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

    def calibrated(self, max_tokens: int, answers: Iterable[str] = ("math",)) -> Calibrated:
        """The calibration, or a prior for this ``max_tokens``; warns once where it is not the pair's own.

        ``answers``: names of the problems' answer spaces. CalibrationError: it was made with another one, unless a
        mismatch is allowed.
        """
        if self._rule is not None:
            return calibrated_by(self._rule, prior_table(prm=self._prm), max_tokens, prm=self._prm)
        self._check_answers({*answers})
        if self._warning:
            message, self._warning = self._warning, ""
            warn(message, CalibrationWarning)
        return self._calibrated or prior_of(max_tokens, prm=self._prm)

    def _check_answers(self, answers: set[str]) -> None:
        meta = {} if self._calibrated is None else self._calibrated.meta
        made = meta.get("fingerprints", {}).get("answers", "math") if meta else None
        others = sorted(answers - {made})
        if made is None or not others:
            return
        foreign = f"it was made with answers={made!r}, and here they are {', '.join(others)}"
        if not self._allowed:
            raise CalibrationError(
                f"the calibration is of no use here: {foreign}. Read the answers as it does (answers={made!r}, "
                f"--answers {shlex.quote(made)}), make one with these, of problems like yours ({self._remedy} "
                f"--answers {shlex.quote(others[0])} --dataset FILE), or use this one nevertheless with "
                "allow_mismatch=True (--allow-mismatch)"
            )
        if foreign not in self._told:
            self._told.add(foreign)
            self._warning = self._warning or f"the calibration may not hold here: {foreign}"
