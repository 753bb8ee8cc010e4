"""Adaptive runs with a second policy: it is asked where a calibration says so, on the same budget and for one vote."""

import anyio
import pytest

from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import CheckpointError, ConfigError
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.estimate.gain import Action, Forecast, Option
from adaptive_ttc.events import RequestEvent, SearchEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.run.adaptive_problem import AdaptiveProblem
from adaptive_ttc.run.checkpointed import CheckpointedProblem
from adaptive_ttc.run.request import Resources, make_request
from adaptive_ttc.run.retrace import retrace
from adaptive_ttc.solver import Solver
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import Problem, Stopped
from adaptive_ttc.wrappers import WrappedPolicy
from tests.doubles import Shifted, TinyPolicy, virtually
from tests.run.test_adaptive import believer, calibrated, slices
from tests.run.test_checkpoint import Watched

QUESTIONS = [f"how much is {number}?" for number in range(6)]
BUDGET = 6000
SECOND = [("greedy", 4, "second:greedy", 1, 0.6), ("weighted_best_of_n", 16, "second:sample", 4, 0.9)]
MIXED = [("weighted_best_of_n", 4, "sample", 4, 0.5), *SECOND]
TREES = [*MIXED, ("dvts", 16, "second:dvts-4", 1, 0.95)]


def cascade(first=None, weight=None, **of_second):
    return Cascade(first or TinyPolicy(), Shifted(**of_second), weight)


def solver(policy=None, *, arms=SECOND, prm=True, opening=None, **rest):
    return Solver(
        policy or cascade(), believer() if prm else None, calibration=calibrated(*arms, opening=opening), seed=0, **rest
    )


def by_second(solution):
    """Paths of the second policy's samples: its tokens are its own."""
    return {event.path for event in solution.trace.of(RequestEvent) if event.token_ids and min(event.token_ids) >= 50}


# ---- one problem ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prm", [True, False])
@pytest.mark.parametrize("arm", SECOND, ids=["greedy", "sample"])
async def test_the_second_policy_is_asked_after_the_opening_and_all_vote_together(arm, prm):
    policy, units = cascade(), arm[3]
    async with solver(policy, arms=[arm], prm=prm) as one:
        solution = await one.solve("how much?", budget_tokens=100_000)
        again = await retrace(solution.trace, one.grader)
    assert slices(solution) == [("greedy", 1), (arm[2], units)]
    assert len(solution.candidates) == sum(one.votes for one in solution.answer_classes) == 1 + units
    assert by_second(solution) == {(number + 1,) for number in range(units)}
    assert solution.spent == policy.first.delivered + 4 * policy.second.inner.delivered
    assert solution.usage.second_tokens > policy.second.inner.delivered
    assert again == solution
    assert again.usage.second_tokens == solution.usage.second_tokens
    assert arm[2] in solution.explain()


async def test_the_weight_is_what_the_calibration_prices_and_evidence_counts():
    policy, prm = cascade(weight=3.0), believer()
    resources = Resources(policy=policy, prm=prm)
    request = make_request(Problem.of("how much?"), resources, options={}, budget=5000)
    problem = AdaptiveProblem(request, resources, Ledger(5000), Signal())
    account = Ledger(5000)
    await problem.advance(Action("greedy", 1), account, opening=True)
    before = account.spent
    other = Ledger(5000)
    await problem.advance(Action("second:sample", 2), other)
    first, *second = problem.evidence.units
    assert (first.kind, first.generated) == ("greedy", before)
    assert [one.kind for one in second] == ["second:sample"] * 2
    assert sum(one.generated for one in second) == other.spent
    assert all(one.first_steps[0].tokens <= one.attempts[0].tokens for one in second)
    await resources.grader.aclose()


@pytest.mark.parametrize("count", ["generated", "generated+prm", "flops"])
@pytest.mark.parametrize("factor", [1, 2, 3, 5, 9, 20])
async def test_a_tight_budget_is_never_overspent(count, factor):
    budget = {"generated": 40, "generated+prm": 200, "flops": 2000}[count] * factor
    async with solver(arms=TREES) as one:
        solution = await one.solve("how much?", budget_tokens=budget, count=count)
        assert (await retrace(solution.trace, one.grader)).answer == solution.answer
    assert solution.spent <= budget
    assert solution.answer is not None or budget < 200


