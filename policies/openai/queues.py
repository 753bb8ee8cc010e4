"""The length of a server's own queue, as it tells it: Prometheus metrics, or vLLM's ``/load``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

PATHS = ("/metrics", "/load")
"""Where it is told, beside ``/v1``; vLLM tells both, SGLang, llama.cpp and TGI the first where they are asked to."""

_RUNNING = frozenset(
    ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing", "tgi_batch_current_size")
)
_WAITING = frozenset(
    ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred", "tgi_queue_size")
)
_SAMPLE = re.compile(r"([\w:]+)(?:\{.*\})?\s+([0-9.eE+-]+)")


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests of all clients at one server."""

    running: int
    waiting: int


def read_queue(text: str) -> Queue | None:
    """What a server says; engines behind one address are added up. None where it tells nothing that is known."""
    try:
        told = json.loads(text)
        return Queue(max(0, int(told["server_load"])), 0)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        pass
    running = waiting = 0.0
    known = False
    for line in text.splitlines():
        if line.startswith("#") or not (sample := _SAMPLE.match(line)):
            continue
        name, value = sample[1], sample[2]
        if name in _RUNNING or name in _WAITING:
            try:
                number = max(0.0, float(value))
            except ValueError:
                continue
            known = True
            running, waiting = running + number * (name in _RUNNING), waiting + number * (name in _WAITING)
    return Queue(int(running), int(waiting)) if known and running + waiting < 2**31 else None
