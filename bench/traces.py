"""Compares rules that spend one budget over recorded samples of real models, with and without a calibration.

    python bench/traces.py --traces FILE... --json FILE

All rules draw from the same random orders of every problem's samples; the problem that a rule thinks most of draws
next. What is fitted is fitted to other problems: those of the same group (a problem that several models solved) lie on
one side. Components of the shipped prior that were measured on the tested models are left out.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from measuring import markdown_table, parser_of, provenance, write_report, write_section
from numpy.typing import NDArray
from rich.console import Console

from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.collect.traces import Traces, read_traces
from adaptive_ttc.calibration.fit.agreement import model_of
from adaptive_ttc.calibration.judge.contest import contest, shipped
from adaptive_ttc.calibration.judge.held_out import crossfit
from adaptive_ttc.calibration.judge.sampling import (
    Curve,
    Rule,
    by_forecast,
    by_rule,
    curves,
    mean_tokens,
)
from adaptive_ttc.calibration.judge.slope import Slope, slope_on
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.estimate.agreement_gain import UNFITTED, AgreementGainModel
from adaptive_ttc.estimate.answer_prior import AnswerPrior, shipped_prior
from adaptive_ttc.evaluation.metrics import Interval, interval, paired_interval
from adaptive_ttc.stopping.registry import make_rule, parse_rule
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.voting import VoteWeights

Array = NDArray[np.float64]
T = TypeVar("T")
Fit = Callable[[Sequence[ProblemRecord]], T]
RuleOf = Callable[[ProblemRecord], Rule]

MULTIPLES = (1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
"""Budgets, in mean samples a problem."""

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Tested:
    """A set of traces, the rules on it, and the budgets."""

    traces: Traces
    records: tuple[ProblemRecord, ...]
    budgets: tuple[float, ...]  # tokens a problem
    rules: Mapping[str, Rule | RuleOf]


def budgets_of(records: Sequence[ProblemRecord]) -> tuple[float, ...]:
    """Tokens a problem, up to all recorded samples."""
    held = np.mean([len(record.units[SAMPLE]) for record in records])
    mean = mean_tokens(records)
    return (*(mean * multiple for multiple in MULTIPLES if multiple < held), mean * float(held))


def general_prior(traces: Traces) -> AnswerPrior:
    """The shipped prior without what was measured on these models."""
    return shipped_prior().without(traces.models)


def cold_rule(traces: Traces) -> Rule:
    """What is used without a calibration."""
    model = AgreementGainModel(general_prior(traces), UNFITTED, tokens=512.0)
    return by_forecast("ours, no calibration", model.pool())


def fitted_to_others(
    records: Sequence[ProblemRecord], most: int, seed: int, fit: Fit[T]
) -> Callable[[ProblemRecord], T]:
    """Of each problem what ``fit`` makes of at most ``most`` problems of other groups."""
    groups = len(set(groups_of(records)))
    folds = crossfit(records, 2 if groups >= 2 * most else 5, seed)
    made = []
    for number in range(folds.count):
        others = folds.training(number, records)
        random.Random(f"{seed}/{number}").shuffle(others)
        made.append(fit(others[:most]))
    return lambda record: made[folds.fold[record.id]]


def shipped_rules(
    traces: Traces, records: Sequence[ProblemRecord], most: int, seed: int, tell: Callable[[str], None]
) -> RuleOf:
    """Rules of problems: of each what a calibration on at most ``most`` problems of other groups ships."""
    general = general_prior(traces)

    def rule(others: Sequence[ProblemRecord]) -> Rule:
        won = contest(others, general=general)
        tell(f"{len(others)} problems: {won.chosen} ships")
        model = shipped(won, others, general=general)
        return by_rule(parse_rule(won.chosen)) if model is None else by_forecast(won.chosen, model.pool())

    return fitted_to_others(records, most, seed, rule)


def slopes(traces: Traces, records: Sequence[ProblemRecord], counts: Sequence[int], seed: int) -> dict[str, Slope]:
    """Of true on forecast gains, of forecasts that are fitted to so many problems of other groups (0: to none)."""
    general = general_prior(traces)
    held = len(set(groups_of(records)))
    found = {}
    for most in counts:
        if most == 0:
            alone = AgreementGainModel(general, UNFITTED, tokens=512.0).pool()
            found["0"] = slope_on(records, lambda _: alone)  # noqa: B023
        elif 5 * most <= 4 * held + 4:
            fitted = fitted_to_others(
                records, most, seed, lambda others: model_of(others, general=general).model.pool()
            )
            found[str(most)] = slope_on(records, fitted)
    return found


def published(traces: Traces) -> dict[str, Rule]:
    """Published rules that need no calibration, plain and with the votes weighed as ours are."""
    weigh = AgreementGainModel(shipped_prior(), UNFITTED, tokens=1.0).weight
    rules = {
        "uniform": by_rule(make_rule("uniform")),
        "adaptive_consistency": by_rule(make_rule("adaptive_consistency", level=0.8)),
        "adaptive_consistency .95": by_rule(make_rule("adaptive_consistency", level=0.95)),
        "esc": by_rule(make_rule("esc")),
        "least_settled": by_rule(make_rule("least_settled")),
    }
    if traces.scored:
        score = AgreementGainModel(shipped_prior(), VoteWeights(score=1.0), tokens=1.0).weight
        rules["uniform, weighted by scores"] = by_rule(make_rule("uniform"), score)
    rules["uniform, weighted"] = by_rule(make_rule("uniform"), weigh)
    return rules


def measure(tested: Tested, orders: int, tell: Callable[[str], None]) -> dict[str, Curve]:
    """Every rule on the same orders."""
    found = {}
    for name, rule in tested.rules.items():
        tell(name)
        found[name] = curves(tested.records, rule, tested.budgets, orders=orders)
    return found


def figures_of(tested: Tested, found: Mapping[str, Curve], ours: str) -> dict[str, Any]:
    """The figures, as documented in docs/traces.md."""
    groups = groups_of(tested.records)
    rules = {
        name: [
            _row(spent, interval(accuracy, groups, resamples=RESAMPLES))
            for spent, accuracy in zip(one.spent, one.accuracy, strict=True)
        ]
        for name, one in found.items()
    }
    weighted = found.get("uniform, weighted by scores")
    return {
        "ours": ours,
        "models": list(tested.traces.models),
        "datasets": list(tested.traces.datasets),
        "problems": len(tested.records),
        "rules": rules,
        "less_uniform": less(found[ours], found["uniform"], tested.budgets, groups),
        "less_adaptive_consistency": less(found[ours], found["adaptive_consistency"], tested.budgets, groups),
        "tokens_for_uniform_best": {name: tokens_ratio(one, found["uniform"]) for name, one in found.items()},
        "tokens_for_weighted_best": {
            name: tokens_ratio(one, weighted) for name, one in found.items() if weighted is not None
        },
    }


def less(ours: Curve, other: Curve, budgets: Sequence[float], groups: Sequence[str]) -> list[list[float]]:
    """[budget in tokens, difference, low, high] at every budget; intervals are over ``groups`` of problems."""
    return [
        [round(budget, 1), *_bounds(paired_interval(a, b, groups, resamples=RESAMPLES))]
        for budget, a, b in zip(budgets, ours.accuracy, other.accuracy, strict=True)
    ]


def tokens_ratio(one: Curve, base: Curve) -> float | None:
    """Tokens at which a rule first reaches what ``base`` reaches with all, divided by those; None: it never does."""
    target = base.accuracy[-1].mean()
    accuracy = one.accuracy.mean(axis=1)
    reached = np.flatnonzero(accuracy >= target - 1e-9)
    if not len(reached):
        return None
    at = int(reached[0])
    spent = one.spent[at]
    if at:  # on the line from the budget before
        low, high = accuracy[at - 1], accuracy[at]
        share = (target - low) / (high - low) if high > low else 1.0
        spent = one.spent[at - 1] + share * (one.spent[at] - one.spent[at - 1])
    return round(float(spent / base.spent[-1]), 4)


def _row(tokens: float, known: Interval) -> dict[str, float]:
    return {
        "tokens": round(float(tokens), 1),
        "accuracy": round(known.mean, 5),
        "low": round(known.low, 5),
        "high": round(known.high, 5),
    }


def _bounds(known: Interval) -> list[float]:
    return [round(known.mean, 5), round(known.low, 5), round(known.high, 5)]


def table(figures: Mapping[str, Any]) -> str:
    """Accuracy of every rule by budget, and ours less two others."""
    rules = figures["rules"]
    head = ["tokens", *rules, "less uniform", "less Adaptive-Consistency"]
    rows = []
    for row, (budget, *uniform) in enumerate(figures["less_uniform"]):
        _, *consistency = figures["less_adaptive_consistency"][row]
        accuracy = [f"{100 * points[row]['accuracy']:.1f}" for points in rules.values()]
        rows.append([f"{budget:,.0f}", *accuracy, _signed(uniform), _signed(consistency)])
    return markdown_table(head, rows)


def slope_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Slopes by the number of problems that were fitted to."""
    head = ["fitted to", "slope of true on forecast gain", "states", "mean forecast", "mean true"]
    rows = [
        [
            f"{count} problems",
            f"{one['slope']:.2f} [{one['low']:.2f}, {one['high']:.2f}]",
            f"{one['states']:,}",
            f"{100 * one['forecast']:.2f}",
            f"{100 * one['true']:.2f}",
        ]
        for count, one in found.items()
    ]
    return markdown_table(head, rows)


