"""Budgets allocated by published rules: no calibration, no warning, and explain() names rule and certificate."""

import warnings

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.features import Attempt, Evidence, Unit
from adaptive_ttc.estimate.rule_gain import RuleGainModel
from adaptive_ttc.events import AllocationEvent
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.base import Draw, Pool
from adaptive_ttc.stopping.registry import RULES, make_rule, parse_rule, told
from adaptive_ttc.strategies.adaptive import Adaptive
from adaptive_ttc.types import Stopped
from tests.doubles import TinyPolicy

AGREED, SPLIT = "what is agreed?", "what is split?"


def scripted():
    """One question with one answer, one with two that alternate; a reply is 19 tokens of a letter each, or 18."""
    return FakePolicy.scripted(
        {AGREED: ["so it is \\boxed{4}"] * 80, SPLIT: ["so it is \\boxed{1}", "so it is \\boxed{2}"] * 40}
    )


def state(*answers, tokens=20, question="q", scores=(), kind="sample"):
    return Evidence(question, 10, tuple(Unit(kind, (Attempt(one, scores, tokens),), (), tokens) for one in answers))


@pytest.mark.parametrize("name", RULES)
async def test_every_rule_solves_within_the_budget_without_a_calibration(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with Solver(TinyPolicy(), None, rule=name) as solver:
            solution = await solver.solve("how much is 1?", budget_tokens=400)
    assert solution.spent <= 400
    assert solution.answer
    assert solution.confidence is None, "the mode is no probability of being right"
    assert f"Allocated by the rule {name}" in solution.explain()
    actions = [event.action for event in solution.trace.of(AllocationEvent) if event.action]
    assert all(action.endswith(" x sample") for action in actions)


async def test_a_rule_ends_a_settled_problem_and_says_so():
    async with Solver(scripted(), rule="adaptive_consistency:level=0.8") as solver:
        solution = await solver.solve(AGREED, budget_tokens=2000)
    assert len(solution.candidates) == 2
    assert solution.stopped is Stopped.SETTLED
    assert "by the rule adaptive_consistency (level 0.8), which asks for no more" in solution.explain()


@pytest.mark.parametrize(("rule", "samples"), [("martingale", 7), ("cite", 8)])
async def test_a_certificate_is_explained_and_does_not_claim_to_be_right(rule, samples):
    async with Solver(scripted(), rule=rule) as solver:
        solution = await solver.solve(AGREED, budget_tokens=2000)
        undecided = await solver.solve(SPLIT, budget_tokens=700)
    assert len(solution.candidates) == samples
    assert "4: mode certified at 95 %; correctness not verified" in solution.explain()
    assert "certified" not in undecided.explain()
    assert undecided.stopped is not Stopped.SETTLED
    assert undecided.spent <= 700


async def test_esc_draws_whole_windows():
    async with Solver(scripted(), rule="esc:window=3") as solver:
        solution = await solver.solve(AGREED, budget_tokens=2000)
    actions = [event.action for event in solution.trace.of(AllocationEvent) if event.action]
    assert actions == ["1 x sample", "2 x sample"]


@pytest.mark.parametrize("rule", ["adaptive_consistency", "blend_asc", "least_settled", "pets", "uniform"])
async def test_one_budget_goes_to_the_problem_of_the_largest_worth(rule):
    async with Solver(scripted(), rule=rule) as solver:
        agreed, split = await solver.solve_many([AGREED, SPLIT], budget_tokens=600, max_concurrency=1)
    counts = len(agreed.candidates), len(split.candidates)
    assert agreed.spent + split.spent <= 600
    assert sum(counts) > 12
    if rule == "uniform":
        assert abs(counts[0] - counts[1]) <= 2
    else:
        assert counts[1] > counts[0] + 2


def test_gain_per_token_is_the_worth():
    rule = make_rule("adaptive_consistency")
    model = RuleGainModel(rule, guess=50.0)
    states = [state("a", "b", tokens=10, question="1"), state("a", "b", "a", tokens=90, question="2")]
    for one, forecast in zip(states, model.forecasts(states), strict=True):
        (option,) = forecast.options
        draws = [Draw(unit.attempts[0].answer, 20) for unit in one.units]
        assert option.gain / option.cost == pytest.approx(rule.worth(draws))
        assert forecast.right is None
    (empty,) = model.forecasts([Evidence("3", 10)])
    assert empty.right == 0


def test_a_rule_with_a_most_draws_no_sample_more():
    model = RuleGainModel(parse_rule("uniform:most=100"), guess=50.0)
    counts = [model.forecasts([state(*"ab" * half)])[0].options[0].action.count for half in (24, 48, 49)]
    assert counts == [3, 4, 2]


def test_lengths_are_shrunk_to_those_of_the_pool():
    model = RuleGainModel(make_rule("uniform"), guess=100.0).pool(Adaptive(), lambda tokens: Pool())
    first = model.forecasts([state("a", tokens=10)])[0].options[0].cost
    for k in range(50):
        model.forecasts([state("a", tokens=10, question=f"q{k}")])
    later = model.forecasts([state("a", tokens=10)])[0].options[0].cost
    assert first > 2 * later > 20
    long = model.forecasts([state(*"abcdefgh", tokens=500, question="long")])[0].options[0].cost
    assert 350 < long < 500


def test_scores_are_the_weights_of_a_weighted_vote_alone():
    rule = make_rule("adaptive_consistency", level=0.8)
    mixed = state("a", scores=(0.9,)).plus(*state("b", scores=(0.1,)).units)
    weighted = RuleGainModel(rule, 20.0).pool(Adaptive(vote="weighted"), lambda tokens: Pool())
    even = RuleGainModel(rule, 20.0).pool(Adaptive(vote="majority"), lambda tokens: Pool())
    assert even.forecasts([mixed])[0].options[0].gain > 0
    assert weighted.forecasts([mixed])[0].options[0].gain == 0, "1.8 votes of 2"


def test_votes_of_a_rule_weigh_what_the_vote_counts_them_for():
    seen = []

    class Watching(type(make_rule("uniform"))):
        def worth(self, draws, pool=None):
            seen.append([draw.weight for draw in draws])
            return 1.0

    scored = state("a", scores=(0.2,)).plus(*state("b", scores=(0.4,)).units)
    zero = state("a", "b", scores=(0.0,))
    squared = RuleGainModel(Watching(), 20.0).pool(Adaptive(vote="weighted", vote_power=2.0))
    squared.forecasts([scored, zero])
    assert seen[0] == pytest.approx([0.4, 1.6]), "their mean is one vote"
    assert seen[1][0] == seen[1][1] > 0
    RuleGainModel(Watching(), 20.0).pool(Adaptive(vote="best")).forecasts([scored])
    assert seen[2] == [1.0, 1.0]


def test_weights_by_which_is_certified_do_not_depend_on_other_samples():
    seen = []

    class Watching(type(make_rule("cite"))):
        def worth(self, draws, pool=None):
            seen.append([draw.weight for draw in draws])
            return 1.0

    for weighted in (True, False):
        model = RuleGainModel(Watching(weighted=weighted), 20.0).pool(Adaptive(vote="weighted"), lambda tokens: Pool())
        model.forecasts([state("a", scores=(0.4,)), state("a", scores=(0.4,)).plus(*state("b", scores=(0.2,)).units)])
    assert seen[0] == [0.8]
    assert seen[1] == [0.8, 0.4]
    assert seen[2] == [1.0]
    assert seen[3] == pytest.approx([4 / 3, 2 / 3])


def test_only_samples_are_seen():
    (forecast,) = RuleGainModel(make_rule("martingale"), 20.0).forecasts([state(*"a" * 9, kind="greedy")])
    assert forecast.options[0].gain > 0
    assert "certified" not in forecast.note


async def test_the_pool_is_told_to_rules():
    seen = []

    class Watching:
        name = "watching"

        def worth(self, draws, pool=None):
            seen.append(pool)
            return 1.0 / (1 + len(draws))

        def samples(self, draws):
            return 1

        def right(self, draws):
            return None

        def certificate(self, draws):
            return None

    async with Solver(scripted(), FakePRM(lambda question, steps: 0.5), rule=Watching()) as solver:
        await solver.solve_many([AGREED, SPLIT], budget_tokens=300, max_concurrency=1)
    lefts = [pool.left for pool in seen]
    assert lefts[0] == 1
    assert min(lefts) < 0.6
    assert {pool.problems for pool in seen[:2]} <= {1, 2}
    assert seen[0].samples > seen[-1].samples > 0


def test_rules_are_named_and_refused_in_words():
    assert parse_rule("esc:window=8,most=40") == make_rule("esc", window=8, most=40)
    assert told(parse_rule("cite:weighted=true,level=0.99")) == "cite (level 0.99, cap 2, weighted)"
    assert told(make_rule("uniform")) == "uniform"
    for text, message in (("esc:window", "NAME=VALUE"), ("esc:window=x", "no number"), ("guess", "choose one of")):
        with pytest.raises(ConfigError, match=message):
            Solver(TinyPolicy(), rule=text)
    with pytest.raises(ConfigError, match="the rule or the calibration"):
        Solver.mini(rule="esc", calibration="there")
