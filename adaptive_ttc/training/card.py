"""The card of a trained verifier: what it was made of, how, and its figures on held-out problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TITLES = {
    "process": "a process reward model in RLHFlow's chat format",
    "outcome": "an outcome reward model (a sequence classifier of one label)",
    "implicit": "an implicit process reward model (arXiv 2412.01981)",
}
_COLUMNS = ("step", "train_loss", "loss", "auc", "auc_within", "auc_steps", "majority", "weighted", "gain")


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``README.md`` from what ``training.json`` holds."""
    settings, counts = record["settings"], record["counts"]
    reference = (
        f" Reference: `{record['reference']}` (`{record['reference_fingerprint'][:16]}`)."
        if record["reference"]
        else ""
    )
    lines = [
        f"# {folder.name}", "",
        f"This folder is {_TITLES[settings['kind']]}. `load_prm` of the library adaptive_ttc reads it:", "",
        "```python", "from adaptive_ttc.prm import load_prm", "", f'prm = load_prm("{folder.name}")', "```", "",
        "## Data", "",
        f"Begun from `{record['policy']}` (`{record['policy_fingerprint'][:16]}`).{reference} Files: "
        f"{', '.join(f'`{Path(name).name}`' for name in record['data'])} (SHA-256 `{record['data_sha256'][:16]}`).",
        "", "| count | |", "|---|---|",
        *(f"| {name.replace('_', ' ')} | {value:,} |" for name, value in counts.items()),
        "", "No problem is both trained on and held out.", "",
        "## Settings", "", "| setting | value |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in {**settings, **_derived(record)}.items()),
        "", "## Held-out problems", "",
        f"The weights of step {record['best_step']} were kept, the best of these looks by the mean of `auc_within` "
        "and `auc_steps` (by the loss where there is neither). The look chose them, so that fresh problems will show "
        "less.",
        "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS),
        *(f"| {' | '.join(_shown(look[name]) for name in _COLUMNS)} |" for look in record["looks"]),
        "", f"Fingerprint of what was written: `{record['fingerprint']}`.",
    ]  # fmt: skip
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _derived(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("parameters", "lora", "learning_rate", "steps")}


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
