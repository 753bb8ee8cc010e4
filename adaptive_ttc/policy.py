"""What an engine must offer to be a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from adaptive_ttc.types import Aggregation, Message, Problem

SampleFinish = Literal["eos", "stop", "length", "abort"]
"""Why an engine ended a sample, see :class:`Sampled`."""


class Spare(Protocol):
    """What a request may cost beyond its ``max_tokens``, where an engine asks for the same sample twice."""

    @property
    def tokens(self) -> int:
        """Reserved so far."""

    def reserve(self, tokens: int) -> bool:
        """Have so many more tokens reserved, before anything generates them; whether they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """One sample: the engine continues ``prompt_ids`` until EOS, a stop string or ``max_tokens``.

    Attributes:
        id: unique among the requests in flight; the key for ``Policy.abort``.
        prompt_ids: the rendered problem and the solution so far, exactly as the engine made them.
        max_tokens: at most so many new tokens, at least 1.
        seed: with a token's position (its index in prompt and generated tokens together) the only source of randomness:
            the token at position p is drawn from (seed, p). A sample that is cut into several requests, each with the
            same seed and a longer prompt, is then the same sample. An engine that seeds a stream per request instead
            mixes ``len(prompt_ids)`` into it, so that two pieces do not use the same draws.
        seeded: whether the caller wants these very draws. If not, an engine that is faster without the seed ignores it.
        temperature: 0 is greedy.
        top_p: nucleus mass in (0, 1].
        stop: strings that end the sample; the tokens that complete one are delivered with it.
        stop_context: text of this sample that stands directly before the new tokens, shorter than the longest stop
            string, for a stop string that straddles the seam between two requests.
        priority: lower is served first, where the engine knows priorities.
        path: the sample's place in its search (see :class:`~adaptive_ttc.types.Prefix`); engines that answer from a
            record find it by that.
        logprobs: whether those of its tokens are read; if not, an engine that is faster without them leaves them out.
        top_logprobs: how many of the most probable tokens' log-probabilities are wanted at every place, beside the
            sampled token's; an engine that gives fewer, or none, gives those. 0: none are read.
        stop_ids: tokens that end the sample like a stop string, where the engine can; the caller cuts off what comes
            after them where it cannot.
        think_tokens: most tokens of thinking, for an engine of whole samples; any other one's thoughts the driver ends.
        messages: the chat that ``prompt_ids`` render, for engines that render prompts themselves; empty where a
            solution has begun.
        spare: where tokens that are generated beside the sample are reserved; None: there may be none.
    """

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int
    seeded: bool = True
    temperature: float = 0.8
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    stop_context: str = ""
    priority: int = 0
    path: tuple[int, ...] = ()
    logprobs: bool = True
    top_logprobs: int = 0
    stop_ids: tuple[int, ...] = ()
    think_tokens: int | None = None
    messages: tuple[Message, ...] = ()
    spare: Spare | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What came of a request.

    Attributes:
        token_ids: the tokens delivered, EOS included when it was generated; their number is what the ledger charges.
        finish: ``eos``, ``stop`` (a stop string), ``length`` (``max_tokens`` or the context), ``abort``.
        logprobs: log-probability of each delivered token under the temperature-1 model, in nats.
        top_logprobs: mean log-probability of the most probable tokens at each one's place, likewise; empty where none
            were asked for, or the engine does not tell them.
        answer_logprob: mean of those of the final answer's tokens, where an engine knows it otherwise; nan where it
            knows that it cannot be told; None: it follows from ``logprobs``.
        prompt_tokens: prompt tokens computed; ``cached_tokens`` were answered by a prefix cache.
        discarded_tokens: tokens computed past the end of the sample and not delivered.
        hedged_tokens: most tokens that a second request for the same sample generated in vain; charged, and no more
            than the request's ``spare`` reserved.
        thought: how many of ``token_ids``, from the first on, are thinking, where the engine itself tells them from the
            answer; None: the policy's tags tell.
        text: what it says, where ``token_ids`` are a count and do not decode to it; None: they decode to it.
        ends: characters of ``text`` that the first 1, 2, ... tokens stand for, not falling; empty where it is None.
    """

    token_ids: tuple[int, ...]
    finish: SampleFinish
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[float, ...] = ()
    answer_logprob: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    discarded_tokens: int = 0
    hedged_tokens: int = 0
    thought: int | None = None
    text: str | None = None
    ends: tuple[int, ...] = ()

    def decoder(self, decode: Callable[[Sequence[int]], str]) -> Callable[[Sequence[int]], str]:
        """What decodes its first tokens to its own text; ``decode``, the policy's, where it has none."""
        text, ends, own = self.text, self.ends, self.token_ids
        if text is None:
            return decode

        def kept(token_ids: Sequence[int]) -> str:
            ids = tuple(token_ids)
            return text[: ends[len(ids) - 1]] if ids and ids == own[: len(ids)] else decode(ids)

        return kept


