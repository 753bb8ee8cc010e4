"""DVTS as transcripts, see tests/strategies/transcripts.py; what its trees leave each other, under a driver."""

import anyio
import pytest

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import ForkEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.strategies import DVTS
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.types import ROOT, Problem
from tests.doubles import TinyPolicy
from tests.strategies.transcripts import Transcript, evidence, shown


def begin(start=(), **settings):
    return Transcript(DVTS(**{"n": 4, "beam_width": 2, **settings}).search(start), start)


def trees(search):
    """The searches of the fork that is asked for, each begun; the paths of one may well be those of another."""
    return [Transcript(tree) for tree in search.request.searches]


def tree(**settings):
    """The only tree of a search, and the search."""
    search = begin(**{"n": 2, **settings})
    (only,) = trees(search)
    return only, search


def ended(search, *growing):
    """Send the search its trees' results."""
    assert all(one.request is None for one in growing)
    search.send(tuple(one.result for one in growing))
    return search


# ---- trees ----------------------------------------------------------------------------------------------------


def test_n_over_m_trees_run_side_by_side_each_with_m_first_steps():
    search = begin(n=12, beam_width=4, max_tokens=70, temperature=0.6, top_p=0.9)
    assert isinstance(search.request, Fork)
    assert search.request.least == 70
    settings = {"stop": ("\n\n",), "max_tokens": 70, "temperature": 0.6, "top_p": 0.9, "score": True}
    assert [one.request for one in trees(search)] == [Expand(prefixes=(ROOT,) * 4, **settings)] * 3


def test_a_tree_keeps_the_one_best_and_samples_m_steps_from_it():
    growing, _ = tree(n=4, beam_width=4)
    growing.reply("a .1", "b .7", "c .2", "d .3")
    assert growing.asked == ["b/"] * 4
    growing.reply("a .1", "b .2", "c .9", "d .3")
    assert growing.asked == ["b/c/"] * 4


def test_a_tree_ends_when_the_step_that_it_keeps_is_final():
    growing, search = tree()
    growing.reply("a .1", "b .7")
    growing.reply("c$ .9", "d .2")
    assert ended(search, growing).handed_in == ["b/c$"]


def test_a_final_step_that_is_not_the_best_does_not_end_the_tree_and_is_a_candidate():
    growing, search = tree()
    growing.reply("a$ .1", "b .7")
    assert growing.asked == ["b/"] * 2
    growing.reply("c$ .2", "d .3")
    assert growing.asked == ["b/d/"] * 2
    growing.reply("e$ .2", "f$ .3")
    assert ended(search, growing).handed_in == ["a$", "b/c$", "b/d/e$", "b/d/f$"]


def test_unfinished_siblings_are_no_candidates():
    """Trap 5."""
    growing, search = tree(n=4, beam_width=4)
    growing.reply("a .1", "b$ .7", "c! .9", "d~ .9")
    assert ended(search, growing).handed_in == ["b$"]


def test_ties_break_by_path_and_an_unscored_step_comes_last():
    growing, _ = tree(n=4, beam_width=4)
    growing.reply("d", "c .0", "b .0", "a")
    assert growing.asked == ["c/"] * 4


def test_the_ranking_is_by_the_aggregated_scores():
    growing, _ = tree(agg_strategy="min")
    growing.reply("a .3", "~")
    growing.reply("b .2", "c .9")
    assert growing.asked == ["a/c/"] * 2
    growing.reply("d .3", "e .9")
    assert growing.asked == ["a/c/d/"] * 2


def test_a_tree_stops_at_max_steps_and_hands_in_what_it_kept():
    growing, search = tree(max_steps=2)
    growing.reply("a .1", "b .7")
    growing.reply("c .2", "d .3")
    assert ended(search, growing).handed_in == ["b/d/"]
    growing, search = tree(max_steps=2)
    growing.reply("a .1", "b .7")
    growing.reply("c$ .2", "d .3")
    assert ended(search, growing).handed_in == ["b/c$", "b/d/"]


def test_a_tree_whose_steps_all_met_the_length_limit_has_ended():
    """Trap 4: a truncated solution is not gone on from."""
    growing, search = tree()
    growing.reply("a .1", "b .7")
    growing.reply("c! .9", "d! .2")
    assert ended(search, growing).handed_in == ["b/c!", "b/d!"]


def test_equal_steps_of_a_tree_are_one_but_equal_solutions_of_two_trees_keep_their_votes():
    search = begin()
    first, second = trees(search)
    for growing in (first, second):
        growing.reply("a$ .5", "a$ .5")
    assert ended(search, first, second).handed_in == ["a$", "a$"]


def test_lookahead_ranks_final_and_other_steps_alike():
    growing, _ = tree(n=4, beam_width=4, lookahead=1)
    growing.reply("a .9", "b$ .6", "c .1", "d! .9")
    assert (growing.asked, growing.request.temperature) == (["a/", "c/"], 0.0)
    growing.reply("x .5", "y .7")
    assert growing.asked == ["c/"] * 4


def test_roll_outs_are_handed_in_only_where_nothing_else_finished_and_once():
    growing, search = tree(lookahead=2)
    growing.reply("a .9", "b .8")
    growing.reply("x .9", "y .8")
    growing.reply("z$ .9", "y .8")
    growing.reply("x .9", "w .1")
    growing.reply("z$ .9", "v .1")
    growing.reply("u .1")
    growing.reply("~", "~")
    search.send((growing.result,))
    (again,) = trees(search)
    again.reply("~", "~")
    assert ended(search, again).handed_in == ["a/x/z$", "a/x/"]


