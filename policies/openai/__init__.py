"""A policy over servers that speak the OpenAI protocol: vLLM, SGLang, llama.cpp, or a router in front of many."""

from adaptive_ttc.policies.openai.config import FleetConfig
from adaptive_ttc.policies.openai.policy import OpenAIPolicy

__all__ = ["FleetConfig", "OpenAIPolicy"]
