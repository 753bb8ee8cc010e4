import asyncio
from collections import Counter
from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc import loading
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.state import derive_seed
from adaptive_ttc.errors import CalibrationError, ConfigError, EngineError
from adaptive_ttc.events import AllocationEvent, RequestEvent, RunEvent, VoteEvent
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.confidence import ConfidencePRM
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Majority
from adaptive_ttc.types import Problem
from tests.doubles import EOS, TinyPolicy, virtually

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

# The policy's answers are 1, 2 and 3; this PRM believes in 2.
BELIEF = {"\\boxed{1}": 0.2, "\\boxed{2}": 0.9, "\\boxed{3}": 0.1}


def believer(**settings):
    def score(question, steps):
        return next((value for answer, value in BELIEF.items() if answer in steps[-1]), 0.5)

    return FakePRM(score, **settings)


def solve(problem="how much?", prm=True, policy=None, seed=0, **arguments):
    policy = policy or TinyPolicy()
    with Solver(policy, believer() if prm is True else prm, seed=seed) as solver:
        return solver.solve_sync(problem, **arguments)


class Never(TinyPolicy):
    """No engine may be called."""

    async def sample(self, request):
        raise AssertionError("the engine was called")


# ---- what comes back ------------------------------------------------------------------------------------------


def test_a_solution_holds_answer_candidates_usage_strategy_and_trace():
    policy = TinyPolicy()
    solution = solve(policy=policy, strategy="weighted_best_of_n", n=16, budget_tokens=40_000)
    assert len(solution.candidates) == solution.strategy.n == solution.effective_n == 16
    assert solution.strategy.name == "weighted_best_of_n"
    assert solution.answer == "2" == solution.answer_classes[0].answer
    assert sum(one.votes for one in solution.answer_classes) == 16
    assert sum(one.weight for one in solution.answer_classes) == pytest.approx(1)
    assert all(
        score == candidate.prefix.scores[-1]
        for score, candidate in zip(solution.scores, solution.candidates, strict=True)
    )
    assert solution.usage.completion_tokens == policy.delivered == solution.spent <= 40_000
    assert solution.usage.num_calls == len(policy.requests) == 16
    assert 0 <= solution.usage.wall_time < 60
    assert solution.abstained is solution.difficulty is None
    (vote,) = solution.trace.of(VoteEvent)
    assert (vote.method, vote.answer, vote.classes) == ("weighted", "2", solution.answer_classes)
    times = [event.time for event in solution.trace]
    assert times == sorted(times)
    assert times[0] < 60


def test_another_vote_over_the_same_candidates_is_free():
    winners = set()
    for seed in range(10):
        solution = solve(strategy="best_of_n", n=9, seed=seed)
        votes = {vote: solution.select_with(vote) for vote in ("majority", "best", "weighted", "logit_weighted")}
        assert solution.answer == votes["best"] == "2"
        held = Counter(candidate.answer for candidate in solution.candidates)
        assert held[votes["majority"]] == max(held.values())
        winners.add(votes["majority"])
    assert len(winners) > 1


def test_step_scores_are_reduced_as_asked():
    last, least = (
        solve(strategy="best_of_n", n=4, agg_strategy=how, policy=TinyPolicy(mean=60)) for how in ("last", "min")
    )
    assert last.scores == tuple(candidate.prefix.scores[-1] for candidate in last.candidates)
    assert least.scores == tuple(min(candidate.prefix.scores) for candidate in least.candidates)
    assert last.scores != least.scores


def test_a_solution_explains_itself():
    text = solve(strategy="weighted_best_of_n", n=8, budget_tokens=150).explain()
    assert "weighted_best_of_n: " in text
    assert "of 8 planned" in text or "8 candidates" in text
    assert "150 generated tokens allowed" in text
    assert "The answer is 2: the scores of its candidates have the largest sum." in text


def test_a_solution_is_one_short_line_in_a_shell():
    whole = solve(strategy="weighted_best_of_n", n=8, budget_tokens=150, id="q7")
    assert repr(whole) == (
        f"Solution(problem='q7', answer='2', strategy='weighted_best_of_n', spent={whole.spent} of 150, "
        "stopped='budget')"
    )
    none = solve(strategy="majority", n=4, budget_tokens=3, policy=TinyPolicy(mean=1000))
    assert repr(none).startswith(
        f"Solution(problem='{none.problem.id}', answer=None, strategy='majority', spent=3 of 3"
    )
    assert "abstained='none of 1 candida" in repr(none)
    long = "a\n\x1b" * 100
    for one in (
        replace(whole, answer=long, problem=Problem.of(long, id=long)),
        replace(none, problem=Problem.of(long, id=long), error=EngineError(long)),
    ):
        assert len(repr(one)) <= 200
        assert repr(one).isprintable()
    assert "error='a" in repr(one)