@runtime_checkable
class Policy(Protocol):
    """An engine that samples solutions, many requests at once.

    ``sample`` may be called from many tasks; the engine batches by itself. ``abort`` makes the pending ``sample`` of
    that id return soon with ``finish="abort"`` and the tokens so far; an unknown id is ignored. A task cancelled inside
    ``sample`` frees its slot as well (its tokens are then unknown to the caller, who should abort instead). ``sample``
    raises :class:`~adaptive_ttc.errors.EngineError`, and :class:`~adaptive_ttc.errors.ConfigError` for a request that
    can never be served (prompt longer than the context).
    """

    @property
    def name(self) -> str:
        """How a person calls this model."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the sampled distribution may change: weights, tokenizer, prompt template."""

    @property
    def parameters(self) -> int:
        """Number of parameters that take part in a token's forward pass."""

    @property
    def max_context(self) -> int:
        """Prompt and new tokens together may not exceed this."""

    @property
    def revision_prompt(self) -> str | None:
        """The user turn after which it was trained to write a better attempt; None if it was not."""

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Render the problem through the chat template, up to where the solution begins."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample."""

    async def abort(self, request_id: str) -> None:
        """End a pending sample early."""

    async def aclose(self) -> None:
        """Free the engine; pending samples end with ``finish="abort"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a strategy will ask of its models."""

    strategy: str  # its name
    n: int | None  # samples; None where the budget alone decides how many
    # whether it samples and scores step by step, not whole solutions alone; it may where ``n`` is None, but not with a
    # policy of whole samples, see :func:`whole_samples`
    stepwise: bool
    revises: bool  # whether it shows the policy its earlier attempts
    scored: bool  # whether it has solutions scored
    temperature: float  # 0 is greedy
    top_p: float  # nucleus mass
    max_tokens: int  # most tokens of one solution
    think_tokens: int | None  # most tokens of thinking in it; None for no limit
    waits: int  # how often a thought is made to go on
    agg_strategy: Aggregation  # how the scores of a solution's steps become one
    count: str  # what the budget bounds, see :data:`adaptive_ttc.cost.Count`


@runtime_checkable
class Limited(Protocol):
    """A policy or PRM that cannot meet every demand. One that wraps another passes both on."""

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """Options of a strategy that stand here in place of the common defaults, where the caller names none."""

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse, with a ConfigError that names reason and remedy, what it cannot answer for this problem."""


def strategy_defaults(model: object) -> Mapping[str, Any]:
    """A model's own defaults; none for one without limits."""
    defaults: Mapping[str, Any] = getattr(model, "strategy_defaults", {})
    return defaults


def check_demand(model: object, problem: Problem, demand: Demand) -> None:
    """Have a model check a demand; one without limits meets all. Raises ConfigError: it cannot meet the demand."""
    check = getattr(model, "check_demand", None)
    if check is not None:
        check(problem, demand)


def whole_samples(policy: object) -> bool:
    """Whether a policy cannot continue a begun solution, so that a sample is one request."""
    return bool(getattr(policy, "whole_samples", False))


def second_policy(policy: object) -> Policy | None:
    """The other policy that an adaptive run may turn to; None for a policy that stands alone."""
    second: Policy | None = getattr(policy, "second", None)
    return second


def second_weight(policy: object) -> float:
    """Tokens of a policy that one of its second policy counts, at least 1; 1 where there is none."""
    weight: float = getattr(policy, "second_weight", 1.0)
    return weight


def default_weight(first: int, second: int) -> float | None:
    """Tokens of a policy that one of its second policy counts where nothing says it: the ratio of their ``parameters``,
    what a token takes in FLOPs, and at least 1; None where a size is not known.
    """
    return max(1.0, second / first) if first > 0 and second > 0 else None


def own_weight(policy: Policy) -> float | None:
    """What a token of the second policy counts, where that is not :func:`default_weight`; None where there is none."""
    second, weight = second_policy(policy), second_weight(policy)
    return None if second is None or weight == default_weight(policy.parameters, second.parameters) else weight


def recorded_samples(policy: object, problem: Problem) -> int | None:
    """How many samples a policy that answers from a record has of a problem; None for one that samples by itself.

    Such a policy has whole samples drawn at random, and neither greedy ones nor steps.
    """
    ask = getattr(policy, "recorded_samples", None)
    return None if ask is None else ask(problem)


def recorded_problem(policy: object) -> Problem | None:
    """A problem that a policy that answers from a record can be asked; None for one that can be asked any."""
    ask = getattr(policy, "recorded_problem", None)
    return None if ask is None else ask()
