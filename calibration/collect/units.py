"""Units of work: their settings, the samples they start from, and how one is drawn with the production driver.

Every unit has a driver, an unlimited ledger and a seed of its own, derived from the run's seed, the problem, the
unit's kind and its index: no unit depends on what else is drawn, and units of one kind are exchangeable. A unit is
charged what it costs by itself: equal solutions of two units are scored once each, equal ones within a unit once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from adaptive_ttc.answers.spaces.base import AnswerSpace, answer_in
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.cost import Price
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.prompts import REVISION_PROMPT
from adaptive_ttc.driver.state import derive_seed
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.estimate.features import Attempt, Unit, first_step_of
from adaptive_ttc.evaluation.dataset_rows import space_named
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Policy, strategy_defaults
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.run.request import Resources, make_request
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import Strategy, WeightedBestOfN
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE, request_of, split_kind
from adaptive_ttc.strategies.requests import Expand, Search
from adaptive_ttc.types import ROOT, STEP_END, Candidate, Message, Prefix, Problem


def starts_of(kind: str, index: int) -> range:
    """Indices of the samples that a unit starts from: trees from their first steps, a chain from one solution."""
    family, numbers = split_kind(kind)
    each = {"dvts": 1, "beam_search": 1, "revision": 0}.get(family)
    if each is None:
        return range(0)
    width = numbers[0] if each else 1
    return range(index * width, (index + 1) * width)


def with_starts(demand: Mapping[str, int]) -> dict[str, int]:
    """The demand (kind -> number of units of a problem) with the samples that its trees and chains start from."""
    for kind, number in demand.items():
        if number < 0:
            raise ConfigError(f"{number} units of {kind}: a number of units is at least 0")
    wanted = {kind: number for kind, number in demand.items() if number}
    samples = max((starts_of(kind, number - 1).stop for kind, number in wanted.items()), default=0)
    if samples:
        wanted[SAMPLE] = max(wanted.get(SAMPLE, 0), samples)
    return wanted


MAX_TOKENS = 2048
TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKey:
    """Units with equal keys belong together."""

    # policy, prm: their fingerprints; the PRM's is empty where there is none
    policy: str
    prm: str
    prompt: str  # changes with what the policy is shown around a problem and between attempts
    dataset: str  # its name
    seed: int = 0  # of all randomness
    temperature: float = TEMPERATURE  # of all but the greedy solution
    top_p: float = 1.0  # nucleus mass
    max_tokens: int = MAX_TOKENS  # most tokens of one solution
    agg_strategy: str = "last"  # how the searches over steps judge a solution by the scores of its steps
    answers: str = "math"  # the name of the answer space

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: samples of one problem differ only above 0; take 0.8")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens={self.max_tokens} must be at least 1")

    @property
    def text(self) -> str:
        """Canonical JSON; without answers that are ``math``, as earlier versions wrote it."""
        told = {name: value for name, value in asdict(self).items() if (name, value) != ("answers", "math")}
        return json.dumps(told, sort_keys=True, ensure_ascii=False)

    @property
    def options(self) -> Mapping[str, float | int | str]:
        """Of every strategy that runs under this key."""
        return {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "agg_strategy")}


def pool_key(
    solver: Solver,
    dataset: str,
    rows: Iterable[Row] = (),
    *,
    seed: int = 0,
    temperature: float = TEMPERATURE,
    max_tokens: int = MAX_TOKENS,
) -> PoolKey:
    """Settings of units drawn with this pair; options that the models prescribe are taken from them.

    ConfigError: the answers of the ``rows`` are of several spaces.
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
        answers=space_named(rows, solver.grader.space),
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


@dataclass(frozen=True, slots=True)
class Work:
    """What was done: ``generated`` and ``prm`` tokens as charged, ``prompt_tokens`` and ``flops`` as measured."""

    generated: int = 0
    prm: int = 0
    prompt_tokens: int = 0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Start:
    """A sample as something to go on from."""

    first: Prefix  # its first step, scored where there is a PRM
    first_work: Work  # what that took
    whole: Prefix  # the solution that it became; the first step itself where that ended it
    whole_work: Work  # what all of it took


@dataclass(frozen=True, slots=True)
class Drawn:
    """A unit as it was drawn: the answers of its attempts are their own, not yet those of their classes."""

    index: int  # among the units of its kind
    unit: Unit  # what was drawn
    work: Work  # what that took, the samples that it starts from included
    start: Start | None = None  # of a sample, what others go on from
    new_tokens: int = 0  # generated for it alone, without those samples