def test_chat_messages_and_ids():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "how much?"}]
    solution = solve(messages, strategy="greedy", id="q7")
    assert solution.problem.id == "q7"
    assert solution.problem.question == "how much?"
    (request,) = solution.trace.of(RequestEvent)
    assert request.seed == derive_seed(0, "q7", (0,))


def test_without_a_seed_engines_are_not_bound_to_one():
    def asked(**arguments):
        policy = TinyPolicy()
        solution = solve(strategy="majority", n=3, policy=policy, **arguments)
        return [(one.seed, one.seeded) for one in policy.requests], solution.trace.last(RunEvent).seed

    free, run = asked(seed=None)
    assert run is None
    assert not any(seeded for _, seeded in free)
    bound, run = asked(seed=0)
    assert run == 0
    assert bound == [(seed, True) for seed, _ in free]


@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")
@pytest.mark.parametrize(
    ("prm", "config", "request_", "wanted"),
    [
        (None, None, {"strategy": "majority", "n": 2}, False),
        (FakePRM(lambda question, steps: 0.5), None, {"strategy": "weighted_best_of_n", "n": 2}, False),
        (None, None, {"budget_tokens": 500}, True),
        (ConfidencePRM(), None, {"strategy": "weighted_best_of_n", "n": 2}, True),
        (None, DriverConfig(logprobs=True), {"strategy": "majority", "n": 2}, True),
        (None, DriverConfig(logprobs=False), {"budget_tokens": 500}, False),
    ],
)
def test_log_probabilities_are_asked_for_where_they_are_read(prm, config, request_, wanted):
    policy = TinyPolicy()
    with Solver(policy, prm, config=config) as solver:
        solver.solve_sync("how much?", **request_)
    assert {one.logprobs for one in policy.requests} == {wanted}


@pytest.mark.parametrize("strategy", [Majority(n=3), "majority"])
def test_strategies_by_name_or_configured(strategy):
    options = {} if isinstance(strategy, Majority) else {"n": 3}
    assert solve(strategy=strategy, **options).strategy.config == Majority(n=3)


# ---- nobody knows ---------------------------------------------------------------------------------------------


def test_without_an_answer_the_solution_abstains_and_says_why():
    """Traps 4 and 5: a cut text without an answer has no vote, and no answers form no class."""
    solution = solve(strategy="majority", n=4, budget_tokens=3, policy=TinyPolicy(mean=1000))
    assert solution.answer is None
    assert solution.answer_classes == ()
    assert solution.effective_n == 0
    assert solution.candidates
    assert "cut by the budget" in solution.abstained
    assert solution.select_with("majority") is None
    assert solution.explain().endswith(f"No answer: {solution.abstained}")


def test_candidates_without_an_answer_do_not_outvote_one_with():
    frozen = TinyPolicy(mean=300)
    solution = solve(strategy="majority", n=12, max_tokens=100, policy=frozen)
    without = sum(candidate.answer is None for candidate in solution.candidates)
    assert without > 12 - without > 0
    assert solution.answer is not None
    assert sum(one.votes for one in solution.answer_classes) == solution.effective_n == 12 - without


def test_a_truncated_text_that_holds_an_answer_votes():
    """Trap 4."""
    whole = solve(strategy="majority", n=1)
    length = len(whole.candidates[0].prefix.token_ids)
    cut = solve(strategy="majority", n=1, budget_tokens=length - 1)
    assert cut.candidates[0].prefix.finish == "budget"
    assert EOS not in cut.candidates[0].prefix.token_ids
    assert cut.answer == whole.answer is not None


def test_equal_samples_keep_their_votes():
    """Trap 2: independent samples that happen to be equal are not copies."""

    class Same(TinyPolicy):
        def next_token(self, request, before):
            return EOS if before[-1] == 4 else 4

    solution = solve(strategy="majority", n=5, policy=Same(), prm=None)
    assert solution.effective_n == solution.answer_classes[0].votes == 5


def test_unscored_candidates_do_not_vote_where_scores_count_unless_nobody_is_scored():
    policy = TinyPolicy(mean=40)
    some = solve(strategy="weighted_best_of_n", n=8, prm=believer(max_context=60), policy=policy)
    assert None in some.scores
    assert some.vote == "weighted"
    assert sum(one.votes for one in some.answer_classes) == sum(score is not None for score in some.scores)
    none = solve(strategy="weighted_best_of_n", n=8, prm=believer(max_context=15), policy=TinyPolicy(mean=40))
    assert set(none.scores) == {None}
    assert none.vote == "majority"
    assert "no candidate with an answer is scored" in none.explain()


