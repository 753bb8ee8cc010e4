"""What the trace says of searches: what was asked, what came of it, and what was gone on without."""

import anyio
import pytest

from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.events import (
    ExpandedEvent,
    ExpandEvent,
    FinishedEvent,
    ForkEvent,
    PrunedEvent,
    SampledEvent,
    ScoredEvent,
)
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.strategies import make_strategy
from adaptive_ttc.strategies.requests import Expand, Fork
from adaptive_ttc.types import ROOT, Problem, revision_of
from tests.doubles import TinyPolicy

PROBLEM = Problem.of("how much?", id="p")
STEP = ("\n\n",)


def scorer():
    return FakePRM(lambda question, steps: (len("".join(steps)) * 7 % 11) / 11)


def drive(search, policy=None, budget=None, seed=0):
    driver = Driver(PROBLEM, policy or TinyPolicy(mean=25), Ledger(budget), prm=scorer(), seed=seed)
    return anyio.run(driver.run, search), driver.trace


def steps(*texts):
    return FakePolicy.scripted({"how much?": list(texts)})


def first_steps(n=1, prefix=ROOT, **settings):
    return (yield from Expand(prefixes=(prefix,), n=n, stop=STEP, score=True, **settings))


# ---- asked and answered ---------------------------------------------------------------------------------------


def test_a_request_and_its_reply_have_the_same_number():
    def search():
        (a, b) = yield from first_steps(2)
        (c,) = yield from first_steps(1, b, max_tokens=90, temperature=0.3, top_p=0.7)
        return (a, c)

    (a, c), trace = drive(search(), steps("one\n\ntwo", "three\n\nfour"))
    first, second = trace.of(ExpandEvent)
    assert (first.branch, first.number, first.paths, first.n, first.stop, first.score) == ((), 0, ((),), 2, STEP, True)
    assert (second.number, second.paths) == (1, (c.path[:-1],))
    assert (second.max_tokens, second.temperature, second.top_p) == (90, 0.3, 0.7)
    replies = [(event.branch, event.number, event.children) for event in trace.of(ExpandedEvent)]
    assert replies == [((), 0, (a.path, (1,))), ((), 1, (c.path,))]


def test_the_attempts_that_a_sample_is_shown_are_named():
    def search():
        a, b = yield from Expand(prefixes=(ROOT,), n=2)
        return (yield from Expand(prefixes=(revision_of(a, b), ROOT)))

    _, trace = drive(search())
    assert [event.attempts for event in trace.of(ExpandEvent)] == [((),), (((0,), (1,)), ())]


def test_finished_solutions_are_told_with_their_scores_after_these_and_before_the_reply():
    children, trace = drive(first_steps(2), steps("one", "two\n\nthree"))
    kinds = [(event.kind, getattr(event, "path", None)) for event in trace if event.kind != "request"]
    (told,) = trace.of(FinishedEvent)
    assert (told.path, told.text, told.tokens, told.scores) == ((0,), "one", 4, children[0].scores)
    assert kinds.index(("scored", (0,))) < kinds.index(("finished", (0,))) < kinds.index(("expanded", None))


# ---- pruned ---------------------------------------------------------------------------------------------------


def test_what_is_asked_no_children_of_is_pruned_when_the_search_goes_on():
    def search():
        children = yield from first_steps(3)
        return (yield from first_steps(1, children[1]))

    _, trace = drive(search(), steps("one\n\n1", "two\n\n2", "three\n\n3"))
    pruned = trace.of(PrunedEvent)
    assert [(event.path, event.score is None, event.merged_into) for event in pruned] == [
        ((0,), False, None),
        ((2,), False, None),
    ]
    kinds = [event.kind for event in trace]
    assert kinds.index("pruned") > kinds.index("expanded")
    assert kinds.index("pruned") < len(kinds) - 1 - kinds[::-1].index("expand")


def test_what_is_kept_beside_a_request_is_not_pruned_by_it():
    def search():
        a, b = yield from first_steps(2)
        (c,) = yield from Expand(prefixes=(a,), stop=STEP, score=True, beside=(b,))
        (d,) = yield from first_steps(1, b)
        return (c, d)

    _, trace = drive(search(), steps("one\n\n1", "two\n\n2"))
    assert trace.of(PrunedEvent) == ()


