"""The comparison of a cascade with its policies: solved runs are kept, and differences are paired by problem."""

import json

import numpy as np
import pytest

from adaptive_ttc.errors import CalibrationError
from tests.bench.toys import load

WORDS = ["--limit", "6", "--budgets", "1e8,2e8", "--workers", "1"]


@pytest.fixture
def bench(monkeypatch, tmp_path):
    found = load(monkeypatch, "cascade")
    asked = []

    async def solve(task, policies, rows):
        name, each = task.name, task.each
        asked.append((name, each))
        right = np.arange(len(rows)) < {"first": 2, "second": 3, "cascade": 4}[name] + (each > 1e8) - task.seed
        return found.Solved(right.astype(float), int(each * len(rows)), int(each), 10.0, 4.0 * (name == "cascade"))

    class Here:
        """A pool that works in this process."""

        def __init__(self, *args, **settings):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        map = staticmethod(map)

    monkeypatch.setattr(found, "solve", solve)
    monkeypatch.setattr(found, "calibrate", lambda *args: None)
    monkeypatch.setattr(found, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(found, "read_meta", lambda folder: {"digest": "abcdefghij"})
    found.asked = asked
    return found


def test_a_run_that_was_solved_is_not_solved_again(bench, tmp_path):
    words = [*WORDS, "--out", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    assert bench.main(words) == 0
    assert len(bench.asked) == 6
    first = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert first["accuracy.cascade"] == pytest.approx([4 / 6, 5 / 6])
    assert first["less_first"][0::3] == pytest.approx([2 / 6, 2 / 6])
    assert first["less_second"][0::3] == pytest.approx([1 / 6, 1 / 6])
    assert first["second_share"] == [0.4, 0.4]
    assert first["overspent"] == 0
    (tmp_path / "runs" / "second-abcdefgh-2e+08-6-0.json").unlink()
    bench.asked.clear()
    assert bench.main(words) == 0
    assert bench.asked == [("second", 2e8)]
    assert json.loads((tmp_path / "figures.json").read_text())["figures"] == first
    bench.asked.clear()
    assert bench.main([*words, "--seed", "1"]) == 0
    assert len(bench.asked) == 6, "other problems, and other samples"
    bench.asked.clear()
    assert bench.main([*words, "--seed", "0", "1", "--results", str(tmp_path / "R.md")]) == 0
    assert not bench.asked
    both = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert both["problems"] == 12
    assert both["accuracy.cascade"] == pytest.approx([7 / 12, 9 / 12])
    assert "12 problems of minimath-500, of 2 seeds" in (tmp_path / "R.md").read_text()


def test_a_calibration_that_fails_ends_it(monkeypatch, tmp_path):
    found = load(monkeypatch, "cascade")
    monkeypatch.setattr(found, "fit", lambda words: 2)
    options = type("O", (), {"out": tmp_path, "store": None, "calibrate_on": 5})
    with pytest.raises(CalibrationError, match="the calibration of first ended with exit code 2"):
        found.calibrate("first", found.POLICIES["first"], options)
