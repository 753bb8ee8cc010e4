"""``python -m adaptive_ttc.mini.evaluate``: how good a mini pair is, on MiniMath's test split.

It knows neither how the models were trained nor how they are run. Figures of the JSON file, all from one
pool of ``--samples`` samples a problem at temperature 0.8 (estimators of ``adaptive_ttc.evaluation.metrics``):

``pass_at_1``, ``pass_at_1_by_quintile``
    share of right samples; the quintiles are oracle quintiles, by this very share, the easiest first.
``pass_at_64``
    share of problems of which one of 64 samples is right. With fewer samples the largest of 1, 4, 16 that
    they allow stands in the place of 64, in the name too, here and below.
``prm_auc``
    probability that the PRM's last-step score puts a right sample above a wrong one, over all samples
    of all problems; samples without an answer are wrong ones.
``prm_auc_within``
    the same within one problem, averaged over the problems that have both right and wrong samples, each
    problem counted once whatever its number of pairs. Every sample counts, equal texts too: they were
    drawn independently.
``prm_auc_within_distinct``
    the same where equal texts of a problem count as one sample.
``accuracy``
    ``greedy`` (one sample at temperature 0), and ``majority``, ``best_of_n`` and ``weighted_best_of_n``
    by N = 1, 4, 16, 64.
``weighted_minus_majority_64``
    ``difference``, ``low`` and ``high``: paired bootstrap over problems, 95 %.
``mean_tokens``, ``mixed_problems``, ``problems``, ``wall_time``
    generated tokens a sample; problems with right and wrong samples; problems; seconds of sampling,
    scoring and grading together.
``reference``
    with ``--reference``: pass_at_1, accuracy (greedy, majority of up to 8) and mean_tokens of the larger policy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import Outcome, Pool, draw_pools, solve_rows
from adaptive_ttc.evaluation.metrics import paired_interval, quintiles, within_auc
from adaptive_ttc.evaluation.result_file import writable, write_record
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.mini.settings import PAIRS
from adaptive_ttc.solver import Solver

SIZES = (1, 4, 16, 64)
REFERENCE_SAMPLES = 8
"""Samples of a problem by the larger policy, which is there to be compared with, not to be searched."""

STRATEGIES = ("majority", "best_of_n", "weighted_best_of_n")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one policy did: a pool of samples and the greedy solution's correctness for every problem."""

    pools: tuple[Pool, ...]
    greedy: tuple[bool, ...]
    wall_time: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print and write; 2 for impossible requests, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m adaptive_ttc.mini.evaluate", description="How good a mini pair is, on MiniMath's test split."
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder with policy and prm (default: the package's)"
    )
    parser.add_argument(
        "--prm", type=Path, metavar="DIR", help="folder of another PRM (default: prm beside the policy)"
    )
    parser.add_argument("--pair", choices=sorted(PAIRS), default="mini", help="whose problems (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="draw fresh problems and other samples")
    parser.add_argument("--limit", type=int, metavar="K", help="the first K problems only")
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="of each problem (default: %(default)s)")
    parser.add_argument("--reference", action="store_true", help="measure the larger policy too")
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(words)

    def work() -> None:
        figures = run(options)
        if options.json is not None:
            write_record(options.json, "mini", ["python", "-m", "adaptive_ttc.mini.evaluate", *words], figures)

    return exit_code(work, interrupted="nothing was written")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and print; see :func:`main`.

    Raises:
        ConfigError: a model is missing, or a number out of range.
    """
    if options.json is not None:
        writable(options.json)
    if options.samples < 1:
        raise ConfigError(f"--samples {options.samples} must be at least 1")
    rows = load_problems(f"minimath-500:{options.pair}", options.limit, options.seed)
    models = models_of(options.models, options.pair)
    seed, console = options.seed or 0, Console()
    solver = Solver.load(models / "policy", options.prm or models / "prm", seed=seed)
    measured = interruption.run(measure, solver, rows, options.samples)
    figures = figures_of(measured)
    show(f"{options.pair}: {len(rows)} problems, {options.samples} samples each", figures, console)
    if options.reference:
        samples = min(options.samples, REFERENCE_SAMPLES)
        large = interruption.run(measure, Solver.load(models / "large", seed=seed), rows, samples)
        figures["reference"] = reference_figures(large)
        show("the larger policy", figures["reference"], console)
    return figures


async def measure(solver: Solver, rows: Sequence[Row], samples: int) -> Measured:
    """Sample, score and grade; closes the solver.

    Raises:
        AdaptiveTTCError: an engine failed.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started, greedy = time.perf_counter(), dict[int, bool]()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        sampling = progress.add_task(f"{samples} samples a problem", total=len(rows))
        single = progress.add_task("greedy", total=len(rows))

        def note(outcome: Outcome) -> None:
            if outcome.error is not None:
                raise outcome.error
            greedy[outcome.index] = bool(outcome.correct)
            progress.advance(single)

        async with solver:
            pools = await draw_pools(solver, rows, samples, lambda _: progress.advance(sampling), temperature=0.8)
            await solve_rows(solver, rows, {"strategy": "greedy"}, note)
    return Measured(tuple(pools), tuple(greedy[index] for index in range(len(rows))), time.perf_counter() - started)


