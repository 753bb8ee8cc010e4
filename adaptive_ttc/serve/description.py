"""The server's own description, an OpenAPI document."""

from __future__ import annotations

from typing import Any

import adaptive_ttc
from adaptive_ttc.serve.asked import MOST_N
from adaptive_ttc.serve.config import ServeConfig

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1}
_OBJECT: dict[str, Any] = {"type": "object"}


def description(config: ServeConfig) -> dict[str, Any]:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "adaptive_ttc", "version": adaptive_ttc.__version__},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _error(), "Completion": _completion()},
        },
        "security": [{"key": []}] if config.keys else [],
        "paths": {
            "/v1/chat/completions": {
                "post": {
                    "operationId": "complete",
                    "requestBody": {"required": True, "content": _json(_request(config))},
                    "responses": {
                        "200": {
                            "description": "the completion; a stream of its pieces where `stream` is true",
                            "content": {
                                **_json({"$ref": "#/components/schemas/Completion"}),
                                "text/event-stream": {"schema": _TEXT},
                            },
                        },
                        **_refusals("400", "401", "403", "404", "413", "429", "500", "502", "503"),
                    },
                }
            },
            "/v1/models": _get("models", "the served model", "401", "403"),
            "/v1/models/{name}": {
                **_get("model", "the served model", "401", "403", "404"),
                "parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}],
            },
            "/health": _get("health", "requests are taken", "503", open_to_all=True, plain=("503",)),
            "/metrics": _get("metrics", "gauges for Prometheus", open_to_all=True, media="text/plain"),
            "/openapi.json": _get("description", "this document", open_to_all=True),
        },
    }


def _request(config: ServeConfig) -> dict[str, Any]:
    most = {} if config.most is None else {"maximum": config.most}
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["system", "developer", "user", "assistant"]}, "content": {}},
    }
    return {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": {**_TEXT, "description": f"{config.model}, or {config.model}@N for a budget of N"},
            "messages": {"type": "array", "minItems": 1, "items": message},
            "budget_tokens": {**_COUNT, **most, "default": config.default_budget},
            "strategy": _TEXT,
            "n": {**_COUNT, "maximum": MOST_N},
            "beam_width": _COUNT,
            "deadline": {"type": "number", "exclusiveMinimum": 0},
            "min_gain": {"type": "number", "minimum": 0},
            "max_rounds": _COUNT,
            "think_tokens": {"type": "integer", "minimum": 0},
            "waits": {"type": "integer", "minimum": 0},
            "answers": {**_TEXT, "description": "what answers are: math, number, choice, ..., but code and regex"},
            "options": {**_OBJECT, "description": "further fields of the strategy"},
            "include_trace": {"type": "boolean"},
            "temperature": {"type": "number", "minimum": 0},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "max_tokens": _COUNT,
            "max_completion_tokens": _COUNT,
            "seed": {"type": "integer"},
            "stream": {"type": "boolean"},
            "stream_options": _OBJECT,
        },
    }


def _completion() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage", "metadata"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": {"type": "integer"},
            "model": _TEXT,
            "choices": {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": 1},
            "usage": _OBJECT,
            "metadata": _OBJECT,
            "trace": {"type": "array", "items": _OBJECT},
        },
    }


def _error() -> dict[str, Any]:
    said = {
        "type": "object",
        "required": ["message", "type"],
        "properties": {"message": _TEXT, "type": _TEXT, "param": {}, "code": {}},
    }
    return {"type": "object", "required": ["error"], "properties": {"error": said}}


def _get(
    name: str,
    what: str,
    *refusals: str,
    open_to_all: bool = False,
    media: str = "application/json",
    plain: tuple[str, ...] = (),
) -> dict[str, Any]:
    schema = _TEXT if media == "text/plain" else _OBJECT
    operation: dict[str, Any] = {
        "operationId": name,
        "responses": {"200": {"description": what, "content": {media: {"schema": schema}}}, **_refusals(*refusals)},
    }
    for status in plain:
        operation["responses"][status]["content"] = _json(_OBJECT)
    if open_to_all:
        operation["security"] = []
    return {"get": operation}


def _refusals(*statuses: str) -> dict[str, Any]:
    told = {
        "400": "malformed or impossible",
        "401": "no key that is known",
        "403": "from a web page, where there are no keys",
        "404": "no such model",
        "413": "too long",
        "429": "the budget is spent, or too many wait; Retry-After says for how long",
        "500": "the server failed",
        "502": "an engine failed",
        "503": "an engine is gone, or the server is ending",
    }
    content = _json({"$ref": "#/components/schemas/Error"})
    return {status: {"description": told[status], "content": content} for status in statuses}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
