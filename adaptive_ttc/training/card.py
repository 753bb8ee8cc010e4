"""The card of a trained model: what it was made of, how, and its figures on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the card says of one kind of model."""

    title: str
    use: tuple[str, ...]
    columns: tuple[str, ...]
    best: str
    note: str = ""


_LOAD_PRM = ("from adaptive_ttc.prm import load_prm", "", 'prm = load_prm("{name}")')
_FIGURES = ("step", "train_loss", "loss", "auc", "auc_within", "auc_steps", "majority", "weighted", "gain")
_BEST = "the mean of `auc_within` and `auc_steps` (by the loss where there is neither)"
_UNFITTED = " `loss` is that of the sigmoid before its scale and offset were fitted to these problems."
_KINDS = {
    "process": _Kind("a process reward model in RLHFlow's chat format", _LOAD_PRM, _FIGURES, _BEST),
    "outcome": _Kind("an outcome reward model (a sequence classifier of one label)", _LOAD_PRM, _FIGURES, _BEST),
    "implicit": _Kind("an implicit process reward model (arXiv 2412.01981)", _LOAD_PRM, _FIGURES, _BEST, _UNFITTED),
    "policy": _Kind(
        "a policy: a causal language model, fine-tuned on right solutions (arXiv 2308.01825)",
        ("from adaptive_ttc import Solver", "", 'solver = Solver.load("{name}")'),
        ("step", "train_loss", "loss", "stops"),
        "the loss",
    ),
}


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``README.md`` from what ``training.json`` holds."""
    settings, counts, kind = record["settings"], record["counts"], _KINDS[record["kind"]]
    reference = (
        f" Reference: `{record['reference']}` (`{record['reference_fingerprint'][:16]}`)."
        if record.get("reference")
        else ""
    )
    lines = [
        f"# {folder.name}", "",
        f"This folder is {kind.title}. The library adaptive_ttc reads it:", "",
        "```python", *(line.format(name=folder.name) for line in kind.use), "```", "",
        "## Data", "",
        f"Begun from `{record['policy']}` (`{record['policy_fingerprint'][:16]}`).{reference} Files: "
        f"{', '.join(f'`{Path(name).name}`' for name in record['data'])} (SHA-256 `{record['data_sha256'][:16]}`).",
        "", "| count | |", "|---|---|",
        *(f"| {name.replace('_', ' ')} | {value:,} |" for name, value in counts.items()),
        "", "No problem is both trained on and held out.", "",
        "## Settings", "", "| setting | value |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in {**settings, **_derived(record)}.items()),
        "", "## Held-out problems", "",
        f"The weights of step {record['best_step']} were kept, the best of these looks by {kind.best}. The look chose "
        f"them, so that fresh problems will show less.{kind.note}",
        "", f"| {' | '.join(kind.columns)} |", "|" + "---|" * len(kind.columns),
        *(f"| {' | '.join(_shown(look[name]) for name in kind.columns)} |" for look in record["looks"]),
        "", f"Fingerprint of what was written: `{record['fingerprint']}`.",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _derived(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("parameters", "lora", "learning_rate", "steps")}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
