"""Stand-in grading workers for tests: small scripts that speak the protocol and misbehave on request, and a space that
leaves everything but plain numbers to them."""

from __future__ import annotations

import os
import re
import sys
from fractions import Fraction
from pathlib import Path

from adaptive_ttc.answers import AnswerSpace, Grader, GradingConfig, canonical

SCRIPT = r"""
import json, os, sys, threading

def reply(**fields):
    print(json.dumps(fields), flush=True)

fifos = sys.argv[1]
if {start!r} == "traceback":
    raise ImportError("no such library")
if {start!r} == "error":
    reply(error="the self-test failed")
    sys.exit(1)
if {start!r} == "silent":
    threading.Event().wait()
print("a warning of some library")
reply(ready=True)
asked = 0
for line in sys.stdin:
    request = json.loads(line)
    text = request.get("read", request.get("answer"))
    print("noise between replies")
    if "die" in text:
        os._exit(3)
    if "hang" in text:
        if os.path.exists(fifos + "/hanging"):
            open(fifos + "/hanging", "w").write("now")
        threading.Event().wait()
    if "spin" in text:
        reply(lost="time", seconds=request["limit"], fresh=False, last=True)
        continue
    if "memory" in text and not os.path.exists(fifos + "/memory"):
        reply(lost="memory", seconds=0.0, fresh=True, last=True)
        continue
    asked += 1
    if "worn" in text and asked == 2:
        reply(lost="memory", seconds=0.0, fresh=False, last=True)
        continue
    if "slow" in text and "gold" in request:
        open(fifos + "/hanging", "w").write("now")
        open(fifos + "/go").read()
    reply(value="read" in request or sorted(request["gold"]) == sorted(text), seconds=0.01, last=False)
"""


class Asking(AnswerSpace):
    """Texts that the workers compare, and plain numbers; those without decimals have a key."""

    name = "asking"

    def canonical(self, answer: str) -> str:
        return canonical(answer)

    def key(self, answer: str) -> Fraction | None:
        return None if "." in answer else _number(answer)

    def equal(self, gold: str, answer: str) -> bool | None:
        mine, other = _number(gold), _number(answer)
        return None if mine is None or other is None else mine == other


def _number(text: str) -> Fraction | None:
    plain = re.sub(r"\\frac\{(.*)\}\{(.*)\}", r"\1/\2", text)
    return Fraction(plain) if re.fullmatch(r"-?[0-9]+(/[0-9]+|\.[0-9]+)?", plain) else None


ASKING = Asking()


def grader(config: GradingConfig) -> Grader:
    """A grader whose workers decide everything but plain numbers."""
    return Grader(config, ASKING)


def config(folder: Path, *, start: str = "ready", wall_limit: float = 60.0, start_limit: float = 60.0) -> GradingConfig:
    """A worker that takes answers of the same letters for equal; the words die, hang, spin, slow do what they say."""
    script = folder / "worker.py"
    script.write_text(SCRIPT.replace("{start!r}", repr(start)))
    command = (sys.executable, "-S", "-E", str(script), str(folder))
    return GradingConfig(time_limit=0.1, wall_limit=wall_limit, start_limit=start_limit, command=command)


def alive(pid: int) -> bool:
    """Whether a process of this id exists, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
