"""A cascade of a small and a larger policy against either of them alone, at equal budgets of FLOPs.

    python bench/cascade.py [--out DIR] [--limit K] [--seed S ...] [--budgets F,F,...] [--json FILE] [--results FILE]

Three calibrations are fitted on problems of their own, from one store of units: of the embedded policy, of
``mini-large``, and of the cascade of both, all with the embedded PRM; what DIR holds already is not made again. Then
the same fresh problems are solved by each with adaptive runs, all problems of a set on one budget of FLOPs
(``solve_many(count="flops")``), which bounds policies, prompts and PRM; DIR keeps every such run, and the same call
goes on after an interruption. Of several seeds each has problems and runs of its own, and figures are of all problems.
``--results`` writes a section of that file.

Figures: ``problems``, ``budgets`` (FLOPs a problem); ``accuracy.<name>``, ``spent.<name>`` (a problem) and
``second_share`` (of the cascade's FLOPs, what the second policy computed), an entry for every budget, for ``first``,
``second`` and ``cascade``; ``less_first``, ``less_second``: the cascade's accuracy less that of the policy alone, as
``[difference, low, high]`` paired by problem, one after the other; ``overspent``: runs that cost more than they were
allowed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from measuring import bounds, markdown_table, parser_of, provenance, report, write_section
from numpy.typing import NDArray

from adaptive_ttc.calibration.fit.__main__ import main as fit
from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.artefact import META, read_meta
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import Outcome, solve_rows_together
from adaptive_ttc.evaluation.metrics import interval, paired_interval
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM
from adaptive_ttc.policy import second_policy
from adaptive_ttc.solver import Solver

LARGE = MINI_POLICY.with_name("large")
POLICIES: dict[str, list[Path]] = {"first": [MINI_POLICY], "second": [LARGE], "cascade": [MINI_POLICY, LARGE]}
BUDGETS = (2e8, 4e8, 8e8, 1.6e9, 3.2e9, 6.4e9)
VOTES = ("majority", "best_of_n", "weighted_best_of_n")
ARMS = (
    "greedy",
    *(f"{vote}:1,2,4,8,16" for vote in VOTES),
    "dvts:4x4,8x4,16x4",
    "dvts:2x2,4x2,8x2",
    "beam_search:4x4,16x4",
)

Array = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/cascade"), metavar="DIR", help="of calibrations (default: %(default)s)")
    add("--store", type=Path, metavar="FILE", help="of drawn units (default: units.sqlite in --out)")
    add("--calibrate-on", type=int, default=240, metavar="K", help="problems (default: %(default)s)")
    add("--limit", type=int, default=300, metavar="K", help="problems of a seed to solve (default: %(default)s)")
    add("--seed", type=int, nargs="+", default=[0], metavar="S", help="of the problems and the samples (default: 0)")
    add("--workers", type=int, default=2, metavar="W", help="runs side by side (default: %(default)s)")
    add("--budgets", type=_numbers, default=BUDGETS, help="FLOPs a problem")
    add("--results", type=Path, metavar="FILE", help="write the table into its section of this file")
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="what is whole is kept; the same call goes on")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def run(options: argparse.Namespace) -> None:
    """Calibrate what is not, solve, print."""
    for name, policies in POLICIES.items():
        calibrate(name, policies, options)
    tasks = [Task(name, each, seed, options) for seed in options.seed for name in POLICIES for each in options.budgets]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as workers:
        found = dict(zip(((one.name, one.each, one.seed) for one in tasks), workers.map(solved_at, tasks), strict=True))
    figures: dict[str, Any] = {"budgets": list(options.budgets), "overspent": 0}
    right: dict[str, Array] = {}
    for name in POLICIES:
        parts = [[found[name, each, seed] for seed in options.seed] for each in options.budgets]
        solved = [Solved.of_all(some) for some in parts]
        right[name] = np.stack([one.right for one in solved])
        figures[f"accuracy.{name}"] = right[name].mean(axis=1).tolist()
        figures[f"spent.{name}"] = [one.spent / len(one.right) for one in solved]
        figures["overspent"] += sum(one.spent > one.allowed for some in parts for one in some)
        if name == "cascade":
            figures["second_share"] = [one.by_second / max(one.computed, 1.0) for one in solved]
    for name in ("first", "second"):
        pairs = [paired_interval(ours, theirs) for ours, theirs in zip(right["cascade"], right[name], strict=True)]
        figures[f"less_{name}"] = [value for one in pairs for value in bounds(one)]
    report(options.json, "cascade", {"problems": right["first"].shape[1], **figures})
    if options.results is not None:
        write_section(options.results, "cascade", _section(figures, right, len(options.seed)))


def calibrate(name: str, policies: Sequence[Path], options: argparse.Namespace) -> None:
    """Fit a calibration unless it is there. CalibrationError: it could not be."""
    folder, store = options.out / name, options.store or options.out / "units.sqlite"
    if (folder / META).exists():
        return
    words = ["--policy", str(policies[0]), "--prm", str(MINI_PRM), "--out", str(folder), "--store", str(store)]
    words += ["--second", str(policies[1])] if len(policies) > 1 else []
    words += ["--limit", str(options.calibrate_on), "--arms", *ARMS, "--count", "flops"]
    if code := fit(words):
        raise CalibrationError(f"the calibration of {name} ended with exit code {code}")


@dataclass(slots=True)
class Solved:
    """What a run over all problems found and cost."""

    right: Array  # shape [problems]
    allowed: int  # FLOPs
    spent: int = 0  # as charged
    computed: float = 0.0  # FLOPs as measured
    by_second: float = 0.0  # those of the second policy

    @classmethod
    def of_all(cls, parts: Sequence[Solved]) -> Solved:
        """Of runs over different problems."""
        summed = {
            name: sum(getattr(one, name) for one in parts) for name in ("allowed", "spent", "computed", "by_second")
        }
        return cls(np.concatenate([one.right for one in parts]), **summed)


@dataclass(frozen=True, slots=True)
class Task:
    """What one run is."""

    name: str  # of :data:`POLICIES`
    each: float  # FLOPs a problem
    seed: int
    options: argparse.Namespace


def solved_at(task: Task) -> Solved:
    """One run, in a process of its own, unless its file is there."""
    name, each, options = task.name, task.each, task.options
    calibration = read_meta(options.out / name)["digest"][:8]
    file: Path = options.out / "runs" / f"{name}-{calibration}-{each:g}-{options.limit}-{task.seed}.json"
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        return Solved(**{**known, "right": np.array(known["right"])})
    rows = load_problems("minimath-500", options.limit, seed=task.seed)
    solved = interruption.run(partial(solve, task, POLICIES[name], rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps({**asdict(solved), "right": solved.right.tolist()}), encoding="utf-8")
    part.replace(file)
    return solved


async def solve(task: Task, policies: Sequence[Path], rows: Sequence[Row]) -> Solved:
    """Solve all problems on one budget."""
    solved = Solved(np.zeros(len(rows)), int(task.each * len(rows)))
    outcomes: list[Outcome] = []
    second = policies[1] if len(policies) > 1 else None
    async with Solver.load(
        policies[0], MINI_PRM, second=second, seed=task.seed, calibration=task.options.out / task.name
    ) as solver:
        await solve_rows_together(solver, rows, {"count": "flops"}, outcomes.append, budget=solved.allowed)
        other = second_policy(solver.policy)
    for one in outcomes:
        solved.right[one.index] = bool(one.correct)
        if one.solution is not None:
            usage = one.solution.usage
            solved.spent += one.solution.spent
            solved.computed += usage.flops
            solved.by_second += 2.0 * other.parameters * usage.second_tokens if other else 0.0
    return solved


def _section(figures: dict[str, Any], right: dict[str, Array], seeds: int) -> str:
    rows = []
    for row, budget in enumerate(figures["budgets"]):
        cells = [f"{budget:.1e}"]
        for name in POLICIES:
            known = interval(right[name][row])
            cells.append(f"{known.mean:.3f} [{known.low:.3f}, {known.high:.3f}]")
        for name in ("first", "second"):
            mean, low, high = figures[f"less_{name}"][3 * row : 3 * row + 3]
            cells.append(f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
        rows.append([*cells, f"{figures['second_share'][row]:.0%}"])
    head = [
        "FLOPs a problem",
        "first alone",
        "second alone",
        "cascade",
        "less first, points",
        "less second",
        "by second",
    ]
    problems = f"{right['first'].shape[1]} problems of minimath-500" + f", of {seeds} seeds" * (seeds > 1)
    told = f"{problems}; runs that overspent: {figures['overspent']}."
    return f"{provenance()}\n\n{markdown_table(head, rows)}\n\n{told}"


if __name__ == "__main__":
    sys.exit(main())
