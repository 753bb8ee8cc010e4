"""What is asked of the solver: one request object, checked once, before any engine is called."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adaptive_ttc.allocation.queue import FLOOR
from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.answers.thinking import thinking_of
from adaptive_ttc.cost import Price, price_of, price_of_second
from adaptive_ttc.driver.boundary import checked_policy, checked_prm
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.driver.health import Health
from adaptive_ttc.driver.scoring import least_score
from adaptive_ttc.errors import ConfigError, Line, RevisionWarning, calling_line, see, warn
from adaptive_ttc.estimate.artefact import Calibrated, Opening
from adaptive_ttc.policy import (
    Demand,
    Policy,
    check_demand,
    own_weight,
    recorded_problem,
    second_policy,
    strategy_defaults,
    whole_samples,
)
from adaptive_ttc.prm.base import RewardModel, traits_of
from adaptive_ttc.run.unread import Unread
from adaptive_ttc.run.verify import Verify
from adaptive_ttc.strategies.adaptive import GREEDY, Adaptive
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.strategies.registry import make_strategy
from adaptive_ttc.tasks import LoopAffinity
from adaptive_ttc.types import Problem, whole

Question = str | Sequence[Mapping[str, str]] | Problem
Questions = Iterable[Question] | AsyncIterable[Question]
Priority = Callable[[Problem], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run works with: the models, behind the boundary, the grader of answers (with their space), how requests
    are sent, a check of answers.

    Its problems share the ``health`` of the engines.
    """

    policy: Policy
    prm: RewardModel | None = None
    grader: Grader = field(default_factory=Grader)
    config: DriverConfig = field(default_factory=DriverConfig)
    verify: Verify | None = None
    unread: Unread = field(default_factory=Unread)  # notices that no solution gives an answer
    affinity: LoopAffinity = field(default_factory=lambda: LoopAffinity("this solver"))  # entered by every run
    line: Line = field(default_factory=calling_line)  # from which the caller asked, for warnings
    health: Health = field(init=False)
    second_health: Health = field(init=False)  # of a second policy

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", checked_policy(self.policy))
        object.__setattr__(self, "prm", checked_prm(self.prm))
        object.__setattr__(self, "health", self.config.health())
        object.__setattr__(self, "second_health", self.config.second_health(self.health))


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveRequest:
    """A checked request for one problem, or for each of many that share a budget."""

    problem: Problem  # what is to be solved; in a request for many, a stand-in until :meth:`of_problem`
    strategy: Strategy  # how samples are drawn; ``Adaptive`` where evidence decides
    vote: Strategy  # whose vote is taken over all that was drawn
    price: Price  # what the ledger is charged for a token
    second_price: Price | None = None  # likewise for the second policy's; None without one
    count: str  # what the budget bounds, see :data:`adaptive_ttc.cost.Count`
    budget: int | None  # units that may be spent, on all problems together; None for no limit
    seed: int | None  # of all randomness; None leaves the engines theirs, where that is faster
    answers: AnswerSpace = MATH  # of the problem
    deadline: float | None = None  # seconds after which sampling ends; None for no limit
    # rise of the probability of a right answer, per 1,000 units, under which nothing is bought; None: see Opening
    min_gain: float | None = None
    per_problem_max: int | None = None  # most units for one of many problems; None for no limit
    max_rounds: int | None = None  # most slices of a problem, one after the other; None for no limit
    max_concurrency: int = 32  # slices at work at once, and problems of an asynchronous source open at once
    expected: int = 0  # problems that an asynchronous source will bring, as far as known
    priority: Priority | None = None  # how much a right answer to a problem counts, above 0; None: all alike

    def of_problem(self, problem: Problem, resources: Resources) -> SolveRequest:
        """The same for one of many problems. ConfigError: these models cannot be asked this problem."""
        _check_problem(problem, self.strategy, self.price, self.count, self.budget, resources)
        answers = space_of(problem.answers, resources.grader.space)
        return replace(self, problem=problem, budget=self.per_problem_max, answers=answers)

    def weight(self) -> float:
        """How much a right answer to the problem counts. Raises ConfigError: the priority fails, or is not above 0."""
        try:
            weight = 1.0 if self.priority is None else self.priority(self.problem)
        except Exception as error:
            raise ConfigError(f"the priority of {self.problem.id!r} fails: {type(error).__name__}: {error}") from error
        if not 0 < weight < math.inf:
            raise ConfigError(f"the priority of a problem is above 0; {self.problem.id!r} has {weight}")
        return weight


