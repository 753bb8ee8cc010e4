"""Writes what came of a request: completions, chunks of a stream, errors, as OpenAI's API has them.

The answer stands in ``content``, thinking in ``reasoning``; ``usage`` has the whole spend, ``metadata`` the decision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.answers.thinking import KNOWN
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.events import AllocationEvent, Event
from adaptive_ttc.serve.asked import RefusedError
from adaptive_ttc.solution import Solution
from adaptive_ttc.tracing.trace import event_as_data, finite, plain
from adaptive_ttc.types import Candidate


@dataclass(frozen=True, slots=True)
class Heading:
    """What all parts of an answer have in common."""

    id: str
    created: int  # seconds since 1970
    model: str

    def completion(self, solution: Solution, *, trace: bool) -> dict[str, Any]:
        """A whole answer."""
        message = {"role": "assistant", **told(solution)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(solution)}
        found = self._body("chat.completion", [choice])
        found |= {"usage": usage_of(solution), "metadata": decision_of(solution)}
        if trace:
            found["trace"] = [event_as_data(event) for event in solution.trace]
        return found

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None, **beside: Any) -> dict[str, Any]:
        """A piece of a streamed answer."""
        return self._body("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": finish}]) | beside

    def last_usage(self, solution: Solution) -> dict[str, Any]:
        """The piece after the last one, which has the usage alone."""
        return self._body("chat.completion.chunk", []) | {"usage": usage_of(solution)}

    def _body(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def told(solution: Solution) -> dict[str, Any]:
    """The solution that speaks for the answer, and the thinking before it."""
    best = _speaker(solution)
    if best is None:
        return {"content": solution.answer or "", "reasoning": None}
    begin = len(best.prefix.text) if best.prefix.answer_at is None else best.prefix.answer_at
    return {
        "content": best.prefix.answer_text.lstrip("\n"),
        "reasoning": _without_tags(best.prefix.text[:begin]) or None,
    }


def _without_tags(thought: str) -> str:
    thought = thought.strip()
    for opening, closing in KNOWN:
        thought = thought.removeprefix(opening).removesuffix(closing)
    return thought.strip()


def _speaker(solution: Solution) -> Candidate | None:
    """Of those with the answer the one with the best score; without an answer the longest."""
    having = [one for one in solution.candidates if solution.answer and one.answer_class == solution.answer]
    if having:
        return max(having, key=lambda one: -1.0 if one.score is None else one.score)
    return max(solution.candidates, key=lambda one: len(one.prefix.token_ids), default=None)


def finish_of(solution: Solution) -> str:
    """``stop``; ``length`` where there is no answer."""
    return "length" if solution.answer is None else "stop"


def usage_of(solution: Solution) -> dict[str, Any]:
    """All that was computed for a solution."""
    usage = solution.usage
    prompt = usage.prompt_tokens + usage.cached_prompt_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": prompt + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "prm_tokens": usage.prm_tokens,
        "num_calls": usage.num_calls,
        "num_prm_calls": usage.num_prm_calls,
        "flops": usage.flops,
        "spent": solution.spent,
        "budget": solution.budget,
    }


def decision_of(solution: Solution) -> dict[str, Any]:
    """The answer, how sure it is, how it was found and why it got no more."""
    leader = solution.answer_classes[0] if solution.answer_classes else None
    decided = solution.trace.last(AllocationEvent)
    return {
        "answer": solution.answer,
        "confidence": solution.confidence,
        "agreement": None if leader is None else leader.votes / max(1, solution.effective_n),
        "answers": [
            {"answer": one.answer, "votes": one.votes, "weight": one.weight} for one in solution.answer_classes
        ],
        "strategy": solution.strategy.name,
        "n": solution.strategy.n,
        "vote": solution.vote,
        "difficulty": solution.difficulty,
        "stopped": solution.stopped.value,
        "arms": [one.action for one in solution.trace.of(AllocationEvent) if one.action is not None],
        "note": decided.note if decided is not None else "",  # the rule and its certificate, where one decides
        "abstained": solution.abstained,
        "error": None if solution.error is None else str(solution.error),
    }


def event_of(event: Event) -> dict[str, Any]:
    """An event of a trace, beside an empty piece of the answer."""
    return {"event": event_as_data(event)}


def error_body(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error."""
    if isinstance(error, ConfigError):  # of what only a run could find to be impossible
        error = RefusedError(str(error))
    if isinstance(error, RefusedError):
        kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(error.status)
        kind = kind or ("server_error" if error.status >= 500 else "invalid_request_error")
        said = {"message": str(error), "type": kind, "param": error.field, "code": error.code}
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return error.status, {"error": said}, headers
    code = "engine_error" if isinstance(error, AdaptiveTTCError) else "internal_error"
    message = str(error) if isinstance(error, AdaptiveTTCError) else "the server failed; its log says why"
    headers = {}
    if (wait := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    status = 503 if getattr(error, "retryable", False) or headers else 502 if code == "engine_error" else 500
    return status, {"error": {"message": message, "type": "server_error", "param": None, "code": code}}, headers


def as_json(body: object) -> bytes:
    """Strict JSON: what is not a number becomes null."""
    return json.dumps(finite(body), default=plain, ensure_ascii=True, allow_nan=False).encode()
