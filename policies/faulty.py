"""A policy and a PRM that pass calls on to real ones and go wrong on purpose: seeded, in every way that we know of.

What is struck depends on the seed and the call alone (its prompt, path and how often it was asked), not on the order of
calls, so that a run is the same whenever it is repeated. Times are those of the event loop.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM

ERRORS: Mapping[str, Callable[[], Exception]] = {
    "lost": lambda: EngineError("the connection was lost", retryable=True),
    "unavailable": lambda: EngineError("the engine takes no requests now", retryable=True, generated=False),
    "fatal": lambda: EngineError("the engine broke down"),
    "death": lambda: EngineError("the engine has died", retryable=True, generated=False),
    "config_error": lambda: ConfigError("the engine does not take such a request"),
    "runtime_error": lambda: RuntimeError("something unexpected"),
    "key_error": lambda: KeyError("choices"),
    "index_error": lambda: IndexError("list index out of range"),
    "type_error": lambda: TypeError("'NoneType' object is not subscriptable"),
    "value_error": lambda: ValueError("not a number"),
    "attribute_error": lambda: AttributeError("'list' object has no attribute 'get'"),
    "lookup_error": lambda: LookupError("no such adapter"),
    "assertion_error": lambda: AssertionError(),
    "not_implemented": lambda: NotImplementedError("this kind of request"),
    "timeout_error": lambda: TimeoutError("the engine took too long"),
    "os_error": lambda: OSError(24, "Too many open files"),
    "connection_reset": lambda: ConnectionResetError(104, "Connection reset by peer"),
    "memory_error": lambda: MemoryError("out of memory"),
    "recursion_error": lambda: RecursionError("maximum recursion depth exceeded"),
    "overflow_error": lambda: OverflowError("int too large to convert to float"),
    "unicode_error": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "eof_error": lambda: EOFError("the pipe ended"),
    "regex_error": lambda: re.error("unterminated character set"),
    "stop_async_iteration": lambda: StopAsyncIteration(),
    "exception_group": lambda: ExceptionGroup("several went wrong", [RuntimeError("one"), ValueError("two")]),
    "bare_exception": lambda: Exception(),
}
"""Kinds of faults in which a call raises, before the engine is asked; after it with ``late``."""

Reply = Callable[[Any, Any], Any]  # what is delivered in place of a reply to a request

SAMPLES: Mapping[str, Reply] = {
    "none": lambda sampled, request: None,
    "text": lambda sampled, request: "The answer is 4.",
    "truncated": lambda sampled, request: _cut(sampled, len(sampled.token_ids) // 2),
    "empty": lambda sampled, request: _cut(sampled, 0),
    "doubled": lambda sampled, request: replace(sampled, token_ids=2 * sampled.token_ids),
    "overlong": lambda sampled, request: replace(sampled, token_ids=sampled.token_ids[:1] * (request.max_tokens + 1)),
    "few_logprobs": lambda sampled, request: replace(sampled, logprobs=(*sampled.logprobs, -1.0)),
    "few_top_logprobs": lambda sampled, request: replace(sampled, top_logprobs=(*sampled.logprobs, -1.0)),
    "nan_top_logprob": lambda sampled, request: replace(sampled, top_logprobs=(math.nan,) * len(sampled.token_ids)),
    "nan_logprob": lambda sampled, request: replace(sampled, logprobs=(math.nan,) * len(sampled.token_ids)),
    "infinite_logprob": lambda sampled, request: replace(sampled, logprobs=(-math.inf,) * len(sampled.token_ids)),
    "positive_logprob": lambda sampled, request: replace(sampled, logprobs=(3.0,) * len(sampled.token_ids)),
    "text_logprobs": lambda sampled, request: replace(sampled, logprobs=("-0.1",) * len(sampled.token_ids)),
    "wrong_finish": lambda sampled, request: replace(sampled, finish="content_filter"),
    "no_finish": lambda sampled, request: replace(sampled, finish=None),
    "unasked_stop": lambda sampled, request: sampled if request.stop else replace(sampled, finish="stop"),
    "negative_ids": lambda sampled, request: replace(sampled, token_ids=(-1, *sampled.token_ids[1:])),
    "foreign_ids": lambda sampled, request: replace(sampled, token_ids=(2**40, *sampled.token_ids[1:])),
    "fractional_ids": lambda sampled, request: replace(sampled, token_ids=(1.5, *sampled.token_ids[1:])),
    "text_ids": lambda sampled, request: replace(sampled, token_ids=("a", *sampled.token_ids[1:])),
    "no_ids": lambda sampled, request: replace(sampled, token_ids=None),
    "negative_usage": lambda sampled, request: replace(sampled, prompt_tokens=-5),
    "absurd_usage": lambda sampled, request: replace(sampled, discarded_tokens=10**15),
    "fractional_usage": lambda sampled, request: replace(sampled, cached_tokens=0.5),
    "no_usage": lambda sampled, request: replace(sampled, prompt_tokens=None),
}
"""Kinds of faults in which a policy delivers something else than it should."""

SCORES: Mapping[str, Reply] = {
    "none": lambda scored, request: None,
    "text": lambda scored, request: "good",
    "few_scores": lambda scored, request: replace(scored, scores=scored.scores[:-1]),
    "many_scores": lambda scored, request: replace(scored, scores=(*scored.scores, 0.5)),
    "nan_score": lambda scored, request: _last(scored, math.nan),
    "infinite_score": lambda scored, request: _last(scored, math.inf),
    "score_above_one": lambda scored, request: _last(scored, 1.5),
    "score_below_zero": lambda scored, request: _last(scored, -0.25),
    "score_a_little_above_one": lambda scored, request: _last(scored, 1.0000001),
    "text_score": lambda scored, request: _last(scored, "0.5"),
    "no_score": lambda scored, request: _last(scored, None),
    "no_scores": lambda scored, request: replace(scored, scores=None),
    "negative_usage": lambda scored, request: replace(scored, prm_tokens=-5),
    "absurd_usage": lambda scored, request: replace(scored, prm_tokens=10**15),
    "no_usage": lambda scored, request: replace(scored, prm_tokens=None),
}
"""Kinds of faults in which a PRM delivers something else than it should."""

WAITS = ("hang", "slow")
"""Kinds of faults in which a call does not return before it is cancelled, or later by ``seconds``."""

POLICY_METHODS = ("encode_error", "decode_error", "abort_error", "abort_hang")
"""Kinds of faults of a policy's other methods."""

