import pytest

from adaptive_ttc.policy import SampleRequest
from policies.fake.tokens import decode_tokens
from policies.stopping import StopRule, TokenTexts
from policies.transformers.scheduler import GROUP_ROWS, Job, Move, Scheduler

NO_STOP = StopRule((), TokenTexts(decode_tokens, ord("a")))


def job(name, *, priority=0, prompt=3, limit=5):
    request = SampleRequest(id=str(name), prompt_ids=(1,) * prompt, max_tokens=limit, seed=0, priority=priority)
    return Job(request=request, limit=limit, stop=NO_STOP, reply=lambda outcome: None)


def names(jobs):
    return [job.request.id for job in jobs]


def started(scheduler):
    admitted = scheduler.admit()
    scheduler.start(admitted)
    return names(admitted)


def test_lower_priority_first_and_arrival_within():
    scheduler = Scheduler(4)
    for name, priority in (("a", 1), ("b", 0), ("c", 1), ("d", 0), ("e", -1)):
        scheduler.add(job(name, priority=priority))
    assert started(scheduler) == ["e", "b", "d", "a"]
    assert scheduler.waiting == 1


def test_few_newcomers_enter_at_once():
    scheduler = Scheduler(64)
    for name in range(3):
        scheduler.add(job(name))
        assert started(scheduler) == [str(name)]


def test_a_full_house_lets_newcomers_in_by_groups():
    scheduler = Scheduler(64)
    for name in range(200):
        scheduler.add(job(name))
    assert len(started(scheduler)) == 64
    for _ in range(7):
        scheduler.leave(len(scheduler.running) - 1)
        assert started(scheduler) == []
    scheduler.leave(len(scheduler.running) - 1)
    assert len(started(scheduler)) == 8


def test_a_free_row_waits_a_few_steps_only():
    scheduler = Scheduler(64)
    for name in range(100):
        scheduler.add(job(name))
    started(scheduler)
    scheduler.leave(0)
    waits = 0
    while not started(scheduler):
        waits += 1
    assert 0 < waits <= 8


def test_one_slot_never_starves():
    scheduler = Scheduler(1)
    for name in range(3):
        scheduler.add(job(name))
    order = []
    while not scheduler.idle:
        order += started(scheduler)
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
    assert scheduler.row_of("a") == 0
    assert scheduler.row_of("b") is None
    scheduler.leave(0)
    assert started(scheduler) == ["c"]


def test_clearing_returns_what_runs_waits_or_is_about_to_start():
    scheduler = Scheduler(2)
    for name in ("a", "b", "c", "d"):
        scheduler.add(job(name))
    started(scheduler)
    scheduler.leave(0)
    assert names(scheduler.admit()) == ["c"]
    assert sorted(names(scheduler.clear())) == ["b", "c", "d"]
    assert scheduler.idle


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
