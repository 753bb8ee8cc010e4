"""Process reward models: the protocol, the readers of known families, a fake; it knows no policy and no strategy.

Importing it imports neither torch nor transformers; loading a model does.
"""

from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.prm.implicit import ImplicitPRM
from adaptive_ttc.prm.registry import PRMReader, known_prms, load_prm, register_prm
from adaptive_ttc.prm.rlhflow import RLHFlowPRM

__all__ = [
    "BatcherConfig",
    "BatcherStatistics",
    "FakePRM",
    "ImplicitPRM",
    "MicroBatcher",
    "PRMReader",
    "RLHFlowPRM",
    "RewardModel",
    "ScoreRequest",
    "Scored",
    "known_prms",
    "load_prm",
    "register_prm",
]

register_prm(
    PRMReader(
        name="rlhflow",
        load=RLHFlowPRM.from_pretrained,
        names=r"llama3\.1-8b-prm-(deepseek|mistral)-data|^rlhflow/.*-prm\b",
    )
)
register_prm(PRMReader(name="implicit", load=ImplicitPRM.from_pretrained))
