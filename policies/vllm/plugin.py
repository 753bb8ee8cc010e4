"""Registers the model classes of PRMs with own heads in every vLLM process; imports vLLM when called."""

from __future__ import annotations

QWEN2_BACKBONE = "AdaptiveTTCQwen2ForCausalLM"
OWN_HEADS = ("Qwen2ForProcessRewardModel", "Qwen2ForPrmModel")
"""Architectures in config.json whose transformer it is."""


def register() -> None:
    """An entry point of the group ``vllm.general_plugins``; calling it again does nothing."""
    from vllm import ModelRegistry

    if QWEN2_BACKBONE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(QWEN2_BACKBONE, "adaptive_ttc.policies.vllm.backbone:Qwen2Backbone")
