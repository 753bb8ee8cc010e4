"""A verifier of a mini policy that learned from labels by its own roll-outs alone, beside the pair's own PRM.

    python bench/rollout_verifier.py FOLDER [--models DIR --pair NAME] [--problems K] [--test K] [--json FILE]

Commands of ``adaptive-ttc`` do all of it, and are printed: ``export --format rollouts`` draws solutions of
``minimath-train``, ``export --format prm`` labels their steps by roll-outs within ``--budget-tokens`` a problem,
``train-prm --kind implicit --learn steps`` learns from these labels, with the options of ``--train``. FOLDER keeps
what they write, and what is complete there is not made again. Then ``bench/verifiers.py`` draws fresh test problems and
measures both verifiers.

Figures: ``minutes`` of every command that had something to do; ``shared_problems`` of training and test, which are
none; ``shipped`` and ``trained`` as in ``bench/verifiers.py``, where ``trained.of_first`` is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring import Figure, parser_of, report
from mini_pairs import MiniPair, add_pair_options, pair_of, run_command
from verifiers import MATH, draw, measured

from adaptive_ttc.cli import exit_code
from adaptive_ttc.training.graded import by_problem, read_graded
from adaptive_ttc.training.result import RECORD

TEMPERATURE = "0.9"  # of solutions and roll-outs, as of the test's samples
TRAINING = "--epochs 2 --learning-rate 3e-4 --patience 9"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, label, train, measure; 130 after Ctrl-C, and the same command goes on."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of samples, labels and verifier")
    for name, default, text in (
        ("problems", 500, "of minimath-train, from the first on"),
        ("samples", 16, "drawn of each"),
        ("most", 8, "solutions labelled of each, at most"),
        ("rollouts", 3, "from one step, at most"),
        ("budget_tokens", 3000, "of a problem's roll-outs"),
        ("seed", 1, "of what is drawn to learn from"),
        ("test", 250, "fresh problems to measure on, 16 samples of each"),
        ("test_seed", 3, "of these"),
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=default, metavar="K", help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--train", type=shlex.split, default=TRAINING, metavar="OPTIONS", help="of train-prm (default: %(default)s)"
    )
    add_pair_options(parser)
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="the same command goes on")


def run(options: argparse.Namespace) -> None:
    """Make what is not there, measure, print."""
    pair = pair_of(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Figure] = {}
    for name, words in commands(options, pair).items():
        if name == "train" and (options.folder / "verifier" / RECORD).exists():
            continue
        found[f"{name}.minutes"] = run_command(*words)
    test = fresh_samples(options)
    apart = [set(by_problem(read_graded([path], MATH).rows)) for path in (options.folder / "labels.jsonl", test)]
    found["shared_problems"] = len(apart[0] & apart[1])
    names = {str(pair.prm): "shipped", str(options.folder / "verifier"): "trained"}
    for key, value in asyncio.run(measured(test, list(names))).items():
        name, dot, figure = key.rpartition(".")
        found[f"{names[name]}.{figure}" if dot else key] = value
    report(options.json, "rollout_verifier", found)


def commands(options: argparse.Namespace, pair: MiniPair) -> dict[str, list[str]]:
    """What is run, one after the other."""
    samples, labels, out = (str(options.folder / name) for name in ("samples.jsonl", "labels.jsonl", "verifier"))
    policy, drawn = ["--policy", str(pair.policy)], ["--temperature", TEMPERATURE]
    how = {
        "draw": ["export", "--format", "rollouts", "--dataset", pair.dataset("minimath-train")],
        "label": ["export", "--format", "prm", samples, "--most", str(options.most)],
        "train": ["train-prm", "--data", labels, "--kind", "implicit", "--learn", "steps", "--threads", "1"],
    }
    how["draw"] += ["--limit", str(options.problems), "--strategy", "majority", "--n", str(options.samples)]
    how["draw"] += [*drawn, "--seed", str(options.seed)]
    how["label"] += ["--rollouts", str(options.rollouts), *drawn, "--budget-tokens", str(options.budget_tokens)]
    how["train"] += ["--tokens", "2048", *options.train]
    return {name: [*how[name], *policy, "--out", file] for name, file in zip(how, (samples, labels, out), strict=True)}


def fresh_samples(options: argparse.Namespace) -> Path:
    """Graded samples of fresh test problems, drawn where they are not there."""
    path: Path = options.folder / f"test-{options.test}-{options.test_seed}.jsonl"
    if not path.exists():
        partial = options.folder / "test.jsonl"
        asked = {"draw": "test", "limit": options.test, "n": 16, "seed": options.test_seed, "out": partial}
        draw(argparse.Namespace(**{**vars(options), **asked}))
        partial.with_suffix(".rollouts.jsonl").replace(path)
        partial.unlink()
    return path


if __name__ == "__main__":
    sys.exit(main())
