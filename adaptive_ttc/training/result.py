"""The folder that a training writes: what may stand there before, its record and card, its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.checkpoint import fingerprint
from adaptive_ttc.training.card import write_card
from adaptive_ttc.training.settings import FitSettings
from adaptive_ttc.training.trainer import CHECKPOINT, PARTIAL, Trainer

RECORD = "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A finished training.

    Attributes:
        folder: the model's.
        record: what stands in ``training.json`` there: settings, counts, looks, fingerprints.
        told: what came of it, in words.
    """

    folder: Path
    record: dict[str, Any]
    told: str

    def line(self) -> str:
        """The result in one line."""
        return f"{self.folder}: {self.told}"

    @property
    def best(self) -> dict[str, Any]:
        """The figures of the weights that were kept."""
        return next(look for look in self.record["looks"] if look["step"] == self.record["best_step"])


def check_folder(folder: Path) -> None:
    """ConfigError: it is a file, finished, or holds other things than a checkpoint to go on from."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give --out a folder")
    if (folder / RECORD).exists():
        raise ConfigError(f"{folder} holds a finished model; give another --out, or remove it")
    held = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
    if held - {PARTIAL} and CHECKPOINT not in held:  # the first checkpoint may have been cut while it was written
        raise ConfigError(f"{folder} is not empty and holds no checkpoint to go on from; give another --out")


def finish(
    folder: Path, made_of: Mapping[str, Any], settings: FitSettings, trainer: Trainer[Any], rank: int
) -> Trained:
    """Write record and card beside a saved model, and remove the checkpoint.

    Args:
        folder: the model's.
        made_of: policy, data, counts and their fingerprints.
        settings: how it was trained.
        trainer: what trained it.
        rank: of LoRA; 0: all weights were trained.
    """
    parameters = trainer.trainee.parameters
    record = {
        **made_of,
        "settings": asdict(settings), "parameters": parameters, "lora": rank,
        "learning_rate": settings.peak(parameters), "steps": trainer.step, "best_step": trainer.best_step,
        "looks": trainer.looks, "fingerprint": _fingerprint(folder),
    }  # fmt: skip
    write_card(folder, record)
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name in (CHECKPOINT, PARTIAL):
        (folder / name).unlink(missing_ok=True)
    best = next(look for look in trainer.looks if look["step"] == trainer.best_step)
    told = trainer.trainee.told(trainer.looks[0], best)
    return Trained(folder=folder, record=record, told=f"{told}; the best of {len(trainer.looks)} looks at these")


def _fingerprint(folder: Path) -> str:
    """A hash of what was written."""
    parts = [one for one in (folder, folder / "tuned", folder / "reference") if (one / "tokenizer.json").exists()]
    return hashlib.sha256("\0".join(fingerprint(part) for part in parts).encode()).hexdigest()
