"""Units are drawn, graded and told apart by their answer space, and a calibration says which it was made with."""

import json

import pytest

from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import PoolKey, pool_key
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.fit.inputs import told_answers
from adaptive_ttc.calibration.fit.recorded import from_recorded
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.solver import Solver
from tests.calibration.collecting import collected

ROWS = [
    {"problem": "How many?", "answer": "12", "unique_id": "a"},
    {"problem": "And now?", "answer": "7", "unique_id": "b"},
]
REPLIES = {"How many?": ["She has 12.0 eggs", "The answer is 11."] * 20, "And now?": ["#### 7", "so 7 it is"] * 20}


def solver(answers=None):
    return Solver(FakePolicy.scripted(REPLIES), answers=answers)


async def pooled(store, rows, answers=None):
    key, _ = await collected(store, rows, {"sample": 4}, solver=solver(answers))
    return load_records(store, key, rows)


@pytest.mark.parametrize("named", ["by the solver", "by the rows"])
async def test_units_are_read_and_graded_in_their_space(named):
    rows = ROWS if named == "by the solver" else [{**row, "answers": "number"} for row in ROWS]
    with Store(":memory:") as store:
        records = await pooled(store, rows, "number" if rows is ROWS else None)
    found = [[unit.unit.attempts[0].answer for unit in record.units["sample"]] for record in records]
    right = [[unit.correct[0] for unit in record.units["sample"]] for record in records]
    assert [sorted(one) for one in found] == [["11", "11", "12", "12"], ["7"] * 4]
    assert right == [[answer == "12" for answer in found[0]], [True] * 4]


def test_units_of_another_space_are_others_and_those_of_mathematics_what_they_were():
    asked = {"policy": "p", "prm": "", "prompt": "", "dataset": "d"}
    assert "answers" not in json.loads(PoolKey(**asked).text)
    assert PoolKey(**json.loads(PoolKey(**asked, answers="number").text)).answers == "number"
    with solver("number") as one:
        assert pool_key(one, "d").answers == pool_key(one, "d", ROWS).answers == "number"
        assert pool_key(one, "d", [{**row, "answers": "choice"} for row in ROWS]).answers == "choice"
        with pytest.raises(ConfigError, match=r"several spaces \(choice, number\): name one"):
            pool_key(one, "d", [ROWS[0], {**ROWS[1], "answers": "choice"}])


def test_a_calibration_says_which_space_it_was_made_with(tmp_path):
    samples = [{"text": "So she has 12 eggs", "tokens": 9}, {"text": "It is \\boxed{7}", "tokens": 8}]
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({"id": "a", "gold": "12.0", "samples": samples}))

    def gathered(*words):
        return from_recorded(fit.parser().parse_args(["--replay", str(path), *words]))

    by_number, by_box = gathered("--answers", "number"), gathered()
    assert by_number.fingerprints["answers"] == "number"
    assert "answers" not in by_box.fingerprints
    assert told_answers("math") == {}
    assert [unit.unit.attempts[0].answer for unit in by_number.records[0].units["sample"]] == ["12", "7"]
    assert [unit.correct for unit in by_number.records[0].units["sample"]] == [(True,), (False,)]
    assert [unit.unit.attempts[0].answer for unit in by_box.records[0].units["sample"]] == [None, "7"]
