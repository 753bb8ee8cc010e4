"""Works out what a run should have been charged from what a witness saw at its engines; it knows no ledger.

Token texts and prompts are read as the fake policy writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from math import inf

from witness import Call, Scoring, Witness, delivered, lost

from adaptive_ttc.cost import Price
from adaptive_ttc.policies.fake.tokens import ASSISTANT, split_prompt
from adaptive_ttc.prm.base import RewardModel, ScoreRequest
from adaptive_ttc.types import split_steps

Path = tuple[int, ...]
Steps = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """Ledger units, between ``low`` and ``high``; the two differ only where the engines' records leave a choice."""

    low: float
    high: float

    def __contains__(self, spent: float) -> bool:
        return self.low <= spent <= self.high


def charge(witness: Witness, price: Price, opening: int, prm: RewardModel | None, *, revises: bool) -> Charge:
    """What the run's account should have been charged, see :class:`~adaptive_ttc.cost.Price`.

    Args:
        witness: what was seen.
        price: units a token costs.
        opening: tokens of the problem's prompt.
        prm: counts its tokens.
        revises: whether the policy was shown earlier attempts.
    """
    calls = witness.calls
    low = high = price.decode * (delivered(calls) + lost(calls))
    if price.prompt:
        low += price.prompt * (opening * bool(calls) + revision_prompts(calls))
        # a prompt may be paid for and no request follow: a stop, or a budget that ends there
        high += inf if revises else price.prompt * opening
    if price.score and prm is not None:
        bills = list(scoring_bills(witness, prm))
        low += price.score * sum(min(bill) for bill in bills)
        high += price.score * sum(max(bill) for bill in bills)
    return Charge(low, high)


def revision_prompts(calls: list[Call]) -> int:
    """Prompt tokens of revisions that no sequence before them holds, once for each attempt that they follow."""
    whole: dict[Path, tuple[int, ...]] = {}
    new: dict[Path, int] = {}
    for call in calls:
        prompt, path = call.asked.prompt_ids, call.asked.path
        base = prompt[: len(prompt) - prompt[::-1].index(ASSISTANT)]
        if base.count(ASSISTANT) > 1 and path[:-1] not in new:
            new[path[:-1]] = len(base) - max((_shared(base, one) for one in whole.values()), default=0)
        if call.sampled is not None:
            whole[path] = prompt + call.sampled.token_ids
    return sum(new.values())


def _shared(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def scoring_bills(witness: Witness, prm: RewardModel) -> Iterator[set[int]]:
    """For every call of the PRM, its tokens beyond those of the parent's scored steps; several where parents differ."""
    begun: dict[Path, str] = {}
    texts: dict[Path, str] = {}
    scored: set[Steps] = set()
    for entry in witness.log:
        if isinstance(entry, Scoring):
            question, steps = entry.asked.question, entry.asked.steps
            parents = {split_steps(begun[path]) for path, text in texts.items() if split_steps(text) == steps}
            total = prm.count_tokens(entry.asked)
            yield {
                max(0, total - (prm.count_tokens(ScoreRequest(question, parent)) if parent in scored else 0))
                for parent in parents or {()}
            }
            if entry.scored is not None:
                scored.add(steps)
            continue
        path = entry.asked.path
        _, before = split_prompt(entry.asked.prompt_ids)
        begun.setdefault(path, before)
        if entry.sampled is not None:
            texts[path] = before + bytes(one for one in entry.sampled.token_ids if one < 256).decode()
