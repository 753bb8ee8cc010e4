"""Several reward models as one: the mean of their logits, or the least of their scores.

Models that err in different ways err together more seldom. The mean of logits is that of log-odds, a product of experts
(Hinton 2002) at equal weights; the least is for models of which each sees faults that the others do not, and does not
reward a solution that one of them was talked into (arXiv 2310.02743).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, Traits, traits_of
from adaptive_ttc.prm.registry import PRMReader, chosen_reader, load_prm, reader_named, register_prm
from adaptive_ttc.tasks import side_by_side

SEPARATOR = "+"  # between the members of a name, as in ``mean_logit:models/one+models/other``

_CLIP = 1e-6  # scores are kept this far from 0 and 1, so that one sure member does not outvote all others


def _mean_logit(scores: Sequence[float]) -> float:
    clipped = [min(max(score, _CLIP), 1 - _CLIP) for score in scores]
    mean = math.fsum(math.log(score / (1 - score)) for score in clipped) / len(clipped)
    return 1 / (1 + math.exp(-mean))


COMBINATIONS: Mapping[str, Callable[[Sequence[float]], float]] = {"mean_logit": _mean_logit, "least": min}
"""What becomes of the members' scores of one step, shape [members]."""


class EnsemblePRM:
    """A :class:`~adaptive_ttc.prm.base.RewardModel` whose members score every solution, side by side.

    A token of the largest member is the unit of what it costs: a token of a member with half of its parameters counts
    a half, rounded up in sum, so that budgets in FLOPs are exact. Where one member fails, so does the ensemble, as its
    scores would mean something else without it.

    Args:
        members: at least two that score steps: not judges, nor outcome models beside models of steps. They are closed
            with it.
        combine: one of :data:`COMBINATIONS`.

    Raises:
        ConfigError: fewer than two, ones that cannot be combined, or no such combination.
    """

    def __init__(self, members: Sequence[RewardModel], combine: str = "mean_logit") -> None:
        if combine not in COMBINATIONS:
            raise ConfigError(f"unknown combination {combine!r} of scores; choose one of {', '.join(COMBINATIONS)}")
        if len(members) < 2:
            raise ConfigError(f"an ensemble has at least two members; got {len(members)}: take that model by itself")
        traits = [traits_of(member) for member in members]
        for member, one in zip(members, traits, strict=True):
            if one.written or one.rivals:
                raise ConfigError(f"{member.name} writes its verdicts, and cannot be a member of an ensemble")
            if one.finished_only != traits[0].finished_only:
                raise ConfigError(
                    f"{members[0].name} and {member.name} cannot be combined: one scores steps, the other finished "
                    "solutions alone"
                )
        self.members = tuple(members)
        self.combine = combine
        self.name = f"{combine}:{SEPARATOR.join(member.name for member in members)}"
        marks = sorted(member.fingerprint for member in members)
        self.fingerprint = sha256(f"ensemble-1 {combine} {marks}".encode()).hexdigest()
        self.parameters = max(member.parameters for member in members)
        self.traits = Traits(
            logprobs=any(one.logprobs for one in traits),
            top_logprobs=max(one.top_logprobs for one in traits),
            free=all(one.free for one in traits),
            finished_only=traits[0].finished_only,
        )

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens that all members compute with empty caches, in tokens of the largest one."""
        return self._weighted([member.count_tokens(request) for member in self.members])

    async def score(self, request: ScoreRequest) -> Scored:
        """Score every step by every member; ConfigError or EngineError as the first that fails."""
        answers: dict[int, Scored] = {}

        async def ask(number: int) -> None:
            answers[number] = await self.members[number].score(request)

        async with side_by_side() as tasks:
            for number in range(len(self.members)):
                tasks.start_soon(ask, number)
        found = [answers[number] for number in range(len(self.members))]
        together = COMBINATIONS[self.combine]
        read = self._weighted([one.prm_tokens + one.cached_tokens for one in found])
        computed = self._weighted([one.prm_tokens for one in found])
        return Scored(
            scores=tuple(map(together, zip(*(one.scores for one in found), strict=True))),
            prm_tokens=computed,
            cached_tokens=read - computed,
        )

    def _weighted(self, tokens: Sequence[int]) -> int:
        total = sum(number * member.parameters for number, member in zip(tokens, self.members, strict=True))
        return -(-total // max(self.parameters, 1))

    async def aclose(self) -> None:
        """Close all members, also where closing one fails."""
        async with AsyncExitStack() as stack:
            for member in self.members:
                stack.push_async_callback(member.aclose)


def _load(combine: str, named: str | Path, **settings: Any) -> EnsemblePRM:
    members = [name for name in str(named).split(SEPARATOR) if name]
    if len(members) < 2:
        raise ConfigError(f"name two or more reward models, such as {combine}:owner/one{SEPARATOR}owner/other")
    return EnsemblePRM([_member(name, settings) for name in members], combine)


def _member(name: str, settings: Mapping[str, Any]) -> RewardModel:
    """One member; those that run no model take no settings."""
    reader = reader_named(chosen_reader(name)[0])
    return load_prm(name, **(settings if reader is None or reader.runs_model else {}))


for _name in COMBINATIONS:
    register_prm(PRMReader(name=_name, load=partial(_load, _name)))
