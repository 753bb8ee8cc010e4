"""A run that is killed again and again loses nothing: the short version of the bench, as a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_kill_9_at_random_moments_loses_nothing(tmp_path):
    command = [
        sys.executable,
        "bench/kills.py",
        "--kills",
        "5",
        "--problems",
        "16",
        "--json",
        str(tmp_path / "out.json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert figures["answered"] == 1
    assert 0 <= figures["lost_a_kill"] <= 2 * 2 * 120, "two slices in flight, each of a sample or two"
