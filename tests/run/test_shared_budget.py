"""One budget for parts in any number of processes: shares, leftovers, parts that were cut off, files of others."""

import multiprocessing
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.errors import CheckpointError, ConfigError
from adaptive_ttc.run.shared_budget import SharedBudget
from adaptive_ttc.solver import Solver
from tests.doubles import TinyPolicy


def test_what_a_part_leaves_is_shared_by_those_that_begin_later():
    with SharedBudget(":memory:", 100, parts=4) as budget:
        assert budget.lease(2) == 25
        assert budget.lease(0) == 25
        budget.settle(2, 5)
        assert (budget.spent, budget.left) == (30, 70)
        assert budget.lease(3) == 35
        budget.settle(0, 25)
        budget.settle(3, 35)
        assert budget.lease(1) == 35
        assert budget.left == 0


def test_shares_go_by_weight():
    with SharedBudget(":memory:", 100, parts=[1, 3]) as budget:
        assert (budget.lease(1), budget.lease(0)) == (75, 25)


@given(
    units=st.integers(0, 2**80),
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    data=st.data(),
)
def test_never_a_unit_more_than_there_is(units, weights, data):
    with SharedBudget(":memory:", units, parts=weights) as budget:
        waiting, running, spent = list(range(len(weights))), {}, 0
        while waiting or running:
            if waiting and (not running or data.draw(st.booleans())):
                part = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
                running[part] = budget.lease(part)
            else:
                part, leased = running.popitem()
                used = data.draw(st.integers(0, leased))
                budget.settle(part, used)
                spent += used
            assert budget.spent == spent + sum(running.values()) <= units
        # the last one to begin was offered all that the others had left
        assert budget.spent == spent


def test_a_part_that_was_cut_off_counts_whole_and_goes_on_only_from_its_checkpoint(tmp_path):
    path = tmp_path / "budget.db"
    with SharedBudget(path, 90, parts=3) as budget:
        assert budget.lease(0, checkpoint=tmp_path / "a.db") == 30
        assert budget.lease(1) == 30
    with SharedBudget(path, 90, parts=3) as budget:
        assert budget.spent == 60
        assert budget.lease(0, checkpoint=str(tmp_path / "a.db")) == 30
        with pytest.raises(ConfigError, match=r"give its checkpoint, a\.db"):
            budget.lease(0, checkpoint=tmp_path / "b.db")
        with pytest.raises(ConfigError, match=r"part 1 .* lease with a checkpoint"):
            budget.lease(1)
        assert budget.spent == 60


def test_a_checkpoint_is_known_by_its_place(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with SharedBudget("budget.db", 90, parts=3) as budget:
        assert budget.lease(0, checkpoint="a.db") == 30
        with pytest.raises(ConfigError, match=r"':memory:' is no file"):
            budget.lease(1, checkpoint=":memory:")
    monkeypatch.chdir(tmp_path / "there")
    with SharedBudget("../here/budget.db", 90, parts=3) as budget:
        with pytest.raises(ConfigError, match=r"give its checkpoint, a\.db"):
            budget.lease(0, checkpoint="a.db")  # another file, which knows nothing of what was spent
        assert budget.lease(0, checkpoint="../here/a.db") == 30
        assert budget.spent == 30


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one: one.lease(2), "no part 2"),
        (lambda one: one.lease(-1), "no part -1"),
        (lambda one: one.lease(0), "has settled: it gets nothing more"),
        (lambda one: one.settle(0, 1), "has settled already"),
        (lambda one: one.settle(1, 1), "leased nothing"),
        (lambda one: one.settle(1, 0.5), "whole number; got 0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with SharedBudget(":memory:", 10, parts=2) as budget:
        budget.lease(0)
        with pytest.raises(ConfigError, match="leased 5 units: it cannot have spent 6"):
            budget.settle(0, 6)
        budget.settle(0, 3)
        with pytest.raises(ConfigError, match=words):
            call(budget)
        assert (budget.spent, budget.left) == (3, 7)


@pytest.mark.parametrize(("units", "parts"), [(-1, 2), (5, 0), (5, []), (5, [1, 0])])
def test_impossible_budgets_are_refused(units, parts, tmp_path):
    with pytest.raises(ConfigError, match="at least 0 units and one part"):
        SharedBudget(tmp_path / "budget.db", units, parts=parts)
    assert not (tmp_path / "budget.db").exists()


@pytest.mark.parametrize(("units", "parts"), [(4.5, 2), ("5", 2), (5, [1.5, 1])])
def test_what_is_not_whole_is_refused(units, parts, tmp_path):
    with pytest.raises(ConfigError, match="is a whole number; got"):
        SharedBudget(tmp_path / "budget.db", units, parts=parts)
    assert not (tmp_path / "budget.db").exists()


def test_the_file_of_another_budget_is_refused(tmp_path):
    path = tmp_path / "budget.db"
    SharedBudget(path, 90, parts=3).close()
    for units, parts in ((91, 3), (90, 4), (90, [1, 1, 2])):
        with pytest.raises(CheckpointError, match="budget of 90 units in 3 parts"):
            SharedBudget(path, units, parts=parts)


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "budget.db"
    with SharedBudget(path, 90, parts=3) as budget:
        budget.lease(0)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE leases SET units = 'many'")
    db.close()
    with (
        SharedBudget(path, 90, parts=3) as budget,
        pytest.raises(CheckpointError, match=r"budget\.db is no shared budget, or is damaged|budget\.db is damaged"),
    ):
        budget.lease(1)


def _parts(path, part):
    with SharedBudget(path, 1_000, parts=8) as budget:
        units = budget.lease(part)
        budget.settle(part, units // 2)
        return units


def test_processes_share_it(tmp_path):
    path = tmp_path / "budget.db"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        units = pool.starmap(_parts, [(path, part) for part in range(8)])
    with SharedBudget(path, 1_000, parts=8) as budget:
        assert budget.spent == sum(one // 2 for one in units) <= 1_000
    assert min(units) >= 125


async def test_pools_of_parts_spend_no_more_together(tmp_path):
    questions = [f"how much is {number}?" for number in range(9)]
    found = []
    with SharedBudget(tmp_path / "budget.db", 300, parts=3) as budget:
        for part in range(3):
            file = tmp_path / f"part-{part}.db"
            units = budget.lease(part, checkpoint=file)
            async with Solver(TinyPolicy(), rule="uniform") as solver:
                pool = solver.solve_many(questions[part::3], budget_tokens=units, checkpoint=file)
                found += await pool
            budget.settle(part, pool.spent)
        assert sum(one.spent for one in found) == budget.spent <= 300
    assert len(found) == 9
