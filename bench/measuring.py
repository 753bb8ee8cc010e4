"""What measurements share: options, figures on screen and as JSON, sections of RESULTS.md, a journal, a load meter."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from adaptive_ttc.cli import exit_code, interruption
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.driver.state import derive_seed
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.markdown import command as command
from adaptive_ttc.evaluation.markdown import markdown_table as markdown_table
from adaptive_ttc.evaluation.markdown import picture_links as picture_links
from adaptive_ttc.evaluation.markdown import provenance as provenance
from adaptive_ttc.evaluation.markdown import write_section as write_section
from adaptive_ttc.evaluation.metrics import Interval
from adaptive_ttc.evaluation.result_file import writable, write_record
from adaptive_ttc.events import Route
from adaptive_ttc.policy import Policy, Sampled, SampleRequest
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import Prefix, Problem
from adaptive_ttc.wrappers import WrappedPolicy

Key = tuple[str, int, str]
"""Strategy, N, and the problem's id."""

Entry = Mapping[str, Any]

Figure = float | int | Sequence[float | int]
Figures = Mapping[str, Figure]

_ROOT = Path(__file__).resolve().parent.parent


def run_measurement(
    name: str, description: str | None, measure: Callable[..., Coroutine[Any, Any, Figures]], **options: Any
) -> None:
    """Read a measurement's options, measure, print the figures and write them with ``--json FILE``.

    ``measure`` takes the options by name; each is given as (default, help), and has the type of its default, where None
    stands for a whole number.
    """
    parser = parser_of(description)
    for option, (default, text) in options.items():
        kind = int if default is None else type(default)
        parser.add_argument(f"--{option.replace('_', '-')}", type=kind, default=default, help=text)
    asked = vars(parser.parse_args())
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of reading small files are noise here
    path = asked.pop("json")
    work = partial(measure, **asked)
    sys.exit(exit_code(lambda: report(path, name, interruption.run(work)), interrupted="nothing is kept"))


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


def write_report(path: Path | None, name: str, figures: Figures) -> None:
    """Write a measurement's figures, whose keys are stable, into that file; None writes nothing."""
    if path is not None:
        write_record(path, name, command(), figures)


def report(path: Path | None, name: str, figures: Figures) -> None:
    """Print figures, a line each, whole numbers whole and others to four digits, and write them."""
    width = max(map(len, figures), default=0)
    for key, value in figures.items():
        print(f"{key:{width}}  {_shown(value)}")
    write_report(path, name, figures)


def bounds(one: Interval) -> list[float]:
    """A mean and its interval as a figure."""
    return [one.mean, one.low, one.high]


def _shown(value: Figure) -> str:
    if isinstance(value, Sequence):
        return " ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def progress_bar(console: Console) -> Progress:
    """A bar with a description, a count and times, which goes away when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


@dataclass(frozen=True, slots=True)
class Timed:
    """Tokens, the seconds that they took, and the share of prompt tokens that a cache answered."""

    tokens: int
    seconds: float
    cached_share: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def sample_of(
    policy: Policy, problem: Problem, prompt: tuple[int, ...], request: Expand, parent: Prefix, path: Route, seed: int
) -> Sample:
    """A sample as a solver of that seed would begin it."""
    return Sample(
        parent=parent,
        path=path,
        seed=derive_seed(seed, problem.id, path),
        request=request,
        prompt_ids=prompt,
        max_context=policy.max_context,
        decode=policy.decode,
    )


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


class Journal:
    """One JSON object a line: the run's settings first, then an entry for every problem of every arm.

    An entry is appended whole the moment it is known. What a killed run left half-written is cut off when
    the file is opened again, so that the run goes on with what is missing.

    Args:
        path: the file; it is made, with its folder, where there is none.
        settings: all that entries depend on besides their keys: models, problems, seed. Values of JSON.

    Raises:
        ConfigError: the file cannot be written, holds something else, or was begun with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = writable(path)
        self._entries: dict[Key, Entry] = {}
        lines = self._whole_lines()
        if not lines:
            self._append({"settings": dict(settings)})
            return
        self._check(lines[0], settings)
        for entry in lines[1:]:
            self._entries[_key(entry)] = entry

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def __getitem__(self, key: Key) -> Entry:
        return self._entries[key]

    def add(self, entry: Entry) -> None:
        """Keep an entry with the keys ``strategy``, ``n`` and ``problem``, here and in the file."""
        key = _key(entry)
        self._append(entry)
        self._entries[key] = entry

    def missing(self, strategy: str, n: int, problems: Iterable[str]) -> list[str]:
        """Those of the problems that have no entry, in their order."""
        return [problem for problem in problems if (strategy, n, problem) not in self._entries]

    def _whole_lines(self) -> Sequence[dict[str, Any]]:
        """All lines; a last one without its end is cut off in the file too."""
        if not self.path.exists():
            return []
        whole, end, rest = self.path.read_bytes().rpartition(b"\n")
        if rest:
            with self.path.open("r+b") as file:
                file.truncate(len(whole + end))
        return [self._parsed(line, number) for number, line in enumerate(whole.splitlines(), start=1)]

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{self.path}, line {number} is not JSON ({error}); name another folder") from error
        if not isinstance(value, dict) or (number > 1 and not {"strategy", "n", "problem"} <= value.keys()):
            raise ConfigError(f"{self.path}, line {number} is no entry of a measurement; name another folder")
        return value

    def _check(self, opening: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        begun = opening.get("settings")
        if not isinstance(begun, dict):
            raise ConfigError(f"{self.path} is no journal of a measurement; name another folder")
        names = [name for name in {**begun, **settings} if begun.get(name) != settings.get(name)]
        if names:
            told = ", ".join(f"{name} {begun.get(name)!r}, now {settings.get(name)!r}" for name in names)
            raise ConfigError(f"{self.path} was begun with other settings ({told}); name another folder, or delete it")

    def _append(self, entry: Entry) -> None:
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())


def _key(entry: Entry) -> Key:
    return entry["strategy"], entry["n"], entry["problem"]