def check_early(strategy: str | Strategy | None, budget: int | None, options: Mapping[str, Any], *, prm: bool) -> None:
    """Refuse what no models could carry out, before any is loaded (ConfigError); ``prm``: there will be one."""
    configured = _named(strategy, budget, options, prm)
    if configured.scored and not prm:
        raise _needs_prm(configured)
    _check_n(strategy, configured, options)
    if budget is not None and whole("budget_tokens", budget) < 1:  # what is enough depends on the models
        raise ConfigError(f"budget_tokens={budget:,} does not pay for one token: give more")


def check_opening(request: SolveRequest, resources: Resources, opening: Opening) -> None:
    """Refuse a budget of many problems that does not pay for a token (ConfigError), and say what begins one of them."""
    policy, price, most = resources.policy, request.price, request.strategy.max_tokens
    prompt = len(policy.encode(request.problem))
    promise = opening.within(0.0, price.decode, price.score).promise(price.decode, price.score)
    if whole_samples(policy):
        promise = max(promise, price.decode * min(most, policy.max_context - prompt))
    least = math.ceil(FLOOR * (price.prompt * prompt + promise))
    _check_budget(request.budget, price.prompt * prompt + price.decode, request.count, least)


def check_limits(free: bool, deadline: float | None, min_gain: float | None, max_rounds: int | None) -> None:
    """Refuse impossible limits (ConfigError); ``free``: a budget alone decides what is drawn."""
    if deadline is not None and not deadline >= 0:
        raise ConfigError(f"deadline is a number of seconds of at least 0; got {deadline}")
    if min_gain is not None and not 0 <= min_gain < math.inf:
        raise ConfigError(f"min_gain is a gain per 1,000 units of at least 0; got {min_gain}")
    if (min_gain or max_rounds is not None) and not free:
        name = "min_gain" if min_gain else "max_rounds"
        raise ConfigError(f"{name} says where a budget alone ends: with a strategy or n, leave it out")
    if max_rounds is not None and not (isinstance(max_rounds, int) and max_rounds >= 1):
        raise ConfigError(f"max_rounds is a whole number of slices of at least 1, or None; got {max_rounds!r}")


def make_request(
    problem: Problem,
    resources: Resources,
    *,
    options: Mapping[str, Any],
    strategy: str | Strategy | None = None,
    budget: int | None = None,
    count: str = "generated",
    seed: int | None = None,
    deadline: float | None = None,
    min_gain: float | None = None,
    max_rounds: int | None = None,
    **pool: Any,
) -> SolveRequest:
    """Check what a caller asks for against the models; ConfigError with the remedy where it is impossible.

    ``options`` are fields of the strategy, None left out. ``strategy`` is a name or a configured one; None means the
    default with ``n`` in the options, and an adaptive run without. The rest are fields of :class:`SolveRequest`.
    """
    policy, prm, second = resources.policy, resources.prm, second_policy(resources.policy)
    budget = None if budget is None else whole("budget_tokens", budget)
    seed = None if seed is None else whole("seed", seed)
    configured = _named(strategy, budget, options, prm is not None)
    if not isinstance(strategy, Strategy):
        configured = _with_defaults(configured, policy, prm, options)
    check_limits(isinstance(configured, Adaptive), deadline, min_gain, max_rounds)
    price = price_of(count, policy, prm)
    if isinstance(configured, Adaptive) and count == "flops":
        _refuse_own_weight(policy)
    if configured.scored and prm is None:
        raise _needs_prm(configured)
    _check_n(strategy, configured, options)
    # what many problems share is checked once their opening is known, see check_opening
    _check_problem(problem, configured, price, count, None if "max_concurrency" in pool else budget, resources)
    if configured.revises and policy.revision_prompt is None:
        warn(
            f"{policy.name} does not say that it was trained to revise; {configured.name} asks it in words of its own",
            RevisionWarning,
            resources.line,
        )
    return SolveRequest(
        problem=problem,
        strategy=configured,
        vote=configured,
        price=price,
        second_price=None if second is None else price_of_second(count, policy, second, price),
        count=count,
        budget=budget,
        seed=seed,
        answers=space_of(problem.answers, resources.grader.space),
        deadline=deadline,
        min_gain=min_gain,
        max_rounds=max_rounds,
        **pool,
    )


