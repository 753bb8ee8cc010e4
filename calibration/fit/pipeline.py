"""From graded records to a calibration: vote, curves, classifiers, gain model, and their quality on unseen problems.

Everything reported was predicted for problems by what was fitted without them; what is shipped is fitted on all. Three
choices are made once, on all problems, and hold in every fold: the vote (what it reaches out of fold is reported), the
kinds of work on offer, and what problems are begun with (by a second policy only if that is better on problems that its
threshold was not chosen on). Choosing these in each fold would take a measurement of every arm, and rows of replays,
for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.calibration.collect.arms import Arm
from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights
from adaptive_ttc.calibration.fit.accuracy import (
    BinCurves,
    Curves,
    VoteChoice,
    answerable,
    by_bins,
    choose_vote,
    measure,
)
from adaptive_ttc.calibration.fit.difficulty import (
    Bins,
    Difficulty,
    DifficultyTrainer,
    check_counts,
    check_enough,
    counts_of,
    crossfitted_difficulty,
)
from adaptive_ttc.calibration.fit.gain import GainLearner, Learned
from adaptive_ttc.calibration.fit.rows import GainSettings
from adaptive_ttc.calibration.judge import gains
from adaptive_ttc.calibration.judge.contest import OUTLOOK, Contest, Outlooks, ballot_of, contest, shipped
from adaptive_ttc.calibration.judge.difficulty import (
    StageMetrics,
    held_out_predictions,
    importances,
    measured_difficulty,
)
from adaptive_ttc.calibration.judge.held_out import CrossFitted, Folds, at_most, crossfit, text_digest
from adaptive_ttc.calibration.judge.kinds import Offer, offered
from adaptive_ttc.calibration.judge.openings import OpeningReplays, judged_opening
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.gain import TableGainModel
from adaptive_ttc.estimate.table import Cells, ComputeOptimalTable, TableArm, Vote
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE
from adaptive_ttc.strategies.base import AGGREGATIONS
from adaptive_ttc.types import Aggregation

Array = NDArray[np.float64]
Tell = Callable[[str], None]


REPLAYED = 300  # problems on which adaptive runs are replayed, about; of as few folds as hold so many


@dataclass(frozen=True, slots=True)
class Settings:
    """How a calibration is fitted."""

    weights: Weights  # what a token costs, in tokens of the policy
    folds: int = 5  # of the cross-fitting
    seed: int = 0  # of folds, subsets, replays and estimators
    # mean units a problem at which choices are judged; None for a grid over what the arms cost
    budgets: Sequence[float] | None = None
    aggregations: tuple[Aggregation, ...] = AGGREGATIONS  # by which step scores may be reduced
    doubted: bool = False  # whether scores are a policy's own confidence, which cost nothing and must prove their worth
    learning: GainSettings = field(default_factory=GainSettings)  # of the gain model


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that was learned, and its quality."""

    settings: Settings  # how
    problems: tuple[str, ...]  # ids of those that it was fitted on
    digests: tuple[str, ...]  # of their texts
    table: ComputeOptimalTable  # what every arm reaches and costs
    difficulty: Difficulty  # bins, and classifiers of all stages
    gain_model: Learned | AgreementGainModel | None  # what more work brings; None: as the table or a rule says
    contest: Contest | None  # of rules, where samples are all that is drawn; None where searches are
    opening: Opening  # what a problem is begun with
    openings: OpeningReplays | None  # by either policy of a cascade; None for one policy
    offer: Offer  # kinds of units that the gain model knows, and why it knows no others
    vote: VoteChoice  # what was chosen, and what the others reach
    curves: Curves  # every arm on every problem
    by_bin: BinCurves  # and in every bin
    left_out: tuple[Arm, ...]  # arms that the records do not answer
    stages: Mapping[str, StageMetrics]  # metrics of the classifiers on unseen problems
    # of groups of features to them there, see :mod:`adaptive_ttc.calibration.judge.difficulty`
    importances: Mapping[str, Mapping[str, float]]
    gain: gains.DifficultyGain  # what knowing the difficulty is worth there
    adaptive: gains.AdaptiveComparison  # learned gain model against table there
    seconds: float  # that fitting took


