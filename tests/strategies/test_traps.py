"""The twelve mistakes that implementations of these searches make, each with a test that making it would fail."""

import itertools

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from adaptive_ttc.answers.equivalence import partition
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.metrics import best_of_k, pass_at_k, vote_at_k
from adaptive_ttc.events import ExpandEvent, RequestEvent, SampledEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policies.chat_model import ChatFormat
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import DVTS, BeamSearch, make_strategy
from adaptive_ttc.tasks import Signal
from adaptive_ttc.types import Candidate, Prefix, Problem
from adaptive_ttc.voting import VOTES, select, tally
from tests.doubles import TinyPolicy
from tests.policies.tiny import TEMPLATE, byte_tokenizer
from tests.strategies.transcripts import Transcript

PROBLEM = Problem.of("how much?", id="traps")
SEARCHES = [
    ("beam_search", {"n": 8, "beam_width": 2}),
    ("dvts", {"n": 8, "beam_width": 2}),
    ("revision", {"n": 6, "sequential": 3}),
    ("weighted_best_of_n", {"n": 6}),
]


def scorer():
    return FakePRM(lambda question, steps: (len("".join(steps)) * 7 % 11) / 11)


def drive(name, options, policy=None, budget=None, seed=0, prm=None, problem=PROBLEM):
    policy, ledger = policy or TinyPolicy(mean=30), Ledger(budget)
    driver = Driver(problem, policy, ledger, prm=prm or scorer(), seed=seed)
    candidates = anyio.run(driver.run, make_strategy(name, max_tokens=150, **options).search())
    return candidates, driver, ledger, policy


def solve(policy, **arguments):
    with Solver(policy, FakePRM(lambda question, steps: 0.5)) as solver:
        return solver.solve_sync("how much?", **arguments)


# ---- 1: refilling N beams every round, and ending only when all N finish at once ------------------------------


def test_trap_01_beam_search_ends_when_n_have_finished_and_shrinks_on_the_way():
    search = Transcript(BeamSearch(n=16, beam_width=4).search())
    widths = []
    while search.request:
        widths.append(len(search.asked))
        ends = min(4, widths[-1])
        goes_on = [f"{len(widths)}.{index} .5" for index in range(widths[-1] - ends)]
        search.reply(*[f"{len(widths)}.{index}$ .5" for index in range(ends)], *goes_on)
    assert widths == [16, 12, 8, 4]
    assert len(search.result) == 16
    assert all(one.finished for one in search.result)


def test_trap_01_under_an_engine_a_few_rounds_suffice():
    for seed in range(5):
        candidates, driver, _, _ = drive("beam_search", {"n": 16, "beam_width": 4}, seed=seed)
        longest = max(one.text.count("\n\n") for one in candidates) + 1
        assert len(driver.trace.of(ExpandEvent)) <= longest < 40
        assert len(candidates) <= 16


# ---- 2: too narrow a first level, and copies among the candidates ---------------------------------------------


def test_trap_02_the_first_level_has_n_steps_and_no_beam_is_handed_in_twice():
    search = Transcript(BeamSearch(n=16, beam_width=4).search())
    assert search.asked == [""] * 16
    search.reply(*[f"{index} .{index:02}" for index in range(16)])
    assert search.asked == ["15/", "14/", "13/", "12/"] * 4
    search.reply(*["same$ .5", "same$ .5", "same$ .5", "same$ .5"] * 4)
    assert sorted(search.handed_in) == [f"{index}/same$" for index in range(12, 16)]


def test_trap_02_independent_samples_that_are_equal_keep_their_votes():
    solution = solve(FakePolicy.scripted({"how much?": ["\\boxed{2}"] * 3}), strategy="majority", n=3)
    assert (solution.answer_classes[0].votes, solution.effective_n) == (3, 3)
    search = Transcript(DVTS(n=4, beam_width=2).search())
    trees = [Transcript(tree) for tree in search.request.searches]
    for tree in trees:
        tree.reply("same$ .5", "same$ .5")
    search.send(tuple(tree.result for tree in trees))
    assert search.handed_in == ["same$", "same$"]