def _refuse_own_weight(policy: Policy) -> None:
    """FLOPs follow from the parameters, and what is planned of a second policy from its weight."""
    if (weight := own_weight(policy)) is not None:
        raise ConfigError(
            "count='flops' counts a token of the second policy by its parameters, and its weight "
            f"{weight:g} is another price: leave count out, or the weight, in the calibration too {see('cascades.md')}"
        )


def with_vote_of(request: SolveRequest, calibrated: Calibrated, chosen: Iterable[str], *, prm: bool) -> SolveRequest:
    """The request with the vote chosen for the pair (majority without a PRM), except for options in ``chosen``."""
    ballot = calibrated.table.ballot
    own = ballot.options | ({} if prm else {"vote": "majority"})
    vote: Strategy = replace(request.vote, **{name: value for name, value in own.items() if name not in chosen})
    return replace(request, vote=vote)


def make_pool_request(
    resources: Resources, *, budget: int | None, options: Mapping[str, Any], max_concurrency: int, **rest: Any
) -> SolveRequest:
    """The request for each of many problems, whose budget is shared; see :func:`make_request`."""
    named = [name for name in ("n", "strategy") if name in options or name in rest]
    if named:
        raise ConfigError(f"solve_many decides what is drawn: leave out {', '.join(named)}, or call solve for each")
    if budget is None:
        raise ConfigError("solve_many needs budget_tokens: what may be spent on all problems together")
    if (max_concurrency := whole("max_concurrency", max_concurrency)) < 1:
        raise ConfigError(f"max_concurrency={max_concurrency} must be at least 1")
    if not isinstance(expected := rest.get("expected", 0), int) or expected < 0:
        raise ConfigError(f"expected is a number of problems, or 0 where it is not known; got {expected!r}")
    if (most := rest.get("per_problem_max")) is not None:
        rest["per_problem_max"] = whole("per_problem_max", most)
    stand_in = recorded_problem(resources.policy) or Problem.of("1 + 1?")
    return make_request(stand_in, resources, options=options, budget=budget, max_concurrency=max_concurrency, **rest)


def check_several(
    problems: Iterable[Question] | AsyncIterable[Question],
) -> Iterable[Question] | AsyncIterable[Question]:
    """Check that problems are several, and those of a list each. ConfigError: it is one, or one of them is empty."""
    if isinstance(problems, str | Problem) or not isinstance(problems, Iterable | AsyncIterable):
        raise ConfigError("problems are several: give a list of them, or an async iterator; for one, call solve")
    return [Problem.of(one) for one in problems] if isinstance(problems, Sequence) else problems


def _named(strategy: str | Strategy | None, budget: int | None, options: Mapping[str, Any], prm: bool) -> Strategy:
    if isinstance(strategy, Strategy):
        if options:
            raise ConfigError(f"set {', '.join(options)} in the configured strategy instead")
        return strategy
    if strategy is None and "n" not in options:
        free = Adaptive.of(options)  # a misspelled budget is an unknown option first
        if budget is None:
            raise ConfigError(f"nothing says when to stop: give budget_tokens, n, or a strategy {see('budgets.md')}")
        return free
    return make_strategy(strategy or ("weighted_best_of_n" if prm else "majority"), **options)


def _with_defaults(strategy: Strategy, policy: Policy, prm: RewardModel | None, options: Mapping[str, Any]) -> Strategy:
    """With the models' own defaults in place of the common ones, where the caller names none."""
    scored = strategy.scored or isinstance(strategy, Adaptive)
    own = {**strategy_defaults(policy), **(strategy_defaults(prm) if scored else {})}
    left_open = [key for key in own if key not in options and getattr(strategy, key) == getattr(Strategy, key)]
    return replace(strategy, **{key: own[key] for key in left_open})


