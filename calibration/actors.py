"""Workers as actors of Ray, on this machine or a cluster; it knows nothing of what they say.

Every machine of a cluster needs this package and the models, under the names or paths that the command is given.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, cast

from adaptive_ttc.calibration.spread import Died, Hand, Heard
from adaptive_ttc.calibration.worker import Job, Message, Task, work
from adaptive_ttc.errors import ConfigError

LOCAL = "local"
"""The address of a Ray that is started on this machine for as long as the collection takes."""

_STORE_BYTES = 128 * 2**20  # of shared memory for a Ray of our own: what workers tell is kilobytes
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker that reserves no GPU still sees them, as a process does
    "RAY_worker_niceness": "0",  # they do what the command is for; by default Ray has all else go before them
}


def ray_library() -> Any:
    """The module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray, which is not installed: pip install 'adaptive-ttc[ray]'") from error
    return ray


class _Actor:
    """In a process of Ray: a worker in a thread of its own, and what has been said to and fro."""

    def __init__(self, job: Job) -> None:
        self._said: SimpleQueue[Message] = SimpleQueue()
        self._given: SimpleQueue[Task | None] = SimpleQueue()
        threading.Thread(target=self._live, args=(job,), daemon=True).start()

    def send(self, message: Message) -> None:
        self._said.put(message)

    def recv(self) -> Task | None:
        return self._given.get()

    def listen(self) -> list[Message]:
        """Wait for a message; with it, all that have been said."""
        messages = [self._said.get()]
        while not self._said.empty():
            messages.append(self._said.get())
        return messages

    def give(self, task: Task | None) -> None:
        self._given.put(task)

    def _live(self, job: Job) -> None:
        try:
            work(job, self)
        except BaseException:
            os._exit(1)  # a thread that ended without a last word would be waited for


@dataclass(slots=True, eq=False)
class Actor:
    """An actor, from outside; ``heard`` is the reply that is waited for."""

    ray: Any
    handle: Any
    heard: Any

    def give(self, task: Task | None) -> None:
        """Answer it; where it has died, the reply that is waited for tells."""
        self.handle.give.remote(task)

    def leave(self) -> None:
        """Its work is over, and its models are closed: there is nothing left to wait for."""
        self.end()

    def end(self) -> None:
        """End it now."""
        self.ray.kill(self.handle)


class Actors:
    """Starts actors and listens to them.

    Args:
        ray: the module, connected.
        gpus: that each reserves.
    """

    def __init__(self, ray: Any, gpus: float) -> None:
        self._ray = ray
        # Two calls at once: one listens, one gives. A dead actor stays dead: its problems go to a new one.
        self._kind = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2, max_restarts=0)(_Actor)

    def hire(self, job: Job) -> Actor:
        """Start one, as soon as there is room for it."""
        handle = self._kind.remote(job)
        return Actor(self._ray, handle, handle.listen.remote())

    def hear(self, hands: Collection[Hand]) -> list[Heard]:
        """Wait for the next messages of all that have something to say."""
        actors = {one.heard: one for one in cast(Collection[Actor], hands)}
        self._ray.wait(list(actors), num_returns=1)
        ready, _ = self._ray.wait(list(actors), num_returns=len(actors), timeout=0)
        return [Heard(actors[reply], message) for reply in ready for message in self._said(actors[reply])]

    def _said(self, actor: Actor) -> list[Message] | list[Died]:
        try:
            messages: list[Message] = self._ray.get(actor.heard)
        except self._ray.exceptions.RayError as error:
            return [Died(str(error).strip().splitlines()[0].rstrip("."))]
        actor.heard = actor.handle.listen.remote()
        return messages


@contextmanager
def actors_of(address: str, workers: int, gpus: float) -> Iterator[Actors]:
    """Actors of the Ray at an address; one that is started for them ends with them.

    Args:
        address: ``HOST:PORT`` or ``auto``, or :data:`LOCAL`.
        workers: how many there will be.
        gpus: that each reserves.

    Raises:
        ConfigError: Ray is not installed, there is none at this address, or it has no room for a worker.
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
        yield Actors(ray, gpus)
    finally:
        ray.shutdown()
