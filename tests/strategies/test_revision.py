"""Sequential revision as transcripts, see tests/strategies/transcripts.py."""

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Revision
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.strategies.revision import SHOWN
from adaptive_ttc.types import ROOT
from tests.doubles import TinyPolicy
from tests.strategies.transcripts import Transcript, evidence, shown


def begin(start=(), **settings):
    """A search, and its chains, each begun."""
    search = Transcript(Revision(**settings).search(start), start)
    return search, [Transcript(chain, start) for chain in search.request.searches]


def ended(search, *chains):
    """Send the search its chains' results."""
    assert all(one.request is None for one in chains)
    search.send(tuple(one.result for one in chains))
    return search


def attempts(chain):
    """The earlier attempts that the attempt that is asked for is shown."""
    (parent,) = chain.request.prefixes
    return shown(parent.attempts)


def test_chains_run_side_by_side_on_equal_parts_of_the_budget():
    search, chains = begin(n=6, sequential=2, max_tokens=70)
    assert isinstance(search.request, Fork)
    assert (len(chains), search.request.least) == (3, 70)


def test_an_attempt_is_a_whole_solution_with_the_settings_of_the_search():
    _, (chain,) = begin(n=2, sequential=2, max_tokens=70, temperature=0.6, top_p=0.9)
    settings = {"max_tokens": 70, "temperature": 0.6, "top_p": 0.9, "score": True}
    assert chain.request == Expand(prefixes=(ROOT,), **settings)
    chain.reply("a$ .5")
    (parent,) = chain.request.prefixes
    assert chain.request == Expand(prefixes=(parent,), **settings)
    assert (parent.token_ids, parent.text, parent.scores, parent.finish) == ((), "", (), None)


def test_scores_are_asked_for_only_where_the_vote_needs_them():
    _, (chain, *_) = begin(n=4, vote="majority")
    assert not chain.request.score


def test_every_attempt_sees_the_earlier_ones_of_its_chain_alone():
    _, (first, second) = begin(n=6, sequential=3)
    first.reply("a$ .5")
    second.reply("z$ .5")
    assert (attempts(first), attempts(second)) == (["a$"], ["z$"])
    first.reply("b$ .5")
    assert (attempts(first), attempts(second)) == (["a$", "b$"], ["z$"])


def test_the_last_four_are_shown_oldest_first():
    search, (chain,) = begin(n=7, sequential=7)
    seen = []
    for name in "abcdefg":
        seen.append("".join(attempts(chain)))
        chain.reply(f"{name}$ .5")
    assert seen == ["", "a$", "a$b$", "a$b$c$", "a$b$c$d$", "b$c$d$e$", "c$d$e$f$"]
    assert SHOWN == 4
    assert ended(search, chain).handed_in == ["a$", "b$", "c$", "d$", "e$", "f$", "g$"]


def test_only_finished_attempts_are_shown():
    search, (chain,) = begin(n=4, sequential=4)
    chain.reply("a! .5")
    assert chain.request.prefixes == (ROOT,)
    chain.reply("b$ .5")
    assert attempts(chain) == ["b$"]
    chain.reply("c! .5")
    assert attempts(chain) == ["b$"]
    chain.reply("d$ .5")
    assert ended(search, chain).handed_in == ["a!", "b$", "c!", "d$"]


def test_paths_follow_the_attempts_so_that_no_seed_is_used_twice():
    search, chains = begin(n=4, sequential=2)
    for chain in chains:
        chain.reply("a$ .5")
        assert chain.request.prefixes[0].path == chain.request.prefixes[0].attempts[-1].path
        chain.reply("a$ .5")
    assert [one.path for one in chains[0].result] == [(0,), (0, 0)]
    assert ended(search, *chains).handed_in == ["a$"] * 4


@pytest.mark.parametrize(
    ("n", "chain"), [(1, 1), (2, 2), (4, 2), (6, 3), (8, 4), (12, 4), (16, 4), (7, 7), (64, 8), (256, 16)]
)
def test_by_default_sequential_and_parallel_are_in_balance(n, chain):
    assert Revision(n=n).chain == chain
    assert len(begin(n=n)[1]) == n // chain


@pytest.mark.parametrize("sequential", [1, 2, 4, 8])
def test_the_ratio_sets_how_many_run_side_by_side(sequential):
    search, chains = begin(n=8, sequential=sequential)
    assert len(chains) == 8 // sequential
    for chain in chains:
        for _ in range(sequential):
            chain.reply("a$ .5")
    assert len(ended(search, *chains).result) == 8


# ---- what the budget cuts -------------------------------------------------------------------------------------


