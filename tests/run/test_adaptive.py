"""A budget on one problem: slices that evidence chose, each within what it was promised, all voted on together."""

import random
import warnings

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.errors import CalibrationError, CalibrationWarning, ConfigError, EngineError
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.estimate.gain import TableGainModel
from adaptive_ttc.estimate.pair_calibration import prior_of
from adaptive_ttc.estimate.table import Cells, ComputeOptimalTable, TableArm, Vote
from adaptive_ttc.events import AllocationEvent, ExpandEvent, SampledEvent, ScoredEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.request import Resources, make_request
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.tasks import Signal
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.types import Prefix, Problem, Stopped
from tests.doubles import TinyPolicy


def believer(**settings):
    def score(question, steps):
        return next((value for answer, value in (("{1}", 0.2), ("{2}", 0.9), ("{3}", 0.1)) if answer in steps[-1]), 0.5)

    return FakePRM(score, **settings)


def table(*arms, ballot=None):
    """One bin; arms are (strategy, n, kind, units, accuracy), a solution takes 20 tokens and as many of the PRM."""
    made = tuple(
        TableArm(
            f"{strategy}-{n}",
            strategy,
            {} if strategy == "greedy" else {"n": n, **({"beam_width": 4} if "-" in kind else {})},
            kind,
            units,
        )
        for strategy, n, kind, units, _ in arms
    )
    accuracy = (tuple(arm[-1] for arm in arms),)
    tokens = (tuple(20.0 * arm[1] for arm in arms),)
    return ComputeOptimalTable(
        arms=made,
        cells=Cells(accuracy, accuracy, accuracy, accuracy, tokens, tokens),
        share=(1.0,),
        edges=(),
        ballot=ballot or Vote("weighted", 0.5, "min"),
        problems=100,
        source="made up",
    )


GREEDY = ("greedy", 1, "greedy", 1, 0.4)
SAMPLES = [("weighted_best_of_n", n, "sample", n, 0.4 + 0.1 * k) for k, n in enumerate((2, 4, 8, 16))]


def calibrated(*arms, opening=None, ballot=None):
    made = table(GREEDY, *arms, ballot=ballot)
    return Calibrated(made, None, TableGainModel(made), opening or Opening("greedy", True, 40, 60), {})


def solve(budget, *, count="generated", policy=None, prm=True, calibration=None, seed=0, **arguments):
    prm = believer() if prm is True else prm
    calibration = calibration or calibrated(*SAMPLES)
    with Solver(policy or TinyPolicy(), prm, seed=seed, calibration=calibration) as solver:
        return solver.solve_sync("how much?", budget_tokens=budget, count=count, **arguments)


def slices(solution):
    return [(event.options["kind"], event.options["units"]) for event in searches(solution)]


def searches(solution):
    return [event for event in solution.trace.of(SearchEvent) if event.strategy == "slice"]


# ---- what is done ---------------------------------------------------------------------------------------------


def test_it_opens_then_samples_in_slices_that_grow_with_what_is_there_until_no_more_is_on_offer():
    solution = solve(100_000)
    assert slices(solution) == [("greedy", 1), *[("sample", units) for units in (4, 4, 6, 2)]]
    assert len(solution.candidates) == 17
    assert len({candidate.prefix.path for candidate in solution.candidates}) == 17
    assert solution.trace.of(ExpandEvent)[0].temperature == 0
    last = solution.trace.of(AllocationEvent)[-1]
    assert (last.action, last.why) == (None, "no further work is on offer, as none was measured")
    assert (solution.stopped, solution.confidence) == (Stopped.NO_OPTION_FITS, pytest.approx(0.7))


def test_all_slices_are_voted_on_together_with_the_pairs_own_vote():
    solution = solve(100_000, calibration=calibrated(*SAMPLES, ballot=Vote("best", 0.5, "min")))
    assert solution.vote == "best"
    assert solution.answer == "2"
    assert sum(one.votes for one in solution.answer_classes) == 17
    assert solution.scores == tuple(min(one.prefix.scores) for one in solution.candidates)
    assert isinstance(solution.strategy.config, Adaptive)
    asked = solve(100_000, vote="majority", agg_strategy="last")
    assert asked.vote == "majority"


def test_a_step_that_gains_nothing_by_itself_does_not_end_it():
    """The second sample gains nothing, the eighth much: one-step rules stay at one."""
    arms = [("weighted_best_of_n", 2, "sample", 2, 0.4), ("weighted_best_of_n", 8, "sample", 8, 0.9)]
    assert slices(solve(100_000, calibration=calibrated(*arms))) == [("greedy", 1), *[("sample", 4)] * 2]


