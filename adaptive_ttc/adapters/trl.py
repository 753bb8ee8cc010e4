"""Rewards for TRL's ``GRPOTrainer``: the score of a PRM or another verifier, and whether an answer is right.

Both are async, so that the trainer runs them side by side; older releases, which take functions alone, get
``synchronous(reward)``. Completions are texts or chats; what a reward cannot tell is None, which is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from adaptive_ttc.adapters.shared import LoopThread
from adaptive_ttc.answers import AnswerSpace, Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.loading import MINI_PRM
from adaptive_ttc.prm import load_prm
from adaptive_ttc.prm.base import RewardModel, ScoreRequest, traits_of
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Aggregation, split_steps
from adaptive_ttc.voting import aggregate

_log = logging.getLogger(__package__)

Text = str | Sequence[Mapping[str, Any]]  # a text, or chat messages
Rewards = list[float | None]


class Reward(Protocol):
    """An async reward function."""

    __name__: str

    async def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        """One reward a completion."""


class PRMReward:
    """The score of a completion's steps: ``how`` is ``last``, ``min``, ``prod`` or ``mean``.

    ``prm`` is a reward model, which stays the caller's to close, or the name of one for
    :func:`adaptive_ttc.prm.load_prm` (``mini``: the embedded one). With ``budget_tokens``, no more tokens than that are
    read or written by it; completions that are not covered any more get None, and so do those that are too long for
    it, which is logged. ``spent`` tells how many tokens were.

    ConfigError: no such PRM or aggregation, or one that reads what a trainer does not tell.
    """

    def __init__(
        self,
        prm: RewardModel | str | Path,
        *,
        how: Aggregation = "last",
        budget_tokens: int | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(prm, str | Path):
            prm = load_prm(MINI_PRM if str(prm) == "mini" else prm, **settings)
        aggregate([1.0], how)
        self._traits = traits_of(prm)
        if self._traits.logprobs or self._traits.rivals:
            raise ConfigError(f"{prm.name} reads log-probabilities or other solutions, which a trainer does not tell")
        self.prm, self.how, self._ledger = prm, how, Ledger(budget_tokens)
        self.__name__ = f"{prm.name}_{how}"

    @property
    def spent(self) -> int:
        """Tokens that the PRM read and wrote so far."""
        return self._ledger.spent

    async def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        """Score all completions at once. EngineError: the PRM failed."""
        rewards: Rewards = [None] * len(completions)

        async def score(place: int, request: ScoreRequest) -> None:
            try:
                tokens = self.prm.count_tokens(request)
            except ConfigError as error:  # it is too long to be read
                _log.warning("a completion has no reward of %s: %s", self.prm.name, error)
                return
            held = self._ledger.reserve(tokens + self._traits.written)
            if held is None:
                return
            used = held.amount  # of a call that fails nothing is known
            try:
                scored = await self.prm.score(request)
                used = min(used, scored.prm_tokens)
                rewards[place] = aggregate(scored.scores, self.how) if scored.scores else None
            finally:
                held.settle(used)

        async with side_by_side() as tasks:
            for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
                if steps := split_steps(_said(completion)):
                    tasks.start_soon(score, place, ScoreRequest(_said(prompt), steps))
        return rewards


class AnswerReward:
    """1 for a completion whose answer equals that of its row, 0 for others, None where the row has none.

    ``column`` is the data set's column of right answers; ``answers`` what answers are (docs/answers.md), ``math`` by
    default. What models write is parsed in a worker process, which ends with the process or at ``grader.close()``.
    """

    def __init__(self, *, column: str = "answer", answers: str | AnswerSpace | None = None) -> None:
        self.column, self.grader = column, Grader(space=space_of(answers))
        self.__name__ = "right_answer"

    async def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        """Compare all answers. ConfigError: the data set has no such column."""
        if self.column not in columns:
            raise ConfigError(f"the data set has no column {self.column!r}; give column=, one of {', '.join(columns)}")
        rewards: Rewards = []
        for completion, gold in zip(completions, columns[self.column], strict=True):
            right = None if gold is None else await self.grader.equal(str(gold), self.grader.read(_said(completion)))
            rewards.append(None if right is None else float(right))
        return rewards


def synchronous(reward: Reward) -> Callable[..., Rewards]:
    """The same reward as a plain function, run in an event loop of its own."""
    thread = LoopThread()

    def rewarded(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> Rewards:
        async def call() -> Rewards:
            return await reward(prompts, completions, **columns)

        return thread.run(call)

    rewarded.__name__ = reward.__name__
    return rewarded


def _said(text: Text) -> str:
    """A text, or the last message of a chat."""
    if isinstance(text, str):
        return text
    content = text[-1].get("content") if text else ""
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return "".join(str(part.get("text", "")) for part in parts)
