"""Answers with recorded samples in place of a model; it scores nothing and knows no file format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.replay.record import Record, RecordedSample
from adaptive_ttc.policies.replay.shelf import Shelf
from adaptive_ttc.policies.replay.store import load_record
from adaptive_ttc.policies.validation import check_request
from adaptive_ttc.policy import Demand, Sampled, SampleRequest
from adaptive_ttc.types import Problem


class ReplayPolicy:
    """A :class:`~adaptive_ttc.policy.Policy` whose j-th whole solution of a problem is a recorded one.

    Which one, a permutation of the problem's samples says that is drawn from the seed: replays with several seeds
    are several draws without replacement from one pool, and no two samples of a replay are the same recorded one.
    The seeds of requests decide nothing. Requests that cut a sample into pieces get the pieces of the recorded one,
    whose prompt counts as cached but for one token.

    A record answers no request for steps, revisions, other sampling settings or more samples than it holds; a
    solver learns that from :meth:`check_demand` before it samples.

    Args:
        record: what was recorded.
        seed: of the permutations; 0 takes the samples in the order of the record.
        turn_tokens: tokens delivered before other tasks have their turn, and an abort its chance.
    """

    def __init__(self, record: Record, *, seed: int = 0, turn_tokens: int = 64) -> None:
        if turn_tokens < 1:
            raise ConfigError(f"turn_tokens={turn_tokens} must be at least 1")
        self.record = record
        self.name = f"{record.policy.name} (replay)"
        self.fingerprint = record.policy.fingerprint
        self.parameters = record.policy.parameters
        self.max_context = record.max_context
        self.revision_prompt: str | None = None
        self._shelf, self._turn_tokens = Shelf(record, seed), turn_tokens
        self._flights: dict[str, anyio.Event] = {}
        self._closed = False

    @classmethod
    def load(cls, path: str | Path, *, seed: int = 0, problems: str | Path | None = None) -> Self:
        """Replay a file.

        Args:
            path: what a :class:`~adaptive_ttc.policies.replay.Recorder` saved, or traces; see ``traces.py``.
            seed: of the permutations; 0 takes the samples in the order of the record.
            problems: see :func:`~adaptive_ttc.policies.replay.load_record`.

        Raises:
            ConfigError: the file is no record.
        """
        return cls(load_record(path, problems=problems), seed=seed)

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path, **settings: Any) -> Self:
        """:meth:`load` under the name that engines are loaded by.

        Raises:
            ConfigError: the file is no record, or a setting is one of engines that run a model.
        """
        foreign = sorted(set(settings) - {"seed", "problems"})
        if foreign:
            raise ConfigError(
                f"a replay runs no model and takes seed and problems alone; leave out {', '.join(foreign)}"
            )
        return cls.load(path_or_name, **settings)

    @property
    def strategy_defaults(self) -> Mapping[str, Any]:
        """The settings of the record."""
        settings = self.record.settings
        return {"temperature": settings.temperature, "top_p": settings.top_p, "max_tokens": settings.max_tokens}

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse what the record cannot answer.

        Raises:
            ConfigError: steps, revisions, other settings, more samples than there are, an unknown problem.
        """
        what = f"the record of {self.record.policy.name}"
        if demand.revises or demand.stepwise:
            kind = "revisions" if demand.revises else "steps that could be gone on from in several ways"
            raise ConfigError(
                f"{demand.strategy} cannot be replayed: {what} holds whole solutions, no {kind}; "
                "take majority, best_of_n or weighted_best_of_n"
            )
        for option, recorded in self.strategy_defaults.items():
            asked = getattr(demand, option)
            if asked > recorded if option == "max_tokens" else asked != recorded:
                remedy = "take majority" if demand.strategy == "greedy" else f"leave {option} out"
                raise ConfigError(
                    f"{what} was drawn with {option}={recorded:g}, so {demand.strategy} with {option}={asked:g} cannot "
                    f"be replayed; {remedy}, or record it so"
                )
        if demand.count == "flops" and not self.record.counted:
            raise ConfigError(f"{what} does not say how many prompt tokens there were; take count='generated'")
        held = len(self._shelf.problem(problem).samples)
        if demand.n is None or demand.n > held:
            asked = "as many samples as the budget covers" if demand.n is None else f"n={demand.n}"
            raise ConfigError(f"{what} holds {held} samples of this problem, not {asked}; take n={held} or less")

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The prompt as it was recorded; ConfigError for a problem that was not."""
        return self._shelf.problem(problem).prompt_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a recorded solution's first tokens, without EOS.

        Raises:
            ConfigError: no recorded solution begins with these tokens.
        """
        return self._shelf.text(token_ids)

    async def sample(self, request: SampleRequest) -> Sampled:
        """The piece of a recorded sample that is asked for.

        Raises:
            ConfigError: it was not recorded, the request is impossible, or its id is in flight already.
            EngineError: the replay is closed.
        """
        check_request(request, max_context=self.max_context, vocab_size=self._shelf.vocab_size)
        if request.id in self._flights:
            raise ConfigError(f"request id {request.id!r} is in flight already; give every request its own")
        if self._closed:
            raise EngineError(f"{self.name} is closed; make a new one")
        sample, begun = self._shelf.find(request)
        limit = min(request.max_tokens, len(sample.token_ids) - begun)
        aborted = self._flights[request.id] = anyio.Event()
        tokens = 0
        try:
            while tokens < limit and not aborted.is_set():
                await anyio.lowlevel.checkpoint()
                tokens = min(limit, tokens + self._turn_tokens)
        finally:
            del self._flights[request.id]
        return _piece(sample, begun, tokens, request, cut=tokens < limit)

    async def abort(self, request_id: str) -> None:
        """End a pending sample with the tokens so far; an unknown id is ignored."""
        if request_id in self._flights:
            self._flights[request_id].set()
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End what is pending as aborted, and refuse what comes later."""
        self._closed = True
        for aborted in self._flights.values():
            aborted.set()
        await anyio.lowlevel.checkpoint()


def _piece(sample: RecordedSample, begun: int, tokens: int, request: SampleRequest, *, cut: bool) -> Sampled:
    piece = slice(begun, begun + tokens)
    whole = begun + tokens == len(sample.token_ids)
    prompt = sample.prompt_tokens + sample.cached_tokens
    computed = (1 if prompt else 0) if begun else sample.prompt_tokens
    return Sampled(
        token_ids=sample.token_ids[piece],
        finish="abort" if cut else sample.finish if whole else "length",
        logprobs=sample.logprobs[piece],
        prompt_tokens=computed,
        cached_tokens=(len(request.prompt_ids) if begun else prompt) - computed if prompt else 0,
    )
