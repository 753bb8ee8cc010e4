"""Files of traces as graded records: what is read, pooled, estimated, graded and refused."""

import gzip
import json
import math
import os
from pathlib import Path

import pytest

from adaptive_ttc.calibration.collect.traces import read_traces
from adaptive_ttc.calibration.judge.held_out import crossfit
from adaptive_ttc.calibration.judge.replay import UnitOrder
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.traces import holds_traces

DATA = Path(os.environ.get("ADAPTIVE_TTC_DATA", Path(__file__).parents[2] / "../shared/data"))
REAL = DATA / "traces"

needs_traces = pytest.mark.skipif(not REAL.exists(), reason="the recorded traces are not in $ADAPTIVE_TTC_DATA")


def problem(samples, id="p", gold="5", **more):
    return {"id": id, "gold": gold, "samples": samples, **more}


def answered(answer, tokens=100, **more):
    return {"answer": answer, "tokens": tokens, **more}


@pytest.fixture
def written(tmp_path):
    """Writes problems into a file, by default of a name of its own."""

    def write(*problems, name="traces.jsonl"):
        text = "".join(json.dumps(one) + "\n" for one in problems)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def attempts(record):
    return [one.unit.attempts[0] for one in record.units["sample"]]


def correct(record):
    return [one.correct[0] for one in record.units["sample"]]


@pytest.mark.parametrize("name", ["traces.jsonl", "traces.jsonl.gz"])
def test_what_samples_say_is_in_the_records(written, name):
    samples = [
        answered("5", 120, correct=True, score=0.75, logprob=-0.5),
        answered("6", 80, correct=False, step_scores=[0.9, 0.25], score=0.3),
        answered(None, 200, correct=False),
    ]
    path = written(problem(samples, question="What is 2 + 3?", model="m", dataset="sums"), name=name)
    assert holds_traces(path)
    found = read_traces(path)
    (record,) = found.records
    assert (record.id, record.question, record.answer) == ("p", "What is 2 + 3?", "5")
    assert [one.answer for one in attempts(record)] == ["5", "6", None]
    assert [one.scores for one in attempts(record)] == [(0.75,), (0.9, 0.25), ()]
    assert [one.tokens for one in attempts(record)] == [one.unit.generated for one in record.units["sample"]]
    assert attempts(record)[0].logprob == pytest.approx(-60)
    assert math.isnan(attempts(record)[1].logprob)
    assert correct(record) == [True, False, False]
    assert (found.models, found.datasets, found.notes) == (("m",), ("sums",), ())
    assert found.fields == {"answer", "tokens", "correct", "score", "step_scores", "logprob"}


def test_how_sure_a_model_was_of_its_answer_may_be_told(written):
    samples = [answered("5", answer_logprob=-0.25), answered(None, answer_logprob=-1.0), answered("6")]
    (record,) = read_traces(written(problem(samples, question="?"))).records
    sure = [one.answer_logprob for one in attempts(record)]
    assert sure[0] == -0.25
    assert math.isnan(sure[1])
    assert math.isnan(sure[2])
    with pytest.raises(ConfigError, match='"answer_logprob" is a mean a token'):
        read_traces(written(problem([answered("5", answer_logprob="sure")]), name="wrong.jsonl"))


def test_answers_are_graded_where_the_file_does_not_say(written):
    samples = [answered("1/2"), answered("\\frac{1}{2}"), answered("0.25"), answered("")]
    found = read_traces(written(problem(samples, gold="0.5", question="?")))
    (record,) = found.records
    first, second, third, fourth = (one.answer for one in attempts(record))
    assert first == second != third
    assert fourth is None
    assert correct(record) == [True, True, False, False]
    assert any("4 samples do not say whether they are right" in note for note in found.notes)


def test_answers_are_taken_from_texts_and_tokens_estimated_from_them(written):
    samples = [{"text": "So it is \\boxed{5}."}, {"text": "It is \\boxed{5.0}"}, {"text": "I do not know", "tokens": 7}]
    found = read_traces(written(problem(samples, question="?")))
    (record,) = found.records
    assert [one.answer for one in attempts(record)] == ["5", "5", None]
    assert [one.tokens for one in attempts(record)] == [round(len(samples[0]["text"]) / 3), 6, 7]
    assert correct(record) == [True, True, False]
    assert any("tokens of 2 samples were estimated from text" in note for note in found.notes)


def test_an_answer_that_is_missing_where_others_are_given_is_none(written):
    samples = [
        answered("5", text="so \\boxed{5}", correct=True),
        {"text": "so \\boxed{6}", "tokens": 9, "correct": False},
    ]
    (record,) = read_traces(written(problem(samples))).records
    assert [one.answer for one in attempts(record)] == ["5", None]


def test_a_right_sample_without_an_answer_votes_for_the_right_one(written):
    samples = [answered(None, correct=True), answered("5", correct=True), answered("7", correct=False)]
    (record,) = read_traces(written(problem(samples))).records
    assert [one.answer for one in attempts(record)] == ["5", "5", "7"]


