"""Beam search as transcripts, see tests/strategies/transcripts.py."""

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies import BeamSearch
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import ROOT
from tests.strategies.transcripts import Transcript, evidence, shown


def begin(start=(), **settings):
    return Transcript(BeamSearch(**{"n": 4, "beam_width": 2, **settings}).search(start), start)


# ---- what is asked for ----------------------------------------------------------------------------------------


def test_every_round_asks_for_steps_with_the_settings_of_the_search():
    search = begin(max_tokens=70, temperature=0.6, top_p=0.9)
    settings = {"stop": ("\n\n",), "max_tokens": 70, "temperature": 0.6, "top_p": 0.9, "score": True}
    assert search.request == Expand(prefixes=(ROOT,) * 4, **settings)
    search.reply("a .1", "b .2", "c .9", "d .8")
    c, d = search.request.prefixes[:2]
    assert shown((c, d)) == ["c/", "d/"]
    assert search.request == Expand(prefixes=(c, d, c, d), **settings)


def test_the_first_round_has_n_steps_and_a_round_keeps_the_best_n_over_m():
    search = begin(n=8, beam_width=4)
    assert search.asked == [""] * 8
    search.reply("a .1", "b .7", "c .2", "d .3", "e .6", "f .0", "g .5", "h .4")
    assert search.asked == ["b/", "e/"] * 4


def test_finished_beams_leave_and_the_rest_share_the_room():
    """ceil((n - f) / M) are kept, and never more than n - f children are asked for."""
    search = begin(n=8, beam_width=4)
    search.reply("a$ .9", "b .7", "c .2", "d .3", "e .6", "f .0", "g .5", "h .4")
    assert search.asked == ["b/", "e/"] * 3 + ["b/"]
    search.reply("a$ .1", "b$ .1", "c$ .1", "d .3", "e .6", "f .0", "g .5")
    assert search.asked == ["b/e/"] * 4


def test_few_beams_have_no_more_than_m_children_each():
    search = begin(n=8, beam_width=2)
    search.reply("a .9", "a .9", "a .9", "b .8", "b .8", "b .8", "b .8", "~")
    assert search.asked == ["a/", "b/"] * 2


def test_equal_scores_are_ranked_by_path():
    search = begin(n=4, beam_width=4)
    search.reply("d .5", "c .5", "b .5", "a .5")
    assert search.asked == ["d/"] * 4


def test_an_unscored_step_comes_last():
    search = begin()
    search.reply("a", "b .0", "c", "d .0")
    assert search.asked == ["b/", "d/"] * 2


@pytest.mark.parametrize(("how", "kept"), [("last", "b/y/"), ("min", "a/x/"), ("mean", "a/x/"), ("prod", "a/x/")])
def test_beams_are_ranked_by_their_aggregated_scores(how, kept):
    search = begin(agg_strategy=how)
    search.reply("a .9", "b .2", "~", "~")
    search.reply("x .5", "y .6", "~", "~")
    assert search.asked[0] == kept


# ---- when it ends ---------------------------------------------------------------------------------------------


def test_it_stops_once_n_have_finished():
    search = begin()
    search.reply("a$ .9", "b .7", "c .2", "d$ .3")
    assert search.asked == ["b/"] * 2
    search.reply("e$ .1", "f .9")
    assert search.asked == ["b/f/"]
    search.reply("g$ .9")
    assert search.handed_in == ["a$", "d$", "b/e$", "b/f/g$"]


def test_beams_that_go_on_when_n_have_finished_are_not_candidates():
    search = begin(evidence("x$ .5", "y .9", "z~ .1"), n=2)
    search.reply("a$ .1")
    assert search.handed_in == ["x$", "za$"]


def test_it_stops_at_max_steps_and_hands_the_unfinished_in_as_such():
    search = begin(max_steps=2)
    search.reply("a$ .9", "b .7", "c .2", "d .3")
    search.reply("e .9", "f .1", "g$ .3")
    assert search.handed_in == ["a$", "b/g$", "b/e/", "d/f/"]
    assert [one.finish for one in search.result] == ["eos", "eos", "stop", "stop"]


def test_a_limit_of_one_step_needs_one_round():
    search = begin(max_steps=1)
    search.reply("a$ .9", "b .7", "c .2", "d .3")
    assert search.handed_in == ["a$", "b/", "c/", "d/"]


