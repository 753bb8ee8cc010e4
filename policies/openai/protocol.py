"""The protocol: a request's body, the events of an answer, and the sample made of them.

A prompt is sent in one of three ways (:data:`~adaptive_ttc.policies.openai.fleet.Api`). An answer's tokens are counted
from, in this order:

1. The ids that the server names (vLLM's and SGLang's ``return_token_ids``, ``token_id:`` names, llama.cpp's ids beside
   its log-probabilities), if they are as many as it counts. They are delivered as they are.
2. Its own count (``usage``, with ``continuous_usage_stats`` also of an answer that is cut short; llama.cpp's
   ``timings``). The ids come from the model's own tokenizer; tokens without a text of their own are charged as EOS.
3. Neither: a whole answer is refused, since no budget could hold; one that was cut short counts the tokens of its text,
   or its events if they are more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat_model import ChatModel
from adaptive_ttc.policies.openai.fleet import REMEDY, FleetConfig
from adaptive_ttc.policies.requests import StopRule, stream_seed
from adaptive_ttc.policy import Sampled, SampleRequest

Json = Mapping[str, Any]
Finish = Literal["eos", "stop", "length", "abort"]
_MOST_TOP = 20  # most probable tokens of which servers tell the log-probabilities unless they are set up for more
_LEAST_LOGPROB = -100.0  # nats; of tokens that a model rules out


def body_of(
    request: SampleRequest, max_tokens: int, served_as: str, model: ChatModel, config: FleetConfig
) -> dict[str, Any]:
    """A request's body without stop strings; ConfigError if the servers cannot be asked for that.

    Whatever bends the distribution away from temperature and nucleus is switched off by name: servers take defaults
    from the model's generation config (vLLM, SGLang) or have their own (llama.cpp). Each reads the names that it knows.
    Streaming costs little, and lets an aborted request return what it got.
    """
    top = max(1, min(request.top_logprobs, _MOST_TOP if config.api == "chat" or not config.standard_fields else 5))
    logprobs: dict[str, Any] = {"logprobs": True, "top_logprobs": top} if config.api == "chat" else {"logprobs": top}
    body = {
        "model": served_as,
        **_prompt(request, model, config),
        "max_tokens": max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": stream_seed(request, bits=31),  # which every server takes; llama.cpp reads 2**32 - 1 as "any"
        "stream": True,
        "stream_options": {"include_usage": True},
        **(logprobs if config.logprobs else {}),
    }
    if config.standard_fields:
        return {**body, **config.extra}
    return {
        **body,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "repeat_penalty": 1.0,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "stream_interval": config.stream_interval,
        "timings_per_token": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        # engines without priorities refuse any but the default
        **({"priority": request.priority} if request.priority else {}),
        **config.extra,
    }


def _prompt(request: SampleRequest, model: ChatModel, config: FleetConfig) -> dict[str, Any]:
    if config.api == "tokens":
        return {"prompt": list(request.prompt_ids), "add_special_tokens": False}
    if request.stop or not request.messages:
        raise ConfigError(
            f"request {request.id!r} is for a part of a solution, and a server with api={config.api!r} writes whole "
            f"ones: {REMEDY}; a request made by hand needs messages, no stop strings and no begun solution"
        )
    if config.api == "chat":
        kwargs = model.chat.template_kwargs
        told = {"chat_template_kwargs": kwargs} if kwargs else {}
        return {"messages": model.chat.turns(request.messages), **told}
    return {"prompt": _text_of(request.prompt_ids, model.chat.tokenizer)}


def _text_of(ids: Sequence[int], tokenizer: Any) -> str:
    """A prompt's text, without the begin-of-sequence token that servers put before a text themselves.

    ConfigError if the text names control tokens that are plain text in the prompt.
    """
    begins: list[int] = tokenizer.encode("")
    bos = tokenizer.bos_token_id
    text = _decode(tokenizer, ids).removeprefix(tokenizer.bos_token if bos is not None and begins[:1] == [bos] else "")
    special = set(tokenizer.all_special_ids)
    again: list[int] = tokenizer.encode(text)
    if [one for one in again if one in special] != [one for one in ids if one in special]:
        raise ConfigError(
            "the problem holds the text of a control token, which a server that takes prompts only as text would "
            "obey; take that text out, or serve the model with an engine that takes token ids (vLLM)"
        )
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one event of ``/completions`` or ``/chat/completions`` says, as vLLM, SGLang and llama.cpp write it."""

    text: str = ""  # new text
    reasoning: str = ""  # new thinking, where the server tells it from the answer
    token_ids: tuple[int, ...] | None = None  # new tokens; None where the event does not name them
    logprobs: tuple[float, ...] = ()  # of the new tokens, in nats; empty where the event does not tell
    top_logprobs: tuple[tuple[float, ...], ...] = ()  # at each new token's place, of the most probable ones, likewise
    finish: str | None = None  # the server's word for why the answer ended, or None
    tells_stop: bool = False  # whether this server says which stop string ended an answer
    stop: str | None = None  # that string; None when there was none, or the server does not say
    prompt_tokens: int | None = None  # of the prompt, the second of the first; None where the event does not tell
    cached_tokens: int | None = None
    completion_tokens: int | None = None  # generated so far; None where the event does not tell
    reasoning_tokens: int | None = None  # those of them that are thinking