def test_min_gain_ends_it_where_more_is_not_worth_its_price():
    free, dear = solve(100_000), solve(100_000, min_gain=1.0)
    assert len(slices(dear)) < len(slices(free))
    (last,) = dear.trace.of(AllocationEvent)[-1:]
    assert last.price == pytest.approx(1.0)
    assert [event for event in dear.trace.of(AllocationEvent)[1:-1] if event.price < 1.0] == []
    with pytest.raises(ConfigError, match="min_gain"):
        solve(100, strategy="majority", n=3, min_gain=1.0)


def test_the_first_steps_of_a_tree_are_its_first_round_and_evidence():
    tree = ("dvts", 4, "dvts-4", 1, 0.9)
    made = calibrated(tree, opening=Opening("greedy", True, 400, 400))
    solution = solve(100_000, calibration=made, policy=TinyPolicy(mean=40, step=2))
    assert slices(solution) == [("greedy", 1), ("dvts-4", 1)]
    asked = solution.trace.of(ExpandEvent)
    assert (asked[1].paths, asked[1].n, asked[1].stop, asked[1].score) == (((),) * 4, 1, ("\n\n",), True)
    roots = {event.path for event in solution.trace.of(SampledEvent) if len(event.path) == 1}
    assert len(roots) == 5
    assert {candidate.prefix.path[:1] for candidate in solution.candidates} <= roots


def test_a_budget_that_affords_no_search_begins_as_votes_where_these_were_better():
    opening = Opening("greedy", True, 40, 60, votes_generated=400)
    small, large = (solve(budget, calibration=calibrated(*SAMPLES, opening=opening)) for budget in (300, 600))
    assert slices(small)[0] == ("sample", 1)
    assert small.trace.of(AllocationEvent)[0].action == "1 x sample"
    assert slices(large)[0] == ("greedy", 1)
    assert small.spent <= 300


# ---- scoring --------------------------------------------------------------------------------------------------


def test_where_the_budget_is_small_the_opening_is_scored_only_with_the_first_slice_after_it():
    wish = {"count": "generated+prm", "calibration": calibrated(*SAMPLES, opening=Opening("greedy", True, 100, 280))}
    small, large = solve(450, **wish), solve(4000, **wish)
    first = small.candidates[0].prefix
    assert [event.options["vote"] for event in searches(small)][:2] == ["majority", "weighted"]
    assert searches(small)[1].start == (first.path,)
    order = [event for event in small.trace if type(event) in (SampledEvent, ScoredEvent)]
    of_first = [number for number, event in enumerate(order) if event.path == first.path]
    assert first.scores
    assert of_first[1] == of_first[0] + 1, "it is scored before anything new is drawn"
    assert searches(large)[0].options["vote"] == "weighted"
    assert searches(large)[1].start == ()
    assert small.spent <= 450


def test_what_cannot_be_paid_for_stays_unscored_and_in_hand():
    wish = {"count": "generated+prm", "calibration": calibrated(*SAMPLES, opening=Opening("greedy", True, 60, 1000))}
    for budget in range(40, 140, 7):
        solution = solve(budget, **wish)
        assert solution.spent <= budget
        assert len(solution.candidates) >= 1


def test_without_a_prm_only_whole_samples_are_drawn_and_counted_alike():
    arms = [*SAMPLES, ("dvts", 4, "dvts-4", 1, 0.99), ("beam_search", 16, "beam_search-16-4", 1, 0.99)]
    solution = solve(100_000, prm=None, calibration=calibrated(*arms))
    assert {kind for kind, _ in slices(solution)} == {"greedy", "sample"}
    assert solution.vote == "majority"


def test_a_solution_that_the_slice_cut_is_gone_on_with_and_handed_in_once():
    cut = solve(3000, policy=TinyPolicy(mean=60), calibration=calibrated(opening=Opening("greedy", False, 4, 0)))
    whole = solve(3000, policy=TinyPolicy(mean=60), calibration=calibrated(opening=Opening("greedy", False, 3000, 0)))
    assert {kind for kind, _ in slices(cut)} == {"greedy"}
    assert len(slices(cut)) > len(slices(whole)) == 1
    assert len({event.path for event in cut.trace.of(SampledEvent)}) == len(slices(cut))
    (candidate,) = cut.candidates
    assert candidate.prefix.finished
    assert len(candidate.prefix.path) == len(slices(cut))
    assert cut.spent == len(candidate.prefix.token_ids)


