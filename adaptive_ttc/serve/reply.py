"""Writes what came of a request: completions, chunks of a stream, errors, as OpenAI's API has them.

The answer stands in ``content``, thinking in ``reasoning``; ``usage`` has the whole spend, ``metadata`` the decision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.events import Event
from adaptive_ttc.run.summary import decision_of, finish_of, told, usage_of
from adaptive_ttc.serve.asked import RefusedError
from adaptive_ttc.solution import Solution
from adaptive_ttc.tracing.trace import event_as_data, finite, plain


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
