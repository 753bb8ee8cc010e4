"""Scores solutions by how sure the policy was of its own tokens: no model, no text, no cost.

Measures of arXiv 2508.15260 (DeepConf) and 2502.18581 (self-certainty). The confidence at a token is minus the mean
log-probability of the k most probable tokens at its place; where the engine tells the sampled tokens alone, it is the
log-probability of the sampled one. It does not know whether a solution is right, and a policy may be sure of what is
wrong: whether votes by it beat the majority is for a calibration to find out.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm.base import CONFIDENCE, RewardModel, Scored, ScoreRequest, Traits, check_steps
from adaptive_ttc.prm.registry import PRMReader, register_prm

Measure = Literal["mean", "lowest_group", "bottom_groups", "tail", "self_certainty"]
"""How the confidences of a solution's tokens become one number.

``mean`` of all tokens; ``lowest_group``: the least mean of ``window`` tokens in a row; ``bottom_groups``: the mean of
the lowest tenth of those; ``tail``: the mean of the last ``window`` tokens; ``self_certainty``: the mean where k is the
whole vocabulary, as far as the engine goes, which is the divergence from the uniform distribution but for a constant.
"""

MEASURES: tuple[Measure, ...] = get_args(Measure)
VOCABULARY = 2**31  # asks for all tokens that there are
NATS = 64.0
"""The confidence by k most probable tokens that is score 1. Scores grow in proportion to it, so that votes by scores
are those by confidences; the mean log-probability of 20 tokens of a language model lies between -5 and -30.
"""

_BOTTOM = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceSettings:
    """What is read off the log-probabilities.

    Attributes:
        measure: see :data:`Measure`.
        window: tokens of a group, and of the tail; a shorter solution is one group.
        top: how many most probable tokens are looked at, where the engine tells them; 0: the sampled token alone.
    """

    measure: Measure = "mean"
    window: int = 64
    top: int = 20

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ConfigError(f"unknown measure {self.measure!r} of confidence; choose one of {', '.join(MEASURES)}")
        for name, least in (("window", 1), ("top", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is a whole number of at least {least}; got {value!r}")


class ConfidencePRM:
    """A :class:`~adaptive_ttc.prm.base.RewardModel` without a model: ``prm="confidence"``, ``"confidence:tail"``, ...

    The score of a step is that of the solution up to its end. By the k most probable tokens it is the confidence
    divided by :data:`NATS`; by the sampled tokens, the geometric mean of their probabilities. A solution of which
    neither is known for all tokens stays unscored.

    Args:
        settings: what is read.
    """

    parameters = 0

    def __init__(self, settings: ConfidenceSettings | None = None) -> None:
        self.settings = settings = settings or ConfidenceSettings()
        self.name = CONFIDENCE if settings.measure == "mean" else f"{CONFIDENCE}:{settings.measure}"
        self.fingerprint = sha256(f"confidence-1 {settings}".encode()).hexdigest()
        top = VOCABULARY if settings.measure == "self_certainty" and settings.top else settings.top
        self.traits = Traits(logprobs=True, top_logprobs=top, free=True)
        self._closed = False

    def count_tokens(self, request: ScoreRequest) -> int:
        """0; ConfigError for no step, or an empty one."""
        check_steps(request)
        return 0

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step; ConfigError where log-probabilities of some tokens are not known, EngineError if closed."""
        check_steps(request)
        if self._closed:
            raise EngineError(f"{self.name} is closed; make a new one")
        tokens = request.tokens
        if tokens is None or not (tokens.top or tokens.chosen):
            raise ConfigError(
                "the log-probabilities of a solution's tokens are not known, which its confidence is read off: take "
                "an engine that tells them (for servers, logprobs=True), or another reward model"
            )
        if len(tokens.ends) != len(request.steps) or tokens.ends[-1] < 1:
            raise ConfigError(f"{len(tokens.ends)} ends of {len(request.steps)} steps: give one for each")
        sure = [-one for one in tokens.top] if tokens.top else tokens.chosen  # the more, the surer
        scale = _scored_top if tokens.top else _scored_chosen
        found = of_prefixes(sure, tokens.ends, self.settings.measure, self.settings.window)
        return Scored(scores=tuple(map(scale, found)), prm_tokens=0)

    async def aclose(self) -> None:
        """Nothing is held; later requests fail."""
        self._closed = True


def of_prefixes(sure: Sequence[float], ends: Sequence[int], measure: Measure, window: int) -> list[float]:
    """A measure of the first ``ends[0]``, ``ends[1]``, ... tokens; ``sure``: how sure the policy was at each of them.

    ``ends`` do not fall; an end at 0 counts as 1. Linear in the tokens but for the lowest groups, which are kept in
    order.
    """
    sums = list(accumulate(sure, initial=0.0))

    def mean(first: int, last: int) -> float:
        return (sums[last] - sums[first]) / (last - first)

    found: list[float] = []
    groups: list[float] = []
    seen = 0
    for end in (max(end, 1) for end in ends):
        if measure in ("mean", "self_certainty") or end <= window:
            found.append(mean(0, end))
        elif measure == "tail":
            found.append(mean(end - window, end))
        else:
            for last in range(max(seen + 1, window), end + 1):
                insort(groups, mean(last - window, last))
            number = 1 if measure == "lowest_group" else math.ceil(_BOTTOM * len(groups))
            found.append(math.fsum(groups[:number]) / number)
            seen = end
    return found


def _scored_top(confidence: float) -> float:
    return min(max(confidence / NATS, 0.0), 1.0)


def _scored_chosen(logprob: float) -> float:
    return min(math.exp(logprob), 1.0)


def _loaded(spelled: str | Path, **settings: Any) -> RewardModel:
    """By its measure and settings as they follow the name: ``tail``, ``mean,top=0``, or nothing; or as keywords."""
    for number, part in enumerate(str(spelled).split(",") if str(spelled) else ()):
        name, equals, value = part.partition("=")
        if equals and value.isdecimal():
            settings[name] = int(value)
        elif equals or number:
            raise ConfigError(f"confidence:{spelled} must be confidence:MEASURE,window=W,top=K; got {part!r}")
        else:
            settings["measure"] = part
    if unknown := sorted(set(settings) - {field.name for field in fields(ConfidenceSettings)}):
        raise ConfigError(f"confidence runs no model: leave out {', '.join(unknown)}; it takes measure, window and top")
    return ConfidencePRM(ConfidenceSettings(**settings))


register_prm(PRMReader(name=CONFIDENCE, load=_loaded, runs_model=False))
