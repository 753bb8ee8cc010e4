"""The ratios of rounds, and the figures of the least gain, from made-up runs."""

import time
from types import SimpleNamespace

import pytest

from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.gain import Action, Forecast, Option
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.events import SearchEvent
from adaptive_ttc.tracing.trace import Trace
from tests.bench.toys import load
from tests.calibration.simulated import simulated_records


def test_ratios_are_of_seconds_a_token_over_all_rounds(monkeypatch):
    rounds = load(monkeypatch, "rounds")

    def ran(tokens, seconds, cpu, slices):
        trace = Trace()
        for _ in range(slices):
            trace.record(SearchEvent(time=0.0, strategy="slice", options={}, start=()))
        solution = SimpleNamespace(usage=SimpleNamespace(completion_tokens=tokens), trace=trace)
        return rounds.Ran([solution], seconds, cpu, 0.5, {"policy": cpu / 2})

    found = {
        "adaptive": [ran(100, 3.0, 2.0, 2), ran(110, 3.3, 2.2, 4)],
        "one_at_a_time": [ran(100, 8.0, 4.0, 8), ran(100, 8.0, 4.0, 8)],
        "best_of_n": [ran(200, 4.0, 4.0, 0), ran(200, 4.0, 4.0, 0)],
    }
    told = rounds.figures(found)
    assert told["tokens_ratio"] == pytest.approx(1.05)
    assert told["wall_ratio"] == pytest.approx(1.5)
    assert told["wall_ratio_one_at_a_time"] == pytest.approx(4.0)
    assert told["cpu_ratio"] == pytest.approx(1.0)
    assert told["slices.adaptive"] == 3
    assert told["cpu_us.adaptive.policy"] == pytest.approx(10_000)
    assert 0 < rounds.thread_seconds()["loop"] <= time.process_time()


class Little:
    """Another sample always gains a little."""

    def forecasts(self, states):
        option = Option.in_tokens(Action("sample", 1), 0.0005, 20.0, 0.0)
        return [Forecast(0.5, (option,)) for _ in states]


def test_what_gains_too_little_is_not_bought(monkeypatch):
    table = SimpleNamespace(ballot=Vote())
    calibrated = Calibrated(table, None, Little(), Opening("greedy", False, 2_000, 0), {})
    records = simulated_records(6, 4, 0)
    told = load(monkeypatch, "min_gain").at_budget(calibrated, records, 10_000, (0.0, 0.1), 2)
    everything, least = told["tokens.10000"]
    assert least < everything
    assert told["difference.10000"][0] == 0