def test_it_stops_when_none_goes_on():
    search = begin()
    search.reply("a$ .9", "b! .7", "c! .2", "d$ .3")
    assert search.handed_in == ["a$", "d$", "b!", "c!"]


def test_a_truncated_solution_is_neither_finished_nor_gone_on_from():
    search = begin()
    search.reply("a$ .1", "b! .9", "c .2", "d! .3")
    assert search.asked == ["c/"] * 2
    search.reply("e$ .5", "f$ .5")
    assert search.handed_in == ["a$", "c/e$", "c/f$", "b!", "d!"]


def test_what_the_budget_cut_is_handed_in_as_such():
    search = begin()
    search.reply("a$ .9", "b .7", "c .2", "d .6")
    assert search.asked == ["b/", "d/", "b/"]
    search.reply("e~ .2", "~", "~")
    assert search.handed_in == ["a$", "b/e~", "d/"]
    assert [one.finish for one in search.result] == ["eos", "budget", "stop"]


def test_with_nothing_paid_for_nothing_is_handed_in():
    search = begin()
    search.reply("~", "~", "~", "~")
    assert search.handed_in == []


def test_a_cut_step_is_dropped_while_others_go_on():
    search = begin()
    search.reply("a~ .9", "b .1", "~", "~")
    assert search.asked == ["b/"] * 2
    search.reply("~", "~")
    assert search.handed_in == ["b/"]


def test_a_stop_hands_in_the_beams_that_were_worked_on():
    search = begin()
    search.reply("a .9", "b .8", "c .7", "d .6")
    search.reply("x^ .5", "^", "^", "^")
    assert search.handed_in == ["a/x^", "b/"]


def test_a_beam_that_led_to_a_finished_solution_is_not_handed_in_beside_it():
    search = begin()
    search.reply("a .9", "b .8", "~", "~")
    search.reply("x$ .5", "~", "~", "~")
    assert search.handed_in == ["a/x$", "b/"]


# ---- equal beams ----------------------------------------------------------------------------------------------


def test_equal_beams_are_merged_before_they_are_gone_on_from():
    search = begin()
    search.reply("a .9", "a .9", "a .9", "b .1")
    assert search.asked == ["a/", "b/"] * 2
    assert [prefix.path for prefix in search.request.prefixes] == [(0,), (3,)] * 2


def test_equal_finished_beams_of_a_round_are_handed_in_once_and_count_once():
    search = begin()
    search.reply("a$ .9", "a$ .9", "b .5", "b .5")
    assert search.asked == ["b/"] * 2
    search.reply("c$ .5", "d$ .5")
    assert search.handed_in == ["a$", "b/c$", "b/d$"]


def test_a_step_and_a_whole_solution_of_the_same_text_are_two():
    search = begin()
    search.reply("a$ .9", "a! .9", "b .5", "c .1")
    assert search.asked == ["b/", "c/", "b/"]


def test_equal_evidence_keeps_its_votes():
    """Solutions that were drawn independently and happen to be equal are no copies."""
    search = begin(evidence("a$ .9", "a$ .9"))
    search.reply("b$ .1", "c$ .1")
    assert search.handed_in == ["a$", "a$", "b$", "c$"]


# ---- looking ahead --------------------------------------------------------------------------------------------


def test_lookahead_ranks_by_the_rolled_out_text():
    search = begin(lookahead=1, beam_width=4, temperature=0.7)
    search.reply("a .9", "b .1", "c .5", "~")
    assert search.asked == ["a/", "b/", "c/"]
    assert (search.request.temperature, search.request.stop, search.request.n) == (0.0, ("\n\n",), 1)
    search.reply("x .1", "y .9", "z .5")
    assert search.asked == ["b/"] * 4
    assert search.request.temperature == 0.7


def test_roll_outs_go_on_only_while_they_have_not_ended():
    search = begin(lookahead=3, beam_width=4)
    search.reply("a .9", "b .8", "c .7", "d .6")
    search.reply("x$ .9", "y .1", "z! .2", "u~ .3")
    assert search.asked == ["b/y/"]
    assert shown(search.request.beside) == ["a/", "b/", "c/", "d/"]
    search.reply("v .95")
    assert search.asked == ["b/y/v/"]
    search.reply("~")
    assert search.asked == ["b/"] * 4


