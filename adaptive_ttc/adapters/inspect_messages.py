"""Inspect's messages, settings and outputs, and what they are to a solver."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.run.summary import decision_of, finish_of, said, speaker, told
from adaptive_ttc.solution import Solution

with suppress(ImportError):  # without it nothing here is called
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessage,
        ChatMessageAssistant,
        ContentReasoning,
        ContentText,
        GenerateConfig,
        ModelOutput,
        ModelUsage,
    )

_ASKED = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
_ASKED |= {"num_choices": "n", "reasoning_tokens": "think_tokens"}
_REFUSED: tuple[str, ...] = (
    "stop_seqs",
    "best_of",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
)
_REFUSED += ("top_logprobs", "prompt_logprobs", "response_schema", "modalities")


def turn_of(message: ChatMessage) -> dict[str, str]:
    """A message as ``Solver.solve`` takes it. ConfigError: it is not text alone."""
    if not isinstance(message.content, str) and not all(part.type in ("text", "reasoning") for part in message.content):
        raise ConfigError("a solver reads texts alone: leave pictures, sounds and files out")
    return {"role": message.role, "content": message.text}


def options_of(config: GenerateConfig) -> dict[str, Any]:
    """What ``Solver.solve`` takes of it. ConfigError: it asks for what a solver cannot do."""
    given: Mapping[str, Any] = config.model_dump(exclude_none=True)
    if refused := [name for name in _REFUSED if given.get(name)]:
        raise ConfigError(f"a solver cannot do {', '.join(refused)}: leave it out")
    found: dict[str, Any] = {name: given[asked] for asked, name in _ASKED.items() if asked in given}
    if found.get("n") == 1:
        del found["n"]
    found |= given.get("extra_body", {})
    return found


def output_of(solution: Solution, model: str, *, every: bool) -> ModelOutput:
    """The solution that speaks for the answer, with ``every`` other one behind it, what was spent and the decision."""
    best = speaker(solution)
    others = [said(one) for one in solution.candidates if every and one is not best]
    choices = []
    for text in (told(solution), *others):
        thought = [ContentReasoning(reasoning=text["reasoning"])] if text["reasoning"] else []
        content = [*thought, ContentText(text=text["content"])] if thought else text["content"]
        message = ChatMessageAssistant(content=content, model=model, source="generate")
        reason = "stop" if finish_of(solution) == "stop" else "max_tokens"
        choices.append(ChatCompletionChoice(message=message, stop_reason=reason))
    used = solution.usage
    usage = ModelUsage(
        input_tokens=used.prompt_tokens,
        input_tokens_cache_read=used.cached_prompt_tokens,
        output_tokens=used.completion_tokens,
        total_tokens=used.prompt_tokens + used.cached_prompt_tokens + used.completion_tokens,
        reasoning_tokens=used.thinking_tokens,
    )
    spent = {"spent": solution.spent, "budget": solution.budget, "count": solution.count, "prm_tokens": used.prm_tokens}
    return ModelOutput(model=model, choices=choices, usage=usage, metadata=decision_of(solution) | spent)
