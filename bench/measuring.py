"""What every measurement shares: options, figures on the screen and as JSON, sections of RESULTS.md, a load meter."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import git_state, machine, writable, write_record
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.wrappers import WrappedPolicy

Figure = float | int | Sequence[float | int]

_ROOT = Path(__file__).resolve().parent.parent


def run_measurement(
    name: str, description: str | None, measure: Callable[..., Awaitable[Mapping[str, Figure]]], **options: Any
) -> None:
    """Read a measurement's options, measure, print the figures and write them with ``--json FILE``.

    Args:
        name: of the measurement.
        description: what ``--help`` says.
        measure: takes the options by name.
        **options: (default, help) of each; its type is that of the default, None being that of a whole number.
    """
    parser = parser_of(description)
    for option, (default, text) in options.items():
        kind = int if default is None else type(default)
        parser.add_argument(f"--{option.replace('_', '-')}", type=kind, default=default, help=text)
    asked = vars(parser.parse_args())
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of reading small files are noise here
    path = asked.pop("json")
    report(path, name, asyncio.run(measure(**asked)))


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A measurement's command line, with the ``--json FILE`` option."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json_option(parser)
    return parser


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Give a measurement's parser the ``--json FILE`` option."""
    parser.add_argument("--json", type=_file, metavar="FILE", help="write the figures to this file")


def _file(text: str) -> Path:
    try:
        return writable(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def write_report(path: Path | None, name: str, figures: Mapping[str, Figure]) -> None:
    """Write a measurement's figures.

    Args:
        path: the file; None writes nothing.
        name: of the measurement.
        figures: stable keys, numbers or lists of numbers.
    """
    if path is not None:
        write_record(path, name, command(), figures)


def report(path: Path | None, name: str, figures: Mapping[str, Figure]) -> None:
    """Print figures, a line each, whole numbers whole and others to four digits, and write them."""
    width = max(map(len, figures), default=0)
    for key, value in figures.items():
        print(f"{key:{width}}  {_shown(value)}")
    write_report(path, name, figures)


def _shown(value: Figure) -> str:
    if isinstance(value, Sequence):
        return " ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def command() -> str:
    """The command line of this run, with the script's path from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(_ROOT) if script.is_relative_to(_ROOT) else script
    return shlex.join(["python", str(shown), *sys.argv[1:]])


def write_section(path: Path, name: str, text: str) -> None:
    """Put text between the markers of that name; a file without them gets them at its end.

    Args:
        path: a Markdown file, made where there is none.
        name: of the section.
        text: Markdown.

    Raises:
        ConfigError: the file has one marker without the other, or one of them twice.
    """
    begin, end = f"<!-- {name}: begin, written by a command -->", f"<!-- {name}: end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in old and end not in old:
        old = (old.rstrip("\n") + "\n\n" if old.strip() else "") + f"{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    _, closing, after = rest.partition(end)
    if not closing or old.count(begin) != 1 or old.count(end) != 1:
        raise ConfigError(f"{path} must hold the line {begin} once, and after it {end} once")
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
    partial.replace(path)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, align, *rows))


def provenance() -> str:
    """The command, date, commit and machine of this run, for the head of a section."""
    facts = machine()
    return (
        f"`{command()}`, {datetime.now(UTC):%Y-%m-%d}, commit {git_state()[:12]}, {facts['processor']}, "
        f"{facts['cpus']} cores."
    )


def picture_links(pictures: Iterable[Path], results: Path) -> list[str]:
    """Markdown that shows the PNG files among the pictures in the file ``results``."""
    return [
        f"![{path.stem}]({Path(os.path.relpath(path, results.parent)).as_posix()})"
        for path in pictures
        if path.suffix == ".png"
    ]


class LoadMeter(WrappedPolicy):
    """A policy whose requests in flight and delivered tokens are measured.

    Attributes:
        tokens: delivered since the last reset.
        peak: the most requests that were in flight at once.
        busy: seconds with at least one request in flight.
        request_seconds: the same, once for every request in flight.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew; nothing may be in flight."""
        self.tokens = self.peak = 0
        self.busy = self.request_seconds = 0.0
        self._since = time.perf_counter()

    @property
    def concurrency(self) -> float:
        """Mean number of requests in flight while there was one."""
        return self.request_seconds / self.busy if self.busy else 0.0

    async def sample(self, request: SampleRequest) -> Sampled:
        """The policy's."""
        self._turn(1)
        try:
            sampled = await super().sample(request)
        finally:
            self._turn(-1)
        self.tokens += len(sampled.token_ids)
        return sampled

    def _turn(self, change: int) -> None:
        now = time.perf_counter()
        if self._in_flight:
            self.busy += now - self._since
            self.request_seconds += self._in_flight * (now - self._since)
        self._since = now
        self._in_flight += change
        self.peak = max(self.peak, self._in_flight)
