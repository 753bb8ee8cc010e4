"""The store: what is written comes back bit for bit, once, to every process; other files are refused."""

import json
import math
import sqlite3
from dataclasses import replace

import pytest

from adaptive_ttc.calibration.collect.store import Grade, Store, attempts_of, start_of
from adaptive_ttc.calibration.collect.units import Drawn, PoolKey, Start, Work
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.features import Attempt, FirstStep, Unit
from adaptive_ttc.types import Prefix

KEY = PoolKey(policy="p", prm="r", prompt="t", dataset="d")
ROW = {"problem": "1 + 1?", "answer": "2", "unique_id": "one"}
FIRST = Prefix((5, 6), "a: é\n\n", (0.1 + 0.2,), -1.25, "stop", (3,))
WHOLE = Prefix((5, 6, 7), "a: é\n\n\\boxed{2}", (0.3, 1 / 3), -2.5, "eos", (3, 0), answer_logprob=-0.1)
UNIT = Unit("sample", (Attempt("2", (0.3, 1 / 3), 3, -2.5, "eos", -0.1),), (FirstStep(0.1 + 0.2, 2, -1.25),), 3, 17)
DRAWN = Drawn(3, UNIT, Work(3, 17, 9, 1e9 / 3), Start(FIRST, Work(2, 9, 9, 0.5), WHOLE, Work(3, 17, 9, 1e9 / 3)))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "new folder" / "units.sqlite") as store:
        yield store


def test_what_is_written_comes_back_to_another_process_as_it_was(store):
    number = store.problem(KEY, ROW, 12)
    store.add(number, DRAWN)
    store.judge(number, {"2": Grade("2", True)})
    with Store(store.path) as other:
        assert other.starts(number, [3]) == [DRAWN.start]
        assert other.starts(number, [3])[0].whole.answer_logprob == -0.1
        (held,) = other.holdings(KEY)
        assert held == other.holding(number)
        assert (held.name, held.prompt_tokens, held.grades) == ("one", 12, {"2": Grade("2", True)})
        assert held.units == {"sample": {3: replace(DRAWN, start=None)}}
        assert other.indices(number) == {"sample": {3}}


def test_what_earlier_versions_wrote_is_read():
    (attempt,) = attempts_of('[["2", [0.5], 3, -2.5, "eos"]]')
    assert (attempt.answer, attempt.logprob, attempt.finish) == ("2", -2.5, "eos")
    assert math.isnan(attempt.answer_logprob)
    work = [2, 9, 9, 0.5]
    rows = [
        [*row, *work] for row in ([[5], "a\n\n", [0.5], -1.0, "stop", [3]], [[5, 6], "a\n\nb", [], -2.0, "eos", [3, 0]])
    ]
    start = start_of(json.dumps(rows))
    assert (start.whole.text, start.whole_work) == ("a\n\nb", Work(*work))
    assert math.isnan(start.whole.answer_logprob)


def test_what_is_not_known_stays_unknown(store):
    attempt = Attempt(None, (), 4, math.nan, "length")
    store.add(store.problem(KEY, ROW, 12), Drawn(0, Unit("sample", (attempt,), (FirstStep(math.nan, 4),)), Work()))
    (held,) = store.holdings(KEY)
    (found,) = held.units["sample"][0].unit.attempts
    (step,) = held.units["sample"][0].unit.first_steps
    assert (found.answer, found.scores, found.finish) == (None, (), "length")
    assert math.isnan(found.logprob)
    assert math.isnan(step.score)


def test_a_unit_that_two_writers_drew_is_kept_once_as_the_first_wrote_it(store):
    number = store.problem(KEY, ROW, 12)
    with Store(store.path) as other:
        assert other.problem(KEY, ROW, 12) == number
        other.add(number, DRAWN)
        store.add(number, replace(DRAWN, work=Work(99), unit=replace(UNIT, generated=99)))
        assert store.holding(number).units["sample"][3].work == DRAWN.work


def test_other_keys_texts_and_answers_are_other_problems(store):
    rows = [ROW, {**ROW, "problem": "1 + 2?"}, {**ROW, "answer": "3"}, {**ROW, "unique_id": "two"}]
    keys = [KEY, replace(KEY, seed=1), replace(KEY, prm="s"), replace(KEY, prompt="u"), replace(KEY, temperature=1.0)]
    numbers = {store.problem(key, row, 12) for key in keys for row in rows}
    assert len(numbers) == len(keys) * len(rows)
    store.add(store.problem(KEY, ROW, 12), DRAWN)
    assert [bool(one.units) for one in store.holdings(KEY)] == [True, False, False, False]
    assert not any(one.units for one in store.holdings(keys[1]))
    assert [store.indices(store.find(KEY, row)) for row in rows] == [{"sample": {3}}, {}, {}, {}]


def test_a_part_of_a_store_goes_elsewhere_and_back_and_changes_nothing_that_is_there(store):
    other = {**ROW, "unique_id": "two"}
    store.problem(KEY, other, 9)
    number = store.problem(KEY, ROW, 12)
    store.add(number, DRAWN)
    store.judge(number, {"1": Grade("1", True)})
    with Store(":memory:") as memory:
        memory.problem(KEY, {**ROW, "unique_id": "three"}, 9)  # numbers differ
        memory.copy_from(store, KEY, [ROW, {**ROW, "unique_id": "nowhere"}])
        sent = memory.serialized()
    with Store.deserialized(sent) as part:
        assert part.find(KEY, other) is None
        found = part.find(KEY, ROW)
        assert part.holding(found) == store.holding(number)
        assert part.starts(found, [3]) == store.starts(number, [3])
        part.add(found, replace(DRAWN, index=4))
        part.judge(found, {"2": Grade("2", False)})
        store.copy_from(part, KEY, [ROW])
        assert store.holding(number) == part.holding(found)
        assert store.indices(number) == {"sample": {3, 4}}


def test_a_missing_start_is_told(store):
    with pytest.raises(CalibrationError, match="no sample 7"):
        store.starts(store.problem(KEY, ROW, 12), [7])


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all, but long enough to look like one\n" * 40)
    with pytest.raises(CalibrationError, match="name another file"):
        Store(text)
    assert text.read_text().startswith("not a database")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE users (name TEXT)")
    db.close()
    before = foreign.read_bytes()
    with pytest.raises(CalibrationError, match="database of something else"):
        Store(foreign)
    assert foreign.read_bytes() == before
    with pytest.raises(ConfigError, match="is a folder"):
        Store(tmp_path)


def test_another_version_is_refused(store):
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CalibrationError, match="schema 99"):
        Store(store.path)


def test_a_damaged_file_and_a_damaged_entry_are_told(tmp_path):
    path = tmp_path / "units.sqlite"
    with Store(path) as store:
        number = store.problem(KEY, ROW, 12)
        for index in range(400):
            store.add(number, replace(DRAWN, index=index))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE units SET attempts = '[[1, 2' WHERE number = 7")
    db.close()
    with Store(path) as store, pytest.raises(CalibrationError, match="damaged"):
        store.holding(number)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CalibrationError, match="restore it"), Store(path) as store:
        list(store.holdings(KEY))
