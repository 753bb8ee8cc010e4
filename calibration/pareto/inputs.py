"""What ``pareto.py`` works on: graded records of the problems under test, and what calibration knows of them.

It judges nothing. Calibration is read as it was made, or learned from the records themselves in folds, so that nothing
that decides on a problem has seen it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.collect.__main__ import draw_missing
from adaptive_ttc.calibration.collect.arms import Arm, demand
from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights, load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import pool_key
from adaptive_ttc.calibration.fit.inputs import weights_of
from adaptive_ttc.calibration.fit.pipeline import Settings, calibrate
from adaptive_ttc.calibration.fit.recorded import from_recorded
from adaptive_ttc.calibration.judge.held_out import check_overlap, crossfit
from adaptive_ttc.calibration.judge.replay import Forecaster
from adaptive_ttc.cli.options import answers_of, load_solver, own_calibration
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.artefact import Calibrated, Opening, read_meta
from adaptive_ttc.estimate.gain import GainModel, Posteriors, TableGainModel
from adaptive_ttc.estimate.rule_gain import RuleGainModel
from adaptive_ttc.estimate.table import ComputeOptimalTable, Vote
from adaptive_ttc.evaluation.datasets import Row, load_problems, spaces_of
from adaptive_ttc.stopping.registry import parse_rule
from adaptive_ttc.strategies.adaptive import SAMPLE

INNER = 3
"""Folds in which a calibration that is learned here judges what it keeps."""

AXES = ("flops", "generated+prm", "generated")


@dataclass(frozen=True, slots=True)
class Tested:
    """The problems under test.

    Attributes:
        rows: as they were asked for, those without a record left out.
        records: one a row.
        ratio: parameters of the PRM to those of the policy; 0 without a PRM.
        parameters: of the policy; 0 where it is not known.
        counted: whether PRM tokens are known.
    """

    rows: Sequence[Row]
    records: Sequence[ProblemRecord]
    ratio: float
    parameters: int
    counted: bool = True

    @property
    def scored(self) -> bool:
        """Whether samples have scores."""
        units = (one for record in self.records for one in record.units.get(SAMPLE, ()))
        return any(attempt.scores for one in units for attempt in one.unit.attempts)

    def weights(self, axis: str) -> Weights:
        """What a token costs on an axis, in tokens of the policy.

        Raises:
            ConfigError: the records do not tell PRM tokens.
        """
        if not self.counted and axis != "generated":
            raise ConfigError("the recorded traces do not say how many tokens the PRM took: take --axis generated")
        return weights_of(axis, self.ratio)


@dataclass(frozen=True, slots=True)
class Guide:
    """What calibration knows, for some of the problems.

    Attributes:
        rows: numbers of the problems that it may be used on.
        table: what every arm reaches and costs at every difficulty.
        posteriors: evidence -> probabilities of the bins of difficulty.
        forecast: states -> what may be done next.
        opening: what a problem begins with.
        vote: over all solutions of a problem.
        gain: what forecasts; None where that has no parts to leave out.
        begin: (units, problems, weights) -> forecasts of a new pool with that budget; None where a pool tells nothing.
        measured: whether gains are measured probabilities, of which there is a least that is worth its cost.
    """

    rows: NDArray[np.int64]
    table: ComputeOptimalTable
    posteriors: Posteriors
    forecast: Forecaster
    opening: Opening
    vote: Vote
    gain: GainModel | None = None
    begin: Callable[[float, int, Weights], Forecaster] | None = None
    measured: bool = True


def collected(options: argparse.Namespace, arms: Sequence[Arm], console: Console) -> Tested:
    """Draw what the store lacks of the first problems of the data set, and read it.

    Raises:
        ConfigError: the models cannot run an arm.
        CalibrationError: the store cannot be used, or no problem is complete.
        EngineError: an engine failed for good; what was drawn stays.
    """
    dataset, seed = options.dataset, options.seed or 0
    rows = load_problems(dataset, options.limit, options.seed, answers_of(options))
    wanted = demand(arms)
    load = partial(load_solver, options, seed, spaces=spaces_of(rows))
    with load() as solver, Store(options.store) as store:
        key = pool_key(solver, dataset, rows, seed=seed)
        parameters = solver.policy.parameters
        ratio = 0.0 if solver.prm is None else solver.prm.parameters / max(parameters, 1)
        records = load_records(store, key, rows, wanted)
        missing = {row["unique_id"] for row in rows} - {record.id for record in records}
        if missing:
            asked = argparse.Namespace(**vars(options), max_tokens_total=None, ray=None)
            lacking = [row for row in rows if row["unique_id"] in missing]
            draw_missing(asked, lacking, wanted, store, key, solver, load, console)
            records = load_records(store, key, rows, wanted)
    if not records:
        raise CalibrationError("no problem is complete: give the same command again to go on")
    done = {record.id for record in records}
    return Tested([row for row in rows if row["unique_id"] in done], records, ratio, parameters)


def recorded(options: argparse.Namespace, console: Console) -> Tested:
    """Problems whose samples were recorded earlier; only arms of samples can be judged on them."""
    options = argparse.Namespace(**{**vars(options), "count": None})
    gathered = from_recorded(options)
    for note in gathered.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    counted = gathered.weights.prm > 0 or gathered.models["prm"] is None
    rows = [Row(problem=one.text, answer=one.answer, unique_id=one.id) for one in gathered.records]
    return Tested(rows, gathered.records, gathered.weights.prm, 0, counted)


def calibration_of(options: argparse.Namespace) -> Path | None:
    """The calibration directory that is asked for, or the embedded pair's; None where it is to be cross-fitted."""
    if options.crossfit or options.replay:
        return None
    if options.calibration is not None:
        return Path(options.calibration)
    return own_calibration(options)


