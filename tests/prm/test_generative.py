"""Verdicts that a language model writes: how it is asked, what is read, what counts, and how verifiers are named."""

from __future__ import annotations

import math

import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.prm import JUDGE, PAIRWISE, GenerativeVerifier, ScoreRequest, VerifierSettings, load_prm
from adaptive_ttc.prm import generative as module
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.prm.written import VerdictRule
from tests.prm.scribe import Scribe

REQUEST = ScoreRequest("What is 1 + 1?", ("One and one.", "That is 2.", "So \\boxed{2}."))
STEPWISE = r"step (?P<step>\d+): \\boxed\{(?P<verdict>correct|incorrect)\}"


def certain(first, last):
    return 1.0


def read(pattern, text, steps=3, **more):
    return VerdictRule(pattern=pattern, **more).read(text, steps, more.pop("sure", certain))


def test_the_last_verdict_counts_for_all_steps():
    said = "Verdict: no? Let me see again.\nVERDICT: Yes"
    assert read(r"verdict:\W*(?P<verdict>yes|no)\b", said) == (1.0, 1.0, 1.0)
    assert read(r"verdict:\W*(?P<verdict>\w+)", "Verdict: perhaps") == ()
    assert read(r"verdict:\W*(?P<verdict>yes|no)\b", "nothing of the kind") == ()


def test_verdicts_on_steps_fall_and_never_rise_again():
    said = r"Step 1: \boxed{correct} Step 2: \boxed{incorrect} Step 3: \boxed{correct}"
    assert read(STEPWISE, said) == (1.0, 0.0, 0.0)
    assert read(STEPWISE, r"Step 2: \boxed{incorrect}") == (1.0, 0.0, 0.0)
    assert read(STEPWISE, r"Step 1: \boxed{correct}") == (1.0, 1.0, 1.0)
    assert read(STEPWISE, r"Step 7: \boxed{correct} Step 0: \boxed{correct}", steps=2) in ((), (1.0, 1.0))