async def test_a_named_strategy_is_the_first_policys_alone():
    policy = cascade()
    async with solver(policy) as one:
        named = await one.solve("how much?", strategy="majority", n=4)
        several = await one.solve("how much?", n=4)
    assert len(named.candidates) == len(several.candidates) == 4
    assert not policy.second.inner.requests
    assert named.usage.second_tokens == 0
    assert named.trace.of(SearchEvent)[0].strategy == "majority"


async def test_the_prompt_of_the_second_is_charged_once():
    policy = cascade()
    many = ("weighted_best_of_n", 64, "second:sample", 16, 0.95)
    async with solver(policy, arms=[*SECOND[1:], many], prm=False) as one:
        solution = await one.solve("how much?", budget_tokens=10_000_000, count="flops")
    assert len(slices(solution)) > 2
    prompt = len("how much?")
    assert all(kind.startswith("second:") for kind, _ in slices(solution)[1:])
    by_hand = 20 * (policy.first.delivered + prompt) + 80 * (policy.second.inner.delivered + prompt + 1)
    assert solution.spent == by_hand


async def test_a_stop_recalls_the_calls_of_the_second():
    policy = cascade()
    policy.second.inner.frozen = Everything()
    stop = anyio.Event()
    async with solver(policy) as one, anyio.create_task_group() as tasks:

        async def when_it_is_asked():
            await policy.second.inner.started.wait()
            stop.set()

        tasks.start_soon(when_it_is_asked)
        solution = await one.solve("how much?", budget_tokens=5000, stop=stop)
    assert policy.second.inner.aborted
    assert not policy.second.inner.in_flight
    assert solution.stopped is Stopped.STOPPED
    assert solution.answer is not None, "the first policy had one"
    assert solution.spent == policy.first.delivered + 4 * policy.second.inner.delivered


@virtually
async def test_a_deadline_recalls_them_too():
    policy = cascade()
    policy.second.inner.frozen = Everything()
    async with solver(policy) as one:
        solution = await one.solve("how much?", budget_tokens=5000, deadline=5.0)
    assert solution.stopped is Stopped.DEADLINE
    assert policy.second.inner.aborted


class Everything:
    def __contains__(self, seed):
        return True


# ---- what is not scored yet ------------------------------------------------------------------------------------


async def test_the_second_has_what_the_first_left_unscored_scored():
    async with solver(opening=Opening("greedy", False, 40, 60)) as one:
        solution = await one.solve("how much?", budget_tokens=100_000)
    assert all(candidate.prefix.scores for candidate in solution.candidates)
    assert slices(solution) == [("greedy", 1), ("second:sample", 4)]


class WholeSecond(WrappedPolicy):
    whole_samples = True


async def test_a_slice_of_the_second_is_offered_what_its_scores_take_too():
    """Else it is begun on units that pay for no sample with its score, draws nothing, and ends the problem."""
    second, prm = WholeSecond(Shifted()), believer()
    resources = Resources(policy=Cascade(TinyPolicy(), second, 1.0), prm=prm)
    request = make_request(
        Problem.of("how much?"), resources, options={"max_tokens": 100}, budget=10_000, count="generated+prm"
    )
    problem = AdaptiveProblem(request, resources, Ledger(10_000), Signal())
    assert problem.least(1, "second:greedy") >= 100 + 2 * 100 > 100
    renewable = Resources(policy=Cascade(TinyPolicy(), Shifted(), 1.0), prm=prm)
    problem = AdaptiveProblem(request, renewable, Ledger(10_000), Signal())
    assert problem.least(1, "second:greedy") == problem.least(1, "greedy") > 16
    await resources.grader.aclose()
    await renewable.grader.aclose()


async def test_whole_samples_of_the_second_are_drawn_in_one_request_each():
    second = WholeSecond(Shifted())
    async with solver(Cascade(TinyPolicy(), second), arms=TREES) as one:
        solution = await one.solve("how much?", budget_tokens=4000, max_tokens=100)
    paths = [event.path for event in solution.trace.of(RequestEvent) if event.path in by_second(solution)]
    assert paths
    assert len(paths) == len(set(paths))
    assert not any("second:dvts" in kind for kind, _ in slices(solution))


# ---- faults ---------------------------------------------------------------------------------------------------


