"""Decides which problem the next units of a budget go to, and for what: pure arithmetic.

Every problem that has arrived gets its opening first, in order of arrival. Then the problem that gains most per unit
goes on, in slices, as long as that is worth the price: the one at which what all problems want is what is left. A
problem's rate is the first slope of the concave envelope of its options (`envelope.py`), never the gain of the smallest
next step: one more vote never changes a majority, and a rule that looks one vote ahead stays at one. The first slope is
the best ratio of gain to cost over all that may be done in one go, an index in the sense of Gittins. The problem
continues with the best buy at the price, not the option of best ratio: where a cheap option and a dear one are two ways
to the same end, and units are plentiful, buying the cheap one first would be wasted.

The caller's part::

    allocator.arrive("a", opening=60)
    decision = allocator.next()          # None: wait for what runs, or, where nothing runs, all is over
    ...                                  # do it, spending at most decision.units
    allocator.charged("a", spent)
    allocator.offer("a", options)        # or settled("a"), or failed("a")

``spent + promised <= budget`` holds after every call.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable

from adaptive_ttc.allocation.envelope import Demand, Envelope, Piece, divided, pieces
from adaptive_ttc.allocation.queue import FLOOR, Account, Queue
from adaptive_ttc.allocation.report import FAILED, OVER, AllocationReport, Decision, Standing, ending_of, unopened
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.gain import Option
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.types import Ending

_PER = 1_000  # prices are told per so many units

DETAILED = 1_000  # problems, of those that are over, of which the report tells all that was considered

REACH = 0.5
"""Share of the price at which all that is not spent would be wanted: a problem that is not worth so much is settled
while others go on. Measured by ``bench/settling.py``, see ``bench/LOG.md``.
"""


class Allocator:
    """One budget over any number of problems (or one) that may arrive at any time; ConfigError for arguments out of
    range.

    A decision takes O(log n) after O(J log J) for the problem's own J options; the price takes O(J log 1/eps) a change
    (see :mod:`adaptive_ttc.allocation.envelope`). The same calls in the same order make the same decisions.

    Args:
        budget: units that may be spent, at least 0; None for no limit, where only ``min_gain`` ends a problem.
        min_gain: gain per 1,000 units under which nothing is ever bought.
        hysteresis: a parked problem continues when it is worth this share more than the price, so that small moves of
            the price do not park and revive it in turn. Where nothing runs, it continues once it is worth the price.
        per_problem_max: most units for one problem; None for no limit.
        floor: share of an opening that is worth starting with, where that is all that is left.
    """

    def __init__(
        self,
        budget: int | None,
        *,
        min_gain: float = 0.0,
        hysteresis: float = 0.1,
        per_problem_max: int | None = None,
        floor: float = FLOOR,
    ) -> None:
        if budget is not None and budget < 0:
            raise ConfigError(f"a budget is at least 0 units, or None for no limit; got {budget}")
        if per_problem_max is not None and per_problem_max < 1:
            raise ConfigError(f"per_problem_max={per_problem_max} must be at least 1, or None for no limit")
        if not 0 <= min_gain < math.inf or not 0 <= hysteresis < math.inf or not 0 <= floor <= 1:
            raise ConfigError(
                f"min_gain={min_gain} and hysteresis={hysteresis} must be at least 0, floor={floor} between 0 and 1"
            )
        self._ledger = Ledger(budget)
        self._least = min_gain / _PER
        self._hysteresis = hysteresis
        self._most = per_problem_max
        self._floor = floor
        self._accounts: dict[str, Account] = {}
        self._openings: deque[Account] = deque()
        self._due = 0  # units that openings wait for, those of problems that are still to come included
        self._coming: tuple[int, int, tuple[Piece, ...]] = (0, 0, ())  # problems, opening and wants of each
        self._running = 0
        self._ready, self._parked = Queue("ready"), Queue("parked")
        self._demand = Demand()
        self._prices = array("d")  # of every decision
        self._over: list[str] = []
        self._detailed: deque[Account] = deque()  # those that ended last
        self._sweep = 0  # decisions before problems that wait are looked through

    @property
    def ledger(self) -> Ledger:
        """The account of the whole budget; only promises are made from it."""
        return self._ledger

    @property
    def spent(self) -> int:
        """Units charged, by running work too."""
        return self._ledger.spent

    @property
    def promised(self) -> int:
        """Units that running work may still spend."""
        return self._ledger.statistics().reserved

    @property
    def available(self) -> int | None:
        """Units neither spent nor promised; None without a limit."""
        return self._ledger.available

    @property
    def price(self) -> float:
        """Gain per 1,000 units at which what is wanted beyond all promises equals what is left for it."""
        return self._price() * _PER

    def standing(self, id: str) -> Standing:
        """The standing of a problem."""
        return self._account(id).standing

    def arrive(self, id: str, opening: int, options: Iterable[Option] = (), *, spent: int = 0) -> None:
        """Add a problem; ValueError where its name is taken, or its opening takes less than 1 unit.

        Args:
            id: its name, new to this allocator.
            opening: units of its first work, which gives an answer in nine of ten cases; at most ``per_problem_max``.
            options: expected of it before any evidence, the opening included; never chosen, they only add to the
                demand.
            spent: units that it has cost in an earlier run, less than ``per_problem_max``; :attr:`ledger` was charged
                them.
        """
        if opening < 1:
            raise ValueError(f"the opening of {id!r} takes at least 1 unit; got {opening}")
        account = self._new(id, spent)
        self._openings.append(account)
        self._await(account, opening, options)

    def reopen(self, id: str, opening: int, options: Iterable[Option] = ()) -> None:
        """As :meth:`arrive`, for a problem that still waits for its opening, or is ``open``, as it came to nothing."""
        account = self._account(id)
        if account.standing == "waiting":
            self._due -= account.opening
        elif account.standing == "open":
            account.standing = "waiting"
            self._openings.appendleft(account)
        else:
            raise ValueError(f"problem {id!r} is {account.standing}: it has been opened")
        self._await(account, opening, options)

    def _await(self, account: Account, opening: int, options: Iterable[Option]) -> None:
        account.opening = int(min(opening, self._room(account)))
        self._estimate(account, options, given=account.opening)
        self._due += account.opening

    def go_on(self, id: str, spent: int) -> None:
        """Add a problem that an earlier run has opened; its options are due. As :meth:`arrive`."""
        self._new(id, spent).standing = "open"

    def _new(self, id: str, spent: int) -> Account:
        if id in self._accounts:
            raise ValueError(f"problem {id!r} has arrived already; ids must differ")
        number, opened, wanted = self._coming
        if number:
            self._expect(number - 1, opened, wanted)
        account = self._accounts[id] = Account(id, len(self._accounts), 0, spent=spent)
        return account

    def expect(self, number: int, opening: int = 0, options: Iterable[Option] = ()) -> None:
        """Say how many problems are still to come and what each is likely to want, so that units are kept for them.

        Every arrival counts one of them off. A later call replaces an earlier one; ``opening`` and ``options`` are of
        each, as for :meth:`arrive`.
        """
        opening = opening if self._most is None else min(opening, self._most)
        self._expect(max(0, number), opening, pieces(Envelope.of(options), least=self._least, given=opening))

    def _expect(self, number: int, opening: int, wanted: tuple[Piece, ...]) -> None:
        before, opened, wished = self._coming
        self._demand.remove(Piece(one.rung, before * one.units) for one in wished)
        self._demand.add(Piece(one.rung, number * one.units) for one in wanted)
        self._due += number * opening - before * opened
        self._coming = (number, opening, wanted)

    def offer(self, id: str, options: Iterable[Option]) -> Standing:
        """Say what may be done next on a problem, given its present evidence; replaces what was said before.

        Returns its standing, which says whether it is :data:`~adaptive_ttc.allocation.report.OVER` and can be settled.
        ValueError: it is unknown, over, running, or waiting for its opening.
        """
        account = self._account(id)
        if account.standing in ("waiting", "running", "settled", "failed"):
            raise ValueError(f"problem {id!r} is {account.standing}: options are offered after charged({id!r}, ...)")
        self._estimate(account, options)
        self._place(account)
        return account.standing

    def next(self) -> Decision | None:
        """Decide which problem continues, and promise it units; None until a charge, an offer or an arrival."""
        while self._openings:
            account = self._openings[0]
            if account.standing != "waiting":
                self._openings.popleft()
                continue
            units = self._affordable(account.opening, least=account.begins(self._floor))
            if not units and account.opening and self._running:
                return None  # no second slice before all have had their opening
            self._openings.popleft()
            self._due -= account.opening
            if units:
                return self._grant(account, None, units, self._price())
            account.standing = "short"
            self._want(account, ())
        return self._next_slice()

    def ended(self) -> list[str]:
        """Problems found over since the last call, as what they want is not left, or goes to others: settle them.

        Those that wait are looked through now and then, in constant time a decision, and not before all that have
        arrived were opened: until then the price follows from what they are guessed to want.
        """
        if not self._openings and len(self._prices) >= self._sweep:
            waiting = list(self._parked)
            self._sweep = len(self._prices) + max(16, len(waiting) // 4)
            least = REACH * self._price(running=True)
            for account in waiting:
                if account.slope < least:
                    account.standing = "outbid"
                    self._over.append(account.id)
        over, self._over = self._over, []
        return over

    def promise(self, id: str) -> Ledger:
        """The account that work on a problem spends from, a child of the budget's. ValueError: it is not running."""
        account = self._account(id)
        if account.promise is None:
            raise ValueError(f"problem {id!r} is {account.standing}: nothing is promised to it")
        return account.promise

    def charged(self, id: str, actual: int = 0) -> None:
        """End work on a problem; what its account did not spend goes back.

        ``actual`` units are charged first, where the caller did not spend from :meth:`promise` itself. ValueError, with
        nothing changed: it is not running, or ``actual`` is not within 0 and what is left of the promise.
        """
        promise, account = self.promise(id), self._account(id)
        if actual:
            money = promise.reserve(actual)
            if money is None:
                raise ValueError(f"cannot settle {actual}: {promise.available} of what was promised to {id!r} are left")
            money.settle(actual)
        promise.close()
        account.charge(promise.spent)
        self._running -= 1

    def ending(self, id: str, begin: float = 1) -> Ending:
        """Why a problem gets no more, if it is ended now; ``begin``: units under which no slice of it begins."""
        account = self._account(id)
        if account.ending:
            return account.ending
        if account.opening and not account.slices and account.standing == "short":
            return unopened(account.begins(self._floor))
        return ending_of(account.standing, account.options, min(self._left(), self._room(account)), begin)

    def settled(self, id: str, ending: Ending | None = None) -> None:
        """Settle a problem, which frees what it was expected to want; ``ending`` says why, by default its standing.

        ValueError: it is unknown, over or running.
        """
        account = self._account(id)
        if account.promise is not None:
            raise ValueError(f"problem {id!r} is running: call charged({id!r}, ...) with what it spent first")
        self._end(account, "settled", ending or self.ending(id))

    def failed(self, id: str, actual: int = 0) -> None:
        """Settle a problem that failed; as :meth:`charged` and then :meth:`settled`, with their errors."""
        account = self._account(id)
        if account.promise is not None:
            self.charged(id, actual)
        elif actual:
            raise ValueError(f"problem {id!r} is {account.standing}: nothing is promised to it, it cannot have spent")
        self._end(account, "failed", FAILED)

    def report(self) -> AllocationReport:
        """All that was decided so far, with reasons."""
        price, prices, limit = self.price, tuple(self._prices), self._ledger.limit
        problems = tuple(
            one.report(self.ending(one.id) if one.standing in (*OVER, "parked") else None, price, _PER)
            for one in self._accounts.values()
        )
        return AllocationReport(
            budget=limit, spent=self.spent, promised=self.promised, price=price, prices=prices, problems=problems
        )

    def _next_slice(self) -> Decision | None:
        while True:
            price = self._price()
            self._revive(price)
            account = self._ready.top()
            if account is None:
                return None
            if account.slope < price:
                self._parked.push(account)
                continue
            option = account.envelope.at(price)
            assert option is not None  # its first slope is worth the price
            if not option.within(self._left()):  # nor will it be affordable later: what is not spent never grows
                self._estimate(account, account.options)
                self._place(account)
                if account.standing in OVER:
                    self._over.append(account.id)
                continue
            available = self._ledger.available
            most = math.inf if available is None else available - self._due
            option = option.shrunk(min(most, self._room(account)))
            units = self._affordable(int(min(option.slice_cost, self._room(account))), least=1, kept=self._due)
            # where the best one waits for what runs, others do not take what it waits for
            return self._grant(account, option, units, price) if units else None

    def _revive(self, price: float) -> None:
        """Make parked problems ready that are worth the price by a margin, or at all where nothing runs."""
        threshold = price * (1 + self._hysteresis * bool(self._running))
        while (account := self._parked.top()) and account.slope >= threshold:
            self._ready.push(account)

    def _estimate(self, account: Account, options: Iterable[Option], given: int = 0) -> None:
        """Store options; those that cannot be finished do not count."""
        account.options = tuple(options)
        most = min(self._left(), self._room(account))
        account.envelope = Envelope.of([option for option in account.options if option.within(most)])
        self._want(account, pieces(account.envelope, least=self._least, given=given))

    def _place(self, account: Account) -> None:
        if account.slope > 0 and account.slope >= self._least:
            (self._ready if account.slope >= self._price() else self._parked).push(account)
            return
        gains = any(option.gain > 0 and option.gain >= self._least * option.cost for option in account.options)
        account.standing = "short" if gains else "content"

    def _grant(self, account: Account, option: Option | None, units: int, price: float) -> Decision:
        promise = self._ledger.child(units)
        self._running += 1
        if option:  # until it is offered anew, it wants the rest of what it wanted
            given, account.wanted = divided(account.wanted, units)
            self._demand.remove(given)
        self._prices.append(price * _PER)
        decision = Decision(len(self._prices) - 1, account.id, option, units, price * _PER)
        account.grant(decision, promise)
        return decision

    def _end(self, account: Account, standing: Standing, ending: Ending) -> None:
        if account.ending:
            raise ValueError(f"problem {account.id!r} has {account.standing} already")
        if account.standing == "waiting":
            self._due -= account.opening
        account.price = self.price
        account.ending, account.standing = ending, standing
        self._want(account, ())
        self._detailed.append(account)
        if len(self._detailed) > DETAILED:
            self._detailed.popleft().forget()

    def _want(self, account: Account, wanted: tuple[Piece, ...]) -> None:
        self._demand.remove(account.wanted)
        self._demand.add(wanted)
        account.wanted = wanted

    def _price(self, *, running: bool = False) -> float:
        """Gain per unit at which all that is left is wanted; with what is ``running``, if that gave all of it back."""
        available = self._ledger.available
        if available is None:
            return self._least
        available += self.promised if running else 0
        return max(self._least, self._demand.price(available - self._due) or 0.0)

    def _affordable(self, units: int, *, least: int, kept: int = 0) -> int:
        """As many units as can be promised beside those ``kept``; fewer only where nothing that runs gives back."""
        available = None if self._ledger.available is None else max(0, self._ledger.available - kept)
        if available is None or units <= available:
            return units
        return available if not self._running and available >= max(1, least) else 0

    def _left(self) -> float:
        """Units that may still be spent, by running work and by problems still to come too."""
        limit = self._ledger.limit
        return math.inf if limit is None else limit - self._ledger.spent

    def _room(self, account: Account) -> float:
        """Units that its own maximum leaves it."""
        return math.inf if self._most is None else self._most - account.spent

    def _account(self, id: str) -> Account:
        account = self._accounts.get(id)
        if account is None:
            raise ValueError(f"no problem {id!r} has arrived")
        return account