# ---- a budget and nothing else --------------------------------------------------------------------------------


@pytest.mark.parametrize("prm", [True, None])
def test_with_no_strategy_named_evidence_decides(prm):
    solution = solve(prm=prm, budget_tokens=2000)
    assert solution.strategy.name == "adaptive"
    assert solution.vote == ("weighted" if prm else "majority")
    assert solution.spent <= 2000
    decided = solution.trace.of(AllocationEvent)
    assert [event.opening for event in decided] == [True, *[False] * (len(decided) - 1)]
    assert decided[0].action == "1 x sample"
    assert decided[-1].action is None
    assert decided[-1].why
    assert len(solution.candidates) > 4
    finished = sum(candidate.prefix.finished for candidate in solution.candidates)
    assert finished >= 0.8 * len(solution.candidates)


def test_an_ample_budget_ends_where_nothing_is_known_to_bring_more():
    solution = solve(budget_tokens=10**9, prm=None, policy=TinyPolicy(mean=3))
    assert len(solution.candidates) < 500


def test_n_without_a_strategy_is_that_many():
    assert solve(n=5).strategy.config.n == 5


@settings(max_examples=25)
@given(
    budget=st.integers(1, 700),
    strategy=st.sampled_from([None, "greedy", "majority", "best_of_n", "weighted_best_of_n"]),
    chaos=st.integers(0, 1000),
)
def test_never_over_budget_and_the_same_whatever_the_order(budget, strategy, chaos):
    options = {} if strategy in (None, "greedy") else {"n": 9}
    policies = TinyPolicy(), TinyPolicy(chaos=chaos)
    calm, wild = (
        solve(policy=policy, strategy=strategy, budget_tokens=budget, seed=3, **options) for policy in policies
    )
    assert calm.usage.completion_tokens == policies[0].delivered <= budget
    assert (calm.answer, calm.candidates, calm.spent) == (wild.answer, wild.candidates, wild.spent)


@pytest.mark.parametrize("count", ["generated+prm", "flops"])
def test_other_things_that_a_budget_may_bound(count):
    policy, prm = TinyPolicy(), believer(parameters=7)
    budget = {"generated+prm": 3000, "flops": 60_000}[count]
    with Solver(policy, prm) as solver:
        solution = solver.solve_sync(
            "how much?", budget_tokens=budget, count=count, strategy="weighted_best_of_n", n=100
        )
    prompt = len(policy.encode(solution.problem))
    charged = {
        "generated+prm": policy.delivered + prm.prm_tokens,
        "flops": 2 * policy.parameters * (policy.delivered + prompt) + 2 * prm.parameters * prm.prm_tokens,
    }[count]
    assert solution.spent == charged <= budget
    assert charged > 0.8 * budget
    assert solution.answer == "2"


# ---- wrong from the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"problem": "  ", "n": 1}, "the problem is empty"),
        ({"problem": [], "n": 1}, "the problem is empty"),
        ({}, "give budget_tokens, n, or a strategy"),
        ({"budget_tokens": 0}, "does not pay for one token: give at least 1"),
        ({"budget_tokens": -5}, "does not pay for one token"),
        ({"budget_tokens": 10.5}, "whole number"),
        ({"budget_tokens": True}, "whole number"),
        ({"budget_tokens": 100, "seed": "x"}, "seed is a whole number; got 'x'"),
        ({"budget_tokens": 100, "min_gain": -1.0}, "min_gain is a gain per 1,000 units of at least 0; got -1.0"),
        ({"budget_tokens": 100, "min_gain": float("nan")}, "min_gain is a gain per 1,000 units of at least 0; got nan"),
        ({"budget_tokens": 10, "count": "tokens"}, "generated, generated[+]prm, flops"),
        ({"budget_tokens": 100, "count": "flops"}, "does not pay for one token"),
        ({"strategy": "beam"}, "unknown strategy 'beam'; choose one of greedy"),
        ({"strategy": "majority", "n": 6, "beam_width": 4}, "has no beam_width; leave it out"),
        ({"n": 6, "beam_width": 4}, "has no beam_width; leave it out"),
        ({"strategy": "majority", "n": 0}, "n is a whole number"),
        ({"strategy": "majority", "temperature": -1}, "temperature is at least 0"),
        ({"strategy": "majority", "width": 4}, "majority has no option width"),
        ({"strategy": Majority(n=2), "n": 4}, "set n in the configured strategy"),
        ({"strategy": "best_of_n", "prm": None}, "needs a PRM"),
        ({"strategy": "majority", "vote": "weighted", "prm": None}, "needs a PRM"),
        ({"n": 2, "prm": believer(max_context=5)}, "too long|its context"),
        ({"n": 2, "deadline": -1}, "deadline is a number of seconds"),
        ({"problem": "x" * 50, "n": 1, "policy": Never(max_context=50)}, "shorten the problem"),
    ],
)
def test_impossible_requests_are_refused_before_any_engine_is_called(arguments, words):
    settings = {"policy": Never(), **arguments}
    with pytest.raises(ConfigError, match=words):
        solve(**settings)


