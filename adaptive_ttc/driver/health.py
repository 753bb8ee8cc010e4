"""How well the engines of a run are: when to try again, when to wait, how much to risk, when to give up.

Time is the event loop's. It knows neither requests nor samples; all problems of a run share one :class:`Health`.
"""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import dataclass, field

import anyio

from adaptive_ttc.errors import AdaptiveTTCError, EngineError, OutageError, ReplyError
from adaptive_ttc.ledger import Ledger

_log = logging.getLogger(__package__)

FIRST_BACKOFF = 0.1  # seconds, about, before a call that failed is repeated; doubled each time
LONGEST_BACKOFF = 15.0  # seconds
FAILURES_IN_A_ROW = 5  # calls that fail, with none between that succeeds, after which an engine counts as gone
FEWEST_TRIES = 3  # that fail, before an engine is given up: one that hangs may take up all the patience
FAILED_FOR_GOOD = 3  # problems in a row that a policy fails for good, after which it is given up for all
SHORT_LEASE = 64  # tokens at least that a call may risk
_SHORT_LEASE_OF_MANY = 32  # the same where several problems are at work
FIRST_LEASE = 512  # tokens at most that a sample's first call may risk
_FIRST_SHARE = 4  # nor more than one in so many of the whole budget
_SHARE_OF_MANY = 20  # the calls of a pool that are under way risk together one in so many of the whole budget
_STEADY = 50  # calls without a loss, after which one may risk another SHORT_LEASE
_LEAST_INCIDENTS = 4  # before a share of the budget that was lost ends a run: small budgets have large shares


def backoff(failures: int, seed: int, retry_after: float | None = None) -> float:
    """Seconds to wait after so many failures: half of them fixed, half by chance, no less than the engine asks for."""
    most = min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 30), LONGEST_BACKOFF)
    chance = hashlib.sha256(f"{seed},{failures}".encode()).digest()[0] / 255
    return max(most * (0.5 + 0.5 * chance), retry_after or 0.0)


class Breaker:
    """Whether an engine takes calls: while it is gone one call at a time tries it, after longer and longer pauses.

    Args:
        patience: seconds that an engine may be gone before its calls fail with :class:`OutageError`; it is tried a few
            times in any case.
        name: of the engine, for logging.
    """

    def __init__(self, patience: float, name: str = "engine") -> None:
        self._patience, self._name = patience, name
        self._in_a_row = 0
        self._pauses = 0
        self._gone_since: float | None = None  # None while it is well
        self._until = 0.0  # when it may be tried again
        self._trying = False
        self._news = anyio.Event()
        self._last: EngineError | None = None
        self.given_up: EngineError | None = None  # why no problem asks it any more; None while they may
        self.most_incidents = FAILED_FOR_GOOD  # in a row
        self.incidents = 0  # problems that it failed for good; those that were under way together count as one
        self._in_vain = 0  # since a call came back

    @property
    def gone(self) -> bool:
        """Whether it counts as gone."""
        return self._gone_since is not None

    @property
    def last_error(self) -> EngineError | None:
        """What it failed with last."""
        return self._last

    @property
    def pausing(self) -> bool:
        """Whether no call may be sent now."""
        return self.gone and (self._trying or anyio.current_time() < self._until)

    def admits(self) -> bool:
        """Whether a call may be sent now; the one that tries an engine that was gone is then on its way."""
        if self.pausing:
            return False
        self._trying = self.gone
        return True

    def succeeded(self) -> None:
        """A call came back."""
        self._in_a_row = self._in_vain = 0
        if self._gone_since is not None:
            _log.warning("the %s is back after %.1f s", self._name, anyio.current_time() - self._gone_since)
            self._gone_since, self._pauses = None, 0
            self._tell()

    def failed(self, error: AdaptiveTTCError) -> None:
        """A call failed. Only what may succeed later, and is no answer, tells that the engine may be gone."""
        if not isinstance(error, EngineError) or not error.retryable or isinstance(error, ReplyError):
            return self.withdrawn()
        self._last = error
        self._in_a_row += 1
        now = anyio.current_time()
        if self._gone_since is None:
            if self._in_a_row < FAILURES_IN_A_ROW:
                return
            self._gone_since = now
        elif now < self._until and not error.retry_after:
            return  # it was sent before
        self._pauses += 1
        self._until = max(self._until, now + backoff(self._pauses + 1, 0, error.retry_after))
        _log.warning("the %s is gone (%s): paused for %.1f s", self._name, error, self._until - now)
        self._tell()

    def failed_for_good(self, error: EngineError, known: int) -> None:
        """A problem got no further with it, begun when ``known`` incidents were known: it is given up for all where it
        is gone, or where that happens again and again.
        """
        if known == self.incidents:
            self.incidents += 1
            self._in_vain += 1
        if isinstance(error, OutageError) or self._in_vain >= self.most_incidents:
            self.given_up = self.given_up or error

    def withdrawn(self) -> None:
        """The call that tries it ended without telling whether it is well."""
        self._tell()

    def wake(self) -> None:
        """Let all who wait look again."""
        news, self._news = self._news, anyio.Event()
        news.set()

    async def wait(self) -> None:
        """Wait for a change, or for the time at which a call may try it. OutageError: it has been gone for too long."""
        now = anyio.current_time()
        tried = self._pauses >= FEWEST_TRIES and not self._trying
        if self._gone_since is not None and now - self._gone_since >= self._patience and tried:
            raise OutageError(
                f"the engine has been gone for {now - self._gone_since:.0f} s: {self._last}; see that it is up, or "
                "raise DriverConfig.patience"
            )
        with anyio.move_on_after(math.inf if self._trying else max(0.0, self._until - now)):
            await self._news.wait()

    def _tell(self) -> None:
        self._trying = False
        self.wake()