# ---- 3: scoring the empty last step ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), SEARCHES)
def test_trap_03_the_prm_scores_the_last_step_that_is_not_empty(name, options):
    asked = []

    class Recorder(FakePRM):
        def count_tokens(self, request):
            asked.append(request.steps)
            return 10

    prm = Recorder(lambda question, steps: len(steps) / 100)
    candidates, driver, _, _ = drive(name, options, prm=prm)
    texts = [event.text for event in driver.trace.of(SampledEvent)]
    assert any("\n\n" in text for text in texts)
    assert asked
    assert all(step.strip() for steps in asked for step in steps)
    for one in candidates:
        steps = [piece for piece in one.text.split("\n\n") if piece]
        assert one.scores == tuple((index + 1) / 100 for index in range(len(steps)))


# ---- 4: EOS, stop string and length confused ------------------------------------------------------------------


def test_trap_04_only_what_a_stop_string_ended_is_gone_on_from():
    search = Transcript(BeamSearch(n=4, beam_width=2).search())
    search.reply("a$ .9", "b! .8", "c .1", "d~ .7")
    assert set(search.asked) == {"c/"}
    for seed in range(5):
        policy = TinyPolicy(mean=60)
        candidates, driver, _, _ = drive("beam_search", {"n": 8, "beam_width": 2}, policy, seed=seed)
        ends = {event.path: event.finish for event in driver.trace.of(SampledEvent)}
        gone_on_from = {path for event in driver.trace.of(ExpandEvent) for path in event.paths if path}
        assert {ends[path] for path in gone_on_from} == {"stop"}
        assert all(one.finished == (one.token_ids[-1] == 0) for one in candidates)


def test_trap_04_a_truncated_solution_counts_as_finished_nowhere():
    """N stay wanted, whatever was truncated."""
    search = Transcript(BeamSearch(n=4, beam_width=2).search())
    search.reply("a! .9", "b! .8", "c! .7", "d .1")
    search.reply("e .9", "f .8")
    assert search.asked == ["d/e/", "d/f/"] * 2


def test_trap_04_a_truncated_solution_votes_only_if_it_holds_an_answer():
    texts = ["\\boxed{1}", "long " * 9 + "\\boxed{2}", "long " * 9, "\\boxed{2} and so on, and on", "longer " * 9]
    solution = solve(FakePolicy.scripted({"how much?": texts}), strategy="majority", n=5, max_tokens=20)
    assert [one.prefix.finish for one in solution.candidates] == ["eos", "length", "length", "length", "length"]
    assert {one.answer: one.votes for one in solution.answer_classes} == {"1": 1, "2": 1}
    assert solution.effective_n == 2


# ---- 5: unfinished siblings and empty answers that vote -------------------------------------------------------


def test_trap_05_unfinished_siblings_do_not_vote():
    """The siblings say 9, and are many; the solution that the tree kept says 4."""
    texts = ["it is \\boxed{4}", *["first I thought \\boxed{9}\n\nbut"] * 3]
    prm = FakePRM(lambda question, steps: 0.9 if "4" in steps[-1] else 0.8)
    with Solver(FakePolicy.scripted({"how much?": texts}), prm) as solver:
        solution = solver.solve_sync("how much?", strategy="dvts", n=4, beam_width=4)
    assert solution.answer == "4"
    assert [one.prefix.text for one in solution.candidates] == ["it is \\boxed{4}"]


@pytest.mark.parametrize("vote", VOTES)
def test_trap_05_missing_and_empty_answers_form_no_class(vote):
    prefix = Prefix(finish="eos")
    none, empty = Candidate(prefix, None, None, 0.9), Candidate(prefix, "", "", 0.9)
    one = Candidate(prefix, "1", "1", 0.6)
    assert [found.answer for found in tally([none, none, empty, empty, one], vote)] == ["1"]
    assert select([none, empty], vote) is None


def test_trap_05_a_box_with_nothing_in_it_is_no_answer():
    policy = FakePolicy.scripted({"how much?": ["\\boxed{}", "\\boxed{ }", "\\boxed{3}"]})
    solution = solve(policy, strategy="majority", n=3)
    assert [one.answer for one in solution.candidates] == [None, None, "3"]
    assert [(one.answer, one.votes) for one in solution.answer_classes] == [("3", 1)]


# ---- 6: tokens that are not counted ---------------------------------------------------------------------------


