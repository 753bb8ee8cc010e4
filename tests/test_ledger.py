import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from adaptive_ttc.ledger import Ledger


class LedgerMachine(RuleBasedStateMachine):
    """Random accounts, reservations and settlements against a model that only adds and subtracts."""

    accounts = Bundle("accounts")
    reservations = Bundle("reservations")

    def __init__(self):
        super().__init__()
        self.root = Ledger(1000)
        self.known = [self.root]
        self.held = {self.root: 0}
        self.paid = {self.root: 0}
        self.settled = 0

    @rule(target=accounts)
    def root_account(self):
        return self.root

    @rule(target=reservations, account=accounts, amount=st.integers(0, 600))
    def reserve(self, account, amount):
        if account not in self.known:
            return (account, None)
        left = account.limit - self.paid[account] - self.held[account]
        reservation = account.reserve(amount)
        assert (reservation is not None) == (amount <= left)
        if reservation is not None:
            self.held[account] += amount
        return (account, reservation)

    @rule(pair=consumes(reservations), share=st.floats(0, 1))
    def settle(self, pair, share):
        account, reservation = pair
        if reservation is None:
            return
        used = int(reservation.amount * share)
        reservation.settle(used)
        self.held[account] -= reservation.amount
        self.settled += used
        while account is not None:  # those above see at once what was spent, out of what they had set aside
            self.paid[account] += used
            if account._parent is not None:
                self.held[account._parent] -= used
            account = account._parent
        with pytest.raises(ValueError, match="settled already"):
            reservation.settle(0)

    @rule(target=accounts, account=accounts, limit=st.integers(0, 600))
    def open_child(self, account, limit):
        if account not in self.known:
            return account
        child = account.child(limit)
        if child is None:
            assert limit > account.available
            return account
        self.known.append(child)
        self.held[child] = self.paid[child] = 0
        self.held[account] += limit
        return child

    @rule(account=accounts)
    def close(self, account):
        if account is self.root or account not in self.known:
            return
        statistics = account.statistics()
        if statistics.open_reservations or statistics.open_children:
            with pytest.raises(ValueError, match="settle and close"):
                account.close()
            return
        parent = account._parent
        account.close()
        account.close()
        self.known.remove(account)
        self.held[parent] -= account.limit - self.paid[account]

    @invariant()
    def books_agree_and_no_limit_is_overrun(self):
        for account in self.known:
            statistics = account.statistics()
            assert statistics.spent == self.paid[account]
            assert statistics.reserved == self.held[account]
            assert statistics.spent + statistics.reserved + statistics.available == statistics.limit
            assert statistics.available >= 0
            assert statistics.peak_reserved >= statistics.reserved

    @invariant()
    def every_unit_is_counted_once_at_the_root(self):
        assert self.root.spent == self.settled


TestLedgerMachine = LedgerMachine.TestCase


@given(limit=st.integers(0, 10_000), parts=st.integers(1, 50))
def test_split_shares_everything_equally(limit, parts):
    ledger = Ledger(limit)
    shares = [account.limit for account in ledger.split(parts)]
    assert sum(shares) == limit
    assert len(shares) == parts
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)
    assert ledger.available == 0


def test_unspent_part_of_a_child_returns_at_close():
    ledger = Ledger(100)
    child = ledger.child(60)
    child.reserve(50).settle(20)
    assert ledger.available == 40
    child.close()
    assert (ledger.spent, ledger.available) == (20, 80)


def test_what_an_open_child_spends_is_spent_at_once_for_those_above_it():
    ledger = Ledger(100)
    child = ledger.child(60)
    grandchild = child.child(30)
    grandchild.reserve(20).settle(15)
    assert [(one.spent, one.available) for one in (ledger, child, grandchild)] == [(15, 40), (15, 30), (15, 15)]
    assert ledger.statistics().reserved == 45
    grandchild.close()
    child.close()
    assert (ledger.spent, ledger.available, ledger.statistics().reserved) == (15, 85, 0)


def test_unlimited_account_counts_without_refusing():
    ledger = Ledger(None)
    children = ledger.split(3)
    children[0].reserve(10**12).settle(7)
    for child in children:
        child.close()
    assert (ledger.spent, ledger.available, ledger.statistics().reserved) == (7, None, 0)


def test_refusal_leaves_no_trace_but_a_count():
    ledger = Ledger(10)
    assert ledger.reserve(11) is None
    assert ledger.child(11) is None
    statistics = ledger.statistics()
    assert (statistics.refused, statistics.granted, statistics.available) == (2, 0, 10)


@pytest.mark.parametrize("used", [-1, 6])
def test_settling_outside_the_reservation_is_refused_and_changes_nothing(used):
    ledger = Ledger(10)
    reservation = ledger.reserve(5)
    with pytest.raises(ValueError, match="0 to 5"):
        reservation.settle(used)
    assert (ledger.spent, ledger.available, reservation.settled) == (0, 5, False)
    reservation.settle(5)
    assert ledger.spent == 5


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: Ledger(-1),
        lambda: Ledger(1).reserve(-1),
        lambda: Ledger(1).child(None),
        lambda: Ledger(1).split(0),
    ],
)
def test_misuse_is_a_value_error(misuse):
    with pytest.raises(ValueError, match=r"at least|without a limit"):
        misuse()


def test_a_closed_account_takes_nothing_more():
    ledger = Ledger(10)
    child = ledger.child(5)
    child.close()
    with pytest.raises(ValueError, match="closed"):
        child.reserve(1)
    with pytest.raises(ValueError, match="closed"):
        child.child(1)
