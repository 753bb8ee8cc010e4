"""What each level of the gain model foretells of problems that it was not fitted to, and how difficulty is told.

    python bench/levels.py --traces FILE... [--problems N...] [--splits S] [--json FILE]
    python bench/levels.py --store FILE [--dataset NAME] [--seed S] [--limit K] [--arms ARM...] [--problems N...]

Three levels are fitted to N problems, together with the vote, and judged on all others, in states that hold votes
alone: ``agreement`` among the votes, ``learned`` (boosted trees and gains by difficulty) and the ``blend`` of both.
Groups of problems (one that several models solved) stay on one side; the N are drawn anew in every split. Of
difficulty, what is told of a problem was fitted to others, in five folds. Without ``--traces`` the samples are those
of the embedded pair in a store, and what it lacks is drawn first.

Figures, means over the splits:

- ``levels.<N>.<level>``: ``brier`` (mean squared distance of the probability of being right from what is), and for
  every kind of unit ``r2.<kind>`` (1 less the squared error of forecast gains over that of forecasting none) and
  ``slope.<kind>`` (of true on forecast gain, by least squares); agreement forecasts samples alone;
- ``states.<N>``, ``fitted.<N>``: states that were judged and problems that were fitted to, of all splits;
- ``difficulty.<stage>``: ``log_loss`` in nats of the posterior over five bins, ``most_probable`` (share of problems in
  the bin that it thinks most probable), ``auc`` (of "harder than the middle": a harder problem ranks above an easier
  one) and ``problems``.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import markdown_table, parser_of, write_report
from numpy.typing import NDArray
from rich.console import Console

from adaptive_ttc.calibration.collect.arms import parse_arms
from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.collect.traces import read_traces
from adaptive_ttc.calibration.fit.accuracy import choose_vote
from adaptive_ttc.calibration.fit.classifier import log_loss
from adaptive_ttc.calibration.fit.difficulty import DifficultyTrainer, crossfitted_difficulty
from adaptive_ttc.calibration.fit.gain import GainLearner
from adaptive_ttc.calibration.fit.recorded import of_equal_size
from adaptive_ttc.calibration.fit.rows import TrainingRows
from adaptive_ttc.calibration.judge.difficulty import Predictions, confusion, held_out_predictions
from adaptive_ttc.calibration.judge.held_out import crossfit
from adaptive_ttc.calibration.pareto.inputs import collected
from adaptive_ttc.cli import exit_code
from adaptive_ttc.cli.options import add_model_options
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.blended_gain import BlendedGainModel, gain_at, only_votes, outlook_of
from adaptive_ttc.estimate.features import Evidence, Reading
from adaptive_ttc.estimate.gain import Action, GainModel
from adaptive_ttc.strategies.adaptive import SAMPLE

Array = NDArray[np.float64]

LEVELS = ("agreement", "learned", "blend")
FOLDS = 5
"""Of the vote and of difficulty."""


@dataclass(frozen=True, slots=True)
class States:
    """States of held-out problems that hold votes alone, and what was tried in them."""

    seen: Sequence[Evidence]
    right: Array  # shape [states]: the answer in hand is right
    owner: NDArray[np.int64]  # shape [trials]: the state
    tried: NDArray[np.int64]  # shape [trials]: number of the action
    gained: Array  # shape [trials]: rise of being right

    @classmethod
    def of(cls, rows: TrainingRows, most: int) -> States:
        """At most so many, evenly spread."""
        votes = np.flatnonzero([only_votes(state) for state in rows.seen])
        kept = votes[:: max(1, -(-len(votes) // most))]
        trials = np.isin(rows.owner, kept)
        owner = rows.owner[trials]
        gained = rows.after[trials] - rows.right[owner]
        seen = [rows.seen[row] for row in kept.tolist()]
        return cls(seen, rows.right[kept], np.searchsorted(kept, owner), rows.tried[trials], gained)


@dataclass(frozen=True, slots=True)
class Told:
    """What a level foretells of states."""

    right: Array  # shape [states]
    gains: Array  # shape [trials]; nan where it forecasts none


def told_by(model: GainModel, states: States, actions: Sequence[Action]) -> Told:
    """By the options of its forecasts."""
    forecasts = model.forecasts(states.seen)
    gain_of = [{option.action: option.gain for option in one.options} for one in forecasts]
    pairs = zip(states.owner.tolist(), states.tried.tolist(), strict=True)
    gains = [gain_of[owner].get(actions[tried], np.nan) for owner, tried in pairs]
    return Told(np.array([one.right or 0.0 for one in forecasts]), np.array(gains))


def told_by_agreement(model: BlendedGainModel, states: States, actions: Sequence[Action]) -> Told:
    """By the general level of a blend: its gains before options are made of them, for any number of samples."""
    outlooks = [outlook_of(model.agreement, state) for state in states.seen]
    pairs = zip(states.owner.tolist(), states.tried.tolist(), strict=True)
    gains = [
        gain_at(outlooks[owner], actions[tried].count) if actions[tried].kind == SAMPLE else np.nan
        for owner, tried in pairs
    ]
    return Told(np.array([one.right for one in outlooks]), np.array(gains))


def judged(told: Told, states: States, actions: Sequence[Action]) -> dict[str, float]:
    """The figures of a level."""
    found = {"brier": float(np.mean((told.right - states.right) ** 2))}
    kinds = np.array([action.kind for action in actions])[states.tried]
    for kind in sorted(set(kinds.tolist())):
        some = (kinds == kind) & ~np.isnan(told.gains)
        if some.any():
            forecast, true = told.gains[some], states.gained[some]
            found[f"r2.{kind}"] = float(1 - np.mean((true - forecast) ** 2) / max(np.mean(true**2), 1e-12))
            found[f"slope.{kind}"] = float(np.cov(forecast, true, bias=True)[0, 1] / max(np.var(forecast), 1e-12))
    return found


def chosen(records: Sequence[ProblemRecord], problems: int, seed: int) -> list[int]:
    """Numbers of at least so many problems of random groups; ConfigError where hardly any others are left."""
    groups = np.array(groups_of(records))
    found: list[int] = []
    for name in np.random.default_rng(seed).permutation(np.unique(groups)).tolist():
        if len(found) >= problems:
            break
        found += np.flatnonzero(groups == name).tolist()
    if 5 * len(found) > 4 * len(records):
        raise ConfigError(f"of {len(records)} problems a fifth must be left to judge by: name fewer than {problems}")
    return sorted(found)


def split(
    records: Sequence[ProblemRecord], problems: int, seed: int, most: int
) -> tuple[dict[str, dict[str, float]], int]:
    """Figures of every level that is fitted to so many problems, and the number of states they are judged by."""
    fitted = chosen(records, problems, seed)
    train = [records[number] for number in fitted]
    folds = crossfit(train, FOLDS, seed)
    vote = choose_vote(train, np.array([folds.fold[record.id] for record in train]), seed=seed).vote
    learner = GainLearner.of(records, vote)
    model = learner.blended(fitted)
    if not isinstance(model, BlendedGainModel):
        raise CalibrationError("no samples to blend by: take traces with several samples a problem")
    held = sorted(set(range(len(records))) - set(fitted))
    states, actions = States.of(learner.rows.of(held), most), learner.actions
    told = {
        "agreement": told_by_agreement(model, states, actions),
        "learned": told_by(model.learned, states, actions),
        "blend": told_by(model, states, actions),
    }
    return {level: judged(one, states, actions) for level, one in told.items()}, len(states.seen)


def levels(
    records: Sequence[ProblemRecord], problems: Sequence[int], options: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Figures of the levels: mean over splits."""
    found: dict[str, Any] = {"levels": {}, "states": {}, "fitted": {}}
    for number in problems:
        figures: dict[str, dict[str, list[float]]] = {level: defaultdict(list) for level in LEVELS}
        states = 0
        for seed in range(options.splits):
            console.print(f"{number} problems, split {seed + 1} of {options.splits}")
            one, looked = split(records, number, seed, options.states)
            states += looked
            for level in LEVELS:
                for name, value in one[level].items():
                    figures[level][name].append(value)
        found["levels"][str(number)] = {
            level: {name: float(np.mean(values)) for name, values in one.items()} for level, one in figures.items()
        }
        found["states"][str(number)] = states
        found["fitted"][str(number)] = sum(len(chosen(records, number, seed)) for seed in range(options.splits))
    return found