def test_logits_are_mapped_once_a_file_and_probabilities_stay(written):
    logits = written(problem([answered("5", score=2.0), answered("6", score=-1.0), answered("7", score=0.5)]), name="a")
    plain = written(problem([answered("5", score=1.0), answered("6", score=0.0)], id="q"), name="b")
    found = read_traces([logits, plain])
    assert [one.scores[0] for one in attempts(found.records[0])] == pytest.approx(
        [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-0.5))]
    )
    assert [one.scores for one in attempts(found.records[1])] == [(1.0,), (0.0,)]
    assert sum("logistic" in note for note in found.notes) == 1
    assert any(str(logits) in note for note in found.notes)


def test_files_are_pooled_and_models_kept_apart(written):
    first = written(problem([answered("5")], model="m"), problem([answered("6")], model="n"), name="a")
    second = written(problem([answered("7"), answered("8")], model="m"), problem([answered("5")], id="q@T2"), name="b")
    found = read_traces([first, second])
    assert [record.id for record in found.records] == ["p [m]", "p [n]", "q@T2"]
    assert [record.group for record in found.records] == ["p", "p", "q"]
    assert [one.answer for one in attempts(found.records[0])] == ["5", "7", "8"]
    assert found.model_of == ("m", "n", None)
    with pytest.raises(ConfigError, match="is given twice"):
        read_traces([first, first])
    third = written(problem([answered("7")], model="m", gold="6"), name="c")
    with pytest.raises(ConfigError, match="differ in 'gold'"):
        read_traces([first, third])


def test_folds_keep_the_same_problem_on_one_side(written):
    problems = [problem([answered("5", correct=True)], id=f"p{n}@{t}") for n in range(12) for t in range(3)]
    records = read_traces(written(*problems)).records
    folds = crossfit(records, 3, 0)
    by_group = {}
    for record in records:
        by_group.setdefault(record.group, set()).add(folds.fold[record.id])
    assert len(by_group) == 12
    assert all(len(sides) == 1 for sides in by_group.values())
    assert [len(folds.held_out(number, records)) for number in range(3)] == [12, 12, 12]


def test_a_class_of_right_and_wrong_samples_is_right_by_its_share(written):
    samples = [answered("a", correct=True), *[answered("a", correct=False)] * 3, answered("b", correct=True)]
    (record,) = read_traces(written(problem(samples, gold="the tests"))).records
    assert record.right() == {"a": 0.25, "b": 1.0}
    assert UnitOrder(record, 0).accuracy({"a": 4.0, "b": 1.0}) == 0.25


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", 'line 2 has no list "samples"'),
        (json.dumps({"id": "q", "gold": "1", "samples": ["5"]}), "line 2: a sample is an object"),
        (json.dumps({"gold": "1", "samples": [answered("5")]}), 'line 2 has no "id"'),
        (json.dumps({"id": "q", "samples": [answered("5")]}), 'line 2 has no "gold"'),
        (json.dumps(problem([{"answer": "5"}], id="q")), "line 2, sample 1.*no text to estimate"),
        (json.dumps(problem([answered("5", tokens=1.5)], id="q")), 'sample 1: "tokens" is a whole number'),
        (json.dumps(problem([answered("5", score="high")], id="q")), "sample 1: a score is a finite number"),
        (json.dumps(problem([answered("5", logprob=0.5)], id="q")), 'sample 1: "logprob" is a mean a token'),
        (json.dumps(problem([answered("5", correct=1)], id="q")), 'sample 1: "correct" is true or false'),
        (json.dumps(problem([answered("5"), answered(["5"])], id="q")), "sample 2: 'answer' is a text"),
    ],
)
def test_what_is_not_of_the_format_is_refused_with_its_line(tmp_path, line, told):
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(problem([answered("5")])) + "\n" + line + "\n")
    with pytest.raises(ConfigError, match=told):
        read_traces(path)


def test_files_without_samples_and_of_other_formats_are_refused(tmp_path, written):
    with pytest.raises(ConfigError, match="holds no samples"):
        read_traces(written(problem([])))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_traces(tmp_path / "none.jsonl")
    record = tmp_path / "record.jsonl"
    record.write_text(json.dumps({"format": "adaptive_ttc.replay", "version": 1}) + "\n")
    with pytest.raises(ConfigError, match="record of a Recorder"):
        read_traces(record)
    assert not holds_traces(record)
    assert not holds_traces(tmp_path / "none.jsonl")


@needs_traces
@pytest.mark.parametrize(
    ("name", "problems", "groups", "pass_at_1"),
    [
        ("interlace-gsm8k-half-qwen2.5-0.5b", 100, 100, 0.342),
        ("scstudy-gsm8k-qwen2.5-1.5b", 573, 191, 0.650),
        ("atts-math100-r1-distill-llama-8b", 100, 100, 0.741),
        ("epoch-otis-mock-aime", 940, 45, 0.861),
    ],
)
def test_real_traces_have_the_rates_that_are_told_of_them(name, problems, groups, pass_at_1):
    records = read_traces(REAL / f"{name}.jsonl.gz").records
    assert (len(records), len({record.id for record in records})) == (problems, problems)
    assert len({record.group for record in records}) == groups
    means = [sum(correct(record)) / len(correct(record)) for record in records]
    assert sum(means) / len(means) == pytest.approx(pass_at_1, abs=5e-4)
