"""Collecting: what it costs, where trees start, and that nothing is lost, repeated or dependent on the rest."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from adaptive_ttc.answers import GRADER_VERSION, Grader, GradingConfig
from adaptive_ttc.calibration.collect import store as store_module
from adaptive_ttc.calibration.collect import units
from adaptive_ttc.calibration.collect.collector import Tally, collect, grades_of, missing_units
from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Grade, Store
from adaptive_ttc.calibration.collect.units import PoolKey, starts_of
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.types import Problem
from tests.calibration.collecting import DEMAND, QUESTIONS, ROWS, UNITS, collected, fresh_records, toy_solver
from tests.calibration.test_store import DRAWN

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "units.sqlite") as store:
        yield store


async def test_every_problem_gets_every_unit_and_its_verdict(store):
    tally = Tally(len(ROWS) * UNITS)
    key, result = await collected(store, report=tally.add)
    records = load_records(store, key, ROWS, DEMAND)
    assert [record.id for record in records] == [row["unique_id"] for row in ROWS]
    assert (result.complete, tally.problems, tally.units) == (len(ROWS), len(ROWS), tally.total)
    for record, row in zip(records, ROWS, strict=True):
        assert {kind: len(group) for kind, group in record.units.items()} == DEMAND
        for one in (one for group in record.units.values() for one in group):
            right = [attempt.answer == row["answer"] for attempt in one.unit.attempts]
            assert list(one.correct) == right
            assert all(len(attempt.scores) for attempt in one.unit.attempts)
    right = [correct for record in records for one in record.units["sample"] for correct in one.correct]
    assert 0 < sum(right) < len(right)
    assert tally.accuracy == pytest.approx(sum(right) / len(right))


async def test_units_cost_together_what_the_accounts_were_charged(store, monkeypatch):
    accounts = []

    class Watched(Ledger):
        def __init__(self, limit):
            super().__init__(limit)
            accounts.append(self)

    monkeypatch.setattr(units, "Ledger", Watched)
    solver, tally = toy_solver(), Tally(0)
    await collected(store, solver=solver, report=tally.add)
    assert tally.tokens == solver.policy.completion_tokens
    cost = 0
    for number in range(1, len(ROWS) + 1):
        for kind, drawn in store.holding(number).units.items():
            for index, one in drawn.items():
                assert (one.unit.generated, one.unit.prm) == (one.work.generated, one.work.prm)
                _, before = units._begin(kind, store.starts(number, starts_of(kind, index)))
                cost += one.work.generated + one.work.prm - before.generated - before.prm
    assert cost == sum(account.spent for account in accounts)


async def test_a_sample_costs_what_scoring_it_whole_costs_and_its_first_step_is_a_part(store):
    solver = toy_solver()
    await collected(store, solver=solver, demand={"sample": 3})
    whole = 0
    for index, start in enumerate(store.starts(1, range(3))):
        assert start.first.path == (index,)
        assert start.whole.text.startswith(start.first.text)
        assert start.first.scores == start.whole.scores[:1]
        read = [ScoreRequest(QUESTIONS[0], prefix.steps) for prefix in (start.first, start.whole)]
        assert [start.first_work.prm, start.whole_work.prm] == [solver.prm.count_tokens(one) for one in read]
        assert start.whole_work.generated == len(start.whole.token_ids)
        whole += start.whole_work.generated
    assert whole == sum(one.work.generated for one in store.holding(1).units["sample"].values())


async def test_equal_first_steps_of_a_tree_are_scored_once(store):
    await collected(store, demand={"dvts-4": 2})
    seen = 0
    for number in range(1, len(ROWS) + 1):
        for index in range(2):
            starts = store.starts(number, range(index * 4, index * 4 + 4))
            _, before = units._begin("dvts-4", starts)
            once = {start.first.steps: start.first_work.prm for start in starts}
            assert before.prm == sum(once.values())
            assert before.generated == sum(start.first_work.generated for start in starts)
            seen += len(once) < 4
    assert seen


async def test_trees_and_chains_start_from_the_samples_of_the_pool(store):
    solver = toy_solver()
    key, _ = await collected(store, rows=ROWS[:1], solver=solver)
    (record,) = load_records(store, key, ROWS[:1], DEMAND)
    steps = [one.unit.first_steps[0] for one in record.units["sample"]]
    assert record.units["dvts-4"][1].unit.first_steps == tuple(steps[4:8])
    assert record.units["beam_search-4-2"][1].unit.first_steps == tuple(steps[4:8])
    for index, chain in enumerate(record.units["revision-2"]):
        assert chain.unit.attempts[0] == record.units["sample"][index].unit.attempts[0]
        assert len(chain.unit.attempts) == 2
    opening = solver.policy.encode(Problem.of(QUESTIONS[0]))
    from_the_root = [request for request in solver.policy.requests if request.prompt_ids == opening]
    assert len(from_the_root) == DEMAND["sample"] + DEMAND["greedy"]


async def test_a_second_collection_draws_nothing(store):
    key, _ = await collected(store)
    before = load_records(store, key, ROWS)
    again, tally = toy_solver(), Tally(0)
    await collected(store, solver=again, report=tally.add)
    assert again.policy.requests == []
    assert again.prm.requests == []
    assert (tally.units, tally.problems) == (0, len(ROWS))
    assert load_records(store, key, ROWS) == before


async def test_asking_for_more_draws_the_difference_and_finds_what_asking_at_once_finds(store):
    less = {"sample": 3, "dvts-4": 1}
    key, _ = await collected(store, demand=less)
    small = load_records(store, key, ROWS, less)
    missing = missing_units(store, ROWS, DEMAND, key)
    assert set(missing.values()) == {UNITS - 4 - 1}  # the tree had asked for a fourth sample
    tally = Tally(0)
    await collected(store, report=tally.add)
    assert tally.units == sum(missing.values())
    assert load_records(store, key, ROWS, DEMAND) == await fresh_records()
    assert load_records(store, key, ROWS, less) == small


async def test_neither_concurrency_nor_the_other_problems_change_a_record(store):
    key, _ = await collected(store, rows=ROWS[3:4], concurrency=1)
    assert load_records(store, key, ROWS, DEMAND) == (await fresh_records())[3:4]
    assert await fresh_records(seed=1) != await fresh_records()


async def test_a_cancelled_collection_keeps_what_was_drawn(store):
    tally = Tally(0)
    with anyio.CancelScope() as scope:

        def report(advance):
            tally.add(advance)
            if tally.units == 7:
                scope.cancel()

        await collected(store, report=report)
    assert scope.cancelled_caught
    assert 7 <= tally.units < len(ROWS) * UNITS
    rest = Tally(0)
    key, _ = await collected(store, report=rest.add)
    assert rest.units == len(ROWS) * UNITS - tally.units
    assert load_records(store, key, ROWS, DEMAND) == await fresh_records()


async def test_an_engine_that_fails_for_good_ends_the_collection_and_loses_nothing(store):
    solver = toy_solver()
    solver.policy.fail(EngineError("out of memory"), matching=lambda request: request.path == (3, 0))
    with pytest.raises(EngineError, match="out of memory"):
        await collected(store, solver=solver)
    key, result = await collected(store)
    assert result.complete == len(ROWS)
    assert load_records(store, key, ROWS, DEMAND) == await fresh_records()


@pytest.mark.parametrize("limit", [1, 3000, 8000])
async def test_the_ceiling_is_hard_and_what_is_complete_stays(store, limit):
    solver = toy_solver()
    key, result = await collected(store, solver=solver, concurrency=2, max_tokens_total=limit)
    assert solver.policy.completion_tokens <= limit
    assert result.ended_early is not None
    assert f"of at most {limit:,} tokens" in result.ended_early
    whole = await fresh_records()
    records = load_records(store, key, ROWS, DEMAND)
    assert len(records) == result.complete < len(ROWS)
    assert bool(records) == (limit == 8000)
    assert records == [record for record in whole if record in records]
    await collected(store)
    assert load_records(store, key, ROWS, DEMAND) == whole


async def test_a_ceiling_that_suffices_uses_what_leases_give_back(store):
    tokens = Tally(0)
    await collected(store, report=tokens.add)
    solver = toy_solver()
    with Store(":memory:") as other:
        _, result = await collected(other, solver=solver, max_tokens_total=tokens.tokens + 4096)
    assert result.ended_early is None
    assert solver.policy.completion_tokens == tokens.tokens


async def test_a_problem_longer_than_the_context_is_left_out_and_told(store):
    long = {"problem": "Add " + " + ".join("1" * 300) + ".", "answer": "300", "unique_id": "long"}
    key, result = await collected(store, [long, *ROWS[:2]], {"sample": 2}, toy_solver(max_context=500))
    assert list(result.left_out) == ["long"]
    assert "context 500" in result.left_out["long"]
    assert [record.id for record in load_records(store, key, [long, *ROWS], {"sample": 2})] == ["sum/0", "sum/1"]


async def test_answers_are_put_into_classes_across_all_units_of_a_problem(store):
    key = PoolKey(policy="p", prm="", prompt="", dataset="d")
    row = {"problem": "half?", "answer": "0.5", "unique_id": "half"}
    number = store.problem(key, row, 3)
    for index, answer in enumerate([r"\frac{1}{2}", "1/2", None, "2"]):
        attempt = replace(DRAWN.unit.attempts[0], answer=answer)
        kind = "sample" if index else "greedy"
        unit = replace(DRAWN.unit, kind=kind, attempts=(attempt,))
        store.add(number, replace(DRAWN, index=max(index - 1, 0), unit=unit, start=None))
    assert load_records(store, key, [row]) == []  # not graded yet
    async with Grader() as grader:
        store.judge(number, await grades_of(store.holding(number), row["answer"], grader))
    (record,) = load_records(store, key, [row])
    told = {
        kind: [(one.unit.attempts[0].answer, one.correct[0]) for one in group] for kind, group in record.units.items()
    }
    assert told == {"greedy": [("1/2", True)], "sample": [("1/2", True), (None, False), ("2", False)]}


SINE, PRODUCT = r"\sin 2x", r"2\sin x\cos x"  # equal, as only a worker can tell


async def test_what_time_did_not_suffice_to_grade_is_graded_again(store, caplog):
    row = {"problem": "Add 3 + 4.", "answer": SINE, "unique_id": "one"}
    starved, fed = toy_solver(), toy_solver()
    starved.grader = Grader(GradingConfig(problem_limit=1e-9))
    key, _ = await collected(store, [row], {"sample": 1})
    number = store.find(key, row)
    attempts = [replace(DRAWN.unit.attempts[0], answer=answer) for answer in (PRODUCT, "2", SINE)]
    for index, attempt in enumerate(attempts, 1):
        store.add(number, replace(DRAWN, index=index, unit=replace(DRAWN.unit, attempts=(attempt,)), start=None))
    for solver, correct in ((starved, False), (fed, True)):
        await collected(store, [row], {"sample": 4}, solver)
        held = store.holding(number)
        assert held.grades[PRODUCT].correct is correct
        assert held.grades[SINE].correct is held.grades[SINE].decided is True
        assert (PRODUCT in held.ungraded) is not correct
        assert ("graded again" in caplog.text) is not correct
        (record,) = load_records(store, key, [row], {"sample": 4})
        assert [one.correct for one in record.units["sample"]][1:] == [(correct,), (False,), (True,)]
        caplog.clear()
        with Store(":memory:") as other:
            other.copy_from(store, key, [row])
            assert other.holding(1).grades == held.grades
    assert held.ungraded == set()


async def test_grades_of_another_version_of_the_grader_count_as_missing(store, monkeypatch):
    key = PoolKey(policy="p", prm="", prompt="", dataset="d")
    row = {"problem": "half?", "answer": "0.5", "unique_id": "half"}
    number = store.problem(key, row, 3)
    attempt = replace(DRAWN.unit.attempts[0], answer="1/2")
    store.add(number, replace(DRAWN, index=0, unit=replace(DRAWN.unit, attempts=(attempt,)), start=None))
    with monkeypatch.context() as before:
        before.setattr(store_module, "GRADER_VERSION", GRADER_VERSION - 1)
        store.judge(number, {"1/2": Grade("1/2", False)})
        assert [one.units["sample"][0].correct for one in load_records(store, key, [row])] == [(False,)]
    assert store.holding(number).ungraded == {"1/2"}
    assert load_records(store, key, [row]) == []
    async with Grader() as grader:
        store.judge(number, await grades_of(store.holding(number), row["answer"], grader))
    assert [one.units["sample"][0].correct for one in load_records(store, key, [row])] == [(True,)]


async def test_without_a_prm_samples_are_drawn_and_trees_refused(store):
    key, _ = await collected(store, ROWS[:2], {"sample": 4, "greedy": 1, "revision-2": 1}, toy_solver(prm=False))
    records = load_records(store, key, ROWS[:2])
    assert len(records) == 2
    assert {one.unit.prm for record in records for group in record.units.values() for one in group} == {0}
    with pytest.raises(ConfigError, match="needs a PRM"):
        await collected(store, ROWS[:1], {"dvts-4": 1}, toy_solver(prm=False))


async def test_impossible_settings_are_refused_at_once(store):
    solver = toy_solver()
    key = PoolKey(policy="p", prm="", prompt="", dataset="d")
    for options in ({"concurrency": 0}, {"max_tokens_total": 0}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            await collect(solver, ROWS, DEMAND, store, key, **options)
    with pytest.raises(ConfigError, match="they are greedy"):
        await collect(solver, ROWS, {"tree": 1}, store, key)
    with pytest.raises(ConfigError, match=r"take 0\.8"):
        PoolKey(policy="p", prm="", prompt="", dataset="d", temperature=0.0)


def test_a_collection_that_is_killed_again_and_again_loses_and_repeats_nothing(tmp_path):
    path, drawn = tmp_path / "units.sqlite", []
    script = f"from tests.calibration.collecting import killed_after; killed_after({str(path)!r}, 25)"
    while not drawn or drawn[-1] == 25:
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == (-9 if run.stdout.strip() == "25" else 0), run.stderr
        drawn.append(int(run.stdout))
    assert sum(drawn) == len(ROWS) * UNITS
    assert len(drawn) == len(ROWS) * UNITS // 25 + 1
    with Store(path) as store:
        key = anyio.run(_key)
        assert load_records(store, key, ROWS, DEMAND) == anyio.run(fresh_records)


async def _key():
    with Store(":memory:") as store:
        return (await collected(store, [], {}))[0]