def difficulty(records: Sequence[ProblemRecord], seed: int) -> dict[str, dict[str, float]]:
    """Figures of the classifiers of difficulty, on problems that they were not fitted to."""
    trainer = DifficultyTrainer(records, Reading())
    crossed = crossfitted_difficulty(records, crossfit(records, FOLDS, seed), trainer)
    return {stage: told_difficulty(one) for stage, one in held_out_predictions(crossed, records, trainer).items()}


def told_difficulty(found: Predictions) -> dict[str, float]:
    """Of one stage."""
    table = confusion(found)
    return {
        "log_loss": log_loss(found.posterior, found.soft, found.weight),
        "most_probable": float(np.trace(table) / table.sum()),
        "auc": soft_auc(harder(found.posterior), harder(found.soft), found.weight),
        "problems": len(set(found.problem.tolist())),
    }


def harder(bins: Array) -> Array:
    """P(harder than the middle) of probabilities of five bins: half of the middle one counts. Shape [rows]."""
    return np.asarray(1 - np.cumsum(bins, axis=1)[:, 1:3].mean(axis=1))


def soft_auc(scores: Array, label: Array, weight: Array) -> float:
    """P(a positive ranks above a negative), equal scores counting half, where a row is positive with probability
    ``label``; all of shape [rows].
    """
    _, rank = np.unique(scores, return_inverse=True)
    positive, negative = np.bincount(rank, weight * label), np.bincount(rank, weight * (1 - label))
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))


