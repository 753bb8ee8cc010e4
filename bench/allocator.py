"""What the allocator's decisions cost, and how far they are from the best possible ones where those are known.

    python bench/allocator.py --json FILE [--limit PROBLEMS] [--seed S] [--results RESULTS.md]

**Time.** n problems are live, each with 8 options of random cost and gain; a decision is ``next``, ``charged`` and
``offer`` with new options, one problem at a time with up to 32 others running.

**Regret.** Problems with two answers and a known prior (``allocator_known_model.py``): five priors over the probability
that a sample is right, both votes. The policy is an allocator that is offered the exact gain of 1, 2, 4, 8, ... more
samples, at the expected number of those that come before the vote can no longer change, and draws one sample a slice;
the reference is the exact dynamic programme. At a price c a sample, a rule is worth V = P(right) - c E[samples],
computed exactly; regret is (V_best - V_policy) / (V_best - V_stop), V_stop being the value of stopping at once, without
any sample. It is averaged over priors, votes and prices, each alike; those are left out in which there is nothing to
gain.

**A pool.** One budget of 2 to 16 samples a problem over many problems of one prior, 32 running at once. Regret is
(A_best - A) / (A_best - A_stop), A_best being the accuracy of the dynamic programme at the same mean cost, a sample for
every problem being given to both. It need not keep to the total in every case, so it is a bound, but for chance.

Figures:

- ``us_per_decision.<n>``: microseconds of processor time at n = 100, 1000 and 10000 live problems (median of rounds in
  turn); ``growth`` (the last to the first) and ``growth_over_log`` (that to the ratio of the logarithms of n: at most 1
  is no worse than log n); ``bytes_per_problem`` (its options and its part of the log included);
- ``dp_regret`` (mean), ``dp_regret.max``, ``dp_regret.weighted`` (all that was missed to all that there was to gain);
- the same mean in other ways: ``dp_regret.after_first`` (V_stop is the value after one sample),
  ``dp_regret.committed`` (options at the cost of all their samples), ``dp_regret.slices_of_4`` (up to 4 samples a
  slice), ``dp_regret.one_step`` (a rule that sees the gain of one more sample only), ``dp_regret.two_kinds`` (a second
  kind of unit costs 4 samples and errs half as often; majority votes);
- ``dp_regret.pooled``, ``dp_regret.pooled_two_kinds`` and ``dp_regret.pooled_uniform`` (as many samples for every
  problem), means over priors and budgets; ``samples_share.pooled``, ``samples_share.pooled_two_kinds`` and
  ``samples_share.pooled_uniform``: cost of the dynamic programme for the same accuracy, to what was spent;
- ``overspent``: pools in which more was spent or promised than there was;
- ``problems`` of a pool.

**What ships** (``allocator_shipped.py``): the same problems with rates that agreement among votes knows, options by its
forecasts in place of exact gains, as a scheduler prices them, at the cost of all their samples:

- ``dp_regret.agreement``, ``dp_regret.agreement_weighted``: mean, and all that was missed to all there was to gain,
  where each sample is looked at; ``dp_regret.agreement_at_once``: up to 8 samples side by side;
  ``dp_regret.agreement_pooled``: one budget over many problems, as above; ``dp_regret.agreement_pooled_by_gain``: the
  same where units that no gain is expected of do not go to the least settled;
- ``us_per_forecast.agreement``: microseconds of processor time a state, of patterns that were seen before;
  ``us_per_forecast.agreement_new``: of others; ``us_per_forecast.blend``: of it and the embedded pair's learned model,
  a state at a time; ``us_per_forecast.blend_together``: 32 at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

from allocator_known_model import Action, Frontier, KnownModel, Rule, State, canonical
from allocator_shipped import AgreementOffers, on_grid
from allocator_time import AT_ONCE, TOGETHER, forecast_times, memory, timings
from measuring import command, markdown_table, parser_of, report, write_section

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.estimate import agreement_gain
from adaptive_ttc.estimate.gain import Option

LIVE = (100, 1_000, 10_000)

SIDE_BY_SIDE = 8
"""Samples of a problem that an idle engine would take at once."""

PRICES = (0.001, 0.003, 0.01, 0.03)
FRONTIER = tuple(10 ** (-5 + 4.5 * i / 30) for i in range(31))
"""Prices at which the exact programme is solved for pools."""

MEAN_SAMPLES = (2, 4, 8, 16)
LEVELS = {
    "even": (0.3, 0.45, 0.6, 0.75, 0.9),
    "able": (0.55, 0.65, 0.75, 0.85, 0.95),
    "weak": (0.4, 0.5, 0.55, 0.6, 0.7),
    "torn": (0.1, 0.4, 0.7, 0.95),
    "single": (0.6,),
}
"""Probabilities, equally likely, that a sample is right. ``torn`` holds problems on which most samples are wrong."""


def models(seed: int | None, cap: int) -> dict[str, KnownModel]:
    """The priors, or as many random ones."""
    if seed is None:
        return {
            name: KnownModel((1 / len(levels),) * len(levels), tuple((p,) for p in levels), cap=cap)
            for name, levels in LEVELS.items()
        }
    rng = random.Random(seed)
    drawn = {}
    for name in LEVELS:
        weights = [rng.expovariate(1) for _ in range(5)]
        types = tuple((rng.uniform(0.3, 0.98),) for _ in weights)
        drawn[name] = KnownModel(tuple(weight / sum(weights) for weight in weights), types, cap=cap)
    return drawn


def with_search(model: KnownModel, cap: int) -> KnownModel:
    """The same problems, with a second kind of unit: at four times the cost it errs half as often."""
    return replace(model, right=tuple((p, 1 - (1 - p) / 2) for (p,) in model.right), costs=(1, 4), cap=cap)


def allocator_rule(price: float, offers: Callable[[State], Iterable[Option]]) -> Rule:
    """What an allocator without a limit does at a price, in every state."""

    def rule(state: State) -> Action | None:
        allocator = Allocator(None, min_gain=1_000 * price)
        allocator.arrive("", 1)
        allocator.next()
        allocator.charged("", 0)
        allocator.offer("", offers(state))
        decision = allocator.next()
        action = decision and decision.option and decision.option.action
        assert action is None or isinstance(action, Action)
        return action

    return rule


def regret(model: KnownModel, rule: Rule, price: float, *, opened: bool = False) -> float | None:
    """Share of the dynamic programme's value that a rule misses; None where there is none to have."""
    best, ours = model.worth(model.best_rule(price)).at(price), model.worth(rule).at(price)
    stop = model.stop(model.start)
    if opened:
        stop = sum(chance * model.stop(state) for chance, state in model.after(model.start, Action(0, 1))) - price
    return (best - ours) / (best - stop) if best - stop > 1e-4 else None


