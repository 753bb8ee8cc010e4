"""Workers as Ray actors, on this machine or a cluster.

An actor may run on another machine: it receives the stored part of its shard and sends back what it drew. Every machine
of the cluster needs this package and the models, under the names or paths given to the command.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.workers import Job, ShardCollector, ShardResult
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError, install_command
from adaptive_ttc.evaluation.datasets import Row

LOCAL = "local"  # the address of a Ray that is started on this machine for as long as the collection takes
_STORE_BYTES = 128 * 2**20  # of shared memory for a Ray of our own: a shard is megabytes
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker that reserves no GPU still sees them, as a process does
    "RAY_worker_niceness": "0",  # they do what the command is for; by default Ray has all else go before them
}


class RayActor:
    """A worker that is a Ray actor and reserves ``gpus`` GPUs; ``ray`` is the module, connected."""

    def __init__(self, ray: Any, job: Job, gpus: float) -> None:
        self._ray, self._key = ray, job.key
        self._actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(ShardCollector).remote(job)

    def collect(
        self, rows: Sequence[Row], max_tokens_total: int | None, store: Store
    ) -> Future[ShardResult | AdaptiveTTCError]:
        """Begin a shard, as soon as the cluster has room for the actor."""
        with Store(":memory:") as stored:
            stored.copy_from(store, self._key, rows)
            part = stored.serialized()
        future: Future[ShardResult | AdaptiveTTCError] = self._actor.collect.remote(
            rows, max_tokens_total, part
        ).future()
        return future

    def close(self) -> None:
        """Close its models and end it."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.close.remote())
        self.kill()

    def kill(self) -> str | None:
        """End it now."""
        self._ray.kill(self._actor)
        return None


def ray_library() -> Any:
    """The module ``ray``; ConfigError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--ray needs Ray, which is not installed: {install_command('ray')}") from error
    return ray


@contextmanager
def ray_actors(job: Job, address: str, workers: int, gpus: float) -> Iterator[Callable[[], RayActor]]:
    """A context whose value starts actors in the Ray at ``address``; a Ray that it starts ends with it.

    ``address``: ``HOST:PORT``, ``auto`` or :data:`LOCAL`; each of the ``workers`` reserves ``gpus`` GPUs.
    """
    ray = ray_library()
    own = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if address == LOCAL:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what later versions of Ray will do; nothing that a person could change
        try:
            ray.init(address, log_to_driver=False, logging_level="error", **(own if address == LOCAL else {}))
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--ray {address}: no cluster answers ({str(error).strip().splitlines()[0]}): begin one with `ray "
                "start --head`, or leave the address out"
            ) from error
    try:
        room = ray.cluster_resources()
        if room.get("CPU", 0) < 1 or room.get("GPU", 0) < gpus:
            raise ConfigError(f"--ray {address}: no room for a worker, which takes 1 CPU and {gpus:g} GPUs")
        yield lambda: RayActor(ray, job, gpus)
    finally:
        ray.shutdown()
