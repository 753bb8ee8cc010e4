"""The ``Policy`` over servers that speak the OpenAI protocol.

A request is repeated only if it certainly generated nothing, or once if the server failed (500) before it had sent any
of the answer. If a call was lost otherwise after it was sent, the caller gets an error and has to pay for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import fields as fields_of
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, EngineError
from adaptive_ttc.files.names import unknown
from adaptive_ttc.policies.chat_model import ChatModel, ChatModelPolicy, read_chat_model
from adaptive_ttc.policies.openai.answer import Answer
from adaptive_ttc.policies.openai.attempt import NOTHING, Attempt
from adaptive_ttc.policies.openai.config import REMEDY, FleetConfig
from adaptive_ttc.policies.openai.fleet import FailedError, Fleet, Replica, UnavailableError
from adaptive_ttc.policies.openai.gate import Gate
from adaptive_ttc.policies.openai.hedging import Hedges, Race
from adaptive_ttc.policies.openai.http import Connections
from adaptive_ttc.policies.openai.protocol import body_of, read_chunk, refused_fields, without
from adaptive_ttc.policies.openai.retries import MisfitError
from adaptive_ttc.policies.requests import check_request
from adaptive_ttc.policies.thinking_tags import AUTO, Thinking
from adaptive_ttc.policy import Demand, Sampled, SampleRequest
from adaptive_ttc.tasks import watched
from adaptive_ttc.types import Problem

_log = logging.getLogger(__package__)

# Turns of the event loop in which an abort lets the request read what has already come over the network.
_TURNS = 4


class _Pending:
    """A request under way: the scope that an abort cancels, and what is asked now, if anything is."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.asked: Attempt | Race | None = None