@pytest.mark.parametrize(
    ("policy", "prm", "words"),
    [
        (
            None,
            lambda problem, steps: 0.5,
            "is no PRM: it has no name, fingerprint, parameters, count_tokens, score, aclo",
        ),
        (None, FakePRM, "is no PRM: it is a class: give an object of it"),
        (believer(), None, "is no policy: it has no encode, decode, sample, abort"),
    ],
)
def test_what_is_no_model_is_refused(policy, prm, words):
    with pytest.raises(ConfigError, match=words):
        Solver(policy or TinyPolicy(), prm)


def test_methods_that_are_not_async_are_refused_where_they_are_called():
    prm = believer()
    prm.score = lambda request: 0.5
    with pytest.raises(EngineError, match="is not async: write it as async def score"):
        solve(strategy="best_of_n", n=2, prm=prm)


@virtually
async def test_a_script_that_has_ended_fails_at_once():
    policy = FakePolicy.scripted({"When?": ["\\boxed{1}"]})
    async with Solver(policy) as solver:
        with pytest.raises(EngineError, match=r"no reply \(left\) to 'When\?'"):
            await solver.solve("When?", strategy="majority", n=3)
    assert anyio.current_time() < 1.0


# ---- failing, stopping, cancelling ----------------------------------------------------------------------------


def test_an_engine_failure_is_raised_as_itself():
    with pytest.raises(EngineError, match="broken"):
        solve(policy=TinyPolicy(chaos=1, fatal=1.0), n=4)


async def test_stopping_returns_the_best_so_far():
    stop, policy = anyio.Event(), TinyPolicy()
    problem = "how much?"
    async with Solver(policy) as solver:
        calm = await solver.solve(problem, n=4)
        policy.frozen.add(derive_seed(0, calm.problem.id, (2,)))
        solutions = []

        async def run():
            solutions.append(await solver.solve(problem, n=4, stop=stop))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            while not (len(policy.requests) == 8 and len(policy.in_flight) == 1):
                await anyio.lowlevel.checkpoint()
            stop.set()
    (solution,) = solutions
    ends = [candidate.prefix.finish for candidate in solution.candidates]
    assert ends.count("eos") == 3
    assert solution.answer is not None
    assert solution.usage.completion_tokens == solution.spent


async def test_a_deadline_stops_a_run_that_would_not_end():
    policy = TinyPolicy()
    async with Solver(policy) as solver:
        problem_id = (await solver.solve("how much?", n=1)).problem.id
        policy.frozen.update(derive_seed(0, problem_id, (index,)) for index in range(3))
        solution = await solver.solve("how much?", n=3, deadline=0.01)
    assert solution.answer is None
    assert "the deadline came" in solution.abstained


async def test_a_deadline_leaves_the_callers_own_event_alone():
    policy, shared = TinyPolicy(), anyio.Event()
    async with Solver(policy) as solver:
        problem_id = (await solver.solve("how much?", n=1)).problem.id
        policy.frozen.update(derive_seed(0, problem_id, (index,)) for index in range(3))
        await solver.solve("how much?", n=3, deadline=0.01, stop=shared)
        assert not shared.is_set()
        policy.frozen.clear()
        assert len((await solver.solve("how much?", n=3, stop=shared)).candidates) == 3


async def test_an_event_that_is_set_already_stops_before_the_first_request():
    policy, stop = TinyPolicy(), anyio.Event()
    stop.set()
    async with Solver(policy) as solver:
        solution = await solver.solve("how much?", n=3, stop=stop)
    assert (solution.answer, solution.spent, policy.requests) == (None, 0, [])


