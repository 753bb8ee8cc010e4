"""Processes that measure and say each figure when it is known, and the report that takes these down at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from measuring import _shown, markdown_table, write_section

_MARK = "figures: "

Heard = Callable[[str, Mapping[str, float]], None]


def say(part: str, figures: Mapping[str, float]) -> None:
    """Say figures to the process that waits for them."""
    print(_MARK + json.dumps([part, dict(figures)]), flush=True)


def run_apart(command: Sequence[str], limit: float, environment: Mapping[str, str], heard: Heard) -> str:
    """Run a process that measures, hear its figures, and end it with its children after so many seconds.

    What else it prints goes to standard error. Returns what went wrong, or nothing.
    """
    cut = threading.Event()
    # a session of its own: the engines that it starts are ended with it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**environment, **os.environ}
    ) as process:

        def end() -> None:
            cut.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_MARK):
                    heard(*json.loads(line.removeprefix(_MARK)))
                else:
                    print(line, end="", file=sys.stderr, flush=True)
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if cut.is_set():
        return f"Cut after {limit:.0f} seconds."
    return f"Failed, with exit status {code}." if code else ""


@dataclass(slots=True)
class Report:
    """Prints figures, and writes them into a section of a file for each part; ``path`` None writes nothing.

    ``device`` names the card; ``head`` says by what command, where and when it was measured.
    """

    path: Path | None
    device: str
    head: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def hear(self, part: str, figures: Mapping[str, float]) -> None:
        """Take down some figures of a part, or that it has begun."""
        for name, value in figures.items():
            print(f"{part}  {name}  {_shown(value)}", flush=True)
        self.figures.setdefault(part, {}).update(figures)
        self._write(part)

    def end(self, part: str, note: str) -> None:
        """Take down what became of a part."""
        print(f"{part}  {note}", flush=True)
        self._write(part, note)

    def _write(self, part: str, note: str = "") -> None:
        if self.path is not None:
            rows = [(f"`{name}`", _shown(value)) for name, value in self.figures.get(part, {}).items()]
            text = [f"### {part}, on {self.device}", self.head, markdown_table(("figure", "value"), rows), note]
            write_section(self.path, f"{self.device}, {part}", "\n\n".join(text))
