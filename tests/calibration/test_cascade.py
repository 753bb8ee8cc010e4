"""A calibration of two policies: units of both from one store, joined by problem, weighed, fitted, read back."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from adaptive_ttc.calibration import show
from adaptive_ttc.calibration.collect.__main__ import main as collect
from adaptive_ttc.calibration.collect.arms import Arm, parse_arms
from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord, Weights, with_second
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.fit.pipeline import Settings, calibrate
from adaptive_ttc.calibration.fit.rows import GainSettings, possible_actions, reading_of
from adaptive_ttc.calibration.fit.save import save_calibration, write_reports
from adaptive_ttc.calibration.pareto.__main__ import main as pareto
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit, counted_as, family_of
from adaptive_ttc.estimate.gain import Action
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.adaptive import Slice, is_sample, is_second, plain, request_of, split_kind
from tests.calibration.conftest import ORIGIN
from tests.calibration.simulated import simulated_record, simulated_records

QUESTIONS = [f"Add {' + '.join(str((7 * i + 11 * j) % 37) for j in range(2 + 8 * (i % 2)))}." for i in range(40)]
ARMS = ("--arms", "greedy", "majority:1,6")
SIZES = {"small": (0.12, 10), "large": (0.02, 50)}


def policy_of(name):
    error_rate, parameters = SIZES[name]
    return FakePolicy.generative(error_rate=error_rate, name=name, parameters=parameters)


@pytest.fixture
def loaded(monkeypatch):
    """The names of the policies of the solvers that were loaded."""
    names = []

    def load(policy, prm=None, *, seed=0, config=None, second=None, second_weight=None, **settings):
        assert second is None, "units are drawn from each policy alone"
        assert second_weight is None
        names.append(policy)
        return Solver(policy_of(policy), FakePRM.truthful(toy_right_so_far), seed=seed, config=config)

    monkeypatch.setattr(Solver, "load", load)
    monkeypatch.setattr("adaptive_ttc.calibration.collect.__main__.locate", Path)
    monkeypatch.setenv("COLUMNS", "200")
    return names


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "sums.jsonl"
    rows = [{"id": f"sum {i}", "problem": one, "answer": toy_answer(one)} for i, one in enumerate(QUESTIONS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


# ---- kinds and arms --------------------------------------------------------------------------------------------


def test_a_kind_of_the_second_is_the_same_work_by_another_policy():
    for kind in ("greedy", "sample", "think-8", "dvts-4", "beam_search-8-4", "revision-2", "short_m_at_k-4-2"):
        second = f"second:{kind}"
        assert (is_second(kind), is_second(second)) == (False, True)
        assert plain(second) == kind == plain(kind)
        assert request_of(second) == request_of(kind)
        assert split_kind(second) == split_kind(kind)
        assert is_sample(second) == is_sample(kind)
        assert family_of(second) == family_of(kind)
        assert counted_as(second) == f"second:{counted_as(kind)}"
    assert counted_as("second:think-8") == "second:sample"
    for kind in ("second:", "second:other", "second:second:greedy", "second:dvts"):
        with pytest.raises(ConfigError, match="no kind of unit is called"):
            split_kind(kind)


def test_a_slice_of_the_second_is_the_strategy_of_its_kind():
    assert Slice(kind="second:greedy").inner.temperature == 0
    assert Slice(kind="second:sample", units=3).inner.n == 3
    with pytest.raises(ConfigError, match="a slice is one unit of second:greedy"):
        Slice(kind="second:greedy", units=2)


def test_an_arm_of_the_second_is_named_after_it():
    arms = parse_arms(["greedy", "majority:4", "dvts:16x4", "revision:8x4"])
    second = [Arm(**{**{name: getattr(one, name) for name in Arm.__slots__}, "second": True}) for one in arms]
    assert [one.name for one in second] == [f"second:{one.name}" for one in arms]
    assert [one.kind for one in second] == [f"second:{one.kind}" for one in arms]
    assert [one.units for one in second] == [one.units for one in arms]


def test_actions_and_features_of_the_second_are_its_own():
    most = {"greedy": 1, "sample": 4, "second:greedy": 1, "second:sample": 4, "second:dvts-4": 2}
    actions = possible_actions(most)
    assert {str(one) for one in actions} == {
        "1 x greedy", "1 x sample", "2 x sample", "4 x sample", "1 x second:greedy",
        "1 x second:sample", "2 x second:sample", "4 x second:sample", "1 x second:dvts-4", "2 x second:dvts-4",
    }  # fmt: skip
    vote = Vote()
    reading = reading_of(vote, actions)
    assert reading.families == (*vote.reading.families, "second:dvts", "second:greedy", "second:sample")
    assert reading_of(vote, [Action("sample", 1)]) == vote.reading
    right = Attempt("1", (), 9)
    state = Evidence("1 + 1", 5, (Unit("sample", (right,)), Unit("second:sample", (right,)), Unit("second:sample")))
    told = dict(zip(reading.names, reading.features(state), strict=True))
    assert (told["units.sample"], told["units.second:sample"], told["units.second:greedy"]) == (1, 2, 0)


# ---- records ---------------------------------------------------------------------------------------------------


def record(id, kind, answers, correct, tokens=10):
    units = tuple(
        UnitRecord(Unit(kind, (Attempt(answer, (), tokens),), generated=tokens), (right,))
        for answer, right in zip(answers, correct, strict=True)
    )
    return ProblemRecord(id, "1 + 1", "2", 5, {kind: units})


def test_records_are_joined_by_problem_weighed_and_agree_where_both_are_right():
    first = [record("a", "sample", ["2", "3"], [True, False]), record("b", "sample", ["5"], [False])]
    second = [record("b", "sample", ["4/2"], [True], 7), record("a", "sample", ["2.0", "3"], [True, False], 7),
              record("c", "sample", ["2"], [True])]  # fmt: skip
    a, b = with_second(first, second, 2.5)
    assert [one.id for one in (a, b)] == ["a", "b"]
    assert a.units["sample"] == first[0].units["sample"]
    assert [one.unit.attempts[0].answer for one in a.units["second:sample"]] == ["2", "3"]
    assert [one.unit.generated for one in a.units["second:sample"]] == [round(17.5)] * 2
    assert [one.unit.attempts[0].tokens for one in a.units["second:sample"]] == [7, 7]
    assert {one.unit.kind for one in a.units["second:sample"]} == {"second:sample"}
    assert b.units["second:sample"][0].unit.attempts[0].answer == "4/2", "nothing of the first's is right"


# ---- commands --------------------------------------------------------------------------------------------------


def drawn_by(store):
    with Store(store) as held:
        keys = held.keys()
    return [key.policy for key in keys]


def test_collecting_draws_both_policies_and_keeps_the_limit_for_both_together(loaded, data, tmp_path, capsys):
    store = tmp_path / "units.sqlite"
    words = ["--dataset", str(data), "--limit", "4", "--policy", "small", "--second", "large", "--prm", "judge", *ARMS]
    assert collect([*words, "--store", str(store), "--second-weight", "3"]) == 0
    assert loaded == ["small", "large"]
    assert drawn_by(store) == [policy_of("small").fingerprint, policy_of("large").fingerprint]
    units = len(capsys.readouterr().out.split("drawn:"))
    assert units == 3
    assert collect([*words, "--store", str(tmp_path / "few.sqlite"), "--max-tokens-total", "6000"]) == 0
    told = capsys.readouterr().out
    assert "ended early" in told
    drawn = [int(one.replace(",", "")) for one in re.findall(r"([\d,]+) tokens in", told)]
    assert drawn[0] > 3000, "the second would take as many"
    assert sum(drawn) <= 6000, "of both policies together"


def test_what_a_model_of_another_engine_is_only_that_engine_knows(loaded, data, tmp_path, monkeypatch):
    monkeypatch.delattr("adaptive_ttc.calibration.collect.__main__.locate")
    words = ["--dataset", str(data), "--limit", "4", "--policy", "small", "--second", "large", "--prm", "judge", *ARMS]
    assert collect([*words, "--store", str(tmp_path / "units.sqlite"), "--engine", "own"]) == 0
    assert loaded == ["small", "large"]


def test_a_second_policy_that_is_not_there_is_refused_before_anything_is_drawn(data, tmp_path, capsys):
    store = tmp_path / "units.sqlite"
    assert collect(["--dataset", str(data), "--second", "mini-large", "--store", str(store), *ARMS]) == 2
    assert "mini-large holds no config.json" in capsys.readouterr().err
    assert not store.exists()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The folder of a calibration of a policy and one that is right about half as often where it errs."""
    first = simulated_records(40, 4, 5, trees=0, beams=0)
    rates = [sum(one.correct[0] for one in record.units["sample"]) / 4 for record in first]
    second = [simulated_record((1 + rate) / 2, 4, f"5-{number}", trees=0, beams=0) for number, rate in enumerate(rates)]
    arms = parse_arms(["greedy", "majority:1,4"])
    arms += [replace(arm, second=True) for arm in arms]
    settings = Settings(Weights(prm=2.0), folds=2, learning=GainSettings(states=200, iterations=6, leaf=10))
    made = calibrate(with_second(first, second, 5.0), arms, settings, "simulated")
    folder = tmp_path_factory.mktemp("cascade") / "both"
    models, prm = {"policy": "small then large", "prm": "fake"}, FakePRM.truthful(toy_right_so_far)
    fingerprint = Cascade(policy_of("small"), policy_of("large")).fingerprint
    prints = {"policy": fingerprint, "prm": prm.fingerprint, "second_weight": "5.0"}
    saved = save_calibration(made, folder, **{**ORIGIN, "models": models, "fingerprints": prints})
    write_reports(made, saved.meta, folder)
    return folder


