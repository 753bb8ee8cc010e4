"""Records what a policy and a PRM did, and answers from such records without a model; no torch."""

from adaptive_ttc.policies.replay.policy import ReplayPolicy
from adaptive_ttc.policies.replay.prm import ReplayPRM
from adaptive_ttc.policies.replay.record import (
    Model,
    Record,
    RecordedProblem,
    RecordedSample,
    SampleSettings,
    load_record,
    save_record,
)
from adaptive_ttc.policies.replay.recorder import Recorder
from adaptive_ttc.policies.replay.traces import TracePolicy, TracePRM

__all__ = [
    "Model",
    "Record",
    "RecordedProblem",
    "RecordedSample",
    "Recorder",
    "ReplayPRM",
    "ReplayPolicy",
    "SampleSettings",
    "TracePRM",
    "TracePolicy",
    "load_record",
    "save_record",
]
