"""What every engine does with a sample request: refuse an impossible one, and find where a stop string ends it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Container, Sequence

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policy import Policy, SampleRequest

_LEAST_LOGPROB = -100.0  # nats; of tokens that a model rules out


def check_request(
    policy: Policy, request: SampleRequest, *, vocab_size: int, in_flight: Container[str] = (), closed: bool = False
) -> None:
    """Refuse a request before any work is done for it.

    ConfigError: the prompt is empty, foreign (token ids not below ``vocab_size``) or leaves no room for a token, a
    sampling parameter is out of range, or the id is ``in_flight`` already. EngineError: the policy is ``closed``.
    """
    prompt = request.prompt_ids
    if not prompt:
        raise ConfigError(f"request {request.id!r} has an empty prompt; render the problem with policy.encode")
    if len(prompt) >= policy.max_context:
        raise ConfigError(
            f"the prompt is {len(prompt)} tokens long and the context holds {policy.max_context}, the solution "
            "included; shorten the problem or take a policy with a longer context"
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise ConfigError(
            f"request {request.id!r} holds token ids outside 0..{vocab_size - 1}; its prompts come from encode"
        )
    if request.max_tokens < 1:
        raise ConfigError(f"max_tokens={request.max_tokens} must be at least 1")
    if not 0.0 <= request.temperature < float("inf"):
        raise ConfigError(f"temperature={request.temperature} must be 0 (greedy) or a positive number")
    if not 0.0 < request.top_p <= 1.0:
        raise ConfigError(f"top_p={request.top_p} must lie in (0, 1]")
    if "" in request.stop:
        raise ConfigError("an empty stop string would end every sample at once; leave it out")
    if request.id in in_flight:
        raise ConfigError(f"request id {request.id!r} is in flight already; give every request its own")
    if closed:
        raise EngineError(f"the policy {policy.name} is closed; make a new one")


def stream_seed(request: SampleRequest, *, bits: int = 63) -> int:
    """The seed, 0 to 2**bits - 1, of a request's own random stream, for engines that draw one for every request.

    The prompt's length keeps two pieces of one sample from the same draws.
    """
    digest = hashlib.blake2b(f"{request.seed}:{len(request.prompt_ids)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - bits)


def mean_logprob(logprobs: Sequence[float]) -> float:
    """Mean log-probability, in nats, of several tokens at one place; those that a model rules out count too."""
    return math.fsum(max(one, _LEAST_LOGPROB) for one in logprobs) / len(logprobs)


Decode = Callable[[Sequence[int]], str]
"""The text of token ids, special tokens left out."""

_REPLACEMENT = "\ufffd"  # what a decoder writes for half a character


class TokenTexts:
    """The text that one token adds, cached.

    Tokens are decoded behind ``anchor``, an ordinary token with a text, because some decoders strip a leading blank.
    """

    def __init__(self, decode: Decode, anchor: int) -> None:
        self.decode, self._anchor = decode, anchor
        self._before = decode([anchor])
        self._texts: dict[int, str] = {}
        self._rules: dict[tuple[str, ...], StopRule] = {}

    def stop_rule(self, stop: tuple[str, ...]) -> StopRule:
        """The rule for these stop strings; the same object for the same strings."""
        if stop not in self._rules:
            self._rules[stop] = StopRule(stop, self)
        return self._rules[stop]

    def __getitem__(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self.decode([self._anchor, token])[len(self._before) :]
        return self._texts[token]


class StopRule:
    """Tells at which token a sample met a stop string; a token without any's last (or half a) character meets none."""

    def __init__(self, stop: Sequence[str], texts: TokenTexts) -> None:
        self._stop, self._texts = tuple(stop), texts
        self._last = {string[-1] for string in stop} | {_REPLACEMENT}
        # a character is at least one token's worth of bytes; four more cover a split character on either side
        self._reach = max((len(string.encode()) for string in stop), default=0) + 4

    def met(self, context: str, tokens: Sequence[int]) -> bool:
        """Whether the last of all new ``tokens`` completes a stop string; to be asked after each of them.

        ``context`` is the text directly before the new tokens; a stop string may begin in it, not end in it.
        """
        if not self._stop or self._last.isdisjoint(self._texts[tokens[-1]]):
            return False
        tail = self._texts.decode(tokens[-self._reach :])
        before = context if len(tokens) <= self._reach else ""
        return any((before + tail).find(string, max(0, len(before) - len(string) + 1)) >= 0 for string in self._stop)
