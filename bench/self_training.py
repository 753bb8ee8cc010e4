"""A policy that is fine-tuned on its own searched solutions, round after round: what it gains on fresh problems.

    python bench/self_training.py --work FOLDER [--models DIR --pair NAME] [--rounds R] [--problems K ...] [--json FILE]

Every round is three commands, as a user would give them: ``adaptive-ttc export --format rollouts`` draws ``--samples``
solutions of each of ``--problems`` problems of MiniMath's training split by the policy of the round before (the first:
the pair's own) with the pair's PRM, ``export --format sft`` takes the right, distinct ones in about equal parts of all
difficulties, and ``train-policy`` fine-tunes the pair's policy anew on what all rounds found so far (ReST-EM,
arXiv 2312.06585). Then every policy draws ``--fresh-samples`` solutions of ``--fresh`` problems of the test split that
no round saw. A run that was cut goes on.

Figures of each round's policy (0: the pair's own), all over the fresh problems:

- ``.pass_at_1``, ``.tokens`` a solution; ``.majority`` and ``.weighted``: accuracy at n = 1, 2, 4, 8, 16, expectations
  over subsets of the samples; ``.prm_auc``: of the PRM within a problem, mean and bounds;
- ``.gain`` in pass@1 over the round before, as ``[mean, low, high]``, and ``.gain_majority`` and ``.gain_weighted`` of
  the votes of all samples; paired bootstraps over problems;
- ``.ratio_majority`` and ``.ratio_weighted``: ``[ratio, low, high]`` of its tokens to round 0's, at the
  accuracy that this one reaches at 95 % of its own rise from one sample to its best.

Then ``adaptive-ttc calibrate`` learns the first round's policy with the PRM, on ``--calibration-problems`` of
the calibration split, and ``eval --shared-budget`` solves the fresh problems with it, at the tokens of n = 2, 4 and 8
samples a problem: ``adaptiveN.accuracy``, ``adaptiveN.tokens`` a problem, and ``adaptiveN.less_uniform``: its accuracy
less that of weighted votes over N samples of every problem, as ``[difference, low, high]``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figure, bounds, parser_of, report
from mini_pairs import MiniPair, add_pair_options, pair_of, run_command

from adaptive_ttc.calibration.pareto.curves import Line, Point, Ratio, resampled
from adaptive_ttc.cli import exit_code
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.evaluation.metrics import NO_ANSWER, auc, interval, paired_interval, vote_at_k

SIZES = (1, 2, 4, 8, 16)
ADAPTIVE = (2, 4, 8)
SHARE = 0.95
FRESH_SEED = 4242


@dataclass(frozen=True, slots=True)
class Pool:
    """The samples of one problem: shape [samples] each."""

    classes: np.ndarray
    correct: np.ndarray
    scores: np.ndarray
    tokens: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    option = parser.add_argument
    option("--work", type=Path, required=True, metavar="FOLDER", help="where samples and policies go")
    option("--rounds", type=int, default=2, metavar="R", help="default: %(default)s")
    option(
        "--problems", type=int, nargs="+", default=[1600, 800], metavar="K", help="of each round (default: 1600 800)"
    )
    option("--samples", type=int, default=16, metavar="N", help="of each (default: %(default)s)")
    option("--most", type=int, default=8, metavar="K", help="solutions learned of a problem (default: %(default)s)")
    option("--per-bin", type=int, default=1200, metavar="K", help="of a bin of difficulty (default: %(default)s)")
    option("--epochs", type=float, default=2.0, metavar="E", help="of training (default: %(default)s)")
    option("--learning-rate", type=float, nargs="+", default=[3e-4], metavar="R", help="of each (3e-4)")
    option("--fresh", type=int, default=300, metavar="K", help="problems to measure on (default: %(default)s)")
    option("--calibration-problems", type=int, default=160, metavar="K", help="0: none (default: %(default)s)")
    option("--seed", type=int, default=1, metavar="S", help="of the samples drawn (default: %(default)s)")
    option("--fresh-samples", type=int, default=16, metavar="N", help="of each, at least 16 (default: %(default)s)")
    add_pair_options(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: report(options.json, "self_training", run(options)), interrupted="the same call goes on")


def run(options: Any) -> dict[str, Figure]:
    """Train as many rounds, and measure every policy."""
    pair, work = pair_of(options), options.work
    work.mkdir(parents=True, exist_ok=True)
    policies = [pair.policy]
    for number in range(1, options.rounds + 1):
        policies.append(_round(options, pair, number, policies[-1]))
    fresh = work / "fresh.jsonl"
    rows = load_problems(pair.dataset("minimath-500"), options.fresh, FRESH_SEED)
    fresh.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pools = []
    for number, policy in enumerate(policies):
        out = work / f"fresh{number}.jsonl"
        _draw(options, policy, pair.prm, ["--dataset", fresh], options.fresh_samples, out)
        pools.append(read_pools(out))
    found = figures_of(pools)
    if options.calibration_problems and options.rounds:
        found |= _adaptive(options, pair, policies[1], fresh, pools[1])
    return found


def _round(options: Any, pair: MiniPair, number: int, policy: Path) -> Path:
    """One round: draw, select, fine-tune; where the new policy is."""
    work: Path = options.work
    samples, out = work / f"samples{number}.jsonl", work / f"policy{number}"
    problems, rate = (some[min(number, len(some)) - 1] for some in (options.problems, options.learning_rate))
    train = ["--dataset", pair.dataset("minimath-train"), "--limit", problems]
    _draw(options, policy, pair.prm, train, options.samples, samples)
    chosen = work / f"sft{number}.jsonl"
    most = ["--most", options.most, "--per-bin", options.per_bin]
    run_command("export", "--format", "sft", samples, *most, "--out", chosen)
    if not (out / "training.json").exists():
        data = [work / f"sft{one}.jsonl" for one in range(1, number + 1)]
        how = ["--epochs", options.epochs, "--learning-rate", rate, "--tokens", 2048, "--threads", 1]
        run_command("train-policy", "--policy", pair.policy, "--data", *data, "--out", out, *how)
    return out


def _adaptive(options: Any, pair: MiniPair, policy: Path, fresh: Path, pools: Sequence[Pool]) -> dict[str, Figure]:
    """Calibrate the policy, solve the fresh problems under budgets, and compare with uniform votes."""
    models = ["--policy", policy, "--prm", pair.prm]
    calibration = options.work / "calibration1"
    if not (calibration / "meta.json").exists():
        arms = ["greedy", "majority:1,4,16", "weighted_best_of_n:4,16"]
        how = ["--dataset", pair.dataset("minimath-calibration"), "--limit", options.calibration_problems]
        run_command("calibrate", *models, *how, "--arms", *arms, "--out", calibration)
    found: dict[str, Figure] = {}
    for n in ADAPTIVE:
        budget, out = round(n * sum(float(pool.tokens.mean()) for pool in pools)), options.work / f"adaptive{n}.json"
        if not out.exists():
            how = ["--dataset", fresh, "--shared-budget", budget, "--sampling-seed", 7, "--json", out]
            run_command("eval", *models, "--calibration", calibration, *how)
        solved = json.loads(out.read_text(encoding="utf-8"))["figures"]
        right = np.array(solved["correct"], dtype=float)
        uniform = [_voted(pool, n, "weighted") for pool in pools]
        found[f"adaptive{n}.accuracy"] = bounds(interval(right))
        found[f"adaptive{n}.tokens"] = float(np.mean(solved["tokens"]))
        found[f"adaptive{n}.overspent"] = solved["overspent"]
        found[f"adaptive{n}.less_uniform"] = bounds(paired_interval(right, uniform))
    return found


def _draw(options: Any, policy: Path, prm: Path, problems: Sequence[Any], n: int, out: Path) -> None:
    models = ["--policy", policy, "--prm", prm]
    how = ["--strategy", "weighted_best_of_n", "--n", n, "--concurrency", 64, "--seed", options.seed]
    run_command("export", "--format", "rollouts", *problems, *how, *models, "--out", out)


def read_pools(path: Path) -> list[Pool]:
    """The samples of every problem of what ``export --format rollouts`` wrote, in the order of the problems' names."""
    problems: dict[str, list[dict[str, Any]]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            problems.setdefault(row["id"], []).append(row)
    return [_pool(problems[id]) for id in sorted(problems, key=lambda id: (len(id), id))]


def _pool(rows: Sequence[dict[str, Any]]) -> Pool:
    names = sorted({row["answer"] for row in rows if row["answer"] is not None})
    # a class is right as its first sample is: equal answers are graded alike
    classes = [NO_ANSWER if row["answer"] is None else names.index(row["answer"]) for row in rows]
    return Pool(
        classes=np.array(classes),
        correct=np.array([bool(row["correct"]) for row in rows]),
        scores=np.array([row["scores"][-1] if row["scores"] else 0.0 for row in rows]),
        tokens=np.array([float(row["tokens"]) for row in rows]),
    )


def figures_of(rounds: Sequence[Sequence[Pool]]) -> dict[str, Figure]:
    """The figures that the module tells of."""
    found: dict[str, Figure] = {"problems": len(rounds[0]), "samples": len(rounds[0][0].tokens)}
    curves = [{vote: line_of(pools, vote) for vote in ("majority", "weighted")} for pools in rounds]
    for number, (pools, lines) in enumerate(zip(rounds, curves, strict=True)):
        name = f"round{number}"
        rates = [float(pool.correct.mean()) for pool in pools]
        found[f"{name}.pass_at_1"] = bounds(interval(rates))
        found[f"{name}.tokens"] = float(np.mean([pool.tokens.mean() for pool in pools]))
        if within := [value for pool in pools if not np.isnan(value := auc(pool.scores, pool.correct))]:
            found[f"{name}.prm_auc"] = bounds(interval(within))
        for vote, line in lines.items():
            found[f"{name}.{vote}"] = [float(point.accuracy.mean()) for point in line.points]
        if number:
            before = [float(pool.correct.mean()) for pool in rounds[number - 1]]
            found[f"{name}.gain"] = bounds(paired_interval(rates, before))
            for vote, line in lines.items():
                last, other = line.points[-1], curves[number - 1][vote].points[-1]
                found[f"{name}.gain_{vote}"] = bounds(paired_interval(last.accuracy, other.accuracy))
                found[f"{name}.ratio_{vote}"] = _ratio(line, curves[0][vote])
    return found


def line_of(pools: Sequence[Pool], vote: str) -> Line:
    """Accuracy of a vote against tokens, in order of n."""
    points = []
    for n in SIZES:
        accuracy = [_voted(pool, n, vote) for pool in pools]
        cost = [n * float(pool.tokens.mean()) for pool in pools]
        points.append(Point.measured(np.array(cost), np.array(accuracy), str(n)))
    return Line.of(vote, points)


def _voted(pool: Pool, n: int, vote: str) -> float:
    return vote_at_k(pool.classes, pool.correct, n, weights=pool.scores if vote == "weighted" else None)


def _ratio(line: Line, base: Line) -> list[float]:
    """Tokens to what the base reaches at 95 % of its rise, to the base's own."""
    drawn = resampled(len(base.points[0].cost))
    ratio: Ratio = drawn.ratio(line, base, drawn.targets(base, SHARE))
    return [ratio.value, ratio.low, ratio.high]


if __name__ == "__main__":
    sys.exit(main())
