"""Labels steps by roll-outs (Math-Shepherd, arXiv 2312.08935): drawn by the driver, paid from one ledger a problem."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from adaptive_ttc.answers import Grader
from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.cost import price_of
from adaptive_ttc.driver.driver import Driver
from adaptive_ttc.driver.state import derive_seed
from adaptive_ttc.driver.step_ends import step_ends
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import problem_of
from adaptive_ttc.export.first_error import TRIALS
from adaptive_ttc.export.samples import GradedProblem, GradedSample, graded
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Policy, second_policy, whole_samples
from adaptive_ttc.run.request import Resources
from adaptive_ttc.strategies.requests import Expand, Search
from adaptive_ttc.types import STEP_END, Prefix, split_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """How roll-outs are drawn.

    Attributes:
        labels: ``hard``, ``every`` or ``soft``, see :mod:`adaptive_ttc.export.first_error`.
        most: roll-outs from one beginning. Hard labels end at the first right one, of 1, 1, 2, 4, ... at a time.
        temperature, top_p, max_tokens: of each; ``max_tokens`` counts the beginning in.
        count: what a budget bounds, see :data:`adaptive_ttc.cost.Count`.
        seed: of all of them; None leaves the engine its own.

    Raises:
        ConfigError: a number is out of range.
    """

    labels: str = "hard"
    most: int = 8
    temperature: float = 0.8
    top_p: float = 1.0
    max_tokens: int = 2048
    count: str = "generated"
    seed: int | None = 0

    def __post_init__(self) -> None:
        if self.labels not in TRIALS:
            raise ConfigError(f"labels={self.labels!r} by roll-outs are {', '.join(TRIALS)}")
        if self.most < 1 or self.max_tokens < 1:
            raise ConfigError(f"rollouts={self.most} and max_tokens={self.max_tokens} must be at least 1")
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: roll-outs differ only above 0; take 0.8")


@dataclass(slots=True)
class RolloutTally:
    """What labelling took: ``tried`` beginnings, ``known`` ones that solutions at hand told of, ``drawn`` roll-outs.

    ``exhaustive`` is how many roll-outs it would have taken to draw all of them from every beginning, for the
    ``labelled`` solutions; ``unpaid`` ones are those that the budget did not cover, ``unbroken`` ones those in which no
    token ends where a step does.
    """

    labelled: int = 0
    unpaid: int = 0
    unbroken: int = 0
    tried: int = 0
    known: int = 0
    drawn: int = 0
    exhaustive: int = 0

    def add(self, other: RolloutTally) -> None:
        """Add what another took."""
        for name in RolloutTally.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class OutOfBudgetError(Exception):
    """The ledger does not cover another roll-out."""


class UnbrokenError(Exception):
    """No token ends where a step does."""


@dataclass(slots=True)
class StepLabeller:
    """Labels solutions of one problem; what one of them shows counts for the others.

    Args:
        problem: with the solutions that are known.
        resources: its policy draws, its grader compares; the PRM has no part in it.
        settings: how roll-outs are drawn.
        budget: units that may be spent; None for no limit.

    Raises:
        ConfigError: the policy cannot go on with a begun solution.
    """

    problem: GradedProblem
    resources: Resources
    settings: RolloutSettings
    budget: int | None
    tally: RolloutTally = field(default_factory=RolloutTally)
    _ledger: Ledger = field(init=False)
    _driver: Driver = field(init=False)
    _grader: Grader = field(init=False)
    _reached: list[tuple[str, ...]] = field(init=False)
    # own roll-outs that missed the answer, with the steps that each began with: those that began before a beginning and
    # pass through it are draws from there
    _missed: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_goes_on(self.resources.policy)
        row, settings = self.problem.row, self.settings
        space = space_of(row.get("answers"), self.resources.grader.space)
        self._grader = self.resources.grader.for_problem(space)
        self._ledger = Ledger(self.budget)
        seed = None if settings.seed is None else derive_seed(settings.seed, "roll-outs", ())
        how: dict[str, Any] = {"price": replace(price_of(settings.count, self.resources.policy, None), score=0)}
        how |= {"config": self.resources.config, "health": self.resources.health, "logprobs": False}
        self._driver = Driver(problem_of(row), self.resources.policy, self._ledger, seed=seed, answers=space, **how)
        self._reached = [one.steps for one in self.problem.samples if one.whole and one.correct]

    @property
    def spent(self) -> int:
        """Units spent so far; never above the budget."""
        return self._ledger.spent

    async def labels(self, sample: GradedSample, number: int) -> list[float] | None:
        """A label for each step of a whole solution, in [0, 1]; None where the budget does not cover them.

        ``number`` is the solution's among those of the problem, and names it in seeds. Raises EngineError: the policy
        failed for good.
        """
        trial = TRIALS[self.settings.labels](len(sample.steps), sample.correct)
        try:
            asked = next(trial)
            while True:
                asked = trial.send(await self._share(sample, number, asked))
        except StopIteration as end:
            self.tally.labelled += 1
            self.tally.exhaustive += self.settings.most * (len(sample.steps) - 1)
            found: list[float] = end.value
            return found
        except OutOfBudgetError:
            self.tally.unpaid += 1
        except UnbrokenError:
            self.tally.unbroken += 1
        return None

    async def _share(self, sample: GradedSample, number: int, steps: int) -> float:
        """The share of right ones among the roll-outs from the first steps; for hard labels, whether there is one."""
        hard = self.settings.labels == "hard"
        beginning = sample.steps[:steps]
        if hard and any(one[:steps] == beginning for one in self._reached):
            self.tally.known += 1
            return 1.0
        missed = sum(begun <= steps and one[:steps] == beginning for begun, one in self._missed) if hard else 0
        self.tally.tried += 1
        prefix = replace(beginning_of(sample, steps, self.resources.policy), path=(number, steps))
        right, drawn = 0, min(missed, self.settings.most)
        while drawn < self.settings.most and not (hard and right):
            batch = min(max(1, drawn), self.settings.most - drawn) if hard else self.settings.most
            right += await self._right_of(prefix, steps, batch)
            drawn += batch
        return right / self.settings.most if not hard else float(right > 0)

    async def _right_of(self, prefix: Prefix, steps: int, number: int) -> int:
        """How many of so many new roll-outs reach the right answer. OutOfBudgetError: not all could be paid."""
        found = await self._driver.attempt(_roll_out(prefix, number, self.settings))
        if found.error is not None:
            raise found.error
        ended = await graded(found.candidates, self.problem.row["answer"], self._grader)
        self.tally.drawn += len(ended)
        self._reached += [one.steps for one in ended if one.correct]
        self._missed += [(steps, one.steps) for one in ended if not one.correct]
        if len(ended) < number:
            raise OutOfBudgetError
        return sum(one.correct for one in ended)


def check_goes_on(policy: Policy) -> None:
    """ConfigError: the policy cannot go on with a begun solution, or may not have written it."""
    if second_policy(policy) is not None:
        raise ConfigError(
            f"roll-outs go on from a solution's tokens, and either policy of {policy.name} may have written them: take "
            "--labels outcome, or leave the second policy out"
        )
    if whole_samples(policy):
        raise ConfigError(
            f"{policy.name} writes whole solutions and cannot go on with a begun one, as roll-outs do: take "
            "--labels outcome, or an engine that goes on from token ids (docs/engines.md)"
        )


def beginning_of(sample: GradedSample, steps: int, policy: Policy) -> Prefix:
    """The first steps of a solution, to go on from: its own tokens up to where the next step begins.

    Raises:
        ConfigError: the solution has no tokens; UnbrokenError: none of them ends there.
    """
    if not sample.token_ids:
        raise ConfigError(
            "these solutions are texts without token ids, so that no roll-out can go on from a part of one: take "
            "--labels outcome, or draw solutions anew (--dataset)"
        )
    guess = step_ends(sample.text, sample.token_ids, policy.decode)[steps - 1]
    for end in sorted(range(max(1, guess - 3), min(len(sample.token_ids), guess + 4)), key=lambda at: abs(at - guess)):
        ids = sample.token_ids[:end]
        text = policy.decode(ids)
        if split_steps(text) == sample.steps[:steps] and text.rstrip(" ").endswith(STEP_END):
            at = sample.answer_at if sample.answer_at is not None and sample.answer_at <= len(text) else None
            return Prefix(ids, text, finish="stop", answer_at=at, thought=min(sample.thought, end))
    raise UnbrokenError


def _roll_out(prefix: Prefix, number: int, settings: RolloutSettings) -> Search:
    found: tuple[Prefix, ...] = yield from Expand(
        prefixes=(prefix,),
        n=number,
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    return found