async def test_cancelling_a_solve_counts_and_goes_on():
    policy = TinyPolicy()
    async with Solver(policy) as solver:
        first = await solver.solve("how much?", n=2)
        policy.frozen.add(derive_seed(0, first.problem.id, (1,)))
        task = asyncio.create_task(solver.solve("how much?", n=2))
        while not (len(policy.requests) == 4 and len(policy.in_flight) == 1):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not policy.in_flight
        assert len(policy.aborted) == 1
        policy.frozen.clear()
        assert (await solver.solve("how much?", n=2)).candidates == first.candidates


async def test_many_solves_run_at_once_and_do_not_disturb_each_other():
    policy = TinyPolicy(chaos=5)
    async with Solver(policy, believer()) as solver:
        alone = [await solver.solve(f"problem {i}", n=3) for i in range(5)]
        policy.max_in_flight, together = 0, [None] * 5

        async def run(i):
            together[i] = await solver.solve(f"problem {i}", n=3)

        async with anyio.create_task_group() as tasks:
            for i in range(5):
                tasks.start_soon(run, i)
    assert policy.max_in_flight == 15
    assert [one.candidates for one in together] == [one.candidates for one in alone]


# ---- without an event loop, and closing -----------------------------------------------------------------------


def test_solve_sync_runs_in_one_event_loop_however_often_it_is_called():
    loops = set()

    class Bound(TinyPolicy):
        async def sample(self, request):
            loops.add(asyncio.get_running_loop())
            return await super().sample(request)

    with Solver(Bound()) as solver:
        first, second = solver.solve_sync("how much?", n=2), solver.solve_sync("how much?", n=2)
    assert first.candidates == second.candidates
    assert len(loops) == 1


async def test_solve_sync_in_a_running_loop_names_the_remedy():
    solver = Solver(TinyPolicy())
    with pytest.raises(ConfigError, match=r"await solver\.solve"):
        solver.solve_sync("how much?", n=1)
    with pytest.raises(ConfigError, match=r"await solver\.aclose"):
        solver.close()
    await solver.aclose()


async def test_closing_closes_all_even_when_one_fails():
    class Broken(TinyPolicy):
        async def aclose(self):
            raise EngineError("cannot close")

    prm = believer()
    solver = Solver(Broken(), prm)
    with pytest.raises(EngineError, match="cannot close"):
        await solver.aclose()
    assert prm.closed


# ---- loading by name ------------------------------------------------------------------------------------------


class EntryPoint:
    name = "tiny"

    def __init__(self, load):
        self.load = load


class Loader:
    @staticmethod
    def from_pretrained(path, **settings):
        return TinyPolicy(**settings)


def test_policies_are_found_through_their_entry_point(monkeypatch):
    monkeypatch.setattr(loading, "entry_points", lambda group: [EntryPoint(lambda: Loader)])
    solver = Solver.load("folder", engine="tiny", policy_settings={"mean": 7}, seed=5)
    assert (solver.policy.mean, solver.prm, solver.seed) == (7, None, 5)
    with pytest.raises(ConfigError, match="unknown policy engine 'vllm'; installed are tiny"):
        Solver.load("folder", engine="vllm")


def test_an_engine_that_cannot_be_imported_is_named(monkeypatch):
    def load():
        raise ImportError("no torch here")

    monkeypatch.setattr(loading, "entry_points", lambda group: [EntryPoint(load)])
    with pytest.raises(ConfigError, match="'tiny' cannot be imported: no torch here"):
        Solver.load("folder", engine="tiny")


# ---- loading that fails ---------------------------------------------------------------------------------------


class Closing:
    """A model that knows whether it was closed."""

    def __init__(self, model, error=None):
        self.model, self.error, self.closed = model, error, False

    def __getattr__(self, name):
        return getattr(self.model, name)

    async def aclose(self):
        self.closed = True
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [None, RuntimeError("it cannot be closed either")])
@pytest.mark.parametrize("fails", ["policy", "calibration"])
async def test_what_was_loaded_is_closed_when_the_rest_fails_also_where_a_loop_runs(
    monkeypatch, tmp_path, fails, error
):
    prm, policy = Closing(believer(), error), Closing(TinyPolicy())

    def load_policy(*arguments, **settings):
        if fails == "policy":
            raise ConfigError("there is no such model")
        return policy

    monkeypatch.setattr("adaptive_ttc.prm.load_prm", lambda *arguments, **settings: prm)
    monkeypatch.setattr("adaptive_ttc.configuration.models.load_policy", load_policy)
    with pytest.raises((ConfigError, CalibrationError), match=r"no such model|no calibration"):
        Solver.load("policy", "prm", calibration=None if fails == "policy" else tmp_path)
    assert prm.closed
    assert policy.closed == (fails == "calibration")
