"""Accuracy of votes on a problem's pool, mean over sizes that count alike."""

import numpy as np
import pytest

from adaptive_ttc.calibration.collect.arms import Arm
from adaptive_ttc.calibration.collect.records import ProblemRecord, UnitRecord
from adaptive_ttc.calibration.fit.accuracy import SIZES, VOTE_DRAWS, Curves, by_bins, choose_vote, vote_accuracy
from adaptive_ttc.estimate.features import Attempt, Unit
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.evaluation.metrics import subsets_of


def sample(answer):
    return UnitRecord(Unit("sample", (Attempt(answer, (), 10),), (), 10), (answer == "a",))


def test_every_size_of_pools_counts_alike_however_many_subsets_it_has():
    units = tuple(sample("a") if n < 9 else sample(f"b{n % 2}") for n in range(16))
    records = [ProblemRecord(f"p{n}", "?", "a", 5, {"sample": units}) for n in range(8)]
    choice = choose_vote(records, np.arange(8) % 2)
    assert choice.names == ("majority",)
    for record, (found,) in zip(records, choice.accuracy, strict=True):
        rng = np.random.default_rng([0, *record.id.encode()])
        drawn = [subsets_of(16, size, VOTE_DRAWS, rng) for size in SIZES if size <= 16]
        assert [len(one) for one in drawn] == [VOTE_DRAWS, 1], "the whole pool is one"
        by_size = [vote_accuracy(units, one, [Vote("majority")]).mean() for one in drawn]
        assert by_size[1] == 1.0
        assert found == pytest.approx(np.mean(by_size))
    assert choice.accuracy.mean() < 1.0, "at the smaller size the vote is not always right"


def test_bins_are_as_sure_as_their_problems_are_many_not_their_records():
    rng = np.random.default_rng(0)
    accuracy = np.repeat(rng.random((12, 1)), 20, axis=0)
    ids, groups = tuple(f"r{n}" for n in range(240)), tuple(f"p{n // 20}" for n in range(240))
    widths = []
    for named in (None, ids, groups):
        found = by_bins(Curves((Arm("greedy"),), ids, accuracy, accuracy, accuracy, named), np.ones((240, 1)))
        widths.append(float(found.high[0, 0] - found.low[0, 0]))
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] > 3 * widths[1]