def regrets(priors: Sequence[KnownModel], two_kinds: Sequence[KnownModel]) -> dict[str, float]:
    """The figures of single problems."""
    found: dict[str, list[float | None]] = {}
    missed = gained = 0.0
    for prior in priors:
        for vote in ("majority", "posterior"):
            model = replace(prior, vote=vote)
            for price in PRICES:
                plain = allocator_rule(price, model.options)
                value = regret(model, plain, price)
                if value is not None:
                    gain = model.worth(model.best_rule(price)).at(price) - model.stop(model.start)
                    missed, gained = missed + value * gain, gained + gain
                for name, share in {
                    "": value,
                    ".after_first": regret(model, plain, price, opened=True),
                    ".slices_of_4": regret(model, allocator_rule(price, partial(model.options, slices=4)), price),
                    ".one_step": regret(model, allocator_rule(price, partial(model.options, longest=1)), price),
                    ".committed": regret(model, allocator_rule(price, model.committed), price),
                }.items():
                    found.setdefault(name, []).append(share)
    for model in two_kinds:
        values = [regret(model, allocator_rule(price, model.options), price) for price in PRICES]
        found.setdefault(".two_kinds", []).extend(values)
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    means = {f"dp_regret{name}": fmean(values) for name, values in known.items()}
    return means | {"dp_regret.max": max(known[""]), "dp_regret.weighted": missed / gained}


