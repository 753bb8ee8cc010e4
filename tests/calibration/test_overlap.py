"""A calibration is not judged on problems that it was fitted on, unless that is asked for and told."""

import pytest

from adaptive_ttc.calibration.judge.held_out import check_overlap, text_digest
from adaptive_ttc.errors import ConfigError

ROWS = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n), "unique_id": f"sum/{n}"} for n in range(4)]
META = {"dataset": {"name": "sums"}, "digests": [text_digest("What is  2 + 2?\n"), text_digest("something else")]}


def test_a_shared_problem_is_refused_whatever_it_is_called_and_however_it_is_set():
    with pytest.raises(ConfigError, match=r"1 of 4 problems, sum/2 among them.*\(sums\).*--allow-overlap"):
        check_overlap(META, ROWS, allow=False)


def test_an_overlap_that_is_allowed_labels_the_outputs():
    found = check_overlap(META, ROWS, allow=True)
    assert (found.shared, found.judged) == (1, 4)
    assert found.label == "NOT HELD OUT: the calibration was fitted on 1 of these 4 problems"


def test_other_problems_pass_without_a_label():
    for meta, rows in ((META, ROWS[:2]), ({}, ROWS)):
        assert check_overlap(meta, rows, allow=False).label == ""