def read_chunk(event: Json) -> Chunk:
    """Read an event."""
    choice: Json = next(iter(event.get("choices") or ()), {})
    usage: Json = event.get("usage") or {}
    details: Json = usage.get("prompt_tokens_details") or {}
    # llama.cpp's own account; its prompt_n leaves the cached ones out
    timings: Json = event.get("timings") or {}
    said: Json = choice.get("delta") or choice.get("message") or {}
    named = [key for key in ("stop_reason", "matched_stop") if key in choice]
    ids, logprobs = _tokens(choice)
    prompt = usage.get("prompt_tokens")
    if prompt is None and "prompt_n" in timings:
        prompt = timings["prompt_n"] + timings.get("cache_n", 0)
    return Chunk(
        text=choice.get("text") or said.get("content") or "",
        reasoning=said.get("reasoning_content") or said.get("reasoning") or "",
        token_ids=ids,
        logprobs=logprobs,
        top_logprobs=_top_logprobs(choice),
        finish=choice.get("finish_reason"),
        tells_stop=bool(named),
        stop=next((choice[key] for key in named if isinstance(choice[key], str)), None),
        prompt_tokens=prompt,
        cached_tokens=details.get("cached_tokens", timings.get("cache_n")),
        completion_tokens=usage.get("completion_tokens", timings.get("predicted_n")),
        reasoning_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
    )


def _of_all(logprobs: Sequence[float], tokens: int) -> tuple[float, ...]:
    """Those of the first tokens; none where they are fewer."""
    return tuple(logprobs[:tokens]) if len(logprobs) >= tokens else ()


def _tokens(choice: Json) -> tuple[tuple[int, ...] | None, tuple[float, ...]]:
    """The new tokens and their log-probabilities, wherever a server puts them."""
    told: Json = choice.get("logprobs") or {}
    entries = told.get("content") or ()  # chat completions, and llama.cpp's completions
    names = told.get("tokens") or [entry.get("token", "") for entry in entries]
    logprobs = told.get("token_logprobs") or [entry.get("logprob") for entry in entries]
    ids = choice.get("token_ids")
    if ids is None and entries and all("id" in entry for entry in entries):
        ids = [entry["id"] for entry in entries]
    if ids is None and names and all(name.startswith("token_id:") for name in names):
        ids = [int(name.removeprefix("token_id:")) for name in names]
    known = tuple(float(one) for one in logprobs if one is not None)
    return (None if ids is None else tuple(ids)), (known if len(known) == len(logprobs) else ())