def test_what_is_not_handed_in_is_pruned_at_the_end():
    def search():
        children = yield from first_steps(2)
        return children[1:]

    _, trace = drive(search(), steps("one\n\n1", "two\n\n2"))
    assert [event.path for event in trace.of(PrunedEvent)] == [(0,)]


def test_equal_steps_are_merged_into_the_one_that_is_gone_on_from():
    def search():
        children = yield from first_steps(4)
        return (yield from first_steps(1, children[1]))

    _, trace = drive(search(), steps("one\n\n1", "two\n\n2", "two\n\n3", "one\n\n4"))
    merged = {event.path: event.merged_into for event in trace.of(PrunedEvent)}
    assert merged == {(0,): None, (2,): (1,), (3,): (0,)}


def test_what_was_gone_on_from_is_not_pruned_when_its_children_have_ended():
    def search():
        a, b = yield from first_steps(2)
        c = yield from Expand(prefixes=(a,), stop=STEP, beside=(b,))
        return c + (yield from first_steps(1, b))

    _, trace = drive(search(), steps("one\n\n1", "two\n\n2"))
    assert trace.of(PrunedEvent) == ()


def test_ended_solutions_are_never_pruned():
    def search():
        yield from first_steps(3, max_tokens=4)
        return ()

    _, trace = drive(search(), steps("one", "three", "a\n\n1"))
    assert {event.finish for event in trace.of(SampledEvent)} == {"stop", "eos", "length"}
    assert [event.path for event in trace.of(PrunedEvent)] == [
        event.path for event in trace.of(SampledEvent) if event.finish == "stop"
    ]


# ---- whole searches -------------------------------------------------------------------------------------------

CASES = [
    ("beam_search", {"n": 8, "beam_width": 2}),
    ("beam_search", {"n": 8, "beam_width": 4, "lookahead": 2}),
    ("beam_search", {"n": 4, "beam_width": 2, "max_steps": 2}),
    ("dvts", {"n": 8, "beam_width": 2}),
    ("dvts", {"n": 6, "beam_width": 3, "lookahead": 1}),
    ("revision", {"n": 6, "sequential": 3}),
    ("weighted_best_of_n", {"n": 6, "slice_size": 2}),
]


def with_evidence(name, options):
    """A search that goes on from samples of the same run, some of them whole steps and one that was cut."""
    start = yield from first_steps(3)
    start += yield from Expand(prefixes=(ROOT,), n=1, score=True, max_tokens=60, beside=start)
    return (yield from make_strategy(name, max_tokens=120, **options).search(start))


@pytest.mark.parametrize("budget", [None, 90, 250])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_step_is_gone_on_from_handed_in_or_pruned_once(name, options, budget):
    for seed in range(6):
        candidates, trace = drive(with_evidence(name, options), budget=budget, seed=seed)
        pruned = [event.path for event in trace.of(PrunedEvent)]
        assert len(pruned) == len(set(pruned)), "pruned twice"
        handed_in = {one.path for one in candidates}
        assert not handed_in & set(pruned), "handed in although it was pruned"
        asked = {path for event in trace.of(ExpandEvent) for path in event.paths}
        late = _asked_after_pruning(trace)
        assert not late, "gone on from although it was pruned"
        whole = {event.path for event in trace.of(SampledEvent) if event.finish == "stop"}
        assert whole <= set(pruned) | handed_in | asked, "forgotten"
        for event in trace.of(PrunedEvent):
            if event.merged_into is not None:
                assert _texts(trace)[event.merged_into] == _texts(trace)[event.path]


def _asked_after_pruning(trace):
    pruned, late = set(), []
    for event in trace:
        if isinstance(event, PrunedEvent):
            pruned.add(event.path)
        elif isinstance(event, ExpandEvent):
            late += [path for path in event.paths if path in pruned]
    return late


