"""A cascade of a small and a larger policy against either of them alone, at equal budgets of FLOPs.

    python bench/cascade.py [--out DIR] [--limit K] [--seed S] [--budgets F,F,...] [--json FILE] [--results FILE]

Three calibrations are fitted on problems of their own, from one store of units: of the embedded policy, of
``mini-large``, and of the cascade of both, all with the embedded PRM; what DIR holds already is not made again. Then
the same fresh problems are solved by each with adaptive runs, all problems of a set on one budget of FLOPs
(``solve_many(count="flops")``), which bounds policies, prompts and PRM. ``--results`` writes a section of that file.

Figures: ``problems``, ``budgets`` (FLOPs a problem); ``accuracy.<name>``, ``spent.<name>`` (a problem) and
``second_share`` (of the cascade's FLOPs, what the second policy computed), an entry for every budget, for ``first``,
``second`` and ``cascade``; ``less_first``, ``less_second``: the cascade's accuracy less that of the policy alone, as
``[difference, low, high]`` paired by problem, one after the other; ``overspent``: runs that cost more than they were
allowed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import markdown_table, parser_of, provenance, report, write_section
from numpy.typing import NDArray

from adaptive_ttc.calibration.fit.__main__ import main as fit
from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.artefact import META
from adaptive_ttc.evaluation.datasets import Row, load_problems
from adaptive_ttc.evaluation.evaluate import Outcome, solve_rows_together
from adaptive_ttc.evaluation.metrics import interval, paired_interval
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM
from adaptive_ttc.solver import Solver

LARGE = MINI_POLICY.with_name("large")
POLICIES: dict[str, list[Path]] = {"first": [MINI_POLICY], "second": [LARGE], "cascade": [MINI_POLICY, LARGE]}
BUDGETS = (2e8, 4e8, 8e8, 1.6e9, 3.2e9, 6.4e9)

Array = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/cascade"), metavar="DIR", help="of calibrations (default: %(default)s)")
    add("--store", type=Path, metavar="FILE", help="of drawn units (default: units.sqlite in --out)")
    add("--calibrate-on", type=int, default=240, metavar="K", help="problems (default: %(default)s)")
    add("--most", type=int, default=16, metavar="N", help="of the largest arm (default: %(default)s)")
    add("--limit", type=int, default=300, metavar="K", help="problems to solve (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of the problems and the samples (default: %(default)s)")
    add("--budgets", type=_numbers, default=BUDGETS, help="FLOPs a problem")
    add("--results", type=Path, metavar="FILE", help="write the table into its section of this file")
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options), interrupted="calibrations that are whole, and what was drawn, are kept")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def run(options: argparse.Namespace) -> None:
    """Calibrate what is not, solve, print."""
    for name, policies in POLICIES.items():
        calibrate(name, policies, options)
    rows = load_problems("minimath-500", options.limit, seed=options.seed)
    figures: dict[str, Any] = {"problems": len(rows), "budgets": list(options.budgets), "overspent": 0}
    right = {name: np.zeros((len(options.budgets), len(rows))) for name in POLICIES}
    for name, policies in POLICIES.items():
        solved = [
            interruption.run(lambda b=b, n=name, p=policies: solve(n, p, rows, b, options)) for b in options.budgets
        ]  # type: ignore[misc]
        right[name] = np.stack([correct for correct, *_ in solved])
        figures[f"accuracy.{name}"] = right[name].mean(axis=1).tolist()
        figures[f"spent.{name}"] = [spent / len(rows) for _, spent, _ in solved]
        figures["overspent"] += sum(
            spent > int(b * len(rows)) for (_, spent, _), b in zip(solved, options.budgets, strict=True)
        )
        if name == "cascade":
            figures["second_share"] = [share for *_, share in solved]
    for name in ("first", "second"):
        pairs = [paired_interval(ours, theirs) for ours, theirs in zip(right["cascade"], right[name], strict=True)]
        figures[f"less_{name}"] = [value for one in pairs for value in (one.mean, one.low, one.high)]
    report(options.json, "cascade", figures)
    if options.results is not None:
        write_section(options.results, "cascade", _section(figures, right))


def calibrate(name: str, policies: Sequence[Path], options: argparse.Namespace) -> None:
    """Fit a calibration unless it is there. CalibrationError: it could not be."""
    folder, store = options.out / name, options.store or options.out / "units.sqlite"
    if (folder / META).exists():
        return
    words = ["--policy", str(policies[0]), "--prm", str(MINI_PRM), "--out", str(folder), "--store", str(store)]
    words += ["--second", str(policies[1])] if len(policies) > 1 else []
    words += ["--limit", str(options.calibrate_on), "--most", str(options.most), "--count", "flops"]
    if code := fit(words):
        raise CalibrationError(f"the calibration of {name} ended with exit code {code}")


async def solve(
    name: str, policies: Sequence[Path], rows: Sequence[Row], each: float, options: argparse.Namespace
) -> tuple[Array, int, float]:
    """Which problems were solved, what was charged, and the second policy's share of the FLOPs."""
    second = {"second": policies[1]} if len(policies) > 1 else {}
    right, spent, computed, by_second = np.zeros(len(rows)), 0, 0.0, 0.0
    outcomes: list[Outcome] = []
    solver = Solver.load(
        policies[0],
        MINI_PRM,
        seed=options.seed,
        calibration=options.out / name,
        **second,  # type: ignore[arg-type]
    )
    async with solver:
        await solve_rows_together(solver, rows, {"count": "flops"}, outcomes.append, budget=int(each * len(rows)))
        parameters = solver.policy.second.parameters if second else 0  # type: ignore[attr-defined]
    for one in outcomes:
        right[one.index] = bool(one.correct)
        if one.solution is not None:
            spent += one.solution.spent
            computed += one.solution.usage.flops
            by_second += 2.0 * parameters * one.solution.usage.second_tokens
    return right, spent, by_second / max(computed, 1.0)


def _section(figures: dict[str, Any], right: dict[str, Array]) -> str:
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
    told = f"{figures['problems']} problems of minimath-500; runs that overspent: {figures['overspent']}."
    return f"{provenance()}\n\n{markdown_table(head, rows)}\n\n{told}"


if __name__ == "__main__":
    sys.exit(main())
