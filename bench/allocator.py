"""What the allocator's decisions cost, and how far they are from the best possible ones where those are known.

    python bench/allocator.py --json FILE [--limit PROBLEMS] [--seed S] [--results RESULTS.md]

**Time.** n problems are live, each with 8 options of random cost and gain; a decision is ``next``, ``charged`` and
``offer`` with new options, one problem at a time with up to 32 others running.

**Regret.** Problems with two answers and a known prior (``known_model.py``): five priors over the probability that a
sample is right, both votes. The policy is an allocator that is offered the exact gain of 1, 2, 4, 8, ... more samples,
at the expected number of those that come before the vote can no longer change, and draws one sample a slice; the
reference is the exact dynamic programme. At a price c a sample, a rule is worth
V = P(right) - c E[samples], computed exactly; regret is (V_best - V_policy) / (V_best - V_stop), V_stop being the value
of stopping at once, without any sample. It is averaged over priors, votes and prices, each alike; those are left out
in which there is nothing to gain.

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
"""

from __future__ import annotations

import argparse
import math
import random
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from measuring import add_json_option, command, markdown_table, write_report, write_section
from regret import AT_ONCE, MEAN_SAMPLES, models, pools, regrets, with_search

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.allocation.report import Decision
from adaptive_ttc.estimate.gain import Option

LIVE = (100, 1_000, 10_000)
OPENING = 90


def drawn_options(rng: random.Random) -> tuple[Option, ...]:
    """Eight options of random cost and gain."""
    scale, rate = rng.uniform(30, 120), rng.uniform(0.001, 0.2)
    return tuple(
        Option((kind, size), scale * size, rate * rng.uniform(0.5, 1) * math.log2(1 + size), int(1.5 * scale))
        for kind in range(2)
        for size in (1, 2, 4, 8)
    )


def opened(live: int, rng: random.Random, more: int = 0) -> Allocator:
    """An allocator whose problems have all had their opening, and that has a part of what they want and ``more``."""
    allocator = Allocator(live * (OPENING + 200) + more)
    for index in range(live):
        allocator.arrive(str(index), OPENING)
    for index in range(live):
        allocator.next()
        allocator.charged(str(index), OPENING)
        allocator.offer(str(index), drawn_options(rng))
    return allocator


def decisions(allocator: Allocator, number: int, rng: random.Random) -> Iterator[float]:
    """Seconds of each of so many decisions, of which each is charged when 32 more were made."""
    options = [drawn_options(rng) for _ in range(512)]  # made beforehand: they are the caller's work
    running: list[Decision] = []
    for index in range(number):
        start = time.thread_time()
        decision = allocator.next()
        if decision:
            running.append(decision)
        if running and (decision is None or len(running) > AT_ONCE):
            first = running.pop(0)
            allocator.charged(first.problem, first.units // 2)
            allocator.offer(first.problem, options[index % 512])
        yield time.thread_time() - start


def timings(live: Sequence[int], number: int, rounds: int, seed: int) -> dict[str, float]:
    """Microseconds a decision, whatever it does, at every number of live problems, in turn."""
    taken: dict[int, list[float]] = {n: [] for n in live}
    for turn in range(rounds):
        for n in live if turn % 2 else live[::-1]:
            rng = random.Random(seed + turn)
            taken[n].append(1e6 * fmean(decisions(opened(n, rng, more=number * OPENING), number, rng)))
    middle = {n: median(values) for n, values in taken.items()}
    growth = middle[live[-1]] / middle[live[0]]
    return {f"us_per_decision.{n}": middle[n] for n in live} | {
        "growth": growth,
        "growth_over_log": growth / (math.log(live[-1]) / math.log(live[0])),
    }


def memory(live: int, seed: int) -> float:
    """Bytes a problem, its options and its part of the log included."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    allocator = opened(live, random.Random(seed))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocator.spent
    return (after - before) / live


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
            markdown_table(("regret against the exact dynamic programme", "share of its gain"), regret_rows),
            f"Pools of {figures['problems']:,} problems at {', '.join(map(str, MEAN_SAMPLES))} samples a problem: for "
            f"the same accuracy the dynamic programme takes {figures['samples_share.pooled']:.0%} of the allocator's "
            f"samples, and {figures['samples_share.pooled_uniform']:.0%} of those of as many for every problem. "
            f"{figures['overspent']} pools overspent.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1_000, help="problems of a pool (%(default)s)")
    parser.add_argument("--seed", type=int, help="draw other priors, samples and options")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the section of this Markdown file")
    add_json_option(parser)
    options = parser.parse_args()
    figures = measure(options.limit, options.seed)
    for key, value in figures.items():
        print(f"{key:30} {value:.4f}")
    if options.results:
        write_section(options.results, "allocator", section(figures))
    write_report(options.json, "allocator", figures)


if __name__ == "__main__":
    main()
