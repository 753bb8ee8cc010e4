"""System prompts for general instruct models; it knows no tokenizer and no chat template."""

from __future__ import annotations

MATH_SYSTEM_PROMPT = (
    "Solve the problem step by step. Write one short step at a time, and leave one blank line between two steps. "
    "End with a step that gives the final answer, and nothing after it, as \\boxed{answer}."
)
"""Asks a general instruct model for what the library reads: steps between blank lines, the answer in ``\\boxed{}``.

A model that was trained on this form, such as the embedded one, needs no system prompt.
"""