@pytest.mark.parametrize(("said", "score"), [("7", 2 / 3), ("1", 0.0), ("10", 1.0), ("99", 1.0), ("0", 0.0)])
def test_grades_are_brought_to_the_unit_interval(said, score):
    assert read(JUDGE["verdict"], f"Grade: {said}", 1, grades=(1.0, 10.0)) == (pytest.approx(score),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "yes|no"}, "needs a group that holds the verdict"),
        ({"pattern": "(?P<verdict>.)", "grades": (5.0, 1.0)}, "least and the highest"),
    ],
)
def test_impossible_rules_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        VerdictRule(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": "Is it right? {question}"}, "lacks the place {solution} or {steps}"),
        ({"prompt": "{solution}"}, "lacks the place {question}"),
        ({"rivals": 1, "prompt": "{question} {solution}"}, "lacks the place {rival}"),
        ({"samples": 4}, "give a temperature above it"),
        ({"max_tokens": 0}, "max_tokens is a whole number"),
        ({"temperature": -1.0}, "temperature is at least 0"),
        ({"rivals": -1}, "rivals is a whole number"),
        ({"verdict": "yes"}, "needs a group"),
        ({"grades": [1, 5, 10]}, "least and the highest"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        VerifierSettings(**settings)


def test_a_place_that_a_solution_writes_stays_as_it_is():
    asked = VerifierSettings(system="Be strict.").messages("{steps}?", ("a {solution}", "b {question}"))
    assert [turn.role for turn in asked] == ["system", "user"]
    assert "[Problem]\n{steps}?\n" in asked[1].content
    assert "Step 1: a {solution}\nStep 2: b {question}\n" in asked[1].content


async def test_the_verdicts_own_probability_is_the_score():
    for verdict, score in (("yes", 0.8), ("no", 0.2)):
        scribe = Scribe(lambda asked, seed, verdict=verdict: f"Fine. Verdict: {verdict}", logprob=math.log(0.8))
        scored = await GenerativeVerifier(scribe, VerifierSettings()).score(REQUEST)
        assert scored.scores == pytest.approx((score,) * 3)
        assert scored.written_tokens == len(f"Fine. Verdict: {verdict}") + 1
        assert scored.prm_tokens == scored.written_tokens + len(scribe.requests[0].prompt_ids)
    silent = Scribe(lambda asked, seed: "Verdict: yes")
    assert (await GenerativeVerifier(silent, VerifierSettings()).score(REQUEST)).scores == (1.0,) * 3


async def test_samples_differ_by_their_seeds_and_unreadable_ones_have_no_part():
    said = {}

    def reply(asked, seed):
        if seed not in said:
            said[seed] = ("Verdict: yes", "Verdict: no", "I cannot say", "Verdict: yes")[len(said)]
        return said[seed]

    verifier = GenerativeVerifier(Scribe(reply), VerifierSettings(samples=4, temperature=0.7))
    scored = await verifier.score(REQUEST)
    assert len(said) == 4
    assert scored.scores == pytest.approx((2 / 3,) * 3)
    again = await verifier.score(REQUEST)
    assert again == scored


async def test_what_did_not_end_is_not_read():
    cut = Scribe(lambda asked, seed: "Verdict: yes, I think, but let me go on")
    scored = await GenerativeVerifier(cut, VerifierSettings(max_tokens=12)).score(REQUEST)
    assert (scored.scores, scored.written_tokens) == ((), 12)
    # a verdict within the thought is none
    thinking = Scribe(lambda asked, seed: "Verdict: no. Hm. Verdict: yes", thought=12)
    assert (await GenerativeVerifier(thinking, VerifierSettings()).score(REQUEST)).scores == (1.0,) * 3
    endless = Scribe(lambda asked, seed: "Verdict: yes", thought=13)
    assert (await GenerativeVerifier(endless, VerifierSettings()).score(REQUEST)).scores == ()


async def test_a_judge_grades_finished_solutions():
    judge = GenerativeVerifier(Scribe(lambda asked, seed: "Grade: 10"), VerifierSettings(**JUDGE), kind="judge")
    assert judge.name == "judge:scribe"
    assert traits_of(judge).finished_only
    assert (await judge.score(REQUEST)).scores == (1.0,) * 3
    assert "[Solution]\nOne and one.\n\nThat is 2." in judge._writer.policy.requests[0].messages[-1].content


def stands_first(asked, text):
    return asked.index(text) < asked.index("[Solution B]")


async def test_comparisons_are_made_in_both_orders():
    scribe = Scribe(lambda asked, seed: f"Better: {'A' if stands_first(asked, 'That is 2') else 'B'}")
    pairwise = GenerativeVerifier(scribe, VerifierSettings(**PAIRWISE), kind="pairwise")
    rivals = (("It is 3.",), ("It is 4.",))
    contest = ScoreRequest(REQUEST.question, REQUEST.steps, rivals=rivals)
    scored = await pairwise.score(contest)
    assert scored.scores == (1.0,) * 3
    assert len(scribe.requests) == 4
    assert [stands_first(one.messages[-1].content, "That is 2") for one in scribe.requests] == [True, False] * 2
    assert pairwise.count_tokens(contest) == sum(len(one.prompt_ids) for one in scribe.requests)
    loser = ScoreRequest(REQUEST.question, ("It is 3.",), rivals=(REQUEST.steps,))
    assert (await pairwise.score(loser)).scores == (0.0,)
    assert traits_of(pairwise).written == 2 * 1024


async def test_a_judge_that_prefers_a_place_comes_to_a_draw():
    first = GenerativeVerifier(Scribe(lambda asked, seed: "Better: A"), VerifierSettings(**PAIRWISE))
    tie = GenerativeVerifier(Scribe(lambda asked, seed: "Better: tie"), VerifierSettings(**PAIRWISE))
    dumb = GenerativeVerifier(Scribe(lambda asked, seed: "Both are nice."), VerifierSettings(**PAIRWISE))
    contest = ScoreRequest("1 + 1?", ("2",), rivals=(("3",),))
    assert [(await one.score(contest)).scores for one in (first, tie, dumb)] == [(0.5,), (0.5,), ()]
    alone = await first.score(ScoreRequest("1 + 1?", ("2",)))
    assert (alone.scores, alone.prm_tokens, first.count_tokens(ScoreRequest("1 + 1?", ("2",)))) == ((0.5,), 0, 0)


async def test_a_solution_that_leaves_no_room_for_a_verdict_is_refused():
    verifier = GenerativeVerifier(Scribe(str, max_context=1500), VerifierSettings())
    assert verifier.count_tokens(ScoreRequest("1 + 1?", ("2",))) < 476
    with pytest.raises(ConfigError, match="context is 1500 with 1024 for its verdict"):
        verifier.count_tokens(ScoreRequest("1 + 1?", ("2" * 300,)))


async def test_closing_ends_a_policy_that_was_loaded_for_it_alone():
    mine, theirs = Scribe(str), Scribe(str)
    own = GenerativeVerifier(mine, VerifierSettings(), owned=True)
    for verifier in (own, GenerativeVerifier(theirs, VerifierSettings())):
        await verifier.aclose()
        with pytest.raises(EngineError, match="closed"):
            await verifier.score(REQUEST)
    assert (mine.closed, theirs.closed) == (True, False)


async def test_a_loaded_policy_is_asked_through_its_chat_template():
    verifier = load_prm(f"generative:{MINI_POLICY}", max_tokens=24)
    scored = await verifier.score(REQUEST)
    assert 0 < scored.written_tokens <= 24
    assert scored.prm_tokens + scored.cached_tokens == scored.written_tokens + verifier.count_tokens(REQUEST)
    assert len(scored.scores) in (0, 3)
    assert verifier.name == f"generative:{verifier._writer.policy.name}"
    await verifier.aclose()


def test_readers_take_their_settings_and_leave_the_rest_to_the_engine(monkeypatch):
    loaded = []

    def load_policy(name, *, engine, **settings):
        loaded.append((name, engine, settings))
        return Scribe(str)

    monkeypatch.setattr(module, "load_policy", load_policy)
    judge = load_prm("judge:me/model", engine="vllm", max_tokens=300, dtype="bfloat16")
    assert (judge.settings.grades, judge.settings.max_tokens) == ((1.0, 10.0), 300)
    pairwise = load_prm("me/model", reader="pairwise", rivals=3, right=["a", "first"])
    assert (pairwise.settings.rivals, pairwise.settings.right) == (3, ("a", "first"))
    assert load_prm("generative:me/model").fingerprint != judge.fingerprint
    with pytest.raises(ConfigError, match="needs a group"):
        load_prm("generative:me/model", verdict="yes")
    assert loaded == [
        ("me/model", "vllm", {"dtype": "bfloat16"}),
        ("me/model", "transformers", {}),
        ("me/model", "transformers", {}),
    ]