def test_a_roll_out_without_scores_leaves_the_step_its_own():
    search = begin(lookahead=1, beam_width=4)
    search.reply("a .6", "b .5", "c .4", "d .3")
    search.reply("w", "x .1", "y .1", "z .1")
    assert search.asked == ["a/"] * 4


def test_nobody_looks_ahead_where_there_is_nothing_to_choose():
    search = begin(lookahead=2)
    search.reply("a .6", "b$ .5", "c! .4", "d~ .3")
    assert search.request.temperature > 0
    search = begin(lookahead=2, max_steps=1)
    search.reply("a .6", "b .5", "c .4", "d .3")
    assert search.handed_in == ["a/", "b/", "c/", "d/"]


def test_nobody_looks_ahead_when_n_have_finished():
    search = begin(evidence("x$ .5", "z~ .9", "v .1", "w .1"), n=2, lookahead=2)
    assert search.asked == ["z~"]
    search.reply("a$ .5")
    assert search.handed_in == ["x$", "za$"]


def test_roll_outs_are_handed_in_only_where_nothing_else_finished():
    search = begin(lookahead=1)
    search.reply("a .9", "b .8", "~", "~")
    search.reply("x$ .9", "y .8")
    search.reply("c$ .5", "~", "~", "~")
    assert search.handed_in == ["a/c$", "b/"]
    search = begin(lookahead=1)
    search.reply("a .9", "b .8", "~", "~")
    search.reply("x$ .9", "y .8")
    search.reply("~", "~", "~", "~")
    assert search.handed_in == ["a/x$", "a/", "b/"]


def test_a_roll_out_that_is_met_twice_is_handed_in_once():
    search = begin(lookahead=2)
    search.reply("a .9", "b .8", "~", "~")
    search.reply("x .9", "y .8")
    search.reply("z$ .9", "y .8")
    search.reply("x .9", "y .8", "~", "~")
    assert search.asked == ["a/x/", "b/y/"]
    search.reply("z$ .9", "y .8")
    search.reply("y .8")
    search.reply("~", "~", "~", "~")
    assert search.handed_in == ["a/x/z$", "a/x/", "b/y/"]


# ---- evidence -------------------------------------------------------------------------------------------------


def test_evidence_is_the_first_round():
    start = evidence("a$ .9", "b .7", "c~ .6", "d! .5", "e^ .4")
    search = begin(start, n=8)
    assert search.asked == ["c~", "e^"] + [""] * 4
    assert shown(search.request.beside) == ["b/"]
    search.reply("c .1", "e .3", "f .2", "g$ .8", "h .9", "i .0")
    assert search.asked == ["h/", "b/", "ee/"] * 2
    search.reply(*["x$ .1"] * 6)
    assert search.handed_in == ["a$", "g$", "h/x$", "b/x$", "ee/x$", "d!"]


def test_whole_first_steps_are_not_sampled_again():
    search = begin(evidence("a .1", "b .2", "c .3", "d .4"))
    assert search.asked == ["d/", "c/"] * 2


def test_more_first_steps_than_beams_all_stand_for_choice():
    search = begin(evidence("a .1", "b .2", "c .3", "d .4", "e .5"), n=2, beam_width=2)
    assert search.asked == ["e/"] * 2


def test_evidence_enough_needs_no_request():
    start = evidence("a$ .1", "b$ .2", "c .3", "d~ .4", "e! .4")
    assert begin(start, n=2, beam_width=2).handed_in == ["a$", "b$", "e!"]


def test_first_steps_that_the_budget_does_not_go_on_from_are_handed_in():
    search = begin(evidence("a .1", "b .2", "c .3", "d~ .4"))
    search.reply("~")
    assert search.asked == ["c/", "b/"] * 2
    search.reply("~", "~", "~", "~")
    assert search.handed_in == ["c/", "b/"]


# ---- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 2, "beam_width": 4}, "n=2 is not a multiple of beam_width=4; take n=4"),
        ({"max_steps": 0}, "max_steps is a whole number of at least 1"),
        ({"lookahead": -1}, "lookahead is a whole number of at least 0"),
        ({"lookahead": True}, "lookahead is a whole number of at least 0"),
    ],
)
def test_impossible_values_name_the_remedy(options, words):
    with pytest.raises(ConfigError, match=words):
        BeamSearch(**options)


def test_steps_are_scored_whatever_the_vote():
    assert BeamSearch(vote="majority").scored
    assert begin(vote="majority").request.score
