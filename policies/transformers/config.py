"""How a model is batched; it knows no model."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_ttc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How a model is batched.

    Attributes:
        max_batch: samples that run at once.
        max_context: prompt and new tokens together; None takes what the model knows, and never more.
        prefix_cache_bytes: memory for the keys and values of ended samples that may be continued, and of their
            prompts; when full, the least recently used go. 0 keeps none.
        prefill_tokens: prompt tokens that one forward pass computes at most, beside the running samples' tokens.
        num_threads: CPU threads of a forward pass, set for the whole process; None sets 1 for a model with fewer
            than 20M parameters on a CPU, where more are slower, and else leaves torch's setting.
    """

    max_batch: int = 64
    max_context: int | None = None
    prefix_cache_bytes: int = 512 * 2**20
    prefill_tokens: int = 4096
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise ConfigError(f"max_batch={self.max_batch} must be at least 1")
        if self.prefill_tokens < 16:
            raise ConfigError(f"prefill_tokens={self.prefill_tokens} must be at least 16")
        if self.max_context is not None and self.max_context < 2:
            raise ConfigError(f"max_context={self.max_context} must hold a prompt token and a new one")
        if self.prefix_cache_bytes < 0:
            raise ConfigError(f"prefix_cache_bytes={self.prefix_cache_bytes} must not be negative")
        if self.num_threads is not None and self.num_threads < 1:
            raise ConfigError(f"num_threads={self.num_threads} must be at least 1, or None")