def shipped_regrets(priors: Sequence[KnownModel], problems: int, seed: int) -> dict[str, float]:
    """The figures of options by agreement."""
    found: dict[str, list[float]] = {"": [], "_at_once": []}
    missed = gained = 0.0
    grid = [on_grid(prior) for prior in priors]
    for model in grid:
        for name, at_once in (("", 1), ("_at_once", SIDE_BY_SIDE)):
            offers = AgreementOffers(model, at_once)
            for price in PRICES:
                value = regret(model, allocator_rule(price, offers), price)
                if value is None:
                    continue
                found[name].append(value)
                if at_once == 1:
                    gain = model.worth(model.best_rule(price)).at(price) - model.stop(model.start)
                    missed, gained = missed + value * gain, gained + gain
    with patch.object(agreement_gain, "UNSETTLED", 0.0):
        settled = shipped_pools(grid, problems, seed)
    return {
        **{f"dp_regret.agreement{name}": fmean(values) for name, values in found.items()},
        "dp_regret.agreement_weighted": missed / gained,
        "dp_regret.agreement_pooled": shipped_pools(grid, problems, seed),
        "dp_regret.agreement_pooled_by_gain": settled,
    }


def shipped_pools(grid: Sequence[KnownModel], problems: int, seed: int) -> float:
    """Mean regret of pools with options by agreement, over priors and budgets."""
    found = Pools()
    for model in grid:
        frontier, offers = Frontier.of(model, FRONTIER), AgreementOffers(model)
        for mean_cost in (one for one in MEAN_SAMPLES if 2 * one <= model.cap):
            found.add(frontier, pooled(model, mean_cost, problems, seed, offers)[0], mean_cost)
    return fmean(found.missed)


def pooled(
    model: KnownModel,
    mean_samples: int,
    problems: int,
    seed: int,
    offers: Callable[[State], Iterable[Option]] | None = None,
) -> tuple[float, bool]:
    """Accuracy of one budget over many problems, and whether it was kept; ``offers``: options, by default exact ones.

    Types are dealt in proportion to their weights; accuracy is that of the votes given the counts.
    """
    rng = random.Random(seed)
    bounds = [*accumulate(model.weights[:-1]), 1.0]
    levels = [
        next(p for p, bound in zip(model.right, bounds, strict=True) if (i + 0.5) / problems < bound)
        for i in range(problems)
    ]
    rng.shuffle(levels)
    counts = [[[0, 0] for _ in model.costs] for _ in levels]
    offers = offers or model.options
    budget = mean_samples * problems
    allocator = Allocator(budget)
    for index in range(problems):
        allocator.arrive(str(index), 1, offers(model.start))
    running: list[tuple[int, int]] = []  # problem, kind
    kept = True
    while True:
        decision = allocator.next() if len(running) < AT_ONCE else None
        if decision:
            running.append((int(decision.problem), decision.option.action.kind if decision.option else 0))
            kept = kept and allocator.spent + allocator.promised <= budget
            continue
        if not running:
            break
        index, kind = running.pop(0)
        allocator.charged(str(index), model.costs[kind])
        counts[index][kind][rng.random() >= levels[index][kind]] += 1
        allocator.offer(str(index), offers(state_of(counts[index])))
    states = [state_of(one) for one in counts]
    kept = kept and allocator.spent == sum(map(model.spent, states)) <= budget
    return fmean(map(model.stop, states)), kept


def state_of(counts: Sequence[Sequence[int]]) -> State:
    """The state of a problem, of the counts of either answer by kind."""
    return canonical(tuple((first, second) for first, second in counts))


@dataclass(slots=True)
class Pools:
    """What pools missed of the best that is possible, and the share of their cost that this would have taken."""

    missed: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, frontier: Frontier, right: float, cost: float) -> None:
        """A pool of this accuracy and mean cost."""
        best, stop = frontier.right_at(cost), frontier.right[0]
        if best - stop >= 0.01:
            self.missed.append((best - right) / (best - stop))
            self.shares.append(frontier.cost_of(right) / cost)


def pools(priors: Sequence[KnownModel], two_kinds: Sequence[KnownModel], problems: int, seed: int) -> dict[str, float]:
    """The figures of pools."""
    found = {name: Pools() for name in ("pooled", "pooled_two_kinds", "pooled_uniform")}
    overspent = 0
    for model in (*priors, *two_kinds):
        frontier = Frontier.of(model, FRONTIER)
        for mean_cost in (one for one in MEAN_SAMPLES if 2 * one <= model.cap):
            right, kept = pooled(model, mean_cost, problems, seed)
            overspent += not kept
            found["pooled" if len(model.costs) == 1 else "pooled_two_kinds"].add(frontier, right, mean_cost)
            if len(model.costs) == 1:
                found["pooled_uniform"].add(frontier, model.future(model.start, Action(0, mean_cost)), mean_cost)
    return {
        **{f"dp_regret.{name}": fmean(one.missed) for name, one in found.items()},
        **{f"samples_share.{name}": fmean(one.shares) for name, one in found.items()},
        "overspent": overspent,
    }


