"""Graded samples of a mini policy, and what verifiers are worth on such samples.

    python bench/verifiers.py --draw train --limit 352 --n 8 --out train.jsonl [--seed S] [--models DIR --pair NAME]
    python bench/verifiers.py --data test.rollouts.jsonl --prm adaptive_ttc/mini/models/prm MODEL... [--json FILE]

``--draw SPLIT`` samples problems of that split by the pair's policy at temperature 0.9, in both formats of
``adaptive-ttc train-prm``: ``completions`` with ``labels``, which say by the generator's own rules whether a step and
all before it are right, in FILE; ``steps`` with ``correct``, whether the answer is, in a file of that name that ends
in ``.rollouts.jsonl``.

Figures of each PRM: ``auc_within`` as ``[mean, low, high]`` over the problems with right and wrong answers;
``auc_steps``, the same of steps, where the file labels them; ``weighted`` and ``majority`` votes over all samples
of a problem; ``gain`` as ``[difference, low, high]``;
``less_first``, the difference of ``auc_within`` from the first PRM's, and ``of_first``, its share of that, both paired
by problem.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from measuring import Figure, bounds, parser_of, report
from mini_pairs import add_pair_options, pair_of

from adaptive_ttc.answers import parse_space
from adaptive_ttc.answers.spaces.base import answer_in
from adaptive_ttc.cli import exit_code
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.metrics import Interval, auc, interval, paired_interval
from adaptive_ttc.mini.minimath import right_tokens_end
from adaptive_ttc.mini.numbers import Exercise
from adaptive_ttc.mini.settings import PAIRS
from adaptive_ttc.mini.slips import Slips
from adaptive_ttc.mini.workshop import generate
from adaptive_ttc.prm import ScoreRequest, load_prm
from adaptive_ttc.prm.checkpoint import load_causal
from adaptive_ttc.training.graded import Graded, by_problem, read_graded
from adaptive_ttc.training.judge import figures
from adaptive_ttc.types import STEP_END

MATH = parse_space("math")
AT_ONCE = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, or measure; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    parser.add_argument("--draw", choices=("train", "calibration", "test"), help="split of the problems")
    parser.add_argument("--limit", type=int, default=128, metavar="K", help="problems to draw (default: %(default)s)")
    parser.add_argument("--n", type=int, default=16, metavar="N", help="samples a problem (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of problems and samples")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where drawn samples go")
    parser.add_argument("--data", type=Path, metavar="FILE", help="rollouts to measure on")
    parser.add_argument("--prm", nargs="+", default=[], metavar="MODEL", help="verifiers to measure")
    add_pair_options(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="nothing more is written")


def run(options: argparse.Namespace) -> None:
    """Draw, or measure and print."""
    if options.draw and options.out:
        draw(options)
    elif options.data and options.prm:
        report(options.json, "verifiers", asyncio.run(measured(options.data, options.prm)))
    else:
        raise ConfigError("give --draw SPLIT with --out FILE, or --data FILE with --prm MODEL...")


def draw(options: argparse.Namespace) -> None:
    """Write the samples of whole problems, a batch at a time."""
    pair = pair_of(options)
    policy, tokenizer = load_causal(pair.policy, device="cpu", dtype="float32", threads=None)
    drawn = PAIRS[pair.name].source.exercises(options.draw, f"train-prm/{options.seed}")
    exercises = [exercise for _, _, exercise in islice(drawn, options.limit)]
    group = max(1, AT_ONCE // options.n)
    whole = options.out.with_suffix(".rollouts.jsonl")
    with options.out.open("w", encoding="utf-8") as steps, whole.open("w", encoding="utf-8") as rollouts:
        for start in range(0, len(exercises), group):
            some = [exercise for exercise in exercises[start : start + group] for _ in range(options.n)]
            questions = [exercise.question for exercise in some]
            texts = generate(policy, tokenizer, questions, seed=options.seed * 100_000 + start)
            for exercise, text in zip(some, texts, strict=True):
                if text.strip():
                    by_step, by_answer = graded(exercise, text)
                    steps.write(json.dumps(by_step) + "\n")
                    rollouts.write(json.dumps(by_answer) + "\n")
            print(f"{min(start + group, len(exercises))} of {len(exercises)} problems", file=sys.stderr)


def graded(exercise: Exercise, text: str) -> tuple[dict[str, object], dict[str, object]]:
    """A sample with the labels of its steps, and with that of its answer."""
    right, at, steps, labels = right_tokens_end(exercise, text), 0, [], []
    for step in text.split(STEP_END):
        at += len(step)
        if step.strip():
            steps.append(step)
            labels.append(right >= at)
        at += len(STEP_END)
    _, gold = exercise.work(Slips(random.Random(0), {"unreduced": 0.0}))
    correct = answer_in(MATH, text) == MATH.canonical(str(gold))
    by_step = {"prompt": exercise.question, "completions": steps, "labels": labels}
    return by_step, {"problem": exercise.question, "steps": steps, "correct": correct}


async def measured(data: Path, prms: Sequence[str]) -> dict[str, Figure]:
    """The figures of every PRM on a file of rollouts."""
    rows = read_graded([data], MATH).rows
    found: dict[str, Figure] = {"samples": len(rows), "problems": len(by_problem(rows))}
    first: list[float] = []
    for name in prms:
        scores = await scores_of(name, rows)
        within, of_steps, gains = by_problem_figures(rows, scores)
        whole = figures(rows, scores)
        found[f"{name}.auc_within"] = bounds(interval(within))
        if of_steps:
            found[f"{name}.auc_steps"] = bounds(interval(of_steps))
        found[f"{name}.majority"], found[f"{name}.weighted"] = whole.majority, whole.weighted
        found[f"{name}.gain"] = bounds(interval(gains))
        first = first or within
        found[f"{name}.less_first"] = bounds(paired_interval(within, first))
        found[f"{name}.of_first"] = bounds(ratio(within, first))
    return found


async def scores_of(name: str, rows: Sequence[Graded]) -> list[tuple[float, ...]]:
    """The scores of all samples."""
    prm = load_prm(name)
    try:
        scored = await asyncio.gather(*(prm.score(ScoreRequest(one.question, one.steps)) for one in rows))
    finally:
        await prm.aclose()
    return [one.scores for one in scored]


def by_problem_figures(
    rows: Sequence[Graded], scores: Sequence[Sequence[float]]
) -> tuple[list[float], list[float], list[float]]:
    """The AUC of every problem that has right and wrong answers, that of every one that has right and wrong steps, and
    what weighing votes gains in every problem.
    """
    place = {id(row): number for number, row in enumerate(rows)}
    stepwise = any(len(set(row.labels)) > 1 for row in rows)
    within, of_steps, gains = [], [], []
    for some in by_problem(rows).values():
        mine = [scores[place[id(row)]] for row in some]
        right = np.array([row.outcome > 0.5 for row in some])
        if len(set(right.tolist())) == 2:
            within.append(auc([one[-1] for one in mine], right))
        whole = figures(some, mine)
        if not np.isnan(whole.gain):
            gains.append(whole.gain)
        if stepwise and not np.isnan(whole.auc_steps):
            of_steps.append(whole.auc_steps)
    return within, of_steps, gains


def ratio(a: Sequence[float], b: Sequence[float], resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of ``a`` over that of ``b`` (shape [problems] each), and its 95 % bootstrap interval over problems."""
    first, second = np.array(a), np.array(b)
    drawn = np.random.default_rng(seed).integers(0, len(first), (resamples, len(first)))
    low, high = np.quantile(first[drawn].mean(axis=1) / second[drawn].mean(axis=1), [0.025, 0.975])
    return Interval(float(first.mean() / second.mean()), float(low), float(high))


if __name__ == "__main__":
    sys.exit(main())