def test_roll_outs_are_not_handed_in_beside_finished_evidence():
    search = begin(evidence("e$ .5", "a .9", "b .1"), n=4, beam_width=4, lookahead=1)
    (growing,) = trees(search)
    growing.reply("~")
    growing.reply("x$ .9", "y .1")
    growing.reply("~", "~", "~", "~")
    search.send((growing.result,))
    (again,) = trees(search)
    again.reply("~", "~", "~", "~")
    assert ended(search, again).handed_in == ["e$", "a/"]


# ---- what the budget cuts -------------------------------------------------------------------------------------


def test_a_cut_tree_goes_on_from_where_it_was_cut_with_what_the_others_left():
    search = begin()
    first, second = trees(search)
    first.reply("a .1", "b .7")
    first.reply("c~ .2", "~")
    second.reply("d$ .9", "e .2")
    search.send((first.result, second.result))
    (again,) = trees(search)
    assert again.asked == ["b/c~", "b/"]
    again.reply("c .2", "d .3")
    assert again.asked == ["b/d/"] * 2
    again.reply("e$ .2", "f .1")
    assert ended(search, again).handed_in == ["b/d/e$", "d$"]


def test_a_tree_that_got_nothing_yet_is_grown_with_what_the_others_left():
    search = begin()
    first, second = trees(search)
    first.reply("a$ .9", "b .2")
    second.reply("~", "~")
    search.send((first.result, second.result))
    (again,) = trees(search)
    assert again.asked == ["", ""]
    again.reply("c$ .2", "d .1")
    assert ended(search, again).handed_in == ["a$", "c$"]


def test_a_search_whose_cut_trees_get_no_further_hands_them_in():
    search = begin()
    first, second = trees(search)
    first.reply("a .1", "b .7")
    first.reply("c~ .2", "~")
    second.reply("~", "~")
    search.send((first.result, second.result))
    first, second = trees(search)
    first.reply("~", "~")
    second.reply("~", "~")
    assert ended(search, first, second).handed_in == ["b/c~"]


def test_being_cut_takes_no_step_of_the_limit():
    growing, search = tree(max_steps=2)
    growing.reply("a .1", "b .7")
    growing.reply("~", "~")
    search.send((growing.result,))
    (again,) = trees(search)
    again.reply("c .2", "~")
    assert ended(search, again).handed_in == ["b/c/"]


def test_a_truncated_sibling_is_not_gone_on_from_with_the_cut_one():
    growing, search = tree(n=4, beam_width=4)
    growing.reply("~", "b! .7", "c~ .3", "d! .1")
    search.send((growing.result,))
    (again,) = trees(search)
    assert again.asked == ["", "c~"]
    again.reply("~", "~")
    assert ended(search, again).handed_in == ["b!", "d!", "c~"]
    growing, search = tree(n=4, beam_width=4)
    growing.reply("b! .7", "c~ .3", "~", "~")
    search.send((growing.result,))
    (again,) = trees(search)
    again.reply("d$ .5", "~", "~")
    assert ended(search, again).handed_in == ["cd$"]


PROBLEM = Problem.of("how much is that?", id="dvts")


def drive(budget, seed=0):
    policy, ledger = TinyPolicy(mean=30), Ledger(budget)
    prm = FakePRM(lambda question, steps: (len("".join(steps)) * 7 % 11) / 11)
    driver = Driver(PROBLEM, policy, ledger, prm=prm, seed=seed)
    return anyio.run(driver.run, DVTS(n=8, beam_width=2, max_tokens=120).search()), driver, ledger


def test_under_a_tight_budget_trees_that_were_cut_are_resumed_until_nothing_is_left():
    resumed = 0
    for seed in range(12):
        candidates, driver, ledger = drive(250, seed)
        assert ledger.available == 0 or all(one.finished for one in candidates)
        resumed += len({event.number for event in driver.trace.of(ForkEvent)}) > 1
    assert resumed > 5


# ---- evidence -------------------------------------------------------------------------------------------------


def test_evidence_is_dealt_to_the_trees_and_takes_the_place_of_first_steps():
    start = evidence("a$ .9", "b .7", "c~ .6", "d! .5", "e .4")
    search = begin(start, n=8, beam_width=4)
    first, second = trees(search)
    assert (first.asked, shown(first.request.beside)) == (["c~", ""], ["b/", "e/"])
    assert second.asked == ["", "", ""]
    first.reply("x .1", "y .1")
    assert first.asked == ["b/"] * 4
    first.reply("f$ .9", "g .1", "h .1", "~")
    second.reply("f$ .9", "g .1", "h .1")
    assert ended(search, first, second).handed_in == ["a$", "b/f$", "f$", "d!"]


def test_evidence_enough_needs_no_request():
    assert begin(evidence("a$ .9", "b$ .7", "c .8"), n=2).handed_in == ["a$", "b$"]


def test_whole_steps_need_no_sampling_before_the_best_is_gone_on_from():
    (growing,) = trees(begin(evidence("a .1", "b .7"), n=2))
    assert growing.asked == ["b/"] * 2


# ---- settings -------------------------------------------------------------------------------------------------


def test_an_impossible_number_of_trees_is_refused():
    """Trap 7."""
    with pytest.raises(ConfigError, match="n=2 is not a multiple of beam_width=4; take n=4"):
        DVTS(n=2)
