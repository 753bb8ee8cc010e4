"""Reads a request for a chat completion: what is to be solved, how, and within what budget."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.serve.config import ServeConfig
from adaptive_ttc.types import Problem

_OURS = ("strategy", "n", "beam_width", "deadline", "min_gain", "max_rounds", "think_tokens", "waits")
"""Passed on to ``Solver.stream`` as they are."""

_SAMPLING = ("temperature", "top_p", "seed")
_OPEN = frozenset({"temperature", "top_p", "deadline", "min_gain"})
"""Numbers that need not be whole."""

_SERVERS = frozenset({"problem", "self", "budget_tokens", "count", "id"})
"""What ``Solver.stream`` takes beside the fields of a strategy, and a client does not name."""

MOST_N = 1024
"""Samples or beams of one request: a search over ever more would hold up all others."""

MOST_NUMBER = 2**63
IGNORED = frozenset(
    {"user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls", "metadata"}
)
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "response_format": ({"type": "text"}, None),
    "stop": ([], None),
    "modalities": (["text"], None),
}
"""What clients send though it asks for nothing; other values would be a promise that is not kept."""


class RefusedError(Exception):
    """A request that is not served, with its HTTP status and the field that it is about."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        field: str | None = None,
        code: str | None = None,
        retry_after: int = 0,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.code, self.retry_after = status, field, code, retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a completion."""

    problem: Problem
    model: str  # as the client named it
    budget: int
    options: Mapping[str, Any] = field(default_factory=dict)  # of ``Solver.stream``
    stream: bool = False
    include_usage: bool = False
    include_trace: bool = False


def read_asked(body: bytes, config: ServeConfig) -> Asked:
    """Read a request's body. RefusedError: it is malformed, or asks for what cannot be had."""
    try:
        given = json.loads(body, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise RefusedError("the body is a JSON object with model and messages")
    known = {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
    known |= {"budget_tokens", "answers", "include_trace", "options"}
    known |= {*_OURS, *_SAMPLING, *NEUTRAL, *IGNORED}
    for name in given:
        if name not in known:
            raise RefusedError(f"unknown field {name!r}; known are {', '.join(sorted(known))}", field=name)
    for name, harmless in NEUTRAL.items():
        if name in given and given[name] not in harmless:
            raise RefusedError(f"{name} is not supported here: leave it out", field=name)
    model, budget = _model_and_budget(given, config)
    return Asked(
        problem=_problem(given),
        model=model,
        budget=budget,
        options=_options(given),
        stream=_flag(given, "stream"),
        include_usage=_flag(_mapping(given, "stream_options"), "include_usage"),
        include_trace=_flag(given, "include_trace"),
    )


def _number(text: str) -> float:
    """As it is written; whole ones are whole, as JSON has it, where 3.0 is 3."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < MOST_NUMBER else value


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: given[name] for name in (*_OURS, *_SAMPLING) if given.get(name) is not None}
    if options.get("n") == 1 and "strategy" not in options:
        del options["n"]  # the default of clients: one answer
    for name in ("max_completion_tokens", "max_tokens"):
        if given.get(name) is not None:
            options.setdefault("max_tokens", given[name])
    options = {**_mapping(given, "options"), **options}
    for name, value in options.items():
        if name in _SERVERS:
            raise RefusedError(f"{name} is no field of a strategy: leave it out of options", field="options")
        _check_option(name, value)
    return options


def _check_option(name: str, value: object) -> None:
    """Refuse what no field of a strategy could be, so that no number is too large to reckon with."""
    if isinstance(value, int | float) and not -MOST_NUMBER <= value < MOST_NUMBER:
        raise RefusedError(f"{name} is a finite number, below 2^63; got {value!r:.80}", field=name)
    if not isinstance(value, str | int | float | None):
        raise RefusedError(f"{name} is a number, a text, true or false; got {value!r:.80}", field=name)
    if name in _OPEN and (isinstance(value, bool) or not isinstance(value, int | float | None)):
        raise RefusedError(f"{name} is a number; got {value!r:.80}", field=name)
    if name == "min_gain" and isinstance(value, int | float) and value < 0:
        raise RefusedError(f"min_gain is at least 0; got {value}", field=name)
    if name == "seed" and type(value) not in (int, type(None)):
        raise RefusedError(f"seed is a whole number; got {value!r:.80}", field=name)
    if name == "n" and isinstance(value, int) and value > MOST_N:
        raise RefusedError(f"n={value:,} is above the {MOST_N:,} that a request may ask for", field=name)


def _model_and_budget(given: Mapping[str, Any], config: ServeConfig) -> tuple[str, int]:
    model = given.get("model")
    if not isinstance(model, str):
        raise RefusedError("give model, a string", field="model")
    name, at, units = model.partition("@")
    if name != config.model or (at and not (units.isascii() and units.isdecimal() and len(units) < 20)):
        raise RefusedError(
            f"there is no model {model[:200]!r} here; take {config.model}, or {config.model}@N for a budget of N",
            status=404, field="model", code="model_not_found",
        )  # fmt: skip
    budget = given.get("budget_tokens")
    if budget is None:
        budget = int(units) if units else config.default_budget
    if type(budget) is not int or not 1 <= budget < MOST_NUMBER:
        raise RefusedError(
            f"budget_tokens is a whole number of at least 1 and below 2^63; got {budget!r:.80}", field="budget_tokens"
        )
    if config.most is not None and budget > config.most:
        raise RefusedError(
            f"a budget of {budget:,} is above the {config.most:,} that a request may ask for", field="budget_tokens"
        )
    return model, budget


def _problem(given: Mapping[str, Any]) -> Problem:
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError("give messages, a list of chat messages that ends with the user's", field="messages")
    answers = given.get("answers")
    if isinstance(answers, str) and answers.partition(":")[0].strip() == "regex":
        raise RefusedError(
            "a regular expression that backtracks without end would hold up all: it is not served here", field="answers"
        )
    try:
        tested = answers is not None and space_of(answers).tested
    except ConfigError as error:
        raise RefusedError(str(error), field="answers") from error
    if tested:
        raise RefusedError(f"answers={answers!r} would run programs here, which is not served", field="answers")
    try:
        return Problem.of([_message(one) for one in messages], answers=answers)
    except ConfigError as error:
        raise RefusedError(str(error), field="messages") from error


def _message(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise RefusedError("a message is an object with role and content", field="messages")
    role, content = given.get("role"), given.get("content")
    if role == "developer":
        role = "system"
    if isinstance(content, Sequence) and not isinstance(content, str):
        if not all(isinstance(one, Mapping) and isinstance(one.get("text"), str) for one in content):
            raise RefusedError("the parts of a message's content are texts; others are not supported", field="messages")
        content = "".join(one["text"] for one in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise RefusedError("a message has a role and a content, both strings", field="messages")
    return {"role": role, "content": content}


def _mapping(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name)
    if not isinstance(value, Mapping | None):
        raise RefusedError(f"{name} is an object", field=name)
    return value or {}


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if not isinstance(value, bool | None):
        raise RefusedError(f"{name} is true or false; got {value!r:.80}", field=name)
    return bool(value)
