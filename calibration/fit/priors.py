"""Makes the general prior over answers that ships with the library, from recorded samples of real models.

    python -m adaptive_ttc.calibration.fit.priors FILE... --out adaptive_ttc/estimate/answer_priors.json

Every model on every data set among the traces becomes a component; no sample, answer or question goes into the file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from adaptive_ttc.calibration.collect.traces import Traces, read_traces
from adaptive_ttc.calibration.fit.agreement import component_of
from adaptive_ttc.estimate.answer_prior import AnswerPrior, Component

LEAST = 20  # problems of a component


def components(traces: Traces, name: str) -> list[Component]:
    """One for each model with enough problems; models with fewer are one together."""
    of_model: dict[str, list[int]] = {}
    for row, model in enumerate(traces.model_of):
        of_model.setdefault(model or "", []).append(row)
    small = [row for rows in of_model.values() if len(rows) < 2 * LEAST or len(of_model) > 3 for row in rows]
    found = []
    for model, rows in of_model.items():
        if rows[0] not in small:
            found.append(component_of([traces.records[row] for row in rows], name, model, traces.name))
    if len(small) >= LEAST:
        models = ", ".join(sorted({traces.model_of[row] or "" for row in small}))
        found.append(component_of([traces.records[row] for row in small], name, models, traces.name))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m adaptive_ttc.calibration.fit.priors", description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="FILE", help="recorded samples, see docs/traces.md")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the prior, as JSON")
    options = parser.parse_args(arguments)
    console = Console()
    found = []
    for file in options.traces:
        name = file.name.removesuffix(".gz").removesuffix(".jsonl")
        for one in components(read_traces(file), name):
            console.print(f"{one.name}: {one.model or 'a model'} on {one.dataset}, {one.problems} problems")
            found.append(one)
    text = json.dumps(AnswerPrior.of(found).as_data(), indent=None, separators=(",", ":"))
    options.out.write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
