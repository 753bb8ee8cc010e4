"""The server's own description, an OpenAPI document."""

from __future__ import annotations

import re
from typing import Any

import adaptive_ttc
from adaptive_ttc.serve.asked import IGNORED, MOST_N, MOST_NUMBER, NEUTRAL
from adaptive_ttc.serve.config import ServeConfig
from adaptive_ttc.strategies.registry import strategy_aliases, strategy_names

_TEXT: dict[str, Any] = {"type": "string"}
_BELOW: dict[str, Any] = {"exclusiveMaximum": MOST_NUMBER}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 1, **_BELOW}
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
                                "text/event-stream": {"schema": _event()},
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
    names = f"{config.model}, or {config.model}@N for a budget of N"
    given: dict[str, Any] = {
        "budget_tokens": {**_COUNT, **most, "default": config.default_budget},
        "strategy": {"enum": [*strategy_names(), *strategy_aliases()]},
        "n": {**_COUNT, "maximum": MOST_N},
        "beam_width": _COUNT,
        "deadline": {"type": "number", "minimum": 0, **_BELOW},
        "min_gain": {"type": "number", "minimum": 0, **_BELOW},
        "max_rounds": _COUNT,
        "think_tokens": {**_COUNT, "minimum": 0},
        "waits": {**_COUNT, "minimum": 0},
        "answers": {**_TEXT, "description": "what answers are: math, number, choice, ..., but code and regex"},
        "options": {
            "type": "object",
            "additionalProperties": {"type": ["number", "string", "boolean", "null"]},
            "description": "further fields of the strategy",
        },
        "include_trace": {"type": "boolean"},
        "temperature": {"type": "number", "minimum": 0, **_BELOW},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "max_tokens": _COUNT,
        "max_completion_tokens": _COUNT,
        "seed": {"type": "integer", "minimum": -MOST_NUMBER, **_BELOW},
        "stream": {"type": "boolean"},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": ["boolean", "null"]}}},
    }
    return {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": {**_TEXT, "pattern": f"^{re.escape(config.model)}(@[0-9]{{1,19}})?$", "description": names},
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": _message(),
                "description": "the last one is the user's, and not blank",
            },
            **{name: {"anyOf": [schema, {"type": "null"}]} for name, schema in given.items()},
            **{name: {"enum": list(harmless)} for name, harmless in NEUTRAL.items()},
            **{name: {} for name in sorted(IGNORED)},
        },
        "additionalProperties": False,
    }


def _message() -> dict[str, Any]:
    part = {"type": "object", "required": ["text"], "properties": {"text": _TEXT}}
    return {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [_TEXT, {"type": "array", "items": part}]},
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


def _event() -> dict[str, Any]:
    """Of a stream: a chunk, an error, or the end."""
    chunk = {
        "type": "object",
        "required": ["id", "object", "created", "model", "choices"],
        "properties": {
            "object": {"const": "chat.completion.chunk"},
            "choices": {"type": "array", "items": _OBJECT, "maxItems": 1},
            "usage": _OBJECT,
            "metadata": _OBJECT,
            "event": _OBJECT,
        },
    }
    told = {"anyOf": [chunk, {"$ref": "#/components/schemas/Error"}]}
    data = {
        "anyOf": [
            {"type": "string", "contentMediaType": "application/json", "contentSchema": told},
            {"const": "[DONE]"},
        ]
    }
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


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
    found: dict[str, Any] = {status: {"description": told[status], "content": content} for status in statuses}
    for status in {"429", "503"} & set(statuses):
        found[status]["headers"] = {"Retry-After": {"schema": _COUNT, "description": "seconds"}}
    return found


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