def level_table(found: Mapping[str, Any]) -> str:
    """A row for every number of problems and every kind of unit: R2 and slope of each level, its Brier score first."""
    rows = []
    for number, by_level in found["levels"].items():
        rows.append([f"{number}: Brier score", *(f"{by_level[level]['brier']:.3f}" for level in LEVELS)])
        kinds = sorted({name.partition(".")[2] for name in by_level["learned"] if name.startswith("r2.")})
        for kind in kinds:
            rows.append([f"{number}: R2 (slope) of `{kind}`", *(_gains(by_level[level], kind) for level in LEVELS)])
    return markdown_table(["fitted to", *LEVELS], rows)


def _gains(figures: Mapping[str, float], kind: str) -> str:
    if f"r2.{kind}" not in figures:
        return ""
    return f"{figures[f'r2.{kind}']:.3f} ({figures[f'slope.{kind}']:.2f})"


def difficulty_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """A row a stage."""
    rows = [
        [stage, f"{one['log_loss']:.3f}", f"{one['most_probable']:.2f}", f"{one['auc']:.2f}"]
        for stage, one in found.items()
    ]
    return markdown_table(["evidence", "log loss", "most probable", "AUC"], rows)


def run(options: argparse.Namespace) -> None:
    """Read, measure, print."""
    console = Console(stderr=True)
    if options.traces:
        records, notes = of_equal_size(read_traces(options.traces).records[: options.limit])
    else:
        records, notes = list(collected(options, parse_arms(options.arms), console).records), []
    for note in notes:
        console.print(f"note: {note}")
    found = levels(records, options.problems, options, console)
    print(level_table(found), end="\n\n", flush=True)
    if options.difficulty:
        console.print("difficulty")
        found["difficulty"] = difficulty(records, options.seed or 0)
        print(difficulty_table(found["difficulty"]))
    write_report(options.json, "levels", {"problems": len(records), **found})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    parser.add_argument("--traces", nargs="+", type=Path, metavar="FILE", help="see docs/traces.md")
    parser.add_argument("--problems", nargs="*", type=int, default=[30, 100], metavar="N", help="fitted to (30 100)")
    parser.add_argument("--splits", type=int, default=2, help="random choices of these (%(default)s)")
    parser.add_argument("--states", type=int, default=2_000, help="to judge by, at most, a split (%(default)s)")
    parser.add_argument("--no-difficulty", dest="difficulty", action="store_false", help="leave difficulty out")
    parser.add_argument("--limit", type=int, metavar="K", help="problems, from the first on (default: all)")
    parser.add_argument("--store", type=Path, default=Path("runs/levels/units.sqlite"), metavar="FILE")
    parser.add_argument("--dataset", default="minimath-500", help="of the store: name or file (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of fresh problems of the data set, and of other samples")
    parser.add_argument(
        "--arms", nargs="+", default=["greedy", "majority:16"], metavar="ARM", help="whose units are read of the store"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that draw")
    parser.add_argument("--concurrency", type=int, default=8, metavar="K", help="problems at once, a worker")
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="what was drawn is kept")


if __name__ == "__main__":
    sys.exit(main())