def _top_logprobs(choice: Json) -> tuple[tuple[float, ...], ...]:
    """Log-probabilities of the most probable tokens at every new one's place."""
    told: Json = choice.get("logprobs") or {}
    places = told.get("top_logprobs") or [entry.get("top_logprobs") for entry in told.get("content") or ()]
    some = [one.values() if isinstance(one, Mapping) else [each.get("logprob") for each in one or ()] for one in places]
    return tuple(tuple(float(each) for each in one if each is not None) for one in some)


_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


class Answer:
    """One streamed answer as it arrives, made into a sample.

    ``limit``: most tokens asked for; ``rule``: of the request's stop strings; ``model``: its tokenizer gives ids to
    text without any; ``whole``: the answer is a whole solution, which is not continued.
    """

    def __init__(self, request: SampleRequest, limit: int, rule: StopRule, model: ChatModel, *, whole: bool) -> None:
        self._request, self._limit, self._rule, self._whole = request, limit, rule, whole
        self._tokenizer = model.chat.tokenizer
        own = self._tokenizer.eos_token_id
        self._eos = sorted(model.eos, key=lambda one: (one != own, one))[:1]
        self._ids: list[int] = []
        self._named = not whole  # whether every piece of text came with its ids
        self._logprobs: list[float] = []
        self._top_logprobs: list[float] = []
        self._text = self._reasoning = ""
        self._thought: int | None = None  # tokens of thinking, where the server told it from the answer
        self._events = 0
        self._latest = Chunk()
        self._server_finish: str | None = None
        self._server_stop: str | None = None
        self._stop_end: int | None = None  # number of tokens up to the stop string's end

    @property
    def met_stop(self) -> bool:
        """Whether a stop string is complete, so that no more of the answer is wanted."""
        return self._stop_end is not None

    @property
    def overrun(self) -> bool:
        """Whether more tokens have come than were asked for; those are dropped, and no more are waited for."""
        return max(len(self._ids), self._latest.completion_tokens or 0) > self._limit

    @property
    def complete(self) -> bool:
        """Whether the server has said why the answer ended."""
        return self._server_finish is not None

    @property
    def counted(self) -> bool:
        """Whether the number of tokens is known."""
        return self._named or self._latest.completion_tokens is not None

    def take(self, chunk: Chunk) -> None:
        """Add the next event; ConfigError if a server does not name tokens that have to be named."""
        known = {name: getattr(chunk, name) for name in _COUNTS}
        self._latest = replace(self._latest, **{name: value for name, value in known.items() if value is not None})
        self._server_finish = chunk.finish or self._server_finish
        self._server_stop = chunk.stop or self._server_stop
        self._events += bool(chunk.text or chunk.reasoning or chunk.token_ids)
        self._logprobs += chunk.logprobs
        if most := self._request.top_logprobs:
            top = [sorted((max(each, _LEAST_LOGPROB) for each in one), reverse=True) for one in chunk.top_logprobs]
            self._top_logprobs += (math.fsum(one[:most]) / len(one[:most]) for one in top if one)
        self._text += chunk.text
        self._reasoning += chunk.reasoning
        if not self._whole and chunk.text and chunk.token_ids is None:
            if not self._ids:
                raise ConfigError(f"the server names no token ids, without which no step can be gone on from; {REMEDY}")
            self._named = False
        for token in chunk.token_ids or ():
            self._ids.append(token)
            if not self.met_stop and self._rule.met(self._request.stop_context, self._ids):
                self._stop_end = len(self._ids)

    def sampled(self) -> Sampled:
        """The sample of an answer that has ended, by itself or at a stop string.

        Raises:
            ConfigError: the server does not take token ids as such.
            EngineError: the server does not count its tokens; or (retryable) it ended without a reason, or abnormally.
        """
        read, sent = self._latest.prompt_tokens, len(self._request.prompt_ids)
        if not self._whole and read not in (None, sent):
            raise ConfigError(
                f"the server read {read} prompt tokens where {sent} were sent; it does not take token ids as such: "
                f"{REMEDY}"
            )
        if self.met_stop:
            return self._made("stop")
        if self._server_finish == "length" or (self.overrun and not self.complete):
            return self._made("length")
        if self._server_finish == "stop":
            return self._made("stop" if self._server_stop in self._request.stop else "eos")
        raise EngineError(f"the server ended its answer with {self._server_finish or 'no reason'}", retryable=True)

    def aborted(self) -> Sampled:
        """The sample of an answer that was cut short: exactly what was delivered."""
        return self._made("abort")

    def _made(self, finish: Finish) -> Sampled:
        counted = self._latest.completion_tokens
        ids = self._token_ids(finish, counted)
        if self.met_stop and finish != "abort":
            finish = "stop"
        if self._named and finish != "abort" and (self._stop_end or len(ids)) > self._limit:
            finish = "length"  # what ended it comes after the last token that was asked for
        delivered = ids[: min(self._limit, self._stop_end or len(ids))]
        read, cached = self._latest.prompt_tokens, self._latest.cached_tokens or 0
        return Sampled(
            token_ids=tuple(delivered),
            finish=finish,
            logprobs=_of_all(self._logprobs, len(delivered)),
            top_logprobs=_of_all(self._top_logprobs, len(delivered)),
            prompt_tokens=(len(self._request.prompt_ids) if read is None else read) - cached,
            cached_tokens=cached,
            discarded_tokens=max(len(ids), counted or 0) - len(delivered),
            thought=None if self._thought is None else min(self._thought, len(delivered)),
        )

    def _token_ids(self, finish: Finish, counted: int | None) -> list[int]:
        """All tokens generated: those that the server named if they are complete, else the tokenizer's own."""
        end = self._eos if self._server_finish == "stop" and self._server_stop not in self._request.stop else []
        missing = (counted or 0) - len(self._ids)
        if self._named and (missing <= 0 or self.met_stop):
            return self._ids
        if self._named and missing == 1 and end and self._ids[-1:] != end:
            return [*self._ids, *end]  # counted and not named
        ids, thinking = self._cut(), self._thinking()
        if counted is None:
            if finish != "abort":
                raise EngineError(
                    "the server tells neither token ids nor how many tokens it generated, so that no budget can hold; "
                    "take one that knows return_token_ids or stream_options.include_usage"
                )
            counted = max(self._events, len(thinking) + len(ids))
        missing = max(0, min(counted, self._limit) - len(thinking) - len(ids) - len(end))
        if missing and not self._whole:
            raise EngineError(f"the server did not name all of its {counted} tokens", retryable=True)
        # thinking that the server counts and does not show; all of it while nothing is answered
        told = (self._latest.reasoning_tokens or 0) if ids or not thinking else counted
        hidden = min(missing, max(0, told - len(thinking)))
        if thinking or hidden:
            self._thought = len(thinking) + hidden
        return [*thinking, *(self._eos * hidden), *ids, *(self._eos * (missing - hidden)), *end]

    def _thinking(self) -> list[int]:
        """The thinking that the server told from the answer, in the tokenizer's own tokens."""
        ids: list[int] = self._tokenizer.encode(self._reasoning, add_special_tokens=False) if self._reasoning else []
        return ids

    def _cut(self) -> list[int]:
        """The text in the tokenizer's own tokens, up to a stop string."""
        ids: list[int] = self._tokenizer.encode(self._text, add_special_tokens=False)
        if _decode(self._tokenizer, ids) != self._text:
            raise ConfigError(
                f"the tokenizer cannot write {self._text[-80:]!r} as it came, and the server names no token ids; "
                "serve the model with an engine that does (vLLM: return_token_ids)"
            )
        if self._request.stop:
            context = self._request.stop_context
            self._stop_end = next((end for end in range(1, len(ids) + 1) if self._rule.met(context, ids[:end])), None)
        return ids


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
