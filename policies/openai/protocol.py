"""The protocol: a request's body, and the events of an answer.

A prompt is sent in one of three ways (:data:`~adaptive_ttc.policies.openai.config.Api`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat_model import ChatModel
from adaptive_ttc.policies.openai.config import REMEDY, FleetConfig
from adaptive_ttc.policies.openai.words import count
from adaptive_ttc.policies.requests import stream_seed
from adaptive_ttc.policy import SampleRequest

Json = Mapping[str, Any]
_MOST_TOP = 20  # most probable tokens of which servers tell the log-probabilities unless they are set up for more


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
        # 31 bits are what every server takes; llama.cpp reads 2**32 - 1 as "any"
        **({"seed": stream_seed(request, bits=31)} if request.seeded else {}),
        "stream": True,
        "stream_options": {"include_usage": True},
        **(logprobs if config.logprobs else {}),
    }
    if config.thinking_field and request.think_tokens is not None and config.api != "tokens":
        *above, last = config.thinking_field.split(".")
        place = body
        for name in above:
            place[name] = dict(place.get(name) or {})
            place = place[name]
        place[last] = request.think_tokens
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
        # whole samples need no ids, and SGLang refuses to name them in the stream of a chat
        **({"return_token_ids": True, "return_tokens_as_token_ids": True} if config.api == "tokens" else {}),
        # engines without priorities refuse any but the default
        **({"priority": request.priority} if request.priority else {}),
        **config.extra,
    }


# Fields whose absence does no harm where a server does not know them; ``top_p`` only where it cuts nothing off.
_SPARE = (
    *("top_k", "min_p", "repetition_penalty", "repeat_penalty", "stream_interval", "timings_per_token"),
    *("return_token_ids", "return_tokens_as_token_ids", "stream_options", "logprobs", "top_logprobs"),
    *("add_special_tokens", "seed", "top_p"),
)
_NEW_LIMIT = "max_completion_tokens"  # the name that newer models of OpenAI want


def refused_fields(said: str, body: Json, config: FleetConfig) -> frozenset[str]:
    """The fields of a body that a server's refusal names and that may be left out; see :func:`without`.

    TGI refuses ``top_p`` of 1, hosted APIs what they do not know, OpenAI's newer models ``max_tokens``.
    """
    spare = [name for name in _SPARE if name in body and name not in config.extra]
    if body["top_p"] != 1:
        spare.remove("top_p")
    named = {name for name in spare if re.search(rf"\b{name}\b", said)}
    if "max_tokens" in body and re.search(rf"\b{_NEW_LIMIT}\b", said):
        named.add("max_tokens")
    return frozenset(named)


def without(body: Json, fields: Container[str]) -> dict[str, Any]:
    """A body without these fields, ``top_p`` only where it cuts nothing off; ``max_tokens`` gets its other name."""
    kept = {name: value for name, value in body.items() if name not in fields or (name == "top_p" and value != 1)}
    return {**kept, _NEW_LIMIT: body["max_tokens"]} if "max_tokens" in fields else kept


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
    text = exact_text(tokenizer, ids).removeprefix(
        tokenizer.bos_token if bos is not None and begins[:1] == [bos] else ""
    )
    special = set(tokenizer.all_special_ids)
    again: list[int] = tokenizer.encode(text)
    if [one for one in again if one in special] != [one for one in ids if one in special]:
        raise ConfigError(
            "the problem holds the text of a control token, which a server that takes prompts only as text would "
            "obey; take that text out, or serve the model with an engine that takes token ids (vLLM)"
        )
    return text


DONE: Json = {"[DONE]": True}
"""The event that ends a stream, beside which some servers give no reason for the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one event of ``/completions`` or ``/chat/completions`` says, whichever server wrote it."""

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
    reasoning_tokens: int | None = None  # those of them that are thinking; None where the event does not tell
    done: bool = False  # whether nothing comes after it


def read_chunk(event: Json) -> Chunk:
    """Read an event; EngineError, retryable, if it has not the form of one."""
    try:
        return _read(event)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        said = f"the server sent an event that cannot be read ({error}): {str(event)[:300]}"
        raise EngineError(said, retryable=True) from error


def _read(event: Json) -> Chunk:
    choice: Json = next(iter(event.get("choices") or ()), {})
    message: Json = choice.get("delta") or choice.get("message") or {}
    usage: Json = event.get("usage") or {}
    read: Json = usage.get("prompt_tokens_details") or {}
    written: Json = usage.get("completion_tokens_details") or usage
    # llama.cpp's own account; its prompt_n leaves the cached ones out
    timings: Json = event.get("timings") or {}
    named = [key for key in ("stop_reason", "matched_stop") if key in choice]
    ids, logprobs = _tokens(choice)
    prompt = count(usage.get("prompt_tokens")) or None  # Ollama writes 0 until it knows
    if prompt is None and "prompt_n" in timings:
        prompt = timings["prompt_n"] + timings.get("cache_n", 0)
    return Chunk(
        text=_text(choice.get("text")) or _text(message.get("content")),
        reasoning=_text(message.get("reasoning_content")) or _text(message.get("reasoning")),
        token_ids=ids,
        logprobs=logprobs,
        top_logprobs=_top_logprobs(choice),
        # gateways to other APIs write their word under its name there
        finish=str(choice.get("finish_reason" if "finish_reason" in choice else "stop_reason") or "") or None,
        tells_stop=bool(named),
        stop=next((choice[key] for key in named if isinstance(choice[key], str)), None),
        prompt_tokens=prompt,
        cached_tokens=count(read.get("cached_tokens", timings.get("cache_n"))),
        completion_tokens=count(usage.get("completion_tokens", timings.get("predicted_n"))),
        reasoning_tokens=count(written.get("reasoning_tokens")),
        done=event is DONE,
    )


def _text(content: Any) -> str:
    """A text, which some servers send in parts and some as null."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _tokens(choice: Json) -> tuple[tuple[int, ...] | None, tuple[float, ...]]:
    """The new tokens and their log-probabilities, wherever a server puts them."""
    told: Json = choice.get("logprobs") or {}
    entries = told.get("content") or ()  # chat completions, and llama.cpp's completions
    names = told.get("tokens") or [entry.get("token", "") for entry in entries]
    logprobs = told.get("token_logprobs") or [entry.get("logprob") for entry in entries]
    ids = choice.get("token_ids")
    if ids is None and entries and all("id" in entry for entry in entries):
        ids = [entry["id"] for entry in entries]
    if ids is None and names and all(str(name).startswith("token_id:") for name in names):
        ids = [int(name.removeprefix("token_id:")) for name in names]
    # what cannot be a log-probability is none; TGI rounds, so that some are a little above 0
    known = tuple(min(float(one), 0.0) for one in logprobs if one is not None and -math.inf < float(one) < 0.01)
    return (None if ids is None else tuple(ids)), (known if len(known) == len(logprobs) else ())


def _top_logprobs(choice: Json) -> tuple[tuple[float, ...], ...]:
    """Log-probabilities of the most probable tokens at every new one's place."""
    told: Json = choice.get("logprobs") or {}
    places = told.get("top_logprobs") or [entry.get("top_logprobs") for entry in told.get("content") or ()]
    some = [one.values() if isinstance(one, Mapping) else [each.get("logprob") for each in one or ()] for one in places]
    return tuple(tuple(float(each) for each in one if each is not None and float(each) <= 0.01) for one in some)


def exact_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of token ids as the tokenizer writes it, special tokens included."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
