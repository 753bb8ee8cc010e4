"""Where the engines end and the solver begins: what they deliver is checked, whatever they raise is made one of ours.

Nothing beyond this line has to expect a foreign exception or a reply that cannot be: a call returns a sound
:class:`~adaptive_ttc.policy.Sampled` or :class:`~adaptive_ttc.prm.base.Scored`, or raises an
:class:`~adaptive_ttc.errors.AdaptiveTTCError`. Cancellation, ``KeyboardInterrupt`` and ``SystemExit`` pass. It knows
neither budgets nor time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, TypeVar, get_args

from adaptive_ttc.errors import AdaptiveTTCError, EngineError, GradingError, ReplyError
from adaptive_ttc.policy import Policy, Sampled, SampleFinish, SampleRequest, second_policy
from adaptive_ttc.prm.base import PLAIN, RewardModel, Scored, ScoreRequest, Traits, is_out_of_memory
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM

T = TypeVar("T")
N = TypeVar("N", int, float)

ROUNDING = 1e-6  # by which a score may lie outside [0, 1]; it is brought back
LOGPROB_SLACK = 0.1  # nats by which a log-probability may be above 0, as engines compute in half precision
_FINISHES = get_args(SampleFinish)
_REPEATS = 3  # how often a method that costs nothing is tried
_MOST_TOKENS_PER_CHARACTER = 16  # that any PRM computes for a text, several models and labels of steps included


@contextmanager
def told_as_ours(what: str) -> Iterator[None]:
    """Raise :class:`EngineError` in place of any exception that is not this library's own; retryable, as nobody knows
    that it would happen again.
    """
    try:
        yield
    except AdaptiveTTCError:
        raise
    except Exception as error:
        raise _ours(what, error) from error


def _ours(what: str, error: Exception) -> EngineError:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "; lower max_tokens or the batch size" if is_out_of_memory(error) else ""
    return EngineError(f"{what} failed ({said[:500]}){hint}", retryable=True)


class CheckedPolicy(WrappedPolicy):
    """A policy whose replies are sound and whose errors are ours."""

    @property
    def second(self) -> CheckedPolicy | None:
        """Behind the boundary too."""
        second = second_policy(self._policy)
        return None if second is None else checked_policy(second)

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The prompt. Raises ConfigError for one that cannot be rendered, EngineError where the engine fails."""
        ids = _repeated("encode", self, lambda: tuple(self._policy.encode(problem)))
        if not _are_counts(ids):
            raise ReplyError(f"encode of {self.name} gave something else than token ids: {_shown(ids)}")
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text. Raises EngineError where the engine fails."""
        text = _repeated("decode", self, lambda: self._policy.decode(token_ids))
        if not isinstance(text, str):
            raise ReplyError(f"decode of {self.name} gave {_shown(text)} in place of a text", retryable=True)
        return text

    async def sample(self, request: SampleRequest) -> Sampled:
        """A sound sample. Raises ConfigError for a request that can never be served, EngineError for the rest."""
        with told_as_ours(f"a sample of {self.name}"):
            reply: object = await self._policy.sample(request)
        return checked_sample(reply, request, self)

    async def abort(self, request_id: str) -> None:
        """Abort. Raises EngineError where the engine fails."""
        with told_as_ours(f"abort of {self.name}"):
            await self._policy.abort(request_id)


class CheckedPRM(WrappedPRM):
    """A PRM whose scores are sound and whose errors are ours."""

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens. Raises ConfigError for a request that can never be served, EngineError where the model fails."""
        tokens = _repeated("count_tokens", self, lambda: self._prm.count_tokens(request))
        if not _is_count(tokens) or tokens > _most_tokens(request, self.traits):
            raise ReplyError(f"count_tokens of {self.name} gave {_shown(tokens)}")
        return int(tokens)

    async def score(self, request: ScoreRequest) -> Scored:
        """Sound scores. Raises ConfigError for a request that can never be served, EngineError for the rest."""
        with told_as_ours(f"a score of {self.name}"):
            reply: object = await self._prm.score(request)
        return checked_scores(reply, request, self.name, self.traits)