# ---- hard ends ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    budget=st.integers(1, 1200),
    count=st.sampled_from(["generated", "generated+prm", "flops"]),
    chaos=st.integers(0, 10_000),
    failure=st.sampled_from([0.0, 0.1]),
    tree=st.booleans(),
)
def test_never_over_budget_whatever_fails(budget, count, chaos, failure, tree):
    policy, prm = TinyPolicy(chaos=chaos, failure=failure, mean=30), believer(parameters=7)
    arms = [*SAMPLES, ("dvts", 4, "dvts-4", 1, 0.5), ("dvts", 8, "dvts-4", 2, 0.7)] if tree else SAMPLES
    units = budget if count != "flops" else 1000 + 20 * budget
    solver = Solver(policy, prm, calibration=calibrated(*arms))
    with solver:
        try:
            solution = solver.solve_sync("how much?", budget_tokens=units, count=count)
        except EngineError:
            return
    usage = solution.usage
    assert solution.spent <= units
    assert usage.completion_tokens == policy.delivered
    if count == "generated":
        assert solution.spent == usage.completion_tokens + usage.lost_tokens
    promised = [event.units for event in solution.trace.of(AllocationEvent)]
    assert all(one <= units for one in promised)
    assert search_tree(solution.trace).done is not None


@given(budget=st.integers(1, 900), chaos=st.integers(0, 1000))
@settings(max_examples=25)
def test_the_same_whatever_the_order_and_again_from_its_trace(budget, chaos):
    calm, wild = solve(budget, seed=5), solve(budget, policy=TinyPolicy(chaos=chaos), seed=5)
    assert (calm.answer, calm.candidates, calm.spent) == (wild.answer, wild.candidates, wild.spent)

    async def again():
        async with Solver(TinyPolicy(), believer(), calibration=calibrated(*SAMPLES)) as solver:
            return await retrace(wild.trace, solver.grader)

    assert anyio.run(again) == wild


async def test_a_failing_engine_fails_the_call_and_leaves_nothing_in_flight():
    policy = TinyPolicy(chaos=1, fatal=1.0)
    async with Solver(policy, believer(), calibration=calibrated(*SAMPLES)) as solver:
        with pytest.raises(EngineError, match="broken"):
            await solver.solve("how much?", budget_tokens=500)
    assert not policy.in_flight


async def test_a_stop_hands_in_what_there_is():
    async with Solver(TinyPolicy(chaos=2, mean=60), believer(), calibration=calibrated(*SAMPLES)) as solver:
        stream = solver.stream("how much?", budget_tokens=50_000)
        async for event in stream:
            if type(event) is AllocationEvent and not event.opening:
                stream.stop()
        solution = await stream.solution()
    assert 1 <= len(solution.candidates) <= 5
    assert solution.trace.of(AllocationEvent)[-1].why == "it was stopped"


async def test_cancelling_aborts_the_engine_and_settles():
    policy = TinyPolicy(chaos=3)
    policy.frozen = frozen = Everything()
    async with Solver(policy, believer(), calibration=calibrated(*SAMPLES)) as solver:
        stream = solver.stream("how much?", budget_tokens=500)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.solution)
                await policy.started.wait()
                scope.cancel()
        assert stream.final
    assert frozen
    assert policy.aborted
    assert not policy.in_flight
    assert stream.spent == policy.delivered


class Everything:
    """Holds every seed, so that every sample waits for its abort."""

    def __contains__(self, seed):
        return True


# ---- calibrations ---------------------------------------------------------------------------------------------


def test_a_pair_without_a_calibration_runs_on_the_prior_and_says_so_once():
    with Solver(TinyPolicy(), believer()) as solver:
        command = r"adaptive-ttc calibrate --policy tiny --prm fake-prm"
        with pytest.warns(CalibrationWarning, match=command) as told:
            first = solver.solve_sync("how much?", budget_tokens=300)
        assert len(told) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            solver.solve_sync("how many?", budget_tokens=300)
    assert first.answer is not None
    assert first.difficulty is None
    assert "probability" not in first.explain()
    assert "+0." not in first.explain(), "gains of the prior are no figures of this pair"


