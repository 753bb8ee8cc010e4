from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.driver.leases import SHORTEST_LEASE, Member, Terms, plan_round

members = st.lists(
    st.builds(
        lambda length, remaining, share, overhead: Member(length, remaining, max(1, remaining * share // 4), overhead),
        st.integers(0, 500),
        st.integers(1, 500),
        st.integers(0, 4),
        st.integers(0, 50),
    ),
    min_size=1,
    max_size=20,
)
terms = st.builds(
    Terms,
    balance=st.integers(0, 20_000),
    rate=st.integers(1, 5),
    ended=st.integers(0, 9),
    typical=st.floats(1, 400),
    stepwise=st.booleans(),
    midway=st.none() | st.integers(0, 3000),
    solved=st.booleans(),
)


@given(terms=terms, crowd=members)
def test_a_round_is_never_dearer_than_the_balance_nor_longer_than_a_sample_may_be(terms, crowd):
    leases = plan_round(terms, crowd)
    assert len(leases) == len(crowd)
    assert all(0 <= lease <= one.remaining for lease, one in zip(leases, crowd, strict=True))
    costs = [one.overhead + terms.rate * lease for lease, one in zip(leases, crowd, strict=True) if lease]
    assert sum(costs) <= terms.balance


@given(terms=terms, crowd=members)
def test_what_finishes_one_sample_is_never_shared_out(terms, crowd):
    leases = plan_round(terms, crowd)
    costs = [one.overhead + terms.rate * lease if lease else 0 for lease, one in zip(leases, crowd, strict=True)]
    worst = [one.overhead + terms.rate * one.remaining for one in crowd]
    finish = [one.overhead + terms.rate * one.finish for one in crowd]
    if terms.solved or sum(worst) <= terms.balance:
        return
    if not terms.stepwise:
        assert leases[0] == crowd[0].finish or finish[0] > terms.balance
    elif terms.midway is not None or sum(lease > 0 for lease in leases) > 1:
        # any of them may be the one that the search goes on from
        assert sum(costs) <= max(0, terms.balance - max(terms.midway or 0, *finish))


@given(terms=terms, crowd=members)
def test_money_for_the_first_sample_is_never_left_lying(terms, crowd):
    if not terms.solved or terms.balance < crowd[0].overhead + terms.rate:
        return
    assert plan_round(terms, crowd)[0] > 0


def test_enough_for_the_worst_case_of_all_means_no_lease_is_cut():
    crowd = [Member(0, 100, 100), Member(30, 70, 70)]
    assert plan_round(Terms(balance=170), crowd) == (100, 70)
    assert plan_round(Terms(balance=None), crowd) == (100, 70)
    assert sum(plan_round(Terms(balance=169), crowd)) < 170


def test_a_budget_of_n_mean_lengths_lets_n_samples_run_at_once_when_lengths_are_known():
    crowd = [Member(0, 2048, 2048)] * 16
    leases = plan_round(Terms(balance=16 * 100, ended=9, typical=100.0, solved=True), crowd)
    assert leases == (100,) * 16


def test_with_less_money_the_first_samples_are_finished_first():
    crowd = [Member(40, 2000, 2000)] * 10
    leases = plan_round(Terms(balance=200, ended=999, typical=100.0, solved=True), crowd)
    assert leases == (66, 66, 66, *[0] * 7)


def test_unknown_lengths_start_short():
    crowd = [Member(0, 1000, 1000)] * 5
    leases = plan_round(Terms(balance=1000 + 4 * 200), crowd)
    assert leases == (1000, 100, 100, 100, 100)


def test_crumbs_are_not_handed_out():
    crowd = [Member(0, 1000, 1000)] * 9
    leases = plan_round(Terms(balance=1000 + 2 * SHORTEST_LEASE + 3), crowd)
    assert leases[0] == 1000
    assert [lease for lease in leases[1:] if lease] == [SHORTEST_LEASE] * 2


def test_a_step_is_paid_for_by_what_is_not_kept_and_then_the_first_goes_alone():
    crowd = [Member(0, 1000, 1000)] * 4
    assert plan_round(Terms(balance=1200, stepwise=True), crowd) == (25, 25, 25, 25)
    assert plan_round(Terms(balance=1000, stepwise=True), crowd) == (1000, 0, 0, 0)
    assert plan_round(Terms(balance=1000, stepwise=True, midway=990), crowd) == (0, 0, 0, 0)


def test_less_may_be_kept_where_solutions_are_known_to_be_short():
    crowd = [Member(0, 1000, 200)] * 5
    assert plan_round(Terms(balance=1000), crowd) == (200, 100, 100, 100, 100)


@given(terms=terms.map(lambda one: replace(one, whole=True)), crowd=members)
def test_where_no_lease_can_be_renewed_a_sample_gets_all_its_tokens_or_waits(terms, crowd):
    leases = plan_round(terms, crowd)
    costs = [one.overhead + terms.rate * lease for lease, one in zip(leases, crowd, strict=True) if lease]
    assert sum(costs) <= terms.balance
    assert not any(lease for lease, one in zip(leases, crowd, strict=True) if one.length)
    given = [(lease, one) for lease, one in zip(leases, crowd, strict=True) if lease]
    # one alone may get less: all that there is
    assert len(given) == 1 or all(lease == one.remaining for lease, one in given)
    if given and given[0][0] < given[0][1].remaining:
        assert costs[0] > terms.balance - terms.rate


def test_whole_samples_go_in_turns_of_their_worst_case():
    crowd = [Member(0, 1000, 1000)] * 4
    assert plan_round(Terms(balance=2500, whole=True), crowd) == (1000, 1000, 0, 0)
    assert plan_round(Terms(balance=900, whole=True, solved=True), crowd) == (900, 0, 0, 0)
    assert plan_round(Terms(balance=900, whole=True, solved=True, typical=901), crowd) == (0,) * 4
    assert plan_round(Terms(balance=900, whole=True), [Member(5, 995, 995), Member(0, 1000, 1000)]) == (0, 900)
    assert plan_round(Terms(balance=9000, whole=True), [Member(5, 995, 995)]) == (0,)
    assert plan_round(Terms(balance=None, whole=True), crowd) == (1000,) * 4
