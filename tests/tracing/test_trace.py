import json

import anyio
import pytest

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import (
    EVENTS,
    DecisionEvent,
    ExpandEvent,
    ForkEvent,
    RequestEvent,
    SampledEvent,
    ScoredEvent,
    VoteEvent,
)
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import ROOT, Problem
from tests.doubles import TinyPolicy

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


def solved(**arguments):
    with Solver(TinyPolicy(mean=30), FakePRM(lambda question, steps: 0.5)) as solver:
        return solver.solve_sync("how much?", **arguments)


def test_every_request_sample_score_vote_and_decision_is_there():
    solution = solved(budget_tokens=200, n=8)
    trace = solution.trace
    assert [event.paths for event in trace.of(ExpandEvent)] == [((),) * 8]
    assert sum(len(event.token_ids) for event in trace.of(RequestEvent)) == solution.usage.completion_tokens
    assert len(trace.of(RequestEvent)) == solution.usage.num_calls > 8
    ended = {event.path: event for event in trace.of(SampledEvent)}
    for candidate in solution.candidates:
        event = ended[candidate.prefix.path]
        assert (event.text, event.tokens, event.finish, event.logprob) == (
            candidate.prefix.text,
            len(candidate.prefix.token_ids),
            candidate.prefix.finish,
            candidate.prefix.logprob,
        )
    scored = {event.path: event.scores for event in trace.of(ScoredEvent)}
    assert scored == {one.prefix.path: one.prefix.scores for one in solution.candidates if one.prefix.scores}
    assert len(trace.of(VoteEvent)) == 1
    leases = [event for event in trace.of(DecisionEvent) if event.what == "leases"]
    assert leases
    assert all(event.numbers["tokens"] <= event.numbers["balance"] for event in leases)


def test_a_samples_requests_put_together_are_its_tokens():
    solution = solved(budget_tokens=300, n=12)
    for candidate in solution.candidates:
        pieces = [event for event in solution.trace.of(RequestEvent) if event.path == candidate.prefix.path]
        pieces.sort(key=lambda event: event.position)
        assert sum((piece.token_ids for piece in pieces), ()) == candidate.prefix.token_ids
        assert [piece.position for piece in pieces] == [
            sum(len(before.token_ids) for before in pieces[:index]) for index in range(len(pieces))
        ]
        assert len({piece.seed for piece in pieces}) == 1
    assert len(solution.trace.of(RequestEvent)) > len(solution.candidates)


def test_a_saved_trace_loads_equal(tmp_path):
    def search():
        yield from Expand(prefixes=(ROOT,), n=2, stop=("\n\n",), score=True)
        yield from Fork(searches=(iter_one(), iter_one()))
        return ()

    def iter_one():
        return (yield from Expand(prefixes=(ROOT,)))

    driver = Driver(Problem.of("how?"), TinyPolicy(), Ledger(500), prm=FakePRM(lambda question, steps: 0.5))
    anyio.run(driver.run, search())
    with Solver(FakePolicy.reasoning()) as solver:
        thinking = solver.solve_sync("how much is 1 + 2?", n=2, think_tokens=5).trace
    traces = (driver.trace, thinking, solved(budget_tokens=100).trace)
    for trace in traces:
        trace.save(tmp_path / "trace.json")
        loaded = Trace.load(tmp_path / "trace.json")
        assert list(loaded) == list(trace)
        assert loaded.started == trace.started
    kinds = {event.kind for trace in traces for event in trace}
    assert kinds == {event.kind for event in EVENTS}
    assert driver.trace.of(ForkEvent)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"schema": 99, "started": 0, "events": []}',
        '{"schema": 3, "started": 0, "events": [{"event": "x"}]}',
        '{"schema": 3, "started": 0, "events": [{"event": "vote", "time": 1}]}',
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content):
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"trace\.json"):
        Trace.load(path)


def test_a_saved_trace_is_plain_json(tmp_path):
    solved(n=1).trace.save(tmp_path / "trace.json")
    document = json.loads((tmp_path / "trace.json").read_text())
    assert document["schema"] == 3
    kinds = [event["event"] for event in document["events"]]
    assert kinds[:3] == ["run", "search", "expand"]
    assert kinds[-2:] == ["vote", "done"]


def test_a_trace_is_strict_json_whatever_is_in_it_and_is_written_whole(tmp_path):
    trace = Trace(1.5)
    trace.record(DecisionEvent(time=0.0, what="x", why="\ud800 é", numbers={"a": float("nan"), "b": float("-inf")}))
    file = tmp_path / "trace.json"
    file.write_text("older")
    trace.save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    json.loads(file.read_bytes(), parse_constant=refuse)
    (event,) = Trace.load(file)
    assert event.why == "\ud800 é"
    assert event.numbers["a"] != event.numbers["a"]
    assert event.numbers["b"] == float("-inf")


def test_an_event_with_a_value_of_another_type_is_named(tmp_path):
    file = tmp_path / "trace.json"
    solved(budget_tokens=200, n=2).trace.save(file)
    document = json.loads(file.read_text())
    document["events"][1]["time"] = "soon"
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"trace\.json.*event 1: .*\.time is no"):
        Trace.load(file)
