"""Accuracy against compute: ours beside every strategy, published rules, a bin table and an oracle, on test problems.

    adaptive-ttc pareto [--store FILE] [--calibration DIR | --crossfit] [--axis flops|generated+prm|generated]
                        [--quick] [--limit K] [--seed S] [--policy MODEL --prm MODEL] [--replay TRACES...]
                        [--reference-policy mini-large] [--json FILE] [--results FILE] [--pictures DIR]

Every problem has a pool of graded units in the store, drawn where they are missing; a run that ends early goes on when
the same command is given again. Strategies are expectations over those pools; rules that look at what came, ours among
them, are replayed over random orders of them, which is exact while no more is drawn than there is. What a rule knows
beforehand (arms, thresholds, caps, ours: the calibration) comes from other problems than it is judged on. Ours is run
live at three budgets too. ``pareto.png``, ``.svg``, ``.html`` and ``.csv`` go into --out.

Figures, in the units of the axis (``flops``: tokens weighted by the models' parameters, in tokens of the policy):

``axis``, ``problems``, ``budgets``
    mean units a problem, from one sample to 64 scored ones.
``curves``: [{name, axis, points: [{budget, cost, accuracy, low, high}]}]
    at those budgets; between two settings of a rule a share of the problems is given the dearer one. ``settings``: the
    same for the settings themselves, with a ``label``.
``targets``, ``cost_to_reach``: {target: accuracy}, {target: {curve: cost}}
    at 90 and 95 % of the best fixed curve's rise from its cheapest arm to its maximum; null where it is never reached.
``ratio``: {target: {curve: {value, low, high}}}
    cost of ours (one budget) to that of the curve, paired; null where it is infinite or neither gets there.
``ratio_to_fixed_arm``: {target: {arm, cost, accuracy, value, low, high}}
    to the cheapest arm that reaches the target on calibration problems.
``equal_accuracy``: {curve: {accuracy, value, low, high}}
    the same ratio at 95 % of the curve's own rise.
``cold_start``: {target: {value, low, high}}
    cost of ours without a calibration (``ours_cold``) to ours with one, paired.
``oracle_gain_kept``
    share of the gain in accuracy of ``oracle`` over the best fixed arm, over the budgets at which it gains 5 points.
``log_saving_kept``: {oracle: {target: {value, low, high}}}
    share of an oracle's saving over the best fixed curve, in the logarithm of cost: ``oracle`` knows what every arm
    reached on the very problem, by luck or not, ``rate_oracle`` its pass rate, and ``table_oracle`` the bin of that
    rate.
``difference_from_best_fixed``, ``significantly_below_best_fixed``
    ours less the best fixed arm at every budget, paired; budgets at which that interval is below 0.
``each_less_best_fixed``
    the same of ours with a budget for each problem.
``live``: [{budget, cost, accuracy, low, high, replayed, difference, agrees}]
``reference``: {name, greedy_cost, passed_at}
    of the larger policy, and what ours costs where it is as right.
``ablation``: {part: {all, budgets: [{budget, mean, low, high}]}}
    what ours (one budget) loses without a part of what it knows (``calibration/pareto/ablation.py``); --ablation.
``overspent``
    units beyond a budget, over all runs, replayed and live.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.collect.arms import Arm, default_arms
from adaptive_ttc.calibration.collect.records import Weights, groups_of
from adaptive_ttc.calibration.fit.accuracy import Curves, answerable, measure
from adaptive_ttc.calibration.fit.recorded import name_of, recorded_arms
from adaptive_ttc.calibration.judge.held_out import add_overlap_option
from adaptive_ttc.calibration.pareto import inputs, rules
from adaptive_ttc.calibration.pareto.ablation import ablation, ablation_figures, ablation_table
from adaptive_ttc.calibration.pareto.curves import OURS, TARGETS, Findings, Line, Point, Reference, cost_to_reach
from adaptive_ttc.calibration.pareto.figures import figures_of
from adaptive_ttc.calibration.pareto.inputs import Guide, Tested, calibration_of, collected, tuning_records
from adaptive_ttc.calibration.pareto.pooled import in_pool, pooled_lines
from adaptive_ttc.calibration.pareto.sampling_rules import sampling_lines
from adaptive_ttc.cli import Parser, exit_code
from adaptive_ttc.cli.options import add_model_options, load_solver, second_of
from adaptive_ttc.display.progress import progress
from adaptive_ttc.errors import CalibrationError, ConfigError, install_command
from adaptive_ttc.evaluation.datasets import spaces_of
from adaptive_ttc.evaluation.markdown import command, write_section
from adaptive_ttc.evaluation.result_file import writable, write_record
from adaptive_ttc.strategies.adaptive import SAMPLE

try:
    from adaptive_ttc.calibration.pareto.report import csv_text, draw, overview, page, section, sentences
except ModuleNotFoundError as error:
    raise ConfigError(f"the pictures need {error.name}: {install_command('plot')}") from None

DATASET = "minimath-500"
LIMIT = 200
MOST = 64
LIVE = (0.25, 0.6)
"""Where on the grid of budgets live runs lie: where ours differs from its rivals, and engines are done in minutes."""

QUICK = {"limit": 60, "most": 32, "budgets": 8, "decks": 1, "live": 1}


def main(arguments: Sequence[str] | None = None, prog: str = "python bench/pareto.py") -> int:
    """Run it: 0, 1 when an engine failed, 2 when what is asked for is impossible, 130 after Ctrl-C.

    ``prog``: how it was called, for its help.
    """
    options = parser(prog).parse_args(arguments)
    if options.quick:
        options = argparse.Namespace(**{**vars(options), **QUICK})
    return exit_code(
        lambda: run(options, Console()),
        interrupted=f"what was drawn is kept in {options.store}, and the same command goes on",
        impossible=(ConfigError, CalibrationError),
    )


def parser(prog: str = "python bench/pareto.py") -> argparse.ArgumentParser:
    """The command line."""
    description = (__doc__ or "").replace("adaptive-ttc pareto", prog)
    command = Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--json", type=Path, metavar="FILE", help="write the figures to this file")
    add("--axis", choices=inputs.AXES, help=f"what cost counts (default: {inputs.AXES[0]}, as far as it is recorded)")
    add("--dataset", default=DATASET, help="name or file (default: %(default)s)")
    add("--limit", type=int, metavar="K", help=f"problems (default: {LIMIT}; of recorded samples, all)")
    add("--seed", type=int, help="draw fresh problems and other samples")
    add("--store", type=Path, default=Path("runs/pareto/units.sqlite"), metavar="FILE", help="of units (%(default)s)")
    add("--workers", type=int, default=2, metavar="W", help="processes that draw (default: %(default)s)")
    add("--concurrency", type=int, default=8, metavar="K", help="problems at once, a worker (default: %(default)s)")
    add("--most", type=int, metavar="N", help=f"N of the largest arm (default: {MOST}; of recorded samples, all)")
    add("--quick", action="store_true", help="60 problems and N up to 32: about two minutes")
    add(
        "--replay",
        type=Path,
        nargs="+",
        metavar="TRACES",
        help="judge recorded samples, of one file or several; implies --crossfit",
    )
    add("--crossfit", action="store_true", help="learn calibration from the problems, in folds")
    add("--folds", type=int, default=5, metavar="K", help="of --crossfit and of tuning (default: %(default)s)")
    add(
        "--tuning-store",
        type=Path,
        metavar="FILE",
        help="units that calibration was fitted on: published rules are tuned on them, not in folds of the problems",
    )
    add("--budgets", type=int, default=12, metavar="K", help="of the grid (default: %(default)s)")
    add("--decks", type=int, default=4, metavar="K", help="random orders of ours (default: %(default)s)")
    add("--ablation", action="store_true", help="ours without parts of what it knows, too")
    add("--live", type=int, default=3, metavar="K", help="budgets of live runs (default: %(default)s)")
    add("--reference-policy", metavar="MODEL", help="a larger policy, such as mini-large")
    add("--out", type=Path, default=Path("runs/pareto"), metavar="DIR", help="(default: %(default)s)")
    add("--results", type=Path, metavar="FILE", help="write the tables into this Markdown file")
    add("--pictures", type=Path, metavar="DIR", help="where the figures go (default: --out)")
    add_overlap_option(command)
    add_model_options(command)
    return command


def run(options: argparse.Namespace, console: Console) -> None:
    """Draw what is missing, judge, show and write.

    Raises:
        AdaptiveTTCError: what is asked for is impossible, or an engine failed.
    """
    if second_of(options) is not None:
        raise ConfigError("the curves are of one policy: leave out --second; --reference-policy draws a larger one")
    if options.json is not None:
        writable(options.json)
    least = [number for number in (options.limit, options.most) if number is not None]
    if min(options.decks, options.workers, *least) < 1 or options.budgets < 2:
        raise ConfigError("--limit, --most, --decks and --workers are at least 1, --budgets at least 2")
    options, tested, arms = gathered(options, console)
    stem = stem_of(options)
    with progress("judged") as meter:
        found = judged(options, tested, arms, console, lambda what: meter.advance(note=what))
    console.print(overview(found))
    for told in [*found.notes, *sentences(found)]:
        console.print(Text(told))
    pictures = draw(found, (options.pictures or options.out) / f"{stem}.png")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{stem}.csv").write_text(csv_text(found), encoding="utf-8")
    (options.out / f"{stem}.html").write_text(page(found, pictures[1]), encoding="utf-8")
    if found.ablations:
        console.print(Text(ablation_table(found.line(OURS), found.ablations, found.groups)), soft_wrap=True)
    console.print(Text(f"written: {', '.join(map(str, pictures))}, {options.out / stem}.html, .csv"))
    if options.json is not None:
        figures = figures_of(found) | {"ablation": ablation_figures(found.line(OURS), found.ablations, found.groups)}
        write_record(options.json, "pareto", command(), figures)
    if options.results is not None:
        table = [ablation_table(found.line(OURS), found.ablations, found.groups)] if found.ablations else []
        write_section(options.results, stem, "\n\n".join([section(found, pictures, options.results), *table]))


def gathered(options: argparse.Namespace, console: Console) -> tuple[argparse.Namespace, Tested, list[Arm]]:
    """The options with their defaults, the problems under test, and the arms."""
    if options.replay:
        tested = inputs.recorded(options, console)
        defaults = {"axis": inputs.AXES[0] if tested.counted else "generated", "most": MOST}
        arms = recorded_arms(tested.records, options.most)
    else:
        tested, defaults = None, {"axis": inputs.AXES[0], "limit": LIMIT, "most": MOST}
        arms = default_arms(options.most or MOST)
    given = {name: value for name, value in vars(options).items() if value is not None or name not in defaults}
    options = argparse.Namespace(**{**defaults, **given})
    return options, tested or collected(options, arms, console), arms


Tell = Callable[[str], None]


def judged(options: argparse.Namespace, tested: Tested, arms: Sequence[Arm], console: Console, tell: Tell) -> Findings:
    """Ours and all rivals on the same problems.

    Raises:
        AdaptiveTTCError: what is asked for is impossible, or an engine failed.
    """
    weights, seed, records = tested.weights(options.axis), options.seed or 0, tested.records
    guides, notes = known(options, tested, arms, tell)
    guides = list(map(in_pool, guides))
    curves = measured_arms(tested, guides, arms, seed)
    tuned_on = tuning_records(options)
    where = "on calibration problems" if tuned_on is not None else f"in {options.folds} folds of these problems"
    notes.append(f"Settings of published rules were chosen {where}.")
    tell("strategies and bin tables")
    lines = fixed_lines(tested, guides, curves, weights, seed)
    tell("published rules")
    lines += sampling_lines(
        records, tuned_on, guides[0].vote, weights, scored=tested.scored, folds=options.folds, seed=seed
    )
    lines.append(rules.joined([(np.arange(len(records)), rules.oracle_rates(curves, records, weights))]))
    lines.append(rules.joined([(np.arange(len(records)), rules.oracle(curves, weights))]))
    cost = curves.cost(weights).mean(axis=0)
    budgets = tuple(np.geomspace(cost.min(), cost.max(), options.budgets).tolist())
    together = rules.replays(OURS, rules.shared, records, guides, weights, budgets, options.decks, tell)
    alone = rules.replays("ours", rules.alone, records, guides, weights, budgets, max(1, options.decks // 2), tell)
    pooled = []
    if all(record.units.get(SAMPLE) for record in records):
        few = max(1, options.decks // 4)
        pooled = pooled_lines(records, weights, budgets, few, tell, scored=tested.scored)
    found = Findings(
        axis=options.axis,
        budgets=budgets,
        lines=(*lines, *(one.line for one in pooled), alone.line, together.line),
        arms=cheapest_arms(guides, curves, weights),
        overspent=together.overspent + alone.overspent + sum(one.overspent for one in pooled),
        notes=tuple(notes),
        groups=tuple(groups_of(records)),
    )
    if options.ablation:
        found = replace(found, ablations=ablation(records, guides, weights, budgets, options.decks, tell))
    return with_runs(found, options, tested, console, tell)


def known(
    options: argparse.Namespace, tested: Tested, arms: Sequence[Arm], tell: Tell
) -> tuple[list[Guide], list[str]]:
    """What calibration knows, and what must be said of it."""
    folder = calibration_of(options)
    if folder is None:
        note = f"Calibration was cross-fitted in {options.folds} folds of these problems."
        return inputs.crossfitted(tested, arms, options.axis, options.folds, options.seed or 0, tell), [note]
    guides, label = inputs.shipped(folder, tested, options.allow_overlap)
    return guides, [label] if label else []


def measured_arms(tested: Tested, guides: Sequence[Guide], arms: Sequence[Arm], seed: int) -> Curves:
    """Every arm that the records answer, on every problem; searches vote as its guide has it."""
    able, _ = answerable(tested.records, arms)
    n = len(tested.records)
    accuracy, generated, prm = (np.zeros((n, len(able))) for _ in range(3))
    for guide in guides:
        part = measure([tested.records[row] for row in guide.rows], able, guide.vote, seed=seed)
        accuracy[guide.rows], generated[guide.rows], prm[guide.rows] = part.accuracy, part.generated, part.prm
    ids, groups = tuple(record.id for record in tested.records), tuple(groups_of(tested.records))
    return Curves(tuple(able), ids, accuracy, generated, prm, groups)


def fixed_lines(tested: Tested, guides: Sequence[Guide], curves: Curves, weights: Weights, seed: int) -> list[Line]:
    """Strategies, the best fixed arm, and the bin table with true and with predicted bins."""
    parts = [
        (one, rules.known_arms(curves.rows(one.rows), one.table), [tested.records[row] for row in one.rows])
        for one in guides
    ]
    predicted = [
        (one.rows, rules.predicted_bins(known, one.table, one.posteriors, own, weights, seed))
        for one, known, own in parts
    ]
    told = [(rows, line) for rows, line in predicted if line is not None]
    return [
        *rules.strategy_lines(curves, weights),
        rules.joined([(one.rows, rules.best_fixed(known, one.table, weights)) for one, known, _ in parts]),
        rules.joined([(one.rows, rules.oracle_bins(known, one.table, own, weights)) for one, known, own in parts]),
        *([rules.joined(told)] if len(told) == len(predicted) else []),  # some records hold no first steps
    ]


def cheapest_arms(guides: Sequence[Guide], curves: Curves, weights: Weights) -> dict[float, Point]:
    """The cheapest arm that reaches each target on calibration problems."""
    parts = [(one, rules.known_arms(curves.rows(one.rows), one.table)) for one in guides]
    return {
        share: rules.joined_points(
            [(one.rows, rules.cheapest_arm(known, one.table, weights, share)) for one, known in parts]
        )
        for share in TARGETS
    }


def with_runs(found: Findings, options: argparse.Namespace, tested: Tested, console: Console, tell: Tell) -> Findings:
    """With what has to be run: ours live, and the larger policy."""
    own = found.line(OURS)
    if options.live and calibration_of(options) is not None:
        tell("live")
        places = np.unique((np.linspace(*LIVE, options.live) * (len(found.budgets) - 1)).round().astype(int))
        budgets = [found.budgets[place] for place in places]
        load = partial(load_solver, options, options.seed or 0, spaces=spaces_of(tested.rows))
        found = replace(found, live=rules.live_points(load, tested, options.axis, own, budgets))
    if options.reference_policy and options.axis == "flops" and not options.replay:
        tell("the larger policy")
        line = rules.larger_line(options, tested, console)
        greedy = next(point for point in line.points if point.label == "greedy")
        passed = cost_to_reach(own.costs.mean(axis=1), own.accuracies.mean(axis=1), float(greedy.accuracy.mean()))
        reference = Reference(options.reference_policy, line, passed, float(greedy.cost.mean()))
        found = replace(found, reference=reference)
    return found


def stem_of(options: argparse.Namespace) -> str:
    """What files and the section are called: each axis, pair of models, data set and seed has its own."""
    axis = {"flops": "", "generated+prm": "_tokens", "generated": "_generated"}[options.axis]
    told = [] if options.dataset == DATASET else [re.sub(r"[^\w-]+", "-", Path(options.dataset).stem)]
    told += [] if options.seed is None else [f"seed{options.seed}"]
    if options.replay:
        told = ["replayed", re.sub(r"[^\w-]+", "-", name_of(options.replay))]
    return "_".join(["pareto" + axis, *told])


if __name__ == "__main__":
    sys.exit(main())