def measure(
    limit: int, seed: int | None, *, cap: int = 40, live: Sequence[int] = LIVE, number: int = 4_000, rounds: int = 5
) -> dict[str, float]:
    """All figures."""
    priors = models(seed, cap)
    two_kinds = [with_search(model, cap // 2) for model in priors.values()]
    return {
        **timings(live, number, rounds, seed or 0),
        "bytes_per_problem": memory(live[-1], seed or 0),
        **regrets(list(priors.values()), two_kinds),
        **pools(list(priors.values()), two_kinds, limit, seed or 0),
        **shipped_regrets(list(priors.values()), limit, seed or 0),
        **forecast_times(min(limit, 200), seed or 0),
        "problems": limit,
    }


def section(figures: dict[str, float]) -> str:
    """The figures as a section of RESULTS.md."""
    names = {
        "dp_regret": "one problem at a price",
        "dp_regret.weighted": "all that is missed to all there is to gain",
        "dp_regret.max": "the worst prior, vote and price of these",
        "dp_regret.after_first": "the same, over one sample instead of none",
        "dp_regret.committed": "options at the cost of all their samples",
        "dp_regret.slices_of_4": "slices of up to 4 samples",
        "dp_regret.one_step": "a rule that sees one more sample only",
        "dp_regret.two_kinds": "two kinds of unit",
        "dp_regret.pooled": "one budget over many problems",
        "dp_regret.pooled_two_kinds": "one budget over many problems, two kinds of unit",
        "dp_regret.pooled_uniform": "as many samples for every problem",
        "dp_regret.agreement": "what ships: options by agreement, one problem at a price",
        "dp_regret.agreement_weighted": "all that is missed by it to all there is to gain",
        "dp_regret.agreement_at_once": f"up to {SIDE_BY_SIDE} samples side by side",
        "dp_regret.agreement_pooled": "one budget over many problems",
        "dp_regret.agreement_pooled_by_gain": "the same, nothing going to the least settled for its own sake",
    }
    forecasts = {
        "agreement": "agreement, patterns seen before",
        "agreement_new": "agreement, new patterns",
        "blend": "with the learned model, one state",
        "blend_together": f"{TOGETHER} states at once",
    }
    live = [key.rpartition(".")[2] for key in figures if key.startswith("us_per_decision.")]
    regret_rows = [(text, f"{figures[key]:.2%}") for key, text in names.items()]
    return "\n\n".join(
        [
            f"`{command()}`",
            markdown_table(
                ("live problems", *(f"{int(n):,}" for n in live)),
                [("µs a decision", *(f"{figures[f'us_per_decision.{n}']:.0f}" for n in live))],
            ),
            f"Growth {figures['growth']:.2f} from the first to the last, {figures['growth_over_log']:.2f} of that of "
            f"the logarithm; {figures['bytes_per_problem']:,.0f} bytes a problem.",
            markdown_table(
                ("forecast of a state by", *forecasts.values()),
                [("µs", *(f"{figures[f'us_per_forecast.{one}']:,.0f}" for one in forecasts))],
            ),
            markdown_table(("regret against the exact dynamic programme", "share of its gain"), regret_rows),
            f"Pools of {figures['problems']:,} problems at {', '.join(map(str, MEAN_SAMPLES))} samples a problem: for "
            f"the same accuracy the dynamic programme takes {figures['samples_share.pooled']:.0%} of the allocator's "
            f"samples, and {figures['samples_share.pooled_uniform']:.0%} of those of as many for every problem. "
            f"{figures['overspent']} pools overspent.",
        ]
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--limit", type=int, default=1_000, help="problems of a pool (%(default)s)")
    parser.add_argument("--seed", type=int, help="draw other priors, samples and options")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section of this Markdown file")
    options = parser.parse_args()
    figures = measure(options.limit, options.seed)
    if options.results:
        write_section(options.results, "allocator", section(figures))
    report(options.json, "allocator", figures)


if __name__ == "__main__":
    main()
