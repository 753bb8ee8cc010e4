"""``python -m calibration.fit`` from its first word to its artefact: killed, resumed, refitted, refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.fit import inputs
from adaptive_ttc.calibration.fit.inputs import weights_of
from adaptive_ttc.errors import EngineError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Evidence

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("ADAPTIVE_TTC_DATA", ROOT / "../shared/data"))
MATH500 = DATA / "math500.jsonl"
WORDS = ("--limit", "30", "--folds", "3", "--arms", "greedy", "majority:1,4,8", "weighted_best_of_n:4,8", "dvts:4x4")
STATES = [Evidence("1 + 1", 9), Evidence("What is 12 + 34 * 5?", 30)]
KILLED = """
import os, signal, sys
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.collect.collector import Tally

add, drawn = Tally.add, 0

def counted(self, advance):
    global drawn
    add(self, advance)
    drawn += advance.units
    if drawn >= 100:
        os.kill(os.getpid(), signal.SIGKILL)

Tally.add = counted
fit.main(sys.argv[1:])
"""
FITTED = "import sys; from adaptive_ttc.calibration.fit import __main__ as fit; sys.exit(fit.main(sys.argv[1:]))"


def process(script, *words):
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, env=settings
    )


def run(capsys, *words):
    code = fit.main([str(word) for word in words])
    found = capsys.readouterr()
    return code, found.out, found.err


def drawing_is_over(monkeypatch):
    """Whoever draws, fails."""

    def drawn(*_):
        raise EngineError("something was drawn")

    monkeypatch.setattr(inputs, "draw_missing", drawn)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a command that was killed when it had drawn a third of the units, and then given again."""
    out = tmp_path_factory.mktemp("fit") / "mini"
    killed = process(KILLED, *WORDS, "--out", str(out))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "table.json").exists()
    again = process(FITTED, *WORDS, "--out", str(out), "--resume")
    assert again.returncode == 0, again.stderr
    return out, again.stdout


def test_what_was_learned_is_printed(fitted):
    _, printed = fitted
    missing = re.search(r"(\d+) units are missing", " ".join(printed.split()))
    assert missing is not None
    assert 0 < int(missing[1]) <= 200
    for words in ("0 easiest", "4 hardest", "next best", "first_steps_4", "Brier", "Spearman", "ceiling"):
        assert words in printed
    for words in ("Optimism gap", "Share of the oracle's gain kept", "Outlook less table"):
        assert words in printed


def test_the_artefact_says_how_it_was_made(fitted):
    out, _ = fitted
    meta = Calibrated.load(out).meta
    assert meta["models"] == {"policy": "mini", "prm": "mini PRM"}
    assert meta["dataset"]["name"] == "minimath-calibration"
    assert (len(meta["problems"]), len(meta["digests"])) == (30, 30)
    assert meta["counts"]["units"] == 30 * (1 + 8 + 1)
    assert meta["weights"] == {"generated": 1.0, "prm": 2.0}  # both mini models make up the PRM
    assert str(ROOT) not in json.dumps({key: value for key, value in meta.items() if key != "command"})
    assert (out / "report.html").exists()
    assert (out / "report.md").exists()


def test_a_kill_leaves_no_trace_in_the_result(fitted, tmp_path, capsys):
    out, _ = fitted
    code, _, err = run(capsys, *WORDS, "--out", tmp_path)
    assert code == 0, err
    assert (tmp_path / "table.json").read_bytes() == (out / "table.json").read_bytes()
    one, other = Calibrated.load(tmp_path), Calibrated.load(out)
    assert one.difficulty.posteriors(STATES) == other.difficulty.posteriors(STATES)
    assert one.gain.forecasts(STATES) == other.gain.forecasts(STATES)
    assert one.meta["counts"]["generated_tokens"] == other.meta["counts"]["generated_tokens"]


