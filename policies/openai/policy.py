"""The ``Policy`` over servers that speak the OpenAI protocol: what the protocol asks, and the life of a request.

It knows no strategy, budget or score, and leaves the talking to :mod:`adaptive_ttc.policies.openai.exchange`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.chat_model import ChatModel, ChatModelPolicy, read_chat_model
from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.exchange import Exchange, Flight
from adaptive_ttc.policies.openai.fleet import Fleet, Replica
from adaptive_ttc.policies.openai.forms import ChatForm, Openings, TextForm, TokenForm
from adaptive_ttc.policies.openai.gate import Gate
from adaptive_ttc.policies.openai.texts import Cutter
from adaptive_ttc.policies.openai.wire import Wire
from adaptive_ttc.policies.requests import check_request
from adaptive_ttc.policy import Sampled, SampleRequest
from adaptive_ttc.types import Problem

# Turns of the event loop in which an abort lets the request read what has already come over the network.
_TURNS = 4


class OpenAIPolicy(ChatModelPolicy):
    """Samples from one or many servers of one model.

    Make one with :meth:`from_pretrained`. It is used by one event loop at a time. Every sample is one streamed
    request. The form of the prompts is found with the first requests: token ids, else text, else chat (see
    :mod:`adaptive_ttc.policies.openai.forms`), and where the token counts come from in each, ``answer.py`` says.
    Stop strings are looked for here as the tokens arrive, and by the server too where it says which one it met.

    Args:
        facts: of the model that is served.
        chat: its chat template.
        config: where and how it is served.
        name: how a person calls it.
        fingerprint: of its folder; that the servers run the same files is believed.
        max_context: prompt and new tokens together.
        system_prompt: put before problems without a system message; the one that ``chat`` was made with.
    """

    def __init__(self, model: ChatModel, config: FleetConfig, *, max_context: int, system_prompt: str | None) -> None:
        super().__init__(model, max_context)
        tokenizer = model.chat.tokenizer
        self._config = config
        self._openings = Openings(system_prompt)
        self._wire = Wire(config, max_context)
        self._fleet = Fleet(config, self._wire.check)
        self._exchange = Exchange(
            config,
            self._wire,
            self._fleet,
            forms=(TokenForm(), TextForm(tokenizer), ChatForm(self._openings, tokenizer)),
            cutter=Cutter(tokenizer),
            texts=model.chat.token_texts(),
            eos=tuple(sorted(model.eos, key=lambda one: (one != tokenizer.eos_token_id, one))),
            max_context=max_context,
        )
        self._gate = Gate(config.max_concurrency)
        self._flights: dict[str, Flight] = {}
        self._closed = False

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_name: str | Path,
        *,
        base_url: str | Sequence[str] = "http://localhost:8000/v1",
        system_prompt: str | None = None,
        max_context: int | None = None,
        revision: str | None = None,
        api_key: str | None = None,
        **settings: Any,
    ) -> Self:
        """Make a policy for a model that others serve; nothing is sent before the first sample.

        Args:
            path_or_hub_name: a local folder, or ``owner/name`` on the Hub, with the served model's tokenizer, chat
                template and config. Weights are not loaded; where they are there they are fingerprinted.
            base_url: of a server or router, or of every replica.
            system_prompt: as for :class:`~adaptive_ttc.policies.transformers.TransformersPolicy`.
            max_context: prompt and new tokens together; None takes what the model knows.
            revision: of the model on the Hub.
            api_key: None takes the environment variable ``OPENAI_API_KEY``, if it is set.
            **settings: see :class:`~adaptive_ttc.policies.openai.FleetConfig`.

        Raises:
            ConfigError: files are missing or unfit, or a setting is unknown or out of its range.
        """
        unknown = set(settings) - set(FleetConfig.__dataclass_fields__)
        if unknown:
            fields = ", ".join(FleetConfig.__dataclass_fields__)
            raise ConfigError(f"unknown settings {', '.join(sorted(unknown))}; a fleet has {fields}")
        urls = (base_url,) if isinstance(base_url, str) else tuple(base_url)
        key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY")
        config = FleetConfig(base_urls=urls, api_key=key, **settings)
        model = read_chat_model(path_or_hub_name, system_prompt=system_prompt, revision=revision)
        known = model.positions
        if max_context is not None and not 2 <= max_context <= (known or max_context):
            raise ConfigError(f"max_context={max_context} must be 2 to {known}, which the model knows")
        if known is None and max_context is None:
            raise ConfigError(f"the config of {path_or_hub_name} names no max_position_embeddings; pass max_context")
        return cls(model, config, max_context=max_context or known or 0, system_prompt=system_prompt)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The servers, with their health and load."""
        return self._fleet.replicas

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """The prompt, kept in mind for servers that take chats alone.

        Raises:
            ConfigError: the template refuses the messages, or the prompt leaves no room for a token.
        """
        ids = super().encode(problem)
        self._openings.note(problem, ids)
        return ids

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample.

        Raises:
            ConfigError: the request can never be served, its id is in flight already, or the servers serve another
                model or take no form of prompt.
            EngineError: retryable when an answer was lost; final when no replica is there or the policy is closed.
        """
        vocab_size = self.model.vocab_size
        check_request(self, request, vocab_size=vocab_size, in_flight=self._flights, closed=self._closed)
        flight = self._flights[request.id] = Flight()
        try:
            with flight.scope:
                async with self._gate.place(request.priority):
                    return await self._exchange.serve(request, flight)
        finally:
            del self._flights[request.id]
        return flight.answer.aborted() if flight.answer else Sampled(token_ids=(), finish="abort")

    async def abort(self, request_id: str) -> None:
        """Close the request's connection; its ``sample`` returns with ``finish="abort"`` and what was delivered."""
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()
        flight = self._flights.get(request_id)
        if flight is not None:
            flight.scope.cancel()

    async def aclose(self) -> None:
        """Close all connections; pending samples end with ``finish="abort"``. Closing again does nothing."""
        self._closed = True
        for flight in self._flights.values():
            flight.scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._wire.aclose()
