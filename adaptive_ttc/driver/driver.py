"""The one bridge from a search to the engines: next request, reserve, call, settle, send."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.thinking import Thought, thinking_of
from adaptive_ttc.cost import Price, flops
from adaptive_ttc.driver.boundary import CheckedPolicy, checked_policy, checked_prm
from adaptive_ttc.driver.engines import DriverConfig, Engines, Halt, PolicyCalls
from adaptive_ttc.driver.expand import Expansion
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.health import Health
from adaptive_ttc.driver.prompts import Prompts
from adaptive_ttc.driver.recording import RunRecorder, SearchRecorder, asked_of
from adaptive_ttc.driver.score_calls import score_held
from adaptive_ttc.driver.scoring import Scorer
from adaptive_ttc.driver.state import SearchState, derive_seed
from adaptive_ttc.errors import AdaptiveTTCError, EngineError
from adaptive_ttc.events import Event, Route, SampledEvent
from adaptive_ttc.ledger import Ledger
from adaptive_ttc.policy import Policy, second_policy
from adaptive_ttc.prm.base import RewardModel, traits_of
from adaptive_ttc.strategies.requests import Expand, Fork, Score, Search
from adaptive_ttc.tasks import Signal, side_by_side
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Prefix, Problem, Usage

_DERIVED = ("flops", "wall_time")  # fields of the usage that are computed from others, or measured elsewhere


@dataclass(frozen=True, slots=True)
class Found:
    """What a search handed in, and what ended it early, if an engine failed for good."""

    candidates: tuple[Prefix, ...]
    error: AdaptiveTTCError | None
    of_policy: bool = False  # whether the policy failed, and the search ended: another may go on where it stopped


class Driver:
    """Runs searches for one problem on one account.

    What holds, whatever the search, the engines and the order of their replies:

    - The ledger is never overspent and no reservation is left open, errors and cancellation included.
    - A child that cannot be paid for comes back with ``finish="budget"``; nothing is raised for it.
    - On cancellation the requests in flight are aborted, their tokens counted and settled, and the
      cancellation goes on.
    - With ``stop`` set, what is in flight is aborted, children come back with ``finish="abort"``, and
      the search winds down. When an engine fails for good, the same happens, and what was drawn is kept.
    - Whatever an engine raises or delivers passes :mod:`adaptive_ttc.driver.boundary`.
    - Seeds, paths and lease lengths depend on the seed, the problem and the account alone.

    Args:
        problem: what is to be solved.
        policy: writes the solutions.
        ledger: what may be spent, in the units of ``price``; reserved from by this driver alone meanwhile.
        prm: scores them; searches that ask for scores need it.
        seed: of the run; None asks for no draws of their own, see :class:`~adaptive_ttc.policy.SampleRequest`.
        answers: where the final answer stands in a solution, whose log-probability is told.
        price: what the ledger is charged; generated tokens by default.
        trace: where events go.
        stop: ends the run early when set.
        config: how requests are sent.
        health: of the engines, where several problems share them.
        logprobs: whether log-probabilities are read; if not, an engine may leave them out.
    """

    def __init__(
        self,
        problem: Problem,
        policy: Policy,
        ledger: Ledger,
        *,
        prm: RewardModel | None = None,
        seed: int | None = 0,
        answers: AnswerSpace = MATH,
        price: Price | None = None,
        trace: Trace | None = None,
        stop: Signal | None = None,
        config: DriverConfig | None = None,
        health: Health | None = None,
        logprobs: bool = True,
    ) -> None:
        self._problem = problem
        self._policy = policy = checked_policy(policy)
        self._prm = prm = checked_prm(prm)
        self._logprobs = logprobs
        self._seed, self._seeded = seed or 0, seed is not None
        self._answers = answers
        self._account = SearchState(ledger)
        self._prompts = Prompts(problem, policy, answers)
        config, price = config or DriverConfig(), price or Price()
        self._recorder = RunRecorder(Trace() if trace is None else trace)
        self._halt, health = Halt(stop or Signal()), health or config.health()
        self._engines = Engines(
            policy=policy,
            scorer=Scorer(prm, problem.question, price, self._recorder, config.attempts, health, self._halt),
            price=price,
            recorder=self._recorder,
            halt=self._halt,
            config=config,
            health=health,
            budget=ledger,
            in_flight=dict[PolicyCalls, None](),
        )
        self._branch = SearchRecorder(self._recorder)
        self._writers = dict[int, CheckedPolicy]()  # by the first number of their solutions' paths
        self._failure: EngineError | None = None
        self.prompt_paid = not price.prompt
        """Whether the problem's prompt was paid for, or costs nothing."""

    @property
    def usage(self) -> Usage:
        """What was computed so far, without the wall time."""
        measured = self._recorder.usage
        return replace(measured, flops=flops(measured, self._policy, self._prm, second_policy(self._policy)))

    @property
    def trace(self) -> Trace:
        """What happened so far."""
        return self._recorder.trace

    @property
    def last_error(self) -> AdaptiveTTCError | None:
        """What a call of an engine failed with last, whether or not it ended the problem; None where none failed."""
        return self._engines.halt.last_error

    @property
    def given_up(self) -> EngineError | None:
        """What the policy failed with for good, on this problem or for all; None while it may be asked."""
        return self._failure or self._engines.health.policy.given_up

    def go_on(self) -> None:
        """After a search that failed: let another begin, by this driver or one beside it."""
        self._halt.go_on()

    def beside(self, policy: Policy, price: Price, health: Health) -> Driver:
        """A driver of another policy for the same problem, at a price and a health of its own: one account, one trace,
        one usage (told by this driver), and one numbering of samples, so that never both may be at work at once.
        """
        other = copy.copy(self)
        other._policy = checked = checked_policy(policy)
        other._account = SearchState(self._account.ledger, self._account.numbering, scores=self._account.scores)
        other._prompts = Prompts(self._problem, checked, self._answers)
        recorder = self._recorder.second()
        other._engines = replace(
            self._engines, policy=checked, price=price, recorder=recorder, health=health, in_flight={}
        )
        other.prompt_paid = not price.prompt
        return other

    def observe(self, evidence: Iterable[Prefix]) -> None:
        """Register samples that other drivers drew, so that none is drawn again."""
        self._account.observe(evidence)

    def go_on_from(self, events: Sequence[Event], usage: Usage) -> None:
        """Take up what an earlier run of the problem did, by all drivers: its trace (which this driver's trace holds
        already), and its usage. Nothing is charged. What was drawn is told by :meth:`take_up`.
        """
        self._recorder.add(**{name: number for name, number in asdict(usage).items() if name not in _DERIVED})
        self._branch.go_on_after(asked_of(events))

    def take_up(self, events: Sequence[Event], drawn: Mapping[Route, Prefix], *, paid: bool) -> None:
        """Take up what this driver drew in an earlier run: a part of the trace, and its samples by path; ``paid``:
        the prompt was charged for it.
        """
        self._account.go_on_from(events, drawn)
        self._writers |= {event.path[0]: self._policy for event in events if isinstance(event, SampledEvent)}
        self.prompt_paid = self.prompt_paid or paid

    async def run(self, search: Search, ledger: Ledger | None = None) -> tuple[Prefix, ...]:
        """The result of :meth:`attempt`; what was drawn before an engine failed is lost.

        Raises:
            EngineError: an engine failed for good, or too often.
            ConfigError: a request that can never be served; scores asked for without a PRM.
        """
        found = await self.attempt(search, ledger)
        if found.error is not None:
            raise found.error
        return found.candidates

    async def attempt(self, search: Search, ledger: Ledger | None = None) -> Found:
        """Answer the search's requests until it returns; its result. May be called again with another search.

        Args:
            search: the generator of requests.
            ledger: what this search alone may spend, closed when it is over; the driver's own account by default.
        """
        parts = () if ledger is None else self._account.fork((ledger,))
        account = parts[0] if parts else self._account
        candidates: tuple[Prefix, ...] = ()
        health, ended = self._engines.health, False
        known = health.policy.incidents
        try:
            with self._halt.calling(self._engines.recall), self._halt.on_failure():
                self.prompt_paid = self.prompt_paid or self._pay(account, len(self._prompts.opening))
                candidates = await self._drive(search, account, self._branch)
                ended = True
        finally:
            if parts:
                self._account.join(parts)
        if (failure := self._halt.of_policy) is not None:
            self._failure = failure
            health.failed_for_good(failure, known)
        return Found(candidates, self._halt.error, ended and failure is not None)

    async def _drive(self, search: Search, account: SearchState, branch: SearchRecorder) -> tuple[Prefix, ...]:
        reply: object = None
        try:
            while True:
                request = search.send(reply)
                if isinstance(request, Fork):
                    reply = await self._fork(request, account, branch)
                elif isinstance(request, Score):
                    reply = await self._score(request, account)
                else:
                    reply = await self._expand(request, account, branch)
        except StopIteration as returned:
            branch.returned(returned.value)
            return tuple(returned.value)
        finally:
            search.close()

    async def _fork(self, fork: Fork, account: SearchState, branch: SearchRecorder) -> tuple[tuple[Prefix, ...], ...]:
        branch.fork()
        results: tuple[tuple[Prefix, ...], ...] = ()
        left = account.ledger.available
        least = fork.least * (self._engines.price.decode + self._engines.scorer.planned_rate)
        if left is not None and not account.solved and left // max(len(fork.searches), 1) < least:
            first = account.ledger.child(min(left, least))
            results = await self._side_by_side(fork, range(1), (first,) if first else (), account, branch)
        others = range(len(results), len(fork.searches))
        if others:
            results += await self._side_by_side(fork, others, account.ledger.split(len(others)), account, branch)
        return results

    async def _side_by_side(
        self, fork: Fork, numbers: range, ledgers: tuple[Ledger, ...], account: SearchState, branch: SearchRecorder
    ) -> tuple[tuple[Prefix, ...], ...]:
        parts = account.fork(ledgers)
        branches = branch.forked(numbers, ledgers)
        results: list[tuple[Prefix, ...]] = [()] * len(parts)

        async def drive(index: int) -> None:
            results[index] = await self._drive(fork.searches[numbers[index]], parts[index], branches[index])

        try:
            async with side_by_side() as searches:
                for index in range(len(parts)):
                    searches.start_soon(drive, index)
        finally:
            account.join(parts)
        return tuple(results)

    async def _expand(self, request: Expand, account: SearchState, branch: SearchRecorder) -> tuple[Prefix, ...]:
        branch.expand(request)
        samples = [self._sample(prefix, request, account) for prefix in request.prefixes for _ in range(request.n)]
        beside = [self._grown_from(one, one.path, request) for one in request.beside if one.finish == "stop"]
        children = await Expansion(self._engines, request, samples, beside, account).run()
        branch.expanded(children)
        return children

    async def _score(self, request: Score, account: SearchState) -> tuple[Prefix, ...]:
        samples = [self._held(prefix) for prefix in request.prefixes]
        await score_held(self._engines, account, samples)
        return tuple(
            replace(prefix, scores=sample.scores) for prefix, sample in zip(request.prefixes, samples, strict=True)
        )

    def _held(self, prefix: Prefix) -> Sample:
        """A solution that has ended, as a sample to be scored."""
        parent, request = Prefix(attempts=prefix.attempts), Expand(prefixes=(), score=True)
        sample = self._grown_from(parent, prefix.path, request, self._writers.get(prefix.path[0]))
        sample.token_ids, sample.text, sample.scores = prefix.token_ids, prefix.text, prefix.scores
        sample.logprob, sample.logprobs, sample.ended = prefix.logprob, prefix.logprobs, prefix.finish
        sample.top_logprobs = prefix.top_logprobs
        sample.thought = Thought(prefix.thought, prefix.answer_at)
        return sample

    def _sample(self, parent: Prefix, request: Expand, account: SearchState) -> Sample:
        path = account.numbering.take(parent.path)
        self._writers[path[0]] = self._policy
        sample = self._grown_from(parent, path, request)
        if not self._paid(parent, account):
            sample.ended = sample.ended or "budget"
        return sample

    def _grown_from(self, parent: Prefix, path: Route, request: Expand, writer: CheckedPolicy | None = None) -> Sample:
        policy = writer or self._policy
        return Sample(
            parent=parent,
            path=path,
            seed=derive_seed(self._seed, self._problem.id, path),
            seeded=self._seeded,
            request=request,
            prompt_ids=self._prompts.prompt(parent.attempts),
            max_context=policy.max_context,
            decode=policy.decode,
            messages=self._prompts.messages(parent.attempts),
            answers=self._answers,
            logprobs_wanted=self._logprobs,
            top_wanted=traits_of(self._prm).top_logprobs,
            tags=thinking_of(policy),
        )

    def _paid(self, prefix: Prefix, account: SearchState) -> bool:
        """Whether the prompt before a solution is paid for; earlier attempts in it are paid for once."""
        shown = tuple(one.path for one in prefix.attempts)
        if self.prompt_paid and shown and self._engines.price.prompt and shown not in account.shown:
            if not self._pay(account, self._prompts.new_tokens(prefix.attempts)):
                return False
            account.shown.add(shown)
        return self.prompt_paid

    def _pay(self, account: SearchState, prompt_tokens: int) -> bool:
        money = account.ledger.reserve(self._engines.price.prompt * prompt_tokens)
        if money is not None:
            money.settle(money.amount)
        return money is not None
