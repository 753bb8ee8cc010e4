"""A run is followed again from its trace, with no model, however it was cut."""

from collections import Counter

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import DoneEvent, SampledEvent
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.trace import Trace
from tests.doubles import TinyPolicy

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

STRATEGIES = (
    {"strategy": "greedy"},
    {"strategy": "majority", "n": 5, "slice_size": 2},
    {"strategy": "weighted_best_of_n", "n": 5},
    {"strategy": "beam_search", "n": 8, "beam_width": 2, "lookahead": 1},
    {"strategy": "beam_search", "n": 8, "beam_width": 2, "max_steps": 3},
    {"strategy": "dvts", "n": 8, "beam_width": 2},
    {"strategy": "revision", "n": 6, "sequential": 3},
    {},
)


def solver(**settings):
    prm = FakePRM(lambda question, steps: (len("".join(steps)) * 7 % 11) / 11)
    policy = TinyPolicy(**settings)
    policy.revision_prompt = "again"
    return Solver(policy, prm)


@pytest.mark.parametrize("request_", STRATEGIES, ids=str)
@pytest.mark.parametrize("budget", [15, 100, 400])
@pytest.mark.parametrize("count", ["generated", "generated+prm"])
async def test_a_trace_replays_exactly(tmp_path, request_, budget, count):
    async with solver(chaos=budget, failure=0.05) as one:
        budget = budget if count == "generated" else 20 * budget
        solution = await one.solve("how?", budget_tokens=budget, count=count, max_tokens=120, **request_)
        solution.trace.save(tmp_path / "trace.json")
        again = await retrace(Trace.load(tmp_path / "trace.json"), one.grader)
    assert again.candidates == solution.candidates
    assert again == solution


@pytest.mark.parametrize("request_", STRATEGIES[1:-1], ids=str)
async def test_a_run_that_was_stopped_replays_exactly(request_):
    ends = Counter()
    async with solver(chaos=7, mean=60) as one:
        for events in (1, 4, 9, 25):
            stream = one.stream("how?", max_tokens=200, **request_)
            async for event in stream:
                events -= type(event) is SampledEvent
                if not events:
                    stream.stop()
            solution = await stream.solution()
            ends.update(candidate.prefix.finish for candidate in solution.candidates)
            assert await retrace(solution.trace, one.grader) == solution
    assert ends.total() > ends["eos"], "no run was cut"


async def test_a_trace_without_its_end_is_refused():
    async with solver() as one:
        solution = await one.solve("how?", n=3)
        cut = Trace()
        for event in solution.trace:
            if type(event) is not DoneEvent:
                cut.record(event)
        with pytest.raises(ConfigError, match="one 'done' event"):
            await retrace(cut, one.grader)
