"""How a family of PRMs is loaded, whichever engine then runs it; it knows no family itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.loading import prm_engine
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.prm.batched import BatchedPRM
from adaptive_ttc.prm.causal import Body, check_device, load_backbone, set_threads
from adaptive_ttc.prm.checkpoint import fingerprint, locate
from adaptive_ttc.prm.reader import Parts
from adaptive_ttc.prm.settings import LocalSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What differs between families when they are loaded.

    Attributes:
        format: version of what the reader makes of a request; part of every fingerprint.
        parts: called with the folder, a device and a number format; reads tokenizer and heads by name.
    """

    format: str
    parts: Callable[[Path, str, str], Parts]

    def load(self, path_or_hub: str | Path, *, engine: str = "transformers", **settings: Any) -> RewardModel:
        """Load one from a folder or from the Hub.

        Args:
            path_or_hub: a Hugging Face model folder, or ``owner/name``.
            engine: ``transformers`` runs it in this process's torch; others are entry points of the group
                ``adaptive_ttc.prms``, such as ``vllm``.
            **settings: of the engine; for ``transformers`` see :class:`~adaptive_ttc.prm.settings.LocalSettings`.

        Raises:
            ConfigError: the model cannot be found, loaded or read this way, or there is no such engine.
        """
        if engine == "transformers":
            return self.local(path_or_hub, **settings)
        prm: RewardModel = prm_engine(engine).from_family(self, path_or_hub, **settings)
        return prm

    def local(self, path_or_hub: str | Path, **settings: Any) -> BatchedPRM:
        """Load one to run in this process's torch; see :meth:`load`."""
        chosen = LocalSettings.of(settings)
        folder = locate(path_or_hub, revision=chosen.revision)
        check_device(chosen.device)
        parts = self.parts(folder, chosen.device, chosen.dtype)
        set_threads(chosen.threads)
        return BatchedPRM(
            parts.reader,
            [Body(load_backbone(part, device=chosen.device, dtype=chosen.dtype)) for part in parts.folders],
            name=str(path_or_hub),
            fingerprint=self.fingerprint(folder, parts, chosen.dtype),
            batching=chosen.batching,
            max_context=chosen.max_context,
            prefix_cache_bytes=chosen.prefix_cache_bytes,
        )

    def fingerprint(self, folder: Path, parts: Parts, dtype: str) -> str:
        """See :func:`adaptive_ttc.prm.checkpoint.fingerprint`; it covers models in sub-folders as well."""
        others = (fingerprint(part) for part in parts.folders if part != folder)
        return fingerprint(folder, self.format, dtype, *others)