def test_other_folds_budgets_and_seeds_draw_nothing(fitted, tmp_path, capsys, monkeypatch):
    drawing_is_over(monkeypatch)
    other = ("--folds", 4, "--seed", 7, "--budget-grid", 100, 300, 900, "--count", "generated")
    code, out, err = run(capsys, *WORDS, "--store", fitted[0] / "units.sqlite", "--out", tmp_path, *other)
    assert code == 0, err
    meta = Calibrated.load(tmp_path).meta
    assert (meta["folds"], meta["seed"], meta["weights"]["prm"]) == (4, 7, 0.0)
    assert "units are missing" not in out


def test_another_sampling_seed_is_drawn_beside_or_refused(fitted, tmp_path, capsys, monkeypatch):
    drawing_is_over(monkeypatch)
    store = shutil.copy(fitted[0] / "units.sqlite", tmp_path / "units.sqlite")
    words = (*WORDS, "--out", tmp_path, "--store", store, "--sampling-seed", 5)
    code, out, err = run(capsys, *words)
    assert (code, "something was drawn" in err) == (1, True)
    assert "was begun with other settings (seed 0 there and 5 here)" in " ".join(out.split())
    code, _, err = run(capsys, *words, "--resume")
    assert code == 2
    assert "seed 0 there and 5 here" in err


def test_an_interruption_is_one_line_that_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "from_store", interrupted)
    code, _, err = run(capsys, *WORDS, "--out", tmp_path)
    assert code == 130
    assert err == f"interrupted: what was drawn is kept in {tmp_path / 'units.sqlite'}; the same command goes on\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--arms", "loudest:4"], "unknown strategy"),
        (["--most", "16", "--arms", "greedy"], "leave it out, or --arms"),
        (["--most", "0"], "at least 1 sample"),
        (["--budget-grid", "0", "5"], "above 0"),
        (["--dataset", "nowhere.jsonl"], "give minimath-500"),
        (["--resume"], "leave --resume out"),
        (["--policy", "nowhere", "--limit", "30"], "nowhere"),
        (["--replay", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_is_impossible_is_one_line_and_code_2(words, hint, tmp_path, capsys):
    code, _, err = run(capsys, "--limit", 30, "--out", tmp_path, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert hint in err


def test_too_few_problems_are_refused_with_the_number_to_take(tmp_path, capsys):
    code, out, err = run(capsys, *WORDS, "--out", tmp_path, "--limit", 24, "--folds", 5)
    assert code == 2
    assert "at least 25 problems" in err
    assert out == ""  # before anything is drawn
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not MATH500.exists(), reason="math500.jsonl is not in $ADAPTIVE_TTC_DATA")
def test_problems_beyond_the_policy_are_drawn_and_then_refused_with_the_reason(tmp_path, capsys):
    """The mini policy solves nothing of MATH-500: the way there is gone to its end, and no table is made up."""
    words = ("--dataset", MATH500, "--limit", 25, "--arms", "greedy", "majority:1,2", "--max-tokens", 24)
    code, out, err = run(capsys, *words, "--out", tmp_path)
    assert code == 2
    assert "75 units are missing" in out
    assert "25 of 25 problems are complete" in out
    assert "every sample of every problem is wrong" in err
    assert not (tmp_path / "table.json").exists()


def test_folders_are_named_after_what_is_fitted():
    def name(*words):
        return fit.default_name(fit.parser().parse_args(words))

    assert name() == "mini-minimath-calibration"
    assert name("--policy", "owner/Model-1B", "--dataset", "data/math500.jsonl") == "Model-1B-math500.jsonl"
    assert name("--dataset", "minimath-calibration:mini-b") == "mini-minimath-calibration-mini-b"
    assert name("--replay", "data/traces.json") == "traces"


def test_a_unit_is_what_is_counted():
    assert weights_of(None, 2.5) == weights_of("flops", 2.5) == Weights(prm=2.5)
    assert weights_of("generated+prm", 2.5) == Weights(prm=1.0)
    assert weights_of("generated", 2.5) == weights_of("flops", 0.0) == Weights()
