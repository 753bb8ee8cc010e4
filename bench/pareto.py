"""Accuracy against compute: ours beside every strategy, published rules, a bin table and an oracle, on test problems.

    python bench/pareto.py [--store FILE] [--calibration DIR | --crossfit] [--axis flops|generated+prm|generated]
                           [--quick] [--limit K] [--seed S] [--policy MODEL --prm MODEL] [--replay TRACES]
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
``oracle_gain_kept``, ``log_saving_kept``: {oracle: {target: {value, low, high}}}
    share of the oracle's gain in accuracy over the best fixed arm, and of an oracle's saving in the logarithm of cost:
    ``oracle`` knows what every arm reached on the very problem, by luck or not, ``rate_oracle`` its pass rate, and
    ``table_oracle`` the bin of that rate.
``difference_from_best_fixed``, ``significantly_below_best_fixed``
    ours less the best fixed arm at every budget, paired; budgets at which that interval is below 0.
``live``: [{budget, cost, accuracy, low, high, replayed, difference, agrees}]
``reference``: {name, greedy_cost, passed_at}
    of the larger policy, and what ours costs where it is as right.
``overspent``
    units beyond a budget, over all runs, replayed and live.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring import add_json_option, command, write_section
from pareto_figures import figures_of
from pareto_inputs import AXES, collected, recorded
from pareto_picture import draw
from pareto_report import csv_text, overview, page, section, verdicts
from pareto_trial import judged
from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.arms import default_arms
from adaptive_ttc.calibration.overlap import add_overlap_option
from adaptive_ttc.cli import exit_code
from adaptive_ttc.cli.request import add_model_options
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.evaluation.result_file import write_record

DATASET = "minimath-500"
MOST = 64
QUICK = {"limit": 60, "most": 32, "budgets": 8, "decks": 1, "live": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it: 0, 1 when an engine failed, 2 when what is asked for is impossible, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    if options.quick:
        options = argparse.Namespace(**{**vars(options), **QUICK})
    return exit_code(
        lambda: run(options, Console()),
        interrupted=f"what was drawn is kept in {options.store}, and the same command goes on",
        impossible=(ConfigError, CalibrationError),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--axis", choices=AXES, default=AXES[0], help="what cost counts (default: %(default)s)")
    add("--dataset", default=DATASET, help="name or file (default: %(default)s)")
    add("--limit", type=int, default=200, metavar="K", help="problems (default: %(default)s)")
    add("--seed", type=int, help="draw fresh problems and other samples")
    add("--store", type=Path, default=Path("runs/pareto/units.sqlite"), metavar="FILE", help="of units (%(default)s)")
    add("--workers", type=int, default=2, metavar="W", help="processes that draw (default: %(default)s)")
    add("--concurrency", type=int, default=8, metavar="K", help="problems at once, a worker (default: %(default)s)")
    add("--most", type=int, default=MOST, metavar="N", help="N of the largest arm (default: %(default)s)")
    add("--quick", action="store_true", help="60 problems and N up to 32: about two minutes")
    add("--replay", type=Path, metavar="TRACES", help="judge recorded samples; implies --crossfit")
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
    add("--live", type=int, default=3, metavar="K", help="budgets of live runs (default: %(default)s)")
    add("--reference-policy", metavar="MODEL", help="a larger policy, such as mini-large")
    add("--out", type=Path, default=Path("runs/pareto"), metavar="DIR", help="(default: %(default)s)")
    add("--results", type=Path, metavar="FILE", help="write the tables into this Markdown file")
    add("--pictures", type=Path, metavar="DIR", help="where the figures go (default: --out)")
    add_overlap_option(command)
    add_model_options(command)
    add_json_option(command)
    return command


def run(options: argparse.Namespace, console: Console) -> None:
    """Draw what is missing, judge, show and write.

    Raises:
        AdaptiveTTCError: what is asked for is impossible, or an engine failed.
    """
    if options.limit < 1 or options.budgets < 2 or options.decks < 1 or options.workers < 1:
        raise ConfigError("--limit, --decks and --workers are at least 1, --budgets at least 2")
    arms, stem = default_arms(options.most), stem_of(options)
    tested = recorded(options) if options.replay else collected(options, arms, console, options.dataset, options.limit)
    with console.status("") as status:
        found = judged(options, tested, arms, console, status.update)
    console.print(overview(found))
    for told in [*found.notes, *verdicts(found)]:
        console.print(Text(told))
    pictures = draw(found, (options.pictures or options.out) / f"{stem}.png")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{stem}.csv").write_text(csv_text(found), encoding="utf-8")
    (options.out / f"{stem}.html").write_text(page(found, pictures[1]), encoding="utf-8")
    console.print(Text(f"written: {', '.join(map(str, pictures))}, {options.out / stem}.html, .csv"))
    if options.json is not None:
        write_record(options.json, "pareto", command(), figures_of(found))
    if options.results is not None:
        write_section(options.results, stem, section(found, pictures, options.results))


def stem_of(options: argparse.Namespace) -> str:
    """What files and the section are called: each axis, pair of models, data set and seed has its own."""
    axis = {"flops": "", "generated+prm": "_tokens", "generated": "_generated"}[options.axis]
    told = [] if options.dataset == DATASET else [re.sub(r"[^\w-]+", "-", Path(options.dataset).stem)]
    told += [] if options.seed is None else [f"seed{options.seed}"]
    return "_".join(["pareto" + axis, *(["replayed"] if options.replay else told)])


if __name__ == "__main__":
    sys.exit(main())