def _check_problem(
    problem: Problem, strategy: Strategy, price: Price, count: str, budget: int | None, resources: Resources
) -> None:
    """Refuse what these models cannot be asked for this problem, and a budget that does not pay for one token."""
    policy, prm, free = resources.policy, resources.prm, isinstance(strategy, Adaptive)
    demand = Demand(
        strategy=strategy.name,
        n=None if free else strategy.n,
        stepwise=free or strategy.stepwise,
        revises=strategy.revises,
        scored=strategy.scored,
        temperature=strategy.temperature,
        top_p=strategy.top_p,
        max_tokens=strategy.max_tokens,
        think_tokens=strategy.think_tokens,
        waits=strategy.waits,
        agg_strategy=strategy.agg_strategy,
        count=count,
    )
    check_demand(policy, problem, demand)
    _check_thinking(strategy, policy)
    scoring = 0
    if strategy.scored:  # a PRM that is not asked for scores has nothing to refuse
        assert prm is not None
        check_demand(prm, problem, demand)
        _check_traits(prm, demand)
        scoring = least_score(prm, problem.question, price)
    prompt = _check_context(policy, problem)
    if free and (second := second_policy(policy)) is not None:
        check_demand(second, problem, demand)
        _check_thinking(strategy, second)
        _check_context(second, problem)
    _check_budget(budget, price.prompt * prompt + price.decode + scoring, count)


def _check_context(policy: Policy, problem: Problem) -> int:
    """Tokens of the prompt; refuses one that leaves the policy no room for an answer."""
    prompt = len(policy.encode(problem))
    if prompt >= policy.max_context:
        raise ConfigError(
            f"the problem takes {prompt:,} tokens, and the context of {policy.name} is {policy.max_context:,} with the "
            "answer: shorten the problem, or take a policy with a longer context"
        )
    return prompt


def _check_traits(prm: RewardModel, demand: Demand) -> None:
    """Refuse to have parts of solutions scored by a model that scores whole ones."""
    if not traits_of(prm).finished_only:
        return
    if demand.stepwise and demand.n is not None:
        raise ConfigError(
            f"{demand.strategy} prunes unfinished solutions, and {prm.name} scores finished ones alone: take "
            f"best_of_n or weighted_best_of_n, or a process reward model {see('prms.md')}"
        )
    if demand.agg_strategy == "prod":
        raise ConfigError(
            f"{prm.name} gives a solution one score, which agg_strategy='prod' would multiply by itself for every "
            "step: take agg_strategy='last'"
        )


def abilities(policy: Policy, prm: RewardModel | None) -> dict[str, bool]:
    """What these models can do, as :func:`adaptive_ttc.allocation.options.families_of` takes it."""
    sampled = recorded_problem(policy) is None  # and not read from a record
    goes_on = sampled and not whole_samples(policy)
    return {
        "steps": goes_on and prm is not None and not traits_of(prm).finished_only,
        "revises": policy.revision_prompt is not None,
        "greedy": sampled,
        "thinks": goes_on and thinking_of(policy) is not None,
    }


def _check_thinking(strategy: Strategy, policy: Policy) -> None:
    """Refuse to end or prolong thoughts that nothing tells from answers, or that no policy of whole samples can."""
    named = [f"{name}={value}" for name, value in strategy.thinking.items() if value != getattr(Strategy, name)]
    if not named:
        return
    if whole_samples(policy):
        if strategy.waits:
            raise ConfigError(f"{policy.name} writes whole solutions and cannot go on with one: leave waits out")
        return  # its engine may end thoughts; where it cannot, the policy refuses them
    tags = thinking_of(policy)
    if tags is None:
        raise ConfigError(
            f"{policy.name} does not say how it marks its thoughts, so that {', '.join(named)} cannot be kept: give "
            "the policy its tags (thinking=('<think>', '</think>')), or leave it out"
        )
    if strategy.waits and not tags.wait:
        raise ConfigError(f"{policy.name} knows no word that makes it go on thinking: leave waits out")


def _check_n(strategy: str | Strategy | None, configured: Strategy, options: Mapping[str, Any]) -> None:
    """Refuse a search named without ``n``."""
    if isinstance(strategy, str) and configured.name != GREEDY and "n" not in options:
        raise ConfigError(
            f"{configured.name} needs n, how many are drawn; without a strategy, the budget alone decides"
        )


def _needs_prm(strategy: Strategy) -> ConfigError:
    return ConfigError(
        f"{strategy.name} with the {strategy.vote} vote needs a PRM: give the solver one, or take strategy='majority' "
        f"{see('models.md#verifiers-what-scores-solutions')}"
    )


def _check_budget(budget: int | None, least: int, count: str = "generated", begins: int = 0) -> None:
    """``least``: units for a token; ``begins``: under which nothing is begun."""
    if budget is None:
        return
    if budget < least:
        least = max(least, begins)
        raise ConfigError(f"budget_tokens={budget:,} does not pay for one token: give at least {least:,} ({count})")