def _signed(bounds: Sequence[float]) -> str:
    mean, low, high = (100 * bound for bound in bounds)
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; ConfigError for files that hold no samples."""
    console = Console(stderr=True)
    traces = read_traces(options.traces)
    records = tuple(record for record in traces.records if record.units.get(SAMPLE))[: options.limit]
    if not records:
        raise ConfigError("the traces hold no samples: see docs/traces.md")
    for note in traces.notes:
        console.print(f"note: {note}")
    rules: dict[str, Rule | RuleOf] = {**published(traces), "ours, no calibration": cold_rule(traces)}
    for most in options.calibration:
        rules[f"ours, {most} problems"] = shipped_rules(traces, records, most, options.seed, console.print)
    tested = Tested(traces, records, budgets_of(records), rules)
    curves_of = measure(tested, options.orders, lambda name: console.print(f"replaying {name}"))
    ours, groups = [name for name in rules if name.startswith("ours")], groups_of(records)
    figures = figures_of(tested, curves_of, ours[-1])
    figures["by_calibration"] = {
        name: {
            "less_uniform": less(curves_of[name], curves_of["uniform"], tested.budgets, groups),
            "less_adaptive_consistency": less(
                curves_of[name], curves_of["adaptive_consistency"], tested.budgets, groups
            ),
        }
        for name in ours
    }
    console.print("slopes")
    found = slopes(traces, records, options.slopes, options.seed)
    figures["slopes"] = {count: asdict(one) for count, one in found.items()}
    return figures


def main() -> None:
    """The command."""
    parser = parser_of(__doc__)
    parser.add_argument("--traces", nargs="+", type=Path, required=True, metavar="FILE", help="see docs/traces.md")
    parser.add_argument(
        "--calibration", nargs="*", type=int, default=[40, 100], metavar="K", help="problems to fit to (default 40 100)"
    )
    parser.add_argument(
        "--slopes",
        nargs="*",
        type=int,
        default=[0, 30, 100, 400],
        metavar="K",
        help="problems that forecasts are fitted to whose slopes are shown, where the set holds so many (0 30 100 400)",
    )
    parser.add_argument("--orders", type=int, default=8, help="random orders of every problem's samples (8)")
    parser.add_argument("--limit", type=int, help="problems, from the first on (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds (0)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write a section into this file")
    options = parser.parse_args()
    try:
        figures = run(options)
    except AdaptiveTTCError as error:
        parser.error(str(error))
    Console(width=200).print(table(figures), markup=False)
    Console(width=200).print(slope_table(figures["slopes"]), markup=False)
    Console().print(figures["tokens_for_uniform_best"], markup=False)
    write_report(options.json, "traces", figures)
    if options.results:
        name = "traces " + " ".join(file.name.removesuffix(".gz").removesuffix(".jsonl") for file in options.traces)
        write_section(options.results, name, f"{provenance()}\n\n{table(figures)}\n\n{slope_table(figures['slopes'])}")


if __name__ == "__main__":
    main()
