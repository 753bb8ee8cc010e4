"""Refuses sample requests that no engine can serve; it knows no engine."""

from __future__ import annotations

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policy import SampleRequest


def check_request(request: SampleRequest, *, max_context: int, vocab_size: int) -> None:
    """Refuse a request before any work is done for it.

    Args:
        request: what is asked.
        max_context: prompt and new tokens together that the engine can hold.
        vocab_size: token ids must be below it.

    Raises:
        ConfigError: the prompt is empty, foreign or leaves no room for a token, or a sampling parameter is out of
            its range.
    """
    prompt = request.prompt_ids
    if not prompt:
        raise ConfigError(f"request {request.id!r} has an empty prompt; render the problem with policy.encode")
    if len(prompt) >= max_context:
        raise ConfigError(
            f"the prompt is {len(prompt)} tokens long and the context holds {max_context}, the solution included; "
            "shorten the problem or take a policy with a longer context"
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise ConfigError(
            f"request {request.id!r} holds token ids outside 0..{vocab_size - 1}; its prompts come from encode"
        )
    if request.max_tokens < 1:
        raise ConfigError(f"max_tokens={request.max_tokens} must be at least 1")
    if not 0.0 <= request.temperature < float("inf"):
        raise ConfigError(f"temperature={request.temperature} must be 0 (greedy) or a positive number")
    if not 0.0 < request.top_p <= 1.0:
        raise ConfigError(f"top_p={request.top_p} must lie in (0, 1]")
    if "" in request.stop:
        raise ConfigError("an empty stop string would end every sample at once; leave it out")