def calibrate(
    records: Sequence[ProblemRecord],
    arms: Sequence[Arm],
    settings: Settings,
    source: str = "",
    tell: Tell = lambda what: None,
) -> Calibration:
    """Fit everything; arms that the records do not answer are left out and named.

    ``source`` says where the records come from; ``tell`` is called with the name of each part before it begins.
    """
    began = time.perf_counter()
    tell("choosing the vote")
    _check(records, settings.folds)
    folds = crossfit(records, settings.folds, settings.seed)
    choice = _chosen_vote(records, folds, settings)
    tell("measuring every arm")
    able, left_out = answerable(records, arms)
    curves = measure(records, able, vote := choice.vote, seed=settings.seed)
    tell("learning difficulty")
    trainer = DifficultyTrainer(records, vote.reading)
    crossed = crossfitted_difficulty(records, folds, trainer)
    difficulty = trainer.train(list(records))
    by_bin = by_bins(curves, membership(records, difficulty.bins), seed=settings.seed)
    table = table_of(curves, by_bin, difficulty.bins, vote, records, source)
    tell("judging choices by difficulty")
    budgets = settings.budgets or gains.budget_grid(curves, settings.weights, 10)
    parts = _parts(records, folds, crossed, trainer, curves, settings.seed)
    gain = gains.difficulty_gain(curves, parts, settings.weights, budgets, gains.probe_costs(records, settings.weights))
    tell("learning what more work brings")
    offer = offered(curves, by_bin, settings.weights)
    learner = GainLearner.of(records, vote, settings.learning, offer.kinds)
    fold_models = list(_fold_models(records, crossed, parts, curves, learner, vote, source, settings.seed, tell))
    tell("replaying adaptive runs on unseen problems")
    opening, replayed = judged_opening(records, curves, fold_models, vote, settings.weights, settings.seed)
    met = gains.compare_adaptive(fold_models, vote, settings.weights, _inner(budgets), opening, settings.seed)
    outlooks = Outlooks([one.learned for one in fold_models], vote) if _only_samples(records, offer) else None
    tell("fitting on all problems" + ("" if outlooks is None else ", and comparing rules on unseen ones"))
    won, model, table, opening = _contended(records, outlooks, learner, met.keeps_learned, table, opening, settings)
    return Calibration(
        settings=settings,
        problems=tuple(record.id for record in records),
        digests=tuple(text_digest(record.text) for record in records),
        table=table,
        difficulty=difficulty,
        gain_model=model,
        contest=won,
        opening=opening,
        openings=replayed,
        offer=offer,
        vote=choice,
        curves=curves,
        by_bin=by_bin,
        left_out=tuple(left_out),
        stages=measured_difficulty(records, crossed, trainer),
        importances=importances(crossed, records, trainer, settings.seed),
        gain=gain,
        adaptive=met,
        seconds=time.perf_counter() - began,
    )


def _chosen_vote(records: Sequence[ProblemRecord], folds: Folds, settings: Settings) -> VoteChoice:
    return choose_vote(
        records,
        _numbers(records, folds),
        seed=settings.seed,
        aggregations=settings.aggregations,
        doubted=settings.doubted,
    )


def _only_samples(records: Sequence[ProblemRecord], offer: Offer) -> bool:
    """Whether samples are all that is drawn, so that rules for samples may be compared."""
    return set(offer.kinds) <= {GREEDY, SAMPLE} and all(record.units.get(SAMPLE) for record in records)


def _contended(
    records: Sequence[ProblemRecord],
    outlooks: Outlooks | None,
    learner: GainLearner,
    keeps_learned: bool,
    table: ComputeOptimalTable,
    opening: Opening,
    settings: Settings,
) -> tuple[Contest | None, Learned | AgreementGainModel | None, ComputeOptimalTable, Opening]:
    """With ``outlooks``, where samples are all that is drawn: the contest of rules, the winner's forecasts (None where
    a published rule won), the table with its vote, and an opening that is a vote. Elsewhere what is learned, if it is
    kept, and all else as it is.
    """
    if outlooks is None:
        return None, learner.blended() if keeps_learned else None, table, opening
    vote = table.ballot
    scored = (settings.weights.prm > 0 or settings.doubted) and vote.name != "majority"
    won = contest(
        records,
        agg_strategy=vote.agg_strategy,
        scored=scored,
        outlooks=outlooks,
        folds=settings.folds,
        seed=settings.seed,
    )
    opening = replace(opening, kind=SAMPLE)
    if won.chosen == OUTLOOK:
        return won, learner.blended(), table, opening
    model = shipped(won, records, agg_strategy=vote.agg_strategy, scored=scored, edges=table.edges)
    return won, model, table if model is None else replace(table, ballot=ballot_of(model, vote)), opening


