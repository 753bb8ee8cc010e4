"""Thoughts that the driver ends at a limit, or prolongs: what is written, charged, kept for answers, and replayed."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc import Solver
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.thinking import ThinkingTags
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import RequestEvent, SampledEvent, WrittenEvent
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.policies.fake.writers import CLOSE, OPEN
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.retrace import as_recorded
from tests.doubles import in_virtual_time

QUESTION = "What is 17 + 25 + 31 + 46?"

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


def solve(policy, prm=None, question=QUESTION, **options):
    async def run():
        async with Solver(policy, prm) as solver:
            return await solver.solve(question, **{"seed": 1, **options})

    return in_virtual_time(run)


def scripted(*replies, **settings):
    """Tags that are ordinary text, a token a character."""
    tags = ThinkingTags(
        opening=tuple(b"<think>"), closing=tuple(b"</think>"), forced=tuple(b"\n</think>\n\n"),
        texts=("<think>", "</think>"), wait=tuple(b"Wait"),
    )  # fmt: skip
    return FakePolicy.scripted({"q": list(replies)}, thinking=tags, **settings)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 20, 45, 512, None])
def test_no_thought_is_longer_than_its_limit_and_all_answer(begun, limit):
    policy = FakePolicy.reasoning(begun=begun, again=0.8)
    solution = solve(policy, n=6, think_tokens=limit)
    for one in solution.candidates:
        assert one.prefix.finished
        assert one.answer is not None
        assert one.prefix.answer_text.startswith("The answer is")
        assert one.prefix.token_ids.count(CLOSE) == 1
        written = [event for event in solution.trace.of(WrittenEvent) if event.path == one.prefix.path]
        if limit is not None:
            assert one.prefix.thought - sum(len(event.token_ids) for event in written) <= limit
        if limit == 0:
            assert [event.token_ids for event in written] == [(CLOSE,) if begun else (OPEN, CLOSE)]
    assert solution.usage.completion_tokens == policy.completion_tokens == solution.spent
    drawn = sum(len(event.token_ids) for event in solution.trace.of(RequestEvent))
    assert drawn == policy.completion_tokens
    if limit is not None:
        assert solution.usage.thinking_tokens <= 6 * limit


def test_more_thinking_is_right_more_often():
    def right(limit):
        asked = [f"What is {a} + {2 * a + 3} + 31 + {a + 40}?" for a in range(8)]
        found = [solve(FakePolicy.reasoning(), question=one, n=3, think_tokens=limit) for one in asked]
        return sum(one.answer == str(3 * a + 3 + 31 + a + 40) for a, one in enumerate(found))

    assert right(0) < right(48) < right(100)


def test_what_is_written_counts_in_the_solution_and_not_in_what_is_charged():
    solution = solve(FakePolicy.reasoning(again=0.8), n=4, think_tokens=30, max_tokens=64)
    for one in solution.candidates:
        assert len(one.prefix.token_ids) <= 64
        assert len(one.prefix.logprobs) == len(one.prefix.token_ids)
        assert one.prefix.answer_logprob == 0.0
        assert one.prefix.logprob == pytest.approx(sum(one.prefix.logprobs))
    assert solution.spent == sum(len(event.token_ids) for event in solution.trace.of(RequestEvent))
    assert sum(len(one.prefix.token_ids) for one in solution.candidates) == solution.spent + len(
        solution.trace.of(WrittenEvent)
    )


def test_room_for_the_answer_is_kept_within_max_tokens_and_the_budget():
    narrow = solve(FakePolicy.reasoning(again=0.9), n=2, think_tokens=512, max_tokens=120)
    assert [one.answer is not None for one in narrow.candidates] == [True, True]
    assert all(one.prefix.thought <= 91 for one in narrow.candidates)
    for budget in range(60, 400, 17):
        tight = solve(FakePolicy.reasoning(again=0.9), n=2, think_tokens=512, max_tokens=200, budget_tokens=budget)
        assert tight.spent <= budget
        assert tight.candidates[0].prefix.finished
        assert tight.answer is not None


@pytest.mark.parametrize("options", [{"n": 1}, {"n": 3}, {"strategy": "greedy"}, {}])
def test_a_budget_is_not_spent_on_a_thought_alone(options):
    policy = FakePolicy.reasoning(again=0.95)
    for seed in range(6):
        solution = solve(policy, budget_tokens=300, seed=seed, **options)
        assert solution.spent <= 300
        assert solution.answer is not None
        policy = FakePolicy.reasoning(again=0.95)


def test_a_part_of_the_budget_ends_no_thought_while_there_is_more():
    policy = FakePolicy.reasoning(again=0.9)
    solution = solve(policy, budget_tokens=20_000, max_tokens=1500)
    assert not solution.trace.of(WrittenEvent)


@pytest.mark.parametrize("options", [{"think_tokens": 30}, {"waits": 3}, {"think_tokens": 0}])
def test_what_is_written_leaves_the_rest_of_a_budget_in_flops_to_be_drawn(options):
    token = 2 * FakePolicy.reasoning().parameters
    for tokens in range(120, 300, 20):
        for seed in range(3):
            solution = solve(
                FakePolicy.reasoning(begun=True), n=2, budget_tokens=tokens * token, count="flops", seed=seed, **options
            )
            assert solution.answer is not None
            left = (solution.budget - solution.spent) // token
            assert left == 0 or not any(one.prefix.finish == "budget" for one in solution.candidates)


@pytest.mark.parametrize("options", [{"think_tokens": 44}, {"budget_tokens": 100}, {"budget_tokens": 130}])
def test_a_thought_that_may_not_go_on_for_long_still_answers(options):
    for seed in range(20):
        solution = solve(FakePolicy.reasoning(again=0.5), seed=seed, n=1, waits=2, max_tokens=400, **options)
        (one,) = solution.candidates
        assert one.prefix.finish == "eos"
        assert one.answer is not None


def test_a_thought_as_long_as_it_may_be_does_not_go_on():
    plain = solve(FakePolicy.reasoning(again=0.0), n=1)
    length = plain.candidates[0].prefix.thought
    solution = solve(FakePolicy.reasoning(again=0.0), n=1, waits=1, think_tokens=length)
    assert [one.prefix.text for one in solution.candidates] == [one.prefix.text for one in plain.candidates]
    assert solution.candidates[0].prefix.waits == 0


def test_tags_that_are_ordinary_text_are_written_as_text():
    answer = "so \\boxed{2}"
    policy = scripted("<think>" + "x" * 50, answer)
    policy._writer._by_seed = {}
    policy._writer._by_order[("q", "<think>" + "x" * 13 + "\n</think>\n\n")] = [answer]
    solution = solve(policy, question="q", n=1, think_tokens=20)
    (one,) = solution.candidates
    assert one.prefix.text == "<think>" + "x" * 13 + "\n</think>\n\n" + answer
    assert one.prefix.answer_text == "\n\n" + answer
    assert solution.answer == "2"


def test_a_policy_that_does_not_think_is_left_alone():
    tags = FakePolicy.reasoning().thinking
    plain = solve(FakePolicy.generative(thinking=tags), n=4)
    limited = solve(FakePolicy.generative(thinking=tags), n=4, think_tokens=16)
    assert [one.prefix.text for one in limited.candidates] == [one.prefix.text for one in plain.candidates]
    assert not limited.trace.of(WrittenEvent)


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
def test_a_step_search_ends_thoughts_too(strategy):
    prm = FakePRM.truthful(toy_right_so_far)
    solution = solve(FakePolicy.reasoning(again=0.5), prm, strategy=strategy, n=4, beam_width=2, think_tokens=30)
    assert solution.answer is not None
    assert solution.trace.of(WrittenEvent)
    assert all(one.prefix.thought <= 31 for one in solution.candidates)


@pytest.mark.parametrize("options", [{"n": 4}, {"budget_tokens": 900}, {"n": 5, "budget_tokens": 600}])
@pytest.mark.parametrize("more", [{"think_tokens": 40}, {"waits": 2}, {"waits": 1, "min_think_tokens": 150}])
def test_a_trace_is_solved_again_without_an_engine(options, more):
    solution = solve(FakePolicy.reasoning(), **options, **more)
    assert solution.trace.of(WrittenEvent)
    again = as_recorded(solution.trace, MATH)
    assert again.candidates == solution.candidates
    assert again.answer == solution.answer


def test_a_thought_is_made_to_go_on():
    plain = solve(FakePolicy.reasoning(again=0.0), n=3)
    policy = FakePolicy.reasoning(again=0.0)
    solution = solve(policy, n=3, waits=2)
    for one, short in zip(solution.candidates, plain.candidates, strict=True):
        assert one.prefix.text.count("Wait, let me check.") == one.prefix.waits == 2
        assert one.prefix.text.startswith(short.prefix.text[: short.prefix.answer_at])
        assert one.prefix.token_ids.count(CLOSE) == 1
        assert len(one.prefix.logprobs) == len(one.prefix.token_ids)
        assert one.prefix.finished
        # two closing tags were drawn and thrown away, and "Wait" was written twice
        tokens = sum(event.tokens for event in solution.trace.of(SampledEvent) if event.path == one.prefix.path)
        drawn = [event for event in solution.trace.of(RequestEvent) if event.path == one.prefix.path]
        assert sum(len(event.token_ids) for event in drawn) == tokens + 2 - 2 * len("Wait")
    assert solution.spent == policy.completion_tokens
    # nothing beyond the tag was drawn before it was thrown away
    ended = [event.token_ids for event in solution.trace.of(RequestEvent) if event.finish == "stop"]
    assert [ids.index(CLOSE) for ids in ended] == [len(ids) - 1 for ids in ended]
    assert len(ended) == 6


def test_only_short_thoughts_go_on():
    lengths = [one.prefix.thought for one in solve(FakePolicy.reasoning(again=0.6), n=6).candidates]
    least = sorted(lengths)[3]
    solution = solve(FakePolicy.reasoning(again=0.6), n=6, waits=1, min_think_tokens=least)
    assert [one.prefix.waits for one in solution.candidates] == [int(length < least) for length in lengths]


def test_tags_that_are_ordinary_text_go_on_too():
    policy = scripted("<think>a</think>\\boxed{1}")
    policy._writer._by_order[("q", "<think>aWait")] = [" b</think>\\boxed{2}"]
    solution = solve(policy, question="q", n=1, waits=1)
    assert solution.candidates[0].prefix.text == "<think>aWait b</think>\\boxed{2}"
    assert solution.answer == "2"


def test_an_engine_that_does_not_stop_at_the_tag_is_cut_back():
    class Deaf(FakePolicy):
        async def sample(self, request):
            return await super().sample(replace(request, stop_ids=()))

    heard, deaf = FakePolicy.reasoning(again=0.0), Deaf.reasoning(again=0.0)
    expected, solution = solve(heard, n=3, waits=1), solve(deaf, n=3, waits=1)
    assert [one.prefix.text for one in solution.candidates] == [one.prefix.text for one in expected.candidates]
    assert solution.spent == deaf.completion_tokens > expected.spent


@given(seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_no_budget_is_overrun_whatever_is_asked(seed):
    rng = random.Random(seed)
    policy = FakePolicy.reasoning(
        begun=rng.random() < 0.5, again=rng.choice([0.2, 0.8]), max_context=rng.choice([90, 200, 4096]),
        turn_tokens=rng.choice([1, 7, 16]),
    )  # fmt: skip
    options = {"think_tokens": rng.choice([None, 0, 5, 40, 300]), "max_tokens": rng.choice([12, 50, 150, 600])}
    if rng.random() < 0.5:
        options["waits"] = rng.choice([1, 3])
    options |= rng.choice([
        {"n": rng.randint(1, 6)}, {}, {"strategy": "greedy"}, {"strategy": "beam_search", "n": 4, "beam_width": 2},
        {"strategy": "dvts", "n": 4, "beam_width": 2}, {"n": 5, "slice_size": 2, "strategy": "majority"},
    ])  # fmt: skip
    count = rng.choice(["generated", "generated+prm", "flops"])
    prm = FakePRM.truthful(toy_right_so_far) if "strategy" in options or rng.random() < 0.3 else None
    least = (300_000 if prm is None else 600_000) if count == "flops" else 200
    solution = solve(policy, prm, budget_tokens=rng.randint(least, 9 * least), count=count, seed=seed, **options)
    assert solution.spent <= solution.budget
    assert solution.usage.completion_tokens == policy.completion_tokens
    assert 0 <= solution.usage.thinking_tokens <= solution.usage.completion_tokens
    limit = options["think_tokens"]
    for one in solution.candidates:
        assert len(one.prefix.token_ids) <= options["max_tokens"]
        assert len(one.prefix.logprobs) == len(one.prefix.token_ids)
        if limit is not None and not options.get("waits"):
            assert one.prefix.thought <= limit + 2
        if one.prefix.answer_at is None:
            assert one.answer is None
    if not options.get("waits"):
        assert all(CLOSE in event.token_ids for event in solution.trace.of(WrittenEvent))
    assert as_recorded(solution.trace, MATH).candidates == solution.candidates


@pytest.mark.parametrize("option", [{"think_tokens": 5}, {"think_tokens": 0}, {"waits": 1}])
def test_a_policy_without_tags_is_refused(option):
    with pytest.raises(ConfigError, match=r"does not say how it marks its thoughts.*thinking=\('<think>'"):
        solve(FakePolicy.generative(), n=2, **option)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"think_tokens": -1}, "think_tokens is a whole number"),
        ({"think_tokens": 1.5}, "think_tokens is a whole number"),
        ({"waits": None}, "waits is a whole number"),
        ({"min_think_tokens": 10}, "waits=2"),
        ({"min_think_tokens": 10, "waits": 1, "think_tokens": 5}, "is above think_tokens"),
    ],
)
def test_impossible_limits_are_refused(options, said):
    if options == {"waits": None}:
        options = {"waits": True}
    with pytest.raises(ConfigError, match=said):
        solve(FakePolicy.reasoning(), n=2, **options)


def test_a_policy_that_knows_no_word_to_go_on_is_refused():
    tags = ThinkingTags(opening=(OPEN,), closing=(CLOSE,), forced=(CLOSE,))
    with pytest.raises(ConfigError, match="no word"):
        solve(FakePolicy.generative(thinking=tags), n=2, waits=1)


def test_the_explanation_tells_how_long_it_thought():
    said = solve(FakePolicy.reasoning(again=0.8), n=4, think_tokens=30).explain()
    assert "at most 2,048 tokens each, 30 of them for thinking, 4 thoughts ended." in said
    assert "of them thinking" in said
    said = solve(FakePolicy.reasoning(again=0.0), n=2, waits=1).explain()
    assert "thoughts made to go on 1 time at most, 2 prolonged." in said
    assert "think" not in solve(FakePolicy.generative(), n=2).explain()


def test_an_engine_that_tells_no_log_probabilities_has_none_of_what_is_written():
    class Silent(FakePolicy):
        async def sample(self, request):
            return replace(await super().sample(request), logprobs=())

    solution = solve(Silent.reasoning(), n=2, think_tokens=0)
    assert [one.prefix.logprobs for one in solution.candidates] == [(), ()]


def test_no_thought_is_prolonged_into_the_room_of_its_answer():
    prolonged = 0
    for most in range(40, 240, 20):
        options = {"strategy": "majority", "n": 4, "max_tokens": most, "min_think_tokens": most, "waits": 8}
        for event in solve(FakePolicy.reasoning(), **options).trace.of(WrittenEvent):
            if "too short" in event.why:
                prolonged += 1
                assert event.position <= most - min(256, most // 4)
    assert prolonged > 10
