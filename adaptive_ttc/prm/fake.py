"""A PRM without a model, for tests: scripted or generative, recording, holding and failing on demand.

Replies depend on the request alone (but for :meth:`FakePRM.scripted`), never on order or time.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel

from adaptive_ttc.errors import ConfigError, EngineError, ScriptError
from adaptive_ttc.prm.base import Scored, ScoreRequest, check_steps


@dataclass(slots=True, kw_only=True)
class Trouble:
    """Random delays and failures of a fake engine's calls; the same for the same seed and order of calls."""

    seed: int  # of all chances
    turns: int = 0  # a call waits at most so many turns of the event loop, so that replies come in another order
    lost: float = 0.0  # probability that it fails as over a broken line: retryable, and nobody learns what was computed
    fatal: float = 0.0  # probability that it fails for good
    deaf: bool = False  # whether the engine ignores aborts
    _chances: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.turns < 0 or min(self.lost, self.fatal) < 0 or self.lost + self.fatal > 1:
            raise ConfigError(f"turns is at least 0, lost and fatal are probabilities; got {self}")
        self._chances = random.Random(self.seed)

    async def befall(self) -> None:
        """Let some turns pass, then return, or fail with :class:`EngineError`."""
        for _ in range(self._chances.randint(0, self.turns)):
            await anyio.lowlevel.checkpoint()
        chance = self._chances.random() if self.lost or self.fatal else 1.0
        if chance < self.lost:
            raise EngineError("the connection was lost; the same request may succeed later", retryable=True)
        if chance < self.lost + self.fatal:
            raise EngineError("the engine broke down; start it anew")


def anything(request: object) -> bool:
    """Matches every request."""
    return True


@dataclass(slots=True, eq=False)
class Failure:
    """An error for the next ``times`` matching requests, once their samples have so many tokens."""

    error: Exception
    matching: Callable[[Any], bool]
    times: int
    after_tokens: int = 0

    def raise_if_due(self, request: object, tokens: int = 0) -> None:
        """Raise it if the request matches at this point and it was not raised ``times`` times."""
        if self.times > 0 and tokens == self.after_tokens and self.matching(request):
            self.times -= 1
            raise self.error


Matching = Callable[[ScoreRequest], bool]


def count_characters(request: ScoreRequest) -> int:
    """Characters of the question and the steps, and one for each step's label."""
    return len(request.question) + sum(len(step) + 1 for step in request.steps)


@dataclass(slots=True, eq=False)
class Hold:
    """Holds replies back until it is released."""

    matching: Matching
    arrived: anyio.Event = field(default_factory=anyio.Event)  # set when the first matching request waits
    waiting: list[ScoreRequest] = field(default_factory=list)  # the requests that wait, in order of arrival
    _released: anyio.Event = field(default_factory=anyio.Event)

    def release(self) -> None:
        """Release the waiting requests, and hold no further ones."""
        self._released.set()

    async def wait(self, request: ScoreRequest) -> None:
        """Wait for the release."""
        if self._released.is_set():
            return
        self.waiting.append(request)
        self.arrived.set()
        try:
            await self._released.wait()
        finally:
            self.waiting.remove(request)


