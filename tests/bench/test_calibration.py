"""The measurement of a calibration: every figure that its docstring names, and that it runs from its own folder."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

from adaptive_ttc.evaluation.metrics import Interval
from tests.bench.toys import BENCH, load
from tests.calibration.simulated import simulated_records


def test_every_named_figure_is_written(monkeypatch, tmp_path, capsys):
    calibration = load(monkeypatch, "calibration")
    gathered = SimpleNamespace(
        records=simulated_records(6, 12, 5), source="simulated", reading_seconds=1000.0, reading_cpu_seconds=500.0
    )
    stages = {"prompt": 0.7, "greedy": 0.5}
    found = SimpleNamespace(
        stages={name: SimpleNamespace(**dict.fromkeys(calibration.OF_STAGES, one)) for name, one in stages.items()},
        gain=SimpleNamespace(optimism=0.1, kept=None, kept_at_best=0.3, oracle=(0.5, 0.9), fixed=(0.4, 0.5)),
        adaptive=SimpleNamespace(difference=Interval(0.1, 0.0, 0.2)),
        vote=SimpleNamespace(optimism=0.01),
    )
    monkeypatch.setattr(calibration, "from_store", lambda *arguments: gathered)
    monkeypatch.setattr(calibration.fit, "settings_of", lambda *arguments: None)
    monkeypatch.setattr(calibration, "calibrate", lambda *arguments: found)
    target = tmp_path / "figures.json"
    calibration.main(["--json", str(target)])
    figures = json.loads(target.read_text())["figures"]
    described = {name.partition(".")[0] for name in re.findall(r"``([a-z_.<>]+)``", calibration.__doc__)}
    assert {key.partition(".")[0] for key in figures} <= described
    assert {f"{name}.{stage}" for name in calibration.OF_STAGES for stage in stages} <= set(figures)
    assert (figures["problems"], figures["samples"], figures["oracle_gain_kept"]) == (6, 12, None)
    assert (figures["oracle_gain"], figures["kept_at_best"], figures["log_loss.greedy"]) == (0.4, 0.3, 0.5)
    assert figures["fit_seconds"] > 1000
    assert figures["fit_cpu_seconds"] > 500
    assert "oracle_gain" in capsys.readouterr().out


def test_it_runs_as_a_script_and_says_what_is_impossible_in_one_line(tmp_path):
    command = [sys.executable, str(BENCH / "calibration.py"), "--arms", "guess:4"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