async def test_the_second_has_a_health_of_its_own_but_for_the_prm_and_losses():
    config = DriverConfig()
    second = config.second_health(first := config.health())
    assert second.policy is not first.policy
    assert second.samples is not first.samples
    assert (second.prm, second.losses, second.scores) == (first.prm, first.losses, first.scores)
    assert second.prm is first.prm


# ---- what is refused -------------------------------------------------------------------------------------------


def test_without_a_calibration_of_both_a_second_policy_is_refused_with_the_command_that_makes_one():
    remedy = r"adaptive-ttc calibrate --policy tiny --second large --prm fake-prm"
    for rest in ({}, {"rule": "esc"}):
        with pytest.raises(ConfigError, match=remedy + r"\)"):
            Solver(cascade(), believer(), **rest)
    with solver(cascade(weight=7.0)) as one, pytest.raises(ConfigError, match=r"its weight 7 is another price"):
        one.solve_sync(QUESTIONS[0], budget_tokens=BUDGET, count="flops")
    with pytest.raises(ConfigError, match=r"--second-weight 7"):
        Solver(cascade(weight=7.0), believer())
    unknown = Shifted()
    unknown.parameters = 0
    with pytest.raises(ConfigError, match=r"--second-weight 1"):
        Solver(Cascade(TinyPolicy(), unknown, 1.0), believer())


@pytest.mark.parametrize("allowed", [False, True])
def test_a_calibration_of_the_first_alone_is_another_policys(allowed):
    alone = calibrated()
    made = Calibrated(
        alone.table, None, alone.gain, alone.opening,
        {"fingerprints": {"policy": "tiny", "prm": believer().fingerprint}, "models": {"policy": "tiny"}},
    )  # fmt: skip
    if not allowed:
        with pytest.raises(Exception, match=r"another policy.*--policy tiny --second large"):
            Solver(cascade(), believer(), calibration=made)
        return
    with (
        Solver(cascade(), believer(), calibration=made, allow_mismatch=True) as one,
        pytest.warns(UserWarning, match="--second large"),
    ):
        one.solve_sync("how much?", budget_tokens=100)


def test_a_calibration_made_with_another_weight_is_a_mismatch():
    both = calibrated(*SECOND)
    fingerprints = {"policy": cascade().fingerprint, "prm": believer().fingerprint, "second_weight": "4.0"}
    made = Calibrated(both.table, None, both.gain, both.opening, {"fingerprints": fingerprints, "models": {}})
    Solver(cascade(), believer(), calibration=made).close()
    with pytest.raises(Exception, match=r"second_weight=4, and here it is 5.*--second-weight 5"):
        Solver(cascade(weight=5.0), believer(), calibration=made)


async def test_limits_of_thinking_are_refused_where_the_second_has_no_tags():
    class Tagged(TinyPolicy):
        thinking = FakePolicy.reasoning().thinking

    async with solver(cascade(Tagged())) as one:
        with pytest.raises(ConfigError, match="large does not say how it marks its thoughts"):
            await one.solve("how much?", budget_tokens=500, think_tokens=10)


def test_a_problem_too_long_for_the_second_is_refused_at_once():
    with solver(cascade(max_context=5)) as one, pytest.raises(ConfigError, match="context of large is 5"):
        one.stream("how much?", budget_tokens=500)


# ---- many problems, and checkpoints ----------------------------------------------------------------------------


async def many(file, policy=None, *, arms=MIXED, budget=BUDGET, **asked):
    async with solver(policy, arms=arms) as one:
        pool = one.solve_many(QUESTIONS, budget_tokens=budget, checkpoint=file, **asked)
        return await pool, pool


@pytest.mark.parametrize("count", ["generated", "flops"])
async def test_a_finished_pool_is_the_same_again_and_asks_neither_policy(tmp_path, count):
    budget = BUDGET * (3000 if count == "flops" else 1)
    first, pool = await many(tmp_path / "run.db", budget=budget, count=count)
    assert any(one.usage.second_tokens for one in first)
    policy = cascade()
    again, other = await many(tmp_path / "run.db", policy, budget=budget, count=count)
    assert again == first
    assert (other.spent, other.usage) == (pool.spent, pool.usage)
    assert [one.usage.flops for one in again] == [one.usage.flops for one in first]
    assert not policy.first.requests
    assert not policy.second.inner.requests


