"""Collecting with the embedded models: exact costs, trees from the pool's first steps, nothing drawn twice."""

import pytest

from adaptive_ttc.calibration.collect.collector import Tally, collect
from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import pool_key
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.solver import Solver

DEMAND = {"greedy": 1, "sample": 4, "dvts-2": 2, "beam_search-4-2": 1, "revision-2": 1}


@pytest.mark.filterwarnings("ignore:.*was trained to revise")
async def test_the_mini_pair_is_collected_once_and_every_token_accounted_for():
    rows = load_problems("minimath-calibration", 2)
    with Store(":memory:") as store:
        async with Solver.mini() as solver:
            key, first, again = pool_key(solver, "minimath-calibration"), Tally(0), Tally(0)
            await collect(solver, rows, DEMAND, store, key, report=first.add)
            await collect(solver, rows, DEMAND, store, key, report=again.add)
            records = load_records(store, key, rows, DEMAND)
            assert (first.units, again.units, len(records)) == (2 * sum(DEMAND.values()), 0, 2)
            for number, (row, record) in enumerate(zip(rows, records, strict=True), start=1):
                starts = store.starts(number, range(4))
                for start, sample in zip(starts, record.units["sample"], strict=True):
                    read = ScoreRequest(row["problem"], start.whole.steps)
                    assert sample.unit.prm == solver.prm.count_tokens(read)
                    assert sample.unit.generated == len(start.whole.token_ids) == sample.unit.attempts[0].tokens
                    assert solver.policy.decode(start.whole.token_ids) == start.whole.text
                    assert start.whole.token_ids[: len(start.first.token_ids)] == start.first.token_ids
                    assert start.first.text.endswith("\n\n") or start.first.finished
                steps = [sample.unit.first_steps[0] for sample in record.units["sample"]]
                assert [unit.unit.first_steps for unit in record.units["dvts-2"]] == [
                    tuple(steps[:2]),
                    tuple(steps[2:]),
                ]
                assert record.units["beam_search-4-2"][0].unit.first_steps == tuple(steps)
                assert record.prompt_tokens > 0
