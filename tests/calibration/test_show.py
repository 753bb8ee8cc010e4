"""``python -m calibration.show``: the table, a lookup explained, and what cannot be shown."""

import shutil
import subprocess
import sys

import pytest

from adaptive_ttc.calibration.show import main
from adaptive_ttc.estimate.artefact import Calibrated


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def shown(capsys, *words):
    code = main([str(word) for word in words])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_the_table_holds_every_bin_and_tells_where_it_comes_from(saved, capsys):
    code, out, _ = shown(capsys, saved)
    assert code == 0
    for name in ("0 easiest", "1 easy", "2 middle", "3 hard", "4 hardest", "any"):
        assert name in out
    assert "fingerprints.policy" in out
    assert "a token that the PRM scores costs 2 of them" in out


def test_a_lookup_names_the_arm_that_the_table_chooses(saved, capsys):
    table = Calibrated.load(saved).table
    code, out, _ = shown(capsys, saved, "--difficulty", 3, "--budget", 900)
    assert code == 0
    best = table.lookup(900, 3, generated=1.0, prm=2.0)[0]
    assert f"With 900 units, {best.arm.name} is expected to be right on {best.accuracy:.1%}" in out
    assert best.cost <= 900
    assert "Bin 3 hard: a single sample is right on" in out
    assert "(beyond)" in out


def test_without_a_difficulty_the_bins_count_by_how_common_they_are(saved, capsys):
    best = Calibrated.load(saved).table.lookup(900, None, generated=1.0, prm=2.0)[0]
    _, out, _ = shown(capsys, saved, "--budget", 900)
    assert f"With 900 units, {best.arm.name}" in out


def test_a_budget_below_every_arm_is_said_to_be_too_little(saved, capsys):
    code, out, _ = shown(capsys, saved, "--budget", 1)
    assert code == 0
    assert "No arm is expected to stay within this budget" in out


def test_what_cannot_be_shown_is_one_line_with_a_remedy(saved, tmp_path, capsys):
    edited = shutil.copytree(saved, tmp_path / "edited")
    (edited / "table.json").write_text("{}")
    for words, hint in (
        ((tmp_path / "nothing",), "adaptive-ttc calibrate"),
        ((edited,), "adaptive-ttc calibrate"),
        ((saved, "--difficulty", 5), "0 (the easiest) to 4"),
        ((saved, "--budget", 0), "above 0"),
    ):
        code, _, err = shown(capsys, *words)
        assert code == 2
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert hint in err


def test_scikit_learn_is_loaded_only_where_something_is_fitted():
    modules = ("adaptive_ttc.calibration", "adaptive_ttc.calibration.collect.__main__", "adaptive_ttc.calibration.show")
    script = f"import sys, {', '.join(modules)}; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
