import subprocess
import sys

import anyio
import pytest

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.fake import EOS, FakePolicy, toy_answer, toy_numbers, toy_right_so_far
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import Problem

EASY, HARD = "What is 1 + 2?", "Add 91, 87, 78, 95, 83, 99, 76, 88 and 97."


def ask(policy, question=EASY, solution=(), **settings):
    prompt = policy.encode(Problem.of(question)) + tuple(solution)
    return SampleRequest(**{"id": "one", "prompt_ids": prompt, "max_tokens": 500, "seed": 1, **settings})


async def text_of(policy, **settings):
    return policy.decode((await policy.sample(ask(policy, **settings))).token_ids)


async def accuracy(policy, question, count=200, **settings):
    texts = [await text_of(policy, question=question, seed=seed, **settings) for seed in range(count)]
    return sum(f"\\boxed{{{toy_answer(question)}}}" in text for text in texts) / count


async def test_scripted_replies_come_in_order_and_then_run_dry():
    policy = FakePolicy.scripted({EASY: ["first", "second"]})
    assert [await text_of(policy), await text_of(policy)] == ["first", "second"]
    with pytest.raises(LookupError, match="no reply"):
        await text_of(policy)
    with pytest.raises(LookupError, match="other question"):
        await text_of(policy, question="Some other question?")


async def test_scripted_replies_by_seed_whatever_the_order():
    policy = FakePolicy.scripted({EASY: {7: "seven", 8: "eight"}})
    assert [await text_of(policy, seed=seed) for seed in (8, 7, 8)] == ["eight", "seven", "eight"]
    with pytest.raises(LookupError, match="seed 9"):
        await text_of(policy, seed=9)


async def test_scripted_replies_to_a_solution_so_far():
    policy = FakePolicy.scripted({EASY: ["step one\n\nstep two"], (EASY, "step one\n\n"): ["another way"]})
    first = await policy.sample(ask(policy, stop=("\n\n",)))
    assert (policy.decode(first.token_ids), first.finish) == ("step one\n\n", "stop")
    second = await policy.sample(ask(policy, solution=first.token_ids))
    assert (policy.decode(second.token_ids), second.finish) == ("another way", "eos")


async def test_a_cut_reply_goes_on_from_its_own_prefix():
    policy = FakePolicy.scripted({EASY: {1: "größer\n\nend", 2: "grau"}})
    tokens = {1: (), 2: ()}
    finishes = {1: [], 2: []}
    for _ in range(5):
        for seed in (2, 1):
            if "eos" not in finishes[seed]:
                part = await policy.sample(ask(policy, solution=tokens[seed], seed=seed, max_tokens=3))
                tokens[seed] += part.token_ids
                finishes[seed].append(part.finish)
    assert policy.decode(tokens[1]) == "größer\n\nend"
    assert policy.decode(tokens[2]) == "grau"
    assert tokens[2][-1] == EOS
    assert finishes[2] == ["length", "eos"]


async def test_the_toy_model_writes_steps_and_an_answer():
    policy = FakePolicy.generative(error_rate=0.0)
    text = await text_of(policy, question=HARD, seed=3)
    *steps, last = text.split("\n\n")
    assert len(steps) == len(toy_numbers(HARD)) - 1
    assert last == f"The answer is \\boxed{{{toy_answer(HARD)}}}."
    assert all(toy_right_so_far(HARD, tuple(steps[: k + 1])) for k in range(len(steps)))


async def test_the_toy_model_does_worse_on_harder_questions():
    policy = FakePolicy.generative()
    easy, hard = await accuracy(policy, EASY), await accuracy(policy, HARD)
    assert easy > 0.85
    assert 0.02 < hard < easy - 0.3
    assert await accuracy(policy, HARD, temperature=0.3) > hard + 0.2
    assert await accuracy(policy, HARD, count=5, temperature=0.0) == 1.0
    assert await accuracy(policy, HARD, count=40, top_p=0.5) == 1.0


async def test_the_toy_model_goes_on_from_a_step_that_another_seed_began():
    policy = FakePolicy.generative()
    for cut in range(1, 60):
        start = await policy.sample(ask(policy, question=HARD, max_tokens=cut, seed=1))
        rest = await policy.sample(ask(policy, question=HARD, solution=start.token_ids, seed=2))
        text = policy.decode(start.token_ids + rest.token_ids)
        assert rest.finish == "eos"
        assert len(text.split("\n\n")) == len(toy_numbers(HARD))
        assert "\\boxed{" in text.split("\n\n")[-1]


