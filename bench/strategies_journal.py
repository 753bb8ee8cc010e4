"""What was found of every strategy at every N: the arms, and an append-only file of entries that survives a kill."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.strategies import make_strategy

POOL = "pool"
SAMPLES = 64
POOLED = ("majority", "best_of_n", "weighted_best_of_n")
BEAM_WIDTH = 4
WITH_BEAMS = ("beam_search", "dvts")


@dataclass(frozen=True, slots=True)
class Arm:
    """A strategy at one N.

    Raises:
        ConfigError: no such strategy, or it cannot be run at that N.
    """

    strategy: str
    n: int

    def __post_init__(self) -> None:
        if self.strategy != POOL:
            make_strategy(self.strategy, n=self.n, **self.width)
        if not 1 <= self.n <= SAMPLES and self.strategy in (POOL, *POOLED):
            raise ConfigError(f"--n {self.n}: a pool holds {SAMPLES} samples a problem; take n from 1 to {SAMPLES}")

    @property
    def request(self) -> dict[str, Any]:
        """What ``Solver.solve`` is asked for."""
        return {"strategy": self.strategy, "n": self.n, **self.width}

    @property
    def width(self) -> dict[str, int]:
        """M, for the strategies that have one."""
        return {"beam_width": BEAM_WIDTH} if self.strategy in WITH_BEAMS else {}


Key = tuple[str, int, str]
"""Strategy, N, and the problem's id."""

Entry = Mapping[str, Any]


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
