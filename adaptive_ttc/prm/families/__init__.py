"""The families of PRMs that come with this library, and how each is recognised."""

from types import ModuleType

from adaptive_ttc.prm.families import implicit, math_shepherd, outcome, qwen_math, rlhflow, self_verification, skywork
from adaptive_ttc.prm.registry import Family, PRMReader, register_prm


def _register(name: str, module: ModuleType, names: str = "(?!)", architectures: tuple[str, ...] = ()) -> None:
    load = Family(format=module.FORMAT, parts=module.parts).load
    register_prm(PRMReader(name=name, load=load, names=names, architectures=architectures))


_register("rlhflow", rlhflow, r"llama3\.1-8b-prm-(deepseek|mistral)-data|^rlhflow/.*-prm\b")
_register("implicit", implicit)
_register("qwen-math", qwen_math, r"qwen2\.5-math-(prm-|7b-prm800k)", ("Qwen2ForProcessRewardModel",))
_register("skywork", skywork, r"skywork-o1-open-prm", ("Qwen2ForPrmModel",))
_register("math-shepherd", math_shepherd, r"math-shepherd-mistral-7b-prm")
_register("self-verification", self_verification)
_register("outcome", outcome, r"skywork-reward-", ("*ForSequenceClassification",))
