"""Prompts that show earlier attempts: which tokens stand in them, and what they are charged."""

import anyio
import pytest

from adaptive_ttc.answers import parse_space
from adaptive_ttc.cost import Price
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.prompts import REVISION_PROMPT, Prompts
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.strategies import Revision
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.types import ROOT, Prefix, Problem, revision_of
from tests.doubles import TinyPolicy

PROBLEM = Problem.of("how much?", id="p")
EOS, USER, ASSISTANT, THINK = 0, 1, 2, 3
ROLES = {"user": USER, "assistant": ASSISTANT, "system": 4}


def letters(text):
    return tuple(100 + ord(letter) for letter in text)


class Template(TinyPolicy):
    """Renders ``role content EOS`` for every message, then ``assistant``."""

    end = (EOS,)

    def encode(self, problem):
        ids = ()
        for turn in problem.messages:
            ids += (ROLES[turn.role], *letters(turn.content), *self.end)
        return (*ids, ASSISTANT)


class Endless(Template):
    """Puts nothing after a message."""

    end = ()


class Thinking(Template):
    """Begins a solution with a token that it does not show of earlier ones, so it cannot be cut open."""

    def encode(self, problem):
        return (*super().encode(problem), THINK)


class Full(Template):
    """Refuses empty messages, as some templates do."""

    def encode(self, problem):
        if not all(turn.content for turn in problem.messages):
            raise ConfigError("an empty message")
        return super().encode(problem)


class Single(Template):
    """Takes one turn and no more."""

    def encode(self, problem):
        if len(problem.messages) > 1:
            raise ConfigError("one turn only")
        return super().encode(problem)


def attempt(*tokens, text="as written", attempts=(), path=(0,), ended=True):
    return Prefix((*tokens, EOS) if ended else tokens, text, finish="eos", attempts=attempts, path=path)


OPENING = (USER, *letters("how much?"), EOS, ASSISTANT)
AGAIN = (USER, *letters(REVISION_PROMPT), EOS, ASSISTANT)


# ---- tokens ---------------------------------------------------------------------------------------------------


def test_without_attempts_the_prompt_is_the_problem():
    assert Prompts(PROBLEM, Template()).prompt() == OPENING


def test_attempts_stand_as_the_policys_own_tokens_with_one_end_each():
    """Trap 8: the text says something else, so rendering it anew would show."""
    conversation = Prompts(PROBLEM, Template())
    a, b = attempt(7, 8), attempt(9)
    assert conversation.prompt((a,)) == (*OPENING, 7, 8, EOS, *AGAIN)
    assert conversation.prompt((a, b)) == (*OPENING, 7, 8, EOS, *AGAIN, 9, EOS, *AGAIN)


def test_an_attempt_without_end_gets_the_templates():
    assert Prompts(PROBLEM, Template()).prompt((attempt(7, ended=False),)) == (*OPENING, 7, EOS, *AGAIN)


def test_a_template_without_end_leaves_the_policys_own():
    opening, again = (USER, *letters("how much?"), ASSISTANT), (USER, *letters(REVISION_PROMPT), ASSISTANT)
    assert Prompts(PROBLEM, Endless()).prompt((attempt(7),)) == (*opening, 7, EOS, *again)


def test_the_policys_own_revision_prompt_is_the_turn_between():
    policy = Template()
    policy.revision_prompt = "Again."
    assert Prompts(PROBLEM, policy).prompt((attempt(7),))[len(OPENING) + 2 :] == (
        USER,
        *letters("Again."),
        EOS,
        ASSISTANT,
    )


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("math", REVISION_PROMPT),
        (
            "choice",
            'the mistakes that you found. End with a line "Answer: X", where X is the letter of the right choice.',
        ),
        ("json:a", "the mistakes that you found. End with the result as JSON with a."),
        ("regex:=(.*)", "the mistakes that you found. Give the final answer in the same form as before."),
    ],
)
def test_a_revision_is_asked_for_the_answer_that_is_read(answers, told):
    messages = Prompts(PROBLEM, Template(), parse_space(answers)).messages((attempt(7),))
    assert messages[-1].content.endswith(told)


@pytest.mark.parametrize(("policy", "start"), [(Thinking(), (THINK,)), (Full(), ())])
def test_a_template_that_cannot_be_cut_open_renders_the_text(policy, start):
    conversation = Prompts(PROBLEM, policy)
    assert conversation.prompt((attempt(7), attempt(8, text="or so"))) == (
        *OPENING,
        *letters("as written"),
        EOS,
        *AGAIN,
        *letters("or so"),
        EOS,
        *AGAIN,
        *start,
    )


def test_a_template_that_takes_one_turn_only_says_so():
    conversation = Prompts(PROBLEM, Single())
    assert conversation.prompt() == OPENING
    with pytest.raises(ConfigError, match="one turn only"):
        conversation.prompt((attempt(7),))


# ---- what of it an ideal cache has not computed ---------------------------------------------------------------


def test_in_a_chain_only_the_turn_between_is_new():
    conversation = Prompts(PROBLEM, Template())
    a = attempt(7, 8)
    b = attempt(9, attempts=(a,))
    c = attempt(10, attempts=(a, b))
    turn = len(AGAIN)
    assert [conversation.new_tokens(shown) for shown in ((a,), (a, b), (a, b, c))] == [turn] * 3


