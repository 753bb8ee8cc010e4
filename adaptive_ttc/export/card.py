"""The data card of an export: what is in it, where it comes from, what was left out; as JSON and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptive_ttc.evaluation.result_file import write_record
from adaptive_ttc.export.file import ExportFile
from adaptive_ttc.types import BIN_NAMES

LEFT_OUT = {
    "without_right_answer": "problems without a right answer",
    "without_text": "problems without a text",
    "impossible": "problems that these models cannot be asked",
    "excluded": "problems that were to be excluded",
    "unsolved": "problems that no solution solves (labels by roll-outs would tell nothing)",
    "labels_unpaid": "solutions whose labels the budget did not cover",
    "labels_unbroken": "solutions whose tokens do not come apart at the ends of their steps",
}
"""What is not in a file, by the names of its counts."""


def card_paths(path: str | Path) -> tuple[Path, Path]:
    """The JSON file and the page beside an export."""
    target = Path(path)
    return target.with_name(f"{target.stem}.card.json"), target.with_name(f"{target.stem}.card.md")


def figures_of(file: ExportFile, told: Mapping[str, Any]) -> dict[str, Any]:
    """What is in the file, in numbers, beside what else is told of it."""
    counts = file.counts
    saved = {}
    if counts["labels_labelled"]:
        saved = {name.removeprefix("labels_"): counts[name] for name in counts if name.startswith("labels_")}
    return {
        "complete": file.complete,
        "lines": counts["lines"],
        "problems": counts["problems"],
        "samples": counts["samples"],
        "right": counts["right"],
        **({"steps": counts["steps"]} if counts["steps"] else {}),
        "by_difficulty": {
            name: {"problems": counts[f"problems_{name}"], "lines": counts[f"lines_{name}"]} for name in BIN_NAMES
        },
        "left_out": {name: counts[name] for name in LEFT_OUT if counts[name]},
        "units_of_solutions": counts["units_of_solutions"],
        "units_of_rollouts": counts["units_of_rollouts"],
        **({"rollouts": saved} if saved else {}),
        **told,
    }


def write_card(file: ExportFile, command: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """Write both, replacing older ones; what they hold."""
    figures = figures_of(file, told)
    data, page = card_paths(file.path)
    write_record(data, f"export {file.path.name}", command, figures)
    page.write_text(_page(file.path.name, command, figures), encoding="utf-8", errors="replace")
    return figures


def _page(name: str, command: Sequence[str], figures: Mapping[str, Any]) -> str:
    whole = "" if figures["complete"] else "\n\n**Not complete: the same command goes on.**"
    table = "\n".join(
        f"| {bin} | {one['problems']:,} | {one['lines']:,} |" for bin, one in figures["by_difficulty"].items()
    )
    left = "\n".join(f"- {number:,} {LEFT_OUT[why]}" for why, number in figures["left_out"].items()) or "- nothing"
    shown = {"complete", "lines", "problems", "samples", "right", "by_difficulty", "left_out"}
    rest = "\n".join(f"- {key}: {_shown(value)}" for key, value in figures.items() if key not in shown)
    return f"""# {name}

{figures["lines"]:,} lines from {figures["samples"]:,} graded solutions ({figures["right"]:,} right) of \
{figures["problems"]:,} problems.{whole}

| difficulty (by pass rate, equal parts) | problems | lines |
|---|---|---|
{table}

Left out:

{left}

How it was made:

- command: `{" ".join(command)}`
{rest}
"""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_shown, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
