"""Writes the body of a request: what is asked of a server, and under which names; it knows no answer."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.forms import Body, ChatForm, Form
from adaptive_ttc.policy import SampleRequest


def body_of(request: SampleRequest, form: Form, max_tokens: int, model: str, config: FleetConfig) -> Body:
    """A request's body but for its stop strings.

    Whatever bends the distribution away from temperature and nucleus is switched off by name: servers take defaults
    for it from the model's generation config (vLLM, SGLang) or of their own (llama.cpp). Each reads the names that
    it knows. Streaming costs little, and lets an aborted request tell what it got.
    """
    chat = isinstance(form, ChatForm)
    logprobs: Body = {"logprobs": True, "top_logprobs": 1} if chat else {"logprobs": 1}
    return {
        "model": model,
        **form.prompt(request.prompt_ids),
        "max_tokens": max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "repeat_penalty": 1.0,
        "seed": stream_seed(request.seed, request.prompt_ids),
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "stream_interval": config.stream_interval,
        "timings_per_token": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        **(logprobs if config.logprobs else {}),
        # engines without priorities refuse any but the default
        **({"priority": request.priority} if request.priority else {}),
        **config.extra,
    }


def stream_seed(seed: int, prompt: Sequence[int]) -> int:
    """The seed of one request: two pieces of a sample differ in length, and so do not use the same draws.

    It has 31 bits, which every server takes (llama.cpp reads 2**32 - 1 as "any").
    """
    mixed = (seed ^ (len(prompt) * 0x9E3779B97F4A7C15)) & (2**64 - 1)
    # splitmix64's finaliser: neighbouring seeds give unrelated ones
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) >> 33
