from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.leases import SHORTEST_LEASE, Member, Terms, plan_round

members = st.lists(
    st.builds(Member, length=st.integers(0, 500), remaining=st.integers(1, 500), overhead=st.integers(0, 50)),
    min_size=1,
    max_size=20,
)
terms = st.builds(
    Terms,
    balance=st.integers(0, 20_000),
    rate=st.integers(1, 5),
    ended=st.integers(0, 9),
    typical=st.floats(1, 400),
    kept=st.none() | st.integers(0, 3000),
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
    if terms.solved or sum(worst) <= terms.balance:
        return
    if terms.kept is not None:
        assert sum(costs) <= max(0, terms.balance - terms.kept)
    elif worst[0] <= terms.balance:
        assert leases[0] == crowd[0].remaining


@given(terms=terms, crowd=members)
def test_money_for_the_first_sample_is_never_left_lying(terms, crowd):
    if not terms.solved or terms.balance < crowd[0].overhead + terms.rate:
        return
    assert plan_round(terms, crowd)[0] > 0


def test_enough_for_the_worst_case_of_all_means_no_lease_is_cut():
    crowd = [Member(0, 100), Member(30, 70)]
    assert plan_round(Terms(balance=170), crowd) == (100, 70)
    assert plan_round(Terms(balance=None), crowd) == (100, 70)
    assert sum(plan_round(Terms(balance=169), crowd)) < 170


def test_a_budget_of_n_mean_lengths_lets_n_samples_run_at_once_when_lengths_are_known():
    crowd = [Member(0, 2048)] * 16
    leases = plan_round(Terms(balance=16 * 100, ended=9, typical=100.0, solved=True), crowd)
    assert leases == (100,) * 16


def test_with_less_money_the_first_samples_are_finished_first():
    crowd = [Member(40, 2000)] * 10
    leases = plan_round(Terms(balance=200, ended=999, typical=100.0, solved=True), crowd)
    assert leases == (66, 66, 66, *[0] * 7)


def test_unknown_lengths_start_short():
    crowd = [Member(0, 1000)] * 5
    leases = plan_round(Terms(balance=1000 + 4 * 200), crowd)
    assert leases == (1000, 100, 100, 100, 100)


def test_crumbs_are_not_handed_out():
    crowd = [Member(0, 1000)] * 9
    leases = plan_round(Terms(balance=1000 + 2 * SHORTEST_LEASE + 3), crowd)
    assert leases[0] == 1000
    assert [lease for lease in leases[1:] if lease] == [SHORTEST_LEASE] * 2