def assert_counted(candidates, driver, ledger, policy):
    """Every token that the engine delivered, once, whatever became of it."""
    requests = driver.trace.of(RequestEvent)
    assert driver.usage.completion_tokens == policy.delivered == sum(len(one.token_ids) for one in requests)
    assert ledger.spent == policy.delivered
    tree = {one.path[:depth] for one in candidates for depth in range(len(one.path) + 1)}
    return policy.delivered - sum(len(one.token_ids) for one in requests if one.path in tree)


@pytest.mark.parametrize("budget", [None, 80, 300])
@pytest.mark.parametrize(("name", "options"), SEARCHES)
def test_trap_06_pruned_cut_and_truncated_samples_are_counted(name, options, budget):
    rest = [assert_counted(*drive(name, options, TinyPolicy(mean=30), budget, seed)) for seed in range(4)]
    assert any(rest) or name in ("weighted_best_of_n", "revision"), "nothing was pruned, so this shows nothing"


async def test_trap_06_aborted_samples_are_counted():
    policy, ledger, stop = TinyPolicy(mean=500, chaos=1), Ledger(None), Signal()
    driver = Driver(PROBLEM, policy, ledger, prm=scorer(), stop=stop)
    handed_in = []

    async def search():
        handed_in.extend(await driver.run(BeamSearch(n=8, beam_width=2).search()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search)
        for _ in range(60):
            await anyio.lowlevel.checkpoint()
        stop.set()
    ends = [event.finish for event in driver.trace.of(RequestEvent) if event.token_ids]
    assert "abort" in ends
    assert_counted(handed_in, driver, ledger, policy)


def test_trap_06_what_was_computed_past_a_stop_string_stands_beside():
    policy = FakePolicy.generative(overrun=3)
    _, driver, ledger, _ = drive("beam_search", {"n": 4, "beam_width": 2}, policy, problem=Problem.of("1 + 2 + 3"))
    stops = sum(event.finish == "stop" for event in driver.trace.of(RequestEvent))
    assert driver.usage.discarded_tokens == 3 * stops > 0
    assert driver.usage.completion_tokens == policy.completion_tokens == ledger.spent


# ---- 7: N < M -------------------------------------------------------------------------------------------------


class Never(TinyPolicy):
    async def sample(self, request):
        raise AssertionError("the engine was called")


@pytest.mark.parametrize("strategy", ["beam_search", "dvts"])
@pytest.mark.parametrize(("n", "remedy"), [(2, 4), (1, 4), (3, 4), (6, 8)])
def test_trap_07_fewer_beams_than_children_are_refused(strategy, n, remedy):
    with pytest.raises(ConfigError, match=f"n={n} is not a multiple of beam_width=4; take n={remedy}"):
        solve(Never(), strategy=strategy, n=n, beam_width=4)


# ---- 8: rendering and tokenising text anew --------------------------------------------------------------------


class Ambiguous(TinyPolicy):
    """Its texts do not tell its tokens: encoding them anew gives others."""

    def encode(self, problem):
        return tuple(100 + ord(letter) for turn in problem.messages for letter in turn.content)


@pytest.mark.parametrize("budget", [None, 300])
@pytest.mark.parametrize(
    ("name", "options"), [*SEARCHES[:2], ("beam_search", {"n": 4, "beam_width": 2, "lookahead": 2})]
)
def test_trap_08_prompts_are_the_engines_own_tokens(name, options, budget):
    _, driver, _, policy = drive(name, options, Ambiguous(mean=30), budget)
    opening = policy.encode(PROBLEM)
    generated = {}
    for event in sorted(driver.trace.of(RequestEvent), key=lambda event: event.position):
        generated[event.path] = generated.get(event.path, ()) + event.token_ids
    assert any(len(request.path) > 2 for request in policy.requests)
    for request in policy.requests:
        so_far = request.prompt_ids[len(opening) :]
        assert request.prompt_ids[: len(opening)] == opening
        line = sum((generated.get(request.path[:depth], ()) for depth in range(1, len(request.path) + 1)), ())
        assert line[: len(so_far)] == so_far
        assert len(request.path) == 1 or so_far


def test_trap_08_earlier_attempts_are_shown_as_they_were_sampled():
    candidates, _, _, policy = drive("revision", {"n": 3, "sequential": 3}, Ambiguous(mean=30))
    last = next(request for request in policy.requests if request.path == candidates[2].path)
    first, second = (one.token_ids for one in candidates[:2])
    opening = policy.encode(PROBLEM)
    assert last.prompt_ids[len(opening) : len(opening) + len(first)] == first
    rest = last.prompt_ids[len(opening) + len(first) :]
    assert any(rest[start : start + len(second)] == second for start in range(len(rest)))


# ---- 9: curves from the first n samples -----------------------------------------------------------------------


def test_trap_09_estimates_at_k_use_every_sample_and_no_order():
    correct, scores, classes = [True, False, False, False], [0.9, 0.8, 0.2, 0.1], [0, 1, 1, 2]
    for order in itertools.permutations(range(4)):
        right, score, kind = (np.array(values)[list(order)] for values in (correct, scores, classes))
        assert pass_at_k(right, 1) == pytest.approx(1 / 4)
        assert pass_at_k(right, 2) == pytest.approx(1 - 3 / 6)
        assert best_of_k(right, score, 2) == pytest.approx(1 / 2)
        assert vote_at_k(kind, right, 2) == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 6)


