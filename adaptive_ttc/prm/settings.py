"""How a PRM in this process is run: device, number format, batches, memory; it knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.batcher import BatcherConfig

PREFIX_CACHE_BYTES = 512 * 2**20
"""Default memory for stored keys and values. bench/prm_cache.py measures what it is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """What every ``from_pretrained`` takes.

    Attributes:
        device: as torch names it.
        dtype: ``float32``, ``bfloat16`` or ``float16``. Only float32 gives scores that do not depend
            on the batch (to 1e-5).
        max_batch: solutions in a batch.
        max_wait: seconds a solution may wait for company.
        max_padded_tokens: solutions in a batch times the longest one's tokens.
        max_context: tokens it may read, where that is less than its config says.
        prefix_cache_bytes: memory, for each model of the PRM, that the keys and values of what was read
            may take, so that only new steps are computed; the least recently used go first. 0 keeps none.
        revision: of a Hub model.
        threads: torch's threads for the whole process; use 1 on a CPU below about 20M parameters.
    """

    device: str = "cpu"
    dtype: str = "float32"
    max_batch: int = 32
    max_wait: float = 0.002
    max_padded_tokens: int = 16384
    max_context: int | None = None
    prefix_cache_bytes: int = PREFIX_CACHE_BYTES
    revision: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.prefix_cache_bytes < 0:
            raise ConfigError(f"prefix_cache_bytes={self.prefix_cache_bytes} must not be negative")
        _ = self.batching

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LocalSettings:
        """Read keyword arguments.

        Raises:
            ConfigError: one is unknown or out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(f"unknown settings {', '.join(unknown)}; a PRM takes {', '.join(known)}")
        return cls(**given)

    @property
    def batching(self) -> BatcherConfig:
        """How batches are formed."""
        return BatcherConfig(max_batch=self.max_batch, max_wait=self.max_wait, max_padded_tokens=self.max_padded_tokens)