def _texts(trace):
    texts = {(): ""}
    for event in sorted(trace.of(SampledEvent), key=lambda event: len(event.path)):
        texts[event.path] = texts[event.path[:-1]] + event.text
    return texts


def test_merged_beams_are_common_and_each_names_a_survivor():
    merged = 0
    for seed in range(10):
        _, trace = drive(
            make_strategy("beam_search", n=16, beam_width=4).search(), TinyPolicy(mean=25, step=2), seed=seed
        )
        texts, twins = _texts(trace), {}
        for event in trace.of(PrunedEvent):
            twins[event.path] = event.merged_into
        for path, into in twins.items():
            merged += into is not None
            assert into is None or (texts[into] == texts[path] and twins.get(into) is None)
    assert merged > 10


# ---- names ----------------------------------------------------------------------------------------------------


def named(trace):
    """Everything on the trace that does not depend on who came first, by its branch and number."""
    asked = {(event.branch, event.number): (event.paths, event.n) for event in trace.of(ExpandEvent)}
    children = {(event.branch, event.number): event.children for event in trace.of(ExpandedEvent)}
    forks = [(event.branch, event.number, event.searches, event.limits) for event in trace.of(ForkEvent)]
    pruned = sorted((event.path, event.score, event.merged_into or ()) for event in trace.of(PrunedEvent))
    return asked, children, sorted(forks), pruned, sorted(event.path for event in trace.of(ScoredEvent))


@pytest.mark.parametrize("budget", [None, 250])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_branches_and_numbers_are_unique_and_the_same_in_any_order(name, options, budget):
    _, calm = drive(with_evidence(name, options), budget=budget)
    ids = [(event.branch, event.number) for event in calm.of(ExpandEvent)]
    assert len(ids) == len(set(ids))
    assert ids == [] or set(ids) == {(event.branch, event.number) for event in calm.of(ExpandedEvent)}
    for chaos in range(4):
        _, wild = drive(with_evidence(name, options), TinyPolicy(mean=25, chaos=chaos), budget)
        assert named(wild) == named(calm)


def test_a_branch_is_the_way_through_the_forks():
    def leaf():
        return (yield from Expand(prefixes=(ROOT,)))

    def middle():
        yield from Expand(prefixes=(ROOT,))
        results = yield from Fork(searches=(leaf(), leaf()))
        return results[0]

    def search():
        yield from Fork(searches=(leaf(), middle()))
        return (yield from Expand(prefixes=(ROOT,)))

    _, trace = drive(search())
    ids = sorted((event.branch, event.number) for event in trace.of(ExpandEvent))
    assert ids == [((), 1), ((0, 0), 0), ((0, 1), 0), ((0, 1, 1, 0), 0), ((0, 1, 1, 1), 0)]
    assert [(event.branch, event.number, event.searches) for event in trace.of(ForkEvent)] == [
        ((), 0, (0, 1)),
        ((0, 1), 1, (0, 1)),
    ]


def test_a_search_that_runs_ahead_of_its_fork_keeps_its_place_in_it():
    """Where an equal part would finish nothing the first runs alone; the others keep their own numbers."""

    def search():
        results = yield from Fork(searches=tuple(first_steps(1, max_tokens=80) for _ in range(3)), least=80)
        return sum(results, ())

    _, trace = drive(search(), budget=100)
    assert [(event.number, event.searches) for event in trace.of(ForkEvent)] == [(0, (0,)), (0, (1, 2))]
    assert [event.branch for event in trace.of(ExpandEvent)] == [(0, 0), (0, 1), (0, 2)]


def test_requests_of_a_second_run_of_the_driver_are_numbered_on():
    driver = Driver(PROBLEM, TinyPolicy(mean=25), Ledger(None), prm=scorer())

    async def twice():
        start = await driver.run(first_steps(2))
        return await driver.run(make_strategy("beam_search", n=4, beam_width=2).search(start))

    anyio.run(twice)
    assert [event.number for event in driver.trace.of(ExpandEvent)] == list(range(len(driver.trace.of(ExpandEvent))))
    assert not _asked_after_pruning(driver.trace)