@pytest.mark.parametrize("count", ["generated", "generated+prm", "flops"])
@pytest.mark.parametrize("after", [2, 7, 15])
async def test_a_killed_pool_goes_on_within_its_budget(tmp_path, count, after):
    budget = BUDGET * {"generated": 1, "generated+prm": 4, "flops": 3000}[count]
    policy = cascade()
    policy.second.inner.__class__ = Watched
    policy.second.inner.file, policy.second.inner.after, policy.second.inner.copied = tmp_path / "run.db", after, False
    await many(tmp_path / "run.db", policy, arms=TREES, budget=budget, count=count, max_concurrency=3)
    assert policy.second.inner.copied
    found, pool = await many(
        tmp_path / "left.db", cascade(chaos=5), arms=TREES, budget=budget, count=count, max_concurrency=3
    )
    assert all(one.answer is not None for one in found)
    assert sum(one.spent for one in found) == pool.spent <= budget
    for solution in found:
        paths = [one.prefix.path for one in solution.candidates]
        assert len(paths) == len(set(paths))
    again, _ = await many(tmp_path / "left.db", arms=TREES, budget=budget, count=count, max_concurrency=3)
    assert again == found


async def test_a_resumed_problem_is_as_if_it_had_never_been_interrupted(tmp_path, monkeypatch):
    states, advance = [], CheckpointedProblem.advance

    async def watched(problem, todo, account, *, opening=False):
        moved = await advance(problem, todo, account, opening=opening)
        again = CheckpointedProblem(
            problem._file, problem._number, problem.request, resources, problem._ledger, Signal()
        )
        await again.go_on_from(problem._file.enter(problem._number, problem.request.problem))
        states.append(todo.kind)
        assert again.evidence == problem.evidence
        assert again.usage == problem.usage
        assert again.spent == problem.spent
        for ours, theirs in (
            (problem._driver, again._driver),
            (problem._second.driver, again._second.driver),
        ):
            one, other = ours._account, theirs._account
            assert (one.lengths, one.solved, one.scores) == (other.lengths, other.solved, other.scores)
            assert one.numbering._given == other.numbering._given
            assert ours.prompt_paid == theirs.prompt_paid
            assert {path: policy.name for path, policy in ours._writers.items()} == {
                path: policy.name for path, policy in theirs._writers.items()
            }
        return moved

    monkeypatch.setattr(CheckpointedProblem, "advance", watched)
    async with solver(cascade(TinyPolicy(chaos=3, failure=0.03), chaos=4), arms=TREES) as one:
        resources = one.resources
        await one.solve_many(QUESTIONS, budget_tokens=40_000_000, count="flops", checkpoint=tmp_path / "run.db")
    assert {kind.partition(":")[0] for kind in states} >= {"greedy", "second"}


async def test_a_checkpoint_of_another_weight_is_of_another_call(tmp_path):
    await many(tmp_path / "run.db")
    with pytest.raises(CheckpointError, match=r"second_weight was 4\.0, is 6\.0"):
        await many(tmp_path / "run.db", cascade(weight=6.0))


async def test_statistics_count_the_calls_of_both():
    policy = cascade()
    async with solver(policy) as one:
        await one.solve("how much?", budget_tokens=5000)
        told = one.statistics().policy
    assert told.tokens == policy.first.delivered + policy.second.inner.delivered


async def test_the_units_of_the_prompt_are_in_what_a_first_slice_of_the_second_is_offered_at():
    resources, asked = Resources(policy=cascade(), prm=None), {"budget": 10_000_000, "count": "flops"}
    request = make_request(Problem.of("how much?"), resources, options={}, **asked)
    problem = AdaptiveProblem(request, resources, Ledger(10_000_000), Signal())
    problem.forecast = Forecast(0.5, tuple(Option(Action(kind, 2), 100.0, 0.1, 200, at_once=2) for kind in KINDS))
    prompt = 80 * (len("how much?") + 1)
    first, second = problem.options()
    assert (first.prompt, first.cost) == (0, 100)
    assert (second.prompt, second.cost) == (prompt, 100 + prompt)
    assert second.slice_cost == prompt + 80 * 16, "no less than begins it"
    await problem.advance(Action("second:sample", 1), Ledger(1_000_000))
    assert problem.options()[1].prompt == 0
    await resources.grader.aclose()


KINDS = ("sample", "second:sample")
