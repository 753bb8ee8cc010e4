"""Reads one event of a streamed answer, as vLLM, SGLang and llama.cpp write it; it knows no request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one event says.

    Attributes:
        text: new text.
        token_ids: new tokens; None where the event does not name them.
        logprobs: of the new tokens, in nats; empty where the event does not tell.
        finish: the server's word for why the answer ended, or None.
        tells_stop: whether this server says which stop string ended an answer.
        stop: that string; None when there was none, or the server does not say.
        prompt_tokens, cached_tokens: of the prompt, the second of the first; None where the event does not tell.
        completion_tokens: generated so far; None where the event does not tell.
    """

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] = ()
    finish: str | None = None
    tells_stop: bool = False
    stop: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


def read_chunk(event: Json) -> Chunk:
    """Read an event of ``/completions`` or ``/chat/completions``."""
    choice: Json = next(iter(event.get("choices") or ()), {})
    usage: Json = event.get("usage") or {}
    details: Json = usage.get("prompt_tokens_details") or {}
    # llama.cpp's own account; its prompt_n leaves the cached ones out
    timings: Json = event.get("timings") or {}
    named = [key for key in ("stop_reason", "matched_stop") if key in choice]
    stop = next((choice[key] for key in named if isinstance(choice[key], str)), None)
    ids, logprobs = _tokens(choice)
    prompt = usage.get("prompt_tokens")
    if prompt is None and "prompt_n" in timings:
        prompt = timings["prompt_n"] + timings.get("cache_n", 0)
    return Chunk(
        text=choice.get("text") or (choice.get("delta") or {}).get("content") or "",
        token_ids=ids,
        logprobs=logprobs,
        finish=choice.get("finish_reason"),
        tells_stop=bool(named),
        stop=stop,
        prompt_tokens=prompt,
        cached_tokens=details.get("cached_tokens", timings.get("cache_n")),
        completion_tokens=usage.get("completion_tokens", timings.get("predicted_n")),
    )


def _tokens(choice: Json) -> tuple[tuple[int, ...] | None, tuple[float, ...]]:
    """The new tokens and their log-probabilities, from whichever of its places a server puts them."""
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
