"""A fit of samples that were recorded earlier: what is read of them, and a fit of real traces of MATH-500."""

import json
import os
from pathlib import Path

import pytest

from adaptive_ttc.calibration.collect.arms import SAMPLED, default_arms
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.fit.accuracy import answerable
from adaptive_ttc.calibration.fit.recorded import from_recorded, recorded_arms
from adaptive_ttc.calibration.fit.rows import possible_actions, recorded
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.gain import Action

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
    return from_recorded(fit.parser().parse_args([str(word) for word in words]))


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


def samples(*answers, **more):
    return [{"answer": answer, "tokens": 10, "correct": answer == "1", **more} for answer in answers]


@pytest.fixture
def written(tmp_path):
    """Writes traces of problems with these samples."""

    def write(*problems, name="traces.jsonl"):
        lines = [{"id": f"p{n}", "model": "m-1b", "gold": "1", "samples": one} for n, one in enumerate(problems)]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / name

    return write


def test_all_recorded_samples_count_whatever_their_number(written):
    records = gathered("--replay", written(*[samples(*"1" * 24)] * 3)).records
    assert [arm.n for arm in recorded_arms(records)] == [1, 2, 4, 8, 16, 24]
    assert [arm.n for arm in recorded_arms(records, 5)] == [1, 2, 4, 5]
    assert max(action.count for action in possible_actions(recorded(records))) == 24
    assert possible_actions({"greedy": 3}) == (Action("greedy", 1),)


def test_without_scores_no_arm_votes_by_them(written):
    records = gathered("--replay", written(*[samples(*"1211")] * 3)).records
    assert {arm.strategy for arm in recorded_arms(records)} == {"majority"}
    able, left_out = answerable(records, default_arms(4))
    assert {arm.strategy for arm in able} == {"majority"}
    assert "best_of_n-4" in {arm.name for arm in left_out}
    records = gathered("--replay", written(*[samples(*"1211", score=0.5)] * 3, name="scored.jsonl")).records
    assert {arm.strategy for arm in recorded_arms(records)} == set(SAMPLED)


def test_problems_with_few_samples_are_left_out_where_that_leaves_more(written):
    found = gathered("--replay", written(samples(*"12"), *[samples(*"12112111")] * 4))
    assert [len(one.units["sample"]) for one in found.records] == [8] * 4
    assert "1 of 5 problems have fewer than 8 samples: left out" in found.notes
    found = gathered("--replay", written(*[samples(*"1211211")] * 4, samples(*"12112111"), name="other.jsonl"))
    assert [len(one.units["sample"]) for one in found.records] == [7, 7, 7, 7, 8]


def test_several_files_are_fitted_together_and_the_model_is_named(written):
    other = written(samples("1", "2"), name="other.jsonl")
    other.write_text(other.read_text().replace('"p0"', '"q"'))
    found = gathered("--replay", written(samples("1", "1")), other)
    assert [one.id for one in found.records] == ["p0", "q"]
    assert found.models == {"policy": "m-1b", "prm": None}
    assert found.fingerprints["policy"].startswith("traces:m-1b:")
    assert found.fingerprints["prm"] == ""
    assert fit.default_name(fit.parser().parse_args(["--replay", "a.jsonl.gz", "b.jsonl"])) == "a-and-1-more"


def test_older_traces_need_neither_prm_nor_its_reduction_nor_a_data_set(traces):
    content = json.loads(traces.read_text())
    del content["meta"]["prm_aggregate"]
    traces.write_text(json.dumps(content))
    assert gathered("--replay", traces).models["prm"] == "judge-1.5b"
    for name in ("prm", "temperature", "max_tokens", "max_n"):
        del content["meta"][name]
    for trace in (one for record in content["records"] for one in record["traces"]):
        del trace["prm_score"]
    traces.write_text(json.dumps(content))
    found = gathered("--replay", traces)
    assert found.models == {"policy": "small-1.5b", "prm": None}
    assert {arm.strategy for arm in recorded_arms(found.records)} == {"majority"}
    (traces.parent / "sums.jsonl").rename(traces.parent / "elsewhere.jsonl")
    alone = gathered("--replay", traces).records
    assert [one.correct for record in alone for one in record.units["sample"]] == [(True,), (False,)] * 2
    named = gathered("--replay", traces, "--dataset", traces.parent / "elsewhere.jsonl").records
    assert [one.question for one in named] == ["What is 0 + 1?", "What is 1 + 1?"]
