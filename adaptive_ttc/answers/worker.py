"""The grading worker: a script that reads answers with math-verify and compares them, over JSON lines.

It runs untrusted text in a process of its own and imports nothing of this package. Its standard output
carries one line ``{"ready": ...}`` or ``{"error": ...}`` and then one line for each line of its standard input:

- ``{"read": text, "limit": seconds}``: can it be read and evaluated?
- ``{"gold": text, "answer": text, "limit": seconds}``: does the answer agree with the gold one?

A reply is ``{"value": bool, "seconds": s}``, or ``{"lost": "time" | "memory" | "death", "fresh": bool, "seconds": s}``
where there is no verdict; ``s`` is processor time. Questions are put to a forked child, which has the library loaded
and is replaced when it was lost, or holds much memory ("fresh" is one that was asked nothing before; ``last`` tells
that it goes). So the verdict on one answer does not depend on the answers that were read before it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any
from zlib import crc32

# fmt: off
_FORBIDDEN_EVENTS = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.chown",
    "subprocess.Popen", "socket.__new__", "shutil.rmtree", "ctypes.dlopen",
}
# fmt: on
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


_TYPICAL = (
    r"\frac{x^{2}-1}{x+1}",
    r"y=2\sqrt{3}\pi-0.5",
    r"\left(-\infty,\frac{1}{2}\right]\cup[3,4)",
    r"\{1,-2\}",
    r"x\le 5",
    r"\begin{pmatrix} 1 & a \\ 2 & b \end{pmatrix}",
    r"90^\circ",
    r"\text{no}",
    r"\sin(2x)+\log_{2} 7",
)


@dataclass(frozen=True)
class Reading:
    """What an answer was read as."""

    parsed: list[Any]  # math-verify's own reading
    subject: str = ""  # what it assigns a value to (the ``y`` of ``y=2x``), or the empty string
    expression: Any = None  # that, or what is assigned, where it is worth a number at one fixed point
    value: complex | None = None  # that number


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
    subject = ""
    if isinstance(what, Eq) and isinstance(what.lhs, Symbol | AppliedUndef) and not what.rhs.has(what.lhs):
        subject, what = str(what.lhs), what.rhs
    value = _value(what, 15)
    return Reading(parsed, subject, None if value is None else what, value if value is None else complex(value))


def _value(expression: Any, digits: int) -> Any:
    """The value of an ordinary expression where every variable has a fixed number for its name.

    None for what the library compares in other ways too: single names (as words), percentages (as two numbers), and all
    that is no expression (sets, tuples, equations, matrices).
    """
    from sympy import Expr, Rational, Symbol, UnevaluatedExpr

    if not isinstance(expression, Expr) or isinstance(expression, Symbol) or expression.has(UnevaluatedExpr):
        return None
    point = {symbol: 1 + Rational(crc32(symbol.name.encode()), 2**32) for symbol in expression.free_symbols}
    try:
        value = expression.evalf(digits, subs=point)
        return value if abs(complex(value)) < 1e12 else None
    except Exception:  # no number, or none that fits a float: there is no short cut for it
        return None


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
    from sympy import Float

    left, right = read(gold), read(answer)
    # What differs at one point needs no symbolic proof (a hundred times the cost) that it differs, and the library
    # would take exact values that differ by little for equal.
    if left.subject == right.subject and left.value is not None and right.value is not None:
        if abs(left.value - right.value) > 1e-3:
            return False
        if not left.expression.has(Float) and not right.expression.has(Float):
            first, second = (_value(one.expression, 60) for one in (left, right))
            if None not in (first, second) and abs(first - second) > 1e-40 * abs(first):
                return False
    return bool(verify(left.parsed, right.parsed, timeout_seconds=None))


@lru_cache(maxsize=1)
def warm_up() -> None:
    """Have the parser and SymPy build what they build at first use, so that later children need not, one after another.

    Done when the first child ends, as most processes need no second one.
    """
    for text in _TYPICAL:
        readable(text)
    read.cache_clear()


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


class _MemoryLog(logging.Handler):
    """Sees the errors that the library catches, logs and takes for "unequal"."""

    full = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], MemoryError):
            self.full = True


class Reader:
    """Answers questions in this process, until it holds more memory than another question should find."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._log = _MemoryLog()
        logger = logging.getLogger("math_verify")
        logger.handlers, logger.propagate = [self._log], False
        logger.setLevel(logging.DEBUG)
        self._least = _peak_bytes()

    def answer(self, line: bytes) -> dict[str, Any]:
        """The reply to one request; with ``last``, the process is to end."""
        request = json.loads(line)
        before = time.process_time()
        try:
            _limit_cpu(request["limit"])
            value = readable(request["read"]) if "read" in request else agree(request["gold"], request["answer"])
        except MemoryError:
            self._log.full = True
        except Exception:  # whatever an unreadable text makes the library raise, it is no answer
            value = False
        finally:
            _limit_cpu(0)
        seconds = time.process_time() - before
        grown = _peak_bytes() - self._least
        # The library swallows some MemoryErrors without a word, so that half the bound is already too much.
        if self._log.full or grown > self._memory // 2:
            return {"lost": "memory", "seconds": seconds, "last": True}
        return {"value": value, "seconds": seconds, "last": grown > self._memory // 8}


def _peak_bytes() -> int:
    """The most memory that this process has held, from its fork on; one that was executed inherits its parent's."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _limit_cpu(seconds: float) -> None:
    """Have the system end this process after so much more processor time; 0 lifts the limit.

    Processor time, as wall time would make the outcome depend on what else the machine does; by signal with no handler,
    as a handler waits for the interpreter, which a long multiplication does not enter.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


class Child:
    """A fork of this process that answers questions until its last reply, its death, or the end of its input."""

    def __init__(self, memory_bytes: int) -> None:
        requests, replies = os.pipe(), os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            for end in (0, requests[1], replies[0]):
                os.close(end)
            os._exit(_answer_all(os.fdopen(requests[0], "rb"), os.fdopen(replies[1], "wb", 0), memory_bytes))
        os.close(requests[0])
        os.close(replies[1])
        self._input, self._output = os.fdopen(requests[1], "wb", 0), os.fdopen(replies[0], "rb")
        self._asked = 0
        self._seconds = 0.0

    def ask(self, line: bytes) -> dict[str, Any]:
        """The child's reply, or why there is none; with ``last``, it has ended and is to be replaced."""
        self._asked += 1
        with contextlib.suppress(BrokenPipeError):
            self._input.write(line)
        said = self._output.readline()
        reply: dict[str, Any] = json.loads(said) if said else {"lost": "death", "last": True}
        if reply["last"]:
            self._input.close()
            self._output.close()
            _, status, used = os.wait4(self._pid, 0)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
                reply["lost"] = "time"
            reply.setdefault("seconds", used.ru_utime + used.ru_stime - self._seconds)
        if "lost" in reply:
            reply["fresh"] = self._asked == 1
        self._seconds += reply["seconds"]
        return reply


def _answer_all(requests: IO[bytes], replies: IO[bytes], memory_bytes: int) -> int:
    lock_down(memory_bytes)
    reader = Reader(memory_bytes)
    for line in requests:
        reply = reader.answer(line)
        replies.write(json.dumps(reply).encode("ascii") + b"\n")
        if reply["last"]:
            break
    return 0


def main() -> int:
    """Announce that the library works, then answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(1), "wb", 0)

    def reply(fields: dict[str, Any]) -> None:
        output.write(json.dumps(fields).encode("ascii") + b"\n")

    try:
        if not (readable(r"\frac{1}{2}") and agree(r"\frac{1}{2}", "0.5") and not agree(r"\sqrt{2}", r"\sqrt{3}")):
            raise RuntimeError("math-verify fails its self-test")
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        return 1
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    gc.collect()
    gc.freeze()  # what is loaded stays shared between this process and its children
    reply({"ready": True})
    memory_bytes = int(sys.argv[1]) << 20
    if not hasattr(os, "fork"):
        return _answer_all(sys.stdin.buffer, output, memory_bytes)
    child: Child | None = None
    for line in sys.stdin.buffer:
        child = child or Child(memory_bytes)
        answer = child.ask(line)
        reply(answer)
        if answer["last"]:
            child = None
            warm_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
