"""How long a model thinks is an arm: drawn, compared, learned, offered, chosen and told like N."""

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.calibration.collect.arms import Arm, demand, parse_arms
from adaptive_ttc.calibration.collect.collector import collect
from adaptive_ttc.calibration.collect.records import load_records
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import pool_key
from adaptive_ttc.calibration.fit.accuracy import measure
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.features import Evidence, Reading, Unit
from adaptive_ttc.estimate.gain import TableGainModel
from adaptive_ttc.estimate.table import Cells, ComputeOptimalTable, TableArm, Vote
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_answer
from adaptive_ttc.run.retrace import as_recorded
from adaptive_ttc.strategies.adaptive import is_sample, request_of, split_kind

WORDS = ["majority:1,4", "majority:1@0,2@60", "short_m_at_k:4x2"]
SIZES = (1, 1, 90, 90_000)  # of a number, by which sums are easy or hard
QUESTIONS = [f"Add {(17 * i % 83 + 1) * SIZES[i % 4]} + {(i + 3) * SIZES[i % 4]} + {i}." for i in range(12)]
ROWS = [
    {"problem": question, "answer": toy_answer(question), "unique_id": f"sum/{i}"}
    for i, question in enumerate(QUESTIONS)
]


def thinker():
    return Solver(FakePolicy.reasoning(error_rate=0.06, again=0.85))


@pytest.fixture(scope="module")
def drawn():
    """Graded units of all arms, and the arms."""
    import anyio

    arms = parse_arms(WORDS)

    async def main():
        with Store(":memory:") as store:
            async with thinker() as solver:
                key, wanted = pool_key(solver, "sums"), demand(arms)
                await collect(solver, ROWS, wanted, store, key)
                return load_records(store, key, ROWS, wanted)

    return anyio.run(main), arms


def test_arms_are_named_with_how_long_they_think():
    arms = parse_arms(WORDS)
    assert [arm.name for arm in arms] == [
        "majority-1", "majority-4", "majority-1@0", "majority-2@60", "short_m_at_k-4-2",
    ]  # fmt: skip
    assert [arm.kind for arm in arms[2:]] == ["think-0", "think-60", "short_m_at_k-4-2"]
    assert demand(arms) == {
        "sample": 4, "think-0": 1, "think-60": 2, "short_m_at_k-4-2": 2,
    }  # fmt: skip
    assert arms[3].options == {"n": 2, "beam_width": 1, "think_tokens": 60}
    assert [arm.scored for arm in arms] == [False] * 5
    assert [is_sample(arm.kind) for arm in arms] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: parse_arms(["dvts:4x4@512"]), "limit thinking"),
        (lambda: parse_arms(["short_m_at_k:4"]), "samples begun x waited for"),
        (lambda: parse_arms(["short_m_at_k:4x5"]), "take n=5 or more"),
        (lambda: Arm("majority", 4, m=2), "waits for m samples"),
        (lambda: Arm("short_m_at_k", 4), "short_m_at_k:8x3"),
        (lambda: split_kind("think-x"), "no kind of unit"),
        (lambda: split_kind("sample-0"), "no kind of unit"),
    ],
)
def test_impossible_arms_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_units_think_no_longer_than_their_kind_says(drawn):
    records, _ = drawn
    assert len(records) == len(ROWS)
    for record in records:
        for kind, most in (("think-0", 60), ("think-60", 120)):
            assert max(one.unit.generated for one in record.units[kind]) <= most
        assert all(len(one.unit.attempts) == 2 for one in record.units["short_m_at_k-4-2"])


def test_accuracy_and_cost_are_those_of_the_arm(drawn):
    records, arms = drawn
    curves = measure(records, arms, Vote("majority"))
    right, cost = (dict(zip([arm.name for arm in arms], part.mean(axis=0), strict=True))
                   for part in (curves.accuracy, curves.generated))  # fmt: skip
    assert right["majority-1@0"] < min(right["majority-1"], right["majority-2@60"])
    assert cost["majority-1@0"] < cost["majority-1"]
    assert cost["majority-2@60"] < 2 * cost["majority-1"]
    # the race pays for what it aborts, and less than for all
    assert 2 * cost["majority-1@0"] < cost["short_m_at_k-4-2"] < 4 * cost["majority-1"]


def test_limited_samples_count_as_samples():
    units = (Unit("sample"), Unit("think-512"), Unit("think-0"), Unit("short_m_at_k-4-2"), Unit("greedy"))
    features = dict(zip(Reading().names, Reading().features(Evidence("q", 1, units)), strict=True))
    assert (features["units.sample"], features["units.greedy"]) == (4, 1)


def test_kinds_are_strategies_with_their_options():
    assert request_of("think-512") == {"strategy": "weighted_best_of_n", "n": 1, "think_tokens": 512}
    assert request_of("short_m_at_k-8-3") == {"strategy": "short_m_at_k", "n": 8, "m": 3}


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
async def test_what_was_measured_is_offered_run_and_told(drawn):
    records, arms = drawn
    curves = measure(records, arms, Vote("majority"))
    columns = tuple(TableArm(arm.name, arm.strategy, arm.options, arm.kind, arm.units) for arm in arms)
    assert [arm.configured(Vote()).think_tokens for arm in columns] == [arm.think_tokens for arm in arms]
    right, cost = ((tuple(part.mean(axis=0)),) for part in (curves.accuracy, curves.generated))
    cells = Cells(right, right, right, right, cost, ((0.0,) * len(arms),))
    table = ComputeOptimalTable(columns, cells, (1.0,), (), Vote("majority"), problems=len(records))
    calibrated = Calibrated(table, None, TableGainModel(table), Opening("sample", False, 600, 0), {})
    kinds = set()
    async with Solver(FakePolicy.reasoning(error_rate=0.06, again=0.85), calibration=calibrated) as solver:
        for number, row in enumerate(ROWS[:5]):
            solution = await solver.solve(row["problem"], budget_tokens=1500, seed=number)
            assert solution.spent <= 1500
            done = [event.action for event in solution.trace.of(AllocationEvent) if event.action]
            kinds |= {action.split(" x ")[1] for action in done}
            assert all(action.split(" x ")[1] in solution.explain() for action in done)
            for one in solution.candidates:
                if one.prefix.finished and one.prefix.thought > 61:
                    assert one.prefix.waits == 0
            again = as_recorded(solution.trace, MATH)
            assert again.candidates == solution.candidates
    assert kinds & {"think-60", "short_m_at_k-4-2"}


async def test_a_policy_without_tags_is_not_offered_limited_thoughts():
    table = ComputeOptimalTable(
        (TableArm("majority-1", "majority", {"n": 1}, "sample", 1),
         TableArm("majority-2@60", "majority", {"n": 2, "think_tokens": 60}, "think-60", 2)),
        Cells(*[((0.2, 0.9),)] * 4, ((50.0, 60.0),), ((0.0, 0.0),)), (1.0,), (), Vote("majority"), problems=40,
    )  # fmt: skip
    calibrated = Calibrated(table, None, TableGainModel(table), Opening("sample", False, 200, 0), {})
    async with Solver(FakePolicy.generative(), calibration=calibrated) as solver:
        solution = await solver.solve("What is 17 + 25?", budget_tokens=1000)
    assert {event.action for event in solution.trace.of(AllocationEvent)} <= {"1 x sample", None}