def resumed(search, *chains):
    """Send the search its chains' results; those that it goes on with, begun."""
    ended(search, *chains)
    return [Transcript(chain) for chain in search.request.searches]


def test_a_cut_attempt_ends_its_chain_and_is_resumed_with_what_the_others_left():
    search, (first, second) = begin(n=4, sequential=2, max_tokens=70, temperature=0.6, top_p=0.9)
    first.reply("a$ .5")
    first.reply("b~ .5")
    second.reply("c$ .5")
    second.reply("d$ .5")
    (again,) = resumed(search, first, second)
    (cut,) = again.request.prefixes
    assert (again.asked, shown(cut.attempts), search.request.least) == (["b~"], ["a$"], 70)
    assert again.request == Expand(prefixes=(cut,), max_tokens=70, temperature=0.6, top_p=0.9, score=True)
    again.reply("e$ .5")
    assert ended(search, again).handed_in == ["a$", "be$", "c$", "d$"]


def test_a_chain_that_is_resumed_draws_its_other_attempts_too():
    search, (first, second) = begin(n=6, sequential=3)
    first.reply("a~ .5")
    for name in "xyz":
        second.reply(f"{name}$ .5")
    (again,) = resumed(search, first, second)
    again.reply("b$ .5")
    assert attempts(again) == ["ab$"]
    again.reply("c~ .5")
    (again,) = resumed(search, again)
    assert (again.asked, attempts(again)) == (["c~"], ["ab$"])
    again.reply("d$ .5")
    assert attempts(again) == ["ab$", "cd$"]
    again.reply("e$ .5")
    assert ended(search, again).handed_in == ["ab$", "cd$", "e$", "x$", "y$", "z$"]


def test_attempts_that_stay_cut_are_handed_in_as_such_and_empty_ones_are_not():
    search, (first, second) = begin(n=4, sequential=2)
    first.reply("a~ .5")
    second.reply("~")
    both = resumed(search, first, second)
    assert [one.asked for one in both] == [["a~"], ["~"]]
    for one in both:
        one.reply("~")
    assert ended(search, *both).handed_in == ["a~"]


def test_a_stop_ends_all_chains_and_resumes_nothing():
    search, (first, second) = begin(n=4, sequential=2)
    first.reply("a^ .5")
    second.reply("^")
    assert ended(search, first, second).handed_in == ["a^"]


@pytest.mark.parametrize("seed", range(8))
async def test_no_attempt_is_missing_while_money_is_left(seed):
    policy = TinyPolicy()
    policy.revision_prompt = "again"
    wish = {"strategy": "revision", "n": 6, "sequential": 3, "vote": "majority", "max_tokens": 200, "seed": seed}
    async with Solver(policy) as solver:
        whole = await solver.solve("how?", **wish)
        for budget in (whole.spent, whole.spent + 5):
            tight = await solver.solve("how?", budget_tokens=budget, **wish)
            assert len(tight.candidates) == 6 or tight.spent == budget


# ---- evidence -------------------------------------------------------------------------------------------------


def test_evidence_is_dealt_to_the_chains_as_their_first_attempts():
    start = evidence("a$ .5", "b$ .5", "c! .5", "d~ .5", "e .5")
    search, (first, second) = begin(start, n=6, sequential=3)
    assert first.asked == ["e/"]
    assert second.asked == ["d~"]
    first.reply("x$ .5")
    second.reply("y$ .5")
    assert attempts(second) == ["b$", "dy$"]
    second.reply("z$ .5")
    assert ended(search, first, second).handed_in == ["a$", "c!", "e/x$", "b$", "dy$", "z$"]


def test_an_attempt_after_evidence_is_shown_it():
    _, (chain,) = begin(evidence("a$ .5", "b$ .5"), n=3, sequential=3)
    assert attempts(chain) == ["a$", "b$"]


def test_evidence_enough_needs_no_request():
    search, chains = begin(evidence("a$ .5", "b! .5"), n=2, sequential=1)
    assert ended(search, *chains).handed_in == ["a$", "b!"]


# ---- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 6, "sequential": 4}, "n=6 is not a multiple of sequential=4; take n=8"),
        ({"n": 2, "sequential": 4}, "take n=4"),
        ({"sequential": 0}, "sequential is a whole number"),
        ({"n": 8, "beam_width": 4}, "has no beam_width; leave it out"),
    ],
)
def test_impossible_values_name_the_remedy(options, words):
    with pytest.raises(ConfigError, match=words):
        Revision(**options)


def test_it_wants_a_policy_that_was_trained_to_revise():
    assert Revision().revises