async def test_an_error_stays_in_the_total_and_can_be_checked():
    policy = FakePolicy.generative(error_rate=0.2)
    text = await text_of(policy, question=HARD, seed=1)
    *steps, last = text.split("\n\n")
    right = [toy_right_so_far(HARD, tuple(steps[: k + 1])) for k in range(len(steps))]
    assert not all(right)
    assert toy_answer(HARD) not in last


def test_a_question_without_numbers_has_an_answer_too():
    assert len(toy_numbers("How many?")) >= 3
    assert toy_answer("How many?") == toy_answer("How many?") != toy_answer("How few?")
    assert toy_answer("3 - 5 and -2") == str(3 + 5 - 2)


async def test_a_hold_decides_who_ends_first():
    policy = FakePolicy.generative()
    hold = policy.hold(lambda request: request.id == "held", after_tokens=4)
    order = []

    async def run(name):
        await policy.sample(ask(policy, id=name))
        order.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "held")
        await hold.arrived.wait()
        await run("other")
        assert [request.id for request in hold.waiting] == ["held"]
        hold.release()
    assert order == ["other", "held"]
    assert hold.waiting == ()
    await run("held")


async def test_an_abort_reaches_a_held_sample():
    policy = FakePolicy.generative(overrun=2)
    hold = policy.hold(after_tokens=4)
    got = []

    async def run(name):
        got.append(await policy.sample(ask(policy, id=name)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "a")
        tasks.start_soon(run, "b")
        await hold.arrived.wait()
        await policy.abort("a")
        assert [sampled.finish for sampled in got] == ["abort"]
        hold.release_one("b")
    assert [(sampled.finish, len(sampled.token_ids) == 4, sampled.discarded_tokens) for sampled in got] == [
        ("abort", True, 2),
        ("eos", False, 0),
    ]
    assert policy.aborted == ["a"]


async def test_failures_come_as_ordered_and_end():
    policy = FakePolicy.generative()
    policy.lose_connection(after_tokens=5)
    policy.fail(EngineError("broken"), matching=lambda request: request.seed == 9, times=2)
    with pytest.raises(EngineError, match="lost") as lost:
        await policy.sample(ask(policy))
    assert lost.value.retryable
    assert (await policy.sample(ask(policy))).finish == "eos"
    for _ in range(2):
        with pytest.raises(EngineError, match="broken") as broken:
            await policy.sample(ask(policy, seed=9))
        assert not broken.value.retryable
    assert (await policy.sample(ask(policy, seed=9))).finish == "eos"
    assert len(policy.requests) == 5
    assert policy.running == policy.in_flight == 0


async def test_slots_are_handed_on_by_priority_and_never_exceeded():
    policy = FakePolicy.generative(max_batch=2)
    hold = policy.hold(lambda request: request.id in ("0", "1"))
    order = []

    async def run(name, priority):
        await policy.sample(ask(policy, id=name, priority=priority))
        order.append(name)
        if len(order) == 4:
            hold.release()

    async with anyio.create_task_group() as tasks:
        for name, priority in (("0", 0), ("1", 0), ("2", 5), ("3", 1), ("4", 5)):
            tasks.start_soon(run, name, priority)
        await hold.arrived.wait()
        assert policy.in_flight == 5
        hold.release_one("0")
    assert order == ["0", "3", "2", "4", "1"]
    assert policy.max_running == 2
    assert policy.running == 0


async def test_it_counts_what_it_delivers():
    policy = FakePolicy.generative()
    first = await policy.sample(ask(policy, max_tokens=7))
    second = await policy.sample(ask(policy, solution=first.token_ids, max_tokens=5))
    assert policy.completion_tokens == 12
    assert (first.prompt_tokens, first.cached_tokens) == (len(policy.encode(Problem.of(EASY))), 0)
    assert (second.prompt_tokens, second.cached_tokens) == (1, first.prompt_tokens + 6)


async def test_cancellation_is_counted():
    policy = FakePolicy.generative()
    hold = policy.hold()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(policy.sample, ask(policy))
        await hold.arrived.wait()
        tasks.cancel_scope.cancel()
    assert policy.cancelled == 1
    assert policy.in_flight == policy.running == policy.completion_tokens == 0


def test_it_needs_no_torch():
    code = "import sys, adaptive_ttc.policies.fake; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
