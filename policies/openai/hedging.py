"""Hedged requests (Dean and Barroso 2013, "The Tail at Scale"): one that is late goes to a second replica as well.

A request is late when it has waited for a piece of its answer longer than all but a few others did at their longest.
The second replica goes on from the tokens that are there. Who delivers first is followed, so that what is written does
not decide who wins: waiting for the first whole answer would favour short ones. The other is left at its next piece,
which tells what it generated; one that says nothing more is charged all that it may have generated. Both are reserved
before the second request is sent, and the share of tokens that hedges may cost is bounded.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import anyio
from anyio.abc import TaskGroup

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError
from adaptive_ttc.policies.openai.attempt import Attempt
from adaptive_ttc.policies.openai.fleet import Fleet, UnavailableError
from adaptive_ttc.policies.openai.retries import MisfitError
from adaptive_ttc.policy import Sampled
from adaptive_ttc.tasks import side_by_side

_KNOWN = 32  # answers after which it is known how long others wait
_WINDOW = 512  # answers that count
_MARGIN = 1.25  # times the quantile: where all wait equally long, none is late
_LOOK = 1.0  # seconds after which a request that could not be hedged is looked at again


class Hedges:
    """When to hedge, for all requests of one policy.

    Args:
        quantile: of the longest waits of answers, after which one is late.
        share: most tokens that hedges may cost, of those delivered.
    """

    def __init__(self, quantile: float, share: float) -> None:
        self._quantile, self._share = quantile, share
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._delivered = self._cost = 0

    @property
    def patience(self) -> float | None:
        """Seconds after which a request is late; None while too few are known."""
        if len(self._order) < _KNOWN:
            return None
        return _MARGIN * self._sorted[min(int(self._quantile * len(self._sorted)), len(self._sorted) - 1)]

    def came_back(self, longest: float, tokens: int) -> None:
        """An answer of so many tokens came, and waited that long for one of its pieces."""
        if len(self._order) == _WINDOW:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        self._order.append(longest)
        insort(self._sorted, longest)
        self._delivered += tokens

    def pay(self, tokens: int) -> bool:
        """Take so many tokens off the hedges' share, if it has as many."""
        affordable = self._cost + tokens <= self._share * self._delivered
        self._cost += tokens * affordable
        return affordable

    def give_back(self, tokens: int) -> None:
        """So many of them were not needed."""
        self._cost -= tokens