def checked_policy(policy: Policy) -> CheckedPolicy:
    """The policy behind the boundary; itself if it is."""
    return policy if isinstance(policy, CheckedPolicy) else CheckedPolicy(policy)


def checked_prm(prm: RewardModel | None) -> CheckedPRM | None:
    """The PRM behind the boundary; itself if it is, or if there is none."""
    return prm if prm is None or isinstance(prm, CheckedPRM) else CheckedPRM(prm)


@contextmanager
def grading() -> Iterator[None]:
    """Raise :class:`GradingError` for whatever else a grader raises."""
    try:
        yield
    except AdaptiveTTCError:
        raise
    except Exception as error:
        raise GradingError(f"grading failed ({type(error).__name__}: {error})") from error


def checked_sample(reply: object, request: SampleRequest, policy: Policy) -> Sampled:
    """The sample, if it is sound; else ReplyError, retryable, as nobody knows that it would happen again."""
    if not isinstance(reply, Sampled):
        raise ReplyError(f"{policy.name} gave {_shown(reply)} in place of a sample", retryable=True)
    with _malformed(policy.name):
        ids, logprobs, top = tuple(reply.token_ids), tuple(reply.logprobs), tuple(reply.top_logprobs)
        if len(ids) > request.max_tokens:
            raise ReplyError(
                f"the policy delivered {len(ids)} tokens to a request for at most {request.max_tokens}: "
                "its max_tokens must be obeyed, or no budget can hold",
                retryable=True,
            )
        if not (_are_counts(ids) and max(ids, default=0) < 2**31):
            raise _UnsoundError(f"token ids that cannot be: {_shown(ids)}")
        if reply.finish not in _FINISHES:
            raise _UnsoundError(f"finish={_shown(reply.finish)}")
        if reply.finish == "stop" and not (request.stop or request.stop_ids):
            raise _UnsoundError("a stop string where none was asked for")
        for name, some in (("log-probabilities", logprobs), ("means of log-probabilities", top)):
            if len(some) not in (0, len(ids)):
                raise _UnsoundError(f"{len(some)} {name} of {len(ids)} tokens")
            if not _are_logprobs(some):
                raise _UnsoundError(f"{name} that cannot be: {_shown(some)}")
        if not _are_ends(reply.ends, reply.text, len(ids)):
            raise _UnsoundError(f"a text of its own that does not go with its {len(ids)} tokens")
        most = max(policy.max_context, len(request.prompt_ids) + request.max_tokens)
        for name in ("prompt_tokens", "cached_tokens", "discarded_tokens"):
            number = getattr(reply, name)
            if not (_is_count(number) and number <= most):
                raise _UnsoundError(f"{name}={_shown(number)} in a context of {most:,}")
        spare, hedged = 0 if request.spare is None else request.spare.tokens, reply.hedged_tokens
        if not (_is_count(hedged) and hedged <= spare):
            raise _UnsoundError(f"hedged_tokens={_shown(hedged)} where {spare:,} were reserved")
    # Python's own numbers in tuples, whatever the engine's library has
    own = _own(reply.token_ids, int), _own(reply.logprobs, float), _own(reply.top_logprobs, float)
    if own[0] is reply.token_ids and own[1] is reply.logprobs and own[2] is reply.top_logprobs:
        return reply
    return replace(reply, token_ids=own[0], logprobs=own[1], top_logprobs=own[2])


def _own(numbers: Sequence[Any], kind: type[N]) -> tuple[N, ...]:
    """The numbers as Python's own in a tuple; themselves where they are."""
    if type(numbers) is tuple and set(map(type, numbers)) <= {kind}:
        return numbers
    return tuple(map(kind, numbers))


