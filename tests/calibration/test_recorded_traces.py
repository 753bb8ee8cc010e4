"""A fit of samples that were recorded earlier: what is read of them, and a fit of real traces of MATH-500."""

import json
import os
from pathlib import Path

import pytest

from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.fit.inputs import from_traces
from adaptive_ttc.estimate.artefact import Calibrated

DATA = Path(os.environ.get("ADAPTIVE_TTC_DATA", Path(__file__).parents[2] / "../shared/data"))
TRACES = DATA / "math500-traces-qwen2.5-1.5b-skywork-prm.json"
META = {
    "dataset": "sums",
    "model": "small-1.5b",
    "prm": "judge-1.5b",
    "prm_aggregate": "mean",
    "temperature": 0.7,
    "max_tokens": 50,
    "max_n": 2,
}

needs_traces = pytest.mark.skipif(not TRACES.exists(), reason="the recorded traces are not in $ADAPTIVE_TTC_DATA")


@pytest.fixture
def traces(tmp_path):
    """Two problems of two samples each, one of which is right."""
    rows = [{"problem": f"What is {n} + 1?", "answer": str(n + 1), "unique_id": f"sum/{n}"} for n in range(3)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = [
        {
            "problem_id": f"sums-{n}",
            "gold": str(n + 1),
            "traces": [
                {"text": f"It is \\boxed{{{n + 1 + wrong}}}.", "tokens": 7 + wrong, "prm_score": 0.75 - wrong / 2}
                for wrong in range(2)
            ],
        }
        for n in range(2)
    ]
    path = tmp_path / "traces.json"
    path.write_text(json.dumps({"meta": META, "records": records}))
    return path


def gathered(*words):
    return from_traces(fit.parser().parse_args([str(word) for word in words]))


def test_samples_are_graded_and_scored_as_recorded(traces):
    found = gathered("--replay", traces)
    assert [record.id for record in found.records] == ["sum/0", "sum/1"]
    for record in found.records:
        right, wrong = record.units["sample"]
        assert (right.correct, wrong.correct) == ((True,), (False,))
        assert (right.unit.generated, wrong.unit.generated) == (7, 8)
        assert right.unit.attempts[0].scores == (0.75,)
        assert right.unit.first_steps == ()  # the mean of a solution says nothing of its first step
    assert found.models == {"policy": "small-1.5b", "prm": "judge-1.5b"}
    assert found.aggregations == ("mean",)
    assert found.weights.prm == 0  # nobody counted the tokens that the PRM read
    assert found.counts == {"problems": 2, "units": 4, "generated_tokens": 30, "prm_tokens": 0}


def test_a_limit_takes_the_first_problems(traces):
    assert [record.id for record in gathered("--replay", traces, "--limit", 1).records] == ["sum/0"]


def test_what_the_record_does_not_say_is_refused(traces, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"problem": "What is 9 + 9?", "answer": "18"}) + "\n")
    for words, hint in (
        (["--count", "flops"], "take --count generated"),
        (["--dataset", str(other)], "--dataset"),
        ([], "2 problems in 5 folds"),
    ):
        assert fit.main(["--replay", str(traces), "--out", str(tmp_path / "out"), *words]) == 2
        assert hint in capsys.readouterr().err


@needs_traces
def test_real_traces_are_fitted_with_intervals_as_wide_as_forty_problems_deserve(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert fit.main(["--replay", str(TRACES), "--folds", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "no scored first steps were recorded" in " ".join(printed.split())
    calibrated = Calibrated.load(tmp_path)
    table = calibrated.table
    assert table.problems == 40
    assert table.ballot.agg_strategy == "mean"
    assert {arm.kind for arm in table.arms} == {"sample"}
    assert max(arm.units for arm in table.arms) == 8
    assert calibrated.opening.kind == "sample"
    one = [arm.name for arm in table.arms].index("majority-1")
    mean = sum(share * row[one] for share, row in zip(table.share, table.cells.accuracy, strict=True))
    recorded = [trace["correct"] for record in json.loads(TRACES.read_text())["records"] for trace in record["traces"]]
    assert mean == pytest.approx(sum(recorded) / len(recorded), abs=0.03)
    widths = [high[one] - low[one] for low, high in zip(table.cells.low, table.cells.high, strict=True)]
    assert max(widths[1:4]) > 0.1