def test_where_the_window_moved_on_all_but_the_opening_is_new():
    conversation = Prompts(PROBLEM, Template())
    a = attempt(7, 8)
    b = attempt(9, 9, 9, attempts=(a,))
    assert conversation.new_tokens((b,)) == 4 + len(AGAIN)


def test_independent_attempts_share_the_first_ones_sequence():
    conversation = Prompts(PROBLEM, Template())
    a, b = attempt(7, 8, 8, 8), attempt(9, 9)
    assert conversation.new_tokens((a, b)) == len(AGAIN) + 3 + len(AGAIN)


# ---- the embedded policy --------------------------------------------------------------------------------------


async def test_the_embedded_policys_prompt_is_its_chat_template_of_the_conversation():
    transformers = pytest.importorskip("transformers")
    from adaptive_ttc.policies.transformers import TransformersPolicy

    policy = TransformersPolicy.from_pretrained(MINI_POLICY)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINI_POLICY)
    problem = Problem.of("Evaluate $3 + 4 \\cdot 2$.")
    driver = Driver(problem, policy, Ledger(None), seed=1)

    def chain():
        shown = ()
        for _ in range(3):
            parent = revision_of(*shown) if shown else ROOT
            shown += yield from Expand(prefixes=(parent,), max_tokens=200)
        return shown

    try:
        attempts = await driver.run(chain())
    finally:
        await policy.aclose()
    assert all(one.finished for one in attempts)
    assert attempts[2].attempts == attempts[:2]
    for shown in (attempts[:1], attempts[:2], attempts):
        turns = [{"role": "user", "content": problem.question}]
        for one in shown:
            turns.append({"role": "assistant", "content": one.text})
            turns.append({"role": "user", "content": policy.revision_prompt})
        prompt = Prompts(problem, policy).prompt(shown)
        rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(prompt, skip_special_tokens=False) == rendered
        own = [(*tokenizer.encode(one.text, add_special_tokens=False), tokenizer.eos_token_id) for one in shown]
        if tuple(own) == tuple(one.token_ids for one in shown):
            ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            assert prompt == tuple(ids)


# ---- what it is charged, where a budget bounds prompts too ------------------------------------------------------


def drive(search, budget=None):
    policy, ledger = Template(mean=10), Ledger(budget)
    driver = Driver(PROBLEM, policy, ledger, price=Price(decode=20, prompt=20))
    children = anyio.run(driver.run, search)
    assert ledger.statistics().reserved == 0
    return children, ledger, policy


def spent(policy, turns):
    return 20 * (policy.delivered + len(OPENING) + turns * len(AGAIN))


def test_every_context_of_a_chain_is_charged_once():
    attempts, ledger, policy = drive(Revision(n=4, sequential=4, vote="majority").search())
    assert [len(one.attempts) for one in attempts] == [0, 1, 2, 3]
    assert ledger.spent == spent(policy, 3)


def test_samples_of_one_context_pay_for_it_once():
    def search():
        (a,) = yield from Expand(prefixes=(ROOT,))
        some = yield from Expand(prefixes=(revision_of(a),) * 3)
        yield from Fork(searches=(further(a),))
        more = yield from Expand(prefixes=(revision_of(a),), n=2)
        return (a, *some, *more)

    def further(a):
        return (yield from Expand(prefixes=(revision_of(a),)))

    attempts, ledger, policy = drive(search())
    assert len(attempts) == 6
    assert ledger.spent == spent(policy, 1)


def test_a_context_that_a_fork_paid_for_is_paid_for():
    def search():
        (a,) = yield from Expand(prefixes=(ROOT,))
        ((b,),) = yield from Fork(searches=(further(a),))
        (c,) = yield from Expand(prefixes=(revision_of(a),))
        return (a, b, c)

    def further(a):
        return (yield from Expand(prefixes=(revision_of(a),)))

    _, ledger, policy = drive(search())
    assert ledger.spent == spent(policy, 1)


def test_other_attempts_are_another_context():
    def search():
        a, b = yield from Expand(prefixes=(ROOT,), n=2)
        return (yield from Expand(prefixes=(revision_of(a), revision_of(b), revision_of(a))))

    _, ledger, policy = drive(search())
    assert ledger.spent == spent(policy, 2)


def test_a_context_that_cannot_be_paid_for_comes_back_cut_with_no_request():
    def search():
        (a,) = yield from Expand(prefixes=(ROOT,))
        (b,) = yield from Expand(prefixes=(revision_of(a),))
        return (a, b)

    (a, _), _, _ = drive(search())
    budget = 20 * (len(OPENING) + len(a.token_ids) + len(AGAIN))
    (_, b), ledger, policy = drive(search(), budget - 1)
    assert (b.finish, b.token_ids, b.attempts) == ("budget", (), (a,))
    assert {request.path for request in policy.requests} == {a.path}
    assert ledger.spent == budget - 20 * len(AGAIN)
    (_, b), ledger, policy = drive(search(), budget + 20)
    assert (b.finish, len(b.token_ids)) == ("budget", 1)
    assert ledger.spent == budget + 20


def test_where_prompts_are_not_bounded_attempts_cost_nothing():
    policy, ledger = Template(mean=10), Ledger(None)
    driver = Driver(PROBLEM, policy, ledger)
    anyio.run(driver.run, Revision(n=3, sequential=3, vote="majority").search())
    assert ledger.spent == policy.delivered