def shipped(folder: Path, tested: Tested, allow_overlap: bool) -> tuple[list[Guide], str]:
    """A calibration as it was made, for all problems; and what must be said of it, empty where nothing must.

    Raises:
        CalibrationError: it cannot be read.
        ConfigError: it was fitted on some of these problems.
    """
    calibrated = Calibrated.load(folder)
    overlap = check_overlap(calibrated.meta, tested.rows, allow_overlap)
    difficulty = calibrated.difficulty
    assert difficulty is not None  # a directory always holds one
    everybody, table = np.arange(len(tested.records)), calibrated.table
    opening, vote = calibrated.opening, table.ballot
    gain = calibrated.gain
    return [Guide(everybody, table, difficulty.posteriors, gain.forecasts, opening, vote, gain)], overlap.label


def crossfitted(
    tested: Tested, arms: Sequence[Arm], axis: str, folds: int, seed: int, tell: Callable[[str], None]
) -> list[Guide]:
    """A calibration for every fold, learned from the others.

    Raises:
        CalibrationError: there is nothing to be learned from these problems.
    """
    parts = crossfit(tested.records, folds, seed)
    number = np.array([parts.fold[record.id] for record in tested.records])
    guides = []
    for fold in range(folds):
        tell(f"learning from the others, fold {fold + 1} of {folds}")
        train = parts.training(fold, tested.records)
        guides.append(learned(train, arms, np.flatnonzero(number == fold), tested.weights(axis), seed))
    return guides


def learned(
    records: Sequence[ProblemRecord], arms: Sequence[Arm], rows: NDArray[np.int64], weights: Weights, seed: int
) -> Guide:
    """What some problems teach about others, of these numbers: what :func:`calibrate` keeps, by its own contest."""
    made = calibrate(records, arms, Settings(weights, folds=INNER, seed=seed), "cross-fitted")
    posteriors, opening = made.difficulty.model.posteriors, made.opening
    gain: GainModel = made.gain_model or TableGainModel(made.table, posteriors)
    if made.gain_model is None and made.contest is not None:
        gain = RuleGainModel(parse_rule(made.contest.chosen), opening.generated, scored=opening.scored)
    return Guide(rows, made.table, posteriors, gain.forecasts, opening, made.table.ballot, gain)


def tuning_records(options: argparse.Namespace) -> Sequence[ProblemRecord] | None:
    """Samples of the problems that calibration was fitted on; None where they are not at hand.

    Raises:
        CalibrationError: the store cannot be read, or holds nothing of this pair.
    """
    folder = calibration_of(options)
    if options.tuning_store is None or folder is None:
        return None
    dataset = read_meta(folder)["dataset"]
    name, answers = dataset["name"], answers_of(options)
    rows = load_problems(name, dataset.get("problems"), answers=answers)
    with load_solver(options, 0, spaces=spaces_of(rows)) as solver, Store(options.tuning_store) as store:
        records = load_records(store, pool_key(solver, name, rows), rows, {SAMPLE: options.most})
    if not records:
        raise CalibrationError(f"{options.tuning_store} holds no {options.most} samples of {name} by this pair")
    return records


def tuning_parts(
    groups: Sequence[str], folds: int = 5, seed: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to be tuned on and rows to be judged, where there are no calibration records: every row is judged once.

    ``groups``: of every row; those of one group stay together.
    """
    names, group = np.unique(np.array(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    for part in np.array_split(order, min(folds, len(names))):
        judged = np.isin(group, part)
        yield np.flatnonzero(~judged), np.flatnonzero(judged)