class FakePRM:
    """A :class:`~adaptive_ttc.prm.base.RewardModel` whose scores come from a function.

    Args:
        score_prefix: the score, in [0, 1], of a question's first steps (at least one); called for every prefix of a
            solution, so early scores do not depend on later steps.
        name: how a person calls it.
        parameters: the number that it reports, for costs.
        count: tokens of a request; by default the characters of question and steps, one more a step.
        max_context: tokens it can read; longer requests raise ConfigError, as with a real PRM.
        trouble: random delays and failures of its calls.

    Attributes:
        requests: every request that was asked, in order, failed ones included.
        prm_tokens: tokens of all replies given.
        in_flight: requests being served now; ``max_in_flight`` the most there ever were.
        cancelled: requests whose caller was cancelled.
        closed: whether it was closed.
    """

    def __init__(
        self,
        score_prefix: Callable[[str, tuple[str, ...]], float],
        *,
        name: str = "fake-prm",
        parameters: int = 1000,
        count: Callable[[ScoreRequest], int] = count_characters,
        max_context: int | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        self._score_all: Callable[[ScoreRequest], Sequence[float]] = lambda request: [
            score_prefix(request.question, request.steps[: k + 1]) for k in range(len(request.steps))
        ]
        self.name, self.fingerprint, self.parameters = name, f"fake:{name}", parameters
        self._count, self._max_context, self._trouble = count, max_context, trouble
        self._holds: list[Hold] = []
        self._failures: list[Failure] = []
        self.requests: list[ScoreRequest] = []
        self.prm_tokens = self.in_flight = self.max_in_flight = self.cancelled = 0
        self.closed = False

    @classmethod
    def by_step(cls, scores: Mapping[str, float], **settings: Any) -> FakePRM:
        """Scores by the text of the step; an unknown step raises ScriptError. ``settings``: the constructor's."""

        def score_prefix(question: str, steps: tuple[str, ...]) -> float:
            if steps[-1] not in scores:
                raise ScriptError(f"FakePRM has no score for the step {steps[-1]!r}; it knows {sorted(scores)}")
            return scores[steps[-1]]

        return cls(score_prefix, **settings)

    @classmethod
    def scripted(cls, replies: Iterable[Sequence[float]], **settings: Any) -> FakePRM:
        """Replies in the order of the calls; a call beyond the last raises ScriptError."""
        script = [tuple(reply) for reply in replies]
        length = len(script)

        def next_reply(request: ScoreRequest) -> Sequence[float]:
            if not script:
                raise ScriptError(f"FakePRM was asked more often than its {length} scripted replies; it got {request}")
            return script.pop(0)

        fake = cls(lambda question, steps: 0.0, **settings)
        fake._score_all = next_reply
        return fake

    @classmethod
    def truthful(
        cls,
        truth: Callable[[str, tuple[str, ...]], float],
        *,
        certainty: float = 0.9,
        noise: float = 1.0,
        seed: int = 0,
        **settings: Any,
    ) -> FakePRM:
        """Scores around the truth, as those of a mostly right PRM.

        Args:
            truth: probability (or True, False) that a question's first steps are on a path to the right answer.
            certainty: the score of surely right steps, without noise; 1 - certainty that of surely wrong ones.
            noise: standard deviation added to the score's logit.
            seed: of the noise, which depends on it, the question and the steps alone.
        """
        if not 0.5 < certainty < 1 or noise < 0:
            raise ConfigError(f"certainty={certainty} must be between 0.5 and 1, and noise={noise} not negative")

        def score_prefix(question: str, steps: tuple[str, ...]) -> float:
            key = hashlib.sha256(json.dumps([seed, question, steps]).encode()).digest()
            p = 1 - certainty + (2 * certainty - 1) * float(truth(question, steps))
            logit = math.log(p / (1 - p)) + noise * random.Random(key).gauss(0.0, 1.0)
            return 1 / (1 + math.exp(-logit))

        return cls(score_prefix, **settings)

    def hold(self, matching: Matching = anything) -> Hold:
        """Hold the replies to matching requests back until the hold is released."""
        hold = Hold(matching)
        self._holds.append(hold)
        return hold

    def fail(self, error: Exception, *, matching: Matching = anything, times: int = 1) -> None:
        """The next ``times`` matching requests raise ``error``."""
        self._failures.append(Failure(error, matching, times))

    def count_tokens(self, request: ScoreRequest) -> int:
        """See ``count``; ConfigError for no step, an empty step, or a text longer than the context."""
        check_steps(request)
        tokens = self._count(request)
        if self._max_context is not None and tokens > self._max_context:
            raise ConfigError(f"the solution is {tokens} tokens long for the PRM, its context {self._max_context}")
        return tokens

    async def score(self, request: ScoreRequest) -> Scored:
        """Reply, after the holds and failures that match."""
        tokens = self.count_tokens(request)
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await anyio.lowlevel.checkpoint()
            if self._trouble is not None:
                await self._trouble.befall()
            for hold in self._holds:
                if hold.matching(request):
                    await hold.wait(request)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if self.closed:
            raise EngineError(f"{self.name} is closed; make a new one")
        for failure in self._failures:
            failure.raise_if_due(request)
        scores = tuple(float(score) for score in self._score_all(request))
        if len(scores) != len(request.steps) or not all(0 <= score <= 1 for score in scores):
            raise ValueError(f"FakePRM was to reply {scores} to {len(request.steps)} steps: one score in [0, 1] a step")
        self.prm_tokens += tokens
        return Scored(scores=scores, prm_tokens=tokens)

    async def aclose(self) -> None:
        """Fail held and later requests."""
        self.closed = True
        for hold in self._holds:
            hold.release()
