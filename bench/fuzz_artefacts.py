"""Damaged and forged files: every reader accepts them, or refuses them with a typed error, and raises nothing else.

    python bench/fuzz_artefacts.py [--mutations 300] [--kinds all] [--seed 0] [--json FILE]

For every kind of file that this library reads, a sound one is made and mutated, ``mutations`` times: bytes are changed,
cut or repeated, and values inside of it replaced by ones of other types, sizes and depths, with checksums made anew, as
a forger would. What is accepted is used for one problem. Kinds: ``calibration`` (JSON and trees), ``recipe``,
``trace`` (of a solution), ``traces`` (samples of others), ``record`` (of a Recorder), ``store`` (of units),
``checkpoint`` (of a pool).

Figures, for every kind and in all: ``<kind>_mutated``, ``_refused`` (with a CalibrationError, CheckpointError or
ConfigError), ``_accepted``, ``_foreign`` (any other exception; the kinds of the first few are printed), ``_slowest``
(seconds of processor time for one file).
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fuzz_files import KINDS
from measuring import Figures, run_measurement

from adaptive_ttc.errors import CalibrationError, CheckpointError, ConfigError


@dataclass
class Count:
    """What became of the mutated files of one kind."""

    refused: int = 0
    accepted: int = 0
    foreign: int = 0
    slowest: float = 0.0


def fuzz(name: str, mutations: int, seed: int, folder: Path, found: Counter[str] | None = None) -> Count:
    """Mutate and read so many files of one kind; ``found`` counts foreign exceptions by their words."""
    kind, count = KINDS[name], Count()
    sound = folder / f"sound_{name}"
    kind.make(sound)
    kind.use(sound)
    for number in range(mutations):
        rng = random.Random(f"{seed} {name} {number}")
        forged = folder / f"forged_{name}"
        if sound.is_dir():
            shutil.rmtree(forged, ignore_errors=True)
            shutil.copytree(sound, forged)
        else:
            for left in folder.glob(f"forged_{name}*"):
                left.unlink()
            shutil.copy(sound, forged)
        kind.forge(forged, rng)
        began = time.process_time()
        try:
            kind.use(forged)
        except (CalibrationError, CheckpointError, ConfigError) as error:
            count.refused += 1
            if forged.name not in str(error) and found is not None:
                found[f"names no file: {str(error)[:90]}"] += 1
        except Exception as error:
            count.foreign += 1
            if found is not None:
                where = traceback.extract_tb(error.__traceback__)[-1]
                at = [one for one in traceback.extract_tb(error.__traceback__) if "adaptive_ttc" in one.filename][-1:]
                place = f"{Path(at[0].filename).name}:{at[0].lineno}" if at else where.filename
                found[f"FOREIGN {place} #{number} {type(error).__name__}: {str(error)[:70]}"] += 1
        else:
            count.accepted += 1
        count.slowest = max(count.slowest, time.process_time() - began)
    return count


async def measure(mutations: int, kinds: str, seed: int) -> Figures:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(_measure, mutations, kinds, seed)


def _measure(mutations: int, kinds: str, seed: int) -> Figures:
    figures: dict[str, float] = {}
    counts = []
    for name in KINDS if kinds == "all" else kinds.split(","):
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            count = fuzz(name, mutations, seed, Path(folder), found)
        for words, times in found.most_common(12):
            print(f"{name}: {times} x {words!a}", flush=True)
        counts.append(count)
        figures |= {f"{name}_mutated": mutations}
        figures |= {f"{name}_{field}": value for field, value in vars(count).items()}
        print(name, vars(count), flush=True)
    for field in ("refused", "accepted", "foreign"):
        figures[field] = sum(getattr(count, field) for count in counts)
    return {"mutated": mutations * len(counts), **figures}


if __name__ == "__main__":
    run_measurement(
        "fuzz_artefacts",
        __doc__,
        measure,
        mutations=(300, "mutated files of every kind"),
        kinds=("all", "kinds of files, separated by commas"),
        seed=(0, "of the mutations"),
    )
