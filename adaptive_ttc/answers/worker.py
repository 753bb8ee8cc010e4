"""The grading worker: a script that reads answers with math-verify and compares them, over JSON lines.

It runs untrusted text in a process of its own and imports nothing of this package. Its standard output
carries one line ``{"ready": ...}`` or ``{"error": ...}`` and then one line for each line of its standard input:

- ``{"read": text, "limit": seconds}`` -> ``{"value": bool}``: can it be read and evaluated?
- ``{"gold": text, "answer": text, "limit": seconds}`` -> ``{"value": bool}``: does the answer agree with the gold one?
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from zlib import crc32

# fmt: off
_FORBIDDEN_EVENTS = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.chown",
    "subprocess.Popen", "socket.__new__", "shutil.rmtree", "ctypes.dlopen",
}
# fmt: on
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Reading:
    """What an answer was read as."""

    parsed: list[Any]  # math-verify's own reading
    subject: str = ""  # what it assigns a value to (the ``y`` of ``y=2x``), or the empty string
    value: complex | None = None  # what it is worth at one fixed point, where it is worth a number


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """Parse one answer as LaTeX. The library's other reader evaluates Python text and is not used."""
    from math_verify import LatexExtractionConfig, parse  # type: ignore[import-untyped]
    from sympy import Eq, Symbol  # type: ignore[import-untyped]
    from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]

    latex = LatexExtractionConfig(boxed_match_priority=0)
    parsed = parse(r"\boxed{" + text + "}", extraction_config=[latex], parsing_timeout=None)
    if not parsed:
        return Reading([])
    what = parsed[0]
    if isinstance(what, Eq) and isinstance(what.lhs, Symbol | AppliedUndef) and not what.rhs.has(what.lhs):
        return Reading(parsed, str(what.lhs), _value(what.rhs))
    return Reading(parsed, "", _value(what))


def _value(expression: Any) -> complex | None:
    """The value of an ordinary expression where every variable has a fixed number for its name.

    None for what the library compares in other ways too: single names (as words), percentages (as two numbers), and all
    that is no expression (sets, tuples, equations, matrices).
    """
    from sympy import Expr, Float, Symbol, UnevaluatedExpr

    if not isinstance(expression, Expr) or isinstance(expression, Symbol) or expression.has(UnevaluatedExpr):
        return None
    point = {symbol: Float(1 + crc32(symbol.name.encode()) / 2**32) for symbol in expression.free_symbols}
    try:
        value = complex(expression.evalf(15, subs=point))
    except Exception:  # no number, or none that fits a float: there is no short cut for it
        return None
    return value if abs(value) < 1e12 else None


def readable(text: str) -> bool:
    """Whether the answer can be read, and survives a comparison with a plain number."""
    from math_verify import verify
    from sympy import Integer

    reading = read(text)
    if reading.parsed:
        verify(reading.parsed, [Integer(7)], timeout_seconds=None)
    return bool(reading.parsed)


def agree(gold: str, answer: str) -> bool:
    """Whether ``answer`` is right where ``gold`` is the right answer; not symmetric."""
    from math_verify import verify

    left, right = read(gold), read(answer)
    # What differs at one point, by more than the library's rounding to six places, needs no symbolic proof (a hundred
    # times the cost) that it differs.
    comparable = left.subject == right.subject and left.value is not None and right.value is not None
    if comparable and abs(left.value - right.value) > 1e-3:  # type: ignore[operator]
        return False
    return bool(verify(left.parsed, right.parsed, timeout_seconds=None))


def lock_down(memory_bytes: int) -> None:
    """Give up, for the rest of this process, what reading an answer does not need.

    Memory is bounded where the system can; starting processes, opening sockets and changing files are refused. A second
    line behind a parser that evaluates nothing; it does not hold against a hostile native extension.
    """
    sys.dont_write_bytecode = True
    if sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        bound = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        with contextlib.suppress(OSError, ValueError):  # not every system has this limit
            resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if writes or event in _FORBIDDEN_EVENTS:
            raise PermissionError(f"the grading worker may not do this: {event}")

    sys.addaudithook(refuse)


def _serve(line: bytes) -> bool:
    request = json.loads(line)
    try:
        _limit_cpu(request["limit"])
        return readable(request["read"]) if "read" in request else agree(request["gold"], request["answer"])
    except Exception:  # whatever an unreadable text makes the library raise, it is no answer
        return False
    finally:
        _limit_cpu(0)


def _limit_cpu(seconds: float) -> None:
    """Have the system end this process after so much more processor time; 0 lifts the limit.

    Processor time, as wall time would make the outcome depend on what else the machine does; by signal with no handler,
    as a handler waits for the interpreter, which a long multiplication does not enter.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> int:
    """Announce that the library works, then answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(1), "w", encoding="ascii")

    def reply(**fields: object) -> None:
        output.write(json.dumps(fields) + "\n")
        output.flush()

    try:
        if not (readable(r"\frac{1}{2}") and agree(r"\frac{1}{2}", "0.5") and not agree(r"\sqrt{2}", r"\sqrt{3}")):
            raise RuntimeError("math-verify fails its self-test")
    except Exception as error:
        reply(error=f"{type(error).__name__}: {error}")
        return 1
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    lock_down(int(sys.argv[1]) << 20)
    reply(ready=True)
    for line in sys.stdin.buffer:
        reply(value=_serve(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