PRM_METHODS = ("count_tokens_error",)
"""Kinds of faults of a PRM's other methods."""

POLICY_FAULTS = (*ERRORS, *SAMPLES, *WAITS, *POLICY_METHODS)
"""All kinds of faults of a policy."""

PRM_FAULTS = (*ERRORS, *SCORES, *WAITS, *PRM_METHODS)
"""All kinds of faults of a PRM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A way in which some calls go wrong.

    Attributes:
        kind: one of :data:`POLICY_FAULTS` or :data:`PRM_FAULTS`.
        rate: probability that a call is struck.
        seed: of the chance.
        calls: numbers of the calls that are struck, from 1, in place of chance; ``death`` strikes all later ones too.
        during: seconds after the first call between which calls are struck: an outage; None for always.
        seconds: how long ``slow`` takes.
        late: whether errors are raised after the engine has answered, so that what it generated is lost.
    """

    kind: str
    rate: float = 1.0
    seed: int = 0
    calls: tuple[int, ...] = ()
    during: tuple[float, float] | None = None
    seconds: float = 1.0
    late: bool = False

    def __post_init__(self) -> None:
        if self.kind not in {*POLICY_FAULTS, *PRM_FAULTS}:
            raise ConfigError(f"kind={self.kind!r} is no kind of fault; see POLICY_FAULTS and PRM_FAULTS")
        if not 0 <= self.rate <= 1 or not self.seconds >= 0:
            raise ConfigError(f"rate={self.rate} is a probability, seconds={self.seconds} at least 0")

    def strikes(self, number: int, age: float, key: Hashable) -> bool:
        """Whether it strikes the call of that number, ``age`` seconds after the first; ``key`` names it."""
        if self.during is not None and not self.during[0] <= age < self.during[1]:
            return False
        if self.calls:
            return number in self.calls or (self.kind == "death" and number > min(self.calls))
        digest = hashlib.sha256(f"{self.seed},{self.kind},{key}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.rate * 2**64


class _Striker:
    """Which calls of one engine are struck, and what they suffer."""

    def __init__(self, faults: Sequence[Fault], known: Sequence[str], replies: Mapping[str, Reply]) -> None:
        if foreign := [fault.kind for fault in faults if fault.kind not in known]:
            raise ConfigError(f"{', '.join(foreign)}: no fault of this engine; it has {', '.join(known)}")
        self.faults, self._replies = tuple(faults), replies
        self.struck: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._asked: Counter[Hashable] = Counter()
        self._began: float | None = None

    def due(self, method: str, key: Hashable, kinds: Sequence[str]) -> Fault | None:
        """The first fault of these kinds that strikes this call of a method, which is counted."""
        self._numbers[method] += 1
        self._asked[key] += 1
        name = key, self._asked[key]
        for fault in self.faults:
            if fault.kind in kinds and fault.strikes(self._numbers[method], self._age(fault), name):
                self.struck[fault.kind] += 1
                return fault
        return None

    async def suffer(self, fault: Fault | None, call: Callable[[], Any], request: Any) -> Any:
        """The reply of a call that a fault has struck, or none has."""
        if fault is None:
            return await call()
        if fault.kind == "hang":
            await anyio.sleep_forever()
        if fault.kind == "slow":
            await anyio.sleep(fault.seconds)
        if fault.kind in ERRORS:
            if fault.late:
                await call()
            raise ERRORS[fault.kind]()
        reply = await call()
        return self._replies[fault.kind](reply, request) if fault.kind in self._replies else reply

    def _age(self, fault: Fault) -> float:
        if fault.during is None:
            return 0.0
        self._began = anyio.current_time() if self._began is None else self._began
        return anyio.current_time() - self._began


class FaultyPolicy(WrappedPolicy):
    """Does what ``policy`` does, except where a fault strikes; the first of several that would."""

    def __init__(self, policy: Policy, *faults: Fault) -> None:
        super().__init__(policy)
        self._striker = _Striker(faults, POLICY_FAULTS, SAMPLES)

    @property
    def struck(self) -> Mapping[str, int]:
        """How many calls were struck, by kind."""
        return self._striker.struck

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The policy's, or RuntimeError."""
        if self._striker.due("encode", ("encode", problem.id), ("encode_error",)):
            raise RuntimeError("the chat template is broken")
        return super().encode(problem)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The policy's, or RuntimeError."""
        if self._striker.due("decode", ("decode", tuple(token_ids)), ("decode_error",)):
            raise RuntimeError("the tokenizer panicked")
        return super().decode(token_ids)

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's, or what the fault makes of it."""
        key = ("sample", request.prompt_ids, request.path)
        fault = self._striker.due("sample", key, (*ERRORS, *SAMPLES, *WAITS))
        sampled: Sampled = await self._striker.suffer(fault, lambda: self._policy.sample(request), request)
        return sampled

    async def abort(self, request_id: str) -> None:
        """The policy's, or RuntimeError, or no return."""
        fault = self._striker.due("abort", ("abort", request_id), ("abort_error", "abort_hang"))
        if fault is None:
            await super().abort(request_id)
        elif fault.kind == "abort_hang":
            await anyio.sleep_forever()
        else:
            raise RuntimeError("the engine does not know this request")


class FaultyPRM(WrappedPRM):
    """Does what ``prm`` does, except where a fault strikes; the first of several that would."""

    def __init__(self, prm: RewardModel, *faults: Fault) -> None:
        super().__init__(prm)
        self._striker = _Striker(faults, PRM_FAULTS, SCORES)

    @property
    def struck(self) -> Mapping[str, int]:
        """How many calls were struck, by kind."""
        return self._striker.struck

    def count_tokens(self, request: ScoreRequest) -> int:
        """The PRM's, or RuntimeError."""
        if self._striker.due("count_tokens", ("count_tokens", request), PRM_METHODS):
            raise RuntimeError("the tokenizer panicked")
        return super().count_tokens(request)

    async def score(self, request: ScoreRequest) -> Scored:
        """The PRM's, or what the fault makes of it."""
        fault = self._striker.due("score", ("score", request), (*ERRORS, *SCORES, *WAITS))
        scored: Scored = await self._striker.suffer(fault, lambda: self._prm.score(request), request)
        return scored


def _cut(sampled: Sampled, tokens: int) -> Sampled:
    """A sample that ends early, as if its limit had been reached."""
    return replace(sampled, token_ids=sampled.token_ids[:tokens], logprobs=sampled.logprobs[:tokens], finish="length")


def _last(scored: Scored, score: Any) -> Scored:
    return replace(scored, scores=(*scored.scores[:-1], score))
