"""How well a sample's looks tell right from wrong within a problem, and what votes gain by weighing them.

    python bench/signs.py [--store FILE] [--limit K] [--n N] [--json FILE]
    python bench/signs.py --traces FILE... [--limit K] [--json FILE]

Looks are the score, the mean log-probability of a token, that of the tokens of the answer alone, and the length (short
ones first). Without ``--traces`` samples of the embedded pair are drawn as far as the store lacks them.

Figures: ``problems``, ``mixed`` (those with right and wrong answers), ``auc.<look>`` as ``[mean, low, high]`` (of
samples with an answer, over mixed problems), and for every exponent of ``--answer``: ``right.<exponent>`` (of majority
votes over all samples, each weighed by exp(exponent * log-probability of its answer), ties shared) and
``less_even.<exponent>`` as ``[difference, low, high]`` from even votes, paired by problem.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from measuring import Figure, parser_of, report
from rich.console import Console

from adaptive_ttc.calibration.collect.arms import Arm
from adaptive_ttc.calibration.collect.records import ProblemRecord, groups_of
from adaptive_ttc.calibration.collect.traces import read_traces
from adaptive_ttc.calibration.judge.sampling import Order
from adaptive_ttc.calibration.pareto.inputs import collected
from adaptive_ttc.cli import exit_code
from adaptive_ttc.cli.options import add_model_options
from adaptive_ttc.estimate.features import Attempt, score_of
from adaptive_ttc.evaluation.metrics import auc, interval, paired_interval
from adaptive_ttc.strategies.adaptive import SAMPLE
from adaptive_ttc.voting import VoteWeights

LOOKS: Mapping[str, Callable[[Attempt], float]] = {
    "score": lambda one: score_of(one, "last"),
    "logprob": lambda one: one.logprob / one.tokens,
    "answer_logprob": lambda one: one.answer_logprob,
    "shortness": lambda one: -float(one.tokens),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    parser.add_argument("--traces", nargs="+", metavar="FILE", help="in place of the embedded pair's samples")
    parser.add_argument("--dataset", default="minimath-500", help="name or file (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=60, metavar="K", help="problems (default: %(default)s)")
    parser.add_argument("--n", type=int, default=16, metavar="N", help="samples a problem (default: %(default)s)")
    parser.add_argument("--answer", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0], help="exponents of votes")
    parser.add_argument("--seed", type=int, help="draw fresh problems and other samples")
    parser.add_argument("--store", type=Path, default=Path("runs/signs/units.sqlite"), metavar="FILE")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that draw")
    parser.add_argument("--concurrency", type=int, default=8, metavar="K", help="problems at once, a worker")
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="what was drawn is kept")


def run(options: argparse.Namespace) -> None:
    """Draw what is missing or read traces, and print."""
    if options.traces:
        records: Sequence[ProblemRecord] = read_traces(options.traces).records[: options.limit]
    else:
        records = collected(options, [Arm("weighted_best_of_n", options.n)], Console(stderr=True)).records
    report(options.json, "signs", figures(records, options.answer))


def figures(records: Sequence[ProblemRecord], exponents: Sequence[float]) -> dict[str, Figure]:
    """All of them."""
    heard = [[(one.unit.attempts[0], one.correct[0]) for one in record.units[SAMPLE]] for record in records]
    heard = [[(one, right) for one, right in pairs if one.answer is not None] for pairs in heard]
    groups = groups_of(records)
    mixed = [(pairs, group) for pairs, group in zip(heard, groups, strict=True) if _both(pairs)]
    found: dict[str, Figure] = {"problems": len(records), "mixed": len(mixed)}
    for name, look in LOOKS.items():
        known = [
            ([(look(one), right) for one, right in pairs if not math.isnan(look(one))], group) for pairs, group in mixed
        ]
        each = [(auc(*zip(*pairs, strict=True)), group) for pairs, group in known if _both(pairs)]
        if each:
            told = interval(*zip(*each, strict=True))
            found[f"auc.{name}"] = [told.mean, told.low, told.high]
    even = _right(records, 0.0)
    for exponent in (0.0, *exponents):
        right = _right(records, exponent)
        found[f"right.{exponent:g}"] = float(right.mean())
        if exponent:
            paired = paired_interval(right, even, groups)
            found[f"less_even.{exponent:g}"] = [paired.mean, paired.low, paired.high]
    return found


def _both(pairs: Sequence[tuple[object, bool]]) -> bool:
    """Whether there are right and wrong ones."""
    return len({right for _, right in pairs}) == 2


def _right(records: Sequence[ProblemRecord], exponent: float) -> np.ndarray:
    weights = VoteWeights(answer=exponent)
    orders = [Order.of(record, 0) for record in records]
    return np.array(
        [order.accuracy(lambda one: weights.of(None, math.nan, 0, one.answer_logprob))[-1] for order in orders]
    )


if __name__ == "__main__":
    sys.exit(main())