class Race:
    """One request, at one replica, and when it is late at a second one.

    Args:
        first: the attempt that is late if any is.
        fleet: of the replicas.
        ask: carries out an attempt.
        elsewhere: makes an attempt at another replica that goes on from what has come; None where there is none.
        hedges: when to hedge.
    """

    def __init__(
        self,
        first: Attempt,
        fleet: Fleet,
        ask: Callable[[Attempt], Awaitable[Sampled]],
        elsewhere: Callable[[Attempt], Attempt | None],
        hedges: Hedges,
    ) -> None:
        self._first = self._ahead = first
        self._second: Attempt | None = None
        self._fleet, self._ask, self._elsewhere, self._hedges = fleet, ask, elsewhere, hedges
        self._decided = False
        self._look_at = 0.0  # when to see again whether it is late
        self._late = 0.0  # seconds that the first had been waited for when the second was sent
        self._running: set[Attempt] = set()
        self._errors: dict[Attempt, Exception] = {}
        self._sampled: Sampled | None = None
        self._over = anyio.Event()

    async def run(self) -> Sampled:
        """The sample that was followed; raises what failed, where no other attempt makes up for it."""
        async with side_by_side() as tasks:
            self._begin(self._first, tasks)
            while not self._over.is_set():
                with anyio.move_on_after(self._until_late()):
                    await self._over.wait()
                if not self._over.is_set() and not self._until_late():
                    self._hedge(tasks)
            tasks.cancel_scope.cancel()
        self._settle()
        if self._sampled is None:
            raise self._failure()
        return self._sampled

    def aborted(self) -> Sampled:
        """What has come of it, where it is ended early."""
        return self._joined(self._ahead, self._ahead.aborted())

    def _until_late(self) -> float:
        """Seconds until the first attempt is to be hedged."""
        if self._second is not None or self._first.request.spare is None:
            return math.inf
        patience, now = self._hedges.patience, anyio.current_time()
        if patience is None:
            return _LOOK
        return max(0.0, self._look_at - now, self._first.heard + patience - now)

    def _hedge(self, tasks: TaskGroup) -> None:
        """Send the second request, if there is a replica for it and all that it may cost can be paid."""
        self._look_at = anyio.current_time() + _LOOK
        second, spare = self._elsewhere(self._first), self._first.request.spare
        if second is None or spare is None or not self._hedges.pay(second.request.max_tokens):
            return
        if not spare.reserve(second.request.max_tokens):
            self._hedges.give_back(second.request.max_tokens)
            return
        self._second, self._late = second, anyio.current_time() - self._first.heard
        self._begin(second, tasks)

    def _begin(self, attempt: Attempt, tasks: TaskGroup) -> None:
        attempt.goes_on = partial(self._goes_on, attempt)
        self._running.add(attempt)
        tasks.start_soon(self._follow, attempt)

    def _goes_on(self, attempt: Attempt) -> bool:
        """Whether an attempt that has delivered is followed further."""
        if self._second is not None and not self._decided:
            self._decided, self._ahead = True, attempt
        return attempt is self._ahead

    async def _follow(self, attempt: Attempt) -> None:
        place = nullcontext() if attempt is self._first else self._fleet.serving(attempt.replica, attempt.prompt)
        try:
            with place:
                sampled = await self._ask(attempt)
        except (AdaptiveTTCError, UnavailableError, MisfitError, TimeoutError) as error:
            self._errors[attempt] = error
            self._running.remove(attempt)
            if not self._running:
                return self._over.set()
            self._blame(attempt, error)
            self._decided, (self._ahead,) = True, self._running
        else:
            self._running.remove(attempt)
            if not attempt.left:
                self._ahead, self._sampled = attempt, self._joined(attempt, sampled)
                self._over.set()
        return None

    def _blame(self, attempt: Attempt, error: Exception) -> None:
        if isinstance(error, UnavailableError):
            self._fleet.refused(attempt.replica, error, attempt.sent)
        elif not isinstance(error, MisfitError | ConfigError):
            self._fleet.broke(attempt.replica, str(error) or type(error).__name__)

    def _settle(self) -> None:
        """Tell all requests' hedges what came of this one."""
        if self._sampled is not None:
            waited = self._ahead.longest if self._ahead is self._first else self._late + self._ahead.longest
            self._hedges.came_back(max(waited, self._first.longest), len(self._sampled.token_ids))
        if self._second is not None:
            self._hedges.give_back(self._second.request.max_tokens - self._cost())
            if self._ahead is self._second and not self._first.left and self._first not in self._errors:
                self._fleet.outrun(self._first.replica, self._first.heard)

    def _cost(self) -> int:
        """Most tokens that the attempt that is not followed generated since there were two."""
        if self._second is None:
            return 0
        behind = self._second if self._ahead is self._first else self._first
        error, granted = self._errors.get(behind), self._second.request.max_tokens
        if error is not None or not behind.left:
            return 0 if error is not None and _certain(error) else granted
        before = len(self._second.begun.token_ids) if behind is self._first else 0
        return min(len(behind.aborted().token_ids) - before, granted)

    def _failure(self) -> Exception:
        """What to raise: where either may have generated something, an error that says so."""
        first = self._errors.get(self._first)
        if self._second is not None and self._second in self._errors:
            second = self._errors[self._second]
            self._blame(self._second, second)
            if first is None or (_certain(first) and not _certain(second)):
                return EngineError(f"both requests for a sample failed ({first}; {second})", retryable=True)
        assert first is not None
        return first

    def _joined(self, attempt: Attempt, sampled: Sampled) -> Sampled:
        """The whole sample, where an attempt went on from what another one had delivered."""
        begun, cost = attempt.begun, self._cost()
        ids = begun.token_ids + sampled.token_ids
        logprobs, top = begun.logprobs + sampled.logprobs, begun.top_logprobs + sampled.top_logprobs
        return replace(
            sampled,
            token_ids=ids,
            logprobs=logprobs if len(logprobs) == len(ids) else (),
            top_logprobs=top if len(top) == len(ids) else (),
            discarded_tokens=begun.discarded_tokens + sampled.discarded_tokens,
            hedged_tokens=cost,
        )


def _certain(error: Exception) -> bool:
    """Whether what failed with this surely generated nothing."""
    return isinstance(error, UnavailableError | MisfitError) or (isinstance(error, EngineError) and not error.generated)
