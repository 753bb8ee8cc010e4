"""Process reward models: the protocol, the readers of known families, a fake; it knows no policy and no strategy.

Importing it imports neither torch nor transformers; loading a model does.
"""

from adaptive_ttc.prm import implicit, math_shepherd, qwen_math, rlhflow, self_verification, skywork
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest
from adaptive_ttc.prm.batched import BatchedPRM
from adaptive_ttc.prm.batcher import BatcherConfig, BatcherStatistics, MicroBatcher
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.prm.family import Family
from adaptive_ttc.prm.registry import PRMReader, known_prms, load_prm, register_prm
from adaptive_ttc.prm.settings import LocalSettings

__all__ = [
    "BatchedPRM",
    "BatcherConfig",
    "BatcherStatistics",
    "FakePRM",
    "Family",
    "LocalSettings",
    "MicroBatcher",
    "PRMReader",
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
        load=Family(format=rlhflow.FORMAT, parts=rlhflow.parts).load,
        names=r"llama3\.1-8b-prm-(deepseek|mistral)-data|^rlhflow/.*-prm\b",
    )
)
register_prm(PRMReader(name="implicit", load=Family(format=implicit.FORMAT, parts=implicit.parts).load))
register_prm(
    PRMReader(
        name="qwen-math",
        load=Family(format=qwen_math.FORMAT, parts=qwen_math.parts).load,
        names=r"qwen2\.5-math-(prm-|7b-prm800k)",
        architectures=("Qwen2ForProcessRewardModel",),
    )
)
register_prm(
    PRMReader(
        name="skywork",
        load=Family(format=skywork.FORMAT, parts=skywork.parts).load,
        names=r"skywork-o1-open-prm",
        architectures=("Qwen2ForPrmModel",),
    )
)
register_prm(
    PRMReader(
        name="math-shepherd",
        load=Family(format=math_shepherd.FORMAT, parts=math_shepherd.parts).load,
        names=r"math-shepherd-mistral-7b-prm",
    )
)
register_prm(
    PRMReader(
        name="self-verification",
        load=Family(format=self_verification.FORMAT, parts=self_verification.parts).load,
    )
)
