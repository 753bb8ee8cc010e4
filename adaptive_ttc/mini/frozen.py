"""Digests of what a shipped calibration depends on: the generator's problems and the models' files; it changes nothing.

python -m adaptive_ttc.mini.frozen            # compare
python -m adaptive_ttc.mini.frozen --write    # after a new training, before the calibration is made anew
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from adaptive_ttc.evaluation.datasets import MINIMATH, load_problems
from adaptive_ttc.mini.settings import PAIRS

MODELS = Path(__file__).parent / "models"
DIGESTS = MODELS / "frozen.json"
_FILES = ("*.safetensors", "tokenizer.json", "chat_template.jinja", "config.json")


def digests() -> dict[str, str]:
    """SHA-256 of every model file, and of the problems of every set of every pair."""
    paths = sorted(path for pattern in _FILES for path in MODELS.rglob(pattern) if "calibration" not in path.parts)
    found = {str(path.relative_to(MODELS)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    for name in sorted(MINIMATH):
        for pair in sorted(PAIRS):
            rows = load_problems(f"{name}:{pair}", 200)
            found[f"{name}:{pair}"] = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return found


def changed() -> list[str]:
    """What differs from the digests that were written down."""
    now, known = digests(), json.loads(DIGESTS.read_text(encoding="utf-8"))
    return sorted(name for name in now.keys() | known.keys() if now.get(name) != known.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write; 1 where something changed."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m adaptive_ttc.mini.frozen", description=about)
    parser.add_argument("--write", action="store_true", help="write the digests of what is there now")
    if parser.parse_args(arguments).write:
        DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n", encoding="utf-8")
        return 0
    names = changed()
    for name in names:
        print(f"changed: {name}", file=sys.stderr)
    return int(bool(names))


if __name__ == "__main__":
    sys.exit(main())
