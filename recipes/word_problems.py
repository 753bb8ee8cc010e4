"""From word problems with worked answers to a better policy, its verifier, and a solver that knows both.

    python recipes/word_problems.py --policy FOLDER --data train.jsonl --test test.jsonl --work FOLDER

``--data`` and each ``--test`` are in GSM8K's format, plain or gzip: ``{"question": ..., "answer": "... #### 42"}``. The
data are parted: the policy is fine-tuned on the worked answers of the first part; the verifier learns from samples of
the second, which the policy has not read; the third is for the calibration. Problems that are in a test are left out.
Then the policy as it was and as it is solve the tests. All of it is commands of the library, which are printed as they
are run and are kept in ``commands.sh``; a run that was cut goes on. ``--engine vllm`` samples on a GPU.

Printed at the end, and written to ``figures.json``, for each test: ``before`` and ``after`` (right answers of single
samples, of majority votes and, after, of votes weighed by the verifier), each with its 95 % interval, and the
``adaptive`` solver under one budget of as many tokens as the votes took.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_ttc.evaluation.metrics import NO_ANSWER, Interval, auc, interval, paired_interval, vote_at_k

Words = list[str]

RECORD = "training.json"  # written last


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = made.add_argument
    option("--policy", type=Path, required=True, metavar="FOLDER", help="such as what recipes/smollm2_135m.py makes")
    option("--data", type=Path, required=True, metavar="FILE", help="problems to learn from")
    option("--test", type=Path, required=True, nargs="+", metavar="FILE", help="problems to measure on")
    option("--work", type=Path, required=True, metavar="FOLDER", help="where everything goes")
    option("--engine", choices=("transformers", "vllm"), default="transformers", help="that samples (%(default)s)")
    option("--share", type=float, default=0.35, metavar="S", help="of the card for the policy in vLLM (%(default)s)")
    option("--verifier-problems", type=int, default=600, metavar="K", help="of the second part (%(default)s)")
    option("--verifier-epochs", type=float, default=2.0, metavar="E", help="of the verifiers (default: %(default)s)")
    option("--calibration-problems", type=int, default=80, metavar="K", help="of the third, 30 or more (%(default)s)")
    option("--most", type=int, metavar="K", help="of the first part (default: all that are left)")
    option("--limit", type=int, metavar="K", help="of each test (default: all)")
    option("--n", type=int, default=16, metavar="N", help="samples of a problem (default: %(default)s)")
    option("--max-tokens", type=int, default=300, metavar="T", help="of a sample (default: %(default)s)")
    option("--epochs", type=float, default=3.0, metavar="E", help="of the policy's training (default: %(default)s)")
    option("--learning-rate", type=float, metavar="R", help="of the policy (default: the library's)")
    option("--tokens", type=int, metavar="T", help="of one training pass; less takes less memory (default: 8192)")
    option("--kinds", nargs="+", default=["implicit"], metavar="KIND", help="of verifiers; the best one is taken")
    return made


@dataclass(frozen=True, slots=True)
class Chain:
    """The commands, each of which is run once: its output stands in ``work`` where it has been."""

    options: argparse.Namespace

    def path(self, name: str) -> Path:
        """A file of the run."""
        found: Path = self.options.work / name
        return found

    def run(self) -> None:
        """Run them all."""
        options, policy = self.options, self.path("policy")
        part(options)
        fit = ["--policy", options.policy, "--data", self.path("policy.jsonl"), "--out", policy]
        rate = [] if options.learning_rate is None else ["--learning-rate", options.learning_rate]
        rate += self.tokens
        self.recipe("before", options.policy)
        self.recipe("after", policy)
        self.together(
            (policy / RECORD, ["train-policy", *fit, "--epochs", options.epochs, *rate]),
            self.sampled("before", "test"),
        )
        self.together(self.sampled("after", "verifier"))
        prm = self.verifier(policy)
        self.recipe("pair", policy, prm)
        self.together(self.sampled("pair", "test"))
        found = measured(options, self.path("before-test.jsonl"), self.path("pair-test.jsonl"))
        self.write(found)  # also where what follows fails
        arms = [f"{vote}:{n}" for vote in ("majority", "weighted_best_of_n") for n in (1, 4, max(8, options.n))]
        calibration = self.path("calibration")
        fit = ["--recipe", self.path("pair.toml"), "--dataset", self.path("calibration.jsonl"), "--out", calibration]
        fit += ["--arms", "greedy", *dict.fromkeys(arms), "--folds", 3, "--max-tokens", options.max_tokens]
        self.together((calibration / "meta.json", ["calibrate", *fit, "--concurrency", 32]))
        self.write(found | self.solved())

    @property
    def tokens(self) -> list[Any]:
        """Of a training pass, where that is asked for."""
        return [] if self.options.tokens is None else ["--tokens", self.options.tokens]

    def write(self, figures: dict[str, Any]) -> None:
        """Print the figures, and keep them."""
        text = json.dumps(figures, indent=1)
        self.path("figures.json").write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)

    def sampled(self, recipe: str, problems: str) -> tuple[None, list[Any]]:
        """Samples of a model, or of a pair with its scores, of one file of problems; ``export`` sees what is done."""
        out, options = self.path(f"{recipe}-{problems}.jsonl"), self.options
        words = ["export", "--format", "rollouts", "--recipe", self.path(f"{recipe}.toml"), "--n", options.n]
        words += ["--strategy", "weighted_best_of_n" if recipe == "pair" else "majority"]
        words += ["--max-tokens", options.max_tokens, "--dataset", self.path(f"{problems}.jsonl"), "--out", out]
        return None, [*words, "--concurrency", 128]

    def verifier(self, policy: Path) -> Path:
        """Train the verifiers; the folder of the one that ranks samples of held-out problems best."""
        made = {kind: self.path(f"prm-{kind}") for kind in self.options.kinds}
        words = ["train-prm", "--policy", policy, "--data", self.path("after-verifier.jsonl")]
        words += ["--epochs", self.options.verifier_epochs, *self.tokens]
        self.together(*((out / RECORD, [*words, "--kind", kind, "--out", out]) for kind, out in made.items()))
        return max(made.values(), key=_auc_within)

    def solved(self) -> dict[str, Any]:
        """The tests under one budget, of as many tokens as the samples took."""
        samples, out = _rows(self.path("pair-test.jsonl")), self.path("adaptive.json")
        budget = sum(row["tokens"] for row in samples)
        words = ["eval", "--recipe", self.path("pair.toml"), "--calibration", self.path("calibration")]
        words += ["--dataset", self.path("test.jsonl"), "--shared-budget", budget, "--json", out]
        self.together((out, [*words, "--max-tokens", self.options.max_tokens]))
        found = json.loads(out.read_text(encoding="utf-8"))
        found = found.get("figures", found)
        names = [row["id"] for row in _rows(self.path("test.jsonl"))]
        right = dict(zip(names, found["correct"], strict=True))
        tokens = sum(found["tokens"])
        return {
            f"{test}.adaptive": _shown(interval([float(bool(right[name])) for name in right if _test(name) == test]))
            for test in sorted(set(map(_test, names)))
        } | {"budget": budget, "adaptive_tokens": tokens}

    def recipe(self, name: str, policy: Path, prm: Path | None = None) -> None:
        """How a policy is run, alone or with its verifier."""
        lines = ["[policy]", f"model = {json.dumps(str(policy.resolve()))}"]
        if self.options.engine == "vllm":
            lines += ['engine = "vllm"', 'dtype = "bfloat16"', "max_model_len = 2048", "enforce_eager = true"]
            lines += [f"gpu_memory_utilization = {self.options.share}", "max_num_seqs = 256"]
        if prm is not None:
            lines += ["", "[prm]", f"model = {json.dumps(str(prm.resolve()))}"]
        self.path(f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def together(self, *commands: tuple[Path | None, Sequence[Any]]) -> None:
        """Run commands side by side, but for those whose output is there; exits where one fails."""
        due = [[str(word) for word in words] for done, words in commands if done is None or not done.exists()]
        with ThreadPoolExecutor(max(1, len(due))) as threads:
            codes = list(threads.map(self._command, due))
        if any(codes):
            sys.exit(max(codes))

    def _command(self, words: Words) -> int:
        line = shlex.join(["adaptive-ttc", *words])
        print(line, flush=True)
        with self.path("commands.sh").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        began = time.perf_counter()
        code = subprocess.run([sys.executable, "-m", "adaptive_ttc", *words], check=False).returncode
        print(f"{words[0]}: {time.perf_counter() - began:.0f} s, exit code {code}", flush=True)
        return code


def part(options: argparse.Namespace) -> None:
    """Write the problems of each part, and those of all tests, whose ids begin with their file's name."""
    options.work.mkdir(parents=True, exist_ok=True)
    tests = []
    for file in options.test:
        for number, row in enumerate(_rows(file)[: options.limit]):
            tests.append({**row, "id": f"{_stem(file)}/{number}"})
    known = {" ".join(row["question"].split()) for row in tests}
    rows = [row for row in _rows(options.data) if " ".join(row["question"].split()) not in known]
    random.Random(0).shuffle(rows)
    sizes = {"calibration": options.calibration_problems, "verifier": options.verifier_problems, "policy": options.most}
    if len(rows) <= options.calibration_problems + options.verifier_problems:
        sys.exit(f"{options.data} holds {len(rows)} problems, too few for its parts: lower --verifier-problems")
    for name, size in sizes.items():
        some, rows = rows[:size], rows[size:] if size else []
        _write(options.work / f"{name}.jsonl", some)
    _write(options.work / "test.jsonl", tests)


