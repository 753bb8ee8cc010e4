"""Writes a calibration directory (see ``estimate/artefact.py``), whole or not at all, and its reports."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adaptive_ttc.answers import GRADER_VERSION
from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.pipeline import Calibration
from adaptive_ttc.calibration.report.html import page
from adaptive_ttc.calibration.report.tables import as_markdown, findings, sentences, title
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.agreement_gain import AgreementGainModel
from adaptive_ttc.estimate.artefact import (
    AGREEMENT,
    BLEND,
    CLASSIFIER,
    GAIN,
    META,
    SCHEMA,
    TABLE,
    Calibrated,
    meta_digest,
)
from adaptive_ttc.estimate.blended_gain import BlendedGainModel
from adaptive_ttc.evaluation.result_file import git_state

MARKDOWN, PAGE = "report.md", "report.html"
_LIBRARIES = ("adaptive-ttc", "numpy", "scikit-learn", "skops", "torch", "transformers")


def save_calibration(
    calibration: Calibration,
    folder: str | Path,
    *,
    models: Mapping[str, str | None],
    fingerprints: Mapping[str, str],
    dataset: Mapping[str, Any],
    counts: Mapping[str, int],
    command: str,
) -> Calibrated:
    """Write the files, read them back as a user will, and replace an older calibration; other files stay.

    ``models`` (names), ``fingerprints``, ``dataset``, ``counts`` and ``command`` go into the metadata.
    """
    target = Path(folder)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write_json(partial / TABLE, calibration.table.as_data())
        sums = {CLASSIFIER: calibration.difficulty.model.save(partial / CLASSIFIER)}
        if isinstance(calibration.gain_model, AgreementGainModel):
            _write_json(partial / AGREEMENT, calibration.gain_model.as_data())
            sums[AGREEMENT] = hashlib.sha256((partial / AGREEMENT).read_bytes()).hexdigest()
        elif isinstance(model := calibration.gain_model, BlendedGainModel):
            sums[GAIN] = model.learned.save(partial / GAIN)
            _write_json(partial / BLEND, model.as_data())
            sums[BLEND] = hashlib.sha256((partial / BLEND).read_bytes()).hexdigest()
        elif model is not None:
            sums[GAIN] = model.save(partial / GAIN)
        sums[TABLE] = hashlib.sha256((partial / TABLE).read_bytes()).hexdigest()
        meta = {
            "schema": SCHEMA,
            "models": dict(models),
            "fingerprints": dict(fingerprints),
            "dataset": dict(dataset),
            **_facts(calibration),
            "counts": dict(counts),
            "command": command,
            "files": sums,
        }
        _write_json(partial / META, {**meta, "digest": meta_digest(meta)})
        loaded = Calibrated.load(partial)
        target.mkdir(parents=True, exist_ok=True)
        for name in (GAIN, AGREEMENT, BLEND):
            (target / name).unlink(missing_ok=True)
        for name in (*sums, META):  # the metadata last: until then the checksums are those of the older files
            (partial / name).replace(target / name)
        shutil.rmtree(partial)
    except OSError as error:
        raise CalibrationError(f"cannot write {target}: {error.strerror or error}; give another --out") from error
    return loaded


def write_reports(calibration: Calibration, meta: Mapping[str, Any], folder: str | Path) -> None:
    """Write ``report.md`` and ``report.html``."""
    grids = findings(calibration, meta)
    told = list(sentences(calibration))
    texts = {
        MARKDOWN: as_markdown(title(meta), meta["command"], told, grids),
        PAGE: page(title(meta), meta["command"], told, grids, calibration),
    }
    try:
        for name, text in texts.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CalibrationError(f"cannot write the reports to {folder}: {error.strerror or error}") from error


def _facts(calibration: Calibration) -> dict[str, Any]:
    """Problems, settings, date and versions for the metadata."""
    return {
        "problems": list(calibration.problems),
        "digests": list(calibration.digests),
        "opening": asdict(calibration.opening),
        "kinds": {"offered": list(calibration.offer.kinds), "dropped": dict(calibration.offer.dropped)},
        **_contest(calibration),
        "weights": _weights(calibration.settings.weights),
        "folds": calibration.settings.folds,
        "seed": calibration.settings.seed,
        "fit_seconds": round(calibration.seconds, 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "git": git_state(),
        "versions": {"python": sys.version.split()[0], "grader": GRADER_VERSION, **_versions()},
    }


def _contest(calibration: Calibration) -> dict[str, Any]:
    """What the contest of rules found, and the published rule that won it, if one did."""
    found = calibration.contest
    if found is None:
        return {}
    ahead = {name: [known.mean, known.low, known.high] for name, known in found.ahead.items()}
    rule = {} if calibration.gain_model is not None else {"rule": found.chosen}
    return {"contest": {"chosen": found.chosen, "accuracy": dict(found.accuracy), "ahead": ahead}, **rule}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _weights(weights: Weights) -> dict[str, float]:
    """What a token costs; of a second policy's prompt only where there is one."""
    told = asdict(weights)
    return told if weights.second_prompt else {name: told[name] for name in ("generated", "prm")}
