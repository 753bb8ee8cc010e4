import pytest

from adaptive_ttc.policies.fake.writers import decode_tokens
from adaptive_ttc.policies.requests import StopRule, TokenTexts
from adaptive_ttc.policies.transformers.batching import GROUP_ROWS, Job, Move, Scheduler
from adaptive_ttc.policy import SampleRequest

NO_STOP = StopRule((), TokenTexts(decode_tokens, ord("a")))


def job(name, *, priority=0, prompt=3, limit=5, problem=None):
    """Its prompt is that of its problem; by default every request has its own."""
    ids = (hash(name if problem is None else problem) % 1000, *(1,) * (prompt - 1))
    request = SampleRequest(id=str(name), prompt_ids=ids, max_tokens=limit, seed=0, priority=priority)
    return Job(request=request, limit=limit, stop=NO_STOP, reply=lambda outcome: None)


def names(jobs):
    return [job.request.id for job in jobs]


def started(scheduler):
    """Start what may start; the names and the rows whose prompts they copy."""
    starts = []
    while (start := scheduler.start_next()) is not None:
        starts.append(start)
    return [start.job.request.id for start in starts], [start.source for start in starts]


def test_lower_priority_first_and_arrival_within():
    scheduler = Scheduler(4)
    for name, priority in (("a", 1), ("b", 0), ("c", 1), ("d", 0), ("e", -1)):
        scheduler.add(job(name, priority=priority))
    assert started(scheduler)[0] == ["e", "b", "d", "a"]
    assert len(scheduler._waiting) == 1


def test_a_free_row_is_refilled_at_once():
    scheduler = Scheduler(4)
    for name in range(6):
        scheduler.add(job(name))
    assert started(scheduler) == (["0", "1", "2", "3"], [None] * 4)
    assert started(scheduler) == ([], [])
    scheduler.leave(2)
    assert started(scheduler) == (["4"], [None])
    assert names(scheduler.running) == ["0", "1", "3", "4"]


def test_samples_of_a_prompt_wait_for_the_first_and_copy_it():
    scheduler = Scheduler(8)
    for name in ("a1", "a2", "b1", "a3"):
        scheduler.add(job(name, problem=name[0]))
    assert started(scheduler) == (["a1", "b1"], [None, None])
    assert started(scheduler) == ([], [])
    scheduler.running[0].tokens.append(5)
    assert started(scheduler) == (["a2", "a3"], [0, 0])
    assert [scheduler.leads(one) for one in scheduler.running] == [True, True, False, False]


def test_nobody_waits_for_a_prompt_that_is_stored():
    scheduler = Scheduler(8)
    for name in ("a1", "a2", "a3"):
        scheduler.add(job(name, problem="a", prompt=4))
    first = scheduler.start_next()
    first.job.cached = 3
    assert started(scheduler) == (["a2", "a3"], [0, 0])


def test_prompts_that_share_a_key_are_not_taken_for_one():
    scheduler = Scheduler(8)
    for name in ("a", "b"):
        scheduler.add(job(name, problem=name))
        scheduler._waiting[-1].prompt_key = 1
    assert started(scheduler) == (["a"], [None])
    scheduler.running[0].tokens.append(5)
    assert started(scheduler) == (["b"], [None])


def test_when_the_first_leaves_early_the_next_takes_its_part():
    scheduler = Scheduler(8)
    for name in ("a1", "a2", "a3"):
        scheduler.add(job(name, problem="a"))
    assert started(scheduler) == (["a1"], [None])
    scheduler.leave(0)
    assert started(scheduler) == (["a2"], [None])
    assert scheduler.leads(scheduler.running[0])


def test_one_slot_never_starves():
    scheduler = Scheduler(1)
    for name in range(3):
        scheduler.add(job(name))
    order = []
    while not scheduler.idle:
        order += started(scheduler)[0]
        scheduler.leave(0)
    assert order == ["0", "1", "2"]


def test_withdrawing_reaches_the_queue_only():
    scheduler = Scheduler(1)
    for name in ("a", "b", "c"):
        scheduler.add(job(name))
    started(scheduler)
    assert scheduler.withdraw("a") is None
    assert scheduler.withdraw("nobody") is None
    assert scheduler.withdraw("b").request.id == "b"
    assert scheduler.withdraw("b") is None
    assert names(scheduler.running) == ["a"]
    scheduler.leave(0)
    assert started(scheduler)[0] == ["c"]


def test_clearing_returns_what_runs_or_waits():
    scheduler = Scheduler(2)
    for name in ("a", "b", "c", "d"):
        scheduler.add(job(name, problem="same"))
    started(scheduler)
    assert sorted(names(scheduler.clear())) == ["a", "b", "c", "d"]
    assert scheduler.idle
    scheduler.add(job("e", problem="same"))
    assert started(scheduler) == (["e"], [None])


@pytest.mark.parametrize("row", [0, 5, GROUP_ROWS - 1, GROUP_ROWS, 2 * GROUP_ROWS + 3])
def test_leaving_keeps_the_rows_contiguous_and_the_moves_true(row):
    scheduler = Scheduler(3 * GROUP_ROWS)
    for name in range(2 * GROUP_ROWS + 4):
        scheduler.add(job(name, prompt=1 + name * 7 % 31))
    started(scheduler)
    rows = list(scheduler.running)
    gone = rows[row]
    for move in scheduler.leave(row):
        rows[move.target] = rows[move.source]
    assert rows[: len(scheduler.running)] == scheduler.running
    assert len(scheduler.running) == 2 * GROUP_ROWS + 3
    assert gone not in scheduler.running
    assert len(set(names(scheduler.running))) == len(scheduler.running)


def test_a_gap_in_front_goes_to_the_longest_of_the_next_group():
    scheduler = Scheduler(2 * GROUP_ROWS)
    for name in range(GROUP_ROWS + 5):
        scheduler.add(job(name, prompt=50 if name == GROUP_ROWS + 2 else 10))
    started(scheduler)
    assert scheduler.leave(3) == [Move(GROUP_ROWS + 2, 3), Move(GROUP_ROWS + 4, GROUP_ROWS + 2)]


def test_the_last_row_leaves_without_a_move():
    scheduler = Scheduler(4)
    scheduler.add(job("a"))
    started(scheduler)
    assert scheduler.leave(0) == []
    assert scheduler.idle


def test_how_a_sample_ends():
    eos = frozenset({9})
    one = job("a", limit=3)
    assert [one.accept(token, -1.0, eos) for token in (1, 2)] == [None, None]
    assert one.accept(3, -1.0, eos) == "length"
    # at its last token, a sample that ends by itself has ended
    two = job("b", limit=1)
    assert two.accept(9, -1.0, eos) == "eos"


def test_a_request_that_never_started_used_no_prompt():
    assert job("a", prompt=7).sampled("abort").prompt_tokens == 0
