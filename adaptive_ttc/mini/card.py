"""The model card of a mini pair: data, seeds, losses and, once measured, its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptive_ttc.mini.settings import Pair

STAGES = ("base", "revised", "noisy", "verifier", "large_base", "large_noisy")


def write_card(pair: Pair, work: Path, models: Path) -> None:
    """Write ``README.md`` and ``training.json`` beside the models from the logs of the stages."""
    has_large = (models / "large").is_dir()
    logs = {stage: _log(work / stage / "log.jsonl") for stage in STAGES}
    training = {
        "pair": pair.name,
        "seed": pair.seed,
        "families": list(pair.source.families),
        "slips": dict(pair.source.slips),
        "load": list(pair.source.load),
        "care": pair.care,
        "own_samples": pair.own_samples,
        "stages": {stage: _summary(log) for stage, log in logs.items()},
    }
    (models / "training.json").write_text(json.dumps(training, indent=1) + "\n")
    figures = models / "evaluation.json"
    measured = json.loads(figures.read_text())["figures"] if figures.exists() else None
    (models / "README.md").write_text(_card(pair, training, measured, has_large))


def _log(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _summary(log: list[dict[str, float]]) -> dict[str, Any]:
    """Steps, seconds, and the loss at ten points of a stage; a resumed stage's clock starts anew."""
    if not log:
        return {}
    seconds, last = 0.0, 0.0
    for row in log:
        seconds += row["seconds"] - last if row["seconds"] > last else row["seconds"]
        last = row["seconds"]
    picked = [log[round(i * (len(log) - 1) / 9)] for i in range(10)]
    curve = {str(row["step"]): row["loss"] for row in picked}
    return {"steps": log[-1]["step"], "seconds": round(seconds), "loss": curve}


def _card(pair: Pair, training: dict[str, Any], measured: dict[str, Any] | None, has_large: bool) -> str:
    lines = [
        f"# The `{pair.name}` pair",
        "",
        "`policy` is an ordinary Hugging Face folder (`LlamaForCausalLM`, safetensors, byte-level BPE); `prm` is an",
        "implicit PRM made of two such. They were trained from nothing, on one CPU, by the command",
        f"`python -m adaptive_ttc.mini.train --pair {pair.name}`; no other data or weights went in. Apache-2.0.",
        *(["", _LARGE] if has_large else []),
        "",
        "## Data",
        "",
        f"MiniMath problems of the train split, families {', '.join(pair.source.families)};",
        "the split of a problem follows from a hash of its text, so no test or calibration problem was seen. The",
        "policy learned right solutions first (`base`), then solutions in which every decision goes wrong at the rate",
        "of its kind times the level's load and the rest follows consistently (`noisy`), and attempts after up to",
        "four earlier ones.",
        "The PRM is implicit (arXiv 2412.01981): the log-probability ratio of the clean policy, before the noise, to",
        "the noisy one, mapped to a probability by a logistic regression on the policy's own solutions of train",
        "problems. All draws follow from the seed.",
        "",
        "| kind of decision | rate of mistakes |",
        "|---|---|",
        *(f"| {kind} | {rate} |" for kind, rate in pair.source.slips.items()),
        "",
        f"Loads of levels 1 to 5: {', '.join(map(str, pair.source.load))}. Seed: {pair.seed}.",
        "",
        "## Loss",
        "",
        "| stage | steps | seconds | loss at ten points of the stage |",
        "|---|---|---|---|",
    ]
    for stage, summary in training["stages"].items():
        if summary:
            curve = ", ".join(f"{loss:.3f}" for loss in summary["loss"].values())
            lines.append(f"| {stage} | {summary['steps']} | {summary['seconds']} | {curve} |")
    lines += ["", "## Figures", ""]
    if measured is None:
        lines.append("Not measured yet: `python -m adaptive_ttc.mini.evaluate --json evaluation.json`.")
    else:
        lines += ["Printed by `python -m adaptive_ttc.mini.evaluate` (500 test problems, 64 samples each).", ""]
        lines += ["| figure | value |", "|---|---|", *_rows(measured)]
    return "\n".join(lines) + "\n"


_LARGE = (
    "`large` is a larger policy to compare with: the clean one made twice as wide (arXiv 1511.05641) and trained on,\n"
    "on the same data."
)


def _rows(measured: dict[str, Any], prefix: str = "") -> list[str]:
    rows = []
    for key, value in measured.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{key}, ")
        elif isinstance(value, list):
            rows.append(f"| {prefix}{key} | {', '.join(f'{v:.3f}' for v in value)} |")
        else:
            rows.append(
                f"| {prefix}{key} | {value:.3f} |" if isinstance(value, float) else f"| {prefix}{key} | {value} |"
            )
    return rows