class OpenAIPolicy(ChatModelPolicy):
    """Samples from servers of one model; made with :meth:`from_pretrained`, for one event loop at a time.

    Every sample is one streamed request. Stop strings are looked for here as the tokens arrive, and by the server too
    if it tells which one it met. Servers without token ids serve whole samples only, see :attr:`FleetConfig.api`.

    Args:
        model: what its folder says; the servers are trusted to run the same files.
        config: where and how it is served.
        max_context: prompt and new tokens together.
        connections: to the servers; over HTTP by default.

    Attributes:
        whole_samples: whether a begun solution cannot be continued.
        strategy_defaults: empty.
    """

    def __init__(
        self, model: ChatModel, config: FleetConfig, max_context: int, connections: Connections | None = None
    ) -> None:
        super().__init__(model, max_context)
        self._config = config
        self._texts = model.chat.token_texts()
        self._connections = connections or Connections(config, max_context)
        self._fleet = Fleet(config, self._connections.check)
        self._gate = Gate(config.max_concurrency)
        self._fleet.on_change = lambda: self._gate.resize(self._fleet.places)
        self._hedges = None if config.hedge is None else Hedges(config.hedge, config.hedge_share)
        self._pending: dict[str, _Pending] = {}
        self._tells_stop = self._closed = False
        self._doubted: set[tuple[str, str]] = set()  # servers, and what was said about them
        self.whole_samples = config.api != "tokens"
        self.strategy_defaults: Mapping[str, Any] = {}

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
        api_key_env: str | None = "OPENAI_API_KEY",
        thinking: Thinking = AUTO,
        chat_template_kwargs: Mapping[str, Any] | None = None,
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
            api_key: sent to every replica; None takes what ``api_key_env`` holds, the empty string sends none.
            thinking: tags of a reasoning model's thoughts; ``auto`` finds them in its files (docs/reasoning.md).
            chat_template_kwargs: arguments of the chat template, such as ``{"enable_thinking": False}``.
            api_key_env: an environment variable with the key, if it is set; None looks for none.
            **settings: see :class:`~adaptive_ttc.policies.openai.FleetConfig`; ``api="chat"`` for servers that name
                no token ids.

        Raises:
            ConfigError: files are missing or unfit, or a setting is unknown or out of its range.
        """
        known = [field.name for field in fields_of(FleetConfig) if field.init]
        if foreign := unknown(settings, known):
            raise ConfigError(f"unknown settings {foreign}; a fleet has {', '.join(known)}")
        urls = (base_url,) if isinstance(base_url, str) else base_url
        if not isinstance(urls, Sequence) or not all(isinstance(url, str) for url in urls):
            raise ConfigError(f"base_url is the URL of a server, or a list of such; got a {type(base_url).__name__}")
        key = api_key if api_key is not None else os.environ.get(api_key_env or "")
        config = FleetConfig(base_urls=tuple(urls), api_key=key, **settings)
        model = read_chat_model(
            path_or_hub_name,
            system_prompt=system_prompt,
            revision=revision,
            thinking=thinking,
            chat_template_kwargs=chat_template_kwargs,
        )
        most = model.positions
        if max_context is not None and not 2 <= max_context <= (most or max_context):
            raise ConfigError(f"max_context={max_context} must be 2 to {most}, which the model knows")
        if most is None and max_context is None:
            raise ConfigError(f"the config of {path_or_hub_name} names no max_position_embeddings; pass max_context")
        return cls(model, config, max_context or most or 0)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The servers, with their health and load."""
        return self._fleet.replicas

    def check_demand(self, problem: Problem, demand: Demand) -> None:
        """Refuse (ConfigError) searches that continue half-written solutions, where the servers write whole ones.

        Where the budget alone decides what is drawn, whole samples are.
        """
        if self.whole_samples and demand.stepwise and demand.n is not None:
            raise ConfigError(
                f"{demand.strategy} goes on from half-written solutions, which a server with api={self._config.api!r} "
                f"cannot: {REMEDY}"
            )
        if not self.whole_samples:
            return
        if demand.waits or (demand.think_tokens is not None and self._config.thinking_field is None):
            asked = "waits" if demand.waits else "think_tokens"
            field = "" if demand.waits else "name the server's own field for it (thinking_field=...), "
            raise ConfigError(
                f"{asked} ends or prolongs thoughts, which go on from their tokens, and a server with "
                f"api={self._config.api!r} cannot: {field}serve the model with one that names token ids "
                f"(api='tokens'), or leave {asked} out"
            )

    async def sample(self, request: SampleRequest) -> Sampled:
        """Generate one sample; errors as :class:`~adaptive_ttc.policy.Policy` says.

        ConfigError also if the servers serve another model or do not take such requests. EngineError is retryable when
        an answer was lost, final when no replica is there or the policy is closed.
        """
        self._connections.enter()
        vocab_size = self.model.vocab_size
        check_request(self, request, vocab_size=vocab_size, in_flight=self._pending, closed=self._closed)
        pending = self._pending[request.id] = _Pending()
        try:
            with pending.scope:
                async with self._gate.place(request.priority):
                    return await self._serve(request, pending)
        finally:
            del self._pending[request.id]
        return pending.asked.aborted() if pending.asked else NOTHING

    async def ready(self) -> None:
        """Wait until a server is there, as the first sample would; errors as for that."""
        self._connections.enter()
        async with self._fleet.replica((), anyio.current_time() + self._config.patience):
            pass

    async def abort(self, request_id: str) -> None:
        """Close the request's connection; its ``sample`` returns with ``finish="abort"`` and what was delivered."""
        for _ in range(_TURNS):
            await anyio.lowlevel.checkpoint()
        pending = self._pending.get(request_id)
        if pending is not None:
            pending.scope.cancel()

    async def aclose(self) -> None:
        """Close all connections; pending samples end with ``finish="abort"``. Closing again does nothing."""
        self._closed = True
        for pending in self._pending.values():
            pending.scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._connections.aclose()

    async def _serve(self, request: SampleRequest, pending: _Pending) -> Sampled:
        """Ask replica after replica until one takes the request."""
        give_up = anyio.current_time() + self._config.patience
        failed = False
        while True:
            pending.asked = None
            async with self._fleet.replica(request.prompt_ids, give_up) as replica:
                attempt = pending.asked = Attempt(request, replica)
                try:
                    if self._hedges is None:
                        return await self._ask(attempt)
                    race = pending.asked = Race(attempt, self._fleet, self._ask, self._elsewhere, self._hedges)
                    return await race.run()
                except UnavailableError as reason:
                    self._fleet.refused(replica, reason, attempt.sent)
                    late = anyio.current_time() > give_up
                    if isinstance(reason, FailedError) and (failed or late):
                        raise EngineError(str(reason), retryable=True) from reason
                    if late:
                        raise self._fleet.exhausted() from reason
                    failed = failed or isinstance(reason, FailedError)
                except MisfitError as reason:
                    if fields := refused_fields(str(reason), attempt.body, self._config):
                        _log.warning("%s gets no %s any more: %s", replica.url, ", ".join(sorted(fields)), reason)
                        replica.left_out |= fields
                        continue
                    raise ConfigError(f"{replica.url} does not take the request: it {reason}; {REMEDY}") from reason
                except ConfigError as error:
                    error.generated = attempt.answer is not None  # then it was found out from what came
                    raise
                except TimeoutError as error:
                    said = f"{replica.url} did not end its answer in {self._config.request_timeout:g} seconds"
                    self._fleet.broke(replica, said)
                    raise EngineError(said, retryable=True) from error
                except EngineError as error:
                    self._fleet.broke(replica, str(error))
                    raise

    async def _ask(self, attempt: Attempt) -> Sampled:
        """Send the request, and gather the answer until it ends or holds a stop string."""
        request, replica = attempt.request, attempt.replica
        limit = min(request.max_tokens, self.max_context - len(request.prompt_ids))
        body = body_of(request, limit, replica.model, self.model, self._config)
        if request.stop and (self._tells_stop or replica.tells_stop):
            # the names of vLLM and of SGLang for leaving the stop string in the text
            body |= {"stop": list(request.stop), "include_stop_str_in_output": True, "no_stop_trim": True}
        attempt.body = without(body, replica.left_out)
        rule = self._texts.stop_rule(request.stop)
        answer = attempt.answer = Answer(
            request, limit, rule, self.model, whole=self.whole_samples, rendered=self._config.api != "chat",
            context=self.max_context,
        )  # fmt: skip
        with anyio.fail_after(self._config.request_timeout):
            if self._fleet.must_look(replica):
                async with watched(partial(self._look, replica)):
                    await self._gather(attempt, answer, limit)
            else:
                await self._gather(attempt, answer, limit)
        if attempt.left:
            return answer.aborted()
        sampled = answer.sampled()
        self._tell(replica, answer)
        self._fleet.served(replica, request.prompt_ids + sampled.token_ids)
        return sampled

    async def _gather(self, attempt: Attempt, answer: Answer, limit: int) -> None:
        path, replica = "/chat/completions" if self._config.api == "chat" else "/completions", attempt.replica
        async with aclosing(self._connections.events(replica, path, attempt.body, limit)) as events:
            try:
                async for event in events:
                    chunk = read_chunk(event)
                    self._tells_stop = self._tells_stop or chunk.tells_stop
                    answer.take(chunk)
                    seconds, tokens = attempt.take(chunk)
                    if tokens:
                        self._fleet.heard(replica, seconds, tokens, first=tokens == attempt.tokens)
                        attempt.left = not attempt.goes_on()
                    if attempt.left or answer.overrun or (answer.met_stop and not answer.complete):
                        break
            except EngineError:
                if not (answer.complete and answer.counted):  # else only what comes after the answer's end was lost
                    raise

    def _elsewhere(self, attempt: Attempt) -> Attempt | None:
        """The same request at another replica, which goes on from what has come, if that may be and one is there.

        A sample that is to have certain draws, or is whole, cannot be gone on with, only begun again before it begins.
        """
        request, answer = attempt.request, attempt.answer
        if answer is None or answer.met_stop or answer.complete:
            return None
        if attempt.tokens and (self.whole_samples or request.seeded):
            return None
        try:
            begun = attempt.aborted() if attempt.tokens else NOTHING
        except AdaptiveTTCError:
            return None
        prompt = request.prompt_ids + begun.token_ids
        left = min(request.max_tokens - len(begun.token_ids), self.max_context - len(prompt))
        replica = self._fleet.elsewhere(attempt.replica, prompt) if left > 0 else None
        if replica is None:
            return None
        seam = max(map(len, request.stop), default=1) - 1
        context = request.stop_context + self.decode(begun.token_ids)
        asked = replace(
            request, prompt_ids=prompt, max_tokens=left, stop_context=context[max(0, len(context) - seam) :],
            messages=() if begun.token_ids else request.messages,
        )  # fmt: skip
        return Attempt(asked, replica, begun=begun)

    async def _look(self, replica: Replica) -> None:
        """See how long a replica's own queue is."""
        with suppress(UnavailableError):
            self._fleet.looked(replica, await self._connections.queue(replica))

    def _tell(self, replica: Replica, answer: Answer) -> None:
        """Log what a server says that cannot be: each kind of it once."""
        for kind, sentence in answer.doubts.items():
            if (replica.url, kind) not in self._doubted:
                self._doubted.add((replica.url, kind))
                _log.warning("%s is not believed: %s", replica.url, sentence)