def test_a_calibration_of_both_is_read_shown_and_used(both, capsys):
    made = Calibrated.load(both)
    assert {"greedy", "second:greedy"} <= {arm.kind for arm in made.table.arms}
    assert "second:greedy" in (both / "report.md").read_text()
    assert "second:greedy" in (both / "report.html").read_text()
    assert all("by what opened them" in (both / name).read_text() for name in ("report.md", "report.html"))
    assert show.main([str(both)]) == 0
    assert "second:greedy" in capsys.readouterr().out
    first, second, prm = policy_of("small"), policy_of("large"), FakePRM.truthful(toy_right_so_far)
    with Solver(Cascade(first, second), prm, calibration=both) as solver:
        solution = solver.solve_sync(QUESTIONS[1], budget_tokens=3000, min_gain=0.0)
    considered = [one[0] for event in solution.trace if event.kind == "allocation" for one in event.considered]
    assert any("second:" in one for one in considered)
    assert solution.spent <= 3000
    with pytest.raises(CalibrationError, match="second_weight=5, and here it is 9"):
        Solver(Cascade(first, second, 9.0), prm, calibration=both)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--second-weight", "3"], "--second-weight is of a second policy"),
        (["--second", "large", "--second-weight", "0.5"], "counts at least 1 of the first's"),
        (["--second", "large", "--recipe", "qwen2.5-7b_qwen-prm-7b"], "leave out .*--second"),
        (["--second", "large", "--replay", "FILE"], "leave out --second"),
    ],
)
def test_what_cannot_be_is_refused(loaded, data, tmp_path, capsys, words, told):
    given = ["--dataset", str(data), "--limit", "40", "--folds", "2", *ARMS, "--out", str(tmp_path / "out")]
    given += [] if "--recipe" in words else ["--policy", "small", "--prm", "judge"]
    assert fit.main([*given, *words]) == 2
    assert re.search(told, " ".join(capsys.readouterr().err.split()))


def test_curves_are_of_one_policy(capsys):
    assert pareto(["--policy", "small", "--second", "large"]) == 2
    assert "leave out --second" in capsys.readouterr().err
