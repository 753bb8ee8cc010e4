"""A policy over Hugging Face causal language models, on CPU or GPU, with continuous batching of its own."""

from adaptive_ttc.policies.transformers.policy import TransformersPolicy

__all__ = ["TransformersPolicy"]
