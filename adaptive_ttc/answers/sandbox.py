"""Runs Python programs that nobody trusts against their tests: in a process of its own, under limits, killed in time.

What holds, without any privilege, on Linux on x86-64 and arm64, by a system call filter and limits that the process
cannot lift (``sandbox_child.py``): it opens no socket, starts no process and signals none, changes no file, and has so
much memory and processor time; it begins with an empty environment, in an empty folder, in isolated mode (``-I``), in
a session that is killed as a group when its time is up; what it prints goes nowhere.

What does not hold: it may read whatever files this user may read (with nowhere to send what it reads); it shares the
kernel and the processor's caches with everything else; and it shares the interpreter with its tests, so that a program
written to deceive them can. For programs of a model that is an adversary, take a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError, GradingError

_MACHINES = ("x86_64", "aarch64")
_MOST_SAID = 64 << 10  # bytes that are read of a process
_MOST_PROGRAM = 1 << 20  # characters of a program
_START = 5.0  # seconds of wall time that a process may take beyond twice its processor time
_DYING = 1.0  # seconds that a process may take to end once it has closed its output
_PLACES = threading.BoundedSemaphore(os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take.

    Raises:
        ConfigError: a value out of range.
    """

    seconds: int = 5  # of processor time; of wall time it has twice that, and five seconds to start
    memory_mb: int = 512  # address space in MiB

    def __post_init__(self) -> None:
        for name, least in (("seconds", 1), ("memory_mb", 128)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} of a program is a whole number of at least {least}; got {value!r}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program fared."""

    passed: bool
    why: str = ""  # it did not pass; an exception and its message, ``time``, or ``died``


def check_available() -> None:
    """Refuse where programs cannot be confined (ConfigError)."""
    if sys.platform != "linux" or os.uname().machine not in _MACHINES:
        raise ConfigError(
            "programs of a model are run on Linux on x86-64 or arm64 alone, where a system call filter confines them: "
            "run this in a Linux container, or give the solver a check of your own (verify=)"
        )


def run_tests(program: str, tests: str, limits: Limits | None = None) -> Outcome:
    """Run a program and then its tests in one namespace; passed is what ends without an exception. It blocks.

    As many run at once as there are processors. GradingError: the process cannot be started or confined.
    """
    limits = limits or Limits()
    if len(program) > _MOST_PROGRAM:
        return Outcome(False, f"it is longer than {_MOST_PROGRAM:,} characters")
    task = {"program": program, "tests": tests, "memory": limits.memory_mb << 20, "seconds": limits.seconds}
    with _PLACES, tempfile.TemporaryDirectory(prefix="answer-") as folder, tempfile.TemporaryFile() as given:
        given.write(json.dumps(task).encode("ascii") + b"\n")
        given.seek(0)
        secret = secrets.token_hex(16)
        said = _said(given, secret, folder, _START + 2 * limits.seconds)
    if said is None:
        return Outcome(False, "time")
    if "refused" in said:
        raise GradingError(f"a program cannot be confined here ({said['refused']}): run this where seccomp is allowed")
    if "passed" in said:
        return Outcome(said["passed"] == secret, "" if said["passed"] == secret else "died")
    return Outcome(False, str(said.get("failed", "died")))


def _said(given: Any, secret: str, folder: str, seconds: float) -> dict[str, Any] | None:
    """The last words of a process; none of them where it died; None where it was killed when its time was up."""
    source, sink = os.pipe()
    try:
        os.write(sink, secret.encode("ascii"))
        process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", str(Path(__file__).with_name("sandbox_child.py")), str(source)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            pass_fds=(source,),
            start_new_session=True,
        )
    except OSError as error:
        raise GradingError(f"no process can be started for a program: {error}") from error
    finally:
        os.close(source)
        os.close(sink)
    assert process.stdout is not None
    try:
        text = _read(process.stdout.fileno(), time.monotonic() + seconds)
        if text == b"":
            with contextlib.suppress(subprocess.TimeoutExpired):
                text = None if process.wait(_DYING) == -signal.SIGXCPU else text
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()
    if text is None:
        return None
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _read(stream: int, deadline: float) -> bytes | None:
    """What is written until the stream is closed, up to a bound; None where that takes too long."""
    text = b""
    while len(text) < _MOST_SAID:
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        piece = os.read(stream, 1 << 14)
        if not piece:
            break
        text += piece
    return text
