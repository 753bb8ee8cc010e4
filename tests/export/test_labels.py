"""Step labels by roll-outs: what they say, what they cost, that no budget is exceeded."""

import anyio
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.export.exporter import graded_problem
from adaptive_ttc.export.formats import to_label
from adaptive_ttc.export.labels import RolloutSettings, StepLabeller, beginning_of, check_goes_on
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

QUESTION = "Add 3 + 14 + 15 + 9 + 26 + 5."
ROW = {"problem": QUESTION, "answer": toy_answer(QUESTION), "unique_id": "sum"}


async def labelled(budget=None, n=12, **settings):
    """The labels of solutions, the solutions, what labelled them, and the tokens that this took the policy."""
    policy = FakePolicy.generative(error_rate=0.05)
    async with Solver(policy, FakePRM.truthful(toy_right_so_far), seed=0) as solver:
        solution = await solver.solve(QUESTION, id="sum", n=n)
        problem = await graded_problem(solver, ROW, solution)
        before = policy.completion_tokens
        labeller = StepLabeller(problem, solver.resources, RolloutSettings(**settings), budget)
        samples = to_label(problem, n)
        labels = [await labeller.labels(one, number) for number, one in enumerate(samples)]
    return labels, samples, labeller, policy.completion_tokens - before


def true_labels(steps):
    """Of the toy's steps, of which a wrong total spoils the rest; now and then a second error makes up for it."""
    right = [toy_right_so_far(QUESTION, steps[: number + 1]) for number in range(len(steps))]
    return [float(all(right[: number + 1])) for number in range(len(steps))]


def test_hard_labels_find_the_first_error_and_take_few_roll_outs():
    labels, samples, labeller, tokens = anyio.run(lambda: labelled(n=24))
    assert sum(not one.correct for one in samples) >= 5
    assert all(
        one == sorted(one, reverse=True) and one[-1] == sample.correct
        for one, sample in zip(labels, samples, strict=True)
    )
    pairs = [
        pair
        for one, sample in zip(labels, samples, strict=True)
        for pair in zip(one, true_labels(sample.steps), strict=True)
    ]
    assert all(found >= truth for found, truth in pairs)
    assert sum(found == truth for found, truth in pairs) > 0.9 * len(pairs)
    assert labeller.spent == tokens > 0
    assert labeller.tally.labelled == len(samples)
    assert labeller.tally.drawn < labeller.tally.exhaustive / 4


def test_trying_every_step_draws_all_roll_outs_of_every_step():
    labels, samples, labeller, _ = anyio.run(lambda: labelled(labels="every"))
    assert {share for one in labels for share in one} == {0.0, 1.0}
    assert labeller.tally.drawn == labeller.tally.exhaustive == 8 * sum(len(one.steps) - 1 for one in samples)


def test_soft_labels_are_shares_of_roll_outs():
    labels, samples, *_ = anyio.run(lambda: labelled(labels="soft", most=4, n=6))
    assert {share for one in labels for share in one} <= {0, 0.25, 0.5, 0.75, 1.0}
    assert [one[-1] for one in labels] == [float(one.correct) for one in samples]
    assert any(0 < share < 1 for one in labels for share in one)


@pytest.mark.parametrize("budget", [0, 1, 20, 60, 150, 400])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_no_budget_is_exceeded_and_what_it_does_not_cover_has_no_labels(budget, kind):
    labels, samples, labeller, tokens = anyio.run(lambda: labelled(budget, n=6, labels=kind))
    assert labeller.spent == tokens <= budget
    missing = sum(one is None for one in labels)
    assert labeller.tally.unpaid == missing
    assert missing + labeller.tally.labelled == len(samples)
    if kind == "hard":
        assert all(one for one, sample in zip(labels, samples, strict=True) if sample.correct)


def test_a_beginning_has_the_solutions_own_tokens():
    async def go():
        _, samples, *_ = await labelled(n=2)
        policy = FakePolicy.generative()
        for sample in samples:
            for number in range(1, len(sample.steps)):
                prefix = beginning_of(sample, number, policy)
                assert sample.token_ids[: len(prefix.token_ids)] == prefix.token_ids
                assert prefix.steps == sample.steps[:number]
                assert prefix.text.endswith("\n\n")

    anyio.run(go)


def test_impossible_settings_and_solutions_without_tokens_are_refused():
    for wrong in ({"most": 0}, {"temperature": 0.0}, {"labels": "outcome"}, {"max_tokens": 0}):
        with pytest.raises(ConfigError):
            RolloutSettings(**wrong)

    async def without_tokens():
        _, samples, *_ = await labelled(n=1)
        object.__setattr__(samples[0], "token_ids", ())
        beginning_of(samples[0], 1, FakePolicy.generative())

    with pytest.raises(ConfigError, match="without token ids"):
        anyio.run(without_tokens)


def test_no_roll_out_goes_on_from_what_a_second_policy_may_have_written():
    policy = FakePolicy.generative()
    check_goes_on(policy)
    with pytest.raises(ConfigError, match=r"either policy of .* may have written them"):
        check_goes_on(Cascade(policy, FakePolicy.generative(name="large")))
