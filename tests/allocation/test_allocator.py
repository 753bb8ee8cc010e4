"""The allocator without any model: who gets what, that no unit is promised twice, and why."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adaptive_ttc.allocation.allocator import Allocator
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.gain import Option
from adaptive_ttc.types import Stopped


def ladder(unit, *gains, slice_cost=None):
    """Options of 1, 2, 4, ... times ``unit`` units with these gains."""
    return [Option(2**i, unit * 2**i, gain, slice_cost or unit * 2**i) for i, gain in enumerate(gains)]


def opened(allocator, *ids, opening=10, spent=10):
    """Let problems arrive and have their opening."""
    for id in ids:
        allocator.arrive(id, opening)
    for id in ids:
        decision = allocator.next()
        assert (decision.problem, decision.option, decision.units) == (id, None, opening)
    for id in ids:
        allocator.charged(id, spent)
    return allocator


def drain(allocator, share=1.0):
    """Carry all decisions out one by one; options are not offered again."""
    order = []
    while decision := allocator.next():
        order.append(decision)
        allocator.charged(decision.problem, int(share * decision.units))
    return order


def test_two_votes_gain_nothing_and_four_gain_much_and_yet_it_goes_on():
    """The trap of one-step greedy: from one vote, one more never changes a majority, so it stays at N=1."""
    gains = {1: 0.0, 2: 0.05, 4: 0.2}  # more votes, on top of one
    options = [Option(more, 10 * more, gain, 10) for more, gain in gains.items()]
    allocator = opened(Allocator(1_000), "a")
    assert allocator.offer("a", options[:1]) == "content"  # all that one-step greedy sees
    assert allocator.offer("a", options) == "ready"
    decision = allocator.next()
    assert decision.option.action == 4
    assert decision.units == 10  # a slice, after which it looks again


def test_who_gains_most_per_unit_goes_first():
    allocator = opened(Allocator(1_000), "a", "b", "c")
    allocator.offer("a", ladder(10, 0.1))
    allocator.offer("b", ladder(10, 0.01, 0.02, 0.5))  # 0.0125 a unit, all of it at once
    allocator.offer("c", ladder(20, 0.22))
    assert [one.problem for one in drain(allocator)] == ["b", "c", "a"]


def test_of_two_ways_to_one_end_the_dear_one_is_taken_where_units_are_plentiful():
    ways = [Option("samples", 100, 0.1, 100), Option("search", 400, 0.25, 400)]
    free = opened(Allocator(10_000), "a")
    free.offer("a", ways)
    assert free.next().option.action == "search"
    dear = opened(Allocator(None, min_gain=0.6), "a")  # 0.15 for 300 units more is under that
    dear.offer("a", ways)
    assert dear.next().option.action == "samples"
    pressed = opened(Allocator(420), "a", "b")
    pressed.offer("a", ways)
    pressed.offer("b", [Option("samples", 400, 0.3, 400)])
    assert pressed.next().option.action == "samples"


def test_equal_problems_go_in_order_of_arrival():
    allocator = opened(Allocator(1_000), "b", "a", "c")
    for id in "cab":
        allocator.offer(id, ladder(10, 0.1))
    assert [one.problem for one in drain(allocator)] == ["b", "a", "c"]


def test_everyone_who_arrived_is_opened_before_any_second_slice():
    allocator = opened(Allocator(1_000), "a")
    allocator.offer("a", ladder(10, 0.9))
    allocator.arrive("b", 30)
    allocator.arrive("c", 20)
    assert [allocator.next().problem for _ in range(3)] == ["b", "c", "a"]


def test_an_opening_waits_for_what_runs_and_nobody_passes_it():
    allocator = Allocator(100)
    allocator.arrive("a", 60)
    allocator.arrive("b", 60)
    allocator.arrive("c", 10)
    assert allocator.next().problem == "a"
    assert allocator.next() is None
    allocator.charged("a", 35)
    allocator.offer("a", ladder(5, 0.5))
    assert allocator.next().problem == "b"
    assert allocator.next() is None  # 5 left: neither c's opening nor a's slice
    allocator.charged("b", 60)
    assert allocator.next().units == 5  # nothing runs that could give back: half of c's opening is worth starting
    assert allocator.available == 0


def test_an_opening_that_can_no_longer_be_paid_for_does_not_hold_others_up():
    allocator = opened(Allocator(60), "a", opening=30, spent=30)
    allocator.arrive("b", 100)
    allocator.arrive("c", 20)
    assert allocator.next().problem == "c"
    assert allocator.standing("b") == "short"
    allocator.charged("c", 20)
    allocator.offer("a", ladder(10, 0.1))
    assert allocator.next().problem == "a"


def test_problems_may_arrive_at_any_time():
    allocator = opened(Allocator(1_000), "a")
    allocator.offer("a", ladder(10, 0.1))
    allocator.settled("a")
    assert allocator.next() is None
    allocator.arrive("b", 10)
    assert allocator.next().problem == "b"


def test_a_problem_under_the_price_is_parked_and_revived_when_the_price_falls():
    allocator = opened(Allocator(140), "rich", "poor", opening=20, spent=20)
    assert allocator.offer("rich", ladder(100, 0.5)) == "ready"
    assert allocator.offer("poor", ladder(50, 0.05)) == "parked"  # 100 are left, and wanted at a better price
    assert price_is(allocator, 0.005)
    allocator.settled("rich")
    assert allocator.price == 0
    assert allocator.next().problem == "poor"


def test_reservations_that_were_not_used_revive_too():
    allocator = opened(Allocator(140), "rich", "poor", opening=20, spent=20)
    allocator.offer("rich", ladder(100, 0.5))
    allocator.offer("poor", ladder(50, 0.05))
    assert allocator.next().problem == "rich"
    assert allocator.next() is None
    allocator.charged("rich", 50)
    allocator.offer("rich", [])
    assert allocator.next().problem == "poor"


def price_is(allocator, per_unit):
    return allocator.price == pytest.approx(1_000 * per_unit, rel=0.02)


def test_hysteresis_keeps_a_problem_near_the_price_parked_until_it_is_clearly_worth_it():
    def pressed(hysteresis):
        allocator = Allocator(1_000, hysteresis=hysteresis)
        for id in ("runs", "near", "too", "other"):
            allocator.arrive(id, 1)
        for id in ("runs", "near", "too", "other"):
            allocator.next()
            allocator.charged(id, 1)
        allocator.offer("runs", [Option("x", 100, 0.9, 100)])
        allocator.next()
        allocator.offer("other", [Option("x", 10, 0.09, 10), Option("y", 950, 0.09 + 940 * 0.00098, 10)])
        assert price_is(allocator, 0.00098)
        for id in ("near", "too"):
            assert allocator.offer(id, [Option("x", 50, 0.05 * 0.95, 50)]) == "parked"
        return allocator

    for hysteresis, expected in ((0.0, "near"), (0.1, None)):
        allocator = pressed(hysteresis)
        allocator.settled("other")
        allocator.arrive("late", 1)
        allocator.next()
        allocator.charged("late", 1)
        # the price is now a little under what "near" gains
        allocator.offer("late", [Option("y", 900, 900 * 0.0009, 900)])
        assert price_is(allocator, 0.0009)
        decision = allocator.next()
        assert (decision and decision.problem) == expected
        if expected is None:
            assert allocator.standing("near") == "parked"
            allocator.charged("runs", 100)
            allocator.settled("runs")
            # nothing runs: no margin is needed, and all that are worth the price go on side by side
            assert [allocator.next().problem for _ in range(2)] == ["near", "too"]


def test_what_is_expected_of_those_that_wait_raises_the_price():
    allocator = opened(Allocator(150), "a")
    allocator.arrive("b", 20, options=[Option("x", 140, 0.9, 20)])
    assert allocator.offer("a", ladder(50, 0.05)) == "parked"
    bare = opened(Allocator(150), "a")
    bare.arrive("b", 20)
    assert bare.offer("a", ladder(50, 0.05)) == "ready"


def test_nothing_is_bought_under_the_least_price():
    allocator = opened(Allocator(None, min_gain=1.0), "a", "b")
    assert allocator.offer("a", ladder(100, 0.099)) == "content"
    assert allocator.offer("b", ladder(100, 0.101)) == "ready"
    assert allocator.price == 1.0
    assert [one.problem for one in drain(allocator)] == ["b"]


def test_without_a_limit_nothing_is_ever_too_dear():
    allocator = opened(Allocator(None), "a")
    allocator.offer("a", [Option("x", 1e15, 1e-6, 10**15)])
    assert allocator.next().units == 10**15
    assert allocator.available is None


def test_a_problem_gets_no_more_than_its_own_maximum():
    allocator = opened(Allocator(1_000, per_problem_max=45), "a")
    assert allocator.offer("a", [Option("big", 40, 0.9, 40)]) == "short"
    assert allocator.offer("a", [Option("big", 40, 0.9, 40), Option("sliced", 30, 0.1, 50)]) == "ready"
    decision = allocator.next()
    assert (decision.option.action, decision.units) == ("sliced", 35)
    allocator.arrive("b", 70)
    assert allocator.next().units == 45


def test_what_can_no_longer_be_finished_gives_way_to_what_can():
    allocator = opened(Allocator(60), "a")
    allocator.offer("a", [Option("search", 40, 0.9, 50), Option("sample", 5, 0.05, 8)])
    allocator.arrive("b", 10)
    assert allocator.next().problem == "b"
    allocator.charged("b", 10)
    assert allocator.next().units == 40  # all that is left: less than the slice, enough for what it is expected to take
    allocator.charged("a", 30)
    allocator.offer("a", [Option("search", 40, 0.9, 50), Option("sample", 5, 0.05, 8)])
    assert allocator.next().option.action == "sample"


def test_who_is_over_because_others_took_what_was_left_is_told_once():
    allocator = opened(Allocator(100), "a", "b")
    allocator.offer("a", [Option(1, 50.0, 0.9, 50)])
    allocator.offer("b", [Option(1, 60.0, 0.5, 60)])
    decision = allocator.next()
    assert decision.problem == "a"
    allocator.charged("a", decision.units)
    assert allocator.ended() == []
    assert allocator.next() is None
    assert allocator.standing("b") == "short"
    assert allocator.ended() == ["b"]
    assert allocator.ended() == []


def test_what_may_end_with_fewer_units_than_expected_is_tried_with_what_is_left():
    allocator = opened(Allocator(60), "a", "b", spent=25, opening=30)
    allocator.offer("a", [Option("new", 40.0, 0.9, 40)])
    allocator.offer("b", [Option("rest", 15.0, 0.4, 30, least=1)])
    decision = allocator.next()
    assert (decision.problem, decision.option.action, decision.units) == ("b", "rest", 10)


def test_the_last_units_of_one_problem_are_not_wasted():
    allocator = opened(Allocator(200), "a", opening=60, spent=60)
    spent = []
    while allocator.offer("a", [Option("sample", 60, 0.1, 90)]) == "ready" and (decision := allocator.next()):
        spent.append(min(decision.units, 60))
        allocator.charged("a", spent[-1])
    assert spent == [60, 60]
    assert allocator.standing("a") == "short"


def test_the_best_waits_and_others_do_not_take_what_it_waits_for():
    allocator = opened(Allocator(200), "a", "b", "c")
    allocator.offer("a", [Option("x", 100, 0.9, 120)])
    allocator.offer("b", [Option("x", 60, 0.5, 60)])
    allocator.offer("c", [Option("x", 10, 0.01, 10)])
    assert allocator.next().problem == "a"
    assert allocator.next() is None
    assert allocator.available == 50
    allocator.charged("a", 100)
    assert [one.problem for one in drain(allocator)] == ["b", "c"]


def test_what_failed_gives_back_what_it_did_not_spend():
    allocator = opened(Allocator(100), "a", "b")
    allocator.offer("a", [Option("x", 60, 0.5, 60)])
    allocator.next()
    allocator.failed("a", 15)
    assert (allocator.spent, allocator.promised, allocator.available) == (35, 0, 65)
    assert allocator.standing("a") == "failed"
    allocator.failed("b")
    assert allocator.next() is None


def test_wrong_calls_say_what_to_do():
    allocator = Allocator(100)
    allocator.arrive("a", 10)
    with pytest.raises(ValueError, match="ids must differ"):
        allocator.arrive("a", 10)
    with pytest.raises(ValueError, match="at least 1 unit"):
        allocator.arrive("z", 0)
    with pytest.raises(ValueError, match="no problem 'b' has arrived"):
        allocator.offer("b", [])
    with pytest.raises(ValueError, match="offered after charged"):
        allocator.offer("a", [])
    with pytest.raises(ValueError, match="nothing is promised"):
        allocator.charged("a", 0)
    allocator.next()
    with pytest.raises(ValueError, match="cannot settle 11"):
        allocator.charged("a", 11)
    with pytest.raises(ValueError, match="cannot settle 11"):
        allocator.failed("a", 11)
    with pytest.raises(ValueError, match="with what it spent first"):
        allocator.settled("a")
    assert (allocator.promised, allocator.standing("a")) == (10, "running")
    allocator.charged("a", 10)
    with pytest.raises(ValueError, match="cannot have spent"):
        allocator.failed("a", 1)
    allocator.settled("a")
    with pytest.raises(ValueError, match="has settled already"):
        allocator.failed("a")
    with pytest.raises(ValueError, match="is settled"):
        allocator.offer("a", [])


@pytest.mark.parametrize(
    "options",
    [
        {"budget": -1},
        {"budget": 1, "min_gain": -1},
        {"budget": 1, "min_gain": float("nan")},
        {"budget": 1, "hysteresis": -0.1},
        {"budget": 1, "per_problem_max": 0},
        {"budget": 1, "floor": 1.1},
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ConfigError, match=r"at least|between"):
        Allocator(**options)


def test_a_problem_is_over_when_others_want_all_that_is_left_at_twice_its_worth():
    allocator = opened(Allocator(190), "a", "b", "c")
    allocator.offer("a", ladder(40, 0.4, 0.8, 1.6, slice_cost=40))
    allocator.offer("b", ladder(40, 0.3))  # worth less than the price, and not by much
    allocator.offer("c", ladder(40, 0.1))
    assert allocator.next().problem == "a"
    assert allocator.ended() == ["c"]
    assert [allocator.standing(id) for id in "abc"] == ["running", "parked", "outbid"]
    assert "others gained more per unit" in allocator.report().problems[2].explain()
    for id, spent in (("a", 40), ("c", 0)):
        if spent:
            allocator.charged(id, spent)
        allocator.settled(id)
    assert allocator.next().problem == "b"


def test_none_is_over_by_the_price_before_all_that_have_arrived_were_opened():
    allocator = opened(Allocator(190), "a", "b", "c")
    allocator.offer("a", ladder(40, 0.4, 0.8, 1.6, slice_cost=40))
    allocator.offer("b", ladder(40, 0.3))
    allocator.offer("c", ladder(40, 0.1))
    assert allocator.next().problem == "a"
    allocator.arrive("d", 10)  # what it wants is only guessed
    assert allocator.ended() == []
    assert allocator.standing("c") == "parked"
    assert allocator.next().problem == "d"
    assert allocator.ended() == ["c"]


def test_of_problems_that_are_long_over_the_report_keeps_a_line(monkeypatch):
    monkeypatch.setattr("adaptive_ttc.allocation.allocator.DETAILED", 1)
    allocator = opened(Allocator(1_000), "a", "b")
    for id in "ab":
        allocator.offer(id, ladder(10, 0.1))
        allocator.charged(allocator.next().problem, 10)
        allocator.offer(id, ladder(10, 0.002))
    before = allocator.report().problems
    allocator.settled("a")
    detailed = allocator.report().problems[0]
    allocator.settled("b")
    first, second = allocator.report().problems
    assert (first.grants, first.considered, len(second.grants)) == ((), (), 2)
    kept = ("spent", "slices", "opening", "slope", "price", "ending")
    assert all(getattr(first, name) == getattr(detailed, name) for name in kept)
    assert [(one.slices, one.opening, one.spent) for one in before] == [(2, 10, 20)] * 2
    assert "20 units in 2 slices" in first.explain()


def test_the_report_tells_who_got_what_and_why_it_stopped():
    allocator = opened(Allocator(116), "a", "b", "c", "d", spent=9)
    allocator.offer("a", ladder(40, 0.4, 0.5, slice_cost=40))
    allocator.offer("b", [])
    allocator.offer("c", ladder(40, 0.01))
    allocator.offer("d", [Option("x", 400, 0.9, 400)])
    first = allocator.next()
    allocator.charged("a", 40)
    allocator.offer("a", ladder(40, 0.1))
    running = allocator.next()
    report = allocator.report()
    assert (report.budget, report.spent, report.promised) == (116, 76, 40)
    assert report.prices[-2:] == (first.price, running.price)
    problems = {one.id: one for one in report.problems}
    assert list(problems) == ["a", "b", "c", "d"]
    assert [(grant.units, grant.spent) for grant in problems["a"].grants] == [(10, 9), (40, 40), (40, None)]
    assert problems["a"].spent == 49
    assert [problems[id].standing for id in "abcd"] == ["running", "content", "parked", "short"]
    assert problems["c"].considered == tuple(ladder(40, 0.01))
    assert problems["c"].slope == pytest.approx(0.25)
    assert "others gained more per unit" in problems["c"].explain()
    allocator.charged("a", 40)
    for id in "abcd":
        allocator.settled(id)
    ended = {one.id: one for one in allocator.report().problems}
    assert all(one.standing == "settled" for one in ended.values())
    kinds = [Stopped.STOPPED, Stopped.BUDGET, Stopped.NOT_WORTH_IT, Stopped.BUDGET]
    assert [ended[id].ending.stopped for id in "abcd"] == kinds
    assert "d: 9 units in 1 slices; what was left, of the budget or" in ended["d"].explain()


def run(seed, budget, problems, at_once):
    """A random pool, its replies in random order; what was decided."""
    rng = random.Random(seed)
    allocator = Allocator(budget)
    for index in range(problems):
        allocator.arrive(str(index), rng.randint(5, 40))
    running, decisions = [], []
    while True:
        decision = allocator.next() if len(running) < at_once else None
        if decision:
            decisions.append(decision)
            running.append(decision)
            continue
        if not running:
            return allocator, decisions
        done = running.pop(rng.randrange(len(running)))
        allocator.charged(done.problem, rng.randint(0, done.units))
        unit = rng.randint(1, 30)
        options = ladder(unit, *(rng.random() for _ in range(4)), slice_cost=2 * unit)
        if allocator.offer(done.problem, options if rng.random() < 0.8 else []) in ("content", "short"):
            allocator.settled(done.problem)


@given(st.integers(0, 10_000), st.integers(0, 3_000), st.integers(1, 12), st.integers(1, 6))
def test_the_same_calls_make_the_same_decisions(seed, budget, problems, at_once):
    (one, first), (other, second) = (run(seed, budget, problems, at_once) for _ in range(2))
    assert first == second
    assert one.report() == other.report()


@given(st.integers(0, 10_000), st.integers(0, 3_000), st.integers(1, 12), st.integers(1, 6))
def test_it_ends_when_nothing_that_is_wanted_is_affordable(seed, budget, problems, at_once):
    allocator, _ = run(seed, budget, problems, at_once)
    left = budget - allocator.spent
    for one in allocator.report().problems:
        if one.standing != "settled":
            assert all(option.cost > left or option.gain <= 0 for option in one.considered)
        if not one.grants:
            assert one.standing in ("short", "settled")


IDS = [str(index) for index in range(8)]


class AllocatorMachine(RuleBasedStateMachine):
    """Any sequence of events against a model that only adds and subtracts."""

    def __init__(self):
        super().__init__()
        self.budget = 400
        self.allocator = Allocator(self.budget, per_problem_max=150)
        self.waiting, self.running, self.idle, self.over = [], {}, {}, set()
        self.openings, self.given = {}, dict.fromkeys(IDS, 0)
        self.spent = 0

    def end(self, id):
        for group in (self.running, self.idle):
            group.pop(id, None)
        if id in self.waiting:
            self.waiting.remove(id)
        self.over.add(id)

    @rule(id=st.sampled_from(IDS), opening=st.integers(1, 120))
    def arrive(self, id, opening):
        if id not in self.openings:
            self.allocator.arrive(id, opening)
            self.openings[id] = opening
            self.waiting.append(id)

    @precondition(lambda self: self.waiting or None in self.idle.values())
    @rule(data=st.data(), opening=st.integers(1, 120))
    def reopen(self, data, opening):
        came_to_nothing = sorted(id for id, some in self.idle.items() if some is None)
        id = data.draw(st.sampled_from([*self.waiting, *came_to_nothing]))
        if id not in self.waiting and self.allocator.standing(id) != "open":
            return
        self.allocator.reopen(id, opening)
        self.openings[id] = min(opening, 150 - self.given[id])
        if id not in self.waiting:
            del self.idle[id]
            self.waiting.insert(0, id)

    @rule()
    def next(self):
        idle = dict(self.idle)
        left = self.budget - self.spent - sum(self.running.values())
        decision = self.allocator.next()
        if decision is None:
            if not self.running:
                # nothing to wait for: openings that even half of is too much were given up, the rest is not wanted
                assert all(left < (self.openings[id] + 1) // 2 for id in self.waiting)
                self.pass_over(self.waiting)
                affordable = [id for id, some in idle.items() if self.worth(id, some, left)]
                assert affordable == [] or any(some is None for some in idle.values())
            return
        assert 1 <= decision.units <= left
        assert decision.units + self.given[decision.problem] <= 150
        if decision.option is None:
            before = self.waiting[: self.waiting.index(decision.problem)]
            assert all(not self.running and left < (self.openings[id] + 1) // 2 for id in before)
            self.pass_over(before)
            self.waiting.remove(decision.problem)
            assert decision.units <= self.openings[decision.problem]
        else:
            # the floor: whoever has not had an opening can no longer have one
            assert all(left < (self.openings[id] + 1) // 2 and not self.running for id in self.waiting)
            self.pass_over(self.waiting)
            some = self.idle.pop(decision.problem)
            assert decision.option in some
            assert decision.option.gain > 0
            assert decision.units <= decision.option.slice_cost
            if not self.running:
                # by slope, among all that could be finished
                best = max(self.worth(id, some, left) for id, some in idle.items())
                assert self.worth(decision.problem, some, left) >= best * (1 - 1e-9)
        self.running[decision.problem] = decision.units

    def pass_over(self, ids):
        for id in list(ids):
            self.waiting.remove(id)
            self.idle[id] = ()

    def worth(self, id, some, left):
        fits = [one for one in some or () if one.cost <= min(left, 150 - self.given[id])]
        return max([0.0, *(one.gain / one.cost for one in fits)])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), share=st.floats(0, 1))
    def charge(self, data, share):
        id = data.draw(st.sampled_from(sorted(self.running)))
        used = int(share * self.running.pop(id))
        self.allocator.charged(id, used)
        self.spent += used
        self.given[id] += used
        self.idle[id] = None

    @precondition(lambda self: self.idle)
    @rule(data=st.data(), gains=st.lists(st.integers(-2, 20), max_size=5), unit=st.integers(1, 30))
    def offer(self, data, gains, unit):
        id = data.draw(st.sampled_from(sorted(self.idle)))
        some = [Option(i, unit * 2**i, gain / 20, 1 + unit * 2 ** (i // 2)) for i, gain in enumerate(gains)]
        standing = self.allocator.offer(id, some)
        self.idle[id] = tuple(some)
        if not any(one.gain > 0 for one in some):
            assert standing == "content"

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def settle(self, data):
        id = data.draw(st.sampled_from(sorted(self.idle)))
        self.allocator.settled(id)
        self.end(id)

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data(), share=st.floats(0, 1))
    def fail(self, data, share):
        id = data.draw(st.sampled_from(sorted([*self.running, *self.waiting])))
        used = int(share * self.running.get(id, 0))
        self.allocator.failed(id, used)
        self.spent += used
        self.end(id)

    @invariant()
    def nothing_is_promised_twice(self):
        allocator = self.allocator
        assert allocator.spent == self.spent
        assert allocator.promised == sum(self.running.values())
        assert allocator.spent + allocator.promised <= self.budget
        assert allocator.available == self.budget - self.spent - sum(self.running.values())

    @invariant()
    def the_report_adds_up(self):
        report = self.allocator.report()
        assert sum(one.spent for one in report.problems) == report.spent
        assert all(one.spent == sum(grant.spent or 0 for grant in one.grants) for one in report.problems)
        assert len(report.prices) == sum(len(one.grants) for one in report.problems)


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=40)


def test_what_runs_spends_from_its_promise_and_the_budget_knows_at_once():
    allocator = Allocator(100)
    allocator.arrive("a", opening=40)
    allocator.next()
    promise = allocator.promise("a")
    promise.reserve(30).settle(25)
    assert (promise.limit, allocator.spent, allocator.promised, allocator.available) == (40, 25, 15, 60)
    allocator.charged("a")
    assert (allocator.spent, allocator.promised, allocator.available) == (25, 0, 75)
    assert allocator.report().problems[0].grants[0].spent == 25
    with pytest.raises(ValueError, match="nothing is promised"):
        allocator.promise("a")


def test_units_are_left_for_problems_that_are_still_to_come():
    def first_price(expected):
        allocator = Allocator(1_000)
        wants = [Option("more", 400, 0.4, 100), Option("most", 800, 0.5, 100)]
        allocator.expect(expected, 20, wants)
        allocator.arrive("a", opening=20, options=wants)
        allocator.next()
        allocator.charged("a", 20)
        allocator.offer("a", wants)
        return allocator, allocator.price

    (_, alone), (crowded, price) = first_price(1), first_price(5)
    assert alone == 0
    assert price > 0.1  # not all of them can have even the better half
    crowded.expect(0)
    assert crowded.price == 0


def test_what_is_kept_for_openings_to_come_is_no_more_than_a_problem_may_have_and_no_reason_to_give_up():
    capped = Allocator(1_000, per_problem_max=30)
    capped.expect(10, opening=60)
    capped.arrive("a", opening=60)
    assert capped._due == 10 * 30
    allocator = Allocator(1_000)
    allocator.expect(12, opening=60)
    allocator.arrive("a", opening=60)
    allocator.next()
    allocator.charged("a", 40)
    assert allocator.offer("a", [Option("more", 400, 0.4, 400)]) in ("ready", "parked")
    allocator.expect(0)
    assert allocator.next().option.action == "more"


@pytest.mark.parametrize(("earlier", "why"), [(False, "its opening"), (True, "can be done with what was left")])
def test_what_an_earlier_run_has_opened_is_not_said_to_lack_its_opening(earlier, why):
    allocator = Allocator(20)
    if earlier:
        allocator.go_on("a", 15)
        allocator.offer("a", ladder(40, 0.5))
    else:
        allocator.arrive("a", 4_000)
    assert allocator.next() is None
    assert why in allocator.ending("a").why


def test_what_waits_for_its_opening_or_had_none_is_opened_anew():
    allocator = Allocator(100)
    for id in "abc":
        allocator.arrive(id, 40, ladder(10, 0.5))
    first = allocator.next()
    assert (first.problem, first.units) == ("a", 40)
    with pytest.raises(ValueError, match="'a' is running: it has been opened"):
        allocator.reopen("a", 10)
    allocator.charged("a", 15)
    for id in "bca":
        allocator.reopen(id, 20, ladder(10, 0.5))
    found = [allocator.next() for _ in range(4)]
    assert [(one.problem, one.option, one.units) for one in found[:3]] == [(id, None, 20) for id in "abc"]
    assert found[3] is None
    for id in "abc":
        allocator.charged(id, 20)
    assert [allocator.offer(id, ladder(10, 0.5)) for id in "abc"] == ["ready"] * 3
    with pytest.raises(ValueError, match="'b' is ready"):
        allocator.reopen("b", 10)
    assert sum(one.units for one in drain(allocator)) == 20 <= allocator.available + 20
    assert allocator.report().problems[0].opening == 35
