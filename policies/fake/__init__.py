"""A public fake policy: scripted or generative, seeded, counting tokens, holding and failing on demand; no torch."""

from adaptive_ttc.policies.fake.clock import VirtualTimeLoop
from adaptive_ttc.policies.fake.policy import FakePolicy, Hold
from adaptive_ttc.policies.fake.reasoning import ReasoningToy
from adaptive_ttc.policies.fake.writers import EOS, Script, ToyModel, Writer, toy_answer, toy_numbers, toy_right_so_far
from adaptive_ttc.prm.fake import Trouble

__all__ = [
    "EOS",
    "FakePolicy",
    "Hold",
    "ReasoningToy",
    "Script",
    "ToyModel",
    "Trouble",
    "VirtualTimeLoop",
    "Writer",
    "toy_answer",
    "toy_numbers",
    "toy_right_so_far",
]
