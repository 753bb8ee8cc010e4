"""Process reward models: the protocol, the readers of known families, a fake; it knows no policy and no strategy.

Importing it imports neither torch nor transformers; loading a model does.
"""

from types import ModuleType

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


def _register(name: str, module: ModuleType, names: str = "(?!)", architectures: tuple[str, ...] = ()) -> None:
    load = Family(format=module.FORMAT, parts=module.parts).load
    register_prm(PRMReader(name=name, load=load, names=names, architectures=architectures))


_register("rlhflow", rlhflow, r"llama3\.1-8b-prm-(deepseek|mistral)-data|^rlhflow/.*-prm\b")
_register("implicit", implicit)
_register("qwen-math", qwen_math, r"qwen2\.5-math-(prm-|7b-prm800k)", ("Qwen2ForProcessRewardModel",))
_register("skywork", skywork, r"skywork-o1-open-prm", ("Qwen2ForPrmModel",))
_register("math-shepherd", math_shepherd, r"math-shepherd-mistral-7b-prm")
_register("self-verification", self_verification)
