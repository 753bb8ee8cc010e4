"""``eval``: measures a strategy on a data set: accuracy with an interval, tokens, wall time."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from adaptive_ttc.cli.batch import add_batch_options, run_batch
from adaptive_ttc.cli.options import EXIT_CODES, add_model_options, add_request_options
from adaptive_ttc.strategies import Strategy, make_strategy, strategy_names

EXAMPLE = """example:
  adaptive-ttc eval --dataset minimath-500 --shared-budget 40000 --limit 120 --out answers.jsonl
"""

FIGURES = """figures in the JSON file:
  accuracy, accuracy_low, accuracy_high  share of right answers with its 95 % bootstrap interval over problems
  problems, failed, unfinished           problems that ended; of these, failed ones; cut off ones
  graded                                 problems that ended and have a right answer: accuracy is over these
  unanswered                             solved problems without an answer
  candidates, effective_n                means over the solved problems: solutions that a search handed in, and those
                                         of them that hold an answer, copies of one sample counted once
  generated_tokens, prm_tokens, flops    sums over the problems
  generated_tokens_per_problem, wall_time
  overspent                              problems that cost more than their budget: always 0
  correct, tokens                        lists over the problems that ended, in the order of the data set; correct
                                         is null where there is no right answer
"""


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "eval",
        aliases=["evaluate"],
        help="measure a strategy on a data set",
        description="Measure a strategy on a data set. Problems without a right answer are solved, and not graded.",
        epilog=f"{EXAMPLE}\n{EXIT_CODES}\n{_options_of_strategies()}\n\n{FIGURES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--seed", type=int, help="draw fresh problems (of a file: another order) and other samples")
    option("--sampling-seed", type=int, metavar="S", help="draw other samples of the same problems")
    option("--json", metavar="FILE", help="write the figures to this file, or with - only these to stdout")
    add_batch_options(parser)
    add_request_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def _options_of_strategies() -> str:
    """The help text on what ``--option`` can set for each strategy, with the defaults."""
    common = {part.name for part in fields(Strategy)}
    lines = [
        "options of the strategies, for --option NAME=VALUE (those of all: top_p, agg_strategy, vote, vote_b, "
        "vote_power, vote_logprob, vote_length, vote_answer):"
    ]
    for name in strategy_names():
        strategy = make_strategy(name)
        own = [part.name for part in fields(strategy) if part.name not in common]
        values = {key: getattr(strategy, key) for key in ("vote", *own)}
        lines.append(f"  {name:<20}" + ", ".join(key if of is None else f"{key}={of}" for key, of in values.items()))
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Solve all problems, print and write the figures; after Ctrl-C, those of the problems that ended."""
    sampling_seed = options.seed if options.sampling_seed is None else options.sampling_seed
    _, code = run_batch(options, seed=options.seed, sampling_seed=sampling_seed)
    return code
