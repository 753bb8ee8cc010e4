"""Writes what a measurement found as one JSON object; it knows no measurement.

Every bench takes ``--json FILE`` and writes there
``{"name", "command", "git", "machine", "figures": {key: number or list}}``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Figure = float | int | Sequence[float | int]

_ROOT = Path(__file__).resolve().parent.parent
_LIBRARIES = ("torch", "transformers", "vllm", "numpy", "scikit-learn")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Give a bench's parser the ``--json FILE`` option."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def write_report(path: Path | None, name: str, figures: Mapping[str, Figure]) -> None:
    """Write a bench's figures.

    Args:
        path: the file; None writes nothing.
        name: of the bench.
        figures: stable keys, numbers or lists of numbers.
    """
    if path is None:
        return
    report = {"name": name, "command": command(), "git": git_state(), "machine": machine(), "figures": dict(figures)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def command() -> str:
    """The command line of this run, with the script's path from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(_ROOT) if script.is_relative_to(_ROOT) else script
    return shlex.join(["python", str(shown), *sys.argv[1:]])


def git_state() -> str:
    """The commit, with ``-dirty`` when tracked files differ from it; ``unknown`` outside a repository."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or "unknown"


def machine() -> dict[str, str | int]:
    """What the figures depend on besides the code."""
    facts: dict[str, str | int] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "python": platform.python_version(),
    }
    for library in _LIBRARIES:
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