@dataclass(slots=True)
class Losses:
    """What was paid for calls that told nothing; ``share`` of a budget may go that way.

    Calls that were under way together when one was lost are one incident: a server that dies takes all of its calls
    with it, and a run that has another goes on.
    """

    share: float
    width: int = 1  # problems at work at once
    units: int = 0  # lost
    calls: int = 0  # that were lost
    incidents: int = 0
    steady: int = 0  # calls that came back since the last loss
    last: AdaptiveTTCError | None = None

    def lost(self, units: int, error: AdaptiveTTCError | None, known: int) -> None:
        """So many units were charged for a call that failed, sent when ``known`` incidents were known."""
        self.last = error or self.last
        if units:
            _log.warning("%d units were charged for a call that failed: %s", units, error)
            self.units += units
            self.calls += 1
            self.incidents += known == self.incidents
            self.steady = 0

    def came_back(self) -> None:
        """A call came back."""
        self.steady += 1

    def check(self, budget: Ledger) -> None:
        """Raise OutageError where more than the share of the budget is lost, again and again."""
        many = self.incidents >= _LEAST_INCIDENTS
        if budget.limit is not None and many and self.units > self.share * budget.limit:
            raise OutageError(
                f"{self.units:,} of {budget.limit:,} units were charged for {self.calls} calls that failed, more than "
                f"{self.share:.0%}: {self.last}; mend the engine, or raise DriverConfig.loss_share"
            )

    def longest(self, budget: Ledger, rate: int, grown: int) -> float:
        """Tokens that a call may risk for a sample that has ``grown`` so many; no bound without a budget.

        Before any loss a sample's first call is bounded, later ones grow with it; where several problems are at work
        all calls are bounded, as one outage loses them together. After a loss, calls risk together no more than the
        share of what was spent leaves, or a little more with every few that come back.
        """
        if budget.limit is None:
            return math.inf
        most: float
        if self.width == 1:
            least, most = SHORT_LEASE, max(min(FIRST_LEASE, budget.limit // (_FIRST_SHARE * rate)), 4 * grown)
        else:
            least, most = _SHORT_LEASE_OF_MANY, budget.limit // (_SHARE_OF_MANY * self.width * rate)
        if self.calls:
            left = (self.share * budget.spent - self.units) / (rate * self.width)
            most = min(most, max(left, least * (1 + self.steady // _STEADY)))
        return max(most, least)


@dataclass(slots=True)
class Speed:
    """How long calls take, and so how long one is waited for."""

    given: float | None  # seconds that a call may take; None: by what calls took so far
    calls: int = 0
    seconds: float = 0.0  # of all calls
    tokens: int = 0  # of all calls

    def took(self, seconds: float, tokens: int) -> None:
        """A call took so long for so many tokens."""
        self.calls += 1
        self.seconds += seconds
        self.tokens += tokens

    def limit(self, tokens: int) -> float:
        """Seconds after which a call for so many tokens is overdue.

        A minute and ten times what it should take by the mean of those before; while none has come back, ten minutes
        and a quarter of a second a token.
        """
        if self.given is not None:
            return self.given
        if not self.calls:
            return 600.0 + 0.25 * tokens
        return 60.0 + 10.0 * max(self.seconds / self.calls, tokens * self.seconds / max(self.tokens, 1))


@dataclass(slots=True)
class Health:
    """The engines of one run.

    Args:
        patience: see :class:`Breaker`.
        share: see :class:`Losses`.
        call_timeout, score_timeout: see :class:`Speed`.
    """

    patience: float
    share: float
    call_timeout: float | None = None
    score_timeout: float | None = None
    policy: Breaker = field(init=False)
    prm: Breaker = field(init=False)
    losses: Losses = field(init=False)
    samples: Speed = field(init=False)
    scores: Speed = field(init=False)

    def __post_init__(self) -> None:
        self.policy, self.prm = Breaker(self.patience, "policy"), Breaker(self.patience, "PRM")
        self.losses = Losses(self.share)
        self.samples, self.scores = Speed(self.call_timeout), Speed(self.score_timeout)

    def failed_for_good(self, error: EngineError, known: int) -> None:
        """A problem got no further with the policy, see :class:`Breaker`."""
        self.policy.failed_for_good(error, known)

    def wake(self) -> None:
        """Let all who wait for an engine look again."""
        self.policy.wake()
        self.prm.wake()