class UnitSampler:
    """Draws units of one problem; without a PRM nothing is scored, and no search over steps can run."""

    def __init__(
        self, problem: Problem, policy: Policy, prm: RewardModel | None, key: PoolKey, answers: AnswerSpace = MATH
    ) -> None:
        self._problem = problem
        self._policy = policy
        self._prm = prm
        self._key = key
        self._space = space_of(problem.answers, answers)
        self._strategies: dict[str, Strategy] = {}

    def strategy(self, kind: str) -> Strategy:
        """The strategy that draws a kind; ConfigError where these models cannot run it."""
        if kind in self._strategies:
            return self._strategies[kind]
        # The vote decides nothing that is drawn, but with it what is scored: a greedy solution's score is evidence too.
        vote = "majority" if self._prm is None else "weighted"
        options: dict[str, Any] = {**self._key.options, **request_of(kind), "vote": vote}
        if kind == GREEDY:
            del options["temperature"]
        resources = Resources(policy=self._policy, prm=self._prm)
        request = make_request(self._problem, resources, strategy=options.pop("strategy"), options=options)
        self._strategies[kind] = request.strategy
        return request.strategy

    async def draw(self, kind: str, index: int, starts: Sequence[Start] = ()) -> Drawn:
        """Draw unit ``index`` of a kind from the samples that :func:`starts_of` names.

        Raises:
            EngineError: an engine failed for good, or was closed; ConfigError: these models cannot run the kind.
        """
        account = self._account(kind, index)
        if kind == SAMPLE:
            return await self._sample(index, account)
        begun, before = _begin(kind, starts)
        account.driver.observe(begun)
        found = await account.run(self.strategy(kind).search(begun))
        work, first = before + account.work, [start.first for start in starts]
        drawn = _drawn(kind, index, found, work, first, self._space)
        return replace(drawn, new_tokens=account.work.generated)

    async def _sample(self, index: int, account: Charged) -> Drawn:
        if index:
            account.driver.observe((Prefix(path=(index - 1,)),))  # so that its path tells which sample it is
        strategy = self.strategy(SAMPLE)
        (first,) = await account.run(_first_step(strategy))
        first_work = account.work
        (whole,) = await account.run(strategy.search((first,)))
        drawn = _drawn(SAMPLE, index, (whole,), account.work, [first], self._space)
        start = Start(first, first_work, whole, account.work)
        return replace(drawn, start=start, new_tokens=account.work.generated)

    def _account(self, kind: str, index: int) -> Charged:
        ledger, price = Ledger(None), Price(score=0 if self._prm is None else 1)
        seed = derive_seed(self._key.seed, kind, (index,))
        models: dict[str, Any] = {"prm": self._prm, "price": price, "answers": self._space}
        return Charged(Driver(self._problem, self._policy, ledger, seed=seed, **models), ledger)


@dataclass(frozen=True, slots=True)
class Charged:
    """A driver and the ledger that it charges."""

    driver: Driver
    ledger: Ledger

    @property
    def work(self) -> Work:
        """Work so far; what was charged beyond delivered and lost tokens is for the PRM."""
        usage = self.driver.usage
        prm = self.ledger.spent - usage.completion_tokens - usage.lost_tokens
        return Work(usage.completion_tokens, prm, usage.prompt_tokens, usage.flops)

    async def run(self, search: Search) -> tuple[Prefix, ...]:
        """Run a search to its end."""
        found = await self.driver.run(search)
        if any(prefix.finish in ("abort", "budget", None) for prefix in found):
            raise EngineError("the policy was closed while a solution was under way; the same command goes on with it")
        return found


def _begin(kind: str, starts: Sequence[Start]) -> tuple[tuple[Prefix, ...], Work]:
    """Prefixes that a search goes on from, and their work; equal first steps are scored once, as by one driver."""
    if kind.startswith("revision"):
        return tuple(start.whole for start in starts), sum((start.whole_work for start in starts), Work())
    once = {start.first.steps: start.first_work.prm for start in starts}
    every = sum((start.first_work for start in starts), Work())
    return tuple(start.first for start in starts), replace(every, prm=sum(once.values()))


def _first_step(strategy: Strategy) -> Search:
    return (
        yield from Expand(
            prefixes=(ROOT,),
            stop=(STEP_END,),
            max_tokens=strategy.max_tokens,
            temperature=strategy.temperature,
            top_p=strategy.top_p,
            score=strategy.scored,
            **strategy.thinking,
        )
    )


def _drawn(
    kind: str, index: int, found: Iterable[Prefix], work: Work, first_steps: Iterable[Prefix], space: AnswerSpace
) -> Drawn:
    answers = ((one, answer_in(space, one.answer_text, one.finish)) for one in found)
    attempts = tuple(Attempt.of(Candidate(one, answer_class=answer)) for one, answer in answers)
    steps = tuple(first_step_of(prefix) for prefix in first_steps)
    unit = Unit(kind, attempts, steps, work.generated, work.prm)
    return Drawn(index, unit, work)