def _numbers(records: Sequence[ProblemRecord], folds: Folds) -> NDArray[np.int64]:
    return np.array([folds.fold[record.id] for record in records])


def _inner(budgets: Sequence[float]) -> Sequence[float]:
    """Every second budget without the ends, where choices hardly differ; all where there are few."""
    return budgets[1:-1:2] if len(budgets) > 4 else budgets


def _fold_models(
    records: Sequence[ProblemRecord],
    crossed: CrossFitted[Difficulty],
    parts: Sequence[gains.Fold],
    curves: Curves,
    learner: GainLearner,
    vote: Vote,
    source: str,
    seed: int,
    tell: Tell,
) -> Iterator[gains.FoldModels]:
    """Both gain models of every fold that is replayed, fitted on the other folds; at most :data:`REPLAYED` of the
    problems, about, drawn by the hash that folds use.
    """
    needed = min(len(parts), -(-REPLAYED * len(parts) // len(records)))
    most = -(-REPLAYED // needed)
    for number, ((held, part), fold) in enumerate(zip(crossed.held_out(records), parts[:needed], strict=False)):
        tell(f"learning what more work brings, fold {number + 1} of {needed}")
        train = [records[row] for row in fold.train]
        table = table_of(curves.rows(fold.train), fold.bins, held.bins, vote, train, source)
        yield gains.FoldModels(
            at_most(part, most, seed),
            TableGainModel(table, held.model.posteriors),
            learner.blended(fold.train.tolist()),
        )


def _check(records: Sequence[ProblemRecord], folds: int) -> None:
    """Refuse what would fail later, when the problems outside a fold are counted."""
    check_enough(len(records), folds)
    check_counts(counts_of(records))


def membership(records: Sequence[ProblemRecord], bins: Bins) -> Array:
    """P(problem is in bin), by its own counts, shape [problems, bins]."""
    counts = counts_of(records)
    return bins.soft(counts.right, counts.drawn)


def table_of(
    curves: Curves, by_bin: BinCurves, bins: Bins, vote: Vote, records: Sequence[ProblemRecord], source: str
) -> ComputeOptimalTable:
    """The table of arms measured on these problems."""
    share = membership(records, bins).mean(axis=0)
    names = ("accuracy", "shrunk", "low", "high", "generated", "prm")
    cells = {name: tuple(tuple(row) for row in getattr(by_bin, name).tolist()) for name in names}
    return ComputeOptimalTable(
        arms=tuple(
            TableArm(arm.name, arm.strategy, {} if arm.strategy == "greedy" else arm.options, arm.kind, arm.units)
            for arm in curves.arms
        ),
        cells=Cells(**cells),
        share=tuple((share / share.sum()).tolist()),
        edges=tuple(float(edge) for edge in bins.edges),
        ballot=vote,
        problems=len(records),
        source=source,
    )


def _parts(
    records: Sequence[ProblemRecord],
    folds: Folds,
    crossed: CrossFitted[Difficulty],
    trainer: DifficultyTrainer,
    curves: Curves,
    seed: int,
) -> list[gains.Fold]:
    """Every fold with the table of the others, and the posterior of its problems after four first steps."""
    row_of = {record.id: row for row, record in enumerate(records)}
    held_out = held_out_predictions(crossed, records, trainer)
    probed = held_out.get("first_steps_4")
    posterior = None
    if probed is not None:
        posterior = np.zeros((len(records), probed.posterior.shape[1]))
        rows = [row_of[id] for id in probed.problem.tolist()]
        np.add.at(posterior, rows, probed.posterior * probed.weight[:, None])
        posterior /= np.maximum(posterior.sum(axis=1, keepdims=True), 1e-12)
    parts = []
    for difficulty, part in crossed.held_out(records):
        out = np.array([row_of[record.id] for record in part])
        train = np.array([row for row in range(len(records)) if row not in set(out.tolist())])
        others = [records[row] for row in train]
        counts = counts_of(part)
        parts.append(
            gains.Fold(
                held_out=out,
                train=train,
                bins=by_bins(curves.rows(train), membership(others, difficulty.bins), seed=seed),
                oracle=difficulty.bins.soft(counts.right, counts.drawn).argmax(axis=1),
                posterior=None if posterior is None else posterior[out],
            )
        )
    return parts
