"""A policy over servers that speak the OpenAI protocol: vLLM, SGLang, any chat server, or a router before many."""

from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.policy import OpenAIPolicy

__all__ = ["FleetConfig", "OpenAIPolicy"]