def figures_of(measured: Measured) -> dict[str, Any]:
    """The figures that the module describes, but for the reference."""
    pools = measured.pools
    largest = max(_sizes(pools))
    accuracy: dict[str, Any] = {"greedy": float(np.mean(measured.greedy))}
    by_problem = {name: {k: _by_problem(pools, name, k) for k in _sizes(pools)} for name in STRATEGIES}
    for name, values in by_problem.items():
        accuracy[name] = {str(k): float(value.mean()) for k, value in values.items()}
    gain = paired_interval(by_problem["weighted_best_of_n"][largest], by_problem["majority"][largest])
    rates = np.array([pool.pass_at(1) for pool in pools])
    quintile = quintiles(rates)
    return {
        "pass_at_1": float(rates.mean()),
        "pass_at_1_by_quintile": [float(rates[quintile == q].mean()) if q in quintile else None for q in range(5)],
        f"pass_at_{largest}": float(np.mean([pool.pass_at(largest) for pool in pools])),
        **prm_figures(pools),
        "accuracy": accuracy,
        f"weighted_minus_majority_{largest}": {"difference": gain.mean, "low": gain.low, "high": gain.high},
        "mean_tokens": float(np.mean([pool.tokens for pool in pools])),
        "mixed_problems": int(sum(0 < rate < 1 for rate in rates)),
        "problems": len(pools),
        "wall_time": measured.wall_time,
    }


def prm_figures(pools: Sequence[Pool]) -> dict[str, float]:
    """How well the last-step scores tell right from wrong; nan where there are not both."""
    scored = [(pool, ~np.isnan(pool.scores)) for pool in pools]
    judged = [(pool.scores[mask], pool.correct[mask]) for pool, mask in scored]
    distinct = []
    for pool, mask in scored:
        first = {text: index for index, text in reversed(list(enumerate(pool.texts))) if mask[index]}
        kept = sorted(first.values())
        distinct.append((pool.scores[kept], pool.correct[kept]))
    scores, correct = (np.concatenate(parts) for parts in zip(*judged, strict=True))
    return {
        "prm_auc": _within([(scores, correct)]),
        "prm_auc_within": _within(judged),
        "prm_auc_within_distinct": _within(distinct),
    }


def reference_figures(measured: Measured) -> dict[str, Any]:
    """The figures of a policy without a PRM."""
    pools = measured.pools
    majority = {str(k): float(_by_problem(pools, "majority", k).mean()) for k in _sizes(pools)}
    return {
        "pass_at_1": float(np.mean([pool.pass_at(1) for pool in pools])),
        "accuracy": {"greedy": float(np.mean(measured.greedy)), "majority": majority},
        "mean_tokens": float(np.mean([pool.tokens for pool in pools])),
        "wall_time": measured.wall_time,
    }


def show(title: str, figures: Mapping[str, Any], console: Console) -> None:
    """Print the figures: accuracies in columns by N, the rest in rows."""
    sizes = list(figures["accuracy"]["majority"])
    table = Table("accuracy", title=title, title_justify="left")
    for size in ("greedy", *sizes):
        table.add_column(size if size == "greedy" else f"N={size}", justify="right")
    for name in figures["accuracy"]:
        if name != "greedy":
            greedy = f"{figures['accuracy']['greedy']:.3f}" if name == "majority" else ""
            table.add_row(name, greedy, *(f"{figures['accuracy'][name][size]:.3f}" for size in sizes))
    console.print(table)
    rest = Table("figure", show_header=False)
    rest.add_column(justify="right")
    for name, value in figures.items():
        if name != "accuracy":
            rest.add_row(name, _shown(value))
    console.print(rest)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _sizes(pools: Sequence[Pool]) -> list[int]:
    return [size for size in SIZES if size <= len(pools[0].correct)]


def _by_problem(pools: Sequence[Pool], strategy: str, k: int) -> NDArray[np.float64]:
    return np.array([pool.accuracy(strategy, k, seed=index) for index, pool in enumerate(pools)])


def _within(judged: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]]) -> float:
    return within_auc([(scores, correct) for scores, correct in judged if len(correct)])


def models_of(folder: Path | None, pair: str) -> Path:
    """The folder of a pair's models, by default the package's. ConfigError: the package has none of that pair."""
    if folder is None and pair != "mini":
        raise ConfigError(f"the package has no models of the pair {pair!r}; name their folder with --models DIR")
    return folder or MINI_POLICY.parent


if __name__ == "__main__":
    sys.exit(main())