def checked_scores(reply: object, request: ScoreRequest, name: str, traits: Traits = PLAIN) -> Scored:
    """The scores, if they are sound; else ReplyError. What rounding put outside [0, 1] is brought back."""
    if not isinstance(reply, Scored):
        raise ReplyError(f"{name} gave {_shown(reply)} in place of scores", retryable=True)
    with _malformed(name):
        scores, steps = tuple(reply.scores), len(request.steps)
        if len(scores) != steps and (scores or not traits.written):
            raise ReplyError(f"the PRM gave {len(scores)} scores for {steps} steps", retryable=True)
        if not all(map(_is_score, scores)):
            raise _UnsoundError(f"scores that are not in [0, 1]: {_shown(scores)}")
        most, most_written = _most_tokens(request, traits), min(reply.prm_tokens, _most_written(request, traits))
        for name, limit in (("prm_tokens", most), ("cached_tokens", most), ("written_tokens", most_written)):
            number = getattr(reply, name)
            if not (_is_count(number) and number <= limit):
                raise _UnsoundError(f"{name}={_shown(number)}")
    own = _own(scores, float)
    if own is reply.scores and min(own, default=0.0) >= 0.0 and max(own, default=0.0) <= 1.0:
        return reply
    return replace(reply, scores=tuple(min(max(one, 0.0), 1.0) for one in own))


def _repeated(what: str, engine: CheckedPolicy | CheckedPRM, call: Callable[[], T]) -> T:
    """The result of a call that costs nothing, tried again at once where it fails with a foreign exception."""
    for attempt in range(1, _REPEATS + 1):
        try:
            return call()
        except EngineError as error:
            failure = error
        except AdaptiveTTCError:
            raise
        except Exception as error:
            failure = _ours(f"{what} of {engine.name}", error)
            failure.__cause__ = error
        if not failure.retryable or attempt == _REPEATS:
            failure.generated = False
            raise failure
    raise AssertionError


@contextmanager
def _malformed(name: str) -> Iterator[None]:
    """Raise ReplyError, retryable, for what the checks of a reply stumble over."""
    try:
        yield
    except _UnsoundError as wrong:
        raise ReplyError(f"{name} gave {wrong}", retryable=True) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ReplyError(f"{name} gave a malformed reply ({error})", retryable=True) from error


class _UnsoundError(Exception):
    """Something in a reply that cannot be."""


def _are_ends(ends: Any, text: Any, tokens: int) -> bool:
    if text is None:
        return len(ends) == 0
    places = [0, *ends, len(text)]
    return isinstance(text, str) and len(ends) == tokens and all(map(_is_count, places)) and places == sorted(places)


def _is_count(number: Any) -> bool:
    return (type(number) is int and number >= 0) or (
        isinstance(number, Integral) and not isinstance(number, bool) and int(number) >= 0
    )


def _are_counts(numbers: tuple[Any, ...]) -> bool:
    if set(map(type, numbers)) == {int}:
        return bool(min(numbers) >= 0)
    return all(map(_is_count, numbers))


def _are_logprobs(numbers: tuple[Any, ...]) -> bool:
    if set(map(type, numbers)) == {float}:
        return all(map(math.isfinite, numbers)) and bool(max(numbers) <= LOGPROB_SLACK)
    return all(map(_is_logprob, numbers))


def _is_logprob(number: Any) -> bool:
    return isinstance(number, Real) and math.isfinite(number) and float(number) <= LOGPROB_SLACK


def _is_score(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and -ROUNDING <= float(number) <= 1 + ROUNDING


def _most_tokens(request: ScoreRequest, traits: Traits) -> int:
    solutions = (request.steps, *request.rivals)
    characters = sum(len(step) + 64 for steps in solutions for step in steps) + len(request.question) + 1024
    repeated = max(1, 2 * len(request.rivals))  # rivals are compared in both orders
    return _MOST_TOKENS_PER_CHARACTER * repeated * characters + _most_written(request, traits)


def _most_written(request: ScoreRequest, traits: Traits) -> int:
    return traits.written * (len(request.rivals) if traits.rivals else 1)


def _shown(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}..."