def test_the_prior_believes_in_agreement_and_counts_in_the_problems_own_lengths():
    prior = prior_of(2048, prm=True)
    rng = random.Random(0)
    evidence = {True: [], False: []}
    for agree in evidence:
        answers = ["7"] * 4 if agree else ["1", "2", "3", "4"]
        units = [Unit("sample", (Attempt(answer, (rng.random(),), 100),)) for answer in answers]
        evidence[agree] = Evidence("how much?", 5, tuple(units))
    sure, unsure = prior.gain.forecasts([evidence[True], evidence[False]])
    assert (sure.right, unsure.right) == (None, None), "nothing of the pair was measured"
    assert max(one.gain for one in sure.options) < max(one.gain for one in unsure.options) / 2
    (more,) = [one for one in sure.options if (one.action.kind, one.action.count) == ("sample", 4)]
    assert more.generated == pytest.approx(4 * (400 + 0.5 * 512) / 4.5), "the guess counts for half a sample"
    (nothing,) = prior.gain.forecasts([Evidence("how much?", 5)])
    assert {one.generated for one in nothing.options if str(one.action) == "1 x sample"} == {512}
    assert "dvts-4" in {one.action.kind for one in nothing.options}


def test_another_pairs_calibration_is_refused_unless_allowed():
    made = calibrated(*SAMPLES)
    foreign = Calibrated(
        made.table, None, made.gain, made.opening, {"fingerprints": {"policy": "other", "prm": "fake"}}
    )
    with pytest.raises(CalibrationError, match=r"another policy.*adaptive-ttc calibrate.*allow_mismatch"):
        Solver(TinyPolicy(), believer(), calibration=foreign)
    with (
        Solver(TinyPolicy(), believer(), calibration=foreign, allow_mismatch=True) as solver,
        pytest.warns(CalibrationWarning, match="may not hold here"),
    ):
        assert solver.solve_sync("how much?", budget_tokens=300).answer


def test_a_calibration_that_is_none_is_refused_at_once(tmp_path):
    with pytest.raises(CalibrationError, match="is no calibration"):
        Solver(TinyPolicy(), believer(), calibration=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beam_width": 4}, "belongs to a strategy"),
        ({"slice_size": 4}, "belongs to a strategy"),
        ({"budget_token": 4}, r"budget_token \(budget_tokens\?\) belongs to a strategy"),
        ({"temperature": 0}, "temperature above 0"),
        ({"vote": "loudest"}, "unknown vote"),
    ],
)
def test_options_of_a_strategy_need_one(options, words):
    with pytest.raises(ConfigError, match=words):
        solve(100, **options)


def test_it_explains_what_was_considered_and_why_it_stopped():
    text = solve(100_000).explain()
    assert "5 decisions, each by what the evidence then was:" in text
    assert "1: 1 x greedy to begin with" in text
    assert (
        "2: right with probability 0.40, 16 x sample, +0.300 for 320; 4 at once, at most 160 units now (3 others: "
        in text
    )
    assert "Right with probability 0.70, stopped: no further work is on offer, as none was measured." in text


@pytest.mark.parametrize("scores", [(), (0.5,)])
async def test_a_cut_solution_is_priced_with_its_prompt_where_it_was_scored_as_calibration_has_it(scores):
    resources = Resources(policy=TinyPolicy(), prm=believer())
    request = make_request(Problem.of("how much?"), resources, options={}, budget=1000)
    problem = AdaptiveProblem(request, resources, Ledger(1000), Signal())
    problem._candidates[(0,)] = Prefix(token_ids=(1,) * 10, text="half", scores=scores, finish="budget", path=(0,))
    problem._cut[(0,)] = "sample"
    (begun,) = problem.evidence.begun
    assert begun.generated == 10
    assert begun.prm == (problem.evidence.prompt_tokens + 10 if scores else 0)


async def test_a_first_step_that_could_not_be_read_is_read_later():
    class Failing(TinyPolicy):
        fails = True

        def decode(self, token_ids):
            if self.fails:
                raise EngineError("the tokenizer is not there", retryable=True)
            return super().decode(token_ids)

    policy = Failing()
    resources = Resources(policy=policy, prm=believer())
    request = make_request(Problem.of("how much?"), resources, options={}, budget=1000)
    problem = AdaptiveProblem(request, resources, Ledger(1000), Signal())
    text = "x\n\ny"
    problem._candidates[(0,)] = Prefix(token_ids=(1, 3, 3, 2), text=text, scores=(0.7, 0.2), finish="eos", path=(0,))
    problem._units.append(("sample", (0,)))
    await problem._compare_answers()
    assert problem.evidence.units[0].first_steps[0].tokens == 4
    policy.fails = False
    (unit,) = problem.evidence.units
    assert (unit.first_steps[0].score, unit.first_steps[0].tokens) == (0.7, 3)
    assert problem.evidence.units[0] is unit
