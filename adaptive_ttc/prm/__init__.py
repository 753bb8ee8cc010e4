"""Process reward models: the protocol, the readers of known families, a fake.

Importing it imports neither numpy, torch nor transformers; loading a model does.
"""

from typing import TYPE_CHECKING, Any

from adaptive_ttc.prm import families as families
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, TokenLogprobs, Traits
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.confidence import ConfidencePRM, ConfidenceSettings
from adaptive_ttc.prm.ensemble import EnsemblePRM
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.prm.generative import JUDGE, PAIRWISE, GenerativeVerifier, VerifierSettings
from adaptive_ttc.prm.registry import Family, PRMReader, known_prms, load_prm, register_prm

if TYPE_CHECKING:
    from adaptive_ttc.prm.local import BatchedPRM, LocalSettings

__all__ = [
    "JUDGE",
    "PAIRWISE",
    "BatchedPRM",
    "BatcherConfig",
    "BatcherStatistics",
    "ConfidencePRM",
    "ConfidenceSettings",
    "EnsemblePRM",
    "FakePRM",
    "Family",
    "GenerativeVerifier",
    "LocalSettings",
    "MicroBatcher",
    "PRMReader",
    "RewardModel",
    "ScoreRequest",
    "Scored",
    "TokenLogprobs",
    "Traits",
    "VerifierSettings",
    "known_prms",
    "load_prm",
    "register_prm",
]


def __getattr__(name: str) -> Any:
    if name in ("BatchedPRM", "LocalSettings"):  # their module imports torch
        from adaptive_ttc.prm import local

        return getattr(local, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