# ---- 10: seeds that only the engine sees ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), SEARCHES)
def test_trap_10_a_seed_belongs_to_run_problem_and_path(name, options):
    def seeds(chaos=None, seed=0, problem=PROBLEM):
        _, driver, _, policy = drive(name, options, TinyPolicy(mean=30, chaos=chaos), None, seed, problem=problem)
        assert len(policy.requests) == len({request.seed for request in policy.requests})
        return {event.path: (event.seed, event.token_ids) for event in driver.trace.of(RequestEvent)}

    calm = seeds()
    assert all(seeds(chaos) == calm for chaos in range(4))
    for other in (seeds(seed=1), seeds(problem=Problem.of("how much?", id="another"))):
        assert not {one for one, _ in calm.values()} & {one for one, _ in other.values()}


# ---- 11: votes that depend on the order of the candidates -----------------------------------------------------


@pytest.mark.parametrize("vote", VOTES)
def test_trap_11_votes_do_not_depend_on_the_order_of_the_candidates(vote):
    def candidates(*pairs):
        return [Candidate(Prefix(path=(index,)), answer, answer, score) for index, (answer, score) in enumerate(pairs)]

    ties_by_score = candidates(("a", 0.5), ("a", 0.5), ("b", 0.75), ("b", 0.25), ("c", 0.1))
    ties_by_text = candidates(("b", 0.5), ("a", 0.5), ("b", 0.5), ("a", 0.5))
    rounding = candidates(("a", 0.1), ("a", 0.2), ("a", 0.3), ("b", 0.3), ("b", 0.2), ("b", 0.1))
    for pool, winner in ((ties_by_score, "b"), (ties_by_text, "a"), (rounding, "a")):
        outcomes = {tally(order, vote) for order in itertools.permutations(pool)}
        assert len(outcomes) == 1
        assert outcomes.pop()[0].answer == winner


def test_trap_11_classes_do_not_depend_on_the_order_and_both_directions_must_agree():
    def classes(answers, equivalent):
        search, reply = partition(answers), None
        try:
            while True:
                reply = search.send(reply) in equivalent
        except StopIteration as end:
            return dict(zip(answers, end.value, strict=True))

    answers, one_way = ["?a", "?b", "?c"], {("?a", "?b"), ("?c", "?a")}
    both_ways = {("?a", "?b"), ("?b", "?a")}
    for order in itertools.permutations(answers):
        assert classes(order, one_way) == {answer: answer for answer in answers}
        assert classes(order, both_ways) == {"?a": "?a", "?b": "?a", "?c": "?c"}


# ---- 12: dates in a chat template -----------------------------------------------------------------------------


@pytest.mark.parametrize("today", ["date_string", "strftime_now('%d %b %Y')", "strftime_now('%Y-%m-%d')"])
def test_trap_12_the_date_in_a_prompt_never_changes(today):
    tokenizer = byte_tokenizer("<system>{{ " + today + " }}" + TEMPLATE)
    text = tokenizer.decode(ChatFormat(tokenizer, None, "here").encode(PROBLEM))
    assert text in ("<system>26 Jul 2024<user>how much?<assistant>", "<system>2024-07-26<user>how much?<assistant>")
