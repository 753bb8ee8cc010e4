"""From a request to a replica and back: what is sent, what is repeated, what is given up; it knows no policy.

Repeated is only what certainly generated nothing. A call that was lost after it was sent is told to the caller, who
has to pay for it.
"""

from __future__ import annotations

from contextlib import aclosing

import anyio

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.openai.answer import Answer
from adaptive_ttc.policies.openai.bodies import body_of
from adaptive_ttc.policies.openai.chunks import read_chunk
from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.fleet import Fleet, Replica, UnavailableError
from adaptive_ttc.policies.openai.forms import Form
from adaptive_ttc.policies.openai.texts import Cutter
from adaptive_ttc.policies.openai.wire import MisfitError, Wire
from adaptive_ttc.policies.requests import StopRule, TokenTexts
from adaptive_ttc.policy import Sampled, SampleRequest


class Flight:
    """A request under way: the scope that an abort cancels, and what has arrived of the answer."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.answer: Answer | None = None


class Exchange:
    """Talks to a fleet.

    Args:
        config: patience and timeouts.
        wire: the connections.
        fleet: the replicas.
        forms: of prompts, the best first; the first that is answered is kept.
        cutter: for text without token ids.
        texts: of the model's tokens, for stop strings.
        eos: tokens that end a solution, the tokenizer's own first.
        max_context: prompt and new tokens together.
    """

    def __init__(
        self,
        config: FleetConfig,
        wire: Wire,
        fleet: Fleet,
        *,
        forms: tuple[Form, ...],
        cutter: Cutter,
        texts: TokenTexts,
        eos: tuple[int, ...],
        max_context: int,
    ) -> None:
        self._config = config
        self._wire = wire
        self._fleet = fleet
        self._forms = forms
        self._cutter = cutter
        self._texts = texts
        self._eos = eos
        self._max_context = max_context
        self._misfits: dict[str, str] = {}
        self._tells_stop = False
        self._stop_rules: dict[tuple[str, ...], StopRule] = {}

    async def serve(self, request: SampleRequest, flight: Flight) -> Sampled:
        """Ask replica after replica until one takes the request."""
        give_up = anyio.current_time() + self._config.patience
        while True:
            flight.answer = None
            async with self._fleet.replica(request.prompt_ids, give_up) as replica:
                form = self._forms[0]
                try:
                    with anyio.fail_after(self._config.request_timeout):
                        return await self._ask(request, replica, form, flight)
                except UnavailableError as reason:
                    self._fleet.refused(replica, reason)
                    if anyio.current_time() > give_up:
                        raise self._fleet.exhausted() from reason
                except MisfitError as reason:
                    self._drop(form, f"{replica.url}{form.path} says {reason}")
                except TimeoutError as error:
                    said = f"{replica.url} did not end its answer in {self._config.request_timeout:g} seconds"
                    self._fleet.broke(replica, said)
                    raise EngineError(said, retryable=True) from error
                except EngineError as error:
                    self._fleet.broke(replica, str(error))
                    raise

    async def _ask(self, request: SampleRequest, replica: Replica, form: Form, flight: Flight) -> Sampled:
        """Send the request, and gather the answer until it ends or holds a stop string."""
        limit = min(request.max_tokens, self._max_context - len(request.prompt_ids))
        body = body_of(request, form, limit, replica.model, self._config)
        if request.stop and (self._tells_stop or replica.tells_stop):
            # the names of vLLM and of SGLang for leaving the stop string in the text
            body |= {"stop": list(request.stop), "include_stop_str_in_output": True, "no_stop_trim": True}
        answer = Answer(request, limit, self._stop_rule(request.stop), self._cutter, self._eos)
        flight.answer = answer
        answer.asked = True
        async with aclosing(self._wire.events(replica, form.path, body)) as events:
            try:
                async for event in events:
                    chunk = read_chunk(event)
                    self._tells_stop = self._tells_stop or chunk.tells_stop
                    answer.take(chunk)
                    if answer.met_stop and not answer.complete:
                        break
            except EngineError:
                if not (answer.complete and answer.counted):  # else only what comes after the answer's end was lost
                    raise
        if answer.read is not None:
            form.check(request.prompt_ids, answer.read)
        sampled = answer.sampled()
        self._forms = (form,)
        self._fleet.served(replica, request.prompt_ids + sampled.token_ids)
        return sampled

    def _drop(self, form: Form, said: str) -> None:
        """A form that was never answered is not taken by this fleet: go on with the next one."""
        self._misfits[type(form).__name__] = said
        if self._forms == (form,):
            raise ConfigError("no server takes the request: " + "; ".join(self._misfits.values()))
        self._forms = tuple(one for one in self._forms if one is not form)

    def _stop_rule(self, stop: tuple[str, ...]) -> StopRule:
        if stop not in self._stop_rules:
            self._stop_rules[stop] = StopRule(stop, self._texts)
        return self._stop_rules[stop]
