"""The events of a trace: what can happen while a problem is solved, each as a frozen record.

Times are seconds since the run began. A path (child indices from the root of the search) names one sample. A branch
names one of the searches that forks run side by side: the number of the fork among the requests of its parent search,
then the number of the search in the fork, and so on for nested forks; ``()`` is the main search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from adaptive_ttc.types import AnswerClass

Route = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened ``time`` seconds after the run began."""

    kind: ClassVar[str]

    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent(Event):
    """The solver began a problem."""

    kind: ClassVar[str] = "run"
    problem: str  # its id; ``messages`` are its chat turns, each a pair of role and content
    messages: tuple[tuple[str, str], ...]
    policy: str  # the policy's name; ``prm`` the reward model's, or None
    prm: str | None
    seed: int | None  # of the run; None where the engines had draws of their own
    budget: int | None  # most that the ledger allows in the unit of ``count``; None without a limit
    count: str
    answers: str = "math"  # the name of the answer space


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEvent(Event):
    """A strategy began a search with these ``options`` from the samples at ``start``, which existed already."""

    kind: ClassVar[str] = "search"
    strategy: str
    options: Mapping[str, Any]
    start: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandEvent(Event):
    """A strategy asked for ``n`` children of each solution at ``paths``; see ``Expand``."""

    kind: ClassVar[str] = "expand"
    branch: Route  # which search asked
    number: int  # of the request among those of that search, from 0
    paths: tuple[Route, ...]
    attempts: tuple[tuple[Route, ...], ...]  # for each path, those of the earlier attempts that the policy is shown
    n: int
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    score: bool
    think_tokens: int | None = None
    first: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandedEvent(Event):
    """The reply to request ``number`` of the search at ``branch``: the ``children``, in order."""

    kind: ClassVar[str] = "expanded"
    branch: Route
    number: int
    children: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkEvent(Event):
    """The search at ``branch`` asked, as its request ``number``, for ``searches`` (their numbers) side by side."""

    kind: ClassVar[str] = "fork"
    branch: Route
    number: int
    searches: tuple[int, ...]
    limits: tuple[int | None, ...]  # the budget of each; None: without a limit


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEvent(Event):
    """One call of the policy came back."""

    kind: ClassVar[str] = "request"
    started: float  # when it was sent
    path: Route  # of the sample; a sample may take several calls
    position: int  # generated tokens that the solution had before it
    seed: int  # the sample's seed
    max_tokens: int  # what it was granted
    token_ids: tuple[int, ...]  # what it delivered
    finish: str  # as the policy said; ``lost`` when it failed without telling a count, ``refused`` when nothing came
    prompt_tokens: int = 0  # prompt tokens computed; ``cached_tokens`` were not
    cached_tokens: int = 0
    discarded_tokens: int = 0  # tokens computed and not delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenEvent(Event):
    """The driver wrote ``token_ids`` into the solution at ``path``, in place of all after its first ``position`` tokens
    (see :mod:`adaptive_ttc.driver.thinking`).
    """

    kind: ClassVar[str] = "written"
    path: Route
    position: int
    token_ids: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledEvent(Event):
    """A sample ended with its new ``text`` of ``tokens`` tokens; ``finish`` says why."""

    kind: ClassVar[str] = "sampled"
    path: Route
    text: str
    tokens: int
    logprob: float  # of the whole solution so far, in nats
    finish: str
    answer_logprob: float | None = None  # mean of the final answer's tokens; None where it is not known
    answer_at: int | None = 0  # characters of the whole solution before its answer; None: its thought has not ended
    thought: int = 0  # tokens of the whole solution that are thinking
    waits: int = 0  # how often its thought was made to go on


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredEvent(Event):
    """The PRM scored every step of the solution at ``path``."""

    kind: ClassVar[str] = "scored"
    started: float
    path: Route
    scores: tuple[float, ...]
    prm_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedEvent(Event):
    """A search dropped the unfinished solution at ``path``."""

    kind: ClassVar[str] = "pruned"
    path: Route
    score: float | None  # its last step's, or None if it was not scored
    merged_into: Route | None = None  # the path of the equal solution that stands for it, or None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedEvent(Event):
    """The policy ended the solution at ``path``, and its score, where one was asked for, is there."""

    kind: ClassVar[str] = "finished"
    path: Route
    text: str  # the whole solution; ``tokens`` is its length
    tokens: int
    scores: tuple[float, ...]  # of its steps; empty if it was not scored
    answer_at: int | None = 0  # characters before the answer; None: its thought has not ended


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateEvent(Event):
    """A solution was handed in: its answer, the answer's class, and its one score (None where it has none)."""

    kind: ClassVar[str] = "candidate"
    path: Route
    answer: str | None
    answer_class: str | None
    score: float | None
    verdict: bool | None = None  # of the caller's check


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteEvent(Event):
    """A vote over the answer classes; ``answer`` is None where no candidate has an answer."""

    kind: ClassVar[str] = "vote"
    method: str
    classes: tuple[AnswerClass, ...]
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionEvent(Event):
    """Something was decided: ``what``, ``why`` in words, and the numbers that it rests on."""

    kind: ClassVar[str] = "decision"
    what: str
    why: str
    numbers: Mapping[str, float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationEvent(Event):
    """An adaptive run chose what to draw next for the problem, or to stop."""

    kind: ClassVar[str] = "allocation"
    action: str | None  # what is drawn, such as ``4 x sample``; None where the problem is settled
    opening: bool  # whether it is the problem's first slice, which is not chosen
    units: int  # most that the slice may be charged
    price: float  # gain per 1,000 units that an action had to be worth
    right: float | None  # probability that the answer in hand is right; None before the first look, or if unknown
    difficulty: tuple[float, ...] | None  # probabilities of the bins, the easiest first; None if unknown
    considered: tuple[tuple[str, float, float], ...]  # every action, its expected gain in ``right``, and cost in units
    why: str = ""  # in words, where the problem is settled
    note: str = ""  # what else decided, in words, such as a rule of stopping and what it certifies
    at_once: int = 0  # units of the action that this slice draws, side by side
    beyond: tuple[str, ...] = ()  # those considered whose forecasts go beyond what calibration recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneEvent(Event):
    """The problem is settled."""

    kind: ClassVar[str] = "done"
    answer: str | None  # None where there is none; ``abstained`` then says why
    abstained: str | None
    stopped: str  # why it got no more, see :class:`~adaptive_ttc.types.Stopped`, and ``why`` in words
    why: str
    confidence: float | None  # probability that the answer is right; 0 where there is none, None where it is unknown
    spent: int  # what the ledger was charged
    usage: Mapping[str, float]  # the fields of :class:`~adaptive_ttc.types.Usage`
    error: str | None = None  # what an engine, the grader or a source failed with; None where nothing ended it


# fmt: off
EVENTS: tuple[type[Event], ...] = (
    RunEvent, SearchEvent, ExpandEvent, ExpandedEvent, ForkEvent, RequestEvent, WrittenEvent, SampledEvent, ScoredEvent,
    PrunedEvent, FinishedEvent, CandidateEvent, VoteEvent, DecisionEvent, AllocationEvent, DoneEvent,
)
# fmt: on
