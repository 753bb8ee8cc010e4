"""What measured units depend on beside their problem: models, prompt, settings, seed; it knows no store and no unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from adaptive_ttc.driver.prompts import REVISION_PROMPT
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.policy import Policy, strategy_defaults
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import WeightedBestOfN
from adaptive_ttc.types import Message, Problem

MAX_TOKENS = 2048
TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKey:
    """Units with equal keys belong together.

    Attributes:
        policy, prm: their fingerprints; the PRM's is empty where there is none.
        prompt: changes with what the policy is shown around a problem and between attempts.
        dataset: its name.
        seed: of all randomness.
        temperature: of all but the greedy solution.
        top_p: nucleus mass.
        max_tokens: most tokens of one solution.
        agg_strategy: how the searches over steps judge a solution by the scores of its steps.
    """

    policy: str
    prm: str
    prompt: str
    dataset: str
    seed: int = 0
    temperature: float = TEMPERATURE
    top_p: float = 1.0
    max_tokens: int = MAX_TOKENS
    agg_strategy: str = "last"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: samples of one problem differ only above 0; take 0.8")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens={self.max_tokens} must be at least 1")

    @property
    def text(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @property
    def options(self) -> Mapping[str, float | int | str]:
        """Of every strategy that runs under this key."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "agg_strategy": self.agg_strategy,
        }


def pool_key(
    solver: Solver,
    dataset: str,
    *,
    seed: int = 0,
    temperature: float = TEMPERATURE,
    max_tokens: int = MAX_TOKENS,
) -> PoolKey:
    """The key of what this pair of models draws; options that the models themselves decide are taken from them.

    Args:
        solver: the pair.
        dataset: what its problems are called.
        seed: of all randomness.
        temperature: of all but the greedy solution, above 0.
        max_tokens: most tokens of one solution.
    """
    own = {**strategy_defaults(solver.policy), **(strategy_defaults(solver.prm) if solver.prm else {})}
    common = WeightedBestOfN()
    return PoolKey(
        policy=solver.policy.fingerprint,
        prm="" if solver.prm is None else solver.prm.fingerprint,
        prompt=_prompt(solver.policy),
        dataset=dataset,
        seed=seed,
        temperature=temperature,
        top_p=own.get("top_p", common.top_p),
        max_tokens=max_tokens,
        agg_strategy=own.get("agg_strategy", common.agg_strategy),
    )


def row_digest(row: Row) -> str:
    """Changes with a problem's text or its right answer."""
    return _digest([row["problem"], row["answer"]])


def _prompt(policy: Policy) -> str:
    """Digest of a rendered conversation, or of a single question where the chat template refuses one."""
    question = Message("user", "What is 1 + 1?")
    again = Message("user", policy.revision_prompt or REVISION_PROMPT)
    ids = [policy.encode(Problem((question,), "opening"))]
    try:
        ids.append(policy.encode(Problem((question, Message("assistant", "2"), again), "turn")))
    except ConfigError:
        ids.append(())
    return _digest(ids)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:16]