def measured(options: argparse.Namespace, before: Path, after: Path) -> dict[str, Any]:
    """Shares of right answers before and after, for each test."""
    found: dict[str, Any] = {}
    for file in options.test:
        name = _stem(file)
        singles = []
        for when, path in (("before", before), ("after", after)):
            problems: dict[str, list[dict[str, Any]]] = {}
            for row in _rows(path):
                if _test(row["id"]) == name:
                    problems.setdefault(row["id"], []).append(row)
            pools = [problems[one] for one in sorted(problems)]
            singles.append([float(np.mean([row["correct"] for row in pool])) for pool in pools])
            found[f"{name}.{when}.single"] = _shown(interval(singles[-1]))
            found[f"{name}.{when}.boxed"] = float(np.mean([row["answer"] is not None for p in pools for row in p]))
            found[f"{name}.{when}.majority"] = _shown(interval([_voted(pool, weighted=False) for pool in pools]))
            if when == "after":
                found[f"{name}.{when}.weighted"] = _shown(interval([_voted(pool, weighted=True) for pool in pools]))
                within = [auc([row["scores"][-1] for row in p], np.array([row["correct"] for row in p])) for p in pools]
                known = [one for one in within if not np.isnan(one)]
                found[f"{name}.{when}.auc_within"] = _shown(interval(known)) if known else None
        found[f"{name}.gain"] = _shown(paired_interval(singles[1], singles[0]))
    return found


def _voted(rows: Sequence[dict[str, Any]], *, weighted: bool) -> float:
    names = sorted({row["answer"] for row in rows if row["answer"] is not None})
    classes = [NO_ANSWER if row["answer"] is None else names.index(row["answer"]) for row in rows]
    right = np.array([bool(row["correct"]) for row in rows])
    weights = [row["scores"][-1] if row["scores"] else 0.0 for row in rows] if weighted else None
    return vote_at_k(classes, right, len(rows), weights=weights)


def _auc_within(folder: Path) -> float:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    best = next(look for look in record["looks"] if look["step"] == record["best_step"])
    return float(best["auc_within"] or 0.0)


def _rows(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        sys.exit(f"{path} is of a run with other data or sizes: give another --work")
    path.write_text(text, encoding="utf-8")


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _test(id: str) -> str:
    return id.partition("/")[0]


def _shown(one: Interval) -> list[float]:
    return [round(value, 4) for value in (one.mean, one.low, one.high)]


def main() -> None:
    """Run the chain and print the figures."""
    options = parser().parse_args()
    began = time.perf_counter()
    Chain(options).run()
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
