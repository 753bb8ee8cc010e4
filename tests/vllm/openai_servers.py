"""vLLM's own OpenAI server over the embedded policy or another, as a process that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2

from adaptive_ttc.loading import MINI_POLICY

START_LIMIT = 800.0
"""Seconds that a server may take to start; half a minute on two idle cores."""


class VLLMServer:
    """One replica, in a process group of its own.

    Attributes:
        url: its base URL.
    """

    def __init__(self, log: Path, *arguments: str, model: Path = MINI_POLICY) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = log
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--served-model-name", "mini", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--dtype", "float32", "--enforce-eager", "--block-size", "32", "--max-num-seqs", "64"),
            # a seeded request that is prefilled in parts kills vLLM 0.32 on a CPU
            "--no-enable-chunked-prefill",
            *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log", *arguments),
        ]
        with log.open("w") as stream:
            # a group, so that all of it is killed, and no session: Linux shares the cores between sessions
            # (sched_autogroup_enabled), and on two of them a busy one keeps this one waiting for many seconds at a time
            self._process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, process_group=0, env=_environment()
            )

    def wait(self) -> None:
        """Until it is up."""
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"the server ended with {self._process.returncode}:\n{self._log.read_text()[-4000:]}"
                )
            try:
                if httpx2.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.5)
        raise RuntimeError(f"the server was not up in {START_LIMIT:g} seconds:\n{self._log.read_text()[-4000:]}")

    def hang(self) -> None:
        """Stand still: connections stay open, and nothing is said."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Come back from that."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """As when its machine fails: no farewell. Killing it again does nothing."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def start(folder: Path, count: int, *arguments: str, model: Path = MINI_POLICY) -> Sequence[VLLMServer]:
    """So many replicas, started side by side and waited for."""
    servers = [VLLMServer(folder / f"server-{index}.log", *arguments, model=model) for index in range(count)]
    try:
        for server in servers:
            server.wait()
    except BaseException:
        for server in servers:
            server.kill()
        raise
    return servers


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        # a server runs its engine in a process of its own, unlike the engines of the other tests
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "OMP_NUM_THREADS": "1",
        # one that stands still for longer than it keeps idle connections (5 s) breaks off what it was sent meanwhile
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
    }
